//! Whether a Calico node can be moved from BIRD to margay, or back: what would change, and what is
//! unsafe.
//!
//! - [`examine`]: collects everything once and evaluates it; nothing is changed.
//! - `facts`: what was collected. `collect` reads the datastore, the control sockets, the kernel,
//!   `/proc` and calico-node's files, each independently of the others, so that one failure does
//!   not hide the rest.
//! - `judge`: derives the findings from the facts; pure.
//! - [`Report`]: the findings and the verdict.
//!
//! The current state is what the process at `bird.ctl` and `bird6.ctl` reports, be it BIRD or
//! margay. What margay would do is the plan, whose policies are evaluated for every route that was
//! received.

mod bird;
mod collect;
mod facts;
mod files;
mod finding;
mod firewall;
mod judge;
mod machine;
mod processes;

use crate::node::{Environment, NodeSettings};

pub use finding::{Compared, Finding, Report, Severity, Subject, Verdict};

/// Examines this node. `settings` returns the settings that margay would use with an environment,
/// or `None` if the node does not speak BGP, or why they are not known. `node` is the node's name,
/// if given.
pub fn examine(
    node: Option<&str>,
    settings: impl FnOnce(&Environment) -> Result<Option<NodeSettings>, String>,
) -> Report {
    judge::judge(&collect::collect(node, settings))
}
