//! Path attributes in canonical form: reading.
use std::net::Ipv4Addr;

use super::AsPath;
use super::attr_table::{AttrDef, attr, flag};
use crate::types::{Asn, ClusterId, Community, ExtCommunity, LargeCommunity, RouterId};

/// ORIGIN values, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// IGP, 0.
    Igp = 0,
    /// EGP, 1.
    Egp = 1,
    /// INCOMPLETE, 2.
    Incomplete = 2,
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Flags octet.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// Whether Optional and Transitive are set as its type prescribes; an unknown type may have
    /// any.
    #[inline]
    pub(super) fn has_right_flags(self) -> bool {
        AttrDef::of(self.code).is_none_or(|def| def.has_flags(self.flags))
    }

    /// Splits the first attribute from `bytes` (RFC 4271 §4.3); `None` if it does not fit.
    #[inline(always)]
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Attr<'a>, &'a [u8])> {
        let ([flags, code, len], rest) = bytes.split_first_chunk::<3>()?;
        let (len, rest) = if flags & flag::EXTENDED_LENGTH == 0 {
            (usize::from(*len), rest)
        } else {
            let (low, rest) = rest.split_first()?;
            (usize::from(u16::from_be_bytes([*len, *low])), rest)
        };
        let (value, rest) = rest.split_at_checked(len)?;
        Some((Attr { flags: *flags, code: *code, value }, rest))
    }

    /// Octets that it takes with its flags, type and length.
    pub(crate) fn len(self) -> usize {
        let extended = usize::from(self.flags & flag::EXTENDED_LENGTH != 0);
        3 + extended + self.value.len()
    }

    /// Appends the attribute, with Extended Length only if the value needs it. Values beyond 65535
    /// octets have no encoding and cannot come from a message.
    pub(crate) fn push(self, out: &mut Vec<u8>) {
        let Attr { flags, code, value } = self;
        let flags = flags & !(flag::EXTENDED_LENGTH | 0x0F);
        if let Ok(len) = u8::try_from(value.len()) {
            out.extend_from_slice(&[flags, code, len]);
        } else if let Ok(len) = u16::try_from(value.len()) {
            let [high, low] = len.to_be_bytes();
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code, high, low]);
        } else {
            debug_assert!(false, "attribute {code} of {} octets", value.len());
            return;
        }
        out.extend_from_slice(value);
    }
}

/// Iterator over attributes; ends early where the bytes are not attributes.
#[derive(Clone, Debug)]
pub struct AttrIter<'a> {
    rest: &'a [u8],
}

impl<'a> AttrIter<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        AttrIter { rest }
    }
}

impl<'a> Iterator for AttrIter<'a> {
    type Item = Attr<'a>;

    #[inline]
    fn next(&mut self) -> Option<Attr<'a>> {
        let (attr, rest) = Attr::split(self.rest)?;
        self.rest = rest;
        Some(attr)
    }
}

/// A set of attributes in canonical form (see the module's parent). Constructed from bytes that
/// [`super::Update::canonical_attrs`] or [`super::AttrEdit`] wrote; reading is total even on other
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttrView<'a>(&'a [u8]);

impl<'a> AttrView<'a> {
    /// Wraps canonical bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        AttrView(bytes)
    }
    /// The bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    /// Every attribute, ascending by type.
    pub fn iter(self) -> AttrIter<'a> {
        AttrIter::new(self.0)
    }
    /// One attribute by type.
    pub fn get(self, code: u8) -> Option<Attr<'a>> {
        self.iter().take_while(|a| a.code <= code).find(|a| a.code == code)
    }
    fn fixed<const N: usize>(self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.value.try_into().ok()
    }
    fn chunks<const N: usize>(self, code: u8) -> impl Iterator<Item = [u8; N]> + use<'a, N> {
        let value = self.get(code).map_or(&[][..], |a| a.value);
        value.as_chunks::<N>().0.iter().copied()
    }
    /// ORIGIN; [`Origin::Incomplete`] if absent.
    pub fn origin(self) -> Origin {
        match self.fixed(attr::ORIGIN) {
            Some([0]) => Origin::Igp,
            Some([1]) => Origin::Egp,
            _ => Origin::Incomplete,
        }
    }
    /// AS_PATH; empty if absent.
    pub fn as_path(self) -> AsPath<'a> {
        AsPath::new(self.get(attr::AS_PATH).map_or(&[], |a| a.value))
    }
    /// MULTI_EXIT_DISC.
    pub fn med(self) -> Option<u32> {
        self.fixed(attr::MULTI_EXIT_DISC).map(u32::from_be_bytes)
    }
    /// LOCAL_PREF.
    pub fn local_pref(self) -> Option<u32> {
        self.fixed(attr::LOCAL_PREF).map(u32::from_be_bytes)
    }
    /// Whether ATOMIC_AGGREGATE is present.
    pub fn atomic_aggregate(self) -> bool {
        self.get(attr::ATOMIC_AGGREGATE).is_some()
    }
    /// AGGREGATOR.
    pub fn aggregator(self) -> Option<(Asn, Ipv4Addr)> {
        let [a, b, c, d, addr @ ..] = self.fixed::<8>(attr::AGGREGATOR)?;
        Some((Asn(u32::from_be_bytes([a, b, c, d])), Ipv4Addr::from(addr)))
    }
    /// COMMUNITIES in order.
    pub fn communities(self) -> impl Iterator<Item = Community> + use<'a> {
        self.chunks(attr::COMMUNITIES).map(|b| Community(u32::from_be_bytes(b)))
    }
    /// EXTENDED COMMUNITIES in order.
    pub fn ext_communities(self) -> impl Iterator<Item = ExtCommunity> + use<'a> {
        self.chunks(attr::EXTENDED_COMMUNITIES).map(ExtCommunity)
    }
    /// LARGE_COMMUNITY in order.
    pub fn large_communities(self) -> impl Iterator<Item = LargeCommunity> + use<'a> {
        self.chunks::<12>(attr::LARGE_COMMUNITIES).map(LargeCommunity::from)
    }
    /// ORIGINATOR_ID.
    pub fn originator_id(self) -> Option<RouterId> {
        self.fixed(attr::ORIGINATOR_ID).map(|b| RouterId(u32::from_be_bytes(b)))
    }
    /// CLUSTER_LIST in order.
    pub fn cluster_list(self) -> impl Iterator<Item = ClusterId> + use<'a> {
        self.chunks(attr::CLUSTER_LIST).map(|b| ClusterId(u32::from_be_bytes(b)))
    }
    /// ONLY_TO_CUSTOMER (RFC 9234).
    pub fn only_to_customer(self) -> Option<Asn> {
        self.fixed(attr::ONLY_TO_CUSTOMER).map(|b| Asn(u32::from_be_bytes(b)))
    }
}
