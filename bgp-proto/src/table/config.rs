//! Configuration of the table: validated, immutable.

use std::sync::Arc;
use std::time::Duration;

use super::VantageCosts;
use crate::export::{AddPathSend, Drain, NextHopMode};
use crate::policy::Policy;
use crate::rib::{MultipathAsPath, MultipathLimit, ViaDefault};
use crate::types::{Asn, ClusterId, RouterId};

/// Process-wide routing parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier (RFC 4271 §4.2), for loop detection.
    pub router_id: RouterId,
    /// Our CLUSTER_ID (RFC 4456 §7); default: the BGP Identifier.
    pub cluster_id: ClusterId,
    /// Maximum number of next hops of an ECMP route in the kernel, 1-256. Default 16.
    pub multipath_max: usize,
    /// How traffic is shared between the next hops of an ECMP route. Default equally.
    pub multipath_weights: MultipathWeights,
    /// What the AS_PATHs of an ECMP route must have in common. Default their length.
    pub multipath_as_path: MultipathAsPath,
    /// Whether the host is told of a backup path
    /// ([`FibRoute::backup`](crate::types::FibRoute::backup)) for each BGP route. Default false.
    pub backup_paths: bool,
    /// Which best routes are installed in the kernel. `None`: every BGP route, and our own
    /// blackholes.
    pub fib_policy: Option<Arc<Policy>>,
    /// Which peers' next hops may resolve through the default route. Default: those of internal
    /// peers.
    pub via_default: ViaDefault,
    /// Whether best routes are installed in the kernel at all (false on a route reflector).
    pub fib_enabled: bool,
    /// Octets that one group's log may hold before slow members fall off. Default 16 MiB. With less
    /// than a few long messages, members being resynchronised push each other off repeatedly.
    pub log_bytes_max: usize,
    /// Maximum number of update groups; a session that would need one more is closed with 6/8.
    /// Default 4096.
    pub groups_max: usize,
    /// Octets that the table may hold in total ([`Table::memory`](super::Table::memory)); beyond
    /// it, the sessions of the peers that hold most are closed with 6/8. `None`, the default: no
    /// limit.
    pub memory_max: Option<u64>,
    /// Whether long-lived graceful restart is configured for any peer. Then routes with LLGR_STALE are
    /// advertised only to peers that sent capability 71 (RFC 9494 §4.3). Default false.
    pub long_lived: bool,
    /// The costs between vantages. Default: 0 within one, 1000 to any other.
    pub vantages: Arc<VantageCosts>,
}

/// How traffic is shared between the next hops of an ECMP route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultipathWeights {
    /// Each leg gets the same.
    #[default]
    Equal,
    /// By the Link Bandwidth extended community (draft-ietf-idr-link-bandwidth), transitive or
    /// not, the first of a path. Equally where a path of the route has none.
    LinkBandwidth,
}

/// Bounds of a peer's individual routes. A route that exceeds one is held and not used; a path
/// beyond `paths_max` is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// AS numbers in AS_PATH, each member of a set counted. Default 1024: what fits a message of
    /// 4096 octets is allowed.
    pub as_path_max: u16,
    /// Communities of all kinds. Default 2048, for the same reason.
    pub communities_max: u16,
    /// Octets of all attributes but the next hop. Default 16384: four messages of RFC 4271.
    pub attributes_max: u16,
    /// Paths for one destination (RFC 7911). Default 64; with more than about a thousand a change
    /// of one of them takes longer than a turn should.
    pub paths_max: u16,
}

impl Default for RouteLimits {
    fn default() -> Self {
        RouteLimits {
            as_path_max: 1024,
            communities_max: 2048,
            attributes_max: 16_384,
            paths_max: 64,
        }
    }
}

/// Routing parameters of one peer, grouped by the effect of a change. Changing them never restarts
/// the session.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerRoutes {
    /// The peer's name.
    pub name: Arc<str>,
    /// A change re-evaluates what the peer sent.
    pub import: ImportParams,
    /// A change sends the peer the difference between what it should have and what it was sent.
    pub export: ExportParams,
    /// Route reflection, which both directions depend on.
    pub reflection: ReflectionParams,
    /// The vantage at which the peer is: a zone or a rack, up to 1024 different ones in the table. The
    /// cost from it takes the place of the IGP metric in the choice of what an internal peer is sent.
    /// Default none.
    pub vantage: Option<Arc<str>>,
    /// Limits beyond which the session is closed. A change affects no route.
    pub limits: PeerLimits,
    /// How long stale routes are kept without End-of-RIB after the session is re-established (RFC
    /// 8538 §4.1). Default 180 s. A change takes effect with the next restart.
    pub stale_time: Duration,
}

/// What the import of a peer's routes depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportParams {
    /// The import policy.
    pub policy: Arc<Policy>,
    /// How often our own AS may occur in a received AS_PATH. Default 0.
    pub allow_local_asn: u8,
    /// Bounds of individual routes.
    pub limits: RouteLimits,
    /// Set LOCAL_PREF 0 on routes from eBGP with GRACEFUL_SHUTDOWN (RFC 8326). Default true.
    pub honour_graceful_shutdown: bool,
    /// If not `Off`, every route of the peer that import accepts gets LOCAL_PREF 0, as if it
    /// carried GRACEFUL_SHUTDOWN: other paths are preferred where there are any. Default `Off`.
    pub drain: Drain,
}

/// What the export of routes to a peer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportParams {
    /// The export policy.
    pub policy: Arc<Policy>,
    /// NEXT_HOP towards the peer.
    pub next_hop: NextHopMode,
    /// Paths per destination for ADD-PATH peers.
    pub add_path_send: AddPathSend,
    /// Whether the peer is asked to use other paths (RFC 8326). Default `Off`.
    pub drain: Drain,
}

/// The peer's role in route reflection (RFC 4456); internal peers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReflectionParams {
    /// The peer is a client of ours. Default false.
    pub client: bool,
    /// Cluster id used towards and from this peer instead of the process-wide one.
    pub cluster_id: Option<ClusterId>,
}

/// Limits beyond which a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Prefixes per family; beyond it, Cease 6/1. `None`, the default: no limit.
    pub prefixes_max: Option<u32>,
    /// Share of `prefixes_max` at which a warning is given, 1-100 percent. Default 80.
    pub prefixes_warning_percent: u8,
    /// Octets that its routes may hold; beyond it, Cease 6/8. `None`, the default: no limit.
    pub memory_max: Option<u64>,
}

impl PeerLimits {
    /// The number of prefixes at which a warning is given, at least 1. `None`: there is no limit.
    pub fn warning_at(&self) -> Option<u32> {
        let bound = u64::from(self.prefixes_max?);
        let share = bound * u64::from(self.prefixes_warning_percent.min(100)) / 100;
        Some(u32::try_from(share).unwrap_or(u32::MAX).max(1))
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        PeerLimits { prefixes_max: None, prefixes_warning_percent: 80, memory_max: None }
    }
}

impl TableConfig {
    pub(crate) fn multipath_limit(&self) -> MultipathLimit {
        MultipathLimit { max: self.multipath_max, as_path: self.multipath_as_path }
    }

    /// The defaults, for an AS and a BGP Identifier.
    pub fn new(asn: Asn, router_id: RouterId) -> Self {
        TableConfig {
            asn,
            router_id,
            cluster_id: ClusterId(router_id.0),
            multipath_max: 16,
            multipath_weights: MultipathWeights::default(),
            multipath_as_path: MultipathAsPath::default(),
            backup_paths: false,
            via_default: ViaDefault::Internal,
            fib_policy: None,
            fib_enabled: true,
            log_bytes_max: 16 << 20,
            groups_max: 4096,
            memory_max: None,
            long_lived: false,
            vantages: Arc::default(),
        }
    }
}

impl PeerRoutes {
    /// Accepts and advertises every route; defaults otherwise.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let all = Arc::new(Policy::accept_all());
        PeerRoutes {
            name: name.into(),
            import: ImportParams::new(Arc::clone(&all)),
            export: ExportParams::new(all),
            reflection: ReflectionParams::default(),
            vantage: None,
            limits: PeerLimits::default(),
            stale_time: Duration::from_secs(180),
        }
    }
}

impl ImportParams {
    /// Every default but the policy.
    pub fn new(policy: impl Into<Arc<Policy>>) -> Self {
        ImportParams {
            policy: policy.into(),
            allow_local_asn: 0,
            limits: RouteLimits::default(),
            honour_graceful_shutdown: true,
            drain: Drain::Off,
        }
    }
}

impl ExportParams {
    /// Every default but the policy.
    pub fn new(policy: impl Into<Arc<Policy>>) -> Self {
        let policy = policy.into();
        ExportParams {
            policy,
            next_hop: NextHopMode::Auto,
            add_path_send: AddPathSend::All,
            drain: Drain::Off,
        }
    }
}

/// Accepts every route.
impl Default for ImportParams {
    fn default() -> Self {
        ImportParams::new(Policy::accept_all())
    }
}

/// Advertises every route.
impl Default for ExportParams {
    fn default() -> Self {
        ExportParams::new(Policy::accept_all())
    }
}
