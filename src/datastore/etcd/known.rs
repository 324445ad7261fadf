//! The last state sent of each key, so that a new list sends only differences.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use crate::calico::Problem;
use crate::calico::model::{Decoded, Kind, ObjectId, decode_etcd, etcd_object};
use crate::datastore::{Change, Event};

/// Keys and a hash of each value. The hash has a random key, so that no one can craft a value that
/// collides with another; revisions would not do, as they repeat after a restore.
#[derive(Debug, Default)]
pub(super) struct Known {
    values: Option<BTreeMap<Box<str>, u64>>,
    /// By key, as text.
    problems: BTreeMap<String, Problem>,
    hasher: RandomState,
}

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    values: BTreeMap<Box<str>, u64>,
    put: Vec<Decoded>,
    problems: BTreeMap<String, Problem>,
}

/// How a key is to be read.
enum Key<'a> {
    /// The key of an object.
    Object(&'a str),
    /// A key that Calico never writes, and why.
    Wrong(&'static str),
    /// Not ours.
    Other,
}

impl Known {
    /// Adds a key and its value to a list.
    pub(super) fn list(&self, listing: &mut Listing, key: &[u8], value: &[u8]) {
        let key = match classify(key) {
            Key::Object(key) => key,
            Key::Other => return,
            Key::Wrong(why) => {
                let (key, problem) = problem(key, why);
                listing.problems.insert(key, problem);
                return;
            }
        };
        let hash = self.hasher.hash_one(value);
        let old = self.values.as_ref().and_then(|values| values.get(key));
        if old != Some(&hash)
            && let Some(decoded) = decode_etcd(key, value)
        {
            listing.put.push(decoded);
        }
        listing.values.insert(key.into(), hash);
    }

    /// Replaces the known state with a complete list; returns the events to send.
    pub(super) fn apply(&mut self, listing: Listing) -> Vec<Event> {
        let Listing { values, put, problems } = listing;
        let mut events = Vec::new();
        match self.values.replace(values) {
            None => events.push(Event::Listed(put)),
            Some(old) => {
                let new = self.values.as_ref();
                let is_gone = |key: &str| !new.is_some_and(|new| new.contains_key(key));
                let gone = old.keys().filter(|key| is_gone(key)).filter_map(|key| etcd_object(key));
                let changes: Vec<Change> =
                    gone.map(Change::Withdraw).chain(put.into_iter().map(Change::Put)).collect();
                if !changes.is_empty() {
                    events.push(Event::Changed(changes));
                }
            }
        }
        if problems != self.problems {
            self.problems = problems;
            events.push(self.problems_event());
        }
        events
    }

    /// Stores a new value; returns the event to send, if any.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Option<Event> {
        match classify(key) {
            Key::Object(key) => {
                let hash = self.hasher.hash_one(value);
                let old = self.values.get_or_insert_default().insert(key.into(), hash);
                let is_new = old != Some(hash);
                let decoded = if is_new { decode_etcd(key, value) } else { None };
                decoded.map(|decoded| Event::Changed(vec![Change::Put(decoded)]))
            }
            Key::Wrong(why) => {
                let (key, problem) = problem(key, why);
                let is_new = self.problems.insert(key, problem).is_none();
                is_new.then(|| self.problems_event())
            }
            Key::Other => None,
        }
    }

    /// Removes a key; returns the event to send, if any.
    pub(super) fn withdraw(&mut self, key: &[u8]) -> Option<Event> {
        match classify(key) {
            Key::Object(key) => {
                self.values.as_mut()?.remove(key)?;
                Some(Event::Changed(vec![Change::Withdraw(etcd_object(key)?)]))
            }
            Key::Wrong(_) => {
                self.problems.remove(&*String::from_utf8_lossy(key))?;
                Some(self.problems_event())
            }
            Key::Other => None,
        }
    }

    /// Number of known objects.
    pub(super) fn len(&self) -> usize {
        self.values.as_ref().map_or(0, BTreeMap::len)
    }

    fn problems_event(&self) -> Event {
        Event::Problems(self.problems.values().cloned().collect())
    }
}

fn problem(key: &[u8], why: &str) -> (String, Problem) {
    let key = String::from_utf8_lossy(key).into_owned();
    let problem = Problem::new(&key, format!("{why}: it is skipped"));
    (key, problem)
}

fn classify(key: &[u8]) -> Key<'_> {
    let Ok(key) = str::from_utf8(key) else {
        return Key::Wrong("the key is not text (UTF-8)");
    };
    match etcd_object(key) {
        None => Key::Other,
        // Two keys of one object would make the result depend on the order of their changes.
        Some(id) if id.kind == Kind::BlockAffinity && affinity_key(&id).as_deref() != Some(key) => {
            Key::Wrong("the key does not name the block as Calico writes it")
        }
        Some(_) => Key::Object(key),
    }
}

/// The key that Calico writes for an affinity.
fn affinity_key(id: &ObjectId) -> Option<String> {
    let (node, cidr) = id.name.split_once('/')?;
    let family = if cidr.contains(':') { "ipv6" } else { "ipv4" };
    Some(format!("/calico/ipam/v2/host/{node}/{family}/block/{}", cidr.replace('/', "-")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: impl std::fmt::Display) -> String {
        format!("/calico/resources/v3/projectcalico.org/bgppeers/{name}")
    }

    fn value(number: u8) -> String {
        format!("{{\"spec\":{{\"asNumber\":{number}}}}}")
    }

    fn listed(known: &mut Known, objects: &[(String, String)]) -> Vec<Event> {
        let mut listing = Listing::default();
        for (key, value) in objects {
            known.list(&mut listing, key.as_bytes(), value.as_bytes());
        }
        known.apply(listing)
    }

    fn text(events: &[Event]) -> Vec<String> {
        let change = |change: &Change| match change {
            Change::Put(decoded) => format!("+{}", decoded.id),
            Change::Withdraw(id) => format!("-{id}"),
        };
        let event = |event: &Event| match event {
            Event::Listed(objects) => objects.iter().map(|o| format!("={}", o.id)).collect(),
            Event::Changed(changes) => changes.iter().map(change).collect(),
            Event::Problems(problems) => {
                problems.iter().map(|p| format!("!{}: {}", p.object, p.text)).collect()
            }
            Event::State(state) => vec![format!("{state:?}")],
        };
        events.iter().flat_map(|e| -> Vec<String> { event(e) }).collect()
    }

    #[test]
    fn a_second_list_sends_only_what_differs() {
        let mut known = Known::default();
        let first = [(key("a"), value(1)), (key("b"), value(1)), (key("c"), value(1))];
        assert_eq!(text(&listed(&mut known, &first)), ["=BGPPeer/a", "=BGPPeer/b", "=BGPPeer/c"]);
        assert_eq!(listed(&mut known, &first), []);
        let second = [(key("b"), value(2)), (key("c"), value(1)), (key("d"), value(1))];
        let events = listed(&mut known, &second);
        assert_eq!(text(&events), ["-BGPPeer/a", "+BGPPeer/b", "+BGPPeer/d"]);
        assert_eq!(listed(&mut known, &[]).len(), 1);
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn an_empty_list_is_sent_once() {
        let mut known = Known::default();
        assert_eq!(listed(&mut known, &[]), [Event::Listed(Vec::new())]);
        assert_eq!(listed(&mut known, &[]), []);
    }

    #[test]
    fn values_that_were_sent_are_not_sent_again() {
        let mut known = Known::default();
        listed(&mut known, &[(key("a"), value(1))]);
        assert_eq!(known.put(key("a").as_bytes(), value(1).as_bytes()), None);
        let changed = known.put(key("a").as_bytes(), value(2).as_bytes());
        assert_eq!(text(changed.as_slice()), ["+BGPPeer/a"]);
        assert_eq!(text(known.withdraw(key("a").as_bytes()).as_slice()), ["-BGPPeer/a"]);
        assert_eq!(known.withdraw(key("a").as_bytes()), None);
        assert_eq!(known.put(b"/calico/ipam/v2/host/me", b"{}"), None);
    }

    #[test]
    fn keys_that_calico_never_writes_are_reported_while_they_exist() {
        let mut known = Known::default();
        let odd = "/calico/ipam/v2/host/me/ipv4/block/10.0.0.5-26".to_owned();
        let fine = "/calico/ipam/v2/host/me/ipv6/block/fd00:10:65::-122".to_owned();
        let events = listed(&mut known, &[(odd.clone(), "{}".into()), (fine, "{}".into())]);
        let wrong = "the key does not name the block as Calico writes it: it is skipped";
        let named = format!("!{odd}: {wrong}");
        assert_eq!(text(&events), ["=BlockAffinity/me/fd00:10:65::/122", &named]);
        assert_eq!(known.put(odd.as_bytes(), b"{\"state\":\"pending\"}"), None);
        let not_text = known.put(b"/calico/\xff", b"");
        assert_eq!(text(not_text.as_slice()).len(), 2);
        known.withdraw(b"/calico/\xff").unwrap();
        assert_eq!(known.withdraw(odd.as_bytes()), Some(Event::Problems(Vec::new())));
    }

    proptest! {
        /// After any changes, seen or not, repeating the last list yields no event.
        #[test]
        fn changes_and_lists_give_the_same_result(
            steps in prop::collection::vec((0u8..5, prop::option::of(0u8..3), any::<bool>()), 0..40),
        ) {
            let mut known = Known::default();
            listed(&mut known, &[]);
            let mut store: BTreeMap<String, String> = BTreeMap::new();
            for (name, number, is_seen) in steps {
                let key = key(name);
                match number {
                    Some(number) => drop(store.insert(key.clone(), value(number))),
                    None => drop(store.remove(&key)),
                }
                if is_seen {
                    match store.get(&key) {
                        Some(value) => drop(known.put(key.as_bytes(), value.as_bytes())),
                        None => drop(known.withdraw(key.as_bytes())),
                    }
                }
            }
            let all: Vec<(String, String)> = store.into_iter().collect();
            listed(&mut known, &all);
            prop_assert_eq!(known.len(), all.len());
            prop_assert_eq!(listed(&mut known, &all), []);
        }
    }
}
