//! What operators see of a peer: its snapshot, and its log lines.

use std::fmt::Write;
use std::sync::PoisonError;

use bgp_proto::session::{Close, Keep, LastError, Negotiated, Origin, State};
use bgp_proto::types::{Family, FamilySet, Time, off_interface};
use tracing::{debug, info, warn};

use super::PeerTask;
use super::recorded::about;
use crate::event_names::{SESSION_DOWN, SESSION_FAILED, SESSION_UP, STALE_KEPT};
use crate::net::meant::{is_meant, is_request};

/// Writes a line at INFO if what it reports was meant, otherwise at WARN.
macro_rules! info_or_warn {
    ($is_meant:expr, $($line:tt)*) => {
        if $is_meant { info!($($line)*) } else { warn!($($line)*) }
    };
}

/// Maximum number of different reasons that are remembered as logged.
const SAID_MAX: usize = 8;

impl PeerTask {
    pub(super) fn log_up(&self, negotiated: &Negotiated) {
        info!(
            event = SESSION_UP,
            peer = %self.name,
            "session established with {} (AS {}, id {}, hold time {} s, {})",
            off_interface(negotiated.remote_addr).0,
            negotiated.peer_asn,
            negotiated.peer_router_id,
            negotiated.hold_time.as_secs(),
            listed(negotiated.families),
        );
    }

    pub(super) fn log_down(&mut self, reason: &Close, keep: Option<&Keep>) {
        let error = self.session.last_error();
        let text = error.map(|error| error.text.clone()).unwrap_or_default();
        let colon = if text.is_empty() { "" } else { ": " };
        info_or_warn!(
            is_meant(reason),
            event = SESSION_DOWN,
            peer = %self.name,
            reason = text,
            direction = error.map(direction),
            code = error.and_then(|error| error.code).map(|code| code.code),
            subcode = error.and_then(|error| error.code).map(|code| code.subcode),
            "session closed{colon}{text}"
        );
        for text in keep.iter().flat_map(|keep| kept(keep)) {
            info!(event = STALE_KEPT, peer = %self.name, "{text}");
        }
        self.said = vec![text];
    }

    /// Logs state changes at `debug`, and at `warn` why there is no session, when that has changed.
    fn log_attempt(&mut self, before: State) {
        let state = self.session.state();
        if state != before {
            debug!(peer = %self.name, "state {before:?} to {state:?}");
        }
        if state == State::Established {
            self.said.clear();
            return;
        }
        let Some(error) = self.session.last_error() else { return };
        if !self.said.contains(&error.text) {
            let text = error.text.clone();
            let more = match &self.session.config().idle {
                Some(_) => "",
                None => "; retrying, further attempts are not logged",
            };
            info_or_warn!(
                error.code.is_some_and(is_request),
                event = SESSION_FAILED,
                peer = %self.name,
                reason = text,
                direction = direction(error),
                code = error.code.map(|code| code.code),
                subcode = error.code.map(|code| code.subcode),
                "no session: {text}{more}"
            );
            if self.said.len() == SAID_MAX {
                self.said.clear();
            }
            self.said.push(text);
        }
    }

    pub(super) fn publish(&mut self) {
        let (before, errors_differ) = self.publish_snapshot();
        let state = self.session.state();
        if before != state && self.tap.is_on(&self.name) {
            let ends = self.conns.iter().flatten().map(|conn| conn.addresses()).next();
            self.tap.state_changed(&about(&self.session, ends), before, state);
        }
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
            snapshot.last_bgp_error = self.session.last_bgp_error().cloned();
        }
        snapshot.stats = self.stats_before;
        snapshot.stats += self.session.stats();
        (before, errors_differ)
    }
}

/// How long the routes of a session that has ended are retained, as the peer asked for; a line for
/// each family.
fn kept(keep: &Keep) -> Vec<String> {
    let mut lines = Vec::new();
    for family in Family::ALL {
        if let Some((restart, long_lived)) = keep.of(family) {
            let secs = restart.as_secs();
            let mut line = format!("its {family} routes are kept for {secs} s (RFC 4724)");
            if !long_lived.is_zero() {
                let _ = write!(
                    line,
                    ", then as long-lived stale for {} s (RFC 9494)",
                    long_lived.as_secs()
                );
            }
            lines.push(line);
        }
    }
    lines
}

/// The names of families: `ipv4, ipv6`.
fn listed(families: FamilySet) -> String {
    families.iter().map(|family| family.to_string()).collect::<Vec<_>>().join(", ")
}

fn direction(error: &LastError) -> &'static str {
    match error.origin {
        Origin::Sent => "sent",
        Origin::Received => "received",
        Origin::Local => "local",
    }
}
