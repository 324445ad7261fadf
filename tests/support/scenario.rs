//! Scenarios of the Calico conformance corpus: their steps, applied with the objects as either
//! datastore stores them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use margay::calico::load::{Loaded, load_endpoints, parse};
use margay::calico::model::{Kind, ObjectId, decode, decode_etcd};
use margay::calico::{Resolver, Settings, yaml};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How the objects are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Etcd,
    Kubernetes,
}

#[derive(Debug, Deserialize)]
pub struct Scenario {
    pub scenario: String,
    pub node: String,
    pub env: BTreeMap<String, String>,
    pub block_affinities: bool,
    pub backends: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    pub apply: Vec<String>,
    pub upsert: Files,
    pub delete: Files,
    pub kubectl_apply: Files,
    pub kubectl_upsert: Files,
    pub kubectl_delete: Files,
    pub kubectl_delete_secret: String,
    pub touch_node: String,
    pub files: Vec<String>,
    pub repeat: usize,
    pub interval_ms: u64,
    pub expect: Option<String>,
    pub expect_bgp_sessions_v4: Option<usize>,
}

/// One file, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Files {
    One(String),
    Many(Vec<String>),
}

impl Default for Files {
    fn default() -> Self {
        Files::Many(Vec::new())
    }
}

impl Files {
    fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Files::One(file) => std::slice::from_ref(file),
            Files::Many(files) => files.as_slice(),
        }
        .iter()
    }
}

/// The corpus.
pub fn corpus() -> PathBuf {
    let shared = std::env::var("MARGAY_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_owned());
    let root = Path::new(&shared).join("conformance/calico");
    assert!(root.is_dir(), "no corpus at {}: set MARGAY_SHARED", root.display());
    root
}

pub fn scenarios(root: &Path) -> Vec<Scenario> {
    let index = std::fs::read_to_string(root.join("index.json")).expect("index.json");
    serde_json::from_str(&index).expect("index.json")
}

/// A resolver that runs through a scenario.
pub struct Run<'a> {
    root: &'a Path,
    backend: Backend,
    pub resolver: Resolver,
    pub settings: Settings,
}

impl<'a> Run<'a> {
    pub fn new(root: &'a Path, scenario: &Scenario, backend: Backend) -> Self {
        let mut settings = Settings::from_env(&scenario.node, &scenario.env);
        // The golden files are from confd of Calico's master.
        settings.version = Some("v3.33.0".to_owned());
        let mut run = Run { root, backend, resolver: Resolver::new(settings.clone()), settings };
        if scenario.block_affinities {
            let file = match backend {
                Backend::Etcd => "_common/block-affinities.etcd.txt",
                Backend::Kubernetes => "_common/block-affinities.yaml",
            };
            run.load(file);
        }
        run
    }

    pub fn step(&mut self, step: &Step) {
        for file in &step.files {
            let folder = self.root.join(file);
            let folder = folder.parent().expect("a folder");
            for endpoint in load_endpoints(folder).expect("endpoint-status") {
                self.resolver.apply(endpoint);
            }
        }
        let applied = [&step.upsert, &step.kubectl_apply, &step.kubectl_upsert];
        for file in step.apply.iter().chain(applied.into_iter().flat_map(Files::iter)) {
            for object in self.documents(file) {
                self.apply(object);
            }
        }
        for file in step.delete.iter().chain(step.kubectl_delete.iter()) {
            for object in self.documents(file) {
                let id = decode(object).expect("an object").expect("of a known kind").id;
                self.resolver.withdraw(&id);
            }
        }
        if let Some((namespace, name)) = step.kubectl_delete_secret.split_once('/') {
            let id = ObjectId {
                kind: Kind::Secret,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            self.resolver.withdraw(&id);
        }
    }

    fn load(&mut self, file: &str) {
        let text = std::fs::read_to_string(self.root.join(file)).expect(file);
        let mut loaded = Loaded::default();
        parse(file, &text, &mut loaded);
        assert_eq!(loaded.problems, []);
        assert!(!loaded.objects.is_empty(), "{file}");
        for object in loaded.objects {
            self.resolver.apply(object);
        }
    }

    fn documents(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.root.join(file)).expect(file);
        let documents = yaml::documents(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(!documents.is_empty(), "{file}");
        documents
    }

    fn apply(&mut self, object: Value) {
        let is_calico =
            object["apiVersion"].as_str().is_some_and(|v| v.starts_with("projectcalico.org/"));
        let decoded = match self.backend {
            Backend::Etcd if is_calico => {
                let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
                let name = object["metadata"]["name"].as_str().unwrap();
                let key = format!("/calico/resources/v3/projectcalico.org/{plural}/{name}");
                decode_etcd(&key, object.to_string().as_bytes())
            }
            Backend::Kubernetes if is_calico && object["kind"] == "Node" => {
                decode(kubernetes_node(&object)).unwrap()
            }
            Backend::Kubernetes | Backend::Etcd => {
                let mut object = object;
                if is_calico {
                    object["apiVersion"] = "crd.projectcalico.org/v1".into();
                }
                // The corpus creates Services without their status.
                if object["kind"] == "Service" {
                    object.as_object_mut().unwrap().remove("status");
                }
                decode(object).unwrap()
            }
        };
        if let Some(decoded) = decoded {
            assert!(decoded.object.is_ok(), "{decoded:?}");
            self.resolver.apply(decoded);
        }
    }
}

/// A core/v1 Node with the data of the Calico node, as calico-node writes it.
fn kubernetes_node(object: &Value) -> Value {
    let name = object["metadata"]["name"].clone();
    let (bgp, wireguard) = (&object["spec"]["bgp"], &object["spec"]["wireguard"]);
    let mut annotations = Map::new();
    let mut annotate = |key: &str, value: &Value| {
        let text = match value {
            Value::Null => return,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        annotations.insert(format!("projectcalico.org/{key}"), text.into());
    };
    annotate("IPv4Address", &bgp["ipv4Address"]);
    annotate("IPv6Address", &bgp["ipv6Address"]);
    annotate("ASNumber", &bgp["asNumber"]);
    annotate("RouteReflectorClusterID", &bgp["routeReflectorClusterID"]);
    annotate("IPv4WireguardInterfaceAddr", &wireguard["interfaceIPv4Address"]);
    annotate("IPv6WireguardInterfaceAddr", &wireguard["interfaceIPv6Address"]);
    if let Value::Object(labels) = &object["metadata"]["labels"] {
        let as_text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let labels: BTreeMap<&String, String> =
            labels.iter().map(|(k, v)| (k, as_text(v))).collect();
        annotate("labels", &json!(labels).to_string().into());
    }
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {
            "name": name, "annotations": annotations,
            "labels": {
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
            },
        },
    })
}
