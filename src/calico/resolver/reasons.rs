//! Why prefixes are in the plan, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::types::{Family, Prefix};

use crate::calico::assembly::SessionList;
use crate::calico::effective::Effective;
use crate::calico::model::AffinityState;
use crate::calico::policies::own_blocks;

type Texts = BTreeMap<Prefix, String>;

/// The reasons of the last plan, with what they were made of.
#[derive(Default)]
pub(super) struct Reasons {
    services: Option<Arc<Texts>>,
    neighbors: Texts,
    blocks: Texts,
    all: Arc<Texts>,
}

impl Reasons {
    /// See [`Plan::reasons`](crate::calico::Plan::reasons): the same allocation while nothing differs.
    pub(super) fn review(
        &mut self,
        cx: &Effective<'_>,
        services: Option<&Arc<Texts>>,
        lists: &[SessionList; 2],
    ) -> Arc<Texts> {
        let (neighbors, blocks) = (of_neighbors(lists), of_blocks(cx));
        let is_same = match (&self.services, services) {
            (None, None) => true,
            (Some(known), Some(services)) => Arc::ptr_eq(known, services),
            _ => false,
        };
        if !is_same || (&self.neighbors, &self.blocks) != (&neighbors, &blocks) {
            let mut all = services.map(|services| Texts::clone(services)).unwrap_or_default();
            for (neighbor, text) in &neighbors {
                all.entry(*neighbor).or_insert_with(|| text.clone());
            }
            all.extend(blocks.clone());
            let services = services.cloned();
            *self = Reasons { services, neighbors, blocks, all: Arc::new(all) };
        }
        Arc::clone(&self.all)
    }
}

fn of_neighbors(lists: &[SessionList; 2]) -> Texts {
    let mut reasons = Texts::new();
    for (neighbor, route) in lists.iter().flat_map(SessionList::host_routes) {
        let text = format!("BGPPeer/{}: reachable by {}", route.peer, route.gateway);
        reasons.entry(neighbor).or_insert(text);
    }
    reasons
}

fn of_blocks(cx: &Effective<'_>) -> Texts {
    let mut reasons = Texts::new();
    if !cx.settings.use_pod_cidr {
        // Pending blocks give no route; the text explains why not.
        let claimed = cx.snapshot.affinities_of(&cx.settings.node);
        for claim in claimed.filter(|claim| claim.state == AffinityState::Pending) {
            let text = "a block that is not yet this node's (BlockAffinity)";
            reasons.insert(claim.cidr, text.to_owned());
        }
    }
    for (block, state) in Family::ALL.into_iter().flat_map(|family| own_blocks(cx, family)) {
        let text = match state {
            _ if cx.settings.use_pod_cidr => format!("a pod CIDR of Node/{}", cx.me.name),
            AffinityState::PendingDeletion => {
                "a block that this node gives up (BlockAffinity)".to_owned()
            }
            AffinityState::Confirmed | AffinityState::Pending => {
                "a block of this node's (BlockAffinity)".to_owned()
            }
        };
        reasons.insert(block, text);
    }
    reasons
}
