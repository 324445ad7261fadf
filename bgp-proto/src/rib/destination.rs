//! Destinations of one family: prefix, paths, state towards the kernel.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::arena::{Arena, IdSet, RUN_MAX, Run, Runs};
use super::hash::Seeded;
use super::{Path, PathFlags, SourceCounts, SourceId};
use crate::types::{Family, PathId, Prefix, Prefix4, Prefix6};

/// A destination's index within its family; reused only once no group and no peer refers to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DestId(pub(crate) u32);

#[derive(Clone, Copy, Debug, Default)]
struct Destination {
    /// Slot of the run of paths; the best path, if any, comes first.
    slot: u32,
    /// Interned FIB entry last requested of the kernel, 0 for none.
    fib: u32,
    paths: u16,
    prefix_len: u8,
    flags: u8,
}

/// While a larger index is being built, every [`GROWN_EVERY`]th insertion moves [`GROWN_AT_ONCE`]
/// slots into it: eight per insertion, and enough at once for the processor to overlap their memory
/// accesses.
const GROWN_EVERY: usize = 8;
const GROWN_AT_ONCE: u32 = 64;
/// Free slots at the end that make truncation worthwhile, and the maximum truncated at once.
const SHRUNK_MIN: u32 = 64;
const SHRUNK_MAX: u32 = 1 << 15;
/// Maximum number of destinations in an index that is rebuilt in one step.
const REMADE_MAX: usize = 1 << 14;

/// The first path is usable.
const HAS_BEST: u8 = 1;
/// The first path was written, or the order may have changed, since the last decision.
const BEST_TOUCHED: u8 = 2;
/// The slot is in use.
const LIVE: u8 = 4;
/// The best path was removed since the last decision.
const LOST_BEST: u8 = 8;
/// Something else than single paths has changed since the last decision.
const ALL_TOUCHED: u8 = 16;

impl Destination {
    fn run(&self) -> Run {
        Run { slot: self.slot, len: self.paths }
    }

    fn set_run(&mut self, run: Run) {
        self.slot = run.slot;
        self.paths = run.len;
    }
}

enum Addresses {
    V4(Arena<u32>),
    V6(Arena<u128>),
}

/// The effect of storing a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// There was no path with this source and identifier.
    Added,
    /// The path replaced this one.
    Replaced(Path),
    /// Not stored: a destination holds at most 65,535 paths.
    Refused,
}

/// Result of looking up a prefix: its hash, and its destination if it had one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    hash: u64,
    found: Option<DestId>,
}

impl Probe {
    /// The destination, if there was one.
    #[inline]
    pub(crate) fn found(self) -> Option<DestId> {
        self.found
    }
}

/// All destinations of one family.
pub(crate) struct Destinations {
    addresses: Addresses,
    dests: Arena<Destination>,
    /// Generation of the last change that a peer may have to be sent; stored separately so that
    /// scans read memory sequentially.
    last_change: Arena<u32>,
    paths: Runs<Path>,
    index: HashTable<u32>,
    /// The larger index being built to replace this one, and how many slots it covers.
    growing: Option<(HashTable<u32>, u32)>,
    /// Work done on it that is not charged yet.
    grown: u32,
    free: IdSet,
    /// Lower bound of the free slots.
    lowest_free: u32,
    hash: Seeded,
    path_count: u32,
    /// Number of destinations by the source of their best path.
    preferred: SourceCounts,
}

impl Destinations {
    pub(crate) fn new(family: Family, seed: u64) -> Self {
        Destinations {
            addresses: match family {
                Family::Ipv4 => Addresses::V4(Arena::default()),
                Family::Ipv6 => Addresses::V6(Arena::default()),
            },
            dests: Arena::default(),
            last_change: Arena::default(),
            paths: Runs::default(),
            index: HashTable::new(),
            growing: None,
            grown: 0,
            free: IdSet::default(),
            lowest_free: 0,
            hash: Seeded::new(seed),
            path_count: 0,
            preferred: SourceCounts::default(),
        }
    }

    #[inline]
    fn hash_of(hash: &Seeded, prefix: Prefix) -> u64 {
        match prefix {
            Prefix::V4(p) => hash.word(u64::from(p.bits()) << 8 | u64::from(p.len())),
            Prefix::V6(p) => hash.wide(p.bits(), p.len()),
        }
    }

    #[inline]
    fn matches(addresses: &Addresses, dests: &Arena<Destination>, id: u32, prefix: Prefix) -> bool {
        match (addresses, prefix) {
            (Addresses::V4(a), Prefix::V4(p)) => {
                *a.get(id) == p.bits() && dests.get(id).prefix_len == p.len()
            }
            (Addresses::V6(a), Prefix::V6(p)) => {
                *a.get(id) == p.bits() && dests.get(id).prefix_len == p.len()
            }
            _ => false,
        }
    }

    #[inline]
    fn prefix_at(addresses: &Addresses, dests: &Arena<Destination>, id: u32) -> Prefix {
        let len = dests.get(id).prefix_len;
        match addresses {
            Addresses::V4(a) => Prefix4::from_parts(*a.get(id), len).into(),
            Addresses::V6(a) => Prefix6::from_parts(*a.get(id), len).into(),
        }
    }

    #[inline]
    pub(crate) fn prefix(&self, id: DestId) -> Prefix {
        Self::prefix_at(&self.addresses, &self.dests, id.0)
    }

    pub(crate) fn find(&self, prefix: Prefix) -> Option<DestId> {
        self.probe(prefix).found
    }

    /// Looks up a prefix. The result is valid until a destination is freed; a destination that is
    /// created later is found by [`Destinations::resolve`].
    #[inline]
    pub(crate) fn probe(&self, prefix: Prefix) -> Probe {
        let hash = Self::hash_of(&self.hash, prefix);
        Probe { hash, found: self.find_hashed(hash, prefix) }
    }

    #[inline]
    fn find_hashed(&self, hash: u64, prefix: Prefix) -> Option<DestId> {
        let found =
            self.index.find(hash, |id| Self::matches(&self.addresses, &self.dests, *id, prefix));
        found.map(|id| DestId(*id))
    }

    /// The destination of `prefix`, of which `probe` is the result.
    #[inline]
    pub(crate) fn resolve(&self, probe: Probe, prefix: Prefix) -> Option<DestId> {
        probe.found.or_else(|| self.find_hashed(probe.hash, prefix))
    }

    /// The destination of `prefix`, created if there is none. `prefix` is of this family.
    pub(crate) fn find_or_insert(&mut self, prefix: Prefix) -> DestId {
        let probe = self.probe(prefix);
        probe.found.unwrap_or_else(|| self.insert(probe, prefix))
    }

    /// Creates a destination for `prefix`, which has none and is of this family; `probe` is its
    /// lookup.
    pub(crate) fn insert(&mut self, probe: Probe, prefix: Prefix) -> DestId {
        self.make_room();
        let id = self.next_slot();
        self.fill_slot(id, prefix, Run::default(), LIVE);
        self.index.insert_unique(probe.hash, id, |_| unreachable!("there is room"));
        self.note_indexed(probe.hash, id);
        DestId(id)
    }

    /// Creates a destination that holds one path, unless `prefix` has a destination already.
    #[inline]
    pub(crate) fn insert_with(
        &mut self,
        probe: Probe,
        prefix: Prefix,
        path: Path,
    ) -> Option<DestId> {
        if probe.found.is_some() {
            return None;
        }
        self.make_room();
        let id = self.next_slot();
        // The same prefix may have been inserted since it was looked up.
        let entry = self.index.entry(
            probe.hash,
            |other| Self::matches(&self.addresses, &self.dests, *other, prefix),
            |_| unreachable!("there is room"),
        );
        let Entry::Vacant(place) = entry else { return None };
        place.insert(id);
        let run = self.paths.store(&[path]);
        self.fill_slot(id, prefix, run, LIVE | BEST_TOUCHED | ALL_TOUCHED);
        self.path_count += 1;
        self.note_indexed(probe.hash, id);
        Some(DestId(id))
    }

    /// Reserves room in the index for one more.
    #[inline]
    fn make_room(&mut self) {
        if self.index.len() == self.index.capacity() {
            self.grow_index();
        }
    }

    /// The slot for the next destination.
    #[inline]
    fn next_slot(&self) -> u32 {
        let free = if self.free.is_empty() { None } else { self.free.next_from(self.lowest_free) };
        free.unwrap_or_else(|| self.dests.len())
    }

    /// Creates a destination in the slot that [`Destinations::next_slot`] returned.
    #[inline]
    fn fill_slot(&mut self, id: u32, prefix: Prefix, run: Run, flags: u8) {
        let dest = Destination {
            slot: run.slot,
            paths: run.len,
            prefix_len: prefix.len(),
            flags,
            ..Destination::default()
        };
        if id == self.dests.len() {
            match (&mut self.addresses, prefix) {
                (Addresses::V4(a), Prefix::V4(p)) => a.push(p.bits()),
                (Addresses::V6(a), Prefix::V6(p)) => a.push(p.bits()),
                _ => unreachable!("callers route prefixes to their family"),
            };
            self.last_change.push(0);
            self.dests.push(dest);
            return;
        }
        self.free.remove(id);
        self.lowest_free = id;
        match (&mut self.addresses, prefix) {
            (Addresses::V4(a), Prefix::V4(p)) => *a.get_mut(id) = p.bits(),
            (Addresses::V6(a), Prefix::V6(p)) => *a.get_mut(id) = p.bits(),
            _ => debug_assert!(false, "callers route prefixes to their family"),
        }
        *self.dests.get_mut(id) = dest;
        *self.last_change.get_mut(id) = 0;
    }

    /// Completes the creation of a destination that was inserted into the index.
    #[inline]
    fn note_indexed(&mut self, hash: u64, id: u32) {
        if let Some((next, reached)) = &mut self.growing
            && id < *reached
        {
            next.insert_unique(hash, id, |_| unreachable!("there is room"));
        }
        let is_due = self.index.len().is_multiple_of(GROWN_EVERY);
        if is_due && (self.growing.is_some() || self.index.len() * 4 >= self.index.capacity() * 3) {
            self.grow_some();
        }
    }

    /// Builds the larger index incrementally beside the current one, so that no single insertion
    /// pays for all of it.
    #[cold]
    fn grow_some(&mut self) {
        let capacity = self.index.capacity();
        let (next, reached) =
            self.growing.get_or_insert_with(|| (HashTable::with_capacity(2 * capacity), 0));
        let end = self.dests.len().min(reached.saturating_add(GROWN_AT_ONCE));
        for id in *reached..end {
            if self.dests.get(id).flags & LIVE != 0 {
                let prefix = Self::prefix_at(&self.addresses, &self.dests, id);
                let hash = Self::hash_of(&self.hash, prefix);
                next.insert_unique(hash, id, |_| unreachable!("there is room"));
            }
        }
        // Each writes to memory that was never touched before.
        self.grown += 2 * (end - *reached);
        *reached = end;
        if end == self.dests.len()
            && let Some((next, _)) = self.growing.take()
        {
            self.index = next;
        }
    }

    /// Work that insertions since the last call did on the larger index.
    pub(crate) fn take_grown(&mut self) -> u32 {
        std::mem::take(&mut self.grown)
    }

    /// Whether [`Destinations::shrink`] would do something.
    pub(crate) fn can_shrink(&self) -> bool {
        let slots = self.dests.len();
        let end = slots.saturating_sub(SHRUNK_MIN);
        slots > 0
            && self.growing.is_none()
            && self.free.len() >= slots / 2
            && (end..slots).all(|id| self.free.contains(id))
    }

    /// Drops free slots at the end, at most [`SHRUNK_MAX`] at once. Returns the number of slots
    /// left.
    pub(crate) fn shrink(&mut self) -> u32 {
        let slots = self.dests.len();
        let mut end = slots;
        while end > slots.saturating_sub(SHRUNK_MAX) && self.free.contains(end - 1) {
            end -= 1;
            self.free.remove(end);
        }
        self.free.truncate(end);
        self.lowest_free = self.lowest_free.min(end);
        match &mut self.addresses {
            Addresses::V4(a) => a.truncate(end),
            Addresses::V6(a) => a.truncate(end),
        }
        self.dests.truncate(end);
        self.last_change.truncate(end);
        if end == 0 {
            self.paths = Runs::default();
        }
        // An index that is mostly empty is rebuilt, if that is little work.
        if self.index.len() <= REMADE_MAX && self.index.capacity() > 4 * self.index.len() {
            self.index = HashTable::new();
            if end > 0 {
                self.grow_index();
            }
        }
        end
    }

    /// Rebuilds the index at once. It reads prefixes in the order of their slots, sequentially; the
    /// index itself would read them in the order of their hashes to grow.
    #[cold]
    fn grow_index(&mut self) {
        self.growing = None;
        let room = (2 * self.index.capacity()).max(self.dests.len() as usize * 3 / 2).max(64);
        let mut index = HashTable::with_capacity(room);
        for id in 0..self.dests.len() {
            if self.dests.get(id).flags & LIVE != 0 {
                let prefix = Self::prefix_at(&self.addresses, &self.dests, id);
                let hash = Self::hash_of(&self.hash, prefix);
                index.insert_unique(hash, id, |_| unreachable!("there is room"));
            }
        }
        self.index = index;
    }

    /// Removes an empty destination; its id is reused.
    pub(crate) fn free(&mut self, id: DestId) {
        let prefix = self.prefix(id);
        let hash = Self::hash_of(&self.hash, prefix);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id.0) {
            entry.remove();
            if let Some((next, reached)) = &mut self.growing
                && id.0 < *reached
                && let Ok(entry) = next.find_entry(hash, |other| *other == id.0)
            {
                entry.remove();
            }
            *self.dests.get_mut(id.0) = Destination::default();
            self.free.insert(id.0);
            self.lowest_free = self.lowest_free.min(id.0);
        }
    }

    /// Slots, free ones included: ids are below this.
    pub(crate) fn slots(&self) -> u32 {
        self.dests.len()
    }

    /// Destinations, tombstones included.
    pub(crate) fn len(&self) -> u32 {
        self.index.len() as u32
    }

    pub(crate) fn path_count(&self) -> u32 {
        self.path_count
    }

    pub(crate) fn is_live(&self, id: DestId) -> bool {
        self.dests.try_get(id.0).is_some_and(|dest| dest.flags & LIVE != 0)
    }

    #[inline]
    pub(crate) fn paths(&self, id: DestId) -> &[Path] {
        self.paths.get(self.dests.get(id.0).run())
    }

    #[inline]
    pub(crate) fn paths_mut(&mut self, id: DestId) -> &mut [Path] {
        self.paths.get_mut(self.dests.get(id.0).run())
    }

    #[inline]
    pub(crate) fn best(&self, id: DestId) -> Option<&Path> {
        let dest = self.dests.get(id.0);
        (dest.flags & HAS_BEST != 0).then(|| &self.paths.get(dest.run())[0])
    }

    pub(crate) fn find_path(&self, id: DestId, source: SourceId, path_id: PathId) -> Option<usize> {
        self.paths(id).iter().position(|p| p.source == source && p.path_id == path_id.0)
    }

    /// Adds a path or replaces the one with the same source and identifier.
    pub(crate) fn store(&mut self, id: DestId, mut path: Path) -> Stored {
        path.flags.set(PathFlags::WRITTEN);
        let dest = self.dests.get_mut(id.0);
        let run = dest.run();
        let paths = self.paths.get_mut(run);
        let same = |p: &Path| p.source == path.source && p.path_id == path.path_id;
        if let Some(at) = paths.iter().position(same) {
            let old = std::mem::replace(&mut paths[at], path);
            if at == 0 {
                dest.flags |= BEST_TOUCHED;
            }
            return Stored::Replaced(old);
        }
        if paths.len() >= RUN_MAX {
            return Stored::Refused;
        }
        if paths.is_empty() {
            dest.flags |= BEST_TOUCHED;
        }
        dest.set_run(self.paths.push(run, path));
        self.path_count += 1;
        Stored::Added
    }

    /// Removes the path at `at`.
    pub(crate) fn withdraw(&mut self, id: DestId, at: usize) -> Path {
        let dest = self.dests.get_mut(id.0);
        let run = dest.run();
        let path = self.paths.get(run)[at];
        dest.set_run(self.paths.swap_remove(run, at));
        if at == 0 {
            if dest.flags & HAS_BEST != 0 {
                dest.flags |= LOST_BEST;
                self.preferred.subtract(path.source);
            }
            dest.flags = (dest.flags | BEST_TOUCHED) & !HAS_BEST;
        }
        // Another path of the source may take its place, which does not count as written.
        if path.path_id != 0 {
            dest.flags |= ALL_TOUCHED;
        }
        self.path_count -= 1;
        path
    }

    /// Makes the best path count as changed at the next decision, whatever that selects.
    pub(crate) fn touch_best(&mut self, id: DestId) {
        self.dests.get_mut(id.0).flags |= BEST_TOUCHED | ALL_TOUCHED;
    }

    /// Makes every path count as changed at the next decision, though the best one may stay.
    pub(crate) fn touch_all(&mut self, id: DestId) {
        self.dests.get_mut(id.0).flags |= ALL_TOUCHED;
    }

    /// Whether more than single paths has changed since the last call. Paths no longer count as
    /// written.
    pub(crate) fn take_touched(&mut self, id: DestId) -> bool {
        let dest = self.dests.get_mut(id.0);
        let is_touched = dest.flags & ALL_TOUCHED != 0;
        dest.flags &= !ALL_TOUCHED;
        let run = dest.run();
        self.paths.get_mut(run).iter_mut().for_each(|path| path.flags.clear(PathFlags::WRITTEN));
        is_touched
    }

    /// As [`Destinations::set_best`], for a destination with exactly one path, from `source`.
    #[inline]
    pub(crate) fn set_only(&mut self, id: DestId, source: SourceId, usable: bool) -> bool {
        let dest = self.dests.get_mut(id.0);
        let had = dest.flags & (HAS_BEST | LOST_BEST) != 0;
        let touched = dest.flags & BEST_TOUCHED != 0;
        match (dest.flags & HAS_BEST != 0, usable) {
            (false, true) => self.preferred.add(source),
            (true, false) => self.preferred.subtract(source),
            _ => {}
        }
        dest.flags &= !(HAS_BEST | BEST_TOUCHED | LOST_BEST);
        dest.flags |= if usable { HAS_BEST } else { 0 };
        if usable { touched || !had } else { had }
    }

    /// Moves the path at `best` to the front; returns whether the best path changed, appeared,
    /// disappeared, or was written.
    pub(crate) fn set_best(&mut self, id: DestId, best: Option<usize>) -> bool {
        let dest = self.dests.get_mut(id.0);
        let had = dest.flags & (HAS_BEST | LOST_BEST) != 0;
        let touched = dest.flags & BEST_TOUCHED != 0;
        let paths = self.paths.get_mut(dest.run());
        if dest.flags & HAS_BEST != 0 {
            self.preferred.subtract(paths[0].source);
        }
        dest.flags &= !(HAS_BEST | BEST_TOUCHED | LOST_BEST);
        if let Some(at) = best {
            dest.flags |= HAS_BEST;
            self.preferred.add(paths[at].source);
            if at != 0 {
                paths.swap(0, at);
            }
        }
        match best {
            Some(at) => touched || !had || at != 0,
            None => had,
        }
    }

    /// Number of destinations whose best path is from this source.
    pub(crate) fn preferred(&self, source: SourceId) -> u32 {
        self.preferred.get(source)
    }

    /// Number of destinations with a best path.
    pub(crate) fn decided_len(&self) -> u64 {
        self.preferred.total()
    }

    pub(crate) fn fib(&self, id: DestId) -> u32 {
        self.dests.get(id.0).fib
    }

    pub(crate) fn set_fib(&mut self, id: DestId, fib: u32) {
        self.dests.get_mut(id.0).fib = fib;
    }

    #[inline]
    pub(crate) fn last_change(&self, id: DestId) -> u32 {
        *self.last_change.get(id.0)
    }

    /// Records a change; the generation of a destination never decreases.
    #[inline]
    pub(crate) fn note_change(&mut self, id: DestId, generation: u32) {
        let last = self.last_change.get_mut(id.0);
        *last = (*last).max(generation);
    }

    /// Resets the last change of every destination to generation 1, as the generation counter
    /// wraps.
    pub(crate) fn reset_changes(&mut self) {
        for id in 0..self.last_change.len() {
            *self.last_change.get_mut(id) = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: u16, path_id: u32, attrs: u32) -> Path {
        Path {
            source: SourceId(source),
            path_id,
            attrs: super::super::AttrId(attrs),
            ..Path::default()
        }
    }

    #[test]
    fn prefixes_of_different_length_are_different_destinations() {
        for (family, a, b) in [
            (Family::Ipv4, "10.0.0.0/8", "10.0.0.0/9"),
            (Family::Ipv6, "2001:db8::/32", "2001:db8::/33"),
        ] {
            let mut dests = Destinations::new(family, 1);
            let (a, b): (Prefix, Prefix) = (a.parse().unwrap(), b.parse().unwrap());
            let id = dests.find_or_insert(a);
            assert_eq!(dests.find(b), None);
            assert_ne!(dests.find_or_insert(b), id);
            assert_eq!(dests.find_or_insert(a), id);
            assert_eq!(dests.prefix(id), a);
            dests.free(id);
            assert!(dests.find(a).is_none() && !dests.is_live(id));
            assert_eq!((dests.len(), dests.slots()), (1, 2));
        }
    }

    #[test]
    fn the_best_path_comes_first_and_its_changes_are_reported() {
        let mut dests = Destinations::new(Family::Ipv4, 1);
        let id = dests.find_or_insert("10.0.0.0/8".parse().unwrap());
        assert!(matches!(dests.store(id, path(1, 0, 1)), Stored::Added));
        assert!(matches!(dests.store(id, path(2, 0, 2)), Stored::Added));
        assert!(dests.set_best(id, Some(1)));
        assert_eq!(dests.best(id).unwrap().source, SourceId(2));
        assert!(!dests.set_best(id, Some(0)), "nothing was written since");
        assert!(matches!(dests.store(id, path(1, 0, 3)), Stored::Replaced(p) if p.attrs.0 == 1));
        assert!(!dests.set_best(id, Some(0)), "another path than the best was written");
        dests.store(id, path(2, 0, 4));
        assert!(dests.set_best(id, Some(0)));
        dests.withdraw(id, 0);
        assert!(dests.best(id).is_none());
        assert!(dests.set_best(id, None));
        dests.store(id, path(1, 0, 5));
        assert!(!dests.set_best(id, None), "there was none, and there is none");
        assert!(dests.set_best(id, Some(0)));
        assert_eq!(dests.path_count(), 1);
    }
}
