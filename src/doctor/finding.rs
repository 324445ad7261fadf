//! What the doctor says: findings, and what all of them come to.

use std::fmt;

use bgp_proto::types::Prefix;
use serde::Serialize;

/// How much a finding weighs; the heaviest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Not to be done as it is: routes or sessions would be lost, or it cannot be told whether.
    Unsafe,
    /// It will be different with margay.
    Change,
    /// Something could not be looked at. It may hide a change.
    Unseen,
    /// Worth knowing; the same before and after.
    Note,
}

impl Severity {
    /// The word for it.
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
    /// Where Calico's objects are.
    Datastore(String),
    /// Who answers at a control socket.
    Speaker(String),
    /// A session, by name.
    Session(String),
    /// A prefix that is announced.
    Prefix(Prefix),
    /// A route in the kernel.
    Route(Prefix),
    /// Anything else of this machine.
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

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// The object that it comes from, such as `BGPPeer/tor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What is so, and what would be.
    pub text: String,
    /// What to do.
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

/// What was compared, for people: nothing found in nothing means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Sessions, of the plan and of the speaker.
    pub sessions: usize,
    /// Prefixes that are announced, each once for each group of sessions.
    pub prefixes: usize,
    /// Routes of ours in the kernel, as they are and as they would be.
    pub routes: usize,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The node; `None`: nothing names it.
    pub node: Option<String>,
    /// The release of Calico that the plan is for, and where that is known from.
    pub release: Option<String>,
    /// Who speaks BGP on the node, one line for each control socket that answers.
    pub in_charge: Vec<String>,
    /// What was compared.
    pub compared: Compared,
    /// What was found, the heaviest first.
    pub findings: Vec<Finding>,
}

/// What all findings come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing changes.
    Unchanged,
    /// Changes are listed, or something could not be looked at.
    Changes,
    /// Something is unsafe.
    Unsafe,
}

impl Report {
    /// What its findings come to.
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

    /// How many findings weigh so much.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Findings as they are gathered.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// One more. `object` may be empty.
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

    /// In order, each once.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
