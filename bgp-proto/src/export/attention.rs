//! How readers ask for a turn of the table.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Groups whose log has something for the table to look at.
#[derive(Debug)]
pub(crate) struct Attention {
    groups: Mutex<BTreeSet<u32>>,
    table: Waker,
}

impl Attention {
    pub(crate) fn new(table: Waker) -> Arc<Self> {
        Arc::new(Attention { groups: Mutex::default(), table })
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
}
