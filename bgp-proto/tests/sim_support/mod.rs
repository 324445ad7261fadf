//! Worlds for the simulation's tests, what disturbs them, and the checks at their end.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bgp_proto::session::{Close, Command, Restart, State};
use bgp_proto::sim::{
    Direct, Fault, Fragment, LinkSpec, NeighborSpec, Outage, Random, Sim, SpeakerId, SpeakerSpec,
};
use bgp_proto::types::{Asn, FamilySet, Prefix, RouterId};

/// Routes that each speaker begins with.
pub(crate) const PREFIXES_PER_SPEAKER: usize = 4;

/// The `index`-th prefix of a speaker; every other one is IPv6.
pub(crate) fn prefix(speaker: SpeakerId, index: usize) -> Prefix {
    let text = match index % 2 {
        0 => format!("10.{}.{index}.0/24", speaker.0),
        _ => format!("2001:db8:{:x}:{index:x}::/64", speaker.0),
    };
    text.parse().expect("a literal prefix")
}

/// A full mesh of speakers of AS 65001 and following, not started.
pub(crate) fn world(
    seed: u64,
    speakers: usize,
    link: impl FnMut(SpeakerId, SpeakerId) -> LinkSpec,
    adjust: impl Fn(SpeakerId, &mut NeighborSpec),
) -> Sim {
    let ids: Vec<_> =
        (1..=speakers as u32).map(|n| (Asn(65000 + n), RouterId(0x0a00_0000 + n))).collect();
    world_of(seed, &ids, link, adjust)
}

/// As [`world`], with these speakers.
pub(crate) fn world_of(
    seed: u64,
    speakers: &[(Asn, RouterId)],
    mut link: impl FnMut(SpeakerId, SpeakerId) -> LinkSpec,
    adjust: impl Fn(SpeakerId, &mut NeighborSpec),
) -> Sim {
    let mut sim = Sim::new(seed, Box::new(|spec| Box::new(Direct::new(spec.address))));
    for (index, (asn, router_id)) in speakers.iter().enumerate() {
        let address = [192, 0, 2, index as u8 + 1].into();
        let (asn, router_id, cluster_id) = (*asn, *router_id, None);
        let id = sim.add_speaker(SpeakerSpec { asn, router_id, address, cluster_id });
        (0..PREFIXES_PER_SPEAKER).for_each(|n| sim.originate(id, prefix(id, n)));
        for other in (0..index).map(SpeakerId) {
            let spec = link(other, id);
            sim.connect(other, id, spec, &adjust);
        }
    }
    sim
}

/// Every pair of a full mesh.
pub(crate) fn mesh(speakers: usize) -> Vec<(SpeakerId, SpeakerId)> {
    (0..speakers).flat_map(|b| (0..b).map(move |a| (SpeakerId(a), SpeakerId(b)))).collect()
}

/// A link with random latency, jitter, fragments and window.
pub(crate) fn random_link(random: &mut Random) -> LinkSpec {
    let fragments = [Fragment::Whole, Fragment::Whole, Fragment::Random, Fragment::Octets];
    LinkSpec {
        latency: random.up_to(Duration::from_millis(300)),
        jitter: random.up_to(Duration::from_millis(50)),
        fragment: fragments[random.index(fragments.len())],
        window: 20 + random.index(5000),
    }
}

/// One fault or one action of an operator, and some time after it.
pub(crate) fn disturb(
    sim: &mut Sim,
    random: &mut Random,
    links: &[(SpeakerId, SpeakerId)],
    routes: &[(SpeakerId, Prefix)],
) {
    let (mut a, mut b) = links[random.index(links.len())];
    if random.percent(50) {
        (a, b) = (b, a);
    }
    let (origin, prefix) = routes[random.index(routes.len())];
    match random.index(9) {
        0 => sim.partition(a, b),
        1 => sim.heal(a, b),
        2 => sim.reset(a, b),
        3 => sim.set_fault(a, b, Fault { sender: a, octets: random.below(0..600) }),
        4 => sim.command(a, b, Command::Restart(Close::Reset { text: String::new() })),
        5 | 6 => sim.originate(origin, prefix),
        7 => sim.withdraw(origin, prefix),
        _ => {
            sim.stop(a, [Outage::Process, Outage::Machine][random.index(2)]);
            sim.run_for(random.up_to(Duration::from_secs(20)));
            sim.start(a, Restart::Recovering { preserved: FamilySet::ALL });
        }
    }
    sim.run_for(random.up_to(Duration::from_secs(15)));
}

/// What every speaker of a full mesh must have: the routes of all.
fn expected(sim: &Sim, speakers: usize) -> BTreeSet<Prefix> {
    (0..speakers).flat_map(|s| sim.own(SpeakerId(s))).collect()
}

/// Whether every session is established and every speaker has exactly the routes of all.
pub(crate) fn is_converged(sim: &Sim, speakers: usize) -> bool {
    let all = expected(sim, speakers);
    sim.all_established()
        && (0..speakers).all(|s| sim.best(SpeakerId(s)).into_keys().collect::<BTreeSet<_>>() == all)
}

/// Asserts that every session of `links` is established; the message says why one ended.
pub(crate) fn assert_established(sim: &Sim, links: &[(SpeakerId, SpeakerId)]) {
    for (a, b) in links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
        let down = sim.last_down(a, b);
        assert_eq!(sim.state(a, b), State::Established, "{a:?} {b:?} {down:?}");
    }
}

/// Asserts [`is_converged`]; the message says what is wrong.
pub(crate) fn assert_converged(sim: &Sim, speakers: usize) {
    assert_established(sim, &mesh(speakers));
    let all = expected(sim, speakers);
    for a in (0..speakers).map(SpeakerId) {
        let best: BTreeSet<_> = sim.best(a).into_keys().collect();
        assert_eq!(best, all, "routes of {a:?}");
    }
}

/// Runs each seed twice and compares; on failure says which seed, and how to run it alone.
/// `MARGAY_SIM_SEEDS` is how many (default 200), `MARGAY_SIM_SEED` runs one.
pub(crate) fn check_seeds(test: &str, run: impl Fn(u64) -> u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("MARGAY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MARGAY_SIM_SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let again = format!("again: MARGAY_SIM_SEED={seed} cargo test -p bgp-proto {test}");
        let once = || catch_unwind(AssertUnwindSafe(|| run(seed)));
        let (Ok(first), Ok(second)) = (once(), once()) else {
            panic!("seed {seed} failed; {again}")
        };
        assert_eq!(first, second, "seed {seed} is not deterministic; {again}");
    }
}
