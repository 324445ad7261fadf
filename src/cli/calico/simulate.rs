//! `margay calico simulate`: arguments, and the report as text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp_proto::table::VantageCosts;
use clap::{Args, ValueEnum};

use super::super::saved::first_paths;
use super::forecast::{ChangeArgs, wrong};
use super::{Live, Outcome, Span, variable, write_json};
use crate::calico::load::load;
use crate::calico::model::{Decoded, Kind, Object, ObjectId};
use crate::calico::{Settings, Snapshot};
use crate::simulate::{Failure, Gap, Input, Question, Report, Role, Scenario, State};

/// Entries of a list that are printed; `--json` prints all.
const LISTED: usize = 10;

/// What is simulated, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Arguments {
    /// Files or folders with all objects of the cluster: YAML, JSON, or dumps of etcd; Nodes,
    /// BlockAffinities, BGPPeers, BGPConfigurations, IPPools, and what else there is.
    #[arg(long, value_name = "PATH", required_unless_present = "live", num_args = 1..)]
    resources: Vec<PathBuf>,
    /// Read the objects once from where the daemon of this node reads them, and the blocks of all nodes: as
    /// the environment says, which is calico-node's, or the file given with --config. Objects of
    /// --resources take the place of those that are there.
    #[arg(long, conflicts_with = "env")]
    live: bool,
    /// The daemon's configuration file.
    #[arg(long, value_name = "FILE", requires = "live")]
    config: Option<PathBuf>,
    /// A variable of calico-node's environment, on all nodes.
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The version of Calico, such as v3.32.1. Default: as for `plan`.
    #[arg(long, value_name = "VERSION")]
    calico_version: Option<String>,
    /// What fails: node:NAME or peer:ADDRESS (it loses power), process:NAME (margay ends on the
    /// node), all-reflectors. Several fail together.
    #[arg(long, value_name = "WHAT", value_parser = failure)]
    fail: Vec<Failure>,
    /// Each of these fails, one after the other.
    #[arg(long, value_name = "KIND")]
    fail_each: Vec<Each>,
    /// Objects that are to be changed.
    #[command(flatten)]
    change: ChangeArgs,
    /// What a neighbour outside of the cluster announces besides the routes that it is told: the first path
    /// of each prefix in an MRT file, as `margay dump` and route collectors write it, gzip or not.
    #[arg(long, value_name = "ADDRESS=FILE", value_parser = table)]
    table: Vec<(IpAddr, PathBuf)>,
    /// Turn the full mesh of nodes off (nodeToNodeMeshEnabled: false).
    #[arg(long)]
    no_mesh: bool,
    /// Neighbours outside of the cluster have no sessions with each other.
    #[arg(long)]
    no_fabric: bool,
    /// Print the kernel routes of every speaker too, as they are before any failure.
    #[arg(long)]
    routes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Speakers that fail one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Each {
    /// Nodes that reflect no routes.
    Nodes,
    /// Nodes that reflect routes.
    Reflectors,
    /// Neighbours outside of the cluster.
    Peers,
}

fn failure(text: &str) -> Result<Failure, String> {
    match text.split_once(':') {
        Some(("node" | "peer", name)) if !name.is_empty() => Ok(Failure::Power(name.to_owned())),
        Some(("process", name)) if !name.is_empty() => Ok(Failure::Process(name.to_owned())),
        None if text == "all-reflectors" => Ok(Failure::AllReflectors),
        _ => Err("expected node:NAME, peer:ADDRESS, process:NAME or all-reflectors".to_owned()),
    }
}

fn table(text: &str) -> Result<(IpAddr, PathBuf), String> {
    let (address, file) = text.split_once('=').ok_or("expected ADDRESS=FILE")?;
    let address = address.parse().map_err(|_| format!("{address} is no address"))?;
    Ok((address, file.into()))
}

/// Runs the simulation and prints what it found.
pub(super) fn run(
    arguments: &Arguments,
    out: &mut impl Write,
    read_live: impl FnOnce(Option<&Path>, Span) -> io::Result<Live>,
) -> io::Result<Outcome> {
    let env: BTreeMap<String, String> = arguments.env.iter().cloned().collect();
    let mut settings = Settings::from_env("", &env);
    let mut snapshot = Snapshot::default();
    let mut vantages: Arc<VantageCosts> = Arc::default();
    if arguments.live {
        let live = read_live(arguments.config.as_deref(), Span::Cluster)?;
        settings = live.settings.ok_or_else(|| wrong("this node speaks no BGP".to_owned()))?;
        (snapshot, vantages) = (live.snapshot, live.limits.vantages);
        if let Some(problem) = live.problems.first() {
            return Err(wrong(format!("{}: {}", problem.object, problem.text)));
        }
    }
    settings.version = arguments.calico_version.clone().or(settings.version);
    read(&arguments.resources, &mut snapshot)?;
    let change = changed(arguments, &snapshot)?;
    let mut tables = BTreeMap::new();
    for (address, file) in &arguments.table {
        tables.insert(*address, first_paths(file).map_err(wrong)?);
    }
    let input = |snapshot| Input {
        snapshot,
        settings: settings.clone(),
        fabric: !arguments.no_fabric,
        vantages: Arc::clone(&vantages),
        tables: tables.clone(),
    };
    let each = arguments.fail_each.iter().map(|each| match each {
        Each::Nodes => Role::Node,
        Each::Reflectors => Role::Reflector,
        Each::Peers => Role::Peer,
    });
    let question = Question {
        change: change.map(|(snapshot, objects)| (input(snapshot), objects)),
        failures: arguments.fail.clone(),
        each: each.collect(),
        routes: arguments.routes,
        memory_max: memory_available(),
    };
    let report = crate::simulate::run(&input(snapshot), &question)
        .map_err(|refused| wrong(refused.to_string()))?;
    if arguments.json {
        write_json(&report, out)?;
    } else {
        write_text(&report, out)?;
    }
    Ok(if report.reaches_all { Outcome::Fine } else { Outcome::Unreached })
}

/// Adds objects to the snapshot. An object that cannot be read is an error: what follows from the
/// others would not be what happens.
fn read(paths: &[PathBuf], snapshot: &mut Snapshot) -> io::Result<()> {
    let loaded = load(paths).map_err(|error| wrong(error.to_string()))?;
    if let Some(problem) = loaded.problems.first() {
        return Err(wrong(format!("{}: {}", problem.object, problem.text)));
    }
    loaded.objects.into_iter().for_each(|object| snapshot.apply(object));
    match snapshot.unreadable().first_key_value() {
        Some((id, fault)) => Err(wrong(format!("{id}: {fault}"))),
        None => Ok(()),
    }
}

/// The objects after the change that the arguments ask for, and what is changed.
fn changed(
    arguments: &Arguments,
    before: &Snapshot,
) -> io::Result<Option<(Snapshot, Vec<String>)>> {
    let edit = arguments.change.edit()?;
    if edit.is_empty() && !arguments.no_mesh {
        return Ok(None);
    }
    let mut snapshot = before.clone();
    let mut objects = edit.carry_out(&mut snapshot).map_err(wrong)?;
    if arguments.no_mesh {
        let id = ObjectId::new(Kind::BgpConfiguration, "default");
        let mut default = match snapshot.get(&id) {
            Some(Object::BgpConfiguration(default)) => (*default).clone(),
            _ => Default::default(),
        };
        default.node_to_node_mesh_enabled = Some(false);
        let object = Ok(Some(Object::BgpConfiguration(Arc::new(default))));
        snapshot.apply(Decoded { id, object });
        objects.push("nodeToNodeMeshEnabled: false".to_owned());
    }
    Ok(Some((snapshot, objects)))
}

/// Nine tenths of the memory that the kernel has available, in octets.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024 / 10 * 9)
}

fn write_text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Report { nodes, reflectors, peers, .. } = report;
    writeln!(out, "{nodes} nodes, {reflectors} reflectors, {peers} peers outside of the cluster")?;
    writeln!(out, "start")?;
    write_state(&report.start, out)?;
    if let Some(change) = &report.change {
        writeln!(out, "change: {}", change.objects.join(", "))?;
        let (added, removed) = (change.routes_added, change.routes_removed);
        let changed = change.routes_changed;
        writeln!(out, "  kernel routes: {added} added, {removed} removed, {changed} changed")?;
        let (begun, ended) = (change.sessions_begun, change.sessions_ended);
        let restarted = change.sessions_restarted;
        writeln!(out, "  sessions: {begun} begin, {ended} end, {restarted} restart")?;
        let title = "  kernel routes that are missing for a while";
        write_some(&change.gaps, title, out, |Gap { from, prefix, ms }, out| {
            writeln!(out, "    {from}: {prefix} for {}", seconds(*ms))
        })?;
        write_state(&change.state, out)?;
    }
    for Scenario { fails, noticed_ms, sessions_lost, state } in &report.scenarios {
        writeln!(out, "failure: {}", fails.join(", "))?;
        match noticed_ms {
            Some(noticed) => writeln!(
                out,
                "  noticed after {}, {sessions_lost} sessions lost",
                seconds(*noticed)
            )?,
            None => writeln!(out, "  no neighbour notices")?,
        }
        write_state(state, out)?;
    }
    for (name, routes) in &report.routes {
        writeln!(out, "kernel routes of {name}")?;
        for (prefix, hops) in routes {
            let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
            if hops.is_empty() {
                writeln!(out, "  {prefix} own")?;
            } else {
                writeln!(out, "  {prefix} via {}", hops.join(", "))?;
            }
        }
    }
    write_some(&report.problems, "problems", out, |problem, out| {
        writeln!(out, "  {}: {}", problem.object, problem.text)
    })?;
    writeln!(out, "assumed")?;
    report.assumptions.iter().try_for_each(|text| writeln!(out, "  {text}"))?;
    let verdict = if report.reaches_all { "all is reached" } else { "NOT all is reached" };
    writeln!(out, "{verdict}")
}

fn write_state(state: &State, out: &mut impl Write) -> io::Result<()> {
    let State { sessions, established, announced, withdrawn, kernel_changes, .. } = state;
    if !state.settled {
        writeln!(out, "  never settles: routes are announced and withdrawn for ever")?;
    }
    writeln!(
        out,
        "  settled after {}: {established} of {sessions} sessions, {announced} routes announced, \
         {withdrawn} withdrawn, {kernel_changes} changes of kernel routes",
        seconds(state.settled_ms)
    )?;
    let (nodes, peers) = (state.from_nodes, state.from_peers);
    write!(
        out,
        "  {} blocks, {} services: nodes reach {} of {} pairs",
        state.blocks, state.services, nodes.reached, nodes.all
    )?;
    if nodes.by_felix > 0 {
        write!(out, ", {} by routes of Felix's", nodes.by_felix)?;
    }
    if peers.all > 0 {
        write!(out, ", peers {} of {}", peers.reached, peers.all)?;
    }
    writeln!(out)?;
    if state.gone > 0 {
        writeln!(out, "  {} blocks and services are gone with their nodes", state.gone)?;
    }
    for path in &state.paths {
        match path.via.as_slice() {
            [] => writeln!(out, "  directly: {}", path.pairs)?,
            via => writeln!(out, "  over {}: {}", via.join(", "), path.pairs)?,
        }
    }
    write_some(&state.session_faults, "  sessions that are not established", out, |fault, out| {
        writeln!(out, "    {} {}: {}", fault.speaker, fault.session, fault.why)
    })?;
    let lost = |lost: &crate::simulate::Lost, out: &mut _| write_lost(lost, out);
    write_some(&state.lost, "  nodes that do not reach everything", out, lost)?;
    write_some(&state.peers_lost, "  peers that do not reach everything", out, lost)?;
    write_some(&state.unserved, "  services that no peer reaches", out, |service, out| {
        writeln!(out, "    {service}")
    })
}

fn write_lost(lost: &crate::simulate::Lost, out: &mut impl Write) -> io::Result<()> {
    let crate::simulate::Lost { from, targets, example, why } = lost;
    writeln!(out, "    {from}: {targets}, such as {example}: {why}")
}

fn write_some<T, W: Write>(
    list: &[T],
    title: &str,
    out: &mut W,
    write: impl Fn(&T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}: {}", list.len())?;
    list.iter().take(LISTED).try_for_each(|item| write(item, out))?;
    if list.len() > LISTED {
        writeln!(out, "    and {} more: --json lists all", list.len() - LISTED)?;
    }
    Ok(())
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
