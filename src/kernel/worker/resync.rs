//! Full dumps of the kernel: at the start, after lost events, and after interfaces went down.

use std::io;
use std::time::Duration;

use bgp_proto::types::{Prefix, Time};
use smallvec::SmallVec;

use super::super::fib::plan::Seen;
use super::super::foreign::Foreign;
use super::super::links::{Domain, Links};
use super::super::message::{self, DumpFamily, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use super::super::netlink::DumpEnd;
use super::super::objects::Objects;
use super::super::spec::RouteSpec;
use super::{MAIN_TABLE, Worker};
use crate::kernel::NextHopForm;
use crate::kernel::message::KernelRoute;

/// Changes come in bursts: one dump covers those within this time.
const SETTLE: Duration = Duration::from_millis(50);
/// Minimum time between two dumps; also at least ten times the duration of the last one, so that
/// dumping a large table never takes more than a tenth of a core.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_FACTOR: u32 = 10;
/// The same, if routes of ours may be missing, which only a dump can show.
const URGENT_INTERVAL_MIN: Duration = Duration::from_millis(50);
const URGENT_INTERVAL_FACTOR: u32 = 1;
/// Delay after a failed dump.
const FAILURE_DELAY: Duration = Duration::from_secs(1);
/// A table that changes during a dump is read at most this many times. Then the routes found are
/// used, routes not found are kept as they were known, and a later dump decides.
const ATTEMPTS: usize = 3;

/// Schedules the dumps of the kernel.
#[derive(Debug)]
pub(super) struct ResyncGate {
    due: Option<Time>,
    /// When the next dump may take place, and when if it is urgent.
    earliest: Time,
    earliest_urgent: Time,
    progress: Progress,
}

/// How urgent a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The known state may be wrong.
    Soon,
    /// Routes of ours may be missing.
    AtOnce,
}

/// Whether the state of the kernel is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No dump has completed.
    Unread,
    /// The first dump is complete, but not reported to the owner.
    Read,
    /// The first dump is complete and reported.
    Reported,
}

impl ResyncGate {
    /// The gate at the start: a dump is due.
    pub(super) fn due_at_once() -> ResyncGate {
        ResyncGate {
            due: Some(Time::ZERO),
            earliest: Time::ZERO,
            earliest_urgent: Time::ZERO,
            progress: Progress::Unread,
        }
    }

    /// Requests a dump.
    pub(super) fn request(&mut self, now: Time, urgency: Urgency) {
        let earliest = match urgency {
            Urgency::Soon => self.earliest,
            Urgency::AtOnce => self.earliest_urgent,
        };
        let due = (now + SETTLE).max(earliest);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether the kernel was read at least once.
    pub(super) fn has_read(&self) -> bool {
        self.progress != Progress::Unread
    }

    /// True exactly once, after the first dump.
    pub(super) fn take_news(&mut self) -> bool {
        let news = self.progress == Progress::Read;
        if news {
            self.progress = Progress::Reported;
        }
        news
    }

    fn finish(&mut self, started: Time, ended: Time) {
        let took = ended.since(started);
        self.due = None;
        self.earliest = ended + (took * INTERVAL_FACTOR).max(INTERVAL_MIN);
        self.earliest_urgent = ended + (took * URGENT_INTERVAL_FACTOR).max(URGENT_INTERVAL_MIN);
    }
}

/// The result of a dump, except our own routes, which are passed to the plan directly.
#[derive(Default)]
struct Reading {
    links: Links,
    /// `None`: the kernel has none (before Linux 5.3).
    objects: Option<Objects>,
    foreign: Foreign,
}

impl Worker {
    /// Dumps links, addresses, objects and routes, and applies the differences.
    pub(super) fn read_kernel(&mut self) {
        let started = self.now();
        // Pending events are older than the dump.
        if let Err(error) = self.monitor.discard(&mut self.datagram) {
            tracing::warn!(%error, "cannot read kernel events");
        }
        for attempt in 1..=ATTEMPTS {
            self.shared.plan().begin_resync();
            match self.read_all() {
                Ok((_, DumpEnd::Interrupted)) if attempt < ATTEMPTS => {
                    self.shared.plan().abort_resync();
                }
                Ok((reading, end)) => {
                    self.apply(reading, end);
                    self.resync.finish(started, self.now());
                    if end == DumpEnd::Interrupted {
                        tracing::debug!("the tables change while they are read: read again later");
                        self.resync.request(self.now() + FAILURE_DELAY, Urgency::Soon);
                    }
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read the kernel's routes; trying again");
                    self.shared.plan().abort_resync();
                    self.resync.finish(started, started);
                    self.resync.due = Some(self.now() + FAILURE_DELAY);
                    return;
                }
            }
        }
    }

    fn read_all(&mut self) -> io::Result<(Reading, DumpEnd)> {
        let links = self.read_links()?;
        let objects = Objects::read(&mut self.requests)?;
        let mut reading = Reading { links, objects, foreign: Foreign::default() };
        let mut end = DumpEnd::Complete;
        let domain = reading.links.domain_of_table(self.config.table);
        for table in tables(self.config.table, domain) {
            for family in [DumpFamily::V4, DumpFamily::V6] {
                if self.read_routes(family, table, &mut reading)? == DumpEnd::Interrupted {
                    end = DumpEnd::Interrupted;
                }
            }
        }
        Ok((reading, end))
    }

    /// Dumps interfaces and addresses; the lists are short, and are read until they are consistent.
    fn read_links(&mut self) -> io::Result<Links> {
        let mut links = Links::default();
        for _ in 0..ATTEMPTS {
            links = Links::default();
            let first = self.requests.dump(message::push_link_dump, |header, body| {
                if header.kind == RTM_NEWLINK
                    && let Some(link) = message::parse_link(body)
                {
                    links.handle_link(link);
                }
            })?;
            let second = self.requests.dump(message::push_address_dump, |header, body| {
                if header.kind == RTM_NEWADDR
                    && let Some(address) = message::parse_address(body)
                {
                    links.handle_address(address);
                }
            })?;
            if (first, second) == (DumpEnd::Complete, DumpEnd::Complete) {
                break;
            }
        }
        Ok(links)
    }

    fn read_routes(
        &mut self,
        family: DumpFamily,
        table: u32,
        reading: &mut Reading,
    ) -> io::Result<DumpEnd> {
        const OURS_MAX: usize = 512;
        let now = self.now();
        let (config, shared) = (&self.config, &self.shared);
        let Reading { links, objects, foreign } = reading;
        let objects = objects.as_ref();
        let mut ours: Vec<(Prefix, u8, RouteSpec)> = Vec::with_capacity(OURS_MAX);
        let flush = |ours: &mut Vec<(Prefix, u8, RouteSpec)>| {
            let mut plan = shared.plan();
            for (prefix, tos, spec) in ours.drain(..) {
                match tos {
                    0 => plan.handle_present(prefix, spec, Seen::Read, now),
                    tos => plan.handle_twin(prefix, spec.metric, tos),
                }
            }
        };
        let end = self.requests.dump(
            |out| message::push_route_dump(out, family, table),
            |header, body| {
                if header.kind != RTM_NEWROUTE {
                    return;
                }
                // Kernels without strict checking send all tables, and one without IPv6 sends IPv4
                // again.
                let fits = |(prefix, route): &(Prefix, KernelRoute)| {
                    route.table == table && family.is_of(*prefix)
                };
                let parsed = message::parse_route(body).filter(fits);
                let Some((prefix, mut route)) = parsed else { return };
                objects.inspect(|objects| objects.expand(&mut route));
                if config.owns(&route) {
                    ours.push((prefix, route.tos, route.spec()));
                    if ours.len() == OURS_MAX {
                        flush(&mut ours);
                    }
                } else if !Foreign::ignores(prefix) && !is_ignored(&route, links) {
                    foreign.insert(prefix, route);
                }
            },
        )?;
        flush(&mut ours);
        Ok(end)
    }

    fn apply(&mut self, mut reading: Reading, end: DumpEnd) {
        let now = self.now();
        let first = !self.resync.has_read();
        if first {
            self.resync.progress = Progress::Read;
        } else if end == DumpEnd::Interrupted {
            reading.foreign.keep_others(&self.foreign);
        }
        let changed = self.foreign.differences(&reading.foreign);
        self.foreign = reading.foreign;
        let has_objects = reading.objects.is_some();
        self.objects = reading.objects.unwrap_or_default();
        if self.links != reading.links {
            self.links = reading.links;
            self.touched.links = true;
            self.touched.all = true;
        }
        self.domain = self.links.domain_of_table(self.config.table);
        let mut plan = self.shared.plan();
        if self.config.enabled {
            plan.handle_objects_read(self.objects.iter(), end);
            if !has_objects {
                plan.handle_no_objects();
            }
        }
        match end {
            DumpEnd::Interrupted if !first => plan.abort_resync(),
            _ => plan.end_resync(),
        }
        for prefix in changed {
            self.touched.add(prefix);
            plan.touch(prefix);
        }
        drop(plan);
        let uses_objects = self.config.enabled && self.config.next_hops == NextHopForm::Objects;
        if first && uses_objects && !has_objects {
            tracing::info!("the kernel has no next-hop objects: each route brings its gateways");
        }
        self.schedule_retry(now);
    }
}

/// The tables to read: that of our routes, and main, unless ours is that of a VRF, whose packets
/// are looked up nowhere else.
pub(super) fn tables(table: u32, domain: Domain) -> SmallVec<[u32; 2]> {
    match domain {
        Domain::Default if table != MAIN_TABLE => SmallVec::from_slice(&[table, MAIN_TABLE]),
        Domain::Default | Domain::Vrf(_) => SmallVec::from_slice(&[table]),
    }
}

/// Whether a route of others is ignored because of its interfaces.
pub(super) fn is_ignored(route: &KernelRoute, links: &Links) -> bool {
    !route.hops.is_empty() && route.hops.iter().all(|hop| links.is_ignored(hop.ifindex))
}
