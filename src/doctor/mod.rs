//! Whether a Calico node may go from BIRD to margay, or back: what would change, and what is unsafe.
//!
//! - [`examine`]: looks at everything once and judges; nothing is changed.
//! - `facts`: what was seen; `collect` looks: the datastore, the control sockets, the kernel, `/proc` and
//!   calico-node's files, each by itself, so that what cannot be seen hides nothing else.
//! - `judge`: from facts to findings, pure.
//! - [`Report`]: what was found, and what it comes to.
//!
//! What runs today is what answers at `bird.ctl` and `bird6.ctl`, be it BIRD or margay. What margay would
//! do is the plan, whose own policies are asked about every route that was received.

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

/// Looks at this node and judges. `settings` says what is followed, given the environment; `None`: the
/// node speaks no BGP; an error is why it is not known. `node` is the node's name, where it is given.
pub fn examine(
    node: Option<&str>,
    settings: impl FnOnce(&Environment) -> Result<Option<NodeSettings>, String>,
) -> Report {
    judge::judge(&collect::collect(node, settings))
}
