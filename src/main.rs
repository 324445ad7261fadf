//! margay: the program.

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

/// How long the runtime is waited for when the daemon has ended: what still runs there is of no use.
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
        // Not by eprintln: whoever reads standard error may have stopped.
        log.print(&format!("margay: {error}"));
        return ExitCode::FAILURE;
    }
    log.flush();
    ExitCode::SUCCESS
}

/// The one line for the operator.
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("margay: {error}");
    ExitCode::FAILURE
}
