//! The Adj-RIB-Out of an update group: four octets per destination, or a short list with ADD-PATH.

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::ExportId;
use crate::rib::{Arena, DestId, Path, Run, Runs, SourceId};

/// One advertised path of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advertised {
    /// The path identifier sent; 0 without ADD-PATH.
    pub(crate) tx: u32,
    /// [`ExportId::NONE`] marks a withdrawn path, kept until every member has processed the
    /// withdrawal.
    pub(crate) out: ExportId,
}

/// Path identifiers sent: one per (source, received identifier), the same for every destination,
/// and stable while a path with it is advertised. A source that sends no identifiers needs no
/// entry.
#[derive(Clone, Debug)]
pub(crate) struct TxIds {
    index: HashMap<(SourceId, u32), u32, foldhash::quality::FixedState>,
    /// Source, received identifier, number of references.
    entries: Slab<(SourceId, u32, u32)>,
}

/// Identifiers below this are a source plus one, for sources that send no identifiers.
const TX_PAIRS: u32 = 1 << 16;

impl TxIds {
    fn new(seed: u64) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        TxIds { index: HashMap::with_hasher(hasher), entries: Slab::new() }
    }

    /// The identifier for a path. Takes no reference.
    fn of(&mut self, path: &Path) -> u32 {
        if path.path_id == 0 {
            return u32::from(path.source.0) + 1;
        }
        let key = (path.source, path.path_id);
        if let Some(tx) = self.index.get(&key) {
            return *tx;
        }
        let tx = self.entries.insert((path.source, path.path_id, 0)) as u32 + TX_PAIRS;
        self.index.insert(key, tx);
        tx
    }

    /// The identifier of a path, if it has one.
    fn find(&self, path: &Path) -> Option<u32> {
        match path.path_id {
            0 => Some(u32::from(path.source.0) + 1),
            id => self.index.get(&(path.source, id)).copied(),
        }
    }

    fn retain(&mut self, tx: u32) {
        if let Some(at) = tx.checked_sub(TX_PAIRS) {
            self.entries[at as usize].2 += 1;
        }
    }

    fn release(&mut self, tx: u32) {
        let Some(at) = tx.checked_sub(TX_PAIRS) else { return };
        let (source, path_id, refs) = &mut self.entries[at as usize];
        *refs -= 1;
        if *refs == 0 && self.index.remove(&(*source, *path_id)).is_some() {
            self.entries.remove(at as usize);
        }
    }
}

/// The advertised state of all destinations.
#[derive(Clone, Debug)]
pub(crate) enum AdjRibOut {
    Best(Arena<ExportId>),
    Paths { lists: Arena<Run>, runs: Runs<Advertised>, tx_ids: TxIds },
}

/// A short copy of what is advertised about one destination.
pub(crate) type AdvertisedPaths = SmallVec<[Advertised; 4]>;

impl AdjRibOut {
    /// `seed` keeps a peer from choosing path identifiers that collide in the hash table.
    pub(crate) fn new(add_path: bool, seed: u64) -> Self {
        if add_path {
            AdjRibOut::Paths {
                lists: Arena::default(),
                runs: Runs::default(),
                tx_ids: TxIds::new(seed),
            }
        } else {
            AdjRibOut::Best(Arena::default())
        }
    }

    /// Everything advertised about a destination, withdrawn paths included.
    #[inline]
    pub(crate) fn get(&self, dest: DestId) -> AdvertisedPaths {
        match self {
            AdjRibOut::Best(outs) => match outs.try_get(dest.0) {
                Some(&out) if out != ExportId::NONE => {
                    SmallVec::from_slice(&[Advertised { tx: 0, out }])
                }
                _ => SmallVec::new(),
            },
            AdjRibOut::Paths { lists, runs, .. } => match lists.try_get(dest.0) {
                Some(run) => SmallVec::from_slice(runs.get(*run)),
                None => SmallVec::new(),
            },
        }
    }

    /// Without ADD-PATH: what is advertised about a destination.
    #[inline]
    pub(crate) fn best(&self, dest: DestId) -> ExportId {
        match self {
            AdjRibOut::Best(outs) => outs.try_get(dest.0).copied().unwrap_or(ExportId::NONE),
            AdjRibOut::Paths { .. } => ExportId::NONE,
        }
    }

    /// Whether storing this destination allocates.
    #[inline]
    pub(crate) fn needs_memory(&self, dest: DestId) -> bool {
        Arena::<ExportId>::begins_chunk(dest.0) && dest.0 >= self.slots()
    }

    /// Without ADD-PATH: sets what is advertised and returns the previous value.
    #[inline]
    pub(crate) fn replace_best(&mut self, dest: DestId, out: ExportId) -> ExportId {
        match self {
            AdjRibOut::Best(outs) => {
                if dest.0 >= outs.len() {
                    if out != ExportId::NONE {
                        outs.grow(dest.0);
                        outs.push(out);
                    }
                    return ExportId::NONE;
                }
                std::mem::replace(outs.get_mut(dest.0), out)
            }
            AdjRibOut::Paths { .. } => ExportId::NONE,
        }
    }

    /// With ADD-PATH: the identifier that a path is advertised with.
    pub(crate) fn tx_id(&mut self, path: &Path) -> u32 {
        match self {
            AdjRibOut::Best(_) => 0,
            AdjRibOut::Paths { tx_ids, .. } => tx_ids.of(path),
        }
    }

    /// The same, without giving the path an identifier if it has none.
    pub(crate) fn known_tx_id(&self, path: &Path) -> Option<u32> {
        match self {
            AdjRibOut::Best(_) => Some(0),
            AdjRibOut::Paths { tx_ids, .. } => tx_ids.find(path),
        }
    }

    /// With ADD-PATH: replaces the list and updates the references of path identifiers.
    pub(crate) fn replace_list(&mut self, dest: DestId, list: &[Advertised]) {
        let AdjRibOut::Paths { lists, runs, tx_ids } = self else { return };
        if list.is_empty() && dest.0 >= lists.len() {
            return;
        }
        lists.grow(dest.0 + 1);
        let slot = lists.get_mut(dest.0);
        list.iter().for_each(|path| tx_ids.retain(path.tx));
        runs.get(*slot).iter().for_each(|path| tx_ids.release(path.tx));
        if usize::from(slot.len) == list.len() {
            runs.get_mut(*slot).copy_from_slice(list);
        } else {
            runs.free(*slot);
            *slot = runs.store(list);
        }
    }

    /// The same identifiers, and no paths: to be filled with [`AdjRibOut::copy`] while this one
    /// does not change.
    pub(super) fn without_paths(&self) -> Self {
        match self {
            AdjRibOut::Best(_) => AdjRibOut::Best(Arena::default()),
            AdjRibOut::Paths { tx_ids, .. } => AdjRibOut::Paths {
                lists: Arena::default(),
                runs: Runs::default(),
                tx_ids: tx_ids.clone(),
            },
        }
    }

    /// Stores a list whose path identifiers are already counted.
    pub(super) fn copy(&mut self, dest: DestId, list: &[Advertised]) {
        match self {
            AdjRibOut::Best(outs) => {
                outs.grow(dest.0 + 1);
                *outs.get_mut(dest.0) = list.first().map_or(ExportId::NONE, |path| path.out);
            }
            AdjRibOut::Paths { lists, runs, .. } => {
                lists.grow(dest.0 + 1);
                *lists.get_mut(dest.0) = runs.store(list);
            }
        }
    }

    /// Frees the memory of destinations from `slots` on, none of which is advertised.
    pub(super) fn truncate(&mut self, slots: u32) {
        match self {
            AdjRibOut::Best(outs) => outs.truncate(slots),
            AdjRibOut::Paths { lists, .. } => lists.truncate(slots),
        }
    }

    /// One above the highest destination that may have an entry.
    pub(crate) fn slots(&self) -> u32 {
        match self {
            AdjRibOut::Best(outs) => outs.len(),
            AdjRibOut::Paths { lists, .. } => lists.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: u16, path_id: u32) -> Path {
        Path { source: SourceId(source), path_id, ..Path::default() }
    }

    #[test]
    fn an_identifier_lives_as_long_as_it_is_advertised() {
        let mut out = AdjRibOut::new(true, 1);
        let plain = out.tx_id(&path(3, 0));
        let first = out.tx_id(&path(3, 77));
        assert_ne!(plain, first);
        assert_eq!(out.tx_id(&path(3, 77)), first);
        let entry = |tx, out| Advertised { tx, out: ExportId(out) };
        out.replace_list(DestId(5), &[entry(first, 1)]);
        out.replace_list(DestId(6), &[entry(first, 2), entry(plain, 3)]);
        out.replace_list(DestId(5), &[]);
        assert_eq!(out.tx_id(&path(3, 77)), first, "destination 6 still has it");
        out.replace_list(DestId(6), &[entry(first, 0)]);
        assert_eq!(out.tx_id(&path(3, 77)), first, "a withdrawn path keeps it");
        out.replace_list(DestId(6), &[]);
        let other = out.tx_id(&path(4, 1));
        assert_eq!(other, first, "reused for the next path");
        assert!(out.get(DestId(5)).is_empty() && out.get(DestId(99)).is_empty());
    }
}
