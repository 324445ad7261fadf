//! A cluster of nodes that run margay with a real API server, and what is expected of it in faults.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Group, Kubernetes};
use crate::calico::MargayNode;
use crate::kernel::{self, RouteMonitor};
use crate::lab::{self, Host, Lab};
use crate::wait::wait_until;

/// Longest wait for a change after the server is back: lists are spread over five seconds, retries
/// after refusals wait for ten, and a kind that was missing is requested twice a minute.
pub const SETTLED: Duration = Duration::from_secs(75);

/// The gateways of a kernel route through this host.
#[must_use]
pub fn via(host: &Host) -> Vec<String> {
    vec![host.v4().to_string()]
}

/// A token file of margay's account, like that of a projected volume, and a kubeconfig that uses
/// it.
#[derive(Debug)]
pub struct Account {
    token: PathBuf,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Account {
    /// Creates the account with its rights, and a token that is valid for an hour.
    ///
    /// # Errors
    /// When the server refuses or a file cannot be written.
    pub fn new(kubernetes: &Kubernetes) -> Result<Self> {
        kubernetes.install_rbac()?;
        let folder = kubernetes.host().file("account");
        std::fs::create_dir_all(&folder)?;
        let token = folder.join("token");
        let kubeconfig =
            kubernetes.kubeconfig("margay", &format!("tokenFile: {}", token.display()))?;
        let account = Self { token, kubeconfig };
        account.renew(&kubernetes.token(3600)?)?;
        Ok(account)
    }

    /// Replaces the token at once, as kubelet does: by a new file and a link that is renamed.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn renew(&self, token: &str) -> Result<()> {
        let folder = self.token.parent().context("no folder")?;
        let number = std::fs::read_dir(folder)?.count();
        let file = folder.join(format!("token-{number}"));
        std::fs::write(&file, token)?;
        let link = folder.join("..new");
        std::os::unix::fs::symlink(&file, &link)?;
        Ok(std::fs::rename(link, &self.token)?)
    }
}

/// The environment of calico-node on a host, with `more` variables.
#[must_use]
pub fn environment(host: &Host, kubeconfig: &Path, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let variables = [
        ("NODENAME", host.name().to_owned()),
        ("DATASTORE_TYPE", "kubernetes".to_owned()),
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("MARGAY_HTTP", "127.0.0.1:9479".to_owned()),
        ("MARGAY_SOCKET", host.file("margay.sock").display().to_string()),
        ("MARGAY_BIRD_SOCKETS", "none".to_owned()),
        ("MARGAY_STATE_FILE", host.file("state").display().to_string()),
        ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", host.file("status").display().to_string()),
    ];
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(more).collect()
}

/// A node's plan: its sessions with their parameters and objects, and the prefixes it originates.
fn plan_of(node: &MargayNode) -> Result<BTreeSet<String>> {
    let peers = node.control.json(&["show", "peers"])?;
    let peers = peers.as_array().context("no list of peers")?.iter().map(|peer| {
        let keys = ["name", "address", "port", "remote_asn", "local_asn", "object", "filters"];
        keys.map(|key| peer[key].to_string()).join(" ")
    });
    let routes = node.control.json(&["show", "routes"])?;
    let is_own = |route: &&Value| {
        let paths = route["paths"].as_array();
        paths.is_some_and(|paths| paths.iter().any(|path| path["source"] == "static"))
    };
    let routes = routes.as_array().context("no list of routes")?;
    let routes = routes.iter().filter(is_own).map(|route| route["prefix"].to_string());
    Ok(peers.chain(routes).collect())
}

/// A cluster of nodes, each with a block and margay.
#[derive(Debug)]
pub struct Cluster {
    /// The API server.
    pub kubernetes: Kubernetes,
    /// margay's account there.
    pub account: Account,
    /// The nodes' hosts.
    pub hosts: Vec<Host>,
    /// margay on each of them.
    pub nodes: Vec<MargayNode>,
    /// Monitors of their kernels' routes.
    pub monitors: Vec<RouteMonitor>,
    /// The host on which a newly started margay computes the plan of the first node.
    fresh: Host,
    /// Number of the last block that was assigned.
    pub block: u8,
}

impl Cluster {
    /// Runs a test on a cluster of two nodes whose objects are in Calico's first group.
    ///
    /// # Errors
    /// Those of the test, and as [`Cluster::start`].
    pub fn of_two(name: &str, test: impl FnOnce(&mut Cluster, Group) -> Result<()>) -> Result<()> {
        let group = Group::V1;
        lab::run(name, &[], |lab| test(&mut Cluster::start(lab, group, &["a", "b"])?, group))
    }

    /// Starts an API server with Calico's CRDs, and a node on a host of each name.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn start(lab: &mut Lab, group: Group, names: &[&str]) -> Result<Self> {
        let kubernetes = Kubernetes::start(&lab.host("api")?, group)?;
        Self::on(lab, kubernetes, group, names)
    }

    /// As [`Cluster::start`], with an API server that runs already.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn on(lab: &mut Lab, kubernetes: Kubernetes, group: Group, names: &[&str]) -> Result<Self> {
        let mut cluster = Self::empty(lab, kubernetes)?;
        let pool = json!({"cidr": "10.65.0.0/16"});
        cluster.kubernetes.put(group, "ippools", "pods", &pool)?;
        for (number, name) in (1u8..).zip(names) {
            let host = lab.host(name)?;
            cluster.kubernetes.put_node(group, &host, number)?;
            cluster.hosts.push(host);
        }
        for host in cluster.hosts.clone() {
            let variables = environment(&host, &cluster.account.kubeconfig, &[]);
            cluster.nodes.push(MargayNode::from_variables(&host, variables)?);
        }
        for (number, host) in (1..).zip(&cluster.hosts) {
            let others = cluster.hosts.iter().filter(|other| other.name() != host.name());
            for other in others {
                kernel::wait_gateways(other, &format!("10.65.{number}.0/26"), &via(host))?;
            }
        }
        for host in &cluster.hosts {
            cluster.monitors.push(RouteMonitor::start(host)?);
        }
        Ok(cluster)
    }

    /// A cluster without nodes.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn empty(lab: &mut Lab, kubernetes: Kubernetes) -> Result<Self> {
        let account = Account::new(&kubernetes)?;
        Ok(Self {
            kubernetes,
            account,
            hosts: Vec::new(),
            nodes: Vec::new(),
            monitors: Vec::new(),
            fresh: lab.host("fresh")?,
            block: 100,
        })
    }

    /// Assigns a block to the second node, and waits for its route on the first: everything works.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_life(&mut self, group: Group, after: &str) -> Result<()> {
        self.block += 1;
        let (a, b) = (&self.hosts[0], &self.hosts[1]);
        self.kubernetes.put_block(group, b.name(), self.block)?;
        let prefix = format!("10.65.{}.0/26", self.block);
        wait_until(SETTLED, &format!("a new block after: {after}"), || {
            let route = kernel::route(a, &prefix)?;
            ensure!(route.is_some_and(|r| r.gateways == via(b)), "not there");
            Ok(())
        })?;
        self.expect_nothing_lost(after)?;
        self.expect_fresh_plan(after)
    }

    /// The first node's plan is that of a newly started margay.
    ///
    /// # Errors
    /// When it is not.
    pub fn expect_fresh_plan(&self, after: &str) -> Result<()> {
        let state = [("NODENAME", self.hosts[0].name()), ("MARGAY_STATE_FILE", "none")];
        let variables = environment(&self.fresh, &self.account.kubeconfig, &state);
        let fresh = MargayNode::from_variables(&self.fresh, variables)?;
        wait_until(SETTLED, &format!("the plan of a fresh start after: {after}"), || {
            ensure!(fresh.metric("margay_calico_in_force")? == 1.0, "{}", fresh.status()?);
            let (ours, theirs) = (plan_of(&self.nodes[0])?, plan_of(&fresh)?);
            ensure!(ours == theirs, "{ours:?}, but a fresh start {theirs:?}");
            Ok(())
        })
    }

    /// No kernel has lost a route, and no session has ended.
    ///
    /// # Errors
    /// When something was lost.
    pub fn expect_nothing_lost(&self, after: &str) -> Result<()> {
        for (host, monitor) in self.hosts.iter().zip(&self.monitors) {
            let changes = monitor.changes()?;
            ensure!(
                !changes.contains("Deleted 10.65."),
                "{} after {after}: {changes}",
                host.name()
            );
        }
        for (host, node) in self.hosts.iter().zip(&self.nodes) {
            for other in self.hosts.iter().filter(|other| other.name() != host.name()) {
                ensure!(node.sessions(other) == 1, "a session ended after {after}");
            }
        }
        Ok(())
    }

    /// The API's entry among the sources of the first node's status.
    ///
    /// # Errors
    /// When there is none.
    pub fn source(&self) -> Result<Value> {
        let status = self.nodes[0].status()?;
        let sources = status["sources"].as_array().context("no sources")?;
        let found = sources.iter().find(|source| {
            source["name"].as_str().is_some_and(|name| name.starts_with("the Kubernetes API"))
        });
        found.cloned().with_context(|| format!("{status}"))
    }

    /// Waits until the first node reports that it cannot read the API, with `part` of the reason in
    /// `show status` and `cause` as a label of the metric.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_reason(&self, cause: &str, part: &str) -> Result<()> {
        wait_until(SETTLED, part, || {
            let source = self.source()?;
            let reason = source["error"].as_str().unwrap_or_default();
            ensure!(source["state"] == "away" && reason.contains(part), "{source}");
            let metrics = self.nodes[0].metrics()?;
            let mut lines = metrics.lines().filter(|l| l.starts_with("margay_calico_source_"));
            let label = format!("cause=\"{cause}\"");
            let named = |line: &str| line.contains("_unavailable{") && line.contains(&label);
            ensure!(lines.any(named), "no {cause}: {:?}", lines.collect::<Vec<_>>());
            Ok(())
        })
    }

    /// Waits until the first node reads the API again.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_current(&self) -> Result<()> {
        wait_until(SETTLED, "the API to be read", || {
            let source = self.source()?;
            ensure!(source["state"] == "current", "{source}");
            Ok(())
        })
    }

    /// Waits until the first node names a problem.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_problem(&self, part: &str) -> Result<()> {
        wait_until(SETTLED, part, || {
            let status = self.nodes[0].status()?;
            ensure!(status["problems"].to_string().contains(part), "{}", status["problems"]);
            ensure!(
                self.nodes[0].metric("margay_calico_problems")? >= 1.0,
                "no problem is counted"
            );
            Ok(())
        })
    }
}
