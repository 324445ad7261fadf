//! Cluster-wide objects of which BGP reads one or two fields.

use serde::Deserialize;

use super::value;

/// A ClusterInformation: the release of Calico that the cluster runs. Each calico-node writes its
/// own when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterInformation {
    /// Such as `v3.32.1`; empty: not set.
    #[serde(rename = "calicoVersion", deserialize_with = "value::text")]
    pub version: String,
    /// `Calico`, or another product, whose versions are numbered differently.
    #[serde(deserialize_with = "value::text")]
    pub variant: String,
}

/// A FelixConfiguration, as far as it concerns routes between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FelixConfiguration {
    /// The class of pools whose routes Felix writes; empty: not set.
    #[serde(deserialize_with = "value::text")]
    pub program_cluster_routes: String,
}
