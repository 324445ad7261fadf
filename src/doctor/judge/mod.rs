//! Derives findings from facts. Pure: the same facts give the same findings.

mod host;
mod objects;
mod paths;
pub(super) mod prefixes;
mod routes;
mod sessions;
#[cfg(test)]
mod tests;

use bgp_proto::types::Family;

use super::facts::{Facts, Speaker, Wanted};
use super::finding::{Compared, Findings, Report, Severity, Subject};
use paths::Paths;

/// Evaluates the facts.
pub(super) fn judge(facts: &Facts) -> Report {
    let mut out = Findings::default();
    let mut compared = Compared::default();
    objects::judge(facts, &mut out);
    host::judge(facts, &mut out);
    for family in Family::ALL {
        seat(facts, family, &mut out);
        let Some(speaker) = facts.speaker(family) else { continue };
        sessions::strangers(speaker, &mut out);
        let Some(wanted) = plan_of(facts) else { continue };
        compared.sessions += sessions::judge(wanted, family, speaker, &mut out);
        let paths = Paths::new(facts, wanted, family, speaker);
        compared.prefixes += prefixes::judge(&paths, wanted, family, speaker, &mut out);
        compared.routes += routes::judge(facts, &paths, wanted, family, &mut out);
    }
    Report {
        node: facts.node.clone(),
        release: plan_of(facts).map(|wanted| wanted.plan.release.to_string()),
        in_charge: in_charge(facts),
        compared,
        findings: out.into_sorted(),
    }
}

/// The plan, if it is complete enough to be applied.
fn plan_of(facts: &Facts) -> Option<&Wanted> {
    facts.objects.plan.as_ref().filter(|wanted| wanted.plan.is_complete)
}

fn in_charge(facts: &Facts) -> Vec<String> {
    let seats = facts.speakers.iter().filter_map(|seat| {
        let speaker = seat.speaker.as_ref().ok()?;
        let process = speaker.process.as_ref();
        let who = process.map_or_else(|| "a process that is not seen".to_owned(), |p| p.describe());
        let version = &speaker.status.version;
        let bgp = speaker.protocols.iter().filter(|protocol| protocol.kind == "BGP");
        let (all, up) =
            bgp.fold((0, 0), |(all, up), p| (all + 1, up + usize::from(p.is_established())));
        let path = seat.path.display();
        Some(format!("{} {who}, BIRD {version} at {path}: {up} of {all} sessions up", seat.family))
    });
    seats.collect()
}

/// Checks that a speaker answers for a family, with a version that is understood.
fn seat(facts: &Facts, family: Family, out: &mut Findings) {
    let Some(seat) = facts.speakers.iter().find(|seat| seat.family == family) else { return };
    let subject = || Subject::Speaker(seat.path.display().to_string());
    let service = if family == Family::Ipv4 { "bird" } else { "bird6" };
    match &seat.speaker {
        Err(why) => {
            // Not known without a plan.
            let has_sessions = match &facts.objects.plan {
                Some(wanted) if !wanted.plan.speaks_bgp => Some(false),
                _ => plan_of(facts)
                    .map(|wanted| !wanted.plan.families.get(family).sessions.is_empty()),
            };
            let (severity, remedy) = match (has_sessions, family) {
                (Some(true), _) | (None, Family::Ipv4) => (
                    Severity::Unsafe,
                    format!(
                        "start BIRD (sv up {service}) or margay, and run this as root in \
                         calico-node's container"
                    ),
                ),
                (None, Family::Ipv6) => (
                    Severity::Unseen,
                    format!("start {service} (sv up {service}) if it should run"),
                ),
                (Some(false), _) => {
                    (Severity::Note, format!("nothing: the node has no {family} sessions"))
                }
            };
            let text = format!("{family}: nobody can be asked what runs today: {why}");
            out.add(severity, subject(), "", text, remedy);
        }
        Ok(Speaker { status, .. }) => {
            if !status.version.contains("1.6") {
                let text = format!(
                    "{family}: BIRD {} answers, and only 1.6 is understood: what was compared may \
                     be incomplete",
                    status.version
                );
                let remedy = "compare by hand: birdcl show protocols, birdcl show route, and \
                              margay calico plan --live";
                out.add(Severity::Unsafe, subject(), "", text, remedy);
            }
            if status.is_recovering {
                let text = format!("{family}: it waits for neighbours to send their routes again");
                let remedy = "run this again when birdcl show status does not say recovery";
                out.add(Severity::Unseen, subject(), "", text, remedy);
            }
        }
    }
}
