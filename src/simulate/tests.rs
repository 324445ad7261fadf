//! Small clusters whose reachability is known.

use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::Prefix;
use serde_json::{Value, json};

use super::*;
use crate::calico::model::decode;
use crate::calico::{Settings, Snapshot};

fn object(kind: &str, name: &str, spec: Value, labels: Value) -> Value {
    json!({"kind": kind, "apiVersion": "projectcalico.org/v3",
           "metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// Node `nN` in a rack, with address 10.0.0.N and block 10.65.N.0/26.
fn node(number: u8, rack: &str, bgp: Value) -> Vec<Value> {
    let mut spec = json!({"ipv4Address": format!("10.0.0.{number}/24")});
    spec.as_object_mut().unwrap().extend(bgp.as_object().unwrap().clone());
    let name = format!("n{number}");
    let labels =
        json!({"rack": rack, "rr": bgp.get("routeReflectorClusterID").is_some().to_string()});
    let claim = json!({"cidr": format!("10.65.{number}.0/26"), "node": name, "state": "confirmed",
                       "deleted": "false"});
    vec![
        object("Node", &name, json!({"bgp": spec}), labels),
        object("BlockAffinity", &format!("{name}-block"), claim, json!({})),
    ]
}

fn pool(name: &str, more: Value) -> Value {
    let mut spec = json!({"cidr": "10.65.0.0/16", "ipipMode": "Never", "vxlanMode": "Never"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object("IPPool", name, spec, json!({}))
}

fn bgp(mesh: bool) -> Value {
    let spec = json!({"asNumber": 64512, "nodeToNodeMeshEnabled": mesh});
    object("BGPConfiguration", "default", spec, json!({}))
}

/// `count` nodes, the first `reflectors` of which reflect.
fn nodes(count: u8, reflectors: u8) -> Vec<Value> {
    let is_reflector = |number: u8| number <= reflectors;
    let cluster = |number| {
        if is_reflector(number) {
            json!({"routeReflectorClusterID": "244.0.0.1"})
        } else {
            json!({})
        }
    };
    let all = (1..=count).flat_map(|number| node(number, "one", cluster(number)));
    all.chain([pool("pods", json!({}))]).collect()
}

fn reflected(count: u8, reflectors: u8) -> Vec<Value> {
    let spec = json!({"nodeSelector": "all()", "peerSelector": "rr == 'true'"});
    let mut objects = nodes(count, reflectors);
    objects.extend([bgp(false), object("BGPPeer", "reflectors", spec, json!({}))]);
    objects
}

/// Every node has a session with each of these ToRs, in AS 65001.
fn torred(count: u8, tors: &[&str]) -> Vec<Value> {
    let mut objects = nodes(count, 0);
    objects.push(bgp(false));
    for (number, tor) in tors.iter().enumerate() {
        let spec = json!({"peerIP": tor, "asNumber": 65001, "numAllowedLocalASNumbers": 1});
        objects.push(object("BGPPeer", &format!("tor-{number}"), spec, json!({})));
    }
    objects
}

fn input(objects: Vec<Value>) -> Input {
    let mut snapshot = Snapshot::default();
    for object in objects {
        snapshot.apply(decode(object).unwrap().unwrap());
    }
    Input {
        snapshot,
        settings: Settings::new(""),
        fabric: true,
        vantages: Default::default(),
        tables: Default::default(),
    }
}

fn asked(objects: Vec<Value>, question: Question) -> Report {
    run(&input(objects), &question).unwrap()
}

fn failing(objects: Vec<Value>, failures: &[Failure]) -> State {
    let question = Question { failures: failures.to_vec(), ..Question::default() };
    let mut report = asked(objects, question);
    assert!(report.start.reaches_all(), "{:?}", report.start);
    report.scenarios.remove(0).state
}

fn power(name: &str) -> Failure {
    Failure::Power(name.to_owned())
}

fn names(lost: &[Lost]) -> Vec<&str> {
    lost.iter().map(|lost| lost.from.as_str()).collect()
}

#[test]
fn nodes_of_a_mesh_reach_each_other_directly() {
    let report = asked([nodes(5, 0), vec![bgp(true)]].concat(), Question::default());
    assert!(report.reaches_all);
    let state = &report.start;
    assert_eq!((state.sessions, state.established), (10, 10));
    assert_eq!(state.from_nodes, super::report::Pairs { all: 20, reached: 20, by_felix: 0 });
    assert_eq!(state.paths, [Path { via: Vec::new(), pairs: 20 }]);
    assert_eq!(state.announced, 20, "each block to each other node, and nothing is passed on");
}

#[test]
fn a_mesh_that_is_turned_off_leaves_every_node_alone() {
    let before = || [nodes(3, 0), vec![bgp(true)]].concat();
    let after = [nodes(3, 0), vec![bgp(false)]].concat();
    let change = Some((input(after), vec!["off".to_owned()]));
    let report = asked(before(), Question { change, ..Question::default() });
    assert!(!report.reaches_all && report.start.reaches_all());
    let change = report.change.unwrap();
    assert_eq!(names(&change.state.lost), ["n1", "n2", "n3"]);
    assert_eq!(change.state.lost[0].targets, 2);
    assert_eq!(change.state.lost[0].why, "n1 has no route");
    assert_eq!((change.routes_added, change.routes_removed, change.routes_changed), (0, 6, 0));
}

#[test]
fn from_mesh_to_reflectors_no_route_is_missed() {
    let mut mesh: Vec<Value> = (3..=5).flat_map(|number| node(number, "one", json!({}))).collect();
    mesh.extend([pool("pods", json!({})), bgp(true)]);
    let change = Some((input(reflected(5, 2)), vec!["reflectors".to_owned()]));
    let report = asked(mesh, Question { change, each: vec![Role::Node], ..Question::default() });
    assert!(report.reaches_all, "{:?}", report.change);
    let change = report.change.unwrap();
    let sessions = (change.sessions_begun, change.sessions_ended, change.sessions_restarted);
    assert_eq!(sessions, (7, 3, 0));
    assert!(change.gaps.is_empty(), "{:?}", change.gaps);
    assert_eq!((change.routes_added, change.routes_removed), (16, 0));
    assert_eq!((change.state.sessions, change.state.established), (7, 7));
    // The reflected routes are there when the mesh ends: nothing has to be waited for.
    assert!(change.state.settled_ms < 15_000, "{}", change.state.settled_ms);
    assert_eq!(report.scenarios.len(), 3);
    for scenario in &report.scenarios {
        assert!(scenario.state.reaches_all(), "{scenario:?}");
    }
}

#[test]
fn a_session_that_restarts_leaves_a_time_without_routes() {
    let with = |asn: u32| {
        let asns = [(1, 64512), (2, asn), (3, 64512)];
        let mut objects = vec![pool("pods", json!({})), bgp(true)];
        objects.extend(asns.iter().flat_map(|(n, asn)| node(*n, "one", json!({"asNumber": asn}))));
        objects
    };
    let (before, after) = (with(64512), with(64999));
    let change = Some((input(after), vec!["n2".to_owned()]));
    let change = asked(before, Question { change, ..Question::default() }).change.unwrap();
    let sessions = (change.sessions_begun, change.sessions_ended, change.sessions_restarted);
    assert_eq!(sessions, (0, 0, 2));
    assert!(change.state.reaches_all(), "{change:?}");
    let missed: Vec<_> = change.gaps.iter().map(|gap| (&*gap.from, gap.prefix)).collect();
    assert!(missed.contains(&("n1", "10.65.2.0/26".parse().unwrap())), "{missed:?}");
    assert!(missed.contains(&("n2", "10.65.3.0/26".parse().unwrap())), "{missed:?}");
    assert_eq!(missed.len(), 4, "n1 and n3 keep each other's");
    assert!(change.gaps.iter().all(|gap| gap.ms > 0 && gap.ms <= change.state.settled_ms));
}

#[test]
fn a_session_that_cannot_be_established_again_ends() {
    let before = [nodes(3, 0), vec![bgp(true)]].concat();
    // The others have no AS number, and are expected in its own.
    let after = [before.clone(), node(2, "one", json!({"asNumber": 64999}))].concat();
    let change = Some((input(after), vec!["n2".to_owned()]));
    let change = asked(before, Question { change, ..Question::default() }).change.unwrap();
    let sessions = (change.sessions_begun, change.sessions_ended, change.sessions_restarted);
    assert_eq!(sessions, (0, 2, 0));
    assert_eq!((change.state.established, change.state.session_faults.len()), (1, 2));
    assert_eq!(names(&change.state.lost), ["n1", "n2", "n3"]);
}

#[test]
fn nodes_and_peers_come_and_go() {
    let mesh = |count| [nodes(count, 0), vec![bgp(true)]].concat();
    let change = |before: Vec<Value>, after: Vec<Value>| {
        let change = Some((input(after), vec!["x".to_owned()]));
        asked(before, Question { change, ..Question::default() }).change.unwrap()
    };
    let more = change(mesh(3), mesh(4));
    assert_eq!((more.sessions_begun, more.sessions_ended), (3, 0));
    assert_eq!((more.state.from_nodes.all, more.state.from_nodes.reached), (12, 12));
    assert_eq!((more.routes_added, more.gaps.len()), (7, 0));
    let less = change(mesh(4), mesh(3));
    assert_eq!((less.sessions_begun, less.sessions_ended), (0, 3));
    assert_eq!((less.state.from_nodes.all, less.state.from_nodes.reached), (6, 6));
    assert_eq!((less.routes_removed, less.gaps.len()), (7, 0));
    let torless = || [nodes(2, 0), vec![bgp(false)]].concat();
    let with = change(torless(), torred(2, &["10.0.0.201"]));
    assert_eq!((with.sessions_begun, with.state.established), (2, 2));
    assert!(with.state.reaches_all(), "{with:?}");
    let without = change(torred(2, &["10.0.0.201"]), torless());
    assert_eq!((without.sessions_ended, without.state.established), (2, 0));
    assert_eq!(names(&without.state.lost), ["n1", "n2"]);
    // A change leads to where a new start does.
    let anew = asked(mesh(4), Question::default()).start;
    assert_eq!(anew.from_nodes, more.state.from_nodes);
    assert_eq!(anew.paths, more.state.paths);
}

#[test]
fn one_of_two_reflectors_may_die_and_the_only_one_may_not() {
    let state = failing(reflected(6, 2), &[power("n1")]);
    assert!(state.reaches_all(), "{state:?}");
    assert_eq!(state.gone, 1, "the reflector's own block");
    let state = failing(reflected(4, 1), &[power("n1")]);
    assert_eq!(names(&state.lost), ["n2", "n3", "n4"]);
    let state = failing(reflected(6, 2), &[Failure::AllReflectors]);
    assert_eq!(names(&state.lost), ["n3", "n4", "n5", "n6"]);
}

#[test]
fn power_is_missed_after_the_hold_time_and_a_process_after_the_restart_time() {
    let objects = || [nodes(3, 0), vec![bgp(true)]].concat();
    let state = failing(objects(), &[power("n2")]);
    assert!(state.reaches_all());
    assert!((239_000..241_000).contains(&state.settled_ms), "{}", state.settled_ms);
    // The node still runs its pods, and is no longer announced after 120 s.
    let state = failing(objects(), &[Failure::Process("n2".to_owned())]);
    assert_eq!(names(&state.lost), ["n1", "n3"]);
    assert!((120_000..122_000).contains(&state.settled_ms), "{}", state.settled_ms);
}

#[test]
fn nodes_behind_a_tor_are_lost_with_it_unless_there_is_another() {
    let state = failing(torred(3, &["10.0.0.201"]), &[power("10.0.0.201")]);
    assert_eq!(names(&state.lost), ["n1", "n2", "n3"]);
    let state = failing(torred(3, &["10.0.0.201", "10.0.0.202"]), &[power("10.0.0.201")]);
    assert!(state.reaches_all(), "{state:?}");
    assert_eq!(state.paths[0].via, ["10.0.0.202"]);
}

#[test]
fn an_own_as_in_the_path_is_found_where_it_is_not_allowed() {
    let mut objects = nodes(2, 0);
    objects.push(bgp(false));
    let spec = json!({"peerIP": "10.0.0.201", "asNumber": 65001});
    objects.push(object("BGPPeer", "tor", spec, json!({})));
    let report = asked(objects, Question::default());
    assert_eq!(names(&report.start.lost), ["n1", "n2"]);
    assert_eq!(report.start.from_peers.reached, 2, "the ToR has both routes");
}

#[test]
fn racks_reach_each_other_over_the_fabric_only() {
    let objects = || {
        let mut objects = node(1, "one", json!({"asNumber": 65101}));
        objects.extend(node(2, "two", json!({"asNumber": 65102})));
        objects.extend([pool("pods", json!({})), bgp(false)]);
        for (rack, tor, asn) in [("one", "10.0.0.201", 65001), ("two", "10.0.0.202", 65002)] {
            let spec = json!({"nodeSelector": format!("rack == '{rack}'"), "peerIP": tor,
                              "asNumber": asn});
            objects.push(object("BGPPeer", rack, spec, json!({})));
        }
        objects
    };
    let report = asked(objects(), Question::default());
    assert_eq!(report.start.paths.len(), 2, "{:?}", report.start);
    assert_eq!(report.start.paths[0].via.len(), 2);
    let apart = Input { fabric: false, ..input(objects()) };
    let report = run(&apart, &Question::default()).unwrap();
    assert_eq!(names(&report.start.lost), ["n1", "n2"]);
}

#[test]
fn a_table_of_a_router_is_announced_to_its_nodes() {
    let tor: IpAddr = "10.0.1.1".parse().unwrap();
    // ORIGIN IGP and AS_PATH 65010.
    let attrs: Arc<[u8]> =
        [&[0x40, 1, 1, 0][..], &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xf2][..]].concat().into();
    let route = |prefix: &str| (prefix.parse().unwrap(), Arc::clone(&attrs));
    let with = |at: IpAddr, routes: Vec<(Prefix, Arc<[u8]>)>| {
        let mut input = input(torred(2, &[&tor.to_string()]));
        input.tables = [(at, routes.into())].into();
        let question = Question { routes: true, ..Question::default() };
        run(&input, &question)
    };
    let report = with(tor, vec![route("203.0.113.0/24"), route("0.0.0.0/0")]).unwrap();
    assert!(report.reaches_all);
    for prefix in ["203.0.113.0/24", "0.0.0.0/0"] {
        assert_eq!(report.routes["n1"][&prefix.parse().unwrap()], [tor], "{prefix}");
    }
    let refused = with("10.0.1.99".parse().unwrap(), vec![route("203.0.113.0/24")]).unwrap_err();
    assert!(refused.to_string().starts_with("10.0.1.99 is no peer outside"), "{refused}");
}

#[test]
fn nodes_with_one_address_are_named() {
    let mut objects = [nodes(2, 0), vec![bgp(true)]].concat();
    objects.extend(node(3, "one", json!({"ipv4Address": "10.0.0.2/24"})));
    let report = asked(objects, Question::default());
    let faults = &report.start.session_faults;
    let said: Vec<_> = faults.iter().map(|f| (f.speaker.as_str(), f.why.as_str())).collect();
    assert_eq!(said, [("n3", "10.0.0.2 is the address of n2")]);
    assert_eq!((report.start.sessions, report.start.established), (2, 1));
    assert!(!report.reaches_all);
}

#[test]
fn sessions_in_different_ases_are_not_established() {
    let mut objects = [nodes(2, 0), vec![bgp(false)]].concat();
    for (from, to) in [(1, 2), (2, 1)] {
        let spec = json!({"node": format!("n{from}"), "peerIP": format!("10.0.0.{to}"),
                          "asNumber": 64999});
        objects.push(object("BGPPeer", &format!("from-{from}"), spec, json!({})));
    }
    let report = asked(objects, Question::default());
    assert_eq!((report.start.sessions, report.start.established), (1, 0));
    let why = &report.start.session_faults[0].why;
    assert!(why.contains("AS"), "{why}");
}

#[test]
fn services_are_for_peers() {
    let spec = json!({"asNumber": 64512, "nodeToNodeMeshEnabled": true,
                      "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]});
    let with = |objects: Vec<Value>| {
        let config = object("BGPConfiguration", "default", spec.clone(), json!({}));
        asked([objects, vec![config]].concat(), Question::default()).start
    };
    let state = with(torred(2, &["10.0.0.201"]));
    assert_eq!((state.services, state.unserved.len()), (1, 0));
    assert_eq!(state.from_peers.all, 3, "two blocks and a service");
    assert_eq!(state.from_peers.reached, 3);
    assert_eq!(with(nodes(2, 0)).from_peers.all, 0);
}

#[test]
fn routes_that_felix_writes_are_counted_apart() {
    let mut objects = [nodes(2, 0), vec![bgp(true)]].concat();
    objects.retain(|object| object["kind"] != "IPPool");
    objects.push(pool("pods", json!({"vxlanMode": "Always"})));
    let report = asked(objects, Question::default());
    assert_eq!(report.start.from_nodes.by_felix, 2);
    assert!(report.reaches_all);
}

#[test]
fn each_failure_starts_from_the_whole_cluster() {
    let question = Question { each: vec![Role::Node, Role::Reflector], ..Question::default() };
    let report = asked(reflected(5, 1), question);
    assert_eq!(report.scenarios.len(), 5);
    for scenario in &report.scenarios {
        let [name] = scenario.fails.as_slice() else { panic!("{:?}", scenario.fails) };
        let name = name.strip_prefix("node:").unwrap();
        let alone = failing(reflected(5, 1), &[power(name)]);
        assert_eq!(scenario.state.lost, alone.lost, "{name}");
        assert_eq!(scenario.state.withdrawn, alone.withdrawn, "{name}");
        assert_eq!(scenario.state.kernel_changes, alone.kernel_changes, "{name}");
    }
    assert!(!report.reaches_all, "without the reflector");
}

#[test]
fn equal_objects_give_equal_reports() {
    let question = || Question { failures: vec![power("n1")], ..Question::default() };
    let text = || serde_json::to_string(&asked(reflected(30, 2), question())).unwrap();
    assert_eq!(text(), text());
}

#[test]
fn both_families_are_simulated() {
    let six = |number: u8| {
        let name = format!("n{number}");
        let bgp = json!({"ipv6Address": format!("fd00::{number}/64")});
        let claim = json!({"cidr": format!("fd01::{number}:0/122"), "node": name,
                           "state": "confirmed", "deleted": "false"});
        let block = object("BlockAffinity", &format!("{name}-six"), claim, json!({}));
        [node(number, "one", bgp), vec![block]].concat()
    };
    let pool6 = object("IPPool", "six", json!({"cidr": "fd01::/64"}), json!({}));
    let more = vec![pool("pods", json!({})), pool6, bgp(true)];
    let state = asked([six(1), six(2), more].concat(), Question::default()).start;
    assert_eq!((state.sessions, state.established), (2, 2));
    assert_eq!((state.from_nodes.all, state.from_nodes.reached), (4, 4), "{:?}", state.lost);
}

#[test]
fn what_cannot_be_simulated_is_refused_with_the_reason() {
    let refused = |objects, question: Question| match run(&input(objects), &question) {
        Ok(report) => panic!("{report:?}"),
        Err(Refused(text)) => text,
    };
    let mesh = || [nodes(2, 0), vec![bgp(true)]].concat();
    let text = refused(vec![bgp(true)], Question::default());
    assert!(text.starts_with("there is no Node"), "{text}");
    let homeless = object("Node", "x", json!({"bgp": {}}), json!({}));
    let text = refused([mesh(), vec![homeless]].concat(), Question::default());
    assert!(text.starts_with("Node/x has no address"), "{text}");
    let mut blockless = mesh();
    blockless.retain(|object| object["kind"] != "BlockAffinity");
    let text = refused(blockless, Question::default());
    assert!(text.starts_with("no node has a block"), "{text}");
    let failures = vec![power("n9")];
    let text = refused(mesh(), Question { failures, ..Question::default() });
    assert!(text.starts_with("n9 is neither"), "{text}");
    let failures = vec![Failure::AllReflectors];
    let text = refused(mesh(), Question { failures, ..Question::default() });
    assert!(text.contains("routeReflectorClusterID"), "{text}");
    let text = refused(mesh(), Question { memory_max: Some(1000), ..Question::default() });
    assert!(text.starts_with("2 nodes need about"), "{text}");
}
