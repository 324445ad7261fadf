//! The record that a run leaves for the next one: a small file beside the control socket.
//!
//! It names the kernel tables and protocol numbers under which there may be routes of ours, so that
//! a run with other settings finds the routes of the previous run. Its existence says that there
//! was a run at all, whose routes neighbours may still hold. It is valid for one boot of the
//! machine only, as are the kernel's routes.
//!
//! A file that is not ours, or that cannot be parsed, is left unchanged and reported; margay then
//! runs as if there were none.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::deferral::Start;
use super::own_file::{OwnFile, Unread};
use crate::config::{Config, FibSettings};
use crate::kernel::{self, Carried, Claim, Place};
use crate::plural::counted;

/// Version of the file's format.
const VERSION: u32 = 1;

/// A place in the kernel where there may be routes of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KernelPlace {
    pub(super) table: u32,
    pub(super) protocol: u8,
}

/// The record of earlier runs of this boot, as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastRun {
    /// Where they may have left routes; empty if they installed none.
    pub(super) kernel: Vec<KernelPlace>,
    /// The same of VRFs, by name. Absent in files of a margay without VRFs.
    #[serde(default)]
    pub(super) vrfs: BTreeMap<String, KernelPlace>,
}

/// What a start knows about earlier runs.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Whether there was one.
    pub(super) start: Start,
    /// What could not be read or cleaned up of earlier runs.
    pub(super) fault: Option<String>,
}

impl Earlier {
    /// Logs and adds another fault, if there is one.
    pub(super) fn add_fault(&mut self, fault: Option<String>) {
        let Some(fault) = fault else { return };
        warn!("{fault}");
        self.fault = Some(match self.fault.take() {
            Some(before) => format!("{before}; {fault}"),
            None => fault,
        });
    }
}

/// Moves the routes that earlier runs left under another table or protocol number to those of
/// `config`, and records where this run will install its routes.
pub(super) fn take_over(file: &mut RunFile, config: &Config) -> Earlier {
    let mut faults = Vec::new();
    let last = file.read().unwrap_or_else(|fault| {
        faults.push(fault.to_string());
        None
    });
    let is_ours_to_write = faults.is_empty();
    let start = if last.is_some() { Start::Again } else { Start::First };
    let FibSettings { enabled, table, protocol, .. } = config.fib;
    let present = enabled.then_some(KernelPlace { table, protocol });
    let LastRun { kernel: mut others, vrfs } = last.unwrap_or_default();
    others.retain(|place| Some(*place) != present);
    // Another table may be that of a VRF, whose instance adopts the routes in it.
    others.retain(|place| config.vrfs.is_empty() || place.table == table);
    let mut vrfs = vrfs;
    let mut write = |kernel: Vec<KernelPlace>, vrfs: &_, faults: &mut Vec<String>| {
        let run = LastRun { kernel, vrfs: BTreeMap::clone(vrfs) };
        if is_ours_to_write && let Err(fault) = file.write(run) {
            faults.push(fault.to_string());
        }
    };
    // Written before any route has the new numbers, and again once none has the old ones, so that
    // the file names every place even if this run ends in between.
    write(others.iter().copied().chain(present).collect(), &vrfs, &mut faults);
    let before = vrfs.clone();
    take_over_vrfs(&mut vrfs, config, &mut faults);
    if !others.is_empty() || vrfs != before {
        others.retain(|place| carry(*place, present, &mut faults) == Left::Some);
        write(others.iter().copied().chain(present).collect(), &vrfs, &mut faults);
    }
    for fault in &faults {
        warn!("{fault}");
    }
    Earlier { start, fault: (!faults.is_empty()).then(|| faults.join("; ")) }
}

/// Deletes the routes of VRFs that are not configured any more, and gives those of the others the
/// present protocol number. Their instances adopt them.
fn take_over_vrfs(
    vrfs: &mut BTreeMap<String, KernelPlace>,
    config: &Config,
    faults: &mut Vec<String>,
) {
    let FibSettings { enabled, table, protocol, .. } = config.fib;
    vrfs.retain(|name, place| {
        // The table is that of the default VRF now, which adopts what is in it.
        if place.table == table {
            return false;
        }
        let is_wanted = enabled && config.vrfs.iter().any(|vrf| *vrf.name == **name);
        let to = is_wanted.then_some(KernelPlace { protocol, ..*place });
        if to == Some(*place) {
            return true;
        }
        let left = carry(*place, to, faults);
        if let (Left::None, Some(to)) = (left, to) {
            *place = to;
        }
        left == Left::Some || is_wanted
    });
}

/// Whether routes of ours remain at an old place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    None,
    Some,
}

fn carry(from: KernelPlace, to: Option<KernelPlace>, faults: &mut Vec<String>) -> Left {
    let KernelPlace { table, protocol } = from;
    let remedy = format!("remove them with ip route flush table {table} proto {protocol}");
    match kernel::carry_over(from.into(), to.map(Place::from)) {
        Ok(Carried { routes, refused: 0 }) => {
            if routes > 0 {
                info!(
                    "{} that an earlier run left in table {table} with protocol {protocol} {} {}",
                    counted(routes, "route"),
                    if routes == 1 { "is" } else { "are" },
                    if to.is_some() {
                        "carried over to the present table and protocol"
                    } else {
                        "deleted"
                    }
                );
            }
            Left::None
        }
        Ok(Carried { refused, .. }) => {
            faults.push(format!(
                "the kernel keeps {} that an earlier run left in table {table} with protocol \
                 {protocol}; {remedy}",
                counted(refused, "route")
            ));
            Left::Some
        }
        Err(error) => {
            faults.push(format!(
                "routes that an earlier run left in table {table} with protocol {protocol} are not \
                 touched: {error}; {remedy}"
            ));
            Left::Some
        }
    }
}

impl From<KernelPlace> for Place {
    fn from(KernelPlace { table, protocol }: KernelPlace) -> Self {
        Place { table, protocol }
    }
}

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot read {}, which says what the last run left in the kernel: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is not what a margay of this user wrote ({why}): what the last run left in the kernel is \
         not known; remove the file",
        path.display()
    )]
    Foreign { path: PathBuf, why: String },
    #[error(
        "cannot write {}: {source}; if [fib] is changed before the next start, routes of this run \
         stay in the kernel",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
}

/// The record file of the daemon with one control socket.
#[derive(Clone, Debug)]
pub(super) struct RunFile {
    file: OwnFile,
    /// What this run has written.
    written: LastRun,
    /// That this run writes routes there; held as long as it does.
    claim: Option<Arc<Claim>>,
}

impl RunFile {
    /// The file beside a control socket: `margay.state` for `margay.sock`.
    pub(super) fn beside(socket: &Path) -> Self {
        let file = OwnFile::beside(socket, "state", VERSION);
        RunFile { file, written: LastRun::default(), claim: None }
    }

    /// Claims the kernel's table for this run; returns why it may belong to another process.
    pub(super) fn claim(&mut self, fib: &FibSettings) -> Option<String> {
        if !fib.enabled {
            return None;
        }
        let (claim, fault) = Claim::of(fib.table, fib.protocol);
        self.claim = Some(Arc::new(claim));
        fault
    }

    /// The record of earlier runs since the machine was booted; `None` if there was none.
    ///
    /// # Errors
    /// The file cannot be read, or is not ours.
    pub(super) fn read(&self) -> Result<Option<LastRun>, Fault> {
        self.file.read().map_err(|unread| {
            let path = self.file.path.clone();
            match unread {
                Unread::Failed(source) => Fault::Read { path, source },
                Unread::Foreign(why) => Fault::Foreign { path, why },
            }
        })
    }

    /// Records where there may be routes of ours.
    ///
    /// # Errors
    /// The file cannot be written; it is unchanged.
    pub(super) fn write(&mut self, run: LastRun) -> Result<(), Fault> {
        let written = self.file.replace(&run);
        written.map_err(|source| Fault::Write { path: self.file.path.clone(), source })?;
        self.written = run;
        Ok(())
    }

    /// Records where there may be routes of a VRF; `None`: there are none any more. An error is logged.
    /// Routes that an earlier run left in another table of the VRF are deleted.
    pub(super) fn note_vrf(&mut self, name: &str, place: Option<KernelPlace>) {
        self.note_vrf_by(name, place, |old| {
            let mut faults = Vec::new();
            // If some are left, the fault names the command that removes them.
            carry(old, None, &mut faults);
            faults.iter().for_each(|fault| warn!("{fault}"));
        });
    }

    /// The same; `delete` deletes our routes of a place.
    fn note_vrf_by(
        &mut self,
        name: &str,
        place: Option<KernelPlace>,
        delete: impl FnOnce(KernelPlace),
    ) {
        let mut run = self.written.clone();
        let old = run.vrfs.get(name).copied();
        let left = old.zip(place).filter(|(old, new)| old.table != new.table);
        // What is there now may be that of the table's present owner.
        let is_owned = |table: u32| {
            let vrfs = run.vrfs.iter().filter(|(vrf, _)| *vrf != name).map(|(_, place)| place);
            run.kernel.iter().chain(vrfs).any(|owner| owner.table == table)
        };
        if let Some((old, _)) = left.filter(|(old, _)| !is_owned(old.table)) {
            delete(old);
        }
        match place {
            Some(place) => run.vrfs.insert(name.to_owned(), place),
            None => run.vrfs.remove(name),
        };
        // Without an entry the file was not ours to write.
        if run != self.written
            && !run.kernel.is_empty()
            && let Err(fault) = self.write(run)
        {
            warn!("{fault}");
        }
    }

    /// Removes the record: no routes of ours are left.
    pub(super) fn remove(&self) {
        // If the file stays, the next run looks for routes and finds none.
        let _ = self.file.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::replace_file::MODE;

    const HERE: KernelPlace = KernelPlace { table: 254, protocol: 12 };
    const THERE: KernelPlace = KernelPlace { table: 100_000, protocol: 186 };

    /// A file in its own folder, which is removed when this is dropped.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> (Place, RunFile) {
            let folder = std::env::temp_dir().join(format!("mg-run-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            let file = RunFile::beside(&folder.join("margay.sock"));
            (Place(folder), file)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run(kernel: &[KernelPlace]) -> LastRun {
        LastRun { kernel: kernel.to_vec(), vrfs: BTreeMap::new() }
    }

    fn refusal(file: &RunFile) -> String {
        file.read().unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read_by_the_next_run() {
        let (_place, mut file) = Place::new("plain");
        assert_eq!(file.read().unwrap(), None);
        file.write(run(&[HERE])).unwrap();
        file.write(run(&[HERE, THERE])).unwrap();
        assert_eq!(file.read().unwrap(), Some(run(&[HERE, THERE])));
        assert_eq!(fs::metadata(&file.file.path).unwrap().permissions().mode() & 0o777, MODE);
        file.remove();
        assert_eq!(file.read().unwrap(), None);
        assert_eq!(fs::read_dir(file.file.path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_another_boot_is_ignored() {
        let (_place, file) = Place::new("boot");
        let old = r#"{"version":1,"boot":"another","kernel":[{"table":254,"protocol":12}]}"#;
        fs::write(&file.file.path, old).unwrap();
        fs::set_permissions(&file.file.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn places_of_vrfs_are_kept_beside_the_others() {
        let (_place, mut file) = Place::new("vrfs");
        file.note_vrf("red", Some(THERE));
        assert_eq!(file.read().unwrap(), None, "a file that is not ours is left alone");
        file.write(run(&[HERE])).unwrap();
        file.note_vrf("red", Some(THERE));
        let read = file.read().unwrap().unwrap();
        assert_eq!((&read.kernel[..], read.vrfs.get("red")), (&[HERE][..], Some(&THERE)));
        file.note_vrf("red", None);
        assert_eq!(file.read().unwrap(), Some(run(&[HERE])));
    }

    #[test]
    fn what_a_vrf_left_in_another_table_is_deleted_unless_that_is_in_use() {
        let (_place, mut file) = Place::new("moved");
        let at = |table| KernelPlace { table, protocol: 12 };
        let vrfs = [("red", at(100)), ("blue", at(200)), ("green", at(254))];
        let vrfs = vrfs.map(|(name, place)| (name.to_owned(), place)).into();
        file.write(LastRun { kernel: vec![HERE], vrfs }).unwrap();
        let mut note = |name: &str, place| {
            let mut deleted = None;
            file.note_vrf_by(name, place, |old| deleted = Some(old));
            deleted
        };
        assert_eq!(note("red", Some(at(100))), None, "its instance adopts them");
        assert_eq!(note("red", Some(at(300))), Some(at(100)));
        assert_eq!(note("blue", Some(at(100))), Some(at(200)));
        assert_eq!(note("red", Some(at(200))), Some(at(300)));
        assert_eq!(note("red", Some(at(100))), Some(at(200)));
        assert_eq!(note("blue", Some(at(400))), None, "red's");
        assert_eq!(note("green", Some(at(500))), None, "the default VRF's");
        assert_eq!(note("green", None), None, "its instance has withdrawn them");
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_unchanged() {
        let (place, file) = Place::new("foreign");
        let put = |text: &str, mode: u32| {
            let _ = fs::remove_file(&file.file.path);
            fs::write(&file.file.path, text).unwrap();
            fs::set_permissions(&file.file.path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for text in ["", "{", "null", "{\"version\":1}", "\u{0}\u{1}"] {
            put(text, 0o600);
            assert!(refusal(&file).contains("is not what a margay of this user wrote"), "{text}");
            assert_eq!(fs::read_to_string(&file.file.path).unwrap(), text);
        }
        put(r#"{"version":2,"boot":"x","kernel":[]}"#, 0o600);
        assert!(refusal(&file).contains("version 2"));
        put(r#"{"version":1,"boot":"x","kernel":[]}"#, 0o666);
        assert!(refusal(&file).contains("others may write it"));
        fs::remove_file(&file.file.path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file.file.path).unwrap();
        assert!(refusal(&file).contains("cannot read"));
        fs::remove_file(&file.file.path).unwrap();
        fs::create_dir(&file.file.path).unwrap();
        assert!(refusal(&file).contains("it is no file"));
        drop(place);
    }

    #[test]
    fn if_the_file_cannot_be_written_the_previous_one_stays() {
        let (_place, mut file) = Place::new("refused");
        let mut nowhere = RunFile::beside(Path::new("/proc/nowhere/margay.sock"));
        assert!(nowhere.write(run(&[HERE])).unwrap_err().to_string().contains("/proc/nowhere"));
        file.write(run(&[HERE])).unwrap();
        // A folder has the name of the temporary file.
        let fresh = file.file.path.with_extension(format!("state.{}", std::process::id()));
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("x"), "").unwrap();
        assert!(file.write(run(&[THERE])).is_err());
        assert_eq!(file.read().unwrap(), Some(run(&[HERE])));
    }
}
