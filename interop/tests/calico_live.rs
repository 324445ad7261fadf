//! margay in the place of BIRD: every golden scenario that can be run, and object sets of our own, are
//! run by BIRD 1.6.8, by the files that confd writes, and by margay, by the objects, one after the other on
//! one node with the same kernel routes and neighbours. What neighbours are told and what the kernel is
//! given, tunnels included, is the same. BIRD is Debian's, or has krt_tunnel where the files need it.

use anyhow::Result;
use interop::calico::{Scenario, WITHOUT_PASSWORD};
use interop::require;

#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    let shared = require::shared()?;
    Scenario::with_golden(&shared, |mut scenarios| {
        scenarios.extend(Scenario::with_environment(&shared)?);
        scenarios.retain(|s| !WITHOUT_PASSWORD.contains(&s.name.as_str()));
        Scenario::one_after_the_other(scenarios)
    })
}

#[test]
#[ignore = "needs root and BIRD 1.6"]
fn by_objects_of_our_own_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    Scenario::with_own(Scenario::one_after_the_other)
}

#[test]
#[ignore = "needs root, BIRD 1.6 and confd"]
fn confd_writes_and_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    Scenario::with_confd(Scenario::one_after_the_other)
}
