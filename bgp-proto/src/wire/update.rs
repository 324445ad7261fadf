//! UPDATE: the received buffer plus ranges, with RFC 7606 as a value.
mod canonical;
mod rules;
mod walk;

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use super::attrs::AttrIter;
use super::{Nlri, Notification};
use crate::types::{AfiSafi, Asn, Family, FamilySet, NextHop, PeerType};
use canonical::Canonical;

/// What a session negotiated, as far as parsing UPDATEs depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateContext {
    /// Four-octet AS numbers on this session (RFC 6793).
    pub four_octet_as: bool,
    /// Families negotiated; others in MP attributes are ignored.
    pub families: FamilySet,
    /// Families on which path identifiers are received.
    pub add_path: FamilySet,
    /// IPv4 may come with an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
    /// The peer's AS, for the first-AS check.
    pub peer_asn: Asn,
    /// eBGP: the first AS must be the peer's (RFC 7606 §7.2, RFC 4271 §6.3); off for route servers.
    pub enforce_first_as: bool,
    /// Treat AS_SET and AS_CONFED_SET as withdraw (RFC 9774).
    pub reject_as_sets: bool,
    /// The interface of a session between link-local addresses: link-local next hops are on it.
    pub interface: Option<NonZeroU32>,
}

impl UpdateContext {
    /// Both families, four-octet AS numbers, first-AS check, AS_SETs accepted; no ADD-PATH, no
    /// IPv6 next hops for IPv4, no interface.
    pub const fn new(peer_type: PeerType, peer_asn: Asn) -> Self {
        UpdateContext {
            four_octet_as: true,
            families: FamilySet::ALL,
            add_path: FamilySet::EMPTY,
            ipv4_over_ipv6: false,
            peer_type,
            peer_asn,
            enforce_first_as: true,
            reject_as_sets: false,
            interface: None,
        }
    }
}

/// What is to be done with the routes of an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use them.
    Accept,
    /// Withdraw every prefix that it names (RFC 7606 §2).
    TreatAsWithdraw(WithdrawReason),
}

/// Why an UPDATE was treated as a withdrawal: the attribute, and what was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WithdrawReason {
    /// Attribute type code; 0 for the attribute list as a whole.
    pub attr: u8,
    /// Description for operators: "wrong length", "missing", "first AS is not the peer's", …
    pub what: &'static str,
}

/// The attribute types that were discarded (RFC 7606 §2), up to eight of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    codes: [u8; 8],
    len: u8,
}

impl Discarded {
    /// The codes, each once, in the order of appearance.
    pub fn codes(&self) -> &[u8] {
        self.codes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn insert(&mut self, code: u8) {
        if self.codes().contains(&code) {
            return;
        }
        if let Some(slot) = self.codes.get_mut(usize::from(self.len)) {
            *slot = code;
            self.len += 1;
        }
    }
}

/// Announced prefixes with their next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach<'a> {
    /// Next hop of these prefixes.
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: Nlri<'a>,
}

/// Withdrawn prefixes.
pub type Unreach<'a> = Nlri<'a>;

/// A parsed UPDATE.
///
/// The order in which it takes effect: first [`Update::unreach`], then [`Update::reach`], so that a
/// prefix in both is announced (RFC 4271 §4.3); of a prefix announced twice the last one counts.
/// With [`Verdict::TreatAsWithdraw`] the prefixes of both are withdrawn.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// The attributes as received, up to where they stop being attributes.
    attrs: &'a [u8],
    withdrawn: Unreach<'a>,
    mp_unreach: Option<Unreach<'a>>,
    nlri: Nlri<'a>,
    /// From NEXT_HOP; unspecified if it is missing or wrong.
    next_hop: Ipv4Addr,
    mp_reach: Option<Reach<'a>>,
    unnegotiated: Option<AfiSafi>,
    end_of_rib: Option<Family>,
    verdict: Verdict,
    discarded: Discarded,
    canonical: Canonical<'a>,
}

impl<'a> Update<'a> {
    /// Parses a body in one pass. Errors are the session resets that RFC 7606 leaves: 3/1, 3/2,
    /// 3/9, 3/10.
    pub fn parse(body: &'a [u8], cx: &UpdateContext) -> Result<Update<'a>, Notification> {
        walk::parse(body, cx)
    }

    /// What to do with the announced routes.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Attributes that were discarded (RFC 7606 "attribute discard"), repeated ones included.
    /// Unrecognised non-transitive attributes are dropped without being named here.
    pub fn discarded(&self) -> Discarded {
        self.discarded
    }

    /// Classic NLRI with NEXT_HOP, then MP_REACH_NLRI. With [`Verdict::TreatAsWithdraw`] the next
    /// hop may be unspecified; the prefixes are then to be withdrawn.
    pub fn reach(&self) -> impl Iterator<Item = Reach<'a>> + use<'a> {
        let classic = Reach { next_hop: NextHop::V4(self.next_hop), nlri: self.nlri };
        [Some(classic), self.mp_reach].into_iter().flatten().filter(|r| !r.nlri.is_empty())
    }

    /// Withdrawn Routes, then MP_UNREACH_NLRI.
    pub fn unreach(&self) -> impl Iterator<Item = Unreach<'a>> + use<'a> {
        [Some(self.withdrawn), self.mp_unreach].into_iter().flatten().filter(|n| !n.is_empty())
    }

    /// The End-of-RIB marker (RFC 4724 §2), in either form.
    pub fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }

    /// A family that was named although it is not negotiated; its prefixes were ignored unread.
    pub fn unnegotiated(&self) -> Option<AfiSafi> {
        self.unnegotiated
    }

    /// The attributes as received, for display and for dumps.
    pub fn received_attrs(&self) -> AttrIter<'a> {
        AttrIter::new(self.attrs)
    }

    /// Appends the attributes in canonical form. Only meaningful with [`Verdict::Accept`].
    pub fn canonical_attrs(&self, out: &mut Vec<u8>) {
        self.canonical.write(self.attrs, out);
    }
}

#[cfg(test)]
mod tests;
