//! Putting a file of ours in the place of another, as a whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Only its owner may look.
pub(crate) const MODE: u32 = 0o600;

/// Puts what `write` writes in the place of the file at `path`, by a rename: whoever reads it finds the
/// old one or the new one.
///
/// # Errors
/// The system refuses; the file is as it was.
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
        // It may not exist; the fault that matters is the one before.
        let _ = fs::remove_file(&fresh);
    }
    written
}
