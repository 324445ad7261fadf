//! Objects of the cluster that BGP reads one or two fields of.

use serde::Deserialize;

use super::value;

/// A ClusterInformation: which Calico the cluster runs. calico-node writes it when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterInformation {
    /// `v3.32.1`; empty: not said.
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
    /// Whose routes Felix writes, by class of pools; empty: not said.
    #[serde(deserialize_with = "value::text")]
    pub program_cluster_routes: String,
}
