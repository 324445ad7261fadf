//! One neighbour's session: the RFC 4271 §8 state machine on connection slots.
//!
//! [`Peer`] owns everything about the neighbour except routes and sockets. The host (`net`) owns
//! the TCP connections, feeds bytes and time in, and drains actions out:
//!
//! ```text
//! handle_command / handle_connected / handle_bytes / handle_closed / handle_timeout
//!        └──▶ then, until all are empty: poll_action, poll_transmit(slot), poll_timeout
//! ```
//!
//! In scope: the FSM, timers, OPEN negotiation, collision (RFC 4271 §6.8), RFC 7606 verdicts
//! applied to received UPDATEs, the only mapping from a reason to a NOTIFICATION. Out of scope:
//! routes (they are returned as a [`RouteBatch`](crate::wire::RouteBatch)), sockets, policy.
//! UPDATEs to the peer are not encoded here either: they are frames of an export log that the host
//! interleaves with `poll_transmit`'s octets at message boundaries.
//!
//! The state machine is RFC 4271's, with both connections of a collision in it, so that §6.8 is
//! part of the structure and not an exception. Where it differs:
//!
//! - Differs from RFC: a failed attempt or lost session leads to Active, not to Idle: the retry
//!   timer runs and the peer's own connection is accepted. Idle is for stopped peers, and for those
//!   that exceeded a limit (IdleHoldTimer).
//! - Differs from RFC: DelayOpen (events 12 and 20) is not implemented; the OPEN is sent at once.
//! - Differs from RFC: the KEEPALIVE that answers an OPEN is withheld for up to five seconds while
//!   another connection may still win a collision (`collision`), so that no established session
//!   loses a collision.
//! - A connection that the peer opens while its session is established is answered with our OPEN.
//!   It replaces the session (RFC 4724 §5) only after a valid OPEN, followed by a KEEPALIVE or by a
//!   second in which the peer leaves the connection open. So merely connecting never ends a
//!   session, nor does a connection that crossed ours. Any other outcome ends that connection
//!   alone; if that happens repeatedly, the next connection is delayed (`intake`).

mod auth_key;
mod blame;
mod close;
mod collision;
mod config;
mod conn;
mod intake;
mod key_chain;
mod negotiate;
mod offer;
mod peer;
mod timers;

pub use auth_key::AuthKey;
pub use close::{Close, LastError, Origin};
pub use config::{
    BfdMode, HoldExpiry, LocalIdentity, PassiveMode, PeerConfig, Redial, RemoteAsn, RoleMode,
    TransportSecurity,
};
pub use key_chain::{
    ChainKey, HeldKeys, KeyChain, KeyChainFault, KeyLifetime, KeyStep, TcpOptions,
};
pub use negotiate::{Negotiated, Opens};
pub use offer::{Offer, Restart};
pub use peer::{Action, BfdPath, Command, Faulty, Keep, Peer, Slot, State, Stats, Timers};
