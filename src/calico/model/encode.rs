//! Encodes objects to the JSON that [`super::decode`] reads; only the fields that BGP uses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::types::Prefix;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    AffinityState, DRAIN_ANNOTATION, Encapsulation, EndpointSlice, Kind, Node, Object, ObjectId,
    Secret, Service, value,
};

const CALICO: &str = "projectcalico.org/v3";

/// The JSON that decodes to the object; `None` for local endpoints, which exist only in Felix's
/// files.
///
/// The notes on unknown fields are lost.
pub fn encode(id: &ObjectId, object: &Object) -> Option<Value> {
    let calico = |kind: &str, spec: Value| of_calico(id, kind, spec);
    Some(match object {
        Object::Node(node) if id.kind == Kind::KubernetesNode => kubernetes_node(id, node),
        Object::Node(node) => calico_node(id, node),
        Object::BgpConfiguration(object) => calico("BGPConfiguration", spec(object)),
        Object::BgpPeer(object) => calico("BGPPeer", spec(object)),
        Object::BgpFilter(object) => calico("BGPFilter", spec(object)),
        Object::IpPool(pool) => {
            let (ipip, vxlan) = match pool.encapsulation {
                Encapsulation::None => ("Never", "Never"),
                Encapsulation::IpipAlways => ("Always", "Never"),
                Encapsulation::IpipCrossSubnet => ("CrossSubnet", "Never"),
                Encapsulation::Vxlan => ("Never", "Always"),
            };
            let spec = json!({"cidr": pool.cidr, "ipipMode": ipip, "vxlanMode": vxlan,
                              "disableBGPExport": pool.disable_bgp_export});
            calico("IPPool", spec)
        }
        Object::BlockAffinity(block) => {
            let state = match block.state {
                AffinityState::Confirmed => "confirmed",
                AffinityState::Pending => "pending",
                AffinityState::PendingDeletion => "pendingDeletion",
            };
            let spec = json!({"node": block.node, "cidr": block.cidr, "state": state});
            calico("BlockAffinity", spec)
        }
        Object::ClusterInformation(object) => {
            let spec = json!({"calicoVersion": object.version, "variant": object.variant});
            calico("ClusterInformation", spec)
        }
        Object::FelixConfiguration(object) => {
            let spec = json!({"programClusterRoutes": object.program_cluster_routes});
            calico("FelixConfiguration", spec)
        }
        Object::Secret(secret) => encode_secret(id, secret),
        Object::Service(service) => encode_service(id, service),
        Object::EndpointSlice(slice) => encode_slice(id, slice),
        Object::LocalEndpoint(_) => return None,
    })
}

/// Never fails: all of these types have text keys.
fn spec(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn metadata(id: &ObjectId) -> Value {
    match id.namespace.as_str() {
        "" => json!({"name": id.name}),
        namespace => json!({"name": id.name, "namespace": namespace}),
    }
}

fn of_calico(id: &ObjectId, kind: &str, spec: Value) -> Value {
    json!({"kind": kind, "apiVersion": CALICO, "metadata": metadata(id), "spec": spec})
}

fn host(host: &value::HostNetwork) -> Value {
    format!("{}/{}", host.addr, host.network.len()).into()
}

fn texts(prefixes: &[Prefix]) -> Value {
    prefixes.iter().map(Prefix::to_string).collect()
}

fn calico_node(id: &ObjectId, node: &Node) -> Value {
    let mut bgp = Map::new();
    let mut wireguard = Map::new();
    bgp.extend(node.asn.map(|asn| ("asNumber".to_owned(), asn.0.into())));
    bgp.extend(node.ipv4.as_ref().map(|h| ("ipv4Address".to_owned(), host(h))));
    bgp.extend(node.ipv6.as_ref().map(|h| ("ipv6Address".to_owned(), host(h))));
    bgp.insert("routeReflectorClusterID".to_owned(), (*node.cluster_id).into());
    for (runs, field) in [
        (node.wireguard_ipv4, "interfaceIPv4Address"),
        (node.wireguard_ipv6, "interfaceIPv6Address"),
    ] {
        if runs {
            wireguard.insert(field.to_owned(), "yes".into());
        }
    }
    let mut metadata = metadata(id);
    metadata["labels"] = json!(node.labels);
    if let Some(reason) = &node.drain {
        metadata["annotations"] = json!({ DRAIN_ANNOTATION: reason });
    }
    json!({"kind": "Node", "apiVersion": CALICO, "metadata": metadata,
           "spec": {"bgp": bgp, "wireguard": wireguard},
           "status": {"podCIDRs": texts(&node.pod_cidrs)}})
}

fn kubernetes_node(id: &ObjectId, node: &Node) -> Value {
    let mut annotations = Map::new();
    let mut annotate = |key: &str, value: Option<Value>| {
        annotations.extend(value.map(|value| (format!("projectcalico.org/{key}"), value)));
    };
    let yes = |runs: bool| runs.then(|| Value::from("yes"));
    annotate("ASNumber", node.asn.map(|asn| asn.0.to_string().into()));
    annotate("IPv4Address", node.ipv4.as_ref().map(host));
    annotate("IPv6Address", node.ipv6.as_ref().map(host));
    annotate("RouteReflectorClusterID", Some((*node.cluster_id).into()));
    annotate("IPv4WireguardInterfaceAddr", yes(node.wireguard_ipv4));
    annotate("IPv6WireguardInterfaceAddr", yes(node.wireguard_ipv6));
    annotate("WireguardPublicKey", yes(node.wireguard_pod_cidr));
    let drain = node.drain.as_deref().map(|reason| (DRAIN_ANNOTATION.to_owned(), reason.into()));
    annotations.extend(drain);
    let mut metadata = metadata(id);
    metadata["labels"] = json!(node.labels);
    metadata["annotations"] = annotations.into();
    let pod_cidr = if node.wireguard_pod_cidr { "given" } else { "" };
    json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata,
           "spec": {"podCIDR": pod_cidr, "podCIDRs": texts(&node.pod_cidrs),
                    "unschedulable": node.is_cordoned}})
}

fn encode_secret(id: &ObjectId, secret: &Secret) -> Value {
    let data: Map<String, Value> =
        secret.iter().map(|(key, octets)| (key.clone(), STANDARD.encode(octets).into())).collect();
    json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata(id), "data": data})
}

fn encode_service(id: &ObjectId, service: &Service) -> Value {
    let ingress: Vec<Value> = service.ingress.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata(id),
           "spec": {"type": service.kind, "clusterIP": service.cluster_ip,
                    "clusterIPs": service.cluster_ips, "ipFamilies": service.ip_families,
                    "externalIPs": service.external_ips,
                    "loadBalancerIP": service.load_balancer_ip,
                    "externalTrafficPolicy": service.external_traffic_policy},
           "status": {"loadBalancer": {"ingress": ingress}}})
}

fn encode_slice(id: &ObjectId, slice: &EndpointSlice) -> Value {
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|e| json!({"nodeName": e.node, "conditions": {"ready": e.is_ready}}))
        .collect();
    let mut metadata = metadata(id);
    metadata["labels"] = json!({"kubernetes.io/service-name": slice.service.1});
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata,
           "addressType": slice.address_type, "endpoints": endpoints})
}
