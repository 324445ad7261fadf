//! When a restarted speaker may advertise its routes (RFC 4724 §4.1).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::session::Negotiated;
use crate::types::{FamilySet, PeerId, Time};
use crate::wire::{RouteAction, RouteBatch};

/// Selection_Deferral_Timer.
const DEFERRAL: Duration = Duration::from_secs(20);

/// Peers whose End-of-RIB is awaited.
pub(super) struct Startup {
    /// Families that are missing; `None` before the session is up.
    waiting: BTreeMap<PeerId, Option<FamilySet>>,
    ends: Time,
}

impl Startup {
    pub(super) fn new(now: Time, peers: usize) -> Self {
        let waiting = (0..peers as u32).map(|peer| (PeerId(peer), None)).collect();
        Startup { waiting, ends: now + DEFERRAL }
    }

    /// A session came up. A peer that is restarting as well waits for us, and one without graceful
    /// restart does not promise End-of-RIB: neither is waited for.
    pub(super) fn handle_up(&mut self, peer: PeerId, negotiated: &Negotiated) {
        match &negotiated.graceful_restart {
            Some(restart) if !restart.restarting => {
                if let Some(families) = self.waiting.get_mut(&peer) {
                    *families = Some(negotiated.families);
                }
            }
            _ => drop(self.waiting.remove(&peer)),
        }
    }

    pub(super) fn handle_batch(&mut self, peer: PeerId, batch: &RouteBatch) {
        for entry in batch.entries().iter().filter(|e| e.action == RouteAction::EndOfRib) {
            if let Some(Some(families)) = self.waiting.get_mut(&peer) {
                families.remove(entry.family);
                if families.is_empty() {
                    self.waiting.remove(&peer);
                }
            }
        }
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        self.waiting.is_empty() || now >= self.ends
    }

    pub(super) fn deadline(&self) -> Time {
        self.ends
    }
}
