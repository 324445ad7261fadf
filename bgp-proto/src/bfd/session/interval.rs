//! A timer parameter that may not be used in full before the peer has confirmed it.

use std::time::Duration;

/// The value advertised, and the value used until the Poll Sequence has ended (RFC 5880 §6.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    advertised: Duration,
    used: Duration,
}

impl Interval {
    pub(super) const fn new(interval: Duration) -> Interval {
        Interval { advertised: interval, used: interval }
    }

    pub(super) const fn advertised(self) -> Duration {
        self.advertised
    }

    pub(super) const fn used(self) -> Duration {
        self.used
    }

    /// Returns whether the advertised value changed.
    pub(super) fn advertise(&mut self, interval: Duration) -> bool {
        std::mem::replace(&mut self.advertised, interval) != interval
    }

    /// The peer has confirmed the advertised value, or the session is not Up.
    pub(super) fn confirm(&mut self) {
        self.used = self.advertised;
    }

    pub(super) fn use_if_shorter(&mut self) {
        self.used = self.used.min(self.advertised);
    }

    pub(super) fn use_if_longer(&mut self) {
        self.used = self.used.max(self.advertised);
    }
}
