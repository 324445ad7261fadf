//! Tells the program which build it is: commit, target, date (`src/version.rs`).
//!
//! Whoever builds a package says it (`MARGAY_COMMIT`, `SOURCE_DATE_EPOCH`), else git is asked. Outside of a
//! git work tree, as in a source archive, or without git, both are unknown and the program says so.
//!
//! Cargo runs this again when sources changed, not when HEAD did: a commit or a checkout that leaves
//! the sources as they are compiles nothing. The commit is then that of the build before, whose sources
//! were the same.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is compiled, and this.
const SOURCES: [&str; 5] = ["build.rs", "src", "bgp-proto/src", "Cargo.toml", "Cargo.lock"];
/// In place of what nobody can say.
const UNKNOWN: &str = "unknown";

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let target = variable("TARGET").expect("cargo sets it");
    for name in ["MARGAY_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // A path that is not there would make every build the first one.
    for source in SOURCES.iter().filter(|source| root.join(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    let commit = variable("MARGAY_COMMIT").or_else(|| commit(&root));
    let date = variable("SOURCE_DATE_EPOCH").or_else(|| commit_date(&root));
    if let Some(commit) = commit.iter().find(|text| text.contains(char::is_whitespace)) {
        println!("cargo::error=MARGAY_COMMIT is {commit:?}; give one word");
    }
    if let Some(date) = date.iter().find(|text| text.parse::<u32>().is_err()) {
        println!("cargo::error=SOURCE_DATE_EPOCH is {date:?}; give seconds since 1970");
    }
    println!("cargo::rustc-env=MARGAY_BUILD_TARGET={target}");
    println!("cargo::rustc-env=MARGAY_BUILD_COMMIT={}", commit.as_deref().unwrap_or(UNKNOWN));
    println!("cargo::rustc-env=MARGAY_BUILD_DATE={}", date.as_deref().unwrap_or(UNKNOWN));
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

/// The commit that is checked out, with what says that sources were changed since.
fn commit(root: &Path) -> Option<String> {
    // A source archive may have been unpacked inside of another repository.
    let prefix = git(root, &["rev-parse", "--show-prefix"])?;
    let commit = prefix.is_empty().then(|| git(root, &["rev-parse", "--short=12", "HEAD"]))??;
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(root, &[&status[..], &SOURCES].concat())?;
    Some(if changed.is_empty() { commit } else { commit + "-modified" })
}

/// When that commit was made, in seconds since 1970: the same for every build of it.
fn commit_date(root: &Path) -> Option<String> {
    commit(root)?;
    git(root, &["show", "--no-patch", "--no-show-signature", "--format=%ct", "HEAD"])
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("--no-optional-locks").arg("-C").arg(root).args(arguments);
    // A build that a git hook starts has these of the repository that the hook is of.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
