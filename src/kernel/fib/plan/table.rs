//! The part of the plan that exists per address family.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use bgp_proto::types::{Family, Hop, Prefix, Prefix4, Prefix6, Recursion, Time};

use super::decide::decide;
use super::entry::{
    DIRECT, Entry, FAILED, FOREIGN, KEPT, LEFTOVER, QUEUED, REPAIR, RETRY, ROUND, UNCLEAR,
};
use super::phase::Phase;
use super::refused::{About, Part, Target};
use super::repair::{Due, Repairs};
use super::shared::Shared;
use super::{Action, Op, Row, Seen};
use crate::kernel::fib::view::FibState;
use crate::kernel::foreign::Foreign;
use crate::kernel::spec::{RouteSpec, SpecId};

/// A prefix of one family.
pub(super) trait Key: Copy + Ord + Into<Prefix> {
    const FAMILY: Family;

    /// The key of a prefix, if it is of this family.
    fn of(prefix: Prefix) -> Option<Self>;
}

impl Key for Prefix4 {
    const FAMILY: Family = Family::Ipv4;

    fn of(prefix: Prefix) -> Option<Self> {
        if let Prefix::V4(key) = prefix { Some(key) } else { None }
    }
}

impl Key for Prefix6 {
    const FAMILY: Family = Family::Ipv6;

    fn of(prefix: Prefix) -> Option<Self> {
        if let Prefix::V6(key) = prefix { Some(key) } else { None }
    }
}

/// The prefixes of one family.
#[derive(Debug)]
pub(super) struct Table<K> {
    pub(super) entries: BTreeMap<K, Entry>,
    /// Prefixes to decide, each at most once.
    queue: VecDeque<K>,
    /// The prefixes of entries that have `FAILED`.
    failed: BTreeSet<K>,
    /// Prefixes whose routes others changed.
    repairs: Repairs<K>,
    /// Strays to be deleted once start-up is over.
    strays: BTreeSet<Stray<K>>,
    /// Strays that this run has replaced by another route: they are deleted at once.
    pub(super) superseded: BTreeSet<Stray<K>>,
    /// Those known when the dump in progress began, until the dump shows them again.
    pub(super) superseded_before: BTreeSet<Stray<K>>,
    /// The number of prefixes of each length over whose routes next hops may be resolved.
    direct_lengths: [u32; 129],
}

/// A route under our protocol number other than the one that we keep for the prefix: prefix,
/// metric, TOS. If the metric is that of the one that we keep, two routes share a place.
type Stray<K> = (K, u32, u8);

impl<K: Ord> Default for Table<K> {
    fn default() -> Self {
        Table {
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            failed: BTreeSet::new(),
            repairs: Repairs::default(),
            strays: BTreeSet::new(),
            superseded: BTreeSet::new(),
            superseded_before: BTreeSet::new(),
            direct_lengths: [0; 129],
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
    /// A decision when its repair is due; the need was found at this time.
    Repair(Time),
}

impl<K: Key> Table<K> {
    /// Changes one entry, and updates counters, queue and indexes. Every change of an entry that
    /// may affect its state goes through here; an entry without content and without a reason to be
    /// visited again is removed.
    fn update(
        &mut self,
        key: K,
        shared: &mut Shared,
        change: impl FnOnce(&mut Entry, &mut Shared) -> Next,
    ) {
        let entry = self.entries.entry(key).or_default();
        let (before, failed) = (entry.counted(), entry.has(FAILED));
        match change(entry, shared) {
            Next::Queue if !entry.has(QUEUED) => {
                entry.set(QUEUED, true);
                self.queue.push_back(key);
            }
            Next::Repair(now) if !entry.has(REPAIR | QUEUED) => {
                entry.set(REPAIR, true);
                self.repairs.schedule(key, now);
            }
            _ => {}
        }
        let after = entry.state(key.into(), shared);
        entry.set_counted(after);
        shared.count(K::FAMILY, before, after);
        if failed != entry.has(FAILED) {
            if failed {
                self.failed.remove(&key);
            } else {
                self.failed.insert(key);
            }
        }
        let vacant = after.is_none() && !entry.has(KEPT);
        let listed = entry.has(QUEUED | REPAIR);
        if vacant && !listed {
            self.entries.remove(&key);
            self.failed.remove(&key);
        }
    }

    pub(super) fn want(
        &mut self,
        key: K,
        route: Option<(RouteSpec, Recursion)>,
        shared: &mut Shared,
    ) {
        if route.is_none() && !self.entries.contains_key(&key) {
            return;
        }
        let prefix: Prefix = key.into();
        let length = &mut self.direct_lengths[usize::from(prefix.len())];
        let entry = self.entries.entry(key).or_default();
        let (was_direct, before) = (entry.has(DIRECT), entry.wanted);
        let is_direct = matches!(route, Some((_, Recursion::Direct)));
        entry.set(DIRECT, is_direct);
        *length = *length + u32::from(is_direct) - u32::from(was_direct);
        self.update(key, shared, |entry, shared| {
            // Interned before the old content is released: if both are the same, what is known
            // about it (its failures, refused parts and group) is not forgotten in between.
            let wanted = route.map(|(spec, _)| shared.specs.intern(spec));
            entry.wanted = wanted;
            if let Some(before) = before {
                if wanted != Some(before) {
                    shared.refused.abandon(&mut shared.specs, prefix, before);
                }
                shared.release(before);
            }
            if was_direct != is_direct || (is_direct && before != wanted) {
                shared.direct.add(prefix);
            }
            let was_kept = entry.has(KEPT);
            entry.set(KEPT, false);
            if before == wanted && !was_kept {
                return Next::Rest;
            }
            entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
            if let Some(wanted) = wanted {
                entry.set(LEFTOVER, false);
                shared.claim(wanted, entry.installed);
            }
            if entry.is_right(prefix, shared) { Next::Rest } else { Next::Queue }
        });
    }

    /// Clears the wanted route, and keeps an installed one until another process has a route to the
    /// prefix. Returns whether a route was wanted until now.
    pub(super) fn keep(&mut self, key: K, shared: &mut Shared) -> bool {
        let was_wanted = self.entries.get(&key).is_some_and(|entry| entry.wanted.is_some());
        // Without a wanted route no next hop is resolved over it.
        self.want(key, None, shared);
        self.update(key, shared, |entry, _| {
            entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
            entry.set(KEPT, true);
            if entry.installed.is_some() { Next::Queue } else { Next::Rest }
        });
        was_wanted
    }

    /// The time for which a route is kept is over.
    pub(super) fn end_keeping(&mut self, key: K, shared: &mut Shared) {
        if self.entries.get(&key).is_some_and(|entry| entry.has(KEPT)) {
            self.want(key, None, shared);
        }
    }

    /// Start-up is over: queues leftovers for deletion.
    pub(super) fn settle(&mut self, shared: &mut Shared) {
        for key in self.keys(|entry| entry.has(LEFTOVER)) {
            self.update(key, shared, |entry, _| {
                entry.set(LEFTOVER, false);
                Next::Queue
            });
        }
    }

    pub(super) fn withdraw_all(&mut self, shared: &mut Shared) {
        let mut keys = self.keys(|entry| entry.wanted.is_some() || entry.has(KEPT));
        // When the kernel removes a prefix, it looks in the trie's node for another of that length,
        // from the first child on (update_suffix in fib_trie.c): in ascending order all that are gone
        // already are in the way, and a million routes take half a minute.
        keys.sort_unstable_by(|a, b| b.cmp(a));
        for key in keys {
            self.want(key, None, shared);
        }
    }

    pub(super) fn begin_resync(&mut self) {
        self.strays.clear();
        self.superseded_before.append(&mut self.superseded);
    }

    /// The kernel has this route of ours. It becomes the installed one, unless the known one has
    /// precedence: with two metrics, the route with the wanted metric is kept; with one, the route
    /// that is known. The other is a stray, or only a dump can tell.
    pub(super) fn handle_present(
        &mut self,
        key: K,
        spec: RouteSpec,
        seen: Seen,
        now: Time,
        shared: &mut Shared,
    ) {
        let prefix = key.into();
        let metric = spec.metric;
        let id = shared.specs.intern(spec);
        let mut stray = None;
        self.update(key, shared, |entry, shared| {
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
                // Another route in the place of the known one: `ip route append`. Which of them the
                // kernel uses, and whether IPv6 has merged them, only a dump shows.
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
            if entry.is_right(prefix, shared) {
                // The kernel accepted it after all, though the answer may have been lost: if the
                // route is deleted later, it is written again instead of counting as refused.
                entry.set(FAILED | RETRY | FOREIGN | UNCLEAR, false);
                return Next::Rest;
            }
            if entry.wanted.is_none() {
                // The deletion that failed was of another content: this one has not been tried yet.
                entry.set(FAILED | RETRY, false);
            }
            entry.set(LEFTOVER, entry.wanted.is_none() && shared.phase < Phase::Settled);
            if entry.has(LEFTOVER) {
                Next::Rest
            } else if seen == Seen::Read {
                Next::Queue
            } else {
                Next::Repair(now)
            }
        });
        if let Some(metric) = stray {
            self.note_stray((key, metric, 0));
        }
    }

    pub(super) fn handle_lost(&mut self, key: K, metric: u32, now: Time, shared: &mut Shared) {
        self.handle_twin_lost(key, metric, 0);
        if !self.entries.contains_key(&key) {
            return;
        }
        self.update(key, shared, |entry, shared| {
            let installed_metric = entry.installed.map(|id| shared.specs.get(id).metric);
            if installed_metric != Some(metric) {
                return Next::Rest;
            }
            entry.install(None, shared);
            entry.set(LEFTOVER, false);
            if entry.wanted.is_some() { Next::Repair(now) } else { Next::Rest }
        });
    }

    /// A route, or some legs of it, were deleted: for IPv6 the kernel reports the deletion of each
    /// leg, while the others stay.
    pub(super) fn handle_gone(&mut self, key: K, spec: &RouteSpec, now: Time, shared: &mut Shared) {
        let installed = self.entries.get(&key).and_then(|entry| entry.installed);
        let is_leg = installed.is_some_and(|id| {
            let known = shared.specs.get(id);
            known.metric == spec.metric && spec.hops().len() < known.hops().len()
        });
        if is_leg {
            shared.resync_wanted = true;
        } else {
            self.handle_lost(key, spec.metric, now, shared);
        }
    }

    pub(super) fn handle_twin(&mut self, key: K, metric: u32, tos: u8) {
        self.note_stray((key, metric, tos));
    }

    pub(super) fn handle_twin_lost(&mut self, key: K, metric: u32, tos: u8) {
        self.strays.remove(&(key, metric, tos));
        self.superseded.remove(&(key, metric, tos));
    }

    fn note_stray(&mut self, stray: Stray<K>) {
        if self.superseded_before.contains(&stray) {
            self.superseded.insert(stray);
        } else if !self.superseded.contains(&stray) {
            self.strays.insert(stray);
        }
    }

    /// Marks routes that the dump did not contain as not installed.
    pub(super) fn sweep(&mut self, shared: &mut Shared) {
        self.superseded_before.clear();
        let round = shared.round;
        let lost = self.keys(|entry| entry.installed.is_some() && entry.has(ROUND) != round);
        for key in lost {
            self.update(key, shared, |entry, shared| {
                entry.install(None, shared);
                entry.set(LEFTOVER, false);
                if entry.wanted.is_some() && !entry.has(REPAIR) { Next::Queue } else { Next::Rest }
            });
        }
    }

    /// Treats every installed route as contained in the current dump, which failed.
    pub(super) fn keep_round(&mut self, shared: &Shared) {
        self.superseded.append(&mut self.superseded_before);
        for entry in self.entries.values_mut() {
            entry.set(ROUND, shared.round);
        }
    }

    /// Decides again.
    pub(super) fn touch(&mut self, key: K, shared: &mut Shared) {
        if self.entries.contains_key(&key) {
            let prefix = key.into();
            self.update(key, shared, |entry, shared| {
                let is_right = entry.is_right(prefix, shared);
                entry.set(UNCLEAR, entry.has(UNCLEAR) && !is_right && !entry.has(LEFTOVER));
                // Even a right entry is decided again: a new connected network displaces its route.
                if entry.has(LEFTOVER) || entry.wanted.is_none() && is_right {
                    return Next::Rest;
                }
                entry.set(RETRY, entry.has(FAILED));
                Next::Queue
            });
        }
    }

    /// Queues an entry for a trial.
    pub(super) fn requeue(&mut self, key: K, shared: &mut Shared) {
        self.update(key, shared, |entry, _| {
            entry.set(RETRY, entry.has(FAILED));
            Next::Queue
        });
    }

    /// One prefix per content with which a trial can be made.
    pub(super) fn representatives(&self, ids: &BTreeSet<SpecId>) -> BTreeMap<SpecId, Prefix> {
        let mut found = BTreeMap::new();
        // An unclear entry waits for a dump, after which it is decided again. One that has failed
        // since is selected nevertheless: only a trial would ever try it again.
        let waits = |entry: &Entry| entry.has(UNCLEAR) && !entry.has(FAILED);
        for (key, entry) in &self.entries {
            if let Some(wanted) = entry.wanted
                && !entry.has(FOREIGN)
                && !waits(entry)
                && ids.contains(&wanted)
            {
                found.entry(wanted).or_insert((*key).into());
                if found.len() == ids.len() {
                    break;
                }
            }
        }
        found
    }

    /// Decides the entries that want these contents again, because they are written differently.
    pub(super) fn settle_contents(&mut self, ids: &BTreeSet<SpecId>, shared: &mut Shared) {
        for key in self.keys(|entry| entry.wanted.is_some_and(|wanted| ids.contains(&wanted))) {
            let prefix = key.into();
            self.update(key, shared, |entry, shared| {
                if entry.is_right(prefix, shared) {
                    entry.set(FAILED | RETRY, false);
                    return Next::Rest;
                }
                entry.set(RETRY, entry.has(FAILED));
                Next::Queue
            });
        }
    }

    /// Queues failed entries with one of these contents for a retry; returns their number.
    pub(super) fn retry(&mut self, ids: &BTreeSet<SpecId>, shared: &mut Shared) -> usize {
        if ids.is_empty() {
            return 0;
        }
        let entries = &self.entries;
        let concerns = |key: &&K| {
            let entry = entries.get(*key);
            let content = entry.and_then(|entry| match entry.wanted {
                Some(wanted) => match shared.written((**key).into(), wanted) {
                    Target::Spec(id) => Some(id),
                    Target::Nothing(_) => None,
                },
                None => entry.installed,
            });
            content.is_some_and(|id| ids.contains(&id))
        };
        let keys: Vec<K> = self.failed.iter().filter(concerns).copied().collect();
        for &key in &keys {
            self.update(key, shared, |entry, _| {
                entry.set(RETRY, true);
                Next::Queue
            });
        }
        keys.len()
    }

    /// Queues the entries whose repair is due.
    pub(super) fn release_repairs(&mut self, now: Time, shared: &mut Shared) -> Due<K> {
        let due = self.repairs.take_due(now);
        due.keys.iter().for_each(|key| self.repair(*key, shared));
        due
    }

    /// Queues all entries that wait for a repair.
    pub(super) fn end_repairs(&mut self, shared: &mut Shared) {
        for key in self.repairs.take_all() {
            self.repair(key, shared);
        }
    }

    fn repair(&mut self, key: K, shared: &mut Shared) {
        let prefix = key.into();
        self.update(key, shared, |entry, shared| {
            entry.set(REPAIR, false);
            if entry.is_at_rest(prefix, shared) { Next::Rest } else { Next::Queue }
        });
    }

    /// When the next repair is due.
    pub(super) fn repairs_due(&self) -> Option<Time> {
        self.repairs.deadline()
    }

    pub(super) fn has_work(&self, shared: &Shared) -> bool {
        let strays = shared.phase == Phase::Settled && !self.strays.is_empty();
        !self.queue.is_empty() || !self.superseded.is_empty() || strays
    }

    /// Appends requests until `ops` holds `max`.
    pub(super) fn poll(
        &mut self,
        foreign: &Foreign,
        max: usize,
        ops: &mut Vec<Op>,
        shared: &mut Shared,
    ) {
        // Bounds the time spent on entries that turn out to need no request.
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
            && let Some((key, metric, tos)) = self.next_stray(shared)
        {
            ops.push(Op { prefix: key.into(), action: Action::WithdrawStray { metric, tos } });
        }
    }

    fn next_stray(&mut self, shared: &Shared) -> Option<Stray<K>> {
        let superseded = self.superseded.pop_first();
        superseded.or_else(|| match shared.phase {
            Phase::Settled => self.strays.pop_first(),
            Phase::Unread | Phase::Adopting => None,
        })
    }

    /// A request succeeded.
    pub(super) fn handle_done(&mut self, key: K, action: Action, now: Time, shared: &mut Shared) {
        let prefix = key.into();
        let mut stray = None;
        self.update(key, shared, |entry, shared| {
            match action {
                Action::WithdrawStray { metric, tos } => {
                    // A metric of 0 matches any, and if two routes share a place the kernel
                    // deletes the first: the one deleted may be the route that we keep.
                    let kept = entry.installed.map(|id| shared.specs.get(id).metric);
                    shared.resync_wanted |= tos == 0 && (metric == 0 || kept == Some(metric));
                    return Next::Rest;
                }
                Action::Add(id) | Action::Replace(id) => {
                    let metric = shared.specs.get(id).metric;
                    let before = entry.installed.map(|old| shared.specs.get(old).metric);
                    stray = before.filter(|before| *before != metric);
                    shared.specs.retain(id);
                    entry.install(Some(id), shared);
                    if let Some(wanted) = entry.wanted {
                        shared.note_taken(prefix, wanted, id, now);
                    }
                }
                Action::Withdraw(id) if entry.installed == Some(id) => entry.install(None, shared),
                Action::Withdraw(_) => {}
            }
            let refused = entry.has(FAILED) && matches!(action, Action::Withdraw(_));
            if refused && entry.wanted.is_some() {
                return Next::Rest;
            }
            let gives_way = entry.has(FOREIGN) && matches!(action, Action::Withdraw(_));
            entry.set(FAILED | RETRY | UNCLEAR, false);
            entry.set(FOREIGN, gives_way);
            if gives_way || entry.is_at_rest(prefix, shared) { Next::Rest } else { Next::Queue }
        });
        if let Some(metric) = stray {
            self.superseded.insert((key, metric, 0));
        }
    }

    /// The kernel refused a route because of a leg or the source address. Returns the part if it is
    /// newly refused.
    pub(super) fn refuse_part(
        &mut self,
        key: K,
        (refused, about, error): (SpecId, About, u16),
        now: Time,
        shared: &mut Shared,
    ) -> Option<Part> {
        let prefix = key.into();
        let mut news = None;
        self.update(key, shared, |entry, shared| {
            let Some(wanted) = entry.wanted else { return Next::Rest };
            let Shared { refused: parts, specs, .. } = &mut *shared;
            let ids = (wanted, refused);
            news = parts.handle_refused(specs, prefix, ids, about, error, now);
            shared.tidy();
            entry.set(RETRY, entry.has(FAILED));
            // The same content would be refused again: a trial with another prefix is in progress,
            // and this entry is decided again when it ends.
            let waits = shared.written(prefix, wanted) == Target::Spec(refused)
                && !shared.refused.asks(prefix, wanted);
            if waits { Next::Rest } else { Next::Queue }
        });
        news
    }

    /// The kernel refused a request, not because of a part of the route.
    pub(super) fn refuse(
        &mut self,
        key: K,
        action: Action,
        text: &str,
        now: Time,
        shared: &mut Shared,
    ) {
        let prefix = key.into();
        let error = shared.error(text);
        self.update(key, shared, |entry, shared| {
            let asked = match action {
                Action::Add(id) | Action::Replace(id) => Some(id),
                Action::Withdraw(_) | Action::WithdrawStray { .. } => None,
            };
            let target = entry.wanted.map(|wanted| shared.written(prefix, wanted));
            // The owner may have submitted another route meanwhile; the entry is queued then.
            let current = asked.is_none_or(|id| target == Some(Target::Spec(id)));
            if entry.is_at_rest(prefix, shared) || !current {
                return Next::Rest;
            }
            if let Some(wanted) = entry.wanted {
                shared.refused.postpone(&mut shared.specs, prefix, wanted, now);
            }
            entry.set(FAILED, true);
            entry.set(RETRY, false);
            entry.error = error;
            Next::Rest
        });
    }

    /// Marks an entry as unclear; returns whether it was not before.
    pub(super) fn mark_unclear(&mut self, key: K, shared: &mut Shared) -> bool {
        let mut first = false;
        self.update(key, shared, |entry, _| {
            first = !entry.has(UNCLEAR);
            entry.set(UNCLEAR, true);
            Next::Rest
        });
        first
    }

    /// The wanted routes that cover an address and over which next hops may be resolved, the most
    /// specific first.
    pub(super) fn direct_routes<'a>(
        &self,
        addr: IpAddr,
        shared: &'a Shared,
    ) -> Vec<(Prefix, &'a RouteSpec)> {
        let lengths = (0..=128u8).rev().filter(|len| self.direct_lengths[usize::from(*len)] > 0);
        let routes = lengths.filter_map(|len| {
            let prefix = Prefix::new(addr, len);
            let entry = self.entries.get(&K::of(prefix)?)?;
            let wanted = entry.wanted.filter(|_| entry.has(DIRECT))?;
            match shared.target(prefix, wanted) {
                Target::Spec(id) => Some((prefix, shared.specs.get(id).as_ref())),
                Target::Nothing(_) => None,
            }
        });
        routes.collect()
    }

    pub(super) fn rows<'a>(
        &'a self,
        from: Bound<K>,
        shared: &'a Shared,
    ) -> impl Iterator<Item = Row> + 'a {
        self.entries.range((from, Bound::Unbounded)).filter_map(|(key, entry)| {
            let prefix = (*key).into();
            let state = entry.counted()?;
            let shown = match entry.wanted {
                Some(wanted) => match shared.target(prefix, wanted) {
                    Target::Spec(id) if state == FibState::Installed => id,
                    _ => wanted,
                },
                None => entry.installed?,
            };
            let explained = matches!(state, FibState::Failed | FibState::Foreign);
            let left_out = entry.wanted.map(|wanted| shared.left_out(wanted)).unwrap_or_default();
            Some(Row {
                prefix,
                spec: shared.groups.with_hops(shared.specs.get(shown)),
                state,
                error: if explained { shared.error_text(entry.error) } else { None },
                left_out,
                keeps: explained && entry.wanted.is_some() && entry.installed.is_some(),
            })
        })
    }

    /// Gives the wanted routes with these contents other hops, one prefix after the other.
    pub(super) fn move_wanted(
        &mut self,
        moves: &BTreeMap<SpecId, Arc<[Hop]>>,
        shared: &mut Shared,
    ) {
        for key in self.keys(|entry| entry.wanted.is_some_and(|id| moves.contains_key(&id))) {
            let Some(entry) = self.entries.get(&key) else { continue };
            let Some(wanted) = entry.wanted else { continue };
            let Some(hops) = moves.get(&wanted) else { continue };
            let recursion =
                if entry.has(DIRECT) { Recursion::Direct } else { Recursion::Recursive };
            let spec = shared.specs.get(wanted).with_hops(hops);
            self.want(key, Some((spec, recursion)), shared);
        }
    }

    /// Assigns groups to all wanted contents, after the first dump, and decides the entries again.
    pub(super) fn claim_groups(&mut self, shared: &mut Shared) {
        for key in self.keys(|entry| entry.wanted.is_some()) {
            let prefix = key.into();
            self.update(key, shared, |entry, shared| {
                entry.wanted.into_iter().for_each(|wanted| shared.claim(wanted, entry.installed));
                if entry.is_right(prefix, shared) { Next::Rest } else { Next::Queue }
            });
        }
    }

    /// Whether there are wanted routes over which next hops may be resolved.
    pub(super) fn has_direct(&self) -> bool {
        self.direct_lengths.iter().any(|routes| *routes > 0)
    }

    fn keys(&self, selects: impl Fn(&Entry) -> bool) -> Vec<K> {
        self.entries.iter().filter(|(_, entry)| selects(entry)).map(|(key, _)| *key).collect()
    }
}
