//! The one place where the world's clocks become [`Time`].

use std::time::{Duration, Instant, SystemTime};

use bgp_proto::types::Time;

/// The process's clock: monotonic, with the wall clock's reading at its epoch.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    wall: SystemTime,
}

impl Clock {
    /// A clock whose epoch is one second ago, so that no event has time zero.
    pub fn start() -> Self {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        Clock { epoch: now.checked_sub(second).unwrap_or(now), wall: SystemTime::now() - second }
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// The moment as the runtime's timers want it.
    pub fn instant(&self, at: Time) -> Instant {
        self.epoch + Duration::from_micros(at.as_micros())
    }

    /// The moment on the wall clock, as read at start.
    pub fn wall(&self, at: Time) -> SystemTime {
        self.wall + Duration::from_micros(at.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_maps_back() {
        let clock = Clock::start();
        let now = clock.now();
        assert!(now.as_secs() >= 1);
        assert!(clock.now() >= now);
        assert!(clock.instant(now) <= Instant::now());
    }
}
