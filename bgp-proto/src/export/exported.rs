//! Exported routes: attributes, next hop, source and what reflection adds. Each combination is
//! stored once for all groups.

use hashbrown::HashTable;

use super::Reflection;
use crate::rib::{Arena, AttrId, AttrTable, Indexed, NextHopId, NextHops, Seeded, SourceId};

/// Identifies an [`ExportedRoute`]; 0 is "not advertised".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExportId(pub(crate) u32);

impl ExportId {
    pub(crate) const NONE: ExportId = ExportId(0);
}

/// Members that do not read a frame: the peer that the route was received from (split horizon), and
/// the one that is its next hop (RFC 4271 §5.1.3). They rarely differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Except {
    pub(crate) source: SourceId,
    /// [`SourceId::NONE`] if it is the source, or not a peer.
    pub(crate) next_hop: SourceId,
}

impl Except {
    pub(crate) const NOBODY: Except = Except { source: SourceId::NONE, next_hop: SourceId::NONE };

    /// For a route from `source`; `neighbor` is the peer that is its next hop, or [`SourceId::NONE`].
    pub(crate) fn of(source: SourceId, neighbor: SourceId) -> Self {
        Except { source, next_hop: if neighbor == source { SourceId::NONE } else { neighbor } }
    }

    #[inline]
    pub(crate) fn contains(self, peer: SourceId) -> bool {
        self.source == peer || self.next_hop == peer
    }

    /// Whoever is in both.
    pub(crate) fn and(self, other: Except) -> Except {
        let both = |peer: SourceId| if other.contains(peer) { peer } else { SourceId::NONE };
        Except { source: both(self.source), next_hop: both(self.next_hop) }
    }

    /// Both; either may be [`SourceId::NONE`].
    pub(crate) fn each(self) -> [SourceId; 2] {
        [self.source, self.next_hop]
    }
}

impl Default for Except {
    fn default() -> Self {
        Except::NOBODY
    }
}

/// An advertised route without its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExportedRoute {
    pub(crate) attrs: AttrId,
    pub(crate) next_hop: NextHopId,
    /// Members that are not sent it.
    pub(crate) except: Except,
    pub(crate) reflection: Option<Reflection>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    out: ExportedRoute,
    refs: u32,
}

/// All advertised routes.
pub(crate) struct ExportTable {
    entries: Arena<Entry>,
    free: Vec<u32>,
    index: HashTable<Indexed>,
    hash: Seeded,
}

fn hash_of(hash: &Seeded, out: &ExportedRoute) -> u64 {
    // Routes of one source are reflected alike, so reflection data distinguishes few entries.
    let low = u64::from(out.attrs.0) << 32 | u64::from(out.next_hop.0);
    hash.word(low ^ u64::from(out.except.source.0).rotate_right(16))
}

impl ExportTable {
    pub(crate) fn new(seed: u64) -> Self {
        let mut entries = Arena::default();
        entries.push(Entry::default());
        ExportTable { entries, free: Vec::new(), index: HashTable::new(), hash: Seeded::new(seed) }
    }

    /// The id of `out`, with one reference. The table takes over the caller's references to
    /// attributes and next hop.
    pub(crate) fn intern(
        &mut self,
        out: ExportedRoute,
        attrs: &mut AttrTable,
        hops: &mut NextHops,
    ) -> ExportId {
        let hash = hash_of(&self.hash, &out);
        let entries = &self.entries;
        let found = self.index.find(Indexed::place_of(hash), |at| entries.get(at.id).out == out);
        if let Some(Indexed { id, .. }) = found.copied() {
            attrs.release(out.attrs);
            hops.release(out.next_hop);
            self.entries.get_mut(id).refs += 1;
            return ExportId(id);
        }
        let entry = Entry { out, refs: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                *self.entries.get_mut(id) = entry;
                id
            }
            None => self.entries.push(entry),
        };
        let at = Indexed::new(id, hash);
        self.index.insert_unique(at.place(), at, Indexed::place);
        ExportId(id)
    }

    pub(crate) fn octets(&self) -> u64 {
        self.index.len() as u64 * 48
    }

    #[inline]
    pub(crate) fn retain(&mut self, id: ExportId) {
        if id != ExportId::NONE {
            self.entries.get_mut(id.0).refs += 1;
        }
    }

    #[inline(always)]
    pub(crate) fn release(&mut self, id: ExportId, attrs: &mut AttrTable, hops: &mut NextHops) {
        if id != ExportId::NONE {
            self.release_some(id, attrs, hops);
        }
    }

    fn release_some(&mut self, id: ExportId, attrs: &mut AttrTable, hops: &mut NextHops) {
        let entry = self.entries.get_mut(id.0);
        entry.refs -= 1;
        if entry.refs == 0 {
            let out = entry.out;
            let hash = hash_of(&self.hash, &out);
            let found = self.index.find_entry(Indexed::place_of(hash), |other| other.id == id.0);
            found.expect("a live entry is in the index").remove();
            self.free.push(id.0);
            attrs.release(out.attrs);
            hops.release(out.next_hop);
        }
    }

    /// `id` is not [`ExportId::NONE`].
    #[inline]
    pub(crate) fn get(&self, id: ExportId) -> &ExportedRoute {
        &self.entries.get(id.0).out
    }

    /// Members that are not sent it; none if nothing is advertised.
    #[inline]
    pub(crate) fn except(&self, id: ExportId) -> Except {
        if id == ExportId::NONE { Except::NOBODY } else { self.get(id).except }
    }
}
