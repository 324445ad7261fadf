//! Make before break: a session that carries routes closes only when other sessions carry them.
//!
//! When a Calico mesh is replaced by route reflectors, sessions with other nodes disappear from the
//! plan while new ones appear. The old sessions are *parting*: they stay up until the new ones are
//! established and have delivered End-of-RIB, and until no destination depends on parting peers
//! alone. Once no further peer is arriving, the latter is waited for at most [`CARRIED_MAX`]: a
//! reflector advertises the routes of other nodes only when those have reached it too, but the
//! routes of a node that leaves the mesh for good never come back. A parting session lasts at most
//! [`PARTING_MAX`] in all. It then ends without a NOTIFICATION, so that the other side, which may
//! be slower to change, keeps our routes for its restart time.
//!
//! Differs from BIRD, which closes the old sessions first and has no routes for some seconds.
//!
//! Pure: which peers arrive and which are parting, by time. The table knows which destinations
//! depend on which peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::types::{Family, FamilySet, PeerId, Time};

use super::awaiting::{Awaiting, Awaits};
use crate::config::PeerEntry;

/// How long to wait for a new peer to establish its session.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long a parting peer may stay.
pub(super) const PARTING_MAX: Duration = Duration::from_secs(90);
/// How long destinations may keep parting peers up once no further peer is arriving.
const CARRIED_MAX: Duration = Duration::from_secs(15);
/// How often the table is asked whether destinations still depend on parting peers.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The time by which a new peer must establish its session.
#[derive(Debug)]
struct ConnectBy(Time);

/// Arriving peers and parting peers.
#[derive(Debug, Default)]
pub(super) struct Handover {
    arriving: Awaiting<ConnectBy>,
    parting: BTreeMap<IpAddr, Parting>,
    /// When to ask the table next.
    look_at: Option<Time>,
    /// Since when no peer is arriving while some are parting.
    quiet_since: Option<Time>,
}

#[derive(Debug)]
struct Parting {
    entry: PeerEntry,
    ends: Time,
}

/// What to do about parting peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No peer is parting.
    Nothing,
    /// Poll again at this time at the latest.
    Wait(Time),
    /// Ask the table whether a destination depends on parting peers alone, and end them if none
    /// does.
    Look,
    /// The time of some parting peers is up.
    Expire,
}

impl Handover {
    /// A peer was added.
    pub(super) fn handle_added(&mut self, peer: PeerId, now: Time) {
        self.arriving.expect(peer, ConnectBy(now + CONNECT_MAX));
    }

    /// A session came up with these families.
    pub(super) fn handle_up(&mut self, peer: PeerId, families: FamilySet) {
        self.arriving.handle_up(peer, families);
    }

    /// A session went down.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        self.arriving.handle_down(peer);
    }

    /// A peer's routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.arriving.handle_end_of_rib(peer, family);
    }

    /// A peer was removed.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.arriving.forget(peer);
    }

    /// These neighbours are no longer configured: lets them part while others take over. A
    /// neighbour that is parting already keeps its deadline.
    pub(super) fn part(&mut self, entries: impl IntoIterator<Item = PeerEntry>, now: Time) {
        for entry in entries {
            let ends = now + PARTING_MAX;
            self.parting.entry(entry.session.address).or_insert(Parting { entry, ends });
        }
        self.look_at = Some(now);
        self.quiet_since = None;
    }

    /// The neighbour is configured again, or must end at once.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.parting.remove(&address);
    }

    /// Parting neighbours, by address.
    pub(super) fn parting(&self) -> impl Iterator<Item = &PeerEntry> {
        self.parting.values().map(|parting| &parting.entry)
    }

    /// Whether any peer is still arriving. Drops those whose time is up.
    fn has_arrivals(&mut self, now: Time) -> bool {
        self.arriving.retain(|owes, connect_by| match owes {
            Awaits::Session => connect_by.0 > now,
            Awaits::EndOfRib(_) => connect_by.0 + PARTING_MAX > now,
        });
        !self.arriving.is_empty()
    }

    /// What to do at `now`.
    pub(super) fn poll(&mut self, now: Time) -> Step {
        if self.parting.is_empty() {
            (self.look_at, self.quiet_since) = (None, None);
            return Step::Nothing;
        }
        let is_quiet = !self.has_arrivals(now);
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        let Some(ends) = self.parting.values().map(|p| self.end_of(p)).min() else {
            return Step::Nothing;
        };
        if ends <= now {
            return Step::Expire;
        }
        let next = self.look_at.unwrap_or(now);
        if next > now {
            return Step::Wait(next.min(ends));
        }
        self.look_at = Some(now + LOOK_INTERVAL);
        if is_quiet { Step::Look } else { Step::Wait((now + LOOK_INTERVAL).min(ends)) }
    }

    /// When a parting peer ends at the latest, as far as is known.
    fn end_of(&self, parting: &Parting) -> Time {
        let carried = self.quiet_since.map(|since| since + CARRIED_MAX);
        carried.map_or(parting.ends, |carried| carried.min(parting.ends))
    }

    /// Removes the parting peers whose time is up, and returns them.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<PeerEntry> {
        let is_over = |p: &Parting| self.end_of(p) <= now;
        let expired: Vec<IpAddr> =
            self.parting.iter().filter(|(_, p)| is_over(p)).map(|(a, _)| *a).collect();
        expired.iter().filter_map(|a| self.parting.remove(a)).map(|p| p.entry).collect()
    }

    /// Removes all parting peers, and returns them.
    pub(super) fn take_all(&mut self) -> Vec<PeerEntry> {
        std::mem::take(&mut self.parting).into_values().map(|p| p.entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bgp_proto::session::{LocalIdentity, PeerConfig};
    use bgp_proto::table::PeerRoutes;
    use bgp_proto::types::{Asn, RouterId};

    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn entry(address: [u8; 4]) -> PeerEntry {
        let identity = LocalIdentity { asn: Asn(1), router_id: RouterId(1) };
        let name: Arc<str> = format!("{address:?}").into();
        PeerEntry {
            session: Arc::new(PeerConfig::new(address.into(), Asn(1), &identity)),
            routes: Arc::new(PeerRoutes::new(Arc::clone(&name))),
            bfd: None,
            fallover: crate::config::Fallover::Timers,
            interface: None,
            description: None,
            name,
        }
    }

    #[test]
    fn parting_peers_wait_for_the_routes_of_arriving_peers() {
        let mut handover = Handover::default();
        assert_eq!(handover.poll(at(0)), Step::Nothing);
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1]), entry([10, 0, 0, 2])], at(0));
        assert_eq!(handover.poll(at(0)), Step::Wait(at(250)));
        handover.handle_up(PeerId(1), FamilySet::ALL);
        handover.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert!(matches!(handover.poll(at(250)), Step::Wait(_)), "one of two families is complete");
        handover.handle_end_of_rib(PeerId(1), Family::Ipv6);
        assert_eq!(handover.poll(at(500)), Step::Look);
        assert_eq!(handover.poll(at(500)), Step::Wait(at(750)), "not asked twice");
        assert_eq!(handover.take_all().len(), 2);
        assert_eq!(handover.poll(at(750)), Step::Nothing);
    }

    #[test]
    fn a_peer_that_never_connects_is_waited_for_a_bounded_time() {
        let mut handover = Handover::default();
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1])], at(0));
        assert!(matches!(handover.poll(at(29_999)), Step::Wait(_)));
        assert_eq!(handover.poll(at(31_000)), Step::Look);
    }

    #[test]
    fn no_peer_is_parting_for_longer_than_the_bound() {
        let mut handover = Handover::default();
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1])], at(0));
        handover.handle_up(PeerId(1), FamilySet::ALL);
        // If it is made to part again later, the first deadline stays.
        handover.part([entry([10, 0, 0, 1])], at(60_000));
        handover.handle_added(PeerId(2), at(70_000));
        assert!(matches!(handover.poll(at(89_999)), Step::Wait(_)));
        assert_eq!(handover.poll(at(90_000)), Step::Expire);
        assert_eq!(handover.take_expired(at(90_000)).len(), 1);
        assert_eq!(handover.poll(at(90_000)), Step::Nothing);
    }

    #[test]
    fn routes_that_no_other_peer_carries_do_not_keep_peers_for_long() {
        let mut handover = Handover::default();
        handover.part([entry([10, 0, 0, 1]), entry([10, 0, 0, 2])], at(0));
        assert_eq!(handover.poll(at(0)), Step::Look);
        assert_eq!(handover.poll(at(14_000)), Step::Look);
        // A new peer may carry them: the time starts again once its routes are complete.
        handover.handle_added(PeerId(1), at(14_500));
        assert!(matches!(handover.poll(at(16_000)), Step::Wait(_)));
        handover.handle_up(PeerId(1), FamilySet::only(Family::Ipv4));
        handover.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert_eq!(handover.poll(at(20_000)), Step::Look);
        assert_eq!(handover.poll(at(34_999)), Step::Look);
        assert_eq!(handover.poll(at(35_000)), Step::Expire);
        assert_eq!(handover.take_expired(at(35_000)).len(), 2);
    }

    #[test]
    fn a_neighbour_that_comes_back_does_not_part() {
        let mut handover = Handover::default();
        handover.part([entry([10, 0, 0, 1])], at(0));
        assert_eq!(handover.parting().count(), 1);
        handover.forget([10, 0, 0, 1].into());
        assert_eq!(handover.poll(at(1)), Step::Nothing);
    }
}
