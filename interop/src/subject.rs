//! The speaker under test.

use anyhow::Result;

use crate::lab::Host;
use crate::speaker::{Config, Kind, Speaker};

/// margay, unless `INTEROP_SUBJECT=bird2` selects BIRD 2. If a test of the matrix fails with BIRD 2
/// as well, the test itself is wrong.
#[must_use]
pub fn kind() -> Kind {
    match std::env::var("INTEROP_SUBJECT").as_deref() {
        Ok("bird2") => Kind::Bird2,
        _ => Kind::Margay,
    }
}

/// Starts the speaker under test.
///
/// # Errors
/// As [`Kind::start`].
pub fn start(host: &Host, config: &Config) -> Result<Box<dyn Speaker>> {
    kind().start(host, config)
}
