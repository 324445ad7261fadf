//! The owner's subscriptions: next hops and learned routes. Compares the current state with what
//! was reported, and returns the differences. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use bgp_proto::types::{Prefix, on_interface6};

use super::event::{FibEvent, LearnRule, LearnSource, LearnedRoute};
use super::learn;
use super::nexthops::{Deciding, Resolution, Resolver};

/// What changed in the kernel since the last comparison.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Prefixes whose routes changed; may contain duplicates.
    prefixes: Vec<Prefix>,
    /// Addresses that became ours or no longer are.
    addresses: BTreeSet<IpAddr>,
    /// Networks with an address that changed, or over an interface that did.
    networks: BTreeSet<Prefix>,
    /// Interfaces that changed, or whose addresses did.
    interfaces: BTreeSet<u32>,
    /// Links or addresses changed.
    pub(super) links: bool,
    /// Everything is to be compared.
    pub(super) all: bool,
}

impl Touched {
    /// Above this number, comparing everything is cheaper than tracking what changed.
    const REMEMBERED_MAX: usize = 10_000;

    pub(super) fn add(&mut self, prefix: Prefix) {
        if self.prefixes.len() < Self::REMEMBERED_MAX {
            self.prefixes.push(prefix);
        } else {
            self.all = true;
        }
    }

    pub(super) fn add_address(&mut self, addr: IpAddr) {
        if self.addresses.len() < Self::REMEMBERED_MAX {
            self.addresses.insert(addr);
        } else {
            self.all = true;
        }
    }

    pub(super) fn add_network(&mut self, network: Prefix) {
        if self.networks.len() < Self::REMEMBERED_MAX {
            self.networks.insert(network);
        } else {
            self.all = true;
        }
    }

    pub(super) fn add_interface(&mut self, ifindex: u32) {
        if self.interfaces.len() < Self::REMEMBERED_MAX {
            self.interfaces.insert(ifindex);
        } else {
            self.all = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
            && self.addresses.is_empty()
            && self.networks.is_empty()
            && self.interfaces.is_empty()
            && !self.links
            && !self.all
    }
}

/// The subscriptions, and what was reported for them.
#[derive(Debug)]
pub(super) struct Watch {
    own_protocol: u8,
    tracked: BTreeMap<IpAddr, Resolution>,
    rules: Vec<LearnRule>,
    learned: BTreeMap<Prefix, LearnedRoute>,
    connected: BTreeMap<Prefix, LearnedRoute>,
    /// Addresses whose resolution changed since the last call of [`Watch::take_decided`].
    decided: BTreeSet<IpAddr>,
}

impl Watch {
    pub(super) fn new(own_protocol: u8) -> Watch {
        Watch {
            own_protocol,
            tracked: BTreeMap::new(),
            rules: Vec::new(),
            learned: BTreeMap::new(),
            connected: BTreeMap::new(),
            decided: BTreeSet::new(),
        }
    }

    /// Starts reporting an address; returns its state.
    pub(super) fn track(&mut self, addr: IpAddr, resolver: Resolver<'_>) -> FibEvent {
        let resolution = resolver.resolve(addr);
        let state = resolution.state.clone();
        self.tracked.insert(addr, resolution);
        self.decided.insert(addr);
        FibEvent::NextHop { addr, state }
    }

    pub(super) fn untrack(&mut self, addr: IpAddr) {
        self.tracked.remove(&addr);
        self.decided.insert(addr);
    }

    /// The addresses whose resolution changed, each with the route that decides it; `None` if no
    /// route covers the address or it is not tracked.
    pub(super) fn take_decided(&mut self) -> Vec<(IpAddr, Option<Deciding>)> {
        let changed = std::mem::take(&mut self.decided).into_iter();
        let by = |addr| self.tracked.get(&addr).and_then(|resolution| resolution.by.clone());
        changed.map(|addr| (addr, by(addr))).collect()
    }

    /// Replaces the rules; returns the differences.
    pub(super) fn learn(&mut self, rules: Vec<LearnRule>, resolver: Resolver<'_>) -> Vec<FibEvent> {
        self.rules = rules;
        let mut events = Vec::new();
        self.compare_all_learned(resolver, &mut events);
        self.compare_all_connected(resolver, &mut events);
        events
    }

    /// What other rules would select; the rules in force stay.
    pub(super) fn foresee(&self, rules: &[LearnRule], resolver: Resolver<'_>) -> Vec<LearnedRoute> {
        let foreign = resolver.foreign().iter();
        let learned = foreign.filter_map(|(prefix, routes)| {
            learn::learned_route(prefix, routes, rules, self.own_protocol, resolver)
        });
        let networks: BTreeSet<Prefix> = resolver.links().networks().collect();
        let connected = networks.into_iter();
        let connected = connected.filter_map(|n| learn::connected_route(n, rules, resolver));
        learned.chain(connected).collect()
    }

    /// Returns the differences that follow from the changes.
    pub(super) fn compare(&mut self, touched: &Touched, resolver: Resolver<'_>) -> Vec<FibEvent> {
        let mut events = Vec::new();
        if touched.all {
            let addrs: Vec<IpAddr> = self.tracked.keys().copied().collect();
            self.compare_tracked(addrs, resolver, &mut events);
            self.compare_all_connected(resolver, &mut events);
            self.compare_all_learned(resolver, &mut events);
            return events;
        }
        let mut addrs = touched.addresses.clone();
        for prefix in &touched.prefixes {
            addrs.extend(self.tracked.range(addresses(*prefix)).map(|(addr, _)| *addr));
        }
        for ifindex in &touched.interfaces {
            addrs.extend(self.tracked.range(link_local(*ifindex)).map(|(addr, _)| *addr));
        }
        self.compare_tracked(addrs, resolver, &mut events);
        for network in &touched.networks {
            self.compare_connected(*network, resolver, &mut events);
        }
        for prefix in &touched.prefixes {
            self.compare_learned(*prefix, resolver, &mut events);
        }
        events
    }

    fn compare_tracked(
        &mut self,
        addrs: impl IntoIterator<Item = IpAddr>,
        resolver: Resolver<'_>,
        events: &mut Vec<FibEvent>,
    ) {
        for addr in addrs {
            let Some(reported) = self.tracked.get_mut(&addr) else { continue };
            let resolution = resolver.resolve(addr);
            if reported.state != resolution.state {
                events.push(FibEvent::NextHop { addr, state: resolution.state.clone() });
            }
            if *reported != resolution {
                *reported = resolution;
                self.decided.insert(addr);
            }
        }
    }

    fn compare_learned(
        &mut self,
        prefix: Prefix,
        resolver: Resolver<'_>,
        events: &mut Vec<FibEvent>,
    ) {
        if self.rules.is_empty() && self.learned.is_empty() {
            return;
        }
        let routes = resolver.foreign().get(prefix);
        let route = learn::learned_route(prefix, routes, &self.rules, self.own_protocol, resolver);
        report(&mut self.learned, prefix, route, events);
    }

    fn compare_all_learned(&mut self, resolver: Resolver<'_>, events: &mut Vec<FibEvent>) {
        let foreign = resolver.foreign();
        let gone: Vec<Prefix> =
            self.learned.keys().filter(|p| foreign.get(**p).is_empty()).copied().collect();
        for prefix in gone.into_iter().chain(foreign.iter().map(|(prefix, _)| prefix)) {
            self.compare_learned(prefix, resolver, events);
        }
    }

    fn compare_connected(
        &mut self,
        network: Prefix,
        resolver: Resolver<'_>,
        events: &mut Vec<FibEvent>,
    ) {
        let selected = self.rules.iter().any(|rule| rule.from == LearnSource::Connected);
        let route =
            if selected { learn::connected_route(network, &self.rules, resolver) } else { None };
        report(&mut self.connected, network, route, events);
    }

    fn compare_all_connected(&mut self, resolver: Resolver<'_>, events: &mut Vec<FibEvent>) {
        let networks = resolver.links().networks();
        let known: BTreeSet<Prefix> = self.connected.keys().copied().chain(networks).collect();
        for network in known {
            self.compare_connected(network, resolver, events);
        }
    }
}

/// Reports the difference between the known and the current route of one prefix.
fn report(
    known: &mut BTreeMap<Prefix, LearnedRoute>,
    prefix: Prefix,
    route: Option<LearnedRoute>,
    events: &mut Vec<FibEvent>,
) {
    match route {
        Some(route) if known.get(&prefix) == Some(&route) => {}
        Some(route) => {
            known.insert(prefix, route.clone());
            events.push(FibEvent::Learned { route });
        }
        None => {
            if let Some(route) = known.remove(&prefix) {
                events.push(FibEvent::Forgotten { prefix, connected: route.connected });
            }
        }
    }
}

/// The link-local addresses on an interface.
fn link_local(ifindex: u32) -> RangeInclusive<IpAddr> {
    let at =
        |bits: u64| on_interface6(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(bits)), ifindex);
    at(0).into()..=at(u64::MAX).into()
}

/// The range of addresses of a prefix.
fn addresses(prefix: Prefix) -> RangeInclusive<IpAddr> {
    let last = match prefix {
        Prefix::V4(p) => {
            let host = u32::MAX.checked_shr(u32::from(p.len())).unwrap_or(0);
            IpAddr::V4((p.bits() | host).into())
        }
        Prefix::V6(p) => {
            let host = u128::MAX.checked_shr(u32::from(p.len())).unwrap_or(0);
            IpAddr::V6((p.bits() | host).into())
        }
    };
    prefix.addr()..=last
}

#[cfg(test)]
mod tests;
