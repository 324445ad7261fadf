//! The paths among which the interior cost decides: one pass over the paths of a destination for
//! our own decision and for those of all vantages, which differ in the cost alone.

use std::cmp::Ordering;
use std::sync::Arc;

use smallvec::SmallVec;

use super::decision::compare_tail;
use super::{AttrKey, AttrTable, NextHops, Path, PathFlags, SourceId, Sources, Vantage, VantageId};
use crate::types::PeerType;

/// A usable path that no other beats in a step above the IGP metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finalist {
    /// Its position.
    at: u32,
    /// IGP metric of its next hop.
    metric: u32,
    /// The first steps below the IGP metric: identifier, and length of CLUSTER_LIST.
    tail: u64,
    /// Neighbouring AS and MED.
    med: (u32, u32),
    /// Learned over eBGP.
    external: bool,
}

/// The finalists of a destination, in no particular order.
pub(crate) type Finalists = SmallVec<[Finalist; 8]>;

/// What a decision means for a group with a vantage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The position of the best path; `u32::MAX` if there is none.
    pub(crate) at: u32,
    /// Its source, if it is as it was at the last decision; [`SourceId::NONE`] if there is no best path.
    /// `None`: it may have been written since.
    pub(crate) kept: Option<SourceId>,
}

impl Choice {
    /// There is no best path.
    pub(crate) const NONE: Choice = Choice { at: u32::MAX, kept: Some(SourceId::NONE) };
}

/// What decisions mean for the vantages in use.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    pub(crate) vantages: Vec<Arc<Vantage>>,
    /// For each decided destination, one for each vantage.
    pub(crate) rows: Vec<Choice>,
}

impl Choices {
    /// Those of one vantage, by decided destination. While costs change, there may be two of one id.
    pub(crate) fn of(&self, vantage: &Arc<Vantage>) -> Option<impl Iterator<Item = Choice> + '_> {
        let column = self.vantages.iter().position(|other| other == vantage)?;
        Some(self.rows.iter().skip(column).step_by(self.vantages.len()).copied())
    }
}

impl Sources {
    /// The paths that are best down to the step above the IGP metric (RFC 4271 §9.1.2.2).
    pub(crate) fn finalists(
        &self,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> Finalists {
        let mut best = u128::MAX;
        let mut finalists = Finalists::new();
        for (at, path) in (0..).zip(paths) {
            if path.flags.is_refused() {
                continue;
            }
            let Some(metric) = self.metric_to(path, hops) else { continue };
            let (key, preference) = attrs.ranked(path.attrs);
            let facts = self.get(path.source);
            let head = head(path, key, preference, facts.is_some());
            if head > best {
                continue;
            }
            if head < best {
                best = head;
                finalists.clear();
            }
            let own_id = facts.map_or(0, |facts| facts.router_id.0);
            let router_id = if key.originator_id == 0 { own_id } else { key.originator_id };
            finalists.push(Finalist {
                at,
                metric,
                tail: u64::from(router_id) << 16 | u64::from(key.cluster_list_len),
                med: (key.neighbor_asn, key.med),
                external: facts.is_some_and(|facts| facts.peer_type == PeerType::External),
            });
        }
        if finalists.len() > 1 {
            retain_lowest_med(&mut finalists);
            let externals = finalists.iter().filter(|finalist| finalist.external).count();
            if externals > 0 && externals < finalists.len() {
                finalists.retain(|finalist| finalist.external);
            }
        }
        finalists
    }

    /// The steps below the IGP metric. `Less` is better.
    fn compare_tails(
        &self,
        (a, b): (&Finalist, &Finalist),
        paths: &[Path],
        attrs: &AttrTable,
    ) -> Ordering {
        let rank = |finalist: &Finalist| {
            self.rank_regardless(&paths[finalist.at as usize], finalist.metric, attrs)
        };
        a.tail.cmp(&b.tail).then_with(|| compare_tail(&rank(a), &rank(b)).0)
    }

    /// The position of the finalist with the lowest cost.
    fn least(
        &self,
        finalists: &Finalists,
        (paths, attrs): (&[Path], &AttrTable),
        cost: impl Fn(&Finalist) -> u32,
    ) -> Option<usize> {
        let (first, others) = finalists.split_first()?;
        let mut least = (cost(first), first);
        for other in others {
            let cost = cost(other);
            let ordering =
                cost.cmp(&least.0).then_with(|| self.compare_tails((other, least.1), paths, attrs));
            if ordering.is_lt() {
                least = (cost, other);
            }
        }
        Some(least.1.at as usize)
    }

    /// The position of the best path in our own decision.
    pub(crate) fn best_of(
        &self,
        finalists: &Finalists,
        paths: &[Path],
        attrs: &AttrTable,
    ) -> Option<usize> {
        self.least(finalists, (paths, attrs), |finalist| finalist.metric)
    }

    /// The position of the best path as seen from a vantage.
    pub(crate) fn best_from(
        &self,
        vantage: &Vantage,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> Option<usize> {
        let finalists = self.finalists(paths, attrs, hops);
        self.least(&finalists, (paths, attrs), |finalist| {
            self.cost_from(vantage, &paths[finalist.at as usize], hops)
        })
    }

    /// Appends the choice from each vantage. `best`: the path that then changes places with the first
    /// one ([`Destinations::set_best`](super::Destinations::set_best)); positions are those after that.
    pub(crate) fn choose(
        &self,
        finalists: &mut Finalists,
        best: Option<usize>,
        (paths, attrs, hops): (&[Path], &AttrTable, &NextHops),
        choices: &mut Choices,
    ) {
        // Groups know the source of what they advertise, and a source may have several paths with
        // identifiers. What is sent of a local route does not depend on its path alone.
        let has_ids = paths.iter().any(|path| path.path_id != 0);
        let choice_of = |finalist: &Finalist| {
            let path = &paths[finalist.at as usize];
            let is_plain = !has_ids && path.source.peer().is_some();
            let is_written = path.flags.has(PathFlags::WRITTEN) || !is_plain;
            let at = match (finalist.at, best) {
                (at, Some(best)) if at as usize == best => 0,
                (0, Some(best)) => best as u32,
                (at, _) => at,
            };
            Choice { at, kept: (!is_written).then_some(path.source) }
        };
        let Choices { vantages, rows } = choices;
        let (Some(first), more) = (finalists.first(), finalists.len() > 1) else {
            rows.extend(vantages.iter().map(|_| Choice::NONE));
            return;
        };
        if !more {
            let choice = choice_of(first);
            rows.extend(vantages.iter().map(|_| choice));
            return;
        }
        // In the order of the steps below, the first one of the lowest cost is the best.
        finalists.sort_unstable_by(|a, b| self.compare_tails((a, b), paths, attrs));
        // Local paths are finalists among themselves only: then all costs are equal.
        let places: SmallVec<[(Option<VantageId>, Choice); 8]> = finalists
            .iter()
            .map(|finalist| (self.place(&paths[finalist.at as usize], hops), choice_of(finalist)))
            .collect();
        rows.extend(vantages.iter().map(|vantage| {
            let mut least = (u32::MAX, Choice::NONE);
            for (at, (place, choice)) in places.iter().enumerate() {
                let cost = vantage.cost_to(*place);
                if at == 0 || cost < least.0 {
                    least = (cost, *choice);
                }
                // No path is nearer than one at the vantage itself.
                if least.0 == 0 {
                    break;
                }
            }
            least.1
        }));
    }
}

/// The steps above MED as one number; lower is better.
#[inline]
fn head(path: &Path, key: &AttrKey, preference: u16, is_learned: bool) -> u128 {
    let stale = key.has(AttrKey::LLGR_STALE) || path.flags.has(PathFlags::LONG_LIVED);
    let high = u64::from(stale) << 17 | u64::from(!preference) << 1 | u64::from(is_learned);
    let low =
        u64::from(!key.local_pref) << 24 | u64::from(key.as_path_len) << 8 | u64::from(key.origin);
    u128::from(high) << 64 | u128::from(low)
}

/// Keeps the paths with the lowest MED of each neighbouring AS.
fn retain_lowest_med(finalists: &mut Finalists) {
    let first = finalists.first().map(|first| first.med.1);
    if finalists.iter().all(|finalist| Some(finalist.med.1) == first) {
        return;
    }
    let mut lowest: Vec<(u32, u32)> = finalists.iter().map(|finalist| finalist.med).collect();
    lowest.sort_unstable();
    lowest.dedup_by_key(|(asn, _)| *asn);
    finalists.retain(|finalist| lowest.binary_search(&finalist.med).is_ok());
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::{LocalAttrs, NextHopState, SourceFacts, ViaDefault, select};
    use super::*;
    use crate::types::{Asn, ClusterId, NextHop, RouterId};
    use crate::wire::{AttrEdit, Origin};

    /// Index of the source, LOCAL_PREF, neighbouring AS, MED, preference, path identifier, flags.
    type Given = (u16, u32, u32, u32, u16, u32, u8);

    struct Rib {
        sources: Sources,
        attrs: AttrTable,
        hops: NextHops,
        paths: Vec<Path>,
    }

    const PEERS: u16 = 6;

    /// Sources 0 to 5 are peers, each with a next hop of its own; the others are local.
    fn rib(given: &[Given]) -> Rib {
        let mut rib = Rib {
            sources: Sources::new(ViaDefault::Always),
            attrs: AttrTable::new(1),
            hops: NextHops::default(),
            paths: Vec::new(),
        };
        for id in 0..PEERS {
            let external = id % 3 == 0;
            let facts = SourceFacts {
                address: IpAddr::from([192, 0, 2, id as u8]),
                router_id: RouterId(u32::from(id / 2)),
                peer_type: if external { PeerType::External } else { PeerType::Internal },
                local_asn: Asn(65000),
                client: true,
                cluster_id: ClusterId(1),
                vantage: (id != 4).then_some(VantageId(id % 4)),
            };
            rib.sources.set(SourceId(id), facts);
        }
        for (source, local_pref, asn, med, preference, path_id, flags) in given.iter().copied() {
            let mut edit = AttrEdit::originate(Origin::Igp);
            edit.prepend_as(Asn(asn), 1);
            edit.set_med(med);
            edit.set_local_pref(local_pref);
            let local = LocalAttrs { preference, metric: None };
            let attrs = rib.attrs.intern(edit.view().as_bytes(), local);
            let local = SourceId::local(crate::types::Source::Static).unwrap();
            let source = if source < PEERS { SourceId(source) } else { local };
            let mut path = Path { attrs, source, path_id, ..Path::default() };
            if source.peer().is_some() {
                let addr = IpAddr::from([10, 0, 0, source.0 as u8]);
                path.next_hop = rib.hops.intern(NextHop::from(addr));
                rib.hops.retain_path(path.next_hop, crate::types::Family::Ipv4, Default::default());
                if source.0 != 5 {
                    let mut state = NextHopState::connected(addr, 1);
                    if let NextHopState::Via { metric, .. } = &mut state {
                        *metric = u32::from(source.0 % 2);
                    }
                    rib.hops.set_state(addr, state);
                }
            }
            if flags & 1 != 0 {
                path.flags.set(PathFlags::LONG_LIVED);
            }
            if flags & 6 == 6 {
                path.flags.refuse(crate::rib::Refusal::Rejected);
            }
            if flags & 8 != 0 {
                path.flags.set(PathFlags::WRITTEN);
            }
            rib.paths.push(path);
        }
        rib
    }

    fn any_path() -> impl Strategy<Value = Given> {
        let path_id = prop_oneof![20 => Just(0u32), 1 => Just(1)];
        (0u16..7, 99u32..101, 1u32..3, 0u32..3, 99u16..101, path_id, 0u8..16)
    }

    proptest! {
        /// The same result as ranking all paths, with our metric and with each vantage's costs.
        #[test]
        fn finalists_give_the_best_of_all_ranks(
            given in prop::collection::vec(any_path(), 0..14),
            costs in prop::collection::vec(prop::collection::vec(0u32..3, 4), 3),
        ) {
            // A source has one path with an identifier.
            let mut seen = std::collections::BTreeSet::new();
            let given: Vec<Given> =
                given.into_iter().filter(|given| seen.insert((given.0, given.5))).collect();
            let rib = rib(&given);
            let (paths, attrs, hops) = (&rib.paths[..], &rib.attrs, &rib.hops);
            let naive = |vantage: Option<&Vantage>| {
                let candidates = rib.sources.candidates_from(vantage, paths, attrs, hops);
                select(&candidates).map(|at| candidates[at].0)
            };
            let mut finalists = rib.sources.finalists(paths, attrs, hops);
            prop_assert_eq!(rib.sources.best_of(&finalists, paths, attrs), naive(None));
            let vantages: Vec<Arc<Vantage>> = (0..).zip(costs).map(|(id, costs)| {
                let name = Arc::from(format!("zone-{id}"));
                Arc::new(Vantage { id: VantageId(id), name, default_cost: 1, costs })
            }).collect();
            let mut choices = Choices { vantages, rows: Vec::new() };
            let first = (!finalists.is_empty()).then(|| paths.len() - 1);
            let swapped = |at: usize| match first {
                Some(first) if at == first => 0,
                Some(first) if at == 0 => first,
                _ => at,
            };
            rib.sources.choose(&mut finalists, first, (paths, attrs, hops), &mut choices);
            for vantage in &choices.vantages {
                let best = naive(Some(vantage));
                prop_assert_eq!(rib.sources.best_from(vantage, paths, attrs, hops), best);
                let expected = best.map_or(Choice::NONE, |at| {
                    let Path { flags, source, .. } = paths[at];
                    let is_kept = source.peer().is_some()
                        && !flags.has(PathFlags::WRITTEN)
                        && paths.iter().all(|path| path.path_id == 0);
                    Choice { at: swapped(at) as u32, kept: is_kept.then_some(source) }
                });
                prop_assert_eq!(choices.of(vantage).unwrap().collect::<Vec<_>>(), [expected]);
            }
        }
    }
}
