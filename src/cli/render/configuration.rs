//! `margay reload` and `margay show config`.

use std::fmt::Write as _;

use super::clean;
use crate::ctl::item::{Reloaded, Section, Setting};

/// What changed, or would change.
pub(super) fn reloaded(r: &Reloaded) -> String {
    let mut out = String::new();
    if r.changes.is_empty() {
        out += if r.dry_run { "nothing would change\n" } else { "nothing changed\n" };
    }
    for change in &r.changes {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", clean(change));
    }
    if !r.dry_run {
        return out;
    }
    for s in &r.sessions {
        let state = s.state.as_deref().unwrap_or("not running");
        let (name, what) = (clean(&s.peer), clean(&s.what));
        let (received, advertised) = (s.prefixes_received, s.prefixes_advertised);
        let _ = writeln!(
            out,
            "session {name} {what}: {state}, {received} prefixes received, {advertised} advertised"
        );
    }
    out += "dry run: nothing was changed\n";
    out
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
