//! The loop of the table's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bgp_proto::table::{NextHopRequest, Table, TableConfig};
use bgp_proto::types::{Family, PeerId, Time};
use bgp_proto::wire::RouteAction;

use super::{Clock, Event, Input, Sink, Timings};

/// Inputs taken before the table finishes a turn.
const INPUTS_PER_TURN: usize = 256;
/// Octets of route batches taken before the table finishes a turn: a full table goes out while it
/// still arrives, and whoever reads it works beside the table instead of after it.
const OCTETS_PER_TURN: usize = 256 << 10;
/// FIB changes handed over at once.
const FIB_CHANGES_PER_CALL: usize = 4096;

/// Readers that have room again put one [`Input::Wake`] into the inbox, however many they are.
struct InboxWaker {
    inbox: Sender<Input>,
    pending: AtomicBool,
}

impl Wake for InboxWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = self.inbox.send(Input::Wake);
        }
    }
}

pub(super) fn spawn(
    config: Arc<TableConfig>,
    seed: u64,
    clock: Clock,
    sink: impl Sink,
    timings: Timings,
    inbox: Sender<Input>,
    receiver: Receiver<Input>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let waker = Arc::new(InboxWaker { inbox, pending: AtomicBool::new(false) });
    std::thread::Builder::new().name("table".into()).spawn(move || {
        let table = Table::new(config, seed, Waker::from(Arc::clone(&waker)));
        let mut turn =
            Turns { table, clock, sink, timings, waker, octets: 0, end_of_rib: Vec::new() };
        turn.run(&receiver);
    })
}

struct Turns<S> {
    table: Table,
    clock: Clock,
    sink: S,
    timings: Timings,
    waker: Arc<InboxWaker>,
    /// Octets of route batches applied in this turn.
    octets: usize,
    /// End-of-RIB markers applied in this turn, reported once their routes are on their way.
    end_of_rib: Vec<(PeerId, Family)>,
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl<S: Sink> Turns<S> {
    fn run(&mut self, inbox: &Receiver<Input>) {
        let mut work_left = false;
        loop {
            if self.take_inputs(inbox, work_left) == Next::Stop {
                return;
            }
            let now = self.clock.now();
            if self.table.poll_timeout().is_some_and(|at| at <= now) {
                self.table.handle_timeout(now);
            }
            work_left = self.finish(now);
            self.pass_on();
        }
    }

    /// [`Table::finish`], timed.
    fn finish(&mut self, now: Time) -> bool {
        let began = Instant::now();
        let touched = self.table.finish_decision(now);
        let decided = Instant::now();
        let more = self.table.finish_export(now);
        if touched > 0 {
            self.timings.decided(decided - began);
        }
        if touched > 0 || more {
            self.timings.exported(decided.elapsed());
        }
        more
    }

    /// Waits for the first input (not at all while work is left), then takes what else is there.
    fn take_inputs(&mut self, inbox: &Receiver<Input>, work_left: bool) -> Next {
        let first = if work_left {
            inbox.try_recv().ok()
        } else {
            match self.table.poll_timeout() {
                None => match inbox.recv() {
                    Ok(input) => Some(input),
                    Err(_) => return Next::Stop,
                },
                Some(at) => {
                    let wait = at.since(self.clock.now()).max(Duration::from_micros(1));
                    match inbox.recv_timeout(wait) {
                        Ok(input) => Some(input),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return Next::Stop,
                    }
                }
            }
        };
        let Some(first) = first else { return Next::Continue };
        self.octets = 0;
        let began = Instant::now();
        // Questions and wake-ups change nothing, and would fill the histogram with zeroes.
        let mut changes = first.is_change();
        if self.handle(first) == Next::Stop {
            return Next::Stop;
        }
        for _ in 1..INPUTS_PER_TURN {
            if self.octets >= OCTETS_PER_TURN {
                break;
            }
            let Ok(input) = inbox.try_recv() else { break };
            changes |= input.is_change();
            if self.handle(input) == Next::Stop {
                return Next::Stop;
            }
        }
        if changes {
            self.timings.applied(began);
        }
        Next::Continue
    }

    fn handle(&mut self, input: Input) -> Next {
        let now = self.clock.now();
        let table = &mut self.table;
        match input {
            Input::Configure(config) => table.configure(now, config),
            Input::PeerAdd { peer, address, routes } => table.peer_add(peer, address, routes),
            Input::PeerConfigure { peer, routes } => table.peer_configure(now, peer, routes),
            Input::PeerUp { peer, negotiated, reply } => {
                // A connection that ended meanwhile dropped the receiver; `PeerDown` follows.
                let _ = reply.send(table.peer_up(now, peer, negotiated));
            }
            Input::PeerDown { peer, keep } => table.peer_down(now, peer, keep),
            Input::PeerRemove { peer } => table.peer_remove(now, peer),
            Input::Batch { peer, batch, permit } => {
                table.apply(now, peer, &batch);
                self.octets += batch.size();
                drop(permit);
                self.end_of_rib.extend(
                    batch
                        .entries()
                        .iter()
                        .filter(|entry| entry.action == RouteAction::EndOfRib)
                        .map(|entry| (peer, entry.family)),
                );
            }
            Input::Local { prefix, source, route } => {
                table.handle_local(now, prefix, source, route);
            }
            Input::NextHop { addr, state } => table.handle_next_hop(now, addr, state),
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
            self.sink.event(Event::Table(event));
        }
        // A peer may repeat the marker as often as it likes: one report per turn is enough.
        self.end_of_rib.sort_unstable();
        self.end_of_rib.dedup();
        for (peer, family) in self.end_of_rib.drain(..) {
            self.sink.event(Event::EndOfRib { peer, family });
        }
    }
}
