//! Listens on the configured addresses as far as possible, and retries the others.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Daemon;
use crate::net::Unbound;

/// Pause before an address that cannot be bound is tried again: nothing notifies us when another
/// program releases a port.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

impl Daemon {
    /// Listens for the first time. An address or a family that may become available is retried.
    ///
    /// # Errors
    /// A problem that needs the operator: a port that another program uses, a missing privilege.
    pub(super) fn listen_first(&mut self) -> Result<(), Unbound> {
        let missing = self.listeners.listen(&self.config.bgp.listen)?;
        self.note_missing(&missing);
        Ok(())
    }

    /// Listens on the addresses that can be bound. The others are tried again when links change,
    /// when a new configuration is applied, or when [`LISTEN_RETRY`] has passed.
    pub(super) fn listen(&mut self) {
        let mut missing = self.listeners.listen_where_possible(&self.config.bgp.listen);
        self.listeners.accept();
        missing.extend(self.vrfs.listen());
        self.note_missing(&missing);
    }

    /// Records, logs and publishes on which addresses we are not listening.
    pub(super) fn note_missing(&mut self, missing: &[Unbound]) {
        self.listen_again = (!missing.is_empty()).then(|| Instant::now() + LISTEN_RETRY);
        let faults = missing.iter().filter(|unbound| !unbound.is_harmless());
        let faults: Vec<String> = faults.map(ToString::to_string).collect();
        let fault = (!faults.is_empty()).then(|| faults.join("; "));
        if let Some(text) = &fault
            && self.listen_fault.as_ref() != Some(text)
        {
            warn!("{text}");
        }
        self.views.publish(|state| state.listen_fault.clone_from(&fault));
        self.listen_fault = fault;
    }

    /// Tries to listen again when it is time; returns when to check again.
    pub(super) fn check_listening(&mut self) -> Option<Instant> {
        if self.listen_again.is_some_and(|at| at <= Instant::now()) {
            self.listen();
        }
        self.listen_again
    }
}
