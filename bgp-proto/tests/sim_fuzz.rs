//! The bodies of the fuzz targets on random octets: a short fuzz run in every test run.

use bgp_proto::sim::fuzz::{fuzz_bfd, fuzz_ndp, fuzz_session};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Inputs for each target.
const CASES: u32 = 4000;

/// Runs a target on inputs shorter than `len_max` octets; returns the sum of what it reports.
fn run(len_max: usize, target: fn(&[u8]) -> u64) -> u64 {
    let sum = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: CASES, ..ProptestConfig::default() };
    let inputs = proptest::collection::vec(any::<u8>(), 0..len_max);
    let outcome = TestRunner::new(config).run(&inputs, |data| {
        sum.set(sum.get() + target(&data));
        Ok(())
    });
    outcome.expect("no input fails the target");
    sum.get()
}

#[test]
fn any_inputs_keep_a_session_sound() {
    let sessions = run(800, fuzz_session);
    assert!(sessions > u64::from(CASES), "inputs rarely get to a session: {sessions}");
}

#[test]
fn any_inputs_keep_a_bfd_session_sound() {
    let ups = run(800, fuzz_bfd);
    assert!(ups > u64::from(CASES) / 2, "inputs rarely bring a session up: {ups}");
}

#[test]
fn any_inputs_keep_a_link_sound() {
    let neighbors = run(400, fuzz_ndp);
    assert!(neighbors > u64::from(CASES), "inputs rarely change a neighbour: {neighbors}");
}
