//! The inputs of one peer to the table, in order: session up, routes, session down.
//!
//! Routes that were read before the end of a session reach the table before that end
//! (RFC 4271 §8.2.2): if graceful restart retains the peer's routes, it retains the state after the
//! last message and not after some earlier one (RFC 4724 §4.2).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bgp_proto::bmp::DownReason;
use bgp_proto::export::Reader;
use bgp_proto::session::{Close, Keep, Negotiated};
use bgp_proto::types::{PeerId, SessionId};
use bgp_proto::wire::{Notification, RouteBatch};
use tokio::sync::oneshot;

use crate::engine::{Accepted, Counted, Handle, PeerCredit, Permit};

type Acquire = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// Whether a batch waits for credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandOver {
    /// Without credit it waits, and reading pauses meanwhile.
    WithinCredit,
    /// It does not wait, because the session is ending.
    AtOnce,
}

/// One peer's sequence of inputs to the table.
pub(super) struct Stream {
    peer: PeerId,
    table: Handle,
    credit: PeerCredit,
    /// Routes of the current turn, not yet sent to the table.
    pub(super) batch: RouteBatch,
    /// Routes that wait for credit; reading pauses meanwhile.
    stalled: Option<(RouteBatch, Acquire, Counted)>,
    session: Option<Session>,
    /// The previous session.
    last: Option<SessionId>,
}

/// The session as the table knows it.
struct Session {
    id: SessionId,
    negotiated: Arc<Negotiated>,
    /// What became of its last erroneous message.
    mirrored: Accepted,
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

    /// The id of the established session, if there is one.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// Whether a command about `session` still applies: it is up, or no other has come up since.
    pub(super) fn is_current(&self, session: SessionId) -> bool {
        self.session().or(self.last) == Some(session)
    }

    /// Whether routes wait for credit.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Resolves when the waiting routes have credit; never if none wait.
    pub(super) async fn credit(&mut self) -> Permit {
        match &mut self.stalled {
            Some((_, acquire, _)) => acquire.await,
            None => std::future::pending().await,
        }
    }

    /// Sends the waiting routes to the table with `permit`.
    pub(super) fn on_credit(&mut self, permit: Permit) {
        if let Some((batch, ..)) = self.stalled.take() {
            self.table.batch(self.peer, batch, permit);
        }
    }

    /// Sends the turn's routes to the table, or keeps them until there is credit.
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

    /// Sends the waiting routes to the table without waiting for credit.
    pub(super) fn catch_up(&mut self) {
        if let Some((batch, ..)) = self.stalled.take() {
            let permit = self.credit.overdraw(batch.size());
            self.table.batch(self.peer, batch, permit);
        }
    }

    /// A session is established. The table returns its readers once it has processed this.
    pub(super) fn up(&mut self, negotiated: Arc<Negotiated>) -> oneshot::Receiver<Vec<Reader>> {
        let id = self.table.new_session();
        self.session = Some(Session {
            id,
            negotiated: Arc::clone(&negotiated),
            mirrored: Accepted::default(),
        });
        self.table.peer_up(self.peer, id, negotiated)
    }

    /// The session has ended. `batch` says whether the routes in hand are its own, or those of a
    /// session that replaced it in the same turn. Without `keep`, pending routes of the ended
    /// session are dropped, because the table removes all its routes.
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

    /// A message of the session was treated as erroneous: stations may be sent it.
    pub(super) fn faulty(&mut self, message: Arc<[u8]>) {
        if let Some(session) = &mut self.session {
            session.mirrored = self.table.mirror(self.peer, session.id, message, session.mirrored);
        }
    }

    /// Why the session is about to end, for monitoring stations.
    pub(super) fn closing(&self, reason: &Close) {
        if let Some(Session { id, negotiated, mirrored }) = &self.session {
            if *mirrored == Accepted::Lost {
                self.table.mirror_lost(self.peer, *id);
            }
            self.table.peer_closing(self.peer, *id, down_reason(reason, negotiated));
        }
    }

    /// The peer's task has panicked: its unfinished batch is discarded, because it may be
    /// inconsistent. The session ends like one whose TCP connection is lost. Returns whether there
    /// was one.
    pub(super) fn abandon(&mut self) -> bool {
        self.batch = RouteBatch::default();
        let Some(session) = &self.session else { return false };
        let keep = session.negotiated.keep_if_lost();
        self.down(keep, Batch::OfThisSession);
        true
    }
}

/// The reason as a Peer Down states it (RFC 7854 §4.9). Events of the FSM: RFC 4271 §8.1.
fn down_reason(reason: &Close, negotiated: &Negotiated) -> DownReason {
    let encoded = |notification: &Notification| {
        let mut octets = Vec::new();
        notification.encode(&mut octets);
        octets
    };
    match reason {
        Close::Received(notification) => DownReason::RemoteNotification(encoded(notification)),
        Close::Transport { .. } => DownReason::RemoteClosed,
        // 8: AutomaticStop. 29: SendHoldTimer_Expires (RFC 9687 §3).
        Close::SendHoldTimerExpired => DownReason::LocalEvent(29),
        other => match other.notification(Some(negotiated)) {
            Some(notification) => DownReason::LocalNotification(encoded(&notification)),
            None => DownReason::LocalEvent(8),
        },
    }
}

/// The session whose routes are in the turn's batch when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    OfThisSession,
    OfTheNext,
}
