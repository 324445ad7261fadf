//! Policy: ordered rules over one route; the first decision wins, the default is to reject.
//!
//! One evaluator serves import, export, redistribution and, compiled from Calico's objects, every
//! filter that confd would write. It never looks at a table: the same (route, policy) always gives
//! the same verdict, and a policy that does not look at the prefix may be memoised per attribute set.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::types::{Asn, Community, ExtCommunity, LargeCommunity, NextHop, PeerType, Prefix};
use crate::wire::{AttrEdit, AttrView};

/// Where a route came from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A BGP peer.
    Bgp,
    /// Our configuration (`[[originate]]`, statics).
    Static,
    /// The kernel, written by somebody else.
    Kernel,
    /// A connected network.
    Direct,
}

/// The route that a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct RouteRef<'a> {
    /// Destination.
    pub prefix: Prefix,
    /// Canonical attributes.
    pub attrs: AttrView<'a>,
    /// Next hop, if it has one.
    pub next_hop: Option<NextHop>,
    /// Where it came from.
    pub source: Source,
    /// The interface that the route points out of, where known.
    pub interface: Option<&'a str>,
    /// The kernel metric, where known.
    pub metric: Option<u32>,
    /// The type of the peer that the policy is applied for: sender on import, receiver on export.
    pub peer_type: Option<PeerType>,
}

/// A prefix with a range of lengths: `10.0.0.0/8` with 24..=26 matches /24 to /26 inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// The covering prefix.
    pub prefix: Prefix,
    /// Lengths that match.
    pub lengths: RangeInclusive<u8>,
}

/// One condition. All conditions of a rule must hold; a list inside a condition matches if any
/// element does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The prefix is in one of the ranges.
    Prefix(Vec<PrefixMatch>),
    /// Carries one of these.
    Community(Vec<Community>),
    /// Carries one of these.
    LargeCommunity(Vec<LargeCommunity>),
    /// Carries one of these.
    ExtCommunity(Vec<ExtCommunity>),
    /// The AS path starts with this sequence.
    AsPathPrefix(Vec<Asn>),
    /// The AS path contains one of these.
    AsPathContains(Vec<Asn>),
    /// AS path length for the decision process is in the range.
    AsPathLength(RangeInclusive<u32>),
    /// The next hop lies in one of these.
    NextHop(Vec<Prefix>),
    /// Where the route came from.
    Source(Vec<Source>),
    /// The interface's name matches one of these globs (`cali*`).
    Interface(Vec<String>),
    /// The peer's type.
    PeerType(PeerType),
    /// The kernel metric is in the range.
    Metric(RangeInclusive<u32>),
    /// LOCAL_PREF is in the range.
    LocalPref(RangeInclusive<u32>),
    /// The condition does not hold.
    Not(Box<Match>),
    /// One of these holds.
    Any(Vec<Match>),
}

/// A change to the route, applied in order as rules match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    Med(u32),
    /// Takes MULTI_EXIT_DISC out.
    ClearMed,
    /// Sets the next hop.
    NextHop(IpAddr),
    /// Prepends this AS so many times (1-16).
    Prepend(Asn, u8),
    /// Adds a community.
    AddCommunity(Community),
    /// Adds a community.
    AddLargeCommunity(LargeCommunity),
    /// Adds a community.
    AddExtCommunity(ExtCommunity),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Removes a community.
    RemoveLargeCommunity(LargeCommunity),
    /// Removes a community.
    RemoveExtCommunity(ExtCommunity),
    /// Removes every community of all three kinds, well-known ones excepted (RFC 8642).
    ClearCommunities,
    /// Sets the kernel metric.
    Metric(u32),
    /// Sets the preference among sources of the same prefix (higher wins; default 100).
    Preference(u16),
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Use the route, with the changes so far.
    Accept,
    /// Do not.
    Reject,
    /// Go on with the next rule, keeping the changes.
    Next,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For people; shown by `explain`.
    pub name: String,
    /// All must hold; none means always.
    pub matches: Vec<Match>,
    /// Applied when they do.
    pub changes: Vec<Change>,
    /// Then.
    pub decision: Decision,
}

/// An ordered list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For people.
    pub name: Arc<str>,
    /// In order.
    pub rules: Vec<Rule>,
    /// When no rule decided.
    pub default: Decision,
}

/// What a policy said about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted or rejected; never [`Decision::Next`].
    pub decision: Decision,
    /// Index of the rule that decided; `None` for the default.
    pub rule: Option<usize>,
    /// New canonical attributes, if a change touched them.
    pub attrs: Option<AttrEdit>,
    /// A new next hop, if one was set.
    pub next_hop: Option<NextHop>,
    /// A kernel metric, if one was set.
    pub metric: Option<u32>,
    /// A preference, if one was set.
    pub preference: Option<u16>,
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
    /// Applies the policy.
    pub fn evaluate(&self, route: &RouteRef<'_>) -> Verdict {
        let _ = route;
        todo!()
    }
    /// Whether the verdict depends on attributes, next hop, source and peer type only, so that it
    /// may be remembered per (attribute set, next hop).
    pub fn is_prefix_independent(&self) -> bool {
        todo!()
    }
    /// The name of a rule for `explain`: `policy "pods" rule 2 "own blocks"` or `… default`.
    pub fn describe(&self, rule: Option<usize>) -> String {
        let _ = rule;
        todo!()
    }
}
