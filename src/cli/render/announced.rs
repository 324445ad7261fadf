//! `margay announce`, `withdraw` and `show announced`.

use super::look::{Look, age};
use super::table::{Align, Cell};
use super::{Left, Right, clean, text};
use crate::ctl::item::Announced;

pub(super) const COLUMNS: [(&str, Align); 8] = [
    ("PREFIX", Left),
    ("VRF", Left),
    ("NEXT HOP", Left),
    ("PREF", Right),
    ("MED", Right),
    ("SINCE", Left),
    ("TIME LEFT", Right),
    ("COMMUNITIES", Left),
];

pub(super) fn row(announced: &Announced, look: &Look) -> Vec<Cell> {
    let Announced { prefix, vrf, since, seconds_left, next_hop, .. } = announced;
    vec![
        prefix.to_string().into(),
        text(vrf).into(),
        next_hop.map_or("self".to_owned(), |hop| hop.to_string()).into(),
        text(&announced.local_pref).into(),
        text(&announced.med).into(),
        look.time_of(since).into(),
        seconds_left.map_or("-".to_owned(), age).into(),
        announced.communities.join(" ").into(),
    ]
}

/// What a command did.
pub(super) fn done(announced: &Announced) -> String {
    let Announced { prefix, vrf, effect, seconds_left, .. } = announced;
    let vrf = vrf.as_ref().map(|vrf| format!(" in VRF {}", clean(vrf))).unwrap_or_default();
    let lasts = match (effect.as_deref(), seconds_left) {
        (Some("withdrawn"), _) => return format!("{prefix}{vrf} is withdrawn\n"),
        (_, Some(left)) => format!("for {}", age(*left)),
        (_, None) => "until it is withdrawn or the daemon ends".to_owned(),
    };
    let anew = if effect.as_deref() == Some("replaced") { " anew" } else { "" };
    format!("{prefix}{vrf} is announced{anew}, {lasts}\n")
}
