//! Peers in update groups: joining, moving, leaving, and the turn of the groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::peer::Membership;
use super::{Export, Table, TableEvent};
use crate::export::{
    CoveredRanges, ExportState, Group, GroupKey, Log, MemberEvent, MemberKey, Reader, Resync,
    ResyncEnd, Version,
};
use crate::rib::SourceId;
use crate::types::{ClusterId, Family, PeerId, PeerType};

/// Notes that may wait for the host; more are dropped.
const NOTES_MAX: usize = 64;

impl Table {
    /// Every change that was decided is at or before this.
    pub(super) fn version(&self) -> Version {
        u64::from(self.epoch) << 32 | u64::from(self.generation)
    }

    /// The parts of the table that export works on, and the groups beside them.
    pub(super) fn export_parts(
        &mut self,
        family: Family,
    ) -> (ExportState<'_>, &mut BTreeMap<u32, Group>) {
        let version = self.version();
        let state = ExportState {
            dests: &mut self.ribs[family.index()].dests,
            attrs: &mut self.attrs,
            hops: &mut self.hops,
            outs: &mut self.outs,
            sources: &self.sources,
            own: &self.own,
            version,
            notes: &mut self.notes,
            batch: &mut self.batch,
        };
        (state, &mut self.groups)
    }

    /// The key of the group that a peer belongs to, while its session is up.
    pub(super) fn group_key(&self, id: PeerId, family: Family) -> Option<GroupKey> {
        let peer = self.peer(id).filter(|peer| peer.up.is_some())?;
        let session = peer.session.as_ref()?;
        let internal = session.peer_type == PeerType::Internal;
        let cluster_id = peer.routes.cluster_id.unwrap_or(self.config.cluster_id);
        Some(GroupKey {
            family,
            peer_type: session.peer_type,
            client: internal && peer.routes.route_reflector_client,
            cluster_id: if internal { cluster_id } else { ClusterId::default() },
            local_asn: session.local_asn,
            role: session.role,
            local_addr: session.local_addr,
            other_addr: session.other_addr,
            next_hop: peer.routes.next_hop,
            ipv4_over_ipv6: family == Family::Ipv4 && session.ipv4_over_ipv6,
            four_octet_as: session.four_octet_as,
            max_len: session.tx_max_len,
            add_path: session.add_path_tx.contains(family).then_some(peer.routes.add_path_send),
            export: Arc::clone(&peer.routes.export),
        })
    }

    fn next_member_key(&mut self) -> MemberKey {
        self.next_member += 1;
        MemberKey(self.next_member)
    }

    fn next_group_id(&mut self) -> u32 {
        self.next_group += 1;
        self.next_group
    }

    /// Puts a peer whose session came up into its group.
    pub(super) fn join_group(&mut self, id: PeerId, family: Family) -> Option<Reader> {
        let key = self.group_key(id, family)?;
        let source = self.peer(id)?.source;
        let found = self.groups.values().find(|group| group.key.matches(&key));
        let group = match found.map(|group| group.id) {
            Some(group) => group,
            None => {
                let group = self.next_group_id();
                let bytes_max = self.config.log_bytes_max;
                let log = Log::new(bytes_max, self.waker.clone());
                // Whoever joins is walked for from the beginning, so nothing counts as changed.
                let made =
                    Group::new(group, key, log, (bytes_max, self.seed), &self.rib(family).dests, 0);
                self.groups.insert(group, made);
                group
            }
        };
        let member = self.next_member_key();
        let resync = Resync {
            announce_since: 0,
            withdraw_since: self.version(),
            covers: self.version(),
            told: CoveredRanges::default(),
            end: ResyncEnd::EndOfRib,
        };
        let slots = self.rib(family).dests.slots();
        let group = self.groups.get_mut(&group)?;
        group.log.join(member, source, resync.clone());
        group.add_member(source, member, &resync, slots);
        let (group, log) = (group.id, Arc::clone(&group.log));
        let reader = Reader::new(log, member, id, family);
        let membership = Membership { group, key: member, subscription: reader.subscription() };
        self.peer_mut(id)?.family_mut(family).membership = Some(membership);
        Some(reader)
    }

    pub(super) fn leave_groups(&mut self, id: PeerId) {
        for family in Family::ALL {
            let Some(peer) = self.peer_mut(id) else { return };
            let source = peer.source;
            let Some(membership) = peer.family_mut(family).membership.take() else { continue };
            if let Some(group) = self.groups.get_mut(&membership.group) {
                group.log.leave(membership.key);
                group.remove_member(source);
            }
        }
        self.drop_empty_groups();
    }

    fn drop_empty_groups(&mut self) {
        let empty: Vec<(u32, Family)> = self
            .groups
            .values()
            .filter(|group| group.members.is_empty())
            .map(|group| (group.id, group.key.family))
            .collect();
        for (id, family) in empty {
            let Some(mut group) = self.groups.remove(&id) else { continue };
            let (mut state, _) = self.export_parts(family);
            group.dissolve(&mut state);
        }
    }

    /// Moves peers whose parameters changed. Those that leave a group together for the same key go
    /// on together: their group begins with what they were told and tells them the difference.
    pub(super) fn regroup_peers(&mut self) {
        let mut moves: Vec<(u32, GroupKey, Vec<PeerId>)> = Vec::new();
        for id in std::mem::take(&mut self.regroup) {
            for family in Family::ALL {
                let Some(key) = self.group_key(id, family) else { continue };
                let membership = self.peer(id).and_then(|p| p.family(family).membership.as_ref());
                let Some(from) = membership.map(|membership| membership.group) else { continue };
                if self.groups.get(&from).is_none_or(|group| group.key.matches(&key)) {
                    continue;
                }
                match moves.iter_mut().find(|(f, k, _)| *f == from && k.matches(&key)) {
                    Some((_, _, peers)) => peers.push(id),
                    None => moves.push((from, key, vec![id])),
                }
            }
        }
        for (from, key, peers) in moves {
            let family = key.family;
            self.next_generation();
            let id = self.next_group_id();
            let log = Log::new(self.config.log_bytes_max, self.waker.clone());
            let version = self.version();
            let (mut state, groups) = self.export_parts(family);
            let Some(source) = groups.get(&from) else { continue };
            let made = source.fork(id, key, log, version, &mut state);
            groups.insert(id, made);
            for peer in peers {
                self.transfer(peer, family, id);
            }
            self.merge_wanted = true;
        }
        self.drop_empty_groups();
    }

    /// Moves a member to another group that knows what it was told.
    fn transfer(&mut self, id: PeerId, family: Family, to: u32) {
        let key = self.next_member_key();
        let covers = self.version();
        let slots = self.rib(family).dests.slots();
        let Some(peer) = self.peer_mut(id) else { return };
        let source = peer.source;
        let Some(membership) = peer.family_mut(family).membership.as_mut() else { return };
        let from = std::mem::replace(&mut membership.group, to);
        membership.key = key;
        let subscription = Arc::clone(&membership.subscription);
        if let Some(group) = self.groups.get_mut(&from) {
            group.remove_member(source);
        }
        let Some(group) = self.groups.get_mut(&to) else { return };
        let mut resync = None;
        subscription.transfer(Arc::clone(&group.log), key, source, |backlog| {
            let planned = Resync { covers, ..backlog };
            resync = Some(planned.clone());
            planned
        });
        if let Some(resync) = resync {
            group.add_member(source, key, &resync, slots);
        }
    }

    /// Groups that differ in nothing any more become one. Both must have said all there is to say:
    /// what they told is then the same. Groups with ADD-PATH number paths on their own and stay.
    /// Returns whether a member moved, and so has a walk ahead.
    fn merge_groups(&mut self) -> bool {
        if !self.merge_wanted {
            return false;
        }
        self.merge_wanted = false;
        let mut moved = false;
        let ids: Vec<u32> = self.groups.keys().copied().collect();
        for (at, into) in ids.iter().enumerate() {
            for from in &ids[at + 1..] {
                let (Some(a), Some(b)) = (self.groups.get(into), self.groups.get(from)) else {
                    continue;
                };
                if a.key.add_path.is_some() || !a.key.matches(&b.key) || b.members.is_empty() {
                    continue;
                }
                if !a.is_flushed() || !b.is_flushed() {
                    self.merge_wanted = true;
                    continue;
                }
                let family = a.key.family;
                let peers: Vec<PeerId> = b.members.keys().filter_map(|s| s.peer()).collect();
                for peer in peers {
                    self.transfer(peer, family, *into);
                    moved = true;
                }
            }
        }
        self.drop_empty_groups();
        moved
    }

    /// A peer wants a family again (RFC 2918, RFC 7313).
    pub(super) fn begin_refresh(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peer(id) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|session| session.enhanced_refresh);
        let end = if enhanced { ResyncEnd::Refresh } else { ResyncEnd::Nothing };
        let Some(membership) = peer.family(family).membership.as_ref() else { return };
        let (group, key, source) = (membership.group, membership.key, peer.source);
        self.refresh_member(group, key, source, end);
    }

    fn refresh_member(&mut self, group: u32, key: MemberKey, source: SourceId, end: ResyncEnd) {
        let covers = self.version();
        let Some(group) = self.groups.get_mut(&group) else { return };
        let family = group.key.family;
        let version = group.log.version(key);
        let told = CoveredRanges::default();
        let resync = Resync { announce_since: 0, withdraw_since: version, covers, told, end };
        if group.log.refresh(key, resync.clone()) {
            let slots = self.ribs[family.index()].dests.slots();
            group.begin_resync(source, &resync, slots);
        }
    }

    /// Does what readers asked for: laggards come back as walkers, refreshes that waited begin.
    pub(super) fn take_member_events(&mut self) {
        let version = self.version();
        let ids: Vec<u32> = self.groups.keys().copied().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let slots = self.ribs[group.key.family.index()].dests.slots();
            for events in group.log.take_events() {
                let (MemberEvent::Lost(key)
                | MemberEvent::Rejoin(key, _)
                | MemberEvent::Refresh(key, _)) = events;
                let Some(group) = self.groups.get_mut(&id) else { continue };
                let Some(source) = group.member_of(key) else { continue };
                match events {
                    MemberEvent::Lost(_) => group.lose_resync(source),
                    MemberEvent::Rejoin(_, backlog) => {
                        let resync = Resync { covers: version, ..backlog };
                        group.log.rejoin(key, resync.clone());
                        group.begin_resync(source, &resync, slots);
                    }
                    MemberEvent::Refresh(_, end) => self.refresh_member(id, key, source, end),
                }
            }
        }
    }

    /// One slice for every group; returns whether one has more that its members have room for.
    pub(super) fn export_turn(&mut self) -> bool {
        if self.export == Export::Deferred {
            return false;
        }
        let ids: Vec<u32> = self.groups.keys().copied().collect();
        let mut more = false;
        for id in ids {
            let Some(family) = self.groups.get(&id).map(|group| group.key.family) else { continue };
            let (mut state, groups) = self.export_parts(family);
            if let Some(group) = groups.get_mut(&id) {
                more |= group.export_slice(&mut state);
            }
        }
        more |= self.merge_groups();
        for note in std::mem::take(&mut self.notes) {
            self.note(note);
        }
        more
    }

    /// A line for the log, unless too many wait already.
    pub(super) fn note(&mut self, text: String) {
        let waiting = self.events.iter().filter(|e| matches!(e, TableEvent::Note(_))).count();
        if waiting < NOTES_MAX {
            self.events.push_back(TableEvent::Note(text));
        }
    }
}
