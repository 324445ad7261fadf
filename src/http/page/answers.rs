//! What a page asks for, and what it is told.

/// What a page asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The status of the daemon: what `margay show status --json` prints.
    Status,
    /// Sessions by kind and state: the answer to `show-overview`.
    Overview,
    /// What changed in the last minutes: the answer to `show-rates`, or `null`.
    Rates,
    /// The last events, oldest first: a list of what `margay events --json` prints.
    Events,
    /// One peer: what `margay show peers NAME --json` prints.
    Peer {
        /// Its name or address.
        name: String,
    },
    /// One destination: what `margay explain --json` prints.
    Explain {
        /// A prefix, or an address: the longest prefix that covers it.
        destination: String,
        /// The VRF; `None`: the default VRF.
        vrf: Option<String>,
    },
}

/// An answer, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such peer, VRF or destination.
    NotFound(String),
    /// The question makes no sense.
    BadRequest(String),
    /// Anything else.
    Failed(String),
}

impl Failure {
    /// The kind, as the control protocol calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::NotFound(_) => "not-found",
            Failure::BadRequest(_) => "bad-request",
            Failure::Failed(_) => "failed",
        }
    }

    /// The text, for operators.
    pub fn text(&self) -> &str {
        match self {
            Failure::NotFound(text) | Failure::BadRequest(text) | Failure::Failed(text) => text,
        }
    }
}
