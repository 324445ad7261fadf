//! What a peer's task is started with, its commands and queries: the other side of [`peer`](super::peer).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use bgp_proto::session::{
    BfdPath, Close, Command, LastError, Negotiated, Origin, PeerConfig, Restart, State, Stats,
    Timers,
};
use bgp_proto::types::{Family, FamilySet, PeerId, SessionId, Time};
use tokio::net::TcpStream;

use super::conn::Sent;
use super::mailbox::Mailbox;
use super::shutdown::AdminShutdown;
use super::tally::Tally;

/// Whether a peer outlives its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is taken out of the configuration.
    Configured,
    /// Until it has had no connection for a while (accepted from a range).
    Dynamic,
}

/// What a peer's task needs to begin.
pub struct PeerSpec {
    /// Its index.
    pub id: PeerId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// Session parameters.
    pub config: Arc<PeerConfig>,
    /// Whether it outlives its connections.
    pub lifetime: Lifetime,
    /// Drives jitter.
    pub seed: u64,
    /// Whether the daemon is still in its first minutes.
    pub recovery: Recovery,
    /// Our addresses beside the one that a connection has.
    pub beside: Beside,
    /// Where what sessions do is counted.
    pub tally: Tally,
    /// Whether an operator has shut the session down.
    pub shutdown: AdminShutdown,
}

/// Given the two addresses of a connection, ours and the neighbour's, which others we have there.
pub type Beside = Arc<dyn Fn(IpAddr, IpAddr) -> OtherAddresses + Send + Sync>;

/// Our addresses on the interface of a connection, beside the one that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherAddresses {
    /// One of the other family that routers can send to.
    pub other_family: Option<IpAddr>,
    /// The link-local one, if the neighbour is on the same link.
    pub link_local: Option<Ipv6Addr>,
}

/// Whether the daemon has restarted and not converged yet, as our OPENs say it (RFC 4724 §3): shared
/// by all peers' tasks.
#[derive(Clone)]
pub struct Recovery(Arc<AtomicU8>);

impl Recovery {
    const DONE: u8 = 0;
    const PRESERVED: u8 = 1;
    const LOST: u8 = 2;

    /// The daemon has just started. Until something else is known, forwarding went on meanwhile.
    pub fn begin() -> Self {
        Recovery(Arc::new(AtomicU8::new(Self::PRESERVED)))
    }

    /// Nothing was left in the kernel (the machine was restarted): OPENs say F = 0, so that peers
    /// do not go on sending to where nobody forwards.
    pub fn forwarding_lost(&self) {
        let (from, to) = (Self::PRESERVED, Self::LOST);
        // An error means that the daemon has converged, which says more.
        let _ = self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// It has converged.
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

/// What a peer's task tells the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The session came up.
    Up(PeerId),
    /// The session went down.
    Down(PeerId),
    /// The task has ended; the table knows that the session is down, not that the peer was removed.
    Ended(PeerId),
}

/// What `show peers` knows about the session.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// FSM state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// When the session last came up or went down, or when the peer was added.
    pub session_since: Time,
    /// Timers that run.
    pub timers: Timers,
    /// The earliest deadline, of these and of others.
    pub deadline: Option<Time>,
    /// While established.
    pub session: Option<SessionId>,
    /// While established.
    pub negotiated: Option<Arc<Negotiated>>,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// What keeps the peer from connecting to us at present. [`PeerHandle::snapshot`] shows it as the
    /// last failure.
    pub fault: Option<LastError>,
    /// Message counters.
    pub stats: Stats,
    /// What was written, over all connections.
    pub sent: Sent,
}

/// The numbers of a [`PeerSnapshot`]: what is cheap to copy for thousands of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNumbers {
    /// FSM state.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Message counters.
    pub stats: Stats,
    /// What was written, over all connections.
    pub sent: Sent,
}

/// The way to a peer's task. Nothing here waits for it, and no order is lost. When the last clone is
/// gone, so is the peer.
#[derive(Clone)]
pub struct PeerHandle {
    /// Its index.
    pub id: PeerId,
    pub(super) mailbox: Arc<OwnedMailbox>,
    pub(super) snapshot: Arc<Mutex<PeerSnapshot>>,
}

/// The sender's side of a mailbox.
pub(super) struct OwnedMailbox(pub(super) Arc<Mailbox>);

impl Drop for OwnedMailbox {
    fn drop(&mut self) {
        self.0.put(|orders| orders.terminate(Close::Deconfigured));
    }
}

impl PeerHandle {
    /// The peer dialled us.
    ///
    /// # Errors
    /// The connection itself: too many wait already.
    pub fn connect(&self, stream: TcpStream) -> Result<(), TcpStream> {
        self.mailbox.0.put_connection(stream)
    }

    /// Ends `session` for this reason, and goes on by the ordinary rules. A session that came up since
    /// is left alone.
    pub fn end(&self, session: SessionId, close: Close) {
        self.mailbox.0.put(|orders| match &orders.end {
            Some((waiting, _)) if *waiting > session => {}
            _ => orders.end = Some((session, close)),
        });
    }

    /// Ends the session for this reason, then the task.
    pub fn terminate(&self, close: Close) {
        self.mailbox.0.put(|orders| orders.terminate(close));
    }

    /// The peer has another name.
    pub fn rename(&self, name: Arc<str>) {
        self.mailbox.0.put(|orders| orders.rename = Some(name));
    }

    /// What an operator wants of the session: [`Command::Start`], `Stop` or `Restart`. It takes the
    /// place of what the task has not yet looked at.
    pub fn operate(&self, command: Command) {
        self.mailbox.0.put(|orders| orders.operator = Some(command));
    }

    /// Tells the peer all of our routes of a family again.
    pub fn resend(&self, family: Family) {
        self.mailbox.0.put(|orders| orders.resend.insert(family));
    }

    /// Asks the peer for its routes again (RFC 2918).
    pub fn request_refresh(&self, family: Family) {
        self.mailbox.0.put(|orders| orders.add_refresh(family));
    }

    /// What BFD says of the path to the peer now.
    pub fn set_bfd(&self, path: BfdPath) {
        self.mailbox.0.put(|orders| orders.bfd = Some(path));
    }

    /// Dials now where only the retry timer is waited for.
    pub fn dial(&self) {
        self.mailbox.0.put(|orders| orders.dial = true);
    }

    /// The task's next turn panics.
    #[cfg(test)]
    pub(super) fn inject_panic(&self) {
        self.mailbox.0.put(|orders| orders.panic = true);
    }

    /// What keeps the peer from connecting to us, for people, until something else is said here.
    pub fn set_fault(&self, now: Time, fault: Option<String>) {
        let error = |text| LastError { at: now, origin: Origin::Local, code: None, text };
        self.lock().fault = fault.map(error);
    }

    /// The FSM's state at the end of the task's last turn.
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// The session's numbers at the end of the task's last turn.
    pub fn numbers(&self) -> PeerNumbers {
        let PeerSnapshot { state, since, stats, sent, .. } = *self.lock();
        PeerNumbers { state, since, stats, sent }
    }

    /// When the task has something to do at the latest; `None`: it only waits for others. A task that
    /// is well is never much later than that.
    pub fn next_deadline(&self) -> Option<Time> {
        self.lock().deadline
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PeerSnapshot> {
        self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The session as it was at the end of the task's last turn.
    pub fn snapshot(&self) -> PeerSnapshot {
        let mut snapshot = self.lock().clone();
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
    fn forwarding_counts_as_preserved_until_the_kernel_was_found_empty() {
        let recovery = Recovery::begin();
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
