//! What a run leaves for the next one to know: a small file beside the control socket.
//!
//! It names the kernel's tables and protocol numbers under which routes of ours may be, so that a run
//! with other ones finds what the run before has left, and that there was a run at all, which
//! neighbours may still hold routes of. It is of one boot of the machine: the kernel's routes do not
//! outlive that either.
//!
//! A file that is not ours, or that cannot be understood, is left as it is and named; margay then runs
//! as if there was none.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::deferral::Start;
use super::own_file::{OwnFile, Unread, boot};
use crate::config::{Config, FibSettings};
use crate::kernel::{self, Carried, Place};

/// The form of the file.
const VERSION: u32 = 1;

/// Where routes of ours may be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KernelPlace {
    pub(super) table: u32,
    pub(super) protocol: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    /// Which boot of the machine.
    boot: String,
    kernel: Vec<KernelPlace>,
}

/// What is known about runs before this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastRun {
    /// Where they may have left routes. Empty if they wrote none.
    pub(super) kernel: Vec<KernelPlace>,
}

/// What a start knows of runs before it.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Whether there was one.
    pub(super) start: Start,
    /// What is not known, or not done, about what they have left.
    pub(super) fault: Option<String>,
}

impl Earlier {
    /// Something else that an earlier run has left is not known.
    pub(super) fn add_fault(&mut self, fault: Option<String>) {
        let Some(fault) = fault else { return };
        warn!("{fault}");
        self.fault = Some(match self.fault.take() {
            Some(before) => format!("{before}; {fault}"),
            None => fault,
        });
    }
}

/// Carries the routes that earlier runs left under another table or protocol number over to those of
/// `config`, and writes down where those of this run will be.
pub(super) fn take_over(file: &RunFile, config: &Config) -> Earlier {
    let mut faults = Vec::new();
    let last = file.read().unwrap_or_else(|fault| {
        faults.push(fault.to_string());
        None
    });
    let is_ours_to_write = faults.is_empty();
    let start = if last.is_some() { Start::Again } else { Start::First };
    let FibSettings { enabled, table, protocol, .. } = config.fib;
    let present = enabled.then_some(KernelPlace { table, protocol });
    let mut others = last.unwrap_or_default().kernel;
    others.retain(|place| Some(*place) != present);
    let write = |kernel: Vec<KernelPlace>, faults: &mut Vec<String>| {
        if is_ours_to_write && let Err(fault) = file.write(&kernel) {
            faults.push(fault.to_string());
        }
    };
    // Before a route is under a new number, and again when none is under an old one.
    write(others.iter().copied().chain(present).collect(), &mut faults);
    if !others.is_empty() {
        others.retain(|place| carry(*place, present, &mut faults) == Left::Some);
        write(others.iter().copied().chain(present).collect(), &mut faults);
    }
    for fault in &faults {
        warn!("{fault}");
    }
    Earlier { start, fault: (!faults.is_empty()).then(|| faults.join("; ")) }
}

/// Whether routes of ours are left where they are not wanted.
#[derive(PartialEq, Eq)]
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
                    "{routes} routes that an earlier run left in table {table} with protocol \
                     {protocol} are {}",
                    if to.is_some() { "carried over to the present ones" } else { "deleted" }
                );
            }
            Left::None
        }
        Ok(Carried { refused, .. }) => {
            faults.push(format!(
                "the kernel keeps {refused} routes that an earlier run left in table {table} with \
                 protocol {protocol}; {remedy}"
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

/// Why the file is not used.
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

/// The file of one control socket.
#[derive(Clone, Debug)]
pub(super) struct RunFile {
    file: OwnFile,
}

impl RunFile {
    /// Beside the control socket: `margay.state` for `margay.sock`.
    pub(super) fn beside(socket: &Path) -> Self {
        RunFile { file: OwnFile::beside(socket, "state") }
    }

    /// What runs since the machine was booted have left; `None`: there was none.
    ///
    /// # Errors
    /// The file cannot be read, or is not ours.
    pub(super) fn read(&self) -> Result<Option<LastRun>, Fault> {
        let failed = |source| Fault::Read { path: self.file.path.clone(), source };
        let text = match self.file.read() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(Unread::Failed(error)) => return Err(failed(error)),
            Err(Unread::Foreign(why)) => return Err(self.foreign(why)),
        };
        let content: Content = match serde_json::from_str(&text) {
            Ok(content) => content,
            Err(error) => return Err(self.foreign(error)),
        };
        if content.version != VERSION {
            return Err(self.foreign(format_args!("version {}", content.version)));
        }
        let is_of_this_boot = content.boot == boot().map_err(failed)?;
        Ok(is_of_this_boot.then_some(LastRun { kernel: content.kernel }))
    }

    fn foreign(&self, why: impl ToString) -> Fault {
        Fault::Foreign { path: self.file.path.clone(), why: why.to_string() }
    }

    /// From here on routes of ours may be in `kernel`.
    ///
    /// # Errors
    /// The system refuses; the file is as it was.
    pub(super) fn write(&self, kernel: &[KernelPlace]) -> Result<(), Fault> {
        self.replace(kernel).map_err(|source| Fault::Write { path: self.file.path.clone(), source })
    }

    fn replace(&self, kernel: &[KernelPlace]) -> io::Result<()> {
        let content = Content { version: VERSION, boot: boot()?, kernel: kernel.to_vec() };
        self.file.replace(&serde_json::to_string(&content)?)
    }

    /// Nothing is left.
    pub(super) fn remove(&self) {
        // One that stays says that there may be routes, which the next run finds not to be so.
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

    /// A file in a folder of its own, gone with the value.
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

    fn refusal(file: &RunFile) -> String {
        file.read().unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read_by_the_next_run() {
        let (_place, file) = Place::new("plain");
        assert_eq!(file.read().unwrap(), None);
        file.write(&[HERE]).unwrap();
        file.write(&[HERE, THERE]).unwrap();
        assert_eq!(file.read().unwrap(), Some(LastRun { kernel: vec![HERE, THERE] }));
        assert_eq!(fs::metadata(&file.file.path).unwrap().permissions().mode() & 0o777, MODE);
        file.remove();
        assert_eq!(file.read().unwrap(), None);
        assert_eq!(fs::read_dir(file.file.path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_another_boot_says_nothing() {
        let (_place, file) = Place::new("boot");
        let old = r#"{"version":1,"boot":"another","kernel":[{"table":254,"protocol":12}]}"#;
        fs::write(&file.file.path, old).unwrap();
        fs::set_permissions(&file.file.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
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
    fn where_it_cannot_be_written_the_one_before_stays() {
        let (_place, file) = Place::new("refused");
        let nowhere = RunFile::beside(Path::new("/proc/nowhere/margay.sock"));
        assert!(nowhere.write(&[HERE]).unwrap_err().to_string().contains("/proc/nowhere"));
        file.write(&[HERE]).unwrap();
        // A folder has the name of the fresh one.
        let fresh = file.file.path.with_extension(format!("state.{}", std::process::id()));
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("x"), "").unwrap();
        assert!(file.write(&[THERE]).is_err());
        assert_eq!(file.read().unwrap(), Some(LastRun { kernel: vec![HERE] }));
    }
}
