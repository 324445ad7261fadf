//! Durations of the state machine, jitter and back-off.
//!
//! | timer      | set by                                   | stopped by            | on expiry |
//! |------------|------------------------------------------|-----------------------|-----------|
//! | retry      | a failed attempt or a lost connection    | dialling, Established | dial      |
//! | connect    | [`Action::Connect`](super::Action)       | the attempt's result  | abort, back off |
//! | idle hold  | an exceeded limit                        | `Start`, `Stop`       | dial      |
//! | hold       | OPEN sent (4 min, or 30 s if the peer dialled); KEEPALIVE and UPDATE received | end of connection | 4/0 |
//! | keepalive  | OPEN accepted; its own expiry            | end of connection     | KEEPALIVE (the first one, if withheld: [`collision`](super::collision)) |
//! | send hold  | the host, when TCP accepts nothing       | the host, on progress | reset     |

use std::time::Duration;

use super::{Redial, Slot};
use crate::types::Time;

/// How long a peer that we dialled may take to send its OPEN (RFC 4271 §8.2.2: "a large value").
const OPEN_HOLD_TIME_DIALLED: Duration = Duration::from_secs(240);
/// Differs from RFC: how long a connection from the peer's address may take to send its OPEN. A
/// speaker has its OPEN ready when it dials, and if it delays it (RFC 4271 §8.1.1), ours ends the
/// delay; a silent connection does not come from the peer.
const OPEN_HOLD_TIME_ACCEPTED: Duration = Duration::from_secs(30);
/// How long an attempt to connect may take: Linux has sent four SYNs by then.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// A session that lasted this long resets the count of failures.
pub(super) const STABLE_TIME: Duration = Duration::from_secs(60);
/// RFC 9687 §3.2: the default is the larger of this and twice the hold time.
const SEND_HOLD_TIME_MIN: Duration = Duration::from_secs(480);
/// Shortest delay between attempts, whatever is configured.
const RETRY_TIME_MIN: Duration = Duration::from_secs(1);
/// Growth of the delay ends at this multiple of the configured one.
const RETRY_FACTOR_MAX: u32 = 8;

/// How long to wait for the OPEN on a connection.
pub(super) fn open_hold_time(slot: Slot) -> Duration {
    match slot {
        Slot::Outgoing => OPEN_HOLD_TIME_DIALLED,
        Slot::Incoming | Slot::Reconnect => OPEN_HOLD_TIME_ACCEPTED,
    }
}

/// The send hold time of a session; `None` turns it off.
pub(super) fn send_hold_time(configured: Option<Duration>, hold: Duration) -> Option<Duration> {
    if hold.is_zero() {
        return None;
    }
    match configured {
        None => Some(SEND_HOLD_TIME_MIN.max(hold.saturating_mul(2))),
        Some(Duration::ZERO) => None,
        // RFC 9687 §3.2: greater than the hold time.
        Some(time) => Some(time.max(hold.saturating_add(Duration::from_secs(1)))),
    }
}

/// Seeded pseudo-random numbers (SplitMix64) for jitter.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `time` times a factor between 0.75 and 1.0 (RFC 4271 §10).
    pub(super) fn spread(&mut self, time: Duration) -> Duration {
        let thousandths = 750 + u32::try_from(self.next() % 251).unwrap_or(0);
        time.saturating_mul(thousandths) / 1000
    }
}

/// ConnectRetryCounter and what follows from it (RFC 4271 §8.1.1, DampPeerOscillations).
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    base: Duration,
    redial: Redial,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(connect_retry_time: Duration, redial: Redial) -> Self {
        Backoff { base: connect_retry_time.max(RETRY_TIME_MIN), redial, failures: 0 }
    }

    /// Replaces the configured retry time, from the next failure on.
    pub(super) fn set_base(&mut self, connect_retry_time: Duration) {
        self.base = connect_retry_time.max(RETRY_TIME_MIN);
    }

    /// How long an attempt to connect may take.
    pub(super) fn connect_time(&self) -> Duration {
        match self.redial {
            Redial::BackOff => CONNECT_TIME,
            Redial::Steady => CONNECT_TIME.min(self.base),
        }
    }

    /// An attempt or a session failed.
    pub(super) fn count_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// When to dial next, after an attempt or a session that failed `now`. A steady pace is
    /// measured from `since`, when the attempt began: an attempt that was not answered has used up
    /// its delay.
    pub(super) fn retry_at(&self, since: Time, now: Time, jitter: &mut Jitter) -> Time {
        let max = self.base.saturating_mul(RETRY_FACTOR_MAX);
        let delay = match self.redial {
            Redial::BackOff => {
                (1..self.failures.min(8)).fold(self.base, |d, _| d.saturating_mul(3) / 2).min(max)
            }
            Redial::Steady => match self.failures {
                0 | 1 => RETRY_TIME_MIN,
                2 => self.base.min(RETRY_TIME_MIN * 2),
                _ => self.base,
            },
        };
        match self.redial {
            Redial::BackOff => now + jitter.spread(delay),
            Redial::Steady => (since + jitter.spread(delay)).max(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_by_half_up_to_eight_times_and_forgets() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Redial::BackOff);
        let mut jitter = Jitter::new(7);
        let mut last = Duration::ZERO;
        for failure in 1..=20 {
            backoff.count_failure();
            let delay = backoff.retry_at(Time::ZERO, Time::ZERO, &mut jitter).since(Time::ZERO);
            let exact = (10.0 * 1.5f64.powi(failure - 1)).min(80.0);
            let ratio = delay.as_secs_f64() / exact;
            assert!((0.749..=1.0).contains(&ratio), "failure {failure}: {delay:?}");
            last = delay;
        }
        assert!(last >= Duration::from_secs(60));
        backoff.reset();
        assert!(
            backoff.retry_at(Time::ZERO, Time::ZERO, &mut jitter)
                <= Time::ZERO + Duration::from_secs(10)
        );
    }

    #[test]
    fn a_delay_of_zero_is_raised_to_the_minimum() {
        let backoff = Backoff::new(Duration::ZERO, Redial::BackOff);
        let at = backoff.retry_at(Time::ZERO, Time::ZERO, &mut Jitter::new(1));
        assert!(at.since(Time::ZERO) >= Duration::from_millis(750));
    }

    #[test]
    fn send_hold_time_follows_rfc_9687() {
        let secs = Duration::from_secs;
        assert_eq!(send_hold_time(None, secs(90)), Some(secs(480)));
        assert_eq!(send_hold_time(None, secs(300)), Some(secs(600)));
        assert_eq!(send_hold_time(None, secs(0)), None);
        assert_eq!(send_hold_time(Some(secs(0)), secs(90)), None);
        assert_eq!(send_hold_time(Some(secs(100)), secs(90)), Some(secs(100)));
        assert_eq!(send_hold_time(Some(secs(10)), secs(90)), Some(secs(91)));
    }

    #[test]
    fn jitter_covers_its_range_and_depends_on_the_seed_only() {
        let mut a = Jitter::new(42);
        let mut b = Jitter::new(42);
        let draws: Vec<_> = (0..1000).map(|_| a.spread(Duration::from_secs(100))).collect();
        assert!(draws.iter().all(|d| (75..=100).contains(&d.as_secs())));
        assert!(draws.iter().any(|d| d.as_secs() < 77) && draws.iter().any(|d| d.as_secs() > 97));
        assert!(draws.iter().all(|d| *d == b.spread(Duration::from_secs(100))));
    }
}
