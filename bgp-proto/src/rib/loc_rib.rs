//! The Loc-RIB (RFC 4271 §3.2) and the paths of all Adj-RIBs-In: a path is stored once, at its
//! destination, the best path first.
//!
//! References to attributes and next hops are counted here, not by the callers that add or remove a
//! path.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{
    AttrId, AttrTable, Choices, DestId, Destinations, IdSet, LocalRoute, Meter, Moved,
    MultipathAsPath, NextHopId, NextHopState, NextHops, Path, PathFlags, SourceCounts, SourceId,
    Sources, SparseSet, Stored, ViaDefault, WorkSet, compare, select,
};
use crate::types::{Family, FamilyMap, Hop, PeerId, Prefix, Recursion, Source};

/// Epoch and generation of the table's changes in one monotonic number.
pub(crate) type Version = u64;

/// Identifies a path while it is held.
pub(crate) type PathName = (Family, DestId, SourceId, u32);

/// Which paths may share a destination's traffic with the best one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MultipathLimit {
    pub(crate) max: usize,
    pub(crate) as_path: MultipathAsPath,
}

/// The generation of a version in the epoch of `present`; 0 for versions of earlier epochs.
pub(crate) fn generation_in(version: Version, present: Version) -> u32 {
    match (version >> 32).cmp(&(present >> 32)) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => version as u32,
        std::cmp::Ordering::Greater => u32::MAX,
    }
}

/// The routes of one family.
pub(crate) struct Rib {
    pub(crate) dests: Destinations,
    /// Destinations pending for the decision process.
    pub(crate) touched: WorkSet,
    /// Of those, the ones with a path whose next hop changed its interface.
    moved: IdSet,
    /// Destinations without a path.
    pub(crate) empty: WorkSet,
}

/// All routes.
pub(crate) struct LocRib {
    ribs: [Rib; 2],
    pub(crate) attrs: AttrTable,
    pub(crate) hops: NextHops,
    /// Peers as decision and export see them.
    pub(crate) sources: Sources,
    /// Local routes.
    pub(crate) local: BTreeMap<(Prefix, Source), LocalRoute>,
    /// Number of local routes of each family, by source.
    local_counts: FamilyMap<SourceCounts>,
    /// The received attributes and next hop of paths that import changed.
    received: hashbrown::HashMap<PathName, (AttrId, NextHopId), foldhash::quality::FixedState>,
    /// Next hops that changed, with the destinations that use them and have not been touched yet.
    changed_hops: BTreeMap<NextHopId, ChangedHop>,
    /// The next hop whose sets of destinations are being compacted, the index of the family, and
    /// the destination to continue at.
    compacting: Option<(NextHopId, usize, u32)>,
    generation: u32,
    epoch: u32,
}

struct ChangedHop {
    moved: Moved,
    left: [SparseSet; 2],
}

/// A path to be re-evaluated by import.
pub(crate) type Reimport = (PeerId, Family, DestId);

/// What groups need besides changes of the best path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedChanges {
    /// In some group, other paths than the best one decide what is sent.
    pub(crate) all_paths: bool,
    /// Some group's policy matches the interface.
    pub(crate) interfaces: bool,
    /// Number of groups in which each destination is marked.
    pub(crate) groups: usize,
}

/// A destination that was decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) dest: DestId,
    /// Whether the best path changed, or its interface, which policies may match.
    pub(crate) best_changed: bool,
    /// Whether any path, or what is sent of it, may have changed.
    pub(crate) all_touched: bool,
}

/// The parts of the Loc-RIB that export of one family borrows.
pub(crate) struct Parts<'a> {
    pub(crate) dests: &'a mut Destinations,
    pub(crate) attrs: &'a mut AttrTable,
    pub(crate) hops: &'a mut NextHops,
    pub(crate) sources: &'a Sources,
    pub(crate) local: &'a BTreeMap<(Prefix, Source), LocalRoute>,
}

/// Destinations decided in one batch: few enough to stay in the cache.
const DECIDED_AT_ONCE: usize = 512;
/// Maximum number of marks that a batch makes in groups: with many groups batches are smaller.
const MARKED_AT_ONCE: usize = 1 << 15;

impl LocRib {
    pub(crate) fn new(seed: u64, via_default: ViaDefault) -> Self {
        LocRib {
            ribs: Family::ALL.map(|family| Rib {
                dests: Destinations::new(family, seed),
                touched: WorkSet::default(),
                moved: IdSet::default(),
                empty: WorkSet::default(),
            }),
            attrs: AttrTable::new(seed),
            hops: NextHops::default(),
            sources: Sources::new(via_default),
            local: BTreeMap::new(),
            local_counts: FamilyMap::default(),
            received: hashbrown::HashMap::with_hasher(foldhash::quality::FixedState::with_seed(
                seed,
            )),
            changed_hops: BTreeMap::new(),
            compacting: None,
            generation: 1,
            epoch: 0,
        }
    }

    #[inline]
    pub(crate) fn rib(&self, family: Family) -> &Rib {
        &self.ribs[family.index()]
    }

    #[inline]
    pub(crate) fn rib_mut(&mut self, family: Family) -> &mut Rib {
        &mut self.ribs[family.index()]
    }

    #[inline]
    pub(crate) fn dests(&self, family: Family) -> &Destinations {
        &self.ribs[family.index()].dests
    }

    /// What export of a family reads and writes.
    pub(crate) fn parts(&mut self, family: Family) -> Parts<'_> {
        Parts {
            dests: &mut self.ribs[family.index()].dests,
            attrs: &mut self.attrs,
            hops: &mut self.hops,
            sources: &self.sources,
            local: &self.local,
        }
    }

    /// Every change that was decided is at or before this.
    pub(crate) fn version(&self) -> Version {
        u64::from(self.epoch) << 32 | u64::from(self.generation)
    }

    /// Begins the generation that the changes of this turn belong to.
    pub(crate) fn next_generation(&mut self) {
        if self.generation == u32::MAX {
            // At the beginning of a new epoch every destination counts as changed. Once in 2^32
            // turns with a change, this visits all destinations in one turn.
            self.epoch += 1;
            self.generation = 1;
            self.ribs.iter_mut().for_each(|rib| rib.dests.reset_changes());
        }
        self.generation += 1;
    }

    /// Adds, replaces or removes a local route; returns the previous one.
    pub(crate) fn set_local(
        &mut self,
        prefix: Prefix,
        source: Source,
        id: SourceId,
        route: Option<LocalRoute>,
    ) -> Option<LocalRoute> {
        let is_there = route.is_some();
        let before = match route {
            Some(route) => self.local.insert((prefix, source), route),
            None => self.local.remove(&(prefix, source)),
        };
        let counts = &mut self.local_counts[prefix.family()];
        match (before.is_some(), is_there) {
            (false, true) => counts.add(id),
            (true, false) => counts.subtract(id),
            _ => {}
        }
        before
    }

    pub(crate) fn local_count(&self, family: Family, source: SourceId) -> u32 {
        self.local_counts[family].get(source)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn set_generation(&mut self, generation: u32) {
        self.generation = self.generation.max(generation);
    }

    /// Stores a path, replacing the one with the same source and identifier, and takes references
    /// to what it refers to. `received` holds the received attributes and next hop if import
    /// changed them.
    pub(crate) fn store(
        &mut self,
        family: Family,
        dest: DestId,
        path: Path,
        received: Option<(AttrId, NextHopId)>,
    ) -> Stored {
        let stored = self.rib_mut(family).dests.store(dest, path);
        let old = match stored {
            Stored::Refused => return stored,
            Stored::Added => None,
            Stored::Replaced(old) => Some(old),
        };
        self.attrs.retain(path.attrs);
        self.hops.retain_path(path.next_hop, family, dest);
        let name = (family, dest, path.source, path.path_id);
        if let Some((attrs, hop)) = received {
            self.attrs.retain(attrs);
            self.hops.retain(hop);
        }
        let before = match received {
            Some(pair) => self.received.insert(name, pair),
            None if old.is_some_and(|old| old.flags.has(PathFlags::CHANGED)) => {
                self.received.remove(&name)
            }
            None => None,
        };
        self.release_received(before);
        if let Some(old) = old {
            self.attrs.release(old.attrs);
            self.hops.release_path(old.next_hop);
        }
        self.rib_mut(family).touched.insert(dest.0);
        stored
    }

    /// Removes the path at `at` and releases everything that it refers to.
    pub(crate) fn withdraw(&mut self, family: Family, dest: DestId, at: usize) -> Path {
        let rib = self.rib_mut(family);
        let path = rib.dests.withdraw(dest, at);
        rib.touched.insert(dest.0);
        self.attrs.release(path.attrs);
        self.hops.release_path(path.next_hop);
        if path.flags.has(PathFlags::CHANGED) {
            let pair = self.received.remove(&(family, dest, path.source, path.path_id));
            self.release_received(pair);
            // A table that shrank does not keep its capacity.
            if self.received.len() * 8 < self.received.capacity() && self.received.capacity() > 4096
            {
                self.received.shrink_to(self.received.len() * 2);
            }
        }
        path
    }

    fn release_received(&mut self, pair: Option<(AttrId, NextHopId)>) {
        if let Some((attrs, hop)) = pair {
            self.attrs.release(attrs);
            self.hops.release(hop);
        }
    }

    /// Attributes and next hop of a path before import changed them, if it did.
    pub(crate) fn received(&self, name: &PathName) -> Option<(AttrId, NextHopId)> {
        self.received.get(name).copied()
    }

    /// Number of paths that import changed.
    pub(crate) fn received_len(&self) -> u64 {
        self.received.len() as u64
    }

    /// The resolution of a tracked next hop changed: destinations that use it are touched within
    /// the next turns.
    pub(crate) fn set_next_hop(&mut self, addr: std::net::IpAddr, state: NextHopState) {
        self.hops.set_state(addr, state);
        self.note_changed_hops();
    }

    /// Sets for which peers the default route may resolve next hops. Destinations that use a next
    /// hop resolved by it are touched within the next turns.
    pub(crate) fn set_via_default(&mut self, via_default: ViaDefault) {
        self.sources.set_via_default(via_default);
        self.hops.touch_over_default();
        self.note_changed_hops();
    }

    fn note_changed_hops(&mut self) {
        for (hop, moved) in self.hops.take_changed() {
            let left = Family::ALL.map(|family| self.hops.dests(hop, family).clone());
            let known = self
                .changed_hops
                .entry(hop)
                .or_insert(ChangedHop { moved, left: [const { SparseSet::new() }; 2] });
            (known.moved, known.left) = (known.moved.max(moved), left);
        }
    }

    /// Touches destinations that use next hops that changed. Where the interface changed,
    /// `reimport` receives the paths for which import policies may now decide differently.
    pub(crate) fn touch_changed_hops(&mut self, meter: &mut Meter, reimport: &mut Vec<Reimport>) {
        while !meter.is_spent()
            && let Some((hop, mut changed)) = self.changed_hops.pop_first()
        {
            for family in Family::ALL {
                let rib = &mut self.ribs[family.index()];
                while !meter.is_spent()
                    && let Some(id) = changed.left[family.index()].pop_last()
                {
                    meter.spend(1);
                    let dest = DestId(id);
                    if !rib.dests.is_live(dest) {
                        continue;
                    }
                    let through = rib.dests.paths(dest).iter().filter(|p| p.next_hop == hop);
                    if changed.moved == Moved::Elsewhere {
                        let peers = through.clone().filter_map(|path| path.source.peer());
                        reimport.extend(peers.map(|peer| (peer, family, dest)));
                    }
                    if through.count() > 0 {
                        rib.touched.insert(id);
                        rib.dests.touch_all(dest);
                        if changed.moved == Moved::Elsewhere {
                            rib.moved.insert(id);
                        }
                    }
                }
            }
            if changed.left.iter().any(|left| !left.is_empty()) {
                self.changed_hops.insert(hop, changed);
            }
        }
    }

    /// Compacts the sets of destinations of next hops. Withdrawn paths leave their destinations in
    /// them, which are dropped once they are the majority.
    pub(crate) fn compact_hops(&mut self, meter: &mut Meter) {
        while !meter.is_spent() {
            let next = self.compacting.take().or_else(|| Some((self.hops.take_overgrown()?, 0, 0)));
            let Some((hop, index, from)) = next else { return };
            let Some(family) = Family::ALL.get(index).copied() else { continue };
            let dests = &self.ribs[index].dests;
            let mut looked_at = 0;
            let left_at = self.hops.retain_dests(hop, family, from, |id| {
                looked_at += 1;
                let dest = DestId(id);
                dests.is_live(dest) && dests.paths(dest).iter().any(|p| p.next_hop == hop)
            });
            meter.spend(1 + looked_at / 8);
            self.compacting = Some(match left_at {
                Some(from) => (hop, index, from),
                None => (hop, index + 1, 0),
            });
        }
    }

    pub(crate) fn has_changed_hops(&self) -> bool {
        !self.changed_hops.is_empty() || self.compacting.is_some() || self.hops.has_overgrown()
    }

    /// Selects the best path of touched destinations (RFC 4271 §9.1.2), a batch at a time. Appends
    /// to `decided` those that groups and the kernel have to examine.
    pub(crate) fn decide(
        &mut self,
        family: Family,
        wanted: WantedChanges,
        meter: &mut Meter,
        decided: &mut Vec<Decided>,
        choices: &mut Choices,
    ) {
        let rib = &mut self.ribs[family.index()];
        let at_once = (MARKED_AT_ONCE / wanted.groups.max(1)).clamp(8, DECIDED_AT_ONCE);
        while decided.len() < at_once
            && !meter.is_spent()
            && let Some(id) = rib.touched.pop()
        {
            let dest = DestId(id);
            let paths = rib.dests.paths(dest);
            meter.spend(1 + paths.len() as u32 / 2);
            let is_empty = paths.is_empty();
            let mut all_touched = true;
            let changed = match paths {
                [] if choices.vantages.is_empty() => rib.dests.set_best(dest, None),
                _ if !choices.vantages.is_empty() => {
                    let (sources, attrs, hops) = (&self.sources, &self.attrs, &self.hops);
                    let mut finalists = sources.finalists(paths, attrs, hops);
                    meter.spend((choices.vantages.len() * (1 + finalists.len()) / 16) as u32);
                    let best = sources.best_of(&finalists, paths, attrs);
                    sources.choose(&mut finalists, best, (paths, attrs, hops), choices);
                    all_touched = rib.dests.take_touched(dest);
                    rib.dests.set_best(dest, best)
                }
                // Most destinations have one path, which has nothing to be compared with.
                [only] => {
                    let usable = self.sources.is_usable(only, &self.hops);
                    let source = only.source;
                    rib.dests.set_only(dest, source, usable)
                }
                // Two are compared in place, without a list of candidates.
                [first, second] => {
                    let rank = |path| self.sources.rank(path, &self.attrs, &self.hops);
                    let best = match (rank(first), rank(second)) {
                        (None, None) => None,
                        (None, Some(_)) => Some(1),
                        (Some(_), None) => Some(0),
                        (Some(a), Some(b)) => Some(usize::from(compare(&a, &b).0.is_gt())),
                    };
                    rib.dests.set_best(dest, best)
                }
                _ => {
                    let finalists = self.sources.finalists(paths, &self.attrs, &self.hops);
                    let best = self.sources.best_of(&finalists, paths, &self.attrs);
                    rib.dests.set_best(dest, best)
                }
            };
            let moved = !rib.moved.is_empty() && rib.moved.remove(id) && wanted.interfaces;
            if changed || moved || wanted.all_paths {
                rib.dests.note_change(dest, self.generation);
            }
            if is_empty {
                rib.empty.insert(id);
            } else {
                rib.empty.remove(id);
            }
            decided.push(Decided { dest, best_changed: changed || moved, all_touched });
        }
    }

    /// Number of destinations pending for the decision process.
    pub(crate) fn touched_len(&self) -> u32 {
        self.ribs.iter().map(|rib| rib.touched.len()).sum()
    }

    pub(crate) fn has_touched(&self) -> bool {
        self.ribs.iter().any(|rib| !rib.touched.is_empty())
    }

    /// Whether every change that export can see has been decided.
    pub(crate) fn is_decided(&self) -> bool {
        !self.has_touched() && self.changed_hops.is_empty()
    }

    /// Whether the next hops of all these paths, which are used for multipath, are directly
    /// connected.
    pub(crate) fn recursion(&self, sharing: &[&Path]) -> Recursion {
        if sharing.iter().all(|path| self.hops.is_connected(path.next_hop)) {
            Recursion::Direct
        } else {
            Recursion::Recursive
        }
    }

    /// The multipath set of a destination that has a best path, the best path first.
    pub(crate) fn sharing<'a>(&self, paths: &'a [Path]) -> SmallVec<[&'a Path; 4]> {
        match paths {
            [path] => SmallVec::from_buf_and_len([path; 4], 1),
            _ => self.multipath(paths).into_iter().map(|at| &paths[at]).collect(),
        }
    }

    /// The best of the usable paths without those that are excluded.
    pub(crate) fn best_but<'a>(
        &self,
        paths: &'a [Path],
        excludes: impl Fn(&Path) -> bool,
    ) -> Option<&'a Path> {
        let mut candidates = self.sources.candidates(paths, &self.attrs, &self.hops);
        candidates.retain(|(at, _)| !excludes(&paths[*at]));
        select(&candidates).map(|at| &paths[candidates[at].0])
    }

    /// Positions of the paths of the multipath set, best first.
    pub(crate) fn multipath(&self, paths: &[Path]) -> Vec<usize> {
        self.sources.multipath(paths, &self.attrs, &self.hops)
    }

    /// The kernel's hops towards a BGP next hop's address.
    pub(crate) fn hops_to(&self, addr: std::net::IpAddr) -> &[Hop] {
        match self.hops.state_of(addr) {
            Some(NextHopState::Via { hops, .. }) => hops,
            _ => &[],
        }
    }

    /// Whether there is a destination whose usable paths are all from these sources: `Ok` if so.
    /// Examines at most `max` destinations from `at` on; otherwise returns where to continue,
    /// `None` at the end.
    pub(crate) fn sole_dests(
        &self,
        family: Family,
        at: u32,
        max: u32,
        is_theirs: impl Fn(SourceId) -> bool,
    ) -> Result<(), Option<u32>> {
        let dests = self.dests(family);
        let end = dests.slots().min(at.saturating_add(max));
        for id in at..end {
            if !dests.is_live(DestId(id)) {
                continue;
            }
            let paths = dests.paths(DestId(id));
            let mut usable =
                paths.iter().filter(|p| self.sources.is_usable(p, &self.hops)).peekable();
            if usable.peek().is_some() && usable.all(|path| is_theirs(path.source)) {
                return Ok(());
            }
        }
        Err((end < dests.slots()).then_some(end))
    }
}
