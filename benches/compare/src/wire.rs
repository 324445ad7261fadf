//! The subset of BGP needed to count routes: message headers, NLRI, an order-independent digest,
//! and the few messages that a session needs. It is independent of `bgp-proto`, so that an error
//! there cannot go unnoticed here.
//!
//! Every sum is taken modulo 2^64 over mixed 64-bit keys: two receivers of the same prefixes with
//! the same attributes, each once, in any order and packing, have equal sums.

use std::net::Ipv4Addr;

/// No session of this tool negotiates extended messages.
pub(crate) use interop::message::MESSAGE_MAX as MESSAGE_LEN_MAX;
use interop::message::{HEADER_LEN, KEEPALIVE_TYPE, NOTIFICATION, OPEN, UPDATE};

const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;

/// A prefix as 64 bits: exact for IPv4 (`length << 32 | address`), a hash for IPv6.
pub(crate) type Key = u64;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The key of an IPv4 prefix, host bits cleared.
pub(crate) fn key_v4(address: u32, len: u8) -> Key {
    let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
    u64::from(len) << 32 | u64::from(address & mask)
}

fn key_v6(octets: [u8; 16], len: u8) -> Key {
    let address = u128::from_be_bytes(octets);
    let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
    let address = address & mask;
    fold(
        (address >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15,
        (address as u64) ^ (u64::from(len) << 1) ^ 0xd6e8_feb8_6659_fd93,
    ) | 1 << 63
}

fn mix_prefix(key: Key) -> u64 {
    fold(key ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db)
}

fn mix_route(key: Key, attributes: u64) -> u64 {
    fold(key ^ 0x8ebc_6af0_9c88_c6e3, attributes ^ 0x5899_65cc_7537_4cc3)
}

/// A multiset of (prefix, attributes) reduced to sums, of received or of expected routes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Prefixes, counted with repetition.
    pub(crate) count: u64,
    /// Sum over prefixes.
    pub(crate) prefixes: u64,
    /// Sum over (prefix, attributes).
    pub(crate) routes: u64,
}

impl Sums {
    /// Adds one route.
    pub(crate) fn add(&mut self, key: Key, attributes: u64) {
        self.count += 1;
        self.prefixes = self.prefixes.wrapping_add(mix_prefix(key));
        self.routes = self.routes.wrapping_add(mix_route(key, attributes));
    }

    /// The union of two multisets.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            prefixes: self.prefixes.wrapping_add(other.prefixes),
            routes: self.routes.wrapping_add(other.routes),
        }
    }

    /// The difference from `other`, which must be a subset.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            prefixes: self.prefixes.wrapping_sub(other.prefixes),
            routes: self.routes.wrapping_sub(other.routes),
        }
    }

    /// Whether both have the same prefixes, whatever their attributes.
    pub(crate) fn same_prefixes(&self, other: &Self) -> bool {
        self.count == other.count && self.prefixes == other.prefixes
    }
}

/// The counters of one session since its last reset.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Octets read from the socket.
    pub(crate) bytes: u64,
    /// UPDATE messages, End-of-RIB included.
    pub(crate) updates: u64,
    /// Announcements.
    pub(crate) announced: Sums,
    /// Withdrawals; their `routes` has no meaning.
    pub(crate) withdrawn: Sums,
    /// End-of-RIB markers.
    pub(crate) end_of_rib: u64,
}

/// One complete message at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Body of an OPEN.
    Open(&'a [u8]),
    /// Body of an UPDATE.
    Update(&'a [u8]),
    /// Code, subcode and data of a NOTIFICATION.
    Notification(&'a [u8]),
    /// KEEPALIVE.
    Keepalive,
    /// Anything else, for example ROUTE-REFRESH.
    Other,
}

/// The message at the front of `buffer` and its length; `None` while it is incomplete.
///
/// # Errors
/// The Length field is out of range, so the stream cannot be parsed any further.
pub(crate) fn message(buffer: &[u8]) -> Result<Option<(Message<'_>, usize)>, &'static str> {
    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER_LEN..=MESSAGE_LEN_MAX).contains(&len) {
        return Err("message length out of range");
    }
    let Some(body) = buffer.get(HEADER_LEN..len) else { return Ok(None) };
    let message = match header[18] {
        OPEN => Message::Open(body),
        UPDATE => Message::Update(body),
        NOTIFICATION => Message::Notification(body),
        KEEPALIVE_TYPE => Message::Keepalive,
        _ => Message::Other,
    };
    Ok(Some((message, len)))
}

/// Calls `each` for every IPv4 prefix of an NLRI field.
fn each_v4(mut rest: &[u8], mut each: impl FnMut(Key)) -> Option<()> {
    while let Some(&len) = rest.first() {
        if len > 32 {
            return None;
        }
        let octets = usize::from(len.div_ceil(8));
        let address = match rest.first_chunk::<5>() {
            Some(&[_, a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            None => {
                let mut padded = [0; 4];
                padded.get_mut(..octets)?.copy_from_slice(rest.get(1..=octets)?);
                u32::from_be_bytes(padded)
            }
        };
        each(key_v4(address, len));
        rest = rest.get(1 + octets..)?;
    }
    Some(())
}

fn each_v6(mut rest: &[u8], mut each: impl FnMut(Key)) -> Option<()> {
    while let Some(&len) = rest.first() {
        if len > 128 {
            return None;
        }
        let octets = usize::from(len.div_ceil(8));
        let mut padded = [0; 16];
        padded.get_mut(..octets)?.copy_from_slice(rest.get(1..=octets)?);
        each(key_v6(padded, len));
        rest = rest.get(1 + octets..)?;
    }
    Some(())
}

fn each_of(afi: u16, rest: &[u8], each: impl FnMut(Key)) -> Option<()> {
    match afi {
        1 => each_v4(rest, each),
        2 => each_v6(rest, each),
        _ => Some(()),
    }
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(at)
}

fn be16(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_be_bytes(*head)), rest))
}

/// Splits off the first path attribute: its type, its value and the remaining octets.
pub(crate) fn attribute(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let &[flags, kind, ..] = bytes else { return None };
    let (len, rest) = match flags & 0x10 {
        0 => (usize::from(*bytes.get(2)?), bytes.get(3..)?),
        _ => be16(bytes.get(2..)?)?,
    };
    let (value, rest) = split(rest, len)?;
    Some((kind, value, rest))
}

fn digest_value(kind: u8, value: &[u8]) -> u64 {
    let mut state = 0x2d35_8dcc_aa6c_78a5 ^ (u64::from(kind) << 32) ^ value.len() as u64;
    let mut words = value.chunks_exact(8);
    for word in words.by_ref() {
        let mut octets = [0; 8];
        octets.copy_from_slice(word);
        state = fold(state ^ u64::from_le_bytes(octets), 0x8bb8_4b93_962e_acc9);
    }
    let tail = words.remainder();
    let mut octets = [0; 8];
    for (to, from) in octets.iter_mut().zip(tail) {
        *to = *from;
    }
    fold(state ^ u64::from_le_bytes(octets), 0x4b33_a62e_d433_d4a3)
}

/// A digest of path attributes that any two correct implementations agree on: independent of the
/// order of the attributes, of the encoding of flags and lengths, of what a reflector adds
/// (ORIGINATOR_ID, CLUSTER_LIST) and of whether the IPv4 next hop is carried in NEXT_HOP or in
/// MP_REACH_NLRI. A MED of 0 equals none (RFC 4271 §9.1.2.2 (c)): FRR adds it to internal routes.
pub(crate) fn digest_attributes(mut block: &[u8]) -> Option<u64> {
    let mut sum = 0_u64;
    while !block.is_empty() {
        let (kind, value, rest) = attribute(block)?;
        match kind {
            ORIGINATOR_ID | CLUSTER_LIST | MP_UNREACH => {}
            MULTI_EXIT_DISC if value == [0; 4] => {}
            MP_REACH => {
                let next_hop = value.get(4..4 + usize::from(*value.get(3)?))?;
                sum = sum.wrapping_add(digest_value(NEXT_HOP, next_hop));
            }
            _ => sum = sum.wrapping_add(digest_value(kind, value)),
        }
        block = rest;
    }
    Some(sum)
}

/// One route event of an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The prefix is announced with attributes of this digest.
    Announce(Key, u64),
    /// The prefix is withdrawn.
    Withdraw(Key),
    /// End-of-RIB of any family. RFC 4724 §2.
    EndOfRib,
}

/// Calls `each` for every route event of an UPDATE body, in wire order.
///
/// # Errors
/// The body is not a well-formed UPDATE.
pub(crate) fn walk_update(body: &[u8], mut each: impl FnMut(Event)) -> Result<(), &'static str> {
    walk(body, &mut each).ok_or("malformed UPDATE from the daemon under test")
}

fn walk(body: &[u8], each: &mut impl FnMut(Event)) -> Option<()> {
    let (len, rest) = be16(body)?;
    let (withdrawn, rest) = split(rest, len)?;
    let (len, rest) = be16(rest)?;
    let (attributes, nlri) = split(rest, len)?;
    each_v4(withdrawn, |key| each(Event::Withdraw(key)))?;
    if attributes.is_empty() {
        if withdrawn.is_empty() && nlri.is_empty() {
            each(Event::EndOfRib);
        }
        return Some(());
    }
    let digest = digest_attributes(attributes)?;
    each_v4(nlri, |key| each(Event::Announce(key, digest)))?;
    let mut rest = attributes;
    while !rest.is_empty() {
        let (kind, value, next) = attribute(rest)?;
        if kind == MP_REACH || kind == MP_UNREACH {
            walk_multiprotocol(kind, value, digest, each)?;
        }
        rest = next;
    }
    Some(())
}

fn walk_multiprotocol(
    kind: u8,
    value: &[u8],
    digest: u64,
    each: &mut impl FnMut(Event),
) -> Option<()> {
    let (afi, rest) = be16(value)?;
    let afi = u16::try_from(afi).ok()?;
    if kind == MP_UNREACH {
        let prefixes = rest.get(1..)?;
        if prefixes.is_empty() {
            each(Event::EndOfRib);
        }
        return each_of(afi, prefixes, |key| each(Event::Withdraw(key)));
    }
    let skip = 1 + 1 + usize::from(*rest.get(1)?) + 1;
    each_of(afi, rest.get(skip..)?, |key| each(Event::Announce(key, digest)))
}

/// Adds the routes of an UPDATE to `tally`.
///
/// # Errors
/// See [`walk_update`].
pub(crate) fn tally_update(tally: &mut Tally, body: &[u8]) -> Result<(), &'static str> {
    tally.updates += 1;
    let mut announced = tally.announced;
    let mut withdrawn = tally.withdrawn;
    let mut end_of_rib = 0;
    walk_update(body, |event| match event {
        Event::Announce(key, digest) => announced.add(key, digest),
        Event::Withdraw(key) => withdrawn.add(key, 0),
        Event::EndOfRib => end_of_rib += 1,
    })?;
    tally.announced = announced;
    tally.withdrawn = withdrawn;
    tally.end_of_rib += end_of_rib;
    Ok(())
}

/// Appends one message; `body` writes the octets after the header.
///
/// # Panics
/// The message is longer than 65,535 octets.
pub(crate) fn push_message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind]);
    body(out);
    let len = u16::try_from(out.len() - start).expect("callers pack at most 4,096 octets");
    if let Some(field) = out.get_mut(start + 16..start + 18) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// An OPEN with the capabilities that every daemon here supports: IPv4 unicast, four-octet AS
/// numbers, route refresh.
pub(crate) fn open(asn: u32, hold_time_secs: u16, router_id: Ipv4Addr) -> Vec<u8> {
    let capabilities = [(1, vec![0, 1, 0, 1]), (2, Vec::new())];
    interop::message::open_with(asn, hold_time_secs, router_id, &capabilities)
        .expect("twelve octets of capabilities fit into an OPEN")
}

/// A KEEPALIVE.
pub(crate) fn keepalive() -> Vec<u8> {
    interop::message::KEEPALIVE.to_vec()
}

/// Appends an IPv4 prefix in NLRI encoding.
pub(crate) fn push_prefix(out: &mut Vec<u8>, address: u32, len: u8) {
    out.push(len);
    out.extend_from_slice(address.to_be_bytes().get(..usize::from(len.div_ceil(8))).unwrap_or(&[]));
}

/// Appends the UPDATEs that announce `prefixes` with `attributes`, packed into as few messages as
/// possible.
pub(crate) fn push_announcements(out: &mut Vec<u8>, attributes: &[u8], prefixes: &[(u32, u8)]) {
    push_packed(out, MESSAGE_LEN_MAX - HEADER_LEN - 4 - attributes.len(), prefixes, |out, nlri| {
        push_message(out, UPDATE, |out| {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
            out.extend_from_slice(attributes);
            out.extend_from_slice(nlri);
        });
    });
}

/// Appends the UPDATEs that withdraw `prefixes`, packed into as few messages as possible.
pub(crate) fn push_withdrawals(out: &mut Vec<u8>, prefixes: &[(u32, u8)]) {
    push_packed(out, MESSAGE_LEN_MAX - HEADER_LEN - 4, prefixes, |out, nlri| {
        push_message(out, UPDATE, |out| {
            out.extend_from_slice(&(nlri.len() as u16).to_be_bytes());
            out.extend_from_slice(nlri);
            out.extend_from_slice(&[0, 0]);
        });
    });
}

fn push_packed(
    out: &mut Vec<u8>,
    room: usize,
    prefixes: &[(u32, u8)],
    mut emit: impl FnMut(&mut Vec<u8>, &[u8]),
) {
    let mut nlri = Vec::with_capacity(room);
    for &(address, len) in prefixes {
        if nlri.len() + 5 > room {
            emit(out, &nlri);
            nlri.clear();
        }
        push_prefix(&mut nlri, address, len);
    }
    if !nlri.is_empty() {
        emit(out, &nlri);
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
