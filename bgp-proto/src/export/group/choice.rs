//! The paths that a group's members are sent.

use smallvec::SmallVec;

use super::{ADVERTISED_PATHS_MAX, Group};
use crate::export::{AddPathSend, ExportState, ExportTable, ExportView, GroupKey};
use crate::rib::{Choice, Decided, DestId, Path, order};

impl Group {
    /// Marks decided destinations pending whose best path changed, or all if others decide too.
    /// Returns whether there is one.
    pub(crate) fn mark_decided(&mut self, decided: &[Decided]) -> bool {
        let all_paths = self.key.looks_at_all_paths();
        let mut any = false;
        for change in decided.iter().filter(|change| change.best_changed || all_paths) {
            self.mark(change.dest);
            any = true;
        }
        any
    }

    /// Marks decided destinations pending unless the best path from the vantage is the advertised
    /// one, unchanged. Returns whether there is one.
    pub(crate) fn mark_chosen(
        &mut self,
        decided: &[Decided],
        choices: impl Iterator<Item = Choice>,
        exported: &ExportTable,
    ) -> bool {
        let mut any = false;
        for (change, choice) in decided.iter().zip(choices) {
            let is_kept = !change.all_touched && {
                let advertised = exported.except(self.advertised_paths.best(change.dest)).source;
                choice == Choice::Kept(advertised)
            };
            if !is_kept {
                self.mark(change.dest);
                any = true;
            }
        }
        any
    }

    /// The path that members without ADD-PATH are sent, unless it is withheld: the best one from the
    /// group's vantage. It is computed when it is asked for; nothing is stored per vantage.
    #[inline]
    pub(crate) fn best_path<'a>(&self, dest: DestId, state: ExportView<'a>) -> Option<&'a Path> {
        let paths = state.dests.paths(dest);
        match &self.key.vantage {
            Some(vantage) if paths.len() > 1 => {
                let best = state.sources.best_from(vantage, paths, state.attrs, state.hops)?;
                Some(&paths[best])
            }
            _ => state.dests.best(dest),
        }
    }

    /// The usable paths that the members are sent, best first.
    pub(super) fn paths_to_send(
        &self,
        dest: DestId,
        send: AddPathSend,
        state: &ExportState<'_>,
    ) -> SmallVec<[Path; 4]> {
        choose_paths(&self.key, send, state.dests.paths(dest), state.into())
    }

    /// The identifier with which a path is advertised on ADD-PATH sessions, if there is one.
    pub(crate) fn known_tx_id(&self, path: &Path) -> Option<u32> {
        self.advertised_paths.known_tx_id(path)
    }
}

/// Of all paths of a destination, the usable ones that the members of a group with ADD-PATH are
/// sent, best first. `state.dests` is not read.
pub(crate) fn choose_paths(
    group: &GroupKey,
    send: AddPathSend,
    all: &[Path],
    state: ExportView<'_>,
) -> SmallVec<[Path; 4]> {
    let vantage = group.vantage.as_deref();
    let candidates = state.sources.candidates_from(vantage, all, state.attrs, state.hops);
    let limit = match send {
        AddPathSend::All => ADVERTISED_PATHS_MAX,
        AddPathSend::Best(limit) => usize::from(limit),
    };
    if send == AddPathSend::All && candidates.len() <= limit {
        return candidates.iter().map(|(at, _)| all[*at]).collect();
    }
    order(&candidates, limit).into_iter().map(|at| all[candidates[at].0]).collect()
}
