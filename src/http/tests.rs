use bgp_proto::session::{Origin, State as FsmState};
use bgp_proto::table::GroupView;
use bgp_proto::types::{Asn, Family, PeerId};
use bgp_proto::wire::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

fn snapshot() -> MetricsSnapshot {
    let stats = bgp_proto::session::Stats {
        updates_received: 7,
        connect_failures: 2,
        ..bgp_proto::session::Stats::default()
    };
    let mut counts = bgp_proto::table::PeerCounts::default();
    counts.received[Family::Ipv4] = 5;
    let mut totals = bgp_proto::table::Totals::default();
    totals.destinations[Family::Ipv6] = 9;
    let peer = |name: &str, state| PeerMetrics {
        name: name.into(),
        address: [192, 0, 2, 1].into(),
        remote_asn: Asn(65001),
        state,
        state_seconds: 12,
        stats,
        counts,
        last_error: Some((Origin::Sent, Some(Code { code: 4, subcode: 0 }))),
    };
    MetricsSnapshot {
        peers: vec![peer("a", FsmState::Established), peer("b\"\\\n", FsmState::Active)],
        totals,
        groups: vec![GroupView {
            id: 3,
            family: Family::Ipv4,
            members: vec![PeerId(0), PeerId(1)],
            alone_because: None,
            log_bytes: 100,
            prefixes: 4,
            evictions: 1,
        }],
        fib: Some(FibMetrics { installed: 11, errors: 3, ..FibMetrics::default() }),
        calico: Some(CalicoMetrics {
            in_force: true,
            problems: [("BGPPeer".to_owned(), 2), ("Node".to_owned(), 1)].into(),
            sources: vec![("etcd".to_owned(), false)],
            plans: 7,
            planning_micros: 12,
        }),
        ready: true,
    }
}

#[test]
fn every_number_is_shown_under_its_name() {
    let text = snapshot().render();
    for line in [
        "# TYPE margay_peers gauge",
        "margay_calico_in_force 1",
        "margay_calico_problems 3",
        "margay_calico_kind_problems{kind=\"BGPPeer\"} 2",
        "margay_calico_source_current{source=\"etcd\"} 0",
        "margay_calico_plans_total 7",
        "margay_calico_planning_microseconds_total 12",
        "margay_peers{state=\"Established\"} 1",
        "margay_peers{state=\"Active\"} 1",
        "margay_peers{state=\"Idle\"} 0",
        "margay_peer_up{peer=\"a\",address=\"192.0.2.1\",remote_asn=\"65001\"} 1",
        "margay_peer_state{peer=\"a\"} 5",
        "margay_peer_state_seconds{peer=\"a\"} 12",
        "margay_peer_prefixes{peer=\"a\",family=\"ipv4\",kind=\"received\"} 5",
        "# TYPE margay_peer_messages_total counter",
        "margay_peer_messages_total{peer=\"a\",direction=\"received\",type=\"update\"} 7",
        "margay_peer_connect_failures_total{peer=\"a\"} 2",
        "margay_peer_last_error_info{peer=\"a\",direction=\"sent\",code=\"4\",subcode=\"0\"} 1",
        "margay_destinations{family=\"ipv6\"} 9",
        "margay_group_members{group=\"3\",family=\"ipv4\"} 2",
        "margay_group_evictions_total{group=\"3\",family=\"ipv4\"} 1",
        "margay_fib_routes{state=\"installed\"} 11",
        "margay_fib_errors_total 3",
        "margay_ready 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }
    assert!(text.contains("margay_peer_up{peer=\"b\\\"\\\\\\n\""), "names are escaped\n{text}");
    assert!(text.contains("process_open_fds"), "{text}");
    // Prometheus refuses a scrape that names a family twice.
    let mut types: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
}

#[test]
fn without_a_kernel_there_are_no_kernel_metrics() {
    let text = MetricsSnapshot { fib: None, ..snapshot() }.render();
    assert!(!text.contains("margay_fib"));
    assert!(MetricsSnapshot::default().render().contains("margay_ready 0\n"));
}

/// Ready or not; hangs instead of showing metrics.
struct Daemon {
    missing: Option<String>,
}

impl Source for Daemon {
    async fn metrics(&self) -> MetricsSnapshot {
        if self.missing.is_some() {
            std::future::pending().await
        }
        snapshot()
    }
    async fn alive(&self) {}
    async fn not_ready(&self) -> Option<String> {
        self.missing.clone()
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
    let address = serve(Daemon { missing: None }, Limits::default()).await;
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.to_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    assert!(metrics.contains("margay_peers{state=\"Established\"} 1\n"));
    assert!(get(address, "/liveness").await.ends_with("\r\n\r\nalive\n"));
    assert!(get(address, "/readiness").await.ends_with("\r\n\r\nready\n"));
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn what_is_not_ready_says_why() {
    let address = serve(
        Daemon { missing: Some("no End-of-RIB from a".into()) },
        Limits { answer_wait: Duration::from_millis(50), ..Limits::default() },
    )
    .await;
    let answer = get(address, "/readiness").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready: no End-of-RIB from a\n"), "{answer}");
    // This daemon hangs over its metrics: a failed scrape, and nothing that waits with it.
    let answer = get(address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno answer within 50ms\n"), "{answer}");
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out_for_ever() {
    let limits = Limits { lifetime_max: Duration::from_millis(200), ..Limits::default() };
    let address = serve(Daemon { missing: None }, limits).await;
    let mut silent = Vec::new();
    for _ in 0..bounded::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(get(address, "/liveness").await.ends_with("alive\n"));
}
