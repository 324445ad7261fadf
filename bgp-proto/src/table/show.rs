//! Read-only views: routes, explanations, update groups, counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::import::Liveness;
use super::kernel::FibEntry;
use super::peer::{Peer, PeerFamily};
use super::retention::{Phase, Session};
use super::{
    AdvertisedTo, DestinationView, Explanation, GroupCounts, GroupView, ImportCounts, PathView,
    PeerCounts, Refused, Retained, RetainedPhase, RouteFilter, Table, Totals, Unusable, Withheld,
};
use crate::export::{Advertised, ExportView, Group, evaluate_export, tx_path_id};
use crate::policy::Source;
use crate::rib::{
    DestId, NextHopState, Path, PathFlags, Reach, Reason, Rib, SourceId, Vantage, compare,
    default_preference, order,
};
use crate::types::{
    Community, Family, FamilyMap, FibChange, Hop, NextHop, PathId, PeerId, Prefix, Time,
};
use crate::wire::{AttrEdit, AttrView};

/// Marks cursors of the IPv6 half of a view.
const CURSOR_IPV6: u32 = 1 << 31;
/// Maximum number of groups with which one is compared to say what distinguishes it.
const COMPARED_MAX: usize = 64;
/// Maximum number of destinations examined for one page.
const LOOKED_AT_MAX: u32 = 1 << 14;

/// Why nothing is advertised to a peer while export is deferred ([`Table::defer_export`]).
pub const HELD_BACK: &str = "announcements are held back after the start (RFC 4724 §4.1)";

impl Table {
    /// A page of destinations: from `cursor` (0 to begin), at most `limit` that match; the second
    /// value is the next cursor, `None` at the end. In storage order, not prefix order. A page may
    /// hold fewer, or none, and not be the last: the number of destinations that one call examines
    /// is bounded too.
    pub fn view(
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
            let dest = self.loc_rib.dests(prefix.family()).find(prefix);
            let view = dest.and_then(|d| self.destination(filter, prefix.family(), d, now));
            return (view.into_iter().collect(), None);
        }
        let mut views = Vec::new();
        let mut looked_at = 0;
        let (mut family, mut at) = of_cursor(cursor);
        loop {
            let wanted = filter.family.is_none_or(|wanted| wanted == family);
            let dests = self.loc_rib.dests(family);
            while wanted && at < dests.slots() {
                if views.len() >= limit || looked_at >= LOOKED_AT_MAX.max(limit_u32(limit)) {
                    return (views, Some(self::cursor(family, at)));
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

    /// One destination, if any of its paths matches the filter.
    pub(super) fn destination(
        &self,
        filter: &RouteFilter,
        family: Family,
        dest: DestId,
        now: Time,
    ) -> Option<DestinationView> {
        let prefix = self.loc_rib.dests(family).prefix(dest);
        if !filter.is_within(prefix) {
            return None;
        }
        // Building a view costs much more than seeing that it would be empty.
        let held = self.loc_rib.dests(family).paths(dest);
        let paths = match filter.advertised_to {
            Some(peer) => self.advertised_paths(peer, family, dest, now),
            None if !held.iter().any(|path| self.path_matches(filter, path)) => return None,
            None => self.path_views(family, dest, None, now),
        };
        let paths: Vec<PathView> = paths.into_iter().filter(|path| filter.matches(path)).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix, paths })
    }

    /// All paths in order of rank, unusable ones last.
    pub(super) fn path_views(
        &self,
        family: Family,
        dest: DestId,
        vantage: Option<&Vantage>,
        now: Time,
    ) -> Vec<PathView> {
        let rib = &self.loc_rib;
        let paths = rib.dests(family).paths(dest);
        let candidates = rib.sources.candidates_from(vantage, paths, &rib.attrs, &rib.hops);
        let ranked: Vec<usize> =
            order(&candidates, usize::MAX).into_iter().map(|at| candidates[at].0).collect();
        let multipath = match vantage {
            None if ranked.len() > 1 => rib.multipath(paths),
            _ => Vec::new(),
        };
        let (mut is_ranked, mut shares) = (vec![false; paths.len()], vec![false; paths.len()]);
        ranked.iter().for_each(|at| is_ranked[*at] = true);
        multipath.iter().for_each(|at| shares[*at] = true);
        let mut order = ranked.clone();
        order.extend((0..paths.len()).filter(|at| !is_ranked[*at]));
        let mut views = Vec::with_capacity(order.len());
        for (place, at) in order.iter().enumerate() {
            let usable = place < ranked.len();
            let reason = if !usable && (place > 0 || ranked.is_empty()) {
                Reason::Unusable
            } else if place == 0 {
                Reason::OnlyPath
            } else {
                self.reason(&paths[order[place - 1]], &paths[*at], vantage)
            };
            let mut view = self.path_view(family, dest, &paths[*at], now);
            view.best = usable && place == 0;
            view.multipath = usable && place > 0 && shares[*at];
            view.reason = reason;
            view.cost = vantage.map(|from| rib.sources.cost_from(from, &paths[*at], &rib.hops));
            views.push(view);
        }
        views
    }

    /// The step that ranks `worse` behind `better`.
    fn reason(&self, better: &Path, worse: &Path, vantage: Option<&Vantage>) -> Reason {
        let rib = &self.loc_rib;
        let pair = [*better, *worse];
        let ranks = rib.sources.candidates_from(vantage, &pair, &rib.attrs, &rib.hops);
        match &ranks[..] {
            [(_, a), (_, b)] => match (compare(a, b), vantage) {
                // A path may rank behind one that it beats in a direct comparison, if a third one's
                // MED decided.
                ((ordering, _), _) if ordering.is_gt() => Reason::Med,
                ((_, Reason::IgpMetric), Some(_)) => Reason::VantageCost,
                ((_, reason), _) => reason,
            },
            _ => Reason::Unusable,
        }
    }

    fn path_view(&self, family: Family, dest: DestId, path: &Path, now: Time) -> PathView {
        let source = path.source.source();
        let prefix = self.loc_rib.dests(family).prefix(dest);
        let own = match source {
            Source::Bgp => None,
            _ => self.loc_rib.local.get(&(prefix, source)),
        };
        let state = self.loc_rib.hops.state(path.next_hop);
        let (hops, metric) = match (own, state) {
            (Some(own), _) => (own.hops.clone(), own.metric),
            (None, Some(NextHopState::Via { hops, metric, .. })) => (hops.clone(), Some(*metric)),
            _ => (Vec::<Hop>::new(), None),
        };
        PathView {
            best: false,
            multipath: false,
            stale: self.is_stale(family, path),
            long_lived: path.flags.has(PathFlags::LONG_LIVED),
            unusable: self.why_unusable(path),
            source,
            preference: self.loc_rib.attrs.local(path.attrs).preference,
            own: own.cloned(),
            peer: path.source.peer(),
            vantage: self.place_of(path),
            cost: None,
            path_id: PathId(path.path_id),
            next_hop: match own {
                Some(own) => own.next_hop.map(NextHop::from),
                None => self.loc_rib.hops.hop(path.next_hop),
            },
            hops,
            igp_metric: metric,
            attrs: shown_attrs(path, self.loc_rib.attrs.view(path.attrs)),
            age_secs: now.as_secs().saturating_sub(u64::from(path.received_secs)),
            reason: Reason::OnlyPath,
            import_rule: self.import_rule(family, dest, path),
        }
    }

    fn is_stale(&self, family: Family, path: &Path) -> bool {
        let peer = path.source.peer().and_then(|id| self.peers.get(id));
        peer.map(|peer| peer.family(family))
            .is_some_and(|held| held.retention.is_stale() && path.stamp != held.marks.present)
    }

    pub(super) fn why_unusable(&self, path: &Path) -> Option<Unusable> {
        let refusal = path.flags.refusal().map(Unusable::of);
        refusal.or_else(|| match self.loc_rib.hops.reach(path.next_hop) {
            Reach::Unresolved => Some(Unusable::NextHopUnresolved),
            Reach::Local => Some(Unusable::NextHopLocal),
            Reach::OverDefault(_) if !self.loc_rib.sources.is_usable(path, &self.loc_rib.hops) => {
                Some(Unusable::NextHopOverDefault)
            }
            Reach::OverDefault(_) | Reach::Metric(_) => None,
        })
    }

    /// The import rule that decided on a path, found by evaluating the policy again.
    fn import_rule(&self, family: Family, dest: DestId, path: &Path) -> Option<String> {
        let context = self.context(path.source.peer()?, Liveness::Any)?;
        let route = self.received_route(&context, family, dest, path);
        let verdict = context.routes.import.policy.evaluate(&route);
        Some(context.routes.import.policy.describe(verdict.rule))
    }

    /// The update group of a peer, while its session is up.
    pub(super) fn group_of(&self, id: PeerId, family: Family) -> Option<&Group> {
        self.adj_ribs_out.group_of(SourceId::peer_id(id)?, family)
    }

    /// What a peer was sent about a destination, as it was sent.
    pub(super) fn advertised_to_peer(
        &self,
        peer: PeerId,
        family: Family,
        dest: DestId,
    ) -> Vec<(Advertised, Option<PathId>)> {
        let Some(group) = self.group_of(peer, family) else { return Vec::new() };
        let source = SourceId::peer_id(peer).unwrap_or(SourceId::NONE);
        let paths = self.adj_ribs_out.advertised_to(source, family, dest).into_iter();
        paths.map(|path| (path, tx_path_id(&group.key, &path))).collect()
    }

    fn advertised_paths(
        &self,
        peer: PeerId,
        family: Family,
        dest: DestId,
        now: Time,
    ) -> Vec<PathView> {
        let paths = self.loc_rib.dests(family).paths(dest);
        let sent = self.advertised_to_peer(peer, family, dest).into_iter();
        sent.map(|(sent, path_id)| {
            let out = self.adj_ribs_out.exported.get(sent.out);
            // The path that was exported may have changed since: then only what was sent is known.
            let behind = paths.iter().find(|path| path.source == out.except.source);
            let mut view = match behind {
                Some(path) => self.path_view(family, dest, path, now),
                None => self.bare_view(out.except.source),
            };
            view.best =
                behind.is_some_and(|path| self.loc_rib.dests(family).best(dest) == Some(path));
            view.next_hop = self.loc_rib.hops.hop(out.next_hop);
            let attrs = self.loc_rib.attrs.view(out.attrs);
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
            long_lived: false,
            unusable: None,
            source: source.source(),
            preference: default_preference(source.source()),
            own: None,
            peer: source.peer(),
            vantage: None,
            cost: None,
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

    /// Everything about one destination.
    pub fn explain(&self, prefix: Prefix, now: Time) -> Option<Explanation> {
        self.explain_to(prefix, None, now)
    }

    /// The same for the peers at a vantage only, or for all.
    pub(super) fn explain_to(
        &self,
        prefix: Prefix,
        vantage: Option<&Vantage>,
        now: Time,
    ) -> Option<Explanation> {
        let family = prefix.family();
        let dest = self.loc_rib.dests(family).find(prefix)?;
        let mut advertised = Vec::new();
        let mut withheld = Vec::new();
        let mut known = BTreeMap::new();
        // Removed peers are kept until their last routes are withdrawn.
        let is_there = |peer: &Peer| match vantage {
            Some(vantage) => peer.routes.vantage.as_ref() == Some(&vantage.name),
            None => true,
        };
        for peer in self.peers.iter().filter(|peer| !peer.removed && is_there(peer)) {
            let Some(id) = peer.source.peer() else { continue };
            let sent = self.advertised_to_peer(id, family, dest);
            if sent.is_empty() {
                let rule = self.why_withheld(id, family, dest, &mut known);
                withheld.push(Withheld { peer: id, rule });
            }
            for (sent, path_id) in sent {
                let hop = self.loc_rib.hops.hop(self.adj_ribs_out.exported.get(sent.out).next_hop);
                let next_hop = hop.unwrap_or(NextHop::from(IpAddr::from([0; 4])));
                advertised.push(AdvertisedTo { peer: id, path_id, next_hop });
            }
        }
        let paths = self.path_views(family, dest, vantage, now);
        let fib = self.kernel.entry(self.loc_rib.dests(family).fib(dest));
        let fib = match fib {
            Some(FibEntry::Route { kind, .. }) => FibChange::Install(kind.clone()),
            Some(FibEntry::Kept) => FibChange::Keep,
            None => FibChange::Withdraw,
        };
        Some(Explanation {
            destination: DestinationView { prefix, paths },
            fib,
            advertised,
            withheld,
        })
    }

    /// `known` caches the result per group: the rules are evaluated once for all its members.
    fn why_withheld(
        &self,
        id: PeerId,
        family: Family,
        dest: DestId,
        known: &mut BTreeMap<u32, String>,
    ) -> String {
        let Some(peer) = self.peers.get(id) else { return "no such peer".to_owned() };
        if peer.up.is_none() {
            return "session is not established".to_owned();
        }
        let Some(group) = self.group_of(id, family) else {
            return format!("{family} is not negotiated");
        };
        let best = group.best_path(dest, self.export_view(family));
        let Some(best) = best else { return "no usable path".to_owned() };
        if best.source == peer.source {
            return "it sent the best path".to_owned();
        }
        let advertised = group.advertised_paths(dest);
        let exported = &self.adj_ribs_out.exported;
        if advertised.iter().any(|path| exported.except(path.out).contains(peer.source)) {
            return "its next hop is this neighbour (RFC 4271 §5.1.3)".to_owned();
        }
        let why = || self.why_group_withholds(group, family, dest, best);
        known.entry(group.id).or_insert_with(why).clone()
    }

    pub(super) fn export_view(&self, family: Family) -> ExportView<'_> {
        ExportView {
            dests: self.loc_rib.dests(family),
            attrs: &self.loc_rib.attrs,
            hops: &self.loc_rib.hops,
            sources: &self.loc_rib.sources,
            local: &self.loc_rib.local,
        }
    }

    fn why_group_withholds(
        &self,
        group: &Group,
        family: Family,
        dest: DestId,
        best: &Path,
    ) -> String {
        match evaluate_export(&group.key, dest, best, self.export_view(family)) {
            Err(rule) => rule.to_string(),
            Ok(_) if self.adj_ribs_out.is_deferred() => HELD_BACK.to_owned(),
            Ok(_) if !group.is_done_with(dest) => {
                "waiting to be sent, until a neighbour of its update group takes more".to_owned()
            }
            Ok(_) => "its attributes do not fit a message".to_owned(),
        }
    }

    /// Number of local routes from `source` in a family, and how many of them are the best path.
    pub fn local_counts(&self, family: Family, source: Source) -> (u32, u32) {
        let Some(id) = SourceId::local(source) else { return (0, 0) };
        (self.loc_rib.local_count(family, id), self.loc_rib.dests(family).preferred(id))
    }

    /// The update groups.
    pub fn groups(&self) -> Vec<GroupView> {
        let groups = self.adj_ribs_out.groups.values();
        groups
            .map(|group| {
                let (log_bytes, evictions) = group.log.counts();
                GroupView {
                    id: group.id,
                    family: group.key.family,
                    members: group.members.keys().filter_map(|s| s.peer()).collect(),
                    vantage: group.key.vantage.as_ref().map(|vantage| Arc::clone(&vantage.name)),
                    alone_because: self.why_alone(group),
                    log_bytes,
                    prefixes: group.advertised(),
                    evictions,
                }
            })
            .collect()
    }

    /// Counters of the update groups.
    pub fn group_counts(&self) -> Vec<GroupCounts> {
        let counts = self.adj_ribs_out.groups.values().map(|group| {
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

    /// What distinguishes a group with one member from the group that is most like it.
    fn why_alone(&self, group: &Group) -> Option<String> {
        if group.members.len() != 1 {
            return None;
        }
        let others = self
            .adj_ribs_out
            .groups
            .values()
            .filter(|other| other.id != group.id && other.key.family == group.key.family);
        let nearest = others
            .take(COMPARED_MAX)
            .map(|other| group.key.differences(&other.key))
            .min_by_key(Vec::len)?;
        if nearest.is_empty() {
            return Some("its parameters changed while the session was up".to_owned());
        }
        Some(nearest.join(", "))
    }

    /// Counters of a peer.
    pub fn counts(&self, id: PeerId) -> PeerCounts {
        let mut counts = PeerCounts::default();
        let Some(peer) = self.peers.get(id) else { return counts };
        for family in Family::ALL {
            let held = peer.family(family);
            counts.received[family] = held.received;
            let session = if peer.up.is_some() { Session::Up } else { Session::Down };
            counts.retained[family] = retained(held, session);
            if peer.up.is_none() {
                counts.restarting = counts.restarting.max(held.retention.ends());
            }
            counts.accepted[family] = held.accepted;
            counts.preferred[family] = self.loc_rib.dests(family).preferred(peer.source);
            counts.imports[family] = held.imports;
            let Some(group) = self.group_of(id, family) else { continue };
            counts.group[family] = Some(group.id);
            // The group's number, without what the peer itself sent.
            let except = group.advertised_except(peer.source);
            counts.advertised[family] = group.advertised().saturating_sub(except);
            counts.exports[family] = group.exports_to(peer.source);
        }
        counts
    }

    /// Outcome of everything that peers announced and withdrew, including removed peers. Never
    /// decreases.
    pub fn imports(&self) -> FamilyMap<ImportCounts> {
        let mut totals = self.imports_before;
        for peer in self.peers.iter() {
            for family in Family::ALL {
                totals[family] += peer.family(family).imports;
            }
        }
        totals
    }

    /// What refused routes of peers, and how many.
    pub fn refused(&self) -> &[Refused] {
        self.refusals.entries()
    }

    /// Number of destinations per family, paths, attribute sets: for metrics.
    pub fn totals(&self) -> Totals {
        let per_family = |count: fn(&Rib) -> u32| {
            FamilyMap(Family::ALL.map(|family| count(self.loc_rib.rib(family))))
        };
        Totals {
            destinations: per_family(|rib| rib.dests.len() - rib.empty.len()),
            paths: per_family(|rib| rib.dests.path_count()),
            attribute_sets: self.loc_rib.attrs.len(),
            next_hops: self.loc_rib.hops.len(),
            groups: self.adj_ribs_out.groups.len() as u32,
            paths_unresolved: self.loc_rib.hops.unresolved_paths(),
            next_hop_changes: self.loc_rib.hops.changes(),
        }
    }
}

/// The attributes of a path with those that its flags stand for.
pub(super) fn shown_attrs(path: &Path, attrs: AttrView<'_>) -> Arc<[u8]> {
    if !path.flags.has(PathFlags::LONG_LIVED) {
        return attrs.as_bytes().into();
    }
    let mut edit = AttrEdit::from_view(attrs);
    edit.add_community(Community::LLGR_STALE);
    edit.into_bytes().into()
}

fn retained(held: &PeerFamily, session: Session) -> Option<Retained> {
    let phase = match held.retention.phase() {
        Phase::Stale => RetainedPhase::Restart,
        Phase::LongLived => RetainedPhase::LongLived,
        Phase::Fresh | Phase::Overdue => return None,
    };
    Some(Retained { phase, paths: held.marks.old, until: held.retention.phase_ends(session)? })
}

/// The position that a cursor stands for.
pub(super) fn of_cursor(cursor: u32) -> (Family, u32) {
    match cursor & CURSOR_IPV6 {
        0 => (Family::Ipv4, cursor),
        _ => (Family::Ipv6, cursor & !CURSOR_IPV6),
    }
}

/// The cursor of a position.
pub(super) fn cursor(family: Family, at: u32) -> u32 {
    at | if family == Family::Ipv6 { CURSOR_IPV6 } else { 0 }
}

pub(super) fn limit_u32(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
