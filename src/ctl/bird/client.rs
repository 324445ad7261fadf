//! The client side of the protocol: queries BIRD, or margay in its place.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::ctl::connect;

/// Maximum length of a reply line, in bytes.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Maximum number of reply lines: bounds a reply that never ends.
const LINES_MAX: u64 = 32 << 20;
/// Reply codes from here on are errors.
const REFUSED_FROM: u16 = 8000;

/// How a reply line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// With a code, and whether it is the last line.
    Code(u16, Place),
    /// With a blank: the code of the previous line applies.
    Continued,
    /// With none of these; not defined by the protocol.
    Unmarked,
}

/// The position of a line in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// More lines follow.
    Within,
    /// It is the last line.
    End,
}

/// Reads one line, including the line end, into `line`; returns how it begins, and its text.
///
/// # Errors
/// The stream ended or failed.
pub fn read_line<'l>(
    reader: &mut impl BufRead,
    line: &'l mut Vec<u8>,
) -> io::Result<(Mark, &'l [u8])> {
    line.clear();
    let mut bounded = Read::take(&mut *reader, LINE_LEN_MAX);
    if bounded.read_until(b'\n', line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match line.as_slice() {
        [b' ', text @ ..] => (Mark::Continued, text),
        [a, b, c, d, end @ (b' ' | b'-'), text @ ..]
            if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            let digits = [a, b, c, d].into_iter();
            let code = digits.fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
            let place = if *end == b' ' { Place::End } else { Place::Within };
            (Mark::Code(code, place), text)
        }
        other => (Mark::Unmarked, other),
    })
}

/// Whether a reply code means that the command failed.
pub fn is_refusal(code: u16) -> bool {
    code >= REFUSED_FROM
}

/// A connection to a control socket.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    /// The server's greeting, such as `BIRD 1.6.8 ready.`
    pub greeting: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection failed or timed out.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server refused the command, with this text.
    #[error("it answers \"{0}\"")]
    Refused(String),
}

impl Client {
    /// Connects and reads the greeting. `patience` limits the wait for each line of a reply.
    ///
    /// # Errors
    /// No server answers on the socket.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Client> {
        let stream = connect(path, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut client = Client { reader: BufReader::new(stream), greeting: String::new() };
        let mut greeting = String::new();
        match client.answer(&mut |_, text: &str| text.clone_into(&mut greeting)) {
            Ok(()) => client.greeting = greeting,
            Err(AskError::Io(error)) => return Err(error),
            Err(AskError::Refused(text)) => return Err(io::Error::other(text)),
        }
        Ok(client)
    }

    /// Sends a command and passes every line of the reply, with its code, to `each`.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn ask(&mut self, command: &str, mut each: impl FnMut(u16, &str)) -> Result<(), AskError> {
        self.reader.get_ref().write_all(format!("{command}\n").as_bytes())?;
        self.answer(&mut each)
    }

    fn answer(&mut self, each: &mut impl FnMut(u16, &str)) -> Result<(), AskError> {
        let mut line = Vec::new();
        let mut last = 0;
        for _ in 0..LINES_MAX {
            let (mark, text) = read_line(&mut self.reader, &mut line)?;
            let text = String::from_utf8_lossy(text);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let place = match mark {
                Mark::Code(code, place) => {
                    last = code;
                    place
                }
                Mark::Continued | Mark::Unmarked => Place::Within,
            };
            if is_refusal(last) {
                return Err(AskError::Refused(text.to_owned()));
            }
            each(last, text);
            if place == Place::End {
                return Ok(());
            }
        }
        Err(io::Error::other("the answer does not end").into())
    }
}
