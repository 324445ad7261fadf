//! Rules of Calico's that the corpus of scenarios covers rarely or not at all.

use super::*;

pub(super) fn statics(plan: &FamilyPlan) -> Vec<String> {
    plan.statics.iter().map(|s| s.prefix.to_string()).collect()
}

pub(super) fn block(resolver: &mut Resolver, cidr: &str, state: &str) {
    let family = if cidr.contains(':') { "ipv6" } else { "ipv4" };
    let key = format!("/calico/ipam/v2/host/me/{family}/block/{cidr}");
    let value = format!(r#"{{"state":"{state}","deleted":false}}"#);
    resolver.apply(decode_etcd(&key, value.as_bytes()).unwrap());
}

fn dual(name: &str, number: u8, labels: Value, bgp: Value) -> Value {
    let mut object = node(name, &format!("10.0.0.{number}/24"), labels, bgp);
    object["spec"]["bgp"]["ipv6Address"] = format!("fd00::{number}/64").into();
    object
}

pub(super) fn default(spec: Value) -> Value {
    calico("BGPConfiguration", "default", spec)
}

#[test]
fn only_some_fields_of_a_node_configuration_are_used_and_other_names_are_ignored() {
    let mut resolver = cluster(vec![
        node("b", "10.0.0.2/24", json!({}), json!({})),
        default(json!({"listenPort": 1790, "bindMode": "None", "asNumber": "65000.1"})),
        calico(
            "BGPConfiguration",
            "node.me",
            json!({"asNumber": 1, "nodeToNodeMeshEnabled": false, "bindMode": "NodeIP",
                   "listenPort": 1791, "ipv4NormalRoutePriority": 7}),
        ),
        calico("BGPConfiguration", "other", json!({"nodeToNodeMeshEnabled": false})),
    ]);
    let plan = resolver.plan();
    let b = session(&plan, "Mesh_10_0_0_2");
    assert_eq!((b.remote_asn.0, b.local_asn.0, b.port), (65000 << 16 | 1, 65000 << 16 | 1, 1790));
    let listen = plan.families.ipv4.listen;
    assert_eq!((listen.address, listen.port), (None, 1791));
    assert_eq!(problems(&plan).len(), 1);
    assert!(problems(&plan)[0].starts_with("BGPConfiguration/other: the name"));
    put(&mut resolver, calico("BGPConfiguration", "node.me", json!({"bindMode": "None"})));
    put(&mut resolver, default(json!({"listenPort": 1790, "bindMode": "NodeIP"})));
    resolver.withdraw(&ObjectId::new(Kind::BgpConfiguration, "other"));
    let plan = resolver.plan();
    let listen = plan.families.ipv4.listen;
    assert_eq!((listen.address, listen.port), ("10.0.0.1".parse().ok(), 1790));
    assert!(problems(&plan).is_empty());
}

#[test]
fn a_listen_port_of_0_counts_as_unset() {
    let port =
        |name: &str, port: u16| calico("BGPConfiguration", name, json!({"listenPort": port}));
    let mut resolver = cluster(vec![
        node("b", "10.0.0.2/24", json!({}), json!({})),
        port("default", 1790),
        port("node.me", 0),
        port("node.b", 0),
        peer("b", json!({"peerIP": "10.0.0.2:1790", "asNumber": 64512, "node": "c"})),
        peer("me", json!({"peerIP": "10.0.0.1:1790", "asNumber": 64512, "node": "b"})),
    ]);
    let plan = resolver.plan();
    assert_eq!(plan.families.ipv4.listen.port, 1790, "the cluster's");
    assert_eq!(names(&plan), ["Mesh_10_0_0_2", "Node_10_0_0_2_port_1790"]);
    assert_eq!(session(&plan, "Mesh_10_0_0_2").port, 1790);
    put(&mut resolver, port("default", 0));
    let plan = resolver.plan();
    assert_eq!((plan.families.ipv4.listen.port, session(&plan, "Mesh_10_0_0_2").port), (179, 179));
}

#[test]
fn a_selected_node_is_a_neighbour_in_each_family_that_it_has() {
    let mut resolver = cluster(vec![
        default(json!({"nodeToNodeMeshEnabled": false})),
        dual("me", 1, json!({}), json!({})),
        dual("b", 2, json!({"rr": ""}), json!({"asNumber": 65001})),
        node("c", "10.0.0.3/24", json!({"rr": ""}), json!({})),
        peer(
            "rr",
            json!({"node": "me", "peerSelector": "has(rr)", "localASNumber": 65100,
            "numAllowedLocalASNumbers": 3, "ttlSecurity": 2, "nextHopMode": "Self"}),
        ),
    ]);
    let plan = resolver.plan();
    assert_eq!(names(&plan), ["Node_10_0_0_2", "Node_10_0_0_3"]);
    assert_eq!(plan.families.ipv6.sessions.len(), 1);
    for name in ["Node_10_0_0_2", "Node_fd00__2"] {
        let b = session(&plan, name);
        assert_eq!((b.local_asn.0, b.remote_asn.0, b.internal), (64512, 65001, false), "{name}");
        assert_eq!((b.allow_local_asn, b.ttl_security), (0, Some(2)), "explicit peers only");
        assert_eq!((b.next_hop, b.passive), (NextHop::SelfAddress, false));
    }
    let v6 = session(&plan, "Node_fd00__2");
    assert_eq!(v6.source_address, "fd00::1".parse().ok());

    // The reverse direction: every selected node peers back with every node to which the BGPPeer
    // applies.
    put(&mut resolver, dual("me", 1, json!({"rr": ""}), json!({})));
    put(&mut resolver, peer("rr", json!({"node": "b", "peerSelector": "has(rr)"})));
    let plan = resolver.plan();
    assert_eq!(names(&plan), ["Node_10_0_0_2"]);
    assert_eq!(plan.families.ipv6.sessions.len(), 1);
}

#[test]
fn a_selector_that_does_not_parse_selects_nothing_in_any_place() {
    let mut resolver = cluster(vec![
        no_mesh(),
        node("b", "10.0.0.2/24", json!({}), json!({})),
        peer("a", json!({"nodeSelector": "has(", "peerSelector": "all()"})),
        peer("b", json!({"peerSelector": "rack = 'a'"})),
        peer("c", json!({"nodeSelector": "x\ny", "peerIP": "10.0.0.1", "asNumber": 64512})),
    ]);
    let plan = resolver.plan();
    assert!(names(&plan).is_empty(), "{:?}", names(&plan));
    let reported = problems(&plan);
    assert_eq!(reported.len(), 3, "{reported:?}");
    for (problem, field) in reported.iter().zip(["a: nodeS", "b: peerS", "c: nodeS"]) {
        assert!(problem.starts_with(&format!("BGPPeer/{field}")), "{problem}");
    }
    // A blank nodeSelector selects every node, but the BGPPeer counts as one for some nodes.
    put(
        &mut resolver,
        peer("a", json!({"nodeSelector": " ", "peerIP": "192.0.2.1", "asNumber": 1})),
    );
    assert_eq!(names(&resolver.plan()), ["Node_192_0_2_1"]);
}

#[test]
fn an_address_of_a_node_is_recognised_as_it_is_written() {
    let mut resolver = cluster(vec![
        no_mesh(),
        dual("me", 1, json!({}), json!({})),
        dual("b", 2, json!({}), json!({})),
        calico("BGPConfiguration", "node.b", json!({"listenPort": 1790})),
        peer("v4", json!({"peerIP": "10.0.0.2", "asNumber": 64512})),
        peer("v6", json!({"peerIP": "fd00:0::2", "asNumber": 64512})),
        peer("asn", json!({"peerIP": "[fd00::2]:1791", "asNumber": 65001})),
    ]);
    let plan = resolver.plan();
    // The port and the passive side follow from the node, if the address is that node's.
    let v4 = session(&plan, "Global_10_0_0_2_port_1790");
    assert!(v4.passive && v4.port == 1790);
    let v6 = session(&plan, "Global_fd00__2");
    assert!(!v6.passive && v6.port == 179, "written differently, it is not recognised as a node's");
    assert!(session(&plan, "Global_fd00__2_port_1791").passive, "whatever its AS and port");
    // With another AS, the node's port is not used.
    put(&mut resolver, peer("v4", json!({"peerIP": "10.0.0.2", "asNumber": 65001})));
    let plan = resolver.plan();
    assert!(session(&plan, "Global_10_0_0_2").passive);
    // An entry that names this node itself is dropped, however it is named.
    put(&mut resolver, peer("v4", json!({"peerIP": "10.0.0.1:1790", "asNumber": 65001})));
    assert!(names(&resolver.plan()).is_empty());
}

#[test]
fn reverse_peering_needs_the_as_and_the_port_of_this_node() {
    let mut resolver = cluster(vec![
        default(json!({"nodeToNodeMeshEnabled": false, "listenPort": 178, "asNumber": 65000})),
        node("b", "10.0.0.2/24", json!({}), json!({})),
        calico("BGPConfiguration", "node.me", json!({"listenPort": 1790})),
    ]);
    let mut reverse = |spec: Value| {
        put(&mut resolver, peer("p", spec));
        names(&resolver.plan()).len()
    };
    assert_eq!(reverse(json!({"node": "b", "peerIP": "10.0.0.1", "asNumber": 65000})), 1);
    assert_eq!(reverse(json!({"node": "b", "peerIP": "10.0.0.1"})), 1, "the cluster's AS");
    assert_eq!(reverse(json!({"node": "b", "peerIP": "10.0.0.1", "asNumber": 64512})), 0);
    assert_eq!(reverse(json!({"node": "b", "peerIP": "10.0.0.1:178", "asNumber": 65000})), 0);
    let own_port = json!({"node": "b", "peerIP": "10.0.0.1:1790", "asNumber": 65000});
    assert_eq!(reverse(own_port), 0, "Calico looks at the cluster's port too");
    assert_eq!(reverse(json!({"node": "gone", "peerIP": "10.0.0.1", "asNumber": 65000})), 0);
    let to_workload =
        json!({"localWorkloadSelector": "all()", "asNumber": 1, "peerIP": "10.0.0.1"});
    assert_eq!(reverse(to_workload), 0);
}

#[test]
fn a_peer_is_found_however_its_address_is_written() {
    let mut resolver = cluster(vec![
        default(json!({"nodeToNodeMeshEnabled": false})),
        dual("me", 1, json!({}), json!({})),
        peer("a", json!({"peerIP": "::ffff:192.0.2.1", "asNumber": 1, "reachableBy": "10.0.0.9"})),
        peer("b", json!({"peerIP": "[FD00:0::00ff]:1790", "asNumber": 1})),
        peer("c", json!({"peerIP": "192.0.2.01", "asNumber": 1})),
    ]);
    let plan = resolver.plan();
    assert_eq!(names(&plan), ["Global_192_0_2_1"]);
    assert_eq!(session(&plan, "Global_fd00__ff_port_1790").port, 1790);
    assert_eq!(statics(&plan.families.ipv4), ["192.0.2.1/32"]);
    assert_eq!(problems(&plan).len(), 1, "{:?}", problems(&plan));
}

#[test]
fn a_next_hop_mode_of_any_text_hides_the_older_field() {
    let spec = |mode: Value| {
        json!({"peerIP": "192.0.2.1", "asNumber": 1,
               "keepOriginalNextHop": true, "nextHopMode": mode})
    };
    for (mode, expected) in
        [(Value::Null, NextHop::Keep), ("".into(), NextHop::Auto), ("Auto".into(), NextHop::Auto)]
    {
        let plan = cluster(vec![no_mesh(), peer("p", spec(mode))]).plan();
        assert_eq!(session(&plan, "Global_192_0_2_1").next_hop, expected);
    }
}

#[test]
fn host_routes_to_neighbours_are_ordered_by_scope_and_address_not_by_name() {
    let reach = |ip: &str, node: &str| json!({"peerIP": ip, "asNumber": 1, "node": node, "reachableBy": "10.0.0.254"});
    let plan = cluster(vec![
        no_mesh(),
        peer("a", reach("192.0.2.9", "me")),
        peer("b", reach("192.0.2.20", "")),
        peer("c", reach("192.0.2.10:1790", "")),
        peer("d", reach("192.0.2.10", "")),
        peer("e", reach("192.0.2.1", "other")),
        // This node's address in an entry for every node: no session, but the route is created.
        peer("f", reach("10.0.0.1", "")),
    ])
    .plan();
    assert_eq!(
        statics(&plan.families.ipv4),
        ["10.0.0.1/32", "192.0.2.10/32", "192.0.2.20/32", "192.0.2.9/32"]
    );
}

#[test]
fn a_node_list_of_advertisements_replaces_the_clusters_for_both_families() {
    let global = json!({"communities": [{"name": "n", "value": "1:1"}],
        "prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["n", "9:9", "10:1"]},
                                 {"cidr": "fd00::/48", "communities": ["1:2:3", "1:2:3"]}]});
    let mut resolver = cluster(vec![default(global)]);
    let shown = |plan: &Plan| {
        [&plan.families.ipv4, &plan.families.ipv6].map(|family| {
            family.communities.iter().map(|c| c.communities.join(" ")).collect::<Vec<_>>()
        })
    };
    let plan = resolver.plan();
    assert_eq!(shown(&plan), [vec!["10:1 1:1 9:9".to_owned()], vec!["1:2:3".to_owned()]]);
    let own = json!({"prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["n"]}]});
    put(&mut resolver, calico("BGPConfiguration", "node.me", own));
    let plan = resolver.plan();
    assert_eq!(shown(&plan), [Vec::<String>::new(), vec![]], "nothing to add, no rule");
    assert!(problems(&plan)[0].contains("no community is called \"n\""), "{:?}", problems(&plan));
    // Anything but two or three numbers is a name.
    let named = json!({
        "communities": [{"name": "a:b", "value": "3:3"}, {"name": "1:2", "value": "4:4"}],
        "prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["a:b", "1:2"]}],
    });
    put(&mut resolver, calico("BGPConfiguration", "node.me", named));
    assert_eq!(shown(&resolver.plan())[0], ["1:2 3:3"]);
    put(&mut resolver, calico("BGPConfiguration", "node.me", json!({"prefixAdvertisements": []})));
    assert_eq!(shown(&resolver.plan()), [Vec::<String>::new(), vec![]]);
}

/// The rules of an export policy, in order.
#[test]
fn export_rows_decide_in_their_order() {
    let mut resolver = cluster(vec![
        default(json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
            "serviceExternalIPs": [{"cidr": "70.0.0.0/24"}, {"cidr": "71.0.0.1/32"}],
            "serviceLoadBalancerIPs": [{"cidr": "80.0.0.0/24"}],
            "serviceLoadBalancerAggregation": "Disabled", "ipv4NormalRoutePriority": 900,
            "prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["1:1"]},
                                     {"cidr": "0.0.0.0/0", "communities": ["1:1:1"]}]})),
        calico("IPPool", "pods", json!({"cidr": "10.65.0.0/16", "disabled": true})),
        calico("IPPool", "hidden", json!({"cidr": "10.65.9.0/24", "disableBGPExport": true})),
        node("b", "10.0.0.2/24", json!({}), json!({})),
        peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})),
    ]);
    for (cidr, state) in [
        ("10.65.1.0-26", "confirmed"),
        ("10.65.1.0-24", ""),
        ("10.65.2.0-26", "pendingDeletion"),
        ("10.65.4.0-26", "confirmed"),
        ("10.65.9.0-26", "confirmed"),
        ("10.77.0.0-26", "confirmed"),
        ("10.65.3.3-32", "confirmed"),
    ] {
        block(&mut resolver, cidr, state);
    }
    let plan = resolver.plan();
    let ask = |session: &str, prefix: &str, more: Value| {
        let mut route = json!({"prefix": prefix, "source": "kernel"});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decide(&plan, json!({"session": session, "direction": "export", "route": route}))
    };
    let (mesh, tor) = ("Mesh_10_0_0_2", "Global_192_0_2_1");
    let accepts = |session: &str, prefix: &str, more: Value| {
        ask(session, prefix, more)["decision"] == "accept"
    };
    // 1: a pool that is not exported: not even an own block in it is announced.
    assert!(!accepts(tor, "10.65.9.0/26", json!({"source": "static"})));
    // 2: overlays stay inside; tunl0 is Felix's by default.
    for interface in ["vxlan.calico", "wireguard.cali", "tunl0"] {
        assert!(!accepts(mesh, "10.65.200.0/26", json!({"interface": interface})));
        assert!(accepts(tor, "10.65.200.0/26", json!({"interface": interface})));
    }
    assert!(accepts(mesh, "10.65.200.0/26", json!({"interface": "calico0"})));
    // 3
    assert!(!accepts(tor, "10.65.200.0/26", json!({"interface": "bpfin.cali"})));
    // 4 and 5: the block gets its communities; inside it only elevated routes are announced.
    let own = ask(mesh, "10.65.4.0/26", json!({"source": "static"}));
    assert_eq!(own["route"]["communities"], json!(["1:1"]));
    assert_eq!(own["route"]["large_communities"], json!(["1:1:1"]));
    assert_eq!(own["route"]["local_pref"], 2_147_483_647_u32 - 900);
    assert!(accepts(tor, "10.65.1.0/24", json!({"source": "static"})));
    assert!(!accepts(tor, "10.65.1.0/26", json!({"source": "static"})), "the wider block is first");
    assert!(!accepts(tor, "10.65.1.64/26", json!({})), "part of the wider block");
    assert!(!accepts(mesh, "10.65.1.7/32", json!({"metric": 900})));
    let elevated = ask(mesh, "10.65.1.7/32", json!({"metric": 899}));
    assert_eq!(elevated["route"]["local_pref"], 2_147_483_647_u32 - 899);
    let learned = json!({"source": "bgp", "local_pref": 2_147_483_647_u32 - 512, "metric": 4000});
    assert_eq!(ask(mesh, "10.65.1.7/32", learned)["route"]["metric"], 512);
    assert!(
        accepts(mesh, "10.65.2.1/32", json!({"metric": 1024})),
        "a block that is being given up"
    );
    assert!(accepts(mesh, "10.65.3.3/32", json!({})), "a block of one address");
    assert!(accepts(mesh, "10.77.0.0/26", json!({"source": "static"})), "in no pool");
    assert!(!accepts(mesh, "10.77.0.64/26", json!({})));
    // 6 to 8: load balancer ranges are not aggregated, so only a reflector accepts them.
    assert!(accepts(mesh, "10.96.3.0/24", json!({})) && accepts(mesh, "70.0.0.7/32", json!({})));
    assert!(!accepts(mesh, "80.0.0.7/32", json!({})) && !accepts(mesh, "71.0.0.1/32", json!({})));
    // 9 and 10
    assert!(accepts(mesh, "10.65.77.0/26", json!({"source": "bgp"})));
    assert!(!accepts(tor, "0.0.0.0/0", json!({})) && !accepts(tor, "10.0.0.0/24", json!({})));

    let id = json!({"routeReflectorClusterID": "1.0.0.1"});
    put(&mut resolver, node("me", "10.0.0.1/24", json!({}), id));
    let plan = resolver.plan();
    for (prefix, wanted) in [("80.0.0.7/32", "accept"), ("71.0.0.1/32", "accept")] {
        let route = json!({"prefix": prefix, "source": "bgp"});
        let question = json!({"session": tor, "direction": "export", "route": route});
        assert_eq!(decide(&plan, question)["decision"], wanted, "{prefix}");
    }
}

#[test]
fn a_filter_that_accepts_is_evaluated_first_and_per_family() {
    let plan = cluster(vec![
        no_mesh(),
        dual("me", 1, json!({}), json!({})),
        calico("BGPFilter", "a", json!({"importV6": [{"action": "Reject"}], "exportV4": [
            {"action": "Reject", "peerType": "iBGP"},
            {"action": "Accept", "source": "RemotePeers", "cidr": "0.0.0.0/0", "matchOperator": "Equal",
             "operations": [{"setPriority": {"value": 512}}, {"addCommunity": {"value": "1:2:3"}},
                            {"prependASPath": {"prefix": [7, 8]}}, {"prependASPath": {"prefix": [9]}}]},
            {"action": "Reject", "priority": 100}]})),
        calico("BGPFilter", "b", json!({"importV4": [
            {"action": "Accept", "communities": {"values": ["65000:1", "65000:2"]}},
            {"action": "Reject", "interface": "eth?"}, {"action": "Reject", "asPathPrefix": [65001, 2]}]})),
        peer("v4", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["a", "none", "b"]})),
        peer("v6", json!({"peerIP": "fd00::9", "asNumber": 65001, "filters": ["a", "b"]})),
    ])
    .plan();
    let ask = |direction: &str, route: Value| {
        let name = if route["prefix"].as_str().unwrap().contains(':') {
            "Global_fd00__9"
        } else {
            "Global_192_0_2_1"
        };
        decide(&plan, json!({"session": name, "direction": direction, "route": route}))
    };
    // A default route, which no pool covers: a filter's Accept bypasses all later rules.
    let default =
        json!({"prefix": "0.0.0.0/0", "source": "bgp", "local_pref": 100, "as_path": [5]});
    let leaked = ask("export", default);
    assert_eq!(leaked["decision"], "accept");
    assert!(leaked["rule"].as_str().unwrap().contains("BGPFilter/a exportV4[1]"), "{leaked}");
    let route = &leaked["route"];
    assert_eq!(route["local_pref"], 2_147_483_647_u32 - 512);
    assert_eq!(route["metric"], 2_147_483_547_u32, "the metric stays");
    assert_eq!(route["large_communities"], json!(["1:2:3"]));
    assert_eq!(route["as_path"], json!([9, 7, 8, 5]));
    let kernel = json!({"prefix": "10.5.0.0/24", "source": "kernel", "metric": 100});
    assert!(ask("export", kernel)["rule"].as_str().unwrap().contains("exportV4[2]"));

    let import = |more: Value| {
        let mut route = json!({"prefix": "10.5.0.0/24", "source": "bgp", "as_path": [65001]});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask("import", route)
    };
    let elevated = json!({"local_pref": 2_147_483_647_u32 - 1023});
    assert_eq!(import(elevated.clone())["preference"], 200);
    assert_eq!(import(json!({"local_pref": 2_147_483_647_u32 - 1024}))["preference"], 100);
    assert_eq!(import(json!({"local_pref": u32::MAX}))["preference"], 200);
    let mut accepted = elevated;
    accepted["communities"] = json!(["65000:1"]);
    assert_eq!(import(accepted)["preference"], 100, "an Accept skips the preference too");
    assert_eq!(
        import(json!({"communities": ["65000:2"], "interface": "eth0"}))["decision"],
        "reject"
    );
    assert_eq!(import(json!({"interface": "eth10"}))["decision"], "accept");
    assert_eq!(import(json!({"as_path": [65001, 2, 3]}))["decision"], "reject");
    assert_eq!(import(json!({"as_path": [2, 65001]}))["decision"], "accept");
    let v6 = json!({"prefix": "fd00:1::/64", "source": "bgp"});
    assert_eq!(ask("import", v6)["decision"], "reject");
}

#[test]
fn invalid_rules_are_reported_even_if_no_peer_uses_the_filter() {
    let rules = json!([
        {"action": "Accept", "cidr": "10.0.0.1/8", "matchOperator": "In"},
        {"action": "Perhaps"},
        {"action": "Accept", "cidr": "10.0.0.0/8"},
        {"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"},
        {"action": "Accept", "peerType": "both"},
        {"action": "Accept", "source": "Locals"},
        {"action": "Accept", "communities": {"values": ["no-export"]}},
        {"action": "Accept", "communities": {}},
        {"action": "Accept", "operations": [{}]},
        {"action": "Accept", "priority": -1},
        {"action": "Accept", "operations": [{"addCommunity": {"value": "1:2:3:4"}}]},
        {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 9, "max": 8}},
    ]);
    let count = rules.as_array().unwrap().len();
    let mut resolver = cluster(vec![calico("BGPFilter", "f", json!({"importV4": rules}))]);
    let reported = problems(&resolver.plan());
    assert_eq!(reported.len(), count, "{reported:#?}");
    for index in 0..count {
        let place = format!("BGPFilter/f: spec.importV4[{index}]: ");
        assert!(reported.iter().any(|p| p.starts_with(&place)), "{place} in {reported:#?}");
    }
    put(&mut resolver, calico("BGPFilter", "f", json!({"importV4": [{"action": "Accept"}]})));
    assert!(problems(&resolver.plan()).is_empty());
}

#[test]
fn pod_cidrs_take_the_place_of_blocks() {
    let mut settings = Settings::new("me");
    settings.use_pod_cidr = true;
    let mut resolver = Resolver::new(settings);
    let mut me = dual("me", 1, json!({}), json!({}));
    me["status"] = json!({"podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"]});
    put(&mut resolver, me);
    block(&mut resolver, "10.65.1.0-26", "confirmed");
    let plan = resolver.plan();
    for (family, cidr) in
        [(&plan.families.ipv4, "10.244.1.0/24"), (&plan.families.ipv6, "fd00:244:1::/64")]
    {
        assert_eq!(statics(family), [cidr]);
        assert_eq!(family.aggregates, [cidr.parse().unwrap()]);
    }
    let core = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "me"},
                      "spec": {"podCIDR": "10.244.7.0/24"}});
    put(&mut resolver, core);
    assert_eq!(statics(&resolver.plan().families.ipv4), ["10.244.7.0/24"], "Kubernetes' own");
}

#[test]
fn an_accepted_ipv6_pool_inside_a_rejected_one_is_rejected_with_it() {
    let pool = |name: &str, cidr: &str, vxlan: &str| {
        calico("IPPool", name, json!({"cidr": cidr, "vxlanMode": vxlan}))
    };
    let mut resolver = cluster(vec![
        pool("a", "10.65.0.0/16", "Never"),
        pool("b", "10.0.0.0/8", "Always"),
        pool("c", "fd00:0:1::/48", "Never"),
        pool("d", "fd00::/32", "Always"),
    ]);
    let plan = resolver.plan();
    let ask = |prefix: &str| {
        let route = json!({"prefix": prefix, "source": "bgp"});
        decide(&plan, json!({"direction": "kernel", "route": route}))["decision"].clone()
    };
    assert_eq!(ask("fd00:0:1:2::/64"), "reject", "although its pool sorts first as text");
    assert_eq!(ask("fd01::/64"), "accept");
    assert_eq!(ask("10.65.1.0/26"), "reject", "10.0.0.0/8 sorts first as text");
}

#[test]
fn wireguard_counts_by_family_and_only_if_this_node_runs_it() {
    let guarded = |name: &str, number: u8, field: &str| {
        let mut object = dual(name, number, json!({}), json!({}));
        object["spec"]["wireguard"] = json!({field: "fd00:65::9"});
        object
    };
    let mut resolver = cluster(vec![
        guarded("me", 1, "interfaceIPv6Address"),
        guarded("b", 2, "interfaceIPv6Address"),
        guarded("c", 3, "interfaceIPv4Address"),
    ]);
    let ask = |plan: &Plan, prefix: &str, next_hop: &str, source: &str| {
        let route = json!({"prefix": prefix, "source": source, "next_hop": next_hop});
        decide(plan, json!({"direction": "kernel", "route": route}))["decision"].clone()
    };
    let plan = resolver.plan();
    assert_eq!(ask(&plan, "fd00:65::/64", "fd00::2", "bgp"), "reject");
    assert_eq!(ask(&plan, "fd00:65::/64", "fd00::3", "bgp"), "accept");
    assert_eq!(ask(&plan, "10.65.1.0/26", "10.0.0.3", "bgp"), "accept", "not here in IPv4");
    assert_eq!(ask(&plan, "fd00:65::/64", "fd00::2", "static"), "reject", "whatever the source");
    put(&mut resolver, dual("me", 1, json!({}), json!({})));
    assert_eq!(ask(&resolver.plan(), "fd00:65::/64", "fd00::2", "bgp"), "accept");
}

/// Under host-local IPAM WireGuard has no interface address of its own: a key and a pod CIDR show
/// that it runs, for IPv4 only.
#[test]
fn with_pod_cidrs_wireguard_is_known_by_key_and_cidr() {
    let core = |name: &str, number: u8, key: &str, cidr: &str| {
        json!({"kind": "Node", "apiVersion": "v1", "spec": {"podCIDR": cidr},
            "metadata": {"name": name, "annotations": {
                "projectcalico.org/IPv4Address": format!("10.0.0.{number}/24"),
                "projectcalico.org/IPv6Address": format!("fd00::{number}/64"),
                "projectcalico.org/WireguardPublicKey": key}}})
    };
    let settings = Settings { use_pod_cidr: true, ..Settings::new("me") };
    let mut with_pod_cidrs = Resolver::new(settings);
    let mut with_blocks = Resolver::new(Settings::new("me"));
    let mut interface = core("interface", 5, "", "10.244.5.0/24");
    interface["metadata"]["annotations"]["projectcalico.org/IPv4WireguardInterfaceAddr"] =
        "10.65.0.9".into();
    for object in [
        core("me", 1, "key", "10.244.1.0/24"),
        core("both", 2, "key", "10.244.2.0/24"),
        core("no-cidr", 3, "key", ""),
        core("no-key", 4, "", "10.244.4.0/24"),
        interface,
    ] {
        put(&mut with_pod_cidrs, object.clone());
        put(&mut with_blocks, object);
    }
    let ask = |plan: &Plan, prefix: &str, next_hop: &str| {
        let route = json!({"prefix": prefix, "source": "bgp", "next_hop": next_hop});
        decide(plan, json!({"direction": "kernel", "route": route}))["decision"].clone()
    };
    let plan = with_pod_cidrs.plan();
    for (number, decision) in [(2, "reject"), (3, "accept"), (4, "accept"), (5, "accept")] {
        let v4 = ask(&plan, "10.244.9.0/24", &format!("10.0.0.{number}"));
        assert_eq!(v4, decision, "node {number}");
        assert_eq!(ask(&plan, "fd00:244:9::/64", &format!("fd00::{number}")), "accept");
    }
    let plan = with_blocks.plan();
    assert_eq!(ask(&plan, "10.244.9.0/24", "10.0.0.2"), "accept", "a key has no meaning there");
    put(&mut with_pod_cidrs, core("me", 1, "", "10.244.1.0/24"));
    let plan = with_pod_cidrs.plan();
    assert_eq!(ask(&plan, "10.244.9.0/24", "10.0.0.2"), "accept", "this node does not run it");
}

#[test]
fn blocks_and_priorities_are_each_familys_own() {
    let mut resolver = cluster(vec![
        dual("me", 1, json!({}), json!({})),
        dual("b", 2, json!({}), json!({})),
        default(json!({"ipv6NormalRoutePriority": 512})),
    ]);
    block(&mut resolver, "fd00:10:65::-122", "");
    block(&mut resolver, "fd00:10:66::-122", "pending");
    block(&mut resolver, "fd00:10:67::1-128", "pendingDeletion");
    let plan = resolver.plan();
    assert_eq!(statics(&plan.families.ipv6), ["fd00:10:65::/122"]);
    assert!(plan.families.ipv4.statics.is_empty());
    let ask = |session: &str, prefix: &str, metric: Value| {
        let route = json!({"prefix": prefix, "source": "kernel", "metric": metric});
        decide(&plan, json!({"session": session, "direction": "export", "route": route}))
    };
    let v6 = |metric: Value| ask("Mesh_fd00__2", "fd00:10:65::7/128", metric)["decision"].clone();
    assert_eq!((v6(json!(511)), v6(json!(512))), (json!("accept"), json!("reject")));
    assert_eq!(v6(Value::Null), "reject", "the ordinary metric is not elevated");
}

/// A route reflector has no session of the mesh, so it does not compete for an address. When a node
/// joins an address that others share, the report is updated.
#[test]
fn nodes_that_share_an_address_are_those_of_the_mesh() {
    let at = |name: &str, bgp: Value| node(name, "10.0.0.3/24", json!({}), bgp);
    let mut resolver = cluster(vec![at("c", json!({})), at("d", json!({}))]);
    let shared = ["Node/d: 10.0.0.3 is the address of c, d: the first counts"];
    assert_eq!(problems(&resolver.plan()), shared);
    put(&mut resolver, at("b", json!({"routeReflectorClusterID": "1.0.0.1"})));
    assert_eq!(problems(&resolver.plan()), shared);
    put(&mut resolver, at("b", json!({})));
    let all = ["Node/d: 10.0.0.3 is the address of b, c, d: the first counts"];
    assert_eq!(problems(&resolver.plan()), all);
}

/// In BIRD a route without an interface has the empty name: only a star matches it.
#[test]
fn a_star_matches_routes_without_an_interface() {
    let decided = |glob: &str, interface: Value| {
        let rules = json!({"exportV4": [
            {"action": "Accept", "interface": glob}, {"action": "Reject"}]});
        let plan = cluster(vec![
            calico("BGPFilter", "f", rules),
            peer("p", json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["f"]})),
        ])
        .plan();
        let route = json!({"prefix": "10.5.0.0/24", "source": "kernel", "interface": interface});
        let question =
            json!({"session": "Global_192_0_2_1", "direction": "export", "route": route});
        decide(&plan, question)["decision"].clone()
    };
    for (glob, interface, decision) in [
        ("*", Value::Null, "accept"),
        ("*", json!("eth0"), "accept"),
        ("eth*", json!("eth0"), "accept"),
        ("eth*", json!("cali1"), "reject"),
        ("eth*", Value::Null, "reject"),
        ("?*", Value::Null, "reject"),
    ] {
        assert_eq!(decided(glob, interface.clone()), decision, "{glob} {interface}");
    }
}
