//! The configuration, and reloads of it.

use serde::{Deserialize, Serialize};

use super::{Forecasted, RehearsedRoutes};

/// A reload that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// When, RFC 3339.
    pub at: String,
    /// Every fault, a line each.
    pub text: String,
}

/// A reload that is to be confirmed, or was undone because it was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedReload {
    /// Whether it was undone: the file then has a configuration that is not in force.
    pub undone: bool,
    /// When it is or was undone, RFC 3339.
    pub at: String,
    /// Time left to confirm it; 0 if it was undone.
    pub seconds_left: u64,
    /// Why it could not be undone when it was due. That is tried again until it succeeds or the reload
    /// is confirmed.
    #[serde(default)]
    pub fault: Option<String>,
}

/// The result of a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// One line for each change; empty: nothing changed.
    pub changes: Vec<String>,
    /// Whether the changes were only listed and not applied.
    #[serde(default)]
    pub dry_run: bool,
    /// Sessions that end or restart, or would.
    #[serde(default)]
    pub sessions: Vec<ReloadedSession>,
    /// Of a dry run: the routes that peers would be sent differently.
    #[serde(default)]
    pub routes: Option<RehearsedRoutes>,
    /// Seconds after which the reload is undone unless it is confirmed; `null`: it is not.
    #[serde(default)]
    pub undone_in: Option<u64>,
    /// What an undo would not bring back.
    #[serde(default)]
    pub not_undone: Vec<String>,
    /// Of changed objects on a Calico node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecasted>,
}

/// A reload was confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Always true.
    pub confirmed: bool,
}

/// A session that a reload ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadedSession {
    /// The peer's name.
    pub peer: String,
    /// `restarts`, or `ends` if the peer is removed.
    pub what: String,
    /// The keys that differ, each with its old and its new value.
    pub keys: Vec<ChangedKey>,
    /// On a Calico node: the object from which the session follows now, such as `BGPPeer/tor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Before: the FSM's state.
    pub state: Option<String>,
    /// Before: paths in the Adj-RIB-In, all families.
    pub prefixes_received: u32,
    /// Before: prefixes advertised to the peer, all families.
    pub prefixes_advertised: u32,
}

/// A key whose value differs. Secrets are not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// The old value as TOML; `null`: none, or not shown.
    pub old: Option<String>,
    /// The new value.
    pub new: Option<String>,
}

/// The values in force of one table of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The table's name, such as `bgp.peers`.
    pub table: String,
    /// Whether the file may have several of these tables.
    pub is_list: bool,
    /// Its keys.
    pub settings: Vec<Setting>,
}

/// A key and its value in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value as TOML; `null`: none. A secret is `(hidden)`.
    pub value: Option<String>,
    /// Whether it is the default.
    pub default: bool,
}
