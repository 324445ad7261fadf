//! [`Peer`]: admin state, two connection slots, back-off.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Close, LastError, Negotiated, PeerConfig};
use crate::types::{Family, Time};
use crate::wire::RouteBatch;

/// The two connections that a peer may have at once (RFC 4271 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// We dialled.
    Outgoing = 0,
    /// The peer dialled.
    Incoming = 1,
}

/// The state that operators know (RFC 4271 §8.2.2): of the more advanced slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What the host or the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin (event 1 or 4).
    Start,
    /// End the session and stay idle until [`Command::Start`].
    Stop(Close),
    /// End the session, come back by the ordinary retry rules.
    Restart(Close),
    /// Ask the peer for its routes again (RFC 2918).
    RequestRefresh(Family),
}

/// What the host must do. Drain after every input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial the configured address; answer with `handle_connected` or `handle_connect_failed`.
    Connect,
    /// Stop dialling.
    AbortConnect,
    /// Write what `poll_transmit(slot)` still holds (bounded in time), then close the connection.
    Close {
        /// Which.
        slot: Slot,
        /// Close with RST: nothing may be waiting to be sent.
        abort: bool,
    },
    /// The session is established on `slot`; UPDATEs may flow.
    Up {
        /// Which.
        slot: Slot,
        /// What was agreed.
        negotiated: Arc<Negotiated>,
    },
    /// The session that was up is over. Always between two `Up`.
    Down {
        /// Why.
        reason: Close,
        /// Keep the peer's routes as stale (RFC 4724, RFC 8538), for these families and this long.
        keep: Option<Keep>,
    },
    /// One line for the log: an UPDATE was treated as withdraw, an attribute discarded, a
    /// capability ignored. Rate-limited here.
    Note(String),
}

/// Routes to keep over a restart of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The families.
    pub families: crate::types::FamilySet,
    /// For how long at most.
    pub restart_time: std::time::Duration,
}

/// Message counters of a peer since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub updates_received: u64,
    pub keepalives_received: u64,
    pub keepalives_sent: u64,
    pub notifications_received: u64,
    pub notifications_sent: u64,
    pub refreshes_received: u64,
    pub refreshes_sent: u64,
    pub treated_as_withdraw: u64,
    pub attributes_discarded: u64,
    pub octets_received: u64,
    pub established_transitions: u64,
    pub connect_failures: u64,
}

/// One neighbour.
pub struct Peer {
    _private: (),
}

impl Peer {
    /// A stopped peer. `seed` drives jitter.
    pub fn new(config: Arc<PeerConfig>, seed: u64) -> Self {
        let _ = (config, seed);
        todo!()
    }
    /// What the host or operator wants.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        let _ = (now, command);
        todo!()
    }
    /// A TCP connection exists: ours (answering [`Action::Connect`]) or the peer's. Whether it is
    /// wanted shows in the actions: an unwanted one is answered with `Close`.
    pub fn handle_connected(
        &mut self,
        now: Time,
        slot: Slot,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let _ = (now, slot, local, remote);
        todo!()
    }
    /// Dialling failed; the host's words.
    pub fn handle_connect_failed(&mut self, now: Time, text: &str) {
        let _ = (now, text);
        todo!()
    }
    /// The connection ended (EOF or error) without our asking.
    pub fn handle_closed(&mut self, now: Time, slot: Slot, text: &str) {
        let _ = (now, slot, text);
        todo!()
    }
    /// Octets arrived. Consumes whole messages from the front of `bytes` and returns how many octets
    /// it took; the host keeps the rest and passes it again with more behind it. Routes are appended
    /// to `batch`. Stops early (and says so by its return value) once `batch` holds `batch_max`
    /// octets: the host sends the batch and calls again with the rest.
    pub fn handle_bytes(
        &mut self,
        now: Time,
        slot: Slot,
        bytes: &[u8],
        batch: &mut RouteBatch,
        batch_max: usize,
    ) -> usize {
        let _ = (now, slot, bytes, batch, batch_max);
        todo!()
    }
    /// Octets left the machine's send queue (or could be written): restarts the send-hold timer and
    /// spares the next KEEPALIVE if a whole message went out.
    pub fn handle_sent(&mut self, now: Time, slot: Slot) {
        let _ = (now, slot);
        todo!()
    }
    /// The host has UPDATEs waiting that TCP does not take: the send-hold timer runs (RFC 9687).
    pub fn handle_send_blocked(&mut self, now: Time, slot: Slot) {
        let _ = (now, slot);
        todo!()
    }
    /// The host is not reading for want of credit while the connection stands: the peer is not
    /// to blame for silence, the hold timer starts again.
    pub fn handle_alive(&mut self, now: Time, slot: Slot) {
        let _ = (now, slot);
        todo!()
    }
    /// A deadline of `poll_timeout` may have passed.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
        todo!()
    }
    /// When to call `handle_timeout` at the latest, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        todo!()
    }
    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        todo!()
    }
    /// Moves whole control messages (OPEN, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH) to `out`;
    /// returns whether there were any.
    pub fn poll_transmit(&mut self, slot: Slot, out: &mut Vec<u8>) -> bool {
        let _ = (slot, out);
        todo!()
    }
    /// For people.
    pub fn state(&self) -> State {
        todo!()
    }
    /// When `state` was entered.
    pub fn state_since(&self) -> Time {
        todo!()
    }
    /// The last failure.
    pub fn last_error(&self) -> Option<&LastError> {
        todo!()
    }
    /// Counters.
    pub fn stats(&self) -> Stats {
        todo!()
    }
    /// What was agreed, while established.
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        todo!()
    }
    /// The parameters.
    pub fn config(&self) -> &Arc<PeerConfig> {
        todo!()
    }
}
