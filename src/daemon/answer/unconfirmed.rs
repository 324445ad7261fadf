//! A reload that is to be confirmed, or was undone, as `show status` has it.

use std::time::SystemTime;

use crate::ctl::item::UnconfirmedReload;
use crate::ctl::rfc3339;
use crate::daemon::confirmation::Condition;

/// An unconfirmed reload as an item.
pub(super) fn unconfirmed(condition: Condition, fault: Option<String>) -> UnconfirmedReload {
    let (undone, at) = match condition {
        Condition::Until(at) => (false, at),
        Condition::Undone(at) => (true, at),
    };
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    let seconds_left = if undone { 0 } else { left.as_secs() };
    UnconfirmedReload { undone, at: rfc3339(at), seconds_left, fault }
}
