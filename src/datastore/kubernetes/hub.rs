//! The state shared by the tasks of a source: the known objects, whether each kind can be read, and
//! what the consumer is sent as a result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::api::Trouble;
use super::known::{Deletion, Known, Listing};
use super::resource::Resource;
use crate::calico::Problem;
use crate::calico::model::{ApiObject, Decoded, ObjectId};
use crate::datastore::{Change, Event, Sender, State};

/// Maximum number of problems about unnamed objects, per kind.
const FAULTS_MAX: usize = 5;
/// Within this long all of Calico's CRDs are installed, one after the other.
const INSTALLING: Duration = Duration::from_secs(5);

/// The state of a source.
pub(super) struct Hub {
    sender: Sender,
    group: watch::Sender<OfGroup>,
    inner: Mutex<Inner>,
}

struct Inner {
    entries: BTreeMap<Resource, Entry>,
    /// `entries` has every resource that the source needs.
    is_complete: bool,
    /// The consumer was sent its first list.
    is_listed: bool,
    /// Why there is no connection.
    trouble: Option<Trouble>,
    /// Why the API group of Calico's objects is unknown.
    lost_group: Option<Trouble>,
    /// The server had none of Calico's kinds, and has none yet as far as is known.
    is_group_absent: bool,
    /// When the first of them was there after that.
    group_appeared: Option<Instant>,
    /// Problems that do not belong to one kind, by topic.
    notes: BTreeMap<&'static str, Problem>,
    state: Option<State>,
    problems: Vec<Problem>,
}

/// The state of a resource.
#[derive(Default)]
struct Entry {
    known: Known,
    standing: Standing,
    /// It has been listed.
    is_answered: bool,
    /// The first list of the source does not wait for it.
    is_excused: bool,
    faults: Vec<Problem>,
    problem: Option<Problem>,
}

/// Whether a resource can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not listed yet, or to be listed again.
    #[default]
    Waiting,
    /// Listed or watched: the known objects are current.
    InForce,
    /// The server does not have the kind (404).
    Missing,
    /// The server refuses access, and BGP does not depend on it.
    Refused,
    /// It cannot be read; `cause` is the label value in metrics.
    Failing { since: Instant, cause: &'static str, reason: Arc<str> },
}

impl Hub {
    pub(super) fn new(sender: Sender) -> Self {
        let inner = Inner {
            entries: BTreeMap::new(),
            is_complete: false,
            is_listed: false,
            trouble: None,
            lost_group: None,
            is_group_absent: false,
            group_appeared: None,
            notes: BTreeMap::new(),
            state: None,
            problems: Vec::new(),
        };
        let (group, _) = watch::channel(OfGroup::Unknown);
        Hub { sender, group, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No statement that can panic leaves the state inconsistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the consumer is dropped.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Sets the resources of the source; nothing is sent before all of them are listed.
    pub(super) fn expect(&self, resources: impl IntoIterator<Item = Resource>) {
        let mut inner = self.lock();
        for resource in resources {
            inner.entries.entry(resource).or_default();
        }
        inner.is_complete = true;
        inner.publish(&self.sender);
    }

    /// Removes all other resources, and withdraws their objects.
    pub(super) fn keep_only(&self, resources: &BTreeSet<Resource>) {
        let mut inner = self.lock();
        let gone: Vec<Resource> = inner
            .entries
            .keys()
            .filter(|resource| !resources.contains(resource))
            .cloned()
            .collect();
        for resource in gone {
            let Some(entry) = inner.entries.remove(&resource) else { continue };
            let changes = entry.known.objects().map(|object| Change::Withdraw(object.id)).collect();
            inner.tell(&self.sender, changes);
        }
        inner.publish(&self.sender);
    }

    /// Adds an object to a list that is being read.
    pub(super) fn list(&self, resource: &Resource, listing: &mut Listing, object: ApiObject) {
        if let Some(entry) = self.lock().entries.get(resource) {
            entry.known.list(listing, object);
        }
    }

    /// A list is complete: sends what differs. Returns the number of differences that a watch should
    /// have sent, if that was requested.
    pub(super) fn listed(
        &self,
        resource: &Resource,
        mut listing: Listing,
        deletion: Deletion,
    ) -> usize {
        let mut inner = self.lock();
        let faults = std::mem::take(&mut listing.faults);
        let entry = inner.entry(resource);
        entry.is_answered = true;
        let name = |fault| Problem::new(resource, format!("{fault}: it is skipped"));
        entry.faults = faults.into_iter().take(FAULTS_MAX).map(name).collect();
        let held = entry.known.held();
        let (missed, counts_gone) = (listing.missed(), listing.ends_where_watched);
        let changes = entry.known.apply(listing, deletion);
        let withdrawn = changes.iter().filter(|c| matches!(c, Change::Withdraw(_))).count();
        let gone = withdrawn + entry.known.held().saturating_sub(held);
        inner.tell(&self.sender, changes);
        inner.publish(&self.sender);
        missed + if counts_gone { gone } else { 0 }
    }

    /// An event contained an object: sends it if it differs.
    pub(super) fn put(&self, resource: &Resource, object: ApiObject) {
        let mut inner = self.lock();
        let change = inner.entry(resource).known.put(object);
        inner.tell(&self.sender, change.into_iter().collect());
    }

    /// An object was deleted.
    pub(super) fn delete(&self, resource: &Resource, id: &ObjectId, deletion: Deletion) {
        let mut inner = self.lock();
        let change = inner.entry(resource).known.delete(id, deletion);
        inner.tell(&self.sender, change.into_iter().collect());
    }

    /// Calls `ask` with the known objects of a resource.
    pub(super) fn with<T>(&self, resource: &Resource, ask: impl FnOnce(&mut Known) -> T) -> T {
        ask(&mut self.lock().entry(resource).known)
    }

    /// Sends the deletions that were held.
    pub(super) fn release(&self, resource: &Resource) {
        let mut inner = self.lock();
        let changes = inner.entry(resource).known.release();
        inner.tell(&self.sender, changes);
    }

    /// Sets whether a resource can be read. A failure that continues keeps its start time.
    pub(super) fn set_standing(&self, resource: &Resource, standing: Standing) {
        let mut inner = self.lock();
        let before = inner.of_group();
        let is_installing = inner.installing_until().is_some();
        let entry = inner.entry(resource);
        entry.standing = match (&entry.standing, standing) {
            // It may be the next to be installed.
            (_, Standing::Missing) if is_installing => Standing::Waiting,
            (Standing::Failing { since, .. }, Standing::Failing { cause, reason, .. }) => {
                Standing::Failing { since: *since, cause, reason }
            }
            (_, standing) => standing,
        };
        let of_group = inner.of_group();
        if of_group == OfGroup::InForce && before != OfGroup::InForce {
            inner.note_group();
            inner.forget_missing();
        }
        inner.is_group_absent |= of_group == OfGroup::Missing;
        inner.publish(&self.sender);
        self.group.send_if_modified(|known| std::mem::replace(known, of_group) != of_group);
    }

    /// Sets the problem of a resource that can be read or is not needed; `None`: there is none.
    pub(super) fn set_problem(&self, resource: &Resource, problem: Option<Problem>) {
        let mut inner = self.lock();
        inner.entry(resource).problem = problem;
        inner.publish(&self.sender);
    }

    /// The first list no longer waits for the resource.
    pub(super) fn excuse(&self, resource: &Resource) {
        let mut inner = self.lock();
        inner.entry(resource).is_excused = true;
        inner.publish(&self.sender);
    }

    /// The first list no longer waits for any resource.
    pub(super) fn excuse_all(&self) {
        let mut inner = self.lock();
        inner.entries.values_mut().for_each(|entry| entry.is_excused = true);
        inner.publish(&self.sender);
    }

    /// Sets the problem of a topic that is not one resource; `None`: there is none.
    pub(super) fn set_note(&self, about: &'static str, problem: Option<Problem>) {
        let mut inner = self.lock();
        match problem {
            Some(problem) => drop(inner.notes.insert(about, problem)),
            None => drop(inner.notes.remove(about)),
        }
        inner.publish(&self.sender);
    }

    /// Sets why there is no connection; `None`: there is one.
    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut inner = self.lock();
        inner.trouble = trouble;
        inner.publish(&self.sender);
    }

    /// Sets why the API group of Calico's objects is unknown; `None`: it is known.
    pub(super) fn set_lost_group(&self, reason: Option<String>) {
        let mut inner = self.lock();
        inner.lost_group = reason.map(|reason| {
            let since = inner.lost_group.as_ref().map_or_else(Instant::now, |lost| lost.since);
            Trouble { since, reason: reason.into() }
        });
        inner.publish(&self.sender);
    }

    /// The server says that it has neither of Calico's groups.
    pub(super) fn note_no_group(&self) {
        self.lock().is_group_absent = true;
    }

    /// The server says that it has one of them.
    pub(super) fn note_group(&self) {
        self.lock().note_group();
    }

    /// Until when a 404 of one of Calico's kinds says nothing, if it does so now: their CRDs are being
    /// installed.
    pub(super) fn installing_until(&self) -> Option<Instant> {
        self.lock().installing_until()
    }

    /// The server answered; `revision`: its version of the Nodes, for display.
    pub(super) fn heard(&self, revision: Option<i64>) {
        self.sender.heard(revision);
    }

    /// Whether Calico's essential kinds can be read.
    pub(super) fn of_group(&self) -> OfGroup {
        self.lock().of_group()
    }

    /// The same, notified on change.
    pub(super) fn watch_group(&self) -> watch::Receiver<OfGroup> {
        self.group.subscribe()
    }
}

/// Whether the essential kinds of Calico's group can be read, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfGroup {
    /// At least one is current.
    InForce,
    /// The server has none of them.
    Missing,
    /// Neither.
    Unknown,
}

impl Inner {
    fn entry(&mut self, resource: &Resource) -> &mut Entry {
        if !self.entries.contains_key(resource) {
            self.entries.insert(resource.clone(), Entry::default());
        }
        self.entries.get_mut(resource).expect("it was put there")
    }

    /// Sends changes, unless the first list, which will contain them, is still to be sent.
    fn tell(&mut self, sender: &Sender, changes: Vec<Change>) {
        if self.is_listed && !changes.is_empty() {
            sender.send(Event::Changed(changes));
        }
    }

    /// Sends the first list when it is complete, and problems and state if they have changed.
    fn publish(&mut self, sender: &Sender) {
        // In this order: the state becomes `Current` only after the first list has been sent.
        if !self.is_listed && self.may_list() {
            self.is_listed = true;
            let objects: BTreeMap<ObjectId, Decoded> = self
                .entries
                .values()
                .flat_map(|entry| entry.known.objects())
                .map(|object| (object.id.clone(), object))
                .collect();
            sender.send(Event::Listed(objects.into_values().collect()));
        }
        let problems = self.problems();
        if problems != self.problems {
            self.problems.clone_from(&problems);
            sender.send(Event::Problems(problems));
        }
        let state = self.state();
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state.clone());
            sender.send(Event::State(state));
        }
        sender.set_cause(self.cause());
    }

    /// One of Calico's kinds is there, or their group.
    fn note_group(&mut self) {
        if std::mem::take(&mut self.is_group_absent) {
            self.group_appeared = Some(Instant::now());
        }
    }

    fn installing_until(&self) -> Option<Instant> {
        let until = self.group_appeared? + INSTALLING;
        (Instant::now() < until).then_some(until)
    }

    /// The first of Calico's kinds has appeared. The 404 of the others may be out of date, because
    /// CRDs are installed one after the other: the first list waits until they have been requested
    /// again.
    fn forget_missing(&mut self) {
        if self.is_listed {
            return;
        }
        for (resource, entry) in &mut self.entries {
            if resource.is_calico() && entry.standing == Standing::Missing {
                entry.standing = Standing::Waiting;
            }
        }
    }

    fn of_group(&self) -> OfGroup {
        let calico = || self.entries.iter().filter(|(resource, _)| resource.is_essential());
        if calico().any(|(_, entry)| entry.standing == Standing::InForce) {
            OfGroup::InForce
        } else if calico().all(|(_, entry)| entry.standing == Standing::Missing) {
            OfGroup::Missing
        } else {
            OfGroup::Unknown
        }
    }

    /// Whether the server has at least one of Calico's essential kinds.
    fn has_group(&self) -> bool {
        self.of_group() == OfGroup::InForce
    }

    /// Whether the first list may be sent. A kind of Calico that the server does not have counts as
    /// empty if another one is there.
    fn may_list(&self) -> bool {
        let has_group = self.has_group();
        self.is_complete
            && self.entries.iter().all(|(resource, entry)| {
                let is_empty = resource.is_calico() && entry.standing == Standing::Missing;
                entry.is_answered || entry.is_excused || (is_empty && has_group)
            })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.notes.values().cloned().collect();
        for (resource, entry) in &self.entries {
            problems.extend(entry.problem.clone());
            problems.extend(entry.faults.iter().cloned());
            if entry.standing == Standing::Missing && entry.known.len() > 0 {
                let text = format!(
                    "the server does not have this kind any more (404): its {} objects stay in \
                     force; install Calico's CRDs again, or restart margay if it was removed for good",
                    entry.known.len()
                );
                problems.push(Problem::new(resource, text));
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Why [`Inner::state`] is `Away`, as a label value for metrics.
    fn cause(&self) -> Option<&'static str> {
        if self.trouble.is_some() {
            return Some("no-connection");
        }
        if self.lost_group.is_some() && !self.has_group() {
            return Some("no-api-group");
        }
        self.entries.values().find_map(|entry| match &entry.standing {
            Standing::Failing { cause, .. } => Some(*cause),
            _ => None,
        })
    }

    fn state(&self) -> State {
        let away = |trouble: &Trouble| State::Away {
            since: trouble.since.into_std(),
            reason: Arc::clone(&trouble.reason),
        };
        if let Some(trouble) = &self.trouble {
            return away(trouble);
        }
        if let Some(lost) = self.lost_group.as_ref().filter(|_| !self.has_group()) {
            return away(lost);
        }
        let mut failing = self.entries.iter().filter_map(|(resource, entry)| {
            let Standing::Failing { since, reason, .. } = &entry.standing else { return None };
            Some((resource, *since, reason))
        });
        if let Some((first, mut since, reason)) = failing.next() {
            let mut others = 0;
            for (_, of_other, _) in failing {
                since = since.min(of_other);
                others += 1;
            }
            let also = match others {
                0 => String::new(),
                1 => " (and 1 more kind)".to_owned(),
                n => format!(" (and {n} more kinds)"),
            };
            return State::Away {
                since: since.into_std(),
                reason: format!("cannot read {first}: {reason}{also}").into(),
            };
        }
        if self.is_listed { State::Current } else { State::Connecting }
    }
}
