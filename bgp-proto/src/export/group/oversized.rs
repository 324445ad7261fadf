//! Routes that fit no message.

use super::Group;
use crate::export::batch::Batch;
use crate::export::{Audience, Except, ExportId, ExportState, NOTES_MAX};
use crate::rib::SourceCounts;

impl Group {
    /// Handles routes that fit no message: they are not advertised, and withdrawn if an earlier
    /// version was. `batch` has been encoded; it then holds only these withdrawals.
    pub(super) fn withdraw_oversized(&mut self, state: &mut ExportState<'_>, batch: &mut Batch) {
        batch.clear();
        let oversized = std::mem::take(&mut batch.oversized);
        // Bounded, because a peer controls how often this happens.
        if let Some(first) = oversized.first().filter(|_| state.notes.len() < NOTES_MAX) {
            let prefix = state.dests.prefix(first.dest);
            let more = match oversized.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            state.notes.push(format!(
                "{prefix}{more} is not advertised in group {}: its attributes do not fit a message of {} octets",
                self.id, self.key.max_len
            ));
        }
        for route in &oversized {
            batch.withdraw(route.dest, route.tx, Audience::Everyone, Except::NOBODY);
            let mut list = self.advertised_paths.get(route.dest);
            for path in list.iter_mut().filter(|path| path.tx == route.tx) {
                let out = std::mem::take(&mut path.out);
                if out != ExportId::NONE {
                    self.advertised -= 1;
                    self.count_except(state.outs.except(out), SourceCounts::subtract);
                    self.watched.note(route.dest, route.tx, Some(state.outs.except(out)), None);
                }
                state.outs.release(out, state.attrs, state.hops);
            }
            if self.key.add_path.is_some() {
                self.advertised_paths.replace_list(route.dest, &list);
                self.tombstones.insert(route.dest.0);
            } else {
                self.advertised_paths.replace_best(route.dest, ExportId::NONE);
            }
        }
        batch.oversized = oversized;
    }
}
