//! One BGP session of the load generator: a client that dials, shakes hands, writes a prepared stream and counts.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{self, Event, Key, MESSAGE_LEN_MAX, Message, Sums, Tally};

/// Octets read or written with one call.
pub(crate) const SLICE_LEN: usize = 256 * 1024;

/// How a session treats what the daemon sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As fast as it comes.
    Full,
    /// Not at all: the daemon's socket fills.
    Nothing,
    /// This many octets in each tick of [`crate::engine::TICK`].
    PerTick(usize),
}

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection.
    Idle,
    /// Waiting for TCP, then for OPEN and KEEPALIVE.
    Opening,
    /// Both sides have confirmed.
    Established,
    /// Ended, with the reason.
    Closed(String),
}

/// What a session waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Goal {
    /// Done when the announcements are exactly one of these.
    pub(crate) announced: Vec<Sums>,
    /// Done when the withdrawals are exactly these prefixes.
    pub(crate) withdrawn: Option<Sums>,
}

impl Goal {
    fn is_met(&self, tally: &Tally) -> bool {
        let announced = self.announced.is_empty()
            || self.announced.iter().any(|sums| tally.announced.same_prefixes(sums));
        let withdrawn = self.withdrawn.is_none_or(|sums| tally.withdrawn.same_prefixes(&sums));
        announced && withdrawn
    }

    /// As much as expected has come, though not exactly that: a daemon that repeats itself ends here.
    pub(crate) fn is_reached(&self, tally: &Tally) -> bool {
        let announced = self.announced.iter().map(|sums| sums.count).min().unwrap_or(0);
        let withdrawn = self.withdrawn.map_or(0, |sums| sums.count);
        tally.announced.count >= announced && tally.withdrawn.count >= withdrawn
    }
}

/// Moments of one session since the clock started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks {
    /// First announcement or withdrawal.
    pub(crate) first: Option<Instant>,
    /// Last one.
    pub(crate) last: Option<Instant>,
    /// The goal was met.
    pub(crate) done: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    /// Own address, which is the router id too.
    pub(crate) source: Ipv4Addr,
    /// State.
    pub(crate) state: State,
    /// When it was last dialled.
    pub(crate) dialled: Option<Instant>,
    /// When it became established.
    pub(crate) up: Option<Instant>,
    /// When octets last came.
    heard: Option<Instant>,
    /// Longest time without an octet from the daemon since the session came up, as far as it was
    /// seen: what waits in the socket while the generator is busy counts as silence too.
    pub(crate) silence: Duration,
    /// How it reads.
    pub(crate) reading: Reading,
    /// Sent as soon as the session is established.
    pub(crate) greeting: Option<Arc<[u8]>>,
    /// What it heard since the clock started.
    pub(crate) tally: Tally,
    /// What it waits for.
    pub(crate) goal: Option<Goal>,
    /// When things happened.
    pub(crate) marks: Marks,
    /// A prefix to watch for, and when it came.
    pub(crate) probe: Option<(Key, Option<Instant>)>,
    /// A copy of all UPDATE octets, for a comparison after the clock has stopped.
    pub(crate) capture: Option<Vec<u8>>,
    stream: Option<TcpStream>,
    partial: Vec<u8>,
    outgoing: VecDeque<(Arc<[u8]>, usize)>,
}

/// What one turn of reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The socket is empty.
    Drained,
    /// There may be more.
    More,
}

impl Session {
    /// A session that has not dialled.
    pub(crate) fn new(source: Ipv4Addr) -> Self {
        Self {
            source,
            state: State::Idle,
            dialled: None,
            up: None,
            heard: None,
            silence: Duration::ZERO,
            reading: Reading::Full,
            greeting: None,
            tally: Tally::default(),
            goal: None,
            marks: Marks::default(),
            probe: None,
            capture: None,
            stream: None,
            partial: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Starts a connection and queues the OPEN.
    ///
    /// # Errors
    /// The socket cannot be made: out of descriptors, or the address is not local.
    pub(crate) fn dial(
        &mut self,
        to: SocketAddrV4,
        open: Arc<[u8]>,
        now: Instant,
    ) -> std::io::Result<&mut TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        match socket.connect(&SocketAddr::V4(to).into()) {
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

    /// The connection, to be taken out of the poll.
    pub(crate) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// Queues octets behind those already waiting.
    pub(crate) fn send(&mut self, bytes: Arc<[u8]>) {
        self.outgoing.push_back((bytes, 0));
    }

    /// Octets not yet accepted by the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.iter().map(|(bytes, at)| bytes.len() - at).sum()
    }

    /// Forgets all counts and marks.
    pub(crate) fn reset(&mut self) {
        self.tally = Tally::default();
        self.marks = Marks::default();
        self.goal = None;
    }

    /// False while it watches for a prefix that has not come.
    pub(crate) fn has_seen(&self) -> bool {
        !matches!(self.probe, Some((_, None)))
    }

    /// Writes until the kernel takes no more.
    ///
    /// # Errors
    /// The connection is gone.
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
    /// The session has ended: closed by the daemon, NOTIFICATION, or octets that are not BGP.
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
        if let (State::Established, Some(before)) = (&self.state, self.heard.replace(now)) {
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
        // A short read has emptied the socket; the next octet raises a new edge.
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

    /// Whether no route has come for `quiet`.
    pub(crate) fn is_quiet(&self, now: Instant, quiet: Duration) -> bool {
        self.marks.last.is_none_or(|last| now.saturating_duration_since(last) >= quiet)
    }
}

/// What a scratch buffer must hold: one read and the largest partial message before it.
pub(crate) const SCRATCH_LEN: usize = SLICE_LEN + MESSAGE_LEN_MAX;

/// Linux's number for "connection is being established"; the standard library has no name for it.
const EINPROGRESS: i32 = 115;
