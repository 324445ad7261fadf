//! When what was kept on disk is read and written.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::saved::{self, Lines, Saved};
use crate::calico::Problem;

/// Least time between two writings; what changes meanwhile is written at its end.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// The file with the objects of the plan in force.
pub(super) struct Store {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    node: String,
    /// When the file was read.
    pub(super) restored_at: Instant,
    /// How old it was, for people.
    pub(super) age: String,
    /// Something differs from what was written last, and may be written then.
    due: Option<Instant>,
    writing: Option<JoinHandle<std::io::Result<()>>>,
    /// Why it is not kept or was not used.
    pub(super) fault: Option<Problem>,
}

impl Store {
    pub(super) fn new(path: Option<PathBuf>, node: String) -> Self {
        Store {
            path,
            node,
            restored_at: Instant::now(),
            age: String::new(),
            due: None,
            writing: None,
            fault: None,
        }
    }

    /// What was kept. A file that cannot be used is named, and counts as none.
    pub(super) fn read(&mut self) -> Saved {
        let Some(path) = &self.path else { return Saved::default() };
        match saved::read(path, &self.node) {
            Ok(saved) => {
                let objects: usize = saved.objects.values().map(Vec::len).sum();
                self.age = saved.age();
                if objects > 0 {
                    info!("{}: {objects} objects, kept {}", path.display(), self.age);
                }
                saved
            }
            Err(why) => {
                let text = format!("{why}: it is not used, and written again with the next plan");
                warn!("{}: {text}", path.display());
                self.fault = Some(Problem::new(path.display(), text));
                Saved::default()
            }
        }
    }

    /// A plan that may be another one came into force.
    pub(super) fn note_change(&mut self) {
        if self.path.is_some() && self.due.is_none() {
            self.due = Some(Instant::now() + WRITE_INTERVAL);
        }
    }

    /// When something is to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes elsewhere, because a disk may take its time. While an earlier writing lasts, this one is
    /// put off.
    pub(super) fn write(&mut self, lines: Lines) {
        let Some(path) = self.path.clone() else { return };
        if let Some(writing) = self.writing.take_if(|writing| !writing.is_finished()) {
            self.writing = Some(writing);
            self.due = Some(Instant::now() + WRITE_INTERVAL);
            return;
        }
        self.due = None;
        let node = self.node.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let result = saved::write(&path, &node, &lines);
            if let Err(error) = &result {
                warn!(
                    "{}: {error}: a start without the datastore will not know the objects",
                    path.display()
                );
            }
            result
        }));
    }
}
