//! Scenarios on the simulation with real tables: full mesh, reflection, eBGP, each disturbed in
//! every way that the simulation supports and compared with an oracle at the end.
//!
//! The oracles do not process messages: they derive the routes from the topology and the originated
//! prefixes.

mod sim_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::session::{Close, Restart};
use bgp_proto::sim::{
    BestRoute, LinkSpec, NeighborSpec, Random, Sim, SpeakerId, SpeakerSpec, Tabled,
};
use bgp_proto::types::{Asn, ClusterId, Family, FamilySet, Prefix, RouterId};
use sim_support::{assert_established, check_seeds, disturb, mesh, random_link};

const MINUTE: Duration = Duration::from_secs(60);
const LOCAL_AS: Asn = Asn(64_512);
/// Every speaker's own prefixes.
const UNIQUE: usize = 3;
/// Prefixes that several speakers originate.
const SHARED: usize = 3;

/// Speakers, who is linked to whom, and who reflects.
struct Topology {
    speakers: Vec<SpeakerSpec>,
    links: Vec<(SpeakerId, SpeakerId)>,
    /// The second is a client of the first.
    clients: BTreeSet<(SpeakerId, SpeakerId)>,
    /// Speakers that may originate shared prefixes. A reflector with a local route hides the route
    /// that it would reflect, so the oracle would have to be a second implementation.
    shared_by: Vec<SpeakerId>,
    /// Sessions run over IPv6, and carry IPv4 with IPv6 next hops.
    ipv6: bool,
}

impl Topology {
    fn new(seed: u64, asns: impl Iterator<Item = Asn>) -> Self {
        let mut random = Random::new(seed ^ 0xad0be);
        let ipv6 = random.percent(50);
        let mut taken = BTreeSet::new();
        let mut speakers = Vec::new();
        for (index, asn) in asns.enumerate() {
            let mut id = 1 + random.below(0..500) as u32;
            while !taken.insert(id) {
                id += 1;
            }
            let address: IpAddr = if ipv6 {
                format!("2001:db8:ffff::{:x}", index + 1).parse().expect("a literal address")
            } else {
                [192, 0, 2, index as u8 + 1].into()
            };
            let router_id = RouterId(0x0a00_0000 + id);
            speakers.push(SpeakerSpec { asn, router_id, address, cluster_id: None });
        }
        let shared_by = (0..speakers.len()).map(SpeakerId).collect();
        let (links, clients) = (Vec::new(), BTreeSet::new());
        Topology { speakers, links, clients, shared_by, ipv6 }
    }

    fn over_ipv4(mut self) -> Self {
        self.ipv6 = false;
        for (index, spec) in self.speakers.iter_mut().enumerate() {
            spec.address = [192, 0, 2, index as u8 + 1].into();
        }
        self
    }

    fn full_mesh(seed: u64, speakers: usize) -> Self {
        let mut topology = Topology::new(seed, (0..speakers).map(|_| LOCAL_AS));
        topology.links = mesh(speakers);
        topology
    }

    /// One or two hubs, in one cluster or not, and their clients.
    fn hubs(seed: u64, hubs: usize, clients: usize) -> Self {
        let mut topology = Topology::new(seed, (0..hubs + clients).map(|_| LOCAL_AS));
        topology.links = mesh(hubs);
        if seed.is_multiple_of(2) {
            let cluster = Some(ClusterId(77));
            topology.speakers.iter_mut().take(hubs).for_each(|s| s.cluster_id = cluster);
        }
        for hub in 0..hubs {
            (hubs..hubs + clients).for_each(|client| topology.add_client(hub, client));
        }
        topology.shared_by.drain(..hubs);
        topology
    }

    /// Two reflectors at the top, reflectors below that are clients of both, leaves below each.
    fn two_levels(seed: u64, middles: usize, leaves: usize) -> Self {
        let count = 2 + middles + middles * leaves;
        let mut topology = Topology::new(seed, (0..count).map(|_| LOCAL_AS));
        topology.links = mesh(2);
        for middle in 2..2 + middles {
            (0..2).for_each(|top| topology.add_client(top, middle));
            let first = 2 + middles + (middle - 2) * leaves;
            (first..first + leaves).for_each(|leaf| topology.add_client(middle, leaf));
        }
        topology.shared_by.drain(..2 + middles);
        topology
    }

    /// Every speaker has an AS of its own; the topology is a tree with additional links.
    fn external(seed: u64, speakers: usize) -> Self {
        let mut random = Random::new(seed ^ 0xeb9);
        let mut topology = Topology::new(
            seed,
            (0..speakers as u32).map(|n| Asn(if n % 2 == 0 { n } else { n << 16 } + 1)),
        );
        for b in 1..speakers {
            topology.links.push((SpeakerId(random.index(b)), SpeakerId(b)));
        }
        for link in mesh(speakers) {
            if !topology.links.contains(&link) && random.percent(25) {
                topology.links.push(link);
            }
        }
        topology
    }

    fn add_client(&mut self, reflector: usize, client: usize) {
        let pair = (SpeakerId(reflector), SpeakerId(client));
        self.links.push(pair);
        self.clients.insert(pair);
    }

    fn ids(&self) -> impl Iterator<Item = SpeakerId> {
        (0..self.speakers.len()).map(SpeakerId)
    }

    fn spec(&self, id: SpeakerId) -> &SpeakerSpec {
        &self.speakers[id.0]
    }

    fn neighbors(&self, id: SpeakerId) -> impl Iterator<Item = SpeakerId> {
        self.links.iter().filter_map(move |(a, b)| match () {
            () if *a == id => Some(*b),
            () if *b == id => Some(*a),
            () => None,
        })
    }

    /// Over IPv4 sessions there are no next hops for IPv6.
    fn prefix(&self, speaker: usize, index: usize) -> Prefix {
        sim_support::prefix(SpeakerId(speaker), if self.ipv6 { index } else { index * 2 })
    }

    /// Every route that some speaker may originate.
    fn routes(&self) -> Vec<(SpeakerId, Prefix)> {
        let unique = self.ids().flat_map(|s| (0..UNIQUE).map(move |n| (s, s.0, n)));
        let shared = self.shared_by.iter().flat_map(|s| (0..SHARED).map(move |n| (*s, 200, n)));
        unique.chain(shared).map(|(s, owner, n)| (s, self.prefix(owner, n))).collect()
    }

    /// Every fourth seed has logs so short that slow readers fall off, also during a
    /// resynchronisation, and together with others that are as slow.
    fn build(&self, seed: u64, random: &mut Random) -> Sim {
        let log_bytes_max = if seed % 4 == 3 { 400 } else { 16 << 20 };
        let mut sim =
            Sim::new(seed, Box::new(move |spec| Box::new(Tabled::new(spec, log_bytes_max))));
        self.speakers.iter().for_each(|spec| {
            sim.add_speaker(*spec);
        });
        for (a, b) in &self.links {
            sim.connect(*a, *b, random_link(random), |side, spec: &mut NeighborSpec| {
                spec.session.hold_time = Duration::from_secs(9);
                spec.session.extended_next_hop = self.ipv6;
                spec.session.extended_messages = seed.is_multiple_of(3);
                spec.routes.reflection.client = side == *a && self.clients.contains(&(*a, *b));
            });
        }
        for (at, prefix) in self.routes() {
            if random.percent(50) {
                sim.originate(at, prefix);
            }
        }
        sim
    }
}

/// Who originates what.
fn origins(sim: &Sim, topology: &Topology) -> BTreeMap<Prefix, BTreeSet<SpeakerId>> {
    let mut origins: BTreeMap<Prefix, BTreeSet<SpeakerId>> = BTreeMap::new();
    for id in topology.ids() {
        for prefix in sim.own(id) {
            origins.entry(prefix).or_default().insert(id);
        }
    }
    origins
}

fn own_route() -> BestRoute {
    BestRoute { next_hop: None, as_path: Vec::new(), stale: false }
}

/// Inside one AS, with equal metrics everywhere, the lowest identifier wins and keeps its next hop,
/// however often the route is reflected.
fn internal_oracle(
    topology: &Topology,
    at: SpeakerId,
    origins: &BTreeSet<SpeakerId>,
) -> Option<BestRoute> {
    if origins.contains(&at) {
        return Some(own_route());
    }
    let origin = origins.iter().min_by_key(|id| topology.spec(**id).router_id)?;
    Some(BestRoute { next_hop: Some(topology.spec(*origin).address), ..own_route() })
}

/// Between ASes the shortest path wins, and of several the one by the neighbour with the lowest
/// identifier.
fn external_oracle(
    topology: &Topology,
    at: SpeakerId,
    origins: &BTreeSet<SpeakerId>,
) -> Option<BestRoute> {
    let distances = distances(topology, origins);
    let distance = *distances.get(&at)?;
    if distance == 0 {
        return Some(own_route());
    }
    let next = topology
        .neighbors(at)
        .filter(|n| distances.get(n) == Some(&(distance - 1)))
        .min_by_key(|n| topology.spec(*n).router_id)?;
    let mut as_path = vec![topology.spec(next).asn];
    as_path.extend(external_oracle(topology, next, origins)?.as_path);
    Some(BestRoute { next_hop: Some(topology.spec(next).address), as_path, stale: false })
}

fn distances(topology: &Topology, origins: &BTreeSet<SpeakerId>) -> BTreeMap<SpeakerId, usize> {
    let mut distances: BTreeMap<_, _> = origins.iter().map(|id| (*id, 0)).collect();
    let mut rim: Vec<_> = origins.iter().copied().collect();
    for distance in 1.. {
        let next = rim.iter().flat_map(|id| topology.neighbors(*id));
        rim = next.filter(|id| !distances.contains_key(id)).collect();
        if rim.is_empty() {
            break;
        }
        rim.iter().for_each(|id| {
            distances.insert(*id, distance);
        });
    }
    distances
}

type Oracle = fn(&Topology, SpeakerId, &BTreeSet<SpeakerId>) -> Option<BestRoute>;

fn is_converged(sim: &Sim, topology: &Topology, oracle: Oracle) -> bool {
    let origins = origins(sim, topology);
    sim.all_established()
        && topology.ids().all(|id| {
            let best = sim.best(id);
            best.len() == origins.len()
                && origins
                    .iter()
                    .all(|(prefix, from)| best.get(prefix).cloned() == oracle(topology, id, from))
        })
}

/// Asserts that best routes are those of the oracle, that kernels follow, and that neighbours agree
/// about what one has advertised to the other.
fn assert_routes(sim: &Sim, topology: &Topology, oracle: Oracle) {
    assert_established(sim, &topology.links);
    let origins = origins(sim, topology);
    for id in topology.ids() {
        let expected: BTreeMap<_, _> = origins
            .iter()
            .filter_map(|(prefix, from)| Some((*prefix, oracle(topology, id, from)?)))
            .collect();
        assert_eq!(sim.best(id), expected, "best routes of {id:?}");
        let kernel: BTreeMap<_, BTreeSet<IpAddr>> = expected
            .into_iter()
            .map(|(prefix, route)| (prefix, route.next_hop.into_iter().collect()))
            .collect();
        assert_eq!(*sim.installed(id), kernel, "kernel routes of {id:?}");
    }
    for (a, b) in topology.links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
        assert_eq!(sim.told(a, b), sim.heard(b, a), "what {a:?} advertised to {b:?}");
    }
}

fn run(seed: u64, topology: &Topology, oracle: Oracle) -> u64 {
    let mut random = Random::new(seed);
    let mut sim = topology.build(seed, &mut random);
    let routes = topology.routes();
    sim.start_all();
    (0..10).for_each(|_| disturb(&mut sim, &mut random, &topology.links, &routes));
    sim.calm();
    sim.run_until(5 * MINUTE, |sim| is_converged(sim, topology, oracle));
    sim.run_for(Duration::from_secs(20));
    assert_routes(&sim, topology, oracle);
    sim.trace()
}

#[test]
fn a_full_mesh_agrees_with_the_oracle() {
    check_seeds("a_full_mesh_agrees_with_the_oracle", |seed| {
        let topology = Topology::full_mesh(seed, 2 + seed as usize % 4);
        run(seed, &topology, internal_oracle)
    });
}

#[test]
fn hubs_reflect_as_the_oracle_says() {
    check_seeds("hubs_reflect_as_the_oracle_says", |seed| {
        let topology = Topology::hubs(seed, 1 + seed as usize / 2 % 2, 2 + seed as usize % 4);
        run(seed, &topology, internal_oracle)
    });
}

#[test]
fn two_levels_of_reflection_agree_with_the_oracle() {
    check_seeds("two_levels_of_reflection_agree_with_the_oracle", |seed| {
        let topology = Topology::two_levels(seed, 2, 1 + seed as usize % 2);
        run(seed, &topology, internal_oracle)
    });
}

#[test]
fn shortest_paths_win_between_autonomous_systems() {
    check_seeds("shortest_paths_win_between_autonomous_systems", |seed| {
        let topology = Topology::external(seed, 2 + seed as usize % 5);
        run(seed, &topology, external_oracle)
    });
}

#[test]
fn a_reflector_that_restarts_moves_no_kernel_route() {
    let topology = Topology::hubs(4, 1, 4);
    let mut sim = topology.build(4, &mut Random::new(4));
    sim.start_all();
    sim.run_for(MINUTE);
    assert_routes(&sim, &topology, internal_oracle);
    let before: Vec<_> = topology.ids().map(|id| sim.installed(id).clone()).collect();
    let hub = SpeakerId(0);
    sim.stop(hub, bgp_proto::sim::Outage::Machine);
    for step in 0..6000 {
        if step == 1200 {
            sim.start(hub, Restart::Recovering { preserved: FamilySet::ALL });
        }
        sim.run_for(Duration::from_millis(10));
        for client in topology.ids().skip(1) {
            assert_eq!(*sim.installed(client), before[client.0], "{client:?}, step {step}");
        }
    }
    assert_routes(&sim, &topology, internal_oracle);
}

/// A hub with a log of 16 KiB; client 1 originates, client 2 is quick, client 3 takes 64 octets at
/// a time over a slow link.
fn hub_with_a_slow_client() -> (Topology, Sim) {
    let topology = Topology {
        links: (1..4).map(|client| (SpeakerId(0), SpeakerId(client))).collect(),
        ..Topology::new(1, [LOCAL_AS; 4].into_iter())
    };
    let topology = topology.over_ipv4();
    let mut sim = Sim::new(1, Box::new(|spec| Box::new(Tabled::new(spec, 16 << 10))));
    for spec in &topology.speakers {
        sim.add_speaker(*spec);
    }
    for (hub, client) in &topology.links {
        let slow =
            LinkSpec { latency: Duration::from_millis(20), window: 64, ..LinkSpec::default() };
        let link = if client.0 == 3 { slow } else { LinkSpec::default() };
        sim.connect(*hub, *client, link, |side, spec| {
            spec.routes.reflection.client = side == *hub;
        });
    }
    (topology, sim)
}

#[test]
fn a_slow_client_gets_the_newest_state_and_delays_no_other() {
    let (topology, mut sim) = hub_with_a_slow_client();
    let [hub, source, quick, slow] = [0, 1, 2, 3].map(SpeakerId);
    let prefix = |n: u64| -> Prefix {
        format!("10.{}.{}.0/24", n / 256, n % 256).parse().expect("a literal prefix")
    };
    sim.start_all();
    sim.run_for(MINUTE);
    let mut random = Random::new(9);
    for n in 0..6000 {
        let prefix = prefix(random.below(0..400));
        if random.percent(60) {
            sim.originate(source, prefix);
        } else {
            sim.withdraw(source, prefix);
        }
        sim.run_for(Duration::from_millis(1));
        if n % 500 == 499 {
            sim.run_for(Duration::from_millis(10));
            assert_eq!(sim.best(quick).len(), sim.own(source).count(), "after {n} changes");
        }
    }
    assert_ne!(sim.told(hub, slow), sim.heard(slow, hub), "the slow client is behind");
    assert!(sim.evictions(hub) > 0, "it fell off the log");
    sim.run_for(5 * MINUTE);
    assert_routes(&sim, &topology, internal_oracle);
    assert_eq!(sim.ups(hub, slow), 1, "being slow is no reason to end a session");
}

#[test]
fn a_peer_over_its_limit_is_closed_and_tried_again() {
    let topology = Topology::full_mesh(2, 2).over_ipv4();
    let mut sim = Sim::new(2, Box::new(|spec| Box::new(Tabled::new(spec, 1 << 20))));
    for spec in &topology.speakers {
        sim.add_speaker(*spec);
    }
    let [a, b] = [0, 1].map(SpeakerId);
    sim.connect(a, b, LinkSpec::default(), |side, spec| {
        spec.routes.limits.prefixes_max = (side == a).then_some(5);
    });
    (0..6).for_each(|n| sim.originate(b, sim_support::prefix(b, 2 * n)));
    sim.start_all();
    sim.run_for(30 * MINUTE);
    let limit = Close::PrefixLimit { family: Family::Ipv4, bound: 5 };
    assert_eq!(sim.last_down(a, b), Some(&limit));
    let ups = sim.ups(a, b);
    assert!((20..150).contains(&ups), "{ups} sessions in half an hour");
    sim.withdraw(b, sim_support::prefix(b, 0));
    sim.run_for(2 * MINUTE);
    assert_eq!(sim.best(a).len(), 5);
}
