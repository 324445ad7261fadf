//! Credit in octets for route batches on their way to the table.
//!
//! A peer holds at most [`PEER_BYTES`] of unprocessed routes and all peers together at most
//! [`TOTAL_BYTES`]. Without credit the peer's task stops reading; keepalives go on.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets of unprocessed batches per peer.
pub(super) const PEER_BYTES: usize = 256 << 10;
/// Octets of unprocessed batches in all.
pub(super) const TOTAL_BYTES: usize = 32 << 20;

/// The process's credit.
#[derive(Clone)]
pub struct Credit {
    total: Arc<Semaphore>,
}

/// One peer's credit.
#[derive(Clone)]
pub struct PeerCredit {
    total: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// Held by a batch until the table has applied it.
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl Credit {
    pub(super) fn new() -> Self {
        Credit { total: Arc::new(Semaphore::new(TOTAL_BYTES)) }
    }

    /// Octets that permits stand for at present.
    pub(super) fn held(&self) -> usize {
        TOTAL_BYTES.saturating_sub(self.total.available_permits())
    }

    /// Fresh credit for one peer.
    pub fn peer(&self) -> PeerCredit {
        PeerCredit { total: Arc::clone(&self.total), own: Arc::new(Semaphore::new(PEER_BYTES)) }
    }
}

impl PeerCredit {
    /// Waits for credit of `bytes` octets; a larger batch than a peer's whole credit takes all of it.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        let amount = u32::try_from(bytes.clamp(1, PEER_BYTES)).unwrap_or(1);
        // The peer's own credit first: a peer that floods waits for itself, not in the common queue.
        let own = Arc::clone(&self.own).acquire_many_owned(amount).await;
        let total = Arc::clone(&self.total).acquire_many_owned(amount).await;
        Permit {
            _own: own.expect("the semaphore is never closed"),
            _total: total.expect("the semaphore is never closed"),
        }
    }

    /// As [`PeerCredit::acquire`], without waiting.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let amount = u32::try_from(bytes.clamp(1, PEER_BYTES)).unwrap_or(1);
        let own = Arc::clone(&self.own).try_acquire_many_owned(amount).ok()?;
        let total = Arc::clone(&self.total).try_acquire_many_owned(amount).ok()?;
        Some(Permit { _own: own, _total: total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooding_peer_exhausts_its_own_credit_only() {
        let credit = Credit::new();
        let (flooding, quiet) = (credit.peer(), credit.peer());
        let held = flooding.try_acquire(PEER_BYTES).unwrap();
        assert_eq!(credit.held(), PEER_BYTES);
        assert!(flooding.try_acquire(1).is_none());
        assert!(quiet.try_acquire(PEER_BYTES).is_some());
        drop(held);
        assert!(flooding.try_acquire(1).is_some());
    }

    #[test]
    fn an_oversized_batch_is_possible_and_takes_everything() {
        let credit = Credit::new().peer();
        let _held = credit.try_acquire(usize::MAX).unwrap();
        assert!(credit.try_acquire(1).is_none());
    }
}
