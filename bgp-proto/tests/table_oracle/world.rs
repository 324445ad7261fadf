//! The table under test, its host, its peers' receivers, and the model beside them.

mod rehearsal;
mod runs;
mod stale;
mod vantage;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bgp_proto::export::{Fetch, Piece};
use bgp_proto::policy::Source;
use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::session::{LocalIdentity, Negotiated, PeerConfig};
use bgp_proto::table::{
    AddPathSend, Drain, Established, ExportParams, ImportParams, LocalRoute, NextHopMode,
    NextHopRequest, NextTurn, PeerRoutes, ReflectionParams, RouteFilter, RouteLimits, Table,
    TableConfig, Work,
};
use bgp_proto::types::{
    Asn, BandwidthScope, Community, ExtCommunity, Family, FamilySet, FibKind, FibRoute, Hop,
    NextHop, PathId, PeerId, PeerType, Prefix, RouterId, SessionId, Time,
};
use bgp_proto::wire::{
    Capabilities, GracefulRestart, GracefulRestartFamily, LongLivedFamily, Nlri, RouteAction,
    RouteBatch, split_frame,
};

use crate::model::{
    Filter, MULTIPATH_MAX, Meaning, Model, OUR_ASN, OUR_ID, Own, PEERS, PREFIXES, Received,
    Settings, kind, peer_address, prefix, router_id,
};
use crate::op::Op;
use crate::receiver::{Flag, Receiver};
use stale::Kept;

#[derive(Default)]
struct Session {
    id: SessionId,
    up: bool,
    negotiated: Option<Arc<Negotiated>>,
    receivers: Vec<Receiver>,
    kept: [Kept; 2],
    refresh_until: [Option<Time>; 2],
}

pub(crate) struct World {
    config: Arc<TableConfig>,
    table: Table,
    table_woken: Arc<Flag>,
    /// There has been input since the last turn, or the last turn left work to do.
    turn_due: bool,
    /// Peers are at vantages.
    has_vantages: bool,
    /// NO_LLGR has left a peer that is down without a route.
    emptied: bool,
    now: Time,
    sessions: Vec<Session>,
    sessions_begun: u64,
    turns: u32,
    model: Model,
    hop_states: Vec<NextHopState>,
    tracked: BTreeSet<IpAddr>,
    fib: BTreeMap<Prefix, FibRoute>,
}

const HOPS: usize = 6;
/// The default of `PeerRoutes::stale_time`.
const STALE_TIME: Duration = Duration::from_secs(180);

fn hop_addr(index: usize, family: Family) -> IpAddr {
    match (family, index) {
        // These are addresses of peers: paths through them are not advertised to that peer (RFC
        // 4271 §5.1.3).
        (Family::Ipv4, 2) => peer_address(3),
        (Family::Ipv4, 4) => peer_address(9),
        (Family::Ipv4, _) => IpAddr::from([192, 0, 2, index as u8 + 1]),
        (Family::Ipv6, _) => format!("2001:db8:fe::{}", index + 1).parse().unwrap(),
    }
}

fn hop_state(index: usize, state: u8) -> NextHopState {
    let hop = Hop { gateway: None, ifindex: index as u32 % 4 + 1, onlink: false, weight: 1 };
    match state % 5 {
        0 => NextHopState::Unreachable,
        1 => NextHopState::Local,
        n => NextHopState::Via {
            hops: vec![hop],
            metric: u32::from(n / 3),
            connected: true,
            // The interface name varies independently of the hops, as when an interface is renamed.
            interface: [None, Some("eth0"), Some("eth1")][usize::from(state / 5) % 3]
                .map(Arc::from),
            over: [Over::Specific, Over::Default][usize::from(state / 15) % 2],
        },
    }
}

/// Attributes from one octet: few distinct values, so that paths often tie.
fn attributes(peer: usize, variant: u8) -> Meaning {
    let v = u32::from(variant);
    let external = kind(peer).peer_type() == PeerType::External;
    let mut attrs = Meaning { origin: (v / 3 % 2) as u8, ..Meaning::default() };
    if external {
        attrs.path.push(kind(peer).asn);
    }
    match v % 11 {
        0 => attrs.path.push(OUR_ASN),
        1 | 2 => attrs.path.push(4_200_000_000 + v % 2),
        3..=5 => attrs.path.push(65009),
        _ => {}
    }
    if v % 3 == 0 {
        attrs.med = Some(v % 4);
    }
    if !external {
        attrs.local_pref = [None, Some(100), Some(100), Some(150)][(v / 7 % 4) as usize];
        if v % 13 == 1 {
            attrs.originator = Some(if v % 2 == 0 { OUR_ID } else { 0x0b00_0001 });
            attrs.clusters = vec![[0x0c00_0001, OUR_ID][(v / 13 % 2) as usize]];
        }
    }
    let communities = [
        Community::NO_EXPORT,
        Community::NO_ADVERTISE,
        Community::NO_EXPORT_SUBCONFED,
        Community::GRACEFUL_SHUTDOWN,
        Community::LLGR_STALE,
        Community::NO_LLGR,
    ];
    match v % 17 {
        n @ (0..=3 | 5 | 6) => {
            let n = n.min(4) + n / 6;
            attrs.communities.insert(communities[n as usize].0);
        }
        4 => {
            attrs.ext.insert([0x40, 4, 0, 1, 0, 0, 0, 0]);
            attrs.ext.insert([0x00, 2, 0, 1, 0, 0, 0, 7]);
        }
        _ => {}
    }
    if v % 5 == 1 {
        let octets = u64::from(v % 3 + 1) * 1000;
        let scope = BandwidthScope::Transitive;
        attrs.ext.insert(ExtCommunity::of_link_bandwidth(Asn(1), octets, scope).0);
    }
    if v % 9 == 4 {
        // Too long for a message of 600 octets.
        attrs.communities.extend((0..150).map(|n| 0x0200_0000 + n));
    }
    // A tag of the announcing peer, which must not be sent the route back.
    attrs.communities.insert(0x0064_0000 + peer as u32);
    attrs
}

impl World {
    pub(crate) fn new(log_bytes_max: usize) -> Self {
        let table_woken = Arc::new(Flag::default());
        let config = Arc::new(TableConfig {
            multipath_max: MULTIPATH_MAX,
            log_bytes_max,
            ..TableConfig::new(Asn(OUR_ASN), RouterId(OUR_ID))
        });
        let mut world = World {
            config: Arc::clone(&config),
            table: Table::new(config, 42, Waker::from(Arc::clone(&table_woken))),
            table_woken,
            turn_due: true,
            has_vantages: false,
            emptied: false,
            now: Time::from_micros(1_000_000),
            sessions: (0..PEERS).map(|_| Session::default()).collect(),
            sessions_begun: 0,
            turns: 1,
            model: Model { multipath_max: MULTIPATH_MAX, ..Model::default() },
            hop_states: (0..HOPS).map(|index| hop_state(index, 2 + index as u8 % 3)).collect(),
            tracked: BTreeSet::new(),
            fib: BTreeMap::new(),
        };
        for peer in 0..PEERS {
            world.model.settings.push(Settings {
                import: Filter::All,
                export: Filter::All,
                client: matches!(peer, 2 | 3 | 7..=10),
                next_hop: NextHopMode::Auto,
                send: kind(peer).send,
                communities_max: 2048,
                drain: (Drain::Off, Drain::Off),
                vantage: None,
            });
            let routes = world.routes(peer);
            world.table.peer_add(PeerId(peer as u32), peer_address(peer), routes);
        }
        for (index, state) in world.hop_states.iter().enumerate() {
            for family in Family::ALL {
                world.model.hops.insert(hop_addr(index, family), state.clone());
            }
        }
        world
    }

    /// Sets the generation counter so that it wraps within the test.
    pub(crate) fn wrap_generation_soon(&mut self) {
        self.table.set_generation(u32::MAX - 25);
    }

    /// Sends no peer more than one path of a destination: for sessions that come up afterwards.
    pub(crate) fn without_add_path(&mut self) {
        self.model.is_without_add_path = true;
    }

    /// Configures long-lived graceful restart.
    pub(crate) fn use_long_lived(&mut self) {
        self.model.is_long_lived = true;
        let config = TableConfig { long_lived: true, ..TableConfig::clone(&self.config) };
        self.config = Arc::new(config);
        self.table.configure(Arc::clone(&self.config));
        self.turn_due = true;
    }

    /// Lets own routes give way to those of others towards every peer, until it is configured.
    pub(crate) fn drain_all(&mut self) {
        for peer in 0..PEERS {
            self.model.settings[peer].drain.1 = Drain::Withdraw;
            let routes = self.routes(peer);
            self.table.peer_configure(PeerId(peer as u32), routes);
        }
        self.turn_due = true;
    }

    fn routes(&self, peer: usize) -> Arc<PeerRoutes> {
        let settings = self.model.settings[peer];
        Arc::new(PeerRoutes {
            import: ImportParams {
                limits: RouteLimits {
                    communities_max: settings.communities_max,
                    ..RouteLimits::default()
                },
                drain: settings.drain.0,
                ..ImportParams::new(settings.import.policy())
            },
            export: ExportParams {
                policy: settings.export.policy(),
                next_hop: settings.next_hop,
                add_path_send: settings.send,
                drain: settings.drain.1,
            },
            reflection: ReflectionParams { client: settings.client, ..ReflectionParams::default() },
            vantage: settings.vantage.map(Arc::from),
            ..PeerRoutes::new(format!("peer{peer}"))
        })
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Announce { peer, prefix, variant, path_id } => {
                self.announce(peer, prefix, variant, path_id);
            }
            Op::Burst { peer, variant } => {
                for prefix in 0..PREFIXES {
                    self.announce(peer, prefix, variant.wrapping_add(prefix as u8 / 3), 0);
                }
            }
            Op::Withdraw { peer, prefix, path_id } => self.withdraw(peer, prefix, path_id),
            Op::Up { peer } => self.up(peer),
            Op::Down { peer, keep } => self.down(peer, keep),
            Op::Replace { peer } => self.replace(peer),
            Op::EndOfRib { peer, family } => self.marker(peer, family, RouteAction::EndOfRib),
            Op::RefreshRequest { peer, family } => {
                self.marker(peer, family, RouteAction::RefreshRequest);
            }
            Op::RefreshBegin { peer, family } => {
                self.marker(peer, family, RouteAction::RefreshBegin);
            }
            Op::RefreshFlood { peer, prefix, variant } => {
                // More refreshes than there are distinct stamps, each followed by one re-advertised
                // path.
                for round in 0..300u32 {
                    let family = crate::model::prefix(prefix).family();
                    self.marker(peer, family, RouteAction::RefreshBegin);
                    if round % 64 == 63 {
                        self.finish();
                    }
                    self.announce(peer, prefix, variant, round % 2);
                }
            }
            Op::RefreshEnd { peer, family } => self.marker(peer, family, RouteAction::RefreshEnd),
            Op::NextHop { index, state } => self.set_hop(usize::from(index) % HOPS, state),
            Op::Own { prefix, source, variant } => self.set_own(prefix, source, variant),
            Op::Configure { peer, import, export, rest } => {
                self.configure(peer, import, export, rest);
            }
            Op::Move { peer, place } if self.has_vantages => self.move_peer(peer, place),
            Op::Costs { variant } if self.has_vantages => self.set_costs(variant),
            Op::Move { .. } | Op::Costs { .. } => {}
            Op::Finish => self.finish(),
            Op::Read { peer, family, budget } => {
                let at =
                    self.sessions[peer].receivers.iter().position(|r| r.reader.family() == family);
                if let Some(at) = at {
                    self.read(peer, at, usize::from(budget) * 4);
                }
            }
            Op::ReadAll { peer } => {
                for at in 0..self.sessions[peer].receivers.len() {
                    self.read(peer, at, usize::MAX);
                }
            }
            Op::SettleWithout { idle } => self.settle_without(idle),
            Op::Wait { secs } => self.wait(u64::from(secs) * 4),
        }
    }

    fn next_hop(&self, prefix: usize, variant: u8) -> NextHop {
        hop_addr(usize::from(variant / 5) % HOPS, crate::model::prefix(prefix).family()).into()
    }

    fn apply(&mut self, peer: usize, batch: RouteBatch) {
        self.table.apply(PeerId(peer as u32), batch, None);
        self.turn_due = true;
    }

    pub(crate) fn announce(&mut self, peer: usize, index: usize, variant: u8, path_id: u32) {
        if !self.sessions[peer].up {
            return;
        }
        let path_id = if kind(peer).add_path_rx { path_id } else { 0 };
        let attrs = attributes(peer, variant);
        let next_hop = self.next_hop(index, variant);
        let mut bytes = Vec::new();
        let add_path = kind(peer).add_path_rx;
        Nlri::push(&mut bytes, add_path.then_some(PathId(path_id)), prefix(index));
        let nlri = Nlri::parse(prefix(index).family(), add_path, &bytes).unwrap();
        let mut batch = RouteBatch::default();
        batch.push(nlri, Some((&attrs.encode(), next_hop)));
        self.apply(peer, batch);
        let received =
            Received { attrs, next_hop, stale: false, long_lived: false, unrefreshed: false };
        self.model.received.insert((peer, prefix(index), path_id), received);
    }

    pub(crate) fn withdraw(&mut self, peer: usize, index: usize, path_id: u32) {
        if !self.sessions[peer].up {
            return;
        }
        let path_id = if kind(peer).add_path_rx { path_id } else { 0 };
        let mut bytes = Vec::new();
        let add_path = kind(peer).add_path_rx;
        Nlri::push(&mut bytes, add_path.then_some(PathId(path_id)), prefix(index));
        let mut batch = RouteBatch::default();
        batch.push(Nlri::parse(prefix(index).family(), add_path, &bytes).unwrap(), None);
        self.apply(peer, batch);
        self.model.received.remove(&(peer, prefix(index), path_id));
    }

    pub(crate) fn up(&mut self, peer: usize) {
        if self.sessions[peer].up {
            return;
        }
        let kind = kind(peer);
        let add_path = |on| if on { FamilySet::ALL } else { FamilySet::EMPTY };
        let restart_families = Family::ALL
            .map(|f| GracefulRestartFamily {
                family: f.afi_safi(),
                forwarding: kind.keeps_forwarding,
            })
            .to_vec();
        let local = (Asn(OUR_ASN), kind.local_addr());
        let long_lived = Family::ALL
            .map(|f| LongLivedFamily {
                family: f.afi_safi(),
                forwarding: kind.keeps_forwarding_long,
                stale_time_secs: 1,
            })
            .to_vec();
        let long_lived = kind.knows_long_lived.then_some(long_lived);
        let restart = GracefulRestart {
            restart_time_secs: 120,
            families: restart_families,
            notification: kind.notifies,
            ..GracefulRestart::default()
        };
        let negotiated = Arc::new(Negotiated {
            peer_router_id: router_id(peer),
            other_addr: kind.other_addr(),
            link_local: kind.link_local(),
            families: FamilySet::ALL,
            four_octet_as: kind.four_octet_as,
            add_path_rx: add_path(kind.add_path_rx),
            add_path_tx: add_path(self.model.sends_add_path(peer)),
            ipv4_over_ipv6: kind.ipv4_over_ipv6,
            tx_max_len: kind.max_len,
            enhanced_refresh: kind.enhanced,
            graceful_restart: Some(restart.clone()),
            long_lived: long_lived.clone().filter(|_| self.model.is_long_lived),
            peer_capabilities: Capabilities {
                graceful_restart: Some(restart),
                long_lived,
                ..Capabilities::default()
            },
            ..Negotiated::plain(local, (Asn(kind.asn), peer_address(peer)))
        });
        self.model.known.insert(peer);
        self.sessions_begun += 1;
        let id = PeerId(peer as u32);
        self.table.peer_up(id, SessionId(self.sessions_begun), Arc::clone(&negotiated));
        self.turn_due = true;
        let session = &mut self.sessions[peer];
        session.up = true;
        session.id = SessionId(self.sessions_begun);
        session.negotiated = Some(negotiated);
        session.refresh_until = [None; 2];
        session.receivers.clear();
        for family in Family::ALL {
            let kept = &mut self.sessions[peer].kept[family.index()];
            let is_preserved = match kept.long_until {
                Some(_) => kind.keeps_forwarding_long,
                None => kind.keeps_forwarding,
            };
            if kept.stale && is_preserved {
                let at = self.now + STALE_TIME;
                kept.until = Some(kept.bound.map_or(at, |bound| at.min(bound)));
            } else {
                self.sweep_stale(peer, family);
            }
        }
    }

    fn replace(&mut self, peer: usize) {
        self.down(peer, 0);
        self.table.peer_remove(PeerId(peer as u32));
        self.model.received.retain(|(p, _, _), _| *p != peer);
        self.model.known.remove(&peer);
        self.sessions[peer] = Session::default();
        let routes = self.routes(peer);
        self.table.peer_add(PeerId(peer as u32), peer_address(peer), routes);
        self.turn_due = true;
    }

    fn sweep_unrefreshed(&mut self, peer: usize, family: Family) {
        self.model
            .received
            .retain(|(p, prefix, _), r| *p != peer || prefix.family() != family || !r.unrefreshed);
        self.sessions[peer].refresh_until[family.index()] = None;
    }

    fn marker(&mut self, peer: usize, family: Family, action: RouteAction) {
        if !self.sessions[peer].up {
            return;
        }
        let mut batch = RouteBatch::default();
        batch.push_marker(family, action.clone());
        self.apply(peer, batch);
        let at = family.index();
        match action {
            RouteAction::EndOfRib => self.sweep_stale(peer, family),
            RouteAction::RefreshBegin
                if kind(peer).enhanced && !self.sessions[peer].kept[at].stale =>
            {
                self.sessions[peer].refresh_until[at] = Some(self.now + Duration::from_secs(600));
                for ((p, prefix, _), route) in &mut self.model.received {
                    route.unrefreshed |= *p == peer && prefix.family() == family;
                }
            }
            RouteAction::RefreshEnd if self.sessions[peer].refresh_until[at].is_some() => {
                self.sweep_unrefreshed(peer, family);
            }
            _ => {}
        }
    }

    fn set_hop(&mut self, index: usize, state: u8) {
        let state = hop_state(index, state);
        for family in Family::ALL {
            let addr = hop_addr(index, family);
            if self.tracked.contains(&addr) {
                self.table.handle_next_hop(addr, state.clone());
                self.turn_due = true;
            }
            self.model.hops.insert(addr, state.clone());
        }
    }

    fn set_own(&mut self, index: usize, source: u8, variant: u8) {
        let (key, route) = self.note_own(index, source, variant);
        self.table.handle_local(self.now, key.0, key.1, route);
        self.turn_due = true;
    }

    /// Changes a local route in the model only.
    fn note_own(
        &mut self,
        index: usize,
        source: u8,
        variant: u8,
    ) -> ((Prefix, Source), Option<LocalRoute>) {
        let source = [Source::Static, Source::Kernel, Source::Direct][usize::from(source) % 3];
        let key = (prefix(index), source);
        let own = (!variant.is_multiple_of(3)).then(|| Own {
            blackhole: variant % 3 == 1,
            next_hop: (variant.is_multiple_of(5)).then(|| hop_addr(2, prefix(index).family())),
        });
        let route = own.clone().map(|own| LocalRoute {
            install: own.blackhole.then_some(FibKind::Blackhole),
            next_hop: own.next_hop,
            ..LocalRoute::default()
        });
        match own {
            Some(own) => drop(self.model.own.insert(key, own)),
            None => drop(self.model.own.remove(&key)),
        }
        (key, route)
    }

    pub(crate) fn configure(&mut self, peer: usize, import: u8, export: u8, rest: u8) {
        let routes = self.note_settings(peer, import, export, rest);
        self.table.peer_configure(PeerId(peer as u32), routes);
        self.turn_due = true;
    }

    /// Changes the parameters of a peer in the model only.
    fn note_settings(&mut self, peer: usize, import: u8, export: u8, rest: u8) -> Arc<PeerRoutes> {
        let settings = &mut self.model.settings[peer];
        settings.import = Filter::from_byte(import);
        settings.export = Filter::from_byte(export);
        if rest.is_multiple_of(4) {
            settings.client = rest.is_multiple_of(8);
        }
        match rest % 4 {
            1 => settings.communities_max = 2048,
            // Some routes exceed this limit.
            3 => settings.communities_max = 100,
            _ => {}
        }
        // Bits that the filters do not look at.
        let drain = |byte: u8| {
            [Drain::Off, Drain::On, Drain::Withdraw, Drain::Off][usize::from(byte >> 4) % 4]
        };
        settings.drain = (drain(import), drain(export));
        settings.next_hop = [
            NextHopMode::Auto,
            NextHopMode::ThirdParty,
            NextHopMode::SelfAddress,
            NextHopMode::Keep,
        ][usize::from(rest / 8) % 4];
        settings.send =
            [AddPathSend::All, AddPathSend::Best(1), AddPathSend::Best(2), AddPathSend::All]
                [usize::from(rest / 64) % 4];
        // A route's next hop is always of the prefix's own family here, so `NextHopMode::Keep`
        // never has to reject one.
        self.routes(peer)
    }

    /// The table has processed the start of a session.
    fn establish(&mut self, established: Established) {
        let session = &mut self.sessions[established.peer.0 as usize];
        if !session.up || session.id != established.session {
            return;
        }
        assert_eq!(established.readers.len(), 2);
        session.receivers = established.readers.into_iter().map(Receiver::new).collect();
    }

    fn finish(&mut self) {
        self.table_woken.take();
        // Small and varying budgets, so that every kind of work is interrupted at some point.
        self.turns = self.turns.wrapping_mul(0x9E37_79B1).wrapping_add(1);
        let budget = Work(if self.turns & 7 == 0 { 20_000 } else { self.turns >> 20 & 127 });
        self.turn_due = self.table.turn(self.now, budget).next == NextTurn::Now;
        while let Some(established) = self.table.poll_established() {
            self.establish(established);
        }
        let mut resolved = false;
        for request in self.table.poll_next_hops() {
            match request {
                NextHopRequest::Track(addr) => {
                    assert!(self.tracked.insert(addr), "{addr} is tracked already");
                    self.table.handle_next_hop(addr, self.model.hops[&addr].clone());
                    resolved = true;
                }
                NextHopRequest::Untrack(addr) => assert!(self.tracked.remove(&addr)),
            }
        }
        self.turn_due |= resolved;
        for (prefix, change) in self.table.poll_fib(7) {
            match change.route() {
                Some(route) => {
                    assert_eq!(route.prefix, prefix);
                    let before = self.fib.insert(prefix, route.clone());
                    assert_ne!(before, Some(route), "{prefix}: the installed route is sent again");
                }
                None => {
                    assert!(self.fib.remove(&prefix).is_some(), "{prefix}: nothing to withdraw")
                }
            }
        }
        while self.table.poll_event().is_some() {}
    }

    /// Fetches once; returns whether there was any data.
    fn read(&mut self, peer: usize, at: usize, budget: usize) -> bool {
        let context = {
            let negotiated = self.sessions[peer].negotiated.as_ref().unwrap();
            let local = LocalIdentity { asn: Asn(OUR_ASN), router_id: RouterId(1) };
            let config = PeerConfig::new(negotiated.remote_addr, Asn(OUR_ASN), &local);
            let mut context = negotiated.update_context(&config);
            context.add_path = negotiated.add_path_tx;
            context.peer_asn = Asn(OUR_ASN);
            context
        };
        let max_len = kind(peer).max_len;
        let own_tag = 0x0064_0000 + peer as u32;
        let receiver = &mut self.sessions[peer].receivers[at];
        let family = receiver.reader.family();
        let mut pieces: Vec<Piece> = Vec::new();
        let waker = Waker::from(Arc::clone(&receiver.woken));
        let fetched = receiver.reader.fetch(budget, &mut pieces, &waker);
        assert_eq!(fetched == Fetch::Data, !pieces.is_empty());
        let mut total = 0;
        for piece in &pieces {
            let mut bytes = piece.as_bytes();
            assert!(!bytes.is_empty());
            total += bytes.len();
            while !bytes.is_empty() {
                let frame =
                    split_frame(bytes, max_len).unwrap().expect("pieces end with a message");
                assert!(frame.bytes.len() <= max_len);
                receiver.take(frame.bytes, &context, family, own_tag);
                bytes = &bytes[frame.bytes.len()..];
            }
        }
        assert!(total <= budget.max(4096), "{total} octets, asked for {budget}");
        // A reader that returns less than the budget has returned everything, but only
        // `Fetch::Empty` registers the waker: the caller has to fetch again after data.
        fetched == Fetch::Data
    }

    /// Runs turns and reads until no waker has fired.
    pub(crate) fn settle(&mut self) {
        self.settle_without(usize::MAX);
    }

    /// As [`World::settle`], while one peer does not read.
    pub(crate) fn settle_without(&mut self, idle: usize) {
        for round in 0.. {
            assert!(round < 20_000, "there is always more to do");
            let mut quiet = true;
            if self.turn_due || self.table_woken.take() {
                self.finish();
                quiet = false;
            }
            for peer in (0..PEERS).filter(|peer| *peer != idle) {
                for at in 0..self.sessions[peer].receivers.len() {
                    while self.sessions[peer].receivers[at].woken.take() {
                        // Fetches until empty, as a connection task does; every other round with a
                        // small budget.
                        let budget = if round % 2 == 0 { 90 } else { 100_000 };
                        while self.read(peer, at, budget) {}
                        quiet = false;
                    }
                }
            }
            if quiet {
                break;
            }
        }
        for _ in 0..20 {
            self.finish();
        }
        while self.turn_due {
            self.finish();
        }
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.table.groups().iter().map(|group| group.evictions).sum()
    }

    pub(crate) fn ended_with_end_of_rib(&self, peer: usize) -> bool {
        self.sessions[peer].receivers.iter().all(|r| r.last_was_end_of_rib && r.end_of_ribs == 1)
    }

    pub(crate) fn check(&self) {
        self.check_except(usize::MAX);
    }

    pub(crate) fn check_except(&self, idle: usize) {
        for peer in (0..PEERS).filter(|peer| self.sessions[*peer].up && *peer != idle) {
            assert_eq!(self.sessions[peer].receivers.len(), 2, "peer {peer}: no readers");
            for receiver in &self.sessions[peer].receivers {
                let family = receiver.reader.family();
                let mut got: BTreeMap<Prefix, Vec<(Meaning, NextHop)>> = BTreeMap::new();
                for ((prefix, _), (attrs, next_hop, _)) in &receiver.held {
                    got.entry(*prefix).or_default().push((attrs.clone(), *next_hop));
                }
                got.values_mut().for_each(|paths| paths.sort());
                let expected = self.model.expected(peer, family);
                assert_eq!(
                    got, expected,
                    "peer {peer} {family}: routes held (left), expected (right)"
                );
                assert_eq!(receiver.end_of_ribs, 1, "peer {peer} {family}: End-of-RIB");
                assert!(!receiver.refreshing, "peer {peer} {family}: no EoRR");
                let count: usize = expected.values().map(Vec::len).sum();
                let counts = self.table.counts(PeerId(peer as u32));
                assert_eq!(counts.advertised[family] as usize, count, "peer {peer} {family}");
                self.check_view(peer, family, &expected);
            }
        }
        let installed = self.fib.iter().map(|(prefix, route)| (*prefix, route.kind.clone()));
        let installed: BTreeMap<Prefix, FibKind> = installed.collect();
        assert_eq!(
            installed,
            self.model.fib(),
            "routes sent to the kernel (left), expected (right)"
        );
        if idle == usize::MAX {
            assert_eq!(self.tracked, self.model.tracked());
        }
        let (all, _) = self.table.view(&RouteFilter::default(), 0, usize::MAX, self.now);
        self.check_runs(&all);
        let shown = all.iter().flat_map(|destination| &destination.paths);
        let long_lived = self.model.received.values().filter(|route| route.long_lived);
        assert_eq!(shown.filter(|path| path.long_lived).count(), long_lived.count());
        let best = self.best_by_peer();
        for peer in 0..PEERS {
            let counts = self.table.counts(PeerId(peer as u32));
            for family in Family::ALL {
                let id = PeerId(peer as u32);
                let preferred = best.get(&(id, family)).copied().unwrap_or_default();
                assert_eq!(counts.preferred[family], preferred, "best from peer {peer}");
                let held = || {
                    let all = self.model.received.iter();
                    all.filter(|((p, prefix, _), _)| *p == peer && prefix.family() == family)
                };
                let accepted =
                    held().filter(|((_, prefix, _), r)| self.model.accepts(peer, *prefix, r));
                assert_eq!(counts.received[family] as usize, held().count());
                assert_eq!(counts.accepted[family] as usize, accepted.count());
            }
        }
    }

    /// Number of destinations whose best path is from each peer, counted individually.
    fn best_by_peer(&self) -> BTreeMap<(PeerId, Family), u32> {
        let (all, _) = self.table.view(&RouteFilter::default(), 0, usize::MAX, self.now);
        let mut counted = BTreeMap::new();
        for destination in all {
            for best in destination.paths.iter().filter(|path| path.best) {
                let Some(peer) = best.peer else { continue };
                *counted.entry((peer, destination.prefix.family())).or_default() += 1;
            }
        }
        counted
    }

    /// The view of advertised routes equals what was sent.
    fn check_view(&self, peer: usize, family: Family, expected: &crate::model::Expected) {
        let filter = RouteFilter {
            family: Some(family),
            advertised_to: Some(PeerId(peer as u32)),
            ..RouteFilter::default()
        };
        let mut shown: crate::model::Expected = BTreeMap::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (page, next) = self.table.view(&filter, at, 3, self.now);
            for destination in page {
                let paths = shown.entry(destination.prefix).or_default();
                for path in destination.paths {
                    paths.push((Meaning::decode(&path.attrs), path.next_hop.unwrap()));
                }
                paths.sort();
            }
            cursor = next;
        }
        assert_eq!(&shown, expected, "routes advertised to peer {peer} according to the view");
    }
}
