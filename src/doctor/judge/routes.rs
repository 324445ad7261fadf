//! Compares the kernel routes that BIRD wrote with those that margay would write from the same
//! received routes, and checks who writes the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bgp_proto::policy::Source;
use bgp_proto::types::{Family, Prefix};

use super::super::bird::Via;
use super::super::facts::{Facts, Wanted};
use super::super::finding::{Findings, Severity, Subject};
use super::paths::{Candidate, OURS, Paths};
use crate::calico::decide::{Answer, Direction};
use crate::calico::plan::{Pool, PoolRoutes};
use crate::kernel::{Picture, SeenKind, SeenRoute};

/// rtm_protocol of routes that Felix writes: RTPROT_BOOT on tunnels, its own number otherwise.
const FELIXS: [u8; 2] = [3, 80];
/// The metric that the kernel gives IPv6 routes without one.
const IPV6_METRIC: u32 = 1024;

/// The properties of a kernel route that decide where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    kind: SeenKind,
    gateways: BTreeSet<(Option<IpAddr>, String)>,
    metric: u32,
}

/// Formats the route as ip(8) does.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SeenKind::Blackhole => f.write_str("blackhole")?,
            SeenKind::Unreachable => f.write_str("unreachable")?,
            SeenKind::Unicast | SeenKind::Other => {
                for (at, (via, interface)) in self.gateways.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    match via {
                        Some(via) => write!(f, "via {via} dev {interface}")?,
                        None => write!(f, "dev {interface}")?,
                    }
                }
            }
        }
        write!(f, " metric {}", self.metric)
    }
}

impl Way {
    fn of(route: &SeenRoute) -> Way {
        let gateways = route.gateways.iter();
        Way {
            kind: route.kind,
            gateways: gateways.map(|g| (g.via, g.interface.clone())).collect(),
            metric: route.metric,
        }
    }
}

/// The kernel routes of a prefix.
#[derive(Default)]
struct InKernel<'a> {
    ours: Vec<&'a SeenRoute>,
    others: Vec<&'a SeenRoute>,
}

/// The blocks of a pool whose kernel routes have no owner, or two.
#[derive(Default)]
struct Owners {
    nobodys: Vec<Prefix>,
    two: Vec<Prefix>,
}

struct Judge<'a> {
    paths: &'a Paths<'a>,
    picture: &'a Picture,
    family: Family,
    pools: &'a [Pool],
    kernel: BTreeMap<Prefix, InKernel<'a>>,
}

/// Compares our routes in the kernel. Returns how many were compared: those on either side.
pub(super) fn judge(
    facts: &Facts,
    paths: &Paths<'_>,
    wanted: &Wanted,
    family: Family,
    out: &mut Findings,
) -> usize {
    // An unreadable routing table is reported elsewhere.
    let Ok(picture) = &facts.kernel else { return 0 };
    let mut kernel: BTreeMap<Prefix, InKernel<'_>> = BTreeMap::new();
    for route in picture.routes.iter().filter(|route| route.prefix.family() == family) {
        let here = kernel.entry(route.prefix).or_default();
        if route.protocol == OURS { here.ours.push(route) } else { here.others.push(route) }
    }
    let judge =
        Judge { paths, picture, family, pools: &wanted.plan.families.get(family).pools, kernel };
    let reasons = &wanted.plan.reasons;
    let mut owners: BTreeMap<Prefix, Owners> = BTreeMap::new();
    let ours = judge.kernel.iter().filter(|(_, here)| !here.ours.is_empty());
    let all: BTreeSet<Prefix> =
        judge.paths.prefixes().chain(ours.map(|(prefix, _)| *prefix)).collect();
    let mut count = 0;
    for prefix in all {
        let object = reasons.get(&prefix).map_or("", String::as_str);
        count += usize::from(judge.one(prefix, object, &mut owners, out));
    }
    for (pool, owners) in owners {
        tell_owners(pool, &owners, out);
    }
    count
}

impl Judge<'_> {
    /// Compares one prefix. Returns whether we have a route to it, today or with margay.
    fn one(
        &self,
        prefix: Prefix,
        object: &str,
        owners: &mut BTreeMap<Prefix, Owners>,
        out: &mut Findings,
    ) -> bool {
        let candidates = self.paths.to(prefix);
        let here = self.kernel.get(&prefix);
        let ours = here.map_or(&[][..], |here| here.ours.as_slice());
        let then = self.wanted(&candidates);
        let pool = self.pools.iter().find(|pool| pool.cidr.contains(prefix));
        let is_remote = candidates.first().is_some_and(|best| best.source == Source::Bgp);
        let by_felix = self.is_felixs(prefix);
        if let Some(pool) = pool.filter(|_| is_remote) {
            let of_pool = owners.entry(pool.cidr).or_default();
            if pool.kernel == PoolRoutes::Reject && !by_felix {
                of_pool.nobodys.push(prefix);
                return !ours.is_empty();
            }
            if then.is_some() && self.has_felixs(prefix) {
                of_pool.two.push(prefix);
            }
        }
        let today: Vec<Way> = ours.iter().map(|route| Way::of(route)).collect();
        let (text, remedy) = match (today.as_slice(), &then) {
            ([], None) => return false,
            ([], Some(then)) => {
                // The kernel holds one route per prefix and metric: the existing one stays.
                let is_taken = here.is_some_and(|here| {
                    here.others.iter().any(|route| route.metric == then.metric)
                });
                if is_taken {
                    return true;
                }
                (
                    format!("is not in the kernel today, and would be: {then}"),
                    "see why BIRD has not written it (birdcl show route, its log), or accept the route",
                )
            }
            ([one], Some(then)) if one == then => return true,
            (today, Some(then)) => (
                format!("is {} today, and would be {then}", shown(today)),
                "see that packets may go the new way, or correct the object",
            ),
            (today, None) => (
                format!(
                    "is {} today, and would be removed: {}",
                    shown(today),
                    self.why(&candidates)
                ),
                "see who else routes the prefix before the change; nothing, if it is a left-over",
            ),
        };
        out.add(Severity::Change, Subject::Route(prefix), object, text, remedy);
        true
    }

    /// Why margay would not write a route.
    fn why(&self, candidates: &[Candidate<'_>]) -> String {
        match candidates.first() {
            None => "no session gives a usable path to it".to_owned(),
            Some(best) => self
                .paths
                .ask(best, Direction::Kernel, None)
                .map_or_else(|| "it cannot be asked".to_owned(), |answer| answer.rule),
        }
    }

    /// The route that margay would write.
    fn wanted(&self, candidates: &[Candidate<'_>]) -> Option<Way> {
        let best = candidates.first()?;
        let answer = self.paths.ask(best, Direction::Kernel, None)?;
        if answer.decision != "accept" {
            return None;
        }
        let metric = match (answer.route.metric.unwrap_or(0), self.family) {
            (0, Family::Ipv6) => IPV6_METRIC,
            (metric, _) => metric,
        };
        let (kind, gateways) = self.way(candidates, &answer);
        Some(Way { kind, gateways, metric })
    }

    fn way(
        &self,
        candidates: &[Candidate<'_>],
        answer: &Answer,
    ) -> (SeenKind, BTreeSet<(Option<IpAddr>, String)>) {
        let nowhere = BTreeSet::new;
        let Some(best) = candidates.first() else { return (SeenKind::Unreachable, nowhere()) };
        let legs = || candidates.iter().filter(|other| shares(best, other));
        if let Some(tunnel) = &answer.tunnel
            && self.picture.links.iter().any(|link| link.name == *tunnel)
            && matches!(best.via, Via::Gateways(_))
        {
            let hops = legs().filter_map(|leg| leg.path?.next_hop);
            return (SeenKind::Unicast, hops.map(|hop| (Some(hop), tunnel.clone())).collect());
        }
        match &best.via {
            Via::Blackhole => (SeenKind::Blackhole, nowhere()),
            Via::Unreachable => (SeenKind::Unreachable, nowhere()),
            Via::Device(interface) => {
                (SeenKind::Unicast, BTreeSet::from([(None, interface.clone())]))
            }
            Via::Gateways(of_best) => {
                let others = legs().filter_map(|leg| match &leg.via {
                    Via::Gateways(gateways) => Some(gateways),
                    Via::Device(_) | Via::Blackhole | Via::Unreachable => None,
                });
                let all = std::iter::once(of_best).chain(others).flatten();
                let named =
                    |(gateway, interface): &(IpAddr, String)| (Some(*gateway), interface.clone());
                (SeenKind::Unicast, all.map(named).collect())
            }
        }
    }

    /// Whether Felix has a route for exactly this prefix.
    fn has_felixs(&self, prefix: Prefix) -> bool {
        let others = self.kernel.get(&prefix).map_or(&[][..], |here| here.others.as_slice());
        others.iter().any(|route| FELIXS.contains(&route.protocol))
    }

    /// Whether another process has a route to the prefix itself, or to a part of its pool that
    /// contains it.
    fn is_felixs(&self, prefix: Prefix) -> bool {
        let Some(pool) = self.pools.iter().find(|pool| pool.cidr.contains(prefix)) else {
            return false;
        };
        (pool.cidr.len()..=prefix.len()).any(|len| {
            let covering = self.kernel.get(&Prefix::new(prefix.addr(), len));
            covering
                .is_some_and(|here| here.others.iter().any(|route| route.kind == SeenKind::Unicast))
        })
    }
}

fn shown(ways: &[Way]) -> String {
    ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Whether BIRD and margay merge a path with the best one (`merge paths`): they are equal in all
/// steps of the decision process before the router ID.
fn shares(best: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    let (Some(a), Some(b)) = (best.path, other.path) else { return false };
    let key = |path: &'_ super::super::bird::Path| {
        (
            path.preference,
            path.local_pref,
            path.as_path.len(),
            path.origin.clone(),
            path.igp_metric.clone(),
        )
    };
    best.source == Source::Bgp
        && other.source == Source::Bgp
        && matches!(other.via, Via::Gateways(_))
        && key(a) == key(b)
        && (a.med.unwrap_or(0) == b.med.unwrap_or(0) || a.as_path.first() != b.as_path.first())
}

fn tell_owners(pool: Prefix, owners: &Owners, out: &mut Findings) {
    let some = |list: &[Prefix]| match list {
        [] => None,
        [one] => Some(one.to_string()),
        [first, rest @ ..] => Some(format!("{first} and {} more", rest.len())),
    };
    let subject = || Subject::Route(pool);
    if let Some(blocks) = some(&owners.nobodys) {
        out.add(
            Severity::Unsafe,
            subject(),
            "",
            format!(
                "Felix is to write this pool's routes to other nodes, and has none for {blocks}: \
                 margay writes none either"
            ),
            "see that Felix runs, that its release is the one that margay assumes \
             (MARGAY_CALICO_VERSION), and what programClusterRoutes says in BGPConfiguration and \
             FelixConfiguration",
        );
    }
    if let Some(blocks) = some(&owners.two) {
        out.add(
            Severity::Unsafe,
            subject(),
            "",
            format!("both Felix and BGP write routes to other nodes for {blocks}"),
            "set programClusterRoutes in BGPConfiguration or in FelixConfiguration so that one does",
        );
    }
}
