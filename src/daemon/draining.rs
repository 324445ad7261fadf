//! Commands that begin and end drains.
//!
//! A command is checked as a whole before anything is done: if a neighbour given by name or address
//! is unknown, or already in the requested state, the whole command is refused. A neighbour that a
//! pattern selected and that is already in that state is left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::Daemon;
use super::answer::DrainOrder;
use super::drains::{Drained, Drains, MOVE_TIME, Scope};
use super::registry::Registry;
use super::selection::{Chosen, How};
use crate::calico::model::DRAIN_ANNOTATION;
use crate::config::Config;
use crate::ctl::{Lasts, Refusal, Selection};
use crate::event_names::{DRAIN, UNDRAIN};
use crate::plural::counted;

type Names = BTreeSet<Arc<str>>;
/// The peers, and the configuration with the names of their groups.
type Of<'a> = (&'a Registry, &'a Config);

/// Maximum number of names in one log line.
const LOGGED_MAX: usize = 20;

impl Daemon {
    /// Begins or ends a drain, and puts the routing parameters of the neighbours into force.
    ///
    /// # Errors
    /// The command is refused as a whole, or the file cannot be written: nothing is changed.
    pub(super) fn drain(&mut self, order: &DrainOrder) -> Result<(), Refusal> {
        let registry = self.peers.registry();
        match &order.begin {
            Some(drained) => {
                let scope = to_drain(&self.drains, (&registry, &self.config), &order.peers)?;
                self.drains.begin(&scope, drained).map_err(Refusal::failed)?;
                let count = self.peers.review_drains(&scope);
                self.drains_due.arm(Instant::now());
                let reason = match drained.reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                let lasts = match drained.lasts {
                    Lasts::Run | Lasts::Object => "for this run",
                    Lasts::Boot => "until undrained",
                };
                info!(
                    event = DRAIN,
                    "draining {}, {}, {lasts}{reason}",
                    described(&scope),
                    counted(count, "peer")
                );
            }
            None => {
                let scope = to_undrain(&self.drains, (&registry, &self.config), &order.peers)?;
                self.drains.end(&scope).map_err(Refusal::failed)?;
                let count = self.peers.review_drains(&scope);
                let count = counted(count, "peer");
                info!(event = UNDRAIN, "drain ended: {}, {count}", described(&scope));
            }
        }
        Ok(())
    }

    /// Drains all neighbours, or no longer, as the node's own object says.
    pub(super) fn drain_by_object(&mut self) {
        let reason = self.config.drain.clone();
        if !self.drains.set_object(reason.as_deref()) {
            return;
        }
        let count = counted(self.peers.review_drains(&Scope::All), "peer");
        match reason {
            Some(reason) => {
                self.drains_due.arm(Instant::now());
                info!("draining every peer, {count}, by the node's object ({reason})");
            }
            None => info!("drain by the node's object ended: every peer, {count}"),
        }
    }

    /// [`MOVE_TIME`] after the last drain began, withdraws the routes that others announce too.
    /// Returns when that is due.
    pub(super) fn check_drains(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.drains_due.is_due(now) {
            // Before the review: what is due in between is looked at again.
            self.drains_due.0 = self.drains.time_left().map(|left| now + left);
            if self.drains.is_any() {
                self.peers.review_drains(&Scope::All);
            }
        }
        self.drains_due.0
    }
}

/// When a drain has had [`MOVE_TIME`].
#[derive(Debug, Default)]
pub(super) struct Due(Option<Instant>);

impl Due {
    pub(super) fn at_start(drains: &Drains, now: Instant) -> Due {
        let mut due = Due::default();
        if drains.is_any() {
            due.arm(now);
        }
        due
    }

    /// A drain begins. One that began before is not put off.
    fn arm(&mut self, now: Instant) {
        self.0.get_or_insert(now + MOVE_TIME);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.0.is_some_and(|due| due <= now)
    }
}

/// The scope of a command to drain.
fn to_drain(drains: &Drains, of: Of<'_>, peers: &Selection) -> Result<Scope, Refusal> {
    // The file of a command's drain outlives the object's.
    let by_object = drains.is_by_object() && *peers == Selection::All;
    if let Some(drained) = drains.of_all().filter(|_| !by_object) {
        let since = crate::ctl::rfc3339(drained.since);
        return Err(Refusal::failed(format!(
            "nothing was done: every peer is drained already, since {since} (margay show drain)"
        )));
    }
    let Selection::Named(given) = peers else { return Ok(Scope::All) };
    let (named, matched) = resolve(of, given, &BTreeSet::new())?;
    let already: Vec<&str> =
        named.iter().filter(|name| drains.is_named(name)).map(|name| &**name).collect();
    if !already.is_empty() {
        return Err(Refusal::failed(format!(
            "nothing was done: {} drained already (margay show drain)",
            is_or_are(&already)
        )));
    }
    let all = named.into_iter().chain(matched.into_iter().filter(|name| !drains.is_named(name)));
    match all.collect::<Names>() {
        all if all.is_empty() => {
            Err(Refusal::failed("nothing was done: all that match are drained already"))
        }
        all => Ok(Scope::Named(all.into_iter().collect())),
    }
}

/// The scope of a command to end drains.
fn to_undrain(drains: &Drains, of: Of<'_>, peers: &Selection) -> Result<Scope, Refusal> {
    let of_all = drains.of_all().is_some();
    let Selection::Named(given) = peers else {
        let is_commanded = |drained: &Drained| drained.lasts != Lasts::Object;
        return if drains.of_all().is_some_and(|all| is_commanded(&all))
            || !drains.names().is_empty()
        {
            Ok(Scope::All)
        } else if of_all {
            Err(Refusal::failed(format!(
                "nothing was done: the node's object drains every peer; remove its annotation \
                 {DRAIN_ANNOTATION}, or uncordon the node"
            )))
        } else {
            Err(Refusal::failed("nothing was done: no peer is drained"))
        };
    };
    let known = drains.names().into_iter().collect();
    let (named, matched) = resolve(of, given, &known)?;
    let others: Vec<&str> =
        named.iter().filter(|name| !drains.is_named(name)).map(|name| &**name).collect();
    if !others.is_empty() {
        let why = if of_all {
            "drained by name, but with every peer (margay undrain without a name)"
        } else {
            "drained"
        };
        return Err(Refusal::failed(format!("nothing was done: {} not {why}", is_or_are(&others))));
    }
    let all = named.into_iter().chain(matched.into_iter().filter(|name| drains.is_named(name)));
    match all.collect::<Names>() {
        all if all.is_empty() => {
            Err(Refusal::failed("nothing was done: no matching peer is drained"))
        }
        all => Ok(Scope::Named(all.into_iter().collect())),
    }
}

/// The names of the peers given by name or address, and of those that patterns and groups select. `known`:
/// names that are accepted although there may be no such peer at present.
fn resolve(
    (registry, config): Of<'_>,
    given: &[String],
    known: &BTreeSet<Arc<str>>,
) -> Result<(Names, Names), Refusal> {
    let chosen = Chosen::named(registry, config, given, known)?;
    let names = |wanted: How| {
        let of_kind = chosen.records.iter().filter(move |(_, how)| *how == wanted);
        of_kind.map(|(record, _)| Arc::clone(&record.name))
    };
    let named = names(How::Named).chain(chosen.absent.iter().cloned()).collect();
    Ok((named, names(How::Matched).collect()))
}

fn is_or_are(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

fn described(scope: &Scope) -> String {
    match scope {
        Scope::All => "every peer".to_owned(),
        Scope::Named(names) => {
            let more = names.len().saturating_sub(LOGGED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown: Vec<&str> = names.iter().take(LOGGED_MAX).map(|name| &**name).collect();
            format!("{}{more}", shown.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_later_drain_does_not_put_off_an_earlier_one() {
        let began = Instant::now();
        let mut due = Due::default();
        assert!(!due.is_due(began));
        for n in 0..3 {
            due.arm(began + Duration::from_secs(n));
        }
        assert!(!due.is_due(began + MOVE_TIME - Duration::from_millis(1)));
        assert!(due.is_due(began + MOVE_TIME));
    }
}
