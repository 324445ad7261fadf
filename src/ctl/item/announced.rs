//! Routes that operators announce at run time.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

/// A route that an operator announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The prefix.
    pub prefix: Prefix,
    /// The VRF; `null`: the default VRF.
    pub vrf: Option<String>,
    /// Whether this answers a command, and what it did: `announced`, `replaced` or `withdrawn`;
    /// `null` in the list of announced routes.
    pub effect: Option<String>,
    /// When it was announced, RFC 3339.
    pub since: String,
    /// Seconds until it is withdrawn; `null`: it is not, until a command or the end of the daemon.
    pub seconds_left: Option<u64>,
    /// The next hop that peers are sent; `null`: our own address.
    pub next_hop: Option<IpAddr>,
    /// Its communities of any kind.
    pub communities: Vec<String>,
    /// LOCAL_PREF, if it has one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if it has one.
    pub med: Option<u32>,
}
