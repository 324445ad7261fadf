//! What answers are made of. Keys may be added, never renamed; absent values are `null`. Addresses,
//! prefixes and communities are text, AS numbers integers, durations whole seconds.

use std::net::IpAddr;

use bgp_proto::policy::Source;
use bgp_proto::types::{Family, PeerType, Prefix};
use serde::{Deserialize, Serialize};

/// A number for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// IPv4.
    pub ipv4: T,
    /// IPv6.
    pub ipv6: T,
}

/// The daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The commit that it was built from; `unknown` if nobody said.
    pub commit: Option<String>,
    /// Our AS.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: String,
    /// Our route reflection cluster.
    pub cluster_id: String,
    /// When the process began, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub config: Option<String>,
    /// When it was last read, RFC 3339.
    pub config_read: Option<String>,
    /// What is missing for being ready; `null` once it is.
    pub not_ready: Option<String>,
    /// What is wrong with the process's surroundings while it serves all the same: addresses that it
    /// does not listen on yet, descriptors, files. Each with its remedy.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is logged.
    pub log_level: Option<String>,
    /// Peers, by configuration or in a range.
    pub peers: u32,
    /// Of these, established.
    pub peers_established: u32,
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
    /// The kernel's routes of ours.
    pub fib: FibCounts,
    /// Metrics and health; `null` if they are not wanted.
    pub http: Option<HttpStatus>,
    /// On a Calico node: what is known about its objects.
    pub calico: Option<Calico>,
}

/// How metrics and health are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// The configured address.
    pub listen: String,
    /// Why they are not; `null` while they are.
    pub error: Option<String>,
}

/// What probes ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Parts that are stuck, and since when, a line each; none while the daemon is alive.
    pub not_alive: Vec<String>,
    /// What is missing for being ready; `null` once nothing is.
    pub not_ready: Option<String>,
}

/// What is known about a Calico node's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calico {
    /// The node.
    pub node: String,
    /// Where objects come from.
    pub sources: Vec<CalicoSource>,
    /// Objects, or parts of them, that cannot be used; sorted, the first thousand.
    pub problems: Vec<CalicoProblem>,
    /// How many there are in all.
    pub problems_count: u32,
    /// The release of Calico that the plan is for, and where it is known from.
    #[serde(default)]
    pub release: String,
    /// What can be used, and does nothing or something else than one might think; sorted, the first
    /// thousand.
    #[serde(default)]
    pub notes: Vec<CalicoProblem>,
    /// How many there are in all.
    #[serde(default)]
    pub notes_count: u32,
    /// Sessions that go on only until others carry their routes.
    pub parting: Vec<String>,
}

/// Where objects come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoSource {
    /// In a few words.
    pub name: String,
    /// `connecting`, `current` or `away`.
    pub state: String,
    /// Whether its objects were listed once.
    pub listed: bool,
    /// The source's revision up to which everything is in the plan; `null`: it counts none.
    pub revision: Option<i64>,
    /// Seconds since it last said anything, be it that nothing is new; `null`: it is not asked.
    #[serde(default)]
    pub heard_seconds: Option<u64>,
    /// Seconds since it cannot be read.
    pub away_seconds: Option<u64>,
    /// Why it cannot be read; `null` while it can.
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

/// How far the kernel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibCounts {
    /// Whether routes are written at all.
    pub enabled: bool,
    /// In the kernel as wanted.
    pub installed: u64,
    /// Not written yet.
    pub pending: u64,
    /// Refused by the kernel.
    pub failed: u64,
    /// Not installed because of another process's route.
    pub foreign: u64,
    /// Next-hop objects of ours that the kernel has: groups that routes go over, and their members.
    #[serde(default)]
    pub next_hop_objects: u64,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The port that we dial.
    pub port: u16,
    /// Its AS.
    pub remote_asn: u32,
    /// Our AS on the session.
    pub local_asn: u32,
    /// `internal` or `external`.
    pub peer_type: PeerType,
    /// Whether it came out of a range.
    pub dynamic: bool,
    /// The FSM's state: `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: String,
    /// When the state was entered, RFC 3339.
    pub since: String,
    /// Seconds since then.
    pub state_seconds: u64,
    /// That an operator has shut it down, if so.
    #[serde(default)]
    pub shutdown: Option<Shutdown>,
    /// Families agreed on; while there is no session, families that we offer.
    pub families: Vec<Family>,
    /// The peer's BGP Identifier.
    pub router_id: Option<String>,
    /// Our address on the connection.
    pub local_address: Option<IpAddr>,
    /// Paths held, all families.
    pub prefixes_received: u32,
    /// Of these, accepted by import.
    pub prefixes_accepted: u32,
    /// Prefixes (paths, with ADD-PATH) advertised to the peer, all families.
    pub prefixes_advertised: u32,
    /// The same by family.
    pub prefixes: PerFamily<PrefixCounts>,
    /// While its session is down and its routes are kept all the same (RFC 4724): for how many seconds
    /// more, at most.
    #[serde(default)]
    pub stale_seconds: Option<u64>,
    /// Most prefixes per family.
    pub prefixes_max: Option<u32>,
    /// On a Calico node: the object that the session follows from.
    #[serde(default)]
    pub object: Option<String>,
    /// On a Calico node: BGPFilters that are applied, in order.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Name of the import policy.
    pub import: String,
    /// Name of the export policy.
    pub export: String,
    /// Agreed hold time in seconds; while there is no session, the one that we offer.
    pub hold_time: u64,
    /// Agreed keepalive interval in seconds, before jitter; while there is no session, the configured
    /// one, or `null`: a third of the hold time.
    pub keepalive_time: Option<u64>,
    /// What is waited for.
    #[serde(default)]
    pub timers: Timers,
    /// What the peer offered.
    pub capabilities: Vec<String>,
    /// The update group of the first family that has one.
    pub group: Option<u32>,
    /// Update groups by family.
    pub groups: PerFamily<Option<u32>>,
    /// Message counters.
    pub messages: Messages,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// State of the BFD session: `AdminDown`, `Down`, `Init` or `Up`; `null`: there is to be none.
    #[serde(default)]
    pub bfd: Option<String>,
    /// Whether the BGP session waits for BFD.
    #[serde(default)]
    pub bfd_strict: bool,
}

/// Whole seconds until a timer of a session expires; `null`: it does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// HoldTimer: the peer's silence ends the connection then.
    pub hold: Option<u64>,
    /// KeepaliveTimer.
    pub keepalive: Option<u64>,
    /// ConnectRetryTimer: the next attempt to connect.
    pub connect_retry: Option<u64>,
    /// IdleHoldTimer: the end of the pause after repeated faults.
    pub idle_hold: Option<u64>,
}

/// A BFD session. Intervals are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdSession {
    /// Names of the peers that it is for; none: it is on its way out.
    pub peers: Vec<String>,
    /// The peer's address.
    pub address: String,
    /// Our address; `null`: the system chooses.
    pub local_address: Option<String>,
    /// The interface's index, for link-local addresses.
    pub interface: Option<u32>,
    /// Whether routers may be between.
    pub multihop: bool,
    /// Our state: `AdminDown`, `Down`, `Init` or `Up`.
    pub state: String,
    /// Seconds since it changed.
    pub state_seconds: u64,
    /// Our diagnostic (RFC 5880 §4.1).
    pub diagnostic: String,
    /// The peer's state, as it says.
    pub remote_state: String,
    /// The peer's diagnostic, as it says.
    pub remote_diagnostic: String,
    /// Our discriminator.
    pub local_discriminator: u32,
    /// The peer's; `null`: no packets are received.
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
    /// Time without packets after which the session goes down; 0: no packets are received.
    pub detection_time_us: u64,
    /// Mean deviation of the time between packets received.
    pub jitter_us: u64,
    /// Longest time between packets received since the session is up.
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
    /// What keeps it from working here.
    pub error: Option<String>,
}

/// Prefixes of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixCounts {
    /// Paths held.
    pub received: u32,
    /// Of these, accepted by import.
    pub accepted: u32,
    /// Routes in the Adj-RIB-Out.
    pub advertised: u32,
}

/// Message counters of a peer since it was configured: [`bgp_proto::session::Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The same words there.
pub struct Messages {
    pub updates_received: u64,
    pub keepalives_received: u64,
    pub keepalives_sent: u64,
    pub notifications_received: u64,
    pub notifications_sent: u64,
    pub refreshes_received: u64,
    pub refreshes_sent: u64,
    pub treated_as_withdraw: u64,
    pub attributes_discarded: u64,
    pub octets_received: u64,
    pub established_transitions: u64,
    pub connect_failures: u64,
}

/// Why a session ended or did not begin.
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
    /// For people.
    pub text: String,
}

/// A destination and its paths, best first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub prefix: Prefix,
    /// Its paths, the best first.
    pub paths: Vec<Path>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The best one.
    pub best: bool,
    /// Used by the kernel beside the best.
    pub multipath: bool,
    /// Kept over a restart of the peer.
    pub stale: bool,
    /// `bgp`, `static`, `kernel` or `direct`.
    pub source: Source,
    /// The name of the peer that sent it.
    pub peer: Option<String>,
    /// Received path identifier (RFC 7911); 0 without.
    pub path_id: u32,
    /// Next hop.
    pub next_hop: Option<IpAddr>,
    /// The ways that the next hop resolves to.
    pub gateway: Vec<Gateway>,
    /// The kernel route that decides how the next hop is reached; `explain` only.
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
    /// Metric to the next hop.
    pub igp_metric: Option<u32>,
    /// The import rule that decided.
    pub import_rule: Option<String>,
    /// The step that put it behind the path before it.
    pub reason: String,
}

/// An AS number, or a set of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsPathPart {
    /// Of a sequence.
    Asn(u32),
    /// A set, in the order of the message.
    Set(Vec<u32>),
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The gateway; `null` for a directly connected destination.
    pub via: Option<IpAddr>,
    /// The interface's name, or `#` and its index when it is not known.
    pub interface: String,
    /// The gateway need not be in a network of the interface.
    pub onlink: bool,
}

/// A route of ours in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibRoute {
    /// Destination.
    pub prefix: Prefix,
    /// `unicast`, `blackhole` or `unreachable`.
    pub kind: String,
    /// Where to.
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
    /// A number that stays while the group lives.
    pub id: u32,
    /// Family of its messages.
    pub family: Family,
    /// Names of its members.
    pub members: Vec<String>,
    /// For a group of one: what sets it apart.
    pub alone_because: Option<String>,
    /// Octets in its log.
    pub log_bytes: u64,
    /// Prefixes advertised.
    pub prefixes: u32,
    /// Members that fell off the log since the group began.
    pub evictions: u64,
}

/// Everything about one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The destination.
    pub prefix: Prefix,
    /// On a Calico node: what the objects say of it, such as which Service's address it is.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Every path, in order; `reason` is the step that decided against the one before.
    pub paths: Vec<Path>,
    /// What the kernel was asked to hold.
    pub fib: Option<ExplainedFib>,
    /// Why that is nothing.
    pub fib_absent: Option<String>,
    /// Who it is advertised to.
    pub advertised: Vec<Advertised>,
    /// Who was not, and why.
    pub withheld: Vec<Withheld>,
}

/// What the kernel was asked to hold, and whether it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedFib {
    /// `unicast`, `blackhole` or `unreachable`.
    pub kind: String,
    /// Where to.
    pub gateways: Vec<Gateway>,
    /// The kernel's metric; `null` if routes are not written.
    pub metric: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// `installed`, `pending`, `failed` or `foreign`; `null` if routes are not written.
    pub state: Option<String>,
    /// Why it is not installed.
    pub error: Option<String>,
}

/// A peer that it is advertised to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertised {
    /// Its name.
    pub peer: String,
    /// With which path identifier, on ADD-PATH sessions.
    pub path_id: Option<u32>,
    /// With which next hop.
    pub next_hop: IpAddr,
}

/// A peer that it is not advertised to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// Its name.
    pub peer: String,
    /// The rule that withheld it.
    pub rule: String,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// One line for each change; empty: nothing changed.
    pub changes: Vec<String>,
}

/// The shutdown of a peer by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Since when, RFC 3339.
    pub since: String,
    /// What the neighbour was told (RFC 9003).
    pub message: Option<String>,
    /// How long, at most.
    pub lasts: super::Lasts,
}

/// What was done with a session, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    /// The peer's name.
    pub name: String,
    /// Its address; `null`: it is not there at present.
    pub address: Option<IpAddr>,
    /// The FSM's state before.
    pub state: Option<String>,
    /// Whether it was done.
    pub done: bool,
    /// What it is, for people.
    pub effect: Option<String>,
    /// Why it is not done to this peer.
    pub skipped: Option<String>,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// A level, or directives such as `info,margay::net=debug`.
    pub level: String,
    /// What was logged before, where that was changed.
    pub before: Option<String>,
}

/// The daemon is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Graceful restart or shutdown.
    pub stopping: super::StopMode,
}
