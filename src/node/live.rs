//! Computes configurations from objects as they change.
//!
//! One task reads all sources. There is no plan before each source was listed once, or its objects
//! are known from an earlier run. From then on, changes that arrive close together are planned
//! together, and planning uses at most a tenth of a core. If the daemon has not taken the previous
//! configuration yet, the task waits for it, while the sources merge further changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::Prefix;
use futures_util::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::NodeSettings;
use super::basis::{Asked, Asking, NoPlan, Question};
use super::saved::Lines;
use super::settings::describe;
use super::store::Store;
use crate::calico::config::Converter;
use crate::calico::edit::Basis;
use crate::calico::model::{Kind, ObjectId, encode};
use crate::calico::{Plan, Problem, Resolver, Settings, Touched};
use crate::config::{CalicoLimits, Config, HostSettings, PeerEntry, differing_peers};
use crate::datastore::{
    self, Change, Event, Followed, Receiver, Services, Source, State, Wanted, Watcher,
};
use crate::event_names::{DATASTORE_BACK, DATASTORE_LOST, OBJECT_PROBLEM, OBJECTS_RESOLVED};
use crate::liveness::Liveness;
use crate::supervise::{self, Ending};

/// Least time between two plans.
const PLAN_INTERVAL: Duration = Duration::from_millis(50);
/// How long after the start to wait for a silent source whose objects are known from an earlier
/// run.
const RESTORE_AFTER: Duration = Duration::from_secs(3);
/// Name under which the keys of sessions are stored: they are used even if the Secret was deleted.
const KEYS: &str = "keys";
/// Planning uses at most one part in this many of the time.
const PLAN_SHARE: u32 = 10;

/// A configuration that follows from the objects and differs from the previous one.
#[derive(Debug)]
pub struct Update {
    /// The configuration to run.
    pub config: Arc<Config>,
    /// The peers that may differ from those of the previous configuration.
    pub touched: Touched,
    /// Addresses that were neighbours and no longer are although a node with that address still
    /// exists, sorted: their sessions end once others carry their routes. A deleted node is not
    /// among them. If only this list has changed, `config` is the previous one.
    pub parted: Vec<IpAddr>,
}

/// The status of a node's objects and of its plan.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStatus {
    /// The name of the node.
    pub node: String,
    /// The sources, in the order of the settings.
    pub sources: Vec<SourceStatus>,
    /// The release of Calico that the plan is for, and how it is known.
    pub release: String,
    /// Objects, or parts of them, that cannot be used; sorted.
    pub problems: Arc<[Problem]>,
    /// Settings that are valid but have no effect, or an unexpected one; sorted.
    pub notes: Arc<[Problem]>,
    /// The origin of each session, by its name.
    pub origins: Arc<BTreeMap<Arc<str>, SessionOrigin>>,
    /// Blocks of this node that are announced.
    pub blocks: Arc<[Prefix]>,
    /// Why prefixes of this node's blocks, ranges and services are in the plan, for operators.
    pub reasons: Arc<BTreeMap<Prefix, String>>,
    /// Why no plan can be computed from the objects, in one line; `None` if one can.
    pub stuck: Option<String>,
    /// Whether a plan is in force. Nothing runs until the first one.
    pub in_force: bool,
    /// Plans computed so far.
    pub plans: u64,
    /// Total time spent computing plans.
    pub planning: Duration,
}

/// The objects from which a session follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOrigin {
    /// `BGPPeer/tor`, or `Node/b` for the mesh.
    pub object: Arc<str>,
    /// BGPFilters that are applied, in order.
    pub filters: Vec<String>,
}

/// The status of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceStatus {
    /// A short description without secrets.
    pub name: String,
    /// Whether it was listed once.
    pub listed: bool,
    /// Whether it can be read.
    pub state: State,
}

impl NodeStatus {
    /// What the plan is waiting for, in one line; `None` if it is up to date.
    pub fn waiting_for(&self) -> Option<String> {
        if self.in_force {
            // The running configuration stays, and no longer follows the objects.
            return self.stuck.clone();
        }
        let missing = self.sources.iter().filter(|source| !source.listed);
        let missing: Vec<String> = missing
            .map(|source| match &source.state {
                State::Away { reason, .. } => format!("{}: {reason}", source.name),
                _ => source.name.clone(),
            })
            .collect();
        Some(match missing.as_slice() {
            [] => match &self.stuck {
                Some(stuck) => stuck.clone(),
                None => format!("waiting for a plan of node {}", self.node),
            },
            missing => format!("waiting for objects from {}", missing.join("; ")),
        })
    }
}

/// A handle to the planning task. Dropping it ends the task.
pub struct Follower {
    /// New configurations, in order; the first one when all objects are known.
    pub updates: mpsc::Receiver<Update>,
    /// The newest status.
    pub status: watch::Receiver<Arc<NodeStatus>>,
    /// The liveness of the planning task and of the sources.
    pub liveness: FollowerLiveness,
    /// Asks what the plan is computed from.
    pub asking: Asking,
    task: JoinHandle<()>,
}

/// The liveness of the tasks that follow objects.
#[derive(Clone, Debug)]
pub struct FollowerLiveness {
    /// The liveness of the planning task.
    pub plan: Liveness,
    /// The watchers of the sources with their names, in the order of the settings.
    pub sources: Vec<(String, Watcher)>,
}

impl FollowerLiveness {
    /// How far the source of that name has been followed.
    pub fn followed(&self, name: &str) -> Followed {
        let source = self.sources.iter().find(|(source, _)| source == name);
        source.map(|(_, watcher)| watcher.followed()).unwrap_or_default()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a task that follows the sources. Must be called within a multi-threaded tokio runtime.
pub fn follow(settings: &NodeSettings) -> Follower {
    for note in &settings.notes {
        info!("{} {}", note.object, note.text);
    }
    let (wanted, of_services) = watch::channel(None);
    let mut starter = datastore::Starter::new(of_services);
    let feeds = settings.sources.iter().map(|source| {
        // The task ends with its receiver.
        let (receiver, _) = starter.start(source.clone());
        let is_asked = matches!(source, Source::Services(_));
        Feed { is_asked, ..Feed::new(describe(source), receiver, saved_as(source)) }
    });
    follow_feeds(settings, feeds.collect(), wanted)
}

fn follow_feeds(
    settings: &NodeSettings,
    feeds: Vec<Feed>,
    wanted: watch::Sender<Option<Wanted>>,
) -> Follower {
    let NodeSettings { calico: settings, limits, host, state_file, notes, .. } = settings.clone();
    let watcher = |feed: &Feed| (feed.status.name.clone(), feed.receiver.watcher());
    let liveness = FollowerLiveness {
        plan: Liveness::default(),
        sources: feeds.iter().map(watcher).collect(),
    };
    let status = Arc::new(NodeStatus {
        node: settings.node.clone(),
        sources: Vec::new(),
        release: String::new(),
        problems: Arc::from([]),
        notes: notes.clone().into(),
        origins: Arc::default(),
        blocks: Arc::from([]),
        reasons: Arc::default(),
        stuck: None,
        in_force: false,
        plans: 0,
        planning: Duration::ZERO,
    });
    let (updates, updates_inbox) = mpsc::channel(1);
    let (status_sender, status_inbox) = watch::channel(Arc::clone(&status));
    let (asking, questions) = Asking::new();
    let live = Live {
        host,
        feeds,
        resolver: Resolver::new(settings.clone()),
        settings: settings.clone(),
        wanted,
        converter: Converter::new(limits.clone()),
        limits,
        questions,
        store: Store::new(state_file, settings.node.clone()),
        dirty: false,
        of_plan: Vec::new(),
        notes: notes.clone(),
        of_environment: notes,
        current: None,
        parted: BTreeSet::new(),
        status: NodeStatus::clone(&status),
        published: status_sender,
        updates,
        next_plan: Instant::now(),
        liveness: liveness.plan.clone(),
    };
    // It ends when the daemon has dropped the receiver of updates.
    let task = tokio::spawn(supervise::task("plan", Ending::Allowed, live.run()));
    Follower { updates: updates_inbox, status: status_inbox, liveness, asking, task }
}

struct Feed {
    receiver: Receiver,
    status: SourceStatus,
    problems: Vec<Problem>,
    /// The name under which its objects are stored on disk; `None`: they are not.
    saved_as: Option<&'static str>,
    /// The ids of its objects, or before it was listed, of those that were stored.
    objects: BTreeSet<ObjectId>,
    /// It delivers only the objects that the plan needs, once those are known ([`Live::ask`]).
    is_asked: bool,
}

impl Feed {
    fn new(name: String, receiver: Receiver, saved_as: Option<&'static str>) -> Self {
        Feed {
            receiver,
            status: SourceStatus { name, listed: false, state: State::Connecting },
            problems: Vec::new(),
            saved_as,
            objects: BTreeSet::new(),
            is_asked: false,
        }
    }
}

impl Feed {
    /// A note about the load that reading this source causes, if that is considerable.
    fn load(&self) -> Option<Problem> {
        if self.saved_as != Some("kubernetes") {
            return None;
        }
        let nodes = self.objects.range(ObjectId::new(Kind::KubernetesNode, "")..);
        load_of(nodes.take_while(|id| id.kind == Kind::KubernetesNode).count())
            .map(|text| Problem::new(&self.status.name, text))
    }
}

/// The load on the Kubernetes API servers if this many nodes each read them directly. In whole
/// thousands, so that the note does not change with every node.
fn load_of(nodes: usize) -> Option<String> {
    let thousands = nodes.saturating_sub(1) / 1000;
    // Every Node is updated at least every five minutes, and every update is sent to every node.
    let events = (thousands * 1000).pow(2) / 300;
    (thousands > 0).then(|| {
        format!(
            "it is read by more than {thousands},000 nodes: its servers send more than {events} \
             heartbeats of Nodes a second to their margays, which a Typha would not; see Load in \
             margay's docs/src/kubernetes-api.md for what that costs"
        )
    })
}

/// The name under which the objects of a source are stored. Felix's files are not stored: they are
/// on this machine, and do not survive its restart.
fn saved_as(source: &Source) -> Option<&'static str> {
    match source {
        Source::Etcd(_) => Some("etcd"),
        Source::Kubernetes(_) => Some("kubernetes"),
        Source::Services(_) => Some("services"),
        Source::Files(_) => Some("files"),
        Source::Endpoints(_) => None,
    }
}

struct Live {
    settings: Settings,
    /// Sends what the plan needs to the source of Services and Secrets.
    wanted: watch::Sender<Option<Wanted>>,
    host: HostSettings,
    feeds: Vec<Feed>,
    resolver: Resolver,
    converter: Converter,
    limits: CalicoLimits,
    questions: mpsc::Receiver<Question>,
    store: Store,
    /// Whether objects have changed since the last plan.
    dirty: bool,
    /// Problems of the last plan.
    of_plan: Vec<Problem>,
    /// Notes of the last plan, and those that do not depend on the plan.
    notes: Vec<Problem>,
    /// Notes about the environment.
    of_environment: Vec<Problem>,
    current: Option<Arc<Config>>,
    /// See [`Update::parted`].
    parted: BTreeSet<IpAddr>,
    status: NodeStatus,
    published: watch::Sender<Arc<NodeStatus>>,
    updates: mpsc::Sender<Update>,
    next_plan: Instant,
    liveness: Liveness,
}

/// The daemon has ended, or all sources have.
struct Ended;

/// What the task waits for.
enum Input {
    Event(usize, Event),
    Question(Question),
}

impl Live {
    async fn run(mut self) {
        self.restore();
        while self.turn().await.is_ok() {}
    }

    /// Restores the objects that were stored on disk. They are not used for a plan as long as the
    /// sources may still deliver their lists soon ([`Live::may_plan`]).
    fn restore(&mut self) {
        let mut saved = self.store.read();
        for secret in saved.objects.remove(KEYS).iter().flatten() {
            self.resolver.remember_keys(secret);
        }
        for feed in &mut self.feeds {
            let objects = feed.saved_as.and_then(|name| saved.objects.remove(name));
            for object in objects.into_iter().flatten() {
                feed.objects.insert(object.id.clone());
                self.resolver.apply(object);
            }
        }
    }

    /// Whether a plan may be computed: every source was listed, or its stored objects are known and
    /// it has not answered for a while.
    fn may_plan(&self) -> bool {
        let is_late = Instant::now() >= self.store.restored_at + RESTORE_AFTER;
        // The needed Services and Secrets are known only once all other sources are listed.
        let is_asked = self.feeds.iter().all(|feed| feed.status.listed || feed.is_asked);
        self.feeds.iter().all(|feed| {
            let is_away = matches!(feed.status.state, State::Away { .. });
            let is_known = !feed.objects.is_empty() || (feed.is_asked && !is_asked);
            feed.status.listed || (is_known && (is_away || is_late))
        })
    }

    /// When to take a turn even if no event arrives.
    fn next_wake(&self) -> Option<Instant> {
        let waits = self.current.is_none() && self.feeds.iter().any(|feed| !feed.status.listed);
        let restore = waits.then(|| self.store.restored_at + RESTORE_AFTER);
        let restore = restore.filter(|at| *at > Instant::now());
        restore.into_iter().chain(self.store.wake()).min()
    }

    /// Takes events until a plan is due, then computes and passes on the plan.
    ///
    /// `next_plan` limits the rate: events until then only change the snapshot, so that a burst of
    /// changes leads to one plan.
    async fn turn(&mut self) -> Result<(), Ended> {
        self.publish();
        match self.next_wake() {
            None => {
                let input = self.next_input().await?;
                self.handle_input(input);
            }
            Some(wake) => {
                if let Ok(input) = timeout_at(wake, self.next_input()).await {
                    self.handle_input(input?);
                }
            }
        }
        let due = self.next_plan;
        while Instant::now() < due {
            let Ok(input) = timeout_at(due, self.next_input()).await else { break };
            self.handle_input(input?);
        }
        self.take_waiting();
        self.ask();
        let begins = self.current.is_none() && !self.feeds.iter().all(|feed| feed.status.listed);
        if (self.dirty || begins) && self.may_plan() {
            self.dirty = false;
            self.plan().await?;
        }
        self.save();
        Ok(())
    }

    /// Requests the Services and Secrets that the plan needs, once all other sources are listed.
    fn ask(&self) {
        if !self.feeds.iter().all(|feed| feed.status.listed || feed.is_asked) {
            return;
        }
        let needs = self.resolver.snapshot().needs(&self.settings);
        let services = if needs.has_service_ranges { Services::Used } else { Services::Unused };
        let fresh = Some(Wanted { secrets: needs.secrets, services });
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != fresh;
            *wanted = fresh;
            differs
        });
    }

    /// Stores the objects of the plan in force, if a write is due.
    fn save(&mut self) {
        let now = Instant::now();
        self.store.settle(now);
        if !self.store.is_due(now) {
            return;
        }
        let snapshot = self.resolver.snapshot();
        let feeds = self.feeds.iter().filter_map(|feed| Some((feed.saved_as?, &feed.objects)));
        let objects = feeds.flat_map(|(source, ids)| ids.iter().map(move |id| (source, id)));
        tokio::task::block_in_place(|| {
            let began = Instant::now();
            let mut lines = Lines::new();
            for (source, id) in objects {
                let object = snapshot.get(id).and_then(|object| encode(id, &object));
                object.into_iter().for_each(|object| lines.push(source, object));
            }
            for (id, secret) in snapshot.session_keys() {
                encode(&id, &secret).into_iter().for_each(|object| lines.push(KEYS, object));
            }
            self.store.write(lines, now, began.elapsed());
        });
    }

    async fn next_input(&mut self) -> Result<Input, Ended> {
        let receivers = self.feeds.iter_mut().map(|feed| Box::pin(feed.receiver.recv()));
        let (event, at, _) = tokio::select! {
            next = select_all(receivers) => next,
            Some(question) = self.questions.recv() => return Ok(Input::Question(question)),
            () = self.liveness.answer_always() => return Err(Ended),
        };
        event.map(|event| Input::Event(at, event)).ok_or(Ended)
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Event(at, event) => self.take(at, event),
            // Nobody receives the answer if the client has disconnected.
            Input::Question(question) => drop(question.send(self.asked())),
        }
    }

    /// What a plan for changed objects is computed from.
    fn asked(&self) -> Result<Asked, NoPlan> {
        let Some(config) = &self.current else {
            return Err(NoPlan(self.status.waiting_for().unwrap_or_default()));
        };
        let away = self.feeds.iter().filter_map(|feed| match &feed.status.state {
            State::Away { reason, .. } => Some(format!("{}: {reason}", feed.status.name)),
            State::Connecting | State::Current => None,
        });
        let basis = Basis {
            snapshot: self.resolver.snapshot().clone(),
            settings: self.settings.clone(),
            held_release: self.resolver.held_release(),
            limits: self.limits.clone(),
            host: self.host.clone(),
            config: Some(Arc::clone(config)),
            asks_services: self.feeds.iter().any(|feed| feed.is_asked),
        };
        Ok(Asked { basis, is_pending: self.dirty, away: away.collect() })
    }

    /// Takes the events that are waiting already; of each source, at most one with changes.
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
                let ids = objects.iter().map(|object| object.id.clone()).collect();
                // Stored objects that no longer exist are withdrawn.
                let before = std::mem::replace(&mut feed.objects, ids);
                for id in before.difference(&feed.objects) {
                    self.resolver.withdraw(id);
                }
                for object in objects {
                    self.resolver.apply(object);
                }
            }
            Event::Changed(changes) => {
                for change in changes {
                    match change {
                        Change::Put(object) => {
                            feed.objects.insert(object.id.clone());
                            self.dirty |= self.resolver.apply(object);
                        }
                        Change::Withdraw(id) => {
                            feed.objects.remove(&id);
                            self.resolver.withdraw(&id);
                            self.dirty = true;
                        }
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

    /// Computes the plan, and sends the configuration to the daemon if it differs.
    async fn plan(&mut self) -> Result<(), Ended> {
        let began = Instant::now();
        let (plan, touched, config) = tokio::task::block_in_place(|| {
            let plan = self.resolver.plan();
            let touched = self.resolver.take_touched();
            let config = self.converter.convert(&plan, &touched, &self.host);
            (plan, touched, config)
        });
        if self.feeds.iter().all(|feed| feed.status.listed) {
            self.resolver.hold_release(plan.release);
        }
        let took = began.elapsed();
        self.status.plans += 1;
        self.status.planning += took;
        self.next_plan = Instant::now() + PLAN_INTERVAL.max(took * (PLAN_SHARE - 1));
        self.describe(&plan, &touched);
        if plan.is_complete {
            self.store.note_change();
        }
        self.of_plan = plan.problems;
        self.notes = plan.notes;
        self.notes.extend(self.of_environment.iter().cloned());
        self.notes.extend(self.feeds.iter().filter_map(Feed::load));
        self.notes.sort();
        self.of_plan.extend(self.converter.problems().cloned());
        let update = config.and_then(|config| self.update(config));
        self.publish();
        match update {
            Some(update) => self.updates.send(update).await.map_err(|_| Ended),
            None => Ok(()),
        }
    }

    /// Updates the status from a plan, in which these sessions may differ.
    fn describe(&mut self, plan: &Plan, touched: &Touched) {
        self.status.stuck = plan.stuck.clone();
        if self.status.reasons != plan.reasons {
            self.status.reasons = Arc::clone(&plan.reasons);
        }
        self.status.release = plan.release.to_string();
        let families = [&plan.families.ipv4, &plan.families.ipv6];
        self.status.blocks =
            families.into_iter().flat_map(|family| &family.aggregates).copied().collect();
        if *touched == Touched::default() {
            return;
        }
        let sessions = families.into_iter().flat_map(|family| family.sessions.iter());
        let origins = sessions.map(|planned| {
            let session = &planned.session;
            let origin = SessionOrigin {
                object: Arc::clone(&session.object),
                filters: session.filters.clone(),
            };
            (Arc::clone(&session.name), origin)
        });
        let origins: BTreeMap<_, _> = origins.collect();
        if *self.status.origins != origins {
            self.status.origins = Arc::new(origins);
        }
    }

    /// The update for the daemon, if the configuration or the list of parted neighbours has
    /// changed.
    fn update(&mut self, fresh: Config) -> Option<Update> {
        let address = |peer: &PeerEntry| peer.session.address;
        let differs = self.current.as_deref() != Some(&fresh);
        let mut touched = Touched::default();
        let known = match self.current.take() {
            Some(known) if !differs => known,
            old => {
                let before = old.as_ref().map_or(&[][..], |old| old.peers.as_slice());
                touched = self.converter.take_touched();
                let (gone, come) = differing_peers(before, &fresh.peers, touched.names());
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
            touched,
            parted: self.parted.iter().copied().collect(),
        });
        self.current = Some(known);
        self.status.in_force = true;
        update
    }

    /// Publishes the status, and logs new problems and notes.
    fn publish(&mut self) {
        let mut problems = self.of_plan.clone();
        problems.extend(self.feeds.iter().flat_map(|feed| feed.problems.iter().cloned()));
        problems.extend(self.store.fault.clone());
        let is_old = |feed: &&Feed| !feed.status.listed && !feed.objects.is_empty();
        if self.current.is_some() {
            problems.extend(self.feeds.iter().filter(is_old).map(|feed| {
                let age = &self.store.age;
                let text = format!("it was not read yet: its objects are as they were kept {age}");
                Problem::new(&feed.status.name, text)
            }));
        }
        problems.sort();
        problems.dedup();
        if *problems != *self.status.problems {
            log_problems(&self.status.problems, &problems);
            self.status.problems = problems.into();
        }
        if *self.notes != *self.status.notes {
            log_notes(&self.status.notes, &self.notes);
            self.status.notes = self.notes.clone().into();
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
            warn!(event = DATASTORE_LOST, object = %source.name, reason = %reason, "cannot read {}, keeping the last known objects: {reason}", source.name);
        }
        (State::Away { .. }, State::Current) => {
            info!(event = DATASTORE_BACK, object = %source.name, "{} is read again", source.name);
        }
        _ => {}
    }
}

fn log_notes(before: &[Problem], now: &[Problem]) {
    /// Most notes logged at once; further ones are only counted.
    const LINES_MAX: usize = 20;
    let is_fresh = |note: &&Problem| before.binary_search(note).is_err();
    let fresh: Vec<&Problem> = now.iter().filter(is_fresh).collect();
    for note in fresh.iter().take(LINES_MAX) {
        info!("{}: {}", note.object, note.text);
    }
    if fresh.len() > LINES_MAX {
        info!("{} more notes about objects: see margay show status", fresh.len() - LINES_MAX);
    }
}

fn log_problems(before: &[Problem], now: &[Problem]) {
    /// Most problems logged at once; further ones are only counted.
    const LINES_MAX: usize = 50;
    let fresh: Vec<&Problem> =
        now.iter().filter(|problem| before.binary_search(problem).is_err()).collect();
    for problem in fresh.iter().take(LINES_MAX) {
        warn!(event = OBJECT_PROBLEM, object = %problem.object, "{}: {}", problem.object, problem.text);
    }
    if fresh.len() > LINES_MAX {
        let more = fresh.len() - LINES_MAX;
        warn!(event = OBJECT_PROBLEM, "{more} more objects have problems: see margay show status");
    }
    let gone = before.iter().filter(|problem| now.binary_search(problem).is_err()).count();
    if gone > 0 {
        info!(
            event = OBJECTS_RESOLVED,
            "{gone} object problems are resolved, {} remain",
            now.len()
        );
    }
}

#[cfg(test)]
mod tests;
