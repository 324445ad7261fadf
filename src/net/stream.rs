//! What one peer tells the table, in order: sessions beginning, routes, sessions ending.
//!
//! What was read before the end of a session reaches the table before that end (RFC 4271 §8.2.2):
//! where graceful restart keeps the peer's routes, it keeps those of the last message and not of some
//! message before (RFC 4724 §4.2).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bgp_proto::export::Reader;
use bgp_proto::session::{Keep, Negotiated};
use bgp_proto::types::{PeerId, SessionId};
use bgp_proto::wire::RouteBatch;
use tokio::sync::oneshot;

use crate::engine::{Counted, Handle, PeerCredit, Permit};

type Acquire = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// Whether a batch waits for credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// Without credit it waits, and nothing is read meanwhile.
    WithinCredit,
    /// The end of a session does not wait.
    AtOnce,
}

/// One peer's way to the table.
pub(super) struct Stream {
    peer: PeerId,
    table: Handle,
    credit: PeerCredit,
    /// Routes of the present turn.
    pub(super) batch: RouteBatch,
    /// Routes that wait for credit; meanwhile nothing is read.
    stalled: Option<(RouteBatch, Acquire, Counted)>,
    session: Option<Session>,
    /// The session before.
    last: Option<SessionId>,
}

/// The session that the table knows of.
struct Session {
    id: SessionId,
    negotiated: Arc<Negotiated>,
}

impl Stream {
    pub(super) fn new(peer: PeerId, table: Handle) -> Self {
        let credit = table.peer_credit();
        let batch = RouteBatch::default();
        Stream { peer, table, credit, batch, stalled: None, session: None, last: None }
    }

    pub(super) fn table(&self) -> &Handle {
        &self.table
    }

    /// The established session.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// Whether an order about `session` still means something: it is up, or none came up since.
    pub(super) fn is_current(&self, session: SessionId) -> bool {
        self.session().or(self.last) == Some(session)
    }

    /// Whether routes wait for credit.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Resolves with the credit that is waited for; never if none is.
    pub(super) async fn credit(&mut self) -> Permit {
        match &mut self.stalled {
            Some((_, acquire, _)) => acquire.await,
            None => std::future::pending().await,
        }
    }

    /// The credit came.
    pub(super) fn on_credit(&mut self, permit: Permit) {
        if let Some((batch, ..)) = self.stalled.take() {
            self.table.batch(self.peer, batch, permit);
        }
    }

    /// Hands the turn's routes to the table, or keeps them until there is credit.
    pub(super) fn hand_over(&mut self, how: HandOver) {
        if how == HandOver::AtOnce {
            self.catch_up();
        }
        if self.batch.is_empty() || self.is_stalled() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let permit = match how {
            HandOver::WithinCredit => self.credit.try_acquire(batch.size()),
            HandOver::AtOnce => Some(self.credit.overdraw(batch.size())),
        };
        match permit {
            Some(permit) => self.table.batch(self.peer, batch, permit),
            None => {
                let (credit, size) = (self.credit.clone(), batch.size());
                let counted = credit.count_waiting(size);
                let acquire = Box::pin(async move { credit.acquire(size).await });
                self.stalled = Some((batch, acquire, counted));
            }
        }
    }

    /// Hands over what waits for credit.
    pub(super) fn catch_up(&mut self) {
        if let Some((batch, ..)) = self.stalled.take() {
            let permit = self.credit.overdraw(batch.size());
            self.table.batch(self.peer, batch, permit);
        }
    }

    /// A session is established; its readers come when the table gets to it.
    pub(super) fn up(&mut self, negotiated: Arc<Negotiated>) -> oneshot::Receiver<Vec<Reader>> {
        let id = self.table.new_session();
        self.session = Some(Session { id, negotiated: Arc::clone(&negotiated) });
        self.table.peer_up(self.peer, id, negotiated)
    }

    /// The session is over. `batch` is its own, unless another session took its place in the same
    /// turn. Without `keep` nothing of it is of use any more.
    pub(super) fn down(&mut self, keep: Option<Keep>, batch: Batch) {
        if keep.is_some() {
            self.catch_up();
            if batch == Batch::OfThisSession {
                self.hand_over(HandOver::AtOnce);
            }
        } else {
            self.stalled = None;
            if batch == Batch::OfThisSession {
                self.batch.clear();
            }
        }
        if let Some(Session { id, .. }) = self.session.take() {
            self.last = Some(id);
            self.table.peer_down(self.peer, id, keep);
        }
    }

    /// The task that read has panicked: what it had in hand is not trusted. The session ends as one
    /// whose TCP connection is lost. Returns whether there was one.
    pub(super) fn abandon(&mut self) -> bool {
        self.batch = RouteBatch::default();
        let Some(session) = &self.session else { return false };
        let keep = session.negotiated.keep_if_lost();
        self.down(keep, Batch::OfThisSession);
        true
    }
}

/// Whose routes are in the turn's batch when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    OfThisSession,
    OfTheNext,
}
