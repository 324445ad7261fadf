//! Path attributes in canonical form: reading and rewriting.
use crate::types::{Asn, ClusterId, Community, ExtCommunity, LargeCommunity, RouterId};
use std::net::Ipv4Addr;

/// Attribute type codes (RFC 4271 §5 and extensions).
pub mod attr {
    #![allow(missing_docs)]
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// ORIGIN values, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// 0
    Igp = 0,
    /// 1
    Egp = 1,
    /// 2
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

/// A set of attributes in canonical form (see the module's parent). Constructed from bytes that
/// [`super::Update::canonical_attrs`] or [`AttrEdit`] wrote; reading is total even on other bytes.
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
    pub fn iter(self) -> impl Iterator<Item = Attr<'a>> {
        std::iter::empty()
    }
    /// One attribute by type.
    pub fn get(self, code: u8) -> Option<Attr<'a>> {
        self.iter().find(|a| a.code == code)
    }
    /// ORIGIN; [`Origin::Incomplete`] if absent.
    pub fn origin(self) -> Origin {
        todo!()
    }
    /// AS_PATH; empty if absent.
    pub fn as_path(self) -> AsPath<'a> {
        todo!()
    }
    /// MULTI_EXIT_DISC.
    pub fn med(self) -> Option<u32> {
        todo!()
    }
    /// LOCAL_PREF.
    pub fn local_pref(self) -> Option<u32> {
        todo!()
    }
    /// ATOMIC_AGGREGATE is present.
    pub fn atomic_aggregate(self) -> bool {
        todo!()
    }
    /// AGGREGATOR.
    pub fn aggregator(self) -> Option<(Asn, Ipv4Addr)> {
        todo!()
    }
    /// COMMUNITIES in order.
    pub fn communities(self) -> impl Iterator<Item = Community> + 'a {
        std::iter::empty()
    }
    /// EXTENDED COMMUNITIES in order.
    pub fn ext_communities(self) -> impl Iterator<Item = ExtCommunity> + 'a {
        std::iter::empty()
    }
    /// LARGE_COMMUNITY in order.
    pub fn large_communities(self) -> impl Iterator<Item = LargeCommunity> + 'a {
        std::iter::empty()
    }
    /// ORIGINATOR_ID.
    pub fn originator_id(self) -> Option<RouterId> {
        todo!()
    }
    /// CLUSTER_LIST in order.
    pub fn cluster_list(self) -> impl Iterator<Item = ClusterId> + 'a {
        std::iter::empty()
    }
    /// ONLY_TO_CUSTOMER (RFC 9234).
    pub fn only_to_customer(self) -> Option<Asn> {
        todo!()
    }
}

/// Segment types (RFC 4271 §4.3, RFC 5065).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// 1
    Set = 1,
    /// 2
    Sequence = 2,
    /// 3
    ConfedSequence = 3,
    /// 4
    ConfedSet = 4,
}

/// One AS_PATH segment with four-octet numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsSegment<'a> {
    /// Its kind.
    pub kind: SegmentKind,
    numbers: &'a [u8],
}

impl<'a> AsSegment<'a> {
    /// Its numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = Asn> + 'a {
        self.numbers.chunks_exact(4).map(|b| Asn(u32::from_be_bytes([b[0], b[1], b[2], b[3]])))
    }
}

/// An AS_PATH value with four-octet numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsPath<'a>(&'a [u8]);

impl<'a> AsPath<'a> {
    /// The segments in order.
    pub fn segments(self) -> impl Iterator<Item = AsSegment<'a>> {
        std::iter::empty()
    }
    /// Every number in order, sets included.
    pub fn asns(self) -> impl Iterator<Item = Asn> {
        std::iter::empty()
    }
    /// Length for the decision process (RFC 4271 §9.1.2.2 a): a set counts one, confederation segments none.
    pub fn length(self) -> u32 {
        todo!()
    }
    /// The first number of a leading sequence.
    pub fn first(self) -> Option<Asn> {
        todo!()
    }
    /// How often `asn` occurs.
    pub fn count(self, asn: Asn) -> usize {
        let _ = asn;
        todo!()
    }
    /// Whether there is no segment.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Rewrites canonical attributes. Every method keeps the canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrEdit {
    bytes: Vec<u8>,
}

impl AttrEdit {
    /// Starts from an existing set.
    pub fn from_view(view: AttrView<'_>) -> Self {
        AttrEdit { bytes: view.as_bytes().to_vec() }
    }
    /// Starts from ORIGIN and an empty AS_PATH, for routes of our own.
    pub fn originate(origin: Origin) -> Self {
        let _ = origin;
        todo!()
    }
    /// What has been built.
    pub fn view(&self) -> AttrView<'_> {
        AttrView::new(&self.bytes)
    }
    /// The canonical bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
    /// Sets (inserts or replaces) an attribute by raw value.
    pub fn set(&mut self, flags: u8, code: u8, value: &[u8]) {
        let _ = (flags, code, value);
        todo!()
    }
    /// Takes an attribute out.
    pub fn remove(&mut self, code: u8) {
        let _ = code;
        todo!()
    }
    /// ORIGIN.
    pub fn set_origin(&mut self, origin: Origin) {
        let _ = origin;
        todo!()
    }
    /// MULTI_EXIT_DISC.
    pub fn set_med(&mut self, med: u32) {
        let _ = med;
        todo!()
    }
    /// LOCAL_PREF.
    pub fn set_local_pref(&mut self, local_pref: u32) {
        let _ = local_pref;
        todo!()
    }
    /// ORIGINATOR_ID.
    pub fn set_originator_id(&mut self, id: RouterId) {
        let _ = id;
        todo!()
    }
    /// Prepends to CLUSTER_LIST.
    pub fn prepend_cluster(&mut self, id: ClusterId) {
        let _ = id;
        todo!()
    }
    /// Prepends `asn` `count` times to AS_PATH; a full or non-sequence first segment gets a new one before it.
    pub fn prepend_as(&mut self, asn: Asn, count: usize) {
        let _ = (asn, count);
        todo!()
    }
    /// Drops AS_CONFED_* segments (leaving a confederation).
    pub fn strip_confederation(&mut self) {
        todo!()
    }
    /// Replaces COMMUNITIES (sorted, without duplicates; empty removes the attribute).
    pub fn set_communities(&mut self, list: &[Community]) {
        let _ = list;
        todo!()
    }
    /// Replaces EXTENDED COMMUNITIES, as above.
    pub fn set_ext_communities(&mut self, list: &[ExtCommunity]) {
        let _ = list;
        todo!()
    }
    /// Replaces LARGE_COMMUNITY, as above.
    pub fn set_large_communities(&mut self, list: &[LargeCommunity]) {
        let _ = list;
        todo!()
    }
}
