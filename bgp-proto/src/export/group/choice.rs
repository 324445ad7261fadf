//! The paths that a group's members are sent.

use smallvec::SmallVec;

use super::{ADVERTISED_PATHS_MAX, Group};
use crate::export::{AddPathSend, ExportState, ExportTable, ExportView, GroupKey};
use crate::rib::{Choice, Decided, DestId, Path, order};

/// The positions of the best paths that the decision of this turn has found for marked destinations.
#[derive(Debug, Default)]
pub(super) struct Picks {
    all: Vec<(DestId, u32)>,
    is_sorted: bool,
    /// Where the next one is likely to be.
    next: usize,
}

impl Picks {
    fn push(&mut self, dest: DestId, at: u32) {
        self.all.push((dest, at));
        self.is_sorted = false;
    }

    /// The position for a destination, if the decision of this turn has marked it.
    #[inline]
    fn take(&mut self, dest: DestId) -> Option<u32> {
        if self.all.is_empty() {
            return None;
        }
        if !self.is_sorted {
            // It is, but where the rounds of the decision process begin.
            self.all.sort_unstable_by_key(|(dest, _)| *dest);
            self.is_sorted = true;
        }
        // Destinations are decided and encoded in the same order.
        let at = match self.all.get(self.next) {
            Some((likely, _)) if *likely == dest => self.next,
            _ => self.all.binary_search_by_key(&dest, |(dest, _)| *dest).ok()?,
        };
        self.next = at + 1;
        self.all.get(at).map(|(_, position)| *position)
    }
}

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
    /// one, unchanged. Returns whether there is one. The choices are kept until [`Group::drop_picks`].
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
                choice.kept == Some(advertised)
            };
            if !is_kept {
                self.mark(change.dest);
                self.picks.push(change.dest, choice.at);
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

    pub(crate) fn has_picks(&self) -> bool {
        !self.picks.all.is_empty()
    }

    /// Forgets the choices of this turn: paths change before the next one.
    pub(crate) fn drop_picks(&mut self) {
        self.picks = Picks::default();
    }

    /// As [`Group::best_path`], without ranking the paths if the decision of this turn has done so.
    #[inline]
    pub(super) fn picked_path<'a>(
        &mut self,
        dest: DestId,
        state: ExportView<'a>,
    ) -> Option<&'a Path> {
        match self.picks.take(dest) {
            Some(at) => state.dests.paths(dest).get(at as usize),
            None => self.best_path(dest, state),
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
