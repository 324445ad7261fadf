//! The table thread: its inbox, its loop, and the handle through which all other parts reach it.
//!
//! Only turns touch [`bgp_proto::table::Table`]: a turn takes inputs from the inbox, lets the table
//! process them, and passes the results on. Turns run on the table's thread, one at a time; see
//! [`thread`] for the one exception, a small batch that finds the table idle. Route batches are
//! bounded in octets (see [`flow`]): a peer without credit stops reading, and TCP flow control
//! slows its neighbour down. All other inputs are bounded by the number of peers, of tracked next
//! hops and of control clients.

mod clock;
mod flow;
mod members;
mod monitors;
mod thread;
mod timings;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bgp_proto::bmp::DownReason;
use bgp_proto::export::Reader;
use bgp_proto::policy::Source;
use bgp_proto::rib::NextHopState;
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::table::{
    LocalRoute, Mirrored, MonitorId, MonitorPage, MonitorParams, Offered, PeerRoutes, Table,
    TableConfig, TableEvent,
};
use bgp_proto::types::{Family, FibChange, PeerId, Prefix, SessionId, Time};
use bgp_proto::wire::RouteBatch;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use clock::Clock;
pub use flow::{Counted, Credit, PeerCredit, Permit};
pub use members::{Member, serve_after_turn};
pub use monitors::Accepted;
use monitors::Mirror;
use thread::{Inbox, Look, Turns};
pub use timings::Timings;

/// Largest batch, in octets, that the sending task may process itself if the table is idle: enough
/// for a few changes, too small for part of a full table.
const SMALL_BATCH: usize = 1024;
/// After this time without an answer the thread is woken again. Under User Mode Linux, a thread that
/// was unparked sometimes stays asleep.
const WAKE_AGAIN: Duration = Duration::from_secs(1);

/// What the table thread reports to the host.
#[derive(Debug)]
pub enum Event {
    /// From the table itself.
    Table(TableEvent),
    /// A peer sent End-of-RIB (RFC 4724 §2), and every route that it sent before has been processed
    /// by the table and submitted to the kernel writer.
    EndOfRib {
        /// The peer that sent it.
        peer: PeerId,
        /// The address family of the End-of-RIB marker.
        family: Family,
    },
}

/// Receives the table's results, other than updates to peers. Implementations must not block: they
/// run within a turn.
pub trait Sink: Send + 'static {
    /// Routes that the kernel should install, replace or remove.
    fn fib(&mut self, changes: Vec<(Prefix, FibChange)>);
    /// Resolve this next hop and report its changes.
    fn track(&mut self, addr: IpAddr);
    /// No path uses this next hop any more.
    fn untrack(&mut self, addr: IpAddr);
    /// An event for the host.
    fn event(&mut self, event: Event);
    /// Routes for other tables wait for [`Handle::take_offers`]. Not repeated before that.
    fn offers(&mut self) {}
}

/// A query that runs on the table's thread between two turns. It must be short: one page of output.
type Query = Box<dyn FnOnce(&Table, Time) + Send>;

/// Changes of what other tables may import.
type Offers = Vec<(Prefix, Option<Offered>)>;

enum Input {
    Configure(Arc<TableConfig>),
    PeerAdd {
        peer: PeerId,
        address: IpAddr,
        routes: Arc<PeerRoutes>,
    },
    PeersConfigure(Vec<(PeerId, Arc<PeerRoutes>)>),
    PeerUp {
        peer: PeerId,
        session: SessionId,
        negotiated: Arc<Negotiated>,
        reply: oneshot::Sender<Vec<Reader>>,
    },
    PeerForwardingLost {
        peer: PeerId,
    },
    PeerLinkLocal {
        peer: PeerId,
        session: SessionId,
        link_local: Option<Ipv6Addr>,
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
    BeginOffers,
    EndOffers,
    OfferAgain(Prefix),
    TakeOffers {
        max: usize,
        reply: oneshot::Sender<Offers>,
    },
    PeerClosing {
        peer: PeerId,
        session: SessionId,
        reason: DownReason,
    },
    Mirrored {
        peer: PeerId,
        session: SessionId,
        message: Mirrored,
        counted: Counted,
    },
    MonitorBegin {
        monitor: MonitorId,
        params: Arc<MonitorParams>,
    },
    MonitorStatistics(MonitorId),
    MonitorPage {
        monitor: MonitorId,
        reply: oneshot::Sender<MonitorPage>,
    },
    MonitorEnd(MonitorId),
    Ask(Query),
    Wake,
    Stop,
}

/// A handle to the table thread. Sending never blocks; after the thread has ended it has no effect.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
    turns: Arc<dyn Turns>,
    credit: Credit,
    clock: Clock,
    timings: Timings,
    sessions: Arc<AtomicU64>,
    mirror: Arc<Mirror>,
}

impl Handle {
    /// The process's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether both are handles to one table.
    pub fn is_same(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.inbox, &other.inbox)
    }

    /// Histograms of the time that the phases of a turn take.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Octets of route batches that the table has not processed yet.
    pub fn waiting_octets(&self) -> usize {
        self.credit.held()
    }

    /// New credit for one peer's route batches.
    pub fn peer_credit(&self) -> PeerCredit {
        self.credit.peer()
    }

    /// Replaces the table's configuration.
    pub fn configure(&self, config: Arc<TableConfig>) {
        self.send(Input::Configure(config));
    }

    /// Adds a peer.
    pub fn peer_add(&self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        self.send(Input::PeerAdd { peer, address, routes });
    }

    /// Replaces a peer's routing parameters.
    pub fn peer_configure(&self, peer: PeerId, routes: Arc<PeerRoutes>) {
        self.peers_configure(vec![(peer, routes)]);
    }

    /// New routing parameters for many peers, at once: those that change in the same way stay in one
    /// update group, which none of them has to be copied out of.
    pub fn peers_configure(&self, peers: Vec<(PeerId, Arc<PeerRoutes>)>) {
        self.send(Input::PeersConfigure(peers));
    }

    /// A session id that is unique within this process.
    pub fn new_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// A session is established. The receiver yields one reader for each of its families, or an
    /// error if the session or the thread ends first.
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

    /// Our link-local address on the link of a session, which may differ from the one at its start.
    pub fn peer_link_local(&self, peer: PeerId, session: SessionId, link_local: Option<Ipv6Addr>) {
        self.send(Input::PeerLinkLocal { peer, session, link_local });
    }

    /// A session has ended. The table processes batches that were sent before this call first.
    pub fn peer_down(&self, peer: PeerId, session: SessionId, keep: Option<Keep>) {
        self.send(Input::PeerDown { peer, session, keep });
    }

    /// A peer no longer forwards, or is not to return: routes that were retained for its restart are
    /// removed.
    pub fn peer_forwarding_lost(&self, peer: PeerId) {
        self.send(Input::PeerForwardingLost { peer });
    }

    /// Removes a peer.
    pub fn peer_remove(&self, peer: PeerId) {
        self.send(Input::PeerRemove { peer });
    }

    /// Sends route changes of a peer; `permit` comes from that peer's credit.
    pub fn batch(&self, peer: PeerId, batch: RouteBatch, permit: Permit) {
        let is_small = batch.size() <= SMALL_BATCH;
        self.inbox.put(Input::Batch { peer, batch, permit });
        if !is_small || self.turns.run_if_idle() == Look::Needed {
            self.inbox.wake_thread();
        }
    }

    /// Defers all advertisements until [`Handle::release_export`] (RFC 4724 §4.1).
    pub fn defer_export(&self) {
        self.send(Input::DeferExport);
    }

    /// Ends the deferral of [`Handle::defer_export`].
    pub fn release_export(&self) {
        self.send(Input::ReleaseExport);
    }

    /// Adds or replaces a locally originated route; `None` withdraws it.
    pub fn local(&self, prefix: Prefix, source: Source, route: Option<LocalRoute>) {
        self.send(Input::Local { prefix, source, route });
    }

    /// Reports that a tracked next hop now resolves differently.
    pub fn next_hop(&self, addr: IpAddr, state: NextHopState) {
        self.send(Input::NextHop { addr, state });
    }

    /// Replaces the set of existing tunnel interfaces: interface index by name.
    pub fn tunnels(&self, tunnels: BTreeMap<Arc<str>, u32>) {
        self.send(Input::Tunnels(tunnels));
    }

    /// From here on routes are offered to other tables, all of them once more: see [`Sink::offers`].
    pub fn begin_offers(&self) {
        self.send(Input::BeginOffers);
    }

    /// No table imports routes of this one any more.
    pub fn end_offers(&self) {
        self.send(Input::EndOffers);
    }

    /// The route to a destination is offered once more, if there is one.
    pub fn offer_again(&self, prefix: Prefix) {
        self.send(Input::OfferAgain(prefix));
    }

    /// Changes of what other tables may import, of `max` destinations at most; `None` if the thread
    /// has ended. If there are none, [`Sink::offers`] says when there are.
    pub async fn take_offers(&self, max: usize) -> Option<Offers> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::TakeOffers { max, reply });
        self.answered(answer).await
    }

    /// Runs a query on the table's thread, between two turns. `None` if the thread has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Table, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Ask(Box::new(move |table, now| {
            // The client may have disconnected; then the answer is not needed.
            let _ = reply.send(question(table, now));
        })));
        self.answered(answer).await
    }

    /// Waits for an answer of the thread; `None` if it has ended. Wakes it again while there is none.
    async fn answered<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        loop {
            match timeout(WAKE_AGAIN, &mut answer).await {
                Ok(answer) => return answer.ok(),
                Err(_) => self.inbox.wake_thread(),
            }
        }
    }

    /// Ends the thread once it has taken the inputs that are in the inbox.
    pub fn stop(&self) {
        self.send(Input::Stop);
    }

    fn send(&self, input: Input) {
        self.inbox.put(input);
        self.inbox.wake_thread();
    }
}

/// The running table thread.
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
        let mirror = Arc::new(Mirror::default());
        let shared = thread::Common {
            clock,
            timings: timings.clone(),
            credit: credit.clone(),
            mirror: Arc::clone(&mirror),
        };
        let (thread, turns) = thread::spawn(table, shared, sink, Arc::clone(&inbox), inputs)?;
        let sessions = Arc::new(AtomicU64::new(1));
        Ok(Engine {
            handle: Handle { inbox, turns, credit, clock, timings, sessions, mirror },
            thread,
        })
    }

    /// A handle to the thread, to be cloned.
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
