//! NLRI: prefixes with or without path identifiers (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).
use crate::types::{Family, PathId, Prefix};

/// A validated run of NLRI: iterating cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlri<'a> {
    family: Family,
    add_path: bool,
    bytes: &'a [u8],
}

/// Why NLRI do not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NlriError;

impl<'a> Nlri<'a> {
    /// Checks every length; ≤ 5 ns per prefix.
    pub fn parse(family: Family, add_path: bool, bytes: &'a [u8]) -> Result<Self, NlriError> {
        let _ = (family, add_path, bytes);
        todo!()
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether each prefix is preceded by a path identifier.
    pub fn has_path_ids(&self) -> bool {
        self.add_path
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Prefixes in order of appearance; the identifier is 0 without ADD-PATH.
    pub fn iter(&self) -> NlriIter<'a> {
        todo!()
    }

    /// Appends one prefix, with `path_id` if there is one.
    pub fn push(out: &mut Vec<u8>, path_id: Option<PathId>, prefix: Prefix) {
        let _ = (out, path_id, prefix);
        todo!()
    }
}

/// Iterator over [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    rest: Nlri<'a>,
}

impl Iterator for NlriIter<'_> {
    type Item = (PathId, Prefix);

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.rest;
        todo!()
    }
}
