//! The doctor's findings, and the report with their verdict.

use std::fmt;

use bgp_proto::types::Prefix;
use serde::Serialize;

/// The severity of a finding; the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The move is not safe: routes or sessions would be lost, or may be.
    Unsafe,
    /// Something will be different with margay.
    Change,
    /// Something could not be examined. It may hide a change.
    Unseen,
    /// Worth knowing; the same before and after.
    Note,
}

impl Severity {
    /// The word for the severity.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Unsafe => "unsafe",
            Severity::Change => "change",
            Severity::Unseen => "unseen",
            Severity::Note => "note",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Subject {
    /// A source of Calico's objects.
    Datastore(String),
    /// The speaker behind a control socket.
    Speaker(String),
    /// A session, by name.
    Session(String),
    /// An announced prefix.
    Prefix(Prefix),
    /// A kernel route.
    Route(Prefix),
    /// Anything else on this host.
    Host(String),
}

/// `session Mesh_10_0_0_2`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Datastore(name) => write!(f, "datastore {name}"),
            Subject::Speaker(name) => write!(f, "speaker {name}"),
            Subject::Session(name) => write!(f, "session {name}"),
            Subject::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Subject::Route(prefix) => write!(f, "route {prefix}"),
            Subject::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// The object that it follows from, such as `BGPPeer/tor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What was found, and what would change.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// `change session Mesh_10_0_0_2 (Node/b): what: do: what to do`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6} {}", self.severity.word(), self.subject)?;
        if let Some(object) = &self.object {
            write!(f, " ({object})")?;
        }
        write!(f, ": {}; do: {}", self.text, self.remedy)
    }
}

/// How much was compared: without it, a report without findings says little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Sessions, of the plan and of the speaker.
    pub sessions: usize,
    /// Announced prefixes, each counted once per group of sessions.
    pub prefixes: usize,
    /// Our routes in the kernel, today's and those that would be written.
    pub routes: usize,
}

/// The result of an examination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name of the node; `None`: it is not known.
    pub node: Option<String>,
    /// The Calico release that the plan is for, and how it was determined.
    pub release: Option<String>,
    /// The BGP speakers on the node, one line per control socket that answers.
    pub in_charge: Vec<String>,
    /// How much was compared.
    pub compared: Compared,
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
}

/// The conclusion from all findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing changes.
    Unchanged,
    /// There are changes, or something could not be examined.
    Changes,
    /// Something is unsafe.
    Unsafe,
}

impl Report {
    /// The conclusion from its findings.
    pub fn verdict(&self) -> Verdict {
        let has = |severity| self.findings.iter().any(|finding| finding.severity == severity);
        if has(Severity::Unsafe) {
            Verdict::Unsafe
        } else if has(Severity::Change) || has(Severity::Unseen) {
            Verdict::Changes
        } else {
            Verdict::Unchanged
        }
    }

    /// The number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding. `object` may be empty.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        subject: Subject,
        object: &str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let object = (!object.is_empty()).then(|| object.to_owned());
        let (text, remedy) = (text.into(), remedy.into());
        self.0.push(Finding { severity, subject, object, text, remedy });
    }

    /// The findings in order, without duplicates.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
