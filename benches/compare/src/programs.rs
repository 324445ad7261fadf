//! Where the programs of the daemons are: on this machine, in another root, or where the command line says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::daemon::Kind;

/// What `interop/setup.sh current` makes.
const CURRENT: &str = "/opt/interop/current/root";
/// Runs a program in such a root.
const ENTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../interop/enter.sh");

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    margay: Option<PathBuf>,
    given: Vec<(Kind, PathBuf)>,
    root: Option<PathBuf>,
}

impl Programs {
    /// `given`: programs of the command line. `current`: the other daemons are those of the root that
    /// `interop/setup.sh current` makes, but BIRD 2.
    pub(crate) fn new(margay: Option<PathBuf>, given: &[(Kind, PathBuf)], current: bool) -> Self {
        Self { margay, given: given.to_vec(), root: current.then(|| CURRENT.into()) }
    }

    /// Parses `KIND=PATH`.
    ///
    /// # Errors
    /// There is no `=`, or no such daemon.
    pub(crate) fn parse(text: &str) -> Result<(Kind, PathBuf), String> {
        let (kind, path) = text.split_once('=').ok_or("expected DAEMON=PATH")?;
        Ok((<Kind as clap::ValueEnum>::from_str(kind, true)?, path.into()))
    }

    /// Whether the programs of a daemon are present, or it needs none.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Relay | Kind::Null | Kind::Writer => true,
            _ => self.find(kind, main_program(kind)).is_some_and(|(root, path)| {
                root.map_or_else(|| path.exists(), |root| inside(root, &path).exists())
            }),
        }
    }

    /// The command that runs a program of a daemon. `name` is ignored but for FRR, which has several.
    ///
    /// # Errors
    /// There is no such program.
    pub(crate) fn command(&self, kind: Kind, name: &str) -> anyhow::Result<Command> {
        let (root, path) = self.find(kind, name).with_context(|| match kind {
            Kind::Margay => "no margay binary: cargo build --profile fast".to_owned(),
            _ => format!("no {}: see --program and --current", kind.name()),
        })?;
        let Some(root) = root else { return Ok(Command::new(path)) };
        let mut command = Command::new(ENTER);
        command.arg(root).arg(path);
        Ok(command)
    }

    /// Name and version in one line, with the path of a program that is not this machine's.
    pub(crate) fn version(&self, kind: Kind) -> String {
        let flag = match kind {
            Kind::Relay | Kind::Null | Kind::Writer => return kind.name().to_owned(),
            Kind::Openbgpd => "-V",
            _ => "--version",
        };
        let Ok(mut command) = self.command(kind, main_program(kind)) else {
            return format!("{}: not found", kind.name());
        };
        let output = command.arg(flag).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or("version unknown").trim();
        match self.given.iter().find(|(of, _)| *of == kind) {
            Some((_, path)) => format!("{}: {line} ({})", kind.name(), path.display()),
            None => format!("{}: {line}", kind.name()),
        }
    }

    /// The root in which a program is run, if not in this machine's, and its path there.
    fn find(&self, kind: Kind, name: &str) -> Option<(Option<&Path>, PathBuf)> {
        if let Some((_, path)) = self.given.iter().find(|(of, _)| *of == kind) {
            let path = if kind == Kind::Frr { path.join(name) } else { path.clone() };
            return Some((None, path));
        }
        let path = match kind {
            Kind::Margay => return Some((None, self.margay.clone()?)),
            Kind::Relay | Kind::Null | Kind::Writer => return None,
            // Debian 12 has BIRD 2 only, Debian's next release BIRD 3 only under this name.
            Kind::Bird2 => return Some((None, "/usr/sbin/bird".into())),
            Kind::Bird3 => return Some((Some(self.root.as_deref()?), "/usr/sbin/bird".into())),
            Kind::Frr => Path::new("/usr/lib/frr").join(name),
            Kind::Gobgp => "/usr/bin/gobgpd".into(),
            Kind::Openbgpd => "/usr/sbin/bgpd".into(),
        };
        Some((self.root.as_deref(), path))
    }
}

/// The program that stands for a daemon.
fn main_program(kind: Kind) -> &'static str {
    if kind == Kind::Frr { "bgpd" } else { "" }
}

/// A path of a root, seen from outside.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
