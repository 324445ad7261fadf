//! The synthetic Internet-like table: real prefixes where the list is present, seeded ones
//! otherwise, and attributes with the sharing, path lengths and communities measured on real tables
//! (the figures are in `benches/README.md`).

use std::collections::HashSet;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::wire;
use interop::random::Random;

/// An IPv4 prefix: address with cleared host bits, length.
pub(crate) type Prefix = (u32, u8);

/// How many prefixes share an attribute set.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub(crate) enum Profile {
    /// 7.25 on average, as in the table of one collector peer.
    Lean,
    /// 2.6 on average: many communities and MEDs.
    Rich,
}

/// Share of each prefix length in the table of October 2025, per cent.
const LENGTHS: [(u8, f64); 13] = [
    (24, 59.62),
    (22, 12.04),
    (23, 10.70),
    (21, 5.63),
    (20, 4.72),
    (19, 2.76),
    (18, 1.53),
    (16, 1.50),
    (17, 0.91),
    (15, 0.20),
    (14, 0.13),
    (13, 0.08),
    (12, 0.05),
];

/// `(cumulative probability, prefixes per attribute set)`.
const SIZES_LEAN: [(f64, f64); 11] = [
    (0.46, 1.0),
    (0.5, 2.0),
    (0.73, 4.0),
    (0.89, 10.0),
    (0.95, 20.0),
    (0.98, 42.0),
    (0.99, 79.0),
    (0.997, 180.0),
    (0.999, 500.0),
    (0.9999, 1200.0),
    (1.0, 3000.0),
];
const SIZES_RICH: [(f64, f64); 7] = [
    (0.62, 1.0),
    (0.8, 2.0),
    (0.93, 4.0),
    (0.98, 8.0),
    (0.998, 60.0),
    (0.9999, 400.0),
    (1.0, 800.0),
];

/// `(cumulative probability, AS numbers in the AS_PATH)`, prepended ones included.
const HOPS: [(f64, f64); 10] = [
    (0.009, 2.0),
    (0.154, 3.0),
    (0.457, 4.0),
    (0.676, 5.0),
    (0.793, 6.0),
    (0.845, 7.0),
    (0.89, 8.0),
    (0.92, 9.0),
    (0.943, 10.0),
    (1.0, 14.0),
];

/// `(cumulative probability, communities of an attribute set)`.
const COMMUNITIES: [(f64, f64); 6] =
    [(0.236, 0.0), (0.26, 1.0), (0.5, 2.0), (0.75, 5.0), (0.9, 10.0), (1.0, 17.0)];

/// The source of the prefixes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The list of October 2025 with 901,899 prefixes, extended with seeded ones when more are
    /// needed.
    Real,
    /// Seeded prefixes only: the list is not present.
    Seeded,
}

/// `count` distinct prefixes in the order of their addresses.
///
/// # Errors
/// The list exists but cannot be read.
pub(crate) fn prefixes(
    count: usize,
    seed: u64,
    list: Option<&Path>,
) -> anyhow::Result<(Vec<Prefix>, Source)> {
    let mut random = Random::new(seed ^ 0x7072_6566);
    let mut known = match list {
        Some(path) => read_list(path)?,
        None => Vec::new(),
    };
    let source = if known.is_empty() { Source::Seeded } else { Source::Real };
    if known.len() > count {
        known = sample_blocks(known, count, &mut random);
    }
    let mut seen: HashSet<Prefix> = known.iter().copied().collect();
    while known.len() < count {
        top_up(&mut known, &mut seen, count, &mut random);
    }
    known.sort_unstable();
    Ok((known, source))
}

fn read_list(path: &Path) -> anyhow::Result<Vec<Prefix>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    let mut prefixes: Vec<Prefix> = text.lines().filter_map(parse_prefix).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

fn parse_prefix(line: &str) -> Option<Prefix> {
    let (address, len) = line.trim().split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let len: u8 = len.parse().ok().filter(|len| *len <= 32)?;
    Some((wire::key_v4(u32::from(address), len) as u32, len))
}

/// Samples blocks of adjacent prefixes, so that a small table keeps the locality of a large one.
fn sample_blocks(list: Vec<Prefix>, count: usize, random: &mut Random) -> Vec<Prefix> {
    const BLOCK: usize = 64;
    let mut blocks: Vec<&[Prefix]> = list.chunks(BLOCK).collect();
    random.shuffle(&mut blocks);
    blocks.into_iter().flatten().copied().take(count).collect()
}

fn top_up(known: &mut Vec<Prefix>, seen: &mut HashSet<Prefix>, count: usize, random: &mut Random) {
    let mut draw = random.unit() * LENGTHS.iter().map(|l| l.1).sum::<f64>();
    let len = LENGTHS
        .iter()
        .find(|(_, share)| {
            draw -= share;
            draw < 0.0
        })
        .map_or(24, |l| l.0);
    let mut address = u64::from(wire::key_v4(random.bits() as u32, len) as u32);
    loop {
        let usable =
            (1..224).contains(&(address >> 24)) && !matches!(address >> 24, 10 | 100 | 127);
        if !usable || known.len() >= count {
            return;
        }
        let prefix = (address as u32, len);
        if seen.insert(prefix) {
            known.push(prefix);
        }
        if random.chance(0.5) {
            return;
        }
        address += 1 << (32 - len);
    }
}

/// The UPDATE stream of one internal feeder: every prefix once, one attribute set per group of
/// prefixes, the sets in random order, in as few messages as the sets allow.
pub(crate) fn stream(
    prefixes: &[Prefix],
    seed: u64,
    profile: Profile,
    first_as: u32,
    next_hop: Ipv4Addr,
) -> Vec<u8> {
    let mut random = Random::new(seed ^ u64::from(first_as) << 32);
    let mut pools = Pools::new(prefixes.len(), first_as, &mut random);
    let sizes: &[(f64, f64)] = match profile {
        Profile::Lean => &SIZES_LEAN,
        Profile::Rich => &SIZES_RICH,
    };
    let mut out = Vec::with_capacity(prefixes.len() * 24);
    let mut set = Vec::new();
    let mut wanted = random.quantile(sizes) as usize;
    let mut block = pools.attributes(next_hop, &mut random);
    for run in runs(prefixes, &mut random) {
        for &prefix in run {
            set.push(prefix);
            if set.len() >= wanted.max(1) {
                wire::push_announcements(&mut out, &block, &set);
                set.clear();
                wanted = random.quantile(sizes) as usize;
                block = pools.attributes(next_hop, &mut random);
            }
        }
    }
    wire::push_announcements(&mut out, &block, &set);
    out
}

/// Runs of adjacent prefixes, which mostly share an origin AS, in random order.
fn runs<'a>(mut prefixes: &'a [Prefix], random: &mut Random) -> Vec<&'a [Prefix]> {
    let mut runs = Vec::new();
    while !prefixes.is_empty() {
        let mut len = 1;
        while len < prefixes.len() && random.chance(0.6) {
            len += 1;
        }
        let (run, rest) = prefixes.split_at(len);
        runs.push(run);
        prefixes = rest;
    }
    random.shuffle(&mut runs);
    runs
}

/// AS paths and community lists, drawn in advance because attribute sets share them.
struct Pools {
    paths: Vec<Vec<u32>>,
    communities: Vec<Vec<u32>>,
}

impl Pools {
    fn new(prefixes: usize, first_as: u32, random: &mut Random) -> Self {
        let paths = (0..prefixes / 7 + 1).map(|_| as_path(first_as, random)).collect();
        let communities = (0..prefixes / 36 + 1).map(|_| community_list(random)).collect();
        Self { paths, communities }
    }

    fn attributes(&mut self, next_hop: Ipv4Addr, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        push(&mut out, 0x40, 1, &[if random.chance(0.88) { 0 } else { 2 }]);
        let path = random.pick(&self.paths).map_or(&[][..], Vec::as_slice);
        let mut value = vec![2, path.len() as u8];
        value.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
        push(&mut out, 0x40, 2, &value);
        push(&mut out, 0x40, 3, &next_hop.octets());
        if random.chance(0.36) {
            push(&mut out, 0x80, 4, &(random.below(200) as u32).to_be_bytes());
        }
        push(&mut out, 0x40, 5, &100_u32.to_be_bytes());
        if random.chance(0.039) {
            push(&mut out, 0x40, 6, &[]);
        }
        if random.chance(0.097) {
            let mut value = transit(random).to_be_bytes().to_vec();
            value.extend_from_slice(&(random.bits() as u32 | 1 << 24).to_be_bytes());
            push(&mut out, 0xc0, 7, &value);
        }
        let list = random.pick(&self.communities).map_or(&[][..], Vec::as_slice);
        if !list.is_empty() {
            push(&mut out, 0xc0, 8, &words(list));
        }
        if random.chance(0.05) {
            let mut value = vec![0, 2];
            value.extend_from_slice(&(transit(random) as u16).to_be_bytes());
            value.extend_from_slice(&(random.below(5000) as u32).to_be_bytes());
            push(&mut out, 0xc0, 16, &value);
        }
        if random.chance(0.094) {
            let mut list = Vec::new();
            let admin = transit(random);
            for number in 0..1 + random.below(8) as u32 {
                list.extend([admin, number + 1, random.below(900) as u32]);
            }
            push(&mut out, 0xc0, 32, &words(&list));
        }
        out
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn push(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags, kind, len]),
        Err(_) => {
            out.extend_from_slice(&[flags | 0x10, kind]);
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// A random transit AS, skewed so that few ASes are in most paths.
fn transit(random: &mut Random) -> u32 {
    let skewed = random.unit().powi(3);
    100 + (skewed * 3000.0) as u32
}

fn as_path(first_as: u32, random: &mut Random) -> Vec<u32> {
    let hops = random.quantile(&HOPS).round() as usize;
    let origin = match random.below(2) {
        0 => 4_000 + random.below(56_000) as u32,
        _ => 131_072 + random.below(70_000) as u32,
    };
    let mut path = vec![first_as];
    while path.len() + 1 < hops {
        path.push(transit(random));
    }
    if hops > 3 && random.chance(0.17) {
        path.truncate(path.len() - 1);
        path.push(origin);
    }
    path.push(origin);
    path
}

fn community_list(random: &mut Random) -> Vec<u32> {
    let count = random.quantile(&COMMUNITIES) as usize;
    let mut list: Vec<u32> =
        (0..count).map(|_| (transit(random) & 0xffff) << 16 | random.below(4000) as u32).collect();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Tally;

    fn tally(bytes: &[u8]) -> Tally {
        let mut tally = Tally { bytes: bytes.len() as u64, ..Tally::default() };
        let mut rest = bytes;
        while let Some((message, len)) = wire::message(rest).unwrap() {
            let wire::Message::Update(body) = message else { panic!("not an UPDATE") };
            wire::tally_update(&mut tally, body).unwrap();
            rest = &rest[len..];
        }
        tally
    }

    #[test]
    fn table_is_reproducible_complete_and_of_the_documented_shape() {
        let (list, source) = prefixes(100_000, 1, None).unwrap();
        assert_eq!(source, Source::Seeded);
        assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "distinct and sorted");
        let hop = Ipv4Addr::new(10, 128, 0, 2);
        for (profile, low, high) in [(Profile::Lean, 6.2, 8.2), (Profile::Rich, 2.2, 3.0)] {
            let bytes = stream(&list, 7, profile, 3000, hop);
            assert_eq!(bytes, stream(&list, 7, profile, 3000, hop));
            let tally = tally(&bytes);
            assert_eq!(tally.announced.count, 100_000);
            let sharing = 100_000.0 / tally.updates as f64;
            assert!((low..high).contains(&sharing), "{profile:?}: {sharing} prefixes per UPDATE");
            let block = tally.bytes as f64 / tally.updates as f64 - 23.0 - 4.0 * sharing;
            assert!(
                (55.0..75.0).contains(&block),
                "{profile:?}: attribute block of {block} octets"
            );
        }
    }

    #[test]
    fn lengths_follow_the_internet() {
        let (list, _) = prefixes(50_000, 3, None).unwrap();
        let slash24 = list.iter().filter(|p| p.1 == 24).count();
        assert!((26_000..34_000).contains(&slash24), "{slash24}");
    }
}
