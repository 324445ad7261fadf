//! How long the routes that an earlier run left in the kernel are kept.
//!
//! They are kept, and used for forwarding, until every expected peer has sent End-of-RIB for every
//! family that it negotiated (RFC 4724 §4.1). A peer that is down is waited for as long as it may
//! keep our routes: for the restart time that we advertised, and at least 30 seconds. Dynamic peers
//! are not known in advance; if the kernel had routes of ours, some of them may be from dynamic
//! peers, and those that connect within that time are waited for like the others.
//!
//! The wait only concerns prefixes for which the table has no route yet: a decision of the table
//! replaces the route of the earlier run at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bgp_proto::session::Negotiated;
use bgp_proto::types::{Family, FamilySet, PeerId, Time};

use super::awaiting::{Awaiting, Awaits};

/// How long to wait for a peer to establish its session, if the restart time that we advertise to
/// it is not longer.
const CONNECT_GRACE: Duration = Duration::from_secs(30);
/// How long to wait for End-of-RIB in all (Selection_Deferral_Timer, RFC 4724 §4.1), if no restart
/// time is longer.
const DEFERRAL: Duration = Duration::from_secs(120);
/// A peer that accepts TCP connections counts as slow, not down, for this long after the last one.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// How long to wait for End-of-RIB from a peer that has not promised to send it.
const UNPROMISED: Duration = Duration::from_secs(30);
/// How often to check which peers accept connections.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// If no route is at stake, we stop waiting for dynamic peers when none has come up for this long.
const RANGE_QUIET: Duration = Duration::from_secs(3);
/// If no route is at stake, how long to wait for the first dynamic peer.
const RANGE_GRACE: Duration = Duration::from_secs(10);

/// How long to wait after the last End-of-RIB for routes to be submitted to the kernel writer:
/// their next hops are resolved first.
const SETTLE: Duration = Duration::from_millis(500);
/// How long to wait for next hops that have not been looked up yet.
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// Whether an established peer will signal that its routes are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOfRib {
    /// It announced graceful restart, and with it End-of-RIB (RFC 4724 §3).
    Promised,
    /// It may or may not send End-of-RIB, and has [`UNPROMISED`] to do so.
    Unpromised,
}

impl EndOfRib {
    /// Derives this from a session; `None` if it has ended meanwhile.
    pub(super) fn of(session: Option<&Negotiated>) -> Self {
        match session {
            Some(session) if session.graceful_restart.is_some() => EndOfRib::Promised,
            _ => EndOfRib::Unpromised,
        }
    }
}

/// A peer for which the start-up waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) peer: PeerId,
    /// The restart time that we advertise to it; `None`: graceful restart is off.
    pub(super) restart_time: Option<Duration>,
}

impl Awaited {
    fn grace(&self) -> Duration {
        self.restart_time.unwrap_or_default().max(CONNECT_GRACE)
    }
}

/// How the start-up waits for dynamic peers, which are not known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// It does not: there are no ranges.
    None,
    /// The kernel had routes of ours: the peers that advertised them have time to reconnect.
    MayOwnRoutes {
        /// The longest restart time that we advertise to dynamic peers.
        restart_time: Option<Duration>,
    },
    /// The kernel had none: nothing is lost if a peer comes up late.
    OwnNothing,
}

/// How long to wait for one peer.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// The time by which it must establish its session.
    grace_ends: Time,
    /// Until when it counts as slow, because it accepted a connection.
    slow_until: Time,
    /// The time by which it must send End-of-RIB if it has not promised to.
    end_of_rib_by: Option<Time>,
}

impl Terms {
    /// Until when to wait for a peer from which `owes` is awaited; `None` if that time is over.
    fn until(&self, owes: Awaits, now: Time, deferral_ends: Time) -> Option<Time> {
        let until = match owes {
            Awaits::Session => self.grace_ends.max(self.slow_until).min(deferral_ends),
            Awaits::EndOfRib(_) => self.end_of_rib_by.unwrap_or(deferral_ends).min(deferral_ends),
        };
        (until > now).then_some(until)
    }
}

/// The start-up phase of a run. Clones share the set of peers that are waited for.
#[derive(Clone, Debug)]
pub(super) struct Startup {
    awaiting: Arc<Mutex<Awaiting<Terms>>>,
    /// Until when to wait for dynamic peers; `None`: not at all.
    ranges_until: Option<Time>,
    ranges: Ranges,
    /// From when on peers that are down no longer delay readiness.
    absent_from: Time,
    deferral: Duration,
    deferral_ends: Time,
    /// When we last checked which peers accept connections.
    looked: Option<Time>,
    /// Since when nothing is awaited from any peer.
    complete_since: Option<Time>,
}

/// Whether every next hop of the table has been looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookups {
    Pending,
    Done,
}

/// Whether a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not yet; poll again at this time at the latest.
    WaitingUntil(Time),
    /// Every expected peer has sent its routes, or the time is up.
    Over,
}

impl Startup {
    /// Starts at `now` with the peers that exist.
    pub(super) fn new(peers: impl IntoIterator<Item = Awaited>, ranges: Ranges, now: Time) -> Self {
        let peers: Vec<Awaited> = peers.into_iter().collect();
        let ranges_grace = match ranges {
            Ranges::None => None,
            Ranges::OwnNothing => Some(RANGE_GRACE),
            Ranges::MayOwnRoutes { restart_time } => {
                Some(restart_time.unwrap_or_default().max(CONNECT_GRACE))
            }
        };
        let graces = peers.iter().map(Awaited::grace).chain(ranges_grace);
        let deferral = graces.fold(DEFERRAL, Duration::max);
        let mut awaiting = Awaiting::default();
        for awaited in &peers {
            let grace_ends = now + awaited.grace();
            let terms = Terms { grace_ends, slow_until: now, end_of_rib_by: None };
            awaiting.expect(awaited.peer, terms);
        }
        Startup {
            awaiting: Arc::new(Mutex::new(awaiting)),
            ranges_until: ranges_grace.map(|grace| now + grace),
            ranges,
            absent_from: now + CONNECT_GRACE,
            deferral,
            deferral_ends: now + deferral,
            looked: None,
            complete_since: None,
        }
    }

    fn awaiting(&self) -> MutexGuard<'_, Awaiting<Terms>> {
        self.awaiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of peers from which something is awaited.
    pub(super) fn count(&self) -> usize {
        self.awaiting().len()
    }

    /// The number of peers for which `is_one` holds and from which something is awaited. `None` if
    /// there are none, but something is awaited from other peers.
    pub(super) fn count_of(&self, is_one: impl Fn(PeerId) -> bool) -> Option<usize> {
        let awaiting = self.awaiting();
        let count = awaiting.pending().filter(|(peer, ..)| is_one(*peer)).count();
        (count > 0 || awaiting.is_empty()).then_some(count)
    }

    /// What is still awaited from a peer.
    pub(super) fn owes(&self, peer: PeerId) -> Option<Awaits> {
        self.awaiting().owes(peer)
    }

    /// The time that is left at `now` of the whole wait, and its length.
    pub(super) fn timer(&self, now: Time) -> (Duration, Duration) {
        (self.deferral_ends.since(now), self.deferral)
    }

    /// A session came up with these families.
    pub(super) fn handle_up(
        &mut self,
        now: Time,
        peer: PeerId,
        families: FamilySet,
        end_of_rib: EndOfRib,
    ) {
        let end_of_rib_by = match end_of_rib {
            EndOfRib::Promised => None,
            EndOfRib::Unpromised => Some(now + UNPROMISED),
        };
        let mut awaiting = self.awaiting();
        if let Some(terms) = awaiting.handle_up(peer, families) {
            terms.end_of_rib_by = end_of_rib_by;
            return;
        }
        if self.ranges_until.is_some_and(|until| until > now) {
            let grace_ends = now + CONNECT_GRACE;
            let terms = Terms { grace_ends, slow_until: now, end_of_rib_by };
            awaiting.expect_routes(peer, families, terms);
            drop(awaiting);
            if self.ranges == Ranges::OwnNothing {
                self.ranges_until = Some(now + RANGE_QUIET);
            }
        }
    }

    /// Another peer took the place of one that may have been awaited: its neighbour was found.
    pub(super) fn expect(&mut self, now: Time, awaited: Awaited) {
        let grace_ends = now + awaited.grace();
        let terms = Terms { grace_ends, slow_until: now, end_of_rib_by: None };
        self.awaiting().expect(awaited.peer, terms);
    }

    /// A session went down.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        self.awaiting().handle_down(peer);
    }

    /// A peer was removed.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.awaiting().forget(peer);
    }

    /// A peer's routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.awaiting().handle_end_of_rib(peer, family);
    }

    /// Whether the start-up is over at `now`. `takes_connections` is called for peers without a
    /// session: whether the last connection got as far as an OPEN. `lookups` is called when
    /// nothing is awaited from any peer.
    ///
    /// After the last End-of-RIB, the start-up still lasts until next hops are looked up and routes
    /// have had [`SETTLE`] to be submitted to the kernel writer: what is not installed by then
    /// counts as stale.
    pub(super) fn poll(
        &mut self,
        now: Time,
        takes_connections: impl Fn(PeerId) -> bool,
        lookups: impl FnOnce() -> Lookups,
    ) -> Progress {
        self.look_for_slow(now, takes_connections);
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

    /// Whether expected routes delay readiness. Peers that are down do so for half a minute only:
    /// they may stay down, and the routes of the earlier run are still used for forwarding.
    pub(super) fn is_converging(&self, now: Time) -> bool {
        if now < self.absent_from {
            return true;
        }
        let is_coming = |(_, owes, terms): (PeerId, Awaits, &Terms)| match owes {
            Awaits::EndOfRib(_) => terms.end_of_rib_by.is_none_or(|until| until > now),
            Awaits::Session => terms.slow_until > now,
        };
        self.complete_since.is_some() || self.awaiting().pending().any(is_coming)
    }

    fn look_for_slow(&mut self, now: Time, takes_connections: impl Fn(PeerId) -> bool) {
        if self.looked.is_some_and(|at| now.since(at) < LOOK_INTERVAL) {
            return;
        }
        self.looked = Some(now);
        for (peer, terms) in self.awaiting().without_session() {
            if takes_connections(peer) {
                terms.slow_until = now + SLOW_MAX;
            }
        }
    }

    /// Until when to wait for peers, or when to check them again; `None` if no peer is waited for.
    fn owed_until(&self, now: Time) -> Option<Time> {
        if now >= self.deferral_ends {
            return None;
        }
        let awaiting = self.awaiting();
        let pending = awaiting.pending();
        let of_peers =
            pending.filter_map(|(_, owes, terms)| terms.until(owes, now, self.deferral_ends)).max();
        let of_ranges = self.ranges_until.filter(|until| *until > now);
        let until = of_peers.max(of_ranges)?;
        Some(if awaiting.lacks_session() { until.min(now + LOOK_INTERVAL) } else { until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn awaited(peer: u32) -> Awaited {
        Awaited { peer: PeerId(peer), restart_time: None }
    }

    fn start_of(peers: impl IntoIterator<Item = u32>) -> Startup {
        Startup::new(peers.into_iter().map(awaited), Ranges::None, at(0))
    }

    fn poll(start: &mut Startup, now: Time) -> Progress {
        start.poll(now, |_| false, || Lookups::Done)
    }

    /// Polls, and again after [`SETTLE`] if the poll asks for that.
    fn settled(start: &mut Startup, secs: u64) -> Progress {
        match poll(start, at(secs)) {
            Progress::WaitingUntil(until) if until == at(secs) + SETTLE => poll(start, until),
            progress => progress,
        }
    }

    /// The second at which it is over, polled at the times that it asks for.
    fn over_at(start: &mut Startup, is_slow: impl Fn(u64, PeerId) -> bool) -> u64 {
        let mut now = at(0);
        for _ in 0..10_000 {
            match start.poll(now, |peer| is_slow(now.as_secs(), peer), || Lookups::Done) {
                Progress::WaitingUntil(until) => now = until,
                Progress::Over => return now.as_secs(),
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn it_ends_with_the_last_end_of_rib() {
        let mut start = start_of([1, 2]);
        start.handle_up(at(0), PeerId(1), FamilySet::ALL, EndOfRib::Promised);
        start.handle_up(at(0), PeerId(2), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        start.handle_end_of_rib(PeerId(2), Family::Ipv4);
        assert_eq!(settled(&mut start, 1), Progress::WaitingUntil(at(120)));
        start.handle_end_of_rib(PeerId(1), Family::Ipv6);
        assert_eq!(settled(&mut start, 1), Progress::Over);
    }

    /// Without graceful restart, End-of-RIB is not promised: a peer that does not send it is waited
    /// for less long than one that is slow, and does not delay readiness.
    #[test]
    fn a_peer_that_has_not_promised_end_of_rib_has_half_a_minute() {
        for (end_of_rib, over) in [(EndOfRib::Promised, 120), (EndOfRib::Unpromised, 35)] {
            let mut start = start_of([1]);
            start.handle_up(at(5), PeerId(1), FamilySet::only(Family::Ipv4), end_of_rib);
            assert!(start.is_converging(at(34)));
            assert_eq!(start.is_converging(at(36)), end_of_rib == EndOfRib::Promised);
            assert_eq!(over_at(&mut start, |_, _| false), over);
        }
        let mut start = start_of([1]);
        start.handle_up(at(5), PeerId(1), FamilySet::only(Family::Ipv4), EndOfRib::Unpromised);
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert_eq!(settled(&mut start, 6), Progress::Over, "it sent End-of-RIB all the same");
    }

    #[test]
    fn routes_reach_the_kernel_before_it_ends() {
        let mut start = start_of([1]);
        start.handle_up(at(0), PeerId(1), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        let until = at(1) + SETTLE;
        let pending = |start: &mut Startup, now| start.poll(now, |_| false, || Lookups::Pending);
        assert_eq!(pending(&mut start, at(1)), Progress::WaitingUntil(until));
        let later = until + SETTLE;
        assert_eq!(pending(&mut start, until), Progress::WaitingUntil(later));
        assert_eq!(poll(&mut start, later), Progress::Over);
        // Not for ever: a next hop may stay unknown.
        assert_eq!(pending(&mut start, at(1) + RESOLVE_MAX), Progress::Over);
    }

    #[test]
    fn a_peer_that_never_comes_up_is_waited_for_only_in_the_grace_time() {
        let mut start = start_of([1, 2]);
        start.handle_up(at(0), PeerId(1), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        start.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert_eq!(settled(&mut start, 28), Progress::WaitingUntil(at(30)));
        assert_eq!(settled(&mut start, 30), Progress::Over);
    }

    /// The peer may keep our routes for the restart time that we advertised.
    #[test]
    fn the_grace_time_is_not_below_the_advertised_restart_time() {
        for (restart_time, over) in [(60, 60), (10, 30), (120, 120), (600, 600)] {
            let restart_time = Some(Duration::from_secs(restart_time));
            let peers = [Awaited { peer: PeerId(1), restart_time }, awaited(2)];
            let mut start = Startup::new(peers, Ranges::None, at(0));
            start.handle_up(at(0), PeerId(2), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
            start.handle_end_of_rib(PeerId(2), Family::Ipv4);
            assert!(start.is_converging(at(29)));
            assert!(!start.is_converging(at(31)), "an absent peer does not delay readiness");
            assert_eq!(over_at(&mut start, |_, _| false), over);
        }
    }

    #[test]
    fn a_slow_peer_is_waited_for_until_the_deferral_ends() {
        let mut start = start_of([1]);
        start.handle_up(at(0), PeerId(1), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        assert_eq!(settled(&mut start, 60), Progress::WaitingUntil(at(120)));
        start.handle_down(PeerId(1));
        assert_eq!(settled(&mut start, 61), Progress::Over);
        start.handle_up(at(61), PeerId(1), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        assert_eq!(settled(&mut start, 120), Progress::Over);
    }

    /// Its kernel accepts connections while its process hangs: slow, not down.
    #[test]
    fn a_peer_that_accepts_connections_is_not_absent() {
        let always = |_, peer| peer == PeerId(1);
        assert_eq!(over_at(&mut start_of([1, 2]), always), 120);
        // When it stops accepting, it counts as slow for a while after the last time.
        let for_a_minute = |secs, peer| secs <= 60 && peer == PeerId(1);
        assert_eq!(over_at(&mut start_of([1, 2]), for_a_minute), 90);
        let start = &mut start_of([1]);
        let slow = start.poll(at(40), |_| true, || Lookups::Done);
        assert_eq!(slow, Progress::WaitingUntil(at(45)));
        assert!(start.is_converging(at(40)));
    }

    /// Only dynamic peers, and the kernel has routes of ours, which may be from these peers.
    #[test]
    fn dynamic_peers_have_the_restart_time_to_reconnect() {
        let restart_time = Some(Duration::from_secs(60));
        let ranges = Ranges::MayOwnRoutes { restart_time };
        let mut start = Startup::new([], ranges, at(0));
        assert_eq!(poll(&mut start, at(1)), Progress::WaitingUntil(at(60)));
        start.handle_up(at(59), PeerId(7), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        assert_eq!(settled(&mut start, 60), Progress::WaitingUntil(at(120)));
        start.handle_up(at(61), PeerId(8), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        start.handle_end_of_rib(PeerId(7), Family::Ipv4);
        assert_eq!(settled(&mut start, 62), Progress::Over, "peer 8 was never waited for");
    }

    #[test]
    fn if_no_route_is_at_stake_the_wait_for_dynamic_peers_is_short() {
        let mut start = Startup::new([], Ranges::OwnNothing, at(0));
        assert_eq!(over_at(&mut start, |_, _| false), 10);
        let mut start = Startup::new([], Ranges::OwnNothing, at(0));
        start.handle_up(at(1), PeerId(7), FamilySet::only(Family::Ipv4), EndOfRib::Promised);
        assert_eq!(poll(&mut start, at(2)), Progress::WaitingUntil(at(120)));
        start.handle_end_of_rib(PeerId(7), Family::Ipv4);
        assert_eq!(poll(&mut start, at(2)), Progress::WaitingUntil(at(4)), "more may come");
        assert_eq!(settled(&mut start, 4), Progress::Over);
    }

    /// For `bird6.ctl`, which recovers independently of `bird.ctl`, as bird6 does.
    #[test]
    fn complete_peers_are_done_while_others_are_awaited() {
        let start = &mut start_of([1, 2, 3]);
        let is_odd = |peer: PeerId| peer.0 % 2 == 1;
        let is_even = |peer: PeerId| !is_odd(peer);
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(2), Some(1)));
        start.handle_removed(PeerId(2));
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(2), None));
        start.handle_removed(PeerId(1));
        start.handle_removed(PeerId(3));
        // All routes were received, and are being installed.
        assert_eq!((start.count_of(is_odd), start.count_of(is_even)), (Some(0), Some(0)));
    }

    #[test]
    fn without_peers_there_is_no_wait() {
        assert_eq!(settled(&mut start_of([]), 0), Progress::Over);
    }
}
