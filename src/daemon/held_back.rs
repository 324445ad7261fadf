//! Announcements that are held back after a start: the log, and the text of `show status`.

use tokio::time::Instant;
use tracing::{info, warn};

use super::Daemon;
use super::awaiting::Awaits;
use super::deferral::Deferral;
use super::registry::Registry;
use super::startup::Progress;
use crate::ctl::rfc3339;
use crate::engine::Clock;
use crate::event_names::{EXPORT_DEFERRED, EXPORT_STARTED};

/// Maximum number of peers that a text names.
const NAMES_MAX: usize = 10;

impl Daemon {
    /// Checks whether routes may be advertised; returns when to check again.
    pub(super) fn check_deferral(&mut self) -> Option<Instant> {
        let table = self.engine.handle();
        let registry = self.peers.registry();
        let is_slow = |peer| registry.get(peer).is_some_and(|record| record.takes_connections());
        let now = table.clock().now();
        let deferral = self.convergence.deferral.as_mut()?;
        match deferral.poll(now, is_slow, || self.vrfs.lookups(&self.next_hops)) {
            Progress::WaitingUntil(at) => {
                let text = described(deferral, &registry, &table.clock());
                self.views.publisher.hold_back(text);
                Some(Instant::from_std(table.clock().instant(at)))
            }
            Progress::Over => {
                match awaited(deferral, &registry) {
                    None => info!(
                        event = EXPORT_STARTED,
                        "advertising routes: no peer still owes us its routes"
                    ),
                    Some(names) => warn!(
                        event = EXPORT_STARTED,
                        "advertising routes: the wait is over without the routes of {names}"
                    ),
                }
                self.convergence.deferral = None;
                table.release_export();
                self.vrfs.all().for_each(|vrf| vrf.engine.handle().release_export());
                self.views.publish(|state| state.held_back = None);
                None
            }
        }
    }

    /// Logs that announcements are held back, if they are.
    pub(super) fn say_held_back(&self) {
        if let Some(deferral) = &self.convergence.deferral {
            let clock = self.engine.handle().clock();
            let text = described(deferral, &self.peers.registry(), &clock);
            info!(event = EXPORT_DEFERRED, "announcements are held back {text} (RFC 4724 §4.1)");
        }
    }
}

/// Until when, and for whom.
fn described(deferral: &Deferral, registry: &Registry, clock: &Clock) -> String {
    let until = rfc3339(clock.wall(deferral.ends()));
    match awaited(deferral, registry) {
        Some(names) => format!("until {until} at the latest: waiting for {names}"),
        None => format!("until {until} at the latest"),
    }
}

/// The peers that are waited for, and for what.
fn awaited(deferral: &Deferral, registry: &Registry) -> Option<String> {
    let mut pending = deferral.pending();
    let text = |(peer, owes): (_, Awaits)| {
        let record = registry.get(peer)?;
        let what = match owes {
            Awaits::Session => "session",
            Awaits::EndOfRib(_) => "End-of-RIB",
        };
        Some(format!("{} ({what})", record.name))
    };
    let names: Vec<String> = pending.by_ref().filter_map(text).take(NAMES_MAX).collect();
    let more = if pending.next().is_some() { ", …" } else { "" };
    (!names.is_empty()).then(|| format!("{}{more}", names.join(", ")))
}
