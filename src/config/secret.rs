//! Files that hold secrets: what was read of them, and when it has to be read again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Config, Document, Errors};

/// Largest file that is read, in octets: no secret is as long, and the file may be anything.
const SECRET_MAX: u64 = 4096;

/// Device, inode, times of the last write and of the last change of the inode (mode, owner) in
/// nanoseconds, and length of a file: as long as it stays, so do the content and whether it can be read.
/// Default: there is no such file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, [i128; 2], u64)>);

impl Stamp {
    /// The present stamp of the file that a path leads to.
    pub fn of(path: &Path) -> Stamp {
        std::fs::metadata(path).map_or(Stamp::default(), |found| Stamp::from(&found))
    }
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Stamp {
        let at = |seconds: i64, nsec: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nsec);
        let written = at(found.mtime(), found.mtime_nsec());
        let changed = at(found.ctime(), found.ctime_nsec());
        Stamp(Some((found.dev(), found.ino(), [written, changed], found.len())))
    }
}

/// What is in force of one file.
#[derive(Clone, Default)]
struct Secret {
    octets: Vec<u8>,
    stamp: Stamp,
    /// Why the file does not hold what is in force.
    fault: Option<String>,
}

/// The files with secrets that a configuration names, and what is in force of them.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<PathBuf, Secret>);

impl Secrets {
    /// The files, each with its stamp when it was last read.
    pub fn stamps(&self) -> BTreeMap<PathBuf, Stamp> {
        self.0.iter().map(|(path, secret)| (path.clone(), secret.stamp)).collect()
    }

    /// The files that cannot be read or are empty, so that their earlier content stays in force, and
    /// why.
    pub fn faults(&self) -> impl Iterator<Item = (&Path, &str)> {
        let faulty = self.0.iter().filter_map(|(path, s)| Some((path, s.fault.as_deref()?)));
        faulty.map(|(path, fault)| (path.as_path(), fault))
    }

    /// These, and of `others` the files that are not among these.
    #[must_use]
    pub fn or(mut self, others: &Secrets) -> Secrets {
        for (path, secret) in &others.0 {
            self.0.entry(path.clone()).or_insert_with(|| secret.clone());
        }
        self
    }

    /// The files whose content is not the one that `before` holds.
    pub fn changed_since(&self, before: &Secrets) -> Vec<&Path> {
        let octets = |secrets: &Secrets, path| secrets.0.get(path).map(|s| s.octets.clone());
        let changed = self.0.keys().filter(|path| octets(self, *path) != octets(before, *path));
        changed.map(PathBuf::as_path).collect()
    }
}

/// Reads the files with secrets for one configuration, each once.
#[derive(Default)]
pub(super) struct Reading {
    /// What stays in force of a file that cannot be read or is empty.
    kept: Secrets,
    read: RefCell<Secrets>,
}

impl Reading {
    pub(super) fn keeping(kept: &Secrets) -> Self {
        Reading { kept: kept.clone(), read: RefCell::default() }
    }

    /// The content of a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Some(secret) = self.read.borrow().0.get(path) {
            return Ok(secret.octets.clone());
        }
        let stamp = Stamp::of(path);
        let kept = self.kept.0.get(path);
        let is_blank = |octets: &Vec<u8>| octets.iter().all(|octet| matches!(octet, b'\n' | b'\r'));
        let (octets, fault) = match (read_bounded(path), kept) {
            (Ok(octets), Some(kept)) if is_blank(&octets) => {
                (kept.octets.clone(), Some("it is empty".to_owned()))
            }
            (Ok(octets), _) => (octets, None),
            (Err(error), Some(kept)) => (kept.octets.clone(), Some(error.to_string())),
            (Err(error), None) => return Err(error),
        };
        let secret = Secret { octets: octets.clone(), stamp, fault };
        self.read.borrow_mut().0.insert(path.to_owned(), secret);
        Ok(octets)
    }

    pub(super) fn into_secrets(self) -> Secrets {
        self.read.into_inner()
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut octets = Vec::new();
    File::open(path)?.take(SECRET_MAX + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > SECRET_MAX {
        return Err(io::Error::other(format!("it has more than {SECRET_MAX} octets")));
    }
    Ok(octets)
}

/// What a configuration was read from. It is no part of what the configuration says: all are equal.
#[derive(Clone, Default)]
pub struct ReadFrom {
    text: Arc<str>,
    secrets: Arc<Secrets>,
}

impl ReadFrom {
    pub(super) fn new(text: &str, secrets: Secrets) -> Self {
        ReadFrom { text: text.into(), secrets: Arc::new(secrets) }
    }

    /// The text of the file, which may hold passwords; empty for a node's configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The files with secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

impl PartialEq for ReadFrom {
    fn eq(&self, _: &ReadFrom) -> bool {
        true
    }
}

impl Eq for ReadFrom {}

impl fmt::Debug for ReadFrom {
    /// Without the text, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.secrets.0.keys()).finish()
    }
}

impl Config {
    /// The same configuration with what its files of secrets hold now. Of a file that cannot be read or
    /// is empty, the content in force stays. `path` is the configuration's file, which is not read: what
    /// was edited there since waits for a reload.
    ///
    /// # Errors
    /// The configuration is not valid with a new secret, which may be too long.
    pub fn with_secrets_again(&self, path: &Path) -> Result<Config, Errors> {
        match Document::parse_keeping(path, &self.origin.text, &self.origin.secrets)? {
            Document::Own(config) => Ok(*config),
            // A node's configuration has no text.
            Document::Calico { .. } => Ok(self.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(peers: u32) -> String {
        let peer = |n: u32| {
            format!(
                "[[bgp.peers]]\naddress = \"192.0.2.{n}\"\nremote-asn = 65001\nimport = \"all\"\n\
                 export = \"all\"\npassword-file = \"key-{n}\"\n"
            )
        };
        let head = "[bgp]\nasn = 65000\nrouter-id = \"192.0.2.250\"\n";
        (1..=peers).map(peer).fold(head.to_owned(), |text, peer| text + &peer)
    }

    #[test]
    fn a_changed_file_changes_its_peer_and_a_lost_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("margay.toml");
        let write = |n: u32, content: &str| {
            std::fs::write(folder.path().join(format!("key-{n}")), content).unwrap();
        };
        (1..=3).for_each(|n| write(n, "first\n"));
        std::fs::write(&path, text(3)).unwrap();
        let Document::Own(config) = Document::load(&path).unwrap() else { panic!() };
        // What is edited in the configuration itself waits for a reload.
        std::fs::write(&path, text(2)).unwrap();
        write(1, "second\n");
        write(2, "\n");
        std::fs::remove_file(folder.path().join("key-3")).unwrap();
        let again = config.with_secrets_again(&path).unwrap();
        let changes = config.changes_to(&again);
        let restarted: Vec<String> =
            changes.peers_restarted.iter().map(|peer| peer.session.address.to_string()).collect();
        assert_eq!(restarted, ["192.0.2.1"]);
        assert!(changes.peers_removed.is_empty() && changes.peers_added.is_empty());
        let (before, now) = (config.origin.secrets(), again.origin.secrets());
        assert_eq!(now.changed_since(before), [folder.path().join("key-1")]);
        let faults: Vec<(&Path, &str)> = now.faults().collect();
        assert_eq!(faults[0], (folder.path().join("key-2").as_path(), "it is empty"));
        assert!(faults[1].1.contains("No such file"), "{faults:?}");
        // Back with another content.
        write(3, "third\n");
        let restored = again.with_secrets_again(&path).unwrap();
        assert_eq!(restored.origin.secrets().changed_since(now), [folder.path().join("key-3")]);
        assert_eq!(restored.origin.secrets().faults().count(), 1);
        // One that cannot be used changes nothing.
        write(1, &"x".repeat(81));
        let errors = restored.with_secrets_again(&path).unwrap_err().to_string();
        assert!(errors.contains("81 octets") && !errors.contains("xxx"), "{errors}");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Reading::default().read(folder.path()).is_err());
        std::fs::write(folder.path().join("long"), vec![b'x'; 5000]).unwrap();
        let error = Reading::default().read(&folder.path().join("long")).unwrap_err();
        assert!(error.to_string().contains("4096"), "{error}");
    }
}
