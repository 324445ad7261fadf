//! The command line.

use std::path::{Path, PathBuf};

use crate::daemon::Kind;
use crate::margay::{GROUPS_MAX, Policy};
use crate::programs::Programs;
use crate::synth::Profile;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// One feeder, one receiver, one full table.
    Table,
    /// Feeders with prefixes of their own, all reflected to every other client.
    Reflect,
    /// Every client announces a few blocks and receives those of all others.
    K8s,
    /// The same through one, two or three layers of reflectors, then single changes: processor time
    /// of the table's thread and of all others, memory and messages of each reflector.
    Tree,
    /// `tree` at many sizes, and the formulas that fit: benches/SCALE.md.
    Scale,
    /// Every client announces prefixes of its own, and one that only receives is the clock: bgperf2's
    /// shape and columns.
    Bgperf,
    /// All routes are evaluated anew after a change of policy: how long the clients wait, and until when.
    Reload,
    /// A client connects after the table has settled.
    Join,
    /// Single changes: the time until every receiver has the change, idle and under load.
    Latency,
    /// Feeders disconnect: the time until every receiver has the withdrawals.
    Loss,
    /// Feeders withdraw all routes that they announced.
    Withdraw,
    /// Established peers that send only KEEPALIVEs: CPU and memory.
    Idle,
    /// Some receivers read nothing or little: the effect on the others.
    Slow,
    /// A table is loaded while every peer has a hold time of 3 s: how many sessions are lost.
    Fairness,
    /// Installing routes in the kernel.
    Kernel,
    /// The next hop of all routes moves to another gateway: the time until the kernel forwards
    /// there.
    Failover,
}

/// The source of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Input {
    /// Seeded Internet-like table.
    Synthetic,
    /// The transfer of 2015, replayed.
    Transfer,
}

/// Options of a comparison.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    pub(crate) scenario: Scenario,
    /// Daemons and floors, in this order [default: all that are installed]
    #[arg(long, value_delimiter = ',')]
    pub(crate) daemons: Vec<Kind>,
    /// margay's binary [default: the newest of target/{release,fast}/margay]
    #[arg(long)]
    pub(crate) margay: Option<PathBuf>,
    /// Another program for a daemon: DAEMON=PATH, FRR=FOLDER. May be repeated
    #[arg(long = "program", value_name = "DAEMON=PATH", value_parser = Programs::parse)]
    pub(crate) named: Vec<(Kind, PathBuf)>,
    /// Today's BIRD 3, FRR, GoBGP and OpenBGPD, from the root that interop/setup.sh current makes
    #[arg(long)]
    pub(crate) current: bool,
    /// Repetitions, interleaved (A B C A B C); the table shows the median and the range
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// Seconds that a daemon may take for one phase before it counts as not done
    #[arg(long, default_value_t = 120)]
    pub(crate) limit: u64,
    /// Table to feed (table scenario)
    #[arg(long, value_enum, default_value_t = Input::Synthetic)]
    pub(crate) input: Input,
    /// Prefixes per attribute set of the synthetic table
    #[arg(long, value_enum, default_value_t = Profile::Lean)]
    pub(crate) profile: Profile,
    /// Prefixes of each feeder
    #[arg(long)]
    pub(crate) prefixes: Option<usize>,
    /// Feeding clients
    #[arg(long)]
    pub(crate) feeders: Option<usize>,
    /// Clients in total, feeders included
    #[arg(long)]
    pub(crate) clients: Option<usize>,
    /// Blocks of each client (k8s, idle)
    #[arg(long, default_value_t = 3)]
    pub(crate) blocks: usize,
    /// Update groups of the clients, by export policy (margay)
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=GROUPS_MAX as u64))]
    pub(crate) groups: usize,
    /// What routes pass through (margay)
    #[arg(long, value_enum, default_value_t = Policy::None)]
    pub(crate) policy: Policy,
    /// Layers of reflectors (tree)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) layers: u8,
    /// Every client announces the same prefixes, with paths of its own (bgperf)
    #[arg(long)]
    pub(crate) same: bool,
    /// Measured seconds (idle)
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u64,
    /// k8s: every client connects and announces at once, and the clock starts with the first
    /// connection
    #[arg(long)]
    pub(crate) at_once: bool,
    /// Single changes (latency)
    #[arg(long, default_value_t = 200)]
    pub(crate) changes: usize,
    /// Changes per second of the load (latency)
    #[arg(long, default_value_t = 1000)]
    pub(crate) load: u32,
    /// Seed of the random generators
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A tiny run of margay and the relay that proves the tool works
    #[arg(long)]
    pub(crate) quick: bool,
    /// The results of an earlier run that `--json` wrote, instead of measuring (scale)
    #[arg(long)]
    pub(crate) given: Option<PathBuf>,
    /// Also write the results as JSON to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Keep the run directories with configurations and logs
    #[arg(long)]
    pub(crate) keep: bool,
    /// The daemon of this process, which already runs in its namespace
    #[arg(long, hide = true)]
    pub(crate) inside: Option<Kind>,
    /// Run directory of that daemon
    #[arg(long, hide = true)]
    pub(crate) dir: Option<PathBuf>,
}

impl Options {
    /// A size: the one given on the command line, otherwise that of a quick run or the default of
    /// the scenario.
    pub(crate) fn size(&self, asked: Option<usize>, default: usize, quick: usize) -> usize {
        asked.unwrap_or(if self.quick { quick } else { default })
    }

    /// The time limit of one phase.
    pub(crate) fn limit(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.limit)
    }

    /// The daemons and floors to run, in this order.
    pub(crate) fn contestants(&self) -> Vec<Kind> {
        use Kind::{Bird2, Bird3, Frr, Gobgp, Margay, Null, Openbgpd, Relay, Writer};
        if !self.daemons.is_empty() {
            return self.daemons.clone();
        }
        let all: &[Kind] = match (self.quick, self.scenario) {
            (true, Scenario::Kernel | Scenario::Failover) => &[Margay],
            (_, Scenario::Tree | Scenario::Scale | Scenario::Reload) => &[Margay],
            (true, _) => &[Margay, Relay],
            (_, Scenario::Kernel) => &[Writer, Margay, Bird2, Bird3, Frr],
            (_, Scenario::Failover) => &[Margay, Bird2, Bird3, Frr],
            (_, Scenario::Table) => &[Null, Relay, Margay, Bird2, Bird3, Frr, Gobgp, Openbgpd],
            // Without floors: the relay does not withdraw routes when a session ends.
            (_, Scenario::Idle | Scenario::Loss) => &[Margay, Bird2, Bird3, Frr, Gobgp, Openbgpd],
            _ => &[Relay, Margay, Bird2, Bird3, Frr, Gobgp, Openbgpd],
        };
        let programs = self.programs();
        all.iter().copied().filter(|kind| programs.has(*kind)).collect()
    }

    /// Where the programs are.
    pub(crate) fn programs(&self) -> Programs {
        Programs::new(self.margay_path(), &self.named, self.current)
    }

    /// The margay binary to run, `None` when there is none.
    fn margay_path(&self) -> Option<PathBuf> {
        if let Some(path) = &self.margay {
            return std::fs::canonicalize(path).ok();
        }
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"));
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.to_owned(), PathBuf::from);
        let built = ["release", "fast"].iter().map(|profile| target.join(profile).join("margay"));
        let dated = built.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)));
        std::fs::canonicalize(dated.max()?.1).ok()
    }
}

/// A file of the shared test data, `None` where it is not present.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MARGAY_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    Some(root.join(path)).filter(|path| path.exists())
}
