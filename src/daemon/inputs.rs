//! What the daemon's loop waits for.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::answer::Order;
use super::node::{self, NodeInput};
use super::{Daemon, Stop};
use crate::engine::Event;
use crate::liveness::Liveness;
use crate::net::{Accepted, PeerEvent};

/// The inputs of the daemon's loop.
pub(super) struct Inbox {
    pub(super) table: mpsc::UnboundedReceiver<Event>,
    pub(super) peers: mpsc::UnboundedReceiver<PeerEvent>,
    pub(super) dynamic: mpsc::Receiver<Accepted>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) links: Arc<Notify>,
    pub(super) bfd: crate::bfd::Handle,
    /// Notified when router discovery has found another neighbour.
    pub(super) discovery: Arc<Notify>,
    /// Notified when a file with a secret has changed.
    pub(super) secrets: Arc<Notify>,
    /// Probes whether this loop still runs.
    pub(super) liveness: Liveness,
}

/// Signals that the process reacts to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// What the loop acts on.
pub(super) enum Input {
    Table(Event),
    Peer(PeerEvent),
    Dynamic(Accepted),
    Order(Order),
    Node(NodeInput),
    LinksChanged,
    NeighborsChanged,
    SecretsChanged,
    BfdChanged,
    Liveness,
    Reload,
    Stop(Stop),
    Deadline,
}

impl Daemon {
    /// The next input. Nothing is lost if it is not waited for to the end.
    pub(super) async fn wait(&mut self, deadline: Option<Instant>) -> Input {
        let Inbox { table, peers, dynamic, orders, links, bfd, discovery, secrets, liveness } =
            &mut self.inbox;
        tokio::select! {
            // Peers before the table: a session's establishment is handled before its End-of-RIB.
            biased;
            _ = self.signals.terminate.recv() => Input::Stop(Stop::Graceful),
            _ = self.signals.interrupt.recv() => Input::Stop(Stop::Graceful),
            _ = self.signals.hang_up.recv() => Input::Reload,
            () = liveness.asked() => Input::Liveness,
            // Before inputs of which there may be many: BFD must report a failed path quickly.
            () = bfd.changed() => Input::BfdChanged,
            Some(event) = peers.recv() => Input::Peer(event),
            Some(event) = table.recv() => Input::Table(event),
            Some(accepted) = dynamic.recv() => Input::Dynamic(accepted),
            Some(order) = orders.recv() => Input::Order(order),
            input = node::next_input(&mut self.node) => Input::Node(input),
            () = links.notified() => Input::LinksChanged,
            () = discovery.notified() => Input::NeighborsChanged,
            () = secrets.notified() => Input::SecretsChanged,
            () = sleep_until(deadline) => Input::Deadline,
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
