//! Memory accounting of the table in octets, and which session is closed when it exceeds a bound.
//!
//! Counts live data, not free capacity. A peer is charged for its paths, for its share of the
//! attributes and next hops that it has in common with others, and for its queued inputs.
//!
//! Memory is shed by cause: first stale routes of peers that are down (RFC 4724 §4.2 allows it at
//! any time), then slow readers, then the peer whose routes hold most.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::peer::Pass;
use super::{CloseReason, Table};
use crate::export::MemberKey;
use crate::rib::{AttrId, DestId, Meter, NextHopId};
use crate::types::{Family, PeerId, Time};

/// A destination and its entries in the indexes, shared by its paths.
const DESTINATION_OCTETS: u64 = 44;
/// A path and its share of the peer's set of destinations.
const PATH_OCTETS: u64 = 24;
/// Received attributes and next hop of a path that import changed.
const RECEIVED_OCTETS: u64 = 36;
/// A local route, with its hops and attributes.
const LOCAL_OCTETS: u64 = 320;
/// An attribute set besides its octets.
const SET_OCTETS: u64 = 80;
/// A next hop with its address, its indexes and the set of destinations that use it.
const NEXT_HOP_OCTETS: u64 = 430;
/// A reader that has pending data and reads nothing for this long is slow.
const SLOW_AFTER: Duration = Duration::from_millis(500);
/// Slow readers are looked for once logs and advertised routes hold this fraction (1/8) of the
/// bound.
const READERS_SHARE: u64 = 8;

/// Octets held, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Destinations.
    pub destinations: u64,
    /// Paths.
    pub paths: u64,
    /// Attribute sets, each once.
    pub attributes: u64,
    /// Next hops, with what depends on each.
    pub next_hops: u64,
    /// Advertised state of update groups.
    pub advertised: u64,
    /// Encoded messages that some member has not read, with their bookkeeping.
    pub logs: u64,
    /// Queued route events: in the table, and with the host as it reports.
    pub inputs: u64,
    /// What is held for monitoring stations: changes and messages that they have not been sent, and peers.
    pub monitors: u64,
}

impl Memory {
    /// All parts.
    pub fn total(&self) -> u64 {
        let Memory {
            destinations,
            paths,
            attributes,
            next_hops,
            advertised,
            logs,
            inputs,
            monitors,
        } = *self;
        destinations + paths + attributes + next_hops + advertised + logs + inputs + monitors
    }
}

/// The bound that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBound {
    /// The peer's own (`PeerLimits::memory_max`).
    Peer,
    /// The table's (`TableConfig::memory_max`): the peer is the one that holds most.
    Table,
}

/// The search for the peer that holds too much, which takes several turns.
#[derive(Default)]
pub(super) struct MemoryReview {
    /// Peers that may hold more than their own bound.
    suspects: VecDeque<PeerId>,
    weighing: Option<Weighing>,
    readers: Option<Readers>,
}

/// Progress in adding up what peers are charged for.
struct Weighing {
    bound_of: MemoryBound,
    /// Peers to be weighed; the last one is in progress.
    peers: Vec<PeerId>,
    family: usize,
    /// Destinations of the last peer are weighed up to here.
    from: u32,
    octets: u64,
    heaviest: Option<(u64, PeerId)>,
}

/// How far readers had read when the bound was found exceeded.
struct Readers {
    at: Time,
    read: BTreeMap<(u32, MemberKey), u64>,
}

impl MemoryReview {
    pub(super) fn is_running(&self) -> bool {
        self.weighing.is_some() || !self.suspects.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.readers.as_ref().map(|readers| readers.at + SLOW_AFTER)
    }
}

impl Table {
    /// Octets held, by part.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for family in Family::ALL {
            let dests = self.loc_rib.dests(family);
            let each = match family {
                Family::Ipv4 => DESTINATION_OCTETS,
                Family::Ipv6 => DESTINATION_OCTETS + 12,
            };
            memory.destinations += u64::from(dests.len()) * each;
            memory.paths += u64::from(dests.path_count()) * PATH_OCTETS;
        }
        memory.paths += self.loc_rib.received_len() * RECEIVED_OCTETS;
        memory.paths += self.loc_rib.local.len() as u64 * LOCAL_OCTETS;
        memory.destinations += self.kernel.octets();
        let attrs = &self.loc_rib.attrs;
        memory.attributes = u64::from(attrs.len()) * SET_OCTETS + attrs.octets();
        memory.next_hops = u64::from(self.loc_rib.hops.len()) * NEXT_HOP_OCTETS;
        (memory.logs, memory.advertised) = self.adj_ribs_out.octets(&self.loc_rib);
        let queued = self.peers.iter().map(|peer| peer.input_octets).sum::<u64>();
        memory.inputs = queued + self.host_octets;
        memory.monitors = self.monitors.octets();
        memory
    }

    /// Sets how many octets the host holds on behalf of peers: batches that wait for credit, and
    /// octets that were read and not parsed.
    pub fn set_host_octets(&mut self, octets: u64) {
        self.host_octets = octets;
    }

    fn share_of(&self, attrs: AttrId) -> u64 {
        let octets = SET_OCTETS + self.loc_rib.attrs.view(attrs).as_bytes().len() as u64;
        octets / u64::from(self.loc_rib.attrs.refs(attrs).max(1))
    }

    fn share_of_hop(&self, hop: NextHopId) -> u64 {
        NEXT_HOP_OCTETS / u64::from(self.loc_rib.hops.refs(hop).max(1))
    }

    /// What a peer is charged for at one destination.
    fn held_at(&self, id: PeerId, family: Family, dest: DestId) -> u64 {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return 0 };
        let paths = self.loc_rib.dests(family).paths(dest);
        let of = paths.iter().filter(|path| path.source == source).map(|path| {
            let received = self.loc_rib.received(&(family, dest, source, path.path_id));
            PATH_OCTETS
                + DESTINATION_OCTETS / paths.len() as u64
                + self.share_of(path.attrs)
                + self.share_of_hop(path.next_hop)
                + received.map_or(0, |(attrs, _)| self.share_of(attrs))
        });
        of.sum()
    }

    /// Counts octets of routes received from a peer. Its memory cannot have grown by much more than
    /// that, so its paths are weighed only occasionally.
    pub(super) fn note_octets(&mut self, id: PeerId, octets: usize) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(bound) = peer.routes.limits.memory_max else { return };
        peer.unreviewed += octets as u64;
        if peer.unreviewed >= bound / 16 && peer.close.is_none() {
            peer.unreviewed = 0;
            if !self.memory_review.suspects.contains(&id) {
                self.memory_review.suspects.push_back(id);
            }
        }
    }

    /// Sheds memory if the bound is exceeded. Only one session is closed at a time, so that none is
    /// closed whose routes would have fitted once those of another were withdrawn.
    pub(super) fn review_memory(&mut self, now: Time, meter: &mut Meter) {
        if self.memory_review.weighing.is_some() {
            return self.weigh(now, meter);
        }
        if let Some(id) = self.memory_review.suspects.pop_front() {
            return self.begin_weighing(MemoryBound::Peer, vec![id]);
        }
        let Some(bound) = self.config.memory_max else { return };
        let memory = self.memory();
        let without = memory.total() - memory.monitors;
        // What is held for stations is dropped before anything happens to a session.
        if memory.total() > bound && memory.monitors > 0 {
            self.monitors.evict_all();
        }
        let held = without;
        meter.spend(self.adj_ribs_out.groups.len() as u32);
        if held <= bound {
            self.memory_review.readers = None;
            return;
        }
        // Routes that are being withdrawn are counted until they are removed.
        if self.peers.is_withdrawing() || self.peers.iter().any(|peer| peer.is_shed()) {
            return;
        }
        if self.drop_stale(meter) {
            return;
        }
        if self.has_slow_readers(now, bound) {
            return;
        }
        let up = self.peers.iter().filter(|peer| peer.up.is_some());
        let peers = up.filter_map(|peer| peer.source.peer()).collect();
        self.begin_weighing(MemoryBound::Table, peers);
    }

    /// Withdraws the stale routes of one peer that is down, or is back and has not announced them
    /// again. Returns whether there was one.
    fn drop_stale(&mut self, meter: &mut Meter) -> bool {
        let mut any = false;
        for id in self.peers.ids() {
            for family in Family::ALL {
                let Some(peer) = self.peers.get(id) else { continue };
                if !peer.family(family).retention.is_stale() {
                    continue;
                }
                any = true;
                if peer.up.is_some() {
                    self.cut_stale_short(id, family, meter);
                } else {
                    self.withdraw_stale(id, family);
                }
            }
            if any {
                let name = self.peer_name(id).to_owned();
                self.note(format!(
                    "{name}: stale routes are withdrawn early: memory-max is passed"
                ));
                return true;
            }
        }
        false
    }

    /// Whether slow readers may be the cause: the slowest of the largest group has been closed, or
    /// it is not known yet which readers are slow.
    fn has_slow_readers(&mut self, now: Time, bound: u64) -> bool {
        let (logs, advertised) = self.adj_ribs_out.octets(&self.loc_rib);
        if logs + advertised < bound / READERS_SHARE {
            return false;
        }
        let Some(before) = &self.memory_review.readers else {
            let read = self.readers();
            let any = !read.is_empty();
            self.memory_review.readers = any.then_some(Readers { at: now, read });
            return any;
        };
        if now < before.at + SLOW_AFTER {
            return true;
        }
        let present = self.readers();
        let stuck = |key: &(u32, MemberKey)| before.read.get(key) == present.get(key);
        let slow: Vec<u32> = present.keys().filter(|key| stuck(key)).map(|key| key.0).collect();
        let weight = |group: &u32| {
            let group = self.adj_ribs_out.groups.get(group);
            group.map_or(0, |group| group.log.counts().0 as u64 + group.octets(&self.loc_rib))
        };
        let heaviest =
            slow.into_iter().max_by_key(|group| (weight(group), std::cmp::Reverse(*group)));
        self.memory_review.readers = None;
        match heaviest {
            Some(group) => self.close_slowest_of(now, group),
            None => return false,
        }
        true
    }

    /// Octets read so far by each reader with pending data.
    fn readers(&self) -> BTreeMap<(u32, MemberKey), u64> {
        let groups = self.adj_ribs_out.groups.values();
        groups
            .flat_map(|group| group.log.positions().into_iter().map(|(k, n)| ((group.id, k), n)))
            .collect()
    }

    fn begin_weighing(&mut self, bound_of: MemoryBound, peers: Vec<PeerId>) {
        let weighing = Weighing { bound_of, peers, family: 0, from: 0, octets: 0, heaviest: None };
        self.memory_review.weighing = Some(weighing);
    }

    fn weigh(&mut self, now: Time, meter: &mut Meter) {
        let Some(mut weighing) = self.memory_review.weighing.take() else { return };
        while !meter.is_spent() {
            let Some(id) = weighing.peers.last().copied() else {
                return self.finish_weighing(now, &weighing);
            };
            let Some(family) = Family::ALL.get(weighing.family).copied() else {
                let queued = self.peers.get(id).map_or(0, |peer| peer.input_octets);
                let weight = (weighing.octets + queued, id);
                let is_heavier = |(octets, _): (u64, PeerId)| weight.0 > octets;
                if weighing.heaviest.is_none_or(is_heavier) {
                    weighing.heaviest = Some(weight);
                }
                weighing.peers.pop();
                (weighing.family, weighing.from, weighing.octets) = (0, 0, 0);
                continue;
            };
            let held = self.peers.get(id).map(|peer| &peer.family(family).dests);
            match held.and_then(|dests| dests.next_from(weighing.from)) {
                Some(dest) => {
                    weighing.octets += self.held_at(id, family, DestId(dest));
                    match dest.checked_add(1) {
                        Some(next) => weighing.from = next,
                        None => (weighing.family, weighing.from) = (weighing.family + 1, 0),
                    }
                    meter.spend(1);
                }
                None => (weighing.family, weighing.from) = (weighing.family + 1, 0),
            }
        }
        self.memory_review.weighing = Some(weighing);
    }

    fn finish_weighing(&mut self, now: Time, weighing: &Weighing) {
        let Some((octets, id)) = weighing.heaviest.filter(|(octets, _)| *octets > 0) else {
            return;
        };
        let (bound, held) = match weighing.bound_of {
            MemoryBound::Peer => {
                (self.peers.get(id).and_then(|peer| peer.routes.limits.memory_max), octets)
            }
            MemoryBound::Table => {
                let memory = self.memory();
                (self.config.memory_max, memory.total() - memory.monitors)
            }
        };
        if let Some(bound) = bound.filter(|bound| held > *bound) {
            let bound_of = weighing.bound_of;
            self.order_close(now, id, CloseReason::MemoryLimit { bound_of, held, bound });
        }
    }

    /// What a peer is charged for, in one step.
    #[cfg(test)]
    pub(super) fn held_octets(&self, id: PeerId) -> u64 {
        let Some(peer) = self.peers.get(id) else { return 0 };
        let of = |family| {
            let dests = peer.family(family).dests.iter();
            dests.map(|dest| self.held_at(id, family, DestId(dest))).sum::<u64>()
        };
        Family::ALL.into_iter().map(of).sum()
    }
}

impl super::peer::Peer {
    /// Whether the host was asked to close the session because of memory, or its routes are being
    /// withdrawn.
    fn is_shed(&self) -> bool {
        let reason = self.close.as_ref().map(|order| order.reason);
        matches!(reason, Some(CloseReason::MemoryLimit { .. } | CloseReason::TooSlow))
            || self.has(Pass::Withdraw)
    }
}
