//! Folders watched with inotify.
//!
//! Files are scanned after any event and compared by their stamps, so what is read does not depend
//! on the kernel's queue being complete. Only the time of reading does: a file that is written in
//! place is not read until it is closed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

/// Events that can change the content of a file, or which files exist.
const EVENTS: WatchMask = WatchMask::CREATE
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MODIFY)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::MOVE)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::ONLYDIR);

/// The same of a folder that only stands in for one that does not exist: whatever else is written there,
/// such as logs, is nobody's concern. Added to what the folder is watched for already.
const EVENTS_ABOVE: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::MASK_ADD);

/// Size of the buffer for events, in octets.
const BUFFER: usize = 16 << 10;

/// Maximum number of events kept until the next scan; further ones only trigger it.
const EVENTS_MAX: usize = 4096;

/// A file that was changed but not closed counts as complete after this time without a write: the
/// writer may never close it.
const WRITING_MAX: Duration = Duration::from_secs(10);

/// An event of a file: the watch of its folder, its name in it, and whether it is being written.
pub(crate) type FileEvent = (WatchDescriptor, OsString, Writing);

/// Whether a file is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// The file was written to.
    Begun,
    /// It was closed.
    Done,
}

/// The stream of events.
pub(crate) struct Watch {
    stream: EventStream<Vec<u8>>,
    events: Vec<FileEvent>,
}

/// The set of watched folders.
pub(crate) struct Folders {
    watches: Watches,
    /// Path of each folder, and whether it was added since [`Folders::begin`].
    watched: HashMap<WatchDescriptor, (PathBuf, Named)>,
    /// Files that are being written, by path: device and inode, and the time of the last write
    /// event.
    written: HashMap<PathBuf, ((u64, u64), Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Before,
    Again,
}

/// A watch without folders.
///
/// # Errors
/// The kernel refuses, usually because the limit of inotify instances is reached.
pub(crate) fn watch() -> io::Result<(Watch, Folders)> {
    let inotify = Inotify::init()?;
    let watches = inotify.watches();
    let stream = inotify.into_event_stream(vec![0; BUFFER])?;
    let folders = Folders { watches, watched: HashMap::new(), written: HashMap::new() };
    Ok((Watch { stream, events: Vec::new() }, folders))
}

impl Watch {
    /// Returns when something changed. Cancel-safe: a lost event only delays the next scan to the
    /// end of its interval.
    ///
    /// # Errors
    /// Reading from inotify failed, which is not expected.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
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

    /// The events up to now that were not taken yet. Does not wait.
    pub(crate) fn take_events(&mut self) -> Vec<FileEvent> {
        while let Some(Ok(())) = self.changed().now_or_never() {}
        std::mem::take(&mut self.events)
    }
}

impl Folders {
    /// Begins a new set of folders to watch.
    pub(crate) fn begin(&mut self) {
        self.watched.values_mut().for_each(|(_, named)| *named = Named::Before);
    }

    /// Watches a folder. Call this before reading it, so that no change in between is missed. If
    /// the path now names another folder, that one is watched.
    pub(super) fn add(&mut self, folder: &Path) -> io::Result<()> {
        self.add_for(folder, EVENTS)
    }

    fn add_for(&mut self, folder: &Path, events: WatchMask) -> io::Result<()> {
        let descriptor = self.watches.add(folder, events)?;
        self.watched.insert(descriptor, (folder.to_owned(), Named::Again));
        Ok(())
    }

    /// Watches a folder for everything, or its nearest existing ancestor for it to come.
    pub(crate) fn add_nearest(&mut self, folder: &Path) -> io::Result<()> {
        self.add_for(or_current(folder), EVENTS).or_else(|_| self.add_above(folder))
    }

    /// Watches the nearest existing folder above a path that does not exist for it to come.
    pub(super) fn add_above(&mut self, path: &Path) -> io::Result<()> {
        let mut result = Ok(());
        for above in path.ancestors().skip(1) {
            result = self.add_for(or_current(above), EVENTS_ABOVE);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Records events of files, in order.
    pub(super) fn note(&mut self, events: Vec<FileEvent>) {
        for (descriptor, name, writing) in events {
            let Some((folder, _)) = self.watched.get(&descriptor) else { continue };
            let path = folder.join(name);
            match writing {
                Writing::Done => drop(self.written.remove(&path)),
                // The file may have been removed since.
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

    /// Stops watching folders that were not added since [`Folders::begin`].
    pub(crate) fn finish(&mut self) {
        let watches = &mut self.watches;
        self.watched.retain(|descriptor, (_, named)| {
            if *named == Named::Before {
                // Fails if the kernel removed the watch with its folder.
                let _ = watches.remove(descriptor.clone());
            }
            *named == Named::Again
        });
    }
}

/// The last ancestor of a relative path is empty: the current folder.
fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}
