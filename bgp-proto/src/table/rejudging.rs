//! Routes are judged anew in slices after import has changed, so that a full table holds up nobody.
//!
//! A route keeps its old verdict until its turn comes. What the peer sends meanwhile is judged by the
//! present parameters at once, and judging it once more changes nothing.

use super::Table;
use super::import::{Importer, Liveness};
use super::slices::{End, HeldSet};
use crate::rib::{DestId, NextHopId, Path, PathFlags, SparseSet};
use crate::types::{Family, PeerId, Prefix};

impl Table {
    /// What a peer sent is judged again under its present parameters.
    pub(super) fn reimport(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.unjudged = held.dests.clone();
        }
        self.rejudging.insert(id);
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
                    known.family_mut(family).unjudged.insert(id);
                    self.rejudging.insert(peer);
                }
            }
        }
    }

    /// Judges a slice of what waits.
    pub(super) fn rejudge_in_slices(&mut self) {
        let mut left = self.dests_per_turn;
        while left > 0
            && let Some(id) = self.rejudging.first().copied()
        {
            left = self.rejudge_some(id, left);
        }
    }

    /// Judges at most `max` destinations' paths of a peer; returns what is left of `max`.
    fn rejudge_some(&mut self, id: PeerId, max: u32) -> u32 {
        let Some(importer) = self.importer(id, Liveness::Any) else {
            self.rejudging.remove(&id);
            return max;
        };
        let unjudged: HeldSet = |held| &mut held.unjudged;
        let (left, end) = self.drain(id, unjudged, max, |table, family, dest| {
            table.rejudge_dest(id, &importer, family, dest);
        });
        if end == End::Reached {
            self.rejudging.remove(&id);
        }
        left
    }

    fn rejudge_dest(&mut self, peer: PeerId, importer: &Importer, family: Family, dest: DestId) {
        let dests = &self.rib(family).dests;
        let paths: Vec<Path> = dests
            .paths(dest)
            .iter()
            .filter(|path| path.source == importer.source)
            .copied()
            .collect();
        if paths.is_empty() {
            return;
        }
        let prefix = dests.prefix(dest);
        for path in paths {
            self.rejudge(peer, importer, family, dest, prefix, path);
        }
    }

    fn rejudge(
        &mut self,
        peer: PeerId,
        importer: &Importer,
        family: Family,
        dest: DestId,
        prefix: Prefix,
        path: Path,
    ) {
        let name = (family, dest, path.source, path.path_id);
        let kept = self.received.get(&name).copied();
        let (received, hop) = kept.unwrap_or((path.attrs, path.next_hop));
        let judged = self.judge(importer, prefix, received, hop);
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
        self.release_judged(&judged);
    }
}
