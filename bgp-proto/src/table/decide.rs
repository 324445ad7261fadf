//! The decision process over touched destinations, and forgetting destinations that are empty.

use super::{CloseReason, Rib, Table};
use crate::export::generation_in;
use crate::rib::{DestId, Destinations, IdSet, Moved, select};
use crate::types::{Family, Time};

/// Empty destinations that may be kept for members that do not know yet, whatever the table's size;
/// beyond that, a quarter of the table. One costs about thirty octets.
const TOMBSTONES_FREE: u32 = 1 << 20;
/// With more empty destinations than this, looking through them waits for some turns.
const TOMBSTONES_EAGER: u32 = 4096;

impl Rib {
    pub(super) fn new(family: Family, seed: u64) -> Self {
        Rib {
            dests: Destinations::new(family, seed),
            touched: IdSet::default(),
            moved: IdSet::default(),
            fib_dirty: IdSet::default(),
            fib_at: 0,
            empty: IdSet::default(),
        }
    }
}

impl Table {
    /// Destinations with a path through a next hop whose state changed are touched. Where the
    /// interface is another one, policies that look at it are asked again.
    pub(super) fn touch_changed_hops(&mut self) {
        for (hop, moved) in self.hops.take_changed() {
            for family in Family::ALL {
                let rib = &mut self.ribs[family.index()];
                let mut dests = self.hops.take_dests(hop, family);
                // Paths that went away left their destinations in; this is where those are dropped.
                dests.retain(|id| rib.dests.paths(DestId(id)).iter().any(|p| p.next_hop == hop));
                for id in dests.iter() {
                    rib.touched.insert(id);
                }
                if moved == Moved::Elsewhere {
                    for id in dests.iter() {
                        rib.moved.insert(id);
                    }
                    self.reimport_moved(hop, family, &dests);
                }
                self.hops.set_dests(hop, family, dests);
            }
        }
    }

    /// Selects the best path of every touched destination and tells groups and FIB.
    pub(super) fn decide(&mut self) {
        if self.ribs.iter().all(|rib| rib.touched.is_empty()) {
            return;
        }
        self.next_generation();
        for family in Family::ALL {
            let rib = &mut self.ribs[family.index()];
            let mut groups: Vec<_> =
                self.groups.values_mut().filter(|group| group.key.family == family).collect();
            let all_paths = groups.iter().any(|group| group.key.add_path.is_some());
            let by_interface =
                !rib.moved.is_empty() && groups.iter().any(|g| g.key.export.looks_at_interface());
            for id in rib.touched.iter() {
                let dest = DestId(id);
                let paths = rib.dests.paths(dest);
                let is_empty = paths.is_empty();
                let changed = match paths {
                    [] => rib.dests.set_best(dest, None),
                    // Most destinations have one path, which has nothing to be compared with.
                    [only] => {
                        let usable = self.sources.is_usable(only, &self.hops);
                        let source = only.source;
                        rib.dests.set_only(dest, source, usable)
                    }
                    _ => {
                        let candidates = self.sources.candidates(paths, &self.attrs, &self.hops);
                        let best = select(&candidates).map(|at| candidates[at].0);
                        rib.dests.set_best(dest, best)
                    }
                };
                if self.config.fib_enabled {
                    rib.fib_dirty.insert(id);
                }
                let moved = by_interface && rib.moved.contains(id);
                if changed || all_paths || moved {
                    rib.dests.note_change(dest, self.generation);
                    for group in &mut groups {
                        if changed || group.key.add_path.is_some() || moved {
                            group.mark(dest);
                        }
                    }
                }
                if is_empty {
                    rib.empty.insert(id);
                } else {
                    rib.empty.remove(id);
                }
            }
            rib.touched.clear();
            rib.moved.clear();
        }
    }

    /// Moves on to the generation that the changes of this turn belong to.
    pub(super) fn next_generation(&mut self) {
        if self.generation == u32::MAX {
            // Everything changed at the beginning of a new epoch, as far as anybody can tell.
            self.epoch += 1;
            self.generation = 1;
            self.ribs.iter_mut().for_each(|rib| rib.dests.reset_changes());
        }
        self.generation += 1;
    }

    /// Forgets empty destinations that the kernel, every group and every member are done with.
    pub(super) fn purge_tombstones(&mut self, now: Time) {
        for family in Family::ALL {
            let mut kept = self.rib(family).empty.len();
            let tombstones = |table: &Self| -> u32 {
                let groups = table.groups.values().filter(|group| group.key.family == family);
                groups.map(|group| group.tombstones()).sum()
            };
            kept += tombstones(self);
            if kept == 0 || kept > TOMBSTONES_EAGER && !self.turn.is_multiple_of(64) {
                continue;
            }
            let version = self.version();
            let rib = &mut self.ribs[family.index()];
            let mut groups: Vec<_> =
                self.groups.values_mut().filter(|group| group.key.family == family).collect();
            let floor = groups.iter().map(|group| generation_in(group.log.floor(), version)).min();
            let floor = floor.unwrap_or(u32::MAX);
            for group in &mut groups {
                group.purge_withdrawn(floor, &rib.dests);
            }
            let due: Vec<u32> = rib
                .empty
                .iter()
                .filter(|id| {
                    let dest = DestId(*id);
                    rib.dests.last_change(dest) <= floor
                        && rib.dests.fib(dest) == 0
                        && !rib.fib_dirty.contains(*id)
                        && !rib.touched.contains(*id)
                        && groups.iter().all(|group| group.is_done_with(dest))
                })
                .collect();
            for id in due {
                rib.empty.remove(id);
                rib.dests.free(DestId(id));
            }
            let kept = rib.empty.len() + tombstones(self);
            if kept > TOMBSTONES_FREE.saturating_add(self.rib(family).dests.len() / 4) {
                self.close_slowest(now, family);
            }
        }
    }

    /// Gives up on the member that makes the table keep the most.
    fn close_slowest(&mut self, now: Time, family: Family) {
        let groups = self.groups.values().filter(|group| group.key.family == family);
        let Some(group) = groups.min_by_key(|group| group.log.floor()) else { return };
        if let Some(peer) = group.log.close_slowest().and_then(|source| source.peer()) {
            self.order_close(now, peer, CloseReason::TooSlow);
        }
    }
}
