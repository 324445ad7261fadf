//! Sets of destinations to be processed, in rounds.

use super::arena::IdSet;

/// Ids in rotating order: each is removed within one round of its insertion, however many are
/// inserted meanwhile.
#[derive(Debug, Default)]
pub(crate) struct WorkSet {
    set: IdSet,
    at: u32,
    /// Rounds that were completed.
    rounds: u64,
}

/// A point in time: see [`WorkSet::has_passed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier(u64);

impl WorkSet {
    #[inline]
    pub(crate) fn insert(&mut self, id: u32) {
        self.set.insert(id);
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        self.set.remove(id)
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.set.contains(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(crate) fn len(&self) -> u32 {
        self.set.len()
    }

    /// The next one, without removing it.
    #[inline]
    pub(crate) fn advance(&mut self) -> Option<u32> {
        let id = match self.set.next_from(self.at) {
            Some(id) => id,
            None => {
                self.rounds += 1;
                self.set.next_from(0)?
            }
        };
        self.at = id.wrapping_add(1);
        Some(id)
    }

    /// Removes and returns the next one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let id = self.advance()?;
        self.set.remove(id);
        Some(id)
    }

    /// A barrier at the current position.
    pub(crate) fn barrier(&self) -> Barrier {
        // The current round may already have passed what was just inserted; the next one has not.
        Barrier(self.rounds + 2)
    }

    /// Whether everything that was in the set at the barrier has been removed or visited since.
    pub(crate) fn has_passed(&self, barrier: Barrier) -> bool {
        self.set.is_empty() || self.rounds >= barrier.0
    }

    /// Frees the memory of ids from `slots` on, which are not members.
    pub(crate) fn truncate(&mut self, slots: u32) {
        self.set.truncate(slots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_at_a_barrier_are_gone_once_it_has_passed() {
        let mut set = WorkSet::default();
        (0..10).for_each(|id| set.insert(id * 7));
        (0..5).for_each(|_| assert!(set.pop().is_some()));
        set.insert(0);
        let barrier = set.barrier();
        let mut taken = Vec::new();
        while !set.has_passed(barrier) {
            let id = set.pop().unwrap();
            taken.push(id);
            // Others keep coming.
            set.insert((id + 3) % 70);
        }
        assert!([0, 35, 42, 49, 56, 63].iter().all(|id| taken.contains(id)), "{taken:?}");
        assert!(taken.len() < 200);
    }
}
