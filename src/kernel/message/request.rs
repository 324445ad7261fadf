//! Requests to the kernel, appended to a buffer.

use std::net::IpAddr;

use bgp_proto::types::{FibKind, Hop, Prefix};

use super::super::spec::RouteSpec;
use super::*;

/// What to do with a route.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) enum RouteRequest<'a> {
    /// Create it; refused if a route with this prefix and metric exists, whoever installed it.
    Add(&'a RouteSpec),
    /// Replace ours with the same prefix and metric.
    Replace(&'a RouteSpec),
    /// Delete ours with this metric and TOS, whatever its kind.
    Withdraw { metric: u32, tos: u8 },
}

/// Appends a request about one route of the given table and protocol. The sequence number is
/// left 0.
pub(in crate::kernel) fn push_route(
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
        // Unspecified type and scope match any; a delete with type unicast would not match
        // blackholes.
        RouteRequest::Withdraw { .. } => (RTM_DELROUTE, 0, RTN_UNSPEC, RT_SCOPE_NOWHERE),
    };
    let start = begin(out, kind, NLM_F_REQUEST | flags);
    let (family, small_table) = (family_of(prefix), u8::try_from(table));
    let tos = if let RouteRequest::Withdraw { tos, .. } = request { tos } else { 0 };
    out.extend([family, prefix.len(), 0, tos]);
    out.extend([small_table.unwrap_or(RT_TABLE_UNSPEC), protocol, scope, rtn]);
    push_u32(out, single_hop_flags(request));
    push_ip(out, RTA_DST, prefix.addr());
    let metric = match request {
        RouteRequest::Add(spec) | RouteRequest::Replace(spec) => spec.metric,
        RouteRequest::Withdraw { metric, .. } => metric,
    };
    if metric != 0 {
        push_attribute_u32(out, RTA_PRIORITY, metric);
    }
    if small_table.is_err() {
        push_attribute_u32(out, RTA_TABLE, table);
    }
    if let RouteRequest::Add(spec) | RouteRequest::Replace(spec) = request {
        if let Some(source) = spec.source {
            push_ip(out, RTA_PREFSRC, source);
        }
        match (&spec.kind, spec.object) {
            (FibKind::Unicast(_), Some(object)) => {
                push_attribute_u32(out, RTA_NH_ID, object.get());
            }
            (FibKind::Unicast(hops), None) => push_hops(out, family, hops),
            (FibKind::Blackhole | FibKind::Unreachable, _) => {}
        }
    }
    finish(out, start);
}

fn route_type(spec: &RouteSpec) -> u8 {
    match spec.kind {
        FibKind::Unicast(_) => RTN_UNICAST,
        FibKind::Blackhole => RTN_BLACKHOLE,
        // A route to keep is not written.
        FibKind::Unreachable => RTN_UNREACHABLE,
    }
}

fn route_scope(spec: &RouteSpec) -> u8 {
    match &spec.kind {
        FibKind::Unicast(hops)
            if spec.object.is_none() && hops.iter().all(|hop| hop.gateway.is_none()) =>
        {
            RT_SCOPE_LINK
        }
        _ => RT_SCOPE_UNIVERSE,
    }
}

/// The flags of a single hop are in the route's header.
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
pub(in crate::kernel) fn push_link_dump(out: &mut Vec<u8>) {
    let start = begin(out, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([0; 16]);
    finish(out, start);
}

/// Appends a request for every address.
pub(in crate::kernel) fn push_address_dump(out: &mut Vec<u8>) {
    let start = begin(out, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([0; 8]);
    finish(out, start);
}

/// Which routes a dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum DumpFamily {
    V4,
    V6,
}

impl DumpFamily {
    /// Whether a prefix is of the family.
    pub(in crate::kernel) fn is_of(self, prefix: Prefix) -> bool {
        (self == DumpFamily::V4) == matches!(prefix, Prefix::V4(_))
    }
}

/// Appends a request for every route of a table. Kernels before 4.20 send all tables.
pub(in crate::kernel) fn push_route_dump(out: &mut Vec<u8>, family: DumpFamily, table: u32) {
    let family = match family {
        DumpFamily::V4 => AF_INET,
        DumpFamily::V6 => AF_INET6,
    };
    let start = begin(out, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([family, 0, 0, 0, RT_TABLE_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    push_attribute_u32(out, RTA_TABLE, table);
    finish(out, start);
}

/// Appends a question for the route that the kernel uses for an address, in the table of a VRF's device if
/// there is one. An acknowledgement ends the answer.
pub(in crate::kernel) fn push_route_question(out: &mut Vec<u8>, addr: IpAddr, device: Option<u32>) {
    let prefix = Prefix::host(addr);
    let start = begin(out, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK);
    out.extend([family_of(prefix), prefix.len(), 0, 0, RT_TABLE_UNSPEC, 0, 0, 0]);
    let flags = match addr {
        IpAddr::V4(_) => RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE,
        IpAddr::V6(_) => RTM_F_FIB_MATCH,
    };
    push_u32(out, flags);
    push_ip(out, RTA_DST, addr);
    device.into_iter().for_each(|index| push_attribute_u32(out, RTA_OIF, index));
    finish(out, start);
}

/// Writes a message's sequence number, and whether it asks for an acknowledgement.
pub(in crate::kernel) fn set_sequence(message: &mut [u8], seq: u32, acknowledge: bool) {
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

pub(super) fn begin(out: &mut Vec<u8>, kind: u16, flags: u16) -> usize {
    let start = out.len();
    push_u32(out, 0);
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    start
}

pub(super) fn finish(out: &mut [u8], start: usize) {
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&len.to_ne_bytes());
    }
}

pub(super) fn begin_attribute(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend([0, 0]);
    out.extend(kind.to_ne_bytes());
    start
}

/// Sets the length in the first two octets, and pads.
pub(super) fn finish_attribute(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
    }
    out.resize(start + aligned(len), 0);
}

pub(super) fn push_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_ne_bytes());
}

pub(super) fn push_attribute_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    out.extend(8u16.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    push_u32(out, value);
}

pub(super) fn push_ip(out: &mut Vec<u8>, kind: u16, addr: IpAddr) {
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
