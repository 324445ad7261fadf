//! Route, link and address messages of rtnetlink (linux/rtnetlink.h), from and to bytes.
//!
//! Written by hand rather than with `netlink-packet-route`: a table of a million routes is
//! encoded into one reused buffer and read back without an allocation per attribute, and an
//! attribute that this program does not know cannot make a message unreadable. The tests compare
//! both directions with that crate.
//!
//! Reading is total: what is short or malformed gives `None` or ends the iteration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::types::{FibKind, Hop, Prefix};
use smallvec::SmallVec;

use super::spec::RouteSpec;

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

pub(super) const NLM_F_REQUEST: u16 = 0x001;
pub(super) const NLM_F_ACK: u16 = 0x004;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x010;
/// Of an error message: attributes follow.
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// Of a new route: it took the place of the one with the same prefix, TOS and metric.
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
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;

const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RT_TABLE_UNSPEC: u8 = 0;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_ONLINK: u32 = 4;

const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_SECONDARY: u32 = 1;

const HEADER_LEN: usize = 16;

/// The fixed header of a netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    /// Of an event: the socket whose request caused it; 0 for the kernel itself.
    pub(super) port: u32,
}

/// The messages of a datagram with their bodies; ends at the first that is malformed.
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

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelRoute {
    pub(super) table: u32,
    pub(super) tos: u8,
    pub(super) protocol: u8,
    pub(super) metric: u32,
    pub(super) kind: KernelKind,
    /// Sorted; empty unless unicast. Without the status flags that the kernel adds.
    pub(super) hops: SmallVec<[Hop; 1]>,
}

/// rtm_type, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
    /// Local, multicast, throw; unicast with an encapsulation.
    Other,
}

impl KernelRoute {
    /// The same in the words of a wanted route. A kind that is never wanted comes out as a unicast
    /// route without hops, which equals no wanted one.
    pub(super) fn spec(&self) -> RouteSpec {
        let kind = match self.kind {
            KernelKind::Unicast => FibKind::Unicast(self.hops.to_vec()),
            KernelKind::Blackhole => FibKind::Blackhole,
            KernelKind::Unreachable => FibKind::Unreachable,
            KernelKind::Prohibit | KernelKind::Other => FibKind::Unicast(Vec::new()),
        };
        RouteSpec { kind, metric: self.metric }
    }
}

/// Reads the body of RTM_NEWROUTE or RTM_DELROUTE. `None` for what is no entry of a table that
/// matters: cached clones, routes by source or input interface, other families.
pub(super) fn parse_route(body: &[u8]) -> Option<(Prefix, KernelRoute)> {
    let header = body.get(..12)?;
    let (family, len, source_len, tos) = (header[0], header[1], header[2], header[3]);
    let (table, protocol, kind) = (header[4], header[5], header[7]);
    let flags = u32_at(body, 8)?;
    if flags & RTM_F_CLONED != 0 || source_len != 0 {
        return None;
    }
    let mut addr = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table = u32::from(table);
    let mut metric = 0;
    let mut encapsulated = false;
    let mut single = Hop { gateway: None, ifindex: 0, onlink: false, weight: 1 };
    single.onlink = flags & RTNH_F_ONLINK != 0;
    let mut hops: SmallVec<[Hop; 1]> = SmallVec::new();
    for (attribute, value) in attributes(body.get(12..)?) {
        match attribute {
            RTA_DST => addr = ip(family, value)?,
            RTA_IIF => return None,
            RTA_OIF => single.ifindex = u32_at(value, 0)?,
            RTA_GATEWAY => single.gateway = Some(ip(family, value)?),
            RTA_VIA => single.gateway = Some(via(value)?),
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            RTA_TABLE => table = u32_at(value, 0)?,
            RTA_MULTIPATH => hops = multipath(family, value),
            RTA_ENCAP => encapsulated = true,
            _ => {}
        }
    }
    let kind = match kind {
        RTN_UNICAST if !encapsulated => KernelKind::Unicast,
        RTN_BLACKHOLE => KernelKind::Blackhole,
        RTN_UNREACHABLE => KernelKind::Unreachable,
        RTN_PROHIBIT => KernelKind::Prohibit,
        _ => KernelKind::Other,
    };
    if kind != KernelKind::Unicast {
        hops.clear();
    } else if hops.is_empty() && (single.ifindex != 0 || single.gateway.is_some()) {
        hops.push(single);
    }
    hops.sort_unstable();
    Some((Prefix::new(addr, len), KernelRoute { table, tos, protocol, metric, kind, hops }))
}

/// The legs of RTA_MULTIPATH.
fn multipath(family: u8, mut bytes: &[u8]) -> SmallVec<[Hop; 1]> {
    let mut hops = SmallVec::new();
    while let (Some(len), Some(&[flags, weight])) =
        (u16_at(bytes, 0), bytes.get(2..4).and_then(|b| b.first_chunk()))
    {
        let len = usize::from(len);
        let (Some(ifindex), Some(rest)) = (u32_at(bytes, 4), bytes.get(8..len)) else { break };
        let gateway = attributes(rest).find_map(|(attribute, value)| match attribute {
            RTA_GATEWAY => ip(family, value),
            RTA_VIA => via(value),
            _ => None,
        });
        hops.push(Hop {
            gateway,
            ifindex,
            onlink: u32::from(flags) & RTNH_F_ONLINK != 0,
            weight: u16::from(weight) + 1,
        });
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
    }
    hops
}

/// An interface, from RTM_NEWLINK or RTM_DELLINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkMessage {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) running: bool,
}

/// Reads the body of a link message. `None` for those that speak about bridge ports.
pub(super) fn parse_link(body: &[u8]) -> Option<LinkMessage> {
    if *body.first()? != 0 {
        return None;
    }
    let flags = u32_at(body, 8)?;
    let up = flags & IFF_UP != 0;
    let name = attributes(body.get(16..)?)
        .find(|(attribute, _)| *attribute == IFLA_IFNAME)
        .map(|(_, value)| text(value))
        .unwrap_or_default();
    Some(LinkMessage {
        index: u32_at(body, 4)?,
        name,
        up,
        running: up && flags & IFF_LOWER_UP != 0,
    })
}

/// An address of ours, from RTM_NEWADDR or RTM_DELADDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressMessage {
    pub(super) ifindex: u32,
    /// The address itself.
    pub(super) local: IpAddr,
    /// The network on the link; of the other end for point-to-point addresses.
    pub(super) network: Prefix,
    pub(super) scope: Scope,
    /// A further address in a network that another address already covers (IPv4).
    pub(super) secondary: bool,
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
    })
}

/// What NLMSG_ERROR says: a positive errno (0 acknowledges) and the kernel's explanation.
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

/// What to do with a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum RouteRequest<'a> {
    /// Create it; refused when prefix and metric are taken by anyone.
    Add(&'a RouteSpec),
    /// Put it in the place of ours with the same prefix and metric.
    Replace(&'a RouteSpec),
    /// Delete ours with this metric, whatever it is.
    Withdraw { metric: u32 },
}

/// Appends a request about one route of the given table and protocol. The sequence number is
/// left 0.
pub(super) fn push_route(
    out: &mut Vec<u8>,
    request: RouteRequest<'_>,
    prefix: Prefix,
    table: u32,
    protocol: u8,
) {
    let (kind, flags, rtn, scope) = match request {
        RouteRequest::Add(spec) => {
            (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route_type(spec), route_scope(spec))
        }
        RouteRequest::Replace(spec) => {
            (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route_type(spec), route_scope(spec))
        }
        // Unspecified type and scope match any; a delete with type unicast leaves blackholes.
        RouteRequest::Withdraw { .. } => (RTM_DELROUTE, 0, RTN_UNSPEC, RT_SCOPE_NOWHERE),
    };
    let start = begin(out, kind, NLM_F_REQUEST | flags);
    let (family, small_table) = (family_of(prefix), u8::try_from(table));
    out.extend([family, prefix.len(), 0, 0]);
    out.extend([small_table.unwrap_or(RT_TABLE_UNSPEC), protocol, scope, rtn]);
    push_u32(out, single_hop_flags(request));
    push_ip(out, RTA_DST, prefix.addr());
    let metric = match request {
        RouteRequest::Add(spec) | RouteRequest::Replace(spec) => spec.metric,
        RouteRequest::Withdraw { metric } => metric,
    };
    if metric != 0 {
        push_attribute_u32(out, RTA_PRIORITY, metric);
    }
    if small_table.is_err() {
        push_attribute_u32(out, RTA_TABLE, table);
    }
    if let RouteRequest::Add(spec) | RouteRequest::Replace(spec) = request
        && let FibKind::Unicast(hops) = &spec.kind
    {
        push_hops(out, family, hops);
    }
    finish(out, start);
}

fn route_type(spec: &RouteSpec) -> u8 {
    match spec.kind {
        FibKind::Unicast(_) => RTN_UNICAST,
        FibKind::Blackhole => RTN_BLACKHOLE,
        FibKind::Unreachable => RTN_UNREACHABLE,
    }
}

fn route_scope(spec: &RouteSpec) -> u8 {
    match &spec.kind {
        FibKind::Unicast(hops) if hops.iter().all(|hop| hop.gateway.is_none()) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    }
}

/// A single hop's flags stand in the route's header.
fn single_hop_flags(request: RouteRequest<'_>) -> u32 {
    match request {
        RouteRequest::Add(spec) | RouteRequest::Replace(spec) => match &spec.kind {
            FibKind::Unicast(hops) if hops.len() == 1 && hops.iter().all(|hop| hop.onlink) => {
                RTNH_F_ONLINK
            }
            _ => 0,
        },
        RouteRequest::Withdraw { .. } => 0,
    }
}

fn push_hops(out: &mut Vec<u8>, family: u8, hops: &[Hop]) {
    if let [hop] = hops {
        push_gateway(out, family, hop);
        push_attribute_u32(out, RTA_OIF, hop.ifindex);
        return;
    }
    let outer = begin_attribute(out, RTA_MULTIPATH);
    for hop in hops {
        let leg = out.len();
        let flags = if hop.onlink { RTNH_F_ONLINK as u8 } else { 0 };
        let weight = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
        out.extend([0, 0, flags, weight]);
        push_u32(out, hop.ifindex);
        push_gateway(out, family, hop);
        finish_attribute(out, leg);
    }
    finish_attribute(out, outer);
}

fn push_gateway(out: &mut Vec<u8>, family: u8, hop: &Hop) {
    match hop.gateway {
        // RFC 8950: an IPv4 destination behind an IPv6 gateway.
        Some(IpAddr::V6(gateway)) if family == AF_INET => {
            let start = begin_attribute(out, RTA_VIA);
            out.extend(u16::from(AF_INET6).to_ne_bytes());
            out.extend(gateway.octets());
            finish_attribute(out, start);
        }
        Some(gateway) => push_ip(out, RTA_GATEWAY, gateway),
        None => {}
    }
}

/// Appends a request for every link.
pub(super) fn push_link_dump(out: &mut Vec<u8>) {
    let start = begin(out, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([0; 16]);
    finish(out, start);
}

/// Appends a request for every address.
pub(super) fn push_address_dump(out: &mut Vec<u8>) {
    let start = begin(out, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([0; 8]);
    finish(out, start);
}

/// Which routes a dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DumpFamily {
    V4,
    V6,
}

/// Appends a request for every route of a table. Kernels before 4.20 send all tables.
pub(super) fn push_route_dump(out: &mut Vec<u8>, family: DumpFamily, table: u32) {
    let family = match family {
        DumpFamily::V4 => AF_INET,
        DumpFamily::V6 => AF_INET6,
    };
    let start = begin(out, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([family, 0, 0, 0, RT_TABLE_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    push_attribute_u32(out, RTA_TABLE, table);
    finish(out, start);
}

/// Writes a message's sequence number, and whether it asks for an acknowledgement.
pub(super) fn set_sequence(message: &mut [u8], seq: u32, acknowledge: bool) {
    if let Some(field) = message.get_mut(8..12) {
        field.copy_from_slice(&seq.to_ne_bytes());
    }
    if acknowledge
        && let Some(flags) = u16_at(message, 6)
        && let Some(field) = message.get_mut(6..8)
    {
        field.copy_from_slice(&(flags | NLM_F_ACK).to_ne_bytes());
    }
}

fn begin(out: &mut Vec<u8>, kind: u16, flags: u16) -> usize {
    let start = out.len();
    push_u32(out, 0);
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    start
}

fn finish(out: &mut [u8], start: usize) {
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&len.to_ne_bytes());
    }
}

fn begin_attribute(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend([0, 0]);
    out.extend(kind.to_ne_bytes());
    start
}

/// Sets the length in the first two octets, and pads.
fn finish_attribute(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
    }
    out.resize(start + aligned(len), 0);
}

fn push_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_ne_bytes());
}

fn push_attribute_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    out.extend(8u16.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    push_u32(out, value);
}

fn push_ip(out: &mut Vec<u8>, kind: u16, addr: IpAddr) {
    let start = begin_attribute(out, kind);
    match addr {
        IpAddr::V4(a) => out.extend(a.octets()),
        IpAddr::V6(a) => out.extend(a.octets()),
    }
    finish_attribute(out, start);
}

fn family_of(prefix: Prefix) -> u8 {
    match prefix {
        Prefix::V4(_) => AF_INET,
        Prefix::V6(_) => AF_INET6,
    }
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
