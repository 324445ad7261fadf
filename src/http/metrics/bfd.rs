//! Metrics of all BFD sessions together.

use std::collections::BTreeMap;

use super::families::Families;
use crate::metric_names as names;

/// All BFD sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BfdMetrics {
    /// Sessions by state, with an entry for every state.
    pub sessions: BTreeMap<String, u64>,
    /// How often sessions failed.
    pub failures: u64,
    /// Packets that were dropped, by reason.
    pub discards: BTreeMap<String, u64>,
    /// Packets that the kernel dropped because we read too slowly.
    pub overflows: u64,
}

impl BfdMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        for (state, count) in &self.sessions {
            families.gauge(
                names::BFD_SESSIONS,
                "BFD sessions by state: margay show bfd lists them.",
                &[("state", state)],
                *count,
            );
        }
        families.counter(
            names::BFD_FAILURES_TOTAL,
            "BFD sessions that went down because the path or the neighbour failed; ends that \
             somebody asked for (AdminDown) do not count.",
            &[],
            self.failures,
        );
        for (reason, count) in &self.discards {
            families.counter(
                names::BFD_PACKETS_DISCARDED_TOTAL,
                "Received BFD packets that were dropped, by reason (RFC 5880 §6.8.6). Of a flood \
                 only a sample is looked at.",
                &[("reason", reason)],
                *count,
            );
        }
        families.counter(
            names::BFD_PACKETS_OVERFLOW_TOTAL,
            "BFD packets for no established session that the kernel dropped because too many came.",
            &[],
            self.overflows,
        );
    }
}
