//! The budget of a turn.

/// Counts down units of work, of about 100 ns each.
#[derive(Debug)]
pub(crate) struct Meter {
    left: u32,
    spent: u32,
}

impl Meter {
    pub(crate) fn new(budget: u32) -> Self {
        Meter { left: budget, spent: 0 }
    }

    /// A meter for a part of the budget. [`Meter::settle`] charges what was spent of it.
    pub(crate) fn part(&self, budget: u32) -> Meter {
        Meter::new(budget.min(self.left).max(1))
    }

    pub(crate) fn settle(&mut self, part: &Meter) {
        self.spend(part.spent);
    }

    /// The last piece of work may exceed the budget; no further one begins.
    #[inline]
    pub(crate) fn spend(&mut self, units: u32) {
        self.spent = self.spent.saturating_add(units);
        self.left = self.left.saturating_sub(units);
    }

    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    pub(crate) fn spent(&self) -> u32 {
        self.spent
    }
}
