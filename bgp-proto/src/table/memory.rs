//! What the table holds in octets, and who is shed when it is too much.
//!
//! Counted is what is alive, not what the allocator keeps: the same routes are the same number on
//! every machine. A peer answers for its paths, and for its share of the attributes that it has in
//! common with others.

use super::{CloseReason, Peer, Table, Totals};
use crate::rib::AttrId;
use crate::types::{Family, FamilyMap, PeerId, Time};

/// A destination and its places in the indexes.
const DESTINATION_OCTETS: u64 = 44;
/// A path and its mark in what the peer holds.
const PATH_OCTETS: u64 = 24;
/// An attribute set besides its octets.
const SET_OCTETS: u64 = 72;
/// A path that a group was told.
const TOLD_OCTETS: u64 = 4;

/// Octets held, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Destinations.
    pub destinations: u64,
    /// Paths.
    pub paths: u64,
    /// Attribute sets, each once.
    pub attributes: u64,
    /// What groups remember of what they told.
    pub advertised: u64,
    /// Encoded messages that some member has not read.
    pub logs: u64,
}

impl Memory {
    /// All parts.
    pub fn total(&self) -> u64 {
        self.destinations + self.paths + self.attributes + self.advertised + self.logs
    }
}

/// Whose bound was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBound {
    /// The peer's own (`PeerRoutes::memory_max`).
    Peer,
    /// The table's (`TableConfig::memory_max`): the peer is the one that holds most.
    Table,
}

impl Table {
    /// What is held, by part.
    pub fn memory(&self) -> Memory {
        let Totals { destinations, paths, attribute_sets, .. } = self.sizes();
        let of_both = |count: FamilyMap<u32>| count.0.map(u64::from).iter().sum::<u64>();
        let groups = || self.groups.values();
        Memory {
            destinations: of_both(destinations) * DESTINATION_OCTETS,
            paths: of_both(paths) * PATH_OCTETS,
            attributes: u64::from(attribute_sets) * SET_OCTETS + self.attrs.octets(),
            advertised: groups().map(|g| u64::from(g.advertised())).sum::<u64>() * TOLD_OCTETS,
            logs: groups().map(|g| g.log.counts().0 as u64).sum(),
        }
    }

    /// What a peer answers for. Costs a look at each of its paths.
    pub(super) fn held_octets(&self, id: PeerId) -> u64 {
        let Some(source) = self.peer(id).map(|peer| peer.source) else { return 0 };
        let mut octets = 0;
        for family in Family::ALL {
            let dests = &self.rib(family).dests;
            for dest in self.held_dests(id, family) {
                let paths = dests.paths(dest);
                for path in paths.iter().filter(|path| path.source == source) {
                    octets += PATH_OCTETS + DESTINATION_OCTETS / paths.len() as u64;
                    octets += self.share_of(path.attrs);
                    let name = (family, dest, source, path.path_id);
                    octets +=
                        self.received.get(&name).map_or(0, |(attrs, _)| self.share_of(*attrs));
                }
            }
        }
        octets
    }

    fn share_of(&self, attrs: AttrId) -> u64 {
        let octets = SET_OCTETS + self.attrs.view(attrs).as_bytes().len() as u64;
        octets / u64::from(self.attrs.refs(attrs).max(1))
    }

    /// Octets of routes came from a peer. What it holds cannot have grown by much more than that, so
    /// its paths are looked at only once in a while.
    pub(super) fn note_octets(&mut self, now: Time, id: PeerId, octets: usize) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(bound) = peer.routes.memory_max else { return };
        peer.unreviewed += octets as u64;
        if peer.unreviewed < bound / 16 || peer.close.is_some() {
            return;
        }
        peer.unreviewed = 0;
        let held = self.held_octets(id);
        if held > bound {
            let bound_of = MemoryBound::Peer;
            self.order_close(now, id, CloseReason::MemoryLimit { bound_of, held, bound });
        }
    }

    /// Names the peer that holds most if all together hold too much; one at a time, so that nobody
    /// is shed whose routes would have fitted once the other's were gone.
    pub(super) fn review_memory(&mut self, now: Time) {
        let Some(bound) = self.config.memory_max else { return };
        let held = self.memory().total();
        // What is on its way out is counted until it is gone.
        if held <= bound
            || !self.withdrawing.is_empty()
            || self.peers.iter().flatten().any(Peer::is_shed)
        {
            return;
        }
        let up = self.peers.iter().flatten().filter(|peer| peer.up.is_some()).filter_map(peer_id);
        let worst = up.map(|id| (self.held_octets(id), std::cmp::Reverse(id))).max();
        if let Some((1.., std::cmp::Reverse(id))) = worst {
            let bound_of = MemoryBound::Table;
            self.order_close(now, id, CloseReason::MemoryLimit { bound_of, held, bound });
        }
    }
}

impl Peer {
    /// The host was asked to close the session because of what it holds.
    fn is_shed(&self) -> bool {
        let reason = self.close.as_ref().map(|order| order.reason);
        matches!(reason, Some(CloseReason::MemoryLimit { .. }))
    }
}

fn peer_id(peer: &Peer) -> Option<PeerId> {
    peer.source.peer()
}
