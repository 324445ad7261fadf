//! `show bmp`.

use super::table::{Align, Cell, clean};
use crate::ctl::item::Station;

use Align::{Left, Right};

pub(super) const COLUMNS: [(&str, Align); 9] = [
    ("STATION", Left),
    ("ADDRESS", Left),
    ("STATE", Left),
    ("FOR", Right),
    ("SENDS", Left),
    ("OCTETS", Right),
    ("HELD", Right),
    ("TOO SLOW", Right),
    ("LAST ERROR", Left),
];

pub(super) fn row(station: &Station) -> Vec<Cell> {
    let whose = station.peers.as_ref().map(|peers| format!(" of {}", peers.join(", ")));
    let mirrored = station.mirror.as_ref().map(|what| format!(", mirrored {what}"));
    let held: u64 = station.tables.iter().map(|table| table.held_octets).sum();
    vec![
        clean(&station.name).into(),
        format!("{} {}", station.mode, station.address).into(),
        station.state.clone().into(),
        super::look::age(station.state_seconds).into(),
        clean(&format!(
            "{}{}{}",
            station.ribs.join(", "),
            mirrored.unwrap_or_default(),
            whose.unwrap_or_default()
        ))
        .into(),
        station.sent_octets.to_string().into(),
        held.to_string().into(),
        station.too_slow.to_string().into(),
        clean(station.last_error.as_deref().unwrap_or("-")).into(),
    ]
}
