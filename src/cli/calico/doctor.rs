//! Prints the doctor's report, as text or as JSON.

use std::io::{self, Write};

use serde_json::json;

use super::{Outcome, write_json};
use crate::doctor::{Compared, Report, Severity, Verdict};

/// Prints a report. Keys of the JSON may be added, but never renamed.
pub(super) fn write(report: &Report, json: bool, out: &mut impl Write) -> io::Result<Outcome> {
    let verdict = report.verdict();
    if json {
        let mut object = serde_json::to_value(report)?;
        object["verdict"] = json!(verdict);
        write_json(&object, out)?;
    } else {
        write_text(report, verdict, out)?
    }
    Ok(match verdict {
        Verdict::Unchanged => Outcome::Fine,
        Verdict::Changes => Outcome::Differs,
        Verdict::Unsafe => Outcome::Unsafe,
    })
}

fn write_text(report: &Report, verdict: Verdict, out: &mut impl Write) -> io::Result<()> {
    let node = report.node.as_deref().unwrap_or("of unknown name");
    match &report.release {
        Some(release) => writeln!(out, "node {node}, Calico {release}")?,
        None => writeln!(out, "node {node}, no plan")?,
    }
    for line in &report.in_charge {
        writeln!(out, "{line}")?;
    }
    let Compared { sessions, prefixes, routes } = report.compared;
    writeln!(
        out,
        "compared {sessions} sessions, {prefixes} announced prefixes, {routes} kernel routes"
    )?;
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let count = |severity| report.count(severity);
    match verdict {
        Verdict::Unchanged => writeln!(out, "go: nothing changes"),
        Verdict::Changes => writeln!(
            out,
            "go, if these are meant: {} changes, {} things that could not be looked at",
            count(Severity::Change),
            count(Severity::Unseen)
        ),
        Verdict::Unsafe => writeln!(
            out,
            "no go: {} unsafe, {} changes, {} things that could not be looked at",
            count(Severity::Unsafe),
            count(Severity::Change),
            count(Severity::Unseen)
        ),
    }
}
