//! Sets of prefix ranges, with one binary search per lookup however many ranges there are.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::types::{Prefix, Prefix4};

/// A prefix with a range of lengths: `10.0.0.0/8` with 24..=26 matches /24 to /26 inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// The covering prefix.
    pub prefix: Prefix,
    /// Lengths that match.
    pub lengths: RangeInclusive<u8>,
}

impl PrefixMatch {
    /// This prefix alone.
    pub fn exact(prefix: Prefix) -> Self {
        PrefixMatch { prefix, lengths: prefix.len()..=prefix.len() }
    }

    /// The prefix and everything inside it.
    pub fn or_longer(prefix: Prefix) -> Self {
        PrefixMatch { prefix, lengths: prefix.len()..=prefix.family().max_len() }
    }

    /// Whether `prefix` lies in the range.
    pub fn matches(&self, prefix: Prefix) -> bool {
        self.prefix.contains(prefix) && self.lengths.contains(&prefix.len())
    }
}

/// A set of prefix ranges. A clone shares them.
///
/// Ranges are sorted by prefix, and each knows the nearest one before it that covers it. The ranges
/// that cover a given prefix are then the last one that sorts at or before it, if that covers it,
/// and the chain of its parents: prefixes nest, they never overlap in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    sorted: Arc<Sorted>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    ranges: Vec<PrefixMatch>,
    /// Parallel to `ranges`.
    parents: Vec<Option<u32>>,
    /// The ranges of IPv4, which sort first.
    index: Index4,
}

impl PrefixSet {
    /// Everything equal to or inside one of `prefixes`.
    pub fn covering(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        prefixes.into_iter().map(PrefixMatch::or_longer).collect()
    }

    /// These prefixes alone.
    pub fn exactly(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        prefixes.into_iter().map(PrefixMatch::exact).collect()
    }

    /// Whether `prefix` lies in one of the ranges.
    #[inline]
    pub fn contains(&self, prefix: Prefix) -> bool {
        match prefix {
            Prefix::V4(prefix) => self.sorted.index.contains(prefix),
            Prefix::V6(_) => self.sorted.contains(prefix),
        }
    }

    /// The ranges, sorted by prefix.
    pub fn ranges(&self) -> &[PrefixMatch] {
        &self.sorted.ranges
    }
}

impl Sorted {
    fn contains(&self, prefix: Prefix) -> bool {
        let after = self.ranges.partition_point(|r| r.prefix <= prefix);
        let mut at = after.checked_sub(1);
        while let Some((range, parent)) =
            at.and_then(|i| Some((self.ranges.get(i)?, self.parents.get(i)?)))
        {
            if range.matches(prefix) {
                return true;
            }
            at = parent.map(|p| p as usize);
        }
        false
    }
}

/// The ranges of IPv4 in as few octets as possible: every route that a policy with such a condition
/// evaluates reads them at another place.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index4 {
    ranges: Vec<Range4>,
    /// How many of `ranges` sort before the addresses with each value of the first bits, and a last
    /// element: all of them. Empty if there are few ranges.
    buckets: Vec<u32>,
    /// By how many bits an address is shifted for its bucket.
    shift: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range4 {
    bits: u32,
    /// Index of the nearest range that covers it, [`NOTHING`] if none does.
    parent: u32,
    len: u8,
    lengths: (u8, u8),
}

/// No range.
const NOTHING: u32 = u32::MAX;
/// As many ranges are searched without buckets.
const SEARCHED_MAX: usize = 16;
/// At most so many bits choose a bucket: 256 KB.
const BUCKET_BITS_MAX: u32 = 16;

impl Index4 {
    fn new(ranges: &[PrefixMatch], parents: &[Option<u32>]) -> Self {
        let of = |(range, parent): (&PrefixMatch, &Option<u32>)| match range.prefix {
            Prefix::V4(prefix) => Some(Range4 {
                bits: prefix.bits(),
                parent: parent.unwrap_or(NOTHING),
                len: prefix.len(),
                lengths: (*range.lengths.start(), *range.lengths.end()),
            }),
            Prefix::V6(_) => None,
        };
        let ranges: Vec<Range4> = ranges.iter().zip(parents).map_while(of).collect();
        let mut index = Index4 { ranges, ..Index4::default() };
        if index.ranges.len() > SEARCHED_MAX {
            let bits = index.ranges.len().ilog2().min(BUCKET_BITS_MAX);
            index.shift = (32 - bits) as u8;
            let before = |bucket: u32| {
                index.ranges.partition_point(|r| r.bits >> index.shift < bucket) as u32
            };
            index.buckets = (0..=1 << bits).map(before).collect();
        }
        index
    }

    fn contains(&self, prefix: Prefix4) -> bool {
        let (bits, len) = (prefix.bits(), prefix.len());
        let bucket = bits.checked_shr(self.shift.into()).unwrap_or_default() as usize;
        let (from, to) = match self.buckets.get(bucket..bucket + 2) {
            Some(&[from, to]) => (from as usize, to as usize),
            _ => (0, self.ranges.len()),
        };
        let searched = self.ranges.get(from..to).unwrap_or_default();
        let after = from + searched.partition_point(|r| (r.bits, r.len) <= (bits, len));
        let mut at = after.wrapping_sub(1);
        while let Some(range) = self.ranges.get(at) {
            let differing = (bits ^ range.bits).leading_zeros();
            if differing >= range.len.into()
                && (range.lengths.0..=range.lengths.1).contains(&len)
                && range.len <= len
            {
                return true;
            }
            at = range.parent as usize;
        }
        false
    }
}

impl From<Vec<PrefixMatch>> for PrefixSet {
    fn from(mut ranges: Vec<PrefixMatch>) -> Self {
        ranges.sort_by_key(|r| (r.prefix, *r.lengths.start(), *r.lengths.end()));
        ranges.dedup();
        let mut parents = Vec::with_capacity(ranges.len());
        // Indices of the ranges that cover the current one, outermost first.
        let mut open: Vec<usize> = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            while open.last().is_some_and(|o| !ranges[*o].prefix.contains(range.prefix)) {
                open.pop();
            }
            parents.push(open.last().and_then(|o| u32::try_from(*o).ok()));
            open.push(index);
        }
        let index = Index4::new(&ranges, &parents);
        PrefixSet { sorted: Arc::new(Sorted { ranges, parents, index }) }
    }
}

impl FromIterator<PrefixMatch> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixMatch>>(iter: I) -> Self {
        iter.into_iter().collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Prefix4, Prefix6};
    use proptest::prelude::*;

    /// Few distinct addresses, so that prefixes nest and repeat often.
    fn prefix() -> impl Strategy<Value = Prefix> {
        (any::<bool>(), any::<u8>(), 0u8..=12).prop_map(|(six, high, len)| {
            if six {
                Prefix::V6(Prefix6::from_bits(u128::from(high) << 120, len))
            } else {
                Prefix::V4(Prefix4::from_bits(u32::from(high) << 24, len))
            }
        })
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_a_scan(
            ranges in prop::collection::vec((prefix(), 0u8..16, 0u8..16), 0..40),
            asked in prop::collection::vec(prefix(), 1..40),
        ) {
            let ranges: Vec<PrefixMatch> = ranges
                .into_iter()
                .map(|(prefix, a, b)| PrefixMatch { prefix, lengths: a.min(b)..=a.max(b) })
                .collect();
            let set = PrefixSet::from(ranges.clone());
            for prefix in asked {
                let scanned = ranges.iter().any(|r| r.matches(prefix));
                prop_assert_eq!(set.contains(prefix), scanned, "{} in {:?}", prefix, ranges);
            }
        }
    }

    proptest! {
        /// So many that there are buckets, some of them long and some empty.
        #[test]
        fn a_large_set_agrees_with_a_scan(
            ranges in prop::collection::vec((any::<u16>(), 0u8..=32, 0u8..=32, 0u8..=32), 17..400),
            asked in prop::collection::vec((any::<u16>(), any::<u16>(), 0u8..=32), 1..60),
            narrow in any::<bool>(),
        ) {
            // All within one /16 of a few, or all over the address space.
            let kept = if narrow { 0x0103 } else { u16::MAX };
            let address = |high: u16, low: u16| u32::from(high & kept) << 16 | u32::from(low);
            let ranges: Vec<PrefixMatch> = ranges
                .into_iter()
                .map(|(bits, len, a, b)| PrefixMatch {
                    prefix: Prefix::V4(Prefix4::from_bits(address(bits, bits.rotate_left(5)), len)),
                    lengths: a.min(b)..=a.max(b),
                })
                .collect();
            let set = PrefixSet::from(ranges.clone());
            let known = ranges.iter().map(|range| range.prefix);
            let asked = asked.into_iter().map(|(high, low, len)| {
                Prefix::V4(Prefix4::from_bits(address(high, low), len))
            });
            for prefix in asked.chain(known) {
                let scanned = ranges.iter().any(|r| r.matches(prefix));
                prop_assert_eq!(set.contains(prefix), scanned, "{} in {:?}", prefix, ranges);
            }
        }
    }

    #[test]
    fn a_chain_of_parents_is_followed_past_ranges_that_do_not_match() {
        let set = PrefixSet::from(vec![
            PrefixMatch { prefix: "10.0.0.0/8".parse().unwrap(), lengths: 32..=32 },
            PrefixMatch::exact("10.1.0.0/16".parse().unwrap()),
            PrefixMatch::exact("10.1.0.0/24".parse().unwrap()),
        ]);
        assert!(set.contains("10.1.0.7".parse().unwrap()));
        assert!(set.contains("10.1.0.0/16".parse().unwrap()));
        assert!(!set.contains("10.1.0.0/25".parse().unwrap()));
        assert!(!set.contains("11.0.0.1".parse().unwrap()));
        assert!(!set.contains("9.255.255.255".parse().unwrap()));
    }
}
