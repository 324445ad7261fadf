//! When the routes that an earlier run left in the kernel have had their chance.
//!
//! They are kept, and forward, until every peer that is coming has sent End-of-RIB for every family
//! that it negotiated (RFC 4724 §4.1). Peers that are not coming are waited for only a short time:
//! a neighbour that is down must not keep stale routes alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bgp_proto::types::{Family, FamilySet, PeerId, Time};

/// How long a peer may take to establish its session before it is not waited for.
const CONNECT_GRACE: Duration = Duration::from_secs(30);
/// How long End-of-RIB is waited for in all (Selection_Deferral_Timer, RFC 4724 §4.1).
const DEFERRAL: Duration = Duration::from_secs(120);

/// How long routes have, from the last End-of-RIB, to reach the kernel's side: their next hops are
/// resolved on the way.
const SETTLE: Duration = Duration::from_millis(500);
/// How long next hops that nothing is known about yet are waited for.
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// What a peer still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    /// A session.
    Session,
    /// End-of-RIB for these.
    EndOfRib(FamilySet),
}

/// The first minutes of a run. Clones share what is waited for.
#[derive(Clone, Debug)]
pub(super) struct Startup {
    waiting: Arc<Mutex<BTreeMap<PeerId, Owes>>>,
    grace_ends: Time,
    deferral_ends: Time,
    /// Since when nothing is owed any more.
    complete_since: Option<Time>,
}

/// Whether every next hop of the table has been looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookups {
    Pending,
    Done,
}

/// Whether the start is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not yet; look again then at the latest.
    WaitingUntil(Time),
    /// Every peer that is coming has sent its routes, or time is up.
    Over,
}

impl Startup {
    /// Begins at `now` with these configured peers.
    pub(super) fn new(peers: impl IntoIterator<Item = PeerId>, now: Time) -> Self {
        let waiting = peers.into_iter().map(|peer| (peer, Owes::Session)).collect();
        Startup {
            waiting: Arc::new(Mutex::new(waiting)),
            grace_ends: now + CONNECT_GRACE,
            deferral_ends: now + DEFERRAL,
            complete_since: None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PeerId, Owes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many peers are waited for.
    pub(super) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// How many of some peers are waited for. `None`: the others owe something, and these nothing.
    pub(super) fn count_of(&self, is_one: impl Fn(PeerId) -> bool) -> Option<usize> {
        let waiting = self.waiting();
        let count = waiting.keys().filter(|peer| is_one(**peer)).count();
        (count > 0 || waiting.is_empty()).then_some(count)
    }

    /// What a peer still owes.
    pub(super) fn owes(&self, peer: PeerId) -> Option<Owes> {
        self.waiting().get(&peer).copied()
    }

    /// What is left at `now` of the whole wait, and its length.
    pub(super) fn timer(&self, now: Time) -> (Duration, Duration) {
        (self.deferral_ends.since(now), DEFERRAL)
    }

    /// A session came up with these families.
    pub(super) fn handle_up(&mut self, peer: PeerId, families: FamilySet) {
        if let Some(owes) = self.waiting().get_mut(&peer) {
            *owes = Owes::EndOfRib(families);
        }
    }

    /// A session went down before it had sent everything.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        if let Some(owes) = self.waiting().get_mut(&peer) {
            *owes = Owes::Session;
        }
    }

    /// A peer is no longer configured.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.waiting().remove(&peer);
    }

    /// The routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        let mut waiting = self.waiting();
        if let Some(Owes::EndOfRib(families)) = waiting.get_mut(&peer) {
            families.remove(family);
            if families.is_empty() {
                waiting.remove(&peer);
            }
        }
    }

    /// Whether the start is over at `now`; `lookups` is asked when no peer owes anything.
    pub(super) fn poll(&mut self, now: Time, lookups: impl FnOnce() -> Lookups) -> Progress {
        if let Some(until) = self.owed_until(now) {
            self.complete_since = None;
            return Progress::WaitingUntil(until);
        }
        let since = *self.complete_since.get_or_insert(now);
        let lookups_end = match lookups() {
            Lookups::Done => since,
            Lookups::Pending => (now + SETTLE).min(since + RESOLVE_MAX),
        };
        match lookups_end.max(since + SETTLE) {
            until if until > now => Progress::WaitingUntil(until),
            _ => Progress::Over,
        }
    }

    /// Until when peers are waited for; `None`: for nobody.
    fn owed_until(&self, now: Time) -> Option<Time> {
        let waiting = self.waiting();
        if waiting.is_empty() || now >= self.deferral_ends {
            return None;
        }
        if now < self.grace_ends {
            return Some(self.grace_ends);
        }
        let is_anybody_coming = waiting.values().any(|owes| *owes != Owes::Session);
        is_anybody_coming.then_some(self.deferral_ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    /// Polls, and once more when the routes have settled.
    fn settled(start: &mut Startup, secs: u64) -> Progress {
        match start.poll(at(secs), || Lookups::Done) {
            Progress::WaitingUntil(until) if until == at(secs) + SETTLE => {
                start.poll(until, || Lookups::Done)
            }
            progress => progress,
        }
    }

    #[test]
    fn it_ends_with_the_last_end_of_rib() {
        let mut start = Startup::new([PeerId(1), PeerId(2)], at(0));
        start.handle_up(PeerId(1), FamilySet::ALL);
        start.handle_up(PeerId(2), FamilySet::only(Family::Ipv4));
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        start.handle_end_of_rib(PeerId(2), Family::Ipv4);
        assert_eq!(settled(&mut start, 1), Progress::WaitingUntil(at(30)));
        start.handle_end_of_rib(PeerId(1), Family::Ipv6);
        assert_eq!(settled(&mut start, 1), Progress::Over);
    }

    #[test]
    fn routes_reach_the_kernel_before_it_ends() {
        let mut start = Startup::new([PeerId(1)], at(0));
        start.handle_up(PeerId(1), FamilySet::only(Family::Ipv4));
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        let until = at(1) + SETTLE;
        assert_eq!(start.poll(at(1), || Lookups::Pending), Progress::WaitingUntil(until));
        let later = until + SETTLE;
        assert_eq!(start.poll(until, || Lookups::Pending), Progress::WaitingUntil(later));
        assert_eq!(start.poll(later, || Lookups::Done), Progress::Over);
        // Not for ever: a next hop may stay unknown.
        assert_eq!(start.poll(at(1) + RESOLVE_MAX, || Lookups::Pending), Progress::Over);
    }

    #[test]
    fn a_peer_that_never_comes_is_waited_for_only_in_the_grace_time() {
        let mut start = Startup::new([PeerId(1), PeerId(2)], at(0));
        start.handle_up(PeerId(1), FamilySet::only(Family::Ipv4));
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert_eq!(settled(&mut start, 29), Progress::WaitingUntil(at(30)));
        assert_eq!(settled(&mut start, 30), Progress::Over);
    }

    #[test]
    fn a_slow_peer_is_waited_for_until_the_deferral_ends() {
        let mut start = Startup::new([PeerId(1)], at(0));
        start.handle_up(PeerId(1), FamilySet::only(Family::Ipv4));
        assert_eq!(settled(&mut start, 60), Progress::WaitingUntil(at(120)));
        start.handle_down(PeerId(1));
        assert_eq!(settled(&mut start, 61), Progress::Over);
        start.handle_up(PeerId(1), FamilySet::only(Family::Ipv4));
        assert_eq!(settled(&mut start, 120), Progress::Over);
    }

    /// `bird6.ctl` recovers by itself, as bird6 does.
    #[test]
    fn some_peers_are_done_while_others_are_waited_for() {
        let start = &mut Startup::new([PeerId(1), PeerId(2), PeerId(3)], at(0));
        let is_odd = |peer: PeerId| peer.0 % 2 == 1;
        let is_even = |peer: PeerId| !is_odd(peer);
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(2), Some(1)));
        start.handle_removed(PeerId(2));
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(2), None));
        start.handle_removed(PeerId(1));
        start.handle_removed(PeerId(3));
        // All routes are there, and on their way into the kernel.
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(0), Some(0)));
    }

    #[test]
    fn without_peers_nobody_is_waited_for() {
        assert_eq!(settled(&mut Startup::new([], at(0)), 0), Progress::Over);
    }
}
