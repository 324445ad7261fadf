//! Rehearsals of other parameters, compared with applying them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::table::{
    ImportDifference, Intended, PeerDifference, PeerRoutes, Rehearsal, RouteFilter, TableConfig,
    Work,
};
use bgp_proto::types::{Family, NextHop, PathId, PeerId, Prefix};

use super::World;
use crate::model::{PEERS, PREFIXES};

/// What a peer is sent.
type Sent = BTreeMap<(Prefix, PathId), (Arc<[u8]>, Option<NextHop>)>;

/// What a peer sent: whether it was accepted, and after import attributes, next hop and preference.
type Held = BTreeMap<(Prefix, PathId), (bool, Arc<[u8]>, Option<NextHop>, u16)>;

impl World {
    /// Rehearses random changes, applies them, and compares. The table is settled.
    pub(crate) fn check_rehearsal(&mut self, changes: &[[u8; 5]], budget: u32) {
        let mut intended = Intended::new(Arc::clone(&self.config));
        intended.next_hops = self.model.hops.clone().into_iter().collect();
        let mut replaced = Vec::new();
        for [what, a, b, c, d] in changes.iter().copied() {
            let peer = usize::from(a) % PEERS;
            let id = PeerId(peer as u32);
            match what % 9 {
                0 => replaced.push(peer),
                1 | 2 => {
                    let (key, route) = self.note_own(usize::from(b) % PREFIXES, a, c);
                    intended.local.insert(key, route);
                }
                3 => {
                    let config =
                        TableConfig { long_lived: true, ..TableConfig::clone(&intended.config) };
                    self.model.is_long_lived = true;
                    intended.config = Arc::new(config);
                }
                4 => {
                    self.model.multipath_max = 1 + usize::from(c) % 3;
                    let multipath_max = self.model.multipath_max;
                    let config =
                        TableConfig { multipath_max, ..TableConfig::clone(&intended.config) };
                    intended.config = Arc::new(config);
                }
                _ => drop(intended.routes.insert(id, self.note_settings(peer, b, c, d))),
            }
        }
        intended.ending = replaced.iter().map(|peer| PeerId(*peer as u32)).collect();
        let before = self.sent_to_all();
        let held = self.held_from_all();
        let mut rehearsal = Rehearsal::new(self.table.snapshot(), intended.clone(), 100_000);
        while !self.table.rehearse(&mut rehearsal, Work(budget)).is_over {}
        assert!(!rehearsal.has_changed() && !rehearsal.is_deferred());
        assert_eq!(self.sent_to_all(), before, "a rehearsal changes nothing");
        self.apply_intended(intended, &replaced);
        self.settle();
        let after = self.sent_to_all();
        let said = rehearsal.differences();
        for peer in (0..PEERS).filter(|peer| !replaced.contains(peer)) {
            let id = PeerId(peer as u32);
            let said = said.get(&id).copied().unwrap_or_default();
            let mut listed = rehearsal.listed(id);
            for family in Family::ALL {
                let done = difference(&before[peer], &after[peer], family);
                assert_eq!(
                    said[family], done,
                    "peer {peer} {family}: said (left), done (right); listed: {listed:?}"
                );
            }
            let imported = rehearsal.imports().get(&id).copied().unwrap_or_default();
            let after_import = self.held_from(peer);
            for family in Family::ALL {
                let done = import_difference(&held[peer], &after_import, family);
                assert_eq!(imported[family], done, "import from peer {peer} {family}: said, done");
            }
            // Routes that an ADD-PATH peer is not sent yet have no identifier.
            listed.retain(|route| {
                let key = (route.prefix, route.path_id.unwrap_or_default());
                let is = |sent: &Sent, route: &Option<bgp_proto::table::SentRoute>| {
                    sent.get(&key).map(|(attrs, hop)| (attrs, *hop))
                        == route.as_ref().map(|sent| (&sent.attrs, sent.next_hop))
                };
                let is_new = route.before.is_none() && route.path_id.is_none();
                let is_so = is(&before[peer], &route.before) && is(&after[peer], &route.after);
                !(is_so || is_new)
            });
            assert!(listed.is_empty(), "peer {peer}: {listed:?} were listed, and not so");
        }
    }

    fn apply_intended(&mut self, intended: Intended, replaced: &[usize]) {
        let Intended { config, routes, local, .. } = intended;
        for peer in replaced {
            self.replace(*peer);
        }
        self.config = Arc::clone(&config);
        self.table.configure(config);
        let configured: Vec<(PeerId, Arc<PeerRoutes>)> = routes.into_iter().collect();
        for (peer, routes) in configured {
            self.table.peer_configure(peer, routes);
        }
        for ((prefix, source), route) in local {
            self.table.handle_local(self.now, prefix, source, route);
        }
        self.turn_due = true;
    }

    fn sent_to_all(&self) -> Vec<Sent> {
        (0..PEERS).map(|peer| self.sent_to(peer)).collect()
    }

    fn sent_to(&self, peer: usize) -> Sent {
        let advertised_to = Some(PeerId(peer as u32));
        let filter = RouteFilter { advertised_to, ..RouteFilter::default() };
        let (all, _) = self.table.view(&filter, 0, usize::MAX, self.now);
        let routes = all.into_iter().flat_map(|destination| {
            let prefix = destination.prefix;
            destination.paths.into_iter().map(move |path| (prefix, path))
        });
        routes.map(|(prefix, p)| ((prefix, p.path_id), (p.attrs, p.next_hop))).collect()
    }

    fn held_from_all(&self) -> Vec<Held> {
        (0..PEERS).map(|peer| self.held_from(peer)).collect()
    }

    fn held_from(&self, peer: usize) -> Held {
        let received_from = Some(PeerId(peer as u32));
        let filter = RouteFilter { received_from, ..RouteFilter::default() };
        let (all, _) = self.table.view(&filter, 0, usize::MAX, self.now);
        let routes = all.into_iter().flat_map(|destination| {
            let prefix = destination.prefix;
            destination.paths.into_iter().map(move |path| (prefix, path))
        });
        let held = routes.map(|(prefix, path)| {
            let is_accepted = path.unusable.is_none_or(|why| !why.is_refusal());
            ((prefix, path.path_id), (is_accepted, path.attrs, path.next_hop, path.preference))
        });
        held.collect()
    }
}

fn import_difference(before: &Held, after: &Held, family: Family) -> ImportDifference {
    let mut difference = ImportDifference::default();
    for (key, old) in before.iter().filter(|((prefix, _), _)| prefix.family() == family) {
        let Some(new) = after.get(key) else { continue };
        match (old.0, new.0) {
            (false, true) => difference.accepted += 1,
            (true, false) => difference.rejected += 1,
            (true, true) if old != new => difference.changed += 1,
            _ => {}
        }
    }
    difference
}

fn difference(before: &Sent, after: &Sent, family: Family) -> PeerDifference {
    let of = |sent: &Sent| -> Sent {
        sent.clone().into_iter().filter(|((prefix, _), _)| prefix.family() == family).collect()
    };
    let (before, after) = (of(before), of(after));
    let mut difference = PeerDifference::default();
    for (key, route) in &after {
        match before.get(key) {
            None => difference.announced += 1,
            Some(old) if old != route => difference.changed += 1,
            Some(_) => {}
        }
    }
    difference.withdrawn = before.keys().filter(|key| !after.contains_key(key)).count() as u64;
    difference
}
