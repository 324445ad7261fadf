//! Debugging of peers.

use serde::{Deserialize, Serialize};

/// A peer whose messages are logged, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debugged {
    /// Its name.
    pub peer: String,
    /// Seconds until it ends by itself; `null`: its messages are not logged.
    pub seconds: Option<u64>,
    /// Messages that were not logged because there were too many.
    pub dropped: u64,
}
