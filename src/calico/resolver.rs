//! Computes the plan from the objects, from scratch or from what changed.
//!
//! The plan consists of parts, each of which depends on few objects: a session of the mesh on one
//! other node, the entries of a BGPPeer on it and on the nodes that it names, the sessions of a
//! neighbour address on the parts that name the address. [`Resolver`] keeps these parts, recomputes
//! only those whose objects changed, and updates the list of sessions accordingly.

mod reasons;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{ExtCommunity, Family, Prefix};

use super::assembly::{AtAddress, HostRoute, SessionList};
use super::effective::{Effective, NodeFinder, release};
use super::filters::check;
use super::model::{BgpConfiguration, Decoded, Kind, Node, Object, ObjectId};
use super::notes::Notes;
use super::ownership;
use super::peers::{Dependence, Pass, PeerEntries, entries};
use super::plan::{
    Families, FamilyPlan, Listen, Plan, Problem, Session, StaticKind, StaticRoute, Touched,
};
use super::policies::{Parts, PolicyCache, own_blocks};
use super::release::{Origin, Release};
use super::services::{ServiceName, ServiceRoutes, Services};
use super::sessions::{family_of, mesh_session};
use super::settings::{Settings, drain_reason};
use super::snapshot::Snapshot;
use reasons::Reasons;

/// If the node's own object is missing, the names of up to this many other nodes are listed.
const NODES_NAMED: usize = 5;

/// Interfaces whose networks are never announced.
const IGNORED_INTERFACES: [&str; 2] = ["cali*", "kube-ipvs*"];

/// The key of an entry of the peer table: its address and pass, then BGPPeer and remote node.
type Place = (IpAddr, Pass, Arc<str>, Arc<str>);

/// Computes the plan from a snapshot.
pub fn resolve(snapshot: &Snapshot, settings: &Settings) -> Plan {
    Resolver::of(snapshot.clone(), settings.clone()).plan()
}

/// Keeps the objects, and updates the plan as they change.
#[derive(Default)]
pub struct Resolver {
    settings: Option<Settings>,
    snapshot: Snapshot,
    changed: Changed,
    /// By node name: the session of each family.
    mesh: BTreeMap<Arc<str>, MeshNode>,
    peers: BTreeMap<Arc<str>, PeerEntries>,
    /// Entries of BGPPeers by address, in order of precedence.
    places: BTreeSet<Place>,
    /// Addresses to reassemble.
    stale: BTreeSet<IpAddr>,
    lists: [SessionList; 2],
    /// Problems of parts; only parts with problems have an entry.
    part_problems: BTreeMap<(Part, Arc<str>), Vec<Problem>>,
    touched: Touched,
    services: Option<(Services, Vec<Problem>)>,
    reasons: Reasons,
    /// Problems of configurations and filters, in use or not.
    object_problems: Vec<Problem>,
    policies: PolicyCache,
    notes: Notes,
    /// See [`Resolver::hold_release`].
    held_release: Option<Release>,
}

/// The sessions of the mesh with a node.
type MeshNode = [Option<Arc<Session>>; 2];

/// The kind of object for which a part of the plan is made; keys also hold the object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    MeshNode,
    BgpPeer,
}

/// What changed since the last plan.
#[derive(Default)]
struct Changed {
    /// Something on which many parts depend.
    everything: bool,
    /// Other nodes, as they were at the last plan.
    nodes: BTreeMap<String, Option<Arc<Node>>>,
    peers: BTreeSet<String>,
    services: bool,
    /// Services of which only endpoints changed.
    endpoints: BTreeSet<ServiceName>,
    /// A BGPConfiguration or BGPFilter.
    objects: bool,
}

impl Resolver {
    /// A resolver without any object.
    pub fn new(settings: Settings) -> Self {
        Resolver { settings: Some(settings), ..Resolver::default() }
    }

    /// A resolver with these objects.
    pub fn of(snapshot: Snapshot, settings: Settings) -> Self {
        Resolver { snapshot, ..Resolver::new(settings) }
    }

    /// The objects.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Stores an object, or its absence. Nothing is computed before [`Resolver::plan`]. Returns
    /// whether the plan may change: most changes to a cluster's Nodes do not concern BGP.
    pub fn apply(&mut self, decoded: Decoded) -> bool {
        if self.snapshot.holds(&decoded) {
            return false;
        }
        let id = decoded.id.clone();
        self.note(&id);
        self.snapshot.apply(decoded);
        self.note_endpoint(&id);
        self.note_slice(&id);
        true
    }

    /// Stores the keys of a Secret that an earlier run knew. They are used where the Secret has
    /// none.
    pub fn remember_keys(&mut self, decoded: &Decoded) {
        if let Ok(Some(Object::Secret(secret))) = &decoded.object {
            self.note(&decoded.id);
            self.snapshot.remember_keys(&decoded.id, secret);
        }
    }

    /// Removes an object.
    pub fn withdraw(&mut self, id: &ObjectId) {
        self.note(id);
        self.snapshot.withdraw(id);
    }

    /// Marks what depends on an object that is about to change.
    fn note(&mut self, id: &ObjectId) {
        let changed = &mut self.changed;
        match id.kind {
            Kind::Node | Kind::KubernetesNode => {
                let is_own = self.settings.as_ref().is_some_and(|s| s.node == id.name);
                changed.everything |= is_own;
                let old = self.snapshot.node(&id.name).cloned();
                changed.nodes.entry(id.name.clone()).or_insert(old);
            }
            Kind::BgpConfiguration => {
                changed.objects = true;
                match id.name.strip_prefix("node.") {
                    Some(node) if self.settings.as_ref().is_some_and(|s| s.node != node) => {
                        let old = self.snapshot.node(node).cloned();
                        changed.nodes.entry(node.to_owned()).or_insert(old);
                    }
                    _ => changed.everything = true,
                }
            }
            Kind::BgpPeer => {
                changed.peers.insert(id.name.clone());
            }
            Kind::BgpFilter | Kind::Secret | Kind::ClusterInformation => changed.everything = true,
            Kind::Service => changed.services = true,
            Kind::EndpointSlice => self.note_slice(id),
            Kind::LocalEndpoint => self.note_endpoint(id),
            // What depends on these is recomputed for every plan.
            Kind::IpPool | Kind::BlockAffinity | Kind::FelixConfiguration => {}
        }
    }

    /// Marks the BGPPeer of a local workload as changed.
    fn note_endpoint(&mut self, id: &ObjectId) {
        if id.kind == Kind::LocalEndpoint
            && let Some(endpoint) = self.snapshot.endpoints.get(&id.name)
        {
            self.changed.peers.insert(endpoint.peer.as_ref().to_owned());
        }
    }

    /// Marks the endpoints of the service that an EndpointSlice names as changed.
    fn note_slice(&mut self, id: &ObjectId) {
        if id.kind == Kind::EndpointSlice {
            self.changed.endpoints.extend(self.snapshot.service_of(id).cloned());
        }
    }

    /// Keeps the first release that ClusterInformation named in force from here on. This node's
    /// calico-node stays the same while this process, a part of it, runs, whereas the object names
    /// the release of whichever calico-node started last, which alternates during a rolling
    /// upgrade.
    pub fn hold_release(&mut self, release: Release) {
        if release.origin == Origin::ClusterInformation {
            self.held_release.get_or_insert(release);
        }
    }

    /// The release that [`Resolver::hold_release`] keeps in force.
    pub fn held_release(&self) -> Option<Release> {
        self.held_release
    }

    /// The release for which the plan is made.
    fn release(&self, settings: &Settings, notes: &mut Vec<Problem>) -> Release {
        let named = release(settings, &self.snapshot, notes);
        let held = self.held_release.filter(|_| named.origin != Origin::Given);
        let Some(held) = held.filter(|held| *held != named) else { return named };
        let text = format!(
            "Calico {} is named by now: this node goes on as with {}, with which margay began, until \
             margay is started again, as it is with an upgrade of its own calico-node",
            named.version, held.version
        );
        notes.push(Problem::new("ClusterInformation/default", text));
        held
    }

    /// The plan for the present objects.
    pub fn plan(&mut self) -> Plan {
        let settings = self.settings.clone().unwrap_or_else(|| Settings::new(""));
        let missing = missing(&settings, &self.snapshot);
        let mut problems = unreadable(&self.snapshot, missing.as_ref());
        let mut notes = Vec::new();
        let release = self.release(&settings, &mut notes);
        // Moved out so that it can be borrowed while the parts are updated.
        let snapshot = std::mem::take(&mut self.snapshot);
        let plan = match Effective::new(&settings, &snapshot, release) {
            Some(cx) if missing.is_none() => {
                self.update_parts(&cx);
                self.assemble(&cx, problems, notes)
            }
            _ => {
                // The next plan is computed from scratch.
                self.changed.everything = true;
                let stuck = missing.as_ref().map(|p| format!("{}: {}", p.object, p.text));
                problems.extend(missing);
                Plan {
                    node: settings.node.clone(),
                    speaks_bgp: true,
                    families: Families::default(),
                    cluster_id: None,
                    drain: None,
                    release,
                    problems: tidy(problems),
                    doubts: notes.clone(),
                    notes: tidy(notes),
                    reasons: Arc::default(),
                    is_complete: false,
                    stuck,
                }
            }
        };
        self.snapshot = snapshot;
        plan
    }

    /// Which sessions may differ since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Recomputes the parts whose objects changed.
    fn update_parts(&mut self, cx: &Effective<'_>) {
        let is_first = self.mesh.is_empty() && self.peers.is_empty();
        let changed = std::mem::take(&mut self.changed);
        let mut finder = NodeFinder::new(cx.snapshot);
        let everything = changed.everything || is_first;
        self.notes.update(cx, &mut finder, everything, &changed.nodes, &changed.peers);
        if changed.everything || changed.objects || is_first {
            self.object_problems = problems_of_objects(cx);
        }
        if changed.everything || is_first {
            self.forget();
            for node in cx.snapshot.nodes.values() {
                self.put_mesh_node(cx, &node.name);
            }
            for peer in cx.snapshot.peers.values() {
                self.put_peer(&peer.name, Some(entries(cx, &mut finder, peer)));
            }
        } else {
            self.update_nodes(cx, &mut finder, &changed);
            for name in &changed.peers {
                let peer = cx.snapshot.peers.get(name.as_str());
                let entries_of_peer = peer.map(|peer| entries(cx, &mut finder, peer));
                self.put_peer(&name.as_str().into(), entries_of_peer);
            }
        }
        let is_updated = match &mut self.services {
            Some((services, _)) if !changed.services => services.update(cx, &changed.endpoints),
            _ => false,
        };
        if !is_updated {
            let mut problems = Vec::new();
            let services = Services::new(cx, &mut problems);
            self.services = Some((services, problems));
        }
    }

    /// Clears all parts.
    fn forget(&mut self) {
        self.mesh.clear();
        self.peers.clear();
        self.places.clear();
        self.stale.clear();
        self.lists = Default::default();
        self.part_problems.clear();
        self.touched = Touched::All;
        self.services = None;
        self.policies.forget_sessions();
    }

    fn update_nodes<'a>(
        &mut self,
        cx: &Effective<'a>,
        finder: &mut NodeFinder<'a>,
        changed: &Changed,
    ) {
        for (name, old) in &changed.nodes {
            let new = cx.snapshot.node(name);
            let versions = || [old.as_ref(), new].into_iter().flatten();
            let depends =
                |known: &PeerEntries| versions().filter_map(|node| known.dependence_on(node)).max();
            let of_peers: Vec<(Arc<str>, Dependence)> = self
                .peers
                .iter()
                .filter_map(|(peer, known)| Some((Arc::clone(peer), depends(known)?)))
                .collect();
            let name: Arc<str> = name.as_str().into();
            self.put_mesh_node(cx, &name);
            for (peer, dependence) in of_peers {
                let entries_of_peer = match dependence {
                    Dependence::Wholly => {
                        cx.snapshot.peers.get(&*peer).map(|peer| entries(cx, finder, peer))
                    }
                    Dependence::AsOne => {
                        self.update_entries(cx, &peer, &name);
                        continue;
                    }
                };
                self.put_peer(&peer, entries_of_peer);
            }
        }
    }

    fn put_mesh_node(&mut self, cx: &Effective<'_>, name: &Arc<str>) {
        let mut problems = Vec::new();
        let fresh = cx.snapshot.node(name).map(|node| {
            Family::ALL.map(|family| mesh_session(cx, node, family, &mut problems).map(Arc::new))
        });
        let old = match &fresh {
            Some(sessions) => self.mesh.insert(Arc::clone(name), sessions.clone()),
            None => self.mesh.remove(name),
        };
        let sessions = old.iter().chain(&fresh).flatten().flatten();
        self.stale.extend(sessions.map(|session| session.neighbor));
        self.set_part_problems(Part::MeshNode, name, problems);
    }

    /// Replaces the entries of a BGPPeer.
    fn put_peer(&mut self, name: &Arc<str>, fresh: Option<PeerEntries>) {
        if let Some(old) = self.peers.remove(name) {
            for place in places(name, &old, None) {
                self.places.remove(&place);
                self.stale.insert(place.0);
            }
        }
        let problems = fresh.iter().flat_map(PeerEntries::problems).cloned().collect();
        self.set_part_problems(Part::BgpPeer, name, problems);
        if let Some(fresh) = fresh {
            self.note_places(name, &fresh, None);
            self.peers.insert(Arc::clone(name), fresh);
        }
    }

    /// Recomputes the entries of one remote node of a BGPPeer.
    fn update_entries(&mut self, cx: &Effective<'_>, peer: &Arc<str>, node: &Arc<str>) {
        let Some(mut known) = self.peers.remove(peer) else { return };
        for place in places(peer, &known, Some(node)) {
            self.places.remove(&place);
            self.stale.insert(place.0);
        }
        known.update_node(cx, node);
        self.note_places(peer, &known, Some(node));
        let problems = known.problems().cloned().collect();
        self.set_part_problems(Part::BgpPeer, peer, problems);
        self.peers.insert(Arc::clone(peer), known);
    }

    fn note_places(&mut self, peer: &Arc<str>, known: &PeerEntries, node: Option<&Arc<str>>) {
        for place in places(peer, known, node) {
            self.stale.insert(place.0);
            self.places.insert(place);
        }
    }

    fn set_part_problems(&mut self, part: Part, name: &Arc<str>, problems: Vec<Problem>) {
        let key = (part, Arc::clone(name));
        if problems.is_empty() {
            self.part_problems.remove(&key);
        } else {
            self.part_problems.insert(key, problems);
        }
    }

    fn assemble(
        &mut self,
        cx: &Effective<'_>,
        mut problems: Vec<Problem>,
        mut notes: Vec<Problem>,
    ) -> Plan {
        let mut doubts = Vec::new();
        ownership::check(cx, &mut doubts);
        problems.extend(doubts.iter().cloned());
        // At this point `notes` holds only those about the release.
        doubts.extend(notes.iter().cloned());
        notes.extend(self.notes.iter().cloned());
        problems.extend(self.part_problems.values().flatten().cloned());
        problems.extend(self.object_problems.iter().cloned());
        if let Some((_, of_services)) = &self.services {
            problems.extend(of_services.iter().cloned());
        }
        if cx.asn.0 == 0 {
            let text = "the node's AS number is 0: no session can start";
            problems.push(Problem::new(format!("Node/{}", cx.me.name), text));
        }
        let router_id = cx.router_id(&mut problems);
        self.policies.begin();
        let stale = std::mem::take(&mut self.stale);
        let mut family = |family| {
            let mut plan = self.family(cx, family, &stale, &mut problems);
            plan.router_id = router_id;
            plan
        };
        let families = Families { ipv4: family(Family::Ipv4), ipv6: family(Family::Ipv6) };
        let shadowed: Vec<Problem> =
            Family::ALL.into_iter().flat_map(|f| self.list(f).notes().cloned()).collect();
        Plan {
            node: cx.settings.node.clone(),
            speaks_bgp: true,
            families,
            cluster_id: cx.me.cluster_id.parse().ok(),
            drain: drain_reason(cx.settings.drain_by, cx.me),
            release: cx.release,
            problems: tidy(problems),
            notes: tidy(notes.into_iter().chain(shadowed).collect()),
            doubts: tidy(doubts),
            reasons: {
                let services = self.services.as_ref().map(|(services, _)| &services.routes.reasons);
                self.reasons.review(cx, services, &self.lists)
            },
            is_complete: true,
            stuck: None,
        }
    }

    fn family(
        &mut self,
        cx: &Effective<'_>,
        family: Family,
        stale: &BTreeSet<IpAddr>,
        problems: &mut Vec<Problem>,
    ) -> FamilyPlan {
        let no_services = ServiceRoutes::default();
        let services =
            self.services.as_ref().map_or(&no_services, |(services, _)| &services.routes);
        let parts = Parts::new(cx, family, services, problems);
        let enabled = cx.me.address(family).is_some() && cx.asn.0 != 0;
        self.update_sessions(cx, &parts, enabled, stale);
        let list = self.list(family);
        problems.extend(list.problems().cloned());
        FamilyPlan {
            enabled,
            router_id: None,
            asn: cx.asn,
            listen: listen(cx, family),
            sessions: Arc::clone(&list.sessions),
            statics: statics(cx, family, &parts, self.endpoints(), list),
            communities: parts.shown_communities(),
            kernel_reject: parts.services.reject.clone(),
            ignored_interfaces: cx
                .global
                .ignored_interfaces
                .iter()
                .cloned()
                .chain(IGNORED_INTERFACES.map(str::to_owned))
                .collect(),
            kernel: self.policies.shared(parts.kernel()),
            pools: parts.pools,
            aggregates: parts.aggregates,
        }
    }

    /// Reassembles stale addresses and updates the list of sessions.
    fn update_sessions(
        &mut self,
        cx: &Effective<'_>,
        parts: &Parts,
        enabled: bool,
        stale: &BTreeSet<IpAddr>,
    ) {
        let of_family = stale.iter().filter(|addr| family_of(**addr) == parts.family);
        let fresh: Vec<(IpAddr, AtAddress)> =
            of_family.map(|addr| (*addr, self.at_address(cx, *addr, enabled))).collect();
        let differs = self.policies.refresh(cx, parts);
        let [ipv4, ipv6] = &mut self.lists;
        let list = if parts.family == Family::Ipv4 { ipv4 } else { ipv6 };
        let policies = &mut self.policies;
        let names = list.update(fresh, |session| policies.of_session(cx, parts, session));
        if differs {
            list.assign(|session| policies.of_session(cx, parts, session));
            self.touched = Touched::All;
        }
        if let Touched::These(touched) = &mut self.touched {
            touched.extend(names);
        }
    }

    /// The ready endpoints on this node, by announced address.
    fn endpoints(&self) -> Option<&BTreeMap<Prefix, u32>> {
        self.services.as_ref().map(|(services, _)| &services.routes.endpoints)
    }

    fn list(&self, family: Family) -> &SessionList {
        let [ipv4, ipv6] = &self.lists;
        if family == Family::Ipv4 { ipv4 } else { ipv6 }
    }

    /// The sessions and routes of an address: for each port the first entry, and those of the mesh.
    fn at_address(&self, cx: &Effective<'_>, addr: IpAddr, enabled: bool) -> AtAddress {
        let mut at = AtAddress::default();
        let mut ports: Vec<(u16, &Arc<str>)> = Vec::new();
        let mut sessions = Vec::new();
        let first: Place = (addr, Pass::Global, Arc::default(), Arc::default());
        for (_, pass, peer, node) in self.places.range(first..).take_while(|p| p.0 == addr) {
            let part = self.peers.get(peer).and_then(|known| known.part(*pass, node));
            let neighbors = part.into_iter().flat_map(|part| &part.neighbors);
            for neighbor in neighbors.filter(|n| n.addr == addr) {
                if let Some((_, holder)) = ports.iter().find(|(port, _)| *port == neighbor.port) {
                    // Peering back, or twice by one BGPPeer, meets an existing session by design:
                    // no note.
                    if *holder != peer && *pass != Pass::Reverse {
                        at.note_shadowed(peer, holder, addr);
                    }
                    continue;
                }
                ports.push((neighbor.port, peer));
                sessions.extend(neighbor.session.clone());
                let (scope, port) = (neighbor.scope, neighbor.port);
                at.routes.extend(neighbor.reachable_by.map(|gateway| HostRoute {
                    scope,
                    port,
                    gateway,
                    peer: Arc::clone(peer),
                }));
            }
        }
        let index = usize::from(addr.is_ipv6());
        let mut meshed: Vec<&str> = Vec::new();
        for node in cx.snapshot.nodes_at(&addr.to_string()) {
            let of_node = self.mesh.get(&node.name).and_then(|sessions| sessions[index].as_ref());
            if let Some(session) = of_node {
                meshed.push(&node.name);
                sessions.push(Arc::clone(session));
            }
        }
        if enabled {
            at.set_sessions(sessions, || shared_address(addr, &meshed));
        }
        at
    }
}

/// The keys of the entries of a BGPPeer, or of one of its remote nodes.
fn places(peer: &Arc<str>, known: &PeerEntries, node: Option<&Arc<str>>) -> Vec<Place> {
    let parts: Vec<_> = match node {
        None => known.parts().collect(),
        Some(node) => [Pass::Global, Pass::Own, Pass::Reverse]
            .into_iter()
            .filter_map(|pass| Some((pass, node, known.part(pass, node)?)))
            .collect(),
    };
    let place = |(pass, node, part): &(Pass, &Arc<str>, &super::peers::Entries)| -> Vec<Place> {
        let neighbors = part.neighbors.iter();
        neighbors.map(|n| (n.addr, *pass, Arc::clone(peer), Arc::clone(node))).collect()
    };
    parts.iter().flat_map(place).collect()
}

/// Problems of objects by themselves: configurations whose names apply to nothing, and rules of
/// filters that match nothing, whether a BGPPeer names the filter or not.
fn problems_of_objects(cx: &Effective<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in cx.snapshot.configurations.keys() {
        if name != "default" && !name.starts_with("node.") {
            let text = "the name is neither \"default\" nor \"node.NAME\": it is ignored";
            problems.push(Problem::new(format!("BGPConfiguration/{name}"), text));
        }
    }
    problems.extend(unknown_values(cx.global));
    cx.snapshot.filters.values().for_each(|filter| check(filter, &mut problems));
    problems
}

/// Values of the default configuration that Calico does not know, with the value used instead.
fn unknown_values(global: &BgpConfiguration) -> impl Iterator<Item = Problem> {
    let words = [
        ("bindMode", &global.bind_mode, ["None", "NodeIP"], "None"),
        (
            "serviceLoadBalancerAggregation",
            &global.service_load_balancer_aggregation,
            ["Enabled", "Disabled"],
            "Disabled",
        ),
    ];
    words
        .into_iter()
        .filter(|(_, word, known, _)| !word.is_empty() && !known.contains(&word.as_str()))
        .map(|(field, word, _, used)| {
            let text = format!("spec.{field}: \"{word}\" is not a value: {used} is used");
            Problem::new("BGPConfiguration/default", text)
        })
}

/// The problem that several nodes of the mesh have one address.
fn shared_address(addr: IpAddr, nodes: &[&str]) -> Problem {
    let object = format!("Node/{}", nodes.last().copied().unwrap_or_default());
    Problem::new(object, format!("{addr} is the address of {}: the first counts", nodes.join(", ")))
}

fn listen(cx: &Effective<'_>, family: Family) -> Listen {
    let is_bound = cx.global.bind_mode == "NodeIP";
    let address = cx.me.address(family).filter(|_| is_bound).map(|host| host.addr);
    let port = cx.port_of(cx.me);
    Listen { address, port: if port == 0 { super::sessions::BGP_PORT } else { port } }
}

/// Own blocks, then services, then host routes to neighbours.
fn statics(
    cx: &Effective<'_>,
    family: Family,
    parts: &Parts,
    endpoints: Option<&BTreeMap<Prefix, u32>>,
    list: &SessionList,
) -> Vec<StaticRoute> {
    let blackhole = |prefix: Prefix| StaticRoute {
        prefix,
        kind: StaticKind::Blackhole,
        gateway: None,
        bandwidth: None,
        community: None,
    };
    let blocks = own_blocks(cx, family).into_iter();
    let mut statics: Vec<StaticRoute> = blocks
        .filter(|(cidr, _)| cidr.len() != family.max_len())
        .map(|(cidr, _)| blackhole(cidr))
        .collect();
    let scope = cx.settings.endpoint_weights.scope();
    let each = cx.settings.endpoint_bandwidth;
    statics.extend(parts.services.routes.iter().map(|prefix| {
        let count = endpoints.and_then(|counts| counts.get(prefix)).copied();
        let bandwidth = count.map(|count| each.saturating_mul(count.into()));
        let community = bandwidth
            .zip(scope)
            .map(|(octets, scope)| ExtCommunity::of_link_bandwidth(cx.asn, octets, scope));
        StaticRoute { bandwidth, community, ..blackhole(*prefix) }
    }));
    let via = |(prefix, route): (Prefix, &HostRoute)| StaticRoute {
        prefix,
        kind: StaticKind::Via,
        gateway: Some(route.gateway),
        bandwidth: None,
        community: None,
    };
    statics.extend(list.host_routes().into_iter().map(via));
    statics
}

/// Objects that cannot be read, with what is used instead; the object that `missing` names has its
/// fault only.
fn unreadable(snapshot: &Snapshot, missing: Option<&Problem>) -> Vec<Problem> {
    let problem = |(id, fault): (&ObjectId, &String)| {
        let text = if snapshot.knows(id) {
            format!("{fault}: its last good state is used")
        } else if missing.is_some_and(|missing| missing.object == id.to_string()) {
            fault.clone()
        } else {
            format!("{fault}: it is passed over, as no good state of it is known")
        };
        Problem::new(id, text)
    };
    snapshot.unreadable().iter().map(problem).collect()
}

/// An object without which nothing can be computed, if it is missing or was never readable.
fn missing(settings: &Settings, snapshot: &Snapshot) -> Option<Problem> {
    let unknown = |object: ObjectId| {
        let text = "it cannot be read and no earlier state of it is known: nothing can be computed";
        Problem::new(object, text)
    };
    let is_unreadable = |id: &ObjectId| snapshot.unreadable().contains_key(id);
    if snapshot.node(&settings.node).is_none() {
        let own =
            [Kind::Node, Kind::KubernetesNode].map(|kind| ObjectId::new(kind, &settings.node));
        if let Some(id) = own.into_iter().find(is_unreadable) {
            return Some(unknown(id));
        }
        let names: Vec<&str> = snapshot.nodes.keys().map(|name| &**name).collect();
        let known = match names.as_slice() {
            [] => "there is no Node at all".to_owned(),
            [first @ .., last] if names.len() <= NODES_NAMED => match first {
                [] => format!("there is {last}"),
                _ => format!("there are {} and {last}", first.join(", ")),
            },
            _ => format!("there are {} others", names.len()),
        };
        let text = format!(
            "the node's own object is missing: nothing can be computed; {known}: set NODENAME to \
             this node's name"
        );
        return Some(Problem::new(format!("Node/{}", settings.node), text));
    }
    // Its defaults would replace what is in force: another AS number, or a mesh that was disabled.
    let default = ObjectId::new(Kind::BgpConfiguration, "default");
    (is_unreadable(&default) && !snapshot.knows(&default)).then(|| unknown(default))
}

fn tidy(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests;
