//! Sessions of peers: establishment, end, graceful restart, enhanced refresh, timers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::peer::{CloseOrder, Pass, PeerInput};
use super::retention::{Preserved, Step, Terms};
use super::{CLOSE_AGAIN, CloseReason, PeerRoutes, ReflectionParams, Returned, Table, TableEvent};
use crate::export::{Reader, ResyncEnd};
use crate::rib::{Meter, SourceFacts, SourceId};
use crate::session::{Keep, Negotiated};
use crate::types::{Family, PeerId, PeerType, RouterId, SessionId, Time, Timer};

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
        for family in Family::ALL {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let (stale_time, preserved) = (peer.routes.stale_time, preserved(&session, family));
            // The peer is in `timed` already, since a timer was first set.
            let retention = &mut peer.family_mut(family).retention;
            let before = retention.phase();
            let step = retention.returned(now, stale_time, preserved);
            // It may have announced some of them again.
            let is_swept = step == Step::Withdraw || !retention.is_stale() && !preserved.restart;
            if step == Step::Withdraw {
                self.note_stale_removal(id, family, before, Returned::Unpreserved);
            }
            match was_up && is_swept {
                true => self.begin_sweep(id, family, meter),
                false => self.apply_step(now, id, family, step, meter),
            }
        }
        self.monitors.peer_up(id, number, self.peers.get(id).map_or("", |peer| &peer.routes.name));
        let families: Vec<Family> = session.families.iter().collect();
        meter.spend(WORK_JOIN * families.len() as u32);
        let readers = families.into_iter().filter_map(|family| self.join_group(now, id, family));
        readers.collect()
    }

    /// Records what decision and export need to know about the peer. If that changed, its
    /// destinations are decided again.
    pub(super) fn note_facts(&mut self, id: PeerId, meter: &mut Meter) {
        let Some(peer) = self.peers.get(id) else { return };
        // A neighbour's address is known since its first session, and forgotten with it.
        let is_known = peer.session.is_some() && !peer.removed;
        let name = peer.routes.vantage.clone().filter(|_| is_known);
        let vantage = name.and_then(|name| self.vantage_id(&name));
        let Some(peer) = self.peers.get(id) else { return };
        let session = peer.session.as_ref();
        let facts = SourceFacts {
            address: peer.address,
            router_id: session.map_or(RouterId::default(), |s| s.peer_router_id),
            peer_type: session.map_or(PeerType::External, |s| s.peer_type),
            local_asn: session.map_or(self.config.asn, |s| s.local_asn),
            client: peer.routes.reflection.client,
            cluster_id: peer.routes.reflection.cluster_id.unwrap_or(self.config.cluster_id),
            vantage,
        };
        let source = peer.source;
        let before = self.loc_rib.sources.get(source).copied();
        if before == Some(facts) {
            return;
        }
        self.loc_rib.sources.set(source, facts);
        let left = before.and_then(|facts| facts.vantage);
        if left != vantage {
            if left.is_some() {
                self.vantages.note_leaving();
            }
            self.export_moved(source, meter);
        }
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
        self.monitors.peer_down(id);
        let both_notify = peer.session.as_ref().is_some_and(|session| {
            session.graceful_restart.as_ref().is_some_and(|restart| restart.notification)
        });
        let stale_time = peer.routes.stale_time;
        self.leave_groups(id);
        for family in Family::ALL {
            let terms = keep.and_then(|keep| keep.of(family)).map(|(restart, long_lived)| Terms {
                restart,
                long_lived,
                both_notify,
                stale_time,
            });
            self.keep_or_withdraw(now, id, family, terms, meter);
            if let Some(peer) = self.peers.get_mut(id) {
                peer.family_mut(family).refresh_timer.stop();
            }
        }
        self.peers.set_timed(id);
    }

    /// Makes everything that is held not fresh. The caller has checked that the mark has room.
    pub(super) fn mark(&mut self, id: PeerId, family: Family) {
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
        let before = peer.replace_routes(Arc::clone(&routes));
        // All peers may be configured at once because the parameters of one have changed.
        if Arc::ptr_eq(&before, &routes) {
            return;
        }
        // What is not compared is read when it applies. `export`, `client` and `vantage` are compared by
        // the review, with the group's key and the facts of the source.
        let PeerRoutes {
            name: _,
            import,
            export: _,
            reflection,
            vantage: _,
            limits: _,
            stale_time: _,
        } = &*before;
        let ReflectionParams { client: _, cluster_id } = *reflection;
        let cluster_id_differs = cluster_id != routes.reflection.cluster_id;
        self.cluster_ids_differ |= cluster_id_differs;
        let is_up = peer.session.is_some();
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.limited &= routes.limits.prefixes_max.is_some_and(|bound| held.counted() >= bound);
            if before.limits == routes.limits {
                continue;
            }
            // Otherwise a lowered limit would be silent until the next prefix, which may end the session.
            let limit = routes.limits.prefixes_max.zip(routes.limits.warning_at());
            let passed = limit.filter(|(_, warning)| held.counted() >= *warning);
            held.warned = passed.is_some();
            if let Some((bound, _)) = passed.filter(|_| is_up) {
                let count = held.counted();
                self.events.push_back(TableEvent::PrefixWarning { peer: id, family, count, bound });
            }
        }
        if peer.session.is_none() {
            return;
        }
        let import_differs = *import != routes.import || cluster_id_differs;
        self.review(id, if import_differs { Review::Import } else { Review::Export });
    }

    /// What a peer is sent may differ: the group that it belongs to.
    pub(super) fn review_export(&mut self, id: PeerId) {
        self.review(id, Review::Export);
    }

    fn review(&mut self, id: PeerId, review: Review) {
        // An earlier review may still be pending, and may cover more than this one.
        let noted = self.review_peers.entry(id).or_insert(review);
        *noted = review.max(*noted);
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
        if !enhanced || held.retention.is_stale() {
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
        self.timers_left = false;
        if self.peers.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for id in self.peers.timed() {
            // Each copies a set of destinations: those of many peers may be due together.
            if meter.is_spent() {
                self.timers_left = true;
                return;
            }
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let again = peer.close.as_mut().is_some_and(|order| order.again.expired(now));
            let refreshes = Family::ALL.map(|f| (f, peer.family_mut(f).refresh_timer.expired(now)));
            for (family, refresh) in refreshes {
                self.expire_stale(now, id, family, meter);
                if refresh {
                    self.begin_sweep(id, family, meter);
                }
            }
            if again {
                self.give_close_order(now, id);
            }
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

/// The families for which the peer set the Forwarding State bit (RFC 4724 §4.2, RFC 9494 §4.2).
fn preserved(session: &Negotiated, family: Family) -> Preserved {
    let pair = family.afi_safi();
    let is_negotiated = session.families.contains(family);
    let restart = session.graceful_restart.iter().flat_map(|restart| &restart.families);
    let long_lived = session.long_lived.iter().flatten();
    Preserved {
        restart: is_negotiated && restart.filter(|f| f.forwarding).any(|f| f.family == pair),
        long_lived: is_negotiated && long_lived.filter(|f| f.forwarding).any(|f| f.family == pair),
    }
}
