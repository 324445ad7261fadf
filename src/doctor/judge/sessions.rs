//! Compares the sessions of today with those of the plan.

use bgp_proto::types::Family;

use super::super::bird::Protocol;
use super::super::facts::{Speaker, Wanted};
use super::super::files::SESSIONS;
use super::super::finding::{Findings, Severity, Subject};
use crate::calico::plan::{PlannedSession, Session};

/// Compares the sessions of a family. Returns how many were compared: those on either side.
pub(super) fn judge(
    wanted: &Wanted,
    family: Family,
    speaker: &Speaker,
    out: &mut Findings,
) -> usize {
    let planned = &wanted.plan.families.get(family).sessions;
    let today = speaker.by_name();
    for session in planned.iter() {
        let today = today.get(&*session.session.name).copied();
        judge_one(wanted, session, today, speaker, out);
    }
    // The sessions of a plan are sorted by name.
    let is_planned = |name: &str| planned.binary_search_by(|p| (*p.session.name).cmp(name)).is_ok();
    let others = speaker.protocols.iter().filter(|protocol| {
        protocol.kind == "BGP" && is_calicos(&protocol.name) && !is_planned(&protocol.name)
    });
    let mut count = planned.len();
    for protocol in others {
        count += 1;
        let state = if protocol.is_established() { "is up" } else { "is there" };
        out.add(
            Severity::Change,
            Subject::Session(protocol.name.clone()),
            "",
            format!(
                "{state} today with {}, and no object asks for it: it ends",
                neighbor(protocol)
            ),
            "write a BGPPeer for the neighbour, or let it end",
        );
    }
    count
}

fn neighbor(protocol: &Protocol) -> String {
    let address = protocol.neighbor.map_or_else(|| "a neighbour".to_owned(), |a| a.to_string());
    match protocol.remote_asn {
        Some(asn) => format!("{address} AS {asn}"),
        None => address,
    }
}

fn judge_one(
    wanted: &Wanted,
    planned: &PlannedSession,
    today: Option<&Protocol>,
    speaker: &Speaker,
    out: &mut Findings,
) {
    let session: &Session = &planned.session;
    let object: &str = &session.object;
    let subject = || Subject::Session(session.name.to_string());
    if session.lacks_key() {
        let secret = session.password.as_ref();
        let secret = secret
            .map_or_else(String::new, |p| format!("key \"{}\" of Secret {}", p.key, p.secret));
        out.add(
            Severity::Unsafe,
            subject(),
            object,
            format!("its MD5 key cannot be read ({secret}): margay does not run it without"),
            "create the Secret, or grant list and watch of it to this account by its name",
        );
        return;
    }
    let name = format!("session/{}", session.name);
    if !wanted.running.contains(&session.name) {
        let up = today.is_some_and(Protocol::is_established);
        let why = wanted.idle.iter().find(|problem| problem.object == name);
        let why = match (&planned.shadowed_by, why) {
            (Some(holder), _) => format!("{holder} has the same neighbour"),
            (None, Some(problem)) => problem.text.clone(),
            (None, None) => "margay does not run it".to_owned(),
        };
        if up {
            let remedy = "leave one BGPPeer for the neighbour's address";
            out.add(
                Severity::Change,
                subject(),
                object,
                format!("it is up today and ends: {why}"),
                remedy,
            );
        }
        return;
    }
    let Some(today) = today else {
        let text = format!("is new with {} AS {}", session.neighbor, session.remote_asn);
        let remedy = "let confd write it first (is confd running?), or accept the new session";
        out.add(Severity::Change, subject(), object, text, remedy);
        return;
    };
    for difference in differences(session, today) {
        let remedy = "correct the object, or accept that the session begins anew with other values";
        out.add(Severity::Change, subject(), object, difference, remedy);
    }
    judge_state(session, today, speaker, out);
}

/// The parameters of a session that differ, among those that BIRD shows.
fn differences(session: &Session, today: &Protocol) -> Vec<String> {
    let mut found = Vec::new();
    if today.neighbor.is_some_and(|address| address != session.neighbor) {
        found.push(format!(
            "its neighbour is {} today and becomes {}",
            neighbor(today),
            session.neighbor
        ));
    }
    if let Some(asn) = today.remote_asn.filter(|asn| *asn != session.remote_asn) {
        found.push(format!("the neighbour's AS is {asn} today and becomes {}", session.remote_asn));
    }
    if !today.is_established() {
        return found;
    }
    if let (Some(now), Some(then)) = (today.source, session.source_address)
        && now != then
    {
        found.push(format!("our address is {now} today and becomes {then}"));
    }
    let word = |internal: bool| if internal { "internal" } else { "external" };
    if today.is_internal() != session.internal {
        let (now, then) = (word(today.is_internal()), word(session.internal));
        found.push(format!("it is {now} today and becomes {then}"));
    }
    if today.is_client() != session.route_reflector_client {
        let client = |is: bool| if is { "a client of ours" } else { "no client of ours" };
        let (now, then) = (client(today.is_client()), client(session.route_reflector_client));
        found.push(format!("the neighbour is {now} today and becomes {then}"));
    }
    found
}

/// Checks the session's state, and whether the neighbour keeps our routes while margay takes over.
fn judge_state(session: &Session, today: &Protocol, speaker: &Speaker, out: &mut Findings) {
    let subject = || Subject::Session(session.name.to_string());
    let object: &str = &session.object;
    if !today.is_established() {
        let state = if today.state.is_empty() { "disabled" } else { &today.state };
        let error = today.error.as_ref().map(|e| format!(", {e}")).unwrap_or_default();
        let text = format!("is {state} today{error}: the change takes nothing from it");
        let remedy = "nothing for the change; look at the neighbour if it should be up";
        out.add(Severity::Note, subject(), object, text, remedy);
        return;
    }
    let keeps = ["restart-able", "restart-aware"];
    if !speaker.status.is_recovering && !keeps.iter().any(|w| today.capabilities.contains(*w)) {
        out.add(
            Severity::Unsafe,
            subject(),
            object,
            "the neighbour does not keep our routes over a restart (RFC 4724): it withdraws this \
             node's pods and services until the session is up again",
            "turn graceful restart on at the neighbour, or move its traffic away first",
        );
    }
}

/// Whether confd's templates give sessions names like this.
fn is_calicos(name: &str) -> bool {
    SESSIONS.iter().any(|prefix| name.starts_with(prefix))
}

/// Reports protocols that none of confd's templates contains.
pub(super) fn strangers(speaker: &Speaker, out: &mut Findings) {
    if speaker.is_margay() {
        return;
    }
    for protocol in &speaker.protocols {
        let is_known = match protocol.kind.as_str() {
            "BGP" => is_calicos(&protocol.name),
            "Static" | "Kernel" | "Device" | "Direct" => {
                protocol.name == format!("{}1", protocol.kind.to_lowercase())
            }
            _ => false,
        };
        if !is_known {
            out.add(
                Severity::Unsafe,
                Subject::Session(protocol.name.clone()),
                "",
                format!(
                    "BIRD runs it ({}), and no template of Calico's writes it: its configuration was \
                     edited by hand, and margay does not have it",
                    protocol.kind
                ),
                "say the same by a BGPPeer, BGPFilter or BGPConfiguration, and take it out of BIRD's \
                 configuration",
            );
        }
    }
}
