//! Policy: ordered rules over one route; the first decision wins, the default is to reject.
//!
//! One evaluator serves import, export, redistribution and, compiled from Calico's objects, every
//! filter that confd would write. It never consults a table: the same (route, policy) always gives
//! the same verdict, and the verdicts of a policy that does not depend on the prefix may be
//! memoised per attribute set.
//!
//! Rules are tried in order. The changes of a rule with [`Decision::Next`] are kept, and later
//! rules match against the changed route. Nothing is allocated unless a change alters attributes.

mod action;
mod classes;
mod matcher;
mod prefix_set;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use smallvec::SmallVec;

pub use crate::types::Source;
pub(crate) use classes::{PrefixClass, Prepared};
pub use matcher::glob_matches;
pub use prefix_set::{PrefixMatch, PrefixSet};

use action::Working;

use crate::types::{
    Asn, BandwidthScope, Community, ExtCommunity, LargeCommunity, NextHop, PeerType, Prefix,
};
use crate::wire::{AttrEdit, AttrView};

/// The route that a policy evaluates.
#[derive(Clone, Copy, Debug)]
pub struct RouteRef<'a> {
    /// Destination.
    pub prefix: Prefix,
    /// Canonical attributes.
    pub attrs: AttrView<'a>,
    /// Next hop, if it has one.
    pub next_hop: Option<NextHop>,
    /// Where the route came from: BGP, or one of the local sources.
    pub source: Source,
    /// The outgoing interface, if known: that of a local route, or the one through which the next
    /// hop of a BGP route is reached (on import: the received next hop).
    pub interface: Option<&'a str>,
    /// The kernel metric, if known.
    pub metric: Option<u32>,
    /// The type of the peer that the policy is applied for: sender on import, receiver on export.
    /// `None` if no peer is involved.
    pub peer_type: Option<PeerType>,
    /// On export: the Link Bandwidth of all paths that share the destination's traffic together, octets
    /// per second; 0 if one of them has none. `None` where it does not count: elsewhere, for one of
    /// several paths that are sent (ADD-PATH), and for a path that does not share.
    pub shared_bandwidth: Option<u64>,
}

/// One condition. All conditions of a rule must hold; a list inside a condition matches if any
/// element does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The prefix is in one of the ranges.
    Prefix(PrefixSet),
    /// Carries one of these standard communities.
    Community(Vec<Community>),
    /// Carries one of these large communities.
    LargeCommunity(Vec<LargeCommunity>),
    /// Carries one of these extended communities.
    ExtCommunity(Vec<ExtCommunity>),
    /// The AS path starts with this sequence. An AS_SET counts as one element and matches any of
    /// its members.
    AsPathPrefix(Vec<Asn>),
    /// The AS path contains one of these.
    AsPathContains(Vec<Asn>),
    /// The length of the AS path, counted as in the decision process, is in the range.
    AsPathLength(RangeInclusive<u32>),
    /// The next hop lies in one of these; a route without one does not match.
    NextHop(PrefixSet),
    /// The route came from one of these.
    Source(Vec<Source>),
    /// The interface's name matches one of these globs: `*` matches any run of octets, `?` any
    /// single one. A route without an interface does not match.
    Interface(Vec<String>),
    /// The peer is of this type; a route without a peer does not match.
    PeerType(PeerType),
    /// The kernel metric is in the range; a route without one does not match.
    Metric(RangeInclusive<u32>),
    /// LOCAL_PREF is in the range; absent counts as 100, as in the decision process.
    LocalPref(RangeInclusive<u32>),
    /// Carries LOCAL_PREF at all.
    HasLocalPref,
    /// The condition does not hold.
    Not(Box<Match>),
    /// One of these holds.
    Any(Vec<Match>),
}

/// LOCAL_PREF and kernel metric mirror each other around this value (2^31 - 1), in the arithmetic
/// of [`Change::LocalPrefFromMetric`] and [`Change::MetricFromLocalPref`].
pub const METRIC_MIRROR: u32 = 0x7FFF_FFFF;

/// A change to the route, applied in order as rules match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    Med(u32),
    /// Removes MULTI_EXIT_DISC.
    ClearMed,
    /// Sets the next hop. An IPv4 address leaves IPv6 routes unchanged; IPv4 routes may have an
    /// IPv6 next hop (RFC 8950).
    NextHop(IpAddr),
    /// Prepends this AS the given number of times (1-16; 0 changes nothing).
    Prepend(Asn, u8),
    /// Prepends this AS when the route is advertised, after our own AS number is prepended for an
    /// eBGP peer: the neighbour sees it as the first one. Has an effect in export policies only.
    PrependOutermost(Asn),
    /// Adds a standard community.
    AddCommunity(Community),
    /// Adds a large community.
    AddLargeCommunity(LargeCommunity),
    /// Adds an extended community.
    AddExtCommunity(ExtCommunity),
    /// Removes a standard community.
    RemoveCommunity(Community),
    /// Removes a large community.
    RemoveLargeCommunity(LargeCommunity),
    /// Removes an extended community.
    RemoveExtCommunity(ExtCommunity),
    /// Replaces all Link Bandwidth communities (draft-ietf-idr-link-bandwidth), of either type, by this
    /// one.
    SetLinkBandwidth(ExtCommunity),
    /// Replaces all Link Bandwidth communities by one with [`RouteRef::shared_bandwidth`], of this AS and
    /// type; removes them where that is 0. Without it the route is unchanged.
    SumLinkBandwidth(Asn, BandwidthScope),
    /// Removes all Link Bandwidth communities, of either type.
    ClearLinkBandwidth,
    /// Multiplies the bandwidth of each Link Bandwidth community by this many percent, at least 1
    /// octet per second; one that holds no bandwidth is unchanged.
    ScaleLinkBandwidth(u16),
    /// Removes every community of all three kinds, well-known ones excepted (RFC 8642).
    ClearCommunities,
    /// Sets the kernel metric.
    Metric(u32),
    /// Sets LOCAL_PREF to [`METRIC_MIRROR`] - kernel metric, modulo 2^32: a lower metric is a
    /// higher LOCAL_PREF. A route without a metric is unchanged.
    LocalPrefFromMetric,
    /// Sets the kernel metric to [`METRIC_MIRROR`] - LOCAL_PREF, modulo 2^32. A route without
    /// LOCAL_PREF is unchanged.
    MetricFromLocalPref,
    /// Sets the preference among sources of the same prefix (higher wins; default 100).
    Preference(u16),
    /// In a rejecting rule of the FIB's policy: our route stays in the kernel until another process
    /// has a route for the prefix.
    KeepInstalled,
    /// The kernel reaches the route's next hop through this tunnel interface, on-link, instead of
    /// through the route that resolves it. Has an effect in the FIB's policy only.
    Tunnel(Arc<str>),
    /// Packets from this machine to the route's prefix get this source address (RTA_PREFSRC). An
    /// address of the other family leaves the route unchanged. Has an effect in the FIB's policy
    /// only.
    Source(IpAddr),
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Use the route, with the changes so far.
    Accept,
    /// Do not use the route.
    Reject,
    /// Continue with the next rule, keeping the changes.
    Next,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name that `explain` shows; may be empty.
    pub name: String,
    /// Conditions, all of which must hold; without any, the rule always applies.
    pub matches: Vec<Match>,
    /// Changes to the route, in order.
    pub changes: Vec<Change>,
    /// What happens when every condition holds.
    pub decision: Decision,
}

/// An ordered list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Name that `explain` shows.
    pub name: Arc<str>,
    /// Rules, tried in order.
    pub rules: Vec<Rule>,
    /// Decision if no rule decided; [`Decision::Next`] counts as reject.
    pub default: Decision,
}

/// Cost of evaluating a policy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    rules: u32,
    /// Elements of all lists that attributes are compared with.
    lists: u32,
}

impl Weight {
    /// Work in units of about 100 ns, for a route with `octets` octets of attributes.
    pub(crate) fn work(self, octets: usize) -> u32 {
        let octets = octets as u64;
        // A rule takes some 10 ns; each four octets are compared with each member of a list.
        let units =
            u64::from(self.rules) / 8 + octets * u64::from(self.lists) / 1_000 + octets / 256;
        units.min(1 << 24) as u32
    }
}

/// Result of evaluating a policy for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted or rejected; never [`Decision::Next`].
    pub decision: Decision,
    /// Index of the rule that decided; `None` for the default.
    pub rule: Option<usize>,
    /// New canonical attributes, if a change altered them. Nothing is changed on a rejected route.
    pub attrs: Option<AttrEdit>,
    /// A new next hop, if one was set.
    pub next_hop: Option<NextHop>,
    /// A kernel metric, if one was set.
    pub metric: Option<u32>,
    /// A preference, if one was set.
    pub preference: Option<u16>,
    /// The tunnel interface to reach the next hop through, if one was set.
    pub tunnel: Option<Arc<str>>,
    /// The source address for packets of our own, if one was set.
    pub source: Option<IpAddr>,
    /// Rejected by a rule with [`Change::KeepInstalled`].
    pub keeps_installed: bool,
    /// AS numbers to prepend after everything else, the first one outermost.
    pub outermost: SmallVec<[Asn; 2]>,
}

impl Policy {
    /// Accepts everything.
    pub fn accept_all() -> Self {
        Policy { name: "all".into(), rules: Vec::new(), default: Decision::Accept }
    }

    /// Rejects everything.
    pub fn reject_all() -> Self {
        Policy { name: "none".into(), rules: Vec::new(), default: Decision::Reject }
    }

    /// Evaluates the policy for a route.
    pub fn evaluate(&self, route: &RouteRef<'_>) -> Verdict {
        self.evaluate_with(route, |_, _| ())
    }

    /// The same; `applied` is called with the index of each rule whose conditions hold, and the route as
    /// the rule leaves it.
    #[inline]
    pub fn evaluate_with(
        &self,
        route: &RouteRef<'_>,
        mut applied: impl FnMut(usize, &RouteRef<'_>),
    ) -> Verdict {
        let mut working = Working::new(route);
        for (index, rule) in self.rules.iter().enumerate() {
            let seen = working.route();
            if !rule.matches.iter().all(|m| m.holds(&seen)) {
                continue;
            }
            match rule.decision {
                Decision::Reject => {
                    applied(index, &seen);
                    let keeps_installed = rule.changes.contains(&Change::KeepInstalled);
                    return Verdict { keeps_installed, ..Verdict::reject(Some(index)) };
                }
                Decision::Accept => {
                    working.apply(&rule.changes);
                    applied(index, &working.route());
                    return working.accept(Some(index));
                }
                Decision::Next => {
                    working.apply(&rule.changes);
                    applied(index, &working.route());
                }
            }
        }
        match self.default {
            Decision::Accept => working.accept(None),
            Decision::Reject | Decision::Next => Verdict::reject(None),
        }
    }

    /// Cost of evaluating the policy for a route.
    pub(crate) fn weight(&self) -> Weight {
        let matches = self.rules.iter().flat_map(|rule| &rule.matches);
        let lists = matches.map(Match::list_len).sum::<usize>();
        Weight { rules: self.rules.len() as u32, lists: lists.min(1 << 16) as u32 }
    }

    /// Whether the verdict depends on attributes, next hop, source and peer type only, so that it
    /// may be memoised per (attribute set, next hop). Prefix, interface and kernel metric are not
    /// part of that key, and neither is the family, which decides whether an IPv4 next hop fits.
    pub fn is_prefix_independent(&self) -> bool {
        self.rules.iter().all(|rule| {
            rule.matches.iter().all(Match::is_prefix_independent)
                && rule.changes.iter().all(Change::is_prefix_independent)
        })
    }

    /// Whether a verdict may depend on the interface, so that routes have to be re-evaluated when
    /// their next hop is reached through another one.
    pub fn looks_at_interface(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.matches).any(Match::looks_at_interface)
    }

    /// Whether the verdict on export may depend on the other paths of the destination.
    pub(crate) fn sums_bandwidth(&self) -> bool {
        let mut changes = self.rules.iter().flat_map(|rule| &rule.changes);
        changes.any(|change| matches!(change, Change::SumLinkBandwidth(..)))
    }

    /// The name of a rule for `explain`, counted from one: `policy "pods" rule 2 "own blocks"`, or
    /// `policy "pods" default`.
    pub fn describe(&self, rule: Option<usize>) -> String {
        let name = &self.name;
        match rule.and_then(|index| Some((index, self.rules.get(index)?))) {
            Some((index, rule)) if rule.name.is_empty() => {
                format!("policy \"{name}\" rule {}", index + 1)
            }
            Some((index, rule)) => {
                format!("policy \"{name}\" rule {} \"{}\"", index + 1, rule.name)
            }
            None => format!("policy \"{name}\" default"),
        }
    }
}

impl Verdict {
    fn reject(rule: Option<usize>) -> Self {
        Verdict {
            decision: Decision::Reject,
            rule,
            attrs: None,
            next_hop: None,
            metric: None,
            preference: None,
            tunnel: None,
            source: None,
            keeps_installed: false,
            outermost: SmallVec::new(),
        }
    }
}
