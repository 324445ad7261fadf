//! The sessions of a family in order, assembled per neighbour address.
//!
//! Entries of the peer table, sessions of the mesh and ports compete for one neighbour address. A
//! change therefore reassembles the addresses that it touches, and the list is updated in place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::Prefix;

use super::plan::{PlannedSession, Problem, Session};
use super::policies::PolicyPair;
use super::sessions::Scope;

/// Hashes neighbours' addresses. They come from the cluster's own objects, so a fast hash without
/// protection against chosen collisions will do.
type AddressHash = foldhash::fast::FixedState;

/// Up to this many changed addresses are inserted one by one; with more, the list is sorted once.
const IN_PLACE_MAX: usize = 64;

/// The route to a neighbour for which a BGPPeer names a gateway (`reachableBy`).
#[derive(Clone, Debug)]
pub(super) struct HostRoute {
    pub(super) scope: Scope,
    /// The neighbour's port.
    pub(super) port: u16,
    pub(super) gateway: IpAddr,
    /// Name of the BGPPeer.
    pub(super) peer: Arc<str>,
}

/// Sessions, routes and problems of one neighbour address.
#[derive(Debug, Default)]
pub(super) struct AtAddress {
    /// Sorted by name, each name once; with the session that shadows it, if any.
    sessions: Vec<(Arc<Session>, Option<Arc<str>>)>,
    pub(super) routes: Vec<HostRoute>,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl AtAddress {
    /// Notes that `peer` names an address that `holder`, another BGPPeer, has already.
    pub(super) fn note_shadowed(&mut self, peer: &str, holder: &str, addr: IpAddr) {
        let text = format!("{addr} is a neighbour by BGPPeer/{holder} already: that one counts");
        self.notes.push(Problem::new(format!("BGPPeer/{peer}"), text));
    }

    /// Sorts the sessions of an address by name; for each port the first one holds it and shadows
    /// the others. Of several with one name only the first is kept, and the problem that `twin`
    /// makes is recorded.
    pub(super) fn set_sessions(
        &mut self,
        mut sessions: Vec<Arc<Session>>,
        twin: impl Fn() -> Problem,
    ) {
        sessions.sort_by(|a, b| a.name.cmp(&b.name));
        sessions.dedup_by(|later, first| {
            let is_twin = later.name == first.name;
            if is_twin {
                self.problems.push(twin());
            }
            is_twin
        });
        let mut holders: Vec<(u16, Arc<str>)> = Vec::new();
        for session in sessions {
            let holder = holders.iter().find(|(port, _)| *port == session.port);
            let shadowed_by = holder.map(|(_, name)| Arc::clone(name));
            if shadowed_by.is_none() {
                holders.push((session.port, Arc::clone(&session.name)));
            }
            self.sessions.push((session, shadowed_by));
        }
    }
}

/// The sessions of a family.
#[derive(Debug, Default)]
pub(super) struct SessionList {
    /// Sorted by name. Updated in place unless an earlier plan still shares it.
    pub(super) sessions: Arc<Vec<PlannedSession>>,
    names: HashMap<IpAddr, Vec<Arc<str>>, AddressHash>,
    routes: BTreeMap<IpAddr, Vec<HostRoute>>,
    problems: BTreeMap<IpAddr, Vec<Problem>>,
    notes: BTreeMap<IpAddr, Vec<Problem>>,
}

impl SessionList {
    /// Replaces the sessions, routes and problems of some addresses. Returns the names of all their
    /// sessions, old and new.
    pub(super) fn update(
        &mut self,
        fresh: Vec<(IpAddr, AtAddress)>,
        mut policies: impl FnMut(&Session) -> PolicyPair,
    ) -> BTreeSet<Arc<str>> {
        let mut gone: Vec<Arc<str>> = Vec::new();
        let mut come: Vec<PlannedSession> = Vec::new();
        let is_small = fresh.len() <= IN_PLACE_MAX;
        for (addr, at) in fresh {
            gone.extend(self.names.remove(&addr).into_iter().flatten());
            if !at.sessions.is_empty() {
                let names = at.sessions.iter().map(|(s, _)| Arc::clone(&s.name)).collect();
                self.names.insert(addr, names);
            }
            set(&mut self.routes, addr, at.routes);
            set(&mut self.problems, addr, at.problems);
            set(&mut self.notes, addr, at.notes);
            for (session, shadowed_by) in at.sessions {
                let (import, export) = policies(&session);
                come.push(PlannedSession { session, shadowed_by, import, export });
            }
        }
        let touched = gone.iter().chain(come.iter().map(|p| &p.session.name)).cloned().collect();
        if gone.is_empty() && come.is_empty() {
            return touched;
        }
        let list = Arc::make_mut(&mut self.sessions);
        // Each insertion or removal moves the tail of the list: for many changes, one sort is
        // cheaper.
        if is_small {
            for name in gone {
                if let Ok(at) = list.binary_search_by(|p| p.session.name.cmp(&name)) {
                    list.remove(at);
                }
            }
            for planned in come {
                let name = &planned.session.name;
                let (Ok(at) | Err(at)) = list.binary_search_by(|p| p.session.name.cmp(name));
                list.insert(at, planned);
            }
        } else {
            let gone: HashSet<Arc<str>> = gone.into_iter().collect();
            if !gone.is_empty() {
                list.retain(|p| !gone.contains(&p.session.name));
            }
            list.extend(come);
            let key = |p: &PlannedSession| p.session.sort_key;
            list.sort_by(|a, b| {
                key(a).cmp(&key(b)).then_with(|| a.session.name.cmp(&b.session.name))
            });
        }
        touched
    }

    /// Reassigns the policies of every session.
    pub(super) fn assign(&mut self, mut policies: impl FnMut(&Session) -> PolicyPair) {
        for planned in Arc::make_mut(&mut self.sessions) {
            (planned.import, planned.export) = policies(&planned.session);
        }
    }

    /// Host routes to neighbours, one per address: those from BGPPeers for every node first, then
    /// by the text of the address and by port.
    pub(super) fn host_routes(&self) -> Vec<(Prefix, &HostRoute)> {
        let all = self.routes.iter().flat_map(|(addr, list)| list.iter().map(move |r| (*addr, r)));
        let mut routes: Vec<_> = all.collect();
        routes.sort_by_cached_key(|(addr, route)| (route.scope, addr.to_string(), route.port));
        let mut seen = HashSet::new();
        routes.retain(|(addr, _)| seen.insert(*addr));
        routes.into_iter().map(|(addr, route)| (Prefix::host(addr), route)).collect()
    }

    /// BGPPeers that are skipped because another one has their address.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Problem> {
        self.notes.values().flatten()
    }

    /// Problems of single addresses.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }
}

/// Stores a list under an address; an empty one removes the entry.
fn set<T>(map: &mut BTreeMap<IpAddr, Vec<T>>, addr: IpAddr, list: Vec<T>) {
    if list.is_empty() {
        map.remove(&addr);
    } else {
        map.insert(addr, list);
    }
}
