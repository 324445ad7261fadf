//! The table: all routes, one owner, one thread.
//!
//! In: batches of route events, peers and their sessions, local routes, resolved next hops,
//! configuration. Out: FIB changes and encoded chunks. Inputs are queued, and [`Table::turn`]
//! processes them: it does as much as its budget of [`Work`] allows and returns whether work is
//! left.
//!
//! ```text
//! apply, peer_*, handle_* ──▶ turn(now, work) ──▶ poll_established, poll_next_hops, poll_fib, poll_event
//! ```
//!
//! Tables of other VRFs take routes with [`Table::take_offers`] when they have room for them.

mod config;
mod drain;
mod dump;
mod import;
mod inputs;
mod kernel;
mod leaks;
mod marks;
mod membership;
mod memory;
mod monitor;
mod next_hops;
mod pace;
mod passes;
mod peer;
mod peers;
mod policies;
mod refusals;
mod rehearsal;
mod retention;
mod runs;
mod schedule;
mod select;
mod sessions;
mod show;
mod stale;
mod tombstones;
mod vantage;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub use crate::export::{AddPathSend, Drain, ExportCounts, NextHopMode};
pub use crate::rib::LocalRoute;
pub use config::{
    ExportParams, ImportParams, MultipathWeights, PeerLimits, PeerRoutes, ReflectionParams,
    RouteLimits, TableConfig,
};
pub use drain::DrainProgress;
pub use dump::{Dump, DumpOptions, Dumping};
pub use leaks::Offered;
pub use memory::{Memory, MemoryBound};
pub use monitor::{
    Mirrored, Mirroring, MonitorCounts, MonitorId, MonitorPage, MonitorParams, MonitoredPeers,
    PageEnd,
};
pub use next_hops::NextHopView;
pub use pace::Pace;
pub use peer::Receipt;
pub use policies::{PolicyCount, PolicyHits, PolicyPlace, PolicyTest, RuleHits, TestedRoute};
pub use refusals::{Refused, RefusedBy};
pub use rehearsal::{
    ImportDifference, Intended, PeerDifference, Rehearsal, Rehearsing, RouteDifference, SentRoute,
    Snapshot,
};
pub use runs::RouteRun;
pub use schedule::{NextTurn, Progress, Work};
pub use select::{AnyCommunity, AsPathPattern, PrefixPage};
pub use sessions::Dependence;
pub use show::HELD_BACK;
pub use vantage::VantageCosts;
pub use view::{
    AdvertisedTo, DestinationView, Explanation, GroupCounts, GroupView, ImportCounts, PathView,
    PeerCounts, Retained, RetainedPhase, RouteFilter, Totals, Unusable, Withheld,
};

use crate::export::{AdjRibsOut, Merging, NOTES_MAX, Reader};
use crate::rib::{Barrier, Choices, Decided, DestId, LocRib, Meter, NextHopState, WantedChanges};
use crate::session::Close;
use crate::types::{ClusterId, Family, FamilyMap, FibChange, PeerId, Prefix, SessionId, Time};
use import::LookedUp;
use kernel::KernelView;
use leaks::Leaks;
use memory::MemoryReview;
use monitor::Monitors;
use peers::Peers;
use refusals::Refusals;
use sessions::Review;
use vantage::Vantages;

/// Maximum number of turns for which the decision process is postponed while inputs are pending.
const GATHERING_TURNS: u32 = 16;
/// Number of touched destinations from which on it is not postponed.
const GATHERED_MAX: u32 = 1 << 17;

/// Notifications to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableEvent {
    /// The session must be closed. Repeated every second until [`Table::peer_down`] of that session
    /// arrives.
    Close {
        /// The peer.
        peer: PeerId,
        /// The session to close; another one of the peer is not affected.
        session: SessionId,
        /// Why it must be closed.
        reason: CloseReason,
    },
    /// The peer reached the warning share of its prefix limit; once per crossing.
    PrefixWarning {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// Prefixes held.
        count: u32,
        /// The bound.
        bound: u32,
    },
    /// The peer sent End-of-RIB, and every route before it has passed the decision process and the
    /// comparison with the kernel: the resulting changes were returned by [`Table::poll_fib`].
    EndOfRib {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// The restart time of a peer is over: its routes are long-lived stale from here on (RFC 9494
    /// §4.2).
    LongLivedStale {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// Paths kept; those with NO_LLGR are withdrawn next.
        count: u32,
        /// How long they are kept.
        time: Duration,
    },
    /// End-of-RIB of a peer whose routes were long-lived stale: none is any more.
    Synchronised {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// Paths that it did not announce again, which are withdrawn.
        count: u32,
    },
    /// Paths with NO_LLGR were withdrawn when a peer's routes became long-lived stale (RFC 9494 §4.2).
    NotLongLived {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// Paths withdrawn.
        count: u32,
    },
    /// Stale routes of a restarting peer are withdrawn because their timer expired, or because it did not
    /// preserve its forwarding state (RFC 4724 §4.2, RFC 9494 §4.2).
    StaleRemoved {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// Paths withdrawn.
        count: u32,
        /// Whether its session is back.
        returned: Returned,
        /// What they were kept for.
        phase: RetainedPhase,
    },
    /// One line for the log.
    Note(String),
}

/// Whether a peer whose stale routes are withdrawn has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Its session is up; it did not announce them again.
    Yes,
    /// Its session is up, without the F bit of the capability or without the capability.
    Unpreserved,
    /// It did not come back within the restart time, and the long-lived stale time if there is one.
    No,
}

/// Why the table wants a session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer exceeded its prefix limit (Cease 6/1).
    PrefixLimit {
        /// The family.
        family: Family,
        /// The bound.
        bound: u32,
    },
    /// The peer reads so slowly that the table would have to keep too much state on its behalf; it
    /// is sent no more routes (Cease 6/8).
    TooSlow,
    /// The session would need an update group beyond the maximum (Cease 6/8).
    TooManyGroups {
        /// The bound.
        bound: usize,
    },
    /// The peer's routes hold too much memory (Cease 6/8).
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
            CloseReason::TooSlow
            | CloseReason::TooManyGroups { .. }
            | CloseReason::MemoryLimit { .. } => Close::OutOfResources,
        }
    }
}

/// A request to close a session that is still up is repeated after this time.
const CLOSE_AGAIN: Duration = Duration::from_secs(1);

/// Octets of a set that are copied by a unit of work.
const RECOUNT: u64 = 400;

/// A request to the host about the resolution of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHopRequest {
    /// Resolve it now and report changes through [`Table::handle_next_hop`].
    Track(IpAddr),
    /// Stop tracking it: no path uses it.
    Untrack(IpAddr),
}

/// A session that the table has begun to serve.
#[derive(Debug)]
pub struct Established {
    /// The peer.
    pub peer: PeerId,
    /// Its session.
    pub session: SessionId,
    /// One per family that the peer is sent routes of.
    pub readers: Vec<Reader>,
}

/// All routes, one owner: peers with their Adj-RIBs-In, the Loc-RIB, the Adj-RIBs-Out, and the
/// intended contents of the kernel's table (RFC 4271 §3.2).
///
/// Inputs are O(1): they are queued for the next turns. [`Table::turn`] does everything that grows
/// with routes, peers or groups, within its budget, each phase with a share of it; the host then
/// drains, in this order, [`Table::poll_established`], [`Table::poll_next_hops`],
/// [`Table::poll_fib`] and [`Table::poll_event`], and looks at [`Table::poll_timeout`].
pub struct Table {
    config: Arc<TableConfig>,
    peers: Peers,
    loc_rib: LocRib,
    adj_ribs_out: AdjRibsOut,
    kernel: KernelView,
    leaks: Leaks,
    monitors: Monitors,
    /// Every cluster id that is ours on some session (RFC 4456 §8).
    cluster_ids: BTreeSet<ClusterId>,
    cluster_ids_differ: bool,
    vantages: Vantages,
    /// Peers whose parameters changed.
    review_peers: BTreeMap<PeerId, Review>,
    /// Peers whose group may have to change.
    to_regroup: BTreeSet<PeerId>,
    /// Octets that the host holds on behalf of peers.
    host_octets: u64,
    /// Timers are due that the turn has not handled.
    timers_left: bool,
    memory_review: MemoryReview,
    /// Whether tombstones remain to be examined.
    purge_more: bool,
    turn: u64,
    /// Consecutive turns that left something to decide.
    undecided_turns: u32,
    events: VecDeque<TableEvent>,
    established: VecDeque<Established>,
    end_of_ribs: VecDeque<PendingEndOfRib>,
    refusals: Refusals,
    /// Import counters of peers that were removed.
    imports_before: FamilyMap<ImportCounts>,
    /// Scratch memory; empty between uses.
    fresh: Vec<DestId>,
    found: Vec<LookedUp>,
    decided: Vec<Decided>,
    choices: Choices,
}

/// An End-of-RIB that waits for the routes before it.
struct PendingEndOfRib {
    peer: PeerId,
    family: Family,
    stage: EndOfRibStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndOfRibStage {
    Decision(Barrier),
    Kernel(Barrier),
}

impl Table {
    /// An empty table. `seed` keys the hash tables, so that peers cannot aim for collisions;
    /// results do not depend on it. `waker` is woken from other threads when a group's readers have
    /// room again or a member needs resynchronisation: the host then calls [`Table::turn`].
    pub fn new(config: Arc<TableConfig>, seed: u64, waker: Waker) -> Self {
        let mut loc_rib = LocRib::new(seed, config.via_default);
        loc_rib.sources.set_multipath(config.multipath_limit());
        Table {
            peers: Peers::default(),
            loc_rib,
            adj_ribs_out: AdjRibsOut::new(seed, waker, config.log_bytes_max),
            kernel: KernelView::default(),
            leaks: Leaks::default(),
            monitors: Monitors::default(),
            cluster_ids: BTreeSet::from([config.cluster_id]),
            cluster_ids_differ: false,
            vantages: Vantages::new(&config.vantages),
            review_peers: BTreeMap::new(),
            to_regroup: BTreeSet::new(),
            host_octets: 0,
            timers_left: false,
            memory_review: MemoryReview::default(),
            purge_more: false,
            turn: 1,
            events: VecDeque::new(),
            established: VecDeque::new(),
            end_of_ribs: VecDeque::new(),
            refusals: Refusals::default(),
            imports_before: FamilyMap::default(),
            fresh: Vec::new(),
            found: Vec::new(),
            undecided_turns: 0,
            decided: Vec::new(),
            choices: Choices::default(),
            config,
        }
    }

    /// Replaces the configuration; re-evaluates only what it touches.
    pub fn configure(&mut self, config: Arc<TableConfig>) {
        let before = std::mem::replace(&mut self.config, Arc::clone(&config));
        if before.log_bytes_max != config.log_bytes_max {
            self.adj_ribs_out.set_log_bytes_max(config.log_bytes_max);
        }
        let limit_differs = before.multipath_limit() != config.multipath_limit();
        if before.fib_enabled != config.fib_enabled
            || before.fib_policy != config.fib_policy
            || before.multipath_weights != config.multipath_weights
            || limit_differs
            || before.backup_paths != config.backup_paths
        {
            self.kernel.mark_all(&self.loc_rib);
        }
        if limit_differs {
            self.loc_rib.sources.set_multipath(config.multipath_limit());
            if self.adj_ribs_out.groups.values().any(|group| group.key.sums_bandwidth) {
                for family in Family::ALL {
                    self.adj_ribs_out.export_again(family, None, &mut self.loc_rib);
                }
            }
        }
        if before.via_default != config.via_default {
            self.loc_rib.set_via_default(config.via_default);
        }
        let has_other_costs = before.vantages != config.vantages;
        if has_other_costs {
            self.configure_vantages();
        }
        if before.long_lived != config.long_lived || has_other_costs {
            for id in self.peers.ids() {
                self.review_peers.entry(id).or_insert(Review::Export);
            }
        }
        let identity = |c: &TableConfig| (c.asn, c.router_id, c.cluster_id);
        if identity(&before) != identity(&config) {
            self.cluster_ids_differ = true;
            self.review_peers.extend(self.peers.ids().into_iter().map(|id| (id, Review::Import)));
        }
    }

    /// The resolution of a tracked next hop changed.
    pub fn handle_next_hop(&mut self, addr: IpAddr, state: NextHopState) {
        self.loc_rib.set_next_hop(addr, state);
    }

    /// The interfaces that [`Change::Tunnel`](crate::policy::Change::Tunnel) may name: those that
    /// exist, with their kernel indices. A route through one that does not exist uses the hops that
    /// its next hop resolves to.
    pub fn handle_tunnels(&mut self, tunnels: BTreeMap<Arc<str>, u32>) {
        if self.kernel.set_tunnels(tunnels) {
            self.kernel.mark_all(&self.loc_rib);
        }
    }

    /// Defers all export, End-of-RIB included, until [`Table::release_export`]. As a restarting
    /// speaker (RFC 4724 §4.1) we must not send an End-of-RIB, which lets peers sweep our stale
    /// routes, before we have learned those routes again.
    pub fn defer_export(&mut self) {
        self.adj_ribs_out.defer();
    }

    /// Ends [`Table::defer_export`]: the next turns advertise the state as it is then.
    pub fn release_export(&mut self) {
        self.adj_ribs_out.release();
    }

    /// One turn: deadlines, inputs, passes, decision (RFC 4271 §9.1), the kernel, export (§9.2).
    /// Each phase gets a share of the budget, so that none delays the others.
    pub fn turn(&mut self, now: Time, budget: Work) -> Progress {
        self.turn += 1;
        let mut meter = Meter::new(u32::MAX);
        let share = (budget.0 / 6).max(1);
        let part = |meter: &Meter| meter.part(share);
        let mut each = part(&meter);
        self.expire(now, &mut each);
        self.adj_ribs_out.attend(&self.loc_rib, &mut each);
        self.review_changes(&mut each);
        meter.settle(&each);
        for phase in [Self::run_passes, Self::touch_hops] {
            let mut each = part(&meter);
            phase(self, &mut each);
            meter.settle(&each);
        }
        let mut each =
            if self.is_gathering() { meter.part(share.max(budget.0 / 2)) } else { part(&meter) };
        self.take_inputs(now, &mut each);
        meter.settle(&each);
        let inputs = Work(each.spent());
        let mut each = part(&meter);
        let decided = if self.is_gathering() { 0 } else { self.decide(&mut each) };
        self.undecided_turns =
            if self.loc_rib.has_touched() { self.undecided_turns.saturating_add(1) } else { 0 };
        meter.settle(&each);
        let decision = Work(each.spent());
        let mut each = part(&meter);
        let compared = |family, dest, changed| self.leaks.compared(family, dest, changed);
        self.kernel.compare(&mut self.loc_rib, &self.config, compared, &mut each);
        meter.settle(&each);
        // Export may use what the other phases left over.
        let mut each = meter.part(budget.0.saturating_sub(meter.spent()).max(share));
        self.adj_ribs_out.copy_and_dissolve(&mut self.loc_rib, &mut each);
        let is_decided = self.loc_rib.is_decided() && !self.peers.is_touching();
        let merging = if is_decided { Merging::Allowed } else { Merging::Postponed };
        self.adj_ribs_out.watch = self.monitors.watch();
        self.adj_ribs_out.encode(&mut self.loc_rib, merging, &mut each);
        if !self.adj_ribs_out.noted.is_empty() {
            self.note_advertised(&mut each);
        }
        self.adj_ribs_out.trim_chunks(now, &mut each);
        meter.settle(&each);
        let export = Work(each.spent());
        let mut each = part(&meter);
        self.purge_tombstones(now, &mut each);
        self.review_memory(now, &mut each);
        meter.settle(&each);
        self.report_end_of_ribs();
        for note in std::mem::take(&mut self.adj_ribs_out.notes) {
            self.note(note);
        }
        self.peers.review_timed();
        let next = if self.has_work() {
            self.adj_ribs_out.postpone_waking();
            NextTurn::Now
        } else {
            self.adj_ribs_out.wake_readers();
            NextTurn::WhenWoken
        };
        Progress { done: Work(meter.spent()), inputs, decision, export, decided, next }
    }

    /// Whether inputs take precedence over the decision process. Destinations are decided and
    /// encoded in the order of their slots, which is that of memory: the more have changed, the
    /// less each of them costs.
    fn is_gathering(&self) -> bool {
        self.peers.waiting_len() > 0
            && self.undecided_turns < GATHERING_TURNS
            && self.loc_rib.touched_len() < GATHERED_MAX
    }

    fn has_work(&self) -> bool {
        self.peers.waiting_len() > 0
            || self.peers.has_busy()
            || self.loc_rib.has_touched()
            || self.loc_rib.has_changed_hops()
            || self.kernel.has_work()
            || Family::ALL.into_iter().any(|f| self.loc_rib.dests(f).can_shrink())
            || self.adj_ribs_out.has_work()
            || !self.review_peers.is_empty()
            || !self.to_regroup.is_empty()
            || self.purge_more
            || self.timers_left
            || self.memory_review.is_running()
    }

    fn touch_hops(&mut self, meter: &mut Meter) {
        let mut reimport = Vec::new();
        self.loc_rib.touch_changed_hops(meter, &mut reimport);
        for (peer, family, dest) in reimport {
            self.reimport_dest(peer, family, dest);
        }
        // A pass may remove what is left.
        if !self.peers.has_busy() {
            self.loc_rib.compact_hops(meter);
        }
    }

    /// Runs the decision process for touched destinations and marks them for groups and the kernel.
    fn decide(&mut self, meter: &mut Meter) -> u32 {
        if !self.loc_rib.has_touched() {
            return 0;
        }
        self.loc_rib.next_generation();
        let mut count = 0;
        let mut decided = std::mem::take(&mut self.decided);
        let mut choices = std::mem::take(&mut self.choices);
        for family in Family::ALL {
            let groups = self.adj_ribs_out.groups.values().filter(|g| g.key.family == family);
            let wanted = groups.fold(WantedChanges::default(), |wanted, group| WantedChanges {
                all_paths: wanted.all_paths || group.key.looks_at_all_paths(),
                interfaces: wanted.interfaces || group.key.export.looks_at_interface(),
                groups: wanted.groups + 1,
            });
            choices.vantages = self.adj_ribs_out.deciding_vantages(family);
            loop {
                self.loc_rib.decide(family, wanted, meter, &mut decided, &mut choices);
                if decided.is_empty() {
                    break;
                }
                count += decided.len() as u32;
                if self.config.fib_enabled {
                    decided.iter().for_each(|change| self.kernel.mark(family, change.dest));
                }
                decided.iter().for_each(|change| self.leaks.mark(family, change.dest));
                if self.monitors.is_watching() {
                    let dests = self.loc_rib.dests(family);
                    let changed = decided.iter().filter(|change| change.best_changed);
                    self.monitors.decided(family, dests, changed.map(|change| change.dest));
                }
                self.adj_ribs_out.mark(family, &decided, &choices, meter);
                decided.clear();
                choices.rows.clear();
            }
        }
        (self.decided, self.choices) = (decided, choices);
        count
    }

    /// The earliest deadline.
    pub fn poll_timeout(&self) -> Option<Time> {
        let review = self.memory_review.deadline();
        let trim = self.adj_ribs_out.poll_timeout();
        self.peers.poll_timeout().into_iter().chain(review).chain(trim).min()
    }

    /// The next session that the table has begun to serve.
    pub fn poll_established(&mut self) -> Option<Established> {
        self.established.pop_front()
    }

    /// Removes and returns up to `max` changes of what the kernel should hold.
    pub fn poll_fib(&mut self, max: usize) -> Vec<(Prefix, FibChange)> {
        self.kernel.poll(max)
    }

    /// Next hops to start or stop tracking since the last call.
    pub fn poll_next_hops(&mut self) -> Vec<NextHopRequest> {
        let requests = self.loc_rib.hops.take_requests().into_iter();
        let to_request = |(addr, track)| {
            if track { NextHopRequest::Track(addr) } else { NextHopRequest::Untrack(addr) }
        };
        requests.map(to_request).collect()
    }

    /// The next notification to the host.
    pub fn poll_event(&mut self) -> Option<TableEvent> {
        self.events.pop_front()
    }

    fn note_end_of_rib(&mut self, peer: PeerId, family: Family) {
        // A peer may repeat the marker as often as it likes.
        self.end_of_ribs.retain(|waiting| (waiting.peer, waiting.family) != (peer, family));
        let stage = EndOfRibStage::Decision(self.loc_rib.rib(family).touched.barrier());
        self.end_of_ribs.push_back(PendingEndOfRib { peer, family, stage });
    }

    /// Reports each End-of-RIB once the routes before it have been decided and compared with the
    /// kernel.
    fn report_end_of_ribs(&mut self) {
        let (rib, kernel, events) = (&self.loc_rib, &self.kernel, &mut self.events);
        self.end_of_ribs.retain_mut(|waiting| {
            let (peer, family) = (waiting.peer, waiting.family);
            if let EndOfRibStage::Decision(barrier) = waiting.stage
                && rib.rib(family).touched.has_passed(barrier)
            {
                waiting.stage = EndOfRibStage::Kernel(kernel.barrier(family));
            }
            let is_over = matches!(waiting.stage, EndOfRibStage::Kernel(barrier) if kernel.has_passed(family, barrier));
            if is_over {
                events.push_back(TableEvent::EndOfRib { peer, family });
            }
            !is_over
        });
    }

    /// Queues a line for the log, unless too many are pending.
    fn note(&mut self, text: String) {
        let waiting = self.events.iter().filter(|e| matches!(e, TableEvent::Note(_))).count();
        if waiting < NOTES_MAX {
            self.events.push_back(TableEvent::Note(text));
        }
    }

    /// Sets the generation counter, for tests of its wrap: by itself that takes weeks.
    #[cfg(any(test, feature = "sim"))]
    pub fn set_generation(&mut self, generation: u32) {
        self.loc_rib.set_generation(generation);
    }

    fn peer_name(&self, id: PeerId) -> &str {
        self.peers.get(id).map_or("?", |peer| &peer.routes.name)
    }
}

#[cfg(test)]
mod tests;
