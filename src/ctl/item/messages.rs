//! Message counters.

use serde::{Deserialize, Serialize};

/// Message counters of a peer since it was configured: [`bgp_proto::session::Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The other fields are documented there.
pub struct Messages {
    pub updates_received: u64,
    pub keepalives_received: u64,
    pub keepalives_sent: u64,
    pub notifications_received: u64,
    pub notifications_sent: u64,
    pub refreshes_received: u64,
    pub refreshes_sent: u64,
    pub treated_as_withdraw: u64,
    pub attributes_discarded: u64,
    pub octets_received: u64,
    /// UPDATEs sent.
    #[serde(default)]
    pub updates_sent: u64,
    /// Octets sent, of messages of any kind.
    #[serde(default)]
    pub octets_sent: u64,
    /// Prefixes in received UPDATEs, announced or withdrawn, whether or not that changed anything.
    #[serde(default)]
    pub prefixes_received: u64,
    /// Prefixes in sent UPDATEs, announced or withdrawn, since the session came up.
    #[serde(default)]
    pub prefixes_sent: u64,
    pub established_transitions: u64,
    pub connect_failures: u64,
}
