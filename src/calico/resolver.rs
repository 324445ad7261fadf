//! From objects to the plan, all at once or by what changed.
//!
//! The plan is made of parts that depend on few objects each: a session of the mesh on one other
//! node, the entries of a BGPPeer on it and on the nodes that it names. [`Resolver`] keeps these
//! parts and works out again only those whose objects changed; putting the parts together is done
//! every time, and is little work for each session.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Family, Prefix};

use super::effective::{Effective, NodeFinder};
use super::filters::check;
use super::model::{AffinityState, Decoded, Kind, Node, ObjectId};
use super::peers::{Neighbor, PeerEntries, entries};
use super::plan::{
    Families, FamilyPlan, Listen, Plan, PlannedSession, Problem, Session, StaticKind, StaticRoute,
};
use super::policies::{Parts, PolicyCache, own_blocks};
use super::services::{ServiceRoutes, service_routes};
use super::sessions::{family_of, mesh_session};
use super::settings::Settings;
use super::snapshot::Snapshot;

/// Interfaces that never are networks of ours.
const IGNORED_INTERFACES: [&str; 2] = ["cali*", "kube-ipvs*"];

/// Hashes neighbours' addresses and ports: they come from the cluster's own objects, so speed counts
/// and collisions that somebody aims at do not.
type PlaceHash = foldhash::fast::FixedState;

/// Works the plan out from a snapshot.
pub fn resolve(snapshot: &Snapshot, settings: &Settings) -> Plan {
    Resolver { snapshot: snapshot.clone(), ..Resolver::new(settings.clone()) }.plan()
}

/// Keeps objects and the plan that follows from them.
#[derive(Default)]
pub struct Resolver {
    settings: Option<Settings>,
    snapshot: Snapshot,
    changed: Changed,
    /// By node: the session of each family.
    mesh: BTreeMap<Arc<str>, MeshNode>,
    peers: BTreeMap<Arc<str>, PeerEntries>,
    services: Option<(ServiceRoutes, Vec<Problem>)>,
    /// What is wrong with configurations and filters, in use or not.
    of_objects: Vec<Problem>,
    policies: PolicyCache,
}

#[derive(Default)]
struct MeshNode {
    sessions: [Option<Arc<Session>>; 2],
    problems: Vec<Problem>,
}

/// What changed since the last plan.
#[derive(Default)]
struct Changed {
    /// Something that many parts depend on.
    everything: bool,
    /// Other nodes, as they were at the last plan.
    nodes: BTreeMap<String, Option<Arc<Node>>>,
    peers: BTreeSet<String>,
    services: bool,
    /// A BGPConfiguration or BGPFilter.
    objects: bool,
}

impl Resolver {
    /// Without any object yet.
    pub fn new(settings: Settings) -> Self {
        Resolver { settings: Some(settings), ..Resolver::default() }
    }

    /// The objects.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes an object in, or its absence. Nothing is worked out before [`Resolver::plan`].
    pub fn apply(&mut self, decoded: Decoded) {
        self.note(&decoded.id);
        let endpoint = decoded.id.clone();
        self.snapshot.apply(decoded);
        self.note_endpoint(&endpoint);
    }

    /// Takes an object out.
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
            Kind::BgpFilter | Kind::Secret => changed.everything = true,
            Kind::Service | Kind::EndpointSlice => changed.services = true,
            Kind::LocalEndpoint => self.note_endpoint(id),
            Kind::IpPool | Kind::BlockAffinity => {}
        }
    }

    /// Marks the BGPPeer that a local workload belongs to.
    fn note_endpoint(&mut self, id: &ObjectId) {
        if id.kind == Kind::LocalEndpoint
            && let Some(endpoint) = self.snapshot.endpoints.get(&id.name)
        {
            self.changed.peers.insert(endpoint.peer.as_ref().to_owned());
        }
    }

    /// The plan that follows from the objects.
    pub fn plan(&mut self) -> Plan {
        let mut problems: Vec<Problem> = self
            .snapshot
            .unreadable()
            .iter()
            .map(|(id, fault)| Problem::new(id, format!("{fault}: its last good state is used")))
            .collect();
        let settings = self.settings.clone().unwrap_or_else(|| Settings::new(""));
        // The snapshot is lent out while the parts are written.
        let snapshot = std::mem::take(&mut self.snapshot);
        let plan = match Effective::new(&settings, &snapshot) {
            None => {
                // What comes next starts from nothing.
                self.changed.everything = true;
                let text = "the node's own object is missing: nothing can be computed";
                problems.push(Problem::new(format!("Node/{}", settings.node), text));
                Plan {
                    node: settings.node.clone(),
                    families: Families::default(),
                    problems: tidy(problems),
                    is_complete: false,
                }
            }
            Some(cx) => {
                self.update_parts(&cx);
                self.assemble(&cx, problems)
            }
        };
        self.snapshot = snapshot;
        plan
    }

    /// Works out again what changed.
    fn update_parts(&mut self, cx: &Effective<'_>) {
        let is_first = self.mesh.is_empty() && self.peers.is_empty();
        let changed = std::mem::take(&mut self.changed);
        if changed.everything || is_first {
            self.mesh =
                cx.snapshot.nodes.values().map(|n| (n.name.clone(), mesh_node(cx, n))).collect();
            self.peers.clear();
            self.services = None;
        }
        if changed.everything || changed.objects || is_first {
            self.of_objects = problems_of_objects(cx);
        }
        let mut nodes: Vec<&Node> = Vec::new();
        for (name, old) in &changed.nodes {
            let new = cx.snapshot.node(name);
            match new {
                Some(node) => {
                    self.mesh.insert(Arc::clone(&node.name), mesh_node(cx, node));
                }
                None => drop(self.mesh.remove(name.as_str())),
            }
            nodes.extend([old.as_deref(), new.map(Arc::as_ref)].into_iter().flatten());
        }
        let mut finder = NodeFinder::new(cx.snapshot);
        let mut stale: Vec<&str> = if self.peers.is_empty() {
            cx.snapshot.peers.keys().map(String::as_str).collect()
        } else {
            changed.peers.iter().map(String::as_str).collect()
        };
        let known: Vec<Arc<str>> = if nodes.is_empty() {
            Vec::new()
        } else {
            let depends = |known: &PeerEntries| nodes.iter().any(|node| known.depend_on(node));
            self.peers.iter().filter(|(_, p)| depends(p)).map(|(n, _)| Arc::clone(n)).collect()
        };
        stale.extend(known.iter().map(|name| &**name));
        for name in stale {
            match cx.snapshot.peers.get(name) {
                Some(peer) => {
                    let worked_out = entries(cx, &mut finder, peer);
                    self.peers.insert(Arc::clone(&peer.name), worked_out);
                }
                None => drop(self.peers.remove(name)),
            }
        }
        if changed.services || self.services.is_none() {
            let mut problems = Vec::new();
            let services = service_routes(cx, &mut problems);
            self.services = Some((services, problems));
        }
    }

    fn assemble(&mut self, cx: &Effective<'_>, mut problems: Vec<Problem>) -> Plan {
        problems.extend(self.mesh.values().flat_map(|m| &m.problems).cloned());
        problems.extend(self.peers.values().flat_map(|p| &p.problems).cloned());
        problems.extend(self.of_objects.iter().cloned());
        if let Some((_, of_services)) = &self.services {
            problems.extend(of_services.iter().cloned());
        }
        if cx.asn.0 == 0 {
            let text = "the node's AS number is 0: no session can start";
            problems.push(Problem::new(format!("Node/{}", cx.me.name), text));
        }
        let router_id = cx.router_id(&mut problems);
        self.policies.begin();
        let mut family = |family| {
            let mut plan = self.family(cx, family, &mut problems);
            plan.router_id = router_id;
            plan
        };
        let families = Families { ipv4: family(Family::Ipv4), ipv6: family(Family::Ipv6) };
        Plan {
            node: cx.settings.node.clone(),
            families,
            problems: tidy(problems),
            is_complete: true,
        }
    }

    fn family(
        &mut self,
        cx: &Effective<'_>,
        family: Family,
        problems: &mut Vec<Problem>,
    ) -> FamilyPlan {
        let no_services = ServiceRoutes::default();
        let services = self.services.as_ref().map_or(&no_services, |(services, _)| services);
        let parts = Parts::new(cx, family, services, problems);
        let enabled = cx.me.address(family).is_some() && cx.asn.0 != 0;
        let neighbors = self.neighbors(family);
        let mut sessions: Vec<Arc<Session>> = Vec::new();
        if enabled {
            sessions.extend(neighbors.iter().filter_map(|n| n.session.clone()));
            let index = usize::from(family == Family::Ipv6);
            sessions.extend(self.mesh.values().filter_map(|m| m.sessions.get(index)?.clone()));
            // Nodes that share an address share a name: the first node counts.
            let key = |session: &Arc<Session>| session.sort_key;
            sessions.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
            sessions.dedup_by(|later, first| {
                let is_twin = later.name == first.name;
                if is_twin {
                    problems.push(shared_address(cx, later));
                }
                is_twin
            });
        }
        let statics = statics(cx, family, &parts, &neighbors);
        let mut holders: HashMap<(IpAddr, u16), Arc<str>, PlaceHash> =
            HashMap::with_capacity_and_hasher(sessions.len(), PlaceHash::default());
        let sessions = sessions
            .into_iter()
            .map(|session| {
                let place = (session.neighbor, session.port);
                let shadowed_by = holders.get(&place).cloned();
                if shadowed_by.is_none() {
                    holders.insert(place, Arc::clone(&session.name));
                }
                let (import, export) = self.policies.of_session(cx, &parts, &session);
                PlannedSession { session, shadowed_by, import, export }
            })
            .collect();
        FamilyPlan {
            enabled,
            router_id: None,
            asn: cx.asn,
            listen: listen(cx, family),
            sessions,
            statics,
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

    /// Entries that count: of several for one neighbour the first, and those for every node before
    /// those for this one.
    fn neighbors(&self, family: Family) -> Vec<&Neighbor> {
        let mut taken: HashSet<(IpAddr, u16), PlaceHash> = HashSet::default();
        let mut chosen = Vec::new();
        let global = self.peers.values().flat_map(|p| &p.global);
        let own = self.peers.values().flat_map(|p| &p.own);
        let reverse = self.peers.values().flat_map(|p| &p.reverse);
        for neighbor in global.chain(own).chain(reverse) {
            if family_of(neighbor.addr) == family && taken.insert((neighbor.addr, neighbor.port)) {
                chosen.push(neighbor);
            }
        }
        chosen
    }
}

/// What is wrong with objects by themselves: configurations that nobody asks for, and rules of
/// filters that would match nothing, whether a BGPPeer names them or not.
fn problems_of_objects(cx: &Effective<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in cx.snapshot.configurations.keys() {
        if name != "default" && !name.starts_with("node.") {
            let text = "the name is neither \"default\" nor \"node.NAME\": it is ignored";
            problems.push(Problem::new(format!("BGPConfiguration/{name}"), text));
        }
    }
    cx.snapshot.filters.values().for_each(|filter| check(filter, &mut problems));
    problems
}

/// More than one node has the address of a session.
fn shared_address(cx: &Effective<'_>, session: &Session) -> Problem {
    let text = session.neighbor.to_string();
    let nodes: Vec<&str> = cx.snapshot.nodes_at(&text).map(|node| &*node.name).collect();
    let object = format!("Node/{}", nodes.last().copied().unwrap_or_default());
    Problem::new(object, format!("{text} is the address of {}: the first counts", nodes.join(", ")))
}

fn mesh_node(cx: &Effective<'_>, node: &Node) -> MeshNode {
    let mut problems = Vec::new();
    let sessions =
        Family::ALL.map(|family| mesh_session(cx, node, family, &mut problems).map(Arc::new));
    MeshNode { sessions, problems }
}

fn listen(cx: &Effective<'_>, family: Family) -> Listen {
    let mode = if cx.own.bind_mode.is_empty() { &cx.global.bind_mode } else { &cx.own.bind_mode };
    let address = cx.me.address(family).filter(|_| mode == "NodeIP").map(|host| host.addr);
    let port = cx.port_of(cx.me);
    Listen { address, port: if port == 0 { super::sessions::BGP_PORT } else { port } }
}

/// Own blocks, then services, then host routes to neighbours.
fn statics(
    cx: &Effective<'_>,
    family: Family,
    parts: &Parts,
    neighbors: &[&Neighbor],
) -> Vec<StaticRoute> {
    let blackhole =
        |prefix: Prefix| StaticRoute { prefix, kind: StaticKind::Blackhole, gateway: None };
    let blocks = own_blocks(cx, family).into_iter();
    let mut statics: Vec<StaticRoute> = blocks
        .filter(|(cidr, state)| *state != AffinityState::Pending && cidr.len() != family.max_len())
        .map(|(cidr, _)| blackhole(cidr))
        .collect();
    statics.extend(parts.services.routes.iter().copied().map(blackhole));
    let mut routes: Vec<_> = neighbors.iter().filter_map(|n| Some((n, n.host_route()?))).collect();
    routes.sort_by_cached_key(|(n, _)| (n.scope, n.addr.to_string(), n.port));
    let mut seen = HashSet::new();
    for (_, (prefix, gateway)) in routes {
        if seen.insert(prefix) {
            statics.push(StaticRoute { prefix, kind: StaticKind::Via, gateway: Some(gateway) });
        }
    }
    statics
}

fn tidy(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests;
