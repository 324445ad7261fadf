//! `[mrt]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::reader::Table;

/// Files in the MRT format (RFC 6396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MrtSettings {
    /// The folder for the files, which has to exist.
    pub directory: PathBuf,
    /// How often the tables are dumped, 60 s to one day. `None`, the default: never.
    pub table_interval: Option<Duration>,
    /// Whose messages are recorded. Default: of no peer.
    pub updates: MrtPeers,
    /// After this time a file is complete and the next one begins, 60 s to one day. Default 15 minutes.
    pub rotate_after: Duration,
    /// So does one of this many octets, 1 MiB to 1 TiB. Default 64 MiB.
    pub rotate_bytes: u64,
    /// Whether files are compressed. Default: no.
    pub compression: MrtCompression,
    /// How many complete files are kept, of messages and of each table, 1-100000; older ones are deleted.
    /// `None`, the default: all.
    pub keep: Option<u32>,
}

/// Peers whose messages are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MrtPeers {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those with these names. Peers that do not exist yet may be among them.
    Named(Vec<Arc<str>>),
}

impl MrtPeers {
    /// Whether the peer of this name is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            MrtPeers::None => false,
            MrtPeers::All => true,
            MrtPeers::Named(names) => names.iter().any(|known| **known == *name),
        }
    }
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MrtCompression {
    /// Not.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
}

impl MrtCompression {
    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            MrtCompression::None => "none",
            MrtCompression::Gzip => "gzip",
        }
    }
}

impl MrtSettings {
    /// Files in this folder, with defaults for everything else.
    pub fn in_folder(directory: PathBuf) -> Self {
        MrtSettings {
            directory,
            table_interval: None,
            updates: MrtPeers::None,
            rotate_after: Duration::from_secs(900),
            rotate_bytes: 64 << 20,
            compression: MrtCompression::None,
            keep: None,
        }
    }
}

pub(super) fn read(root: &Table<'_>, base: &Path) -> Option<MrtSettings> {
    let table = root.get("mrt")?.table()?;
    let directory = table.require("directory", "name the folder for the files");
    let directory = directory.and_then(|v| v.text()).map(|text| base.join(text));
    let mut settings = MrtSettings::in_folder(directory.unwrap_or_default());
    let interval = table.get("table-interval").and_then(|v| v.integer(60..=86_400_u32));
    settings.table_interval = interval.map(|secs| Duration::from_secs(secs.into()));
    if let Some(updates) = table.get("updates") {
        settings.updates = if updates.is_boolean() {
            if updates.boolean() == Some(true) { MrtPeers::All } else { MrtPeers::None }
        } else {
            MrtPeers::Named(updates.read_list(|name| name.text().map(Arc::from)))
        };
    }
    if let Some(secs) = table.get("rotate-after").and_then(|v| v.integer(60..=86_400_u32)) {
        settings.rotate_after = Duration::from_secs(secs.into());
    }
    if let Some(octets) = table.get("rotate-bytes").and_then(|v| v.integer(1 << 20..=1_u64 << 40)) {
        settings.rotate_bytes = octets;
    }
    let words = [MrtCompression::None, MrtCompression::Gzip].map(|kind| (kind.as_str(), kind));
    if let Some(compression) = table.get("compression").and_then(|v| v.choice(&words)) {
        settings.compression = compression;
    }
    settings.keep = table.get("keep").and_then(|v| v.integer(1..=100_000_u32));
    table.finish();
    Some(settings)
}
