//! Monitoring stations (RFC 7854): connections, and what each is sent of which table.
//!
//! A task for each station connects, or listens, and then asks the tables for pages of messages: it has at
//! most one page of each table in memory, and a station that does not read holds nothing else up. What a table
//! holds for a station is bounded there ([`bgp_proto::table::Table::monitor_begin`]); beyond the bound the
//! connection ends, and the next one begins with the whole state. The same happens when a table ends, so that
//! what a station knows is never in part of the past.
//!
//! What a station sends is read, counted and dropped: RFC 7854 §3.2 has no message from a station.

mod connection;
mod status;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::BmpSettings;
use crate::engine::Handle;
use crate::supervise::{self, Ending};
pub use status::{Counts, State, StationView, Status, TableView};

/// How long stations may take to accept a Termination.
const STOP_MAX: Duration = Duration::from_secs(2);

/// A table that stations are sent.
#[derive(Clone)]
pub struct Instance {
    /// Its name: that of the VRF, or `global` (RFC 9069 §5.2.1).
    pub name: Arc<str>,
    /// 0 for the default VRF, otherwise a number that identifies it.
    pub distinguisher: u64,
    /// The table.
    pub table: Handle,
}

/// The tables that there are at present.
pub type Instances = Arc<dyn Fn() -> Vec<Instance> + Send + Sync>;

/// The stations' tasks.
pub struct Stations {
    instances: Instances,
    running: BTreeMap<Arc<str>, Running>,
    statuses: Statuses,
}

struct Running {
    settings: BmpSettings,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The state of all stations. Clones share it.
#[derive(Clone, Default)]
pub struct Statuses(Arc<Mutex<BTreeMap<Arc<str>, Status>>>);

impl Statuses {
    /// Every station, in the order of their names.
    pub fn all(&self) -> Vec<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn set(&self, name: &Arc<str>, status: Option<Status>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => all.insert(Arc::clone(name), status),
            None => all.remove(name),
        };
    }
}

impl Stations {
    /// Without any station.
    pub fn new(instances: Instances) -> Self {
        Stations { instances, running: BTreeMap::new(), statuses: Statuses::default() }
    }

    /// Their state.
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// From here on these are the stations. Connections to stations whose settings are the same go on.
    pub fn set(&mut self, stations: &[BmpSettings]) {
        let is_kept = |running: &Running| stations.contains(&running.settings);
        let mut gone = Vec::new();
        for (name, running) in std::mem::take(&mut self.running) {
            if is_kept(&running) {
                self.running.insert(name, running);
            } else {
                let _ = running.stop.send(true);
                self.statuses.set(&name, None);
                gone.push(running.task);
            }
        }
        // The listening sockets of the last settings have to be closed first, and their connections to end.
        let (ended, all_ended) = watch::channel(false);
        tokio::spawn(async move {
            let all = futures_util::future::join_all(gone);
            let _ = tokio::time::timeout(STOP_MAX, all).await;
            let _ = ended.send(true);
        });
        for settings in stations {
            if self.running.contains_key(&settings.name) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let status = Status::new(settings.clone());
            self.statuses.set(&settings.name, Some(status.clone()));
            let task = task::Station { status, instances: Arc::clone(&self.instances), stopped };
            let mut all_ended = all_ended.clone();
            let run = async move {
                let _ = all_ended.wait_for(|ended| *ended).await;
                task.run().await;
            };
            let task = tokio::spawn(supervise::task("bmp", Ending::Allowed, run));
            let running = Running { settings: settings.clone(), stop, task };
            self.running.insert(Arc::clone(&settings.name), running);
        }
    }

    /// Says goodbye to the stations.
    pub async fn stop(self) {
        for running in self.running.values() {
            let _ = running.stop.send(true);
        }
        let all = self.running.into_values().map(|running| running.task);
        let ended = futures_util::future::join_all(all);
        let _ = tokio::time::timeout(STOP_MAX, ended).await;
    }
}
