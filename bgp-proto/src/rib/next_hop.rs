//! Next hops, each interned once, with the resolution of its address as reported by the host.
//!
//! Differs from RFC: 4271 §6.3 (b) ignores a route of a directly connected external peer whose next
//! hop is not on a subnet shared with it. Here every next hop that resolves is accepted, as with
//! BIRD's `gateway recursive`, which Calico sets for all peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound;

use super::{DestId, Neighbors, NextHopState, Over, SourceId, SparseSet};
use crate::types::{Family, NextHop};

/// An interned next hop; 0 is "none" (local routes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NextHopId(pub(crate) u32);

impl NextHopId {
    pub(crate) const NONE: NextHopId = NextHopId(0);
}

/// Whether paths through a next hop are usable, and at what metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    #[default]
    Unresolved,
    Local,
    Metric(u32),
    /// Resolved by the default route only, with this metric.
    OverDefault(u32),
}

impl Reach {
    fn of(state: &NextHopState) -> Self {
        match state {
            NextHopState::Unreachable => Reach::Unresolved,
            NextHopState::Via { hops, .. } if hops.is_empty() => Reach::Unresolved,
            NextHopState::Via { metric, over: Over::Specific, .. } => Reach::Metric(*metric),
            NextHopState::Via { metric, over: Over::Default, .. } => Reach::OverDefault(*metric),
            NextHopState::Local => Reach::Local,
        }
    }
}

#[derive(Debug)]
struct Entry {
    hop: NextHop,
    /// The neighbour whose address it is.
    neighbor: SourceId,
    /// References of any kind, those of paths included.
    refs: u32,
    paths: u32,
    reach: Reach,
    /// The address is on a connected network, and not merely covered by a default route out of an
    /// interface.
    is_connected: bool,
    /// Destinations, per family, that have or had a path through it.
    dests: [SparseSet; 2],
    /// Paths released since the sets of destinations were last compacted.
    gone: u32,
}

impl Entry {
    /// Copies the state of its address.
    fn take_state(&mut self, state: &NextHopState) {
        self.reach = Reach::of(state);
        self.is_connected =
            matches!(state, NextHopState::Via { connected: true, over: Over::Specific, .. });
    }
}

#[derive(Debug, Default)]
struct Address {
    /// Next hops in use by paths that have this address.
    users: u32,
    /// Whether the host was asked to track it.
    tracked: bool,
    state: NextHopState,
}

/// Paths that may be released before the sets of destinations are compacted.
const GONE_MAX: u32 = 1024;

/// All next hops.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    /// Entry `n` has id `n + 1`.
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: BTreeMap<NextHop, u32>,
    addresses: BTreeMap<IpAddr, Address>,
    neighbors: Neighbors,
    /// Addresses whose need for tracking may differ from what the host was last asked for.
    unsettled: BTreeSet<IpAddr>,
    /// Next hops whose state changed since [`NextHops::take_changed`].
    changed: BTreeMap<u32, Moved>,
    /// How often the state of an address changed.
    changes: u64,
    /// Next hops most of whose recorded destinations no longer have a path through them.
    overgrown: BTreeSet<u32>,
}

/// Whether a change of a next hop is one that policies can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moved {
    /// Hops, metric or reachability alone.
    OnInterface,
    /// The interface changed.
    Elsewhere,
}

impl NextHops {
    /// No next hops; those to come may be these neighbours.
    pub(crate) fn with_neighbors(neighbors: Neighbors) -> Self {
        NextHops { neighbors, ..NextHops::default() }
    }

    pub(crate) fn neighbors(&self) -> &Neighbors {
        &self.neighbors
    }

    pub(crate) fn take_neighbors(&mut self) -> Neighbors {
        std::mem::take(&mut self.neighbors)
    }

    /// Sets the state of an address, without asking the host to track it.
    pub(crate) fn adopt(&mut self, addr: IpAddr, state: NextHopState) {
        for id in self.ids_of(addr) {
            self.entry_mut(id).take_state(&state);
        }
        self.addresses.insert(addr, Address { users: 0, tracked: false, state });
    }

    /// The id of a next hop, with one reference to be released with [`NextHops::release`].
    pub(crate) fn intern(&mut self, hop: NextHop) -> NextHopId {
        if let Some(id) = self.index.get(&hop).copied() {
            self.entry_mut(id).refs += 1;
            return NextHopId(id);
        }
        let mut entry = Entry {
            hop,
            neighbor: self.neighbors.at(hop.addr()),
            refs: 1,
            paths: 0,
            reach: Reach::default(),
            is_connected: false,
            dests: Default::default(),
            gone: 0,
        };
        if let Some(address) = self.addresses.get(&hop.addr()) {
            entry.take_state(&address.state);
        }
        let id = match self.free.pop() {
            Some(id) => {
                *self.entry_mut(id) = entry;
                id
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32
            }
        };
        self.index.insert(hop, id);
        NextHopId(id)
    }

    fn entry(&self, id: u32) -> &Entry {
        &self.entries[id as usize - 1]
    }

    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize - 1]
    }

    pub(crate) fn retain(&mut self, id: NextHopId) {
        if id != NextHopId::NONE {
            self.entry_mut(id.0).refs += 1;
        }
    }

    pub(crate) fn release(&mut self, id: NextHopId) {
        if id == NextHopId::NONE {
            return;
        }
        let entry = self.entry_mut(id.0);
        entry.refs -= 1;
        if entry.refs == 0 {
            let hop = entry.hop;
            self.index.remove(&hop);
            self.free.push(id.0);
        }
    }

    /// A path uses the next hop: it keeps a reference, and the address is tracked.
    #[inline]
    pub(crate) fn retain_path(&mut self, id: NextHopId, family: Family, dest: DestId) {
        self.retain_paths(id, family, &[dest]);
    }

    /// As [`NextHops::retain_path`], for one path of each of the destinations.
    pub(crate) fn retain_paths(&mut self, id: NextHopId, family: Family, dests: &[DestId]) {
        if id == NextHopId::NONE || dests.is_empty() {
            return;
        }
        let entry = &mut self.entries[id.0 as usize - 1];
        let first = entry.paths == 0;
        entry.refs += dests.len() as u32;
        entry.paths += dests.len() as u32;
        entry.dests[family.index()].insert_all(dests.iter().map(|dest| dest.0));
        if first {
            // The state from before tracking of the address ended is void.
            let addr = entry.hop.addr();
            let address = self.addresses.entry(addr).or_default();
            address.users += 1;
            entry.take_state(&address.state);
            self.unsettled.insert(addr);
        }
    }

    #[inline]
    pub(crate) fn release_path(&mut self, id: NextHopId) {
        if id == NextHopId::NONE {
            return;
        }
        let entry = self.entry_mut(id.0);
        entry.paths -= 1;
        entry.gone += 1;
        if entry.gone > 2 * entry.paths + GONE_MAX {
            entry.gone = 0;
            self.overgrown.insert(id.0);
        }
        let entry = self.entry_mut(id.0);
        if entry.paths == 0 {
            (entry.dests, entry.gone) = (Default::default(), 0);
            let addr = entry.hop.addr();
            if let Some(address) = self.addresses.get_mut(&addr) {
                address.users -= 1;
            }
            self.unsettled.insert(addr);
        }
        self.release(id);
    }

    pub(crate) fn hop(&self, id: NextHopId) -> Option<NextHop> {
        (id != NextHopId::NONE).then(|| self.entry(id.0).hop)
    }

    /// Local routes, which have none, always resolve.
    #[inline]
    pub(crate) fn reach(&self, id: NextHopId) -> Reach {
        if id == NextHopId::NONE { Reach::Metric(0) } else { self.entry(id.0).reach }
    }

    /// Whether the next hop is on a connected network.
    #[inline]
    pub(crate) fn is_connected(&self, id: NextHopId) -> bool {
        id != NextHopId::NONE && self.entry(id.0).is_connected
    }

    pub(crate) fn state(&self, id: NextHopId) -> Option<&NextHopState> {
        self.state_of(self.hop(id)?.addr())
    }

    /// What the host said about an address.
    pub(crate) fn state_of(&self, addr: IpAddr) -> Option<&NextHopState> {
        self.addresses.get(&addr).map(|address| &address.state)
    }

    /// The addresses after `after` that paths use, in their order, with their states and the number
    /// of paths.
    pub(crate) fn used(
        &self,
        after: Option<IpAddr>,
    ) -> impl Iterator<Item = (IpAddr, &NextHopState, u32)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let used = self.addresses.range((from, Bound::Unbounded)).filter(|(_, a)| a.users > 0);
        used.map(|(addr, address)| {
            let paths = self.ids_of(*addr).into_iter().map(|id| self.entry(id).paths).sum();
            (*addr, &address.state, paths)
        })
    }

    /// Number of paths whose next hop is not resolved, or an address of ours.
    pub(crate) fn unresolved_paths(&self) -> u32 {
        let is_unresolved =
            |entry: &&Entry| matches!(entry.reach, Reach::Unresolved | Reach::Local);
        self.entries.iter().filter(is_unresolved).map(|entry| entry.paths).sum()
    }

    /// How often the state of an address changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The interface through which a next hop is reached, as policies see it.
    #[inline]
    pub(crate) fn interface(&self, id: NextHopId) -> Option<&str> {
        self.state(id)?.interface()
    }

    /// Sets the state that the host reported. Unknown addresses are ignored: they are no longer
    /// tracked.
    pub(crate) fn set_state(&mut self, addr: IpAddr, state: NextHopState) {
        let Some(address) = self.addresses.get_mut(&addr) else { return };
        if address.state == state {
            return;
        }
        let moved = if address.state.interface() == state.interface() {
            Moved::OnInterface
        } else {
            Moved::Elsewhere
        };
        address.state = state.clone();
        self.changes += 1;
        for id in self.ids_of(addr) {
            self.entry_mut(id).take_state(&state);
            let known = self.changed.entry(id).or_insert(moved);
            *known = moved.max(*known);
        }
    }

    /// The next hops with an address.
    fn ids_of(&self, addr: IpAddr) -> Vec<u32> {
        let range = match addr {
            IpAddr::V4(a) => NextHop::V4(a)..=NextHop::V4(a),
            IpAddr::V6(a) => NextHop::V6(a)..=NextHop::V6(a),
        };
        let mut ids: Vec<u32> = self.index.range(range).map(|(_, id)| *id).collect();
        if let IpAddr::V6(global) = addr {
            let from = NextHop::V6Both { global, link_local: Ipv6Addr::UNSPECIFIED };
            let to = NextHop::V6Both { global, link_local: Ipv6Addr::from_bits(u128::MAX) };
            ids.extend(self.index.range(from..=to).map(|(_, id)| *id));
        }
        ids
    }

    /// The neighbour whose address a next hop is.
    #[inline]
    pub(crate) fn neighbor(&self, id: NextHopId) -> SourceId {
        if id == NextHopId::NONE { SourceId::NONE } else { self.entry(id.0).neighbor }
    }

    /// The next hops that are a neighbour's address.
    pub(crate) fn of_neighbor(&self, source: SourceId) -> Vec<NextHopId> {
        let address = self.neighbors.address_of(source);
        address.map_or(Vec::new(), |at| self.ids_of(at)).into_iter().map(NextHopId).collect()
    }

    /// A session of a neighbour begins, from this address. Returns the next hops whose neighbour
    /// changed.
    pub(crate) fn set_neighbor(
        &mut self,
        source: SourceId,
        address: IpAddr,
        is_up: impl Fn(SourceId) -> bool,
    ) -> Vec<NextHopId> {
        let mut changed = Vec::new();
        for address in self.neighbors.set(source, address, is_up) {
            let neighbor = self.neighbors.at(address);
            for id in self.ids_of(address) {
                self.entry_mut(id).neighbor = neighbor;
                changed.push(NextHopId(id));
            }
        }
        changed
    }

    /// Marks the next hops resolved by the default route as changed, because what it may resolve
    /// has changed.
    pub(crate) fn touch_over_default(&mut self) {
        let entries = (1..).zip(&self.entries).filter(|(_, entry)| entry.paths > 0);
        let over = entries.filter(|(_, entry)| matches!(entry.reach, Reach::OverDefault(_)));
        let ids: Vec<u32> = over.map(|(id, _)| id).collect();
        for id in ids {
            self.changed.entry(id).or_insert(Moved::OnInterface);
        }
    }

    /// Next hops whose state changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<(NextHopId, Moved)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|(id, moved)| (NextHopId(id), moved)).collect()
    }

    /// The destinations that have or had a path through a next hop.
    pub(crate) fn dests(&self, id: NextHopId, family: Family) -> &SparseSet {
        &self.entry(id.0).dests[family.index()]
    }

    /// A next hop whose sets of destinations should be compacted with [`NextHops::retain_dests`].
    pub(crate) fn take_overgrown(&mut self) -> Option<NextHopId> {
        loop {
            let id = self.overgrown.pop_first()?;
            if self.entry(id).paths > 0 {
                return Some(NextHopId(id));
            }
        }
    }

    pub(crate) fn has_overgrown(&self) -> bool {
        !self.overgrown.is_empty()
    }

    pub(crate) fn retain_dests(
        &mut self,
        id: NextHopId,
        family: Family,
        from: u32,
        has_path: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        self.entry_mut(id.0).dests[family.index()].retain_some(from, has_path)
    }

    /// Addresses to track (true) or forget (false) since the last call.
    pub(crate) fn take_requests(&mut self) -> Vec<(IpAddr, bool)> {
        let mut requests = Vec::new();
        for addr in std::mem::take(&mut self.unsettled) {
            let Some(address) = self.addresses.get_mut(&addr) else { continue };
            let wanted = address.users > 0;
            if wanted != address.tracked {
                address.tracked = wanted;
                requests.push((addr, wanted));
            }
            if !wanted {
                self.addresses.remove(&addr);
            }
        }
        requests
    }

    /// How many references a next hop has.
    pub(crate) fn refs(&self, id: NextHopId) -> u32 {
        if id == NextHopId::NONE { u32::MAX } else { self.entry(id.0).refs }
    }

    /// Next hops in use.
    pub(crate) fn len(&self) -> u32 {
        self.index.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(metric: u32) -> NextHopState {
        let hop = crate::types::Hop { gateway: None, ifindex: 1, onlink: false, weight: 1 };
        NextHopState::Via {
            hops: vec![hop],
            metric,
            connected: true,
            interface: None,
            over: Over::Specific,
        }
    }

    #[test]
    fn an_address_is_tracked_while_a_path_uses_it() {
        let mut hops = NextHops::default();
        let addr: IpAddr = "2001:db8::1".parse().unwrap();
        let IpAddr::V6(global) = addr else { unreachable!() };
        let single = hops.intern(NextHop::V6(global));
        let both = hops.intern(NextHop::V6Both { global, link_local: "fe80::1".parse().unwrap() });
        assert_eq!(hops.take_requests(), [], "an export next hop is not tracked");
        let retain = |hops: &mut NextHops, id| hops.retain_path(id, Family::Ipv6, DestId(7));
        retain(&mut hops, single);
        retain(&mut hops, both);
        assert_eq!(hops.take_requests(), [(addr, true)]);
        assert_eq!(hops.reach(both), Reach::Unresolved);
        hops.set_state(addr, via(5));
        assert_eq!(hops.take_changed(), [(single, Moved::OnInterface), (both, Moved::OnInterface)]);
        assert!(hops.dests(single, Family::Ipv6).iter().eq([7]));
        assert_eq!(hops.reach(single), Reach::Metric(5));
        hops.set_state(addr, via(5));
        assert_eq!(hops.take_changed(), [], "the same state again is no change");
        hops.release_path(single);
        assert_eq!(hops.take_requests(), []);
        hops.release_path(both);
        retain(&mut hops, both);
        assert_eq!(hops.take_requests(), [], "gone and back between two calls");
        hops.release_path(both);
        assert_eq!(hops.take_requests(), [(addr, false)]);
        hops.release(single);
        hops.release(both);
        assert_eq!(hops.len(), 0);
    }
}
