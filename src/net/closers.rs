//! Connections that are being closed: their last octets get a bounded time to leave.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::conn::{Conn, linger};

/// How long a closing connection may take to deliver its last octets.
const LINGER: Duration = Duration::from_secs(1);
/// How many of one peer may close at a time: the session's, and one that came to nothing. Whoever
/// connects in a loop gets no more of our descriptors than this.
const CLOSING_MAX: usize = 2;

/// The closing connections of one peer, the oldest first.
#[derive(Default)]
pub(super) struct Closers {
    closing: VecDeque<JoinHandle<()>>,
}

impl Closers {
    /// Closes a connection; the oldest one makes room.
    pub(super) fn close(&mut self, mut conn: Box<Conn>) {
        self.closing.retain(|task| !task.is_finished());
        while self.closing.len() >= CLOSING_MAX {
            self.closing.pop_front().iter().for_each(JoinHandle::abort);
        }
        self.closing.push_back(tokio::spawn(async move {
            // Errors and the time-out have the same consequence: the connection is dropped.
            let _ = tokio::time::timeout(LINGER, linger(&mut conn)).await;
        }));
    }

    /// Resolves when all are closed.
    pub(super) async fn finish(&mut self) {
        for task in std::mem::take(&mut self.closing) {
            // An error means that it was cut short, or has panicked: it is closed.
            let _ = task.await;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.closing.len()
    }
}
