//! Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode: packets and the state
//! machine of one session.
//!
//! ```text
//! handle_packet / handle_timeout / set_admin / reconfigure ──▶ Change, if the state changed
//!        └──▶ then poll_transmit until it has nothing to send; poll_timeout for the next deadline
//! ```
//!
//! In scope: the codec ([`Packet`], [`Received`]), authentication ([`Auth`]), and [`Session`]:
//! states, Poll Sequences, interval negotiation, detection time, jitter. Out of scope: sockets,
//! demultiplexing (RFC 5880 §6.3), TTL checks (RFC 5881 §5), the reaction of a client to a session
//! that goes down (RFC 5882).
//!
//! Time and randomness are arguments. Every packet is either accepted or discarded with one
//! [`Discard`] reason. The Echo function is not supported: Required Min Echo RX Interval is always
//! zero (RFC 5880 §6.8.9). Demand mode is honoured when the peer requests it, and is never
//! requested (RFC 5880 §6.6).

mod auth;
mod config;
mod packet;
mod session;

pub use auth::{Auth, AuthKind, AuthSection, Key, Secret};
pub use config::{Config, INTERVAL_MAX, INTERVAL_MIN, Role};
pub use packet::{
    Diag, Discard, Flags, HEADER_LEN, PACKET_LEN_MAX, Packet, Received, State, VERSION,
};
pub use session::{Admin, Cause, Change, Session, Snapshot, Stats};

/// Nonzero identifier of a session at one system (RFC 5880 §6.3).
pub type Discriminator = std::num::NonZeroU32;
