//! A mesh of Calico nodes that start at about the same time. Of two nodes, the one with the higher
//! address dials only once, at its start; the other dials repeatedly, also soon after a refusal.
//! All sessions are established within two seconds of the last start, in whatever order nodes
//! start.

mod sim_support;

use std::time::Duration;

use bgp_proto::session::{HoldExpiry, PassiveMode, Redial, Restart};
use bgp_proto::sim::{Direct, LinkSpec, NeighborSpec, Random, Sim, SpeakerId, SpeakerSpec};
use bgp_proto::types::{Asn, RouterId};
use sim_support::check_seeds;

/// All sessions are established this long after the last start.
const MESH_MAX: Duration = Duration::from_secs(2);

/// A full mesh of `count` nodes in one AS, none of them started.
fn nodes(seed: u64, count: usize, link: LinkSpec) -> Sim {
    let mut sim = Sim::new(seed, Box::new(|spec| Box::new(Direct::new(spec.address))));
    for index in 0..count {
        let address = [10, 0, (index / 250) as u8, (index % 250 + 1) as u8];
        let router_id = RouterId(u32::from_be_bytes(address));
        let asn = Asn(64512);
        let spec = SpeakerSpec { asn, router_id, address: address.into(), cluster_id: None };
        let id = sim.add_speaker(spec);
        for other in (0..index).map(SpeakerId) {
            sim.connect(other, id, link, |at, spec| as_calico_does(spec, at == other));
        }
    }
    sim
}

/// Configures a session as on a Calico node; `has_higher`: the neighbour's address is the higher
/// one.
fn as_calico_does(spec: &mut NeighborSpec, has_higher: bool) {
    spec.session.passive = if has_higher { PassiveMode::AtStart } else { PassiveMode::Active };
    spec.session.redial = Redial::Steady;
    spec.session.hold_expiry = HoldExpiry::Death;
}

/// Starts the nodes in this order, `gap` apart; returns the time from the last start until all
/// sessions are established.
fn complete_after(sim: &mut Sim, order: &[usize], mut gap: impl FnMut() -> Duration) -> Duration {
    for (at, node) in order.iter().enumerate() {
        if at > 0 {
            sim.run_for(gap());
        }
        sim.start(SpeakerId(*node), Restart::Done);
    }
    let begin = sim.now();
    while !sim.all_established() {
        assert!(sim.now().since(begin) < MESH_MAX, "order {order:?}");
        sim.run_for(Duration::from_millis(5));
    }
    sim.now().since(begin)
}

/// Every permutation of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert = |order: Vec<usize>| {
        (0..count).map(move |at| {
            let mut order = order.clone();
            order.insert(at, count - 1);
            order
        })
    };
    orders(count - 1).into_iter().flat_map(insert).collect()
}

#[test]
fn a_small_mesh_is_complete_in_every_order() {
    let mut longest = Duration::ZERO;
    for count in 2..=5 {
        let orders = orders(count);
        assert_eq!(orders.len(), (1..=count).product::<usize>());
        for order in orders {
            for gap in [0, 1, 20, 300, 800] {
                let mut sim = nodes(7, count, LinkSpec::default());
                let gap = || Duration::from_millis(gap);
                longest = longest.max(complete_after(&mut sim, &order, gap));
            }
        }
    }
    println!("complete {longest:?} after the last start, at most");
}

#[test]
fn a_mesh_of_any_size_is_complete_in_any_order() {
    check_seeds("a_mesh_of_any_size_is_complete_in_any_order", |seed| {
        let mut random = Random::new(seed);
        let link = LinkSpec {
            latency: random.up_to(Duration::from_millis(20)),
            jitter: random.up_to(Duration::from_millis(20)),
            ..LinkSpec::default()
        };
        let order = shuffled(&mut random, 2 + seed as usize % 15);
        let mut sim = nodes(seed, order.len(), link);
        let gap = Duration::from_secs(1) / order.len() as u32;
        complete_after(&mut sim, &order, || random.up_to(gap));
        sim.trace()
    });
}

fn shuffled(random: &mut Random, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for end in (1..count).rev() {
        order.swap(end, random.index(end + 1));
    }
    order
}

#[test]
fn a_mesh_of_forty_is_complete() {
    let mut random = Random::new(40);
    let order = shuffled(&mut random, 40);
    let mut sim = nodes(1, order.len(), LinkSpec::default());
    let took = complete_after(&mut sim, &order, || random.up_to(Duration::from_millis(25)));
    println!("40 nodes: complete {took:?} after the last start");
}

#[test]
fn every_session_of_three_hundred_nodes_is_established_in_time() {
    // Sessions share nothing but the routes, so that each pair is simulated on its own. All pairs
    // use the same start times, and the time is taken from the last of them.
    let mut random = Random::new(300);
    for spread in [0, 50, 900] {
        let spread = Duration::from_millis(spread);
        let starts: Vec<Duration> = (0..300).map(|_| random.up_to(spread)).collect();
        let last = starts.iter().max().copied().unwrap_or_default();
        let mut longest = Duration::ZERO;
        for high in 0..starts.len() {
            for low in 0..high {
                let (pair, seed) = ([starts[low], starts[high]], random.below(0..u64::MAX));
                let begin = pair[0].max(pair[1]);
                let order = if pair[0] <= pair[1] { [0, 1] } else { [1, 0] };
                let mut sim = nodes(seed, 2, LinkSpec::default());
                let took = complete_after(&mut sim, &order, || pair[0].abs_diff(pair[1]));
                longest = longest.max((begin + took).saturating_sub(last));
            }
        }
        println!("300 nodes within {spread:?}: complete {longest:?} after the last start");
        assert!(longest < MESH_MAX, "{longest:?}");
    }
}
