//! Pseudo-random numbers from a seed (SplitMix64), for jitter and the first sequence number.

use std::num::NonZeroU8;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Applies jitter, RFC 5880 §6.8.7: 75-100 % of the interval, or 75-90 % if the multiplier is
    /// 1.
    pub(super) fn spread(&mut self, interval: Duration, multiplier: NonZeroU8) -> Duration {
        let range = if multiplier == NonZeroU8::MIN { 150 } else { 250 };
        interval * (750 + self.next_u32() % (range + 1)) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_uses_it() {
        let mut random = Random::new(1);
        for (multiplier, bounds) in [(1, 750..=900), (2, 750..=1000), (255, 750..=1000)] {
            let multiplier = NonZeroU8::new(multiplier).unwrap();
            let drawn: Vec<u128> = (0..10_000)
                .map(|_| random.spread(Duration::from_secs(1), multiplier).as_millis())
                .collect();
            assert_eq!(*drawn.iter().min().unwrap(), *bounds.start());
            assert_eq!(*drawn.iter().max().unwrap(), *bounds.end());
        }
    }
}
