//! Numbers as Prometheus reads them.
//!
//! How many series there are does not depend on how many peers there are: sessions are counted by
//! state and kind, routes by family and kind. Only the peers in [`MetricsSnapshot::peers`] have
//! series of their own, and whoever makes the snapshot bounds their number.

mod bfd;
mod families;
mod host;
mod peers;
mod table;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;

pub use bfd::BfdMetrics;
pub use host::{CalicoMetrics, FibMetrics, SourceMetrics};
pub use peers::{PeerMetrics, PrefixCounts, SessionMetrics, Traffic};
pub use table::{GROUPS_MAX, GroupMetrics, TableMetrics};

use crate::metric_names as names;
use crate::version;
use families::Families;

/// Everything that a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// Whether nothing is missing for being ready.
    pub ready: bool,
    /// Lines of the log that were dropped because nobody took them.
    pub log_lines_dropped: u64,
    /// Panics that ended one session or one client.
    pub contained_panics: u64,
    /// The parts that must make progress, and whether each answered in time.
    pub parts: Vec<(String, bool)>,
    /// All sessions together.
    pub sessions: SessionMetrics,
    /// The peers with metrics of their own.
    pub peers: Vec<PeerMetrics>,
    /// The table; `None` if it does not answer.
    pub table: Option<TableMetrics>,
    /// The kernel's routes of ours; `None` if none are written.
    pub fib: Option<FibMetrics>,
    /// BFD; `None` if no peer has it.
    pub bfd: Option<BfdMetrics>,
    /// On a Calico node: what is known about its objects.
    pub calico: Option<CalicoMetrics>,
    /// Histograms that others keep, under their own names.
    pub histograms: Vec<MetricFamily>,
}

impl MetricsSnapshot {
    /// The text exposition format, with the usual metrics of the process.
    pub fn render(&self) -> String {
        let mut families = Families::default();
        families.gauge(
            names::BUILD_INFO,
            "1, with version and commit.",
            &[("version", version::VERSION), ("commit", version::COMMIT)],
            1,
        );
        families.gauge(
            names::READY,
            "Whether margay is ready to serve, as /readiness says with the reason.",
            &[],
            u64::from(self.ready),
        );
        for (name, help, count) in [
            (
                names::LOG_LINES_DROPPED_TOTAL,
                "Lines of the log that were dropped because whoever reads standard error did not \
                 take them in time.",
                self.log_lines_dropped,
            ),
            (
                names::CONTAINED_PANICS_TOTAL,
                "Faults in the program that ended one session or one client only. The log has the \
                 place of each: please report it.",
                self.contained_panics,
            ),
        ] {
            families.counter(name, help, &[], count);
        }
        for (part, answers) in &self.parts {
            families.gauge(
                names::PART_RESPONDING,
                "Whether a part of the daemon answered in time when this scrape asked it. 0 also \
                 fails /liveness, which says since when.",
                &[("part", part)],
                u64::from(*answers),
            );
        }
        self.sessions.collect(&mut families);
        families.gauge(
            names::PEERS_WITH_SERIES,
            "Peers that have metrics of their own (http.peer-series).",
            &[],
            self.peers.len() as u64,
        );
        for peer in &self.peers {
            peer.collect(&mut families);
        }
        if let Some(table) = &self.table {
            table.collect(&mut families);
        }
        if let Some(fib) = &self.fib {
            fib.collect(&mut families);
        }
        if let Some(bfd) = &self.bfd {
            bfd.collect(&mut families);
        }
        if let Some(calico) = &self.calico {
            calico.collect(&mut families);
        }
        let mut all = families.into_vec();
        all.extend(self.histograms.iter().cloned());
        all.extend(ProcessCollector::for_self().collect());
        // The encoder fails for families without a name or without metrics; ours have both.
        TextEncoder::new().encode_to_string(&all).unwrap_or_default()
    }
}
