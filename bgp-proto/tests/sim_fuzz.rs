//! The bodies of the fuzz targets on random octets: a short fuzz run in every test run.

use bgp_proto::sim::fuzz::{fuzz_bfd, fuzz_ndp, fuzz_session};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[test]
fn any_inputs_keep_a_session_sound() {
    let cases = 4000;
    let sessions = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
    let inputs = proptest::collection::vec(any::<u8>(), 0..800);
    let outcome = runner.run(&inputs, |data| {
        sessions.set(sessions.get() + fuzz_session(&data));
        Ok(())
    });
    outcome.unwrap();
    assert!(sessions.get() > u64::from(cases), "inputs rarely get to a session: {sessions:?}");
}

#[test]
fn any_inputs_keep_a_bfd_session_sound() {
    let cases = 4000;
    let ups = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
    let inputs = proptest::collection::vec(any::<u8>(), 0..800);
    let outcome = runner.run(&inputs, |data| {
        ups.set(ups.get() + fuzz_bfd(&data));
        Ok(())
    });
    outcome.unwrap();
    assert!(ups.get() > u64::from(cases) / 2, "inputs rarely bring a session up: {ups:?}");
}

#[test]
fn any_inputs_keep_a_link_sound() {
    let cases = 4000;
    let neighbors = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() });
    let inputs = proptest::collection::vec(any::<u8>(), 0..400);
    let outcome = runner.run(&inputs, |data| {
        neighbors.set(neighbors.get() + fuzz_ndp(&data));
        Ok(())
    });
    outcome.unwrap();
    assert!(neighbors.get() > u64::from(cases), "inputs rarely change a neighbour: {neighbors:?}");
}
