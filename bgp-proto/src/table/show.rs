//! Building the read-only views: routes, explanations, groups, counters.

use std::net::IpAddr;
use std::sync::Arc;

use super::import::Liveness;
use super::{
    AdvertisedTo, DestinationView, Explanation, GroupCounts, GroupView, ImportCounts, PathView,
    PeerCounts, RouteFilter, Table, Totals, Unusable, Withheld,
};
use crate::export::{Advertised, ExportView, Group, evaluate_export, tx_path_id};
use crate::policy::{RouteRef, Source};
use crate::rib::{
    DestId, NextHopState, Path, PathFlags, Reach, Reason, SourceId, compare, default_preference,
    order,
};
use crate::types::{Family, FamilyMap, Hop, NextHop, PathId, PeerId, Prefix, Time};

/// Marks cursors of the IPv6 half of a view.
const CURSOR_IPV6: u32 = 1 << 31;
/// Destinations looked at for a page that a filter leaves little of.
const LOOKED_AT_MAX: u32 = 1 << 14;

impl Table {
    /// See [`Table::view`].
    pub(super) fn page(
        &self,
        filter: &RouteFilter,
        cursor: u32,
        limit: usize,
        now: Time,
    ) -> (Vec<DestinationView>, Option<u32>) {
        if let Some(prefix) = filter.exact {
            if filter.family.is_some_and(|family| family != prefix.family()) {
                return (Vec::new(), None);
            }
            let dest = self.rib(prefix.family()).dests.find(prefix);
            let view = dest.and_then(|d| self.destination(filter, prefix.family(), d, now));
            return (view.into_iter().collect(), None);
        }
        let mut views = Vec::new();
        let mut looked_at = 0;
        let (mut family, mut at) = match cursor & CURSOR_IPV6 {
            0 => (Family::Ipv4, cursor),
            _ => (Family::Ipv6, cursor & !CURSOR_IPV6),
        };
        loop {
            let wanted = filter.family.is_none_or(|wanted| wanted == family);
            let dests = &self.rib(family).dests;
            while wanted && at < dests.slots() {
                if views.len() >= limit || looked_at >= LOOKED_AT_MAX.max(limit_u32(limit)) {
                    let mark = if family == Family::Ipv6 { CURSOR_IPV6 } else { 0 };
                    return (views, Some(at | mark));
                }
                let dest = DestId(at);
                at += 1;
                looked_at += 1;
                if dests.is_live(dest) {
                    views.extend(self.destination(filter, family, dest, now));
                }
            }
            if family == Family::Ipv6 {
                return (views, None);
            }
            (family, at) = (Family::Ipv6, 0);
        }
    }

    /// One destination, if the filter leaves something of it.
    fn destination(
        &self,
        filter: &RouteFilter,
        family: Family,
        dest: DestId,
        now: Time,
    ) -> Option<DestinationView> {
        let prefix = self.rib(family).dests.prefix(dest);
        // Building a view costs much more than seeing that it would be empty.
        let held = self.rib(family).dests.paths(dest);
        let is_from = |source: SourceId| {
            filter.received_from.is_none_or(|peer| source.peer() == Some(peer))
                && filter.source.is_none_or(|wanted| source.source() == wanted)
        };
        let paths = match filter.advertised_to {
            Some(peer) => self.advertised_paths(peer, family, dest, now),
            None if !held.iter().any(|path| is_from(path.source)) => return None,
            None => self.path_views(family, dest, now),
        };
        let from = |path: &PathView| {
            filter.received_from.is_none_or(|peer| path.peer == Some(peer))
                && filter.source.is_none_or(|wanted| path.source == wanted)
        };
        let paths: Vec<PathView> = paths.into_iter().filter(from).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix, paths })
    }

    /// All paths in order of rank, unusable ones last.
    fn path_views(&self, family: Family, dest: DestId, now: Time) -> Vec<PathView> {
        let paths = self.rib(family).dests.paths(dest);
        let candidates = self.sources.candidates(paths, &self.attrs, &self.hops);
        let ranked: Vec<usize> =
            order(&candidates, usize::MAX).into_iter().map(|at| candidates[at].0).collect();
        let multipath = self.multipath(paths);
        let mut order = ranked.clone();
        order.extend((0..paths.len()).filter(|at| !ranked.contains(at)));
        let mut views = Vec::with_capacity(order.len());
        for (place, at) in order.iter().enumerate() {
            let usable = place < ranked.len();
            let reason = if !usable && (place > 0 || ranked.is_empty()) {
                Reason::Unusable
            } else if place == 0 {
                Reason::OnlyPath
            } else {
                self.reason(&paths[order[place - 1]], &paths[*at])
            };
            let mut view = self.path_view(family, dest, &paths[*at], now);
            view.best = usable && place == 0;
            view.multipath = usable && place > 0 && multipath.contains(at);
            view.reason = reason;
            views.push(view);
        }
        views
    }

    /// The step that puts `worse` behind `better`.
    fn reason(&self, better: &Path, worse: &Path) -> Reason {
        let rank = |path| self.sources.rank(path, &self.attrs, &self.hops);
        match (rank(better), rank(worse)) {
            (Some(a), Some(b)) => {
                let (ordering, reason) = compare(&a, &b);
                // A path may follow one that it beats alone, where a third one's MED decided.
                if ordering.is_gt() { Reason::Med } else { reason }
            }
            _ => Reason::Unusable,
        }
    }

    fn path_view(&self, family: Family, dest: DestId, path: &Path, now: Time) -> PathView {
        let source = path.source.source();
        let prefix = self.rib(family).dests.prefix(dest);
        let own = self.own.get(&(prefix, source)).filter(|_| source != Source::Bgp);
        let state = self.hops.state(path.next_hop);
        let (hops, metric) = match (own, state) {
            (Some(own), _) => (own.hops.clone(), own.metric),
            (None, Some(NextHopState::Via { hops, metric, .. })) => (hops.clone(), Some(*metric)),
            _ => (Vec::<Hop>::new(), None),
        };
        PathView {
            best: false,
            multipath: false,
            stale: path.flags.has(PathFlags::STALE),
            unusable: self.why_unusable(path),
            source,
            preference: self.attrs.local(path.attrs).preference,
            own: own.cloned(),
            peer: path.source.peer(),
            path_id: PathId(path.path_id),
            next_hop: match own {
                Some(own) => own.next_hop.map(NextHop::from),
                None => self.hops.hop(path.next_hop),
            },
            hops,
            igp_metric: metric,
            attrs: Arc::from(self.attrs.view(path.attrs).as_bytes()),
            age_secs: now.as_secs().saturating_sub(u64::from(path.received_secs)),
            reason: Reason::OnlyPath,
            import_rule: self.import_rule(family, dest, path),
        }
    }

    fn why_unusable(&self, path: &Path) -> Option<Unusable> {
        let marks = [
            (PathFlags::AS_LOOP, Unusable::AsLoop),
            (PathFlags::ORIGINATOR_LOOP, Unusable::OriginatorLoop),
            (PathFlags::CLUSTER_LOOP, Unusable::ClusterLoop),
            (PathFlags::ROUTE_LEAK, Unusable::RouteLeak),
            (PathFlags::REJECTED, Unusable::Rejected),
        ];
        let marked = marks.iter().find(|(flag, _)| path.flags.has(*flag));
        marked.map(|(_, why)| *why).or_else(|| match self.hops.reach(path.next_hop) {
            Reach::Unresolved => Some(Unusable::NextHopUnresolved),
            Reach::Local => Some(Unusable::NextHopLocal),
            Reach::Metric(_) => None,
        })
    }

    /// The import rule that decided about a path, found by asking the policy again.
    fn import_rule(&self, family: Family, dest: DestId, path: &Path) -> Option<String> {
        let context = self.context(path.source.peer()?, Liveness::Any)?;
        let name = (family, dest, path.source, path.path_id);
        let (attrs, hop) = self.received.get(&name).copied().unwrap_or((path.attrs, path.next_hop));
        let verdict = context.routes.import.evaluate(&RouteRef {
            prefix: self.rib(family).dests.prefix(dest),
            attrs: self.attrs.view(attrs),
            next_hop: self.hops.hop(hop),
            source: Source::Bgp,
            interface: None,
            metric: None,
            peer_type: Some(context.session.peer_type),
        });
        Some(context.routes.import.describe(verdict.rule))
    }

    fn group_of(&self, id: PeerId, family: Family) -> Option<&Group> {
        let membership = self.peer(id)?.family(family).membership.as_ref()?;
        self.groups.get(&membership.group)
    }

    /// What a peer was told about a destination, as it was told.
    fn advertised_to_peer(
        &self,
        peer: PeerId,
        family: Family,
        dest: DestId,
    ) -> Vec<(Advertised, Option<PathId>)> {
        let Some(group) = self.group_of(peer, family) else { return Vec::new() };
        let own = SourceId::peer_id(peer).unwrap_or(SourceId::NONE);
        let list = group.told(dest);
        list.into_iter()
            .filter(|told| self.outs.source(told.out) != own)
            .map(|told| (told, tx_path_id(&group.key, &told)))
            .collect()
    }

    fn advertised_paths(
        &self,
        peer: PeerId,
        family: Family,
        dest: DestId,
        now: Time,
    ) -> Vec<PathView> {
        let paths = self.rib(family).dests.paths(dest);
        let told = self.advertised_to_peer(peer, family, dest).into_iter();
        told.map(|(told, path_id)| {
            let out = self.outs.get(told.out);
            // The path behind it may have changed since: then only what was told is known.
            let behind = paths.iter().find(|path| path.source == out.source);
            let mut view = match behind {
                Some(path) => self.path_view(family, dest, path, now),
                None => self.bare_view(out.source),
            };
            view.best = behind.is_some_and(|path| self.rib(family).dests.best(dest) == Some(path));
            view.next_hop = self.hops.hop(out.next_hop);
            let attrs = self.attrs.view(out.attrs);
            view.attrs = match out.reflection {
                Some(reflection) => reflection.apply(attrs).into_bytes().into(),
                None => attrs.as_bytes().into(),
            };
            view.path_id = path_id.unwrap_or_default();
            view
        })
        .collect()
    }

    fn bare_view(&self, source: SourceId) -> PathView {
        PathView {
            best: false,
            multipath: false,
            stale: false,
            unusable: None,
            source: source.source(),
            preference: default_preference(source.source()),
            own: None,
            peer: source.peer(),
            path_id: PathId(0),
            next_hop: None,
            hops: Vec::new(),
            igp_metric: None,
            attrs: Arc::from([]),
            age_secs: 0,
            reason: Reason::OnlyPath,
            import_rule: None,
        }
    }

    /// See [`Table::explain`].
    pub(super) fn explanation(&self, prefix: Prefix, now: Time) -> Option<Explanation> {
        let family = prefix.family();
        let dest = self.rib(family).dests.find(prefix)?;
        let mut advertised = Vec::new();
        let mut withheld = Vec::new();
        // Those that are gone are here until their last routes have left.
        for peer in self.peers.iter().flatten().filter(|peer| !peer.removed) {
            let Some(id) = peer.source.peer() else { continue };
            let told = self.advertised_to_peer(id, family, dest);
            if told.is_empty() {
                withheld.push(Withheld { peer: id, rule: self.why_withheld(id, family, dest) });
            }
            for (told, path_id) in told {
                let hop = self.hops.hop(self.outs.get(told.out).next_hop);
                let next_hop = hop.unwrap_or(NextHop::from(IpAddr::from([0; 4])));
                advertised.push(AdvertisedTo { peer: id, path_id, next_hop });
            }
        }
        let paths = self.path_views(family, dest, now);
        let fib = self.fib.get(self.rib(family).dests.fib(dest)).map(|(kind, _)| kind.clone());
        Some(Explanation {
            destination: DestinationView { prefix, paths },
            fib,
            advertised,
            withheld,
        })
    }

    fn why_withheld(&self, id: PeerId, family: Family, dest: DestId) -> String {
        let Some(peer) = self.peer(id) else { return "no such peer".to_owned() };
        if peer.up.is_none() {
            return "session is not established".to_owned();
        }
        let Some(group) = self.group_of(id, family) else {
            return format!("{family} is not negotiated");
        };
        let dests = &self.rib(family).dests;
        let Some(best) = dests.best(dest) else { return "no usable path".to_owned() };
        if best.source == peer.source {
            return "it sent the best path".to_owned();
        }
        let state = ExportView {
            dests,
            attrs: &self.attrs,
            hops: &self.hops,
            sources: &self.sources,
            own: &self.own,
        };
        match evaluate_export(&group.key, dest, best, state) {
            Err(rule) => rule.to_string(),
            Ok(_) if !group.is_done_with(dest) => "waiting to be sent".to_owned(),
            Ok(_) => "its attributes do not fit a message".to_owned(),
        }
    }

    /// See [`Table::own_counts`].
    pub(super) fn count_local(&self, family: Family, source: Source) -> (u32, u32) {
        let dests = &self.rib(family).dests;
        let of_source =
            |(prefix, from): &&(Prefix, Source)| *from == source && prefix.family() == family;
        let is_best = |prefix: &Prefix| {
            let best = dests.find(*prefix).and_then(|dest| dests.best(dest));
            best.is_some_and(|path| path.source.source() == source)
        };
        self.own
            .keys()
            .filter(of_source)
            .fold((0, 0), |(all, best), (prefix, _)| (all + 1, best + u32::from(is_best(prefix))))
    }

    /// See [`Table::groups`].
    pub(super) fn group_views(&self) -> Vec<GroupView> {
        let groups = self.groups.values();
        groups
            .map(|group| {
                let (log_bytes, evictions) = group.log.counts();
                GroupView {
                    id: group.id,
                    family: group.key.family,
                    members: group.members.keys().filter_map(|s| s.peer()).collect(),
                    alone_because: self.why_alone(group),
                    log_bytes,
                    prefixes: group.advertised(),
                    evictions,
                }
            })
            .collect()
    }

    /// See [`Table::group_counts`].
    pub(super) fn count_groups(&self) -> Vec<GroupCounts> {
        let counts = self.groups.values().map(|group| {
            let (log_bytes, evictions) = group.log.counts();
            GroupCounts {
                id: group.id,
                family: group.key.family,
                members: group.members.len() as u32,
                log_bytes: log_bytes as u64,
                prefixes: group.advertised(),
                evictions,
            }
        });
        counts.collect()
    }

    /// What sets a group of one apart from the group that is most like it.
    fn why_alone(&self, group: &Group) -> Option<String> {
        if group.members.len() != 1 {
            return None;
        }
        let others = self
            .groups
            .values()
            .filter(|other| other.id != group.id && other.key.family == group.key.family);
        let nearest = others.map(|other| group.key.differences(&other.key)).min_by_key(Vec::len)?;
        if nearest.is_empty() {
            return Some("its parameters changed while the session was up".to_owned());
        }
        Some(nearest.join(", "))
    }

    /// See [`Table::counts`].
    pub(super) fn peer_counts(&self, id: PeerId) -> PeerCounts {
        let mut counts = PeerCounts::default();
        let Some(peer) = self.peer(id) else { return counts };
        counts.restarting = peer.stale_timer.deadline().filter(|_| peer.up.is_none());
        for family in Family::ALL {
            let held = peer.family(family);
            counts.received[family] = held.received;
            counts.accepted[family] = held.accepted;
            counts.preferred[family] = self.rib(family).dests.preferred(peer.source);
            counts.imports[family] = held.imports;
            let Some(group) = self.group_of(id, family) else { continue };
            counts.group[family] = Some(group.id);
            // The group's number, without what the peer itself sent.
            let except = group.advertised_from(peer.source);
            counts.advertised[family] = group.advertised().saturating_sub(except);
            counts.exports[family] = group.exports_to(peer.source);
        }
        counts
    }

    /// See [`Table::imports`].
    pub(super) fn import_totals(&self) -> FamilyMap<ImportCounts> {
        let mut totals = self.imports_before;
        for peer in self.peers.iter().flatten() {
            for family in Family::ALL {
                totals[family].add(&peer.family(family).imports);
            }
        }
        totals
    }

    /// See [`Table::totals`].
    pub(super) fn sizes(&self) -> Totals {
        let per_family = |count: fn(&super::Rib) -> u32| {
            FamilyMap(Family::ALL.map(|family| count(self.rib(family))))
        };
        Totals {
            destinations: per_family(|rib| rib.dests.len() - rib.empty.len()),
            paths: per_family(|rib| rib.dests.path_count()),
            attribute_sets: self.attrs.len(),
            next_hops: self.hops.len(),
            groups: self.groups.len() as u32,
        }
    }
}

fn limit_u32(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
