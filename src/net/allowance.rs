//! How often a peer may say what leaves nothing for the table.
//!
//! Routes take credit, so whoever floods them waits. KEEPALIVEs, refreshes of families that the
//! session does not have, UPDATEs without a prefix of ours take none: read as fast as they come, they
//! would fill a processor core for as long as they are sent.

use std::time::Duration;

use bgp_proto::types::Time;

/// What one such message costs: a thousand a second are paid for. A speaker sends one KEEPALIVE in a
/// third of the hold time, and everything else much less often.
const COST: Duration = Duration::from_millis(1);
/// How much may be owed before nothing is read for a while.
const BURST: Duration = Duration::from_secs(8);
/// How long nothing is read at a time: short beside the shortest hold time.
const REST: Duration = Duration::from_millis(500);

/// One peer's account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    paid_at: Time,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Allowance { paid_at: Time::ZERO }
    }

    /// Charges messages that left nothing. Returns until when nothing more is to be read.
    pub(super) fn charge(&mut self, now: Time, messages: u64) -> Option<Time> {
        if messages == 0 {
            return None;
        }
        let cost = COST.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
        let owed = self.paid_at.since(now).saturating_add(cost);
        // What is beyond a rest is forgiven: reading goes on, a little at a time.
        self.paid_at = now + owed.min(BURST + REST);
        (owed > BURST).then(|| now + REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_never_rests_and_a_flood_is_taken_in_small_pieces() {
        let mut allowance = Allowance::new();
        let mut now = Time::ZERO + Duration::from_secs(9);
        // Hold time 3 s, and a refresh of something else now and then.
        for _ in 0..10_000 {
            now = now + Duration::from_millis(750);
            assert_eq!(allowance.charge(now, 2), None);
        }
        assert_eq!(allowance.charge(now, 7000), None, "a burst is nothing");
        let mut reads = 0;
        let end = now + Duration::from_secs(10);
        while now < end {
            reads += 1;
            // One read of 128 KiB of KEEPALIVEs.
            now = allowance.charge(now, 6898).unwrap_or(now);
        }
        assert!((18..=24).contains(&reads), "{reads} reads in ten seconds");
        now = now + BURST + REST;
        assert_eq!(allowance.charge(now, 7000), None, "forgiven");
    }

    #[test]
    fn what_leaves_something_costs_nothing() {
        let mut allowance = Allowance::new();
        assert_eq!(allowance.charge(Time::ZERO, 0), None);
        assert_eq!(allowance.charge(Time::ZERO, u64::MAX), Some(Time::ZERO + REST));
    }
}
