//! margay: the program.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use margay::cli::{self, Cli};
use margay::config::{LogFormat, LogSettings};
use margay::daemon;
use margay::node::Setup;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    cli::execute(Cli::parse(), run)
}

fn run(setup: Setup) -> ExitCode {
    log_to_stderr(setup.host().log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("margay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon::run(setup)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `RUST_LOG` overrides the configured level, for one run and for single modules.
fn log_to_stderr(settings: LogSettings) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into());
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => filter.parse_lossy(directives),
        _ => filter.parse_lossy(settings.level.as_str()),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
