//! margay in place of BIRD: every golden scenario that can be run, and object sets of our own, run
//! on one node first with BIRD 1.6.8 and the files that confd writes, and then with margay and the
//! objects, with the same kernel routes and neighbours. What neighbours receive and what the kernel
//! has, tunnels included, must be the same. BIRD is Debian's, or the one with krt_tunnel where the
//! files need it.

use anyhow::Result;
use interop::calico::{Scenario, WITHOUT_PASSWORD};
use interop::require;

#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_margay_matches_bird() -> Result<()> {
    let shared = require::shared()?;
    Scenario::with_golden(&shared, |mut scenarios| {
        scenarios.extend(Scenario::with_environment(&shared)?);
        scenarios.retain(|s| !WITHOUT_PASSWORD.contains(&s.name.as_str()));
        Scenario::one_after_the_other(scenarios)
    })
}

#[test]
#[ignore = "needs root and BIRD 1.6"]
fn own_objects_margay_matches_bird() -> Result<()> {
    Scenario::with_own(Scenario::one_after_the_other)
}

#[test]
#[ignore = "needs root, BIRD 1.6 and confd"]
fn confd_writes_and_margay_matches_bird() -> Result<()> {
    Scenario::with_confd(Scenario::one_after_the_other)
}
