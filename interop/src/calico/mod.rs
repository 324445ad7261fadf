//! A Calico cluster: etcd with objects as Calico writes them, nodes that run margay or BIRD 1.6,
//! and pods.

mod bird;
mod churn;
mod compare;
mod confd;
mod each;
pub(crate) mod etcd;
mod golden;
mod live;
mod own;
mod pod;
mod random;
mod services;

pub use bird::{Beside, BirdNode, Priorities, Writes};
pub use churn::{Churn, Usage, put_large_cluster};
pub use confd::Confd;
pub use etcd::Etcd;
pub use golden::{GoldenBird, Node, Scenario, WITHOUT_PASSWORD};
pub use live::{Outcome, Stage};
pub use pod::{Packets, Pod, Stream};

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::lab::{Host, Lab};
use crate::margay::{Control, binary};
use crate::wait::{PATIENCE, wait_until};

/// The pool that blocks come from: no encapsulation, so that BGP's routes reach the kernel.
pub const POOL: &str = "10.65.0.0/16";

/// Where a node that is started from the environment serves its metrics.
const HTTP: &str = "127.0.0.1:9479";

/// Hosts on one network, and an etcd that holds their objects.
#[derive(Debug)]
pub struct Cluster {
    /// The datastore.
    pub etcd: Etcd,
}

impl Cluster {
    /// Starts etcd on a host of its own and writes the pool.
    ///
    /// # Errors
    /// When etcd does not come up.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        Self::with(Etcd::start(&lab.host("etcd")?)?)
    }

    /// As [`Cluster::start`], with an etcd that requires certificates and passwords.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_secured(lab: &mut Lab) -> Result<Self> {
        Self::with(Etcd::start_secured(&lab.host("etcd")?)?)
    }

    fn with(etcd: Etcd) -> Result<Self> {
        let cluster = Self { etcd };
        cluster.put("ippools", "IPPool", "pods", &json!({"cidr": POOL, "ipipMode": "Never"}))?;
        Ok(cluster)
    }

    /// Writes a resource as Calico does.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, plural: &str, kind: &str, name: &str, spec: &Value) -> Result<()> {
        self.put_labelled(plural, kind, name, &json!({}), spec)
    }

    fn put_labelled(
        &self,
        plural: &str,
        kind: &str,
        name: &str,
        labels: &Value,
        spec: &Value,
    ) -> Result<()> {
        let object = json!({
            "kind": kind, "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name, "uid": "6a0c3b1e", "labels": labels,
                         "creationTimestamp": "2026-08-20T09:15:01Z"},
            "spec": spec,
        });
        self.etcd.put(&key_of(plural, name), &object.to_string())
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, plural: &str, name: &str) -> Result<()> {
        self.etcd.delete(&key_of(plural, name))
    }

    /// Writes a Node with the host's address; `bgp` adds to its `spec.bgp`.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put_node(&self, host: &Host, labels: &Value, bgp: &Value) -> Result<()> {
        let mut spec = json!({
            "bgp": {"ipv4Address": format!("{}/24", host.v4())},
            "orchRefs": [{"nodeName": host.name(), "orchestrator": "k8s"}],
        });
        if let (Some(all), Some(more)) = (spec["bgp"].as_object_mut(), bgp.as_object()) {
            all.extend(more.clone());
        }
        self.put_labelled("nodes", "Node", host.name(), labels, &spec)
    }

    /// Writes a block of the pool for a node: `10.65.N.0/26`.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put_block(&self, host: &Host, number: u8) -> Result<String> {
        let key = format!("/calico/ipam/v2/host/{}/ipv4/block/10.65.{number}.0-26", host.name());
        self.etcd.put(&key, r#"{"state":"confirmed","deleted":false}"#)?;
        Ok(format!("10.65.{number}.0/26"))
    }

    /// Creates a host, with a Node object and one block.
    ///
    /// # Errors
    /// When the host cannot be made or etcd refuses.
    pub fn node(&self, lab: &mut Lab, name: &str, number: u8) -> Result<Host> {
        let host = lab.host(name)?;
        self.put_node(&host, &json!({"rack": "r1"}), &json!({}))?;
        self.put_block(&host, number)?;
        Ok(host)
    }
}

/// The environment of calico-node on a host, for a process outside a container.
#[must_use]
pub fn environment(host: &Host, cluster: &Cluster, bird_sockets: &str) -> Vec<(String, String)> {
    let variables = [
        ("NODENAME", host.name().to_owned()),
        ("MARGAY_HTTP", HTTP.to_owned()),
        ("MARGAY_SOCKET", host.file("margay.sock").display().to_string()),
        ("MARGAY_BIRD_SOCKETS", bird_sockets.to_owned()),
        ("MARGAY_STATE_FILE", "none".to_owned()),
        ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", host.file("status").display().to_string()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    variables.into_iter().chain(cluster.etcd.environment()).collect()
}

fn key_of(plural: &str, name: &str) -> String {
    format!("/calico/resources/v3/projectcalico.org/{plural}/{name}")
}

/// margay on a node, configured by calico-node's environment or by `[calico]`.
#[derive(Debug)]
pub struct MargayNode {
    host: Host,
    daemon: Daemon,
    /// Its control socket.
    pub control: Control,
    start: Start,
}

/// How margay is configured.
#[derive(Debug, Clone)]
enum Start {
    Environment(Vec<(String, String)>),
    File(PathBuf),
}

impl Start {
    /// margay's command on the host, with these arguments and this configuration.
    fn command(&self, host: &Host, arguments: &[&str]) -> Result<Command> {
        let mut command = host.command(&binary()?.to_string_lossy());
        command.args(arguments);
        match self {
            Start::Environment(variables) => {
                command.envs(variables.iter().map(|(name, value)| (name, value)));
            }
            Start::File(path) => {
                command.arg("--config").arg(path);
            }
        }
        Ok(command)
    }
}

impl MargayNode {
    /// Starts margay with nothing but the environment.
    ///
    /// # Errors
    /// When it does not answer on its socket in time.
    pub fn from_environment(host: &Host, cluster: &Cluster) -> Result<Self> {
        Self::start(host, Start::Environment(environment(host, cluster, "none")))
    }

    /// Starts margay with these variables.
    ///
    /// # Errors
    /// As [`MargayNode::from_environment`].
    pub fn from_variables(host: &Host, variables: Vec<(String, String)>) -> Result<Self> {
        Self::start(host, Start::Environment(variables))
    }

    /// As [`MargayNode::from_environment`], with BIRD's protocol on two sockets, IPv4 and IPv6.
    ///
    /// # Errors
    /// As [`MargayNode::from_environment`].
    pub fn with_bird_sockets(host: &Host, cluster: &Cluster) -> Result<(Self, [PathBuf; 2])> {
        let sockets = [host.file("bird.ctl"), host.file("bird6.ctl")];
        let listed = format!("{},{}", sockets[0].display(), sockets[1].display());
        let variables = environment(host, cluster, &listed);
        Ok((Self::start(host, Start::Environment(variables))?, sockets))
    }

    /// Starts margay with `[calico]` and further lines of that table. It does not serve BIRD's
    /// sockets, whose default paths all margays of this machine would share.
    ///
    /// # Errors
    /// As [`MargayNode::from_environment`].
    pub fn from_file(host: &Host, cluster: &Cluster, lines: &str) -> Result<Self> {
        let state = if lines.contains("state-file") { "" } else { "state-file = \"none\"\n" };
        let text = format!(
            "[calico]\nnode = \"{}\"\n{}{state}endpoint-status = \"{}\"\nbird-sockets = \"none\"\n\
             {lines}\n{}",
            host.name(),
            cluster.etcd.section()?,
            host.file("status/endpoint-status").display(),
            crate::margay::control_section(host),
        );
        let path = host.write("margay.toml", &text)?;
        Self::start(host, Start::File(path))
    }

    /// As [`MargayNode::from_environment`], without waiting for an answer.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(host: &Host, cluster: &Cluster) -> Result<Self> {
        Self::spawn_by(host, Start::Environment(environment(host, cluster, "none")))
    }

    fn spawn_by(host: &Host, start: Start) -> Result<Self> {
        let command = start.command(host, &["run"])?;
        let daemon = Daemon::start(command, &host.file("margay.log"))?;
        Ok(Self { host: host.clone(), daemon, control: Control::of(host), start })
    }

    fn start(host: &Host, start: Start) -> Result<Self> {
        let mut node = Self::spawn_by(host, start)?;
        wait_until(PATIENCE, "margay's control socket", || {
            if let Some(status) = node.daemon.exited()? {
                anyhow::bail!("margay exited with {status}: {}", node.daemon.output());
            }
            node.control.text(&["show", "status"]).map(drop)
        })?;
        Ok(node)
    }

    /// The margay process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Starts it again after it has ended.
    ///
    /// # Errors
    /// As [`MargayNode::from_environment`].
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.daemon.exited()?.is_some(), "margay still runs");
        *self = Self::start(&self.host, self.start.clone())?;
        Ok(())
    }

    /// The exit code of `margay calico plan --live` with these arguments, and what it prints, as on
    /// the node.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn plan_live(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = self.start.command(&self.host, &["calico", "plan", "--live"])?;
        let output = command.args(arguments).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    }

    /// Waits until the session with a neighbour is established.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_session(&self, neighbor: &Host) -> Result<Session> {
        wait_until(PATIENCE, &format!("{} to reach {}", self.host.name(), neighbor.name()), || {
            let session = self.session(neighbor)?;
            ensure!(session.state == "Established", "{session:?}");
            Ok(session)
        })
    }

    /// How many sessions with a neighbour this process has had. Their times would not tell: they
    /// are in whole seconds, and a session restarts in milliseconds.
    #[must_use]
    pub fn sessions(&self, neighbor: &Host) -> usize {
        let established = format!("session established with {} ", neighbor.v4());
        self.daemon.output().matches(&established).count()
    }

    /// The session with a neighbour.
    ///
    /// # Errors
    /// When there is none.
    pub fn session(&self, neighbor: &Host) -> Result<Session> {
        let peer = self.control.peer(neighbor.v4())?;
        let text = |key: &str| peer[key].as_str().map(str::to_owned).context(key.to_owned());
        Ok(Session { name: text("name")?, state: text("state")? })
    }

    /// The names of all peers, sorted.
    ///
    /// # Errors
    /// When margay does not answer.
    pub fn peers(&self) -> Result<Vec<String>> {
        let peers = self.control.json(&["show", "peers"])?;
        let peers = peers.as_array().context("not a list")?;
        let mut names: Vec<String> =
            peers.iter().filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the peers are exactly these.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn wait_peers(&self, wanted: &[String]) -> Result<()> {
        let mut wanted = wanted.to_vec();
        wanted.sort();
        wait_until(PATIENCE, &format!("peers {wanted:?} of {}", self.host.name()), || {
            let peers = self.peers()?;
            ensure!(peers == wanted, "found {peers:?}");
            Ok(())
        })
    }

    /// All metrics as they are scraped, of a node that was started from the environment.
    ///
    /// # Errors
    /// When margay does not answer.
    pub fn metrics(&self) -> Result<String> {
        let script = format!(
            "import urllib.request as r; print(r.urlopen('http://{HTTP}/metrics').read().decode())"
        );
        self.host.run("python3", &["-c", &script])
    }

    /// A metric without labels, of a node that was started from the environment.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    }

    /// CPU and memory of the process so far.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.daemon.pid())
    }

    /// The key `calico` of `show status`.
    ///
    /// # Errors
    /// When margay does not answer.
    pub fn status(&self) -> Result<Value> {
        Ok(self.control.json(&["show", "status"])?["calico"].clone())
    }
}

/// A session as `show peers` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The peer's name.
    pub name: String,
    /// FSM state.
    pub state: String,
}

/// The name that Calico gives a session with this host.
#[must_use]
pub fn session_name(kind: &str, host: &Host) -> String {
    format!("{kind}_{}", host.v4().to_string().replace('.', "_"))
}
