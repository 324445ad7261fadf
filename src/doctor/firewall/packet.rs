//! The packets that must pass: the first packet of each kind of flow.

use bgp_proto::types::Family;

/// The UDP port of VXLAN, unless FelixConfiguration sets another one.
const VXLAN_PORT: u16 = 4789;

/// Traffic between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) enum Traffic {
    /// A TCP connection to BGP's port.
    Bgp,
    /// IP-in-IP: pod traffic through `tunl0`.
    Ipip,
    /// VXLAN: pod traffic through `vxlan.calico`.
    Vxlan,
}

impl Traffic {
    pub(super) const ALL: [Traffic; 3] = [Traffic::Bgp, Traffic::Ipip, Traffic::Vxlan];
}

/// A packet from another node as rules see it: without a mark, and new to conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) family: Family,
    /// The IP protocol number.
    pub(super) protocol: u8,
    /// The destination port.
    pub(super) port: Option<u16>,
}

impl Packet {
    pub(super) fn of(traffic: Traffic, family: Family, bgp_port: u16) -> Self {
        let (protocol, port) = match traffic {
            Traffic::Bgp => (6, Some(bgp_port)),
            Traffic::Ipip => (4, None),
            Traffic::Vxlan => (17, Some(VXLAN_PORT)),
        };
        Packet { family, protocol, port }
    }
}
