//! Block affinities: which part of a pool belongs to which node.

use bgp_proto::types::Prefix;
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, deserialize, parse, read, value};

/// How far the claim on a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityState {
    /// The block is the node's; writers before v3.0 say nothing.
    Confirmed,
    /// Not yet.
    Pending,
    /// Not for long.
    PendingDeletion,
}

/// A block affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAffinity {
    /// The node.
    pub node: String,
    /// The block.
    pub cidr: Prefix,
    /// The state of the claim.
    pub state: AffinityState,
}

fn state(text: &str) -> Result<AffinityState, Fault> {
    match text {
        "" | "confirmed" => Ok(AffinityState::Confirmed),
        "pending" => Ok(AffinityState::Pending),
        "pendingDeletion" => Ok(AffinityState::PendingDeletion),
        other => Err(Fault::new(format!("state: \"{other}\" is not a state"))),
    }
}

/// Whether `deleted` says so: text in v1, a boolean in v3.
fn is_deleted(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => *truth,
        Value::String(text) => text == "true",
        _ => false,
    }
}

/// A BlockAffinity resource; `None` if it does not concern a node, or is deleted.
pub(super) fn read_resource(object: &Value) -> Result<Option<BlockAffinity>, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(deserialize_with = "value::text")]
        node: String,
        cidr: String,
        state: String,
        r#type: String,
        deleted: Value,
    }
    let spec: Spec = read(object, "spec")?;
    if is_deleted(&spec.deleted) || !matches!(spec.r#type.as_str(), "" | "host") {
        return Ok(None);
    }
    let cidr = value::masked(&spec.cidr)
        .ok_or_else(|| Fault::new(format!("spec.cidr: \"{}\" is not a prefix", spec.cidr)))?;
    Ok(Some(BlockAffinity { node: spec.node, cidr, state: state(&spec.state)? }))
}

/// The value under an etcd key that named node and block; empty octets stand for `{}`. What the value
/// says of `deleted` does not count: the block is the node's until the key is deleted, as for confd.
pub(super) fn read_etcd(node: &str, cidr: Prefix, octets: &[u8]) -> Result<BlockAffinity, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        state: Option<String>,
    }
    let fields: Fields = if octets.trim_ascii().is_empty() {
        Fields::default()
    } else {
        deserialize("", &parse(octets)?)?
    };
    let state = state(&fields.state.unwrap_or_default())?;
    Ok(BlockAffinity { node: node.to_owned(), cidr, state })
}
