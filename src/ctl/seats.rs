//! Who is connected to a control socket, and who makes room when all places are taken.
//!
//! A place is never refused: the client that has been silent longest loses its own. So clients that
//! connect and say nothing, however many, keep no operator and no probe out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

/// The clients of one socket.
pub(super) struct Seats {
    taken: Vec<(AbortHandle, Heard)>,
    /// Most clients at once.
    max: usize,
    /// Counts what is heard, so that "longest silent" needs no clock.
    moments: Arc<AtomicU64>,
}

/// When a client last asked something, or took a part of an answer.
#[derive(Clone)]
pub(super) struct Heard {
    moment: Arc<AtomicU64>,
    moments: Arc<AtomicU64>,
}

impl Heard {
    /// It did so just now.
    pub(super) fn note(&self) {
        let moment = self.moments.fetch_add(1, Ordering::Relaxed);
        self.moment.store(moment, Ordering::Relaxed);
    }
}

impl Seats {
    /// All of `max` places are free.
    pub(super) fn new(max: usize) -> Self {
        Seats { taken: Vec::new(), max, moments: Arc::default() }
    }

    /// For a client that comes: it counts as heard at this moment.
    pub(super) fn heard(&self) -> Heard {
        let heard = Heard { moment: Arc::default(), moments: Arc::clone(&self.moments) };
        heard.note();
        heard
    }

    /// Gives a place to the client that `task` serves; if none is free, that of the client that has
    /// been silent longest, whose task is aborted.
    pub(super) fn take(&mut self, task: AbortHandle, heard: Heard) {
        self.taken.retain(|(task, _)| !task.is_finished());
        if self.taken.len() >= self.max {
            let moment = |(_, (_, heard)): &(usize, &(AbortHandle, Heard))| {
                heard.moment.load(Ordering::Relaxed)
            };
            if let Some((at, _)) = self.taken.iter().enumerate().min_by_key(moment) {
                self.taken.swap_remove(at).0.abort();
            }
        }
        self.taken.push((task, heard));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinHandle;

    use super::*;

    fn client(seats: &mut Seats) -> (JoinHandle<()>, Heard) {
        let task = tokio::spawn(pending());
        let heard = seats.heard();
        seats.take(task.abort_handle(), heard.clone());
        (task, heard)
    }

    #[tokio::test]
    async fn the_client_that_was_silent_longest_makes_room() {
        let mut seats = Seats::new(3);
        let (first, heard) = client(&mut seats);
        let (second, _) = client(&mut seats);
        let (third, _) = client(&mut seats);
        heard.note();
        let (_fourth, _) = client(&mut seats);
        assert!(second.await.unwrap_err().is_cancelled());
        assert!(!first.is_finished() && !third.is_finished(), "the first spoke, the third is next");
        assert_eq!(seats.taken.len(), 3);
    }

    #[tokio::test]
    async fn a_client_that_has_left_makes_room_before_one_that_is_there() {
        let mut seats = Seats::new(2);
        let (first, _) = client(&mut seats);
        let (second, _) = client(&mut seats);
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        let (_third, _) = client(&mut seats);
        tokio::task::yield_now().await;
        assert!(!first.is_finished());
    }
}
