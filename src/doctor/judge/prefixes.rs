//! Compares today's announcements with those that the plan's policies allow.
//!
//! Sessions with the same export policy are sent the same routes, apart from those received from
//! them. One established session is examined for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bgp_proto::policy::Source;
use bgp_proto::types::{Family, Prefix};

use super::super::bird::Protocol;
use super::super::facts::{ByName, Speaker, Wanted};
use super::super::finding::{Findings, Severity, Subject};
use super::paths::{Candidate, Paths};
use crate::calico::decide::Direction;
use crate::calico::plan::{PlannedSession, Session};

/// Maximum number of groups examined per family.
pub(in crate::doctor) const GROUPS_MAX: usize = 16;
/// Communities that restrict advertisement (RFC 1997): no-advertise and, for other ASes, no-export
/// and no-export-subconfed.
const NO_ADVERTISE: &str = "65535:65282";
const NO_EXPORT: [&str; 2] = ["65535:65281", "65535:65283"];

/// Sessions that are sent the same routes.
#[derive(Clone, Debug)]
pub(in crate::doctor) struct Group<'a> {
    /// One that is established.
    pub(in crate::doctor) session: &'a PlannedSession,
    /// The number of established sessions.
    members: usize,
}

/// The groups of a family's established sessions.
pub(in crate::doctor) fn groups<'a>(
    wanted: &'a Wanted,
    family: Family,
    protocols: &[Protocol],
) -> Vec<Group<'a>> {
    let up: BTreeSet<&str> =
        protocols.iter().filter(|p| p.is_established()).map(|p| p.name.as_str()).collect();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for planned in wanted.plan.families.get(family).sessions.iter() {
        let session = &planned.session;
        if !up.contains(&*session.name) || !wanted.running.contains(&session.name) {
            continue;
        }
        let key = |s: &Session| (s.internal, s.route_reflector_client, s.local_asn);
        let same = groups.iter_mut().find(|group| {
            let other = group.session;
            key(&other.session) == key(session)
                && (Arc::ptr_eq(&other.export, &planned.export) || other.export == planned.export)
        });
        match same {
            Some(group) => group.members += 1,
            None => groups.push(Group { session: planned, members: 1 }),
        }
    }
    groups
}

/// Whether a prefix is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Announced {
    Yes,
    /// No, with the reason: the rule that rejects the best path, or that there is no path.
    No(String),
    /// Its next hop is the neighbour itself: some implementations announce it back, some do not.
    Either,
}

/// Compares the announced prefixes. Returns how many were compared: those on either side.
pub(super) fn judge(
    paths: &Paths<'_>,
    wanted: &Wanted,
    family: Family,
    speaker: &Speaker,
    out: &mut Findings,
) -> usize {
    let protocols = speaker.by_name();
    let mut count = 0;
    let mut unasked = 0;
    for group in groups(wanted, family, &speaker.protocols) {
        let name = &*group.session.session.name;
        let today = match speaker.exported.get(name) {
            None => {
                unasked += 1;
                continue;
            }
            Some(Err(why)) => {
                let text = format!("what is announced to it is not known: {why}");
                let remedy = format!("compare birdcl show route export {name} by hand");
                out.add(Severity::Unseen, Subject::Session(name.to_owned()), "", text, remedy);
                continue;
            }
            Some(Ok(today)) => today,
        };
        let all: BTreeSet<Prefix> = paths.prefixes().chain(today.iter().copied()).collect();
        for prefix in all {
            let then = announced(paths, &protocols, group.session, prefix);
            let is_today = today.contains(&prefix);
            count += usize::from(is_today || then == Announced::Yes);
            difference(wanted, &group, prefix, is_today, &then, out);
        }
    }
    if unasked > 0 {
        let text = format!(
            "{family}: of sessions with {unasked} further export policies it was not asked what is \
             announced: there are more than {GROUPS_MAX}"
        );
        let remedy = "compare birdcl show route export of these sessions by hand";
        out.add(Severity::Unseen, Subject::Speaker("announcements".into()), "", text, remedy);
    }
    count
}

fn difference(
    wanted: &Wanted,
    group: &Group<'_>,
    prefix: Prefix,
    is_today: bool,
    then: &Announced,
    out: &mut Findings,
) {
    let to = match group.members {
        1 => group.session.session.name.to_string(),
        members => format!("{} and {} sessions like it", group.session.session.name, members - 1),
    };
    let (text, remedy) = match (is_today, then) {
        (true, Announced::No(rule)) => (
            format!("is announced to {to} today, and would be withdrawn: {rule}"),
            "see the rule in margay calico plan --live; if the neighbour needs the prefix, allow it \
             by a BGPFilter",
        ),
        (false, Announced::Yes) => (
            format!("is not announced to {to} today, and would be"),
            "see whether confd is behind (sv status confd, its log); if the neighbour must not hear \
             it, refuse it by a BGPFilter",
        ),
        _ => return,
    };
    let object = wanted.plan.reasons.get(&prefix).map_or("", String::as_str);
    out.add(Severity::Change, Subject::Prefix(prefix), object, text, remedy);
}

fn announced(
    paths: &Paths<'_>,
    protocols: &ByName<'_>,
    to: &PlannedSession,
    prefix: Prefix,
) -> Announced {
    let session = &to.session;
    let today = protocols.get(&*session.name);
    let tells_all = today.is_some_and(|p| p.session.contains("add-path-tx"));
    let mut refused = None;
    let mut is_either = false;
    let candidates = paths.to(prefix);
    let told = if tells_all { candidates.len() } else { 1 };
    for candidate in candidates.iter().take(told) {
        if let Err(why) = may_be_told(candidate, protocols, session) {
            refused.get_or_insert_with(|| why.to_owned());
            continue;
        }
        match paths.ask(candidate, Direction::Export, Some(&session.name)) {
            Some(answer) if answer.decision == "accept" => {
                let is_theirs = answer.route.next_hop == Some(session.neighbor);
                if !is_theirs {
                    return Announced::Yes;
                }
                is_either = true;
            }
            Some(answer) => drop(refused.get_or_insert(answer.rule)),
            None => {}
        }
    }
    match (is_either, refused) {
        (true, _) => Announced::Either,
        (false, refused) => {
            Announced::No(refused.unwrap_or_else(|| "there is no path to it".to_owned()))
        }
    }
}

/// Applies BGP's own rules for advertisement, before any policy.
fn may_be_told(
    candidate: &Candidate<'_>,
    protocols: &ByName<'_>,
    to: &Session,
) -> Result<(), &'static str> {
    let Some(path) = candidate.path.filter(|_| candidate.source == Source::Bgp) else {
        return Ok(());
    };
    if path.protocol == *to.name {
        return Err("it came from there");
    }
    let has = |community: &str| path.communities.iter().any(|c| c == community);
    if has(NO_ADVERTISE) || !to.internal && NO_EXPORT.iter().any(|community| has(community)) {
        return Err("a community keeps it here");
    }
    let from = protocols.get(path.protocol.as_str()).copied();
    let is_from_inside = from.is_some_and(Protocol::is_internal);
    let is_reflected = to.route_reflector_client || from.is_some_and(Protocol::is_client);
    if is_from_inside && to.internal && !is_reflected {
        return Err("iBGP to iBGP without reflection");
    }
    Ok(())
}
