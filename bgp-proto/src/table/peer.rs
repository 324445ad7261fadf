//! A peer of the table: parameters, session, and its Adj-RIB-In (RFC 4271 §3.2) as sets of
//! destinations. The paths themselves are stored at their destinations.

use std::any::Any;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::retention::Retention;
use super::{CloseReason, ImportCounts, PeerRoutes};
use crate::policy::Prepared;
use crate::rib::{SourceId, SparseSet, Stamp};
use crate::session::{Keep, Negotiated};
use crate::table::Mirrored;
use crate::types::{Family, SessionId, Time, Timer};
use crate::wire::RouteBatch;

/// One peer.
pub(super) struct Peer {
    pub(super) source: SourceId,
    pub(super) address: IpAddr,
    pub(super) routes: Arc<PeerRoutes>,
    /// What is known of the import policy of `routes`.
    pub(super) import_policy: Arc<Prepared>,
    /// The session that is up, or the last one: its routes may be kept as stale.
    pub(super) session: Option<Arc<Negotiated>>,
    /// The session that is established.
    pub(super) up: Option<SessionId>,
    /// The request to close that session, if one was made.
    pub(super) close: Option<CloseOrder>,
    /// The host has removed it; it is dropped once its paths are withdrawn.
    pub(super) removed: bool,
    /// Inputs not yet processed, in order.
    pub(super) inputs: VecDeque<PeerInput>,
    /// Octets of the batches among them.
    pub(super) input_octets: u64,
    /// Octets of routes received since its paths were last weighed.
    pub(super) unreviewed: u64,
    families: [PeerFamily; 2],
}

/// Dropped when a batch has been applied completely.
pub type Receipt = Option<Box<dyn Any + Send>>;

/// Inputs of a peer: one ordered stream.
pub(super) enum PeerInput {
    /// The peer no longer forwards packets.
    ForwardingLost,
    /// Another link-local address of ours beside the session's.
    LinkLocal {
        session: SessionId,
        link_local: Option<Ipv6Addr>,
    },
    /// The id was in use when the peer was added: it begins once the previous one is gone.
    Add {
        address: IpAddr,
        routes: Arc<PeerRoutes>,
    },
    Up {
        session: SessionId,
        negotiated: Arc<Negotiated>,
    },
    Batch(Box<QueuedBatch>),
    /// A message that was treated as erroneous, at this Unix time. The receipt is held until it was noted.
    Mirrored {
        session: SessionId,
        message: Mirrored,
        secs: u32,
        receipt: Receipt,
    },
    Down {
        session: SessionId,
        keep: Option<Keep>,
    },
    Remove,
}

/// A queued batch of route events, and how far it is applied.
pub(super) struct QueuedBatch {
    pub(super) batch: RouteBatch,
    /// The next entry, and the octets that are left of its NLRI if it was begun.
    pub(super) entry: usize,
    pub(super) rest: Option<u32>,
    /// Held until the batch has been applied.
    #[allow(dead_code, reason = "its drop is what it is for")]
    pub(super) receipt: Receipt,
}

/// What belongs to one family of a peer.
#[derive(Default)]
pub(super) struct PeerFamily {
    /// Destinations that hold a path of the peer.
    pub(super) dests: SparseSet,
    /// Destinations that each pass has yet to visit.
    pub(super) passes: [SparseSet; 6],
    /// Passes whose end has a consequence.
    pub(super) ends: [bool; 6],
    /// Paths held, rejected ones included.
    pub(super) received: u32,
    /// Paths held that import accepted.
    pub(super) accepted: u32,
    /// The prefix limit was exceeded: nothing new is accepted.
    pub(super) limited: bool,
    /// The warning was given: the next is due once the count has fallen well below the bound.
    pub(super) warned: bool,
    /// The turn of the last warning.
    pub(super) warned_in: u64,
    /// Which paths are fresh.
    pub(super) marks: Marks,
    /// Whether and how long paths that are not fresh are kept across a restart of the peer (RFC 4724
    /// §4.2, RFC 9494 §4.2).
    pub(super) retention: Retention,
    /// Paths with NO_LLGR that the pass in progress has withdrawn.
    pub(super) not_long_lived: u32,
    /// BoRR was received; EoRR is awaited until then.
    pub(super) refresh_timer: Timer,
    pub(super) imports: ImportCounts,
}

/// The passes over a peer's destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Paths that an ended session left are withdrawn.
    Withdraw,
    /// Paths that are older than the sweep asks for are withdrawn.
    Sweep,
    /// Stamps are about to wrap: all paths that are not fresh get the same one.
    Restamp,
    /// The restart time is over: paths that are not fresh become long-lived stale.
    LongLived,
    /// Facts about the peer changed: the best path counts as changed.
    Touch,
    /// Import parameters changed: paths are re-evaluated.
    Reevaluate,
}

impl Pass {
    pub(super) const ALL: [Pass; 6] = [
        Pass::Withdraw,
        Pass::Sweep,
        Pass::Restamp,
        Pass::LongLived,
        Pass::Touch,
        Pass::Reevaluate,
    ];
}

/// Marks of the paths of one family: a path is fresh if it has the present stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) present: Stamp,
    /// No path has a stamp that is older.
    oldest: Stamp,
    /// The sweep withdraws paths with an older stamp than this.
    pub(super) sweep_from: Stamp,
    /// Paths that are not fresh.
    pub(super) old: u32,
}

impl Marks {
    /// Makes every path held now not fresh. Returns false and does nothing if stamps have wrapped
    /// since the last sweep: the caller sweeps or restamps first.
    pub(super) fn advance(&mut self, held: u32) -> bool {
        if self.old == held {
            return true;
        }
        if !self.has_room(held) {
            return false;
        }
        self.present = Stamp(self.present.0.wrapping_add(1));
        self.old = held;
        true
    }

    /// Whether [`Marks::advance`] would succeed.
    pub(super) fn has_room(&self, held: u32) -> bool {
        self.old == held || self.oldest.age(self.present) < u8::MAX - 1
    }

    /// All paths are fresh.
    pub(super) fn settle(&mut self) {
        (self.oldest, self.old) = (self.present, 0);
    }

    /// A sweep is over: nothing is older than it asked for.
    pub(super) fn end_sweep(&mut self) {
        self.oldest = self.sweep_from;
    }

    /// The stamp assigned to paths that are not fresh.
    pub(super) fn before_present(&self) -> Stamp {
        Stamp(self.present.0.wrapping_sub(1))
    }

    /// Every path has the present stamp or the one before.
    pub(super) fn end_restamp(&mut self) {
        self.oldest = self.before_present();
    }

    pub(super) fn is_swept(&self, stamp: Stamp) -> bool {
        stamp.age(self.present) > self.sweep_from.age(self.present)
    }
}

/// A request to the host to close a session, in force until the session has ended.
pub(super) struct CloseOrder {
    pub(super) reason: CloseReason,
    /// When it is repeated.
    pub(super) again: Timer,
}

impl Peer {
    pub(super) fn new(source: SourceId, address: IpAddr, routes: Arc<PeerRoutes>) -> Self {
        Peer {
            source,
            address,
            import_policy: Arc::new(Prepared::new(&routes.import.policy)),
            routes,
            session: None,
            up: None,
            close: None,
            removed: false,
            inputs: VecDeque::new(),
            input_octets: 0,
            unreviewed: 0,
            families: Default::default(),
        }
    }

    /// Replaces the routing parameters and returns those before.
    pub(super) fn replace_routes(&mut self, routes: Arc<PeerRoutes>) -> Arc<PeerRoutes> {
        self.import_policy = Arc::new(Prepared::new(&routes.import.policy));
        std::mem::replace(&mut self.routes, routes)
    }

    pub(super) fn family(&self, family: Family) -> &PeerFamily {
        &self.families[family.index()]
    }

    pub(super) fn family_mut(&mut self, family: Family) -> &mut PeerFamily {
        &mut self.families[family.index()]
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Time> + '_ {
        let refreshes = self.families.iter().map(|family| &family.refresh_timer);
        let close = self.close.as_ref().map(|order| &order.again);
        let kept = self.families.iter().flat_map(|family| family.retention.deadlines());
        refreshes.chain(close).filter_map(Timer::deadline).chain(kept.flatten())
    }

    /// Whether a pass has destinations left in either family.
    pub(super) fn has(&self, pass: Pass) -> bool {
        self.families.iter().any(|held| !held.pass(pass).is_empty())
    }

    /// Whether it was removed and none of its paths are left.
    pub(super) fn is_gone(&self) -> bool {
        self.removed && !self.has(Pass::Withdraw)
    }
}

impl PeerFamily {
    pub(super) fn pass(&self, pass: Pass) -> &SparseSet {
        &self.passes[pass as usize]
    }

    pub(super) fn pass_mut(&mut self, pass: Pass) -> &mut SparseSet {
        &mut self.passes[pass as usize]
    }

    /// Paths that count against the peer's limit: not those from before a restart that are kept or
    /// not swept yet. The peer may never have held both at the same time.
    pub(super) fn counted(&self) -> u32 {
        let is_restarting = self.retention.is_stale() || !self.pass(Pass::Sweep).is_empty();
        self.received - if is_restarting { self.marks.old } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_advance_and_refuse_to_wrap() {
        let mut marks = Marks::default();
        assert!(marks.advance(0) && marks.present == Stamp(0), "nothing to mark");
        let mut advanced = 0;
        while marks.advance(5) && advanced < 1000 {
            advanced += 1;
            marks.old = 4;
        }
        assert_eq!(advanced, 254);
        marks.sweep_from = marks.present;
        assert!(marks.is_swept(Stamp(0)) && !marks.is_swept(marks.present));
        marks.end_sweep();
        assert!(marks.advance(5));
        assert!(marks.is_swept(Stamp(253)) && !marks.is_swept(Stamp(254)));
    }
}
