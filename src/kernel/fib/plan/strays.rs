//! Strays that the kernel refused to delete.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp_proto::types::{Prefix, Time};

use super::refused::{RETRY_MAX, RETRY_MIN};
use super::shared::Shared;
use super::table::{Key, Table};

/// Strays to be deleted later. They share one wait, as they are refused for similar reasons.
/// Bounded by the routes that the kernel has.
#[derive(Debug)]
pub(super) struct RefusedStrays {
    /// Prefix, metric and TOS.
    strays: BTreeSet<(Prefix, u32, u8)>,
    /// The next wait.
    delay: Duration,
    due: Option<Time>,
}

impl Default for RefusedStrays {
    fn default() -> Self {
        RefusedStrays { strays: BTreeSet::new(), delay: RETRY_MIN, due: None }
    }
}

impl RefusedStrays {
    /// Adds a stray that the kernel refused to delete.
    pub(super) fn note(&mut self, stray: (Prefix, u32, u8), now: Time) {
        self.strays.insert(stray);
        if self.due.is_none() {
            self.due = Some(now + self.delay);
            self.delay = (self.delay * 2).min(RETRY_MAX);
        }
    }

    /// The kernel deleted a stray: the next wait is the shortest again.
    pub(super) fn forgive(&mut self) {
        self.delay = RETRY_MIN;
    }

    /// Removes and returns all of them if the retry is due.
    pub(super) fn take_due(&mut self, now: Time) -> BTreeSet<(Prefix, u32, u8)> {
        if self.due.is_none_or(|due| due > now) {
            return BTreeSet::new();
        }
        self.due = None;
        std::mem::take(&mut self.strays)
    }

    /// When the retry is due.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn is_empty(&self) -> bool {
        self.strays.is_empty()
    }
}

impl<K: Key> Table<K> {
    /// Retries the deletion of a stray. If it shares the place of the route that we keep, a dump
    /// has to show first whether it still exists.
    pub(super) fn retry_stray(&mut self, key: K, metric: u32, tos: u8, shared: &mut Shared) {
        let installed = self.entries.get(&key).and_then(|entry| entry.installed);
        let kept = installed.map(|id| shared.specs.get(id).metric);
        if tos == 0 && kept == Some(metric) {
            self.expect_stray(key, metric, tos);
            shared.resync_wanted = true;
        } else {
            self.superseded.insert((key, metric, tos));
        }
    }

    /// The next dump decides whether this stray still exists and is deleted.
    pub(super) fn expect_stray(&mut self, key: K, metric: u32, tos: u8) {
        self.superseded_before.insert((key, metric, tos));
    }
}
