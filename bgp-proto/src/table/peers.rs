//! All peers, and which of them have work pending.

use std::collections::{BTreeSet, VecDeque};

use super::ImportCounts;
use super::peer::{Pass, Peer};
use crate::rib::Sources;
use crate::types::{Family, FamilyMap, PeerId, Time};

/// The peers, each with its Adj-RIB-In.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
    /// Peers with inputs, in the order in which they are served.
    waiting: Round,
    /// Peers with a pass in progress.
    busy: Round,
    /// Peers that may have a deadline: few do, and each turn checks.
    timed: BTreeSet<PeerId>,
}

/// Peers in round-robin order, each once.
#[derive(Default)]
struct Round {
    order: VecDeque<PeerId>,
    members: BTreeSet<PeerId>,
}

impl Round {
    fn insert(&mut self, id: PeerId) {
        if self.members.insert(id) {
            self.order.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<PeerId> {
        let id = self.order.pop_front()?;
        self.members.remove(&id);
        Some(id)
    }
}

impl Peers {
    #[inline]
    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(id.index())?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slots.get_mut(id.index())?.as_deref_mut()
    }

    /// The peer that an input is for, which the host must have added.
    pub(super) fn known(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.get_mut(id);
        debug_assert!(peer.is_some(), "peer {} was not added", id.0);
        peer
    }

    pub(super) fn insert(&mut self, id: PeerId, peer: Peer) {
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, || None);
        }
        self.slots[id.index()] = Some(Box::new(peer));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.iter().filter_map(|peer| peer.source.peer()).collect()
    }

    /// The peer has inputs.
    pub(super) fn set_waiting(&mut self, id: PeerId) {
        self.waiting.insert(id);
    }

    pub(super) fn next_waiting(&mut self) -> Option<PeerId> {
        self.waiting.pop()
    }

    pub(super) fn waiting_len(&self) -> u32 {
        self.waiting.order.len() as u32
    }

    /// The peer has a pass in progress.
    pub(super) fn set_busy(&mut self, id: PeerId) {
        self.busy.insert(id);
    }

    pub(super) fn next_busy(&mut self) -> Option<PeerId> {
        self.busy.pop()
    }

    pub(super) fn busy_len(&self) -> u32 {
        self.busy.order.len() as u32
    }

    pub(super) fn has_busy(&self) -> bool {
        !self.busy.order.is_empty()
    }

    /// Whether routes of ended sessions are being withdrawn.
    pub(super) fn is_withdrawing(&self) -> bool {
        let mut busy = self.busy.order.iter().filter_map(|id| self.get(*id));
        busy.any(|peer| peer.has(Pass::Withdraw) || peer.has(Pass::Sweep))
    }

    /// Whether destinations are still to be touched because facts about a peer changed. Those of an
    /// ended session are touched only as they are withdrawn.
    pub(super) fn is_touching(&self) -> bool {
        let mut busy = self.busy.order.iter().filter_map(|id| self.get(*id));
        busy.any(|peer| peer.has(Pass::Touch) || peer.has(Pass::Withdraw))
    }

    /// Drops a peer that was removed and none of whose paths are left. If another one waits for its
    /// id, that one takes its place.
    pub(super) fn finish_removal(
        &mut self,
        id: PeerId,
        sources: &mut Sources,
        before: &mut FamilyMap<ImportCounts>,
    ) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let Some(peer) = slot.take_if(|peer| peer.is_gone()) else { return };
        for family in Family::ALL {
            before[family] += peer.family(family).imports;
        }
        sources.remove(peer.source);
        if peer.inputs.is_empty() {
            self.timed.remove(&id);
            return;
        }
        // The next peer with this id has been added, and perhaps more has happened to it.
        let mut next = Peer::new(peer.source, peer.address, peer.routes);
        (next.inputs, next.input_octets) = (peer.inputs, peer.input_octets);
        *slot = Some(Box::new(next));
        self.set_waiting(id);
    }

    pub(super) fn set_timed(&mut self, id: PeerId) {
        self.timed.insert(id);
    }

    pub(super) fn timed(&self) -> Vec<PeerId> {
        self.timed.iter().copied().collect()
    }

    /// The earliest deadline.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.timed.iter().filter_map(|id| self.get(*id)).flat_map(Peer::deadlines).min()
    }

    /// Drops peers that no longer have a deadline from `timed`.
    pub(super) fn review_timed(&mut self) {
        let slots = &self.slots;
        self.timed.retain(|id| {
            let peer = slots.get(id.index()).and_then(Option::as_deref);
            peer.is_some_and(|peer| peer.deadlines().next().is_some())
        });
    }
}
