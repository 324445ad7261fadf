//! An update group: peers that are sent the same octets.
//!
//! Live changes wait in `pending` until the fastest member has room, then go to every member.
//! Members that joined, fell behind or asked for a refresh are *resynchronised*: one position
//! cycles through all destinations, slice by slice, and sends them what changed since the version
//! that they have. Both write to the same ordered log. A pending destination is flushed when the
//! position reaches it, so after a full cycle a member has every change that preceded it, live or
//! resynchronised.

mod choice;
mod oversized;
mod resyncing;
pub(crate) mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::adj_rib_out::AdvertisedPaths;
use super::batch::{Batch, Encoded};
use super::{
    AddPathSend, AdjRibOut, Advertised, Audience, CoveredRanges, Except, ExportId, ExportState,
    ExportTable, Exported, ExportedRoute, GroupKey, Log, MemberKey, Readers, Resync, ResyncEnd,
    Resyncing, Withholding, evaluate_export, memo_class,
};
use crate::policy::Prepared;
use crate::rib::{
    DestId, Destinations, IdSet, LocRib, LocalAttrs, Meter, Path, PathFlags, RUN_MAX, SourceCounts,
    SourceId, Version, WorkSet,
};
use crate::types::PathId;
use crate::wire::{RefreshKind, RouteRefresh, encode_end_of_rib};

use choice::Picks;

pub(crate) use choice::choose_paths;

/// What a peer was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Routes announced, whether new or replacing another.
    pub announced: u64,
    /// Routes withdrawn.
    pub withdrawn: u64,
    /// Best paths not advertised, counted at each change.
    pub withheld: u64,
}

impl std::ops::AddAssign for ExportCounts {
    fn add_assign(&mut self, more: ExportCounts) {
        let ExportCounts { announced, withdrawn, withheld } = more;
        self.announced += announced;
        self.withdrawn += withdrawn;
        self.withheld += withheld;
    }
}

/// A peer in a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: MemberKey,
    resyncing: Option<Resyncing>,
    /// Counters of the group when it joined; `exports_to` subtracts them.
    before: ExportCounts,
}

/// Size at which a chunk is closed; it exceeds this by one message at most.
pub(super) const CHUNK_MAX: usize = 256 << 10;
/// Maximum number of paths of one destination that a member is sent: bounds what one destination
/// adds to a slice.
pub(crate) const ADVERTISED_PATHS_MAX: usize = 255;
/// Destinations per slice: bounds a slice that finds little to advertise.
const SLICE_MAX: usize = 1 << 15;

/// Whether a group has more to encode that its members have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceState {
    More,
    Done,
}

/// Work of comparing a destination with what is advertised and writing the difference.
const WORK_FLUSH: u32 = 2;
/// Work of exporting a route whose result is memoised.
const WORK_KNOWN: u32 = 1;
/// Appending a chunk to the log and waking its readers.
const WORK_APPEND: u32 = 8;
/// First touch of the memory for the next destinations.
const WORK_GROW: u32 = 96;
/// Work of evaluating the export rules for a route, besides their weight.
const WORK_RULES: u32 = 4;

/// One update group.
pub(crate) struct Group {
    pub(crate) id: u32,
    pub(crate) key: GroupKey,
    /// The export policy: what evaluating it costs, and for which prefixes it has one verdict.
    policy: Prepared,
    pub(crate) log: Arc<Log>,
    pub(crate) members: BTreeMap<SourceId, Member>,
    advertised_paths: AdjRibOut,
    /// Destinations that changed and have not been flushed yet.
    pending: IdSet,
    picks: Picks,
    pending_at: u32,
    /// Destinations that are all pending; they are not marked one by one.
    marking: Range<u32>,
    /// Forks that copy from or to this group, which is frozen meanwhile.
    copies: u32,
    /// Whether it is queued for encoding.
    pub(super) is_queued: bool,
    /// When everything became pending (group creation or policy change): a difference counts as a
    /// change at this version.
    flush_version: Version,
    resync_at: u32,
    /// Members being resynchronised.
    resyncing: BTreeSet<SourceId>,
    /// Paths advertised.
    advertised: u32,
    /// The same, per peer excluded by split horizon.
    advertised_except: SourceCounts,
    /// Counters since the group was created.
    exports: ExportCounts,
    /// Destinations with withdrawn paths in their lists.
    tombstones: WorkSet,
    log_bytes_max: usize,
    pub(super) watched: watched::Watched,
}

/// What a flush changed for the members.
pub(super) enum Flushed {
    Unchanged,
    /// The only path of the destination, which has no identifier.
    Best,
    /// The paths with these identifiers are announced; others may be withdrawn.
    Paths(SmallVec<[u32; 4]>),
}

impl Flushed {
    /// Whether the flush announced the advertised path with the identifier `tx`.
    fn announces(&self, tx: u32) -> bool {
        match self {
            Flushed::Unchanged => false,
            Flushed::Best => true,
            Flushed::Paths(changed) => changed.contains(&tx),
        }
    }
}

impl Group {
    /// A group with every destination of a table of `slots` slots pending; what it then advertises
    /// counts as changed at `version`.
    pub(crate) fn new(
        id: u32,
        key: GroupKey,
        log: Arc<Log>,
        (log_bytes_max, seed): (usize, u64),
        slots: u32,
        version: Version,
    ) -> Self {
        let advertised_paths = AdjRibOut::new(key.add_path.is_some(), seed);
        Group {
            id,
            policy: Prepared::new(&key.export),
            key,
            log,
            members: BTreeMap::new(),
            advertised_paths,
            pending: IdSet::default(),
            picks: Picks::default(),
            pending_at: 0,
            marking: 0..slots,
            copies: 0,
            is_queued: false,
            flush_version: version,
            resync_at: 0,
            resyncing: BTreeSet::new(),
            advertised: 0,
            advertised_except: SourceCounts::default(),
            exports: ExportCounts::default(),
            tombstones: WorkSet::default(),
            log_bytes_max,
            watched: watched::Watched::default(),
        }
    }

    /// Freezes the group for a fork and returns the fork's initial state.
    pub(super) fn begin_copy(&mut self) -> AdjRibOut {
        self.copies += 1;
        self.advertised_paths.without_paths()
    }

    /// Turns this group into a fork, which [`Group::copy_dest`] fills.
    pub(super) fn receive_copy(&mut self, begun: AdjRibOut) {
        self.copies += 1;
        self.advertised_paths = begun;
    }

    pub(super) fn end_copy(&mut self) {
        self.copies -= 1;
    }

    /// The fork now has the advertised state of its origin, and so do its members.
    pub(super) fn finish_fork(&mut self) {
        self.end_copy();
        for member in self.members.values_mut() {
            let before = &mut member.before.announced;
            *before = before.wrapping_sub(self.advertised.into());
        }
    }

    pub(crate) fn is_copied(&self) -> bool {
        self.copies > 0
    }

    /// Copies another group's advertised state of a destination.
    pub(super) fn copy_dest(&mut self, from: &Group, dest: DestId, exported: &mut ExportTable) {
        let list = from.advertised_paths.get(dest);
        if list.is_empty() {
            return;
        }
        for path in list.iter().filter(|path| path.out != ExportId::NONE) {
            exported.retain(path.out);
            self.advertised += 1;
            self.count_except(exported.except(path.out), SourceCounts::add);
        }
        if from.tombstones.contains(dest.0) {
            self.tombstones.insert(dest.0);
        }
        self.advertised_paths.copy(dest, &list);
    }

    pub(crate) fn advertised_slots(&self) -> u32 {
        self.advertised_paths.slots()
    }

    /// Removes and returns the advertised state, whose references the caller releases.
    pub(super) fn take_advertised(&mut self) -> AdjRibOut {
        let empty = AdjRibOut::new(self.key.add_path.is_some(), 0);
        std::mem::replace(&mut self.advertised_paths, empty)
    }

    /// Memory of the group besides its log: the advertised state and one or two bits per
    /// destination.
    pub(crate) fn octets(&self, rib: &LocRib) -> u64 {
        let each = if self.key.add_path.is_some() { 24 } else { 4 };
        u64::from(self.advertised) * each + u64::from(rib.dests(self.key.family).len()) / 4
    }

    /// Frees the memory of destinations from `slots` on, which no longer exist.
    pub(crate) fn truncate(&mut self, slots: u32) {
        self.advertised_paths.truncate(slots);
        self.pending.truncate(slots);
        self.tombstones.truncate(slots);
        self.marking.end = self.marking.end.min(slots);
        self.resync_at = self.resync_at.min(slots);
        for member in self.members.values_mut() {
            member.resyncing.iter_mut().for_each(|resync| resync.truncate(slots));
        }
    }

    /// Replaces the key; the caller must follow with [`Group::mark_all`].
    pub(super) fn set_key(&mut self, key: GroupKey) -> GroupKey {
        self.policy = Prepared::new(&key.export);
        std::mem::replace(&mut self.key, key)
    }

    /// Marks every destination pending.
    pub(crate) fn mark_all(&mut self, slots: u32, version: Version) {
        self.flush_version = version;
        self.marking = 0..slots;
    }

    /// Marks these destinations pending although no decision changed; a difference counts as a
    /// change at `version`.
    pub(super) fn mark_undecided(&mut self, dests: &[DestId], version: Version) {
        self.flush_version = version;
        dests.iter().for_each(|dest| self.mark(*dest));
    }

    fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.marking.is_empty()
    }

    /// Takes the next pending destination.
    fn next_pending(&mut self, dests: &Destinations, meter: &mut Meter) -> Option<DestId> {
        let next = self.pending.next_from(self.pending_at).or_else(|| self.pending.next_from(0));
        if let Some(id) = next {
            self.pending_at = id.saturating_add(1);
            self.pending.remove(id);
            return Some(DestId(id));
        }
        while !meter.is_spent()
            && let Some(id) = self.marking.next()
        {
            meter.spend(u32::from(id.is_multiple_of(8)));
            let dest = DestId(id);
            if dests.is_live(dest) && (!dests.paths(dest).is_empty() || self.has_advertised(dest)) {
                return Some(dest);
            }
        }
        None
    }

    /// Clears the destination's pending mark and returns whether it was set.
    fn take_pending(&mut self, dest: DestId) -> bool {
        let is_marked = self.marking.contains(&dest.0);
        if self.marking.start == dest.0 && is_marked {
            self.marking.start += 1;
        }
        self.pending.remove(dest.0) || is_marked
    }

    /// Marks a destination pending.
    #[inline]
    pub(crate) fn mark(&mut self, dest: DestId) {
        self.pending.insert(dest.0);
    }

    pub(crate) fn set_log_bytes_max(&mut self, bytes_max: usize) {
        self.log_bytes_max = bytes_max;
        self.log.set_bytes_max(bytes_max);
    }

    pub(crate) fn advertised(&self) -> u32 {
        self.advertised
    }

    /// Advertised paths that this peer is not sent, being their source or next hop (split horizon).
    pub(crate) fn advertised_except(&self, peer: SourceId) -> u32 {
        self.advertised_except.get(peer)
    }

    /// Updates the per-peer split-horizon counters.
    #[inline]
    fn count_except(&mut self, except: Except, count: impl Fn(&mut SourceCounts, SourceId)) {
        except.each().into_iter().for_each(|peer| count(&mut self.advertised_except, peer));
    }

    /// What a member was sent since it joined.
    pub(crate) fn exports_to(&self, peer: SourceId) -> ExportCounts {
        let Some(member) = self.members.get(&peer) else { return ExportCounts::default() };
        let before = member.before;
        ExportCounts {
            announced: self.exports.announced.wrapping_sub(before.announced),
            withdrawn: self.exports.withdrawn - before.withdrawn,
            withheld: self.exports.withheld - before.withheld,
        }
    }

    /// Whether nothing is pending.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.has_pending()
    }

    /// What members are sent about a destination.
    pub(crate) fn advertised_paths(&self, dest: DestId) -> AdvertisedPaths {
        let mut list = self.advertised_paths.get(dest);
        list.retain(|path| path.out != ExportId::NONE);
        list
    }

    fn has_advertised(&self, dest: DestId) -> bool {
        !self.advertised_paths.get(dest).is_empty()
    }

    /// Whether the group has no state for the destination, not even a withdrawn path.
    pub(crate) fn is_done_with(&self, dest: DestId) -> bool {
        !self.pending.contains(dest.0)
            && !self.marking.contains(&dest.0)
            && !self.has_advertised(dest)
    }

    /// Adds a member that the caller has joined to the log with the same resynchronisation.
    pub(crate) fn add_member(
        &mut self,
        peer: SourceId,
        key: MemberKey,
        resync: &Resync,
        slots: u32,
    ) {
        let mut before = self.exports;
        before.announced = before.announced.wrapping_sub(self.advertised.into());
        self.members.insert(peer, Member { key, resyncing: None, before });
        self.begin_resync(peer, resync, slots);
    }

    pub(crate) fn remove_member(&mut self, peer: SourceId) {
        self.members.remove(&peer);
        self.resyncing.remove(&peer);
    }

    /// The member with this key.
    pub(crate) fn member_of(&self, key: MemberKey) -> Option<SourceId> {
        self.members.iter().find(|(_, member)| member.key == key).map(|(peer, _)| *peer)
    }

    /// Begins the resynchronisation of a member, replacing any in progress.
    pub(crate) fn begin_resync(&mut self, peer: SourceId, resync: &Resync, slots: u32) {
        if self.resync_at >= slots {
            self.wrap();
        }
        let start = self.resync_at;
        let Some(member) = self.members.get_mut(&peer) else { return };
        self.resyncing.insert(peer);
        member.resyncing = Some(Resyncing::begin(resync, start));
        // A second BoRR would make the peer discard what it was sent since the first (RFC 7313 §4).
        if resync.end == ResyncEnd::Refresh && resync.covered.is_empty() {
            let mut begin = Encoded::default();
            self.push_control(&mut begin, peer, RefreshKind::Begin);
            self.log.append(begin.take_chunk(0, CoveredRanges::default()));
        }
    }

    /// The member fell off the log: its resynchronisation is void.
    pub(crate) fn lose_resync(&mut self, peer: SourceId) {
        if self.resyncing.remove(&peer)
            && let Some(member) = self.members.get_mut(&peer)
        {
            member.resyncing = None;
        }
    }

    /// Encodes one slice of changes and one of the resynchronisation, as far as members have room
    /// and work is left.
    pub(super) fn export_slice(
        &mut self,
        state: &mut ExportState<'_>,
        window: usize,
        meter: &mut Meter,
    ) -> SliceState {
        if self.copies > 0 {
            return SliceState::Done;
        }
        let window = window.min(self.log_bytes_max / 2);
        if self.flushes_live() && self.log.has_room(window, Readers::All) {
            self.flush_slice(state, window, meter);
        }
        if !self.has_pending() {
            self.log.set_complete(state.version);
        }
        if !self.resyncing.is_empty() && self.log.has_room(window, Readers::Resyncing) {
            self.resync_slice(state, window, meter);
        }
        let more = self.flushes_live() && self.log.has_room(window, Readers::All)
            || !self.resyncing.is_empty() && self.log.has_room(window, Readers::Resyncing);
        if more { SliceState::More } else { SliceState::Done }
    }

    /// Whether changes are sent live. While every member is being resynchronised they wait for the
    /// resynchronisation to reach and flush them: a new group would otherwise be sent everything
    /// twice.
    fn flushes_live(&self) -> bool {
        self.has_pending() && self.resyncing.len() < self.members.len()
    }

    fn is_full(&self, batch: &Batch, window: usize, meter: &Meter) -> bool {
        batch.bytes() >= CHUNK_MAX.min(self.log_bytes_max / 4).min(window)
            || batch.considered >= SLICE_MAX
            || meter.is_spent()
    }

    /// The table's batch, for routes of this group.
    fn begin_batch(&self, state: &mut ExportState<'_>) -> Batch {
        let mut batch = std::mem::take(state.batch);
        if !batch.memo.is_for(&self.key) {
            batch.forget(state.outs, state.attrs, state.hops);
            batch.memo.begin(&self.key);
        }
        batch.begin(&self.key);
        batch
    }

    fn flush_slice(&mut self, state: &mut ExportState<'_>, window: usize, meter: &mut Meter) {
        let mut batch = self.begin_batch(state);
        // At least one: a slice without progress would be rescheduled forever.
        while batch.considered == 0 || !self.is_full(&batch, window, meter) {
            let Some(dest) = self.next_pending(state.dests, meter) else { break };
            batch.considered += 1;
            self.flush(dest, state, &mut batch);
            meter.spend(WORK_FLUSH + std::mem::take(&mut batch.work));
        }
        self.append(batch, Vec::new(), CoveredRanges::default(), state, meter);
    }

    /// Compares the advertised state of a destination with the intended one and sends the
    /// difference. Returns the path identifiers announced to every member.
    fn flush(&mut self, dest: DestId, state: &mut ExportState<'_>, batch: &mut Batch) -> Flushed {
        let flushed = match self.key.add_path {
            None => self.flush_best(dest, state, batch),
            Some(send) => self.flush_paths(dest, send, state, batch),
        };
        if !matches!(flushed, Flushed::Unchanged) {
            // A new group flushes what is not decided yet. A refresh must find that it has changed.
            let generation = state.generation(self.flush_version).max(1);
            state.dests.note_change(dest, generation);
        }
        flushed
    }

    #[inline]
    fn flush_best(
        &mut self,
        dest: DestId,
        state: &mut ExportState<'_>,
        batch: &mut Batch,
    ) -> Flushed {
        self.watched.note_evaluated(dest, state.dests);
        let new = match self.picked_path(dest, (&*state).into()).copied() {
            Some(path) => {
                let out = self.export_path(dest, &path, state, batch);
                self.exports.withheld += u64::from(out == ExportId::NONE);
                out
            }
            None => ExportId::NONE,
        };
        if self.advertised_paths.needs_memory(dest) {
            batch.work += WORK_GROW;
        }
        // Several paths are ranked for the one that is sent, unless the decision has done so.
        if self.key.vantage.is_some() || self.key.sums_bandwidth {
            batch.work += state.dests.paths(dest).len() as u32 / 2;
        }
        let old = self.advertised_paths.replace_best(dest, new);
        if old == new {
            state.outs.release(new, state.attrs, state.hops);
            return Flushed::Unchanged;
        }
        self.advertise(dest, 0, old, new, state, batch);
        state.outs.release(old, state.attrs, state.hops);
        Flushed::Best
    }

    fn flush_paths(
        &mut self,
        dest: DestId,
        send: AddPathSend,
        state: &mut ExportState<'_>,
        batch: &mut Batch,
    ) -> Flushed {
        let paths = self.paths_to_send(dest, send, state);
        let old = self.advertised_paths.get(dest);
        let mut before: SmallVec<[Advertised; 4]> = old.clone();
        before.sort_unstable_by_key(|path| path.tx);
        let find = |tx| before.binary_search_by_key(&tx, |path: &Advertised| path.tx).ok();
        let mut kept: SmallVec<[bool; 8]> = SmallVec::from_elem(false, before.len());
        let mut list = AdvertisedPaths::new();
        let mut changed = SmallVec::new();
        let mut any = false;
        for path in &paths {
            let out = self.export_path(dest, path, state, batch);
            if out == ExportId::NONE {
                self.exports.withheld += 1;
                continue;
            }
            let tx = self.advertised_paths.tx_id(path);
            list.push(Advertised { tx, out });
            let known = find(tx);
            if let Some(at) = known {
                kept[at] = true;
            }
            let was = known.map_or(ExportId::NONE, |at| before[at].out);
            if was != out {
                self.advertise(dest, tx, was, out, state, batch);
                changed.push(tx);
                any = true;
            }
        }
        let sent = list.len();
        for (path, _) in before.iter().zip(&kept).filter(|(_, kept)| !**kept) {
            if path.out != ExportId::NONE {
                self.advertise(dest, path.tx, path.out, ExportId::NONE, state, batch);
                any = true;
            }
            if list.len() < RUN_MAX {
                list.push(Advertised { tx: path.tx, out: ExportId::NONE });
            }
        }
        if sent < list.len() {
            self.tombstones.insert(dest.0);
        }
        if any {
            self.advertised_paths.replace_list(dest, &list);
            old.iter().for_each(|path| state.outs.release(path.out, state.attrs, state.hops));
        } else {
            list.iter().for_each(|path| state.outs.release(path.out, state.attrs, state.hops));
        }
        if any { Flushed::Paths(changed) } else { Flushed::Unchanged }
    }

    /// Encodes one change for members that have the previous state.
    #[inline]
    fn advertise(
        &mut self,
        dest: DestId,
        tx: u32,
        old: ExportId,
        new: ExportId,
        state: &ExportState<'_>,
        batch: &mut Batch,
    ) {
        let (before, after) = (state.outs.except(old), state.outs.except(new));
        let advertised = |out, except| (out != ExportId::NONE).then_some(except);
        self.watched.note(dest, tx, advertised(old, before), advertised(new, after));
        if old != ExportId::NONE {
            self.count_except(before, SourceCounts::subtract);
        }
        if new == ExportId::NONE {
            self.advertised -= u32::from(old != ExportId::NONE);
            self.exports.withdrawn += 1;
            batch.withdraw(dest, tx, Audience::Everyone, before);
            return;
        }
        self.advertised += u32::from(old == ExportId::NONE);
        self.count_except(after, SourceCounts::add);
        self.exports.announced += 1;
        batch.announce((dest, tx), new, Audience::Everyone, after, state);
        if old == ExportId::NONE || before == after {
            return;
        }
        for peer in after.each() {
            // It was sent the old route, and is not sent the new one.
            if !before.contains(peer) && self.members.contains_key(&peer) {
                batch.withdraw(dest, tx, Audience::Only(peer), Except::NOBODY);
            }
        }
    }

    /// Exports a path to this group and takes a reference; [`ExportId::NONE`] if it is not
    /// advertised.
    fn export_path(
        &mut self,
        dest: DestId,
        path: &Path,
        state: &mut ExportState<'_>,
        batch: &mut Batch,
    ) -> ExportId {
        batch.work += WORK_KNOWN;
        let source = path.source.source();
        let is_stale = path.flags.has(PathFlags::LONG_LIVED);
        let memo_key = memo_class(source, &self.policy, || state.dests.prefix(dest))
            .map(|class| (path.attrs.0, path.next_hop.0, path.source.0, is_stale, class));
        if let Some(found) = memo_key.and_then(|key| batch.memo.get(&key)) {
            let out = found.unwrap_or_default();
            state.outs.retain(out);
            return out;
        }
        batch.work +=
            WORK_RULES + self.policy.weight.work(state.attrs.view(path.attrs).as_bytes().len());
        let out = match self.evaluate(dest, path, state) {
            Ok(exported) => {
                let attrs = match exported.attrs {
                    Some(bytes) => state.attrs.intern(&bytes, LocalAttrs::default()),
                    None => state.attrs.retain_plain(path.attrs),
                };
                let next_hop = state.hops.intern(exported.next_hop);
                let except = Except::of(path.source, state.hops.neighbor(next_hop));
                let reflection = exported.reflection;
                let out = ExportedRoute { attrs, next_hop, except, reflection };
                state.outs.intern(out, state.attrs, state.hops)
            }
            Err(_) => ExportId::NONE,
        };
        if let Some(key) = memo_key {
            state.outs.retain(out);
            batch.memo.insert(key, (out != ExportId::NONE).then_some(out));
        }
        out
    }

    /// Exports a path to this group, or returns why it is not advertised.
    fn evaluate(
        &self,
        dest: DestId,
        path: &Path,
        state: &ExportState<'_>,
    ) -> Result<Exported, Withholding> {
        evaluate_export(&self.key, dest, path, state.into())
    }

    /// Encodes and appends a batch followed by control messages, and returns its memory.
    fn append(
        &mut self,
        mut batch: Batch,
        control: Vec<(SourceId, RefreshKind)>,
        covered: CoveredRanges,
        state: &mut ExportState<'_>,
        meter: &mut Meter,
    ) {
        let mut last = Encoded::default();
        if !batch.is_empty() {
            meter.spend(WORK_APPEND + batch.bytes() as u32 / 256);
            let log = Arc::clone(&self.log);
            let full =
                |part: &mut Encoded| log.append(part.take_chunk(0, CoveredRanges::default()));
            last = batch.encode(&self.key, state, full);
            if !batch.oversized.is_empty() {
                // Before End-of-RIB and EoRR, which say that nothing more of the dump follows.
                log.append(last.take_chunk(0, CoveredRanges::default()));
                batch.recycle(last);
                self.withdraw_oversized(state, &mut batch);
                last = batch.encode(&self.key, state, full);
            }
        }
        for (peer, kind) in control {
            self.push_control(&mut last, peer, kind);
        }
        if !last.frames.is_empty() {
            let complete = if self.has_pending() { 0 } else { state.version };
            self.log.append(last.take_chunk(complete, covered));
        }
        batch.recycle(last);
        batch.clear();
        *state.batch = batch;
    }

    fn push_control(&self, out: &mut Encoded, peer: SourceId, kind: RefreshKind) {
        match kind {
            RefreshKind::Begin | RefreshKind::End => {
                RouteRefresh { family: self.key.family.afi_safi(), kind }.encode(&mut out.bytes);
            }
            _ => encode_end_of_rib(&mut out.bytes, self.key.family),
        }
        out.end_frame(Audience::Only(peer), Except::NOBODY);
    }

    /// Removes withdrawn paths that every member has processed, for `max` destinations at most.
    /// Returns the work done.
    pub(crate) fn purge_withdrawn(&mut self, floor: u32, dests: &Destinations, max: u32) -> u32 {
        let mut left = self.tombstones.len().min(max);
        let looked_at = left;
        while left > 0
            && let Some(id) = self.tombstones.advance()
        {
            left -= 1;
            let dest = DestId(id);
            if dests.last_change(dest) > floor
                || self.pending.contains(id)
                || self.marking.contains(&id)
            {
                continue;
            }
            self.tombstones.remove(id);
            let mut list = self.advertised_paths.get(dest);
            list.retain(|path| path.out != ExportId::NONE);
            self.advertised_paths.replace_list(dest, &list);
        }
        looked_at / 4
    }

    /// Destinations with withdrawn paths kept for members that may not have processed them.
    pub(crate) fn tombstones(&self) -> u32 {
        self.tombstones.len()
    }
}

/// The path identifier of an advertised path, on ADD-PATH sessions.
pub(crate) fn tx_path_id(group: &GroupKey, path: &Advertised) -> Option<PathId> {
    group.add_path.is_some().then_some(PathId(path.tx))
}
