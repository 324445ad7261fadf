//! `margay health`: probes, for kubelet's exec and for scripts.
//!
//! Over the control socket, which is there whether HTTP is configured, or taken, or not. The answer
//! is on stdout, where kubelet looks for the reason; the exit code is 0 or 1.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::{Client, ClientError};
use super::{Daemon, FAILED};
use crate::ctl::Request;
use crate::ctl::item::Health;

/// Longest wait for the daemon: less than the ten seconds that calico-node's probes have, and more
/// than the daemon waits for its parts.
const WAIT: Duration = Duration::from_secs(8);

/// Which probes, and whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Probe {
    /// Whether every part of the daemon turns.
    #[arg(long)]
    pub live: bool,
    /// Whether it is ready to serve. Without either flag both are asked.
    #[arg(long)]
    pub ready: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Asks, says what is wrong, and returns 0 if nothing is.
pub(super) fn run(probe: &Probe) -> ExitCode {
    let (text, is_well) = match ask(probe) {
        Ok(health) => verdict(probe, &health),
        Err(error) => (format!("{error}\n"), false),
    };
    // Whoever does not read the reason has the exit code.
    let _ = io::stdout().write_all(text.as_bytes());
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn ask(probe: &Probe) -> Result<Health, ClientError> {
    let mut client = Client::connect_for(&probe.daemon.socket, WAIT)?;
    let mut health = None;
    client.ask(&Request::Health, |item| {
        health = Some(serde_json::from_str(item.get()).map_err(ClientError::Answer)?);
        Ok(())
    })?;
    health.ok_or(ClientError::Connection(io::ErrorKind::UnexpectedEof.into()))
}

/// What is printed, and whether all is well.
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
    fn a_probe_fails_for_what_it_asks_about_and_nothing_else() {
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
