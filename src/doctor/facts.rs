//! What was seen, before anything is made of it.

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

/// What was looked at, or why it could not be.
pub(super) type Looked<T> = Result<T, String>;

/// Everything that the judgement is about.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The node; `None`: nothing names it.
    pub(super) node: Option<String>,
    pub(super) objects: Objects,
    /// Who answers at BIRD's sockets.
    pub(super) speakers: Vec<Seat>,
    /// The kernel's main table and interfaces.
    pub(super) kernel: Looked<Picture>,
    pub(super) host: Host,
}

/// Where objects come from, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    /// Why it is not known where they are.
    pub(super) settings: Looked<()>,
    pub(super) sources: Vec<SourceSeen>,
    /// Rights that are missing, where the server could be asked.
    pub(super) rights: Looked<Vec<Lacking>>,
    /// `None`: the objects are not known.
    pub(super) plan: Option<Wanted>,
}

/// A source of objects.
#[derive(Clone, Debug)]
pub(super) struct SourceSeen {
    pub(super) name: String,
    /// Whether there is a plan without it.
    pub(super) need: Need,
    /// How many objects, or why it cannot be read.
    pub(super) objects: Looked<usize>,
    pub(super) problems: Vec<Problem>,
}

/// Whether there is a plan without a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// There is none.
    Plan,
    /// There is, and what this source would add is missing from it.
    Part,
    /// Nothing is asked of it.
    Nothing,
}

/// What margay would do.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) plan: Plan,
    /// The sessions of the plan that run.
    pub(super) running: BTreeSet<Arc<str>>,
    /// Why others do not.
    pub(super) idle: Vec<Problem>,
}

/// A control socket of a family.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) family: Family,
    pub(super) path: PathBuf,
    pub(super) speaker: Looked<Speaker>,
}

/// Protocols by their names.
pub(super) type ByName<'a> = BTreeMap<&'a str, &'a Protocol>;

/// Who answers at one.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    pub(super) status: Status,
    pub(super) protocols: Vec<Protocol>,
    pub(super) table: Table,
    /// What is exported to sessions that were asked about.
    pub(super) exported: BTreeMap<String, Looked<BTreeSet<Prefix>>>,
    /// `None`: the kernel does not say, or we may not see it.
    pub(super) process: Option<Process>,
}

impl Speaker {
    /// Its protocols by their names.
    pub(super) fn by_name(&self) -> ByName<'_> {
        self.protocols.iter().map(|protocol| (protocol.name.as_str(), protocol)).collect()
    }

    /// Whether it is margay that answers.
    pub(super) fn is_margay(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_margay)
    }
}

/// This machine.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) processes: Looked<Vec<Process>>,
    pub(super) sockets: Looked<Vec<BgpSocket>>,
    /// Of the process that is to be replaced, else of this one: whose, and which.
    pub(super) capabilities: (String, Looked<u64>),
    /// By name; those that the kernel does not have are left out.
    pub(super) sysctls: BTreeMap<&'static str, u64>,
    pub(super) firewall: Firewall,
    pub(super) files: Files,
    /// Variables that differ from those of the process that is to be replaced, and that process.
    pub(super) environment: Option<(String, Vec<String>)>,
}

impl Facts {
    /// Who answers for a family.
    pub(super) fn speaker(&self, family: Family) -> Option<&Speaker> {
        let seat = self.speakers.iter().find(|seat| seat.family == family)?;
        seat.speaker.as_ref().ok()
    }
}
