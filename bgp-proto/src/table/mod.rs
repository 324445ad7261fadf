//! The table: all routes, one owner, one thread.
//!
//! In: batches of route events, peers coming and going, local routes, resolved next hops,
//! configuration. Out: FIB changes and encoded chunks. The host calls inputs as they come and then
//! [`Table::finish`] once per turn: decisions and encoding happen there, never per route.
//!
//! ```text
//! apply* / peer_* / handle_* ──▶ finish(now) ──▶ poll_fib, poll_next_hops, poll_event, poll_timeout
//! ```

mod config;
mod decide;
mod fib;
mod groups;
mod import;
mod lifecycle;
mod memory;
mod peer;
mod reevaluation;
mod refusals;
mod schedule;
mod show;
mod slices;
mod view;
mod withdrawal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use crate::export::{AddPathSend, ExportCounts, NextHopMode};
pub use crate::rib::LocalRoute;
pub use config::{PeerRoutes, TableConfig};
pub use memory::{Memory, MemoryBound};
pub use refusals::{Refused, RefusedBy};
pub use schedule::{NextTurn, Progress, Work};
pub use view::{
    AdvertisedTo, DestinationView, Explanation, GroupCounts, GroupView, ImportCounts, PathView,
    PeerCounts, RouteFilter, Totals, Unusable, Withheld,
};

use crate::export::{Batch, ExportTable, Group, Reader};
use crate::policy::Source;
use crate::rib::{
    AttrId, AttrTable, DestId, Destinations, IdSet, NextHopId, NextHopState, NextHops, Sources,
};
use crate::session::{Close, Keep, Negotiated};
use crate::types::{Family, FamilyMap, FibRoute, PeerId, Prefix, SessionId, Time};
use crate::wire::RouteBatch;
use fib::FibTable;
use import::PathName;
use peer::Peer;
use refusals::Refusals;

/// What the host is told besides routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableEvent {
    /// The session must be closed. Said again every second until [`Table::peer_down`] of that session
    /// arrives.
    Close {
        /// Who.
        peer: PeerId,
        /// Its session; another one of the peer is not concerned.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// The peer passed the warning share of its limit, once per crossing.
    PrefixWarning {
        /// Who.
        peer: PeerId,
        /// Which family.
        family: Family,
        /// Prefixes held.
        count: u32,
        /// The bound.
        bound: u32,
    },
    /// One line for the log.
    Note(String),
}

/// Why the table wants a session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer passed its prefix limit (Cease 6/1).
    PrefixLimit {
        /// Which family.
        family: Family,
        /// The bound.
        bound: u32,
    },
    /// The peer reads so slowly that the table would have to remember too much on its behalf; it
    /// gets no more routes (Cease 6/8).
    TooSlow,
    /// The peer's routes hold too much (Cease 6/8).
    MemoryLimit {
        /// Whose bound it is.
        bound_of: MemoryBound,
        /// Octets held by the peer or the table.
        held: u64,
        /// The bound.
        bound: u64,
    },
}

impl CloseReason {
    /// How the session ends.
    pub fn to_close(self) -> Close {
        match self {
            CloseReason::PrefixLimit { family, bound } => Close::PrefixLimit { family, bound },
            CloseReason::TooSlow | CloseReason::MemoryLimit { .. } => Close::OutOfResources,
        }
    }
}

/// An order to close that the host has not obeyed is given again after this time.
const CLOSE_AGAIN: Duration = Duration::from_secs(1);

/// Destinations per turn of what is done in slices: about a millisecond.
const DESTS_PER_TURN: u32 = 2048;

/// Whether a next hop is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHopRequest {
    /// Resolve it now and report changes through [`Table::handle_next_hop`].
    Track(IpAddr),
    /// No path uses it.
    Untrack(IpAddr),
}

/// All routes.
pub struct Table {
    config: Arc<TableConfig>,
    seed: u64,
    waker: Waker,
    ribs: [Rib; 2],
    attrs: AttrTable,
    hops: NextHops,
    outs: ExportTable,
    /// Peers as decision and export see them.
    sources: Sources,
    peers: Vec<Option<Peer>>,
    own: BTreeMap<(Prefix, Source), LocalRoute>,
    /// What was received, for paths that import changed.
    received: hashbrown::HashMap<PathName, (AttrId, NextHopId), foldhash::quality::FixedState>,
    /// Destinations that the announcement at hand made; empty between two of them.
    fresh: Vec<DestId>,
    fib: FibTable,
    /// Kernel indices of the tunnel interfaces that exist, by name.
    tunnels: BTreeMap<Arc<str>, u32>,
    groups: BTreeMap<u32, Group>,
    next_group: u32,
    next_member: u64,
    /// Peers with paths on their way out.
    withdrawing: BTreeSet<PeerId>,
    /// Peers with paths that import is to judge anew.
    reevaluating: BTreeSet<PeerId>,
    /// Destinations of those that leave, and of those judged anew, in one turn.
    dests_per_turn: u32,
    /// Peers that may have a deadline. Few have, and each turn asks.
    timed: BTreeSet<PeerId>,
    /// Peers whose group may have to change.
    regroup: BTreeSet<PeerId>,
    /// Two groups may have become the same.
    merge_wanted: bool,
    /// Grows with every turn that changes something; with `epoch` it makes a version.
    generation: u32,
    epoch: u32,
    turn: u64,
    events: VecDeque<TableEvent>,
    notes: Vec<String>,
    refusals: Refusals,
    /// What peers that are gone had announced and withdrawn.
    imports_before: FamilyMap<ImportCounts>,
    /// Memory for the slice of export at hand.
    batch: Batch,
    export: Export,
}

/// Whether peers are told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Export {
    Running,
    Deferred,
}

/// The routes of one family, and what of them is to be looked at.
struct Rib {
    dests: Destinations,
    /// To be decided at the end of the turn.
    touched: IdSet,
    /// Of those, the ones with a path whose next hop is reached by another interface than before.
    moved: IdSet,
    /// To be compared with what the host was told for the kernel.
    fib_dirty: IdSet,
    fib_at: u32,
    /// Destinations without a path.
    empty: IdSet,
}

impl Table {
    /// An empty table. `seed` goes into hash tables (feeders must not be able to aim collisions);
    /// results do not depend on it. `waker` is woken from other threads when a group's readers have
    /// room again or a member needs catching up: the host then calls [`Table::finish`].
    pub fn new(config: Arc<TableConfig>, seed: u64, waker: Waker) -> Self {
        Table {
            seed,
            waker,
            ribs: Family::ALL.map(|family| Rib::new(family, seed)),
            attrs: AttrTable::new(seed),
            hops: NextHops::default(),
            outs: ExportTable::new(seed),
            sources: Sources::default(),
            peers: Vec::new(),
            own: BTreeMap::new(),
            received: hashbrown::HashMap::with_hasher(foldhash::quality::FixedState::with_seed(
                seed,
            )),
            fresh: Vec::new(),
            fib: FibTable::default(),
            tunnels: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_group: 0,
            next_member: 0,
            withdrawing: BTreeSet::new(),
            reevaluating: BTreeSet::new(),
            dests_per_turn: DESTS_PER_TURN,
            timed: BTreeSet::new(),
            regroup: BTreeSet::new(),
            merge_wanted: false,
            generation: 1,
            epoch: 0,
            turn: 0,
            events: VecDeque::new(),
            notes: Vec::new(),
            refusals: Refusals::default(),
            imports_before: FamilyMap::default(),
            batch: Batch::default(),
            export: Export::Running,
            config,
        }
    }

    /// How many destinations a turn takes out of what ended sessions have left, and how many it
    /// judges anew after import has changed. Default 2048.
    pub fn set_dests_per_turn(&mut self, destinations: u32) {
        self.dests_per_turn = destinations.max(1);
    }

    /// Replaces the configuration; re-evaluates only what it touches.
    pub fn configure(&mut self, now: Time, config: Arc<TableConfig>) {
        let _ = now;
        let before = std::mem::replace(&mut self.config, Arc::clone(&config));
        let ids: Vec<PeerId> =
            self.peers.iter().flatten().filter_map(|p| p.source.peer()).collect();
        if before.log_bytes_max != config.log_bytes_max {
            self.groups.values_mut().for_each(|g| g.set_log_bytes_max(config.log_bytes_max));
        }
        if before.fib_enabled != config.fib_enabled
            || before.fib_policy != config.fib_policy
            || before.multipath_max != config.multipath_max
        {
            self.mark_fib_dirty();
        }
        let identity = |c: &TableConfig| (c.asn, c.router_id, c.cluster_id);
        if identity(&before) != identity(&config) {
            for id in ids {
                self.note_facts(id);
                self.reimport(id);
                self.regroup.insert(id);
            }
        }
    }

    /// A peer exists. `address` breaks ties in the decision process.
    pub fn peer_add(&mut self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        self.add_peer(peer, address, routes);
    }

    /// New routing parameters for a peer: import is re-evaluated from what it sent, within the next
    /// turns; export is compared with what it was told; the session is not touched.
    pub fn peer_configure(&mut self, now: Time, peer: PeerId, routes: Arc<PeerRoutes>) {
        let _ = now;
        self.reconfigure_peer(peer, routes);
    }

    /// The session is established: one reader per negotiated family.
    pub fn peer_up(
        &mut self,
        now: Time,
        peer: PeerId,
        session: SessionId,
        negotiated: Arc<Negotiated>,
    ) -> Vec<Reader> {
        self.bring_up(now, peer, session, negotiated)
    }

    /// The session is over; routes are withdrawn within the next turns, or kept as stale
    /// (RFC 4724 §4.2). Ignored unless it is the peer's present session.
    pub fn peer_down(&mut self, now: Time, peer: PeerId, session: SessionId, keep: Option<Keep>) {
        if self.peer(peer).is_some_and(|peer| peer.up == Some(session)) {
            self.take_down(now, peer, keep);
        }
    }

    /// The peer is gone for good; its id may be used again. The paths that are left of it go within
    /// the next turns.
    pub fn peer_remove(&mut self, now: Time, peer: PeerId) {
        self.remove_peer(now, peer);
    }

    /// Route events of a peer, in order.
    pub fn apply(&mut self, now: Time, peer: PeerId, batch: &RouteBatch) {
        self.apply_batch(now, peer, batch);
    }

    /// A route of our own appears or changes (`Some`), or goes. Keyed by prefix and source.
    pub fn handle_local(
        &mut self,
        now: Time,
        prefix: Prefix,
        source: crate::policy::Source,
        route: Option<LocalRoute>,
    ) {
        self.set_local(now, prefix, source, route);
    }

    /// The resolution of a tracked next hop changed.
    pub fn handle_next_hop(&mut self, now: Time, addr: IpAddr, state: NextHopState) {
        let _ = now;
        self.hops.set_state(addr, state);
    }

    /// The interfaces that [`Change::Tunnel`](crate::policy::Change::Tunnel) may name: those that
    /// exist, with their kernel indices. A route through one that does not exist goes the way that
    /// its next hop resolves to.
    pub fn handle_tunnels(&mut self, tunnels: BTreeMap<Arc<str>, u32>) {
        if self.tunnels != tunnels {
            self.tunnels = tunnels;
            self.mark_fib_dirty();
        }
    }

    /// A deadline of [`Table::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.expire(now);
    }

    /// Holds back everything that peers would be told, End-of-RIB included, until
    /// [`Table::release_export`]. After a restart of ours: what peers keep of our routes must not be
    /// swept by an End-of-RIB that comes before we have heard of those routes again
    /// (RFC 4724 §4.1).
    pub fn defer_export(&mut self) {
        self.export = Export::Deferred;
    }

    /// Ends [`Table::defer_export`]: the next [`Table::finish`] tells peers the state as it is then.
    pub fn release_export(&mut self) {
        self.export = Export::Running;
    }

    /// One turn: takes what the inputs brought through decision and export, as far as `budget` goes.
    pub fn turn(&mut self, now: Time, budget: Work) -> Progress {
        let _ = budget;
        let decided = self.finish_decision(now) as u32;
        let more = self.finish_export(now);
        let next = if more { NextTurn::Now } else { NextTurn::WhenWoken };
        Progress { done: Work(decided), decided, next }
    }

    /// Ends a turn: runs the decision process for touched destinations, encodes what groups have
    /// room for. Returns whether work is left for an immediate further turn (sliced walks).
    pub fn finish(&mut self, now: Time) -> bool {
        self.finish_decision(now);
        self.finish_export(now)
    }

    /// The first half of [`Table::finish`], for hosts that time the halves: the decision process.
    /// Returns how many destinations it looked at.
    pub fn finish_decision(&mut self, now: Time) -> usize {
        let _ = now;
        self.turn += 1;
        self.take_member_events();
        self.regroup_peers();
        self.touch_changed_hops();
        self.withdraw_in_slices();
        self.reevaluate_in_slices();
        let touched = self.ribs.iter().map(|rib| rib.touched.len() as usize).sum();
        self.decide();
        touched
    }

    /// The second half of [`Table::finish`], right behind the first: what peers are told.
    pub fn finish_export(&mut self, now: Time) -> bool {
        let more = self.export_turn();
        self.purge_tombstones(now);
        self.review_memory(now);
        self.review_timed();
        more || !self.withdrawing.is_empty() || !self.reevaluating.is_empty()
    }

    /// The earliest deadline.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timed.iter().filter_map(|id| self.peer(*id)).flat_map(Peer::deadlines).min()
    }

    /// Takes up to `max` destinations off the FIB's dirty set, with what the kernel should hold.
    pub fn poll_fib(&mut self, max: usize) -> Vec<(Prefix, Option<FibRoute>)> {
        self.take_fib_changes(max)
    }

    /// Next hops to track or forget since the last call.
    pub fn poll_next_hops(&mut self) -> Vec<NextHopRequest> {
        let requests = self.hops.take_requests().into_iter();
        requests
            .map(|(addr, track)| match track {
                true => NextHopRequest::Track(addr),
                false => NextHopRequest::Untrack(addr),
            })
            .collect()
    }

    /// What the host should know.
    pub fn poll_event(&mut self) -> Option<TableEvent> {
        self.events.pop_front()
    }

    /// A page of destinations: from `cursor` (0 to begin), at most `limit` that match; the second
    /// value is the next cursor, `None` at the end. Arena order, not prefix order. A page may hold
    /// fewer, or none, and not be the last: how many destinations one call looks at is bounded too.
    pub fn view(
        &self,
        filter: &RouteFilter,
        cursor: u32,
        limit: usize,
        now: Time,
    ) -> (Vec<DestinationView>, Option<u32>) {
        self.page(filter, cursor, limit, now)
    }

    /// Everything about one destination.
    pub fn explain(&self, prefix: Prefix, now: Time) -> Option<Explanation> {
        self.explanation(prefix, now)
    }

    /// Routes of our own from `source` in a family, and how many of them are the best path.
    pub fn own_counts(&self, family: Family, source: Source) -> (u32, u32) {
        self.count_local(family, source)
    }

    /// The update groups.
    pub fn groups(&self) -> Vec<GroupView> {
        self.group_views()
    }

    /// Numbers of the update groups.
    pub fn group_counts(&self) -> Vec<GroupCounts> {
        self.count_groups()
    }

    /// Whether a destination would be without a usable path if these peers' paths were gone.
    pub fn depends_on(&self, peers: &BTreeSet<PeerId>) -> bool {
        self.has_sole_dests(peers)
    }

    /// Counters of a peer.
    pub fn counts(&self, peer: PeerId) -> PeerCounts {
        self.peer_counts(peer)
    }

    /// What became of everything that peers announced and withdrew, those that are gone included:
    /// never falls.
    pub fn imports(&self) -> FamilyMap<ImportCounts> {
        self.import_totals()
    }

    /// What refused routes of peers, and how many.
    pub fn refused(&self) -> &[Refused] {
        self.refusals.entries()
    }

    /// Number of destinations per family, paths, attribute sets: for metrics.
    pub fn totals(&self) -> Totals {
        self.sizes()
    }

    fn rib(&self, family: Family) -> &Rib {
        &self.ribs[family.index()]
    }

    fn rib_mut(&mut self, family: Family) -> &mut Rib {
        &mut self.ribs[family.index()]
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.index())?.as_ref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index())?.as_mut()
    }

    fn peer_name(&self, id: PeerId) -> &str {
        self.peer(id).map_or("?", |peer| &peer.routes.name)
    }
}

#[cfg(test)]
mod tests;
