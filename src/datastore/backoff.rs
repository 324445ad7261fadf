//! Exponential back-off between attempts, with jitter.

use std::time::Duration;

/// The pause after an attempt that failed.
///
/// Its upper bound doubles from `first` to `most` with each round through all endpoints. The pause
/// is a random value in the upper half of that range, so that a thousand nodes that lost one etcd
/// do not return in step. `random` is a fraction of 2^32.
pub(super) fn pause(
    first: Duration,
    most: Duration,
    failures: u32,
    endpoints: usize,
    random: u32,
) -> Duration {
    let endpoints = u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX);
    let rounds = failures.saturating_sub(1) / endpoints;
    let whole = first.saturating_mul(1u32.checked_shl(rounds).unwrap_or(u32::MAX)).min(most);
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(15);

    #[test]
    fn the_pause_doubles_with_each_round_up_to_the_maximum() {
        let longest = |failures, endpoints| pause(FIRST, MOST, failures, endpoints, u32::MAX);
        assert_eq!([1, 2, 3].map(|f| longest(f, 1).as_millis()), [500, 1000, 2000]);
        assert_eq!([1, 3, 4, 7].map(|f| longest(f, 3).as_millis()), [500, 500, 1000, 2000]);
        assert_eq!(longest(6, 1), MOST);
        assert_eq!(longest(u32::MAX, 1), MOST);
        assert_eq!(pause(FIRST, MOST, 1, 1, 0).as_millis(), 250);
    }

    proptest! {
        #[test]
        fn the_pause_is_never_zero_and_never_above_the_maximum(
            failures: u32, endpoints in 0usize..9, random: u32,
        ) {
            let pause = pause(FIRST, MOST, failures, endpoints, random);
            prop_assert!(pause >= FIRST / 2 && pause <= MOST);
        }
    }
}
