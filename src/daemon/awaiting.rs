//! Who still owes End-of-RIB (RFC 4724 §2), and what is known about each.
//!
//! The start, the deferral of the first export and the handover all wait for peers to establish a
//! session and to complete their routes. Until when they do is a rule of their own: each keeps its
//! terms with the peer, and asks [`Awaiting::pending`] who is left.

use std::collections::BTreeMap;

use bgp_proto::types::{Family, FamilySet, PeerId};

/// What a peer still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    /// A session.
    Session,
    /// End-of-RIB for these.
    EndOfRib(FamilySet),
}

/// Peers that owe something, each with the terms on which it is waited for.
#[derive(Debug)]
pub(super) struct Awaiting<Terms> {
    peers: BTreeMap<PeerId, (Owes, Terms)>,
}

impl<Terms> Default for Awaiting<Terms> {
    fn default() -> Self {
        Awaiting { peers: BTreeMap::new() }
    }
}

impl<Terms> Awaiting<Terms> {
    /// A peer is to establish its session.
    pub(super) fn expect(&mut self, peer: PeerId, terms: Terms) {
        self.peers.insert(peer, (Owes::Session, terms));
    }

    /// A peer whose session is up is to complete these families.
    pub(super) fn expect_routes(&mut self, peer: PeerId, families: FamilySet, terms: Terms) {
        self.peers.insert(peer, (Owes::EndOfRib(families), terms));
    }

    /// A session came up with these families. Returns the peer's terms; `None`: nobody waits for it.
    pub(super) fn handle_up(&mut self, peer: PeerId, families: FamilySet) -> Option<&mut Terms> {
        self.owe(peer, Owes::EndOfRib(families))
    }

    /// A session went down before everything was sent: all of it is owed again, by the next session.
    /// Returns the peer's terms; `None`: nobody waits for it.
    pub(super) fn handle_down(&mut self, peer: PeerId) -> Option<&mut Terms> {
        self.owe(peer, Owes::Session)
    }

    /// The routes of a family are complete. Whoever owes no further family is not waited for any more.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        if let Some((Owes::EndOfRib(families), _)) = self.peers.get_mut(&peer) {
            families.remove(family);
            if families.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// A peer owes nothing any more. Whether it did.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        self.peers.remove(&peer).is_some()
    }

    /// Keeps those that are to be waited for further.
    pub(super) fn retain(&mut self, mut is_awaited: impl FnMut(Owes, &Terms) -> bool) {
        self.peers.retain(|_, (owes, terms)| is_awaited(*owes, terms));
    }

    /// Who owes what, and on which terms.
    pub(super) fn pending(&self) -> impl Iterator<Item = (PeerId, Owes, &Terms)> {
        self.peers.iter().map(|(peer, (owes, terms))| (*peer, *owes, terms))
    }

    /// The peers without a session.
    pub(super) fn without_session(&mut self) -> impl Iterator<Item = (PeerId, &mut Terms)> {
        let peers = self.peers.iter_mut();
        peers
            .filter(|(_, (owes, _))| *owes == Owes::Session)
            .map(|(peer, (_, terms))| (*peer, terms))
    }

    /// Whether any of them has no session.
    pub(super) fn lacks_session(&self) -> bool {
        self.peers.values().any(|(owes, _)| *owes == Owes::Session)
    }

    /// What a peer owes.
    pub(super) fn owes(&self, peer: PeerId) -> Option<Owes> {
        self.peers.get(&peer).map(|(owes, _)| *owes)
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn owe(&mut self, peer: PeerId, owes: Owes) -> Option<&mut Terms> {
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

    fn pending(awaiting: &Awaiting<u8>) -> Vec<(u32, Owes, u8)> {
        awaiting.pending().map(|(peer, owes, terms)| (peer.0, owes, *terms)).collect()
    }

    #[test]
    fn a_peer_owes_a_session_and_then_each_family_of_it() {
        let mut awaiting = Awaiting::default();
        awaiting.expect(ONE, 7);
        assert_eq!(pending(&awaiting), [(1, Owes::Session, 7)]);
        assert_eq!(awaiting.handle_up(ONE, FamilySet::ALL), Some(&mut 7));
        assert_eq!(awaiting.owes(ONE), Some(Owes::EndOfRib(FamilySet::ALL)));
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(awaiting.owes(ONE), Some(Owes::EndOfRib(V4)));
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(awaiting.owes(ONE), Some(Owes::EndOfRib(V4)), "the same once more");
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        assert!(awaiting.is_empty());
    }

    #[test]
    fn a_lost_session_owes_all_again() {
        let mut awaiting = Awaiting::default();
        awaiting.expect_routes(ONE, FamilySet::ALL, 0);
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        *awaiting.handle_down(ONE).unwrap() = 3;
        assert_eq!(pending(&awaiting), [(1, Owes::Session, 3)]);
        awaiting.handle_end_of_rib(ONE, Family::Ipv6);
        assert_eq!(pending(&awaiting), [(1, Owes::Session, 3)], "of the session before");
        awaiting.handle_up(ONE, FamilySet::ALL);
        assert_eq!(pending(&awaiting), [(1, Owes::EndOfRib(FamilySet::ALL), 3)]);
    }

    #[test]
    fn whoever_is_not_expected_is_not_waited_for() {
        let mut awaiting = Awaiting::<u8>::default();
        assert_eq!(awaiting.handle_up(ONE, V4), None);
        assert_eq!(awaiting.handle_down(ONE), None);
        awaiting.handle_end_of_rib(ONE, Family::Ipv4);
        assert!(!awaiting.forget(ONE));
        assert_eq!((awaiting.len(), awaiting.owes(ONE)), (0, None));
    }

    #[test]
    fn peers_are_told_apart_by_what_they_owe() {
        let mut awaiting = Awaiting::default();
        awaiting.expect(ONE, 1);
        awaiting.expect_routes(TWO, V4, 2);
        assert!(awaiting.lacks_session());
        for (peer, terms) in awaiting.without_session() {
            assert_eq!(peer, ONE);
            *terms = 9;
        }
        assert_eq!(pending(&awaiting), [(1, Owes::Session, 9), (2, Owes::EndOfRib(V4), 2)]);
        awaiting.retain(|owes, terms| owes != Owes::Session || *terms < 9);
        assert!(!awaiting.lacks_session());
        assert!(awaiting.forget(TWO));
        assert!(awaiting.is_empty());
    }
}
