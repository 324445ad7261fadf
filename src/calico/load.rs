//! Objects from files: YAML and JSON with any number of documents, folders of them, and dumps of
//! etcd with keys and values.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use super::model::{Decoded, Fault, decode, decode_endpoint, decode_etcd};
use super::plan::Problem;
use super::yaml;

/// Maximum nesting of folders.
pub const DEPTH_MAX: usize = 16;

/// What to do with an entry of a folder, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Read, if it is a file.
    Objects,
    /// Followed, if it is a folder.
    Other,
    /// Skipped: its name begins with a dot. Editors and Kubernetes' volumes keep copies there
    /// of other entries, or files not meant to be read.
    Hidden,
}

impl Entry {
    /// Classifies an entry by the last component of its path.
    pub fn of(path: &Path) -> Entry {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match extension {
            _ if name.starts_with('.') => Entry::Hidden,
            "yaml" | "yml" | "json" | "txt" => Entry::Objects,
            _ => Entry::Other,
        }
    }
}

/// The objects read, in order, and what could not be read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Objects; a later one replaces an earlier one of the same name.
    pub objects: Vec<Decoded>,
    /// What is wrong with files and documents, and with objects that cannot be named.
    pub problems: Vec<Problem>,
    /// What anchors and aliases have added so far.
    pub(crate) aliased: usize,
}

/// Reads files and folders. In folders, files ending in `yaml`, `yml`, `json` and `txt` are read,
/// in order of their names; names that begin with a dot are skipped.
///
/// # Errors
/// A path cannot be read. Invalid content is a [`Problem`], not an error.
pub fn load(paths: &[PathBuf]) -> std::io::Result<Loaded> {
    let mut loaded = Loaded::default();
    visit(paths, &mut |file, octets| parse_octets(file, octets, &mut loaded))?;
    Ok(loaded)
}

/// Passes the name and the content of each file that [`load`] reads to `each`.
///
/// # Errors
/// A path cannot be read.
pub fn visit(paths: &[PathBuf], each: &mut impl FnMut(&str, Vec<u8>)) -> std::io::Result<()> {
    paths.iter().try_for_each(|path| visit_path(path, 0, each))
}

fn visit_path(
    path: &Path,
    depth: usize,
    each: &mut impl FnMut(&str, Vec<u8>),
) -> std::io::Result<()> {
    let named =
        |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if std::fs::metadata(path).map_err(named)?.is_dir() {
        if depth > DEPTH_MAX {
            return Err(named(std::io::Error::other("folders are nested too deeply")));
        }
        let entries = std::fs::read_dir(path).map_err(named)?;
        let mut children: Vec<PathBuf> =
            entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(named)?;
        children.sort();
        for child in children {
            let is_wanted = match Entry::of(&child) {
                Entry::Objects => true,
                Entry::Other => child.is_dir(),
                Entry::Hidden => false,
            };
            if is_wanted {
                visit_path(&child, depth + 1, each)?;
            }
        }
        return Ok(());
    }
    each(&path.display().to_string(), std::fs::read(path).map_err(named)?);
    Ok(())
}

/// Reads the content of a file.
pub fn parse_octets(file: &str, octets: Vec<u8>, loaded: &mut Loaded) {
    match String::from_utf8(octets) {
        Ok(text) => parse(file, &text, loaded),
        Err(_) => loaded.problems.push(Problem::new(file, "not text (UTF-8): the file is skipped")),
    }
}

/// Reads the text of a file.
pub fn parse(file: &str, text: &str, loaded: &mut Loaded) {
    if is_etcd_dump(text) {
        parse_etcd(file, text, loaded);
        return;
    }
    match yaml::documents_after(text, &mut loaded.aliased) {
        Ok(documents) => {
            for (number, document) in (1..).zip(documents) {
                take(&format!("{file} document {number}"), document, loaded);
            }
        }
        Err(error) => {
            loaded.problems.push(Problem::new(file, format!("{error}: the file is skipped")));
        }
    }
}

fn take(place: &str, mut document: Value, loaded: &mut Loaded) {
    if let Some(Value::Array(pairs)) = document.get("kvs") {
        return take_pairs(place, pairs, loaded);
    }
    let is_list =
        document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(Value::Array(items)) = document.get_mut("items").map(Value::take) {
        for (number, item) in (1..).zip(items) {
            take(&format!("{place} item {number}"), item, loaded);
        }
        return;
    }
    match decode(document) {
        Ok(decoded) => loaded.objects.extend(decoded),
        Err(fault) => loaded.problems.push(skipped(place, &fault)),
    }
}

/// What `etcdctl get --prefix /calico/ -w json` prints: keys and values in base64.
fn take_pairs(place: &str, pairs: &[Value], loaded: &mut Loaded) {
    for (number, pair) in (1..).zip(pairs) {
        let text = |key: &str| pair.get(key).and_then(Value::as_str).unwrap_or_default();
        let decoded = |key: &str| BASE64_STANDARD.decode(text(key)).ok();
        let key = decoded("key").and_then(|key| String::from_utf8(key).ok());
        match (key, decoded("value")) {
            (Some(key), Some(value)) if key.starts_with("/calico/") => {
                loaded.objects.extend(decode_etcd(&key, &value));
            }
            // A key that is not Calico's: other programs may share the etcd.
            (Some(_), Some(_)) => {}
            _ => loaded.problems.push(Problem::new(
                format!("{place} pair {number}"),
                "key or value is not base64: it is skipped",
            )),
        }
    }
}

fn skipped(place: &str, fault: &Fault) -> Problem {
    Problem::new(place, format!("{fault}: it is skipped"))
}

fn is_etcd_dump(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().is_some_and(|line| line.starts_with("/calico/"))
}

/// Keys and values, on two lines each, or on one line separated by a tab.
fn parse_etcd(file: &str, text: &str, loaded: &mut Loaded) {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('\t') {
            Some((key, value)) => (key, value),
            None => (line, lines.next().unwrap_or_default()),
        };
        if !key.starts_with("/calico/") {
            let text =
                format!("\"{key}\" is not a key of Calico's: the rest of the file is skipped");
            loaded.problems.push(Problem::new(file, text));
            return;
        }
        loaded.objects.extend(decode_etcd(key, value.as_bytes()));
    }
}

/// Reads Felix's endpoint-status folder; one that does not exist is empty.
///
/// # Errors
/// The folder, or a file in it, exists but cannot be read.
pub fn load_endpoints(folder: &Path) -> std::io::Result<Vec<Decoded>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut endpoints = Vec::new();
    for file in files.iter().filter(|f| f.is_file()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        endpoints.push(decode_endpoint(&name, &std::fs::read(file)?));
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcdctl_prints_as_json_is_read() {
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        let key = "/calico/resources/v3/projectcalico.org/ippools/pods";
        let pool = r#"{"kind":"IPPool","metadata":{"name":"pods"},"spec":{"cidr":"10.65.0.0/16"}}"#;
        let text = serde_json::json!({"header": {"revision": 7}, "count": 3, "kvs": [
            {"key": base64(key), "value": base64(pool), "version": 1},
            {"key": base64("/registry/pods"), "value": base64("x")},
            {"key": "!", "value": ""},
        ]});
        let (objects, problems) = parsed(&text.to_string());
        assert_eq!(objects, ["IPPool/pods"]);
        assert_eq!(problems, ["f document 1 pair 3: key or value is not base64: it is skipped"]);
    }

    #[test]
    fn hidden_names_are_skipped() {
        let of = |path: &str| Entry::of(Path::new(path));
        assert_eq!(of("/d/a.yaml"), Entry::Objects);
        assert_eq!(of("/d/.a.yaml"), Entry::Hidden);
        assert_eq!(of("/d/..data"), Entry::Hidden);
        assert_eq!(of("/d/sub"), Entry::Other);
    }

    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let mut loaded = Loaded::default();
        parse("f", text, &mut loaded);
        let objects = loaded.objects.iter().map(|o| o.id.to_string()).collect();
        (
            objects,
            loaded.problems.into_iter().map(|p| format!("{}: {}", p.object, p.text)).collect(),
        )
    }

    #[test]
    fn documents_and_lists_are_read_and_faults_are_reported() {
        let (objects, problems) = parsed(
            "kind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\n---\n\
             kind: List\nitems:\n- {kind: Secret, apiVersion: v1, metadata: {name: s}}\n- {x: 1}\n",
        );
        assert_eq!(objects, ["BGPPeer/a", "Secret/default/s"]);
        assert_eq!(problems, ["f document 2 item 2: an object has no kind: it is skipped"]);
        let (objects, problems) = parsed("a: [1\n");
        assert!(objects.is_empty() && problems.len() == 1, "{problems:?}");
    }

    #[test]
    fn etcd_dumps_are_read_in_both_forms() {
        let peer = "/calico/resources/v3/projectcalico.org/bgppeers/tor";
        let block = "/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-26";
        let (objects, problems) = parsed(&format!(
            "# dump\n{block}\t{{\"state\":\"\"}}\n{peer}\n{{\"spec\":{{\"peerIP\":\"10.0.0.1\"}}}}\n\
             /calico/ipam/v2/host/n\n{{}}\nnonsense\nx\n"
        ));
        assert_eq!(objects, ["BlockAffinity/n/10.0.0.0/26", "BGPPeer/tor"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
