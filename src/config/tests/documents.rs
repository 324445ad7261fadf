//! What the README and the pages of `docs/` say of the configuration.

use std::path::PathBuf;

use super::*;

/// The README and every page, in one text.
fn documents() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root.join("docs/src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    paths.push(root.join("README.md"));
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap() + "\n").collect()
}

/// The configurations in the documents are valid.
#[test]
fn documented_configurations_are_accepted() {
    let pages = documents();
    let blocks: Vec<&str> = pages
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("[bgp]"))
        .collect();
    assert!(blocks.len() > 1);
    for block in blocks {
        accepted(block);
    }
}

/// The names of all keys in a configuration, those of nested tables too.
fn keys(value: &toml::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// `examples/full.toml` has every key, and the reference explains each.
#[test]
fn every_key_is_documented() {
    let pages = documents();
    let mut found = std::collections::BTreeSet::new();
    for example in [FULL, include_str!("../../../examples/calico.toml")] {
        keys(&toml::from_str(example).unwrap(), &mut found);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    // Odd pieces between backquotes are code.
    let code: std::collections::BTreeSet<&str> =
        pages.split('`').skip(1).step_by(2).flat_map(|code| code.split(|c| !is_part(c))).collect();
    let missing: Vec<&String> = found.iter().filter(|key| !code.contains(key.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "in examples, but not in docs/src");
    assert!(found.len() > 100, "{} keys", found.len());
}
