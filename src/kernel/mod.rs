//! Everything between margay and the kernel's routing tables.
//!
//! Here: installing routes, adopting what an earlier run left, resolving next hops, learning local
//! routes. Not here: BGP; this module takes [`FibChange`]s and gives [`FibEvent`]s.
//!
//! Routes of others are never overwritten or deleted: ours are those in the configured table with
//! the configured protocol number, and no others are touched.
//!
//! One thread owns all sockets: it listens to the kernel's events, reads the tables again when
//! events were lost or when the kernel changes routes without telling, and writes the difference
//! in batches. What is wanted is state, not a queue: a route that changes ten times while a
//! batch is under way is written once.

mod carry;
mod event;
mod fib;
mod foreign;
mod learn;
mod links;
mod look;
mod message;
mod netlink;
mod nexthops;
mod objects;
mod spec;
mod watch;
mod worker;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bgp_proto::types::{FibChange, Prefix};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

pub use carry::{Carried, Place, carry_over};
pub use event::{FibEvent, LearnRule, LearnSource, LearnedKind, LearnedRoute, NextHopState, Over};
pub use fib::view::{FibCounters, FibState, FibView, ViewGateway, ViewKind};
pub use look::{Picture, SeenKind, SeenRoute, look};
pub use nexthops::Deciding;
use spec::RouteSpec;
pub use spec::{METRIC_IPV4, METRIC_IPV6, RouteDefaults};
pub use worker::Stage;
use worker::{Shared, Stop, Worker};

use crate::supervise;

/// Where our routes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibConfig {
    /// Whether routes are written at all. When not, resolving and learning work all the same, and
    /// need no privilege.
    pub enabled: bool,
    /// Routing table, default 254 (main).
    pub table: u32,
    /// rtm_protocol, default 12 (bird). A route in the table with this number is ours.
    pub protocol: u8,
    /// What routes get that bring none of their own.
    pub defaults: RouteDefaults,
    /// What the next hops of BGP routes may be resolved over.
    pub resolve_over: ResolveOver,
    /// How routes say where they go.
    pub next_hops: NextHopForm,
}

/// How routes say where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopForm {
    /// Each route brings its gateways and interfaces.
    #[default]
    Inline,
    /// Routes over gateways name a next-hop object of ours (Linux 5.3), which the routes behind one BGP
    /// next hop share: when it is resolved in another way, one request moves them all. Where the kernel
    /// refuses objects, routes bring their gateways.
    Objects,
}

/// What the next hops of BGP routes may be resolved over, besides the kernel's other routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveOver {
    /// Nothing else.
    Kernel,
    /// Routes of ours with [`Recursion::Direct`](bgp_proto::types::Recursion::Direct).
    #[default]
    Direct,
}

impl Default for FibConfig {
    fn default() -> Self {
        FibConfig {
            enabled: true,
            table: 254,
            protocol: 12,
            defaults: RouteDefaults::default(),
            resolve_over: ResolveOver::default(),
            next_hops: NextHopForm::default(),
        }
    }
}

/// What [`Fib::stop`] leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Our routes stay and go on forwarding; the next run adopts them.
    Keep,
    /// Our routes are withdrawn.
    Withdraw,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Up and with carrier.
    pub running: bool,
    /// What it is like.
    pub traits: LinkTraits,
    /// Longest packet, in octets.
    pub mtu: u32,
    /// Our addresses on it, with the length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What an interface is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTraits {
    /// It leads to ourselves.
    pub loopback: bool,
    /// It can send to everybody at once.
    pub broadcast: bool,
    /// It can send to groups.
    pub multicast: bool,
}

/// Why the FIB could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket call failed.
    #[error("cannot {what}")]
    Socket {
        /// What was attempted.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Routes may not be written.
    #[error(
        "the kernel does not let this process write routes: give it CAP_NET_ADMIN, or set \
         `enabled = false` in [fib]"
    )]
    Permission,
}

/// Handle to the kernel's routing tables. Clones share one thread; when the last one goes without
/// [`Fib::stop`], the thread ends and routes stay.
#[derive(Clone)]
pub struct Fib {
    thread: Arc<Thread>,
}

/// The thread, ended when the last handle goes.
struct Thread {
    config: FibConfig,
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Fib {
    /// Opens the sockets in the calling thread's network namespace and starts the thread.
    ///
    /// `events` runs on that thread: it must not block for long and must not call [`Fib::stop`].
    ///
    /// # Errors
    /// A socket cannot be opened, or writing is enabled and not permitted.
    pub fn start(
        config: FibConfig,
        events: impl Fn(FibEvent) + Send + Sync + 'static,
    ) -> Result<Fib, Error> {
        let shared = Arc::new(Shared::new(&config)?);
        let worker = Worker::open(config.clone(), Arc::clone(&shared), Box::new(events))?;
        let guard = supervise::part(worker::PART);
        let run = move || {
            guard.run(|| worker.run());
            guard.finish();
        };
        let handle = std::thread::Builder::new()
            .name("fib".to_owned())
            .spawn(run)
            .map_err(|source| Error::Socket { what: "start the FIB's thread", source })?;
        Ok(Fib { thread: Arc::new(Thread { config, shared, handle: Mutex::new(Some(handle)) }) })
    }

    /// Changes what is wanted; `None` is a withdrawal. The newest per prefix counts. Never waits
    /// for the kernel. Without effect when writing is disabled.
    pub fn submit(&self, changes: impl IntoIterator<Item = (Prefix, impl Into<FibChange>)>) {
        /// Changes taken at a time, so that `show fib` and the writer get their turn.
        const CHUNK: usize = 1024;
        let FibConfig { enabled, defaults, next_hops, .. } = self.thread.config;
        if !enabled {
            return;
        }
        let mut changes = changes.into_iter();
        let mut chunk = Vec::new();
        loop {
            chunk.extend(changes.by_ref().take(CHUNK).map(|(prefix, change)| {
                let change = change.into().map(|mut route| {
                    if next_hops == NextHopForm::Inline {
                        route.next_hop = None;
                    }
                    let recursion = route.recursion;
                    (RouteSpec::wanted(prefix, route, &defaults), recursion)
                });
                (prefix, change)
            }));
            if chunk.is_empty() {
                return;
            }
            let mut plan = self.thread.shared.plan();
            for (prefix, change) in chunk.drain(..) {
                match change {
                    FibChange::Keep => plan.keep(prefix),
                    change => plan.want(prefix, change.route()),
                }
            }
            drop(plan);
            self.thread.shared.wake();
        }
    }

    /// Where to say how BGP next hops are reached. It keeps no thread running.
    pub fn resolutions(&self) -> Resolutions {
        Resolutions(Arc::clone(&self.thread.shared))
    }

    /// Says that every route known from the start was submitted: what an earlier run left and
    /// nobody wants is deleted. Until then it is kept, and adopted when it is wanted.
    pub fn end_of_startup(&self) {
        self.thread.shared.plan().end_of_startup();
        self.thread.shared.wake();
    }

    /// At most `limit` routes after `after`, in prefix order.
    pub fn view(&self, after: Option<Prefix>, limit: usize) -> Vec<FibView> {
        let rows = self.thread.shared.plan().view(after, limit);
        let links = self.links();
        rows.into_iter().map(|row| fib::view::render(row, &self.thread.config, &links)).collect()
    }

    /// The route to `prefix`, if one is wanted.
    pub fn lookup(&self, prefix: Prefix) -> Option<FibView> {
        let row = self.thread.shared.plan().row(prefix)?;
        Some(fib::view::render(row, &self.thread.config, &self.links()))
    }

    /// Numbers for the metrics.
    pub fn counters(&self) -> FibCounters {
        self.thread.shared.plan().counters()
    }

    /// How long the kernel took for batches of routes.
    pub fn collect(&self) -> Vec<MetricFamily> {
        self.thread.shared.writes.collect()
    }

    /// Asks the thread whether it turns; returns when it has received the kernel's events, read the
    /// tables if that was due, and written a batch if there was something to write.
    pub fn ask_liveness(&self) -> impl Future<Output = ()> + Send + use<> {
        let answer = self.thread.shared.liveness.ask();
        self.thread.shared.wake();
        answer
    }

    /// What the thread does at present.
    pub fn stage(&self) -> Stage {
        self.thread.shared.stage()
    }

    /// The interfaces, by name. Empty until [`FibEvent::Synchronised`].
    pub fn links(&self) -> Arc<[Link]> {
        self.thread.shared.links()
    }

    /// The kernel route that decides how a tracked address is reached, for people; `None` when there
    /// is none or the address is not tracked.
    pub fn decided_by(&self, addr: IpAddr) -> Option<Deciding> {
        self.thread.shared.deciding().get(&addr).cloned()
    }

    /// Reports how `addr` is reached, at once and at every change. Tracking twice is tracking
    /// once, but reports again.
    pub fn track(&self, addr: IpAddr) {
        let mut control = self.thread.shared.control();
        control.untrack.remove(&addr);
        control.track.insert(addr);
        drop(control);
        self.thread.shared.wake();
    }

    /// Ends the reports about `addr`; one that is under way may still come.
    pub fn untrack(&self, addr: IpAddr) {
        let mut control = self.thread.shared.control();
        control.track.remove(&addr);
        control.untrack.insert(addr);
        drop(control);
        self.thread.shared.wake();
    }

    /// Replaces the rules that select routes to learn; only differences are reported.
    pub fn learn(&self, rules: Vec<LearnRule>) {
        self.thread.shared.control().rules = Some(rules);
        self.thread.shared.wake();
    }

    /// Waits (at most 30 s) until what was submitted is written, keeps or withdraws our routes,
    /// and ends the thread. Without effect after the first call.
    pub fn stop(self, leave: Leave) {
        self.thread.end(Stop::Finish(leave));
    }
}

/// Takes how BGP next hops are reached. Clones are the same.
#[derive(Clone, Debug)]
pub struct Resolutions(Arc<Shared>);

impl Resolutions {
    /// Takes how a BGP next hop is reached, just before the one who submits routes is told, in the same
    /// words and the same order: routes over next-hop objects that rest on it alone
    /// ([`FibRoute::next_hop`](bgp_proto::types::FibRoute::next_hop)) move at once, and need not be
    /// submitted again. Without effect in other forms.
    pub fn update(&self, addr: IpAddr, state: &NextHopState) {
        if let NextHopState::Via { hops, .. } = state {
            self.0.plan().handle_next_hop(addr, hops);
            self.0.wake();
        }
    }
}

impl Thread {
    fn end(&self, stop: Stop) {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            self.shared.control().stop = Some(stop);
            self.shared.wake();
            if handle.join().is_err() {
                tracing::error!("the FIB's thread ended by a panic");
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The last handle may be dropped on the thread itself, inside the owner's event function.
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.as_ref().is_some_and(|h| h.thread().id() == std::thread::current().id()) {
            *handle = None;
            self.shared.control().stop = Some(Stop::Abandon);
            return;
        }
        drop(handle);
        self.end(Stop::Abandon);
    }
}
