//! The decision about one prefix: which request brings the kernel closer to what is wanted.

use bgp_proto::types::Prefix;

use super::Action;
use super::entry::{Entry, FAILED, FOREIGN, KEPT, LEFTOVER, RETRY, UNCLEAR};
use super::refused::Target;
use super::shared::Shared;
use crate::kernel::foreign::{Foreign, protocol_name};
use crate::kernel::message::KernelRoute;
use crate::kernel::spec::SpecId;

/// The one request that brings an entry closer to what is wanted.
pub(super) fn decide(
    prefix: Prefix,
    entry: &mut Entry,
    foreign: &Foreign,
    shared: &mut Shared,
) -> Option<Action> {
    let gave_way = entry.has(FOREIGN);
    entry.set(FOREIGN, false);
    let Some(wanted) = entry.wanted else {
        let is_held = |route: &KernelRoute| route.table == shared.table;
        if entry.has(KEPT) && !foreign.get(prefix).iter().any(is_held) {
            return None;
        }
        let retry = !entry.has(FAILED) || entry.has(RETRY);
        entry.set(RETRY, false);
        return entry.installed.filter(|_| retry && !entry.has(LEFTOVER)).map(Action::Withdraw);
    };
    let held = holder(prefix, wanted, foreign, shared);
    // Theirs may be in the same place as ours, before it or behind it: ours is left alone. A search for
    // refused legs would write it once more, and hit theirs: it gives way as well.
    let harmless = |held| held == HeldBy::Route && entry.is_at_rest(prefix, shared);
    if let Some((held, text)) = held.filter(|(held, _)| !harmless(*held)) {
        entry.set(FAILED | RETRY | UNCLEAR, false);
        entry.set(FOREIGN, true);
        entry.error = shared.error(&text);
        shared.refused.abandon(&mut shared.specs, prefix, wanted);
        if !gave_way {
            shared.held.routes += 1;
            shared.held.example.get_or_insert((prefix, text));
        }
        return give_way(held, wanted, entry, shared);
    }
    shared.claim(wanted, entry.installed);
    if shared.groups.form(wanted).is_none() {
        let Shared { refused, specs, .. } = &mut *shared;
        refused.prepare(specs, wanted);
        shared.tidy();
    }
    // A search writes what the kernel has already, to see whether it takes it still.
    if entry.is_at_rest(prefix, shared) {
        entry.set(FAILED | RETRY | UNCLEAR, false);
        return None;
    }
    if entry.has(FAILED) && !entry.has(RETRY) {
        return None;
    }
    // The flag FAILED stays until the kernel took the route: `show fib` does not flicker.
    entry.set(RETRY, false);
    let target = match shared.written(prefix, wanted) {
        Target::Spec(id) => id,
        Target::Nothing(error) => {
            entry.set(FAILED, true);
            entry.error = error;
            return None;
        }
    };
    match shared.specs.get(target).object {
        Some(group) if !shared.groups.is_there(group) => return None,
        Some(_) => {}
        None => shared.groups.note_inline(target),
    }
    let spec = shared.specs.get(target);
    let metric = spec.metric;
    if let Some(text) = spec.defect() {
        entry.set(FAILED, true);
        entry.error = shared.error(text);
        return None;
    }
    match entry.installed.map(|id| shared.specs.get(id).metric) {
        Some(installed) if installed == metric => Some(Action::Replace(target)),
        _ => Some(Action::Add(target)),
    }
}

/// Why a route of ours may not be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeldBy {
    /// The prefix is that of an interface's network, of whatever metric.
    Connected,
    /// Somebody's route has the prefix and the metric.
    Route,
}

/// What stands in the way of a route of ours, and the same in words.
fn holder(
    prefix: Prefix,
    wanted: SpecId,
    foreign: &Foreign,
    shared: &Shared,
) -> Option<(HeldBy, String)> {
    if foreign.get(prefix).is_empty() {
        return None;
    }
    if foreign.connected(prefix).is_some() {
        return Some((HeldBy::Connected, "it is a connected network".to_owned()));
    }
    let metric = shared.specs.get(wanted).metric;
    let route = foreign.holder(prefix, shared.table, metric)?;
    let protocol = protocol_name(route.protocol);
    Some((HeldBy::Route, format!("a route of protocol {protocol} has this prefix and metric")))
}

/// What becomes of a route of ours that is installed when what is wanted may not be written.
fn give_way(held: HeldBy, wanted: SpecId, entry: &Entry, shared: &Shared) -> Option<Action> {
    let installed = entry.installed?;
    let metric = |id| shared.specs.get(id).metric;
    match held {
        HeldBy::Connected => Some(Action::Withdraw(installed)),
        // Ours in the same place, before theirs or behind it: replacing it may hit theirs.
        HeldBy::Route if metric(installed) == metric(wanted) && installed != wanted => {
            Some(Action::Withdraw(installed))
        }
        HeldBy::Route => None,
    }
}
