//! Answers to control clients: [`Backend`] over the table, the kernel and the registry.
//!
//! Each page is one short question to its owner; nothing is held between pages.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bgp_proto::table::{PathView, PeerCounts, RouteFilter, Table};
use bgp_proto::types::{PeerId, Prefix, Source, Time};
use tokio::sync::{mpsc, oneshot, watch};

use super::liveness::Vitals;
use super::metrics::Ranking;
use crate::config::{Changes, Config, PeerSeries};
use crate::ctl;
use crate::ctl::item::{self, FibCounts, PerFamily, Reloaded, Status, Stopping};
use crate::ctl::{
    Backend, Cursor, Names, Page, PeerFacts, Refusal, Request, StopMode, WallClock, rfc3339,
};
use crate::daemon::Stop;
use crate::daemon::peers::Peers;
use crate::daemon::redistribution::Redistribution;
use crate::daemon::registry::{Record, Registry};
use crate::daemon::startup::Startup;
use crate::engine::Handle;
use crate::kernel::{Fib, LearnedRoute};
use crate::liveness::Liveness;
use crate::logging::Log;
use crate::net::Tally;
use crate::node::{self, Environment, Follower, NodeStatus, SessionOrigin};

/// Destinations, kernel routes or peers on one page.
pub(in crate::daemon) const PAGE: usize = 500;

/// What a control client wants done by the daemon's own loop.
pub(in crate::daemon) enum Order {
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Changes, String>>),
    /// End the daemon.
    Stop(Stop, oneshot::Sender<()>),
}

/// What `show status` says about the configuration.
struct Published {
    /// Where the configuration comes from.
    described: String,
    config: Arc<Config>,
    read_at: Time,
    /// What is missing for being ready.
    not_ready: Option<String>,
    /// Why it is not listened where the configuration says.
    listen_fault: Option<String>,
    /// Why metrics and health are not served.
    http_fault: Option<String>,
    /// What is wrong with the process's surroundings, besides.
    problems: Vec<String>,
    /// Sessions that go on only until others carry their routes.
    parting: Vec<String>,
}

/// Answers control clients. Clones share everything.
#[derive(Clone)]
pub(in crate::daemon) struct Answers {
    table: Handle,
    fib: Fib,
    redistribution: Redistribution,
    registry: Registry,
    orders: mpsc::Sender<Order>,
    published: Arc<Mutex<Option<Published>>>,
    /// The configuration file, if there is one.
    file: Option<PathBuf>,
    /// On a Calico node: what is known about its objects.
    node: Arc<Mutex<Option<Node>>>,
    /// Where calico-node's start-up leaves the node's name.
    nodename_file: PathBuf,
    /// Of the daemon's own loop.
    liveness: Liveness,
    vitals: Vitals,
    tally: Tally,
    ranking: Ranking,
    started: Time,
    log: Log,
    /// While the first minutes last.
    startup: Arc<Mutex<Option<Startup>>>,
    bfd: Option<Bfd>,
}

/// Where BFD is asked.
#[derive(Clone)]
pub(in crate::daemon) struct Bfd {
    pub(in crate::daemon) handle: crate::bfd::Handle,
    pub(in crate::daemon) statuses: crate::daemon::bfd_status::Statuses,
}

/// What follows Calico's objects, from outside.
#[derive(Clone)]
struct Node {
    status: watch::Receiver<Arc<NodeStatus>>,
    vitals: node::Vitals,
}

impl Answers {
    pub(in crate::daemon) fn new(
        table: Handle,
        fib: Fib,
        redistribution: Redistribution,
        peers: &Peers,
        orders: mpsc::Sender<Order>,
        liveness: Liveness,
        log: Log,
    ) -> Self {
        let started = table.clock().now();
        Answers {
            table,
            fib,
            redistribution,
            registry: peers.registry(),
            orders,
            published: Arc::default(),
            started,
            log,
            startup: Arc::default(),
            file: None,
            node: Arc::default(),
            nodename_file: Environment::of_process().nodename_file,
            liveness,
            vitals: Vitals::default(),
            tally: peers.tally(),
            ranking: Ranking::default(),
            bfd: None,
        }
    }

    /// Where BFD is asked; set before the first clone.
    pub(in crate::daemon) fn set_bfd(&mut self, bfd: Bfd) {
        self.bfd = Some(bfd);
    }

    /// Where BFD is asked.
    pub(in crate::daemon) fn bfd(&self) -> Option<&Bfd> {
        self.bfd.as_ref()
    }

    /// The configuration file; set before the first clone.
    pub(in crate::daemon) fn set_file(&mut self, file: Option<PathBuf>) {
        self.file = file;
    }

    /// The configuration file, if there is one.
    pub(in crate::daemon) fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }

    /// This is a Calico node, and here is what follows its objects.
    pub(in crate::daemon) fn set_node(&self, follower: &Follower) {
        let node = Node { status: follower.status.clone(), vitals: follower.vitals.clone() };
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        self.vitals.forget();
    }

    /// Whether what follows Calico's objects still turns.
    pub(in crate::daemon) fn node_vitals(&self) -> Option<node::Vitals> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.as_ref().map(|node| node.vitals.clone())
    }

    pub(in crate::daemon) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    pub(in crate::daemon) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    pub(in crate::daemon) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn ranking(&self) -> &Ranking {
        &self.ranking
    }

    pub(in crate::daemon) fn nodename_file(&self) -> &std::path::Path {
        &self.nodename_file
    }

    /// Which peers have metrics of their own.
    pub(in crate::daemon) fn peer_series(&self) -> PeerSeries {
        let config = self.in_force().map(|(config, ..)| config);
        config.and_then(|config| config.host.http).map(|http| http.peers).unwrap_or_default()
    }

    /// Octets that routes may hold.
    pub(in crate::daemon) fn memory_max(&self) -> Option<u64> {
        self.in_force().and_then(|(config, ..)| config.bgp.memory_max)
    }

    /// The configuration that is in force.
    pub(in crate::daemon) fn publish(&self, described: &str, config: &Arc<Config>) {
        let read_at = self.table.clock().now();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        match published.as_mut() {
            Some(published) => {
                published.config = Arc::clone(config);
                published.read_at = read_at;
            }
            None => {
                *published = Some(Published {
                    described: described.to_owned(),
                    config: Arc::clone(config),
                    read_at,
                    not_ready: None,
                    listen_fault: None,
                    http_fault: None,
                    problems: Vec::new(),
                    parting: Vec::new(),
                });
            }
        }
    }

    /// The configuration was read, and what is in force follows from it.
    pub(in crate::daemon) fn note_read(&self) {
        let read_at = self.table.clock().now();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(published) = published.as_mut() {
            published.read_at = read_at;
        }
    }

    /// The first minutes begin, or end.
    pub(in crate::daemon) fn set_startup(&self, startup: Option<Startup>) {
        *self.startup.lock().unwrap_or_else(PoisonError::into_inner) = startup;
    }

    /// The first minutes, while they last.
    pub(in crate::daemon) fn startup(&self) -> Option<Startup> {
        self.startup.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the process began.
    pub(in crate::daemon) fn started(&self) -> Time {
        self.started
    }

    /// The configuration in force, when it was read, and what it was read from.
    pub(in crate::daemon) fn in_force(&self) -> Option<(Arc<Config>, Time, String)> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let published = published.as_ref()?;
        Some((Arc::clone(&published.config), published.read_at, published.described.clone()))
    }

    /// What is missing for being ready; `None` once nothing is.
    pub(in crate::daemon) fn set_not_ready(&self, reason: Option<String>) {
        self.change_published(|published| published.not_ready = reason);
    }

    /// Why it is not listened where the configuration says; `None`: it is.
    pub(in crate::daemon) fn set_listen_fault(&self, fault: Option<String>) {
        self.change_published(|published| published.listen_fault = fault);
    }

    /// What is wrong with the process's surroundings, besides listening.
    pub(in crate::daemon) fn set_problems(&self, problems: Vec<String>) {
        self.change_published(|published| published.problems = problems);
    }

    /// Sessions that go on only until others carry their routes.
    pub(in crate::daemon) fn set_parting(&self, names: Vec<String>) {
        self.change_published(|published| published.parting = names);
    }

    fn change_published(&self, change: impl FnOnce(&mut Published)) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.as_mut().map(change).unwrap_or_default();
    }

    /// Why metrics and health are not served; `None`: they are, or are not wanted.
    pub(in crate::daemon) fn set_http_fault(&self, fault: Option<String>) {
        self.change_published(|published| published.http_fault = fault);
    }

    /// Why it is not listened where the configuration says.
    pub(in crate::daemon) fn listen_fault(&self) -> Option<String> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.as_ref()?.listen_fault.clone()
    }

    /// What the first minutes wait for.
    pub(in crate::daemon) fn starting(&self) -> Option<String> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.as_ref()?.not_ready.clone()
    }

    /// What is known about a Calico node's objects.
    pub(in crate::daemon) fn node_status(&self) -> Option<Arc<NodeStatus>> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.as_ref().map(|node| Arc::clone(&node.status.borrow()))
    }

    pub(in crate::daemon) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(in crate::daemon) fn table(&self) -> &Handle {
        &self.table
    }

    pub(in crate::daemon) fn kernel(&self) -> &Fib {
        &self.fib
    }

    /// The route of the kernel that a route of ours was made from.
    pub(in crate::daemon) fn learned(
        &self,
        prefix: Prefix,
        source: Source,
    ) -> Option<LearnedRoute> {
        match source {
            Source::Kernel | Source::Direct => {
                self.redistribution.get(prefix, source == Source::Direct)
            }
            Source::Bgp | Source::Static => None,
        }
    }

    /// Whether routes are written to the kernel at all.
    pub(in crate::daemon) fn writes_routes(&self) -> bool {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.as_ref().is_some_and(|published| published.config.fib.enabled)
    }

    /// Asks the table on its own thread.
    pub(in crate::daemon) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Table, Time) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.table.ask(question).await.ok_or_else(|| Refusal::failed("the daemon is stopping"))
    }

    /// Prefix counters of many peers at once.
    pub(in crate::daemon) async fn counts(&self, peers: Vec<PeerId>) -> Option<Vec<PeerCounts>> {
        self.table.ask(move |table, _| peers.iter().map(|peer| table.counts(*peer)).collect()).await
    }

    fn wall_clock(&self) -> WallClock {
        let clock = self.table.clock();
        WallClock { zero: clock.wall(Time::ZERO), now: clock.now() }
    }

    fn find(&self, name: &str) -> Result<Arc<Record>, Refusal> {
        self.registry.find(name).ok_or_else(|| {
            let peers = self.registry.all();
            Refusal::no_peer(name, peers.iter().map(|record| &*record.name))
        })
    }

    async fn status(&self) -> Result<Page, Refusal> {
        let totals = self.ask(|table, _| table.totals()).await?;
        let peers = self.registry.all();
        let established = peers
            .iter()
            .filter(|r| r.handle.snapshot().state == bgp_proto::session::State::Established)
            .count();
        let clock = self.table.clock();
        let kernel = self.fib.counters();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started: rfc3339(clock.wall(self.started)),
            uptime_seconds: clock.now().since(self.started).as_secs(),
            peers: count(peers.len()),
            peers_established: count(established),
            destinations: PerFamily {
                ipv4: totals.destinations.0[0],
                ipv6: totals.destinations.0[1],
            },
            paths: PerFamily { ipv4: totals.paths.0[0], ipv6: totals.paths.0[1] },
            attribute_sets: totals.attribute_sets,
            next_hops: totals.next_hops,
            groups: totals.groups,
            fib: FibCounts {
                enabled: false,
                installed: kernel.installed,
                pending: kernel.pending,
                failed: kernel.failed,
                foreign: kernel.foreign,
            },
            ..Status::default()
        };
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(published) = published.as_ref() {
            let config = &published.config;
            status.asn = config.bgp.identity.asn.0;
            status.router_id = config.bgp.identity.router_id.to_string();
            status.cluster_id = config.bgp.cluster_id.to_string();
            status.config = Some(published.described.clone());
            status.config_read = Some(rfc3339(clock.wall(published.read_at)));
            status.fib.enabled = config.fib.enabled;
            status.problems =
                published.listen_fault.iter().chain(&published.problems).cloned().collect();
            status.http = config.host.http.map(|http| item::HttpStatus {
                listen: http.listen.to_string(),
                error: published.http_fault.clone(),
            });
            let vitals = self.node_vitals();
            status.calico = self
                .node_status()
                .map(|node| super::calico::describe(&node, vitals.as_ref(), &published.parting));
        }
        drop(published);
        status.not_ready = self.not_ready();
        status.log_level = Some(self.log.level());
        Page::last([status])
    }

    async fn peers(
        &self,
        records: Vec<Arc<Record>>,
        next: Option<Cursor>,
    ) -> Result<Page, Refusal> {
        let ids = records.iter().map(|record| record.id).collect();
        let counts =
            self.counts(ids).await.ok_or_else(|| Refusal::failed("the daemon is stopping"))?;
        let clock = self.wall_clock();
        let node = self.node_status();
        let items = records.iter().zip(&counts).map(|(record, counts)| {
            let snapshot = record.handle.snapshot();
            let facts = PeerFacts {
                name: &record.name,
                dynamic: record.is_dynamic(),
                config: &record.session,
                routes: &record.routes,
                state: snapshot.state,
                since: snapshot.since,
                negotiated: snapshot.negotiated.as_deref(),
                stats: &snapshot.stats,
                counts,
                last_error: snapshot.last_error.as_ref(),
                bfd: record.bfd.is_some().then(|| self.bfd_state(record.id)),
            };
            let mut peer = ctl::peer(&facts, &clock);
            let origin = node.as_ref().and_then(|status| status.origins.get(&record.name));
            if let Some(SessionOrigin { object, filters }) = origin {
                peer.object = Some(object.to_string());
                peer.filters.clone_from(filters);
            }
            peer
        });
        Page::new(items, next)
    }

    async fn routes(&self, filter: RouteFilter, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        let from = index(cursor);
        // A peer's own list shows what import made of each route.
        let whole = filter.received_from.is_some();
        let (mut views, next) =
            self.ask(move |table, now| table.view(&filter, from, PAGE, now)).await?;
        if !whole {
            views.iter_mut().for_each(|view| view.paths.retain(is_in_table));
            views.retain(|view| !view.paths.is_empty());
        }
        let names = self.names();
        Page::new(views.iter().map(|view| ctl::route(view, &names)), next.map(Cursor::Index))
    }

    fn kernel_routes(&self, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        let after = match cursor {
            Some(Cursor::After(prefix)) => Some(*prefix),
            _ => None,
        };
        let views = self.fib.view(after, PAGE);
        let next = (views.len() == PAGE)
            .then(|| views.last().map(|view| Cursor::After(view.prefix)))
            .flatten();
        Page::new(views, next)
    }

    pub(in crate::daemon) fn names(&self) -> NameTables {
        NameTables {
            peers: self.registry.clone(),
            links: self.fib.links().iter().map(|link| (link.index, link.name.clone())).collect(),
        }
    }

    pub(in crate::daemon) async fn order<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, Refusal> {
        let stopping = || Refusal::failed("the daemon is stopping");
        self.orders.send(order).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    async fn reload(&self) -> Result<Page, Refusal> {
        let (reply, answer) = oneshot::channel();
        let changes =
            self.order(Order::Reload(reply), answer).await?.map_err(Refusal::configuration)?;
        Page::last([Reloaded { changes: changes.lines() }])
    }

    fn log_level(&self, level: Option<&str>) -> Result<Page, Refusal> {
        let before = match level {
            None => None,
            Some(level) => {
                let before = self.log.set_level(level).map_err(|error| Refusal {
                    kind: ctl::ErrorKind::BadRequest,
                    text: error.to_string(),
                })?;
                tracing::warn!("log level is {level}, was {before}");
                Some(before)
            }
        };
        Page::last([item::LogLevel { level: self.log.level(), before }])
    }

    async fn stop_daemon(&self, mode: StopMode, message: Option<String>) -> Result<Page, Refusal> {
        let stop = match mode {
            StopMode::Graceful => Stop::Graceful,
            StopMode::Shutdown => Stop::Shutdown { message },
        };
        let (reply, answer) = oneshot::channel();
        self.order(Order::Stop(stop, reply), answer).await?;
        Page::last([Stopping { stopping: mode }])
    }
}

impl Backend for Answers {
    async fn page(&self, request: &Request, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        match request {
            Request::ShowStatus => self.status().await,
            Request::ShowPeers => {
                let after = match cursor {
                    Some(Cursor::AfterName(name)) => Some(&**name),
                    _ => None,
                };
                let (records, more) = self.registry.page(after, PAGE);
                let last = records.last().filter(|_| more).map(|record| Arc::clone(&record.name));
                self.peers(records, last.map(Cursor::AfterName)).await
            }
            Request::ShowPeer { name } => self.peers(vec![self.find(name)?], None).await,
            Request::ShowRoutes { prefix } => {
                let filter = RouteFilter { exact: *prefix, ..RouteFilter::default() };
                self.routes(filter, cursor).await
            }
            Request::ShowReceived { peer } => {
                let received_from = Some(self.find(peer)?.id);
                self.routes(RouteFilter { received_from, ..RouteFilter::default() }, cursor).await
            }
            Request::ShowAdvertised { peer } => {
                let advertised_to = Some(self.find(peer)?.id);
                self.routes(RouteFilter { advertised_to, ..RouteFilter::default() }, cursor).await
            }
            Request::ShowFib => self.kernel_routes(cursor),
            Request::ShowBfd => self.bfd_sessions().await,
            Request::ShowGroups => {
                let groups = self.ask(|table, _| table.groups()).await?;
                let names = self.names();
                Page::last(groups.iter().map(|group| ctl::group(group, &names)))
            }
            Request::Health => Page::last([self.health().await]),
            Request::Explain { prefix, lookup } => self.explain(*prefix, *lookup).await,
            Request::LogLevel { level } => self.log_level(level.as_deref()),
            Request::Reload => self.reload().await,
            Request::Stop { mode, message } => self.stop_daemon(*mode, message.clone()).await,
        }
    }
}

/// Whether a path takes part at all: what import refused does not, and neither would BIRD have it.
pub(in crate::daemon) fn is_in_table(path: &PathView) -> bool {
    path.unusable.is_none_or(|why| !why.is_refusal())
}

fn index(cursor: Option<&Cursor>) -> u32 {
    match cursor {
        Some(Cursor::Index(index)) => *index,
        _ => 0,
    }
}

pub(in crate::daemon) struct NameTables {
    peers: Registry,
    links: std::collections::BTreeMap<u32, String>,
}

impl Names for NameTables {
    fn peer(&self, peer: PeerId) -> Option<String> {
        self.peers.get(peer).map(|record| record.name.to_string())
    }

    fn interface(&self, index: u32) -> Option<String> {
        self.links.get(&index).cloned()
    }
}
