//! BGPConfiguration, BGPPeer, BGPFilter and IPPool: their specs, field by field.

use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{Asn, Prefix};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{Fault, read, value};
use crate::calico::selector::{self, Labels, Selector};

/// A key in a Kubernetes Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretKeyRef {
    /// The Secret.
    #[serde(deserialize_with = "value::text")]
    pub name: String,
    /// The key in it.
    #[serde(deserialize_with = "value::text")]
    pub key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Password {
    secret_key_ref: Option<SecretKeyRef>,
}

mod password {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Password, SecretKeyRef};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SecretKeyRef>, D::Error> {
        Password::deserialize(deserializer).map(|p| p.secret_key_ref)
    }

    pub(super) fn serialize<S: Serializer>(
        reference: &Option<SecretKeyRef>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Password { secret_key_ref: reference.clone() }.serialize(serializer)
    }
}

/// An element of a list of ranges: `{"cidr": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CidrEntry {
    /// As written; may be empty.
    pub cidr: String,
}

/// A community with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedCommunity {
    /// The name.
    #[serde(deserialize_with = "value::text")]
    pub name: String,
    /// `a:b` or `a:b:c`.
    #[serde(deserialize_with = "value::text")]
    pub value: String,
}

/// Communities for all routes inside a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixAdvertisement {
    /// The prefix, as written.
    pub cidr: String,
    /// Literal communities and names.
    pub communities: Vec<String>,
}

/// A BGPConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct BgpConfiguration {
    pub log_severity_screen: String,
    pub node_to_node_mesh_enabled: Option<bool>,
    #[serde(rename = "asNumber", deserialize_with = "value::asn")]
    pub asn: Option<Asn>,
    pub listen_port: Option<u16>,
    pub bind_mode: String,
    #[serde(rename = "serviceClusterIPs")]
    pub service_cluster_ips: Vec<CidrEntry>,
    #[serde(rename = "serviceExternalIPs")]
    pub service_external_ips: Vec<CidrEntry>,
    #[serde(rename = "serviceLoadBalancerIPs")]
    pub service_load_balancer_ips: Vec<CidrEntry>,
    pub service_load_balancer_aggregation: String,
    pub communities: Vec<NamedCommunity>,
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    #[serde(with = "password")]
    pub node_mesh_password: Option<SecretKeyRef>,
    #[serde(deserialize_with = "value::seconds", serialize_with = "value::to_seconds")]
    pub node_mesh_max_restart_time: Option<Duration>,
    pub ignored_interfaces: Vec<String>,
    pub program_cluster_routes: String,
    pub ipv4_normal_route_priority: Option<i64>,
    pub ipv6_normal_route_priority: Option<i64>,
    /// Notes on fields that Calico does not have.
    #[serde(skip)]
    pub unknown: Vec<Box<str>>,
}

/// A BGPPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct BgpPeer {
    #[serde(skip)]
    pub name: Arc<str>,
    #[serde(deserialize_with = "value::text")]
    pub node: String,
    pub node_selector: NodeSelector,
    #[serde(rename = "peerIP")]
    pub peer_ip: String,
    #[serde(rename = "asNumber", deserialize_with = "value::asn")]
    pub asn: Option<Asn>,
    #[serde(rename = "localASNumber", deserialize_with = "value::asn")]
    pub local_asn: Option<Asn>,
    pub peer_selector: NodeSelector,
    pub keep_original_next_hop: bool,
    /// If set, whatever its value, `keepOriginalNextHop` is ignored.
    pub next_hop_mode: Option<String>,
    #[serde(with = "password")]
    pub password: Option<SecretKeyRef>,
    pub source_address: String,
    #[serde(deserialize_with = "value::seconds", serialize_with = "value::to_seconds")]
    pub max_restart_time: Option<Duration>,
    #[serde(deserialize_with = "value::seconds", serialize_with = "value::to_seconds")]
    pub keepalive_time: Option<Duration>,
    #[serde(rename = "numAllowedLocalASNumbers")]
    pub allowed_local_asns: Option<i64>,
    pub ttl_security: Option<u8>,
    pub reachable_by: String,
    pub filters: Vec<String>,
    pub local_workload_selector: String,
    pub reverse_peering: String,
    /// Notes on fields that Calico does not have.
    #[serde(skip)]
    pub unknown: Vec<Box<str>>,
}

/// A selector as written, with the result of parsing it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct NodeSelector {
    /// As written; empty: not set.
    pub text: String,
    /// `Err`: selects nothing.
    pub parsed: Result<Selector, selector::Error>,
}

impl NodeSelector {
    /// Whether the field is set.
    pub fn is_given(&self) -> bool {
        !self.text.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.parsed.as_ref().is_ok_and(|s| s.selects(labels))
    }
}

impl Serialize for NodeSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl From<String> for NodeSelector {
    fn from(text: String) -> Self {
        NodeSelector { parsed: Selector::parse(&text), text }
    }
}

impl Default for NodeSelector {
    fn default() -> Self {
        String::new().into()
    }
}

/// A BGPFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct BgpFilter {
    #[serde(skip)]
    pub name: Arc<str>,
    #[serde(rename = "importV4")]
    pub import_ipv4: Vec<FilterRule>,
    #[serde(rename = "exportV4")]
    pub export_ipv4: Vec<FilterRule>,
    #[serde(rename = "importV6")]
    pub import_ipv6: Vec<FilterRule>,
    #[serde(rename = "exportV6")]
    pub export_ipv6: Vec<FilterRule>,
    /// Notes on fields that Calico does not have.
    #[serde(skip)]
    pub unknown: Vec<Box<str>>,
}

/// A rule of a BGPFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct FilterRule {
    pub action: String,
    pub cidr: String,
    pub match_operator: String,
    pub prefix_length: Option<PrefixLength>,
    pub source: String,
    #[serde(deserialize_with = "value::text")]
    pub interface: String,
    pub peer_type: String,
    pub communities: Option<Communities>,
    #[serde(rename = "asPathPrefix", deserialize_with = "value::asns")]
    pub as_path_prefix: Vec<Asn>,
    pub priority: Option<i64>,
    pub operations: Vec<Operation>,
}

/// A range of prefix lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct PrefixLength {
    pub min: Option<i64>,
    pub max: Option<i64>,
}

/// Communities to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct Communities {
    pub values: Vec<String>,
}

/// What an accepting rule changes in the route. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct Operation {
    #[serde(rename = "addCommunity")]
    pub add_community: Option<AddCommunity>,
    #[serde(rename = "prependASPath")]
    pub prepend_as_path: Option<PrependAsPath>,
    #[serde(rename = "setPriority")]
    pub set_priority: Option<SetPriority>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct AddCommunity {
    #[serde(deserialize_with = "value::text")]
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct PrependAsPath {
    #[serde(deserialize_with = "value::asns")]
    pub prefix: Vec<Asn>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are Calico's")]
pub struct SetPriority {
    pub value: Option<i64>,
}

/// An IPPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// Its name.
    pub name: Arc<str>,
    /// With host bits cleared.
    pub cidr: Prefix,
    /// How packets to other nodes' parts of it are encapsulated.
    pub encapsulation: Encapsulation,
    /// Its routes are not announced.
    pub disable_bgp_export: bool,
    /// Notes on fields that Calico does not have.
    pub unknown: Vec<Box<str>>,
}

/// How packets between nodes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Unencapsulated.
    None,
    /// In IPIP, always.
    IpipAlways,
    /// In IPIP, where the other node is in another subnet.
    IpipCrossSubnet,
    /// In VXLAN, always or across subnets.
    Vxlan,
}

pub(super) fn read_pool(name: &str, object: &Value) -> Result<IpPool, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        cidr: String,
        #[serde(rename = "ipipMode")]
        ipip_mode: String,
        #[serde(rename = "vxlanMode")]
        vxlan_mode: String,
        #[serde(rename = "disableBGPExport")]
        disable_bgp_export: bool,
    }
    let spec: Spec = read(object, "spec")?;
    let cidr = value::masked(&spec.cidr)
        .ok_or_else(|| Fault::new(format!("spec.cidr: \"{}\" is not a prefix", spec.cidr)))?;
    let encapsulation = match (spec.vxlan_mode.as_str(), spec.ipip_mode.as_str()) {
        ("Always" | "CrossSubnet", _) => Encapsulation::Vxlan,
        ("" | "Never", "Always") => Encapsulation::IpipAlways,
        ("" | "Never", "CrossSubnet") => Encapsulation::IpipCrossSubnet,
        ("" | "Never", "" | "Never") => Encapsulation::None,
        ("" | "Never", other) => {
            return Err(Fault::new(format!("spec.ipipMode: \"{other}\" is not a mode")));
        }
        (other, _) => return Err(Fault::new(format!("spec.vxlanMode: \"{other}\" is not a mode"))),
    };
    Ok(IpPool {
        name: name.into(),
        cidr,
        encapsulation,
        disable_bgp_export: spec.disable_bgp_export,
        unknown: super::fields::of_pool(object),
    })
}
