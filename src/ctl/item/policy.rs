//! Policies: what their rules do to the routes in the tables, and to one route.

use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};

use super::AttributeChange;

/// A policy of the name that was asked for, in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyHits {
    /// Its name.
    pub policy: String,
    /// `import` or `export`.
    pub place: String,
    /// The peers that it is applied for.
    pub peers: Vec<String>,
    /// Its rules, in order.
    pub rules: Vec<RuleHits>,
    /// What happens to routes that no rule decides: `accept` or `reject`.
    pub default: String,
    /// How many these are.
    pub default_hits: u64,
    /// Routes that are refused or withheld before the policy is reached.
    pub unreached: u64,
}

/// A rule, and the routes in the table that it applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// Its number, from 1.
    pub number: u32,
    /// Its name; may be empty.
    pub name: String,
    /// `accept`, `reject` or `next`.
    pub then: String,
    /// Routes for which its conditions hold.
    pub matched: u64,
    /// Routes that it decides.
    pub decided: u64,
}

/// What a policy does to one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTest {
    /// The policy's name.
    pub policy: String,
    /// The route's prefix.
    pub prefix: Option<Prefix>,
    /// The peer that it was received from; `null`: it is a local route, or no route of the table.
    pub from: Option<String>,
    /// The peer that it would be sent to; `null`: import.
    pub to: Option<String>,
    /// `accept` or `reject`; `null`: the policy is not reached.
    pub result: Option<String>,
    /// The rule that decided, or why the policy is not reached.
    pub rule: String,
    /// The rules that apply, in order.
    pub steps: Vec<PolicyStep>,
    /// What they change in all. Nothing is changed on a rejected route.
    pub changes: Vec<AttributeChange>,
}

/// A rule that applies to a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStep {
    /// The rule.
    pub rule: String,
    /// What it changes.
    pub changes: Vec<AttributeChange>,
}

/// What a peer is sent of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPeer {
    /// The peer's name.
    pub peer: String,
    /// What its export policy does to each path that it is or would be sent.
    pub policy: Vec<PolicyTest>,
    /// The routes as they were sent; none: it is sent none.
    pub sent: Vec<SentPath>,
}

/// A route as a peer was sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPath {
    /// The path identifier on ADD-PATH sessions, otherwise 0.
    pub path_id: u32,
    /// Every attribute.
    pub attributes: Vec<AttributeChange>,
    /// Those that differ from the path in the Loc-RIB: by the policy, and by the rules of BGP after it.
    pub changes: Vec<AttributeChange>,
}
