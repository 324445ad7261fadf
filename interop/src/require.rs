//! Requirements of tests on the machine.
//!
//! Tests that need more than a compiler are `#[ignore = "needs …"]`, so that cargo counts them as
//! not run. If they are run (`--include-ignored`) and something is missing, they fail and name it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::speaker::Kind;
use crate::subject;

/// The folder with the third-party conformance data, `MARGAY_SHARED` or `../shared` beside the
/// repository.
///
/// # Errors
/// When there is none.
pub fn shared() -> Result<PathBuf> {
    let dir = std::env::var_os("MARGAY_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    ensure!(dir.is_dir(), "no folder {}: set MARGAY_SHARED", dir.display());
    Ok(dir)
}

/// Requires root, ip(8), the subject's binary and these speakers.
///
/// # Errors
/// Names what is missing.
pub fn lab(kinds: &[Kind]) -> Result<()> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    ensure!(is_root, "network namespaces need root");
    programs(&["ip"])?;
    if subject::kind() == Kind::Margay {
        crate::margay::binary()?;
    }
    for kind in kinds {
        programs(&kind.programs()).with_context(|| format!("{kind:?} is not installed"))?;
    }
    Ok(())
}

/// Requires these programs.
///
/// # Errors
/// Names the first that is not installed.
pub fn programs<S: AsRef<str>>(names: &[S]) -> Result<()> {
    match names.iter().map(S::as_ref).find(|name| find_program(name).is_none()) {
        Some(name) => bail!("{name} not found: interop/setup.sh installs it"),
        None => Ok(()),
    }
}

/// Requires margay as the subject, as the test uses its own interfaces.
///
/// # Errors
/// When `INTEROP_SUBJECT` names another speaker.
pub fn margay_as_subject() -> Result<()> {
    let kind = subject::kind();
    ensure!(kind == Kind::Margay, "asks margay's own interface: run it without INTEROP_SUBJECT");
    Ok(())
}

/// The path of a program: as given if absolute, otherwise from `PATH` and the folders for daemons.
#[must_use]
pub fn find_program(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}
