//! The content of etcd: changes, many objects, large ones, and ones that cannot be read.

use std::time::{Duration, Instant};

use etcd_client::{CompactionOptions, DeleteOptions};
use margay::datastore::Blocks;

use crate::consumer::Consumer;
use crate::etcd::{Etcd, RESOURCES, node, peer, put, put_all};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn what_bgp_reads_is_listed_and_followed_and_nothing_else() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    let own = "/calico/ipam/v2/host/me/ipv4/block/10.65.1.0-26";
    for key in [
        own,
        "/calico/ipam/v2/host/me",
        "/calico/ipam/v2/host/me2/ipv4/block/10.65.2.0-26",
        "/calico/ipam/v2/assignment/ipv4/block/10.65.1.0-26",
        &format!("{RESOURCES}/workloadendpoints/default/w"),
        &format!("{RESOURCES}/ippools/pool"),
        &format!("{RESOURCES}/bgpconfigurations/default"),
        &format!("{RESOURCES}/bgpfilters/f"),
    ] {
        put(&mut client, key, "{}").await;
    }
    put_all(&mut client, &[node(1, 0), peer("a", 1)]).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    // A pool without a CIDR is reported, and not known.
    assert_eq!(consumer.faults.len(), 1, "{:?}", consumer.faults);
    let all = [
        "Node/n1",
        "BGPConfiguration/default",
        "BGPPeer/a",
        "BGPFilter/f",
        "BlockAffinity/me/10.65.1.0/26",
    ];
    assert_eq!(consumer.names(), all);

    put_all(&mut client, &[peer("b", 2)]).await;
    client.delete(own, None).await.unwrap();
    put(&mut client, &format!("{RESOURCES}/workloadendpoints/default/w"), "{}").await;
    consumer.until("both changes", |c| c.changes == 2).await;
    client
        .delete(format!("{RESOURCES}/bgppeers/"), Some(DeleteOptions::new().with_prefix()))
        .await
        .unwrap();
    consumer.until("all peers gone", |c| c.changes == 4).await;
    assert_eq!(consumer.names(), ["Node/n1", "BGPConfiguration/default", "BGPFilter/f"]);
    assert_eq!(consumer.states.len(), 1);

    let mut config = etcd.config();
    config.blocks = Blocks::PodCidrs;
    put(&mut client, own, "{}").await;
    consumer.until("the block", |c| c.changes == 5).await;
    let without = Consumer::current(config).await;
    assert_eq!(without.names(), ["Node/n1", "BGPConfiguration/default", "BGPFilter/f"]);

    let Consumer { receiver, task, .. } = consumer;
    drop(receiver);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").unwrap();
}

/// 6,000 nodes and 20 objects of 1 MiB: 30 MiB in many pages, some of which exceed the maximum
/// message size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn lists_and_changes_of_many_megabytes() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    let nodes: Vec<(String, String)> = (0..6000).map(|n| node(n, 1500)).collect();
    put_all(&mut client, &nodes).await;
    for number in 0..20 {
        let (key, value) = node(10_000 + number, 1 << 20);
        put(&mut client, &key, value).await;
    }
    let start = Instant::now();
    let mut consumer = Consumer::current(etcd.config()).await;
    println!("{} objects, 30 MiB: listed in {:?}", consumer.known.len(), start.elapsed());
    assert_eq!(consumer.known.len(), 6020);

    // The consumer does not read in the meantime.
    for number in 0..12 {
        let (key, value) = node(20_000 + number, 1 << 20);
        put(&mut client, &key, value).await;
    }
    let nodes: Vec<(String, String)> = (0..6000).map(|n| node(n + 60_000, 1500)).collect();
    let moved: Vec<(String, String)> =
        nodes.into_iter().zip(0..6000).map(|((_, v), n)| (node(n, 0).0, v)).collect();
    put_all(&mut client, &moved).await;
    consumer.until("every change", |c| c.known.len() == 6032 && c.changes >= 6012).await;
    consumer.until_as_fresh(etcd.config()).await;
    assert_eq!(consumer.lists, 1);
    assert_eq!(consumer.states.len(), 1, "never away: {:?}", consumer.states);
}

/// Ten thousand changes while the consumer is busy: it receives the last one of each object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn a_consumer_that_falls_behind_finds_the_last_state() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    let nodes = |round: u32| -> Vec<(String, String)> {
        (0..100).map(|n| (node(n, 0).0, node(n + 1000 * round, 0).1)).collect()
    };
    put_all(&mut client, &nodes(0)).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    for round in 1..=100 {
        put_all(&mut client, &nodes(round)).await;
    }
    let end = node(1_000_000, 0);
    put_all(&mut client, &[end]).await;
    // Long enough for everything to have arrived.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    consumer.until("the last", |c| c.known.len() == 101).await;
    assert_eq!(consumer.changes, 101);
    consumer.until_as_fresh(etcd.config()).await;
}

/// Unreadable values of every kind, before and after readable ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn garbage_of_every_kind_stops_nothing() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000)).into_bytes();
    let garbage: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"no json".to_vec(),
        b"{\"spec\":{\"bgp\":".to_vec(),
        b"[]".to_vec(),
        b"{\"spec\":7}".to_vec(),
        b"{\"metadata\":\"x\"}".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        deep,
        vec![b'9'; 100_000],
    ];
    let kinds = ["nodes", "ippools", "bgpconfigurations", "bgppeers", "bgpfilters"];
    let mut keys: Vec<String> = kinds.iter().map(|k| format!("{RESOURCES}/{k}/x")).collect();
    keys.push("/calico/ipam/v2/host/me/ipv4/block/10.65.1.0-26".to_owned());
    let good = |key: &str| {
        if key.contains("ippools") { "{\"spec\":{\"cidr\":\"10.65.0.0/16\"}}" } else { "{}" }
    };

    // First readable, then garbage: the known state is kept.
    for key in &keys {
        put(&mut client, key, good(key)).await;
    }
    let mut consumer = Consumer::current(etcd.config()).await;
    let before = consumer.known.clone();
    assert_eq!(before.len(), 6);
    for value in &garbage {
        for key in &keys {
            put(&mut client, key, value.clone()).await;
        }
    }
    let nine = vec![b'9'; 100_000];
    put(&mut client, &format!("{RESOURCES}/nodes/last"), nine).await;
    consumer.until("the last one", |c| c.faults.keys().any(|id| id.name == "last")).await;
    assert_eq!(consumer.faults.len(), 7, "{:?}", consumer.faults);
    assert_eq!(consumer.known, before);

    // Keys that are wrong.
    for key in [
        &b"/calico/ipam/v2/host/me/ipv4/block/10.65.1.9-26"[..],
        b"/calico/ipam/v2/host/me/ipv4/block/garbage",
        b"/calico/ipam/v2/host/me/ipv4/block/10.65.1.0-26/more",
        b"/calico/resources/v3/projectcalico.org/nodes/",
        b"/calico/resources/v3/projectcalico.org/nodes/\xff\xfe",
    ] {
        client.put(key, "{}", None).await.unwrap();
    }
    consumer.until("two problems", |c| c.problems.len() == 2).await;
    let fresh = Consumer::current(etcd.config()).await;
    assert_eq!(fresh.problems, consumer.problems);
    assert_eq!(fresh.faults, consumer.faults);
    assert_eq!(fresh.known.len(), 0);

    // Then all are fixed.
    for key in keys.iter().chain([&format!("{RESOURCES}/nodes/last")]) {
        put(&mut client, key, good(key)).await;
    }
    consumer.until("no faults", |c| c.faults.is_empty()).await;
    consumer.until_as_fresh(etcd.config()).await;
    assert_eq!((consumer.known.len(), consumer.lists), (7, 1));
}

/// Lists while objects change and all revisions but the last are compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn compaction_at_any_moment() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    let nodes: Vec<(String, String)> = (0..3000).map(|n| node(n, 0)).collect();
    put_all(&mut client, &nodes).await;
    let mut writer = etcd.client().await;
    let writing = tokio::spawn(async move {
        for round in 0..400u32 {
            put_all(&mut writer, &[peer(&format!("p{}", round % 7), round)]).await;
            let done = writer.delete(format!("{RESOURCES}/bgppeers/p{}", round % 5), None).await;
            let revision = done.unwrap().header().unwrap().revision();
            writer.compact(revision, Some(CompactionOptions::new())).await.unwrap();
        }
    });
    let mut consumers = Vec::new();
    while !writing.is_finished() && consumers.len() < 12 {
        consumers.push(Consumer::start(etcd.config()));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    writing.await.unwrap();
    for consumer in &mut consumers {
        consumer.until_as_fresh(etcd.config()).await;
        assert_eq!(consumer.lists, 1);
        assert!(
            !consumer.states.iter().any(|s| matches!(s, margay::datastore::State::Away { .. }))
        );
    }
}
