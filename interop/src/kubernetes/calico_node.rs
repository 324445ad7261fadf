//! calico-node's DaemonSet as Calico's own manifests have it, reduced to what tests need.

use serde_json::{Value, json};

/// The image with BIRD.
pub const IMAGE: &str = "quay.example/calico/node:v3.32.1";

fn daemon_set(namespace: &str, account: &str, containers: &Value, volumes: &Value) -> Value {
    let labels = json!({"k8s-app": "calico-node"});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "calico-node", "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": true,
                    "serviceAccountName": account,
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": containers,
                    "volumes": volumes,
                },
            },
        },
    })
}

fn node_name() -> Value {
    json!({"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
}

/// As since v3.20: objects in the Kubernetes API, exec probes that query BIRD, too.
#[must_use]
pub fn with_kubernetes(namespace: &str) -> Value {
    let probe = |flags: [&str; 2]| {
        json!({
            "exec": {"command": ["/bin/calico-node", flags[0], flags[1]]},
            "periodSeconds": 10, "timeoutSeconds": 10,
        })
    };
    let mut name = node_name();
    name["name"] = json!("NODENAME");
    let containers = json!([{
        "name": "calico-node", "image": IMAGE,
        "env": [
            {"name": "DATASTORE_TYPE", "value": "kubernetes"},
            {"name": "WAIT_FOR_DATASTORE", "value": "true"},
            name,
            {"name": "CALICO_NETWORKING_BACKEND", "value": "bird"},
            {"name": "CLUSTER_TYPE", "value": "k8s,bgp"},
            {"name": "IP", "value": "autodetect"},
            {"name": "CALICO_DISABLE_FILE_LOGGING", "value": "true"},
            {"name": "FELIX_HEALTHENABLED", "value": "true"},
        ],
        "securityContext": {"privileged": true},
        "resources": {"requests": {"cpu": "250m"}},
        "livenessProbe": probe(["-felix-live", "-bird-live"]),
        "readinessProbe": probe(["-felix-ready", "-bird-ready"]),
        "volumeMounts": [
            {"name": "var-run-calico", "mountPath": "/var/run/calico"},
            {"name": "var-lib-calico", "mountPath": "/var/lib/calico"},
        ],
    }]);
    let volumes = json!([
        {"name": "var-run-calico", "hostPath": {"path": "/var/run/calico"}},
        {"name": "var-lib-calico", "hostPath": {"path": "/var/lib/calico"}},
    ]);
    daemon_set(namespace, "calico-node", &containers, &volumes)
}

/// As in v3.0: objects in etcd with certificates from a Secret, HTTP probes that query Felix alone,
/// the network plugin's installer beside calico-node, and no `/var/lib/calico` of the host. Its API
/// group was `extensions/v1beta1`, which servers since 1.16 do not have.
#[must_use]
pub fn with_etcd_3_0() -> Value {
    let from_config = |name: &str, key: &str| json!({"name": name, "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": key}}});
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": 9099}, "periodSeconds": 10});
    let mut reference = node_name();
    reference["name"] = json!("CALICO_K8S_NODE_REF");
    let certificates = json!({"name": "etcd-certs", "mountPath": "/calico-secrets"});
    let containers = json!([
        {
            "name": "calico-node", "image": "quay.example/calico/node:v3.0.12",
            "env": [
                from_config("ETCD_ENDPOINTS", "etcd_endpoints"),
                from_config("CALICO_NETWORKING_BACKEND", "calico_backend"),
                {"name": "CLUSTER_TYPE", "value": "k8s,bgp"},
                {"name": "CALICO_DISABLE_FILE_LOGGING", "value": "true"},
                reference,
                from_config("ETCD_CA_CERT_FILE", "etcd_ca"),
                from_config("ETCD_KEY_FILE", "etcd_key"),
                from_config("ETCD_CERT_FILE", "etcd_cert"),
                {"name": "IP", "value": "autodetect"},
                {"name": "FELIX_HEALTHENABLED", "value": "true"},
            ],
            "securityContext": {"privileged": true},
            "resources": {"requests": {"cpu": "250m"}},
            "livenessProbe": probe("/liveness"),
            "readinessProbe": probe("/readiness"),
            "volumeMounts": [
                {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true},
                {"name": "var-run-calico", "mountPath": "/var/run/calico"},
                certificates,
            ],
        },
        {
            "name": "install-cni", "image": "quay.example/calico/cni:v2.0.6",
            "command": ["/install-cni.sh"],
            "env": [from_config("ETCD_ENDPOINTS", "etcd_endpoints")],
            "volumeMounts": [certificates],
        },
    ]);
    let volumes = json!([
        {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
        {"name": "var-run-calico", "hostPath": {"path": "/var/run/calico"}},
        {"name": "etcd-certs", "secret": {"secretName": "calico-etcd-secrets"}},
    ]);
    daemon_set("kube-system", "calico-node", &containers, &volumes)
}
