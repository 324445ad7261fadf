//! Answers to operators, scrapers and probes: what is read of the table, the kernel, the registry and
//! what the daemon's loop publishes, for each kind of client.

mod bfd;
mod bird;
mod calico;
mod control;
mod explain;
mod http;
mod liveness;
mod metrics;
mod readiness;

pub(super) use control::{Answers, Bfd, Order};
