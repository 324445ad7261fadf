//! ROUTE-REFRESH (RFC 2918, RFC 7313).
use super::Notification;
use crate::types::AfiSafi;

/// The subtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// 0.
    Request,
    /// 1, BoRR.
    Begin,
    /// 2, EoRR.
    End,
    /// Anything else: ignored.
    Unknown(u8),
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family asked for.
    pub family: AfiSafi,
    /// The subtype.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// Parses a whole message (header included, because 7/1 returns it). `enhanced`: both sides
    /// advertised capability 70. Extra octets after subtype 0 (ORF) are tolerated.
    pub fn decode(message: &[u8], enhanced: bool) -> Result<RouteRefresh, Notification> {
        let _ = (message, enhanced);
        todo!()
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
