//! What waits inside the daemon.

use serde::{Deserialize, Serialize};

/// What waits inside the daemon, all VRFs together. Kernel routes that wait are in
/// [`super::FibCounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// Octets of received routes that the tables have not applied yet.
    pub received_octets: u64,
    /// Octets in the logs of update groups: what at least one member has not been sent yet.
    pub update_log_octets: u64,
    /// How often members were evicted from these logs for reading too slowly.
    pub evictions: u64,
}
