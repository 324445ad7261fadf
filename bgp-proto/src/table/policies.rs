//! Policies in use: what each rule does to the routes that are in the table, and to one route.
//!
//! Nothing is counted while routes are imported and exported. Hits are found by evaluating the policy
//! again over the routes that are held, in slices, when somebody asks.

use std::sync::Arc;

use super::import::{ImportContext, Liveness};
use super::show::{cursor, of_cursor};
use super::{Table, Work};
use crate::export::{Group, GroupKey, choose_paths, trace_export};
use crate::policy::{Decision, Policy, RouteRef, Verdict};
use crate::rib::{DestId, Meter, Path, Refusal};
use crate::types::{Family, NextHop, PeerId, PeerType, Prefix};

/// Where a policy is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyPlace {
    /// To routes received from peers.
    Import,
    /// To routes sent to peers.
    Export,
}

/// What a rule does to the routes in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Routes for which its conditions hold, when it is reached.
    pub matched: u64,
    /// Of those, the ones that it accepts or rejects.
    pub decided: u64,
}

/// A policy in one place, with what it does there.
#[derive(Clone, Debug)]
pub struct PolicyHits {
    /// Where.
    pub place: PolicyPlace,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The peers that it is applied for.
    pub peers: Vec<PeerId>,
    /// By rule.
    pub rules: Vec<RuleHits>,
    /// Routes that no rule decides.
    pub default: u64,
    /// Routes that are refused or withheld before the policy is reached.
    pub unreached: u64,
}

/// The policies of one name, and how far their hits are counted.
pub struct PolicyCount {
    hits: Vec<PolicyHits>,
    /// By source: the entry of the peer's import policy.
    imports: Vec<Option<usize>>,
    /// The entries of groups' export policies.
    exports: Vec<(u32, usize)>,
    cursor: Option<u32>,
}

/// Maximum number of different policies of one name that are counted.
const POLICIES_MAX: usize = 64;

impl PolicyCount {
    /// The policies, and the hits so far.
    pub fn hits(&self) -> &[PolicyHits] {
        &self.hits
    }

    /// Whether every route has been evaluated.
    pub fn is_over(&self) -> bool {
        self.cursor.is_none()
    }

    /// The entry of a policy; `None`: there are too many.
    fn entry(&mut self, place: PolicyPlace, policy: &Arc<Policy>) -> Option<usize> {
        let is_it = |hits: &PolicyHits| {
            hits.place == place && (Arc::ptr_eq(&hits.policy, policy) || hits.policy == *policy)
        };
        if let Some(at) = self.hits.iter().position(is_it) {
            return Some(at);
        }
        if self.hits.len() >= POLICIES_MAX {
            return None;
        }
        self.hits.push(PolicyHits {
            place,
            policy: Arc::clone(policy),
            peers: Vec::new(),
            rules: vec![RuleHits::default(); policy.rules.len()],
            default: 0,
            unreached: 0,
        });
        Some(self.hits.len() - 1)
    }
}

impl PolicyHits {
    fn count(&mut self, verdict: &Verdict) {
        match verdict.rule.and_then(|rule| self.rules.get_mut(rule)) {
            Some(rule) => rule.decided += 1,
            None => self.default += 1,
        }
    }

    fn matched(&mut self, rule: usize) {
        if let Some(rule) = self.rules.get_mut(rule) {
            rule.matched += 1;
        }
    }
}

impl Table {
    /// Begins to count the hits of the policies with a name.
    pub fn policy(&self, name: &str) -> PolicyCount {
        let mut count = PolicyCount {
            hits: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            cursor: Some(0),
        };
        for peer in self.peers.iter().filter(|peer| !peer.removed) {
            let Some(id) = peer.source.peer() else { continue };
            if *peer.routes.import.policy.name == *name
                && let Some(at) = count.entry(PolicyPlace::Import, &peer.routes.import.policy)
            {
                count.hits[at].peers.push(id);
                let place = usize::from(peer.source.0);
                if count.imports.len() <= place {
                    count.imports.resize(place + 1, None);
                }
                count.imports[place] = Some(at);
            }
            if *peer.routes.export.policy.name == *name
                && let Some(at) = count.entry(PolicyPlace::Export, &peer.routes.export.policy)
            {
                count.hits[at].peers.push(id);
            }
        }
        for group in self.adj_ribs_out.groups.values() {
            if *group.key.export.name == *name
                && let Some(at) = count.entry(PolicyPlace::Export, &group.key.export)
            {
                count.exports.push((group.id, at));
            }
        }
        count
    }

    /// Evaluates the policies for further routes; returns the work done. The cost is bounded by `budget`.
    pub fn count_policy(&self, count: &mut PolicyCount, budget: Work) -> Work {
        let mut meter = Meter::new(budget.0);
        while !meter.is_spent()
            && let Some(at) = count.cursor
        {
            let (family, slot) = of_cursor(at);
            let dests = self.loc_rib.dests(family);
            meter.spend(1);
            if slot >= dests.slots() {
                let next = (family == Family::Ipv4).then(|| cursor(Family::Ipv6, 0));
                count.cursor = next;
                continue;
            }
            count.cursor = Some(cursor(family, slot + 1));
            if dests.is_live(DestId(slot)) {
                self.count_imports(family, DestId(slot), count, &mut meter);
                self.count_exports(family, DestId(slot), count, &mut meter);
            }
        }
        Work(meter.spent())
    }

    fn count_imports(
        &self,
        family: Family,
        dest: DestId,
        count: &mut PolicyCount,
        meter: &mut Meter,
    ) {
        for path in self.loc_rib.dests(family).paths(dest) {
            let at = count.imports.get(usize::from(path.source.0)).copied().flatten();
            let Some((at, id)) = at.zip(path.source.peer()) else { continue };
            let hits = &mut count.hits[at];
            meter.spend(3);
            if path.flags.refusal().is_some_and(|why| why != Refusal::Rejected) {
                hits.unreached += 1;
                continue;
            }
            let Some(context) = self.context(id, Liveness::Any) else { continue };
            meter.spend(context.policy.weight.work(0));
            let route = self.received_route(&context, family, dest, path);
            let policy = Arc::clone(&hits.policy);
            let verdict = policy.evaluate_with(&route, |rule, _| hits.matched(rule));
            hits.count(&verdict);
        }
    }

    fn count_exports(
        &self,
        family: Family,
        dest: DestId,
        count: &mut PolicyCount,
        meter: &mut Meter,
    ) {
        let PolicyCount { hits, exports, .. } = count;
        for (group, at) in exports {
            let group = self.adj_ribs_out.groups.get(group);
            let Some(group) = group.filter(|group| group.key.family == family) else { continue };
            let hits = &mut hits[*at];
            meter.spend(6);
            for path in self.paths_of_group(group, family, dest) {
                let held = self.loc_rib.dests(family);
                let place = (held.prefix(dest), held.paths(dest));
                let view = self.export_view(family);
                let traced =
                    trace_export(&group.key, place, &path, view, |rule, _| hits.matched(rule));
                match traced {
                    Ok(verdict) => hits.count(&verdict),
                    Err(_) => hits.unreached += 1,
                }
            }
        }
    }

    /// The paths that a group would be sent if nothing withheld them.
    fn paths_of_group(&self, group: &Group, family: Family, dest: DestId) -> Vec<Path> {
        let view = self.export_view(family);
        match group.key.add_path {
            Some(send) => choose_paths(&group.key, send, view.dests.paths(dest), view).into_vec(),
            None => group.best_path(dest, view).copied().into_iter().collect(),
        }
    }

    /// A path as its peer's import policy sees it.
    pub(super) fn received_route(
        &self,
        context: &ImportContext,
        family: Family,
        dest: DestId,
        path: &Path,
    ) -> RouteRef<'_> {
        let kept = self.loc_rib.received(&(family, dest, path.source, path.path_id));
        let received = kept.unwrap_or((path.attrs, path.next_hop));
        context.route(&self.loc_rib, self.loc_rib.dests(family).prefix(dest), received)
    }
}

/// A route as a policy sees it, or leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestedRoute {
    /// Canonical attributes.
    pub attrs: Arc<[u8]>,
    /// The next hop.
    pub next_hop: Option<NextHop>,
    /// The kernel metric.
    pub metric: Option<u32>,
}

impl TestedRoute {
    fn of(route: &RouteRef<'_>) -> Self {
        let (next_hop, metric) = (route.next_hop, route.metric);
        TestedRoute { attrs: route.attrs.as_bytes().into(), next_hop, metric }
    }
}

/// What a policy does to one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// The peer that the route was received from; `None`: a local route, or none of the table.
    pub from: Option<PeerId>,
    /// The peer that it would be sent to; `None`: import.
    pub to: Option<PeerId>,
    /// Why the policy is not reached.
    pub unreached: Option<String>,
    /// The route as the policy sees it.
    pub before: TestedRoute,
    /// Each rule that applies, by index, with the route as it leaves it.
    pub steps: Vec<(usize, TestedRoute)>,
    /// Whether the route is accepted.
    pub is_accepted: bool,
    /// The rule that decided; `None`: the default.
    pub rule: Option<usize>,
    /// The preference among sources that the policy sets.
    pub preference: Option<u16>,
}

impl PolicyTest {
    /// Tests a route that need not be in the table.
    pub fn of(policy: &Policy, route: &RouteRef<'_>) -> Self {
        let mut steps = Vec::new();
        let verdict =
            policy.evaluate_with(route, |rule, after| steps.push((rule, TestedRoute::of(after))));
        PolicyTest {
            from: None,
            to: None,
            unreached: None,
            before: TestedRoute::of(route),
            steps,
            is_accepted: verdict.decision == Decision::Accept,
            rule: verdict.rule,
            preference: verdict.preference,
        }
    }
}

impl Table {
    /// Tests a policy on the routes received for a prefix, from one peer or all, as import would apply
    /// it.
    pub fn test_import(
        &self,
        policy: &Policy,
        prefix: Prefix,
        from: Option<PeerId>,
    ) -> Vec<PolicyTest> {
        let family = prefix.family();
        let Some(dest) = self.loc_rib.dests(family).find(prefix) else { return Vec::new() };
        let paths = self.loc_rib.dests(family).paths(dest).iter();
        let tests = paths.filter_map(|path| {
            let peer = path.source.peer().filter(|id| from.is_none_or(|from| from == *id))?;
            let context = self.context(peer, Liveness::Any)?;
            let route = self.received_route(&context, family, dest, path);
            Some(PolicyTest { from: Some(peer), ..PolicyTest::of(policy, &route) })
        });
        tests.collect()
    }

    /// Tests a policy on the routes to a prefix that a peer is or would be sent, as export would apply
    /// it. Without a session of the peer there are none.
    pub fn test_export(&self, policy: &Arc<Policy>, prefix: Prefix, to: PeerId) -> Vec<PolicyTest> {
        let family = prefix.family();
        let Some(dest) = self.loc_rib.dests(family).find(prefix) else { return Vec::new() };
        let Some(group) = self.group_of(to, family) else { return Vec::new() };
        let key = GroupKey {
            sums_bandwidth: group.key.add_path.is_none() && policy.sums_bandwidth(),
            export: Arc::clone(policy),
            ..group.key.clone()
        };
        let held = self.loc_rib.dests(family).paths(dest);
        let view = self.export_view(family);
        let tests = self.paths_of_group(group, family, dest).into_iter().map(|path| {
            let mut steps = Vec::new();
            let traced = trace_export(&key, (prefix, held), &path, view, |rule, after| {
                steps.push((rule, TestedRoute::of(after)));
            });
            let before = TestedRoute {
                attrs: view.attrs.view(path.attrs).as_bytes().into(),
                next_hop: view.hops.hop(path.next_hop),
                metric: view.attrs.local(path.attrs).metric,
            };
            let accepts = |verdict: &Verdict| verdict.decision == Decision::Accept;
            PolicyTest {
                from: path.source.peer(),
                to: Some(to),
                unreached: traced.as_ref().err().map(ToString::to_string),
                before,
                steps,
                is_accepted: traced.as_ref().is_ok_and(accepts),
                rule: traced.as_ref().ok().and_then(|verdict| verdict.rule),
                preference: None,
            }
        });
        tests.collect()
    }

    /// The export policy by which a peer is sent routes of a family, while its session is up.
    pub fn export_policy(&self, peer: PeerId, family: Family) -> Option<Arc<Policy>> {
        Some(Arc::clone(&self.group_of(peer, family)?.key.export))
    }

    /// The type of a peer's session, if it has or had one.
    pub fn peer_type(&self, peer: PeerId) -> Option<PeerType> {
        Some(self.peers.get(peer)?.session.as_ref()?.peer_type)
    }
}
