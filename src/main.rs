//! margay: the program.

use std::process::ExitCode;

use clap::Parser;
use margay::cli::{self, CalledAs, Cli};
use margay::daemon;
use margay::logging;
use margay::node::Setup;

fn main() -> ExitCode {
    match CalledAs::of_process() {
        CalledAs::Birdcl => cli::birdcl(std::env::args_os().skip(1)),
        CalledAs::StandIn => cli::stand_in(),
        CalledAs::Margay => cli::execute(Cli::parse(), run),
    }
}

fn run(setup: Setup) -> ExitCode {
    let log = logging::start(setup.host().log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("margay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon::run(setup, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay: {error}");
            ExitCode::FAILURE
        }
    }
}
