//! The table's turns, and the thread that runs them.
//!
//! Most turns run on the thread. If a small batch finds the table idle, the sending task runs the
//! turn itself, and then writes to the sockets of the first few receivers ([`members`](super::members)):
//! a change reaches them without waking one thread on the way in and another on the way out, which is
//! most of the cost of a single change. The sending task holds the lock for one turn and never waits
//! for it; only the thread waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bgp_proto::export::Reader;
use bgp_proto::table::{NextHopRequest, NextTurn, Pace, Receipt, Table, TableConfig, TableEvent};
use bgp_proto::types::{SessionId, Time};
use tokio::sync::oneshot;

use super::members::Collected;
use super::monitors::{Mirror, Waiting, unix_secs};
use super::{Clock, Credit, Event, Input, Sink, Timings};
use crate::supervise::{self, fault};

/// The name of this part for the supervisor.
const PART: &str = "table";

/// Most inputs taken before a turn. Most inputs are only recorded then; queries run at once.
const INPUTS_PER_TURN: usize = 256;
/// No further input is taken once those of a turn have taken this long.
const INPUTS_TIME: Duration = Duration::from_millis(1);
/// Most FIB changes in one call of [`Sink::fib`].
const FIB_CHANGES_PER_CALL: usize = 4096;
/// The table counts as idle when its last turn ended at least this long ago. Under load, turns
/// follow each other more closely, and it is cheaper to let inputs accumulate for the thread.
const IDLE_AFTER: Duration = Duration::from_micros(200);

/// The sending end of the inbox, and the thread to wake for it.
pub(super) struct Inbox {
    inputs: Sender<Input>,
    thread: OnceLock<Thread>,
}

impl Inbox {
    pub(super) fn new(inputs: Sender<Input>) -> Self {
        Inbox { inputs, thread: OnceLock::new() }
    }

    /// Queues an input without waking the thread.
    pub(super) fn put(&self, input: Input) {
        // An error means that the table has ended, which happens only at shutdown.
        let _ = self.inputs.send(input);
    }

    /// Makes the thread check the inbox. A thread that has not started yet will do so anyway.
    pub(super) fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Wakes the table when readers have room again: one [`Input::Wake`] at a time is in the inbox,
/// however many readers there are.
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

/// What the senders of inputs see of the table.
pub(super) trait Turns: Send + Sync {
    /// Runs a turn on the caller's thread if the table is idle. Returns [`Look::Needed`] if the
    /// table was not idle, or has more to do.
    fn run_if_idle(&self) -> Look;
}

/// Whether the table's thread has to be woken to check its inbox and its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Needed,
    NotNeeded,
}

/// What the thread shares with the senders of inputs.
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) timings: Timings,
    pub(super) credit: Credit,
    pub(super) mirror: Arc<Mirror>,
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
        monitors: Waiting::new(),
        pages_left: false,
        work_left: false,
        has_stopped: false,
        offers_told: false,
        ended: Instant::now(),
        armed: None,
    });
    let shared = Arc::new(Shared { state: Mutex::new(Some(state)) });
    let turns = Arc::clone(&shared);
    let guard = supervise::part(PART);
    let run = move || {
        // A sender could not wake the thread before this; the first turn finds its inputs.
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

/// Holds the table between turns; whoever runs a turn takes it out and puts it back. Empty once the
/// table has stopped or a turn has panicked: the inbox and all pending replies are dropped with it,
/// so that no caller waits for ever.
struct Shared<S> {
    state: Mutex<Option<Box<State<S>>>>,
}

/// Runs turns until there is nothing to do. Returns how long the thread may sleep (`Some(None)`:
/// until it is woken), or `None` if the table has stopped.
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
        let members = Collected::begin();
        supervise::within(PART, || state.turn());
        let look = state.look();
        *slot = Some(state);
        drop(slot);
        members.serve();
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
    /// How much work a turn may do, from how long the last ones took.
    pace: Pace,
    /// Callers that wait for the readers of a session.
    replies: BTreeMap<SessionId, oneshot::Sender<Vec<Reader>>>,
    /// Monitoring stations that wait for a page.
    monitors: Waiting,
    /// Others of them may be answered at once.
    pages_left: bool,
    /// The last turn left work for another right after it.
    work_left: bool,
    has_stopped: bool,
    /// Whether the sink knows that offers wait.
    offers_told: bool,
    /// When the last turn ended.
    ended: Instant,
    /// The timeout for which the thread will wake by itself.
    armed: Option<Time>,
}

/// Whether a turn was taken.
#[derive(PartialEq, Eq)]
enum Turn {
    Taken,
    /// There was nothing to do, or the table has stopped.
    Idle,
}

/// Whether to take further inputs.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl<S: Sink> State<S> {
    /// Whether the thread has to be woken after a turn that another thread ran.
    fn look(&self) -> Look {
        let wakes_by = |at: Time| self.armed.is_some_and(|armed| armed <= at);
        let is_in_time = self.table.poll_timeout().is_none_or(wakes_by);
        if self.work_left || self.pages_left || self.has_stopped || !is_in_time {
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
        let is_due = is_due || self.work_left || self.pages_left;
        if self.has_stopped || !(took || is_due) {
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

    /// Takes inputs from the inbox, up to a bound. Returns whether there were any.
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
            Input::PeersConfigure(peers) => {
                peers.into_iter().for_each(|(peer, routes)| table.peer_configure(peer, routes));
            }
            Input::PeerUp { peer, session, negotiated, reply } => {
                self.replies.insert(session, reply);
                table.peer_up(peer, session, negotiated);
            }
            Input::PeerLinkLocal { peer, session, link_local } => {
                table.peer_link_local(peer, session, link_local);
            }
            Input::PeerForwardingLost { peer } => table.peer_forwarding_lost(peer),
            Input::PeerDown { peer, session, keep } => {
                // Dropping the sender ends the wait for the readers of this session.
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
            Input::BeginOffers => table.begin_offers(),
            Input::EndOffers => table.end_offers(),
            Input::OfferAgain(prefix) => table.offer_again(prefix),
            Input::TakeOffers { max, reply } => {
                self.offers_told = false;
                // The task that asked may have ended with the daemon.
                let _ = reply.send(table.take_offers(max));
            }
            Input::PeerClosing { peer, session, reason } => {
                table.note_closing(peer, session, reason);
            }
            Input::Mirrored { peer, session, message, counted } => {
                let receipt: Receipt = Some(Box::new(counted));
                table.peer_mirrored(peer, session, message, unix_secs(), receipt);
            }
            Input::MonitorBegin { monitor, params } => {
                table.monitor_begin(monitor, params);
                self.common.mirror.ask(table.is_mirroring());
            }
            Input::MonitorStatistics(monitor) => table.monitor_statistics(monitor),
            Input::MonitorPage { monitor, reply } => self.monitors.insert(monitor, reply),
            Input::MonitorEnd(monitor) => {
                self.monitors.remove(monitor);
                table.monitor_end(monitor);
                self.common.mirror.ask(table.is_mirroring());
            }
            Input::Ask(question) => question(table, now),
            Input::Wake => self.waker.pending.store(false, Ordering::Release),
            Input::Stop => return Next::Stop,
        }
        Next::Continue
    }

    /// Passes on what the turn produced. Kernel routes precede events: the table reports End-of-RIB
    /// for a peer after its routes, and [`Event::EndOfRib`] promises that they were submitted.
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
        // Before events: what a start waits for includes routes for other tables.
        if self.table.has_offers() && !self.offers_told {
            self.offers_told = true;
            self.sink.offers();
        }
        while let Some(event) = self.table.poll_event() {
            self.sink.event(match event {
                TableEvent::EndOfRib { peer, family } => Event::EndOfRib { peer, family },
                event => Event::Table(event),
            });
        }
        // Last: what peers, the kernel and the host get does not wait for it.
        let budget = self.pace.budget();
        self.pages_left = self.monitors.answer(&mut self.table, budget, self.work_left);
    }
}

#[cfg(test)]
mod tests;
