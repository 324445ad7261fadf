//! `show nexthops`.

use super::routes::gateways;
use super::table::{Align, Cell, Paint, clean};
use super::{Left, Right, text};
use crate::ctl::item::{NextHop, Resolution};

pub(super) const COLUMNS: [(&str, Align); 7] = [
    ("ADDRESS", Left),
    ("STATE", Left),
    ("VIA", Left),
    ("METRIC", Right),
    ("PATHS", Right),
    ("PEER", Left),
    ("KERNEL ROUTE", Left),
];

pub(super) fn row(hop: &NextHop) -> Vec<Cell> {
    let paint = match hop.state {
        Resolution::Connected | Resolution::Recursive => Paint::Good,
        Resolution::DefaultRoute => Paint::Pending,
        Resolution::Local | Resolution::Unresolved => Paint::Bad,
    };
    let interface = hop.interface.as_ref().map(|name| format!("%{}", clean(name)));
    vec![
        format!("{}{}", hop.address, interface.unwrap_or_default()).into(),
        Cell::painted(hop.state.word(), paint),
        gateways(&hop.gateways).into(),
        text(&hop.metric).into(),
        hop.paths.to_string().into(),
        text(&hop.peer).into(),
        hop.reason.clone().or_else(|| hop.resolved_by.clone()).unwrap_or_default().into(),
    ]
}
