//! Routes of others in the tables that matter: what resolves next hops, what may be learned, and
//! what our routes must not overwrite.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::types::Prefix;
use smallvec::SmallVec;

use super::message::KernelRoute;

/// The routes of one prefix.
pub(super) type Routes = SmallVec<[KernelRoute; 1]>;

/// What an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The prefix has other routes than before.
    Changed,
    /// It was known already.
    Unchanged,
    /// The event does not fit what is known: the kernel has to be read again.
    Unclear,
}

/// All routes of others, by prefix.
#[derive(Debug)]
pub(super) struct Foreign {
    routes: BTreeMap<Prefix, Routes>,
    /// How many prefixes there are of each length, to look only where there is something.
    lengths_v4: [u32; 33],
    lengths_v6: [u32; 129],
}

impl Default for Foreign {
    fn default() -> Self {
        Foreign { routes: BTreeMap::new(), lengths_v4: [0; 33], lengths_v6: [0; 129] }
    }
}

impl Foreign {
    /// Whether routes of this prefix are left out: multicast and link-local ones exist once per
    /// interface and neither resolve nor announce anything.
    pub(super) fn ignores(prefix: Prefix) -> bool {
        match prefix.addr() {
            IpAddr::V4(addr) => addr.is_multicast() && prefix.len() >= 4,
            IpAddr::V6(addr) => {
                (addr.is_multicast() && prefix.len() >= 8)
                    || (addr.is_unicast_link_local() && prefix.len() >= 10)
            }
        }
    }

    /// A route as a dump lists it.
    pub(super) fn insert(&mut self, prefix: Prefix, route: KernelRoute) {
        let routes = self.routes.entry(prefix).or_default();
        routes.push(route);
        if routes.len() == 1 {
            *self.length_mut(prefix) += 1;
        }
    }

    /// A route that an event announces; `replaced` when it took another one's place.
    pub(super) fn handle_new(
        &mut self,
        prefix: Prefix,
        route: KernelRoute,
        replaced: bool,
    ) -> Effect {
        let Some(routes) = self.routes.get_mut(&prefix) else {
            self.insert(prefix, route);
            return Effect::Changed;
        };
        if routes.contains(&route) {
            return if replaced && routes.iter().filter(|old| same_place(old, &route)).count() > 1 {
                Effect::Unclear
            } else {
                Effect::Unchanged
            };
        }
        let mut places = routes.iter_mut().filter(|old| {
            // IPv6 adds a leg to a route of the same metric and reports the whole of it.
            let grown = prefix.family() == bgp_proto::types::Family::Ipv6
                && old.hops.iter().all(|hop| route.hops.iter().any(|h| h.gateway == hop.gateway));
            same_place(old, &route) && (replaced || grown)
        });
        match (places.next(), places.next()) {
            (None, _) => {
                routes.push(route);
                Effect::Changed
            }
            (Some(old), None) => {
                *old = route;
                Effect::Changed
            }
            (Some(_), Some(_)) => Effect::Unclear,
        }
    }

    /// A route that an event withdraws.
    pub(super) fn handle_gone(&mut self, prefix: Prefix, route: &KernelRoute) -> Effect {
        let Some(routes) = self.routes.get_mut(&prefix) else { return Effect::Unchanged };
        let Some(at) = routes.iter().position(|old| old == route) else {
            // One leg of several (IPv6), or a change that was not heard.
            return if routes.iter().any(|old| same_place(old, route)) {
                Effect::Unclear
            } else {
                Effect::Unchanged
            };
        };
        routes.remove(at);
        if routes.is_empty() {
            self.routes.remove(&prefix);
            *self.length_mut(prefix) -= 1;
        }
        Effect::Changed
    }

    /// Who holds the place that a route of ours with this table and metric needs.
    pub(super) fn holder(&self, prefix: Prefix, table: u32, metric: u32) -> Option<&KernelRoute> {
        self.get(prefix).iter().find(|r| r.table == table && r.metric == metric && r.tos == 0)
    }

    /// The routes of exactly this prefix.
    pub(super) fn get(&self, prefix: Prefix) -> &[KernelRoute] {
        self.routes.get(&prefix).map_or(&[], |routes| routes.as_slice())
    }

    /// The prefixes that cover `addr`, the most specific first.
    pub(super) fn covering(&self, addr: IpAddr) -> impl Iterator<Item = (Prefix, &[KernelRoute])> {
        let lengths = match addr {
            IpAddr::V4(_) => self.lengths_v4.as_slice(),
            IpAddr::V6(_) => self.lengths_v6.as_slice(),
        };
        lengths.iter().enumerate().rev().filter(|(_, count)| **count > 0).filter_map(
            move |(len, _)| {
                let prefix = Prefix::new(addr, u8::try_from(len).unwrap_or(u8::MAX));
                Some((prefix, self.routes.get(&prefix)?.as_slice()))
            },
        )
    }

    /// All of them, in prefix order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, &[KernelRoute])> {
        self.routes.iter().map(|(prefix, routes)| (*prefix, routes.as_slice()))
    }

    /// The prefixes whose routes differ between `self` and `other`, in no matter which order.
    pub(super) fn differences(&self, other: &Foreign) -> Vec<Prefix> {
        let changed = self.iter().filter(|(prefix, routes)| {
            let others = other.get(*prefix);
            routes.len() != others.len() || routes.iter().any(|route| !others.contains(route))
        });
        let added = other.iter().filter(|(prefix, _)| self.get(*prefix).is_empty());
        changed.chain(added).map(|(prefix, _)| prefix).collect()
    }

    /// Whether any route goes out of the interface.
    pub(super) fn use_interface(&self, ifindex: u32) -> bool {
        self.iter().any(|(_, routes)| routes.iter().any(|route| uses(route, ifindex)))
    }

    /// The prefixes with a route out of the interface.
    pub(super) fn prefixes_over(&self, ifindex: u32) -> Vec<Prefix> {
        let over = self.iter().filter(|(_, routes)| routes.iter().any(|r| uses(r, ifindex)));
        over.map(|(prefix, _)| prefix).collect()
    }

    fn length_mut(&mut self, prefix: Prefix) -> &mut u32 {
        let lengths = match prefix {
            Prefix::V4(_) => self.lengths_v4.as_mut_slice(),
            Prefix::V6(_) => self.lengths_v6.as_mut_slice(),
        };
        lengths.get_mut(usize::from(prefix.len())).expect("a prefix is no longer than its address")
    }
}

fn uses(route: &KernelRoute, ifindex: u32) -> bool {
    route.hops.iter().any(|hop| hop.ifindex == ifindex)
}

fn same_place(a: &KernelRoute, b: &KernelRoute) -> bool {
    (a.table, a.tos, a.metric) == (b.table, b.tos, b.metric)
}
