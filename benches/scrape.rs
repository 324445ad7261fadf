//! The cost of rendering a scrape. Budget: 50 ms and 1 MB with 5,000 peers, including the
//! collection of the values; `interop/tests/monitoring.rs` measures whole scrapes of a running
//! daemon.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::session::{State, Stats};
use bgp_proto::table::PeerCounts;
use bgp_proto::types::{Asn, Family};
use criterion::{Criterion, criterion_group, criterion_main};
use margay::http::{
    FibMetrics, GROUPS_MAX, GroupMetrics, MetricsSnapshot, PeerMetrics, PrefixCounts,
    SessionMetrics, TableMetrics, Traffic,
};

fn peer(number: u32) -> PeerMetrics {
    let address = Ipv4Addr::from(0x0a00_0000 + number);
    let stats = Stats { octets_received: 1 << 20, updates_received: 500, ..Stats::default() };
    PeerMetrics {
        vrf: None,
        name: format!("Mesh_{}", address.to_string().replace('.', "_")),
        address: IpAddr::from(address),
        remote_asn: Asn(64512).into(),
        kind: "mesh",
        state: State::Established,
        state_seconds: 86_400,
        traffic: Traffic { stats, updates_sent: 500, octets_sent: 1 << 20 },
        counts: Some(PeerCounts::default()),
        prefixes_max: None,
        last_error: None,
    }
}

/// A mesh of 5,000 peers, `shown` of which have series of their own, and the maximum number of
/// groups.
fn snapshot(shown: u32) -> MetricsSnapshot {
    let prefixes = PrefixCounts {
        received: 15_000,
        accepted: 15_000,
        advertised: 3,
        ..PrefixCounts::default()
    };
    let group = |id| GroupMetrics { id, family: Some(Family::Ipv4), ..GroupMetrics::default() };
    MetricsSnapshot {
        ready: true,
        sessions: SessionMetrics {
            states: [(("mesh", State::Established), 5000)].into(),
            prefixes: Family::ALL.map(|family| (("mesh", family), prefixes)).into(),
            ..SessionMetrics::default()
        },
        peers: (0..shown).map(peer).collect(),
        table: Some(TableMetrics {
            groups: (0..GROUPS_MAX as u32).map(group).collect(),
            ..TableMetrics::default()
        }),
        fib: Some(FibMetrics::default()),
        ..MetricsSnapshot::default()
    }
}

fn render(c: &mut Criterion) {
    for (name, shown) in [("default_10_shown", 10), ("64_shown", 64), ("all_5000_shown", 5000)] {
        let snapshot = snapshot(shown);
        println!("scrape/{name}: {} octets", snapshot.render().len());
        c.bench_function(&format!("scrape/{name}"), |b| b.iter(|| black_box(&snapshot).render()));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = render
}
criterion_main!(benches);
