//! Sets of prefix ranges, with one binary search per lookup however many ranges there are.

use std::ops::RangeInclusive;

use crate::types::Prefix;

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

/// A set of prefix ranges.
///
/// Ranges are sorted by prefix, and each knows the nearest one before it that covers it. The ranges
/// that cover a given prefix are then the last one that sorts at or before it, if that covers it,
/// and the chain of its parents: prefixes nest, they never overlap in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    ranges: Vec<PrefixMatch>,
    /// Parallel to `ranges`.
    parents: Vec<Option<u32>>,
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
    pub fn contains(&self, prefix: Prefix) -> bool {
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

    /// The ranges, sorted by prefix.
    pub fn ranges(&self) -> &[PrefixMatch] {
        &self.ranges
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
        PrefixSet { ranges, parents }
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
