//! Peers as sources of paths, as the decision process and export see them.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    AttrTable, Candidate, MultipathAsPath, MultipathLimit, NextHops, PREFERENCE_BGP, Path,
    PathFlags, Rank, Reach, SourceId, Vantage, VantageId, ViaDefault, select_multipath,
};
use crate::types::{Asn, ClusterId, ExtCommunity, NextHop, PeerType, RouterId, Source};

/// One peer as a source of routes. Kept as long as the peer has stale routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceFacts {
    pub(crate) address: IpAddr,
    pub(crate) router_id: RouterId,
    pub(crate) peer_type: PeerType,
    /// Our AS on the session.
    pub(crate) local_asn: Asn,
    /// iBGP: a client of ours (RFC 4456).
    pub(crate) client: bool,
    /// Its cluster id.
    pub(crate) cluster_id: ClusterId,
    /// Where it is.
    pub(crate) vantage: Option<VantageId>,
}

/// Preference of a source before policy. Differs from RFC: BGP has no such step. The values are
/// BIRD's: a local prefix wins over a learned one, and any of those over one that the kernel had.
pub(crate) fn default_preference(source: Source) -> u16 {
    match source {
        Source::Bgp => PREFERENCE_BGP,
        Source::Static | Source::Announced => 200,
        Source::Direct => 240,
        Source::Kernel => 10,
        // A VRF's own routes win over those that it imports. If one lost, it would not be offered, and
        // VRFs that import from each other in a ring could alternate for ever.
        Source::Vrf => 0,
    }
}

/// All peers as sources, by [`SourceId`].
#[derive(Debug, Default)]
pub(crate) struct Sources {
    peers: Vec<Option<SourceFacts>>,
    via_default: ViaDefault,
    /// Which paths share a destination's traffic, for export.
    multipath: MultipathLimit,
}

/// A counter for each source, by [`SourceId`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceCounts {
    peers: Vec<u32>,
    local: [u32; 5],
}

impl SourceCounts {
    #[inline]
    fn at(&mut self, source: SourceId) -> Option<&mut u32> {
        if source.peer().is_none() {
            return self.local.get_mut(source.local_index());
        }
        let at = usize::from(source.0);
        if self.peers.len() <= at {
            self.reach(at);
        }
        self.peers.get_mut(at)
    }

    #[cold]
    fn reach(&mut self, at: usize) {
        self.peers.resize(at + 1, 0);
    }

    #[inline]
    pub(crate) fn add(&mut self, source: SourceId) {
        if let Some(count) = self.at(source) {
            *count += 1;
        }
    }

    #[inline]
    pub(crate) fn subtract(&mut self, source: SourceId) {
        if let Some(count) = self.at(source) {
            *count -= 1;
        }
    }

    /// Of all sources.
    pub(crate) fn total(&self) -> u64 {
        self.peers.iter().chain(&self.local).map(|count| u64::from(*count)).sum()
    }

    pub(crate) fn get(&self, source: SourceId) -> u32 {
        let count = match source.peer() {
            Some(_) => self.peers.get(usize::from(source.0)),
            None => self.local.get(source.local_index()),
        };
        count.copied().unwrap_or_default()
    }
}

impl Sources {
    pub(crate) fn new(via_default: ViaDefault) -> Sources {
        Sources { peers: Vec::new(), via_default, multipath: MultipathLimit::default() }
    }

    pub(crate) fn set_multipath(&mut self, multipath: MultipathLimit) {
        self.multipath = multipath;
    }

    pub(crate) fn set_via_default(&mut self, via_default: ViaDefault) {
        self.via_default = via_default;
    }

    pub(crate) fn set(&mut self, id: SourceId, facts: SourceFacts) {
        let at = usize::from(id.0);
        if self.peers.len() <= at {
            self.peers.resize(at + 1, None);
        }
        self.peers[at] = Some(facts);
    }

    pub(crate) fn remove(&mut self, id: SourceId) {
        if let Some(slot) = self.peers.get_mut(usize::from(id.0)) {
            *slot = None;
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: SourceId) -> Option<&SourceFacts> {
        self.peers.get(usize::from(id.0))?.as_ref()
    }

    /// The rank of a path, or `None` if it is not usable.
    #[inline]
    pub(crate) fn rank(&self, path: &Path, attrs: &AttrTable, hops: &NextHops) -> Option<Rank> {
        if path.flags.is_refused() {
            return None;
        }
        let igp_metric = self.metric_to(path, hops)?;
        Some(self.rank_regardless(path, igp_metric, attrs))
    }

    /// The rank that a path has, or would have if it were usable.
    pub(crate) fn rank_regardless(&self, path: &Path, igp_metric: u32, attrs: &AttrTable) -> Rank {
        let of_attrs = Rank::from_attrs(attrs.key(path.attrs), attrs.local(path.attrs).preference);
        let rank = Rank {
            igp_metric,
            path_id: path.path_id,
            long_lived_stale: of_attrs.long_lived_stale || path.flags.has(PathFlags::LONG_LIVED),
            ..of_attrs
        };
        match self.get(path.source) {
            Some(facts) => Rank {
                external: facts.peer_type == PeerType::External,
                router_id: if rank.router_id == 0 { facts.router_id.0 } else { rank.router_id },
                address: facts.address,
                ..rank
            },
            None => Rank { local_origin: true, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..rank },
        }
    }

    /// Whether a path is eligible.
    #[inline]
    pub(crate) fn is_usable(&self, path: &Path, hops: &NextHops) -> bool {
        !path.flags.is_refused() && self.metric_to(path, hops).is_some()
    }

    /// The IGP metric of a path's next hop, or `None` if it is not usable.
    #[inline]
    pub(super) fn metric_to(&self, path: &Path, hops: &NextHops) -> Option<u32> {
        match hops.reach(path.next_hop) {
            Reach::Metric(metric) => Some(metric),
            Reach::OverDefault(metric) => self.takes_default(path.source).then_some(metric),
            Reach::Unresolved | Reach::Local => None,
        }
    }

    /// Whether paths of the source may use the default route to their next hop.
    fn takes_default(&self, source: SourceId) -> bool {
        let internal = self.get(source).is_none_or(|facts| facts.peer_type == PeerType::Internal);
        match self.via_default {
            ViaDefault::Never => false,
            ViaDefault::Internal => internal,
            ViaDefault::Always => true,
        }
    }

    /// The usable paths with their ranks, by position.
    pub(crate) fn candidates(
        &self,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> smallvec::SmallVec<[Candidate; 4]> {
        let mut candidates = smallvec::SmallVec::new();
        for (at, path) in paths.iter().enumerate() {
            if let Some(rank) = self.rank(path, attrs, hops) {
                candidates.push((at, rank));
            }
        }
        candidates
    }

    /// Positions of the paths of the multipath set, best first.
    pub(crate) fn multipath(
        &self,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> Vec<usize> {
        let candidates = self.candidates(paths, attrs, hops);
        let mut equal = select_multipath(&candidates);
        if let Some(best) = equal.first().copied() {
            let as_path = |at: usize| attrs.view(paths[candidates[at].0].attrs).as_path();
            let asn = |at: usize| candidates[at].1.neighbor_asn;
            match self.multipath.as_path {
                MultipathAsPath::EqualLength => {}
                MultipathAsPath::SameNeighborAs => equal.retain(|at| asn(*at) == asn(best)),
                MultipathAsPath::Identical => equal.retain(|at| as_path(*at) == as_path(best)),
            }
        }
        equal.truncate(self.multipath.max.max(1));
        equal.into_iter().map(|at| candidates[at].0).collect()
    }

    /// The Link Bandwidth of all paths that share the destination's traffic together, each next hop
    /// counted once; 0 if one of them has none. `None` if `path` is not among them.
    pub(crate) fn shared_bandwidth(
        &self,
        path: &Path,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> Option<u64> {
        let sharing = self.multipath(paths, attrs, hops);
        let name = |path: &Path| (path.source, path.path_id);
        if !sharing.iter().any(|at| name(&paths[*at]) == name(path)) {
            return None;
        }
        let mut counted: smallvec::SmallVec<[Option<IpAddr>; 8]> = smallvec::SmallVec::new();
        let mut sum = 0u64;
        for path in sharing.into_iter().map(|at| &paths[at]) {
            let hop = hops.hop(path.next_hop).map(NextHop::addr);
            if counted.contains(&hop) {
                continue;
            }
            counted.push(hop);
            let mut communities = attrs.view(path.attrs).ext_communities();
            match communities.find_map(ExtCommunity::link_bandwidth) {
                Some(bandwidth) => sum = sum.saturating_add(bandwidth),
                None => return Some(0),
            }
        }
        Some(sum)
    }

    /// Where the traffic of a path goes: the vantage of the neighbour that is its next hop (RFC 9107
    /// §3.1). Without such a neighbour, that of the peer that announced it.
    pub(crate) fn place(&self, path: &Path, hops: &NextHops) -> Option<VantageId> {
        let vantage_of = |source| self.get(source).and_then(|facts| facts.vantage);
        vantage_of(hops.neighbor(path.next_hop)).or_else(|| vantage_of(path.source))
    }

    /// The cost of a path from a vantage; 0 for local routes, which have no next hop to reach.
    pub(crate) fn cost_from(&self, vantage: &Vantage, path: &Path, hops: &NextHops) -> u32 {
        match path.source.peer() {
            Some(_) => vantage.cost_to(self.place(path, hops)),
            None => 0,
        }
    }

    /// As [`Sources::candidates`], with the cost from a vantage in place of the IGP metric.
    pub(crate) fn candidates_from(
        &self,
        vantage: Option<&Vantage>,
        paths: &[Path],
        attrs: &AttrTable,
        hops: &NextHops,
    ) -> smallvec::SmallVec<[Candidate; 4]> {
        let mut candidates = self.candidates(paths, attrs, hops);
        if let Some(vantage) = vantage {
            for (at, rank) in &mut candidates {
                rank.igp_metric = self.cost_from(vantage, &paths[*at], hops);
            }
        }
        candidates
    }
}
