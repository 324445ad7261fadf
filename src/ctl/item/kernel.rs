//! What the kernel does with packets to an address.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

use super::Gateway;

/// The kernel's own answer, which considers the routes of all processes and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAnswer {
    /// The address.
    pub address: IpAddr,
    /// The prefix of the route that it uses; `null`: no route leads there.
    pub prefix: Option<Prefix>,
    /// Whether that is a route of ours.
    pub ours: bool,
    /// Who installed it, as `ip route` says: `bird`, `static`, `kernel`.
    pub protocol: Option<String>,
    /// Its table.
    pub table: Option<u32>,
    /// Its metric.
    pub metric: Option<u32>,
    /// `unicast`, `blackhole`, `unreachable` or `other`: local or encapsulated, for example.
    pub kind: Option<String>,
    /// Its gateways.
    pub gateways: Vec<Gateway>,
    /// The next-hop object that it refers to, in place of gateways.
    pub object: Option<u32>,
    /// Why the kernel was not asked, or did not answer.
    pub error: Option<String>,
}
