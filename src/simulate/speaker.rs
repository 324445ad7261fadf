//! One speaker: the host of a real table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use bgp_proto::export::Reader;
use bgp_proto::policy::Source;
use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::table::{Dependence, LocalRoute, NextHopRequest, NextTurn, Table, TableEvent, Work};
use bgp_proto::types::{FibChange, FibKind, FibRoute, Hop, PeerId, Prefix, SessionId, Time};
use bgp_proto::wire::{RouteAction, RouteBatch};

use super::cluster::Cluster;
use super::pair::Outcome;
use super::spec::Spec;
use super::transition::Steps;

/// Work of a turn. Nothing waits for the end of one, so that a turn may do everything there is.
const BUDGET: Work = Work(10_000_000);
/// Turns without an input after which a table counts as caught in a loop.
const TURNS_MAX: usize = 10_000;
/// Changes of the kernel's routes that are taken from the table at once.
const PAGE: usize = 4096;
/// Interfaces: the one of all addresses, and the first tunnel.
const LINK: u32 = 1;
const TUNNELS: u32 = 2;

/// Routes that one or many sessions carry.
#[derive(Debug)]
pub(super) struct Update {
    batch: RouteBatch,
    pub(super) announced: u64,
    pub(super) withdrawn: u64,
}

/// An input to a speaker.
pub(super) enum Event {
    Up {
        peer: u32,
        negotiated: Arc<Negotiated>,
    },
    Down {
        peer: u32,
        keep: Option<Keep>,
    },
    Update {
        peer: u32,
        update: Arc<Update>,
    },
    /// A deadline of the table, or something else to do.
    Timeout,
    /// The session ends, and the peer is removed.
    Removed {
        peer: u32,
    },
}

/// An output: routes for a peer of another speaker.
pub(super) struct Output {
    pub(super) speaker: u32,
    pub(super) peer: u32,
    pub(super) update: Arc<Update>,
}

/// What the kernel does with packets for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// They are for pods of this node, or dropped.
    Here,
    /// To these addresses.
    Via(Box<[IpAddr]>),
}

/// A running speaker.
pub(super) struct Speaker {
    table: Table,
    woken: Arc<Woken>,
    waker: Waker,
    readers: BTreeMap<u32, Vec<Reader>>,
    /// The session of each peer that has one.
    sessions: BTreeMap<u32, SessionId>,
    sessions_begun: u64,
    pub(super) fib: BTreeMap<Prefix, Way>,
    /// Changes of `fib`.
    pub(super) changes: u64,
    /// When the last of them happened.
    pub(super) changed_at: Time,
    pub(super) inbox: Vec<Event>,
    pub(super) outbox: Vec<Output>,
    /// UPDATEs that would end the session, with the peer.
    pub(super) undecodable: Vec<u32>,
    /// Since when there is no route to a prefix that had one.
    missing: BTreeMap<Prefix, Time>,
    /// The longest time without a route, of prefixes that have one again.
    pub(super) gaps: BTreeMap<Prefix, Duration>,
}

/// A waker that records that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Speaker {
    /// A speaker that starts now.
    pub(super) fn new(spec: &Spec, now: Time) -> Self {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut table = Table::new(Arc::clone(&spec.table), 1, waker.clone());
        for (id, peer) in (0..).zip(&spec.peers) {
            table.peer_add(PeerId(id), peer.address, Arc::clone(&peer.routes));
        }
        for (prefix, install) in &spec.origins {
            table.handle_local(now, *prefix, Source::Static, Some(own(install)));
        }
        for (prefix, attrs) in spec.foreign.iter() {
            let route = LocalRoute { attrs: Some(Arc::clone(attrs)), ..LocalRoute::default() };
            table.handle_local(now, *prefix, Source::Static, Some(route));
        }
        let mut speaker = Speaker {
            table,
            woken,
            waker,
            readers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sessions_begun: 0,
            fib: BTreeMap::new(),
            changes: 0,
            changed_at: now,
            inbox: Vec::new(),
            outbox: Vec::new(),
            undecodable: Vec::new(),
            missing: BTreeMap::new(),
            gaps: BTreeMap::new(),
        };
        speaker.tell_tunnels(spec);
        speaker
    }

    /// Established sessions.
    pub(super) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The table's earliest deadline.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.table.poll_timeout()
    }

    /// Takes what is in the inbox, and runs until nothing is left to do.
    pub(super) fn run(&mut self, cluster: &Cluster, spec: &Spec, now: Time) {
        for event in std::mem::take(&mut self.inbox) {
            self.take(event);
        }
        for _ in 0..TURNS_MAX {
            self.turn(spec, now);
            if !self.fetch(cluster, spec) && !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Up { peer, negotiated } => {
                self.sessions_begun += 1;
                let session = SessionId(self.sessions_begun);
                self.sessions.insert(peer, session);
                self.table.peer_up(PeerId(peer), session, negotiated);
            }
            Event::Down { peer, keep } => {
                self.readers.remove(&peer);
                if let Some(session) = self.sessions.remove(&peer) {
                    self.table.peer_down(PeerId(peer), session, keep);
                }
            }
            Event::Update { peer, update } => {
                if self.sessions.contains_key(&peer) {
                    self.table.apply(PeerId(peer), update.batch.clone(), None);
                }
            }
            Event::Removed { peer } => {
                self.take(Event::Down { peer, keep: None });
                self.table.peer_remove(PeerId(peer));
            }
            Event::Timeout => {}
        }
    }

    /// Takes the parameters of a changed cluster; sessions are changed by events.
    pub(super) fn reconfigure(&mut self, spec: &Spec, steps: &Steps, now: Time) {
        if steps.table_differs {
            self.table.configure(Arc::clone(&spec.table));
            self.tell_tunnels(spec);
        }
        let peer = |id: u32| spec.peers.get(id as usize);
        for id in &steps.reconfigured {
            if let Some(peer) = peer(*id) {
                self.table.peer_configure(PeerId(*id), Arc::clone(&peer.routes));
            }
        }
        for (id, peer) in (0..).zip(&spec.peers).skip(steps.peers_before) {
            self.table.peer_add(PeerId(id), peer.address, Arc::clone(&peer.routes));
        }
        for (prefix, origin) in &steps.origins {
            let route = origin.as_ref().map(own);
            self.table.handle_local(now, *prefix, Source::Static, route);
        }
    }

    /// Whether a destination has no path but those of these peers.
    pub(super) fn depends_on(&self, peers: &BTreeSet<PeerId>) -> bool {
        let mut cursor = 0;
        loop {
            match self.table.depends_on(peers, cursor) {
                Dependence::Yes => return true,
                Dependence::No => return false,
                Dependence::NotUpTo(next) => cursor = next,
            }
        }
    }

    /// Begins to count again.
    pub(super) fn reset_counts(&mut self, now: Time) {
        self.changes = 0;
        self.changed_at = now;
        self.missing.clear();
        self.gaps.clear();
    }

    fn tell_tunnels(&mut self, spec: &Spec) {
        let tunnels = (TUNNELS..).zip(&spec.tunnels).map(|(i, n)| (Arc::clone(n), i));
        self.table.handle_tunnels(tunnels.collect());
    }

    fn turn(&mut self, spec: &Spec, now: Time) {
        for _ in 0..TURNS_MAX {
            self.woken.0.store(false, Ordering::Relaxed);
            let mut next = self.table.turn(now, BUDGET).next;
            while let Some(established) = self.table.poll_established() {
                let peer = established.peer.0;
                if self.sessions.get(&peer) == Some(&established.session) {
                    self.readers.insert(peer, established.readers);
                }
            }
            for request in self.table.poll_next_hops() {
                if let NextHopRequest::Track(addr) = request {
                    self.table.handle_next_hop(addr, resolve(spec, addr));
                    next = NextTurn::Now;
                }
            }
            self.take_fib(now);
            while let Some(event) = self.table.poll_event() {
                if let TableEvent::Close { peer, session, .. } = event
                    && self.sessions.get(&peer.0) == Some(&session)
                {
                    self.take(Event::Down { peer: peer.0, keep: None });
                    next = NextTurn::Now;
                }
            }
            if next != NextTurn::Now && !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn take_fib(&mut self, now: Time) {
        loop {
            let changes = self.table.poll_fib(PAGE);
            if changes.is_empty() {
                return;
            }
            for (prefix, change) in changes {
                let before = match change {
                    FibChange::Keep => continue,
                    FibChange::Withdraw => self.fib.remove(&prefix).map(|_| {
                        self.missing.insert(prefix, now);
                    }),
                    FibChange::Install(route) => {
                        if let Some(since) = self.missing.remove(&prefix).filter(|at| *at < now) {
                            let gap = self.gaps.entry(prefix).or_default();
                            *gap = (*gap).max(now.since(since));
                        }
                        let way = way(route);
                        let is_same = self.fib.get(&prefix) == Some(&way);
                        self.fib.insert(prefix, way);
                        (!is_same).then_some(())
                    }
                };
                if before.is_some() {
                    self.changes += 1;
                    self.changed_at = now;
                }
            }
        }
    }

    /// Reads what is to be sent to each peer; returns whether there was anything. What many
    /// members of a group are sent is decoded once.
    fn fetch(&mut self, cluster: &Cluster, spec: &Spec) -> bool {
        let mut known: HashMap<(u32, u8, Vec<u8>), Option<Arc<Update>>> = HashMap::new();
        let mut pieces = Vec::new();
        let mut any = false;
        for (peer, readers) in &mut self.readers {
            let end = spec.peers.get(*peer as usize).and_then(|peer| peer.other);
            let mut octets = Vec::new();
            for reader in readers {
                reader.fetch(usize::MAX >> 1, &mut pieces, &self.waker);
                pieces.drain(..).for_each(|piece| octets.extend_from_slice(piece.as_bytes()));
            }
            let Some(end) = end.filter(|_| !octets.is_empty()) else { continue };
            any = true;
            let receiver = 1 - end.side;
            let update = known.entry((end.outcome, receiver, octets)).or_insert_with_key(|key| {
                let Outcome::Up(session) = cluster.outcomes.get(key.0 as usize)? else {
                    return None;
                };
                let mut decoder = session.decoder[usize::from(receiver)]
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                decoder.decode(&key.2).map(|batch| Arc::new(counted(batch)))
            });
            match update {
                Some(update) => self.outbox.push(Output {
                    speaker: end.speaker,
                    peer: end.peer,
                    update: Arc::clone(update),
                }),
                None => self.undecodable.push(*peer),
            }
        }
        any
    }
}

/// An own route.
fn own(install: &Option<FibKind>) -> LocalRoute {
    LocalRoute { install: install.clone(), ..LocalRoute::default() }
}

fn counted(batch: RouteBatch) -> Update {
    let (mut announced, mut withdrawn) = (0, 0);
    for entry in batch.entries() {
        let count = || batch.nlri(entry).iter().count() as u64;
        match entry.action {
            RouteAction::Announce { .. } => announced += count(),
            RouteAction::Withdraw => withdrawn += count(),
            RouteAction::EndOfRib
            | RouteAction::RefreshRequest
            | RouteAction::RefreshBegin
            | RouteAction::RefreshEnd => {}
        }
    }
    Update { batch, announced, withdrawn }
}

/// A BGP next hop: directly connected if it is in the node's own network, otherwise over the
/// default route.
fn resolve(spec: &Spec, addr: IpAddr) -> NextHopState {
    let own = spec.address[usize::from(addr.is_ipv6())];
    if own.is_some_and(|(own, _)| own == addr) {
        return NextHopState::Local;
    }
    let connected = own.is_some_and(|(_, network)| network.contains_addr(addr));
    NextHopState::Via {
        hops: vec![Hop { gateway: Some(addr), ifindex: LINK, onlink: false, weight: 1 }],
        metric: 0,
        connected,
        interface: Some("eth0".into()),
        over: if connected { Over::Specific } else { Over::Default },
    }
}

fn way(route: FibRoute) -> Way {
    let FibKind::Unicast(hops) = route.kind else { return Way::Here };
    let of_hops = || hops.iter().filter_map(|hop| hop.gateway).collect();
    if route.next_hops.is_empty() {
        return Way::Via(of_hops());
    }
    Way::Via(route.next_hops.iter().map(|hop| hop.addr).collect())
}
