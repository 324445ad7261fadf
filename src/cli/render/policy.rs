//! `margay show policy` and `margay policy test`.

use std::fmt::Write as _;

use super::clean;
use super::configuration::attribute;
use crate::ctl::item::{AttributeChange, PolicyHits, PolicyTest};

/// A policy with what its rules do to the routes in the table.
pub(super) fn hits(p: &PolicyHits) -> String {
    let peers: Vec<String> = p.peers.iter().map(|peer| clean(peer)).collect();
    let place = match (&*p.place, &*peers) {
        ("", _) => "not applied for any peer".to_owned(),
        (place, peers) if peers.len() <= 8 => format!("{} of {}", clean(place), peers.join(", ")),
        (place, peers) => format!("{} of {} peers", clean(place), peers.len()),
    };
    let mut out = format!("policy {}: {place}\n", clean(&p.policy));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:>5}  {:>9}  {:>9}  {:6}  NAME", "RULE", "MATCHED", "DECIDED", "THEN");
    for rule in &p.rules {
        let (then, name) = (clean(&rule.then), clean(&rule.name));
        let line = format!(
            "{:>5}  {:>9}  {:>9}  {then:6}  {name}",
            rule.number, rule.matched, rule.decided
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let default = clean(&p.default);
    let _ =
        writeln!(out, "{:>5}  {:>9}  {:>9}  {default}", "other", p.default_hits, p.default_hits);
    if p.unreached > 0 {
        let _ = writeln!(out, "refused or withheld before the policy: {}", p.unreached);
    }
    out
}

/// What a policy does to a route.
pub(super) fn test(t: &PolicyTest) -> String {
    let prefix = t.prefix.map_or(String::new(), |prefix| prefix.to_string());
    let from = t.from.as_deref().map_or(String::new(), |peer| format!(" from {}", clean(peer)));
    let to = t.to.as_deref().map_or(String::new(), |peer| format!(" to {}", clean(peer)));
    let result = match t.result.as_deref() {
        Some("accept") => "accepted by",
        Some(_) => "rejected by",
        None => "not reached:",
    };
    let mut out = format!("{prefix}{from}{to}: {result} {}\n", clean(&t.rule));
    for step in &t.steps {
        let _ = writeln!(out, "  applies: {}{}", clean(&step.rule), listed(&step.changes));
    }
    if t.result.as_deref() == Some("accept") {
        let changes = match &t.changes[..] {
            [] => " nothing".to_owned(),
            changes => listed(changes),
        };
        let _ = writeln!(out, "  changes in all:{changes}");
    }
    out
}

fn listed(changes: &[AttributeChange]) -> String {
    changes.iter().map(attribute).collect()
}
