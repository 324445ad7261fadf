//! One task per peer: the FSM, its connections, its timer, its place in the log.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use bgp_proto::export::Reader;
use bgp_proto::session::{Action, Close, Command, Negotiated, Peer, Slot, State, Stats, Timers};
use bgp_proto::types::{Family, PeerId, Prefix, SessionId, Time};
use bgp_proto::wire::RouteBatch;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tracing::{debug, info, warn};

use super::conn::{Conn, Flush, Read, Sent, linger, readable, writable};
use super::dial;
use super::handle::{
    Beside, Lifetime, PeerCommand, PeerEvent, PeerHandle, PeerSnapshot, PeerSpec, Recovery,
};
use super::tally::Tally;
use crate::engine::{Handle, PeerCredit, Permit};

/// Commands that may wait for a peer's task; a connection that finds the queue full is closed.
pub(super) const COMMANDS_MAX: usize = 16;
/// Octets of routes after which a batch goes to the table.
const BATCH_MAX: usize = 512 * 1024;
/// How long a closing connection may take to deliver its last octets.
const LINGER: Duration = Duration::from_secs(1);
/// How long a dynamic peer without a connection is remembered, beyond its restart time.
const DYNAMIC_GRACE: Duration = Duration::from_secs(5);
/// How long a task sleeps that waits for nothing but others.
const NO_DEADLINE: Duration = Duration::from_secs(86_400);

/// Starts a peer's task, which starts its session.
pub fn spawn_peer(
    spec: PeerSpec,
    table: Handle,
    events: mpsc::UnboundedSender<PeerEvent>,
) -> PeerHandle {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let session = Peer::new(Arc::clone(&spec.config), spec.seed);
    let snapshot = Arc::new(Mutex::new(PeerSnapshot {
        state: session.state(),
        since: table.clock().now(),
        session_since: table.clock().now(),
        timers: Timers::default(),
        deadline: None,
        negotiated: None,
        last_error: None,
        stats: Stats::default(),
        sent: Sent::default(),
    }));
    let log_ready = Arc::new(Notify::new());
    let mut task = PeerTask {
        id: spec.id,
        name: spec.name,
        lifetime: spec.lifetime,
        recovery: spec.recovery,
        beside: spec.beside,
        tally: spec.tally,
        sent: Sent::default(),
        session,
        conns: [None, None, None],
        early: None,
        blocked: [false; 3],
        dial: None,
        batch: RouteBatch::default(),
        stalled: None,
        readers: None,
        session_id: None,
        log_waker: Waker::from(Arc::new(NotifyWaker(Arc::clone(&log_ready)))),
        log_ready,
        credit: table.peer_credit(),
        table,
        inbox,
        events,
        snapshot: Arc::clone(&snapshot),
        closers: JoinSet::new(),
        terminating: false,
        lonely_until: None,
        said: None,
        timer: Box::pin(tokio::time::sleep(NO_DEADLINE)),
    };
    let handle = PeerHandle { id: task.id, commands, snapshot };
    // By reference: an `async fn` that takes a value holds it twice.
    tokio::spawn(async move { task.run().await });
    handle
}

/// Wakes the peer's task when its log has something.
struct NotifyWaker(Arc<Notify>);

impl std::task::Wake for NotifyWaker {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

type Dial = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;
type Acquire = Pin<Box<dyn Future<Output = Permit> + Send>>;

struct PeerTask {
    id: PeerId,
    name: Arc<str>,
    lifetime: Lifetime,
    recovery: Recovery,
    beside: Beside,
    tally: Tally,
    /// Over all connections.
    sent: Sent,
    session: Peer,
    conns: [Option<Box<Conn>>; 3],
    /// The peer dialled while its faults hold it idle: looked at when that is over.
    early: Option<TcpStream>,
    /// TCP takes no more on this slot.
    blocked: [bool; 3],
    dial: Option<Dial>,
    /// Routes of the present turn.
    batch: RouteBatch,
    /// Routes that wait for credit; meanwhile nothing is read.
    stalled: Option<(RouteBatch, Acquire)>,
    readers: Option<(Slot, oneshot::Receiver<Vec<Reader>>)>,
    /// The session that the table knows of.
    session_id: Option<SessionId>,
    log_ready: Arc<Notify>,
    log_waker: Waker,
    credit: PeerCredit,
    table: Handle,
    inbox: mpsc::Receiver<Box<PeerCommand>>,
    events: mpsc::UnboundedSender<PeerEvent>,
    snapshot: Arc<Mutex<PeerSnapshot>>,
    closers: JoinSet<()>,
    terminating: bool,
    /// A dynamic peer without a connection ends then.
    lonely_until: Option<Time>,
    /// Why there is no session, as it was last logged: said again only when it changes.
    said: Option<String>,
    timer: Pin<Box<Sleep>>,
}

/// Where the FSM's next octets come from.
enum Octets {
    FromSocket,
    /// What stopped at a full batch goes on without a further read.
    LeftOver,
}

/// What woke the task.
enum Wakeup {
    Command(Option<PeerCommand>),
    Timer,
    Readable(Slot),
    Writable(Slot),
    Log,
    Dialled(std::io::Result<TcpStream>),
    Readers(Result<Vec<Reader>, oneshot::error::RecvError>),
    Credit(Permit),
}

impl PeerTask {
    async fn run(&mut self) {
        self.session.handle_command(self.now(), Command::Start);
        loop {
            self.drain();
            self.publish();
            if self.is_over() {
                break;
            }
            self.arm_timer();
            match self.wait().await {
                Wakeup::Command(command) => self.on_command(command),
                Wakeup::Timer => self.on_timer(),
                Wakeup::Readable(slot) => self.read(slot),
                Wakeup::Writable(slot) => self.blocked[slot.index()] = false,
                Wakeup::Log => {}
                Wakeup::Dialled(result) => self.on_dialled(result),
                Wakeup::Readers(readers) => self.on_readers(readers),
                Wakeup::Credit(permit) => self.on_credit(permit),
            }
            self.take_early();
        }
        while self.closers.join_next().await.is_some() {}
        let _ = self.events.send(PeerEvent::Ended(self.id));
    }

    fn now(&self) -> Time {
        self.table.clock().now()
    }

    async fn wait(&mut self) -> Wakeup {
        let reading = self.stalled.is_none();
        let [outgoing, incoming, reconnect] = &self.conns;
        let [out_blocked, in_blocked, re_blocked] = self.blocked;
        tokio::select! {
            biased;
            () = &mut self.timer => Wakeup::Timer,
            command = self.inbox.recv() => Wakeup::Command(command.map(|command| *command)),
            permit = optional(self.stalled.as_mut().map(|(_, acquire)| acquire)) => {
                Wakeup::Credit(permit)
            }
            readers = optional(self.readers.as_mut().map(|(_, receiver)| receiver)) => {
                Wakeup::Readers(readers)
            }
            result = optional(self.dial.as_mut()) => Wakeup::Dialled(result),
            () = writable(outgoing, out_blocked) => Wakeup::Writable(Slot::Outgoing),
            () = writable(incoming, in_blocked) => Wakeup::Writable(Slot::Incoming),
            () = writable(reconnect, re_blocked) => Wakeup::Writable(Slot::Reconnect),
            () = readable(outgoing, reading) => Wakeup::Readable(Slot::Outgoing),
            () = readable(incoming, reading) => Wakeup::Readable(Slot::Incoming),
            () = readable(reconnect, reading) => Wakeup::Readable(Slot::Reconnect),
            () = self.log_ready.notified() => Wakeup::Log,
        }
    }

    fn on_command(&mut self, command: Option<PeerCommand>) {
        let now = self.now();
        match command {
            Some(PeerCommand::Incoming(stream)) => self.early = Some(stream),
            Some(PeerCommand::Session(command)) => self.session.handle_command(now, command),
            Some(PeerCommand::Rename(name)) => self.name = name,
            Some(PeerCommand::Terminate(close)) => {
                self.terminating = true;
                self.session.handle_command(now, Command::Stop(close));
            }
            None => {
                self.terminating = true;
                self.session.handle_command(now, Command::Stop(Close::Deconfigured));
            }
        }
    }

    /// Differs from RFC: 4271 §8.2.2 refuses connections in Idle. A peer that is held for its faults
    /// is kept waiting instead, with its newest connection: after a refusal many wait for minutes.
    fn take_early(&mut self) {
        if !self.session.is_paced()
            && let Some(stream) = self.early.take()
        {
            self.on_stream(self.session.incoming_slot(), stream);
        }
    }

    /// A deadline came. The sockets are looked at first: octets that already wait are a sign of
    /// life, and it is our delay if they were not read.
    fn on_timer(&mut self) {
        for slot in Slot::ALL {
            if self.stalled.is_none() && self.conns[slot.index()].is_some() {
                self.read(slot);
                self.drain();
            }
        }
        let now = self.now();
        if self.stalled.is_some() {
            Slot::ALL.into_iter().for_each(|slot| self.session.handle_alive(now, slot));
        }
        self.session.handle_timeout(now);
    }

    fn on_dialled(&mut self, result: std::io::Result<TcpStream>) {
        self.dial = None;
        match result {
            Ok(stream) => self.on_stream(Slot::Outgoing, stream),
            Err(e) => {
                let hint = if e.kind() == std::io::ErrorKind::TimedOut
                    && self.session.config().security.md5.is_some()
                {
                    " (no answer: check the password on both sides)"
                } else {
                    ""
                };
                self.session.handle_connect_failed(self.now(), &format!("{e}{hint}"));
            }
        }
    }

    fn on_stream(&mut self, slot: Slot, stream: TcpStream) {
        let prepared = match slot {
            Slot::Outgoing => Ok(()),
            Slot::Incoming | Slot::Reconnect => dial::adopt(&stream, self.session.config()),
        };
        let conn = match prepared.and_then(|()| Conn::new(stream)) {
            Ok(conn) => Box::new(conn),
            Err(e) => {
                debug!(peer = %self.name, "connection lost before it was accepted: {e}");
                if slot == Slot::Outgoing {
                    self.session.handle_connect_failed(self.now(), &e.to_string());
                }
                return;
            }
        };
        let (local, remote): (SocketAddr, SocketAddr) = (conn.local, conn.remote);
        // An older connection in the slot is dropped by this, as the FSM expects.
        self.conns[slot.index()] = Some(conn);
        self.blocked[slot.index()] = false;
        self.session.set_restart(self.recovery.restart());
        self.session.handle_connected(self.now(), slot, local, remote);
    }

    fn on_readers(&mut self, readers: Result<Vec<Reader>, oneshot::error::RecvError>) {
        let Some((slot, _)) = self.readers.take() else { return };
        if let (Ok(readers), Some(conn)) = (readers, self.conns[slot.index()].as_mut()) {
            conn.readers = readers;
        }
    }

    fn on_credit(&mut self, permit: Permit) {
        if let Some((batch, _)) = self.stalled.take() {
            self.table.batch(self.id, batch, permit);
        }
        for slot in Slot::ALL {
            if self.stalled.is_none() {
                self.consume(slot, Octets::LeftOver);
            }
        }
    }

    fn read(&mut self, slot: Slot) {
        self.consume(slot, Octets::FromSocket);
    }

    /// Feeds octets to the FSM until there are no more or credit is short.
    fn consume(&mut self, slot: Slot, mut octets: Octets) {
        loop {
            let now = self.now();
            let Some(mut conn) = self.conns[slot.index()].take() else { return };
            let (session, batch) = (&mut self.session, &mut self.batch);
            let feed = |bytes: &[u8]| session.handle_bytes(now, slot, bytes, batch, BATCH_MAX);
            let outcome = match octets {
                Octets::FromSocket => conn.read(feed),
                Octets::LeftOver => conn.reread(feed),
            };
            match outcome {
                // The connection goes with it: the FSM asks for nothing about what is gone.
                Read::Closed(text) => self.session.handle_closed(now, slot, &text),
                Read::Data | Read::Blocked => self.conns[slot.index()] = Some(conn),
            }
            let stopped_early = self.batch.size() >= BATCH_MAX;
            self.on_actions();
            self.send_batch();
            if !stopped_early || self.stalled.is_some() {
                return;
            }
            octets = Octets::LeftOver;
        }
    }

    /// Hands the turn's routes to the table, or keeps them until there is credit.
    fn send_batch(&mut self) {
        if self.batch.is_empty() || self.stalled.is_some() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        match self.credit.try_acquire(batch.size()) {
            Some(permit) => self.table.batch(self.id, batch, permit),
            None => {
                let credit = self.credit.clone();
                let size = batch.size();
                self.stalled = Some((batch, Box::pin(async move { credit.acquire(size).await })));
            }
        }
    }

    /// Does what the FSM asked for, then writes what can be written.
    fn drain(&mut self) {
        self.on_actions();
        for slot in Slot::ALL {
            self.flush(slot);
        }
        // Writing may have failed, which the FSM was told.
        self.on_actions();
    }

    fn on_actions(&mut self) {
        let mut ended = false;
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect => {
                    let config = Arc::clone(self.session.config());
                    self.dial = Some(Box::pin(async move { dial::connect(&config).await }));
                }
                Action::AbortConnect => self.dial = None,
                Action::Close { slot, abort } => self.close(slot, abort),
                Action::Up { slot, negotiated } => {
                    ended = false;
                    self.on_up(slot, negotiated);
                }
                Action::Down { keep, reason } => {
                    ended = true;
                    self.tally.session_ended(&reason);
                    self.stalled = None;
                    self.readers = None;
                    self.conns.iter_mut().flatten().for_each(|conn| conn.readers.clear());
                    if let Some(session) = self.session_id.take() {
                        self.table.peer_down(self.id, session, keep);
                    }
                    self.lonely_until =
                        keep.map(|keep| self.now() + keep.restart_time + DYNAMIC_GRACE);
                    self.log_down();
                    let _ = self.events.send(PeerEvent::Down(self.id));
                }
                Action::Note(text) => warn!(peer = %self.name, "{text}"),
            }
        }
        if ended {
            // Routes of a session that is over; those of one that replaced it are kept.
            self.batch.clear();
        }
    }

    fn on_up(&mut self, slot: Slot, negotiated: Arc<Negotiated>) {
        info!(
            peer = %self.name,
            "session established with {} (AS {}, id {}, hold time {} s, {:?})",
            negotiated.remote_addr,
            negotiated.peer_asn,
            negotiated.peer_router_id,
            negotiated.hold_time.as_secs(),
            negotiated.families,
        );
        let mut told = negotiated;
        if told.families.iter().count() > 1 || !told.families.contains(of(told.local_addr)) {
            let other_addr = (self.beside)(told.local_addr);
            Arc::make_mut(&mut told).other_addr = other_addr;
        }
        let session = self.table.new_session();
        self.session_id = Some(session);
        self.readers = Some((slot, self.table.peer_up(self.id, session, told)));
        // Whoever hears of it looks at what was negotiated.
        self.publish();
        let _ = self.events.send(PeerEvent::Up(self.id));
    }

    fn log_down(&mut self) {
        let error = self.session.last_error().map(|error| error.text.clone());
        match &error {
            Some(text) => warn!(peer = %self.name, "session closed: {text}"),
            None => warn!(peer = %self.name, "session closed"),
        }
        self.said = error;
    }

    /// Steps towards a session for who looks closely, and for everybody why there is none.
    fn log_attempt(&mut self, before: State) {
        let state = self.session.state();
        if state != before {
            debug!(peer = %self.name, "state {before:?} to {state:?}");
        }
        if state == State::Established {
            self.said = None;
            return;
        }
        let error = self.session.last_error().map(|error| &error.text);
        if error.is_some() && error != self.said.as_ref() {
            self.said = error.cloned();
            let text = self.said.as_deref().unwrap_or_default();
            warn!(peer = %self.name, "no session: {text}; retrying, further attempts are not logged");
        }
    }

    fn flush(&mut self, slot: Slot) {
        let now = self.now();
        let Some(conn) = self.conns[slot.index()].as_mut() else { return };
        self.session.poll_transmit(slot, conn.control());
        if self.blocked[slot.index()] {
            return;
        }
        let began = std::time::Instant::now();
        let outcome = conn.flush(&self.log_waker);
        self.sent += conn.take_sent();
        if std::mem::take(&mut conn.progressed) {
            self.tally.flushed(began.elapsed());
            self.session.handle_sent(now, slot);
        }
        match outcome {
            Flush::Idle => {}
            Flush::Blocked => {
                self.session.handle_send_blocked(now, slot);
                self.blocked[slot.index()] = true;
            }
            Flush::Failed(text) => {
                self.conns[slot.index()] = None;
                self.session.handle_closed(now, slot, &text);
            }
        }
    }

    /// Ends a connection: its last control messages get a bounded time to leave.
    fn close(&mut self, slot: Slot, abort: bool) {
        let Some(mut conn) = self.conns[slot.index()].take() else { return };
        self.blocked[slot.index()] = false;
        conn.drop_updates();
        if abort {
            // Nothing may block, and nothing that is queued is of use to the peer (RFC 9687 §3).
            let _ = socket2::SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
            return;
        }
        self.session.poll_transmit(slot, conn.control());
        let _ = conn.flush_control();
        self.sent += conn.take_sent();
        self.closers.spawn(async move {
            // Errors and the time-out have the same consequence: the connection is dropped.
            let _ = tokio::time::timeout(LINGER, linger(&mut conn)).await;
        });
    }

    fn arm_timer(&mut self) {
        let mut deadline = self.session.poll_timeout().map(|(at, _)| at);
        if let Some(at) = self.lonely_until {
            deadline = Some(deadline.map_or(at, |d| d.min(at)));
        }
        // A passive peer without a connection has no deadline; its timer must not stay elapsed, because
        // the task would do nothing but look at it.
        let at = match deadline {
            Some(at) => Instant::from_std(self.table.clock().instant(at)),
            None => Instant::now() + NO_DEADLINE,
        };
        // Lazily: a deadline that moved back costs one early wake-up instead of a reset per message.
        if at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(at);
        }
    }

    fn is_over(&mut self) -> bool {
        let idle = self.conns.iter().all(Option::is_none) && self.dial.is_none();
        if !idle {
            self.lonely_until = None;
            return false;
        }
        if self.terminating {
            return true;
        }
        // A dynamic peer that is held idle for its faults must not be forgotten before it has paid.
        if self.lifetime == Lifetime::Configured || self.session.state() == State::Idle {
            self.lonely_until = None;
            return false;
        }
        let now = self.now();
        now >= *self.lonely_until.get_or_insert(now + DYNAMIC_GRACE)
    }

    fn publish(&mut self) {
        let (before, errors_differ) = self.publish_snapshot();
        if errors_differ || before != self.session.state() {
            self.log_attempt(before);
        }
    }

    /// Returns the state that was published before, and whether the last error is another.
    fn publish_snapshot(&self) -> (State, bool) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = snapshot.state;
        if snapshot.state != self.session.state() || snapshot.since != self.session.state_since() {
            snapshot.state = self.session.state();
            snapshot.since = self.session.state_since();
            snapshot.negotiated = self.session.negotiated().cloned();
            if self.session.session_since() > Time::ZERO {
                snapshot.session_since = self.session.session_since();
            }
        }
        snapshot.timers = self.session.timers();
        snapshot.deadline = self.session.poll_timeout().map(|(at, _)| at);
        let errors_differ =
            snapshot.last_error.as_ref().map(|e| e.at) != self.session.last_error().map(|e| e.at);
        if errors_differ {
            snapshot.last_error = self.session.last_error().cloned();
        }
        snapshot.stats = self.session.stats();
        snapshot.sent = self.sent;
        (before, errors_differ)
    }
}

fn of(address: IpAddr) -> Family {
    Prefix::host(address).family()
}

async fn optional<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
