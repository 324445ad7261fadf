//! How an address is reached, over routes that are not ours.

use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::Hop;

use super::event::NextHopState;
use super::foreign::Foreign;
use super::links::Links;
use super::message::{KernelKind, KernelRoute};

/// Resolves a BGP next hop: RFC 4271 §9.1.2.1.
///
/// The most specific prefix with a usable route decides, within it the lowest metric. Routes of
/// our own protocol are not among `foreign`, so that a BGP route never rests on another
/// BGP route. An interface without carrier is not usable. Differs from BIRD: there that is an
/// option (`check link`), off by default; here traffic moves to another path at once.
pub(super) fn resolve(addr: IpAddr, foreign: &Foreign, links: &Links) -> NextHopState {
    if links.is_local(addr) {
        return NextHopState::Local;
    }
    if addr.is_unspecified() || addr.is_multicast() || is_link_local(addr) {
        return NextHopState::Unreachable;
    }
    for (_, routes) in foreign.covering(addr) {
        let mut routes: Vec<&KernelRoute> = routes.iter().filter(|route| route.tos == 0).collect();
        routes.sort_by_key(|route| route.metric);
        for route in routes {
            match route.kind {
                KernelKind::Unicast => {
                    if let Some(state) = follow(addr, route, links) {
                        return state;
                    }
                }
                KernelKind::Blackhole | KernelKind::Unreachable | KernelKind::Prohibit => {
                    return NextHopState::Unreachable;
                }
                KernelKind::Other => {}
            }
        }
    }
    NextHopState::Unreachable
}

/// The way over one route, if any of its interfaces is usable.
fn follow(addr: IpAddr, route: &KernelRoute, links: &Links) -> Option<NextHopState> {
    let usable = route.hops.iter().filter(|hop| links.is_running(hop.ifindex));
    let mut hops: Vec<Hop> =
        usable.map(|hop| Hop { gateway: hop.gateway.or(Some(addr)), ..*hop }).collect();
    if hops.is_empty() {
        return None;
    }
    hops.sort_unstable();
    let connected = route.hops.iter().all(|hop| hop.gateway.is_none());
    let metric = if connected { 0 } else { route.metric.max(1) };
    let interface = match hops.as_slice() {
        [hop] => links.name(hop.ifindex).map(Arc::from),
        _ => None,
    };
    Some(NextHopState::Via { hops, metric, connected, interface })
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
