//! Probes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The name of the peer; `null`: it is not configured.
    pub peer: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// The state of its session; `null`: it is not configured.
    pub state: Option<String>,
    /// Whether no step failed.
    pub works: bool,
    /// The steps, in order; after one that failed, others may be missing.
    pub steps: Vec<ProbeStep>,
}

/// A step of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStep {
    /// `route`, `tcp`, `key`, `ttl`, `open` or `mtu`.
    pub step: String,
    /// `works`, `fails`, `unknown` or `skipped`.
    pub result: String,
    /// What was found.
    pub text: String,
    /// What to change; `null` unless the step fails.
    pub remedy: Option<String>,
}
