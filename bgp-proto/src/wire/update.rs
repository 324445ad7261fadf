//! UPDATE: the received buffer plus ranges, with RFC 7606 as a value.
use super::{AttrView, Nlri, Notification};
use crate::types::{Asn, Family, FamilySet, NextHop, PeerType};

/// What a session negotiated, as far as reading UPDATEs needs it.
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
    /// For people: "wrong length", "missing", "first AS is not the peer's", …
    pub what: &'static str,
}

/// The attribute types that were discarded (RFC 7606 §2), up to eight of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    codes: [u8; 8],
    len: u8,
}

impl Discarded {
    /// The codes.
    pub fn codes(&self) -> &[u8] {
        self.codes.get(..usize::from(self.len)).unwrap_or_default()
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
#[derive(Clone, Debug)]
pub struct Update<'a> {
    body: &'a [u8],
    // Ranges and verdict: the implementer's.
}

impl<'a> Update<'a> {
    /// Walks a body once. Errors are the resets that RFC 7606 leaves: 3/1, 3/2, 3/9, 3/10.
    pub fn parse(body: &'a [u8], cx: &UpdateContext) -> Result<Update<'a>, Notification> {
        let _ = (body, cx);
        todo!()
    }
    /// What to do with the announced routes.
    pub fn verdict(&self) -> Verdict {
        todo!()
    }
    /// Attributes dropped on the way (RFC 7606 "attribute discard").
    pub fn discarded(&self) -> Discarded {
        todo!()
    }
    /// Classic NLRI with NEXT_HOP, then MP_REACH_NLRI. With [`Verdict::TreatAsWithdraw`] the next
    /// hop may be unspecified; the prefixes are then to be withdrawn.
    pub fn reach(&self) -> impl Iterator<Item = Reach<'a>> {
        std::iter::empty()
    }
    /// Withdrawn Routes, then MP_UNREACH_NLRI.
    pub fn unreach(&self) -> impl Iterator<Item = Unreach<'a>> {
        std::iter::empty()
    }
    /// The End-of-RIB marker (RFC 4724 §2), in either form.
    pub fn end_of_rib(&self) -> Option<Family> {
        todo!()
    }
    /// Appends the attributes in canonical form. Only meaningful with [`Verdict::Accept`].
    pub fn canonical_attrs(&self, out: &mut Vec<u8>) {
        let _ = (out, self.body);
        let _ = AttrView::new(&[]);
        todo!()
    }
}
