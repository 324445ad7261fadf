//! The sources against the double, in simulated time.

mod behaviours;
mod groups;
mod orders;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::api::Api;
use super::config::{ApiConfig, Group, KubernetesConfig};
use super::double::{
    AFFINITIES, CONFIGURATIONS, Cut, Double, FILTERS, Manners, NODES, PEERS, POOLS, Wrong,
};
use super::label::{HOSTNAME_HASH, hostname_hash};
use super::random::Random;
use super::source::follow_calico;
use crate::calico::Problem;
use crate::calico::model::{Decoded, Kind, ObjectId, decode_api, decode_api_node};
use crate::datastore::{Change, Event, Receiver, State, outbox};

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than any pause and any hold, except the pause after many times 404.
const SETTLED: Duration = Duration::from_secs(120);
const CALICO: [&str; 5] = [POOLS, CONFIGURATIONS, PEERS, FILTERS, AFFINITIES];

/// A source on the double, and what it has sent.
struct Lab {
    double: Double,
    receiver: Receiver,
    task: JoinHandle<()>,
    is_listed: bool,
    objects: BTreeMap<ObjectId, Decoded>,
    changes: usize,
    withdrawn: Vec<String>,
    state: Option<State>,
    problems: Vec<Problem>,
}

fn config() -> KubernetesConfig {
    KubernetesConfig {
        api: ApiConfig::default(),
        node: "me".to_owned(),
        all_blocks: false,
        use_pod_cidr: false,
        follows_cordon: false,
        group: None,
    }
}

impl Lab {
    fn new(double: Double) -> Lab {
        Lab::with(double, config(), 1)
    }

    fn with(double: Double, config: KubernetesConfig, seed: u64) -> Lab {
        let (sender, receiver) = outbox();
        let api = Arc::new(Api::new(double.clone(), Random::seeded(seed)));
        let task = tokio::spawn(async move { follow_calico(&*api, &config, sender).await });
        Lab::on(double, receiver, task)
    }

    fn on(double: Double, receiver: Receiver, task: JoinHandle<()>) -> Lab {
        Lab {
            double,
            receiver,
            task,
            is_listed: false,
            objects: BTreeMap::new(),
            changes: 0,
            withdrawn: Vec::new(),
            state: None,
            problems: Vec::new(),
        }
    }

    /// Lets time pass, and applies the events.
    async fn run(&mut self, time: Duration) {
        let end = sleep(time);
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = end.as_mut() => return,
                event = self.receiver.recv() => {
                    let event = event.expect("the source goes on");
                    self.take(event);
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Listed(objects) => {
                assert!(!self.is_listed, "the first list is sent once");
                self.is_listed = true;
                self.objects = objects.into_iter().map(|o| (o.id.clone(), o)).collect();
            }
            Event::Changed(changes) => {
                assert!(self.is_listed);
                for change in changes {
                    self.changes += 1;
                    match change {
                        Change::Put(object) => drop(self.objects.insert(object.id.clone(), object)),
                        Change::Withdraw(id) => {
                            self.withdrawn.push(id.to_string());
                            self.objects.remove(&id);
                        }
                    }
                }
            }
            Event::State(state) => self.state = Some(state),
            Event::Problems(problems) => self.problems = problems,
        }
    }

    async fn settle(&mut self) {
        self.run(SETTLED).await;
    }

    fn is_current(&self) -> bool {
        matches!(self.state, Some(State::Current))
    }

    fn reason(&self) -> String {
        match &self.state {
            Some(State::Away { reason, .. }) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that the objects sent are those of the server.
    #[track_caller]
    fn assert_same(&self) {
        let mut expected: BTreeMap<ObjectId, Decoded> = BTreeMap::new();
        for (collection, kind) in [
            (POOLS, Kind::IpPool),
            (CONFIGURATIONS, Kind::BgpConfiguration),
            (PEERS, Kind::BgpPeer),
            (FILTERS, Kind::BgpFilter),
            (AFFINITIES, Kind::BlockAffinity),
            (NODES, Kind::KubernetesNode),
        ] {
            for object in self.double.objects(collection).values() {
                let text = object.to_string();
                if kind == Kind::BlockAffinity && object["spec"]["node"] != "me" {
                    continue;
                }
                let read = match kind {
                    Kind::KubernetesNode => decode_api_node(text.as_bytes()),
                    kind => decode_api(kind, text.as_bytes()),
                };
                let decoded = read.unwrap().decoded;
                expected.insert(decoded.id.clone(), decoded);
            }
        }
        assert_eq!(self.objects, expected);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn node(number: usize) -> Value {
    json!({
        "metadata": {
            "labels": {"rack": format!("r{}", number % 3)},
            "annotations": {"projectcalico.org/IPv4Address": format!("10.0.{}.{}/24", number / 250, 1 + number % 250)},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {"podCIDRs": ["10.65.0.0/24"]},
        "status": {"conditions": []},
    })
}

fn peer(asn: u64) -> Value {
    json!({"metadata": {}, "spec": {"asNumber": asn, "peerIP": "192.0.2.1"}})
}

fn affinity(node: &str, cidr: &str) -> Value {
    json!({"metadata": {}, "spec": {"node": node, "cidr": cidr, "state": "confirmed", "deleted": "false"}})
}

fn labelled(mut affinity: Value) -> Value {
    let node = affinity["spec"]["node"].as_str().unwrap().to_owned();
    affinity["metadata"]["labels"] = json!({HOSTNAME_HASH: hostname_hash(&node)});
    affinity
}

/// Whether Calico labels the affinities that it writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    Absent,
    Given,
}

/// A small cluster.
fn cluster() -> Double {
    cluster_of(Labels::Given)
}

fn cluster_of(labels: Labels) -> Double {
    let double = Double::new();
    for number in 0..5 {
        double.put(NODES, &format!("n{number}"), node(number));
    }
    double.put(NODES, "me", node(7));
    double.put(POOLS, "pool", json!({"metadata": {}, "spec": {"cidr": "10.65.0.0/16"}}));
    double.put(CONFIGURATIONS, "default", json!({"metadata": {}, "spec": {"asNumber": 64512}}));
    double.put(PEERS, "tor", peer(64600));
    double.put(PEERS, "tor-2", peer(64601));
    for (name, node, cidr) in
        [("me-10-65-1-0-26", "me", "10.65.1.0/26"), ("n1-10-65-2-0-26", "n1", "10.65.2.0/26")]
    {
        let affinity = affinity(node, cidr);
        let affinity = if labels == Labels::Given { labelled(affinity) } else { affinity };
        double.put(AFFINITIES, name, affinity);
    }
    double
}

async fn lab() -> Lab {
    let mut lab = Lab::new(cluster());
    lab.settle().await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
    lab.assert_same();
    lab
}

fn lists(double: &Double) -> Vec<u64> {
    CALICO.iter().chain([&NODES]).map(|collection| double.asked(collection, "list")).collect()
}

/// Runs for that many heartbeats of a kubelet, one every five minutes.
async fn beat(lab: &mut Lab, beats: usize) {
    for _ in 0..beats {
        lab.run(MINUTE * 5).await;
        lab.double.put(NODES, "n1", node(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_heartbeats_are_no_change() {
    let mut lab = lab().await;
    for round in 0..1000 {
        let mut heartbeat = node(round % 5);
        heartbeat["status"] = json!({"conditions": [{"lastHeartbeatTime": round}]});
        lab.double.put(NODES, &format!("n{}", round % 5), heartbeat);
        lab.run(Duration::from_millis(100)).await;
    }
    assert_eq!(lab.changes, 0);
    lab.double.put(NODES, "n1", node(99));
    lab.run(MINUTE).await;
    assert_eq!(lab.changes, 1);
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_normally_costs_no_list() {
    let mut lab = lab().await;
    let before = lists(&lab.double);
    let watches = lab.double.asked(PEERS, "watch");
    beat(&mut lab, 36).await;
    assert_eq!(lists(&lab.double), before, "three hours");
    assert!(lab.double.asked(PEERS, "watch") >= watches + 8);
    assert_eq!((lab.changes, lab.double.lock().dials), (0, 1));
    // The periodic list is within half a day.
    lab.run(MINUTE * 60 * 12).await;
    assert!(lists(&lab.double).iter().zip(&before).all(|(now, before)| now > before));
}

/// Bookmarks go on if the store is restored under a running server.
#[tokio::test(start_paused = true)]
async fn nodes_that_send_nothing_but_bookmarks_are_probed() {
    let mut lab = lab().await;
    lab.double.put(NODES, "n1", node(1));
    lab.run(Duration::from_secs(1)).await;
    let before = lists(&lab.double);
    lab.run(MINUTE * 9).await;
    assert_eq!(lists(&lab.double), before);
    lab.run(MINUTE * 2).await;
    let costs: Vec<u64> = lists(&lab.double).iter().zip(&before).map(|(a, b)| a - b).collect();
    assert_eq!(costs, [0, 0, 0, 0, 0, 1], "the probe");
    assert!(lab.is_current() && lab.changes == 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_costs_one_list_of_each_kind() {
    let mut lab = lab().await;
    lab.double.put(NODES, "n1", node(1));
    lab.run(Duration::from_secs(1)).await;
    let before = lists(&lab.double);
    lab.double.put(PEERS, "while-away", peer(1));
    lab.double.restart();
    lab.settle().await;
    lab.assert_same();
    assert_eq!((lab.changes, lab.withdrawn.len()), (1, 0));
    let costs =
        |after: &[u64]| -> Vec<u64> { after.iter().zip(&before).map(|(a, b)| a - b).collect() };
    // Affinities are listed with the label and without; the Nodes were probed before.
    assert_eq!(costs(&lists(&lab.double)), [1, 1, 1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_no_list_of_the_nodes() {
    let mut lab = lab().await;
    lab.double.put(NODES, "n1", node(1));
    lab.run(Duration::from_secs(1)).await;
    let before = lab.double.asked(NODES, "list");
    lab.double.cut(Cut::Reset);
    lab.double.put(NODES, "n9", node(9));
    lab.double.put(PEERS, "new", peer(1));
    lab.settle().await;
    lab.assert_same();
    assert_eq!(lab.double.asked(NODES, "list"), before + 1, "the probe");
    assert!(lab.is_current() && lab.withdrawn.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_goaway_streams_continue_and_requests_use_a_new_connection() {
    let mut lab = lab().await;
    lab.double.cut(Cut::GoAway);
    lab.run(Duration::from_secs(1)).await;
    lab.double.put(PEERS, "new", peer(1));
    lab.run(Duration::from_secs(1)).await;
    lab.assert_same();
    assert_eq!(lab.double.lock().dials, 1, "the watches continue");
    lab.run(MINUTE * 30).await;
    assert_eq!(lab.double.lock().dials, 2);
    lab.assert_same();
    assert!(lab.is_current() && lab.withdrawn.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_detected_by_ping() {
    let mut lab = lab().await;
    lab.double.cut(Cut::Freeze);
    lab.double.put(PEERS, "new", peer(1));
    lab.run(Duration::from_secs(40)).await;
    lab.assert_same();
    assert!(lab.withdrawn.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_connections_is_dialled_rarely_and_reported() {
    let mut lab = lab().await;
    lab.double.change(|state| state.refuses_connections = true);
    lab.double.cut(Cut::Reset);
    lab.run(MINUTE).await;
    assert!(lab.reason().contains("Connection refused"), "{}", lab.reason());
    let before = lab.double.lock().dials;
    lab.run(MINUTE * 10).await;
    assert!(lab.double.lock().dials - before <= 100);
    lab.double.change(|state| state.refuses_connections = false);
    lab.run(MINUTE).await;
    assert!(lab.is_current(), "{:?}", lab.state);
    assert_eq!((lab.withdrawn.len(), lab.changes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_lasting_failure_is_reported_keeps_all_and_costs_few_requests() {
    for (wrong, named, cause) in [
        (Wrong::Status(401, "Unauthorized"), "check the token", "unauthorized"),
        (Wrong::Status(403, "forbidden: cannot list"), "ClusterRole", "forbidden"),
        (Wrong::Status(404, "404 page not found"), "Calico's", "no-api-group"),
        (Wrong::Status(500, "etcdserver: no leader"), "etcdserver: no leader", "server-error"),
        (Wrong::Status(503, "service unavailable"), "service unavailable", "server-error"),
        (Wrong::Status(422, "{}"), "422", "refused"),
        (Wrong::Status(410, "{}"), "410", "expired"),
        (Wrong::Busy(1), "429", "too-many-requests"),
        (Wrong::Status(429, "Too many requests"), "429", "too-many-requests"),
        (Wrong::Status(504, "upstream request timeout"), "504 upstream request", "server-error"),
        (Wrong::Html, "proxy", "not-kubernetes"),
        (Wrong::Broken, "connection ended", "connection-lost"),
        (Wrong::Late(Duration::from_secs(3600)), "no answer", "timeout"),
    ] {
        let mut lab = lab().await;
        lab.double.change(|state| {
            state.wrong.insert(String::new(), wrong.clone());
        });
        lab.double.end_watches();
        lab.double.cut(Cut::Reset);
        lab.run(MINUTE * 2).await;
        assert!(lab.reason().contains(named), "{wrong:?}: {}", lab.reason());
        assert_eq!(lab.receiver.watcher().followed().cause, Some(cause), "{wrong:?}");
        let (in_all, each) = (lab.double.asked_in_all(), lab.double.asked(PEERS, "list"));
        lab.run(MINUTE * 10).await;
        let asked = lab.double.asked_in_all() - in_all;
        assert!(lab.double.asked(PEERS, "list") - each <= 100, "{wrong:?}");
        assert!(asked <= 100 * 9, "{wrong:?}: {asked}");
        lab.double.change(|state| state.wrong.clear());
        lab.double.put(PEERS, "new", peer(1));
        lab.run(MINUTE * 7).await;
        assert!(lab.is_current(), "{wrong:?}: {:?}", lab.state);
        assert_eq!(lab.receiver.watcher().followed().cause, None, "{wrong:?}");
        assert_eq!((lab.changes, lab.withdrawn.len()), (1, 0), "{wrong:?}");
        lab.assert_same();
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_held_back_until_the_first_event_harms_nothing() {
    let double = cluster();
    for collection in CALICO {
        double.change(|state| {
            state.wrong.insert(collection.to_owned(), Wrong::Late(Duration::from_secs(8)))
        });
    }
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current());
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_recognised_however_many_writes_it_has_had() {
    for writes in [0, 1, 50] {
        let mut lab = lab().await;
        for number in 0..10 {
            lab.double.put(PEERS, &format!("lost-{number}"), peer(number));
            lab.double.put(NODES, &format!("lost-{number}"), node(20));
        }
        lab.double.delete(PEERS, "tor");
        lab.double.put(CONFIGURATIONS, "default", json!({"metadata": {}, "spec": {"asNumber": 1}}));
        lab.settle().await;
        lab.assert_same();
        lab.double.change(|state| state.refuses_connections = true);
        lab.double.restore(12);
        for number in 0..writes {
            lab.double.put(NODES, "n1", node(number));
            lab.double.put(PEERS, "since", peer(7));
        }
        lab.run(MINUTE).await;
        lab.double.change(|state| state.refuses_connections = false);
        lab.run(MINUTE * 5).await;
        lab.assert_same();
        assert!(lab.is_current(), "{writes}: {:?}", lab.state);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deletion_of_a_crd_withdraws_nothing() {
    let mut lab = lab().await;
    lab.double.delete_crd(PEERS);
    lab.run(MINUTE * 5).await;
    assert!(lab.withdrawn.is_empty(), "{:?}", lab.withdrawn);
    let named = |problem: &Problem| problem.object == "bgppeers" && problem.text.contains("404");
    assert!(lab.problems.iter().any(named), "{:?}", lab.problems);
    // Created again, and its objects one by one.
    lab.double.change(|state| state.missing.clear());
    lab.run(MINUTE).await;
    lab.double.put(PEERS, "tor", peer(64600));
    lab.run(Duration::from_secs(2)).await;
    lab.double.put(PEERS, "tor-2", peer(64601));
    lab.run(MINUTE).await;
    assert!(lab.problems.is_empty(), "{:?}", lab.problems);
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn objects_that_are_recreated_in_time_are_not_withdrawn() {
    let mut lab = lab().await;
    lab.double.delete_crd(PEERS);
    lab.run(MINUTE).await;
    let asked = lab.double.asked(PEERS, "list");
    lab.double.change(|state| state.missing.clear());
    while lab.double.asked(PEERS, "list") == asked {
        lab.run(Duration::from_secs(1)).await;
    }
    lab.run(Duration::from_secs(10)).await;
    lab.double.put(PEERS, "tor", peer(64600));
    lab.double.put(PEERS, "tor-2", peer(64601));
    lab.run(MINUTE * 2).await;
    assert_eq!((lab.withdrawn.len(), lab.changes), (0, 0));
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_sent_after_the_hold() {
    let mut lab = lab().await;
    lab.double.delete(PEERS, "tor");
    lab.run(Duration::from_secs(2)).await;
    assert!(lab.withdrawn.is_empty());
    lab.run(Duration::from_secs(2)).await;
    assert_eq!(lab.withdrawn, ["BGPPeer/tor"]);
    // The last object of a kind: a list has to confirm it.
    let before = lab.double.asked(PEERS, "list");
    lab.double.delete(PEERS, "tor-2");
    lab.run(Duration::from_secs(5)).await;
    assert_eq!(lab.withdrawn.len(), 2);
    assert_eq!(lab.double.asked(PEERS, "list"), before + 1);
    // A Node is no CRD.
    lab.double.delete(NODES, "n1");
    lab.run(Duration::from_millis(10)).await;
    assert_eq!(lab.withdrawn.len(), 3);
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_migration_from_v1_to_v3_changes_nothing() {
    let mut lab = lab().await;
    let v3 =
        |collection: &str| collection.replace("crd.projectcalico.org/v1", "projectcalico.org/v3");
    // Both groups are served for a while.
    lab.double.change(|state| state.groups.insert("projectcalico.org".into()));
    for collection in CALICO {
        for (name, object) in lab.double.objects(collection) {
            lab.double.put(&v3(collection), &name, object);
        }
    }
    lab.run(MINUTE * 10).await;
    assert_eq!(lab.double.asked(&v3(PEERS), "list"), 0);
    // The last step deletes the first.
    for collection in CALICO {
        lab.double.delete_crd(collection);
    }
    lab.double.change(|state| state.groups.remove("crd.projectcalico.org"));
    lab.run(MINUTE * 3).await;
    assert_eq!((lab.withdrawn.len(), lab.changes), (0, 0), "{:?}", lab.withdrawn);
    assert!(lab.is_current(), "{:?}", lab.state);
    assert!(lab.double.asked(&v3(PEERS), "watch") > 0);
    lab.double.put(&v3(PEERS), "new", peer(1));
    lab.run(Duration::from_secs(1)).await;
    assert_eq!(lab.changes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_server_never_had_counts_as_empty() {
    let double = cluster();
    double.change(|state| state.missing.insert(FILTERS.to_owned()));
    let mut lab = Lab::new(double);
    lab.run(Duration::from_secs(5)).await;
    assert!(lab.is_listed && lab.is_current() && lab.problems.is_empty());
    lab.double.change(|state| state.missing.clear());
    lab.double.put(FILTERS, "f", json!({"metadata": {}, "spec": {}}));
    lab.run(MINUTE).await;
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_cluster_information_is_reported_and_delays_nothing() {
    let release = POOLS.replace("ippools", "clusterinformations");
    let felix = POOLS.replace("ippools", "felixconfigurations");
    let double = cluster();
    let spec = json!({"metadata": {}, "spec": {"calicoVersion": "v3.31.2"}});
    double.put(&release, "default", spec);
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.objects.contains_key(&ObjectId::new(Kind::ClusterInformation, "default")));
    let double = cluster();
    double.change(|state| {
        state.wrong.insert(release, Wrong::Status(403, "clusterinformations is forbidden"));
        state.missing.insert(felix);
    });
    let mut lab = Lab::new(double);
    lab.run(Duration::from_secs(16)).await;
    assert!(lab.is_listed && lab.is_current(), "{:?}", lab.state);
    lab.assert_same();
    let named: Vec<&str> = lab.problems.iter().map(|p| p.object.as_str()).collect();
    assert_eq!(named, ["clusterinformations"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_aggregated_server_chooses_no_group() {
    let double = cluster();
    double.change(|state| {
        state.groups.insert("projectcalico.org".into());
        for collection in CALICO {
            let v3 = collection.replace("crd.projectcalico.org/v1", "projectcalico.org/v3");
            state.wrong.insert(v3, Wrong::Status(503, "service unavailable"));
        }
    });
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current());
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn discovery_that_is_forbidden_is_replaced_by_asking_for_the_kinds() {
    let double = cluster();
    double.change(|state| {
        state.wrong.insert("/apis".into(), Wrong::Status(403, "no"));
    });
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current());
    lab.assert_same();
    // With a configured group there is no discovery.
    let double = cluster();
    let config = KubernetesConfig { group: Some(Group::V1), ..config() };
    let mut lab = Lab::with(double, config, 1);
    lab.settle().await;
    assert_eq!((lab.is_current(), lab.double.asked("/apis", "list")), (true, 0));
}

#[tokio::test(start_paused = true)]
async fn affinities_without_labels_are_found_until_calico_has_labelled_them() {
    let double = cluster();
    double.put(AFFINITIES, "me-10-65-9-0-26", affinity("me", "10.65.9.0/26"));
    let mut lab = Lab::new(double);
    lab.settle().await;
    lab.assert_same();
    assert_eq!(lab.objects.keys().filter(|id| id.kind == Kind::BlockAffinity).count(), 2);
    // A block of another node changes its owner while all are watched.
    lab.double.put(AFFINITIES, "n1-10-65-2-0-26", labelled(affinity("me", "10.65.2.0/26")));
    lab.run(Duration::from_secs(5)).await;
    lab.assert_same();
    let back = labelled(affinity("n1", "10.65.2.0/26"));
    lab.double.put(AFFINITIES, "n1-10-65-2-0-26", back);
    lab.run(Duration::from_secs(5)).await;
    lab.assert_same();
    let own = labelled(affinity("me", "10.65.9.0/26"));
    lab.double.put(AFFINITIES, "me-10-65-9-0-26", own);
    lab.double.restart();
    lab.settle().await;
    lab.assert_same();
    // Only the selected affinities are sent.
    lab.double.put(AFFINITIES, "me-10-65-10-0-26", labelled(affinity("me", "10.65.10.0/26")));
    lab.run(Duration::from_secs(5)).await;
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn the_first_block_of_a_node_is_found_whether_it_has_a_label_or_not() {
    for has_label in [false, true] {
        let double = cluster();
        double.delete(AFFINITIES, "me-10-65-1-0-26");
        let mut lab = Lab::new(double);
        lab.settle().await;
        assert!(lab.is_current());
        let first = affinity("me", "10.65.9.0/26");
        let first = if has_label { labelled(first) } else { first };
        lab.double.put(AFFINITIES, "me-10-65-9-0-26", first);
        lab.run(Duration::from_secs(1)).await;
        assert_eq!(lab.changes, 1);
        lab.assert_same();
    }
}

#[tokio::test(start_paused = true)]
async fn pod_cidrs_come_from_the_own_node_only() {
    let double = cluster();
    let config = KubernetesConfig { use_pod_cidr: true, ..config() };
    let mut lab = Lab::with(double, config, 1);
    lab.settle().await;
    assert!(lab.is_current());
    assert_eq!(lab.double.asked(AFFINITIES, "list"), 0);
    let blocks = |name: &str| {
        let id = ObjectId::new(Kind::KubernetesNode, name);
        match lab.objects.get(&id).map(|decoded| &decoded.object) {
            Some(Ok(Some(crate::calico::model::Object::Node(node)))) => node.pod_cidrs.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((blocks("me"), blocks("n1")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_object_does_not_affect_others() {
    let double = cluster();
    double.put(PEERS, "bad", json!({"metadata": {}, "spec": {"asNumber": 42_000_000_000_000u64}}));
    double.put(PEERS, "worse", json!({"metadata": {}, "spec": "hello"}));
    double.put(POOLS, "nul", json!({"metadata": {}, "spec": {"cidr": "\u{0}"}}));
    let huge = "x".repeat(1 << 20);
    let mut with_annotations = node(3);
    with_annotations["metadata"]["annotations"]["big"] = json!(huge);
    double.put(NODES, "n3", with_annotations);
    double.change(|state| state.chunk = 7);
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current());
    lab.assert_same();
    lab.double.put(PEERS, "bad", peer(1));
    lab.double.put(PEERS, "tor", json!({"metadata": {}, "spec": {"asNumber": 1e30}}));
    lab.run(Duration::from_secs(5)).await;
    lab.assert_same();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_read_again_at_once() {
    let folder = std::env::temp_dir().join(format!("margay-kube-{}", std::process::id()));
    let link = folder.join("token");
    let rotate = |token: &str| {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(token), token).unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(folder.join(token), &link).unwrap();
    };
    rotate("first");
    let double = cluster();
    double.require_tokens(&["first"], &link);
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current());
    rotate("second");
    lab.double.require_tokens(&["second"], &link);
    lab.double.end_watches();
    lab.double.put(PEERS, "new", peer(1));
    lab.run(Duration::from_secs(7)).await;
    lab.assert_same();
    assert!(lab.is_current());
    // One that is never renewed is reported.
    lab.double.require_tokens(&["third"], &link);
    lab.double.end_watches();
    lab.run(MINUTE).await;
    assert!(lab.reason().contains("401"), "{}", lab.reason());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_without_http2_serves_as_well() {
    let double = cluster();
    double.change(|state| state.is_http1 = true);
    let mut lab = Lab::new(double);
    lab.settle().await;
    assert!(lab.is_current(), "{:?}", lab.state);
    lab.double.put(PEERS, "new", peer(1));
    lab.run(Duration::from_secs(1)).await;
    lab.assert_same();
    let before = lists(&lab.double);
    beat(&mut lab, 12).await;
    assert_eq!(lists(&lab.double), before, "a connection per watch causes no doubt");
    lab.double.restart();
    lab.double.put(PEERS, "newer", peer(1));
    lab.settle().await;
    lab.assert_same();
}
