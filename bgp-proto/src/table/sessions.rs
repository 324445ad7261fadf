//! Sessions of peers: establishment, end, graceful restart, enhanced refresh, timers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::peer::{CloseOrder, Pass, PeerInput};
use super::{CLOSE_AGAIN, CloseReason, PeerRoutes, ReflectionParams, Returned, Table, TableEvent};
use crate::export::{Reader, ResyncEnd};
use crate::rib::{Meter, SourceFacts, SourceId};
use crate::session::{Keep, Negotiated};
use crate::types::{Family, FamilySet, PeerId, PeerType, RouterId, SessionId, Time, Timer};

/// How long after BoRR routes wait for EoRR before they are withdrawn (RFC 7313 §4).
const REFRESH_TIME: Duration = Duration::from_secs(600);

/// Work of finding the group of a peer, or of creating one.
const WORK_JOIN: u32 = 60;

impl Table {
    pub(super) fn bring_up(
        &mut self,
        now: Time,
        id: PeerId,
        number: SessionId,
        session: Arc<Negotiated>,
        meter: &mut Meter,
    ) -> Vec<Reader> {
        let Some(peer) = self.peers.get_mut(id) else { return Vec::new() };
        let was_up = peer.up.replace(number).is_some();
        peer.close = None;
        peer.session = Some(Arc::clone(&session));
        if peer.stale_timer.deadline().is_some() {
            // The peer is in `timed` already, since the timer was first set.
            let at = now + peer.routes.stale_time;
            peer.stale_timer.set(peer.stale_until.map_or(at, |until| at.min(until)));
        }
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.limited = false;
            held.warned = false;
            held.refresh_timer.stop();
        }
        let source = peer.source;
        if was_up {
            self.leave_groups(id);
        }
        self.note_neighbor(source, session.remote_addr, meter);
        self.note_facts(id, meter);
        let kept = kept_families(&session);
        for family in Family::ALL {
            match kept.contains(family) {
                true => {}
                false if was_up => self.begin_sweep(id, family, meter),
                false => self.withdraw_stale(id, family),
            }
        }
        let families: Vec<Family> = session.families.iter().collect();
        meter.spend(WORK_JOIN * families.len() as u32);
        let readers = families.into_iter().filter_map(|family| self.join_group(now, id, family));
        readers.collect()
    }

    /// Records what decision and export need to know about the peer. If that changed, its
    /// destinations are decided again.
    pub(super) fn note_facts(&mut self, id: PeerId, meter: &mut Meter) {
        let Some(peer) = self.peers.get(id) else { return };
        let session = peer.session.as_ref();
        let facts = SourceFacts {
            address: peer.address,
            router_id: session.map_or(RouterId::default(), |s| s.peer_router_id),
            peer_type: session.map_or(PeerType::External, |s| s.peer_type),
            local_asn: session.map_or(self.config.asn, |s| s.local_asn),
            client: peer.routes.reflection.client,
            cluster_id: peer.routes.reflection.cluster_id.unwrap_or(self.config.cluster_id),
        };
        let source = peer.source;
        if self.loc_rib.sources.get(source) == Some(&facts) {
            return;
        }
        self.loc_rib.sources.set(source, facts);
        Family::ALL.into_iter().for_each(|family| self.begin_pass(id, family, Pass::Touch, meter));
    }

    pub(super) fn take_down(
        &mut self,
        now: Time,
        id: PeerId,
        keep: Option<Keep>,
        meter: &mut Meter,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        (peer.up, peer.close, peer.unreviewed) = (None, None, 0);
        let families = keep.map_or(FamilySet::EMPTY, |keep| keep.families);
        let both_notify = peer.session.as_ref().is_some_and(|session| {
            session.graceful_restart.as_ref().is_some_and(|restart| restart.notification)
        });
        self.leave_groups(id);
        for family in Family::ALL {
            if families.contains(family) {
                self.keep_as_stale(id, family, both_notify, meter);
            } else {
                self.begin_withdrawal(id, family);
            }
            if let Some(peer) = self.peers.get_mut(id) {
                peer.family_mut(family).refresh_timer.stop();
            }
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let keeps_any = Family::ALL.into_iter().any(|family| peer.family(family).stale);
        match keep.filter(|_| keeps_any) {
            Some(keep) => {
                // The peer says how long it takes to restart; we limit how long routes are used
                // that no session confirms.
                let away = keep.restart_time.min(peer.routes.stale_time);
                let first = now + away + peer.routes.stale_time;
                let until = *peer.stale_until.get_or_insert(first);
                peer.stale_timer.set((now + away).min(until));
                self.peers.set_timed(id);
            }
            None => {
                peer.stale_timer.stop();
                peer.stale_until = None;
            }
        }
    }

    /// Keeps the routes of a family as stale. Routes that are stale already are not kept across a
    /// second restart (RFC 4724 §4.2), unless both sides set the N bit (RFC 8538 §4.1).
    fn keep_as_stale(&mut self, id: PeerId, family: Family, both_notify: bool, meter: &mut Meter) {
        let Some(peer) = self.peers.get(id) else { return };
        let held = peer.family(family);
        let is_swept = held.stale && !both_notify;
        let kept = held.received - if is_swept { held.marks.old } else { 0 };
        if is_swept {
            self.begin_sweep(id, family, meter);
        }
        self.mark(id, family);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.family_mut(family).stale = kept > 0;
        }
    }

    /// Makes everything that is held not fresh. The caller has checked that the mark has room.
    fn mark(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let held = peer.family_mut(family);
        let has_room = held.marks.advance(held.received);
        debug_assert!(has_room, "inputs wait for a restamping");
    }

    /// Whether a mark has room. If not, begins the pass that makes room.
    pub(super) fn can_mark(&mut self, id: PeerId, family: Family, meter: &mut Meter) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return true };
        let held = peer.family_mut(family);
        if held.marks.has_room(held.received) {
            return true;
        }
        if held.pass(Pass::Restamp).is_empty() {
            self.begin_pass(id, family, Pass::Restamp, meter);
        }
        false
    }

    /// New routing parameters for a peer: import is re-evaluated from what it sent, within the next
    /// turns; export is compared with what it was sent; the session is not touched.
    pub fn peer_configure(&mut self, peer: PeerId, routes: Arc<PeerRoutes>) {
        let id = peer;
        let Some(peer) = self.peers.known(id) else { return };
        // A peer that waits for the id to become free has parameters of its own.
        let waiting = peer.inputs.iter_mut().rev().find_map(|input| match input {
            PeerInput::Add { routes, .. } => Some(routes),
            _ => None,
        });
        if let Some(waiting) = waiting {
            *waiting = routes;
            return;
        }
        let before = std::mem::replace(&mut peer.routes, Arc::clone(&routes));
        // All peers may be configured at once because the parameters of one have changed.
        if Arc::ptr_eq(&before, &routes) {
            return;
        }
        // What is not compared is read when it applies. `export` and `client` are compared by the
        // review, with the group's key and the facts of the source.
        let PeerRoutes { name: _, import, export: _, reflection, limits: _, stale_time: _ } =
            &*before;
        let ReflectionParams { client: _, cluster_id } = *reflection;
        let cluster_id_differs = cluster_id != routes.reflection.cluster_id;
        self.cluster_ids_differ |= cluster_id_differs;
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.limited &= routes.limits.prefixes_max.is_some_and(|bound| held.counted() >= bound);
        }
        if peer.session.is_none() {
            return;
        }
        let import_differs = *import != routes.import || cluster_id_differs;
        let review = if import_differs { Review::Import } else { Review::Export };
        // An earlier review may still be pending, and may cover more than this one.
        let noted = self.review_peers.entry(id).or_insert(review);
        *noted = review.max(*noted);
    }

    /// Withdraws a family's stale routes while the peer has sent nothing since: they are all that
    /// it holds.
    pub(super) fn withdraw_stale(&mut self, id: PeerId, family: Family) {
        if self.peers.get(id).is_some_and(|peer| peer.family(family).stale) {
            self.begin_withdrawal(id, family);
            self.stop_stale_timer(id);
        }
    }

    /// Stops the stale timer unless a family still has stale routes.
    pub(super) fn stop_stale_timer(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if Family::ALL.into_iter().all(|family| !peer.family(family).stale) {
            peer.stale_timer.stop();
            peer.stale_until = None;
        }
    }

    /// End-of-RIB: withdraws what the peer did not announce again (RFC 4724 §4.2).
    pub(super) fn sweep_stale(&mut self, id: PeerId, family: Family, meter: &mut Meter) {
        if self.peers.get(id).is_some_and(|peer| peer.family(family).stale) {
            self.begin_sweep(id, family, meter);
        }
    }

    /// BoRR: what is not announced again before EoRR will be withdrawn (RFC 7313 §4). Returns false
    /// if it has to wait.
    pub(super) fn begin_peer_refresh(
        &mut self,
        now: Time,
        id: PeerId,
        family: Family,
        meter: &mut Meter,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return true };
        let enhanced = peer.session.as_ref().is_some_and(|session| session.enhanced_refresh);
        let held = peer.family_mut(family);
        // RFC 7313 §4: before the End-of-RIB of a restarted peer, BoRR is ignored.
        if !enhanced || held.stale {
            return true;
        }
        if !self.can_mark(id, family, meter) {
            return false;
        }
        if let Some(peer) = self.peers.get_mut(id) {
            peer.family_mut(family).refresh_timer.set(now + REFRESH_TIME);
        }
        self.peers.set_timed(id);
        self.mark(id, family);
        true
    }

    /// EoRR: withdraws what was not announced again since BoRR (RFC 7313 §4).
    pub(super) fn end_peer_refresh(&mut self, id: PeerId, family: Family, meter: &mut Meter) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.family(family).refresh_timer.deadline().is_some() {
            self.begin_sweep(id, family, meter);
        }
    }

    /// A peer requested a route refresh (RFC 2918, RFC 7313).
    pub(super) fn refresh(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get(id) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|session| session.enhanced_refresh);
        let end = if enhanced { ResyncEnd::Refresh } else { ResyncEnd::Nothing };
        self.adj_ribs_out.refresh(peer.source, family, end, &self.loc_rib);
    }

    /// Asks the host to close the present session of a peer, unless it was asked already.
    pub(super) fn order_close(&mut self, now: Time, id: PeerId, reason: CloseReason) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.up.is_some() && peer.close.is_none() {
            peer.close = Some(CloseOrder { reason, again: Timer::stopped() });
            self.peers.set_timed(id);
            self.give_close_order(now, id);
        }
    }

    fn give_close_order(&mut self, now: Time, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let (Some(session), Some(order)) = (peer.up, &mut peer.close) {
            order.again.set(now + CLOSE_AGAIN);
            let reason = order.reason;
            self.events.push_back(TableEvent::Close { peer: id, session, reason });
        }
    }

    /// Handles expired timers.
    pub(super) fn expire(&mut self, now: Time, meter: &mut Meter) {
        if self.peers.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for id in self.peers.timed() {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let (up, stale) = (peer.up.is_some(), peer.stale_timer.expired(now));
            let again = peer.close.as_mut().is_some_and(|order| order.again.expired(now));
            let refreshes = Family::ALL.map(|f| (f, peer.family_mut(f).refresh_timer.expired(now)));
            for (family, refresh) in refreshes {
                if stale {
                    self.note_stale_removal(id, family);
                }
                if stale && up {
                    self.sweep_stale(id, family, meter);
                } else if stale {
                    self.withdraw_stale(id, family);
                }
                if refresh {
                    self.begin_sweep(id, family, meter);
                }
            }
            if again {
                self.give_close_order(now, id);
            }
        }
    }

    /// Reports that stale routes of a peer are about to be withdrawn, if there are any.
    fn note_stale_removal(&mut self, peer: PeerId, family: Family) {
        let Some(record) = self.peers.get(peer) else { return };
        let held = record.family(family);
        let count = held.marks.old;
        if held.stale && count > 0 {
            let returned = if record.up.is_some() { Returned::Yes } else { Returned::No };
            self.events.push_back(TableEvent::StaleRemoved { peer, family, count, returned });
        }
    }

    /// Whether some destination would have no usable path without those of these peers. Examines a
    /// bounded number of destinations from `cursor` (0 to begin) on.
    pub fn depends_on(&self, peers: &BTreeSet<PeerId>, cursor: u64) -> Dependence {
        let is_theirs = |source: SourceId| source.peer().is_some_and(|p| peers.contains(&p));
        let (family, at) = match cursor >> 32 {
            0 => (Family::Ipv4, cursor as u32),
            _ => (Family::Ipv6, cursor as u32),
        };
        match self.loc_rib.sole_dests(family, at, DEPENDENCE_DESTS, is_theirs) {
            Ok(()) => Dependence::Yes,
            Err(Some(next)) => Dependence::NotUpTo(cursor >> 32 << 32 | u64::from(next)),
            Err(None) if family == Family::Ipv4 => Dependence::NotUpTo(1 << 32),
            Err(None) => Dependence::No,
        }
    }
}

/// Destinations examined by one call of [`Table::depends_on`].
const DEPENDENCE_DESTS: u32 = 1 << 15;

/// The result of [`Table::depends_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// At least one destination would.
    Yes,
    /// None would.
    No,
    /// None up to this cursor: continue from there.
    NotUpTo(u64),
}

/// What to review of a peer after its parameters changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Review {
    /// Which groups it belongs to, and what decision and export know about it.
    Export,
    /// That, and the import of its routes.
    Import,
}

/// Families whose stale routes are kept when the session comes back (RFC 4724 §4.2): those for
/// which the peer set the Forwarding State bit.
fn kept_families(session: &Negotiated) -> FamilySet {
    let restart = session.graceful_restart.iter().flat_map(|restart| &restart.families);
    restart
        .filter(|family| family.forwarding)
        .filter_map(|family| Family::try_from(family.family).ok())
        .filter(|family| session.families.contains(*family))
        .collect()
}
