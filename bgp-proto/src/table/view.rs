//! Read-only views for the command line, JSON and metrics. The host gives them their
//! text and JSON forms.

use std::fmt;
use std::sync::Arc;

use super::{AnyCommunity, AsPathPattern};
use crate::export::ExportCounts;
use crate::policy::Source;
use crate::rib::{LocalRoute, Reason, Refusal};
use crate::types::{
    Family, FamilyMap, FibChange, FibKind, Hop, NextHop, PathId, PeerId, Prefix, Time,
};

/// Which destinations or paths a view shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Only this family.
    pub family: Option<Family>,
    /// Only this prefix.
    pub exact: Option<Prefix>,
    /// Only paths received from this peer, rejected ones included.
    pub received_from: Option<PeerId>,
    /// Only paths advertised to this peer, as they were sent (attributes after export).
    pub advertised_to: Option<PeerId>,
    /// Only paths from this source.
    pub source: Option<Source>,
    /// Only prefixes that this one contains, itself included.
    pub within: Option<Prefix>,
    /// Only prefixes behind this one, in their order.
    pub after: Option<Prefix>,
    /// Only prefixes up to this one, in their order.
    pub up_to: Option<Prefix>,
    /// Only paths with this community.
    pub community: Option<AnyCommunity>,
    /// Only paths whose AS_PATH this pattern describes.
    pub as_path: Option<AsPathPattern>,
    /// Only paths that cannot be used.
    pub unusable: bool,
    /// Leave out paths that import refused.
    pub hides_refused: bool,
}

/// Why a path cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Our AS is in AS_PATH (RFC 4271 §9.1.2).
    AsLoop,
    /// ORIGINATOR_ID is ours (RFC 4456 §8).
    OriginatorLoop,
    /// Our cluster is in CLUSTER_LIST (RFC 4456 §8).
    ClusterLoop,
    /// ONLY_TO_CUSTOMER shows that it was leaked (RFC 9234 §5).
    RouteLeak,
    /// AS_PATH is longer than `as-path-max` allows.
    AsPathTooLong,
    /// More communities than `communities-max` allows.
    TooManyCommunities,
    /// More octets of attributes than `attributes-max` allows.
    AttributesTooLong,
    /// The import policy rejects it.
    Rejected,
    /// The next hop is unreachable.
    NextHopUnresolved,
    /// Only the default route resolves the next hop, and the path may not use it.
    NextHopOverDefault,
    /// The next hop is an address of ours.
    NextHopLocal,
}

impl Unusable {
    pub(super) fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AsLoop => Unusable::AsLoop,
            Refusal::OriginatorLoop => Unusable::OriginatorLoop,
            Refusal::ClusterLoop => Unusable::ClusterLoop,
            Refusal::RouteLeak => Unusable::RouteLeak,
            Refusal::AsPathTooLong => Unusable::AsPathTooLong,
            Refusal::TooManyCommunities => Unusable::TooManyCommunities,
            Refusal::AttributesTooLong => Unusable::AttributesTooLong,
            Refusal::Rejected => Unusable::Rejected,
        }
    }

    /// Whether the path was rejected by import, rather than for lack of a usable next hop.
    pub fn is_refusal(self) -> bool {
        !matches!(
            self,
            Unusable::NextHopUnresolved | Unusable::NextHopOverDefault | Unusable::NextHopLocal
        )
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::AsLoop => "AS loop",
            Unusable::OriginatorLoop => "ORIGINATOR_ID is ours",
            Unusable::ClusterLoop => "our cluster id is in CLUSTER_LIST",
            Unusable::RouteLeak => "route leak: ONLY_TO_CUSTOMER (RFC 9234)",
            Unusable::AsPathTooLong => "AS_PATH is too long (as-path-max)",
            Unusable::TooManyCommunities => "too many communities (communities-max)",
            Unusable::AttributesTooLong => "attributes are too long (attributes-max)",
            Unusable::Rejected => "rejected by import policy",
            Unusable::NextHopUnresolved => "next hop unresolved",
            Unusable::NextHopOverDefault => {
                "only the default route leads to the next hop (fib.resolve-via-default)"
            }
            Unusable::NextHopLocal => "next hop is an address of ours",
        })
    }
}

/// One path of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The best path.
    pub best: bool,
    /// Used for multipath beside the best path.
    pub multipath: bool,
    /// Stale: kept across a restart of the peer (RFC 4724 §4.2).
    pub stale: bool,
    /// Long-lived stale (RFC 9494 §4.2): the restart time of the peer is over. `attrs` have
    /// LLGR_STALE.
    pub long_lived: bool,
    /// Why it cannot be used; `None` if it can.
    pub unusable: Option<Unusable>,
    /// Where it came from.
    pub source: Source,
    /// Preference among sources, higher first; 100 for BGP unless policy says otherwise.
    pub preference: u16,
    /// The local route, if it is one.
    pub own: Option<LocalRoute>,
    /// The peer that sent it; `None` for local routes.
    pub peer: Option<PeerId>,
    /// The vantage to which it leads: that of the neighbour that is its next hop, otherwise that of the
    /// peer that sent it. `None`: not known.
    pub vantage: Option<Arc<str>>,
    /// In [`Table::explain_from`](super::Table::explain_from): its cost from the vantage asked for.
    pub cost: Option<u32>,
    /// Received path identifier.
    pub path_id: PathId,
    /// Next hop after import.
    pub next_hop: Option<NextHop>,
    /// The hops that it resolves to.
    pub hops: Vec<Hop>,
    /// IGP metric of the next hop.
    pub igp_metric: Option<u32>,
    /// Canonical attributes after import (after export for `advertised_to`).
    pub attrs: Arc<[u8]>,
    /// Seconds since it was received.
    pub age_secs: u64,
    /// The decision step that ranked it behind the previous path; `OnlyPath` for the first.
    pub reason: Reason,
    /// The import rule that decided.
    pub import_rule: Option<String>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its prefix.
    pub prefix: Prefix,
    /// Its paths, best first.
    pub paths: Vec<PathView>,
}

/// A peer that was sent a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedTo {
    /// The peer.
    pub peer: PeerId,
    /// The path identifier sent, on ADD-PATH sessions.
    pub path_id: Option<PathId>,
    /// The next hop sent.
    pub next_hop: NextHop,
}

/// A peer that was not sent a route, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// The peer.
    pub peer: PeerId,
    /// The rule: "it sent the best path", "iBGP to iBGP without reflection", "no-export", the
    /// export policy's rule, "session is not established", …
    pub rule: String,
}

/// Everything about one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The paths.
    pub destination: DestinationView,
    /// What the host was last asked to install in the kernel.
    pub fib: FibChange<FibKind>,
    /// Peers that were sent it.
    pub advertised: Vec<AdvertisedTo>,
    /// Peers that were not.
    pub withheld: Vec<Withheld>,
}

/// One update group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Number of the group, constant while it exists.
    pub id: u32,
    /// Family of its messages.
    pub family: Family,
    /// Members.
    pub members: Vec<PeerId>,
    /// Where its members are ([`PeerRoutes::vantage`](super::PeerRoutes::vantage)).
    pub vantage: Option<Arc<str>>,
    /// If it has one member: what distinguishes it from other groups.
    pub alone_because: Option<String>,
    /// Octets in its log.
    pub log_bytes: usize,
    /// Prefixes advertised.
    pub prefixes: u32,
    /// How often a member fell off the log since the group was created.
    pub evictions: u64,
}

/// Counters of an update group: the part of [`GroupView`] that is cheap to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCounts {
    /// Number of the group, constant while it exists.
    pub id: u32,
    /// Family of its messages.
    pub family: Family,
    /// Number of members.
    pub members: u32,
    /// Octets in its log.
    pub log_bytes: u64,
    /// Prefixes advertised.
    pub prefixes: u32,
    /// How often a member fell off the log since the group was created.
    pub evictions: u64,
}

/// Why routes of an ended session are retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetainedPhase {
    /// Graceful restart (RFC 4724).
    Restart,
    /// Long-lived graceful restart (RFC 9494).
    LongLived,
}

/// Stale routes of a peer in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Why they are retained.
    pub phase: RetainedPhase,
    /// Paths that the peer has not announced again.
    pub paths: u32,
    /// When the phase ends: they are withdrawn, or become long-lived stale.
    pub until: Time,
}

/// Prefix counters of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Paths held.
    pub received: FamilyMap<u32>,
    /// Of these, accepted by import.
    pub accepted: FamilyMap<u32>,
    /// Prefixes (paths, with ADD-PATH) that it has been sent.
    pub advertised: FamilyMap<u32>,
    /// Of the accepted ones, those that are the best path of their destination.
    pub preferred: FamilyMap<u32>,
    /// While the peer is down and stale routes are kept for its restart: when they are withdrawn at
    /// the latest, the long-lived stale time included.
    pub restarting: Option<Time>,
    /// The stale routes that are retained.
    pub retained: FamilyMap<Option<Retained>>,
    /// Outcome of what it sent since the peer was added.
    pub imports: FamilyMap<ImportCounts>,
    /// What it was sent since its session came up.
    pub exports: FamilyMap<ExportCounts>,
    /// Number of its update group per family.
    pub group: FamilyMap<Option<u32>>,
}

/// Outcome of the routes that a peer announced and withdrew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Announced and accepted, as a new path or in place of another.
    pub accepted: u64,
    /// Announced, the same as before.
    pub unchanged: u64,
    /// Announced and rejected by the import policy.
    pub filtered: u64,
    /// Announced and not usable: AS_PATH, ORIGINATOR_ID or CLUSTER_LIST contains us, it was leaked,
    /// or it exceeds a bound of [`RouteLimits`](super::RouteLimits).
    pub looped: u64,
    /// Announced beyond the prefix limit or the limit of paths per destination, and not accepted.
    pub over_limit: u64,
    /// Withdrawn.
    pub withdrawn: u64,
    /// Withdrawn without having been announced.
    pub withdrawn_unknown: u64,
}

impl ImportCounts {
    /// Announcements and withdrawals that changed something, or would have.
    pub fn changes(&self) -> u64 {
        self.accepted + self.filtered + self.looped + self.over_limit + self.withdrawn
    }
}

impl std::ops::AddAssign for ImportCounts {
    fn add_assign(&mut self, more: ImportCounts) {
        let ImportCounts {
            accepted,
            unchanged,
            filtered,
            looped,
            over_limit,
            withdrawn,
            withdrawn_unknown,
        } = more;
        self.accepted += accepted;
        self.unchanged += unchanged;
        self.filtered += filtered;
        self.looped += looped;
        self.over_limit += over_limit;
        self.withdrawn += withdrawn;
        self.withdrawn_unknown += withdrawn_unknown;
    }
}

/// Sizes of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Totals {
    pub destinations: FamilyMap<u32>,
    pub paths: FamilyMap<u32>,
    pub attribute_sets: u32,
    pub next_hops: u32,
    pub groups: u32,
    /// Paths whose next hop is not resolved, or an address of ours.
    pub paths_unresolved: u32,
    /// How often the resolution of a next hop changed.
    pub next_hop_changes: u64,
}
