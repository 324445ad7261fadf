//! The peers that a command concerns: by name, by address, by a pattern of names, or by a group: a range, or the
//! name that a range or a pattern of interfaces gives its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::glob_matches;
use bgp_proto::types::{PeerId, Prefix, off_interface};

use super::registry::{Record, Registry};
use crate::ctl::{ErrorKind, Refusal};

/// Most names in one command.
const NAMES_MAX: usize = 10_000;

/// Whether a peer was named, or selected by a pattern or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Named,
    Matched,
}

/// The peers that a command concerns.
#[derive(Default)]
pub(super) struct Chosen {
    /// Each peer once; named, if it was named and matched.
    pub(super) records: Vec<(Arc<Record>, How)>,
    /// Names without a peer at present that the command knows nonetheless.
    pub(super) absent: Vec<Arc<str>>,
    /// The position of each peer in `records`.
    positions: BTreeMap<PeerId, usize>,
}

impl Chosen {
    /// Every peer.
    pub(super) fn all(registry: &Registry) -> Self {
        let mut chosen = Chosen::default();
        registry.all().iter().for_each(|record| chosen.add(record, How::Matched));
        chosen
    }

    /// The peers with these names or addresses, and those that the patterns and groups among them select.
    /// `known`: names that are accepted, and selected by patterns and groups, although there may be no
    /// such peer.
    ///
    /// # Errors
    /// A name without a peer, or none or too many names.
    pub(super) fn named(
        registry: &Registry,
        names: &[String],
        known: &BTreeSet<Arc<str>>,
    ) -> Result<Self, Refusal> {
        if names.is_empty() || names.len() > NAMES_MAX {
            let text = format!("name 1 to {NAMES_MAX} peers, or all of them");
            return Err(Refusal { kind: ErrorKind::BadRequest, text });
        }
        let all = registry.all();
        let mut chosen = Chosen::default();
        for name in names {
            if let Some(record) = registry.find(name) {
                chosen.add(&record, How::Named);
                continue;
            }
            let group = Group::of(name);
            let mut matching = all.iter().filter(|record| group.has(record)).peekable();
            let is_absent = |known: &&Arc<str>| {
                (***known == **name || group.has_name(known)) && registry.named(known).is_none()
            };
            let mut absent = known.iter().filter(is_absent).cloned().peekable();
            if matching.peek().is_none() && absent.peek().is_none() {
                return Err(Refusal::no_peer(name, all.iter().map(|record| &*record.name)));
            }
            matching.for_each(|record| chosen.add(record, How::Matched));
            chosen.absent.extend(absent);
        }
        chosen.absent.sort();
        chosen.absent.dedup();
        Ok(chosen)
    }

    fn add(&mut self, record: &Arc<Record>, how: How) {
        let position = *self.positions.entry(record.id).or_insert(self.records.len());
        match self.records.get_mut(position) {
            Some((_, before)) if how == How::Named => *before = how,
            Some(_) => {}
            None => self.records.push((Arc::clone(record), how)),
        }
    }
}

/// Several peers by one word.
enum Group<'a> {
    /// Those whose names match.
    Pattern(&'a str),
    /// Those whose addresses are in it.
    Prefix(Prefix),
    /// Those that a range, or a pattern of interfaces, of this name has.
    Named(&'a str),
}

impl Group<'_> {
    fn of(word: &str) -> Group<'_> {
        match word.parse() {
            Ok(prefix) if word.contains('/') => Group::Prefix(prefix),
            _ if word.contains(['*', '?']) => Group::Pattern(word),
            _ => Group::Named(word),
        }
    }

    fn has(&self, record: &Record) -> bool {
        match (self, &record.interface) {
            (Group::Prefix(prefix), _) => prefix.contains_addr(off_interface(record.address).0),
            (Group::Named(group), Some(interface)) => {
                part_in(group, &record.name).is_some_and(|own| own == &**interface)
            }
            (Group::Named(_), None) => record.range.is_some() && self.has_name(&record.name),
            (Group::Pattern(_), _) => self.has_name(&record.name),
        }
    }

    /// The same for a peer of which only the name is known, such as one of a range that is shut down.
    fn has_name(&self, name: &str) -> bool {
        match self {
            Group::Pattern(pattern) => glob_matches(pattern, name),
            Group::Prefix(prefix) => {
                let own = name.rsplit('-').next().and_then(address_in);
                own.is_some_and(|address| prefix.contains_addr(address))
            }
            Group::Named(group) => part_in(group, name).and_then(address_in).is_some(),
        }
    }
}

/// What follows the group's name in that of a peer.
fn part_in<'a>(group: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(group)?.strip_prefix('-')
}

/// The address in the name of a peer of a range; the index of its interface may follow it.
fn address_in(part: &str) -> Option<IpAddr> {
    part.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_know_their_peers_by_their_names() {
        let has = |group: &str, name: &str| Group::of(group).has_name(name);
        for (group, name) in [
            ("rack", "rack-10.0.0.7"),
            ("rack", "rack-fe80::7%3"),
            ("10.0.0.0/24", "rack-10.0.0.7"),
            ("10.0.0.0/24", "10.0.0.7"),
            ("fe80::/10", "rack-fe80::7%3"),
            ("rack-*", "rack-10.0.0.7"),
        ] {
            assert!(has(group, name), "{group}: {name}");
        }
        for (group, name) in [
            ("rac", "rack-10.0.0.7"),
            ("rack", "rack"),
            ("rack", "rack-b-10.0.0.7"),
            ("rack", "rack-b"),
            ("10.0.1.0/24", "rack-10.0.0.7"),
            ("10.0.0.7", "rack-10.0.0.7"),
            ("rack-?", "rack-10.0.0.7"),
        ] {
            assert!(!has(group, name), "{group}: {name}");
        }
    }
}
