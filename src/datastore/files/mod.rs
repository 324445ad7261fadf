//! Calico's objects in files, and Felix's endpoint-status folder.
//!
//! - [`watch`]: change notifications from inotify.
//! - [`scan`]: scans folders and reads the files that changed.
//! - [`contents`]: the merged contents of the files, and the difference to what was sent.

mod contents;
mod scan;
mod watch;

pub(crate) use watch::{Folders, Watch, watch};

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Event, PART, Sender, State};
use crate::supervise;
pub(super) use scan::Layout;
use scan::{Held, Scanner};

/// After a change, files are read once nothing has changed for this long …
const QUIET: Duration = Duration::from_millis(5);

/// … but after at most this many such periods.
const QUIETS_MAX: u32 = 20;

/// Interval of scans without a notification, as in Calico: a link may lead to where the kernel
/// reports no changes.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Interval of scans while a file is held back because it is being written: the writer may never
/// close it.
const LOOK_EVERY_WHEN_HELD: Duration = Duration::from_secs(1);

/// Interval of scans while a configured path is missing.
const LOOK_EVERY_WHEN_AWAY: Duration = Duration::from_secs(2);

/// Follows files until the receiver is dropped.
pub(super) async fn follow(layout: Layout, sender: Sender) {
    tokio::select! {
        () = run(layout, &sender) => {}
        () = sender.closed() => {}
    }
}

async fn run(layout: Layout, sender: &Sender) {
    let (mut watch, folders) = match watch() {
        Ok((watch, folders)) => (Some(watch), Some(folders)),
        Err(error) => {
            warn!(%error, "cannot watch files: polling them every 30 s instead");
            (None, None)
        }
    };
    let mut scanner = Scanner::new(layout, folders);
    let mut connection = Connection::default();
    loop {
        if let Some(watch) = &mut watch {
            scanner.note(watch.take_events());
        }
        // On a blocking thread, as a disk may be slow.
        let looking = tokio::task::spawn_blocking(move || {
            let result = supervise::within(PART, || scanner.scan());
            (scanner, result)
        });
        let result;
        (scanner, result) = match looking.await {
            Ok(looked) => looked,
            // Happens only when the runtime shuts down.
            Err(_) => return,
        };
        if let Some(watch) = &mut watch {
            // Events during the scan: a file that was truncated while it was read is not committed.
            scanner.note(watch.take_events());
        }
        let held = scanner.commit();
        match result {
            Ok(()) => {
                scanner.contents.events().into_iter().for_each(|event| sender.send(event));
                connection.report_current(sender);
            }
            Err(reason) => connection.report_unavailable(sender, &reason),
        }
        let interval = match held {
            Held::Files => LOOK_EVERY_WHEN_HELD,
            Held::Nothing => connection.interval(),
        };
        wait(watch.as_mut(), interval).await;
    }
}

/// Returns when something changed and no further change follows for a while, or after `interval`.
async fn wait(watch: Option<&mut Watch>, interval: Duration) {
    let Some(watch) = watch else {
        sleep(interval).await;
        return;
    };
    match timeout(interval, watch.changed()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%error, "files cannot be watched");
            sleep(interval).await;
        }
        Err(_) => return,
    }
    for _ in 0..QUIETS_MAX {
        sleep(QUIET).await;
        let mut was_quiet = true;
        // Drains the events of this period without waiting.
        while let Some(Ok(())) = watch.changed().now_or_never() {
            was_quiet = false;
        }
        if was_quiet {
            return;
        }
    }
}

/// Whether the configured paths can be read.
#[derive(Default)]
enum Connection {
    #[default]
    Unknown,
    Current,
    Away(Instant, Arc<str>),
}

impl Connection {
    fn interval(&self) -> Duration {
        match self {
            Connection::Away(..) => LOOK_EVERY_WHEN_AWAY,
            _ => LOOK_EVERY,
        }
    }

    // The consumer of the events logs them, for every kind of source.
    fn report_current(&mut self, sender: &Sender) {
        if !matches!(self, Connection::Current) {
            *self = Connection::Current;
            sender.send(Event::State(State::Current));
        }
    }

    fn report_unavailable(&mut self, sender: &Sender, reason: &str) {
        let since = match self {
            Connection::Away(_, last) if **last == *reason => return,
            Connection::Away(since, _) => *since,
            _ => Instant::now(),
        };
        let reason: Arc<str> = reason.into();
        sender.send(Event::State(State::Away { since, reason: Arc::clone(&reason) }));
        *self = Connection::Away(since, reason);
    }
}

#[cfg(test)]
mod tests;
