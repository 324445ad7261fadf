//! One TCP connection of a peer: what was read and not yet understood, what is being written.
//!
//! Writing has two sources: control messages of the session, and pieces of the groups' logs. They
//! meet at message boundaries only. A piece once begun is finished up to the end of its current
//! message before anything else goes out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::net::SocketAddr;
use std::task::Waker;

use bgp_proto::export::{Fetch, Piece, Reader};
use bgp_proto::wire::HEADER_LEN;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Octets read in one go.
pub(super) const READ_MAX: usize = 128 * 1024;
/// Octets written in one go: whoever reads as fast as we write does not keep a thread to itself.
const FLUSH_MAX: u64 = 1 << 20;
/// Octets taken from a log at once. What is not on its way to TCP stays in the log, where newer
/// state can overtake it.
const FETCH_MAX: usize = 256 * 1024;
/// Slices given to one `writev`.
const SLICES_MAX: usize = 64;

thread_local! {
    /// Shared by all tasks of a thread: a peer has no receive buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a read found.
pub(super) enum Read {
    /// Nothing at present.
    Blocked,
    /// So many octets came and were passed to the consumer.
    Data(usize),
    /// The peer closed, or the connection failed: the kernel's words.
    Closed(String),
}

/// What a flush achieved.
pub(super) enum Flush {
    /// Nothing is left to write; the log's waker is armed.
    Idle,
    /// TCP takes no more at present.
    Blocked,
    /// Enough for one turn; there is more.
    More,
    /// The connection failed: the kernel's words.
    Failed(String),
}

/// A connection.
pub(super) struct Conn {
    pub(super) stream: TcpStream,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The start of a message whose end has not come, or what waits for credit.
    tail: Vec<u8>,
    /// Whole control messages, from `control_sent` on.
    control: Vec<u8>,
    control_sent: usize,
    pieces: VecDeque<Piece>,
    /// Octets of the first piece that are written.
    piece_sent: usize,
    pub(super) readers: Vec<Reader>,
    /// Counts what was fetched: whose turn it is to be first.
    fetches: usize,
    /// Octets written since the peer's task last asked.
    pub(super) progressed: bool,
    sent: Sent,
}

/// What was written to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Octets, of messages of any type.
    pub octets: u64,
    /// UPDATE messages, counted when their last octet is written or soon after.
    pub updates: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, more: Sent) {
        let Sent { octets, updates } = more;
        self.octets += octets;
        self.updates += updates;
    }
}

impl Conn {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        Ok(Conn {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            stream,
            tail: Vec::new(),
            control: Vec::new(),
            control_sent: 0,
            pieces: VecDeque::new(),
            piece_sent: 0,
            readers: Vec::new(),
            fetches: 0,
            progressed: false,
            sent: Sent::default(),
        })
    }

    /// Reads once and passes what is there, behind what was left of earlier reads, to `consume`,
    /// which returns how many octets it took.
    pub(super) fn read(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Read {
        self.read_by(read_once, consume)
    }

    /// As [`Conn::read`], whether or not the runtime has been notified yet that there is something: for a
    /// connection that has failed, and whose last octets may have come since the runtime last looked.
    pub(super) fn read_last(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Read {
        self.read_by(|stream, room| (&*socket2::SockRef::from(stream)).read(room), consume)
    }

    fn read_by(
        &mut self,
        read: impl FnOnce(&TcpStream, &mut [u8]) -> io::Result<usize>,
        consume: impl FnOnce(&[u8]) -> usize,
    ) -> Read {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.tail.len();
            scratch.resize(kept.max(READ_MAX) + READ_MAX, 0);
            let (head, room) = scratch.split_at_mut(kept);
            head.copy_from_slice(&self.tail);
            let room = room.get_mut(..READ_MAX).expect("the scratch was sized for it");
            match read(&self.stream, room) {
                Ok(0) => Read::Closed("the peer closed the connection".into()),
                Ok(n) => {
                    let all = scratch.get(..kept + n).unwrap_or_default();
                    let taken = consume(all);
                    self.keep(all.get(taken..).unwrap_or_default());
                    Read::Data(n)
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Read::Blocked,
                Err(e) => Read::Closed(e.to_string()),
            }
        })
    }

    /// Passes what earlier reads left to `consume` again, without reading.
    pub(super) fn reread(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Read {
        let tail = std::mem::take(&mut self.tail);
        let taken = consume(&tail);
        self.keep(tail.get(taken..).unwrap_or_default());
        Read::Data(0)
    }

    fn keep(&mut self, rest: &[u8]) {
        // An idle connection keeps no memory: `tail` is empty between messages.
        self.tail = rest.to_vec();
    }

    /// What was written since this was last asked.
    pub(super) fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    /// Where control messages are appended.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Writes what there is: the message that has been begun, then control messages, then the logs.
    pub(super) fn flush(&mut self, waker: &Waker) -> Flush {
        let enough = self.sent.octets + FLUSH_MAX;
        loop {
            if self.sent.octets >= enough {
                return Flush::More;
            }
            let result = if !self.control.is_empty() {
                if self.octets_to_boundary() > 0 {
                    self.write_to_boundary()
                } else {
                    self.write_control()
                }
            } else if !self.pieces.is_empty() {
                self.write_pieces()
            } else if self.fetch(waker) {
                continue;
            } else {
                return Flush::Idle;
            };
            match result {
                Ok(()) => self.progressed = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                Err(e) => return Flush::Failed(e.to_string()),
            }
        }
    }

    /// Drops every piece that has not been begun, so that a NOTIFICATION is next.
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

    /// As [`Conn::flush`], but leaves a begun piece at its next message boundary. For closing.
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
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                Err(e) => return Flush::Failed(e.to_string()),
            }
        }
    }

    fn fetch(&mut self, waker: &Waker) -> bool {
        let mut budget = FETCH_MAX;
        let mut taken = Vec::new();
        // Each family is first in turn: one that always has more leaves the others only one message.
        let first = self.fetches % self.readers.len().max(1);
        self.fetches = self.fetches.wrapping_add(1);
        let (later, sooner) = self.readers.split_at_mut(first);
        for reader in sooner.iter_mut().chain(later) {
            let before = taken.len();
            if reader.fetch(budget, &mut taken, waker) == Fetch::Data {
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

    fn write_control(&mut self) -> io::Result<()> {
        let rest = self.control.get(self.control_sent..).unwrap_or_default();
        let written = self.stream.try_write(rest)?;
        self.control_sent += written;
        self.sent.octets += written as u64;
        if self.control_sent >= self.control.len() {
            self.control = Vec::new();
            self.control_sent = 0;
        }
        Ok(())
    }

    fn write_pieces(&mut self) -> io::Result<()> {
        let mut slices: [IoSlice<'_>; SLICES_MAX] = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let from = if count == 0 { self.piece_sent } else { 0 };
            *slot = IoSlice::new(piece.as_bytes().get(from..).unwrap_or_default());
            count += 1;
        }
        let written = self.stream.try_write_vectored(slices.get(..count).unwrap_or_default())?;
        self.advance(written);
        Ok(())
    }

    fn write_to_boundary(&mut self) -> io::Result<()> {
        let octets = self.octets_to_boundary();
        let Some(piece) = self.pieces.front() else { return Ok(()) };
        let rest = piece.as_bytes().get(self.piece_sent..).unwrap_or_default();
        let written = self.stream.try_write(rest.get(..octets).unwrap_or(rest))?;
        self.advance(written);
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.sent.octets += written as u64;
        while let Some(piece) = self.pieces.front() {
            let left = piece.as_bytes().len() - self.piece_sent;
            if written < left {
                self.piece_sent += written;
                return;
            }
            written -= left;
            self.piece_sent = 0;
            self.sent.updates += piece.updates();
            self.pieces.pop_front();
        }
    }

    /// Octets of the first piece's current message that are not written; 0 between messages.
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

/// Reads what is there. A read that does not fill `room` has emptied the socket, so it counts as the
/// end of readiness: another one that only learns that would hold up the answer to what was read.
/// What comes later makes the socket readable again.
fn read_once(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let size = room.len();
    let mut read = None;
    let outcome = stream.try_io(Interest::READABLE, || match stream.try_read(room) {
        Ok(n @ 1..) if n < size => {
            read = Some(n);
            Err(io::ErrorKind::WouldBlock.into())
        }
        outcome => outcome,
    });
    read.map_or(outcome, Ok)
}

/// Delivers the last octets, then waits for the peer to close, so that what it still sends does not
/// turn our NOTIFICATION into a reset.
pub(super) async fn linger(conn: &mut Conn) -> std::io::Result<()> {
    while let Flush::Blocked = conn.flush_control() {
        conn.stream.writable().await?;
    }
    socket2::SockRef::from(&conn.stream).shutdown(std::net::Shutdown::Write)?;
    while let Read::Blocked | Read::Data(_) = conn.read(<[u8]>::len) {
        // What a flood sends until the end is not worth more than its share.
        tokio::task::yield_now().await;
        conn.stream.readable().await?;
    }
    Ok(())
}

/// Resolves when there is something to read, if that is wanted.
pub(super) async fn readable(conn: &Option<Box<Conn>>, wanted: bool) {
    match conn {
        // An error shows at the read that follows.
        Some(conn) if wanted => drop(conn.stream.readable().await),
        _ => std::future::pending().await,
    }
}

/// Resolves when TCP takes octets again, if that is waited for.
pub(super) async fn writable(conn: &Option<Box<Conn>>, wanted: bool) {
    match conn {
        // An error shows at the write that follows.
        Some(conn) if wanted => drop(conn.stream.writable().await),
        _ => std::future::pending().await,
    }
}
