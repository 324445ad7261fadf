//! When routes may be advertised after a start (RFC 4724 §4.1).
//!
//! Peers that know graceful restart may still hold what an earlier run advertised, and drop with our
//! End-of-RIB what we did not advertise again. So nothing is advertised before those peers have
//! sent their routes, for as long as they can be expected to.

use std::time::Duration;

use bgp_proto::session::Negotiated;
use bgp_proto::types::{Family, FamilySet, PeerId, PeerType, Time};

use super::awaiting::{Awaiting, Owes};
use super::startup::{Lookups, Progress};
use crate::config::Config;

/// How long sessions are waited for. Short: the routes of our own wait with the others.
const CONNECT_GRACE: Duration = Duration::from_secs(10);
/// The same where an earlier run has advertised routes, which its neighbours still hold: what waits
/// are changes only, and a neighbour that restarts at the same time is not left out.
const RESTART_GRACE: Duration = Duration::from_secs(20);
/// A peer whose TCP takes connections is slow, and not down, until it took none for this long.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// How often it is looked which peers take connections.
const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Peers of a range are waited for until none came for this long.
const RANGE_QUIET: Duration = Duration::from_secs(3);
/// How long End-of-RIB is waited for in all (Selection_Deferral_Timer).
const DEFERRAL: Duration = Duration::from_secs(120);
/// How long next hops that nothing is known about yet are waited for: a route whose next hop is not
/// looked up is not usable yet, and End-of-RIB would come before it.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// How soon it is looked again whether they are known.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// When routes are first advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstExport {
    /// As they come.
    AtOnce,
    /// When a [`Deferral`] is over.
    Deferred,
}

/// Deferred where a configuration passes on what one peer says to another: only then may routes be
/// missing that peers hold from an earlier run. What a node of a full mesh tells is all its own.
pub(super) fn first_export(config: &Config) -> FirstExport {
    let peers = config.peers.iter().map(|peer| (&peer.session, &peer.routes));
    let ranges = config.dynamic.iter().map(|range| (&range.session, &range.routes));
    let passes_on = peers.chain(ranges).any(|(session, routes)| {
        session.peer_type() == PeerType::External || routes.reflection.client
    });
    if passes_on { FirstExport::Deferred } else { FirstExport::AtOnce }
}

/// The families whose End-of-RIB is worth waiting for: those of a peer that may hold routes of ours,
/// because it knows graceful restart and has not restarted itself.
pub(super) fn owed_families(session: &Negotiated) -> Option<FamilySet> {
    let holds = session.graceful_restart.as_ref().is_some_and(|gr| !gr.restarting);
    holds.then_some(session.families)
}

/// Whether there was a run before, whose routes neighbours may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// None that anybody remembers.
    First,
    /// There was one since the machine was started.
    Again,
}

/// Peers that nobody can name beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranges {
    /// There are none, or they are not waited for.
    None,
    /// More may come until then.
    Until(Time),
}

/// Until when a peer without a session counts as slow.
#[derive(Debug)]
struct SlowUntil(Time);

/// The wait of one start.
#[derive(Debug)]
pub(super) struct Deferral {
    awaiting: Awaiting<SlowUntil>,
    ranges: Ranges,
    grace_ends: Time,
    ends: Time,
    /// When it was last looked which peers take connections.
    looked: Option<Time>,
    /// Since when nothing is owed any more.
    complete_since: Option<Time>,
}

impl Deferral {
    /// Begins at `now` with these configured peers; `has_ranges`: others may connect.
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
                    // The range's peers are of a kind that holds nothing.
                    self.ranges = Ranges::None;
                }
            }
        }
    }

    /// A session went down before it had sent everything, or the peer was removed.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        if let Some(slow_until) = self.awaiting.handle_down(peer) {
            *slow_until = SlowUntil(Time::ZERO);
        }
    }

    /// A peer is no longer there.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.awaiting.forget(peer);
    }

    /// The routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.awaiting.handle_end_of_rib(peer, family);
    }

    /// Whether routes may be advertised at `now`. `takes_connections` is asked about peers without a
    /// session: whether the last connection got as far as an OPEN; `lookups`, when no peer owes
    /// anything.
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

    /// The first moment at which less is waited for; `None`: nothing is.
    fn owed_until(&self, now: Time) -> Option<Time> {
        let range = match self.ranges {
            Ranges::Until(at) if at > now => Some(at),
            _ => None,
        };
        let of_peer = |(_, owes, slow_until): (PeerId, Owes, &SlowUntil)| match owes {
            Owes::Session => self.grace_ends.max(slow_until.0),
            Owes::EndOfRib(_) => self.ends,
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
