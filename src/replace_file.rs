//! Replacing a file atomically: write a new one beside it, then rename.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Readable and writable by the owner only.
pub(crate) const MODE: u32 = 0o600;

/// Replaces the file at `path` by one with mode [`MODE`] that `write` fills, and syncs it before
/// the rename. A reader finds either the old file or the new one, complete.
///
/// # Errors
/// `write` or the operating system failed; the file at `path` is unchanged.
pub(crate) fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&fresh)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // It may not exist; the error to report is the first one.
        let _ = fs::remove_file(&fresh);
    }
    written
}
