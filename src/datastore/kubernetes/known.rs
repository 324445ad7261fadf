//! The objects of a resource as last sent, so that only differences are sent.
//!
//! The decoded model is compared, never versions or octets: the heartbeat of a Node changes both.
//!
//! Deletions of Calico's own kinds are *held*: they are sent only when they are certain. The
//! deletion of a CRD deletes its objects one after the other, and so does the last step of a
//! migration from one API group to the other; neither is a reason to withdraw a node's routes.

use std::collections::{BTreeMap, BTreeSet};

use super::heartbeat::Mark;
use crate::calico::model::{ApiObject, Decoded, Fault, Object, ObjectId};
use crate::datastore::Change;

/// The known objects of a resource.
#[derive(Debug, Default)]
pub(super) struct Known {
    objects: BTreeMap<ObjectId, Result<Option<Object>, Fault>>,
    /// Objects deleted on the server whose deletion has not been sent.
    held: BTreeSet<ObjectId>,
}

/// How the deletion of an object is treated.
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
    /// Items that cannot be identified, and why.
    pub(super) faults: Vec<Fault>,
    /// The marks of Nodes, by which heartbeats are recognised.
    pub(super) marks: Vec<Mark>,
    /// The version up to which watches have told of every change, where that is to be verified.
    pub(super) watched: Option<String>,
    /// Objects up to that version that differ from what is known.
    missed: BTreeSet<ObjectId>,
    /// Whether nothing has changed since: whatever is gone was gone at that version.
    pub(super) ends_where_watched: bool,
}

impl Listing {
    /// The number of objects.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// How many of its objects a watch should have told of.
    pub(super) fn missed(&self) -> usize {
        self.missed.len()
    }
}

impl Known {
    /// Adds an object to a list that is being read.
    pub(super) fn list(&self, listing: &mut Listing, object: ApiObject) {
        let ApiObject { decoded, version } = object;
        let is_known = self.objects.get(&decoded.id) == Some(&decoded.object);
        let is_told = |watched: &String| version == *watched || is_older(&version, watched);
        if !is_known && listing.watched.as_ref().is_some_and(is_told) {
            listing.missed.insert(decoded.id.clone());
        }
        // If two have the same name, the last one wins.
        if !listing.seen.insert(decoded.id.clone()) {
            listing.put.retain(|put| put.id != decoded.id);
        }
        if !is_known {
            listing.put.push(decoded);
        }
    }

    /// Replaces the known objects by a complete list; returns the changes to send.
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

    /// Adds or replaces an object; returns the change to send, if it differs.
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

    /// Deletes an object, or holds its deletion; returns the change to send.
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

    /// The number of deletions that are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether the deletions held are of more than half of the objects: a list has to confirm them.
    pub(super) fn is_emptying(&self) -> bool {
        self.held.len() * 2 > self.objects.len()
    }

    /// Deletes the objects whose deletion was held; returns the changes to send.
    pub(super) fn release(&mut self) -> Vec<Change> {
        let held = std::mem::take(&mut self.held);
        for id in &held {
            self.objects.remove(id);
        }
        held.into_iter().map(Change::Withdraw).collect()
    }

    /// Discards the deletions that are held: the kind is no longer served, and its objects may
    /// still exist.
    pub(super) fn spare(&mut self) {
        self.held.clear();
    }

    /// All objects, as sent in the first list.
    pub(super) fn objects(&self) -> impl Iterator<Item = Decoded> + '_ {
        let decoded = |(id, object): (&ObjectId, &Result<Option<Object>, Fault>)| Decoded {
            id: id.clone(),
            object: object.clone(),
        };
        self.objects.iter().map(decoded)
    }

    /// The number of objects, including those whose deletion is held.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }
}

/// Whether a version is older than another; `false` unless both are numbers.
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
    fn only_differences_are_sent() {
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
    fn held_deletions_are_sent_when_they_are_certain() {
        let mut known = Known::default();
        list(&mut known, &[("a", 1), ("b", 1), ("c", 1)], Deletion::Held);
        assert_eq!(known.delete(&id("a"), Deletion::Held), None);
        assert!(!known.is_emptying());
        // Deleted and created again: no change.
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
        /// Whatever events were seen or missed, and deletions held or not: after a list and a
        /// release the known objects are those of the server, and so are the objects sent.
        #[test]
        fn the_objects_sent_are_those_of_the_server(
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
