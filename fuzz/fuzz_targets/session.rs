//! Arbitrary inputs in any order: the state machine keeps its invariants.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    bgp_proto::sim::fuzz::fuzz_session(data);
});
