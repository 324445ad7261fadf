//! Selects the local routes to learn. Pure.

use std::net::IpAddr;

use bgp_proto::types::{Hop, Prefix};

use super::event::{LearnRule, LearnSource, LearnedKind, LearnedRoute};
use super::message::{AddressMessage, KernelKind, KernelRoute, Scope};
use super::nexthops::Resolver;

const PROTOCOL_UNSPEC: u8 = 0;
const PROTOCOL_REDIRECT: u8 = 1;
const PROTOCOL_KERNEL: u8 = 2;

/// The route of one prefix that the rules select among `routes`: the one with the lowest metric.
pub(super) fn learned_route(
    prefix: Prefix,
    routes: &[KernelRoute],
    rules: &[LearnRule],
    own_protocol: u8,
    resolver: Resolver<'_>,
) -> Option<LearnedRoute> {
    if !is_unicast_destination(prefix) {
        return None;
    }
    let selected = routes.iter().filter_map(|route| {
        if route.protocol == own_protocol || route.tos != 0 {
            return None;
        }
        let learned = describe(prefix, route, resolver)?;
        rules.iter().any(|rule| selects(rule, &learned)).then_some(learned)
    });
    selected.min_by_key(|route| route.metric)
}

/// A kernel route as reported to the owner. `None` if it is unusable: its interface is down, its
/// gateway is an address of ours, or its kind neither forwards nor drops.
fn describe(prefix: Prefix, route: &KernelRoute, resolver: Resolver<'_>) -> Option<LearnedRoute> {
    let links = resolver.links();
    let kind = match route.kind {
        KernelKind::Unicast if route.hops.iter().all(|hop| hop.gateway.is_none()) => {
            LearnedKind::Direct
        }
        KernelKind::Unicast => LearnedKind::Unicast,
        KernelKind::Blackhole => LearnedKind::Blackhole,
        KernelKind::Unreachable | KernelKind::Prohibit => LearnedKind::Unreachable,
        KernelKind::Encapsulated | KernelKind::Throw | KernelKind::Other => return None,
    };
    let hops: Vec<Hop> =
        route.hops.iter().filter(|hop| links.is_up(hop.ifindex)).copied().collect();
    let first = hops.first();
    if route.kind == KernelKind::Unicast && first.is_none() {
        return None;
    }
    let mut gateways = route.hops.iter().filter_map(|hop| hop.gateway);
    if gateways.any(|gateway| resolver.is_local(gateway)) {
        return None;
    }
    Some(LearnedRoute {
        prefix,
        protocol: route.protocol,
        interface: first.and_then(|hop| links.name(hop.ifindex)).map(str::to_owned),
        kind,
        gateway: if route.hops.len() == 1 { first.and_then(|hop| hop.gateway) } else { None },
        hops,
        metric: route.metric,
        connected: false,
    })
}

/// The connected route of a network of our addresses, if the rules select it.
pub(super) fn connected_route(
    network: Prefix,
    rules: &[LearnRule],
    resolver: Resolver<'_>,
) -> Option<LearnedRoute> {
    if !is_unicast_destination(network) {
        return None;
    }
    let links = resolver.links();
    let counts = |address: &&AddressMessage| {
        let wide = address.scope == Scope::Wide && !address.secondary;
        wide && links.is_up(address.ifindex) && resolver.is_ours(address.ifindex)
    };
    let routes = links.addresses_in(network).filter(counts).map(|address| LearnedRoute {
        prefix: network,
        protocol: PROTOCOL_KERNEL,
        interface: links.name(address.ifindex).map(str::to_owned),
        kind: LearnedKind::Direct,
        gateway: None,
        hops: Vec::new(),
        metric: 0,
        connected: true,
    });
    routes.into_iter().find(|route| rules.iter().any(|rule| selects(rule, route)))
}

fn selects(rule: &LearnRule, route: &LearnedRoute) -> bool {
    let source = match rule.from {
        LearnSource::Connected => route.connected,
        LearnSource::Kernel => !route.connected && selects_protocol(rule, route.protocol),
    };
    source
        && selects_interface(&rule.interfaces, route.interface.as_deref())
        && (rule.prefixes.is_empty() || rule.prefixes.iter().any(|p| p.contains(route.prefix)))
}

fn selects_protocol(rule: &LearnRule, protocol: u8) -> bool {
    if rule.protocols.is_empty() {
        !matches!(protocol, PROTOCOL_UNSPEC | PROTOCOL_REDIRECT | PROTOCOL_KERNEL)
    } else {
        rule.protocols.contains(&protocol)
    }
}

fn selects_interface(patterns: &[String], interface: Option<&str>) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let Some(name) = interface else { return false };
    for pattern in patterns {
        let (excludes, pattern) = match pattern.strip_prefix('-') {
            Some(pattern) => (true, pattern),
            None => (false, pattern.as_str()),
        };
        if matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            return !excludes;
        }
    }
    false
}

/// `*` stands for any number of characters, `?` for one.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    // `star`: where to resume on a mismatch, with the last star matching one more character.
    let (mut p, mut n, mut star) = (0, 0, None);
    loop {
        match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                star = Some((p + 1, n));
                p += 1;
            }
            (Some(b'?'), Some(_)) => (p, n) = (p + 1, n + 1),
            (Some(a), Some(b)) if a == b => (p, n) = (p + 1, n + 1),
            (None, None) => return true,
            _ => match star {
                Some((after, from)) if from < name.len() => {
                    star = Some((after, from + 1));
                    (p, n) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Whether packets to the prefix may be forwarded at all. IPv4 link-local and class E networks are
/// included: Calico uses the former inside pods, and some networks use the latter as private space.
fn is_unicast_destination(prefix: Prefix) -> bool {
    if prefix.is_empty() {
        return true;
    }
    match prefix.addr() {
        IpAddr::V4(addr) => !addr.is_loopback() && addr.octets()[0] != 0 && !addr.is_multicast(),
        IpAddr::V6(addr) => {
            !addr.is_loopback() && !addr.is_multicast() && !addr.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests;
