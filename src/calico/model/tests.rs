use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::calico::yaml;

fn decoded(text: &str) -> Decoded {
    let mut documents = yaml::documents(text).unwrap();
    decode(documents.remove(0)).unwrap().unwrap()
}

fn node(text: &str) -> Arc<Node> {
    match decoded(text).object.unwrap().unwrap() {
        Object::Node(node) => node,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_calico_node() {
    let node = node(
        r#"{"kind":"Node","apiVersion":"projectcalico.org/v3",
        "metadata":{"name":"kube-master","uid":"6a0c","labels":{"rack":"r1","rr":true}},
        "spec":{"bgp":{"asNumber":"1.10","ipv4Address":"10.24.0.2/24","ipv6Address":"2001::103",
            "routeReflectorClusterID":"244.0.0.1"},
         "orchRefs":[{"nodeName":"x"}],"wireguard":{"interfaceIPv4Address":"10.65.1.3"}},
        "status":{"podCIDRs":["10.244.1.0/24"]}}"#,
    );
    assert_eq!(&*node.name, "kube-master");
    assert_eq!(node.asn, Some("1.10".parse().unwrap()));
    assert_eq!(&*node.ipv4.as_ref().unwrap().text, "10.24.0.2");
    assert_eq!(node.ipv6.as_ref().unwrap().network.len(), 128);
    assert_eq!(node.labels["rr"], "true");
    assert!(node.is_reflector() && node.wireguard_ipv4 && !node.wireguard_ipv6);
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
}

#[test]
fn a_kubernetes_node_with_annotations() {
    let text = r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1",
        "labels":{"a":"core"},"annotations":{
        "projectcalico.org/IPv4Address":"10.0.0.1/24","projectcalico.org/ASNumber":"64513",
        "projectcalico.org/RouteReflectorClusterID":"not-an-id",
        "projectcalico.org/labels":"{\"a\":\"calico\",\"b\":\"calico\",\"c\":true}"}},
        "spec":{"podCIDR":"10.1.0.0/24"}}"#;
    let node = node(text);
    assert_eq!(
        node.labels,
        [("a", "core"), ("b", "calico"), ("c", "true")].map(|(k, v)| (k.into(), v.into())).into()
    );
    assert!(!node.is_reflector(), "only an IPv4-shaped cluster id counts here");
    assert_eq!(node.asn, Some(bgp_proto::types::Asn(64513)));
    assert_eq!(node.pod_cidrs, ["10.1.0.0/24".parse().unwrap()]);
}

/// One that cannot be read counts as absent, as in Calico, and does not affect the others.
#[test]
fn annotations_of_a_kubernetes_node_are_read_independently() {
    let good = [
        ("IPv4Address", "10.0.0.1/24"),
        ("IPv6Address", "fd00::1/64"),
        ("ASNumber", "64513"),
        ("RouteReflectorClusterID", "1.0.0.1"),
        ("labels", "{\"b\":\"calico\"}"),
        ("IPv4WireguardInterfaceAddr", "10.1.0.1"),
        ("WireguardPublicKey", "k"),
    ];
    let read = |changed: &str, value: Option<&str>| {
        let mut annotations = serde_json::Map::new();
        for (key, text) in good {
            let text = if key == changed { value } else { Some(text) };
            annotations.extend(text.map(|t| (format!("projectcalico.org/{key}"), t.into())));
        }
        let object = json!({"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "n", "labels": {"a": "core"}, "annotations": annotations},
            "spec": {"podCIDR": "10.1.0.0/24"}});
        match decode(object).unwrap().unwrap().object.unwrap().unwrap() {
            Object::Node(node) => node,
            other => panic!("{other:?}"),
        }
    };
    let all = read("", None);
    assert!(
        all.ipv4.is_some() && all.ipv6.is_some() && all.asn == Some(bgp_proto::types::Asn(64513))
    );
    assert!(all.is_reflector() && all.wireguard_ipv4 && all.wireguard_pod_cidr);
    assert_eq!((&*all.labels["a"], &*all.labels["b"]), ("core", "calico"));
    for (key, bad) in [
        ("IPv4Address", "10.0.0.300/24"),
        ("IPv4Address", "fd00::1/64"),
        ("IPv6Address", "10.0.0.1/24"),
        ("IPv6Address", "x"),
        ("ASNumber", "x"),
        ("ASNumber", "-1"),
        ("ASNumber", "4294967296"),
        ("ASNumber", "64513 "),
        ("RouteReflectorClusterID", "1.0.0"),
        ("labels", "{"),
        ("labels", "[\"b\"]"),
    ] {
        let (node, without) = (read(key, Some(bad)), read(key, None));
        assert_eq!(node, without, "{key} {bad}");
        assert_ne!(node, all, "{key} is read if it is valid");
    }
    assert_eq!(read("ASNumber", Some("x")).asn, None, "the cluster's is used");
}

#[test]
fn a_fault_names_the_object_and_the_place() {
    let bad = decoded(
        "kind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {name: tor-1}\n\
         spec: {peerIP: 10.0.0.1, asNumber: -5}\n",
    );
    assert_eq!(bad.id.to_string(), "BGPPeer/tor-1");
    assert!(bad.object.unwrap_err().to_string().contains("spec.asNumber"));
    let bad = decoded(
        "kind: Node\napiVersion: projectcalico.org/v3\nmetadata: {name: n}\n\
         spec: {bgp: {ipv4Address: 10.0.0.300/24}}\n",
    );
    assert!(bad.object.unwrap_err().to_string().contains("10.0.0.300"));
}

#[test]
fn nulls_count_as_absent_and_unknown_fields_are_ignored() {
    let peer = decoded(
        "kind: BGPPeer\napiVersion: crd.projectcalico.org/v1\nmetadata: {name: a, labels: null}\n\
         spec: {peerIP: 10.0.0.1, asNumber: 64512, filters: null, password: null, future: {x: 1}}\n",
    );
    assert!(peer.object.is_ok(), "{peer:?}");
}

#[test]
fn kinds_that_bgp_does_not_read_are_ignored() {
    for (kind, version) in
        [("Pod", "v1"), ("NetworkPolicy", "projectcalico.org/v3"), ("BGPPeer", "other/v1")]
    {
        let object = json!({"kind": kind, "apiVersion": version, "metadata": {"name": "x"}});
        assert_eq!(decode(object).unwrap(), None, "{kind}");
    }
    assert!(decode(json!({"metadata": {"name": "x"}})).is_err());
    assert!(decode(json!([1])).is_err());
    assert!(decode(json!({"kind": "Node", "apiVersion": "v1", "metadata": 5})).is_err());
}

/// Read as objects without fields, they would enable the mesh, or end the session with a node.
#[test]
fn json_that_is_not_an_object_is_a_fault() {
    let resource = |plural: &str| format!("/calico/resources/v3/projectcalico.org/{plural}/x");
    let mut keys =
        ["nodes", "bgpconfigurations", "bgppeers", "bgpfilters", "ippools"].map(resource).to_vec();
    keys.push("/calico/ipam/v2/host/n1/ipv4/block/10.65.1.0-26".into());
    for value in ["null", "5", "true", "\"x\"", "[]", "[\"confirmed\"]", "[{\"spec\":{}}]"] {
        for key in &keys {
            let decoded = decode_etcd(key, value.as_bytes()).unwrap();
            let fault = decoded.object.unwrap_err().to_string();
            assert_eq!(fault, "the value is not a JSON object", "{key} {value}");
        }
        assert!(decode_endpoint("f", value.as_bytes()).object.is_err(), "{value}");
    }
}

#[test]
fn etcd_keys_and_values() {
    let key = "/calico/ipam/v2/host/n1/ipv4/block/10.65.1.0-26";
    let read = |value: &str| decode_etcd(key, value.as_bytes()).unwrap().object;
    let affinity = |state| {
        let cidr = "10.65.1.0/26".parse().unwrap();
        let affinity = BlockAffinity { node: "n1".into(), cidr, state };
        Ok(Some(Object::BlockAffinity(Arc::new(affinity))))
    };
    assert_eq!(
        read(r#"{"state":"confirmed","deleted":false}"#),
        affinity(AffinityState::Confirmed)
    );
    assert_eq!(read(""), affinity(AffinityState::Confirmed));
    assert_eq!(read("{}"), affinity(AffinityState::Confirmed));
    assert_eq!(read(r#"{"state":"pending"}"#), affinity(AffinityState::Pending));
    assert_eq!(read(r#"{"state":"pendingDeletion"}"#), affinity(AffinityState::PendingDeletion));
    // The block is the node's until the key is gone, as for confd.
    assert_eq!(read(r#"{"state":"confirmed","deleted":true}"#), affinity(AffinityState::Confirmed));
    assert!(read("{").is_err() && read(r#"{"state":"new"}"#).is_err());

    let id = |key: &str| etcd_object(key).map(|id| id.to_string());
    let six = id("/calico/ipam/v2/host/n1/ipv6/block/fd00:10:65::-122").unwrap();
    assert_eq!(six, "BlockAffinity/n1/fd00:10:65::/122");
    assert_eq!(id("/calico/resources/v3/projectcalico.org/bgppeers/tor").unwrap(), "BGPPeer/tor");
    for unused in [
        "/calico/ipam/v2/host/n1",
        "/calico/ipam/v2/virtual/lb/ipv4/block/10.0.0.0-26",
        "/calico/ipam/v2/host/n1/ipv4/block/fd00::-122",
        "/calico/ipam/v2/host/n1/ipv4/block/10.0.0.0-33",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26",
        "/calico/resources/v3/projectcalico.org/nodes/",
        "/calico/resources/v3/projectcalico.org/networkpolicies/default",
        "/calico/v1/Ready",
        "",
    ] {
        assert_eq!(id(unused), None, "{unused}");
    }
}

#[test]
fn block_affinity_resources() {
    let read = |spec: &str| {
        decoded(&format!(
            "kind: BlockAffinity\napiVersion: crd.projectcalico.org/v1\nmetadata: {{name: a}}\n\
             spec: {{node: n1, cidr: 10.0.0.0/26, {spec}}}\n"
        ))
        .object
        .unwrap()
    };
    assert!(read("state: confirmed, deleted: 'false'").is_some());
    assert!(read("state: '', type: host").is_some());
    assert!(read("state: confirmed, deleted: 'true'").is_none());
    assert!(read("state: confirmed, deleted: true").is_none());
    assert!(read("state: confirmed, type: virtual").is_none());
}

#[test]
fn secrets_hold_octets_and_never_show_them() {
    let secret = decoded(
        "kind: Secret\napiVersion: v1\nmetadata: {name: s, namespace: kube-system}\n\
         data: {a: cGFzcw==}\nstringData: {b: 12}\n",
    );
    assert_eq!(secret.id.to_string(), "Secret/kube-system/s");
    let Object::Secret(secret) = secret.object.unwrap().unwrap() else { panic!() };
    assert_eq!((secret.get("a"), secret.get("b")), (Some(&b"pass"[..]), Some(&b"12"[..])));
    assert!(!format!("{secret:?}").contains("112"));
    let bad = decoded("kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: {a: 'geheim!'}\n");
    assert!(!bad.object.unwrap_err().to_string().contains("geheim"));
}

#[test]
fn services_from_files_get_what_an_api_server_would_fill_in() {
    let read = |spec: &str| {
        let text =
            format!("kind: Service\napiVersion: v1\nmetadata: {{name: s}}\nspec: {{{spec}}}\n");
        match decoded(&text).object.unwrap().unwrap() {
            Object::Service(service) => service,
            other => panic!("{other:?}"),
        }
    };
    let plain = read("clusterIP: 10.96.0.1");
    assert_eq!(
        (plain.kind.as_str(), &plain.cluster_ips[..]),
        ("ClusterIP", &["10.96.0.1".into()][..])
    );
    assert_eq!(plain.ip_families, ["IPv4"]);
    assert_eq!(plain.external_traffic_policy, "");
    let balanced = read("type: LoadBalancer, clusterIPs: ['fd00::1', 10.96.0.1]");
    assert_eq!(balanced.cluster_ip, "fd00::1");
    assert_eq!(balanced.ip_families, ["IPv6", "IPv4"]);
    assert_eq!(balanced.external_traffic_policy, "Cluster");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[-a-z0-9./: ]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("cidr"),
            Just("bgp"),
            Just("asNumber"),
            Just("exportV4"),
            Just("password"),
            Just("ipv4Address"),
            Just("labels"),
            Just("peerIP"),
            Just("name"),
            Just("communities"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn garbage_of_every_kind_is_read_or_refused(
        kind in prop_oneof![
            Just(("Node", "projectcalico.org/v3")), Just(("Node", "v1")),
            Just(("BGPConfiguration", "projectcalico.org/v3")),
            Just(("BGPPeer", "projectcalico.org/v3")), Just(("BGPFilter", "projectcalico.org/v3")),
            Just(("IPPool", "projectcalico.org/v3")),
            Just(("BlockAffinity", "projectcalico.org/v3")), Just(("Secret", "v1")),
            Just(("Service", "v1")), Just(("EndpointSlice", "discovery.k8s.io/v1")),
        ],
        spec in any_json(), metadata in any_json(), status in any_json(),
    ) {
        let named = json!({"name": "x"});
        for metadata in [&metadata, &named] {
            let _ = decode(json!({
                "kind": kind.0, "apiVersion": kind.1, "metadata": metadata, "spec": spec,
                "status": status, "data": spec, "endpoints": spec,
            }));
        }
        let _ = decode_endpoint("f", spec.to_string().as_bytes());
        let _ = decode_etcd("/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-26", spec.to_string().as_bytes());
    }

    #[test]
    fn any_etcd_key_is_read_or_passed_over(key in "(/calico/(ipam/v2/host|resources/v3/projectcalico.org))?[-/a-z0-9.:]{0,30}") {
        let _ = decode_etcd(&key, b"{}");
    }
}

/// What is stored on disk decodes to the object that was read.
#[test]
fn objects_are_written_as_they_are_read() {
    let objects = [
        json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": "n", "labels": {"rack": "a"}},
               "spec": {"bgp": {"asNumber": "65000.1", "ipv4Address": "10.0.0.1/24",
                                "ipv6Address": "fd00::1", "routeReflectorClusterID": "1.0.0.1"},
                        "wireguard": {"interfaceIPv4Address": "10.1.1.1"}},
               "status": {"podCIDRs": ["10.2.0.0/24"]}}),
        json!({"kind": "Node", "apiVersion": "v1",
               "metadata": {"name": "n", "labels": {"a": "b"},
                            "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24",
                                            "projectcalico.org/ASNumber": "65001",
                                            "projectcalico.org/labels": "{\"c\":\"d\"}",
                                            "projectcalico.org/WireguardPublicKey": "k"}},
               "spec": {"podCIDR": "10.2.0.0/24"}}),
        json!({"kind": "BGPConfiguration", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": "default"},
               "spec": {"asNumber": 64600, "nodeToNodeMeshEnabled": false, "listenPort": 1790,
                        "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
                        "communities": [{"name": "n", "value": "1:2"}],
                        "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["n"]}],
                        "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}},
                        "nodeMeshMaxRestartTime": "90s", "ignoredInterfaces": ["x*"],
                        "programClusterRoutes": "Enabled", "ipv4NormalRoutePriority": 900}}),
        json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p"},
               "spec": {"nodeSelector": "rack == 'a'", "peerIP": "10.0.0.9:1790",
                        "asNumber": "1.10", "localASNumber": 65100, "filters": ["f"],
                        "password": {"secretKeyRef": {"name": "s", "key": "k"}},
                        "maxRestartTime": "2m", "keepaliveTime": "10s", "ttlSecurity": 1,
                        "nextHopMode": "Auto", "numAllowedLocalASNumbers": 2}}),
        json!({"kind": "BGPFilter", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "f"},
               "spec": {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8",
                   "matchOperator": "In", "prefixLength": {"min": 20}, "source": "RemotePeers",
                   "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["1:2"]},
                   "asPathPrefix": [1, 2], "priority": 512,
                   "operations": [{"addCommunity": {"value": "1:2:3"}},
                                  {"prependASPath": {"prefix": [7]}},
                                  {"setPriority": {"value": 5}}]}],
                        "importV6": [{"action": "Reject"}]}}),
        json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "a"},
               "spec": {"cidr": "10.65.0.0/16", "ipipMode": "CrossSubnet"}}),
        json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "b"},
               "spec": {"cidr": "fd00::/48", "vxlanMode": "Always", "disableBGPExport": true}}),
        json!({"kind": "BlockAffinity", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": "n-block"},
               "spec": {"node": "n", "cidr": "10.65.1.0/26", "state": "pendingDeletion"}}),
        json!({"kind": "Secret", "apiVersion": "v1",
               "metadata": {"name": "s", "namespace": "kube-system"},
               "stringData": {"k": "key"}}),
        json!({"kind": "Service", "apiVersion": "v1",
               "metadata": {"name": "web", "namespace": "ns"},
               "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1",
                        "externalIPs": ["70.0.0.1"], "loadBalancerIP": "80.0.0.1"},
               "status": {"loadBalancer": {"ingress": [{"ip": "80.0.0.1"}]}}}),
        json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
               "addressType": "IPv4",
               "metadata": {"name": "web-1", "namespace": "ns",
                            "labels": {"kubernetes.io/service-name": "web"}},
               "endpoints": [{"nodeName": "n", "conditions": {"ready": false}}, {}]}),
        json!({"kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": "default"}, "spec": {"calicoVersion": "v3.32.1"}}),
        json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3",
               "metadata": {"name": "default"}, "spec": {"programClusterRoutes": "Enabled"}}),
    ];
    for value in objects {
        let read = decode(value).unwrap().unwrap();
        let object = read.object.clone().unwrap().unwrap();
        let written = encode(&read.id, &object).unwrap();
        assert_eq!(decode(written.clone()).unwrap().unwrap(), read, "{written}");
    }
}
