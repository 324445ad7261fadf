//! What a group advertises differently, for monitoring stations.

use crate::export::Except;
use crate::rib::{DestId, Destinations, SourceId};
use crate::types::Family;

/// A path that is advertised differently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) dest: DestId,
    /// Its identifier, 0 without ADD-PATH.
    pub(crate) tx: u32,
    /// If it was advertised before: whom it was not sent to.
    pub(crate) before: Option<Except>,
    /// If it is advertised: whom it is not sent to.
    pub(crate) after: Option<Except>,
}

/// What has happened to groups, in its order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Noted {
    /// A group has flushed a path.
    Changed { group: u32, family: Family, change: Change },
    /// A group has evaluated what it is to advertise of a destination, whatever came of it.
    Evaluated { group: u32, family: Family, evaluated: Evaluated },
    /// A member is in another group, and was sent what it was sent in the one before.
    Moved { source: SourceId, family: Family, from: u32, to: u32 },
}

/// A destination that a group has evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evaluated {
    pub(crate) dest: DestId,
    pub(crate) best: Best,
}

/// Whether a destination has a path that can be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Best {
    There,
    Gone,
}

/// What is noted, because somebody watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    /// What is advertised differently.
    pub(crate) changes: bool,
    /// What was evaluated.
    pub(crate) evaluations: bool,
}

impl Watch {
    pub(crate) fn is_on(self) -> bool {
        self.changes || self.evaluations
    }
}

/// What has happened in the present slice.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) watch: Watch,
    pub(crate) changed: Vec<Change>,
    pub(crate) evaluated: Vec<Evaluated>,
}

impl Watched {
    #[inline]
    pub(super) fn note(
        &mut self,
        dest: DestId,
        tx: u32,
        before: Option<Except>,
        after: Option<Except>,
    ) {
        if self.watch.changes {
            self.changed.push(Change { dest, tx, before, after });
        }
    }

    #[inline]
    pub(super) fn note_evaluated(&mut self, dest: DestId, dests: &Destinations) {
        if self.watch.evaluations {
            self.push_evaluated(dest, dests);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_evaluated(&mut self, dest: DestId, dests: &Destinations) {
        let best = if dests.best(dest).is_some() { Best::There } else { Best::Gone };
        self.evaluated.push(Evaluated { dest, best });
    }

    /// Takes what was noted of this group.
    pub(crate) fn take(&mut self, group: u32, family: Family, noted: &mut Vec<Noted>) {
        let changed = self.changed.drain(..);
        noted.extend(changed.map(|change| Noted::Changed { group, family, change }));
        let evaluated = self.evaluated.drain(..);
        noted.extend(evaluated.map(|evaluated| Noted::Evaluated { group, family, evaluated }));
    }
}
