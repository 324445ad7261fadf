//! The peers that a command concerns: by name, by address, by a pattern of names, or by a group: a range, or the
//! name that a range or a pattern of interfaces gives its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::policy::glob_matches;
use bgp_proto::types::{PeerId, Prefix, off_interface};

use super::registry::{Record, Registry};
use crate::config::{Config, InterfacePeers};
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
    /// such peer. `config` has the names of the groups.
    ///
    /// # Errors
    /// A name without a peer, or none or too many names.
    pub(super) fn named(
        registry: &Registry,
        config: &Config,
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
            let group = Group::of(name, config);
            let mut matching = all.iter().filter(|record| group.has(record)).peekable();
            let is_absent = |known: &&Arc<str>| {
                (***known == **name || group.has_name(known)) && registry.named(known).is_none()
            };
            let mut absent = known.iter().filter(is_absent).cloned().peekable();
            if matching.peek().is_none() && absent.peek().is_none() {
                return Err(registry.not_found(name));
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
    /// Those of ranges and of peers by interface with this name.
    Named(Named<'a>),
}

/// The ranges and the peers by interface that have a configured name. Without one, they are no group, though
/// the names of their peers may begin with that of their VRF.
struct Named<'a> {
    name: &'a str,
    is_range: bool,
    patterns: Vec<&'a InterfacePeers>,
}

impl Named<'_> {
    fn has_in_range(&self, name: &str) -> bool {
        self.is_range && part_in(self.name, name).and_then(address_in).is_some()
    }

    fn has_on_interface(&self, name: &str) -> bool {
        let part = part_in(self.name, name);
        part.is_some_and(|interface| self.patterns.iter().any(|of| of.matches(interface)))
    }
}

impl Group<'_> {
    fn of<'a>(word: &'a str, config: &'a Config) -> Group<'a> {
        match word.parse() {
            Ok(prefix) if word.contains('/') => Group::Prefix(prefix),
            _ if word.contains(['*', '?']) => Group::Pattern(word),
            _ => Group::Named(Named {
                name: word,
                is_range: config.dynamic.iter().any(|range| range.name.as_deref() == Some(word)),
                patterns: config
                    .interfaces
                    .iter()
                    .filter(|of| of.is_pattern() && of.name.as_deref() == Some(word))
                    .collect(),
            }),
        }
    }

    fn has(&self, record: &Record) -> bool {
        match (self, &record.interface) {
            (Group::Prefix(prefix), _) => prefix.contains_addr(off_interface(record.address).0),
            (Group::Named(group), Some(_)) => group.has_on_interface(&record.name),
            (Group::Named(group), None) => {
                record.range.is_some() && group.has_in_range(&record.name)
            }
            (Group::Pattern(_), _) => self.has_name(&record.name),
        }
    }

    /// The same for a peer of which only the name is known, such as one of a range that is shut down, or on
    /// an interface that is gone.
    fn has_name(&self, name: &str) -> bool {
        match self {
            Group::Pattern(pattern) => glob_matches(pattern, name),
            Group::Prefix(prefix) => {
                let own = name.rsplit('-').next().and_then(address_in);
                own.is_some_and(|address| prefix.contains_addr(address))
            }
            Group::Named(group) => group.has_in_range(name) || group.has_on_interface(name),
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
    use std::path::Path;

    use super::*;

    #[test]
    fn groups_know_their_peers_by_their_names() {
        let text = r#"
            [bgp]
            asn = 64512
            router-id = "192.0.2.1"
            [[bgp.dynamic-peers]]
            name = "rack"
            prefix = "10.0.0.0/8"
            remote-asn = 64512
            [[bgp.dynamic-peers]]
            vrf = "blue"
            prefix = "10.0.0.0/8"
            remote-asn = 64512
            [[bgp.peers]]
            name = "spine"
            interface = "swp*"
            remote-asn = 64512
            [[vrfs]]
            name = "blue"
        "#;
        let config = Config::parse(Path::new("m.toml"), text).unwrap();
        let has = |group: &str, name: &str| Group::of(group, &config).has_name(name);
        for (group, name) in [
            ("rack", "rack-10.0.0.7"),
            ("rack", "rack-fe80::7%3"),
            ("10.0.0.0/24", "rack-10.0.0.7"),
            ("10.0.0.0/24", "10.0.0.7"),
            ("fe80::/10", "rack-fe80::7%3"),
            ("rack-*", "rack-10.0.0.7"),
            ("spine", "spine-swp1"),
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
            // On no interface of the pattern, and without a configured name.
            ("spine", "spine-b"),
            ("rack", "rack-swp1"),
            ("blue", "blue-10.0.0.7"),
        ] {
            assert!(!has(group, name), "{group}: {name}");
        }
    }
}
