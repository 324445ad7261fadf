//! The first plan and a single change, at 5,000 nodes, 15,000 blocks and 5,000 BGPPeers.
//!
//! Budget: under 1 s of CPU time for the first plan, including decoding; under 5 ms for one
//! additional node, including the conversion to the daemon's configuration. 100 changed weights of
//! services a second, in 20 plans, under 3 % of a core: under 1.5 ms for five of them, with all that
//! surrounds planning.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use margay::calico::config::Converter;
use margay::calico::model::{Decoded, decode, decode_etcd};
use margay::calico::{Resolver, Settings};
use margay::config::{
    ControlSettings, EndpointWeights, HostSettings, LogFormat, LogLevel, LogSettings,
};
use serde_json::json;

const NODES: usize = 5_000;
const BLOCKS: usize = 15_000;
const PEERS: usize = 5_000;

fn resource(plural: &str, name: &str, spec: &str, labels: &str) -> (String, String) {
    let key = format!("/calico/resources/v3/projectcalico.org/{plural}/{name}");
    (key, format!(r#"{{"metadata":{{"name":"{name}","labels":{{{labels}}}}},"spec":{spec}}}"#))
}

fn node(number: usize) -> (String, String) {
    let (high, low) = (number / 250, number % 250 + 1);
    let spec = format!(
        r#"{{"bgp":{{"ipv4Address":"10.1.{high}.{low}/16","ipv6Address":"fd00::{high:x}:{low:x}/64"}}}}"#
    );
    let labels = format!(r#""rack":"r{}","kubernetes.io/hostname":"node-{number}""#, number / 40);
    resource("nodes", &format!("node-{number}"), &spec, &labels)
}

fn cluster() -> Vec<(String, String)> {
    let mut objects: Vec<_> = (0..NODES).map(node).collect();
    for block in 0..BLOCKS {
        let key = format!(
            "/calico/ipam/v2/host/node-{}/ipv4/block/10.{}.{}.{}-26",
            block % NODES,
            64 + block / 1024,
            block / 4 % 256,
            block % 4 * 64
        );
        objects.push((key, r#"{"state":"confirmed","deleted":false}"#.to_owned()));
    }
    for peer in 0..PEERS {
        // Selectors by rack, by node and global: some match this node, most do not.
        let spec = match peer % 4 {
            0 => format!(
                r#"{{"nodeSelector":"rack == 'r{}'","peerIP":"192.0.2.{}","asNumber":65001}}"#,
                peer / 40,
                peer % 250
            ),
            1 => format!(r#"{{"node":"node-{peer}","peerIP":"198.51.100.1","asNumber":65002}}"#),
            2 => format!(
                r#"{{"nodeSelector":"rack == 'r{}'","peerSelector":"rack == 'r{}'"}}"#,
                peer / 40,
                peer / 40 + 1
            ),
            _ => format!(r#"{{"peerIP":"10.200.{}.{}","asNumber":65003}}"#, peer / 250, peer % 250),
        };
        objects.push(resource("bgppeers", &format!("peer-{peer}"), &spec, ""));
    }
    let pool = r#"{"cidr":"10.64.0.0/10","ipipMode":"Never"}"#;
    objects.push(resource("ippools", "pool", pool, ""));
    objects
}

fn decoded(objects: &[(String, String)]) -> Vec<Decoded> {
    let read = |(key, value): &(String, String)| decode_etcd(key, value.as_bytes());
    objects.iter().filter_map(read).collect()
}

fn full(objects: &[(String, String)]) -> Resolver {
    let mut resolver = Resolver::new(Settings::new("node-42"));
    for object in decoded(objects) {
        resolver.apply(object);
    }
    resolver
}

const SERVICES: usize = 1_000;

/// A service with policy Local, and its EndpointSlice with so many ready endpoints on this node.
fn service(number: usize, here: usize) -> [Decoded; 2] {
    let name = format!("s{number}");
    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    let (high, low) = (number / 250, number % 250 + 1);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(&name),
        "spec": {"type": "LoadBalancer", "clusterIP": format!("10.96.{high}.{low}"),
            "clusterIPs": [format!("10.96.{high}.{low}")], "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4"]},
        "status": {"loadBalancer": {"ingress": [{"ip": format!("80.0.{high}.{low}")}]}}});
    let nodes = (0..here).map(|_| 42).chain(100..108);
    let endpoints: Vec<_> = nodes
        .map(|node| json!({"nodeName": format!("node-{node}"), "conditions": {"ready": true}}))
        .collect();
    let mut slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata(&format!("{name}-1")), "addressType": "IPv4", "endpoints": endpoints});
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": name});
    [service, slice]
        .map(|object| decode(object).expect("valid").expect("an object of a known kind"))
}

/// Five changed weights, up to the difference that the daemon applies.
fn weights(criterion: &mut Criterion, objects: &[(String, String)], host: &HostSettings) {
    let mut settings = Settings::new("node-42");
    settings.endpoint_weights = EndpointWeights::Transitive;
    let mut resolver = Resolver::new(settings);
    for object in decoded(objects) {
        resolver.apply(object);
    }
    let ranges = r#"{"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],"serviceLoadBalancerIPs":[{"cidr":"80.0.0.0/16"}]}"#;
    let configuration = resource("bgpconfigurations", "default", ranges, "");
    for object in decoded(&[configuration]) {
        resolver.apply(object);
    }
    for object in (0..SERVICES).flat_map(|number| service(number, 1)) {
        resolver.apply(object);
    }
    let mut converter = Converter::default();
    let mut convert = |resolver: &mut Resolver| {
        let (plan, touched) = (resolver.plan(), resolver.take_touched());
        (converter.convert(&plan, &touched, host).expect("a valid plan"), touched)
    };
    let (mut current, _) = convert(&mut resolver);
    let mut change = 0;
    criterion.bench_function(
        "calico/five weights of 1,000 services, up to what the daemon applies",
        |b| {
            b.iter_batched(
                || {
                    change += 1;
                    let of = |n| service((change * 5 + n) % SERVICES, 2 + change / 200 % 7);
                    (0..5).map(of).collect::<Vec<_>>()
                },
                |objects| {
                    for [_, slice] in objects {
                        resolver.apply(slice);
                    }
                    let (fresh, touched) = convert(&mut resolver);
                    let changes = current.changes_among(&fresh, touched.names());
                    assert_eq!(
                        changes.originate_changed.len(),
                        10,
                        "two addresses of each service"
                    );
                    current = fresh;
                },
                BatchSize::PerIteration,
            );
        },
    );
}

fn bench(criterion: &mut Criterion) {
    let objects = cluster();
    let mut group = criterion.benchmark_group("calico");
    group.sample_size(10);
    group.bench_function("first plan, from octets", |b| {
        b.iter(|| black_box(full(&objects).plan()));
    });
    let mut resolver = full(&objects);
    let plan = resolver.plan();
    let sessions = plan.families.ipv4.sessions.len() + plan.families.ipv6.sessions.len();
    println!("{sessions} sessions, {} problems", plan.problems.len());
    // Updates that kubelet and calico-node write periodically and that no plan depends on.
    let heartbeats: Vec<(String, String)> = (0..2)
        .map(|at| {
            let (key, text) = node(7);
            let annotated = format!(r#""metadata":{{"annotations":{{"heartbeat":"{at}"}},"#);
            (key, text.replacen(r#""metadata":{"#, &annotated, 1))
        })
        .collect();
    let mut at = 0;
    group.bench_function("a Node's heartbeat, from octets", |b| {
        b.iter(|| {
            at += 1;
            for object in decoded(&heartbeats[at % 2..=at % 2]) {
                assert!(!resolver.apply(object), "no plan follows");
            }
        });
    });
    let mut number = NODES;
    group.bench_function("one node more", |b| {
        b.iter_batched(
            || {
                number += 1;
                decoded(&[node(number)])
            },
            |objects| {
                for object in objects {
                    resolver.apply(object);
                }
                black_box(resolver.plan())
            },
            BatchSize::PerIteration,
        );
    });
    let host = HostSettings {
        control: ControlSettings::at("/run/margay/bench.sock"),
        http: None,
        log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
        mrt: None,
        bmp: Vec::new(),
    };
    let mut converter = Converter::default();
    let mut convert = |resolver: &mut Resolver| {
        let plan = resolver.plan();
        converter.convert(&plan, &resolver.take_touched(), &host)
    };
    let mut current = convert(&mut resolver);
    group.bench_function("one node more, up to what the daemon takes", |b| {
        b.iter_batched(
            || {
                number += 1;
                decoded(&[node(number)])
            },
            |objects| {
                for object in objects {
                    resolver.apply(object);
                }
                let fresh = convert(&mut resolver);
                assert!(fresh != current, "one more neighbour");
                current = fresh;
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    weights(criterion, &objects, &host);
}

criterion_group!(benches, bench);
criterion_main!(benches);
