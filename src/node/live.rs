//! Objects as they change, to configurations.
//!
//! One task reads all sources. Nothing is worked out before each of them was listed once; from then
//! on what comes close together is worked out together, and working out takes at most a tenth of a
//! core. What the daemon has not taken yet makes the task wait, while the sources merge what comes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::NodeSettings;
use super::settings::describe;
use crate::calico::config::Converter;
use crate::calico::model::Decoded;
use crate::calico::{Problem, Resolver, Settings};
use crate::config::{CalicoLimits, Config, HostSettings, PeerEntry, differing_peers};
use crate::datastore::{self, Change, Event, Receiver, State, Watcher};
use crate::pulse::Pulse;
use crate::supervise::{self, Ending};

/// Least time between two plans.
const PLAN_INTERVAL: Duration = Duration::from_millis(50);
/// Working out takes at most one part in so many of the time.
const PLAN_SHARE: u32 = 10;

/// A configuration that follows from the objects and differs from the one before.
#[derive(Debug)]
pub struct Update {
    /// What is to run.
    pub config: Arc<Config>,
    /// Who was a neighbour and is none now although a node with that address still exists, sorted:
    /// such sessions end once others carry their routes. A deleted node is not among them; when that
    /// is all that is new, the configuration is the one before.
    pub parted: Vec<IpAddr>,
}

/// What the node knows about its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// The sources, in the order of the settings.
    pub sources: Vec<SourceStatus>,
    /// Objects, or parts of them, that cannot be used; sorted.
    pub problems: Arc<[Problem]>,
    /// Whether a plan is in force. Until the first one nothing is decided.
    pub in_force: bool,
    /// Plans worked out so far.
    pub plans: u64,
    /// CPU-bound time that this took in all.
    pub planning: Duration,
}

/// A source, and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceStatus {
    /// In a few words.
    pub name: String,
    /// Whether it was listed once.
    pub listed: bool,
    /// How it is reached.
    pub state: State,
}

impl NodeStatus {
    /// What is missing before a first plan can be in force, in one line; `None` if nothing is.
    pub fn waiting_for(&self) -> Option<String> {
        if self.in_force {
            return None;
        }
        let missing = self.sources.iter().filter(|source| !source.listed);
        let missing: Vec<String> = missing
            .map(|source| match &source.state {
                State::Away { reason, .. } => format!("{}: {reason}", source.name),
                _ => source.name.clone(),
            })
            .collect();
        Some(match missing.as_slice() {
            [] => match self.problems.iter().find(|p| p.object == format!("Node/{}", self.node)) {
                Some(problem) => format!("{}: {}", problem.object, problem.text),
                None => format!("waiting for a plan of node {}", self.node),
            },
            missing => format!("waiting for objects from {}", missing.join("; ")),
        })
    }
}

/// The way to the task.
pub struct Follower {
    /// New configurations, in order; the first one when everything is known.
    pub updates: mpsc::Receiver<Update>,
    /// The newest state.
    pub status: watch::Receiver<Arc<NodeStatus>>,
    /// Whether everything that follows objects still turns.
    pub vitals: Vitals,
    task: JoinHandle<()>,
}

/// The pulses of what follows objects.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Of the task that works out configurations.
    pub plan: Pulse,
    /// The sources by name, in the order of the settings.
    pub sources: Vec<(String, Watcher)>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the sources in a task of its own, on the multi-threaded runtime that this is called in.
pub fn follow(settings: &NodeSettings) -> Follower {
    let feeds = settings.sources.iter().map(|source| {
        // The task ends with its receiver.
        let (receiver, _) = datastore::start(source.clone());
        (describe(source), receiver)
    });
    let NodeSettings { calico, limits, host, .. } = settings;
    follow_feeds(calico.clone(), *limits, host.clone(), feeds.collect())
}

fn follow_feeds(
    settings: Settings,
    limits: CalicoLimits,
    host: HostSettings,
    feeds: Vec<(String, Receiver)>,
) -> Follower {
    let vitals = Vitals {
        plan: Pulse::default(),
        sources: feeds.iter().map(|(name, feed)| (name.clone(), feed.watcher())).collect(),
    };
    let feeds = feeds.into_iter().map(|(name, receiver)| Feed {
        receiver,
        status: SourceStatus { name, listed: false, state: State::Connecting },
        problems: Vec::new(),
    });
    let feeds = feeds.collect();
    let status = Arc::new(NodeStatus {
        node: settings.node.clone(),
        sources: Vec::new(),
        problems: Arc::from([]),
        in_force: false,
        plans: 0,
        planning: Duration::ZERO,
    });
    let (updates, updates_inbox) = mpsc::channel(1);
    let (status_sender, status_inbox) = watch::channel(Arc::clone(&status));
    let live = Live {
        host,
        feeds,
        resolver: Resolver::new(settings),
        converter: Converter::new(limits),
        dirty: false,
        of_plan: Vec::new(),
        current: None,
        parted: BTreeSet::new(),
        status: NodeStatus::clone(&status),
        published: status_sender,
        updates,
        next_plan: Instant::now(),
        pulse: vitals.plan.clone(),
    };
    // It ends when the daemon takes no configurations any more.
    let task = tokio::spawn(supervise::task("plan", Ending::Allowed, live.run()));
    Follower { updates: updates_inbox, status: status_inbox, vitals, task }
}

struct Feed {
    receiver: Receiver,
    status: SourceStatus,
    problems: Vec<Problem>,
}

struct Live {
    host: HostSettings,
    feeds: Vec<Feed>,
    resolver: Resolver,
    converter: Converter,
    /// Objects changed since the last plan.
    dirty: bool,
    /// Problems of the last plan.
    of_plan: Vec<Problem>,
    current: Option<Arc<Config>>,
    /// See [`Update::parted`].
    parted: BTreeSet<IpAddr>,
    status: NodeStatus,
    published: watch::Sender<Arc<NodeStatus>>,
    updates: mpsc::Sender<Update>,
    next_plan: Instant,
    pulse: Pulse,
}

/// The daemon has gone, or all sources have.
struct Ended;

impl Live {
    async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }

    /// Takes what comes, until it is time to work out what follows.
    async fn turn(&mut self) -> Result<(), Ended> {
        self.publish();
        let (at, event) = self.next_event().await?;
        self.take(at, event);
        let due = self.next_plan;
        while Instant::now() < due {
            let Ok(next) = timeout_at(due, self.next_event()).await else { break };
            let (at, event) = next?;
            self.take(at, event);
        }
        self.take_waiting();
        if self.dirty && self.feeds.iter().all(|feed| feed.status.listed) {
            self.dirty = false;
            self.plan().await?;
        }
        Ok(())
    }

    async fn next_event(&mut self) -> Result<(usize, Event), Ended> {
        let receivers = self.feeds.iter_mut().map(|feed| Box::pin(feed.receiver.recv()));
        let (event, at, _) = tokio::select! {
            next = select_all(receivers) => next,
            () = self.pulse.answer_always() => return Err(Ended),
        };
        event.map(|event| (at, event)).ok_or(Ended)
    }

    /// Takes what is there already; a source that is busy gets its turn once.
    fn take_waiting(&mut self) {
        for at in 0..self.feeds.len() {
            while let Some(event) = self.feeds.get_mut(at).and_then(|f| f.receiver.try_recv()) {
                let is_full = matches!(&event, Event::Changed(changes) if !changes.is_empty());
                self.take(at, event);
                if is_full {
                    break;
                }
            }
        }
    }

    fn take(&mut self, at: usize, event: Event) {
        let Some(feed) = self.feeds.get_mut(at) else { return };
        match event {
            Event::Listed(objects) => {
                info!("{}: {} objects listed", feed.status.name, objects.len());
                feed.status.listed = true;
                self.dirty = true;
                objects.into_iter().for_each(|object: Decoded| self.resolver.apply(object));
            }
            Event::Changed(changes) => {
                self.dirty = true;
                for change in changes {
                    match change {
                        Change::Put(object) => self.resolver.apply(object),
                        Change::Withdraw(id) => self.resolver.withdraw(&id),
                    }
                }
            }
            Event::Problems(problems) => feed.problems = problems,
            Event::State(state) => {
                log_state(&feed.status, &state);
                feed.status.state = state;
            }
        }
    }

    /// Works out what follows from the objects, and passes on what differs.
    async fn plan(&mut self) -> Result<(), Ended> {
        let began = Instant::now();
        let (plan, config) = tokio::task::block_in_place(|| {
            let plan = self.resolver.plan();
            let touched = self.resolver.take_touched();
            let config = self.converter.convert(&plan, &touched, &self.host);
            (plan, config)
        });
        let took = began.elapsed();
        self.status.plans += 1;
        self.status.planning += took;
        self.next_plan = Instant::now() + PLAN_INTERVAL.max(took * (PLAN_SHARE - 1));
        self.of_plan = plan.problems;
        self.of_plan.extend(self.converter.problems().cloned());
        let update = config.and_then(|config| self.update(config));
        self.publish();
        match update {
            Some(update) => self.updates.send(update).await.map_err(|_| Ended),
            None => Ok(()),
        }
    }

    /// What is to be told about a configuration, if it says anything new.
    fn update(&mut self, fresh: Config) -> Option<Update> {
        let address = |peer: &PeerEntry| peer.session.address;
        let differs = self.current.as_deref() != Some(&fresh);
        let known = match self.current.take() {
            Some(known) if !differs => known,
            old => {
                let before = old.as_ref().map_or(&[][..], |old| old.peers.as_slice());
                let (gone, come) = differing_peers(before, &fresh.peers);
                self.parted.extend(gone.into_iter().map(address));
                for peer in come {
                    self.parted.remove(&address(peer));
                }
                Arc::new(fresh)
            }
        };
        let parted_before = self.parted.len();
        let snapshot = self.resolver.snapshot();
        self.parted.retain(|addr| snapshot.has_node_at(*addr));
        let update = (differs || self.parted.len() < parted_before).then(|| Update {
            config: Arc::clone(&known),
            parted: self.parted.iter().copied().collect(),
        });
        self.current = Some(known);
        self.status.in_force = true;
        update
    }

    /// Tells the state to whoever asks, and new problems to the log.
    fn publish(&mut self) {
        let mut problems = self.of_plan.clone();
        problems.extend(self.feeds.iter().flat_map(|feed| feed.problems.iter().cloned()));
        problems.sort();
        problems.dedup();
        if *problems != *self.status.problems {
            log_problems(&self.status.problems, &problems);
            self.status.problems = problems.into();
        }
        self.status.sources = self.feeds.iter().map(|feed| feed.status.clone()).collect();
        self.published.send_if_modified(|published| {
            let differs = **published != self.status;
            if differs {
                *published = Arc::new(self.status.clone());
            }
            differs
        });
    }
}

fn log_state(source: &SourceStatus, state: &State) {
    match (&source.state, state) {
        (State::Away { reason: before, .. }, State::Away { reason, .. }) if before == reason => {}
        (_, State::Away { reason, .. }) => {
            warn!("cannot read {}, keeping the last known objects: {reason}", source.name);
        }
        (State::Away { .. }, State::Current { .. }) => info!("{} is read again", source.name),
        _ => {}
    }
}

fn log_problems(before: &[Problem], now: &[Problem]) {
    /// More than so many at once are counted, not listed.
    const LINES_MAX: usize = 50;
    let fresh: Vec<&Problem> =
        now.iter().filter(|problem| before.binary_search(problem).is_err()).collect();
    for problem in fresh.iter().take(LINES_MAX) {
        warn!("{}: {}", problem.object, problem.text);
    }
    if fresh.len() > LINES_MAX {
        warn!("{} more objects have problems: see margay show status", fresh.len() - LINES_MAX);
    }
    let gone = before.iter().filter(|problem| now.binary_search(problem).is_err()).count();
    if gone > 0 {
        info!("{gone} object problems are resolved, {} remain", now.len());
    }
}

#[cfg(test)]
mod tests;
