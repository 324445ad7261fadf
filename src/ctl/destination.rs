//! What `explain` and lists of routes are asked about.

use std::str::FromStr;

use bgp_proto::types::{ParseError, Prefix};

use super::Lookup;

/// A destination as people write it: a prefix means exactly that prefix, an address its longest match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The prefix.
    pub prefix: Prefix,
    /// Whether exactly this prefix is meant, or the longest that covers it.
    pub lookup: Lookup,
}

impl FromStr for Destination {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let prefix = text.parse()?;
        let lookup = if text.contains('/') { Lookup::Exact } else { Lookup::Longest };
        Ok(Destination { prefix, lookup })
    }
}
