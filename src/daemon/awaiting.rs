//! Peers whose session or End-of-RIB (RFC 4724 §2) is awaited, and the terms for each.
//!
//! The start-up, the deferral of the first export and the handover all wait for peers to establish
//! a session and to complete their routes. How long they wait is their own rule: each stores its
//! terms with the peer, and asks [`Awaiting::pending`] which peers are left.

use std::collections::BTreeMap;

use bgp_proto::types::{Family, FamilySet, PeerId};

/// What is still awaited from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// A session.
    Session,
    /// End-of-RIB for these.
    EndOfRib(FamilySet),
}

/// Peers from which something is awaited, each with the terms on which we wait for it.
#[derive(Debug)]
pub(super) struct Awaiting<Terms> {
    peers: BTreeMap<PeerId, (Awaits, Terms)>,
}

impl<Terms> Default for Awaiting<Terms> {
    fn default() -> Self {
        Awaiting { peers: BTreeMap::new() }
    }
}

impl<Terms> Awaiting<Terms> {
    /// Waits for a peer to establish its session.
    pub(super) fn expect(&mut self, peer: PeerId, terms: Terms) {
        self.peers.insert(peer, (Awaits::Session, terms));
    }

    /// Waits for a peer whose session is up to complete these families.
    pub(super) fn expect_routes(&mut self, peer: PeerId, families: FamilySet, terms: Terms) {
        self.peers.insert(peer, (Awaits::EndOfRib(families), terms));
    }

    /// A session came up with these families. Returns the peer's terms, or `None` if we do not wait
    /// for it.
    pub(super) fn handle_up(&mut self, peer: PeerId, families: FamilySet) -> Option<&mut Terms> {
        self.owe(peer, Awaits::EndOfRib(families))
    }

    /// A session went down before it was complete: a new session and all of its routes are awaited.
    /// Returns the peer's terms, or `None` if we do not wait for it.
    pub(super) fn handle_down(&mut self, peer: PeerId) -> Option<&mut Terms> {
        self.owe(peer, Awaits::Session)
    }

    /// A peer's routes of a family are complete. After its last family, the peer is dropped.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        if let Some((Awaits::EndOfRib(families), _)) = self.peers.get_mut(&peer) {
            families.remove(family);
            if families.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// Stops waiting for a peer. Returns whether something was awaited from it.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        self.peers.remove(&peer).is_some()
    }

    /// Keeps the peers for which `is_awaited` returns true.
    pub(super) fn retain(&mut self, mut is_awaited: impl FnMut(Awaits, &Terms) -> bool) {
        self.peers.retain(|_, (owes, terms)| is_awaited(*owes, terms));
    }

    /// The peers from which something is awaited, what it is, and their terms.
    pub(super) fn pending(&self) -> impl Iterator<Item = (PeerId, Awaits, &Terms)> {
        self.peers.iter().map(|(peer, (owes, terms))| (*peer, *owes, terms))
    }

    /// The peers whose session is awaited.
    pub(super) fn without_session(&mut self) -> impl Iterator<Item = (PeerId, &mut Terms)> {
        let peers = self.peers.iter_mut();
        peers
            .filter(|(_, (owes, _))| *owes == Awaits::Session)
            .map(|(peer, (_, terms))| (*peer, terms))
    }

    /// Whether the session of any peer is awaited.
    pub(super) fn lacks_session(&self) -> bool {
        self.peers.values().any(|(owes, _)| *owes == Awaits::Session)
    }

    /// What is awaited from a peer; `None` if nothing.
    pub(super) fn owes(&self, peer: PeerId) -> Option<Awaits> {
        self.peers.get(&peer).map(|(owes, _)| *owes)
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn owe(&mut self, peer: PeerId, owes: Awaits) -> Option<&mut Terms> {
        let (before, terms) = self.peers.get_mut(&peer)?;
        *before = owes;
        Some(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: FamilySet = FamilySet::only(Family::Ipv4);
    const ONE: PeerId = PeerId(1);
    const TWO: PeerId = PeerId(2);

    fn pending(awaiting: &Awaiting<u8>) -> Vec<(u32, Awaits, u8)> {
        awaiting.pending().map(|(peer, owes, terms)| (peer.0, owes, *terms)).collect()
    }

    #[test]
    fn the_session_is_awaited_and_then_each_of_its_families() {
        let mut awaiting = Awaiting::default();
        awaiting.expect(ONE, 7);
        assert_eq!(pending(&awaiting), [(1, Awaits::Session, 7)]);
        assert_eq!(awaiting.handle_up(ONE, FamilySet::ALL), Some(&mut 7));
        assert_eq!(awaiting.owes(ONE), Some(Awaits::EndOfRib(FamilySet::ALL)));
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(awaiting.owes(ONE), Some(Awaits::EndOfRib(V4)));
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(awaiting.owes(ONE), Some(Awaits::EndOfRib(V4)), "a repeated End-of-RIB");
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        assert!(awaiting.is_empty());
    }

    #[test]
    fn after_a_lost_session_everything_is_awaited_again() {
        let mut awaiting = Awaiting::default();
        awaiting.expect_routes(ONE, FamilySet::ALL, 0);
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        *awaiting.handle_down(ONE).unwrap() = 3;
        assert_eq!(pending(&awaiting), [(1, Awaits::Session, 3)]);
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(pending(&awaiting), [(1, Awaits::Session, 3)], "from the previous session");
        awaiting.handle_up(ONE, FamilySet::ALL);
        assert_eq!(pending(&awaiting), [(1, Awaits::EndOfRib(FamilySet::ALL), 3)]);
    }

    #[test]
    fn an_unexpected_peer_is_not_waited_for() {
        let mut awaiting = Awaiting::<u8>::default();
        assert_eq!(awaiting.handle_up(ONE, V4), None);
        assert_eq!(awaiting.handle_down(ONE), None);
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        assert!(!awaiting.forget(ONE));
        assert_eq!((awaiting.len(), awaiting.owes(ONE)), (0, None));
    }

    #[test]
    fn peers_are_distinguished_by_what_is_awaited() {
        let mut awaiting = Awaiting::default();
        awaiting.expect(ONE, 1);
        awaiting.expect_routes(TWO, V4, 2);
        assert!(awaiting.lacks_session());
        for (peer, terms) in awaiting.without_session() {
            assert_eq!(peer, ONE);
            *terms = 9;
        }
        assert_eq!(pending(&awaiting), [(1, Awaits::Session, 9), (2, Awaits::EndOfRib(V4), 2)]);
        awaiting.retain(|owes, terms| owes != Awaits::Session || *terms < 9);
        assert!(!awaiting.lacks_session());
        assert!(awaiting.forget(TWO));
        assert!(awaiting.is_empty());
    }
}
