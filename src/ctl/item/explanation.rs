//! Why a destination has the routes that it has.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

use super::{ExplainedPeer, Gateway, KernelAnswer, Path};

/// Everything about one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The destination.
    pub prefix: Prefix,
    /// On a Calico node: what the objects say about it, for example of which Service it is an
    /// address.
    #[serde(default)]
    pub objects: Vec<String>,
    /// The vantage from which it is seen; `null`: our own decision.
    #[serde(default)]
    pub vantage: Option<String>,
    /// All paths in order of preference; `reason` is the step that ranked each below the previous
    /// one.
    pub paths: Vec<Path>,
    /// The route to install in the kernel.
    pub fib: Option<ExplainedFib>,
    /// Why there is none.
    pub fib_absent: Option<String>,
    /// The peers to which it is advertised.
    pub advertised: Vec<Advertised>,
    /// The peers to which it is not advertised, and why.
    pub withheld: Vec<Withheld>,
    /// If an address was asked for: what the kernel does with packets of this machine to it.
    #[serde(default)]
    pub kernel: Option<KernelAnswer>,
    /// If a peer was asked for: what it is sent.
    #[serde(default)]
    pub peer: Option<ExplainedPeer>,
}

/// A route to install in the kernel, and whether it is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedFib {
    /// `unicast`, `blackhole` or `unreachable`; or a text if an earlier route is kept for now.
    pub kind: String,
    /// The hops of a unicast route.
    pub gateways: Vec<Gateway>,
    /// The kernel's metric; `null` if routes are not installed.
    pub metric: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// `installed`, `pending`, `failed` or `foreign`; `null` if routes are not installed.
    pub state: Option<String>,
    /// Why it is not installed.
    pub error: Option<String>,
}

/// A peer to which a destination is advertised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertised {
    /// The peer's name.
    pub peer: String,
    /// The advertised path identifier, on ADD-PATH sessions.
    pub path_id: Option<u32>,
    /// The advertised next hop.
    pub next_hop: IpAddr,
}

/// A peer to which a destination is not advertised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// The peer's name.
    pub peer: String,
    /// The rule that prevents it.
    pub rule: String,
}
