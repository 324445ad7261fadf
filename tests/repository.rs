//! Consistency of the repository: documents, manifests and scripts.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files of the repository with one of these extensions, by their path from its root.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        extensions.contains(&extension) && root().join(path).is_file()
    };
    let found: Vec<PathBuf> = text.lines().map(PathBuf::from).filter(wanted).collect();
    assert!(!found.is_empty(), "git lists no {extensions:?}");
    found
}

/// Every crate in `[dependencies]` and `[dev-dependencies]` is named in the code of its package.
#[test]
fn every_dependency_is_used() {
    let packages = [
        ("Cargo.toml", &["src", "tests", "benches", "examples"][..]),
        ("bgp-proto/Cargo.toml", &["bgp-proto", "benches/table.rs", "benches/turns.rs"]),
        ("interop/Cargo.toml", &["interop"]),
        ("benches/compare/Cargo.toml", &["benches/compare"]),
        ("benches/instructions/Cargo.toml", &["benches/instructions"]),
    ];
    let code: Vec<(PathBuf, String)> =
        files(&["rs"]).into_iter().map(|f| (f.clone(), read(f))).collect();
    let mut unused = Vec::new();
    for (manifest, folders) in packages {
        let parsed: toml::Table = read(manifest).parse().unwrap();
        let names: BTreeSet<String> = ["dependencies", "dev-dependencies"]
            .iter()
            .filter_map(|section| parsed.get(*section)?.as_table())
            .flat_map(|section| section.keys().map(|name| name.replace('-', "_")))
            .collect();
        for name in names {
            let forms = [format!("{name}::"), format!("use {name};"), format!("use {name} as")];
            let is_used = code.iter().any(|(path, text)| {
                folders.iter().any(|folder| path.starts_with(folder))
                    && forms.iter().any(|form| text.contains(form))
            });
            if !is_used {
                unused.push(format!("{manifest}: {name}"));
            }
        }
    }
    // Enables a feature for the package's own tests.
    unused.retain(|entry| entry != "bgp-proto/Cargo.toml: bgp_proto");
    assert_eq!(unused, Vec::<String>::new());
}

/// As `cargo deny check licenses sources`, which is not installed everywhere: every package comes
/// from crates.io or from this repository, and one of its licences is in `deny.toml`.
#[test]
fn every_licence_and_source_is_allowed() {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let allowed: BTreeSet<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| licence.as_str().unwrap())
        .collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        // Packages for other systems are not downloaded.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence:?}"));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|s| s != "registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{name}: from {source:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether an SPDX expression can be satisfied: `AND` binds more tightly than `OR`, and `/` is an
/// old form of `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // `(A OR B) AND C`: each part must be met.
    if expression.starts_with('(') || expression.contains(" AND (") {
        return expression
            .split(" AND ")
            .all(|part| is_allowed(part.trim_matches(['(', ')']), allowed));
    }
    flat.split(" OR ").any(|all| all.split(" AND ").all(|one| allowed.contains(one.trim())))
}

#[test]
fn licence_expressions_are_read() {
    let allowed = BTreeSet::from(["MIT", "Zlib"]);
    for (expression, wanted) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("Apache-2.0/MIT", true),
        ("MIT AND Zlib", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Zlib", true),
        ("(MIT OR GPL-3.0) AND BSL-1.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), wanted, "{expression}");
    }
}

/// The minimum supported compiler is the one with which CI builds.
#[test]
fn the_minimum_version_of_rust_is_the_one_that_is_built() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let promised = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let setup = read("interop/setup.sh");
    assert!(setup.contains(&format!("RUST_TOOLCHAIN={promised}.0\n")), "interop/setup.sh");
    assert!(read("README.md").contains(&format!("Rust {promised} or newer")), "README.md");
    assert!(read("CONTRIBUTING.md").contains(&format!("Rust {promised}")), "CONTRIBUTING.md");
}

/// Metric names are defined in one place, so that none is defined twice.
#[test]
fn metric_names_are_in_one_place() {
    let is_elsewhere = |path: &PathBuf| {
        path.starts_with("src") && !path.ends_with("metric_names.rs") && !path.ends_with("tests.rs")
    };
    let name = concat!("\"", "margay_");
    let found: Vec<PathBuf> = files(&["rs"])
        .into_iter()
        .filter(is_elsewhere)
        .filter(|path| read(path).contains(name))
        .collect();
    assert_eq!(found, Vec::<PathBuf>::new(), "names outside of src/metric_names.rs");
}

/// `docs/src/events.md` lists every event as `margay events` names it, and each has a place that reports it.
#[test]
fn events_are_documented_and_used() {
    let is_row = |line: &&str| line.starts_with("| `");
    let page = read("docs/src/events.md");
    let (_, section) = page.split_once("| event | meaning |").unwrap();
    let listed: Vec<&str> = section.lines().skip(2).take_while(is_row).collect();
    let all = margay::event_names::ALL;
    let expected: Vec<String> = all.iter().map(|(n, m)| format!("| `{n}` | {m} |")).collect();
    assert_eq!(listed, expected);

    let is_source = |path: &PathBuf| {
        path.starts_with("src") && !path.ends_with("event_names.rs") && !path.ends_with("tests.rs")
    };
    let sources: Vec<(PathBuf, String)> = files(&["rs"])
        .into_iter()
        .filter(is_source)
        .map(|path| (path.clone(), read(path)))
        .collect();
    for (name, _) in all {
        let constant = name.replace('-', "_").to_uppercase();
        let is_used = |(_, text): &(PathBuf, String)| text.contains(&format!("event = {constant}"));
        // Recorded by `margay events` itself.
        let is_used = *name == "events-dropped" || sources.iter().any(is_used);
        assert!(is_used, "no line has event = {constant}");
    }
    let literal = concat!("event = ", "\"");
    let found: Vec<&PathBuf> =
        sources.iter().filter(|(_, text)| text.contains(literal)).map(|(path, _)| path).collect();
    assert_eq!(found, Vec::<&PathBuf>::new(), "names outside of src/event_names.rs");
}

/// A test that cannot run is `#[ignore = "needs …"]`, never passed with a printed excuse.
#[test]
fn no_test_passes_by_skipping_itself() {
    let excuse = concat!("println!(\"", "skipped");
    let found: Vec<PathBuf> = files(&["rs"])
        .into_iter()
        .filter(|path| !path.starts_with("benches") && read(path).contains(excuse))
        .collect();
    assert_eq!(found, Vec::<PathBuf>::new());
}

/// Every path that a document or a comment names exists in the repository, and every section
/// belongs to a named publication.
#[test]
fn references_resolve() {
    let mut wrong = Vec::new();
    for path in files(&["md", "rs", "toml", "sh"]) {
        let text = read(&path);
        // Words of the paragraph so far: a section belongs to an RFC that is named before it.
        let mut before: Vec<&str> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let is_prose = path.extension().is_some_and(|e| e == "md") || line.contains("//");
            if !is_prose || line.trim_matches(['/', '!', ' ']).is_empty() {
                before.clear();
                continue;
            }
            let place = format!("{}:{number}", path.display());
            let found = unresolved(line, &path, &mut before);
            wrong.extend(found.into_iter().map(|what| format!("{place}: {what}")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{} references", wrong.len());
}

/// The references of a line that do not resolve. The words of the line are added to `before`.
fn unresolved<'t>(line: &'t str, from: &Path, before: &mut Vec<&'t str>) -> Vec<String> {
    const FOLDERS: [&str; 7] =
        ["src/", "bgp-proto/", "interop/", "benches/", "examples/", "fuzz/", "tests/"];
    let mut wrong = Vec::new();
    for word in line.split([' ', '(', ')', '[', ']', '`', '"', ',', ';']) {
        let word = word.trim_end_matches(['.', ':', '/', '?']);
        // A document or a source file, optionally with a line or an anchor.
        let file = word.split(['#', ':']).next().unwrap_or_default();
        let is_document = file.ends_with(".md") && !file.starts_with("http");
        let is_source = FOLDERS.iter().any(|folder| file.starts_with(folder))
            && !file.contains(['*', '$', '{', '<', '…']);
        if (is_document || is_source) && !exists(file, from) {
            wrong.push(file.to_owned());
        }
        if word.starts_with('§') && !before.iter().any(|word| is_publication(word)) {
            wrong.push(format!("{word} of what?"));
        }
        before.push(word);
    }
    wrong
}

fn exists(file: &str, from: &Path) -> bool {
    let beside = from.parent().unwrap_or(Path::new(""));
    [Path::new(""), beside, Path::new("src"), Path::new("bgp-proto"), Path::new("interop")]
        .iter()
        .any(|base| root().join(base).join(file).exists())
}

fn is_publication(word: &str) -> bool {
    let word = word.trim_start_matches(['*', '/', '|']);
    word.starts_with("RFC") || word.starts_with("draft-")
}

#[test]
fn documents_that_a_newcomer_needs_are_there() {
    let documents: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "CONTRIBUTING.md",
            &["A path attribute", "A configuration key", "A datastore", "A CLI command"][..],
        ),
        ("SECURITY.md", &["report"]),
        ("CHANGELOG.md", &["Unreleased"]),
    ]);
    for (document, parts) in documents {
        let text = read(document);
        for part in parts {
            assert!(text.contains(part), "{document}: {part}");
        }
    }
}

/// A script that stands in for a program.
fn stand_in(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `interop/current.sh` exits with 3, which CI tolerates, only for tests that ran and failed.
#[test]
fn other_versions_of_daemons_explain_failed_tests_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["interop", "bin", "root"] {
        fs::create_dir(at(name)).unwrap();
    }
    let (script, here) = (read("interop/current.sh"), folder.path().display().to_string());
    let place = "/opt/interop/current";
    assert!(script.contains(place), "the root is elsewhere");
    fs::write(at("interop/current.sh"), script.replace(place, &here)).unwrap();
    for name in ["complete", "program"] {
        fs::write(at(name), "").unwrap();
    }
    let (_, known) = script.split_once("KNOWN=\"").unwrap();
    let (known, _) = known.split_once('"').unwrap();

    let program = |of: &str| format!("echo '  Executable tests/{of}.rs (program)'\n");
    let built = &*(program("peers") + &program("bfd"));
    let failed = "echo 'test frr::md5 ... FAILED'; exit 101";
    for (versions, cargo, enter, code) in [
        ("bird3 9", built, failed, 3),
        (known, built, failed, 1),
        ("bird3 9", built, "echo 'test frr::md5 ... ok'", 0),
        ("bird3 9", built, "echo 'unshare: Operation not permitted' >&2; exit 1", 1),
        ("bird3 9", "echo 'error: could not compile'; exit 101", failed, 1),
        ("bird3 9", &*program("bfd"), failed, 1),
    ] {
        stand_in(&at("bin/chroot"), &format!("echo '{versions}, '"));
        stand_in(&at("bin/cargo"), cargo);
        stand_in(&at("interop/enter.sh"), enter);
        let mut command = Command::new("bash");
        command.arg(at("interop/current.sh")).env("MARGAY_BIN", "/bin/true");
        command.env("PATH", format!("{here}/bin:{}", std::env::var("PATH").unwrap()));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{versions}; {cargo}; {enter}: {output:?}");
    }
}
