//! The budget and the result of a turn.

use std::ops::{Add, Sub};

/// An amount of work, in units of about 100 ns on one core of the year 2020. The table has no
/// clock: it charges itself for what it does by estimates, and the host, which measures turns,
/// gives each a budget that takes as long as it wants a turn to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work(pub u32);

impl Work {
    /// About two milliseconds.
    pub const TURN: Work = Work(20_000);
    /// No limit.
    pub const UNLIMITED: Work = Work(u32::MAX);
}

impl Add for Work {
    type Output = Work;

    fn add(self, rhs: Work) -> Work {
        Work(self.0.saturating_add(rhs.0))
    }
}

impl Sub for Work {
    type Output = Work;

    fn sub(self, rhs: Work) -> Work {
        Work(self.0.saturating_sub(rhs.0))
    }
}

/// What a turn did, and whether another one is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a turn that left work must be followed by another"]
pub struct Progress {
    /// Work done.
    pub done: Work,
    /// Of it, spent on import of what peers sent.
    pub inputs: Work,
    /// Of it, spent on the decision process.
    pub decision: Work,
    /// Of it, spent on export.
    pub export: Work,
    /// Destinations that the decision process examined.
    pub decided: u32,
    /// When the next turn is due.
    pub next: NextTurn,
}

/// When the next turn is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextTurn {
    /// At once: work is left.
    Now,
    /// With the next input, wake-up or deadline.
    #[default]
    WhenWoken,
}
