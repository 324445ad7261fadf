//! Writing UPDATEs: packing prefixes up to the negotiated length.
use super::AttrView;
use crate::types::{Family, NextHop, PathId, Prefix};

/// Longest UPDATE that may be sent to a peer.
pub const fn max_len_for(extended_message: bool) -> usize {
    if extended_message { super::EXTENDED_MAX_LEN } else { super::MAX_LEN }
}

/// How announcements to a peer are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnounceFormat {
    /// The family.
    pub family: Family,
    /// Two-octet peers get AS_TRANS and AS4_PATH / AS4_AGGREGATOR (RFC 6793).
    pub four_octet_as: bool,
    /// Prefixes carry path identifiers.
    pub add_path: bool,
    /// Longest message in octets.
    pub max_len: usize,
}

/// Packs UPDATEs with one set of attributes, or withdrawals, into a buffer.
///
/// IPv4 with an IPv4 next hop goes into the classic fields; everything else into MP_REACH_NLRI
/// (first attribute, RFC 7606 §5.1) and MP_UNREACH_NLRI. Never mixes announcements and withdrawals.
pub struct UpdateWriter<'o> {
    out: &'o mut Vec<u8>,
    // The implementer's.
}

/// One prefix with this attribute set does not fit into one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl<'o> UpdateWriter<'o> {
    /// Starts announcements. `attrs` is canonical; the writer adds the next hop.
    pub fn announce(
        out: &'o mut Vec<u8>,
        format: AnnounceFormat,
        attrs: AttrView<'_>,
        next_hop: NextHop,
    ) -> Self {
        let _ = (format, attrs, next_hop);
        UpdateWriter { out }
    }
    /// Starts withdrawals.
    pub fn withdraw(out: &'o mut Vec<u8>, format: AnnounceFormat) -> Self {
        let _ = format;
        UpdateWriter { out }
    }
    /// Adds one prefix, starting a new message when the current one is full.
    pub fn push(&mut self, path_id: PathId, prefix: Prefix) -> Result<(), TooLong> {
        let _ = (path_id, prefix, &self.out);
        todo!()
    }
    /// Completes the last message; returns how many messages were written in all. Message
    /// boundaries are found in the output by the length fields.
    pub fn finish(self) -> usize {
        todo!()
    }
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let _ = out;
    todo!()
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(out: &mut Vec<u8>, family: Family) {
    let _ = (out, family);
    todo!()
}
