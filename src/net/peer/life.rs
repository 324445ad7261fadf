//! What happens when a peer's task panics: its session ends, and it starts again after a pause.
//!
//! A bug that one peer's octets can trigger must end that peer's session, must not leave its routes
//! behind, and must not affect any other peer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{LastError, Origin, Peer};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::error;

use super::{NO_DEADLINE, PeerEvent, PeerTask};
use crate::event_names::SESSION_FAULT;
use crate::net::allowance::Allowance;
use crate::net::closers::Closers;

/// How long a peer whose task has panicked stays without a session: the first time, and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A task that ran for this long starts again with the shortest pause.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

impl PeerTask {
    /// Runs the task, and again when it has panicked, until the peer is removed.
    pub(super) async fn live(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let began = Instant::now();
            if AssertUnwindSafe(self.run()).catch_unwind().await.is_ok() {
                break;
            }
            if began.elapsed() >= FORGIVEN_AFTER {
                pause = PAUSE_MIN;
            }
            self.bury(pause);
            if self.terminating || self.rest(pause).await == Rest::CutShort {
                break;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let _ = self.events.send(PeerEvent::Ended(self.id));
    }

    /// Resets the state that the panic left. Connections close without a NOTIFICATION, so that the
    /// peer keeps our routes, as for a restart of ours (RFC 4724 §4.2).
    fn bury(&mut self, pause: Duration) {
        self.conns = [None, None, None];
        self.blocked = [false; 3];
        self.early = None;
        self.dial = None;
        self.readers = None;
        self.closers = Closers::default();
        let had_session = self.stream.abandon();
        let text = format!("internal error: started again in {} s", pause.as_secs());
        error!(event = SESSION_FAULT, peer = %self.name, "{text}");
        self.stats_before += self.session.stats();
        self.seed = self.seed.wrapping_add(1);
        self.session = Peer::new(Arc::clone(self.session.config()), self.seed);
        let at = self.now();
        self.session.set_last_error(LastError { at, origin: Origin::Local, code: None, text });
        self.grace.end_solitude();
        self.allowance = Allowance::new();
        self.rests_until = None;
        self.keys_due = None;
        self.spent = 0;
        self.timer = Box::pin(tokio::time::sleep(NO_DEADLINE));
        self.publish();
        if had_session {
            let _ = self.events.send(PeerEvent::Down(self.id));
        }
    }

    /// Waits for `pause`, or until the peer is removed. Mail that arrives meanwhile stays in the
    /// mailbox for the next run of the task.
    async fn rest(&mut self, pause: Duration) -> Rest {
        let until = Instant::now() + pause;
        loop {
            if self.mailbox.is_terminated() {
                return Rest::CutShort;
            }
            if tokio::time::timeout_at(until, self.mailbox.arrival()).await.is_err() {
                return Rest::Over;
            }
        }
    }
}

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Over,
    /// The peer is being removed.
    CutShort,
}
