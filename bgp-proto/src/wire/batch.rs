//! The routes of one read from a peer, in order, for the table.
use super::Nlri;
use crate::types::{Family, NextHop};
use std::ops::Range;

/// What happened to the prefixes of an entry.
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
    /// The peer requests the family again (RFC 2918); no prefixes.
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
    /// What happened to them.
    pub action: RouteAction,
}

/// A sequence of route events from one peer, in the order of receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteBatch {
    bytes: Vec<u8>,
    entries: Vec<RouteEntry>,
    /// Attributes of the latest announcement: runs of UPDATEs often repeat them.
    latest_attrs: Range<u32>,
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
        Nlri::validated(entry.family, entry.add_path, self.attrs(&entry.nlri))
    }
    /// Appends an announcement or a withdrawal; attributes equal to the previous announcement's are
    /// stored once. Runs without a prefix leave no entry.
    pub fn push(&mut self, nlri: Nlri<'_>, announce: Option<(&[u8], NextHop)>) {
        if nlri.is_empty() {
            return;
        }
        let action = match announce {
            Some((attrs, next_hop)) => {
                if self.attrs(&self.latest_attrs) != attrs {
                    self.latest_attrs = self.store(attrs);
                }
                RouteAction::Announce { attrs: self.latest_attrs.clone(), next_hop }
            }
            None => RouteAction::Withdraw,
        };
        let range = self.store(nlri.as_bytes());
        self.entries.push(RouteEntry {
            family: nlri.family(),
            add_path: nlri.has_path_ids(),
            nlri: range,
            action,
        });
    }
    /// Appends a marker: End-of-RIB or one of the refresh actions.
    pub fn push_marker(&mut self, family: Family, action: RouteAction) {
        self.entries.push(RouteEntry { family, add_path: false, nlri: 0..0, action });
    }
    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.latest_attrs = 0..0;
    }

    /// A batch holds the routes of one read, so that positions fit 32 bits easily; if they did not,
    /// the range would be empty rather than wrong.
    fn store(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        match (u32::try_from(start), u32::try_from(self.bytes.len())) {
            (Ok(start), Ok(end)) => start..end,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn entries_keep_their_order_and_equal_attributes_are_stored_once() {
        let nlri = Nlri::parse(Family::Ipv4, false, &[8, 10, 8, 11]).unwrap();
        let hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut batch = RouteBatch::default();
        assert!(batch.is_empty());
        batch.push(nlri, Some((b"attributes", hop)));
        batch.push(nlri, None);
        batch.push(nlri, Some((b"attributes", hop)));
        batch.push(nlri, Some((b"others", hop)));
        batch.push_marker(Family::Ipv4, RouteAction::EndOfRib);
        let read: Vec<_> = batch
            .entries()
            .iter()
            .map(|e| match &e.action {
                RouteAction::Announce { attrs, .. } => batch.attrs(attrs),
                RouteAction::Withdraw => b"withdraw",
                _ => b"marker",
            })
            .collect();
        assert_eq!(read, [&b"attributes"[..], b"withdraw", b"attributes", b"others", b"marker"]);
        assert_eq!(batch.bytes.len(), 10 + 6 + 4 * 4);
        assert!(batch.entries()[..4].iter().all(|e| batch.nlri(e).count() == 2));
        batch.clear();
        assert_eq!((batch.is_empty(), batch.size()), (true, 0));
    }

    #[test]
    fn a_batch_without_attributes_does_not_borrow_those_of_the_last() {
        let nlri = Nlri::parse(Family::Ipv4, false, &[0]).unwrap();
        let mut batch = RouteBatch::default();
        batch.push(nlri, None);
        batch.push(nlri, Some((b"", NextHop::V4(Ipv4Addr::LOCALHOST))));
        let RouteAction::Announce { attrs, .. } = &batch.entries()[1].action else { panic!() };
        assert_eq!(batch.attrs(attrs), b"");
    }
}
