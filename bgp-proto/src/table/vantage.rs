//! The vantages that peers and the configuration name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Explanation, Table};
use crate::rib::{Path, Vantage, VantageId};
use crate::types::{Prefix, Time};

/// Maximum number of vantages: a row of costs has one for each.
const VANTAGES_MAX: usize = 1024;

/// Costs between vantages, in place of the IGP metric (RFC 4271 §9.1.2.2 e, RFC 9107).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VantageCosts {
    /// Cost between two vantages for which none is stated, and to paths of which it is not known
    /// where they lead. Default 1000.
    pub default: u32,
    /// From each vantage to others. If a pair is stated in one direction only, it holds for both.
    /// Within a vantage the cost is 0.
    pub stated: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
}

impl Default for VantageCosts {
    fn default() -> Self {
        VantageCosts { default: 1000, stated: BTreeMap::new() }
    }
}

impl VantageCosts {
    /// The cost from one vantage to another.
    pub fn cost(&self, from: &str, to: &str) -> u32 {
        let stated = |from: &str, to: &str| self.stated.get(from)?.get(to).copied();
        if from == to {
            return 0;
        }
        stated(from, to).or_else(|| stated(to, from)).unwrap_or(self.default)
    }

    /// Every vantage that is named, sorted.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let to = self.stated.values().flat_map(BTreeMap::keys);
        let mut names: Vec<_> = self.stated.keys().chain(to).collect();
        names.sort();
        names.dedup();
        names.into_iter()
    }
}

/// The vantages in use, by name.
pub(super) struct Vantages {
    known: BTreeMap<Arc<str>, Arc<Vantage>>,
    /// By [`VantageId`].
    names: Vec<Option<Arc<str>>>,
    /// Whether some may have gone out of use.
    may_shrink: bool,
    /// Whether it has been reported that there are too many.
    is_limit_noted: bool,
}

impl Vantages {
    pub(super) fn new(costs: &VantageCosts) -> Self {
        let mut vantages = Vantages {
            known: BTreeMap::new(),
            names: Vec::new(),
            may_shrink: false,
            is_limit_noted: false,
        };
        vantages.rebuild(costs, &[]);
        vantages
    }

    /// The vantage with this name, if it is in use.
    pub(super) fn of(&self, name: Option<&Arc<str>>) -> Option<Arc<Vantage>> {
        self.known.get(name?).map(Arc::clone)
    }

    fn name_of(&self, id: VantageId) -> Option<Arc<str>> {
        self.names.get(usize::from(id.0))?.clone()
    }

    fn set_name(&mut self, id: VantageId, name: &Arc<str>) {
        let at = usize::from(id.0);
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        self.names[at] = Some(Arc::clone(name));
    }

    /// A peer has left a vantage.
    pub(super) fn note_leaving(&mut self) {
        self.may_shrink = true;
    }

    /// Keeps the vantages that `costs` and `used` name, with their ids, and gives ids to new ones.
    /// With the same costs, new ones take the place of no vantage in use: its peers keep their ids.
    fn rebuild(&mut self, costs: &VantageCosts, used: &[Arc<str>]) {
        (self.may_shrink, self.is_limit_noted) = (false, false);
        let mut ids = BTreeMap::new();
        let (kept, new): (Vec<_>, Vec<_>) =
            used.iter().partition(|name| self.known.contains_key(*name));
        let mut seen = BTreeSet::new();
        let mut wanted: Vec<&Arc<str>> = costs.names().chain(kept).chain(new).collect();
        wanted.retain(|name| seen.insert(*name));
        wanted.truncate(VANTAGES_MAX);
        for name in &wanted {
            ids.extend(self.known.get(*name).map(|known| (Arc::clone(name), known.id)));
        }
        for name in wanted {
            if !ids.contains_key(name) {
                ids.insert(Arc::clone(name), free_id(ids.values()));
            }
        }
        let row = |name: &Arc<str>| {
            let len = ids.values().map(|id| usize::from(id.0) + 1).max().unwrap_or(0);
            let mut row = vec![costs.default; len];
            for (other, id) in &ids {
                row[usize::from(id.0)] = costs.cost(name, other);
            }
            row
        };
        let vantage = |(name, id): (&Arc<str>, &VantageId)| {
            let (name, costs_from) = (Arc::clone(name), row(name));
            let vantage = Vantage { id: *id, name, default_cost: costs.default, costs: costs_from };
            (Arc::clone(&vantage.name), Arc::new(vantage))
        };
        self.known = ids.iter().map(vantage).collect();
        self.names.clear();
        ids.iter().for_each(|(name, id)| self.set_name(*id, name));
    }

    /// Adds a vantage that no cost is stated for.
    fn add(&mut self, costs: &VantageCosts, name: &Arc<str>) -> VantageId {
        let id = free_id(self.known.values().map(|known| &known.id));
        let mut row = vec![costs.default; usize::from(id.0)];
        row.push(0);
        let name = Arc::clone(name);
        let vantage =
            Vantage { id, name: Arc::clone(&name), default_cost: costs.default, costs: row };
        self.set_name(id, &name);
        self.known.insert(name, Arc::new(vantage));
        id
    }
}

/// The lowest id that is not taken.
fn free_id<'a>(taken: impl Iterator<Item = &'a VantageId>) -> VantageId {
    let mut taken: Vec<u16> = taken.map(|id| id.0).collect();
    taken.sort_unstable();
    let free = (0..).zip(&taken).find(|(id, taken)| id != *taken).map(|(id, _)| id);
    VantageId(free.unwrap_or(taken.len() as u16))
}

impl Table {
    /// The id of a vantage that a peer is at. `None` if there are too many.
    pub(super) fn vantage_id(&mut self, name: &Arc<str>) -> Option<VantageId> {
        if let Some(known) = self.vantages.known.get(name) {
            return Some(known.id);
        }
        let is_full = self.vantages.known.len() >= VANTAGES_MAX;
        if is_full && self.vantages.may_shrink {
            self.configure_vantages();
            // It may have been added with those of all peers.
            if let Some(known) = self.vantages.known.get(name) {
                return Some(known.id);
            }
        }
        if self.vantages.known.len() >= VANTAGES_MAX {
            if !std::mem::replace(&mut self.vantages.is_limit_noted, true) {
                self.note(format!(
                    "vantage {name}: there are {VANTAGES_MAX} already; peers at this one and at \
                     further ones are sent our own best path"
                ));
            }
            return None;
        }
        Some(self.vantages.add(&self.config.vantages, name))
    }

    /// The vantages that peers or costs name, sorted.
    pub fn vantages(&self) -> impl Iterator<Item = &Arc<str>> {
        self.vantages.known.keys()
    }

    /// Everything about one destination as seen from a vantage: paths in the order in which they are
    /// preferred there, and the peers that are there. `None` also if nothing names the vantage.
    pub fn explain_from(&self, vantage: &str, prefix: Prefix, now: Time) -> Option<Explanation> {
        let vantage = self.vantages.known.get(vantage)?;
        self.explain_to(prefix, Some(vantage), now)
    }

    /// The name of the vantage to which a path leads.
    pub(super) fn place_of(&self, path: &Path) -> Option<Arc<str>> {
        let place = self.loc_rib.sources.place(path, &self.loc_rib.hops)?;
        self.vantages.name_of(place)
    }

    /// The costs changed: the vantages of all peers get new rows.
    pub(super) fn configure_vantages(&mut self) {
        let peers = self.peers.iter().filter(|peer| !peer.removed);
        let mut used: Vec<Arc<str>> = peers.filter_map(|p| p.routes.vantage.clone()).collect();
        used.sort();
        used.dedup();
        self.vantages.rebuild(&self.config.vantages, &used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(stated: &[(&str, &str, u32)]) -> VantageCosts {
        let mut costs = VantageCosts::default();
        for (from, to, cost) in stated {
            costs.stated.entry((*from).into()).or_default().insert((*to).into(), *cost);
        }
        costs
    }

    #[test]
    fn a_cost_holds_for_both_directions_unless_both_are_stated() {
        let costs = costs(&[("a", "b", 10), ("b", "c", 5), ("c", "b", 7)]);
        assert_eq!((costs.cost("a", "b"), costs.cost("b", "a")), (10, 10));
        assert_eq!((costs.cost("b", "c"), costs.cost("c", "b")), (5, 7));
        assert_eq!(
            (costs.cost("a", "a"), costs.cost("a", "c"), costs.cost("x", "x")),
            (0, 1000, 0)
        );
    }

    #[test]
    fn ids_stay_while_a_name_is_in_use_and_are_used_again_afterwards() {
        let stated = costs(&[("a", "b", 10)]);
        let mut vantages = Vantages::new(&stated);
        let added = vantages.add(&stated, &"rack".into());
        let row = |vantages: &Vantages, name: &str| {
            let found = vantages.of(Some(&name.into())).expect("it is in use");
            (
                found.id,
                ["a", "b", "rack", "other"].map(|place| {
                    found.cost_to(vantages.of(Some(&place.into())).map(|place| place.id))
                }),
            )
        };
        assert_eq!(row(&vantages, "a").1, [0, 10, 1000, 1000]);
        assert_eq!(row(&vantages, "rack"), (added, [1000, 1000, 0, 1000]));
        let fewer = costs(&[("b", "rack", 3)]);
        vantages.rebuild(&fewer, &["rack".into()]);
        assert_eq!(row(&vantages, "rack"), (added, [1000, 3, 0, 1000]));
        assert!(vantages.of(Some(&"a".into())).is_none());
        let before = row(&vantages, "b").0;
        let other = vantages.add(&fewer, &"other".into());
        assert_eq!(row(&vantages, "rack"), (added, [1000, 3, 0, 1000]));
        assert_eq!(vantages.name_of(added).as_deref(), Some("rack"));
        assert_eq!(vantages.name_of(other).as_deref(), Some("other"));
        assert!(other != added && other != before, "{other:?} is taken");
    }

    #[test]
    fn those_in_use_stay_when_there_are_too_many() {
        let none = VantageCosts::default();
        let mut vantages = Vantages::new(&none);
        let name = |n: usize| -> Arc<str> { format!("node-{n:04}").into() };
        let used: Vec<Arc<str>> = (10..VANTAGES_MAX + 10).map(name).collect();
        vantages.rebuild(&none, &used);
        let id = |vantages: &Vantages, n| vantages.of(Some(&name(n))).map(|found| found.id);
        let before = id(&vantages, 20);
        assert!(before.is_some());
        // One goes, and ten wait that are sorted before all others.
        let used: Vec<Arc<str>> = (0..VANTAGES_MAX + 9).map(name).collect();
        vantages.rebuild(&none, &used);
        assert_eq!(id(&vantages, 20), before);
        let kept = (10..VANTAGES_MAX + 9).filter(|n| id(&vantages, *n).is_some()).count();
        assert_eq!((kept, vantages.known.len()), (VANTAGES_MAX - 1, VANTAGES_MAX));
    }
}
