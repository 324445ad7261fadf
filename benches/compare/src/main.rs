//! `compare`: one load generator, several BGP daemons, the same octets for each.
//!
//! The outer process makes a network namespace per daemon run and starts itself inside it; the inner process starts the
//! daemon, drives all sessions and leaves its result in a file. So every daemon meets a fresh namespace and a fresh
//! generator, and whatever goes wrong inside is cleaned up from outside.

mod daemon;
mod engine;
mod feed;
mod netns;
mod options;
mod process;
mod relay;
mod report;
mod scenario;
mod session;
mod synth;
mod wire;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;

use crate::daemon::Kind;
use crate::options::Options;
use crate::report::Row;

#[derive(Debug, clap::Parser)]
#[command(
    version,
    about = "Compares BGP daemons under the same load",
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    floor: Option<Floor>,
    #[command(flatten)]
    options: Option<Options>,
}

#[derive(Debug, clap::Subcommand)]
enum Floor {
    /// The daemon of a floor run
    #[command(hide = true)]
    Floor {
        #[arg(value_enum)]
        fate: relay::Fate,
        #[arg(value_parser = relay::parse_listen)]
        listen: SocketAddrV4,
        asn: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (arguments.floor, arguments.options) {
        (Some(Floor::Floor { fate, listen, asn }), _) => {
            relay::serve(listen, asn, fate).map(|()| true)
        }
        (None, Some(options)) => run(&options),
        (None, None) => Err(anyhow::anyhow!("name a scenario; --help lists them")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("register a signal handler")?;
    }
    match (options.inside, &options.dir) {
        (Some(kind), Some(dir)) => run_inside(options, kind, dir, interrupted).map(|()| true),
        _ => run_outside(options, &interrupted),
    }
}

/// One daemon, in its namespace.
fn run_inside(
    options: &Options,
    kind: Kind,
    dir: &Path,
    interrupted: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut row = Row::new(kind);
    if let Err(error) = scenario::run(options, kind, dir, interrupted, &mut row) {
        row.note(format!("{error:#}"));
    }
    let text = serde_json::to_string(&row).context("encode the result")?;
    std::fs::write(dir.join("result.json"), text).context("write the result")
}

/// All daemons one after another; false when one of them failed.
fn run_outside(options: &Options, interrupted: &AtomicBool) -> anyhow::Result<bool> {
    raise_descriptor_limit();
    let margay = options.margay_path();
    let kinds = options.contestants();
    print_facts(options, &kinds, margay.as_deref());
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..options.runs.max(1) {
        for &kind in &kinds {
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            eprintln!("run {}: {} ...", number + 1, kind.name());
            rows.push(run_one(options, kind, number, interrupted)?);
        }
    }
    let of_kind = |kind: Kind| rows.iter().filter(|row| row.kind == kind).collect::<Vec<_>>();
    let medians: Vec<Row> =
        kinds.iter().filter_map(|&kind| report::median(&of_kind(kind))).collect();
    report::print(&medians, options.limit);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    let done = |row: &Row| row.metrics.first().is_some_and(|metric| metric.value.is_some());
    Ok(medians.iter().all(done))
}

fn run_one(
    options: &Options,
    kind: Kind,
    number: usize,
    interrupted: &AtomicBool,
) -> anyhow::Result<Row> {
    let id = format!("mgc{}-{}{number}", std::process::id(), kind.name());
    let dir = RunDir::create(std::env::temp_dir().join(&id), options.keep)?;
    let namespace = netns::Namespace::create(id)?;
    let mut command = namespace.command(&std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .args(["--inside", kind.name(), "--dir"])
        .arg(&dir.path);
    let mut child = command.spawn().context("run ip netns exec")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupted.load(Ordering::Relaxed) {
            // The child has had the signal too when it came from a terminal; otherwise the namespace ends it.
            std::thread::sleep(Duration::from_millis(500));
        }
        std::thread::sleep(Duration::from_millis(20));
        if interrupted.load(Ordering::Relaxed) && child.try_wait()?.is_none() {
            child.kill()?;
        }
    };
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    ensure!(status.success(), "the run of {} ended: {status}", kind.name());
    let text = std::fs::read_to_string(dir.path.join("result.json")).context("read the result")?;
    serde_json::from_str(&text).context("decode the result")
}

/// Configurations and logs of one run.
struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    fn create(path: PathBuf, keep: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, keep })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept {}", self.path.display());
        } else {
            // A leftover in the temporary directory is no reason to fail a measurement.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Children inherit it; five thousand sessions need as many descriptors on both sides.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // The inherited limit may do; where it does not, the daemon or the generator says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn print_facts(options: &Options, kinds: &[Kind], margay: Option<&Path>) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit = git
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    println!(
        "{:?}: {cores} cores, kernel {}, load {}, commit {commit}, seed {}",
        options.scenario,
        kernel.trim(),
        load.split(' ').next().unwrap_or("?"),
        options.seed
    );
    let versions: Vec<String> = kinds.iter().map(|kind| kind.version(margay)).collect();
    println!("{}", versions.join(", "));
}
