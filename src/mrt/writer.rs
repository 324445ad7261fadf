//! The thread that writes records to files.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::Recording;
use super::file::{self, Open};
use super::queue::{Kind, Queue};
use crate::event_names::{MRT_FAILED, MRT_RESUMED};
use crate::supervise;

/// The longest time that a record waits in the queue while a file is open.
const WAIT: Duration = Duration::from_secs(1);
/// How the names of files with messages begin.
const STEM: &str = "updates";
/// Capacity of a buffer that is kept for the next records, in octets.
const KEPT_MAX: usize = 1 << 20;

pub(super) fn spawn(queue: Arc<Queue>) -> io::Result<JoinHandle<()>> {
    let part = supervise::part("MRT files");
    std::thread::Builder::new().name("mrt".to_owned()).spawn(move || {
        part.run(|| Files { queue, recording: None, open: None }.run());
        part.finish();
    })
}

struct Files {
    queue: Arc<Queue>,
    recording: Option<Recording>,
    open: Option<Open>,
}

impl Files {
    fn run(mut self) {
        let mut buffer = Vec::new();
        loop {
            // Without a file nothing is due.
            let taken = self.queue.take(buffer, self.open.is_some().then_some(WAIT));
            buffer = taken.octets;
            if !buffer.is_empty() {
                let written = self.write(&buffer);
                self.report(written, taken.records);
            }
            buffer.clear();
            buffer.shrink_to(KEPT_MAX);
            if let Some(recording) = taken.change {
                self.complete();
                self.recording = recording;
                self.begin();
            }
            if self.is_due() {
                self.complete();
            }
            if taken.has_ended {
                self.complete();
                return;
            }
        }
    }

    /// A recording begins: what an earlier run has left in its folder is removed.
    fn begin(&self) {
        let Some(recording) = &self.recording else {
            self.queue.set_fault(Kind::Updates, None);
            return;
        };
        match file::remove_torn(&recording.directory, STEM) {
            Ok(0) => {}
            Ok(files) => warn!("{files} incomplete MRT files of an earlier run are removed"),
            Err(error) => self.report(Err(error), 0),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(recording) = &self.recording else { return Err(io::ErrorKind::NotFound.into()) };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::create(&recording.directory, STEM, recording.gzip, SystemTime::now())?,
        };
        let appended = open.append(octets);
        self.open = Some(open);
        appended
    }

    fn is_due(&self) -> bool {
        let (Some(open), Some(recording)) = (&self.open, &self.recording) else { return false };
        let age = Instant::now().saturating_duration_since(open.opened);
        age >= recording.rotate_after || open.len >= recording.rotate_bytes
    }

    fn complete(&mut self) {
        let Some(open) = self.open.take() else { return };
        let done = open.complete().and_then(|is_file| {
            if is_file {
                self.queue.note_file();
            }
            match &self.recording {
                Some(Recording { directory, keep: Some(keep), .. }) => {
                    file::remove_old(directory, STEM, *keep)
                }
                _ => Ok(()),
            }
        });
        if let Err(error) = done {
            self.report(Err(error), 0);
        }
    }

    /// Counts records, and logs when they begin to be dropped and when they are written again.
    fn report(&self, written: io::Result<()>, records: u64) {
        let folder = self.recording.as_ref().map(|recording| recording.directory.as_path());
        let is_written = written.is_ok();
        // First: who sees the records counted must see the fault that they had, or that it is over.
        log_change(&self.queue, Kind::Updates, folder.unwrap_or(Path::new("")), written);
        if is_written {
            self.queue.note_written(records);
        } else {
            self.queue.note_dropped(records);
        }
    }
}

/// Notes whether files are written, and logs it if that has changed.
pub(super) fn log_change(queue: &Queue, kind: Kind, folder: &Path, written: io::Result<()>) {
    let object = folder.display().to_string();
    match written {
        Ok(()) => {
            if queue.set_fault(kind, None).is_some() {
                info!(event = MRT_RESUMED, object, "{} are written again", kind.text());
            }
        }
        Err(error) => {
            let text = format!("{} in {object} cannot be written: {error}", kind.text());
            if queue.set_fault(kind, Some(text.clone())).is_none() {
                warn!(event = MRT_FAILED, object, reason = error.to_string(), "{text}");
            }
        }
    }
}
