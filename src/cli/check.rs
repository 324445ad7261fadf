//! `margay check`, and reading once what the daemon would read.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::ask::report;
use super::client::ClientError;
use super::{FAILED, Unusable, WRONG, load};
use crate::calico::Snapshot;
use crate::kernel;
use crate::net::{try_key_chain, unix_now};
use crate::node::{self, Environment, NodeSettings, Setup, Tried};

/// Validates a configuration and prints what would run; with `connect`, reads every source once.
pub(super) fn check(path: Option<PathBuf>, json: bool, connect: bool) -> ExitCode {
    let (mut warnings, mut lacks) = (Vec::new(), Vec::new());
    let loaded = load(path, None, &Environment::of_process()).map(|setup| match setup {
        Setup::Own { config, .. } => {
            warnings = config.key_chain_gaps(unix_now());
            let tried = config.key_chains.iter().map(|chain| try_key_chain(chain));
            lacks.extend(tried.filter_map(Result::err));
            let shared = if config.vrfs.is_empty() { Vec::new() } else { kernel::shared_sockets() };
            let note = |text: String| format!("note: {text}\n");
            (config.to_string() + &shared.into_iter().map(note).collect::<String>(), None)
        }
        Setup::Node { settings, .. } => (settings.to_string(), Some(settings)),
    });
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let tried = match &loaded {
        Ok((_, Some(settings))) if connect => match try_sources(settings) {
            Ok((tried, _)) => tried,
            Err(error) => return report(ClientError::Output(error)),
        },
        _ => Vec::new(),
    };
    let is_read = tried.iter().all(|source| source.objects.is_ok());
    let done = if is_read && lacks.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    let (text, code) = match (json, loaded) {
        (false, Err(unusable)) => return unusable.say(),
        (false, Ok((text, _))) => {
            let tried = tried.iter().map(ToString::to_string);
            let warned = warnings.iter().map(|text| format!("warning: {text}\n"));
            let lacking = lacks.iter().map(|text| format!("will not work here: {text}\n"));
            (tried.chain(warned).chain(lacking).fold(text, |all, more| all + &more), done)
        }
        (true, loaded) => {
            let (runs, faults, code) = match loaded {
                Ok((text, _)) => (lines(&text), Vec::new(), done),
                Err(Unusable::Idle) => (Vec::new(), Vec::new(), ExitCode::SUCCESS),
                Err(Unusable::Wrong(text)) => (Vec::new(), lines(&text), ExitCode::from(WRONG)),
            };
            let valid = faults.is_empty();
            let mut answer = serde_json::json!({"valid": valid, "runs": runs, "faults": faults});
            for (key, lines) in [("warnings", &warnings), ("lacking", &lacks)] {
                if !lines.is_empty() {
                    answer[key] = lines.iter().cloned().collect();
                }
            }
            if connect {
                answer["sources"] = tried.iter().map(Tried::to_json).collect();
            }
            (format!("{answer}\n"), code)
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(error) => report(ClientError::Output(error)),
    }
}

/// Reads every source once: what each says, and all objects.
///
/// # Errors
/// There are no threads for it.
pub(super) fn try_sources(settings: &NodeSettings) -> io::Result<(Vec<Tried>, Snapshot)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tried = runtime.block_on(node::try_sources(settings));
    runtime.shutdown_background();
    Ok(tried)
}
