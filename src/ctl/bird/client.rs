//! The other end of the protocol: asks BIRD, or margay in its place.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::ctl::connect;

/// Longest line of an answer, in octets.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Most lines of an answer: one that goes on for ever ends.
const LINES_MAX: u64 = 32 << 20;
/// From this code on an answer is a refusal.
const REFUSED_FROM: u16 = 8000;

/// What a line of an answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A code; it ends the answer, or does not.
    Code(u16, Place),
    /// The code of the line before.
    Continued,
    /// Nothing that the protocol knows.
    Unmarked,
}

/// Where in an answer a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Others follow.
    Within,
    /// It is the last one.
    End,
}

/// Reads one line with its end into `line`, and says how it begins and where its text is.
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

/// Whether a code says that what was asked cannot be done.
pub fn is_refusal(code: u16) -> bool {
    code >= REFUSED_FROM
}

/// A connection to a control socket.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    /// What it says of itself, such as `BIRD 1.6.8 ready.`
    pub greeting: String,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection failed, or took too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What was asked cannot be done, in its words.
    #[error("it answers \"{0}\"")]
    Refused(String),
}

impl Client {
    /// Connects and reads the greeting. `patience` is the longest wait for a line of an answer.
    ///
    /// # Errors
    /// Nobody answers at the socket.
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

    /// Asks, and hands every line of the answer with its code to `each`.
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
