//! Errors in a configuration, with their positions.

use std::fmt;
use std::path::Path;

/// One error, displayed as `FILE:LINE:COL: KEY: what is wrong; remedy`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Error {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1; `None` if the error concerns the file as a whole.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// The key's path, such as `bgp.peers[1].hold-time` (entries count from 1); empty if the error
    /// concerns no key.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do; empty if that is obvious.
    pub remedy: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All errors of a configuration: at least one, sorted by position. Displayed one per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors(pub(super) Vec<Error>);

impl Errors {
    /// The errors, sorted by position.
    pub fn as_slice(&self) -> &[Error] {
        &self.0
    }

    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        Errors(vec![Error {
            file: file.display().to_string(),
            line: None,
            column: None,
            key: String::new(),
            what: format!("cannot be read: {error}"),
            remedy: "name a readable file with --config".into(),
        }])
    }

    pub(super) fn not_text(file: &Path, line: usize) -> Self {
        Errors(vec![Error {
            file: file.display().to_string(),
            line: Some(line),
            column: None,
            key: String::new(),
            what: "is not UTF-8 text".into(),
            remedy: "write the file as UTF-8".into(),
        }])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
