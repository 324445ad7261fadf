//! Log lines about the routes that lost neighbours left (RFC 4724, RFC 9494).

use bgp_proto::table::{RetainedPhase, Returned, TableEvent};
use tracing::info;

use super::Daemon;
use crate::event_names::{STALE_LONG_LIVED, STALE_REMOVED};
use crate::plural::counted;

impl Daemon {
    /// Logs an event of stale routes; others are not about them.
    pub(super) fn log_stale(&self, event: &TableEvent) {
        let (peer, text) = match event {
            TableEvent::StaleRemoved { peer, family, count, returned, phase } => {
                let why = removal(*returned, *phase);
                let routes = counted(*count, &format!("stale {family} route"));
                (peer, format!("{routes} withdrawn: {why}"))
            }
            TableEvent::LongLivedStale { peer, family, count, time } => {
                let secs = time.as_secs();
                let text = format!(
                    "the restart time is over: {count} {family} routes are long-lived stale, for \
                     {secs} s at most"
                );
                (peer, text)
            }
            TableEvent::Synchronised { peer, family, count } => {
                let text = format!(
                    "End-of-RIB: no {family} route is long-lived stale any more, {count} were not \
                     announced again"
                );
                (peer, text)
            }
            TableEvent::NotLongLived { peer, family, count } => {
                let routes = counted(*count, &format!("stale {family} route"));
                (peer, format!("{routes} withdrawn: NO_LLGR"))
            }
            _ => return,
        };
        let Some(record) = self.peers.registry().get(*peer) else { return };
        let name = &record.name;
        match event {
            TableEvent::LongLivedStale { .. } => {
                info!(event = STALE_LONG_LIVED, peer = %name, "{text}")
            }
            _ => info!(event = STALE_REMOVED, peer = %name, "{text}"),
        }
    }
}

/// Why stale routes are withdrawn.
fn removal(returned: Returned, phase: RetainedPhase) -> &'static str {
    match (returned, phase) {
        (Returned::Yes, _) => "not announced again",
        (Returned::Unpreserved, _) => "the peer returned without its forwarding state (F bit)",
        (Returned::No, RetainedPhase::Restart) => "the peer did not return within the restart time",
        (Returned::No, RetainedPhase::LongLived) => {
            "the peer did not return within the long-lived stale time"
        }
    }
}
