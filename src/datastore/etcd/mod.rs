//! Calico's objects in etcd v3.
//!
//! - [`config`]: how to reach etcd; the environment of calico-node.
//! - [`follow`]: list, watch, list again; pauses, failover, timeouts. Uses the traits in [`store`],
//!   so that tests can simulate etcd.
//! - [`known`]: the last state sent, so that a list sends only differences.
//! - [`client`]: the real connection; `absent` replaces it in a build without the feature `etcd`.

#[cfg(any(test, not(feature = "etcd")))]
mod absent;
#[cfg(feature = "etcd")]
mod client;
mod config;
mod follow;
mod known;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "what only the real one answers"))]
mod store;

use std::hash::{BuildHasher, RandomState};

pub use config::{
    Blocks, EnvError, EtcdConfig, Password, Secret, Timings, TlsFiles, User, parse_endpoints,
};

use super::Sender;
#[cfg(not(feature = "etcd"))]
use absent as client;

/// Follows etcd until the receiver is dropped.
pub(super) async fn follow(config: EtcdConfig, sender: Sender) {
    let seed = RandomState::new();
    let mut count = 0u64;
    let random = move || {
        count += 1;
        // The upper half of a keyed hash.
        u32::try_from(seed.hash_one(count) >> 32).unwrap_or(u32::MAX)
    };
    follow::follow(&config, client::Connector { config: &config }, random, &sender).await;
}
