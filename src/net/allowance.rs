//! Limits how often a peer may send messages that give the table nothing to do.
//!
//! Route batches need credit, so a peer that floods routes is slowed down. KEEPALIVEs,
//! ROUTE-REFRESH for families that were not negotiated, and UPDATEs without a usable prefix need
//! none: read as fast as they arrive, they would occupy a processor core for as long as they are
//! sent.

use std::time::Duration;

use bgp_proto::types::Time;

/// The cost of one such message: 1,000 per second are allowed. A speaker sends one KEEPALIVE per
/// third of the hold time, and everything else much less often.
const COST: Duration = Duration::from_millis(1);
/// The accumulated cost beyond which reading pauses.
const BURST: Duration = Duration::from_secs(8);
/// How long one pause in reading lasts: short compared with the shortest hold time, 3 s.
const REST: Duration = Duration::from_millis(500);

/// One peer's allowance, as a leaky bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    paid_at: Time,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Allowance { paid_at: Time::ZERO }
    }

    /// Charges for messages that gave the table nothing to do. Returns until when reading must
    /// pause, if it must.
    pub(super) fn charge(&mut self, now: Time, messages: u64) -> Option<Time> {
        if messages == 0 {
            return None;
        }
        let cost = COST.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
        let owed = self.paid_at.since(now).saturating_add(cost);
        // Cost beyond one pause is forgiven, so that reading continues, a little at a time.
        self.paid_at = now + owed.min(BURST + REST);
        (owed > BURST).then(|| now + REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_speaker_is_never_paused_and_a_flood_is_read_in_small_pieces() {
        let mut allowance = Allowance::new();
        let mut now = Time::ZERO + Duration::from_secs(9);
        // Hold time 3 s, and an unusable ROUTE-REFRESH now and then.
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
    fn messages_with_work_for_the_table_cost_nothing() {
        let mut allowance = Allowance::new();
        assert_eq!(allowance.charge(Time::ZERO, 0), None);
        assert_eq!(allowance.charge(Time::ZERO, u64::MAX), Some(Time::ZERO + REST));
    }
}
