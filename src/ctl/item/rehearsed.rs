//! What a reload would change in the routes that peers are sent.

use std::net::IpAddr;

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

/// Routes that would be sent, or accepted, differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsedRoutes {
    /// Peers for which something differs, by name. The sessions of others in this answer end.
    pub peers: Vec<RehearsedPeer>,
    /// Routes changed while they were evaluated: the counts may be wrong by those.
    pub changed_meanwhile: bool,
    /// Announcements are held back after the start: everything counts as announced.
    pub held_back: bool,
    /// Next hops that new import policies set, and of which it is not known how they are reached. They
    /// count as reachable.
    pub assumed_next_hops: Vec<IpAddr>,
    /// Changes whose effect on routes is not part of the counts.
    pub not_counted: Vec<String>,
}

/// What differs for a peer, all families together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsedPeer {
    /// Its name.
    pub peer: String,
    /// Routes that it would be sent and is not sent now.
    pub announced: u64,
    /// Routes that it would be sent with other attributes or another next hop.
    pub changed: u64,
    /// Routes that would be withdrawn.
    pub withdrawn: u64,
    /// Routes received from it that would be accepted and are rejected now.
    pub import_accepted: u64,
    /// Routes received from it that would be accepted with other attributes or another next hop.
    pub import_changed: u64,
    /// Routes received from it that would be rejected and are accepted now.
    pub import_rejected: u64,
    /// Some of the routes that it would be sent differently; all, if there are few.
    pub routes: Vec<RehearsedRoute>,
}

/// A route that a peer would be sent differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsedRoute {
    /// Its prefix.
    pub prefix: Option<Prefix>,
    /// The path identifier on ADD-PATH sessions; `null`: it has none yet.
    pub path_id: Option<u32>,
    /// `announced`, `changed` or `withdrawn`.
    pub what: String,
    /// Attributes that differ; of a route that is announced, all.
    pub attributes: Vec<AttributeChange>,
    /// Why it would be withdrawn.
    pub why: Option<String>,
}

/// An attribute, or the next hop, that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Its name, as in the keys of [`super::Path`].
    pub attribute: String,
    /// Its value before; `null`: absent.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
}
