//! A small file beside the control socket, for the next run to read. Its content is valid for one boot
//! of the machine, and has a version.
//!
//! It is replaced atomically, and read only if it is ours: a regular file of our user that no other
//! user may write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::replace_file::replace_file;

/// Longest file, in octets, unless it says otherwise. A longer one is not ours.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Failed(#[from] io::Error),
    #[error("{0}")]
    Foreign(String),
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct OfBoot<T> {
    version: u32,
    /// The machine's boot id when it was written.
    boot: String,
    #[serde(flatten)]
    content: T,
}

/// A file that only margay writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnFile {
    pub(super) path: PathBuf,
    len_max: u64,
    /// Version of the content; a file of another version is not read.
    version: u32,
}

impl OwnFile {
    /// The file beside a control socket: `margay.state` for `margay.sock` and extension `state`.
    pub(super) fn beside(socket: &Path, extension: &str, version: u32) -> Self {
        OwnFile { path: socket.with_extension(extension), len_max: FILE_LEN_MAX, version }
    }

    /// The same with another bound on its length, in octets.
    pub(super) fn with_len_max(self, len_max: u64) -> Self {
        OwnFile { len_max, ..self }
    }

    /// The content of the file; `None` if it does not exist, or the machine was booted since.
    ///
    /// # Errors
    /// The file cannot be read, or is not ours.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Unread> {
        let Some(text) = self.read_text()? else { return Ok(None) };
        let OfBoot { version, boot: of_boot, content } =
            serde_json::from_str(&text).map_err(|error| Unread::Foreign(error.to_string()))?;
        if version != self.version {
            return Err(Unread::Foreign(format!("version {version}")));
        }
        Ok((of_boot == boot()?).then_some(content))
    }

    fn read_text(&self) -> Result<Option<String>, Unread> {
        // Does not follow a symbolic link, and does not block on a pipe without a writer.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Some(why) = not_ours(&file, self.len_max)? {
            return Err(Unread::Foreign(why.to_owned()));
        }
        let mut text = String::new();
        file.take(self.len_max).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Replaces the file's content.
    ///
    /// # Errors
    /// The content is too long, or the file cannot be written; it is unchanged.
    pub(super) fn replace<T: Serialize>(&self, content: T) -> io::Result<()> {
        let content = OfBoot { version: self.version, boot: boot()?, content };
        let text = serde_json::to_string(&content)?;
        if text.len() as u64 > self.len_max {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        replace_file(&self.path, |file| file.write_all(text.as_bytes()))
    }

    /// Removes the file, if it exists.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Why a file is not ours; `None` if it is.
fn not_ours(file: &File, len_max: u64) -> io::Result<Option<&'static str>> {
    let metadata = file.metadata()?;
    Ok(if !metadata.is_file() {
        Some("it is no file")
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        Some("it belongs to another user")
    } else if metadata.mode() & 0o022 != 0 {
        Some("others may write it")
    } else if metadata.len() > len_max {
        Some("it is too long")
    } else {
        None
    })
}

/// The boot id of the machine.
pub(super) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
