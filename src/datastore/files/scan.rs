//! Scans folders for files, and reads those that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use super::contents::Contents;
use super::watch::{FileEvent, Folders};
use crate::calico::Problem;
use crate::calico::load::{DEPTH_MAX, Entry, Loaded, parse_octets};
use crate::calico::model::decode_endpoint;

/// Maximum size of a file, in octets.
const OCTETS_MAX: u64 = 64 << 20;

/// A file changed less than this ago may change again without a new modification time.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A file that cannot be parsed is read again after this time, as in Calico: it may have been half
/// written.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// The paths to scan, and how their files are read.
#[derive(Clone, Debug)]
pub(in crate::datastore) enum Layout {
    /// Folders and files of objects.
    Objects(Vec<PathBuf>),
    /// Felix's endpoint-status folder.
    Endpoints(PathBuf),
}

/// Scans repeatedly, and remembers which files it has read.
pub(super) struct Scanner {
    layout: Layout,
    folders: Option<Folders>,
    stamps: BTreeMap<PathBuf, Stamp>,
    /// Files read in the last scan that are not committed yet.
    fresh: Vec<(PathBuf, Stamp, Loaded)>,
    pub(super) contents: Contents,
}

/// Identifies a version of a file; compared to detect changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether it had been unchanged for long enough when it was read for the stamp to be reliable.
    is_settled: bool,
}

/// Whether files are held back because they are being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Files,
    Nothing,
}

/// The state of one scan.
#[derive(Default)]
struct Look {
    there: BTreeSet<PathBuf>,
    /// Folders that could not be read.
    unknown: BTreeSet<PathBuf>,
    /// Device and inode of the folders visited, as links may form cycles.
    seen: BTreeSet<(u64, u64)>,
    problems: Vec<Problem>,
    /// Files that could not be parsed and are to be read again.
    doubtful: Vec<PathBuf>,
}

impl Scanner {
    pub(super) fn new(layout: Layout, folders: Option<Folders>) -> Self {
        Scanner {
            layout,
            folders,
            stamps: BTreeMap::new(),
            fresh: Vec::new(),
            contents: Contents::default(),
        }
    }

    /// Records the events since the last scan.
    pub(super) fn note(&mut self, events: Vec<FileEvent>) {
        if let Some(folders) = &mut self.folders {
            folders.note(events);
        }
    }

    /// Commits what was read, except files that are being written: these keep their previous
    /// content and are read again when they are closed. Returns whether there are any.
    pub(super) fn commit(&mut self) -> Held {
        let mut held = Held::Nothing;
        for (path, stamp, loaded) in std::mem::take(&mut self.fresh) {
            let file = (stamp.device, stamp.inode);
            if self.folders.as_ref().is_some_and(|folders| folders.is_being_written(file)) {
                self.stamps.remove(&path);
                held = Held::Files;
            } else {
                self.contents.put(&path, loaded);
            }
        }
        held
    }

    /// Scans everything and reads what changed, for [`Scanner::commit`]. Blocking.
    ///
    /// # Errors
    /// A configured path is missing or cannot be read. The contents are unchanged then.
    pub(super) fn scan(&mut self) -> Result<(), String> {
        let mut look = Look::default();
        if let Some(folders) = &mut self.folders {
            folders.begin();
        }
        let roots = match &self.layout {
            Layout::Objects(paths) => paths.clone(),
            Layout::Endpoints(folder) => vec![folder.clone()],
        };
        // All are scanned, even after an error, so that all are watched.
        let looks: Vec<_> = roots.iter().map(|root| self.look_at_root(root, &mut look)).collect();
        let result = looks.into_iter().collect::<Result<Vec<()>, String>>();
        if result.is_ok() {
            self.take_second_look(&mut look);
            self.stamps.retain(|path, _| look.there.contains(path));
            self.contents.retain(&look.there, &look.unknown);
            self.contents.set_problems(look.problems);
        }
        if let Some(folders) = &mut self.folders {
            folders.finish();
        }
        result.map(|_| ())
    }

    fn look_at_root(&mut self, root: &Path, look: &mut Look) -> Result<(), String> {
        let named = |error: io::Error| format!("{}: {error}", root.display());
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {
                self.look_at_folder(root, &metadata, 0, look).map_err(named)
            }
            Ok(metadata) => {
                self.watch_above(root, look);
                self.look_at_file(root, &metadata, look);
                Ok(())
            }
            Err(error) => {
                let may_be_missing = matches!(self.layout, Layout::Endpoints(_));
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                if is_missing {
                    self.await_path(root, look);
                } else {
                    self.watch_above(root, look);
                }
                if may_be_missing && is_missing { Ok(()) } else { Err(named(error)) }
            }
        }
    }

    /// Watches the parent folder of a path, or its nearest existing ancestor.
    fn watch_above(&mut self, path: &Path, look: &mut Look) {
        if let Some(folders) = &mut self.folders
            && let Some(above) = path.parent()
            && let Err(error) = folders.add_nearest(above)
        {
            look.problems.push(not_watched(above, &error));
        }
    }

    /// Watches for a path that does not exist to come, and for nothing else where it would be.
    fn await_path(&mut self, path: &Path, look: &mut Look) {
        if let Some(folders) = &mut self.folders
            && let Err(error) = folders.add_above(path)
        {
            look.problems.push(not_watched(path, &error));
        }
    }

    fn look_at_folder(
        &mut self,
        folder: &Path,
        metadata: &Metadata,
        depth: usize,
        look: &mut Look,
    ) -> io::Result<()> {
        if depth > DEPTH_MAX || !look.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if let Some(folders) = &mut self.folders
            && let Err(error) = folders.add(folder)
        {
            look.problems.push(not_watched(folder, &error));
        }
        let entries: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        for path in entries {
            let is_objects = match (&self.layout, Entry::of(&path)) {
                (Layout::Endpoints(_), _) | (_, Entry::Objects) => true,
                (_, Entry::Hidden) => continue,
                (_, Entry::Other) => false,
            };
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // Removed in the meantime, or a dangling link.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    look.unknown.insert(path.clone());
                    look.problems.push(unreadable(&path, &error));
                    continue;
                }
            };
            if metadata.is_dir() {
                let nested = matches!(self.layout, Layout::Objects(_));
                if nested && let Err(error) = self.look_at_folder(&path, &metadata, depth + 1, look)
                {
                    look.problems.push(unreadable(&path, &error));
                    look.unknown.insert(path);
                }
            } else if is_objects {
                self.look_at_file(&path, &metadata, look);
            }
        }
        Ok(())
    }

    fn look_at_file(&mut self, path: &Path, metadata: &Metadata, look: &mut Look) {
        // Reading a pipe would block.
        if !metadata.is_file() {
            return;
        }
        self.watch_target(path, look);
        look.there.insert(path.to_owned());
        let stamp = Stamp::of(metadata);
        if stamp.is_settled && self.stamps.get(path) == Some(&stamp) {
            return;
        }
        if !self.read(path, stamp, look) {
            look.doubtful.push(path.to_owned());
        }
    }

    /// Watches the folder of a link's target.
    fn watch_target(&mut self, path: &Path, look: &mut Look) {
        let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink());
        if is_link && let Ok(target) = fs::canonicalize(path) {
            self.watch_above(&target, look);
        }
    }

    /// Reads a file into `fresh`. Returns `false` if it cannot be parsed and should be read again
    /// first.
    fn read(&mut self, path: &Path, stamp: Stamp, look: &mut Look) -> bool {
        let is_first_look = !look.doubtful.iter().any(|doubtful| doubtful == path);
        let loaded = match read_file(path, stamp.size, &self.layout) {
            Ok(loaded) => loaded,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                look.there.remove(path);
                return true;
            }
            // Read again after the next event or interval.
            Err(error) => {
                self.stamps.remove(path);
                look.problems.push(unreadable(path, &error));
                return true;
            }
        };
        let is_understood =
            loaded.problems.is_empty() && loaded.objects.iter().all(|o| o.object.is_ok());
        if !is_understood && is_first_look && self.stamps.get(path) != Some(&stamp) {
            return false;
        }
        self.stamps.insert(path.to_owned(), stamp);
        self.fresh.push((path.to_owned(), stamp, loaded));
        true
    }

    fn take_second_look(&mut self, look: &mut Look) {
        if look.doubtful.is_empty() {
            return;
        }
        sleep(SECOND_LOOK);
        for path in look.doubtful.clone() {
            if let Ok(metadata) = fs::metadata(&path) {
                self.read(&path, Stamp::of(&metadata), look);
            }
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_settled: age.is_some_and(|age| age > SETTLED_AFTER),
        }
    }
}

fn read_file(path: &Path, size: u64, layout: &Layout) -> io::Result<Loaded> {
    if size > OCTETS_MAX {
        return Err(io::Error::other(format!("longer than {OCTETS_MAX} octets")));
    }
    let octets = fs::read(path)?;
    let mut loaded = Loaded::default();
    match layout {
        Layout::Objects(_) => parse_octets(&path.display().to_string(), octets, &mut loaded),
        Layout::Endpoints(_) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            loaded.objects.push(decode_endpoint(&name, &octets));
        }
    }
    Ok(loaded)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(path.display(), format!("{error}: what it held before stays in force"))
}

fn not_watched(folder: &Path, error: &io::Error) -> Problem {
    Problem::new(
        folder.display(),
        format!("cannot be watched ({error}): it is looked at from time to time instead"),
    )
}
