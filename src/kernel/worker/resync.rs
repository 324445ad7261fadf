//! Reading the kernel from scratch: at the start, after lost events, after interfaces went down.

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
use crate::kernel::message::KernelRoute;

/// Changes come in groups: one reading serves those of this time.
const SETTLE: Duration = Duration::from_millis(50);
/// Least time between two readings; also ten times what the last one took, so that reading a
/// large table never takes more than a tenth of a core.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_FACTOR: u32 = 10;
/// The same when routes of ours may be missing, which only a reading tells.
const URGENT_INTERVAL_MIN: Duration = Duration::from_millis(50);
const URGENT_INTERVAL_FACTOR: u32 = 1;
/// Wait after a reading that failed.
const FAILURE_DELAY: Duration = Duration::from_secs(1);
/// A table that changes while it is read is read again this often. Then what was met counts, what
/// was not met stays as it was known, and a later reading decides.
const ATTEMPTS: usize = 3;

/// When the kernel is read next.
#[derive(Debug)]
pub(super) struct ResyncGate {
    due: Option<Time>,
    /// When the next may take place, and when if it is urgent.
    earliest: Time,
    earliest_urgent: Time,
    progress: Progress,
}

/// How soon the kernel has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Something is not as it was thought.
    Soon,
    /// Routes of ours may be missing.
    AtOnce,
}

/// Whether the picture of the kernel means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing was read yet.
    Unread,
    /// The first reading is complete; the owner does not know yet.
    Read,
    /// The owner knows.
    Told,
}

impl ResyncGate {
    /// For the start.
    pub(super) fn due_at_once() -> ResyncGate {
        ResyncGate {
            due: Some(Time::ZERO),
            earliest: Time::ZERO,
            earliest_urgent: Time::ZERO,
            progress: Progress::Unread,
        }
    }

    /// Asks for a reading, soon.
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

    /// True once, after the first reading.
    pub(super) fn take_news(&mut self) -> bool {
        let news = self.progress == Progress::Read;
        if news {
            self.progress = Progress::Told;
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

/// What a reading found besides our own routes, which go straight into the plan.
#[derive(Default)]
struct Reading {
    links: Links,
    objects: Objects,
    foreign: Foreign,
}

impl Worker {
    /// Reads links, addresses and routes, and tells everyone the differences.
    pub(super) fn read_kernel(&mut self) {
        let started = self.now();
        // Events that wait to be received are older than the dump.
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

    /// Interfaces and addresses: short lists, read until they are consistent.
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
                // Kernels without strict checking send every table, and one without IPv6 sends
                // IPv4 again.
                let fits = |(prefix, route): &(Prefix, KernelRoute)| {
                    route.table == table && family.is_of(*prefix)
                };
                let parsed = message::parse_route(body).filter(fits);
                let Some((prefix, mut route)) = parsed else { return };
                objects.expand(&mut route);
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
        self.objects = reading.objects;
        if self.links != reading.links {
            self.links = reading.links;
            self.touched.links = true;
            self.touched.all = true;
        }
        self.domain = self.links.domain_of_table(self.config.table);
        let mut plan = self.shared.plan();
        if self.config.enabled {
            plan.handle_objects_read(self.objects.iter(), end);
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
        self.schedule_retry(now);
    }
}

/// The tables to read: that of our routes, and main as well unless ours is that of a VRF, whose
/// packets see nothing else.
pub(super) fn tables(table: u32, domain: Domain) -> SmallVec<[u32; 2]> {
    match domain {
        Domain::Default if table != MAIN_TABLE => SmallVec::from_slice(&[table, MAIN_TABLE]),
        Domain::Default | Domain::Vrf(_) => SmallVec::from_slice(&[table]),
    }
}

/// Whether a route of others is of no interest because of where it leads.
pub(super) fn is_ignored(route: &KernelRoute, links: &Links) -> bool {
    !route.hops.is_empty() && route.hops.iter().all(|hop| links.is_ignored(hop.ifindex))
}
