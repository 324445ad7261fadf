//! The MRT export format (RFC 6396), with path identifiers (RFC 8050): what route collectors write to
//! files, and what their readers expect.
//!
//! Written: TABLE_DUMP_V2 with PEER_INDEX_TABLE and the unicast RIBs, BGP4MP_ET with messages and state
//! changes. AS numbers are four octets wide, except in messages of sessions on which they are not. Read: the
//! same, with or without microseconds. Other records are [`Record::Other`], which a reader skips and counts.
//! Decoding is total: it borrows from the record, and allocates for the peers of a PEER_INDEX_TABLE only.

mod bgp4mp;
mod header;
mod reader;
mod table_dump;

pub use bgp4mp::{MessageOf, Session, StateChange, encode_message, encode_state_change};
pub use header::{BODY_MAX, HEADER_LEN, Header, MrtError, Stamp};
pub use table_dump::{Peer, PeerIndex, Rib, RibEntry, RibWriter};

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// TABLE_DUMP_V2, PEER_INDEX_TABLE: the peers that the RIBs after it refer to.
    PeerIndex(PeerIndex),
    /// TABLE_DUMP_V2, a unicast RIB: the paths of one prefix.
    Rib(Rib<'a>),
    /// BGP4MP or BGP4MP_ET, a message.
    Message(MessageOf<'a>),
    /// BGP4MP or BGP4MP_ET, a change of state.
    StateChange(StateChange),
    /// A type or subtype that is not read.
    Other {
        /// Its type.
        kind: u16,
        /// Its subtype.
        subtype: u16,
    },
}

impl<'a> Record<'a> {
    /// Decodes the body of a record, [`Header::len`] octets.
    ///
    /// # Errors
    /// The body is not what the type and subtype call for.
    pub fn decode(header: Header, body: &'a [u8]) -> Result<Record<'a>, MrtError> {
        match header.kind {
            header::TABLE_DUMP_V2 => table_dump::decode(header, body),
            header::BGP4MP | header::BGP4MP_ET => bgp4mp::decode(header, body),
            kind => Ok(Record::Other { kind, subtype: header.subtype }),
        }
    }

    /// The first record of `bytes`, and the octets after it; `None` if there is no complete one.
    ///
    /// # Errors
    /// As [`Record::decode`], and if the record is longer than [`BODY_MAX`].
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Record<'a>, &'a [u8])>, MrtError> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(*head)?;
        let Some((body, rest)) = rest.split_at_checked(header.len) else { return Ok(None) };
        Ok(Some((Record::decode(header, body)?, rest)))
    }
}

#[cfg(test)]
mod tests;
