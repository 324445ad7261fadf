//! Resolves how an address is reached, following the kernel's forwarding.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Family, Hop, Prefix, off_interface};

use super::event::{NextHopState, Over};
use super::fib::plan::Plan;
use super::foreign::{Foreign, protocol_name};
use super::links::{Domain, Leg, Links};
use super::message::{KernelKind, KernelRoute};

/// The routes and interfaces over which next hops are resolved. Pure.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a> {
    foreign: &'a Foreign,
    links: &'a Links,
    /// Routes of ours over which next hops may be resolved, and our protocol number.
    direct: Option<(&'a Plan, u8)>,
    /// The domain whose addresses count as ours.
    domain: Domain,
}

/// How an address was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) state: NextHopState,
    /// The route that decided.
    pub(super) by: Option<Deciding>,
}

/// The route that decided how an address is reached, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// Its prefix: the most specific that covers the address.
    pub prefix: Prefix,
    /// rtm_protocol: who installed it.
    pub protocol: u8,
    /// RTA_PRIORITY, 0 when absent.
    pub metric: u32,
    /// Its interfaces that are down or have no carrier.
    pub down: Vec<String>,
}

impl fmt::Display for Deciding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deciding { prefix, protocol, metric, down } = self;
        write!(f, "{prefix} of protocol {}", protocol_name(*protocol))?;
        if *metric != 0 {
            write!(f, " metric {metric}")?;
        }
        match down.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ", where {one} is down or has no carrier"),
            several => write!(f, ", where {} are down or have no carrier", several.join(", ")),
        }
    }
}

impl<'a> Resolver<'a> {
    /// A resolver for routes of the given table.
    pub(super) fn new(foreign: &'a Foreign, links: &'a Links, table: u32) -> Resolver<'a> {
        Resolver { foreign, links, direct: None, domain: links.domain_of_table(table) }
    }

    /// Also resolves over routes of ours that depend on links alone.
    pub(super) fn over_bgp(self, plan: &'a Plan, protocol: u8) -> Resolver<'a> {
        Resolver { direct: Some((plan, protocol)), ..self }
    }

    /// The routes of others.
    pub(super) fn foreign(&self) -> &'a Foreign {
        self.foreign
    }

    /// The interfaces.
    pub(super) fn links(&self) -> &'a Links {
        self.links
    }

    /// Resolves a BGP next hop: RFC 4271 §9.1.2.1.
    ///
    /// Follows the kernel's forwarding: the route with the lowest metric of the most specific
    /// prefix decides, usable or not. If the interface of a connected network loses its carrier,
    /// its addresses become unreachable; they do not fall back to a default route, since packets
    /// would not either.
    ///
    /// Of our own routes, only those that depend on nothing but a link, or on nothing
    /// ([`Recursion::Direct`](bgp_proto::types::Recursion::Direct)), are used, and none for
    /// addresses on a link: so their own resolution never depends on routes of ours, and no route
    /// resolves over itself.
    ///
    /// Differs from BIRD: there only routes of external peers on connected networks are used, and
    /// an address whose most specific route is of another kind is unreachable; here such a route is
    /// skipped.
    /// Differs from BIRD: there carrier matters only with `check link`, off by default; here
    /// traffic moves to another path at once.
    pub(super) fn resolve(&self, addr: IpAddr) -> Resolution {
        let nothing = |state| Resolution { state, by: None };
        if let (link_local, Some(ifindex)) = off_interface(addr) {
            return nothing(self.on_link(link_local, ifindex.get()));
        }
        if self.is_local(addr) {
            return nothing(NextHopState::Local);
        }
        if addr.is_unspecified() || addr.is_multicast() || is_link_local(addr) {
            return nothing(NextHopState::Unreachable);
        }
        let ours = self.direct_routes(addr);
        let others = self.foreign.covering(addr).flat_map(|(prefix, routes)| {
            routes.iter().filter(|route| route.tos == 0).map(move |route| (prefix, route))
        });
        let mut candidates: Vec<(Prefix, &KernelRoute)> = others.collect();
        candidates.extend(ours.iter().map(|(prefix, route)| (*prefix, route)));
        candidates.sort_by_key(|(prefix, route)| (Reverse(prefix.len()), route.metric));
        let decided =
            candidates.iter().find_map(|(prefix, route)| self.follow(addr, *prefix, route));
        decided.unwrap_or_else(|| nothing(NextHopState::Unreachable))
    }

    /// A link-local address is on its interface, whatever the routes say.
    fn on_link(&self, addr: IpAddr, ifindex: u32) -> NextHopState {
        if self.links.has(addr, ifindex) {
            return NextHopState::Local;
        }
        if !self.is_ours(ifindex) || self.links.leg(ifindex, Family::Ipv6) != Leg::Usable {
            return NextHopState::Unreachable;
        }
        NextHopState::Via {
            hops: vec![Hop { gateway: Some(addr), ifindex, onlink: false, weight: 1 }],
            metric: 0,
            connected: true,
            interface: self.links.name(ifindex).map(Arc::from),
            over: Over::Specific,
        }
    }

    /// The routes of ours that may resolve an address.
    fn direct_routes(&self, addr: IpAddr) -> Vec<(Prefix, KernelRoute)> {
        let Some((plan, protocol)) = self.direct else { return Vec::new() };
        // A default route over an interface, as on a dial-up line, does not put addresses on a
        // link.
        let mut specific = self.foreign.covering(addr).filter(|(prefix, _)| !prefix.is_empty());
        let is_on_link = specific.any(|(prefix, routes)| {
            routes.iter().any(|route| self.leads_to_a_link(route, prefix.family()))
        });
        if is_on_link {
            return Vec::new();
        }
        let routes = plan.direct_routes(addr).into_iter();
        routes.map(|(prefix, spec)| (prefix, KernelRoute::ours(spec, protocol))).collect()
    }

    /// Whether the addresses that the route covers are on a link, whoever installed it. False if
    /// the kernel skips the route, or has deleted it without an event.
    fn leads_to_a_link(&self, route: &KernelRoute, family: Family) -> bool {
        route.kind == KernelKind::Unicast
            && route.tos == 0
            && route.hops.iter().all(|hop| hop.gateway.is_none())
            && route.hops.iter().any(|hop| self.links.leg(hop.ifindex, family) != Leg::Dead)
    }

    /// Whether the address is one of ours.
    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.links.is_local(addr, self.domain)
    }

    /// Whether addresses of the interface count as ours.
    pub(super) fn is_ours(&self, ifindex: u32) -> bool {
        self.links.domain(ifindex) == self.domain
    }

    /// How the address is reached by a route; `None` if the kernel continues with the next route.
    fn follow(&self, addr: IpAddr, prefix: Prefix, route: &KernelRoute) -> Option<Resolution> {
        let mut down = Vec::new();
        let state = match route.kind {
            KernelKind::Unicast => self.forward(addr, prefix, route, &mut down)?,
            // A route of ours could not carry the encapsulation.
            KernelKind::Encapsulated => NextHopState::Unreachable,
            KernelKind::Blackhole
            | KernelKind::Unreachable
            | KernelKind::Prohibit
            | KernelKind::Throw => NextHopState::Unreachable,
            KernelKind::Other => return None,
        };
        let (protocol, metric) = (route.protocol, route.metric);
        Some(Resolution { state, by: Some(Deciding { prefix, protocol, metric, down }) })
    }

    fn forward(
        &self,
        addr: IpAddr,
        prefix: Prefix,
        route: &KernelRoute,
        down: &mut Vec<String>,
    ) -> Option<NextHopState> {
        let (mut hops, mut legs) = (Vec::new(), 0);
        for hop in &route.hops {
            let leg = self.links.leg(hop.ifindex, prefix.family());
            legs += usize::from(leg != Leg::Dead);
            match leg {
                Leg::Usable => hops.push(Hop { gateway: hop.gateway.or(Some(addr)), ..*hop }),
                Leg::Down | Leg::Dead => {
                    down.extend(self.links.name(hop.ifindex).map(str::to_owned));
                }
            }
        }
        if legs == 0 {
            return None;
        }
        if hops.is_empty() {
            return Some(NextHopState::Unreachable);
        }
        hops.sort_unstable();
        let connected = route.hops.iter().all(|hop| hop.gateway.is_none());
        let metric = if connected { 0 } else { route.metric.max(1) };
        let interface = match hops.as_slice() {
            [hop] => self.links.name(hop.ifindex).map(Arc::from),
            _ => None,
        };
        let over = if prefix.is_empty() { Over::Default } else { Over::Specific };
        Some(NextHopState::Via { hops, metric, connected, interface, over })
    }
}

/// A link-local address without an interface: the session that it was received on is not between
/// link-local addresses.
fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
