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
mod view;

use std::sync::Arc;
use std::task::Waker;

pub use config::{AddPathSend, LocalRoute, NextHopMode, PeerRoutes, TableConfig};
pub use view::{
    AdvertisedTo, DestinationView, Explanation, GroupView, PathView, PeerCounts, RouteFilter,
    Totals, Withheld,
};

use crate::export::Reader;
use crate::rib::NextHopState;
use crate::session::{Keep, Negotiated};
use crate::types::{Family, FibRoute, PeerId, Prefix, Time};
use crate::wire::RouteBatch;
use std::net::IpAddr;

/// What the host is told besides routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableEvent {
    /// The peer passed its prefix limit and must be closed (Cease 6/1).
    PrefixLimit {
        /// Who.
        peer: PeerId,
        /// Which family.
        family: Family,
        /// The bound.
        bound: u32,
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
    _private: (),
}

impl Table {
    /// An empty table. `seed` goes into hash tables (feeders must not be able to aim collisions);
    /// results do not depend on it. `waker` is woken from other threads when a group's readers have
    /// room again or a member needs catching up: the host then calls [`Table::finish`].
    pub fn new(config: Arc<TableConfig>, seed: u64, waker: Waker) -> Self {
        let _ = (config, seed, waker);
        todo!()
    }

    /// Replaces the configuration; re-evaluates only what it touches.
    pub fn configure(&mut self, now: Time, config: Arc<TableConfig>) {
        let _ = (now, config);
        todo!()
    }

    /// A peer exists. `address` breaks ties in the decision process.
    pub fn peer_add(&mut self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>) {
        let _ = (peer, address, routes);
        todo!()
    }

    /// New routing parameters for a peer: import is re-evaluated from what it sent, export is
    /// compared with what it was told; the session is not touched.
    pub fn peer_configure(&mut self, now: Time, peer: PeerId, routes: Arc<PeerRoutes>) {
        let _ = (now, peer, routes);
        todo!()
    }

    /// The session is established: one reader per negotiated family.
    pub fn peer_up(&mut self, now: Time, peer: PeerId, negotiated: Arc<Negotiated>) -> Vec<Reader> {
        let _ = (now, peer, negotiated);
        todo!()
    }

    /// The session is over; routes are withdrawn, or kept as stale (RFC 4724 §4.2).
    pub fn peer_down(&mut self, now: Time, peer: PeerId, keep: Option<Keep>) {
        let _ = (now, peer, keep);
        todo!()
    }

    /// The peer is gone for good; its id may be used again.
    pub fn peer_remove(&mut self, now: Time, peer: PeerId) {
        let _ = (now, peer);
        todo!()
    }

    /// Route events of a peer, in order.
    pub fn apply(&mut self, now: Time, peer: PeerId, batch: &RouteBatch) {
        let _ = (now, peer, batch);
        todo!()
    }

    /// A route of our own appears or changes (`Some`), or goes. Keyed by prefix and source.
    pub fn handle_local(
        &mut self,
        now: Time,
        prefix: Prefix,
        source: crate::policy::Source,
        route: Option<LocalRoute>,
    ) {
        let _ = (now, prefix, source, route);
        todo!()
    }

    /// The resolution of a tracked next hop changed.
    pub fn handle_next_hop(&mut self, now: Time, addr: IpAddr, state: NextHopState) {
        let _ = (now, addr, state);
        todo!()
    }

    /// A deadline of [`Table::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
        todo!()
    }

    /// Ends a turn: runs the decision process for touched destinations, encodes what groups have
    /// room for. Returns whether work is left for an immediate further turn (sliced walks).
    pub fn finish(&mut self, now: Time) -> bool {
        let _ = now;
        todo!()
    }

    /// The earliest deadline.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }

    /// Takes up to `max` destinations off the FIB's dirty set, with what the kernel should hold.
    pub fn poll_fib(&mut self, max: usize) -> Vec<(Prefix, Option<FibRoute>)> {
        let _ = max;
        todo!()
    }

    /// Next hops to track or forget since the last call.
    pub fn poll_next_hops(&mut self) -> Vec<NextHopRequest> {
        todo!()
    }

    /// What the host should know.
    pub fn poll_event(&mut self) -> Option<TableEvent> {
        todo!()
    }

    /// A page of destinations: from `cursor` (0 to begin), at most `limit` that match; the second
    /// value is the next cursor, `None` at the end. Arena order, not prefix order.
    pub fn view(
        &self,
        filter: &RouteFilter,
        cursor: u32,
        limit: usize,
        now: Time,
    ) -> (Vec<DestinationView>, Option<u32>) {
        let _ = (filter, cursor, limit, now);
        todo!()
    }

    /// Everything about one destination.
    pub fn explain(&self, prefix: Prefix, now: Time) -> Option<Explanation> {
        let _ = (prefix, now);
        todo!()
    }

    /// The update groups.
    pub fn groups(&self) -> Vec<GroupView> {
        todo!()
    }

    /// Counters of a peer.
    pub fn counts(&self, peer: PeerId) -> PeerCounts {
        let _ = peer;
        todo!()
    }

    /// Number of destinations per family, paths, attribute sets: for metrics.
    pub fn totals(&self) -> Totals {
        todo!()
    }
}
