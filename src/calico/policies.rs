//! The policies that confd writes as BIRD filters, compiled to margay's policy engine.
//!
//! Kernel metric and LOCAL_PREF mirror each other (`METRIC_MIRROR - metric`), so that a priority is
//! carried over iBGP. A route whose metric is below the cluster's ordinary one is *elevated*: it is
//! preferred to other sources of its prefix, and announced even if it lies inside an aggregate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bgp_proto::policy::{Change, Decision, METRIC_MIRROR, Match, Policy, PrefixSet, Rule, Source};
use bgp_proto::types::{Asn, Family, PeerType, Prefix};

use super::effective::Effective;
use super::filters::{AnyCommunity, Direction, Session, rules};
use super::model::{AffinityState, Encapsulation, IpPool, Node, exact};
use super::ownership::{self, Classes};
use super::plan::{Pool, PoolRoutes, PrefixCommunities, Problem};
use super::release::{Feature, Origin, Release};
use super::services::{ServiceRoutes, sorted};

/// Preference of elevated routes.
const ELEVATED: u16 = 200;

/// Interfaces of overlays between nodes.
const OVERLAY_INTERFACES: [&str; 2] = ["*.cali", "*.calico"];

/// The IPIP tunnel.
const TUNNEL: &str = "tunl0";

/// Whether a route's priority is carried in BGP ([`Feature::RoutePriorities`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priorities {
    Mirrored,
    /// As `Mirrored`, but Felix may be a release that writes pods' routes without a metric.
    MirroredIfGiven,
    None,
}

impl Priorities {
    fn of(release: Release) -> Self {
        match (release.has(Feature::RoutePriorities), release.origin) {
            (true, Origin::Assumed) => Priorities::MirroredIfGiven,
            (true, Origin::Given | Origin::ClusterInformation) => Priorities::Mirrored,
            (false, _) => Priorities::None,
        }
    }

    fn are_mirrored(self) -> bool {
        self != Priorities::None
    }
}

/// The inputs to all policies of a family.
pub(super) struct Parts {
    pub(super) family: Family,
    /// Kernel metric of ordinary routes.
    pub(super) normal_priority: u32,
    /// Own blocks in use, sorted as text.
    pub(super) aggregates: Vec<Prefix>,
    /// Communities by prefix, in the order of the configuration.
    pub(super) communities: Vec<(Prefix, Vec<(String, AnyCommunity)>)>,
    /// Sorted as text, which is the order in which overlapping ones are matched.
    pub(super) pools: Vec<Pool>,
    /// Pools whose routes to other nodes Felix writes, whether or not we do too, or which neither
    /// writes.
    felixs: Vec<Prefix>,
    /// Whether we write the routes of IPIP pools.
    owns_ipip: bool,
    /// Whether kernel metric and LOCAL_PREF mirror each other.
    priorities: Priorities,
    /// Of this family only.
    pub(super) services: ServiceRoutes,
    /// Whether this node reflects routes.
    is_reflector: bool,
    /// The node's own network.
    subnet: Option<Prefix>,
    /// Addresses of other nodes that run WireGuard; empty unless this one does.
    wireguard: Vec<Prefix>,
}

impl Parts {
    pub(super) fn new(
        cx: &Effective<'_>,
        family: Family,
        services: &ServiceRoutes,
        problems: &mut Vec<Problem>,
    ) -> Parts {
        let of_family = |list: &[Prefix]| -> Vec<Prefix> {
            list.iter().copied().filter(|p| p.family() == family).collect()
        };
        let subnet = cx.me.address(family).map(|host| host.network);
        let (ours, felixs) = (ownership::ours(cx), ownership::felixs(cx));
        let chosen = chosen_pools(cx, family);
        let plan = |pool: &&IpPool| planned(pool, family, ours, subnet.is_some());
        let pools: Vec<Pool> = chosen.iter().map(plan).collect();
        let of_felix = chosen.iter().zip(&pools).filter(|(pool, planned)| {
            planned.kernel == PoolRoutes::Reject || is_felixs(pool, family, felixs)
        });
        Parts {
            family,
            normal_priority: cx.normal_priority(family, problems),
            aggregates: aggregates(cx, family),
            communities: communities(cx, family, problems),
            felixs: of_felix.map(|(_, planned)| planned.cidr).collect(),
            pools,
            owns_ipip: ours.ipip,
            priorities: Priorities::of(cx.release),
            services: ServiceRoutes {
                routes: of_family(&services.routes),
                reject: of_family(&services.reject),
                load_balancer: of_family(&services.load_balancer),
                external: of_family(&services.external),
                // A policy depends on neither.
                endpoints: std::collections::BTreeMap::new(),
                reasons: Arc::default(),
            },
            is_reflector: cx.me.is_reflector(),
            subnet,
            wireguard: wireguard(cx, family),
        }
    }

    /// Lowest LOCAL_PREF of elevated routes; above [`METRIC_MIRROR`] the metric would wrap around.
    fn elevated_from(&self) -> u32 {
        METRIC_MIRROR - self.normal_priority + 1
    }

    /// [`Parts::communities`] as shown in the plan.
    pub(super) fn shown_communities(&self) -> Vec<PrefixCommunities> {
        let shown = self.communities.iter().map(|(prefix, list)| PrefixCommunities {
            prefix: *prefix,
            communities: list.iter().map(|(text, _)| text.clone()).collect(),
        });
        shown.collect()
    }

    /// The import policy of sessions with these filters.
    pub(super) fn import(
        &self,
        cx: &Effective<'_>,
        filters: &[String],
        session: Session,
    ) -> Policy {
        let mut list = filter_rules(cx, filters, Direction::Import, session);
        if self.priorities.are_mirrored() {
            list.push(next(
                "elevated routes win over local ones",
                vec![Match::HasLocalPref, Match::LocalPref(self.elevated_from()..=u32::MAX)],
                vec![Change::Preference(ELEVATED)],
            ));
        }
        policy("calico import", list, Decision::Accept)
    }

    /// The export policy of sessions with these filters.
    pub(super) fn export(
        &self,
        cx: &Effective<'_>,
        filters: &[String],
        session: Session,
    ) -> Policy {
        let learned = || vec![Match::Source(vec![Source::Bgp]), Match::HasLocalPref];
        let ours = || Match::Any(learned().into_iter().map(|m| Match::Not(Box::new(m))).collect());
        let ordinary = || vec![Change::Metric(self.normal_priority)];
        let mut list = Vec::new();
        if self.priorities == Priorities::MirroredIfGiven {
            let unset = vec![Match::Source(vec![Source::Kernel]), Match::Metric(0..=0)];
            list.push(next("metric that may not be given", unset, ordinary()));
        }
        if self.priorities.are_mirrored() {
            list.extend([
                next("metric from LOCAL_PREF", learned(), vec![Change::MetricFromLocalPref]),
                next("ordinary metric", vec![ours(), without_metric()], ordinary()),
                next("LOCAL_PREF from metric", vec![ours()], vec![Change::LocalPrefFromMetric]),
            ]);
        }
        list.extend(filter_rules(cx, filters, Direction::Export, session));
        self.push_export_rules(session.peer_type, &mut list);
        policy("calico export", list, Decision::Reject)
    }

    /// The rules of BIRD's `calico_export_to_bgp_peers`.
    fn push_export_rules(&self, peer_type: PeerType, list: &mut Vec<Rule>) {
        let of_pools = |export: bool| {
            let chosen = self.pools.iter().filter(move |p| p.export == export);
            PrefixSet::covering(chosen.map(|p| p.cidr))
        };
        push_set(list, "pool with disableBGPExport", of_pools(false), Decision::Reject);
        if peer_type == PeerType::Internal {
            let mut interfaces: Vec<String> = OVERLAY_INTERFACES.map(str::to_owned).to_vec();
            if !self.owns_ipip {
                interfaces.push(TUNNEL.to_owned());
            }
            list.push(rule(
                "overlay interface",
                vec![Match::Interface(interfaces)],
                Decision::Reject,
            ));
            self.push_other_nodes_blocks(list);
        }
        let bpf = Match::Interface(vec!["bpf*.cali".to_owned()]);
        list.push(rule("BPF interface", vec![bpf], Decision::Reject));
        for (prefix, communities) in &self.communities {
            let inside = Match::Prefix(PrefixSet::covering([*prefix]));
            let changes = communities.iter().map(|(_, community)| community.add()).collect();
            list.push(next(&format!("communities of {prefix}"), vec![inside], changes));
        }
        self.push_aggregation(list);
        let services = &self.services;
        let covering = |list: &[Prefix]| PrefixSet::covering(list.iter().copied());
        push_set(list, "service route", covering(&services.routes), Decision::Accept);
        if self.is_reflector {
            let ranges = [
                ("load balancer range", &services.load_balancer),
                ("external range", &services.external),
            ];
            for (name, range) in ranges {
                push_set(list, name, covering(range), Decision::Accept);
            }
        }
        push_set(list, "pool", of_pools(true), Decision::Accept);
    }

    /// Rejects routes by which Felix reaches another node, since that node announces them: kernel
    /// routes with a gateway, in a pool whose routes Felix writes, even if we do too. Routes to
    /// local pods have no gateway.
    ///
    /// Differs from BIRD: there such a route is announced to the whole mesh if it points out of an
    /// ordinary interface (projectcalico/calico#13533).
    fn push_other_nodes_blocks(&self, list: &mut Vec<Rule>) {
        let inside = PrefixSet::covering(self.felixs.iter().copied());
        if inside.ranges().is_empty() {
            return;
        }
        let any = |addr: IpAddr| Prefix::new(addr, 0);
        let everywhere = PrefixSet::covering([
            any(Ipv4Addr::UNSPECIFIED.into()),
            any(Ipv6Addr::UNSPECIFIED.into()),
        ]);
        let matches = vec![
            Match::Source(vec![Source::Kernel]),
            Match::Prefix(inside),
            Match::NextHop(everywhere),
        ];
        list.push(rule("another node's block, written by Felix", matches, Decision::Reject));
    }

    /// Own blocks are announced, more specific routes inside them only if elevated.
    fn push_aggregation(&self, list: &mut Vec<Rule>) {
        let blocks = &self.aggregates;
        let is_nested = blocks
            .iter()
            .any(|outer| blocks.iter().any(|inner| inner != outer && outer.contains(*inner)));
        // Disjoint blocks share one set of rules. Nested ones need their own, since the first one
        // that matches decides.
        let groups = if is_nested { blocks.chunks(1) } else { blocks.chunks(blocks.len().max(1)) };
        for group in groups {
            let inside = || Match::Prefix(PrefixSet::covering(group.iter().copied()));
            let exactly = Match::Prefix(PrefixSet::exactly(group.iter().copied()));
            let is_elevated = Match::Metric(0..=self.normal_priority - 1);
            list.push(rule("own block", vec![exactly], Decision::Accept));
            if self.priorities.are_mirrored() {
                list.push(rule(
                    "elevated route in own block",
                    vec![inside(), is_elevated],
                    Decision::Accept,
                ));
            }
            list.push(rule("part of own block", vec![inside()], Decision::Reject));
        }
    }

    /// The policy for routes to be installed in the kernel.
    pub(super) fn kernel(&self) -> Policy {
        let mut list = Vec::new();
        let already_there = Match::Source(vec![Source::Kernel, Source::Direct]);
        list.push(rule("in the kernel already", vec![already_there], Decision::Reject));
        let reject = PrefixSet::covering(self.services.reject.iter().copied());
        push_set(&mut list, "service range", reject, Decision::Reject);
        let learned = || vec![Match::Source(vec![Source::Bgp]), without_metric()];
        let with = |more: Vec<Match>| learned().into_iter().chain(more).collect::<Vec<_>>();
        if self.priorities.are_mirrored() {
            let elevated = self.elevated_from()..=METRIC_MIRROR;
            list.push(next(
                "elevated metric from LOCAL_PREF",
                with(vec![Match::HasLocalPref, Match::LocalPref(elevated)]),
                vec![Change::MetricFromLocalPref, Change::Preference(ELEVATED)],
            ));
            list.push(next(
                "metric from LOCAL_PREF",
                with(vec![Match::HasLocalPref]),
                vec![Change::MetricFromLocalPref],
            ));
            let ordinary = vec![Change::Metric(self.normal_priority)];
            list.push(next("ordinary metric", learned(), ordinary));
        }
        if !self.wireguard.is_empty() {
            let peers = PrefixSet::covering(self.wireguard.iter().copied());
            list.push(rule("WireGuard peer", vec![Match::NextHop(peers)], Decision::Reject));
        }
        self.push_pool_rules(&mut list);
        policy("calico kernel", list, Decision::Accept)
    }

    fn push_pool_rules(&self, list: &mut Vec<Rule>) {
        // For IPv6, confd writes rules for rejected pools only. An accepted pool inside a rejected
        // one is therefore rejected too, even if it sorts first.
        let is_written =
            |pool: &&Pool| self.family == Family::Ipv4 || pool.kernel != PoolRoutes::Accept;
        let pools: Vec<&Pool> = self.pools.iter().filter(is_written).collect();
        // Adjacent pools with the same treatment share a rule.
        for group in pools.chunk_by(|a, b| a.kernel == b.kernel) {
            let inside = || Match::Prefix(PrefixSet::covering(group.iter().map(|p| p.cidr)));
            let Some(first) = group.first() else { continue };
            let tunnel = || Rule {
                name: "pool through the tunnel".to_owned(),
                matches: vec![inside()],
                changes: vec![Change::Tunnel(TUNNEL.into())],
                decision: Decision::Accept,
            };
            match first.kernel {
                PoolRoutes::Accept => {
                    list.push(rule("pool", vec![inside()], Decision::Accept));
                }
                // Routes that are installed already stay until Felix replaces them: those that BIRD
                // left, if they are Felix's in this release, and ours, if a pool's mode changed.
                PoolRoutes::Reject => list.push(Rule {
                    name: "pool whose routes Felix writes".to_owned(),
                    matches: vec![inside()],
                    changes: vec![Change::KeepInstalled],
                    decision: Decision::Reject,
                }),
                PoolRoutes::Tunnel => list.push(tunnel()),
                PoolRoutes::TunnelCrossSubnet => {
                    let near = Match::NextHop(PrefixSet::covering(self.subnet));
                    list.push(rule("pool in our subnet", vec![inside(), near], Decision::Accept));
                    list.push(tunnel());
                }
            }
        }
    }
}

fn filter_rules(
    cx: &Effective<'_>,
    names: &[String],
    direction: Direction,
    session: Session,
) -> Vec<Rule> {
    let found = names.iter().filter_map(|name| cx.snapshot.filters.get(name));
    found.flat_map(|filter| rules(filter, direction, session)).collect()
}

fn policy(name: &str, rules: Vec<Rule>, default: Decision) -> Policy {
    Policy { name: name.into(), rules, default }
}

fn rule(name: &str, matches: Vec<Match>, decision: Decision) -> Rule {
    Rule { name: name.to_owned(), matches, changes: Vec::new(), decision }
}

fn next(name: &str, matches: Vec<Match>, changes: Vec<Change>) -> Rule {
    Rule { name: name.to_owned(), matches, changes, decision: Decision::Next }
}

/// Adds a rule for all routes inside a set, unless the set is empty.
fn push_set(list: &mut Vec<Rule>, name: &str, set: PrefixSet, decision: Decision) {
    if !set.ranges().is_empty() {
        list.push(rule(name, vec![Match::Prefix(set)], decision));
    }
}

fn without_metric() -> Match {
    Match::Not(Box::new(Match::Metric(0..=u32::MAX)))
}

/// Own blocks of the family, with the state of the claim, sorted as text; without pending ones.
pub(super) fn own_blocks(cx: &Effective<'_>, family: Family) -> Vec<(Prefix, AffinityState)> {
    let mut blocks: std::collections::BTreeMap<String, (Prefix, AffinityState)> =
        std::collections::BTreeMap::new();
    let mut insert = |cidr: Prefix, state| {
        if cidr.family() == family {
            blocks.insert(cidr.to_string(), (cidr, state));
        }
    };
    if cx.settings.use_pod_cidr {
        cx.me.pod_cidrs.iter().for_each(|cidr| insert(*cidr, AffinityState::Confirmed));
    } else {
        let usable = cx
            .snapshot
            .affinities_of(&cx.settings.node)
            .filter(|a| a.state != AffinityState::Pending);
        usable.for_each(|affinity| insert(affinity.cidr, affinity.state));
    }
    blocks.into_values().collect()
}

fn aggregates(cx: &Effective<'_>, family: Family) -> Vec<Prefix> {
    let blocks = own_blocks(cx, family).into_iter();
    blocks.filter(|(_, state)| *state == AffinityState::Confirmed).map(|(cidr, _)| cidr).collect()
}

/// The node's own list replaces the cluster's, for both families.
fn communities(
    cx: &Effective<'_>,
    family: Family,
    problems: &mut Vec<Problem>,
) -> Vec<(Prefix, Vec<(String, AnyCommunity)>)> {
    let (object, source, list) = match &cx.own.prefix_advertisements {
        Some(list) => (format!("BGPConfiguration/node.{}", cx.settings.node), cx.own, list),
        None => match &cx.global.prefix_advertisements {
            Some(list) => ("BGPConfiguration/default".to_owned(), cx.global, list),
            None => return Vec::new(),
        },
    };
    let mut out = Vec::new();
    for (index, advertisement) in list.iter().enumerate() {
        let mut report = |text: String| {
            let text = format!("spec.prefixAdvertisements[{index}]: {text}");
            problems.push(Problem::new(&object, text));
        };
        let prefix = match exact(&advertisement.cidr) {
            Ok(prefix) => prefix,
            Err(error) => {
                report(format!("{error}: it is skipped"));
                continue;
            }
        };
        if prefix.family() != family {
            continue;
        }
        // A name refers to a community of the same object.
        let mut texts: Vec<&str> = Vec::new();
        for text in &advertisement.communities {
            if AnyCommunity::is_literal(text) {
                texts.push(text);
            } else if let Some(named) = source.communities.iter().find(|c| c.name == *text) {
                texts.push(&named.value);
            } else {
                report(format!("no community is called \"{text}\""));
            }
        }
        texts.sort_unstable();
        texts.dedup();
        let mut parsed = Vec::new();
        for text in texts {
            match AnyCommunity::parse(text) {
                Some(community) => parsed.push((text.to_owned(), community)),
                None => report(format!("\"{text}\" is not a community (a:b or a:b:c)")),
            }
        }
        if !parsed.is_empty() {
            out.push((prefix, parsed));
        }
    }
    out
}

/// The pools in use, sorted by the text of their CIDRs. Of several with one CIDR, only the first by
/// name is used.
fn chosen_pools<'a>(cx: &Effective<'a>, family: Family) -> Vec<&'a IpPool> {
    let mut by_cidr: std::collections::BTreeMap<Prefix, &IpPool> =
        std::collections::BTreeMap::new();
    for pool in cx.snapshot.pools.values().filter(|p| p.cidr.family() == family) {
        by_cidr.entry(pool.cidr).or_insert(pool);
    }
    let cidrs = sorted(by_cidr.keys().copied());
    cidrs.into_iter().filter_map(|cidr| by_cidr.get(&cidr).copied()).collect()
}

/// How the routes of a pool are treated.
fn planned(pool: &IpPool, family: Family, ours: Classes, has_subnet: bool) -> Pool {
    let kernel = match (pool.encapsulation, family) {
        // Without a subnet the node cannot tell which next hops are on its link, and accepts all
        // routes.
        (_, Family::Ipv4) if !has_subnet => PoolRoutes::Accept,
        (encapsulation, _) if !ours.have(encapsulation) => PoolRoutes::Reject,
        (Encapsulation::IpipAlways, Family::Ipv4) => PoolRoutes::Tunnel,
        (Encapsulation::IpipCrossSubnet, Family::Ipv4) => PoolRoutes::TunnelCrossSubnet,
        (_, Family::Ipv4 | Family::Ipv6) => PoolRoutes::Accept,
    };
    Pool { cidr: pool.cidr, export: !pool.disable_bgp_export, kernel }
}

/// Whether Felix writes the routes of a pool to other nodes.
fn is_felixs(pool: &IpPool, family: Family, felixs: Classes) -> bool {
    match (pool.encapsulation, family) {
        (Encapsulation::Vxlan, _) => true,
        (Encapsulation::IpipAlways | Encapsulation::IpipCrossSubnet, Family::Ipv6) => false,
        (encapsulation, _) => felixs.have(encapsulation),
    }
}

fn wireguard(cx: &Effective<'_>, family: Family) -> Vec<Prefix> {
    let runs_it = |node: &Node| {
        if cx.settings.use_pod_cidr {
            node.has_pod_cidr_wireguard(family)
        } else {
            node.has_wireguard(family)
        }
    };
    if !runs_it(cx.me) || !cx.release.has(Feature::WireguardByFelix) {
        return Vec::new();
    }
    let others = cx.snapshot.nodes.values().filter(|n| n.name != cx.me.name);
    others
        .filter(|node| runs_it(node))
        .filter_map(|node| node.address(family))
        .map(|host| Prefix::host(host.addr))
        .collect()
}

/// Maximum number of cached combinations of filters and AS. If there are more, most are assumed to
/// belong to removed sessions: the cache is cleared, and fills again from the present ones.
const KEYS_MAX: usize = 256;

/// Import and export policy of a session.
pub(super) type PolicyPair = (Arc<Policy>, Arc<Policy>);

/// Compiles policies once for all sessions that share them, and reuses equal ones from the previous
/// plan, so that unchanged policies compare equal by pointer.
#[derive(Default)]
pub(super) struct PolicyCache {
    previous: Vec<Arc<Policy>>,
    current: Vec<Arc<Policy>>,
    by_session: std::collections::HashMap<SessionKey, PolicyPair>,
    /// The last result: consecutive sessions mostly share their policies.
    last: Option<(SessionKey, PolicyPair)>,
}

/// What determines the policies of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SessionKey {
    family: Family,
    peer_type: PeerType,
    local_asn: Asn,
    filters: Vec<String>,
}

impl PolicyCache {
    /// Begins a plan; only policies of the previous plan can be reused.
    pub(super) fn begin(&mut self) {
        self.previous = std::mem::take(&mut self.current);
        self.last = None;
    }

    /// Clears the cached combinations.
    pub(super) fn forget_sessions(&mut self) {
        self.by_session.clear();
    }

    /// Recompiles all cached policies of the family. Returns whether any may have changed.
    pub(super) fn refresh(&mut self, cx: &Effective<'_>, parts: &Parts) -> bool {
        let keys: Vec<SessionKey> =
            self.by_session.keys().filter(|key| key.family == parts.family).cloned().collect();
        if keys.len() > KEYS_MAX {
            self.by_session.retain(|key, _| key.family != parts.family);
            return true;
        }
        let mut differs = false;
        for key in keys {
            let (import, export) = self.compile(cx, parts, &key);
            let before = self.by_session.insert(key, (Arc::clone(&import), Arc::clone(&export)));
            differs |= before.is_none_or(|(old_import, old_export)| {
                !Arc::ptr_eq(&old_import, &import) || !Arc::ptr_eq(&old_export, &export)
            });
        }
        differs
    }

    fn compile(&mut self, cx: &Effective<'_>, parts: &Parts, key: &SessionKey) -> PolicyPair {
        let SessionKey { family, peer_type, local_asn, ref filters } = *key;
        let session = Session { family, peer_type, local_asn };
        let import = self.shared(parts.import(cx, filters, session));
        let export = self.shared(parts.export(cx, filters, session));
        (import, export)
    }

    pub(super) fn shared(&mut self, policy: Policy) -> Arc<Policy> {
        let known = self.current.iter().chain(&self.previous).find(|p| ***p == policy);
        let policy = known.map_or_else(|| Arc::new(policy), Arc::clone);
        if !self.current.iter().any(|p| Arc::ptr_eq(p, &policy)) {
            self.current.push(Arc::clone(&policy));
        }
        policy
    }

    /// Import and export policy of a session.
    pub(super) fn of_session(
        &mut self,
        cx: &Effective<'_>,
        parts: &Parts,
        session: &super::plan::Session,
    ) -> PolicyPair {
        let peer_type = if session.internal { PeerType::Internal } else { PeerType::External };
        if let Some((key, policies)) = &self.last
            && key.family == parts.family
            && key.peer_type == peer_type
            && key.local_asn == session.local_asn
            && key.filters == session.filters
        {
            return policies.clone();
        }
        self.compiled(cx, parts, session, peer_type)
    }

    fn compiled(
        &mut self,
        cx: &Effective<'_>,
        parts: &Parts,
        session: &super::plan::Session,
        peer_type: PeerType,
    ) -> PolicyPair {
        let key = SessionKey {
            family: parts.family,
            peer_type,
            local_asn: session.local_asn,
            filters: session.filters.clone(),
        };
        if let Some(known) = self.by_session.get(&key).cloned() {
            self.last = Some((key, known.clone()));
            return known;
        }
        let policies = self.compile(cx, parts, &key);
        self.last = Some((key.clone(), policies.clone()));
        self.by_session.insert(key, policies.clone());
        policies
    }
}
