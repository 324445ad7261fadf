//! Link-local addresses together with their link.
//!
//! `fe80::1` on one interface and `fe80::1` on another are two routers. Wherever an address identifies
//! a neighbour or a next hop, a link-local one has the index of its interface in octets 4 to 7, which
//! RFC 4291 §2.5.6 requires to be zero on the wire: the embedded form of KAME's IPv6 stack. So
//! addresses on different links differ, and are compared, hashed and ordered like any others.
//!
//! The form exists inside the process only. [`on_interface`] makes it where an address enters: from a
//! socket, from MP_REACH_NLRI, from the kernel. [`off_interface`] takes it apart where an address
//! leaves. `on_interface` always replaces these octets, so that no neighbour can choose an interface.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

/// The address on the interface with this index (0: unknown). Addresses that are not link-local are
/// returned as they are.
pub fn on_interface(addr: IpAddr, ifindex: u32) -> IpAddr {
    match addr {
        IpAddr::V6(addr) => on_interface6(addr, ifindex).into(),
        IpAddr::V4(_) => addr,
    }
}

/// As [`on_interface`].
pub fn on_interface6(addr: Ipv6Addr, ifindex: u32) -> Ipv6Addr {
    if !addr.is_unicast_link_local() {
        return addr;
    }
    let identifier = u128::from(addr.to_bits() as u64);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(ifindex) << 64 | identifier)
}

/// The address of one end of a connection, on the interface that the socket address names.
pub fn address_of(socket: SocketAddr) -> IpAddr {
    match socket {
        SocketAddr::V6(v6) => on_interface((*v6.ip()).into(), v6.scope_id()),
        SocketAddr::V4(v4) => (*v4.ip()).into(),
    }
}

/// The address as others know it, and the index of its interface if it is a link-local one made by
/// [`on_interface`].
pub fn off_interface(addr: IpAddr) -> (IpAddr, Option<NonZeroU32>) {
    match addr {
        IpAddr::V6(own) if own.is_unicast_link_local() => {
            let ifindex = NonZeroU32::new((own.to_bits() >> 64) as u32);
            (on_interface(addr, 0), ifindex)
        }
        _ => (addr, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_link_local_address_carries_its_interface_and_gives_it_back() {
        for ifindex in [1, 7, 0x1234_5678, u32::MAX] {
            let inside = on_interface(addr("fe80::200:ff:fe00:1"), ifindex);
            assert_ne!(inside, on_interface(addr("fe80::200:ff:fe00:1"), ifindex - 1));
            let outside = (addr("fe80::200:ff:fe00:1"), NonZeroU32::new(ifindex));
            assert_eq!(off_interface(inside), outside);
        }
        assert_eq!(off_interface(addr("fe80::1")), (addr("fe80::1"), None));
    }

    #[test]
    fn what_a_neighbour_sent_is_replaced() {
        assert_eq!(
            on_interface(addr("fe80:1:0:9:a::1"), 3),
            on_interface(addr("fe80::a:0:0:1"), 3)
        );
    }

    #[test]
    fn other_addresses_are_left_alone() {
        for other in ["192.0.2.1", "169.254.0.1", "2001:db8::1", "::1", "ff02::1"] {
            assert_eq!(on_interface(addr(other), 3), addr(other));
            assert_eq!(off_interface(addr(other)), (addr(other), None));
        }
    }
}
