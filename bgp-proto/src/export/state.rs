//! The parts of the table that export reads and writes, and the evaluation of a path.

use std::collections::BTreeMap;

use super::batch::Batch;
use super::{
    Drain, ExportTable, Exported, GroupKey, MedBefore, Outbound, Withholding, export, rules,
    trace_policy,
};
use crate::policy::{RouteRef, Source, Verdict};
use crate::rib::{
    AttrKey, AttrTable, DestId, Destinations, LocalRoute, NextHops, Path, PathFlags, Sources,
    Version, generation_in,
};
use crate::types::Prefix;

/// Maximum number of notes in a turn, and of notes waiting for the host; more are dropped.
pub(crate) const NOTES_MAX: usize = 64;

/// What export needs of the table, for one family.
pub(crate) struct ExportState<'a> {
    pub(crate) dests: &'a mut Destinations,
    pub(crate) attrs: &'a mut AttrTable,
    pub(crate) hops: &'a mut NextHops,
    pub(crate) outs: &'a mut ExportTable,
    pub(crate) sources: &'a Sources,
    pub(crate) local: &'a BTreeMap<(Prefix, Source), LocalRoute>,
    /// The table's version: every decided change is at or before it.
    pub(crate) version: Version,
    /// Lines for the log, [`NOTES_MAX`] at most.
    pub(crate) notes: &'a mut Vec<String>,
    /// Empty; its memory is reused for the next slice.
    pub(crate) batch: &'a mut Batch,
}

impl ExportState<'_> {
    /// The generation of a version in the present epoch; versions of earlier epochs are before all.
    pub(super) fn generation(&self, version: Version) -> u32 {
        generation_in(version, self.version)
    }
}

/// The parts of the table that the evaluation of a path reads.
#[derive(Clone, Copy)]
pub(crate) struct ExportView<'a> {
    pub(crate) dests: &'a Destinations,
    pub(crate) attrs: &'a AttrTable,
    pub(crate) hops: &'a NextHops,
    pub(crate) sources: &'a Sources,
    pub(crate) local: &'a BTreeMap<(Prefix, Source), LocalRoute>,
}

impl<'a> From<&'a ExportState<'_>> for ExportView<'a> {
    fn from(state: &'a ExportState<'_>) -> Self {
        ExportView {
            dests: state.dests,
            attrs: state.attrs,
            hops: state.hops,
            sources: state.sources,
            local: state.local,
        }
    }
}

/// Exports a path to a group, or returns why it is not advertised. The only implementation, for the
/// wire and for `explain`.
pub(crate) fn evaluate_export(
    group: &GroupKey,
    dest: DestId,
    path: &Path,
    state: ExportView<'_>,
) -> Result<Exported, Withholding> {
    evaluate_path(group, (state.dests.prefix(dest), state.dests.paths(dest)), path, state)
}

/// Whether the export policy is asked about one of the paths of a destination, and with which MED.
pub(crate) fn offer(
    group: &GroupKey,
    dest: DestId,
    path: &Path,
    state: ExportView<'_>,
) -> Result<MedBefore, Withholding> {
    let route = (state.dests.prefix(dest), state.dests.paths(dest));
    with_outbound(group, route, path, state, |out| rules::offer(group, out))
}

/// [`evaluate_export`] for one of the paths of a destination that need not be in the table:
/// `state.dests` is not read.
pub(crate) fn evaluate_path(
    group: &GroupKey,
    (prefix, paths): (Prefix, &[Path]),
    path: &Path,
    state: ExportView<'_>,
) -> Result<Exported, Withholding> {
    with_outbound(group, (prefix, paths), path, state, |out| export(group, out))
}

/// Evaluates the export policy for one of the paths of a destination, which need not be in the table;
/// `applied` is called with each rule that applies.
pub(crate) fn trace_export(
    group: &GroupKey,
    (prefix, paths): (Prefix, &[Path]),
    path: &Path,
    state: ExportView<'_>,
    applied: impl FnMut(usize, &RouteRef<'_>),
) -> Result<Verdict, Withholding> {
    let trace = |out: &Outbound<'_>| trace_policy(group, out, applied);
    with_outbound(group, (prefix, paths), path, state, trace)
}

#[inline]
fn with_outbound<T>(
    group: &GroupKey,
    (prefix, paths): (Prefix, &[Path]),
    path: &Path,
    state: ExportView<'_>,
    evaluate: impl FnOnce(&Outbound<'_>) -> Result<T, Withholding>,
) -> Result<T, Withholding> {
    let source = path.source.source();
    let local = if source == Source::Bgp { None } else { state.local.get(&(prefix, source)) };
    if source != Source::Bgp
        && group.drain == Drain::Withdraw
        && is_announced_by_others(paths, state)
    {
        return Err(Withholding::Drained);
    }
    let route = RouteRef {
        prefix,
        attrs: state.attrs.view(path.attrs),
        next_hop: match local {
            Some(local) => local.next_hop.map(Into::into),
            None => state.hops.hop(path.next_hop),
        },
        source,
        interface: match local {
            Some(local) => local.interface.as_deref(),
            None => state.hops.interface(path.next_hop),
        },
        metric: local.map_or(state.attrs.local(path.attrs).metric, |local| local.metric),
        peer_type: Some(group.peer_type),
        shared_bandwidth: if group.sums_bandwidth {
            state.sources.shared_bandwidth(path, paths, state.attrs, state.hops)
        } else {
            None
        },
    };
    let from = state.sources.get(path.source);
    let long_lived = path.flags.has(PathFlags::LONG_LIVED);
    evaluate(&Outbound { route, key: state.attrs.key(path.attrs), from, long_lived })
}

/// Whether a neighbour's path to a destination is usable, and not one that is to be left too or is
/// long-lived stale.
fn is_announced_by_others(paths: &[Path], state: ExportView<'_>) -> bool {
    paths.iter().any(|path| {
        path.source.source() == Source::Bgp
            && state.sources.is_usable(path, state.hops)
            && state.attrs.view(path.attrs).local_pref() != Some(0)
            && !state.attrs.key(path.attrs).has(AttrKey::GRACEFUL_SHUTDOWN)
            && !state.attrs.key(path.attrs).has(AttrKey::LLGR_STALE)
            && !path.flags.has(PathFlags::LONG_LIVED)
    })
}
