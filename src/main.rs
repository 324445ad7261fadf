//! The `margay` binary: picks a program by the name it was called by, and runs the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use margay::cli::{self, CalledAs, Cli};
use margay::daemon;
use margay::logging;
use margay::node::Setup;
use margay::supervise::{self, Ending, Supervisor};

fn main() -> ExitCode {
    match CalledAs::of_process() {
        CalledAs::Birdcl => cli::birdcl(std::env::args_os().skip(1)),
        CalledAs::StandIn => cli::stand_in(),
        CalledAs::Margay => cli::execute(Cli::parse(), run),
    }
}

/// How long to wait for the runtime after the daemon has ended; no task left in it matters.
const RUNTIME_WAIT: Duration = Duration::from_millis(200);

fn run(setup: Setup) -> ExitCode {
    let log = match logging::start(setup.host().log) {
        Ok(log) => log,
        Err(error) => return refuse(&error),
    };
    let words = log.clone();
    Supervisor::install(move |text| words.last_words(text));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let daemon = daemon::run(setup, log.clone());
    let ended = runtime.block_on(supervise::task("daemon", Ending::Allowed, daemon));
    runtime.shutdown_timeout(RUNTIME_WAIT);
    if let Err(error) = ended {
        // Not eprintln, which would block if the reader of standard error has stopped reading.
        log.print(&format!("margay: {error}"));
        return ExitCode::FAILURE;
    }
    log.flush();
    ExitCode::SUCCESS
}

/// Prints why margay cannot start, before there is a log.
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("margay: {error}");
    ExitCode::FAILURE
}
