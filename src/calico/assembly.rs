//! The sessions of a family in order, put together address by address.
//!
//! Whatever competes does so for one neighbour address: entries of the peer table, the mesh, ports.
//! So the address is what is put together again after a change, and the list is mended in place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::Prefix;

use super::plan::{PlannedSession, Problem, Session};
use super::policies::PolicyPair;
use super::sessions::Scope;

/// Hashes neighbours' addresses: they come from the cluster's own objects, so speed counts and
/// collisions made on purpose do not.
type AddressHash = foldhash::fast::FixedState;

/// Up to so many addresses at once are mended one by one; more are sorted in together.
const MENDED_MAX: usize = 64;

/// The route to a neighbour that a BGPPeer says a gateway for.
#[derive(Clone, Debug)]
pub(super) struct HostRoute {
    pub(super) scope: Scope,
    /// The neighbour's port.
    pub(super) port: u16,
    pub(super) gateway: IpAddr,
    /// The BGPPeer.
    pub(super) peer: Arc<str>,
}

/// What there is at one neighbour address.
#[derive(Debug, Default)]
pub(super) struct AtAddress {
    /// In order, those of one name once.
    sessions: Vec<(Arc<Session>, Option<Arc<str>>)>,
    pub(super) routes: Vec<HostRoute>,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl AtAddress {
    /// A BGPPeer names an address that another one holds.
    pub(super) fn note_shadowed(&mut self, peer: &str, holder: &str, addr: IpAddr) {
        let text = format!("{addr} is a neighbour by BGPPeer/{holder} already: that one counts");
        self.notes.push(Problem::new(format!("BGPPeer/{peer}"), text));
    }

    /// Orders the sessions at an address and tells which of them holds it. Of several with one name
    /// the first counts, and `twin` says so.
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
    /// Sorted by name. Mended in place where no plan of before holds it any more.
    pub(super) sessions: Arc<Vec<PlannedSession>>,
    names: HashMap<IpAddr, Vec<Arc<str>>, AddressHash>,
    routes: BTreeMap<IpAddr, Vec<HostRoute>>,
    problems: BTreeMap<IpAddr, Vec<Problem>>,
    notes: BTreeMap<IpAddr, Vec<Problem>>,
}

impl SessionList {
    /// Puts what there is at some addresses into the place of what was. Returns the names of all
    /// sessions that there are and were.
    pub(super) fn update(
        &mut self,
        fresh: Vec<(IpAddr, AtAddress)>,
        mut policies: impl FnMut(&Session) -> PolicyPair,
    ) -> BTreeSet<Arc<str>> {
        let mut gone: Vec<Arc<str>> = Vec::new();
        let mut come: Vec<PlannedSession> = Vec::new();
        let is_small = fresh.len() <= MENDED_MAX;
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

    /// Assigns every session its policies again.
    pub(super) fn assign(&mut self, mut policies: impl FnMut(&Session) -> PolicyPair) {
        for planned in Arc::make_mut(&mut self.sessions) {
            (planned.import, planned.export) = policies(&planned.session);
        }
    }

    /// Host routes to neighbours: those of every node's entries first, then by address and port.
    pub(super) fn host_routes(&self) -> Vec<(Prefix, &HostRoute)> {
        let all = self.routes.iter().flat_map(|(addr, list)| list.iter().map(move |r| (*addr, r)));
        let mut routes: Vec<_> = all.collect();
        routes.sort_by_cached_key(|(addr, route)| (route.scope, addr.to_string(), route.port));
        let mut seen = HashSet::new();
        routes.retain(|(addr, _)| seen.insert(*addr));
        routes.into_iter().map(|(addr, route)| (Prefix::host(addr), route)).collect()
    }

    /// BGPPeers that are left out because another has their address.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Problem> {
        self.notes.values().flatten()
    }

    /// What is wrong with single addresses.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }
}

/// Puts a list into a map, unless it is empty.
fn set<T>(map: &mut BTreeMap<IpAddr, Vec<T>>, addr: IpAddr, list: Vec<T>) {
    if list.is_empty() {
        map.remove(&addr);
    } else {
        map.insert(addr, list);
    }
}
