//! Counts of rejected routes by rule or check, for metrics.

use std::sync::Arc;

use super::Unusable;
use crate::policy::Policy;
use crate::rib::Refusal;
use crate::types::{Family, FamilyMap};

/// Maximum number of rules with a counter of their own; further ones share one.
const RULES_MAX: usize = 128;

/// What rejected a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// A check of the route's attributes: a loop, a leak, or a limit.
    Check(Unusable),
    /// The peer's prefix limit.
    PrefixLimit,
    /// The bound of a peer's paths for one destination.
    PathsLimit,
    /// A rule of an import policy.
    Rule {
        /// The policy's name.
        policy: Arc<str>,
        /// The rule, counted from one; `None`: none decided, and the default rejects.
        number: Option<usize>,
        /// The rule's name; may be empty.
        name: String,
    },
    /// Rules beyond those that have a counter of their own.
    OtherRules,
}

/// How many routes were refused since the start. A repeated announcement does not count again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What refused them.
    pub by: RefusedBy,
    /// Number of routes.
    pub routes: FamilyMap<u64>,
}

/// Identifies an entry of [`Refusals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusalId(u16);

impl RefusalId {
    pub(super) const PREFIX_LIMIT: RefusalId = RefusalId(7);
    pub(super) const PATHS_LIMIT: RefusalId = RefusalId(8);
    const OTHER_RULES: RefusalId = RefusalId(9);
}

/// The counters.
pub(super) struct Refusals {
    entries: Vec<Refused>,
    /// The entry of the rule that rejected last: usually it is the next one as well.
    last: usize,
}

impl Default for Refusals {
    fn default() -> Self {
        let fixed = [
            RefusedBy::Check(Unusable::AsLoop),
            RefusedBy::Check(Unusable::OriginatorLoop),
            RefusedBy::Check(Unusable::ClusterLoop),
            RefusedBy::Check(Unusable::RouteLeak),
            RefusedBy::Check(Unusable::AsPathTooLong),
            RefusedBy::Check(Unusable::TooManyCommunities),
            RefusedBy::Check(Unusable::AttributesTooLong),
            RefusedBy::PrefixLimit,
            RefusedBy::PathsLimit,
            RefusedBy::OtherRules,
        ];
        let entries = fixed.map(|by| Refused { by, routes: FamilyMap([0; 2]) }).into();
        Refusals { entries, last: 0 }
    }
}

impl Refusals {
    /// The check that refused; a policy is counted by its rules.
    pub(super) fn of_refusal(refusal: Refusal) -> RefusalId {
        RefusalId(refusal as u16 - 1)
    }

    /// The rule of a policy, or its default.
    pub(super) fn of_rule(&mut self, policy: &Policy, rule: Option<usize>) -> RefusalId {
        let number = rule.map(|index| index + 1);
        let name = rule.and_then(|index| policy.rules.get(index)).map_or("", |rule| &rule.name);
        let is_it = |entry: &Refused| match &entry.by {
            RefusedBy::Rule { policy: of, number: at, name: called } => {
                *at == number && **of == *policy.name && called == name
            }
            _ => false,
        };
        if self.entries.get(self.last).is_none_or(|entry| !is_it(entry)) {
            self.last = match self.entries.iter().position(is_it) {
                Some(at) => at,
                None if self.entries.len() <= RULES_MAX + usize::from(RefusalId::OTHER_RULES.0) => {
                    let by = RefusedBy::Rule {
                        policy: Arc::clone(&policy.name),
                        number,
                        name: name.to_owned(),
                    };
                    self.entries.push(Refused { by, routes: FamilyMap([0; 2]) });
                    self.entries.len() - 1
                }
                None => usize::from(RefusalId::OTHER_RULES.0),
            };
        }
        RefusalId(self.last as u16)
    }

    pub(super) fn count(&mut self, id: RefusalId, family: Family, routes: u64) {
        if let Some(entry) = self.entries.get_mut(usize::from(id.0)) {
            entry.routes[family] += routes;
        }
    }

    pub(super) fn entries(&self) -> &[Refused] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Decision, Rule};

    fn policy(name: &str, rules: &[&str]) -> Policy {
        let rule = |name: &&str| Rule {
            name: (*name).to_owned(),
            matches: Vec::new(),
            changes: Vec::new(),
            decision: Decision::Reject,
        };
        Policy {
            name: name.into(),
            rules: rules.iter().map(rule).collect(),
            default: Decision::Reject,
        }
    }

    #[test]
    fn each_rule_has_a_counter_of_its_own() {
        let mut refusals = Refusals::default();
        let (a, b) = (policy("a", &["x", "y"]), policy("b", &["x"]));
        let ids: Vec<RefusalId> = [(&a, Some(0)), (&a, Some(1)), (&b, Some(0)), (&b, None)]
            .into_iter()
            .map(|(policy, rule)| refusals.of_rule(policy, rule))
            .collect();
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{ids:?}");
            refusals.count(*id, Family::Ipv4, at as u64 + 1);
        }
        // Asked again, in another order, they are the same.
        assert_eq!(refusals.of_rule(&b, None), ids[3]);
        assert_eq!(refusals.of_rule(&a, Some(0)), ids[0]);
        let last = refusals.entries().last().unwrap();
        assert_eq!(last.routes[Family::Ipv4], 4);
        assert_eq!(last.routes[Family::Ipv6], 0);
        // A reload put another rule there: it does not inherit the count.
        assert_ne!(refusals.of_rule(&policy("a", &["z"]), Some(0)), ids[0]);
    }

    #[test]
    fn too_many_rules_are_counted_together() {
        let mut refusals = Refusals::default();
        for n in 0..10_000 {
            let id = refusals.of_rule(&policy(&format!("p{n}"), &[]), None);
            refusals.count(id, Family::Ipv6, 1);
        }
        assert_eq!(refusals.entries().len(), 10 + RULES_MAX);
        let other = refusals.entries().iter().find(|e| e.by == RefusedBy::OtherRules).unwrap();
        assert_eq!(other.routes[Family::Ipv6], (10_000 - RULES_MAX) as u64);
    }

    #[test]
    fn refusals_lead_to_their_checks() {
        let refusals = Refusals::default();
        for refusal in Refusal::ALL.into_iter().filter(|r| *r != Refusal::Rejected) {
            let id = Refusals::of_refusal(refusal);
            let by = &refusals.entries()[usize::from(id.0)].by;
            assert_eq!(*by, RefusedBy::Check(Unusable::of(refusal)));
        }
        for (id, by) in [
            (RefusalId::PREFIX_LIMIT, RefusedBy::PrefixLimit),
            (RefusalId::PATHS_LIMIT, RefusedBy::PathsLimit),
            (RefusalId::OTHER_RULES, RefusedBy::OtherRules),
        ] {
            assert_eq!(refusals.entries()[usize::from(id.0)].by, by);
        }
    }
}
