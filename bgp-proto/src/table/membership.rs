//! Membership of peers in update groups, and the consequences of changed parameters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{CloseReason, Review, Table};
use crate::export::{AddPathSend, Group, GroupKey, LongLived, Reader};
use crate::rib::{DestId, Meter, NextHopId, SourceId};
use crate::session::Negotiated;
use crate::types::{ClusterId, Family, PeerId, PeerType, Time, off_interface};

/// Maximum number of destinations re-exported one by one; beyond it, the whole family is.
const LISTED_MAX: usize = 4096;

impl Table {
    /// The key of the group that a peer belongs to, while its session is up.
    pub(super) fn group_key(&self, id: PeerId, family: Family) -> Option<GroupKey> {
        let peer = self.peers.get(id).filter(|peer| peer.up.is_some())?;
        let session: &Negotiated = peer.session.as_ref()?;
        let internal = session.peer_type == PeerType::Internal;
        let cluster_id = peer.routes.reflection.cluster_id.unwrap_or(self.config.cluster_id);
        let add_path =
            session.add_path_tx.contains(family).then_some(peer.routes.export.add_path_send);
        Some(GroupKey {
            family,
            peer_type: session.peer_type,
            client: internal && peer.routes.reflection.client,
            cluster_id: if internal { cluster_id } else { ClusterId::default() },
            local_asn: session.local_asn,
            role: session.role,
            // As a next hop, without the interface that it has here.
            local_addr: off_interface(session.local_addr).0,
            other_addr: session.other_addr,
            link_local: session
                .link_local
                .filter(|_| family == Family::Ipv6 || session.ipv4_over_ipv6),
            next_hop: peer.routes.export.next_hop,
            ipv4_over_ipv6: family == Family::Ipv4 && session.ipv4_over_ipv6,
            four_octet_as: session.four_octet_as,
            max_len: session.tx_max_len,
            add_path,
            drain: peer.routes.export.drain,
            long_lived: match (self.config.long_lived, session.peer_knows_long_lived()) {
                (false, _) => LongLived::Unused,
                (true, true) => LongLived::Known,
                (true, false) => LongLived::Unknown,
            },
            // With all paths it would decide nothing.
            vantage: self.vantages.of(peer
                .routes
                .vantage
                .as_ref()
                .filter(|_| internal && add_path != Some(AddPathSend::All))),
            sums_bandwidth: add_path.is_none() && peer.routes.export.policy.sums_bandwidth(),
            export: Arc::clone(&peer.routes.export.policy),
        })
    }

    /// A session with this address begins: routes with that next hop are not advertised to this
    /// peer (RFC 4271 §5.1.3). Routes exported before the neighbour was known are re-exported.
    pub(super) fn note_neighbor(&mut self, source: SourceId, address: IpAddr, meter: &mut Meter) {
        let peers = &self.peers;
        let is_up = |other: SourceId| {
            let peer = other.peer().and_then(|id| peers.get(id));
            peer.is_some_and(|peer| peer.up.is_some())
        };
        let hops = self.loc_rib.hops.set_neighbor(source, address, is_up);
        self.export_through(&hops, meter);
    }

    /// Re-exports the routes with these next hops, because what is known of their neighbour changed.
    fn export_through(&mut self, hops: &[NextHopId], meter: &mut Meter) {
        if hops.is_empty() {
            return;
        }
        for family in Family::ALL {
            let dests = self.dests_through(hops, family);
            meter.spend(dests.as_ref().map_or(0, |dests| dests.len() as u32 / 4));
            self.adj_ribs_out.export_again(family, dests.as_deref(), &mut self.loc_rib);
        }
        meter.spend(self.loc_rib.local.len() as u32 / 16);
    }

    /// A neighbour has moved to another vantage: paths of others may have it as next hop.
    pub(super) fn export_moved(&mut self, source: SourceId, meter: &mut Meter) {
        let hops = self.loc_rib.hops.of_neighbor(source);
        self.export_through(&hops, meter);
    }

    /// The destinations that may be exported with one of these next hops; `None` if they are too
    /// many, or unknown because an export policy sets next hops.
    fn dests_through(&self, hops: &[NextHopId], family: Family) -> Option<Vec<DestId>> {
        let rib = &self.loc_rib;
        let mut dests = Vec::new();
        for id in hops {
            dests.extend(rib.hops.dests(*id, family).iter().take(LISTED_MAX + 1).map(DestId));
        }
        let addresses: Vec<IpAddr> =
            hops.iter().filter_map(|id| Some(rib.hops.hop(*id)?.addr())).collect();
        for ((prefix, _), route) in &rib.local {
            let is_through = route.next_hop.is_some_and(|hop| addresses.contains(&hop));
            if prefix.family() == family && is_through {
                dests.extend(rib.dests(family).find(*prefix));
            }
        }
        let sets_next_hop = |group: &Group| group.key.family == family && group.key.sets_next_hop();
        let is_unknown = self.adj_ribs_out.groups.values().any(sets_next_hop);
        (dests.len() <= LISTED_MAX && !is_unknown).then_some(dests)
    }

    /// Adds a peer whose session came up to its group.
    pub(super) fn join_group(&mut self, now: Time, id: PeerId, family: Family) -> Option<Reader> {
        let key = self.group_key(id, family)?;
        let source = self.peers.get(id)?.source;
        let bound = self.config.groups_max;
        if self.adj_ribs_out.groups_with(&key) > bound {
            self.order_close(now, id, CloseReason::TooManyGroups { bound });
            return None;
        }
        self.adj_ribs_out.join(id, source, key, &self.loc_rib)
    }

    pub(super) fn leave_groups(&mut self, id: PeerId) {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return };
        Family::ALL.into_iter().for_each(|family| self.adj_ribs_out.leave(source, family));
    }

    /// Applies changed parameters of peers: what decision and export know about them, the group
    /// that they belong to, and the re-evaluation of their routes.
    pub(super) fn review_changes(&mut self, meter: &mut Meter) {
        if std::mem::take(&mut self.cluster_ids_differ) {
            self.collect_cluster_ids();
        }
        while !meter.is_spent()
            && let Some((id, review)) = self.review_peers.pop_first()
        {
            meter.spend(8);
            self.note_facts(id, meter);
            if review == Review::Import {
                self.reimport(id, meter);
            }
            self.to_regroup.insert(id);
        }
        // All together: those that change in the same way stay in one group.
        if self.review_peers.is_empty() && !self.to_regroup.is_empty() {
            let mut moved = Vec::new();
            for id in std::mem::take(&mut self.to_regroup) {
                let Some(source) = self.peers.get(id).map(|peer| peer.source) else { continue };
                let keys = Family::ALL.into_iter().filter_map(|family| self.group_key(id, family));
                moved.extend(keys.map(|key| (source, key)));
            }
            meter.spend(moved.len() as u32 * 4);
            self.adj_ribs_out.regroup(moved, &mut self.loc_rib);
        }
    }

    /// Collects every cluster id of ours. If they changed, routes of internal peers are
    /// re-evaluated.
    pub(super) fn collect_cluster_ids(&mut self) {
        let of_peers = self.peers.iter().filter(|peer| !peer.removed);
        let mut ours: BTreeSet<ClusterId> =
            of_peers.filter_map(|peer| peer.routes.reflection.cluster_id).collect();
        ours.insert(self.config.cluster_id);
        if ours == self.cluster_ids {
            return;
        }
        self.cluster_ids = ours;
        let is_internal = |session: &Arc<Negotiated>| session.peer_type == PeerType::Internal;
        let internal = self.peers.iter().filter(|p| p.session.as_ref().is_some_and(is_internal));
        let ids: Vec<PeerId> = internal.filter_map(|peer| peer.source.peer()).collect();
        self.review_peers.extend(ids.into_iter().map(|id| (id, Review::Import)));
    }
}
