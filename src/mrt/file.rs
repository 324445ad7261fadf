//! One file: written under a temporary name, renamed when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

/// How those of files that are being written end.
const PART: &str = ".part";

/// The name of a file that is being written, which is removed with this unless it is kept.
struct Part {
    path: PathBuf,
    is_kept: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next file of this stem removes what remains.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that is being written. It is removed when it is dropped.
pub(super) struct Open {
    file: File,
    part: Part,
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
        let mut at = at;
        let (name, complete) = loop {
            let time = jiff::Timestamp::try_from(at).map_err(io::Error::other)?;
            let time = time.strftime("%Y%m%dT%H%M%S.%3fZ");
            let name = format!("{stem}.{time}.mrt{}", if gzip { ".gz" } else { "" });
            let complete = folder.join(&name);
            if !complete.try_exists()? {
                break (name, complete);
            }
            // One of the same millisecond, or of before the clock was set back, is not replaced.
            at += Duration::from_millis(1);
        };
        let part = folder.join(format!(".{name}{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&part)?;
        let part = Part { path: part, is_kept: false };
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

    pub(super) fn discard(mut self) -> io::Result<()> {
        self.part.is_kept = true;
        fs::remove_file(&self.part.path)
    }

    /// Gives the file its name; one without records is removed. Returns whether there is one.
    ///
    /// After an error it keeps its temporary name, under which [`remove_torn`] finds it.
    pub(super) fn complete(mut self) -> io::Result<bool> {
        self.part.is_kept = true;
        if self.len == 0 {
            fs::remove_file(&self.part.path)?;
            return Ok(false);
        }
        self.file.sync_all()?;
        fs::rename(&self.part.path, &self.complete)?;
        Ok(true)
    }
}

/// Removes what a run that was killed has left: files without a name, which may end within a record.
pub(super) fn remove_torn(folder: &Path, stem: &str) -> io::Result<usize> {
    let torn = names(folder, |name| {
        let complete = name.strip_prefix('.').and_then(|name| name.strip_suffix(PART));
        complete.is_some_and(|name| is_of(name, stem))
    })?;
    for part in &torn {
        match fs::remove_file(part) {
            // An aborted dump removes its own.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(torn.len())
}

/// Removes the oldest complete files but `keep`.
pub(super) fn remove_old(folder: &Path, stem: &str, keep: u32) -> io::Result<()> {
    // Their names have the time in them, and sort by it.
    let mut complete = names(folder, |name| is_of(name, stem))?;
    complete.sort_unstable();
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let old = complete.len().saturating_sub(keep);
    complete.iter().take(old).try_for_each(fs::remove_file)
}

/// Whether we give this name to complete files of the stem. Others may begin with it and a point: those of
/// a VRF whose name has one, and what the operator keeps in the folder.
fn is_of(name: &str, stem: &str) -> bool {
    let time = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
    let time = time.map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
    time.and_then(|rest| rest.strip_suffix(".mrt")).is_some_and(is_time)
}

/// Whether this is a time as in the names of files.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"00000000T000000.000Z";
    let fits = |(octet, form): (u8, &u8)| match form {
        b'0' => octet.is_ascii_digit(),
        form => octet == *form,
    };
    text.len() == FORM.len() && text.bytes().zip(FORM).all(fits)
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
