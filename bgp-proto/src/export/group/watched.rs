//! What a group advertises differently, for monitoring stations.

use crate::export::Except;
use crate::rib::DestId;

/// A path that is advertised differently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) dest: DestId,
    /// Its identifier, 0 without ADD-PATH.
    pub(crate) tx: u32,
    /// If it was advertised before: whom it was not sent to.
    pub(crate) before: Option<Except>,
}

/// Changes in the present slice; none are noted unless somebody watches.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) is_on: bool,
    pub(crate) changed: Vec<Change>,
}

impl Watched {
    #[inline]
    pub(super) fn note(&mut self, dest: DestId, tx: u32, before: Option<Except>) {
        if self.is_on {
            self.changed.push(Change { dest, tx, before });
        }
    }
}
