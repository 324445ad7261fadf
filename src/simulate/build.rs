//! Every node's plan and configuration, from one snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bgp_proto::policy::Change;
use bgp_proto::session::PeerConfig;
use bgp_proto::table::{PeerRoutes, TableConfig, VantageCosts};
use bgp_proto::types::{Asn, Family, FibKind, Prefix, RouterId};

use super::spec::{End, ForeignTable, PeerSpec, Refused, Role, Spec};
use crate::calico::config::Converter;
use crate::calico::plan::{Plan, PoolRoutes, SessionKind, Touched};
use crate::calico::{Problem, RouterIdSource, Settings, Snapshot, resolve};
use crate::config::{CalicoLimits, Config, HostSettings};

/// What is simulated.
pub struct Input {
    /// All objects.
    pub snapshot: Snapshot,
    /// Settings of every node; the name is replaced by each node's.
    pub settings: Settings,
    /// Whether peers outside of the cluster are connected to each other.
    pub fabric: bool,
    /// Costs between vantages.
    pub vantages: Arc<VantageCosts>,
    /// Routes that peers outside of the cluster announce besides those that they are told, by the peer's
    /// address.
    pub tables: BTreeMap<IpAddr, ForeignTable>,
}

impl Input {
    /// Nodes.
    pub fn node_count(&self) -> usize {
        self.snapshot.node_names().count()
    }

    /// Blocks of all nodes.
    pub(super) fn block_count(&self) -> usize {
        self.snapshot.affinity_count().max(self.node_count())
    }

    /// Whether nodes have sessions with each other.
    pub(super) fn has_mesh(&self) -> bool {
        self.snapshot.has_mesh()
    }

    /// Nodes that reflect routes.
    pub(super) fn reflector_count(&self) -> usize {
        let nodes = self.snapshot.node_names().filter_map(|name| self.snapshot.node(name));
        nodes.filter(|node| node.is_reflector()).count()
    }

    /// Families of which there are addresses.
    pub(super) fn family_count(&self) -> usize {
        let nodes = || self.snapshot.node_names().filter_map(|name| self.snapshot.node(name));
        let has = |family| usize::from(nodes().any(|node| node.address(family).is_some()));
        Family::ALL.into_iter().map(has).sum::<usize>().max(1)
    }
}

/// A speaker whose sessions are not joined with those of others yet.
pub(super) struct Draft {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) address: [Option<(IpAddr, Prefix)>; 2],
    /// Where it accepts connections; `None`: at any port.
    pub(super) port: Option<u16>,
    pub(super) table: Arc<TableConfig>,
    pub(super) origins: Vec<(Prefix, Option<FibKind>)>,
    pub(super) foreign: ForeignTable,
    pub(super) blocks: BTreeSet<Prefix>,
    pub(super) felix: Vec<Prefix>,
    pub(super) peers: Vec<DraftPeer>,
}

/// One end of a session.
pub(super) struct DraftPeer {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// Our address.
    pub(super) local: IpAddr,
    /// Its parameters without what differs for every session: addresses, port, BGP Identifier.
    /// Equal ones are the same allocation.
    pub(super) shape: Arc<PeerConfig>,
    pub(super) routes: Arc<PeerRoutes>,
}

impl Draft {
    pub(super) fn into_spec(self, ends: Vec<Option<End>>) -> Spec {
        let rules = self.table.fib_policy.iter().flat_map(|policy| &policy.rules);
        let tunnels: BTreeSet<Arc<str>> = rules
            .flat_map(|rule| &rule.changes)
            .filter_map(|change| match change {
                Change::Tunnel(name) => Some(Arc::clone(name)),
                _ => None,
            })
            .collect();
        let spec = |(peer, other): (DraftPeer, Option<End>)| PeerSpec {
            address: peer.address,
            shape: peer.shape,
            routes: peer.routes,
            is_configured: other.is_some(),
            other,
        };
        Spec {
            name: self.name,
            role: self.role,
            address: self.address,
            table: self.table,
            tunnels: tunnels.into_iter().collect(),
            origins: self.origins,
            foreign: self.foreign,
            blocks: self.blocks,
            felix: self.felix,
            peers: self.peers.into_iter().zip(ends).map(spec).collect(),
        }
    }
}

/// Shapes of sessions, each once.
#[derive(Default)]
pub(super) struct Shapes(Mutex<HashMap<Ases, Vec<Arc<PeerConfig>>>>);

/// Our AS, and the other's if only one is possible.
type Ases = (Asn, Option<Asn>);

/// A node's draft, and the problems of its plan.
type Made = Result<(Draft, Vec<Problem>), Refused>;

impl Shapes {
    /// The shape of a session.
    pub(super) fn of(&self, config: &PeerConfig) -> Arc<PeerConfig> {
        let nowhere =
            if config.address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let shape = PeerConfig {
            address: nowhere,
            source_address: None,
            port: 0,
            router_id: RouterId(0),
            ..config.clone()
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry((shape.local_asn, shape.remote_asn.exactly())).or_default();
        if let Some(same) = known.iter().find(|other| ***other == shape) {
            return Arc::clone(same);
        }
        let shape = Arc::new(shape);
        known.push(Arc::clone(&shape));
        shape
    }
}

/// One draft for each node, in order of names, and the problems of all plans.
pub(super) fn drafts(input: &Input) -> Result<(Vec<Draft>, Vec<Problem>), Refused> {
    let names: Vec<Arc<str>> = input.snapshot.node_names().cloned().collect();
    if names.is_empty() {
        return Err(Refused("there is no Node among the objects: export them too".to_owned()));
    }
    for name in &names {
        let node = input.snapshot.node(name);
        if node.is_some_and(|node| node.ipv4.is_none() && node.ipv6.is_none()) {
            return Err(Refused(format!(
                "Node/{name} has no address that can be read (spec.bgp.ipv4Address, \
                 spec.bgp.ipv6Address, or calico-node's annotations): nothing can be said about it; \
                 correct it, or leave it out of the export"
            )));
        }
    }
    let shapes = Shapes::default();
    let next = AtomicUsize::new(0);
    let made: Mutex<BTreeMap<usize, Made>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..super::threads() {
            scope.spawn(|| {
                while let Some((at, name)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    names.get(at).map(|name| (at, name))
                } {
                    let draft = draft(input, name, &shapes);
                    made.lock().unwrap_or_else(PoisonError::into_inner).insert(at, draft);
                }
            });
        }
    });
    let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut drafts = Vec::with_capacity(names.len());
    let mut problems = BTreeSet::new();
    for made in made.into_values() {
        let (draft, of_node) = made?;
        drafts.push(draft);
        problems.extend(of_node);
    }
    Ok((drafts, problems.into_iter().collect()))
}

fn draft(input: &Input, name: &Arc<str>, shapes: &Shapes) -> Made {
    let mut settings = Settings {
        node: name.to_string(),
        kubernetes_node: name.to_string(),
        ..input.settings.clone()
    };
    if matches!(settings.router_id, RouterIdSource::Given(_)) {
        // One node's: with it, all would have the same BGP Identifier.
        settings.router_id = RouterIdSource::Address;
    }
    let plan = resolve(&input.snapshot, &settings);
    let vantages = Arc::clone(&input.vantages);
    let mut converter = Converter::new(CalicoLimits { vantages, ..CalicoLimits::default() });
    let Some(config) = converter.convert(&plan, &Touched::All, &HostSettings::unused()) else {
        let why = plan.stuck.clone().unwrap_or_else(|| {
            format!("Node/{name} has no BGP Identifier: it has no IPv4 address; set CALICO_ROUTER_ID=hash")
        });
        return Err(Refused(why));
    };
    let mut problems = plan.problems.clone();
    problems.extend(converter.problems().map(|problem| Problem {
        object: format!("{} of Node/{name}", problem.object),
        text: problem.text.clone(),
    }));
    Ok((of_plan(input, name, &plan, config, shapes), problems))
}

fn of_plan(input: &Input, name: &Arc<str>, plan: &Plan, config: Config, shapes: &Shapes) -> Draft {
    let node = input.snapshot.node(name);
    let address = Family::ALL.map(|family| {
        let host = node.and_then(|node| node.address(family))?;
        Some((host.addr, host.network))
    });
    let families = [&plan.families.ipv4, &plan.families.ipv6];
    let workloads: BTreeSet<&str> = families
        .iter()
        .flat_map(|family| family.sessions.iter())
        .filter(|planned| planned.session.kind == SessionKind::LocalWorkload)
        .map(|planned| &*planned.session.name)
        .collect();
    let reject = |pool: &&crate::calico::plan::Pool| pool.kernel == PoolRoutes::Reject;
    let pools = families.iter().flat_map(|family| &family.pools);
    let felix = pools.filter(reject).map(|pool| pool.cidr).collect();
    let aggregates: BTreeSet<Prefix> =
        families.iter().flat_map(|family| &family.aggregates).copied().collect();
    let origins: Vec<(Prefix, Option<FibKind>)> =
        config.originate.into_iter().map(|origin| (origin.prefix, origin.install)).collect();
    let blocks =
        origins.iter().map(|(prefix, _)| *prefix).filter(|p| aggregates.contains(p)).collect();
    let peers = config.peers.into_iter().filter(|peer| !workloads.contains(&*peer.name));
    let peers = peers.filter_map(|peer| {
        let own = address[usize::from(peer.session.address.is_ipv6())].map(|(addr, _)| addr);
        Some(DraftPeer {
            address: peer.session.address,
            port: peer.session.port,
            local: peer.session.source_address.or(own)?,
            shape: shapes.of(&peer.session),
            routes: peer.routes,
        })
    });
    Draft {
        name: Arc::clone(name),
        role: if node.is_some_and(|node| node.is_reflector()) {
            Role::Reflector
        } else {
            Role::Node
        },
        address,
        port: config.bgp.listen.first().map(|listen| listen.port()),
        table: config.table,
        origins,
        foreign: Arc::default(),
        blocks,
        felix,
        peers: peers.collect(),
    }
}
