//! What integration tests share.

pub mod birdcfg;
pub mod birdmodel;
pub mod birdrun;
pub mod scenario;
