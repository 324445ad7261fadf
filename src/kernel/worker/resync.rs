//! Reading the kernel from scratch: at the start, after lost events, after interfaces went down.

use std::io;
use std::time::Duration;

use bgp_proto::types::{Prefix, Time};

use super::super::fib::plan::Seen;
use super::super::fib::spec::RouteSpec;
use super::super::foreign::Foreign;
use super::super::links::Links;
use super::super::message::{self, DumpFamily, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use super::super::netlink::DumpEnd;
use super::{MAIN_TABLE, Worker};

/// Changes come in groups: one reading serves those of this time.
const SETTLE: Duration = Duration::from_millis(50);
/// Least time between two readings; also ten times what the last one took, so that reading a
/// large table never takes more than a tenth of a core.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_FACTOR: u32 = 10;
/// Wait after a reading that failed.
const FAILURE_DELAY: Duration = Duration::from_secs(1);
/// A table that changes while it is read is read again this often, then taken as it came: what it
/// lacks shows as a refused request and leads to another reading.
const ATTEMPTS: usize = 3;

/// When the kernel is read next.
#[derive(Debug)]
pub(super) struct ResyncGate {
    due: Option<Time>,
    earliest: Time,
    progress: Progress,
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
        ResyncGate { due: Some(Time::ZERO), earliest: Time::ZERO, progress: Progress::Unread }
    }

    /// Asks for a reading, soon.
    pub(super) fn request(&mut self, now: Time) {
        if self.due.is_none() {
            self.due = Some((now + SETTLE).max(self.earliest));
        }
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
        self.due = None;
        self.earliest = ended + (ended.since(started) * INTERVAL_FACTOR).max(INTERVAL_MIN);
    }
}

/// What a reading found besides our own routes, which go straight into the plan.
#[derive(Default)]
struct Reading {
    links: Links,
    foreign: Foreign,
}

impl Worker {
    /// Reads links, addresses and routes, and tells everyone the differences.
    pub(super) fn read_kernel(&mut self) {
        let started = self.now();
        // What waits to be heard is older than what is read.
        if let Err(error) = self.monitor.discard(&mut self.datagram) {
            tracing::warn!(%error, "cannot read kernel events");
        }
        for attempt in 1..=ATTEMPTS {
            self.shared.plan().begin_resync();
            match self.read_all() {
                Ok((_, DumpEnd::Interrupted)) if attempt < ATTEMPTS => {
                    self.shared.plan().abort_resync();
                }
                Ok((reading, _)) => {
                    if !self.resync.has_read() {
                        self.resync.progress = Progress::Read;
                    }
                    self.apply(reading);
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
        self.resync.finish(started, self.now());
    }

    fn read_all(&mut self) -> io::Result<(Reading, DumpEnd)> {
        let mut reading = Reading::default();
        let mut end = DumpEnd::Complete;
        let links = &mut reading.links;
        let mut note = |part: DumpEnd| {
            if part == DumpEnd::Interrupted {
                end = part;
            }
        };
        note(self.requests.dump(message::push_link_dump, |header, body| {
            if header.kind == RTM_NEWLINK
                && let Some(link) = message::parse_link(body)
            {
                links.handle_link(link);
            }
        })?);
        note(self.requests.dump(message::push_address_dump, |header, body| {
            if header.kind == RTM_NEWADDR
                && let Some(address) = message::parse_address(body)
            {
                links.handle_address(address);
            }
        })?);
        let mut tables = vec![self.config.table, MAIN_TABLE];
        tables.dedup();
        for table in tables {
            for family in [DumpFamily::V4, DumpFamily::V6] {
                note(self.read_routes(family, table, &mut reading.foreign)?);
            }
        }
        Ok((reading, end))
    }

    fn read_routes(
        &mut self,
        family: DumpFamily,
        table: u32,
        foreign: &mut Foreign,
    ) -> io::Result<DumpEnd> {
        const OURS_MAX: usize = 512;
        let now = self.now();
        let (config, shared) = (&self.config, &self.shared);
        let mut ours: Vec<(Prefix, RouteSpec)> = Vec::with_capacity(OURS_MAX);
        let flush = |ours: &mut Vec<(Prefix, RouteSpec)>| {
            let mut plan = shared.plan();
            for (prefix, spec) in ours.drain(..) {
                plan.handle_present(prefix, spec, Seen::Read, now);
            }
        };
        let end = self.requests.dump(
            |out| message::push_route_dump(out, family, table),
            |header, body| {
                if header.kind != RTM_NEWROUTE {
                    return;
                }
                // Kernels without strict checking send every table.
                let parsed = message::parse_route(body).filter(|(_, route)| route.table == table);
                let Some((prefix, route)) = parsed else { return };
                if config.owns(&route) {
                    ours.push((prefix, route.spec()));
                    if ours.len() == OURS_MAX {
                        flush(&mut ours);
                    }
                } else if !Foreign::ignores(prefix) {
                    foreign.insert(prefix, route);
                }
            },
        )?;
        flush(&mut ours);
        Ok(end)
    }

    fn apply(&mut self, reading: Reading) {
        let now = self.now();
        let changed = self.foreign.differences(&reading.foreign);
        self.foreign = reading.foreign;
        if self.links != reading.links {
            self.links = reading.links;
            self.touched.links = true;
            self.touched.all = true;
        }
        let mut plan = self.shared.plan();
        plan.end_resync(now);
        for prefix in changed {
            self.touched.add(prefix);
            plan.touch(prefix);
        }
        drop(plan);
        self.schedule_retry(now);
    }
}
