//! Objects that the plan needs besides Calico's own and Nodes.

use std::collections::BTreeSet;

use super::settings::Settings;
use super::snapshot::Snapshot;

/// Kubernetes' own objects that the plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of the Secrets from which a BGPPeer or the mesh takes its password.
    pub secrets: BTreeSet<String>,
    /// Whether a range of service addresses is configured, so that Services and EndpointSlices are
    /// needed.
    pub has_service_ranges: bool,
}

impl Snapshot {
    /// The objects that a plan for these needs.
    pub fn needs(&self, settings: &Settings) -> Needs {
        let global = self.configurations.get("default");
        let of_mesh = global.and_then(|global| global.node_mesh_password.as_ref());
        let of_peers = self.peers.values().filter_map(|peer| peer.password.as_ref());
        let ranges = global.is_some_and(|global| {
            let lists = [
                &global.service_cluster_ips,
                &global.service_external_ips,
                &global.service_load_balancer_ips,
            ];
            lists.iter().any(|list| !list.is_empty())
        });
        Needs {
            secrets: of_mesh
                .into_iter()
                .chain(of_peers)
                .map(|reference| reference.name.clone())
                .filter(|name| !name.is_empty())
                .collect(),
            has_service_ranges: ranges || !settings.advertise_cluster_ips.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::calico::model::decode;

    #[test]
    fn passwords_and_ranges_determine_the_needs() {
        let mut snapshot = Snapshot::default();
        let mut settings = Settings::new("n1");
        assert_eq!(snapshot.needs(&settings), Needs::default());
        let reference = |name: &str| json!({"secretKeyRef": {"name": name, "key": "k"}});
        for object in [
            json!({"kind": "BGPPeer", "metadata": {"name": "a"}, "spec": {"password": reference("s1")}}),
            json!({"kind": "BGPPeer", "metadata": {"name": "b"}, "spec": {}}),
            json!({"kind": "BGPConfiguration", "metadata": {"name": "default"},
                "spec": {"nodeMeshPassword": reference("s2")}}),
        ] {
            let mut object = object;
            object["apiVersion"] = json!("projectcalico.org/v3");
            snapshot.apply(decode(object).unwrap().unwrap());
        }
        let needs = snapshot.needs(&settings);
        assert_eq!(needs.secrets.iter().collect::<Vec<_>>(), ["s1", "s2"]);
        assert!(!needs.has_service_ranges);
        settings.advertise_cluster_ips = "10.96.0.0/12".to_owned();
        assert!(snapshot.needs(&settings).has_service_ranges);
    }
}
