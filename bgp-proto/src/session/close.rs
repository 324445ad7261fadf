//! Why a session ends, and the one map from that to a NOTIFICATION.

use crate::types::Time;
use crate::wire::{Code, Notification};

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We sent the NOTIFICATION.
    Sent,
    /// The peer sent it.
    Received,
    /// Nothing was sent: the connection failed, or a graceful stop.
    Local,
}

/// Why a connection or session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The operator or the host stops the peer; the text goes to the peer (RFC 9003). 6/2.
    Shutdown {
        /// Shutdown communication.
        text: String,
    },
    /// Reset by the operator. 6/4.
    Reset {
        /// Shutdown communication.
        text: String,
    },
    /// The peer was taken out of the configuration. 6/3.
    Deconfigured,
    /// Session parameters changed. 6/6.
    ConfigurationChange,
    /// More prefixes than allowed: 6/1 with AFI, SAFI and bound.
    PrefixLimit {
        /// The family.
        family: crate::types::Family,
        /// The bound.
        bound: u32,
    },
    /// Memory or descriptors ran out. 6/8.
    OutOfResources,
    /// A planned restart of ours: TCP closes without a NOTIFICATION so that the peer keeps our
    /// routes (RFC 4724 §4.1).
    GracefulStop,
    /// Lost a collision. 6/7.
    Collision,
    /// The connection was not wanted. 6/5.
    Rejected,
    /// 4/0.
    HoldTimerExpired,
    /// RFC 9687; TCP is reset, nothing is sent that could block.
    SendHoldTimerExpired,
    /// The peer broke the protocol: this NOTIFICATION answers it.
    Protocol(Notification),
    /// The peer sent a NOTIFICATION.
    Received(Notification),
    /// TCP failed or was closed; the host's words.
    Transport {
        /// For example "connection refused".
        text: String,
    },
}

/// What `show peers` says about the last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: Time,
    /// Who.
    pub origin: Origin,
    /// Code and subcode, where there was a NOTIFICATION.
    pub code: Option<Code>,
    /// For people.
    pub text: String,
}
