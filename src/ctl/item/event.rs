//! Events.

use serde::{Deserialize, Serialize};

/// An event: a change of state, as in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number. Later events have greater numbers; those of one peer have gaps.
    pub number: u64,
    /// When, RFC 3339 with milliseconds.
    pub at: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// Its name, one of those in `docs/src/events.md`.
    pub event: String,
    /// The name of the peer that it concerns.
    pub peer: Option<String>,
    /// The prefix that it concerns.
    pub prefix: Option<String>,
    /// The interface, address, source or Calico object that it concerns.
    pub object: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// The line of the log.
    pub text: String,
    /// The other fields of the line.
    #[serde(default)]
    pub fields: std::collections::BTreeMap<String, String>,
}
