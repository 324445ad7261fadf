//! Drives all sessions from one epoll thread.
//!
//! Feeders cost little (their octets are encoded in advance and written 256 KiB per call),
//! receivers a few nanoseconds per prefix; a second thread would only compete with the daemon for
//! the second core. Runs of `relay` and `null` show the limits of this thread.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::{Events, Interest, Poll, Token};

use crate::session::{Goal, Reading, SCRATCH_LEN, SLICE_LEN, Session, State, Turn};
use crate::wire::{self, Key};

/// Interval of keepalive checks and of slow reads.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Hold time that the generator proposes unless a scenario sets another one, seconds.
pub(crate) const HOLD_TIME_SECS: u16 = 90;

/// The sessions and their event loop.
pub(crate) struct Engine {
    /// The sessions, identified by their index.
    pub(crate) sessions: Vec<Session>,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    to: SocketAddrV4,
    asn: u32,
    hold_time_secs: u16,
    /// Number of sessions that have a goal and have not met it.
    pub(crate) pending: usize,
    /// Number of sessions that have not received the prefix they watch for.
    pub(crate) unseen: usize,
    readable: Vec<usize>,
    next_tick: Instant,
    next_keepalive: Instant,
    interrupted: Arc<AtomicBool>,
}

impl Engine {
    /// An engine without sessions. Its sessions will connect to `to` with the AS number `asn`,
    /// propose this hold time and send a KEEPALIVE every quarter of it.
    ///
    /// # Errors
    /// The kernel cannot create an epoll instance.
    pub(crate) fn new(
        to: SocketAddrV4,
        asn: u32,
        hold_time_secs: u16,
        interrupted: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            sessions: Vec::new(),
            poll: Poll::new().context("create an epoll instance")?,
            events: Events::with_capacity(1024),
            scratch: vec![0; SCRATCH_LEN],
            to,
            asn,
            hold_time_secs,
            pending: 0,
            unseen: 0,
            readable: Vec::new(),
            next_tick: now + TICK,
            next_keepalive: now + keepalive_period(hold_time_secs),
            interrupted,
        })
    }

    /// Adds a session and returns its index.
    pub(crate) fn add(&mut self, source: Ipv4Addr) -> usize {
        self.add_to(source, self.to)
    }

    /// Adds a session that will connect to `to`.
    pub(crate) fn add_to(&mut self, source: Ipv4Addr, to: SocketAddrV4) -> usize {
        self.sessions.push(Session::new(source, to));
        self.sessions.len() - 1
    }

    /// The number of sessions that satisfy `what`.
    pub(crate) fn count(&self, what: impl Fn(&Session) -> bool) -> usize {
        self.sessions.iter().filter(|session| what(session)).count()
    }

    /// Connects until all of `ids` are established, with at most `in_flight` attempts at a time; an
    /// attempt that is refused or not answered is repeated.
    ///
    /// # Errors
    /// Not all are established within `limit`; the error contains the last reason.
    pub(crate) fn establish(
        &mut self,
        ids: &[usize],
        in_flight: usize,
        limit: Duration,
    ) -> anyhow::Result<Duration> {
        const RETRY: Duration = Duration::from_millis(50);
        const PATIENCE: Duration = Duration::from_secs(5);
        let start = Instant::now();
        let mut reason = "no answer".to_owned();
        loop {
            let now = Instant::now();
            let mut opening = 0;
            let mut waiting = 0;
            for &id in ids {
                let session = &self.sessions[id];
                let age =
                    session.dialled.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                if session.state == State::Opening && age > PATIENCE {
                    self.end(id, "no answer");
                }
                match &self.sessions[id].state {
                    State::Established => continue,
                    State::Opening => opening += 1,
                    State::Closed(why) => reason.clone_from(why),
                    State::Idle => {}
                }
                waiting += 1;
            }
            if waiting == 0 {
                return Ok(start.elapsed());
            }
            if start.elapsed() > limit {
                bail!("{waiting} of {} sessions not established in {limit:?}: {reason}", ids.len());
            }
            for &id in ids {
                let session = &self.sessions[id];
                let due =
                    session.dialled.is_none_or(|at| now.saturating_duration_since(at) >= RETRY);
                if opening < in_flight
                    && due
                    && !matches!(session.state, State::Established | State::Opening)
                {
                    self.dial(id)?;
                    opening += 1;
                }
            }
            let up = self.count(|session| session.state == State::Established);
            let one_more =
                |engine: &Self| engine.count(|session| session.state == State::Established) > up;
            self.run(Instant::now() + Duration::from_millis(10), one_more)?;
        }
    }

    /// Starts one connection attempt.
    ///
    /// # Errors
    /// The socket cannot be created or connected.
    pub(crate) fn dial(&mut self, id: usize) -> anyhow::Result<()> {
        let session = &mut self.sessions[id];
        let open = wire::open(self.asn, self.hold_time_secs, session.source);
        let (source, to) = (session.source, session.to);
        let stream = session
            .dial(open.into(), Instant::now())
            .with_context(|| format!("dial {to} from {source}"))?;
        self.poll.registry().register(
            stream,
            Token(id),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(())
    }

    /// Queues octets on a session and writes as many as the socket accepts.
    pub(crate) fn send(&mut self, id: usize, bytes: Arc<[u8]>) {
        self.sessions[id].send(bytes);
        self.write(id);
    }

    /// Resets the counters of a session and sets its goal.
    pub(crate) fn arm(&mut self, id: usize, goal: Option<Goal>) {
        let session = &mut self.sessions[id];
        self.pending -= usize::from(session.goal.is_some() && session.marks.done.is_none());
        session.reset();
        self.pending += usize::from(goal.is_some());
        session.goal = goal;
    }

    /// Lets a slow session read at full speed with a goal to wait for; its counters are kept.
    pub(crate) fn resume(&mut self, id: usize, goal: Goal) {
        let session = &mut self.sessions[id];
        if session.goal.replace(goal).is_none() {
            session.marks.done = None;
            self.pending += 1;
        }
        self.set_reading(id, Reading::Full);
    }

    /// Makes a session watch for one prefix.
    pub(crate) fn watch(&mut self, id: usize, key: Key) {
        let session = &mut self.sessions[id];
        self.unseen -= usize::from(!session.has_seen());
        session.probe = Some((key, None));
        self.unseen += 1;
    }

    /// Closes a session's TCP connection without a NOTIFICATION.
    pub(crate) fn cut(&mut self, id: usize) {
        self.end(id, "cut by the scenario");
    }

    /// Changes how a session reads.
    pub(crate) fn set_reading(&mut self, id: usize, reading: Reading) {
        self.sessions[id].reading = reading;
        self.readable.push(id);
    }

    /// Drives all sessions until `stop` returns true (checked before each round) or until `until`;
    /// returns whether `stop` did.
    ///
    /// # Errors
    /// epoll fails, or the user interrupts the run.
    pub(crate) fn run(
        &mut self,
        until: Instant,
        mut stop: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        loop {
            if stop(self) {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= until {
                return Ok(false);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            self.turn(until.min(self.next_tick).saturating_duration_since(now))?;
        }
    }

    fn turn(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let timeout = if self.readable.is_empty() { timeout } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error).context("epoll");
            }
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut again = std::mem::take(&mut self.readable);
        for event in &events {
            let Token(id) = event.token();
            if event.is_writable() {
                self.write(id);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id, SLICE_LEN);
            }
        }
        self.events = events;
        again.sort_unstable();
        again.dedup();
        for id in again {
            self.read(id, SLICE_LEN);
        }
        if Instant::now() >= self.next_tick {
            self.tick();
        }
        Ok(())
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.next_tick = now + TICK;
        for id in 0..self.sessions.len() {
            if let Reading::PerTick(limit) = self.sessions[id].reading {
                self.read_some(id, limit);
            }
        }
        if now >= self.next_keepalive {
            self.next_keepalive = now + keepalive_period(self.hold_time_secs);
            let keepalive: Arc<[u8]> = wire::keepalive().into();
            for id in 0..self.sessions.len() {
                if self.sessions[id].state == State::Established && self.sessions[id].unsent() == 0
                {
                    self.send(id, keepalive.clone());
                }
            }
        }
    }

    fn read(&mut self, id: usize, limit: usize) {
        // A session that does not read must still be able to become established.
        if self.sessions[id].reading == Reading::Full
            || self.sessions[id].state != State::Established
        {
            self.read_some(id, limit);
        }
    }

    fn read_some(&mut self, id: usize, limit: usize) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let (done, seen) = (session.marks.done, session.has_seen());
        let result = session.read(&mut self.scratch, limit);
        self.pending -= usize::from(done.is_none() && session.marks.done.is_some());
        self.unseen -= usize::from(!seen && session.has_seen());
        match result {
            Ok(Turn::More) if session.reading == Reading::Full => self.readable.push(id),
            Ok(_) => {}
            Err(reason) => return self.end(id, &reason),
        }
        if self.sessions[id].unsent() > 0 {
            self.write(id);
        }
    }

    fn write(&mut self, id: usize) {
        if let Err(reason) = self.sessions[id].write() {
            self.end(id, &reason);
        }
    }

    fn end(&mut self, id: usize, reason: &str) {
        let session = &mut self.sessions[id];
        if let Some(stream) = session.stream() {
            // The descriptor is closed next, which removes it from epoll even if this fails.
            let _ = self.poll.registry().deregister(stream);
        }
        session.close(reason);
    }
}

fn keepalive_period(hold_time_secs: u16) -> Duration {
    Duration::from_secs(hold_time_secs.into()) / 4
}
