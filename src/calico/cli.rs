//! `margay calico plan` and `margay calico decide`: the plan without a daemon and without a network.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::decide::Question;
use super::load::{load, load_endpoints};
use super::plan::{FamilyPlan, Plan, PlannedSession};
use super::{Settings, Snapshot, resolve, speaks_bgp};

/// What Calico's objects mean for a node.
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
    },
    /// Answer route questions: one JSON object a line on standard input, one answer a line.
    Decide {
        /// Where the objects are.
        #[command(flatten)]
        input: Input,
    },
}

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Input {
    /// The node to plan for.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Files or folders with Calico's and Kubernetes' objects: YAML, JSON, or dumps of etcd.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    resources: Vec<PathBuf>,
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

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Input {
    fn plan(&self) -> std::io::Result<Plan> {
        let env: BTreeMap<String, String> = self.env.iter().cloned().collect();
        let loaded = load(&self.resources)?;
        let mut snapshot = Snapshot::default();
        loaded.objects.into_iter().for_each(|object| snapshot.apply(object));
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
        let mut plan = match speaks_bgp(&env) {
            true => {
                let mut settings = Settings::from_env(&self.node, &env);
                settings.version = self.calico_version.clone().or(settings.version);
                resolve(&snapshot, &settings)
            }
            false => Plan::without_bgp(&self.node),
        };
        plan.problems.extend(loaded.problems);
        plan.problems.sort();
        Ok(plan)
    }
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing that was to fail it.
    Fine,
    /// Problems, with `--fail-on-problems`.
    Problems,
}

/// Runs a command.
///
/// # Errors
/// Files that cannot be read, or output that cannot be written.
pub fn run(
    command: &Command,
    questions: impl BufRead,
    out: &mut impl Write,
) -> std::io::Result<Outcome> {
    match command {
        Command::Plan { input, json, fail_on_problems } => {
            let plan = input.plan()?;
            match json {
                true => {
                    serde_json::to_writer_pretty(&mut *out, &plan)?;
                    writeln!(out)?;
                }
                false => write_text(&plan, out)?,
            }
            match *fail_on_problems && !plan.problems.is_empty() {
                true => Ok(Outcome::Problems),
                false => Ok(Outcome::Fine),
            }
        }
        Command::Decide { input } => {
            let plan = input.plan()?;
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
            Ok(Outcome::Fine)
        }
    }
}

fn write_text(plan: &Plan, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "node {}, Calico {}", plan.node, plan.release.version)?;
    if !plan.speaks_bgp {
        writeln!(out, "no BGP: CALICO_NETWORKING_BACKEND says so")?;
    }
    let families = [("ipv4", &plan.families.ipv4), ("ipv6", &plan.families.ipv6)];
    for (name, family) in families.into_iter().filter(|_| plan.speaks_bgp) {
        write_family(name, family, out)?;
    }
    match plan.problems.as_slice() {
        [] => writeln!(out, "no problems")?,
        _ => writeln!(out, "problems")?,
    }
    for problem in &plan.problems {
        writeln!(out, "  {}: {}", problem.object, problem.text)?;
    }
    if !plan.notes.is_empty() {
        writeln!(out, "notes")?;
    }
    for note in &plan.notes {
        writeln!(out, "  {}: {}", note.object, note.text)?;
    }
    Ok(())
}

fn write_family(name: &str, family: &FamilyPlan, out: &mut impl Write) -> std::io::Result<()> {
    let state = if family.enabled { "" } else { " (no address of this family: no sessions)" };
    let id = family.router_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    writeln!(out, "{name}{state}: AS {}, router id {id}, port {}", family.asn, family.listen.port)?;
    for session in family.sessions.iter() {
        write_session(session, out)?;
    }
    for route in &family.statics {
        match route.gateway {
            Some(gateway) => writeln!(out, "  static {} via {gateway}", route.prefix)?,
            None => writeln!(out, "  static {} blackhole", route.prefix)?,
        }
    }
    for block in &family.aggregates {
        writeln!(out, "  aggregate {block}")?;
    }
    for entry in &family.communities {
        writeln!(out, "  communities {} {}", entry.prefix, entry.communities.join(" "))?;
    }
    for prefix in &family.kernel_reject {
        writeln!(out, "  not to the kernel {prefix}")?;
    }
    for pool in &family.pools {
        let export = if pool.export { "announced" } else { "not announced" };
        let kernel = match serde_json::to_value(pool.kernel)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        writeln!(out, "  pool {} {export}, kernel {kernel}", pool.cidr)?;
    }
    Ok(())
}

fn write_session(planned: &PlannedSession, out: &mut impl Write) -> std::io::Result<()> {
    let session = &planned.session;
    let mut notes = vec![format!("from {}", session.object)];
    notes.push(if session.internal { "internal" } else { "external" }.to_owned());
    if session.passive {
        notes.push("passive".to_owned());
    }
    if session.route_reflector_client {
        notes.push("client".to_owned());
    }
    if let Some(password) = &session.password {
        let state = match password.found {
            true => "password",
            false => "password missing: it does not run",
        };
        notes.push(state.to_owned());
    }
    if !session.filters.is_empty() {
        notes.push(format!("filters {}", session.filters.join(" ")));
    }
    if let Some(holder) = &planned.shadowed_by {
        notes.push(format!("waits for {holder}"));
    }
    writeln!(
        out,
        "  session {} {} port {} AS {}: {}",
        session.name,
        session.neighbor,
        session.port,
        session.remote_asn,
        notes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a command prints about a mesh of two nodes, with a backend.
    fn printed(command: impl Fn(Input) -> Command, questions: &str, backend: &str) -> String {
        let node = |name: &str, address: &str| {
            let spec = json!({"bgp": {"ipv4Address": address}});
            json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
                   "metadata": {"name": name}, "spec": spec})
        };
        let file =
            std::env::temp_dir().join(format!("margay-{}-{backend}.yaml", std::process::id()));
        let text = format!("{}\n---\n{}\n", node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24"));
        std::fs::write(&file, text).unwrap();
        let input = Input {
            node: "a".into(),
            resources: vec![file.clone()],
            env: vec![("CALICO_NETWORKING_BACKEND".into(), backend.into())],
            calico_version: None,
            endpoint_status: None,
        };
        let mut out = Vec::new();
        let result = run(&command(input), questions.as_bytes(), &mut out);
        std::fs::remove_file(&file).unwrap();
        result.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_node_without_bgp_has_an_empty_plan_and_decides_nothing() {
        let question =
            json!({"direction": "kernel", "route": {"prefix": "10.1.0.0/24", "source": "bgp"}});
        for (backend, speaks) in [("bird", true), ("none", false), ("vxlan", false)] {
            let command = |json| move |input| Command::Plan { input, json, fail_on_problems: true };
            let plan: Value = serde_json::from_str(&printed(command(true), "", backend)).unwrap();
            assert_eq!(plan["speaks_bgp"], speaks, "{backend}");
            let sessions = plan["families"]["ipv4"]["sessions"].as_array().unwrap();
            assert_eq!(sessions.len(), usize::from(speaks), "{backend}");
            let text = printed(command(false), "", backend);
            assert_eq!(text.contains("no BGP"), !speaks, "{text}");
            assert_eq!(text.contains("session Mesh_10_0_0_2"), speaks, "{text}");
            let decide = |input| Command::Decide { input };
            let answer = printed(decide, &question.to_string(), backend);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["error"].is_null(), speaks, "{answer}");
        }
    }
}
