//! What groups have told: attributes, next hop, source and what reflection adds, each combination
//! once for all groups.

use hashbrown::HashTable;

use super::Reflection;
use crate::rib::{Arena, AttrId, AttrTable, Indexed, NextHopId, NextHops, Seeded, SourceId};

/// An advertised route without its prefix; 0 is "not advertised".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OutId(pub(crate) u32);

impl OutId {
    pub(crate) const NONE: OutId = OutId(0);
}

/// What an [`OutId`] stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) attrs: AttrId,
    pub(crate) next_hop: NextHopId,
    /// Who is spared.
    pub(crate) source: SourceId,
    pub(crate) reflection: Option<Reflection>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    out: Out,
    refs: u32,
}

/// All advertised routes.
pub(crate) struct OutTable {
    entries: Arena<Entry>,
    free: Vec<u32>,
    index: HashTable<Indexed>,
    hash: Seeded,
}

fn hash_of(hash: &Seeded, out: &Out) -> u64 {
    // One source's routes are reflected alike: what reflection adds tells few entries apart.
    let low = u64::from(out.attrs.0) << 32 | u64::from(out.next_hop.0);
    hash.word(low ^ u64::from(out.source.0).rotate_right(16))
}

impl OutTable {
    pub(crate) fn new(seed: u64) -> Self {
        let mut entries = Arena::default();
        entries.push(Entry::default());
        OutTable { entries, free: Vec::new(), index: HashTable::new(), hash: Seeded::new(seed) }
    }

    /// The id of `out`, with one reference. The caller's references to attributes and next hop go
    /// into the table.
    pub(crate) fn intern(&mut self, out: Out, attrs: &mut AttrTable, hops: &mut NextHops) -> OutId {
        let hash = hash_of(&self.hash, &out);
        let entries = &self.entries;
        let found = self.index.find(Indexed::place_of(hash), |at| entries.get(at.id).out == out);
        if let Some(Indexed { id, .. }) = found.copied() {
            attrs.release(out.attrs);
            hops.release(out.next_hop);
            self.entries.get_mut(id).refs += 1;
            return OutId(id);
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
        OutId(id)
    }

    #[inline]
    pub(crate) fn retain(&mut self, id: OutId) {
        if id != OutId::NONE {
            self.entries.get_mut(id.0).refs += 1;
        }
    }

    #[inline]
    pub(crate) fn release(&mut self, id: OutId, attrs: &mut AttrTable, hops: &mut NextHops) {
        if id == OutId::NONE {
            return;
        }
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

    /// `id` is not [`OutId::NONE`].
    #[inline]
    pub(crate) fn get(&self, id: OutId) -> &Out {
        &self.entries.get(id.0).out
    }

    /// Who is spared; nobody if nothing is advertised.
    #[inline]
    pub(crate) fn source(&self, id: OutId) -> SourceId {
        if id == OutId::NONE { SourceId::NONE } else { self.get(id).source }
    }
}
