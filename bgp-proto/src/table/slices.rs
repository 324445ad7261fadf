//! What is done about the destinations of a peer a slice at a time.

use super::Table;
use super::peer::PeerFamily;
use crate::rib::{DestId, SparseSet};
use crate::types::{Family, PeerId};

/// One of the sets of destinations that a peer has in each family.
pub(super) type HeldSet = fn(&mut PeerFamily) -> &mut SparseSet;

/// Whether anything is left of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Reached,
    Ahead,
}

impl Table {
    /// Takes at most `max` destinations out of a peer's set and does `each` about them. Returns what
    /// is left of `max`. Of a peer that does not exist nothing is left.
    pub(super) fn drain(
        &mut self,
        id: PeerId,
        set: HeldSet,
        max: u32,
        mut each: impl FnMut(&mut Table, Family, DestId),
    ) -> (u32, End) {
        let mut left = max;
        for family in Family::ALL {
            while left > 0
                && let Some(peer) = self.peer_mut(id)
                && let Some(dest) = set(peer.family_mut(family)).pop_last()
            {
                each(self, family, DestId(dest));
                left -= 1;
            }
        }
        let is_empty = |peer: &mut super::Peer| {
            Family::ALL.into_iter().all(|family| set(peer.family_mut(family)).is_empty())
        };
        let end = if self.peer_mut(id).is_none_or(is_empty) { End::Reached } else { End::Ahead };
        (left, end)
    }
}
