//! Operators' commands to sessions, as they are encoded in a request.

use serde::{Deserialize, Serialize};

/// An operator's command to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerAction {
    /// Shuts the session down until it is started again (Cease 6/2).
    Stop {
        /// The shutdown communication (RFC 9003): at most 255 octets, more are cut off. Empty:
        /// none.
        #[serde(default)]
        message: String,
        /// How long the shutdown lasts at most.
        #[serde(default)]
        lasts: Lasts,
    },
    /// Starts a session that was shut down.
    Start,
    /// Ends the session (Cease 6/4); it restarts by itself.
    Reset {
        /// As for `Stop`. Only with [`RoutesOnReset::Withdraw`].
        #[serde(default)]
        message: String,
        /// Whether its routes are kept until it is back.
        #[serde(default)]
        routes: RoutesOnReset,
    },
    /// Sends routes again without ending the session (RFC 2918).
    Refresh(Direction),
    /// Connects now: ends an idle hold, and does not wait for the retry timer.
    Retry,
}

impl PeerAction {
    /// Whether this is [`PeerAction::Reset`].
    pub fn is_reset(&self) -> bool {
        matches!(self, PeerAction::Reset { .. })
    }
}

/// How long a shutdown lasts unless the peer is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasts {
    /// Until the daemon restarts.
    #[default]
    Run,
    /// Until the machine reboots.
    Boot,
    /// While the node's own object in Calico's datastore says so.
    Object,
}

/// What happens to the routes of a session that is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutesOnReset {
    /// Both sides withdraw them.
    #[default]
    Withdraw,
    /// Both sides keep them, as for a restart (RFC 4724): TCP closes without a NOTIFICATION.
    Keep,
}

/// Which routes are sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Those of the neighbour.
    In,
    /// Those that we advertise.
    Out,
    /// Both.
    #[default]
    Both,
}

/// The peers that a command concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Every peer.
    All,
    /// Peers with these names or addresses, and peers whose names match these patterns (`*`, `?`).
    Named(Vec<String>),
}

/// Whether a command is carried out, or only described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rehearsal {
    /// It is carried out.
    #[default]
    Real,
    /// The answer describes what it would do, and nothing is done.
    DryRun,
}

impl Rehearsal {
    pub(crate) fn is_real(&self) -> bool {
        *self == Rehearsal::Real
    }
}
