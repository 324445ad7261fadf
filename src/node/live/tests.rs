use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;
use crate::calico::model::{Kind, ObjectId, decode, decode_etcd};
use crate::config::{ControlSettings, LogFormat, LogLevel, LogSettings};
use crate::datastore::{Sender, outbox};

/// Longer than anything here takes, shorter than a test's patience.
const LONG: Duration = Duration::from_secs(20);

struct Rig {
    etcd: Sender,
    files: Sender,
    follower: Follower,
}

fn rig() -> Rig {
    let host = HostSettings {
        control: ControlSettings { socket: "/run/margay/test.sock".into(), bird_sockets: None },
        http: None,
        log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
    };
    let ((etcd, first), (files, second)) = (outbox(), outbox());
    let feeds = vec![("etcd".to_owned(), first), ("files".to_owned(), second)];
    Rig {
        etcd,
        files,
        follower: follow_feeds(Settings::new("a"), CalicoLimits::default(), host, feeds),
    }
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
async fn nothing_is_decided_before_every_source_was_listed() {
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
async fn the_plan_answers_unless_nobody_takes_what_it_works_out() {
    let mut rig = rig();
    let pulse = rig.follower.vitals.plan.clone();
    timeout(LONG, pulse.ask()).await.expect("it waits for lists, and turns");
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24")]));
    rig.update().await;
    // One update fits into the channel; with the next the task waits for the daemon.
    for round in 3..6 {
        rig.change([node(&format!("n{round}"), &format!("10.0.0.{round}/24"))]);
        sleep(Duration::from_millis(200)).await;
    }
    assert!(timeout(Duration::from_millis(300), pulse.ask()).await.is_err());
    while !rig.is_quiet().await {}
    timeout(LONG, pulse.ask()).await.expect("it goes on");
    let names: Vec<&str> = rig.follower.vitals.sources.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["etcd", "files"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_own_node_it_says_so_and_leaves_everything_alone() {
    let mut rig = rig();
    rig.files.send(Event::Listed(Vec::new()));
    rig.etcd.send(Event::Listed(vec![node("b", "10.0.0.2/24")]));
    assert!(rig.is_quiet().await);
    assert!(rig.status().waiting_for().unwrap().starts_with("Node/a: "));
    rig.change([node("a", "10.0.0.1/24")]);
    assert_eq!(peers(&rig.update().await.config), ["Mesh_10_0_0_2"]);
    // Deleted again, what runs stays.
    let own = ObjectId::new(Kind::Node, "a");
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(own)]));
    assert!(rig.is_quiet().await);
    assert!(rig.status().problems.iter().any(|problem| problem.object == "Node/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_a_second_are_worked_out_together() {
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
    // A label alone changes nothing that runs.
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
    // A node that is deleted does not part any longer, although the configuration is the same.
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(ObjectId::new(Kind::Node, "c"))]));
    assert_eq!(rig.update().await.parted, [b]);
    rig.change([mesh(true)]);
    let update = rig.update().await;
    assert_eq!(peers(&update.config), ["Mesh_10_0_0_2"]);
    assert!(update.parted.is_empty(), "it is a neighbour again");
    rig.etcd.send(Event::Changed(vec![Change::Withdraw(ObjectId::new(Kind::Node, "b"))]));
    assert!(rig.update().await.parted.is_empty(), "a deleted node goes at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_until_it_is_mended() {
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
