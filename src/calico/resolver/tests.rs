use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::calico::config::Converter;
use crate::calico::decide::Question;
use crate::calico::model::{decode, decode_endpoint, decode_etcd};
use crate::calico::plan::{NextHop, PoolRoutes};
use crate::config::{ControlSettings, HostSettings, LogFormat, LogLevel, LogSettings};

fn calico(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
        "spec": spec,
    })
}

fn node(name: &str, ipv4: &str, labels: Value, bgp: Value) -> Value {
    let mut object = calico("Node", name, json!({"bgp": {"ipv4Address": ipv4}}));
    object["metadata"]["labels"] = labels;
    for (key, value) in bgp.as_object().into_iter().flatten() {
        object["spec"]["bgp"][key] = value.clone();
    }
    object
}

/// `me` is 10.0.0.1.
fn cluster(objects: Vec<Value>) -> Resolver {
    let mut resolver = Resolver::new(Settings::new("me"));
    put(&mut resolver, node("me", "10.0.0.1/24", json!({"rack": "a"}), json!({})));
    objects.into_iter().for_each(|object| put(&mut resolver, object));
    resolver
}

fn put(resolver: &mut Resolver, object: Value) {
    resolver.apply(decode(object).unwrap().unwrap());
}

fn no_mesh() -> Value {
    calico("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": false}))
}

fn peer(name: &str, spec: Value) -> Value {
    calico("BGPPeer", name, spec)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.families.ipv4.sessions.iter().map(|s| &*s.session.name).collect()
}

fn session<'a>(plan: &'a Plan, name: &str) -> &'a Session {
    &plan.session(name).unwrap_or_else(|| panic!("no {name} in {:?}", names(plan))).1.session
}

fn problems(plan: &Plan) -> Vec<String> {
    plan.problems.iter().map(|p| format!("{}: {}", p.object, p.text)).collect()
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(|p| format!("{}: {}", p.object, p.text)).collect()
}

fn host() -> HostSettings {
    HostSettings {
        control: ControlSettings::at("/x"),
        http: None,
        log: LogSettings { level: LogLevel::Info, format: LogFormat::Text },
        mrt: None,
        bmp: Vec::new(),
    }
}

fn decide(plan: &Plan, question: Value) -> Value {
    let question: Question = serde_json::from_value(question).unwrap();
    serde_json::to_value(plan.decide(&question).unwrap()).unwrap()
}

#[test]
fn the_mesh_leaves_reflectors_out_and_compares_addresses_as_text() {
    let mut resolver = cluster(vec![
        node("b", "10.0.0.10/24", json!({}), json!({})),
        node("c", "10.0.0.9/24", json!({}), json!({"asNumber": 65001})),
        node("rr", "10.0.0.5/24", json!({}), json!({"routeReflectorClusterID": "1.0.0.1"})),
        calico("BGPConfiguration", "node.b", json!({"listenPort": 1790})),
    ]);
    let plan = resolver.plan();
    assert_eq!(names(&plan), ["Mesh_10_0_0_10", "Mesh_10_0_0_9"]);
    let (b, c) = (session(&plan, "Mesh_10_0_0_10"), session(&plan, "Mesh_10_0_0_9"));
    assert!(b.passive && c.passive, "\"10.0.0.1\" sorts before both");
    assert_eq!((b.port, c.port, c.internal), (1790, 179, false));

    put(&mut resolver, node("me", "10.0.0.9/24", json!({}), json!({})));
    put(&mut resolver, node("c", "10.0.0.8/24", json!({}), json!({})));
    let plan = resolver.plan();
    assert!(!session(&plan, "Mesh_10_0_0_10").passive, "\"10.0.0.10\" sorts before \"10.0.0.9\"");

    let own_id = json!({"routeReflectorClusterID": "1.0.0.1"});
    put(&mut resolver, node("me", "10.0.0.9/24", json!({}), own_id));
    assert!(names(&resolver.plan()).is_empty());
}

#[test]
fn a_mesh_peer_without_an_as_is_in_ours_and_a_selected_one_in_the_clusters() {
    let mut resolver = cluster(vec![
        node("me", "10.0.0.1/24", json!({}), json!({"asNumber": 65100})),
        node("b", "10.0.0.2/24", json!({"role": "rr"}), json!({})),
        peer("rr", json!({"peerSelector": "role == 'rr'"})),
    ]);
    let plan = resolver.plan();
    assert_eq!(session(&plan, "Mesh_10_0_0_2").remote_asn.0, 65100);
    assert_eq!(session(&plan, "Global_10_0_0_2").remote_asn.0, 64512);
    let planned = plan.session("Mesh_10_0_0_2").unwrap().1;
    assert_eq!(planned.shadowed_by.as_deref(), Some("Global_10_0_0_2"));
}

#[test]
fn entries_for_every_node_come_before_those_for_one_and_names_decide_the_rest() {
    let same = |more: Value| {
        let mut spec = json!({"peerIP": "192.0.2.1", "asNumber": 65001});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let mut resolver = cluster(vec![
        no_mesh(),
        peer("a-node", same(json!({"node": "me", "asNumber": 65009}))),
        peer("b-global", same(json!({"asNumber": 65002}))),
        peer("c-global", same(json!({"asNumber": 65003}))),
        peer("d-port", same(json!({"peerIP": "192.0.2.1:179", "asNumber": 65004}))),
        peer("e-port", same(json!({"peerIP": "192.0.2.1:1790"}))),
        peer("f-other", same(json!({"node": "other", "peerIP": "192.0.2.9"}))),
    ]);
    put(&mut resolver, peer("g-digit", same(json!({"peerIP": "192.0.2.10"}))));
    let plan = resolver.plan();
    let sorted = ["Global_192_0_2_1", "Global_192_0_2_10", "Global_192_0_2_1_port_1790"];
    assert_eq!(names(&plan), sorted);
    assert_eq!(session(&plan, "Global_192_0_2_1").remote_asn.0, 65002);
    resolver.withdraw(&ObjectId::new(Kind::BgpPeer, "b-global"));
    assert_eq!(session(&resolver.plan(), "Global_192_0_2_1").remote_asn.0, 65003);
}

#[test]
fn a_node_that_others_peer_with_peers_back_unless_configured_not_to() {
    let to_me = |more: &str| {
        peer(
            "to-me",
            serde_json::from_str(&format!(
                "{{\"peerIP\": \"10.0.0.1\", \"asNumber\": 64512{more}}}"
            ))
            .unwrap(),
        )
    };
    let others = vec![
        no_mesh(),
        node("b", "10.0.0.2/24", json!({"rack": "b"}), json!({})),
        node("c", "10.0.0.3/24", json!({"rack": "c"}), json!({})),
    ];
    let mut resolver = cluster(others);
    put(&mut resolver, to_me(""));
    assert_eq!(names(&resolver.plan()), ["Node_10_0_0_2", "Node_10_0_0_3"]);
    put(&mut resolver, to_me(r#", "nodeSelector": "rack == 'c'""#));
    assert_eq!(names(&resolver.plan()), ["Node_10_0_0_3"]);
    put(&mut resolver, to_me(r#", "reversePeering": "Manual""#));
    assert!(names(&resolver.plan()).is_empty());
    put(&mut resolver, to_me(r#", "asNumber": 65000"#));
    assert!(names(&resolver.plan()).is_empty(), "another AS is not this node");
    put(&mut resolver, peer("to-me", json!({"peerIP": "10.0.0.1:1790", "asNumber": 64512})));
    assert_eq!(names(&resolver.plan()).len(), 2, "no port is configured anywhere");
    let port = json!({"nodeToNodeMeshEnabled": false, "listenPort": 179});
    put(&mut resolver, calico("BGPConfiguration", "default", port));
    assert!(names(&resolver.plan()).is_empty(), "it does not listen on 1790");
}

#[test]
fn clients_of_a_reflector_are_internal_and_not_of_its_cluster() {
    let id = |id: &str| json!({"routeReflectorClusterID": id});
    let mut resolver = cluster(vec![
        node("me", "10.0.0.1/24", json!({"rr": "1"}), id("1.0.0.1")),
        node("same", "10.0.0.2/24", json!({"rr": "1"}), id("1.0.0.1")),
        node("other", "10.0.0.3/24", json!({"rr": "1"}), id("1.0.0.2")),
        node("client", "10.0.0.4/24", json!({}), json!({})),
        peer("rr", json!({"nodeSelector": "all()", "peerSelector": "has(rr)"})),
        peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})),
        peer("explicit", json!({"peerIP": "192.0.2.2", "asNumber": 64512})),
    ]);
    let plan = resolver.plan();
    let client = |name: &str| {
        let session = session(&plan, name);
        (session.route_reflector_client, session.cluster_id.map(|id| id.to_string()))
    };
    let ours = (true, Some("1.0.0.1".to_owned()));
    assert_eq!(client("Node_10_0_0_2"), (false, None));
    assert_eq!(client("Node_10_0_0_3"), ours);
    assert_eq!(client("Node_10_0_0_4"), ours);
    assert_eq!(client("Global_192_0_2_1"), (false, None));
    assert_eq!(client("Global_192_0_2_2"), ours);
}

#[test]
fn the_parameters_of_a_bgp_peer() {
    let mut resolver = cluster(vec![
        no_mesh(),
        calico("BGPFilter", "f1", json!({"exportV4": [{"action": "Accept"}]})),
        calico("BGPFilter", "f6", json!({"exportV6": [{"action": "Accept"}]})),
        peer(
            "full",
            json!({
                "peerIP": "192.0.2.1", "asNumber": 65001, "localASNumber": 65100,
                "sourceAddress": "None", "maxRestartTime": "90s", "keepaliveTime": "10s",
                "numAllowedLocalASNumbers": 2, "ttlSecurity": 1, "filters": ["f1", "f6", "gone"],
                "keepOriginalNextHop": true, "reachableBy": "10.0.0.254",
            }),
        ),
        peer(
            "mode",
            json!({
                "peerIP": "192.0.2.2", "asNumber": 65001, "keepOriginalNextHop": true,
                "nextHopMode": "Auto",
            }),
        ),
        peer(
            "internal",
            json!({
                "peerIP": "192.0.2.3", "asNumber": 64512, "keepOriginalNextHop": true,
            }),
        ),
    ]);
    let plan = resolver.plan();
    let full = session(&plan, "Global_192_0_2_1");
    assert_eq!((full.local_asn.0, full.internal, full.source_address), (65100, false, None));
    assert_eq!((full.graceful_restart_time, full.keepalive_time), (90, Some(10)));
    assert_eq!((full.allow_local_asn, full.ttl_security), (2, Some(1)));
    assert_eq!((full.next_hop, &full.filters[..]), (NextHop::Keep, &["f1".to_owned()][..]));
    assert_eq!(session(&plan, "Global_192_0_2_2").next_hop, NextHop::Auto);
    assert_eq!(session(&plan, "Global_192_0_2_3").next_hop, NextHop::Auto);
    let via: Vec<_> = plan.families.ipv4.statics.iter().map(|r| (r.prefix, r.gateway)).collect();
    assert_eq!(via, [("192.0.2.1/32".parse().unwrap(), Some("10.0.0.254".parse().unwrap()))]);
}

#[test]
fn local_workloads_come_from_their_files_and_wait() {
    let spec = json!({
        "nodeSelector": "rack == 'a'", "localWorkloadSelector": "app == 'x'", "asNumber": 65001,
        "maxRestartTime": "5s", "ttlSecurity": 2,
    });
    let mut resolver = cluster(vec![no_mesh(), peer("child", spec)]);
    assert!(names(&resolver.plan()).is_empty());
    let file = br#"{"ifaceName":"cali1","ipv4Nets":["10.65.1.7/32"],"bgpPeerName":"child"}"#;
    resolver.apply(decode_endpoint("pod", file));
    let plan = resolver.plan();
    let session = session(&plan, "Local_Workload_10_65_1_7");
    assert!(session.passive && session.source_address.is_none());
    assert_eq!((session.graceful_restart_time, session.ttl_security), (120, None));
    resolver.withdraw(&ObjectId::new(Kind::LocalEndpoint, "pod"));
    assert!(names(&resolver.plan()).is_empty());
}

#[test]
fn one_bad_object_is_reported_and_affects_no_other() {
    let mut resolver = cluster(vec![
        calico(
            "BGPConfiguration",
            "default",
            json!({
                "nodeToNodeMeshEnabled": false, "programClusterRoutes": "Perhaps",
                "ipv4NormalRoutePriority": 0, "serviceClusterIPs": [{"cidr": "10.96.0.1/12"}],
                "prefixAdvertisements": [{"cidr": "10.0.0.1/8", "communities": ["1:2"]},
                    {"cidr": "10.0.0.0/8", "communities": ["nobody", "1:70000", "1:2"]}],
            }),
        ),
        peer("good", json!({"peerIP": "192.0.2.1", "asNumber": 65001})),
        peer("no-as", json!({"peerIP": "192.0.2.2"})),
        peer("no-ip", json!({"peerIP": "192.0.2.300", "asNumber": 65001})),
        peer("no-end", json!({"asNumber": 65001})),
        peer("reach", json!({"peerIP": "192.0.2.4", "asNumber": 1, "reachableBy": "fd00::1"})),
        peer("selector", json!({"nodeSelector": "rack ==", "peerIP": "192.0.2.5", "asNumber": 1})),
        peer(
            "secret",
            json!({"peerIP": "192.0.2.6", "asNumber": 1,
            "password": {"secretKeyRef": {"name": "s", "key": "k"}}, "filters": ["f"]}),
        ),
        calico(
            "BGPFilter",
            "f",
            json!({"exportV4": [
            {"action": "Accept", "cidr": "10.0.0.1/8", "matchOperator": "In"},
            {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
                "prefixLength": {"min": 20, "max": 16}},
            {"action": "Reject"}]}),
        ),
        node("zero", "10.0.0.7/24", json!({}), json!({"asNumber": 0})),
    ]);
    put(&mut resolver, node("broken", "10.0.0.8.9", json!({}), json!({})));
    let plan = resolver.plan();
    assert_eq!(names(&plan), ["Global_192_0_2_1", "Global_192_0_2_6"]);
    assert!(!session(&plan, "Global_192_0_2_6").password.as_ref().unwrap().found);
    assert_eq!(plan.families.ipv4.communities[0].communities, ["1:2"]);
    assert!(plan.families.ipv4.kernel_reject.is_empty());
    let reported = problems(&plan);
    for object in [
        "BGPConfiguration/default: spec.programClusterRoutes",
        "BGPConfiguration/default: spec.ipv4NormalRoutePriority",
        "BGPConfiguration/default: spec.serviceClusterIPs",
        "BGPConfiguration/default: spec.prefixAdvertisements[0]: \"10.0.0.1/8\"",
        "BGPConfiguration/default: spec.prefixAdvertisements[1]: no community is called \"nobody\"",
        "BGPConfiguration/default: spec.prefixAdvertisements[1]: \"1:70000\"",
        "BGPPeer/no-as: asNumber is missing",
        "BGPPeer/no-ip: peerIP",
        "BGPPeer/no-end: none of peerIP",
        "BGPPeer/reach: reachableBy",
        "BGPPeer/selector: nodeSelector cannot be parsed",
        "BGPPeer/secret: password: key \"k\" of Secret kube-system/s is missing",
        "BGPFilter/f: spec.exportV4[0]",
        "BGPFilter/f: spec.exportV4[1]: prefixLength is an empty range",
        "Node/broken: spec.bgp.ipv4Address",
    ] {
        assert!(reported.iter().any(|p| p.starts_with(object)), "{object} in {reported:#?}");
    }
    assert_eq!(reported.len(), 15, "{reported:#?}");
}

#[test]
fn invalid_values_are_reported_with_the_value_used_instead() {
    let with =
        |spec: Value| problems(&cluster(vec![calico("BGPConfiguration", "default", spec)]).plan());
    let known = json!({"bindMode": "NodeIP", "serviceLoadBalancerAggregation": "Disabled"});
    assert!(with(known).is_empty());
    let named = with(json!({"bindMode": "nodeip", "serviceLoadBalancerAggregation": "On"}));
    let object = "BGPConfiguration/default";
    assert_eq!(
        named,
        [
            format!("{object}: spec.bindMode: \"nodeip\" is not a value: None is used"),
            format!(
                "{object}: spec.serviceLoadBalancerAggregation: \"On\" is not a value: Disabled is used"
            ),
        ]
    );
}

#[test]
fn without_its_own_node_nothing_is_computed() {
    let mut resolver = Resolver::new(Settings::new("me"));
    put(&mut resolver, node("b", "10.0.0.2/24", json!({}), json!({})));
    let plan = resolver.plan();
    assert!(!plan.is_complete && problems(&plan)[0].starts_with("Node/me"));
    put(&mut resolver, node("me", "10.0.0.1/24", json!({}), json!({})));
    assert_eq!(names(&resolver.plan()), ["Mesh_10_0_0_2"]);
    resolver.withdraw(&ObjectId::new(Kind::Node, "me"));
    assert!(!resolver.plan().is_complete);
}

#[test]
fn blocks_by_the_state_of_the_claim() {
    let mut resolver = cluster(vec![]);
    for (cidr, state) in [
        ("10.65.1.0-26", "confirmed"),
        ("10.65.2.0-26", ""),
        ("10.65.3.0-26", "pending"),
        ("10.65.4.0-26", "pendingDeletion"),
        ("10.65.5.1-32", "confirmed"),
    ] {
        let key = format!("/calico/ipam/v2/host/me/ipv4/block/{cidr}");
        let value = format!(r#"{{"state":"{state}"}}"#);
        resolver.apply(decode_etcd(&key, value.as_bytes()).unwrap());
    }
    let other = "/calico/ipam/v2/host/other/ipv4/block/10.65.9.0-26";
    resolver.apply(decode_etcd(other, b"").unwrap());
    let plan = resolver.plan();
    let text = |list: Vec<Prefix>| list.iter().map(Prefix::to_string).collect::<Vec<_>>();
    let statics = plan.families.ipv4.statics.iter().map(|s| s.prefix).collect();
    assert_eq!(text(statics), ["10.65.1.0/26", "10.65.2.0/26", "10.65.4.0/26"]);
    let aggregates = plan.families.ipv4.aggregates.clone();
    assert_eq!(text(aggregates), ["10.65.1.0/26", "10.65.2.0/26", "10.65.5.1/32"]);
}

#[test]
fn pools_by_encapsulation_and_owner() {
    let pools = || {
        [
            ("1", json!({})),
            ("2", json!({"ipipMode": "Always"})),
            ("3", json!({"ipipMode": "CrossSubnet"})),
            ("4", json!({"vxlanMode": "CrossSubnet"})),
        ]
        .into_iter()
        .flat_map(|(number, more)| {
            [format!("10.{number}.0.0/16"), format!("fd00:{number}::/48")].map(|cidr| {
                let mut spec = more.clone();
                spec["cidr"] = cidr.clone().into();
                calico("IPPool", &cidr.replace(['/', ':'], "-"), spec)
            })
        })
    };
    use PoolRoutes::{Accept, Reject, Tunnel, TunnelCrossSubnet};
    for (value, ipv4, ipv6) in [
        ("Enabled", [Accept, Tunnel, TunnelCrossSubnet, Reject], [Accept, Accept, Accept, Reject]),
        (
            "EnabledIPIPOnly",
            [Reject, Tunnel, TunnelCrossSubnet, Reject],
            [Reject, Accept, Accept, Reject],
        ),
        ("EnabledNoEncapOnly", [Accept, Reject, Reject, Reject], [Accept, Reject, Reject, Reject]),
        ("", [Accept, Reject, Reject, Reject], [Accept, Reject, Reject, Reject]),
        ("Disabled", [Reject; 4], [Reject; 4]),
    ] {
        let spec = json!({"programClusterRoutes": value});
        let objects = pools().chain([calico("BGPConfiguration", "default", spec)]).collect();
        let plan = cluster(objects).plan();
        let routes =
            |family: &FamilyPlan| family.pools.iter().map(|p| p.kernel).collect::<Vec<_>>();
        assert_eq!(routes(&plan.families.ipv4), ipv4, "{value}");
        assert_eq!(routes(&plan.families.ipv6), ipv6, "{value}");
    }
    let without = Settings::new("six");
    let mut resolver = Resolver::new(without);
    put(&mut resolver, calico("Node", "six", json!({"bgp": {"ipv6Address": "fd00::1"}})));
    pools().for_each(|pool| put(&mut resolver, pool));
    let plan = resolver.plan();
    assert!(plan.families.ipv4.pools.iter().all(|p| p.kernel == Accept), "no subnet");
    assert!(problems(&plan).iter().any(|p| p.contains("CALICO_ROUTER_ID")));
}

#[test]
fn the_first_by_name_of_pools_with_one_cidr_is_used() {
    let mut resolver = cluster(vec![
        calico("IPPool", "b", json!({"cidr": "10.65.0.0/16", "disableBGPExport": true})),
        calico("IPPool", "a", json!({"cidr": "10.65.7.0/16"})),
    ]);
    let pool = |plan: Plan| (plan.families.ipv4.pools.len(), plan.families.ipv4.pools[0].export);
    assert_eq!(pool(resolver.plan()), (1, true));
    resolver.withdraw(&ObjectId::new(Kind::IpPool, "a"));
    assert_eq!(pool(resolver.plan()), (1, false));
}

#[test]
fn tunnels_wireguard_and_elevated_routes_in_the_kernel() {
    let wireguard = |name: &str, addr: &str| {
        let mut object = node(name, addr, json!({}), json!({}));
        object["spec"]["wireguard"] = json!({"interfaceIPv4Address": "10.65.0.9"});
        object
    };
    let plan = cluster(vec![
        wireguard("me", "10.0.0.1/24"),
        wireguard("w", "10.0.1.2/24"),
        node("plain", "10.0.1.3/24", json!({}), json!({})),
        calico("BGPConfiguration", "default", json!({"programClusterRoutes": "Enabled"})),
        calico("IPPool", "p", json!({"cidr": "10.65.0.0/16", "ipipMode": "CrossSubnet"})),
    ])
    .plan();
    let ask = |next_hop: &str, local_pref: Option<u32>| {
        decide(
            &plan,
            json!({"direction": "kernel", "route": {"prefix": "10.65.1.0/26",
            "source": "bgp", "next_hop": next_hop, "local_pref": local_pref}}),
        )
    };
    assert_eq!(ask("10.0.1.2", None)["decision"], "reject", "WireGuard on both sides");
    let far = ask("10.0.1.3", Some(2_147_483_135));
    assert_eq!((&far["tunnel"], &far["route"]["metric"]), (&json!("tunl0"), &json!(512)));
    assert_eq!(far["preference"], 200);
    let near = ask("10.0.0.7", Some(100));
    assert_eq!((&near["tunnel"], &near["preference"]), (&Value::Null, &json!(100)));
    assert_eq!(near["route"]["metric"], 2_147_483_547_u32);
    assert_eq!(ask("10.0.0.7", None)["route"]["metric"], 1024);
    assert_eq!(ask("10.0.0.7", Some(u32::MAX))["route"]["metric"], 0x8000_0000_u32);
}

#[test]
fn filters_match_lengths_and_our_own_as_the_way_bird_does() {
    let rule = |more: Value| {
        let mut rule = json!({"action": "Accept", "cidr": "10.0.0.0/8"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let ask = |rule: Value, prefix: &str, path: Value| {
        let filter = json!({"exportV4": [rule, {"action": "Reject"}]});
        let plan = cluster(vec![
            no_mesh(),
            calico("BGPFilter", "f", filter),
            peer("p", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["f"]})),
        ])
        .plan();
        decide(
            &plan,
            json!({"session": "Global_192_0_2_1", "direction": "export",
            "route": {"prefix": prefix, "source": "bgp", "as_path": path}}),
        )
    };
    let accepts = |operator: &str, lengths: Value, prefix: &str| {
        let rule = rule(json!({"matchOperator": operator, "prefixLength": lengths}));
        ask(rule, prefix, json!([]))["decision"] == "accept"
    };
    let range = json!({"min": 16, "max": 24});
    assert!(accepts("In", range.clone(), "10.1.0.0/16"));
    assert!(
        !accepts("In", range.clone(), "10.0.0.0/8") && !accepts("In", range.clone(), "11.1.0.0/16")
    );
    assert!(
        accepts("NotIn", range.clone(), "10.0.0.0/8")
            && !accepts("NotIn", range.clone(), "10.1.1.0/24")
    );
    assert!(!accepts("Equal", range.clone(), "10.0.0.0/8"), "a prefix never equals a set");
    assert!(accepts("NotEqual", range, "10.1.0.0/16"));
    assert!(
        accepts("Equal", Value::Null, "10.0.0.0/8") && !accepts("Equal", Value::Null, "10.0.0.0/9")
    );
    assert!(accepts("NotEqual", Value::Null, "10.0.0.0/9"));

    let path = |prefix: Value| {
        json!({"action": "Accept", "asPathPrefix": prefix,
        "operations": [{"prependASPath": {"prefix": [1, 2]}}]})
    };
    let answer = ask(path(json!([64512, 7])), "10.0.0.0/8", json!([7, 8]));
    assert_eq!(answer["route"]["as_path"], json!([1, 2, 7, 8]));
    assert_eq!(ask(path(json!([7])), "10.0.0.0/8", json!([7]))["decision"], "reject");
}

#[test]
fn services_are_recomputed_from_the_present_objects() {
    let service = |spec: Value| {
        json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "web", "namespace": "ns"}, "spec": spec,
        "status": {"loadBalancer": {"ingress": [{"ip": "80.0.0.9"}, {"hostname": "x"}]}}})
    };
    let slice = |node: &str, ready: Value| {
        json!({"kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.65.0.1"], "nodeName": node, "conditions": {"ready": ready}}]})
    };
    let local = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7",
        "externalTrafficPolicy": "Local", "externalIPs": ["70.0.0.1", "71.0.0.1"]});
    let ranges = json!({"nodeToNodeMeshEnabled": false,
        "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "serviceExternalIPs": [{"cidr": "70.0.0.1/32"}],
        "serviceLoadBalancerIPs": [{"cidr": "80.0.0.0/24"}]});
    let mut resolver = cluster(vec![
        calico("BGPConfiguration", "default", ranges),
        service(local.clone()),
        slice("me", Value::Null),
    ]);
    let routes = |resolver: &mut Resolver| -> Vec<String> {
        resolver.plan().families.ipv4.statics.iter().map(|s| s.prefix.to_string()).collect()
    };
    let ranges_only = ["10.96.0.0/12", "80.0.0.0/24"];
    let all = ["10.96.0.0/12", "10.96.0.7/32", "70.0.0.1/32", "80.0.0.0/24", "80.0.0.9/32"];
    assert_eq!(routes(&mut resolver), all);
    put(&mut resolver, slice("elsewhere", Value::Null));
    assert_eq!(routes(&mut resolver), ranges_only);
    put(&mut resolver, slice("me", json!(false)));
    assert_eq!(routes(&mut resolver), ranges_only);
    put(&mut resolver, slice("me", json!(true)));
    assert_eq!(routes(&mut resolver), all);
    let mut cluster_wide = local.clone();
    cluster_wide["externalTrafficPolicy"] = "Cluster".into();
    cluster_wide["externalIPs"] = json!(["71.0.0.1"]);
    put(&mut resolver, service(cluster_wide.clone()));
    assert_eq!(routes(&mut resolver), ranges_only, "no single address of it is configured");
    cluster_wide["externalIPs"] = json!(["70.0.0.1"]);
    put(&mut resolver, service(cluster_wide));
    assert_eq!(routes(&mut resolver), all);
    put(&mut resolver, service(local));
    let slice =
        ObjectId { kind: Kind::EndpointSlice, namespace: "ns".into(), name: "web-1".into() };
    resolver.withdraw(&slice);
    assert_eq!(routes(&mut resolver), ranges_only);
    assert_eq!(resolver.plan().families.ipv4.kernel_reject.len(), 2);
}

/// Objects of a small cluster in which all kinds refer to each other.
fn any_object() -> impl Strategy<Value = Value> {
    let name = || prop_oneof![Just("me"), Just("b"), Just("c"), Just("d")];
    let selector = || {
        prop_oneof![
            Just("all()"),
            Just("rack == 'a'"),
            Just("rack == 'b'"),
            Just("has(rr)"),
            Just("rack == 'nowhere'"),
            Just("")
        ]
    };
    let address = || (1u8..5).prop_map(|n| format!("10.0.0.{n}"));
    let a_node =
        (name(), address(), prop_oneof![Just("a"), Just("b")], any::<bool>(), any::<bool>())
            .prop_map(|(name, address, rack, rr, own_as)| {
                let mut labels = json!({"rack": rack});
                let mut bgp = json!({});
                if rr {
                    labels["rr"] = "1".into();
                    bgp["routeReflectorClusterID"] = "1.0.0.1".into();
                }
                if own_as {
                    bgp["asNumber"] = 65001.into();
                    bgp["asNumbr"] = if rr { Value::Null } else { 65001.into() };
                }
                node(name, &format!("{address}/24"), labels, bgp)
            });
    let filter = || prop_oneof![Just("f"), Just("ff"), Just("other")];
    let a_filter = (filter(), any::<bool>()).prop_map(|(name, accepts)| {
        let action = if accepts { "Accept" } else { "Reject" };
        calico("BGPFilter", name, json!({"exportV4": [{"action": action}]}))
    });
    let a_pool = (0u8..3, any::<bool>()).prop_map(|(number, hidden)| {
        let spec = json!({"cidr": format!("10.{number}.0.0/16"), "disableBGPExport": hidden});
        calico("IPPool", &format!("pool{number}"), spec)
    });
    let a_peer = (
        (0u8..4, selector(), selector()),
        (prop_oneof![Just(""), Just("gone"), name()], address()),
        (prop_oneof![Just(64512), Just(65001)], any::<bool>()),
        (prop::collection::vec(filter(), 0..3), prop_oneof![Just(""), Just(":179")]),
    )
        .prop_map(
            |((number, nodes, peers), (node, address), (asn, manual), (filters, port))| {
                let mut spec = json!({"nodeSelector": nodes, "peerSelector": peers, "node": node});
                if peers.is_empty() {
                    spec["peerIP"] = format!("{address}{port}").into();
                    spec["asNumber"] = asn.into();
                }
                if manual {
                    spec["reversePeering"] = "Manual".into();
                    spec["filtres"] = json!(filters);
                } else {
                    spec["filters"] = json!(filters);
                    spec["reachableBy"] = "10.0.0.254".into();
                }
                peer(&format!("p{number}"), spec)
            },
        );
    let configured =
        prop_oneof![Just("default"), Just("node.b"), Just("node.me"), Just("node.gone")];
    let a_configuration = (configured, 0u16..3).prop_map(|(name, port)| {
        calico("BGPConfiguration", name, json!({"listenPort": port + 178}))
    });
    prop_oneof![8 => a_node, 8 => a_peer, 2 => a_configuration, 2 => a_filter, 1 => a_pool]
}

proptest! {
    #[test]
    fn an_incremental_plan_equals_one_from_scratch(
        changes in prop::collection::vec((any_object(), 0u8..4), 1..25),
    ) {
        let mut resolver = cluster(vec![]);
        let mut converter = Converter::default();
        let mut before: Option<crate::config::Config> = None;
        let host = host();
        for (object, what) in changes {
            let decoded = decode(object).unwrap().unwrap();
            if what == 0 {
                resolver.withdraw(&decoded.id);
            } else {
                resolver.apply(decoded);
            }
            let plan = resolver.plan();
            // Plans include problems, notes and reasons: none of these are left behind either.
            let fresh = resolve(resolver.snapshot(), &Settings::new("me"));
            prop_assert_eq!(&plan, &fresh);
            let mended = converter.convert(&plan, &resolver.take_touched(), &host);
            let made = Converter::default().convert(&fresh, &Touched::All, &host);
            prop_assert_eq!(&mended, &made);
            let touched = converter.take_touched();
            if let (Some(old), Some(new)) = (&before, &mended) {
                let found = old.changes_among(new, touched.names());
                prop_assert_eq!(found, old.changes_to(new), "{:?}", touched);
            }
            before = mended.or(before);
            for family in [&plan.families.ipv4, &plan.families.ipv6] {
                prop_assert!(family.sessions.is_sorted_by(|a, b| a.session.name < b.session.name));
            }
        }
    }
}

mod missing;
mod notes;
mod reasons;
mod releases;
mod rules;
mod services;
