//! margay's control socket: one JSON request per line, answered by lines of JSON. [`bird`] is the
//! other protocol, which Calico's tools use.
//!
//! Here: requests ([`Request`]), the content of answers ([`item`]), and the server that protects
//! the daemon from clients. Not here: the answers themselves, which a [`Backend`] provides one page
//! at a time; and the client with its output for operators, which is part of the command line.
//!
//! An answer consists of any number of `{"item": …}` lines, followed by `{"done": …}` or
//! `{"error": …}`. A client may ask for routes as `{"run": …}` lines, each of which is many items.
//! No complete answer is ever held in memory: the server requests the next page while the client
//! reads the last one, and no page after that.

mod access;
mod announce;
mod attributes;
pub mod bird;
mod destination;
pub mod item;
mod probe;
mod protocol;
mod runs;
mod selection;
mod server;
mod socket;
mod sorted;
mod steering;
mod timestamp;
mod view;

use std::future::Future;

pub use announce::AnnounceOptions;
pub use attributes::attribute_changes;
pub use destination::Destination;
pub use probe::{Password, ProbeOptions};
pub use protocol::{
    Cursor, ErrorKind, EventCursor, Lookup, ObjectFile, Page, Refusal, Reply, Request, StopMode,
    TestRoute, item_of,
};
pub use runs::{Run, each_item, route_page, run_of};
pub use selection::{RouteForm, RouteSelection, Span};
pub use server::{REQUEST_LEN_MAX, Server};
pub use socket::ServerError;
pub(crate) use socket::connect;
pub use sorted::{PrefixCursor, SortedPrefixes};
pub use steering::{Direction, Lasts, PeerAction, Rehearsal, RoutesOnReset, Selection};
pub use timestamp::{from_rfc3339, rfc3339, rfc3339_millis};
pub use view::{
    Names, PeerFacts, WallClock, explanation, group, next_hop, peer, route, state_name,
};

/// The source of all answers: the daemon.
pub trait Backend: Send + Sync + 'static {
    /// One page of the answer to `request`. The first page is requested without a cursor, each
    /// further one with the cursor of the previous page.
    ///
    /// Must not take longer than making one page requires: the client's connection waits meanwhile.
    fn page(
        &self,
        request: &Request,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<Page, Refusal>> + Send;
}
