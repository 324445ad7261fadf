//! One TCP connection of a peer: octets read but not yet parsed, and its [`Outlet`].

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::outlet::{Flush, Outlet, Output, Served};

/// Most octets in one read.
pub(super) const READ_MAX: usize = 128 * 1024;

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

/// A connection, its partial input, and its pending output.
pub(super) struct Conn {
    /// Shared with [`PeerHandle`](super::PeerHandle) by a weak reference: whoever shows its state may
    /// hold it for a moment.
    pub(super) stream: Arc<TcpStream>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The beginning of a message that is not complete yet, or messages that wait for credit.
    tail: Vec<u8>,
    /// The KeyID of the TCP-AO key that segments were last found to be signed with.
    pub(super) signed_with: Option<u8>,
    outlet: Arc<Outlet>,
}

impl Conn {
    /// Our address and the peer's.
    pub(super) fn addresses(&self) -> (std::net::IpAddr, std::net::IpAddr) {
        (self.local.ip(), self.remote.ip())
    }

    /// A connection of the peer that owns `peer`.
    pub(super) fn new(stream: TcpStream, peer: Arc<Served>) -> io::Result<Self> {
        let stream = Arc::new(stream);
        Ok(Conn {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            tail: Vec::new(),
            signed_with: None,
            outlet: Outlet::new(Arc::clone(&stream), peer),
            stream,
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

    /// What is to be written.
    pub(super) fn output(&self) -> MutexGuard<'_, Output> {
        self.outlet.lock()
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
    while conn.output().flush_control() == Flush::Blocked {
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
