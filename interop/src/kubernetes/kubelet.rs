//! Simulates what kubelet, the scheduler and confd do for calico-node's pods; the lab has none of
//! them.
//!
//! The DaemonSet controller is Kubernetes' own. A pod that it creates is bound to the node that it
//! is for, and the image determines what is started in that node's namespace: margay if the name
//! contains `margay`; nothing if it contains `broken`, so that the pod never becomes ready;
//! otherwise BIRD, with the configuration that confd would have written. When a pod is deleted, its
//! speaker is killed, as in a container. Readiness is that of calico-node's `-bird-ready`, queried
//! at `bird.ctl` and written into the Pod's status. `kubectl exec` enters the namespace, with the
//! variables of the container.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{ADMIN, Api, Kubernetes, program};
use crate::bird2::birdc;
use crate::calico::{Beside, BirdNode, MargayNode};
use crate::lab::Host;

/// Interval at which pods are listed.
const TURN: Duration = Duration::from_millis(50);
/// calico-node's `--threshold-time`: every session of a younger container must be established.
const STRICT: Duration = Duration::from_secs(30);
const SECONDS_OF_DAY: f64 = 86_400.0;
/// The pods of calico-node.
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

/// A node of the cluster.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its network namespace, which has the Node's name.
    pub host: Host,
    /// Its block.
    pub block: String,
}

/// Simulates kubelet until it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    wrapper: PathBuf,
}

/// State of the thread that the test reads, too.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    beside: Beside,
    faults: Vec<String>,
    eras: Vec<Era>,
}

#[derive(Debug)]
struct Node {
    site: Site,
    container: Option<Container>,
    /// When the last container was killed.
    ended: Option<Instant>,
}

/// A container in the history of a node.
#[derive(Debug)]
struct Era {
    node: String,
    begun: SystemTime,
    is_bird: bool,
    /// If it replaced another one: since when, and until when, nothing ran there.
    nothing_ran: Option<(Instant, Instant)>,
}

/// A container that replaced another one.
#[derive(Debug)]
pub struct Replacement {
    /// The node's name.
    pub node: String,
    /// Whether the new one runs BIRD; otherwise margay.
    pub is_bird: bool,
    /// When the old one was killed.
    pub ended: Instant,
    /// When the new one was started. The time between the two is that of kubelet, the controller
    /// and the API server.
    pub begun: Instant,
}

/// What runs for a pod.
#[derive(Debug)]
struct Container {
    uid: String,
    speaker: Speaker,
    begun: Instant,
    is_ready: Option<bool>,
}

#[derive(Debug)]
enum Speaker {
    Bird(BirdNode),
    Margay(MargayNode),
    Nothing,
}

/// A pod as the server has it.
struct Listed {
    name: String,
    uid: String,
    node: Option<String>,
    /// The node that the DaemonSet controller made it for.
    meant_for: String,
    image: String,
    variables: Vec<(String, String)>,
}

impl Listed {
    fn read(pod: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let spec = &pod["spec"];
        let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        let containers = spec["containers"].as_array().context("no containers")?;
        let container = containers.iter().find(|c| c["name"] == "calico-node");
        let container = container.context("no calico-node")?;
        let variables = container["env"].as_array().into_iter().flatten();
        let variables = variables
            .filter_map(|variable| Some((text(&variable["name"])?, text(&variable["value"])?)));
        Ok(Self {
            name: text(&pod["metadata"]["name"]).context("no name")?,
            uid: text(&pod["metadata"]["uid"]).context("no uid")?,
            node: text(&spec["nodeName"]),
            meant_for: text(&terms[0]["matchFields"][0]["values"][0]).unwrap_or_default(),
            image: text(&container["image"]).context("no image")?,
            variables: variables.collect(),
        })
    }
}

/// The thread's access to the API, and what containers are started with.
struct Client {
    host: Host,
    url: String,
    ca: String,
    kubeconfig: PathBuf,
    bin: PathBuf,
}

impl Client {
    fn api(&self) -> Api<'_> {
        Api::new(&self.host, self.url.clone(), self.ca.clone(), ADMIN.to_owned())
    }

    fn pods(&self) -> Result<Vec<Listed>> {
        let list = self.api().object(&format!("{PODS}?labelSelector=k8s-app%3Dcalico-node"))?;
        let items = list["items"].as_array().context("no list of pods")?;
        items.iter().map(Listed::read).collect()
    }

    fn bind(&self, pod: &Listed) -> Result<()> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": pod.meant_for},
        });
        self.write("POST", &format!("{PODS}/{}/binding", pod.name), &binding)
    }

    /// Writes a part of a pod, which may have been deleted since it was listed.
    fn write(&self, method: &str, path: &str, object: &Value) -> Result<()> {
        let media_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let (code, text) = self.api().send(method, path, media_type, &object.to_string())?;
        ensure!(matches!(code, 200 | 201 | 404), "{method} {path}: {code} {text}");
        Ok(())
    }

    fn write_status(&self, pod: &Listed, host: &Host, is_ready: bool) -> Result<()> {
        let address = host.v4().to_string();
        let status = if is_ready { "True" } else { "False" };
        let change = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": status}],
        }});
        self.write("PATCH", &format!("{PODS}/{}/status", pod.name), &change)
    }

    /// The environment of a container's margay.
    fn variables(&self, host: &Host, pod: &Listed) -> Vec<(String, String)> {
        let file = |name: &str| host.file(name).display().to_string();
        let own = [
            ("NODENAME", host.name().to_owned()),
            ("DATASTORE_TYPE", "kubernetes".to_owned()),
            ("KUBECONFIG", self.kubeconfig.display().to_string()),
            ("MARGAY_SOCKET", file("margay.sock")),
            ("MARGAY_BIRD_SOCKETS", format!("{},{}", file("bird.ctl"), file("bird6.ctl"))),
            ("MARGAY_STATE_FILE", file("objects")),
            ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", file("status")),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        pod.variables.iter().cloned().chain(own).collect()
    }

    /// Writes the script by which `kubectl exec` enters the pod.
    fn write_exec(&self, host: &Host, pod: &Listed, is_margay: bool) -> Result<()> {
        let path = if is_margay { format!("{}:", self.bin.display()) } else { String::new() };
        let mut script = format!(
            "#!/bin/sh\nexec ip netns exec {} env -i PATH={path}/usr/sbin:/usr/bin:/sbin:/bin",
            host.namespace()
        );
        for (name, value) in self.variables(host, pod) {
            script.push_str(&format!(" '{name}={value}'"));
        }
        script.push_str(" \"$@\"\n");
        write_program(&self.host.file(&format!("exec-{}", pod.name)), &script)
    }
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

impl Kubelet {
    /// Starts for these nodes; margay reads the API with `kubeconfig`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn start(
        kubernetes: &Kubernetes,
        kubeconfig: &Path,
        sites: &[Site],
        beside: Beside,
    ) -> Result<Self> {
        let host = kubernetes.host();
        let bin = host.file("bin");
        std::fs::create_dir_all(&bin)?;
        std::os::unix::fs::symlink(crate::margay::binary()?, bin.join("margay"))?;
        let wrapper = host.file("kubectl.sh");
        write_program(&wrapper, &wrapper_script(kubernetes)?)?;
        let nodes = sites.iter().map(|site| {
            (site.host.name().to_owned(), Node { site: site.clone(), container: None, ended: None })
        });
        let state = State { nodes: nodes.collect(), beside, ..State::default() };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state: Mutex::new(state) });
        let client = Client {
            host: host.clone(),
            url: kubernetes.url(),
            ca: kubernetes.ca(),
            kubeconfig: kubeconfig.to_owned(),
            bin,
        };
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !seen.stop.load(Ordering::Relaxed) {
                let mut state = lock(&seen);
                if let Err(error) = state.turn(&client) {
                    state.faults.push(format!("{error:#}"));
                }
                drop(state);
                std::thread::sleep(TURN);
            }
        });
        Ok(Self { shared, thread: Some(thread), wrapper })
    }

    /// The lab's `kubectl`, with `exec`.
    #[must_use]
    pub fn kubectl(&self) -> &Path {
        &self.wrapper
    }

    /// Fails if a turn of the thread has failed.
    ///
    /// # Errors
    /// Those of the turns.
    pub fn expect_no_fault(&self) -> Result<()> {
        let faults = &lock(&self.shared).faults;
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    /// Whether a node ran BIRD at that second of the day, in UTC.
    #[must_use]
    pub fn ran_bird(&self, node: &str, second: f64) -> bool {
        let state = lock(&self.shared);
        let begun = |era: &Era| {
            let since = era.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            since.as_secs_f64() % SECONDS_OF_DAY
        };
        let mut eras = state.eras.iter().rev();
        let era = eras.find(|era| era.node == node && begun(era) <= second);
        era.is_some_and(|era| era.is_bird)
    }

    /// The containers that have replaced others, in order.
    #[must_use]
    pub fn replacements(&self) -> Vec<Replacement> {
        let state = lock(&self.shared);
        let replacement = |era: &Era| {
            let (ended, begun) = era.nothing_ran?;
            Some(Replacement { node: era.node.clone(), is_bird: era.is_bird, ended, begun })
        };
        state.eras.iter().filter_map(replacement).collect()
    }

    /// Removes a node: its speaker ends, and BIRDs that are started later have no session with it.
    pub fn remove(&self, name: &str) {
        lock(&self.shared).nodes.remove(name);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    // If the lock is poisoned, the test that failed has said why.
    shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// kubectl with the administrator's rights, whose `exec` runs what [`Client::write_exec`] has
/// written.
fn wrapper_script(kubernetes: &Kubernetes) -> Result<String> {
    let host = kubernetes.host();
    let kubeconfig = kubernetes.kubeconfig("admin", &format!("token: {ADMIN}"))?;
    Ok(format!(
        "#!/bin/sh\n\
         # Called as `-n NAMESPACE exec -i POD -c CONTAINER -- COMMAND` where it enters a container.\n\
         if [ \"$3\" = exec ]; then\n    \
             pod=$5\n    \
             shift 8\n    \
             [ -x {prefix}exec-$pod ] || {{ echo \"no container of $pod runs\" >&2; exit 1; }}\n    \
             exec {prefix}exec-$pod \"$@\"\n\
         fi\n\
         exec ip netns exec {namespace} {kubectl} --kubeconfig {kubeconfig} --cache-dir {cache} \"$@\"\n",
        prefix = host.file("").display(),
        namespace = host.namespace(),
        kubectl = program("kubectl")?.display(),
        kubeconfig = kubeconfig.display(),
        cache = host.file("kubectl").display(),
    ))
}

impl State {
    /// Kills containers without a pod, then binds, starts and reports on the pods.
    fn turn(&mut self, client: &Client) -> Result<()> {
        let pods = client.pods()?;
        for node in self.nodes.values_mut() {
            let is_gone = |c: &mut Container| !pods.iter().any(|pod| pod.uid == c.uid);
            if let Some(container) = node.container.take_if(is_gone) {
                node.ended = Some(Instant::now());
                container.speaker.kill()?;
            }
        }
        let mesh: Vec<IpAddr> = self.nodes.values().map(|node| node.site.host.v4()).collect();
        for pod in &pods {
            let Some(name) = &pod.node else {
                client.bind(pod)?;
                continue;
            };
            let Some(node) = self.nodes.get_mut(name) else { continue };
            if node.container.is_none() {
                let is_margay = pod.image.contains("margay");
                client.write_exec(&node.site.host, pod, is_margay)?;
                client.write_status(pod, &node.site.host, false)?;
                // Begins before the speaker writes its first route: `start` returns only when it
                // answers.
                self.eras.push(Era {
                    node: name.clone(),
                    begun: SystemTime::now(),
                    is_bird: !is_margay,
                    nothing_ran: node.ended.map(|ended| (ended, Instant::now())),
                });
                node.container = Some(Container {
                    uid: pod.uid.clone(),
                    speaker: Speaker::start(client, &node.site, pod, &mesh, &self.beside)?,
                    begun: Instant::now(),
                    is_ready: None,
                });
            }
            let Some(container) = node.container.as_mut() else { continue };
            let is_ready = container.is_ready(&node.site.host);
            if container.is_ready != Some(is_ready) {
                client.write_status(pod, &node.site.host, is_ready)?;
                container.is_ready = Some(is_ready);
            }
        }
        Ok(())
    }
}

impl Speaker {
    fn start(
        client: &Client,
        site: &Site,
        pod: &Listed,
        mesh: &[IpAddr],
        beside: &Beside,
    ) -> Result<Self> {
        let host = &site.host;
        // Each container starts with files of its own. The sockets are in a folder of the node: a
        // process replaces those that a killed one has left there.
        if pod.image.contains("margay") {
            let variables = client.variables(host, pod);
            return Ok(Self::Margay(MargayNode::from_variables(host, variables)?));
        }
        if pod.image.contains("broken") {
            return Ok(Self::Nothing);
        }
        let others: Vec<IpAddr> = mesh.iter().copied().filter(|a| *a != host.v4()).collect();
        Ok(Self::Bird(BirdNode::start_beside(host, &others, &[&site.block], beside)?))
    }

    /// Kills it, as the processes of a container end with its first one.
    fn kill(self) -> Result<()> {
        match self {
            Self::Bird(mut bird) => bird.daemon().crash(),
            Self::Margay(mut margay) => margay.daemon().crash(),
            Self::Nothing => Ok(()),
        }
    }
}

impl Container {
    fn is_ready(&self, host: &Host) -> bool {
        match sessions(host) {
            Ok((up, all)) if !matches!(self.speaker, Speaker::Nothing) => {
                let is_strict = self.begun.elapsed() < STRICT;
                all == 0 || if is_strict { up == all } else { up > 0 }
            }
            _ => false,
        }
    }
}

/// The numbers of sessions that `bird.ctl` of a node shows: established ones, and all.
///
/// # Errors
/// When there is no answer.
pub fn sessions(host: &Host) -> Result<(usize, usize)> {
    let answer = birdc(&host.file("bird.ctl"), "show protocols")?;
    let (mut up, mut all) = (0, 0);
    for line in answer.lines().filter(|line| line.contains(" BGP ")) {
        all += 1;
        up += usize::from(line.contains("Established"));
    }
    if !answer.contains("proto") {
        bail!("{answer}");
    }
    Ok((up, all))
}
