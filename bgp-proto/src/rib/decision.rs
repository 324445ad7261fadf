//! The decision process: one comparison, which also gives the reason (RFC 4271 §9.1.2.2,
//! RFC 4456 §9).
//!
//! MED is comparable within one neighbouring AS only, so "better" is not a total order. Everything
//! here follows the RFC's elimination: the steps above MED, then the lowest MED of each
//! neighbouring AS, then the steps below. The result never depends on the order of arrival.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::{AttrKey, Reason};

/// Everything that decides between two usable paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// Carries LLGR_STALE, or is long-lived stale here: less preferred than any that does not (RFC 9494 §4.3).
    pub(crate) long_lived_stale: bool,
    pub(crate) preference: u16,
    pub(crate) local_pref: u32,
    pub(crate) local_origin: bool,
    pub(crate) as_path_len: u16,
    pub(crate) origin: u8,
    pub(crate) med: u32,
    pub(crate) neighbor_asn: u32,
    pub(crate) external: bool,
    pub(crate) igp_metric: u32,
    pub(crate) router_id: u32,
    pub(crate) cluster_list_len: u16,
    pub(crate) address: IpAddr,
    pub(crate) path_id: u32,
}

impl Rank {
    /// The rank by attributes alone; the caller adds the source of the path.
    pub(crate) fn from_attrs(key: &AttrKey, preference: u16) -> Self {
        Rank {
            long_lived_stale: key.has(AttrKey::LLGR_STALE),
            preference,
            local_pref: key.local_pref,
            local_origin: false,
            as_path_len: key.as_path_len,
            origin: key.origin,
            med: key.med,
            neighbor_asn: key.neighbor_asn,
            external: false,
            igp_metric: 0,
            router_id: key.originator_id,
            cluster_list_len: key.cluster_list_len,
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            path_id: 0,
        }
    }
}

/// The steps above MED. `Less` is better.
fn compare_head(a: &Rank, b: &Rank) -> (Ordering, Reason) {
    let steps = [
        (a.long_lived_stale.cmp(&b.long_lived_stale), Reason::LongLivedStale),
        (b.preference.cmp(&a.preference), Reason::Preference),
        // LOCAL_PREF is meaningful among BGP routes only, so that it does not decide between
        // sources of equal preference. In BIRD, too, static routes win such a tie.
        (b.local_origin.cmp(&a.local_origin), Reason::LocalOrigin),
        (b.local_pref.cmp(&a.local_pref), Reason::LocalPref),
        (a.as_path_len.cmp(&b.as_path_len), Reason::AsPathLength),
        (a.origin.cmp(&b.origin), Reason::Origin),
    ];
    first_difference(steps)
}

/// MED, where it applies. `Less` is better.
fn compare_med(a: &Rank, b: &Rank) -> Ordering {
    if a.neighbor_asn == b.neighbor_asn { a.med.cmp(&b.med) } else { Ordering::Equal }
}

/// The steps below MED that must be equal for multipath.
fn compare_forwarding(a: &Rank, b: &Rank) -> (Ordering, Reason) {
    first_difference([
        (b.external.cmp(&a.external), Reason::PeerType),
        (a.igp_metric.cmp(&b.igp_metric), Reason::IgpMetric),
    ])
}

/// The steps that only break ties.
pub(super) fn compare_tail(a: &Rank, b: &Rank) -> (Ordering, Reason) {
    first_difference([
        (a.router_id.cmp(&b.router_id), Reason::RouterId),
        (a.cluster_list_len.cmp(&b.cluster_list_len), Reason::ClusterListLength),
        (a.address.cmp(&b.address), Reason::PeerAddress),
        (a.path_id.cmp(&b.path_id), Reason::PathId),
    ])
}

fn first_difference<const N: usize>(steps: [(Ordering, Reason); N]) -> (Ordering, Reason) {
    let last = steps[N - 1];
    steps.into_iter().find(|(ordering, _)| ordering.is_ne()).unwrap_or(last)
}

/// Which of two paths is better (`Less`), and by which step.
pub(crate) fn compare(a: &Rank, b: &Rank) -> (Ordering, Reason) {
    let head = compare_head(a, b);
    if head.0.is_ne() {
        return head;
    }
    let med = compare_med(a, b);
    if med.is_ne() {
        return (med, Reason::Med);
    }
    let forwarding = compare_forwarding(a, b);
    if forwarding.0.is_ne() { forwarding } else { compare_tail(a, b) }
}

/// Whether `other` is eligible for multipath with the best path: equal down to the IGP metric.
fn is_equal_cost(best: &Rank, other: &Rank) -> bool {
    compare_head(best, other).0.is_eq()
        && compare_med(best, other).is_eq()
        && compare_forwarding(best, other).0.is_eq()
}

/// A usable path: its position, and its rank.
pub(crate) type Candidate = (usize, Rank);

/// The best of the candidates, as index into `candidates`.
pub(crate) fn select(candidates: &[Candidate]) -> Option<usize> {
    match candidates {
        [] => None,
        [_] => Some(0),
        [(_, a), (_, b)] => Some(usize::from(compare(a, b).0.is_gt())),
        _ => survivors(candidates)
            .into_iter()
            .min_by(|a, b| tie_break(&candidates[*a].1, &candidates[*b].1)),
    }
}

/// The steps below MED, among the survivors of MED.
fn tie_break(a: &Rank, b: &Rank) -> Ordering {
    compare_forwarding(a, b).0.then_with(|| compare_tail(a, b).0)
}

/// The candidates that survive the steps down to MED.
fn survivors(candidates: &[Candidate]) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::new();
    for (at, (_, rank)) in candidates.iter().enumerate() {
        let ordering =
            top.first().map_or(Ordering::Equal, |t| compare_head(rank, &candidates[*t].1).0);
        match ordering {
            Ordering::Less => {
                top.clear();
                top.push(at);
            }
            Ordering::Equal => top.push(at),
            Ordering::Greater => {}
        }
    }
    // Lowest MED first within each AS, so that one pass finds each AS's minimum.
    let mut by_asn: Vec<(u32, u32)> =
        top.iter().map(|at| (candidates[*at].1.neighbor_asn, candidates[*at].1.med)).collect();
    by_asn.sort_unstable();
    by_asn.dedup_by_key(|(asn, _)| *asn);
    top.retain(|at| {
        let rank = &candidates[*at].1;
        by_asn.binary_search(&(rank.neighbor_asn, rank.med)).is_ok()
    });
    top
}

/// The multipath set: the best path first, then those of equal cost in order of rank.
pub(crate) fn select_multipath(candidates: &[Candidate]) -> Vec<usize> {
    let Some(best) = select(candidates) else { return Vec::new() };
    let rank = &candidates[best].1;
    if rank.local_origin {
        return vec![best];
    }
    let mut equal: Vec<usize> = survivors(candidates)
        .into_iter()
        .filter(|at| is_equal_cost(rank, &candidates[*at].1))
        .collect();
    equal.sort_by(|a, b| tie_break(&candidates[*a].1, &candidates[*b].1));
    equal
}

/// The best `limit` candidates in order: the best, the best of the others, and so on.
///
/// Without MED that is one sort. With MED, the best of a neighbouring AS hides the others of that
/// AS until it is taken, so each level of the steps above MED is merged from one queue per AS.
pub(crate) fn order(candidates: &[Candidate], limit: usize) -> Vec<usize> {
    let rank = |at: &usize| &candidates[*at].1;
    let mut sorted: Vec<usize> = (0..candidates.len()).collect();
    sorted.sort_by(|a, b| compare_head(rank(a), rank(b)).0);
    let mut ordered = Vec::with_capacity(limit.min(candidates.len()));
    for level in sorted.chunk_by(|a, b| compare_head(rank(a), rank(b)).0.is_eq()) {
        if ordered.len() >= limit {
            break;
        }
        order_level(candidates, level, limit, &mut ordered);
    }
    ordered
}

/// Orders candidates that are equal down to ORIGIN. Those of one AS are taken in order of MED; all
/// with the lowest remaining MED of their AS compete.
fn order_level(candidates: &[Candidate], level: &[usize], limit: usize, ordered: &mut Vec<usize>) {
    let rank = |at: usize| &candidates[at].1;
    let mut queues: Vec<usize> = level.to_vec();
    queues.sort_by(|a, b| {
        let (a, b) = (rank(*a), rank(*b));
        (a.neighbor_asn, a.med).cmp(&(b.neighbor_asn, b.med)).then_with(|| tie_break(b, a))
    });
    // Runs of equal MED within an AS; within a run the best is last.
    let mut runs: Vec<Vec<Vec<usize>>> = Vec::new();
    for of_asn in queues.chunk_by(|a, b| rank(*a).neighbor_asn == rank(*b).neighbor_asn) {
        let by_med = of_asn.chunk_by(|a, b| rank(*a).med == rank(*b).med);
        let mut waiting: Vec<Vec<usize>> = by_med.map(<[usize]>::to_vec).collect();
        waiting.reverse();
        runs.push(waiting);
    }
    let mut heads = std::collections::BinaryHeap::new();
    let entry = |runs: &[Vec<Vec<usize>>], queue: usize| {
        let at = *runs[queue].last()?.last()?;
        Some(Head { rank: *rank(at), at, queue })
    };
    (0..runs.len()).for_each(|queue| heads.extend(entry(&runs, queue)));
    while ordered.len() < limit
        && let Some(best) = heads.pop()
    {
        ordered.push(best.at);
        let queue = &mut runs[best.queue];
        if let Some(run) = queue.last_mut() {
            run.pop();
            if run.is_empty() {
                queue.pop();
            }
        }
        heads.extend(entry(&runs, best.queue));
    }
}

/// The next candidate of one neighbouring AS.
struct Head {
    rank: Rank,
    at: usize,
    queue: usize,
}

impl Ord for Head {
    /// The greatest is the best.
    fn cmp(&self, other: &Self) -> Ordering {
        tie_break(&other.rank, &self.rank).then_with(|| other.at.cmp(&self.at))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank() -> Rank {
        let key =
            AttrKey { local_pref: 100, as_path_len: 2, neighbor_asn: 1, ..AttrKey::default() };
        Rank { external: true, router_id: 9, ..Rank::from_attrs(&key, 100) }
    }

    #[test]
    fn each_step_decides_where_all_before_it_are_equal() {
        let base = rank();
        let better: [(Rank, Reason); 13] = [
            (Rank { preference: 200, ..base }, Reason::Preference),
            (Rank { local_origin: true, ..base }, Reason::LocalOrigin),
            (Rank { local_pref: 101, ..base }, Reason::LocalPref),
            (Rank { as_path_len: 1, ..base }, Reason::AsPathLength),
            (Rank { origin: 0, ..base }, Reason::Origin),
            (Rank { med: 1, ..base }, Reason::Med),
            (Rank { external: true, ..base }, Reason::PeerType),
            (Rank { igp_metric: 1, ..base }, Reason::IgpMetric),
            (Rank { router_id: 1, ..base }, Reason::RouterId),
            (Rank { cluster_list_len: 0, ..base }, Reason::ClusterListLength),
            (Rank { address: "0.0.0.1".parse().unwrap(), ..base }, Reason::PeerAddress),
            (Rank { path_id: 1, ..base }, Reason::PathId),
            (Rank { long_lived_stale: false, ..base }, Reason::LongLivedStale),
        ];
        let worse = Rank {
            long_lived_stale: true,
            origin: 2,
            med: 5,
            external: false,
            igp_metric: 5,
            cluster_list_len: 3,
            address: "9.9.9.9".parse().unwrap(),
            path_id: 7,
            ..base
        };
        for (changed, reason) in better {
            // The same difference, between otherwise equal paths.
            let mut winner = worse;
            match reason {
                Reason::Preference => winner.preference = changed.preference,
                Reason::LocalPref => winner.local_pref = changed.local_pref,
                Reason::LocalOrigin => winner.local_origin = true,
                Reason::AsPathLength => winner.as_path_len = changed.as_path_len,
                Reason::Origin => winner.origin = changed.origin,
                Reason::Med => winner.med = changed.med,
                Reason::PeerType => winner.external = true,
                Reason::IgpMetric => winner.igp_metric = changed.igp_metric,
                Reason::RouterId => winner.router_id = changed.router_id,
                Reason::ClusterListLength => winner.cluster_list_len = 0,
                Reason::PeerAddress => winner.address = changed.address,
                Reason::PathId => winner.path_id = changed.path_id,
                _ => winner.long_lived_stale = false,
            }
            assert_eq!(compare(&winner, &worse), (Ordering::Less, reason));
            assert_eq!(compare(&worse, &winner), (Ordering::Greater, reason));
        }
    }

    #[test]
    fn med_counts_within_one_neighbouring_as_only() {
        // RFC 4451 §3: a beats b by identifier, b beats c by identifier, c beats a by MED.
        let a = Rank { neighbor_asn: 1, med: 10, router_id: 1, ..rank() };
        let b = Rank { neighbor_asn: 2, med: 0, router_id: 2, ..rank() };
        let c = Rank { neighbor_asn: 1, med: 5, router_id: 3, ..rank() };
        assert_eq!(compare(&a, &b).1, Reason::RouterId);
        assert_eq!(compare(&c, &a), (Ordering::Less, Reason::Med));
        let all = [(0, a), (1, b), (2, c)];
        assert_eq!(select(&all), Some(1));
        assert_eq!(select_multipath(&all), [1, 2], "c eliminated a");
        assert_eq!(order(&all, 9), [1, 2, 0]);
    }

    /// The best, then the best of the others, and so on.
    fn order_naively(candidates: &[Candidate]) -> Vec<usize> {
        let mut rest: Vec<(usize, Candidate)> = candidates.iter().copied().enumerate().collect();
        let mut ordered = Vec::new();
        loop {
            let ranks: Vec<Candidate> = rest.iter().map(|(_, candidate)| *candidate).collect();
            let Some(best) = select(&ranks) else { return ordered };
            ordered.push(rest.remove(best).0);
        }
    }

    fn any_rank() -> impl Strategy<Value = Rank> {
        (0u32..2, 0u32..3, 0u32..3, any::<bool>(), 0u32..2, 0u32..3, 0u8..8).prop_map(
            |(local_pref, neighbor_asn, med, external, igp_metric, router_id, last)| Rank {
                local_pref,
                neighbor_asn,
                med,
                external,
                igp_metric,
                router_id,
                address: std::net::IpAddr::from([10, 0, 0, last]),
                ..rank()
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(mut ranks in prop::collection::vec(any_rank(), 1..20), shift in 0usize..7) {
            // Distinct addresses: two peers never share one.
            for (at, rank) in ranks.iter_mut().enumerate() {
                rank.path_id = at as u32;
            }
            let candidates: Vec<Candidate> = ranks.iter().copied().enumerate().collect();
            let mut turned = candidates.clone();
            turned.rotate_left(shift % ranks.len());
            turned.swap(0, shift % ranks.len());
            let names = |c: &[Candidate], picked: Vec<usize>| picked.into_iter().map(|at| c[at].0).collect::<Vec<_>>();
            prop_assert_eq!(
                names(&candidates, select_multipath(&candidates)),
                names(&turned, select_multipath(&turned))
            );
            prop_assert_eq!(names(&candidates, order(&candidates, 9)), names(&turned, order(&turned, 9)));
            prop_assert_eq!(order(&candidates, 99), order_naively(&candidates));
            prop_assert_eq!(order(&candidates, 1), select(&candidates).into_iter().collect::<Vec<_>>());
            // No path of the winner's own neighbouring AS beats it.
            let best = &candidates[select(&candidates).unwrap()].1;
            for (_, other) in &candidates {
                prop_assert!(other.neighbor_asn != best.neighbor_asn || compare(best, other).0.is_le());
            }
        }
    }
}
