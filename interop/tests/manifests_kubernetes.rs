//! Applies `examples/kubernetes` to a real API server with kubectl: nothing is refused, and
//! calico-node's DaemonSet keeps what the examples do not mention. Runs `changeover`, too, with
//! Kubernetes' own DaemonSet controller; kubelet is simulated ([`interop::kubernetes::Kubelet`]).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use interop::calico::Beside;
use interop::kubernetes::{Group, Kubelet, Kubernetes, Site, calico_node, sessions};
use interop::lab::{self, Lab};
use interop::margay::binary;
use interop::speaker::Kind;
use interop::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};

const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-node";
/// The image that `calico-node/daemonset.yaml` names.
const MARGAY: &str = "registry.example/calico-node-margay:v3.32.1";
/// kubectl's arguments that merge an overlay into the DaemonSet.
const MERGE: [&str; 5] =
    ["apply", "--server-side", "--field-manager=margay", "--force-conflicts", "--validate=strict"];

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &["curl", "openssl", "bash"], test)
}

fn folder(name: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kubernetes");
    Path::new(root).join(name).display().to_string()
}

/// Applies an object as the installation of Calico does.
fn install(kubernetes: &Kubernetes, object: &Value) -> Result<()> {
    let file = kubernetes.host().write("object.json", &object.to_string())?;
    kubernetes.run_kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
}

/// Merges one of the two overlays, after a dry run.
fn merge(kubernetes: &Kubernetes, name: &str) -> Result<()> {
    let path = folder(name);
    kubernetes.run_kubectl(&[&MERGE[..], &["--dry-run=server", "-k", &path]].concat())?;
    kubernetes.run_kubectl(&[&MERGE[..], &["-k", &path]].concat()).map(drop)
}

/// Every folder but calico-node's overlays, whose DaemonSet must exist before.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn a_real_server_accepts_each_folder() -> Result<()> {
    run("manifests", &[], |lab| {
        let kubernetes = Kubernetes::start(&lab.host("api")?, Group::V3)?;
        kubernetes.install_pod_monitor()?;
        let strict = ["apply", "--validate=strict"];
        // After a dry run there is no namespace for the objects of the other folders.
        kubernetes.run_kubectl(&[&strict[..], &["-k", &folder("namespace")]].concat())?;
        for name in [
            "route-reflector",
            "tor-speaker",
            "monitoring",
            "mesh-to-reflectors/peers",
            "mesh-to-reflectors/mesh-off",
            "mesh-to-reflectors/mesh-on",
        ] {
            let path = folder(name);
            for how in [&["--dry-run=server"][..], &[]] {
                let said = kubernetes.run_kubectl(&[&strict[..], how, &["-k", &path]].concat())?;
                ensure!(!said.is_empty(), "{name}: nothing was applied");
            }
        }
        let rbac = folder("rbac.yaml");
        kubernetes.run_kubectl(&[&strict[..], &["--dry-run=server", "-f", &rbac]].concat())?;
        // Back from reflectors: the reverse order.
        let peers = folder("mesh-to-reflectors/peers");
        kubernetes.run_kubectl(&["delete", "-k", &peers])?;
        let left = kubernetes.admin().object(&Group::V3.path("bgppeers"))?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
        let mesh = kubernetes.admin().object(&Group::V3.path("bgpconfigurations/default"))?;
        ensure!(mesh["spec"]["nodeToNodeMeshEnabled"] == true, "{mesh}");

        is_wrong_refused(&kubernetes)
    })
}

/// Faults in the accepted files would have been refused.
fn is_wrong_refused(kubernetes: &Kubernetes) -> Result<()> {
    for (name, from, to, fault) in [
        ("route-reflector/deployment.yaml", "livenessProbe:", "livenesProbe:", "unknown field"),
        ("route-reflector/deployment.yaml", "path: /liveness", "path: 5", "path"),
        (
            "route-reflector/deployment.yaml",
            "name: http\n",
            "name: an-http-port-with-a-long-name\n",
            "ports",
        ),
        ("monitoring/pod-monitor.yaml", "interval: 30s", "intervall: 30s", "unknown field"),
        ("monitoring/pod-monitor.yaml", "interval: 30s", "interval: often", "interval"),
        ("monitoring/pod-monitor.yaml", "operator: In", "operator: 5", "operator"),
    ] {
        let text = std::fs::read_to_string(folder(name))?;
        ensure!(text.contains(from), "{name}: {from}");
        let file = kubernetes.host().write("wrong.yaml", &text.replacen(from, to, 1))?;
        let file = file.display().to_string();
        let output = kubernetes.try_kubectl(&[
            "apply",
            "--validate=strict",
            "-n",
            "margay",
            "--dry-run=server",
            "-f",
            &file,
        ])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(fault), "{to}: {said}");
    }
    Ok(())
}

/// calico-node as manifests install it, as the operator does, and as v3.0's manifest did.
#[test]
#[ignore = "needs root and kube-apiserver"]
fn the_overlay_is_merged_into_the_installed_calico_node() -> Result<()> {
    run("manifests-node", &[], |lab| {
        let kubernetes = Kubernetes::start(&lab.host("api")?, Group::V3)?;
        install(&kubernetes, &calico_node::with_kubernetes("kube-system"))?;
        merge(&kubernetes, "calico-node")?;
        expect_merged(&kubernetes, DAEMONSET, &calico_node::with_kubernetes("kube-system"))?;

        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "calico-system"}});
        install(&kubernetes, &namespace)?;
        install(&kubernetes, &calico_node::with_kubernetes("calico-system"))?;
        merge(&kubernetes, "calico-node-operator")?;
        let path = DAEMONSET.replace("kube-system", "calico-system");
        let live =
            expect_merged(&kubernetes, &path, &calico_node::with_kubernetes("calico-system"))?;
        let annotations = &live["metadata"]["annotations"];
        ensure!(annotations["unsupported.operator.tigera.io/ignore"] == "true", "{annotations}");

        kubernetes.run_kubectl(&["-n", "kube-system", "delete", "daemonset", "calico-node"])?;
        install(&kubernetes, &calico_node::with_etcd_3_0())?;
        merge(&kubernetes, "calico-node")?;
        expect_merged(&kubernetes, DAEMONSET, &calico_node::with_etcd_3_0()).map(drop)
    })
}

/// Strategy, annotation and variables are the example's, and everything else is as it was
/// installed.
fn expect_merged(kubernetes: &Kubernetes, path: &str, installed: &Value) -> Result<Value> {
    let live = kubernetes.admin().object(path)?;
    let strategy = &live["spec"]["updateStrategy"];
    ensure!(strategy["type"] == "OnDelete", "{strategy}");
    ensure!(live["metadata"]["annotations"]["margay-bgp.github.io/image"] == MARGAY);
    let of = |object: &Value| object["spec"]["template"]["spec"]["containers"].clone();
    let (live_containers, installed) = (of(&live), of(installed));
    let [live_containers, installed] =
        [&live_containers, &installed].map(|list| list.as_array().cloned().unwrap_or_default());
    ensure!(live_containers.len() == installed.len(), "{live_containers:?}");
    for (now, then) in live_containers.iter().zip(&installed) {
        ensure!(now["image"] == then["image"], "{now}");
        let variables = |c: &Value| c["env"].as_array().cloned().unwrap_or_default();
        let kept = variables(then)
            .into_iter()
            .all(|variable| variables(now).iter().any(|other| other["name"] == variable["name"]));
        ensure!(kept, "a variable is gone: {now}");
        for key in ["volumeMounts", "command"] {
            ensure!(now[key] == then[key], "{key}: {now}");
        }
        let is_node = now["name"] == "calico-node";
        let has = variables(now).iter().any(|variable| variable["name"] == "MARGAY_HTTP");
        ensure!(has == is_node, "{now}");
    }
    Ok(live)
}

/// Two nodes with BIRD, whose pods the real DaemonSet controller manages.
struct Cluster {
    kubernetes: Kubernetes,
    kubelet: Kubelet,
    sites: Vec<Site>,
    inside: PathBuf,
}

impl Cluster {
    fn start(lab: &mut Lab) -> Result<Self> {
        let group = Group::V1;
        let mut kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
        kubernetes.install_rbac()?;
        let user = format!("token: {}", kubernetes.token(3600)?);
        let kubeconfig = kubernetes.kubeconfig("margay", &user)?;
        kubernetes.put(group, "ippools", "pods", &json!({"cidr": "10.65.0.0/16"}))?;
        let information = json!({"calicoVersion": "v3.32.1", "datastoreReady": true});
        kubernetes.put(group, "clusterinformations", "default", &information)?;
        let mut sites = Vec::new();
        for (number, name) in [(1, "a"), (2, "b")] {
            let host = lab.host(name)?;
            kubernetes.put_node(group, &host, number)?;
            sites.push(Site { host, block: format!("10.65.{number}.0/26") });
        }
        kubernetes.start_controllers()?;
        let kubelet = Kubelet::start(&kubernetes, &kubeconfig, &sites, Beside::default())?;
        install(&kubernetes, &calico_node::with_kubernetes("kube-system"))?;
        let inside = kubernetes.host().file("inside");
        let cluster = Self { kubernetes, kubelet, sites, inside };
        wait_until(PATIENCE, "sessions between two BIRDs", || {
            for site in &cluster.sites {
                let found = sessions(&site.host)?;
                ensure!(found == (1, 1), "{}: {found:?}", site.host.name());
            }
            Ok(())
        })?;
        Ok(cluster)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        // A test run in the background may have been started with SIGINT ignored, and bash cannot
        // handle a signal that was ignored when it started.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "bash"]);
        command.arg(folder("changeover")).args(arguments).stdin(Stdio::null());
        command.arg("--program").arg(binary()?);
        command.env("KUBECTL", self.kubelet.kubectl()).env("MARGAY_INSIDE", &self.inside);
        Ok(command)
    }

    /// Runs the script, which must exit with this code, and returns its output.
    fn expect(&self, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.command(arguments)?.output().context("bash")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said)?;
        ensure!(output.status.code() == Some(code), "{:?}, not {code}: {said}", output.status);
        println!("$ changeover {}\n{said}", arguments.join(" "));
        Ok(said)
    }

    /// Checks each node's label, and the image and readiness of its pod.
    fn expect_state(&self, wanted: [&str; 2]) -> Result<()> {
        let status = self.expect(&["status"], 0)?;
        for (site, wanted) in self.sites.iter().zip(wanted) {
            let name = site.host.name();
            let line = status.lines().find(|line| line.starts_with(&format!("{name} ")));
            let line = line.with_context(|| status.clone())?;
            let image = if wanted == "margay" { MARGAY } else { calico_node::IMAGE };
            let words: Vec<&str> = line.split(' ').collect();
            let label = words.get(1).copied().unwrap_or_default();
            ensure!(label == wanted || (label == "-" && wanted == "bird"), "{line}");
            ensure!(words.get(3) == Some(&image) && line.ends_with(" ready"), "{line}");
        }
        self.kubelet.expect_no_fault()
    }

    /// A run that is interrupted while a pod does not become ready can be reverted: the label says
    /// how far it was.
    fn is_put_back_after_an_interruption(&self) -> Result<()> {
        let mut command = self.command(&["to-margay", "a"])?;
        let mut script = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_until(PATIENCE, "the pod that never becomes ready", || {
            let status = self.expect(&["status"], 0)?;
            ensure!(
                status.contains("a to-margay ") && status.contains("/broken:1 not ready"),
                "{status}"
            );
            Ok(())
        })?;
        lab::run_command(Command::new("kill").args(["-INT", &script.id().to_string()]))?;
        // bash handles the signal after the command that it waits for has ended.
        let code = script.wait()?.code();
        ensure!(code == Some(130), "{code:?}");
        let said = self.expect(&["to-bird", "a"], 0)?;
        ensure!(said.contains("a: is between the two"), "{said}");
        self.expect_state(["bird", "bird"])
    }

    /// The UIDs of the pods, of which one changes when its pod is replaced.
    fn uids(&self) -> Result<String> {
        let columns = "jsonpath={.items[*].metadata.uid}";
        self.kubernetes.run_kubectl(&["-n", "kube-system", "get", "pods", "-o", columns])
    }

    fn set(&self, what: &[&str]) -> Result<()> {
        self.kubernetes.run_kubectl(&[&["-n", "kube-system"], what].concat()).map(drop)
    }
}

/// To margay and back: faults are refused before anything is changed, a node that does not become
/// ready is reverted, and an interrupted run can be repeated.
#[test]
#[ignore = "needs root, BIRD 1.6 and kube-apiserver"]
fn nodes_change_over_one_by_one_and_back() -> Result<()> {
    run("changeover", &[Kind::Bird16], |lab| {
        let cluster = Cluster::start(lab)?;
        // Refused while every change of the template replaces pods.
        let said = cluster.expect(&["to-margay"], 1)?;
        ensure!(said.contains("RollingUpdate"), "{said}");
        merge(&cluster.kubernetes, "calico-node")?;
        wait_until(PATIENCE, "ready pods", || cluster.expect_state(["bird", "bird"]))?;

        let before = cluster.uids()?;
        let said = cluster.expect(&["to-margay", "--dry-run"], 0)?;
        ensure!(said.matches("go: nothing changes").count() == 2, "{said}");
        ensure!(cluster.uids()? == before, "a dry run replaced a pod");

        // A wrong value is named, and no pod is touched.
        cluster.set(&["set", "env", "daemonset/calico-node", "MARGAY_HTTP=nowhere"])?;
        let said = cluster.expect(&["to-margay"], 2)?;
        ensure!(said.contains("MARGAY_HTTP") && said.contains("margay check refuses"), "{said}");
        ensure!(cluster.uids()? == before, "a wrong value replaced a pod");
        cluster.set(&["set", "env", "daemonset/calico-node", "MARGAY_HTTP=127.0.0.1:9479"])?;

        // An object that margay would follow and BIRD does not: the doctor reports it, and nothing
        // is changed.
        let peer = json!({"peerIP": "10.99.0.77", "asNumber": 65001});
        cluster.kubernetes.put(Group::V1, "bgppeers", "nowhere", &peer)?;
        let said = cluster.expect(&["to-margay"], 2)?;
        ensure!(said.contains("Global_10_99_0_77") && cluster.uids()? == before, "{said}");
        cluster.kubernetes.delete(Group::V1, "bgppeers", "nowhere")?;

        // An image that never becomes ready.
        let annotate = ["annotate", "--overwrite", "daemonset", "calico-node"];
        let image = |image: &str| {
            let annotation = format!("margay-bgp.github.io/image={image}");
            cluster.set(&[&annotate[..], &[&annotation]].concat())
        };
        image("registry.example/broken:1")?;
        let said = cluster.expect(&["to-margay", "--limit", "8"], 3)?;
        ensure!(said.contains("a: was not ready within 8 s and runs bird again"), "{said}");
        cluster.expect_state(["bird", "bird"])?;
        cluster.is_put_back_after_an_interruption()?;
        image(MARGAY)?;

        let said = cluster.expect(&["to-margay", "a"], 0)?;
        ensure!(said.contains("a: runs margay"), "{said}");
        cluster.expect_state(["margay", "bird"])?;
        // Interrupted between the label and the pod.
        let label = "margay-bgp.github.io/speaker=to-margay";
        cluster.kubernetes.run_kubectl(&["label", "node", "b", "--overwrite", label])?;
        let said = cluster.expect(&["to-margay"], 0)?;
        ensure!(
            said.contains("a: runs margay already") && said.contains("b: runs margay"),
            "{said}"
        );
        cluster.expect_state(["margay", "margay"])?;
        let before = cluster.uids()?;
        cluster.expect(&["to-margay"], 0)?;
        ensure!(cluster.uids()? == before, "a second run replaced a pod");

        cluster.expect(&["to-bird"], 0)?;
        cluster.expect_state(["bird", "bird"])
    })
}
