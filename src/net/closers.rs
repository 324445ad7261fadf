//! Connections that are being closed: their last octets have a bounded time to be sent.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::conn::{Conn, linger};

/// How long a closing connection may take to send its last octets.
const LINGER: Duration = Duration::from_secs(1);
/// How many connections of one peer may be closing at a time: that of the session, and one that did
/// not become a session. A peer that connects in a loop uses no more of our descriptors than this.
const CLOSING_MAX: usize = 2;

/// The closing connections of one peer, the oldest first.
#[derive(Default)]
pub(super) struct Closers {
    closing: VecDeque<JoinHandle<()>>,
}

impl Closers {
    /// Closes a connection. If too many are closing, the oldest is dropped at once.
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

    /// Resolves when all connections are closed.
    pub(super) async fn finish(&mut self) {
        for task in std::mem::take(&mut self.closing) {
            // An error means that it was aborted or has panicked; either way it is closed.
            let _ = task.await;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.closing.len()
    }
}
