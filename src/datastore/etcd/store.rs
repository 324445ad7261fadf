//! What following etcd needs of a connection to it.
//!
//! [`super::client`] is the real one; tests bring one of their own.

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

/// A connection to one member. Nothing in it limits how long an answer may take.
pub(super) trait Store: Send {
    /// Reads a page of keys with their values, in order of the keys.
    fn get(&mut self, page: &Page) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// Watches ranges of keys, all from one revision on.
    fn watch(
        &mut self,
        ranges: &[Range],
        from: i64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Asks for a [`Message`] at once, though nothing happened.
    fn request_progress(&mut self) -> impl Future<Output = Result<(), Error>> + Send;

    /// The next message about what is watched. Dropping the future loses nothing.
    fn message(&mut self) -> impl Future<Output = Result<Message, Error>> + Send;
}

/// Keys from `start` until before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Range {
    /// All keys that begin with a text, which ends in a slash.
    pub(super) fn of_prefix(prefix: &str) -> Range {
        let start = prefix.as_bytes().to_vec();
        let mut end = start.clone();
        // The character after the slash: no carry.
        end.pop();
        end.push(b'/' + 1);
        Range { start, end }
    }
}

/// A page to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) range: Range,
    /// `None`: the latest.
    pub(super) revision: Option<i64>,
    /// Most keys.
    pub(super) limit: usize,
}

/// A page.
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

/// A message about what is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The store's revision when it was sent.
    pub(super) revision: i64,
    /// How many watches it says have begun.
    pub(super) begun: usize,
    /// Keys in order, with their values; `None`: the key was deleted.
    pub(super) events: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Error {
    /// Changes in between are not kept any more.
    #[error("the revision was compacted")]
    Compacted,
    /// The answer is longer than is read at once.
    #[error("the answer is longer than what is read at once")]
    TooLarge,
    /// It took too long.
    #[error("{1}: nothing heard for {0:?}")]
    Silent(std::time::Duration, &'static str),
    /// Anything else, in words. Holds no password.
    #[error("{0}")]
    Failed(String),
}
