//! The daemon: wires engine, net, fib, ctl and http; start, reload, stop.
//!
//! One task owns everything that changes the set of peers: configuration, connections from ranges,
//! sessions that the table wants closed. It never waits for a peer or for the table.

mod announcements;
mod answer;
mod awaiting;
mod bfd;
mod bfd_status;
mod bmp;
mod closing;
mod confirmation;
mod convergence;
mod deferral;
mod draining;
mod drains;
mod fallover;
mod handover;
mod held_back;
mod inputs;
mod key_chains;
mod last_run;
mod leaks;
mod limits;
mod link_local;
mod link_watch;
mod listening;
mod local_routes;
mod neighbors;
mod next_hops;
mod node;
mod order;
mod own_file;
mod peers;
mod recording;
mod redistribution;
mod registry;
mod rehearsal;
mod reload;
mod running;
mod secret_watch;
mod secrets;
mod selection;
mod service_manager;
mod shutdowns;
mod sockets;
mod stale;
mod startup;
mod vrfs;
mod wiring;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Close, Negotiated};
use bgp_proto::table::TableEvent;
use bgp_proto::types::{FamilySet, PeerId};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Config;
use crate::ctl::ServerError;
use crate::discovery::Discovery;
use crate::engine::{Engine, Event};
use crate::event_names::{STARTED, STOPPING};
use crate::kernel::{Fib, Leave};
use crate::liveness::Liveness;
use crate::logging::Log;
use crate::net::{Directory, Listeners, PeerEvent};
use crate::node::Setup;
use crate::plural::counted;
use crate::supervise::{self, Ending};
use crate::version;

use answer::{Parts, RunState, Views};
use bfd::Consequence;
use confirmation::Confirmation;
use convergence::Convergence;
use deferral::{Deferral, FirstExport};
use drains::Drains;
use fallover::Fallover;
use inputs::{Inbox, Input, Signals};
use last_run::RunFile;
use limits::{Descriptors, say_memory_limits};
use link_watch::LinkWatch;
use neighbors::Neighbors;
use next_hops::NextHops;
use node::Node;
use peers::{Peers, Shared};
use recording::Mrt;
use redistribution::Redistribution;
use registry::Place;
use secret_watch::SecretWatch;
use secrets::SecretFaults;
use service_manager::ServiceManager;
use shutdowns::Shutdowns;
use sockets::{Sockets, serve_http};
use startup::{Awaited, Progress, Ranges, Startup};
use vrfs::Vrfs;
use wiring::{KernelGate, Reports, Threads, find_beside};

/// Most connections from ranges that may wait to become peers.
const DYNAMIC_MAX: usize = 1024;
/// Most orders from control clients that may wait.
const ORDERS_MAX: usize = 16;
/// Most inputs that are taken before deadlines are reviewed, which takes as long as there are peers.
const INPUTS_MAX: usize = 64;
/// How long to wait for the first dump of the kernel's routes.
const FIRST_READING: Duration = Duration::from_secs(2);
/// How long sessions may take to end when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a stop may take in all, even if something hangs. Longer than the sum of all its waits.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How long the end waits for the last MRT file.
const MRT_STOP_MAX: Duration = Duration::from_secs(10);
/// How long the kernel keeps forwarding after neighbours were notified of the shutdown: they need a
/// moment to switch to other routes.
const SHUTDOWN_PAUSE: Duration = Duration::from_secs(1);

/// Why the daemon could not start or continue: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's routing tables.
    #[error("{}{}", .0, source_text(.0))]
    Fib(#[from] crate::kernel::Error),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] ServerError),
    /// A listening address.
    #[error("{0}")]
    Listen(#[from] crate::net::Unbound),
    /// Threads, sockets, signals.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A shutdown has ended without removing all our kernel routes.
    #[error(
        "stopped, but {0} routes of ours are still in the kernel: the next start removes them, or \
         ip route flush with our table and protocol"
    )]
    LeftRoutes(u64),
}

fn source_text(error: &crate::kernel::Error) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

/// How the daemon ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Peers keep our routes (RFC 4724), and so does the kernel.
    Graceful,
    /// Peers are notified (Cease 6/2), and our kernel routes are removed.
    Shutdown {
        /// The operator's shutdown communication (RFC 9003); `None`: a default text.
        message: Option<String>,
    },
}

/// Runs until a signal or a command ends it. Needs a multi-threaded runtime.
///
/// # Errors
/// The kernel, a listening address or the control socket cannot be used, or a shutdown has left
/// routes in the kernel.
pub async fn run(setup: Setup, log: Log) -> Result<(), Error> {
    let mut daemon = Daemon::start(setup, log).await?;
    let stop = daemon.serve().await;
    daemon.stop(stop).await
}

struct Daemon {
    /// The file that a reload reads; `None`: the settings come from the environment alone.
    path: Option<PathBuf>,
    config: Arc<Config>,
    mrt: Mrt,
    stations: crate::bmp::Stations,
    confirmation: Confirmation,
    node: Option<Node>,
    convergence: Convergence,
    engine: Engine,
    fib: Fib,
    redistribution: Redistribution,
    next_hops: NextHops,
    listeners: Listeners,
    vrfs: Vrfs,
    peers: Peers,
    drains: Drains,
    /// When [`Daemon::check_drains`] is next due.
    drains_due: draining::Due,
    views: Views,
    /// Whether the table's changes reach the kernel.
    gate: KernelGate,
    descriptors: Descriptors,
    /// Whether neighbours may hold routes that an earlier run advertised.
    earlier_run: deferral::Start,
    /// The file in which this run leaves a record for the next one.
    run_file: RunFile,
    /// Why the record of this run or of the previous one is incomplete.
    run_fault: Option<String>,
    /// The servers of the control socket and of HTTP.
    servers: Vec<tokio::task::JoinHandle<()>>,
    bfd: bfd::Coupling,
    neighbors: Neighbors,
    fallover: Fallover,
    link_locals: link_local::Known,
    link_watch: LinkWatch,
    /// Which configured addresses we are not listening on, and why.
    listen_fault: Option<String>,
    /// When to try to listen again.
    listen_again: Option<Instant>,
    /// Neighbours that cannot connect because the kernel rejected their TCP MD5 key.
    key_faults: Vec<reload::KeyFaultIn>,
    secret_watch: SecretWatch,
    secret_faults: SecretFaults,
    /// When a lifetime of a key begins or ends.
    keys_due: Option<Instant>,
    log: Log,
    service_manager: ServiceManager,
    signals: Signals,
    inbox: Inbox,
}

impl Daemon {
    async fn start(setup: Setup, log: Log) -> Result<Daemon, Error> {
        let (setup, confirmation) = confirmation::setup_of(setup);
        let (path, settings, config) = match setup {
            Setup::Own { path, config } => (Some(path), None, *config),
            Setup::Node { path, settings } => {
                let idle = Config::idle(settings.host.clone());
                (path, Some(settings), idle)
            }
        };
        let sockets = Sockets::bind(&config.host.control)?;
        let descriptors = Descriptors::raise(&config)?;
        let mut run_file = RunFile::beside(&config.host.control.socket);
        let mut earlier = last_run::take_over(&mut run_file, &config);
        earlier.add_fault(run_file.claim(&config.fib));
        let (shutdowns, fault) = Shutdowns::of_last_run(&config.host.control.socket);
        earlier.add_fault(fault);
        let (drains, fault) = Drains::of_last_run(&config.host.control.socket);
        earlier.add_fault(fault);
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), &path);
        let (table_events, events) = mpsc::unbounded_channel();
        let reports = Reports::new(table_events);
        let links = Arc::clone(&reports.links);
        let threads = Threads::start(&config, config.fib.table, seed, &reports)?;
        let vrfs = Vrfs::new(reports, seed);

        let (peer_events, peers_inbox) = mpsc::unbounded_channel();
        let (dynamic_sender, dynamic) = mpsc::channel(DYNAMIC_MAX);
        let (orders_sender, orders) = mpsc::channel(ORDERS_MAX);
        let directory = Directory::default();
        let table = threads.engine.handle();
        let place = Place {
            table: table.clone(),
            directory: directory.clone(),
            beside: find_beside(threads.fib.clone(), vrfs.outside()),
            recovery: threads.recovery.clone(),
            device: None,
        };
        let mut mrt = Mrt::start()?;
        let mut stations = bmp::stations(table.clone(), vrfs.shown());
        let recorder = mrt.recorder().clone();
        let shared = Shared {
            shutdowns: shutdowns.clone(),
            drains: drains.clone(),
            recorder: recorder.clone(),
        };
        let peers = Peers::new(place, peer_events, seed, shared);
        let liveness = Liveness::default();
        let bfd = bfd::Coupling::new(crate::bfd::Bfd::start(table.clock())?);
        let discovery = Discovery::new(table.clock(), seed);
        let parts = Parts {
            table: table.clone(),
            kernel: threads.fib.clone(),
            redistribution: threads.redistribution.clone(),
            registry: peers.registry(),
            vrfs: vrfs.shown(),
            shutdowns,
            drains: drains.clone(),
            session_counters: peers.session_counters(),
            bfd: (bfd.handle().clone(), bfd.statuses()),
            discovery: discovery.statuses(),
            log: log.clone(),
            liveness: liveness.clone(),
            recorder,
            stations: stations.statuses(),
            orders: orders_sender,
            file: path.clone(),
        };
        let described = match &path {
            Some(path) => path.display().to_string(),
            None => "the environment of calico-node".to_owned(),
        };
        let config = Arc::new(config);
        let state = RunState::new(described, Arc::clone(&config), table.clock().now());
        let views = Views::new(parts, state);
        mrt.set(config.host.mrt.as_ref(), &views.dumps);
        stations.set(&config.host.bmp);
        let node = settings.map(|settings| Node::start(*settings));
        let secret_watch = SecretWatch::start();
        if let Some(node) = &node {
            views.set_node(node.follower());
        }
        let mut daemon = Daemon {
            path,
            config,
            confirmation,
            node,
            convergence: Convergence::default(),
            listeners: Listeners::new(
                directory,
                dynamic_sender,
                peers.session_counters(),
                descriptors.for_bgp(),
            ),
            vrfs,
            gate: threads.gate,
            descriptors,
            earlier_run: earlier.start,
            run_file,
            run_fault: earlier.fault,
            engine: threads.engine,
            fib: threads.fib,
            redistribution: threads.redistribution,
            next_hops: threads.next_hops,
            peers,
            // The previous run may have ended within `MOVE_TIME` of the start of a drain.
            drains_due: draining::Due::at_start(&drains, Instant::now()),
            drains,
            views,
            servers: Vec::new(),
            listen_fault: None,
            listen_again: None,
            key_faults: Vec::new(),
            secret_faults: SecretFaults::default(),
            keys_due: None,
            log,
            service_manager: ServiceManager::of_process(),
            signals: Signals::listen()?,
            inbox: Inbox {
                table: events,
                peers: peers_inbox,
                dynamic,
                orders,
                links,
                bfd: bfd.handle().clone(),
                discovery: discovery.changed(),
                secrets: secret_watch.changed(),
                liveness,
            },
            secret_watch,
            mrt,
            stations,
            bfd,
            neighbors: Neighbors::new(discovery),
            fallover: Fallover::default(),
            link_locals: link_local::Known::default(),
            link_watch: LinkWatch::default(),
        };
        daemon.review_descriptors();
        daemon.follow_secrets();
        daemon.show_confirmation();
        daemon.open_servers(sockets);
        // Before any session: our OPENs announce whether forwarding state was preserved, which
        // depends on the first dump. On a time-out they announce that it was.
        let read = tokio::time::timeout(FIRST_READING, threads.synchronised.notified()).await;
        if read.is_err() || daemon.fib.counters().installed > 0 {
            daemon.earlier_run = deferral::Start::Again;
        }
        if daemon.node.is_none() {
            daemon.begin_vrfs().await;
            daemon.begin()?;
        }
        daemon.service_manager.ready();
        Ok(daemon)
    }

    /// Starts the servers for operators, scrapers and probes, and the watchdog.
    fn open_servers(&mut self, sockets: Sockets) {
        self.servers = sockets.serve(&self.views);
        if let Some(listen) = self.config.host.http.as_ref().map(|http| http.listen) {
            let (view, publisher) = (Arc::clone(&self.views.http), self.views.publisher.clone());
            let served = serve_http(listen, view, publisher);
            self.servers.push(tokio::spawn(supervise::task("http", Ending::Never, served)));
        }
        let liveness = self.views.liveness.clone();
        let stuck = move || {
            let liveness = liveness.clone();
            async move { liveness.not_alive().await }
        };
        let watchdog = self.service_manager.clone().keep_alive(stuck);
        self.servers.push(tokio::spawn(supervise::task("watchdog", Ending::Never, watchdog)));
    }

    /// Starts everything in the configuration, in an order in which each step finds what it needs:
    /// keys before listening, the peers in the directory before connections are accepted.
    fn begin(&mut self) -> Result<(), Error> {
        self.find_neighbors();
        let config = Arc::clone(&self.config);
        let first_export = deferral::first_export(&config);
        if first_export == FirstExport::Deferred {
            self.engine.handle().defer_export();
        }
        self.apply_local(&Config::idle(config.host.clone()).changes_to(&config));
        self.set_keys();
        self.note_key_chains();
        // Before any peer is added: if listening fails permanently, nothing is dialled.
        self.listen_first()?;
        self.peers.set_ranges(&config.dynamic);
        for entry in &config.peers {
            self.peers.add(entry);
        }
        self.review_keys();
        self.listeners.accept();
        self.listen_in_vrfs();
        self.follow_leaks();
        self.begin_startup(first_export);
        Ok(())
    }

    /// Starts the wait for the routes of the peers that exist now.
    fn begin_startup(&mut self, first_export: FirstExport) {
        let now = self.engine.handle().clock().now();
        let config = Arc::clone(&self.config);
        let links = self.fib.links();
        let mut peers = self.peers.registry().all();
        peers.retain(|record| neighbors::is_awaited(record, &links));
        let awaited = peers.iter().map(|record| Awaited {
            peer: record.id,
            restart_time: record.session.graceful_restart_time,
        });
        self.convergence.startup = Some(Startup::new(awaited, self.startup_ranges(), now));
        let ids = peers.iter().map(|record| record.id);
        let has_ranges = !config.dynamic.is_empty();
        self.convergence.deferral = (first_export == FirstExport::Deferred)
            .then(|| Deferral::new(ids, has_ranges, self.earlier_run, now));
        self.views.publish(|state| {
            state.startup.clone_from(&self.convergence.startup);
            state.not_ready = Some("waiting for the peers' routes".into());
        });
        info!(
            event = STARTED,
            "margay {} (commit {}) runs as AS {}, router id {}, with {} and {}",
            version::VERSION,
            version::COMMIT,
            config.bgp.identity.asn,
            config.bgp.identity.router_id,
            counted(config.peers.len(), "peer"),
            counted(config.dynamic.len(), "range"),
        );
        say_memory_limits(&config, self.memory_key());
        self.say_held_back();
    }

    /// How the start-up treats dynamic peers.
    fn startup_ranges(&self) -> Ranges {
        if self.config.dynamic.is_empty() {
            return Ranges::None;
        }
        match self.earlier_run {
            deferral::Start::First => Ranges::OwnNothing,
            deferral::Start::Again => {
                let times =
                    self.config.dynamic.iter().map(|range| range.session.graceful_restart_time);
                Ranges::MayOwnRoutes { restart_time: times.flatten().max() }
            }
        }
    }

    /// Limits dynamic peers to the number for which there are descriptors, and warns if that is
    /// less than the configuration allows.
    pub(super) fn review_descriptors(&mut self) {
        self.peers.set_dynamic_max(self.descriptors.dynamic_peers_max(&self.config));
        let shortage = self.descriptors.shortage(&self.config);
        if let Some(text) = &shortage {
            warn!("{text}");
        }
        let faults = self.run_fault.iter().cloned().chain(shortage);
        let problems = faults.chain(self.secret_faults.problems()).collect();
        self.views.publish(|state| state.problems = problems);
    }

    /// The configuration key that limits the memory of all routes.
    fn memory_key(&self) -> &'static str {
        if self.node.is_some() { "calico.memory-max" } else { "bgp.memory-max" }
    }

    async fn serve(&mut self) -> Stop {
        loop {
            self.bfd.follow(&self.peers.registry());
            let deadlines = [
                self.check_startup(),
                self.check_deferral(),
                self.check_handover(),
                self.check_listening(),
                self.check_drains(),
                self.check_confirmation(),
                self.check_announcements(),
                self.check_keys(),
            ];
            let mut next = Some(self.wait(deadlines.into_iter().flatten().min()).await);
            let mut taken = 0;
            while let Some(input) = next.take() {
                if let Some(stop) = self.take(input) {
                    return stop;
                }
                taken += 1;
                if taken < INPUTS_MAX {
                    next = self.wait(None).now_or_never();
                }
            }
        }
    }

    /// Returns how to stop if that is what the input asks for.
    fn take(&mut self, input: Input) -> Option<Stop> {
        match input {
            Input::Table(event) => self.on_table_event(event),
            Input::Peer(event) => self.on_peer_event(event),
            Input::Dynamic(accepted) => self.peers.admit(accepted),
            Input::Order(order) => return self.carry_out(order),
            // The refusal is logged there.
            Input::Reload => drop(self.reload()),
            Input::Stop(stop) => return Some(stop),
            Input::Node(input) => self.on_node_input(input),
            Input::LinksChanged => self.on_links(),
            Input::NeighborsChanged => self.review_neighbors(),
            Input::SecretsChanged => self.on_secrets_changed(),
            Input::BfdChanged => self.on_bfd_changes(),
            Input::Liveness => self.inbox.liveness.answer(self.inbox.liveness.question()),
            Input::Deadline => {}
        }
        None
    }

    /// Checks whether the start-up is over; returns when to check again.
    fn check_startup(&mut self) -> Option<Instant> {
        let clock = self.engine.handle().clock();
        let (now, registry) = (clock.now(), self.peers.registry());
        let is_slow = |peer| registry.get(peer).is_some_and(|record| record.takes_connections());
        let startup = self.convergence.startup.as_mut()?;
        match startup.poll(now, is_slow, || self.vrfs.lookups(&self.next_hops)) {
            Progress::WaitingUntil(at) => {
                if !startup.is_converging(now) {
                    self.views.publish(|state| state.not_ready = None);
                }
                Some(Instant::from_std(clock.instant(at)))
            }
            Progress::Over => {
                self.convergence.startup = None;
                self.views.publish(|state| (state.startup, state.not_ready) = (None, None));
                self.fib.end_of_startup();
                self.vrfs.end_of_startup();
                self.peers.end_of_startup();
                info!("start-up is complete: removing stale kernel routes of an earlier run");
                None
            }
        }
    }

    fn on_table_event(&mut self, event: Event) {
        match event {
            Event::EndOfRib { peer, family } => {
                self.convergence.handle_end_of_rib(peer, family);
            }
            Event::Table(TableEvent::Close { peer, session, reason }) => {
                self.close_for_table(peer, session, reason);
            }
            Event::Table(TableEvent::PrefixWarning { peer, family, count, bound }) => {
                self.peers.warn_of_limit(peer, family, count, bound);
            }
            // The engine reports this as `Event::EndOfRib`.
            Event::Table(TableEvent::EndOfRib { .. }) => {}
            Event::Table(
                event @ (TableEvent::StaleRemoved { .. }
                | TableEvent::LongLivedStale { .. }
                | TableEvent::Synchronised { .. }
                | TableEvent::NotLongLived { .. }),
            ) => self.log_stale(&event),
            Event::Table(TableEvent::Note(text)) => warn!("{text}"),
        }
    }

    fn on_bfd_changes(&mut self) {
        for (record, consequence) in self.bfd.take_failures(&self.peers.registry()) {
            match consequence {
                Consequence::End(session, close) => record.handle.end(session, close),
                Consequence::ForwardingLost => record.place.table.peer_forwarding_lost(record.id),
            }
        }
    }

    /// Links or addresses have changed.
    fn on_links(&mut self) {
        self.tell_tunnels();
        let links = self.fib.links();
        // First what must not wait: the sessions whose link or address is lost. Their tasks may end
        // them before the report is made, which says who used the link.
        let mut ended = BTreeMap::new();
        for (record, session, close) in self.cut_off(&links) {
            let negotiated = record.handle.snapshot().negotiated;
            ended.extend(negotiated.map(|negotiated| (record.id, negotiated.local_addr)));
            record.handle.end(session, close);
        }
        let users = (self.vrfs.vrf_of_link(), self.vrfs.next_hops_in(&self.next_hops));
        self.link_watch.handle(Arc::clone(&links), &self.peers.registry(), &ended, users);
        self.review_vrfs();
        self.review_neighbors();
        self.review_link_locals(&links);
        self.peers.handle_links(&links, Instant::now());
        if self.listen_again.is_some() {
            self.listen();
        }
    }

    fn on_peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Up(peer) => {
                self.tell_link_local(peer);
                let families = self.families_of(peer);
                let now = self.engine.handle().clock().now();
                let negotiated = self.negotiated(peer);
                self.convergence.handle_up(now, peer, families, negotiated.as_deref());
            }
            PeerEvent::Down(peer) => {
                self.convergence.handle_down(peer);
                self.change_kept_role(peer);
            }
            PeerEvent::Ended(peer) => {
                self.convergence.handle_removed(peer);
                self.peers.forget(peer);
            }
        }
    }

    fn negotiated(&self, peer: PeerId) -> Option<Arc<Negotiated>> {
        self.peers.registry().get(peer)?.handle.snapshot().negotiated
    }

    fn families_of(&self, peer: PeerId) -> FamilySet {
        match (self.negotiated(peer), self.peers.registry().get(peer)) {
            (Some(negotiated), _) => negotiated.families,
            (None, Some(record)) => record.session.families,
            (None, None) => FamilySet::EMPTY,
        }
    }

    /// Ends everything, in an order in which no neighbour sends traffic here after we have stopped
    /// forwarding.
    async fn stop(self, stop: Stop) -> Result<(), Error> {
        supervise::end_within(STOP_MAX);
        self.service_manager.stopping();
        drop(self.listeners);
        // Orders that wait are refused, and those that come.
        drop(self.inbox.orders);
        // Ending sessions, and the withdrawals that follow, must not change the kernel's routes.
        self.gate.close();
        let mut vrfs = self.vrfs;
        vrfs.begin_stop();
        let fibs: Vec<Fib> = vrfs.all().map(|vrf| vrf.fib.clone()).chain([self.fib]).collect();
        let (close, leave) = match stop {
            Stop::Graceful => {
                info!(
                    event = STOPPING,
                    "stopping gracefully: peers and the kernel keep our routes"
                );
                stop_fibs(&fibs, Leave::Keep).await;
                (Close::GracefulStop, Leave::Keep)
            }
            Stop::Shutdown { message } => {
                info!(
                    event = STOPPING,
                    "shutting down: withdrawing our routes from peers and the kernel"
                );
                let text = message.unwrap_or_else(|| "margay is shut down".into());
                (Close::Shutdown { text }, Leave::Withdraw)
            }
        };
        // Before the sessions: a neighbour must not mistake our stop for a failure of the path.
        let bfd = self.bfd;
        if tokio::task::spawn_blocking(|| bfd.stop()).await.is_err() {
            warn!("the BFD thread ended by a panic");
        }
        let had_sessions = self.peers.registry().len() > 0;
        self.peers.stop_all(close, self.inbox.peers, STOP_GRACE).await;
        self.stations.stop().await;
        let mut mrt = self.mrt;
        mrt.end_dumps();
        if leave == Leave::Withdraw && had_sessions {
            tokio::time::sleep(SHUTDOWN_PAUSE).await;
        }
        // No peer and no kernel writer needs the table any more.
        self.engine.stop();
        vrfs.stop_engines();
        let mut left = 0;
        if leave == Leave::Withdraw {
            stop_fibs(&fibs, leave).await;
            let counters = fibs.iter().map(Fib::counters);
            left = counters.map(|c| c.installed + c.pending + c.failed).sum();
        }
        // The disk may not answer, which must keep no route in the kernel. The control socket shows that
        // this run has not ended.
        mrt.stop(MRT_STOP_MAX).await;
        for server in self.servers {
            server.abort();
            // Wait for the cancellation, which removes the control socket's file.
            let _ = server.await;
        }
        if left > 0 {
            return Err(Error::LeftRoutes(left));
        }
        if leave == Leave::Withdraw {
            self.run_file.remove();
        }
        Ok(())
    }
}

/// Stops the kernel writers at the same time: each may take as long as one alone is given.
async fn stop_fibs(fibs: &[Fib], leave: Leave) {
    let stop = |fib: Fib| tokio::task::spawn_blocking(move || fib.stop(leave));
    let stops: Vec<_> = fibs.iter().cloned().map(stop).collect();
    for stop in stops {
        if stop.await.is_err() {
            warn!("the kernel's thread ended by a panic");
        }
    }
}
