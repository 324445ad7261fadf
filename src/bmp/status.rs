//! What is known of a station.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::BmpSettings;
use bgp_proto::table::MonitorId;

use super::Instance;

/// The state of one station. Clones share it.
#[derive(Clone)]
pub struct Status(Arc<Shared>);

struct Shared {
    settings: BmpSettings,
    view: Mutex<StationView>,
}

/// Whether there is a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No attempt is under way; the next one is due.
    #[default]
    Waiting,
    /// A connection is being made.
    Connecting,
    /// Waits for the station to connect.
    Listening,
    /// The station is sent messages.
    Up,
}

impl State {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Connecting => "connecting",
            State::Listening => "listening",
            State::Up => "up",
        }
    }
}

/// Counters since the station was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that came up.
    pub connections: u64,
    /// Connections that ended because the station was too slow: a table held too much for it, or it accepted
    /// nothing for a while.
    pub too_slow: u64,
    /// Octets written.
    pub octets: u64,
    /// Octets that the station sent, which are dropped.
    pub received: u64,
    /// Connections refused: from other addresses, or while there was one.
    pub refused: u64,
}

/// What is shown of a station.
#[derive(Clone, Debug, Default)]
pub struct StationView {
    /// Whether there is a connection.
    pub state: State,
    /// Since when.
    pub since: Option<Instant>,
    /// The other end of the connection.
    pub remote: Option<SocketAddr>,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
    /// Counters.
    pub counts: Counts,
    /// The tables that it is sent.
    pub tables: Vec<TableView>,
}

/// A table that a station is sent.
#[derive(Clone)]
pub struct TableView {
    /// The table.
    pub instance: Instance,
    /// The monitor there.
    pub monitor: MonitorId,
}

impl std::fmt::Debug for TableView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.instance.name, self.monitor)
    }
}

impl Status {
    pub(super) fn new(settings: BmpSettings) -> Self {
        Status(Arc::new(Shared { settings, view: Mutex::default() }))
    }

    /// Its settings.
    pub fn settings(&self) -> &BmpSettings {
        &self.0.settings
    }

    /// What is shown of it.
    pub fn view(&self) -> StationView {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut StationView)) {
        change(&mut self.0.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn enter(&self, state: State) {
        self.update(|view| {
            if view.state != state {
                (view.state, view.since) = (state, Some(Instant::now()));
            }
        });
    }
}
