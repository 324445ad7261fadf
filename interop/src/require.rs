//! What a test needs from the machine, and what happens when it is missing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::speaker::Kind;

/// Whether a missing peer fails the tests instead of skipping them: `CI=true` or
/// `MARGAY_REQUIRE_PEERS=1`.
#[must_use]
pub fn is_strict() -> bool {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    is("CI", "true") || is("MARGAY_REQUIRE_PEERS", "1")
}

/// The folder with the third-party conformance data, `MARGAY_SHARED` or `../shared` beside the
/// repository; `None` when there is none.
#[must_use]
pub fn shared() -> Option<PathBuf> {
    let dir = std::env::var_os("MARGAY_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    dir.is_dir().then_some(dir)
}

/// Says why this machine cannot run a test with these speakers, or `None` when it can.
#[must_use]
pub fn missing(kinds: &[Kind]) -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(1, |m| m.uid()) != 0 {
        return Some("network namespaces need root".to_owned());
    }
    if find_program("ip").is_none() {
        return Some("ip(8) is not installed".to_owned());
    }
    if crate::subject::kind() == Kind::Margay
        && let Err(reason) = crate::margay::binary()
    {
        return Some(format!("{reason:#}"));
    }
    kinds.iter().find_map(|kind| {
        kind.programs()
            .iter()
            .find(|program| find_program(program).is_none())
            .map(|program| format!("{kind:?} is not installed ({program} not found)"))
    })
}

/// The path of a program: as given when absolute, else from `PATH` and the folders for daemons.
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
