//! What a policy sees of prefixes: which of its prefix conditions hold. Routes that differ in nothing
//! else that a policy reads have the same verdict if their prefixes are of the same class.

use smallvec::SmallVec;

use super::{Match, Policy, PrefixSet, Weight};
use crate::types::Prefix;

/// A set of conditions, a bit for each.
pub(crate) type PrefixClass = u64;

/// A policy's prefix conditions. They share their ranges with the policy.
#[derive(Clone, Debug, Default)]
struct Conditions {
    sets: SmallVec<[PrefixSet; 4]>,
}

/// What is known of a policy before a route is evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) weight: Weight,
    /// `None` if there are more conditions than a class has bits, or the verdict may depend on other
    /// routes.
    conditions: Option<Conditions>,
}

impl Prepared {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut conditions = Conditions::default();
        let matches = policy.rules.iter().flat_map(|rule| &rule.matches);
        matches.for_each(|condition| conditions.collect(condition));
        let is_classed =
            conditions.sets.len() <= PrefixClass::BITS as usize && !policy.sums_bandwidth();
        Prepared { weight: policy.weight(), conditions: is_classed.then_some(conditions) }
    }

    /// Whether prefixes have classes.
    pub(crate) fn has_classes(&self) -> bool {
        self.conditions.is_some()
    }

    /// The class of a prefix. Of two routes with equal classes and families, source, interface, metric,
    /// peer type, attributes and next hop, the verdict is the same. `None`: nothing is known without
    /// evaluating the policy. `prefix` is not called if no condition is for prefixes.
    #[inline]
    pub(crate) fn class(&self, prefix: impl FnOnce() -> Prefix) -> Option<PrefixClass> {
        let sets = &self.conditions.as_ref()?.sets;
        if sets.is_empty() {
            return Some(0);
        }
        let prefix = prefix();
        let bits = sets.iter().enumerate().map(|(bit, set)| u64::from(set.contains(prefix)) << bit);
        Some(bits.fold(0, |class, bit| class | bit))
    }
}

impl Conditions {
    fn collect(&mut self, condition: &Match) {
        match condition {
            Match::Prefix(set) => {
                // A filter in several rules counts once.
                if !self.sets.contains(set) {
                    self.sets.push(set.clone());
                }
            }
            Match::Not(inner) => self.collect(inner),
            Match::Any(any) => any.iter().for_each(|inner| self.collect(inner)),
            Match::Community(_)
            | Match::LargeCommunity(_)
            | Match::ExtCommunity(_)
            | Match::AsPathPrefix(_)
            | Match::AsPathContains(_)
            | Match::AsPathLength(_)
            | Match::NextHop(_)
            | Match::Source(_)
            | Match::Interface(_)
            | Match::PeerType(_)
            | Match::Metric(_)
            | Match::LocalPref(_)
            | Match::HasLocalPref => {}
        }
    }
}
