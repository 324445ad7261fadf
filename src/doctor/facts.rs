//! What was collected, before it is evaluated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bgp_proto::types::{Family, Prefix};

use super::bird::{Protocol, Status, Table};
use super::files::Files;
use super::firewall::Firewall;
use super::processes::{BgpSocket, Process};
use crate::calico::{Plan, Problem};
use crate::datastore::Lacking;
use crate::kernel::Picture;

/// What was read, or why it could not be read.
pub(super) type Looked<T> = Result<T, String>;

/// Everything that findings are derived from.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The name of the node; `None`: it is not known.
    pub(super) node: Option<String>,
    pub(super) objects: Objects,
    /// BIRD's control sockets and the speakers behind them.
    pub(super) speakers: Vec<Seat>,
    /// The kernel's main table and interfaces.
    pub(super) kernel: Looked<Picture>,
    pub(super) host: Host,
}

/// The sources of objects, and the plan that follows from the objects.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    /// The error, if the settings, which name the sources, are not known.
    pub(super) settings: Looked<()>,
    pub(super) sources: Vec<SourceSeen>,
    /// Permissions that are missing, or why the API server could not be asked.
    pub(super) rights: Looked<Vec<Lacking>>,
    /// `None`: the objects are not known.
    pub(super) plan: Option<Wanted>,
}

/// A source of objects.
#[derive(Clone, Debug)]
pub(super) struct SourceSeen {
    pub(super) name: String,
    /// Whether the plan depends on it.
    pub(super) need: Need,
    /// The number of objects, or why they cannot be read.
    pub(super) objects: Looked<usize>,
    pub(super) problems: Vec<Problem>,
}

/// Whether the plan depends on a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// There is no plan without it.
    Plan,
    /// The plan lacks what this source would add.
    Part,
    /// The plan needs nothing from it.
    Nothing,
}

/// What margay would do.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) plan: Plan,
    /// The sessions of the plan that would run.
    pub(super) running: BTreeSet<Arc<str>>,
    /// Why other sessions would not.
    pub(super) idle: Vec<Problem>,
}

/// The control socket for a family.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) family: Family,
    pub(super) path: PathBuf,
    pub(super) speaker: Looked<Speaker>,
}

/// Protocols by name.
pub(super) type ByName<'a> = BTreeMap<&'a str, &'a Protocol>;

/// The BGP speaker behind a control socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    pub(super) status: Status,
    pub(super) protocols: Vec<Protocol>,
    pub(super) table: Table,
    /// The prefixes exported to the sessions that were queried.
    pub(super) exported: BTreeMap<String, Looked<BTreeSet<Prefix>>>,
    /// `None`: not known, or not accessible.
    pub(super) process: Option<Process>,
}

impl Speaker {
    /// Its protocols by name.
    pub(super) fn by_name(&self) -> ByName<'_> {
        self.protocols.iter().map(|protocol| (protocol.name.as_str(), protocol)).collect()
    }

    /// Whether it is margay.
    pub(super) fn is_margay(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_margay)
    }
}

/// This host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) processes: Looked<Vec<Process>>,
    pub(super) sockets: Looked<Vec<BgpSocket>>,
    /// A process, and its capabilities: the process that is to be replaced, else this one.
    pub(super) capabilities: (String, Looked<u64>),
    /// By name, without those that the kernel does not have.
    pub(super) sysctls: BTreeMap<&'static str, u64>,
    pub(super) firewall: Firewall,
    pub(super) files: Files,
    /// The process that is to be replaced, and the variables whose values differ from this
    /// process's.
    pub(super) environment: Option<(String, Vec<String>)>,
}

impl Facts {
    /// The speaker for a family.
    pub(super) fn speaker(&self, family: Family) -> Option<&Speaker> {
        let seat = self.speakers.iter().find(|seat| seat.family == family)?;
        seat.speaker.as_ref().ok()
    }
}
