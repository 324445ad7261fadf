//! Resynchronises members of a group, a slice of destinations at a time.

use smallvec::SmallVec;

use super::{Flushed, Group, WORK_FLUSH};
use crate::export::batch::Batch;
use crate::export::{Audience, CoveredRanges, Except, ExportId, ExportState, ResyncEnd};
use crate::rib::{DestId, Meter, SourceId};
use crate::wire::RefreshKind;

/// A run of destinations in which the needs of every member being resynchronised stay the same.
struct SliceLimit {
    end: u32,
    announce_since: u32,
    withdraw_since: u32,
    /// Members being resynchronised, ascending, each with the last change of which it needs no
    /// withdrawal.
    members: SmallVec<[(SourceId, u32); 4]>,
}

impl SliceLimit {
    /// Whether `peer`, which is not sent the route, is being resynchronised and needs the
    /// withdrawal of its predecessor.
    #[inline]
    fn withdraws_at(&self, peer: SourceId, last_change: u32) -> bool {
        if peer == SourceId::NONE {
            return false;
        }
        let found = self.members.binary_search_by_key(&peer, |(member, _)| *member);
        found.is_ok_and(|at| last_change > self.members[at].1)
    }
}

impl Group {
    pub(super) fn wrap(&mut self) {
        self.resync_at = 0;
        for peer in &self.resyncing {
            let member = self.members.get_mut(peer);
            if let Some(resyncing) = member.and_then(|member| member.resyncing.as_mut()) {
                resyncing.wrap();
            }
        }
    }

    pub(super) fn resync_slice(
        &mut self,
        state: &mut ExportState<'_>,
        window: usize,
        meter: &mut Meter,
    ) {
        let mut batch = self.begin_batch(state);
        let mut finished = Vec::new();
        let mut covered = CoveredRanges::default();
        while !self.resyncing.is_empty()
            && (batch.considered == 0 || !self.is_full(&batch, window, meter))
        {
            if self.resync_at >= state.dests.slots() {
                self.wrap();
            }
            let limit = self.limit(state);
            let from = self.resync_at;
            // Up to where the needs change, so that members are not examined for every destination.
            while self.resync_at < limit.end
                && (batch.considered == 0 || !self.is_full(&batch, window, meter))
            {
                let dest = DestId(self.resync_at);
                self.resync_at += 1;
                batch.considered += 1;
                if state.dests.is_live(dest) {
                    self.resync_dest(dest, &limit, state, &mut batch);
                    meter.spend(std::mem::take(&mut batch.work));
                } else {
                    self.take_pending(dest);
                }
                meter.spend(u32::from(dest.0.is_multiple_of(8)));
            }
            covered.add(from..self.resync_at, state.version);
            self.finish_resyncs(&mut finished);
        }
        let control = finished.iter().filter_map(|(peer, end)| match end {
            ResyncEnd::EndOfRib => Some((*peer, RefreshKind::Request)),
            ResyncEnd::Refresh => Some((*peer, RefreshKind::End)),
            ResyncEnd::Nothing => None,
        });
        let control = control.collect();
        self.append(batch, control, covered, state, meter);
        for (peer, _) in finished {
            if let Some(member) = self.members.get(&peer) {
                self.log.end_resync(member.key);
            }
        }
    }

    /// What the members being resynchronised need from the position on, and up to where that holds
    /// for all of them.
    fn limit(&self, state: &ExportState<'_>) -> SliceLimit {
        let mut limit = SliceLimit {
            end: u32::MAX,
            announce_since: u32::MAX,
            withdraw_since: u32::MAX,
            members: SmallVec::new(),
        };
        for peer in &self.resyncing {
            let member = self.members.get(peer);
            let Some(resyncing) = member.and_then(|member| member.resyncing.as_ref()) else {
                continue;
            };
            limit.members.push((*peer, state.generation(resyncing.withdraw_since)));
            let segment = resyncing.segment(self.resync_at, state.dests.slots());
            limit.end = limit.end.min(segment.end);
            limit.announce_since =
                limit.announce_since.min(state.generation(segment.announce_since));
            limit.withdraw_since =
                limit.withdraw_since.min(state.generation(segment.withdraw_since));
        }
        limit
    }

    fn finish_resyncs(&mut self, finished: &mut Vec<(SourceId, ResyncEnd)>) {
        let (members, at, first) = (&mut self.members, self.resync_at, finished.len());
        for peer in &self.resyncing {
            let resyncing = members.get_mut(peer).map(|member| &mut member.resyncing);
            let done = resyncing.and_then(|resyncing| resyncing.take_if(|r| r.is_done(at)));
            finished.extend(done.map(|resyncing| (*peer, resyncing.end)));
        }
        for (peer, _) in &finished[first..] {
            self.resyncing.remove(peer);
        }
    }

    /// Sends one destination to the members being resynchronised.
    fn resync_dest(
        &mut self,
        dest: DestId,
        limit: &SliceLimit,
        state: &mut ExportState<'_>,
        batch: &mut Batch,
    ) {
        let mut flushed = Flushed::Unchanged;
        if self.take_pending(dest) {
            batch.work += WORK_FLUSH;
            flushed = self.flush(dest, state, batch);
        }
        let last_change = state.dests.last_change(dest);
        if last_change <= limit.announce_since {
            return;
        }
        if self.key.add_path.is_none() {
            batch.work += 1;
            match self.advertised_paths.best(dest) {
                ExportId::NONE if last_change > limit.withdraw_since => {
                    batch.withdraw(dest, 0, Audience::Resyncing, Except::NOBODY);
                }
                ExportId::NONE => {}
                out => resync_path((dest, 0), out, &flushed, limit, state, batch),
            }
            return;
        }
        let list = self.advertised_paths.get(dest);
        batch.work += list.len() as u32;
        for path in &list {
            if path.out != ExportId::NONE {
                resync_path((dest, path.tx), path.out, &flushed, limit, state, batch);
            } else if last_change > limit.withdraw_since {
                batch.withdraw(dest, path.tx, Audience::Resyncing, Except::NOBODY);
            }
        }
    }
}

/// Sends one advertised path to the members being resynchronised.
#[inline]
fn resync_path(
    (dest, tx): (DestId, u32),
    out: ExportId,
    flushed: &Flushed,
    limit: &SliceLimit,
    state: &ExportState<'_>,
    batch: &mut Batch,
) {
    let except = state.outs.except(out);
    if !flushed.announces(tx) {
        batch.announce((dest, tx), out, Audience::Resyncing, except, state);
    }
    // A member that is not sent this route may have been sent its predecessor.
    for peer in except.each() {
        if limit.withdraws_at(peer, state.dests.last_change(dest)) {
            batch.withdraw(dest, tx, Audience::Only(peer), Except::NOBODY);
        }
    }
}
