//! The arguments of a probe.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a probe does differently from the session as it is configured, and for a neighbour that is
/// not: from the defaults of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProbeOptions {
    /// The neighbour's AS. Default for a neighbour that is not configured: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_asn: Option<u32>,
    /// The TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Our address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<IpAddr>,
    /// TTL to send with, 1-255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multihop_ttl: Option<u8>,
    /// Hops to the neighbour (RFC 5082), 1-254.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// The VRF of a neighbour that is not configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// TCP MD5 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// Connect although the session has a connection.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A password. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
