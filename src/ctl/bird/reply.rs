//! Lines of a reply: a four-digit code, then `-` if more lines follow, or a blank on the last.

use std::fmt;

/// The code of a last line that has no other.
pub(super) const OK: u16 = 0;
pub(super) const GREETING: u16 = 1;
pub(super) const READING_CONFIGURATION: u16 = 2;
pub(super) const RECONFIGURED: u16 = 3;
pub(super) const ALREADY: u16 = 8;
pub(super) const DISABLED: u16 = 9;
pub(super) const ALREADY_ENABLED: u16 = 10;
pub(super) const ENABLED: u16 = 11;
pub(super) const RESTARTED: u16 = 12;
pub(super) const RUNNING: u16 = 13;
pub(super) const ROUTE_COUNT: u16 = 14;
pub(super) const RELOADING: u16 = 15;
pub(super) const RESTRICTED: u16 = 16;
pub(super) const CONFIGURATION_OK: u16 = 20;
pub(super) const GRACEFUL_RESTART: u16 = 24;
pub(super) const VERSION: u16 = 1000;
pub(super) const INTERFACE: u16 = 1001;
pub(super) const PROTOCOL: u16 = 1002;
pub(super) const INTERFACE_ADDRESS: u16 = 1003;
pub(super) const INTERFACE_FLAGS: u16 = 1004;
pub(super) const INTERFACE_SUMMARY: u16 = 1005;
pub(super) const PROTOCOL_DETAILS: u16 = 1006;
pub(super) const ROUTE: u16 = 1007;
pub(super) const ROUTE_TYPE: u16 = 1008;
pub(super) const UPTIME: u16 = 1011;
pub(super) const ROUTE_ATTRIBUTES: u16 = 1012;
pub(super) const BFD_SESSION: u16 = 1020;
pub(super) const PROTOCOL_HEADING: u16 = 2002;
pub(super) const INTERFACE_HEADING: u16 = 2005;
pub(super) const NO_NETWORK: u16 = 8001;
pub(super) const CONFIGURATION_FAULT: u16 = 8002;
pub(super) const NO_PROTOCOLS: u16 = 8003;
pub(super) const PROTOCOL_DOWN: u16 = 8005;
pub(super) const RELOAD_FAILED: u16 = 8006;
pub(super) const ACCESS_DENIED: u16 = 8007;
pub(super) const FAILED: u16 = 8008;
pub(super) const BUSY: u16 = 8009;
pub(super) const TOO_LONG: u16 = 9000;
pub(super) const SYNTAX: u16 = 9001;
pub(super) const NOT_A_PROTOCOL: u16 = 9002;

/// An error reply: a single line with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Refusal { code, text: text.into() }
    }

    pub(super) fn syntax() -> Self {
        Refusal::new(SYNTAX, "syntax error")
    }
}

/// The lines of one reply that are not written to the client yet.
#[derive(Debug, Default)]
pub(super) struct Reply {
    octets: Vec<u8>,
    /// The code of the previous line of this reply.
    last: Option<u16>,
}

impl Reply {
    /// Adds a line that is not the last. Its code is omitted if the previous line has the same.
    pub(super) fn line(&mut self, code: u16, text: fmt::Arguments<'_>) {
        if self.last == Some(code) {
            self.octets.push(b' ');
        } else {
            self.octets.extend(format!("{code:04}-").into_bytes());
        }
        self.last = Some(code);
        self.text(text);
    }

    /// Adds the last line, which always has a code.
    pub(super) fn end(&mut self, code: u16, text: fmt::Arguments<'_>) {
        self.octets.extend(format!("{code:04} ").into_bytes());
        self.last = None;
        self.text(text);
    }

    /// The number of bytes that [`Reply::take`] would return.
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// Takes what was added since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.octets)
    }

    /// Adds the text, which may be from peers (names, reasons): control characters are replaced so
    /// that it cannot end the line.
    fn text(&mut self, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        let safe = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        self.octets.extend(text.chars().map(safe).collect::<String>().into_bytes());
        self.octets.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_when_it_changes_and_on_the_last_line() {
        let mut reply = Reply::default();
        reply.line(2002, format_args!("name"));
        reply.line(1002, format_args!("a"));
        reply.line(1002, format_args!("b"));
        assert_eq!(reply.take(), b"2002-name\n1002-a\n b\n");
        reply.line(1002, format_args!("c"));
        reply.end(0, format_args!(""));
        assert_eq!(reply.take(), b" c\n0000 \n", "the reply continues across pages");
        reply.line(0, format_args!("x"));
        assert_eq!(reply.take(), b"0000-x\n", "the next reply begins with its code");
    }

    #[test]
    fn text_cannot_end_a_line() {
        let mut reply = Reply::default();
        reply.line(1006, format_args!("a\nb\r\u{1b}c\td"));
        assert_eq!(reply.take(), "1006-a\u{fffd}b\u{fffd}\u{fffd}c\td\n".as_bytes());
    }
}
