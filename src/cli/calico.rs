//! `margay calico plan`, `decide`, `doctor` and `simulate`: evaluate Calico's objects without a daemon.

mod doctor;
mod forecast;
mod simulate;
mod text;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, BufRead, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::render::reloaded;
use super::{Daemon, examples};
use crate::calico::decide::Question;
use crate::calico::diff;
use crate::calico::load::{load, load_endpoints};
use crate::calico::{Plan, Problem, Settings, Snapshot, resolve, speaks_bgp};
use crate::config::{CalicoLimits, HostSettings};
use crate::node::{Environment, NodeSettings};
pub(super) use forecast::ChangeArgs;

/// The commands below `margay calico`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print sessions, routes and pools that follow from the objects, and what is wrong with them.
    Plan {
        /// Where the objects are.
        #[command(flatten)]
        input: Input,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Exit with 1 when there are problems.
        #[arg(long)]
        fail_on_problems: bool,
        /// Print what --apply and --delete would change: the plan, sessions that restart, begin or end,
        /// and with --live, if the daemon runs, the routes that peers would be sent; nothing is
        /// changed. Exit code 0: that is printed; 1: the daemon refuses, or objects cannot be read; 2: a
        /// changed object is invalid, or no plan would follow. With OLD: what differs from an earlier
        /// plan, which was printed with --json; exit code 1 when something does.
        #[arg(long, value_name = "OLD", num_args = 0..=1)]
        diff: Option<Option<PathBuf>>,
        /// With --diff: print every route that would be sent differently, up to 20,000.
        #[arg(long, requires = "diff")]
        all: bool,
        /// Objects that are to be changed.
        #[command(flatten)]
        change: ChangeArgs,
        /// The daemon that --live --diff asks.
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Answer route questions: one JSON object a line on standard input, one answer a line.
    #[command(after_help = examples::DECIDE)]
    Decide {
        /// Where the objects are.
        #[command(flatten)]
        input: Input,
    },
    /// Simulate the whole cluster: every node, reflector and neighbour outside of it, from its objects.
    /// Says what each node reaches, over which speakers, and what failures and changed objects do.
    /// Exit code 0: every node reaches every block, and a peer every service; 1: not; 2: the objects
    /// cannot be simulated.
    Simulate(simulate::Arguments),
    /// Say what would change on this node if margay took the place of BIRD, or BIRD that of margay,
    /// and what is unsafe. Changes nothing. Exit code 0: nothing changes; 1: changes are listed, or
    /// something could not be looked at; 2: unsafe.
    Doctor {
        /// The node's name. Default: NODENAME, of this process or of BIRD, then
        /// /var/lib/calico/nodename.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// The daemon's configuration file; without it, what calico-node's environment says.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// The daemon that the command may ask.
    pub(super) fn daemon(&mut self) -> Option<&mut Daemon> {
        match self {
            Command::Plan { daemon, .. } => Some(daemon),
            Command::Decide { .. } | Command::Simulate(_) | Command::Doctor { .. } => None,
        }
    }
}

/// Which objects to read, and for which node.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Input {
    /// The node to plan for.
    #[arg(long, value_name = "NAME", required_unless_present = "live")]
    node: Option<String>,
    /// Files or folders with Calico's and Kubernetes' objects: YAML, JSON, or dumps of etcd. With
    /// --live, objects that are to take the place of those that are there.
    #[arg(long, value_name = "PATH", required_unless_present = "live", num_args = 1..)]
    resources: Vec<PathBuf>,
    /// Read the objects once from where the daemon reads them, for the node that it runs on: as the
    /// environment says, which is calico-node's, or the file given with --config.
    #[arg(long, conflicts_with_all = ["node", "env", "endpoint_status"])]
    live: bool,
    /// The daemon's configuration file.
    #[arg(long, value_name = "FILE", requires = "live")]
    config: Option<PathBuf>,
    /// A variable of calico-node's environment.
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The version of Calico, such as v3.32.1. Default: MARGAY_CALICO_VERSION of --env, then what
    /// ClusterInformation says, then the newest that is known.
    #[arg(long, value_name = "VERSION")]
    calico_version: Option<String>,
    /// Felix's endpoint-status folder. Default: `endpoint-status` below
    /// CALICO_ENDPOINT_STATUS_PATH_PREFIX, if that is given.
    #[arg(long, value_name = "DIR")]
    endpoint_status: Option<PathBuf>,
}

/// Whose objects are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// What the daemon reads for its node.
    Node,
    /// The blocks of all nodes too.
    Cluster,
}

/// What the daemon would read, read once.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The node's name and the settings that do not come from objects; `None`: the node does not
    /// speak BGP.
    pub(super) settings: Option<Settings>,
    /// All objects.
    pub(super) snapshot: Snapshot,
    /// The problems that the sources report.
    pub(super) problems: Vec<Problem>,
    /// Limits that the daemon would have.
    pub(super) limits: CalicoLimits,
    /// The settings of this machine; `None`: there are none.
    pub(super) host: Option<HostSettings>,
    /// Whether Services and Secrets were read only as far as the plan needs them.
    pub(super) asks_services: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Input {
    /// The objects that the arguments name; `read_live` reads what the daemon would read, given its
    /// configuration file.
    fn read(
        &self,
        read_live: impl FnOnce(Option<&Path>, Span) -> io::Result<Live>,
    ) -> io::Result<Live> {
        let mut read =
            if self.live { read_live(self.config.as_deref(), Span::Node)? } else { self.given()? };
        let loaded = load(&self.resources)?;
        loaded.objects.into_iter().for_each(|object| read.snapshot.apply(object));
        read.problems.extend(loaded.problems);
        Ok(read)
    }

    /// Computes the plan after a change.
    fn plan(
        &self,
        change: &ChangeArgs,
        read_live: impl FnOnce(Option<&Path>, Span) -> io::Result<Live>,
    ) -> io::Result<Plan> {
        let edit = change.edit()?;
        let Live { settings, mut snapshot, mut problems, .. } = self.read(read_live)?;
        edit.carry_out(&mut snapshot).map_err(forecast::wrong)?;
        let mut plan = match settings {
            Some(mut settings) => {
                settings.version = self.calico_version.clone().or(settings.version);
                resolve(&snapshot, &settings)
            }
            None => Plan::without_bgp(self.node.as_deref().unwrap_or_default()),
        };
        plan.problems.append(&mut problems);
        plan.problems.sort();
        Ok(plan)
    }

    /// The input that the arguments name.
    fn given(&self) -> io::Result<Live> {
        let env: BTreeMap<String, String> = self.env.iter().cloned().collect();
        let node = self.node.as_deref().unwrap_or_default();
        let settings = speaks_bgp(&env).then(|| Settings::from_env(node, &env));
        let mut snapshot = Snapshot::default();
        let prefix = env.get("CALICO_ENDPOINT_STATUS_PATH_PREFIX");
        let folder = match (&self.endpoint_status, prefix) {
            (Some(folder), _) => {
                let below = folder.join("endpoint-status");
                Some(if below.is_dir() { below } else { folder.clone() })
            }
            (None, Some(prefix)) => Some(Path::new(prefix).join("endpoint-status")),
            (None, None) => None,
        };
        if let Some(folder) = folder {
            load_endpoints(&folder)?.into_iter().for_each(|endpoint| snapshot.apply(endpoint));
        }
        Ok(Live { settings, snapshot, ..Live::default() })
    }
}

/// The outcome of a command, which determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Success.
    Fine,
    /// There are problems, and `--fail-on-problems` was given.
    Problems,
    /// `--diff` found differences, or `doctor` found changes.
    Differs,
    /// `doctor` found something unsafe.
    Unsafe,
    /// `simulate` found something that is not reached.
    Unreached,
}

/// Runs a command; `read_live` reads what the daemon would read, given its configuration file, and
/// `settings_of` returns the settings that it would use.
///
/// # Errors
/// A file or a source cannot be read, or the output cannot be written.
pub(super) fn run(
    command: &Command,
    questions: impl BufRead,
    out: &mut impl Write,
    read_live: impl FnOnce(Option<&Path>, Span) -> io::Result<Live>,
    settings_of: impl FnOnce(
        Option<&Path>,
        Option<&str>,
        &Environment,
    ) -> Result<Option<NodeSettings>, String>,
) -> io::Result<Outcome> {
    match command {
        Command::Doctor { node, config, json } => {
            let node = node.as_deref();
            let report = crate::doctor::examine(node, |environment| {
                settings_of(config.as_deref(), node, environment)
            });
            doctor::write(&report, *json, out)
        }
        Command::Simulate(arguments) => simulate::run(arguments, out, read_live),
        Command::Plan { fail_on_problems: true, diff: Some(None), .. } => Err(forecast::wrong(
            "--fail-on-problems is for a plan, or for --diff with OLD: a forecast lists the problems \
             that come and go with the other differences"
                .to_owned(),
        )),
        Command::Plan { input, json, diff: Some(None), all, change, daemon, .. } => {
            let list = all.then_some(u32::MAX);
            let read = || input.read(read_live);
            let answer = forecast::forecast(input, change, (daemon, list), read)?;
            if *json {
                write_json(&answer, out)?;
            } else {
                out.write_all(reloaded(&answer).as_bytes())?;
            }
            Ok(Outcome::Fine)
        }
        Command::Plan { input, json, fail_on_problems, diff, change, .. } => {
            let plan = input.plan(change, read_live)?;
            let differs = match diff.as_ref().and_then(Option::as_ref) {
                Some(old) => write_differences(old, &plan, *json, out)?,
                None => {
                    if *json {
                        write_json(&plan, out)?
                    } else {
                        text::write(&plan, out)?
                    }
                    false
                }
            };
            Ok(if differs {
                Outcome::Differs
            } else if *fail_on_problems && !plan.problems.is_empty() {
                Outcome::Problems
            } else {
                Outcome::Fine
            })
        }
        Command::Decide { input } => {
            decide(&input.plan(&ChangeArgs::default(), read_live)?, questions, out)?;
            Ok(Outcome::Fine)
        }
    }
}

/// Answers questions, one a line.
fn decide(plan: &Plan, questions: impl BufRead, out: &mut impl Write) -> io::Result<()> {
    for line in questions.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let question = serde_json::from_str::<Question>(&line).map_err(|e| e.to_string());
        match question.and_then(|question| plan.decide(&question)) {
            Ok(answer) => serde_json::to_writer(&mut *out, &answer)?,
            Err(error) => {
                serde_json::to_writer(&mut *out, &serde_json::json!({ "error": error }))?;
            }
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn write_json(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Prints how the plan differs from the one in a file. Returns whether it does.
fn write_differences(
    old: &Path,
    plan: &Plan,
    json: bool,
    out: &mut impl Write,
) -> io::Result<bool> {
    let named =
        |kind, error: &dyn Display| io::Error::new(kind, format!("{}: {error}", old.display()));
    let octets = std::fs::read(old).map_err(|e| named(e.kind(), &e))?;
    let before: Value = serde_json::from_slice(&octets)
        .map_err(|e| named(ErrorKind::InvalidInput, &format!("not a plan as JSON: {e}")))?;
    if before.get("families").is_none() {
        return Err(named(ErrorKind::InvalidInput, &"not what `margay calico plan --json` prints"));
    }
    let differences = diff::compare(&before, &serde_json::to_value(plan)?);
    if json {
        write_json(&differences, out)?
    } else {
        differences.iter().try_for_each(|difference| writeln!(out, "{difference}"))?
    }
    Ok(!differences.is_empty())
}

#[cfg(test)]
mod tests;
