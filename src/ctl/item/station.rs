//! Monitoring stations.

use serde::{Deserialize, Serialize};

/// A monitoring station (RFC 7854).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its name.
    pub name: String,
    /// How it is reached: `connect` or `listen`.
    pub mode: String,
    /// The address that we connect to or listen on.
    pub address: String,
    /// `waiting`, `connecting`, `listening` or `up`.
    pub state: String,
    /// For how long, in seconds.
    pub state_seconds: u64,
    /// The other end of the connection.
    pub remote: Option<String>,
    /// What it is sent, in the words of the configuration.
    pub ribs: Vec<String>,
    /// Which messages of peers it is sent as they were received, in the words of the configuration; absent:
    /// none.
    pub mirror: Option<String>,
    /// Whose Adj-RIBs; absent: all.
    pub peers: Option<Vec<String>>,
    /// Connections that came up.
    pub connections: u64,
    /// Connections that ended because it was too slow.
    pub too_slow: u64,
    /// Connections refused.
    pub refused: u64,
    /// Octets sent to it.
    pub sent_octets: u64,
    /// Octets that it sent, which are dropped.
    pub received_octets: u64,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// The tables that it is sent while it is up.
    pub tables: Vec<MonitoredTable>,
}

/// A table as a station is sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoredTable {
    /// Its name, `global` for the default VRF.
    pub name: String,
    /// Octets held of what it has not been sent.
    pub held_octets: u64,
    /// Messages encoded for it.
    pub messages: u64,
    /// Peers that it knows to be up.
    pub peers_up: u32,
    /// Routes left out because they fit no message.
    pub left_out: u64,
}
