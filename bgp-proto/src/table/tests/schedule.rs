//! What turns do, how much, and in which order.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::policy::{Match, PrefixMatch};
use crate::types::{Community, Prefix4};
use crate::wire::RouteAction;

const COUNT: u32 = 20_000;
const BUDGET: Work = Work(3_000);

fn net(n: u32) -> Prefix {
    Prefix4::from_bits(0x1000_0000 + n * 256, 24).into()
}

pub(super) fn many(from: u32, edit: &AttrEdit, nets: std::ops::Range<u32>) -> RouteBatch {
    let hop = NextHop::from(IpAddr::from([10, 0, 0, from as u8]));
    let mut bytes = Vec::new();
    nets.for_each(|n| Nlri::push(&mut bytes, None, net(n)));
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    batch
}

pub(super) fn plain(asn: u32) -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(asn), 1);
    edit
}

/// Runs turns until nothing is left, each within its budget; returns how many.
fn settle_within(table: &mut Table, what: &str) -> u32 {
    for turns in 1..100_000 {
        let progress = table.turn(Time::ZERO, BUDGET);
        assert!(progress.done.0 < BUDGET.0 * 2, "{what}: {:?} of {BUDGET:?}", progress.done);
        let mut resolved = false;
        for request in table.poll_next_hops() {
            if let NextHopRequest::Track(addr) = request {
                table.handle_next_hop(addr, via(addr));
                resolved = true;
            }
        }
        drop(table.poll_fib(usize::MAX));
        if progress.next == NextTurn::WhenWoken && !resolved {
            return turns;
        }
    }
    panic!("{what}: no end in sight");
}

fn via(addr: IpAddr) -> NextHopState {
    NextHopState::connected(addr, 1)
}

fn with_med(id: u32, med: u32) -> PeerRoutes {
    let policy = changing(vec![Change::Med(med)]);
    exporting(id, policy)
}

#[test]
fn nothing_that_grows_with_routes_or_groups_exceeds_a_turns_budget() {
    let mut table = table();
    let mut readers: Vec<Reader> =
        (2..30).map(|id| up(&mut table, id, 65000 + id, with_med(id, id))).collect();
    settle_within(&mut table, "joins to an empty table");
    let mut several = |table: &mut Table, what: &str| {
        let mut turns = settle_within(table, what);
        loop {
            let read: usize = readers.iter_mut().map(|reader| read(reader).len()).sum();
            if read == 0 {
                break;
            }
            turns += settle_within(table, what);
        }
        assert!(turns > 5, "{what}: everything in {turns} turns");
    };
    table.apply(PeerId(2), many(2, &plain(65002), 0..COUNT), None);
    several(&mut table, "import");
    let hop = IpAddr::from([10, 0, 0, 2]);
    table.handle_next_hop(hop, NextHopState::Unreachable);
    several(&mut table, "a next hop goes");
    table.handle_next_hop(hop, via(hop));
    several(&mut table, "and comes back");
    table.handle_tunnels([(Arc::from("tunl0"), 3)].into());
    several(&mut table, "a tunnel");
    (2..30).for_each(|id| table.peer_configure(PeerId(id), Arc::new(with_med(id, id + 1))));
    several(&mut table, "export policies");
    let closed = PeerRoutes { import: ImportParams::new(Policy::reject_all()), ..with_med(2, 3) };
    table.peer_configure(PeerId(2), Arc::new(closed));
    several(&mut table, "an import policy");
    table.peer_configure(PeerId(2), Arc::new(with_med(2, 3)));
    several(&mut table, "and its end");
    let keep = Keep::for_restart(FamilySet::ALL, Duration::from_secs(120));
    table.peer_down(PeerId(2), SessionId(1), Some(keep));
    settle_within(&mut table, "a restart");
    let families = vec![crate::wire::GracefulRestartFamily {
        family: Family::Ipv4.afi_safi(),
        forwarding: true,
    }];
    let graceful_restart = Some(crate::wire::GracefulRestart { families, ..Default::default() });
    let back = Negotiated { graceful_restart, ..session(2, 65002) };
    table.peer_up(PeerId(2), SessionId(2), Arc::new(back));
    let mut marker = RouteBatch::default();
    marker.push_marker(Family::Ipv4, RouteAction::EndOfRib);
    table.apply(PeerId(2), marker, None);
    several(&mut table, "its sweep");
    assert_eq!(table.totals().paths[Family::Ipv4], 0);
    table.apply(PeerId(2), many(2, &plain(65002), 0..COUNT), None);
    several(&mut table, "import again");
    table.peer_down(PeerId(2), SessionId(2), None);
    several(&mut table, "the end");
    assert_eq!(table.totals().paths[Family::Ipv4], 0);
}

#[test]
fn one_update_against_an_expensive_policy_takes_several_turns() {
    let any: Prefix = "0.0.0.0/0".parse().unwrap();
    let rule = Rule {
        name: String::new(),
        matches: vec![
            Match::Prefix([PrefixMatch::or_longer(any)].into_iter().collect()),
            Match::Community((0..10).map(|n| Community(0xFDE8_0000 + n)).collect()),
        ],
        changes: Vec::new(),
        decision: Decision::Reject,
    };
    let policy =
        Arc::new(Policy { name: "p".into(), rules: vec![rule], default: Decision::Accept });
    let limits =
        RouteLimits { communities_max: 60_000, attributes_max: u16::MAX, ..RouteLimits::default() };
    let mut table = table();
    let import = PeerRoutes {
        import: ImportParams { limits, ..ImportParams::new(Arc::clone(&policy)) },
        ..routes(2)
    };
    let _from = up(&mut table, 2, 65002, import);
    let _to = up(&mut table, 3, 65003, exporting(3, policy));
    settle_within(&mut table, "joins");
    let mut edit = plain(65002);
    edit.set_communities(&(0..15_000u32).map(Community).collect::<Vec<_>>());
    table.apply(PeerId(2), many(2, &edit, 0..1_350), None);
    assert!(settle_within(&mut table, "one UPDATE") > 100);
    assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], 1_350);
}

#[test]
fn markers_do_not_visit_routes() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65002, routes(2));
    table.apply(PeerId(2), many(2, &plain(65002), 0..COUNT), None);
    settle_within(&mut table, "routes");
    let mut batch = RouteBatch::default();
    (0..5_698).for_each(|_| batch.push_marker(Family::Ipv4, RouteAction::RefreshBegin));
    table.apply(PeerId(2), batch, None);
    let progress = table.turn(Time::ZERO, Work::UNLIMITED);
    assert!(progress.done < Work(3 * 5_698), "{progress:?}");
    // With a refreshed route in between, each marker is a mark; all routes are still held.
    let mut batch = RouteBatch::default();
    for n in 0..1_000 {
        batch.push_marker(Family::Ipv4, RouteAction::RefreshBegin);
        let one = many(2, &plain(65002), n % 3..n % 3 + 1);
        let RouteAction::Announce { attrs, next_hop } = one.entries()[0].action.clone() else {
            panic!()
        };
        batch.push(one.nlri(&one.entries()[0]), Some((one.attrs(&attrs), next_hop)));
    }
    table.apply(PeerId(2), batch, None);
    settle_within(&mut table, "marks that wrap");
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], COUNT);
    let mut batch = RouteBatch::default();
    batch.push_marker(Family::Ipv4, RouteAction::RefreshEnd);
    table.apply(PeerId(2), batch, None);
    settle_within(&mut table, "the sweep");
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 1, "only the last one is fresh");
}

#[test]
fn a_receipt_is_dropped_when_the_batch_is_applied_and_not_before() {
    struct Token(Arc<AtomicBool>);
    impl Drop for Token {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let mut table = table();
    let _reader = up(&mut table, 2, 65002, routes(2));
    settle_within(&mut table, "join");
    let applied = Arc::new(AtomicBool::new(false));
    let receipt = Some(Box::new(Token(Arc::clone(&applied))) as Box<dyn std::any::Any + Send>);
    table.apply(PeerId(2), many(2, &plain(65002), 0..COUNT), receipt);
    assert!(table.memory().inputs > 60_000);
    while table.counts(PeerId(2)).received[Family::Ipv4] < COUNT {
        assert!(!applied.load(Ordering::SeqCst));
        let _ = table.turn(Time::ZERO, BUDGET);
    }
    assert!(applied.load(Ordering::SeqCst));
    assert_eq!(table.memory().inputs, 0);
}

#[test]
fn end_of_rib_is_reported_when_its_routes_are_on_their_way_to_the_kernel() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65002, routes(2));
    announce(&mut table, 2, 65002, &["9.0.0.0/8"]);
    settle_within(&mut table, "the next hop is known");
    let mut batch = many(2, &plain(65002), 0..COUNT);
    batch.push_marker(Family::Ipv4, RouteAction::EndOfRib);
    table.apply(PeerId(2), batch, None);
    let mut installed = 0;
    loop {
        let progress = table.turn(Time::ZERO, BUDGET);
        installed += table.poll_fib(usize::MAX).len() as u32;
        let event = table.poll_event();
        if let Some(TableEvent::EndOfRib { peer, family }) = event {
            assert_eq!((peer, family, installed), (PeerId(2), Family::Ipv4, COUNT));
            break;
        }
        assert_eq!(progress.next, NextTurn::Now, "the marker was forgotten");
    }
}

/// A peer that floods has a share of each turn, and no more.
#[test]
fn a_flooding_peer_delays_no_other() {
    let mut table = table();
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    settle_within(&mut table, "joins");
    for n in 0..50 {
        table.apply(PeerId(2), many(2, &plain(65002), n * 5_000..(n + 1) * 5_000), None);
    }
    let _ = table.turn(Time::ZERO, BUDGET);
    table.apply(PeerId(3), many(3, &plain(65003), 2_000_000..2_000_001), None);
    let _ = table.turn(Time::ZERO, BUDGET);
    let _ = table.turn(Time::ZERO, BUDGET);
    assert_eq!(table.counts(PeerId(3)).received[Family::Ipv4], 1);
    assert!(table.counts(PeerId(2)).received[Family::Ipv4] < 100_000);
}

/// Inputs take precedence over the decision process for some turns, not for as long as a peer sends
/// more.
#[test]
fn a_flood_delays_decisions_by_a_bounded_number_of_turns() {
    let mut table = table();
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce(&mut table, 2, 65002, &["9.0.0.0/8"]);
    announce(&mut table, 3, 65003, &["9.0.0.0/8"]);
    settle_within(&mut table, "the next hops are known");
    table.apply(PeerId(3), many(3, &plain(65003), 2_000_000..2_000_001), None);
    let mut from = 0;
    let turns = (1..100).find(|_| {
        for _ in 0..2 {
            table.apply(PeerId(2), many(2, &plain(65002), from..from + 1_000), None);
            from += 1_000;
        }
        let progress = table.turn(Time::ZERO, BUDGET);
        assert_eq!(progress.next, NextTurn::Now, "the flood is over");
        let explanation = table.explain(net(2_000_000), Time::ZERO);
        explanation.is_some_and(|found| found.destination.paths.iter().any(|path| path.best))
    });
    assert!(turns.is_some_and(|turns| turns <= GATHERING_TURNS + 4), "{turns:?}");
}

/// Wakes nothing, and counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicU32);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn readers_are_woken_once_for_several_turns_and_at_the_end_of_the_last() {
    let mut table = table();
    let mut readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce(&mut table, 2, 65002, &["9.0.0.0/8"]);
    settle_within(&mut table, "the next hop is known");
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut all = Vec::new();
    let mut fetch = |reader: &mut Reader| {
        let before = all.len();
        while reader.fetch(usize::MAX, &mut all, &waker) == Fetch::Data {}
        all.len() - before
    };
    fetch(&mut readers[1]);
    let count = || wakes.0.load(Ordering::SeqCst);
    assert_eq!(count(), 0);
    // One change, one turn, one wake.
    table.apply(PeerId(2), many(2, &plain(65002), 0..1), None);
    while table.turn(Time::ZERO, BUDGET).next == NextTurn::Now {}
    assert_eq!(count(), 1);
    assert_eq!(fetch(&mut readers[1]), 1);
    // Many changes: what was appended is read with fewer wakes than there were turns.
    table.apply(PeerId(2), many(2, &plain(65002), 1..COUNT), None);
    let mut turns = 0;
    let mut asleep = 0;
    loop {
        let before = count();
        let next = table.turn(Time::ZERO, BUDGET).next;
        turns += 1;
        if count() > before {
            asleep = 0;
            assert!(fetch(&mut readers[1]) > 0, "woken for nothing");
        } else {
            asleep += 1;
        }
        if next == NextTurn::WhenWoken {
            break;
        }
    }
    assert_eq!(fetch(&mut readers[1]), 0, "left asleep with something to read");
    assert!(count() - 1 <= turns / 2, "{} wakes in {turns} turns, {asleep}", count());
}
