//! How readers ask for a turn of the table, and how the table wakes readers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Maximum number of octets appended before readers are woken.
const OCTETS_MAX: usize = 64 << 10;
/// Maximum number of consecutive turns that end without waking readers.
const TURNS_MAX: u32 = 2;

/// Wake-ups between the table and the readers of all logs.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Groups whose log has events or room for the table.
    groups: Mutex<BTreeSet<u32>>,
    table: Waker,
    asleep: Mutex<Asleep>,
}

/// Readers that have something to read and have not been woken. Waking a reader to write a few
/// octets costs more than writing them: readers are woken at the end of a turn or, while turns
/// follow each other, once for several turns.
#[derive(Debug, Default)]
struct Asleep {
    wakers: Vec<Waker>,
    /// Appended since readers were last woken.
    octets: usize,
    /// Turns that ended since then.
    turns: u32,
}

impl Attention {
    pub(crate) fn new(table: Waker) -> Arc<Self> {
        Arc::new(Attention { groups: Mutex::default(), table, asleep: Mutex::default() })
    }

    /// Requests a turn for a group. May be called from any thread, but not while a log is locked.
    pub(crate) fn call(&self, group: u32) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        self.table.wake_by_ref();
    }

    /// Groups for which a turn was requested since the last call, each once.
    pub(super) fn take(&self) -> BTreeSet<u32> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *groups)
    }

    /// A chunk of `octets` octets was appended for these readers.
    pub(super) fn appended(&self, octets: usize, wakers: Vec<Waker>) {
        let mut asleep = self.asleep();
        asleep.octets += octets;
        asleep.wakers.extend(wakers);
        if asleep.octets >= OCTETS_MAX {
            wake(asleep);
        }
    }

    /// A turn has ended, and nothing follows it at once.
    pub(super) fn wake_readers(&self) {
        wake(self.asleep());
    }

    /// A turn has ended, and the next one follows at once.
    pub(super) fn postpone_waking(&self) {
        let mut asleep = self.asleep();
        asleep.turns += 1;
        if asleep.turns > TURNS_MAX {
            wake(asleep);
        }
    }

    fn asleep(&self) -> MutexGuard<'_, Asleep> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the readers after releasing the lock.
fn wake(mut asleep: MutexGuard<'_, Asleep>) {
    let woken = std::mem::take(&mut *asleep);
    drop(asleep);
    woken.wakers.into_iter().for_each(Waker::wake);
}
