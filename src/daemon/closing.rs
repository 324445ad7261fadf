//! Sessions that the table wants closed.

use bgp_proto::table::{CloseReason, MemoryBound};
use bgp_proto::types::{PeerId, SessionId};
use tracing::warn;

use super::Daemon;
use crate::event_names::LIMIT_PASSED;

impl Daemon {
    pub(super) fn close_for_table(&self, peer: PeerId, session: SessionId, reason: CloseReason) {
        let Some(record) = self.peers.registry().get(peer) else { return };
        let (text, key) = match reason {
            CloseReason::PrefixLimit { family, bound } => {
                (format!("more than {bound} {family} prefixes"), Some("prefixes-max"))
            }
            CloseReason::MemoryLimit { bound_of: MemoryBound::Peer, held, bound } => (
                format!("its routes hold {} MiB, more than {}", held >> 20, bound >> 20),
                Some("memory-max"),
            ),
            CloseReason::MemoryLimit { bound_of: MemoryBound::Table, held, bound } => (
                format!(
                    "all routes hold {} MiB, more than {}, and this peer's routes hold most of it",
                    held >> 20,
                    bound >> 20
                ),
                Some(self.memory_key()),
            ),
            CloseReason::TooManyGroups { bound } => {
                (format!("it would need one update group more than {bound}"), Some("groups-max"))
            }
            CloseReason::TooSlow => ("reads too slowly".to_owned(), None),
            other => (format!("{other:?}"), None),
        };
        let key = key.map(|key| format!(" ({key})")).unwrap_or_default();
        warn!(event = LIMIT_PASSED, peer = %record.name, "{text}: the session is closed{key}");
        record.handle.end(session, reason.to_close());
    }
}
