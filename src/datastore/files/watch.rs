//! Folders watched with inotify.
//!
//! Which file an event concerns is not looked at: files are looked through after any event, and
//! told apart by their stamps. So nothing depends on the kernel's queue being complete.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

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

/// Says that something changed.
pub(super) struct Watch(EventStream<Vec<u8>>);

/// Says what is watched.
pub(super) struct Folders {
    watches: Watches,
    /// Whether each was named since [`Folders::begin`].
    watched: HashMap<WatchDescriptor, Named>,
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
    Ok((Watch(stream), Folders { watches, watched: HashMap::new() }))
}

impl Watch {
    /// Returns when something changed. Dropping the future loses nothing that matters: whoever
    /// waits next looks at the files after a while anyway.
    ///
    /// # Errors
    /// The kernel's, which is not to be expected.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        match self.0.next().await {
            Some(event) => event.map(|_| ()),
            None => Err(io::Error::other("inotify has ended")),
        }
    }
}

impl Folders {
    /// Begins to name what is to be watched.
    pub(super) fn begin(&mut self) {
        self.watched.values_mut().for_each(|named| *named = Named::Before);
    }

    /// Watches a folder. To be called before it is read, so that no change falls in between. A path
    /// that names another folder than before is watched as the new one.
    pub(super) fn add(&mut self, folder: &Path) -> io::Result<()> {
        let descriptor = self.watches.add(folder, EVENTS)?;
        self.watched.insert(descriptor, Named::Again);
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

    /// Leaves what was not named again.
    pub(super) fn finish(&mut self) {
        let watches = &mut self.watches;
        self.watched.retain(|descriptor, named| {
            if *named == Named::Before {
                // It may be gone by itself, with its folder.
                let _ = watches.remove(descriptor.clone());
            }
            *named == Named::Again
        });
    }
}
