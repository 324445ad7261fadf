use bgp_proto::session::{Origin, State as FsmState};
use bgp_proto::table::{
    ImportCounts, Memory, Refused, RefusedBy, Retained, RetainedPhase, Unusable,
};
use bgp_proto::types::{Asn, Family, Time};
use bgp_proto::wire::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::metric_names;

fn peer(name: &str, state: FsmState) -> PeerMetrics {
    let stats = bgp_proto::session::Stats {
        updates_received: 7,
        connect_failures: 2,
        ..bgp_proto::session::Stats::default()
    };
    let mut counts = bgp_proto::table::PeerCounts::default();
    counts.received[Family::Ipv4] = 5;
    counts.imports[Family::Ipv4].accepted = 5;
    let (phase, until) = (RetainedPhase::LongLived, Time::ZERO);
    counts.retained[Family::Ipv4] = Some(Retained { phase, paths: 4, until });
    counts.imports[Family::Ipv4].withdrawn = 3;
    PeerMetrics {
        name: name.into(),
        vrf: None,
        address: [192, 0, 2, 1].into(),
        remote_asn: Asn(65001).into(),
        kind: "external",
        state,
        state_seconds: 12,
        traffic: Traffic { stats, updates_sent: 4, octets_sent: 400 },
        counts: Some(counts),
        prefixes_max: Some(50),
        last_error: Some((Origin::Sent, Some(Code { code: 4, subcode: 0 }))),
    }
}

fn sessions() -> SessionMetrics {
    let stats = bgp_proto::session::Stats {
        octets_received: 1000,
        established_transitions: 3,
        ..bgp_proto::session::Stats::default()
    };
    SessionMetrics {
        states: [
            (("mesh", FsmState::Established), 4998),
            (("mesh", FsmState::Active), 1),
            (("global", FsmState::Idle), 1),
        ]
        .into(),
        traffic: Traffic { stats, updates_sent: 11, octets_sent: 2000 },
        ends: vec![("hold-timer", 2), ("prefix-limit", 0)],
        refusals: vec![("unsigned", 4)],
        prefixes: [(
            ("mesh", Family::Ipv4),
            PrefixCounts {
                received: 15_000,
                accepted: 14_997,
                advertised: 3,
                stale: 5,
                long_lived_stale: 2,
            },
        )]
        .into(),
        near_prefix_limit: 1,
    }
}

fn table() -> TableMetrics {
    let mut totals = bgp_proto::table::Totals::default();
    totals.destinations[Family::Ipv6] = 9;
    let mut imports = bgp_proto::types::FamilyMap::<ImportCounts>::default();
    imports[Family::Ipv4] = ImportCounts { accepted: 20, filtered: 4, ..ImportCounts::default() };
    let refused = |by, routes| Refused { by, routes: bgp_proto::types::FamilyMap([routes, 0]) };
    let rule = |number, name: &str| RefusedBy::Rule {
        policy: "from-tor".into(),
        number,
        name: name.into(),
    };
    TableMetrics {
        totals,
        memory: Memory { paths: 24, logs: 100, ..Memory::default() },
        memory_max: Some(1 << 20),
        waiting_octets: 77,
        imports,
        refused: vec![
            refused(RefusedBy::Check(Unusable::AsLoop), 1),
            refused(rule(Some(1), "no bogons"), 2),
            refused(rule(Some(2), ""), 3),
            refused(rule(None, ""), 4),
        ],
        groups: vec![GroupMetrics {
            id: 3,
            family: Some(Family::Ipv4),
            members: 2,
            prefixes: 4,
            log_octets: 100,
            evictions: 1,
        }],
    }
}

fn snapshot() -> MetricsSnapshot {
    MetricsSnapshot {
        vrfs: Vec::new(),
        ready: true,
        drained: true,
        peers_drained: 3,
        events: vec![("session-up", 3), ("session-down", 0)],
        reload_refused: true,
        config_read: 1.5e9,
        announced: 4,
        reload_unconfirmed: true,
        reload_undone: false,
        log_lines_dropped: 17,
        mrt: Some(MrtMetrics { written: 11, dropped: 2, files: 3 }),
        stations: vec![StationMetrics {
            name: "noc".to_owned(),
            is_up: true,
            octets: 33,
            ..StationMetrics::default()
        }],
        contained_panics: 1,
        parts: vec![("table".to_owned(), true), ("fib".to_owned(), false)],
        sessions: sessions(),
        signature_drops: vec![("tcp-ao", "wrong", 21)],
        peers: vec![peer("a", FsmState::Established), peer("b\"\\\n", FsmState::Active)],
        table: Some(table()),
        fib: Some(FibMetrics {
            installed: 11,
            next_hop_objects: 2,
            errors: 3,
            ..FibMetrics::default()
        }),
        bfd: Some(BfdMetrics {
            sessions: [("Up".to_owned(), 5), ("Down".to_owned(), 0)].into(),
            failures: 4,
            discards: [("ttl".to_owned(), 6)].into(),
            overflows: 8,
        }),
        router_discovery: Some(RouterDiscoveryMetrics(bgp_proto::ndp::Stats {
            advertisements: 3,
            discarded: [0, 7, 0, 0, 0, 0, 0],
            ..Default::default()
        })),
        calico: Some(CalicoMetrics {
            in_force: true,
            problems: [("BGPPeer".to_owned(), 2), ("Node".to_owned(), 1)].into(),
            notes: 5,
            sources: vec![SourceMetrics {
                name: "etcd".into(),
                current: false,
                away: Duration::from_secs(9),
                cause: Some("forbidden"),
                silence: Some(Duration::from_millis(9500)),
                revision: Some(42),
                lag: Some(2),
            }],
            plans: 7,
            planning: Duration::from_millis(1500),
        }),
        histograms: Vec::new(),
    }
}

/// Counters, and no other metrics, end in `_total`. Histograms are added elsewhere.
#[test]
fn every_exported_name_is_listed_and_matches_its_type() {
    let text = snapshot().render();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let ours: Vec<(&str, &str)> = types.filter(|(name, _)| !name.starts_with("process_")).collect();
    for (name, kind) in &ours {
        assert!(metric_names::ALL.contains(name), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} is a {kind}");
    }
    let shown: Vec<&str> = ours.iter().map(|(name, _)| *name).collect();
    let is_histogram = |name: &str| name.ends_with("_duration_seconds");
    let missing: Vec<_> = metric_names::ALL
        .iter()
        .filter(|name| !shown.contains(name) && !is_histogram(name))
        .collect();
    assert_eq!(missing, Vec::<&&str>::new(), "listed but not exported");
}

/// A row for each metric, as in `docs/src/metrics.md`: name, type, labels, meaning.
fn rows(text: &str) -> Vec<String> {
    let of = |line: &str, what: &str| {
        let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let ours = |(name, _): &(String, String)| metric_names::ALL.contains(&name.as_str());
    let types: Vec<_> = text.lines().filter_map(|line| of(line, "# TYPE ")).filter(ours).collect();
    let helps: Vec<_> = text.lines().filter_map(|line| of(line, "# HELP ")).filter(ours).collect();
    let row = |((name, kind), (_, help)): (&(String, String), &(String, String))| {
        let series = text.lines().filter_map(|line| line.strip_prefix(name.as_str()));
        let labels = series.filter_map(|rest| rest.strip_prefix('{')?.split_once('}'));
        let mut labels: Vec<&str> = labels
            .flat_map(|(labels, _)| labels.split(','))
            .filter_map(|label| label.split_once('=').map(|(label, _)| label))
            .filter(|label| *label != "vrf")
            .collect();
        labels.sort_unstable();
        labels.dedup();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    };
    types.iter().zip(&helps).map(row).collect()
}

/// `docs/src/metrics.md` has every metric with the text that a scrape has. `BLESS=1` writes it.
#[test]
fn metrics_are_documented() {
    const HEAD: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, table) = page.split_once(HEAD).unwrap();
    let end = table.find("\n\n").unwrap_or(table.len());
    let (table, after) = table.split_at(end);
    let expected = rows(&snapshot().render()).join("\n");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, [before, HEAD, &expected, after].concat()).unwrap();
        return;
    }
    assert_eq!(table, expected, "run it with BLESS=1");
    let histograms = metric_names::ALL.iter().filter(|name| name.ends_with("_duration_seconds"));
    for name in histograms {
        assert!(after.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn every_value_is_exported_under_its_name() {
    let text = snapshot().render();
    for line in [
        "# TYPE margay_peers gauge",
        "margay_events_total{event=\"session-up\"} 3",
        "margay_events_total{event=\"session-down\"} 0",
        "margay_reload_refused 1",
        "margay_config_last_reload_success 0",
        "margay_config_last_reload_success_timestamp_seconds 1500000000",
        "margay_announced_routes 4",
        "margay_reload_unconfirmed 1",
        "margay_reload_undone 0",
        "margay_log_lines_dropped_total 17",
        "margay_mrt_records_total{result=\"written\"} 11",
        "margay_mrt_records_total{result=\"dropped\"} 2",
        "margay_mrt_files_total 3",
        "margay_bmp_station_up{station=\"noc\"} 1",
        "margay_bmp_sent_bytes_total{station=\"noc\"} 33",
        "margay_contained_panics_total 1",
        "margay_part_responding{part=\"table\"} 1",
        "margay_part_responding{part=\"fib\"} 0",
        "margay_bfd_sessions{state=\"Up\"} 5",
        "margay_bfd_failures_total 4",
        "margay_bfd_packets_discarded_total{reason=\"ttl\"} 6",
        "margay_bfd_packets_overflow_total 8",
        "margay_router_discovery_packets_received_total{kind=\"advertisement\"} 3",
        "margay_router_discovery_packets_discarded_total{reason=\"hop-limit\"} 7",
        "margay_router_discovery_packets_discarded_total{reason=\"own\"} 0",
        "margay_calico_in_force 1",
        "margay_calico_problems 3",
        "margay_calico_notes 5",
        "margay_calico_kind_problems{kind=\"BGPPeer\"} 2",
        "margay_calico_source_current{source=\"etcd\"} 0",
        "margay_calico_source_away_seconds{source=\"etcd\"} 9",
        "margay_calico_source_unavailable{source=\"etcd\",cause=\"forbidden\"} 1",
        "margay_calico_source_silence_seconds{source=\"etcd\"} 9.5",
        "margay_calico_source_revision{source=\"etcd\"} 42",
        "margay_calico_source_revision_lag{source=\"etcd\"} 2",
        "margay_calico_plans_total 7",
        "margay_calico_planning_seconds_total 1.5",
        "margay_peers{kind=\"mesh\",state=\"Established\"} 4998",
        "margay_peers{kind=\"mesh\",state=\"Active\"} 1",
        "margay_peers{kind=\"mesh\",state=\"Idle\"} 0",
        "margay_peers{kind=\"global\",state=\"Idle\"} 1",
        "margay_peers_with_series 2",
        "margay_session_ends_total{reason=\"hold-timer\"} 2",
        "margay_connections_refused_total{reason=\"unsigned\"} 4",
        "margay_session_ends_total{reason=\"prefix-limit\"} 0",
        "margay_prefixes_received{kind=\"mesh\",family=\"ipv4\"} 15000",
        "margay_prefixes_accepted{kind=\"mesh\",family=\"ipv4\"} 14997",
        "margay_prefixes_advertised{kind=\"mesh\",family=\"ipv4\"} 3",
        "margay_prefixes_stale{kind=\"mesh\",family=\"ipv4\",phase=\"restart\"} 5",
        "margay_prefixes_stale{kind=\"mesh\",family=\"ipv4\",phase=\"long-lived\"} 2",
        "margay_peers_near_prefix_limit 1",
        "margay_messages_total{direction=\"sent\",type=\"update\"} 11",
        "margay_received_bytes_total 1000",
        "margay_sent_bytes_total 2000",
        "margay_sessions_established_total 3",
        "margay_peer_up{peer=\"a\",address=\"192.0.2.1\",remote_asn=\"65001\",kind=\"external\"} 1",
        "margay_peer_state{peer=\"a\"} 5",
        "margay_peer_state_seconds{peer=\"a\"} 12",
        "margay_peer_prefixes_received{peer=\"a\",family=\"ipv4\"} 5",
        "margay_peer_prefixes_max{peer=\"a\"} 50",
        "margay_peer_prefixes_stale{peer=\"a\",family=\"ipv4\",phase=\"restart\"} 0",
        "margay_peer_prefixes_stale{peer=\"a\",family=\"ipv4\",phase=\"long-lived\"} 4",
        "margay_peer_route_changes_total{peer=\"a\",family=\"ipv4\"} 8",
        "# TYPE margay_peer_messages_total counter",
        "margay_peer_messages_total{peer=\"a\",direction=\"received\",type=\"update\"} 7",
        "margay_peer_messages_total{peer=\"a\",direction=\"sent\",type=\"update\"} 4",
        "margay_peer_sent_bytes_total{peer=\"a\"} 400",
        "margay_peer_connect_failures_total{peer=\"a\"} 2",
        "margay_peer_last_error_info{peer=\"a\",direction=\"sent\",code=\"4\",subcode=\"0\"} 1",
        "margay_destinations{family=\"ipv6\"} 9",
        "margay_memory_bytes{part=\"paths\"} 24",
        "margay_memory_bytes{part=\"logs\"} 100",
        "margay_memory_limit_bytes 1048576",
        "margay_table_waiting_bytes 77",
        "margay_import_routes_total{family=\"ipv4\",result=\"accepted\"} 20",
        "margay_import_routes_total{family=\"ipv4\",result=\"rejected\"} 4",
        "margay_import_rejected_routes_total{family=\"ipv4\",reason=\"as-loop\",policy=\"\",rule=\"\"} 1",
        "margay_import_rejected_routes_total{family=\"ipv4\",reason=\"policy\",policy=\"from-tor\",rule=\"1 no bogons\"} 2",
        "margay_import_rejected_routes_total{family=\"ipv4\",reason=\"policy\",policy=\"from-tor\",rule=\"2\"} 3",
        "margay_import_rejected_routes_total{family=\"ipv4\",reason=\"policy\",policy=\"from-tor\",rule=\"default\"} 4",
        "margay_group_members{group=\"3\",family=\"ipv4\"} 2",
        "margay_group_evictions_total{group=\"3\",family=\"ipv4\"} 1",
        "margay_fib_routes{state=\"installed\"} 11",
        "margay_fib_next_hop_objects 2",
        "margay_fib_errors_total 3",
        "margay_ready 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }
    assert!(text.contains("margay_peer_up{peer=\"b\\\"\\\\\\n\""), "names are escaped\n{text}");
    assert!(text.contains("process_open_fds"), "{text}");
    let stale = |family| text.contains(&format!("prefixes_stale{{peer=\"a\",family=\"{family}\""));
    assert!(stale("ipv4") && !stale("ipv6"), "of families with retained routes alone\n{text}");
    // Prometheus rejects a scrape in which a family occurs twice.
    let mut types: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
}

/// If the table does not answer, its metrics are absent, and all others are present.
#[test]
fn if_the_table_hangs_a_scrape_has_the_other_metrics() {
    let mut hung = MetricsSnapshot { table: None, ..snapshot() };
    hung.peers.iter_mut().for_each(|peer| peer.counts = None);
    let text = hung.render();
    for absent in ["margay_destinations", "margay_memory_bytes", "margay_peer_prefixes_received"] {
        assert!(!text.contains(absent), "{absent}");
    }
    for present in ["margay_part_responding", "margay_peers{", "margay_peer_up{", "margay_fib_"] {
        assert!(text.contains(present), "{present}");
    }
}

/// The number of series does not grow with the number of peers.
#[test]
fn the_size_of_a_scrape_depends_only_on_the_peers_with_series() {
    let lines = |count| {
        let mut many = snapshot();
        many.sessions.states.insert(("mesh", FsmState::Established), count);
        many.render().lines().filter(|line| !line.starts_with("process_")).count()
    };
    assert_eq!(lines(1), lines(1_000_000));
    let shown: Vec<_> =
        (0..64).map(|n| peer(&format!("Mesh_10_0_0_{n}"), FsmState::Established)).collect();
    let octets = MetricsSnapshot { peers: shown, ..snapshot() }.render().len();
    assert!(octets < 200_000, "{octets} octets for 64 peers");
}

/// Dashboards and alerts match the series of the default VRF by their labels.
#[test]
fn series_of_a_vrf_have_its_name_and_those_of_the_default_vrf_have_none() {
    let mut red = PeerMetrics { vrf: Some("red".into()), ..peer("red-tor", FsmState::Established) };
    red.counts = None;
    let own = snapshot();
    let before = own.render();
    let vrf = VrfMetrics {
        name: "red".into(),
        table: Some(TableMetrics { waiting_octets: 77, ..TableMetrics::default() }),
        fib: Some(FibMetrics { installed: 6, ..FibMetrics::default() }),
    };
    let mut peers = own.peers.clone();
    peers.push(red);
    let text = MetricsSnapshot { vrfs: vec![vrf], peers, ..own }.render();
    for line in [
        "margay_table_waiting_bytes{vrf=\"red\"} 77",
        "margay_fib_routes{state=\"installed\",vrf=\"red\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.lines().any(|l| l.contains("peer=\"red-tor\"") && l.contains("vrf=\"red\"")));
    let is_own = |line: &&str| line.starts_with("margay_") && !line.contains("vrf=");
    let counted = "margay_peers_with_series";
    let own = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(is_own).filter(|line| !line.starts_with(counted));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(own(&text), own(&before));
}

#[test]
fn without_a_kernel_there_are_no_kernel_metrics() {
    let text = MetricsSnapshot { fib: None, ..snapshot() }.render();
    assert!(!text.contains("margay_fib"));
    assert!(MetricsSnapshot::default().render().contains("margay_ready 0\n"));
}

/// A daemon that may be unready; then its metrics hang.
#[derive(Default)]
struct Daemon {
    missing: Option<String>,
    stuck: Vec<String>,
}

impl Source for Daemon {
    async fn metrics(&self) -> MetricsSnapshot {
        if self.missing.is_some() {
            std::future::pending().await
        }
        snapshot()
    }
    async fn not_alive(&self) -> Vec<String> {
        self.stuck.clone()
    }
    async fn not_ready(&self) -> Option<String> {
        self.missing.clone()
    }
    fn page(&self) -> Option<Arc<PageSettings>> {
        None
    }
    async fn answer(&self, _: &Question) -> Result<Answer, Failure> {
        Err(Failure::Failed("there is no page".to_owned()))
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn serve(daemon: Daemon, limits: Limits) -> SocketAddr {
    let mut server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    server.limits = limits;
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run(Arc::new(daemon)));
    address
}

#[tokio::test]
async fn the_three_paths_answer() {
    let address = serve(Daemon::default(), Limits::default()).await;
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.to_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    assert!(metrics.contains("margay_peers{kind=\"mesh\",state=\"Established\"} 4998\n"));
    assert!(get(address, "/liveness").await.ends_with("\r\n\r\nalive\n"));
    assert!(get(address, "/readiness").await.ends_with("\r\n\r\nready\n"));
    let index = get(address, "/").await;
    assert!(index.contains("<a href=\"/readiness\">"), "{index}");
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
}

/// Prometheus asks for OpenMetrics first; what it gets has the same series.
#[tokio::test]
async fn metrics_are_sent_in_the_format_that_is_asked_for() {
    let address = serve(Daemon::default(), Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(open_metrics::CONTENT_TYPE), "{answer}");
    assert!(answer.ends_with("\n# EOF\n"), "{answer}");
    let ours = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("margay_")).map(str::to_owned).collect()
    };
    assert_eq!(ours(&answer), ours(&snapshot().render()));
    assert!(answer.contains("# UNIT margay_peer_state_seconds seconds\n"), "{answer}");
    assert!(answer.contains("# TYPE margay_events counter\n"), "{answer}");
}

#[tokio::test]
async fn readiness_returns_the_reason() {
    let address = serve(
        Daemon { missing: Some("no End-of-RIB from a".into()), stuck: Vec::new() },
        Limits { answer_wait: Duration::from_millis(50), ..Limits::default() },
    )
    .await;
    let answer = get(address, "/readiness").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready: no End-of-RIB from a\n"), "{answer}");
    // The metrics of this daemon hang: the scrape fails after a bounded time.
    let answer = get(address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno answer within 50ms\n"), "{answer}");
}

#[tokio::test]
async fn liveness_names_the_parts_that_are_stuck() {
    let stuck = vec!["table: no answer since x (9 s)".to_owned(), "session a: y".to_owned()];
    let address = serve(Daemon { stuck, ..Daemon::default() }, Limits::default()).await;
    let answer = get(address, "/liveness").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let body = "\r\n\r\nnot alive\ntable: no answer since x (9 s)\nsession a: y\n";
    assert!(answer.ends_with(body), "{answer}");
}

#[tokio::test]
async fn idle_clients_do_not_lock_out_a_probe() {
    let address = serve(Daemon::default(), Limits::default()).await;
    let mut silent = Vec::new();
    for _ in 0..2 * bounded::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = timeout(Duration::from_secs(20), get(address, "/liveness")).await;
    assert!(answer.expect("long before their lifetime is over").ends_with("alive\n"));
    // The first of them was disconnected.
    let closed = timeout(Duration::from_secs(20), silent[0].read(&mut [0])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn a_connection_ends_after_its_lifetime() {
    let limits = Limits { lifetime_max: Duration::from_millis(200), ..Limits::default() };
    let address = serve(Daemon::default(), limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let closed = timeout(Duration::from_secs(20), silent.read(&mut [0])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}
