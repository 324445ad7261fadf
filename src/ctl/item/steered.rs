//! What an operator did to single sessions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ctl::Lasts;

/// The shutdown of a peer by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// When it began, RFC 3339.
    pub since: String,
    /// The shutdown communication sent to the neighbour (RFC 9003).
    pub message: Option<String>,
    /// How long it lasts at most.
    pub lasts: Lasts,
}

/// The result of a command for one peer, or what the result would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    /// The peer's name.
    pub name: String,
    /// Its address; `null` if it does not exist at present.
    pub address: Option<IpAddr>,
    /// The FSM's state before the command.
    pub state: Option<String>,
    /// Whether the command was carried out.
    pub done: bool,
    /// The effect of the command, for the operator.
    pub effect: Option<String>,
    /// Why the command does not apply to this peer.
    pub skipped: Option<String>,
}
