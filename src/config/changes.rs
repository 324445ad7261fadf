//! The difference between two configurations, as a reload applies and prints it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::table::TableConfig;
use bgp_proto::types::Prefix;

use super::effective::{Difference, differences};
use super::{
    Config, DynamicPeers, FibSettings, HostRoute, HttpSettings, LogLevel, Originate, PeerEntry,
    Redistribute, Vrf,
};

/// The changes that lead from one configuration to another. They are complete: a reload prints and
/// applies them without comparing the configurations again. They must be applied in the order of
/// the fields, so that addresses and names of removed peers are free for added ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Names of peers that were removed.
    pub peers_removed: Vec<Arc<str>>,
    /// Peers whose session parameters differ: their sessions restart. Their routing parameters may
    /// differ too.
    pub peers_restarted: Vec<PeerEntry>,
    /// Peers of whose session parameters only timers and keys of TCP-AO differ: sessions stay, and the new
    /// timers apply from the next one on. Their routing parameters may differ too.
    pub peers_retimed: Vec<PeerEntry>,
    /// Peers of which only routing parameters differ: sessions stay.
    pub peers_reconfigured: Vec<PeerEntry>,
    /// Of these peers, the keys that differ, by the peer's name.
    pub differences: BTreeMap<Arc<str>, Vec<Difference>>,
    /// Peers with another name but the same address and session parameters, each with its old name:
    /// sessions stay. Routing parameters may differ.
    pub peers_renamed: Vec<(Arc<str>, PeerEntry)>,
    /// Peers that are new.
    pub peers_added: Vec<PeerEntry>,
    /// Whether entries of peers by interface differ, also in what is no parameter of a session: whether
    /// router advertisements are sent.
    pub interfaces_changed: bool,
    /// Ranges of dynamic peers, if any was added, removed or changed.
    pub dynamic: Option<DynamicChanges>,
    /// Names of dynamic peers whose sessions end, because of a range or because a configured peer
    /// takes their address. The daemon adds them: it knows which are connected.
    pub dynamic_ended: Vec<Arc<str>>,
    /// The table's parameters, if they differ.
    pub table: Option<Arc<TableConfig>>,
    /// Whether listening addresses differ. They are bound before anything else is applied, and
    /// missing ones are retried even if nothing differs.
    pub bgp_listen_changed: bool,
    /// Originated routes that were removed.
    pub originate_withdrawn: Vec<Prefix>,
    /// Originated routes that are new.
    pub originate_added: Vec<Originate>,
    /// Originated routes whose kernel route differs.
    pub originate_changed: Vec<Originate>,
    /// Whether VRFs differ: their names, listening addresses, imports, originated routes or
    /// redistribution.
    pub vrfs_changed: bool,
    /// Whether routes differ that VRFs originate or redistribute.
    pub vrf_routes_changed: bool,
    /// Whether VRFs differ, and some VRF, which may be the default one, imports from others before or
    /// after.
    pub vrf_imports_changed: bool,
    /// The rules for redistribution, if they differ.
    pub redistribute: Option<Vec<Redistribute>>,
    /// Host routes to neighbours, if they differ.
    pub host_routes: Option<Vec<HostRoute>>,
    /// Whether [`Config::drain`] differs. Applied before peers are added.
    pub drain_changed: bool,
    /// `log.level`, if it differs.
    pub log_level: Option<LogLevel>,
    /// Whether `[mrt]` differs.
    pub mrt_changed: bool,
    /// Whether `[[bmp]]` differs.
    pub bmp_changed: bool,
    /// Whether the settings differ that select peers with their own metric series.
    pub peer_series_changed: bool,
    /// Whether the status page is served, and to whom, changes.
    pub status_page_changed: bool,
    /// Whether `[calico]` differs: objects are listed again, and until then the running
    /// configuration stays.
    pub calico_changed: bool,
    /// Keys whose new values take effect only after a restart of the process, in the order of the
    /// file's documentation.
    pub restart_needed: Vec<&'static str>,
}

/// Changes to the ranges of dynamic peers.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicChanges {
    /// Ranges that were added, removed or changed.
    pub changed: Vec<Prefix>,
    /// All ranges of the new configuration.
    pub ranges: Vec<DynamicPeers>,
}

/// How a session ends when changes are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// For good.
    Ends,
    /// To be established again with other parameters.
    Restarts,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionEnd::Ends => "ends",
            SessionEnd::Restarts => "restarts",
        })
    }
}

/// A session that ends when changes are applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndingSession<'a> {
    /// The peer's name.
    pub peer: &'a str,
    /// How.
    pub end: SessionEnd,
    /// The keys that differ, if it restarts.
    pub differences: &'a [Difference],
}

impl Vrf {
    /// The changes to originated routes and redistribution that lead to `new`.
    pub fn changes_to(&self, new: &Vrf) -> Changes {
        let mut changes = Changes::default();
        changes.add_originate(&self.originate, &new.originate);
        changes.redistribute =
            (self.redistribute != new.redistribute).then(|| new.redistribute.clone());
        changes
    }
}

/// What VRFs originate and redistribute, for those that do.
fn own_routes(vrfs: &[Vrf]) -> BTreeMap<&str, (&[Originate], &[Redistribute])> {
    let own = vrfs.iter().map(|vrf| (&*vrf.name, (&*vrf.originate, &*vrf.redistribute)));
    own.filter(|(_, (originate, rules))| !originate.is_empty() || !rules.is_empty()).collect()
}

impl Config {
    /// The changes that lead to `new`.
    pub fn changes_to(&self, new: &Config) -> Changes {
        self.changes_among(new, None)
    }

    /// The changes that lead to `new`, if only peers with these names may differ; `None`: any peer.
    pub fn changes_among(&self, new: &Config, names: Option<&BTreeSet<Arc<str>>>) -> Changes {
        let mut changes = Changes::default();
        changes.add_peers(differing_peers(&self.peers, &new.peers, names));
        changes.add_originate(&self.originate, &new.originate);
        changes.interfaces_changed = self.interfaces != new.interfaces;
        changes.dynamic = dynamic_changes(&self.dynamic, &new.dynamic);
        // `fib.enabled` is part of it, and takes effect only after a restart, as do backup paths that wait
        // for next-hop objects.
        let table = TableConfig {
            fib_enabled: self.table.fib_enabled,
            backup_paths: new.table.backup_paths && self.fib.next_hop_objects,
            ..TableConfig::clone(&new.table)
        };
        changes.table = (*self.table != table).then(|| Arc::new(table));
        changes.vrfs_changed = self.vrfs != new.vrfs || self.bgp.import != new.bgp.import;
        changes.vrf_routes_changed = own_routes(&self.vrfs) != own_routes(&new.vrfs);
        changes.vrf_imports_changed =
            changes.vrfs_changed && (self.imports_from_vrfs() || new.imports_from_vrfs());
        changes.bgp_listen_changed = self.bgp.listen != new.bgp.listen;
        changes.redistribute =
            (self.redistribute != new.redistribute).then(|| new.redistribute.clone());
        changes.host_routes =
            (self.host_routes != new.host_routes).then(|| new.host_routes.clone());
        changes.drain_changed = self.drain != new.drain;
        changes.log_level =
            (self.host.log.level != new.host.log.level).then_some(new.host.log.level);
        changes.mrt_changed = self.host.mrt != new.host.mrt;
        changes.bmp_changed = self.host.bmp != new.host.bmp;
        changes.peer_series_changed =
            both(&self.host.http, &new.host.http).is_some_and(|(old, new)| old.peers != new.peers);
        changes.status_page_changed = both(&self.host.http, &new.host.http)
            .is_some_and(|(old, new)| old.listen == new.listen && old.page != new.page);
        changes.restart_needed = self.restart_needed(new);
        changes
    }

    /// Whether some VRF, which may be the default one, imports routes of others.
    pub fn imports_from_vrfs(&self) -> bool {
        !self.bgp.import.is_empty() || self.vrfs.iter().any(|vrf| !vrf.import.is_empty())
    }

    fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let listen = |config: &Config| config.host.http.as_ref().map(|http| http.listen);
        let sources = |config: &Config| (config.fib.source_v4, config.fib.source_v6);
        let fixed = [
            ("fib.enabled", self.fib.enabled != new.fib.enabled),
            ("fib.table", self.fib.table != new.fib.table),
            ("fib.protocol", self.fib.protocol != new.fib.protocol),
            ("fib.metric", self.fib.metric != new.fib.metric),
            ("fib.resolve-over-bgp", self.fib.resolve_over_bgp != new.fib.resolve_over_bgp),
            ("fib.next-hop-objects", self.fib.next_hop_objects != new.fib.next_hop_objects),
            ("fib.backup-paths", new.fib.backup_paths && !self.fib.next_hop_objects),
            ("fib.source", sources(self) != sources(new)),
            ("control.socket", self.host.control.socket != new.host.control.socket),
            ("control.group", self.host.control.group != new.host.control.group),
            ("control.read-only-socket", self.host.control.read_only != new.host.control.read_only),
            (
                "control.bird-sockets",
                self.host.control.bird_sockets != new.host.control.bird_sockets,
            ),
            ("http.listen", listen(self) != listen(new)),
            ("log.format", self.host.log.format != new.host.log.format),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Resets the keys that take effect only after a restart ([`Changes::restart_needed`]) to their
    /// values in `running`, so that this describes what the process really runs.
    pub fn keep_until_restart(&mut self, running: &Config) {
        let FibSettings {
            multipath_max,
            multipath_weights,
            multipath_as_path,
            via_default,
            backup_paths,
            ..
        } = self.fib;
        self.fib = FibSettings {
            multipath_max,
            multipath_weights,
            multipath_as_path,
            via_default,
            backup_paths: backup_paths && running.fib.next_hop_objects,
            ..running.fib.clone()
        };
        let table = Arc::make_mut(&mut self.table);
        table.fib_enabled = running.table.fib_enabled;
        table.backup_paths &= running.fib.next_hop_objects;
        self.host.control = running.host.control.clone();
        self.host.log.format = running.host.log.format;
        self.host.http =
            HttpSettings::until_restart(self.host.http.as_ref(), running.host.http.as_ref());
    }
}

fn both<'a, T>(old: &'a Option<T>, new: &'a Option<T>) -> Option<(&'a T, &'a T)> {
    old.as_ref().zip(new.as_ref())
}

fn dynamic_changes(old: &[DynamicPeers], new: &[DynamicPeers]) -> Option<DynamicChanges> {
    fn by_prefix(ranges: &[DynamicPeers]) -> BTreeMap<(Option<&Arc<str>>, Prefix), &DynamicPeers> {
        ranges.iter().map(|range| ((range.session.vrf.as_ref(), range.prefix), range)).collect()
    }
    let (before, after) = (by_prefix(old), by_prefix(new));
    let differs = |key: &&(Option<&Arc<str>>, Prefix)| before.get(*key) != after.get(*key);
    let all = before.keys().chain(after.keys().filter(|p| !before.contains_key(p)));
    let changed: Vec<Prefix> = all.filter(differs).map(|(_, prefix)| *prefix).collect();
    (!changed.is_empty()).then(|| DynamicChanges { changed, ranges: new.to_vec() })
}

/// The peers of two configurations that may differ: those with these names or, without names, those
/// that do not share their allocations, which are few if one configuration was derived from the
/// other. Both results keep the order of their list.
pub fn differing_peers<'a>(
    old: &'a [PeerEntry],
    new: &'a [PeerEntry],
    names: Option<&BTreeSet<Arc<str>>>,
) -> (Vec<&'a PeerEntry>, Vec<&'a PeerEntry>) {
    let Some(names) = names else { return not_the_same(old, new) };
    let named = |peers: &'a [PeerEntry]| peers.iter().filter(|p| names.contains(&p.name)).collect();
    (named(old), named(new))
}

/// Compares the two lists like a simple diff: equal heads are skipped; otherwise entries of one
/// list are skipped up to the head of the other, if it is found nearby. The results may include
/// equal peers, but never lack a peer that differs.
fn not_the_same<'a>(
    old: &'a [PeerEntry],
    new: &'a [PeerEntry],
) -> (Vec<&'a PeerEntry>, Vec<&'a PeerEntry>) {
    /// How far to search in one list for the head of the other.
    const LOOK_AHEAD: usize = 16;
    let is_kept = |a: &PeerEntry, b: &PeerEntry| {
        Arc::ptr_eq(&a.name, &b.name)
            && Arc::ptr_eq(&a.session, &b.session)
            && Arc::ptr_eq(&a.routes, &b.routes)
            && a.description == b.description
            && a.bfd == b.bfd
            && a.fallover == b.fallover
    };
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old, new);
    while let ([a, old_rest @ ..], [b, new_rest @ ..]) = (old, new) {
        let skip_old = || old_rest.iter().take(LOOK_AHEAD).position(|x| is_kept(x, b));
        let skip_new = || new_rest.iter().take(LOOK_AHEAD).position(|x| is_kept(a, x));
        let (from_old, from_new) = if is_kept(a, b) {
            (old, new) = (old_rest, new_rest);
            continue;
        } else if let Some(at) = skip_new() {
            (0, at + 1)
        } else if let Some(at) = skip_old() {
            (at + 1, 0)
        } else {
            (1, 1)
        };
        let (skipped, rest) = old.split_at(from_old);
        gone.extend(skipped);
        old = rest;
        let (skipped, rest) = new.split_at(from_new);
        come.extend(skipped);
        new = rest;
    }
    gone.extend(old);
    come.extend(new);
    (gone, come)
}

/// Compares by content; fast if both are the same allocation.
pub(super) fn is_same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

impl Changes {
    /// The sessions that end: of removed peers, of those that restart, and of dynamic peers.
    pub fn ending_sessions(&self) -> impl Iterator<Item = EndingSession<'_>> {
        let ending = |peer, end| EndingSession {
            peer,
            end,
            differences: self.differences.get(peer).map(Vec::as_slice).unwrap_or_default(),
        };
        let removed = self.peers_removed.iter().map(move |name| ending(name, SessionEnd::Ends));
        let restarted =
            self.peers_restarted.iter().map(move |peer| ending(&peer.name, SessionEnd::Restarts));
        let dynamic = self.dynamic_ended.iter().map(move |name| ending(name, SessionEnd::Ends));
        removed.chain(restarted).chain(dynamic)
    }

    fn add_peers(&mut self, (old, new): (Vec<&PeerEntry>, Vec<&PeerEntry>)) {
        let before: HashMap<&Arc<str>, &PeerEntry> =
            old.iter().map(|peer| (&peer.name, *peer)).collect();
        let after: HashSet<&Arc<str>> = new.iter().map(|peer| &peer.name).collect();
        // The same address may be in two VRFs.
        fn place(peer: &PeerEntry) -> (Option<&Arc<str>>, IpAddr) {
            (peer.session.vrf.as_ref(), peer.session.address)
        }
        let mut gone: BTreeMap<_, &PeerEntry> =
            old.iter().filter(|p| !after.contains(&p.name)).map(|p| (place(p), *p)).collect();
        for peer in new {
            let list = match before.get(&peer.name).copied() {
                None => match gone.get(&place(peer)) {
                    Some(old) if is_same(&old.session, &peer.session) => {
                        self.peers_renamed.push((Arc::clone(&old.name), peer.clone()));
                        gone.remove(&place(peer));
                        continue;
                    }
                    _ => &mut self.peers_added,
                },
                Some(old) if old == peer => continue,
                Some(old) => {
                    self.differences.insert(Arc::clone(&peer.name), differences(old, peer));
                    if is_same(&old.session, &peer.session) {
                        &mut self.peers_reconfigured
                    } else if old.session.differs_only_in_timers(&peer.session) {
                        &mut self.peers_retimed
                    } else {
                        &mut self.peers_restarted
                    }
                }
            };
            list.push(peer.clone());
        }
        let gone =
            old.iter().filter(|p| gone.get(&place(p)).is_some_and(|left| left.name == p.name));
        self.peers_removed = gone.map(|p| Arc::clone(&p.name)).collect();
    }

    fn add_originate(&mut self, old: &[Originate], new: &[Originate]) {
        // Bandwidths follow the endpoints of services: many routes, of which few differ.
        let is_aligned = old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| old.prefix == new.prefix);
        if is_aligned {
            let mut changed: BTreeMap<Prefix, &Originate> = BTreeMap::new();
            for (old, new) in old.iter().zip(new) {
                // Of several entries of a prefix, the last one counts.
                if old == new {
                    changed.remove(&new.prefix);
                } else {
                    changed.insert(new.prefix, new);
                }
            }
            self.originate_changed = changed.into_values().cloned().collect();
            return;
        }
        let by_prefix = |routes: &[Originate]| -> BTreeMap<Prefix, Originate> {
            routes.iter().map(|o| (o.prefix, o.clone())).collect()
        };
        let (before, after) = (by_prefix(old), by_prefix(new));
        self.originate_withdrawn =
            before.keys().filter(|p| !after.contains_key(p)).copied().collect();
        for (prefix, route) in after {
            match before.get(&prefix) {
                None => self.originate_added.push(route),
                Some(old) if *old != route => self.originate_changed.push(route),
                Some(_) => {}
            }
        }
    }

    /// The keys of a changed peer that differ, in parentheses.
    fn which_keys(&self, peer: &str) -> String {
        match self.differences.get(peer).map(Vec::as_slice) {
            None | Some([]) => String::new(),
            Some(keys) => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                format!(" ({})", keys.join(", "))
            }
        }
    }

    /// Whether a peer whose session stays differs in nothing but this key.
    fn differs_only_in(&self, peer: &str, key: &str) -> bool {
        let stays = self.peers_retimed.iter().any(|entry| *entry.name == *peer);
        let keys = self.differences.get(peer).filter(|_| stays);
        keys.is_some_and(|keys| keys.iter().all(|difference| difference.key == key))
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// One line for each change.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.peers_removed.iter().map(|name| format!("peer {name}: removed")));
        let peers = [
            (&self.peers_restarted, "session parameters changed, session restarts"),
            (&self.peers_retimed, "timers changed, session stays, the next one has the new timers"),
            (&self.peers_reconfigured, "routing parameters changed, session stays"),
            (&self.peers_added, "added"),
        ];
        for (peers, what) in peers {
            lines.extend(peers.iter().map(|peer| {
                let what = if self.differs_only_in(&peer.name, "tcp-ao") {
                    "keys of TCP-AO changed, session stays"
                } else {
                    what
                };
                format!("peer {}: {what}{}", peer.name, self.which_keys(&peer.name))
            }));
        }
        let renamed = self.peers_renamed.iter();
        lines.extend(
            renamed.map(|(old, new)| format!("peer {old}: renamed to {}, session stays", new.name)),
        );
        let ranges = self.dynamic.iter().flat_map(|dynamic| &dynamic.changed);
        lines.extend(ranges.map(|p| format!("dynamic peers {p}: changed")));
        let flags = [
            (self.interfaces_changed, "peers by interface: changed"),
            (self.table.is_some(), "routing parameters of the process: changed"),
            (self.bgp_listen_changed, "listening addresses: changed"),
            (self.vrfs_changed, "VRFs: changed"),
            (self.redistribute.is_some(), "redistribution: changed"),
            (self.host_routes.is_some(), "host routes to neighbours: changed"),
            (self.drain_changed, "drain by the node's object: changed"),
            (self.log_level.is_some(), "log level: changed"),
            (self.mrt_changed, "MRT files: changed"),
            (self.bmp_changed, "monitoring stations: changed"),
            (self.peer_series_changed, "peers with metrics of their own: changed"),
            (self.status_page_changed, "status page: changed"),
            (self.calico_changed, "calico: changed, objects are listed again"),
        ];
        lines.extend(flags.iter().filter(|(on, _)| *on).map(|(_, what)| (*what).to_owned()));
        lines.extend(self.originate_withdrawn.iter().map(|p| format!("originate {p}: withdrawn")));
        let own = [(&self.originate_added, "added"), (&self.originate_changed, "changed")];
        for (routes, what) in own {
            lines.extend(routes.iter().map(|o| format!("originate {}: {what}", o.prefix)));
        }
        lines.extend(
            self.restart_needed
                .iter()
                .map(|key| format!("{key}: the new value takes effect after a restart of margay")),
        );
        lines
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&self.lines().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::session::{LocalIdentity, PeerConfig};
    use bgp_proto::table::PeerRoutes;
    use bgp_proto::types::{Asn, RouterId};
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u8) -> PeerEntry {
        let identity = LocalIdentity { asn: Asn(1), router_id: RouterId(1) };
        let address = IpAddr::from([10, 0, 0, number]);
        PeerEntry {
            name: number.to_string().into(),
            description: None,
            session: Arc::new(PeerConfig::new(address, Asn(1), &identity)),
            routes: Arc::new(PeerRoutes::new(number.to_string())),
            bfd: None,
            fallover: crate::config::Fallover::Timers,
            interface: None,
        }
    }

    #[test]
    fn sessions_end_of_removed_restarted_and_dynamic_peers() {
        let differs = Difference { key: "hold-time", old: None, new: Some("9".into()) };
        let changes = Changes {
            peers_removed: vec!["a".into()],
            peers_restarted: vec![entry(2)],
            peers_reconfigured: vec![entry(3)],
            peers_added: vec![entry(4)],
            dynamic_ended: vec!["d".into()],
            differences: BTreeMap::from([("2".into(), vec![differs.clone()])]),
            ..Changes::default()
        };
        let ending: Vec<_> = changes
            .ending_sessions()
            .map(|ending| (ending.peer, ending.end.to_string(), ending.differences.to_vec()))
            .collect();
        let wanted = [
            ("a", "ends".to_owned(), vec![]),
            ("2", "restarts".to_owned(), vec![differs]),
            ("d", "ends".to_owned(), vec![]),
        ];
        assert_eq!(ending, wanted);
    }

    fn without(list: &[PeerEntry], left_out: &[&PeerEntry]) -> Vec<usize> {
        let kept = list.iter().filter(|peer| !left_out.iter().any(|p| std::ptr::eq(*p, *peer)));
        kept.map(|peer| Arc::as_ptr(&peer.session).addr()).collect()
    }

    #[test]
    fn one_additional_peer_is_the_only_difference() {
        let all: Vec<PeerEntry> = (0..100).map(entry).collect();
        let mut fewer = all.clone();
        fewer.remove(40);
        let (gone, come) = differing_peers(&fewer, &all, None);
        assert!(gone.is_empty() && come.len() == 1 && come[0].name == all[40].name);
        let (gone, come) = differing_peers(&all, &fewer, None);
        assert!(come.is_empty() && gone.len() == 1 && gone[0].name == all[40].name);
    }

    proptest! {
        #[test]
        fn peers_that_are_left_out_are_equal_and_in_the_same_order(
            old in prop::sample::subsequence((0..40u8).collect::<Vec<_>>(), 0..40),
            new in prop::sample::subsequence((0..40u8).collect::<Vec<_>>(), 0..40).prop_shuffle(),
            is_shuffled: bool,
        ) {
            let pool: Vec<PeerEntry> = (0..40).map(entry).collect();
            let pick = |numbers: &[u8]| -> Vec<PeerEntry> {
                numbers.iter().map(|n| pool[usize::from(*n)].clone()).collect()
            };
            let mut new = new;
            if !is_shuffled {
                new.sort_unstable();
            }
            let (old, new) = (pick(&old), pick(&new));
            let (gone, come) = differing_peers(&old, &new, None);
            prop_assert_eq!(without(&old, &gone), without(&new, &come));
        }
    }
}
