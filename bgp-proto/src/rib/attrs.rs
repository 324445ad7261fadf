//! Attribute sets, interned as canonical bytes with the values that the decision process reads.

use hashbrown::HashTable;

use super::arena::Arena;
use super::hash::{Indexed, Seeded};
use crate::types::Community;
use crate::wire::{AsPath, Attr, AttrView, Origin, attr};

/// An interned attribute set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttrId(pub(crate) u32);

/// Preference of BGP routes unless a policy sets another.
pub(crate) const PREFERENCE_BGP: u16 = 100;
/// LOCAL_PREF of routes that carry none.
pub(crate) const LOCAL_PREF_DEFAULT: u32 = 100;

/// What a policy attaches to a route besides attributes. It is never advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LocalAttrs {
    /// Preference among sources; higher wins.
    pub(crate) preference: u16,
    /// Kernel metric.
    pub(crate) metric: Option<u32>,
}

impl Default for LocalAttrs {
    fn default() -> Self {
        LocalAttrs { preference: PREFERENCE_BGP, metric: None }
    }
}

/// The values of a set that are read for every path, decoded once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttrKey {
    pub(crate) local_pref: u32,
    pub(crate) med: u32,
    /// First AS of the path, 0 if there is none: MED is compared only between paths with the same
    /// one.
    pub(crate) neighbor_asn: u32,
    /// ORIGINATOR_ID, 0 if absent.
    pub(crate) originator_id: u32,
    pub(crate) as_path_len: u16,
    pub(crate) cluster_list_len: u16,
    /// AS numbers in AS_PATH, each member of a set counted.
    pub(crate) asns: u16,
    /// Communities of all kinds.
    pub(crate) communities: u16,
    pub(crate) origin: u8,
    pub(crate) marks: u8,
}

impl AttrKey {
    pub(crate) const NO_EXPORT: u8 = 1;
    pub(crate) const NO_ADVERTISE: u8 = 2;
    pub(crate) const NO_EXPORT_SUBCONFED: u8 = 4;
    pub(crate) const GRACEFUL_SHUTDOWN: u8 = 8;
    pub(crate) const LLGR_STALE: u8 = 16;
    pub(crate) const NO_LLGR: u8 = 32;

    pub(crate) fn of(attrs: AttrView<'_>) -> Self {
        let mut key = AttrKey {
            local_pref: LOCAL_PREF_DEFAULT,
            origin: Origin::Incomplete as u8,
            ..AttrKey::default()
        };
        // One pass over the attributes present.
        for Attr { code, value, .. } in attrs.iter() {
            let number = value.first_chunk().map(|octets| u32::from_be_bytes(*octets));
            match code {
                attr::ORIGIN => key.origin = attrs.origin() as u8,
                attr::AS_PATH => {
                    let path = AsPath::new(value);
                    key.neighbor_asn = path.first().map_or(0, |asn| asn.0);
                    key.as_path_len = u16::try_from(path.length()).unwrap_or(u16::MAX);
                    key.asns = u16::try_from(path.asns().count()).unwrap_or(u16::MAX);
                }
                attr::MULTI_EXIT_DISC => key.med = number.unwrap_or_default(),
                attr::LOCAL_PREF => key.local_pref = number.unwrap_or(LOCAL_PREF_DEFAULT),
                attr::COMMUNITIES => {
                    key.add_communities(value.len() / 4);
                    let list = value.as_chunks().0.iter();
                    key.marks = list.fold(0, |marks, c| marks | mark_of(u32::from_be_bytes(*c)));
                }
                attr::ORIGINATOR_ID => key.originator_id = number.unwrap_or_default(),
                attr::CLUSTER_LIST => {
                    key.cluster_list_len = u16::try_from(value.len() / 4).unwrap_or(u16::MAX);
                }
                attr::EXTENDED_COMMUNITIES => key.add_communities(value.len() / 8),
                attr::LARGE_COMMUNITIES => key.add_communities(value.len() / 12),
                attr::IPV6_EXTENDED_COMMUNITIES => key.add_communities(value.len() / 20),
                _ => {}
            }
        }
        key
    }

    fn add_communities(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.communities = self.communities.saturating_add(count);
    }

    pub(crate) fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }
}

/// The mark that a community stands for, 0 if none.
#[inline]
fn mark_of(community: u32) -> u8 {
    // Every community with a mark is well-known (RFC 1997).
    if community < 0xFFFF_0000 {
        return 0;
    }
    match Community(community) {
        Community::NO_EXPORT => AttrKey::NO_EXPORT,
        Community::NO_ADVERTISE => AttrKey::NO_ADVERTISE,
        Community::NO_EXPORT_SUBCONFED => AttrKey::NO_EXPORT_SUBCONFED,
        Community::GRACEFUL_SHUTDOWN => AttrKey::GRACEFUL_SHUTDOWN,
        Community::LLGR_STALE => AttrKey::LLGR_STALE,
        Community::NO_LLGR => AttrKey::NO_LLGR,
        _ => 0,
    }
}

#[derive(Debug)]
struct AttrSet {
    bytes: Box<[u8]>,
    refs: u32,
    local: LocalAttrs,
    key: AttrKey,
}

/// All attribute sets.
pub(crate) struct AttrTable {
    sets: Arena<AttrSet>,
    free: Vec<u32>,
    index: HashTable<Indexed>,
    hash: Seeded,
    /// Octets of the sets in use.
    octets: u64,
}

impl AttrTable {
    pub(crate) fn new(seed: u64) -> Self {
        AttrTable {
            sets: Arena::default(),
            free: Vec::new(),
            index: HashTable::new(),
            hash: Seeded::new(seed),
            octets: 0,
        }
    }

    /// An empty table with the same hash function.
    pub(crate) fn emptied(&self) -> Self {
        AttrTable { hash: self.hash.clone(), ..AttrTable::new(0) }
    }

    /// The id of a set, with one reference to be released with [`AttrTable::release`].
    pub(crate) fn intern(&mut self, bytes: &[u8], local: LocalAttrs) -> AttrId {
        let hash = self.hash.bytes(bytes, u64::from(local.preference));
        let sets = &self.sets;
        let found = self.index.find(Indexed::place_of(hash), |entry| {
            let set = sets.get(entry.id);
            *set.bytes == *bytes && set.local == local
        });
        if let Some(Indexed { id, .. }) = found.copied() {
            self.sets.get_mut(id).refs += 1;
            return AttrId(id);
        }
        self.octets += bytes.len() as u64;
        let set =
            AttrSet { bytes: bytes.into(), refs: 1, local, key: AttrKey::of(AttrView::new(bytes)) };
        let id = match self.free.pop() {
            Some(id) => {
                *self.sets.get_mut(id) = set;
                id
            }
            None => self.sets.push(set),
        };
        let entry = Indexed::new(id, hash);
        self.index.insert_unique(entry.place(), entry, Indexed::place);
        AttrId(id)
    }

    /// Takes a reference to the set with the same attributes and default [`LocalAttrs`]: to `id`
    /// itself, if it has those.
    pub(crate) fn retain_plain(&mut self, id: AttrId) -> AttrId {
        if self.local(id) == LocalAttrs::default() {
            self.retain(id);
            return id;
        }
        let bytes = self.sets.get(id.0).bytes.clone();
        self.intern(&bytes, LocalAttrs::default())
    }

    #[inline]
    pub(crate) fn retain(&mut self, id: AttrId) {
        self.retain_many(id, 1);
    }

    #[inline]
    pub(crate) fn retain_many(&mut self, id: AttrId, count: u32) {
        self.sets.get_mut(id.0).refs += count;
    }

    #[inline]
    pub(crate) fn release(&mut self, id: AttrId) {
        let set = self.sets.get_mut(id.0);
        set.refs -= 1;
        if set.refs == 0 {
            let hash = self.hash.bytes(&set.bytes, u64::from(set.local.preference));
            self.octets -= set.bytes.len() as u64;
            set.bytes = Box::default();
            let entry = self.index.find_entry(Indexed::place_of(hash), |other| other.id == id.0);
            entry.expect("a live set is in the index").remove();
            self.free.push(id.0);
        }
    }

    #[inline]
    pub(crate) fn key(&self, id: AttrId) -> &AttrKey {
        &self.sets.get(id.0).key
    }

    /// What the decision process reads of a set: its key, and its preference.
    #[inline]
    pub(crate) fn ranked(&self, id: AttrId) -> (&AttrKey, u16) {
        let set = self.sets.get(id.0);
        (&set.key, set.local.preference)
    }

    pub(crate) fn view(&self, id: AttrId) -> AttrView<'_> {
        AttrView::new(&self.sets.get(id.0).bytes)
    }

    #[inline]
    pub(crate) fn local(&self, id: AttrId) -> LocalAttrs {
        self.sets.get(id.0).local
    }

    /// How many references a set has.
    #[inline]
    pub(crate) fn refs(&self, id: AttrId) -> u32 {
        self.sets.get(id.0).refs
    }

    /// Octets of the sets in use.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Sets in use.
    pub(crate) fn len(&self) -> u32 {
        self.sets.len() - self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Asn;
    use crate::wire::AttrEdit;

    #[test]
    fn equal_sets_share_an_id_until_the_last_reference_goes() {
        let mut table = AttrTable::new(7);
        let mut edit = AttrEdit::originate(Origin::Igp);
        let local = LocalAttrs::default();
        let a = table.intern(edit.view().as_bytes(), local);
        let b = table.intern(edit.view().as_bytes(), local);
        assert_eq!(a, b);
        let other = LocalAttrs { preference: 200, ..local };
        let elevated = table.intern(edit.view().as_bytes(), other);
        assert_ne!(a, elevated, "what a policy attached distinguishes sets");
        edit.prepend_as(Asn(65001), 2);
        edit.set_communities(&[Community::NO_EXPORT]);
        let c = table.intern(edit.view().as_bytes(), local);
        assert_eq!(table.key(c).as_path_len, 2);
        assert_eq!(table.key(c).neighbor_asn, 65001);
        assert_eq!(table.key(c).local_pref, LOCAL_PREF_DEFAULT);
        assert!(table.key(c).has(AttrKey::NO_EXPORT));
        assert_eq!(table.len(), 3);
        table.release(a);
        assert_eq!(table.len(), 3);
        table.release(b);
        assert_eq!(table.len(), 2);
        let d = table.intern(&[], local);
        assert_eq!(d, a, "the id is reused");
        assert_eq!(table.view(c).as_path().length(), 2);
    }
}
