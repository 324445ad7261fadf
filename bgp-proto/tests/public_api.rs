//! The public API, kept beside the code: whoever changes it sees in the same commit what changes for others.
//!
//! `BLESS=1 cargo test -p bgp-proto --test public_api` writes the list again. Items that macros make
//! are not in it.

#![allow(clippy::unwrap_used)] // a test: what cannot be read fails it

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Type, UseTree, Visibility};

/// An item, the module at the crate's root that it is below, and whether all modules on the way are
/// public.
struct Found {
    root: String,
    is_reachable: bool,
    item: Item,
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let text = attr.meta.to_token_stream().to_string();
        attr.path().is_ident("cfg") && text.contains("test")
    })
}

/// Reads a module's file and those of its modules, which are below `folder`.
fn read(file: &Path, folder: &Path, root: &str, is_reachable: bool, found: &mut Vec<Found>) {
    let text = fs::read_to_string(file).unwrap();
    for item in syn::parse_file(&text).unwrap().items {
        collect(item, folder, root, is_reachable, found);
    }
}

fn collect(item: Item, folder: &Path, root: &str, is_reachable: bool, found: &mut Vec<Found>) {
    let Item::Mod(module) = item else {
        return found.push(Found { root: root.to_owned(), is_reachable, item });
    };
    if is_test(&module.attrs) {
        return;
    }
    let name = module.ident.to_string();
    let root = if root.is_empty() { name.clone() } else { root.to_owned() };
    let is_reachable = is_reachable && is_public(&module.vis);
    let inside = folder.join(&name);
    if let Some((_, items)) = module.content {
        return items.into_iter().for_each(|i| collect(i, &inside, &root, is_reachable, found));
    }
    let candidates = [folder.join(format!("{name}.rs")), inside.join("mod.rs")];
    let file = candidates.iter().find(|file| file.exists()).unwrap();
    read(file, &inside, &root, is_reachable, found);
}

/// The names that a `pub use` gives to the outside.
fn exported(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => exported(&path.tree, names),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Rename(rename) => drop(names.insert(rename.ident.to_string())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| exported(tree, names)),
        UseTree::Glob(_) => panic!("the crate exports by name"),
    }
}

/// A node as one line.
fn line(node: &impl ToTokens) -> String {
    node.to_token_stream().to_string()
}

/// What of the attributes is a promise: derived traits and room to grow.
fn promises(attrs: &[Attribute]) -> String {
    let kept = ["derive", "non_exhaustive", "must_use"];
    let kept = attrs.iter().filter(|attr| kept.iter().any(|name| attr.path().is_ident(name)));
    kept.map(|attr| format!("#[{}] ", line(&attr.meta))).collect()
}

fn fields(of: &Fields, name: &str, out: &mut Vec<String>) {
    for (index, field) in of.iter().enumerate().filter(|(_, field)| is_public(&field.vis)) {
        let field_name = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
        out.push(format!("{name}.{field_name}: {}", line(&field.ty)));
    }
}

/// The name of a type that an `impl` is for.
fn type_name(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        Type::Reference(reference) => type_name(&reference.elem),
        _ => None,
    }
}

fn describe(item: &Item, is_exported: impl Fn(&Visibility, &str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    match item {
        Item::Struct(s) if is_exported(&s.vis, &s.ident.to_string()) => {
            let name = s.ident.to_string();
            out.push(format!("{name}: {}struct{}", promises(&s.attrs), line(&s.generics)));
            fields(&s.fields, &name, &mut out);
        }
        Item::Enum(e) if is_exported(&e.vis, &e.ident.to_string()) => {
            let name = e.ident.to_string();
            out.push(format!("{name}: {}enum{}", promises(&e.attrs), line(&e.generics)));
            for variant in &e.variants {
                let held: Vec<String> = variant
                    .fields
                    .iter()
                    .map(|f| match &f.ident {
                        Some(ident) => format!("{ident}: {}", line(&f.ty)),
                        None => line(&f.ty),
                    })
                    .collect();
                out.push(format!("{name}::{}({})", variant.ident, held.join(", ")));
            }
        }
        Item::Trait(t) if is_exported(&t.vis, &t.ident.to_string()) => {
            out.push(format!("{}: trait", t.ident));
            out.extend(t.items.iter().filter_map(|item| match item {
                TraitItem::Fn(f) => Some(format!("{}::{}", t.ident, line(&f.sig))),
                _ => None,
            }));
        }
        Item::Fn(f) if is_exported(&f.vis, &f.sig.ident.to_string()) => {
            out.push(format!("{}{}", promises(&f.attrs), line(&f.sig)));
        }
        Item::Const(c) if is_exported(&c.vis, &c.ident.to_string()) => {
            out.push(format!("const {}: {}", c.ident, line(&c.ty)));
        }
        Item::Type(t) if is_exported(&t.vis, &t.ident.to_string()) => {
            out.push(format!("type {} = {}", t.ident, line(&t.ty)));
        }
        _ => {}
    }
    out
}

/// Methods and traits of types that are exported.
fn implemented(item: &Item, types: &BTreeSet<String>) -> Vec<String> {
    let Item::Impl(block) = item else { return Vec::new() };
    let Some(name) = type_name(&block.self_ty).filter(|name| types.contains(name)) else {
        return Vec::new();
    };
    if is_test(&block.attrs) {
        return Vec::new();
    }
    if let Some((_, of, _)) = &block.trait_ {
        return vec![format!("{name}: impl {}", line(of))];
    }
    let public = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(f) if is_public(&f.vis) && !is_test(&f.attrs) => {
            Some(format!("{name}::{}{}", promises(&f.attrs), line(&f.sig)))
        }
        ImplItem::Const(c) if is_public(&c.vis) => {
            Some(format!("{name}::const {}: {}", c.ident, line(&c.ty)))
        }
        _ => None,
    });
    public.collect()
}

fn api() -> String {
    let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    read(&src.join("lib.rs"), &src, "", true, &mut found);
    let mut names = BTreeSet::new();
    for entry in found.iter().filter(|entry| entry.is_reachable) {
        if let Item::Use(import) = &entry.item
            && is_public(&import.vis)
        {
            exported(&import.tree, &mut names);
        }
    }
    let mut lines = BTreeSet::new();
    let mut types = BTreeSet::new();
    for Found { root, is_reachable, item } in &found {
        let described = describe(item, |visibility, name| {
            is_public(visibility) && (*is_reachable || names.contains(name))
        });
        if let (Item::Struct(_) | Item::Enum(_), Some(first)) = (item, described.first()) {
            types.insert(first.split(':').next().unwrap().to_owned());
        }
        lines.extend(described.into_iter().map(|text| format!("{root} {text}")));
    }
    for Found { root, item, .. } in &found {
        lines.extend(implemented(item, &types).into_iter().map(|text| format!("{root} {text}")));
    }
    lines.into_iter().map(|text| text + "\n").collect()
}

#[test]
fn the_public_api_is_the_one_on_record() {
    let record = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/public_api.txt");
    let now = api();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&record, &now).unwrap();
    }
    let before = fs::read_to_string(&record).unwrap();
    let (before, now): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.lines().collect(), now.lines().collect());
    let removed: Vec<_> = before.difference(&now).collect();
    let new: Vec<_> = now.difference(&before).collect();
    assert!(
        removed.is_empty() && new.is_empty(),
        "the public API differs from tests/public_api.txt; if that is meant, run with BLESS=1 and name it in \
         CHANGELOG.md\nremoved: {removed:#?}\nadded: {new:#?}"
    );
    // An empty list on both sides would be equal, too.
    assert!(now.iter().any(|line| line.contains("fn handle_bytes")), "Peer is on record");
}
