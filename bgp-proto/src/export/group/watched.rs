//! What a group advertises differently, for monitoring stations.

use crate::export::Except;
use crate::rib::{DestId, SourceId};
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
    /// A member is in another group, and was sent what it was sent in the one before.
    Moved { source: SourceId, family: Family, from: u32, to: u32 },
}

/// Changes in the present slice; none are noted unless somebody watches.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) is_on: bool,
    pub(crate) changed: Vec<Change>,
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
        if self.is_on {
            self.changed.push(Change { dest, tx, before, after });
        }
    }
}
