//! Inputs of peers, in order: sessions, their routes, their ends.
//!
//! Queueing an input is O(1). A turn processes the queues peer by peer within its budget; a batch
//! may take several turns. A peer whose next input has to wait for a pass over its own routes
//! delays no other.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::peer::{Pass, Peer, PeerInput, QueuedBatch, Receipt};
use super::{Established, Mirrored, PeerRoutes, Table};
use crate::rib::{Meter, SourceId};
use crate::session::{Keep, Negotiated};
use crate::types::{Family, PeerId, SessionId, Time};
use crate::wire::RouteBatch;

/// How far an input of a peer was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was processed completely.
    Whole,
    /// The budget was spent first.
    InPart,
    /// A pass over the peer's routes has to end first.
    Waits,
}

impl Table {
    /// Adds a peer. `address` breaks ties in the decision process.
    pub fn peer_add(&mut self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        let Some(source) = SourceId::peer_id(peer) else {
            self.note(format!("{}: no more than 65532 peers; it is left out", routes.name));
            return;
        };
        match self.peers.get_mut(peer) {
            // The id is reused before the previous peer with it is gone.
            Some(_) => self.queue(peer, PeerInput::Add { address, routes }),
            None => {
                self.cluster_ids_differ |= routes.reflection.cluster_id.is_some();
                self.peers.insert(peer, Peer::new(source, address, routes));
            }
        }
    }

    /// The session is established. Its readers, one per negotiated family, are returned by
    /// [`Table::poll_established`] once the table has processed this input.
    pub fn peer_up(&mut self, peer: PeerId, session: SessionId, negotiated: Arc<Negotiated>) {
        self.queue(peer, PeerInput::Up { session, negotiated });
    }

    /// Queues route events of a peer, in order. `receipt` is dropped when they have been applied.
    pub fn apply(&mut self, peer: PeerId, batch: RouteBatch, receipt: Receipt) {
        let octets = batch.size() as u64;
        let batch = QueuedBatch { batch, entry: 0, rest: None, receipt };
        if let Some(known) = self.peers.known(peer) {
            known.input_octets += octets;
            self.queue(peer, PeerInput::Batch(Box::new(batch)));
        }
    }

    /// A message of a peer was treated as erroneous in this session, at this Unix time: for monitors that
    /// mirror it. Precedes [`Table::peer_down`] if it ended the session. `receipt` is dropped when it has been
    /// noted.
    pub fn peer_mirrored(
        &mut self,
        peer: PeerId,
        session: SessionId,
        message: Mirrored,
        secs: u32,
        receipt: Receipt,
    ) {
        if !self.is_mirroring() {
            return;
        }
        if let Some(known) = self.peers.known(peer) {
            known.input_octets += message.octets();
            self.queue(peer, PeerInput::Mirrored { session, message, secs, receipt });
        }
    }

    /// The session has ended; routes are withdrawn within the next turns, or kept as stale (RFC
    /// 4724 §4.2) once all batches queued before have been applied. Ignored unless it is the peer's
    /// present session.
    pub fn peer_down(&mut self, peer: PeerId, session: SessionId, keep: Option<Keep>) {
        if keep.is_none()
            && let Some(known) = self.peers.known(peer)
            && known.handed_over() == Some(session)
        {
            // Queued routes of the session would be withdrawn at once.
            while let Some(PeerInput::Batch(batch)) = known.inputs.back() {
                known.input_octets -= batch.batch.size() as u64;
                known.inputs.pop_back();
            }
        }
        self.queue(peer, PeerInput::Down { session, keep });
    }

    /// The peer no longer forwards packets: the routes that were kept for its restart are withdrawn
    /// within the next turns (RFC 4724 §4.2, RFC 5882 §4.3.2.2). Ignored while it is up.
    pub fn peer_forwarding_lost(&mut self, peer: PeerId) {
        self.queue(peer, PeerInput::ForwardingLost);
    }

    /// Our link-local address on the link of a session has changed: it replaces
    /// [`Negotiated::link_local`], and routes are advertised with it (RFC 2545 §3). Ignored unless it is
    /// the peer's present session.
    pub fn peer_link_local(
        &mut self,
        peer: PeerId,
        session: SessionId,
        link_local: Option<Ipv6Addr>,
    ) {
        self.queue(peer, PeerInput::LinkLocal { session, link_local });
    }

    /// The peer is removed; its id may be reused. Its remaining paths are withdrawn within the next
    /// turns.
    pub fn peer_remove(&mut self, peer: PeerId) {
        self.queue(peer, PeerInput::Remove);
    }

    fn queue(&mut self, id: PeerId, input: PeerInput) {
        if let Some(peer) = self.peers.known(id) {
            peer.inputs.push_back(input);
            self.peers.set_waiting(id);
        }
    }

    /// Processes inputs of peers, round robin.
    pub(super) fn take_inputs(&mut self, now: Time, meter: &mut Meter) {
        // What is due precedes what was queued meanwhile.
        if self.timers_left {
            return;
        }
        let mut blocked = Vec::new();
        while !meter.is_spent()
            && let Some(id) = self.peers.next_waiting()
        {
            let share = meter.left() / (self.peers.waiting_len() + 1);
            let mut part = meter.part(share.max(500));
            match self.take_inputs_of(now, id, &mut part) {
                Taken::Whole => {}
                Taken::InPart => self.peers.set_waiting(id),
                Taken::Waits => blocked.push(id),
            }
            part.spend(1);
            meter.settle(&part);
        }
        blocked.into_iter().for_each(|id| self.peers.set_waiting(id));
    }

    fn take_inputs_of(&mut self, now: Time, id: PeerId, meter: &mut Meter) -> Taken {
        loop {
            let Some(peer) = self.peers.get_mut(id) else { return Taken::Whole };
            let Some(input) = peer.inputs.pop_front() else { return Taken::Whole };
            if meter.is_spent() {
                peer.inputs.push_front(input);
                return Taken::InPart;
            }
            let (taken, back) = self.take_input(now, id, input, meter);
            if let Some(input) = back
                && let Some(peer) = self.peers.get_mut(id)
            {
                peer.inputs.push_front(input);
            }
            if taken != Taken::Whole {
                return taken;
            }
            meter.spend(1);
        }
    }

    /// Processes one input, or returns it to be continued later.
    fn take_input(
        &mut self,
        now: Time,
        id: PeerId,
        input: PeerInput,
        meter: &mut Meter,
    ) -> (Taken, Option<PeerInput>) {
        let Some(peer) = self.peers.get_mut(id) else { return (Taken::Whole, None) };
        let is_passing = [Pass::Withdraw, Pass::Sweep, Pass::Restamp, Pass::LongLived]
            .iter()
            .any(|p| peer.has(*p));
        match input {
            PeerInput::Down { .. } | PeerInput::Remove | PeerInput::ForwardingLost
                if is_passing =>
            {
                return (Taken::Waits, Some(input));
            }
            PeerInput::Add { .. } if !peer.inputs_begin_anew() => {
                return (Taken::Waits, Some(input));
            }
            PeerInput::Add { address, routes } => {
                self.cluster_ids_differ |= routes.reflection.cluster_id.is_some();
                peer.address = address;
                peer.replace_routes(routes);
            }
            PeerInput::Up { session, negotiated } => {
                let readers = self.bring_up(now, id, session, negotiated, meter);
                self.established.push_back(Established { peer: id, session, readers });
            }
            PeerInput::Batch(mut batch) => {
                let octets = batch.batch.size();
                let taken = self.import_some(now, id, &mut batch, meter);
                if taken != Taken::Whole {
                    return (taken, Some(PeerInput::Batch(batch)));
                }
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.input_octets -= octets as u64;
                }
                self.note_octets(id, octets);
            }
            PeerInput::Mirrored { session, message, secs, receipt } => {
                peer.input_octets = peer.input_octets.saturating_sub(message.octets());
                self.monitors.mirrored(id, session, &message, secs);
                drop(receipt);
            }
            PeerInput::Down { session, keep } => {
                let is_present = peer.up == Some(session);
                // Also families of capability 71 alone.
                let is_kept = |f: &Family| keep.is_some_and(|keep| keep.of(*f).is_some());
                let mut kept = Family::ALL.into_iter().filter(is_kept);
                let can_mark = kept.all(|family| self.can_mark(id, family, meter));
                if is_present && !can_mark {
                    return (Taken::Waits, Some(PeerInput::Down { session, keep }));
                }
                if is_present {
                    self.take_down(now, id, keep, meter);
                }
            }
            PeerInput::LinkLocal { session, link_local } => {
                if peer.up == Some(session)
                    && let Some(negotiated) = &mut peer.session
                    && negotiated.link_local != link_local
                {
                    Arc::make_mut(negotiated).link_local = link_local;
                    self.review_export(id);
                }
            }
            PeerInput::ForwardingLost => {
                if peer.up.is_none() {
                    Family::ALL.into_iter().for_each(|family| self.withdraw_stale(id, family));
                }
            }
            PeerInput::Remove => {
                self.take_down(now, id, None, meter);
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.removed = true;
                    self.cluster_ids_differ |= peer.routes.reflection.cluster_id.is_some();
                }
                // Paths of others may have it as next hop: they are no longer at its vantage.
                self.note_facts(id, meter);
                let sources = &mut self.loc_rib.sources;
                self.peers.finish_removal(id, sources, &mut self.imports_before);
                // Further inputs are for another peer with this id.
                let is_gone = self.peers.get(id).is_none_or(|peer| !peer.removed);
                return (if is_gone { Taken::Whole } else { Taken::Waits }, None);
            }
        }
        (Taken::Whole, None)
    }
}

impl Peer {
    /// The session that the next batch to be queued belongs to.
    fn handed_over(&self) -> Option<SessionId> {
        for input in self.inputs.iter().rev() {
            match input {
                PeerInput::Batch(_)
                | PeerInput::Mirrored { .. }
                | PeerInput::ForwardingLost
                | PeerInput::LinkLocal { .. } => {}
                PeerInput::Up { session, .. } => return Some(*session),
                PeerInput::Add { .. } | PeerInput::Down { .. } | PeerInput::Remove => return None,
            }
        }
        self.up
    }

    /// Whether nothing is left of a previous peer with the same id.
    fn inputs_begin_anew(&self) -> bool {
        !self.removed
    }
}
