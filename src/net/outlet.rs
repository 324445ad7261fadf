//! What is to be written to one connection: control messages of the session, and pieces of the
//! update groups' logs.
//!
//! They are interleaved at message boundaries only: once a message of a piece is begun, it is
//! completed before anything else is written.
//!
//! The peer's task writes. When a turn of the table ran on another task's thread and left something
//! for few readers, that thread writes it ([`Member::serve`]): waking a task for a few octets takes
//! longer than writing them. Whoever writes holds the lock. The serving thread never waits for it,
//! and leaves everything but the plain case to the task: octets that wait already, a socket that is
//! full or broken, messages that are to be logged.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use bgp_proto::export::{Fetch, Piece, Reader};
use bgp_proto::wire::HEADER_LEN;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::debug::DebugSwitch;
use super::session_counters::SessionCounters;
use crate::engine::{Clock, Member, serve_after_turn};

/// Octets written before a flush yields: a peer that reads as fast as we write must not occupy a
/// thread.
const FLUSH_MAX: u64 = 1 << 20;
/// The same for a flush by the thread that ran a turn, which has others to serve.
const SERVE_MAX: u64 = 16 << 10;
/// Most octets taken from the logs at once. What TCP cannot accept yet stays in the log, where
/// newer state can replace it.
const FETCH_MAX: usize = 256 * 1024;
/// Most pieces that are kept to be logged, of one flush.
const WRITTEN_MAX: usize = 64;
/// Most slices in one `writev`.
const SLICES_MAX: usize = 64;

/// The result of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Nothing is left to write; the log's waker is armed.
    Idle,
    /// TCP accepts no more at present.
    Blocked,
    /// As much is written as may be in one go; there is more.
    More,
    /// The connection failed with this error.
    Failed(String),
}

/// UPDATEs that one flush has written.
#[derive(Default)]
pub(super) struct Written {
    /// The first [`WRITTEN_MAX`] pieces.
    pub(super) pieces: Vec<Piece>,
    /// The number of UPDATEs in the others.
    pub(super) omitted: u64,
}

impl Written {
    fn keep(&mut self, piece: Piece) {
        match self.pieces.len() {
            ..WRITTEN_MAX => self.pieces.push(piece),
            _ => self.omitted += piece.updates(),
        }
    }
}

/// Counters of what was written to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Octets of messages of all types.
    pub octets: u64,
    /// UPDATE messages, counted when the last octet of their piece is written.
    pub updates: u64,
}

/// [`Sent`] over all connections of a peer, whoever wrote.
#[derive(Debug, Default)]
pub(super) struct SentTotals {
    octets: AtomicU64,
    updates: AtomicU64,
}

impl SentTotals {
    pub(super) fn get(&self) -> Sent {
        Sent {
            octets: self.octets.load(Ordering::Relaxed),
            updates: self.updates.load(Ordering::Relaxed),
        }
    }
}

/// What all outlets of a peer share with its task.
pub(super) struct Served {
    /// Wakes the peer's task.
    pub(super) ready: Notify,
    pub(super) debug: DebugSwitch,
    pub(super) clock: Clock,
    pub(super) session_counters: SessionCounters,
    pub(super) sent: Arc<SentTotals>,
}

/// The output of a connection, and the right to write it.
pub(super) struct Outlet {
    output: Mutex<Output>,
    peer: Arc<Served>,
}

/// Octets that are to be written.
pub(super) struct Output {
    stream: Arc<TcpStream>,
    /// Complete control messages; octets from `control_sent` on are not written yet.
    control: Vec<u8>,
    control_sent: usize,
    pieces: VecDeque<Piece>,
    /// Octets of the first piece that have been written.
    piece_sent: usize,
    readers: Vec<Reader>,
    /// Number of fetches, which determines the family that is served first.
    fetches: usize,
    /// What was written, if it is to be logged.
    pub(super) written: Option<Written>,
    /// Why writing failed while the task did not write; it is told at its next flush.
    failed: Option<String>,
    /// Wakes whoever is to write when the logs have data.
    waker: Waker,
    sent: Arc<SentTotals>,
}

impl Outlet {
    pub(super) fn new(stream: Arc<TcpStream>, peer: Arc<Served>) -> Arc<Self> {
        Arc::new_cyclic(|outlet| Outlet {
            output: Mutex::new(Output {
                stream,
                control: Vec::new(),
                control_sent: 0,
                pieces: VecDeque::new(),
                piece_sent: 0,
                readers: Vec::new(),
                fetches: 0,
                written: None,
                failed: None,
                // Weak: the logs hold the waker, and the outlet holds the readers of the logs.
                waker: Waker::from(Arc::new(LogWaker(Weak::clone(outlet)))),
                sent: Arc::clone(&peer.sent),
            }),
            peer,
        })
    }

    /// The output. A serving thread that holds it does one write, which does not block.
    pub(super) fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(|poisoned| {
            self.output.clear_poison();
            let mut output = poisoned.into_inner();
            output.fail("internal error while an UPDATE was written");
            output
        })
    }

    /// Writes what the logs have, if that is all there is to do.
    fn serve_now(&self) -> Flush {
        let peer = &*self.peer;
        if peer.debug.is_on(peer.clock.now()) {
            return Flush::More;
        }
        let Ok(mut output) = self.output.try_lock() else { return Flush::More };
        if !output.control.is_empty() || !output.pieces.is_empty() || output.failed.is_some() {
            return Flush::More;
        }
        let began = Instant::now();
        let (outcome, progress) = output.flush_up_to(SERVE_MAX);
        if let Flush::Failed(text) = &outcome {
            output.failed = Some(text.clone());
        }
        drop(output);
        if progress == Progress::Some {
            peer.session_counters.flushed(began.elapsed());
        }
        outcome
    }
}

impl Member for Outlet {
    fn serve(&self) {
        // A panic here belongs to this peer and not to the one whose task ran the turn: it poisons
        // the lock, and the peer's task ends the connection.
        match catch_unwind(AssertUnwindSafe(|| self.serve_now())) {
            Ok(Flush::Idle) => {}
            _ => self.wake(),
        }
    }

    fn wake(&self) {
        self.peer.ready.notify_one();
    }
}

/// The logs have data for the connection.
struct LogWaker(Weak<Outlet>);

impl Wake for LogWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(outlet) = self.0.upgrade() {
            serve_after_turn(outlet);
        }
    }
}

/// Whether a flush wrote anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    None,
    Some,
}

impl Output {
    /// The buffer to which control messages are appended.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Reads from these logs from now on.
    pub(super) fn set_readers(&mut self, readers: Vec<Reader>) {
        self.readers = readers;
    }

    /// Writes until TCP accepts no more: first the message that has been begun, then control
    /// messages, then the update logs.
    pub(super) fn flush(&mut self) -> (Flush, Progress) {
        if let Some(text) = self.failed.take() {
            return (Flush::Failed(text), Progress::None);
        }
        self.flush_up_to(FLUSH_MAX)
    }

    fn flush_up_to(&mut self, octets_max: u64) -> (Flush, Progress) {
        let (mut octets, mut progress) = (0, Progress::None);
        loop {
            if octets >= octets_max {
                return (Flush::More, progress);
            }
            let result = if !self.control.is_empty() {
                if self.octets_to_boundary() > 0 {
                    self.write_to_boundary()
                } else {
                    self.write_control()
                }
            } else if !self.pieces.is_empty() {
                self.write_pieces()
            } else if self.fetch() {
                continue;
            } else {
                return (Flush::Idle, progress);
            };
            match result {
                Ok(written) => {
                    octets += written as u64;
                    progress = Progress::Some;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return (Flush::Blocked, progress);
                }
                Err(e) => return (Flush::Failed(e.to_string()), progress),
            }
        }
    }

    /// Whatever is still to be written is dropped: the connection is to end.
    fn fail(&mut self, text: &str) {
        self.readers.clear();
        self.pieces.clear();
        self.piece_sent = 0;
        self.control = Vec::new();
        self.control_sent = 0;
        self.failed = Some(text.into());
    }

    /// Drops all pieces except one that has been begun, so that a NOTIFICATION is sent next.
    pub(super) fn drop_updates(&mut self) {
        self.readers.clear();
        if self.piece_sent == 0 {
            self.pieces.clear();
            return;
        }
        self.pieces.truncate(1);
        if self.octets_to_boundary() == 0 {
            self.pieces.clear();
            self.piece_sent = 0;
        }
    }

    /// Like [`Conn::flush`], but stops within a piece at the next message boundary. For closing.
    pub(super) fn flush_control(&mut self) -> Flush {
        loop {
            let result = if self.octets_to_boundary() > 0 {
                self.write_to_boundary()
            } else if self.control.is_empty() {
                return Flush::Idle;
            } else {
                self.write_control()
            };
            match result {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                Err(e) => return Flush::Failed(e.to_string()),
            }
        }
    }

    fn fetch(&mut self) -> bool {
        let mut budget = FETCH_MAX;
        let mut taken = Vec::new();
        // The families take turns at being first: a log that always has more data leaves only room
        // for one message of the others.
        let first = self.fetches % self.readers.len().max(1);
        self.fetches = self.fetches.wrapping_add(1);
        let (later, sooner) = self.readers.split_at_mut(first);
        for reader in sooner.iter_mut().chain(later) {
            let before = taken.len();
            if reader.fetch(budget, &mut taken, &self.waker) == Fetch::Data {
                let got: usize = taken
                    .get(before..)
                    .unwrap_or_default()
                    .iter()
                    .map(|p| p.as_bytes().len())
                    .sum();
                budget = budget.saturating_sub(got);
                if budget == 0 {
                    break;
                }
            }
        }
        self.pieces.extend(taken);
        !self.pieces.is_empty()
    }

    fn write_control(&mut self) -> io::Result<usize> {
        let rest = self.control.get(self.control_sent..).unwrap_or_default();
        let written = self.stream.try_write(rest)?;
        self.control_sent += written;
        self.sent.octets.fetch_add(written as u64, Ordering::Relaxed);
        if self.control_sent >= self.control.len() {
            self.control = Vec::new();
            self.control_sent = 0;
        }
        Ok(written)
    }

    fn write_pieces(&mut self) -> io::Result<usize> {
        let mut slices: [IoSlice<'_>; SLICES_MAX] = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let from = if count == 0 { self.piece_sent } else { 0 };
            *slot = IoSlice::new(piece.as_bytes().get(from..).unwrap_or_default());
            count += 1;
        }
        let written = self.stream.try_write_vectored(slices.get(..count).unwrap_or_default())?;
        self.advance(written);
        Ok(written)
    }

    fn write_to_boundary(&mut self) -> io::Result<usize> {
        let octets = self.octets_to_boundary();
        let Some(piece) = self.pieces.front() else { return Ok(0) };
        let rest = piece.as_bytes().get(self.piece_sent..).unwrap_or_default();
        let written = self.stream.try_write(rest.get(..octets).unwrap_or(rest))?;
        self.advance(written);
        Ok(written)
    }

    fn advance(&mut self, mut written: usize) {
        self.sent.octets.fetch_add(written as u64, Ordering::Relaxed);
        while let Some(piece) = self.pieces.front() {
            let left = piece.as_bytes().len() - self.piece_sent;
            if written < left {
                self.piece_sent += written;
                return;
            }
            written -= left;
            self.piece_sent = 0;
            self.sent.updates.fetch_add(piece.updates(), Ordering::Relaxed);
            let piece = self.pieces.pop_front();
            if let (Some(written), Some(piece)) = (&mut self.written, piece) {
                written.keep(piece);
            }
        }
    }

    /// Octets of the first piece's current message that are not written yet; 0 between messages.
    fn octets_to_boundary(&self) -> usize {
        let Some(piece) = self.pieces.front() else { return 0 };
        let bytes = piece.as_bytes();
        let mut start = 0;
        while start < self.piece_sent {
            let len = match bytes.get(start + 16..start + 18) {
                Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
                _ => HEADER_LEN,
            };
            start += len.max(HEADER_LEN);
        }
        start.min(bytes.len()) - self.piece_sent
    }
}

#[cfg(test)]
mod tests;
