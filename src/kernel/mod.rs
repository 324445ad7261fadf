//! The interface to the kernel's routing tables.
//!
//! It installs routes, adopts those that an earlier run left, resolves next hops and learns local
//! routes. It does not know BGP: it takes [`FibChange`]s and emits [`FibEvent`]s.
//!
//! Routes of others are never overwritten or deleted. Ours are those in the configured table with
//! the configured protocol number.
//!
//! One thread owns all sockets: it receives the kernel's events, dumps the tables again when events
//! were lost or when the kernel changes routes without an event, and writes the differences in
//! batches. The wanted routes are state, not a queue: a route that changes ten times while a batch
//! is in flight is written once.

mod ask;
mod carry;
mod claim;
mod event;
mod fib;
mod foreign;
mod forwarded;
mod l3mdev;
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

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bgp_proto::types::{FibChange, Prefix};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;

pub use ask::{KernelAnswer, KernelDrop, KernelUse, kernel_route_to};
pub use carry::{Carried, Place, carry_over};
pub use claim::Claim;
pub use event::{FibEvent, LearnRule, LearnSource, LearnedKind, LearnedRoute, NextHopState, Over};
pub(crate) use fib::plan::ids_of_table;
pub use fib::view::{FibCounters, FibState, FibView, ViewGateway, ViewKind};
pub use forwarded::forwarded_packets;
pub use l3mdev::shared_sockets;
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
    /// Whether routes are written at all. If not, resolving and learning still work, and need no
    /// privilege.
    pub enabled: bool,
    /// Routing table.
    pub table: u32,
    /// rtm_protocol. A route in the table with this number is ours.
    pub protocol: u8,
    /// Defaults for routes that do not set these values.
    pub defaults: RouteDefaults,
    /// What the next hops of BGP routes may be resolved over.
    pub resolve_over: ResolveOver,
    /// How routes refer to their next hops.
    pub next_hops: NextHopForm,
}

/// How routes refer to their next hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopForm {
    /// Each route contains its gateways and interfaces.
    #[default]
    Inline,
    /// Routes over gateways refer to a next-hop object of ours (Linux 5.3), shared by all routes
    /// with the same BGP next hops: when the resolution of one changes or is lost, one request moves
    /// them all. If the kernel refuses objects, routes contain their gateways.
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

impl FibConfig {
    /// Routes with a protocol in a table, and every other setting's default.
    pub fn new(table: u32, protocol: u8) -> Self {
        FibConfig {
            enabled: true,
            table,
            protocol,
            defaults: RouteDefaults::default(),
            resolve_over: ResolveOver::default(),
            next_hops: NextHopForm::default(),
        }
    }
}

/// What [`Fib::stop`] does with our routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// They stay installed and keep forwarding; the next run adopts them.
    Keep,
    /// They are withdrawn.
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
    /// Its properties.
    pub traits: LinkTraits,
    /// MTU, in octets.
    pub mtu: u32,
    /// Our addresses on it, with the prefix length of their network. Without those that duplicate address
    /// detection has not yet cleared, or has found elsewhere.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    /// Our addresses on it; link-local ones with this interface inside
    /// ([`on_interface`](bgp_proto::types::on_interface)).
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(addr, _)| bgp_proto::types::on_interface(*addr, self.index))
    }

    /// Whether the address is one of ours on it.
    pub fn has(&self, own: IpAddr) -> bool {
        self.addresses.iter().any(|(addr, _)| *addr == own)
    }

    /// Its first link-local address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|(addr, _)| match addr {
            IpAddr::V6(addr) if addr.is_unicast_link_local() => Some(*addr),
            _ => None,
        })
    }
}

/// Properties of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTraits {
    /// Loopback (IFF_LOOPBACK).
    pub loopback: bool,
    /// Supports broadcast (IFF_BROADCAST).
    pub broadcast: bool,
    /// Supports multicast (IFF_MULTICAST).
    pub multicast: bool,
    /// The table of the VRF that it is in, or that it is the device of; `None`: it is in none.
    pub vrf: Option<u32>,
    /// Whether it is the device of that VRF.
    pub is_vrf: bool,
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
    /// Writing routes is not permitted.
    #[error(
        "the kernel does not let this process write routes: give it CAP_NET_ADMIN, or set \
         `enabled = false` in [fib]"
    )]
    Permission,
}

/// Handle to the kernel's routing tables. Clones share one thread; when the last one is dropped
/// without [`Fib::stop`], the thread ends and routes stay.
#[derive(Clone)]
pub struct Fib {
    thread: Arc<Thread>,
}

/// The thread; ends when the last handle is dropped.
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

    /// Changes the wanted routes; `None` is a withdrawal. The latest change per prefix takes
    /// effect. Never waits for the kernel. Has no effect if writing is disabled.
    pub fn submit(&self, changes: impl IntoIterator<Item = (Prefix, impl Into<FibChange>)>) {
        /// Number of changes per lock, so that `show fib` and the writer are not blocked for long.
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
                        (route.next_hops, route.backup) = (Vec::new(), None);
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

    /// A handle for reporting how BGP next hops are reached. It does not keep the thread alive.
    pub fn resolutions(&self) -> Resolutions {
        Resolutions(Arc::clone(&self.thread.shared))
    }

    /// Declares that the initial routes are all submitted: from now on, routes of an earlier run
    /// that are not wanted are deleted. Until then they are kept, and adopted if they are wanted.
    pub fn end_of_startup(&self) {
        self.thread.shared.plan().end_of_startup();
        self.thread.shared.wake();
    }

    /// At most `limit` wanted routes after prefix `after`, in prefix order.
    pub fn view(&self, after: Option<Prefix>, limit: usize) -> Vec<FibView> {
        let rows = self.thread.shared.plan().view(after, limit);
        let links = self.links();
        rows.into_iter().map(|row| fib::view::render(row, &self.thread.config, &links)).collect()
    }

    /// The prefixes of [`Fib::view`].
    pub fn prefixes(&self, after: Option<Prefix>, limit: usize) -> Vec<Prefix> {
        let rows = self.thread.shared.plan().view(after, limit);
        rows.into_iter().map(|row| row.prefix).collect()
    }

    /// The route to `prefix`, if one is wanted.
    pub fn lookup(&self, prefix: Prefix) -> Option<FibView> {
        let row = self.thread.shared.plan().row(prefix)?;
        Some(fib::view::render(row, &self.thread.config, &self.links()))
    }

    /// Counters for the metrics.
    pub fn counters(&self) -> FibCounters {
        self.thread.shared.plan().counters()
    }

    /// The histogram of the time that the kernel took per batch of routes.
    pub fn collect(&self) -> Vec<MetricFamily> {
        self.thread.shared.writes.collect()
    }

    /// Checks that the thread is alive: completes once it has received the kernel's events, read
    /// the tables if that was due, and written a batch if there was one.
    pub fn ask_liveness(&self) -> impl Future<Output = ()> + Send + use<> {
        let answer = self.thread.shared.liveness.ask();
        self.thread.shared.wake();
        answer
    }

    /// What the thread is doing.
    pub fn stage(&self) -> Stage {
        self.thread.shared.stage()
    }

    /// The interfaces, sorted by name. Empty until [`FibEvent::Synchronised`].
    pub fn links(&self) -> Arc<[Link]> {
        self.thread.shared.links()
    }

    /// The kernel route that decides how a tracked address is reached, for display; `None` if there
    /// is none or the address is not tracked.
    pub fn decided_by(&self, addr: IpAddr) -> Option<Deciding> {
        self.thread.shared.deciding().get(&addr).cloned()
    }

    /// Reports how `addr` is reached, now and after every change. Tracking an address again reports
    /// it again and has no other effect.
    pub fn track(&self, addr: IpAddr) {
        let mut control = self.thread.shared.control();
        control.untrack.remove(&addr);
        control.track.insert(addr);
        drop(control);
        self.thread.shared.wake();
    }

    /// Ends the reports about `addr`; one already in progress may still arrive.
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

    /// The routes that these rules would select; those in force stay. `None`: the thread has ended, or
    /// another question has replaced this one.
    pub async fn foresee(&self, rules: Vec<LearnRule>) -> Option<Vec<LearnedRoute>> {
        let (reply, answer) = oneshot::channel();
        self.thread.shared.control().foresee = Some((rules, reply));
        self.thread.shared.wake();
        answer.await.ok()
    }

    /// Waits until all submitted changes are written, or for `Withdraw` until our routes are
    /// deleted (at most 10 s and 30 s), then ends the thread. Only the first call has an effect.
    pub fn stop(self, leave: Leave) {
        self.thread.end(Stop::Finish(leave));
    }
}

/// A handle for reporting how BGP next hops are reached. Clones are equivalent.
#[derive(Clone, Debug)]
pub struct Resolutions(Arc<Shared>);

impl Resolutions {
    /// Reports how a BGP next hop is reached. Call this just before informing the submitter of
    /// routes, with the same states in the same order: routes over next-hop objects that depend on
    /// this next hop ([`FibRoute::next_hops`](bgp_proto::types::FibRoute::next_hops)) move at
    /// once, and need not be submitted again. Has no effect with [`NextHopForm::Inline`].
    pub fn update(&self, addr: IpAddr, state: &NextHopState) {
        let hops = match state {
            NextHopState::Via { hops, .. } => hops.as_slice(),
            NextHopState::Unreachable | NextHopState::Local => &[],
        };
        self.0.plan().handle_next_hop(addr, hops);
        self.0.wake();
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
