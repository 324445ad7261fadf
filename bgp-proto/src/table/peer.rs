//! A peer as the table knows it: parameters, last session, routes held per family.

use std::net::IpAddr;
use std::sync::Arc;

use super::{CloseReason, ImportCounts, PeerRoutes};
use crate::export::{MemberKey, Subscription};
use crate::rib::{SourceId, SparseSet};
use crate::session::Negotiated;
use crate::types::{Family, SessionId, Time, Timer};

/// One peer.
pub(super) struct Peer {
    pub(super) source: SourceId,
    pub(super) address: IpAddr,
    pub(super) routes: Arc<PeerRoutes>,
    /// The session that is up, or the last one: its routes may be kept as stale.
    pub(super) session: Option<Arc<Negotiated>>,
    /// The session that is established.
    pub(super) up: Option<SessionId>,
    /// The order to close that session, if one was given.
    pub(super) close: Option<CloseOrder>,
    /// The host has removed it; it goes when its paths have.
    pub(super) removed: bool,
    /// Stale routes are withdrawn at the latest then.
    pub(super) stale_timer: Timer,
    /// Octets of routes received since what it holds was looked at.
    pub(super) unreviewed: u64,
    families: [PeerFamily; 2],
}

/// What belongs to one family of a peer.
#[derive(Default)]
pub(super) struct PeerFamily {
    /// Destinations that hold a path of the peer.
    pub(super) dests: SparseSet,
    /// Destinations with paths that an earlier session left, on their way out.
    pub(super) withdrawing: SparseSet,
    /// Destinations with paths that import is to judge anew, and perhaps others.
    pub(super) to_reevaluate: SparseSet,
    /// Paths held, refused ones included.
    pub(super) received: u32,
    /// Paths held that import accepted.
    pub(super) accepted: u32,
    /// The limit was passed: nothing new is taken.
    pub(super) limited: bool,
    /// The warning was given: the next is due once the count has fallen well below the bound.
    pub(super) warned: bool,
    /// The turn of the last warning.
    pub(super) warned_in: u64,
    /// Paths marked [`PathFlags::STALE`](crate::rib::PathFlags) may exist.
    pub(super) stale: bool,
    /// BoRR was received; EoRR is awaited until then.
    pub(super) refresh_timer: Timer,
    pub(super) membership: Option<Membership>,
    pub(super) imports: ImportCounts,
}

/// An order to the host to close a session. It holds until the session is over.
pub(super) struct CloseOrder {
    pub(super) reason: CloseReason,
    /// When it is given again.
    pub(super) again: Timer,
}

/// Where a peer's reader reads.
pub(super) struct Membership {
    pub(super) group: u32,
    pub(super) key: MemberKey,
    pub(super) subscription: Arc<Subscription>,
}

impl Peer {
    pub(super) fn new(source: SourceId, address: IpAddr, routes: Arc<PeerRoutes>) -> Self {
        Peer {
            source,
            address,
            routes,
            session: None,
            up: None,
            close: None,
            removed: false,
            stale_timer: Timer::stopped(),
            unreviewed: 0,
            families: Default::default(),
        }
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
        refreshes.chain([&self.stale_timer]).chain(close).filter_map(Timer::deadline)
    }
}
