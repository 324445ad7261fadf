//! The way out: who may hear what, rewriting, update groups, the chunk log.
//!
//! Peers that would be told the same bytes are one [`Group`](crate::table): the group encodes its
//! pending changes once into immutable [`Chunk`]s of its [`Log`]; each member is a cursor, a
//! [`Reader`]. Split horizon is a frame skip. A member that falls off the log holds no queue: it is
//! served the current state of what changed since (architecture §3.6-3.8).

mod log;

pub use log::{Chunk, Fetch, Log, Piece, Reader};
