//! Routes of sessions that are over leave in slices, so that a full table's end holds up nobody.
//!
//! What a peer held when its session ended is moved aside at once: it counts as the peer's no more,
//! and a new session begins with nothing. The paths themselves stay usable until a turn takes them
//! out, or until the peer says something about their destination, whichever is first.

use super::Table;
use super::slices::{End, HeldSet};
use crate::rib::{DestId, SparseSet};
use crate::types::{Family, PeerId};

impl Table {
    /// Everything that a peer holds in a family leaves.
    pub(super) fn begin_withdrawal(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peer_mut(id) else { return };
        let held = peer.family_mut(family);
        let dests = std::mem::take(&mut held.dests);
        held.to_reevaluate = SparseSet::default();
        (held.received, held.accepted, held.stale, held.warned) = (0, 0, false, false);
        if held.withdrawing.is_empty() {
            held.withdrawing = dests;
        } else {
            for dest in dests.iter() {
                held.withdrawing.insert(dest);
            }
        }
        if !held.withdrawing.is_empty() {
            self.withdrawing.insert(id);
        }
    }

    /// Takes a slice of what leaves out.
    pub(super) fn withdraw_in_slices(&mut self) {
        let mut left = self.dests_per_turn;
        while left > 0
            && let Some(id) = self.withdrawing.first().copied()
        {
            left = self.withdraw_some(id, left);
        }
    }

    /// The same for all that is left of one peer's, now.
    pub(super) fn finish_withdrawal(&mut self, id: PeerId) {
        if self.withdrawing.contains(&id) {
            self.withdraw_some(id, u32::MAX);
        }
    }

    /// What a peer says about a destination is about its present session: what an earlier one left
    /// there goes first.
    #[inline]
    pub(super) fn withdraw_leftover(&mut self, id: PeerId, family: Family, dest: DestId) {
        if self.withdrawing.is_empty() {
            return;
        }
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.family_mut(family).withdrawing.remove(dest.0) {
            self.withdraw_paths_of(id, family, dest);
        }
    }

    /// Takes at most `max` destinations' paths of a peer out; returns what is left of `max`.
    fn withdraw_some(&mut self, id: PeerId, max: u32) -> u32 {
        let withdrawing: HeldSet = |held| &mut held.withdrawing;
        let (left, end) = self.drain(id, withdrawing, max, |table, family, dest| {
            table.withdraw_paths_of(id, family, dest);
        });
        if end == End::Reached {
            self.withdrawing.remove(&id);
            self.finish_removal(id);
        }
        left
    }

    fn withdraw_paths_of(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(source) = self.peer(id).map(|peer| peer.source) else { return };
        loop {
            let rib = self.rib_mut(family);
            let found = rib.dests.paths(dest).iter().position(|path| path.source == source);
            let Some(at) = found else { return };
            let path = rib.dests.withdraw(dest, at);
            rib.touched.insert(dest.0);
            self.release_path(family, dest, &path);
        }
    }
}
