//! margay's control socket: one JSON request per line, JSON lines back. [`bird`] is the other
//! protocol, which Calico's tools speak.
//!
//! Here: what may be asked ([`Request`]) and what is answered ([`item`]), and the server that keeps
//! clients from harming anybody. Not here: the answers themselves; a [`Backend`] gives them, a page
//! at a time. Nor who asks, and how people read it: that is the command line's.
//!
//! An answer is any number of `{"item": …}` lines and then `{"done": …}` or `{"error": …}`. Nobody
//! holds an answer in whole: the server asks for the next page when the client took the last one.

pub mod bird;
pub mod item;
mod protocol;
mod server;
mod socket;
mod steering;
mod timestamp;
mod view;

use std::future::Future;

pub use protocol::{Cursor, ErrorKind, Lookup, Page, Refusal, Reply, Request, StopMode};
pub use server::Server;
pub use socket::ServerError;
pub(crate) use socket::connect;
pub use steering::{Direction, Lasts, PeerAction, Rehearsal, RoutesOnReset, Selection};
pub use timestamp::rfc3339;
pub use view::{Names, PeerFacts, WallClock, explanation, group, peer, route, state_name};

/// Who answers: the daemon.
pub trait Backend: Send + Sync + 'static {
    /// One page of the answer to `request`. The first is asked for without a cursor, each further
    /// one with the cursor that the page before it gave.
    ///
    /// Must not wait longer than it takes to make one page: the client's connection waits.
    fn page(
        &self,
        request: &Request,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<Page, Refusal>> + Send;
}
