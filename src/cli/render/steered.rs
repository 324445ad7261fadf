//! `margay peer`.

use super::table::{Align, Cell, Paint};
use crate::ctl::item::Steered;

use Align::Left;

pub(super) const COLUMNS: [(&str, Align); 4] =
    [("PEER", Left), ("ADDRESS", Left), ("WAS", Left), ("WHAT", Left)];

pub(super) fn row(steered: &Steered) -> Vec<Cell> {
    let what = match (&steered.skipped, &steered.effect, steered.done) {
        (Some(why), ..) => Cell::painted(format!("skipped: {why}"), Paint::Bad),
        (None, Some(effect), true) => effect.clone().into(),
        (None, Some(effect), false) => format!("dry run: {effect}").into(),
        (None, None, _) => "-".to_owned().into(),
    };
    vec![
        steered.name.clone().into(),
        steered.address.map_or_else(|| "-".to_owned(), |address| address.to_string()).into(),
        steered.state.clone().unwrap_or_else(|| "-".to_owned()).into(),
        what,
    ]
}
