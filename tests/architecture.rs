//! Dependencies point one way: a module that imports one outside its rule fails this test.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates with a rule for the dependencies of their modules. The rule is in the crate's `lib.rs`,
/// where people read it: a line `module ← others` for each module, in a block after [`RULE`].
const CRATES: [&str; 2] = ["bgp-proto/src", "src"];
/// The line that precedes the block.
const RULE: &str = "//! Dependencies point one way:";

/// Folders whose parts still form a cycle, and these parts. No other part may join a cycle, and no
/// other folder may have one.
const CIRCLES: &[(&str, &[&str])] = &[
    ("bgp-proto/src/sim", &["net", "speaker"]),
    ("bgp-proto/src/wire/update", &["canonical", "walk"]),
    ("src/config", &["bgp", "interface", "peer", "policy"]),
    ("src/kernel/fib", &["plan", "view"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(of: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![of.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The modules of a crate, and the modules that each may import.
fn rule(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(src.join("lib.rs")).unwrap();
    let (_, behind) = text.split_once(RULE).expect("lib.rs states the direction");
    let block = behind.lines().skip_while(|line| *line != "//! ```text").skip(1);
    block
        .take_while(|line| *line != "//! ```")
        .map(|line| {
            let (module, may) = line.trim_start_matches("//!").split_once('←').expect(line);
            let may = may.split(',').map(str::trim).filter(|name| !name.is_empty());
            (module.trim().to_owned(), may.map(str::to_owned).collect())
        })
        .collect()
}

/// The code of a file without its comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths that begin with `start` (`crate`, `super`), each as its segments after it; the members
/// of a group `{a, b::c}` are separate paths.
fn paths<'t>(code: &'t str, start: &str) -> Vec<Vec<&'t str>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&format!("{start}::")) {
        let is_inside_a_name =
            code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
        if !is_inside_a_name {
            tree(&code[at + start.len() + 2..], &[], &mut found);
        }
    }
    found
}

/// Reads one path or group, adds its paths to `found`, and returns what follows.
fn tree<'t>(text: &'t str, before: &[&'t str], found: &mut Vec<Vec<&'t str>>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = tree(rest, before, found).trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (segment, rest) = text.split_at(end);
    let path = [before, &[segment]].concat();
    match rest.strip_prefix("::") {
        Some(rest) if !segment.is_empty() => tree(rest, &path, found),
        _ => {
            // A group may end with a comma.
            found.extend((!segment.is_empty()).then_some(path));
            rest
        }
    }
}

fn violations(src: &Path) -> Vec<String> {
    let rule = rule(src);
    let mut wrong = Vec::new();
    for (module, may) in &rule {
        let file = src.join(module).with_extension("rs");
        let files = if file.exists() { vec![file] } else { sources(&src.join(module)) };
        assert!(!files.is_empty(), "{module} of {} holds no code", src.display());
        for file in files {
            let code = code(&file);
            let named: BTreeSet<&str> =
                paths(&code, "crate").iter().filter_map(|path| path.first().copied()).collect();
            for other in named.into_iter().filter(|name| rule.contains_key(*name)) {
                if other != module && !may.contains(other) {
                    let file = file.strip_prefix(src).unwrap().display();
                    wrong.push(format!("{file}: {module} imports {other}"));
                }
            }
        }
    }
    wrong
}

/// Modules of a crate that its rule does not name.
fn unlisted(src: &Path) -> Vec<String> {
    let rule = rule(src);
    fs::read_dir(src)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !["lib", "main"].contains(&name.as_str()) && !rule.contains_key(name))
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    for crate_src in CRATES {
        let src = root().join(crate_src);
        assert_eq!(violations(&src), Vec::<String>::new());
        assert_eq!(unlisted(&src), Vec::<String>::new(), "not in the rule of {crate_src}/lib.rs");
    }
}

/// The parts of a folder's module, with the others that each names: `a` names `b` if a file of `a`
/// contains `super::b` or `crate::MODULE::b`.
fn parts(folder: &Path, src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let module: Vec<String> = folder
        .strip_prefix(src)
        .unwrap()
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    let files = sources(folder);
    let part = |file: &Path| {
        let first = file.strip_prefix(folder).unwrap().iter().next().unwrap();
        Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let names: BTreeSet<String> = files.iter().map(|file| part(file)).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let from = part(file);
        if from == "mod" || from == "tests" || file.file_stem().is_some_and(|stem| stem == "tests")
        {
            continue;
        }
        let code = code(file);
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let depth = file.strip_prefix(folder).unwrap().iter().count();
        let depth = if file.ends_with("mod.rs") { depth - 1 } else { depth };
        let absolute = paths(code, "crate").into_iter().filter_map(|path| {
            let rest = path
                .strip_prefix(module.iter().map(String::as_str).collect::<Vec<_>>().as_slice())?;
            rest.first().map(|name| (*name).to_owned())
        });
        let relative = paths(code, "super").into_iter().filter_map(|path| {
            let up = 1 + path.iter().take_while(|name| **name == "super").count();
            (up == depth).then(|| path.get(up - 1).map(|name| (*name).to_owned())).flatten()
        });
        let named = absolute.chain(relative).filter(|name| names.contains(name) && *name != from);
        edges.entry(from.clone()).or_default().extend(named);
    }
    edges
}

/// The parts that can reach themselves.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<&str> {
    let reach = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = vec![start];
        while let Some(part) = next.pop() {
            for other in edges.get(part).into_iter().flatten() {
                if seen.insert(other.as_str()) {
                    next.push(other);
                }
            }
        }
        seen
    };
    edges.keys().map(String::as_str).filter(|part| reach(part).contains(part)).collect()
}

#[test]
fn modules_have_no_cycles_inside() {
    let mut found = Vec::new();
    for crate_src in CRATES {
        let src = root().join(crate_src);
        let mut folders = vec![src.clone()];
        while let Some(folder) = folders.pop() {
            let children = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(children.filter(|path| path.is_dir()));
            let edges = parts(&folder, &src);
            if folder == src {
                continue; // covered by the rule
            }
            let folder = folder.strip_prefix(root()).unwrap().display().to_string();
            let known = CIRCLES.iter().find(|(known, _)| *known == folder);
            let known = known.map(|(_, parts)| *parts).unwrap_or_default();
            let new = circle(&edges).into_iter().filter(|part| !known.contains(part));
            found.extend(new.map(|part| format!("{folder}: {part}")));
        }
    }
    assert_eq!(found, Vec::<String>::new(), "parts in a dependency cycle");
}

#[test]
fn the_pure_crate_depends_on_nothing_that_does_io() {
    let manifest = fs::read_to_string(root().join("bgp-proto/Cargo.toml")).unwrap();
    let normal = manifest.split("[dev-dependencies]").next().unwrap();
    for edge in ["tokio", "rtnetlink", "etcd", "socket2", "libc", "mio", "rustix", "tracing"] {
        assert!(!normal.contains(edge), "bgp-proto depends on {edge}");
    }
}

#[test]
fn unsafe_code_is_in_one_place() {
    let mut places = Vec::new();
    for folder in ["src", "bgp-proto/src", "interop/src"] {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            if text.lines().any(|l| l.trim_start().starts_with("unsafe") || l.contains("= unsafe"))
                || text.contains("allow(unsafe_code)")
            {
                places.push(file.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    assert_eq!(places, ["src/net/sockopt.rs"]);
}

#[test]
fn imports_are_read_in_every_form() {
    let seen = |code| {
        let found = paths(code, "crate");
        found.iter().map(|path| path.join(".")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(seen("use crate::a::X;"), "a.X");
    assert_eq!(seen("use crate::{a::X, b};"), "a.X b");
    assert_eq!(seen("use crate::{\n    a::{X, self},\n    b,\n};"), "a.X a.self b");
    assert_eq!(seen("fn f(x: crate::c::Y) -> crate::a::Z {"), "c.Y a.Z");
    assert_eq!(seen("use crate::abc as d;"), "abc");
    assert_eq!(seen("use other_crate::a;"), "");
}

#[test]
fn cycles_are_found() {
    let edges = |list: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in list {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c")])), Vec::<&str>::new());
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")])), ["b", "c"]);
}
