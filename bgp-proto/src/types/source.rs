//! Where routes come from.

use serde::{Deserialize, Serialize};

/// Where a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A BGP peer.
    Bgp,
    /// Our configuration (`[[originate]]`, statics).
    Static,
    /// The kernel, installed by another process.
    Kernel,
    /// A connected network.
    Direct,
    /// Another VRF, from which a policy imports it.
    Vrf,
    /// A command at run time.
    Announced,
}
