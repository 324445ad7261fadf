//! Code shared by integration tests.

pub mod birdcfg;
pub mod birdmodel;
pub mod birdrun;
pub mod scenario;
