//! The addresses whose connections were refused most recently.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::Refusal;

/// Maximum number of addresses that are kept: another one replaces the one refused longest ago.
const CALLERS_MAX: usize = 32;

/// An address whose connections were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedCaller {
    /// The address; a link-local one carries its interface.
    pub from: IpAddr,
    /// Why the last one was refused.
    pub why: Refusal,
    /// How many were refused.
    pub count: u64,
    /// When the last one was.
    pub at: Instant,
}

/// What [`RefusedCaller`] says of each. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedCallers(Arc<Mutex<Vec<RefusedCaller>>>);

impl RefusedCallers {
    pub(super) fn note(&self, from: IpAddr, why: Refusal, at: Instant) {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = callers.iter_mut().find(|caller| caller.from == from) {
            *known = RefusedCaller { why, count: known.count + 1, at, ..*known };
            return;
        }
        let new = RefusedCaller { from, why, count: 1, at };
        if callers.len() < CALLERS_MAX {
            callers.push(new);
        } else if let Some(oldest) = callers.iter_mut().min_by_key(|caller| caller.at) {
            *oldest = new;
        }
    }

    /// The last one first.
    pub(super) fn list(&self) -> Vec<RefusedCaller> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.at));
        callers
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_address_is_listed_once_and_the_oldest_is_replaced() {
        let callers = RefusedCallers::default();
        let began = Instant::now();
        let note = |last: u8, why, secs| {
            callers.note(IpAddr::from([192, 0, 2, last]), why, began + Duration::from_secs(secs));
        };
        for last in 0..CALLERS_MAX as u8 {
            note(last, Refusal::Stranger, u64::from(last));
        }
        note(0, Refusal::Unsigned, 100);
        note(200, Refusal::RangeFull, 101);
        let list = callers.list();
        assert_eq!(list.len(), CALLERS_MAX);
        assert_eq!((list[0].why, list[0].count), (Refusal::RangeFull, 1));
        assert_eq!((list[1].why, list[1].count), (Refusal::Unsigned, 2));
        assert!(list.iter().all(|caller| caller.from != IpAddr::from([192, 0, 2, 1])));
    }
}
