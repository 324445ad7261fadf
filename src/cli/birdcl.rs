//! BIRD's client, `birdcl`: calico-node's liveness probe runs it, and operators are used to it.
//!
//! `birdcl [-s SOCKET] [-v] [-r] [COMMAND…]` prints the greeting, then the reply without its codes.
//! The exit code is 1 if the reply is an error, as with BIRD 2's client.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::ctl::bird::{Mark, Place, is_refusal, read_line};
use crate::ctl::connect;

/// The socket on which margay serves BIRD's protocol on a Calico node.
const DEFAULT_SOCKET: &str = "/var/run/calico/bird.ctl";
/// Timeout for each line of a reply.
const LINE_WAIT: Duration = Duration::from_secs(40);
const USAGE: &str = "usage: birdcl [-s SOCKET] [-v] [-r] [COMMAND...]";

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    socket: PathBuf,
    codes: Codes,
    is_restricted: bool,
    command: Vec<String>,
}

/// Whether the codes of lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codes {
    Hidden,
    Shown,
}

impl Options {
    /// Parses the arguments; `None`: they are wrong.
    fn read(arguments: impl Iterator<Item = OsString>) -> Option<Options> {
        let mut options = Options {
            socket: DEFAULT_SOCKET.into(),
            codes: Codes::Hidden,
            is_restricted: false,
            command: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("-s") => options.socket = arguments.next()?.into(),
                Some("-v") => options.codes = Codes::Shown,
                Some("-r") => options.is_restricted = true,
                Some("-l") => options.socket = "bird.ctl".into(),
                Some(word) if !word.starts_with('-') || !options.command.is_empty() => {
                    options.command.push(word.to_owned());
                }
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Runs the client; `arguments` without the program's name.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(options) = Options::read(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let connected = connect(&options.socket, LINE_WAIT).and_then(|stream| {
        stream.set_read_timeout(Some(LINE_WAIT))?;
        stream.set_write_timeout(Some(LINE_WAIT))?;
        Ok(stream)
    });
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            let socket = options.socket.display();
            eprintln!("Unable to connect to server control socket ({socket}): {error}");
            return ExitCode::FAILURE;
        }
    };
    let out = BufWriter::new(io::stdout().lock());
    match converse(&stream, &options, io::stdin().lock(), out) {
        Ok(Answer::Given) => ExitCode::SUCCESS,
        Ok(Answer::Refused) => ExitCode::FAILURE,
        // The output pipe was closed: `… | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            eprintln!("Connection closed by server");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("birdcl: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the greeting, then runs the given command, or one command per line of `input`.
fn converse(
    mut stream: &UnixStream,
    options: &Options,
    input: impl BufRead,
    mut out: impl Write,
) -> io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    print_answer(&mut reader, options.codes, &mut out)?;
    let mut say = |line: &str, out: &mut dyn Write| {
        stream.write_all(format!("{line}\n").as_bytes())?;
        print_answer(&mut reader, options.codes, out)
    };
    if options.is_restricted {
        say("restrict", &mut out)?;
    }
    if !options.command.is_empty() {
        return say(&expand(&options.command), &mut out);
    }
    for line in input.lines() {
        let line = line?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words.first().map(String::as_str) {
            None => {}
            Some("quit" | "exit") => break,
            Some(_) => drop(say(&expand(&words), &mut out)?),
        }
    }
    Ok(Answer::Given)
}

/// The kind of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Given,
    /// Its last code is 8000 or more.
    Refused,
}

/// Prints the lines of one reply.
fn print_answer(
    reader: &mut impl BufRead,
    codes: Codes,
    out: &mut (impl Write + ?Sized),
) -> io::Result<Answer> {
    let mut line = Vec::new();
    loop {
        let (mark, text) = read_line(reader, &mut line)?;
        // A line with code 0 has no text of interest.
        let is_silent = matches!(mark, Mark::Code(0, _));
        let last = match mark {
            Mark::Code(code, Place::End) if is_refusal(code) => Some(Answer::Refused),
            Mark::Code(_, Place::End) => Some(Answer::Given),
            Mark::Code(_, Place::Within) | Mark::Continued | Mark::Unmarked => None,
        };
        match codes {
            Codes::Hidden if is_silent => {}
            Codes::Hidden => out.write_all(text)?,
            Codes::Shown => out.write_all(&line)?,
        }
        if let Some(answer) = last {
            out.flush()?;
            return Ok(answer);
        }
    }
}

/// The leading words of BIRD's commands that the client completes; names and conditions follow.
const COMMANDS: [&[&str]; 10] = [
    &["show", "status"],
    &["show", "protocols"],
    &["show", "protocols", "all"],
    &["show", "route"],
    &["show", "interfaces"],
    &["show", "interfaces", "summary"],
    &["configure"],
    &["configure", "check"],
    &["configure", "soft"],
    &["restrict"],
];

/// Expands abbreviated words as BIRD's client does: `sh pr al` becomes `show protocols all`. A word
/// that is ambiguous or unknown is kept as it is, and so is everything after it.
fn expand(words: &[String]) -> String {
    let mut spelled = words.to_vec();
    for at in 0..spelled.len() {
        let (before, rest) = spelled.split_at_mut(at);
        let Some(word) = rest.first_mut() else { break };
        let fits = |command: &&&[&str]| command.iter().zip(&*before).all(|(a, b)| a == b);
        let mut next: Vec<&str> =
            COMMANDS.iter().filter(fits).filter_map(|command| command.get(at).copied()).collect();
        next.retain(|full| full.starts_with(word.as_str()));
        next.dedup();
        match next.as_slice() {
            [one] => *word = (*one).to_owned(),
            _ => break,
        }
    }
    spelled.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(answer: &str, codes: Codes) -> (String, io::Result<Answer>) {
        let mut out = Vec::new();
        let done = print_answer(&mut answer.as_bytes(), codes, &mut out);
        (String::from_utf8(out).unwrap(), done)
    }

    #[test]
    fn codes_are_omitted_and_the_last_line_ends_the_reply() {
        let answer =
            "1000-BIRD v0\n1011-Router ID is 1.2.3.4\n Last reboot\n0013 Daemon is up\n0001 x\n";
        let (text, done) = printed(answer, Codes::Hidden);
        assert_eq!(text, "BIRD v0\nRouter ID is 1.2.3.4\nLast reboot\nDaemon is up\n");
        assert_eq!(done.unwrap(), Answer::Given);
        assert_eq!(printed("2002-name\n1002-a\n b\n0000 \n", Codes::Hidden).0, "name\na\nb\n");
        assert_eq!(printed("1002-a\n b\n0000 \n", Codes::Shown).0, "1002-a\n b\n0000 \n");
        let (text, refused) = printed("9001 syntax error\n", Codes::Hidden);
        assert_eq!((text.as_str(), refused.unwrap()), ("syntax error\n", Answer::Refused));
        let (_, cut) = printed("1002-a\n", Codes::Hidden);
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn unambiguous_abbreviations_are_expanded() {
        let expanded = |line: &str| expand(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(expanded("sh pr all"), "show protocols all");
        assert_eq!(expanded("show s"), "show status");
        assert_eq!(expanded("sho ro for 10.0.0.1"), "show route for 10.0.0.1");
        assert_eq!(expanded("conf"), "configure");
        assert_eq!(expanded("conf ch"), "configure check");
        assert_eq!(expanded("sh i su"), "show interfaces summary");
        assert_eq!(expanded("sh p a Mesh_10_0_0_1"), "show protocols all Mesh_10_0_0_1");
        assert_eq!(expanded("show protocols a_1"), "show protocols a_1");
        assert_eq!(expanded("sh ro al"), "show route al", "as in BIRD's client");
        assert_eq!(expanded("x status"), "x status");
        assert_eq!(expanded("nonsense"), "nonsense");
    }

    #[test]
    fn options_are_those_of_birds_client() {
        let read = |line: &str| Options::read(line.split_whitespace().map(OsString::from));
        let options = read("-s /run/x.ctl -r show route -v").unwrap();
        assert_eq!(options.socket, PathBuf::from("/run/x.ctl"));
        assert!(options.is_restricted && options.codes == Codes::Shown);
        assert_eq!(options.command, ["show", "route"]);
        assert_eq!(read("").unwrap().socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(read("-s"), None);
        assert_eq!(read("-x"), None);
    }
}
