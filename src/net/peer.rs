//! One task per peer: the FSM, its connections, its timer, its position in the update log.
//!
//! Submodules: `connections` (octets in and out), `report` (snapshot and log lines), `rollover` (keys of
//! TCP-AO), `recorded` (what MRT files say of the session), `life` (restarting the task after a panic).

mod connections;
mod hints;
mod life;
mod recorded;
mod report;
mod rollover;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bgp_proto::export::Reader;
use bgp_proto::session::{Action, Command, Negotiated, Peer, Slot, State, Stats, Timers};
use bgp_proto::types::{Family, PeerId, Prefix, Time};
use bgp_proto::wire::RouteAction;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use tracing::warn;

use super::allowance::Allowance;
use super::closers::Closers;
use super::conn::{Conn, readable, writable};
use super::debug::Debug;
use super::dial;
use super::grace::Grace;
use super::handle::{
    FindOtherAddresses, Lifetime, OwnedMailbox, PeerEvent, PeerHandle, PeerSnapshot, PeerSpec,
    RestartState,
};
use super::mailbox::{Mail, Mailbox, Orders};
use super::outlet::{Sent, SentTotals, Served};
use super::shutdown::AdminShutdown;
use super::signature_drops::SignatureDrops;
use super::stream::{Batch, HandOver, Stream};
use crate::engine::{Handle, Permit};
use crate::mrt::Tap;

/// Octets of routes after which a batch is sent to the table.
const BATCH_MAX: usize = 512 * 1024;
/// How long a task sleeps if it has no deadline.
const NO_DEADLINE: Duration = Duration::from_secs(86_400);
/// How much a task may do, in octets read, before it yields to other tasks, timers and sockets of
/// its thread.
const TURN_MAX: usize = 128 * 1024;
/// The cost of one wake-up, in octets read.
const WAKEUP_COST: usize = 2048;

/// Starts a peer's task, which starts its session.
pub fn spawn_peer(
    spec: PeerSpec,
    table: Handle,
    events: mpsc::UnboundedSender<PeerEvent>,
) -> PeerHandle {
    let mailbox = Arc::new(Mailbox::default());
    let session = Peer::new(Arc::clone(&spec.config), spec.seed);
    let snapshot = Arc::new(Mutex::new(PeerSnapshot {
        state: session.state(),
        since: table.clock().now(),
        session_since: table.clock().now(),
        timers: Timers::default(),
        deadline: None,
        session: None,
        negotiated: None,
        last_error: None,
        last_bgp_error: None,
        fault: None,
        stats: Stats::default(),
        sent: Sent::default(),
        connection: Weak::new(),
    }));
    let sent = Arc::new(SentTotals::default());
    let served = Arc::new(Served {
        ready: Notify::new(),
        debug: spec.debug.clone(),
        clock: table.clock(),
        session_counters: spec.session_counters,
        sent: Arc::clone(&sent),
    });
    let mut task = PeerTask {
        id: spec.id,
        name: spec.name,
        lifetime: spec.lifetime,
        recovery: spec.recovery,
        beside: spec.beside,
        shutdown: spec.shutdown,
        debug: Debug::new(spec.debug.clone()),
        tap: Tap::new(spec.recorder),
        seed: spec.seed,
        stats_before: Stats::default(),
        session,
        conns: [None, None, None],
        early: None,
        blocked: [false; 3],
        dial: None,
        drops: None,
        dials_failed: 0,
        keys_due: None,
        keys_fault: None,
        stream: Stream::new(spec.id, table),
        readers: None,
        served,
        mailbox: Arc::clone(&mailbox),
        events,
        snapshot: Arc::clone(&snapshot),
        closers: Closers::default(),
        terminating: false,
        grace: Grace::default(),
        said: Vec::new(),
        allowance: Allowance::new(),
        rests_until: None,
        spent: 0,
        timer: Box::pin(tokio::time::sleep(NO_DEADLINE)),
    };
    let mailbox = Arc::new(OwnedMailbox(mailbox));
    let handle = PeerHandle { id: task.id, mailbox, snapshot, sent, debug: spec.debug };
    // By reference: the future of an `async fn` that takes a value holds it twice.
    tokio::spawn(async move { task.live().await });
    handle
}

type Dial = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

struct PeerTask {
    id: PeerId,
    name: Arc<str>,
    lifetime: Lifetime,
    recovery: RestartState,
    beside: FindOtherAddresses,
    shutdown: AdminShutdown,
    debug: Debug,
    /// Records its messages.
    tap: Tap,
    seed: u64,
    /// The counters of state machines that ended by a panic, so that no counter ever falls.
    stats_before: Stats,
    session: Peer,
    conns: [Option<Box<Conn>>; 3],
    /// A connection from the peer while its connections are paced: used when its time has come.
    early: Option<TcpStream>,
    /// TCP accepts no more octets on the connection in this slot.
    blocked: [bool; 3],
    dial: Option<Dial>,
    /// The counters of the kernel when the dialling began.
    drops: Option<SignatureDrops>,
    /// Attempts to connect in a row that have led to no session.
    dials_failed: usize,
    /// When [`PeerTask::review_keys`] is next due.
    keys_due: Option<Time>,
    /// Why the keys of a connection could not be changed.
    keys_fault: Option<String>,
    stream: Stream,
    readers: Option<(Slot, oneshot::Receiver<Vec<Reader>>)>,
    /// What its connections share with threads that write for it.
    served: Arc<Served>,
    mailbox: Arc<Mailbox>,
    events: mpsc::UnboundedSender<PeerEvent>,
    snapshot: Arc<Mutex<PeerSnapshot>>,
    closers: Closers,
    terminating: bool,
    /// When a dynamic peer without a connection is removed.
    grace: Grace,
    /// The reasons why there is no session that were logged since there was one; each is logged
    /// once.
    said: Vec<String>,
    allowance: Allowance,
    /// Until when reading is paused; see [`Allowance`].
    rests_until: Option<Time>,
    /// How much was done since the task last yielded; see [`TURN_MAX`].
    spent: usize,
    timer: Pin<Box<Sleep>>,
}

/// What woke the task.
enum Wakeup {
    Mail,
    Timer,
    Readable(Slot),
    Writable(Slot),
    Log,
    Dialled(std::io::Result<TcpStream>),
    Readers(Result<Vec<Reader>, oneshot::error::RecvError>),
    Credit(Permit),
}

/// Whether a slot has octets left that TCP would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    Done,
    More,
}

impl PeerTask {
    /// Runs until the peer is removed.
    async fn run(&mut self) {
        if !self.shutdown.is_set() {
            self.command(Command::Start);
        }
        // Mail that arrived during the pause after a panic.
        self.on_mail();
        self.take_early();
        loop {
            let drained = self.drain();
            self.publish();
            if self.is_over() {
                break;
            }
            self.arm_timer();
            if drained == Drained::More || self.spent >= TURN_MAX {
                self.spent = 0;
                tokio::task::yield_now().await;
            }
            if drained == Drained::More {
                continue;
            }
            let wakeup = self.wait().await;
            self.spent += WAKEUP_COST;
            match wakeup {
                Wakeup::Mail => self.on_mail(),
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
        self.closers.finish().await;
    }

    fn now(&self) -> Time {
        self.stream.table().clock().now()
    }

    /// Waits for the next event, the most urgent kind first. Reading precedes writing, because a
    /// NOTIFICATION that explains why a write fails may be waiting to be read.
    async fn wait(&mut self) -> Wakeup {
        let reading = !self.stream.is_stalled() && self.rests_until.is_none();
        let [outgoing, incoming, reconnect] = &self.conns;
        let [out_blocked, in_blocked, re_blocked] = self.blocked;
        tokio::select! {
            biased;
            () = &mut self.timer => Wakeup::Timer,
            () = self.mailbox.arrival() => Wakeup::Mail,
            permit = self.stream.credit() => Wakeup::Credit(permit),
            readers = optional(self.readers.as_mut().map(|(_, receiver)| receiver)) => {
                Wakeup::Readers(readers)
            }
            result = optional(self.dial.as_mut()) => Wakeup::Dialled(result),
            () = readable(outgoing, reading) => Wakeup::Readable(Slot::Outgoing),
            () = readable(incoming, reading) => Wakeup::Readable(Slot::Incoming),
            () = readable(reconnect, reading) => Wakeup::Readable(Slot::Reconnect),
            () = writable(outgoing, out_blocked) => Wakeup::Writable(Slot::Outgoing),
            () = writable(incoming, in_blocked) => Wakeup::Writable(Slot::Incoming),
            () = writable(reconnect, re_blocked) => Wakeup::Writable(Slot::Reconnect),
            () = self.served.ready.notified() => Wakeup::Log,
        }
    }

    fn on_mail(&mut self) {
        let Mail { mut connections, orders } = self.mailbox.take();
        // Of several waiting connections, only the newest is one that the peer still uses.
        if let Some(newest) = connections.pop_back() {
            self.early = Some(newest);
        }
        self.on_orders(orders);
    }

    fn on_orders(&mut self, orders: Orders) {
        #[cfg(test)]
        assert!(!orders.panic, "injected");
        let Orders { rename, timers, end, operator, bfd, bfd_failure, .. } = orders;
        let Orders { refresh, resend, dial, terminate, .. } = orders;
        if let Some(name) = rename {
            self.name = name;
        }
        if let Some(config) = timers {
            // Of several changes that were put in one after the other only the last one is here, and a
            // key's id may have left the chain and come back as that of another key.
            if let Err(config) = self.session.set_timers(config) {
                self.catch_up();
                let now = self.now();
                self.session.replace(now, config);
                // Its connection has keys of its own.
                self.on_actions();
            }
            self.review_keys();
        }
        if let Some((_, close)) = end.filter(|(session, _)| self.stream.is_current(*session)) {
            self.catch_up();
            self.command(Command::Restart(close));
        }
        // The session may have come up after the daemon looked for one to end.
        if let Some(close) = bfd_failure {
            self.catch_up();
            self.command(Command::FailBfd(close));
        }
        if let Some(path) = bfd {
            self.command(Command::SetBfd(path));
        }
        if let Some(command) = operator {
            self.catch_up();
            let is_stop = matches!(command, Command::Stop(_));
            self.command(command);
            if is_stop {
                // It is not to return: what is retained for its restart, perhaps for days (RFC 9494), is
                // withdrawn. The end of a session reaches the table first.
                self.on_actions();
                self.stream.table().peer_forwarding_lost(self.id);
            }
        }
        for family in refresh.iter() {
            self.command(Command::RequestRefresh(family));
        }
        for family in resend.iter() {
            self.resend(family);
        }
        if dial {
            self.command(Command::Dial);
        }
        if let Some(close) = terminate {
            self.terminating = true;
            self.catch_up();
            self.command(Command::Stop(close));
        }
    }

    /// Advertises all our routes of a family again, as if the peer had sent a ROUTE-REFRESH.
    fn resend(&mut self, family: Family) {
        if self.session.negotiated().is_some_and(|n| n.families.contains(family)) {
            self.stream.batch.push_marker(family, RouteAction::RefreshRequest);
            self.stream.hand_over(HandOver::WithinCredit);
        }
    }

    fn command(&mut self, command: Command) {
        self.session.handle_command(self.now(), command);
    }

    /// Uses a paced connection when its time has come. A peer that keeps connecting in vain is made
    /// to wait with its newest connection instead of being refused: after a refusal, many speakers
    /// wait for minutes.
    fn take_early(&mut self) {
        if self.early.is_some() {
            // A session that has just ended still has its connection and a NOTIFICATION to send:
            // the new connection must not take the slot before the actions for that are carried
            // out.
            self.on_actions();
        }
        if self.early.is_some()
            && self.session.paced_until(self.now()).is_none()
            && let Some(stream) = self.early.take()
        {
            self.on_stream(self.session.incoming_slot(), stream);
        }
    }

    /// A deadline has passed. The sockets are read first: octets that already wait there prove that
    /// the peer is alive, and that they were not read yet is our own delay.
    fn on_timer(&mut self) {
        if self.rests_until.is_some_and(|at| at <= self.now()) {
            self.rests_until = None;
        }
        if self.keys_due.is_some_and(|at| at <= self.now()) {
            self.review_keys();
        }
        for slot in Slot::ALL {
            if !self.stream.is_stalled() && self.conns[slot.index()].is_some() {
                self.read(slot);
                self.on_actions();
            }
        }
        let now = self.now();
        self.end_unanswered_dial(now);
        let silence = self.silence_at(now);
        if self.stream.is_stalled() {
            Slot::ALL.into_iter().for_each(|slot| self.session.handle_alive(now, slot));
            // The session may end all the same: because another connection replaces it, or because
            // the send hold timer expires. Routes that wait for credit must come before that end.
            let is_alone = self.conns.iter().flatten().count() < 2;
            let due = self.session.poll_timeout().filter(|(at, _)| *at <= now);
            if due.is_some_and(|(_, timer)| !is_alone || timer == "send hold") {
                self.catch_up();
            }
        }
        self.session.handle_timeout(now);
        if let Some(silence) = silence {
            self.note_silence(now, silence);
        }
    }

    fn on_dialled(&mut self, result: std::io::Result<TcpStream>) {
        self.dial = None;
        match result {
            Ok(stream) => self.on_stream(Slot::Outgoing, stream),
            Err(e) => {
                let text = dial::describe(&e, self.session.config());
                self.session.handle_connect_failed(self.now(), &text);
            }
        }
    }

    fn on_readers(&mut self, readers: Result<Vec<Reader>, oneshot::error::RecvError>) {
        let Some((slot, _)) = self.readers.take() else { return };
        if let (Ok(readers), Some(conn)) = (readers, &self.conns[slot.index()]) {
            conn.output().set_readers(readers);
        }
    }

    fn on_credit(&mut self, permit: Permit) {
        self.stream.on_credit(permit);
        for slot in Slot::ALL {
            if !self.stream.is_stalled() {
                self.consume_left_over(slot);
            }
        }
    }

    /// Carries out the actions that the FSM requested.
    fn on_actions(&mut self) {
        let mut actions = Vec::new();
        while let Some(action) = self.session.poll_action() {
            actions.push(action);
        }
        // All routes of the batch came on one connection. If its session replaced another one in
        // this turn, they belong to the new session and must survive the end of the old one.
        let last_up = actions.iter().rposition(|action| matches!(action, Action::Up { .. }));
        for (at, action) in actions.into_iter().enumerate() {
            match action {
                Action::Connect => {
                    let config = Arc::clone(self.session.config());
                    self.drops = SignatureDrops::recent();
                    let failures = self.dials_failed;
                    // Later, the failure of the previous attempt says it.
                    if failures == 0 {
                        self.note_out_of_reach();
                    }
                    self.dials_failed += 1;
                    self.dial =
                        Some(Box::pin(async move { dial::connect(&config, failures).await }));
                }
                Action::AbortConnect => self.dial = None,
                Action::Close { slot, abort } => self.close(slot, abort),
                Action::Up { slot, negotiated } => self.on_up(slot, negotiated),
                Action::Down { keep, reason } => {
                    self.served.session_counters.session_ended(&reason);
                    self.readers = None;
                    self.conns
                        .iter()
                        .flatten()
                        .for_each(|conn| conn.output().set_readers(Vec::new()));
                    let batch = if last_up.is_some_and(|up| up > at) {
                        Batch::OfTheNext
                    } else {
                        Batch::OfThisSession
                    };
                    self.stream.closing(&reason);
                    self.stream.down(keep, batch);
                    self.grace.keep_until(keep.map(|keep| self.now() + keep.longest()));
                    self.log_down(&reason, keep.as_ref());
                    let _ = self.events.send(PeerEvent::Down(self.id));
                }
                Action::Faulty(message) => self.stream.faulty(message),
                Action::Note(text) => warn!(peer = %self.name, "{text}"),
            }
        }
    }

    fn on_up(&mut self, slot: Slot, negotiated: Arc<Negotiated>) {
        self.log_up(&negotiated);
        self.dials_failed = 0;
        let mut told = negotiated;
        let has_both = told.families.iter().count() > 1;
        let needs_other = has_both || !told.families.contains(of(told.local_addr));
        // As BIRD has it: a session that may cross routers gets the global address alone.
        let is_on_link = self.session.config().is_single_hop();
        if needs_other || is_on_link {
            let others = (self.beside)(told.local_addr, told.remote_addr);
            let negotiated = Arc::make_mut(&mut told);
            negotiated.other_addr = others.other_family.filter(|_| needs_other);
            negotiated.link_local = others.link_local.filter(|_| is_on_link);
        }
        self.show_connection(slot);
        self.readers = Some((slot, self.stream.up(told)));
        self.grace.keep_until(None);
        // Receivers of this event read the negotiated parameters from the snapshot.
        self.publish();
        let _ = self.events.send(PeerEvent::Up(self.id));
    }

    fn arm_timer(&mut self) {
        let session = self.session.poll_timeout().map(|(at, _)| at);
        let early = self.early.as_ref().and_then(|_| self.session.paced_until(self.now()));
        let deadlines = [session, self.grace.ends(), early, self.rests_until, self.keys_due];
        // A passive peer without a connection has no deadline. Its timer must not stay elapsed, or
        // the task would spin on it.
        let at = match deadlines.into_iter().flatten().min() {
            Some(at) => Instant::from_std(self.stream.table().clock().instant(at)),
            None => Instant::now() + NO_DEADLINE,
        };
        // A deadline that moved later is left alone: one early wake-up is cheaper than resetting
        // the timer for every message.
        if at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(at);
        }
    }

    fn is_over(&mut self) -> bool {
        let idle = self.conns.iter().all(Option::is_none) && self.dial.is_none();
        if idle && self.terminating {
            return true;
        }
        // A dynamic peer that is held idle because of a limit must not be removed, or its next
        // connection would escape the idle time.
        if !idle || self.lifetime == Lifetime::Configured || self.session.state() == State::Idle {
            self.grace.end_solitude();
            return false;
        }
        self.grace.is_over(self.now())
    }
}

fn of(address: std::net::IpAddr) -> Family {
    Prefix::host(address).family()
}

async fn optional<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
