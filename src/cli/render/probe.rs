//! `probe`.

use super::table::Paint;
use super::{Look, clean};
use crate::ctl::item::{ProbeStep, Probed};

pub(super) fn probed(p: &Probed, look: &Look) -> String {
    let Probed { peer, address, port, state, .. } = p;
    let mut out = match (peer, state) {
        (Some(peer), Some(state)) => {
            format!("{}, {address} port {port}, {}\n", clean(peer), clean(state))
        }
        _ => format!("{address} port {port}, not configured\n"),
    };
    for ProbeStep { step, result, text, remedy } in &p.steps {
        let paint = match result.as_str() {
            "works" => Paint::Good,
            "fails" => Paint::Bad,
            _ => Paint::Pending,
        };
        let padded = format!("{:<8}", clean(result));
        let word = if look.has_colour() { paint.on(&padded) } else { padded };
        out.push_str(&format!("{:<6} {word} {}\n", clean(step), clean(text)));
        if let Some(remedy) = remedy {
            out.push_str(&format!("{:<6} {:<8} {}\n", "", "remedy", clean(remedy)));
        }
    }
    out
}
