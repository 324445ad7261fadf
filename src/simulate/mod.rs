//! A Calico cluster in simulated time: `margay calico simulate`.
//!
//! - [`Cluster`]: every node's plan and configuration, computed from one snapshot; the neighbours
//!   outside of the cluster; which session meets which.
//! - `pair`: both ends of a session by the real [`bgp_proto::session::Peer`]: whether and when it is
//!   established, what was negotiated, how long a failure goes unnoticed.
//! - `speaker`: the host of one real [`bgp_proto::table::Table`]. `world`: all of them on one clock.
//! - `transition`: what every speaker changes when objects do.
//! - `reach`: which routes lead to which block, over which speakers. [`Report`]: what is printed.
//!
//! What is real: plan, conversion, policies, FSM, OPEN negotiation, UPDATE encoding and decoding,
//! decision process, update groups, stale routes and their timers, what goes to the kernel.
//!
//! What is assumed ([`ASSUMPTIONS`]): every message takes [`LATENCY`] and processing takes no time;
//! all addresses reach each other; neighbours outside of the cluster accept and advertise every route.
//! Sessions whose ends have equal parameters, addresses and identifiers aside, behave alike: one
//! of them is run, and an UPDATE that several such sessions carry is decoded once.
//!
//! Pure: no clock, no files, no sockets. Threads share the speakers of one moment among them;
//! results do not depend on their number. An object set that cannot be simulated is refused as a
//! whole ([`Refused`]), and so is one for which [`Cluster::estimate`] exceeds the memory.

mod build;
mod cluster;
mod external;
mod pair;
mod reach;
mod report;
mod run;
mod speaker;
mod spec;
mod transition;
mod world;

use std::time::Duration;

pub use build::Input;
pub use cluster::Cluster;
pub use report::{Gap, Lost, Path, Report, Scenario, SessionFault, State};
pub use run::{Failure, Question, run};
pub use spec::{ForeignTable, Refused, Role};

/// How long a message takes from one speaker to another.
pub const LATENCY: Duration = Duration::from_millis(1);

/// What the results rest on and the objects do not say.
pub const ASSUMPTIONS: &[&str] = &[
    "all nodes start at the same time; a message takes 1 ms, processing takes no time",
    "addresses of nodes and peers reach each other; a dead peer takes no other link with it",
    "a peer outside of the cluster accepts and advertises every route, reflects routes to internal \
     sessions, and has a hold time of 90 s and graceful restart as margay's defaults are",
    "peers of one family outside of the cluster are connected to each other (--no-fabric: they are not)",
    "a failed node or peer loses power: the others notice when their hold timers expire, BFD is not \
     simulated",
    "routes of the kernel (single pods, tunnels' addresses, connected networks) and reachableBy are \
     not simulated",
    "services are for peers outside of the cluster: nodes reach them by kube-proxy; their weights are \
     not simulated",
    "routes of pools that Felix writes count as reached; local workloads are not simulated",
    "vantages have the default cost from each other, with --live those that the daemon has",
    "every node acts on changed objects at the same moment, and a new node has started then; sessions \
     between nodes that others replace end once no route depends on them, 15 s later at the latest",
];

/// Threads that run speakers: as many as there are processors.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
