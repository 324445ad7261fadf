//! What one read from a peer becomes: routes on their way to the table, in order.
use super::Nlri;
use crate::types::{Family, NextHop};
use std::ops::Range;

/// What an entry says about its prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Announced with these canonical attributes (a range of the batch's bytes) and next hop.
    Announce {
        /// Canonical attributes.
        attrs: Range<u32>,
        /// Next hop.
        next_hop: NextHop,
    },
    /// Withdrawn.
    Withdraw,
    /// End-of-RIB for the family; no prefixes.
    EndOfRib,
    /// The peer wants the family again (RFC 2918); no prefixes.
    RefreshRequest,
    /// BoRR (RFC 7313); no prefixes.
    RefreshBegin,
    /// EoRR; no prefixes.
    RefreshEnd,
}

/// One run of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The family.
    pub family: Family,
    /// Whether the NLRI carry path identifiers.
    pub add_path: bool,
    /// Validated NLRI, a range of the batch's bytes.
    pub nlri: Range<u32>,
    /// What is said about them.
    pub action: RouteAction,
}

/// A sequence of route events from one peer, in the order of receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteBatch {
    bytes: Vec<u8>,
    entries: Vec<RouteEntry>,
}

impl RouteBatch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Octets held, for flow control: bytes plus entries.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<RouteEntry>()
    }
    /// The entries in order.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }
    /// The canonical attributes of an announcement.
    pub fn attrs(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
    /// The prefixes of an entry.
    pub fn nlri(&self, entry: &RouteEntry) -> Nlri<'_> {
        let _ = entry;
        todo!()
    }
    /// Appends an announcement or a withdrawal; attributes equal to the previous entry's are stored once.
    pub fn push(&mut self, nlri: Nlri<'_>, announce: Option<(&[u8], NextHop)>) {
        let _ = (nlri, announce);
        todo!()
    }
    /// Appends a marker: End-of-RIB or one of the refresh actions.
    pub fn push_marker(&mut self, family: Family, action: RouteAction) {
        let _ = (family, action);
        todo!()
    }
    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
