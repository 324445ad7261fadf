//! One TCP connection of a peer: octets read but not yet parsed, and octets to be written.
//!
//! Writing has two sources: control messages of the session, and pieces of the update groups' logs.
//! They are interleaved at message boundaries only: once a message of a piece is begun, it is
//! completed before anything else is written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use bgp_proto::export::{Fetch, Piece, Reader};
use bgp_proto::wire::HEADER_LEN;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Most octets in one read.
pub(super) const READ_MAX: usize = 128 * 1024;
/// Octets written before a flush yields: a peer that reads as fast as we write must not occupy a
/// thread.
const FLUSH_MAX: u64 = 1 << 20;
/// Most octets taken from the logs at once. What TCP cannot accept yet stays in the log, where
/// newer state can replace it.
const FETCH_MAX: usize = 256 * 1024;
/// Most pieces that are kept to be logged, of one flush.
const WRITTEN_MAX: usize = 64;
/// Most slices in one `writev`.
const SLICES_MAX: usize = 64;

thread_local! {
    /// Shared by all tasks of a thread: a peer has no receive buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The result of a read.
pub(super) enum Read {
    /// There is nothing to read at present.
    Blocked,
    /// This many octets were read and passed to the consumer.
    Data(usize),
    /// The peer closed the connection, or it failed with this error.
    Closed(String),
}

/// The result of a flush.
pub(super) enum Flush {
    /// Nothing is left to write; the log's waker is armed.
    Idle,
    /// TCP accepts no more at present.
    Blocked,
    /// [`FLUSH_MAX`] is reached; there is more to write.
    More,
    /// The connection failed with this error.
    Failed(String),
}

/// A connection, its partial input, and its pending output.
pub(super) struct Conn {
    /// Shared with [`PeerHandle`](super::PeerHandle) by a weak reference: whoever shows its state may
    /// hold it for a moment.
    pub(super) stream: Arc<TcpStream>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The beginning of a message that is not complete yet, or messages that wait for credit.
    tail: Vec<u8>,
    /// Complete control messages; octets from `control_sent` on are not written yet.
    control: Vec<u8>,
    control_sent: usize,
    pieces: VecDeque<Piece>,
    /// Octets of the first piece that have been written.
    piece_sent: usize,
    pub(super) readers: Vec<Reader>,
    /// Number of fetches, which determines the family that is served first.
    fetches: usize,
    /// What was written, if it is to be logged.
    pub(super) written: Option<Written>,
    /// Whether octets were written since the peer's task last cleared this.
    pub(super) progressed: bool,
    /// The KeyID of the TCP-AO key that segments were last found to be signed with.
    pub(super) signed_with: Option<u8>,
    sent: Sent,
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

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, more: Sent) {
        let Sent { octets, updates } = more;
        self.octets += octets;
        self.updates += updates;
    }
}

impl Conn {
    /// Our address and the peer's.
    pub(super) fn addresses(&self) -> (std::net::IpAddr, std::net::IpAddr) {
        (self.local.ip(), self.remote.ip())
    }

    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        Ok(Conn {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            stream: Arc::new(stream),
            tail: Vec::new(),
            control: Vec::new(),
            control_sent: 0,
            pieces: VecDeque::new(),
            piece_sent: 0,
            readers: Vec::new(),
            fetches: 0,
            written: None,
            progressed: false,
            signed_with: None,
            sent: Sent::default(),
        })
    }

    /// Reads once and passes the octets, preceded by those left from earlier reads, to `consume`,
    /// which returns how many octets it has consumed.
    pub(super) fn read(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Read {
        self.read_by(read_once, consume)
    }

    /// Like [`Conn::read`], but ignores the runtime's readiness: for a connection that has failed,
    /// whose last octets may have arrived since the runtime last polled the socket.
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

    /// Passes the octets left from earlier reads to `consume` again, without reading.
    pub(super) fn reread(&mut self, consume: impl FnOnce(&[u8]) -> usize) -> Read {
        let tail = std::mem::take(&mut self.tail);
        let taken = consume(&tail);
        self.keep(tail.get(taken..).unwrap_or_default());
        Read::Data(0)
    }

    fn keep(&mut self, rest: &[u8]) {
        // Allocated to size: `tail` is empty between messages, so an idle connection holds no
        // memory.
        self.tail = rest.to_vec();
    }

    /// Returns the counters since the last call, and resets them.
    pub(super) fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    /// The buffer to which control messages are appended.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Writes until TCP accepts no more: first the message that has been begun, then control
    /// messages, then the update logs.
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
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                Err(e) => return Flush::Failed(e.to_string()),
            }
        }
    }

    fn fetch(&mut self, waker: &Waker) -> bool {
        let mut budget = FETCH_MAX;
        let mut taken = Vec::new();
        // The families take turns at being first: a log that always has more data leaves only room
        // for one message of the others.
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

/// Reads once. A read that does not fill `room` has emptied the socket, so it clears the runtime's
/// readiness: a second read only to learn that would delay the response to what was read. Octets
/// that arrive later make the socket readable again.
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

/// Writes the last octets, then reads until the peer closes, so that data that it still sends does
/// not cause a reset that destroys our NOTIFICATION.
pub(super) async fn linger(conn: &mut Conn) -> std::io::Result<()> {
    while let Flush::Blocked = conn.flush_control() {
        conn.stream.writable().await?;
    }
    socket2::SockRef::from(&conn.stream).shutdown(std::net::Shutdown::Write)?;
    while let Read::Blocked | Read::Data(_) = conn.read(<[u8]>::len) {
        // A peer that floods until the end must not get more than its share of the thread.
        tokio::task::yield_now().await;
        conn.stream.readable().await?;
    }
    Ok(())
}

/// Resolves when there is something to read; never if not `wanted`.
pub(super) async fn readable(conn: &Option<Box<Conn>>, wanted: bool) {
    match conn {
        // The read that follows reports an error.
        Some(conn) if wanted => drop(conn.stream.readable().await),
        _ => std::future::pending().await,
    }
}

/// Resolves when TCP accepts octets again; never if not `wanted`.
pub(super) async fn writable(conn: &Option<Box<Conn>>, wanted: bool) {
    match conn {
        // The write that follows reports an error.
        Some(conn) if wanted => drop(conn.stream.writable().await),
        _ => std::future::pending().await,
    }
}
