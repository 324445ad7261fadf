//! Folders watched with inotify.
//!
//! Files are scanned after any event, and compared by their stamps: what is read does not
//! depend on the kernel's queue being complete. When it is read does: a file that is written in
//! place is left alone until it is closed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

/// Told about: everything that can change what a file holds, or which files there are.
const EVENTS: WatchMask = WatchMask::CREATE
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MODIFY)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::MOVE)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::ONLYDIR);

/// Octets of events that are read at once.
const BUFFER: usize = 16 << 10;

/// Events that are kept until the next look; of more only that there were some counts.
const EVENTS_MAX: usize = 4096;

/// A file that was changed and not closed is taken for whole when nothing was written for so long:
/// whoever holds it open may never close it.
const WRITING_MAX: Duration = Duration::from_secs(10);

/// What happened to a file: the folder, its name in it, and whether it is whole.
pub(super) type FileEvent = (WatchDescriptor, OsString, Writing);

/// Whether a file is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// Something was written.
    Begun,
    /// It was closed.
    Done,
}

/// Says that something changed.
pub(super) struct Watch {
    stream: EventStream<Vec<u8>>,
    events: Vec<FileEvent>,
}

/// Says what is watched.
pub(super) struct Folders {
    watches: Watches,
    /// Their paths, and whether each was named since [`Folders::begin`].
    watched: HashMap<WatchDescriptor, (PathBuf, Named)>,
    /// Files that are being written, by path: device and inode, and when that was last seen.
    written: HashMap<PathBuf, ((u64, u64), Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Before,
    Again,
}

/// A watch of nothing yet.
///
/// # Errors
/// The kernel refuses: too many of them, mostly.
pub(super) fn watch() -> io::Result<(Watch, Folders)> {
    let inotify = Inotify::init()?;
    let watches = inotify.watches();
    let stream = inotify.into_event_stream(vec![0; BUFFER])?;
    let folders = Folders { watches, watched: HashMap::new(), written: HashMap::new() };
    Ok((Watch { stream, events: Vec::new() }, folders))
}

impl Watch {
    /// Returns when something changed. Dropping the future loses nothing that matters: whoever
    /// waits next looks at the files after a while anyway.
    ///
    /// # Errors
    /// The kernel's, which is not to be expected.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let event = match self.stream.next().await {
            Some(event) => event?,
            None => return Err(io::Error::other("inotify has ended")),
        };
        let writing = match event.mask {
            mask if mask.contains(EventMask::CLOSE_WRITE) => Some(Writing::Done),
            mask if mask.contains(EventMask::MODIFY) => Some(Writing::Begun),
            _ => None,
        };
        if let (Some(name), Some(writing)) = (event.name, writing)
            && self.events.len() < EVENTS_MAX
        {
            self.events.push((event.wd, name, writing));
        }
        Ok(())
    }

    /// What happened up to now and was not taken yet. Does not wait.
    pub(super) fn take_events(&mut self) -> Vec<FileEvent> {
        while let Some(Ok(())) = self.changed().now_or_never() {}
        std::mem::take(&mut self.events)
    }
}

impl Folders {
    /// Begins to name what is to be watched.
    pub(super) fn begin(&mut self) {
        self.watched.values_mut().for_each(|(_, named)| *named = Named::Before);
    }

    /// Watches a folder. To be called before it is read, so that no change falls in between. A path
    /// that names another folder than before is watched as the new one.
    pub(super) fn add(&mut self, folder: &Path) -> io::Result<()> {
        let descriptor = self.watches.add(folder, EVENTS)?;
        self.watched.insert(descriptor, (folder.to_owned(), Named::Again));
        Ok(())
    }

    /// Watches a folder, or while it does not exist the nearest one above it that does.
    pub(super) fn add_nearest(&mut self, folder: &Path) -> io::Result<()> {
        let mut result = Ok(());
        for folder in folder.ancestors() {
            // A relative path ends in the empty one, which is here.
            let is_empty = folder.as_os_str().is_empty();
            result = self.add(if is_empty { Path::new(".") } else { folder });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Takes in what happened to files, in order.
    pub(super) fn note(&mut self, events: Vec<FileEvent>) {
        for (descriptor, name, writing) in events {
            let Some((folder, _)) = self.watched.get(&descriptor) else { continue };
            let path = folder.join(name);
            match writing {
                Writing::Done => drop(self.written.remove(&path)),
                // A file removed since is no error.
                Writing::Begun => {
                    if let Ok(file) = fs::metadata(&path) {
                        self.written.insert(path, ((file.dev(), file.ino()), Instant::now()));
                    }
                }
            }
        }
        self.written.retain(|_, (_, at)| at.elapsed() < WRITING_MAX);
    }

    /// Whether the file with that device and inode is being written.
    pub(super) fn is_being_written(&self, file: (u64, u64)) -> bool {
        self.written.values().any(|(known, _)| *known == file)
    }

    /// Leaves what was not named again.
    pub(super) fn finish(&mut self) {
        let watches = &mut self.watches;
        self.watched.retain(|descriptor, (_, named)| {
            if *named == Named::Before {
                // The kernel may have removed it with its folder.
                let _ = watches.remove(descriptor.clone());
            }
            *named == Named::Again
        });
    }
}
