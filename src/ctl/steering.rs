//! What operators may want of sessions, as it stands in a request.

use serde::{Deserialize, Serialize};

/// What an operator does with a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerAction {
    /// Ends it until it is started again (Cease 6/2).
    Stop {
        /// The shutdown communication (RFC 9003): at most 255 octets, more is cut. Empty: none.
        #[serde(default)]
        message: String,
        /// How long, at most.
        #[serde(default)]
        lasts: Lasts,
    },
    /// Ends a stop.
    Start,
    /// Ends the session (Cease 6/4); it comes back by itself.
    Reset {
        /// As with `Stop`. Only with [`RoutesOnReset::Withdraw`].
        #[serde(default)]
        message: String,
        /// What becomes of its routes until it is back.
        #[serde(default)]
        routes: RoutesOnReset,
    },
    /// Routes are sent again, without an end of the session (RFC 2918).
    Refresh(Direction),
    /// What failed before is forgotten: an idle hold ends, the neighbour is dialled now.
    Retry,
}

impl PeerAction {
    /// Whether the session ends and comes back.
    pub fn is_reset(&self) -> bool {
        matches!(self, PeerAction::Reset { .. })
    }
}

/// How long a stopped peer stays stopped, unless it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasts {
    /// As long as the daemon runs.
    #[default]
    Run,
    /// As long as the machine runs.
    Boot,
}

/// What becomes of the routes of a session that is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutesOnReset {
    /// Both sides withdraw them.
    #[default]
    Withdraw,
    /// Both sides keep them, as over a restart (RFC 4724): TCP closes without a NOTIFICATION.
    Keep,
}

/// Whose routes are sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The neighbour's.
    In,
    /// Ours.
    Out,
    /// Both.
    #[default]
    Both,
}

/// Whom an order concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Every peer.
    All,
    /// Those with these names or addresses, and those whose names match these patterns (`*`, `?`).
    Named(Vec<String>),
}

/// Whether something is done, or only told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rehearsal {
    /// It is done.
    #[default]
    Real,
    /// What would be done is told, and nothing is done.
    DryRun,
}

impl Rehearsal {
    pub(super) fn is_real(&self) -> bool {
        *self == Rehearsal::Real
    }
}
