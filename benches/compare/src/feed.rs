//! UPDATE streams, encoded before the clock starts, and the tables that must result from them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::synth::Prefix;
use crate::wire::{self, Event, Key, Message, Sums, Tally};

/// One feeder's stream.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    /// Complete messages.
    pub(crate) bytes: Arc<[u8]>,
    /// The routes that the stream announces.
    pub(crate) sums: Sums,
}

impl Feed {
    /// A feed of these messages. `sums` is computed with the parser that receivers use.
    ///
    /// # Errors
    /// The stream is not made of well-formed UPDATEs.
    pub(crate) fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let mut tally = Tally::default();
        each_update(&bytes, |body| wire::tally_update(&mut tally, body))?;
        Ok(Self { bytes: bytes.into(), sums: tally.announced })
    }
}

/// All prefixes that `feed` announces, ordered by length, then by address.
///
/// # Errors
/// See [`table_after`].
pub(crate) fn prefixes_of(feed: &Feed) -> anyhow::Result<Vec<Prefix>> {
    let table = table_after(&feed.bytes)?;
    Ok(table.into_keys().map(|key| (key as u32, (key >> 32) as u8)).collect())
}

/// All prefixes that `feed` announces, in the order of the stream.
///
/// # Errors
/// See [`table_after`].
pub(crate) fn announced(feed: &Feed) -> anyhow::Result<Vec<Prefix>> {
    let mut prefixes = Vec::new();
    each_update(&feed.bytes, |body| {
        wire::walk_update(body, |event| {
            if let Event::Announce(key, _) = event {
                prefixes.push((key as u32, (key >> 32) as u8));
            }
        })
    })?;
    Ok(prefixes)
}

/// A stream that withdraws all prefixes of `feed`.
///
/// # Errors
/// See [`table_after`].
pub(crate) fn withdrawal_of(feed: &Feed) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    wire::push_withdrawals(&mut out, &prefixes_of(feed)?);
    Ok(out)
}

fn each_update(
    bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), &'static str>,
) -> anyhow::Result<()> {
    let mut rest = bytes;
    while let Some((message, len)) = wire::message(rest).map_err(anyhow::Error::msg)? {
        if let Message::Update(body) = message {
            each(body).map_err(anyhow::Error::msg)?;
        }
        rest = rest.get(len..).unwrap_or(&[]);
    }
    ensure!(rest.is_empty(), "{} octets after the last whole message", rest.len());
    Ok(())
}

/// The table that results from a stream: the digest of the attributes by prefix.
///
/// # Errors
/// The stream is not made of well-formed messages.
pub(crate) fn table_after(bytes: &[u8]) -> anyhow::Result<BTreeMap<Key, u64>> {
    let mut table = BTreeMap::new();
    each_update(bytes, |body| {
        wire::walk_update(body, |event| match event {
            Event::Announce(key, digest) => {
                table.insert(key, digest);
            }
            Event::Withdraw(key) => {
                table.remove(&key);
            }
            Event::EndOfRib => {}
        })
    })?;
    Ok(table)
}

/// The /26 blocks of a Kubernetes node, announced as a node does: in one UPDATE with an empty
/// AS_PATH.
pub(crate) fn node_blocks(node: usize, blocks: usize, next_hop: Ipv4Addr) -> Vec<u8> {
    let mut out = Vec::new();
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4];
    attributes.extend_from_slice(&next_hop.octets());
    attributes.extend_from_slice(&[0x40, 5, 4, 0, 0, 0, 100]);
    wire::push_announcements(&mut out, &attributes, &block_prefixes(node, blocks));
    out
}

fn block_prefixes(node: usize, blocks: usize) -> Vec<Prefix> {
    let base = u32::from(Ipv4Addr::new(100, 64, 0, 0));
    (0..blocks).map(|block| (base + ((node * blocks + block) as u32) * 64, 26)).collect()
}

/// A /32 that no table of this tool contains, with `version` as its MED.
pub(crate) fn probe(number: u32, version: u32, next_hop: Ipv4Addr) -> (Key, Vec<u8>) {
    let address = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (number & 0x1_ffff);
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4];
    attributes.extend_from_slice(&next_hop.octets());
    attributes.extend_from_slice(&[0x80, 4, 4]);
    attributes.extend_from_slice(&version.to_be_bytes());
    attributes.extend_from_slice(&[0x40, 5, 4, 0, 0, 0, 100]);
    let mut out = Vec::new();
    wire::push_announcements(&mut out, &attributes, &[(address, 32)]);
    (wire::key_v4(address, 32), out)
}

/// Whether the prefix is that of a [`probe`]. Probes have attributes of their own, so that no UPDATE
/// announces one together with others.
pub(crate) fn is_probe(key: Key) -> bool {
    key >> 32 == 32 && key as u32 >> 17 == u32::from(Ipv4Addr::new(198, 18, 0, 0)) >> 17
}

/// The stream of `feed` with another next hop.
///
/// # Errors
/// See [`table_after`].
pub(crate) fn with_next_hop(feed: &Feed, next_hop: Ipv4Addr) -> anyhow::Result<Vec<u8>> {
    with_attribute(feed, NEXT_HOP, next_hop.octets())
}

/// The stream of `feed` with another LOCAL_PREF.
///
/// # Errors
/// See [`table_after`].
pub(crate) fn with_local_pref(feed: &Feed, value: u32) -> anyhow::Result<Vec<u8>> {
    const LOCAL_PREF: u8 = 5;
    with_attribute(feed, LOCAL_PREF, value.to_be_bytes())
}

/// The stream with this value of an attribute of four octets, which every UPDATE must have.
fn with_attribute(feed: &Feed, kind: u8, value: [u8; 4]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(feed.bytes.len());
    each_update(&feed.bytes, |body| {
        let mut body = body.to_vec();
        let (from, to) = attributes_of(&body).ok_or("an UPDATE without attributes")?;
        let attributes = body.get_mut(from..to).unwrap_or(&mut []);
        *value_of(attributes, kind).ok_or("an UPDATE without the attribute")? = value;
        wire::push_message(&mut out, 2, |out| out.extend_from_slice(&body));
        Ok(())
    })?;
    Ok(out)
}

/// The UPDATEs of an MRT file of BGP4MP records, octet for octet, with these exceptions:
///
/// - Withdrawals are left out: in a table transfer they withdraw nothing.
/// - NLRI that a later message replaces are left out, so that every prefix is announced once and a
///   receiver is complete exactly when its sums are.
/// - The few messages with AS 0 or an AS_SET are left out: RFC 7607 and RFC 9774 forbid their
///   propagation.
/// - Every distinct next hop is replaced with `hop` of its ordinal number, because the daemon under
///   test has no route to the original ones.
///
/// # Errors
/// The file cannot be read, or its records are malformed.
pub(crate) fn mrt_transfer(
    path: &Path,
    hop: impl Fn(usize) -> Ipv4Addr,
) -> anyhow::Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut raw)?;
    let mut updates =
        mrt_updates(&raw).with_context(|| format!("records of {}", path.display()))?;
    updates.retain(|body| is_forbidden(body) == Some(false));
    let mut last: HashMap<Key, usize> = HashMap::new();
    for (number, body) in updates.iter().enumerate() {
        let note = |event: Event| {
            if let Event::Announce(key, _) = event {
                last.insert(key, number);
            }
        };
        wire::walk_update(body, note).map_err(anyhow::Error::msg)?;
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut hops: HashMap<[u8; 4], usize> = HashMap::new();
    for (number, body) in updates.iter().enumerate() {
        let mut kept = Vec::new();
        let mut replaced = false;
        wire::walk_update(body, |event| {
            if let Event::Announce(key, _) = event {
                if last.get(&key) == Some(&number) {
                    kept.push((key as u32, (key >> 32) as u8))
                } else {
                    replaced = true
                }
            }
        })
        .map_err(anyhow::Error::msg)?;
        let mut body = body.to_vec();
        let (from, to) = attributes_of(&body).context("an UPDATE without attributes")?;
        if let Some(next_hop) = value_of(body.get_mut(from..to).unwrap_or(&mut []), NEXT_HOP) {
            let number = hops.len();
            let number = *hops.entry(*next_hop).or_insert(number);
            *next_hop = hop(number).octets();
        }
        match (kept.is_empty(), replaced) {
            (true, _) => {}
            (false, false) => wire::push_message(&mut out, 2, |out| out.extend_from_slice(&body)),
            (false, true) => {
                wire::push_announcements(&mut out, body.get(from..to).unwrap_or(&[]), &kept)
            }
        }
    }
    Ok(out)
}

/// Where the attributes of an UPDATE body begin and end.
fn attributes_of(body: &[u8]) -> Option<(usize, usize)> {
    let withdrawn = usize::from(u16::from_be_bytes(*body.first_chunk()?));
    let rest = body.get(2 + withdrawn..)?;
    let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
    Some((4 + withdrawn, 4 + withdrawn + len))
}

/// RFC 7607 §2 (AS 0), RFC 9774 §3 (AS_SET). `None` for an UPDATE without attributes.
fn is_forbidden(body: &[u8]) -> Option<bool> {
    let (from, to) = attributes_of(body).filter(|(from, to)| from < to)?;
    let mut rest = body.get(from..to)?;
    let mut found = false;
    while !rest.is_empty() {
        let (kind, value, after) = wire::attribute(rest)?;
        found |= match kind {
            AS_PATH => path_is_forbidden(value)?,
            AGGREGATOR => value.starts_with(&[0; 4]),
            _ => false,
        };
        rest = after;
    }
    Some(found)
}

fn path_is_forbidden(mut path: &[u8]) -> Option<bool> {
    while let &[kind, hops, ..] = path {
        let (segment, after) = path.get(2..)?.split_at_checked(4 * usize::from(hops))?;
        if kind == AS_SET || segment.chunks_exact(4).any(|asn| asn == [0; 4]) {
            return Some(true);
        }
        path = after;
    }
    Some(false)
}

const AS_PATH: u8 = 2;
/// Segment type.
const AS_SET: u8 = 1;
const AGGREGATOR: u8 = 7;

/// The value of the attribute `wanted`, of four octets.
fn value_of(attributes: &mut [u8], wanted: u8) -> Option<&mut [u8; 4]> {
    let mut at = 0;
    loop {
        let rest = attributes.get(at..)?;
        let (kind, value, after) = wire::attribute(rest)?;
        let end = attributes.len() - after.len();
        if kind == wanted {
            return attributes.get_mut(end - value.len()..end)?.first_chunk_mut();
        }
        at = end;
    }
}

const NEXT_HOP: u8 = 3;

fn mrt_updates(mut rest: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    const BGP4MP_ET: u16 = 17;
    const MESSAGE_AS4: u16 = 4;
    let mut updates = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<12>() {
        let kind = u16::from_be_bytes([header[4], header[5]]);
        let subtype = u16::from_be_bytes([header[6], header[7]]);
        let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let (record, next) = after.split_at_checked(len).context("truncated record")?;
        rest = next;
        if subtype != MESSAGE_AS4 {
            continue;
        }
        let record = if kind == BGP4MP_ET { record.get(4..) } else { Some(record) };
        // Two AS numbers, interface index, address family, two IPv4 addresses.
        let message = record.and_then(|record| record.get(20..)).context("short record")?;
        if let Some((Message::Update(body), _)) =
            wire::message(message).map_err(anyhow::Error::msg)?
        {
            updates.push(body);
        }
    }
    Ok(updates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mrt(body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        wire::push_message(&mut message, 2, |out| out.extend_from_slice(body));
        let mut out = vec![0, 0, 0, 0, 0, 17, 0, 4];
        out.extend_from_slice(&(24 + message.len() as u32).to_be_bytes());
        out.extend_from_slice(&[0; 24]);
        out.extend_from_slice(&message);
        out
    }

    #[test]
    fn transfer_announces_each_prefix_once_with_its_last_attributes() {
        let body = |med: u8, nlri: &[u8]| {
            let mut body = vec![0, 0, 0, 14, 0x80, 4, 4, 0, 0, 0, med, 0x40, 3, 4, 192, 0, 2, 9];
            body.extend_from_slice(nlri);
            body
        };
        let raw = [
            mrt(&body(1, &[8, 1, 8, 2])),
            mrt(&[0, 2, 8, 9, 0, 0]),
            mrt(&body(2, &[8, 1])),
            mrt(&body(3, &[8, 3])),
            mrt(&[0, 0, 0, 9, 0x40, 2, 6, 2, 1, 0, 0, 0, 0, 8, 7]),
            mrt(&[0, 0, 0, 9, 0x40, 2, 6, 1, 1, 0, 0, 0, 5, 8, 7]),
            mrt(&[0, 0, 0, 11, 0xc0, 7, 8, 0, 0, 0, 0, 1, 2, 3, 4, 8, 7]),
        ]
        .concat();
        let path = std::env::temp_dir().join(format!("compare-mrt-{}.gz", std::process::id()));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &raw).unwrap();
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        let out = mrt_transfer(&path, |number| Ipv4Addr::new(10, 0, 0, 1 + number as u8));
        std::fs::remove_file(&path).unwrap();
        let out = out.unwrap();
        let table = table_after(&out).unwrap();
        let med = |med: u8| {
            wire::digest_attributes(&[0x80, 4, 4, 0, 0, 0, med, 0x40, 3, 4, 10, 0, 0, 1]).unwrap()
        };
        let expected =
            [(1_u32, 2), (2, 1), (3, 3)].map(|(net, m)| (wire::key_v4(net << 24, 8), med(m)));
        assert_eq!(table, expected.into_iter().collect());
        assert_eq!(Feed::new(out).unwrap().sums.count, 3);
    }

    #[test]
    fn one_attribute_is_replaced_in_every_update() {
        let feed = Feed::new(node_blocks(7, 3, Ipv4Addr::LOCALHOST)).unwrap();
        let other = Feed::new(with_local_pref(&feed, 200).unwrap()).unwrap();
        assert!(feed.sums.same_prefixes(&other.sums));
        assert_ne!(feed.sums.routes, other.sums.routes);
        assert_eq!(with_local_pref(&other, 100).unwrap(), &*feed.bytes);
        let moved = Ipv4Addr::new(10, 0, 0, 7);
        assert_eq!(with_next_hop(&feed, moved).unwrap(), node_blocks(7, 3, moved));
    }

    #[test]
    fn probes_and_blocks_are_distinct() {
        let (a, bytes) = probe(1, 1, Ipv4Addr::LOCALHOST);
        let (b, _) = probe(2, 1, Ipv4Addr::LOCALHOST);
        assert_ne!(a, b);
        assert!(table_after(&bytes).unwrap().contains_key(&a));
        assert!(is_probe(a) && is_probe(b) && !is_probe(wire::key_v4(100 << 24, 26)));
        let all: std::collections::HashSet<Prefix> =
            (0..5000).flat_map(|node| block_prefixes(node, 3)).collect();
        assert_eq!(all.len(), 15_000);
    }
}
