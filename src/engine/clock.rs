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

    /// The moment on the wall clock as it is set at present: when somebody sets it, or NTP steps it,
    /// earlier moments are shown as if it had been right then.
    pub fn wall(&self, at: Time) -> SystemTime {
        let at = Duration::from_micros(at.as_micros());
        stepped(self.wall, SystemTime::now(), self.epoch.elapsed()) + at
    }
}

/// The wall clock's reading at the epoch, which was `wall` by what it showed then, if it shows `now`
/// when `elapsed` has passed. Steps count, in tenths of a second; what lies between two readings of two
/// clocks does not, so that a moment is always shown alike.
fn stepped(wall: SystemTime, now: SystemTime, elapsed: Duration) -> SystemTime {
    const STEP: u128 = 100;
    let round = |d: Duration| {
        let steps = (d.as_millis() + STEP / 2) / STEP;
        Duration::from_millis(u64::try_from(steps * STEP).unwrap_or(u64::MAX))
    };
    match now.duration_since(wall + elapsed) {
        Ok(ahead) => wall + round(ahead),
        Err(behind) => wall.checked_sub(round(behind.duration())).unwrap_or(wall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_every_moment_and_jitter_moves_none() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (elapsed, hour) = (Duration::from_secs(50), Duration::from_secs(3600));
        let jitter = Duration::from_micros(37);
        assert_eq!(stepped(wall, wall + elapsed + jitter, elapsed), wall);
        assert_eq!(stepped(wall, wall + elapsed - jitter, elapsed), wall);
        assert_eq!(stepped(wall, wall + elapsed + hour + jitter, elapsed), wall + hour);
        assert_eq!(stepped(wall, wall + elapsed - hour - jitter, elapsed), wall - hour);
    }

    #[test]
    fn time_goes_forward_and_maps_back() {
        let clock = Clock::start();
        let now = clock.now();
        assert!(now.as_secs() >= 1);
        assert!(clock.now() >= now);
        assert!(clock.instant(now) <= Instant::now());
    }
}
