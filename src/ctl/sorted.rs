//! Positions in sorted lists of prefixes.

use std::sync::Arc;

use bgp_proto::types::{Prefix, Prefix4, Prefix6};

/// A position in a sorted list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixCursor {
    /// A part of the list.
    pub prefixes: SortedPrefixes,
    /// How many of them have been shown.
    pub at: usize,
    /// Whether there may be more prefixes after the last one of the part.
    pub has_more: bool,
    /// How many prefixes may still be shown; `None`: any number.
    pub left: Option<u32>,
}

/// Sorted prefixes of one family: those of IPv4 take a sixth of the memory of [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortedPrefixes {
    /// IPv4.
    V4(Arc<[Prefix4]>),
    /// IPv6.
    V6(Arc<[Prefix6]>),
}

impl SortedPrefixes {
    /// A list of one.
    pub fn one(prefix: Prefix) -> Self {
        match prefix {
            Prefix::V4(prefix) => SortedPrefixes::V4([prefix].into()),
            Prefix::V6(prefix) => SortedPrefixes::V6([prefix].into()),
        }
    }

    /// Their number.
    pub fn len(&self) -> usize {
        match self {
            SortedPrefixes::V4(prefixes) => prefixes.len(),
            SortedPrefixes::V6(prefixes) => prefixes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last one.
    pub fn last(&self) -> Option<Prefix> {
        match self {
            SortedPrefixes::V4(prefixes) => prefixes.last().copied().map(Prefix::from),
            SortedPrefixes::V6(prefixes) => prefixes.last().copied().map(Prefix::from),
        }
    }

    /// At most `most` of them, from a position on.
    pub fn page(&self, at: usize, most: usize) -> Vec<Prefix> {
        fn some<P: Copy + Into<Prefix>>(all: &[P], at: usize, most: usize) -> Vec<Prefix> {
            all.iter().skip(at).take(most).map(|prefix| (*prefix).into()).collect()
        }
        match self {
            SortedPrefixes::V4(prefixes) => some(prefixes, at, most),
            SortedPrefixes::V6(prefixes) => some(prefixes, at, most),
        }
    }
}
