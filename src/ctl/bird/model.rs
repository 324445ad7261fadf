//! The data that replies show, before it is formatted.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp_proto::bfd;
use bgp_proto::types::{NextHop, PeerId, Prefix, RouterId, Source};

use crate::ctl::Cursor;

/// The daemon as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// When the process started.
    pub started: SystemTime,
    /// When the configuration was last applied.
    pub configured: SystemTime,
    /// Restart recovery, while it lasts: the routes of the previous run are kept.
    pub recovery: Option<Recovery>,
    /// The line that says that every peer is drained; `None` without such a drain.
    pub drained: Option<String>,
}

/// Restart recovery after the daemon has started (RFC 4724 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The number of sessions whose routes are still awaited.
    pub waiting: usize,
    /// The timer that bounds the wait.
    pub timer: Wait,
}

/// A running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The time left.
    pub left: Duration,
    /// The full length.
    pub of: Duration,
}

/// What a [`Protocol`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolId {
    /// Local routes of one source.
    Own(Source),
    /// The interfaces.
    Device,
    /// A BGP session.
    Peer(PeerId),
}

/// The kinds of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Static,
    Kernel,
    Device,
    Direct,
    Bgp,
}

/// The state of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Stopped.
    Down,
    /// The session is being set up.
    Start,
    /// Up; exports wait until restart recovery ends.
    Wait,
    /// Up.
    Up,
}

/// A row of `show protocols`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// What it stands for.
    pub id: ProtocolId,
    /// Its name, without blanks.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: Kind,
    /// Its state.
    pub phase: Phase,
    /// When it entered the state.
    pub since: SystemTime,
    /// For a session, the BGP state, such as `Established` or `Passive`.
    pub word: &'static str,
    /// For a session, the last error with its class, such as `Socket: Connection refused`.
    pub error: Option<String>,
}

/// The result of an action on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    /// The action was carried out.
    Done,
    /// The session was disabled already.
    AlreadyDisabled,
    /// The session was not disabled.
    AlreadyEnabled,
    /// The neighbour does not support sending its routes again (route refresh).
    ReloadFailed,
    /// The session is not up: there is nothing to send again.
    NotUp,
    /// The protocol is not a session, or was removed.
    NotASession,
}

/// What `show protocols all` shows in addition to the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Human-readable description.
    pub description: Option<String>,
    /// The preference of its routes.
    pub preference: u16,
    /// Name of the import policy.
    pub input_filter: String,
    /// Name of the export policy.
    pub output_filter: String,
    /// What is still awaited from it during restart recovery.
    pub recovery: Option<RecoveryOf>,
    /// The number of routes accepted from it.
    pub imported: u64,
    /// The number of routes sent to it.
    pub exported: u64,
    /// The number of imported routes that are best paths.
    pub preferred: u64,
    /// Route changes so far.
    pub changes: Directions,
    /// The part that only sessions have.
    pub bgp: Option<BgpDetails>,
}

/// A session during restart recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryOf {
    /// It is not up yet.
    Pending,
    /// It is up, and its End-of-RIB is awaited.
    PendingWaiting,
}

/// Route changes by direction and kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Directions {
    pub import_updates: ChangeCounts,
    pub import_withdraws: ChangeCounts,
    pub export_updates: ChangeCounts,
    pub export_withdraws: ChangeCounts,
}

/// Route changes by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// All of them.
    pub received: u64,
    /// Not usable regardless of policy: loops, or routes for the session they came from.
    pub rejected: u64,
    /// Rejected by policy.
    pub filtered: u64,
    /// Without effect.
    pub ignored: u64,
    /// Applied.
    pub accepted: u64,
}

/// Details that only sessions have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpDetails {
    /// The neighbour's address.
    pub neighbor: IpAddr,
    /// The neighbour's AS.
    pub neighbor_asn: u32,
    /// Set while its routes are kept although the session is down.
    pub restarting: Option<Duration>,
    /// The back-off after repeated errors.
    pub error_wait: Option<Wait>,
    /// The time until the next connection attempt.
    pub connect_delay: Option<Wait>,
    /// The part that exists only while it is established.
    pub session: Option<Established>,
}

/// Details that only established sessions have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The neighbour's BGP Identifier.
    pub neighbor_id: RouterId,
    /// The capabilities it sent, in BIRD's words and order.
    pub capabilities: Vec<&'static str>,
    /// The type (`internal` or `external`), then the properties of the session, in BIRD's words
    /// and order.
    pub session: Vec<&'static str>,
    /// Our address.
    pub source: IpAddr,
    /// Number of prefixes held and allowed, if there is a limit.
    pub limit: Option<(u64, u32)>,
    /// The hold timer.
    pub hold: Wait,
    /// The keepalive timer.
    pub keepalive: Wait,
}

/// One page of the reply to `show route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePage {
    /// Routes, grouped by prefix, the best first.
    pub routes: Vec<Route>,
    /// Number of destinations examined, for `show route count`.
    pub networks: u64,
    /// Where the next page begins; `None`: this is the last page.
    pub next: Option<Cursor>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub prefix: Prefix,
    /// The gateways, or what happens to packets instead.
    pub via: Via,
    /// The name of the protocol that it is from.
    pub protocol: Arc<str>,
    /// The kind of that protocol.
    pub kind: Kind,
    /// When it was received or created.
    pub since: SystemTime,
    /// The address of the peer that announced it.
    pub from: Option<IpAddr>,
    /// Its rank among the paths of the prefix.
    pub rank: Rank,
    /// The preference among protocols.
    pub preference: u16,
    /// The part that only BGP routes have.
    pub bgp: Option<BgpRoute>,
}

/// What happens to packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Sent to these gateways (at least one), given with their interfaces.
    Gateways(Vec<(IpAddr, String)>),
    /// Delivered directly on this interface.
    Device(String),
    /// Dropped silently.
    Blackhole,
    /// Dropped with an ICMP error.
    Unreachable,
}

/// The rank of a path among the paths of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The best path; in the kernel unless it is not meant to be.
    Best,
    /// The best path, but the kernel refused it.
    BestNotInstalled,
    /// Any other path.
    Other,
}

/// The IGP metric of a BGP route's next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgpMetric {
    /// The next hop is directly connected.
    Known(u32),
    /// The next hop is reached through a route without a metric.
    Unknown,
    /// The next hop is unreachable.
    Unresolvable,
}

/// Details that only BGP routes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpRoute {
    /// Long-lived stale, as marked by a speaker on its path (RFC 9494). BIRD shows no other mark.
    pub long_lived_stale: bool,
    /// The metric of the next hop.
    pub metric: IgpMetric,
    /// The next hop as announced.
    pub next_hop: Option<NextHop>,
    /// The canonical attributes.
    pub attrs: Arc<[u8]>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub admin_up: bool,
    /// Has carrier.
    pub link_up: bool,
    /// Is a loopback interface.
    pub loopback: bool,
    /// Supports broadcast.
    pub broadcast: bool,
    /// Supports multicast.
    pub multicast: bool,
    /// The MTU, in bytes.
    pub mtu: u32,
    /// Our addresses on it, with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdRow {
    /// The peer's address.
    pub address: IpAddr,
    /// The interface towards it; single-hop sessions only.
    pub interface: Option<String>,
    /// The local session state.
    pub state: bfd::State,
    /// When the state last changed.
    pub since: SystemTime,
    /// The transmission interval, before jitter.
    pub interval: Duration,
    /// The detection time; zero: no packet has been received from the peer.
    pub timeout: Duration,
}
