//! The wanted routes, the routes in the kernel, and the requests that make the second equal to the
//! first.
//!
//! Pure: no socket and no clock. The worker passes in what it read ([`Plan::handle_present`],
//! [`Plan::handle_lost`], the resync calls) and the answers to requests
//! ([`Plan::handle_answers`]), and polls for the next batch ([`Plan::poll_batch`]).
//!
//! Terms: a *place* is a prefix and a metric in our table; a *content* ([`SpecId`]) is everything
//! about a route but its prefix, interned; a *leg* is one next hop of a route; a *stray* is a route
//! under our protocol number other than the one that we keep for its prefix.
//!
//! Invariants: a place that a foreign route holds is never written, and neither is the prefix of a
//! connected network; a route is replaced only if it is known to be ours; an installed route stays
//! until the kernel has accepted its replacement; a prefix is in the queue at most once, so that
//! memory is bounded by the number of prefixes.

mod decide;
mod entry;
mod groups;
mod phase;
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
use crate::kernel::spec::{RouteSpec, SpecId};
pub(crate) use groups::ids_of_table;
use phase::Phase;
pub(crate) use refused::Part;
use refused::{About, about};
pub(crate) use shared::Direct;
use shared::Shared;
use strays::RefusedStrays;
use table::Table;

/// Maximum number of prefixes named in a log line.
const EXAMPLES: usize = 3;

/// How long a route that is no longer wanted waits for that of another process to take its place.
const KEPT_MAX: Duration = Duration::from_secs(10);

const EEXIST: i32 = 17;
const ESRCH: i32 = 3;

/// One request to the kernel. It counts as a use of its spec until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) prefix: Prefix,
    pub(crate) action: Action,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Creates the route; refused if the place is taken.
    Add(SpecId),
    /// Overwrites our route in the same place.
    Replace(SpecId),
    /// Deletes our route, installed with this content.
    Withdraw(SpecId),
    /// Deletes a stray.
    WithdrawStray { metric: u32, tos: u8 },
}

/// How it became known that the kernel has a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A dump contains it.
    Read,
    /// Another process added it; the previous route in its place may still exist.
    Added,
    /// Another process replaced the route in its place by it.
    Replacing,
}

/// A request that the kernel refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// Index into the batch.
    pub(crate) index: usize,
    /// Linux error number.
    pub(crate) errno: i32,
    /// The kernel's explanation.
    pub(crate) text: String,
}

/// What is to be logged since the last call of [`Plan::take_report`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Routes refused for a reason that has not been logged yet, with one of them as an example.
    pub(crate) refused: usize,
    pub(crate) example: Option<(Prefix, Arc<RouteSpec>, String)>,
    /// Legs and source addresses that the kernel newly refuses, with one of them as an example.
    pub(crate) parts: usize,
    pub(crate) part: Option<(Part, String)>,
    /// Next-hop objects that the kernel newly refuses, with one of them as an example.
    pub(crate) objects: usize,
    pub(crate) object: Option<(ObjectOp, String)>,
    /// Routes of ours whose place is held by another, with one of them and what holds it.
    pub(crate) held: usize,
    pub(crate) holder: Option<(Prefix, String)>,
    /// Routes of ours that others removed or changed, now about to be written again.
    pub(crate) repaired: usize,
    /// How many of those are the first in a while, rather than part of a fight that was logged.
    pub(crate) first_repairs: usize,
    /// Some of them.
    pub(crate) repaired_examples: Vec<Prefix>,
}

/// A row of [`Plan::view`].
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) prefix: Prefix,
    /// The wanted content; without the parts that the kernel refuses, if the rest is installed.
    pub(crate) spec: Arc<RouteSpec>,
    pub(crate) state: FibState,
    pub(crate) error: Option<String>,
    /// Parts that the kernel refuses, and why; the rest is installed.
    pub(crate) left_out: Vec<(Part, String)>,
    /// The kernel has another content, which stays until it accepts this one.
    pub(crate) keeps: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    v4: Table<Prefix4>,
    v6: Table<Prefix6>,
    shared: Shared,
    /// Routes kept until another process has one, and until when at most; in order of time.
    kept: VecDeque<(Time, Vec<Prefix>)>,
    /// Those kept since the last call that passed the time.
    kept_since_last: Vec<Prefix>,
    /// How often each prefix is in those two. A route that was wanted again and is then kept anew
    /// gets the full time: only its last entry ends the keeping.
    keeps: Counts<Prefix>,
    /// Prefixes whose requests met an unknown route; decided again after the next dump.
    unclear: BTreeSet<Prefix>,
    /// Strays that the kernel did not delete.
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
    /// For routes of a table and a protocol number, whose next hops are written in this form.
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

    /// Sets or clears the wanted route of a prefix.
    pub(crate) fn want(&mut self, prefix: Prefix, route: Option<(RouteSpec, Recursion)>) {
        if !self.shared.closed {
            of_family!(self, prefix, key, table => table.want(key, route, &mut self.shared));
        }
    }

    /// Clears the wanted route of a prefix, and leaves an installed one until another process has
    /// a route to it: for at most [`KEPT_MAX`] if ours was wanted until now. A route left by an
    /// earlier run is kept without a limit, as it is unknown whether the other process has
    /// started.
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

    /// Start-up is over: leftovers of an earlier run that are not wanted are deleted from here on.
    pub(crate) fn end_of_startup(&mut self) {
        self.shared.startup_ended = true;
        self.settle();
    }

    /// Ends start-up once the kernel has been read and the owner has submitted everything.
    fn settle(&mut self) {
        if self.shared.phase == Phase::Adopting && self.shared.startup_ended {
            self.shared.phase = Phase::Settled;
            self.v4.settle(&mut self.shared);
            self.v6.settle(&mut self.shared);
            self.shared.groups.handle_all_unused();
        }
    }

    /// Withdraws every route, and ignores whatever is submitted from here on.
    pub(crate) fn withdraw_all(&mut self) {
        self.v4.withdraw_all(&mut self.shared);
        self.v6.withdraw_all(&mut self.shared);
        self.shared.closed = true;
        self.end_of_startup();
        self.v4.end_repairs(&mut self.shared);
        self.v6.end_repairs(&mut self.shared);
    }

    /// A full dump of our routes begins.
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

    /// The kernel no longer has our route with this metric.
    pub(crate) fn handle_lost(&mut self, prefix: Prefix, metric: u32, now: Time) {
        of_family!(self, prefix, key, table => {
            table.handle_lost(key, metric, now, &mut self.shared);
        });
    }

    /// Another process deleted a route of ours, or those of its legs that `spec` has.
    pub(crate) fn handle_gone(&mut self, prefix: Prefix, spec: &RouteSpec, now: Time) {
        of_family!(self, prefix, key, table => {
            table.handle_gone(key, spec, now, &mut self.shared);
        });
    }

    /// The kernel has a route under our protocol number with a TOS. We write none: it is a stray.
    pub(crate) fn handle_twin(&mut self, prefix: Prefix, metric: u32, tos: u8) {
        of_family!(self, prefix, key, table => table.handle_twin(key, metric, tos));
    }

    /// A route under our protocol number with a TOS was deleted.
    pub(crate) fn handle_twin_lost(&mut self, prefix: Prefix, metric: u32, tos: u8) {
        of_family!(self, prefix, key, table => table.handle_twin_lost(key, metric, tos));
    }

    /// The dump is complete: a route that it does not contain is not installed, and is written at
    /// once, without a repair wait. Dumps are too rare to feed a fight with another process.
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

    /// The dump failed: routes that it does not contain may be installed nevertheless.
    pub(crate) fn abort_resync(&mut self) {
        self.v4.keep_round(&self.shared);
        self.v6.keep_round(&self.shared);
    }

    /// Something changed that may allow our route to the prefix: decides again.
    pub(crate) fn touch(&mut self, prefix: Prefix) {
        of_family!(self, prefix, key, table => table.touch(key, &mut self.shared));
    }

    /// Links or addresses changed: retries everything that was refused.
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

    /// A dump contains these next-hop objects. To be called before the routes that use them.
    pub(crate) fn handle_objects_read<'a>(
        &mut self,
        objects: impl Iterator<Item = &'a Object>,
        picture: DumpEnd,
    ) {
        self.shared.picture_is_complete = picture == DumpEnd::Complete;
        self.shared.groups.read(objects);
    }

    /// The kernel does not support next-hop objects: none are requested.
    pub(crate) fn handle_no_objects(&mut self) {
        self.shared.groups.handle_unsupported();
    }

    /// Another process, or the kernel, changed a next-hop object, or deleted it (`None`).
    pub(crate) fn handle_object(&mut self, id: NonZeroU32, object: Option<&Object>, now: Time) {
        self.shared.groups.handle_object(id, object, now);
    }

    /// A BGP next hop resolves to these hops from here on, or to none, and the owner is going to
    /// submit the routes that change as a result. Routes that depend on this next hop follow at
    /// once: they use its new hops, else their other next hops, else their backup.
    ///
    /// The wanted routes stay a function of what was submitted and of the calls made here: the
    /// owner receives the same results in the same order, computes the same hops, and may submit
    /// nothing. A route without any reachable next hop keeps its hops, since the owner is going to
    /// submit it.
    ///
    /// Nothing moves before the kernel has been read: it may have no objects, and then the owner
    /// alone decides.
    pub(crate) fn handle_next_hop(&mut self, next_hop: IpAddr, hops: &[Hop]) {
        if !self.shared.groups.may_move() || self.shared.closed {
            return;
        }
        let Shared { groups, specs, phase, .. } = &mut self.shared;
        // As they are: the weight of a single hop counts beside those of other next hops.
        let is_news = groups.resolve(specs, next_hop, hops.to_vec(), *phase);
        if !is_news || *phase == Phase::Unread {
            return;
        }
        let mut one_by_one: BTreeMap<SpecId, Arc<[Hop]>> = BTreeMap::new();
        let moves = self.shared.groups.moves(&self.shared.specs, next_hop);
        for (to, ids) in moves {
            if self.shared.move_contents(&ids, &to) {
                self.shared.direct.all |= self.v4.has_direct() || self.v6.has_direct();
            } else {
                let hops: Arc<[Hop]> = to.hops().into();
                one_by_one.extend(ids.into_iter().map(|id| (id, Arc::clone(&hops))));
            }
        }
        if !one_by_one.is_empty() {
            self.v4.move_wanted(&one_by_one, &mut self.shared);
            self.v6.move_wanted(&one_by_one, &mut self.shared);
        }
    }

    /// Does what is due: object retries, the end of keeping, repairs, and retries of routes.
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

    /// Retries refused legs and source addresses that are due, each content with one route.
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

    /// Whether [`Plan::poll_batch`] or [`Plan::poll_objects`] may return requests.
    pub(crate) fn has_work(&self) -> bool {
        self.shared.phase != Phase::Unread
            && (self.v4.has_work(&self.shared)
                || self.v6.has_work(&self.shared)
                || self.shared.groups.has_work(self.shared.deletes_objects()))
    }

    /// Whether everything that can be written is written. During the final withdrawal, whether
    /// everything is deleted: a refused deletion counts as pending, as there is no later retry.
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

    /// Whether a dump is needed, because the state of the kernel is not known.
    pub(crate) fn wants_resync(&self) -> bool {
        self.shared.resync_wanted
    }

    /// The next requests for next-hop objects; routes over them are written after the answers.
    /// Empty when there are none, and routes may be polled.
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

    /// The kernel's answers to requests for objects; those not in `refused` succeeded.
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

    /// The answers were lost: only a dump shows which objects there are.
    pub(crate) fn handle_objects_unanswered(&mut self) {
        self.shared.resync_wanted = true;
    }

    /// At most `max` requests, each for a different prefix or metric. Both families get a share.
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

    /// The content that a request names.
    pub(crate) fn spec(&self, id: SpecId) -> &RouteSpec {
        self.shared.specs.get(id)
    }

    /// The kernel's answers to a batch; requests not in `refused` succeeded.
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

    /// Decides again about the prefixes whose wanted content is written differently than before.
    fn settle_contents(&mut self) {
        let unsettled = self.shared.take_unsettled();
        if !unsettled.is_empty() {
            self.v4.settle_contents(&unsettled, &mut self.shared);
            self.v6.settle_contents(&unsettled, &mut self.shared);
        }
    }

    /// The answers to a batch were lost: the state of its prefixes is unknown until the next dump.
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

    /// At most `limit` rows after `after`, IPv4 before IPv6, in prefix order.
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

    /// Whether any route of ours uses the interface.
    pub(crate) fn uses_interface(&self, ifindex: u32) -> bool {
        self.shared.specs.use_interface(ifindex)
    }

    /// Whether any route of ours uses one of these next-hop objects.
    pub(crate) fn uses_objects(&self, ids: &BTreeSet<NonZeroU32>) -> bool {
        let uses = |spec: &RouteSpec| spec.object.is_some_and(|id| ids.contains(&id));
        !self.shared.specs.select(uses).is_empty()
    }

    /// Whether the kernel refuses any route, part of a route, or next-hop object.
    pub(crate) fn has_refused(&self) -> bool {
        self.shared.counters.failed > 0
            || !self.shared.refused.is_empty()
            || self.shared.groups.has_refused()
    }

    /// Whether any route of ours has this source address: when the address is removed, the kernel
    /// deletes the route, or the source from it, without an event.
    pub(crate) fn uses_source(&self, addr: IpAddr) -> bool {
        self.shared.specs.use_source(addr)
    }

    /// The wanted routes with [`Recursion::Direct`] that cover `addr`, the most specific first.
    pub(crate) fn direct_routes(&self, addr: IpAddr) -> Vec<(Prefix, &RouteSpec)> {
        match addr {
            IpAddr::V4(_) => self.v4.direct_routes(addr, &self.shared),
            IpAddr::V6(_) => self.v6.direct_routes(addr, &self.shared),
        }
    }

    /// The routes with [`Recursion::Direct`] that changed since the last call.
    pub(crate) fn take_direct(&mut self) -> Direct {
        std::mem::take(&mut self.shared.direct)
    }

    /// The report since the last call.
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

    /// Classifies a refusal. The order matters: a route that is already gone counts as deleted; a
    /// place taken by an unknown route needs a dump first; a refusal that may be that of the
    /// next-hop object is tried with inline hops; one of a leg or source costs only that part;
    /// what remains is a refusal of the whole route.
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

    /// Whether a refusal may be due to the route's next-hop object.
    fn is_over_refused(&self, id: SpecId, refusal: &Refused) -> bool {
        /// Errors that are not: ENOBUFS, ENOMEM, EBUSY, EAGAIN, EINTR, EEXIST.
        const OTHERS: [i32; 6] = [105, 12, 16, 11, 4, EEXIST];
        self.shared.specs.get(id).object.is_some() && !OTHERS.contains(&refusal.errno)
    }

    /// Routes over a group are refused: they are written with their hops inline, which shows
    /// whether the hops are the reason. The group may also have been deleted without an event,
    /// which a dump shows.
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

    /// Whether this is the first contradiction about the prefix, so that a dump may resolve it.
    fn mark_unclear(&mut self, prefix: Prefix) -> bool {
        of_family!(self, prefix, key, table => table.mark_unclear(key, &mut self.shared))
    }

    fn release(&mut self, op: &Op) {
        if let Action::Add(id) | Action::Replace(id) | Action::Withdraw(id) = op.action {
            self.shared.release(id);
        }
    }
}

#[cfg(test)]
mod tests;
