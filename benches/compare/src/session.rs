//! One BGP session of the load generator: a client that connects, completes the OPEN exchange,
//! writes a prepared stream and counts what it receives.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::feed;
use crate::wire::{self, Event, Key, MESSAGE_LEN_MAX, Message, Sums, Tally};

/// Octets read or written with one call.
pub(crate) const SLICE_LEN: usize = 256 * 1024;

/// How a session reads from its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As fast as possible.
    Full,
    /// Not at all: the daemon's socket buffer fills.
    Nothing,
    /// This many octets in each tick of [`crate::engine::TICK`].
    PerTick(usize),
}

/// The state of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection.
    Idle,
    /// Waiting for the TCP connection, then for OPEN and KEEPALIVE.
    Opening,
    /// OPEN and KEEPALIVE were received.
    Established,
    /// Ended, for this reason.
    Closed(String),
}

/// The condition that a session waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Goal {
    /// Met when the announced prefixes are exactly those of one of these.
    pub(crate) announced: Vec<Sums>,
    /// Met when the withdrawn prefixes are exactly these.
    pub(crate) withdrawn: Option<Sums>,
}

impl Goal {
    fn is_met(&self, tally: &Tally) -> bool {
        let announced = self.announced.is_empty()
            || self.announced.iter().any(|sums| tally.announced.same_prefixes(sums));
        let withdrawn = self.withdrawn.is_none_or(|sums| tally.withdrawn.same_prefixes(&sums));
        announced && withdrawn
    }

    /// Whether at least the expected number of prefixes was received, though perhaps not exactly
    /// these: the end state of a daemon that repeats announcements.
    pub(crate) fn is_reached(&self, tally: &Tally) -> bool {
        let announced = self.announced.iter().map(|sums| sums.count).min().unwrap_or(0);
        let withdrawn = self.withdrawn.map_or(0, |sums| sums.count);
        tally.announced.count >= announced && tally.withdrawn.count >= withdrawn
    }
}

/// Points in time of one session since the clock started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks {
    /// First announcement or withdrawal.
    pub(crate) first: Option<Instant>,
    /// Last announcement or withdrawal.
    pub(crate) last: Option<Instant>,
    /// The goal was met.
    pub(crate) done: Option<Instant>,
}

/// A session of the load generator.
#[derive(Debug)]
pub(crate) struct Session {
    /// Local address, also the BGP Identifier.
    pub(crate) source: Ipv4Addr,
    /// Where it connects to.
    pub(crate) to: SocketAddrV4,
    /// State.
    pub(crate) state: State,
    /// Time of the last connection attempt.
    pub(crate) dialled: Option<Instant>,
    /// Time at which it became established.
    pub(crate) up: Option<Instant>,
    /// Time of the last received octets.
    last_read: Option<Instant>,
    /// Longest time without an octet read since the session was established. Octets that wait in
    /// the socket while the generator is busy count as silence, too.
    pub(crate) silence: Duration,
    /// How it currently reads.
    pub(crate) reading: Reading,
    /// Sent as soon as the session is established.
    pub(crate) greeting: Option<Arc<[u8]>>,
    /// What it has received since the clock started.
    pub(crate) tally: Tally,
    /// The condition that it waits for, if any.
    pub(crate) goal: Option<Goal>,
    /// Points in time since the clock started.
    pub(crate) marks: Marks,
    /// A prefix to watch for, and the time at which it was announced.
    pub(crate) probe: Option<(Key, Option<Instant>)>,
    /// Whether UPDATEs with [`crate::feed::probe`]s are left out of the tally.
    pub(crate) leaves_probes_out: bool,
    /// A copy of all received UPDATEs, for a comparison after the clock has stopped.
    pub(crate) capture: Option<Vec<u8>>,
    stream: Option<TcpStream>,
    partial: Vec<u8>,
    outgoing: VecDeque<(Arc<[u8]>, usize)>,
}

/// Whether the socket may hold more octets after a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The socket is empty.
    Drained,
    /// There may be more.
    More,
}

impl Session {
    /// A session that has not connected yet.
    pub(crate) fn new(source: Ipv4Addr, to: SocketAddrV4) -> Self {
        Self {
            source,
            to,
            state: State::Idle,
            dialled: None,
            up: None,
            last_read: None,
            silence: Duration::ZERO,
            reading: Reading::Full,
            greeting: None,
            tally: Tally::default(),
            goal: None,
            marks: Marks::default(),
            probe: None,
            leaves_probes_out: false,
            capture: None,
            stream: None,
            partial: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Starts a connection attempt and queues the OPEN.
    ///
    /// # Errors
    /// The socket cannot be created, bound or connected: for example, the process has no free
    /// descriptor or the address is not local.
    pub(crate) fn dial(
        &mut self,
        open: Arc<[u8]>,
        now: Instant,
    ) -> std::io::Result<&mut TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        match socket.connect(&SocketAddr::V4(self.to).into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
            _ => {}
        }
        self.partial.clear();
        self.outgoing.clear();
        self.outgoing.push_back((open, 0));
        self.state = State::Opening;
        self.dialled = Some(now);
        Ok(self.stream.insert(TcpStream::from_std(socket.into())))
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, reason: impl Into<String>) {
        self.stream = None;
        self.outgoing.clear();
        self.state = State::Closed(reason.into());
    }

    /// The connection, to be deregistered from the poll.
    pub(crate) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// Appends octets to the output queue.
    pub(crate) fn send(&mut self, bytes: Arc<[u8]>) {
        self.outgoing.push_back((bytes, 0));
    }

    /// Queued octets that the kernel has not accepted yet.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.iter().map(|(bytes, at)| bytes.len() - at).sum()
    }

    /// Resets all counters and marks, and removes the goal.
    pub(crate) fn reset(&mut self) {
        self.tally = Tally::default();
        self.marks = Marks::default();
        self.goal = None;
    }

    /// False while it watches for a prefix that has not been announced.
    pub(crate) fn has_seen(&self) -> bool {
        !matches!(self.probe, Some((_, None)))
    }

    /// Writes queued octets until the socket accepts no more.
    ///
    /// # Errors
    /// The connection was closed or reset.
    pub(crate) fn write(&mut self) -> Result<(), String> {
        let Some(stream) = self.stream.as_mut() else { return Ok(()) };
        while let Some((bytes, at)) = self.outgoing.front_mut() {
            let rest = bytes.get(*at..).unwrap_or(&[]);
            match stream.write(rest.get(..SLICE_LEN).unwrap_or(rest)) {
                Ok(written) => *at += written,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("write: {error}")),
            }
            if *at >= bytes.len() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    /// Reads once, at most `limit` octets, and handles every complete message.
    ///
    /// # Errors
    /// The session has ended: the daemon closed it, sent a NOTIFICATION, or sent octets that are
    /// not BGP.
    pub(crate) fn read(&mut self, scratch: &mut [u8], limit: usize) -> Result<Turn, String> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Turn::Drained) };
        let kept = self.partial.len();
        let end = (kept + limit).min(scratch.len());
        let (Some(head), true) = (scratch.get_mut(..kept), kept < end) else {
            return Err("a message longer than the buffer".to_owned());
        };
        head.copy_from_slice(&self.partial);
        let room = scratch.get_mut(kept..end).unwrap_or(&mut []);
        let room_len = room.len();
        let got = match stream.read(room) {
            Ok(0) => return Err("closed by the daemon".to_owned()),
            Ok(got) => got,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
            {
                return Ok(Turn::Drained);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Turn::More),
            Err(error) => return Err(format!("read: {error}")),
        };
        let now = Instant::now();
        self.tally.bytes += got as u64;
        if let (State::Established, Some(before)) = (&self.state, self.last_read.replace(now)) {
            self.silence = self.silence.max(now.saturating_duration_since(before));
        }
        let filled = scratch.get(..kept + got).unwrap_or(&[]);
        let used = self.handle_input(filled, now)?;
        self.partial.clear();
        self.partial.extend_from_slice(filled.get(used..).unwrap_or(&[]));
        let goal = self.goal.as_ref().filter(|_| self.marks.done.is_none());
        if goal.is_some_and(|goal| goal.is_met(&self.tally)) {
            self.marks.done = Some(now);
        }
        // A short read has emptied the socket; the next octet triggers a new edge of epoll.
        Ok(if got == room_len { Turn::More } else { Turn::Drained })
    }

    fn handle_input(&mut self, filled: &[u8], now: Instant) -> Result<usize, String> {
        let mut used = 0;
        while let Some((message, len)) = wire::message(filled.get(used..).unwrap_or(&[]))? {
            match message {
                Message::Update(body) => self.handle_update(body, now)?,
                Message::Open(_) => self.send(wire::keepalive().into()),
                Message::Keepalive => self.handle_keepalive(now),
                Message::Notification(body) => {
                    return Err(format!("NOTIFICATION {:?}", body.get(..2).unwrap_or(body)));
                }
                Message::Other => {}
            }
            used += len;
        }
        Ok(used)
    }

    fn handle_keepalive(&mut self, now: Instant) {
        if self.state == State::Opening {
            self.state = State::Established;
            self.up = Some(now);
            if let Some(greeting) = self.greeting.clone() {
                self.send(greeting);
            }
        }
    }

    fn handle_update(&mut self, body: &[u8], now: Instant) -> Result<(), &'static str> {
        if let Some((key, seen @ None)) = &mut self.probe {
            wire::walk_update(body, |event| match event {
                Event::Announce(announced, _) if announced == *key => *seen = Some(now),
                _ => {}
            })?;
        }
        if self.leaves_probes_out {
            let mut is_probe = false;
            wire::walk_update(body, |event| {
                is_probe |= matches!(event, Event::Announce(key, _) if feed::is_probe(key));
            })?;
            if is_probe {
                return Ok(());
            }
        }
        let before = self.tally.announced.count + self.tally.withdrawn.count;
        wire::tally_update(&mut self.tally, body)?;
        if before != self.tally.announced.count + self.tally.withdrawn.count {
            self.marks.first.get_or_insert(now);
            self.marks.last = Some(now);
        }
        if let Some(capture) = &mut self.capture {
            wire::push_message(capture, 2, |out| out.extend_from_slice(body));
        }
        Ok(())
    }

    /// Whether no route has been received for `quiet`.
    pub(crate) fn is_quiet(&self, now: Instant, quiet: Duration) -> bool {
        self.marks.last.is_none_or(|last| now.saturating_duration_since(last) >= quiet)
    }
}

/// The size of a scratch buffer: one read preceded by the largest partial message.
pub(crate) const SCRATCH_LEN: usize = SLICE_LEN + MESSAGE_LEN_MAX;

/// Linux's error number for a connection in progress; the standard library has no name for it.
const EINPROGRESS: i32 = 115;
