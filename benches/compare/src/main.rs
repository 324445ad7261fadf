//! `compare`: a load generator that feeds the same octets to several BGP daemons.
//!
//! The outer process creates a network namespace per daemon run and starts itself inside it; the
//! inner process starts the daemon, drives all sessions and writes its result to a file. Every
//! daemon thus gets a fresh namespace and a fresh generator, and the outer process cleans up
//! whatever fails inside.

mod daemon;
mod engine;
mod feed;
mod fit;
mod margay;
mod netns;
mod options;
mod process;
mod programs;
mod relay;
mod report;
mod scale;
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
use crate::options::{Options, Scenario};
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

/// Runs one daemon in its namespace.
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

/// Runs all daemons one after another; returns false when one of them failed.
fn run_outside(options: &Options, interrupted: &AtomicBool) -> anyhow::Result<bool> {
    raise_descriptor_limit();
    let kinds = options.contestants();
    print_facts(options, &kinds);
    if options.scenario == Scenario::Scale {
        let measure = |arguments: &[String], number| {
            run_one(options, Kind::Margay, number, arguments, interrupted)
        };
        let rows = scale::run(options, measure)?;
        return save(options, &rows).map(|()| true);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..options.runs.max(1) {
        for &kind in &kinds {
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            eprintln!("run {}: {} ...", number + 1, kind.name());
            rows.push(run_one(options, kind, number, &arguments, interrupted)?);
        }
    }
    let of_kind = |kind: Kind| rows.iter().filter(|row| row.kind == kind).collect::<Vec<_>>();
    let medians: Vec<Row> =
        kinds.iter().filter_map(|&kind| report::median(&of_kind(kind))).collect();
    report::print(&medians, options.limit);
    save(options, &rows)?;
    let done = |row: &Row| row.metrics.first().is_some_and(|metric| metric.value.is_some());
    Ok(medians.iter().all(done))
}

fn save(options: &Options, rows: &[Row]) -> anyhow::Result<()> {
    let Some(path) = &options.json else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(rows)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Runs this program with `arguments` in a namespace, with one daemon.
fn run_one(
    options: &Options,
    kind: Kind,
    number: usize,
    arguments: &[String],
    interrupted: &AtomicBool,
) -> anyhow::Result<Row> {
    let id = format!("mgc{}-{}{number}", std::process::id(), kind.name());
    let dir = RunDir::create(std::env::temp_dir().join(&id), options.keep)?;
    let namespace = netns::Namespace::create(id)?;
    let mut command = namespace.command(&std::env::current_exe()?);
    command.args(arguments).args(["--inside", kind.name(), "--dir"]).arg(&dir.path);
    let mut child = command.spawn().context("run ip netns exec")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupted.load(Ordering::Relaxed) {
            // A signal from a terminal has reached the child, too, so give it time to end;
            // otherwise it is killed below.
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

/// The directory with the configuration and logs of one run.
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
            // A leftover in the temporary directory does not invalidate the measurement.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Raises the limit to its maximum; children inherit it. Five thousand sessions need as many
/// descriptors on each side.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // The inherited limit may suffice; if it does not, the daemon or the generator reports it.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn print_facts(options: &Options, kinds: &[Kind]) {
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
    let programs = options.programs();
    let versions: Vec<String> = kinds.iter().map(|&kind| programs.version(kind)).collect();
    println!("{}", versions.join(", "));
}
