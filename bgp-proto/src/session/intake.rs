//! The budget of connections that come from the peer's address.
//!
//! Whoever has the address can connect: the peer, and everybody who shares it or sits behind it. So a
//! connection costs the session nothing, whatever is said on it, before its OPEN is accepted and the
//! collision decided. What it costs is the next connection's time.

use std::time::Duration;

use crate::types::Time;

/// Connections in quick succession that may come to nothing before the next one waits.
const TOLERATED: u32 = 5;
/// How long each one beyond makes the next one wait, and how soon one of the tolerated is forgiven.
const PAUSE: Duration = Duration::from_secs(1);

/// When the next connection from the peer's address is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intake {
    /// When everything will have been forgiven.
    forgiven: Time,
}

impl Intake {
    pub(super) fn new() -> Self {
        Intake { forgiven: Time::ZERO }
    }

    /// A connection came to nothing, or the session on it broke the protocol.
    pub(super) fn charge(&mut self, now: Time) {
        let most = now + PAUSE * (TOLERATED + 1);
        self.forgiven = (self.forgiven.max(now) + PAUSE).min(most);
    }

    /// Until when a connection waits; `None`: it does not.
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
        // However much came at once, the next one waits a second.
        (0..1000).for_each(|_| intake.charge(now));
        assert_eq!(intake.closed_until(now), Some(now + PAUSE));
        now = now + PAUSE * 6;
        (0..5).for_each(|_| intake.charge(now));
        assert_eq!(intake.closed_until(now), None, "forgiven");
    }
}
