//! Calico's kinds, and objects of a cluster.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Kubernetes;
use crate::lab::Host;
use crate::wait::{PATIENCE, wait_until};

/// Kinds with their plurals.
const KINDS: [(&str, &str); 7] = [
    ("ippools", "IPPool"),
    ("bgpconfigurations", "BGPConfiguration"),
    ("bgppeers", "BGPPeer"),
    ("bgpfilters", "BGPFilter"),
    ("blockaffinities", "BlockAffinity"),
    ("clusterinformations", "ClusterInformation"),
    ("felixconfigurations", "FelixConfiguration"),
];

/// Where the CRDs are.
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Which of Calico's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// `crd.projectcalico.org/v1`.
    V1,
    /// `projectcalico.org/v3`.
    V3,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::V1 => "crd.projectcalico.org",
            Group::V3 => "projectcalico.org",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Group::V1 => "v1",
            Group::V3 => "v3",
        }
    }

    /// The path of a collection.
    #[must_use]
    pub fn path(self, plural: &str) -> String {
        format!("/apis/{}/{}/{plural}", self.name(), self.version())
    }

    /// An object of the group.
    #[must_use]
    pub fn object(self, plural: &str, name: &str, spec: &Value) -> Value {
        let kind = KINDS.iter().find(|(p, _)| *p == plural).map_or("", |(_, kind)| kind);
        json!({
            "apiVersion": format!("{}/{}", self.name(), self.version()), "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        })
    }
}

/// A Node as kubelet and calico-node write it, with images, labels and two managers.
#[must_use]
pub fn node(name: &str, address: Option<&str>, labels: &Value) -> Value {
    let mut annotations = json!({"node.alpha.kubernetes.io/ttl": "0"});
    if let Some(address) = address {
        annotations["projectcalico.org/IPv4Address"] = json!(address);
        annotations["projectcalico.org/IPv4IPIPTunnelAddr"] = json!("10.65.0.1");
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {},
    })
}

/// A BGPPeer's spec.
#[must_use]
pub fn peer(address: &str, asn: u32) -> Value {
    json!({"peerIP": address, "asNumber": asn})
}

impl Kubernetes {
    /// Creates Calico's CRDs of a group and waits until they serve.
    ///
    /// # Errors
    /// When the server refuses, or they do not serve in time.
    pub fn install_crds(&self, group: Group) -> Result<()> {
        for (plural, _) in KINDS {
            self.install_crd(group, plural)?;
        }
        for (plural, _) in KINDS {
            self.wait_served(group, plural)?;
        }
        Ok(())
    }

    /// Creates one CRD.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn install_crd(&self, group: Group, plural: &str) -> Result<()> {
        let kind = KINDS.iter().find(|(p, _)| *p == plural).map_or("", |(_, kind)| kind);
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{}", group.name())},
            "spec": {
                "group": group.name(), "scope": "Cluster",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                          "listKind": format!("{kind}List")},
                "versions": [{"name": group.version(), "served": true, "storage": true,
                              "schema": {"openAPIV3Schema": schema}}],
            },
        });
        self.admin().post(CRDS, &crd).map(drop)
    }

    /// Waits until a kind can be listed: it is busy for a moment after its creation.
    ///
    /// # Errors
    /// When it cannot be in time.
    pub fn wait_served(&self, group: Group, plural: &str) -> Result<()> {
        wait_until(PATIENCE, plural, || {
            let (code, text) = self.admin().get(&group.path(plural))?;
            ensure!(code == 200, "{code} {text}");
            Ok(())
        })
    }

    /// Changes a CRD.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn patch_crd(&self, group: Group, plural: &str, change: &Value) -> Result<()> {
        let path = format!("{CRDS}/{plural}.{}", group.name());
        self.admin().patch(&path, change).map(drop)
    }

    /// Deletes one CRD, and with it its objects.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete_crd(&self, group: Group, plural: &str) -> Result<()> {
        self.admin().delete(&format!("{CRDS}/{plural}.{}", group.name()))
    }

    /// Deletes all of a group.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete_crds(&self, group: Group) -> Result<()> {
        KINDS.iter().try_for_each(|(plural, _)| self.delete_crd(group, plural))
    }

    /// Creates an object of Calico's.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn put(&self, group: Group, plural: &str, name: &str, spec: &Value) -> Result<()> {
        let object = group.object(plural, name, spec);
        self.admin().post(&group.path(plural), &object).map(drop)
    }

    /// Changes the spec of an object of Calico's.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn patch_spec(&self, group: Group, plural: &str, name: &str, spec: &Value) -> Result<()> {
        let path = format!("{}/{name}", group.path(plural));
        self.admin().patch(&path, &json!({"spec": spec})).map(drop)
    }

    /// Deletes an object of Calico's.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete(&self, group: Group, plural: &str, name: &str) -> Result<()> {
        self.admin().delete(&format!("{}/{name}", group.path(plural)))
    }

    /// Creates a Node with the host's address, and a block for it: `10.65.N.0/26`.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn put_node(&self, group: Group, host: &Host, number: u8) -> Result<()> {
        let address = format!("{}/24", host.v4());
        let labels = json!({"kubernetes.io/hostname": host.name()});
        self.admin().post("/api/v1/nodes", &node(host.name(), Some(&address), &labels))?;
        self.put_block(group, host.name(), number)
    }

    /// Creates a block affinity as Calico before v3.31 does, without labels.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn put_block(&self, group: Group, node: &str, number: u8) -> Result<()> {
        let deleted = match group {
            Group::V1 => json!("false"),
            Group::V3 => json!(false),
        };
        let spec = json!({
            "node": node, "cidr": format!("10.65.{number}.0/26"), "state": "confirmed",
            "deleted": deleted, "type": "host",
        });
        self.put(group, "blockaffinities", &format!("{node}-10-65-{number}-0-26"), &spec)
    }
}
