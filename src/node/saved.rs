//! The objects of the plan in force, stored on disk beside the node's name.
//!
//! A node that starts while its datastore is unreachable uses them. Also, an object that can no
//! longer be parsed keeps its last valid content, even across a restart of the daemon. The file is
//! replaced atomically, and readable by its owner only.
//!
//! It contains only those parts of each object that BGP needs. These include keys of sessions,
//! without which the sessions could not come up. Of a Secret, only the keys to which a BGPPeer or
//! the mesh refers are stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::calico::model::{Decoded, decode};
use crate::replace_file::replace_file;

/// The kind of file, in its first line.
const KIND: &str = "margay objects of a Calico node";
/// Version of the file's format.
const VERSION: u32 = 1;
/// Longest file that is read, in octets.
const OCTETS_MAX: u64 = 256 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    kind: String,
    version: u32,
    node: String,
    /// Seconds since 1970.
    written: u64,
    /// SHA-256 of everything after the first line, in hexadecimal.
    sha256: String,
}

/// A line after the first one.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    source: String,
    object: Value,
}

/// The content of the file.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// The objects by source.
    pub(super) objects: BTreeMap<String, Vec<Decoded>>,
    /// When it was written.
    pub(super) written: Option<SystemTime>,
}

impl Saved {
    /// How long ago it was written, as text.
    pub(super) fn age(&self) -> String {
        let age = self.written.and_then(|at| SystemTime::now().duration_since(at).ok());
        match age.map(|age| age.as_secs()) {
            None => "at an unknown time".to_owned(),
            Some(secs @ 0..120) => format!("{secs} s ago"),
            Some(secs @ 120..7200) => format!("{} min ago", secs / 60),
            Some(secs) => format!("{} h ago", secs / 3600),
        }
    }
}

/// The lines to be written, one for each object.
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn new() -> Self {
        Lines(String::new())
    }

    pub(super) fn push(&mut self, source: &str, object: Value) {
        let line = Line { source: source.to_owned(), object };
        // Cannot fail: all maps have text as keys.
        if let Ok(text) = serde_json::to_string(&line) {
            self.0.push_str(&text);
            self.0.push('\n');
        }
    }
}

/// Replaces the file at `path`.
///
/// # Errors
/// The folder is missing or cannot be written; an existing file is unchanged.
pub(super) fn write(path: &Path, node: &str, lines: &Lines) -> io::Result<()> {
    let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = Header {
        kind: KIND.to_owned(),
        version: VERSION,
        node: node.to_owned(),
        written,
        sha256: digest(lines.0.as_bytes()),
    };
    replace_file(path, |file| {
        serde_json::to_writer(&mut *file, &header)?;
        file.write_all(b"\n")?;
        file.write_all(lines.0.as_bytes())
    })
}

fn digest(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads the objects stored for a node; none if there is no file.
///
/// # Errors
/// The file is damaged, or of another program, version or node: the reason in one line. The file is
/// not used, and is replaced once there is a plan.
pub(super) fn read(path: &Path, node: &str) -> Result<Saved, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.is_file() => return Err("is no file".to_owned()),
        Ok(file) if file.len() > OCTETS_MAX => {
            return Err(format!("is longer than {OCTETS_MAX} octets"));
        }
        Ok(_) => {}
    }
    let octets = fs::read(path).map_err(failed)?;
    let damaged = || "is damaged".to_owned();
    let end = octets.iter().position(|octet| *octet == b'\n').ok_or_else(damaged)?;
    let (first, rest) = octets.split_at(end);
    let body = rest.get(1..).unwrap_or_default();
    let header: Header = serde_json::from_slice(first).map_err(|_| damaged())?;
    if header.kind != KIND {
        return Err("is another program's".to_owned());
    }
    if header.version != VERSION {
        return Err(format!("is of version {}, which is not known", header.version));
    }
    if header.node != node {
        return Err(format!("is of node {}", header.node));
    }
    if header.sha256 != digest(body) {
        return Err(damaged());
    }
    let mut objects: BTreeMap<String, Vec<Decoded>> = BTreeMap::new();
    for line in body.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|_| damaged())?;
        let decoded = decode(line.object).ok().flatten().ok_or_else(damaged)?;
        objects.entry(line.source).or_default().push(decoded);
    }
    let written = UNIX_EPOCH.checked_add(Duration::from_secs(header.written));
    Ok(Saved { objects, written })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("margay-saved-{}-{name}", std::process::id()))
    }

    fn peer(name: &str) -> Value {
        json!({"kind": "BGPPeer", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
               "spec": {"peerIP": "10.0.0.1", "asNumber": 65001}})
    }

    #[test]
    fn a_file_is_read_only_by_the_node_that_wrote_it() {
        let path = file("same");
        assert!(read(&path, "a").unwrap().objects.is_empty(), "there is no file");
        let mut lines = Lines::new();
        lines.push("etcd", peer("p"));
        lines.push("etcd", peer("q"));
        lines.push("files", peer("r"));
        write(&path, "a", &lines).unwrap();
        write(&path, "a", &lines).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let saved = read(&path, "a").unwrap();
        let counts: Vec<_> = saved.objects.iter().map(|(s, o)| (s.as_str(), o.len())).collect();
        assert_eq!(counts, [("etcd", 2), ("files", 1)]);
        assert!(saved.age().ends_with(" s ago"), "{}", saved.age());
        assert_eq!(read(&path, "b").unwrap_err(), "is of node a");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_without_a_panic() {
        let path = file("damaged");
        let mut lines = Lines::new();
        lines.push("etcd", peer("p"));
        write(&path, "a", &lines).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            // Truncated, and with one octet changed, at every position.
            fs::write(&path, &good[..at]).unwrap();
            assert!(read(&path, "a").is_err(), "cut at {at}");
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let is_time = read(&path, "a").is_ok_and(|saved| saved.objects.len() == 1);
            let written = br#""written":"#;
            let place = good.windows(written.len()).position(|w| w == written).unwrap();
            let in_time = (place..place + written.len() + 10).contains(&at);
            assert!(!is_time || in_time, "octet {at} may be anything");
        }
        fs::write(&path, "{\"nodename\": 1}\n").unwrap();
        assert_eq!(read(&path, "a").unwrap_err(), "is damaged");
        let text = String::from_utf8(good).unwrap();
        fs::write(&path, text.replace("\"version\":1", "\"version\":9")).unwrap();
        assert_eq!(read(&path, "a").unwrap_err(), "is of version 9, which is not known");
        fs::write(&path, text.replace(KIND, "something else")).unwrap();
        assert_eq!(read(&path, "a").unwrap_err(), "is another program's");
        fs::remove_file(&path).unwrap();
        assert!(write(Path::new("/nonexistent/x"), "a", &lines).is_err());
    }
}
