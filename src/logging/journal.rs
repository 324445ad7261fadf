//! The journal of systemd: entries with fields of their own, in its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! An entry is formed where the event occurs, as a line is, and sent by the writer's thread. Not
//! `tracing-journald`: it sends from the thread that logs, which a journal that is busy would block.
//!
//! While the journal takes no entries, their text goes to standard error. That is reported once, and so is
//! the end of it.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::{Context, Layer};

use super::fields::TextFields;
use super::on_one_line;
use super::writer::{Output, Queue, write_patiently};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest value of a field, in octets. With the few fields of a line, an entry stays far below what one
/// datagram may have (`net.core.wmem_default`).
const VALUE_MAX: usize = 32 << 10;
/// How long a journal whose socket is full is waited for.
const FULL_WAIT: Duration = Duration::from_secs(5);
/// Time between two attempts while it takes no entries.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The severity of a level, as syslog(3) numbers it.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Whether standard error is the journal's stream: systemd says which file that is.
pub(super) fn is_standard_error() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, io::stderr()))
}

/// Whether `JOURNAL_STREAM` (`DEVICE:INODE`) names this file.
fn is_stream(stream: &str, file: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// An entry that does not come from `tracing`.
pub(super) fn entry(level: Level, text: &str) -> Vec<u8> {
    let mut entry = begin(level);
    put(&mut entry, "MESSAGE", text);
    entry
}

fn begin(level: Level) -> Vec<u8> {
    format!("PRIORITY={}\nSYSLOG_IDENTIFIER=margay\n", priority(level)).into_bytes()
}

/// Adds a field. A value with line breaks is preceded by its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.get(..value.floor_char_boundary(VALUE_MAX)).unwrap_or_default();
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// The name in the journal: `next-hop` is `NEXT_HOP`. Names that begin with `_` are the journal's own.
fn field_name(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(upper).collect();
    let name = name.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
    name.chars().take(64).collect()
}

/// The layer that turns events into entries.
pub(super) struct Entries(pub(super) Queue);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = begin(*metadata.level());
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = TextFields.format_fields(Writer::new(&mut text), event);
        put(&mut entry, "MESSAGE", &on_one_line(&text));
        put(&mut entry, "TARGET", metadata.target());
        event.record(&mut Fields(&mut entry));
        self.0.push(&entry);
    }
}

/// Adds the fields of an event.
struct Fields<'a>(&'a mut Vec<u8>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let name = field_name(field.name());
        // The text of the line has its own form, and no field takes the place of one that is set above.
        if !name.is_empty() && !["MESSAGE", "PRIORITY", "TARGET"].contains(&name.as_str()) {
            put(self.0, &name, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// Whether the journal takes entries.
enum Link {
    Open(UnixDatagram),
    Away {
        retry: Instant,
        /// Entries whose text went elsewhere.
        missed: u64,
    },
}

/// The journal, and where entries go while it takes none.
pub(super) struct Journal<W> {
    path: PathBuf,
    link: Link,
    fallback: W,
    /// How the text of an entry is written there.
    form: fn(&str, Level) -> Vec<u8>,
}

impl<W: Write + AsFd> Journal<W> {
    /// The journal that listens at `path`.
    pub(super) fn new(path: &Path, fallback: W, form: fn(&str, Level) -> Vec<u8>) -> Self {
        // Connected with the first entry; if that fails, it is reported.
        let link = Link::Away { retry: Instant::now(), missed: 0 };
        Journal { path: path.to_owned(), link, fallback, form }
    }

    /// Sends an entry, or says why the journal does not take it.
    fn send(&mut self, entry: &[u8]) -> Result<(), Refused> {
        let (socket, wait, missed) = match &self.link {
            Link::Open(socket) => (socket, FULL_WAIT, 0),
            Link::Away { retry, .. } if Instant::now() < *retry => return Err(Refused::Still),
            Link::Away { missed, .. } => {
                let missed = *missed;
                match connect(&self.path) {
                    Ok(socket) => self.link = Link::Open(socket),
                    Err(error) => return Err(self.lose(error, missed)),
                }
                let Link::Open(socket) = &self.link else { return Err(Refused::Still) };
                (socket, Duration::ZERO, missed)
            }
        };
        let result = send(socket, entry, wait).or_else(|error| match error.kind() {
            // It was started again, with a socket of its own.
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => {
                let socket = connect(&self.path)?;
                send(&socket, entry, Duration::ZERO)?;
                self.link = Link::Open(socket);
                Ok(())
            }
            _ => Err(error),
        });
        match result {
            Ok(()) if missed > 0 => {
                let text = format!(
                    "the journal takes entries again: {missed} went to standard error meanwhile"
                );
                if let Link::Open(socket) = &self.link {
                    // The entry itself has arrived; without this one nothing is lost.
                    let _ = send(socket, &self::entry(Level::WARN, &text), Duration::ZERO);
                }
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Err(Refused::Still),
            Err(error) => Err(self.lose(error, missed)),
        }
    }

    fn lose(&mut self, error: io::Error, missed: u64) -> Refused {
        self.link = Link::Away { retry: Instant::now() + RETRY_WAIT, missed };
        if missed == 0 { Refused::First(error) } else { Refused::Still }
    }

    /// Writes the text of an entry in the place of the journal.
    fn write_text(&mut self, entry: &[u8]) -> io::Result<()> {
        let (level, text) = text_of(entry);
        if let Link::Away { missed, .. } = &mut self.link {
            *missed += 1;
        }
        write_patiently(&mut self.fallback, &(self.form)(&text, level))
    }
}

/// Why an entry was not taken.
enum Refused {
    /// The journal took the entry before.
    First(io::Error),
    /// It took none of the last ones either, or never takes one like this.
    Still,
}

impl<W: Write + AsFd + Send + 'static> Output for Journal<W> {
    fn write_lines(&mut self, lines: &[Vec<u8>]) -> u64 {
        let mut lost = 0;
        for line in lines {
            let written = match self.send(line) {
                Ok(()) => Ok(()),
                Err(Refused::Still) => self.write_text(line),
                Err(Refused::First(error)) => {
                    let text = format!(
                        "the journal takes no entries ({}: {error}): they go to standard error until \
                         it does",
                        self.path.display()
                    );
                    let told =
                        write_patiently(&mut self.fallback, &(self.form)(&text, Level::WARN));
                    told.and_then(|()| self.write_text(line))
                }
            };
            lost += u64::from(written.is_err());
        }
        lost
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// Sends a datagram; waits for room for `limit` at most.
fn send(socket: &UnixDatagram, octets: &[u8], limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match socket.send(octets) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(error);
                }
                let left = Timespec::try_from(left).ok();
                match poll(&mut [PollFd::new(socket, PollFlags::OUT)], left.as_ref()) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Level and text of an entry that [`entry`] or [`Entries`] formed: both begin with `PRIORITY`, the
/// identifier and `MESSAGE`, which is one line.
fn text_of(entry: &[u8]) -> (Level, String) {
    let text = String::from_utf8_lossy(entry);
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let level = match value("PRIORITY") {
        "3" => Level::ERROR,
        "4" => Level::WARN,
        "7" => Level::DEBUG,
        _ => Level::INFO,
    };
    (level, value("MESSAGE").to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use tempfile::TempDir;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::event_names::SESSION_DOWN;

    /// Reads an entry as the journal does.
    fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|octet| b"=\n".contains(octet)).unwrap();
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            let (value, rest) = if entry[end] == b'=' {
                let rest = &entry[end + 1..];
                rest.split_at(rest.iter().position(|octet| *octet == b'\n').unwrap())
            } else {
                let (len, rest) = entry[end + 1..].split_at(8);
                rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize)
            };
            all.insert(name, String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(rest[0], b'\n');
            entry = &rest[1..];
        }
        all
    }

    fn receive(socket: &UnixDatagram) -> BTreeMap<String, String> {
        let mut buffer = vec![0; 1 << 18];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        fields(&buffer[..len])
    }

    fn form(text: &str, level: Level) -> Vec<u8> {
        format!("<{}>{text}\n", priority(level)).into_bytes()
    }

    /// A queue that a journal at this path takes, and where the text goes while there is none.
    fn started(path: &Path) -> (Queue, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let queue = Queue::default();
        let notice = |count| entry(Level::WARN, &format!("{count} missing"));
        queue.start(Journal::new(path, ours, form), notice).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (queue, BufReader::new(theirs))
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let (queue, _text) = started(&path);
        let subscriber = tracing_subscriber::registry().with(Entries(queue));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                target: "margay::net", event = SESSION_DOWN, peer = %"tor-1", code = 6, subcode = 2,
                reason = "bye\nPRIORITY=0", "session closed: {}", "bye\nPRIORITY=0"
            );
        });
        let entry = receive(&journal);
        let wanted = [
            ("CODE", "6"),
            ("EVENT", "session-down"),
            ("MESSAGE", "session closed: bye\\nPRIORITY=0 peer=tor-1"),
            ("PEER", "tor-1"),
            ("PRIORITY", "4"),
            ("REASON", "bye\nPRIORITY=0"),
            ("SUBCODE", "2"),
            ("SYSLOG_IDENTIFIER", "margay"),
            ("TARGET", "margay::net"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(entry.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_journal_that_is_away_is_reported_once_and_used_when_it_is_back() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let (queue, mut text) = started(&path);
        let mut next = || {
            let mut line = String::new();
            text.read_line(&mut line).unwrap();
            line
        };
        queue.push(&entry(Level::ERROR, "one"));
        queue.push(&entry(Level::INFO, "two"));
        assert!(next().starts_with("<4>the journal takes no entries"));
        assert_eq!([next(), next()], ["<3>one\n", "<6>two\n"]);
        let journal = UnixDatagram::bind(&path).unwrap();
        std::thread::sleep(RETRY_WAIT);
        queue.push(&entry(Level::INFO, "three"));
        assert_eq!(receive(&journal)["MESSAGE"], "three");
        assert!(
            receive(&journal)["MESSAGE"].ends_with("again: 2 went to standard error meanwhile")
        );
        // It restarts: nothing is lost, and nothing has to be said.
        drop(journal);
        std::fs::remove_file(&path).unwrap();
        let journal = UnixDatagram::bind(&path).unwrap();
        queue.push(&entry(Level::INFO, "four"));
        assert_eq!(receive(&journal)["MESSAGE"], "four");
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_journal_that_is_full_delays_no_line_for_ever() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let _journal = UnixDatagram::bind(&path).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut output = Journal::new(&path, ours, form);
        output.link = Link::Open(connect(&path).unwrap());
        // Nobody reads: the kernel keeps a few datagrams.
        let Link::Open(socket) = &output.link else { panic!() };
        while send(socket, b"MESSAGE=x\n", Duration::ZERO).is_ok() {}
        let began = Instant::now();
        let lines = [entry(Level::INFO, "one"), entry(Level::INFO, "two")];
        assert_eq!(output.write_lines(&lines), 0);
        assert!(began.elapsed() < FULL_WAIT * 2, "it is waited for once");
        let mut text = BufReader::new(theirs).lines();
        assert!(text.next().unwrap().unwrap().starts_with("<4>the journal takes no entries"));
        assert_eq!(text.next().unwrap().unwrap(), "<6>one");
        assert_eq!(text.next().unwrap().unwrap(), "<6>two");
    }

    #[test]
    fn names_of_fields_are_those_that_the_journal_accepts() {
        for (name, wanted) in [
            ("peer", "PEER"),
            ("next-hop", "NEXT_HOP"),
            ("_trusted", "TRUSTED"),
            ("9lives", "LIVES"),
            ("__", ""),
        ] {
            assert_eq!(field_name(name), wanted);
        }
        let mut long = Vec::new();
        put(&mut long, "X", &"ä".repeat(VALUE_MAX));
        assert!(long.len() <= VALUE_MAX + 3);
        assert_eq!(fields(&long)["X"].chars().count(), VALUE_MAX / 2);
    }

    #[test]
    fn the_stream_is_known_by_device_and_inode() {
        let (one, other) = UnixStream::pair().unwrap();
        let stat = rustix::fs::fstat(&one).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_stream(&stream, &one) && !is_stream(&stream, &other));
        assert!(!is_stream("", &one) && !is_stream("8:", &one));
    }
}
