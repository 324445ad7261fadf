//! Which sessions are closed for memory, when, and that all memory is released.

use super::*;
use crate::types::{Community, Prefix4};

fn bounded(memory_max: u64) -> Table {
    let mut table = table();
    let config = TableConfig { memory_max: Some(memory_max), ..(*table.config).clone() };
    table.configure(Arc::new(config));
    table
}

fn communities(first: u32) -> Vec<Community> {
    (first..first + 500).map(Community).collect()
}

/// Announces `count` networks, with a separate attribute set for each peer.
fn announce_many(table: &mut Table, from: u32, first: u32, count: u32) {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65000 + from), 1);
    let hop = NextHop::from(IpAddr::from([10, 0, 0, from as u8]));
    let mut bytes = Vec::new();
    for n in first..first + count {
        Nlri::push(&mut bytes, None, Prefix4::from_bits(0x1000_0000 + n * 256, 24).into());
    }
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    table.apply_now(from, batch);
}

/// Lets time pass while every reader reads.
fn settle_and_read(table: &mut Table, readers: &mut [Reader], now: &mut Time) {
    for _ in 0..6 {
        *now = *now + Duration::from_secs(1);
        let mut more = true;
        while more {
            more = table.finish(*now);
            for request in table.poll_next_hops() {
                if let NextHopRequest::Track(addr) = request {
                    table.handle_next_hop(addr, NextHopState::connected(addr, 1));
                    more = true;
                }
            }
            drop(table.poll_fib(usize::MAX));
            readers.iter_mut().for_each(|reader| drop(read(reader)));
        }
    }
}

/// The sessions to be closed for memory. A request is repeated until it is obeyed.
fn limits(table: &mut Table) -> Vec<(u32, MemoryBound)> {
    let mut orders: Vec<(u32, MemoryBound)> = std::iter::from_fn(|| table.poll_event())
        .map(|event| match event {
            TableEvent::Close {
                peer,
                reason: CloseReason::MemoryLimit { bound_of, held, bound },
                ..
            } => {
                assert!(held > bound);
                (peer.0, bound_of)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    orders.dedup();
    orders
}

#[test]
fn peers_that_hold_most_are_closed_one_by_one_until_the_rest_fits() {
    let mut now = Time::ZERO;
    let mut table = bounded(1_000_000);
    let mut readers = [2, 3, 4].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce_many(&mut table, 2, 0, 5_000);
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(limits(&mut table), [], "one fits: {:?}", table.memory());
    announce_many(&mut table, 3, 100_000, 20_000);
    announce_many(&mut table, 4, 200_000, 15_000);
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(limits(&mut table), [(3, MemoryBound::Table)]);
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(limits(&mut table), [(3, MemoryBound::Table)], "no other before it is gone");
    table.down_now(3, None);
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(limits(&mut table), [(4, MemoryBound::Table)], "still too much");
    table.down_now(4, None);
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(limits(&mut table), []);
    assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], 5_000, "the smallest stays up");
}

const KEEP: Option<Keep> = Some(Keep::for_restart(FamilySet::ALL, Duration::from_secs(120)));

/// A peer that is down has no session to close: its stale routes are withdrawn before any others.
#[test]
fn stale_routes_are_withdrawn_before_live_ones() {
    let mut now = Time::ZERO;
    let mut table = table();
    let mut readers = [2, 3, 4].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce_many(&mut table, 2, 0, 20_000);
    announce_many(&mut table, 3, 100_000, 10);
    announce_many(&mut table, 4, 200_000, 10);
    settle_and_read(&mut table, &mut readers, &mut now);
    table.down_now(2, KEEP);
    settle_and_read(&mut table, &mut readers, &mut now);
    let config =
        TableConfig { memory_max: Some(table.memory().total() - 1000), ..(*table.config).clone() };
    table.configure(Arc::new(config));
    settle_and_read(&mut table, &mut readers, &mut now);
    assert_eq!(
        table.totals().paths[Family::Ipv4],
        20,
        "those of the peer that is down are withdrawn"
    );
    while let Some(event) = table.poll_event() {
        assert!(matches!(event, TableEvent::Note(_)), "{event:?}");
    }
}

/// Sixteen groups of one that read nothing weigh more than the feeder's routes.
#[test]
fn readers_that_do_not_read_are_closed_and_not_the_feeder() {
    let mut table = table();
    let feeder = up(&mut table, 2, 65002, routes(2));
    announce_many(&mut table, 2, 0, 100_000);
    settle_and_read(&mut table, &mut [feeder], &mut Time::default());
    let base = table.memory().total();
    let config = TableConfig { memory_max: Some(base + base / 8), ..(*table.config).clone() };
    table.configure(Arc::new(config));
    let _idle: Vec<Reader> = (3..19)
        .map(|id| {
            let policy = changing(vec![Change::Med(id)]);
            up(&mut table, id, 65000 + id, exporting(id, policy))
        })
        .collect();
    let mut now = Time::ZERO;
    for _ in 0..200 {
        now = now + Duration::from_millis(100);
        while table.finish(now) {}
        while let Some(event) = table.poll_event() {
            let TableEvent::Close { peer, session, reason } = event else { continue };
            assert_eq!(reason, CloseReason::TooSlow);
            assert!(peer != PeerId(2), "the feeder is closed");
            table.peer_down(peer, session, None);
        }
    }
    let held = table.memory().total();
    assert!(held <= base + base / 8, "{held} of {base}");
    assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], 100_000);
}

/// The accounting matches what was requested of the allocator, within a third. How much of that is
/// resident depends on the system: `benches/turns.rs` prints it.
#[test]
fn the_accounting_matches_the_allocator() {
    for case in ["plain", "next hops", "sets", "groups"] {
        let mut counted = 0;
        let info = allocation_counter::measure(|| counted = fill(case));
        let taken = u64::try_from(info.bytes_current).expect("the table is kept");
        println!("{case}: counted {counted}, taken {taken}");
        assert!(taken < counted * 13 / 10 && counted < taken * 13 / 10, "{case}");
    }
}

/// Fills a table with 200,000 routes of one kind and returns how much they hold by its accounting.
/// The table is leaked, so that what was allocated stays allocated.
fn fill(case: &str) -> u64 {
    let mut table = table();
    let mut readers: Vec<Reader> = vec![up(&mut table, 2, 65002, routes(2))];
    if case == "groups" {
        for id in 3..43 {
            let next_hop = if id % 2 == 0 { NextHopMode::Keep } else { NextHopMode::Auto };
            let rules = (3..id).map(|_| Rule {
                name: String::new(),
                matches: Vec::new(),
                changes: Vec::new(),
                decision: Decision::Next,
            });
            let export =
                Policy { name: "p".into(), rules: rules.collect(), default: Decision::Accept };
            let routes = PeerRoutes {
                export: ExportParams { next_hop, ..ExportParams::new(export) },
                ..routes(id)
            };
            readers.push(up(&mut table, id, 65000 + id, routes));
        }
    }
    for n in 0..200_000u32 {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65002), 1);
        if case == "sets" {
            edit.set_communities(&(n..n + 20).map(Community).collect::<Vec<_>>());
        }
        let hop = match case {
            "next hops" => std::net::Ipv4Addr::from_bits(0x0B00_0000 + n),
            _ => std::net::Ipv4Addr::new(10, 0, 0, 2),
        };
        let mut bytes = Vec::new();
        Nlri::push(&mut bytes, None, Prefix4::from_bits(0x1000_0000 + n * 256, 24).into());
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
        let mut batch = RouteBatch::default();
        batch.push(nlri, Some((edit.view().as_bytes(), NextHop::V4(hop))));
        table.apply(PeerId(2), batch, None);
        if n % 1000 == 0 {
            settle(&mut table);
            drop(table.poll_fib(usize::MAX));
            readers.iter_mut().for_each(|reader| drop(read(reader)));
        }
    }
    settle(&mut table);
    drop(table.poll_fib(usize::MAX));
    let counted = table.memory().total();
    std::mem::forget((table, readers));
    counted
}

#[test]
fn a_peers_own_bound_counts_attributes_too() {
    let mut table = table();
    let own = PeerRoutes {
        limits: PeerLimits { memory_max: Some(64 << 10), ..PeerLimits::default() },
        ..routes(2)
    };
    let _reader = up(&mut table, 2, 65002, own);
    for at in 0..255u32 {
        let net = format!("10.2.{at}.0/24");
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65002), 1);
        edit.set_communities(&communities(at << 16));
        announce_with(&mut table, 2, &[net.as_str()], &edit);
        settle(&mut table);
        if let [limit] = limits(&mut table)[..] {
            assert_eq!(limit, (2, MemoryBound::Peer));
            assert!((30..64).contains(&at), "64 KiB of 2,000 octets each: {at}");
            return;
        }
    }
    panic!("the bound is never exceeded");
}

#[test]
fn common_attributes_are_charged_in_shares() {
    let mut table = table();
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.set_communities(&communities(7));
    announce_with(&mut table, 2, &["10.2.0.0/24"], &edit);
    let alone = table.held_octets(PeerId(2));
    announce_with(&mut table, 3, &["10.3.0.0/24"], &edit);
    let shared = table.held_octets(PeerId(2));
    assert!(alone > 2000 && shared + 900 < alone, "{alone}, then {shared}");
    assert_eq!(shared, table.held_octets(PeerId(3)));
}

#[test]
fn withdrawn_routes_release_their_memory() {
    let mut now = Time::ZERO;
    let mut table = table();
    let mut readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    settle_and_read(&mut table, &mut readers, &mut now);
    let before = table.memory();
    announce_many(&mut table, 2, 0, 50_000);
    settle(&mut table);
    let full = table.memory();
    assert!(full.destinations > 0 && full.paths > 0 && full.attributes > 0 && full.next_hops > 0);
    assert!(full.advertised > before.advertised && full.logs > 0);
    table.down_now(2, None);
    drop(table.poll_fib(usize::MAX));
    settle_and_read(&mut table, &mut readers, &mut now);
    let after = table.memory();
    assert!(after.total() < before.total() + 1024, "{before:?} {after:?}");
    assert_eq!(table.loc_rib.dests(Family::Ipv4).slots(), 0);
}
