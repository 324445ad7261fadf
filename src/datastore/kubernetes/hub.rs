//! What the tasks of a source have in common: what is known, how each kind is reached, and what
//! follows from both for the consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::api::Trouble;
use super::known::{Deletion, Known, Listing};
use super::resource::Resource;
use crate::calico::Problem;
use crate::calico::model::{ApiObject, Decoded, ObjectId};
use crate::datastore::{Change, Event, Sender, State};

/// Most objects without a name that are named as problems, of each kind.
const FAULTS_MAX: usize = 5;

/// The state of a source.
pub(super) struct Hub {
    sender: Sender,
    group: watch::Sender<OfGroup>,
    inner: Mutex<Inner>,
}

struct Inner {
    entries: BTreeMap<Resource, Entry>,
    /// The source knows all that it has to ask for.
    is_complete: bool,
    is_listed: bool,
    /// Why there is no connection.
    trouble: Option<Trouble>,
    /// Why it is not known where Calico's objects are.
    lost_group: Option<Trouble>,
    /// Problems that are not those of one kind, by what they concern.
    notes: BTreeMap<&'static str, Problem>,
    state: Option<State>,
    problems: Vec<Problem>,
}

/// A kind.
#[derive(Default)]
struct Entry {
    known: Known,
    standing: Standing,
    /// It was listed once.
    is_answered: bool,
    /// Nothing waits for its first list any more.
    is_excused: bool,
    faults: Vec<Problem>,
    problem: Option<Problem>,
}

/// How a kind is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not yet, or not again.
    #[default]
    Waiting,
    /// What is known of it is in force.
    InForce,
    /// The server does not have it.
    Missing,
    /// The server does not give it to us, and nothing else depends on it.
    Refused,
    /// It cannot be read.
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
            notes: BTreeMap::new(),
            state: None,
            problems: Vec::new(),
        };
        let (group, _) = watch::channel(OfGroup::Unknown);
        Hub { sender, group, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is known is whole between any two statements that can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the consumer is dropped.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Says what the source is made of; nothing is sent before all of it was listed.
    pub(super) fn expect(&self, resources: impl IntoIterator<Item = Resource>) {
        let mut inner = self.lock();
        for resource in resources {
            inner.entries.entry(resource).or_default();
        }
        inner.is_complete = true;
        inner.publish(&self.sender);
    }

    /// Takes all other resources out, with their objects.
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

    /// Takes an object into a list.
    pub(super) fn list(&self, resource: &Resource, listing: &mut Listing, object: ApiObject) {
        if let Some(entry) = self.lock().entries.get(resource) {
            entry.known.list(listing, object);
        }
    }

    /// A list is complete; how much of it is new.
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
        let changes = entry.known.apply(listing, deletion);
        let count = changes.len() + entry.known.held().saturating_sub(held);
        inner.tell(&self.sender, changes);
        inner.publish(&self.sender);
        count
    }

    /// An object is new or different.
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

    /// Asks what is known of a resource.
    pub(super) fn with<T>(&self, resource: &Resource, ask: impl FnOnce(&mut Known) -> T) -> T {
        ask(&mut self.lock().entry(resource).known)
    }

    /// The deletions that were held are certain.
    pub(super) fn release(&self, resource: &Resource) {
        let mut inner = self.lock();
        let changes = inner.entry(resource).known.release();
        inner.tell(&self.sender, changes);
    }

    /// Says how a resource is reached.
    pub(super) fn set_standing(&self, resource: &Resource, standing: Standing) {
        let mut inner = self.lock();
        let before = inner.of_group();
        let entry = inner.entry(resource);
        entry.standing = match (&entry.standing, standing) {
            (Standing::Failing { since, .. }, Standing::Failing { cause, reason, .. }) => {
                Standing::Failing { since: *since, cause, reason }
            }
            (_, standing) => standing,
        };
        let of_group = inner.of_group();
        if of_group == OfGroup::InForce && before != OfGroup::InForce {
            inner.forget_missing();
        }
        inner.publish(&self.sender);
        self.group.send_if_modified(|known| std::mem::replace(known, of_group) != of_group);
    }

    /// Says what is wrong with a resource though nothing is failing; `None`: nothing.
    pub(super) fn set_problem(&self, resource: &Resource, problem: Option<Problem>) {
        let mut inner = self.lock();
        inner.entry(resource).problem = problem;
        inner.publish(&self.sender);
    }

    /// Nothing waits for the resource any more.
    pub(super) fn excuse(&self, resource: &Resource) {
        let mut inner = self.lock();
        inner.entry(resource).is_excused = true;
        inner.publish(&self.sender);
    }

    /// Nothing waits for any resource any more.
    pub(super) fn excuse_all(&self) {
        let mut inner = self.lock();
        inner.entries.values_mut().for_each(|entry| entry.is_excused = true);
        inner.publish(&self.sender);
    }

    /// Says what is wrong in general; `None`: nothing any more.
    pub(super) fn set_note(&self, about: &'static str, problem: Option<Problem>) {
        let mut inner = self.lock();
        match problem {
            Some(problem) => drop(inner.notes.insert(about, problem)),
            None => drop(inner.notes.remove(about)),
        }
        inner.publish(&self.sender);
    }

    /// Why there is no connection.
    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut inner = self.lock();
        inner.trouble = trouble;
        inner.publish(&self.sender);
    }

    /// Why it is not known where Calico's objects are.
    pub(super) fn set_lost_group(&self, reason: Option<String>) {
        let mut inner = self.lock();
        inner.lost_group = reason.map(|reason| {
            let since = inner.lost_group.as_ref().map_or_else(Instant::now, |lost| lost.since);
            Trouble { since, reason: reason.into() }
        });
        inner.publish(&self.sender);
    }

    /// The server answered; `revision`: its version of the Nodes, for display.
    pub(super) fn heard(&self, revision: Option<i64>) {
        self.sender.heard(revision);
    }

    /// How Calico's kinds are reached, of those that count.
    pub(super) fn of_group(&self) -> OfGroup {
        self.lock().of_group()
    }

    /// The same whenever it changes.
    pub(super) fn watch_group(&self) -> watch::Receiver<OfGroup> {
        self.group.subscribe()
    }
}

/// How the kinds of Calico's group are reached as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfGroup {
    /// One at least is in force.
    InForce,
    /// The server has none of them.
    Missing,
    Unknown,
}

impl Inner {
    fn entry(&mut self, resource: &Resource) -> &mut Entry {
        if !self.entries.contains_key(resource) {
            self.entries.insert(resource.clone(), Entry::default());
        }
        self.entries.get_mut(resource).expect("it was put there")
    }

    /// Sends changes, unless they are part of the list that is still to be sent.
    fn tell(&mut self, sender: &Sender, changes: Vec<Change>) {
        if self.is_listed && !changes.is_empty() {
            sender.send(Event::Changed(changes));
        }
    }

    /// Tells what follows from how the kinds are reached.
    fn publish(&mut self, sender: &Sender) {
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

    /// The first of Calico's kinds is there: what the others were a while ago says nothing, and the first
    /// list waits until they have been asked for again.
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

    /// Whether the server has one of Calico's kinds at least.
    fn has_group(&self) -> bool {
        let mut calico = self.entries.iter().filter(|(resource, _)| resource.is_essential());
        calico.any(|(_, entry)| entry.standing == Standing::InForce)
    }

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

    /// Why [`Inner::state`] is away, in a word for metrics.
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
