//! How long to wait before a kind is requested again.

use std::time::Duration;

use super::failure::Failure;
use super::random::Random;
use crate::datastore::backoff;

/// First pause after a failure; it doubles until [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause after a failure that may end at any moment.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// First and longest pause after 403.
const FORBIDDEN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// Average pause after 404; at random between half of it and one and a half.
const MISSING: Duration = Duration::from_secs(30);
/// After this many failures in a row, about ten minutes, the pause after 404 is [`MISSING_LONG`].
const MISSING_OFTEN: u32 = 20;
/// Pause after many times 404.
const MISSING_LONG: Duration = Duration::from_secs(300);
/// Lists that one event causes on every node are spread over this time.
const SPREAD: Duration = Duration::from_secs(5);
/// A longer `Retry-After` is reduced to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the `failures`-th failure in a row, the last `alike` of which were of
/// this kind.
///
/// A server that has just started answers 403 until it has read the roles: earlier failures for
/// other reasons do not lengthen that pause. From the second minute on, a failure that persists
/// costs at most ten requests per minute.
pub(super) fn pause(failure: &Failure, failures: u32, alike: u32, random: &Random) -> Duration {
    let growing = || backoff::pause(PAUSE, PAUSE_MAX, failures, 1, random.bits());
    match failure {
        Failure::Busy(after) | Failure::VersionTooLarge(after) => {
            let after = after.unwrap_or(Duration::from_secs(1)).min(RETRY_AFTER_MAX);
            random.between(after, after * 2).max(growing())
        }
        Failure::Forbidden(_) => {
            let [first, most] = FORBIDDEN;
            backoff::pause(first, most, alike, 1, u32::MAX)
        }
        Failure::NotFound if failures > MISSING_OFTEN => MISSING_LONG,
        Failure::NotFound => random.between(MISSING / 2, MISSING * 3 / 2),
        // The first in a row: every node may have received the same at once.
        Failure::Expired if failures <= 1 => spread(random),
        Failure::Lost(_) | Failure::WentBack if failures <= 1 => Duration::ZERO,
        _ => growing(),
    }
}

/// A random pause of at most [`SPREAD`].
pub(super) fn spread(random: &Random) -> Duration {
    random.between(Duration::ZERO, SPREAD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failures() -> impl Strategy<Value = Failure> {
        let after = || prop::option::of((0u64..4000).prop_map(Duration::from_secs));
        prop_oneof![
            Just(Failure::Lost(String::new())),
            Just(Failure::Silent("x", Duration::ZERO)),
            Just(Failure::Unauthorized(String::new())),
            Just(Failure::Forbidden(String::new())),
            Just(Failure::NotFound),
            Just(Failure::Expired),
            after().prop_map(Failure::VersionTooLarge),
            after().prop_map(Failure::Busy),
            Just(Failure::Refused(422, String::new())),
            Just(Failure::Server(503, String::new())),
            Just(Failure::NotKubernetes(String::new())),
            Just(Failure::EndedAtOnce),
            Just(Failure::WentBack),
        ]
    }

    #[test]
    fn the_pause_after_403_does_not_grow_with_other_failures() {
        let random = Random::seeded(1);
        let forbidden = Failure::Forbidden(String::new());
        assert!(pause(&forbidden, 40, 1, &random) <= FORBIDDEN[0]);
        assert_eq!(pause(&forbidden, 40, 40, &random), FORBIDDEN[1]);
    }

    proptest! {
        /// At most twelve requests in the first minute and ten in each later one, and no pause of
        /// more than five minutes.
        #[test]
        fn a_failure_that_persists_costs_few_requests(failure in failures(), seed: u64) {
            let random = Random::seeded(seed);
            let minute = Duration::from_secs(60);
            let (mut now, mut counts) = (Duration::ZERO, [0u32; 5]);
            for failed in 1.. {
                let Some(count) = counts.get_mut(usize::try_from(now.as_secs() / 60).unwrap()) else { break };
                *count += 1;
                let pause = pause(&failure, failed, failed, &random);
                prop_assert!(pause <= minute * 5);
                now += pause;
            }
            prop_assert!(counts[0] <= 12, "{counts:?}");
            prop_assert!(counts[1..].iter().all(|count| *count <= 10), "{counts:?}");
        }
    }
}
