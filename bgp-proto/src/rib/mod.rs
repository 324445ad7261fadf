//! Routes: interned attributes, destinations, paths, the decision process and its reasons.
//!
//! Integer-indexed arenas (architecture §4): 20 octets a destination, 20 octets a path, attribute
//! sets interned as canonical wire bytes without the next hop, next hops interned apart with their
//! resolution. Internal to the crate except for what `explain` and the host need.

use crate::types::Hop;

/// Which step of the decision process told two paths apart (RFC 4271 §9.1.2.2, RFC 4456 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The only path.
    OnlyPath,
    /// The other one is not usable: next hop unresolved, looped, rejected by policy.
    Unusable,
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

/// How a next hop resolves, as told by the host.
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
    },
    /// One of our own addresses: the route is not used.
    Local,
}
