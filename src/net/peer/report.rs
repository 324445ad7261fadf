//! What operators see of a peer: its snapshot, and its log lines.

use std::fmt::Write;
use std::sync::PoisonError;

use bgp_proto::session::{Keep, Negotiated, State};
use bgp_proto::types::{Family, Time, off_interface};
use tracing::{debug, info, warn};

use super::PeerTask;

impl PeerTask {
    pub(super) fn log_up(&self, negotiated: &Negotiated) {
        info!(
            peer = %self.name,
            "session established with {} (AS {}, id {}, hold time {} s, {:?})",
            off_interface(negotiated.remote_addr).0,
            negotiated.peer_asn,
            negotiated.peer_router_id,
            negotiated.hold_time.as_secs(),
            negotiated.families,
        );
    }

    pub(super) fn log_down(&mut self, keep: Option<Keep>) {
        let error = self.session.last_error().map(|error| error.text.clone());
        let kept = keep.map(|keep| kept(&keep)).unwrap_or_default();
        match &error {
            Some(text) => warn!(peer = %self.name, "session closed: {text}{kept}"),
            None => warn!(peer = %self.name, "session closed{kept}"),
        }
        self.said = error;
    }

    /// Logs state changes at `debug`, and at `warn` why there is no session, when that has changed.
    fn log_attempt(&mut self, before: State) {
        let state = self.session.state();
        if state != before {
            debug!(peer = %self.name, "state {before:?} to {state:?}");
        }
        if state == State::Established {
            self.said = None;
            return;
        }
        let error = self.session.last_error().map(|error| &error.text);
        if error.is_some() && error != self.said.as_ref() {
            self.said = error.cloned();
            let text = self.said.as_deref().unwrap_or_default();
            match &self.session.config().idle {
                Some(_) => warn!(peer = %self.name, "no session: {text}"),
                None => warn!(
                    peer = %self.name,
                    "no session: {text}; retrying, further attempts are not logged"
                ),
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let (before, errors_differ) = self.publish_snapshot();
        if errors_differ || before != self.session.state() {
            self.log_attempt(before);
        }
    }

    /// Returns the state that was published before, and whether the last error has changed.
    fn publish_snapshot(&self) -> (State, bool) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let before = snapshot.state;
        if snapshot.state != self.session.state() || snapshot.since != self.session.state_since() {
            snapshot.state = self.session.state();
            snapshot.since = self.session.state_since();
            snapshot.negotiated = self.session.negotiated().cloned();
            if self.session.session_since() > Time::ZERO {
                snapshot.session_since = self.session.session_since();
            }
        }
        snapshot.session = self.stream.session();
        snapshot.timers = self.session.timers();
        snapshot.deadline = self.session.poll_timeout().map(|(at, _)| at);
        let errors_differ =
            snapshot.last_error.as_ref().map(|e| e.at) != self.session.last_error().map(|e| e.at);
        if errors_differ {
            snapshot.last_error = self.session.last_error().cloned();
        }
        snapshot.stats = self.stats_before;
        snapshot.stats += self.session.stats();
        snapshot.sent = self.sent;
        (before, errors_differ)
    }
}

/// How long the routes of a session that has ended are retained, as the peer asked for.
fn kept(keep: &Keep) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        if let Some((restart, long_lived)) = keep.of(family) {
            let _ = write!(text, "; {family} routes are kept for {} s", restart.as_secs());
            if !long_lived.is_zero() {
                let _ = write!(text, ", then as long-lived stale for {} s", long_lived.as_secs());
            }
        }
    }
    text
}
