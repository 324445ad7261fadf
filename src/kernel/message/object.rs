//! Next-hop objects (linux/nexthop.h, kernel 5.3 and later).

use std::num::NonZeroU32;

use bgp_proto::types::Hop;

use super::request::{
    begin, begin_attribute, finish, finish_attribute, push_attribute_u32, push_ip, push_u32,
};
use super::*;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;

/// Octets of one member in NHA_GROUP: id, weight - 1, the weight's high octet, two reserved.
const MEMBER_LEN: usize = 8;

/// A next-hop object in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Object {
    pub(in crate::kernel) id: NonZeroU32,
    /// nh_protocol: who created it.
    pub(in crate::kernel) protocol: u8,
    pub(in crate::kernel) kind: ObjectKind,
}

/// The content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum ObjectKind {
    /// A single next hop.
    Hop(Hop),
    /// Drops.
    Blackhole,
    /// Other objects, with their weights (1-65,536).
    Group(Vec<(NonZeroU32, u16)>),
    /// With an encapsulation, or for bridges: unusable for routes of ours.
    Other,
}

/// Reads the body of RTM_NEWNEXTHOP.
pub(in crate::kernel) fn parse_object(body: &[u8]) -> Option<Object> {
    let header = body.get(..8)?;
    let (family, protocol) = (header[0], header[2]);
    let flags = u32_at(body, 4)?;
    let (mut id, mut group, mut kind) = (None, None, None);
    let mut hop = Hop { gateway: None, ifindex: 0, onlink: flags & RTNH_F_ONLINK != 0, weight: 1 };
    for (attribute, value) in attributes(body.get(8..)?) {
        match attribute {
            NHA_ID => id = u32_at(value, 0).and_then(NonZeroU32::new),
            NHA_GROUP => group = Some(members(value)),
            NHA_BLACKHOLE => kind = Some(ObjectKind::Blackhole),
            NHA_OIF => hop.ifindex = u32_at(value, 0)?,
            NHA_GATEWAY => hop.gateway = Some(ip(family, value)?),
            NHA_ENCAP_TYPE | NHA_FDB => kind = Some(ObjectKind::Other),
            _ => {}
        }
    }
    let kind = kind.or(group.map(ObjectKind::Group)).unwrap_or(ObjectKind::Hop(hop));
    Some(Object { id: id?, protocol, kind })
}

/// The id in the body of RTM_DELNEXTHOP.
pub(in crate::kernel) fn parse_object_gone(body: &[u8]) -> Option<NonZeroU32> {
    let (_, value) = attributes(body.get(8..)?).find(|(attribute, _)| *attribute == NHA_ID)?;
    NonZeroU32::new(u32_at(value, 0)?)
}

fn members(value: &[u8]) -> Vec<(NonZeroU32, u16)> {
    let members = value.chunks_exact(MEMBER_LEN).filter_map(|member| {
        let weight = u16::from_be_bytes([member[5], member[4]]).saturating_add(1);
        Some((NonZeroU32::new(u32_at(member, 0)?)?, weight))
    });
    members.collect()
}

/// Appends a request for every next-hop object.
pub(in crate::kernel) fn push_object_dump(out: &mut Vec<u8>) {
    let start = begin(out, RTM_GETNEXTHOP, NLM_F_REQUEST | NLM_F_DUMP);
    out.extend([0; 8]);
    finish(out, start);
}

/// One request about a next-hop object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct ObjectOp {
    pub(in crate::kernel) id: NonZeroU32,
    pub(in crate::kernel) request: ObjectRequest,
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum ObjectRequest {
    /// Create it; refused if the id is in use.
    Add(ObjectKind),
    /// Replace ours with the same id: routes over it follow at once.
    Replace(ObjectKind),
    /// Delete it, and with it all routes over it.
    Delete,
}

/// Appends a request about an object. Supports the kinds that we create: hops with a gateway, and
/// groups.
pub(in crate::kernel) fn push_object(out: &mut Vec<u8>, op: &ObjectOp, protocol: u8) {
    let ObjectOp { id, request } = op;
    let (kind, flags, content) = match request {
        ObjectRequest::Add(content) => (RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, Some(content)),
        ObjectRequest::Replace(content) => {
            (RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE, Some(content))
        }
        ObjectRequest::Delete => (RTM_DELNEXTHOP, 0, None),
    };
    let hop = match content {
        Some(ObjectKind::Hop(hop)) => Some(hop),
        _ => None,
    };
    let family = match hop.and_then(|hop| hop.gateway) {
        Some(IpAddr::V4(_)) => AF_INET,
        Some(IpAddr::V6(_)) => AF_INET6,
        None => 0,
    };
    let start = begin(out, kind, NLM_F_REQUEST | flags);
    // A deletion carries only the id.
    out.extend([family, 0, if content.is_some() { protocol } else { 0 }, 0]);
    push_u32(out, if hop.is_some_and(|hop| hop.onlink) { RTNH_F_ONLINK } else { 0 });
    push_attribute_u32(out, NHA_ID, id.get());
    match content {
        Some(ObjectKind::Hop(hop)) => {
            push_attribute_u32(out, NHA_OIF, hop.ifindex);
            hop.gateway.into_iter().for_each(|gateway| push_ip(out, NHA_GATEWAY, gateway));
        }
        Some(ObjectKind::Group(members)) => {
            let group = begin_attribute(out, NHA_GROUP);
            for (member, weight) in members {
                push_u32(out, member.get());
                let weight = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
                out.extend([weight, 0, 0, 0]);
            }
            finish_attribute(out, group);
        }
        Some(ObjectKind::Blackhole | ObjectKind::Other) | None => {}
    }
    finish(out, start);
}
