//! Next-hop resolution that takes our own host routes into account.
//!
//! The kernel module resolves next hops only over routes that are not ours. A host route of ours to
//! a neighbour (`reachableBy`) counts too: the neighbour, as a next hop, is reached through the
//! route's gateway. Such a route is active while the gateway is on a directly connected network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bgp_proto::policy::Source;
use bgp_proto::rib::{NextHopState, Over};
use bgp_proto::table::LocalRoute;
use bgp_proto::types::{FibKind, Hop, Prefix};

use super::startup::Lookups;
use crate::config::HostRoute;
use crate::engine::Handle;
use crate::kernel::{Fib, Resolutions};

/// IGP metric of a next hop that is reached through a host route: worse than every known metric.
const UNKNOWN_METRIC: u32 = u32::MAX;

/// Tracks next hops between the table and the kernel module. Clones share the state.
#[derive(Clone, Default)]
pub(super) struct NextHops(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Next hops that the table tracks.
    wanted: BTreeSet<IpAddr>,
    /// Gateways by destination.
    host_routes: BTreeMap<IpAddr, IpAddr>,
    /// The kernel module's last report about every tracked address.
    reported: BTreeMap<IpAddr, NextHopState>,
    /// The kernel writer, which updates routes at once when a next hop resolves differently.
    writer: Option<Resolutions>,
}

/// The consequences of a change.
#[derive(Debug, Default, PartialEq)]
struct News {
    /// Next hops to report to the table.
    next_hops: Vec<(IpAddr, NextHopState)>,
    /// Host routes to originate, or with `None` to withdraw because they are not active.
    routes: Vec<(IpAddr, Option<Way>)>,
}

/// The hops of a host route, and their outgoing interface.
type Way = (Vec<Hop>, Option<Arc<str>>);

impl NextHops {
    /// From here on reports to the table also go to the kernel writer, which receives them first.
    pub(super) fn also_tell(&self, writer: Resolutions) {
        self.lock().writer = Some(writer);
    }

    /// The table starts tracking an address.
    pub(super) fn track(&self, addr: IpAddr, kernel: &Fib) {
        self.lock().wanted.insert(addr);
        kernel.track(addr);
    }

    /// The table stops tracking an address.
    pub(super) fn untrack(&self, addr: IpAddr, kernel: &Fib) {
        if self.lock().untrack(addr) {
            kernel.untrack(addr);
        }
    }

    /// The next hops that the table tracks.
    pub(super) fn wanted(&self) -> BTreeSet<IpAddr> {
        self.lock().wanted.clone()
    }

    /// Whether the kernel module has reported on every address that the table tracks.
    pub(super) fn lookups(&self) -> Lookups {
        let state = self.lock();
        if state.wanted.iter().all(|addr| state.reported.contains_key(addr)) {
            Lookups::Done
        } else {
            Lookups::Pending
        }
    }

    /// Replaces the host routes.
    pub(super) fn set_host_routes(&self, routes: &[HostRoute], kernel: &Fib, table: &Handle) {
        let mut state = self.lock();
        let (news, started, ended) = state.set_host_routes(routes);
        // Under the lock, so that the kernel module's next report cannot overtake these.
        state.tell(news, table);
        drop(state);
        ended.into_iter().for_each(|gateway| kernel.untrack(gateway));
        started.into_iter().for_each(|gateway| kernel.track(gateway));
    }

    /// The kernel module reports how an address is resolved.
    pub(super) fn handle_report(&self, addr: IpAddr, report: NextHopState, table: &Handle) {
        let mut state = self.lock();
        let news = state.handle_report(addr, report);
        state.tell(news, table);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&self, news: News, table: &Handle) {
        for (addr, state) in news.next_hops {
            if let Some(writer) = &self.writer {
                writer.update(addr, &state);
            }
            table.next_hop(addr, state);
        }
        for (destination, way) in news.routes {
            let route = way.map(|(hops, interface)| LocalRoute {
                install: Some(FibKind::Unicast(hops.clone())),
                next_hop: hops.first().and_then(|hop| hop.gateway),
                hops,
                interface,
                ..LocalRoute::default()
            });
            table.local(Prefix::host(destination), Source::Static, route);
        }
    }

    /// Returns whether the kernel module can stop tracking the address.
    fn untrack(&mut self, addr: IpAddr) -> bool {
        self.wanted.remove(&addr);
        let is_gateway = self.host_routes.values().any(|gateway| *gateway == addr);
        if !is_gateway {
            self.reported.remove(&addr);
        }
        !is_gateway
    }

    /// Also returns the gateways to start tracking, and those to stop tracking.
    fn set_host_routes(
        &mut self,
        routes: &[HostRoute],
    ) -> (News, BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let fresh: BTreeMap<IpAddr, IpAddr> =
            routes.iter().map(|route| (route.destination, route.gateway)).collect();
        let before = std::mem::replace(&mut self.host_routes, fresh);
        let gateways =
            |routes: &BTreeMap<IpAddr, IpAddr>| routes.values().copied().collect::<BTreeSet<_>>();
        let (old, new) = (gateways(&before), gateways(&self.host_routes));
        let is_tracked = |gateway: &&IpAddr| self.wanted.contains(*gateway);
        let started = new.difference(&old).filter(|g| !is_tracked(g)).copied().collect();
        let ended: BTreeSet<IpAddr> =
            old.difference(&new).filter(|g| !is_tracked(g)).copied().collect();
        ended.iter().for_each(|gateway| drop(self.reported.remove(gateway)));
        let mut news = News::default();
        let changed = before.iter().filter(|(d, g)| self.host_routes.get(d) != Some(g));
        let added = self.host_routes.iter().filter(|(d, g)| before.get(d) != Some(g));
        let touched: BTreeSet<IpAddr> = changed.chain(added).map(|(d, _)| *d).collect();
        touched.into_iter().for_each(|destination| self.look_at(destination, &mut news));
        (news, started, ended)
    }

    fn handle_report(&mut self, addr: IpAddr, report: NextHopState) -> News {
        let mut news = News::default();
        let behind: Vec<IpAddr> = self
            .host_routes
            .iter()
            .filter(|(_, gateway)| **gateway == addr)
            .map(|(destination, _)| *destination)
            .collect();
        if !self.wanted.contains(&addr) && behind.is_empty() {
            // A report that was under way when tracking ended.
            return news;
        }
        self.reported.insert(addr, report);
        if self.wanted.contains(&addr)
            && let Some(state) = self.resolve(addr)
        {
            news.next_hops.push((addr, state));
        }
        behind.into_iter().for_each(|destination| self.look_at(destination, &mut news));
        news
    }

    /// Adds the consequences for a destination whose host route was added, removed or changed.
    fn look_at(&self, destination: IpAddr, news: &mut News) {
        news.routes.push((destination, self.hops_to(destination)));
        if self.wanted.contains(&destination)
            && let Some(state) = self.resolve(destination)
        {
            news.next_hops.push((destination, state));
        }
    }

    /// The hops of a destination's host route, if it has one that is active.
    fn hops_to(&self, destination: IpAddr) -> Option<Way> {
        let gateway = self.host_routes.get(&destination)?;
        match self.reported.get(gateway)? {
            NextHopState::Via { hops, connected: true, interface, .. } => {
                Some((hops.clone(), interface.clone()))
            }
            _ => None,
        }
    }

    /// How an address is resolved; `None` if that is not known yet.
    fn resolve(&self, addr: IpAddr) -> Option<NextHopState> {
        if let Some((hops, interface)) = self.hops_to(addr) {
            let metric = UNKNOWN_METRIC;
            let over = Over::Specific;
            return Some(NextHopState::Via { hops, metric, connected: false, interface, over });
        }
        self.reported.get(&addr).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(gateway: &str) -> Hop {
        Hop { gateway: Some(addr(gateway)), ifindex: 2, onlink: false, weight: 1 }
    }

    fn via(gateway: &str, connected: bool) -> NextHopState {
        let interface = Some("eth0".into());
        let over = Over::Specific;
        NextHopState::Via { hops: vec![hop(gateway)], metric: 0, connected, interface, over }
    }

    fn route(destination: &str, gateway: &str) -> HostRoute {
        HostRoute { destination: addr(destination), gateway: addr(gateway) }
    }

    #[test]
    fn a_neighbour_is_reached_through_the_gateway_of_its_host_route() {
        let mut state = State::default();
        let tor = addr("192.0.2.1");
        state.wanted.insert(tor);
        let news = state.handle_report(tor, via("10.0.0.254", false));
        let by = |gateway: &str, metric| NextHopState::Via {
            hops: vec![hop(gateway)],
            metric,
            connected: false,
            interface: Some("eth0".into()),
            over: Over::Specific,
        };
        let default = by("10.0.0.254", 0);
        assert_eq!(news.next_hops, [(tor, default.clone())]);

        let (news, started, _) = state.set_host_routes(&[route("192.0.2.1", "10.0.0.9")]);
        assert_eq!(started, [addr("10.0.0.9")].into());
        assert_eq!(news.routes, [(tor, None)], "nothing is known about the gateway yet");
        let news = state.handle_report(addr("10.0.0.9"), via("10.0.0.9", true));
        let way = (vec![hop("10.0.0.9")], Some("eth0".into()));
        assert_eq!(news.routes, [(tor, Some(way))]);
        assert_eq!(news.next_hops, [(tor, by("10.0.0.9", u32::MAX))]);

        // The gateway moves behind a router, then the route is removed.
        let news = state.handle_report(addr("10.0.0.9"), via("10.0.0.254", false));
        assert_eq!(news.routes, [(tor, None)]);
        assert_eq!(news.next_hops, [(tor, default)]);
        let (news, _, ended) = state.set_host_routes(&[]);
        assert_eq!(news.routes, [(tor, None)]);
        assert_eq!(ended, [addr("10.0.0.9")].into());
        assert_eq!(state.reported.len(), 1);
    }

    #[test]
    fn a_gateway_that_is_a_next_hop_too_stays_tracked_for_the_other() {
        let mut state = State::default();
        let gateway = addr("10.0.0.9");
        state.wanted.insert(gateway);
        let (_, started, _) = state.set_host_routes(&[route("192.0.2.1", "10.0.0.9")]);
        assert!(started.is_empty(), "the table tracks it already");
        assert!(!state.untrack(gateway), "the host route needs it");
        let (.., ended) = state.set_host_routes(&[]);
        assert_eq!(ended, [gateway].into());
    }

    #[test]
    fn a_late_report_leaves_nothing_behind() {
        let mut state = State::default();
        assert_eq!(state.handle_report(addr("10.0.0.9"), via("10.0.0.9", true)), News::default());
        assert!(state.reported.is_empty());
    }
}
