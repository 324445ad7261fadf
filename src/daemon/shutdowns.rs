//! Peers that an operator has shut down, by name. A shutdown lasts until the peer is started:
//! across reloads, across removing and adding the peer, and with `--keep` across restarts of the
//! daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::own_file::OwnFile;
use crate::ctl::Lasts;
use crate::net::AdminShutdown;

/// Version of the file's format.
const VERSION: u32 = 1;

/// A shutdown by an operator.
#[derive(Clone, Debug)]
pub(super) struct Shutdown {
    pub(super) since: SystemTime,
    /// The shutdown communication sent to the neighbour (RFC 9003); may be empty.
    pub(super) message: String,
    pub(super) lasts: Lasts,
    /// The flag that all records of the peer share.
    state: AdminShutdown,
}

/// The shutdowns of one daemon. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Shutdowns {
    peers: Arc<Mutex<BTreeMap<Arc<str>, Shutdown>>>,
    file: OwnFile,
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    peers: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    /// Seconds since 1970.
    since: u64,
    message: String,
}

impl Shutdowns {
    /// Reads the shutdowns that the last run left in the file beside this control socket. If that
    /// fails, no peer is shut down, and the reason is returned.
    pub(super) fn of_last_run(socket: &Path) -> (Self, Option<String>) {
        let file = OwnFile::beside(socket, "shutdowns", VERSION);
        let (kept, fault) = match file.read::<Content>() {
            Ok(content) => (content.unwrap_or_default().peers, None),
            Err(why) => {
                let path = file.path.display();
                let fault = format!(
                    "{path}, which names the peers that were shut down with --keep, is not read \
                     ({why}): they are started; remove the file"
                );
                (Vec::new(), Some(fault))
            }
        };
        let peers = kept.into_iter().map(|Kept { name, since, message }| {
            let state = AdminShutdown::default();
            state.set(true);
            let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since);
            (name.into(), Shutdown { since, message, lasts: Lasts::Boot, state })
        });
        (Shutdowns { peers: Arc::new(Mutex::new(peers.collect())), file }, fault)
    }

    /// The flag for a peer that is being added: set if a peer of this name is shut down.
    pub(super) fn state(&self, name: &str) -> AdminShutdown {
        self.lock().get(name).map(|shutdown| shutdown.state.clone()).unwrap_or_default()
    }

    /// The names of the peers that are shut down, present or not.
    pub(super) fn names(&self) -> BTreeSet<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    /// The shutdown of a peer, if it is shut down.
    pub(super) fn get(&self, name: &str) -> Option<Shutdown> {
        self.lock().get(name).cloned()
    }

    /// Shuts peers down.
    ///
    /// # Errors
    /// The file cannot be written; then no peer is shut down.
    pub(super) fn begin(
        &self,
        peers: &[(Arc<str>, AdminShutdown)],
        message: &str,
        lasts: Lasts,
    ) -> Result<(), String> {
        let mut held = self.lock();
        let mut after = held.clone();
        let since = SystemTime::now();
        for (name, state) in peers {
            let (state, message) = (state.clone(), message.to_owned());
            after.insert(Arc::clone(name), Shutdown { since, message, lasts, state });
        }
        self.write(&held, &after)?;
        peers.iter().for_each(|(_, state)| state.set(true));
        *held = after;
        Ok(())
    }

    /// Makes a shutdown apply to the newest record of its peer: a command may have been given for the one
    /// before, which a reload has replaced meanwhile. Returns the message if that was so.
    pub(super) fn adopt(&self, name: &str, state: &AdminShutdown) -> Option<String> {
        let mut held = self.lock();
        let shutdown = held.get_mut(name)?;
        if shutdown.state.is_shared_with(state) {
            return None;
        }
        state.set(true);
        shutdown.state = state.clone();
        Some(shutdown.message.clone())
    }

    /// Ends the shutdown of these peers.
    ///
    /// # Errors
    /// The file cannot be written; then the peers stay shut down.
    pub(super) fn end(&self, names: &[Arc<str>]) -> Result<(), String> {
        let mut held = self.lock();
        let mut after = held.clone();
        after.retain(|name, _| !names.contains(name));
        self.write(&held, &after)?;
        let ended = held.iter().filter(|(name, _)| names.contains(name));
        ended.for_each(|(_, shutdown)| shutdown.state.set(false));
        *held = after;
        Ok(())
    }

    /// Moves the shutdown of a renamed peer to its new name.
    pub(super) fn rename(&self, old: &str, new: &Arc<str>) {
        let mut held = self.lock();
        if let Some(shutdown) = held.remove(old) {
            let before = held.clone();
            held.insert(Arc::clone(new), shutdown);
            // With the old name in the file, the next run starts the peer, as without a file.
            if let Err(why) = self.write(&before, &held) {
                tracing::warn!(peer = %new, "{why}");
            }
        }
    }

    /// Writes the shutdowns that outlive the daemon, if they have changed.
    fn write(
        &self,
        before: &BTreeMap<Arc<str>, Shutdown>,
        after: &BTreeMap<Arc<str>, Shutdown>,
    ) -> Result<(), String> {
        let kept = |all: &BTreeMap<Arc<str>, Shutdown>| -> Vec<Kept> {
            let kept = all.iter().filter(|(_, shutdown)| shutdown.lasts == Lasts::Boot);
            kept.map(|(name, shutdown)| {
                let since = shutdown.since.duration_since(SystemTime::UNIX_EPOCH);
                let since = since.map_or(0, |since| since.as_secs());
                Kept { name: name.to_string(), since, message: shutdown.message.clone() }
            })
            .collect()
        };
        let (was, is) = (kept(before), kept(after));
        let names = |all: &[Kept]| all.iter().map(|kept| kept.name.clone()).collect::<Vec<_>>();
        if names(&was) == names(&is) && is.iter().zip(&was).all(|(a, b)| a.message == b.message) {
            return Ok(());
        }
        let written = if is.is_empty() {
            self.file.remove()
        } else {
            self.file.replace(Content { peers: is })
        };
        written.map_err(|error| format!("cannot write {}: {error}", self.file.path.display()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Shutdown>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(shutdowns: &Shutdowns) -> Vec<String> {
        shutdowns.lock().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn only_kept_shutdowns_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        let (run, fault) = Shutdowns::of_last_run(&socket);
        assert_eq!(fault, None);
        let peer = |name: &str| (Arc::from(name), run.state(name));
        let (a, b) = (peer("a"), peer("b"));
        run.begin(std::slice::from_ref(&a), "disk", Lasts::Boot).unwrap();
        run.begin(std::slice::from_ref(&b), "", Lasts::Run).unwrap();
        assert!(a.1.is_set() && b.1.is_set());
        assert!(run.state("a").is_set(), "added again, it is still shut down");
        run.rename("a", &Arc::from("c"));
        let (next, fault) = Shutdowns::of_last_run(&socket);
        assert_eq!((names(&next), fault), (vec!["c".to_owned()], None));
        assert_eq!(next.get("c").unwrap().message, "disk");
        next.end(&["c".into()]).unwrap();
        assert!(names(&Shutdowns::of_last_run(&socket).0).is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
    }

    #[test]
    fn a_shutdown_applies_to_the_record_that_replaces_another_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Shutdowns::of_last_run(&folder.path().join("margay.sock"));
        let (old, new) = (run.state("a"), run.state("a"));
        assert_eq!(run.adopt("a", &new), None, "it is not shut down");
        run.begin(&[("a".into(), old.clone())], "disk", Lasts::Run).unwrap();
        assert!(!new.is_set());
        assert_eq!(run.adopt("a", &new).as_deref(), Some("disk"));
        assert!(new.is_set() && run.state("a").is_shared_with(&new));
        assert_eq!(run.adopt("a", &new), None, "once");
        run.end(&["a".into()]).unwrap();
        assert!(!new.is_set());
    }

    #[test]
    fn a_file_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = Shutdowns::of_last_run(&folder.path().join("no/such/margay.sock"));
        let peer = (Arc::from("a"), run.state("a"));
        let refused = run.begin(std::slice::from_ref(&peer), "", Lasts::Boot).unwrap_err();
        assert!(refused.contains("no/such/margay.shutdowns"), "{refused}");
        assert!(!peer.1.is_set() && run.get("a").is_none());
        run.begin(std::slice::from_ref(&peer), "", Lasts::Run).unwrap();
        assert!(peer.1.is_set());
    }

    #[test]
    fn a_file_that_is_not_ours_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("margay.sock");
        std::fs::write(folder.path().join("margay.shutdowns"), "{").unwrap();
        let (run, fault) = Shutdowns::of_last_run(&socket);
        assert!(names(&run).is_empty());
        assert!(fault.unwrap().contains("margay.shutdowns"));
    }
}
