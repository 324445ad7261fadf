//! The part of `show status` about a Calico node's objects.

use crate::calico::Problem;
use crate::ctl::item;
use crate::datastore::{Followed, State};
use crate::node::{FollowerLiveness, NodeStatus, SourceStatus};

/// Most problems and most notes that are listed; further ones are only counted.
const PROBLEMS_MAX: usize = 1000;

/// Sources, problems and notes; `contested` are the problems that the table knows, `parting` names the sessions that stay up only for a while.
pub(super) fn describe(
    status: &NodeStatus,
    liveness: Option<&FollowerLiveness>,
    parting: &[String],
    contested: Vec<Problem>,
) -> item::Calico {
    let followed =
        |source: &SourceStatus| liveness.map(|v| v.followed(&source.name)).unwrap_or_default();
    let problems = |list: &[Problem]| list.iter().take(PROBLEMS_MAX).map(problem).collect();
    item::Calico {
        node: status.node.clone(),
        sources: status.sources.iter().map(|each| source(each, followed(each))).collect(),
        problems_count: u32::try_from(status.problems.len() + contested.len()).unwrap_or(u32::MAX),
        problems: problems(&[&status.problems[..], &contested].concat()),
        release: status.release.clone(),
        notes: problems(&status.notes),
        notes_count: u32::try_from(status.notes.len()).unwrap_or(u32::MAX),
        parting: parting.to_vec(),
    }
}

fn source(source: &SourceStatus, followed: Followed) -> item::CalicoSource {
    let shown = item::CalicoSource {
        name: source.name.clone(),
        listed: source.listed,
        revision: followed.taken,
        heard_seconds: followed.heard.map(|heard| heard.elapsed().as_secs()),
        ..item::CalicoSource::default()
    };
    match &source.state {
        State::Connecting => item::CalicoSource { state: "connecting".into(), ..shown },
        State::Current => item::CalicoSource { state: "current".into(), ..shown },
        State::Away { since, reason } => item::CalicoSource {
            state: "away".into(),
            away_seconds: Some(since.elapsed().as_secs()),
            error: Some(reason.to_string()),
            ..shown
        },
    }
}

fn problem(problem: &Problem) -> item::CalicoProblem {
    item::CalicoProblem { object: problem.object.clone(), text: problem.text.clone() }
}
