//! How readers ask for a turn of the table, and how the table wakes readers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Octets that readers are left asleep over at most.
const OCTETS_MAX: usize = 64 << 10;
/// Turns at whose end readers are left asleep at most, while turns follow each other.
const TURNS_MAX: u32 = 2;

/// What the table and the readers of all logs tell each other.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Groups whose log has something for the table to look at.
    groups: Mutex<BTreeSet<u32>>,
    table: Waker,
    asleep: Mutex<Asleep>,
}

/// Readers that have something to read and have not been woken. To wake a reader, to let it write a
/// little and to put it to sleep again costs more than the little: they are woken at the end of a turn,
/// and while turns follow each other, once for several.
#[derive(Debug, Default)]
struct Asleep {
    wakers: Vec<Waker>,
    /// Appended since readers were woken.
    octets: usize,
    /// Ended since then.
    turns: u32,
}

impl Attention {
    pub(crate) fn new(table: Waker) -> Arc<Self> {
        Arc::new(Attention { groups: Mutex::default(), table, asleep: Mutex::default() })
    }

    /// Called from any thread, without a lock of a log.
    pub(crate) fn call(&self, group: u32) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        self.table.wake_by_ref();
    }

    /// Groups that called since the last time, each once.
    pub(super) fn take(&self) -> BTreeSet<u32> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *groups)
    }

    /// A chunk of so many octets was appended for these readers.
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

/// Wakes them, without the lock.
fn wake(mut asleep: MutexGuard<'_, Asleep>) {
    let woken = std::mem::take(&mut *asleep);
    drop(asleep);
    woken.wakers.into_iter().for_each(Waker::wake);
}
