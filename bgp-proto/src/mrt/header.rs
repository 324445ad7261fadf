//! The header that all records have (RFC 6396 §2, §3).

use thiserror::Error;

/// Octets of a header.
pub const HEADER_LEN: usize = 12;
/// Longest body that is read or written, in octets. RFC 6396 has no bound, and a header of four octets of
/// length would otherwise make a reader allocate 4 GiB.
pub const BODY_MAX: usize = 1 << 24;

/// Types (RFC 6396 §4).
pub(super) const TABLE_DUMP_V2: u16 = 13;
pub(super) const BGP4MP: u16 = 16;
pub(super) const BGP4MP_ET: u16 = 17;

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MrtError {
    /// A field extends beyond the end of the record.
    #[error("the record ends within a field")]
    Short,
    /// The header's length is more than [`BODY_MAX`].
    #[error("a record of {0} octets: this is no MRT file, or it is damaged")]
    Long(u32),
    /// The prefix is longer than its family allows.
    #[error("a prefix of {0} bits")]
    PrefixLen(u8),
    /// The addresses of a session are of another family than IPv4 and IPv6.
    #[error("addresses of the unknown family {0}")]
    Afi(u16),
    /// The microseconds are a second or more.
    #[error("{0} microseconds")]
    Micros(u32),
}

/// When something happened, in Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Seconds.
    pub secs: u32,
    /// Microseconds, 0-999999; 0 in records without them.
    pub micros: u32,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the record was made, in seconds of Unix time.
    pub secs: u32,
    /// Type.
    pub kind: u16,
    /// Subtype.
    pub subtype: u16,
    /// Octets of the body, at most [`BODY_MAX`].
    pub len: usize,
}

impl Header {
    /// Decodes a header.
    ///
    /// # Errors
    /// The length is more than [`BODY_MAX`].
    pub fn decode(octets: [u8; HEADER_LEN]) -> Result<Header, MrtError> {
        let [a, b, c, d, k0, k1, s0, s1, l0, l1, l2, l3] = octets;
        let long = u32::from_be_bytes([l0, l1, l2, l3]);
        let len = usize::try_from(long).ok().filter(|len| *len <= BODY_MAX);
        Ok(Header {
            secs: u32::from_be_bytes([a, b, c, d]),
            kind: u16::from_be_bytes([k0, k1]),
            subtype: u16::from_be_bytes([s0, s1]),
            len: len.ok_or(MrtError::Long(long))?,
        })
    }
}

/// A record that is being written to the end of a buffer.
#[must_use = "its length is written at the end"]
pub(super) struct Open {
    start: usize,
}

impl Open {
    pub(super) fn begin(out: &mut Vec<u8>, secs: u32, kind: u16, subtype: u16) -> Open {
        let start = out.len();
        out.extend_from_slice(&secs.to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&subtype.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        Open { start }
    }

    /// Octets of the body so far.
    pub(super) fn len(&self, out: &[u8]) -> usize {
        out.len() - self.start - HEADER_LEN
    }

    /// Writes the length of the body.
    pub(super) fn end(self, out: &mut [u8]) {
        let len = u32::try_from(self.len(out)).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(self.start + 8..self.start + HEADER_LEN) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }

    /// Removes the record.
    pub(super) fn discard(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}
