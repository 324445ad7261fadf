//! Routing by the real [`Table`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use super::routing::{BestRoute, Routing};
use super::speaker::SpeakerSpec;
use crate::export::Reader;
use crate::policy::Source;
use crate::rib::{NextHopState, ViaDefault};
use crate::session::{Keep, Negotiated};
use crate::table::{
    DestinationView, LocalRoute, NextHopRequest, NextTurn, PathView, PeerRoutes, RouteFilter,
    Table, TableConfig, TableEvent, Work,
};
use crate::types::{ClusterId, FibChange, FibKind, FibRoute, PeerId, Prefix, SessionId, Time};
use crate::wire::{AttrView, RouteBatch};

/// Destinations per call of [`Table::poll_fib`] and [`Table::view`]: small, so that paging is used.
const PAGE: usize = 7;
/// Work of a turn: little, so that phases are interrupted and resumed.
const BUDGET: Work = Work(5_000);

/// The host's part of a table: next hops resolve at once, the kernel accepts every route.
pub struct Tabled {
    table: Table,
    address: IpAddr,
    readers: BTreeMap<PeerId, Vec<Reader>>,
    sessions: BTreeMap<PeerId, SessionId>,
    sessions_begun: u64,
    installed: BTreeMap<Prefix, BTreeSet<IpAddr>>,
    work_left: bool,
    woken: Arc<Woken>,
}

/// A waker that records that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tabled {
    /// The table of a speaker.
    pub fn new(spec: &SpeakerSpec, log_bytes_max: usize) -> Self {
        let woken = Arc::new(Woken::default());
        let config = TableConfig {
            cluster_id: spec.cluster_id.unwrap_or(ClusterId(spec.router_id.0)),
            multipath_max: 1,
            via_default: ViaDefault::Always,
            log_bytes_max,
            ..TableConfig::new(spec.asn, spec.router_id)
        };
        Tabled {
            table: Table::new(Arc::new(config), 1, Waker::from(Arc::clone(&woken))),
            address: spec.address,
            readers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sessions_begun: 0,
            installed: BTreeMap::new(),
            work_left: false,
            woken,
        }
    }

    fn resolve(&self, addr: IpAddr) -> NextHopState {
        if addr == self.address {
            return NextHopState::Local;
        }
        NextHopState::connected(addr, 1)
    }

    fn destinations(&self, now: Time, filter: &RouteFilter) -> Vec<DestinationView> {
        let mut all = Vec::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (page, next) = self.table.view(filter, at, PAGE, now);
            all.extend(page);
            cursor = next;
        }
        all
    }

    fn first_paths(&self, now: Time, filter: &RouteFilter) -> BTreeMap<Prefix, BestRoute> {
        let views = self.destinations(now, filter).into_iter();
        views.filter_map(|view| Some((view.prefix, to_route(view.paths.first()?)))).collect()
    }
}

fn to_route(path: &PathView) -> BestRoute {
    BestRoute {
        next_hop: path.peer.and(path.next_hop).map(|hop| hop.addr()),
        as_path: AttrView::new(&path.attrs).as_path().asns().collect(),
        stale: path.stale,
    }
}

impl Routing for Tabled {
    fn peer_add(&mut self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        self.table.peer_add(peer, address, routes);
    }

    fn peer_up(&mut self, _now: Time, peer: PeerId, negotiated: &Arc<Negotiated>) {
        self.sessions_begun += 1;
        let session = SessionId(self.sessions_begun);
        self.sessions.insert(peer, session);
        self.table.peer_up(peer, session, Arc::clone(negotiated));
        self.work_left = true;
    }

    fn peer_down(&mut self, _now: Time, peer: PeerId, keep: Option<Keep>) {
        self.readers.remove(&peer);
        if let Some(session) = self.sessions.remove(&peer) {
            self.table.peer_down(peer, session, keep);
        }
        self.work_left = true;
    }

    fn apply(&mut self, _now: Time, peer: PeerId, batch: &RouteBatch) {
        self.table.apply(peer, batch.clone(), None);
        self.work_left = true;
    }

    fn originate(&mut self, now: Time, prefix: Prefix, present: bool) {
        let route = present
            .then(|| LocalRoute { install: Some(FibKind::Blackhole), ..LocalRoute::default() });
        self.table.handle_local(now, prefix, Source::Static, route);
        self.work_left = true;
    }

    fn defer_export(&mut self) {
        self.table.defer_export();
    }

    fn release_export(&mut self) {
        self.table.release_export();
        self.work_left = true;
    }

    fn finish(&mut self, now: Time) {
        if !self.woken.0.swap(false, Ordering::Relaxed) && !self.work_left {
            return;
        }
        self.work_left = self.table.turn(now, BUDGET).next == NextTurn::Now;
        while let Some(established) = self.table.poll_established() {
            if self.sessions.get(&established.peer) == Some(&established.session) {
                self.readers.insert(established.peer, established.readers);
            }
        }
        for request in self.table.poll_next_hops() {
            if let NextHopRequest::Track(addr) = request {
                self.table.handle_next_hop(addr, self.resolve(addr));
                self.work_left = true;
            }
        }
        loop {
            let changes = self.table.poll_fib(PAGE);
            if changes.is_empty() {
                break;
            }
            for (prefix, change) in changes {
                let gateways = match change {
                    FibChange::Keep => continue,
                    FibChange::Withdraw => {
                        self.installed.remove(&prefix);
                        continue;
                    }
                    FibChange::Install(FibRoute { kind: FibKind::Unicast(hops), .. }) => {
                        hops.iter().filter_map(|hop| hop.gateway).collect()
                    }
                    FibChange::Install(_) => BTreeSet::new(),
                };
                self.installed.insert(prefix, gateways);
            }
        }
    }

    fn wants_turn(&self) -> bool {
        self.work_left || self.woken.0.load(Ordering::Relaxed)
    }

    fn poll_event(&mut self) -> Option<TableEvent> {
        self.table.poll_event()
    }

    fn fetch(&mut self, _now: Time, peer: PeerId, budget: usize, out: &mut Vec<u8>) {
        let waker = Waker::from(Arc::clone(&self.woken));
        for reader in self.readers.get_mut(&peer).into_iter().flatten() {
            let mut pieces = Vec::new();
            reader.fetch(budget, &mut pieces, &waker);
            pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.table.poll_timeout()
    }

    fn handle_timeout(&mut self, _now: Time) {
        // The turn that follows handles deadlines.
        self.work_left = true;
    }

    fn best(&self, now: Time) -> BTreeMap<Prefix, BestRoute> {
        let views = self.destinations(now, &RouteFilter::default()).into_iter();
        views
            .filter_map(|view| {
                let best = view.paths.iter().find(|path| path.best)?;
                Some((view.prefix, to_route(best)))
            })
            .collect()
    }

    fn told(&self, now: Time, peer: PeerId) -> BTreeMap<Prefix, BestRoute> {
        let filter = RouteFilter { advertised_to: Some(peer), ..RouteFilter::default() };
        self.first_paths(now, &filter)
            .into_iter()
            .map(|(prefix, route)| {
                let next_hop = route.next_hop.or(Some(self.address));
                (prefix, BestRoute { next_hop, ..route })
            })
            .collect()
    }

    fn heard(&self, now: Time, peer: PeerId) -> BTreeMap<Prefix, BestRoute> {
        let filter = RouteFilter { received_from: Some(peer), ..RouteFilter::default() };
        self.first_paths(now, &filter)
    }

    fn evictions(&self) -> u64 {
        self.table.groups().iter().map(|group| group.evictions).sum()
    }

    fn installed(&self) -> &BTreeMap<Prefix, BTreeSet<IpAddr>> {
        &self.installed
    }
}
