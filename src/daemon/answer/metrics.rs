//! The content of `/metrics`, collected from its owners.
//!
//! The table is queried in pages, and everything else is read without it. If the table does not
//! answer, a scrape still returns the rest, which is most needed then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bgp_proto::session::PeerConfig;
use bgp_proto::table::PeerCounts;
use bgp_proto::types::{Family, PeerId, PeerType, Time, off_interface};
use tokio::time::timeout;

use super::bfd::BfdView;
use super::contested::contested;
use super::draining::DrainView;
use super::liveness::{LivenessView, Part};
use super::readiness::ReadinessView;
use super::sources::Sources;
use super::state::Node;
use crate::calico::Problem;
use crate::config::{PeerChoice, PeerSeries};
use crate::daemon::confirmation::Condition;
use crate::daemon::registry::{Record, traffic};
use crate::datastore::State;
use crate::discovery::Statuses;
use crate::engine::Handle;
use crate::http::{
    CalicoMetrics, FibMetrics, GROUPS_MAX, GroupMetrics, MetricsSnapshot, MrtMetrics, PeerMetrics,
    PrefixCounts, RouterDiscoveryMetrics, SessionMetrics, SourceMetrics, TableMetrics, Traffic,
    VrfMetrics,
};
use crate::kernel::Fib;
use crate::logging::Log;
use crate::mrt::Recorder;
use crate::net::{PeerNumbers, SessionCounters, signature_drops};
use crate::supervise::Supervisor;

/// How long a scrape waits for a part.
const PART_WAIT: Duration = Duration::from_secs(2);
/// Peers whose counters are queried at once: about a millisecond of the table's time.
const COUNTS_PAGE: usize = 2500;
/// How long a change counts in the ranking of peers: its weight decays to 1/e in this time.
const RANKING_MEMORY: Duration = Duration::from_secs(300);

/// Ranks peers by their changes over the last minutes. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Ranking(Arc<Mutex<Ranks>>);

#[derive(Default)]
struct Ranks {
    at: Time,
    peers: BTreeMap<PeerId, Rank>,
}

#[derive(Clone, Copy, Default)]
struct Rank {
    /// The counter at the last ranking.
    seen: u64,
    /// The sum of the changes so far, each with its decayed weight.
    weight: f64,
}

impl Ranking {
    /// Updates the ranking with the counters of all peers at `now`. Returns the peers, those that
    /// change most first, and equal ones by id.
    fn rank(&self, now: Time, counters: impl IntoIterator<Item = (PeerId, u64)>) -> Vec<PeerId> {
        let mut ranks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.since(ranks.at).as_secs_f64();
        let fading = (-elapsed / RANKING_MEMORY.as_secs_f64()).exp();
        ranks.at = now;
        let before = std::mem::take(&mut ranks.peers);
        for (peer, count) in counters {
            // A counter that has fallen belongs to another peer that now has the id.
            let known = before.get(&peer).copied().filter(|rank| rank.seen <= count);
            let weight =
                known.map_or(0.0, |rank| rank.weight * fading + (count - rank.seen) as f64);
            ranks.peers.insert(peer, Rank { seen: count, weight });
        }
        let mut order: Vec<(PeerId, f64)> =
            ranks.peers.iter().map(|(peer, rank)| (*peer, rank.weight)).collect();
        order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        order.into_iter().map(|(peer, _)| peer).collect()
    }
}

/// How many of `peers` have their own metric series.
fn shown(series: PeerSeries, peers: usize) -> usize {
    let PeerSeries { choice, max, top } = series;
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    match choice {
        PeerChoice::None => 0,
        PeerChoice::Top => count(top).min(peers),
        PeerChoice::All => count(max).min(peers),
        PeerChoice::Auto if peers <= count(max) => peers,
        PeerChoice::Auto => count(top).min(peers),
    }
}

/// The kind of a session, as a label value.
fn kind(record: &Record) -> &'static str {
    match record.session.peer_type() {
        _ if record.is_dynamic() => "dynamic",
        PeerType::Internal => "internal",
        PeerType::External => "external",
    }
}

/// The same on a Calico node, where session names begin with their purpose.
fn calico_kind(record: &Record) -> &'static str {
    let by_name = [
        ("Mesh_", "mesh"),
        ("Global_", "global"),
        ("Node_", "node"),
        ("Local_Workload_", "local-workload"),
    ];
    let named = by_name.into_iter().find(|(prefix, _)| record.name.starts_with(prefix));
    named.map_or_else(|| kind(record), |(_, kind)| kind)
}

/// The kind of a session, on a Calico node or elsewhere.
pub(super) fn kind_in(is_node: bool, record: &Record) -> &'static str {
    if is_node { calico_kind(record) } else { kind(record) }
}

/// A peer at the time of a scrape.
struct Found {
    record: Arc<Record>,
    numbers: PeerNumbers,
    kind: &'static str,
    counts: Option<PeerCounts>,
}

impl Found {
    fn changes(&self) -> u64 {
        let routes = |counts: &PeerCounts| {
            Family::ALL.into_iter().map(|family| counts.imports[family].changes()).sum::<u64>()
        };
        self.numbers.stats.established_transitions + self.counts.as_ref().map_or(0, routes)
    }

    fn is_near_limit(&self) -> bool {
        let Some(bound) = self.record.routes.limits.warning_at() else { return false };
        self.counts.as_ref().is_some_and(|counts| {
            Family::ALL.into_iter().any(|family| counts.received[family] >= bound)
        })
    }

    fn metrics(self, now: Time) -> PeerMetrics {
        let PeerConfig { address, remote_asn, .. } = *self.record.session;
        let last_error = self.record.handle.snapshot().last_error;
        PeerMetrics {
            name: self.record.name.to_string(),
            vrf: self.record.session.vrf.as_deref().map(str::to_owned),
            address: off_interface(address).0,
            remote_asn,
            kind: self.kind,
            state: self.numbers.state,
            state_seconds: now.since(self.numbers.since).as_secs(),
            traffic: traffic(&self.numbers),
            counts: self.counts,
            prefixes_max: self.record.routes.limits.prefixes_max,
            last_error: last_error.map(|error| (error.origin, error.code)),
        }
    }
}

/// The view for scrapers.
pub(super) struct MetricsView {
    pub(super) sources: Sources,
    pub(super) drains: DrainView,
    pub(super) liveness: LivenessView,
    pub(super) readiness: ReadinessView,
    pub(super) bfd: BfdView,
    pub(super) discovery: Statuses,
    pub(super) session_counters: SessionCounters,
    pub(super) recorder: Recorder,
    pub(super) stations: crate::bmp::Statuses,
    pub(super) ranking: Ranking,
    pub(super) log: Log,
}

impl MetricsView {
    pub(super) async fn snapshot(&self) -> MetricsSnapshot {
        let stuck = self.liveness.stuck(PART_WAIT).await;
        let is_stuck = |part| stuck.iter().any(|stuck| stuck.part == part);
        // Queries to a table that does not answer would accumulate, one for each scrape.
        let own = &self.sources.table;
        let table = if is_stuck(Part::Table) { None } else { self.table_metrics(own).await };
        let (mut found, gone) = self.found();
        if table.is_some() {
            self.count(&mut found).await;
        }
        let state = self.sources.state();
        let now = self.sources.now();
        let sessions = self.session_metrics(&found, gone);
        let ranked = self.ranking.rank(now, found.iter().map(|f| (f.record.id, f.changes())));
        let count = shown(state.peer_series(), found.len());
        let chosen: BTreeSet<PeerId> = ranked.into_iter().take(count).collect();
        // Of two peers with one name, the older one is being removed; a series must not occur
        // twice.
        let is_named = |record: &Record| {
            self.sources.registry.find(&record.name).is_some_and(|named| named.id == record.id)
        };
        found.retain(|found| chosen.contains(&found.record.id) && is_named(&found.record));
        let mut histograms = self.sources.table.timings().collect();
        histograms.extend(self.session_counters.collect());
        let is_written = state.config.fib.enabled;
        let fib = is_written.then(|| fib_metrics(&self.sources.kernel));
        let mut vrfs = Vec::new();
        for (name, vrf) in self.sources.vrfs.all() {
            vrfs.push(VrfMetrics {
                name: name.to_string(),
                table: match is_stuck(Part::Table) {
                    true => None,
                    false => self.table_metrics(&vrf.table).await,
                },
                fib: is_written.then(|| fib_metrics(&vrf.kernel)),
            });
        }
        if fib.is_some() {
            histograms.extend(self.sources.kernel.collect());
        }
        MetricsSnapshot {
            ready: self.readiness.not_ready().is_none(),
            drained: self.drains.of_all().is_some(),
            peers_drained: self.drains.records().len() as u64,
            events: self.log.events().counts(),
            reload_refused: state.reload_refused.is_some(),
            config_read: unix_seconds(self.sources.wall(state.read_at)),
            announced: self.sources.announcements.len() as u64,
            reload_unconfirmed: matches!(state.unconfirmed, Some(Condition::Until(_))),
            reload_undone: matches!(state.unconfirmed, Some(Condition::Undone(_))),
            log_lines_dropped: self.log.dropped(),
            mrt: state.config.host.mrt.as_ref().map(|_| mrt_metrics(&self.recorder)),
            stations: super::bmp::metrics(&self.stations),
            contained_panics: Supervisor::contained_panics(),
            parts: self
                .liveness
                .parts()
                .into_iter()
                .map(|part| (part.word().to_owned(), !is_stuck(part)))
                .collect(),
            sessions,
            signature_drops: signature_drops(),
            peers: found.into_iter().map(|found| found.metrics(now)).collect(),
            table,
            fib,
            vrfs,
            bfd: self.bfd.metrics().await,
            router_discovery: (!self.sources.state().config.interfaces.is_empty())
                .then(|| RouterDiscoveryMetrics(self.discovery.total())),
            calico: match &state.node {
                Some(node) => Some(self.calico_metrics(node).await),
                None => None,
            },
            histograms,
        }
    }

    /// Every peer, without the table's counters, and the counters of removed peers.
    fn found(&self) -> (Vec<Found>, Traffic) {
        let (records, gone) = self.sources.registry.all_and_gone();
        let is_node = self.sources.state().node.is_some();
        let found = records.into_iter().map(|record| Found {
            numbers: record.handle.numbers(),
            kind: kind_in(is_node, &record),
            counts: None,
            record,
        });
        (found.collect(), gone)
    }

    /// Adds the table's counters, until the table fails to answer in time.
    async fn count(&self, found: &mut [Found]) {
        for page in found.chunks_mut(COUNTS_PAGE) {
            let all: Vec<_> = page.iter().map(|found| Arc::clone(&found.record)).collect();
            let Ok(Some(counts)) = timeout(PART_WAIT, self.sources.counts(&all)).await else {
                return;
            };
            for (found, counts) in page.iter_mut().zip(counts) {
                found.counts = Some(counts);
            }
        }
    }

    fn session_metrics(&self, found: &[Found], gone: Traffic) -> SessionMetrics {
        let mut metrics = SessionMetrics {
            traffic: gone,
            ends: self.session_counters.ends(),
            refusals: self.session_counters.refusals(),
            ..SessionMetrics::default()
        };
        for peer in found {
            *metrics.states.entry((peer.kind, peer.numbers.state)).or_default() += 1;
            metrics.traffic.add(&traffic(&peer.numbers));
            metrics.near_prefix_limit += u64::from(peer.is_near_limit());
            let Some(counts) = &peer.counts else { continue };
            for family in Family::ALL {
                let all = metrics.prefixes.entry((peer.kind, family)).or_default();
                all.add(PrefixCounts::of(counts, family));
            }
        }
        metrics
    }

    async fn table_metrics(&self, table: &Handle) -> Option<TableMetrics> {
        let numbers = table.ask(|table, _| {
            let mut groups = table.group_counts();
            // The largest groups are the most useful ones; the totals include the others.
            groups.sort_by_key(|group| (std::cmp::Reverse(group.members), group.id));
            groups.truncate(GROUPS_MAX);
            groups.sort_by_key(|group| group.id);
            TableMetrics {
                totals: table.totals(),
                memory: table.memory(),
                memory_max: None,
                waiting_octets: 0,
                imports: table.imports(),
                refused: table.refused().to_vec(),
                groups: groups
                    .into_iter()
                    .map(|group| GroupMetrics {
                        id: group.id,
                        family: Some(group.family),
                        members: group.members.into(),
                        prefixes: group.prefixes.into(),
                        log_octets: group.log_bytes,
                        evictions: group.evictions,
                    })
                    .collect(),
            }
        });
        let numbers = timeout(PART_WAIT, numbers).await.ok().flatten()?;
        Some(TableMetrics {
            memory_max: self.sources.state().config.bgp.memory_max,
            waiting_octets: table.waiting_octets() as u64,
            ..numbers
        })
    }

    async fn calico_metrics(&self, node: &Node) -> CalicoMetrics {
        let status = Arc::clone(&node.status.borrow());
        let contested = timeout(PART_WAIT, contested(&self.sources, &status)).await;
        let contested = contested.unwrap_or_default();
        let sources = status.sources.iter().map(|source| {
            let followed = node.liveness.followed(&source.name);
            let lag = |told: i64| {
                let taken = followed.taken.unwrap_or_default();
                u64::try_from(told.saturating_sub(taken)).unwrap_or_default()
            };
            SourceMetrics {
                name: source.name.clone(),
                current: matches!(source.state, State::Current),
                away: match &source.state {
                    State::Away { since, .. } => since.elapsed(),
                    State::Connecting | State::Current => Duration::ZERO,
                },
                cause: followed.cause,
                silence: followed.heard.map(|heard| heard.elapsed()),
                revision: followed.told,
                lag: followed.told.map(lag),
            }
        });
        CalicoMetrics {
            in_force: status.in_force,
            problems: problems_by_kind(status.problems.iter().chain(&contested)),
            notes: u64::try_from(status.notes.len()).unwrap_or(u64::MAX),
            sources: sources.collect(),
            plans: status.plans,
            planning: status.planning,
        }
    }
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs() as f64)
}

fn mrt_metrics(recorder: &Recorder) -> MrtMetrics {
    let counts = recorder.counts();
    MrtMetrics { written: counts.written, dropped: counts.dropped, files: counts.files }
}

fn fib_metrics(kernel: &Fib) -> FibMetrics {
    let kernel = kernel.counters();
    FibMetrics {
        installed: kernel.installed,
        pending: kernel.pending,
        failed: kernel.failed,
        foreign: kernel.foreign,
        next_hop_objects: kernel.next_hop_objects,
        writes: kernel.writes,
        batches: kernel.batches,
        errors: kernel.errors,
        resyncs: kernel.resyncs,
    }
}

fn problems_by_kind<'a>(list: impl Iterator<Item = &'a Problem>) -> BTreeMap<String, u64> {
    let mut problems = BTreeMap::new();
    for problem in list {
        let kind = problem.object.split_once('/').map_or("other", |(kind, _)| kind);
        // Objects from files are named by paths, whose first part is empty or not a kind.
        let is_kind =
            !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        *problems.entry(if is_kind { kind } else { "other" }.to_owned()).or_insert(0) += 1;
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn ids(of: &[u32]) -> Vec<PeerId> {
        of.iter().map(|id| PeerId(*id)).collect()
    }

    #[test]
    fn the_peers_that_change_most_come_first_and_old_changes_fade() {
        let ranking = Ranking::default();
        let rank = |secs, counts: [u64; 3]| {
            let counters = counts.iter().enumerate().map(|(id, n)| (PeerId(id as u32), *n));
            ranking.rank(at(secs), counters)
        };
        // Changes before the first ranking do not count.
        assert_eq!(rank(0, [1_000_000, 0, 0]), ids(&[0, 1, 2]));
        assert_eq!(rank(15, [1_000_000, 10, 20]), ids(&[2, 1, 0]));
        // A second scraper between two scrapes of the first changes nothing.
        assert_eq!(rank(16, [1_000_000, 10, 20]), ids(&[2, 1, 0]));
        // Half an hour later a single change outweighs those.
        assert_eq!(rank(1800, [1_000_001, 10, 20]), ids(&[0, 2, 1]));
    }

    #[test]
    fn a_peer_that_reuses_an_id_does_not_inherit_its_rank() {
        let ranking = Ranking::default();
        ranking.rank(at(0), [(PeerId(0), 0), (PeerId(1), 0)]);
        ranking.rank(at(1), [(PeerId(0), 500), (PeerId(1), 1)]);
        assert_eq!(ranking.rank(at(2), [(PeerId(0), 3), (PeerId(1), 1)]), ids(&[1, 0]));
        // Removed peers are dropped.
        assert_eq!(ranking.rank(at(3), [(PeerId(1), 1)]), ids(&[1]));
        assert_eq!(ranking.0.lock().unwrap().peers.len(), 1);
    }

    #[test]
    fn a_large_mesh_has_few_series_unless_asked_for() {
        let series = PeerSeries::default();
        assert_eq!(shown(series, 64), 64);
        assert_eq!(shown(series, 65), 10);
        assert_eq!(shown(series, 5000), 10);
        let with = |choice| PeerSeries { choice, max: 500, top: 20 };
        assert_eq!(shown(with(PeerChoice::None), 3), 0);
        assert_eq!(shown(with(PeerChoice::Top), 3), 3);
        assert_eq!(shown(with(PeerChoice::Top), 300), 20);
        assert_eq!(shown(with(PeerChoice::All), 300), 300);
        assert_eq!(shown(with(PeerChoice::All), 5000), 500);
    }
}
