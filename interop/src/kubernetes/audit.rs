//! The API server's audit log: which requests it received, and from whom.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Group, Kubernetes, program};
use crate::lab::Host;

/// Every request, without its content.
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";
/// The account of `examples/kubernetes/rbac.yaml`.
const ACCOUNT: &str = "system:serviceaccount:kube-system:margay";

impl Kubernetes {
    /// As [`Kubernetes::start`], with an audit log.
    ///
    /// # Errors
    /// As [`Kubernetes::start`].
    pub fn start_audited(host: &Host, group: Group) -> Result<Self> {
        let policy = host.write("audit.yaml", POLICY)?.display().to_string();
        let log = host.file("audit.jsonl").display().to_string();
        let flags = [
            format!("--audit-policy-file={policy}"),
            format!("--audit-log-path={log}"),
            "--audit-log-mode=blocking".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let kubernetes = Self::start_bare(host, program("etcd")?, &flags)?;
        kubernetes.install_crds(group)?;
        Ok(kubernetes)
    }

    /// The requests of margay's account so far, `VERB TARGET` each.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn requests(&self) -> Result<Vec<String>> {
        let text =
            std::fs::read_to_string(self.host().file("audit.jsonl")).context("no audit log")?;
        let mut requests = BTreeMap::new();
        for line in text.lines() {
            // The last line may be incomplete.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if event["user"]["username"] == ACCOUNT {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                requests
                    .insert(text("auditID"), format!("{} {}", text("verb"), text("requestURI")));
            }
        }
        Ok(requests.into_values().collect())
    }
}
