//! The table's thread: its inbox, its loop, and the handle that everybody else talks to it through.
//!
//! [`bgp_proto::table::Table`] has an inbox, and is touched by nothing but turns: what is there is
//! taken, the table finishes the turn, and what came out is passed on. Turns run on the table's
//! thread, one at a time; see [`thread`] for the one exception, a small batch that finds the table
//! idle. Route batches are bounded in octets (see [`flow`]): a peer without credit stops reading and
//! TCP pushes back. Everything else in the inbox is bounded by the number of peers, of tracked next
//! hops and of control clients.

mod clock;
mod flow;
mod thread;
mod timings;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use bgp_proto::export::Reader;
use bgp_proto::policy::Source;
use bgp_proto::rib::NextHopState;
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::table::{LocalRoute, PeerRoutes, Table, TableConfig, TableEvent};
use bgp_proto::types::{Family, FibChange, PeerId, Prefix, SessionId, Time};
use bgp_proto::wire::RouteBatch;
use tokio::sync::oneshot;

pub use clock::Clock;
pub use flow::{Counted, Credit, PeerCredit, Permit};
use thread::{Inbox, Look, Turns};
pub use timings::Timings;

/// Batches up to so many octets may be worked off by whoever brings them: a few changes, and not a
/// piece of a table.
const SMALL_BATCH: usize = 1024;

/// What the table's thread tells the host.
#[derive(Debug)]
pub enum Event {
    /// From the table itself.
    Table(TableEvent),
    /// A peer sent End-of-RIB, and every route before it has gone through the table and was
    /// submitted to the kernel's writer.
    EndOfRib {
        /// The peer that sent it.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
}

/// Where the table's results go besides peers. Implementations must not block.
pub trait Sink: Send + 'static {
    /// The kernel should hold this.
    fn fib(&mut self, changes: Vec<(Prefix, FibChange)>);
    /// Resolve this next hop and report its changes.
    fn track(&mut self, addr: IpAddr);
    /// No path uses it.
    fn untrack(&mut self, addr: IpAddr);
    /// Something that the host should know.
    fn event(&mut self, event: Event);
}

/// A question to the table, asked on its thread between two turns. It must be short: a page.
type Question = Box<dyn FnOnce(&Table, Time) + Send>;

enum Input {
    Configure(Arc<TableConfig>),
    PeerAdd {
        peer: PeerId,
        address: IpAddr,
        routes: Arc<PeerRoutes>,
    },
    PeerConfigure {
        peer: PeerId,
        routes: Arc<PeerRoutes>,
    },
    PeerUp {
        peer: PeerId,
        session: SessionId,
        negotiated: Arc<Negotiated>,
        reply: oneshot::Sender<Vec<Reader>>,
    },
    PeerForwardingLost {
        peer: PeerId,
    },
    PeerDown {
        peer: PeerId,
        session: SessionId,
        keep: Option<Keep>,
    },
    PeerRemove {
        peer: PeerId,
    },
    Batch {
        peer: PeerId,
        batch: RouteBatch,
        permit: Permit,
    },
    Local {
        prefix: Prefix,
        source: Source,
        route: Option<LocalRoute>,
    },
    NextHop {
        addr: IpAddr,
        state: NextHopState,
    },
    DeferExport,
    ReleaseExport,
    Tunnels(BTreeMap<Arc<str>, u32>),
    Ask(Question),
    Wake,
    Stop,
}

/// The way to the table's thread. Sending never blocks; after the thread has ended it does nothing.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
    turns: Arc<dyn Turns>,
    credit: Credit,
    clock: Clock,
    timings: Timings,
    sessions: Arc<AtomicU64>,
}

impl Handle {
    /// The process's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How long the thread takes for what.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Octets of route batches that the table has not applied yet.
    pub fn waiting_octets(&self) -> usize {
        self.credit.held()
    }

    /// Credit for one peer's route batches.
    pub fn peer_credit(&self) -> PeerCredit {
        self.credit.peer()
    }

    /// Replaces the table's configuration.
    pub fn configure(&self, config: Arc<TableConfig>) {
        self.send(Input::Configure(config));
    }

    /// A peer exists.
    pub fn peer_add(&self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        self.send(Input::PeerAdd { peer, address, routes });
    }

    /// New routing parameters for a peer.
    pub fn peer_configure(&self, peer: PeerId, routes: Arc<PeerRoutes>) {
        self.send(Input::PeerConfigure { peer, routes });
    }

    /// A number for a session that no other session of this process has.
    pub fn new_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// A session is established; the readers of its families come back.
    pub fn peer_up(
        &self,
        peer: PeerId,
        session: SessionId,
        negotiated: Arc<Negotiated>,
    ) -> oneshot::Receiver<Vec<Reader>> {
        let (reply, readers) = oneshot::channel();
        self.send(Input::PeerUp { peer, session, negotiated, reply });
        readers
    }

    /// A session is over. Routes that were handed over before reach the table before its end.
    pub fn peer_down(&self, peer: PeerId, session: SessionId, keep: Option<Keep>) {
        self.send(Input::PeerDown { peer, session, keep });
    }

    /// Nothing is forwarded through a peer any more: what is kept for its restart goes.
    pub fn peer_forwarding_lost(&self, peer: PeerId) {
        self.send(Input::PeerForwardingLost { peer });
    }

    /// A peer was removed.
    pub fn peer_remove(&self, peer: PeerId) {
        self.send(Input::PeerRemove { peer });
    }

    /// Route events of a peer; `permit` comes from its credit.
    pub fn batch(&self, peer: PeerId, batch: RouteBatch, permit: Permit) {
        let is_small = batch.size() <= SMALL_BATCH;
        self.inbox.put(Input::Batch { peer, batch, permit });
        if !is_small || self.turns.run_if_idle() == Look::Needed {
            self.inbox.wake_thread();
        }
    }

    /// Nothing is advertised until [`Handle::release_export`] (RFC 4724 §4.1).
    pub fn defer_export(&self) {
        self.send(Input::DeferExport);
    }

    /// Routes are advertised from here on.
    pub fn release_export(&self) {
        self.send(Input::ReleaseExport);
    }

    /// A route of our own appears, changes or goes.
    pub fn local(&self, prefix: Prefix, source: Source, route: Option<LocalRoute>) {
        self.send(Input::Local { prefix, source, route });
    }

    /// A tracked next hop resolves differently.
    pub fn next_hop(&self, addr: IpAddr, state: NextHopState) {
        self.send(Input::NextHop { addr, state });
    }

    /// The tunnel interfaces that exist, by name.
    pub fn tunnels(&self, tunnels: BTreeMap<Arc<str>, u32>) {
        self.send(Input::Tunnels(tunnels));
    }

    /// Asks the table on its own thread; `None` if the thread has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Table, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Ask(Box::new(move |table, now| {
            // The client may have disconnected: then nobody needs the answer.
            let _ = reply.send(question(table, now));
        })));
        answer.await.ok()
    }

    /// Ends the thread after what is in the inbox.
    pub fn stop(&self) {
        self.send(Input::Stop);
    }

    fn send(&self, input: Input) {
        self.inbox.put(input);
        self.inbox.wake_thread();
    }
}

/// The running thread.
pub struct Engine {
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

impl Engine {
    /// Starts the thread with an empty table. `seed` should come from the operating system.
    pub fn start(
        config: Arc<TableConfig>,
        seed: u64,
        clock: Clock,
        sink: impl Sink,
    ) -> std::io::Result<Engine> {
        let (sender, inputs) = mpsc::channel();
        let inbox = Arc::new(Inbox::new(sender));
        let credit = Credit::new();
        let timings = Timings::new();
        let table = (config, seed);
        let shared = thread::Common { clock, timings: timings.clone(), credit: credit.clone() };
        let (thread, turns) = thread::spawn(table, shared, sink, Arc::clone(&inbox), inputs)?;
        let sessions = Arc::new(AtomicU64::new(1));
        Ok(Engine { handle: Handle { inbox, turns, credit, clock, timings, sessions }, thread })
    }

    /// The way to it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        self.handle.stop();
        if self.thread.join().is_err() {
            tracing::error!("the table's thread ended by a panic");
        }
    }
}
