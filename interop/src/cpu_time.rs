//! The CPU time of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// CPU time of the threads of a process so far, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct CpuTime(BTreeMap<String, u64>);

impl CpuTime {
    /// Reads those of a process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
            let thread = thread?;
            // A thread that has ended meanwhile has none.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanos = text.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), nanos);
        }
        Ok(Self(threads))
    }

    /// The time used since `earlier`, without that of threads that have ended since.
    #[must_use]
    pub fn since(&self, earlier: &CpuTime) -> u64 {
        let before = |thread: &str| earlier.0.get(thread).copied().unwrap_or_default();
        self.0.iter().map(|(thread, nanos)| nanos.saturating_sub(before(thread))).sum()
    }
}
