//! Next hops: as peers send them, and as the kernel uses them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Prefix;

/// A next hop as received in NEXT_HOP or MP_REACH_NLRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// Four octets.
    V4(Ipv4Addr),
    /// Sixteen octets: a global address, or a link-local one alone (unnumbered peers).
    V6(Ipv6Addr),
    /// Thirty-two octets: global, then link-local (RFC 2545 §3).
    V6Both {
        /// The global address.
        global: Ipv6Addr,
        /// The link-local address, usable on the link to the peer only.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The address that is compared and resolved first. A link-local one has its interface inside
    /// ([`on_interface`](super::on_interface)).
    pub fn addr(self) -> IpAddr {
        match self {
            NextHop::V4(a) => IpAddr::V4(a),
            NextHop::V6(a) | NextHop::V6Both { global: a, .. } => IpAddr::V6(a),
        }
    }
}

impl NextHop {
    /// As the neighbour sent it: a link-local address without its interface.
    pub fn off_interface(self) -> NextHop {
        match self {
            NextHop::V6(_) => NextHop::from(super::off_interface(self.addr()).0),
            NextHop::V4(_) | NextHop::V6Both { .. } => self,
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => NextHop::V4(a),
            IpAddr::V6(a) => NextHop::V6(a),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::off_interface(self.addr()).0.fmt(f)
    }
}

/// One hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The gateway; `None` for a directly connected destination.
    pub gateway: Option<IpAddr>,
    /// The interface's kernel index.
    pub ifindex: u32,
    /// The gateway is reachable on the interface although no address of ours covers it.
    pub onlink: bool,
    /// Relative share of traffic, 1-256.
    pub weight: u16,
}

/// What the kernel does with packets for a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibKind {
    /// Forward over these hops, sorted, at least one.
    Unicast(Vec<Hop>),
    /// Drop silently.
    Blackhole,
    /// Drop, and report "unreachable" to the sender (ICMP).
    Unreachable,
}

/// What the host has to change in the kernel for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibChange<Route = FibRoute> {
    /// Install this route, in place of an earlier one of ours.
    Install(Route),
    /// Write nothing, and leave our route installed until another process has a route for the
    /// prefix: the process that takes the prefix over may not have installed its route yet.
    Keep,
    /// Remove our route.
    Withdraw,
}

impl<Route> FibChange<Route> {
    /// The route to install, if any.
    pub fn route(self) -> Option<Route> {
        match self {
            FibChange::Install(route) => Some(route),
            FibChange::Keep | FibChange::Withdraw => None,
        }
    }

    /// The same change, with the route converted by `form`.
    pub fn map<Other>(self, form: impl FnOnce(Route) -> Other) -> FibChange<Other> {
        match self {
            FibChange::Install(route) => FibChange::Install(form(route)),
            FibChange::Keep => FibChange::Keep,
            FibChange::Withdraw => FibChange::Withdraw,
        }
    }
}

impl<Route> From<Option<Route>> for FibChange<Route> {
    /// [`FibChange::Install`] for a route, [`FibChange::Withdraw`] for none.
    fn from(route: Option<Route>) -> Self {
        route.map_or(FibChange::Withdraw, FibChange::Install)
    }
}

/// A route that the table wants in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Destination.
    pub prefix: Prefix,
    /// What the kernel does with packets.
    pub kind: FibKind,
    /// Metric of the route; `None` uses the configured one.
    pub metric: Option<u32>,
    /// The address that packets from this machine get as their source (RTA_PREFSRC), of the
    /// prefix's family; `None` uses the configured one.
    pub source: Option<IpAddr>,
    /// Whether the next hop of another BGP route may be resolved over this one.
    pub recursion: Recursion,
    /// The BGP next hops from which the hops come, by address: what the host next reports for one of
    /// them changes the hops as [`FibNextHop::hops_of_all`] says. Empty for local routes, and if
    /// there are more hops than the host is given.
    pub next_hops: Vec<FibNextHop>,
    /// Where the route goes when none of `next_hops` is reached, until the decision process has come to
    /// it: the next hop of the best path with another one. `None`: nowhere.
    pub backup: Option<FibNextHop>,
}

/// A BGP next hop on which a kernel route depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibNextHop {
    /// The address that the host resolves.
    pub addr: IpAddr,
    /// Kernel index of the tunnel interface through which the route reaches it; `None`: as the host
    /// resolved it.
    pub tunnel: Option<u32>,
    /// Octets per second by which this next hop gets its share of the traffic. `None`, the default: each
    /// leg gets the same, as it does when any next hop of the route that is reached has `None`. `None`
    /// for a backup, and for the only next hop of a route.
    pub bandwidth: Option<u64>,
}

impl From<IpAddr> for FibNextHop {
    /// Without a tunnel and a bandwidth.
    fn from(addr: IpAddr) -> Self {
        FibNextHop { addr, tunnel: None, bandwidth: None }
    }
}

impl FibNextHop {
    /// The hops to this next hop, which the host resolved to `resolved`.
    fn hops(&self, resolved: &[Hop]) -> Vec<Hop> {
        match self.tunnel {
            Some(ifindex) if !resolved.is_empty() => {
                vec![Hop { gateway: Some(self.addr), ifindex, onlink: true, weight: 1 }]
            }
            _ => resolved.to_vec(),
        }
    }

    /// The hops to all of these next hops, those of the first next hop first, and no hop of several next
    /// hops twice. `resolve` returns how the host resolves an address; an unreachable one adds none.
    /// Where one alone is reached, bandwidths have no effect.
    pub fn hops_of_all<'a>(
        next_hops: &[FibNextHop],
        resolve: impl Fn(IpAddr) -> &'a [Hop],
    ) -> Vec<Hop> {
        // The most frequent case, in one allocation.
        if let [FibNextHop { addr, tunnel: None, .. }] = next_hops {
            return resolve(*addr).to_vec();
        }
        let reached = || next_hops.iter().filter(|n| !resolve(n.addr).is_empty());
        let are_several = reached().nth(1).is_some();
        if are_several && reached().all(|next_hop| next_hop.bandwidth.is_some()) {
            return FibNextHop::weighted_hops(next_hops, resolve);
        }
        let mut legs = Vec::with_capacity(next_hops.len());
        for next_hop in next_hops {
            for leg in next_hop.hops(resolve(next_hop.addr)) {
                if !legs.contains(&leg) {
                    legs.push(leg);
                }
            }
        }
        legs
    }

    /// The same with weights in proportion to the bandwidths of the next hops that are reached. The legs
    /// of one share its bandwidth by their own weights; a leg to several has the sum.
    fn weighted_hops<'a>(
        next_hops: &[FibNextHop],
        resolve: impl Fn(IpAddr) -> &'a [Hop],
    ) -> Vec<Hop> {
        let mut legs: Vec<(Hop, u128)> = Vec::with_capacity(next_hops.len());
        for next_hop in next_hops {
            let hops = next_hop.hops(resolve(next_hop.addr));
            let total: u128 = hops.iter().map(|hop| u128::from(hop.weight.max(1))).sum();
            for hop in hops {
                let weight = u128::from(hop.weight.max(1));
                let share = u128::from(next_hop.bandwidth.unwrap_or(0)) * weight / total;
                let leg = Hop { weight: 1, ..hop };
                match legs.iter_mut().find(|(known, _)| *known == leg) {
                    Some((_, sum)) => *sum += share,
                    None => legs.push((leg, share)),
                }
            }
        }
        let exact = legs.iter().map(|(_, share)| *share).fold(0, gcd).max(1);
        let most = legs.iter().map(|(_, share)| *share / exact).max().unwrap_or(0).max(1);
        let max = u128::from(WEIGHT_MAX);
        let weight = |share: u128| {
            if most <= max { share / exact } else { (share / exact * max + most / 2) / most }
        };
        let weighted = legs.iter().map(|(leg, share)| {
            let weight = u16::try_from(weight(*share).max(1)).unwrap_or(WEIGHT_MAX);
            Hop { weight, ..*leg }
        });
        weighted.collect()
    }
}

/// The largest weight that Linux has for a leg.
const WEIGHT_MAX: u16 = 256;

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether a route depends on the resolution of its next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recursion {
    /// Its next hops are on connected networks, or it has none and drops packets. Next hops of
    /// other routes may resolve over it, since it depends on no other route (RFC 4271 §9.1.2.1: no
    /// mutual recursion).
    Direct,
    /// Its next hop may be anywhere.
    #[default]
    Recursive,
}

impl FibRoute {
    /// A route with the configured metric and source address, whose next hop may be anywhere.
    pub fn new(prefix: Prefix, kind: FibKind) -> FibRoute {
        let recursion = Recursion::Recursive;
        let (metric, source, next_hops, backup) = (None, None, Vec::new(), None);
        FibRoute { prefix, kind, metric, source, recursion, next_hops, backup }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(n: u8, weight: u16) -> Hop {
        Hop { gateway: Some([10, 0, 0, n].into()), ifindex: 1, onlink: false, weight }
    }

    /// The weights over next hops with these bandwidths, resolved to these legs.
    fn weights(ways: &[(Option<u64>, &[Hop])]) -> Vec<u16> {
        let addr = |n: usize| IpAddr::from([192, 0, 2, n as u8]);
        let next_hops: Vec<FibNextHop> = ways
            .iter()
            .enumerate()
            .map(|(n, (bandwidth, _))| FibNextHop { bandwidth: *bandwidth, ..addr(n).into() })
            .collect();
        let resolve = |asked: IpAddr| {
            let at = (0..ways.len()).find(|n| addr(*n) == asked);
            at.map_or(&[][..], |at| ways[at].1)
        };
        let legs = FibNextHop::hops_of_all(&next_hops, resolve);
        legs.iter().map(|leg| leg.weight).collect()
    }

    #[test]
    fn legs_get_weights_in_proportion_to_the_bandwidth_of_what_is_reached() {
        let (a, b, c) = ([hop(1, 1)], [hop(2, 1)], [hop(3, 1)]);
        let gbit = |n: u64| Some(n * 125_000_000);
        assert_eq!(weights(&[(gbit(10), &a), (gbit(40), &b)]), [1, 4]);
        assert_eq!(weights(&[(gbit(10), &a), (gbit(40), &b), (gbit(20), &c)]), [1, 4, 2]);
        assert_eq!(weights(&[(gbit(10), &a), (gbit(40), &[]), (gbit(20), &c)]), [1, 2]);
        assert_eq!(weights(&[(gbit(10), &a), (gbit(10), &b)]), [1, 1]);
        assert_eq!(weights(&[(gbit(10), &a), (None, &b), (gbit(20), &c)]), [1, 1, 1]);
        assert_eq!(weights(&[(gbit(10), &a), (None, &[]), (gbit(20), &c)]), [1, 2]);
        assert_eq!(weights(&[(Some(1), &a), (Some(u64::MAX), &b)]), [1, 256]);
        assert_eq!(weights(&[(gbit(3), &a), (gbit(7), &b)]), [3, 7]);
        assert_eq!(weights(&[(Some(1000), &a), (Some(2999), &b)]), [85, 256]);
        // Two legs of one next hop share what it has, and a leg to both has the sum.
        let two = [hop(2, 1), hop(4, 3)];
        assert_eq!(weights(&[(gbit(10), &a), (gbit(40), &two)]), [1, 1, 3]);
        assert_eq!(weights(&[(gbit(10), &a), (gbit(40), &a), (gbit(25), &c)]), [2, 1]);
        assert_eq!(weights(&[(gbit(10), &[]), (gbit(40), &[])]), [0u16; 0]);
        // One alone is as it is resolved.
        assert_eq!(weights(&[(gbit(10), &two)]), [1, 3]);
        assert_eq!(weights(&[(gbit(10), &two), (gbit(40), &[])]), [1, 3]);
        let twice = [hop(2, 2), hop(4, 6)];
        assert_eq!(weights(&[(gbit(40), &[]), (gbit(10), &twice)]), [2, 6]);
        assert_eq!(weights(&[(gbit(10), &[hop(1, 5)]), (gbit(40), &[])]), [5]);
    }
}
