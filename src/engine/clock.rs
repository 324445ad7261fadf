//! The one place where the operating system's clocks are converted to [`Time`].

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

    /// The current time.
    pub fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// The moment `at` in the form that the runtime's timers take.
    pub fn instant(&self, at: Time) -> Instant {
        self.epoch + Duration::from_micros(at.as_micros())
    }

    /// The moment `at` on the wall clock as it is set at present: after the wall clock is set, or
    /// stepped by NTP, earlier moments are shown as if it had been correct then.
    pub fn wall(&self, at: Time) -> SystemTime {
        let at = Duration::from_micros(at.as_micros());
        stepped(self.wall, SystemTime::now(), self.epoch.elapsed()) + at
    }
}

/// The wall-clock time of the epoch, given that the wall clock showed `wall` then and shows `now`
/// after `elapsed`. The difference is rounded to tenths of a second: a step of the clock is taken
/// into account, the jitter between reading two clocks is not, so that a given moment is always
/// shown as the same time.
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
