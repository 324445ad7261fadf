//! The longest turn of the table under loads that once made turns long: neither a peer nor an
//! operator may be able to delay all others.
//!
//! Every turn and every query must take at most 5 ms on one core. Run with
//! `cargo bench -p bgp-proto --bench turns [row]`.

// The library must not read a clock; a benchmark has to.
#![allow(clippy::disallowed_types)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bgp_proto::export::{Fetch, Reader};
use bgp_proto::policy::{Change, Decision, Match, Policy, PrefixMatch, Rule};
use bgp_proto::rib::NextHopState;
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::table::{
    Drain, DumpOptions, ExportParams, ImportParams, Intended, NextHopRequest, NextTurn, Pace,
    PeerRoutes, Progress, Rehearsal, RouteFilter, RouteLimits, Table, TableConfig,
};
use bgp_proto::types::{
    Asn, Community, Family, FamilyMap, FamilySet, NextHop, PathId, PeerId, Prefix, Prefix4,
    RouterId, SessionId, Time,
};
use bgp_proto::wire::{
    AttrEdit, GracefulRestart, GracefulRestartFamily, LongLivedFamily, Nlri, Origin, RouteAction,
    RouteBatch,
};
use rustix::time::{ClockId, clock_gettime};

const OUR_ASN: Asn = Asn(65000);
/// Upper limit of one turn.
const TURN_MAX: Duration = Duration::from_millis(5);
/// The size of one read from a socket, octets.
const BATCH_MAX: usize = 128 << 10;

/// The CPU time of this thread, which excludes time that other threads or the hypervisor took.
#[derive(Clone, Copy)]
struct Moment(Duration);

impl Moment {
    fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Moment(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Moment::now().0.saturating_sub(self.0)
    }
}

fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) * 4096
}

/// The role of the daemon's engine: turns with an adaptive budget, and readers.
struct Host {
    table: Table,
    now: Time,
    pace: Pace,
    readers: Vec<Reader>,
    longest: Duration,
    longest_did: Progress,
    longest_question: Duration,
    turns: u32,
    total: Duration,
}

impl Host {
    fn new(fib_enabled: bool) -> Self {
        let config = TableConfig { fib_enabled, ..TableConfig::new(OUR_ASN, RouterId(1)) };
        Host {
            table: Table::new(Arc::new(config), 0x5eed, Waker::noop().clone()),
            now: Time::from_micros(1_000_000),
            pace: Pace::default(),
            readers: Vec::new(),
            longest: Duration::ZERO,
            longest_did: Progress::default(),
            longest_question: Duration::ZERO,
            turns: 0,
            total: Duration::ZERO,
        }
    }

    fn peer(&mut self, id: u32, routes: PeerRoutes, session: impl FnOnce(&mut Negotiated)) {
        let address = IpAddr::from([10, 1, (id >> 8) as u8, id as u8]);
        self.table.peer_add(PeerId(id), address, Arc::new(routes));
        self.up(id, 1, session);
    }

    fn up(&mut self, id: u32, number: u64, session: impl FnOnce(&mut Negotiated)) {
        let peer = (Asn(65000 + id), IpAddr::from([10, 1, (id >> 8) as u8, id as u8]));
        let mut negotiated = Negotiated {
            peer_router_id: RouterId(id + 10),
            rx_max_len: 65535,
            graceful_restart: Some(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time_secs: 120,
                families: vec![GracefulRestartFamily {
                    family: Family::Ipv4.afi_safi(),
                    forwarding: true,
                }],
            }),
            ..Negotiated::plain((OUR_ASN, IpAddr::from([10, 0, 0, 1])), peer)
        };
        session(&mut negotiated);
        self.table.peer_up(PeerId(id), SessionId(number), Arc::new(negotiated));
    }

    /// Runs one turn and the host's work after it; returns whether another turn is due.
    fn turn(&mut self) -> bool {
        let began = Moment::now();
        let progress = self.table.turn(self.now, self.pace.budget());
        let took = began.elapsed();
        self.pace.learn(progress.done, took);
        if took > self.longest {
            (self.longest, self.longest_did) = (took, progress);
        }
        self.total += took;
        self.turns += 1;
        let mut resolved = false;
        while let Some(established) = self.table.poll_established() {
            self.readers.extend(established.readers);
        }
        for request in self.table.poll_next_hops() {
            if let NextHopRequest::Track(addr) = request {
                self.table.handle_next_hop(addr, via(addr));
                resolved = true;
            }
        }
        while !self.table.poll_fib(4096).is_empty() {}
        while self.table.poll_event().is_some() {}
        progress.next == NextTurn::Now || resolved
    }

    /// Runs turns and reads until there is nothing left to do.
    fn settle(&mut self) {
        loop {
            let more = self.turn();
            let mut read = false;
            if !more {
                let mut pieces = Vec::new();
                for reader in &mut self.readers {
                    while reader.fetch(256 << 10, &mut pieces, Waker::noop()) == Fetch::Data {
                        read = true;
                        pieces.clear();
                    }
                }
            }
            if !more && !read {
                return;
            }
        }
    }

    /// Runs turns without reading.
    fn settle_unread(&mut self) {
        while self.turn() {}
    }

    fn ask<T>(&mut self, question: impl FnOnce(&Table, Time) -> T) -> T {
        let began = Moment::now();
        let answer = question(&self.table, self.now);
        self.longest_question = self.longest_question.max(began.elapsed());
        answer
    }

    fn begin(&mut self) {
        (self.longest, self.longest_question) = (Duration::ZERO, Duration::ZERO);
        (self.turns, self.total) = (0, Duration::ZERO);
    }

    fn report(&mut self, row: &str) {
        let question = match self.longest_question {
            Duration::ZERO => String::new(),
            took => format!(", longest question {:.2} ms", took.as_secs_f64() * 1e3),
        };
        println!(
            "{row:58} longest turn {:5.2} ms of {:6}, {:7.0} ms in all{question}",
            self.longest.as_secs_f64() * 1e3,
            self.turns,
            self.total.as_secs_f64() * 1e3,
        );
        if self.longest > TURN_MAX {
            println!("{:58} it did {:?}", "", self.longest_did);
        }
        self.begin();
    }

    fn flood(&mut self, from: u32, edit: &AttrEdit, nets: std::ops::Range<u32>, per_entry: usize) {
        let hop = NextHop::from(IpAddr::from([10, 1, 0, from as u8]));
        let mut batch = RouteBatch::default();
        let mut nets = nets.peekable();
        while nets.peek().is_some() {
            let mut bytes = Vec::new();
            for n in nets.by_ref().take(per_entry) {
                Nlri::push(&mut bytes, None, net(n));
            }
            let nlri = Nlri::parse(Family::Ipv4, false, &bytes).expect("just written");
            batch.push(nlri, Some((edit.view().as_bytes(), hop)));
            if batch.size() >= BATCH_MAX {
                self.table.apply(PeerId(from), std::mem::take(&mut batch), None);
                self.turn();
            }
        }
        self.table.apply(PeerId(from), batch, None);
    }

    fn marker(&mut self, from: u32, action: RouteAction) {
        let mut batch = RouteBatch::default();
        batch.push_marker(Family::Ipv4, action);
        self.table.apply(PeerId(from), batch, None);
    }
}

fn via(addr: IpAddr) -> NextHopState {
    NextHopState::connected(addr, 1)
}

fn net(n: u32) -> Prefix {
    Prefix4::from_bits(0x0100_0000 + n * 256, 24).into()
}

fn plain(asn: u32) -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(asn), 1);
    edit
}

fn routes(id: u32) -> PeerRoutes {
    PeerRoutes::new(format!("peer{id}"))
}

/// A peer without limits on its routes.
fn unbounded_routes(id: u32, import: Arc<Policy>) -> PeerRoutes {
    PeerRoutes {
        import: ImportParams { limits: unbounded(), ..ImportParams::new(import) },
        ..routes(id)
    }
}

/// A peer with an export policy that no other peer has, so that it forms a group of its own.
fn own(id: u32, med: u32) -> PeerRoutes {
    let rule = Rule {
        name: format!("r{id}"),
        matches: Vec::new(),
        changes: vec![Change::Med(med)],
        decision: Decision::Accept,
    };
    let name = format!("p{id}").into();
    let export = Arc::new(Policy { name, rules: vec![rule], default: Decision::Reject });
    PeerRoutes { export: ExportParams::new(export), ..routes(id) }
}

/// A policy that matches on the prefix and searches communities: its result depends on the prefix,
/// so it cannot be cached per attribute set.
fn expensive() -> Arc<Policy> {
    let any: Prefix = "0.0.0.0/0".parse().expect("a prefix");
    let rule = Rule {
        name: "r".into(),
        matches: vec![
            Match::Prefix([PrefixMatch::or_longer(any)].into_iter().collect()),
            Match::Community((0..10u32).map(|n| Community(0xFDE8_0000 + n)).collect()),
        ],
        changes: Vec::new(),
        decision: Decision::Reject,
    };
    Arc::new(Policy { name: "expensive".into(), rules: vec![rule], default: Decision::Accept })
}

fn unbounded() -> RouteLimits {
    RouteLimits {
        as_path_max: u16::MAX,
        communities_max: u16::MAX,
        attributes_max: u16::MAX,
        paths_max: u16::MAX,
    }
}

fn a_million_routes() {
    const N: u32 = 1_000_000;
    let mut host = Host::new(true);
    host.peer(1, routes(1), |_| {});
    host.peer(2, routes(2), |_| {});
    host.settle();
    host.begin();
    host.flood(1, &plain(65001), 0..N, 250);
    host.settle();
    host.report("1,000,000 routes come");
    let addr = IpAddr::from([10, 1, 0, 1]);
    host.table.handle_next_hop(addr, NextHopState::Unreachable);
    host.settle();
    host.table.handle_next_hop(addr, via(addr));
    host.settle();
    host.report("their next hop goes and comes back");
    host.table.handle_tunnels([(Arc::from("tunl0"), 3)].into());
    host.settle();
    host.report("a tunnel interface appears");
    host.table.peer_configure(PeerId(2), Arc::new(own(2, 7)));
    host.settle();
    host.report("an export policy is reloaded");
    let import = PeerRoutes { import: ImportParams::new(expensive()), ..routes(1) };
    host.table.peer_configure(PeerId(1), Arc::new(import));
    host.settle();
    host.report("an import policy is reloaded");
    let keep = Keep::for_restart(FamilySet::ALL, Duration::from_secs(120));
    host.table.peer_down(PeerId(1), SessionId(1), Some(keep));
    host.settle();
    host.up(1, 2, |_| {});
    host.settle();
    host.marker(1, RouteAction::EndOfRib);
    host.settle();
    host.report("a restart that ends with nothing sent again");
    host.flood(1, &plain(65001), 0..N, 250);
    host.settle();
    host.begin();
    host.table.peer_down(PeerId(1), SessionId(2), None);
    host.settle();
    host.report("the session ends");
}

/// Four peers, of which one has announced 1,000,000 routes, seven with each set of attributes.
fn with_a_million() -> Host {
    const N: u32 = 1_000_000;
    let mut host = Host::new(true);
    (1..=4).for_each(|id| host.peer(id, routes(id), |_| {}));
    host.settle();
    for from in (0..N).step_by(7) {
        let mut edit = plain(65001);
        edit.prepend_as(Asn(65001), 1 + from as usize % 4);
        edit.set_communities(&[Community(from)]);
        host.flood(1, &edit, from..N.min(from + 7), 7);
    }
    host.settle();
    host
}

/// Dry runs of other policies over 1,000,000 routes with 140,000 sets of attributes.
fn rehearsals() {
    let mut host = with_a_million();
    let import = PeerRoutes { import: ImportParams::new(expensive()), ..routes(1) };
    let policies = [
        ("a dry run of an import policy", PeerId(1), import),
        ("a dry run of an export policy", PeerId(2), own(2, 7)),
    ];
    for (row, peer, routes) in policies {
        host.begin();
        let mut intended =
            Intended::new(Arc::clone(host.ask(|table, _| table.snapshot()).config()));
        intended.routes.insert(peer, Arc::new(routes));
        let snapshot = host.ask(|table, _| table.snapshot());
        let mut rehearsal = Rehearsal::new(snapshot, intended, 10);
        let (mut pace, mut total, mut is_over) = (Pace::default(), Duration::ZERO, false);
        while !is_over {
            let began = Moment::now();
            let slice = host.ask(|table, _| table.rehearse(&mut rehearsal, pace.budget()));
            pace.learn(slice.done, began.elapsed());
            total += began.elapsed();
            is_over = slice.is_over;
        }
        let changed: u64 = rehearsal.differences().values().map(|d| d[Family::Ipv4].changed).sum();
        println!("{row}: {:.0} ms, {changed} routes would change", total.as_secs_f64() * 1e3);
        host.report(row);
    }
}

/// The table is dumped (RFC 6396) in pages of 256 KiB, as the daemon does: 1,000,000 routes, each set of
/// attributes with seven.
fn dumps() {
    const PAGE: usize = 1 << 18;
    let mut host = with_a_million();
    host.begin();
    let (mut out, mut octets) = (Vec::new(), 0);
    let mut dump = host.ask(|table, _| table.begin_dump(DumpOptions::default(), &mut out));
    let (mut pace, mut total, mut is_over) = (Pace::default(), Duration::ZERO, false);
    while !is_over {
        let began = Moment::now();
        let slice = host.ask(|table, _| table.dump_slice(&mut dump, &mut out, PAGE, pace.budget()));
        pace.learn(slice.done, began.elapsed());
        total += began.elapsed();
        is_over = slice.is_over;
        if is_over || out.len() >= PAGE {
            octets += out.len();
            out = Vec::new();
        }
    }
    println!(
        "a dump: {:.0} ms, {} routes, {} MB",
        total.as_secs_f64() * 1e3,
        dump.paths,
        octets / 1_000_000
    );
    host.report("a dump of the table");
}

/// Every neighbour is drained (RFC 8326), and that ends: each is sent each of 1,000 routes again.
fn a_thousand_drained() {
    let mut host = Host::new(false);
    host.peer(1, routes(1), |_| {});
    (2..1002).for_each(|id| host.peer(id, routes(id), |_| {}));
    host.flood(1, &plain(65001), 0..1000, 50);
    host.settle();
    for (drain, row) in [(Drain::On, "1,000 peers are drained"), (Drain::Off, "the drain ends")] {
        host.begin();
        for id in 1..1002 {
            let export = ExportParams { drain, ..ExportParams::default() };
            host.table.peer_configure(PeerId(id), Arc::new(PeerRoutes { export, ..routes(id) }));
        }
        host.settle();
        host.report(row);
    }
}

/// The routes of a lost neighbour become long-lived stale (RFC 9494), and are announced again: one
/// neighbour knows LLGR_STALE and is sent the mark, another does not and is sent a withdrawal.
fn long_lived_stale() {
    const N: u32 = 1_000_000;
    let mut host = Host::new(true);
    let config = TableConfig { long_lived: true, ..TableConfig::new(OUR_ASN, RouterId(1)) };
    host.table.configure(Arc::new(config));
    let knows = |session: &mut Negotiated| {
        let family = Family::Ipv4.afi_safi();
        let kept = LongLivedFamily { family, forwarding: true, stale_time_secs: 3600 };
        session.long_lived = Some(vec![kept]);
        session.peer_capabilities.long_lived = Some(vec![kept]);
        session.peer_capabilities.graceful_restart = session.graceful_restart.clone();
    };
    host.peer(1, routes(1), knows);
    host.peer(2, routes(2), knows);
    host.peer(3, routes(3), |_| {});
    host.flood(1, &plain(65001), 0..N, 250);
    host.settle();
    let paths = host.table.memory().paths;
    host.begin();
    let hour = Duration::from_secs(3600);
    let restart = Keep::for_restart(FamilySet::ALL, Duration::ZERO);
    let keep = Keep { long_lived: FamilyMap([hour, hour]), ..restart };
    host.table.peer_down(PeerId(1), SessionId(1), Some(keep));
    host.settle();
    host.report("1,000,000 routes become long-lived stale");
    println!("{:58} paths take {} octets more", "", host.table.memory().paths - paths);
    host.up(1, 2, knows);
    host.flood(1, &plain(65001), 0..N, 250);
    host.marker(1, RouteAction::EndOfRib);
    host.settle();
    host.report("they are announced again");
}

fn a_thousand_groups() {
    let mut host = Host::new(false);
    host.peer(1, routes(1), |_| {});
    (2..802).for_each(|id| host.peer(id, own(id, id), |_| {}));
    host.settle();
    host.begin();
    host.flood(1, &plain(65001), 0..200_000, 250);
    host.settle();
    host.report("800 groups, 200,000 routes come");
    (802..1002).for_each(|id| host.peer(id, own(id, id), |_| {}));
    host.settle();
    host.report("200 more groups join 200,000 routes");
    host.ask(|table, now| table.explain(net(7), now));
    host.ask(|table, _| table.groups());
    host.ask(|table, now| table.view(&RouteFilter::default(), 0, 1000, now));
    host.ask(|table, _| table.memory());
    (2..1002).for_each(|id| host.table.peer_configure(PeerId(id), Arc::new(own(id, id + 1))));
    host.settle();
    host.report("1,000 export policies are reloaded");
}

fn borr_flood() {
    let mut host = Host::new(false);
    host.peer(1, routes(1), |_| {});
    host.peer(2, routes(2), |_| {});
    host.flood(1, &plain(65001), 0..400_000, 250);
    host.settle();
    host.begin();
    for round in 0..20 {
        let mut batch = RouteBatch::default();
        for n in 0..5_698 {
            batch.push_marker(Family::Ipv4, RouteAction::RefreshBegin);
            if round % 2 == 1 && n % 2 == 0 {
                // A re-advertised route in between makes each BoRR start a new refresh.
                let mut bytes = Vec::new();
                Nlri::push(&mut bytes, None, net(n));
                let nlri = Nlri::parse(Family::Ipv4, false, &bytes).expect("just written");
                let hop = NextHop::from(IpAddr::from([10, 1, 0, 1]));
                batch.push(nlri, Some((plain(65001).view().as_bytes(), hop)));
            }
        }
        host.table.apply(PeerId(1), batch, None);
        host.turn();
    }
    host.settle();
    host.report("BoRR at line rate, 400,000 routes");
}

fn many_paths() {
    let mut host = Host::new(false);
    let both = |session: &mut Negotiated| {
        session.add_path_rx = FamilySet::only(Family::Ipv4);
        session.add_path_tx = FamilySet::only(Family::Ipv4);
    };
    // The largest value that the daemon's configuration accepts.
    let limits = RouteLimits { paths_max: 1024, ..RouteLimits::default() };
    host.peer(
        1,
        PeerRoutes { import: ImportParams { limits, ..ImportParams::default() }, ..routes(1) },
        both,
    );
    (2..12).for_each(|id| host.peer(id, own(id, id), both));
    host.settle();
    host.begin();
    let prefix: Prefix = "10.9.0.0/16".parse().expect("a prefix");
    let announce = |host: &mut Host, edit: &AttrEdit, ids: std::ops::Range<u32>| {
        let mut bytes = Vec::new();
        ids.for_each(|id| Nlri::push(&mut bytes, Some(PathId(id)), prefix));
        let nlri = Nlri::parse(Family::Ipv4, true, &bytes).expect("just written");
        let mut batch = RouteBatch::default();
        let hop = NextHop::from(IpAddr::from([10, 1, 0, 1]));
        batch.push(nlri, Some((edit.view().as_bytes(), hop)));
        host.table.apply(PeerId(1), batch, None);
        host.settle();
    };
    let mut edit = plain(65001);
    (0..8).for_each(|part| announce(&mut host, &edit, 1 + part * 8191..1 + (part + 1) * 8191));
    host.report("65,528 paths of one prefix, 1,024 allowed, ten receivers");
    for change in 0..50 {
        edit.set_med(change);
        announce(&mut host, &edit, 1..2);
    }
    host.ask(|table, now| table.explain(prefix, now));
    host.report("one of them changes");
    let mut host = Host::new(false);
    host.peer(1, routes(1), both);
    (2..12).for_each(|id| host.peer(id, own(id, id), both));
    host.settle();
    host.begin();
    (0..8).for_each(|part| announce(&mut host, &edit, 1 + part * 8191..1 + (part + 1) * 8191));
    host.ask(|table, now| table.explain(prefix, now));
    host.report("65,528 paths of one prefix, the default of 64 allowed");
}

fn long_update() {
    let mut host = Host::new(false);
    let long = |session: &mut Negotiated| session.tx_max_len = 65535;
    host.peer(1, unbounded_routes(1, expensive()), long);
    (2..12).for_each(|id| {
        host.peer(id, PeerRoutes { export: ExportParams::new(expensive()), ..own(id, id) }, long)
    });
    host.settle();
    host.begin();
    let mut edit = plain(65001);
    edit.set_communities(&(0..15_000u32).map(Community).collect::<Vec<_>>());
    for round in 0..5 {
        edit.set_med(round);
        host.flood(1, &edit, 0..1_350, 1_350);
        host.settle();
    }
    host.ask(|table, now| table.explain(net(7), now));
    host.report("UPDATEs of 65 KB, 15,000 communities, policies");
}

fn long_sets() {
    let mut host = Host::new(false);
    host.peer(1, routes(1), |_| {});
    (2..42).for_each(|id| host.peer(id, own(id, id), |_| {}));
    host.settle();
    let mut edit = plain(65001);
    edit.set_communities(&(0..1_000u32).map(Community).collect::<Vec<_>>());
    host.begin();
    let before = resident();
    let mut most = before;
    host.flood(1, &edit, 0..30_000, 5);
    host.settle_unread();
    most = most.max(resident());
    host.report("40 groups, 30,000 prefixes of one 4 KB set, nobody reads");
    println!("{:58} RSS grew by {:.1} MiB", "", (most - before) as f64 / f64::from(1 << 20));
    host.settle();
    host.report("then everybody reads");
}

fn all_at_once() {
    let mut host = Host::new(true);
    let both = |session: &mut Negotiated| {
        session.add_path_rx = FamilySet::only(Family::Ipv4);
        session.add_path_tx = FamilySet::only(Family::Ipv4);
    };
    host.peer(1, routes(1), |_| {});
    host.peer(2, routes(2), |_| {});
    host.peer(3, unbounded_routes(3, expensive()), |_| {});
    host.peer(4, unbounded_routes(4, Policy::accept_all().into()), both);
    (10..210).for_each(|id| host.peer(id, own(id, id), |_| {}));
    host.flood(1, &plain(65001), 0..300_000, 250);
    host.settle();
    host.begin();
    // All inputs are handed over before the first turn.
    let keep = Keep::for_restart(FamilySet::ALL, Duration::from_secs(120));
    host.table.peer_down(PeerId(1), SessionId(1), Some(keep));
    host.up(1, 2, |_| {});
    host.marker(1, RouteAction::EndOfRib);
    for _ in 0..5_000 {
        host.marker(2, RouteAction::RefreshBegin);
    }
    let addr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
    host.table.handle_next_hop(addr, NextHopState::Unreachable);
    host.table.handle_tunnels([(Arc::from("tunl0"), 3)].into());
    (10..210).for_each(|id| host.table.peer_configure(PeerId(id), Arc::new(own(id, id + 1))));
    (210..310).for_each(|id| host.peer(id, own(id, id), |_| {}));
    let mut long = plain(65003);
    long.set_communities(&(0..15_000u32).map(Community).collect::<Vec<_>>());
    host.flood(3, &long, 400_000..401_350, 1_350);
    let mut set = plain(65002);
    set.set_communities(&(0..1_000u32).map(Community).collect::<Vec<_>>());
    host.flood(2, &set, 500_000..510_000, 5);
    let mut bytes = Vec::new();
    let prefix: Prefix = "10.9.0.0/16".parse().expect("a prefix");
    (1..16_000).for_each(|id| Nlri::push(&mut bytes, Some(PathId(id)), prefix));
    let nlri = Nlri::parse(Family::Ipv4, true, &bytes).expect("just written");
    let mut batch = RouteBatch::default();
    batch.push(nlri, Some((plain(65004).view().as_bytes(), NextHop::from(addr))));
    host.table.apply(PeerId(4), batch, None);
    host.settle();
    host.ask(|table, now| table.explain(net(7), now));
    host.ask(|table, now| table.view(&RouteFilter::default(), 0, 1000, now));
    host.report("all at once");
}

fn main() {
    let rows: [(&str, fn()); 11] = [
        ("million", a_million_routes),
        ("dry", rehearsals),
        ("dump", dumps),
        ("llgr", long_lived_stale),
        ("groups", a_thousand_groups),
        ("drain", a_thousand_drained),
        ("borr", borr_flood),
        ("paths", many_paths),
        ("update", long_update),
        ("sets", long_sets),
        ("all", all_at_once),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, row) in rows {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            row();
        }
    }
}
