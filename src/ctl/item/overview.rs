//! Sessions by kind and state; and how much has changed in the last minutes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An overview of all sessions. Without times that pass: it stays equal while nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The sessions of each kind, in order of the kinds.
    pub kinds: Vec<SessionKind>,
    /// The peers that are not established, and not shut down by an operator: those that were established
    /// before come first, then by name; at most 50.
    pub down: Vec<DownSession>,
    /// The number of all of these.
    pub down_count: u32,
    /// Names of the peers that are shut down by an operator; sorted.
    pub shut_down: Vec<String>,
    /// Names of the peers that are drained by name; sorted. A drain of all peers is in the status.
    pub drained: Vec<String>,
    /// BFD sessions by state (`Up`, `Init`, `Down`, `AdminDown`); empty if there are none, and `null` if
    /// the BFD thread does not answer in time.
    pub bfd: Option<BTreeMap<String, u64>>,
}

/// The sessions of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKind {
    /// `internal`, `external` or `dynamic`; on a Calico node also `mesh`, `global`, `node` and
    /// `local-workload`. As in the labels of metrics.
    pub kind: String,
    /// Names of the peers in each state of the FSM; sorted. States that no peer is in are absent.
    pub states: BTreeMap<String, Vec<String>>,
}

/// A session that is not established.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownSession {
    /// The name of the peer.
    pub name: String,
    /// The kind of the session.
    pub kind: String,
    /// The FSM's state.
    pub state: String,
    /// Why the last session or attempt failed; `null`: none has failed.
    pub reason: Option<String>,
    /// When that was, RFC 3339.
    pub at: Option<String>,
}

/// What changed in the last minutes, sampled at an interval. All lists have the same length, at most
/// 180, and the newest value last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Seconds between two values.
    pub interval_seconds: u64,
    /// The number of samples so far: tells how many values are new.
    pub samples: u64,
    /// UPDATEs received in each interval.
    pub updates_received: Vec<u64>,
    /// UPDATEs sent in each interval.
    pub updates_sent: Vec<u64>,
    /// Routes that peers announced or withdrew in each interval.
    pub route_changes: Vec<u64>,
    /// Destinations in the tables at its end.
    pub destinations: Vec<u64>,
    /// Established sessions at its end.
    pub established: Vec<u64>,
}
