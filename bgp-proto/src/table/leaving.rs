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
    pub(super) fn let_go(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peer_mut(id) else { return };
        let held = peer.family_mut(family);
        let dests = std::mem::take(&mut held.dests);
        held.unjudged = SparseSet::default();
        (held.received, held.accepted, held.stale, held.warned) = (0, 0, false, false);
        if held.leaving.is_empty() {
            held.leaving = dests;
        } else {
            for dest in dests.iter() {
                held.leaving.insert(dest);
            }
        }
        if !held.leaving.is_empty() {
            self.leaving.insert(id);
        }
    }

    /// Takes a slice of what leaves out.
    pub(super) fn leave_in_slices(&mut self) {
        let mut left = self.dests_per_turn;
        while left > 0
            && let Some(id) = self.leaving.first().copied()
        {
            left = self.leave_some(id, left);
        }
    }

    /// The same for all that is left of one peer's, now.
    pub(super) fn leave_at_once(&mut self, id: PeerId) {
        if self.leaving.contains(&id) {
            self.leave_some(id, u32::MAX);
        }
    }

    /// What a peer says about a destination is about its present session: what an earlier one left
    /// there goes first.
    #[inline]
    pub(super) fn leave_dest(&mut self, id: PeerId, family: Family, dest: DestId) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.family_mut(family).leaving.remove(dest.0) {
            self.take_leaver_out(id, family, dest);
        }
    }

    /// Takes at most `max` destinations' paths of a peer out; returns what is left of `max`.
    fn leave_some(&mut self, id: PeerId, max: u32) -> u32 {
        let leaving: HeldSet = |held| &mut held.leaving;
        let (left, end) = self.drain(id, leaving, max, |table, family, dest| {
            table.take_leaver_out(id, family, dest);
        });
        if end == End::Reached {
            self.leaving.remove(&id);
            self.bury_peer(id);
        }
        left
    }

    fn take_leaver_out(&mut self, id: PeerId, family: Family, dest: DestId) {
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
