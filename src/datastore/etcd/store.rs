//! The operations that following etcd needs of a connection.
//!
//! [`super::client`] implements them; tests have their own implementation.

use std::future::Future;

use thiserror::Error;

/// Makes connections.
pub(super) trait Connect: Send {
    /// A connection.
    type Store: Store;

    /// Connects to one member and authenticates.
    fn connect(
        &mut self,
        endpoint: &str,
    ) -> impl Future<Output = Result<Self::Store, Error>> + Send;
}

/// A connection to one member. It sets no timeouts; callers do.
pub(super) trait Store: Send {
    /// Reads a page of keys with their values, in order of the keys.
    fn get(&mut self, page: &Page) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// Watches ranges of keys, all from one revision on.
    fn watch(
        &mut self,
        ranges: &[Range],
        from: i64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Requests a [`Message`] at once, even if nothing changed.
    fn request_progress(&mut self) -> impl Future<Output = Result<(), Error>> + Send;

    /// The next message of the watches. Cancel-safe: dropping the future loses nothing.
    fn message(&mut self) -> impl Future<Output = Result<Message, Error>> + Send;
}

/// The keys from `start` up to but not including `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Range {
    /// All keys with a prefix, which must end in a slash.
    pub(super) fn of_prefix(prefix: &str) -> Range {
        let start = prefix.as_bytes().to_vec();
        let mut end = start.clone();
        // Replaces the slash with its successor, which cannot overflow.
        end.pop();
        end.push(b'/' + 1);
        Range { start, end }
    }
}

/// A request for a page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) range: Range,
    /// `None`: the latest.
    pub(super) revision: Option<i64>,
    /// Maximum number of keys.
    pub(super) limit: usize,
}

/// A page of keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The store's revision when it answered.
    pub(super) revision: i64,
    pub(super) pairs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) rest: Rest,
}

/// Whether there are more keys in the range than the page holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rest {
    #[default]
    Nothing,
    More,
}

/// A message of the watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The store's revision when it was sent.
    pub(super) revision: i64,
    /// Number of watches whose creation it confirms.
    pub(super) begun: usize,
    /// Keys in order, with their values; `None`: the key was deleted.
    pub(super) events: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Error {
    /// The requested revision was compacted, so changes since then are lost.
    #[error("the revision was compacted")]
    Compacted,
    /// The answer exceeds the maximum message size.
    #[error("the answer is longer than what is read at once")]
    TooLarge,
    /// No answer within this time; what was waited for.
    #[error("{1}: nothing heard for {0:?}")]
    Silent(std::time::Duration, &'static str),
    /// Any other failure, as text. Never contains a password.
    #[error("{0}")]
    Failed(String),
}
