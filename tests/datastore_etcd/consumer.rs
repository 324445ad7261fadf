//! A consumer of the source, with the objects that it has received.

use std::collections::BTreeMap;
use std::time::Duration;

use margay::calico::Problem;
use margay::calico::model::{Decoded, Object, ObjectId};
use margay::datastore::{Change, EtcdConfig, Event, Receiver, Source, State, start};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::etcd::PATIENCE;

pub(crate) struct Consumer {
    pub(crate) receiver: Receiver,
    pub(crate) task: JoinHandle<()>,
    pub(crate) known: BTreeMap<ObjectId, Object>,
    pub(crate) faults: BTreeMap<ObjectId, String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) state: State,
    /// All states received.
    pub(crate) states: Vec<State>,
    pub(crate) lists: usize,
    pub(crate) changes: usize,
}

impl Consumer {
    pub(crate) fn start(config: EtcdConfig) -> Consumer {
        let (receiver, task) = start(Source::Etcd(config));
        Consumer {
            receiver,
            task,
            known: BTreeMap::new(),
            faults: BTreeMap::new(),
            problems: Vec::new(),
            state: State::Connecting,
            states: Vec::new(),
            lists: 0,
            changes: 0,
        }
    }

    /// A consumer that has received its list.
    pub(crate) async fn current(config: EtcdConfig) -> Consumer {
        let mut consumer = Consumer::start(config);
        consumer.until("the first list", Consumer::is_current).await;
        consumer
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Listed(objects) => {
                self.lists += 1;
                objects.into_iter().for_each(|object| self.put(object));
            }
            Event::Changed(changes) => {
                self.changes += changes.len();
                for change in changes {
                    match change {
                        Change::Put(object) => self.put(object),
                        Change::Withdraw(id) => {
                            self.known.remove(&id);
                            self.faults.remove(&id);
                        }
                    }
                }
            }
            Event::Problems(problems) => self.problems = problems,
            Event::State(state) => {
                self.state = state.clone();
                self.states.push(state);
            }
        }
    }

    fn put(&mut self, Decoded { id, object }: Decoded) {
        match object {
            Ok(object) => {
                self.faults.remove(&id);
                match object {
                    Some(object) => drop(self.known.insert(id, object)),
                    None => drop(self.known.remove(&id)),
                }
            }
            // The previous state stays in force.
            Err(fault) => drop(self.faults.insert(id, fault.to_string())),
        }
    }

    /// Reads events until a condition holds; panics after a timeout.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Consumer) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            match timeout_at(end, self.receiver.recv()).await {
                Ok(Some(event)) => self.take(event),
                Ok(None) => panic!("{what}: the source ended"),
                Err(_) => panic!(
                    "{what}: not in time; {:?}, {} known, {} faults",
                    self.state,
                    self.known.len(),
                    self.faults.len()
                ),
            }
        }
    }

    /// Reads events for a time.
    pub(crate) async fn read_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(event) = timeout_at(end, self.receiver.recv()).await {
            self.take(event.unwrap());
        }
    }

    pub(crate) fn is_current(&self) -> bool {
        matches!(self.state, State::Current)
    }

    pub(crate) fn is_away(&self) -> bool {
        matches!(self.state, State::Away { .. })
    }

    pub(crate) fn reason(&self) -> &str {
        match &self.state {
            State::Away { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Kinds and names of the known objects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.known.keys().map(ToString::to_string).collect()
    }

    /// Reads events until the known objects equal those of a new consumer.
    pub(crate) async fn until_as_fresh(&mut self, config: EtcdConfig) {
        self.until("current", Consumer::is_current).await;
        let fresh = Consumer::current(config).await;
        self.until("as a fresh start", |c| c.known == fresh.known).await;
    }
}
