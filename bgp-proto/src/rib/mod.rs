//! Routes: interned attributes, destinations, paths, the decision process and its reasons.
//!
//! Integer-indexed arenas: 20 octets a destination, 20 octets a path, attribute
//! sets interned as canonical wire bytes without the next hop, next hops interned apart with their
//! resolution. Internal to the crate except for what `explain` and the host need.

mod arena;
mod attrs;
mod decision;
mod destination;
mod hash;
mod loc_rib;
mod meter;
mod neighbors;
mod next_hop;
mod path;
mod source;
mod sparse;
mod work_set;

pub(crate) use arena::{Arena, IdSet, RUN_MAX, Run, Runs};
pub(crate) use attrs::{
    AttrId, AttrKey, AttrTable, LOCAL_PREF_DEFAULT, LocalAttrs, PREFERENCE_BGP,
};
pub(crate) use decision::{Candidate, Rank, compare, order, select, select_multipath};
pub(crate) use destination::{DestId, Destinations, Probe, Stored};
pub(crate) use hash::{Indexed, Seeded};
pub(crate) use loc_rib::{Decided, LocRib, Parts, Rib, Version, WantedChanges, generation_in};
pub(crate) use meter::Meter;
pub(crate) use neighbors::Neighbors;
pub(crate) use next_hop::{Moved, NextHopId, NextHops, Reach};
pub(crate) use path::{Path, PathFlags, Refusal, SourceId, Stamp};
pub(crate) use source::{SourceCounts, SourceFacts, Sources, default_preference};
pub(crate) use sparse::SparseSet;
pub(crate) use work_set::{Barrier, WorkSet};

use std::net::IpAddr;
use std::sync::Arc;

use crate::types::{FibKind, Hop};

/// A route of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoute {
    /// What the kernel is to hold for it: blackhole for own blocks; `None` when the kernel has it
    /// already (redistributed) or should have nothing.
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
}

/// Which step of the decision process put one path before another (RFC 4271 §9.1.2.2, RFC 4456 §9).
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
    /// Originated here.
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
    /// Lower ORIGINATOR_ID or BGP Identifier.
    RouterId,
    /// Shorter CLUSTER_LIST.
    ClusterListLength,
    /// Lower peer address.
    PeerAddress,
    /// Lower path identifier.
    PathId,
}

/// How a next hop resolves, as the host says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum NextHopState {
    /// Not known yet, or no route: paths through it are unusable.
    #[default]
    Unreachable,
    /// Over these hops.
    Via {
        /// Sorted, at least one.
        hops: Vec<Hop>,
        /// Metric of the route that resolves it.
        metric: u32,
        /// The next hop lies on a connected network.
        connected: bool,
        /// The name of the interface, for policies; `None` where there is more than one hop, as with
        /// BIRD's multipath routes.
        interface: Option<Arc<str>>,
        /// What kind of route leads there.
        over: Over,
    },
    /// One of our own addresses: the route is not used.
    Local,
}

impl NextHopState {
    /// An address of a network that the interface is connected to: its own gateway.
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

/// What kind of route leads to a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// One that says something about it.
    #[default]
    Specific,
    /// The default route, which leads to everything that nobody knows.
    Default,
}

/// For paths of which peers the default route counts as a way to the next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViaDefault {
    /// None.
    Never,
    /// Those of internal peers, whose next hops are routers of ours, and what this router originates.
    #[default]
    Internal,
    /// All of them, as BIRD does.
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
