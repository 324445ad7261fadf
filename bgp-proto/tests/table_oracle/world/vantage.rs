//! Peers that move between vantages, and costs that change.

use std::sync::Arc;

use bgp_proto::table::{TableConfig, VantageCosts};
use bgp_proto::types::PeerId;

use super::World;
use crate::model::PEERS;
use crate::op::Op;

/// Vantages. For the last no cost is stated.
const PLACES: [&str; 4] = ["a", "b", "c", "d"];

impl World {
    /// Puts peers at vantages, which `Op::Move` changes.
    pub(crate) fn use_vantages(&mut self) {
        self.has_vantages = true;
        self.set_costs(1);
        for peer in 0..PEERS {
            self.step(Op::Move { peer, place: peer as u8 });
        }
    }

    pub(super) fn set_costs(&mut self, variant: u8) {
        let mut costs = VantageCosts { default: u32::from(variant % 3), ..VantageCosts::default() };
        for (n, from) in PLACES.into_iter().take(3).enumerate() {
            for (m, to) in PLACES.into_iter().take(3).enumerate().filter(|(m, _)| *m != n) {
                // Some pairs have no cost, and some one in each direction.
                let cost = (variant >> (2 * (n + m) % 7)) % 4;
                if cost < 3 {
                    let to_others = costs.stated.entry(from.into()).or_default();
                    to_others.insert(to.into(), u32::from(cost) + n as u32 % 2);
                }
            }
        }
        self.model.costs = costs.clone();
        let config = TableConfig { vantages: Arc::new(costs), ..TableConfig::clone(&self.config) };
        self.config = Arc::new(config);
        self.table.configure(Arc::clone(&self.config));
        self.turn_due = true;
    }

    pub(super) fn move_peer(&mut self, peer: usize, place: u8) {
        self.model.settings[peer].vantage = PLACES.get(usize::from(place) % 5).copied();
        let routes = self.routes(peer);
        self.table.peer_configure(PeerId(peer as u32), routes);
        self.turn_due = true;
    }
}
