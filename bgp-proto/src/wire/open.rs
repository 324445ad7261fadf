//! OPEN (RFC 4271 §4.2, RFC 5492, RFC 9072).
use super::{Capabilities, Notification};
use crate::types::{Asn, RouterId};

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The real AS: capability 65 if present, else the two-octet field.
    pub asn: Asn,
    /// Seconds as sent; 0 turns both timers off.
    pub hold_time_secs: u16,
    /// BGP Identifier.
    pub router_id: RouterId,
    /// Capabilities.
    pub capabilities: Capabilities,
}

impl Open {
    /// Parses a body. Checks everything that needs no configuration: version (2/1), parameters
    /// (2/0, 2/4), AS 0 and 23456 without capability (2/2), identifier 0 (2/3), hold time 1 or 2 (2/6).
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        let _ = body;
        todo!()
    }

    /// Appends the whole message; RFC 9072 form only when the parameters exceed 255 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
