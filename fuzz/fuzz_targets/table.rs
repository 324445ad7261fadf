//! Arbitrary routes, sessions, refreshes and slow readers: in the end every peer holds the routes
//! that the table reports as advertised to it.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bgp_proto::export::{Fetch, Piece, Reader};
use bgp_proto::policy::{Policy, Source};
use bgp_proto::rib::{NextHopState, ViaDefault};
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::table::{
    AddPathSend, Drain, ExportParams, ImportParams, LocalRoute, NextHopMode, NextHopRequest, NextTurn,
    PeerLimits, PeerRoutes, ReflectionParams, RouteFilter, RouteLimits, Table, TableConfig, Work,
};
use bgp_proto::types::{
    Asn, Community, Family, FamilyMap, FamilySet, NextHop, PathId, PeerId, PeerType, Prefix, Prefix4,
    RouterId, SessionId, Time,
};
use bgp_proto::wire::{
    AttrEdit, HEADER_LEN, Nlri, Origin, RouteAction, RouteBatch, Update, UpdateContext, Verdict,
};
use libfuzzer_sys::fuzz_target;

const PEERS: usize = 5;
const LOCAL: Asn = Asn(64512);

fuzz_target!(|data: &[u8]| {
    let mut world = World::new();
    let mut bytes = data.iter().copied();
    if data.len() % 2 == 1 {
        // The generation counter wraps within the run.
        world.table.set_generation(u32::MAX - 25);
    }
    while let Some(op) = bytes.next() {
        let (a, b) = (bytes.next().unwrap_or(0), bytes.next().unwrap_or(0));
        world.step(op, a, b);
    }
    world.settle();
});

struct Member {
    session: SessionId,
    negotiated: Arc<Negotiated>,
    readers: Vec<Reader>,
    /// The routes that the peer holds, decoded from the messages sent to it.
    holds: BTreeMap<(Prefix, PathId), Vec<u8>>,
}

struct World {
    table: Table,
    now: Time,
    sessions: u64,
    turns: u32,
    members: [Option<Member>; PEERS],
}

impl World {
    fn new() -> Self {
        let config = TableConfig {
            multipath_max: 4,
            via_default: ViaDefault::Always,
            log_bytes_max: 3000,
            ..TableConfig::new(LOCAL, RouterId(1))
        };
        let mut table = Table::new(Arc::new(config), 7, Waker::noop().clone());
        for at in 0..PEERS {
            table.peer_add(peer(at), address(at), Arc::new(routes(at, 0)));
        }
        World {
            table,
            now: Time::from_micros(1),
            sessions: 0,
            turns: 1,
            members: [const { None }; PEERS],
        }
    }

    fn step(&mut self, op: u8, a: u8, b: u8) {
        self.now = self.now + Duration::from_millis(100);
        let at = usize::from(a) % PEERS;
        match op % 11 {
            0 => self.up(at),
            1 => self.down(at, b),
            2..=4 => self.announce(at, b, op),
            5 => self.withdraw(at, b),
            6 => self.marker(at, b),
            7 => self.local(a, b),
            8 => self.table.peer_configure(peer(at), Arc::new(routes(at, b))),
            9 => {
                self.read(at, usize::from(b) * 8);
            }
            _ => drop(self.turn()),
        }
    }

    fn up(&mut self, at: usize) {
        if self.members[at].is_some() {
            return;
        }
        let negotiated = Arc::new(negotiated(at));
        self.sessions += 1;
        self.table.peer_up(peer(at), SessionId(self.sessions), Arc::clone(&negotiated));
        let session = SessionId(self.sessions);
        self.members[at] =
            Some(Member { session, negotiated, readers: Vec::new(), holds: BTreeMap::new() });
    }

    fn down(&mut self, at: usize, how: u8) {
        if let Some(member) = self.members[at].take() {
            let time = Duration::from_secs(5 * u64::from(how >> 1 & 1));
            let mut keep = Keep::for_restart(FamilySet::ALL, time);
            keep.long_lived = FamilyMap([Duration::from_secs(9 * u64::from(how >> 2 & 1)); 2]);
            self.table.peer_down(peer(at), member.session, (how & 1 == 1).then_some(keep));
        }
    }

    fn announce(&mut self, at: usize, which: u8, how: u8) {
        let Some(member) = &self.members[at] else { return };
        let add_path = member.negotiated.add_path_rx.contains(Family::Ipv4);
        let mut nlri = Vec::new();
        Nlri::push(&mut nlri, add_path.then_some(PathId(u32::from(which >> 6))), prefix(which));
        let nlri = Nlri::parse(Family::Ipv4, add_path, &nlri).expect("one prefix");
        let mut attrs = AttrEdit::originate(Origin::Igp);
        if member.negotiated.peer_type == PeerType::External {
            attrs.prepend_as(member.negotiated.peer_asn, 1 + usize::from(how & 1));
        } else {
            attrs.set_local_pref(100 + u32::from(how & 3));
        }
        if how & 8 != 0 {
            attrs.set_communities(&[Community::NO_EXPORT]);
        }
        if which & 0x30 == 0x30 && how & 32 != 0 {
            // Too long for a message of 4096 octets.
            attrs.set(0xC0, 200, &[7; 4080]);
        }
        if how & 16 != 0 {
            attrs.set_med(u32::from(how >> 5));
        }
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1 + (how >> 4 & 3)));
        let mut batch = RouteBatch::default();
        batch.push(nlri, Some((attrs.view().as_bytes(), next_hop)));
        self.table.apply(peer(at), batch, None);
    }

    fn withdraw(&mut self, at: usize, which: u8) {
        let Some(member) = &self.members[at] else { return };
        let add_path = member.negotiated.add_path_rx.contains(Family::Ipv4);
        let mut nlri = Vec::new();
        Nlri::push(&mut nlri, add_path.then_some(PathId(u32::from(which >> 6))), prefix(which));
        let mut batch = RouteBatch::default();
        batch.push(Nlri::parse(Family::Ipv4, add_path, &nlri).expect("one prefix"), None);
        self.table.apply(peer(at), batch, None);
    }

    fn marker(&mut self, at: usize, which: u8) {
        if self.members[at].is_none() {
            return;
        }
        let action = match which % 4 {
            0 => RouteAction::EndOfRib,
            1 => RouteAction::RefreshRequest,
            2 => RouteAction::RefreshBegin,
            _ => RouteAction::RefreshEnd,
        };
        let mut batch = RouteBatch::default();
        batch.push_marker(Family::Ipv4, action);
        self.table.apply(peer(at), batch, None);
    }

    fn local(&mut self, which: u8, how: u8) {
        let route = (how & 1 == 1).then(LocalRoute::default);
        self.table.handle_local(self.now, prefix(which), Source::Static, route);
    }

    /// Runs one turn; returns whether there is more to do.
    fn turn(&mut self) -> bool {
        self.turns = self.turns.wrapping_mul(0x9E37_79B1).wrapping_add(1);
        let more = self.table.turn(self.now, Work(self.turns >> 20 & 255)).next == NextTurn::Now;
        while let Some(established) = self.table.poll_established() {
            let member = self.members[established.peer.index()].as_mut();
            if let Some(member) = member.filter(|m| m.session == established.session) {
                member.readers = established.readers;
            }
        }
        for request in self.table.poll_next_hops() {
            if let NextHopRequest::Track(addr) = request {
                self.table.handle_next_hop(addr, NextHopState::connected(addr, 1));
            }
        }
        while !self.table.poll_fib(16).is_empty() {}
        while self.table.poll_event().is_some() {}
        more
    }

    /// Reads up to `budget` octets; returns whether there were any.
    fn read(&mut self, at: usize, budget: usize) -> bool {
        let Some(member) = &mut self.members[at] else { return false };
        let mut pieces: Vec<Piece> = Vec::new();
        let mut any = false;
        for reader in &mut member.readers {
            any |= reader.fetch(budget.max(1), &mut pieces, Waker::noop()) != Fetch::Empty;
        }
        for piece in pieces {
            receive(member, piece.as_bytes());
        }
        any
    }

    fn settle(&mut self) {
        // Let the deadlines of stale routes and of refreshes without EoRR expire.
        self.now = self.now + Duration::from_secs(4000);
        for _ in 0..10_000 {
            for round in 0.. {
                assert!(round < 100_000, "the table always has more to do");
                if !self.turn() {
                    break;
                }
            }
            // The last turn may have resolved a next hop, which is new work that its result does
            // not report.
            while self.turn() {}
            let mut any = false;
            for at in 0..PEERS {
                any |= self.read(at, 4096);
            }
            if !any {
                break;
            }
        }
        for at in 0..PEERS {
            let Some(member) = &self.members[at] else { continue };
            let filter = RouteFilter { advertised_to: Some(peer(at)), ..RouteFilter::default() };
            let (views, _) = self.table.view(&filter, 0, 4096, self.now);
            let mut advertised: Vec<Prefix> =
                views.iter().flat_map(|v| v.paths.iter().map(|_| v.prefix)).collect();
            advertised.sort_unstable();
            let holds: Vec<Prefix> = member.holds.keys().map(|(prefix, _)| *prefix).collect();
            assert_eq!(holds, advertised, "peer {at}");
        }
    }
}

fn receive(member: &mut Member, mut bytes: &[u8]) {
    let session = &member.negotiated;
    let context = UpdateContext {
        four_octet_as: session.four_octet_as,
        families: session.families,
        add_path: session.add_path_tx,
        ipv4_over_ipv6: false,
        peer_type: session.peer_type,
        peer_asn: LOCAL,
        enforce_first_as: false,
        reject_as_sets: false,
        interface: None,
    };
    while !bytes.is_empty() {
        let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        assert!(len <= session.tx_max_len && len <= bytes.len());
        if bytes[18] == 2 {
            let update =
                Update::parse(&bytes[HEADER_LEN..len], &context).expect("encoded by the table");
            for unreach in update.unreach() {
                for (id, prefix) in unreach.iter() {
                    member.holds.remove(&(prefix, id));
                }
            }
            for reach in update.reach() {
                assert_eq!(update.verdict(), Verdict::Accept);
                let mut attrs = Vec::new();
                update.canonical_attrs(&mut attrs);
                for (id, prefix) in reach.nlri.iter() {
                    member.holds.insert((prefix, id), attrs.clone());
                }
            }
        }
        bytes = &bytes[len..];
    }
}

fn peer(at: usize) -> PeerId {
    PeerId(u32::try_from(at).unwrap_or(0))
}

fn address(at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + u8::try_from(at).unwrap_or(0)))
}

fn prefix(which: u8) -> Prefix {
    Prefix::V4(Prefix4::new(Ipv4Addr::new(10, which & 15, 0, 0), 16 + (which >> 4 & 3)))
}

fn routes(at: usize, variant: u8) -> PeerRoutes {
    let policy = |reject| if reject { Policy::reject_all() } else { Policy::accept_all() };
    PeerRoutes {
        import: ImportParams {
            limits: RouteLimits { paths_max: 3, ..RouteLimits::default() },
            ..ImportParams::new(policy(variant & 2 != 0))
        },
        export: ExportParams {
            policy: Arc::new(policy(variant & 4 != 0)),
            next_hop: if variant & 1 == 0 { NextHopMode::Auto } else { NextHopMode::SelfAddress },
            add_path_send: if variant & 16 == 0 { AddPathSend::All } else { AddPathSend::Best(2) },
            drain: [Drain::Off, Drain::On, Drain::Off, Drain::Withdraw][usize::from(variant >> 5) % 4],
        },
        reflection: ReflectionParams { client: at >= 2, ..ReflectionParams::default() },
        limits: PeerLimits {
            prefixes_max: (variant & 8 != 0).then_some(3),
            ..PeerLimits::default()
        },
        ..PeerRoutes::new(format!("p{at}"))
    }
}

/// Peers 0 and 1 are external (1 with two-octet AS numbers), 2 to 4 are route reflector clients; 4
/// has ADD-PATH.
fn negotiated(at: usize) -> Negotiated {
    let external = at < 2;
    let add_path = if at == 4 { FamilySet::only(Family::Ipv4) } else { FamilySet::EMPTY };
    let asn = if external { Asn(65001 + u32::try_from(at).unwrap_or(0)) } else { LOCAL };
    let local = (LOCAL, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)));
    Negotiated {
        peer_router_id: RouterId(100 + u32::try_from(at).unwrap_or(0)),
        four_octet_as: at != 1,
        add_path_rx: add_path,
        add_path_tx: add_path,
        enhanced_refresh: at.is_multiple_of(2),
        ..Negotiated::plain(local, (asn, address(at)))
    }
}
