//! Next hops.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Gateway;

/// An address that paths have as their next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The address.
    pub address: IpAddr,
    /// The interface of a link-local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The VRF in which; absent: the default VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// How it is resolved.
    pub state: Resolution,
    /// The hops to which it is resolved.
    pub gateways: Vec<Gateway>,
    /// Metric of the route that resolves it, 0 on a connected network; `null`: it is not resolved.
    pub metric: Option<u32>,
    /// The kernel route that decides how it is reached.
    pub resolved_by: Option<String>,
    /// Number of paths through it, unusable ones included.
    pub paths: u32,
    /// The peer whose address it is.
    pub peer: Option<String>,
    /// Why paths through it are unusable, or may be; `null` if they are not.
    pub reason: Option<String>,
}

/// How a next hop is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// It is on a connected network.
    Connected,
    /// Over a route with a gateway.
    Recursive,
    /// Only the default route covers it.
    DefaultRoute,
    /// It is an address of this machine.
    Local,
    /// No usable route covers it.
    Unresolved,
}

impl Resolution {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Resolution::Connected => "connected",
            Resolution::Recursive => "recursive",
            Resolution::DefaultRoute => "default-route",
            Resolution::Local => "local",
            Resolution::Unresolved => "unresolved",
        }
    }
}
