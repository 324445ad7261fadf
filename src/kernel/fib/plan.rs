//! What is wanted, what the kernel has, and which requests make the second equal to the first.
//!
//! Pure: no socket and no clock. The worker tells what it read ([`Plan::handle_present`],
//! [`Plan::handle_lost`], the resync calls) and what became of requests
//! ([`Plan::handle_answers`]), and asks for the next batch ([`Plan::poll_batch`]).
//!
//! Invariants: a place (prefix and metric in our table) that a foreign route holds is never
//! written; a route is replaced only when it is known to be ours; a prefix is in the queue at
//! most once, so that memory is bounded by the number of prefixes.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{Family, Prefix, Prefix4, Prefix6, Time};

use super::spec::{RouteSpec, SpecId, Specs};
use super::view::{FibCounters, FibState};
use crate::kernel::foreign::Foreign;
use table::Table;

/// First and longest wait before routes that the kernel refused are tried again; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// First and longest wait before routes that somebody removed are written again; it doubles while
/// removing goes on, so that a fight with another program costs little.
const REPAIR_MIN: Duration = Duration::from_millis(20);
const REPAIR_MAX: Duration = Duration::from_secs(10);

const EEXIST: i32 = 17;
const ESRCH: i32 = 3;

/// One request to the kernel. It counts as a use of its spec until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) prefix: Prefix,
    pub(crate) action: Action,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Create, refused when the place is taken.
    Add(SpecId),
    /// Overwrite ours in the same place.
    Replace(SpecId),
    /// Delete ours, installed with this content.
    Withdraw(SpecId),
    /// Delete ours that is there beside the route we keep.
    WithdrawStray { metric: u32 },
}

/// How it is known that the kernel has a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A reading met it.
    Read,
    /// Somebody added it; what held its place before may be there beside it.
    Added,
    /// Somebody wrote it over what held its place before.
    Replacing,
}

/// A request that the kernel refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// Index into the batch.
    pub(crate) index: usize,
    /// Linux error number.
    pub(crate) errno: i32,
    /// The kernel's words.
    pub(crate) text: String,
}

/// What is worth a line in the log since the last call of [`Plan::take_report`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Routes refused for a reason that was not logged yet, with one of them as an example.
    pub(crate) refused: usize,
    pub(crate) example: Option<(Prefix, Arc<RouteSpec>, String)>,
    /// Routes of ours that others removed or changed, now about to be written again.
    pub(crate) repaired: usize,
    /// Whether those come after a quiet time, rather than in a fight that was logged.
    pub(crate) first_repair: bool,
}

/// A row of [`Plan::view`].
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) prefix: Prefix,
    pub(crate) spec: Arc<RouteSpec>,
    pub(crate) state: FibState,
    pub(crate) error: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    v4: Table<Prefix4>,
    v6: Table<Prefix6>,
    shared: Shared,
    repair: RepairGate,
    /// Requests that met something unknown; decided again after the kernel was read.
    unclear: BTreeSet<Prefix>,
    report: Report,
}

/// What the two tables have in common.
#[derive(Debug)]
struct Shared {
    table: u32,
    specs: Specs,
    failures: BTreeMap<SpecId, Failure>,
    errors: Vec<String>,
    counters: FibCounters,
    phase: Phase,
    /// The owner has submitted all it knows.
    startup_ended: bool,
    /// Flips with every resync; entries that the resync met carry it.
    round: bool,
    /// The kernel has to be read before the plan is right.
    resync_wanted: bool,
}

/// How far the start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The kernel was not read yet: nothing may be written.
    Unread,
    /// Routes of an earlier run that nobody wants so far are kept.
    Adopting,
    /// Our routes in the kernel are those that are wanted.
    Settled,
}

/// The kernel refuses routes with a certain content.
#[derive(Debug)]
struct Failure {
    error: u16,
    /// The reason lies in the next hops: further routes over them are not even tried.
    about_hops: bool,
    /// A retry is under way.
    trying: bool,
    delay: Duration,
    retry_at: Option<Time>,
}

#[derive(Debug)]
struct RepairGate {
    due: Option<Time>,
    delay: Duration,
    opened: Option<Time>,
}

impl Plan {
    pub(crate) fn new(table: u32) -> Plan {
        Plan {
            v4: Table::default(),
            v6: Table::default(),
            shared: Shared {
                table,
                specs: Specs::default(),
                failures: BTreeMap::new(),
                errors: Vec::new(),
                counters: FibCounters::default(),
                phase: Phase::Unread,
                startup_ended: false,
                round: false,
                resync_wanted: false,
            },
            repair: RepairGate { due: None, delay: REPAIR_MIN, opened: None },
            unclear: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// Changes what is wanted.
    pub(crate) fn want(&mut self, prefix: Prefix, spec: Option<RouteSpec>) {
        match prefix {
            Prefix::V4(key) => self.v4.want(key, spec, &mut self.shared),
            Prefix::V6(key) => self.v6.want(key, spec, &mut self.shared),
        }
    }

    /// Leftovers that nobody wants are deleted from here on.
    pub(crate) fn end_of_startup(&mut self) {
        self.shared.startup_ended = true;
        self.settle();
    }

    /// Leaves the start once the kernel was read and the owner has said everything.
    fn settle(&mut self) {
        if self.shared.phase == Phase::Adopting && self.shared.startup_ended {
            self.shared.phase = Phase::Settled;
            self.v4.settle(&mut self.shared);
            self.v6.settle(&mut self.shared);
        }
    }

    /// Wants nothing at all.
    pub(crate) fn withdraw_all(&mut self) {
        self.v4.withdraw_all(&mut self.shared);
        self.v6.withdraw_all(&mut self.shared);
        self.end_of_startup();
        self.v4.release_repairs(&mut self.shared);
        self.v6.release_repairs(&mut self.shared);
        self.repair.due = None;
    }

    /// A full reading of our routes starts.
    pub(crate) fn begin_resync(&mut self) {
        self.shared.round = !self.shared.round;
        self.v4.strays.clear();
        self.v6.strays.clear();
    }

    /// The kernel has this route of ours.
    pub(crate) fn handle_present(
        &mut self,
        prefix: Prefix,
        spec: RouteSpec,
        seen: Seen,
        now: Time,
    ) {
        let drifted = match prefix {
            Prefix::V4(key) => self.v4.handle_present(key, spec, seen, &mut self.shared),
            Prefix::V6(key) => self.v6.handle_present(key, spec, seen, &mut self.shared),
        };
        if drifted {
            self.repair.schedule(now);
        }
    }

    /// The kernel does not have our route with this metric any more.
    pub(crate) fn handle_lost(&mut self, prefix: Prefix, metric: u32, now: Time) {
        let drifted = match prefix {
            Prefix::V4(key) => self.v4.handle_lost(key, metric, &mut self.shared),
            Prefix::V6(key) => self.v6.handle_lost(key, metric, &mut self.shared),
        };
        if drifted {
            self.repair.schedule(now);
        }
    }

    /// The reading is complete: what it did not meet is not there.
    pub(crate) fn end_resync(&mut self, now: Time) {
        self.shared.counters.resyncs += 1;
        self.shared.resync_wanted = false;
        let lost = self.v4.sweep(&mut self.shared) + self.v6.sweep(&mut self.shared);
        if lost > 0 {
            self.repair.schedule(now);
        }
        if self.shared.phase == Phase::Unread {
            self.shared.phase = Phase::Adopting;
            self.settle();
        }
        for prefix in std::mem::take(&mut self.unclear) {
            self.touch(prefix);
        }
    }

    /// The reading failed: what it did not meet may well be there.
    pub(crate) fn abort_resync(&mut self) {
        self.v4.keep_round(&self.shared);
        self.v6.keep_round(&self.shared);
    }

    /// Something about the prefix changed that may let our route in: decide again.
    pub(crate) fn touch(&mut self, prefix: Prefix) {
        match prefix {
            Prefix::V4(key) => self.v4.touch(key, &mut self.shared),
            Prefix::V6(key) => self.v6.touch(key, &mut self.shared),
        }
    }

    /// Links or addresses changed: what was refused may work.
    pub(crate) fn retry_refused(&mut self) {
        for failure in self.shared.failures.values_mut() {
            failure.trying = true;
            failure.delay = RETRY_MIN;
            failure.retry_at = None;
        }
        self.v4.retry(|_| true, &mut self.shared);
        self.v6.retry(|_| true, &mut self.shared);
    }

    /// Starts what is due.
    pub(crate) fn handle_time(&mut self, now: Time) {
        if self.repair.open(now) {
            self.report.first_repair = self.repair.delay == REPAIR_MIN;
            self.report.repaired += self.v4.release_repairs(&mut self.shared);
            self.report.repaired += self.v6.release_repairs(&mut self.shared);
        }
        let due: BTreeSet<SpecId> = self
            .shared
            .failures
            .iter_mut()
            .filter(|(_, failure)| failure.retry_at.is_some_and(|at| at <= now))
            .map(|(id, failure)| {
                failure.trying = true;
                failure.retry_at = None;
                *id
            })
            .collect();
        if !due.is_empty() {
            let retried = self.v4.retry(|id| due.contains(&id), &mut self.shared)
                + self.v6.retry(|id| due.contains(&id), &mut self.shared);
            if retried == 0 {
                self.shared.failures.retain(|id, _| !due.contains(id));
            }
        }
    }

    /// When [`Plan::handle_time`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let retries = self.shared.failures.values().filter_map(|failure| failure.retry_at);
        retries.chain(self.repair.due).min()
    }

    /// Whether [`Plan::poll_batch`] may give something.
    pub(crate) fn has_work(&self) -> bool {
        self.shared.phase != Phase::Unread
            && (self.v4.has_work(&self.shared) || self.v6.has_work(&self.shared))
    }

    /// Whether all that can be written is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.phase != Phase::Unread
            && !self.has_work()
            && self.repair.due.is_none()
            && self.unclear.is_empty()
    }

    /// Whether the kernel has to be read before the plan is right.
    pub(crate) fn wants_resync(&self) -> bool {
        self.shared.resync_wanted
    }

    /// At most `max` requests, each for another prefix or metric. Both families get their share.
    pub(crate) fn poll_batch(&mut self, foreign: &Foreign, max: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.shared.phase == Phase::Unread {
            return ops;
        }
        self.v4.poll(foreign, max / 2, &mut ops, &mut self.shared);
        self.v6.poll(foreign, max, &mut ops, &mut self.shared);
        self.v4.poll(foreign, max, &mut ops, &mut self.shared);
        if !ops.is_empty() {
            self.shared.counters.batches += 1;
            self.shared.counters.writes += ops.len() as u64;
        }
        ops
    }

    /// The content that an operation names.
    pub(crate) fn spec(&self, id: SpecId) -> &RouteSpec {
        self.shared.specs.get(id)
    }

    /// What the kernel said to a batch; requests that are not among `refused` succeeded.
    pub(crate) fn handle_answers(&mut self, ops: &[Op], refused: &[Refused], now: Time) {
        let mut answers: Vec<Option<&Refused>> = vec![None; ops.len()];
        for refusal in refused {
            if let Some(answer) = answers.get_mut(refusal.index) {
                *answer = Some(refusal);
            }
        }
        for (op, answer) in ops.iter().zip(answers) {
            match answer {
                None => self.handle_done(op),
                Some(refusal) => self.handle_refused(op, refusal, now),
            }
        }
    }

    /// The answers to a batch were lost: nothing is known about its prefixes.
    pub(crate) fn handle_unanswered(&mut self, ops: &[Op]) {
        self.shared.resync_wanted = true;
        for op in ops {
            self.unclear.insert(op.prefix);
            self.release(op);
        }
    }

    /// Rows after `after`, at most `limit`, in prefix order.
    pub(crate) fn view(&self, after: Option<Prefix>, limit: usize) -> Vec<Row> {
        let v4 = match after {
            None => Some(Bound::Unbounded),
            Some(Prefix::V4(key)) => Some(Bound::Excluded(key)),
            Some(Prefix::V6(_)) => None,
        };
        let v6 = match after {
            Some(Prefix::V6(key)) => Bound::Excluded(key),
            _ => Bound::Unbounded,
        };
        let v4 = v4.into_iter().flat_map(|from| self.v4.rows(from, &self.shared));
        v4.chain(self.v6.rows(v6, &self.shared)).take(limit).collect()
    }

    pub(crate) fn row(&self, prefix: Prefix) -> Option<Row> {
        let at_or_behind = match prefix {
            Prefix::V4(key) => self.v4.rows(Bound::Included(key), &self.shared).next(),
            Prefix::V6(key) => self.v6.rows(Bound::Included(key), &self.shared).next(),
        };
        at_or_behind.filter(|row| row.prefix == prefix)
    }

    pub(crate) fn counters(&self) -> FibCounters {
        self.shared.counters
    }

    /// Whether any route of ours goes out of the interface.
    pub(crate) fn uses_interface(&self, ifindex: u32) -> bool {
        self.shared.specs.use_interface(ifindex)
    }

    /// What happened since the last call.
    pub(crate) fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn handle_done(&mut self, op: &Op) {
        match op.prefix {
            Prefix::V4(key) => self.v4.handle_done(key, op.action, &mut self.shared),
            Prefix::V6(key) => self.v6.handle_done(key, op.action, &mut self.shared),
        }
        self.release(op);
    }

    fn handle_refused(&mut self, op: &Op, refusal: &Refused, now: Time) {
        let withdraws = matches!(op.action, Action::Withdraw(_) | Action::WithdrawStray { .. });
        if withdraws && refusal.errno == ESRCH {
            return self.handle_done(op);
        }
        self.shared.counters.errors += 1;
        if let Action::Add(_) = op.action
            && refusal.errno == EEXIST
            && self.mark_unclear(op.prefix)
        {
            self.unclear.insert(op.prefix);
            self.shared.resync_wanted = true;
            return self.release(op);
        }
        if let Action::Add(id) | Action::Replace(id) | Action::Withdraw(id) = op.action {
            let new = self.shared.note_failure(id, refusal, now);
            if new {
                self.report.refused += 1;
                if self.report.example.is_none() {
                    let spec = Arc::clone(self.shared.specs.get(id));
                    self.report.example = Some((op.prefix, spec, refusal.text.clone()));
                }
            }
            match op.prefix {
                Prefix::V4(key) => self.v4.refuse(key, op.action, &refusal.text, &mut self.shared),
                Prefix::V6(key) => self.v6.refuse(key, op.action, &refusal.text, &mut self.shared),
            }
        }
        self.release(op);
    }

    /// Whether this is the first surprise about the prefix, so that reading the kernel may help.
    fn mark_unclear(&mut self, prefix: Prefix) -> bool {
        match prefix {
            Prefix::V4(key) => self.v4.mark_unclear(key, &mut self.shared),
            Prefix::V6(key) => self.v6.mark_unclear(key, &mut self.shared),
        }
    }

    fn release(&mut self, op: &Op) {
        if let Action::Add(id) | Action::Replace(id) | Action::Withdraw(id) = op.action {
            self.shared.release(id);
        }
    }
}

impl Shared {
    fn release(&mut self, id: SpecId) {
        if self.specs.release(id) {
            self.failures.remove(&id);
        }
    }

    /// Counts an entry's change of state.
    fn count(&mut self, family: Family, before: Option<FibState>, after: Option<FibState>) {
        if before != after {
            let installed = &mut self.counters.installed_by_family[family];
            *installed += u64::from(after == Some(FibState::Installed));
            *installed -= u64::from(before == Some(FibState::Installed));
            if let Some(counter) = before.map(|state| self.counter(state)) {
                *counter = counter.saturating_sub(1);
            }
            if let Some(counter) = after.map(|state| self.counter(state)) {
                *counter += 1;
            }
        }
    }

    fn counter(&mut self, state: FibState) -> &mut u64 {
        match state {
            FibState::Installed => &mut self.counters.installed,
            FibState::Pending => &mut self.counters.pending,
            FibState::Failed => &mut self.counters.failed,
            FibState::Foreign => &mut self.counters.foreign,
        }
    }

    /// The number of an error text. The kernel has a fixed set of them.
    fn error(&mut self, text: &str) -> u16 {
        const ERRORS_MAX: usize = 512;
        let at = self.errors.iter().position(|known| known == text).unwrap_or_else(|| {
            if self.errors.len() < ERRORS_MAX {
                self.errors.push(text.to_owned());
            }
            self.errors.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Remembers that the kernel refuses this content; whether that is news.
    fn note_failure(&mut self, id: SpecId, refusal: &Refused, now: Time) -> bool {
        let error = self.error(&refusal.text);
        let about_hops = is_about_hops(refusal);
        let news = !self.failures.contains_key(&id);
        let failure = self.failures.entry(id).or_insert(Failure {
            error,
            about_hops,
            trying: false,
            delay: RETRY_MIN,
            retry_at: Some(now + RETRY_MIN),
        });
        if failure.trying {
            failure.trying = false;
            failure.delay = (failure.delay * 2).min(RETRY_MAX);
            failure.retry_at = Some(now + failure.delay);
        }
        failure.error = error;
        failure.about_hops = about_hops;
        news
    }

    /// The reason not to try a route with this content for the time being.
    fn known_failure(&self, id: SpecId) -> Option<u16> {
        let failure = self.failures.get(&id)?;
        (failure.about_hops && !failure.trying).then_some(failure.error)
    }

    /// The kernel took a route with this content.
    fn note_success(&mut self, id: SpecId) {
        if self.failures.get(&id).is_some_and(|failure| failure.about_hops) {
            self.failures.remove(&id);
        }
    }
}

impl RepairGate {
    fn schedule(&mut self, now: Time) {
        if self.due.is_some() {
            return;
        }
        let quiet = self.opened.is_none_or(|at| now.since(at) > self.delay * 2 + RETRY_MIN);
        self.delay = if quiet { REPAIR_MIN } else { (self.delay * 2).min(REPAIR_MAX) };
        self.due = Some(now + self.delay);
    }

    fn open(&mut self, now: Time) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = None;
            self.opened = Some(now);
        }
        due
    }
}

/// Whether any route over the same next hops would be refused as well.
fn is_about_hops(refusal: &Refused) -> bool {
    const EPERM: i32 = 1;
    const ENODEV: i32 = 19;
    const ENETDOWN: i32 = 100;
    const ENETUNREACH: i32 = 101;
    const EHOSTUNREACH: i32 = 113;
    match refusal.errno {
        EPERM | ENODEV | ENETDOWN | ENETUNREACH | EHOSTUNREACH => true,
        // EINVAL has many reasons; the kernel's words tell: "Nexthop has invalid gateway".
        _ => ["exthop", "ateway"].iter().any(|word| refusal.text.contains(word)),
    }
}

#[cfg(test)]
mod tests;
