//! Redistribution of kernel routes into the table by the rules of `[[redistribute]]`.
//!
//! Learned routes are kept, so that changed rules can be applied to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bgp_proto::policy::{Decision, RouteRef, Source};
use bgp_proto::table::LocalRoute;
use bgp_proto::types::Prefix;
use bgp_proto::wire::AttrEdit;

use crate::config::{Changes, KernelRoute, Redistribute, RedistributeFrom};
use crate::engine::Handle;
use crate::kernel::LearnedRoute;

/// The rules, and the routes to which they apply. Clones share both.
#[derive(Clone, Default)]
pub(super) struct Redistribution(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rules: Vec<Redistribute>,
    /// Prefixes that we originate: a kernel route to one of them is not redistributed as well.
    own: BTreeSet<Prefix>,
    /// Learned routes, keyed by prefix and whether the network is a connected one.
    routes: BTreeMap<(Prefix, bool), LearnedRoute>,
}

impl Redistribution {
    /// Takes changed rules and changes to the originated prefixes from `changes`, and applies them
    /// to the learned routes.
    pub(super) fn apply(&self, changes: &Changes, table: &Handle) {
        let withdrawn = changes.originate_withdrawn.iter().copied();
        let added = changes.originate_added.iter().map(|route| route.prefix);
        let differing: BTreeSet<Prefix> = withdrawn.chain(added.clone()).collect();
        // Most changes concern only peers, and there may be ten thousand learned routes.
        if differing.is_empty() && changes.redistribute.is_none() {
            return;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.own.retain(|prefix| !differing.contains(prefix));
        state.own.extend(added);
        if let Some(rules) = &changes.redistribute {
            state.rules.clone_from(rules);
        }
        let all = changes.redistribute.is_some();
        for route in state.routes.values().filter(|r| all || differing.contains(&r.prefix)) {
            state.announce(route, table);
        }
    }

    /// The local routes that [`Redistribution::apply`] would add, replace or withdraw (`None`).
    /// `learned`: the kernel's routes that changed rules would select; `None`: those that the rules in
    /// force do.
    pub(super) fn rehearse(
        &self,
        changes: &Changes,
        learned: Option<Vec<LearnedRoute>>,
    ) -> Vec<((Prefix, Source), Option<LocalRoute>)> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = learned.map(|learned| {
            let by_key = learned.into_iter().map(|route| ((route.prefix, route.connected), route));
            by_key.collect::<BTreeMap<_, _>>()
        });
        let learned = learned.as_ref().unwrap_or(&state.routes);
        let added: BTreeSet<Prefix> =
            changes.originate_added.iter().map(|route| route.prefix).collect();
        let is_own = |prefix: &Prefix| {
            added.contains(prefix)
                || state.own.contains(prefix) && !changes.originate_withdrawn.contains(prefix)
        };
        let rules = changes.redistribute.as_ref().unwrap_or(&state.rules);
        let after = |route: &LearnedRoute| {
            if is_own(&route.prefix) { None } else { resolve(rules, route) }
        };
        let keys: BTreeSet<&(Prefix, bool)> = state.routes.keys().chain(learned.keys()).collect();
        let differing = keys.into_iter().filter_map(|key| {
            let before = state.routes.get(key).and_then(|route| state.resolve(route));
            let after = learned.get(key).and_then(after);
            (before != after).then_some(((key.0, source(key.1)), after))
        });
        differing.collect()
    }

    /// A route was learned or changed.
    pub(super) fn handle_learned(&self, route: LearnedRoute, table: &Handle) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.announce(&route, table);
        state.routes.insert((route.prefix, route.connected), route);
    }

    /// The learned route to a prefix, if there is one.
    pub(super) fn get(&self, prefix: Prefix, connected: bool) -> Option<LearnedRoute> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.routes.get(&(prefix, connected)).cloned()
    }

    /// A learned route was removed from the kernel.
    pub(super) fn handle_forgotten(&self, prefix: Prefix, connected: bool, table: &Handle) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.routes.remove(&(prefix, connected));
        table.local(prefix, source(connected), None);
    }
}

fn source(connected: bool) -> Source {
    if connected { Source::Direct } else { Source::Kernel }
}

impl State {
    fn announce(&self, route: &LearnedRoute, table: &Handle) {
        table.local(route.prefix, source(route.connected), self.resolve(route));
    }

    fn resolve(&self, route: &LearnedRoute) -> Option<LocalRoute> {
        if self.own.contains(&route.prefix) { None } else { resolve(&self.rules, route) }
    }
}

/// The local route to originate for a kernel route: the first rule that selects it decides. `None`
/// if no rule does, or its policy rejects the route.
fn resolve(rules: &[Redistribute], route: &LearnedRoute) -> Option<LocalRoute> {
    let from = if route.connected { RedistributeFrom::Connected } else { RedistributeFrom::Kernel };
    let key = KernelRoute {
        prefix: route.prefix,
        from,
        protocol: route.protocol,
        interface: route.interface.as_deref(),
    };
    let rule = rules.iter().find(|rule| rule.selects(&key))?;
    let attrs = AttrEdit::originate(rule.origin);
    // The kernel's metric of a connected network says nothing about its distance.
    let metric = (!route.connected).then_some(route.metric);
    let mut local = LocalRoute {
        // Not to be installed: the kernel has the route already.
        next_hop: route.gateway,
        hops: route.hops.clone(),
        interface: route.interface.as_deref().map(Arc::from),
        metric,
        ..LocalRoute::default()
    };
    let Some(policy) = &rule.policy else {
        local.attrs = Some(attrs.into_bytes().into());
        return Some(local);
    };
    let verdict = policy.evaluate(&RouteRef {
        prefix: route.prefix,
        attrs: attrs.view(),
        next_hop: route.gateway.map(Into::into),
        source: source(route.connected),
        interface: route.interface.as_deref(),
        metric,
        peer_type: None,
        shared_bandwidth: None,
    });
    if verdict.decision != Decision::Accept {
        return None;
    }
    local.attrs = Some(verdict.attrs.unwrap_or(attrs).into_bytes().into());
    local.next_hop = verdict.next_hop.map_or(local.next_hop, |next_hop| Some(next_hop.addr()));
    local.metric = verdict.metric.or(local.metric);
    Some(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LearnedKind;
    use bgp_proto::policy::{Change, Match, Policy, PrefixMatch, Rule};
    use bgp_proto::types::Community;
    use bgp_proto::wire::{AttrView, Origin};

    fn learned(prefix: &str) -> LearnedRoute {
        LearnedRoute {
            prefix: prefix.parse().unwrap(),
            protocol: 80,
            interface: Some("cali1".into()),
            kind: LearnedKind::Direct,
            gateway: None,
            hops: Vec::new(),
            metric: 7,
            connected: false,
        }
    }

    fn rule(policy: Option<Policy>) -> Redistribute {
        Redistribute {
            from: RedistributeFrom::Kernel,
            protocols: vec![80],
            interfaces: Vec::new(),
            prefixes: Vec::new(),
            origin: Origin::Igp,
            policy: policy.map(Arc::new),
        }
    }

    #[test]
    fn a_route_that_no_rule_selects_is_not_redistributed() {
        let other = LearnedRoute { protocol: 4, ..learned("10.0.0.1/32") };
        assert_eq!(resolve(&[rule(None)], &other), None);
        let local = resolve(&[rule(None)], &learned("10.0.0.1/32")).unwrap();
        assert_eq!(local.metric, Some(7));
        let attrs = local.attrs.unwrap();
        assert_eq!(AttrView::new(&attrs).origin(), Origin::Igp);
    }

    #[test]
    fn a_kernel_route_to_an_originated_prefix_is_not_redistributed() {
        let block = learned("10.65.1.0/26");
        let mut state = State { rules: vec![rule(None)], ..State::default() };
        assert!(state.resolve(&block).is_some());
        state.own.insert(block.prefix);
        assert_eq!(state.resolve(&block), None);
    }

    #[test]
    fn routes_that_changed_rules_select_for_the_first_time_are_rehearsed() {
        let redistribution = Redistribution::default();
        let kept = learned("10.0.0.1/32");
        let only =
            |prefix: &str| Redistribute { prefixes: vec![prefix.parse().unwrap()], ..rule(None) };
        {
            let mut state = redistribution.0.lock().unwrap();
            state.rules = vec![only("10.0.0.0/24")];
            state.routes.insert((kept.prefix, false), kept.clone());
        }
        let changes =
            Changes { redistribute: Some(vec![only("10.0.1.0/24")]), ..Changes::default() };
        let with = |learned| redistribution.rehearse(&changes, learned);
        let differing: Vec<_> = with(Some(vec![learned("10.0.1.1/32")]));
        let said: Vec<_> = differing
            .iter()
            .map(|((prefix, source), route)| (prefix.to_string(), *source, route.is_some()))
            .collect();
        let kernel = Source::Kernel;
        assert_eq!(
            said,
            [("10.0.0.1/32".to_owned(), kernel, false), ("10.0.1.1/32".to_owned(), kernel, true)]
        );
        assert_eq!(with(None).len(), 1, "of those that the rules in force select");
    }

    #[test]
    fn the_policy_of_a_rule_can_reject_and_modify_routes() {
        let inside = PrefixMatch { prefix: "10.0.0.0/8".parse().unwrap(), lengths: 8..=32 };
        let tag = Community(0xFC00_0001);
        let policy = Policy {
            name: "own".into(),
            rules: vec![Rule {
                name: "tag".into(),
                matches: vec![Match::Prefix(vec![inside].into())],
                changes: vec![Change::AddCommunity(tag)],
                decision: Decision::Accept,
            }],
            default: Decision::Reject,
        };
        let rules = [rule(Some(policy))];
        assert_eq!(resolve(&rules, &learned("192.0.2.1/32")), None);
        let attrs = resolve(&rules, &learned("10.0.0.1/32")).unwrap().attrs.unwrap();
        assert!(AttrView::new(&attrs).communities().any(|c| c == tag));
    }
}
