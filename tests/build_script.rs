//! Runs the build script by itself: in a git work tree, in a source archive, and as in the build of
//! a package.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Compiles the script; returns it with its folder.
fn script() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("build");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    rustc.args(["--edition", "2024", source, "-o"]).arg(&program);
    assert!(rustc.status().unwrap().success());
    (folder, program)
}

/// The output of the script for cargo in `root`, with these variables.
fn printed(program: &Path, root: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(program);
    command.env_remove("MARGAY_COMMIT").env_remove("SOURCE_DATE_EPOCH").current_dir(root);
    command.env("CARGO_MANIFEST_DIR", root).env("TARGET", "some-target");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn value<'t>(printed: &'t str, name: &str) -> &'t str {
    let start = format!("cargo::rustc-env=MARGAY_BUILD_{name}=");
    printed.lines().find_map(|line| line.strip_prefix(&start)).unwrap()
}

fn git(root: &Path, arguments: &[&str]) -> String {
    let identity =
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=no"];
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(identity).args(arguments);
    git.env("GIT_COMMITTER_DATE", "1700000000 +0000");
    let output = git.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn commit_and_date_are_those_of_the_work_tree() {
    let (_kept, program) = script();
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::write(root.join("Cargo.toml"), "").unwrap();
    fs::write(root.join("README.md"), "").unwrap();
    git(root, &["init", "--quiet"]);
    git(root, &["add", "."]);
    git(root, &["commit", "--quiet", "--message", "a"]);
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"]);

    let plain = printed(&program, root, &[]);
    assert_eq!(value(&plain, "COMMIT"), commit);
    assert_eq!(value(&plain, "DATE"), "1700000000");
    assert_eq!(value(&plain, "TARGET"), "some-target");
    // Only existing paths are watched: a missing one would make cargo run the script every time.
    assert!(plain.contains("rerun-if-changed=Cargo.toml\n") && !plain.contains("Cargo.lock"));

    fs::write(root.join("README.md"), "changed").unwrap();
    assert_eq!(
        value(&printed(&program, root, &[]), "COMMIT"),
        commit,
        "a document is not a source"
    );
    fs::write(root.join("Cargo.toml"), "changed").unwrap();
    assert_eq!(value(&printed(&program, root, &[]), "COMMIT"), format!("{commit}-modified"));

    // An archive unpacked inside another repository is not part of it.
    let inside = root.join("archive");
    fs::create_dir(&inside).unwrap();
    assert_eq!(value(&printed(&program, &inside, &[]), "COMMIT"), "unknown");
}

#[test]
fn a_source_archive_takes_commit_and_date_from_the_environment() {
    let (_kept, program) = script();
    let folder = TempDir::new().unwrap();
    let printed = |variables: &[(&str, &str)]| printed(&program, folder.path(), variables);
    let bare = printed(&[]);
    assert_eq!((value(&bare, "COMMIT"), value(&bare, "DATE")), ("unknown", "unknown"));
    let given = printed(&[("MARGAY_COMMIT", "abc123"), ("SOURCE_DATE_EPOCH", "86400")]);
    assert_eq!((value(&given, "COMMIT"), value(&given, "DATE")), ("abc123", "86400"));
    let empty = printed(&[("MARGAY_COMMIT", ""), ("SOURCE_DATE_EPOCH", "")]);
    assert_eq!(value(&empty, "COMMIT"), "unknown", "an empty variable counts as absent");
    let without_git = printed(&[("PATH", "/nonexistent")]);
    assert_eq!(value(&without_git, "COMMIT"), "unknown");

    for (name, text) in [("MARGAY_COMMIT", "a b"), ("SOURCE_DATE_EPOCH", "yesterday")] {
        let wrong = printed(&[(name, text)]);
        assert!(wrong.contains(&format!("cargo::error={name} is \"{text}\"; give ")), "{wrong}");
    }
}
