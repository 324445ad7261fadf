//! How an address is reached, as the kernel forwards to it.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Family, Hop, Prefix};

use super::event::{NextHopState, Over};
use super::fib::plan::Plan;
use super::foreign::{Foreign, protocol_name};
use super::links::{Domain, Leg, Links};
use super::message::{KernelKind, KernelRoute};

/// What next hops are resolved over. Pure.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a> {
    foreign: &'a Foreign,
    links: &'a Links,
    /// Routes of ours that others may rest on.
    direct: Option<(&'a Plan, u8)>,
    /// Whose addresses are ours.
    domain: Domain,
}

/// How an address was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) state: NextHopState,
    /// The route that decided.
    pub(super) by: Option<Deciding>,
}

/// The route that decided how an address is reached, for people.
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
    /// For routes of the given table.
    pub(super) fn new(foreign: &'a Foreign, links: &'a Links, table: u32) -> Resolver<'a> {
        Resolver { foreign, links, direct: None, domain: links.domain_of_table(table) }
    }

    /// Resolves over routes of ours that rest on links alone, too.
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
    /// As the kernel forwards: of the most specific prefix the route with the lowest metric
    /// decides, usable or not. A connected network whose cable is pulled makes its addresses
    /// unreachable; they do not fall back to a default route, since packets would not either.
    ///
    /// Of our own routes only those count that rest on nothing but a link, or on nothing
    /// ([`Recursion::Direct`](bgp_proto::types::Recursion::Direct)), and not for addresses that are
    /// on a link: so what they rest on never depends on routes of ours, and none rests on itself.
    /// Differs from BIRD: there only routes of external peers on connected networks count, and an
    /// address that a route of another kind covers best is unreachable; here such a route is left
    /// out.
    /// Differs from BIRD: there carrier counts only with `check link`, off by default; here
    /// traffic moves to another path at once.
    pub(super) fn resolve(&self, addr: IpAddr) -> Resolution {
        let nothing = |state| Resolution { state, by: None };
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

    /// The routes of ours that count for an address.
    fn direct_routes(&self, addr: IpAddr) -> Vec<(Prefix, KernelRoute)> {
        let Some((plan, protocol)) = self.direct else { return Vec::new() };
        // A default route out of an interface, as of a dial-up line, makes no neighbours.
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

    /// Whether what the route covers is on a link, whoever made the route; not one that the kernel
    /// passes over, or has dropped without a word.
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

    /// Whether addresses of the interface are ours.
    pub(super) fn is_ours(&self, ifindex: u32) -> bool {
        self.links.domain(ifindex) == self.domain
    }

    /// What a route makes of the address; `None` when the kernel goes on to the next one.
    fn follow(&self, addr: IpAddr, prefix: Prefix, route: &KernelRoute) -> Option<Resolution> {
        let mut down = Vec::new();
        let state = match route.kind {
            KernelKind::Unicast => self.forward(addr, prefix, route, &mut down)?,
            // A way that a route of ours cannot take along.
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

/// Such an address means nothing without its interface, which the session knows and we do not.
fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
