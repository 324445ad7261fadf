//! When routes may be advertised after a start (RFC 4724 §4.1).
//!
//! Peers that support graceful restart may still hold the routes that an earlier run advertised,
//! and on our End-of-RIB drop those that were not advertised again. So nothing is advertised until
//! these peers have sent their routes, or can no longer be expected to.

use std::time::Duration;

use bgp_proto::session::Negotiated;
use bgp_proto::types::{Family, FamilySet, PeerId, PeerType, Time};

use super::awaiting::{Awaiting, Awaits};
use super::startup::{Lookups, Progress};
use crate::config::Config;

/// How long to wait for sessions. Short, because our own routes are deferred too.
const CONNECT_GRACE: Duration = Duration::from_secs(10);
/// The same after an earlier run, whose routes neighbours still hold: the deferral delays only
/// changes, and includes a neighbour that restarts at the same time.
const RESTART_GRACE: Duration = Duration::from_secs(20);
/// A peer that accepts TCP connections counts as slow, not down, for this long after the last one.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// How often to check which peers accept connections.
const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// We stop waiting for dynamic peers when none has come up for this long.
const RANGE_QUIET: Duration = Duration::from_secs(3);
/// How long to wait for End-of-RIB in all (Selection_Deferral_Timer, RFC 4724 §4.1).
const DEFERRAL: Duration = Duration::from_secs(120);
/// How long to wait for next hops that have not been looked up yet: their routes are not usable
/// yet, and our End-of-RIB would precede them.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// How soon to check again whether they were looked up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// When routes are first advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstExport {
    /// Without deferral.
    AtOnce,
    /// When the [`Deferral`] is over.
    Deferred,
}

/// Advertisements are deferred if the configuration re-advertises routes of one peer to another:
/// only then may routes be missing that peers hold from an earlier run. A node of a full mesh
/// advertises only its own routes.
pub(super) fn first_export(config: &Config) -> FirstExport {
    let peers = config.peers.iter().map(|peer| (&peer.session, &peer.routes));
    let interfaces = config.interfaces.iter().map(|peers| (&peers.session, &peers.routes));
    let ranges = config.dynamic.iter().map(|range| (&range.session, &range.routes));
    let passes_on = peers.chain(interfaces).chain(ranges).any(|(session, routes)| {
        session.peer_type() == PeerType::External || routes.reflection.client
    });
    if passes_on { FirstExport::Deferred } else { FirstExport::AtOnce }
}

/// The families whose End-of-RIB we wait for: those of a peer that may hold routes of ours, because
/// it supports graceful restart and has not restarted itself.
pub(super) fn owed_families(session: &Negotiated) -> Option<FamilySet> {
    let holds = session.graceful_restart.as_ref().is_some_and(|gr| !gr.restarting);
    holds.then_some(session.families)
}

/// Whether there was an earlier run, whose routes neighbours may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// There is no record of one.
    First,
    /// There was one since the machine was started.
    Again,
}

/// How to wait for dynamic peers, which are not known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranges {
    /// There are no ranges, or dynamic peers are not waited for.
    None,
    /// More peers may come up until then.
    Until(Time),
}

/// The time until which a peer without a session counts as slow.
#[derive(Debug)]
struct SlowUntil(Time);

/// The deferral of one start.
#[derive(Debug)]
pub(super) struct Deferral {
    awaiting: Awaiting<SlowUntil>,
    ranges: Ranges,
    grace_ends: Time,
    ends: Time,
    /// When we last checked which peers accept connections.
    looked: Option<Time>,
    /// Since when nothing is awaited from any peer.
    complete_since: Option<Time>,
}

impl Deferral {
    /// Starts at `now` with these peers; `has_ranges`: dynamic peers may connect.
    pub(super) fn new(
        peers: impl IntoIterator<Item = PeerId>,
        has_ranges: bool,
        start: Start,
        now: Time,
    ) -> Self {
        let grace_ends = now
            + match start {
                Start::First => CONNECT_GRACE,
                Start::Again => RESTART_GRACE,
            };
        let mut awaiting = Awaiting::default();
        peers.into_iter().for_each(|peer| awaiting.expect(peer, SlowUntil(now)));
        Deferral {
            awaiting,
            looked: None,
            ranges: if has_ranges { Ranges::Until(grace_ends) } else { Ranges::None },
            grace_ends,
            ends: now + DEFERRAL,
            complete_since: None,
        }
    }

    /// Another peer took the place of one that may have been awaited: its neighbour was found.
    pub(super) fn expect(&mut self, now: Time, peer: PeerId) {
        self.awaiting.expect(peer, SlowUntil(now));
    }

    /// A session came up; see [`owed_families`].
    pub(super) fn handle_up(&mut self, now: Time, peer: PeerId, owed: Option<FamilySet>) {
        match (owed, self.ranges) {
            (Some(families), Ranges::Until(_)) => {
                self.ranges = Ranges::Until((now + RANGE_QUIET).min(self.ends));
                self.awaiting.expect_routes(peer, families, SlowUntil(Time::ZERO));
            }
            (Some(families), Ranges::None) => {
                self.awaiting.handle_up(peer, families);
            }
            (None, _) => {
                let was_awaited = self.awaiting.forget(peer);
                if !was_awaited && self.awaiting.is_empty() {
                    // A dynamic peer without graceful restart: assume the same of the others.
                    self.ranges = Ranges::None;
                }
            }
        }
    }

    /// A session went down.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        if let Some(slow_until) = self.awaiting.handle_down(peer) {
            *slow_until = SlowUntil(Time::ZERO);
        }
    }

    /// A peer was removed.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.awaiting.forget(peer);
    }

    /// A peer's routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.awaiting.handle_end_of_rib(peer, family);
    }

    /// Whether routes may be advertised at `now`. `takes_connections` is called for peers without a
    /// session: whether the last connection got as far as an OPEN. `lookups` is called when
    /// nothing is awaited from any peer.
    pub(super) fn poll(
        &mut self,
        now: Time,
        takes_connections: impl Fn(PeerId) -> bool,
        lookups: impl FnOnce() -> Lookups,
    ) -> Progress {
        if now >= self.ends {
            return Progress::Over;
        }
        self.look_for_slow(now, takes_connections);
        if let Some(at) = self.owed_until(now) {
            self.complete_since = None;
            let is_looked = self.awaiting.lacks_session();
            let again = if is_looked { at.min(now + SLOW_INTERVAL) } else { at };
            return Progress::WaitingUntil(again);
        }
        let since = *self.complete_since.get_or_insert(now);
        match lookups() {
            Lookups::Pending if now < since + RESOLVE_MAX => {
                Progress::WaitingUntil(now + LOOK_AGAIN)
            }
            _ => Progress::Over,
        }
    }

    /// When the wait ends at the latest.
    pub(super) fn ends(&self) -> Time {
        self.ends
    }

    /// The peers that are waited for, and for what.
    pub(super) fn pending(&self) -> impl Iterator<Item = (PeerId, Awaits)> {
        self.awaiting.pending().map(|(peer, owes, _)| (peer, owes))
    }

    /// The first time at which the wait for some peer ends; `None` if no peer is waited for.
    fn owed_until(&self, now: Time) -> Option<Time> {
        let range = match self.ranges {
            Ranges::Until(at) if at > now => Some(at),
            _ => None,
        };
        let of_peer = |(_, owes, slow_until): (PeerId, Awaits, &SlowUntil)| match owes {
            Awaits::Session => self.grace_ends.max(slow_until.0),
            Awaits::EndOfRib(_) => self.ends,
        };
        let until = self.awaiting.pending().map(of_peer).filter(|until| *until > now);
        until.chain(range).min()
    }

    fn look_for_slow(&mut self, now: Time, takes_connections: impl Fn(PeerId) -> bool) {
        if self.looked.is_some_and(|at| now.since(at) < SLOW_INTERVAL) {
            return;
        }
        self.looked = Some(now);
        for (peer, slow_until) in self.awaiting.without_session() {
            if takes_connections(peer) {
                *slow_until = SlowUntil(now + SLOW_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests;
