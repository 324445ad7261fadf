//! Routes of others in the tables that are read: those that resolve next hops, those that may be
//! learned, and those that our routes must not overwrite.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use bgp_proto::types::{Family, Hop, Prefix};
use smallvec::SmallVec;

use super::message::{KernelKind, KernelRoute};
use super::objects::Objects;
use crate::counts::Counts;

/// The routes of one prefix.
pub(super) type Routes = SmallVec<[KernelRoute; 1]>;

/// What an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The routes of the prefix changed.
    Changed,
    /// Nothing changed.
    Unchanged,
    /// The event contradicts the known routes: the kernel has to be read again.
    Unclear,
}

/// All routes of others, by prefix.
#[derive(Debug)]
pub(super) struct Foreign {
    routes: BTreeMap<Prefix, Routes>,
    /// Number of prefixes of each length, so that lookups skip lengths without any.
    lengths_v4: [u32; 33],
    lengths_v6: [u32; 129],
    uses: Uses,
}

/// Number of routes over each object, interface, gateway and source, so that a change of one that
/// no route uses costs nothing.
#[derive(Debug, Default)]
struct Uses {
    objects: Counts<NonZeroU32>,
    interfaces: Counts<u32>,
    gateways: Counts<IpAddr>,
    /// Only of routes that the kernel deletes without an event when the address is removed.
    sources: Counts<IpAddr>,
}

impl Uses {
    fn add(&mut self, route: &KernelRoute) {
        route.object.into_iter().for_each(|id| self.objects.add(id));
        for hop in &route.hops {
            self.interfaces.add(hop.ifindex);
            hop.gateway.into_iter().for_each(|via| self.gateways.add(via));
        }
        source_at_stake(route).into_iter().for_each(|source| self.sources.add(source));
    }

    fn remove(&mut self, route: &KernelRoute) {
        route.object.into_iter().for_each(|id| self.objects.remove(id));
        for hop in &route.hops {
            self.interfaces.remove(hop.ifindex);
            hop.gateway.into_iter().for_each(|via| self.gateways.remove(via));
        }
        source_at_stake(route).into_iter().for_each(|source| self.sources.remove(source));
    }
}

/// The source address whose removal deletes the route without an event. Connected routes have a
/// source address too, but the kernel reports their deletion.
fn source_at_stake(route: &KernelRoute) -> Option<IpAddr> {
    route.source.filter(|_| !is_connected(route))
}

impl Default for Foreign {
    fn default() -> Self {
        Foreign {
            routes: BTreeMap::new(),
            lengths_v4: [0; 33],
            lengths_v6: [0; 129],
            uses: Uses::default(),
        }
    }
}

impl Foreign {
    /// Whether routes of this prefix are ignored: multicast and link-local ones exist once per
    /// interface and are used neither to resolve next hops nor to be learned.
    pub(super) fn ignores(prefix: Prefix) -> bool {
        match prefix.addr() {
            IpAddr::V4(addr) => addr.is_multicast() && prefix.len() >= 4,
            IpAddr::V6(addr) => {
                (addr.is_multicast() && prefix.len() >= 8)
                    || (addr.is_unicast_link_local() && prefix.len() >= 10)
            }
        }
    }

    /// Adds a route from a dump.
    pub(super) fn insert(&mut self, prefix: Prefix, mut route: KernelRoute) {
        // Irrelevant for routes of others, and a lifetime differs in every dump.
        route.altered = false;
        self.uses.add(&route);
        let routes = self.routes.entry(prefix).or_default();
        routes.push(route);
        if routes.len() == 1 {
            *self.length_mut(prefix) += 1;
        }
    }

    /// RTM_NEWROUTE. `replaced` (NLM_F_REPLACE): it took the place of another route.
    pub(super) fn handle_new(
        &mut self,
        prefix: Prefix,
        mut route: KernelRoute,
        replaced: bool,
    ) -> Effect {
        route.altered = false;
        let Some(routes) = self.routes.get_mut(&prefix) else {
            self.insert(prefix, route);
            return Effect::Changed;
        };
        // If the replacing route equals a known one, another in the same place may be the replaced
        // one.
        if routes.contains(&route) {
            return if replaced && routes.iter().filter(|old| same_place(old, &route)).count() > 1 {
                Effect::Unclear
            } else {
                Effect::Unchanged
            };
        }
        let mut places = routes.iter_mut().filter(|old| {
            // IPv6 adds a leg with a gateway to an existing route of the same metric, and reports
            // the whole route; legs without a gateway remain separate routes.
            let kept = |hop: &Hop| {
                let same = |h: &Hop| h.gateway == hop.gateway && h.ifindex == hop.ifindex;
                hop.gateway.is_some() && route.hops.iter().any(same)
            };
            let grown = prefix.family() == Family::Ipv6
                && !old.hops.is_empty()
                && old.hops.iter().all(kept);
            same_place(old, &route) && (replaced || grown)
        });
        match (places.next(), places.next()) {
            (None, _) => {
                self.uses.add(&route);
                routes.push(route);
            }
            (Some(old), None) => {
                self.uses.add(&route);
                self.uses.remove(&std::mem::replace(old, route));
            }
            (Some(_), Some(_)) => return Effect::Unclear,
        }
        Effect::Changed
    }

    /// RTM_DELROUTE.
    pub(super) fn handle_gone(&mut self, prefix: Prefix, mut route: KernelRoute) -> Effect {
        route.altered = false;
        let Some(routes) = self.routes.get_mut(&prefix) else { return Effect::Unchanged };
        let Some(at) = routes.iter().position(|old| *old == route) else {
            // One of several legs (IPv6), or an event was lost.
            return if routes.iter().any(|old| same_place(old, &route)) {
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
        self.uses.remove(&route);
        Effect::Changed
    }

    /// Updates the routes over next-hop objects that changed or were deleted; returns their
    /// prefixes. With an object the kernel deletes the routes over it; for IPv4 it sends no event.
    pub(super) fn handle_objects(
        &mut self,
        touched: &BTreeSet<NonZeroU32>,
        objects: &Objects,
    ) -> Vec<Prefix> {
        if !touched.iter().any(|id| self.uses.objects.has(id)) {
            return Vec::new();
        }
        let concerns = |route: &KernelRoute| route.object.is_some_and(|id| touched.contains(&id));
        let prefixes = self.prefixes(concerns);
        for prefix in &prefixes {
            let Some(routes) = self.routes.get_mut(prefix) else { continue };
            let uses = &mut self.uses;
            routes.retain(|route| {
                uses.remove(route);
                if route.object.is_some_and(|id| objects.get(id).is_none()) {
                    return false;
                }
                objects.expand(route);
                uses.add(route);
                true
            });
            if routes.is_empty() {
                self.routes.remove(prefix);
                *self.length_mut(*prefix) -= 1;
            }
        }
        prefixes
    }

    /// The route that occupies the place (prefix, table, metric, TOS 0) which a route of ours
    /// needs.
    pub(super) fn holder(&self, prefix: Prefix, table: u32, metric: u32) -> Option<&KernelRoute> {
        self.get(prefix).iter().find(|r| r.table == table && r.metric == metric && r.tos == 0)
    }

    /// The connected route with exactly this prefix, whatever its metric.
    pub(super) fn connected(&self, prefix: Prefix) -> Option<&KernelRoute> {
        self.get(prefix).iter().find(|route| is_connected(route))
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

    /// The prefixes whose routes differ between `self` and `other`; the order of routes does not
    /// matter.
    pub(super) fn differences(&self, other: &Foreign) -> Vec<Prefix> {
        let changed = self.iter().filter(|(prefix, routes)| {
            let others = other.get(*prefix);
            routes.len() != others.len() || routes.iter().any(|route| !others.contains(route))
        });
        let added = other.iter().filter(|(prefix, _)| self.get(*prefix).is_empty());
        changed.chain(added).map(|(prefix, _)| prefix).collect()
    }

    /// Adds the routes of `known` for prefixes that have none here.
    pub(super) fn keep_others(&mut self, known: &Foreign) {
        for (prefix, routes) in known.iter() {
            if self.get(prefix).is_empty() {
                routes.iter().for_each(|route| self.insert(prefix, route.clone()));
            }
        }
    }

    /// Whether any route uses the interface.
    pub(super) fn use_interface(&self, ifindex: u32) -> bool {
        self.uses.interfaces.has(&ifindex)
    }

    /// Whether any route would be deleted without an event if this source address were removed.
    pub(super) fn use_source(&self, addr: IpAddr) -> bool {
        self.uses.sources.has(&addr)
    }

    /// The prefixes with a route over the interface.
    pub(super) fn prefixes_over(&self, ifindex: u32) -> Vec<Prefix> {
        if !self.use_interface(ifindex) {
            return Vec::new();
        }
        self.prefixes(|route| route.hops.iter().any(|hop| hop.ifindex == ifindex))
    }

    /// The prefixes with a route through the gateway.
    pub(super) fn prefixes_via(&self, gateway: IpAddr) -> Vec<Prefix> {
        if !self.uses.gateways.has(&gateway) {
            return Vec::new();
        }
        self.prefixes(|route| route.hops.iter().any(|hop| hop.gateway == Some(gateway)))
    }

    fn prefixes(&self, selects: impl Fn(&KernelRoute) -> bool) -> Vec<Prefix> {
        let selected = self.iter().filter(|(_, routes)| routes.iter().any(&selects));
        selected.map(|(prefix, _)| prefix).collect()
    }

    fn length_mut(&mut self, prefix: Prefix) -> &mut u32 {
        let lengths = match prefix {
            Prefix::V4(_) => self.lengths_v4.as_mut_slice(),
            Prefix::V6(_) => self.lengths_v6.as_mut_slice(),
        };
        lengths.get_mut(usize::from(prefix.len())).expect("a prefix is no longer than its address")
    }
}

/// The name of an rtm_protocol number as in iproute2, or the number.
pub(super) fn protocol_name(protocol: u8) -> std::borrow::Cow<'static, str> {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        80 => "felix",
        186 => "bgp",
        188 => "ospf",
        other => return other.to_string().into(),
    };
    name.into()
}

/// Whether the kernel created the route for an address of an interface.
pub(super) fn is_connected(route: &KernelRoute) -> bool {
    const PROTOCOL_KERNEL: u8 = 2;
    route.protocol == PROTOCOL_KERNEL
        && route.kind == KernelKind::Unicast
        && route.hops.iter().all(|hop| hop.gateway.is_none())
}

fn same_place(a: &KernelRoute, b: &KernelRoute) -> bool {
    (a.table, a.tos, a.metric) == (b.table, b.tos, b.metric)
}
