//! When the file with the objects of the plan is read and written.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;
use tracing::info;

use super::saved::{self, Lines, Saved};
use crate::calico::Problem;

/// How long to collect changes before they are written, at least.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);
/// The same at most.
const WRITE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Encoding all objects uses at most one part in this many of the time.
const ENCODE_SHARE: u32 = 200;
/// How often to check whether a write has completed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Pause after a failed write.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The file with the objects of the plan in force.
pub(super) struct Store {
    /// `None`: nothing is stored.
    path: Option<PathBuf>,
    node: String,
    /// When the file was read.
    pub(super) restored_at: Instant,
    /// How old the file was then, as text.
    pub(super) age: String,
    /// How long to collect changes.
    interval: Duration,
    /// When the next write is due; `None` if nothing has changed since the last write.
    due: Option<Instant>,
    /// The result of a write that is under way, and when to check for it.
    writing: Option<(oneshot::Receiver<io::Result<()>>, Instant)>,
    /// Why the last write failed, or why the file could not be used and is not replaced yet.
    pub(super) fault: Option<Problem>,
}

impl Store {
    pub(super) fn new(path: Option<PathBuf>, node: String) -> Self {
        Store {
            path,
            node,
            restored_at: Instant::now(),
            age: String::new(),
            interval: WRITE_INTERVAL,
            due: None,
            writing: None,
            fault: None,
        }
    }

    /// Reads the stored objects. A file that cannot be used is reported, and treated as missing.
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
                self.fault = Some(Problem::new(path.display(), text));
                Saved::default()
            }
        }
    }

    /// A plan that may differ has come into force: schedules a write.
    pub(super) fn note_change(&mut self) {
        if self.path.is_some() && self.due.is_none() {
            self.due = Some(Instant::now() + self.interval);
        }
    }

    /// Whether a write is due, and none is under way.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.writing.is_none() && self.due.is_some_and(|at| at <= now)
    }

    /// When to call [`Store::settle`] and [`Store::is_due`] again.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.writing.as_ref().map(|(_, look)| *look).or(self.due)
    }

    /// Takes the result of a write that has completed.
    pub(super) fn settle(&mut self, now: Instant) {
        let Some((answer, look)) = &mut self.writing else { return };
        let result = match answer.try_recv() {
            Err(TryRecvError::Empty) => {
                *look = now + LOOK_INTERVAL;
                return;
            }
            Err(TryRecvError::Closed) => Err(io::Error::other("the writing was broken off")),
            Ok(result) => result,
        };
        self.writing = None;
        let Some(path) = &self.path else { return };
        self.fault = result.err().map(|error| {
            self.due = self.due.max(Some(now + RETRY_INTERVAL));
            let text = format!(
                "{error}: a start without the datastore will not know the objects, or only old ones; \
                 make room, or let margay write in its folder: it is tried again"
            );
            Problem::new(path.display(), text)
        });
    }

    /// Starts a write on another thread, because the disk may be slow. `encoding`: how long it took to
    /// encode the lines.
    pub(super) fn write(&mut self, lines: Lines, now: Instant, encoding: Duration) {
        self.due = None;
        self.interval = (encoding * ENCODE_SHARE).clamp(WRITE_INTERVAL, WRITE_INTERVAL_MAX);
        let Some(path) = self.path.clone() else { return };
        let (answer, wait) = oneshot::channel();
        self.writing = Some((wait, now + LOOK_INTERVAL));
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || {
            // The receiver is gone if the daemon has ended.
            let _ = answer.send(saved::write(&path, &node, &lines));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(store: &mut Store, now: Instant) {
        store.write(Lines::new(), now, Duration::ZERO);
        assert!(!store.is_due(now + RETRY_INTERVAL), "one at a time");
        while store.writing.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            store.settle(now);
        }
    }

    #[tokio::test]
    async fn large_clusters_are_written_less_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(Some(dir.path().join("objects")), "a".into());
        for (encoding, interval) in [(0, 2), (10, 2), (50, 10), (5_000, 60)] {
            let now = Instant::now();
            store.write(Lines::new(), now, Duration::from_millis(encoding));
            while store.writing.is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                store.settle(now);
            }
            let now = Instant::now();
            store.note_change();
            let due = store.wake().expect("a write is due").duration_since(now);
            let late = due.saturating_sub(Duration::from_secs(interval));
            assert!(
                late < Duration::from_secs(1) && due >= Duration::from_secs(interval),
                "{due:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_failed_write_is_reported_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("objects");
        let mut store = Store::new(Some(path.clone()), "a".into());
        assert!(store.read().objects.is_empty() && store.fault.is_none());
        let now = Instant::now();
        store.note_change();
        assert!(store.is_due(now + WRITE_INTERVAL * 2));
        write(&mut store, now).await;
        let fault = store.fault.clone().expect("the folder is missing");
        assert!(fault.text.contains("will not know the objects"), "{}", fault.text);
        // A change does not shorten the pause.
        store.note_change();
        assert!(!store.is_due(now + RETRY_INTERVAL - Duration::from_secs(1)));
        assert!(store.is_due(now + RETRY_INTERVAL));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        write(&mut store, now + RETRY_INTERVAL).await;
        assert!(store.fault.is_none() && store.wake().is_none(), "{:?}", store.fault);
        // A damaged file is reported until it is replaced.
        std::fs::write(&path, "damaged").unwrap();
        let mut store = Store::new(Some(path), "a".into());
        store.read();
        assert!(store.fault.is_some());
        write(&mut store, now).await;
        assert!(store.fault.is_none());
    }
}
