//! The command line, and every command but `run`.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong arguments or configuration, 3 what was waited for is
//! not known to have happened in time. `calico doctor` has its own.

mod announce;
mod ask;
mod birdcl;
mod calico;
mod check;
mod client;
mod complete;
mod debug;
mod drain;
mod dump;
mod events;
mod examples;
mod health;
mod init;
mod names;
mod pager;
mod policy;
mod probe;
mod render;
mod routes;
mod saved;
mod steering;
mod top;

use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{ControlSettings, Document};
use crate::ctl::{Destination, Request, RouteSelection, StopMode};
use crate::node::{Environment, NodeSettings, Setup, Tried};
use crate::version;

use announce::{AnnounceArgs, WithdrawArgs};
use ask::{Demand, Printed, ask, ask_for, report};
use calico::{Live, Span};
use check::{check, try_sources};
use client::ClientError;
pub use complete::{CompleteArgs, completion_script};
use drain::{DrainArgs, UndrainArgs, read_timeout};
pub use names::{CalledAs, stand_in};
pub use policy::{AsPathArg, PolicyCommand, PolicyTestArgs};
use render::Times;
pub use routes::{PathArgs, PrefixArgs, RouteSource};
use steering::Steer;
pub use top::TopArgs;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code for wrong arguments or configuration.
const WRONG: u8 = 2;
/// Exit code for a wait whose timeout expired.
const TIMED_OUT: u8 = 3;
/// Exit code of `margay calico doctor` if it found something unsafe.
const UNSAFE: u8 = 2;

/// A BGP-4 daemon for Kubernetes nodes, route reflectors and top-of-rack peering.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "margay", version, long_version = version::long(), propagate_version = true)]
pub struct Cli {
    /// The daemon's control socket; may stand behind the command too.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground.
    Run {
        /// The configuration file; without it, what calico-node's environment says.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Validate a configuration and print what would run.
    #[command(after_help = examples::CHECK)]
    Check {
        /// The configuration file; without it, what calico-node's environment says.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON: what would run, or every fault.
        #[arg(long)]
        json: bool,
        /// Read Calico's objects once from where they are: exit code 1 if a source cannot be read.
        #[arg(long)]
        connect: bool,
    },
    /// Print a configuration to start from, with comments on what to change.
    #[command(after_help = examples::INIT)]
    Init(init::InitArgs),
    /// Show the state of the running daemon. Names of what is shown may be abbreviated.
    #[command(aliases = ["sh", "sho"], infer_subcommands = true)]
    Show(Shown),
    /// Explain a destination: each path with what ranked it, the kernel, the peers it goes to.
    #[command(after_help = examples::EXPLAIN)]
    Explain {
        /// The destination, such as 10.0.0.0/8; an address: the longest prefix that covers it.
        prefix: Destination,
        /// As seen from a vantage, where peers are sent the path that is best from there.
        #[arg(long, value_name = "NAME")]
        vantage: Option<String>,
        /// In this VRF instead of the default one.
        #[arg(long, value_name = "VRF")]
        vrf: Option<String>,
        /// Also what this peer, given by name or address, is sent: attributes, and what changed them.
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
    /// Probe the running daemon: exit code 0 if all is well, else 1 with the reason on stdout.
    Health(health::Probe),
    /// Read the configuration again and print what changed; a wrong file changes nothing.
    #[command(after_help = examples::RELOAD)]
    Reload {
        /// Print what would change, with the routes that peers would be sent, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// With --dry-run: print every route that would be sent differently, up to 20,000.
        #[arg(long, requires = "dry_run")]
        all: bool,
        /// Undo the reload after this time, for example 60 (seconds) or 5m, unless margay confirm comes
        /// first; at most one day.
        #[arg(long, value_name = "TIME", conflicts_with = "dry_run", value_parser = read_confirm_time)]
        confirm: Option<u32>,
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
    /// Confirm a reload --confirm, which is then not undone.
    Confirm {
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
    /// Stop, start, reset, refresh or dial single peers.
    #[command(subcommand)]
    Peer(Steer),
    /// Test policies on routes; show policy counts what their rules do.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Ask peers to move to other paths before maintenance (RFC 8326); no session ends.
    #[command(after_help = examples::DRAIN)]
    Drain(DrainArgs),
    /// End drains.
    Undrain(UndrainArgs),
    /// Announce a route until it is withdrawn, its time is over or the daemon ends: a restart of the daemon
    /// forgets it. Policies apply as to originated routes, it is preferred to received ones, and nothing is
    /// installed in the kernel for it.
    #[command(after_help = examples::ANNOUNCE)]
    Announce(AnnounceArgs),
    /// Withdraw what margay announce announced.
    Withdraw(WithdrawArgs),
    /// Write the table as an MRT file (RFC 6396), which route collectors' tools and show routes --from read.
    Dump(dump::DumpArgs),
    /// Print recent events: sessions, links, limits, conflicts, reloads; the last 1,000 are kept.
    #[command(after_help = examples::EVENTS)]
    Events(events::EventsArgs),
    /// Follow the daemon on a terminal: peers by changes, states and rates, the kernel, queues, problems;
    /// from a peer to its routes, and from a route to explain.
    #[command(after_help = examples::TOP)]
    Top(TopArgs),
    /// Try what the session with a peer needs: route, TCP, password, TTL, OPEN, path MTU. Says what is
    /// wrong and what to change; exit code 1 if a step fails.
    #[command(after_help = examples::PROBE)]
    Probe(probe::ProbeArgs),
    /// Log the messages of peers for a limited time: OPEN, UPDATE and NOTIFICATION decoded.
    #[command(after_help = examples::DEBUG)]
    Debug(debug::DebugArgs),
    /// Print what the daemon logs, or change it until the next change or restart.
    LogLevel {
        /// error, warn, info, debug, trace, or directives such as info,margay::net=debug.
        level: Option<String>,
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
    /// Print what a shell needs to complete margay's commands.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the names by which a shell completes a command line.
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Do nothing until terminated: stands in for a service that margay replaces.
    #[command(hide = true)]
    StandIn,
    /// Show what follows from Calico's objects for a node, without a daemon.
    #[command(subcommand)]
    Calico(calico::Command),
    /// Stop the daemon.
    Stop {
        /// Graceful restart or shutdown.
        #[command(flatten)]
        how: How,
        /// Longest wait of --drain, for example 90s or 5m; at most one hour.
        #[arg(
            long,
            value_name = "TIME",
            default_value = "60s",
            conflicts_with_all = ["graceful", "shutdown"],
            value_parser = read_timeout
        )]
        timeout: Duration,
        /// Shutdown communication sent with --shutdown or --drain, for example who did it and why
        /// (RFC 9003).
        #[arg(long, value_name = "TEXT", conflicts_with = "graceful", value_parser = read_message)]
        message: Option<String>,
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
}

/// The arguments of `show`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Shown {
    /// The part of the state.
    #[command(subcommand)]
    pub what: Show,
    /// How to ask and print.
    #[command(flatten)]
    pub output: Output,
}

/// What can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Show {
    /// The daemon as a whole.
    Status {
        /// Exit with 1 if the daemon is not ready.
        #[arg(long)]
        fail_if_not_ready: bool,
    },
    /// Every peer.
    #[command(aliases = ["neighbors", "neighbours", "summary"])]
    Peers {
        /// Exit with 1 if any peer is not established.
        #[arg(long)]
        fail_if_down: bool,
        /// Only those that are not established.
        #[arg(long)]
        down: bool,
        /// Only those in this VRF.
        #[arg(long, value_name = "VRF")]
        vrf: Option<String>,
    },
    /// Everything about one peer.
    #[command(aliases = ["neighbor", "neighbour"])]
    Peer {
        /// Its name or address.
        name: String,
    },
    /// The Loc-RIB and its other paths, in the order of prefixes. Marks: * best, = used beside the
    /// best, s stale, S long-lived stale, ! unusable.
    #[command(alias = "route", after_help = examples::ROUTES)]
    Routes {
        /// Which prefixes.
        #[command(flatten)]
        prefixes: PrefixArgs,
        /// Only paths from this peer, given by name or address.
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
        /// Those of this VRF instead of the default one.
        #[arg(long, value_name = "VRF")]
        vrf: Option<String>,
        /// Those of an MRT file with a dump of a table (TABLE_DUMP_V2), gzip or not, instead of the daemon's;
        /// - is stdin. Peers have their addresses as names, and no path is marked as the best.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["vrf", "source", "unusable"])]
        from: Option<PathBuf>,
        /// Which paths.
        #[command(flatten)]
        paths: PathArgs,
    },
    /// The Adj-RIB-In of a peer, rejected routes included.
    Received {
        /// The peer's name or address.
        peer: String,
        /// Which prefixes.
        #[command(flatten)]
        prefixes: PrefixArgs,
        /// Which paths.
        #[command(flatten)]
        paths: PathArgs,
    },
    /// The Adj-RIB-Out of a peer.
    Advertised {
        /// The peer's name or address.
        peer: String,
        /// Which prefixes.
        #[command(flatten)]
        prefixes: PrefixArgs,
        /// Which paths.
        #[command(flatten)]
        paths: PathArgs,
    },
    /// Routes that margay wrote to the kernel.
    Fib {
        /// Exit with 1 if the kernel does not hold all of them, or if there is none to the prefix.
        #[arg(long, conflicts_with_all = ["count", "limit"])]
        fail_if_missing: bool,
        /// Those of this VRF instead of the default one.
        #[arg(long, value_name = "VRF")]
        vrf: Option<String>,
        /// Which prefixes.
        #[command(flatten)]
        prefixes: PrefixArgs,
    },
    /// The update groups.
    Groups,
    /// The next hops of paths: how each is resolved, by which kernel route, and why not.
    #[command(aliases = ["nexthop", "next-hops"])]
    Nexthops {
        /// Those of this VRF instead of the default one.
        #[arg(long, value_name = "VRF")]
        vrf: Option<String>,
    },
    /// The BFD sessions.
    Bfd,
    /// The monitoring stations (BMP), and what each is sent.
    Bmp,
    /// A policy: how many of the routes in the table each rule applies to, and decides.
    Policy {
        /// Its name.
        name: String,
    },
    /// The key chains of TCP-AO, and which key is preferred; without secrets.
    KeyChains,
    /// The drains, and whether peers have moved to other paths.
    Drain,
    /// The routes that margay announce announced.
    Announced,
    /// The configuration in force: the daemon, its peers and ranges, defaults marked. Without secrets,
    /// policies, originated and redistributed routes, and what the calico table says.
    Config,
}

/// Which daemon to query.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Daemon {
    /// The daemon's control socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MARGAY_SOCKET",
        default_value = ControlSettings::DEFAULT_SOCKET
    )]
    pub socket: PathBuf,
}

/// Which daemon to query, and how to print.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Output {
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours. auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    /// Print local times instead of how long ago something was.
    #[arg(long, global = true)]
    pub absolute_times: bool,
    /// Which daemon to query.
    #[command(flatten)]
    pub daemon: Daemon,
}

impl Output {
    fn times(&self) -> Times {
        if self.absolute_times { Times::Absolute } else { Times::Relative }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// Shells that [`Command::Completions`] supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// Peers keep our routes, and so does the kernel: for restarts and upgrades.
    #[arg(long)]
    pub graceful: bool,
    /// Peers are notified, and our routes are removed from the kernel.
    #[arg(long)]
    pub shutdown: bool,
    /// As --shutdown, after a drain: waits until peers have moved to other paths or the timeout
    /// expires (exit code 3), then stops.
    #[arg(long)]
    pub drain: bool,
}

/// Parses the time to confirm a reload: seconds, or a time with a unit.
fn read_confirm_time(text: &str) -> Result<u32, String> {
    let time = match text.parse::<i64>() {
        Ok(seconds) => jiff::SignedDuration::from_secs(seconds),
        Err(_) => text.parse().map_err(|e| format!("{e}"))?,
    };
    let seconds = u32::try_from(time.as_secs()).ok().filter(|s| (1..=86_400).contains(s));
    seconds.ok_or_else(|| "1 s to one day, for example 60 or 5m".to_owned())
}

/// Maximum length of a shutdown communication, in bytes (RFC 9003 §2).
const MESSAGE_LEN_MAX: usize = 255;

fn read_message(text: &str) -> Result<String, String> {
    match text.len() {
        ..=MESSAGE_LEN_MAX => Ok(text.to_owned()),
        len => {
            Err(format!("{len} octets of UTF-8; a shutdown communication holds {MESSAGE_LEN_MAX}"))
        }
    }
}

impl Show {
    fn printed(&self) -> Printed {
        if matches!(self, Show::Peers { down: true, .. }) { Printed::Down } else { Printed::All }
    }

    /// The file to read instead of asking the daemon.
    fn file(&self) -> Option<PathBuf> {
        match self {
            Show::Routes { from, .. } => from.clone(),
            _ => None,
        }
    }

    fn into_request(self) -> (Request, Demand) {
        let demand = |wanted: bool, demand| if wanted { demand } else { Demand::Nothing };
        match self {
            Show::Status { fail_if_not_ready } => {
                (Request::ShowStatus, demand(fail_if_not_ready, Demand::Ready))
            }
            Show::Peers { fail_if_down, vrf, .. } => {
                let request = match vrf {
                    Some(vrf) => Request::ShowPeersIn { vrf },
                    None => Request::ShowPeers,
                };
                (request, demand(fail_if_down, Demand::Established))
            }
            Show::Peer { name } => (Request::ShowPeer { name }, Demand::Nothing),
            Show::Routes { prefixes, peer, vrf, paths, from: _ } => {
                let mut select = RouteSelection { vrf, ..prefixes.with(paths, peer) };
                let prefix = select.prefix.take();
                (Request::ShowRoutes { prefix, select }, Demand::Nothing)
            }
            Show::Received { peer, prefixes, paths } => {
                let select = prefixes.with(paths, None);
                (Request::ShowReceived { peer, select }, Demand::Nothing)
            }
            Show::Advertised { peer, prefixes, paths } => {
                let select = prefixes.with(paths, None);
                (Request::ShowAdvertised { peer, select }, Demand::Nothing)
            }
            Show::Fib { fail_if_missing, vrf, prefixes } => {
                let select = RouteSelection { vrf, ..prefixes.into_selection() };
                let missing = Demand::Installed { of: select.prefix };
                (Request::ShowFib { select }, demand(fail_if_missing, missing))
            }
            Show::Groups => (Request::ShowGroups, Demand::Nothing),
            Show::Nexthops { vrf } => (Request::ShowNexthops { vrf }, Demand::Nothing),
            Show::Policy { name } => (Request::ShowPolicy { name }, Demand::Nothing),
            Show::Bfd => (Request::ShowBfd, Demand::Nothing),
            Show::Bmp => (Request::ShowBmp, Demand::Nothing),
            Show::KeyChains => (Request::ShowKeyChains, Demand::Nothing),
            Show::Drain => (Request::ShowDrain, Demand::Nothing),
            Show::Announced => (Request::ShowAnnounced, Demand::Nothing),
            Show::Config => (Request::ShowConfig, Demand::Nothing),
        }
    }
}

impl Command {
    /// The daemon that the command queries; `None`: it queries none.
    fn daemon(&mut self) -> Option<&mut Daemon> {
        match self {
            Command::Show(Shown { output, .. })
            | Command::Explain { output, .. }
            | Command::LogLevel { output, .. }
            | Command::Reload { output, .. }
            | Command::Confirm { output }
            | Command::Stop { output, .. } => Some(&mut output.daemon),
            Command::Peer(steer) => Some(&mut steer.peers().output.daemon),
            Command::Policy(policy) => Some(&mut policy.output().daemon),
            Command::Drain(args) => Some(&mut args.output.daemon),
            Command::Undrain(args) => Some(&mut args.output.daemon),
            Command::Announce(args) => Some(&mut args.output.daemon),
            Command::Withdraw(args) => Some(&mut args.output.daemon),
            Command::Dump(args) => Some(&mut args.daemon),
            Command::Events(args) => Some(&mut args.output.daemon),
            Command::Top(args) => Some(&mut args.output.daemon),
            Command::Probe(args) => Some(&mut args.output.daemon),
            Command::Debug(args) => Some(&mut args.output.daemon),
            Command::Health(probe) => Some(&mut probe.daemon),
            Command::Calico(command) => command.daemon(),
            Command::Run { .. }
            | Command::Check { .. }
            | Command::Init(_)
            | Command::Completions { .. }
            | Command::Complete(_)
            | Command::StandIn => None,
        }
    }
}

/// Executes a command; `run` implements the command of that name.
pub fn execute(cli: Cli, run: impl FnOnce(Setup) -> ExitCode) -> ExitCode {
    let Cli { socket, mut command } = cli;
    match (socket, command.daemon()) {
        (None, _) => {}
        (Some(socket), Some(daemon)) => daemon.socket = socket,
        (Some(_), None) => {
            eprintln!("margay: this command asks no daemon; leave --socket out");
            return ExitCode::from(WRONG);
        }
    }
    let (request, output) = match command {
        Command::Run { config } => {
            return match load(config, None, &Environment::of_process()) {
                Ok(setup) => run(setup),
                Err(unusable) => unusable.say(),
            };
        }
        Command::Check { config, json, connect } => return check(config, json, connect),
        Command::Init(args) => return init::init(args),
        Command::Calico(command) => return calico(&command),
        Command::Completions { shell } => return completions(shell),
        Command::Complete(args) => return complete::complete(&args),
        Command::StandIn => return stand_in(),
        Command::Show(Shown { what, output }) => {
            let printed = what.printed();
            let file = what.file();
            let (request, demand) = what.into_request();
            if let Some(file) = file {
                return saved::show(&file, &request, &output);
            }
            return ask_for(&request, printed, demand, &output);
        }
        Command::Explain { prefix: Destination { prefix, lookup }, vantage, vrf, peer, output } => {
            (Request::Explain { prefix, lookup, vantage, vrf, peer }, output)
        }
        Command::Health(probe) => return health::run(&probe),
        Command::LogLevel { level, output } => (Request::LogLevel { level }, output),
        Command::Peer(steer) => {
            let (request, output) = steer.into_request();
            return ask(&request, Demand::Done, &output);
        }
        Command::Policy(policy) => policy.into_request(),
        Command::Drain(args) => return drain::drain(args),
        Command::Undrain(args) => return drain::undrain(args),
        Command::Announce(args) => args.into_request(),
        Command::Withdraw(args) => args.into_request(),
        Command::Dump(args) => return dump::run(&args),
        Command::Events(args) => args.into_request(),
        Command::Debug(args) => return debug::debug(args),
        Command::Top(args) => return top::run(args),
        Command::Probe(args) => {
            return match args.into_request() {
                Ok((request, output)) => ask(&request, Demand::Works, &output),
                Err(text) => {
                    eprintln!("margay: {text}");
                    ExitCode::from(WRONG)
                }
            };
        }
        Command::Reload { dry_run: true, all, output, confirm: _ } => {
            let list = all.then_some(u32::MAX);
            return ask(&Request::ReloadDryRun { list }, Demand::DryRun, &output);
        }
        Command::Reload { confirm: Some(seconds), output, .. } => {
            (Request::ReloadUnconfirmed { seconds }, output)
        }
        Command::Reload { output, .. } => (Request::Reload, output),
        Command::Confirm { output } => (Request::Confirm, output),
        Command::Stop { how, timeout, message, output } if how.drain => {
            return drain::drain_and_stop(timeout, message, &output);
        }
        Command::Stop { how, message, output, .. } => {
            let mode = if how.shutdown { StopMode::Shutdown } else { StopMode::Graceful };
            (Request::Stop { mode, message }, output)
        }
    };
    ask(&request, Demand::Nothing, &output)
}

/// Runs as BIRD's client, `birdcl`; `arguments` without the program's name.
pub fn birdcl(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    birdcl::run(arguments)
}

fn completions(shell: Shell) -> ExitCode {
    match io::stdout().write_all(completion_script(shell).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(ClientError::Output(error)),
    }
}

/// Why there is nothing to run.
enum Unusable {
    /// The configuration is wrong; each line is one error.
    Wrong(String),
    /// According to the environment, nothing is to run.
    Idle,
}

impl Unusable {
    fn say(self) -> ExitCode {
        match self {
            Unusable::Wrong(text) => {
                eprintln!("{text}");
                ExitCode::from(WRONG)
            }
            Unusable::Idle => {
                eprintln!("margay: CALICO_NETWORKING_BACKEND says that this node speaks no BGP");
                ExitCode::SUCCESS
            }
        }
    }
}

/// Loads a configuration; the error says why there is nothing to run. `node` takes precedence over
/// the node in the file.
fn load(path: Option<PathBuf>, node: Option<&str>, env: &Environment) -> Result<Setup, Unusable> {
    let Some(path) = path else {
        let settings = NodeSettings::from_env(env);
        let settings = settings.map_err(|e| Unusable::Wrong(format!("margay: {e}")))?;
        let settings = Box::new(settings.ok_or(Unusable::Idle)?);
        return Ok(Setup::Node { path: None, settings });
    };
    match Document::load(&path).map_err(|errors| Unusable::Wrong(errors.to_string()))? {
        Document::Own(config) => Ok(Setup::Own { path, config }),
        Document::Calico { mut calico, host } => {
            calico.node = node.map(str::to_owned).or(calico.node);
            let wrong = |e| Unusable::Wrong(format!("{}: calico: {e}", path.display()));
            let settings = NodeSettings::from_file(*calico, *host, env).map_err(wrong)?;
            let settings = Box::new(settings.ok_or(Unusable::Idle)?);
            Ok(Setup::Node { path: Some(path), settings })
        }
    }
}

/// The settings that a daemon on a Calico node would use; `None`: it would not speak BGP.
fn settings_of(
    path: Option<&Path>,
    node: Option<&str>,
    env: &Environment,
) -> Result<Option<NodeSettings>, String> {
    let setup = match load(path.map(Path::to_owned), node, env) {
        Ok(setup) => setup,
        Err(Unusable::Idle) => return Ok(None),
        Err(Unusable::Wrong(text)) => {
            return Err(text.strip_prefix("margay: ").unwrap_or(&text).to_owned());
        }
    };
    match setup {
        Setup::Node { settings, .. } => Ok(Some(*settings)),
        Setup::Own { .. } => {
            Err("the configuration has no [calico]: there are no objects to plan for".to_owned())
        }
    }
}

fn calico(command: &calico::Command) -> ExitCode {
    use calico::Outcome;
    let mut out = BufWriter::new(io::stdout().lock());
    let done = calico::run(command, io::stdin().lock(), &mut out, read_live, settings_of);
    match done.and_then(|found| out.flush().map(|()| found)) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Problems | Outcome::Differs | Outcome::Unreached) => ExitCode::from(FAILED),
        Ok(Outcome::Unsafe) => ExitCode::from(UNSAFE),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay: {error}");
            let is_wrong = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput);
            ExitCode::from(if is_wrong { WRONG } else { FAILED })
        }
    }
}

/// Reads once what the daemon would read.
fn read_live(config: Option<&Path>, span: Span) -> io::Result<Live> {
    let settings = settings_of(config, None, &Environment::of_process())
        .map_err(|text| io::Error::new(ErrorKind::InvalidInput, text))?;
    let Some(mut settings) = settings else { return Ok(Live::default()) };
    if span == Span::Cluster {
        let of_cluster = settings.of_cluster();
        settings = of_cluster.map_err(|text| io::Error::new(ErrorKind::InvalidInput, text))?;
    }
    let (tried, snapshot) = try_sources(&settings)?;
    let asks_services = settings.asks_services();
    let mut live = Live {
        settings: Some(settings.calico),
        snapshot,
        problems: Vec::new(),
        limits: settings.limits,
        host: Some(settings.host),
        asks_services,
    };
    for Tried { name, objects, problems } in tried {
        if let Err(fault) = objects {
            return Err(io::Error::other(format!("{name}: cannot be read: {fault}")));
        }
        live.problems.extend(problems);
    }
    Ok(live)
}

#[cfg(test)]
mod tests;
