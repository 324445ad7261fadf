//! What is malformed, attribute by attribute (RFC 7606 §7 and the attributes' own documents).
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::types::{Asn, Family, NextHop, PeerType, on_interface6};
use crate::wire::attr_table::flag;
use crate::wire::{Attr, AttrDef, AttrScope, Code, Malformed, SegmentKind, attr};

/// How one attribute is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttrAction {
    /// Part of the canonical form.
    Keep,
    /// Not part of the canonical form, without being an error.
    Drop,
    /// RFC 7606 "attribute discard".
    Discard,
    /// RFC 7606 "treat-as-withdraw", and why.
    Withdraw(Flaw),
    /// Unrecognised and well-known: 3/2.
    Unrecognized,
}

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Its code in RFC 4271 §6.3, for the UPDATEs that end the session (RFC 7606 §5.2).
    pub(super) code: Code,
    /// Description for operators.
    pub(super) what: &'static str,
}

impl Flaw {
    pub(super) const fn new(code: Code, what: &'static str) -> Self {
        Flaw { code, what }
    }
}

const FLAGS: Flaw = Flaw::new(Code::ATTRIBUTE_FLAGS_ERROR, "wrong flags");
const LENGTH: Flaw = Flaw::new(Code::ATTRIBUTE_LENGTH_ERROR, "wrong length");
const WRONG_FLAGS: AttrAction = AttrAction::Withdraw(FLAGS);
const WRONG_LENGTH: AttrAction = AttrAction::Withdraw(LENGTH);

/// Checks an attribute that the parser does not handle itself (as it does AS_PATH, NEXT_HOP, MP_*,
/// AS4_*).
pub(super) fn check(attr: Attr<'_>, peer_type: PeerType) -> AttrAction {
    let Some(def) = AttrDef::of(attr.code) else { return unrecognized(attr.flags) };
    match def.scope {
        AttrScope::Any => {}
        AttrScope::Internal if peer_type == PeerType::Internal => {}
        AttrScope::Internal | AttrScope::Unused => return AttrAction::Discard,
    }
    if !def.has_flags(attr.flags) {
        return WRONG_FLAGS;
    }
    match (def.has_length(attr.value.len()), def.malformed) {
        (true, _) if def.code == attr::ORIGIN && !matches!(attr.value, [0..=2]) => {
            AttrAction::Withdraw(Flaw::new(Code::INVALID_ORIGIN_ATTRIBUTE, "undefined value"))
        }
        (true, _) => AttrAction::Keep,
        (false, Malformed::Discard) => AttrAction::Discard,
        (false, Malformed::Withdraw) => WRONG_LENGTH,
    }
}

/// RFC 4271 §5: attributes that margay does not know are kept or dropped by their flags alone,
/// whatever their type, length and value (22, 23, 24, 29, 33, 40, 128, …).
fn unrecognized(flags: u8) -> AttrAction {
    match flags & flag::CATEGORY {
        flag::OPTIONAL_TRANSITIVE => AttrAction::Keep,
        flag::OPTIONAL => AttrAction::Drop,
        _ => AttrAction::Unrecognized,
    }
}

/// The canonical flags of a kept attribute, without Extended Length. Partial is defined for
/// optional transitive attributes only (RFC 4271 §4.3), and is set on those that margay passes on
/// without knowing them (RFC 4271 §5).
pub(super) fn canonical_flags(attr: Attr<'_>) -> u8 {
    let category = attr.flags & flag::CATEGORY;
    match category {
        flag::OPTIONAL_TRANSITIVE if AttrDef::of(attr.code).is_some() => {
            category | attr.flags & flag::PARTIAL
        }
        flag::OPTIONAL_TRANSITIVE => category | flag::PARTIAL,
        _ => category,
    }
}

/// The AS of AGGREGATOR, whose numbers have the session's width.
pub(super) fn aggregator(attr: Attr<'_>, four_octet_as: bool) -> Result<Asn, AttrAction> {
    if four_octet_as { aggregator_of::<4>(attr) } else { aggregator_of::<2>(attr) }
}

/// The AS of AS4_AGGREGATOR.
pub(super) fn as4_aggregator(attr: Attr<'_>) -> Result<Asn, AttrAction> {
    aggregator_of::<4>(attr)
}

/// An AS of `W` octets and a BGP Identifier: every error is a discard (RFC 7606 §7.7, RFC 6793 §6,
/// RFC 7607 §2), except wrong flags of AGGREGATOR, which take precedence (RFC 7606 §3 (h)).
fn aggregator_of<const W: usize>(attr: Attr<'_>) -> Result<Asn, AttrAction> {
    if !attr.has_right_flags() {
        return Err(if attr.code == attr::AGGREGATOR { WRONG_FLAGS } else { AttrAction::Discard });
    }
    let Some((asn, [_, _, _, _])) = attr.value.split_first_chunk::<W>() else {
        return Err(AttrAction::Discard);
    };
    match widen(*asn) {
        Asn(0) => Err(AttrAction::Discard),
        asn => Ok(asn),
    }
}

/// What an AS_PATH or AS4_PATH contains.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PathFacts {
    /// First number of a leading AS_SEQUENCE.
    pub(super) first: Option<Asn>,
    /// An AS_SET occurs.
    pub(super) has_set: bool,
    /// A confederation segment occurs.
    pub(super) has_confederation: bool,
    /// Length for the decision process.
    pub(super) length: u32,
    /// Octets with four-octet numbers.
    pub(super) wide_len: usize,
}

/// Checks an AS_PATH whose numbers have `W` octets (RFC 7606 §7.2, RFC 7607 §2).
pub(super) fn path_facts<const W: usize>(value: &[u8]) -> Result<PathFacts, &'static str> {
    let mut facts = PathFacts::default();
    let mut rest = value;
    while !rest.is_empty() {
        let ([kind, count], after) = rest.split_first_chunk().ok_or("truncated segment")?;
        let kind = SegmentKind::from_code(*kind).ok_or("unknown segment type")?;
        let count = usize::from(*count);
        if count == 0 {
            return Err("empty segment");
        }
        let (numbers, after) = after.split_at_checked(count * W).ok_or("segment overruns")?;
        let numbers = numbers.as_chunks::<W>().0;
        if numbers.contains(&[0; W]) {
            return Err("AS 0");
        }
        match kind {
            SegmentKind::Sequence => {
                if facts.wide_len == 0 {
                    facts.first = numbers.first().map(|n| widen(*n));
                }
                facts.length += count as u32;
            }
            SegmentKind::Set => {
                facts.has_set = true;
                facts.length += 1;
            }
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => facts.has_confederation = true,
        }
        facts.wide_len += 2 + 4 * count;
        rest = after;
    }
    Ok(facts)
}

fn widen<const W: usize>(number: [u8; W]) -> Asn {
    Asn(number.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// Checks the AS_PATH of a session with this width.
pub(super) fn as_path(attr: Attr<'_>, four_octet_as: bool) -> Result<PathFacts, Flaw> {
    if !attr.has_right_flags() {
        return Err(FLAGS);
    }
    let facts =
        if four_octet_as { path_facts::<4>(attr.value) } else { path_facts::<2>(attr.value) };
    // RFC 5065 §5: margay is never in a confederation.
    match facts {
        Ok(facts) if facts.has_confederation => Err("confederation segment"),
        facts => facts,
    }
    .map_err(|what| Flaw::new(Code::MALFORMED_AS_PATH, what))
}

/// AS4_PATH from an OLD speaker (RFC 6793 §6): malformed means discard. Confederation segments are
/// left out one by one when the paths are merged.
pub(super) fn as4_path(attr: Attr<'_>) -> Option<PathFacts> {
    if !attr.has_right_flags() || attr.value.is_empty() {
        return None;
    }
    path_facts::<4>(attr.value).ok()
}

/// NEXT_HOP (RFC 4271 §5.1.3, §6.3; RFC 7606 §7.3). Its syntax alone, because an UPDATE without
/// IPv4 NLRI needs no usable next hop.
pub(super) fn next_hop_syntax(attr: Attr<'_>) -> Result<Ipv4Addr, Flaw> {
    if !attr.has_right_flags() {
        return Err(FLAGS);
    }
    match attr.value {
        [a, b, c, d] => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => Err(LENGTH),
    }
}

/// Whether an IPv4 address may be a next hop: not 0/8, 127/8, 224/4 or the limited broadcast.
///
/// Differs from RFC: 240/4 (RFC 1112 §4, reserved) is allowed, because Calico users number pods and
/// nodes from it.
pub(super) fn is_usable4(addr: Ipv4Addr) -> bool {
    !matches!(addr.octets(), [0 | 127 | 224..=239, ..] | [255, 255, 255, 255])
}

/// Whether an IPv6 address may be a next hop.
fn is_usable6(addr: Ipv6Addr) -> bool {
    !(addr.is_unspecified() || addr.is_loopback() || addr.is_multicast())
}

/// Why an MP next hop is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadNextHop {
    /// A length that the family does not have: 3/9.
    Length,
    /// No host has this address: treat as withdraw.
    Unusable,
}

/// The next hop of MP_REACH_NLRI (RFC 4760 §3, RFC 2545 §3, RFC 8950 §3).
pub(super) fn mp_next_hop(
    family: Family,
    bytes: &[u8],
    ipv4_over_ipv6: bool,
) -> Result<NextHop, BadNextHop> {
    match (family, bytes.len()) {
        (Family::Ipv4, 4) => {}
        (Family::Ipv4, 16 | 32) if ipv4_over_ipv6 => {}
        (Family::Ipv6, 16 | 32) => {}
        _ => return Err(BadNextHop::Length),
    }
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        let addr = Ipv4Addr::from(octets);
        return if is_usable4(addr) { Ok(NextHop::V4(addr)) } else { Err(BadNextHop::Unusable) };
    }
    let mut addrs = bytes.as_chunks::<16>().0.iter().map(|b| Ipv6Addr::from(*b));
    let first = addrs.next().unwrap_or(Ipv6Addr::UNSPECIFIED);
    let link_local = addrs.next().filter(Ipv6Addr::is_unicast_link_local);
    match (is_usable6(first), link_local) {
        // Link-local twice (BIRD on unnumbered links) is the same as once.
        (true, Some(link_local)) if !first.is_unicast_link_local() => {
            Ok(NextHop::V6Both { global: first, link_local })
        }
        (true, _) => Ok(NextHop::V6(first)),
        // `::` and a link-local address, from routers without a global address on the link.
        (false, Some(link_local)) if first.is_unspecified() => Ok(NextHop::V6(link_local)),
        (false, _) => Err(BadNextHop::Unusable),
    }
}

/// A link-local next hop on the interface of the session. If the session has one, the neighbour is on
/// that link, and its link-local address is the next hop also if it sent a global one before it.
/// Without one, the link is unknown.
pub(super) fn on_link(next_hop: NextHop, interface: Option<NonZeroU32>) -> NextHop {
    let ifindex = interface.map_or(0, NonZeroU32::get);
    match next_hop {
        NextHop::V4(_) => next_hop,
        NextHop::V6(addr) => NextHop::V6(on_interface6(addr, ifindex)),
        NextHop::V6Both { link_local, .. } if interface.is_some() => {
            NextHop::V6(on_interface6(link_local, ifindex))
        }
        NextHop::V6Both { .. } => next_hop,
    }
}
