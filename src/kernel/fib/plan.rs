//! What is wanted, what the kernel has, and which requests make the second equal to the first.
//!
//! Pure: no socket and no clock. The worker tells what it read ([`Plan::handle_present`],
//! [`Plan::handle_lost`], the resync calls) and what became of requests
//! ([`Plan::handle_answers`]), and asks for the next batch ([`Plan::poll_batch`]).
//!
//! Invariants: a place (prefix and metric in our table) that a foreign route holds is never
//! written, and neither is the prefix of a connected network; a route is replaced only when it is
//! known to be ours; what is installed stays until what shall replace it is taken; a prefix is in
//! the queue at most once, so that memory is bounded by the number of prefixes.

mod decide;
mod entry;
mod groups;
mod refused;
mod repair;
mod shared;
mod strays;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::counts::Counts;
use bgp_proto::types::{Hop, Prefix, Prefix4, Prefix6, Recursion, Time};

use super::view::{FibCounters, FibState};
use crate::kernel::NextHopForm;
use crate::kernel::foreign::Foreign;
use crate::kernel::message::{Object, ObjectOp};
use crate::kernel::netlink::DumpEnd;
use crate::kernel::spec::{RouteSpec, SpecId, bring_in_order};
pub(crate) use groups::ids_of_table;
use refused::About;
pub(crate) use refused::Part;
pub(crate) use shared::Direct;
use shared::{Phase, Shared};
use strays::RefusedStrays;
use table::Table;

/// Prefixes that a line of the log names.
const EXAMPLES: usize = 3;

/// How long a route that is not wanted any more waits for the one that is to take its place.
const KEPT_MAX: Duration = Duration::from_secs(10);

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
    WithdrawStray { metric: u32, tos: u8 },
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
    /// Legs and source addresses that the kernel refuses as news, with one of them as an example.
    pub(crate) parts: usize,
    pub(crate) part: Option<(Part, String)>,
    /// Next-hop objects that the kernel refuses as news, with one of them as an example.
    pub(crate) objects: usize,
    pub(crate) object: Option<(ObjectOp, String)>,
    /// Routes displaced by another process's, with one of them and its holder.
    pub(crate) held: usize,
    pub(crate) holder: Option<(Prefix, String)>,
    /// Routes of ours that others removed or changed, now about to be written again.
    pub(crate) repaired: usize,
    /// How many of those come after a quiet time, rather than in a fight that was logged.
    pub(crate) first_repairs: usize,
    /// Some of them.
    pub(crate) repaired_examples: Vec<Prefix>,
}

/// A row of [`Plan::view`].
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) prefix: Prefix,
    /// What is wanted; without the parts that the kernel refuses, when the rest is installed.
    pub(crate) spec: Arc<RouteSpec>,
    pub(crate) state: FibState,
    pub(crate) error: Option<String>,
    /// What the kernel refuses of it and why: the rest is installed.
    pub(crate) left_out: Vec<(Part, String)>,
    /// The kernel has another content, which stays until this one is taken.
    pub(crate) keeps: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    v4: Table<Prefix4>,
    v6: Table<Prefix6>,
    shared: Shared,
    /// Routes that stay until another process has one, and until when at most; in order of time.
    kept: VecDeque<(Time, Vec<Prefix>)>,
    /// The same, since the last call that knew the time.
    kept_since_last: Vec<Prefix>,
    /// How often each is in those two: one that was wanted again and is kept anew has its whole time.
    keeps: Counts<Prefix>,
    /// Requests that met something unknown; decided again after the kernel was read.
    unclear: BTreeSet<Prefix>,
    /// Routes beside those that we keep, which the kernel did not delete.
    refused_strays: RefusedStrays,
    report: Report,
}

/// Calls a method of the table of a prefix's family.
macro_rules! of_family {
    ($plan:ident, $prefix:expr, $key:ident, $table:ident => $call:expr) => {
        match $prefix {
            Prefix::V4($key) => {
                let $table = &mut $plan.v4;
                $call
            }
            Prefix::V6($key) => {
                let $table = &mut $plan.v6;
                $call
            }
        }
    };
}

impl Plan {
    /// For routes of a table and a protocol number, whose hops the kernel gets in this form.
    pub(crate) fn new(table: u32, protocol: u8, form: NextHopForm) -> Plan {
        Plan {
            v4: Table::default(),
            v6: Table::default(),
            shared: Shared::new(table, protocol, form),
            kept: VecDeque::new(),
            kept_since_last: Vec::new(),
            keeps: Counts::default(),
            unclear: BTreeSet::new(),
            refused_strays: RefusedStrays::default(),
            report: Report::default(),
        }
    }

    /// Changes what is wanted.
    pub(crate) fn want(&mut self, prefix: Prefix, route: Option<(RouteSpec, Recursion)>) {
        if !self.shared.closed {
            of_family!(self, prefix, key, table => table.want(key, route, &mut self.shared));
        }
    }

    /// Wants nothing, and leaves what is there until another process has a route for the prefix: for at
    /// most [`KEPT_MAX`] if it was wanted so far, and without an end if an earlier run left it, which
    /// tells nothing about whether the other one has begun.
    pub(crate) fn keep(&mut self, prefix: Prefix) {
        if self.shared.closed {
            return;
        }
        let was_wanted = of_family!(self, prefix, key, table => table.keep(key, &mut self.shared));
        if was_wanted {
            self.kept_since_last.push(prefix);
            self.keeps.add(prefix);
        }
    }

    fn end_keeping(&mut self, now: Time) {
        let fresh = std::mem::take(&mut self.kept_since_last);
        if !fresh.is_empty() {
            self.kept.push_back((now + KEPT_MAX, fresh));
        }
        while let Some((_, prefixes)) = self.kept.pop_front_if(|(due, _)| *due <= now) {
            for prefix in prefixes {
                self.keeps.remove(prefix);
                if self.keeps.has(&prefix) {
                    continue;
                }
                of_family!(self, prefix, key, table => {
                    table.end_keeping(key, &mut self.shared);
                });
            }
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
            self.shared.groups.handle_all_unused();
        }
    }

    /// Wants nothing at all, whatever is asked for from here on.
    pub(crate) fn withdraw_all(&mut self) {
        self.v4.withdraw_all(&mut self.shared);
        self.v6.withdraw_all(&mut self.shared);
        self.shared.closed = true;
        self.end_of_startup();
        self.v4.end_repairs(&mut self.shared);
        self.v6.end_repairs(&mut self.shared);
    }

    /// A full reading of our routes starts.
    pub(crate) fn begin_resync(&mut self) {
        self.shared.round = !self.shared.round;
        self.v4.begin_resync();
        self.v6.begin_resync();
    }

    /// The kernel has this route of ours.
    pub(crate) fn handle_present(
        &mut self,
        prefix: Prefix,
        spec: RouteSpec,
        seen: Seen,
        now: Time,
    ) {
        let spec = self.shared.groups.without_hops(spec);
        of_family!(self, prefix, key, table => {
            table.handle_present(key, spec, seen, now, &mut self.shared);
        });
    }

    /// The kernel does not have our route with this metric any more.
    pub(crate) fn handle_lost(&mut self, prefix: Prefix, metric: u32, now: Time) {
        of_family!(self, prefix, key, table => {
            table.handle_lost(key, metric, now, &mut self.shared);
        });
    }

    /// Somebody deleted a route of ours, or of its legs those named.
    pub(crate) fn handle_gone(&mut self, prefix: Prefix, spec: &RouteSpec, now: Time) {
        of_family!(self, prefix, key, table => {
            table.handle_gone(key, spec, now, &mut self.shared);
        });
    }

    /// The kernel has a route under our protocol number with a TOS: never ours, and deleted.
    pub(crate) fn handle_twin(&mut self, prefix: Prefix, metric: u32, tos: u8) {
        of_family!(self, prefix, key, table => table.handle_twin(key, metric, tos));
    }

    /// Such a route was deleted.
    pub(crate) fn handle_twin_lost(&mut self, prefix: Prefix, metric: u32, tos: u8) {
        of_family!(self, prefix, key, table => table.handle_twin_lost(key, metric, tos));
    }

    /// The reading is complete: what it did not meet is not there, and is written at once. Readings
    /// are rare enough that no fight is fed by them.
    pub(crate) fn end_resync(&mut self) {
        self.shared.counters.resyncs += 1;
        self.shared.resync_wanted = false;
        self.v4.sweep(&mut self.shared);
        self.v6.sweep(&mut self.shared);
        if self.shared.phase == Phase::Unread {
            self.shared.phase = Phase::Adopting;
            if self.shared.groups.are_used() {
                self.v4.claim_groups(&mut self.shared);
                self.v6.claim_groups(&mut self.shared);
            }
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
        of_family!(self, prefix, key, table => table.touch(key, &mut self.shared));
    }

    /// Links or addresses changed: what was refused may work.
    pub(crate) fn retry_refused(&mut self) {
        let failures = self.shared.begin_retries(|_| true);
        self.v4.retry(&failures, &mut self.shared);
        self.v6.retry(&failures, &mut self.shared);
        for id in &failures {
            self.shared.forgive(*id);
        }
        self.shared.refused.retry_all();
        self.shared.groups.retry_all();
    }

    /// A reading met these next-hop objects, before the routes that go over them.
    pub(crate) fn handle_objects_read<'a>(
        &mut self,
        objects: impl Iterator<Item = &'a Object>,
        picture: DumpEnd,
    ) {
        self.shared.picture_is_complete = picture == DumpEnd::Complete;
        self.shared.groups.read(objects);
    }

    /// The kernel does not know next-hop objects: nothing is asked of it that would be refused.
    pub(crate) fn handle_no_objects(&mut self) {
        self.shared.groups.handle_unsupported();
    }

    /// Somebody changed a next-hop object or deleted it, or the kernel did.
    pub(crate) fn handle_object(&mut self, id: NonZeroU32, object: Option<&Object>, now: Time) {
        self.shared.groups.handle_object(id, object, now);
    }

    /// The host resolves a BGP next hop in this way from here on, or not at all, and the owner is going
    /// to submit the routes that follow. Those that rest on this next hop follow at once: they go where
    /// it is reached now, or over their other next hops, or over their backup.
    ///
    /// What is wanted stays a function of what was submitted and of what was said here: the owner, who
    /// hears the same in the same order, comes to the same hops and may well submit nothing. A route
    /// of which no next hop is reached keeps its hops, since the owner is going to submit it.
    pub(crate) fn handle_next_hop(&mut self, next_hop: IpAddr, hops: &[Hop]) {
        if !self.shared.groups.are_used() || self.shared.closed {
            return;
        }
        let mut to = hops.to_vec();
        bring_in_order(&mut to);
        let Shared { groups, specs, .. } = &mut self.shared;
        if !groups.resolve(specs, next_hop, to) {
            return;
        }
        for (to, ids) in groups.moves(specs, next_hop) {
            if self.shared.move_contents(&ids, &to) {
                self.shared.direct.all |= self.v4.has_direct() || self.v6.has_direct();
            } else {
                self.v4.move_wanted(&ids, to.hops(), &mut self.shared);
                self.v6.move_wanted(&ids, to.hops(), &mut self.shared);
            }
        }
    }

    /// Starts what is due.
    pub(crate) fn handle_time(&mut self, now: Time) {
        self.shared.groups.handle_time(now);
        self.end_keeping(now);
        self.release_repairs(now);
        for (prefix, metric, tos) in self.refused_strays.take_due(now) {
            of_family!(self, prefix, key, table => {
                table.retry_stray(key, metric, tos, &mut self.shared);
            });
        }
        let due = self.shared.begin_retries(|at| at <= now);
        if !due.is_empty() {
            let retried =
                self.v4.retry(&due, &mut self.shared) + self.v6.retry(&due, &mut self.shared);
            if retried == 0 {
                self.shared.forget_failures(&due);
            }
        }
        self.retry_parts(now);
    }

    fn release_repairs(&mut self, now: Time) {
        let v4 = self.v4.release_repairs(now, &mut self.shared);
        let v6 = self.v6.release_repairs(now, &mut self.shared);
        let report = &mut self.report;
        report.repaired += v4.keys.len() + v6.keys.len();
        report.first_repairs += v4.first + v6.first;
        let prefixes = v4.keys.into_iter().map(Prefix::from);
        let prefixes = prefixes.chain(v6.keys.into_iter().map(Prefix::from));
        let room = EXAMPLES.saturating_sub(report.repaired_examples.len());
        report.repaired_examples.extend(prefixes.take(room));
    }

    /// Tries refused legs and sources again whose time has come, each content with one route.
    fn retry_parts(&mut self, now: Time) {
        let due = self.shared.refused.due(now);
        if due.is_empty() {
            return;
        }
        let mut found: BTreeMap<SpecId, Prefix> = self.v4.representatives(&due);
        for (id, prefix) in self.v6.representatives(&due) {
            found.entry(id).or_insert(prefix);
        }
        for id in due {
            let Shared { refused, specs, .. } = &mut self.shared;
            match found.get(&id) {
                Some(&prefix) => {
                    refused.retry(specs, prefix, id, now);
                    of_family!(self, prefix, key, table => table.requeue(key, &mut self.shared));
                }
                None => refused.forget(specs, id),
            }
            self.shared.tidy();
        }
        self.shared.refused.forget_unused(now);
    }

    /// When [`Plan::handle_time`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let repairs = self.v4.repairs_due().into_iter().chain(self.v6.repairs_due());
        let kept = self.kept.front().map(|(due, _)| *due);
        let unstamped = (!self.kept_since_last.is_empty()).then_some(Time::ZERO);
        let strays = self.refused_strays.due();
        repairs.chain(self.shared.deadline()).chain(kept).chain(unstamped).chain(strays).min()
    }

    /// Whether [`Plan::poll_batch`] may give something.
    pub(crate) fn has_work(&self) -> bool {
        self.shared.phase != Phase::Unread
            && (self.v4.has_work(&self.shared)
                || self.v6.has_work(&self.shared)
                || self.shared.groups.has_work(self.shared.deletes_objects()))
    }

    /// Whether all that can be written is written; once everything is being withdrawn, whether it
    /// is gone: there is no later time at which what the kernel did not delete is tried again.
    pub(crate) fn is_idle(&self) -> bool {
        if self.shared.closed
            && !(self.shared.counters.failed == 0
                && self.refused_strays.is_empty()
                && !self.shared.groups.has_undeleted())
        {
            return false;
        }
        self.shared.phase != Phase::Unread
            && !self.has_work()
            && self.v4.repairs_due().is_none()
            && self.v6.repairs_due().is_none()
            && self.shared.groups.is_at_rest(self.shared.closed || self.shared.deletes_objects())
            && self.unclear.is_empty()
    }

    /// Whether the kernel has to be read before the plan is right.
    pub(crate) fn wants_resync(&self) -> bool {
        self.shared.resync_wanted
    }

    /// The next requests about next-hop objects; routes that need them come after the answers. Empty
    /// when it is the routes' turn.
    pub(crate) fn poll_objects(&mut self) -> Vec<ObjectOp> {
        if self.shared.phase == Phase::Unread {
            return Vec::new();
        }
        let deletes = self.shared.deletes_objects();
        let Shared { groups, specs, .. } = &mut self.shared;
        let ops = groups.poll(specs, deletes);
        self.shared.tidy();
        self.settle_contents();
        self.shared.counters.writes += ops.len() as u64;
        ops
    }

    /// What the kernel said to requests about objects; those that are not among `refused` succeeded.
    pub(crate) fn handle_object_answers(
        &mut self,
        ops: &[ObjectOp],
        refused: &[Refused],
        now: Time,
    ) {
        for (index, op) in ops.iter().enumerate() {
            let answer = refused.iter().find(|refusal| refusal.index == index);
            let answer = answer.map(|refusal| (refusal.errno, refusal.text.as_str()));
            if self.shared.groups.handle_answer(op, answer, now) {
                self.shared.counters.errors += 1;
                self.report.objects += 1;
                let text = answer.map(|(_, text)| text.to_owned()).unwrap_or_default();
                self.report.object.get_or_insert_with(|| (op.clone(), text));
            }
        }
        self.settle_contents();
    }

    /// The answers were lost: only a reading tells which objects there are.
    pub(crate) fn handle_objects_unanswered(&mut self) {
        self.shared.resync_wanted = true;
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
        self.settle_contents();
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
                None => self.handle_done(op, now),
                Some(refusal) => self.handle_refused(op, refusal, now),
            }
        }
        self.settle_contents();
    }

    /// Decides about everything that wants a content of which something else is to be written.
    fn settle_contents(&mut self) {
        let unsettled = self.shared.take_unsettled();
        if !unsettled.is_empty() {
            self.v4.settle_contents(&unsettled, &mut self.shared);
            self.v6.settle_contents(&unsettled, &mut self.shared);
        }
    }

    /// The answers to a batch were lost: nothing is known about its prefixes.
    pub(crate) fn handle_unanswered(&mut self, ops: &[Op]) {
        self.shared.resync_wanted = true;
        for op in ops {
            if let Action::WithdrawStray { metric, tos } = op.action {
                of_family!(self, op.prefix, key, table => table.expect_stray(key, metric, tos));
            }
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
        let Shared { refused, groups, .. } = &self.shared;
        FibCounters {
            refused_next_hops: (refused.len() + groups.refused()) as u64,
            next_hop_objects: groups.len() as u64,
            ..self.shared.counters
        }
    }

    /// Whether any route of ours goes out of the interface.
    pub(crate) fn uses_interface(&self, ifindex: u32) -> bool {
        self.shared.specs.use_interface(ifindex)
    }

    /// Whether any route of ours goes over one of these next-hop objects.
    pub(crate) fn uses_objects(&self, ids: &BTreeSet<NonZeroU32>) -> bool {
        let uses = |spec: &RouteSpec| spec.object.is_some_and(|id| ids.contains(&id));
        !self.shared.specs.select(uses).is_empty()
    }

    /// Whether there is something that the kernel refuses, whole routes or parts of them.
    pub(crate) fn has_refused(&self) -> bool {
        self.shared.counters.failed > 0
            || !self.shared.refused.is_empty()
            || self.shared.groups.has_refused()
    }

    /// Whether any route of ours has this source address: the kernel deletes it with the address,
    /// or takes the address out of it, without a word.
    pub(crate) fn uses_source(&self, addr: IpAddr) -> bool {
        self.shared.specs.use_source(addr)
    }

    /// The routes with [`Recursion::Direct`] that cover `addr`, as wanted, the most specific first.
    pub(crate) fn direct_routes(&self, addr: IpAddr) -> Vec<(Prefix, &RouteSpec)> {
        match addr {
            IpAddr::V4(_) => self.v4.direct_routes(addr, &self.shared),
            IpAddr::V6(_) => self.v6.direct_routes(addr, &self.shared),
        }
    }

    /// Which of those changed since the last call.
    pub(crate) fn take_direct(&mut self) -> Direct {
        std::mem::take(&mut self.shared.direct)
    }

    /// What happened since the last call.
    pub(crate) fn take_report(&mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        let held = std::mem::take(&mut self.shared.held);
        report.held = held.routes;
        report.holder = held.example;
        report
    }

    fn handle_done(&mut self, op: &Op, now: Time) {
        if let Action::WithdrawStray { .. } = op.action {
            self.refused_strays.forgive();
        }
        of_family!(self, op.prefix, key, table => {
            table.handle_done(key, op.action, now, &mut self.shared);
        });
        self.release(op);
    }

    fn handle_refused(&mut self, op: &Op, refusal: &Refused, now: Time) {
        let withdraws = matches!(op.action, Action::Withdraw(_) | Action::WithdrawStray { .. });
        if withdraws && refusal.errno == ESRCH {
            return self.handle_done(op, now);
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
        match op.action {
            Action::Add(id) | Action::Replace(id) if self.is_over_refused(id, refusal) => {
                self.handle_group_refused(op.prefix, id, refusal, now);
            }
            Action::Add(id) | Action::Replace(id) => {
                match about(refusal, self.shared.specs.get(id)) {
                    Some(about) => self.handle_part_refused(op.prefix, id, about, refusal, now),
                    None => self.handle_route_refused(op, id, refusal, now),
                }
            }
            Action::Withdraw(id) => self.handle_route_refused(op, id, refusal, now),
            Action::WithdrawStray { metric, tos } => {
                self.refused_strays.note((op.prefix, metric, tos), now);
            }
        }
        self.release(op);
    }

    /// Whether a refusal may be one of the route's next-hop object.
    fn is_over_refused(&self, id: SpecId, refusal: &Refused) -> bool {
        /// No buffers, no memory, busy, later, interrupted, and the place is taken.
        const OTHERS: [i32; 6] = [105, 12, 16, 11, 4, EEXIST];
        self.shared.specs.get(id).object.is_some() && !OTHERS.contains(&refusal.errno)
    }

    /// Routes over a group are refused: they get their hops, and if it is those, that is found out. The
    /// group may also have gone in silence, which a reading tells.
    fn handle_group_refused(&mut self, prefix: Prefix, id: SpecId, refusal: &Refused, now: Time) {
        let spec = Arc::clone(self.shared.specs.get(id));
        let Some(group) = spec.object else { return };
        self.shared.resync_wanted = true;
        if self.shared.groups.refuse_routes(group, &refusal.text, now) {
            self.report.refused += 1;
            let shown = self.shared.groups.with_hops(&spec);
            self.report.example.get_or_insert_with(|| (prefix, shown, refusal.text.clone()));
        }
        self.touch(prefix);
    }

    /// A leg or the source address is refused: the rest of the route is written.
    fn handle_part_refused(
        &mut self,
        prefix: Prefix,
        id: SpecId,
        about: About,
        refusal: &Refused,
        now: Time,
    ) {
        let error = self.shared.error(&refusal.text);
        let answer = (id, about, error);
        let news = of_family!(self, prefix, key, table => {
            table.refuse_part(key, answer, now, &mut self.shared)
        });
        if let Some(part) = news {
            self.report.parts += 1;
            self.report.part.get_or_insert_with(|| (part, refusal.text.clone()));
        }
    }

    fn handle_route_refused(&mut self, op: &Op, id: SpecId, refusal: &Refused, now: Time) {
        if self.shared.note_failure(id, now) {
            self.report.refused += 1;
            if self.report.example.is_none() {
                let spec = Arc::clone(self.shared.specs.get(id));
                self.report.example = Some((op.prefix, spec, refusal.text.clone()));
            }
        }
        of_family!(self, op.prefix, key, table => {
            table.refuse(key, op.action, &refusal.text, now, &mut self.shared);
        });
    }

    /// Whether this is the first surprise about the prefix, so that reading the kernel may help.
    fn mark_unclear(&mut self, prefix: Prefix) -> bool {
        of_family!(self, prefix, key, table => table.mark_unclear(key, &mut self.shared))
    }

    fn release(&mut self, op: &Op) {
        if let Action::Add(id) | Action::Replace(id) | Action::Withdraw(id) = op.action {
            self.shared.release(id);
        }
    }
}

/// Which part of the route any other route would be refused for as well.
fn about(refusal: &Refused, spec: &RouteSpec) -> Option<About> {
    const EPERM: i32 = 1;
    const ENODEV: i32 = 19;
    const ENETDOWN: i32 = 100;
    const ENETUNREACH: i32 = 101;
    const EHOSTUNREACH: i32 = 113;
    let says = |words: &[&str]| words.iter().any(|word| refusal.text.contains(word));
    // "Invalid prefsrc address" (IPv4), "Invalid source address" (IPv6).
    if spec.source.is_some() && says(&["prefsrc", "source address"]) {
        return Some(About::Source);
    }
    if spec.hops().is_empty() {
        return None;
    }
    match refusal.errno {
        EPERM | ENODEV | ENETDOWN | ENETUNREACH | EHOSTUNREACH => Some(About::Legs),
        // EINVAL has many reasons; the kernel's words tell: "Nexthop has invalid gateway".
        _ => says(&["exthop", "ateway"]).then_some(About::Legs),
    }
}

#[cfg(test)]
mod tests;
