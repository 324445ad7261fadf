//! When routes that another process deleted or changed are written again.

use std::collections::BTreeMap;
use std::time::Duration;

use bgp_proto::types::Time;

/// First and longest wait before a route is written again. It doubles while another process keeps
/// removing that route, so that such a fight costs little; other prefixes are not delayed.
pub(super) const REPAIR_MIN: Duration = Duration::from_millis(20);
const REPAIR_MAX: Duration = Duration::from_secs(10);

/// A prefix that is left alone for twice its wait plus this time starts with the first wait again.
const QUIET: Duration = Duration::from_secs(1);

/// Maximum number of prefixes with a wait of their own. Those beyond share one.
const REMEMBERED_MAX: usize = 1 << 16;

/// The prefixes of one family that wait for a repair, and those repaired recently.
#[derive(Debug)]
pub(super) struct Repairs<K> {
    /// In the order in which they are due.
    waiting: BTreeMap<(Time, K), Wait>,
    lately: BTreeMap<K, Fight>,
    /// The wait shared by prefixes for which `lately` has no room.
    others: Option<Fight>,
    /// When quiet entries were last removed from `lately`.
    cleared: Time,
}

/// Whether a repair is part of a fight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first in a while.
    First,
    /// The route was removed again soon after it had been written.
    Longer,
}

/// The last repair of a prefix, and its wait.
#[derive(Clone, Copy, Debug)]
struct Fight {
    delay: Duration,
    due: Time,
    wait: Wait,
}

impl Fight {
    /// The next repair after the last one.
    fn after(last: Option<Fight>, now: Time) -> Fight {
        let (delay, wait) = match last.filter(|last| !last.is_quiet(now)) {
            Some(last) => ((last.delay * 2).min(REPAIR_MAX), Wait::Longer),
            None => (REPAIR_MIN, Wait::First),
        };
        Fight { delay, due: now + delay, wait }
    }

    fn is_quiet(&self, now: Time) -> bool {
        now.since(self.due) > self.delay * 2 + QUIET
    }
}

/// The repairs that became due.
#[derive(Debug)]
pub(super) struct Due<K> {
    pub(super) keys: Vec<K>,
    /// How many of them are the first in a while.
    pub(super) first: usize,
}

impl<K> Default for Repairs<K> {
    fn default() -> Self {
        Repairs {
            waiting: BTreeMap::new(),
            lately: BTreeMap::new(),
            others: None,
            cleared: Time::ZERO,
        }
    }
}

impl<K: Copy + Ord> Repairs<K> {
    /// Schedules the repair of `key`. The caller ensures that no key is scheduled twice.
    pub(super) fn schedule(&mut self, key: K, now: Time) {
        self.clear(now);
        let known = self.lately.get(&key).copied();
        let fight = if known.is_some() || self.lately.len() < REMEMBERED_MAX {
            let fight = Fight::after(known, now);
            self.lately.insert(key, fight);
            fight
        } else {
            // The routes of one flush share a wait; only the next flush counts as a fight.
            if self.others.is_none_or(|others| others.due <= now) {
                self.others = Some(Fight::after(self.others, now));
            }
            self.others.unwrap_or_else(|| Fight::after(None, now))
        };
        self.waiting.insert((fight.due, key), fight.wait);
    }

    /// Removes and returns the repairs that are due.
    pub(super) fn take_due(&mut self, now: Time) -> Due<K> {
        let mut due = Due { keys: Vec::new(), first: 0 };
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, key), wait) = entry.remove_entry();
            due.first += usize::from(wait == Wait::First);
            due.keys.push(key);
        }
        due
    }

    /// Removes and returns all repairs, due or not.
    pub(super) fn take_all(&mut self) -> Vec<K> {
        std::mem::take(&mut self.waiting).into_keys().map(|(_, key)| key).collect()
    }

    /// When the next is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    fn clear(&mut self, now: Time) {
        let full = self.lately.len() >= REMEMBERED_MAX;
        if now.since(self.cleared) > REPAIR_MAX || (full && now.since(self.cleared) > QUIET) {
            self.lately.retain(|_, fight| !fight.is_quiet(now));
            self.cleared = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_fight_about_one_prefix_delays_no_other() {
        let mut repairs = Repairs::default();
        let (mut now, mut rounds) = (0, 0);
        while now < 60_000 {
            repairs.schedule(1, at(now));
            now = repairs.deadline().unwrap().as_micros() / 1000;
            assert_eq!(repairs.take_due(at(now)).keys, [1]);
            rounds += 1;
        }
        assert!(rounds < 16, "{rounds} repairs in a minute of fighting");
        repairs.schedule(1, at(now));
        repairs.schedule(2, at(now));
        let due = repairs.take_due(at(now + 20));
        assert_eq!((due.keys, due.first), (vec![2], 1));
        assert_eq!(repairs.take_all(), [1]);
        // Left alone, the prefix is repaired at once again.
        repairs.schedule(1, at(now + 60_000));
        assert_eq!(repairs.deadline(), Some(at(now + 60_020)));
    }

    #[test]
    fn a_flush_of_many_routes_uses_bounded_memory_and_is_repaired_at_once() {
        let mut repairs = Repairs::default();
        let many = 3 * REMEMBERED_MAX;
        for key in 0..many {
            repairs.schedule(key, at(0));
        }
        assert!(repairs.lately.len() <= REMEMBERED_MAX);
        let due = repairs.take_due(at(20));
        assert_eq!((due.keys.len(), due.first), (many, many));
        // Flushed again and again: those beyond the bound back off together.
        let mut now = 20;
        for _ in 0..18 {
            repairs.schedule(many - 1, at(now));
            now = repairs.deadline().unwrap().as_micros() / 1000;
            repairs.take_due(at(now));
        }
        assert!(now > 20_000, "{now}");
    }
}
