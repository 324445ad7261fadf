//! A cluster changes over from BIRD to margay and back, end to end: a real API server with the real
//! controllers of DaemonSets and EndpointSlices, three nodes with pods, a reflector and a
//! top-of-rack router (FRR). All nodes begin with BIRD 1.6.8; `examples/kubernetes/changeover`
//! moves them to margay one by one; the full mesh is replaced by sessions with the reflector, which
//! is then killed; a node is drained and deleted; and everything is moved back. Meanwhile pods send
//! to each other, the router sends to a service's address, and CalicoNodeStatus is written.
//!
//! kubelet is simulated: [`interop::kubernetes::Kubelet`] describes how.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::ask;
use interop::calico::{Beside, Packets, Pod};
use interop::daemon::Daemon;
use interop::frr::Frr;
use interop::kernel::{self, RouteMonitor};
use interop::kubernetes::gap::{Answers, Gap, SOCKET, gaps_of_frr, gaps_of_margay};
use interop::kubernetes::{Group, Kubelet, Kubernetes, Site, calico_node, sessions};
use interop::lab::{self, Host, Lab};
use interop::margay::{Control, binary};
use interop::matrix;
use interop::speaker::{Config, Kind, Neighbor, Origin, Speaker};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::{Value, json};

#[path = "../../tests/support/calico_readers.rs"]
mod readers;

const GROUP: Group = Group::V3;
const TOR_ASN: u32 = 65001;
const ASN: u32 = 64512;
/// The range of services, and the service to which the router sends.
const SERVICES: &str = "10.96.0.0/24";
const SERVICE: &str = "10.96.0.10";
/// Longest time without an answer at `bird.ctl` while a container is replaced.
const GAP: Duration = Duration::from_secs(10);
/// Longest time from the start of a new speaker's process until it answers at `bird.ctl` and its
/// sessions are established at both ends.
const SPEAKERLESS: Duration = Duration::from_secs(2);
/// BIRD's `connect delay time`, as confd writes it: BIRD dials after it where the neighbour has
/// not.
const CONNECT_DELAY: Duration = Duration::from_secs(2);
/// Longest time without a route while BIRD 1.6 replaces one, in seconds: it deletes the old one and
/// then adds the new one.
const REPLACING: f64 = 0.05;
const STATUSES: &str = "/apis/projectcalico.org/v3/caliconodestatuses";

fn example(name: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kubernetes");
    Path::new(root).join(name).display().to_string()
}

/// `examples/kubernetes/route-reflector/margay.toml` on a host, with the lab's network.
struct Reflector {
    host: Host,
    config: PathBuf,
    daemon: Daemon,
}

impl Reflector {
    fn start(host: &Host) -> Result<Self> {
        let text = std::fs::read_to_string(example("route-reflector/margay.toml"))?;
        let text = text.replace("10.0.0.0/16", "10.99.0.0/16");
        let socket = host.file("margay.sock");
        let text = format!("{text}\n[control]\nsocket = \"{}\"\n", socket.display());
        let config = host.write("margay.toml", &text)?;
        let daemon = Self::run(host, &config)?;
        Ok(Self { host: host.clone(), config, daemon })
    }

    fn run(host: &Host, config: &Path) -> Result<Daemon> {
        let mut command = host.command(&binary()?.display().to_string());
        command.args(["run", "--config"]).arg(config);
        Daemon::start(command_with_ip(command, host), &host.file("margay.log"))
    }

    /// Kills and restarts it, as kubelet restarts a container.
    fn crash(&mut self) -> Result<()> {
        self.daemon.crash()?;
        self.daemon = Self::run(&self.host, &self.config)?;
        Ok(())
    }

    fn established(&self) -> Result<usize> {
        let peers = Control::of(&self.host).json(&["show", "peers"])?;
        let peers = peers.as_array().context("no list")?;
        Ok(peers.iter().filter(|peer| peer["state"] == "Established").count())
    }

    /// Number of sessions with a neighbour since this process was started.
    fn sessions(&self, neighbor: &Host) -> usize {
        let established = format!("session established with {} ", neighbor.v4());
        self.daemon.output().matches(&established).count()
    }
}

fn command_with_ip(mut command: Command, host: &Host) -> Command {
    command.env("HOST_IP", host.v4().to_string());
    command
}

fn start_tor(host: &Host, nodes: &[&Host]) -> Result<Frr> {
    let neighbor = |node: &&Host| Neighbor {
        port: 179,
        graceful_restart: true,
        hold_time: 90,
        ..matrix::neighbor(node.v4(), host.v4(), ASN)
    };
    let config = Config {
        asn: TOR_ASN,
        router_id: host.router_id(),
        port: 179,
        neighbors: nodes.iter().map(neighbor).collect(),
        origins: vec![Origin::plain("203.0.113.0/24")],
    };
    let tor = Frr::start(host, &config)?;
    // FRR before 10.2 never removes the stale paths of a neighbour that returns with other ADD-PATH
    // identifiers, as after a change between BIRD and margay:
    // https://github.com/FRRouting/frr/issues/17372.
    let mut lines = vec!["configure terminal".to_owned(), format!("router bgp {TOR_ASN}")];
    lines.push("address-family ipv4 unicast".to_owned());
    lines.extend(nodes.iter().map(|node| format!("neighbor {} disable-addpath-rx", node.v4())));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answer = tor.ask(&lines)?;
    ensure!(!answer.contains('%'), "{answer}");
    let lines = ["configure terminal", "log timestamp precision 6"];
    tor.ask(
        &[&lines[..], &[&format!("router bgp {TOR_ASN}"), "bgp log-neighbor-changes"]].concat(),
    )?;
    Ok(tor)
}

/// calico-node's status reporter, which is part of neither BIRD nor margay: queries `bird.ctl` as
/// it does and writes CalicoNodeStatus.
struct Reporter {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Answers that could not be parsed, and writes that the server refused.
    faults: Vec<String>,
    /// The longest time without an answer, by node.
    gaps: BTreeMap<String, Duration>,
    reports: usize,
}

/// The status that the reporter writes. `None`: there is no answer.
fn report(host: &Host) -> Result<Option<Value>> {
    let socket = host.file("bird.ctl");
    let Ok(status) = ask(&socket, "show status", "0013") else { return Ok(None) };
    // The container may end between the two queries.
    let Ok(protocols) = ask(&socket, "show protocols", "0000") else { return Ok(None) };
    let agent = readers::agent(&status);
    let sessions = readers::sessions(&protocols, ".").map_err(|fault| anyhow::anyhow!(fault))?;
    let is_up = |session: &&readers::Session| session.info.starts_with("Established");
    let peers: Vec<Value> = sessions
        .iter()
        .map(|session| {
            let kind = if session.kind == "Mesh" { "NodeMesh" } else { "GlobalPeer" };
            let state = session.info.split(' ').next().unwrap_or_default();
            json!({"peerIP": session.peer_ip, "type": kind, "state": state, "since": session.since})
        })
        .collect();
    let up = sessions.iter().filter(is_up).count();
    Ok(Some(json!({
        "agent": {"birdV4": {
            "state": if agent.ready { "Ready" } else { "NotReady" },
            "version": agent.version, "routerID": agent.router_id,
            "lastBootTime": agent.last_boot,
            "lastReconfigurationTime": agent.last_reconfiguration,
        }},
        "bgp": {
            "numberEstablishedV4": up, "numberNotEstablishedV4": sessions.len() - up,
            "numberEstablishedV6": 0, "numberNotEstablishedV6": 0, "peersV4": peers,
        },
    })))
}

impl Reporter {
    fn start(kubernetes: &Arc<Kubernetes>, hosts: &[Host]) -> Result<Self> {
        for host in hosts {
            let object = json!({
                "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus",
                "metadata": {"name": host.name()},
                "spec": {"node": host.name(), "classes": ["Agent", "BGP"],
                         "updatePeriodSeconds": 1},
            });
            kubernetes.admin().post(STATUSES, &object)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, written) = (Arc::clone(&stop), Arc::clone(&seen));
        let (kubernetes, hosts) = (Arc::clone(kubernetes), hosts.to_vec());
        let thread = std::thread::spawn(move || {
            let mut answered: BTreeMap<String, Instant> = BTreeMap::new();
            let mut last: BTreeMap<String, Value> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for host in &hosts {
                    let name = host.name().to_owned();
                    let outcome = report(host);
                    let mut seen = written.lock().expect("no holder panics");
                    match outcome {
                        Ok(Some(status)) => {
                            answered.insert(name.clone(), Instant::now());
                            seen.reports += 1;
                            // Like the reporter: an unchanged status is not written.
                            if last.get(&name) == Some(&status) {
                                continue;
                            }
                            let path = format!("{STATUSES}/{name}");
                            let change = json!({"status": status});
                            if let Err(error) = kubernetes.admin().patch(&path, &change) {
                                seen.faults.push(format!("{error:#}"));
                            }
                            last.insert(name, status);
                        }
                        Ok(None) => {
                            let since = answered.get(&name).map(Instant::elapsed);
                            let gap = seen.gaps.entry(name).or_default();
                            *gap = since.unwrap_or_default().max(*gap);
                        }
                        Err(error) => seen.faults.push(format!("{name}: {error:#}")),
                    }
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// Fails unless every answer was parsed, and no node was without one for [`GAP`].
    fn expect_good(&self, nodes: &[&Host]) -> Result<String> {
        let seen = self.seen.lock().expect("no holder panics");
        ensure!(seen.faults.is_empty(), "CalicoNodeStatus: {}", seen.faults.join("\n"));
        let gaps = nodes.iter().filter_map(|node| seen.gaps.get(node.name())).max();
        let gap = gaps.copied().unwrap_or_default();
        ensure!(gap < GAP, "CalicoNodeStatus: no answer for {gap:?}");
        Ok(format!("{} reports, {gap:?} without one at most", seen.reports))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The whole cluster. Fields are dropped in this order, and each ends what it runs.
struct Stage {
    reporter: Reporter,
    answers: Answers,
    kubelet: Kubelet,
    reflector: Reflector,
    tor: Frr,
    nodes: Vec<Host>,
    router: Host,
    inside: PathBuf,
    kubernetes: Arc<Kubernetes>,
}

impl Stage {
    fn start(lab: &mut Lab) -> Result<Self> {
        let mut kubernetes = Kubernetes::start(&lab.host("api")?, GROUP)?;
        kubernetes.install_crd(GROUP, "caliconodestatuses")?;
        kubernetes.install_rbac()?;
        let user = format!("token: {}", kubernetes.token(3600)?);
        let kubeconfig = kubernetes.kubeconfig("margay", &user)?;
        let mut nodes = Vec::new();
        for name in ["a", "b", "c"] {
            nodes.push(lab.host(name)?);
        }
        let (router, reflecting) = (lab.host("tor")?, lab.host("rr")?);
        put_objects(&kubernetes, &nodes, &router, &reflecting)?;
        kubernetes.start_controllers()?;
        let sites: Vec<Site> = (1..)
            .zip(&nodes)
            .map(|(number, host)| Site {
                host: host.clone(),
                block: format!("10.65.{number}.0/26"),
            })
            .collect();
        for node in &nodes {
            // In place of kube-proxy: the interface of its IPVS mode, whose addresses BGP ignores.
            lab.link(node, "kube-ipvs0")?;
            node.run("ip", &["addr", "add", &format!("{SERVICE}/32"), "dev", "kube-ipvs0"])?;
        }
        let reflector = Reflector::start(&reflecting)?;
        let tor = start_tor(&router, &nodes.iter().collect::<Vec<_>>())?;
        let beside = Beside {
            peers: vec![(router.v4(), TOR_ASN), (reflecting.v4(), ASN)],
            services: vec![SERVICES.to_owned()],
        };
        let kubelet = Kubelet::start(&kubernetes, &kubeconfig, &sites, beside)?;
        let daemonset = calico_node::with_kubernetes("kube-system").to_string();
        let file = kubernetes.host().write("daemonset.json", &daemonset)?;
        kubernetes.run_kubectl(&["apply", "-f", &file.display().to_string()])?;
        let inside = kubernetes.host().file("inside");
        kubernetes.wait_served(GROUP, "caliconodestatuses")?;
        let kubernetes = Arc::new(kubernetes);
        let reporter = Reporter::start(&kubernetes, &nodes)?;
        let answers = Answers::start(&nodes);
        Ok(Self { reporter, answers, kubelet, reflector, tor, nodes, router, inside, kubernetes })
    }

    /// Waits until each node has `wanted` sessions, all established, and CalicoNodeStatus says so,
    /// and until the blocks of all nodes are in the kernels of the others and of the router.
    fn settles(&self, wanted: usize) -> Result<()> {
        for node in &self.nodes {
            wait_until(PATIENCE, &format!("{wanted} sessions of {}", node.name()), || {
                let found = sessions(node)?;
                ensure!(found == (wanted, wanted), "{found:?}");
                let path = format!("{STATUSES}/{}", node.name());
                let status = self.kubernetes.admin().object(&path)?["status"].clone();
                let (agent, bgp) = (&status["agent"]["birdV4"], &status["bgp"]);
                ensure!(agent["state"] == "Ready", "{status}");
                ensure!(agent["routerID"] == node.v4().to_string(), "{status}");
                ensure!(bgp["numberEstablishedV4"] == wanted, "{status}");
                ensure!(bgp["numberNotEstablishedV4"] == 0, "{status}");
                Ok(())
            })?;
        }
        for (number, node) in (1..).zip(&self.nodes) {
            let block = format!("10.65.{number}.0/26");
            for other in self.nodes.iter().filter(|other| other.name() != node.name()) {
                kernel::wait_gateways(other, &block, &[node.v4().to_string()])?;
            }
            // Every node announces every block to it, its own and those of the mesh.
            wait_until(PATIENCE, "the router's route", || {
                ensure!(self.is_at_router(&block)?, "no {block}");
                Ok(())
            })?;
        }
        self.kubelet.expect_no_fault()
    }

    /// Whether zebra has installed the prefix in the router's kernel.
    fn is_at_router(&self, prefix: &str) -> Result<bool> {
        Ok(!self.router.run("ip", &["route", "show", prefix])?.trim().is_empty())
    }

    fn changeover(&self, direction: &str) -> Result<()> {
        let mut command = Command::new("bash");
        command.arg(example("changeover")).arg(direction).stdin(Stdio::null());
        command.arg("--program").arg(binary()?);
        command.env("KUBECTL", self.kubelet.kubectl()).env("MARGAY_INSIDE", &self.inside);
        let said = lab::run_command(&mut command)?;
        println!("$ changeover {direction}\n{said}");
        Ok(())
    }

    /// Merges the calico-node overlay, and moves all nodes to margay.
    fn to_margay(&self) -> Result<()> {
        let merge = ["apply", "--server-side", "--field-manager=margay", "--force-conflicts", "-k"];
        self.kubernetes.run_kubectl(&[&merge[..], &[&example("calico-node")]].concat())?;
        self.changeover("to-margay")
    }

    /// Prints how long each observer saw no speaker while the last `count` containers were
    /// replaced: neighbours by their logs, the other nodes of the mesh and Calico's tools by
    /// `bird.ctl`. The time after the start of the new speaker must be below [`SPEAKERLESS`], for
    /// BIRD with [`CONNECT_DELAY`] added.
    fn expect_short_gaps(&mut self, count: usize) -> Result<()> {
        let replacements = self.kubelet.replacements();
        ensure!(replacements.len() >= count, "{replacements:?}");
        let seen = self.answers.take();
        let at_tor = self.tor.daemon().output();
        let at_reflector = self.reflector.daemon.output();
        for replaced in &replacements[replacements.len() - count..] {
            let host = self.nodes.iter().find(|node| node.name() == replaced.node);
            let address = host.with_context(|| format!("{replaced:?}"))?.v4();
            let nothing_ran = replaced.begun - replaced.ended;
            let last = |gaps: Vec<Duration>| gaps.last().copied().context("no gap in the log");
            let mut gaps = vec![
                ("the router".to_owned(), last(gaps_of_frr(&at_tor, address)?)?),
                ("the reflector".to_owned(), last(gaps_of_margay(&at_reflector, address)?)?),
            ];
            let during = |gap: &&Gap| gap.from < replaced.begun && replaced.ended < gap.to;
            for gap in seen.iter().filter(during) {
                gaps.push((format!("{} at {}", gap.what, gap.node), gap.to - gap.from));
            }
            let is_known =
                |(what, _): &(String, _)| *what == format!("{SOCKET} at {}", replaced.node);
            ensure!(gaps.iter().any(is_known), "no gap at {SOCKET}: {gaps:?}");
            let speaker = if replaced.is_bird { "BIRD" } else { "margay" };
            println!("{} to {speaker}: nothing ran for {nothing_ran:.2?}", replaced.node);
            for (what, gap) in gaps {
                println!("    {what}: {gap:.2?}");
                let own = gap.saturating_sub(nothing_ran);
                let limit =
                    if replaced.is_bird { SPEAKERLESS + CONNECT_DELAY } else { SPEAKERLESS };
                ensure!(own < limit, "{speaker} at {}: {what} after {own:?}", replaced.node);
            }
        }
        Ok(())
    }

    fn apply(&self, step: &str) -> Result<()> {
        self.kubernetes.run_kubectl(&["apply", "--validate=strict", "-k", &example(step)]).map(drop)
    }

    /// Number of sessions that a node's neighbours have had with it: the router, and the reflector
    /// since it was last started.
    fn counts(&self, node: &Host) -> Result<(u64, usize)> {
        let neighbor = self.tor.neighbor(node.v4())?;
        let at_router = neighbor["connectionsEstablished"].as_u64().context("no count")?;
        Ok((at_router, self.reflector.sessions(node)))
    }
}

fn put_objects(
    kubernetes: &Kubernetes,
    nodes: &[Host],
    router: &Host,
    reflecting: &Host,
) -> Result<()> {
    kubernetes.put(GROUP, "ippools", "pods", &json!({"cidr": "10.65.0.0/16"}))?;
    let information = json!({"calicoVersion": "v3.32.1", "datastoreReady": true});
    kubernetes.put(GROUP, "clusterinformations", "default", &information)?;
    let mesh = json!({
        "nodeToNodeMeshEnabled": true, "serviceClusterIPs": [{"cidr": SERVICES}],
    });
    kubernetes.put(GROUP, "bgpconfigurations", "default", &mesh)?;
    let peer = |address: IpAddr, asn: u32| json!({"peerIP": address.to_string(), "asNumber": asn});
    kubernetes.put(GROUP, "bgppeers", "tor", &peer(router.v4(), TOR_ASN))?;
    kubernetes.put(GROUP, "bgppeers", "reflector", &peer(reflecting.v4(), ASN))?;
    for (number, host) in (1u8..).zip(nodes) {
        kubernetes.put_node(GROUP, host, number)?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": SERVICE, "selector": {"app": "web"}, "ports": [{"port": 7778}]},
    });
    kubernetes.admin().post("/api/v1/namespaces/default/services", &service).map(drop)
}

/// Stops senders; returns how many packets were sent, and how many of them were lost while a BIRD
/// replaced the route to a block. BIRD deletes a route and adds the new one 50 to 150 µs later,
/// whenever the path differs, as after each restart of a neighbour. margay replaces routes in one
/// step: no packet may be lost on a node that runs it.
fn end(
    stage: &Stage,
    senders: &mut [Packets],
    monitors: &[(String, RouteMonitor)],
) -> Result<(u32, usize)> {
    let mut gaps = Vec::new();
    for (node, monitor) in monitors {
        for (from, to) in monitor.gaps("10.65.")? {
            if stage.kubelet.ran_bird(node, from) {
                ensure!(to - from < REPLACING, "{node} had no route for {} s", to - from);
                gaps.push((from, to));
            } else {
                println!("{node}: margay's node was without a route for {} s", to - from);
            }
        }
    }
    let (mut sent, mut excused) = (0, 0);
    for sender in senders {
        let (count, lost) = sender.losses()?;
        for at in lost {
            // It may be sent just before the node forwards it.
            let is_in = |(from, to): &(f64, f64)| *from - REPLACING < at && at <= *to;
            ensure!(gaps.iter().any(is_in), "a packet of {at} s was lost; BIRD's gaps: {gaps:?}");
            excused += 1;
        }
        sent += count;
    }
    ensure!(excused <= gaps.len(), "{excused} packets for {} gaps", gaps.len());
    Ok((sent, excused))
}

/// Turns the mesh off, so that only the reflector is left, kills the reflector, and turns the mesh
/// on.
fn without_mesh(stage: &mut Stage) -> Result<()> {
    stage.apply("mesh-to-reflectors/mesh-off")?;
    stage.settles(2)?;
    for node in &stage.nodes {
        let counts = stage.counts(node)?;
        ensure!(counts == (2, 2), "the mesh's end affected a session of {}", node.name());
    }
    stage.reflector.crash()?;
    wait_until(PATIENCE, "the reflector's sessions", || {
        let found = stage.reflector.established()?;
        ensure!(found == stage.nodes.len(), "{found}");
        Ok(())
    })?;
    stage.settles(2)?;
    stage.apply("mesh-to-reflectors/mesh-on")?;
    stage.settles(4)
}

/// `kubectl drain`, a permanent shutdown of BGP, and then what a cluster's controllers do for a
/// deleted node: its pod and its block are deleted too.
fn remove_node(stage: &mut Stage, name: &str) -> Result<()> {
    let kubernetes = &stage.kubernetes;
    kubernetes.run_kubectl(&["drain", name, "--ignore-daemonsets", "--timeout=30s"])?;
    let name_of_pod = kubernetes.run_kubectl(&[
        "-n",
        "kube-system",
        "get",
        "pods",
        "--field-selector",
        &format!("spec.nodeName={name}"),
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    // Otherwise neighbours that do not read the objects retain its routes for the restart time.
    let mut command = Command::new(stage.kubelet.kubectl());
    command.args(["-n", "kube-system", "exec", "-i", &name_of_pod, "-c", "calico-node", "--"]);
    lab::run_command(command.args(["margay", "stop", "--shutdown"]))?;
    kubernetes.run_kubectl(&["delete", "node", name])?;
    stage.kubelet.remove(name);
    let selector = format!("spec.nodeName={name}");
    kubernetes.run_kubectl(&[
        "-n",
        "kube-system",
        "delete",
        "pods",
        "--field-selector",
        &selector,
    ])?;
    kubernetes.delete(GROUP, "blockaffinities", &format!("{name}-10-65-3-0-26"))?;
    stage.nodes.retain(|node| node.name() != name);
    Ok(())
}

#[test]
#[ignore = "needs root, BIRD 1.6, FRR and kube-apiserver"]
fn a_cluster_changes_over_and_back_without_losing_a_packet() -> Result<()> {
    let kinds = [Kind::Bird16, Kind::Frr];
    lab::run_margay("e2e", &kinds, &["curl", "openssl", "python3", "bash"], |lab| {
        let begun = Instant::now();
        let mut stage = Stage::start(lab)?;
        let after = |what: &str| println!("{what}: after {:.1} s", begun.elapsed().as_secs_f64());
        // Two of the mesh, the router and the reflector.
        stage.settles(4)?;
        after("BIRD is in charge");
        let [a, b, c] = [0, 1, 2].map(|at| stage.nodes[at].clone());
        let pods = [
            Pod::start(&a, "x", "10.65.1.7")?,
            Pod::start(&b, "y", "10.65.2.7")?,
            Pod::start(&c, "z", "10.65.3.7")?,
        ];
        let mut monitors = Vec::new();
        for node in [&a, &b, &c] {
            monitors.push((node.name().to_owned(), RouteMonitor::start(node)?));
        }
        let mut lasting = [
            Packets::start(&pods[0], &pods[1])?,
            Packets::start(&pods[1], &pods[0])?,
            Packets::between(&stage.router, SERVICE, &[&a, &b, &c])?,
        ];
        let mut of_c = [Packets::start(&pods[2], &pods[0])?];
        let first: Vec<_> =
            [&a, &b, &c].map(|node| stage.counts(node)).into_iter().collect::<Result<_>>()?;
        ensure!(first.iter().all(|counts| *counts == (1, 1)), "{first:?}");

        stage.to_margay()?;
        stage.settles(4)?;
        for node in [&a, &b, &c] {
            // One more for each node's own change, and no other.
            let counts = stage.counts(node)?;
            ensure!(counts == (2, 2), "{}: {counts:?} sessions", node.name());
        }
        stage.expect_short_gaps(3)?;
        after("margay is in charge");

        without_mesh(&mut stage)?;
        after("the reflector was killed, without a mesh");

        let first = end(&stage, &mut of_c, &monitors)?;
        remove_node(&mut stage, "c")?;
        stage.settles(3)?;
        for host in [&a, &b] {
            kernel::wait_gone(host, "10.65.3.0/26")?;
        }
        wait_until(PATIENCE, "the router to remove the node's block", || {
            let found = stage.tor.ask(&["show bgp ipv4 10.65.3.0/26"])?;
            ensure!(!stage.is_at_router("10.65.3.0/26")?, "it has the block: {found}");
            Ok(())
        })?;
        after("a node was deleted");

        stage.changeover("to-bird")?;
        stage.settles(3)?;
        stage.expect_short_gaps(2)?;
        holds_for(Duration::from_secs(3), "BIRD's sessions", || {
            ensure!(sessions(&a)? == (3, 3) && sessions(&b)? == (3, 3));
            Ok(())
        })?;
        for node in [&a, &b] {
            // The reflector counts since its restart: the session after it, and that after the
            // change back.
            let counts = stage.counts(node)?;
            ensure!(counts == (3, 2), "{}: {counts:?} sessions", node.name());
        }
        let rest = end(&stage, &mut lasting, &monitors)?;
        let reports = stage.reporter.expect_good(&[&a, &b])?;
        after("BIRD is in charge again");
        let (sent, lost) = (first.0 + rest.0, first.1 + rest.1);
        println!("{lost} of {sent} packets lost, in BIRD's own gaps; CalicoNodeStatus: {reports}");
        Ok(())
    })
}
