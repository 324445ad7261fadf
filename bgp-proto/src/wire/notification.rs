//! NOTIFICATION (RFC 4271 §4.5, §6; RFC 4486, 6608, 7313, 8538, 9003, 9234, 9384, 9687).
use std::fmt;
use std::fmt::Write as _;

use super::frame::{MAX_LEN, MessageType, begin_message, finish_message};

/// Error code and subcode; `Display` gives the registered name ("Bad Peer AS").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal / $subcode:literal, $text:literal;)*) => {
        impl Code {
            $(
                #[doc = concat!($text, ".")]
                $(#[$doc])*
                pub const $name: Code = Code::new($code, $subcode);
            )*

            /// The registered name; `None` for a pair that is not registered.
            pub const fn name(self) -> Option<&'static str> {
                Some(match (self.code, self.subcode) {
                    $(($code, $subcode) => $text,)*
                    _ => return None,
                })
            }
        }

        #[cfg(test)]
        const REGISTRY: &[Code] = &[$(Code::$name),*];
    };
}

codes! {
    /// RFC 4271 §6.1.
    MESSAGE_HEADER_ERROR = 1 / 0, "Message Header Error";
    /// RFC 4271 §6.1: the marker is not all ones.
    CONNECTION_NOT_SYNCHRONIZED = 1 / 1, "Connection Not Synchronized";
    /// RFC 4271 §6.1. Data: the length field.
    BAD_MESSAGE_LENGTH = 1 / 2, "Bad Message Length";
    /// RFC 4271 §6.1. Data: the type.
    BAD_MESSAGE_TYPE = 1 / 3, "Bad Message Type";
    /// RFC 4271 §6.2: a malformed parameter or capability.
    OPEN_MESSAGE_ERROR = 2 / 0, "OPEN Message Error";
    /// RFC 4271 §6.2. Data: the version that we support, two octets.
    UNSUPPORTED_VERSION = 2 / 1, "Unsupported Version Number";
    /// RFC 4271 §6.2, RFC 7607.
    BAD_PEER_AS = 2 / 2, "Bad Peer AS";
    /// RFC 6286 §2.2.
    BAD_BGP_IDENTIFIER = 2 / 3, "Bad BGP Identifier";
    /// RFC 4271 §6.2.
    UNSUPPORTED_OPTIONAL_PARAMETER = 2 / 4, "Unsupported Optional Parameter";
    /// Deprecated by RFC 4271.
    AUTHENTICATION_FAILURE = 2 / 5, "Authentication Failure";
    /// RFC 4271 §6.2.
    UNACCEPTABLE_HOLD_TIME = 2 / 6, "Unacceptable Hold Time";
    /// RFC 5492 §5. Data: the capabilities that are required and missing.
    UNSUPPORTED_CAPABILITY = 2 / 7, "Unsupported Capability";
    /// RFC 9234 §4.2.
    ROLE_MISMATCH = 2 / 11, "Role Mismatch";
    /// RFC 4271 §6.3.
    UPDATE_MESSAGE_ERROR = 3 / 0, "UPDATE Message Error";
    /// RFC 4271 §6.3, RFC 7606 §3.
    MALFORMED_ATTRIBUTE_LIST = 3 / 1, "Malformed Attribute List";
    /// RFC 4271 §6.3. Data: the attribute.
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3 / 2, "Unrecognized Well-known Attribute";
    /// RFC 4271 §6.3. Data: the type.
    MISSING_WELL_KNOWN_ATTRIBUTE = 3 / 3, "Missing Well-known Attribute";
    /// RFC 4271 §6.3. Data: the attribute.
    ATTRIBUTE_FLAGS_ERROR = 3 / 4, "Attribute Flags Error";
    /// RFC 4271 §6.3. Data: the attribute.
    ATTRIBUTE_LENGTH_ERROR = 3 / 5, "Attribute Length Error";
    /// RFC 4271 §6.3. Data: the attribute.
    INVALID_ORIGIN_ATTRIBUTE = 3 / 6, "Invalid ORIGIN Attribute";
    /// Deprecated by RFC 4271.
    AS_ROUTING_LOOP = 3 / 7, "AS Routing Loop";
    /// RFC 4271 §6.3. Data: the attribute.
    INVALID_NEXT_HOP_ATTRIBUTE = 3 / 8, "Invalid NEXT_HOP Attribute";
    /// RFC 4271 §6.3. Data: the attribute.
    OPTIONAL_ATTRIBUTE_ERROR = 3 / 9, "Optional Attribute Error";
    /// RFC 4271 §6.3.
    INVALID_NETWORK_FIELD = 3 / 10, "Invalid Network Field";
    /// RFC 4271 §6.3.
    MALFORMED_AS_PATH = 3 / 11, "Malformed AS_PATH";
    /// RFC 4271 §6.5.
    HOLD_TIMER_EXPIRED = 4 / 0, "Hold Timer Expired";
    /// RFC 4271 §6.6.
    FSM_ERROR = 5 / 0, "Finite State Machine Error";
    /// RFC 6608. Data: the message type.
    UNEXPECTED_IN_OPEN_SENT = 5 / 1, "Receive Unexpected Message in OpenSent State";
    /// RFC 6608. Data: the message type.
    UNEXPECTED_IN_OPEN_CONFIRM = 5 / 2, "Receive Unexpected Message in OpenConfirm State";
    /// RFC 6608. Data: the message type.
    UNEXPECTED_IN_ESTABLISHED = 5 / 3, "Receive Unexpected Message in Established State";
    /// RFC 4271 §6.7.
    CEASE = 6 / 0, "Cease";
    /// RFC 4486 §4. Data, optional: AFI, SAFI, bound.
    MAXIMUM_PREFIXES = 6 / 1, "Maximum Number of Prefixes Reached";
    /// RFC 4486, RFC 9003. Data: a text.
    ADMINISTRATIVE_SHUTDOWN = 6 / 2, "Administrative Shutdown";
    /// RFC 4486.
    PEER_DECONFIGURED = 6 / 3, "Peer De-configured";
    /// RFC 4486, RFC 9003. Data: a text.
    ADMINISTRATIVE_RESET = 6 / 4, "Administrative Reset";
    /// RFC 4486.
    CONNECTION_REJECTED = 6 / 5, "Connection Rejected";
    /// RFC 4486.
    OTHER_CONFIGURATION_CHANGE = 6 / 6, "Other Configuration Change";
    /// RFC 4486, RFC 4271 §6.8.
    CONNECTION_COLLISION = 6 / 7, "Connection Collision Resolution";
    /// RFC 4486.
    OUT_OF_RESOURCES = 6 / 8, "Out of Resources";
    /// RFC 8538 §3. Data: the encapsulated code, subcode and data.
    HARD_RESET = 6 / 9, "Hard Reset";
    /// RFC 9384.
    BFD_DOWN = 6 / 10, "BFD Down";
    /// RFC 7313 §5.
    ROUTE_REFRESH_ERROR = 7 / 0, "ROUTE-REFRESH Message Error";
    /// RFC 7313 §5. Data: the whole message.
    ROUTE_REFRESH_BAD_LENGTH = 7 / 1, "Invalid Message Length";
    /// RFC 9687.
    SEND_HOLD_TIMER_EXPIRED = 8 / 0, "Send Hold Timer Expired";
}

impl Code {
    /// A pair of numbers, registered or not.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Code { code, subcode }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return f.write_str(name);
        }
        match (Code::new(self.code, 0)).name() {
            Some(class) => write!(f, "{class}, subcode {}", self.subcode),
            None => write!(f, "error {}/{}", self.code, self.subcode),
        }
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
    /// Longest data field that is sent: every peer accepts 4096 octets, whatever it advertised.
    const DATA_MAX_LEN: usize = MAX_LEN - 21;

    /// A NOTIFICATION without data.
    pub const fn new(code: Code) -> Self {
        Notification { code, data: Vec::new() }
    }

    /// A NOTIFICATION with data.
    pub fn with_data(code: Code, data: impl Into<Vec<u8>>) -> Self {
        Notification { code, data: data.into() }
    }

    /// Administrative shutdown or reset with a text for the peer (RFC 9003), cut at a character
    /// boundary to 255 octets.
    pub fn with_text(code: Code, text: &str) -> Self {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let cut = ends.take_while(|end| *end <= 255).last().unwrap_or(0);
        let text = text.get(..cut).unwrap_or_default();
        let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let mut data = Vec::with_capacity(text.len() + 1);
        data.push(len);
        data.extend_from_slice(text.as_bytes());
        Notification { code, data }
    }

    /// Parses a message body; total: an over-short body yields code 0/0.
    pub fn decode(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => {
                Notification { code: Code::new(*code, *subcode), data: data.to_vec() }
            }
            _ => Notification::new(Code::new(0, 0)),
        }
    }

    /// Appends the whole message. Data beyond 4075 octets is cut: a peer that did not advertise
    /// Extended Messages could not read it (RFC 8654 §4).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_message(out, MessageType::Notification);
        out.extend_from_slice(&[self.code.code, self.code.subcode]);
        let data = self.data.get(..Self::DATA_MAX_LEN).unwrap_or(&self.data);
        out.extend_from_slice(data);
        finish_message(out, start);
    }

    /// The RFC 9003 text, if there is one: escaped (control, bidi), at most 255 octets of input;
    /// invalid lengths and UTF-8 yield a hex rendering, never an error. Looks inside 6/9.
    pub fn text(&self) -> Option<String> {
        let (code, data) = match (self.code, self.data.as_slice()) {
            (Code::HARD_RESET, [code, subcode, data @ ..]) => (Code::new(*code, *subcode), data),
            (code, data) => (code, data),
        };
        if !matches!(code, Code::ADMINISTRATIVE_SHUTDOWN | Code::ADMINISTRATIVE_RESET) {
            return None;
        }
        let (len, rest) = data.split_first()?;
        match rest.get(..usize::from(*len)).map(str::from_utf8) {
            Some(Ok("")) => None,
            Some(Ok(text)) => Some(escape(text)),
            Some(Err(_)) | None => Some(hex(data.get(..256).unwrap_or(data))),
        }
    }
}

impl std::error::Error for Notification {}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// Makes text from a peer safe for one line of a log: nothing moves the cursor, starts a new line
/// or changes the direction of writing.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that change how their neighbours look: bidirectional controls, zero-width characters,
/// line and paragraph separators, tags.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `0x` and two digits for each octet.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("0x");
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_print_their_registered_names() {
        assert_eq!(Code::BAD_PEER_AS.to_string(), "Bad Peer AS");
        assert_eq!(Code::new(6, 99).to_string(), "Cease, subcode 99");
        assert_eq!(Code::new(99, 1).to_string(), "error 99/1");
        let mut registry = REGISTRY.to_vec();
        registry.sort();
        registry.dedup();
        assert_eq!(registry.len(), REGISTRY.len(), "one name for each pair");
    }

    #[test]
    fn a_text_is_cut_at_a_character_boundary() {
        let n = Notification::with_text(Code::ADMINISTRATIVE_SHUTDOWN, &"é".repeat(200));
        assert_eq!((n.data.len(), n.data[0]), (255, 254));
        assert_eq!(n.text(), Some("é".repeat(127)));
    }

    #[test]
    fn texts_from_peers_are_harmless() {
        let text = |code, data: &[u8]| Notification::with_data(code, data).text();
        let shutdown = Code::ADMINISTRATIVE_SHUTDOWN;
        assert_eq!(text(shutdown, b"\x05a\nb\x1b["), Some("a\\u{a}b\\u{1b}[".into()));
        assert_eq!(text(shutdown, "\u{6}a\u{202e}bc".as_bytes()), Some("a\\u{202e}bc".into()));
        assert_eq!(text(shutdown, b"\x09abc"), Some("0x09616263".into()), "length overruns");
        assert_eq!(text(shutdown, b"\x02\xff\xfe"), Some("0x02fffe".into()), "not UTF-8");
        assert_eq!(text(shutdown, b""), None);
        assert_eq!(text(shutdown, b"\x00"), None);
        assert_eq!(text(Code::HARD_RESET, b"\x06\x02\x02ok"), Some("ok".into()));
        assert_eq!(text(Code::HARD_RESET, b"\x06"), None);
        assert_eq!(text(Code::BAD_PEER_AS, b"\x02ok"), None);
    }

    #[test]
    fn what_is_sent_fits_every_peer() {
        let mut out = Vec::new();
        Notification::with_data(Code::OPTIONAL_ATTRIBUTE_ERROR, vec![7; 60_000]).encode(&mut out);
        assert_eq!(out.len(), MAX_LEN);
        assert_eq!(out[16..21], [0x10, 0x00, 3, 3, 9]);
    }

    proptest! {
        #[test]
        fn decoding_is_total_and_inverts_encoding(
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let n = Notification::decode(&body);
            let _ = (n.text(), n.to_string());
            if body.len() >= 2 {
                let mut out = Vec::new();
                n.encode(&mut out);
                prop_assert_eq!(&out[19..], &body[..]);
            }
        }
    }
}
