//! A path: one source's route to one destination, twenty octets.

use super::{AttrId, NextHopId};
use crate::types::{PeerId, Source};

/// Where a path came from: a peer, or one of the local sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(pub(crate) u16);

impl SourceId {
    /// No source: every member reads the frame.
    pub(crate) const NONE: SourceId = SourceId(u16::MAX);
    const DIRECT: SourceId = SourceId(u16::MAX - 1);
    const KERNEL: SourceId = SourceId(u16::MAX - 2);
    const STATIC: SourceId = SourceId(u16::MAX - 3);
    const VRF: SourceId = SourceId(u16::MAX - 4);
    const ANNOUNCED: SourceId = SourceId(u16::MAX - 5);
    /// Peer ids are below this.
    pub(crate) const PEERS_MAX: u16 = u16::MAX - 5;

    /// `None` if the id is too large for a path.
    pub(crate) fn peer_id(peer: PeerId) -> Option<Self> {
        u16::try_from(peer.0).ok().filter(|id| *id < Self::PEERS_MAX).map(SourceId)
    }

    /// `None` for [`Source::Bgp`], which names no single source.
    pub(crate) fn local(source: Source) -> Option<Self> {
        match source {
            Source::Bgp => None,
            Source::Static => Some(Self::STATIC),
            Source::Kernel => Some(Self::KERNEL),
            Source::Direct => Some(Self::DIRECT),
            Source::Vrf => Some(Self::VRF),
            Source::Announced => Some(Self::ANNOUNCED),
        }
    }

    pub(crate) fn peer(self) -> Option<PeerId> {
        (self.0 < Self::PEERS_MAX).then_some(PeerId(u32::from(self.0)))
    }

    /// The index of a local source; beyond all of them for [`SourceId::NONE`].
    pub(crate) fn local_index(self) -> usize {
        usize::from(Self::NONE.0.wrapping_sub(self.0)).wrapping_sub(1)
    }

    pub(crate) fn source(self) -> Source {
        match self {
            Self::STATIC => Source::Static,
            Self::KERNEL => Source::Kernel,
            Self::DIRECT => Source::Direct,
            Self::VRF => Source::Vrf,
            Self::ANNOUNCED => Source::Announced,
            _ => Source::Bgp,
        }
    }
}

/// Why import rejected a path, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    /// Our AS occurs in AS_PATH more often than allowed.
    AsLoop = 1,
    /// ORIGINATOR_ID is ours.
    OriginatorLoop,
    /// CLUSTER_LIST names a cluster of ours.
    ClusterLoop,
    /// A route leak: it carries OTC and did not come from a provider (RFC 9234 §5).
    RouteLeak,
    /// AS_PATH is longer than allowed.
    AsPathTooLong,
    /// More communities than allowed.
    TooManyCommunities,
    /// The attributes have more octets than allowed.
    AttributesTooLong,
    /// Rejected by the import policy.
    Rejected,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 8] = [
        Refusal::AsLoop,
        Refusal::OriginatorLoop,
        Refusal::ClusterLoop,
        Refusal::RouteLeak,
        Refusal::AsPathTooLong,
        Refusal::TooManyCommunities,
        Refusal::AttributesTooLong,
        Refusal::Rejected,
    ];
}

/// Flags of a path, and why import rejected it, if it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathFlags(u8);

impl PathFlags {
    /// Import changed attributes or next hop: what was received is kept separately.
    pub(crate) const CHANGED: PathFlags = PathFlags(16);
    /// From an eBGP peer.
    pub(crate) const EXTERNAL: PathFlags = PathFlags(32);

    /// Long-lived stale: as if it carried LLGR_STALE (RFC 9494 §4.2).
    pub(crate) const LONG_LIVED: PathFlags = PathFlags(64);

    /// Written since the last decision that looked at it for a vantage.
    pub(crate) const WRITTEN: PathFlags = PathFlags(128);

    const REFUSAL: u8 = 15;

    pub(crate) fn has(self, flag: PathFlags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: PathFlags) {
        self.0 |= flag.0;
    }

    pub(crate) fn clear(&mut self, flag: PathFlags) {
        self.0 &= !flag.0;
    }

    pub(crate) fn refuse(&mut self, why: Refusal) {
        self.0 = self.0 & !Self::REFUSAL | why as u8;
    }

    pub(crate) fn refusal(self) -> Option<Refusal> {
        let at = (self.0 & Self::REFUSAL).checked_sub(1)?;
        Refusal::ALL.get(usize::from(at)).copied()
    }

    /// Rejected: kept for re-evaluation, never used.
    #[inline]
    pub(crate) fn is_refused(self) -> bool {
        self.0 & Self::REFUSAL != 0
    }
}

/// When a path was last announced, counted in marks of its peer and family: a path with the current
/// stamp is fresh, one with an earlier stamp is stale (RFC 4724 §4.2) or not yet refreshed (RFC
/// 7313 §4). Marking all paths of a peer is one addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u8);

impl Stamp {
    /// Marks between `self` and the `present` stamp.
    #[inline]
    pub(crate) fn age(self, present: Stamp) -> u8 {
        present.0.wrapping_sub(self.0)
    }
}

/// One path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// Attributes after import.
    pub(crate) attrs: AttrId,
    /// Next hop after import.
    pub(crate) next_hop: NextHopId,
    /// Received path identifier, 0 without ADD-PATH.
    pub(crate) path_id: u32,
    /// When it was received, in seconds of the host's clock.
    pub(crate) received_secs: u32,
    pub(crate) source: SourceId,
    pub(crate) flags: PathFlags,
    /// When it was last announced.
    pub(crate) stamp: Stamp,
}

impl Path {
    /// Whether import gave both the same result, and both are or are not long-lived stale. When they
    /// were written does not count.
    #[inline]
    pub(crate) fn is_same_import(&self, other: &Path) -> bool {
        self.attrs == other.attrs
            && self.next_hop == other.next_hop
            && (self.flags.0 ^ other.flags.0) & !PathFlags::WRITTEN.0 == 0
    }
}

const _: () = assert!(size_of::<Path>() == 20);
