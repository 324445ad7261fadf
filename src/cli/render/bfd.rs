//! `show bfd`.

use super::age;
use super::table::{Align, Cell};
use crate::ctl::item::BfdSession;

use Align::{Left, Right};

pub(super) const COLUMNS: [(&str, Align); 9] = [
    ("PEER", Left),
    ("ADDRESS", Left),
    ("STATE", Left),
    ("SINCE", Right),
    ("SEND", Right),
    ("DETECT", Right),
    ("JITTER", Right),
    ("FAILED", Right),
    ("LAST DOWN", Left),
];

pub(super) fn row(session: &BfdSession) -> Vec<Cell> {
    let names = match session.peers[..] {
        [] => "-".to_owned(),
        _ => session.peers.join(" "),
    };
    let hops = if session.multihop { " (multihop)" } else { "" };
    let vrf = session.vrf.as_ref().map_or_else(String::new, |vrf| format!(" in {vrf}"));
    let last = match (&session.error, &session.last_down, session.last_down_seconds) {
        (Some(error), ..) => error.clone(),
        (None, Some(reason), Some(seconds)) => format!("{reason}, {} ago", age(seconds)),
        _ => "-".to_owned(),
    };
    vec![
        names.into(),
        format!("{}{hops}{vrf}", session.address).into(),
        session.state.clone().into(),
        age(session.state_seconds).into(),
        millis(session.tx_interval_us).into(),
        millis(session.detection_time_us).into(),
        millis(session.jitter_us).into(),
        session.failures.to_string().into(),
        last.into(),
    ]
}

/// Formats milliseconds, with one decimal unless it is zero.
fn millis(micros: u64) -> String {
    match (micros / 1000, micros % 1000 / 100) {
        (0, 0) => "-".to_owned(),
        (whole, 0) => format!("{whole} ms"),
        (whole, tenths) => format!("{whole}.{tenths} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_shown_in_milliseconds() {
        assert_eq!(
            [0, 99, 100, 900_000, 1_250_000].map(millis),
            ["-", "-", "0.1 ms", "900 ms", "1250 ms"]
        );
    }
}
