//! Nodes: Calico's own, and Kubernetes' with Calico's annotations.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bgp_proto::types::{Asn, Family, Prefix};
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, read, value};
use crate::calico::selector::Labels;

/// The label that keeps a node from advertising services.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The annotation by which a node is drained; its value is the reason. Without effect if it is
/// empty or `false`.
pub const DRAIN_ANNOTATION: &str = "margay/drain";

/// The properties of a node that BGP uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Labels, for selectors.
    pub labels: Labels,
    /// Its own AS number; `None`: the cluster's.
    pub asn: Option<Asn>,
    /// IPv4 address and network.
    pub ipv4: Option<value::HostNetwork>,
    /// IPv6 address and network.
    pub ipv6: Option<value::HostNetwork>,
    /// Route reflector cluster id as written; empty: not a reflector.
    pub cluster_id: Arc<str>,
    /// WireGuard runs for IPv4.
    pub wireguard_ipv4: bool,
    /// WireGuard runs for IPv6.
    pub wireguard_ipv6: bool,
    /// WireGuard runs under host-local IPAM: the node has a key and a pod CIDR, whose first address
    /// the interface takes. IPv4 only.
    pub wireguard_pod_cidr: bool,
    /// Its share of the pod network under host-local IPAM.
    pub pod_cidrs: Vec<Prefix>,
    /// The reason in [`DRAIN_ANNOTATION`].
    pub drain: Option<Arc<str>>,
    /// Whether it is cordoned (`spec.unschedulable`).
    pub is_cordoned: bool,
    /// Notes on fields that Calico does not have.
    pub unknown: Vec<Box<str>>,
}

impl Node {
    /// The address of the family.
    pub fn address(&self, family: Family) -> Option<&value::HostNetwork> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// Whether WireGuard runs for the family.
    pub fn has_wireguard(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.wireguard_ipv4,
            Family::Ipv6 => self.wireguard_ipv6,
        }
    }

    /// As [`Node::has_wireguard`], where the blocks are the node's pod CIDRs (`USE_POD_CIDR`).
    pub fn has_pod_cidr_wireguard(&self, family: Family) -> bool {
        family == Family::Ipv4 && self.wireguard_pod_cidr
    }

    /// Whether the node reflects routes.
    pub fn is_reflector(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// Whether the node must not advertise services.
    pub fn is_excluded_from_services(&self) -> bool {
        self.labels.get(EXCLUDE_LABEL).is_some_and(|v| v == "true")
    }

    /// The Calico node merged with the Kubernetes node of the same name: the latter's labels win,
    /// and its pod CIDRs are used, which Calico does not assign.
    pub fn merged_with(&self, kubernetes: &Node) -> Node {
        let mut node = self.clone();
        if !kubernetes.pod_cidrs.is_empty() {
            node.pod_cidrs.clone_from(&kubernetes.pod_cidrs);
        }
        node.labels.extend(kubernetes.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        node.drain = node.drain.or_else(|| kubernetes.drain.clone());
        node.is_cordoned |= kubernetes.is_cordoned;
        node
    }
}

fn drain(annotations: &Labels) -> Option<Arc<str>> {
    let reason = annotations.get(DRAIN_ANNOTATION)?.trim();
    (!matches!(reason, "" | "false")).then(|| reason.into())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    bgp: Option<Bgp>,
    wireguard: Wireguard,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bgp {
    #[serde(rename = "asNumber", deserialize_with = "value::asn")]
    asn: Option<Asn>,
    #[serde(rename = "ipv4Address")]
    ipv4: String,
    #[serde(rename = "ipv6Address")]
    ipv6: String,
    #[serde(rename = "routeReflectorClusterID")]
    cluster_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wireguard {
    #[serde(rename = "interfaceIPv4Address")]
    ipv4: String,
    #[serde(rename = "interfaceIPv6Address")]
    ipv6: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

/// A `projectcalico.org/v3` Node.
pub(super) fn read_calico(
    name: &str,
    labels: Labels,
    annotations: &Labels,
    object: &Value,
) -> Result<Node, Fault> {
    let spec: Spec = read(object, "spec")?;
    let status: Status = read(object, "status")?;
    let bgp = spec.bgp.unwrap_or_default();
    Ok(Node {
        name: name.into(),
        labels,
        asn: bgp.asn,
        ipv4: address("spec.bgp.ipv4Address", &bgp.ipv4, Family::Ipv4)?,
        ipv6: address("spec.bgp.ipv6Address", &bgp.ipv6, Family::Ipv6)?,
        cluster_id: bgp.cluster_id.into(),
        wireguard_ipv4: !spec.wireguard.ipv4.is_empty(),
        wireguard_ipv6: !spec.wireguard.ipv6.is_empty(),
        wireguard_pod_cidr: false,
        pod_cidrs: status.pod_cidrs.iter().filter_map(|c| value::masked(c)).collect(),
        drain: drain(annotations),
        is_cordoned: false,
        unknown: super::fields::of_node(object),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KubernetesSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    unschedulable: bool,
}

/// A core/v1 Node, with Calico's fields in annotations. As in Calico, an annotation that cannot be
/// read counts as absent and does not affect the others.
pub(super) fn read_kubernetes(
    name: &str,
    mut labels: Labels,
    annotations: &Labels,
    object: &Value,
) -> Result<Node, Fault> {
    let annotation = |key: &str| {
        annotations.get(&format!("projectcalico.org/{key}")).map(String::as_str).unwrap_or_default()
    };
    let extra = value::labels(&mut serde_json::Deserializer::from_str(annotation("labels")));
    for (key, value) in extra.into_iter().flatten() {
        labels.entry(key).or_insert(value);
    }
    let address = |key: &str, family| address(key, annotation(key), family).ok().flatten();
    let cluster_id = annotation("RouteReflectorClusterID");
    let spec: KubernetesSpec = read(object, "spec")?;
    let has_key = !annotation("WireguardPublicKey").is_empty();
    let wireguard_pod_cidr = has_key && !spec.pod_cidr.is_empty();
    let pod_cidrs = if spec.pod_cidrs.is_empty() { vec![spec.pod_cidr] } else { spec.pod_cidrs };
    Ok(Node {
        name: name.into(),
        labels,
        asn: annotation("ASNumber").parse().ok(),
        ipv4: address("IPv4Address", Family::Ipv4),
        ipv6: address("IPv6Address", Family::Ipv6),
        cluster_id: if cluster_id.parse::<Ipv4Addr>().is_ok() { cluster_id } else { "" }.into(),
        wireguard_ipv4: !annotation("IPv4WireguardInterfaceAddr").is_empty(),
        wireguard_ipv6: !annotation("IPv6WireguardInterfaceAddr").is_empty(),
        wireguard_pod_cidr,
        pod_cidrs: pod_cidrs.iter().filter_map(|c| value::masked(c)).collect(),
        drain: drain(annotations),
        is_cordoned: spec.unschedulable,
        // Annotations of other programs are not misspelt ones of Calico's.
        unknown: Vec::new(),
    })
}

fn address(field: &str, text: &str, family: Family) -> Result<Option<value::HostNetwork>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    match value::HostNetwork::parse(text) {
        Some(host) if host.network.family() == family => Ok(Some(host)),
        _ => Err(Fault::new(format!("{field}: \"{text}\" is not an address of {family}"))),
    }
}
