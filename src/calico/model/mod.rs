//! Calico's and Kubernetes' objects, with the fields that BGP reads.
//!
//! [`decode`] turns the JSON value of any object into its model, [`decode_etcd`] a key and value of
//! Calico's etcd layout. Both are total: a [`Fault`] concerns one object and comes with its name.
//! Unknown fields are ignored, absent ones have Calico's defaults.

mod bgp;
mod block;
mod cluster;
mod encode;
mod fields;
mod kubernetes;
mod node;
mod value;

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::selector::Labels;

pub use bgp::{
    BgpConfiguration, BgpFilter, BgpPeer, CidrEntry, Communities, Encapsulation, FilterRule,
    IpPool, NamedCommunity, NodeSelector, Operation, PrefixAdvertisement, PrefixLength,
    SecretKeyRef,
};
pub use block::{AffinityState, BlockAffinity};
pub use cluster::{ClusterInformation, FelixConfiguration};
pub use encode::encode;
pub use kubernetes::{Endpoint, EndpointSlice, LocalEndpoint, Secret, Service};
pub use node::{DRAIN_ANNOTATION, Node};
pub use value::HostNetwork;
pub(super) use value::exact;

/// Kinds of objects that BGP reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are Calico's")]
pub enum Kind {
    Node,
    KubernetesNode,
    BgpConfiguration,
    BgpPeer,
    BgpFilter,
    IpPool,
    BlockAffinity,
    Secret,
    Service,
    EndpointSlice,
    LocalEndpoint,
    ClusterInformation,
    FelixConfiguration,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Node | Kind::KubernetesNode => "Node",
            Kind::BgpConfiguration => "BGPConfiguration",
            Kind::BgpPeer => "BGPPeer",
            Kind::BgpFilter => "BGPFilter",
            Kind::IpPool => "IPPool",
            Kind::BlockAffinity => "BlockAffinity",
            Kind::Secret => "Secret",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::LocalEndpoint => "endpoint-status",
            Kind::ClusterInformation => "ClusterInformation",
            Kind::FelixConfiguration => "FelixConfiguration",
        })
    }
}

/// Identifies an object: `BGPPeer/tor-1`, `Secret/kube-system/bgp`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// An object without a namespace.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        ObjectId { kind, namespace: String::new(), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Calico's")]
pub enum Object {
    Node(Arc<Node>),
    BgpConfiguration(Arc<BgpConfiguration>),
    BgpPeer(Arc<BgpPeer>),
    BgpFilter(Arc<BgpFilter>),
    IpPool(Arc<IpPool>),
    BlockAffinity(Arc<BlockAffinity>),
    Secret(Arc<Secret>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    LocalEndpoint(Arc<LocalEndpoint>),
    ClusterInformation(Arc<ClusterInformation>),
    FelixConfiguration(Arc<FelixConfiguration>),
}

/// Why an object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    pub(super) fn new(text: String) -> Self {
        Fault(text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object that was read, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Which one.
    pub id: ObjectId,
    /// `None`: by its own content the object counts as absent.
    pub object: Result<Option<Object>, Fault>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(deserialize_with = "value::text")]
    name: String,
    #[serde(deserialize_with = "value::text")]
    namespace: String,
    #[serde(deserialize_with = "value::labels")]
    labels: Labels,
    #[serde(deserialize_with = "value::labels")]
    annotations: Labels,
    #[serde(rename = "resourceVersion", deserialize_with = "value::text")]
    version: String,
}

/// Reads an object; `None` if BGP does not read its kind.
///
/// # Errors
/// The value has no kind or name, so that the object cannot be identified.
pub fn decode(mut object: Value) -> Result<Option<Decoded>, Fault> {
    drop_nulls(&mut object);
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (field("kind"), field("apiVersion"));
    if kind.is_empty() {
        return Err(Fault::new("an object has no kind".to_owned()));
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let is_calico = matches!(group, "projectcalico.org" | "crd.projectcalico.org");
    let kind = match (kind, is_calico) {
        ("Node", true) => Kind::Node,
        ("Node", false) => Kind::KubernetesNode,
        ("BGPConfiguration", true) => Kind::BgpConfiguration,
        ("BGPPeer", true) => Kind::BgpPeer,
        ("BGPFilter", true) => Kind::BgpFilter,
        ("IPPool", true) => Kind::IpPool,
        ("BlockAffinity", true) => Kind::BlockAffinity,
        ("ClusterInformation", true) => Kind::ClusterInformation,
        ("FelixConfiguration", true) => Kind::FelixConfiguration,
        ("Secret", false) => Kind::Secret,
        ("Service", false) if group.is_empty() => Kind::Service,
        ("EndpointSlice", false) => Kind::EndpointSlice,
        _ => return Ok(None),
    };
    let metadata: Metadata = read(&object, "metadata")
        .map_err(|fault| Fault::new(format!("an object of kind {kind}: {fault}")))?;
    if metadata.name.is_empty() {
        return Err(Fault::new(format!("an object of kind {kind} has no name")));
    }
    let id = id_of(kind, &metadata);
    let object = decode_as(&id, metadata, &object);
    Ok(Some(Decoded { id, object }))
}

/// The object's id. An object without a namespace is in `default` if its kind has namespaces.
fn id_of(kind: Kind, metadata: &Metadata) -> ObjectId {
    let namespace = match kind {
        Kind::Secret | Kind::Service | Kind::EndpointSlice if metadata.namespace.is_empty() => {
            "default".to_owned()
        }
        Kind::Secret | Kind::Service | Kind::EndpointSlice => metadata.namespace.clone(),
        _ => String::new(),
    };
    ObjectId { kind, namespace, name: metadata.name.clone() }
}

/// An object of a list or watch of the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiObject {
    /// The object.
    pub decoded: Decoded,
    /// Its `resourceVersion`.
    pub version: String,
}

/// Reads an object of a list or watch. The kind is known from the request: items in lists of core
/// kinds do not carry it. A Node without `spec` (`PartialObjectMetadata`) is accepted.
///
/// # Errors
/// The object is not valid JSON, or has no name.
pub fn decode_api(kind: Kind, octets: &[u8]) -> Result<ApiObject, Fault> {
    let mut object = parse(octets).map_err(|e| Fault::new(format!("a {kind}: {e}")))?;
    // `managedFields` makes up two thirds of a Node's metadata, and nothing in it is used.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let metadata = read(&object, "metadata");
    from_api(kind, metadata, &object)
}

/// Stands in for the `spec` that a Node's metadata lacks: a pod CIDR is assumed to be assigned.
static UNSAID: LazyLock<Value> = LazyLock::new(|| json!({"spec": {"podCIDR": "unsaid"}}));

/// As [`decode_api`], for a Node; reads its metadata only.
///
/// # Errors
/// The object is not valid JSON, or has no name.
pub fn decode_api_node(octets: &[u8]) -> Result<ApiObject, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        metadata: Metadata,
    }
    // Skips unread fields without allocating: this runs for every heartbeat of every node.
    let named: Result<Named, _> = serde_json::from_slice(octets);
    let metadata = named.map(|named| named.metadata).map_err(|e| Fault::new(e.to_string()));
    from_api(Kind::KubernetesNode, metadata, &UNSAID)
}

fn from_api(
    kind: Kind,
    metadata: Result<Metadata, Fault>,
    object: &Value,
) -> Result<ApiObject, Fault> {
    let metadata = metadata.map_err(|fault| Fault::new(format!("a {kind}: {fault}")))?;
    if metadata.name.is_empty() {
        return Err(Fault::new(format!("a {kind} has no name")));
    }
    let (id, version) = (id_of(kind, &metadata), metadata.version.clone());
    let object = decode_as(&id, metadata, object);
    Ok(ApiObject { decoded: Decoded { id, object }, version })
}

fn decode_as(id: &ObjectId, metadata: Metadata, object: &Value) -> Result<Option<Object>, Fault> {
    let name = id.name.as_str();
    Ok(Some(match id.kind {
        Kind::Node => Object::Node(Arc::new(node::read_calico(
            name,
            metadata.labels,
            &metadata.annotations,
            object,
        )?)),
        Kind::KubernetesNode => Object::Node(Arc::new(node::read_kubernetes(
            name,
            metadata.labels,
            &metadata.annotations,
            object,
        )?)),
        Kind::BgpConfiguration => {
            let spec: BgpConfiguration = read(object, "spec")?;
            let unknown = fields::of_configuration(object);
            Object::BgpConfiguration(Arc::new(BgpConfiguration { unknown, ..spec }))
        }
        Kind::BgpPeer => {
            let spec: BgpPeer = read(object, "spec")?;
            let unknown = fields::of_peer(object);
            Object::BgpPeer(Arc::new(BgpPeer { name: name.into(), unknown, ..spec }))
        }
        Kind::BgpFilter => {
            let spec: BgpFilter = read(object, "spec")?;
            let unknown = fields::of_filter(object);
            Object::BgpFilter(Arc::new(BgpFilter { name: name.into(), unknown, ..spec }))
        }
        Kind::IpPool => Object::IpPool(Arc::new(bgp::read_pool(name, object)?)),
        Kind::BlockAffinity => {
            return Ok(block::read_resource(object)?
                .map(|affinity| Object::BlockAffinity(Arc::new(affinity))));
        }
        Kind::Secret => Object::Secret(Arc::new(kubernetes::read_secret(object)?)),
        Kind::Service => Object::Service(Arc::new(kubernetes::read_service(object)?)),
        Kind::EndpointSlice => Object::EndpointSlice(Arc::new(kubernetes::read_slice(
            &id.namespace,
            metadata.labels.get("kubernetes.io/service-name"),
            object,
        )?)),
        Kind::LocalEndpoint => Object::LocalEndpoint(Arc::new(kubernetes::read_endpoint(object)?)),
        Kind::ClusterInformation => Object::ClusterInformation(Arc::new(read(object, "spec")?)),
        Kind::FelixConfiguration => Object::FelixConfiguration(Arc::new(read(object, "spec")?)),
    }))
}

/// Reads a file of Felix's endpoint-status folder.
pub fn decode_endpoint(file: &str, octets: &[u8]) -> Decoded {
    let object = parse(octets)
        .and_then(|value| kubernetes::read_endpoint(&value))
        .map(|endpoint| Some(Object::LocalEndpoint(Arc::new(endpoint))));
    Decoded { id: ObjectId::new(Kind::LocalEndpoint, file), object }
}

/// The object that an etcd key holds; `None` if BGP does not read it.
///
/// Resources lie under `/calico/resources/v3/projectcalico.org/`, affinities under
/// `/calico/ipam/v2/host/NODE/ipv4/block/CIDR` with the slash written as a dash. The key of a host
/// itself is a parent of those and is ignored, as are `virtual` affinities.
pub fn etcd_object(key: &str) -> Option<ObjectId> {
    if let Some(rest) = key.strip_prefix("/calico/resources/v3/projectcalico.org/") {
        let (plural, name) = rest.split_once('/')?;
        let kind = match plural {
            "nodes" => Kind::Node,
            "bgpconfigurations" => Kind::BgpConfiguration,
            "bgppeers" => Kind::BgpPeer,
            "bgpfilters" => Kind::BgpFilter,
            "ippools" => Kind::IpPool,
            "clusterinformations" => Kind::ClusterInformation,
            "felixconfigurations" => Kind::FelixConfiguration,
            _ => return None,
        };
        return (!name.is_empty()).then(|| ObjectId::new(kind, name));
    }
    let (node, cidr) = affinity_key(key)?;
    Some(ObjectId::new(Kind::BlockAffinity, format!("{node}/{cidr}")))
}

/// Node and block that an affinity key names.
fn affinity_key(key: &str) -> Option<(&str, bgp_proto::types::Prefix)> {
    let mut parts = key.strip_prefix("/calico/ipam/v2/host/")?.split('/');
    let (node, family, block, cidr) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if !matches!(family, "ipv4" | "ipv6") || block != "block" || parts.next().is_some() {
        return None;
    }
    let (addr, len) = cidr.rsplit_once('-')?;
    let cidr = value::masked(&format!("{addr}/{len}"))?;
    let fits = (family == "ipv4") == cidr.addr().is_ipv4();
    fits.then_some((node, cidr))
}

/// Reads a key and its value as Calico writes them to etcd; `None` if BGP does not read the key.
pub fn decode_etcd(key: &str, octets: &[u8]) -> Option<Decoded> {
    let id = etcd_object(key)?;
    if let Some((node, cidr)) = affinity_key(key) {
        let object = block::read_etcd(node, cidr, octets)
            .map(|affinity| Some(Object::BlockAffinity(Arc::new(affinity))));
        return Some(Decoded { id, object });
    }
    let object = parse(octets).and_then(|value| {
        let metadata: Metadata = read(&value, "metadata")?;
        decode_as(&id, metadata, &value)
    });
    Some(Decoded { id, object })
}

/// Reads JSON that must be an object. A number or a string would otherwise count as an object
/// without fields, and Calico's defaults would replace what is in force.
fn parse(octets: &[u8]) -> Result<Value, Fault> {
    let mut value: Value = serde_json::from_slice(octets).map_err(|e| Fault::new(e.to_string()))?;
    if !value.is_object() {
        return Err(Fault::new("the value is not a JSON object".to_owned()));
    }
    drop_nulls(&mut value);
    Ok(value)
}

/// Removes null fields: to Calico they are absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Reads a field of an object; an absent one has its default.
fn read<T: DeserializeOwned + Default>(object: &Value, field: &str) -> Result<T, Fault> {
    match object.get(field) {
        None => Ok(T::default()),
        Some(value) => deserialize(field, value),
    }
}

/// Reads a value; the fault names the field.
fn deserialize<T: DeserializeOwned>(at: &str, value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = match (at, path.as_str()) {
            ("", path) => path.to_owned(),
            (at, ".") => at.to_owned(),
            (at, path) => format!("{at}.{path}"),
        };
        Fault::new(format!("{place}: {}", error.inner()))
    })
}

#[cfg(test)]
mod tests;
