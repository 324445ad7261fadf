//! Worlds for the simulation's tests, and the checks at their end.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bgp_proto::session::PeerConfig;
use bgp_proto::sim::{Direct, LinkSpec, Sim, SpeakerId, SpeakerSpec};
use bgp_proto::types::{Asn, Prefix, RouterId};

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
    adjust: impl Fn(SpeakerId, &mut PeerConfig),
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
    adjust: impl Fn(SpeakerId, &mut PeerConfig),
) -> Sim {
    let mut sim = Sim::new(seed, Box::new(|spec| Box::new(Direct::new(spec.address))));
    for (index, (asn, router_id)) in speakers.iter().enumerate() {
        let address = [192, 0, 2, index as u8 + 1].into();
        let id = sim.add_speaker(SpeakerSpec { asn: *asn, router_id: *router_id, address });
        (0..PREFIXES_PER_SPEAKER).for_each(|n| sim.originate(id, prefix(id, n)));
        for other in (0..index).map(SpeakerId) {
            let spec = link(other, id);
            sim.connect(other, id, spec, &adjust);
        }
    }
    sim
}

/// What every speaker of a full mesh must have: the routes of all.
fn expected(sim: &Sim, speakers: usize) -> BTreeSet<Prefix> {
    (0..speakers).flat_map(|s| sim.own(SpeakerId(s))).collect()
}

/// Whether every session stands and every speaker has exactly the routes of all.
pub(crate) fn is_converged(sim: &Sim, speakers: usize) -> bool {
    let all = expected(sim, speakers);
    sim.all_established()
        && (0..speakers).all(|s| sim.best(SpeakerId(s)).into_keys().collect::<BTreeSet<_>>() == all)
}

/// As [`is_converged`], and says what is wrong.
pub(crate) fn assert_converged(sim: &Sim, speakers: usize) {
    let all = expected(sim, speakers);
    for a in (0..speakers).map(SpeakerId) {
        for b in (0..speakers).map(SpeakerId).filter(|b| *b != a) {
            let down = sim.last_down(a, b);
            let state = sim.state(a, b);
            assert_eq!(state, bgp_proto::session::State::Established, "{a:?} {b:?} {down:?}");
        }
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
