//! The table's turns, and the thread that runs them.
//!
//! Usually the thread does. A small batch that finds the table idle is worked off by whoever brings
//! it: a change then reaches its receivers without waking a thread on the way in and another on the
//! way out, which is most of what a single change costs. Whoever it is holds the lock for a turn and
//! never waits for it; only the thread waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bgp_proto::export::Reader;
use bgp_proto::table::{NextHopRequest, NextTurn, Pace, Table, TableConfig, TableEvent};
use bgp_proto::types::{SessionId, Time};
use tokio::sync::oneshot;

use super::{Clock, Credit, Event, Input, Sink, Timings};
use crate::supervise::{self, fault};

/// The table's name for the supervisor.
const PART: &str = "table";

/// Inputs taken before a turn. Most are noted and no more; questions are answered at once.
const INPUTS_PER_TURN: usize = 256;
/// No further input is taken once those of a turn have taken so long.
const INPUTS_TIME: Duration = Duration::from_millis(1);
/// FIB changes handed over at once.
const FIB_CHANGES_PER_CALL: usize = 4096;
/// The table counts as idle when its last turn ended so long ago. Under load turns follow each other
/// more closely, and inputs gather on the thread, which costs less for each.
const IDLE_AFTER: Duration = Duration::from_micros(200);

/// The inbox, and how the thread learns that something is in it.
pub(super) struct Inbox {
    inputs: Sender<Input>,
    thread: OnceLock<Thread>,
}

impl Inbox {
    pub(super) fn new(inputs: Sender<Input>) -> Self {
        Inbox { inputs, thread: OnceLock::new() }
    }

    /// Puts an input in, and wakes nobody.
    pub(super) fn put(&self, input: Input) {
        // An error means that the table has ended, which happens only on the way out.
        let _ = self.inputs.send(input);
    }

    /// Lets the thread look. A thread that has not begun looks by itself.
    pub(super) fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Readers that have room again put one [`Input::Wake`] into the inbox, however many they are.
struct InboxWaker {
    inbox: Arc<Inbox>,
    pending: AtomicBool,
}

impl Wake for InboxWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.inbox.put(Input::Wake);
            self.inbox.wake_thread();
        }
    }
}

/// The table as those see it that bring something.
pub(super) trait Turns: Send + Sync {
    /// Runs a turn on the caller's thread if the table is idle. Returns whether the table's thread
    /// has to look: the table was not idle, or is not done.
    fn run_if_idle(&self) -> Look;
}

/// Whether the table's thread has to look at the inbox and at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Needed,
    NotNeeded,
}

/// What the thread has in common with those that bring something.
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) timings: Timings,
    pub(super) credit: Credit,
}

/// Starts the thread.
pub(super) fn spawn(
    (config, seed): (Arc<TableConfig>, u64),
    common: Common,
    sink: impl Sink,
    inbox: Arc<Inbox>,
    inputs: Receiver<Input>,
) -> std::io::Result<(JoinHandle<()>, Arc<dyn Turns>)> {
    let waker = Arc::new(InboxWaker { inbox: Arc::clone(&inbox), pending: AtomicBool::new(false) });
    let table = Table::new(config, seed, Waker::from(Arc::clone(&waker)));
    let state = Box::new(State {
        table,
        inputs,
        common,
        sink,
        waker,
        pace: Pace::default(),
        replies: BTreeMap::new(),
        work_left: false,
        has_stopped: false,
        ended: Instant::now(),
        armed: None,
    });
    let shared = Arc::new(Shared { state: Mutex::new(Some(state)) });
    let turns = Arc::clone(&shared);
    let guard = supervise::part(PART);
    let run = move || {
        // Whoever put something in before could wake nobody; it is found by the first turn.
        let _ = inbox.thread.set(std::thread::current());
        while let Some(wait) = guard.run(|| run_until_idle(&shared)) {
            match wait {
                Some(wait) => std::thread::park_timeout(wait),
                None => std::thread::park(),
            }
        }
        guard.finish();
    };
    let thread = std::thread::Builder::new().name("table".into()).spawn(run)?;
    Ok((thread, turns))
}

/// Where whoever runs a turn takes the table from. Empty once the table has stopped, or a turn has
/// panicked: what is in the inbox, and what it would have answered, is dropped with it.
struct Shared<S> {
    state: Mutex<Option<Box<State<S>>>>,
}

/// Runs turns until there is nothing to do. Returns how long the thread may sleep, unless the table
/// is no more.
fn run_until_idle<S: Sink>(shared: &Shared<S>) -> Option<Option<Duration>> {
    let mut slot = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = slot.take()?;
    while state.turn() == Turn::Taken {}
    if state.has_stopped {
        return None;
    }
    state.armed = state.table.poll_timeout();
    let now = state.common.clock.now();
    let wait = state.armed.map(|at| at.since(now).max(Duration::from_micros(1)));
    *slot = Some(state);
    Some(wait)
}

impl<S: Sink> Turns for Shared<S> {
    fn run_if_idle(&self) -> Look {
        let Ok(mut slot) = self.state.try_lock() else { return Look::Needed };
        let is_idle = |state: &mut Box<State<S>>| state.ended.elapsed() >= IDLE_AFTER;
        let Some(mut state) = slot.take_if(is_idle) else { return Look::Needed };
        supervise::within(PART, || state.turn());
        let look = state.look();
        *slot = Some(state);
        look
    }
}

/// The table and what its turns need.
struct State<S> {
    table: Table,
    inputs: Receiver<Input>,
    common: Common,
    sink: S,
    waker: Arc<InboxWaker>,
    /// What a turn may do.
    pace: Pace,
    /// Who waits for the readers of a session.
    replies: BTreeMap<SessionId, oneshot::Sender<Vec<Reader>>>,
    /// The last turn left work for one right behind it.
    work_left: bool,
    has_stopped: bool,
    /// When the last turn ended.
    ended: Instant,
    /// When the thread wakes by itself.
    armed: Option<Time>,
}

/// What became of a turn.
#[derive(PartialEq, Eq)]
enum Turn {
    Taken,
    /// There was nothing to do, or the table has stopped.
    Idle,
}

/// Whether inputs are taken further.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl<S: Sink> State<S> {
    /// Whether the thread has to look, after a turn that another one ran.
    fn look(&self) -> Look {
        let wakes_by = |at: Time| self.armed.is_some_and(|armed| armed <= at);
        let is_in_time = self.table.poll_timeout().is_none_or(wakes_by);
        if self.work_left || self.has_stopped || !is_in_time {
            Look::Needed
        } else {
            Look::NotNeeded
        }
    }

    /// One turn, if there is anything to do.
    fn turn(&mut self) -> Turn {
        if self.has_stopped {
            return Turn::Idle;
        }
        fault::point(PART);
        let took = self.take_inputs();
        let now = self.common.clock.now();
        let is_due = self.table.poll_timeout().is_some_and(|at| at <= now);
        if self.has_stopped || !(took || is_due || self.work_left) {
            return Turn::Idle;
        }
        let began = Instant::now();
        self.table.set_host_octets(self.common.credit.waiting() as u64);
        let progress = self.table.turn(now, self.pace.budget());
        let took = began.elapsed();
        self.pace.learn(progress.done, took);
        self.common.timings.turned(&progress, took);
        self.work_left = progress.next == NextTurn::Now;
        self.pass_on();
        self.ended = Instant::now();
        Turn::Taken
    }

    /// Takes what is in the inbox, up to a bound; whether there was anything.
    fn take_inputs(&mut self) -> bool {
        let began = Instant::now();
        let mut taken = 0;
        while taken < INPUTS_PER_TURN
            && (taken % 16 > 0 || began.elapsed() < INPUTS_TIME)
            && let Ok(input) = self.inputs.try_recv()
        {
            taken += 1;
            if self.handle(input) == Next::Stop {
                self.has_stopped = true;
                break;
            }
        }
        taken > 0
    }

    fn handle(&mut self, input: Input) -> Next {
        let now = self.common.clock.now();
        let table = &mut self.table;
        match input {
            Input::Configure(config) => table.configure(config),
            Input::PeerAdd { peer, address, routes } => table.peer_add(peer, address, routes),
            Input::PeerConfigure { peer, routes } => table.peer_configure(peer, routes),
            Input::PeerUp { peer, session, negotiated, reply } => {
                self.replies.insert(session, reply);
                table.peer_up(peer, session, negotiated);
            }
            Input::PeerForwardingLost { peer } => table.peer_forwarding_lost(peer),
            Input::PeerDown { peer, session, keep } => {
                // Nobody waits for readers of a session that is over.
                self.replies.remove(&session);
                table.peer_down(peer, session, keep);
            }
            Input::PeerRemove { peer } => table.peer_remove(peer),
            Input::Batch { peer, batch, permit } => {
                table.apply(peer, batch, Some(Box::new(permit)));
            }
            Input::Local { prefix, source, route } => {
                table.handle_local(now, prefix, source, route);
            }
            Input::NextHop { addr, state } => table.handle_next_hop(addr, state),
            Input::DeferExport => table.defer_export(),
            Input::ReleaseExport => table.release_export(),
            Input::Tunnels(tunnels) => table.handle_tunnels(tunnels),
            Input::Ask(question) => question(table, now),
            Input::Wake => self.waker.pending.store(false, Ordering::Release),
            Input::Stop => return Next::Stop,
        }
        Next::Continue
    }

    /// Hands out what the turn produced.
    fn pass_on(&mut self) {
        while let Some(established) = self.table.poll_established() {
            if let Some(reply) = self.replies.remove(&established.session) {
                // A connection that ended meanwhile dropped the receiver; `PeerDown` follows.
                let _ = reply.send(established.readers);
            }
        }
        for request in self.table.poll_next_hops() {
            match request {
                NextHopRequest::Track(addr) => self.sink.track(addr),
                NextHopRequest::Untrack(addr) => self.sink.untrack(addr),
            }
        }
        loop {
            let changes = self.table.poll_fib(FIB_CHANGES_PER_CALL);
            if changes.is_empty() {
                break;
            }
            self.sink.fib(changes);
        }
        while let Some(event) = self.table.poll_event() {
            self.sink.event(match event {
                TableEvent::EndOfRib { peer, family } => Event::EndOfRib { peer, family },
                event => Event::Table(event),
            });
        }
    }
}

#[cfg(test)]
mod tests;
