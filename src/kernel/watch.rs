//! What the owner asked to hear about: next hops and learned routes. Compares what is true with
//! what was reported, and gives the differences. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use bgp_proto::types::Prefix;

use super::event::{FibEvent, LearnRule, LearnedRoute, NextHopState};
use super::foreign::Foreign;
use super::learn;
use super::links::Links;
use super::nexthops::resolve;

/// What changed in the kernel since the last comparison.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Prefixes whose foreign routes changed.
    pub(super) prefixes: BTreeSet<Prefix>,
    /// Links or addresses changed.
    pub(super) links: bool,
    /// So much changed that everything is compared.
    pub(super) all: bool,
}

impl Touched {
    /// Above this, comparing everything is cheaper than remembering what changed.
    const PREFIXES_MAX: usize = 10_000;

    pub(super) fn add(&mut self, prefix: Prefix) {
        if self.prefixes.len() < Self::PREFIXES_MAX {
            self.prefixes.insert(prefix);
        } else {
            self.all = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && !self.links && !self.all
    }
}

/// What was asked for and what was reported.
#[derive(Debug)]
pub(super) struct Watch {
    own_protocol: u8,
    tracked: BTreeMap<IpAddr, NextHopState>,
    rules: Vec<LearnRule>,
    learned: BTreeMap<Prefix, LearnedRoute>,
    connected: BTreeMap<Prefix, LearnedRoute>,
}

impl Watch {
    pub(super) fn new(own_protocol: u8) -> Watch {
        Watch {
            own_protocol,
            tracked: BTreeMap::new(),
            rules: Vec::new(),
            learned: BTreeMap::new(),
            connected: BTreeMap::new(),
        }
    }

    /// Starts reporting an address: its state.
    pub(super) fn track(&mut self, addr: IpAddr, foreign: &Foreign, links: &Links) -> FibEvent {
        let state = resolve(addr, foreign, links);
        self.tracked.insert(addr, state.clone());
        FibEvent::NextHop { addr, state }
    }

    pub(super) fn untrack(&mut self, addr: IpAddr) {
        self.tracked.remove(&addr);
    }

    /// Replaces the rules; the differences.
    pub(super) fn learn(
        &mut self,
        rules: Vec<LearnRule>,
        foreign: &Foreign,
        links: &Links,
    ) -> Vec<FibEvent> {
        self.rules = rules;
        let mut events = Vec::new();
        self.compare_all_learned(foreign, links, &mut events);
        self.compare_connected(links, &mut events);
        events
    }

    /// The differences that the changes make.
    pub(super) fn compare(
        &mut self,
        touched: &Touched,
        foreign: &Foreign,
        links: &Links,
    ) -> Vec<FibEvent> {
        let mut events = Vec::new();
        if touched.links {
            events.push(FibEvent::LinksChanged);
        }
        if touched.links || touched.all {
            self.compare_tracked(|_| true, foreign, links, &mut events);
            self.compare_connected(links, &mut events);
        } else {
            let addrs = touched.prefixes.iter().flat_map(|p| self.tracked.range(addresses(*p)));
            let addrs: BTreeSet<IpAddr> = addrs.map(|(addr, _)| *addr).collect();
            if !addrs.is_empty() {
                self.compare_tracked(|addr| addrs.contains(&addr), foreign, links, &mut events);
            }
        }
        if touched.all {
            self.compare_all_learned(foreign, links, &mut events);
        } else {
            for prefix in &touched.prefixes {
                self.compare_learned(*prefix, foreign, links, &mut events);
            }
        }
        events
    }

    fn compare_tracked(
        &mut self,
        selects: impl Fn(IpAddr) -> bool,
        foreign: &Foreign,
        links: &Links,
        events: &mut Vec<FibEvent>,
    ) {
        for (&addr, reported) in self.tracked.iter_mut().filter(|(addr, _)| selects(**addr)) {
            let state = resolve(addr, foreign, links);
            if *reported != state {
                reported.clone_from(&state);
                events.push(FibEvent::NextHop { addr, state });
            }
        }
    }

    fn compare_learned(
        &mut self,
        prefix: Prefix,
        foreign: &Foreign,
        links: &Links,
        events: &mut Vec<FibEvent>,
    ) {
        if self.rules.is_empty() && self.learned.is_empty() {
            return;
        }
        let routes = foreign.get(prefix);
        let route = learn::learned_route(prefix, routes, &self.rules, self.own_protocol, links);
        report(&mut self.learned, prefix, route, events);
    }

    fn compare_all_learned(
        &mut self,
        foreign: &Foreign,
        links: &Links,
        events: &mut Vec<FibEvent>,
    ) {
        let gone: Vec<Prefix> =
            self.learned.keys().filter(|p| foreign.get(**p).is_empty()).copied().collect();
        for prefix in gone.into_iter().chain(foreign.iter().map(|(prefix, _)| prefix)) {
            self.compare_learned(prefix, foreign, links, events);
        }
    }

    fn compare_connected(&mut self, links: &Links, events: &mut Vec<FibEvent>) {
        let mut routes = learn::connected_routes(&self.rules, links);
        let known: BTreeSet<Prefix> = self.connected.keys().chain(routes.keys()).copied().collect();
        for prefix in known {
            report(&mut self.connected, prefix, routes.remove(&prefix), events);
        }
    }
}

/// Reports the difference between what is known and what is, for one prefix.
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

/// The addresses of a prefix.
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
