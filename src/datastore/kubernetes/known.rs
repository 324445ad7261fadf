//! The objects of a resource as last sent, so that differences only are sent.
//!
//! Compared is the decoded model, never versions or octets: the heartbeat of a Node changes both.
//!
//! Deletions of Calico's own kinds are *held*: sent only once they are certain. The deletion of a
//! CRD deletes its objects one after the other, and so does the last step of a migration from one
//! API group to the other, which is no reason to take a node's routing away.

use std::collections::{BTreeMap, BTreeSet};

use super::heartbeat::Mark;
use crate::calico::model::{ApiObject, Decoded, Fault, Object, ObjectId};
use crate::datastore::Change;

/// What is known of a resource.
#[derive(Debug, Default)]
pub(super) struct Known {
    objects: BTreeMap<ObjectId, Result<Option<Object>, Fault>>,
    /// Deleted on the server and not sent yet.
    held: BTreeSet<ObjectId>,
}

/// What becomes of an object that the server does not have any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// It is sent at once.
    Told,
    /// It waits for [`Known::release`].
    Held,
}

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    seen: BTreeSet<ObjectId>,
    put: Vec<Decoded>,
    /// Objects without a name, in words.
    pub(super) faults: Vec<Fault>,
    /// Of Nodes: what heartbeats are told by.
    pub(super) marks: Vec<Mark>,
}

impl Listing {
    /// How many objects it holds.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}

impl Known {
    /// Takes an object into a list.
    pub(super) fn list(&self, listing: &mut Listing, object: ApiObject) {
        let ApiObject { decoded, .. } = object;
        let is_known = self.objects.get(&decoded.id) == Some(&decoded.object);
        // Of two with one name the last counts.
        if !listing.seen.insert(decoded.id.clone()) {
            listing.put.retain(|put| put.id != decoded.id);
        }
        if !is_known {
            listing.put.push(decoded);
        }
    }

    /// Puts a complete list in the place of what was known; what there is to tell about it.
    pub(super) fn apply(&mut self, listing: Listing, deletion: Deletion) -> Vec<Change> {
        let Listing { seen, put, .. } = listing;
        let gone: Vec<ObjectId> =
            self.objects.keys().filter(|id| !seen.contains(*id)).cloned().collect();
        self.held.retain(|id| !seen.contains(id));
        let mut changes: Vec<Change> =
            gone.into_iter().filter_map(|id| self.delete(&id, deletion)).collect();
        for decoded in put {
            self.objects.insert(decoded.id.clone(), decoded.object.clone());
            changes.push(Change::Put(decoded));
        }
        changes
    }

    /// Takes an object in; what there is to tell about it.
    pub(super) fn put(&mut self, object: ApiObject) -> Option<Change> {
        let ApiObject { decoded, .. } = object;
        if !self.held.is_empty() {
            self.held.remove(&decoded.id);
        }
        match self.objects.get_mut(&decoded.id) {
            Some(known) if *known == decoded.object => return None,
            Some(known) => known.clone_from(&decoded.object),
            None => drop(self.objects.insert(decoded.id.clone(), decoded.object.clone())),
        }
        Some(Change::Put(decoded))
    }

    /// Takes an object out; what there is to tell about it.
    pub(super) fn delete(&mut self, id: &ObjectId, deletion: Deletion) -> Option<Change> {
        if !self.objects.contains_key(id) {
            return None;
        }
        match deletion {
            Deletion::Held => {
                self.held.insert(id.clone());
                None
            }
            Deletion::Told => {
                self.held.remove(id);
                self.objects.remove(id);
                Some(Change::Withdraw(id.clone()))
            }
        }
    }

    /// How many deletions are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether most objects are among those whose deletion is held: reason to ask before it is
    /// believed.
    pub(super) fn is_emptying(&self) -> bool {
        self.held.len() * 2 > self.objects.len()
    }

    /// The deletions that were held are certain; what there is to tell about them.
    pub(super) fn release(&mut self) -> Vec<Change> {
        let held = std::mem::take(&mut self.held);
        for id in &held {
            self.objects.remove(id);
        }
        held.into_iter().map(Change::Withdraw).collect()
    }

    /// The kind is no longer served, its objects may still exist: those whose deletion was held stay.
    pub(super) fn spare(&mut self) {
        self.held.clear();
    }

    /// Everything, as it is first sent.
    pub(super) fn objects(&self) -> impl Iterator<Item = Decoded> + '_ {
        let decoded = |(id, object): (&ObjectId, &Result<Option<Object>, Fault>)| Decoded {
            id: id.clone(),
            object: object.clone(),
        };
        self.objects.iter().map(decoded)
    }

    /// How many objects are in force.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }
}

/// Whether a version is older than another, as far as both are numbers.
pub(super) fn is_older(version: &str, than: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    number(version).zip(number(than)).is_some_and(|(version, than)| version < than)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calico::model::{Kind, decode_api};

    fn object(name: &str, asn: u32, version: u64) -> ApiObject {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}},"spec":{{"asNumber":{asn}}}}}"#
        );
        decode_api(Kind::BgpPeer, json.as_bytes()).unwrap()
    }

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::BgpPeer, name)
    }

    fn list(known: &mut Known, objects: &[(&str, u32)], deletion: Deletion) -> Vec<Change> {
        let mut listing = Listing::default();
        for (name, asn) in objects {
            known.list(&mut listing, object(name, *asn, 1));
        }
        known.apply(listing, deletion)
    }

    fn names(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Put(decoded) => format!("+{}", decoded.id.name),
            Change::Withdraw(id) => format!("-{}", id.name),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn only_what_differs_is_told() {
        let mut known = Known::default();
        assert_eq!(names(&list(&mut known, &[("a", 1), ("b", 1)], Deletion::Told)), ["+a", "+b"]);
        assert_eq!(list(&mut known, &[("a", 1), ("b", 1)], Deletion::Told), []);
        assert_eq!(known.put(object("a", 1, 9)), None, "a heartbeat");
        let changes = list(&mut known, &[("b", 2), ("c", 1)], Deletion::Told);
        assert_eq!(names(&changes), ["-a", "+b", "+c"]);
        assert_eq!(names(known.delete(&id("b"), Deletion::Told).as_slice()), ["-b"]);
        assert_eq!(known.delete(&id("b"), Deletion::Told), None);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn held_deletions_are_told_when_they_are_certain() {
        let mut known = Known::default();
        list(&mut known, &[("a", 1), ("b", 1), ("c", 1)], Deletion::Held);
        assert_eq!(known.delete(&id("a"), Deletion::Held), None);
        assert!(!known.is_emptying());
        // Deleted and created again: as if nothing had been.
        assert_eq!(known.put(object("a", 1, 5)), None);
        assert_eq!(list(&mut known, &[("c", 1)], Deletion::Held), []);
        assert!(known.is_emptying());
        assert_eq!(list(&mut known, &[("b", 1), ("c", 1)], Deletion::Held), []);
        assert_eq!(names(&known.release()), ["-a"]);
        list(&mut known, &[], Deletion::Held);
        known.spare();
        assert_eq!((known.release(), known.len()), (Vec::new(), 2), "the kind was gone");
    }

    proptest! {
        /// Whatever is seen or missed, and held or not: after a list and what is held, exactly what
        /// the server has is known, and what was sent says the same.
        #[test]
        fn what_was_told_is_what_the_server_has(
            steps in prop::collection::vec((0usize..4, prop::option::of(0u32..3), 0u8..4), 0..60),
        ) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let mut known = Known::default();
            let mut server: BTreeMap<&str, u32> = BTreeMap::new();
            let mut told: BTreeMap<ObjectId, Decoded> = BTreeMap::new();
            let mut tell = |changes: Vec<Change>| for change in changes {
                match change {
                    Change::Put(decoded) => drop(told.insert(decoded.id.clone(), decoded)),
                    Change::Withdraw(id) => drop(told.remove(&id)),
                }
            };
            let deletion = |is_held| if is_held { Deletion::Held } else { Deletion::Told };
            let mut version = 1;
            for (at, asn, how) in steps {
                let name = NAMES[at];
                version += 1;
                match asn {
                    Some(asn) => drop(server.insert(name, asn)),
                    None => drop(server.remove(name)),
                }
                match (how, asn) {
                    (0, _) => {}
                    (1, _) => {
                        let objects: Vec<_> = server.iter().map(|(n, a)| (*n, *a)).collect();
                        tell(list(&mut known, &objects, deletion(version % 2 == 0)));
                    }
                    (_, Some(asn)) => tell(known.put(object(name, asn, version)).into_iter().collect()),
                    (how, None) => {
                        tell(known.delete(&id(name), deletion(how == 2)).into_iter().collect());
                    }
                }
            }
            let objects: Vec<_> = server.iter().map(|(n, a)| (*n, *a)).collect();
            tell(list(&mut known, &objects, Deletion::Held));
            tell(known.release());
            let expected: Vec<Decoded> =
                objects.iter().map(|(n, a)| object(n, *a, 1).decoded).collect();
            prop_assert_eq!(told.into_values().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(known.objects().collect::<Vec<_>>(), expected);
        }
    }
}
