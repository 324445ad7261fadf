//! What was not sent of one RIB in one family.

use std::collections::BTreeSet;

use crate::rib::{DestId, SparseSet};
use crate::types::Prefix;

/// A withdrawn prefix in its ordered set.
const WITHDRAWN_OCTETS: u64 = 48;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EndOfRib {
    Due,
    #[default]
    Sent,
}

/// Progress of one RIB in one family.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// The initial state was sent of destinations below; `None`: of all.
    pub(super) walk: Option<u32>,
    /// Whether End-of-RIB was sent after the initial state.
    end: EndOfRib,
    /// Destinations that have a path and have changed since they were sent.
    pub(super) changed: SparseSet,
    /// Prefixes, with their path identifiers, that were withdrawn since.
    pub(super) withdrawn: BTreeSet<(Prefix, u32)>,
}

impl Feed {
    /// With nothing sent yet.
    pub(super) fn begin() -> Feed {
        Feed { walk: Some(0), end: EndOfRib::Due, ..Feed::default() }
    }

    pub(super) fn octets(&self) -> u64 {
        self.changed.octets() + self.withdrawn.len() as u64 * WITHDRAWN_OCTETS
    }

    pub(super) fn is_up_to_date(&self) -> bool {
        self.walk.is_none()
            && self.end == EndOfRib::Sent
            && self.changed.is_empty()
            && self.withdrawn.is_empty()
    }

    /// Whether End-of-RIB follows; it does once.
    pub(super) fn end_of_rib_due(&mut self) -> bool {
        self.walk.is_none() && std::mem::take(&mut self.end) == EndOfRib::Due
    }

    fn has_sent(&self, dest: DestId) -> bool {
        self.walk.is_none_or(|at| dest.0 < at)
    }

    #[inline]
    pub(super) fn changed(&mut self, dest: DestId) {
        if self.has_sent(dest) {
            self.changed.insert(dest.0);
        }
    }

    pub(super) fn withdrawn(&mut self, dest: DestId, prefix: Prefix, path_id: u32, is_last: bool) {
        if !self.has_sent(dest) {
            return;
        }
        if is_last {
            self.changed.remove(dest.0);
        }
        self.withdrawn.insert((prefix, path_id));
    }

    /// Removes and returns the next destination that changed.
    pub(super) fn pop_changed(&mut self) -> Option<DestId> {
        let popped = self.changed.pop_last().map(DestId);
        if popped.is_none() {
            // An empty set keeps the memory of its largest size.
            self.changed = SparseSet::new();
        }
        popped
    }
}
