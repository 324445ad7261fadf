//! Time as a value: microseconds since an epoch that the host chose.

use std::time::Duration;

/// A point in time, in microseconds since the host's own epoch (not a wall clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The host's epoch.
    pub const ZERO: Time = Time(0);

    /// A time `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Time(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, rhs: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A deadline that is set or not. Deliberately not `Copy`: an expiry must not be lost in a copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Timer(Option<Time>);

impl Timer {
    /// A timer that is not running.
    pub const fn stopped() -> Self {
        Timer(None)
    }

    /// Starts the timer, replacing an earlier deadline.
    pub fn set(&mut self, at: Time) {
        self.0 = Some(at);
    }

    /// Stops the timer.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// When the timer expires; `None` while it is stopped.
    pub fn deadline(&self) -> Option<Time> {
        self.0
    }

    /// Whether the timer has expired at `now`. The call stops an expired timer.
    pub fn expired(&mut self, now: Time) -> bool {
        match self.0 {
            Some(at) if at <= now => {
                self.0 = None;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_expires_once() {
        let mut timer = Timer::stopped();
        assert!(!timer.expired(Time::from_micros(u64::MAX)));
        timer.set(Time::ZERO + Duration::from_secs(1));
        assert!(!timer.expired(Time::from_micros(999_999)));
        assert!(timer.expired(Time::from_micros(1_000_000)));
        assert!(!timer.expired(Time::from_micros(1_000_001)));
        assert_eq!(timer.deadline(), None);
    }

    #[test]
    fn time_saturates() {
        let end = Time::from_micros(u64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Time::ZERO.since(end), Duration::ZERO);
    }
}
