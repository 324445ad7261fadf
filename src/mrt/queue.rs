//! The queue between peers' tasks and the thread that writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Counts, Recording};

/// Octets of records that wait to be written. What comes while the queue is full is dropped.
pub(super) const OCTETS_MAX: usize = 8 << 20;
/// Octets from which on a file that is open is written to at once.
const WAKE_AT: usize = 1 << 18;
/// A wait that something ends.
const FOREVER: Duration = Duration::from_secs(86_400);

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// Changes of the recording, so that peers' tasks find out without the mutex.
    changes: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    files: AtomicU64,
}

#[derive(Default)]
struct State {
    octets: Vec<u8>,
    records: u64,
    recording: Option<Recording>,
    /// The recording has changed: where in the queue.
    changed: Option<Mark>,
    has_ended: bool,
    /// Why files cannot be written, by kind.
    faults: [Option<String>; 2],
}

/// A place between two records.
#[derive(Clone, Copy)]
struct Mark {
    octets: usize,
    records: u64,
}

/// The files that may not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Updates = 0,
    Tables = 1,
}

impl Kind {
    pub(super) fn text(self) -> &'static str {
        match self {
            Kind::Updates => "MRT files of messages",
            Kind::Tables => "MRT files of tables",
        }
    }
}

/// What the thread has to do.
pub(super) struct Taken {
    /// Records that were put in before the change. Those behind it are taken next.
    pub(super) octets: Vec<u8>,
    /// How many they are.
    pub(super) records: u64,
    /// The recording has changed: to this.
    pub(super) change: Option<Option<Recording>>,
    /// Nothing follows.
    pub(super) has_ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record that `encode` appends to a buffer, if there is room.
    pub(super) fn put(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if state.recording.is_none() {
            return;
        }
        if state.octets.len() >= OCTETS_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = state.octets.len();
        encode(&mut state.octets);
        state.records += 1;
        // The first record ends a wait without limit.
        if before == 0 || before < WAKE_AT && state.octets.len() >= WAKE_AT {
            self.wake.notify_one();
        }
    }

    pub(super) fn set(&self, recording: Option<Recording>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.recording = recording;
        match state.changed {
            None => {
                state.changed = Some(Mark { octets: state.octets.len(), records: state.records });
            }
            // The recording in between never began, and its records belong into no file of this one.
            Some(mark) => {
                state.octets.truncate(mark.octets);
                let dropped = state.records.saturating_sub(mark.records);
                state.records = mark.records;
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        self.changes.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.wake.notify_one();
    }

    /// Waits until there is enough to write, at most for `limit`, and takes what there is. Without a limit:
    /// until there is anything. `octets` is an empty buffer, used next.
    pub(super) fn take(&self, mut octets: Vec<u8>, limit: Option<Duration>) -> Taken {
        let enough = if limit.is_some() { WAKE_AT } else { 1 };
        let is_idle = |state: &mut State| {
            state.octets.len() < enough && state.changed.is_none() && !state.has_ended
        };
        let waited = self.wake.wait_timeout_while(self.lock(), limit.unwrap_or(FOREVER), is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut records = state.records;
        let mut change = None;
        if let Some(mark) = state.changed.take() {
            change = Some(state.recording.clone());
            records = mark.records;
            octets.extend_from_slice(state.octets.get(mark.octets..).unwrap_or_default());
            state.octets.truncate(mark.octets);
        }
        state.records -= records;
        let octets = std::mem::replace(&mut state.octets, octets);
        Taken { octets, records, change, has_ended: state.has_ended && state.octets.is_empty() }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn chooses(&self, peer: &str) -> bool {
        self.lock().recording.as_ref().is_some_and(|recording| (recording.chooses)(peer))
    }

    pub(super) fn note_written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn note_dropped(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn note_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            written: read(&self.written),
            dropped: read(&self.dropped),
            files: read(&self.files),
        }
    }

    /// Returns the fault before.
    pub(super) fn set_fault(&self, kind: Kind, fault: Option<String>) -> Option<String> {
        let mut state = self.lock();
        let known = state.faults.get_mut(kind as usize);
        known.and_then(|known| std::mem::replace(known, fault))
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.lock().faults.iter().flatten().cloned().collect()
    }
}
