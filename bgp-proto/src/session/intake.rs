//! Rate limit for connections from the peer's address.
//!
//! Not only the peer can connect from its address: other processes and hosts may share it. So a
//! connection does not affect the session, whatever is received on it, until its OPEN is accepted
//! and the collision is decided. It delays the next connection only.

use std::time::Duration;

use crate::types::Time;

/// Failed connections in quick succession that are tolerated before the next one is delayed.
const TOLERATED: u32 = 5;
/// Delay that each further one imposes on the next, and time after which one is forgiven.
const PAUSE: Duration = Duration::from_secs(1);

/// When the next connection from the peer's address is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intake {
    /// When everything will have been forgiven.
    forgiven: Time,
}

impl Intake {
    pub(super) fn new() -> Self {
        Intake { forgiven: Time::ZERO }
    }

    /// A connection ended without becoming the session, or the session on it violated the protocol.
    pub(super) fn charge(&mut self, now: Time) {
        let most = now + PAUSE * (TOLERATED + 1);
        self.forgiven = (self.forgiven.max(now) + PAUSE).min(most);
    }

    /// Until when a new connection is delayed; `None`: it is not.
    pub(super) fn closed_until(&self, now: Time) -> Option<Time> {
        let ahead = self.forgiven.since(now);
        let wait = ahead.saturating_sub(PAUSE * TOLERATED);
        (!wait.is_zero()).then(|| now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_tolerated_and_then_one_comes_each_second() {
        let mut intake = Intake::new();
        let mut now = Time::ZERO + Duration::from_secs(100);
        for _ in 0..5 {
            intake.charge(now);
            assert_eq!(intake.closed_until(now), None);
        }
        for _ in 0..20 {
            intake.charge(now);
            assert_eq!(intake.closed_until(now), Some(now + PAUSE));
            now = now + PAUSE;
            assert_eq!(intake.closed_until(now), None);
        }
        // However many came at once, the next one waits a second.
        (0..1000).for_each(|_| intake.charge(now));
        assert_eq!(intake.closed_until(now), Some(now + PAUSE));
        now = now + PAUSE * 6;
        (0..5).for_each(|_| intake.charge(now));
        assert_eq!(intake.closed_until(now), None, "forgiven");
    }
}
