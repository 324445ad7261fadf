//! The part of the plan that exists once per address family.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bgp_proto::types::{Family, Prefix, Prefix4, Prefix6};

use super::super::spec::{RouteSpec, SpecId};
use super::super::view::FibState;
use super::{Action, Op, Phase, Row, Seen, Shared};
use crate::kernel::foreign::Foreign;

/// A prefix of one family.
pub(super) trait Key: Copy + Ord + Into<Prefix> {
    const FAMILY: Family;
}
impl Key for Prefix4 {
    const FAMILY: Family = Family::Ipv4;
}
impl Key for Prefix6 {
    const FAMILY: Family = Family::Ipv6;
}

/// What is known about one prefix: 12 octets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    wanted: Option<SpecId>,
    installed: Option<SpecId>,
    /// Why it failed; meaningful with [`FAILED`].
    error: u16,
    flags: u8,
}

/// The prefix is in the queue.
const QUEUED: u8 = 1;
/// The kernel refused what is wanted (or refused to delete).
const FAILED: u8 = 1 << 1;
/// A failed entry shall be tried again when the queue comes to it.
const RETRY: u8 = 1 << 2;
/// Somebody else holds the place.
const FOREIGN: u8 = 1 << 3;
/// Found in the kernel at the start and not wanted so far.
const LEFTOVER: u8 = 1 << 4;
/// The kernel contradicted what is known; a second time is a failure.
const UNCLEAR: u8 = 1 << 5;
/// The round of the last resync that met the installed route.
const ROUND: u8 = 1 << 6;
/// The prefix waits for the repair gate.
const REPAIR: u8 = 1 << 7;

impl Entry {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    fn state(&self) -> Option<FibState> {
        Some(match (self.wanted, self.installed) {
            (None, None) => return None,
            (wanted, installed) if wanted == installed => FibState::Installed,
            _ if self.has(FAILED) => FibState::Failed,
            (None, Some(_)) if self.has(LEFTOVER) => FibState::Installed,
            _ if self.has(FOREIGN) => FibState::Foreign,
            _ => FibState::Pending,
        })
    }

    /// Records what the kernel has, and that this is known as of the current round.
    fn install(&mut self, spec: Option<SpecId>, shared: &mut Shared) {
        if let Some(old) = std::mem::replace(&mut self.installed, spec) {
            shared.release(old);
        }
        self.set(ROUND, shared.round);
    }
}

/// The prefixes of one family.
#[derive(Debug)]
pub(super) struct Table<K> {
    entries: BTreeMap<K, Entry>,
    /// Prefixes to decide about, each at most once.
    queue: VecDeque<K>,
    failed: BTreeSet<K>,
    /// Prefixes that others changed.
    repairs: Vec<K>,
    /// Routes of ours beside the one in `entries`, by their metric. With the same metric: two routes
    /// are in one place.
    pub(super) strays: BTreeSet<(K, u32)>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table {
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            failed: BTreeSet::new(),
            repairs: Vec::new(),
            strays: BTreeSet::new(),
        }
    }
}

/// What an entry needs after a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Rest,
    /// A decision as soon as possible.
    Queue,
    /// A decision when the repair gate opens.
    Repair,
}

impl<K: Key> Table<K> {
    /// Changes one entry and keeps counters, queues and indexes right.
    fn update(
        &mut self,
        key: K,
        shared: &mut Shared,
        change: impl FnOnce(&mut Entry, &mut Shared) -> Next,
    ) -> Next {
        let entry = self.entries.entry(key).or_default();
        let (before, failed) = (entry.state(), entry.has(FAILED));
        let next = change(entry, shared);
        match next {
            Next::Queue if !entry.has(QUEUED) => {
                entry.set(QUEUED, true);
                self.queue.push_back(key);
            }
            Next::Repair if !entry.has(REPAIR | QUEUED) => {
                entry.set(REPAIR, true);
                self.repairs.push(key);
            }
            _ => {}
        }
        shared.count(K::FAMILY, before, entry.state());
        if failed != entry.has(FAILED) {
            if failed {
                self.failed.remove(&key);
            } else {
                self.failed.insert(key);
            }
        }
        let (vacant, listed) = (entry.state().is_none(), entry.has(QUEUED | REPAIR));
        if vacant && !listed {
            self.entries.remove(&key);
            self.failed.remove(&key);
        }
        next
    }

    pub(super) fn want(&mut self, key: K, spec: Option<RouteSpec>, shared: &mut Shared) {
        if spec.is_none() && !self.entries.contains_key(&key) {
            return;
        }
        self.update(key, shared, |entry, shared| {
            let wanted = spec.map(|spec| shared.specs.intern(spec));
            let before = std::mem::replace(&mut entry.wanted, wanted);
            if let Some(before) = before {
                shared.release(before);
            }
            if before == wanted {
                return Next::Rest;
            }
            entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
            if wanted.is_some() {
                entry.set(LEFTOVER, false);
            }
            if entry.wanted == entry.installed { Next::Rest } else { Next::Queue }
        });
    }

    /// The start is over: leftovers are unwanted.
    pub(super) fn settle(&mut self, shared: &mut Shared) {
        for key in self.keys(|entry| entry.has(LEFTOVER)) {
            self.update(key, shared, |entry, _| {
                entry.set(LEFTOVER, false);
                Next::Queue
            });
        }
    }

    pub(super) fn withdraw_all(&mut self, shared: &mut Shared) {
        for key in self.keys(|entry| entry.wanted.is_some()) {
            self.want(key, None, shared);
        }
    }

    /// Whether the entry needs a repair.
    pub(super) fn handle_present(
        &mut self,
        key: K,
        spec: RouteSpec,
        seen: Seen,
        shared: &mut Shared,
    ) -> bool {
        let metric = spec.metric;
        let id = shared.specs.intern(spec);
        let mut stray = None;
        let next = self.update(key, shared, |entry, shared| {
            if entry.installed == Some(id) {
                entry.install(Some(id), shared);
                return Next::Rest;
            }
            let metric_of = |id: Option<SpecId>| id.map(|id| shared.specs.get(id).metric);
            let installed_metric = metric_of(entry.installed);
            if installed_metric.is_some_and(|installed| installed != metric) {
                if metric_of(entry.wanted) != Some(metric) {
                    stray = Some(metric);
                    shared.release(id);
                    return Next::Rest;
                }
                if entry.has(ROUND) == shared.round {
                    stray = installed_metric;
                }
            } else if installed_metric == Some(metric) {
                // Another route in the very place of the one that is known: `ip route append`. Which
                // of them forwards, and whether IPv6 has made one of both, only a reading tells.
                if seen == Seen::Added {
                    shared.resync_wanted = true;
                    shared.release(id);
                    return Next::Rest;
                }
                if seen == Seen::Read && entry.has(ROUND) == shared.round {
                    stray = Some(metric);
                    shared.release(id);
                    return Next::Rest;
                }
            }
            entry.install(Some(id), shared);
            if entry.wanted == entry.installed {
                // The kernel took it after all, though its answer may have been lost: should the
                // route go, it is written again and not left as refused.
                entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
                return Next::Rest;
            }
            entry.set(LEFTOVER, entry.wanted.is_none() && shared.phase < Phase::Settled);
            if entry.has(LEFTOVER) {
                Next::Rest
            } else if shared.phase == Phase::Unread {
                Next::Queue
            } else {
                Next::Repair
            }
        });
        if let Some(metric) = stray {
            self.strays.insert((key, metric));
        }
        next == Next::Repair
    }

    /// Whether the entry needs a repair.
    pub(super) fn handle_lost(&mut self, key: K, metric: u32, shared: &mut Shared) -> bool {
        self.strays.remove(&(key, metric));
        if !self.entries.contains_key(&key) {
            return false;
        }
        let next = self.update(key, shared, |entry, shared| {
            let installed_metric = entry.installed.map(|id| shared.specs.get(id).metric);
            if installed_metric != Some(metric) {
                return Next::Rest;
            }
            entry.install(None, shared);
            entry.set(LEFTOVER, false);
            if entry.wanted.is_some() { Next::Repair } else { Next::Rest }
        });
        next == Next::Repair
    }

    /// Drops what the resync did not meet; how many of them are wanted.
    pub(super) fn sweep(&mut self, shared: &mut Shared) -> usize {
        let round = shared.round;
        let lost = self.keys(|entry| entry.installed.is_some() && entry.has(ROUND) != round);
        let mut repairs = 0;
        for key in lost {
            let next = self.update(key, shared, |entry, shared| {
                entry.install(None, shared);
                entry.set(LEFTOVER, false);
                if entry.wanted.is_some() { Next::Repair } else { Next::Rest }
            });
            repairs += usize::from(next == Next::Repair);
        }
        repairs
    }

    /// Counts every installed route as met by the current round.
    pub(super) fn keep_round(&mut self, shared: &Shared) {
        for entry in self.entries.values_mut() {
            entry.set(ROUND, shared.round);
        }
    }

    /// Decides again.
    pub(super) fn touch(&mut self, key: K, shared: &mut Shared) {
        if self.entries.contains_key(&key) {
            self.update(key, shared, |entry, _| {
                if entry.wanted == entry.installed || entry.has(LEFTOVER) {
                    entry.set(UNCLEAR, false);
                    return Next::Rest;
                }
                entry.set(RETRY, entry.has(FAILED));
                Next::Queue
            });
        }
    }

    /// Queues failed entries whose content is selected; how many.
    pub(super) fn retry(&mut self, selects: impl Fn(SpecId) -> bool, shared: &mut Shared) -> usize {
        let entries = &self.entries;
        let content = |key: &K| entries.get(key).and_then(|entry| entry.wanted.or(entry.installed));
        let keys = self.failed.iter().filter(|key| content(key).is_some_and(&selects));
        let keys: Vec<K> = keys.copied().collect();
        for &key in &keys {
            self.update(key, shared, |entry, _| {
                entry.set(RETRY, true);
                Next::Queue
            });
        }
        keys.len()
    }

    /// Queues what others changed; how many.
    pub(super) fn release_repairs(&mut self, shared: &mut Shared) -> usize {
        let repairs = std::mem::take(&mut self.repairs);
        for &key in &repairs {
            self.update(key, shared, |entry, _| {
                entry.set(REPAIR, false);
                if entry.wanted == entry.installed { Next::Rest } else { Next::Queue }
            });
        }
        repairs.len()
    }

    pub(super) fn has_work(&self, shared: &Shared) -> bool {
        !self.queue.is_empty() || (shared.phase == Phase::Settled && !self.strays.is_empty())
    }

    /// Appends requests until `ops` holds `max`.
    pub(super) fn poll(
        &mut self,
        foreign: &Foreign,
        max: usize,
        ops: &mut Vec<Op>,
        shared: &mut Shared,
    ) {
        // Entries that need no request must not hold up the others' requests for long.
        let mut decisions = max * 4;
        while ops.len() < max
            && decisions > 0
            && let Some(key) = self.queue.pop_front()
        {
            decisions -= 1;
            let prefix: Prefix = key.into();
            self.update(key, shared, |entry, shared| {
                entry.set(QUEUED, false);
                if let Some(action) = decide(prefix, entry, foreign, shared) {
                    if let Action::Add(id) | Action::Replace(id) | Action::Withdraw(id) = action {
                        shared.specs.retain(id);
                    }
                    ops.push(Op { prefix, action });
                }
                Next::Rest
            });
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(1024);
        }
        while ops.len() < max
            && shared.phase == Phase::Settled
            && let Some((key, metric)) = self.strays.pop_first()
        {
            ops.push(Op { prefix: key.into(), action: Action::WithdrawStray { metric } });
        }
    }

    /// The kernel did what was asked.
    pub(super) fn handle_done(&mut self, key: K, action: Action, shared: &mut Shared) {
        let mut stray = None;
        self.update(key, shared, |entry, shared| {
            match action {
                Action::WithdrawStray { metric } => {
                    // A metric of 0 matches any, and where two routes share a place the kernel takes
                    // the first: the route that we keep may be the one that is gone.
                    let kept = entry.installed.map(|id| shared.specs.get(id).metric);
                    shared.resync_wanted |= metric == 0 || kept == Some(metric);
                    return Next::Rest;
                }
                Action::Add(id) | Action::Replace(id) => {
                    let metric = shared.specs.get(id).metric;
                    let before = entry.installed.map(|old| shared.specs.get(old).metric);
                    stray = before.filter(|before| *before != metric);
                    shared.specs.retain(id);
                    entry.install(Some(id), shared);
                    shared.note_success(id);
                }
                Action::Withdraw(id) if entry.installed == Some(id) => entry.install(None, shared),
                Action::Withdraw(_) => {}
            }
            let refused = entry.has(FAILED) && matches!(action, Action::Withdraw(_));
            if refused && entry.wanted.is_some() {
                return Next::Rest;
            }
            entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
            if entry.wanted == entry.installed { Next::Rest } else { Next::Queue }
        });
        if let Some(metric) = stray {
            self.strays.insert((key, metric));
        }
    }

    /// The kernel refused it.
    pub(super) fn refuse(&mut self, key: K, action: Action, text: &str, shared: &mut Shared) {
        let error = shared.error(text);
        self.update(key, shared, |entry, _| {
            let asked = match action {
                Action::Add(id) | Action::Replace(id) => Some(id),
                Action::Withdraw(_) | Action::WithdrawStray { .. } => None,
            };
            let stale = asked.is_some() && entry.installed.is_some();
            // The owner may have changed its mind meanwhile, and then the entry is queued.
            if entry.wanted == entry.installed || (asked.is_some() && asked != entry.wanted) {
                return Next::Rest;
            }
            entry.set(FAILED, true);
            entry.set(RETRY, false);
            entry.error = error;
            // What is still installed is not wanted any more.
            if stale { Next::Queue } else { Next::Rest }
        });
    }

    /// Whether the entry was clear so far.
    pub(super) fn mark_unclear(&mut self, key: K, shared: &mut Shared) -> bool {
        let mut first = false;
        self.update(key, shared, |entry, _| {
            first = !entry.has(UNCLEAR);
            entry.set(UNCLEAR, true);
            Next::Rest
        });
        first
    }

    pub(super) fn rows<'a>(
        &'a self,
        from: Bound<K>,
        shared: &'a Shared,
    ) -> impl Iterator<Item = Row> + 'a {
        self.entries.range((from, Bound::Unbounded)).filter_map(|(key, entry)| {
            let state = entry.state()?;
            let error = || shared.errors.get(usize::from(entry.error)).cloned();
            Some(Row {
                prefix: (*key).into(),
                spec: std::sync::Arc::clone(shared.specs.get(entry.wanted.or(entry.installed)?)),
                state,
                error: if state == FibState::Failed { error() } else { None },
            })
        })
    }

    fn keys(&self, selects: impl Fn(&Entry) -> bool) -> Vec<K> {
        self.entries.iter().filter(|(_, entry)| selects(entry)).map(|(key, _)| *key).collect()
    }
}

/// The one request that brings an entry closer to what is wanted.
fn decide(
    prefix: Prefix,
    entry: &mut Entry,
    foreign: &Foreign,
    shared: &mut Shared,
) -> Option<Action> {
    entry.set(FOREIGN, false);
    let Some(wanted) = entry.wanted else {
        let retry = !entry.has(FAILED) || entry.has(RETRY);
        entry.set(RETRY, false);
        return entry.installed.filter(|_| retry && !entry.has(LEFTOVER)).map(Action::Withdraw);
    };
    if entry.installed == Some(wanted) {
        entry.set(UNCLEAR, false);
        return None;
    }
    let spec = shared.specs.get(wanted);
    let metric = spec.metric;
    let installed = entry.installed.map(|id| (id, shared.specs.get(id).metric));
    let defect = spec.defect().map(|text| shared.error(text));
    if let Some(error) = defect.or_else(|| shared.known_failure(wanted)) {
        entry.set(FAILED, true);
        entry.error = error;
    } else if entry.has(RETRY) {
        // The flag FAILED stays until the kernel took the route: `show fib` does not flicker.
        entry.set(RETRY, false);
        return place(prefix, metric, wanted, installed, entry, foreign, shared);
    }
    if entry.has(FAILED) {
        return installed.map(|(id, _)| Action::Withdraw(id));
    }
    place(prefix, metric, wanted, installed, entry, foreign, shared)
}

/// How to write a route, unless somebody holds its place.
fn place(
    prefix: Prefix,
    metric: u32,
    wanted: SpecId,
    installed: Option<(SpecId, u32)>,
    entry: &mut Entry,
    foreign: &Foreign,
    shared: &Shared,
) -> Option<Action> {
    let held = foreign.holder(prefix, shared.table, metric).is_some();
    if held {
        entry.set(FAILED | UNCLEAR, false);
        entry.set(FOREIGN, true);
        return installed.map(|(id, _)| Action::Withdraw(id));
    }
    match installed {
        Some((_, installed_metric)) if installed_metric == metric => Some(Action::Replace(wanted)),
        _ => Some(Action::Add(wanted)),
    }
}
