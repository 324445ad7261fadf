//! Drains and their progress.

use serde::{Deserialize, Serialize};

use crate::ctl::Lasts;

/// A drain by an operator (RFC 8326).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// When it began, RFC 3339.
    pub since: String,
    /// The reason given by the operator, if any.
    pub reason: Option<String>,
    /// How long it lasts at most.
    pub lasts: Lasts,
}

/// The drains in force and their progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// The drain of all neighbours, if one is in force.
    pub all: Option<Drained>,
    /// Names of the neighbours that are drained by name, including those that do not exist at
    /// present.
    pub by_name: Vec<String>,
    /// Existing neighbours that are drained, by name or with all others.
    pub peers: u32,
    /// Of these, the established ones.
    pub established: u32,
    /// Of the established ones, those that were sent every marked route.
    pub told: u32,
    /// Of these, those that announce a path of their own for every prefix advertised to them.
    pub moved: u32,
    /// Established ones that are not counted in `moved`; at most twenty.
    pub waiting: Vec<DrainWaiting>,
    /// IPv4 and IPv6 packets that the kernel has forwarded since it started; `null`: they cannot be
    /// read.
    pub forwarded_packets: Option<u64>,
}

/// A drained neighbour that is not known to have moved to other paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainWaiting {
    /// Its name.
    pub name: String,
    /// Whether it was sent every marked route.
    pub told: bool,
    /// Prefixes advertised to it.
    pub advertised: u32,
    /// Of these, the prefixes to which it announces a path of its own.
    pub replaced: u32,
}
