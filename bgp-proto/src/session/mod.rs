//! One neighbour's session: the RFC 4271 §8 state machine on two connection slots.
//!
//! [`Peer`] owns everything about the neighbour except routes and sockets. The host (`net`) owns the
//! TCP connections, feeds bytes and time in, and drains actions out:
//!
//! ```text
//! handle_command / handle_connected / handle_bytes / handle_closed / handle_timeout
//!        └──▶ then, until all are empty: poll_action, poll_transmit(slot), poll_timeout
//! ```
//!
//! What lives here: the FSM, timers, OPEN negotiation, collision (RFC 4271 §6.8), RFC 7606 verdicts
//! applied to received UPDATEs, the one map from a reason to a NOTIFICATION. What does not: routes
//! (they leave as a [`RouteBatch`]), sockets, policy. UPDATEs to the peer are not written here
//! either: they are frames of an export log that the host interleaves with `poll_transmit`'s octets
//! at message boundaries.

mod close;
mod config;
mod negotiate;
mod peer;

pub use close::{Close, LastError, Origin};
pub use config::{AuthKey, LocalIdentity, PassiveMode, PeerConfig, TransportSecurity};
pub use negotiate::Negotiated;
pub use peer::{Action, Command, Keep, Peer, Slot, State, Stats};
