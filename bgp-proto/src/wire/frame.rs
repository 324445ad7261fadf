//! Message framing (RFC 4271 §4.1, §6.1; RFC 8654).
use super::Notification;

/// Octets of a message header.
pub const HEADER_LEN: usize = 19;
/// Longest message without Extended Messages (RFC 4271 §4).
pub const MAX_LEN: usize = 4096;
/// Longest UPDATE, NOTIFICATION or ROUTE-REFRESH with Extended Messages (RFC 8654).
pub const EXTENDED_MAX_LEN: usize = 65535;

/// Message types (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// 1
    Open = 1,
    /// 2
    Update = 2,
    /// 3
    Notification = 3,
    /// 4
    Keepalive = 4,
    /// 5
    RouteRefresh = 5,
}

/// One complete message inside the received buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: MessageType,
    /// The whole message, header included.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Takes the first message off `buf`: `Ok(None)` when it is not complete yet. The header is checked
/// as soon as its 19 octets are there. `update_max_len` is [`MAX_LEN`] or, if *we* advertised
/// Extended Messages, [`EXTENDED_MAX_LEN`]. Errors: 1/1, 1/2, 1/3 with their data.
pub fn split_frame(buf: &[u8], update_max_len: usize) -> Result<Option<Frame<'_>>, Notification> {
    let _ = (buf, update_max_len);
    todo!()
}
