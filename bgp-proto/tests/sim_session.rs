//! Scenarios on the simulation: sessions between speakers that advertise their own routes to each
//! other.

mod sim_support;

use std::time::Duration;

use bgp_proto::session::{Close, Command, PassiveMode, Restart, State};
use bgp_proto::sim::{Fault, Fragment, LinkSpec, NeighborSpec, Outage, Random, SpeakerId};
use bgp_proto::types::{Asn, RouterId};
use sim_support::{
    assert_converged, check_seeds, disturb, is_converged, mesh, prefix, random_link, world,
};

const A: SpeakerId = SpeakerId(0);
const B: SpeakerId = SpeakerId(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Octets of either direction until both have every route, on a link without faults.
fn undisturbed() -> (u64, u64) {
    let mut sim = world(1, 2, |_, _| LinkSpec::default(), |_, _| {});
    sim.start_all();
    sim.run_for(Duration::from_secs(5));
    assert_converged(&sim, 2);
    (sim.arrived(A, B), sim.arrived(B, A))
}

#[test]
fn a_reset_at_any_octet_of_the_first_messages_is_recovered_from() {
    let (from_a, from_b) = undisturbed();
    assert!(from_a > 200 && from_b > 200, "handshake and updates: {from_a}, {from_b}");
    for (sender, octets) in [(A, from_a), (B, from_b)] {
        for octets in 0..=octets {
            let mut sim = world(octets, 2, |_, _| LinkSpec::default(), |_, _| {});
            sim.set_fault(A, B, Fault { sender, octets });
            sim.start_all();
            let done = sim.run_until(2 * MINUTE, |sim| is_converged(sim, 2));
            assert!(done.is_some(), "reset after octet {octets} of {sender:?}");
        }
    }
}

#[test]
fn single_octets_make_the_same_session() {
    let link = LinkSpec { fragment: Fragment::Octets, window: 7, ..LinkSpec::default() };
    let mut sim = world(1, 2, |_, _| link, |_, _| {});
    sim.start_all();
    sim.run_for(Duration::from_secs(30));
    assert_converged(&sim, 2);
    assert_eq!((sim.ups(A, B), sim.ups(B, A)), (1, 1));
}

#[test]
fn collisions_of_all_latencies_end_in_one_session() {
    // Both dial at once; the second speaker starts a little later, by steps of a quarter of the
    // way.
    for latency in [0, 1, 20, 200, 900] {
        let latency = Duration::from_millis(latency);
        for quarter in 0..12 {
            let link = LinkSpec { latency, ..LinkSpec::default() };
            let mut sim = world(u64::from(quarter), 2, |_, _| link, |_, _| {});
            sim.start(A, Restart::Done);
            sim.run_for(latency * quarter / 4);
            sim.start(B, Restart::Done);
            sim.run_for(MINUTE);
            assert_converged(&sim, 2);
            let ups = (sim.ups(A, B), sim.ups(B, A));
            assert_eq!(ups, (1, 1), "latency {latency:?}, {quarter}/4 later");
        }
    }
}

#[test]
fn both_ends_dialling_at_once_make_one_session_that_stays() {
    // Segments of different connections overtake each other, so that each end may see either
    // connection first, or one of them only when the other is established already.
    check_seeds("both_ends_dialling_at_once_make_one_session_that_stays", |seed| {
        let mut random = Random::new(seed);
        let link = LinkSpec {
            latency: random.up_to(Duration::from_millis(40)),
            jitter: random.up_to(Duration::from_millis(80)),
            ..LinkSpec::default()
        };
        let restarting = [random.percent(80), random.percent(80)];
        let mut sim = world(
            seed,
            2,
            |_, _| link,
            |at, spec| {
                if !restarting[at.0] {
                    spec.session.graceful_restart_time = None;
                }
            },
        );
        let (first, second) = if random.percent(50) { (A, B) } else { (B, A) };
        sim.start(first, Restart::Done);
        sim.run_for(random.up_to(2 * (link.latency + link.jitter)));
        sim.start(second, Restart::Done);
        // A first attempt that comes too early is refused and made again after some seconds.
        sim.run_for(MINUTE);
        assert_converged(&sim, 2);
        assert_eq!((sim.ups(A, B), sim.ups(B, A)), (1, 1), "{:?}", sim.last_down(A, B));
        sim.trace()
    });
}

#[test]
fn equal_identifiers_on_ebgp_are_distinguished_by_the_as() {
    let mut sim = sim_support::world_of(
        7,
        &[(Asn(65001), RouterId(5)), (Asn(65002), RouterId(5))],
        |_, _| LinkSpec { latency: Duration::from_millis(50), ..LinkSpec::default() },
        |_, _| {},
    );
    sim.start_all();
    sim.run_for(MINUTE);
    assert_converged(&sim, 2);
}

#[test]
fn one_passive_side_is_enough_for_a_session_and_two_are_too_many() {
    for (passive, state) in [(vec![A], State::Established), (vec![A, B], State::Active)] {
        let mut sim = world(
            3,
            2,
            |_, _| LinkSpec::default(),
            |at, spec| {
                if passive.contains(&at) {
                    spec.session.passive = PassiveMode::Passive;
                }
            },
        );
        sim.start_all();
        sim.run_for(MINUTE);
        assert_eq!(sim.state(A, B), state);
        assert_eq!(sim.dials(A, B), 0);
    }
}

#[test]
fn an_absent_peer_is_not_dialled_in_quick_succession() {
    let mut sim = world(4, 2, |_, _| LinkSpec::default(), |_, _| {});
    sim.start(A, Restart::Done);
    sim.run_for(60 * MINUTE);
    let dials = sim.dials(A, B);
    assert!((85..150).contains(&dials), "{dials} attempts in an hour");
}

#[test]
fn silence_longer_than_the_hold_time_ends_the_session_and_healing_brings_it_back() {
    let mut sim = world(
        5,
        2,
        |_, _| LinkSpec::default(),
        |_, spec| {
            spec.session.hold_time = Duration::from_secs(9);
            spec.session.graceful_restart_time = None;
        },
    );
    sim.start_all();
    sim.run_for(MINUTE);
    sim.partition(A, B);
    sim.run_for(Duration::from_secs(10));
    for (at, to) in [(A, B), (B, A)] {
        assert_eq!(sim.last_down(at, to), Some(&Close::HoldTimerExpired));
        assert!(sim.best(at).len() < 2 * sim_support::PREFIXES_PER_SPEAKER, "routes are gone");
    }
    sim.run_for(MINUTE);
    sim.heal(A, B);
    sim.run_for(2 * MINUTE);
    assert_converged(&sim, 2);
}

#[test]
fn a_short_silence_is_survived() {
    let mut sim = world(
        6,
        2,
        |_, _| LinkSpec::default(),
        |_, spec| {
            spec.session.hold_time = Duration::from_secs(9);
        },
    );
    sim.start_all();
    sim.run_for(MINUTE);
    for _ in 0..20 {
        sim.partition(A, B);
        sim.run_for(Duration::from_secs(5));
        sim.heal(A, B);
        sim.run_for(Duration::from_secs(5));
    }
    assert_eq!((sim.ups(A, B), sim.state(A, B)), (1, State::Established));
}

#[test]
fn a_restart_within_the_restart_time_is_not_seen_in_the_routes() {
    for outage in [Outage::Process, Outage::Machine] {
        let mut sim = world(8, 2, |_, _| LinkSpec::default(), |_, _| {});
        sim.start_all();
        sim.run_for(MINUTE);
        let before = sim.best(A).len();
        sim.stop(B, outage);
        let preserved = bgp_proto::types::FamilySet::ALL;
        for second in 0..60 {
            if second == 10 {
                sim.start(B, Restart::Recovering { preserved });
            }
            sim.run_for(Duration::from_secs(1));
            assert_eq!(sim.best(A).len(), before, "{outage:?}, second {second}");
        }
        assert_converged(&sim, 2);
        assert!(sim.best(A).values().all(|route| !route.stale), "{outage:?}: End-of-RIB came");
        if outage == Outage::Machine {
            assert_eq!(sim.last_down(A, B), Some(&Close::Replaced), "RFC 4724 §5");
        }
    }
}

#[test]
fn routes_of_a_peer_that_does_not_come_back_are_withdrawn_after_its_restart_time() {
    let mut sim = world(
        9,
        2,
        |_, _| LinkSpec::default(),
        |_, spec| {
            spec.session.graceful_restart_time = Some(Duration::from_secs(30));
        },
    );
    sim.start_all();
    sim.run_for(MINUTE);
    sim.stop(B, Outage::Process);
    sim.run_for(Duration::from_secs(29));
    assert_eq!(sim.best(A).len(), 2 * sim_support::PREFIXES_PER_SPEAKER);
    sim.run_for(Duration::from_secs(2));
    assert_eq!(sim.best(A).len(), sim_support::PREFIXES_PER_SPEAKER);
}

#[test]
fn a_peer_that_reads_nothing_is_disconnected_after_the_send_hold_time() {
    let link = LinkSpec { window: 64, ..LinkSpec::default() };
    let mut sim = world(
        10,
        2,
        |_, _| link,
        |_, spec| {
            spec.session.send_hold_time = Some(Duration::from_secs(120));
        },
    );
    sim.start_all();
    sim.run_for(MINUTE);
    sim.set_reading(B, false);
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.last_down(A, B), Some(&Close::SendHoldTimerExpired));
    let reset = Close::Transport { text: "reset by peer".to_owned() };
    assert_eq!(sim.last_down(B, A), Some(&reset), "not its own hold timer: it does not read");
    sim.set_reading(B, true);
    sim.run_for(2 * MINUTE);
    assert_converged(&sim, 2);
}

#[test]
fn a_stopped_peer_stays_down_and_comes_back_by_start() {
    let mut sim = world(11, 2, |_, _| LinkSpec::default(), |_, _| {});
    sim.start_all();
    sim.run_for(MINUTE);
    sim.command(A, B, Command::Stop(Close::Shutdown { text: "maintenance".to_owned() }));
    sim.run_for(10 * MINUTE);
    assert_eq!((sim.state(A, B), sim.ups(A, B)), (State::Idle, 1));
    sim.command(A, B, Command::Start);
    sim.run_for(MINUTE);
    assert_converged(&sim, 2);
}

/// A world whose speakers, links and disturbances are determined by one seed.
fn disturbed(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let speakers = 2 + random.index(4);
    let hasty = |_, spec: &mut NeighborSpec| spec.session.hold_time = Duration::from_secs(9);
    let mut sim = world(seed, speakers, |_, _| random_link(&mut random), hasty);
    let links = mesh(speakers);
    let routes: Vec<_> = (0..speakers)
        .map(SpeakerId)
        .flat_map(|s| [(s, prefix(s, 0)), (s, prefix(s, 101))])
        .collect();
    sim.start_all();
    (0..12).for_each(|_| disturb(&mut sim, &mut random, &links, &routes));
    sim.calm();
    sim.run_until(5 * MINUTE, |sim| is_converged(sim, speakers));
    sim.run_for(Duration::from_secs(20));
    assert_converged(&sim, speakers);
    sim.trace()
}

#[test]
fn disturbed_worlds_converge_and_repeat() {
    check_seeds("disturbed_worlds_converge_and_repeat", disturbed);
}
