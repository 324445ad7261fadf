//! The thread between the plan and the kernel: receives events, dumps tables, writes and reports.
//!
//! One thread does all of it, so that events, dumps and writes have one order. Decisions are made
//! elsewhere: events and answers are passed to [`Plan`], [`Foreign`], [`Links`] and [`Watch`].

mod listen;
mod resync;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bgp_proto::types::{FibKind, Hop, Prefix, Time};
use prometheus::{Histogram, HistogramOpts};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::oneshot;

use super::event::{FibEvent, LearnRule, LearnedRoute};
use super::fib::plan::{Action, Part, Plan, Refused};
use super::foreign::Foreign;
use super::links::{Domain, Links};
use super::message::{self, KernelRoute, ObjectKind, ObjectOp, ObjectRequest, RouteRequest};
use super::netlink::{MonitorSocket, Refusal, RequestSocket, Requests};
use super::nexthops::{Deciding, Resolver};
use super::objects::Objects;
use super::spec::RouteSpec;
use super::watch::{Touched, Watch};
use super::{Error, FibConfig, Leave, Link, ResolveOver};
use crate::event_names::{ROUTE_FOREIGN, ROUTE_REFUSED, ROUTE_REPAIRED};
use crate::liveness::Liveness;
use crate::metric_names as names;
use crate::supervise::fault;
use resync::{ResyncGate, Urgency};

/// The thread's name for the supervisor.
pub(super) const PART: &str = "kernel writer";

/// Maximum requests per batch.
const BATCH_MAX: usize = 1024;
/// Delay after a change of links or addresses, as more changes usually follow.
const SETTLE: Duration = Duration::from_millis(50);
/// Minimum time between two retries of refused routes after changes.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a stop waits for pending writes.
const KEEP_TIMEOUT: Duration = Duration::from_secs(10);
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(30);

/// State shared by the handles and the thread.
#[derive(Debug)]
pub(super) struct Shared {
    plan: Mutex<Plan>,
    control: Mutex<Control>,
    links: Mutex<Arc<[Link]>>,
    /// The routes that decide how tracked addresses are reached.
    deciding: Mutex<BTreeMap<IpAddr, Deciding>>,
    wake: OwnedFd,
    /// The thread was woken and has not checked for requests yet.
    woken: AtomicBool,
    pub(super) liveness: Liveness,
    stage: AtomicU8,
    pub(super) writes: Histogram,
}

/// What the thread is doing; shows where it hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for events, requests or deadlines, or reporting to the owner.
    Idle,
    /// Receiving the kernel's events.
    Monitor,
    /// Reading the kernel's tables.
    Reading,
    /// Writing routes.
    Writing,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Idle, Stage::Monitor, Stage::Reading, Stage::Writing];
}

/// Upper bounds of the buckets, in seconds: from one route to a thousand on a busy kernel.
const WRITE_BUCKETS: [f64; 9] = [0.000_05, 0.000_2, 0.001, 0.004, 0.015, 0.06, 0.25, 1.0, 5.0];

/// Requests of the handles to the thread: the latest of each kind, not a queue.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) track: BTreeSet<IpAddr>,
    pub(super) untrack: BTreeSet<IpAddr>,
    pub(super) rules: Option<Vec<LearnRule>>,
    /// Rules of which it is asked what they would select.
    pub(super) foresee: Option<(Vec<LearnRule>, oneshot::Sender<Vec<LearnedRoute>>)>,
    pub(super) stop: Option<Stop>,
}

/// How the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// After all changes are written, or all routes withdrawn.
    Finish(Leave),
    /// At once: the last handle was dropped.
    Abandon,
}

impl Shared {
    pub(super) fn new(config: &FibConfig) -> Result<Shared, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
            Error::Socket { what: "create an event descriptor", source: errno.into() }
        })?;
        let options = HistogramOpts::new(
            names::FIB_WRITE_DURATION_SECONDS,
            "Time from sending a batch of route messages to the kernel until it had answered for all \
             of them. A batch holds up to 1024 messages: see margay_fib_writes_total.",
        );
        let writes = Histogram::with_opts(options.buckets(WRITE_BUCKETS.to_vec()))
            .expect("the name and the ascending buckets are constants");
        Ok(Shared {
            plan: Mutex::new(Plan::new(config.table, config.protocol, config.next_hops)),
            control: Mutex::default(),
            links: Mutex::new(Arc::from([])),
            deciding: Mutex::default(),
            wake,
            woken: AtomicBool::new(false),
            liveness: Liveness::default(),
            stage: AtomicU8::new(Stage::Idle as u8),
            writes,
        })
    }

    /// Locks the plan. The lock is held for at most one batch of decisions or one pass over the
    /// table, never across a system call.
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn links(&self) -> Arc<[Link]> {
        Arc::clone(&self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn deciding(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Deciding>> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread is doing.
    pub(super) fn stage(&self) -> Stage {
        let number = self.stage.load(Ordering::Relaxed);
        Stage::ALL.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Idle)
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Wakes the thread to check the plan and the requests.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // If the counter is full, the thread is woken already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The thread's state; see the module.
pub(super) struct Worker {
    config: FibConfig,
    shared: Arc<Shared>,
    events: Box<dyn Fn(FibEvent) + Send>,
    requests: RequestSocket,
    own_port: u32,
    monitor: MonitorSocket,
    datagram: Vec<u8>,
    batch: Requests,
    epoch: Instant,
    links: Links,
    foreign: Foreign,
    objects: Objects,
    watch: Watch,
    touched: Touched,
    resync: ResyncGate,
    /// The domain of the table when it was last read.
    domain: Domain,
    publication: Publication,
    /// When refused routes are retried because links, addresses or foreign routes changed.
    retry_due: Option<Time>,
    retried: Time,
}

impl Worker {
    /// Opens the sockets, in the network namespace of the calling thread.
    pub(super) fn open(
        config: FibConfig,
        shared: Arc<Shared>,
        events: Box<dyn Fn(FibEvent) + Send>,
    ) -> Result<Worker, Error> {
        let mut requests = RequestSocket::open()?;
        if config.enabled {
            check_permission(&mut requests, &config)?;
        }
        let own_port = requests.port()?;
        let monitor = MonitorSocket::open(own_port)?;
        Ok(Worker {
            watch: Watch::new(config.protocol),
            config,
            shared,
            events,
            requests,
            own_port,
            monitor,
            datagram: MonitorSocket::buffer(),
            batch: Requests::default(),
            epoch: Instant::now(),
            links: Links::default(),
            foreign: Foreign::default(),
            objects: Objects::default(),
            domain: Domain::Default,
            publication: Publication::default(),
            touched: Touched::default(),
            resync: ResyncGate::due_at_once(),
            retry_due: None,
            retried: Time::ZERO,
        })
    }

    /// Runs until a stop is requested.
    pub(super) fn run(mut self) {
        let mut stopping: Option<Time> = None;
        loop {
            fault::point(PART);
            // Taken first and answered last, so that an answer stands for a whole turn.
            let question = self.shared.liveness.question();
            self.shared.enter(Stage::Monitor);
            self.hear();
            if self.resync.is_due(self.now()) {
                self.shared.enter(Stage::Reading);
                self.read_kernel();
            }
            self.shared.enter(Stage::Idle);
            match self.handle_control() {
                Some(Stop::Abandon) => return,
                Some(Stop::Finish(leave)) => stopping = Some(self.begin_stop(leave)),
                None => {}
            }
            self.handle_time();
            self.report_changes();
            if self.resync.take_news() {
                self.report_start();
            }
            self.shared.enter(Stage::Writing);
            self.write_batch();
            self.shared.enter(Stage::Idle);
            self.shared.liveness.answer(question);
            if let Some(deadline) = stopping
                && (self.is_finished() || self.now() >= deadline)
            {
                return self.log_stop();
            }
            self.wait(stopping);
        }
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Sleeps until an event, a request or a deadline.
    fn wait(&mut self, stopping: Option<Time>) {
        let (busy, deadline) = {
            let plan = self.shared.plan();
            (self.config.enabled && plan.has_work(), plan.deadline())
        };
        let deadlines =
            [deadline, self.resync.due(), self.retry_due, self.publication.due, stopping];
        let timeout = deadlines.into_iter().flatten().min().map(|at| at.since(self.now()));
        let timeout = if busy { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut fds = [
            PollFd::new(&self.monitor, PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
        ];
        if let Err(errno) = poll(&mut fds, timeout.as_ref())
            && errno != rustix::io::Errno::INTR
        {
            tracing::error!(error = %io::Error::from(errno), "cannot wait for kernel events");
            std::thread::sleep(Duration::from_secs(1));
        }
        let [_, wake] = &fds;
        if wake.revents().contains(PollFlags::IN) {
            // The counter is drained before the flag is cleared: in the other order, the wake-up of
            // a request in between would be drained and lost.
            let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
            self.shared.woken.swap(false, Ordering::AcqRel);
        }
    }

    /// Handles the pending requests; returns how to stop, if that was requested.
    fn handle_control(&mut self) -> Option<Stop> {
        let mut control = self.shared.control();
        // Nothing can be resolved before the first dump: other requests stay pending.
        if !self.resync.has_read() {
            return control.stop.take();
        }
        let requested = std::mem::take(&mut *control);
        drop(control);
        for addr in requested.untrack {
            self.watch.untrack(addr);
        }
        let mut events = Vec::new();
        if !requested.track.is_empty() || requested.rules.is_some() || requested.foresee.is_some() {
            let plan = self.shared.plan();
            let resolver = resolver(&self.config, &plan, &self.foreign, &self.links);
            events.extend(requested.track.into_iter().map(|addr| self.watch.track(addr, resolver)));
            if let Some(rules) = requested.rules {
                events.extend(self.watch.learn(rules, resolver));
            }
            if let Some((rules, reply)) = requested.foresee {
                // Who asked may have given up.
                let _ = reply.send(self.watch.foresee(&rules, resolver));
            }
        }
        self.publish_decided();
        events.into_iter().for_each(&self.events);
        requested.stop
    }

    fn handle_time(&mut self) {
        let now = self.now();
        let mut plan = self.shared.plan();
        if self.retry_due.is_some_and(|due| due <= now) {
            self.retry_due = None;
            self.retried = now;
            plan.retry_refused();
        }
        plan.handle_time(now);
        let report = plan.take_report();
        let failed = plan.counters().failed;
        drop(plan);
        if let Some((prefix, spec, reason)) = report.example {
            tracing::warn!(
                event = ROUTE_REFUSED,
                route = %describe(prefix, &spec, &self.links),
                %reason,
                others = report.refused.saturating_sub(1),
                failed,
                "the kernel refuses routes; they are tried again when links or addresses change"
            );
        }
        if let Some((part, reason)) = report.part {
            tracing::warn!(
                event = ROUTE_REFUSED,
                next_hop = %describe_part(&part, &self.links),
                %reason,
                others = report.parts.saturating_sub(1),
                "the kernel refuses a next hop: routes go without it, and it is tried again when \
                 links, addresses or routes change"
            );
        }
        if let Some((op, reason)) = report.object {
            tracing::warn!(
                event = ROUTE_REFUSED,
                next_hop = %describe_object(&op, &self.links),
                %reason,
                others = report.objects.saturating_sub(1),
                "the kernel refuses a next-hop object: routes get their gateways or go without it, and it \
                 is tried again when links or addresses change"
            );
        }
        if let Some((prefix, holder)) = report.holder {
            tracing::warn!(
                event = ROUTE_FOREIGN,
                %prefix,
                reason = %holder,
                others = report.held.saturating_sub(1),
                "routes of other processes are installed for our prefixes; ours follow when those are deleted"
            );
        }
        if report.first_repairs > 0 {
            let names: Vec<String> =
                report.repaired_examples.iter().map(ToString::to_string).collect();
            tracing::info!(
                event = ROUTE_REPAIRED,
                routes = report.repaired,
                among = %names.join(", "),
                "our routes were removed or changed in the kernel by another program; writing them again"
            );
        }
    }

    /// Reports to the owner what follows from the received changes.
    fn report_changes(&mut self) {
        let mut plan = self.shared.plan();
        let direct = plan.take_direct();
        if self.config.resolve_over == ResolveOver::Direct {
            self.touched.all |= direct.all;
            direct.prefixes.into_iter().for_each(|prefix| self.touched.add(prefix));
        }
        let touched = std::mem::take(&mut self.touched);
        let events = if touched.is_empty() {
            Vec::new()
        } else {
            let resolver = resolver(&self.config, &plan, &self.foreign, &self.links);
            self.watch.compare(&touched, resolver)
        };
        drop(plan);
        self.publish_decided();
        if self.publication.is_due(touched.links, self.now(), self.links.count_addresses()) {
            let published = self.links.published();
            *self.shared.links.lock().unwrap_or_else(PoisonError::into_inner) = published;
            (self.events)(FibEvent::LinksChanged);
        }
        events.into_iter().for_each(&self.events);
    }

    /// Publishes to the handles the routes by which next hops are reached.
    fn publish_decided(&mut self) {
        let decided = self.watch.take_decided();
        if decided.is_empty() {
            return;
        }
        let mut deciding = self.shared.deciding();
        for (addr, by) in decided {
            match by {
                Some(by) => deciding.insert(addr, by),
                None => deciding.remove(&addr),
            };
        }
    }

    /// Reports that the first dump is complete.
    fn report_start(&mut self) {
        let adopted = self.shared.plan().counters().installed;
        if adopted > 0 {
            tracing::info!(routes = adopted, "adopted the kernel routes of an earlier run");
        }
        (self.events)(FibEvent::Synchronised { adopted });
    }

    /// Sends one batch, if there are routes to write.
    fn write_batch(&mut self) {
        if !self.config.enabled {
            return;
        }
        self.write_objects();
        let mut plan = self.shared.plan();
        let ops = plan.poll_batch(&self.foreign, BATCH_MAX);
        if !ops.is_empty() {
            self.batch.clear();
            for op in &ops {
                let request = match op.action {
                    Action::Add(id) => RouteRequest::Add(plan.spec(id)),
                    Action::Replace(id) => RouteRequest::Replace(plan.spec(id)),
                    Action::Withdraw(id) => {
                        RouteRequest::Withdraw { metric: plan.spec(id).metric, tos: 0 }
                    }
                    Action::WithdrawStray { metric, tos } => RouteRequest::Withdraw { metric, tos },
                };
                let FibConfig { table, protocol, .. } = self.config;
                self.batch
                    .push(|out| message::push_route(out, request, op.prefix, table, protocol));
            }
            // Unlocked, so that routes can be submitted while the kernel works.
            drop(plan);
            let began = Instant::now();
            let answers = self.requests.execute(&mut self.batch);
            self.shared.writes.observe(began.elapsed().as_secs_f64());
            let now = self.now();
            plan = self.shared.plan();
            match answers {
                Ok(refusals) => {
                    plan.handle_answers(&ops, &in_words(refusals), now);
                }
                Err(error) => {
                    tracing::warn!(%error, "netlink replies were lost: reading the kernel's routes again");
                    plan.handle_unanswered(&ops);
                }
            }
        }
        let unclear = plan.wants_resync();
        drop(plan);
        if unclear {
            self.resync.request(self.now(), Urgency::Soon);
        }
    }

    /// Writes pending next-hop objects, before the routes that use them.
    fn write_objects(&mut self) {
        /// Enough for legs, groups, and two rounds of follow-ups to the answers.
        const STEPS_MAX: usize = 8;
        for _ in 0..STEPS_MAX {
            let ops = self.shared.plan().poll_objects();
            if ops.is_empty() {
                return;
            }
            self.batch.clear();
            for op in &ops {
                self.batch.push(|out| message::push_object(out, op, self.config.protocol));
            }
            let answers = self.requests.execute(&mut self.batch);
            let now = self.now();
            match answers {
                Ok(refusals) => {
                    let refused = in_words(refusals);
                    let is_done = |index| !refused.iter().any(|refusal| refusal.index == index);
                    let done = (0..).zip(&ops).filter(|(index, _)| is_done(*index));
                    done.for_each(|(_, op)| self.objects.apply(op, self.config.protocol));
                    self.shared.plan().handle_object_answers(&ops, &refused, now);
                }
                Err(error) => {
                    tracing::warn!(%error, "netlink replies were lost: reading the kernel's objects again");
                    self.shared.plan().handle_objects_unanswered();
                    self.resync.request(now, Urgency::AtOnce);
                    return;
                }
            }
        }
    }

    /// Prepares the stop; returns its deadline.
    fn begin_stop(&mut self, leave: Leave) -> Time {
        match leave {
            Leave::Keep => self.now() + KEEP_TIMEOUT,
            Leave::Withdraw => {
                self.shared.plan().withdraw_all();
                self.now() + WITHDRAW_TIMEOUT
            }
        }
    }

    fn is_finished(&self) -> bool {
        // The routes of an earlier run are known only after the first dump.
        !self.config.enabled || (self.resync.has_read() && self.shared.plan().is_idle())
    }

    fn log_stop(&self) {
        let counters = self.shared.plan().counters();
        if self.is_finished() {
            tracing::debug!(installed = counters.installed, "the kernel has all routes again");
        } else {
            tracing::warn!(
                pending = counters.pending,
                "stopped before all routes were written to the kernel; the next start reconciles them"
            );
        }
    }
}

impl FibConfig {
    /// Whether a kernel route is one of ours.
    fn owns(&self, route: &KernelRoute) -> bool {
        self.enabled && route.table == self.table && route.protocol == self.protocol
    }
}

/// When links and addresses are published. With thousands of addresses this is expensive, and
/// changes come in bulk.
#[derive(Debug, Default)]
struct Publication {
    due: Option<Time>,
    last: Option<Time>,
}

impl Publication {
    /// Whether to publish now; `changed`: something changed since the last call.
    fn is_due(&mut self, changed: bool, now: Time, addresses: usize) -> bool {
        const MANY: usize = 1000;
        const INTERVAL: Duration = Duration::from_millis(250);
        if changed && self.due.is_none() {
            let earliest = self.last.filter(|_| addresses > MANY).map(|last| last + INTERVAL);
            self.due = Some(earliest.map_or(now, |earliest| earliest.max(now)));
        }
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = None;
            self.last = Some(now);
        }
        due
    }
}

/// The resolver for the present routes and interfaces.
fn resolver<'a>(
    config: &FibConfig,
    plan: &'a Plan,
    foreign: &'a Foreign,
    links: &'a Links,
) -> Resolver<'a> {
    let resolver = Resolver::new(foreign, links, config.table);
    match config.resolve_over {
        ResolveOver::Kernel => resolver,
        ResolveOver::Direct => resolver.over_bgp(plan, config.protocol),
    }
}

/// The table that the default rules use.
const MAIN_TABLE: u32 = 254;

/// Checks the permission to write by deleting a route that cannot exist.
fn check_permission(requests: &mut RequestSocket, config: &FibConfig) -> Result<(), Error> {
    const EPERM: i32 = 1;
    let prefix = Prefix::host(IpAddr::from([255, 255, 255, 255]));
    let request = RouteRequest::Withdraw { metric: u32::MAX, tos: 0 };
    let mut probe = Requests::default();
    probe.push(|out| message::push_route(out, request, prefix, config.table, config.protocol));
    let refusals = requests
        .execute(&mut probe)
        .map_err(|source| Error::Socket { what: "ask the kernel about routes", source })?;
    if refusals.iter().any(|refusal| refusal.errno == EPERM) {
        return Err(Error::Permission);
    }
    Ok(())
}

/// Converts refusals for the plan, with their error texts.
fn in_words(refusals: Vec<Refusal>) -> Vec<Refused> {
    let refused = refusals.into_iter().map(|r| Refused {
        index: r.index,
        errno: r.errno,
        text: error_text(r.errno, r.explanation.as_deref()),
    });
    refused.collect()
}

/// The kernel's explanation, if any, with the meaning of the error number.
fn error_text(errno: i32, explanation: Option<&str>) -> String {
    let meaning = io::Error::from_raw_os_error(errno).to_string();
    let meaning = meaning.split(" (os error").next().unwrap_or_default();
    match explanation {
        Some(explanation) if !explanation.is_empty() => format!("{explanation} ({meaning})"),
        _ => meaning.to_owned(),
    }
}

/// A route as `ip route` would print it.
fn describe(prefix: Prefix, spec: &RouteSpec, links: &Links) -> String {
    use std::fmt::Write as _;
    let mut text = match &spec.kind {
        FibKind::Unicast(_) => prefix.to_string(),
        FibKind::Blackhole => format!("blackhole {prefix}"),
        FibKind::Unreachable => format!("unreachable {prefix}"),
    };
    for hop in spec.hops().iter().take(4) {
        text.push(' ');
        text.push_str(&describe_hop(hop, links));
    }
    if let Some(source) = spec.source {
        let _ = write!(text, " src {source}");
    }
    text
}

fn describe_part(part: &Part, links: &Links) -> String {
    match part {
        Part::Leg(hop) => describe_hop(hop, links),
        Part::Source(source) => format!("src {source}"),
    }
}

fn describe_object(op: &ObjectOp, links: &Links) -> String {
    match &op.request {
        ObjectRequest::Add(ObjectKind::Hop(hop)) | ObjectRequest::Replace(ObjectKind::Hop(hop)) => {
            format!("id {} {}", op.id, describe_hop(hop, links))
        }
        _ => format!("id {}", op.id),
    }
}

fn describe_hop(hop: &Hop, links: &Links) -> String {
    let interface = links.name(hop.ifindex).unwrap_or("?");
    let onlink = if hop.onlink { " onlink" } else { "" };
    match hop.gateway {
        Some(gateway) => format!("via {gateway} dev {interface}{onlink}"),
        None => format!("dev {interface}{onlink}"),
    }
}
