//! Secrets, Services and EndpointSlices, and Felix's files about local workloads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, value};

/// A Secret: the octets under each key. `Debug` shows keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    values: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// All keys, with the octets under them.
    pub(in crate::calico) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.values.iter()
    }

    /// The octets under a key, untrimmed.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }
}

impl FromIterator<(String, Vec<u8>)> for Secret {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(values: I) -> Self {
        Secret { values: values.into_iter().collect() }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Secret").field(&self.values.keys().collect::<Vec<_>>()).finish()
    }
}

pub(super) fn read_secret(object: &Value) -> Result<Secret, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Fields {
        data: BTreeMap<String, String>,
        #[serde(deserialize_with = "value::labels")]
        string_data: BTreeMap<String, String>,
    }
    // Serde's own message would quote the secret value.
    let fields: Fields = Fields::deserialize(object)
        .map_err(|_| Fault::new("data or stringData is not a map of text".to_owned()))?;
    let mut values = BTreeMap::new();
    for (key, encoded) in fields.data {
        let octets = STANDARD
            .decode(encoded.split_ascii_whitespace().collect::<String>())
            .map_err(|_| Fault::new(format!("data.{key} is not base64")))?;
        values.insert(key, octets);
    }
    values.extend(fields.string_data.into_iter().map(|(key, text)| (key, text.into_bytes())));
    Ok(Secret { values })
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    pub kind: String,
    /// The cluster address; empty or `None` for headless services.
    pub cluster_ip: String,
    /// All cluster addresses.
    pub cluster_ips: Vec<String>,
    /// `IPv4` and `IPv6`.
    pub ip_families: Vec<String>,
    /// `externalIPs`: addresses that are routed to the cluster from outside.
    pub external_ips: Vec<String>,
    /// The address requested from a load balancer.
    pub load_balancer_ip: String,
    /// Addresses that a load balancer assigned.
    pub ingress: Vec<String>,
    /// Cluster or Local.
    pub external_traffic_policy: String,
}

pub(super) fn read_service(object: &Value) -> Result<Service, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        r#type: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        ip_families: Vec<String>,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: String,
        external_traffic_policy: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        load_balancer: LoadBalancer,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct LoadBalancer {
        ingress: Vec<Ingress>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Ingress {
        ip: String,
    }
    let spec: Spec = super::read(object, "spec")?;
    let status: Status = super::read(object, "status")?;
    // An object from a file lacks the defaults that an API server would fill in.
    let kind = if spec.r#type.is_empty() { "ClusterIP".to_owned() } else { spec.r#type };
    let mut cluster_ips = spec.cluster_ips;
    if cluster_ips.is_empty() && !spec.cluster_ip.is_empty() {
        cluster_ips.push(spec.cluster_ip.clone());
    }
    let cluster_ip = match cluster_ips.first() {
        Some(first) if spec.cluster_ip.is_empty() => first.clone(),
        _ => spec.cluster_ip,
    };
    let ip_families = if spec.ip_families.is_empty() {
        cluster_ips.iter().filter_map(|ip| ip.parse().ok()).map(family_name).collect()
    } else {
        spec.ip_families
    };
    let mut external_traffic_policy = spec.external_traffic_policy;
    let is_reached_from_outside = match kind.as_str() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.external_ips.is_empty(),
        _ => false,
    };
    if external_traffic_policy.is_empty() && is_reached_from_outside {
        external_traffic_policy = "Cluster".to_owned();
    }
    Ok(Service {
        kind,
        cluster_ip,
        cluster_ips,
        ip_families,
        external_ips: spec.external_ips,
        load_balancer_ip: spec.load_balancer_ip,
        ingress: status.load_balancer.ingress.into_iter().map(|i| i.ip).collect(),
        external_traffic_policy,
    })
}

fn family_name(addr: IpAddr) -> String {
    if addr.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the Service.
    pub service: (String, String),
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready; true if unknown.
    pub is_ready: bool,
}

pub(super) fn read_slice(
    namespace: &str,
    service: Option<&String>,
    object: &Value,
) -> Result<EndpointSlice, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Fields {
        address_type: String,
        endpoints: Vec<Item>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Item {
        #[serde(deserialize_with = "value::text")]
        node_name: String,
        conditions: Conditions,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Conditions {
        ready: Option<bool>,
    }
    let fields: Fields = super::deserialize("", object)?;
    let endpoints = fields
        .endpoints
        .into_iter()
        .map(|e| Endpoint { node: e.node_name, is_ready: e.conditions.ready != Some(false) })
        .collect();
    Ok(EndpointSlice {
        service: (namespace.to_owned(), service.cloned().unwrap_or_default()),
        address_type: fields.address_type,
        endpoints,
    })
}

/// A local workload, from a file that Felix writes for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Name of the BGPPeer that selects it; empty: not a peer.
    pub peer: Arc<str>,
    /// The first address of each family.
    pub addresses: Vec<IpAddr>,
}

pub(super) fn read_endpoint(object: &Value) -> Result<LocalEndpoint, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Fields {
        ipv4_nets: Vec<String>,
        ipv6_nets: Vec<String>,
        bgp_peer_name: String,
    }
    let fields: Fields = super::deserialize("", object)?;
    let mut addresses = Vec::new();
    for (list, is_ipv4) in [(&fields.ipv4_nets, true), (&fields.ipv6_nets, false)] {
        let Some(text) = list.first() else { continue };
        match value::HostNetwork::parse(text) {
            Some(host) if host.addr.is_ipv4() == is_ipv4 => addresses.push(host.addr),
            _ => return Err(Fault::new(format!("\"{text}\" is not an address of its family"))),
        }
    }
    Ok(LocalEndpoint { peer: fields.bgp_peer_name.into(), addresses })
}
