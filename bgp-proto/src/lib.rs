//! Everything in margay that is deterministic: bytes and time in, bytes and decisions out.
//!
//! This crate has no sockets, no clock, no threads, no async and no `unsafe`; `clippy.toml` next to
//! `Cargo.toml` enforces this. The state machines are in this crate; `src/` of the root package
//! connects them to sockets, clock and kernel. The two of BGP:
//!
//! ```text
//!  bytes ──▶ session::Peer ──RouteBatch──▶ table::Table ──▶ FIB changes
//!  bytes ◀── (one per neighbour)           (owns all routes) ──▶ chunks (export::Log)
//! ```
//!
//! - [`types`]: prefixes, families, identifiers, communities, time.
//! - [`wire`]: framing, OPEN, UPDATE, attributes, NOTIFICATION, ROUTE-REFRESH. Borrowed in, bytes
//!   out.
//! - [`session`]: the RFC 4271 state machine of one neighbour, on two connection slots.
//! - [`policy`]: ordered rules over a route, with the rule that decided.
//! - [`rib`]: interned attributes, destinations, paths, the decision process with its reasons.
//! - [`export`]: which peers are sent what, rewriting, update groups, the chunk log, packing.
//! - [`table`]: the data path; peers and their sessions; reconfiguration; views.
//! - [`bfd`]: Bidirectional Forwarding Detection, the packets and the state machine of one session.
//! - [`ndp`]: Router Advertisements and Solicitations, by which routers on a link find each other.
//! - [`mrt`]: the MRT export format: dumps of a RIB, messages, changes of state; written and read.
//! - [`bmp`]: the BGP Monitoring Protocol: messages, written and read.
//! - `sim` (feature): many speakers on one clock from one seed.
//!
//! The terms of the RFCs, and where they are:
//!
//! | RFC 4271 and others | here |
//! |---|---|
//! | Adj-RIB-In (§3.2) | `table::peer::PeerFamily`: what a peer holds; the paths are stored in the Loc-RIB |
//! | Loc-RIB (§3.2) | `rib::LocRib`, a destination's best path first |
//! | Adj-RIBs-Out (§3.2) | `export::AdjRibsOut`; of one update group: `export::AdjRibOut` |
//! | route, path (§1.1) | `rib::Path`; destination: `rib::DestId` |
//! | path attributes (§5) | `wire::AttrView`; interned: `rib::AttrId` |
//! | next hop, its resolution (§9.1.2.1) | `rib::NextHops`, [`rib::NextHopState`] |
//! | decision process (§9.1) | `rib::LocRib::decide`; its reasons: [`rib::Reason`] |
//! | Update-Send process (§9.2) | `export::Group`, `export::Batch`, [`export::Log`] |
//! | feed, table dump; refresh (RFC 2918) | `export::Resync` |
//! | stale routes (RFC 4724), BoRR (RFC 7313) | `rib::Stamp`, `table::peer::Marks` |
//! | soft reconfiguration inbound | `table::passes`: re-evaluation |
//! | update group, peer group | `export::Group`, distinguished by `export::GroupKey` |
//! | FIB | `table::kernel::KernelView`, [`types::FibRoute`] |
//! | session, FSM (§8) | [`session::Peer`] |
//! | NOTIFICATION (§6) | [`wire::Notification`]; why one is sent: [`session::Close`] |
//!
//! Dependencies point one way:
//!
//! ```text
//! types   ←
//! wire    ← types
//! bfd     ← types
//! ndp     ← types
//! mrt     ← types, wire
//! bmp     ← types, wire
//! session ← types, wire
//! policy  ← types, wire
//! rib     ← types, wire
//! export  ← types, wire, policy, rib
//! table   ← types, wire, mrt, bmp, policy, rib, session, export
//! sim     ← types, wire, policy, rib, session, export, table, bfd, ndp
//! ```
//!
//! Rules. Time and randomness are arguments. Decoders are total functions: no input panics, hangs
//! or grows without bound. Errors from the network are values that say what happens next
//! (RFC 7606), and there is one place that turns each into a NOTIFICATION. Every queue has a bound.

#![forbid(unsafe_code)]

pub mod bfd;
pub mod bmp;
pub mod export;
pub mod mrt;
pub mod ndp;
pub mod policy;
pub mod rib;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod table;
pub mod types;
pub mod wire;
