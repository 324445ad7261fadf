//! etcd killed, frozen, restored, full; members lost.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::CompactionOptions;
use rustix::process::Signal;

use crate::consumer::Consumer;
use crate::etcd::{Etcd, Options, RESOURCES, config, node, peer, put, put_all};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn killed_and_started_again() {
    let mut etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    put_all(&mut client, &[peer("a", 1), peer("b", 1), node(1, 0)]).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    for round in 2..4 {
        let known = consumer.known.clone();
        etcd.kill();
        consumer.until("away", Consumer::is_away).await;
        assert!(consumer.reason().contains("refused") || !consumer.reason().is_empty());
        consumer.read_for(Duration::from_millis(500)).await;
        assert!(consumer.is_away() && consumer.known == known, "the last state stays in force");
        assert!(consumer.reason().contains("Connection refused"), "{}", consumer.reason());
        etcd.restart().await;
        let mut client = etcd.client().await;
        put_all(&mut client, &[peer("b", round), peer(&format!("new-{round}"), 1)]).await;
        consumer.until("both", |c| c.known.len() == known.len() + 1).await;
        consumer.until_as_fresh(etcd.config()).await;
    }
    // Nothing was sent twice.
    assert_eq!((consumer.lists, consumer.changes), (1, 4));
}

/// Back-off is for consecutive failures: a connection that listed and followed changes resets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn each_of_many_restarts_is_followed_at_once() {
    const RESTARTS: u32 = 8;
    // A start of etcd takes a second or two, in which a few attempts fail. Never reset, the back-off would
    // be longer than this after a few restarts.
    const FOLLOWED: Duration = Duration::from_secs(4);
    let mut etcd = Etcd::plain().await;
    put_all(&mut etcd.client().await, &[peer("a", 0)]).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    for round in 1..=RESTARTS {
        etcd.kill();
        consumer.until("away", Consumer::is_away).await;
        consumer.read_for(Duration::from_millis(300)).await;
        etcd.restart().await;
        let began = Instant::now();
        put_all(&mut etcd.client().await, &[peer("a", round)]).await;
        let changes = usize::try_from(round).expect("eight at most");
        consumer.until("the change", |c| c.changes == changes).await;
        assert!(began.elapsed() < FOLLOWED, "restart {round}: {:?}", began.elapsed());
        consumer.read_for(Duration::from_secs(2)).await;
    }
    assert_eq!(consumer.lists, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn frozen_and_thawed() {
    let etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    put_all(&mut client, &[peer("a", 1)]).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    // An idle etcd does not cause a reconnection.
    consumer.read_for(Duration::from_secs(2)).await;
    assert_eq!(consumer.states.len(), 1, "{:?}", consumer.states);

    let start = Instant::now();
    etcd.signal(Signal::STOP);
    consumer.until("away", Consumer::is_away).await;
    assert!(consumer.reason().contains("nothing heard for 1.5s"), "{}", consumer.reason());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // While it is frozen, attempts to connect hang and time out.
    consumer.until("given up", |c| c.is_away() && c.reason().contains("for 3s")).await;
    assert_eq!(consumer.known.len(), 1);
    etcd.signal(Signal::CONT);
    put_all(&mut client, &[peer("b", 1)]).await;
    consumer.until_as_fresh(etcd.config()).await;
    assert_eq!((consumer.lists, consumer.changes), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn the_other_members_take_over() {
    let mut cluster = Etcd::cluster(3, Options::default()).await;
    let mut client = cluster[0].client().await;
    put_all(&mut client, &[peer("a", 1)]).await;
    let all = config(&cluster.iter().collect::<Vec<_>>());
    let mut consumers = Vec::new();
    // Each starts with a random member: some with the lost one.
    for _ in 0..6 {
        consumers.push(Consumer::current(all.clone()).await);
    }
    cluster[1].signal(Signal::STOP);
    put_all(&mut client, &[peer("b", 1)]).await;
    for consumer in &mut consumers {
        consumer.until("with one member frozen", |c| c.known.len() == 2).await;
    }
    cluster[1].signal(Signal::CONT);
    cluster[2].kill();
    put_all(&mut client, &[peer("c", 1)]).await;
    for consumer in &mut consumers {
        consumer.until("with one member dead", |c| c.known.len() == 3).await;
    }
    // Without a majority the source must become unavailable, rather than appear unchanged.
    cluster[1].kill();
    for consumer in &mut consumers {
        consumer.until("without a majority", Consumer::is_away).await;
        assert_eq!(consumer.known.len(), 3);
    }
    cluster[1].restart().await;
    cluster[2].restart().await;
    let mut client = cluster[2].client().await;
    put_all(&mut client, &[peer("d", 1)]).await;
    for consumer in &mut consumers {
        consumer.until("healed", |c| c.known.len() == 4 && c.is_current()).await;
        assert_eq!((consumer.lists, consumer.changes), (1, 3));
    }
}

fn etcdctl(arguments: &[&str]) {
    let run = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "etcdctl {arguments:?}: {errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn restored_from_an_older_snapshot() {
    let mut etcd = Etcd::plain().await;
    let mut client = etcd.client().await;
    put_all(&mut client, &[peer("kept", 1), peer("changed", 1), peer("withdrawn", 1)]).await;
    let snapshot = etcd.folder().join("snapshot").display().to_string();
    etcdctl(&["--endpoints", &etcd.url, "snapshot", "save", &snapshot]);
    put_all(&mut client, &[peer("changed", 2), peer("lost", 1)]).await;
    client.delete(format!("{RESOURCES}/bgppeers/withdrawn"), None).await.unwrap();
    let mut consumer = Consumer::current(etcd.config()).await;
    assert_eq!(consumer.names(), ["BGPPeer/changed", "BGPPeer/kept", "BGPPeer/lost"]);

    etcd.kill();
    std::fs::remove_dir_all(etcd.data()).unwrap();
    let data = etcd.data().display().to_string();
    let more = etcd.restore_arguments();
    let mut arguments = vec!["snapshot", "restore", &snapshot, "--data-dir", &data];
    arguments.extend(more.iter().map(String::as_str));
    etcdctl(&arguments);
    etcd.restart().await;
    consumer.until("the old state", |c| c.changes == 3).await;
    assert_eq!(consumer.names(), ["BGPPeer/changed", "BGPPeer/kept", "BGPPeer/withdrawn"]);
    // Revisions that existed before now have another content: changes are followed nevertheless.
    let mut client = etcd.client().await;
    for asn in 3..10 {
        put_all(&mut client, &[peer("changed", asn)]).await;
    }
    put_all(&mut client, &[peer("last", 1)]).await;
    consumer.until("the last", |c| c.names().contains(&"BGPPeer/last".to_owned())).await;
    consumer.until_as_fresh(etcd.config()).await;
    assert_eq!(consumer.lists, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn full() {
    let flags = vec!["--quota-backend-bytes=4194304".to_owned()];
    let etcd = Etcd::start(Options { flags, ..Options::default() }).await;
    let mut client = etcd.client().await;
    put_all(&mut client, &[peer("a", 1)]).await;
    let mut consumer = Consumer::current(etcd.config()).await;
    let mut written = 0;
    let error = loop {
        let (key, value) = node(written % 3, 300_000);
        match client.put(key, value, None).await {
            Ok(_) => written += 1,
            Err(error) => break error.to_string(),
        }
        assert!(written < 100, "it never gets full");
    };
    assert!(error.contains("database space exceeded"), "{error}");
    // The data can still be read, by existing and by new consumers.
    consumer.until("what was written", |c| c.known.len() == 4).await;
    consumer.until_as_fresh(etcd.config()).await;
    consumer.read_for(Duration::from_millis(1000)).await;
    assert!(consumer.is_current());

    let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
    client.defragment().await.unwrap();
    etcdctl(&["--endpoints", &etcd.url, "alarm", "disarm"]);
    let (key, value) = peer("b", 1);
    put(&mut client, &key, value).await;
    consumer.until("room again", |c| c.known.len() == 5).await;
    consumer.until_as_fresh(etcd.config()).await;
    assert_eq!(consumer.lists, 1);
}
