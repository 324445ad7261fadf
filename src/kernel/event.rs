//! The events by which the FIB informs its owner about the kernel, and the rules that select them.

use std::net::IpAddr;

pub use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::types::{Hop, Prefix};

/// A change in the kernel that concerns the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibEvent {
    /// How a tracked address is reached: sent once when tracking starts, then after every change.
    NextHop {
        /// The tracked address.
        addr: IpAddr,
        /// How it is reached.
        state: NextHopState,
    },
    /// A route that the rules select appeared or changed. It replaces what was reported before
    /// for the same prefix and the same `connected`.
    Learned {
        /// The route.
        route: LearnedRoute,
    },
    /// A learned route was deleted, or no rule selects it any more.
    Forgotten {
        /// Its prefix.
        prefix: Prefix,
        /// Whether it came from an interface's address rather than from a kernel route.
        connected: bool,
    },
    /// An interface or an address appeared, disappeared or changed: see [`super::Fib::links`].
    LinksChanged,
    /// The first dump of the kernel is complete: every next hop tracked and every route selected
    /// before it was reported. Sent once.
    Synchronised {
        /// Number of routes of ours that an earlier run left.
        adopted: u64,
    },
}

/// A route of the kernel that the owner may originate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedRoute {
    /// Destination.
    pub prefix: Prefix,
    /// rtm_protocol: who installed it (2 kernel, 4 static, 80 Felix). 2 for a connected network.
    pub protocol: u8,
    /// The interface of the first hop; `None` if the route drops.
    pub interface: Option<String>,
    /// What the kernel does with packets.
    pub kind: LearnedKind,
    /// The gateway, when there is exactly one.
    pub gateway: Option<IpAddr>,
    /// Hops whose interfaces are up.
    pub hops: Vec<Hop>,
    /// RTA_PRIORITY, 0 when absent.
    pub metric: u32,
    /// Whether it came from an interface's address rather than from a kernel route.
    pub connected: bool,
}

/// What the kernel does with packets for a learned route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnedKind {
    /// Delivers on an interface, without a gateway.
    Direct,
    /// Forwards to one gateway or several.
    Unicast,
    /// Drops silently.
    Blackhole,
    /// Drops and sends an ICMP error (unreachable and prohibit).
    Unreachable,
}

/// Selects local routes to learn. A route is learned when any rule selects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnRule {
    /// Where the routes come from.
    pub from: LearnSource,
    /// rtm_protocol numbers; empty selects every protocol but unspec (0), redirect (1) and
    /// kernel (2). Our own protocol is never learned. Ignored for connected networks.
    pub protocols: Vec<u8>,
    /// Interface name patterns (`eth*`, `?` for one character), tested in order: the first that
    /// matches decides, and one that starts with `-` excludes. Empty selects any interface, and
    /// routes without one.
    pub interfaces: Vec<String>,
    /// The route's prefix equals or is more specific than one of these; empty selects any.
    pub prefixes: Vec<Prefix>,
}

/// Where local routes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnSource {
    /// Routes that other programs installed in the kernel.
    Kernel,
    /// The networks of our interfaces' addresses.
    Connected,
}
