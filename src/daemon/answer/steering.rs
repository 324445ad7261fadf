//! Operators' commands to sessions: stop, start, reset, refresh, retry.
//!
//! A command is checked for every peer before anything is done. If it cannot be applied to a peer
//! that was named, all of it is refused; a peer that a pattern selected is skipped, with the
//! reason.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bgp_proto::session::{Close, Command, PassiveMode, State};
use bgp_proto::table::PeerCounts;
use bgp_proto::types::{Family, FamilyMap, off_interface};
use tracing::info;

use super::sources::{Sources, is_stopping};
use crate::ctl::item::{self, Steered};
use crate::ctl::{
    Direction, Page, PeerAction, Refusal, Rehearsal, RoutesOnReset, Selection, rfc3339, state_name,
};
use crate::daemon::registry::Record;
use crate::daemon::selection::{Chosen, How};
use crate::daemon::shutdowns::Shutdowns;
use crate::event_names::PEER_COMMAND;
use crate::net::AdminShutdown;
use crate::plural::counted;

/// Carries out operators' commands to sessions.
#[derive(Clone)]
pub(super) struct Steering {
    pub(super) sources: Sources,
    pub(super) shutdowns: Shutdowns,
}

/// Why a command cannot be applied to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    ShutDown,
    NotShutDown,
    NotEstablished(State),
    Established,
    NoRouteRefresh,
    NoGracefulRestart,
    Passive,
    Connecting(State),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::ShutDown => "it is shut down: start it first (margay peer start)",
            Obstacle::NotShutDown => "it is not shut down",
            Obstacle::NotEstablished(state) => {
                return write!(f, "its session is not established, it is {}", state_name(*state));
            }
            Obstacle::Established => "it is established",
            Obstacle::NoRouteRefresh => {
                "it did not announce Route Refresh (RFC 2918): a reset makes it send its routes again"
            }
            Obstacle::NoGracefulRestart => {
                "graceful restart was not negotiated: its routes cannot be kept"
            }
            Obstacle::Passive => "it is passive: the neighbour has to connect",
            Obstacle::Connecting(state) => {
                return write!(f, "it is connecting already, it is {}", state_name(*state));
            }
        })
    }
}

impl Steering {
    /// Applies a command to peers, or only says what it would do.
    pub(super) async fn order(
        &self,
        action: &PeerAction,
        selection: &Selection,
        rehearsal: Rehearsal,
    ) -> Result<Page, Refusal> {
        let Chosen { records, absent, .. } = self.select(action, selection)?;
        let all: Vec<_> = records.iter().map(|(record, _)| Arc::clone(record)).collect();
        let counts = self.sources.counts(&all).await.ok_or_else(is_stopping)?;
        let is_real = rehearsal == Rehearsal::Real;
        let (mut items, mut able, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for ((record, how), counts) in records.iter().zip(&counts) {
            let obstacle = self.obstacle(action, record);
            match (obstacle, how) {
                (None, _) => able.push(Arc::clone(record)),
                (Some(obstacle), How::Named) => {
                    refused.push(format!("{}: {obstacle}", record.name));
                }
                (Some(_), How::Matched) => {}
            }
            items.push(Steered {
                name: record.name.to_string(),
                address: Some(off_interface(record.address).0),
                state: Some(state_name(record.handle.state()).to_owned()),
                done: is_real && obstacle.is_none(),
                effect: obstacle.is_none().then(|| effect(action, record, counts)),
                skipped: obstacle.map(|obstacle| obstacle.to_string()),
            });
        }
        if !refused.is_empty() {
            return Err(Refusal::failed(format!("nothing was done: {}", refused.join("; "))));
        }
        items.extend(absent.iter().map(|name| Steered {
            name: name.to_string(),
            address: None,
            state: None,
            done: is_real,
            effect: Some("accepts its connections again".to_owned()),
            skipped: None,
        }));
        if is_real {
            self.carry_out(action, &able, &absent, "by an operator").map_err(Refusal::failed)?;
        }
        Page::last(items)
    }

    /// The shutdown of a peer, as shown by `show peers`; `None` if it is not shut down.
    pub(super) fn shutdown_of(&self, name: &str) -> Option<item::Shutdown> {
        let shutdown = self.shutdowns.get(name)?;
        Some(item::Shutdown {
            since: rfc3339(shutdown.since),
            message: Some(shutdown.message).filter(|message| !message.is_empty()),
            lasts: shutdown.lasts,
        })
    }

    fn select(&self, action: &PeerAction, selection: &Selection) -> Result<Chosen, Refusal> {
        let registry = &self.sources.registry;
        let Selection::Named(names) = selection else { return Ok(Chosen::all(registry)) };
        // Dynamic peers that are shut down do not exist: only their names are known.
        let starts = *action == PeerAction::Start;
        let known = if starts { self.shutdowns.names() } else { BTreeSet::new() };
        Chosen::named(registry, &self.sources.state().config, names, &known)
    }

    /// Why a command cannot be applied to a peer; `None` if it can.
    pub(super) fn obstacle(&self, action: &PeerAction, record: &Record) -> Option<Obstacle> {
        let snapshot = record.handle.snapshot();
        let session = snapshot.negotiated.as_deref();
        match (action, record.shutdown.is_set()) {
            (PeerAction::Stop { .. } | PeerAction::Start, is_shut_down) => {
                let starts = *action == PeerAction::Start;
                return match (starts, is_shut_down) {
                    (true, false) => Some(Obstacle::NotShutDown),
                    (false, true) => Some(Obstacle::ShutDown),
                    _ => None,
                };
            }
            (_, true) => return Some(Obstacle::ShutDown),
            (_, false) => {}
        }
        match (action, session) {
            (PeerAction::Retry, Some(_)) => Some(Obstacle::Established),
            (PeerAction::Retry, None) => match snapshot.state {
                // Waiting for an idle hold, or for the retry timer.
                State::Idle => None,
                _ if record.session.passive.is_passive() => Some(Obstacle::Passive),
                State::Active => None,
                state => Some(Obstacle::Connecting(state)),
            },
            (_, None) => Some(Obstacle::NotEstablished(snapshot.state)),
            (PeerAction::Reset { routes: RoutesOnReset::Keep, .. }, Some(session))
                if session.keep_if_lost().is_none() =>
            {
                Some(Obstacle::NoGracefulRestart)
            }
            (PeerAction::Refresh(Direction::In | Direction::Both), Some(session))
                if !session.route_refresh =>
            {
                Some(Obstacle::NoRouteRefresh)
            }
            _ => None,
        }
    }

    /// Carries out a command that has passed [`Steering::obstacle`]. `absent`: names of peers whose
    /// shutdown ends although they do not exist.
    ///
    /// # Errors
    /// The file of shutdowns cannot be written; then nothing is done.
    pub(super) fn carry_out(
        &self,
        action: &PeerAction,
        records: &[Arc<Record>],
        absent: &[Arc<str>],
        who: &str,
    ) -> Result<(), String> {
        let names = || records.iter().map(|record| Arc::clone(&record.name));
        let word = match action {
            PeerAction::Stop { message, lasts } => {
                let state = |record: &Arc<Record>| -> (Arc<str>, AdminShutdown) {
                    (Arc::clone(&record.name), record.shutdown.clone())
                };
                let states: Vec<_> = records.iter().map(state).collect();
                self.shutdowns.begin(&states, message, *lasts)?;
                "shut down"
            }
            PeerAction::Start => {
                let names: Vec<_> = names().chain(absent.iter().cloned()).collect();
                self.shutdowns.end(&names)?;
                "started"
            }
            PeerAction::Reset { .. } => "reset",
            PeerAction::Refresh(Direction::In) => "sent a route refresh request",
            PeerAction::Refresh(Direction::Out) => "sent our routes again",
            PeerAction::Refresh(Direction::Both) => {
                "sent a route refresh request, and our routes again"
            }
            PeerAction::Retry => "connect retried",
        };
        for record in records {
            info!(event = PEER_COMMAND, peer = %record.name, "{word} {who}");
            // A reload may have replaced the record meanwhile.
            let newest = self.sources.registry.named(&record.name);
            let newest = newest.as_ref().unwrap_or(record);
            self.shutdowns.adopt(&newest.name, &newest.shutdown);
            tell(action, newest);
        }
        absent.iter().for_each(|name| info!(event = PEER_COMMAND, peer = %name, "{word} {who}"));
        Ok(())
    }
}

/// Sends the command to the peer's task.
fn tell(action: &PeerAction, record: &Record) {
    let handle = &record.handle;
    match action {
        PeerAction::Stop { message, .. } => {
            handle.operate(Command::Stop(Close::Shutdown { text: message.clone() }));
        }
        PeerAction::Start => handle.operate(Command::Start),
        PeerAction::Reset { message, routes } => {
            handle.operate(Command::Restart(match routes {
                RoutesOnReset::Withdraw => Close::Reset { text: message.clone() },
                RoutesOnReset::Keep => Close::GracefulStop,
            }));
        }
        PeerAction::Retry => handle.operate(Command::Retry),
        PeerAction::Refresh(direction) => {
            let snapshot = handle.snapshot();
            for family in snapshot.negotiated.iter().flat_map(|session| session.families.iter()) {
                if *direction != Direction::Out {
                    handle.request_refresh(family);
                }
                if *direction != Direction::In {
                    handle.resend(family);
                }
            }
        }
    }
}

/// The effect of a command, for the operator.
fn effect(action: &PeerAction, record: &Record, counts: &PeerCounts) -> String {
    let sum = |map: &FamilyMap<u32>| map.0.iter().map(|n| u64::from(*n)).sum::<u64>();
    let (received, advertised) = (sum(&counts.received), sum(&counts.advertised));
    let routes = counted(received, "route");
    let are = if received == 1 { "is" } else { "are" };
    let session = record.handle.snapshot().negotiated;
    match action {
        PeerAction::Stop { .. } if session.is_none() && counts.restarting.is_some() => format!(
            "{} from it {are} withdrawn here; it neither connects nor accepts until \
             it is started",
            counted(received, "stale route")
        ),
        PeerAction::Stop { .. } if session.is_none() => {
            "neither connects nor accepts until it is started".to_owned()
        }
        PeerAction::Stop { .. } => format!(
            "Cease 6/2: {routes} from it {are} withdrawn here, {advertised} of ours there, until \
             it is started"
        ),
        PeerAction::Start if record.session.passive == PassiveMode::Passive => {
            "waits for it to connect".to_owned()
        }
        PeerAction::Start => "connects".to_owned(),
        PeerAction::Reset { routes: RoutesOnReset::Withdraw, .. } => format!(
            "Cease 6/4: {routes} from it {are} withdrawn here, {advertised} of ours there, until \
             it is back"
        ),
        PeerAction::Reset { routes: RoutesOnReset::Keep, .. } => {
            let keep = session.as_ref().and_then(|session| session.keep_if_lost());
            let kept = keep.iter().flat_map(|keep| Family::ALL.map(|family| keep.of(family)));
            let stale_time = record.routes.stale_time;
            let times = kept.flatten().map(|(restart, more)| restart.min(stale_time) + more);
            let secs = times.max().unwrap_or_default().as_secs();
            format!(
                "TCP closes without a NOTIFICATION: {routes} from it {are} kept here as \
                 stale until it is back, for {secs} s at most, {advertised} of ours there if it helps \
                 (RFC 4724)"
            )
        }
        PeerAction::Refresh(direction) => {
            let theirs = format!("requests its {routes}");
            let ours = format!("sends it {}", counted(advertised, "route"));
            match direction {
                Direction::In => theirs,
                Direction::Out => ours,
                Direction::Both => format!("{theirs}, {ours}"),
            }
        }
        PeerAction::Retry if record.session.passive.is_passive() => {
            "accepts its connections again".to_owned()
        }
        PeerAction::Retry => "connects now".to_owned(),
    }
}
