//! The sources of objects: whether they can be read, and the problems of objects.

use super::super::facts::{Facts, Need};
use super::super::finding::{Findings, Severity, Subject};

pub(super) fn judge(facts: &Facts, out: &mut Findings) {
    let objects = &facts.objects;
    if let Err(why) = &objects.settings {
        let remedy = "run this in calico-node's container, whose variables say it, or give --config \
                      and --node";
        // A file may have several errors, one per line.
        let text = why.trim_end().replace('\n', "; ");
        out.add(Severity::Unsafe, Subject::Datastore("settings".into()), "", text, remedy);
    }
    for source in &objects.sources {
        let subject = || Subject::Datastore(source.name.clone());
        if let Err(why) = &source.objects {
            let (severity, text) = match source.need {
                Need::Plan => (
                    Severity::Unsafe,
                    format!(
                        "cannot be read: {why}: without it nothing can be said about sessions and routes"
                    ),
                ),
                Need::Part => (
                    Severity::Unsafe,
                    format!("cannot be read: {why}: objects ask for what is in it"),
                ),
                Need::Nothing => (Severity::Unseen, format!("cannot be read: {why}")),
            };
            let remedy = "see margay check --connect, and run this again when it succeeds";
            out.add(severity, subject(), "", text, remedy);
        }
        for problem in &source.problems {
            let remedy = "correct the object or the right; margay passes it over";
            out.add(Severity::Note, subject(), &problem.object, &problem.text, remedy);
        }
    }
    rights(facts, out);
    plan(facts, out);
}

fn rights(facts: &Facts, out: &mut Findings) {
    let subject = || Subject::Datastore("rights".into());
    match &facts.objects.rights {
        Err(why) => out.add(
            Severity::Unseen,
            subject(),
            "",
            format!("the API server cannot be asked which rights there are: {why}"),
            "compare the account's ClusterRole with margay's (docs/src/kubernetes-api.md)",
        ),
        Ok(lacking) => {
            for right in lacking {
                let text = if right.holds_up {
                    format!("{right} is not allowed: BGP does not begin without")
                } else {
                    format!("{right} is not allowed: what these objects say is not done")
                };
                let remedy = "grant it to this account, as the ClusterRole in docs/src/kubernetes-api.md does";
                out.add(Severity::Unsafe, subject(), "", text, remedy);
            }
        }
    }
}

fn plan(facts: &Facts, out: &mut Findings) {
    let Some(wanted) = &facts.objects.plan else { return };
    let plan = &wanted.plan;
    let subject = || Subject::Datastore("objects".into());
    if !plan.speaks_bgp {
        let text = "CALICO_NETWORKING_BACKEND says that this node speaks no BGP";
        let remedy = "nothing: margay run ends at once with success, as BIRD is not started either";
        return out.add(Severity::Note, subject(), "", text, remedy);
    }
    if let Some(stuck) = &plan.stuck {
        let text = format!("{stuck}: nothing can be said about sessions and routes");
        let remedy = "give --node or NODENAME the name of one of the cluster's nodes";
        out.add(Severity::Unsafe, subject(), "", text, remedy);
    }
    for doubt in &plan.doubts {
        let remedy = "name the release in MARGAY_CALICO_VERSION, or set programClusterRoutes as the \
                      line says";
        out.add(Severity::Unsafe, subject(), &doubt.object, &doubt.text, remedy);
    }
    for problem in plan.problems.iter().filter(|problem| !plan.doubts.contains(problem)) {
        let is_stuck = plan.stuck.as_ref().is_some_and(|stuck| stuck.ends_with(&problem.text));
        if !is_stuck {
            let remedy = "correct the object, or accept that margay passes it over";
            out.add(Severity::Note, subject(), &problem.object, &problem.text, remedy);
        }
    }
}
