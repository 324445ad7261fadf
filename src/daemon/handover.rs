//! Make before break: neighbours that carry routes leave only when others carry them.
//!
//! When Calico's mesh becomes reflectors, sessions with other nodes vanish from the plan while new
//! ones appear. The old ones *part*: they go on until the new ones are established and have
//! delivered End-of-RIB, and until no destination depends on the parting ones alone. For the latter
//! they wait [`CARRIED_MAX`] from when nobody arrives any more: a reflector tells us about others when
//! those have reached it too, but who leaves the mesh for good is not waited for. In all they stay not
//! longer than [`PARTING_MAX`]. Then they end without a NOTIFICATION, so that the other side, which may
//! not be as far, keeps our routes for its restart time.
//!
//! Differs from BIRD, which ends the old sessions first and is without routes for seconds.
//!
//! Pure: who arrives and who parts, by time. What depends on whom, the table knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::types::{Family, FamilySet, PeerId, Time};

use super::awaiting::{Awaiting, Owes};
use crate::config::PeerEntry;

/// How long a new peer may take to establish its session before nothing waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long a parting peer stays at most.
pub(super) const PARTING_MAX: Duration = Duration::from_secs(90);
/// How long destinations may depend on parting peers alone once nobody arrives any more.
const CARRIED_MAX: Duration = Duration::from_secs(15);
/// How often it is looked whether destinations still depend on parting peers.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Until when a new peer may establish its session.
#[derive(Debug)]
struct ConnectBy(Time);

/// Peers that arrive and peers that part.
#[derive(Debug, Default)]
pub(super) struct Handover {
    arriving: Awaiting<ConnectBy>,
    parting: BTreeMap<IpAddr, Parting>,
    /// When to look at what depends on parting peers.
    look_at: Option<Time>,
    /// Since when nobody arrives while some part.
    quiet_since: Option<Time>,
}

#[derive(Debug)]
struct Parting {
    entry: PeerEntry,
    ends: Time,
}

/// What is to be done about parting peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody parts.
    Nothing,
    /// Look again then at the latest.
    Wait(Time),
    /// Ask the table whether a destination depends on them, and end them if none does.
    Look,
    /// The time of some is up.
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

    /// The routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.arriving.handle_end_of_rib(peer, family);
    }

    /// A peer was removed.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.arriving.forget(peer);
    }

    /// Neighbours that are not wanted any more, while others may take over.
    pub(super) fn part(&mut self, entries: impl IntoIterator<Item = PeerEntry>, now: Time) {
        for entry in entries {
            let ends = now + PARTING_MAX;
            self.parting.entry(entry.session.address).or_insert(Parting { entry, ends });
        }
        self.look_at = Some(now);
        self.quiet_since = None;
    }

    /// The neighbour is wanted again, or must go at once.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.parting.remove(&address);
    }

    /// Parting neighbours, by address.
    pub(super) fn parting(&self) -> impl Iterator<Item = &PeerEntry> {
        self.parting.values().map(|parting| &parting.entry)
    }

    /// Whether a peer is expected.
    fn has_arrivals(&mut self, now: Time) -> bool {
        self.arriving.retain(|owes, connect_by| match owes {
            Owes::Session => connect_by.0 > now,
            Owes::EndOfRib(_) => connect_by.0 + PARTING_MAX > now,
        });
        !self.arriving.is_empty()
    }

    /// What is to be done at `now`.
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

    /// When a peer that parts ends at the latest, as far as is known.
    fn end_of(&self, parting: &Parting) -> Time {
        let carried = self.quiet_since.map(|since| since + CARRIED_MAX);
        carried.map_or(parting.ends, |carried| carried.min(parting.ends))
    }

    /// Takes out those whose time is up.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<PeerEntry> {
        let is_over = |p: &Parting| self.end_of(p) <= now;
        let expired: Vec<IpAddr> =
            self.parting.iter().filter(|(_, p)| is_over(p)).map(|(a, _)| *a).collect();
        expired.iter().filter_map(|a| self.parting.remove(a)).map(|p| p.entry).collect()
    }

    /// Takes out all.
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
            name,
        }
    }

    #[test]
    fn parting_peers_wait_for_the_routes_of_those_that_arrive() {
        let mut handover = Handover::default();
        assert_eq!(handover.poll(at(0)), Step::Nothing);
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1]), entry([10, 0, 0, 2])], at(0));
        assert_eq!(handover.poll(at(0)), Step::Wait(at(250)));
        handover.handle_up(PeerId(1), FamilySet::ALL);
        handover.handle_end_of_rib(PeerId(1), Family::Ipv4);
        assert!(matches!(handover.poll(at(250)), Step::Wait(_)), "half of its routes are there");
        handover.handle_end_of_rib(PeerId(1), Family::Ipv6);
        assert_eq!(handover.poll(at(500)), Step::Look);
        assert_eq!(handover.poll(at(500)), Step::Wait(at(750)), "one question at a time");
        assert_eq!(handover.take_all().len(), 2);
        assert_eq!(handover.poll(at(750)), Step::Nothing);
    }

    #[test]
    fn who_never_connects_is_waited_for_a_bounded_time_only() {
        let mut handover = Handover::default();
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1])], at(0));
        assert!(matches!(handover.poll(at(29_999)), Step::Wait(_)));
        assert_eq!(handover.poll(at(31_000)), Step::Look);
    }

    #[test]
    fn nobody_parts_for_longer_than_the_bound() {
        let mut handover = Handover::default();
        handover.handle_added(PeerId(1), at(0));
        handover.part([entry([10, 0, 0, 1])], at(0));
        handover.handle_up(PeerId(1), FamilySet::ALL);
        // Asked for again later, the first bound holds.
        handover.part([entry([10, 0, 0, 1])], at(60_000));
        handover.handle_added(PeerId(2), at(70_000));
        assert!(matches!(handover.poll(at(89_999)), Step::Wait(_)));
        assert_eq!(handover.poll(at(90_000)), Step::Expire);
        assert_eq!(handover.take_expired(at(90_000)).len(), 1);
        assert_eq!(handover.poll(at(90_000)), Step::Nothing);
    }

    #[test]
    fn routes_that_nobody_else_carries_do_not_hold_peers_for_long() {
        let mut handover = Handover::default();
        handover.part([entry([10, 0, 0, 1]), entry([10, 0, 0, 2])], at(0));
        assert_eq!(handover.poll(at(0)), Step::Look);
        assert_eq!(handover.poll(at(14_000)), Step::Look);
        // Somebody who comes may carry them: the time starts again when that one is there.
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
