//! Key chains of TCP-AO: what is wrong with them, and the keys of listening sockets as time passes. Each
//! peer's task changes the keys of its connections.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Daemon;
use crate::net::{try_key_chain, unix_now};

/// The longest wait for the next lifetime: the wall clock may be set meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl Daemon {
    /// Logs which key chains this kernel does not take, and which ones will have no key.
    pub(super) fn note_key_chains(&self) {
        for chain in &self.config.key_chains {
            if let Err(text) = try_key_chain(chain) {
                warn!("key chain {}: {text}", chain.name());
            }
        }
        for text in self.config.key_chain_gaps(unix_now()) {
            warn!("{text}");
        }
    }

    /// Sets the keys of the listening sockets when a lifetime has begun or ended; returns when to check
    /// again.
    pub(super) fn check_keys(&mut self) -> Option<Instant> {
        if self.keys_due.is_some_and(|at| at > Instant::now()) {
            return self.keys_due;
        }
        if self.keys_due.is_some() {
            self.set_keys();
        }
        let now = unix_now();
        let changes = self.config.key_chains.iter().filter_map(|chain| chain.next_change(now));
        let wait = changes.min().map(|at| Duration::from_secs(at - now).min(WAIT_MAX));
        self.keys_due = wait.map(|wait| Instant::now() + wait);
        self.keys_due
    }
}
