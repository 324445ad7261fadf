//! The pace of turns: how much work makes a turn of the intended length.

use std::time::Duration;

use super::Work;

/// Intended duration of a turn that has enough to do.
const TURN: Duration = Duration::from_millis(2);
/// Minimum work from which the pace is learned: less is not measurable.
const LEARNED_FROM: u32 = 1_000;
/// Nanoseconds that a unit may take. Beyond the upper bound, something else was measured. Below the
/// lower one, turns get no longer: the next one may meet work of another kind, of which a unit
/// takes several times as long.
const UNIT_NANOS: std::ops::RangeInclusive<u64> = 100..=800;

/// How long a unit of work takes on this machine, at present. Kept by the host, which has the
/// clock.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    unit_nanos: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { unit_nanos: *UNIT_NANOS.start() }
    }
}

impl Pace {
    /// The budget of the next turn.
    pub fn budget(&self) -> Work {
        Work((TURN.as_nanos() as u64 / self.unit_nanos) as u32)
    }

    /// Learns from a turn that did `done` in the time `took`. A slow turn counts at once, fast ones
    /// gradually: a turn that is too long is worse than many that are too short.
    pub fn learn(&mut self, done: Work, took: Duration) {
        if done.0 < LEARNED_FROM {
            return;
        }
        let seen = (took.as_nanos() as u64 / u64::from(done.0))
            .clamp(*UNIT_NANOS.start(), *UNIT_NANOS.end());
        let known = self.unit_nanos;
        self.unit_nanos = if seen > known { (known + seen) / 2 } else { (known * 15 + seen) / 16 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_little_work_and_a_fast_one_no_more_than_a_turn() {
        let mut pace = Pace::default();
        assert_eq!(pace.budget(), Work::TURN);
        pace.learn(Work(20_000), Duration::from_millis(10));
        assert!(pace.budget() < Work(10_000));
        for _ in 0..200 {
            pace.learn(pace.budget(), Duration::from_micros(u64::from(pace.budget().0) / 20));
        }
        assert!(pace.budget() > Work(17_000) && pace.budget() <= Work::TURN);
        // A turn too short to measure changes nothing, and one that was interrupted not much.
        let before = pace.budget();
        pace.learn(Work(3), Duration::from_secs(1));
        assert_eq!(pace.budget(), before);
        pace.learn(Work(2_000), Duration::from_secs(1));
        assert!(pace.budget() >= Work(2_500));
    }
}
