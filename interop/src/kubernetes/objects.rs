//! Calico's kinds, and objects of a cluster.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Kubernetes, PROGRAMS};
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

/// The API path of CRDs.
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// One of Calico's API groups.
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

/// A CRD of the first group as it is in the second: Calico converts nothing, except that `deleted`
/// of an affinity is a boolean there
/// (`libcalico-go/lib/backend/k8s/resources/ipam_affinity_v3.go`). The release whose files are used
/// does not have the second group.
fn of_v3(text: &str) -> Result<String> {
    let text = text.replace(Group::V1.name(), Group::V3.name());
    let (before, after) = text.split_once("  - name: v1\n").context("a CRD without version v1")?;
    let text = format!("{before}  - name: v3\n{after}");
    let Some((before, after)) = text.split_once("              deleted:\n") else {
        return Ok(text);
    };
    let after = after.replacen("type: string", "type: boolean\n                default: false", 1);
    Ok(format!("{before}              deleted:\n{after}"))
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

    /// Creates one CRD, from its file among Calico's manifests.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn install_crd(&self, group: Group, plural: &str) -> Result<()> {
        let path = format!("{PROGRAMS}/calico/{}_{plural}.yaml", Group::V1.name());
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{path}: run interop/setup.sh kubernetes"))?;
        let crd = match group {
            Group::V1 => text,
            Group::V3 => of_v3(&text)?,
        };
        self.create_crd(&path, &crd)
    }

    /// Creates the Prometheus operator's published CRD of PodMonitor, and waits until it is served.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn install_pod_monitor(&self) -> Result<()> {
        let path = format!("{PROGRAMS}/prometheus-operator/monitoring.coreos.com_podmonitors.yaml");
        let crd = std::fs::read_to_string(&path)
            .with_context(|| format!("{path}: run interop/setup.sh kubernetes"))?;
        self.create_crd(&path, &crd)?;
        wait_until(PATIENCE, "PodMonitors", || {
            let (code, text) = self.admin().get("/apis/monitoring.coreos.com/v1/podmonitors")?;
            ensure!(code == 200, "{code} {text}");
            Ok(())
        })
    }

    fn create_crd(&self, path: &str, crd: &str) -> Result<()> {
        let (code, answer) = self.admin().send("POST", CRDS, "application/yaml", crd)?;
        ensure!(code == 201, "{path}: {code} {answer}");
        Ok(())
    }

    /// Waits until a kind can be listed: it cannot for a moment after its creation.
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

    /// Sets whether a CRD's version is served.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn serve_crd(&self, group: Group, plural: &str, is_served: bool) -> Result<()> {
        let path = format!("{CRDS}/{plural}.{}", group.name());
        let change = json!([
            {"op": "replace", "path": "/spec/versions/0/served", "value": is_served}]);
        let media_type = "application/json-patch+json";
        let (code, answer) = self.admin().send("PATCH", &path, media_type, &change.to_string())?;
        ensure!(code == 200, "{path}: {code} {answer}");
        Ok(())
    }

    /// Deletes one CRD and its objects.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete_crd(&self, group: Group, plural: &str) -> Result<()> {
        self.admin().delete(&format!("{CRDS}/{plural}.{}", group.name()))
    }

    /// Deletes all CRDs of a group.
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
