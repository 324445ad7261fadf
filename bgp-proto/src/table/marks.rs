//! Destinations that are visited once each, however often they were marked.

use crate::rib::{DestId, LocRib, WorkSet};
use crate::types::{Family, FamilyMap};

/// Marked destinations: some of each family, and all those of a range.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) some: FamilyMap<WorkSet>,
    all: FamilyMap<Span>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from: u32,
    to: u32,
}

impl Marks {
    #[inline]
    pub(super) fn mark(&mut self, family: Family, dest: DestId) {
        self.some[family].insert(dest.0);
    }

    pub(super) fn mark_all(&mut self, rib: &LocRib) {
        for family in Family::ALL {
            self.all[family] = Span { from: 0, to: rib.dests(family).slots() };
        }
    }

    pub(super) fn contains(&self, family: Family, dest: DestId) -> bool {
        let Span { from, to } = self.all[family];
        self.some[family].contains(dest.0) || (from..to).contains(&dest.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.some.0.iter().all(WorkSet::is_empty) && self.all.0.iter().all(|all| all.from >= all.to)
    }

    /// Removes and returns the next one of a family.
    pub(super) fn pop(&mut self, family: Family) -> Option<DestId> {
        if let Some(id) = self.some[family].pop() {
            return Some(DestId(id));
        }
        let all = &mut self.all[family];
        (all.from < all.to).then(|| {
            all.from += 1;
            DestId(all.from - 1)
        })
    }

    /// Frees the memory of destinations from `slots` on, which no longer exist.
    pub(super) fn truncate(&mut self, family: Family, slots: u32) {
        self.some[family].truncate(slots);
    }
}
