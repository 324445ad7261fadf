//! Which requests may change something.

use super::{Rehearsal, Request};

impl Request {
    /// Whether the request may change anything: the daemon's state, sessions, the log, or what neighbours
    /// see. A read-only socket refuses it.
    pub fn may_change(&self) -> bool {
        match self {
            Request::ShowStatus
            | Request::ShowPeers
            | Request::ShowOverview
            | Request::ShowRates
            | Request::ShowPeersIn { .. }
            | Request::ShowPeer { .. }
            | Request::ShowRoutes { .. }
            | Request::ShowReceived { .. }
            | Request::ShowAdvertised { .. }
            | Request::Dump { .. }
            | Request::ShowFib { .. }
            | Request::ShowGroups
            | Request::ShowNexthops { .. }
            | Request::ShowBfd
            | Request::ShowBmp
            | Request::ShowKeyChains
            | Request::Health
            | Request::Explain { .. }
            | Request::ShowDrain
            | Request::ShowAnnounced
            | Request::Events { .. }
            | Request::ShowDebug
            | Request::ReloadDryRun { .. }
            | Request::CalicoDryRun { .. }
            | Request::ShowConfig
            | Request::ShowPolicy { .. }
            | Request::PolicyTest { .. } => false,
            Request::LogLevel { level } => level.is_some(),
            Request::Peer { rehearsal, .. } => *rehearsal == Rehearsal::Real,
            // It opens a connection to a neighbour.
            Request::Probe { .. } => true,
            Request::Drain { .. }
            | Request::Undrain { .. }
            | Request::Announce { .. }
            | Request::Withdraw { .. }
            | Request::Debug { .. }
            | Request::Reload
            | Request::ReloadUnconfirmed { .. }
            | Request::Confirm
            | Request::Stop { .. } => true,
        }
    }
}
