use std::path::PathBuf;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;
use crate::calico::Settings;
use crate::calico::model::{Decoded, Kind, decode, decode_etcd};
use crate::config::{CalicoLimits, ControlSettings, LogFormat, LogLevel, LogSettings};
use crate::datastore::{Sender, outbox};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

struct Rig {
    etcd: Sender,
    files: Sender,
    follower: Follower,
}

fn rig() -> Rig {
    rig_with(None, Vec::new())
}

fn rig_with(state_file: Option<PathBuf>, notes: Vec<Problem>) -> Rig {
    let host = HostSettings {
        control: ControlSettings::at("/run/margay/test.sock"),
        http: None,
        log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
        mrt: None,
        bmp: Vec::new(),
    };
    let ((etcd, first), (files, second)) = (outbox(), outbox());
    let feeds = vec![
        Feed::new("etcd".to_owned(), first, Some("etcd")),
        Feed::new("files".to_owned(), second, Some("files")),
    ];
    let settings = NodeSettings {
        calico: Settings::new("a"),
        sources: Vec::new(),
        notes,
        state_file,
        limits: CalicoLimits::default(),
        host,
    };
    Rig { etcd, files, follower: follow_feeds(&settings, feeds, watch::channel(None).0) }
}

impl Rig {
    async fn update(&mut self) -> Update {
        timeout(LONG, self.follower.updates.recv()).await.expect("in time").expect("an update")
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.follower.updates.recv()).await.is_err()
    }

    fn status(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.follower.status.borrow())
    }

    fn change(&self, objects: impl IntoIterator<Item = Decoded>) {
        self.etcd.send(Event::Changed(objects.into_iter().map(Change::Put).collect()));
    }
}

fn object(value: serde_json::Value) -> Decoded {
    decode(value).unwrap().unwrap()
}

fn node(name: &str, address: &str) -> Decoded {
    labelled(name, address, "")
}

fn labelled(name: &str, address: &str, label: &str) -> Decoded {
    object(json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "labels": {"label": label}},
        "spec": {"bgp": {"ipv4Address": address}},
    }))
}

fn mesh(enabled: bool) -> Decoded {
    object(json!({
        "kind": "BGPConfiguration", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": enabled},
    }))
}

fn peers(config: &Config) -> Vec<&str> {
    config.peers.iter().map(|peer| &*peer.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_plan_before_every_source_was_listed() {
    let mut rig = rig();
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    rig.files.send(Event::State(State::Away {
        since: std::time::Instant::now(),
        reason: "the folder cannot be read".into(),
    }));
    assert!(rig.is_quiet().await);
    let waiting = rig.status().waiting_for().unwrap();
    assert_eq!(waiting, "waiting for objects from files: the folder cannot be read");
    rig.files.send(Event::Listed(Vec::new()));
    let update = rig.update().await;
    assert_eq!(peers(&update.config), ["Mesh_10_0_0_2"]);
    assert_eq!(rig.status().waiting_for(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_with_the_objects_of_the_plan_and_changes_nothing() {
    let mut rig = rig();
    let asking = rig.follower.asking.clone();
    let why = timeout(LONG, asking.ask()).await.unwrap().unwrap().unwrap_err();
    assert!(why.to_string().contains("waiting for objects from etcd"), "{why}");
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    let Update { config, .. } = rig.update().await;
    let asked = timeout(LONG, asking.ask()).await.unwrap().unwrap().unwrap();
    assert!(!asked.is_pending && asked.away.is_empty());
    assert!(Arc::ptr_eq(asked.basis.config.as_ref().unwrap(), &config));
    let loaded = crate::calico::load::Loaded {
        objects: vec![node("c", "10.0.0.3/24")],
        ..Default::default()
    };
    let edit = crate::calico::edit::Edit::new(loaded, vec!["Node/b".to_owned()]).unwrap();
    let forecast = asked.basis.forecast(&edit).unwrap();
    let lines = config.changes_to(&forecast.after).lines();
    assert_eq!(lines, ["peer Mesh_10_0_0_2: removed", "peer Mesh_10_0_0_3: added"]);
    assert!(rig.is_quiet().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planning_task_answers_unless_its_updates_are_not_taken() {
    let mut rig = rig();
    let liveness = rig.follower.liveness.plan.clone();
    timeout(LONG, liveness.ask()).await.expect("it waits for lists, and still runs");
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    rig.update().await;
    // One update fits into the channel; with the next the task waits for the daemon.
    for round in 3..6 {
        rig.change([node(&format!("n{round}"), &format!("10.0.0.{round}/24"))]);
        sleep(Duration::from_millis(200)).await;
    }
    assert!(timeout(Duration::from_millis(300), liveness.ask()).await.is_err());
    while !rig.is_quiet().await {}
    timeout(LONG, liveness.ask()).await.expect("it continues");
    let names: Vec<&str> = rig.follower.liveness.sources.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["etcd", "files"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_own_node_it_reports_that_and_changes_nothing() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("b", "10.0.0.2/24")]));
    assert!(rig.is_quiet().await);
    assert!(rig.status().waiting_for().unwrap().starts_with("Node/a: "));
    rig.change([node("a", "10.0.0.1/24")]);
    assert_eq!(peers(&rig.update().await.config), ["Mesh_10_0_0_2"]);
    // When it is deleted again, the running configuration stays.
    let own = ObjectId::new(Kind::Node, "a");
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(own)]));
    assert!(rig.is_quiet().await);
    assert!(rig.status().problems.iter().any(|problem| problem.object == "Node/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_a_second_are_planned_together() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/16"), node("b", "10.0.0.2/16")]));
    rig.update().await;
    for round in 0..1000_u32 {
        let name = format!("n{}", round % 100);
        rig.change([node(&name, &format!("10.0.1.{}/16", round % 100 + 1))]);
        rig.change([labelled("b", "10.0.0.2/16", &round.to_string())]);
        sleep(Duration::from_millis(1)).await;
    }
    let mut newest = rig.update().await.config;
    while newest.peers.len() < 101 {
        newest = rig.update().await.config;
    }
    let plans = rig.status().plans;
    assert!(plans < 100, "{plans} plans for 2000 changes in a second or more");
    // A label alone does not change the configuration.
    rig.change([labelled("b", "10.0.0.2/16", "x")]);
    assert!(rig.is_quiet().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_part_while_their_nodes_exist() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    let nodes = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"];
    let nodes = ["a", "b", "c"].iter().zip(nodes).map(|(name, address)| node(name, address));
    rig.etcd.send(Event::Listed(nodes.collect()));
    assert_eq!(rig.update().await.config.peers.len(), 2);
    rig.change([mesh(false)]);
    let update = rig.update().await;
    assert!(update.config.peers.is_empty());
    let [b, c]: [IpAddr; 2] = [[10, 0, 0, 2].into(), [10, 0, 0, 3].into()];
    assert_eq!(update.parted, [b, c]);
    // A deleted node is removed from the list, although the configuration is the same.
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(ObjectId::new(Kind::Node, "c"))]));
    assert_eq!(rig.update().await.parted, [b]);
    rig.change([mesh(true)]);
    let update = rig.update().await;
    assert_eq!(peers(&update.config), ["Mesh_10_0_0_2"]);
    assert!(update.parted.is_empty(), "it is a neighbour again");
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(ObjectId::new(Kind::Node, "b"))]));
    assert!(rig.update().await.parted.is_empty(), "a deleted node is removed at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_reported_until_it_is_corrected() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    rig.files.send(Event::Problems(vec![Problem::new("/etc/x.yaml", "not YAML")]));
    let garbage = "/calico/resources/v3/projectcalico.org/ippools/p";
    let mut objects = vec![node("a", "10.0.0.1/24"), decode_etcd(garbage, b"{").unwrap()];
    objects.push(node("b", "10.0.0.2/24"));
    rig.etcd.send(Event::Listed(objects));
    assert_eq!(rig.update().await.config.peers.len(), 1, "the rest is in force");
    let objects = || -> Vec<String> {
        rig.status().problems.iter().map(|problem| problem.object.clone()).collect()
    };
    assert_eq!(objects(), ["/etc/x.yaml", "IPPool/p"]);
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(ObjectId::new(Kind::IpPool, "p"))]));
    rig.files.send(Event::Problems(Vec::new()));
    let mended = async {
        while !objects().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, mended).await.unwrap();
}

#[test]
fn the_load_of_direct_reading_is_noted_in_whole_thousands() {
    assert_eq!((load_of(0), load_of(1000)), (None, None));
    let text = load_of(1001).unwrap();
    assert!(text.contains("more than 1,000 nodes") && text.contains("3333 heartbeats"), "{text}");
    assert_eq!(load_of(2000).as_ref(), Some(&text), "no change with every node");
    assert!(load_of(5001).unwrap().contains("83333 heartbeats"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_settings_are_noted_before_and_after_the_plan() {
    let mut rig = rig_with(None, vec![Problem::new("FELIX_TYPHAADDR", "names a Typha")]);
    let is_told =
        |rig: &Rig| rig.status().notes.iter().any(|note| note.object == "FELIX_TYPHAADDR");
    assert!(is_told(&rig));
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    rig.update().await;
    assert!(is_told(&rig));
}

/// Waits until the file contains `text`. Writes are delayed by two seconds.
async fn wait_for(path: &std::path::Path, text: &str) {
    let there = async {
        while !std::fs::read_to_string(path).is_ok_and(|kept| kept.contains(text)) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, there).await.expect("it is written");
}

fn away(reason: &str) -> Event {
    let since = std::time::Instant::now();
    Event::State(State::Away { since, reason: reason.into() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_datastore_uses_the_stored_objects() {
    let path = std::env::temp_dir().join(format!("margay-live-{}-kept", std::process::id()));
    let mut first = rig_with(Some(path.clone()), Vec::new());
    let peer = |asn: serde_json::Value| {
        object(json!({
            "kind": "BGPPeer", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "tor"},
            "spec": {"peerIP": "10.0.0.254", "asNumber": asn,
                     "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}},
        }))
    };
    let secret = object(json!({
        "kind": "Secret", "apiVersion": "v1", "metadata": {"name": "bgp", "namespace": "kube-system"},
        "stringData": {"tor": "key of the session", "other": "nobody's business"},
    }));
    first.files.send(Event::Listed(vec![secret.clone()]));
    first.etcd.send(Event::Listed(vec![
        node("a", "10.0.0.1/24"),
        node("b", "10.0.0.2/24"),
        mesh(true),
        peer(json!(65001)),
    ]));
    let before = first.update().await;
    assert_eq!(peers(&before.config), ["Global_10_0_0_254", "Mesh_10_0_0_2"]);
    wait_for(&path, "10.0.0.254").await;
    drop(first);
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(!kept.contains("bm9ib2R5J3M"), "only what sessions need: {kept}");

    // etcd is unavailable, and the files no longer have the Secret.
    let mut second = rig_with(Some(path.clone()), Vec::new());
    second.etcd.send(away("connection refused"));
    second.files.send(Event::Listed(Vec::new()));
    let restored = second.update().await;
    assert_eq!(restored.config.peers, before.config.peers, "with its key");
    let problems: Vec<String> = second.status().problems.iter().map(|p| p.object.clone()).collect();
    assert_eq!(problems, ["BGPPeer/tor", "etcd"], "no Secret, no etcd");
    // An object that cannot be parsed keeps its content from before the restart.
    second.files.send(Event::Changed(vec![Change::Put(secret)]));
    let listed = vec![
        node("a", "10.0.0.1/24"),
        node("b", "10.0.0.2/24"),
        mesh(true),
        peer(json!("no number")),
    ];
    second.etcd.send(Event::Listed(listed));
    second.etcd.send(Event::State(State::Current));
    assert!(second.is_quiet().await, "the same configuration");
    let problems = second.status().problems.clone();
    assert!(problems.len() == 1 && problems[0].text.contains("last good state"), "{problems:?}");
    // Objects that were deleted meanwhile are removed when the source is listed.
    let mut third = rig_with(Some(path.clone()), Vec::new());
    third.files.send(Event::Listed(Vec::new()));
    third.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), mesh(true)]));
    assert_eq!(peers(&third.update().await.config), Vec::<&str>::new());
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_objects_are_not_used_while_the_source_may_still_answer() {
    let path = std::env::temp_dir().join(format!("margay-live-{}-late", std::process::id()));
    let mut first = rig_with(Some(path.clone()), Vec::new());
    first.files.send(Event::Listed(Vec::new()));
    first.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    first.update().await;
    wait_for(&path, "10.0.0.2").await;
    drop(first);
    let mut second = rig_with(Some(path.clone()), Vec::new());
    second.files.send(Event::Listed(Vec::new()));
    assert!(second.is_quiet().await);
    second.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("c", "10.0.0.3/24")]));
    assert_eq!(peers(&second.update().await.config), ["Mesh_10_0_0_3"]);
    // A silent source is treated as unavailable after a while.
    let mut third = rig_with(Some(path.clone()), Vec::new());
    third.files.send(Event::Listed(Vec::new()));
    assert!(!peers(&third.update().await.config).is_empty());
    std::fs::write(&path, "not what we write").unwrap();
    let fourth = rig_with(Some(path.clone()), Vec::new());
    fourth.files.send(Event::Listed(Vec::new()));
    fourth.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24")]));
    let refused = async {
        while !fourth.status().problems.iter().any(|p| p.text.starts_with("is damaged")) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, refused).await.expect("it is reported");
    drop(fourth);
    std::fs::remove_file(&path).unwrap();
}

/// It contains the cluster's AS number, the mesh setting and the ranges of services.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_invalid_bgp_configuration_no_node_starts_with_defaults() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    let bad = object(json!({
        "kind": "BGPConfiguration", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": {"asNumber": 64600, "listenPort": "abc"},
    }));
    rig.etcd.send(Event::Listed(vec![
        node("a", "10.0.0.1/24"),
        node("b", "10.0.0.2/24"),
        bad.clone(),
    ]));
    assert!(rig.is_quiet().await);
    let named = rig.status().problems.iter().any(|p| p.text.contains("nothing can be computed"));
    assert!(named, "{:?}", rig.status().problems);
    assert!(rig.status().waiting_for().is_some());
    rig.change([mesh(true)]);
    assert_eq!(peers(&rig.update().await.config), ["Mesh_10_0_0_2"]);
    rig.change([bad]);
    assert!(rig.is_quiet().await, "it keeps what it had");
}
