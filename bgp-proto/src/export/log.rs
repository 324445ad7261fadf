//! The chunk log of a group: written by the table's thread, read by connection tasks.
//!
//! A member is a cursor. It reads the frames addressed to it: those for every member but the
//! source, those for members being resynchronised while it is one, and those for it alone. The log
//! is bounded in octets; a member that falls further behind loses its position and keeps only a
//! *version*, up to which it has the state of the table. The table later sends it what changed
//! since.
//!
//! The mutex is held for a few pointer moves, never while encoding or writing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::attention::Attention;
use super::chunk::{Audience, Chunk, SharedChunk};
use super::resync::{CoveredRanges, Resync, ResyncEnd};
use crate::rib::{SourceId, Version};
use crate::types::{Family, PeerId};
use crate::wire::{HEADER_LEN, MessageType};

/// A run of whole messages inside a chunk.
#[derive(Clone, Debug)]
pub struct Piece {
    chunk: SharedChunk,
    range: Range<u32>,
}

impl Piece {
    /// The messages; never empty, always starts and ends at message boundaries.
    pub fn as_bytes(&self) -> &[u8] {
        self.chunk.bytes.get(self.range.start as usize..self.range.end as usize).unwrap_or_default()
    }

    /// Number of UPDATEs among the messages (RFC 4271 §4.1). Reads each header.
    pub fn updates(&self) -> u64 {
        let bytes = self.as_bytes();
        let (mut at, mut count) = (0, 0);
        while let Some(&[high, low, kind]) = bytes.get(at + 16..at + HEADER_LEN) {
            at += usize::from(u16::from_be_bytes([high, low])).max(HEADER_LEN);
            count += u64::from(kind == MessageType::Update as u8);
        }
        count
    }
}

/// What a fetch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Pieces were appended.
    Data,
    /// Nothing to send now; the waker will be woken.
    Empty,
    /// The member fell off the log; the table was asked for the current state and the waker will be
    /// woken once it is available.
    Lagging,
}

/// A member's cursor in the log.
#[derive(Debug)]
struct Member {
    peer: SourceId,
    /// Chunk, frame within it, offset within the chunk.
    chunk: u64,
    frame: usize,
    offset: u32,
    version: Version,
    /// The resynchronisation that has not been read completely.
    resync: Option<Reading>,
    position: Position,
    /// A refresh was requested while another was in progress.
    refresh_again: Option<ResyncEnd>,
    waker: Option<Waker>,
}

/// A resynchronisation, and how much of it was read.
#[derive(Debug)]
struct Reading {
    resync: Resync,
    /// Its first chunk has this number, or a higher one.
    first: u64,
    /// Number of the chunk after its last one, once that is written.
    to: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// On the log.
    Live,
    /// Fallen off; its reader has not asked for more yet.
    Evicted,
    /// Fallen off; its reader has room, and the table was asked to resynchronise it.
    AwaitingResync,
    /// Never served again: the table has requested that the session be closed.
    Closing,
}

/// The members whose room the table asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Every member that is on the log.
    All,
    /// Those whose resynchronisation is not completely written.
    Resyncing,
}

impl Readers {
    const EACH: [Readers; 2] = [Readers::All, Readers::Resyncing];

    fn include(self, member: &Member) -> bool {
        let is_resynchronised =
            || member.resync.as_ref().is_some_and(|reading| reading.to.is_none());
        member.position == Position::Live && (self == Readers::All || is_resynchronised())
    }
}

/// Identifies a membership; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberKey(pub(crate) u64);

#[derive(Debug)]
struct Held {
    chunk: SharedChunk,
    /// Octets of memory of all chunks before it since the log was created.
    start: u64,
    /// Members whose cursor is in it.
    readers: u32,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Held>,
    /// Number of the first chunk held.
    first: u64,
    /// Octets of memory of all chunks since the log was created.
    written: u64,
    bytes_max: usize,
    complete: Version,
    members: BTreeMap<MemberKey, Member>,
    /// By [`Readers`]: the table has more to write and waits until one of these members has fewer
    /// unread octets than this.
    starved: [Option<u64>; 2],
    /// Called, with the group's number, when this log needs the table.
    attention: Arc<Attention>,
    group: u32,
    evictions: u64,
    /// Members that fell off, can rejoin, or need another resynchronisation.
    events: Vec<MemberEvent>,
}

/// What happened to a member since the table last looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberEvent {
    /// It fell off; a resynchronisation in progress for it is void.
    Evicted(MemberKey),
    /// It fell off and has room again: this resynchronisation is due.
    Rejoin(MemberKey, Resync),
    /// It has read its resynchronisation, and the deferred refresh is due, with this end.
    Refresh(MemberKey, ResyncEnd),
}

/// One group's log for one family.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
}

/// Draws the table's attention to a log, after the log's lock was released.
struct Caller(Arc<Attention>, u32);

impl Caller {
    fn call(&self) {
        self.0.call(self.1);
    }
}

impl State {
    fn caller(&self) -> Caller {
        Caller(Arc::clone(&self.attention), self.group)
    }

    fn next(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    fn held(&self) -> usize {
        self.chunks.front().map_or(0, |front| (self.written - front.start) as usize)
    }

    fn unread(&self, member: &Member) -> u64 {
        let at = member.chunk.checked_sub(self.first).and_then(|at| self.chunks.get(at as usize));
        at.map_or(0, |held| self.written - held.start - u64::from(member.offset))
    }

    /// Drops chunks that every member has read.
    fn trim(&mut self) {
        while self.chunks.front().is_some_and(|front| front.readers == 0) {
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    fn leave(&mut self, chunk: u64) {
        if let Some(held) = self.chunks.get_mut(chunk.wrapping_sub(self.first) as usize) {
            held.readers -= 1;
        }
    }

    fn enter(&mut self, chunk: u64) {
        if let Some(held) = self.chunks.get_mut(chunk.wrapping_sub(self.first) as usize) {
            held.readers += 1;
        }
    }

    /// Drops the oldest chunks until the bound holds; members whose cursor is in them lose their
    /// position. The newest chunk stays whatever its size.
    fn evict(&mut self) {
        if self.held() <= self.bytes_max {
            return;
        }
        while self.held() > self.bytes_max && self.chunks.len() > 1 {
            self.chunks.pop_front();
            self.first += 1;
        }
        for (key, member) in &mut self.members {
            if member.position == Position::Live && member.chunk < self.first {
                member.position = Position::Evicted;
                self.evictions += 1;
                self.events.push(MemberEvent::Evicted(*key));
            }
        }
    }

    /// Whether the table waits for what this member has read; then it waits no longer.
    fn has_fed(&mut self, key: MemberKey) -> bool {
        let Some(member) = self.members.get(&key) else { return false };
        let unread = self.unread(member);
        let is_awaited = |readers: &Readers| {
            let window = self.starved[*readers as usize];
            readers.include(member) && window.is_some_and(|window| unread < window)
        };
        let awaited = Readers::EACH.map(|readers| is_awaited(&readers));
        for (window, is_awaited) in self.starved.iter_mut().zip(awaited) {
            if is_awaited {
                *window = None;
            }
        }
        awaited.contains(&true)
    }

    /// What the member has to be sent after it lost its position.
    fn backlog(member: &Member) -> Resync {
        match &member.resync {
            Some(reading) => reading.resync.clone(),
            None => Resync {
                announce_since: member.version,
                withdraw_since: member.version,
                covers: member.version,
                covered: CoveredRanges::default(),
                end: ResyncEnd::Nothing,
            },
        }
    }
}

impl Member {
    fn is_resyncing(&self) -> bool {
        self.resync.is_some()
    }

    /// Moves the cursor from `chunk` to the next one.
    fn pass(&mut self, chunk: &Chunk) {
        if let Some(reading) = &mut self.resync
            && self.chunk >= reading.first
        {
            reading.resync.covered.add_all(&chunk.covered);
        }
        self.chunk += 1;
        self.frame = 0;
        self.offset = 0;
        self.settle(chunk.complete);
    }

    /// Notes that everything up to `complete` was read, and the end of a resynchronisation.
    fn settle(&mut self, complete: Version) {
        if let Some(Reading { resync, to: Some(to), .. }) = &self.resync
            && self.chunk >= *to
        {
            self.version = self.version.max(resync.covers);
            self.resync = None;
        }
        if self.resync.is_none() {
            self.version = self.version.max(complete);
        }
    }
}

impl Log {
    pub(crate) fn new(bytes_max: usize, attention: Arc<Attention>, group: u32) -> Arc<Self> {
        let state = State {
            chunks: VecDeque::new(),
            first: 0,
            written: 0,
            bytes_max,
            complete: 0,
            members: BTreeMap::new(),
            starved: [None; 2],
            attention,
            group,
            evictions: 0,
            events: Vec::new(),
        };
        Arc::new(Log { state: Mutex::new(state) })
    }

    /// The state is consistent between any two statements, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member at the head of the log, with the resynchronisation that brings it up to date.
    pub(crate) fn join(&self, key: MemberKey, peer: SourceId, resync: Resync) {
        self.admit(key, peer, resync, None, None);
    }

    fn admit(
        &self,
        key: MemberKey,
        peer: SourceId,
        resync: Resync,
        waker: Option<Waker>,
        refresh_again: Option<ResyncEnd>,
    ) {
        let mut state = self.lock();
        let member = Member {
            peer,
            chunk: state.next(),
            frame: 0,
            offset: 0,
            version: resync.withdraw_since.min(resync.announce_since),
            resync: Some(Reading { resync, first: state.next(), to: None }),
            position: Position::Live,
            refresh_again,
            waker,
        };
        state.members.insert(key, member);
    }

    /// Removes a member and discards what it has not read.
    pub(crate) fn leave(&self, key: MemberKey) {
        self.dismiss(key);
    }

    fn dismiss(&self, key: MemberKey) -> Option<Member> {
        let mut state = self.lock();
        let member = state.members.remove(&key)?;
        if member.position == Position::Live {
            state.leave(member.chunk);
            state.trim();
        }
        Some(member)
    }

    /// Returns a member that fell off to the head of the log.
    pub(crate) fn rejoin(&self, key: MemberKey, resync: Resync) {
        let mut state = self.lock();
        let next = state.next();
        let Some(member) = state.members.get_mut(&key) else { return };
        member.position = Position::Live;
        (member.chunk, member.frame, member.offset) = (next, 0, 0);
        member.resync = Some(Reading { resync, first: next, to: None });
    }

    /// Begins the resynchronisation of a member; deferred while one is in progress or the member
    /// has fallen off. Returns whether it begins at once.
    pub(crate) fn refresh(&self, key: MemberKey, resync: Resync) -> bool {
        let mut state = self.lock();
        let first = state.next();
        let Some(member) = state.members.get_mut(&key) else { return false };
        if member.position != Position::Live || member.is_resyncing() {
            member.refresh_again = Some(resync.end);
            return false;
        }
        member.refresh_again = None;
        member.resync = Some(Reading { resync, first, to: None });
        true
    }

    /// The version of a member that is not resynchronised.
    pub(crate) fn version(&self, key: MemberKey) -> Version {
        self.lock().members.get(&key).map_or(0, |member| member.version)
    }

    /// The table has written all of the member's resynchronisation.
    pub(crate) fn end_resync(&self, key: MemberKey) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let next = state.next();
        let complete = state.complete;
        let Some(member) = state.members.get_mut(&key) else { return };
        if let Some(reading) = &mut member.resync {
            reading.to = Some(next);
        }
        let mut again = None;
        if member.position == Position::Live && member.chunk == next {
            member.settle(complete);
            if member.resync.is_none() {
                again = member.refresh_again.take();
            }
        }
        if let Some(end) = again {
            state.events.push(MemberEvent::Refresh(key, end));
            let caller = state.caller();
            drop(guard);
            caller.call();
        }
    }

    /// Appends a chunk. The readers that it concerns are woken soon: see [`Attention`].
    pub(crate) fn append(&self, chunk: SharedChunk) {
        let mut wakers = Vec::new();
        let octets = chunk.octets();
        let attention = {
            let mut state = self.lock();
            let number = state.next();
            let mut readers = 0;
            for member in state.members.values_mut() {
                if member.position != Position::Live || member.chunk != number {
                    continue;
                }
                // A waiting member that the chunk does not concern passes it unwoken: otherwise it
                // would keep the chunk in the log until there is something for it.
                if member.waker.is_some() && !chunk.concerns(member.peer, member.is_resyncing()) {
                    member.pass(&chunk);
                    continue;
                }
                readers += 1;
                wakers.extend(member.waker.take());
            }
            let start = state.written;
            state.complete = state.complete.max(chunk.complete);
            state.chunks.push_back(Held { chunk, start, readers });
            state.written += octets as u64;
            state.trim();
            state.evict();
            Arc::clone(&state.attention)
        };
        attention.appended(octets, wakers);
    }

    /// Every change up to `version` is in the log, or no member needed it.
    pub(crate) fn set_complete(&self, version: Version) {
        let mut state = self.lock();
        state.complete = state.complete.max(version);
        let next = state.next();
        for member in state.members.values_mut() {
            if member.position == Position::Live && member.chunk == next {
                member.settle(version);
            }
        }
    }

    /// Whether one of these members has fewer than `window` unread octets; if not, the table is
    /// woken when one has.
    pub(crate) fn has_room(&self, window: usize, readers: Readers) -> bool {
        let mut state = self.lock();
        let window = window as u64;
        let mut members = state.members.values();
        let room = members.any(|m| readers.include(m) && state.unread(m) < window);
        state.starved[readers as usize] = (!room).then_some(window);
        room
    }

    /// What happened to members since the last call, in order.
    pub(crate) fn take_events(&self) -> Vec<MemberEvent> {
        std::mem::take(&mut self.lock().events)
    }

    /// The oldest version from which a member may have to be resynchronised.
    pub(crate) fn floor(&self) -> Version {
        let state = self.lock();
        let held = state.members.values().filter(|member| member.position != Position::Closing);
        held.map(|member| {
            member.resync.as_ref().map_or(member.version, |reading| reading.resync.withdraw_since)
        })
        .min()
        .unwrap_or(Version::MAX)
    }

    /// Stops serving the member that is furthest behind and returns it. A member that fell off the
    /// log is chosen before one that is on it.
    pub(crate) fn close_slowest(&self) -> Option<SourceId> {
        let mut state = self.lock();
        let (_, _, key) = state
            .members
            .iter()
            .filter(|(_, member)| member.position != Position::Closing)
            .map(|(key, m)| (m.position == Position::Live, State::backlog(m).withdraw_since, *key))
            .min()?;
        let member = state.members.get_mut(&key)?;
        let (peer, chunk) = (member.peer, member.chunk);
        if std::mem::replace(&mut member.position, Position::Closing) == Position::Live {
            state.leave(chunk);
            state.trim();
            state.events.push(MemberEvent::Evicted(key));
        }
        Some(peer)
    }

    /// Whether a member has read everything, a resynchronisation included.
    pub(crate) fn has_read_all(&self, key: MemberKey) -> bool {
        let state = self.lock();
        let next = state.next();
        let is_at_end = |member: &Member| {
            member.position == Position::Live && member.chunk == next && member.resync.is_none()
        };
        state.members.get(&key).is_some_and(is_at_end)
    }

    /// For each member with unread octets: the octets that it has read since the log was created.
    pub(crate) fn positions(&self) -> Vec<(MemberKey, u64)> {
        let state = self.lock();
        let members = state.members.iter().filter(|(_, m)| m.position == Position::Live);
        let unread = members.map(|(key, member)| (*key, state.unread(member)));
        unread.filter(|(_, unread)| *unread > 0).map(|(key, n)| (key, state.written - n)).collect()
    }

    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        let mut state = self.lock();
        state.bytes_max = bytes_max;
        state.evict();
    }

    /// Octets held, and how often a member fell off.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.lock();
        (state.held(), state.evictions)
    }

    fn fetch(&self, key: MemberKey, budget: usize, out: &mut Vec<Piece>, waker: &Waker) -> Fetch {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (first, next, complete) = (state.first, state.next(), state.complete);
        let Some(member) = state.members.get_mut(&key) else { return Fetch::Empty };
        if member.position != Position::Live {
            member.waker = Some(waker.clone());
            if member.position == Position::Evicted {
                member.position = Position::AwaitingResync;
                state.events.push(MemberEvent::Rejoin(key, State::backlog(member)));
                let caller = state.caller();
                drop(guard);
                caller.call();
            }
            return Fetch::Lagging;
        }
        let stood = member.chunk;
        let mut left = budget;
        let before = out.len();
        while left > 0 && member.chunk < next {
            let held = &state.chunks[(member.chunk - first) as usize];
            if read_chunk(&held.chunk, member, &mut left, out) {
                member.pass(&held.chunk);
            }
        }
        if member.chunk == next {
            member.settle(complete);
        }
        let fetched = if out.len() > before { Fetch::Data } else { Fetch::Empty };
        member.waker = (fetched == Fetch::Empty).then(|| waker.clone());
        let mut wake_table = false;
        if !member.is_resyncing()
            && let Some(end) = member.refresh_again.take()
        {
            state.events.push(MemberEvent::Refresh(key, end));
            wake_table = true;
        }
        let stands = member.chunk;
        if stands != stood {
            state.leave(stood);
            state.enter(stands);
            state.trim();
        }
        if state.starved != [None; 2] && state.has_fed(key) {
            wake_table = true;
        }
        let caller = wake_table.then(|| state.caller());
        drop(guard);
        caller.into_iter().for_each(|caller| caller.call());
        fetched
    }
}

/// Moves what the member may read of a chunk to `out`, at most `left` octets but always a whole
/// message; returns whether the chunk is finished.
fn read_chunk(
    chunk: &SharedChunk,
    member: &mut Member,
    left: &mut usize,
    out: &mut Vec<Piece>,
) -> bool {
    let is_resyncing = member.resync.is_some();
    while let Some(frame) = chunk.frames.get(member.frame) {
        let wanted = match frame.audience {
            Audience::Everyone => !frame.except.contains(member.peer),
            Audience::Resyncing => is_resyncing && !frame.except.contains(member.peer),
            Audience::Only(peer) => peer == member.peer,
        };
        if wanted {
            if *left == 0 {
                return false;
            }
            let end = whole_messages(&chunk.bytes, member.offset, frame.end, *left);
            push_piece(chunk, member.offset..end, out);
            *left = left.saturating_sub((end - member.offset) as usize);
            member.offset = end;
            if end < frame.end {
                // The rest does not fit: what is left of the budget is less than a message.
                *left = 0;
                return false;
            }
        }
        member.offset = frame.end;
        member.frame += 1;
    }
    true
}

/// The end of the longest run of whole messages from `at` that is at most `budget` octets long, or
/// of the first message.
fn whole_messages(bytes: &[u8], at: u32, end: u32, budget: usize) -> u32 {
    if (end - at) as usize <= budget {
        return end;
    }
    let mut next = at;
    while next < end {
        let header = bytes.get(next as usize + 16..next as usize + 18);
        let len = header.map_or(0, |len| u32::from(u16::from_be_bytes([len[0], len[1]])));
        if len == 0 {
            return end;
        }
        if next > at && (next + len - at) as usize > budget {
            break;
        }
        next += len;
    }
    next.min(end)
}

/// Appends a run, joined to the last piece if it follows it.
fn push_piece(chunk: &SharedChunk, range: Range<u32>, out: &mut Vec<Piece>) {
    if range.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(last) if last.chunk.is(chunk) && last.range.end == range.start => {
            last.range.end = range.end;
        }
        _ => out.push(Piece { chunk: chunk.clone(), range }),
    }
}

/// The log that a reader reads. The table may transfer the reader to another group's log.
#[derive(Debug)]
pub(crate) struct Subscription {
    place: Mutex<(Arc<Log>, MemberKey)>,
}

impl Subscription {
    fn lock(&self) -> MutexGuard<'_, (Arc<Log>, MemberKey)> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the reader from its log to `log`, with the resynchronisation that `plan` derives from
    /// the member's backlog.
    pub(crate) fn transfer(
        &self,
        log: Arc<Log>,
        key: MemberKey,
        peer: SourceId,
        plan: impl FnOnce(Resync) -> Resync,
    ) {
        let mut place = self.lock();
        let Some(member) = place.0.dismiss(place.1) else { return };
        let resync = plan(State::backlog(&member));
        log.admit(key, peer, resync, member.waker, member.refresh_again);
        *place = (log, key);
    }
}

/// A member's cursor. Dropping it ends the membership.
#[derive(Debug)]
pub struct Reader {
    subscription: Arc<Subscription>,
    peer: PeerId,
    family: Family,
}

impl Reader {
    /// A reader of `log`, which the caller has joined under `key`.
    pub(crate) fn new(log: Arc<Log>, key: MemberKey, peer: PeerId, family: Family) -> Self {
        Reader {
            subscription: Arc::new(Subscription { place: Mutex::new((log, key)) }),
            peer,
            family,
        }
    }

    pub(crate) fn subscription(&self) -> Arc<Subscription> {
        Arc::clone(&self.subscription)
    }

    /// The family of the messages.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The peer that reads.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Appends up to `budget` octets (at least one message if there is any) to `out` and moves the
    /// cursor past them. With [`Fetch::Empty`] and [`Fetch::Lagging`], `waker` is kept and woken
    /// once.
    pub fn fetch(&mut self, budget: usize, out: &mut Vec<Piece>, waker: &Waker) -> Fetch {
        let place = self.subscription.lock();
        place.0.fetch(place.1, budget.max(1), out, waker)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let place = self.subscription.lock();
        place.0.leave(place.1);
    }
}
