//! Messages that peers sent, and changes of state, in MRT files (RFC 6396 §4.4).
//!
//! A peer's task encodes a record into a queue of bounded size, for which it takes a mutex during one copy.
//! It never waits for the disk: a thread of its own takes what is in the queue and writes it. What the
//! queue has no room for is dropped and counted, and so is what cannot be written; recording goes on with
//! the next record for which there is room.

mod families;
mod file;
mod queue;
mod table;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bgp_proto::mrt::{self, MessageOf, Session, Stamp, StateChange};
use bgp_proto::session::State;
use bgp_proto::types::FamilySet;
use bgp_proto::wire::{EXTENDED_MAX_LEN, MessageType, split_frame};

use queue::{Kind, Queue};

pub use table::TableFile;

/// Whose messages are recorded.
pub type Chooses = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What is recorded, and in which files.
#[derive(Clone)]
pub struct Recording {
    /// The folder for the files.
    pub directory: PathBuf,
    /// Whether the messages of a peer are recorded, by its name.
    pub chooses: Chooses,
    /// How long a file is written to.
    pub rotate_after: Duration,
    /// Octets after which the next file begins.
    pub rotate_bytes: u64,
    /// Whether files are compressed by gzip.
    pub gzip: bool,
    /// How many complete files are kept; `None`: all.
    pub keep: Option<u32>,
}

/// What has been recorded since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records written to files.
    pub written: u64,
    /// Records dropped, because the queue was full or they could not be written.
    pub dropped: u64,
    /// Files completed.
    pub files: u64,
}

/// Where peers' tasks put their records. Clones are the same recorder.
#[derive(Clone)]
pub struct Recorder {
    queue: Arc<Queue>,
}

/// The thread that writes files.
pub struct Writer {
    recorder: Recorder,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. Nothing is recorded before [`Recorder::set`].
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Writer> {
        let queue = Arc::new(Queue::default());
        let thread = writer::spawn(Arc::clone(&queue))?;
        Ok(Writer { recorder: Recorder { queue }, thread })
    }

    /// The recorder for peers' tasks.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Writes what is in the queue, completes the file and ends the thread.
    pub fn stop(self) {
        self.recorder.queue.end();
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes MRT files ended by a panic");
        }
    }
}

impl Recorder {
    /// A recorder that records nothing, for tests of peers.
    #[cfg(test)]
    pub(crate) fn idle() -> Recorder {
        Recorder { queue: Arc::new(Queue::default()) }
    }

    /// What is recorded from here on; `None`: nothing. The file that is being written is completed.
    pub fn set(&self, recording: Option<Recording>) {
        self.queue.set(recording);
    }

    /// What has been recorded.
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Why files cannot be written at present.
    pub fn faults(&self) -> Vec<String> {
        self.queue.faults()
    }

    /// Notes whether tables could be written to files in this folder.
    pub fn note_tables(&self, folder: &Path, written: std::io::Result<()>) {
        writer::log_change(&self.queue, Kind::Tables, folder, written);
    }

    /// Tables are no longer dumped: why they could not be is no fault any more. Nothing is logged, since
    /// nothing has been written.
    pub fn forget_tables(&self) {
        self.queue.set_fault(Kind::Tables, None);
    }
}

/// The part of a peer's task that records its messages.
pub struct Tap {
    recorder: Recorder,
    /// The change of the recording up to which `is_on` is known.
    known: u64,
    is_on: bool,
}

/// How the messages of a session are encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// AS numbers have four octets.
    pub has_as4: bool,
    /// Families whose prefixes have path identifiers.
    pub path_ids: FamilySet,
}

impl Default for Encoding {
    /// That of messages before the session is established, which have neither.
    fn default() -> Self {
        Encoding { has_as4: true, path_ids: FamilySet::EMPTY }
    }
}

impl Tap {
    /// For a new peer.
    pub fn new(recorder: Recorder) -> Tap {
        Tap { recorder, known: 0, is_on: false }
    }

    /// Whether the messages of the peer are recorded. Costs one load.
    pub fn is_on(&mut self, peer: &str) -> bool {
        let change = self.recorder.queue.changes();
        if change != self.known {
            self.known = change;
            self.is_on = self.recorder.queue.chooses(peer);
        }
        self.is_on
    }

    /// Records the complete messages in `octets`, as received.
    pub fn received(&self, session: &Session, encoding: Encoding, octets: &[u8]) {
        let mut rest = octets;
        while let Ok(Some(frame)) = split_frame(rest, EXTENDED_MAX_LEN) {
            rest = rest.get(frame.bytes.len()..).unwrap_or_default();
            // An UPDATE with prefixes of a family that has path identifiers and of one that has none, which no
            // record can say, is recorded as having them: rare, since IPv4 and IPv6 share no next hop.
            let has_path_ids = frame.kind == MessageType::Update
                && !encoding.path_ids.is_empty()
                && !families::of_update(frame.body()).intersection(encoding.path_ids).is_empty();
            let message = MessageOf {
                at: now(),
                session: *session,
                is_local: false,
                has_as4: encoding.has_as4,
                has_path_ids,
                message: frame.bytes,
            };
            self.recorder.queue.put(|out| mrt::encode_message(out, &message));
        }
    }

    /// Records a change of state.
    pub fn state_changed(&self, session: &Session, old: State, new: State) {
        let change =
            StateChange { at: now(), session: *session, old: number(old), new: number(new) };
        self.recorder.queue.put(|out| mrt::encode_state_change(out, &change));
    }
}

/// The number of a state (RFC 6396 §4.4.1).
fn number(state: State) -> u16 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    Stamp { secs, micros: since.subsec_micros() }
}

#[cfg(test)]
mod tests;
