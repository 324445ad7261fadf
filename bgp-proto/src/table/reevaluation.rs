//! Routes are judged anew in slices after import has changed, so that a full table holds up nobody.
//!
//! A route keeps its old verdict until its turn comes. What the peer sends meanwhile is judged by the
//! present parameters at once, and judging it once more changes nothing.

use super::Table;
use super::import::{ImportContext, Liveness};
use super::slices::{End, HeldSet};
use crate::rib::{DestId, NextHopId, Path, PathFlags, SparseSet};
use crate::types::{Family, PeerId, Prefix};

impl Table {
    /// What a peer sent is judged again under its present parameters.
    pub(super) fn reimport(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.to_reevaluate = held.dests.clone();
        }
        self.reevaluating.insert(id);
    }

    /// A next hop is reached by another interface: import policies that look at it judge the paths
    /// through it again.
    pub(super) fn reimport_moved(&mut self, hop: NextHopId, family: Family, dests: &SparseSet) {
        let held = &self.ribs[family.index()].dests;
        for id in dests.iter() {
            let paths = held.paths(DestId(id)).iter().filter(|path| path.next_hop == hop);
            for peer in paths.filter_map(|path| path.source.peer()) {
                if let Some(known) = self.peers.get_mut(peer.index()).and_then(Option::as_mut)
                    && known.routes.import.looks_at_interface()
                {
                    known.family_mut(family).to_reevaluate.insert(id);
                    self.reevaluating.insert(peer);
                }
            }
        }
    }

    /// Judges a slice of what waits.
    pub(super) fn reevaluate_in_slices(&mut self) {
        let mut left = self.dests_per_turn;
        while left > 0
            && let Some(id) = self.reevaluating.first().copied()
        {
            left = self.reevaluate_some(id, left);
        }
    }

    /// Judges at most `max` destinations' paths of a peer; returns what is left of `max`.
    fn reevaluate_some(&mut self, id: PeerId, max: u32) -> u32 {
        let Some(context) = self.context(id, Liveness::Any) else {
            self.reevaluating.remove(&id);
            return max;
        };
        let to_reevaluate: HeldSet = |held| &mut held.to_reevaluate;
        let (left, end) = self.drain(id, to_reevaluate, max, |table, family, dest| {
            table.reevaluate_dest(id, &context, family, dest);
        });
        if end == End::Reached {
            self.reevaluating.remove(&id);
        }
        left
    }

    fn reevaluate_dest(
        &mut self,
        peer: PeerId,
        context: &ImportContext,
        family: Family,
        dest: DestId,
    ) {
        let dests = &self.rib(family).dests;
        let paths: Vec<Path> = dests
            .paths(dest)
            .iter()
            .filter(|path| path.source == context.source)
            .copied()
            .collect();
        if paths.is_empty() {
            return;
        }
        let prefix = dests.prefix(dest);
        for path in paths {
            self.reevaluate_path(peer, context, family, dest, prefix, path);
        }
    }

    fn reevaluate_path(
        &mut self,
        peer: PeerId,
        context: &ImportContext,
        family: Family,
        dest: DestId,
        prefix: Prefix,
        path: Path,
    ) {
        let name = (family, dest, path.source, path.path_id);
        let kept = self.received.get(&name).copied();
        let (received, hop) = kept.unwrap_or((path.attrs, path.next_hop));
        let judged = self.judge(context, prefix, received, hop);
        let mut flags = judged.flags;
        for mark in [PathFlags::STALE, PathFlags::UNREFRESHED] {
            if path.flags.has(mark) {
                flags.set(mark);
            }
        }
        let new = Path { attrs: judged.attrs, next_hop: judged.next_hop, flags, ..path };
        if new != path {
            self.put(peer, dest, family, new, judged.received);
        }
        self.release_imported(&judged);
    }
}
