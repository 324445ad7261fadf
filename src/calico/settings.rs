//! Settings from the environment of calico-node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use bgp_proto::types::RouterId;

use super::model::Node;
use crate::config::{DrainBy, ENDPOINT_BANDWIDTH, EndpointWeights};

/// Settings from the environment of calico-node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node on which this daemon runs (`NODENAME`).
    pub node: String,
    /// `CALICO_ROUTER_ID`.
    pub router_id: RouterIdSource,
    /// `CALICO_ADVERTISE_CLUSTER_IPS`: one CIDR instead of `serviceClusterIPs`; empty: not set.
    pub advertise_cluster_ips: String,
    /// The name of this node in EndpointSlices (`CALICO_K8S_NODE_REF`). Default: `node`.
    pub kubernetes_node: String,
    /// The namespace of Secrets (`NAMESPACE`). Default: `kube-system`.
    pub namespace: String,
    /// Whether the node's pod CIDRs are its blocks (`USE_POD_CIDR`).
    pub use_pod_cidr: bool,
    /// What drains the node besides `margay drain` (`MARGAY_DRAIN_BY`).
    pub drain_by: DrainBy,
    /// The label of Nodes whose value is the vantage of a neighbour (`MARGAY_VANTAGE_LABEL`). Default:
    /// none.
    pub vantage_label: Option<String>,
    /// Whether addresses of services carry a bandwidth in proportion to this node's ready endpoints
    /// (`MARGAY_ENDPOINT_WEIGHTS`).
    pub endpoint_weights: EndpointWeights,
    /// Octets per second for each of them.
    pub endpoint_bandwidth: u64,
    /// The version of Calico on this node (`MARGAY_CALICO_VERSION`). It overrides
    /// ClusterInformation, which during a rolling upgrade may name another node's version.
    pub version: Option<String>,
    /// Felix's own variable for the routes that it writes (`FELIX_PROGRAMCLUSTERROUTES`), which
    /// overrides FelixConfiguration; empty: not set.
    pub felix_cluster_routes: String,
}

/// The variable that names the networking backend of the node.
const BACKEND_VARIABLE: &str = "CALICO_NETWORKING_BACKEND";

/// Whether a node with these variables speaks BGP at all. With `none` and `vxlan` in
/// `CALICO_NETWORKING_BACKEND` calico-node starts neither confd nor BIRD: no sessions, no routes,
/// no control sockets.
pub fn speaks_bgp(env: &BTreeMap<String, String>) -> bool {
    !matches!(env.get(BACKEND_VARIABLE).map(|value| value.trim()), Some("none" | "vxlan"))
}

/// Why this node is drained; `None`: it is not.
pub(super) fn drain_reason(by: DrainBy, node: &Node) -> Option<Arc<str>> {
    let annotated = node.drain.as_ref().filter(|_| by.annotation);
    let cordoned = (by.cordon && node.is_cordoned).then(|| "cordoned".into());
    annotated.cloned().or(cordoned)
}

/// Where the BGP Identifier comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterIdSource {
    /// The node's IPv4 address.
    Address,
    /// A hash of the node's name.
    Hash,
    /// This text.
    Given(String),
}

impl Settings {
    /// The defaults for a node.
    pub fn new(node: impl Into<String>) -> Self {
        let node = node.into();
        Settings {
            kubernetes_node: node.clone(),
            node,
            router_id: RouterIdSource::Address,
            advertise_cluster_ips: String::new(),
            namespace: "kube-system".to_owned(),
            use_pod_cidr: false,
            drain_by: DrainBy::default(),
            vantage_label: None,
            endpoint_weights: EndpointWeights::Off,
            endpoint_bandwidth: ENDPOINT_BANDWIDTH,
            version: None,
            felix_cluster_routes: String::new(),
        }
    }

    /// As [`Settings::new`], with variables of calico-node's environment. Empty variables count as
    /// absent.
    pub fn from_env(node: impl Into<String>, env: &BTreeMap<String, String>) -> Self {
        let mut settings = Settings::new(node);
        let get = |key: &str| env.get(key).map(String::as_str).filter(|v| !v.is_empty());
        match get("CALICO_ROUTER_ID") {
            None => {}
            Some("hash") => settings.router_id = RouterIdSource::Hash,
            Some(text) => settings.router_id = RouterIdSource::Given(text.to_owned()),
        }
        for (key, field) in [
            ("CALICO_ADVERTISE_CLUSTER_IPS", &mut settings.advertise_cluster_ips),
            ("CALICO_K8S_NODE_REF", &mut settings.kubernetes_node),
            ("NAMESPACE", &mut settings.namespace),
            ("FELIX_PROGRAMCLUSTERROUTES", &mut settings.felix_cluster_routes),
        ] {
            if let Some(value) = get(key) {
                value.clone_into(field);
            }
        }
        settings.version = get("MARGAY_CALICO_VERSION").map(str::to_owned);
        settings.vantage_label = get("MARGAY_VANTAGE_LABEL").map(str::to_owned);
        // The daemon refuses other words.
        let weights = get("MARGAY_ENDPOINT_WEIGHTS").and_then(EndpointWeights::of_word);
        settings.endpoint_weights = weights.unwrap_or_default();
        settings.use_pod_cidr = get("USE_POD_CIDR")
            .is_some_and(|v| matches!(v, "true" | "True" | "TRUE" | "1" | "t" | "T"));
        settings
    }
}

/// The BGP Identifier that Calico derives from a node's name: the first four octets of its SHA-256,
/// the first of them reduced below 224 so that it looks like a unicast address.
pub fn hashed_router_id(node: &str) -> RouterId {
    let hash = Sha256::digest(node.as_bytes());
    let mut octets = [0u8; 4];
    octets.iter_mut().zip(hash).for_each(|(octet, h)| *octet = h);
    if octets[0] > 223 {
        octets[0] -= 32;
    }
    Ipv4Addr::from(octets).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_and_empty_ones_ignored() {
        let env = [
            ("CALICO_ROUTER_ID", "hash"),
            ("NAMESPACE", ""),
            ("CALICO_K8S_NODE_REF", "k8s-name"),
            ("USE_POD_CIDR", "true"),
            ("MARGAY_VANTAGE_LABEL", "zone"),
            ("MARGAY_ENDPOINT_WEIGHTS", "transitive"),
            ("OTHER", "x"),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let settings = Settings::from_env("n1", &env);
        assert_eq!(settings.router_id, RouterIdSource::Hash);
        assert_eq!(settings.namespace, "kube-system");
        assert_eq!(settings.kubernetes_node, "k8s-name");
        assert!(settings.use_pod_cidr);
        assert_eq!(settings.vantage_label.as_deref(), Some("zone"));
        assert_eq!(settings.endpoint_weights, EndpointWeights::Transitive);
        assert_eq!(Settings::new("n1").kubernetes_node, "n1");
    }

    #[test]
    fn two_backends_are_without_bgp() {
        let with = |value: &str| speaks_bgp(&[(BACKEND_VARIABLE.into(), value.into())].into());
        assert!(!with("none") && !with("vxlan") && !with(" none "));
        assert!(with("bird") && with("") && with("other") && speaks_bgp(&BTreeMap::new()));
    }

    #[test]
    fn the_hash_is_stable_and_looks_like_a_unicast_address() {
        // SHA-256("abc") = ba7816bf…; whatever the first octet of a hash, that of the result is
        // below 224.
        assert_eq!(hashed_router_id("abc").to_string(), "186.120.22.191");
        for number in 0..200 {
            assert!(hashed_router_id(&format!("node-{number}")).0 >> 24 <= 223);
        }
    }
}
