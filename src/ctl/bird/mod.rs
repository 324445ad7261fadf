//! BIRD's control protocol, as BIRD 1.6.8 of Calico speaks it: what `birdc`, `calicoctl node status`,
//! the node's probes and CalicoNodeStatus read.
//!
//! Here: the commands ([`command`]), the lines of their answers ([`reply`], [`session`], [`route`]),
//! the server of one socket, which is one family, and a [`client`]. Not here: where the numbers come from; a
//! [`Backend`] gives them as [`model`] names them, thousands of routes a page at a time.
//!
//! The text is BIRD's to the octet, because its readers split it by columns and by the first five
//! octets of a line. What they cannot read is never written:
//!
//! - Differs from BIRD: a route over several gateways is one line `via … on …` for each, not
//!   `multipath` and lines behind it, on which CalicoNodeStatus fails as a whole.
//! - Differs from BIRD: in `show route`, a session whose name is not `Mesh_…`, `Global_…` or
//!   `Node_…` goes by `Node_` and its address, for the same reason.
//! - Differs from BIRD: `disable`, `enable`, `restart` and `reload` are for sessions. The other
//!   protocols cannot be stopped.
//!
//! A second dialect, BIRD 3's, would be another [`session`] and [`route`]: [`model`] holds what both
//! say, [`command`] what both are asked, [`reply`] the framing, which is the same in both, and
//! [`server`] would choose by what the socket is made for. What they would say differently: the
//! greeting and `show status` (`BIRD 3.x ready.`), `show protocols` (tables of channels in the place
//! of `master`, longer columns), `show route` (a heading `Table master4:` for each table, the
//! destination's kind `unicast`/`blackhole` before the brackets and gateways on lines of their own)
//! and the names of attributes (`bgp_path` for `BGP.as_path`).

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

/// The version that Calico's tools look for: BIRD 1.6.8 with Calico's patches.
pub const VERSION: &str = "v0.3.3+birdv1.6.8";

/// Who answers: the daemon.
///
/// As with [`super::Backend`], nothing may wait longer than it takes to make one page.
pub trait Backend: Send + Sync + 'static {
    /// The daemon as a whole, and the recovery of the sessions of a family. Calico's liveness probe
    /// asks this: the error says what makes no progress, for people.
    fn status(&self, family: Family) -> impl Future<Output = Result<Status, String>> + Send;
    /// Every protocol of a family in BIRD's order: statics, kernel, device, direct, then sessions by
    /// name.
    ///
    /// The error says what is missing while nothing is decided yet: no list would be true, and one
    /// without sessions means to probes that nothing is waited for.
    fn protocols(
        &self,
        family: Family,
    ) -> impl Future<Output = Result<Vec<Protocol>, String>> + Send;
    /// More about some of them, in the same order.
    fn details(
        &self,
        family: Family,
        protocols: &[Protocol],
    ) -> impl Future<Output = Result<Vec<Details>, String>> + Send;
    /// Routes, a page at a time.
    fn routes(
        &self,
        family: Family,
        query: &RouteQuery,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<RoutePage, String>> + Send;
    /// The host's interfaces with their addresses of a family.
    fn interfaces(&self, family: Family) -> impl Future<Output = Vec<Interface>> + Send;
    /// BFD sessions with addresses of a family, by address; `None`: there are none of any family.
    fn bfd_sessions(&self, family: Family) -> impl Future<Output = Option<Vec<BfdRow>>> + Send;
    /// What the configuration is read from, for people.
    fn configuration(&self) -> impl Future<Output = String> + Send;
    /// Acts on a session, and says what came of it.
    fn act(&self, protocol: &Protocol, action: Action) -> impl Future<Output = Acted> + Send;
    /// Reads the configuration. The error is for people.
    fn configure(&self, how: Configure) -> impl Future<Output = Result<(), String>> + Send;
}
