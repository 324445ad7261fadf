//! Lines of an answer: a code of four digits, then `-` where more follow and a blank on the last.

use std::fmt;

/// What a last line says when there is nothing to say.
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

/// An answer that is a single line, because what was asked for cannot be given.
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

/// The lines of one answer, as far as they are not written yet.
#[derive(Debug, Default)]
pub(super) struct Reply {
    octets: Vec<u8>,
    /// Code of the line before, within this answer.
    last: Option<u16>,
}

impl Reply {
    /// A line that more lines follow. The code is left out where it is that of the line before.
    pub(super) fn line(&mut self, code: u16, text: fmt::Arguments<'_>) {
        if self.last == Some(code) {
            self.octets.push(b' ');
        } else {
            self.octets.extend(format!("{code:04}-").into_bytes());
        }
        self.last = Some(code);
        self.text(text);
    }

    /// The last line, which always has its code.
    pub(super) fn end(&mut self, code: u16, text: fmt::Arguments<'_>) {
        self.octets.extend(format!("{code:04} ").into_bytes());
        self.last = None;
        self.text(text);
    }

    /// Octets that [`Reply::take`] would give.
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.octets)
    }

    /// Names and reasons may come from peers: nothing in them may end the line.
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
    fn a_code_is_written_where_it_changes_and_at_the_end() {
        let mut reply = Reply::default();
        reply.line(2002, format_args!("name"));
        reply.line(1002, format_args!("a"));
        reply.line(1002, format_args!("b"));
        assert_eq!(reply.take(), b"2002-name\n1002-a\n b\n");
        reply.line(1002, format_args!("c"));
        reply.end(0, format_args!(""));
        assert_eq!(reply.take(), b" c\n0000 \n", "pages of one answer belong together");
        reply.line(0, format_args!("x"));
        assert_eq!(reply.take(), b"0000-x\n", "the next answer begins with its code");
    }

    #[test]
    fn no_text_ends_a_line() {
        let mut reply = Reply::default();
        reply.line(1006, format_args!("a\nb\r\u{1b}c\td"));
        assert_eq!(reply.take(), "1006-a\u{fffd}b\u{fffd}\u{fffd}c\td\n".as_bytes());
    }
}
