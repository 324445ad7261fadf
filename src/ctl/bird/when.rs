//! Formats times as BIRD does: in local time, in a short form if they are recent.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Times of at least this age are shown as a date instead of a time of day.
const RECENT: Duration = Duration::from_secs(20 * 3600);

/// The current time and the time zone that times are written in.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    now: SystemTime,
}

impl Clock {
    /// The current time in the host's time zone.
    pub(crate) fn host() -> Self {
        Clock { zone: TimeZone::system(), now: SystemTime::now() }
    }

    /// The time that ages are relative to.
    pub(crate) fn now(&self) -> SystemTime {
        self.now
    }

    #[cfg(test)]
    pub(crate) fn utc(now: SystemTime) -> Self {
        Clock { zone: TimeZone::UTC, now }
    }

    /// `2026-11-23 05:12:49`.
    pub(crate) fn long(&self, at: SystemTime) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S")
    }

    /// `05:12:49`, or `2026-11-22` if it is not [`RECENT`].
    pub(super) fn short(&self, at: SystemTime) -> String {
        let age = self.now.duration_since(at).unwrap_or_default();
        self.format(at, if age < RECENT { "%H:%M:%S" } else { "%Y-%m-%d" })
    }

    fn format(&self, at: SystemTime, format: &str) -> String {
        // Times outside the years -9999 to 9999 have no date; only a wrong clock yields them.
        let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned(self.zone.clone()).strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_older_than_20_hours_are_shown_as_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_410_769);
        let clock = Clock::utc(now);
        assert_eq!(clock.long(now), "2026-11-23 05:12:49");
        assert_eq!(clock.short(now), "05:12:49");
        assert_eq!(clock.short(now - RECENT + Duration::from_secs(1)), "09:12:50");
        assert_eq!(clock.short(now - RECENT), "2026-11-22");
        assert_eq!(clock.short(now + Duration::from_secs(5)), "05:12:54", "the clock was set back");
    }

    #[test]
    fn times_are_local() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_410_769);
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(Clock { zone, now }.long(now), "2026-11-23 06:12:49");
    }
}
