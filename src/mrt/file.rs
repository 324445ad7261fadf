//! One file: written under a temporary name, renamed when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

/// How those of files that are being written end.
const PART: &str = ".part";

/// A file that is being written.
pub(super) struct Open {
    file: File,
    part: PathBuf,
    complete: PathBuf,
    gzip: bool,
    pub(super) opened: Instant,
    /// Octets of complete batches.
    pub(super) len: u64,
}

impl Open {
    /// Creates a file, readable by its owner and group. Its name begins with `stem`.
    pub(super) fn create(
        folder: &Path,
        stem: &str,
        gzip: bool,
        at: SystemTime,
    ) -> io::Result<Open> {
        let time = jiff::Timestamp::try_from(at).map_err(io::Error::other)?;
        let time = time.strftime("%Y%m%dT%H%M%S.%3fZ");
        let name = format!("{stem}.{time}.mrt{}", if gzip { ".gz" } else { "" });
        let part = folder.join(format!(".{name}{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&part)?;
        let complete = folder.join(name);
        Ok(Open { file, part, complete, gzip, opened: Instant::now(), len: 0 })
    }

    /// Appends records. Compressed, they are a gzip member of their own (RFC 1952 §2.2), so that the file
    /// is complete after each call, and without what a failed one has left.
    pub(super) fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        let packed;
        let octets = if self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(octets)?;
            packed = encoder.finish()?;
            &packed
        } else {
            octets
        };
        if let Err(error) = self.file.write_all(octets) {
            self.file.set_len(self.len)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.len))?;
            return Err(error);
        }
        self.len += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    pub(super) fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.part)
    }

    /// Gives the file its name; one without records is removed. Returns whether there is one.
    pub(super) fn complete(self) -> io::Result<bool> {
        if self.len == 0 {
            fs::remove_file(&self.part)?;
            return Ok(false);
        }
        self.file.sync_all()?;
        fs::rename(&self.part, &self.complete)?;
        Ok(true)
    }
}

/// Removes what a run that was killed has left: files without a name, which may end within a record.
pub(super) fn remove_torn(folder: &Path, stem: &str) -> io::Result<usize> {
    let torn = names(folder, |name| {
        name.strip_prefix('.').is_some_and(|name| has_stem(name, stem)) && name.ends_with(PART)
    })?;
    torn.iter().try_for_each(fs::remove_file)?;
    Ok(torn.len())
}

/// Removes the oldest complete files but `keep`.
pub(super) fn remove_old(folder: &Path, stem: &str, keep: u32) -> io::Result<()> {
    // Their names have the time in them, and sort by it.
    let mut complete = names(folder, |name| has_stem(name, stem))?;
    complete.sort_unstable();
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let old = complete.len().saturating_sub(keep);
    complete.iter().take(old).try_for_each(fs::remove_file)
}

/// Names of other stems may begin with one, but not with a point behind it.
fn has_stem(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'))
}

fn names(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_ours) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
