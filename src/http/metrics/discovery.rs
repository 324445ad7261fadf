//! Metrics of router discovery on all interfaces together.

use bgp_proto::ndp::{Discard, Stats};

use super::families::Families;
use crate::metric_names as names;

/// Router discovery on all interfaces. An interface that is removed takes its counts with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterDiscoveryMetrics(pub Stats);

impl RouterDiscoveryMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        let Stats { advertisements, solicitations, sent, discarded } = self.0;
        for (kind, count) in [("advertisement", advertisements), ("solicitation", solicitations)] {
            families.counter(
                names::ROUTER_DISCOVERY_PACKETS_RECEIVED_TOTAL,
                "Valid router advertisements and solicitations of others (RFC 4861).",
                &[("kind", kind)],
                count,
            );
        }
        families.counter(
            names::ROUTER_DISCOVERY_PACKETS_SENT_TOTAL,
            "Router advertisements and solicitations sent.",
            &[],
            sent,
        );
        for (reason, count) in Discard::ALL.into_iter().zip(discarded) {
            families.counter(
                names::ROUTER_DISCOVERY_PACKETS_DISCARDED_TOTAL,
                "Router advertisements and solicitations that were dropped, by reason (RFC 4861 §6.1). \
                 Of a flood only a sample is looked at.",
                &[("reason", reason.name())],
                count,
            );
        }
    }
}
