//! Local routes as the table and the kernel's thread take them, from what is configured.

use bgp_proto::table::LocalRoute;
use bgp_proto::wire::{AttrEdit, Origin};

use crate::config::{Originate, Redistribute, RedistributeFrom};
use crate::kernel::{LearnRule, LearnSource};

/// The local route of an originated one.
pub(super) fn originated(route: &Originate) -> LocalRoute {
    let attrs = route.bandwidth.map(|bandwidth| {
        let mut attrs = AttrEdit::originate(Origin::Igp);
        attrs.set_ext_communities(&[bandwidth]);
        attrs.into_bytes().into()
    });
    LocalRoute { install: route.install.clone(), attrs, ..LocalRoute::default() }
}

/// What the kernel's thread learns for redistribution.
pub(super) fn learn_rules(rules: &[Redistribute]) -> Vec<LearnRule> {
    rules
        .iter()
        .map(|rule| LearnRule {
            from: match rule.from {
                RedistributeFrom::Kernel => LearnSource::Kernel,
                RedistributeFrom::Connected => LearnSource::Connected,
            },
            protocols: rule.protocols.clone(),
            interfaces: rule.interfaces.clone(),
            prefixes: rule.prefixes.clone(),
        })
        .collect()
}
