//! The table against a naive model.
//!
//! Random events drive a [`Table`]: routes from peers of every kind, sessions that come and go with
//! and without graceful restart, readers that read slowly or not at all and fall off a tiny log,
//! refreshes in both directions, next hops, routes of our own, policy changes. What each reader gets
//! is decoded and applied to a map. When everything is still, each map must be what a model says
//! that keeps no groups, no log and no ids: every route, judged anew for every peer.
//!
//! Nothing is polled that was not woken, so a wake-up that is lost shows as a difference.

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
    fn every_peer_ends_up_with_what_a_naive_model_says(
        log_bytes_max in prop_oneof![Just(3_000usize), Just(9_000), Just(16 << 20)],
        starts_over in any::<bool>(),
        ops in prop::collection::vec(any::<[u8; 5]>().prop_map(Op::from_bytes), 1..120),
    ) {
        let mut world = World::new(log_bytes_max);
        if starts_over {
            world.start_over_soon();
        }
        for op in ops {
            world.step(op);
        }
        world.settle();
        world.check();
    }
}

/// More with `MARGAY_ORACLE_CASES`.
fn cases() -> u32 {
    std::env::var("MARGAY_ORACLE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn end_of_rib_is_the_last_thing_that_a_joiner_hears() {
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

/// Peer 2 is in one group with 9 and 10. It reads everything, and then nothing while `change` is
/// followed by much that pushes it off the log.
fn while_one_is_deaf(change: impl Fn(&mut World)) {
    let mut world = World::new(3_000);
    for peer in 0..model::PEERS {
        world.up(peer);
    }
    for prefix in 0..model::PREFIXES {
        world.announce(0, prefix, 6, 0);
    }
    world.settle();
    world.check();
    change(&mut world);
    world.settle_without(2);
    for round in 0..200u8 {
        // One prefix is enough to fill the log, and leaves the others as they are.
        world.announce(0, 0, 6 + 11 * (round % 2), 0);
        world.settle_without(2);
    }
    world.check_except(2);
    assert!(world.evictions() > 0, "nobody fell off the log, so the test tested nothing");
    world.settle();
    world.check();
}

#[test]
fn a_reader_that_never_reads_hears_of_withdrawals_later() {
    while_one_is_deaf(|world| (1..model::PREFIXES).for_each(|prefix| world.withdraw(0, prefix, 0)));
}

#[test]
fn a_reader_that_never_reads_hears_of_a_new_policy_later() {
    while_one_is_deaf(|world| {
        // 3 rejects some prefixes.
        [2, 9, 10].into_iter().for_each(|peer| world.configure(peer, 0, 3, 1));
    });
}

#[test]
fn a_reader_that_never_reads_hears_of_a_better_path_later() {
    while_one_is_deaf(|world| (3..9).for_each(|prefix| world.announce(11, prefix, 6 + 34, 0)));
}

/// Histories that once ended wrong.
#[test]
fn past_failures_stay_past() {
    use Op::*;
    let histories: [(usize, Vec<Op>); 6] = [
        (
            3_000,
            vec![
                // A destination that is to be imported anew is freed, and its slot given back, before
                // that comes to it.
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
                // Another import policy, and before the table has come to it something else that
                // differs for export only: the routes are imported anew all the same.
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
                // A session that ends for good before the table has come to its beginning: what was kept
                // of the one before goes with it.
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
                // A route that fits no message, and a member that has read End-of-RIB but not the end
                // of its chunk when it is moved to another group.
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
                // A new group is resynchronised with a destination that is not decided yet, and a
                // refresh comes before it is.
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
