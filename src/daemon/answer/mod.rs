//! Answers to operators, scrapers and probes.
//!
//! Each kind of client has a view, and a view has no state: it reads the table, the kernel, the
//! registry and the [`RunState`] that the daemon's loop publishes. Clients' commands are sent to
//! that loop as an [`Order`].

mod announcing;
mod bfd;
mod bird;
mod bmp;
mod calico;
mod configuration;
mod contested;
mod control;
mod debugging;
mod draining;
mod dump;
mod events;
mod explain;
mod forecast;
mod forwarding;
mod http;
mod key_chains;
mod liveness;
mod metrics;
mod orders;
mod overview;
mod policies;
mod probe;
mod rates;
mod readiness;
mod rehearsed;
mod routes;
mod sources;
mod state;
mod steering;
mod unconfirmed;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::announcements::Announcements;
use super::drains::Drains;
use super::redistribution::Redistribution;
use super::registry::Registry;
use super::running::Running;
use super::shutdowns::Shutdowns;
use crate::engine::Handle;
use crate::kernel::Fib;
use crate::liveness::Liveness;
use crate::logging::Log;
use crate::mrt::Recorder;
use crate::net::SessionCounters;
use crate::node::{Environment, Follower};

pub(super) use http::HttpView;
pub(super) use orders::{DrainOrder, Order, PlanOrder, RehearsedPlan};
use rehearsed::Rehearsals;
pub(super) use rehearsed::Rehearsed;
pub(super) use state::{Publisher, ReloadRefused, RunState};

use bfd::BfdView;
use bird::BirdView;
use control::ControlView;
use debugging::Debugging;
use draining::DrainView;
pub(super) use dump::DumpView;
use events::EventsView;
use liveness::LivenessView;
use metrics::MetricsView;
use orders::Orders;
use overview::OverviewView;
use probe::Prober;
use rates::RateHistory;
use readiness::ReadinessView;
use sources::Sources;
use state::Node;
use steering::Steering;

/// The owners of the state that is shown, and where orders are sent.
pub(super) struct Parts {
    pub(super) table: Handle,
    pub(super) kernel: Fib,
    pub(super) redistribution: Redistribution,
    pub(super) registry: Registry,
    pub(super) vrfs: Running,
    /// Peers that operators have shut down.
    pub(super) shutdowns: Shutdowns,
    /// The drains in force.
    pub(super) drains: Drains,
    pub(super) session_counters: SessionCounters,
    /// The handle to the BFD thread, and the latest status of each peer's session.
    pub(super) bfd: (crate::bfd::Handle, super::bfd_status::Statuses),
    pub(super) discovery: crate::discovery::Statuses,
    pub(super) log: Log,
    /// The liveness of the daemon's loop.
    pub(super) liveness: Liveness,
    pub(super) recorder: Recorder,
    /// Monitoring stations.
    pub(super) stations: crate::bmp::Statuses,
    pub(super) orders: mpsc::Sender<Order>,
    /// The configuration file, if there is one.
    pub(super) file: Option<PathBuf>,
}

/// The views, and the state that they show.
pub(super) struct Views {
    pub(super) publisher: Publisher,
    pub(super) control: Arc<ControlView>,
    pub(super) bird: Arc<BirdView>,
    pub(super) http: Arc<HttpView>,
    pub(super) liveness: LivenessView,
    pub(super) dumps: DumpView,
    /// The routes that operators announce.
    pub(super) announcements: Announcements,
}

impl Views {
    pub(super) fn new(parts: Parts, state: RunState) -> Self {
        let publisher = Publisher::new(state);
        let announcements = Announcements::default();
        let sources = Sources {
            started: parts.table.clock().now(),
            table: parts.table,
            kernel: parts.kernel,
            redistribution: parts.redistribution,
            registry: parts.registry,
            vrfs: parts.vrfs,
            published: publisher.published(),
            announcements: announcements.clone(),
        };
        let orders = Orders(parts.orders);
        let liveness = LivenessView::new(sources.clone(), parts.liveness);
        let nodename_file = Environment::of_process().nodename_file;
        let readiness = ReadinessView { sources: sources.clone(), nodename_file };
        let (handle, statuses) = parts.bfd;
        let bfd = BfdView { sources: sources.clone(), handle, statuses };
        let drains = DrainView { sources: sources.clone(), drains: parts.drains };
        let metrics = MetricsView {
            sources: sources.clone(),
            drains: drains.clone(),
            liveness: liveness.clone(),
            readiness: readiness.clone(),
            bfd: bfd.clone(),
            discovery: parts.discovery,
            session_counters: parts.session_counters.clone(),
            recorder: parts.recorder.clone(),
            stations: parts.stations.clone(),
            ranking: metrics::Ranking::default(),
            log: parts.log.clone(),
        };
        let steering = Steering { sources: sources.clone(), shutdowns: parts.shutdowns };
        let rates = RateHistory::default();
        let overview =
            OverviewView { sources: sources.clone(), bfd: bfd.clone(), drains: drains.clone() };
        let bird = BirdView {
            sources: sources.clone(),
            liveness: liveness.clone(),
            orders: orders.clone(),
            bfd: bfd.clone(),
            steering: steering.clone(),
            drains: drains.clone(),
            file: parts.file,
        };
        let events = EventsView { sources: sources.clone(), events: parts.log.events().clone() };
        let messages = EventsView { events: parts.log.events().messages(), ..events.clone() };
        let debugging = Debugging { sources: sources.clone() };
        let dumps = DumpView { sources: sources.clone(), recorder: parts.recorder.clone() };
        let http_readiness = readiness.clone();
        let control = Arc::new(ControlView {
            messages,
            debugging,
            overview,
            rates: rates.clone(),
            prober: Prober::new(sources.clone()),
            rehearsals: Rehearsals::new(),
            sources,
            events,
            liveness: liveness.clone(),
            readiness,
            bfd,
            orders,
            steering,
            drains,
            recorder: parts.recorder,
            stations: parts.stations,
            log: parts.log,
            session_counters: parts.session_counters,
        });
        let http = HttpView {
            metrics,
            liveness: liveness.clone(),
            readiness: http_readiness,
            control: Arc::clone(&control),
            rates,
        };
        Views {
            publisher,
            control,
            bird: Arc::new(bird),
            http: Arc::new(http),
            liveness,
            dumps,
            announcements,
        }
    }

    /// Changes the state and publishes the result.
    pub(super) fn publish(&self, change: impl FnOnce(&mut RunState)) {
        self.publisher.publish(change);
    }

    /// This is a Calico node, and `follower` follows its objects.
    pub(super) fn set_node(&self, follower: &Follower) {
        let node = Node {
            status: follower.status.clone(),
            liveness: follower.liveness.clone(),
            asking: follower.asking.clone(),
        };
        self.publish(|state| state.node = Some(node));
        // The parts to probe are different ones from here on.
        self.liveness.forget();
    }
}
