//! The object from which each session, each route and each address of a service comes.

use super::rules::{block, default};
use super::services::{service, slice};
use super::*;

/// The reason of a prefix; checks that a fresh resolver with the same objects gives the same one.
fn reason(resolver: &mut Resolver, prefix: &str) -> String {
    let plan = resolver.plan();
    assert_eq!(plan, resolve(resolver.snapshot(), &Settings::new("me")));
    let known = plan.reasons.get(&prefix.parse().unwrap());
    known.cloned().unwrap_or_default()
}

fn is_announced(plan: &Plan, prefix: &str) -> bool {
    let families = [&plan.families.ipv4, &plan.families.ipv6];
    families.iter().flat_map(|family| &family.statics).any(|s| s.prefix.to_string() == prefix)
}

#[test]
fn sessions_name_the_object_that_asks_for_them() {
    let mut resolver = cluster(vec![
        node("b", "10.0.0.2/24", json!({"rr": ""}), json!({})),
        node("c", "10.0.0.3/24", json!({"rack": "c"}), json!({})),
        peer("tor", json!({"peerIP": "192.0.2.1", "asNumber": 65001})),
        peer("chosen", json!({"nodeSelector": "rack == 'a'", "peerSelector": "has(rr)"})),
        peer("back", json!({"node": "c", "peerIP": "10.0.0.1", "asNumber": 64512})),
        peer("pods", json!({"localWorkloadSelector": "all()", "asNumber": 65002})),
    ]);
    let file = br#"{"ifaceName":"cali1","ipv4Nets":["10.65.1.7/32"],"bgpPeerName":"pods"}"#;
    resolver.apply(decode_endpoint("pod", file));
    let plan = resolver.plan();
    let objects: Vec<(&str, &str)> = plan
        .families
        .ipv4
        .sessions
        .iter()
        .map(|planned| (&*planned.session.name, &*planned.session.object))
        .collect();
    assert_eq!(
        objects,
        [
            ("Global_192_0_2_1", "BGPPeer/tor"),
            ("Local_Workload_10_65_1_7", "BGPPeer/pods"),
            ("Mesh_10_0_0_2", "Node/b"),
            ("Mesh_10_0_0_3", "Node/c"),
            ("Node_10_0_0_2", "BGPPeer/chosen"),
            ("Node_10_0_0_3", "BGPPeer/back"),
        ]
    );
}

#[test]
fn routes_to_neighbours_name_the_peer_and_its_gateway() {
    let reach = |address: &str, by: &str, node: &str| json!({"peerIP": address, "asNumber": 1, "node": node, "reachableBy": by});
    let mut resolver = cluster(vec![
        no_mesh(),
        peer("own", reach("192.0.2.1", "10.0.0.253", "me")),
        peer("other", reach("192.0.2.3", "10.0.0.253", "b")),
        peer("six", reach("fd00::9", "fd00::ff", "")),
    ]);
    let by_own = "BGPPeer/own: reachable by 10.0.0.253";
    assert_eq!(reason(&mut resolver, "192.0.2.1/32"), by_own);
    assert_eq!(reason(&mut resolver, "fd00::9/128"), "BGPPeer/six: reachable by fd00::ff");
    assert_eq!(reason(&mut resolver, "192.0.2.3/32"), "", "not a route of this node");
    // Of several BGPPeers, the one whose gateway is in use is named.
    put(&mut resolver, peer("all", reach("192.0.2.1:1790", "10.0.0.254", "")));
    let by_all = "BGPPeer/all: reachable by 10.0.0.254";
    assert_eq!(reason(&mut resolver, "192.0.2.1/32"), by_all);
    assert!(is_announced(&resolver.plan(), "192.0.2.1/32"));
    put(&mut resolver, peer("all", reach("192.0.2.1:1790", "", "")));
    assert_eq!(reason(&mut resolver, "192.0.2.1/32"), by_own);
    resolver.withdraw(&ObjectId::new(Kind::BgpPeer, "own"));
    assert_eq!(reason(&mut resolver, "192.0.2.1/32"), "");
}

#[test]
fn blocks_and_pod_cidrs_name_what_gives_them() {
    let mut resolver = cluster(Vec::new());
    for (cidr, state) in [
        ("10.65.1.0-26", "confirmed"),
        ("10.65.2.0-26", "pending"),
        ("10.65.3.0-26", "pendingDeletion"),
        ("fd00:65::-122", "confirmed"),
    ] {
        block(&mut resolver, cidr, state);
    }
    let own = "a block of this node's (BlockAffinity)";
    let not_yet = "a block that is not yet this node's (BlockAffinity)";
    let given_up = "a block that this node gives up (BlockAffinity)";
    for (prefix, text, announced) in [
        ("10.65.1.0/26", own, true),
        ("10.65.2.0/26", not_yet, false),
        ("10.65.3.0/26", given_up, true),
        ("fd00:65::/122", own, true),
    ] {
        assert_eq!(reason(&mut resolver, prefix), text, "{prefix}");
        assert_eq!(is_announced(&resolver.plan(), prefix), announced, "{prefix}");
    }
    block(&mut resolver, "10.65.2.0-26", "confirmed");
    assert_eq!(reason(&mut resolver, "10.65.2.0/26"), own);
    // Where pod CIDRs take their place, blocks have no reason.
    let mut me = node("me", "10.0.0.1/24", json!({}), json!({}));
    me["status"] = json!({"podCIDRs": ["10.244.1.0/24"]});
    put(&mut resolver, me);
    block(&mut resolver, "10.65.2.0-26", "pending");
    let settings = Settings { use_pod_cidr: true, ..Settings::new("me") };
    let plan = resolve(resolver.snapshot(), &settings);
    let all: Vec<_> = plan.reasons.iter().map(|(p, text)| (p.to_string(), &**text)).collect();
    assert_eq!(all, [("10.244.1.0/24".to_owned(), "a pod CIDR of Node/me")]);
}

#[test]
fn ranges_of_services_name_the_field_that_gives_them() {
    let ranges = default(json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "serviceExternalIPs": [{"cidr": "70.0.0.0/24"}],
        "serviceLoadBalancerIPs": [{"cidr": "fd00:80::/112"}]}));
    let mut resolver = cluster(vec![ranges]);
    for (prefix, field) in [
        ("10.96.0.0/12", "serviceClusterIPs"),
        ("70.0.0.0/24", "serviceExternalIPs"),
        ("fd00:80::/112", "serviceLoadBalancerIPs"),
    ] {
        let text = format!("a range of services (BGPConfiguration/default {field})");
        assert_eq!(reason(&mut resolver, prefix), text);
    }
    let settings =
        Settings { advertise_cluster_ips: "10.97.0.0/16".to_owned(), ..Settings::new("me") };
    let plan = resolve(resolver.snapshot(), &settings);
    let given = "a range of services (CALICO_ADVERTISE_CLUSTER_IPS)";
    assert_eq!(plan.reasons.get(&"10.97.0.0/16".parse().unwrap()).unwrap(), given);
    assert_eq!(plan.reasons.get(&"10.96.0.0/12".parse().unwrap()), None);
}

/// Each verdict about a service has its text, and the plan acts accordingly.
#[test]
fn addresses_of_services_name_the_service_and_why_they_are_announced_or_not() {
    const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    let ranges = |aggregation: &str| {
        default(json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
            "serviceExternalIPs": [{"cidr": "70.0.0.1/32"}, {"cidr": "71.0.0.0/24"}],
            "serviceLoadBalancerAggregation": aggregation}))
    };
    let web = |policy: &str, more: Value| {
        let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7",
            "externalTrafficPolicy": policy});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service("web", spec)
    };
    let (here, away) = (slice("web", "IPv4", "me"), slice("web", "IPv4", "elsewhere"));
    let mut unready = away.clone();
    unready["endpoints"][0]["conditions"] = json!({"ready": false});
    let me = |labels: Value| node("me", "10.0.0.1/24", labels, json!({}));
    let mut resolver = cluster(vec![ranges("Enabled")]);
    let mut row = |objects: Vec<Value>, prefix: &str, expected: &str| {
        objects.into_iter().for_each(|object| put(&mut resolver, object));
        assert_eq!(reason(&mut resolver, prefix), format!("Service ns/web: {expected}"));
        let announced = expected.starts_with("announced");
        assert_eq!(is_announced(&resolver.plan(), prefix), announced, "{expected}");
    };
    let cluster_ip = "10.96.0.7/32";
    row(vec![web("Local", json!({}))], cluster_ip, "not announced: it has no EndpointSlice");
    row(
        vec![away.clone()],
        cluster_ip,
        "not announced: policy Local, no endpoint on this node is ready",
    );
    row(
        vec![here.clone()],
        cluster_ip,
        "announced: policy Local, an endpoint on this node is ready",
    );
    row(
        vec![me(json!({LABEL: "true"}))],
        cluster_ip,
        "not announced: this node has the label \
         node.kubernetes.io/exclude-from-external-load-balancers",
    );
    row(
        vec![me(json!({LABEL: "false"})), web("Cluster", json!({}))],
        cluster_ip,
        "not announced by itself: policy Cluster, its range is announced whole",
    );
    row(vec![ranges("Disabled"), away], cluster_ip, "announced: an endpoint is ready");
    row(vec![unready], cluster_ip, "not announced: no endpoint is ready");
    // The load balancer's address that every Service here has lies in no range.
    let no_range = "not announced: the address is in no range of BGPConfiguration's";
    row(vec![here.clone()], "80.0.0.9/32", no_range);
    let external = json!({"externalIPs": ["70.0.0.1", "71.0.0.9", "72.0.0.1"]});
    let single = "announced: the address is a range by itself";
    row(vec![ranges("Enabled"), web("Cluster", external.clone())], "70.0.0.1/32", single);
    row(Vec::new(), "71.0.0.9/32", single);
    row(Vec::new(), "72.0.0.1/32", no_range);
    let mut headless = external;
    headless["clusterIP"] = "None".into();
    let no_address = "not announced: it has no cluster address";
    row(vec![web("Cluster", headless)], "71.0.0.9/32", no_address);
    let named = json!({"type": "ExternalName", "externalIPs": ["71.0.0.9"]});
    row(vec![web("", named)], "71.0.0.9/32", no_address);
}

/// An address of several services is announced if one of them calls for it.
#[test]
fn a_service_that_announces_a_shared_address_takes_precedence() {
    let shared = |name: &str| {
        service(
            name,
            json!({"type": "NodePort", "externalTrafficPolicy": "Local",
            "clusterIP": "10.96.0.7", "externalIPs": ["71.0.0.9"]}),
        )
    };
    let mut resolver = cluster(vec![
        default(json!({"serviceExternalIPs": [{"cidr": "71.0.0.0/24"}]})),
        shared("a"),
        shared("b"),
        shared("c"),
        slice("b", "IPv4", "me"),
        slice("c", "IPv4", "me"),
    ]);
    let here = "announced: policy Local, an endpoint on this node is ready";
    assert_eq!(reason(&mut resolver, "71.0.0.9/32"), format!("Service ns/b: {here}"));
    assert!(is_announced(&resolver.plan(), "71.0.0.9/32"));
    put(&mut resolver, slice("b", "IPv4", "elsewhere"));
    assert_eq!(reason(&mut resolver, "71.0.0.9/32"), format!("Service ns/c: {here}"));
    put(&mut resolver, slice("c", "IPv4", "elsewhere"));
    let none = "Service ns/a: not announced: it has no EndpointSlice";
    assert_eq!(reason(&mut resolver, "71.0.0.9/32"), none);
    assert!(!is_announced(&resolver.plan(), "71.0.0.9/32"));
}
