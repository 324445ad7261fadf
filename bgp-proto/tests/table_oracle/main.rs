//! The table against a naive model.
//!
//! Random events drive a [`Table`]: routes from peers of every kind, sessions that start and end
//! with and without graceful restart, readers that read slowly or not at all and are evicted from a
//! tiny log, refreshes in both directions, next-hop changes, local routes, policy changes. The
//! messages that each reader returns are decoded and applied to a map. Once there is nothing left
//! to do, each map must equal that of a model without groups, log or ids, which evaluates every
//! route from scratch for every peer.
//!
//! Only what has been woken is polled, so a lost wake-up shows as a difference.

#![allow(clippy::unwrap_used)]

mod model;
mod op;
mod receiver;
mod world;

use op::Op;
use proptest::prelude::*;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_peer_holds_what_a_naive_model_computes(
        log_bytes_max in prop_oneof![Just(3_000usize), Just(9_000), Just(16 << 20)],
        wraps in any::<bool>(),
        // One group with ADD-PATH notes changes of other paths for all groups.
        add_path in any::<bool>(),
        drained in any::<bool>(),
        long_lived in any::<bool>(),
        vantages in any::<bool>(),
        ops in prop::collection::vec(any::<[u8; 5]>().prop_map(Op::from_bytes), 1..120),
    ) {
        let mut world = World::new(log_bytes_max);
        if wraps {
            world.wrap_generation_soon();
        }
        if !add_path {
            world.without_add_path();
        }
        if drained {
            world.drain_all();
        }
        if long_lived {
            world.use_long_lived();
        }
        if vantages {
            world.use_vantages();
        }
        for op in ops {
            world.step(op);
        }
        world.settle();
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is kept of ended sessions, and until when (RFC 4724, RFC 8538, RFC 9494).
    #[test]
    fn restarts_leave_what_a_naive_model_keeps(
        long_lived in prop::bool::weighted(0.8),
        ops in prop::collection::vec(any::<[u8; 5]>().prop_map(Op::of_restarts), 1..80),
    ) {
        let mut world = World::new(16 << 20);
        if long_lived {
            world.use_long_lived();
        }
        for peer in [0, 2, 3, 4, 6, 11] {
            world.up(peer);
        }
        for op in ops {
            world.step(op);
        }
        world.settle();
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The best path from each vantage (RFC 9107), as peers move and costs change.
    #[test]
    fn vantages_are_sent_what_a_naive_model_computes(
        log_bytes_max in prop_oneof![Just(3_000usize), Just(16 << 20)],
        add_path in any::<bool>(),
        ops in prop::collection::vec(any::<[u8; 5]>().prop_map(Op::of_vantages), 1..80),
    ) {
        let mut world = World::new(log_bytes_max);
        if !add_path {
            world.without_add_path();
        }
        world.use_vantages();
        for peer in op::VANTAGE_PEERS {
            world.up(peer);
        }
        for op in ops {
            world.step(op);
        }
        world.settle();
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a rehearsal says is what happens.
    #[test]
    fn a_rehearsal_says_what_applying_the_parameters_does(
        add_path in any::<bool>(),
        long_lived in any::<bool>(),
        vantages in any::<bool>(),
        sums in any::<bool>(),
        budget in prop_oneof![Just(1u32), Just(50), Just(100_000)],
        ops in prop::collection::vec(any::<[u8; 5]>().prop_map(Op::from_bytes), 1..80),
        intended in prop::collection::vec(any::<[u8; 5]>(), 1..6),
    ) {
        let mut world = World::new(16 << 20);
        if !add_path {
            world.without_add_path();
        }
        if long_lived {
            world.use_long_lived();
        }
        if vantages {
            world.use_vantages();
        }
        if sums {
            // They are sent the sum of the bandwidths of the paths that share a route.
            [2, 4, 9].into_iter().for_each(|peer| world.configure(peer, 0, 14, 1));
        }
        for peer in [0, 2, 3, 4, 7, 9] {
            world.up(peer);
        }
        for op in ops {
            world.step(op);
        }
        world.settle();
        world.check_rehearsal(&intended, budget);
        world.check();
    }
}

/// Number of cases: `MARGAY_ORACLE_CASES`, or 1000.
fn cases() -> u32 {
    std::env::var("MARGAY_ORACLE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn end_of_rib_is_the_last_message_of_an_initial_advertisement() {
    for log_bytes_max in [3_000, 16 << 20] {
        let mut world = World::new(log_bytes_max);
        world.up(0);
        for prefix in 0..model::PREFIXES {
            world.announce(0, prefix, prefix as u8, 0);
        }
        world.settle();
        for peer in 1..model::PEERS {
            world.up(peer);
            world.settle();
            assert!(world.ended_with_end_of_rib(peer), "peer {peer}, log of {log_bytes_max}");
        }
        world.check();
    }
}

/// Peer 2 is in one group with peers 9 and 10. It first reads everything, then nothing while
/// `change` is followed by enough messages to evict it from the log.
fn while_one_does_not_read(change: impl Fn(&mut World)) {
    while_one_does_not_read_after(|_| (), change);
}

/// The same; `prepare` is before everything is read.
fn while_one_does_not_read_after(prepare: impl Fn(&mut World), change: impl Fn(&mut World)) {
    let mut plain = World::new(3_000);
    plain.without_add_path();
    for world in [World::new(3_000), plain] {
        one_does_not_read(world, &prepare, &change);
    }
}

fn one_does_not_read(
    mut world: World,
    prepare: &impl Fn(&mut World),
    change: &impl Fn(&mut World),
) {
    for peer in 0..model::PEERS {
        world.up(peer);
    }
    for prefix in 0..model::PREFIXES {
        world.announce(0, prefix, 6, 0);
    }
    prepare(&mut world);
    world.settle();
    world.check();
    change(&mut world);
    world.settle_without(2);
    for round in 0..200u8 {
        // One prefix is enough to fill the log and leaves the state of the others unchanged.
        world.announce(0, 0, 6 + 11 * (round % 2), 0);
        world.settle_without(2);
    }
    world.check_except(2);
    assert!(world.evictions() > 0, "no reader was evicted from the log, so nothing was tested");
    world.settle();
    world.check();
}

#[test]
fn a_reader_that_stopped_reading_is_sent_withdrawals_later() {
    while_one_does_not_read(|world| {
        (1..model::PREFIXES).for_each(|prefix| world.withdraw(0, prefix, 0))
    });
}

#[test]
fn a_reader_that_stopped_reading_is_sent_the_results_of_a_new_policy_later() {
    while_one_does_not_read(|world| {
        // Export filter 3 rejects some prefixes.
        [2, 9, 10].into_iter().for_each(|peer| world.configure(peer, 0, 3, 1));
    });
}

#[test]
fn a_reader_that_stopped_reading_is_sent_a_better_path_later() {
    while_one_does_not_read(|world| {
        (3..9).for_each(|prefix| world.announce(11, prefix, 6 + 34, 0))
    });
}

/// The best path is ours and stays so. Whether it is advertised depends on the other paths.
#[test]
fn a_reader_that_stopped_reading_is_sent_later_what_gave_way_and_what_came_back() {
    let prepare = |world: &mut World| {
        [2, 9, 10].into_iter().for_each(|peer| world.configure(peer, 0, 0x20, 1));
        for prefix in 3..9 {
            world.step(Op::Own { prefix, source: 0, variant: 1 });
        }
        (3..6).for_each(|prefix| world.withdraw(0, prefix, 0));
    };
    while_one_does_not_read_after(prepare, |world| {
        (3..6).for_each(|prefix| world.announce(0, prefix, 6, 0));
        (6..9).for_each(|prefix| world.withdraw(0, prefix, 0));
    });
}

/// Sequences of events that once led to a wrong result.
#[test]
fn fixed_failures_do_not_recur() {
    use Op::*;
    let histories: [(usize, Vec<Op>); 6] = [
        (
            3_000,
            vec![
                // A destination whose paths are due for re-evaluation is freed, and its slot
                // returned, before the re-evaluation reaches it.
                Up { peer: 0 },
                NextHop { index: 84, state: 7 },
                Wait { secs: 0 },
                Finish,
                Up { peer: 2 },
                Configure { peer: 2, import: 75, export: 0, rest: 0 },
                Announce { peer: 2, prefix: 13, variant: 90, path_id: 0 },
                Withdraw { peer: 2, prefix: 13, path_id: 0 },
                Announce { peer: 0, prefix: 0, variant: 0, path_id: 0 },
            ],
        ),
        (
            3_000,
            vec![
                // The import policy changes and, before the table has processed that, another
                // change follows that affects export only: the import policy is still re-evaluated.
                Up { peer: 1 },
                Announce { peer: 1, prefix: 1, variant: 23, path_id: 0 },
                Up { peer: 4 },
                Finish,
                Announce { peer: 4, prefix: 1, variant: 15, path_id: 0 },
                Configure { peer: 1, import: 126, export: 0, rest: 31 },
                Configure { peer: 1, import: 182, export: 0, rest: 70 },
            ],
        ),
        (
            3_000,
            vec![
                // A session ends without graceful restart before the table has processed its start:
                // the stale routes of the session before it are removed, too.
                Up { peer: 9 },
                Announce { peer: 9, prefix: 2, variant: 6, path_id: 0 },
                Finish,
                Down { peer: 9, keep: 3 },
                Up { peer: 9 },
                Down { peer: 9, keep: 0 },
            ],
        ),
        (
            3_000,
            vec![
                // A route that is too long for any message, and a member that has read End-of-RIB
                // but not the rest of its chunk when it is moved to another group.
                Up { peer: 9 },
                Announce { peer: 9, prefix: 2, variant: 4, path_id: 0 },
                Finish,
                Configure { peer: 3, import: 0, export: 3, rest: 1 },
                Up { peer: 3 },
                Burst { peer: 3, variant: 3 },
                Finish,
                Read { peer: 3, family: bgp_proto::types::Family::Ipv4, budget: 18 },
                Configure { peer: 3, import: 0, export: 0, rest: 1 },
            ],
        ),
        (
            3_000,
            vec![
                Up { peer: 4 },
                Own { prefix: 11, source: 150, variant: 67 },
                Up { peer: 11 },
                Announce { peer: 11, prefix: 0, variant: 2, path_id: 0 },
                Finish,
                Own { prefix: 11, source: 81, variant: 183 },
                Finish,
                Configure { peer: 4, import: 0, export: 0, rest: 16 },
            ],
        ),
        (
            3_000,
            vec![
                // A new group is resynchronised with a destination whose decision is pending, and a
                // refresh request arrives before it is made.
                Up { peer: 7 },
                Own { prefix: 0, source: 0, variant: 1 },
                Up { peer: 4 },
                Burst { peer: 4, variant: 0 },
                RefreshRequest { peer: 7, family: bgp_proto::types::Family::Ipv4 },
            ],
        ),
    ];
    for (log_bytes_max, ops) in histories {
        let mut world = World::new(log_bytes_max);
        ops.into_iter().for_each(|op| world.step(op));
        world.settle();
        world.check();
    }
}
