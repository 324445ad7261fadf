//! The files with secrets, followed for changes: one list of files, and one notification.
//!
//! Files are compared by their stamps after any event in their folders, so that a replaced link
//! (`..data` of Kubernetes) is noticed as well as a file that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::config::{Secrets, Stamp};
use crate::datastore::{FileWatch, Folders, watch_files};
use crate::supervise::{self, Ending};

/// After an event, files are compared once there was none for this long: a file that is written in
/// several steps is read once …
const QUIET: Duration = Duration::from_millis(100);
/// … but after at most this many such periods.
const QUIETS_MAX: u32 = 10;
/// Interval of comparisons without an event: a link may lead to where the kernel reports no changes.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The files, each with its stamp when it was last read.
type Stamps = BTreeMap<PathBuf, Stamp>;

/// Follows files until it is dropped.
pub(super) struct SecretWatch {
    wanted: watch::Sender<Stamps>,
    changed: Arc<Notify>,
}

impl SecretWatch {
    /// Starts the task, which follows no file yet.
    pub(super) fn start() -> Self {
        let (wanted, files) = watch::channel(Stamps::new());
        let changed = Arc::new(Notify::new());
        let followed = follow(files, Arc::clone(&changed));
        tokio::spawn(supervise::task("secrets", Ending::Allowed, followed));
        SecretWatch { wanted, changed }
    }

    /// Follows these files instead of the previous ones.
    pub(super) fn follow(&self, secrets: &Secrets) {
        let stamps = secrets.stamps();
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != stamps;
            *wanted = stamps;
            differs
        });
    }

    /// Notified when a file is not the one that was read.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

async fn follow(mut wanted: watch::Receiver<Stamps>, changed: Arc<Notify>) {
    let mut known = Stamps::new();
    let mut watched: Option<(FileWatch, Folders)> = None;
    let mut is_failure_logged = false;
    loop {
        if known.is_empty() {
            watched = None;
        } else if watched.is_none() {
            watched = watch_files()
                .inspect_err(|error| {
                    if !std::mem::replace(&mut is_failure_logged, true) {
                        warn!(%error, "cannot watch files with secrets: comparing them every 30 s");
                    }
                })
                .ok();
        }
        // Watched before they are compared, so that no change in between is missed.
        let watch = watched.as_mut().map(|(watch, folders)| {
            watch_folders(folders, &known);
            watch
        });
        let now: Stamps = known.keys().map(|path| (path.clone(), Stamp::of(path))).collect();
        if now != known {
            known = now;
            changed.notify_one();
        }
        tokio::select! {
            result = wanted.changed() => match result {
                Ok(()) => known = wanted.borrow_and_update().clone(),
                Err(_) => return,
            },
            () = quiet_after_change(watch) => {}
            () = sleep(LOOK_EVERY), if !known.is_empty() => {}
        }
    }
}

/// Watches the folder that each path names, and the one of the file that it leads to.
fn watch_folders(folders: &mut Folders, files: &Stamps) {
    let parent = |path: &Path| path.parent().map(Path::to_owned);
    let of_file = |path: &PathBuf| {
        let leads_to = std::fs::canonicalize(path).ok().and_then(|path| parent(&path));
        [parent(path), leads_to]
    };
    let all: BTreeSet<PathBuf> = files.keys().flat_map(of_file).flatten().collect();
    folders.begin();
    for folder in all {
        // What cannot be watched is compared every LOOK_EVERY.
        let _ = folders.add_nearest(&folder);
    }
    folders.finish();
}

/// Returns after an event, once no other follows for a while.
async fn quiet_after_change(watch: Option<&mut FileWatch>) {
    let Some(watch) = watch else { return std::future::pending().await };
    if watch.changed().await.is_err() {
        // Not expected. They are compared every LOOK_EVERY.
        return std::future::pending().await;
    }
    let end = Instant::now() + QUIET * QUIETS_MAX;
    while Instant::now() < end && matches!(timeout(QUIET, watch.changed()).await, Ok(Ok(()))) {}
    watch.take_events();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_compared_after_the_last_of_many_events() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watch, mut folders) = watch_files().unwrap();
        folders.begin();
        folders.add_nearest(folder.path()).unwrap();
        folders.finish();
        let name = |n: u32| folder.path().join(n.to_string());
        (0..QUIETS_MAX * 3).for_each(|n| std::fs::write(name(n), "x").unwrap());
        // The events are there already: what is quiet is the time after them.
        let began = Instant::now();
        quiet_after_change(Some(&mut watch)).await;
        assert!(began.elapsed() >= QUIET, "{:?}", began.elapsed());
        // Those that do not end are not waited for.
        let written = async {
            for n in 0.. {
                std::fs::write(name(n % 10), "y").unwrap();
                sleep(QUIET / 10).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            () = quiet_after_change(Some(&mut watch)) => {}
            () = written => {}
        }
        let took = began.elapsed();
        assert!(took >= QUIET * (QUIETS_MAX - 1) && took < QUIET * QUIETS_MAX * 10, "{took:?}");
    }

    /// Files named as in Kubernetes' volumes, which are replaced together.
    #[tokio::test]
    async fn replaced_links_written_files_and_returning_folders_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let swap = |generation: u32| {
            let name = format!("..{generation}");
            std::fs::create_dir(at(&name)).unwrap();
            std::fs::write(at(&name).join("key"), generation.to_string()).unwrap();
            std::os::unix::fs::symlink(&name, at("..data_tmp")).unwrap();
            std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        swap(1);
        std::os::unix::fs::symlink("..data/key", at("key")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("other/key"), "a").unwrap();
        let watch = SecretWatch::start();
        let changed = watch.changed();
        let follow = || {
            let paths = [at("key"), at("other/key")];
            let stamps = paths.map(|path| (path.clone(), Stamp::of(&path))).into();
            watch.wanted.send_replace(stamps);
        };
        let noticed = async |what: &str| {
            let noticed = timeout(Duration::from_secs(20), changed.notified()).await;
            assert!(noticed.is_ok(), "{what}");
            follow();
        };
        follow();
        swap(2);
        noticed("a replaced link").await;
        std::fs::write(at("other/key"), "bc").unwrap();
        noticed("a written file").await;
        std::fs::remove_dir_all(at("other")).unwrap();
        noticed("a removed folder").await;
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("other/key"), "d").unwrap();
        noticed("a folder that is back").await;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(at("other/key"), mode).unwrap();
        noticed("another mode, with which it may be readable").await;
        std::fs::write(at("unrelated"), "x").unwrap();
        let unrelated = timeout(QUIET * 5, changed.notified()).await;
        assert!(unrelated.is_err(), "another file in the folder");
    }
}
