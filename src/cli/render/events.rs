//! `margay events`, and the events in `show peer`.

use super::{Look, clean};
use crate::ctl::item::Event;

/// Width of the column with the name. The names of most events are shorter.
const NAME_WIDTH: usize = 18;

/// One line: local time, level, name, peer, text. Lines are printed as events occur, so that the
/// columns have fixed widths.
pub(super) fn event(e: &Event, look: &Look) -> String {
    let peer = e.peer.as_ref().map(|peer| format!("{}: ", clean(peer))).unwrap_or_default();
    let (level, name, details) = (clean(&e.level), clean(&e.event), details(e));
    let text = clean(&e.text);
    format!("{} {level:<5} {name:<NAME_WIDTH$} {peer}{text}{details}\n", at(e, look))
}

/// As [`event`], without the peer.
pub(super) fn event_of_peer(e: &Event, look: &Look) -> String {
    format!("{} {}: {}{}", at(e, look), clean(&e.event), clean(&e.text), details(e))
}

fn at(e: &Event, look: &Look) -> String {
    clean(&look.time_of(&e.at))
}

/// Prefix, object and reason, if the text does not contain them.
fn details(e: &Event) -> String {
    let shown = [("prefix", &e.prefix), ("object", &e.object), ("reason", &e.reason)];
    let shown = shown.into_iter().filter_map(|(name, value)| {
        let value = value.as_ref().filter(|value| !e.text.contains(value.as_str()))?;
        Some(format!(" {name}={}", clean(value)))
    });
    shown.collect()
}
