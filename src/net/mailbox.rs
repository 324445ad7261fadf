//! Commands to a peer's task: one slot per kind instead of a queue, so that no command is lost
//! because others fill it.
//!
//! Connections wait in a separate queue, because anything at the peer's address can open them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bgp_proto::session::{BfdPath, Close, Command, PeerConfig};
use bgp_proto::types::{Family, FamilySet, SessionId};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Connections that may wait for a peer's task; one that finds the queue full is closed.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// Commands and connections for one peer's task.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

/// What has arrived since the task last took it.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) connections: VecDeque<TcpStream>,
    pub(super) orders: Orders,
}

/// At most one command of each kind: a later one replaces an earlier one.
#[derive(Default)]
pub(super) struct Orders {
    /// Change the peer's name.
    pub(super) rename: Option<std::sync::Arc<str>>,
    /// Replace the session's parameters by ones that differ in timers only.
    pub(super) timers: Option<std::sync::Arc<PeerConfig>>,
    /// End this session, and not a later one.
    pub(super) end: Option<(SessionId, Close)>,
    /// An operator's command: [`Command::Start`], `Stop` or `Restart`.
    pub(super) operator: Option<Command>,
    /// The state of the BFD session with the peer.
    pub(super) bfd: Option<BfdPath>,
    /// The BFD session failed, for this reason, before it got into that state.
    pub(super) bfd_failure: Option<Close>,
    /// Request the peer's routes of these families again (RFC 2918).
    pub(super) refresh: FamilySet,
    /// Advertise all our routes of these families again.
    pub(super) resend: FamilySet,
    /// Dial without waiting for the retry timer.
    pub(super) dial: bool,
    /// Panic, for a test.
    #[cfg(test)]
    pub(super) panic: bool,
    /// End the session, then the task. The first reason is kept.
    pub(super) terminate: Option<Close>,
}

impl Mailbox {
    /// Queues a connection, or returns it if [`CONNECTIONS_MAX`] already wait.
    pub(super) fn put_connection(&self, stream: TcpStream) -> Result<(), TcpStream> {
        {
            let mut mail = self.lock();
            if mail.connections.len() >= CONNECTIONS_MAX {
                return Err(stream);
            }
            mail.connections.push_back(stream);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Sets a command, and wakes the task.
    pub(super) fn put(&self, write: impl FnOnce(&mut Orders)) {
        write(&mut self.lock().orders);
        self.arrived.notify_one();
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    /// Whether the task has been asked to end.
    pub(super) fn is_terminated(&self) -> bool {
        self.lock().orders.terminate.is_some()
    }

    /// Resolves when something has arrived since [`Mailbox::take`].
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    /// Asks the task to end. The first reason is kept.
    pub(super) fn terminate(&mut self, close: Close) {
        self.terminate.get_or_insert(close);
    }

    /// Adds a family to request again.
    pub(super) fn add_refresh(&mut self, family: Family) {
        self.refresh.insert(family);
    }
}
