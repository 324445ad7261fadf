//! Adding and removing peers: configured ones, and dynamic ones from ranges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Close, Command, State};
use bgp_proto::table::PeerRoutes;
use bgp_proto::types::{Family, PeerId, Prefix};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::drains::{Drains, Scope};
use super::registry::{Place, Presence, Record, Registry};
use super::shutdowns::Shutdowns;
use crate::config::{Changes, DynamicPeers, PeerEntry};
use crate::event_names::LIMIT_WARNING;
use crate::kernel::Link;
use crate::mrt::Recorder;
use crate::net::{
    Accepted, Directory, Lifetime, PeerEvent, PeerSpec, Refusal, RefusalLog, SessionCounters,
    spawn_peer,
};
use crate::plural::counted;

/// Peer ids that stay unused before the oldest is used again: the table may still be withdrawing
/// the routes of its last owner in slices, and would have to withdraw the rest at once.
const IDS_AT_REST: usize = 64;
/// Least time between two occasions of dialling neighbours because an address was added.
const DIAL_AGAIN_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Peers {
    /// The default VRF.
    place: Place,
    /// The VRFs that exist.
    vrfs: BTreeMap<Arc<str>, Place>,
    /// Where the idle peers of VRFs that do not exist are: in the default VRF's table, but nobody
    /// connects to them, as the default VRF may have a peer of the same address.
    nowhere: Place,
    registry: Registry,
    events: mpsc::UnboundedSender<PeerEvent>,
    ranges: Vec<DynamicPeers>,
    /// Most dynamic peers of all ranges together, limited by descriptors.
    dynamic_max: usize,
    /// The next new id, and ids that are free again.
    ids: u32,
    free_ids: VecDeque<PeerId>,
    seed: u64,
    shared: Shared,
    session_counters: SessionCounters,
    refused: RefusalLog,
    reach: Reach,
}

/// What the tasks of all peers share.
pub(super) struct Shared {
    /// Peers that operators have shut down.
    pub(super) shutdowns: Shutdowns,
    /// The drains in force.
    pub(super) drains: Drains,
    /// Where messages are recorded.
    pub(super) recorder: Recorder,
}

/// Our addresses on links with a carrier, and when neighbours were last dialled because of a new
/// one.
#[derive(Default)]
struct Reach {
    /// Interface index and address, sorted.
    addresses: Vec<(u32, IpAddr)>,
    dialled: Option<Instant>,
}

impl Reach {
    /// Whether there is a new address; at most once in [`DIAL_AGAIN_PAUSE`], so that a flapping
    /// link does not cause dialling with every flap.
    fn has_grown(&mut self, links: &[Link], now: Instant) -> bool {
        let usable = links.iter().filter(|link| link.up && link.running);
        let mut addresses: Vec<(u32, IpAddr)> = usable
            .flat_map(|link| link.addresses.iter().map(|(address, _)| (link.index, *address)))
            .collect();
        addresses.sort_unstable();
        let is_new = |address| self.addresses.binary_search(address).is_err();
        let grown = addresses.iter().any(is_new);
        self.addresses = addresses;
        let rested = self.dialled.is_none_or(|at| now.duration_since(at) >= DIAL_AGAIN_PAUSE);
        if grown && rested {
            self.dialled = Some(now);
        }
        grown && rested
    }
}

/// Whether parameters differ whose change does not restart the session.
fn is_other_beside_session(entry: &PeerEntry, record: &Record) -> bool {
    entry.routes != record.routes
        || entry.bfd != record.bfd
        || entry.fallover != record.fallover
        || entry.description != record.description
}

/// The order in which the first range that contains an address is the longest, which applies.
fn longest_first(ranges: &[DynamicPeers]) -> Vec<DynamicPeers> {
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.prefix.len()));
    ranges
}

/// The longest range in a VRF that contains an address.
fn range_of<'a>(
    ranges: &'a [DynamicPeers],
    vrf: Option<&Arc<str>>,
    address: IpAddr,
) -> Option<&'a DynamicPeers> {
    let mut there = ranges.iter().filter(|range| range.session.vrf.as_ref() == vrf);
    there.find(|range| range.prefix.contains_addr(address))
}

/// What applies to a dynamic peer under these ranges, or how its session ends because no range
/// contains it any more or its session parameters differ in more than timers.
fn under(ranges: &[DynamicPeers], record: &Record) -> Result<(Prefix, PeerEntry), Close> {
    let range = range_of(ranges, record.session.vrf.as_ref(), record.address);
    let range = range.ok_or(Close::Deconfigured)?;
    let entry = range.peer(record.address);
    let is_other = entry.session != record.session;
    if is_other && !record.session.differs_only_in_timers(&entry.session) {
        return Err(Close::ConfigurationChange);
    }
    Ok((range.prefix, entry))
}

impl Peers {
    pub(super) fn new(
        place: Place,
        events: mpsc::UnboundedSender<PeerEvent>,
        seed: u64,
        shared: Shared,
    ) -> Self {
        let nowhere = Place { directory: Directory::default(), ..place.clone() };
        Peers {
            place,
            nowhere,
            vrfs: BTreeMap::new(),
            registry: Registry::default(),
            events,
            ranges: Vec::new(),
            dynamic_max: usize::MAX,
            ids: 0,
            free_ids: VecDeque::new(),
            seed,
            shared,
            session_counters: SessionCounters::default(),
            refused: RefusalLog::default(),
            reach: Reach::default(),
        }
    }

    /// Links or addresses have changed. Dials neighbours that were unreachable and may be reachable
    /// now: after a long outage, the retry timer would take long to expire.
    pub(super) fn handle_links(&mut self, links: &[Link], now: Instant) {
        if self.reach.has_grown(links, now) {
            let is_waiting = |record: &&Arc<Record>| record.handle.state() < State::OpenSent;
            self.registry.all().iter().filter(is_waiting).for_each(|record| record.handle.dial());
        }
    }

    pub(super) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The counters over all sessions.
    pub(super) fn session_counters(&self) -> SessionCounters {
        self.session_counters.clone()
    }

    /// From here on our OPENs do not announce a restart (RFC 4724 §4.1).
    pub(super) fn end_of_startup(&self) {
        self.place.recovery.end();
    }

    /// Limits the number of dynamic peers of all ranges together.
    pub(super) fn set_dynamic_max(&mut self, max: usize) {
        self.dynamic_max = max;
    }

    /// Replaces the ranges from which dynamic peers may connect.
    pub(super) fn set_ranges(&mut self, ranges: &[DynamicPeers]) {
        self.ranges = longest_first(ranges);
        self.show_ranges(None);
        self.vrfs.keys().for_each(|vrf| self.show_ranges(Some(vrf)));
    }

    /// Connections in a VRF may come from its ranges.
    fn show_ranges(&self, vrf: Option<&Arc<str>>) {
        let there = self.ranges.iter().filter(|range| range.session.vrf.as_ref() == vrf);
        let shown = there.map(|range| (range.prefix, Arc::clone(&range.session)));
        self.place(vrf).directory.set_ranges(shown.collect());
    }

    /// Where peers in a VRF are.
    fn place(&self, vrf: Option<&Arc<str>>) -> &Place {
        match vrf {
            Some(vrf) => self.vrfs.get(vrf).unwrap_or(&self.nowhere),
            None => &self.place,
        }
    }

    /// From here on peers in this VRF are added there.
    pub(super) fn set_place(&mut self, vrf: &Arc<str>, place: Place) {
        self.vrfs.insert(Arc::clone(vrf), place);
        self.show_ranges(Some(vrf));
    }

    /// A VRF has gone, and with it its dynamic peers. The configured ones are replaced by idle ones.
    pub(super) fn forget_place(&mut self, vrf: &Arc<str>) {
        self.vrfs.remove(vrf);
        let is_there = |record: &Arc<Record>| record.session.vrf.as_ref() == Some(vrf);
        for record in self.registry.all().into_iter().filter(|record| is_there(record)) {
            if record.is_dynamic() {
                self.terminate(&record, Close::Deconfigured);
            }
        }
    }

    /// Adds a configured peer. It replaces a dynamic peer with the same address, whose session
    /// ends.
    pub(super) fn add(&mut self, entry: &PeerEntry) -> PeerId {
        let place = self.place(entry.session.vrf.as_ref());
        let there = place.directory.peer(entry.session.address);
        let record = there.and_then(|peer| self.registry.get(peer.id));
        if let Some(record) = record.filter(|record| record.is_dynamic()) {
            info!(peer = %record.name, "dynamic peer is replaced by the configured one");
            self.terminate(&record, Close::ConfigurationChange);
        }
        self.spawn(entry, None).id
    }

    /// Gives a peer another name, and possibly new routing parameters; its session stays up.
    pub(super) fn rename(&self, old: &str, entry: &PeerEntry) {
        let Some(record) = self.registry.find(old) else { return };
        self.shared.shutdowns.rename(old, &entry.name);
        self.shared.drains.rename(old, &entry.name);
        let routes = self.shared.drains.routes(&entry.name, &entry.routes);
        record.place.table.peer_configure(record.id, routes);
        record.handle.rename(Arc::clone(&entry.name));
        self.registry.insert(Record {
            name: Arc::clone(&entry.name),
            description: entry.description.clone(),
            routes: Arc::clone(&entry.routes),
            bfd: entry.bfd.clone(),
            fallover: entry.fallover,
            interface: entry.interface.clone(),
            ..Record::clone(&record)
        });
    }

    /// Makes a connection from a range a dynamic peer, unless the range is full.
    pub(super) fn admit(&mut self, accepted: Accepted) {
        let Accepted { stream, from, vrf } = accepted;
        if vrf.as_ref().is_some_and(|vrf| !self.vrfs.contains_key(vrf)) {
            // The VRF has gone since: its connections went with it.
            return;
        }
        if let Some(peer) = self.place(vrf.as_ref()).directory.peer(from) {
            if peer.connect(stream).is_err() {
                self.session_counters.connection_refused(from, Refusal::QueueFull);
            }
            return;
        }
        let Some(range) = range_of(&self.ranges, vrf.as_ref(), from) else { return };
        let members = self.registry.members(vrf.as_ref(), range.prefix);
        if members >= usize::try_from(range.peers_max).unwrap_or(usize::MAX) {
            self.session_counters.connection_refused(from, Refusal::RangeFull);
            let text =
                format_args!("{} has its {} peers (peers-max)", range.prefix, range.peers_max);
            self.refused.note(from, Refusal::RangeFull, text);
            return;
        }
        if self.registry.dynamic() >= self.dynamic_max {
            self.session_counters.connection_refused(from, Refusal::Descriptors);
            let text = format_args!(
                "file descriptors suffice for {} dynamic peers; raise the limit (ulimit -n, \
                 LimitNOFILE=)",
                self.dynamic_max
            );
            self.refused.note(from, Refusal::Descriptors, text);
            return;
        }
        let (entry, prefix) = (range.peer(from), range.prefix);
        if self.shared.shutdowns.get(&entry.name).is_some() {
            self.session_counters.connection_refused(from, Refusal::ShutDown);
            self.refused.note(
                from,
                Refusal::ShutDown,
                format_args!("{}", Refusal::ShutDown.text()),
            );
            return;
        }
        let record = self.spawn(&entry, Some(prefix));
        // Cannot fail: no connection waits for a task that has just started.
        let _ = record.handle.connect(stream);
    }

    /// Gives a peer new routing parameters; its session stays up.
    pub(super) fn reconfigure(&self, name: &str, entry: &PeerEntry) {
        let Some(record) = self.registry.find(name) else { return };
        let routes = self.shared.drains.routes(name, &entry.routes);
        record.place.table.peer_configure(record.id, routes);
        self.registry.insert(Record {
            description: entry.description.clone(),
            routes: Arc::clone(&entry.routes),
            bfd: entry.bfd.clone(),
            fallover: entry.fallover,
            interface: entry.interface.clone(),
            ..Record::clone(&record)
        });
    }

    /// Gives a peer other timers, and possibly new routing parameters; its session stays up.
    pub(super) fn retime(&self, name: &str, entry: &PeerEntry) {
        let Some(record) = self.registry.find(name) else { return };
        self.registry
            .insert(Record { session: Arc::clone(&entry.session), ..Record::clone(&record) });
        record.handle.set_timers(Arc::clone(&entry.session));
        record.place.directory.set_config(&entry.session, record.id);
        self.reconfigure(name, entry);
    }

    /// Puts the routing parameters of these peers into force, all in one call, after drains began
    /// or ended. Returns how many of the peers exist.
    pub(super) fn review_drains(&self, scope: &Scope) -> usize {
        let records = match scope {
            Scope::All => self.registry.all(),
            Scope::Named(names) => {
                names.iter().filter_map(|name| self.registry.named(name)).collect()
            }
        };
        let drains = &self.shared.drains;
        let routes = |record: &Arc<Record>| drains.routes(&record.name, &record.routes);
        let tables = std::iter::once(&self.place).chain(self.vrfs.values()).map(|p| &p.table);
        for table in tables {
            let there = records.iter().filter(|record| record.place.table.is_same(table));
            table.peers_configure(there.map(|record| (record.id, routes(record))).collect());
        }
        records.len()
    }

    /// Ends a peer's session; [`Peers::forget`] follows when its task has ended.
    pub(super) fn remove(&self, name: &str, close: Close) {
        if let Some(record) = self.registry.find(name) {
            self.terminate(&record, close);
        }
    }

    /// Ends the dynamic peers that no range contains any more, or whose session parameters changed in
    /// more than timers.
    pub(super) fn review_dynamic(&self) {
        for record in self.registry.all() {
            if record.lifetime != Lifetime::Dynamic {
                continue;
            }
            let (range, entry) = match under(&self.ranges, &record) {
                Ok(found) => found,
                Err(close) => {
                    self.terminate(&record, close);
                    continue;
                }
            };
            if record.session.differs_only_in_timers(&entry.session) {
                self.retime(&record.name, &entry);
            }
            // `retime` has replaced it.
            let Some(record) = self.registry.find(&record.name) else { continue };
            if record.range != Some(range) {
                self.registry.insert(Record { range: Some(range), ..Record::clone(&record) });
            }
            if is_other_beside_session(&entry, &record) {
                self.reconfigure(&record.name, &entry);
            }
        }
    }

    /// Names of the dynamic peers whose sessions [`Peers::review_dynamic`] and [`Peers::add`] will
    /// end when these changes are applied.
    pub(super) fn dynamic_ending(&self, changes: &Changes) -> Vec<Arc<str>> {
        let ranges = changes.dynamic.as_ref().map(|dynamic| longest_first(&dynamic.ranges));
        let started = changes.peers_added.iter().chain(&changes.peers_restarted);
        let taken: BTreeSet<(Option<&Arc<str>>, IpAddr)> =
            started.map(|entry| (entry.session.vrf.as_ref(), entry.session.address)).collect();
        let ends = |record: &Arc<Record>| {
            record.is_dynamic()
                && (taken.contains(&(record.session.vrf.as_ref(), record.address))
                    || ranges.as_ref().is_some_and(|ranges| under(ranges, record).is_err()))
        };
        let ending = self.registry.all().into_iter().filter(ends);
        ending.map(|record| Arc::clone(&record.name)).collect()
    }

    /// The routing parameters that dynamic peers would get by [`Peers::review_dynamic`] once these changes
    /// are applied, where they differ.
    pub(super) fn dynamic_routes(&self, changes: &Changes) -> BTreeMap<PeerId, Arc<PeerRoutes>> {
        let Some(dynamic) = &changes.dynamic else { return BTreeMap::new() };
        let ranges = longest_first(&dynamic.ranges);
        let records = self.registry.all().into_iter().filter(|record| record.is_dynamic());
        let entries = records.filter_map(|record| {
            let (_, entry) = under(&ranges, &record).ok()?;
            let routes = self.shared.drains.routes(&record.name, &entry.routes);
            (entry.routes != record.routes).then_some((record.id, routes))
        });
        entries.collect()
    }

    /// A peer has come near the number of prefixes at which its session ends, or has more than a limit that
    /// was lowered.
    pub(super) fn warn_of_limit(&self, id: PeerId, family: Family, count: u32, bound: u32) {
        let Some(record) = self.registry().get(id) else { return };
        let beyond = if count > bound { "; the next new one ends the session" } else { "" };
        warn!(
            event = LIMIT_WARNING,
            peer = %record.name,
            "{count} {family} prefixes, the limit is {bound} (prefixes-max){beyond}"
        );
    }

    /// A peer's task has ended: removes the peer.
    pub(super) fn forget(&mut self, id: PeerId) {
        let Some(record) = self.registry.remove(id) else { return };
        record.place.directory.remove(record.address, id);
        record.place.table.peer_remove(id);
        self.free_ids.push_back(id);
        if record.lifetime == Lifetime::Dynamic {
            info!(peer = %record.name, "dynamic peer removed");
        }
    }

    /// Ends all peers and waits for that, at most for `grace`.
    pub(super) async fn stop_all(
        mut self,
        close: Close,
        mut events: mpsc::UnboundedReceiver<PeerEvent>,
        grace: Duration,
    ) {
        for record in self.registry.all() {
            record.handle.terminate(close.clone());
        }
        let all_gone = async {
            while self.registry.len() > 0 {
                match events.recv().await {
                    Some(PeerEvent::Ended(id)) => self.forget(id),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(grace, all_gone).await.is_err() {
            warn!("{} did not stop in time", counted(self.registry.len(), "peer"));
        }
    }

    fn terminate(&self, record: &Record, close: Close) {
        record.place.directory.remove(record.address, record.id);
        let presence = match close {
            Close::ConfigurationChange => Presence::Replaced,
            _ => Presence::Removed,
        };
        self.registry.leave(record.id, presence);
        record.handle.terminate(close);
    }

    /// `range`: the range from which a dynamic peer connected; `None` for a configured one.
    fn spawn(&mut self, entry: &PeerEntry, range: Option<Prefix>) -> Record {
        let lifetime = match range {
            Some(_) => Lifetime::Dynamic,
            None => Lifetime::Configured,
        };
        let id = if self.free_ids.len() > IDS_AT_REST { self.free_ids.pop_front() } else { None };
        let id = id.unwrap_or_else(|| {
            self.ids += 1;
            PeerId(self.ids - 1)
        });
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let routes = self.shared.drains.routes(&entry.name, &entry.routes);
        let place = self.place(entry.session.vrf.as_ref()).clone();
        place.table.peer_add(id, entry.session.address, routes);
        let shutdown = self.shared.shutdowns.state(&entry.name);
        let spec = PeerSpec {
            id,
            name: Arc::clone(&entry.name),
            config: Arc::clone(&entry.session),
            lifetime,
            seed: self.seed,
            recovery: place.recovery.clone(),
            beside: Arc::clone(&place.beside),
            session_counters: self.session_counters.clone(),
            shutdown: shutdown.clone(),
            debug: self.registry.debugs().switch(&entry.name),
            recorder: self.shared.recorder.clone(),
        };
        let was_shut_down = shutdown.is_set();
        let handle = spawn_peer(spec, place.table.clone(), self.events.clone());
        let record = Record {
            id,
            name: Arc::clone(&entry.name),
            description: entry.description.clone(),
            address: entry.session.address,
            place: place.clone(),
            session: Arc::clone(&entry.session),
            routes: Arc::clone(&entry.routes),
            bfd: entry.bfd.clone(),
            fallover: entry.fallover,
            lifetime,
            interface: entry.interface.clone(),
            range,
            handle: handle.clone(),
            presence: Presence::Stays,
            shutdown,
        };
        self.registry.insert(record.clone());
        place.directory.insert(&entry.session, handle);
        // Commands for peers do not wait for a reload: one may have missed this record until here.
        if let Some(text) = self.shared.shutdowns.adopt(&record.name, &record.shutdown) {
            record.handle.operate(Command::Stop(Close::Shutdown { text }));
        } else if was_shut_down && !record.shutdown.is_set() {
            record.handle.operate(Command::Start);
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkTraits;

    fn link(running: bool, addresses: &[&str]) -> Link {
        Link {
            index: 3,
            name: "eth0".into(),
            up: true,
            running,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: addresses.iter().map(|a| (a.parse().unwrap(), 24)).collect(),
        }
    }

    #[test]
    fn a_new_address_is_a_reason_to_dial() {
        let mut reach = Reach::default();
        let mut now = Instant::now();
        let mut look = |pause: u64, links: &[Link]| {
            now += Duration::from_millis(pause);
            reach.has_grown(links, now)
        };
        let (one, two) = (link(true, &["192.0.2.1"]), link(true, &["192.0.2.1", "2001:db8::1"]));
        assert!(look(0, std::slice::from_ref(&one)));
        assert!(!look(5000, std::slice::from_ref(&one)));
        assert!(look(5000, std::slice::from_ref(&two)));
        assert!(!look(5000, std::slice::from_ref(&one)), "an address was removed");
        assert!(!look(5000, &[link(false, &["192.0.2.1"])]), "no carrier");
        assert!(look(5000, std::slice::from_ref(&one)), "it is back");
        assert!(!look(10, &[]));
        assert!(!look(10, std::slice::from_ref(&one)), "a flapping link");
        assert!(!look(5000, &[]));
        assert!(look(10, &[one]));
    }
}
