//! The clients of one of our sockets, and which of them is disconnected when there are too many.
//!
//! A new client is never refused: at the limit, the client that has been silent longest is
//! disconnected. Idle clients, however many, therefore cannot lock out an operator or a probe.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// The clients of one socket, at most `max` at once.
#[derive(Debug)]
pub struct ClientSlots {
    taken: Vec<ClientSlot>,
    /// Most clients at once.
    max: usize,
    /// A logical clock: advances with every activity, so that "silent longest" needs no real one.
    moments: Arc<AtomicU64>,
}

#[derive(Debug)]
struct ClientSlot {
    /// Dropping it completes the client's [`Disconnected`].
    kept: oneshot::Sender<Infallible>,
    heard: LastActivity,
}

/// When a client last sent a request or read a part of a reply. Clones share it.
#[derive(Clone, Debug)]
pub struct LastActivity {
    moment: Arc<AtomicU64>,
    moments: Arc<AtomicU64>,
}

/// A future that completes when the client has lost its slot; it may be polled again afterwards.
/// Dropping it frees the slot.
#[derive(Debug)]
pub struct Disconnected(Option<oneshot::Receiver<Infallible>>);

impl LastActivity {
    /// Marks the client as active at this moment.
    pub fn note(&self) {
        let moment = self.moments.fetch_add(1, Ordering::Relaxed);
        self.moment.store(moment, Ordering::Relaxed);
    }
}

impl Future for Disconnected {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(dropped) = &mut self.0 {
            let Err(_) = ready!(Pin::new(dropped).poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

impl ClientSlots {
    /// `max` free slots.
    pub fn new(max: usize) -> Self {
        ClientSlots { taken: Vec::new(), max, moments: Arc::default() }
    }

    /// Disconnects the client that has been silent longest. Returns false if there is no client.
    pub fn make_room(&mut self) -> bool {
        self.taken.retain(|slot| !slot.kept.is_closed());
        let moment = |(_, slot): &(usize, &ClientSlot)| slot.heard.moment.load(Ordering::Relaxed);
        let silent = self.taken.iter().enumerate().min_by_key(moment).map(|(at, _)| at);
        silent.map(|at| self.taken.swap_remove(at)).is_some()
    }

    /// Takes a slot for a new client, which counts as active at this moment. If no slot is free,
    /// the client that has been silent longest loses its own.
    pub fn take(&mut self) -> (Disconnected, LastActivity) {
        self.taken.retain(|slot| !slot.kept.is_closed());
        if self.taken.len() >= self.max {
            self.make_room();
        }
        let heard = LastActivity { moment: Arc::default(), moments: Arc::clone(&self.moments) };
        heard.note();
        let (kept, lost) = oneshot::channel();
        self.taken.push(ClientSlot { kept, heard: heard.clone() });
        (Disconnected(Some(lost)), heard)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_client_that_was_silent_longest_makes_room() {
        let mut slots = ClientSlots::new(3);
        let [mut first, mut second, mut third] = [slots.take(), slots.take(), slots.take()];
        first.1.note();
        let _fourth = slots.take();
        let lost = [&mut first, &mut second, &mut third].map(|(lost, _)| lost.now_or_never());
        assert_eq!(lost, [None, Some(()), None], "the first was active; the third is next");
        let _fifth = slots.take();
        assert_eq!((&mut third.0).now_or_never(), Some(()));
        assert_eq!((&mut third.0).now_or_never(), Some(()), "it stays lost");
        assert_eq!(slots.taken.len(), 3);
    }

    #[test]
    fn a_closed_slot_is_reused_before_a_client_is_disconnected() {
        let mut slots = ClientSlots::new(2);
        let (first, second) = (slots.take(), slots.take());
        drop(second);
        let _third = slots.take();
        assert_eq!(first.0.now_or_never(), None);
    }
}
