//! The state of one prefix.

use bgp_proto::types::Prefix;

use super::refused::Target;
use super::shared::Shared;
use crate::kernel::fib::view::FibState;
use crate::kernel::spec::SpecId;

/// The state of one prefix, in 12 octets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) wanted: Option<SpecId>,
    pub(super) installed: Option<SpecId>,
    /// Index of the error text; meaningful with [`FAILED`] and [`FOREIGN`].
    pub(super) error: u16,
    flags: u16,
}

/// The prefix is in the queue.
pub(super) const QUEUED: u16 = 1;
/// The kernel refused the wanted route, or a deletion.
pub(super) const FAILED: u16 = 1 << 1;
/// A failed entry is to be retried when it reaches the head of the queue.
pub(super) const RETRY: u16 = 1 << 2;
/// A foreign route holds the place, or the prefix is a connected network.
pub(super) const FOREIGN: u16 = 1 << 3;
/// Found in the kernel at start-up and not wanted so far.
pub(super) const LEFTOVER: u16 = 1 << 4;
/// An answer of the kernel contradicted the known state; a second one counts as a failure.
pub(super) const UNCLEAR: u16 = 1 << 5;
/// Round of the last dump that contained the installed route (see `Shared::round`).
pub(super) const ROUND: u16 = 1 << 6;
/// The prefix waits for its repair.
pub(super) const REPAIR: u16 = 1 << 7;
/// Next hops may be resolved over the wanted route.
pub(super) const DIRECT: u16 = 1 << 8;
/// Not wanted, but kept until another process has a route to the prefix.
pub(super) const KEPT: u16 = 1 << 9;
/// The state under which the entry is counted, plus one; 0: not counted.
const COUNTED: u16 = 0b111 << 10;
const COUNTED_SHIFT: u32 = COUNTED.trailing_zeros();

const STATES: [FibState; 4] =
    [FibState::Installed, FibState::Pending, FibState::Failed, FibState::Foreign];

impl Entry {
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The state under which the entry is counted.
    pub(super) fn counted(&self) -> Option<FibState> {
        let number = usize::from((self.flags & COUNTED) >> COUNTED_SHIFT);
        STATES.get(number.checked_sub(1)?).copied()
    }

    pub(super) fn set_counted(&mut self, state: Option<FibState>) {
        let place = state.and_then(|state| STATES.iter().position(|s| *s == state));
        let number = place.map_or(0, |at| at as u16 + 1);
        self.flags = (self.flags & !COUNTED) | (number << COUNTED_SHIFT);
    }

    /// Whether the kernel has the wanted route, without parts that it is known to refuse.
    pub(super) fn is_right(&self, prefix: Prefix, shared: &Shared) -> bool {
        let (Some(wanted), Some(installed)) = (self.wanted, self.installed) else {
            return self.wanted == self.installed;
        };
        match shared.groups.form(wanted) {
            Some(form) => form == installed,
            None if shared.are_same_route(wanted, installed) => true,
            None => match shared.target(prefix, wanted) {
                Target::Spec(target) => shared.are_same_route(target, installed),
                Target::Nothing(_) => false,
            },
        }
    }

    /// Whether nothing has to be written: the entry is right, and no trial for refused parts needs
    /// an answer from the kernel.
    pub(super) fn is_at_rest(&self, prefix: Prefix, shared: &Shared) -> bool {
        let asks =
            |wanted| shared.groups.form(wanted).is_none() && shared.refused.asks(prefix, wanted);
        self.is_right(prefix, shared) && !self.wanted.is_some_and(asks)
    }

    pub(super) fn state(&self, prefix: Prefix, shared: &Shared) -> Option<FibState> {
        Some(match (self.wanted, self.installed) {
            (None, None) => return None,
            _ if self.is_right(prefix, shared) => FibState::Installed,
            _ if self.has(FAILED) => FibState::Failed,
            (None, Some(_)) if self.has(LEFTOVER | KEPT) => FibState::Installed,
            _ if self.has(FOREIGN) => FibState::Foreign,
            _ => FibState::Pending,
        })
    }

    /// Records the content that the kernel has, as of the current round.
    pub(super) fn install(&mut self, spec: Option<SpecId>, shared: &mut Shared) {
        if let Some(old) = std::mem::replace(&mut self.installed, spec) {
            shared.release(old);
        }
        self.set(ROUND, shared.round);
    }
}
