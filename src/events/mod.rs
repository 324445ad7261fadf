//! The most recent events: what `margay events` and `margay show peer` print.
//!
//! An event is a log line that has an `event` field, whose value is one of [`crate::event_names`].
//! [`layer()`] takes it from `tracing`, so that the log and the events cannot differ; the level of
//! the log does not matter. Events are changes of state, never single routes.
//!
//! The memory is bounded: [`EVENTS_MAX`] events of [`OCTETS_MAX`] octets in all, of which one peer
//! holds at most [`PER_PEER_MAX`], and in addition the last [`PER_PEER_LAST`] events of each peer
//! ([`last`]). Who records an event takes a mutex for the time of one insertion and never waits for
//! a reader: a reader that is too slow learns how many events it missed.

mod entry;
mod last;
mod layer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::event_names;

pub use entry::{Entry, Level};
use last::LastOfPeers;
pub use layer::{EventLayer, layer};

/// Maximum number of events that are kept.
pub const EVENTS_MAX: usize = 1000;
/// Maximum number of these that concern one peer, so that one that flaps leaves room for others.
const PER_PEER_MAX: usize = 250;
/// Maximum memory of these, in octets.
const OCTETS_MAX: usize = 1 << 20;
/// Number of events that are kept for each peer.
pub const PER_PEER_LAST: usize = 10;

/// The recent events. Clones share them.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
    /// Messages of peers that are debugged: there are too many of them to be kept with events.
    messages: Arc<Shared>,
}

struct Shared {
    ring: Mutex<Ring>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

/// Kept events, oldest first.
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    octets: usize,
    /// The number of the last event; the first one has 1.
    last: u64,
    of_peers: LastOfPeers,
    /// How often each of [`event_names::ALL`] occurred.
    counts: [u64; event_names::ALL.len()],
}

/// Events that follow a given one.
#[derive(Debug, Default)]
pub struct Following {
    /// The events, oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// How many events, of all peers, were overwritten since the reader began and before these could
    /// be read.
    pub dropped: u64,
    /// The number of the last event that was considered.
    pub until: u64,
}

impl Default for Events {
    fn default() -> Self {
        let shared = || Arc::new(Shared { ring: Mutex::default(), last: watch::Sender::new(0) });
        Events { shared: shared(), messages: shared() }
    }
}

impl Events {
    /// Adds an event. Its number is assigned here.
    pub fn record(&self, entry: Entry) {
        if [event_names::MESSAGE_RECEIVED, event_names::MESSAGE_SENT].contains(&&*entry.name) {
            self.ring().count(&entry.name);
            return self.messages().add(entry);
        }
        self.add(entry);
    }

    fn add(&self, entry: Entry) {
        let last = self.ring().push(entry);
        self.shared.last.send_replace(last);
    }

    /// The messages of peers that are debugged, with the same bounds.
    #[must_use]
    pub fn messages(&self) -> Events {
        Events { shared: Arc::clone(&self.messages), messages: Arc::clone(&self.messages) }
    }

    /// At most `max` events after the event with number `after`; with `peer`, only those that
    /// concern this peer. `after` 0: from the oldest one on. `began` is [`Events::last`] of the time
    /// when the reader began: an event that was overwritten before is not one that it missed.
    pub fn after(&self, after: u64, began: u64, max: usize, peer: Option<&str>) -> Following {
        self.ring().after(after, began, max, peer)
    }

    /// The number of the last event; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.ring().last
    }

    /// The number after which there are exactly `count` events, or fewer if fewer are kept; with
    /// `peer`, only those that concern this peer count.
    pub fn before_last(&self, count: usize, peer: Option<&str>) -> u64 {
        let ring = self.ring();
        let concerned = ring.entries.iter().rev().filter(|entry| entry.concerns(peer));
        match count {
            0 => ring.last,
            _ => concerned.take(count).last().map_or(ring.last, |entry| entry.number - 1),
        }
    }

    /// The last [`PER_PEER_LAST`] events of a peer, oldest first.
    pub fn of_peer(&self, peer: &str) -> Vec<Arc<Entry>> {
        self.ring().of_peers.get(peer)
    }

    /// How often each event occurred since the start.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.ring().counts;
        event_names::ALL.iter().zip(counts).map(|((name, _), count)| (*name, count)).collect()
    }

    /// Waits until there is an event after the one with number `after`.
    pub async fn changed(&self, after: u64) {
        let mut last = self.shared.last.subscribe();
        // The sender lives as long as `self`.
        let _ = last.wait_for(|last| *last > after).await;
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ring {
    fn default() -> Self {
        Ring {
            entries: VecDeque::new(),
            octets: 0,
            last: 0,
            of_peers: LastOfPeers::default(),
            counts: [0; event_names::ALL.len()],
        }
    }
}

impl Ring {
    /// Returns the number of the event.
    fn push(&mut self, mut entry: Entry) -> u64 {
        self.last += 1;
        entry.number = self.last;
        self.count(&entry.name);
        let entry = Arc::new(entry);
        if let Some(peer) = &entry.peer {
            self.of_peers.push(peer, &entry);
            self.make_room_within(peer);
        }
        self.octets += entry.octets();
        self.entries.push_back(entry);
        while self.entries.len() > EVENTS_MAX || self.octets > OCTETS_MAX {
            self.remove(0);
        }
        self.last
    }

    fn count(&mut self, name: &str) {
        if let Some(at) = event_names::ALL.iter().position(|(own, _)| *own == name)
            && let Some(count) = self.counts.get_mut(at)
        {
            *count += 1;
        }
    }

    /// Removes the oldest event of a peer that has its share.
    fn make_room_within(&mut self, peer: &str) {
        let is_own = |entry: &&Arc<Entry>| entry.peer.as_deref() == Some(peer);
        if self.entries.iter().filter(is_own).count() >= PER_PEER_MAX
            && let Some(oldest) = self.entries.iter().position(|entry| is_own(&entry))
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.octets -= entry.octets();
        }
    }

    fn after(&self, after: u64, began: u64, max: usize, peer: Option<&str>) -> Following {
        let counted = after.max(began);
        let mut following = Following { until: after, ..Following::default() };
        let mut present = 0;
        for entry in self.entries.iter().filter(|entry| entry.number > after) {
            if following.entries.len() == max {
                break;
            }
            present += u64::from(entry.number > counted);
            following.until = entry.number;
            following.entries.extend(entry.concerns(peer).then(|| Arc::clone(entry)));
        }
        // The newest event is always kept, so `until` is the last number unless `max` ended it.
        following.dropped = following.until.saturating_sub(counted).saturating_sub(present);
        following
    }
}

#[cfg(test)]
mod tests;
