//! Metrics in Prometheus's text format and in OpenMetrics.
//!
//! The number of series does not depend on the number of peers: sessions are counted by state and
//! kind, routes by family and kind. Only the peers in [`MetricsSnapshot::peers`] have their own
//! series, and the creator of the snapshot limits their number.

mod bfd;
mod discovery;
mod families;
mod host;
pub(super) mod open_metrics;
mod peers;
mod stations;
mod table;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;

pub use bfd::BfdMetrics;
pub use discovery::RouterDiscoveryMetrics;
pub use host::{CalicoMetrics, FibMetrics, MrtMetrics, SourceMetrics};
pub use peers::{PeerMetrics, PrefixCounts, SessionMetrics, Traffic};
pub use stations::StationMetrics;
pub use table::{GROUPS_MAX, GroupMetrics, TableMetrics};

use crate::metric_names as names;
use crate::version;
use families::Families;

/// Everything that a scrape returns, apart from the metrics of the process.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// Whether margay is ready.
    pub ready: bool,
    /// Whether every peer is drained, including those added later.
    pub drained: bool,
    /// Peers that are drained, by name or with all others.
    pub peers_drained: u64,
    /// Events since the start, by name.
    pub events: Vec<(&'static str, u64)>,
    /// Whether the last reload was refused.
    pub reload_refused: bool,
    /// When the configuration in force was read, in seconds since 1970.
    pub config_read: f64,
    /// Routes that operators announced.
    pub announced: u64,
    /// Whether the last reload is to be confirmed.
    pub reload_unconfirmed: bool,
    /// Whether the last reload was undone, so that the file is not in force.
    pub reload_undone: bool,
    /// Log lines that were dropped because the reader of the log was too slow.
    pub log_lines_dropped: u64,
    /// What is recorded in MRT files; `None`: nothing is configured.
    pub mrt: Option<MrtMetrics>,
    /// Monitoring stations.
    pub stations: Vec<StationMetrics>,
    /// Panics that ended only one session or one client.
    pub contained_panics: u64,
    /// The parts of the daemon, and whether each answered in time.
    pub parts: Vec<(String, bool)>,
    /// All sessions together.
    pub sessions: SessionMetrics,
    /// Segments that the kernel dropped for their signature, by its kind and the reason; empty if it
    /// does not count them.
    pub signature_drops: Vec<(&'static str, &'static str, u64)>,
    /// The peers with their own series.
    pub peers: Vec<PeerMetrics>,
    /// The table; `None` if it does not answer.
    pub table: Option<TableMetrics>,
    /// Our routes in the kernel; `None` if none are installed by configuration.
    pub fib: Option<FibMetrics>,
    /// The VRFs beside the default VRF that exist, whose series have the label `vrf`.
    pub vrfs: Vec<VrfMetrics>,
    /// BFD; `None` if there are no sessions.
    pub bfd: Option<BfdMetrics>,
    /// Router discovery; `None` if no neighbour is found by it.
    pub router_discovery: Option<RouterDiscoveryMetrics>,
    /// On a Calico node: the status of its objects.
    pub calico: Option<CalicoMetrics>,
    /// Histograms of other modules, under their own names.
    pub histograms: Vec<MetricFamily>,
}

/// Numbers of a VRF.
#[derive(Clone, Debug, Default)]
pub struct VrfMetrics {
    /// Its name.
    pub name: String,
    /// Its table; `None` if it does not answer.
    pub table: Option<TableMetrics>,
    /// Our routes in the kernel; `None` if none are installed by configuration.
    pub fib: Option<FibMetrics>,
}

impl MetricsSnapshot {
    /// Renders the text exposition format, including the usual metrics of the process.
    pub fn render(&self) -> String {
        // The encoder fails only for families without a name or without metrics; ours have both.
        TextEncoder::new().encode_to_string(&self.families()).unwrap_or_default()
    }

    /// The same in OpenMetrics.
    pub fn render_open_metrics(&self) -> String {
        open_metrics::encode(&self.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
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
        families.gauge(
            names::DRAINED,
            "Whether every peer is drained (RFC 8326), those that come later too.",
            &[],
            u64::from(self.drained),
        );
        families.gauge(
            names::PEERS_DRAINED,
            "Peers that are drained (RFC 8326), by name or with all others.",
            &[],
            self.peers_drained,
        );
        self.collect_events(&mut families);
        if let Some(mrt) = &self.mrt {
            mrt.collect(&mut families);
        }
        self.stations.iter().for_each(|station| station.collect(&mut families));
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
        for (signature, reason, count) in &self.signature_drops {
            families.counter(
                names::SIGNATURE_DROPS_TOTAL,
                "Segments that the kernel dropped because of TCP MD5 or TCP-AO, of all connections in \
                 the network namespace since it exists: they were not signed, were signed though no \
                 such key is held, or were signed wrongly.",
                &[("signature", signature), ("reason", reason)],
                *count,
            );
        }
        families.gauge(
            names::PEERS_WITH_SERIES,
            "Peers that have metrics of their own (http.peer-series).",
            &[],
            self.peers.len() as u64,
        );
        for peer in &self.peers {
            families.set_vrf(peer.vrf.as_deref());
            peer.collect(&mut families);
        }
        families.set_vrf(None);
        if let Some(table) = &self.table {
            table.collect(&mut families);
        }
        if let Some(fib) = &self.fib {
            fib.collect(&mut families);
        }
        for vrf in &self.vrfs {
            families.set_vrf(Some(&vrf.name));
            vrf.table.iter().for_each(|table| table.collect(&mut families));
            vrf.fib.iter().for_each(|fib| fib.collect(&mut families));
        }
        families.set_vrf(None);
        if let Some(bfd) = &self.bfd {
            bfd.collect(&mut families);
        }
        if let Some(discovery) = &self.router_discovery {
            discovery.collect(&mut families);
        }
        if let Some(calico) = &self.calico {
            calico.collect(&mut families);
        }
        let mut all = families.into_vec();
        all.extend(self.histograms.iter().cloned());
        all.extend(ProcessCollector::for_self().collect());
        all
    }

    fn collect_events(&self, families: &mut Families) {
        families.gauge(
            names::ANNOUNCED_ROUTES,
            "Routes that operators announced (margay announce).",
            &[],
            self.announced,
        );
        families.gauge(
            names::RELOAD_REFUSED,
            "Whether the last reload was refused: the next start would fail. show status has the \
             faults.",
            &[],
            u64::from(self.reload_refused),
        );
        families.gauge(
            names::CONFIG_LAST_RELOAD_SUCCESS,
            "Whether the last reload, or else the start, put the configuration in force.",
            &[],
            u64::from(!self.reload_refused),
        );
        families.fraction(
            names::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS,
            "When the configuration in force was read, in seconds since 1970: the last reload that was \
             not refused, or the start. On a Calico node also when its objects changed it.",
            &[],
            self.config_read,
        );
        families.gauge(
            names::RELOAD_UNCONFIRMED,
            "Whether the last reload is undone unless it is confirmed. show status has the time.",
            &[],
            u64::from(self.reload_unconfirmed),
        );
        families.gauge(
            names::RELOAD_UNDONE,
            "Whether the last reload was undone as it was not confirmed: the file is not in force.",
            &[],
            u64::from(self.reload_undone),
        );
        for (event, count) in &self.events {
            families.counter(
                names::EVENTS_TOTAL,
                "Changes of state since the start, by name, as in margay events.",
                &[("event", event)],
                *count,
            );
        }
    }
}
