//! A timer wheel: the deadlines of many sessions, in slots of about a millisecond.
//!
//! An entry fires when its slot is over, that is, up to one slot late and never early. Entries are
//! not moved: the caller checks the deadline of a session that fires, and inserts another entry if
//! the deadline lies in the future.

use bgp_proto::types::Time;

/// Index of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(pub(super) usize);

/// Log2 of a slot's length in microseconds.
const SLOT_BITS: u32 = 10;
/// Slots of the wheel: about a second in all. A later deadline fires once per turn of the wheel.
const SLOTS: usize = 1024;

/// Sessions by the slot of their deadline.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<SlotId>>,
    /// One bit for each slot that is not empty.
    filled: [u64; SLOTS / 64],
    /// The first slot that is not over yet.
    current: u64,
}

impl Wheel {
    pub(super) fn new(now: Time) -> Wheel {
        Wheel {
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            filled: [0; SLOTS / 64],
            current: slot_of(now),
        }
    }

    /// Advances to `now` if the wheel is empty, so that [`Wheel::expire`] need not visit the slots
    /// in between.
    pub(super) fn rest(&mut self, now: Time) {
        if self.filled.iter().all(|word| *word == 0) {
            self.current = self.current.max(slot_of(now));
        }
    }

    /// Enters `id` into the slot of `at`. Returns the time at which it was entered, which is
    /// earlier than `at` if that lies beyond one turn of the wheel.
    pub(super) fn insert(&mut self, at: Time, id: SlotId) -> Time {
        let last = self.current + (SLOTS as u64 - 1);
        let slot = slot_of(at).clamp(self.current, last);
        let index = index_of(slot);
        if let (Some(ids), Some(word)) =
            (self.slots.get_mut(index), self.filled.get_mut(index / 64))
        {
            ids.push(id);
            *word |= 1 << (index % 64);
        }
        if slot_of(at) > last { start_of(slot) } else { at }
    }

    /// When to call [`Wheel::expire`] next; `None` if the wheel is empty.
    pub(super) fn next(&self) -> Option<Time> {
        (self.current..self.current + SLOTS as u64)
            .find(|slot| self.is_filled(index_of(*slot)))
            .map(|slot| start_of(slot + 1))
    }

    /// Removes the entries whose slots are over at `now`, and appends them to `woken`.
    pub(super) fn expire(&mut self, now: Time, woken: &mut Vec<SlotId>) {
        let over = slot_of(now);
        let turn = over.min(self.current + SLOTS as u64);
        for index in (self.current..turn).map(index_of) {
            if let (Some(ids), Some(word)) =
                (self.slots.get_mut(index), self.filled.get_mut(index / 64))
            {
                woken.append(ids);
                *word &= !(1 << (index % 64));
            }
        }
        self.current = self.current.max(over);
    }

    fn is_filled(&self, index: usize) -> bool {
        self.filled.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

fn slot_of(at: Time) -> u64 {
    at.as_micros() >> SLOT_BITS
}

fn start_of(slot: u64) -> Time {
    Time::from_micros(slot << SLOT_BITS)
}

fn index_of(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No entry fires early, and each fires within a slot of its deadline or of the turn's end.
        #[test]
        fn every_entry_fires_in_time(
            start in 0_u64..10_000_000,
            entries in prop::collection::vec((0_u64..3_000_000, 0_u64..2_000_000), 1..50),
        ) {
            let mut now = Time::from_micros(start);
            let mut wheel = Wheel::new(now);
            let mut waiting = Vec::new();
            let mut woken = Vec::new();
            for (number, (ahead, step)) in entries.into_iter().enumerate() {
                let at = Time::from_micros(now.as_micros() + ahead);
                waiting.push((wheel.insert(at, SlotId(number)), number));
                let until = Time::from_micros(now.as_micros() + step);
                while let Some(next) = wheel.next().filter(|next| *next <= until) {
                    prop_assert!(next >= now);
                    now = next;
                    wheel.expire(now, &mut woken);
                    for SlotId(number) in woken.drain(..) {
                        let index = waiting.iter().position(|(_, n)| *n == number).expect("once");
                        let (at, _) = waiting.swap_remove(index);
                        prop_assert!(at <= now && now.since(at) <= std::time::Duration::from_micros(1 << SLOT_BITS));
                    }
                }
                now = until;
                wheel.expire(now, &mut woken);
                prop_assert!(woken.is_empty());
                prop_assert!(waiting.iter().all(|(at, _)| start_of(slot_of(*at) + 1) > now));
            }
        }
    }

    #[test]
    fn after_a_jump_of_the_clock_every_entry_fires_once() {
        let mut wheel = Wheel::new(Time::ZERO);
        for number in 0..5 {
            wheel.insert(Time::from_micros(number * 200_000), SlotId(number as usize));
        }
        let mut woken = Vec::new();
        wheel.expire(Time::from_micros(3_600_000_000), &mut woken);
        woken.sort_unstable();
        assert_eq!(woken, (0..5).map(SlotId).collect::<Vec<_>>());
        assert_eq!(wheel.next(), None);
    }
}
