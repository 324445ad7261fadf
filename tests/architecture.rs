//! Dependencies point one way. A module that imports another one it may not know fails here.

#![allow(clippy::unwrap_used)] // a test: what cannot be read fails it

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import: `types ← wire ← {session, policy, rib}; {policy, rib} ← export;
/// {session, export} ← table ← sim`.
const BGP_PROTO: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("wire", &["types"]),
    ("session", &["types", "wire"]),
    ("policy", &["types", "wire"]),
    ("rib", &["types", "wire"]),
    ("export", &["types", "wire", "policy", "rib"]),
    ("table", &["types", "wire", "policy", "rib", "session", "export"]),
    ("sim", &["types", "wire", "policy", "rib", "session", "export", "table"]),
];

/// Siblings do not know each other; the daemon wires them.
const MARGAY: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("calico", &["config"]),
    ("pulse", &[]),
    ("seats", &[]),
    ("datastore", &["config", "calico", "pulse"]),
    ("node", &["config", "calico", "datastore", "pulse"]),
    ("engine", &[]),
    ("net", &["engine"]),
    ("kernel", &["pulse"]),
    ("ctl", &["seats"]),
    ("http", &["seats"]),
    ("logging", &["config"]),
    ("cli", &["config", "ctl", "calico", "node"]),
    (
        "daemon",
        &[
            "config",
            "calico",
            "node",
            "datastore",
            "engine",
            "net",
            "kernel",
            "ctl",
            "http",
            "logging",
            "pulse",
        ],
    ),
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

/// Modules that a line of code names behind `crate::`, in whatever form.
fn named<'a>(line: &str, modules: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let code = line.split("//").next().unwrap_or_default();
    let mut rest: Vec<&str> = code.split("crate::").skip(1).collect();
    // `use crate::{a, b::c}`
    if let Some(group) = rest.first().and_then(|r| r.strip_prefix('{')) {
        rest.extend(group.split([',', '{', '}']).map(str::trim));
    }
    let starts: BTreeSet<&str> = rest
        .into_iter()
        .map(|r| r.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect();
    modules.filter(|module| starts.contains(module)).collect()
}

fn violations(src: &Path, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (module, may) in allowed {
        let folder = src.join(module);
        let files = sources(&folder);
        assert!(!files.is_empty(), "{} holds no code: the list is out of date", folder.display());
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in (1..).zip(text.lines()) {
                for other in named(line, allowed.iter().map(|(name, _)| *name)) {
                    if other != *module && !may.contains(&other) {
                        let file = file.strip_prefix(src).unwrap().display().to_string();
                        wrong.push(format!("{file}:{number}: {module} knows {other}"));
                    }
                }
            }
        }
    }
    wrong
}

/// Every module of a crate is in its list.
fn unlisted(src: &Path, allowed: &[(&str, &[&str])]) -> Vec<String> {
    fs::read_dir(src)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .filter(|name| !allowed.iter().any(|(module, _)| module == name))
        .collect()
}

#[test]
fn dependencies_of_bgp_proto_point_one_way() {
    let src = root().join("bgp-proto/src");
    assert_eq!(violations(&src, BGP_PROTO), Vec::<String>::new());
    assert_eq!(unlisted(&src, BGP_PROTO), Vec::<String>::new());
}

#[test]
fn dependencies_of_margay_point_one_way() {
    let src = root().join("src");
    assert_eq!(violations(&src, MARGAY), Vec::<String>::new());
    assert_eq!(unlisted(&src, MARGAY), Vec::<String>::new());
}

#[test]
fn the_pure_crate_depends_on_nothing_that_touches_the_world() {
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
fn the_reader_of_imports_sees_every_form() {
    let modules = ["a", "b", "c"];
    let seen = |line| named(line, modules.into_iter()).into_iter().collect::<String>();
    assert_eq!(seen("use crate::a::X;"), "a");
    assert_eq!(seen("use crate::{a::X, b};"), "ab");
    assert_eq!(seen("fn f(x: crate::c::Y) -> crate::a::Z {"), "ac");
    assert_eq!(seen("// crate::a is not code"), "");
    assert_eq!(seen("use crate::abc;"), "");
}
