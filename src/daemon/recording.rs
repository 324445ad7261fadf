//! `[mrt]`: what is recorded, and when tables are dumped.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::answer::DumpView;
use crate::config::{MrtCompression, MrtPeers, MrtSettings};
use crate::mrt::{Recorder, Recording, Writer};

/// The thread that writes messages, and the task that dumps tables.
pub(super) struct Mrt {
    writer: Writer,
    dumps: Option<AbortHandle>,
}

impl Mrt {
    /// Starts the thread; nothing is recorded yet.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start() -> std::io::Result<Mrt> {
        Ok(Mrt { writer: Writer::start()?, dumps: None })
    }

    pub(super) fn recorder(&self) -> &Recorder {
        self.writer.recorder()
    }

    /// Records and dumps what these settings say, from here on.
    pub(super) fn set(&mut self, settings: Option<&MrtSettings>, view: &DumpView) {
        if let Some(dumps) = self.dumps.take() {
            dumps.abort();
            // A fault of the old settings is none of the new ones.
            self.recorder().note_tables(std::path::Path::new(""), Ok(()));
        }
        let recording = settings.filter(|settings| settings.updates != MrtPeers::None);
        self.recorder().set(recording.map(recording_of));
        if let Some((settings, interval)) = settings.and_then(|s| Some((s, s.table_interval?))) {
            let dumps = view.clone().repeat(settings.clone(), interval);
            self.dumps = Some(tokio::spawn(dumps).abort_handle());
        }
    }

    /// Completes the files. Waits for the disk.
    pub(super) fn stop(self) {
        if let Some(dumps) = self.dumps {
            dumps.abort();
        }
        self.writer.stop();
    }
}

fn recording_of(settings: &MrtSettings) -> Recording {
    let peers = settings.updates.clone();
    Recording {
        directory: settings.directory.clone(),
        chooses: Arc::new(move |name| peers.contains(name)),
        rotate_after: settings.rotate_after,
        rotate_bytes: settings.rotate_bytes,
        gzip: settings.compression == MrtCompression::Gzip,
        keep: settings.keep,
    }
}
