//! Every peer that exists, for the daemon that changes them and the views that list them.

mod absent;
mod debugs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bgp_proto::session::{PeerConfig, State};
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::{PeerId, Prefix, off_interface};

pub(super) use debugs::{DEBUGGED_MAX, Debugs};

use crate::bfd::VrfDevice;
use crate::config::{BfdSettings, Fallover};
use crate::counts::Counts;
use crate::engine::Handle;
use crate::http::Traffic;
use crate::net::{
    AdminShutdown, Directory, FindOtherAddresses, Lifetime, PeerHandle, PeerNumbers, RestartState,
};

/// Where a peer's routes and connections are: one for each VRF. Clones share it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) table: Handle,
    /// Maps connections that are accepted there to their peers.
    pub(super) directory: Directory,
    /// Finds our other addresses there.
    pub(super) beside: FindOtherAddresses,
    /// The restart state that our OPENs announce there.
    pub(super) recovery: RestartState,
    /// The VRF's device, to which the sockets of BFD are bound; `None`: the default VRF.
    pub(super) device: Option<VrfDevice>,
}

#[cfg(test)]
impl Place {
    /// With this table, and nobody who may connect.
    pub(super) fn of(table: &Handle) -> Place {
        let beside: FindOtherAddresses = Arc::new(|_, _| crate::net::OtherAddresses::default());
        let recovery = RestartState::begin();
        let directory = Directory::default();
        Place { table: table.clone(), directory, beside, recovery, device: None }
    }
}

/// A range of dynamic peers, with its VRF.
type Range = (Option<Arc<str>>, Prefix);

/// One peer, with its configuration and the handle to its task.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) id: PeerId,
    pub(super) name: Arc<str>,
    /// What the peer is, for operators.
    pub(super) description: Option<Arc<str>>,
    pub(super) address: IpAddr,
    pub(super) place: Place,
    pub(super) session: Arc<PeerConfig>,
    pub(super) routes: Arc<PeerRoutes>,
    pub(super) bfd: Option<Arc<BfdSettings>>,
    /// Whether the session ends with the link or the address that it uses.
    pub(super) fallover: Fallover,
    pub(super) lifetime: Lifetime,
    /// The interface of a peer by interface.
    pub(super) interface: Option<Arc<str>>,
    /// The range from which it connected; `None` for a configured peer.
    pub(super) range: Option<Prefix>,
    pub(super) handle: PeerHandle,
    /// Whether it is being removed: then its task exists only until its last octets are delivered.
    pub(super) presence: Presence,
    /// Whether an operator has shut the session down. All records of a peer share it.
    pub(super) shutdown: AdminShutdown,
}

/// Whether a peer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Stays,
    /// It is not configured any more.
    Removed,
    /// One with other parameters takes its place.
    Replaced,
}

impl Record {
    /// Whether it is being removed, or replaced.
    pub(super) fn leaves(&self) -> bool {
        self.presence != Presence::Stays
    }

    /// Whether the peer accepts TCP connections although there is no session: it is slow, not down.
    pub(super) fn takes_connections(&self) -> bool {
        matches!(self.handle.state(), State::OpenSent | State::OpenConfirm)
    }

    /// Whether it was accepted from a range.
    pub(super) fn is_dynamic(&self) -> bool {
        self.lifetime == Lifetime::Dynamic
    }

    /// The range in which it counts as a member; `None` if it is configured or being removed.
    fn membership(&self) -> Option<Range> {
        let range = self.range.filter(|_| !self.leaves());
        range.map(|prefix| (self.session.vrf.clone(), prefix))
    }
}

/// All peers by id. Only the daemon's loop writes it. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Registry {
    records: Arc<RwLock<Records>>,
    /// Incremented with every change.
    revision: Arc<AtomicU64>,
    debugs: Debugs,
}

#[derive(Default)]
struct Records {
    by_id: BTreeMap<PeerId, Arc<Record>>,
    /// Of two peers with one name, the newer one: the other is being removed.
    by_name: BTreeMap<Arc<str>, PeerId>,
    /// Dynamic peers of each range, without those being removed.
    members: Counts<Range>,
    /// Dynamic peers of all ranges, including those being removed.
    dynamic: usize,
    /// The traffic of removed peers, so that the total counters never fall.
    gone: Traffic,
}

impl Records {
    fn insert(&mut self, record: Record) {
        self.remove(record.id);
        self.dynamic += usize::from(record.is_dynamic());
        record.membership().into_iter().for_each(|range| self.members.add(range));
        if !record.leaves() {
            self.by_name.insert(Arc::clone(&record.name), record.id);
        }
        self.by_id.insert(record.id, Arc::new(record));
    }

    fn remove(&mut self, id: PeerId) -> Option<Arc<Record>> {
        let record = self.by_id.remove(&id)?;
        if self.by_name.get(&record.name) == Some(&id) {
            self.by_name.remove(&record.name);
        }
        self.dynamic -= usize::from(record.is_dynamic());
        record.membership().into_iter().for_each(|range| self.members.remove(range));
        Some(record)
    }

    /// All peers that are not being removed.
    fn present(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.by_id.values().filter(|record| !record.leaves())
    }
}

impl Registry {
    /// The peers whose messages are logged.
    pub(super) fn debugs(&self) -> &Debugs {
        &self.debugs
    }

    pub(super) fn insert(&self, record: Record) {
        self.write(|records| records.insert(record));
    }

    pub(super) fn remove(&self, id: PeerId) -> Option<Arc<Record>> {
        self.write(|records| {
            let record = records.remove(id)?;
            records.gone.add(&traffic(&record.handle.numbers()));
            Some(record)
        })
    }

    pub(super) fn get(&self, id: PeerId) -> Option<Arc<Record>> {
        self.read(|records| records.by_id.get(&id).cloned())
    }

    /// Marks a peer as being removed, because it is no longer configured or is replaced by one with
    /// other parameters. From here on it can be found by its id only.
    pub(super) fn leave(&self, id: PeerId, presence: Presence) {
        self.write(|records| {
            let Some(record) = records.by_id.get(&id) else { return };
            let record = Record { presence, ..Record::clone(record) };
            records.insert(record);
        });
    }

    /// Finds a peer by name alone: for a name that was kept, whose peer may be gone while another has
    /// an address that reads like it.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Record>> {
        self.read(|records| records.by_id.get(records.by_name.get(name)?).cloned())
    }

    /// Finds a peer by name, or else by address, if one peer only has it. A link-local one is followed by
    /// `%` and the interface's name or index, unless it is found on one interface only.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Record>> {
        <[_; 1]>::try_from(self.matching(name, None)).ok().map(|[found]| found)
    }

    /// Every peer that [`find`](Self::find) may mean: the one of this name, or else all with the address, as
    /// VRFs may have the same addresses. `vrf`: only peers in this VRF.
    pub(super) fn matching(&self, name: &str, vrf: Option<&str>) -> Vec<Arc<Record>> {
        let is_there =
            |record: &&Arc<Record>| vrf.is_none() || record.session.vrf.as_deref() == vrf;
        self.read(|records| {
            let named = records.by_name.get(name).and_then(|id| records.by_id.get(id));
            if let Some(named) = named.filter(is_there) {
                return vec![Arc::clone(named)];
            }
            let (text, interface) = match name.split_once('%') {
                Some((text, interface)) => (text, Some(interface)),
                None => (name, None),
            };
            let Ok(address) = text.parse::<IpAddr>() else { return Vec::new() };
            let is_meant = |record: &&Arc<Record>| {
                let (own, ifindex) = off_interface(record.address);
                let is_on = |wanted: &str| {
                    record.interface.as_deref() == Some(wanted)
                        || ifindex.is_some_and(|ifindex| wanted == ifindex.to_string())
                };
                own == address && interface.is_none_or(is_on)
            };
            records.present().filter(is_there).filter(is_meant).cloned().collect()
        })
    }

    /// All peers that are not being removed, in order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<Record>> {
        self.read(|records| records.present().cloned().collect())
    }

    /// The interfaces of peers by interface that are not being removed.
    pub(super) fn interfaces(&self) -> BTreeSet<Arc<str>> {
        self.read(|records| records.present().filter_map(|r| r.interface.clone()).collect())
    }

    /// All peers in order of their ids, including those being removed, and the traffic of removed
    /// peers.
    pub(super) fn all_and_gone(&self) -> (Vec<Arc<Record>>, Traffic) {
        self.read(|records| (records.by_id.values().cloned().collect(), records.gone))
    }

    /// At most `limit` peers that are not being removed, in order of their names, starting after
    /// `after`; and whether there may be more.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> (Vec<Arc<Record>>, bool) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|records| {
            let ids = records.by_name.range::<str, _>((start, Bound::Unbounded)).take(limit);
            let page: Vec<_> =
                ids.filter_map(|(_, id)| records.by_id.get(id)).map(Arc::clone).collect();
            let more = page.len() == limit;
            (page, more)
        })
    }

    /// The number of dynamic peers of a range, without those being removed.
    pub(super) fn members(&self, vrf: Option<&Arc<str>>, prefix: Prefix) -> usize {
        self.read(|records| records.members.of(&(vrf.cloned(), prefix)) as usize)
    }

    /// The number of dynamic peers of all ranges, including those being removed, which still hold
    /// descriptors.
    pub(super) fn dynamic(&self) -> usize {
        self.read(|records| records.dynamic)
    }

    /// The number of peers, including those being removed.
    pub(super) fn len(&self) -> usize {
        self.read(|records| records.by_id.len())
    }

    fn read<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.records.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that differs after every change.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut records);
        // Before the lock is released: a reader that sees the number also sees the change.
        self.revision.fetch_add(1, Ordering::Release);
        result
    }
}

/// A peer's traffic, in the form in which it is summed over all peers.
pub(super) fn traffic(numbers: &PeerNumbers) -> Traffic {
    Traffic {
        stats: numbers.stats,
        updates_sent: numbers.sent.updates,
        octets_sent: numbers.sent.octets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::net::testing::{PEER, config, engine, spawn};

    #[tokio::test]
    async fn a_kept_name_that_reads_like_an_address_is_no_address() {
        let engine = engine();
        let (handle, _events) = spawn(&engine, 1, config(PEER));
        let registry = Registry::default();
        registry.insert(record(&engine, 1, "tor1", PEER, handle));
        let name = PEER.to_string();
        assert!(registry.find(&name).is_some() && registry.named(&name).is_none());
        assert!(registry.named("tor1").is_some());
        engine.stop();
    }

    /// A reload replaces a peer in two steps; who asks between them must not read that there is none.
    #[tokio::test]
    async fn a_peer_that_is_being_replaced_is_no_unknown_one() {
        let engine = engine();
        let (handle, _events) = spawn(&engine, 1, config(PEER));
        let registry = Registry::default();
        registry.insert(record(&engine, 1, "tor1", PEER, handle));
        registry.leave(PeerId(1), Presence::Replaced);
        assert!(registry.find("tor1").is_none() && registry.all().is_empty());
        for name in ["tor1".to_owned(), PEER.to_string()] {
            let text = registry.not_found(&name).text;
            assert_eq!(
                text,
                format!("{name} is being replaced by a peer with other parameters: ask again")
            );
        }
        registry.leave(PeerId(1), Presence::Removed);
        assert_eq!(registry.not_found("tor1").text, "tor1 is being removed");
        assert_eq!(registry.not_found("tor2").text, "there is no peer \"tor2\"");
        engine.stop();
    }

    fn record(engine: &Engine, id: u32, name: &str, address: IpAddr, handle: PeerHandle) -> Record {
        Record {
            id: PeerId(id),
            name: name.into(),
            description: None,
            address,
            place: Place::of(engine.handle()),
            session: Arc::new(config(address)),
            routes: Arc::new(PeerRoutes::new(name)),
            bfd: None,
            fallover: Fallover::default(),
            lifetime: Lifetime::Configured,
            interface: None,
            range: None,
            handle,
            presence: Presence::Stays,
            shutdown: AdminShutdown::default(),
        }
    }

    #[tokio::test]
    async fn a_link_local_address_is_found_as_it_is_shown() {
        let engine = engine();
        let registry = Registry::default();
        let neighbors = [
            ("fe80::2", 3, "u1"),
            ("fe80::2", 4, "u2"),
            ("fe80::9", 4, "u3"),
            ("192.0.2.7", 0, ""),
        ];
        for (id, (address, ifindex, interface)) in (1..).zip(neighbors) {
            let address = bgp_proto::types::on_interface(address.parse().unwrap(), ifindex);
            let (handle, _events) = spawn(&engine, id, config(address));
            let interface = Some(interface.into()).filter(|_| ifindex != 0);
            let name = format!("peer{id}");
            registry.insert(Record { interface, ..record(&engine, id, &name, address, handle) });
        }
        let found = |text: &str| registry.find(text).map(|record| record.id.0);
        assert_eq!(found("fe80::2%u1"), Some(1));
        assert_eq!(found("fe80::2%u2"), Some(2));
        assert_eq!(found("fe80::2%4"), Some(2));
        assert_eq!(found("fe80::2"), None, "on which link?");
        assert_eq!(found("fe80::2%u3"), None);
        assert_eq!(found("fe80::9"), Some(3));
        assert_eq!(found("192.0.2.7"), Some(4));
        engine.stop();
    }

    /// The peer of the default VRF is named by its address, which peers of VRFs have too.
    #[tokio::test]
    async fn one_address_in_two_vrfs_is_found_in_each() {
        let engine = engine();
        let registry = Registry::default();
        for (id, name, vrf) in
            [(1, "192.0.2.7", None), (2, "b", Some("blue")), (3, "r", Some("red"))]
        {
            let session = PeerConfig { vrf: vrf.map(Arc::from), ..config(PEER) };
            let (handle, _events) = spawn(&engine, id, session.clone());
            let record = record(&engine, id, name, "192.0.2.7".parse().unwrap(), handle);
            registry.insert(Record { session: Arc::new(session), ..record });
        }
        let found = |text: &str, vrf| -> Vec<u32> {
            registry.matching(text, vrf).iter().map(|record| record.id.0).collect()
        };
        assert_eq!(found("192.0.2.7", None), [1], "a name comes first");
        assert_eq!(found("192.0.2.7", Some("blue")), [2]);
        assert_eq!(found("192.0.2.7", Some("red")), [3]);
        assert_eq!(found("b", Some("red")), [0; 0]);
        assert_eq!(found("192.0.2.8", None), [0; 0]);
        registry.remove(PeerId(1));
        assert_eq!(found("192.0.2.7", None), [2, 3]);
        assert!(registry.find("192.0.2.7").is_none(), "which of them?");
        engine.stop();
    }
}
