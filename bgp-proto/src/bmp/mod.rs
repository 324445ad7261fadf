//! The BGP Monitoring Protocol (RFC 7854): messages, written and read.
//!
//! With Adj-RIB-Out (RFC 8671), Loc-RIB (RFC 9069) and TLVs in Peer Up (RFC 9736). Only a station reads
//! messages: [`Message::decode`] is for tests and tools. What is sent to whom is decided in
//! [`table`](crate::table); connections are the host's.
//!
//! Encoders append to a buffer and have no bound of their own: the longest message is a Peer Up with two
//! OPENs, or a Route Monitoring message with one UPDATE, each of 65535 octets at most.

mod encode;
mod peer_header;
mod read;

pub use encode::{
    DownReason, PeerUp, Stat, TerminationReason, encode_end_of_rib, encode_initiation,
    encode_mirrored, encode_mirrored_lost, encode_peer_down, encode_peer_up,
    encode_route_monitoring, encode_statistics, encode_termination,
};
pub use peer_header::{PEER_HEADER_LEN, PeerHeader, PeerKind, Rib};
pub use read::{BmpError, Message, MessageKind, Tlv, split_message};

/// The version of the protocol (RFC 7854 §4.1).
pub const VERSION: u8 = 3;
/// Octets of the common header (RFC 7854 §4.1).
pub const COMMON_HEADER_LEN: usize = 6;
/// Longest message that is read, in octets.
pub const MESSAGE_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests;
