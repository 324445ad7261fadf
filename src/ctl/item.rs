//! The items of answers. Keys may be added, never renamed; absent values are `null`. Addresses,
//! prefixes and communities are strings, AS numbers integers, durations whole seconds.

mod announced;
mod configuration;
mod connections;
mod debug;
mod draining;
mod dump;
mod event;
mod explanation;
mod forecast;
mod kernel;
mod messages;
mod next_hop;
mod overview;
mod policy;
mod probe;
mod queues;
mod rehearsed;
mod station;
mod steered;

use std::net::IpAddr;

use bgp_proto::policy::Source;
use bgp_proto::types::{Family, PeerType, Prefix};
use serde::{Deserialize, Serialize};

pub use announced::Announced;
pub use configuration::{
    ChangedKey, Confirmed, ReloadRefused, Reloaded, ReloadedSession, Section, Setting,
    UnconfirmedReload,
};
pub use connections::{Range, RefusedConnections};
pub use debug::Debugged;
pub use draining::{DrainWaiting, Drained, Draining};
pub use dump::DumpPart;
pub use event::Event;
pub use explanation::{Advertised, ExplainedFib, Explanation, Withheld};
pub use forecast::{Forecasted, PlanDifference};
pub use kernel::KernelAnswer;
pub use messages::Messages;
pub use next_hop::{NextHop, Resolution};
pub use overview::{DownSession, Overview, Rates, SessionKind};
pub use policy::{ExplainedPeer, PolicyHits, PolicyStep, PolicyTest, RuleHits, SentPath};
pub use probe::{ProbeStep, Probed};
pub use queues::Queues;
pub use rehearsed::{AttributeChange, RehearsedPeer, RehearsedRoute, RehearsedRoutes};
pub use station::{MonitoredTable, Station};
pub use steered::{Shutdown, Steered};

/// A value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// IPv4.
    pub ipv4: T,
    /// IPv6.
    pub ipv6: T,
}

/// Stale routes of a peer in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// Why they are retained.
    pub phase: RetainedPhase,
    /// Paths that the peer has not announced again.
    pub paths: u32,
    /// When the phase ends: after the restart time they become long-lived stale if that is negotiated;
    /// otherwise they are withdrawn.
    pub seconds: u64,
}

/// Why stale routes are retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetainedPhase {
    /// Graceful restart (RFC 4724).
    Restart,
    /// Long-lived graceful restart (RFC 9494).
    LongLived,
}

/// The status of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The commit from which it was built; `unknown` if the build did not know it.
    pub commit: Option<String>,
    /// Our AS.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: String,
    /// Our route reflection cluster.
    pub cluster_id: String,
    /// When the process started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The source of the configuration: a file, or calico-node's environment.
    pub config: Option<String>,
    /// When it was last read, RFC 3339.
    pub config_read: Option<String>,
    /// Why the daemon is not ready; `null` if it is.
    pub not_ready: Option<String>,
    /// Problems with the environment of the process while it serves all the same: addresses on
    /// which it is not listening yet, descriptors, files. Each with its remedy.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Until when announcements are held back after the start, and for whom; `null`: they are not.
    #[serde(default)]
    pub held_back: Option<String>,
    /// The last reload, if it was refused: the next start would fail.
    #[serde(default)]
    pub reload_refused: Option<ReloadRefused>,
    /// The last reload, if it is to be confirmed or was undone.
    #[serde(default)]
    pub reload_unconfirmed: Option<UnconfirmedReload>,
    /// The log level or directives.
    pub log_level: Option<String>,
    /// Peers, configured and dynamic.
    pub peers: u32,
    /// Peers whose session is established.
    pub peers_established: u32,
    /// The ranges from which peers may connect, in the order of the file.
    #[serde(default)]
    pub ranges: Vec<Range>,
    /// The addresses whose connections were refused most recently, the last one first; at most 32.
    #[serde(default)]
    pub refused_connections: Vec<RefusedConnections>,
    /// The drain of all peers, if one is in force.
    #[serde(default)]
    pub drained: Option<Drained>,
    /// Peers that are drained, by name or with all others.
    #[serde(default)]
    pub peers_drained: u32,
    /// Routes that operators announced (`margay announce`).
    #[serde(default)]
    pub announced: u32,
    /// Destinations in the table.
    pub destinations: PerFamily<u32>,
    /// Paths to them.
    pub paths: PerFamily<u32>,
    /// Distinct sets of attributes.
    pub attribute_sets: u32,
    /// Distinct next hops.
    pub next_hops: u32,
    /// Update groups.
    pub groups: u32,
    /// Our routes in the kernel.
    pub fib: FibCounts,
    /// What waits.
    #[serde(default)]
    pub queues: Queues,
    /// The VRFs beside the default VRF, whose numbers are those above.
    #[serde(default)]
    pub vrfs: Vec<VrfStatus>,
    /// Metrics and health; `null` if they are not configured.
    pub http: Option<HttpStatus>,
    /// On a Calico node: the status of its objects.
    pub calico: Option<Calico>,
}

/// A configured VRF.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfStatus {
    /// Its name.
    pub name: String,
    /// The kernel's table; `null`: its device does not exist, and the numbers are 0.
    pub table: Option<u32>,
    /// Destinations in its Loc-RIB.
    pub destinations: PerFamily<u32>,
    /// Paths to them.
    pub paths: PerFamily<u32>,
    /// Update groups.
    pub groups: u32,
    /// Our routes in its table.
    pub fib: FibCounts,
}

/// How metrics and health are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// The configured address.
    pub listen: String,
    /// Why they are not served; `null` while they are.
    pub error: Option<String>,
}

/// The results of both probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Parts that are stuck, and since when, one line each; empty while the daemon is alive.
    pub not_alive: Vec<String>,
    /// Why the daemon is not ready; `null` if it is.
    pub not_ready: Option<String>,
}

/// The status of a Calico node's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calico {
    /// The name of the node.
    pub node: String,
    /// The sources of the objects.
    pub sources: Vec<CalicoSource>,
    /// Objects, or parts of them, that cannot be used; sorted, the first thousand.
    pub problems: Vec<CalicoProblem>,
    /// The number of all problems.
    pub problems_count: u32,
    /// The release of Calico that the plan is for, and how it is known.
    #[serde(default)]
    pub release: String,
    /// Settings that are valid but have no effect, or an unexpected one; sorted, the first
    /// thousand.
    #[serde(default)]
    pub notes: Vec<CalicoProblem>,
    /// The number of all notes.
    #[serde(default)]
    pub notes_count: u32,
    /// Sessions that stay up only until others carry their routes.
    pub parting: Vec<String>,
}

/// One source of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoSource {
    /// A short description without secrets.
    pub name: String,
    /// `connecting`, `current` or `away`.
    pub state: String,
    /// Whether its objects were listed once.
    pub listed: bool,
    /// The source's revision that the plan includes; `null` if the source has no revisions.
    pub revision: Option<i64>,
    /// Seconds since anything was last received from it, even without a change; `null` if it is not
    /// probed.
    #[serde(default)]
    pub heard_seconds: Option<u64>,
    /// For how many seconds it has been unavailable.
    pub away_seconds: Option<u64>,
    /// Why it is unavailable; `null` while it is available.
    pub error: Option<String>,
}

/// An object, or a part of it, that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoProblem {
    /// `KIND/NAME`.
    pub object: String,
    /// What is wrong with it and what happens instead.
    pub text: String,
}

/// Counts of our routes in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibCounts {
    /// Whether routes are installed at all.
    pub enabled: bool,
    /// Routes that are installed as intended.
    pub installed: u64,
    /// Routes that are not written yet.
    pub pending: u64,
    /// Routes that the kernel rejected.
    pub failed: u64,
    /// Routes that are not installed because of another process's route.
    pub foreign: u64,
    /// Our next-hop objects in the kernel: groups that routes use, and their members.
    #[serde(default)]
    pub next_hop_objects: u64,
}

/// A peer and its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What it is, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its address. Of a peer by interface: link-local, and `fe80::` while the neighbour is not known.
    pub address: IpAddr,
    /// The interface of a peer by interface.
    #[serde(default)]
    pub interface: Option<String>,
    /// The VRF that it is in; absent: the default VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The port that we dial.
    pub port: u16,
    /// Its AS; 0 if any of several is accepted and there is no session.
    pub remote_asn: u32,
    /// `external` or `any`, if more than one AS is accepted.
    #[serde(default)]
    pub remote_asn_accepted: Option<String>,
    /// Our AS on the session.
    pub local_asn: u32,
    /// `internal` or `external`.
    pub peer_type: PeerType,
    /// Whether it was accepted from a range.
    pub dynamic: bool,
    /// Where it is (RFC 9107).
    #[serde(default)]
    pub vantage: Option<String>,
    /// The FSM's state: `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: String,
    /// When the state was entered, RFC 3339.
    pub since: String,
    /// Seconds since then.
    pub state_seconds: u64,
    /// The shutdown by an operator, if the peer is shut down.
    #[serde(default)]
    pub shutdown: Option<Shutdown>,
    /// The drain of the peer, by name or with all others, if it is drained.
    #[serde(default)]
    pub drained: Option<Drained>,
    /// Negotiated families; while there is no session, the configured ones.
    pub families: Vec<Family>,
    /// The peer's BGP Identifier.
    pub router_id: Option<String>,
    /// Our address on the connection.
    pub local_address: Option<IpAddr>,
    /// Paths in the Adj-RIB-In, all families.
    pub prefixes_received: u32,
    /// Those of them that import accepted.
    pub prefixes_accepted: u32,
    /// Prefixes (with ADD-PATH: paths) advertised to the peer, all families.
    pub prefixes_advertised: u32,
    /// The same by family.
    pub prefixes: PerFamily<PrefixCounts>,
    /// While its session is down and its routes are retained (RFC 4724): the most seconds for which
    /// they will still be retained.
    #[serde(default)]
    pub stale_seconds: Option<u64>,
    /// The stale routes that are retained (RFC 4724, RFC 9494), also while a new session has not sent
    /// End-of-RIB.
    #[serde(default)]
    pub retained: PerFamily<Option<Retained>>,
    /// Seconds for which the peer's routes would be retained after the restart time (RFC 9494), from
    /// its capability and our limit; `null` without a session and if it is not negotiated.
    #[serde(default)]
    pub long_lived_stale_time: PerFamily<Option<u64>>,
    /// Prefix limit per family.
    pub prefixes_max: Option<u32>,
    /// On a Calico node: the object from which the session follows.
    #[serde(default)]
    pub object: Option<String>,
    /// On a Calico node: BGPFilters that are applied, in order.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Name of the import policy.
    pub import: String,
    /// Name of the export policy.
    pub export: String,
    /// Negotiated hold time in seconds; while there is no session, the configured one.
    pub hold_time: u64,
    /// Keepalive interval in seconds, before jitter; while there is no session, the configured one,
    /// or `null` for a third of the hold time.
    pub keepalive_time: Option<u64>,
    /// Running timers.
    #[serde(default)]
    pub timers: Timers,
    /// Capabilities in the peer's OPEN.
    pub capabilities: Vec<String>,
    /// Capabilities in ours.
    #[serde(default)]
    pub capabilities_sent: Vec<String>,
    /// The update group of the first family that has one.
    pub group: Option<u32>,
    /// Update groups by family.
    pub groups: PerFamily<Option<u32>>,
    /// Message counters.
    pub messages: Messages,
    /// Why the last session or connection attempt failed.
    pub last_error: Option<LastError>,
    /// Its last ten events, oldest first; only in the answer for one peer.
    #[serde(default)]
    pub events: Option<Vec<Event>>,
    /// TCP-AO (RFC 5925); only in the answer for one peer, if it has a key chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAo>,
    /// Why the last session ended, or the last failure since then for which there was a
    /// NOTIFICATION: failures of TCP do not replace it.
    #[serde(default)]
    pub last_bgp_error: Option<LastError>,
    /// Whether we wait for the peer to connect, and never dial.
    #[serde(default)]
    pub passive: bool,
    /// What the peer does not acknowledge on its connection, once it was sent again several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<Unacknowledged>,
    /// Sessions that ended since the peer was configured.
    #[serde(default)]
    pub flaps: u64,
    /// State of the BFD session: `AdminDown`, `Down`, `Init` or `Up`; `null` if BFD is not
    /// configured.
    #[serde(default)]
    pub bfd: Option<String>,
    /// Whether the BGP session waits for BFD.
    #[serde(default)]
    pub bfd_strict: bool,
}

/// Segments that a peer does not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unacknowledged {
    /// Their number.
    pub segments: u32,
    /// How often the first of them was sent again in a row.
    pub retransmissions: u32,
}

/// A key of a chain of TCP-AO, in the order of the file. Times are RFC 3339; `null`: the lifetime is open
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainKey {
    /// The name of the chain.
    pub chain: String,
    /// KeyID of what we sign with it.
    pub id: u8,
    /// KeyID of what neighbours sign with it.
    pub receive_id: u8,
    /// The algorithm, as the kernel names it.
    pub algorithm: String,
    /// What its lifetimes say now.
    pub state: ChainKeyState,
    /// When we begin to sign with it.
    pub send_from: Option<String>,
    /// When we do not sign with it any more.
    pub send_until: Option<String>,
    /// When neighbours may begin to sign with it.
    pub accept_from: Option<String>,
    /// When neighbours may not sign with it any more.
    pub accept_until: Option<String>,
    /// How many peers have the chain, without those that could connect from ranges.
    pub peers: usize,
}

/// What the lifetimes of a key say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainKeyState {
    /// Neighbours are asked for it.
    Preferred,
    /// It may be sent or accepted.
    Live,
    /// It will be.
    Waiting,
    /// It was.
    Over,
}

/// TCP-AO with a peer. Secrets are never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAo {
    /// The name of the key chain.
    pub chain: String,
    /// Its keys.
    pub keys: Vec<TcpAoKey>,
    /// Received segments of the connection; `null` without one.
    pub connection: Option<TcpAoCounters>,
    /// Received segments of the listening sockets of the address family, from all neighbours.
    pub listeners: TcpAoCounters,
}

/// A key of a chain, on the connection and on the listening sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAoKey {
    /// KeyID of what we sign with it.
    pub id: u8,
    /// KeyID of what the neighbour signs with it.
    pub receive_id: u8,
    /// The algorithm, as the kernel names it.
    pub algorithm: String,
    /// Whether the connection has it.
    pub held: bool,
    /// Whether we sign with it.
    pub current: bool,
    /// Whether we ask the neighbour to sign with it (RNextKeyID).
    pub next: bool,
    /// Segments of the connection that the neighbour has signed with it.
    pub good: u64,
    /// Segments of the connection with a wrong signature.
    pub bad: u64,
    /// Segments of attempts to connect, of the neighbour or of its range, that were signed with it.
    pub attempts_good: u64,
    /// Segments of such attempts with a wrong signature.
    pub attempts_bad: u64,
}

/// Received segments by the outcome of their check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAoCounters {
    /// The signature was right.
    pub good: u64,
    /// The signature was wrong.
    pub bad: u64,
    /// There was no key with their KeyID.
    pub key_not_found: u64,
    /// They were not signed.
    pub unsigned: u64,
    /// ICMP errors that were ignored.
    pub dropped_icmp: u64,
}

/// Whole seconds until a timer of a session expires; `null` if it is not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// HoldTimer: when it expires, the session ends.
    pub hold: Option<u64>,
    /// KeepaliveTimer: when it expires, we send a KEEPALIVE.
    pub keepalive: Option<u64>,
    /// ConnectRetryTimer: when it expires, we try to connect.
    pub connect_retry: Option<u64>,
    /// IdleHoldTimer: when it expires, the pause after repeated failures ends.
    pub idle_hold: Option<u64>,
}

/// A BFD session. Intervals are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdSession {
    /// Names of the peers that use it; empty while it is being removed.
    pub peers: Vec<String>,
    /// The peer's address.
    pub address: String,
    /// Our address; `null`: the kernel chooses.
    pub local_address: Option<String>,
    /// The interface's index, for link-local addresses.
    pub interface: Option<u32>,
    /// The VRF; `null`: the default VRF.
    #[serde(default)]
    pub vrf: Option<String>,
    /// Whether it is a multihop session (RFC 5883).
    pub multihop: bool,
    /// Our state: `AdminDown`, `Down`, `Init` or `Up`.
    pub state: String,
    /// Seconds since it changed.
    pub state_seconds: u64,
    /// Our diagnostic (RFC 5880 §4.1).
    pub diagnostic: String,
    /// The state that the peer reports.
    pub remote_state: String,
    /// The diagnostic that the peer reports.
    pub remote_diagnostic: String,
    /// Our discriminator.
    pub local_discriminator: u32,
    /// The peer's discriminator; `null` while no packets are received.
    pub remote_discriminator: Option<u32>,
    /// Desired Min TX Interval that we send.
    pub desired_min_tx_us: u64,
    /// Required Min RX Interval that we send.
    pub required_min_rx_us: u64,
    /// Detect Mult that we send.
    pub multiplier: u8,
    /// Desired Min TX Interval of the peer.
    pub remote_min_tx_us: u64,
    /// Required Min RX Interval of the peer.
    pub remote_min_rx_us: u64,
    /// Detect Mult of the peer.
    pub remote_multiplier: u8,
    /// Interval at which we send, before jitter.
    pub tx_interval_us: u64,
    /// Time without packets after which the session goes down; 0 while no packets are received.
    pub detection_time_us: u64,
    /// Mean deviation of the time between received packets.
    pub jitter_us: u64,
    /// Longest time between received packets since the session came up.
    pub gap_max_us: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets for the session that were dropped.
    pub packets_discarded: u64,
    /// Transitions to Up.
    pub ups: u64,
    /// Transitions from Up because the path or the peer failed.
    pub failures: u64,
    /// Why it last left Up.
    pub last_down: Option<String>,
    /// Seconds since then.
    pub last_down_seconds: Option<u64>,
    /// The local problem that keeps it from working, if there is one.
    pub error: Option<String>,
}

/// Prefixes of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixCounts {
    /// Paths in the Adj-RIB-In.
    pub received: u32,
    /// Those of them that import accepted.
    pub accepted: u32,
    /// Routes in the Adj-RIB-Out.
    pub advertised: u32,
}

/// Why a session ended, or could not be established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When, RFC 3339.
    pub at: String,
    /// `sent`, `received` or `local`.
    pub direction: String,
    /// Code of the NOTIFICATION.
    pub code: Option<u8>,
    /// Its subcode.
    pub subcode: Option<u8>,
    /// The reason, for operators.
    pub text: String,
}

/// The number of selected routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCount {
    /// Prefixes.
    pub prefixes: u64,
    /// Paths to them; of kernel routes, the same number.
    pub paths: u64,
}

/// A destination and its paths, best first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub prefix: Prefix,
    /// Its paths, the best first.
    pub paths: Vec<Path>,
}

/// A path to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Whether it is the best path.
    pub best: bool,
    /// Whether it is part of the multipath route in the kernel.
    pub multipath: bool,
    /// Whether it is retained during a restart of the peer.
    pub stale: bool,
    /// Whether it is long-lived stale: the restart time of the peer is over (RFC 9494).
    #[serde(default)]
    pub long_lived: bool,
    /// `bgp`, `static`, `announced`, `kernel`, `direct` or `vrf`.
    pub source: Source,
    /// The VRF from which it was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The name of the peer that sent it.
    pub peer: Option<String>,
    /// The vantage to which it leads; `null`: not known.
    #[serde(default)]
    pub vantage: Option<String>,
    /// Its cost from the vantage as seen from which it is explained.
    #[serde(default)]
    pub vantage_cost: Option<u32>,
    /// Received path identifier (RFC 7911); 0 if there is none.
    pub path_id: u32,
    /// Next hop.
    pub next_hop: Option<IpAddr>,
    /// The hops to which the next hop resolves.
    pub gateway: Vec<Gateway>,
    /// The kernel route over which the next hop is resolved; `explain` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// State of the BFD session with the peer, if there is to be one; `explain` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<String>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// AS numbers, AS_SETs as lists.
    pub as_path: Vec<AsPathPart>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Standard communities.
    pub communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
    /// Extended communities.
    pub extended_communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<String>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<String>,
    /// Seconds since it was received.
    pub age_seconds: u64,
    /// Why it cannot be used.
    pub unusable: Option<String>,
    /// IGP metric to the next hop.
    pub igp_metric: Option<u32>,
    /// The rule of the import policy that decided.
    pub import_rule: Option<String>,
    /// The step of the decision process that ranked it below the previous path.
    pub reason: String,
}

/// An AS number, or a set of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsPathPart {
    /// An AS number of a sequence.
    Asn(u32),
    /// An AS_SET, in the order of the message.
    Set(Vec<u32>),
}

/// A hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The gateway; `null` for a directly connected destination.
    pub via: Option<IpAddr>,
    /// The interface's name, or `#` and its index if the name is not known.
    pub interface: String,
    /// The gateway need not be in a network of the interface.
    pub onlink: bool,
}

/// One of our routes in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibRoute {
    /// Destination.
    pub prefix: Prefix,
    /// `unicast`, `blackhole` or `unreachable`.
    pub kind: String,
    /// The hops of a unicast route.
    pub gateways: Vec<Gateway>,
    /// The kernel's metric.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// Our rtm_protocol.
    pub protocol: u8,
    /// `installed`, `pending`, `failed` or `foreign`.
    pub state: String,
    /// Why it is not installed.
    pub error: Option<String>,
}

/// An update group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// An id that does not change while the group exists.
    pub id: u32,
    /// Address family of its messages.
    pub family: Family,
    /// The VRF; absent: the default VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Names of its members.
    pub members: Vec<String>,
    /// Where its members are.
    #[serde(default)]
    pub vantage: Option<String>,
    /// For a group with one member: why it shares no group with others.
    pub alone_because: Option<String>,
    /// Octets in its update log.
    pub log_bytes: u64,
    /// Number of prefixes that it advertises.
    pub prefixes: u32,
    /// How often a member was evicted from the log for reading too slowly, since the group was
    /// created.
    pub evictions: u64,
}

/// The log level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// A level, or directives such as `info,margay::net=debug`.
    pub level: String,
    /// The previous level, if it was changed.
    pub before: Option<String>,
}

/// The daemon is about to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Graceful restart or shutdown.
    pub stopping: super::StopMode,
}
