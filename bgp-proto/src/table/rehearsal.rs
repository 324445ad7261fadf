//! What other parameters would change in the Adj-RIBs-Out, found by evaluating them over the routes of
//! the table without changing it.
//!
//! A [`Rehearsal`] has a table of its own, the *shadow*, with the intended parameters, the peers and
//! their sessions, and no routes. [`Table::rehearse`] visits the destinations of the real table in
//! slices. It imports the paths of each with the shadow's parameters, decides, exports, and compares
//! the result with what was sent. Import, decision and export are those of the table itself. Attributes
//! and next hops of the shadow are dropped after each slice, so that its memory is bounded by that of a
//! slice and of the routes listed.

mod evaluate;
mod result;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;

pub use result::{ImportDifference, PeerDifference, RouteDifference, SentRoute};

use super::import::{ImportContext, Liveness};
use super::peer::Peer;
use super::{PeerRoutes, Table, TableConfig};
use crate::export::GroupKey;
use crate::policy::Change;
use crate::rib::{LocalRoute, Meter, Neighbors, NextHopState, SourceFacts, SourceId, Version};
use crate::session::Negotiated;
use crate::types::{ClusterId, Family, FamilyMap, PeerId, Prefix, SessionId, Source};
use evaluate::Scratch;
use result::{Class, Imports, Room};

/// Parameters that are not in force.
#[derive(Clone, Debug)]
pub struct Intended {
    /// The table's own.
    pub config: Arc<TableConfig>,
    /// Those of the peers whose parameters differ.
    pub routes: BTreeMap<PeerId, Arc<PeerRoutes>>,
    /// Peers whose sessions end. What they announced counts as withdrawn, and they are sent nothing.
    pub ending: BTreeSet<PeerId>,
    /// Parameters of peers whose sessions begin: their cluster ids count, and nothing else.
    pub joining: Vec<Arc<PeerRoutes>>,
    /// Local routes that are added or changed, or removed (`None`).
    pub local: BTreeMap<(Prefix, Source), Option<LocalRoute>>,
    /// How next hops that import policies set are reached, if the table does not track them yet. Those
    /// that are missing here count as reachable, and [`Rehearsal::assumed`] has them.
    pub next_hops: BTreeMap<IpAddr, NextHopState>,
}

impl Intended {
    /// No difference from this configuration of the table.
    pub fn new(config: Arc<TableConfig>) -> Self {
        Intended {
            config,
            routes: BTreeMap::new(),
            ending: BTreeSet::new(),
            joining: Vec::new(),
            local: BTreeMap::new(),
            next_hops: BTreeMap::new(),
        }
    }
}

/// The peers, groups and parameters of a table, without routes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    config: Arc<TableConfig>,
    peers: Vec<PeerSnapshot>,
    groups: BTreeMap<u32, GroupKey>,
    neighbors: Neighbors,
    cluster_ids: BTreeSet<ClusterId>,
    stamp: Stamp,
}

#[derive(Clone, Debug)]
struct PeerSnapshot {
    source: SourceId,
    address: IpAddr,
    routes: Arc<PeerRoutes>,
    session: Option<Arc<Negotiated>>,
    up: Option<SessionId>,
    removed: bool,
    facts: Option<SourceFacts>,
    groups: FamilyMap<Option<u32>>,
}

/// What differs if the table has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    version: Version,
    groups: (u32, u64),
}

/// Where the next slice begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At this slot of the family.
    Dest(Family, u32),
    /// At this local route, among those that have no destination in the table.
    Local(usize),
    Over,
}

/// What a slice of a rehearsal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rehearsal that is not over has to go on"]
pub struct Rehearsing {
    /// Work done.
    pub done: super::Work,
    /// Whether every destination has been visited.
    pub is_over: bool,
}

/// The rehearsal of intended parameters.
pub struct Rehearsal {
    shadow: Box<Table>,
    intended: Intended,
    /// By source: how paths of the peer are imported, if that differs.
    contexts: Vec<Option<ImportContext>>,
    ending: BTreeSet<SourceId>,
    /// What export or the decision process know of some peer differs: every destination may.
    facts_differ: bool,
    /// Members of one group that would be in one group, per family.
    classes: FamilyMap<Vec<Class>>,
    /// Whether some class of the family has another key than its group.
    keys_differ: FamilyMap<bool>,
    imports: BTreeMap<PeerId, Imports>,
    /// Next hops that import policies set.
    set_hops: BTreeSet<IpAddr>,
    assumed: BTreeSet<IpAddr>,
    /// The keys of `intended.local`.
    local: Vec<(Prefix, Source)>,
    place: Place,
    stamp: Stamp,
    has_changed: bool,
    is_deferred: bool,
    /// Maximum number of routes listed for each class.
    list_max: usize,
    room: Room,
    scratch: Scratch,
}

/// Maximum number of routes that a rehearsal lists in all.
const LISTED_MAX: usize = 20_000;
/// Maximum octets of what is listed. It does not count as memory of the table.
const LISTED_OCTETS_MAX: usize = 16 << 20;

impl Table {
    /// What a rehearsal begins with. The cost grows with peers and groups, not with routes.
    pub fn snapshot(&self) -> Snapshot {
        let peers = self.peers.iter().map(|peer| PeerSnapshot {
            source: peer.source,
            address: peer.address,
            routes: Arc::clone(&peer.routes),
            session: peer.session.clone(),
            up: peer.up,
            removed: peer.removed,
            facts: self.loc_rib.sources.get(peer.source).copied(),
            groups: FamilyMap(Family::ALL.map(|family| {
                self.adj_ribs_out.group_of(peer.source, family).map(|group| group.id)
            })),
        });
        let groups = self.adj_ribs_out.groups.values();
        Snapshot {
            config: Arc::clone(&self.config),
            peers: peers.collect(),
            groups: groups.map(|group| (group.id, group.key.clone())).collect(),
            neighbors: self.loc_rib.hops.neighbors().clone(),
            cluster_ids: self.cluster_ids.clone(),
            stamp: self.stamp(),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp { version: self.loc_rib.version(), groups: self.adj_ribs_out.changes() }
    }

    /// Whether nothing is under way that would change an Adj-RIB-Out.
    fn is_settled(&self) -> bool {
        self.loc_rib.is_decided()
            && self.peers.waiting_len() == 0
            && !self.peers.has_busy()
            && self.review_peers.is_empty()
            && self.to_regroup.is_empty()
            && self.adj_ribs_out.is_flushed()
    }
}

impl Snapshot {
    /// The configuration of the table.
    pub fn config(&self) -> &Arc<TableConfig> {
        &self.config
    }
}

impl Rehearsal {
    /// Prepares a rehearsal of `intended`, which lists at most `list_max` routes for peers that are
    /// sent the same.
    pub fn new(snapshot: Snapshot, mut intended: Intended, list_max: usize) -> Self {
        let parameters = Arc::clone(&intended.config);
        let mut shadow = Box::new(Table::new(parameters, 1, Waker::noop().clone()));
        let known: BTreeSet<SourceId> = snapshot.peers.iter().map(|peer| peer.source).collect();
        let sources = intended.ending.iter().filter_map(|id| SourceId::peer_id(*id));
        let ending: BTreeSet<SourceId> = sources.filter(|id| known.contains(id)).collect();
        intended.routes.retain(|id, _| SourceId::peer_id(*id).is_some_and(|s| known.contains(&s)));
        for peer in &snapshot.peers {
            shadow.add_shadow(peer, &intended, ending.contains(&peer.source));
        }
        let joining = intended.joining.iter().filter_map(|routes| routes.reflection.cluster_id);
        let joining: Vec<ClusterId> = joining.collect();
        shadow.collect_cluster_ids();
        shadow.cluster_ids.extend(joining);
        let facts_differ = shadow.learn_facts(&snapshot, &ending);
        let mut rehearsal = Rehearsal {
            contexts: shadow.differing_contexts(&snapshot),
            set_hops: shadow.hops_set_by_policies(),
            local: intended.local.keys().copied().collect(),
            shadow,
            intended,
            ending,
            facts_differ,
            classes: FamilyMap::default(),
            keys_differ: FamilyMap::default(),
            imports: BTreeMap::new(),
            assumed: BTreeSet::new(),
            place: Place::Dest(Family::Ipv4, 0),
            stamp: snapshot.stamp,
            has_changed: false,
            is_deferred: false,
            list_max,
            room: Room { routes: LISTED_MAX, octets: LISTED_OCTETS_MAX },
            scratch: Scratch::default(),
        };
        rehearsal.classify(&snapshot);
        rehearsal.scratch.neighbors = Some(snapshot.neighbors);
        rehearsal
    }

    /// Sorts the members of groups by the key that they would have.
    fn classify(&mut self, snapshot: &Snapshot) {
        let mut by_group: BTreeMap<(u32, usize), Vec<usize>> = BTreeMap::new();
        for peer in &snapshot.peers {
            let Some(id) = peer.source.peer() else { continue };
            for family in Family::ALL {
                let Some(group) = peer.groups[family] else { continue };
                let Some(key) = self.shadow.group_key(id, family) else { continue };
                let classes = &mut self.classes[family];
                let alike = by_group.entry((group, family.index())).or_default();
                if let Some(at) = alike.iter().find(|at| classes[**at].key == key) {
                    classes[*at].members.insert(peer.source);
                    continue;
                }
                alike.push(classes.len());
                let differs = snapshot.groups.get(&group) != Some(&key);
                self.keys_differ[family] |= differs;
                classes.push(Class::new(group, key, differs, peer.source));
            }
        }
    }

    /// Whether routes changed while they were visited, or a change was under way: differences of those
    /// may be counted wrongly.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Whether announcements are deferred ([`Table::defer_export`]): what peers were sent is not known
    /// to be complete, and everything counts as new to them.
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// Next hops set by import policies of which it is not known how they are reached.
    pub fn assumed(&self) -> &BTreeSet<IpAddr> {
        &self.assumed
    }
}

impl Table {
    /// Adds a peer of another table, with its session and the intended parameters.
    fn add_shadow(&mut self, from: &PeerSnapshot, intended: &Intended, is_ending: bool) {
        let Some(id) = from.source.peer() else { return };
        let routes = intended.routes.get(&id).unwrap_or(&from.routes);
        let mut peer = Peer::new(from.source, from.address, Arc::clone(routes));
        peer.session.clone_from(&from.session);
        peer.up = from.up.filter(|_| !is_ending && !from.removed);
        peer.removed = from.removed || is_ending;
        self.peers.insert(id, peer);
    }

    /// Records what decision and export need to know about the peers; returns whether that differs from
    /// what another table knows.
    fn learn_facts(&mut self, of: &Snapshot, ending: &BTreeSet<SourceId>) -> bool {
        let (old, new) = (&of.config, Arc::clone(&self.config));
        let mut differ = old.via_default != new.via_default
            || old.vantages != new.vantages
            || old.long_lived != new.long_lived
            || old.multipath_limit() != new.multipath_limit()
                && of.groups.values().any(|key| key.sums_bandwidth);
        for peer in &of.peers {
            let Some(id) = peer.source.peer() else { continue };
            // A peer that never had a session has no paths.
            let Some(before) = peer.facts else { continue };
            self.note_facts(id, &mut Meter::new(u32::MAX));
            let facts = self.loc_rib.sources.get(peer.source).copied();
            // Ids of vantages differ between tables, their names do not.
            let without = |facts: SourceFacts| SourceFacts { vantage: None, ..facts };
            let moved = self.peers.get(id).is_some_and(|p| p.routes.vantage != peer.routes.vantage)
                || ending.contains(&peer.source) && before.vantage.is_some();
            differ |= moved || Some(without(before)) != facts.map(without);
        }
        differ
    }

    /// By source: how paths of a peer are imported, if that differs from another table.
    fn differing_contexts(&self, from: &Snapshot) -> Vec<Option<ImportContext>> {
        let identity = |c: &TableConfig| (c.asn, c.router_id, c.cluster_id);
        let all_differ = identity(&from.config) != identity(&self.config);
        let clusters_differ = from.cluster_ids != self.cluster_ids;
        let mut contexts = Vec::new();
        for peer in &from.peers {
            let Some(id) = peer.source.peer() else { continue };
            let Some(context) = self.context(id, Liveness::Any) else { continue };
            let (old, new) = (&peer.routes, &context.routes);
            let is_internal = context.session.peer_type == crate::types::PeerType::Internal;
            let differs = all_differ
                || clusters_differ && is_internal
                || old.import != new.import
                || old.reflection.cluster_id != new.reflection.cluster_id;
            if differs {
                let at = usize::from(peer.source.0);
                if contexts.len() <= at {
                    contexts.resize_with(at + 1, || None);
                }
                contexts[at] = Some(context);
            }
        }
        contexts
    }

    fn hops_set_by_policies(&self) -> BTreeSet<IpAddr> {
        let policies = self.peers.iter().map(|peer| &peer.routes.import.policy);
        let changes = policies.flat_map(|policy| &policy.rules).flat_map(|rule| &rule.changes);
        let set = changes.filter_map(|change| match change {
            Change::NextHop(addr) => Some(*addr),
            _ => None,
        });
        set.collect()
    }
}
