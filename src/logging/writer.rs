//! Writes the log to standard error, or to the journal, through a bounded queue, on its own thread.
//!
//! The reader of our standard error may be slow, stopped, or out of disk space. Only the writer
//! thread waits for it: a line that finds the queue full is dropped and counted, and once lines can
//! be written again, one of them says how many are missing. A log that is not read therefore loses
//! lines, and never delays a KEEPALIVE.
//!
//! Not `tracing-appender`: its queue is bounded in lines but not in octets, it does not report the
//! lines that it dropped, and it cannot be flushed within a bounded time when the process exits.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::fmt::MakeWriter;

use crate::supervise;

/// The name of this part for the supervisor.
const PART: &str = "log writer";
/// Octets that may wait for the writer; a line beyond that is dropped. About 10,000 lines: what a
/// start with thousands of peers logs at once.
const WAITING_MAX: usize = 2 << 20;
/// Octets to collect for one write. The last line may exceed it.
const WRITE_MAX: usize = 64 << 10;
/// Pause after a write failed, as on a full disk.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Where lines go.
pub(super) trait Output: Send + 'static {
    /// Writes lines, waiting for their reader. Returns how many could not be written.
    fn write_lines(&mut self, lines: &[Vec<u8>]) -> u64;
}

/// A file or a stream.
pub(super) struct Stream<W>(pub(super) W);

impl<W: Write + AsFd + Send + 'static> Output for Stream<W> {
    fn write_lines(&mut self, lines: &[Vec<u8>]) -> u64 {
        let written = write_patiently(&mut self.0, &lines.concat());
        if written.is_ok() { 0 } else { lines.len() as u64 }
    }
}

/// The queue. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when a line was queued.
    filled: Condvar,
    /// Notified when the writer has written the lines that it had taken.
    emptied: Condvar,
    dropped: AtomicU64,
    waiting_max: usize,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Octets in `lines`, and those that the writer has taken and not written yet.
    octets: usize,
    /// Lines dropped since the last line that reported it.
    dropped: u64,
    /// The writer has taken lines that are not written yet.
    is_writing: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Queue::with_room(WAITING_MAX)
    }
}

impl Queue {
    fn with_room(waiting_max: usize) -> Self {
        Queue {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                filled: Condvar::new(),
                emptied: Condvar::new(),
                dropped: AtomicU64::new(0),
                waiting_max,
            }),
        }
    }

    /// Starts the writer thread; `notice` formats the line that says how many lines are missing.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(super) fn start(
        &self,
        output: impl Output,
        notice: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        let guard = supervise::part(PART);
        let run = move || guard.run(|| queue.write_all(output, notice));
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(run).map(drop)
    }

    /// The number of lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Queues a line, or drops and counts it. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.octets.saturating_add(line.len()) > self.shared.waiting_max {
            state.dropped += 1;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.put(&mut state, line);
    }

    /// Queues a line whether or not there is room. For the few lines that a process writes last.
    pub(super) fn push_last(&self, line: &[u8]) {
        self.put(&mut self.lock(), line);
    }

    fn put(&self, state: &mut State, line: &[u8]) {
        state.octets += line.len();
        state.lines.push_back(line.to_vec());
        self.shared.filled.notify_one();
    }

    /// Waits until everything is written, for `limit` at most. Returns whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.lines.is_empty() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_all(&self, mut output: impl Output, notice: impl Fn(u64) -> Vec<u8>) {
        loop {
            let lines = self.take();
            supervise::fault::point(PART);
            let lost = output.write_lines(&lines);
            let mut state = self.lock();
            state.octets -= lines.iter().map(Vec::len).sum::<usize>();
            state.is_writing = false;
            if lost > 0 {
                state.dropped += lost;
                self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
            } else if state.dropped > 0 {
                let missing = notice(std::mem::take(&mut state.dropped));
                state.octets += missing.len();
                state.lines.push_front(missing);
            }
            self.shared.emptied.notify_all();
            drop(state);
            if lost > 0 {
                std::thread::sleep(REFUSED_PAUSE);
            }
        }
    }

    /// Waits for lines and takes up to [`WRITE_MAX`] octets of them.
    fn take(&self) -> Vec<Vec<u8>> {
        let is_idle = |state: &mut State| state.lines.is_empty();
        let waited = self.shared.filled.wait_while(self.lock(), is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        let (mut lines, mut octets) = (Vec::new(), 0);
        while octets < WRITE_MAX
            && let Some(line) = state.lines.pop_front()
        {
            octets += line.len();
            lines.push(line);
        }
        lines
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes everything and waits for the reader as long as it takes, even if another process that
/// shares the file description with us has set O_NONBLOCK on it.
pub(super) fn write_patiently(
    output: &mut (impl Write + AsFd),
    mut octets: &[u8],
) -> io::Result<()> {
    while !octets.is_empty() {
        match output.write(octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => octets = octets.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(output, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives one event, which the format writes in a single call.
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.push(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn notice(count: u64) -> Vec<u8> {
        format!("{count} missing\n").into_bytes()
    }

    /// A queue of `room` octets, and the other end of its output, which is not read yet.
    fn stopped_reader(room: usize) -> (Queue, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let queue = Queue::with_room(room);
        queue.start(Stream(ours), notice).unwrap();
        (queue, theirs)
    }

    #[test]
    fn a_reader_that_stops_loses_lines_and_delays_nothing() {
        const LINES: usize = 100_000;
        let (queue, reader) = stopped_reader(64 << 10);
        let line = [b'x'; 99].iter().chain(b"\n").copied().collect::<Vec<u8>>();
        let mut pushed = 0;
        while queue.flush(Duration::from_millis(50)) {
            (0..100).for_each(|_| queue.push(&line));
            pushed += 100;
        }
        // Nobody reads, and the writer waits.
        let began = Instant::now();
        (pushed..LINES).for_each(|_| queue.push(&line));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let dropped = queue.dropped();
        assert!(dropped > 0);
        // It reads again: first the lines that waited, complete, then how many are missing.
        let mut lines = BufReader::new(reader).lines();
        let mut seen = 0;
        let missing = loop {
            match lines.next().unwrap().unwrap() {
                text if text.ends_with("missing") => break text,
                text => assert_eq!(text.len(), 99),
            }
            seen += 1;
        };
        let mut told: u64 = missing.split(' ').next().unwrap().parse().unwrap();
        while seen + usize::try_from(told).unwrap() < LINES {
            match lines.next().unwrap().unwrap() {
                text if text.ends_with("missing") => {
                    told += text.split(' ').next().unwrap().parse::<u64>().unwrap();
                }
                _ => seen += 1,
            }
        }
        assert_eq!(told, dropped);
        queue.push(b"again\n");
        assert_eq!(lines.next().unwrap().unwrap(), "again");
    }

    #[test]
    fn there_is_always_room_for_the_last_words() {
        let (queue, mut reader) = stopped_reader(10);
        queue.push(b"far too long for the room\n");
        queue.push_last(b"died of something or other\n");
        assert!(queue.flush(Duration::from_secs(5)));
        let mut first = [0; 27];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"died of something or other\n");
    }

    #[test]
    fn the_writer_waits_for_a_nonblocking_descriptor() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let queue = Queue::default();
        queue.start(Stream(ours), notice).unwrap();
        let line = vec![b'y'; 4096];
        for _ in 0..256 {
            queue.push(&line);
        }
        let mut all = vec![0; 256 * 4096];
        theirs.read_exact(&mut all).unwrap();
        assert!(all.iter().all(|octet| *octet == b'y'));
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn lines_of_a_failed_write_are_counted_and_later_ones_are_tried() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let queue = Queue::default();
        queue.start(Stream(ours), notice).unwrap();
        queue.push(b"nobody is there\n");
        assert!(queue.flush(Duration::from_secs(5)));
        assert_eq!(queue.dropped(), 1);
    }
}
