//! A file with a dump of a table.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::{self, Open};

/// A file that is being written, removed when it is dropped. Its functions wait for the disk.
pub struct TableFile {
    open: Open,
    folder: PathBuf,
    stem: String,
}

impl TableFile {
    /// Creates a file that begins now, for the table of a VRF or the default one. What was left incomplete
    /// of that table is removed.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, vrf: Option<&str>, gzip: bool) -> io::Result<TableFile> {
        let stem = vrf.map_or("table".to_owned(), |vrf| format!("table-{vrf}"));
        file::remove_torn(folder, &stem)?;
        let open = Open::create(folder, &stem, gzip, SystemTime::now())?;
        Ok(TableFile { open, folder: folder.to_owned(), stem })
    }

    /// Appends records.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.open.append(octets)
    }

    /// Gives the file its name, and removes the oldest of this table but `keep`.
    ///
    /// # Errors
    /// As above; the next file of the table removes this one.
    pub fn complete(self, keep: Option<u32>) -> io::Result<()> {
        let TableFile { open, folder, stem } = self;
        open.complete()?;
        keep.map_or(Ok(()), |keep| file::remove_old(&folder, &stem, keep))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// As above.
    pub fn discard(self) -> io::Result<()> {
        self.open.discard()
    }
}
