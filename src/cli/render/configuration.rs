//! `margay reload` and `margay show config`.

use std::fmt::Write as _;

use super::clean;
use crate::ctl::item::{
    AttributeChange, Forecasted, RehearsedRoute, RehearsedRoutes, Reloaded, Section, Setting,
    UnconfirmedReload,
};

/// What changed, or would change.
pub(in crate::cli) fn reloaded(r: &Reloaded) -> String {
    let mut out = r.forecast.as_ref().map_or(String::new(), plan);
    if r.changes.is_empty() {
        out += if r.dry_run { "nothing would change\n" } else { "nothing changed\n" };
    }
    for change in &r.changes {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", clean(change));
    }
    if let Some(seconds) = r.undone_in {
        let _ = writeln!(out, "undone in {seconds} s unless margay confirm comes first");
        for what in &r.not_undone {
            let _ = writeln!(out, "an undo does not bring back: {}", clean(what));
        }
    }
    if !r.dry_run {
        return out;
    }
    for s in &r.sessions {
        let state = s.state.as_deref().unwrap_or("not running");
        let (name, what) = (clean(&s.peer), clean(&s.what));
        let (received, advertised) = (s.prefixes_received, s.prefixes_advertised);
        let object = s.object.as_ref().map_or(String::new(), |o| format!(" ({})", clean(o)));
        if r.forecast.as_ref().is_some_and(|forecast| forecast.why_no_routes.is_some()) {
            // No daemon was asked.
            let _ = writeln!(out, "session {name} {what}");
            continue;
        }
        let _ = writeln!(
            out,
            "session {name}{object} {what}: {state}, {received} prefixes received, {advertised} \
             advertised"
        );
    }
    out += &r.routes.as_ref().map_or(String::new(), rehearsed);
    out += &r.forecast.as_ref().map_or(String::new(), reservations);
    out += "dry run: nothing was changed\n";
    out
}

/// The changed objects, and how the plan would differ.
fn plan(forecast: &Forecasted) -> String {
    let mut out = String::new();
    if !forecast.objects.is_empty() {
        let objects: Vec<String> = forecast.objects.iter().map(|line| clean(line)).collect();
        let _ = writeln!(out, "change: {}", objects.join(", "));
    }
    for difference in &forecast.plan {
        let _ = writeln!(out, "plan: {}", clean(&difference.line));
    }
    if forecast.plan_more > 0 {
        let _ = writeln!(out, "plan: and {} more", forecast.plan_more);
    }
    out
}

/// Why a forecast may be off.
fn reservations(forecast: &Forecasted) -> String {
    let mut out = String::new();
    for source in &forecast.sources_unavailable {
        let _ =
            writeln!(out, "cannot be read, its last known objects were used: {}", clean(source));
    }
    if forecast.changed_meanwhile {
        out += "objects changed meanwhile: what is printed may be what follows from both changes\n";
    }
    if let Some(why) = &forecast.why_no_routes {
        let _ = writeln!(out, "routes of peers: not evaluated: {}", clean(why));
    }
    out
}

/// A reload that is to be confirmed, or was undone.
pub(in crate::cli) fn unconfirmed(r: &UnconfirmedReload) -> String {
    let (at, left) = (clean(&r.at), r.seconds_left);
    if r.undone {
        return format!(
            "undone at {at}, as it was not confirmed: the file is not in force; correct it, then \
             margay reload"
        );
    }
    if let Some(fault) = &r.fault {
        let fault = clean(&fault.replace('\n', "; "));
        return format!(
            "not confirmed by {at}, cannot be undone: {fault} (tried again; margay confirm keeps it)"
        );
    }
    format!("undone at {at} (in {left} s) unless margay confirm comes first")
}

/// The routes that would be sent differently.
fn rehearsed(routes: &RehearsedRoutes) -> String {
    let mut out = String::new();
    for p in &routes.peers {
        let name = clean(&p.peer);
        let sent = [
            (p.announced, "announced"),
            (p.changed, "sent with other attributes"),
            (p.withdrawn, "withdrawn"),
        ];
        if let Some(counts) = counted(&sent) {
            let _ = writeln!(out, "routes to {name}: {counts}");
        }
        p.routes.iter().for_each(|route| out += &rehearsed_route(route));
        let more = (p.announced + p.changed + p.withdrawn).saturating_sub(p.routes.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more: --all prints up to 20000");
        }
        let imported = [
            (p.import_accepted, "accepted that were rejected"),
            (p.import_changed, "accepted with other attributes"),
            (p.import_rejected, "rejected that were accepted"),
        ];
        if let Some(counts) = counted(&imported) {
            let _ = writeln!(out, "routes from {name}: {counts}");
        }
    }
    let hops: Vec<String> = routes.assumed_next_hops.iter().map(ToString::to_string).collect();
    let notes = [
        (routes.held_back, "announcements are held back: all routes count as announced".to_owned()),
        (routes.changed_meanwhile, "routes changed meanwhile: the counts may be off".to_owned()),
        (!hops.is_empty(), format!("counted as reachable, but not known: {}", hops.join(", "))),
        (!routes.not_counted.is_empty(), format!("not counted: {}", routes.not_counted.join(", "))),
    ];
    for (_, note) in notes.iter().filter(|(is, _)| *is) {
        let _ = writeln!(out, "{}", clean(note));
    }
    out
}

/// The counts that are not 0.
fn counted(counts: &[(u64, &str)]) -> Option<String> {
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let texts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn rehearsed_route(route: &RehearsedRoute) -> String {
    let mark = match route.what.as_str() {
        "announced" => '+',
        "withdrawn" => '-',
        _ => '~',
    };
    let prefix = route.prefix.map_or(String::new(), |prefix| prefix.to_string());
    let path = route.path_id.map_or(String::new(), |id| format!(" path {id}"));
    let why = route.why.as_deref().map_or(String::new(), |why| format!(" {}", clean(why)));
    let changes: String = route.attributes.iter().map(attribute).collect();
    format!("  {mark} {prefix}{path}{why}{changes}\n")
}

/// An attribute with its value before and after, preceded by a space.
pub(super) fn attribute(change: &AttributeChange) -> String {
    let value = |value: &Option<String>| match value.as_deref() {
        None => "none".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => clean(text),
    };
    let name = clean(&change.attribute);
    match &change.before {
        None => format!(" {name} {};", value(&change.after)),
        before => format!(" {name} {} -> {};", value(before), value(&change.after)),
    }
}

/// A table as in the file. Keys without a value, and secrets, are comments.
pub(super) fn section(s: &Section) -> String {
    let header = if s.is_list { format!("[[{}]]", s.table) } else { format!("[{}]", s.table) };
    let mut out = format!("{}\n", clean(&header));
    for setting in &s.settings {
        out += &line(setting);
    }
    out.push('\n');
    out
}

fn line(s: &Setting) -> String {
    let mark = if s.default { "  # default" } else { "" };
    let key = clean(&s.key);
    match s.value.as_deref() {
        // Not a key of this table, or not a value of TOML.
        Some(value) if key.contains([' ', '.']) || value.starts_with('(') => {
            format!("# {key}: {}{}\n", clean(value), mark.replace("  #", ","))
        }
        Some(value) => format!("{key} = {}{mark}\n", clean(value)),
        None => format!("# {key}: none{}\n", mark.replace("  #", ",")),
    }
}
