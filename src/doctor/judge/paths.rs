//! The paths to a prefix that margay would have: its own routes as in the plan, all others as the
//! speaker that runs today has received them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::policy::Source;
use bgp_proto::types::{Family, Prefix};

use super::super::bird::{Path, Table, Via};
use super::super::facts::{Facts, Speaker, Wanted};
use crate::calico::decide::{Answer, Direction, Question, Route};
use crate::calico::plan::{StaticKind, StaticRoute};
use crate::kernel::Picture;

/// rtm_protocol of routes that BIRD and margay write.
pub(super) const OURS: u8 = 12;
/// The preference of our own routes.
const STATIC_PREFERENCE: u16 = 200;

/// What the paths of one family are derived from.
pub(super) struct Paths<'a> {
    wanted: &'a Wanted,
    table: &'a Table,
    picture: Option<&'a Picture>,
    statics: BTreeMap<Prefix, &'a StaticRoute>,
    /// Metrics of other processes' kernel routes, which margay does not print with its paths.
    metrics: BTreeMap<Prefix, u32>,
}

/// One path.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) source: Source,
    pub(super) preference: u16,
    pub(super) via: Via,
    /// The path in the speaker's table; `None`: it is from the plan.
    pub(super) path: Option<&'a Path>,
    route: Route,
}

impl<'a> Paths<'a> {
    pub(super) fn new(
        facts: &'a Facts,
        wanted: &'a Wanted,
        family: Family,
        speaker: &'a Speaker,
    ) -> Self {
        let statics = wanted.plan.families.get(family).statics.iter();
        let picture = facts.kernel.as_ref().ok();
        let mut metrics = BTreeMap::new();
        for route in picture.into_iter().flat_map(|picture| &picture.routes) {
            if route.protocol != OURS && route.prefix.family() == family {
                let metric = metrics.entry(route.prefix).or_insert(route.metric);
                *metric = route.metric.min(*metric);
            }
        }
        Paths {
            wanted,
            table: &speaker.table,
            picture,
            statics: statics.map(|route| (route.prefix, route)).collect(),
            metrics,
        }
    }

    /// All prefixes with a path.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let learned = self.table.paths.keys().filter(|prefix| !self.statics.contains_key(prefix));
        learned.chain(self.statics.keys()).copied()
    }

    /// The paths to a prefix, the best first.
    pub(super) fn to(&self, prefix: Prefix) -> Vec<Candidate<'a>> {
        let mut found = Vec::new();
        let own = self.statics.get(&prefix);
        if let Some(via) = own.and_then(|route| self.static_via(route)) {
            found.push(Candidate {
                source: Source::Static,
                preference: STATIC_PREFERENCE,
                route: route_of(prefix, Source::Static),
                path: None,
                via,
            });
        }
        for path in self.table.paths.get(&prefix).into_iter().flatten() {
            let is_replaced = match path.source {
                Source::Static => true,
                // The kernel's copy of our own route.
                Source::Kernel => own.is_some(),
                Source::Bgp | Source::Direct | Source::Vrf | Source::Announced => false,
            };
            found.extend((!is_replaced).then(|| self.learned(prefix, path)).flatten());
        }
        // The sort is stable: equal paths stay in the speaker's order.
        found.sort_by_key(|candidate| {
            let is_best = candidate.path.is_some_and(|path| path.is_best);
            (std::cmp::Reverse(candidate.preference), !is_best)
        });
        found
    }

    /// What a route of the plan does with packets; `None`: its gateway is not in a directly
    /// connected network, and it is not used.
    fn static_via(&self, route: &StaticRoute) -> Option<Via> {
        match (route.kind, route.gateway) {
            (StaticKind::Via, Some(gateway)) => {
                let interface = interface_towards(self.picture?, gateway)?;
                Some(Via::Gateways(vec![(gateway, interface.to_owned())]))
            }
            (StaticKind::Via, None) | (StaticKind::Blackhole, _) => Some(Via::Blackhole),
        }
    }

    /// A path of the speaker's table; `None`: margay does not use it, because its next hop is
    /// unreachable (`docs/src/differences.md`).
    fn learned(&self, prefix: Prefix, path: &'a Path) -> Option<Candidate<'a>> {
        let via = match (path.source, &path.via) {
            (Source::Bgp, Via::Unreachable) => self.over_a_block(path.next_hop?)?,
            (_, via) => via,
        };
        let mut route = route_of(prefix, path.source);
        match via {
            Via::Gateways(gateways) => {
                if let [(gateway, interface)] = gateways.as_slice() {
                    route.interface = Some(interface.clone());
                    route.next_hop = Some(*gateway);
                }
            }
            Via::Device(interface) => route.interface = Some(interface.clone()),
            Via::Blackhole | Via::Unreachable => {}
        }
        match path.source {
            Source::Bgp => {
                route.next_hop = path.next_hop;
                route.local_pref = path.local_pref;
                route.as_path.clone_from(&path.as_path);
                route.communities.clone_from(&path.communities);
                route.large_communities.clone_from(&path.large_communities);
            }
            Source::Kernel => {
                let of_kernel = self.metrics.get(&prefix).copied();
                route.metric = path.metric.or(of_kernel).or(Some(0));
            }
            Source::Static | Source::Direct | Source::Vrf | Source::Announced => {}
        }
        Some(Candidate {
            source: path.source,
            preference: path.preference,
            via: via.clone(),
            path: Some(path),
            route,
        })
    }

    /// The result of a policy of the plan for a path; `None`: it cannot be evaluated.
    pub(super) fn ask(
        &self,
        candidate: &Candidate<'_>,
        direction: Direction,
        session: Option<&str>,
    ) -> Option<Answer> {
        let session = session.map(str::to_owned);
        let question = Question { session, direction, route: candidate.route.clone() };
        self.wanted.plan.decide(&question).ok()
    }

    /// How margay reaches a BGP next hop that is unreachable for BIRD: through the BGP route of the
    /// block that contains it, if there is one.
    fn over_a_block(&self, next_hop: IpAddr) -> Option<&'a Via> {
        let host = Prefix::host(next_hop);
        let mut covering = (0..=host.len()).rev().map(|len| Prefix::new(next_hop, len));
        let paths = covering.find_map(|prefix| self.table.paths.get(&prefix))?;
        let best = paths.iter().find(|path| path.is_best)?;
        let is_way = best.source == Source::Bgp && matches!(best.via, Via::Gateways(_));
        is_way.then_some(&best.via)
    }
}

fn route_of(prefix: Prefix, source: Source) -> Route {
    Route {
        prefix,
        source,
        interface: None,
        metric: None,
        local_pref: None,
        next_hop: None,
        as_path: Vec::new(),
        communities: Vec::new(),
        large_communities: Vec::new(),
    }
}

/// The interface whose network contains an address.
fn interface_towards(picture: &Picture, address: IpAddr) -> Option<&str> {
    let is_near = |(own, len): &(IpAddr, u8)| Prefix::new(*own, *len).contains_addr(address);
    let link = picture.links.iter().find(|link| link.addresses.iter().any(is_near))?;
    Some(&link.name)
}
