//! Purging destinations without paths, once the kernel, every group and every member have processed
//! their withdrawal.

use smallvec::SmallVec;

use super::{CloseReason, Table};
use crate::rib::{DestId, Meter, generation_in};
use crate::types::{Family, Time};

/// Tombstones that may be kept for members that have not processed the withdrawal, in addition to a
/// quarter of the table. `memory.rs` has what one costs.
const TOMBSTONES_FREE: u32 = 1 << 20;
/// Maximum number of groups whose floor is computed in every turn; with more, in every 16th.
const ASKED_EACH_TURN: usize = 16;
/// Maximum number of destinations examined in a turn.
const EXAMINED_MAX: u32 = 4096;
/// The same in a turn that leaves inputs, withdrawals or exports pending: those are urgent.
const EXAMINED_WHILE_BUSY_MAX: u32 = 512;
/// In such a turn none is examined unless more than this, and an eighth of the table, are kept.
const KEPT_WHILE_BUSY: u32 = 1 << 16;
/// Work of removing a destination from the index: memory that is in no cache.
const WORK_REMOVE: u32 = 2;

impl Table {
    /// Examines some of the tombstones.
    pub(super) fn purge_tombstones(&mut self, now: Time, meter: &mut Meter) {
        self.purge_more = false;
        for family in Family::ALL {
            let waiting = self.loc_rib.rib(family).empty.len();
            let withdrawn: u32 = self.groups_of(family).map(|group| group.tombstones()).sum();
            let kept = waiting + withdrawn;
            let groups = self.adj_ribs_out.groups.len();
            let can_shrink = self.loc_rib.dests(family).can_shrink();
            if kept == 0 && !can_shrink || groups > ASKED_EACH_TURN && !self.turn.is_multiple_of(16)
            {
                continue;
            }
            let version = self.loc_rib.version();
            let floors = self.groups_of(family).map(|g| generation_in(g.log.floor(), version));
            let floor = floors.min().unwrap_or(u32::MAX);
            meter.spend(groups as u32 * 2);
            let dests = self.loc_rib.dests(family);
            self.adj_ribs_out.purge_withdrawn(family, floor, dests, meter);
            self.purge_more |= self.purge_destinations(family, floor, meter);
            let withdrawn: u32 = self.groups_of(family).map(|group| group.tombstones()).sum();
            let rib = self.loc_rib.rib(family);
            let kept = rib.empty.len() + withdrawn;
            if kept > TOMBSTONES_FREE.saturating_add(rib.dests.len() / 4) {
                self.close_slowest(now, family);
            }
        }
    }

    fn groups_of(&self, family: Family) -> impl Iterator<Item = &crate::export::Group> {
        self.adj_ribs_out.groups.values().filter(move |group| group.key.family == family)
    }

    /// Returns whether it freed some and left others unexamined.
    fn purge_destinations(&mut self, family: Family, floor: u32, meter: &mut Meter) -> bool {
        let is_busy =
            self.peers.has_busy() || self.peers.waiting_len() > 0 || self.adj_ribs_out.has_work();
        let rib = self.loc_rib.rib_mut(family);
        let max = match is_busy {
            false => EXAMINED_MAX,
            true if rib.empty.len() <= KEPT_WHILE_BUSY.max(rib.dests.len() / 8) => 0,
            true => EXAMINED_WHILE_BUSY_MAX,
        };
        let all = self.adj_ribs_out.groups.values();
        let groups: SmallVec<[_; 8]> = all.filter(|group| group.key.family == family).collect();
        let waiting = rib.empty.len();
        let (mut left, mut freed) = (waiting.min(max), 0);
        while left > 0
            && !meter.is_spent()
            && let Some(id) = rib.empty.advance()
        {
            left -= 1;
            let dest = DestId(id);
            meter.spend(1 + groups.len() as u32 / 4);
            let is_due = rib.dests.last_change(dest) <= floor
                && rib.dests.fib(dest) == 0
                && self.kernel.is_done_with(family, dest)
                && self.leaks.is_done_with(family, dest)
                && !rib.touched.contains(id)
                && groups.iter().all(|group| group.is_done_with(dest));
            if is_due {
                rib.empty.remove(id);
                rib.dests.free(dest);
                meter.spend(WORK_REMOVE);
                freed += 1;
            }
        }
        drop(groups);
        if rib.dests.can_shrink() {
            let slots = rib.dests.shrink();
            meter.spend(2_000);
            rib.touched.truncate(slots);
            rib.empty.truncate(slots);
            self.kernel.truncate(family, slots);
            self.leaks.truncate(family, slots);
            let groups = self.adj_ribs_out.groups.values_mut();
            groups.filter(|group| group.key.family == family).for_each(|g| g.truncate(slots));
        }
        freed > 0 && (left > 0 || waiting > max)
    }

    /// Stops serving the member that makes the table keep the most tombstones, one at a time.
    fn close_slowest(&mut self, now: Time, family: Family) {
        let is_slow = |reason| matches!(reason, CloseReason::TooSlow);
        if self.peers.iter().any(|p| p.close.as_ref().is_some_and(|order| is_slow(order.reason))) {
            return;
        }
        let slowest = self.groups_of(family).min_by_key(|group| group.log.floor());
        let Some(id) = slowest.map(|group| group.id) else { return };
        self.close_slowest_of(now, id);
    }

    /// Stops serving the slowest member of a group.
    pub(super) fn close_slowest_of(&mut self, now: Time, group: u32) {
        let Some(source) = self.adj_ribs_out.close_slowest(group, &self.loc_rib) else { return };
        if let Some(peer) = source.peer() {
            self.order_close(now, peer, CloseReason::TooSlow);
        }
    }
}
