//! Export: eligibility, outbound rewriting, update groups and the chunk log.
//!
//! Peers that would be sent the same octets form one [`Group`](crate::table): the group encodes its
//! pending changes once into immutable [`Chunk`]s of its [`Log`], and each member is a cursor into
//! it, a [`Reader`]. Split horizon skips a frame. A member that falls off the log keeps no queue:
//! it is sent the current state of whatever changed since its version.

mod adj_rib_out;
mod attention;
mod batch;
mod chunk;
mod exported;
mod group;
mod log;
mod resync;
mod ribs;
mod rules;
mod state;

pub(crate) use adj_rib_out::{AdjRibOut, Advertised};
pub(crate) use batch::Batch;
pub use chunk::Chunk;
pub(crate) use chunk::{Audience, Frame};
pub(crate) use exported::{Except, ExportId, ExportTable, ExportedRoute};
use group::CHUNK_MAX;
pub use group::ExportCounts;
pub(crate) use group::watched::{Best, Change, Evaluated, Noted, Watch};
pub(crate) use group::{Group, choose_paths, tx_path_id};
pub use log::{Fetch, Log, Piece, Reader};
pub(crate) use log::{MemberEvent, MemberKey, Readers, Subscription};
pub(crate) use resync::{CoveredRanges, Resync, ResyncEnd, Resyncing};
pub(crate) use ribs::{AdjRibsOut, Merging};
pub(crate) use rules::{
    Exported, GroupKey, MedBefore, Outbound, Reflection, Withholding, export, is_memoisable,
    memo_class, trace_policy,
};
pub(crate) use state::{
    ExportState, ExportView, NOTES_MAX, evaluate_export, evaluate_path, offer, trace_export,
};

/// Where the next hop of an announcement points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// eBGP and local routes: our address on the session. iBGP: unchanged.
    #[default]
    Auto,
    /// As `Auto`, but a local route with a gateway is advertised to iBGP peers with that gateway as
    /// next hop, so that their traffic does not pass through us (RFC 4271 §5.1.3). BIRD's default.
    ThirdParty,
    /// Always our address.
    SelfAddress,
    /// Always unchanged, to eBGP peers too.
    Keep,
}

/// Whether routes are marked so that the peer moves to other paths before the session ends
/// (RFC 8326).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Drain {
    /// No mark.
    #[default]
    Off,
    /// Routes to an external peer carry GRACEFUL_SHUTDOWN, those to an internal peer LOCAL_PREF 0.
    /// Applied after policy.
    On,
    /// As `On`, and a locally originated route is withdrawn while a peer announces a usable path to
    /// the same prefix that is not itself marked. For peers that have had time to move: a peer may
    /// learn that path only once it has stopped using ours.
    Withdraw,
}

/// Whether long-lived stale routes are advertised to a peer (RFC 9494 §4.3).
///
/// Differs from RFC: 9494 §4.6 allows to send them to internal peers that do not know LLGR_STALE, with
/// NO_EXPORT and LOCAL_PREF 0. As in BIRD, they are not: routers of one AS would choose differently
/// between paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LongLived {
    /// Long-lived graceful restart is not configured for any peer: LLGR_STALE is a community like any
    /// other, but for the decision process.
    Unused,
    /// The peer sent capability 71.
    Known,
    /// It did not.
    Unknown,
}

/// How many paths an ADD-PATH peer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddPathSend {
    /// Every usable path; of more than 255, the best 255.
    #[default]
    All,
    /// The best paths, at most this many, 1-255.
    Best(u8),
}
