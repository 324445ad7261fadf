//! What depends on the release of Calico: each row of the table in `docs/src/calico.md`.

use super::*;
use crate::calico::release::{Origin, Version};

/// A cluster of a release: pools of every kind, a block, ClusterInformation and FelixConfiguration.
fn released(version: &str, configuration: Value, felix: Value) -> Resolver {
    let mut resolver = cluster(vec![
        calico("ClusterInformation", "default", json!({"calicoVersion": version})),
        calico("FelixConfiguration", "default", felix),
        calico("BGPConfiguration", "default", configuration),
        node("b", "10.0.0.2/24", json!({}), json!({})),
        calico("IPPool", "ipip", json!({"cidr": "10.1.0.0/16", "ipipMode": "Always"})),
        calico("IPPool", "plain", json!({"cidr": "10.2.0.0/16"})),
    ]);
    let key = "/calico/ipam/v2/host/me/ipv4/block/10.2.1.0-26";
    resolver.apply(decode_etcd(key, b"{}").unwrap());
    resolver
}

fn pool_routes(plan: &Plan) -> [PoolRoutes; 2] {
    let pools = &plan.families.ipv4.pools;
    [pools[0].kernel, pools[1].kernel]
}

fn has_owner_problem(plan: &Plan, start: &str) -> bool {
    problems(plan).iter().any(|p| p.starts_with(&format!("BGPConfiguration/default: {start}")))
}

#[test]
fn tunnel_routes_are_bgps_up_to_v3_32_and_felixs_after_it() {
    use PoolRoutes::{Accept, Reject, Tunnel};
    let none = || json!({});
    let rows = [
        ("v3.28.2", none(), [Tunnel, Accept]),
        ("v3.30.7", none(), [Tunnel, Accept]),
        ("v3.31.7", none(), [Tunnel, Accept]),
        ("v3.32.0", none(), [Tunnel, Accept]),
        ("v3.32.1", none(), [Tunnel, Accept]),
        ("v3.33.0", none(), [Reject, Accept]),
        // The field has no effect before v3.32, and no classes before v3.33.
        ("v3.31.7", json!({"programClusterRoutes": "Disabled"}), [Tunnel, Accept]),
        ("v3.32.1", json!({"programClusterRoutes": "Disabled"}), [Reject, Reject]),
        ("v3.32.1", json!({"programClusterRoutes": "EnabledNoEncapOnly"}), [Tunnel, Accept]),
        ("v3.33.0", json!({"programClusterRoutes": "Enabled"}), [Tunnel, Accept]),
        ("v3.33.0", json!({"programClusterRoutes": "EnabledIPIPOnly"}), [Tunnel, Reject]),
        ("v3.33.0", json!({"programClusterRoutes": "Disabled"}), [Reject, Reject]),
    ];
    for (version, configuration, expected) in rows {
        let plan = released(version, configuration.clone(), none()).plan();
        assert_eq!(pool_routes(&plan), expected, "{version} {configuration}");
        assert_eq!(plan.release.origin, Origin::ClusterInformation);
    }
}

#[test]
fn classes_of_routes_without_exactly_one_writer_are_reported() {
    let plan = |version: &str, bgp: &str, felix: &str| {
        let word = |w: &str| match w {
            "" => json!({}),
            w => json!({"programClusterRoutes": w}),
        };
        released(version, word(bgp), word(felix)).plan()
    };
    let rows = [
        // version, BGP, Felix: nobody, both
        ("v3.31.7", "", "", false, false),
        ("v3.31.7", "", "Enabled", false, true),
        ("v3.32.1", "", "", false, false),
        ("v3.32.1", "Disabled", "", true, false),
        ("v3.32.1", "", "Enabled", false, true),
        // Felix does not write routes of pools without encapsulation if there is one with it.
        ("v3.32.1", "Disabled", "Enabled", true, false),
        ("v3.33.0", "", "", false, false),
        ("v3.33.0", "Enabled", "", false, true),
        ("v3.33.0", "Disabled", "Enabled", false, false),
        ("v3.33.0", "Disabled", "", true, false),
        ("v3.33.0", "Enabled", "Disabled", false, false),
    ];
    for (version, bgp, felix, nobody, both) in rows {
        let plan = plan(version, bgp, felix);
        let row = format!("{version} \"{bgp}\" \"{felix}\": {:?}", problems(&plan));
        assert_eq!(has_owner_problem(&plan, "nobody writes"), nobody, "{row}");
        assert_eq!(has_owner_problem(&plan, "both BGP and Felix"), both, "{row}");
    }
    // Felix's environment variable overrides its object, and a node's object the cluster's.
    let mut resolver = released("v3.33.0", json!({}), json!({"programClusterRoutes": "Disabled"}));
    assert!(has_owner_problem(&resolver.plan(), "nobody writes"));
    let own = json!({"programClusterRoutes": "EnabledIPIPOnly"});
    put(&mut resolver, calico("FelixConfiguration", "node.me", own));
    assert!(!has_owner_problem(&resolver.plan(), "nobody writes"));
    let settings = Settings { felix_cluster_routes: "Disabled".into(), ..Settings::new("me") };
    let plan = resolve(resolver.snapshot(), &settings);
    assert!(has_owner_problem(&plan, "nobody writes"));
}

#[test]
fn priorities_are_carried_in_bgp_from_v3_32_on() {
    for (version, mirrored) in [("v3.31.7", false), ("v3.32.0", true), ("v3.33.0", true)] {
        let plan = released(version, json!({}), json!({})).plan();
        let ask = |direction: &str, route: Value| {
            let session = (direction != "kernel").then_some("Mesh_10_0_0_2");
            decide(&plan, json!({"session": session, "direction": direction, "route": route}))
        };
        // A pod's route as Felix writes it before v3.32: without a metric.
        let pod = ask("export", json!({"prefix": "10.2.1.7/32", "source": "kernel", "metric": 0}));
        assert_eq!(pod["decision"], if mirrored { "accept" } else { "reject" }, "{version}");
        let block = ask("export", json!({"prefix": "10.2.1.0/26", "source": "static"}));
        assert_eq!(block["decision"], "accept");
        let local_pref = &block["route"]["local_pref"];
        if mirrored {
            assert_eq!(*local_pref, 2_147_483_647_u32 - 1024, "{version}")
        } else {
            assert!(local_pref.is_null(), "{version}: {block}")
        }
        let elevated = json!({"prefix": "10.2.2.7/32", "source": "bgp", "next_hop": "10.0.0.2",
                              "local_pref": 2_147_483_647_u32 - 512});
        let preference = if mirrored { 200 } else { 100 };
        assert_eq!(ask("import", elevated.clone())["preference"], preference, "{version}");
        let kernel = ask("kernel", elevated);
        if mirrored {
            assert_eq!(kernel["route"]["metric"], 512)
        } else {
            assert!(kernel["route"]["metric"].is_null(), "{kernel}")
        }
    }
}

#[test]
fn routes_to_wireguard_peers_are_felixs_from_v3_33_on() {
    for (version, decision) in [("v3.32.1", "accept"), ("v3.33.0", "reject")] {
        let mut resolver = released(version, json!({}), json!({}));
        for (name, address) in [("me", "10.0.0.1/24"), ("b", "10.0.0.2/24")] {
            let mut object = node(name, address, json!({}), json!({}));
            object["spec"]["wireguard"] = json!({"interfaceIPv4Address": "10.3.0.1"});
            put(&mut resolver, object);
        }
        let route = json!({"prefix": "10.2.2.0/26", "source": "bgp", "next_hop": "10.0.0.2"});
        let question = json!({"session": null, "direction": "kernel", "route": route});
        assert_eq!(decide(&resolver.plan(), question)["decision"], decision, "{version}");
    }
}

/// Where a release had a fault, the correct behaviour applies to every release.
#[test]
fn faults_of_a_release_are_not_reproduced() {
    let shown = |version: &str| {
        let mut resolver = released(
            version,
            json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
                   "serviceLoadBalancerAggregation": "Disabled"}),
            json!({}),
        );
        let peer = peer(
            "tor",
            json!({"peerIP": "192.0.2.1", "asNumber": 64512,
            "localASNumber": 65100, "keepaliveTime": "10s", "filters": ["f"]}),
        );
        put(&mut resolver, peer);
        let rule = json!({"action": "Reject", "peerType": "iBGP"});
        put(&mut resolver, calico("BGPFilter", "f", json!({"exportV4": [rule]})));
        put(
            &mut resolver,
            json!({"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4", "IPv6"],
                     "clusterIPs": ["10.96.0.7", "fd00:96::7"], "externalTrafficPolicy": "Local"}}),
        );
        let slice = |name: &str, ready: bool| {
            json!({"kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "ns",
                         "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"nodeName": "me", "conditions": {"ready": ready}}]})
        };
        put(&mut resolver, slice("one", true));
        put(&mut resolver, slice("two", false));
        let plan = resolver.plan();
        let tor = session(&plan, "Global_192_0_2_1").clone();
        let families = [&plan.families.ipv4, &plan.families.ipv6];
        let statics = families.map(|family| family.statics.clone());
        (tor.local_asn, tor.internal, tor.keepalive_time, statics)
    };
    let newest = shown("v3.33.0");
    assert_eq!((newest.0.0, newest.1, newest.2), (65100, false, Some(10)));
    assert!(newest.3[0].iter().any(|s| s.prefix.to_string() == "10.96.0.7/32"), "{newest:?}");
    assert!(newest.3[1].iter().any(|s| s.prefix.to_string() == "fd00:96::7/128"), "{newest:?}");
    for version in ["v3.28.2", "v3.30.7", "v3.31.7", "v3.32.1"] {
        assert_eq!(shown(version), newest, "{version}");
    }
}

#[test]
fn improvements_of_later_releases_apply_to_all() {
    for version in ["v3.28.2", "v3.30.7", "v3.31.7", "v3.32.1", "v3.33.0"] {
        let ranges = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
            "serviceExternalIPs": [{"cidr": "71.0.0.1/32"}]});
        let mut resolver = released(version, ranges, json!({}));
        put(&mut resolver, node("b", "10.0.0.2/24", json!({}), json!({"asNumber": 65001})));
        let plan = resolver.plan();
        let config = Converter::default().convert(&plan, &Touched::All, &host()).unwrap();
        let [mesh] = &config.peers[..] else { panic!("{:?}", config.peers) };
        assert_ne!(mesh.session.remote_asn, mesh.session.local_asn.into());
        assert_eq!(mesh.session.multihop_ttl, Some(64), "{version}");
        // The environment's range is always announced, even by a node that announces no services.
        let label = json!({"node.kubernetes.io/exclude-from-external-load-balancers": "true"});
        let reflector = json!({"routeReflectorClusterID": "1.0.0.1"});
        put(&mut resolver, node("me", "10.0.0.1/24", label, reflector));
        put(&mut resolver, peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})));
        let settings =
            Settings { advertise_cluster_ips: "10.97.0.0/16".into(), ..Settings::new("me") };
        let plan = resolve(resolver.snapshot(), &settings);
        let statics = plan.families.ipv4.statics.iter().map(|s| s.prefix.to_string());
        assert_eq!(statics.collect::<Vec<_>>(), ["10.2.1.0/26", "10.97.0.0/16"], "{version}");
        // A reflector re-advertises a single address that another node announces.
        let route = json!({"prefix": "71.0.0.1/32", "source": "bgp", "next_hop": "10.0.0.2"});
        let question =
            json!({"session": "Global_192_0_2_1", "direction": "export", "route": route});
        assert_eq!(decide(&plan, question)["decision"], "accept", "{version}");
    }
}

#[test]
fn a_configured_version_overrides_cluster_information() {
    let mut resolver = released("v3.33.0", json!({}), json!({}));
    let of = |resolver: &Resolver, version: &str| {
        let settings = Settings { version: Some(version.into()), ..Settings::new("me") };
        resolve(resolver.snapshot(), &settings)
    };
    let plan = of(&resolver, "v3.32.1");
    assert_eq!(
        (plan.release.version, plan.release.origin),
        (Version::new(3, 32, 1), Origin::Given)
    );
    assert_eq!(pool_routes(&plan)[0], PoolRoutes::Tunnel);
    // A version that cannot be parsed is ignored, an unknown one behaves as the nearest.
    assert_eq!(of(&resolver, "new").release.origin, Origin::ClusterInformation);
    let plan = of(&resolver, "v3.40.1");
    assert_eq!(plan.release.version, Version::NEWEST);
    assert!(plan.notes.iter().any(|n| n.text.contains("v3.40.1 is not known")), "{:?}", plan.notes);
    // Another product numbers its versions differently; without a version the newest is assumed.
    let other = json!({"calicoVersion": "v3.20.0", "variant": "CalicoEnterprise"});
    put(&mut resolver, calico("ClusterInformation", "default", other));
    let plan = resolver.plan();
    assert_eq!((plan.release.version, plan.release.origin), (Version::NEWEST, Origin::Assumed));
    assert!(plan.notes.iter().any(|n| n.text.contains("is assumed")), "{:?}", plan.notes);
    // It is then unknown who writes the routes of IPIP pools, and Felix may write no metrics.
    let unknown = |plan: &Plan| problems(plan).iter().any(|p| p.contains("it is not known who"));
    assert!(unknown(&plan), "{:?}", problems(&plan));
    let export = |plan: &Plan, metric: u32| {
        let route = json!({"prefix": "10.2.1.7/32", "source": "kernel", "metric": metric});
        let question = json!({"session": "Mesh_10_0_0_2", "direction": "export", "route": route});
        decide(plan, question)["decision"] == "accept"
    };
    assert!(!export(&plan, 0), "as Felix writes it before v3.32");
    assert!(export(&plan, 512));
    let said = json!({"programClusterRoutes": "Enabled"});
    put(&mut resolver, calico("BGPConfiguration", "default", said));
    assert!(!unknown(&resolver.plan()));
}

/// Other nodes announce the blocks behind Felix's routes to them; we announce local pods and own
/// blocks.
#[test]
fn another_nodes_block_is_not_announced_to_internal_peers() {
    let mut resolver = released("v3.33.0", json!({}), json!({}));
    put(&mut resolver, peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})));
    let plan = resolver.plan();
    let ask = |session: &str, prefix: &str, next_hop: Option<&str>| {
        let route = json!({"prefix": prefix, "source": "kernel", "interface": "eth0",
                           "next_hop": next_hop});
        let question = json!({"session": session, "direction": "export", "route": route});
        decide(&plan, question)["decision"] == "accept"
    };
    let (mesh, tor) = ("Mesh_10_0_0_2", "Global_192_0_2_1");
    assert!(!ask(mesh, "10.1.2.0/26", Some("10.0.0.2")), "an IPIP pool, Felix's");
    assert!(ask(tor, "10.1.2.0/26", Some("10.0.0.2")), "external peers may receive it");
    assert!(ask(mesh, "10.1.2.7/32", None), "a pod of ours with a borrowed address");
    assert!(ask(mesh, "10.2.2.0/26", Some("10.0.0.2")), "a pool whose routes are not Felix's");
}

/// With an Enabled left over, both write the routes; the other node still announces its block
/// itself.
#[test]
fn another_nodes_block_is_not_announced_to_internal_peers_if_both_write_it() {
    let both = json!({"programClusterRoutes": "Enabled"});
    for (version, configuration) in [("v3.33.0", both.clone()), ("v3.31.7", json!({}))] {
        let mut resolver = released(version, configuration, both.clone());
        put(&mut resolver, peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})));
        let plan = resolver.plan();
        assert_eq!(pool_routes(&plan)[0], PoolRoutes::Tunnel, "{version}");
        let ask = |session: &str, prefix: &str| {
            let route = json!({"prefix": prefix, "source": "kernel", "interface": "tunl0",
                               "next_hop": "10.0.0.2"});
            let question = json!({"session": session, "direction": "export", "route": route});
            decide(&plan, question)["decision"] == "accept"
        };
        assert!(!ask("Mesh_10_0_0_2", "10.1.2.0/26"), "{version}");
        assert!(ask("Global_192_0_2_1", "10.1.2.0/26"), "{version}");
    }
}

/// Where BGP writes the routes of IPIP pools, we announce those in the kernel that use the tunnel;
/// where Felix does, they are other nodes'. The route has no gateway, so that its interface
/// decides.
#[test]
fn routes_through_the_tunnel_go_to_internal_peers_where_bgp_writes_them() {
    let word = |word: &str| json!({"programClusterRoutes": word});
    let rows = [
        ("v3.28.2", json!({}), "accept"),
        ("v3.30.7", json!({}), "accept"),
        ("v3.31.7", json!({}), "accept"),
        ("v3.32.1", json!({}), "accept"),
        ("v3.33.0", json!({}), "reject"),
        // No effect before v3.32.
        ("v3.31.7", word("Disabled"), "accept"),
        ("v3.32.1", word("Disabled"), "reject"),
        ("v3.33.0", word("Enabled"), "accept"),
        ("v3.33.0", word("EnabledIPIPOnly"), "accept"),
        ("v3.33.0", word("EnabledNoEncapOnly"), "reject"),
    ];
    for (version, configuration, decision) in rows {
        let mut resolver = released(version, configuration.clone(), json!({}));
        put(&mut resolver, peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})));
        let plan = resolver.plan();
        let ask = |session: &str, interface: &str| {
            let route = json!({"prefix": "10.1.2.0/26", "source": "kernel", "interface": interface,
                               "metric": 512});
            decide(&plan, json!({"session": session, "direction": "export", "route": route}))
        };
        let row = format!("{version} {configuration}");
        let internal = ask("Mesh_10_0_0_2", "tunl0");
        assert_eq!(internal["decision"], decision, "{row}");
        let is_of_interface = internal["rule"].as_str().unwrap().contains("overlay interface");
        assert_eq!(is_of_interface, decision == "reject", "{row}: {internal}");
        assert_eq!(ask("Mesh_10_0_0_2", "eth0")["decision"], "accept", "{row}");
        assert_eq!(ask("Mesh_10_0_0_2", "vxlan.calico")["decision"], "reject", "{row}");
        assert_eq!(ask("Global_192_0_2_1", "tunl0")["decision"], "accept", "{row}");
    }
}

/// Each calico-node writes its version into ClusterInformation when it starts; ours did so before
/// margay started.
#[test]
fn a_rolling_upgrade_changes_nothing_until_the_nodes_own_start() {
    let version =
        |text: &str| calico("ClusterInformation", "default", json!({"calicoVersion": text}));
    let mut resolver = released("v3.32.1", json!({}), json!({}));
    let plan = resolver.plan();
    assert_eq!(pool_routes(&plan)[0], PoolRoutes::Tunnel);
    resolver.hold_release(plan.release);
    put(&mut resolver, version("v3.33.0"));
    let plan = resolver.plan();
    assert_eq!(
        (pool_routes(&plan)[0], plan.release.version),
        (PoolRoutes::Tunnel, Version::new(3, 32, 1))
    );
    let note = "this node goes on as with v3.32.1";
    assert!(plan.notes.iter().any(|n| n.text.contains(note)), "{:?}", plan.notes);
    assert!(problems(&plan).is_empty(), "{:?}", problems(&plan));
    // Without a version, of another product, and of an old node that restarted.
    put(&mut resolver, calico("ClusterInformation", "default", json!({})));
    assert_eq!(pool_routes(&resolver.plan())[0], PoolRoutes::Tunnel);
    put(&mut resolver, version("v3.32.1"));
    assert!(resolver.plan().notes.is_empty());
    // A resolver that starts now holds the new version; one without a version holds the first that
    // it sees.
    put(&mut resolver, version("v3.33.0"));
    let now = resolve(resolver.snapshot(), &Settings::new("me"));
    assert_eq!(pool_routes(&now)[0], PoolRoutes::Reject);
    let mut resolver = released("", json!({}), json!({}));
    let plan = resolver.plan();
    assert_eq!(plan.release.origin, Origin::Assumed);
    resolver.hold_release(plan.release);
    put(&mut resolver, version("v3.31.7"));
    assert_eq!(resolver.plan().release.version, Version::new(3, 31, 7));
}
