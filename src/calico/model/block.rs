//! Block affinities: which node has claimed which block of a pool.

use bgp_proto::types::Prefix;
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, deserialize, parse, read, value};

/// The state of a claim on a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityState {
    /// The block is the node's. Also where the value has no state, as written before v3.0.
    Confirmed,
    /// The claim is not confirmed yet.
    Pending,
    /// The node is giving the block up.
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

/// Whether `deleted` is true: text in v1, a boolean in v3.
fn is_deleted(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => *truth,
        Value::String(text) => text == "true",
        _ => false,
    }
}

/// Reads a BlockAffinity resource; `None` if it is not a node's, or marked as deleted.
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

/// Reads the value under an etcd key that names node and block; an empty value stands for `{}`.
/// `deleted` in the value is ignored: as for confd, the block is the node's until the key is
/// deleted.
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
