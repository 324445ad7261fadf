//! Flow control: credit in octets for route batches on their way to the table.
//!
//! A peer holds at most [`PEER_BYTES`] of unprocessed routes and all peers together at most
//! [`TOTAL_BYTES`]. Without credit the peer's task stops reading; KEEPALIVEs are still sent.
//! Batches that remain when a session ends do not wait for credit; they are counted in addition.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets of unprocessed batches per peer.
pub(super) const PEER_BYTES: usize = 256 << 10;
/// Octets of unprocessed batches in all.
pub(super) const TOTAL_BYTES: usize = 32 << 20;

/// The credit of the whole process. Clones share it.
#[derive(Clone)]
pub struct Credit {
    total: Arc<Semaphore>,
    overdrawn: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
}

/// The credit of one peer. Clones share it.
#[derive(Clone)]
pub struct PeerCredit {
    total: Arc<Semaphore>,
    own: Arc<Semaphore>,
    overdrawn: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
}

/// Credit held by a batch until the table has processed it.
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _total: Option<OwnedSemaphorePermit>,
    _overdraft: Option<Counted>,
}

/// Octets that are included in a sum for as long as this value lives.
pub struct Counted {
    octets: usize,
    sum: Arc<AtomicUsize>,
}

impl Counted {
    pub(super) fn new(octets: usize, sum: &Arc<AtomicUsize>) -> Self {
        sum.fetch_add(octets, Ordering::Relaxed);
        Counted { octets, sum: Arc::clone(sum) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

impl Credit {
    pub(super) fn new() -> Self {
        let total = Arc::new(Semaphore::new(TOTAL_BYTES));
        Credit { total, overdrawn: Arc::default(), waiting: Arc::default() }
    }

    /// Octets of batches that wait for a permit.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Octets that all current permits hold, overdrafts included.
    pub(super) fn held(&self) -> usize {
        let within = TOTAL_BYTES.saturating_sub(self.total.available_permits());
        within + self.overdrawn.load(Ordering::Relaxed)
    }

    /// Fresh credit for one peer.
    pub fn peer(&self) -> PeerCredit {
        PeerCredit {
            total: Arc::clone(&self.total),
            own: Arc::new(Semaphore::new(PEER_BYTES)),
            overdrawn: Arc::clone(&self.overdrawn),
            waiting: Arc::clone(&self.waiting),
        }
    }
}

impl PeerCredit {
    /// Waits for credit of `bytes` octets. A batch larger than a peer's whole credit takes all of
    /// it.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        let amount = u32::try_from(bytes.clamp(1, PEER_BYTES)).unwrap_or(1);
        // The peer's own credit first: a flooding peer then waits for its own batches to be
        // processed and does not hold up others in the queue for the common credit.
        let own = Arc::clone(&self.own).acquire_many_owned(amount).await;
        let total = Arc::clone(&self.total).acquire_many_owned(amount).await;
        Permit {
            _own: Some(own.expect("the semaphore is never closed")),
            _total: Some(total.expect("the semaphore is never closed")),
            _overdraft: None,
        }
    }

    /// Like [`PeerCredit::acquire`], without waiting; `None` if there is not enough credit.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let amount = u32::try_from(bytes.clamp(1, PEER_BYTES)).unwrap_or(1);
        let own = Arc::clone(&self.own).try_acquire_many_owned(amount).ok()?;
        let total = Arc::clone(&self.total).try_acquire_many_owned(amount).ok()?;
        Some(Permit { _own: Some(own), _total: Some(total), _overdraft: None })
    }

    /// A permit that is always granted, for the batches that remain when a session ends: its
    /// connection is no longer read, so no more can follow than the task and its socket held.
    pub fn overdraw(&self, bytes: usize) -> Permit {
        match self.try_acquire(bytes) {
            Some(permit) => permit,
            None => {
                let overdraft = Counted::new(bytes, &self.overdrawn);
                Permit { _own: None, _total: None, _overdraft: Some(overdraft) }
            }
        }
    }

    /// Counts a batch that waits for a permit as memory used by routes until the result is dropped.
    pub fn count_waiting(&self, bytes: usize) -> Counted {
        Counted::new(bytes, &self.waiting)
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
    fn the_end_of_a_session_waits_for_no_credit_and_is_counted() {
        let credit = Credit::new();
        let peer = credit.peer();
        let held = peer.try_acquire(PEER_BYTES).unwrap();
        let (one, two) = (peer.overdraw(1000), peer.overdraw(3 << 20));
        assert_eq!(credit.held(), PEER_BYTES + 1000 + (3 << 20));
        drop((held, one));
        assert_eq!(credit.held(), 3 << 20);
        drop(two);
        assert_eq!(credit.held(), 0);
        let _within = peer.overdraw(5);
        assert_eq!(credit.held(), 5);
        assert!(
            peer.try_acquire(PEER_BYTES).is_none(),
            "an overdraft uses credit where there is enough"
        );
    }

    #[test]
    fn a_batch_that_waits_for_credit_is_counted_until_it_has_some() {
        let credit = Credit::new();
        let peer = credit.peer();
        let one = peer.count_waiting(300);
        let _two = credit.peer().count_waiting(7);
        assert_eq!((credit.waiting(), credit.held()), (307, 0));
        drop(one);
        assert_eq!(credit.waiting(), 7);
    }

    #[test]
    fn an_oversized_batch_is_possible_and_takes_all_of_a_peers_credit() {
        let credit = Credit::new().peer();
        let _held = credit.try_acquire(usize::MAX).unwrap();
        assert!(credit.try_acquire(1).is_none());
    }
}
