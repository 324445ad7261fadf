//! The etcd source against a real etcd: plain, TLS and authenticated; killed, frozen, compacted,
//! restored, full; with answers of many megabytes and objects that cannot be read.
//!
//! Each test starts etcd on free loopback ports with its own data folder, and ends it by its
//! process id.

#![allow(clippy::unwrap_used)] // The whole crate is a test.

mod access;
mod consumer;
mod content;
mod etcd;
mod failures;
