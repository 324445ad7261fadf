//! A path: one source's route to one destination, twenty octets.

use super::{AttrId, NextHopId};
use crate::types::{PeerId, Source};

/// Where a path came from: a peer, or one of our own sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(pub(crate) u16);

impl SourceId {
    /// Nobody: frames that no member is spared.
    pub(crate) const NONE: SourceId = SourceId(u16::MAX);
    const DIRECT: SourceId = SourceId(u16::MAX - 1);
    const KERNEL: SourceId = SourceId(u16::MAX - 2);
    const STATIC: SourceId = SourceId(u16::MAX - 3);
    /// Peer ids are below this.
    pub(crate) const PEERS_MAX: u16 = u16::MAX - 3;

    /// `None` if the id is too large for a path.
    pub(crate) fn peer_id(peer: PeerId) -> Option<Self> {
        u16::try_from(peer.0).ok().filter(|id| *id < Self::PEERS_MAX).map(SourceId)
    }

    /// `None` for [`Source::Bgp`], which names no single source.
    pub(crate) fn own(source: Source) -> Option<Self> {
        match source {
            Source::Bgp => None,
            Source::Static => Some(Self::STATIC),
            Source::Kernel => Some(Self::KERNEL),
            Source::Direct => Some(Self::DIRECT),
        }
    }

    pub(crate) fn peer(self) -> Option<PeerId> {
        (self.0 < Self::PEERS_MAX).then_some(PeerId(u32::from(self.0)))
    }

    pub(crate) fn source(self) -> Source {
        match self {
            Self::STATIC => Source::Static,
            Self::KERNEL => Source::Kernel,
            Self::DIRECT => Source::Direct,
            _ => Source::Bgp,
        }
    }
}

/// Facts about a path, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathFlags(u16);

impl PathFlags {
    /// Our AS occurs in AS_PATH more often than allowed.
    pub(crate) const AS_LOOP: PathFlags = PathFlags(1);
    /// ORIGINATOR_ID is ours.
    pub(crate) const ORIGINATOR_LOOP: PathFlags = PathFlags(2);
    /// CLUSTER_LIST names our cluster.
    pub(crate) const CLUSTER_LOOP: PathFlags = PathFlags(4);
    /// Import policy said no.
    pub(crate) const REJECTED: PathFlags = PathFlags(8);
    /// Kept over a restart of the peer (RFC 4724 §4.2).
    pub(crate) const STALE: PathFlags = PathFlags(16);
    /// Not seen again since the peer's BoRR (RFC 7313 §4).
    pub(crate) const UNREFRESHED: PathFlags = PathFlags(32);
    /// Import changed attributes or next hop: what was received is kept aside.
    pub(crate) const CHANGED: PathFlags = PathFlags(64);
    /// From an eBGP peer.
    pub(crate) const EXTERNAL: PathFlags = PathFlags(128);

    /// For customers only, and it did not come from a provider (RFC 9234 §5).
    pub(crate) const ROUTE_LEAK: PathFlags = PathFlags(256);

    const REFUSED: u16 = 1 | 2 | 4 | 8 | 256;

    pub(crate) fn has(self, flag: PathFlags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: PathFlags) {
        self.0 |= flag.0;
    }

    pub(crate) fn clear(&mut self, flag: PathFlags) {
        self.0 &= !flag.0;
    }

    /// Looped or rejected: kept, so that a new policy can judge again, but never used.
    pub(crate) fn is_refused(self) -> bool {
        self.0 & Self::REFUSED != 0
    }
}

impl std::ops::BitOr for PathFlags {
    type Output = PathFlags;

    fn bitor(self, other: PathFlags) -> PathFlags {
        PathFlags(self.0 | other.0)
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
}

const _: () = assert!(size_of::<Path>() == 20);
