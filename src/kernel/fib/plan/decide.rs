//! The decision about one prefix: which request makes the kernel's route the wanted one.

use bgp_proto::types::Prefix;

use super::Action;
use super::entry::{Entry, FAILED, FOREIGN, KEPT, LEFTOVER, RETRY, UNCLEAR};
use super::refused::Target;
use super::shared::Shared;
use crate::kernel::foreign::{Foreign, protocol_name};
use crate::kernel::message::KernelRoute;
use crate::kernel::spec::SpecId;

/// The next request for an entry, if any. Updates the entry's flags and error.
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
    // With IPv4 a foreign route can share the place with ours, before or behind it: an installed
    // route of ours that is right stays. A trial for refused legs would write ours once more, and
    // could overwrite theirs: the trial is abandoned.
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
    // `is_at_rest` is false during a trial with this prefix, which writes even what the kernel has
    // already, to learn whether the kernel still accepts it.
    if entry.is_at_rest(prefix, shared) {
        entry.set(FAILED | RETRY | UNCLEAR, false);
        return None;
    }
    if entry.has(FAILED) && !entry.has(RETRY) {
        return None;
    }
    // FAILED stays set until the kernel accepts the route, so that `show fib` does not flicker.
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

/// What prevents a route of ours from being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeldBy {
    /// The prefix is a connected network; its metric does not matter.
    Connected,
    /// A foreign route has the prefix and the metric.
    Route,
}

/// What prevents a route of ours from being written, and a text for `show fib` and the log.
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

/// The request for an installed route of ours when the wanted one may not be written.
fn give_way(held: HeldBy, wanted: SpecId, entry: &Entry, shared: &Shared) -> Option<Action> {
    let installed = entry.installed?;
    let metric = |id| shared.specs.get(id).metric;
    match held {
        HeldBy::Connected => Some(Action::Withdraw(installed)),
        // Ours shares the place with theirs: replacing it may overwrite theirs, deleting it does
        // not.
        HeldBy::Route if metric(installed) == metric(wanted) && installed != wanted => {
            Some(Action::Withdraw(installed))
        }
        HeldBy::Route => None,
    }
}
