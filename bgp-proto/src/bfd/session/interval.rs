//! A timer parameter that the peer has to confirm before all of it may be used.

use std::time::Duration;

/// What the packets say, and what is used until the Poll Sequence has ended (RFC 5880 §6.8.3).
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

    /// Returns whether the packets say something else than before.
    pub(super) fn advertise(&mut self, interval: Duration) -> bool {
        std::mem::replace(&mut self.advertised, interval) != interval
    }

    /// The peer knows, or it does not matter yet.
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
