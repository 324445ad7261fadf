//! Compares with `netlink-packet-route`, an independent implementation of the same formats.

use std::net::IpAddr;

use bgp_proto::types::{FibKind, Hop, Prefix};
use proptest::prelude::*;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};

use super::request::{begin_attribute, finish_attribute};
use super::*;
use crate::kernel::RouteDefaults;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn hop(gateway: &str, ifindex: u32) -> Hop {
    let gateway = if gateway.is_empty() { None } else { Some(gateway.parse::<IpAddr>().unwrap()) };
    Hop { gateway, ifindex, onlink: false, weight: 1 }
}

fn encode(request: RouteRequest<'_>, prefix: Prefix, table: u32) -> Vec<u8> {
    let mut out = Vec::new();
    push_route(&mut out, request, prefix, table, 12);
    out
}

/// Parses with the other implementation.
fn peer_reads(bytes: &[u8]) -> (u16, RouteMessage) {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).unwrap();
    assert_eq!(message.header.length as usize, bytes.len());
    match message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => (message.header.flags, route),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_understood_by_another_implementation() {
    let onlink = FibKind::Unicast(vec![Hop { onlink: true, ..hop("10.0.0.2", 7) }]);
    let source = Some("10.0.0.1".parse().unwrap());
    let spec = RouteSpec { source, ..RouteSpec::new(onlink, 512) };
    let (flags, route) = peer_reads(&encode(RouteRequest::Add(&spec), prefix("10.1.0.0/16"), 254));
    assert_eq!(flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
    assert_eq!(route.header.destination_prefix_length, 16);
    assert_eq!(route.header.table, 254);
    assert_eq!(route.header.protocol, RouteProtocol::Bird);
    assert_eq!(route.header.kind, RouteType::Unicast);
    assert_eq!(route.header.scope, RouteScope::Universe);
    assert_eq!(route.header.flags, RouteFlags::Onlink);
    let gateway = RouteAddress::Inet("10.0.0.2".parse().unwrap());
    for attribute in [
        RouteAttribute::Destination(RouteAddress::Inet("10.1.0.0".parse().unwrap())),
        RouteAttribute::Priority(512),
        RouteAttribute::PrefSource(RouteAddress::Inet("10.0.0.1".parse().unwrap())),
        RouteAttribute::Gateway(gateway),
        RouteAttribute::Oif(7),
    ] {
        assert!(route.attributes.contains(&attribute), "{attribute:?} in {route:?}");
    }
}

#[test]
fn a_withdrawal_matches_any_kind_of_route_in_a_high_table() {
    let bytes = encode(RouteRequest::Withdraw { metric: 9, tos: 0 }, prefix("2001:db8::/32"), 1000);
    let (flags, route) = peer_reads(&bytes);
    assert_eq!(flags, NLM_F_REQUEST);
    assert_eq!(route.header.kind, RouteType::Unspec);
    assert_eq!(route.header.scope, RouteScope::NoWhere);
    assert!(route.attributes.contains(&RouteAttribute::Table(1000)));
    assert!(route.attributes.contains(&RouteAttribute::Priority(9)));
}

#[test]
fn multipath_weights_and_foreign_gateways_are_written() {
    let legs = vec![Hop { weight: 3, ..hop("2001:db8::1", 4) }, hop("10.0.0.2", 5)];
    let spec = RouteSpec::new(FibKind::Unicast(legs), 0);
    let bytes = encode(RouteRequest::Replace(&spec), prefix("10.1.0.0/16"), 254);
    let (flags, route) = peer_reads(&bytes);
    assert_eq!(flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE);
    let legs = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(legs) => Some(legs),
        _ => None,
    });
    let legs = legs.unwrap();
    assert_eq!((legs[0].hops, legs[0].interface_index), (2, 4));
    let via = RouteVia::Inet6("2001:db8::1".parse().unwrap());
    assert_eq!(legs[0].attributes, [RouteAttribute::Via(via)]);
    let gateway = RouteAddress::Inet("10.0.0.2".parse().unwrap());
    assert_eq!(legs[1].attributes, [RouteAttribute::Gateway(gateway)]);
}

#[test]
fn status_flags_of_the_kernel_do_not_make_a_route_different() {
    let spec = RouteSpec::new(FibKind::Unicast(vec![hop("10.0.0.2", 7)]), 0);
    let mut bytes = encode(RouteRequest::Add(&spec), prefix("10.1.0.0/16"), 254);
    let clean = parse_route(&bytes[16..]).unwrap();
    // RTNH_F_DEAD, _OFFLOAD, _LINKDOWN.
    bytes[16 + 8] |= 1 | 8 | 16;
    assert_eq!(parse_route(&bytes[16..]).unwrap(), clean);
    assert_eq!(clean.1.spec(), spec);
}

#[test]
fn clones_and_routes_by_source_are_left_out() {
    let spec = RouteSpec::new(FibKind::Blackhole, 0);
    let good = encode(RouteRequest::Add(&spec), prefix("10.1.0.0/16"), 254);
    let mut clone = good.clone();
    clone[16 + 8..16 + 12].copy_from_slice(&RTM_F_CLONED.to_ne_bytes());
    assert!(parse_route(&clone[16..]).is_none());
    let mut by_source = good.clone();
    by_source[16 + 2] = 64;
    assert!(parse_route(&by_source[16..]).is_none());
    let mut other_family = good;
    other_family[16] = 28; // AF_MPLS
    assert!(parse_route(&other_family[16..]).is_none());
}

#[test]
fn errors_carry_the_kernels_words() {
    let mut body = (-101i32).to_ne_bytes().to_vec();
    body.extend([0; 16]);
    let start = begin_attribute(&mut body, 1);
    body.extend(b"Nexthop has invalid gateway\0");
    finish_attribute(&mut body, start);
    let header = Header { kind: NLMSG_ERROR, flags: NLM_F_ACK_TLVS, seq: 1, port: 0 };
    let expected = Some("Nexthop has invalid gateway".to_owned());
    assert_eq!(parse_error(header, &body), Some((101, expected)));
    assert_eq!(parse_error(Header { flags: 0, ..header }, &body), Some((101, None)));
    assert_eq!(parse_error(header, &[0; 4]), Some((0, None)));
    assert_eq!(parse_error(header, &[0; 3]), None);
    assert_eq!(parse_error(header, &i32::MIN.to_ne_bytes()), None);
}

#[test]
fn bridge_port_messages_are_not_links() {
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&7u32.to_ne_bytes());
    body[8..12].copy_from_slice(&(IFF_UP | IFF_LOWER_UP | IFF_BROADCAST).to_ne_bytes());
    let start = begin_attribute(&mut body, IFLA_IFNAME);
    body.extend(b"eth0\0");
    finish_attribute(&mut body, start);
    let start = begin_attribute(&mut body, IFLA_MTU);
    body.extend(1500u32.to_ne_bytes());
    finish_attribute(&mut body, start);
    let link = parse_link(&body).unwrap();
    assert_eq!((link.index, link.name.as_str(), link.up, link.running), (7, "eth0", true, true));
    assert_eq!(link.mtu, 1500);
    let traits =
        LinkTraits { loopback: false, broadcast: true, multicast: false, ..LinkTraits::default() };
    assert_eq!(link.traits, traits);
    body[0] = 7; // AF_BRIDGE: RTM_DELLINK in this family is a port that left its bridge.
    assert!(parse_link(&body).is_none());
}

prop_compose! {
    fn any_hop(v4: bool)(a: u128, ifindex in 1u32.., onlink: bool, weight in 1u16..=256, via: bool)
        -> Hop {
        let gateway = match (v4, via) {
            (true, false) => IpAddr::V4(std::net::Ipv4Addr::from_bits(a as u32)),
            _ => IpAddr::V6(std::net::Ipv6Addr::from_bits(a)),
        };
        Hop { gateway: Some(gateway), ifindex, onlink, weight }
    }
}

fn any_route() -> impl Strategy<Value = (Prefix, RouteSpec)> {
    any::<bool>().prop_flat_map(|v4| {
        let kind = prop_oneof![
            proptest::collection::vec(any_hop(v4), 1..20).prop_map(FibKind::Unicast),
            Just(FibKind::Blackhole),
            Just(FibKind::Unreachable),
        ];
        (any::<u128>(), 0u8..=128, kind, any::<u32>()).prop_map(move |(bits, len, kind, metric)| {
            let addr = if v4 {
                IpAddr::V4(std::net::Ipv4Addr::from_bits(bits as u32))
            } else {
                IpAddr::V6(std::net::Ipv6Addr::from_bits(bits))
            };
            let prefix = Prefix::new(addr, len);
            let route = bgp_proto::types::FibRoute {
                metric: Some(metric),
                ..bgp_proto::types::FibRoute::new(prefix, kind)
            };
            (prefix, RouteSpec::wanted(prefix, route, &RouteDefaults::default()))
        })
    })
}

proptest! {
    /// Otherwise a route would be rewritten after every dump.
    #[test]
    fn what_is_written_reads_back_equal((prefix, spec) in any_route(), table: u32) {
        let bytes = encode(RouteRequest::Add(&spec), prefix, table);
        let messages: Vec<_> = messages(&bytes).collect();
        prop_assert_eq!(messages.len(), 1);
        let (read_prefix, route) = parse_route(messages[0].1).unwrap();
        prop_assert_eq!(read_prefix, prefix);
        prop_assert_eq!(route.spec(), spec);
        prop_assert_eq!((route.table, route.protocol, route.tos), (table, 12, 0));
        // The other implementation can parse it too.
        peer_reads(&bytes);
    }

    #[test]
    fn no_bytes_make_reading_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (header, body) in messages(&bytes) {
            let _ = parse_error(header, body);
        }
        let _ = (parse_route(&bytes), parse_link(&bytes), parse_address(&bytes));
        let _ = (parse_object(&bytes), parse_object_gone(&bytes), parse_done(&bytes));
    }

    /// A valid message with one octet changed reaches code that random octets do not.
    #[test]
    fn no_damage_makes_reading_fail(
        (prefix, spec) in any_route(),
        at: proptest::sample::Index,
        value: u8,
        cut: proptest::sample::Index,
    ) {
        let mut bytes = encode(RouteRequest::Add(&spec), prefix, 254);
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(cut.index(bytes.len() + 1));
        for (_, body) in messages(&bytes) {
            let _ = parse_route(body);
        }
        let _ = parse_route(bytes.get(16..).unwrap_or_default());
    }
}

#[test]
fn objects_of_ours_read_back_as_requested() {
    let id = |n| NonZeroU32::new(n).unwrap();
    let onlink = Hop { onlink: true, ..hop("2001:db8::2", 9) };
    let group = vec![(id(5), 1), (id(6), 256)];
    for kind in
        [ObjectKind::Hop(hop("10.0.0.2", 7)), ObjectKind::Hop(onlink), ObjectKind::Group(group)]
    {
        for (request, flags) in [
            (ObjectRequest::Add(kind.clone()), NLM_F_CREATE | NLM_F_EXCL),
            (ObjectRequest::Replace(kind.clone()), NLM_F_CREATE | NLM_F_REPLACE),
        ] {
            let mut out = Vec::new();
            push_object(&mut out, &ObjectOp { id: id(0x6000_0007), request }, 77);
            let (header, body) = messages(&out).next().unwrap();
            assert_eq!((header.kind, header.flags), (RTM_NEWNEXTHOP, NLM_F_REQUEST | flags));
            let object = Object { id: id(0x6000_0007), protocol: 77, kind: kind.clone() };
            assert_eq!(parse_object(body), Some(object));
        }
    }
    let mut out = Vec::new();
    push_object(&mut out, &ObjectOp { id: id(8), request: ObjectRequest::Delete }, 77);
    let (header, body) = messages(&out).next().unwrap();
    assert_eq!(header.kind, RTM_DELNEXTHOP);
    assert_eq!((parse_object_gone(body), &body[..8]), (Some(id(8)), [0; 8].as_slice()));
}

#[test]
fn a_route_over_an_object_has_no_hops() {
    let object = NonZeroU32::new(0x6000_0001);
    let spec = RouteSpec::new(FibKind::Unicast(vec![hop("10.0.0.2", 7)]), 20);
    let spec = RouteSpec { object, ..spec };
    let bytes = encode(RouteRequest::Add(&spec), prefix("10.1.0.0/16"), 254);
    let (_, body) = messages(&bytes).next().unwrap();
    assert_eq!(body[6], RT_SCOPE_UNIVERSE);
    let numbers: Vec<u16> = attributes(&body[12..]).map(|(attribute, _)| attribute).collect();
    assert_eq!(numbers, [RTA_DST, RTA_PRIORITY, RTA_NH_ID]);
}
