//! `margay health`: probes, for kubelet's exec probes and for scripts.
//!
//! It uses the control socket, which works even if HTTP is not configured or its port is taken. The
//! result is on stdout, from where kubelet takes the reason; the exit code is 0 or 1.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::{Client, ClientError};
use super::{Daemon, FAILED};
use crate::ctl::Request;
use crate::ctl::item::Health;

/// Timeout for the daemon's reply: less than the ten seconds of calico-node's probes, and more than
/// the daemon allows its own parts.
const WAIT: Duration = Duration::from_secs(8);

/// Which probes to run, on which daemon.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Probe {
    /// Whether every part of the daemon makes progress.
    #[arg(long)]
    pub live: bool,
    /// Whether it is ready to serve. Without either flag both are asked.
    #[arg(long)]
    pub ready: bool,
    /// Which daemon to query.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Runs the probes, prints the results, and returns exit code 0 if all pass.
pub(super) fn run(probe: &Probe) -> ExitCode {
    let (text, is_well) = match ask(probe) {
        Ok(health) => verdict(probe, &health),
        Err(error) => (format!("{error}\n"), false),
    };
    // If the reason cannot be written, the exit code still tells.
    let _ = io::stdout().write_all(text.as_bytes());
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn ask(probe: &Probe) -> Result<Health, ClientError> {
    let mut client = Client::connect_for(&probe.daemon.socket, WAIT)?;
    let mut health = None;
    client.ask(&Request::Health, |item| {
        health = Some(serde_json::from_str(item).map_err(ClientError::Answer)?);
        Ok(())
    })?;
    health.ok_or(ClientError::Connection(io::ErrorKind::UnexpectedEof.into()))
}

/// The text to print, and whether all requested probes pass.
fn verdict(probe: &Probe, health: &Health) -> (String, bool) {
    let both = !probe.live && !probe.ready;
    let mut text = String::new();
    let mut is_well = true;
    if probe.live || both {
        match health.not_alive.as_slice() {
            [] => text.push_str("alive\n"),
            stuck => {
                is_well = false;
                stuck.iter().for_each(|line| text.push_str(&format!("not alive: {line}\n")));
            }
        }
    }
    if probe.ready || both {
        match &health.not_ready {
            None => text.push_str("ready\n"),
            Some(reason) => {
                is_well = false;
                text.push_str(&format!("not ready: {reason}\n"));
            }
        }
    }
    (text, is_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(live: bool, ready: bool) -> Probe {
        Probe { live, ready, daemon: Daemon { socket: "/s".into() } }
    }

    #[test]
    fn only_the_requested_probes_count() {
        let well = Health::default();
        let stuck = Health { not_alive: vec!["table: no answer".into()], ..Health::default() };
        let waiting = Health { not_ready: Some("no session".into()), ..Health::default() };
        for (live, ready, health, text, is_well) in [
            (true, false, &well, "alive\n", true),
            (false, true, &well, "ready\n", true),
            (false, false, &well, "alive\nready\n", true),
            (true, false, &waiting, "alive\n", true),
            (false, true, &waiting, "not ready: no session\n", false),
            (true, true, &waiting, "alive\nnot ready: no session\n", false),
            (true, false, &stuck, "not alive: table: no answer\n", false),
            (false, true, &stuck, "ready\n", true),
            (false, false, &stuck, "not alive: table: no answer\nready\n", false),
        ] {
            assert_eq!(verdict(&probe(live, ready), health), (text.to_owned(), is_well));
        }
    }
}
