//! Commands to a peer's task: slots instead of a queue, so that no command is lost to others.
//!
//! Connections wait in a queue of their own, because anybody at the peer's address makes them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bgp_proto::session::{BfdPath, Close, Command};
use bgp_proto::types::{Family, FamilySet, SessionId};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Connections that may wait for a peer's task; one that finds the queue full is closed.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// Orders and connections for one peer's task.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

/// What has come since the task last looked.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) connections: VecDeque<TcpStream>,
    pub(super) orders: Orders,
}

/// At most one order of each kind: a later one takes the place of an earlier one.
#[derive(Default)]
pub(super) struct Orders {
    /// The peer has another name.
    pub(super) rename: Option<std::sync::Arc<str>>,
    /// End this session, and no other.
    pub(super) end: Option<(SessionId, Close)>,
    /// What an operator wants of the session: [`Command::Start`], `Stop` or `Restart`.
    pub(super) operator: Option<Command>,
    /// What BFD says of the path now.
    pub(super) bfd: Option<BfdPath>,
    /// Ask the peer for these families again.
    pub(super) refresh: FamilySet,
    /// Tell the peer all of our routes of these families again.
    pub(super) resend: FamilySet,
    /// Dial without waiting for the retry timer.
    pub(super) dial: bool,
    /// Fail, for a test.
    #[cfg(test)]
    pub(super) panic: bool,
    /// End the session, then the task. The first reason counts.
    pub(super) terminate: Option<Close>,
}

impl Mailbox {
    /// Leaves a connection; it comes back if too many wait already.
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

    /// Leaves an order.
    pub(super) fn put(&self, write: impl FnOnce(&mut Orders)) {
        write(&mut self.lock().orders);
        self.arrived.notify_one();
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    /// Whether the task is to end.
    pub(super) fn is_terminated(&self) -> bool {
        self.lock().orders.terminate.is_some()
    }

    /// Resolves when something came since [`Mailbox::take`].
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    /// Asks for the end. The first reason counts.
    pub(super) fn terminate(&mut self, close: Close) {
        self.terminate.get_or_insert(close);
    }

    /// Asks for one more family.
    pub(super) fn add_refresh(&mut self, family: Family) {
        self.refresh.insert(family);
    }
}
