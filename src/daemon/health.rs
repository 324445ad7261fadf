//! What `/metrics` and the probes are told.

use bgp_proto::session::PeerConfig;

use super::answers::Answers;
use crate::datastore::State;
use crate::http::{CalicoMetrics, FibMetrics, MetricsSnapshot, PeerMetrics, Source};
use crate::node::NodeStatus;

impl Source for Answers {
    async fn metrics(&self) -> MetricsSnapshot {
        let records = self.registry().all();
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let table = self.table();
        let numbers = table.ask(move |table, _| {
            let counts: Vec<_> = ids.iter().map(|id| table.counts(*id)).collect();
            (counts, table.totals(), table.groups())
        });
        // While the daemon stops there is no table to ask: a scrape then shows an empty one.
        let (counts, totals, groups) = numbers.await.unwrap_or_default();
        let now = table.clock().now();
        let peers = records.iter().zip(counts).map(|(record, counts)| {
            let snapshot = record.handle.snapshot();
            let PeerConfig { address, remote_asn, .. } = *record.session;
            PeerMetrics {
                name: record.name.to_string(),
                address,
                remote_asn,
                state: snapshot.state,
                state_seconds: now.since(snapshot.since).as_secs(),
                stats: snapshot.stats,
                counts,
                last_error: snapshot.last_error.map(|error| (error.origin, error.code)),
            }
        });
        let kernel = self.kernel().counters();
        MetricsSnapshot {
            peers: peers.collect(),
            totals,
            groups,
            fib: self.writes_routes().then_some(FibMetrics {
                installed: kernel.installed,
                pending: kernel.pending,
                failed: kernel.failed,
                foreign: kernel.foreign,
                writes: kernel.writes,
                batches: kernel.batches,
                errors: kernel.errors,
                resyncs: kernel.resyncs,
            }),
            calico: self.node_status().map(|status| calico(&status)),
            ready: Answers::not_ready(self).is_none(),
        }
    }

    /// The table's thread is the part that everything waits for.
    async fn alive(&self) {
        let _ = self.table().ask(|_, _| ()).await;
    }

    async fn not_ready(&self) -> Option<String> {
        Answers::not_ready(self)
    }
}

fn calico(status: &NodeStatus) -> CalicoMetrics {
    let mut problems = std::collections::BTreeMap::new();
    for problem in status.problems.iter() {
        let kind = problem.object.split_once('/').map_or("other", |(kind, _)| kind);
        // Files are named by their paths, which begin with a slash or are no kind.
        let is_kind =
            !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        *problems.entry(if is_kind { kind } else { "other" }.to_owned()).or_insert(0) += 1;
    }
    let is_current = |state: &State| matches!(state, State::Current { .. });
    CalicoMetrics {
        in_force: status.in_force,
        problems,
        sources: status.sources.iter().map(|s| (s.name.clone(), is_current(&s.state))).collect(),
        plans: status.plans,
        planning_micros: u64::try_from(status.planning.as_micros()).unwrap_or(u64::MAX),
    }
}
