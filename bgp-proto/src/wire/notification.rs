//! NOTIFICATION (RFC 4271 §4.5, §6; RFC 4486, 6608, 7313, 8538, 9003, 9234, 9384, 9687).
use std::fmt;

/// Error code and subcode; `Display` gives the registered name ("Bad Peer AS").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
}

impl Code {
    /// Any pair; named constants cover the registry (helper: add all of spec/bgp.md §0.2).
    pub const fn new(code: u8, subcode: u8) -> Self {
        Code { code, subcode }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

/// A NOTIFICATION: why a session ends, and the data that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Code and subcode.
    pub code: Code,
    /// The data field, never more than was received.
    pub data: Vec<u8>,
}

impl Notification {
    /// Without data.
    pub const fn new(code: Code) -> Self {
        Notification { code, data: Vec::new() }
    }

    /// With data.
    pub fn with_data(code: Code, data: impl Into<Vec<u8>>) -> Self {
        Notification { code, data: data.into() }
    }

    /// Administrative shutdown or reset with a text for the peer (RFC 9003), cut at a character
    /// boundary to 255 octets.
    pub fn with_text(code: Code, text: &str) -> Self {
        let _ = (code, text);
        todo!()
    }

    /// Parses a message body; total: an over-short body yields code 0/0.
    pub fn decode(body: &[u8]) -> Self {
        let _ = body;
        todo!()
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// The RFC 9003 text, if there is one: escaped (control, bidi), at most 255 octets of input;
    /// invalid lengths and UTF-8 yield a hex rendering, never an error. Looks inside 6/9.
    pub fn text(&self) -> Option<String> {
        todo!()
    }
}
