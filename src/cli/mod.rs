//! What people type: the command line, and every command but `run`.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong arguments or configuration.

mod health;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bgp_proto::types::Prefix;
use clap::{Args, Parser, Subcommand};

use crate::config::{ControlSettings, Document};
use crate::ctl::{
    Client, ClientError, ErrorKind, JsonWriter, Refusal, Renderer, Request, StopMode,
};
use crate::node::{Environment, NodeSettings, Setup};

/// It failed.
const FAILED: u8 = 1;
/// Wrong arguments or configuration.
const WRONG: u8 = 2;
/// Longest wait for the daemon to end after `margay stop`.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// A BGP-4 daemon for Kubernetes nodes, route reflectors and top-of-rack peering.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "margay", version, propagate_version = true)]
pub struct Cli {
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
    Check {
        /// The configuration file; without it, what calico-node's environment says.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show what the running daemon knows.
    #[command(subcommand)]
    Show(Show),
    /// Explain a destination: every path and why it is where it is, the kernel, who was told.
    Explain {
        /// The destination, such as 10.0.0.0/8.
        prefix: Prefix,
        /// How to ask and print.
        #[command(flatten)]
        output: Output,
    },
    /// Probe the running daemon: exit code 0 if all is well, else 1 with the reason on stdout.
    Health(health::Probe),
    /// Read the configuration again and print what changed; a wrong file changes nothing.
    Reload {
        /// Whom to ask.
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Say what Calico's objects mean for a node, without a daemon.
    #[command(subcommand)]
    Calico(crate::calico::cli::Command),
    /// Stop the daemon.
    Stop {
        /// How.
        #[command(flatten)]
        how: How,
        /// What peers are told with --shutdown, for example who did it and why (RFC 9003).
        #[arg(long, value_name = "TEXT", conflicts_with = "graceful", value_parser = read_message)]
        message: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// What can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Show {
    /// The daemon as a whole.
    Status {
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// Every peer.
    Peers {
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// Everything about one peer.
    Peer {
        /// Its name or address.
        name: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// The table.
    Routes {
        /// Only this destination.
        prefix: Option<Prefix>,
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// What a peer sent, rejected routes included.
    Received {
        /// The peer's name or address.
        peer: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// What a peer was told.
    Advertised {
        /// The peer's name or address.
        peer: String,
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// Our routes in the kernel.
    Fib {
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
    /// The update groups.
    Groups {
        #[command(flatten)]
        #[allow(missing_docs)]
        output: Output,
    },
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Daemon {
    /// The daemon's control socket.
    #[arg(
        long,
        value_name = "PATH",
        env = "MARGAY_SOCKET",
        default_value = ControlSettings::DEFAULT_SOCKET
    )]
    pub socket: PathBuf,
}

/// Whom to ask, and how to print.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// Peers keep our routes, and so does the kernel: for restarts and upgrades.
    #[arg(long)]
    pub graceful: bool,
    /// Peers are told, and our routes leave the kernel.
    #[arg(long)]
    pub shutdown: bool,
}

/// The longest text for peers: what the protocol carries (RFC 9003 §2).
const MESSAGE_LEN_MAX: usize = 255;

fn read_message(text: &str) -> Result<String, String> {
    match text.len() {
        ..=MESSAGE_LEN_MAX => Ok(text.to_owned()),
        len => Err(format!("{len} octets of UTF-8; peers can be told {MESSAGE_LEN_MAX}")),
    }
}

impl Show {
    fn into_request(self) -> (Request, Output) {
        match self {
            Show::Status { output } => (Request::ShowStatus, output),
            Show::Peers { output } => (Request::ShowPeers, output),
            Show::Peer { name, output } => (Request::ShowPeer { name }, output),
            Show::Routes { prefix, output } => (Request::ShowRoutes { prefix }, output),
            Show::Received { peer, output } => (Request::ShowReceived { peer }, output),
            Show::Advertised { peer, output } => (Request::ShowAdvertised { peer }, output),
            Show::Fib { output } => (Request::ShowFib, output),
            Show::Groups { output } => (Request::ShowGroups, output),
        }
    }
}

/// Carries out a command with `run`'s being `run`.
pub fn execute(cli: Cli, run: impl FnOnce(Setup) -> ExitCode) -> ExitCode {
    match cli.command {
        Command::Run { config } => match load(config, &Environment::of_process()) {
            Ok(setup) => run(setup),
            Err(code) => code,
        },
        Command::Check { config } => check(config, &Environment::of_process()),
        Command::Show(show) => {
            let (request, output) = show.into_request();
            ask(&request, &output.daemon.socket, output.json)
        }
        Command::Explain { prefix, output } => {
            ask(&Request::Explain { prefix }, &output.daemon.socket, output.json)
        }
        Command::Health(probe) => health::run(&probe),
        Command::Calico(command) => calico(&command),
        Command::Reload { daemon } => ask(&Request::Reload, &daemon.socket, false),
        Command::Stop { how, message, daemon } => {
            let mode = if how.shutdown { StopMode::Shutdown } else { StopMode::Graceful };
            ask(&Request::Stop { mode, message }, &daemon.socket, false)
        }
    }
}

/// Reads a configuration, or says what is wrong with it or that nothing is to run.
fn load(path: Option<PathBuf>, env: &Environment) -> Result<Setup, ExitCode> {
    let wrong = |text: String| {
        eprintln!("{text}");
        ExitCode::from(WRONG)
    };
    let Some(path) = path else {
        let settings = NodeSettings::from_env(env).map_err(|e| wrong(format!("margay: {e}")))?;
        let Some(settings) = settings else {
            eprintln!("margay: CALICO_NETWORKING_BACKEND says that this node speaks no BGP");
            return Err(ExitCode::SUCCESS);
        };
        return Ok(Setup::Node { path: None, settings: Box::new(settings) });
    };
    match Document::load(&path).map_err(|errors| wrong(errors.to_string()))? {
        Document::Own(config) => Ok(Setup::Own { path, config }),
        Document::Calico { calico, host } => {
            let settings = NodeSettings::from_file(*calico, *host, env)
                .map_err(|e| wrong(format!("{}: calico: {e}", path.display())))?;
            Ok(Setup::Node { path: Some(path), settings: Box::new(settings) })
        }
    }
}

fn check(path: Option<PathBuf>, env: &Environment) -> ExitCode {
    let setup = match load(path, env) {
        Ok(setup) => setup,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    let written = match &setup {
        Setup::Own { config, .. } => write!(out, "{config}"),
        Setup::Node { settings, .. } => write!(out, "{settings}"),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(ClientError::Output(error)),
    }
}

fn calico(command: &crate::calico::cli::Command) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = crate::calico::cli::run(command, io::stdin().lock(), &mut out);
    match done.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("margay: {error}");
            ExitCode::from(WRONG)
        }
        Err(error) => report(ClientError::Output(error)),
    }
}

fn ask(request: &Request, socket: &Path, json: bool) -> ExitCode {
    match try_ask(request, socket, json) {
        Ok(code) => code,
        Err(error) => report(error),
    }
}

fn try_ask(request: &Request, socket: &Path, json: bool) -> Result<ExitCode, ClientError> {
    let mut client = Client::connect(socket)?;
    let out = BufWriter::new(io::stdout().lock());
    if json {
        let mut writer = JsonWriter::new(request, out);
        client.ask(request, |item| writer.item(item))?;
        writer.finish()?;
    } else {
        let mut renderer = Renderer::new(request, terminal_width(), out);
        client.ask(request, |item| renderer.item(item))?;
        renderer.finish()?;
    }
    if matches!(request, Request::Stop { .. }) && !client.wait_closed(STOP_WAIT) {
        eprintln!("margay: the daemon has not ended after {} s", STOP_WAIT.as_secs());
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong. That the reader of our output went away is not a failure: `… | head`.
fn report(error: ClientError) -> ExitCode {
    match error {
        ClientError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        ClientError::Refused(Refusal { kind: ErrorKind::Configuration, text }) => {
            eprintln!("{text}");
            ExitCode::from(WRONG)
        }
        error => {
            eprintln!("margay: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Columns of the terminal; `None` if the output goes elsewhere.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests;
