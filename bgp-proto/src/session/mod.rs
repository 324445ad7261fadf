//! One neighbour's session: the RFC 4271 §8 state machine on connection slots.
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
//! (they leave as a [`RouteBatch`](crate::wire::RouteBatch)), sockets, policy. UPDATEs to the peer
//! are not written here either: they are frames of an export log that the host interleaves with
//! `poll_transmit`'s octets at message boundaries.
//!
//! The state machine is RFC 4271's with both connections of a collision in it, so that §6.8 is
//! structure and not an exception. Where it differs:
//!
//! - Differs from RFC: a failed attempt or lost session leads to Active, not to Idle: the retry
//!   timer runs and the peer's own connection is welcome. Idle is for stopped peers, and for those
//!   whose limits brought the session down (IdleHoldTimer).
//! - Differs from RFC: DelayOpen (events 12 and 20) is not implemented; the OPEN leaves at once.
//! - Differs from RFC: the KEEPALIVE that answers an OPEN waits up to five seconds while another
//!   connection may still win a collision (`collision`), so that no established session loses one.
//! - A connection that the peer opens while its session is established is answered with our OPEN;
//!   only its valid OPEN, and KEEPALIVE or a second in which it leaves the connection open, replace
//!   the session (RFC 4724 §5), so nobody ends a session by connecting, nor by a connection that
//!   crossed ours. Whatever else comes of such a connection ends that connection alone; where it
//!   happens again and again the next one waits (`intake`).

mod close;
mod collision;
mod config;
mod conn;
mod intake;
mod negotiate;
mod offer;
mod peer;
mod timers;

pub use close::{Close, LastError, Origin};
pub use config::{
    AuthKey, BfdMode, HoldExpiry, LocalIdentity, PassiveMode, PeerConfig, Redial, RoleMode,
    TransportSecurity,
};
pub use negotiate::Negotiated;
pub use offer::{Offer, Restart};
pub use peer::{Action, BfdPath, Command, Keep, Peer, Slot, State, Stats, Timers};
