//! What a source has sent and its consumer has not yet read.
//!
//! This is not a queue of events: changes of one object overwrite each other, and changes after an
//! unread list become part of that list. A consumer that falls behind therefore finds the current
//! state, and memory is bounded by the number of objects.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::{Change, Event, State};
use crate::calico::Problem;
use crate::calico::model::{Decoded, ObjectId};
use crate::liveness::Liveness;

/// Maximum number of changes in one event, so that its consumer can do other work in between.
pub(super) const CHANGES_MAX: usize = 4096;

/// Creates a sender and its receiver.
pub fn outbox() -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end held by the source. Sending never blocks: unread changes are merged.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// The end held by the consumer.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Notified when something is pending, or the sender is dropped.
    filled: Notify,
    /// Notified when the receiver is dropped.
    dropped: Notify,
    liveness: Liveness,
}

/// Observes a source: whether its task is alive, and how far its consumer has read.
#[derive(Clone, Debug)]
pub struct Watcher(Arc<Shared>);

/// The progress of a source and its consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// When the source last answered, even without changes; `None`: not yet, or a source of its
    /// kind is never asked.
    pub heard: Option<Instant>,
    /// The newest revision of which the source has sent all changes; `None`: it has no revisions.
    pub told: Option<i64>,
    /// The newest revision up to which the consumer has read everything.
    pub taken: Option<i64>,
    /// Why the source cannot be read, as a word for metrics; `None`: it can be read, or does not
    /// give a cause.
    pub cause: Option<&'static str>,
}

impl Watcher {
    /// The liveness of the source's task.
    pub fn liveness(&self) -> &Liveness {
        &self.0.liveness
    }

    /// The progress of the source and its consumer.
    pub fn followed(&self) -> Followed {
        self.0.lock().followed
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // No statement that can panic leaves `Pending` half updated, so poisoning is harmless.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Sends an event.
    pub fn send(&self, event: Event) {
        self.0.lock().push(event);
        self.0.filled.notify_one();
    }

    /// Records an answer of the source. `revision` is its current one; every change up to it must
    /// have been sent.
    pub fn heard(&self, revision: Option<i64>) {
        let mut pending = self.0.lock();
        pending.followed.heard = Some(Instant::now());
        // May decrease, as a restored backup has lower revisions.
        pending.followed.told = revision.or(pending.followed.told);
        pending.note_taken();
    }

    /// Sets why the source cannot be read, as a word for metrics; `None`: it can be read.
    pub fn set_cause(&self, cause: Option<&'static str>) {
        self.0.lock().followed.cause = cause;
    }

    /// The liveness of the source's task.
    pub fn liveness(&self) -> &Liveness {
        &self.0.liveness
    }

    /// Whether the receiver was dropped.
    pub fn is_closed(&self) -> bool {
        self.0.lock().receiver == End::Dropped
    }

    /// Returns when the receiver is dropped.
    pub async fn closed(&self) {
        while !self.is_closed() {
            self.0.dropped.notified().await;
        }
    }
}

impl Receiver {
    /// An observer of the source.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.0))
    }

    /// The next event; `None` when the source has ended, which it never does by itself.
    /// Cancel-safe: dropping the future loses nothing.
    ///
    /// Objects come before the state: when [`State::Current`] is received, all objects sent before
    /// it have been received.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            {
                let mut pending = self.0.lock();
                if let Some(event) = pending.pop() {
                    return Some(event);
                }
                if pending.sender == End::Dropped {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next event, if one is pending.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.0.lock().pop()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().sender = End::Dropped;
        self.0.filled.notify_one();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.lock().receiver = End::Dropped;
        self.0.dropped.notify_one();
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Held,
    Dropped,
}

/// What was sent but not read yet.
#[derive(Debug, Default)]
struct Pending {
    sender: End,
    receiver: End,
    listed: Option<BTreeMap<ObjectId, Decoded>>,
    changes: Changes,
    problems: Option<Vec<Problem>>,
    state: Option<State>,
    followed: Followed,
}

impl Pending {
    /// With no object pending, everything sent has been taken.
    fn note_taken(&mut self) {
        if self.listed.is_none() && self.changes.by_place.is_empty() {
            self.followed.taken = self.followed.told;
        }
    }

    fn push(&mut self, event: Event) {
        match event {
            Event::Listed(objects) => {
                self.changes = Changes::default();
                self.listed = Some(objects.into_iter().map(|o| (o.id.clone(), o)).collect());
            }
            Event::Changed(changes) => {
                changes.into_iter().for_each(|change| self.push_change(change));
            }
            Event::Problems(problems) => self.problems = Some(problems),
            Event::State(state) => self.state = Some(state),
        }
    }

    fn push_change(&mut self, change: Change) {
        let Some(listed) = &mut self.listed else {
            self.changes.push(change);
            return;
        };
        match change {
            // The readable object in the list is the state to keep.
            Change::Put(decoded)
                if decoded.object.is_err()
                    && listed.get(&decoded.id).is_some_and(|old| old.object.is_ok()) =>
            {
                self.changes.push(Change::Put(decoded));
            }
            Change::Put(decoded) => {
                self.changes.withdraw(&decoded.id);
                listed.insert(decoded.id.clone(), decoded);
            }
            Change::Withdraw(id) => {
                self.changes.withdraw(&id);
                listed.remove(&id);
            }
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.pop_event();
        self.note_taken();
        event
    }

    fn pop_event(&mut self) -> Option<Event> {
        if let Some(objects) = self.listed.take() {
            return Some(Event::Listed(objects.into_values().collect()));
        }
        let changes = self.changes.take(CHANGES_MAX);
        if !changes.is_empty() {
            return Some(Event::Changed(changes));
        }
        if let Some(problems) = self.problems.take() {
            return Some(Event::Problems(problems));
        }
        self.state.take().map(Event::State)
    }
}

/// Changes, with those of each object merged at the position of the last one.
#[derive(Debug, Default)]
struct Changes {
    /// By place, in order. Places are never reused.
    by_place: BTreeMap<u64, Change>,
    places: HashMap<ObjectId, Places>,
    next: u64,
}

/// The places of the changes of one object.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    /// The last change that sets its state.
    decisive: Option<u64>,
    /// A later one that cannot be read.
    unreadable: Option<u64>,
}

impl Changes {
    fn push(&mut self, change: Change) {
        let place = self.next;
        self.next += 1;
        let places = self.places.entry(change.id().clone()).or_default();
        if let Some(old) = places.unreadable.take() {
            self.by_place.remove(&old);
        }
        let is_readable = !matches!(&change, Change::Put(decoded) if decoded.object.is_err());
        if is_readable {
            if let Some(old) = places.decisive.replace(place) {
                self.by_place.remove(&old);
            }
        } else {
            places.unreadable = Some(place);
        }
        self.by_place.insert(place, change);
    }

    /// Removes the changes of an object.
    fn withdraw(&mut self, id: &ObjectId) {
        if let Some(places) = self.places.remove(id) {
            for place in [places.decisive, places.unreadable].into_iter().flatten() {
                self.by_place.remove(&place);
            }
        }
    }

    /// Removes and returns the first changes.
    fn take(&mut self, count: usize) -> Vec<Change> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some((place, change)) = self.by_place.pop_first()
        {
            if let Some(places) = self.places.get_mut(change.id()) {
                places.decisive = places.decisive.filter(|p| *p != place);
                places.unreadable = places.unreadable.filter(|p| *p != place);
                if places.decisive.is_none() && places.unreadable.is_none() {
                    self.places.remove(change.id());
                }
            }
            taken.push(change);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::calico::model::decode;

    /// A BGPPeer; version 0 cannot be read.
    fn object(name: u8, version: u8) -> Decoded {
        let spec = match version {
            0 => json!({"asNumber": "no number"}),
            number => json!({"asNumber": number}),
        };
        let value = json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": format!("p{name}")}, "spec": spec});
        let decoded = decode(value).unwrap().unwrap();
        assert_eq!(decoded.object.is_err(), version == 0);
        decoded
    }

    fn put(name: u8, version: u8) -> Change {
        Change::Put(object(name, version))
    }

    fn withdraw(name: u8) -> Change {
        Change::Withdraw(object(name, 1).id)
    }

    /// What a consumer knows: the state in force, and a later one that cannot be read.
    #[derive(Debug, Default, PartialEq)]
    struct Known(BTreeMap<ObjectId, (Option<Decoded>, Option<Decoded>)>);

    impl Known {
        fn take(&mut self, change: Change) {
            match change {
                Change::Withdraw(id) => drop(self.0.remove(&id)),
                Change::Put(d) if d.object.is_err() => {
                    let known = self.0.entry(d.id.clone()).or_default();
                    known.1 = Some(d);
                }
                Change::Put(d) => drop(self.0.insert(d.id.clone(), (Some(d), None))),
            }
        }

        fn take_event(&mut self, event: Event) {
            match event {
                Event::Listed(objects) => {
                    self.0.clear();
                    objects.into_iter().for_each(|o| self.take(Change::Put(o)));
                }
                Event::Changed(changes) => changes.into_iter().for_each(|c| self.take(c)),
                Event::Problems(_) | Event::State(_) => {}
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Withdraw(u8),
        Read,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..4, 0u8..4).prop_map(|(name, version)| Step::Put(name, version)),
            2 => (0u8..4).prop_map(Step::Withdraw),
            1 => Just(Step::Read),
        ]
    }

    proptest! {
        /// Whatever is merged and whenever it is read, the consumer ends with the state it would
        /// have after reading every event.
        #[test]
        fn merging_changes_nothing_about_the_result(
            list in prop::collection::vec((0u8..4, 0u8..4), 0..4),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let (sender, mut receiver) = outbox();
            let (mut slow, mut model) = (Known::default(), Known::default());
            let first: BTreeMap<u8, u8> = list.into_iter().collect();
            let first: Vec<Decoded> = first.into_iter().map(|(n, v)| object(n, v)).collect();
            model.take_event(Event::Listed(first.clone()));
            sender.send(Event::Listed(first));
            for step in steps {
                match step {
                    Step::Put(name, version) => {
                        model.take(put(name, version));
                        sender.send(Event::Changed(vec![put(name, version)]));
                    }
                    Step::Withdraw(name) => {
                        model.take(withdraw(name));
                        sender.send(Event::Changed(vec![withdraw(name)]));
                    }
                    Step::Read => receiver.try_recv().into_iter().for_each(|e| slow.take_event(e)),
                }
                // Four objects with at most two changes each.
                prop_assert!(sender.0.lock().changes.by_place.len() <= 8);
            }
            while let Some(event) = receiver.try_recv() {
                slow.take_event(event);
            }
            prop_assert_eq!(slow, model);
        }
    }

    #[test]
    fn a_thousand_changes_of_one_object_are_held_as_one() {
        let (sender, mut receiver) = outbox();
        for round in 0..1000u32 {
            let version = 1 + (round % 200) as u8;
            sender.send(Event::Changed(vec![put(1, version), put(2, version)]));
        }
        sender.send(Event::Changed(vec![withdraw(1)]));
        assert_eq!(receiver.try_recv(), Some(Event::Changed(vec![put(2, 200), withdraw(1)])));
        assert_eq!(receiver.try_recv(), None);
        let pending = sender.0.lock();
        assert!(pending.changes.by_place.is_empty() && pending.changes.places.is_empty());
    }

    #[test]
    fn many_changes_are_received_in_portions_and_the_state_after_them() {
        let (sender, mut receiver) = outbox();
        let many: Vec<Change> = (0..CHANGES_MAX + 1)
            .map(|n| {
                Change::Withdraw(ObjectId::new(crate::calico::model::Kind::Node, n.to_string()))
            })
            .collect();
        sender.send(Event::State(State::Current));
        sender.send(Event::Changed(many.clone()));
        let (first, rest) = many.split_at(CHANGES_MAX);
        assert_eq!(receiver.try_recv(), Some(Event::Changed(first.to_vec())));
        assert_eq!(receiver.try_recv(), Some(Event::Changed(rest.to_vec())));
        let state = Event::State(State::Current);
        assert_eq!(receiver.try_recv(), Some(state));
    }

    #[test]
    fn the_consumer_lags_until_it_has_taken_everything() {
        let (sender, mut receiver) = outbox();
        let watcher = receiver.watcher();
        assert_eq!(watcher.followed(), Followed::default());
        sender.heard(Some(10));
        let revisions = || (watcher.followed().told, watcher.followed().taken);
        assert_eq!(revisions(), (Some(10), Some(10)), "nothing waits");
        sender.send(Event::Changed(vec![put(1, 1)]));
        sender.heard(Some(12));
        assert_eq!(revisions(), (Some(12), Some(10)));
        receiver.try_recv();
        assert_eq!(revisions(), (Some(12), Some(12)));
        // Restored from a backup: lower revisions do not make the consumer lag.
        sender.heard(Some(3));
        assert_eq!(revisions(), (Some(3), Some(3)));
        assert!(watcher.followed().heard.is_some());
    }

    #[tokio::test]
    async fn each_end_notices_that_the_other_was_dropped() {
        let (sender, mut receiver) = outbox();
        sender.send(Event::Problems(Vec::new()));
        drop(sender);
        assert_eq!(receiver.recv().await, Some(Event::Problems(Vec::new())));
        assert_eq!(receiver.recv().await, None);
        let (sender, receiver) = outbox();
        let waiting = tokio::spawn(async move { sender.closed().await });
        tokio::task::yield_now().await;
        drop(receiver);
        waiting.await.unwrap();
    }
}
