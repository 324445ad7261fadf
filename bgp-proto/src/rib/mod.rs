//! Routes: interned attributes, destinations, paths, the decision process and its reasons.
//!
//! Integer-indexed arenas: 20 octets a destination, 20 octets a path, attribute
//! sets interned as canonical wire bytes without the next hop, next hops interned apart with their
//! resolution. Internal to the crate except for what `explain` and the host need.

mod arena;
mod attrs;
mod decision;
mod destination;
mod finalists;
mod hash;
mod loc_rib;
mod meter;
mod neighbors;
mod next_hop;
mod path;
mod source;
mod sparse;
mod vantage;
mod work_set;

pub(crate) use arena::{Arena, IdSet, RUN_MAX, Run, Runs};
pub(crate) use attrs::{
    AttrId, AttrKey, AttrTable, LOCAL_PREF_DEFAULT, LocalAttrs, PREFERENCE_BGP,
};
pub(crate) use decision::{Candidate, Rank, compare, order, select, select_multipath};
pub(crate) use destination::{DestId, Destinations, Probe, Stored};
pub(crate) use finalists::{Choice, Choices};
pub(crate) use hash::{Indexed, Seeded};
pub(crate) use loc_rib::{
    Decided, LocRib, MultipathLimit, Parts, Rib, Version, WantedChanges, generation_in,
};
pub(crate) use meter::Meter;
pub(crate) use neighbors::Neighbors;
pub(crate) use next_hop::{Moved, NextHopId, NextHops, Reach};
pub(crate) use path::{Path, PathFlags, Refusal, SourceId, Stamp};
pub(crate) use source::{SourceCounts, SourceFacts, Sources, default_preference};
pub(crate) use sparse::SparseSet;
pub(crate) use vantage::{Vantage, VantageId};
pub(crate) use work_set::{Barrier, WorkSet};

use std::net::IpAddr;
use std::sync::Arc;

use crate::types::{FibKind, Hop};

/// A locally originated route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoute {
    /// What to install in the kernel for it: a blackhole for own blocks; `None` if the kernel has
    /// it already (redistributed) or should have nothing.
    pub install: Option<FibKind>,
    /// The route's own next hop, if it has one (kernel routes with a gateway).
    pub next_hop: Option<IpAddr>,
    /// The hops, for `show routes`.
    pub hops: Vec<Hop>,
    /// Interface name, for policies.
    pub interface: Option<Arc<str>>,
    /// Kernel metric, for policies.
    pub metric: Option<u32>,
    /// Canonical attributes that the route starts with, as the host's redistribution policy left
    /// them. `None`: ORIGIN IGP and an empty AS_PATH.
    pub attrs: Option<Arc<[u8]>>,
    /// The VRF from which it was imported.
    pub from: Option<Arc<str>>,
}

/// What the AS_PATHs of paths must have in common for multipath, beside what the decision process
/// compares down to the IGP metric (RFC 4271 §9.1.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultipathAsPath {
    /// Their length: what other implementations call "relax".
    #[default]
    EqualLength,
    /// Their length, and the neighbouring AS from which they were received.
    SameNeighborAs,
    /// Everything.
    Identical,
}

/// The step of the decision process that preferred one path to another (RFC 4271 §9.1.2.2, RFC 4456
/// §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The only path.
    OnlyPath,
    /// The other one is not usable: next hop unresolved, looped, rejected by policy.
    Unusable,
    /// The other one carries LLGR_STALE (RFC 9494 §4.3).
    LongLivedStale,
    /// Higher preference among sources.
    Preference,
    /// Higher LOCAL_PREF.
    LocalPref,
    /// Locally originated.
    LocalOrigin,
    /// Shorter AS_PATH.
    AsPathLength,
    /// Lower ORIGIN.
    Origin,
    /// Lower MULTI_EXIT_DISC from the same neighbour AS.
    Med,
    /// eBGP over iBGP.
    PeerType,
    /// Lower metric to the next hop.
    IgpMetric,
    /// Lower cost from the vantage of the receiver, which takes the place of the IGP metric.
    VantageCost,
    /// Lower ORIGINATOR_ID or BGP Identifier.
    RouterId,
    /// Shorter CLUSTER_LIST.
    ClusterListLength,
    /// Lower peer address.
    PeerAddress,
    /// Lower path identifier.
    PathId,
}

/// How a next hop resolves, as reported by the host.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum NextHopState {
    /// Not reported yet, or no route: paths through it are unusable.
    #[default]
    Unreachable,
    /// Reached over these hops.
    Via {
        /// Sorted, at least one.
        hops: Vec<Hop>,
        /// Metric of the route that resolves it.
        metric: u32,
        /// The next hop lies on a connected network.
        connected: bool,
        /// The name of the interface, for policies; `None` if there is more than one hop, as with
        /// BIRD's multipath routes.
        interface: Option<Arc<str>>,
        /// The kind of route that resolves it.
        over: Over,
    },
    /// One of our own addresses: the route is not used.
    Local,
}

impl NextHopState {
    /// The state of `addr` on a network that the interface is connected to: it is its own gateway.
    pub fn connected(addr: IpAddr, ifindex: u32) -> Self {
        NextHopState::Via {
            hops: vec![Hop { gateway: Some(addr), ifindex, onlink: false, weight: 1 }],
            metric: 0,
            connected: true,
            interface: None,
            over: Over::Specific,
        }
    }
}

/// The kind of route that resolves a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Any route but the default route.
    #[default]
    Specific,
    /// The default route, which covers every address that no other route does.
    Default,
}

/// The peers for whose paths the default route may resolve the next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViaDefault {
    /// No peers.
    Never,
    /// Internal peers, whose next hops are routers of our AS; local routes as well.
    #[default]
    Internal,
    /// All peers, as in BIRD.
    Always,
}

impl NextHopState {
    /// The name of the interface that policies see.
    pub fn interface(&self) -> Option<&str> {
        match self {
            NextHopState::Via { interface, .. } => interface.as_deref(),
            NextHopState::Unreachable | NextHopState::Local => None,
        }
    }
}
