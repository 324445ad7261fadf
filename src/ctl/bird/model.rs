//! What answers are made of, before it becomes text.

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
    /// When the process began.
    pub started: SystemTime,
    /// When the configuration was last put into force.
    pub configured: SystemTime,
    /// The first minutes, in which what an earlier run left is kept.
    pub recovery: Option<Recovery>,
}

/// The first minutes of a run (RFC 4724 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Sessions whose routes are awaited.
    pub waiting: usize,
    /// How long they are waited for at most.
    pub timer: Wait,
}

/// A timer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is left of it.
    pub left: Duration,
    /// Its whole length.
    pub of: Duration,
}

/// Which protocol a [`Protocol`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolId {
    /// Routes of our own.
    Own(Source),
    /// Interfaces.
    Device,
    /// A session.
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

/// How far a protocol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Stopped.
    Down,
    /// A session is looked for.
    Start,
    /// Up; exports wait for the end of the recovery.
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
    /// How far it is.
    pub phase: Phase,
    /// Since when.
    pub since: SystemTime,
    /// Of a session: the word for its state, such as `Established` or `Passive`.
    pub word: &'static str,
    /// Of a session: the last error with its class, such as `Socket: Connection refused`.
    pub error: Option<String>,
}

/// What came of an action on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    /// What was asked for.
    Done,
    /// It was disabled before.
    AlreadyDisabled,
    /// It was not disabled.
    AlreadyEnabled,
    /// The neighbour cannot be asked for its routes again.
    ReloadFailed,
    /// It is not up: there is nothing to send again.
    NotUp,
    /// It is no session, or was removed.
    NotASession,
}

/// What `show protocols all` tells besides the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// For people.
    pub description: Option<&'static str>,
    /// Preference of its routes.
    pub preference: u16,
    /// Name of the import policy.
    pub input_filter: String,
    /// Name of the export policy.
    pub output_filter: String,
    /// What it still waits for while the daemon recovers.
    pub recovery: Option<RecoveryOf>,
    /// Routes that it gave and that were accepted.
    pub imported: u64,
    /// Routes that it was given.
    pub exported: u64,
    /// Of the imported ones, those that are best.
    pub preferred: u64,
    /// Changes of routes so far.
    pub changes: Directions,
    /// Of a session.
    pub bgp: Option<BgpDetails>,
}

/// A session in the first minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryOf {
    /// It is still looked for.
    Pending,
    /// It is up, and End-of-RIB is awaited.
    PendingWaiting,
}

/// Changes by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Directions {
    pub import_updates: ChangeCounts,
    pub import_withdraws: ChangeCounts,
    pub export_updates: ChangeCounts,
    pub export_withdraws: ChangeCounts,
}

/// What became of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// All of them.
    pub received: u64,
    /// Could not be used whatever policy says: loops; to the session that they came from.
    pub rejected: u64,
    /// Policy refused them.
    pub filtered: u64,
    /// They changed nothing.
    pub ignored: u64,
    /// They took effect.
    pub accepted: u64,
}

/// What only sessions have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpDetails {
    /// The neighbour.
    pub neighbor: IpAddr,
    /// Its AS.
    pub neighbor_asn: u32,
    /// Its routes are kept although its session is down.
    pub restarting: Option<Duration>,
    /// Pause after repeated faults.
    pub error_wait: Option<Wait>,
    /// Until the next attempt to connect.
    pub connect_delay: Option<Wait>,
    /// While established.
    pub session: Option<Established>,
}

/// What only established sessions have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The neighbour's BGP Identifier.
    pub neighbor_id: RouterId,
    /// What it offered, in BIRD's words and order.
    pub capabilities: Vec<&'static str>,
    /// What the session is and may, in BIRD's words and order, after `internal` or `external`.
    pub session: Vec<&'static str>,
    /// Our address.
    pub source: IpAddr,
    /// Prefixes held and allowed, where there is a limit.
    pub limit: Option<(u64, u32)>,
    /// Hold timer.
    pub hold: Wait,
    /// Keepalive timer.
    pub keepalive: Wait,
}

/// Some of an answer to `show route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePage {
    /// Routes; those of one prefix follow each other, the best first.
    pub routes: Vec<Route>,
    /// Destinations looked at, for `show route count`.
    pub networks: u64,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<Cursor>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub prefix: Prefix,
    /// Next hop, or what the route does instead.
    pub via: Via,
    /// Name of the protocol that it came from.
    pub protocol: Arc<str>,
    /// The kind of that protocol.
    pub kind: Kind,
    /// When it came.
    pub since: SystemTime,
    /// Who announced it.
    pub from: Option<IpAddr>,
    /// Its place among the paths of the prefix.
    pub rank: Rank,
    /// Preference among protocols.
    pub preference: u16,
    /// Of BGP routes.
    pub bgp: Option<BgpRoute>,
}

/// What packets meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Gateways with their interfaces, at least one.
    Gateways(Vec<(IpAddr, String)>),
    /// A network of this interface.
    Device(String),
    /// Dropped silently.
    Blackhole,
    /// Dropped with a message.
    Unreachable,
}

/// The place of a path among those of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The best one, and the kernel has it if it is to.
    Best,
    /// The best one, and the kernel refused it.
    BestNotInstalled,
    /// Another one.
    Other,
}

/// Metric of a BGP route's next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgpMetric {
    /// The next hop is in a network of ours.
    Known(u32),
    /// It is reached through a route that has none.
    Unknown,
    /// It is not reached.
    Unresolvable,
}

/// What only BGP routes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpRoute {
    /// Long-lived stale, as marked by a speaker on its path (RFC 9494). BIRD marks no others.
    pub long_lived_stale: bool,
    /// Metric of the next hop.
    pub metric: IgpMetric,
    /// The next hop as announced.
    pub next_hop: Option<NextHop>,
    /// Canonical attributes.
    pub attrs: Arc<[u8]>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub admin_up: bool,
    /// Carrier.
    pub link_up: bool,
    /// Loopback.
    pub loopback: bool,
    /// Can send to everybody at once.
    pub broadcast: bool,
    /// Can send to groups.
    pub multicast: bool,
    /// Longest packet, in octets.
    pub mtu: u32,
    /// Our addresses on it with the length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdRow {
    /// The peer's address.
    pub address: IpAddr,
    /// The interface towards it, of a single hop.
    pub interface: Option<String>,
    /// Our state.
    pub state: bfd::State,
    /// When it changed last.
    pub since: SystemTime,
    /// Between our packets, before jitter.
    pub interval: Duration,
    /// Silence after which the session goes down; zero: the peer has not been heard.
    pub timeout: Duration,
}
