//! Collects the facts about the node. A part that cannot be read is replaced by the reason; the
//! others are still read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::Family;
use tokio::runtime::Runtime;

use super::bird::{Exported, PATHS_MAX, Protocols, Status, Table};
use super::facts::{Facts, Host, Looked, Need, Objects, Seat, SourceSeen, Speaker, Wanted};
use super::judge::prefixes;
use super::processes::{Process, bgp_sockets, processes};
use super::{files, firewall, machine};
use crate::calico::config::Converter;
use crate::calico::{Plan, Touched, resolve};
use crate::config::{BirdPaths, BirdSockets};
use crate::ctl::bird::Client;
use crate::datastore::{Source, Wanted as Asked};
use crate::kernel;
use crate::node::{self, Environment, NodeSettings, Survey};

/// Timeout for each line of a control socket's reply.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The kernel's main routing table, which BIRD and margay write to.
const MAIN_TABLE: u32 = 254;
/// The TCP port of BGP.
const BGP_PORT: u16 = 179;
/// The paths of BIRD's sockets outside Calico's image; calico-node's own tools try them too.
const OTHER_SOCKETS: [&str; 2] = ["/var/run/bird/bird.ctl", "/var/run/bird/bird6.ctl"];
/// The prefixes of the names of variables that affect margay.
const VARIABLES: [&str; 11] = [
    "NODENAME",
    "CALICO_",
    "ETCD_",
    "DATASTORE_TYPE",
    "KUBECONFIG",
    "K8S_",
    "KUBERNETES_",
    "NAMESPACE",
    "USE_POD_CIDR",
    "FELIX_PROGRAMCLUSTERROUTES",
    "MARGAY_",
];
const SYSCTLS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.tunl0.rp_filter",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "net.ipv4.tcp_l3mdev_accept",
    "net.ipv4.udp_l3mdev_accept",
];

/// Collects all facts.
pub(super) fn collect(
    node: Option<&str>,
    settings: impl FnOnce(&Environment) -> Result<Option<NodeSettings>, String>,
) -> Facts {
    let processes = processes().map_err(|error| error.to_string());
    let mut environment = Environment::of_process();
    if let Some(node) = node {
        environment.variables.insert("NODENAME".to_owned(), node.to_owned());
    }
    let differing = borrow(&mut environment, processes.as_deref().unwrap_or_default());
    let settings = settings(&environment);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no threads: {error}"));
    let objects = match &runtime {
        Ok(runtime) => objects(runtime, &settings, node),
        Err(why) => unknown(Err(why.clone())),
    };
    let paths = match &settings {
        Ok(Some(settings)) => {
            settings.host.control.bird_sockets.as_ref().and_then(BirdSockets::paths)
        }
        Ok(None) | Err(_) => None,
    };
    let paths = paths.unwrap_or_else(BirdPaths::calico);
    let speakers: Vec<Seat> = [(Family::Ipv4, paths.ipv4), (Family::Ipv6, paths.ipv6)]
        .into_iter()
        .map(|(family, path)| seat(&runtime, family, &path, objects.plan.as_ref()))
        .collect();
    let host = host(processes, &speakers, &objects, differing);
    let known = settings.as_ref().ok().and_then(Option::as_ref).map(|s| s.calico.node.clone());
    let facts = Facts {
        node: known.or(node.map(str::to_owned)),
        objects,
        speakers,
        kernel: kernel::look(MAIN_TABLE).map_err(|error| with_cause(&error)),
        host,
    };
    if let Ok(runtime) = runtime {
        // The tasks of the sources would keep running until they are dropped.
        runtime.shutdown_background();
    }
    facts
}

/// An error with its cause.
fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The process whose environment margay would have: confd, which reads the datastore today, else
/// margay itself, else BIRD.
fn replaced(processes: &[Process]) -> Option<&Process> {
    let is_bird = |p: &&Process| p.name == "bird" || p.program == "bird";
    let runs_margay = |p: &&Process| p.is_margay() && p.arguments.iter().any(|a| a == "run");
    let is_confd = |p: &&Process| p.arguments.iter().any(|a| matches!(&**a, "-confd" | "confd"));
    let all = || processes.iter();
    all().find(is_confd).or_else(|| all().find(runs_margay)).or_else(|| all().find(is_bird))
}

/// Adds variables that this process lacks from the process whose environment margay would have.
/// Returns that process and the names of variables with different values.
fn borrow(environment: &mut Environment, processes: &[Process]) -> Option<(String, Vec<String>)> {
    let process = replaced(processes)?;
    let theirs = process.environment().ok()?;
    let matters = |name: &String| VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    let mut differing = Vec::new();
    for (name, value) in theirs.into_iter().filter(|(name, _)| matters(name)) {
        match environment.variables.get(&name) {
            None => drop(environment.variables.insert(name, value)),
            Some(own) if *own != value => differing.push(name),
            Some(_) => {}
        }
    }
    Some((process.describe(), differing))
}

fn unknown(settings: Looked<()>) -> Objects {
    Objects { settings, sources: Vec::new(), rights: Ok(Vec::new()), plan: None }
}

/// Reads every source, and computes the plan if the objects are known.
fn objects(
    runtime: &Runtime,
    settings: &Result<Option<NodeSettings>, String>,
    node: Option<&str>,
) -> Objects {
    let settings = match settings {
        Err(why) => return unknown(Err(why.clone())),
        Ok(None) => {
            let plan = Plan::without_bgp(node.unwrap_or_default());
            let plan = Wanted { plan, running: BTreeSet::new(), idle: Vec::new() };
            return Objects { plan: Some(plan), ..unknown(Ok(())) };
        }
        Ok(Some(settings)) => settings,
    };
    let Survey { sources, snapshot, lacking } = runtime.block_on(node::survey(settings));
    let needs = snapshot.needs(&settings.calico);
    let asked = Asked { secrets: needs.secrets, ..Asked::default() };
    let is_asked = !asked.secrets.is_empty() || needs.has_service_ranges;
    let sources: Vec<SourceSeen> = sources
        .into_iter()
        .map(|(source, tried)| SourceSeen {
            need: match source {
                Source::Services(_) if is_asked => Need::Part,
                Source::Services(_) | Source::Endpoints(_) => Need::Nothing,
                Source::Etcd(_) | Source::Kubernetes(_) | Source::Files(_) => Need::Plan,
            },
            name: tried.name,
            objects: tried.objects,
            problems: tried.problems,
        })
        .collect();
    let is_known = sources.iter().all(|s| s.need != Need::Plan || s.objects.is_ok());
    let plan = is_known.then(|| wanted(resolve(&snapshot, &settings.calico), settings));
    Objects { settings: Ok(()), sources, rights: lacking, plan }
}

/// A plan with those of its sessions that would run.
fn wanted(plan: Plan, settings: &NodeSettings) -> Wanted {
    let mut converter = Converter::new(settings.limits.clone());
    let config = converter.convert(&plan, &Touched::All, &settings.host);
    let peers = config.map(|config| config.peers).unwrap_or_default();
    let running = peers.iter().map(|peer| Arc::clone(&peer.name)).collect();
    Wanted { running, idle: converter.problems().cloned().collect(), plan }
}

/// Queries the speaker at a control socket of a family, or at its alternative path.
fn seat(
    runtime: &Result<Runtime, String>,
    family: Family,
    path: &Path,
    wanted: Option<&Wanted>,
) -> Seat {
    let other = Path::new(OTHER_SOCKETS[usize::from(family == Family::Ipv6)]);
    let path = if !path.exists() && other.exists() { other } else { path };
    let speaker = speaker(family, path, wanted).map(|mut speaker| {
        let pid = runtime.as_ref().ok().and_then(|runtime| runtime.block_on(owner(path)));
        speaker.process = pid.and_then(Process::of);
        speaker
    });
    Seat { family, path: path.to_owned(), speaker }
}

/// The process that listens on a socket, if it is in this PID namespace.
async fn owner(path: &Path) -> Option<u32> {
    let stream = tokio::net::UnixStream::connect(path).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

fn speaker(family: Family, path: &Path, wanted: Option<&Wanted>) -> Looked<Speaker> {
    let at = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut client = Client::connect(path, ANSWER_MAX).map_err(|error| at(&error))?;
    let mut status = Status::default();
    client.ask("show status", |code, text| status.take(code, text)).map_err(|e| at(&e))?;
    let mut protocols = Protocols::default();
    client
        .ask("show protocols all", |code, text| protocols.take(code, text))
        .map_err(|e| at(&e))?;
    let mut table = Table::default();
    client.ask("show route all", |code, text| table.take(code, text)).map_err(|e| at(&e))?;
    if table.is_cut {
        return Err(at(&format!("it has more than {PATHS_MAX} routes, which are not compared")));
    }
    let mut exported = BTreeMap::new();
    let groups = wanted.map(|wanted| prefixes::groups(wanted, family, &protocols.0));
    for group in groups.into_iter().flatten().take(prefixes::GROUPS_MAX) {
        let name = group.session.session.name.to_string();
        let mut told = Exported::default();
        let asked = client.ask(&format!("show route export {name}"), |code, text| {
            told.take(code, text);
        });
        exported.insert(name, asked.map(|()| told.0).map_err(|error| at(&error)));
    }
    Ok(Speaker { status, protocols: protocols.0, table, exported, process: None })
}

fn host(
    processes: Looked<Vec<Process>>,
    speakers: &[Seat],
    objects: &Objects,
    environment: Option<(String, Vec<String>)>,
) -> Host {
    let planned = objects.plan.as_ref().map(|wanted| &wanted.plan.families);
    let ports = planned.map(|families| [families.ipv4.listen.port, families.ipv6.listen.port]);
    let ports: BTreeSet<u16> = ports.into_iter().flatten().chain([BGP_PORT]).collect();
    let in_charge = speakers.iter().find_map(|seat| seat.speaker.as_ref().ok()?.process.as_ref());
    let own = ("this process".to_owned(), std::process::id());
    let (whose, pid) = in_charge.map_or(own, |process| (process.describe(), process.pid));
    let sysctls = SYSCTLS.iter().filter_map(|name| Some((*name, machine::sysctl(name)?)));
    Host {
        processes,
        sockets: bgp_sockets(&ports).map_err(|error| error.to_string()),
        capabilities: (whose, machine::capabilities(pid)),
        sysctls: sysctls.collect(),
        firewall: firewall::look(ports.first().copied().unwrap_or(BGP_PORT)),
        files: files::read(),
        environment,
    }
}
