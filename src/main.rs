//! margay: the program.

use std::path::PathBuf;
use std::process::ExitCode;

use margay::config::Config;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(3).map(PathBuf::from) else {
        eprintln!("usage: margay run --config FILE");
        return ExitCode::from(2);
    };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("margay: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(margay::daemon::run(&path, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("margay: {e}");
            ExitCode::FAILURE
        }
    }
}
