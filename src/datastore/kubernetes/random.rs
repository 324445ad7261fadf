//! Jitter, so that thousands of nodes do not send requests at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of random numbers.
#[derive(Debug)]
pub(super) struct Random {
    seed: RandomState,
    count: AtomicU64,
    fixed: Option<u64>,
}

impl Random {
    /// Seeded by the process.
    pub(super) fn of_process() -> Self {
        Random { seed: RandomState::new(), count: AtomicU64::new(0), fixed: None }
    }

    /// The same sequence for the same seed.
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Self {
        Random { fixed: Some(seed), ..Random::of_process() }
    }

    /// 32 random bits.
    pub(super) fn bits(&self) -> u32 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let hash = match self.fixed {
            None => self.seed.hash_one(count),
            // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
            Some(seed) => {
                let mut z = seed.wrapping_add((count + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        };
        u32::try_from(hash >> 32).unwrap_or(u32::MAX)
    }

    /// A duration between `least` and `most`, uniformly distributed.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        let share = f64::from(self.bits()) / f64::from(u32::MAX);
        least + most.saturating_sub(least).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lie_between_the_bounds_and_differ() {
        for random in [Random::of_process(), Random::seeded(1)] {
            let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
            let drawn: Vec<Duration> = (0..100).map(|_| random.between(least, most)).collect();
            assert!(drawn.iter().all(|d| *d >= least && *d <= most));
            assert!(drawn.iter().any(|d| *d < least + Duration::from_millis(300)));
            assert!(drawn.iter().any(|d| *d > most - Duration::from_millis(300)));
        }
    }
}
