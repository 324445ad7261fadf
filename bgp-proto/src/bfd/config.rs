//! Configuration of one session.

use std::num::NonZeroU8;
use std::time::Duration;

use super::Auth;

/// Shortest interval that can be configured. A host without real-time scheduling of its network
/// stack cannot keep a shorter one.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest interval that can be configured.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Who sends the first packet, RFC 5880 §6.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Sends whether or not packets are received (Active role).
    #[default]
    Active,
    /// Sends nothing until a packet is received (Passive role).
    Passive,
}

/// Parameters of a session. [`Session::reconfigure`](super::Session::reconfigure) applies a change
/// without taking the session down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shortest interval at which we send while Up, [`INTERVAL_MIN`]-[`INTERVAL_MAX`]. Default 300
    /// ms.
    pub min_tx: Duration,
    /// Shortest interval at which we receive, [`INTERVAL_MIN`]-[`INTERVAL_MAX`]. Default 300 ms.
    pub min_rx: Duration,
    /// Detect Mult: how many of our intervals the peer waits for a packet, 1-255. Default 3.
    pub multiplier: NonZeroU8,
    /// Who sends first. Default active.
    pub role: Role,
    /// Authentication. `None` (default): we send none, and packets that carry any are discarded.
    pub auth: Option<Auth>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: NonZeroU8::MIN.saturating_add(2),
            role: Role::Active,
            auth: None,
        }
    }
}
