//! How a peer's task is started, commanded and queried: the other side of [`peer`](super::peer).

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bgp_proto::session::{
    BfdPath, Close, Command, LastError, Negotiated, Origin, PeerConfig, Restart, State, Stats,
    Timers,
};
use bgp_proto::types::{Family, FamilySet, PeerId, SessionId, Time};
use tokio::net::TcpStream;

use super::debug::DebugSwitch;
use super::key_chains::SignedConnection;
use super::mailbox::Mailbox;
use super::outlet::{Sent, SentTotals};
use super::session_counters::SessionCounters;
use super::shutdown::AdminShutdown;
use super::sockopt;
use crate::mrt::Recorder;

/// Whether a peer outlives its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It exists until it is removed from the configuration.
    Configured,
    /// It was accepted from a range, and exists until it has had no connection for a while.
    Dynamic,
}

/// The parameters with which a peer's task is started.
pub struct PeerSpec {
    /// Its id, unique among the peers of this process.
    pub id: PeerId,
    /// Its name, for logs and `show`.
    pub name: Arc<str>,
    /// Session parameters.
    pub config: Arc<PeerConfig>,
    /// Whether it outlives its connections.
    pub lifetime: Lifetime,
    /// Seed for the jitter of timers.
    pub seed: u64,
    /// Whether the daemon is still recovering from its restart.
    pub recovery: RestartState,
    /// Finds our other addresses on a connection's interface.
    pub beside: FindOtherAddresses,
    /// The counters over all sessions.
    pub session_counters: SessionCounters,
    /// Whether an operator has shut the session down.
    pub shutdown: AdminShutdown,
    /// Until when its messages are logged.
    pub debug: DebugSwitch,
    /// Where its messages are recorded.
    pub recorder: Recorder,
}

/// Given the local and the remote address of a connection, returns our other addresses on its interface.
pub type FindOtherAddresses = Arc<dyn Fn(IpAddr, IpAddr) -> OtherAddresses + Send + Sync>;

/// Our addresses on a connection's interface, besides its local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherAddresses {
    /// One of the other family that neighbours can use as a next hop.
    pub other_family: Option<IpAddr>,
    /// The link-local address, if the neighbour is on the same link.
    pub link_local: Option<Ipv6Addr>,
}

/// The restart state that our OPENs announce (RFC 4724 §3): whether the daemon has restarted and
/// not converged yet. Clones share it among all peers' tasks.
#[derive(Clone)]
pub struct RestartState(Arc<AtomicU8>);

impl RestartState {
    const DONE: u8 = 0;
    const PRESERVED: u8 = 1;
    const LOST: u8 = 2;

    /// The daemon has just started. Forwarding is assumed to have continued until
    /// [`RestartState::forwarding_lost`] says otherwise.
    pub fn begin() -> Self {
        RestartState(Arc::new(AtomicU8::new(Self::PRESERVED)))
    }

    /// The kernel has no routes of an earlier run (the machine was restarted): OPENs announce F =
    /// 0, so that peers do not keep sending to a router that cannot forward.
    pub fn forwarding_lost(&self) {
        let (from, to) = (Self::PRESERVED, Self::LOST);
        // An error means that the daemon has converged, or that this was called before.
        let _ = self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The daemon has converged: OPENs no longer announce a restart.
    pub fn end(&self) {
        self.0.store(Self::DONE, Ordering::Release);
    }

    pub(super) fn restart(&self) -> Restart {
        match self.0.load(Ordering::Acquire) {
            Self::DONE => Restart::Done,
            Self::LOST => Restart::Recovering { preserved: FamilySet::EMPTY },
            _ => Restart::Recovering { preserved: FamilySet::ALL },
        }
    }
}

/// What a peer's task reports to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The session came up.
    Up(PeerId),
    /// The session went down.
    Down(PeerId),
    /// The task has ended. The table knows that the session is down, but not that the peer was
    /// removed.
    Ended(PeerId),
}

/// The state of a session that `show peers` displays.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// FSM state.
    pub state: State,
    /// When the FSM entered this state.
    pub since: Time,
    /// When the session last came up or went down, or when the peer was added.
    pub session_since: Time,
    /// Running timers.
    pub timers: Timers,
    /// The earliest deadline of these and of all other timers of the FSM.
    pub deadline: Option<Time>,
    /// The session's id, while it is established.
    pub session: Option<SessionId>,
    /// The negotiated parameters, while the session is established.
    pub negotiated: Option<Arc<Negotiated>>,
    /// Why the last session or connection attempt failed.
    pub last_error: Option<LastError>,
    /// Why the last session ended, or the last failure with a NOTIFICATION since then.
    pub last_bgp_error: Option<LastError>,
    /// What currently keeps the peer from connecting to us. [`PeerHandle::snapshot`] returns it as
    /// `last_error`.
    pub fault: Option<LastError>,
    /// Message counters.
    pub stats: Stats,
    /// Octets and UPDATEs written, over all connections. [`PeerHandle::snapshot`] sets it.
    pub sent: Sent,
    /// The connection of the session, or else the newest one.
    pub(super) connection: Weak<TcpStream>,
}

/// Segments that a peer does not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Their number.
    pub segments: u32,
    /// How often the first of them was sent again in a row.
    pub retransmissions: u8,
}

impl Unacknowledged {
    /// From this number of retransmissions on they are reported: with the least timeout of 200 ms,
    /// the last is 1.4 s after the segment.
    const RETRANSMISSIONS_MIN: u8 = 3;

    /// What a connection does not acknowledge; `None` if that is not worth reporting.
    pub(super) fn on(stream: &TcpStream) -> Option<Unacknowledged> {
        let info = sockopt::tcp_info(stream).ok()?;
        let is_stuck = info.unacked > 0 && info.retransmits >= Self::RETRANSMISSIONS_MIN;
        is_stuck
            .then_some(Unacknowledged { segments: info.unacked, retransmissions: info.retransmits })
    }
}

/// The numbers in a [`PeerSnapshot`], which are cheap to copy for thousands of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNumbers {
    /// FSM state.
    pub state: State,
    /// When the FSM entered this state.
    pub since: Time,
    /// Message counters.
    pub stats: Stats,
    /// Octets and UPDATEs written, over all connections.
    pub sent: Sent,
}

/// A handle to a peer's task. No method waits for the task, and no command is lost. Dropping the
/// last clone removes the peer.
#[derive(Clone)]
pub struct PeerHandle {
    /// The peer's id.
    pub id: PeerId,
    pub(super) mailbox: Arc<OwnedMailbox>,
    pub(super) snapshot: Arc<Mutex<PeerSnapshot>>,
    pub(super) sent: Arc<SentTotals>,
    pub(super) debug: DebugSwitch,
}

/// The sending side of a mailbox. Dropping it terminates the task.
pub(super) struct OwnedMailbox(pub(super) Arc<Mailbox>);

impl Drop for OwnedMailbox {
    fn drop(&mut self) {
        self.0.put(|orders| orders.terminate(Close::Deconfigured));
    }
}

impl PeerHandle {
    /// Gives the task a connection that the peer opened.
    ///
    /// # Errors
    /// Returns the connection if too many already wait.
    pub fn connect(&self, stream: TcpStream) -> Result<(), TcpStream> {
        self.mailbox.0.put_connection(stream)
    }

    /// Ends `session` for this reason; the FSM then restarts by its ordinary rules. A later session
    /// is not affected.
    pub fn end(&self, session: SessionId, close: Close) {
        self.mailbox.0.put(|orders| match &orders.end {
            Some((waiting, _)) if *waiting > session => {}
            _ => orders.end = Some((session, close)),
        });
    }

    /// Ends the session for this reason, and then the task.
    pub fn terminate(&self, close: Close) {
        self.mailbox.0.put(|orders| orders.terminate(close));
    }

    /// Changes the peer's name.
    pub fn rename(&self, name: Arc<str>) {
        self.mailbox.0.put(|orders| orders.rename = Some(name));
    }

    /// Replaces the session's parameters by ones that differ in timers only; the session stays.
    pub fn set_timers(&self, config: Arc<PeerConfig>) {
        self.mailbox.0.put(|orders| orders.timers = Some(config));
    }

    /// Sends an operator's command: [`Command::Start`], `Stop` or `Restart`. It replaces an earlier
    /// one that the task has not taken yet.
    pub fn operate(&self, command: Command) {
        self.mailbox.0.put(|orders| orders.operator = Some(command));
    }

    /// Advertises all our routes of a family to the peer again.
    pub fn resend(&self, family: Family) {
        self.mailbox.0.put(|orders| orders.resend.insert(family));
    }

    /// Requests the peer's routes of a family again (RFC 2918).
    pub fn request_refresh(&self, family: Family) {
        self.mailbox.0.put(|orders| orders.add_refresh(family));
    }

    /// Reports the state of the BFD session with the peer, and why it failed if it did since the last
    /// report. A failure ends an established session if BFD is strict; otherwise use
    /// [`PeerHandle::end`].
    pub fn set_bfd(&self, path: BfdPath, failure: Option<Close>) {
        self.mailbox.0.put(|orders| {
            orders.bfd = Some(path);
            orders.bfd_failure = failure.or(orders.bfd_failure.take());
        });
    }

    /// Dials now if the FSM is only waiting for ConnectRetryTimer.
    pub fn dial(&self) {
        self.mailbox.0.put(|orders| orders.dial = true);
    }

    /// Makes the task's next turn panic.
    #[cfg(test)]
    pub(super) fn inject_panic(&self) {
        self.mailbox.0.put(|orders| orders.panic = true);
    }

    /// Sets or clears the text that says what keeps the peer from connecting to us.
    pub fn set_fault(&self, now: Time, fault: Option<String>) {
        let error = |text| LastError { at: now, origin: Origin::Local, code: None, text };
        self.lock().fault = fault.map(error);
    }

    /// The keys and counters of TCP-AO on the connection; `None` if there is none that uses it.
    pub fn signed(&self) -> Option<SignedConnection> {
        let socket = self.connection().upgrade()?;
        SignedConnection::read(socket.as_fd()).ok()
    }

    /// The FSM's state at the end of the task's last turn.
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// The session's numbers at the end of the task's last turn, and what was written up to now.
    pub fn numbers(&self) -> PeerNumbers {
        let PeerSnapshot { state, since, stats, .. } = *self.lock();
        PeerNumbers { state, since, stats, sent: self.sent.get() }
    }

    /// Until when the peer's messages are logged.
    pub fn debug(&self) -> &DebugSwitch {
        &self.debug
    }

    /// The connection of the session, or else the newest one.
    pub fn connection(&self) -> Weak<TcpStream> {
        self.lock().connection.clone()
    }

    /// What the peer does not acknowledge on its connection at present, if that is worth reporting.
    pub fn unacknowledged(&self) -> Option<Unacknowledged> {
        let connection = self.connection().upgrade()?;
        Unacknowledged::on(&connection)
    }

    /// The task's earliest deadline; `None` if it only waits for events. A healthy task never runs
    /// much later than that.
    pub fn next_deadline(&self) -> Option<Time> {
        self.lock().deadline
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PeerSnapshot> {
        self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The session as it was at the end of the task's last turn, and what was written up to now.
    pub fn snapshot(&self) -> PeerSnapshot {
        let mut snapshot = self.lock().clone();
        snapshot.sent = self.sent.get();
        if let Some(fault) = snapshot.fault.take() {
            snapshot.last_error = Some(fault);
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_counts_as_preserved_until_the_kernel_is_found_empty() {
        let recovery = RestartState::begin();
        let preserved = |preserved| Restart::Recovering { preserved };
        assert_eq!(recovery.restart(), preserved(FamilySet::ALL));
        recovery.forwarding_lost();
        assert_eq!(recovery.restart(), preserved(FamilySet::EMPTY));
        recovery.end();
        assert_eq!(recovery.restart(), Restart::Done);
        recovery.forwarding_lost();
        assert_eq!(recovery.restart(), Restart::Done, "the start is over");
    }
}
