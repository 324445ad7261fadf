//! Peers coming and going: sessions, graceful restart, enhanced refresh, deadlines.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::peer::{CloseOrder, Peer};
use super::{CLOSE_AGAIN, CloseReason, PeerRoutes, Table, TableEvent};
use crate::export::Reader;
use crate::rib::{DestId, PathFlags, SourceFacts, SourceId};
use crate::session::{Keep, Negotiated};
use crate::types::{Family, FamilySet, PeerId, PeerType, RouterId, SessionId, Time, Timer};

/// After BoRR, routes wait so long for EoRR before they are withdrawn (RFC 7313 §4).
const REFRESH_TIME: Duration = Duration::from_secs(600);

impl Table {
    /// See [`Table::peer_add`].
    pub(super) fn add_peer(&mut self, id: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        let Some(source) = SourceId::peer_id(id) else {
            self.note(format!("{}: no more than 65532 peers; it is left out", routes.name));
            return;
        };
        // The id is used again before the last that had it was forgotten.
        self.finish_withdrawal(id);
        if self.peers.len() <= id.index() {
            self.peers.resize_with(id.index() + 1, || None);
        }
        self.peers[id.index()] = Some(Peer::new(source, address, routes));
    }

    /// See [`Table::peer_up`].
    pub(super) fn bring_up(
        &mut self,
        now: Time,
        id: PeerId,
        number: SessionId,
        session: Arc<Negotiated>,
    ) -> Vec<Reader> {
        let Some(peer) = self.peer_mut(id) else { return Vec::new() };
        let was_up = peer.up.replace(number).is_some();
        peer.close = None;
        peer.session = Some(Arc::clone(&session));
        if peer.stale_timer.deadline().is_some() {
            // It is among `timed` since the timer was set first.
            peer.stale_timer.set(now + peer.routes.stale_time);
        }
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.limited = false;
            held.warned = false;
            held.refresh_timer.stop();
        }
        if was_up {
            self.leave_groups(id);
        }
        self.note_facts(id);
        let kept = kept_families(&session);
        for family in Family::ALL {
            match kept.contains(family) {
                true => {}
                false if was_up => self.sweep(id, family, PathFlags::STALE),
                false => self.withdraw_stale(id, family),
            }
        }
        session.families.iter().filter_map(|family| self.join_group(id, family)).collect()
    }

    /// Tells decision and export what they need of the peer. If that changed, its routes are looked
    /// at again.
    pub(super) fn note_facts(&mut self, id: PeerId) {
        let Some(peer) = self.peer(id) else { return };
        let session = peer.session.as_ref();
        let facts = SourceFacts {
            address: peer.address,
            router_id: session.map_or(RouterId::default(), |s| s.peer_router_id),
            peer_type: session.map_or(PeerType::External, |s| s.peer_type),
            local_asn: session.map_or(self.config.asn, |s| s.local_asn),
            client: peer.routes.route_reflector_client,
            cluster_id: peer.routes.cluster_id.unwrap_or(self.config.cluster_id),
        };
        let source = peer.source;
        if self.sources.get(source) == Some(&facts) {
            return;
        }
        self.sources.set(source, facts);
        for family in Family::ALL {
            for dest in self.held_dests(id, family) {
                let rib = self.rib_mut(family);
                rib.dests.touch_best(dest);
                rib.touched.insert(dest.0);
            }
        }
    }

    /// See [`Table::peer_down`].
    pub(super) fn take_down(&mut self, now: Time, id: PeerId, keep: Option<Keep>) {
        let Some(peer) = self.peer_mut(id) else { return };
        (peer.up, peer.close, peer.unreviewed) = (None, None, 0);
        peer.stale_timer.stop();
        let families = keep.map_or(FamilySet::EMPTY, |keep| keep.families);
        self.leave_groups(id);
        for family in Family::ALL {
            if families.contains(family) {
                // RFC 4724 §4.2: what was stale already does not live through a second restart.
                self.sweep(id, family, PathFlags::STALE);
                self.mark(id, family, PathFlags::STALE);
            } else {
                self.begin_withdrawal(id, family);
            }
            let Some(peer) = self.peer_mut(id) else { return };
            let held = peer.family_mut(family);
            held.refresh_timer.stop();
            if held.dests.is_empty() {
                continue;
            }
            held.stale = true;
            if let Some(keep) = keep {
                peer.stale_timer.set(now + keep.restart_time);
                self.timed.insert(id);
            }
        }
    }

    /// See [`Table::peer_remove`].
    pub(super) fn remove_peer(&mut self, now: Time, id: PeerId) {
        self.take_down(now, id, None);
        if let Some(peer) = self.peer_mut(id) {
            peer.removed = true;
        }
        if !self.withdrawing.contains(&id) {
            self.finish_removal(id);
        }
    }

    /// Forgets a peer that was removed and of which nothing is left.
    pub(super) fn finish_removal(&mut self, id: PeerId) {
        let Some(slot) = self.peers.get_mut(id.index()) else { return };
        if let Some(peer) = slot.take_if(|peer| peer.removed) {
            for family in Family::ALL {
                self.imports_before[family].add(&peer.family(family).imports);
            }
            self.sources.remove(peer.source);
        }
    }

    /// See [`Table::peer_configure`].
    pub(super) fn reconfigure_peer(&mut self, id: PeerId, routes: Arc<PeerRoutes>) {
        let Some(peer) = self.peer_mut(id) else { return };
        let before = std::mem::replace(&mut peer.routes, Arc::clone(&routes));
        let bounded = routes.prefixes_max;
        for family in Family::ALL {
            let held = peer.family_mut(family);
            held.limited &= bounded.is_some_and(|bound| held.received >= bound);
        }
        if peer.session.is_none() {
            return;
        }
        self.note_facts(id);
        let import_differs = before.import != routes.import
            || before.allow_local_asn != routes.allow_local_asn
            || before.cluster_id != routes.cluster_id
            || before.honour_graceful_shutdown != routes.honour_graceful_shutdown;
        if import_differs {
            self.reimport(id);
        }
        self.regroup.insert(id);
    }

    /// Destinations that hold a path of the peer.
    pub(super) fn held_dests(&self, id: PeerId, family: Family) -> Vec<DestId> {
        let peer = self.peer(id);
        peer.map_or(Vec::new(), |peer| peer.family(family).dests.iter().map(DestId).collect())
    }

    /// See [`Table::depends_on`].
    pub(super) fn has_sole_dests(&self, peers: &BTreeSet<PeerId>) -> bool {
        let is_theirs = |source: SourceId| source.peer().is_some_and(|p| peers.contains(&p));
        let is_sole = |family: Family, dest: DestId| {
            let paths = self.rib(family).dests.paths(dest);
            let mut usable = paths.iter().filter(|p| self.sources.is_usable(p, &self.hops));
            let has_usable = usable.clone().next().is_some();
            has_usable && usable.all(|path| is_theirs(path.source))
        };
        peers.iter().any(|peer| {
            Family::ALL.into_iter().any(|family| {
                self.held_dests(*peer, family).into_iter().any(|dest| is_sole(family, dest))
            })
        })
    }

    /// Lets a family's stale routes go where the peer has sent nothing since: they are all it holds.
    fn withdraw_stale(&mut self, id: PeerId, family: Family) {
        if self.peer(id).is_some_and(|peer| peer.family(family).stale) {
            self.begin_withdrawal(id, family);
            self.stop_stale_timer(id);
        }
    }

    /// Withdraws the peer's paths that carry a mark.
    fn sweep(&mut self, id: PeerId, family: Family, mark: PathFlags) {
        self.take_out_if(id, family, |flags| flags.has(mark));
        let Some(peer) = self.peer_mut(id) else { return };
        let held = peer.family_mut(family);
        if mark == PathFlags::STALE {
            held.stale = false;
        } else {
            held.refresh_timer.stop();
        }
        self.stop_stale_timer(id);
    }

    /// Nothing that is stale, nothing to wait for.
    fn stop_stale_timer(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        if Family::ALL.into_iter().all(|family| !peer.family(family).stale) {
            peer.stale_timer.stop();
        }
    }

    fn take_out_if(&mut self, id: PeerId, family: Family, condition: impl Fn(PathFlags) -> bool) {
        let Some(source) = self.peer(id).map(|peer| peer.source) else { return };
        for dest in self.held_dests(id, family) {
            loop {
                let paths = self.rib(family).dests.paths(dest);
                let found = paths.iter().position(|p| p.source == source && condition(p.flags));
                let Some(at) = found else { break };
                self.take_out(id, family, dest, at);
            }
        }
    }

    fn mark(&mut self, id: PeerId, family: Family, mark: PathFlags) {
        let Some(source) = self.peer(id).map(|peer| peer.source) else { return };
        for dest in self.held_dests(id, family) {
            let paths = self.rib_mut(family).dests.paths_mut(dest);
            paths.iter_mut().filter(|p| p.source == source).for_each(|p| p.flags.set(mark));
        }
    }

    /// End-of-RIB: what the peer did not send again is gone (RFC 4724 §4.2).
    pub(super) fn sweep_stale(&mut self, id: PeerId, family: Family) {
        if self.peer(id).is_some_and(|peer| peer.family(family).stale) {
            self.sweep(id, family, PathFlags::STALE);
        }
    }

    /// BoRR: what does not come again before EoRR will be gone (RFC 7313 §4).
    pub(super) fn mark_unrefreshed(&mut self, now: Time, id: PeerId, family: Family) {
        let Some(peer) = self.peer_mut(id) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|session| session.enhanced_refresh);
        let held = peer.family_mut(family);
        // RFC 7313 §4: before the End-of-RIB of a restarted peer, BoRR means nothing.
        if !enhanced || held.stale {
            return;
        }
        held.refresh_timer.set(now + REFRESH_TIME);
        self.timed.insert(id);
        self.mark(id, family, PathFlags::UNREFRESHED);
    }

    /// EoRR.
    pub(super) fn sweep_unrefreshed(&mut self, id: PeerId, family: Family) {
        let refreshing = self
            .peer(id)
            .is_some_and(|peer| peer.family(family).refresh_timer.deadline().is_some());
        if refreshing {
            self.sweep(id, family, PathFlags::UNREFRESHED);
        }
    }

    /// Asks the host to close the present session of a peer, unless it was asked already.
    pub(super) fn order_close(&mut self, now: Time, id: PeerId, reason: CloseReason) {
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.up.is_some() && peer.close.is_none() {
            peer.close = Some(CloseOrder { reason, again: Timer::stopped() });
            self.timed.insert(id);
            self.give_close_order(now, id);
        }
    }

    fn give_close_order(&mut self, now: Time, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        if let (Some(session), Some(order)) = (peer.up, &mut peer.close) {
            order.again.set(now + CLOSE_AGAIN);
            let reason = order.reason;
            self.events.push_back(TableEvent::Close { peer: id, session, reason });
        }
    }

    /// See [`Table::handle_timeout`].
    pub(super) fn expire(&mut self, now: Time) {
        let timed: Vec<PeerId> = self.timed.iter().copied().collect();
        for id in timed {
            let Some(peer) = self.peer_mut(id) else { continue };
            let (up, stale) = (peer.up.is_some(), peer.stale_timer.expired(now));
            let again = peer.close.as_mut().is_some_and(|order| order.again.expired(now));
            let refreshes = Family::ALL.map(|f| (f, peer.family_mut(f).refresh_timer.expired(now)));
            for (family, refresh) in refreshes {
                match up {
                    _ if !stale => {}
                    true => self.sweep(id, family, PathFlags::STALE),
                    false => self.withdraw_stale(id, family),
                }
                if refresh {
                    self.sweep(id, family, PathFlags::UNREFRESHED);
                }
            }
            if again {
                self.give_close_order(now, id);
            }
        }
    }

    /// Forgets which peers had a deadline and have none.
    pub(super) fn review_timed(&mut self) {
        let peers = &self.peers;
        self.timed.retain(|id| {
            let peer = peers.get(id.index()).and_then(Option::as_ref);
            peer.is_some_and(|peer| peer.deadlines().next().is_some())
        });
    }
}

/// Families whose stale routes live on when the session comes back (RFC 4724 §4.2): the peer says
/// that it still forwards.
fn kept_families(session: &Negotiated) -> FamilySet {
    let restart = session.graceful_restart.iter().flat_map(|restart| &restart.families);
    restart
        .filter(|family| family.forwarding)
        .filter_map(|family| Family::try_from(family.family).ok())
        .filter(|family| session.families.contains(*family))
        .collect()
}
