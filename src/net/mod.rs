//! The TCP edge: listeners, one task per peer, writing from the update logs, socket options.
//!
//! A `PeerTask` (`peer`) owns one peer's `session::Peer` and its connections. It reads into
//! a scratch buffer that all tasks of a thread share, sends route batches to the table within its
//! credit, and writes from the log of its update group whenever TCP has room. No updates are queued
//! for a single peer: its position in the log is a cursor.

mod admission;
mod allowance;
mod closers;
mod conn;
mod debug;
mod dial;
mod grace;
mod handle;
mod key_chains;
mod keys;
mod listener;
mod mailbox;
mod meant;
mod message_text;
mod outlet;
mod peer;
mod probe;
mod refusal_log;
mod refused_callers;
mod session_counters;
mod shutdown;
mod signature_drops;
mod sockopt;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub use admission::Refusal;
pub use debug::DebugSwitch;
pub use handle::{
    FindOtherAddresses, Lifetime, OtherAddresses, PeerEvent, PeerHandle, PeerNumbers, PeerSnapshot,
    PeerSpec, RestartState, Unacknowledged,
};
pub use key_chains::{ChainEntries, SignedAttempts, SignedConnection, try_key_chain, unix_now};
pub use keys::{KeyFault, Md5Entries};
pub use listener::{Accepted, Directory, KeyEntries, Listeners, Unbound};
pub use outlet::Sent;
pub use peer::spawn_peer;
pub use probe::{Finding, Interface, Outcome, Probe, Step};
pub(crate) use refusal_log::RefusalLog;
pub use refused_callers::RefusedCaller;
pub use session_counters::SessionCounters;
pub use shutdown::AdminShutdown;
pub use signature_drops::signature_drops;
pub use sockopt::{AoCounters, AoIds, HeldAoKey};
pub(crate) use sockopt::{bind_to_interface, pass_router_discovery};
