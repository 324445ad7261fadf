//! Who may connect, and who was refused.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

/// The connections from an address that were refused before a session was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnections {
    /// The address.
    pub address: IpAddr,
    /// The interface of a link-local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Why the last one was refused.
    pub reason: String,
    /// How many were refused.
    pub count: u64,
    /// Seconds since the last one.
    pub seconds: u64,
}

/// A range from which peers may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its name; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The range.
    pub prefix: Prefix,
    /// The VRF that it is in; absent: the default VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The peers that it has.
    pub peers: u32,
    /// The most peers that it may have.
    pub peers_max: u32,
}
