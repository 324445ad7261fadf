//! Route, link and address messages of rtnetlink (linux/rtnetlink.h), from and to bytes.
//!
//! Hand-written rather than with `netlink-packet-route`: a table of a million routes is encoded
//! into one reused buffer and parsed without an allocation per attribute, and an unknown attribute
//! cannot make a message unreadable. The tests compare both directions with that crate.
//!
//! Parsing is total: truncated or malformed input gives `None` or ends the iteration.

mod object;
mod request;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use bgp_proto::types::{FibKind, Hop, Prefix};
use smallvec::SmallVec;

use super::LinkTraits;
use super::spec::RouteSpec;
pub(super) use object::{
    Object, ObjectKind, ObjectOp, ObjectRequest, parse_object, parse_object_gone, push_object,
    push_object_dump,
};
pub(super) use request::{
    DumpFamily, RouteRequest, push_address_dump, push_link_dump, push_route, push_route_dump,
    push_route_question, set_sequence,
};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;

pub(super) const NLM_F_REQUEST: u16 = 0x001;
pub(super) const NLM_F_ACK: u16 = 0x004;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x010;
/// Flag of an error message: attributes follow.
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// Flag of a new route: it replaced the one with the same prefix, TOS and metric.
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const RTA_DST: u16 = 1;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;

const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RT_TABLE_UNSPEC: u8 = 0;
const RTM_F_CLONED: u32 = 0x200;
/// The answer names the table in which the route was found; IPv4 only, IPv6 always does.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// The answer is the matching route, not one made for the address.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTNH_F_ONLINK: u32 = 4;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
/// Index of `ignore_routes_with_linkdown` among the settings of an interface (linux/ip.h counts
/// from 1, linux/ipv6.h from 0).
const IPV4_IGNORE_LINKDOWN: usize = 29 - 1;
const IPV6_IGNORE_LINKDOWN: usize = 39;
const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const IFF_BROADCAST: u32 = 0x2;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_MULTICAST: u32 = 0x1000;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

const HEADER_LEN: usize = 16;

/// The fixed header of a netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    /// In an event: the socket whose request caused it; 0 for the kernel itself.
    pub(super) port: u32,
}

/// The messages of a datagram with their bodies; ends at the first malformed one.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let body = bytes.get(HEADER_LEN..len)?;
        let header = Header {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
        };
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((header, body))
    })
}

/// Type-length-value attributes: the number without its flag bits, and the value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..len)?;
        let kind = u16_at(bytes, 2)? & 0x3fff;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A route in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelRoute {
    pub(super) table: u32,
    pub(super) tos: u8,
    pub(super) protocol: u8,
    pub(super) metric: u32,
    pub(super) kind: KernelKind,
    /// Sorted; empty unless unicast. Without the status flags that the kernel adds. For a route
    /// over a next-hop object, filled in by [`super::objects::Objects::expand`].
    pub(super) hops: SmallVec<[Hop; 1]>,
    /// The next-hop object that it uses (RTA_NH_ID).
    pub(super) object: Option<NonZeroU32>,
    /// Source address of packets from this machine (RTA_PREFSRC).
    pub(super) source: Option<IpAddr>,
    /// It has an attribute that routes of ours never have: metrics, a realm, a preference or a
    /// lifetime.
    pub(super) altered: bool,
}

/// rtm_type, with the distinctions needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
    /// Unicast with an encapsulation.
    Encapsulated,
    /// The lookup ends in this table and continues in the next.
    Throw,
    /// Local, broadcast, multicast.
    Other,
}

impl KernelRoute {
    /// A wanted route, as if the kernel had it.
    pub(super) fn ours(spec: &RouteSpec, protocol: u8) -> KernelRoute {
        KernelRoute {
            table: 0,
            tos: 0,
            protocol,
            metric: spec.metric,
            kind: match &spec.kind {
                FibKind::Unicast(_) => KernelKind::Unicast,
                FibKind::Blackhole => KernelKind::Blackhole,
                FibKind::Unreachable => KernelKind::Unreachable,
            },
            hops: SmallVec::from_slice(spec.hops()),
            object: None,
            source: None,
            altered: false,
        }
    }

    /// The route as a [`RouteSpec`]. A kind that is never wanted becomes a unicast route without
    /// hops, which equals no wanted one.
    pub(super) fn spec(&self) -> RouteSpec {
        let kind = match self.kind {
            KernelKind::Unicast => FibKind::Unicast(self.hops.to_vec()),
            KernelKind::Blackhole => FibKind::Blackhole,
            KernelKind::Unreachable => FibKind::Unreachable,
            KernelKind::Prohibit
            | KernelKind::Encapsulated
            | KernelKind::Throw
            | KernelKind::Other => FibKind::Unicast(Vec::new()),
        };
        RouteSpec {
            kind,
            metric: self.metric,
            source: self.source,
            object: self.object,
            next_hops: Vec::new(),
            backup: None,
            altered: self.altered,
        }
    }
}

/// Reads the body of RTM_NEWROUTE or RTM_DELROUTE. `None` for cached clones, routes by source or
/// input interface, and other families.
pub(super) fn parse_route(body: &[u8]) -> Option<(Prefix, KernelRoute)> {
    let header = body.get(..12)?;
    let (family, len, source_len, tos) = (header[0], header[1], header[2], header[3]);
    let (table, protocol, scope, kind) = (header[4], header[5], header[6], header[7]);
    let flags = u32_at(body, 8)?;
    if flags & RTM_F_CLONED != 0 || source_len != 0 {
        return None;
    }
    let mut addr = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut encapsulated = false;
    let mut single = Hop { gateway: None, ifindex: 0, onlink: false, weight: 1 };
    single.onlink = flags & RTNH_F_ONLINK != 0;
    let mut route = KernelRoute {
        table: u32::from(table),
        tos,
        protocol,
        metric: 0,
        kind: KernelKind::Other,
        hops: SmallVec::new(),
        object: None,
        source: None,
        altered: false,
    };
    for (attribute, value) in attributes(body.get(12..)?) {
        match attribute {
            RTA_DST => addr = ip(family, value)?,
            RTA_IIF => return None,
            RTA_OIF => single.ifindex = u32_at(value, 0)?,
            RTA_GATEWAY => single.gateway = Some(ip(family, value)?),
            RTA_VIA => single.gateway = Some(via(value)?),
            RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_MULTIPATH => (route.hops, route.altered) = multipath(family, value),
            RTA_ENCAP => encapsulated = true,
            RTA_NH_ID => route.object = NonZeroU32::new(u32_at(value, 0)?),
            RTA_PREFSRC => route.source = Some(ip(family, value)?),
            RTA_METRICS | RTA_FLOW => route.altered = true,
            RTA_PREF => route.altered |= value.first().is_some_and(|pref| *pref != 0),
            // rta_expires
            RTA_CACHEINFO => route.altered |= u32_at(value, 8).is_some_and(|left| left != 0),
            _ => {}
        }
    }
    route.kind = match kind {
        RTN_UNICAST if encapsulated => KernelKind::Encapsulated,
        RTN_UNICAST => KernelKind::Unicast,
        RTN_BLACKHOLE => KernelKind::Blackhole,
        RTN_UNREACHABLE => KernelKind::Unreachable,
        RTN_PROHIBIT => KernelKind::Prohibit,
        RTN_THROW => KernelKind::Throw,
        _ => KernelKind::Other,
    };
    let hops = &mut route.hops;
    if route.kind != KernelKind::Unicast || route.object.is_some() {
        hops.clear();
    } else if hops.is_empty() && (single.ifindex != 0 || single.gateway.is_some()) {
        hops.push(single);
    }
    if family == AF_INET && scope < RT_SCOPE_LINK {
        // Without a gateway, but not of link scope: the kernel then accepts gateways on the
        // interface only with the onlink flag.
        hops.iter_mut().filter(|hop| hop.gateway.is_none()).for_each(|hop| hop.onlink = true);
    }
    hops.sort_unstable();
    Some((Prefix::new(addr, len), route))
}

/// The legs of RTA_MULTIPATH, and whether one has a realm.
fn multipath(family: u8, mut bytes: &[u8]) -> (SmallVec<[Hop; 1]>, bool) {
    let (mut hops, mut altered) = (SmallVec::new(), false);
    while let (Some(len), Some(&[flags, weight])) =
        (u16_at(bytes, 0), bytes.get(2..4).and_then(|b| b.first_chunk()))
    {
        let len = usize::from(len);
        let (Some(ifindex), Some(rest)) = (u32_at(bytes, 4), bytes.get(8..len)) else { break };
        let mut gateway = None;
        for (attribute, value) in attributes(rest) {
            match attribute {
                RTA_GATEWAY => gateway = ip(family, value),
                RTA_VIA => gateway = via(value),
                RTA_FLOW => altered = true,
                _ => {}
            }
        }
        hops.push(Hop {
            gateway,
            ifindex,
            onlink: u32::from(flags) & RTNH_F_ONLINK != 0,
            weight: u16::from(weight) + 1,
        });
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
    }
    (hops, altered)
}

/// An interface, from RTM_NEWLINK or RTM_DELLINK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkMessage {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) running: bool,
    pub(super) traits: LinkTraits,
    /// In octets.
    pub(super) mtu: u32,
    /// The bridge, bond or VRF of which it is a member.
    pub(super) master: Option<NonZeroU32>,
    /// The table, if it is a VRF.
    pub(super) vrf: Option<u32>,
    /// Whether the kernel skips legs over it while it has no carrier
    /// (`ignore_routes_with_linkdown`): IPv4, IPv6.
    pub(super) skipped_without_carrier: [bool; 2],
}

/// Reads the body of a link message. `None` for messages about bridge ports, and for the partial
/// ones of wireless drivers.
pub(super) fn parse_link(body: &[u8]) -> Option<LinkMessage> {
    if *body.first()? != 0 {
        return None;
    }
    let flags = u32_at(body, 8)?;
    let up = flags & IFF_UP != 0;
    let mut link = LinkMessage { index: u32_at(body, 4)?, ..LinkMessage::default() };
    let mut complete = false;
    for (attribute, value) in attributes(body.get(16..)?) {
        match attribute {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => (link.mtu, complete) = (u32_at(value, 0)?, true),
            IFLA_MASTER => link.master = u32_at(value, 0).and_then(NonZeroU32::new),
            IFLA_LINKINFO => link.vrf = vrf_table(value),
            IFLA_AF_SPEC => link.skipped_without_carrier = skipped_without_carrier(value),
            _ => {}
        }
    }
    complete.then_some(LinkMessage {
        up,
        running: up && flags & IFF_LOWER_UP != 0,
        traits: LinkTraits {
            loopback: flags & IFF_LOOPBACK != 0,
            broadcast: flags & IFF_BROADCAST != 0,
            multicast: flags & IFF_MULTICAST != 0,
            ..LinkTraits::default()
        },
        ..link
    })
}

/// The table, from the IFLA_LINKINFO of a VRF.
fn vrf_table(info: &[u8]) -> Option<u32> {
    let find = |bytes, kind| attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value);
    if text(find(info, IFLA_INFO_KIND)?) != "vrf" {
        return None;
    }
    u32_at(find(find(info, IFLA_INFO_DATA)?, IFLA_VRF_TABLE)?, 0)
}

/// `ignore_routes_with_linkdown` of IPv4 and IPv6, from IFLA_AF_SPEC.
fn skipped_without_carrier(families: &[u8]) -> [bool; 2] {
    let mut skipped = [false; 2];
    for (family, settings) in attributes(families) {
        let (place, conf, at) = match u8::try_from(family) {
            Ok(AF_INET) => (0, IFLA_INET_CONF, IPV4_IGNORE_LINKDOWN),
            Ok(AF_INET6) => (1, IFLA_INET6_CONF, IPV6_IGNORE_LINKDOWN),
            _ => continue,
        };
        let values = attributes(settings).find(|(kind, _)| *kind == conf).map(|(_, v)| v);
        skipped[place] = values.and_then(|v| u32_at(v, at * 4)).is_some_and(|value| value != 0);
    }
    skipped
}

/// An address of ours, from RTM_NEWADDR or RTM_DELADDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressMessage {
    pub(super) ifindex: u32,
    /// The address itself.
    pub(super) local: IpAddr,
    /// The network on the link; the other end's for a point-to-point address.
    pub(super) network: Prefix,
    pub(super) scope: Scope,
    /// A further address in a network that another address already covers (IPv4).
    pub(super) secondary: bool,
    /// Whether packets are accepted and sent with it: not while duplicate address detection runs
    /// (RFC 4862 §5.4), nor if that has found it elsewhere (IPv6).
    pub(super) usable: bool,
}

/// How far an address is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Beyond its link.
    Wide,
    /// On its link or host only.
    Narrow,
}

/// Reads the body of an address message.
pub(super) fn parse_address(body: &[u8]) -> Option<AddressMessage> {
    let header = body.get(..8)?;
    let (family, len, scope) = (header[0], header[1], header[3]);
    let mut flags = u32::from(header[2]);
    let (mut local, mut address) = (None, None);
    for (attribute, value) in attributes(body.get(8..)?) {
        match attribute {
            IFA_ADDRESS => address = ip(family, value),
            IFA_LOCAL => local = ip(family, value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    let local = local.or(address)?;
    Some(AddressMessage {
        ifindex: u32_at(body, 4)?,
        local,
        network: Prefix::new(address.unwrap_or(local), len),
        scope: if scope < RT_SCOPE_LINK { Scope::Wide } else { Scope::Narrow },
        secondary: family == AF_INET && flags & IFA_F_SECONDARY != 0,
        usable: family != AF_INET6 || is_usable6(flags),
    })
}

/// Whether the kernel uses an IPv6 address with these flags.
fn is_usable6(flags: u32) -> bool {
    flags & IFA_F_DADFAILED == 0 && (flags & IFA_F_TENTATIVE == 0 || flags & IFA_F_OPTIMISTIC != 0)
}

/// The result of a dump from NLMSG_DONE: a positive errno, or 0. Kernels report errors here that
/// occur after the request was accepted.
pub(super) fn parse_done(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b)).checked_neg().unwrap_or(i32::MAX)
}

/// The content of NLMSG_ERROR: a positive errno (0 is an acknowledgement) and the kernel's
/// explanation.
pub(super) fn parse_error(header: Header, body: &[u8]) -> Option<(i32, Option<String>)> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let errno = i32::from_ne_bytes(*body.first_chunk()?).checked_neg()?;
    let explanation = (header.flags & NLM_F_ACK_TLVS != 0)
        .then(|| body.get(4 + HEADER_LEN..))
        .flatten()
        .and_then(|tlvs| attributes(tlvs).find(|(attribute, _)| *attribute == NLMSGERR_ATTR_MSG))
        .map(|(_, value)| text(value));
    Some((errno, explanation))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => value.first_chunk::<4>().map(|a| IpAddr::from(*a)),
        AF_INET6 => value.first_chunk::<16>().map(|a| IpAddr::from(*a)),
        _ => None,
    }
}

/// RTA_VIA: a family, then the address.
fn via(value: &[u8]) -> Option<IpAddr> {
    ip(u8::try_from(u16_at(value, 0)?).ok()?, value.get(2..)?)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests;
