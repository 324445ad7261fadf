//! `[mrt]`: what is recorded, and when tables are dumped.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::warn;

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
        self.end_dumps();
        let recording = settings.filter(|settings| settings.updates != MrtPeers::None);
        self.recorder().set(recording.map(recording_of));
        if let Some((settings, interval)) = settings.and_then(|s| Some((s, s.table_interval?))) {
            let dumps = view.clone().repeat(settings.clone(), interval);
            self.dumps = Some(tokio::spawn(dumps).abort_handle());
        }
    }

    /// Dumps no more tables, because the settings change or the tables end.
    pub(super) fn end_dumps(&mut self) {
        if let Some(dumps) = self.dumps.take() {
            dumps.abort();
            // A fault of the old settings is none of the new ones.
            self.recorder().forget_tables();
        }
    }

    /// Completes the files, unless the disk takes longer than `limit`.
    pub(super) async fn stop(mut self, limit: Duration) {
        self.end_dumps();
        let writer = self.writer;
        let stop = tokio::task::spawn_blocking(|| writer.stop());
        match tokio::time::timeout(limit, stop).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => warn!("the thread that writes MRT files did not end"),
            Err(_) => warn!(
                "the last MRT file of messages is not complete after {} s: the disk does not answer; the \
                 file is removed at the next start",
                limit.as_secs()
            ),
        }
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::mrt::Tap;

    #[tokio::test]
    async fn a_writer_that_hangs_does_not_hold_up_the_stop() {
        let mrt = Mrt::start().unwrap();
        let ((began, has_begun), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let released = Mutex::new(released);
        // Is called while the queue is locked, without which the thread cannot end.
        let chooses = move |_: &str| {
            began.send(()).unwrap();
            released.lock().unwrap().recv().is_ok()
        };
        mrt.recorder().set(Some(Recording {
            directory: "/nonexistent".into(),
            chooses: Arc::new(chooses),
            rotate_after: Duration::from_secs(3600),
            rotate_bytes: 1 << 30,
            gzip: false,
            keep: None,
        }));
        let mut tap = Tap::new(mrt.recorder().clone());
        let hangs = std::thread::spawn(move || tap.is_on("tor"));
        has_begun.recv().unwrap();
        let stopped = mrt.stop(Duration::from_millis(20));
        tokio::time::timeout(Duration::from_secs(20), stopped)
            .await
            .expect("it waits for the writer");
        assert!(!hangs.is_finished());
        release.send(()).unwrap();
        assert!(hangs.join().unwrap());
    }
}
