//! The Adj-RIBs-Out of all peers (RFC 4271 §3.2): update groups, their membership, and the jobs of
//! groups: encoding, copying for a fork, merging, dissolving.
//!
//! A group is in `ready` when a destination was marked, a member joined, or its log requested a
//! turn because a reader has room or fell off. Ready groups get one slice each, round robin, within
//! the turn's budget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::task::Waker;

use super::attention::Attention;
use super::group::SliceState;
use super::group::watched::{Noted, Watch};
use super::{
    AdjRibOut, Advertised, Batch, CoveredRanges, ExportId, ExportState, ExportTable, Group,
    GroupKey, Log, MemberEvent, MemberKey, Reader, Resync, ResyncEnd, Subscription,
};
use crate::rib::{Choices, Decided, DestId, Destinations, LocRib, Meter, Parts, SourceId, Vantage};
use crate::types::{Family, PeerId, Time};

/// Maximum number of octets that the fastest readers of all logs together have yet to read.
const WINDOWS_TOTAL: usize = 32 << 20;
/// Upper and lower bound of one group's share.
const WINDOW_MAX: usize = 1 << 20;
const WINDOW_MIN: usize = 64 << 10;
/// Destinations of one group whose withdrawn paths are purged in a turn.
const PURGED_MAX: u32 = 4096;
/// Minimum work of a slice: less would split messages.
const SLICE_MIN: u32 = 4_000;

/// Whether changes are encoded for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Export {
    Running,
    Deferred,
}

/// Whether groups of the same key may be merged. Export of some groups sees changes that are not
/// decided yet: while there are any, one group may have sent what another has not been marked for,
/// and both count as flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    Allowed,
    Postponed,
}

/// A peer's membership in a group, for one family.
struct Membership {
    group: u32,
    key: MemberKey,
    subscription: Arc<Subscription>,
}

/// A group that starts from another group's advertised state, copied slice by slice. Both are
/// frozen meanwhile.
struct Fork {
    from: u32,
    to: u32,
    at: u32,
}

/// The Adj-RIBs-Out.
pub(crate) struct AdjRibsOut {
    pub(crate) groups: BTreeMap<u32, Group>,
    pub(crate) exported: ExportTable,
    memberships: BTreeMap<(SourceId, Family), Membership>,
    /// Groups by the digest of their key.
    by_digest: BTreeMap<u64, BTreeSet<u32>>,
    ready: VecDeque<u32>,
    /// Groups whose key may have become equal to another's.
    unmerged: BTreeSet<u32>,
    forks: VecDeque<Fork>,
    /// Advertised state of removed groups, and the destination from which on it is still to be
    /// released.
    dissolving: VecDeque<(AdjRibOut, Family, u32)>,
    attention: Arc<Attention>,
    /// The group at which purging withdrawn paths continues.
    purge_from: u32,
    next_group: u32,
    next_member: u64,
    log_bytes_max: usize,
    seed: u64,
    /// Memory for the current slice.
    batch: Batch,
    /// Groups with picks of this turn; one may be here several times.
    picking: Vec<u32>,
    pub(crate) notes: Vec<String>,
    /// Whether monitoring stations are sent what is advertised, and what they have not been told of.
    pub(crate) watch: Watch,
    pub(crate) noted: Vec<Noted>,
    export: Export,
}

/// Queues a group for encoding, once.
fn enqueue(group: &mut Group, ready: &mut VecDeque<u32>) {
    if !std::mem::replace(&mut group.is_queued, true) {
        ready.push_back(group.id);
    }
}

impl AdjRibsOut {
    pub(crate) fn new(seed: u64, table: Waker, log_bytes_max: usize) -> Self {
        AdjRibsOut {
            groups: BTreeMap::new(),
            exported: ExportTable::new(seed),
            memberships: BTreeMap::new(),
            by_digest: BTreeMap::new(),
            ready: VecDeque::new(),
            unmerged: BTreeSet::new(),
            forks: VecDeque::new(),
            dissolving: VecDeque::new(),
            attention: Attention::new(table),
            purge_from: 0,
            next_group: 0,
            next_member: 0,
            log_bytes_max,
            seed,
            batch: Batch::default(),
            picking: Vec::new(),
            notes: Vec::new(),
            watch: Watch::default(),
            noted: Vec::new(),
            export: Export::Running,
        }
    }

    pub(crate) fn defer(&mut self) {
        self.export = Export::Deferred;
    }

    pub(crate) fn release(&mut self) {
        self.export = Export::Running;
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.export == Export::Deferred
    }

    pub(crate) fn set_log_bytes_max(&mut self, bytes_max: usize) {
        self.log_bytes_max = bytes_max;
        for group in self.groups.values_mut() {
            group.set_log_bytes_max(bytes_max);
            self.attention.call(group.id);
        }
    }

    /// Frees chunks that were not needed for a while.
    pub(crate) fn trim_chunks(&self, now: Time, meter: &mut Meter) {
        meter.spend(self.batch.pool.trim(now) * 4);
    }

    /// The earliest deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.batch.pool.review_at()
    }

    /// Whether a turn has something to do here.
    pub(crate) fn has_work(&self) -> bool {
        let encodes = self.export == Export::Running && !self.ready.is_empty();
        encodes
            || !self.forks.is_empty()
            || !self.dissolving.is_empty()
            || self.batch.pool.has_surplus()
    }

    fn queue(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(&id) {
            enqueue(group, &mut self.ready);
        }
    }

    /// Marks decided destinations pending in the groups that may advertise them.
    pub(crate) fn mark(
        &mut self,
        family: Family,
        decided: &[Decided],
        choices: &Choices,
        meter: &mut Meter,
    ) {
        for group in self.groups.values_mut().filter(|group| group.key.family == family) {
            let vantage = group.key.vantage.as_ref().filter(|_| group.key.is_decided_by_vantage());
            let any = match vantage.and_then(|vantage| choices.of(vantage)) {
                Some(choices) => group.mark_chosen(decided, choices, &self.exported),
                None => group.mark_decided(decided),
            };
            meter.spend(1 + decided.len() as u32 / 16);
            if any {
                if group.has_picks() {
                    self.picking.push(group.id);
                }
                enqueue(group, &mut self.ready);
            }
        }
    }

    /// Forgets what the decision of this turn has found for groups: paths change before the next one.
    fn drop_picks(&mut self) {
        for id in self.picking.drain(..) {
            self.groups.get_mut(&id).into_iter().for_each(Group::drop_picks);
        }
    }

    /// The vantages from which the best path decides what some group is sent.
    pub(crate) fn deciding_vantages(&self, family: Family) -> Vec<Arc<Vantage>> {
        let groups = self.groups.values().filter(|group| group.key.family == family);
        let deciding = groups.filter(|group| group.key.is_decided_by_vantage());
        let mut vantages: Vec<_> = deciding.filter_map(|g| g.key.vantage.clone()).collect();
        vantages.sort_by_key(|vantage| vantage.id);
        vantages.dedup();
        vantages
    }

    /// Re-exports these destinations although no decision changed; without a list, all of the
    /// family.
    pub(crate) fn export_again(
        &mut self,
        family: Family,
        dests: Option<&[DestId]>,
        rib: &mut LocRib,
    ) {
        if dests.is_some_and(<[DestId]>::is_empty) {
            return;
        }
        rib.next_generation();
        let (version, slots) = (rib.version(), rib.dests(family).slots());
        for group in self.groups.values_mut().filter(|group| group.key.family == family) {
            match dests {
                Some(dests) => group.mark_undecided(dests, version),
                None => group.mark_all(slots, version),
            }
            enqueue(group, &mut self.ready);
        }
    }

    pub(crate) fn group_of(&self, source: SourceId, family: Family) -> Option<&Group> {
        self.groups.get(&self.memberships.get(&(source, family))?.group)
    }

    fn find(&self, key: &GroupKey) -> Option<u32> {
        let alike = self.by_digest.get(&digest(key))?;
        alike.iter().copied().find(|id| self.groups.get(id).is_some_and(|g| g.key == *key))
    }

    /// A number that grows with every group and membership.
    pub(crate) fn changes(&self) -> (u32, u64) {
        (self.next_group, self.next_member)
    }

    /// Whether every group has encoded all that it has to.
    pub(crate) fn is_flushed(&self) -> bool {
        self.groups.values().all(|group| group.is_flushed() && !group.is_copied())
    }

    fn next_member_key(&mut self) -> MemberKey {
        self.next_member += 1;
        MemberKey(self.next_member)
    }

    fn insert_group(&mut self, key: GroupKey, rib: &LocRib, version: u64) -> u32 {
        self.next_group += 1;
        let id = self.next_group;
        let log = Log::new(self.log_bytes_max, Arc::clone(&self.attention), id);
        let slots = rib.dests(key.family).slots();
        self.by_digest.entry(digest(&key)).or_default().insert(id);
        let group = Group::new(id, key, log, (self.log_bytes_max, self.seed), slots, version);
        self.groups.insert(id, group);
        id
    }

    /// How many groups there would be if one with this key were needed.
    pub(crate) fn groups_with(&self, key: &GroupKey) -> usize {
        self.groups.len() + usize::from(self.find(key).is_none())
    }

    /// Puts a peer whose session came up into the group of its key.
    pub(crate) fn join(
        &mut self,
        peer: PeerId,
        source: SourceId,
        key: GroupKey,
        rib: &LocRib,
    ) -> Option<Reader> {
        let family = key.family;
        let id = match self.find(&key) {
            Some(id) => id,
            // A member that joins is resynchronised from the beginning, so nothing counts as
            // changed.
            None => self.insert_group(key, rib, 0),
        };
        let member = self.next_member_key();
        let resync = Resync {
            announce_since: 0,
            withdraw_since: rib.version(),
            covers: rib.version(),
            covered: CoveredRanges::default(),
            end: ResyncEnd::EndOfRib,
        };
        let group = self.groups.get_mut(&id)?;
        group.log.join(member, source, resync.clone());
        group.add_member(source, member, &resync, rib.dests(family).slots());
        let reader = Reader::new(Arc::clone(&group.log), member, peer, family);
        let membership = Membership { group: id, key: member, subscription: reader.subscription() };
        self.memberships.insert((source, family), membership);
        self.queue(id);
        Some(reader)
    }

    pub(crate) fn leave(&mut self, source: SourceId, family: Family) {
        let Some(membership) = self.memberships.remove(&(source, family)) else { return };
        if let Some(group) = self.groups.get_mut(&membership.group) {
            group.log.leave(membership.key);
            group.remove_member(source);
        }
        self.drop_if_empty(membership.group);
    }

    /// Removes a group without members, unless a fork still copies from it.
    fn drop_if_empty(&mut self, id: u32) {
        let is_empty = |group: &Group| group.members.is_empty() && !group.is_copied();
        if !self.groups.get(&id).is_some_and(is_empty) {
            return;
        }
        let Some(mut group) = self.groups.remove(&id) else { return };
        self.forget_digest(&group.key, id);
        self.unmerged.remove(&id);
        let advertised = group.take_advertised();
        self.dissolving.push_back((advertised, group.key.family, 0));
    }

    fn forget_digest(&mut self, key: &GroupKey, id: u32) {
        let digest = digest(key);
        if let Some(alike) = self.by_digest.get_mut(&digest) {
            alike.remove(&id);
            if alike.is_empty() {
                self.by_digest.remove(&digest);
            }
        }
    }

    fn end_copy(&mut self, from: u32) {
        if let Some(group) = self.groups.get_mut(&from) {
            group.end_copy();
        }
        self.queue(from);
        self.drop_if_empty(from);
    }

    /// Moves peers whose parameters changed to the groups of their new keys. Members that leave a
    /// group together for the same key stay together, keep what they were sent, and are sent the
    /// difference.
    pub(crate) fn regroup(&mut self, peers: Vec<(SourceId, GroupKey)>, rib: &mut LocRib) {
        let mut moves: Vec<(u32, GroupKey, Vec<SourceId>)> = Vec::new();
        let mut alike: BTreeMap<(u32, u64), Vec<usize>> = BTreeMap::new();
        for (source, key) in peers {
            let Some(membership) = self.memberships.get(&(source, key.family)) else { continue };
            let from = membership.group;
            if self.groups.get(&from).is_none_or(|group| group.key == key) {
                continue;
            }
            let candidates = alike.entry((from, digest(&key))).or_default();
            match candidates.iter().find(|at| moves[**at].1 == key) {
                Some(at) => moves[*at].2.push(source),
                None => {
                    candidates.push(moves.len());
                    moves.push((from, key, vec![source]));
                }
            }
        }
        for (from, key, sources) in moves {
            rib.next_generation();
            let Some(group) = self.groups.get(&from) else { continue };
            let stays_alike = group.key.add_path.is_some() == key.add_path.is_some();
            if group.members.len() == sources.len() && stays_alike && !group.is_copied() {
                self.change_key(from, key, rib);
                continue;
            }
            let family = key.family;
            let to = self.insert_group(key, rib, rib.version());
            if stays_alike {
                self.begin_fork(from, to);
            }
            for source in sources {
                self.transfer(source, family, to, rib);
            }
            self.unmerged.insert(to);
            self.drop_if_empty(from);
        }
    }

    /// All members change alike: the group stays and gets another key.
    fn change_key(&mut self, id: u32, key: GroupKey, rib: &LocRib) {
        let slots = rib.dests(key.family).slots();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let before = group.set_key(key.clone());
        group.mark_all(slots, rib.version());
        self.forget_digest(&before, id);
        self.by_digest.entry(digest(&key)).or_default().insert(id);
        self.unmerged.insert(id);
        self.queue(id);
    }

    fn begin_fork(&mut self, from: u32, to: u32) {
        let Some(source) = self.groups.get_mut(&from) else { return };
        let begun = source.begin_copy();
        if let Some(group) = self.groups.get_mut(&to) {
            group.receive_copy(begun);
            self.forks.push_back(Fork { from, to, at: 0 });
        }
    }

    /// Copies advertised state for forks, and releases that of removed groups.
    pub(crate) fn copy_and_dissolve(&mut self, rib: &mut LocRib, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some(mut fork) = self.forks.pop_front()
        {
            let Some(mut to) = self.groups.remove(&fork.to) else { continue };
            let slots = self.groups.get(&fork.from).map_or(0, Group::advertised_slots);
            if let Some(from) = self.groups.get(&fork.from) {
                while fork.at < slots && !meter.is_spent() {
                    to.copy_dest(from, DestId(fork.at), &mut self.exported);
                    fork.at += 1;
                    meter.spend(u32::from(fork.at.is_multiple_of(4)));
                }
            }
            let is_done = fork.at >= slots;
            if is_done {
                to.finish_fork();
            }
            self.groups.insert(fork.to, to);
            if is_done {
                self.end_copy(fork.from);
                self.queue(fork.to);
                self.drop_if_empty(fork.to);
            } else {
                self.forks.push_front(fork);
            }
        }
        while !meter.is_spent()
            && let Some((advertised, family, mut at)) = self.dissolving.pop_front()
        {
            let Parts { attrs, hops, .. } = rib.parts(family);
            while at < advertised.slots() && !meter.is_spent() {
                for path in advertised.get(DestId(at)) {
                    self.exported.release(path.out, attrs, hops);
                }
                at += 1;
                meter.spend(u32::from(at % 2 == 0));
            }
            if at < advertised.slots() {
                self.dissolving.push_front((advertised, family, at));
            }
        }
    }

    /// Moves a member to another group that has the state it was sent.
    fn transfer(&mut self, source: SourceId, family: Family, to: u32, rib: &LocRib) {
        let key = self.next_member_key();
        let covers = rib.version();
        let slots = rib.dests(family).slots();
        let Some(membership) = self.memberships.get_mut(&(source, family)) else { return };
        let from = std::mem::replace(&mut membership.group, to);
        membership.key = key;
        if self.watch.is_on() {
            self.noted.push(Noted::Moved { source, family, from, to });
        }
        if let Some(group) = self.groups.get_mut(&from) {
            group.remove_member(source);
        }
        let Some(group) = self.groups.get_mut(&to) else { return };
        let mut resync = None;
        membership.subscription.transfer(Arc::clone(&group.log), key, source, |backlog| {
            let planned = Resync { covers, ..backlog };
            resync = Some(planned.clone());
            planned
        });
        if let Some(resync) = resync {
            group.add_member(source, key, &resync, slots);
        }
        self.queue(to);
    }

    /// Merges a group with another of the same key. Both must be flushed: what they sent is then
    /// the same. Groups with ADD-PATH assign path identifiers of their own and stay apart.
    fn merge(&mut self, id: u32, rib: &LocRib) {
        let Some(group) = self.groups.get(&id) else { return };
        if group.key.add_path.is_some() {
            self.unmerged.remove(&id);
            return;
        }
        if !group.is_flushed() || group.is_copied() {
            return;
        }
        let alike = self.by_digest.get(&digest(&group.key)).into_iter().flatten();
        let other = alike.copied().find(|other| {
            *other != id && self.groups.get(other).is_some_and(|o| o.key == group.key)
        });
        let Some(other) = other else {
            self.unmerged.remove(&id);
            return;
        };
        if !self.groups.get(&other).is_some_and(|g| g.is_flushed() && !g.is_copied()) {
            self.unmerged.insert(other);
            return;
        }
        let (into, from) = (id.min(other), id.max(other));
        let family = group.key.family;
        let sources: Vec<SourceId> = self
            .groups
            .get(&from)
            .map_or(Vec::new(), |group| group.members.keys().copied().collect());
        for source in sources {
            self.transfer(source, family, into, rib);
        }
        self.unmerged.remove(&from);
        self.drop_if_empty(from);
    }

    /// A peer requested a route refresh (RFC 2918, RFC 7313).
    pub(crate) fn refresh(
        &mut self,
        source: SourceId,
        family: Family,
        end: ResyncEnd,
        rib: &LocRib,
    ) {
        if let Some(membership) = self.memberships.get(&(source, family)) {
            let (group, key) = (membership.group, membership.key);
            self.refresh_member(group, key, source, end, rib);
        }
    }

    fn refresh_member(
        &mut self,
        id: u32,
        key: MemberKey,
        source: SourceId,
        end: ResyncEnd,
        rib: &LocRib,
    ) {
        let covers = rib.version();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let version = group.log.version(key);
        let covered = CoveredRanges::default();
        let resync = Resync { announce_since: 0, withdraw_since: version, covers, covered, end };
        if group.log.refresh(key, resync.clone()) {
            group.begin_resync(source, &resync, rib.dests(group.key.family).slots());
            self.queue(id);
        }
    }

    /// Handles what readers asked for: members that fell off rejoin, deferred refreshes begin.
    pub(crate) fn attend(&mut self, rib: &LocRib, meter: &mut Meter) {
        for id in self.attention.take() {
            meter.spend(1);
            self.take_events(id, rib);
            self.queue(id);
        }
    }

    fn take_events(&mut self, id: u32, rib: &LocRib) {
        let version = rib.version();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let slots = rib.dests(group.key.family).slots();
        for event in group.log.take_events() {
            let (MemberEvent::Evicted(key)
            | MemberEvent::Rejoin(key, _)
            | MemberEvent::Refresh(key, _)) = event;
            let Some(group) = self.groups.get_mut(&id) else { return };
            let Some(source) = group.member_of(key) else { continue };
            match event {
                MemberEvent::Evicted(_) => group.lose_resync(source),
                MemberEvent::Rejoin(_, backlog) => {
                    let resync = Resync { covers: version, ..backlog };
                    group.log.rejoin(key, resync.clone());
                    group.begin_resync(source, &resync, slots);
                    self.queue(id);
                }
                MemberEvent::Refresh(_, end) => self.refresh_member(id, key, source, end, rib),
            }
        }
    }

    /// Wakes readers at the end of a turn that no other follows at once.
    pub(crate) fn wake_readers(&self) {
        self.attention.wake_readers();
    }

    /// Ends a turn that another follows at once: readers are woken at the end of that one, or soon.
    pub(crate) fn postpone_waking(&self) {
        self.attention.postpone_waking();
    }

    /// Encodes what groups have pending, as far as their members have room.
    pub(crate) fn encode(&mut self, rib: &mut LocRib, merging: Merging, meter: &mut Meter) {
        if self.export == Export::Deferred {
            self.drop_picks();
            return;
        }
        if merging == Merging::Allowed {
            let waiting: Vec<u32> = self.unmerged.iter().copied().collect();
            waiting.into_iter().for_each(|id| self.queue(id));
        }
        let window = (WINDOWS_TOTAL / self.groups.len().max(1)).clamp(WINDOW_MIN, WINDOW_MAX);
        while !meter.is_spent()
            && let Some(id) = self.ready.pop_front()
        {
            let share = meter.left() / (self.ready.len() as u32 + 1);
            let mut part = meter.part(share.max(SLICE_MIN));
            let version = rib.version();
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.is_queued = false;
            let Parts { dests, attrs, hops, sources, local } = rib.parts(group.key.family);
            let mut state = ExportState {
                dests,
                attrs,
                hops,
                outs: &mut self.exported,
                sources,
                local,
                version,
                notes: &mut self.notes,
                batch: &mut self.batch,
            };
            group.watched.watch = self.watch;
            let more = group.export_slice(&mut state, window, &mut part);
            group.watched.take(id, group.key.family, &mut self.noted);
            part.spend(4 + group.members.len() as u32 / 8);
            meter.settle(&part);
            if more == SliceState::More {
                self.queue(id);
            }
            self.take_events(id, rib);
            if merging == Merging::Allowed && self.unmerged.contains(&id) {
                self.merge(id, rib);
            }
        }
        // Paths change before the next call.
        let Parts { attrs, hops, .. } = rib.parts(Family::Ipv4);
        self.batch.forget(&mut self.exported, attrs, hops);
        self.drop_picks();
    }

    /// Purges withdrawn paths that every member of a group has processed: those changed at or
    /// before `floor`. Each call continues with the group at which the previous one ended.
    pub(crate) fn purge_withdrawn(
        &mut self,
        family: Family,
        floor: u32,
        dests: &Destinations,
        meter: &mut Meter,
    ) {
        let from = self.purge_from;
        for of in [from..=u32::MAX, 0..=from] {
            for (id, group) in self.groups.range_mut(of) {
                if group.key.family != family || group.tombstones() == 0 {
                    continue;
                }
                if meter.is_spent() {
                    self.purge_from = *id;
                    return;
                }
                let max = meter.left().clamp(16, PURGED_MAX);
                meter.spend(1 + group.purge_withdrawn(floor, dests, max));
            }
        }
    }

    /// Stops serving the slowest member of a group and returns it.
    pub(crate) fn close_slowest(&mut self, id: u32, rib: &LocRib) -> Option<SourceId> {
        let source = self.groups.get(&id)?.log.close_slowest();
        self.take_events(id, rib);
        source
    }

    /// Octets in logs, and of the advertised state of groups.
    pub(crate) fn octets(&self, rib: &LocRib) -> (u64, u64) {
        let mut octets = (0, self.exported.octets());
        for group in self.groups.values() {
            octets.0 += group.log.counts().0 as u64;
            octets.1 += group.octets(rib);
        }
        let dissolving = self.dissolving.iter().map(|(out, _, at)| u64::from(out.slots() - at) * 4);
        octets.1 += dissolving.sum::<u64>();
        octets
    }

    /// Whether a member has read what its group advertises, and the group with it is such a one.
    pub(crate) fn has_read_all(
        &self,
        source: SourceId,
        family: Family,
        is_wanted: impl Fn(&GroupKey) -> bool,
    ) -> bool {
        let Some(membership) = self.memberships.get(&(source, family)) else { return false };
        let Some(group) = self.groups.get(&membership.group) else { return false };
        is_wanted(&group.key)
            && group.is_flushed()
            && !group.is_copied()
            && group.log.has_read_all(membership.key)
    }

    /// What a member was sent about a destination.
    pub(crate) fn advertised_to(
        &self,
        source: SourceId,
        family: Family,
        dest: DestId,
    ) -> Vec<Advertised> {
        let Some(group) = self.group_of(source, family) else { return Vec::new() };
        let list = group.advertised_paths(dest).into_iter();
        list.filter(|path| {
            path.out != ExportId::NONE && !self.exported.except(path.out).contains(source)
        })
        .collect()
    }
}

/// A number that is equal for equal keys.
fn digest(key: &GroupKey) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one((
        (key.family, key.peer_type, key.client, key.cluster_id, key.local_asn, key.role),
        (key.local_addr, key.other_addr, key.link_local, key.next_hop, key.ipv4_over_ipv6),
        (key.four_octet_as, key.max_len, key.add_path, key.drain, key.long_lived),
        key.vantage.as_ref().map(|vantage| vantage.id),
        (&key.export.name, key.export.rules.len()),
    ))
}
