//! Router Discovery (RFC 4861 §6) between routers: how the two ends of a link without addresses of its
//! own learn each other's link-local address.
//!
//! In scope: the messages and their validation ([`decode`], [`advertisement`], [`SOLICITATION`]), and
//! [`Link`]: who the neighbour on a link is, when to solicit and when to advertise. Out of scope:
//! sockets, and what hosts take from an advertisement: default routers, prefixes, the MTU. Ours have a
//! Router Lifetime of zero and no option, so that no host uses us as a default router.
//!
//! Time and randomness are arguments. Every packet is either accepted or discarded with one
//! [`Discard`] reason.

mod link;
mod packet;

pub use link::{Link, News, Stats, Transmit};
pub use packet::{Discard, Message, SOLICITATION, advertisement, decode};
