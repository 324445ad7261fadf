//! `debug`.

use super::clean;
use super::look::age;
use crate::ctl::item::Debugged;

pub(super) fn debugged(d: &Debugged) -> String {
    let Debugged { peer, seconds, dropped } = d;
    let dropped = match dropped {
        0 => String::new(),
        n => format!(", {n} messages were left out"),
    };
    match seconds {
        Some(seconds) => {
            format!("{}: messages are logged for {}{dropped}\n", clean(peer), age(*seconds))
        }
        None => format!("{}: messages are no longer logged{dropped}\n", clean(peer)),
    }
}
