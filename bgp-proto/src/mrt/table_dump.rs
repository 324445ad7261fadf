//! Dumps of a RIB: TABLE_DUMP_V2 (RFC 6396 §4.3, RFC 8050 §4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::{Open, TABLE_DUMP_V2};
use super::reader::{Fields, push_address};
use super::{BODY_MAX, Header, MrtError, Record};
use crate::types::{Asn, Family, NextHop, PathId, Prefix, RouterId};
use crate::wire::{Attr, AttrEdit, AttrView, attr};

const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;

/// Bits of a peer's type (RFC 6396 §4.3.1).
const PEER_IS_IPV6: u8 = 1;
const PEER_HAS_AS4: u8 = 2;

/// Flags of the two attributes that hold a next hop.
const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;

/// A peer of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Its address; the unspecified one for routes of the dumping speaker itself.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
}

/// The peers that the RIB entries of a dump refer to, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIndex {
    /// BGP Identifier of the speaker whose RIB it is.
    pub collector: RouterId,
    /// The view; empty: none. At most 65535 octets of it are written.
    pub view: String,
    /// The peers. At most 65535 are written.
    pub peers: Vec<Peer>,
}

impl PeerIndex {
    /// Appends the record. AS numbers are written in four octets.
    pub fn encode(&self, secs: u32, out: &mut Vec<u8>) {
        let record = Open::begin(out, secs, TABLE_DUMP_V2, PEER_INDEX_TABLE);
        out.extend_from_slice(&self.collector.0.to_be_bytes());
        let (len, view) = counted(self.view.as_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(view);
        let (count, peers) = counted(&self.peers);
        out.extend_from_slice(&count.to_be_bytes());
        for peer in peers {
            let family = if peer.address.is_ipv6() { PEER_IS_IPV6 } else { 0 };
            out.push(PEER_HAS_AS4 | family);
            out.extend_from_slice(&peer.router_id.0.to_be_bytes());
            push_address(out, peer.address);
            out.extend_from_slice(&peer.asn.0.to_be_bytes());
        }
        record.end(out);
    }

    fn decode(mut fields: Fields<'_>) -> Result<Self, MrtError> {
        let collector = RouterId(fields.u32()?);
        let len = usize::from(fields.u16()?);
        let view = String::from_utf8_lossy(fields.octets(len)?).into_owned();
        let count = fields.u16()?;
        let mut peers = Vec::new();
        for _ in 0..count {
            let kind = fields.u8()?;
            let family = if kind & PEER_IS_IPV6 == 0 { Family::Ipv4 } else { Family::Ipv6 };
            let router_id = RouterId(fields.u32()?);
            let address = fields.address(family)?;
            let has_as4 = kind & PEER_HAS_AS4 != 0;
            let asn = if has_as4 { fields.u32()? } else { u32::from(fields.u16()?) };
            peers.push(Peer { router_id, address, asn: Asn(asn) });
        }
        Ok(PeerIndex { collector, view, peers })
    }
}

/// As many of the items as a count of two octets allows, and that count.
fn counted<T>(items: &[T]) -> (u16, &[T]) {
    match u16::try_from(items.len()) {
        Ok(count) => (count, items),
        Err(_) => (u16::MAX, items.get(..usize::from(u16::MAX)).unwrap_or_default()),
    }
}

/// One path of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RibEntry<'a> {
    /// The position of its peer in the PEER_INDEX_TABLE.
    pub peer: u16,
    /// When it was received, in seconds of Unix time.
    pub originated: u32,
    /// Its path identifier, in the subtypes of RFC 8050.
    pub path_id: Option<PathId>,
    /// Its attributes as they are in the record, AS numbers in four octets. The next hop is in NEXT_HOP or
    /// MP_REACH_NLRI.
    pub attrs: &'a [u8],
}

impl RibEntry<'_> {
    fn decode<'a>(fields: &mut Fields<'a>, has_path_ids: bool) -> Result<RibEntry<'a>, MrtError> {
        let peer = fields.u16()?;
        let originated = fields.u32()?;
        let path_id = if has_path_ids { Some(PathId(fields.u32()?)) } else { None };
        let len = usize::from(fields.u16()?);
        Ok(RibEntry { peer, originated, path_id, attrs: fields.octets(len)? })
    }

    /// The attributes in canonical form, without those that hold a next hop; and the next hop, if there is
    /// one. Reading ends where the octets are no attributes; values are not checked.
    pub fn canonical(&self) -> (Vec<u8>, Option<NextHop>) {
        let mut next_hop = None;
        let mut edit = AttrEdit::default();
        let (mut communities, mut large, mut extended) = (false, false, false);
        for attr in AttrView::new(self.attrs).iter() {
            match attr.code {
                attr::NEXT_HOP => {
                    let octets = <[u8; 4]>::try_from(attr.value).ok();
                    next_hop = octets.map(|octets| NextHop::V4(octets.into())).or(next_hop);
                }
                attr::MP_REACH_NLRI => next_hop = reach_next_hop(attr.value).or(next_hop),
                attr::MP_UNREACH_NLRI | attr::AS4_PATH | attr::AS4_AGGREGATOR => {}
                code => {
                    communities |= code == attr::COMMUNITIES;
                    large |= code == attr::LARGE_COMMUNITIES;
                    extended |= code == attr::EXTENDED_COMMUNITIES;
                    edit.set(attr.flags, code, attr.value);
                }
            }
        }
        if communities {
            let list: Vec<_> = edit.view().communities().collect();
            edit.set_communities(&list);
        }
        if large {
            let list: Vec<_> = edit.view().large_communities().collect();
            edit.set_large_communities(&list);
        }
        if extended {
            let list: Vec<_> = edit.view().ext_communities().collect();
            edit.set_ext_communities(&list);
        }
        (edit.into_bytes(), next_hop)
    }
}

/// The next hop of an MP_REACH_NLRI: of the abbreviated form, which is its length and itself (RFC 6396
/// §4.3.4), or of the whole attribute, which some writers leave as it was received: that begins with an
/// AFI, whose high octet is 0.
fn reach_next_hop(value: &[u8]) -> Option<NextHop> {
    let value = match value {
        [0, _, _, rest @ ..] => rest,
        _ => value,
    };
    let (len, rest) = value.split_first()?;
    let octets = rest.get(..usize::from(*len))?;
    let v6 = |octets: &[u8]| <[u8; 16]>::try_from(octets).ok().map(Ipv6Addr::from);
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| NextHop::V4(octets.into())),
        16 => v6(octets).map(NextHop::V6),
        32 => {
            let (global, link_local) = (v6(octets.get(..16)?)?, v6(octets.get(16..)?)?);
            Some(NextHop::V6Both { global, link_local })
        }
        _ => None,
    }
}

/// The paths of one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rib<'a> {
    /// The number of the record in its dump.
    pub sequence: u32,
    /// The prefix.
    pub prefix: Prefix,
    has_path_ids: bool,
    count: u16,
    entries: &'a [u8],
}

impl<'a> Rib<'a> {
    /// Number of paths.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The paths.
    pub fn entries(&self) -> impl Iterator<Item = RibEntry<'a>> + use<'a> {
        let mut fields = Fields(self.entries);
        let has_path_ids = self.has_path_ids;
        (0..self.count).map_while(move |_| RibEntry::decode(&mut fields, has_path_ids).ok())
    }

    fn decode(
        mut fields: Fields<'a>,
        family: Family,
        has_path_ids: bool,
    ) -> Result<Self, MrtError> {
        let sequence = fields.u32()?;
        let len = fields.u8()?;
        if len > family.max_len() {
            return Err(MrtError::PrefixLen(len));
        }
        let octets = fields.octets(usize::from(len.div_ceil(8)))?;
        let mut whole = [0; 16];
        whole.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        let [a, b, c, d, ..] = whole;
        let address = match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(whole)),
        };
        let count = fields.u16()?;
        let entries = fields.0;
        // Each is looked at once, so that reading them later cannot fail.
        for _ in 0..count {
            RibEntry::decode(&mut fields, has_path_ids)?;
        }
        Ok(Rib { sequence, prefix: Prefix::new(address, len), has_path_ids, count, entries })
    }
}

pub(super) fn decode(header: Header, body: &[u8]) -> Result<Record<'_>, MrtError> {
    let fields = Fields(body);
    let (family, has_path_ids) = match header.subtype {
        PEER_INDEX_TABLE => return PeerIndex::decode(fields).map(Record::PeerIndex),
        RIB_IPV4_UNICAST => (Family::Ipv4, false),
        RIB_IPV6_UNICAST => (Family::Ipv6, false),
        RIB_IPV4_UNICAST_ADDPATH => (Family::Ipv4, true),
        RIB_IPV6_UNICAST_ADDPATH => (Family::Ipv6, true),
        subtype => return Ok(Record::Other { kind: header.kind, subtype }),
    };
    Rib::decode(fields, family, has_path_ids).map(Record::Rib)
}

/// Writes the RIB record of one prefix, path by path.
pub struct RibWriter<'o> {
    out: &'o mut Vec<u8>,
    record: Open,
    has_path_ids: bool,
    /// Where the number of entries is written.
    count_at: usize,
    count: u16,
}

impl<'o> RibWriter<'o> {
    /// Begins a record at the end of `out`, made at `secs` of Unix time. `has_path_ids`: entries have path
    /// identifiers (RFC 8050 §4).
    pub fn new(
        out: &'o mut Vec<u8>,
        secs: u32,
        sequence: u32,
        prefix: Prefix,
        has_path_ids: bool,
    ) -> Self {
        let subtype = match (prefix.family(), has_path_ids) {
            (Family::Ipv4, false) => RIB_IPV4_UNICAST,
            (Family::Ipv6, false) => RIB_IPV6_UNICAST,
            (Family::Ipv4, true) => RIB_IPV4_UNICAST_ADDPATH,
            (Family::Ipv6, true) => RIB_IPV6_UNICAST_ADDPATH,
        };
        let record = Open::begin(out, secs, TABLE_DUMP_V2, subtype);
        out.extend_from_slice(&sequence.to_be_bytes());
        crate::wire::Nlri::push(out, None, prefix);
        let count_at = out.len();
        out.extend_from_slice(&[0; 2]);
        RibWriter { out, record, has_path_ids, count_at, count: 0 }
    }

    /// Appends a path with canonical attributes; `path_id` is written if the record has path identifiers.
    /// Returns whether it was appended: a record has room for 65535 paths and [`BODY_MAX`] octets, and a
    /// path for 65535 octets of attributes.
    pub fn push(
        &mut self,
        peer: u16,
        originated: u32,
        path_id: PathId,
        attrs: AttrView<'_>,
        next_hop: NextHop,
    ) -> bool {
        let start = self.out.len();
        self.out.extend_from_slice(&peer.to_be_bytes());
        self.out.extend_from_slice(&originated.to_be_bytes());
        if self.has_path_ids {
            self.out.extend_from_slice(&path_id.0.to_be_bytes());
        }
        let len_at = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        push_attrs(self.out, attrs, next_hop);
        let len = u16::try_from(self.out.len() - len_at - 2).ok();
        let count = self.count.checked_add(1);
        let (Some(len), Some(count)) = (len, count) else {
            self.out.truncate(start);
            return false;
        };
        if self.record.len(self.out) > BODY_MAX {
            self.out.truncate(start);
            return false;
        }
        write_u16(self.out, len_at, len);
        self.count = count;
        true
    }

    /// Ends the record. Without a path there is none, and `false` is returned.
    pub fn end(self) -> bool {
        if self.count == 0 {
            self.record.discard(self.out);
            return false;
        }
        write_u16(self.out, self.count_at, self.count);
        self.record.end(self.out);
        true
    }
}

fn write_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Appends canonical attributes with the next hop in its place among them: an IPv4 one as NEXT_HOP, an
/// IPv6 one as an MP_REACH_NLRI of its length and itself (RFC 6396 §4.3.4).
fn push_attrs(out: &mut Vec<u8>, attrs: AttrView<'_>, next_hop: NextHop) {
    let mut value = [0; 33];
    let (flags, code, len) = match next_hop.off_interface() {
        NextHop::V4(addr) => {
            value[..4].copy_from_slice(&addr.octets());
            (WELL_KNOWN, attr::NEXT_HOP, 4)
        }
        NextHop::V6(addr) => {
            value[0] = 16;
            value[1..17].copy_from_slice(&addr.octets());
            (OPTIONAL, attr::MP_REACH_NLRI, 17)
        }
        NextHop::V6Both { global, link_local } => {
            value[0] = 32;
            value[1..17].copy_from_slice(&global.octets());
            value[17..].copy_from_slice(&link_local.octets());
            (OPTIONAL, attr::MP_REACH_NLRI, 33)
        }
    };
    let hop = Attr { flags, code, value: value.get(..len).unwrap_or_default() };
    let before = attrs.iter().take_while(|attr| attr.code < code);
    let split = before.map(|attr| attr.len()).sum();
    let (before, after) = attrs.as_bytes().split_at_checked(split).unwrap_or_default();
    out.extend_from_slice(before);
    hop.push(out);
    out.extend_from_slice(after);
}
