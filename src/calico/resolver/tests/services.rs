//! Routes announced for Kubernetes services.

use proptest::prelude::*;

use super::rules::{default, statics};
use super::*;

pub(super) fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns"},
           "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": "80.0.0.9"}]}}})
}

pub(super) fn slice(name: &str, family: &str, node: &str) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": family,
           "metadata": {"name": format!("{name}-1"), "namespace": "ns",
                        "labels": {"kubernetes.io/service-name": name}},
           "endpoints": [{"addresses": ["x"], "nodeName": node}]})
}

#[test]
fn services_by_type_policy_family_and_aggregation() {
    let ranges = |more: Value| {
        let mut spec = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {}, {"cidr": ""}],
            "serviceExternalIPs": [{"cidr": "70.0.0.1/32"}, {"cidr": "71.0.0.0/24"}],
            "serviceLoadBalancerIPs": [{"cidr": "80.0.0.9/32"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        default(spec)
    };
    let mut resolver = cluster(vec![ranges(json!({}))]);
    let mut routes = |objects: Vec<Value>| -> Vec<String> {
        objects.into_iter().for_each(|object| put(&mut resolver, object));
        let all = statics(&resolver.plan().families.ipv4);
        all.into_iter().filter(|p| p.ends_with("/32")).collect()
    };
    let local = |more: Value| {
        let mut spec =
            json!({"type": "NodePort", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service("web", spec)
    };
    let here = slice("web", "IPv4", "me");
    assert_eq!(routes(vec![local(json!({})), here.clone()]), ["10.96.0.7/32", "80.0.0.9/32"]);
    assert!(routes(vec![slice("web", "IPv6", "me")]).is_empty(), "no endpoint of its family");
    assert!(routes(vec![slice("web", "IPv4", "")]).is_empty(), "an endpoint without a node");
    for spec in [json!({"type": "ExternalName"}), json!({"clusterIP": "None"})] {
        assert!(routes(vec![here.clone(), local(spec)]).is_empty());
    }
    // Without "Local" the ranges are enough, unless one address is all that is configured …
    let everywhere = |more: Value| {
        let mut object = local(more);
        object["spec"]["externalTrafficPolicy"] = "Cluster".into();
        object
    };
    assert!(routes(vec![everywhere(json!({}))]).is_empty());
    assert_eq!(
        routes(vec![everywhere(json!({"type": "LoadBalancer"}))]),
        ["10.96.0.7/32", "80.0.0.9/32"]
    );
    let by_address = json!({"externalIPs": ["70.0.0.1", "71.0.0.9", "72.0.0.1"]});
    let addresses = ["10.96.0.7/32", "70.0.0.1/32", "71.0.0.9/32", "80.0.0.9/32"];
    assert_eq!(routes(vec![everywhere(by_address.clone())]), addresses);
    // … also without a policy, which an API server would default to "Cluster".
    let mut unsaid = by_address;
    unsaid["type"] = "ClusterIP".into();
    unsaid["clusterIP"] = "10.96.0.7".into();
    assert_eq!(routes(vec![service("web", unsaid)]), addresses);
    // Without aggregation, one ready endpoint on any node makes this node announce the addresses.
    let apart = ranges(json!({"serviceLoadBalancerAggregation": "Disabled"}));
    let away = slice("web", "IPv4", "elsewhere");
    assert_eq!(routes(vec![apart, away, everywhere(json!({}))]), ["10.96.0.7/32", "80.0.0.9/32"]);
    let later = ranges(json!({"serviceLoadBalancerAggregation": "Perhaps"}));
    assert_eq!(routes(vec![later]), ["10.96.0.7/32", "80.0.0.9/32"], "only Enabled aggregates");
    // Without a range of cluster addresses they are not announced with the others.
    let without = ranges(json!({"serviceClusterIPs": []}));
    assert_eq!(routes(vec![without, here, local(json!({}))]), ["80.0.0.9/32"]);
}

#[test]
fn single_addresses_are_single_in_their_own_family() {
    let mut resolver = cluster(vec![default(json!({
        "serviceExternalIPs": [{"cidr": "2001:db8::/32"}, {"cidr": "2001:db8::1/128"}],
        "serviceLoadBalancerIPs": [{"cidr": "fd00::/32"}, {"cidr": "70.0.0.1/32"}],
    }))]);
    let plan = resolver.plan();
    assert_eq!(statics(&plan.families.ipv6), ["2001:db8::/32", "fd00::/32"]);
    assert!(statics(&plan.families.ipv4).is_empty());
}

#[test]
fn services_by_the_environment_and_the_label_that_excludes_a_node() {
    let mut settings = Settings::new("me");
    settings.advertise_cluster_ips = "10.97.0.0/16".to_owned();
    settings.kubernetes_node = "k8s-me".to_owned();
    let mut resolver = Resolver::new(settings.clone());
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
                      "externalTrafficPolicy": "Local", "ipFamilies": ["IPv4", "IPv6"]});
    for object in [
        node("me", "10.0.0.1/24", json!({}), json!({})),
        default(
            json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/112"}]}),
        ),
        service("web", spec),
        slice("web", "IPv6", "k8s-me"),
    ] {
        put(&mut resolver, object);
    }
    let plan = resolver.plan();
    assert_eq!(statics(&plan.families.ipv4), ["10.96.0.7/32", "10.97.0.0/16"]);
    assert_eq!(statics(&plan.families.ipv6), ["fd00:96::7/128"]);
    assert_eq!(plan.families.ipv4.kernel_reject, ["10.97.0.0/16".parse().unwrap()]);
    let label = json!({"node.kubernetes.io/exclude-from-external-load-balancers": "true"});
    put(&mut resolver, node("me", "10.0.0.1/24", label, json!({})));
    let plan = resolver.plan();
    assert_eq!(statics(&plan.families.ipv4), ["10.97.0.0/16"], "the environment takes precedence");
    assert!(plan.families.ipv6.statics.is_empty());
    assert_eq!(plan.families.ipv4.kernel_reject.len(), 1, "kept out of the kernel all the same");

    settings.advertise_cluster_ips = "10.97.0.1/16".to_owned();
    let plan = resolve(resolver.snapshot(), &settings);
    assert!(problems(&plan)[0].contains("CALICO_ADVERTISE_CLUSTER_IPS"), "{:?}", problems(&plan));
}

/// Every node announces an address that is a range by itself, so there must be an endpoint
/// somewhere.
#[test]
fn a_single_address_waits_for_an_endpoint_anywhere() {
    let mut resolver = cluster(vec![
        default(json!({"serviceExternalIPs": [{"cidr": "70.0.0.1/32"}],
            "serviceLoadBalancerIPs": [{"cidr": "80.0.0.9/32"}]})),
        service(
            "web",
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7",
            "externalIPs": ["70.0.0.1"], "externalTrafficPolicy": "Cluster"}),
        ),
    ]);
    assert!(statics(&resolver.plan().families.ipv4).is_empty(), "it has no EndpointSlice at all");
    // Another service's EndpointSlice has no effect on this one.
    put(&mut resolver, slice("other", "IPv4", "elsewhere"));
    assert!(statics(&resolver.plan().families.ipv4).is_empty());
    put(&mut resolver, slice("web", "IPv4", "elsewhere"));
    let addresses = ["70.0.0.1/32", "80.0.0.9/32"];
    assert_eq!(statics(&resolver.plan().families.ipv4), addresses);
    // As in Calico, a slice is enough, even an empty one.
    let mut empty = slice("web", "IPv4", "elsewhere");
    empty["endpoints"] = json!([]);
    put(&mut resolver, empty);
    assert_eq!(statics(&resolver.plan().families.ipv4), addresses);
    let id = decode(slice("web", "IPv4", "elsewhere")).unwrap().unwrap().id;
    resolver.withdraw(&id);
    assert!(statics(&resolver.plan().families.ipv4).is_empty());
}

/// The bandwidths of announced addresses, in the order of the plan.
fn bandwidths(resolver: &mut Resolver) -> Vec<(String, Option<u64>)> {
    let plan = resolver.plan();
    let both = [&plan.families.ipv4, &plan.families.ipv6];
    let all = both.into_iter().flat_map(|family| &family.statics);
    all.filter(|s| s.prefix.len() == s.prefix.family().max_len())
        .map(|s| {
            let of_community = s.community.and_then(|community| community.link_bandwidth());
            assert_eq!(of_community, s.bandwidth, "{s:?}");
            (s.prefix.to_string(), s.bandwidth)
        })
        .collect()
}

#[test]
fn addresses_ask_for_the_share_of_the_ready_endpoints_here() {
    let mut settings = Settings::new("me");
    settings.endpoint_weights = crate::config::EndpointWeights::NonTransitive;
    settings.endpoint_bandwidth = 100;
    let mut resolver = Resolver::new(settings);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "clusterIPs": ["10.96.0.7", "fd00:96::7"], "ipFamilies": ["IPv4", "IPv6"]});
    let mut endpoints = slice("web", "IPv4", "me");
    endpoints["endpoints"] = json!([
        {"nodeName": "me"}, {"nodeName": "me", "conditions": {"ready": false}},
        {"nodeName": "b"}, {"nodeName": "me", "conditions": {"ready": true}},
    ]);
    let ranges = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/112"}],
        "serviceLoadBalancerIPs": [{"cidr": "80.0.0.0/24"}]});
    for object in [
        node("me", "10.0.0.1/24", json!({}), json!({})),
        default(ranges.clone()),
        service("web", local.clone()),
        endpoints.clone(),
    ] {
        put(&mut resolver, object);
    }
    let of = |list: &[(&str, Option<u64>)]| -> Vec<(String, Option<u64>)> {
        list.iter().map(|(prefix, bandwidth)| ((*prefix).to_owned(), *bandwidth)).collect()
    };
    // Announced for the endpoints of the other family, an address counts for one.
    let first =
        [("10.96.0.7/32", Some(200)), ("80.0.0.9/32", Some(200)), ("fd00:96::7/128", Some(100))];
    assert_eq!(bandwidths(&mut resolver), of(&first));
    let plan = resolver.plan();
    let all: Vec<_> = plan.families.ipv4.statics.iter().filter_map(|s| s.community).collect();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|community| !community.is_transitive()), "{all:?}");

    // The load balancer's address as an external one, too: it counts once.
    put(
        &mut resolver,
        service("web", {
            let mut twice = local.clone();
            twice["externalIPs"] = json!(["80.0.0.9"]);
            twice
        }),
    );
    put(
        &mut resolver,
        default(json!({"serviceClusterIPs": ranges["serviceClusterIPs"],
        "serviceLoadBalancerIPs": ranges["serviceLoadBalancerIPs"],
        "serviceExternalIPs": ranges["serviceLoadBalancerIPs"]})),
    );
    assert_eq!(bandwidths(&mut resolver), of(&first));

    // A second service with the load balancer's address adds its endpoints …
    let more = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "clusterIP": "10.96.0.8"});
    put(&mut resolver, service("more", more.clone()));
    put(&mut resolver, slice("more", "IPv4", "me"));
    let second = [
        ("10.96.0.7/32", Some(200)),
        ("10.96.0.8/32", Some(100)),
        ("80.0.0.9/32", Some(300)),
        ("fd00:96::7/128", Some(100)),
    ];
    assert_eq!(bandwidths(&mut resolver), of(&second));
    // … but one that every node announces says nothing about this node's share.
    put(
        &mut resolver,
        default(json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "serviceLoadBalancerIPs": [{"cidr": "80.0.0.9/32"}]})),
    );
    let mut everywhere = more;
    everywhere["externalTrafficPolicy"] = "Cluster".into();
    put(&mut resolver, service("more", everywhere));
    let found = bandwidths(&mut resolver);
    assert!(found.contains(&("80.0.0.9/32".to_owned(), None)), "{found:?}");

    // Without a ready endpoint there is no announcement.
    endpoints["endpoints"] = json!([{"nodeName": "me", "conditions": {"ready": false}}]);
    put(&mut resolver, endpoints);
    let found = bandwidths(&mut resolver);
    assert!(found.iter().all(|(prefix, _)| prefix != "10.96.0.7/32"), "{found:?}");
}

/// As BIRD announces them, unless asked.
#[test]
fn addresses_ask_for_no_share_by_default() {
    let mut resolver =
        cluster(vec![default(json!({"serviceLoadBalancerIPs": [{"cidr": "80.0.0.0/24"}]}))]);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "clusterIP": "10.96.0.7"});
    put(&mut resolver, service("web", local));
    put(&mut resolver, slice("web", "IPv4", "me"));
    assert_eq!(bandwidths(&mut resolver), [("80.0.0.9/32".to_owned(), None)]);
    let json = serde_json::to_value(resolver.plan()).unwrap();
    assert!(!json.to_string().contains("\"bandwidth\""), "{json}");
}

/// Only the route of the address changes: no session is touched, no policy is made again.
#[test]
fn a_changed_number_of_endpoints_touches_no_session() {
    let mut settings = Settings::new("me");
    settings.endpoint_weights = crate::config::EndpointWeights::Transitive;
    let mut resolver = Resolver::new(settings);
    let ranges = json!({"serviceLoadBalancerIPs": [{"cidr": "80.0.0.0/24"}]});
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "clusterIP": "10.96.0.7"});
    for object in [
        node("me", "10.0.0.1/24", json!({}), json!({})),
        node("b", "10.0.0.2/24", json!({}), json!({})),
        default(ranges),
        service("web", local),
        slice("web", "IPv4", "me"),
    ] {
        put(&mut resolver, object);
    }
    let before = resolver.plan();
    resolver.take_touched();
    let mut two = slice("web", "IPv4", "me");
    two["endpoints"] = json!([{"nodeName": "me"}, {"nodeName": "me"}]);
    put(&mut resolver, two);
    let after = resolver.plan();
    assert_eq!(resolver.take_touched(), Touched::default());
    assert!(Arc::ptr_eq(&before.families.ipv4.sessions, &after.families.ipv4.sessions));
    assert_ne!(before.families.ipv4.statics, after.families.ipv4.statics);
}

proptest! {
    /// Whatever changes of the endpoints, one plan after the other is that of the present objects.
    #[test]
    fn plans_follow_the_endpoints(
        changes in prop::collection::vec((0usize..5, 0usize..4, 0usize..3, 0usize..2, any::<bool>()), 1..25),
    ) {
        let mut settings = Settings::new("me");
        settings.endpoint_weights = crate::config::EndpointWeights::Transitive;
        let mut resolver = Resolver::new(settings.clone());
        let ranges = json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
            "serviceLoadBalancerIPs": [{"cidr": "80.0.0.9/32"}]});
        put(&mut resolver, node("me", "10.0.0.1/24", json!({}), json!({})));
        put(&mut resolver, default(ranges));
        // All have the load balancer's address; every node announces the last one.
        for number in 0..4 {
            let policy = if number == 3 { "Cluster" } else { "Local" };
            let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": policy,
                "clusterIP": format!("10.96.0.{number}"), "ipFamilies": ["IPv4", "IPv6"]});
            put(&mut resolver, service(&format!("s{number}"), spec));
        }
        for (slice, service, here, elsewhere, is_v6) in changes {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            let nodes = ["me"].repeat(here).into_iter().chain(["b"].repeat(elsewhere));
            let endpoints: Vec<Value> = nodes.map(|node| json!({"nodeName": node})).collect();
            let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "addressType": family, "endpoints": endpoints,
                "metadata": {"name": format!("slice-{slice}"), "namespace": "ns",
                    "labels": {"kubernetes.io/service-name": format!("s{service}")}}});
            let decoded = decode(object).unwrap().unwrap();
            if here == 2 && elsewhere == 1 {
                resolver.withdraw(&decoded.id);
            } else {
                resolver.apply(decoded);
            }
            prop_assert_eq!(resolver.plan(), resolve(resolver.snapshot(), &settings));
        }
    }
}
