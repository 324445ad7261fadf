//! What the build script finds out, run by itself: in a git work tree, in a source archive, and as
//! whoever builds a package runs it.

#![allow(clippy::unwrap_used)] // a test: what cannot be read fails it

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The script, compiled, and the folder that it is in.
fn script() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("build");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    rustc.args(["--edition", "2024", source, "-o"]).arg(&program);
    assert!(rustc.status().unwrap().success());
    (folder, program)
}

/// What the script tells cargo in `root`, with these variables.
fn told(program: &Path, root: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(program);
    command.env_remove("MARGAY_COMMIT").env_remove("SOURCE_DATE_EPOCH").current_dir(root);
    command.env("CARGO_MANIFEST_DIR", root).env("TARGET", "some-target");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn value<'t>(told: &'t str, name: &str) -> &'t str {
    let start = format!("cargo::rustc-env=MARGAY_BUILD_{name}=");
    told.lines().find_map(|line| line.strip_prefix(&start)).unwrap()
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

    let plain = told(&program, root, &[]);
    assert_eq!(value(&plain, "COMMIT"), commit);
    assert_eq!(value(&plain, "DATE"), "1700000000");
    assert_eq!(value(&plain, "TARGET"), "some-target");
    // Only what is there is watched: a path that is not would make cargo run the script every time.
    assert!(plain.contains("rerun-if-changed=Cargo.toml\n") && !plain.contains("Cargo.lock"));

    fs::write(root.join("README.md"), "changed").unwrap();
    assert_eq!(value(&told(&program, root, &[]), "COMMIT"), commit, "a document is no source");
    fs::write(root.join("Cargo.toml"), "changed").unwrap();
    assert_eq!(value(&told(&program, root, &[]), "COMMIT"), format!("{commit}-modified"));

    // What is unpacked inside of another repository is not that repository.
    let inside = root.join("archive");
    fs::create_dir(&inside).unwrap();
    assert_eq!(value(&told(&program, &inside, &[]), "COMMIT"), "unknown");
}

#[test]
fn a_source_archive_has_what_the_environment_says() {
    let (_kept, program) = script();
    let folder = TempDir::new().unwrap();
    let told = |variables: &[(&str, &str)]| told(&program, folder.path(), variables);
    let bare = told(&[]);
    assert_eq!((value(&bare, "COMMIT"), value(&bare, "DATE")), ("unknown", "unknown"));
    let given = told(&[("MARGAY_COMMIT", "abc123"), ("SOURCE_DATE_EPOCH", "86400")]);
    assert_eq!((value(&given, "COMMIT"), value(&given, "DATE")), ("abc123", "86400"));
    let empty = told(&[("MARGAY_COMMIT", ""), ("SOURCE_DATE_EPOCH", "")]);
    assert_eq!(value(&empty, "COMMIT"), "unknown", "an empty variable is none");
    let without_git = told(&[("PATH", "/nonexistent")]);
    assert_eq!(value(&without_git, "COMMIT"), "unknown");

    for (name, text) in [("MARGAY_COMMIT", "a b"), ("SOURCE_DATE_EPOCH", "yesterday")] {
        let wrong = told(&[(name, text)]);
        assert!(wrong.contains(&format!("cargo::error={name} is \"{text}\"; give ")), "{wrong}");
    }
}
