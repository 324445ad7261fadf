//! BIRD's control protocol, as Calico's BIRD 1.6.8 speaks it: what `birdc`,
//! `calicoctl node status`, the node's probes and CalicoNodeStatus read.
//!
//! Here: the commands ([`command`]), the lines of their replies ([`reply`], [`session`],
//! [`route`]), the server, with one socket per address family, and a [`client`]. Not here: where
//! the data comes from; a [`Backend`] returns it in the types of [`model`], with large route
//! listings in pages.
//!
//! The text equals BIRD's byte for byte, because its readers split it by columns and by the first
//! five bytes of a line. What they cannot parse is never written:
//!
//! - Differs from BIRD: a multipath route is written as one line `via … on …` per gateway, not as
//!   `multipath` followed by further lines, on which all of CalicoNodeStatus fails.
//! - Differs from BIRD: in `show route`, a session whose name is not `Mesh_…`, `Global_…` or
//!   `Node_…` is shown as `Node_` and its address, for the same reason.
//! - Differs from BIRD: `disable`, `enable`, `restart` and `reload` apply to sessions only. The
//!   other protocols cannot be stopped.
//!
//! A second dialect, BIRD 3's, would need another [`session`] and [`route`]; [`model`] (the data),
//! [`command`] (the commands) and [`reply`] (the framing) would be shared, and [`server`] would
//! choose the dialect by socket. The output differs in the greeting and `show status`
//! (`BIRD 3.x ready.`), in `show protocols` (the channels' tables instead of `master`, wider
//! columns), in `show route` (a heading `Table master4:` per table, the type
//! `unicast`/`blackhole` before the brackets, gateways on lines of their own) and in the names of
//! attributes (`bgp_path` for `BGP.as_path`).

mod bfd;
mod client;
mod command;
mod model;
mod reply;
mod route;
mod server;
mod session;
mod when;

use std::future::Future;

use bgp_proto::types::Family;

use super::Cursor;

pub use client::{AskError, Client, Mark, Place, is_refusal, read_line};
pub use command::{Action, Configure, RouteQuery, Target};
pub use model::{
    Acted, BfdRow, BgpDetails, BgpRoute, ChangeCounts, Details, Directions, Established, IgpMetric,
    Interface, Kind, Phase, Protocol, ProtocolId, Rank, Recovery, RecoveryOf, Route, RoutePage,
    Status, Via, Wait,
};
pub use server::Server;
pub use session::{last_error, reader_name};
pub(crate) use when::Clock as LocalClock;

/// The version that Calico's tools expect: BIRD 1.6.8 with Calico's patches.
pub const VERSION: &str = "v0.3.3+birdv1.6.8";

/// Provides the data and carries out the actions; implemented by the daemon.
///
/// As for [`super::Backend`], no method may take longer than it takes to produce one page.
pub trait Backend: Send + Sync + 'static {
    /// The state of the daemon, and the restart recovery of a family's sessions. Calico's liveness
    /// probe uses this: the error is human-readable text on what makes no progress.
    fn status(&self, family: Family) -> impl Future<Output = Result<Status, String>> + Send;
    /// All protocols of a family in BIRD's order: static, kernel, device, direct, then sessions by
    /// name.
    ///
    /// Before the first plan exists, the error says what is missing: no list would be correct, and
    /// probes would take one without sessions to mean that there is nothing to wait for.
    fn protocols(
        &self,
        family: Family,
    ) -> impl Future<Output = Result<Vec<Protocol>, String>> + Send;
    /// Details of the given protocols, in the same order.
    fn details(
        &self,
        family: Family,
        protocols: &[Protocol],
    ) -> impl Future<Output = Result<Vec<Details>, String>> + Send;
    /// One page of the routes that match.
    fn routes(
        &self,
        family: Family,
        query: &RouteQuery,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<RoutePage, String>> + Send;
    /// The host's interfaces with their addresses of a family.
    fn interfaces(&self, family: Family) -> impl Future<Output = Vec<Interface>> + Send;
    /// A family's BFD sessions, by address; `None`: there are none of either family.
    fn bfd_sessions(&self, family: Family) -> impl Future<Output = Option<Vec<BfdRow>>> + Send;
    /// Human-readable: what the configuration is read from.
    fn configuration(&self) -> impl Future<Output = String> + Send;
    /// Carries out an action on a session and returns the result.
    fn act(&self, protocol: &Protocol, action: Action) -> impl Future<Output = Acted> + Send;
    /// Reads, and if asked applies, the configuration. The error is human-readable.
    fn configure(&self, how: Configure) -> impl Future<Output = Result<(), String>> + Send;
}
