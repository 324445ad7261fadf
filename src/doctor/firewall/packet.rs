//! The packets that must pass, as the first one of a flow.

use bgp_proto::types::Family;

/// UDP's port for VXLAN, unless FelixConfiguration says another one.
const VXLAN_PORT: u16 = 4789;

/// What a node sends to another one and gets from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) enum Traffic {
    /// A TCP connection to BGP's port.
    Bgp,
    /// IP in IP: the packets of pods through `tunl0`.
    Ipip,
    /// The packets of pods through `vxlan.calico`.
    Vxlan,
}

impl Traffic {
    pub(super) const ALL: [Traffic; 3] = [Traffic::Bgp, Traffic::Ipip, Traffic::Vxlan];
}

/// One of them, as rules see it: without a mark, new to conntrack, of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) family: Family,
    /// The number of the protocol above IP.
    pub(super) protocol: u8,
    /// Where it goes.
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
