//! The FIB against the real kernel, each test in its own network namespace.
//!
//! A test runs its own binary again under `unshare --net`; the namespace ends with the process,
//! whatever happens in it. Needs root.

#![allow(clippy::unwrap_used)] // The whole crate is a test.

mod asking;
mod bulk;
mod carry;
mod full_kernel;
mod groups;
mod learning;
mod legs;
mod namespace;
mod objects;
mod ownership;
mod random;
mod repair;
mod resolving;
mod writing;
