//! Dumps of the table.

use serde::{Deserialize, Serialize};

/// A part of a dump. The parts in their order are one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpPart {
    /// MRT records, whole ones, in base64.
    pub mrt: String,
    /// Prefixes written so far, each a record.
    pub prefixes: u32,
    /// Paths written so far.
    pub paths: u64,
    /// Paths left out so far: of peers that were added after the dump began, and of more octets than a
    /// record has room for.
    pub left_out: u64,
}
