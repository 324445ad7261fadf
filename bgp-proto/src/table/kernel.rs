//! The intended contents of the kernel's table, and the changes not yet handed to the host.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use super::marks::Marks;
use super::{MultipathWeights, TableConfig};
use crate::policy::{Decision, RouteRef, Source, Verdict};
use crate::rib::{Barrier, DestId, LocRib, LocalRoute, Meter, Path, PathFlags};
use crate::types::{
    Community, ExtCommunity, Family, FibChange, FibKind, FibNextHop, FibRoute, Hop, NextHop,
    Prefix, Recursion,
};
use crate::wire::AttrEdit;

/// Capacity for changes that is kept while there are none: as many as an ordinary turn makes.
const CHANGES_KEPT: usize = 4096;

/// What the host was asked to install, without the prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FibEntry {
    /// A route.
    Route {
        kind: FibKind,
        metric: Option<u32>,
        source: Option<IpAddr>,
        recursion: Recursion,
        next_hops: Vec<FibNextHop>,
        backup: Option<FibNextHop>,
    },
    /// Leave what is installed: [`FibChange::Keep`].
    Kept,
}

impl FibEntry {
    fn change(self, prefix: Prefix) -> FibChange {
        match self {
            FibEntry::Route { kind, metric, source, recursion, next_hops, backup } => {
                let route = FibRoute { prefix, kind, metric, source, recursion, next_hops, backup };
                FibChange::Install(route)
            }
            FibEntry::Kept => FibChange::Keep,
        }
    }
}

/// Kernel routes requested of the host, each interned once; 0 is "no route".
#[derive(Default)]
struct FibTable {
    /// Each with its number of references. Entry `n` has id `n + 1`.
    entries: Slab<(Arc<FibEntry>, u32)>,
    index: BTreeMap<Arc<FibEntry>, u32>,
    /// The latest id: routes with the same next hop tend to follow each other.
    latest: u32,
}

impl FibTable {
    fn intern(&mut self, entry: Option<FibEntry>) -> u32 {
        let Some(entry) = entry else { return 0 };
        let latest = (self.latest as usize).checked_sub(1);
        if let Some((known, refs)) = latest.and_then(|at| self.entries.get_mut(at))
            && **known == entry
        {
            *refs += 1;
            return self.latest;
        }
        if let Some(id) = self.index.get(&entry).copied() {
            self.entries[id as usize - 1].1 += 1;
            self.latest = id;
            return id;
        }
        let entry = Arc::new(entry);
        let id = self.entries.insert((Arc::clone(&entry), 1)) as u32 + 1;
        self.index.insert(entry, id);
        id
    }

    fn release(&mut self, id: u32) {
        if id == 0 {
            return;
        }
        let (entry, refs) = &mut self.entries[id as usize - 1];
        *refs -= 1;
        if *refs == 0 {
            self.index.remove(entry);
            self.entries.remove(id as usize - 1);
        }
    }
}

/// The kernel as the table sees it.
#[derive(Default)]
pub(super) struct KernelView {
    entries: FibTable,
    /// Kernel indices of the tunnel interfaces that exist, by name.
    tunnels: BTreeMap<Arc<str>, u32>,
    /// Destinations to compare with the routes that the host was last asked to install.
    dirty: Marks,
    /// Changes for the host, which drains them after each turn: at most as many as a turn compares.
    changes: VecDeque<(Prefix, FibChange)>,
}

impl KernelView {
    /// Marks a destination for comparison.
    #[inline]
    pub(super) fn mark(&mut self, family: Family, dest: DestId) {
        self.dirty.mark(family, dest);
    }

    /// Marks every destination for comparison.
    pub(super) fn mark_all(&mut self, rib: &LocRib) {
        self.dirty.mark_all(rib);
    }

    /// Sets the tunnel interfaces that exist; returns whether they changed.
    pub(super) fn set_tunnels(&mut self, tunnels: BTreeMap<Arc<str>, u32>) -> bool {
        let differ = self.tunnels != tunnels;
        self.tunnels = tunnels;
        differ
    }

    pub(super) fn is_done_with(&self, family: Family, dest: DestId) -> bool {
        !self.dirty.contains(family, dest)
    }

    pub(super) fn barrier(&self, family: Family) -> Barrier {
        self.dirty.some[family].barrier()
    }

    pub(super) fn has_passed(&self, family: Family, barrier: Barrier) -> bool {
        self.dirty.some[family].has_passed(barrier)
    }

    pub(super) fn entry(&self, id: u32) -> Option<&FibEntry> {
        (id != 0).then(|| &*self.entries.entries[id as usize - 1].0)
    }

    pub(super) fn octets(&self) -> u64 {
        self.entries.index.len() as u64 * 200
    }

    pub(super) fn truncate(&mut self, family: Family, slots: u32) {
        self.dirty.truncate(family, slots);
    }

    /// Whether a turn has something to do here.
    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes at most `max` changes.
    pub(super) fn poll(&mut self, max: usize) -> Vec<(Prefix, FibChange)> {
        let changes = self.changes.drain(..max.min(self.changes.len())).collect();
        if self.changes.is_empty() && self.changes.capacity() > CHANGES_KEPT {
            self.changes.shrink_to(CHANGES_KEPT);
        }
        changes
    }

    /// Compares destinations that may have changed; `compared` is told each, and whether its route differs.
    pub(super) fn compare(
        &mut self,
        rib: &mut LocRib,
        config: &TableConfig,
        mut compared: impl FnMut(Family, DestId, bool),
        meter: &mut Meter,
    ) {
        for family in Family::ALL {
            while !meter.is_spent()
                && let Some(dest) = self.dirty.pop(family)
            {
                meter.spend(2);
                let differs = self.compare_dest(family, dest, rib, config, meter);
                compared(family, dest, differs);
            }
        }
    }

    /// Returns whether the route has changed.
    fn compare_dest(
        &mut self,
        family: Family,
        dest: DestId,
        rib: &mut LocRib,
        config: &TableConfig,
        meter: &mut Meter,
    ) -> bool {
        if !rib.dests(family).is_live(dest) {
            return false;
        }
        let entry = self.desired(family, dest, rib, config, meter);
        let id = self.entries.intern(entry);
        let before = rib.dests(family).fib(dest);
        if id == before {
            self.entries.release(id);
            return false;
        }
        rib.rib_mut(family).dests.set_fib(dest, id);
        self.entries.release(before);
        let prefix = rib.dests(family).prefix(dest);
        let entry = self.entry(id).cloned();
        let change = entry.map_or(FibChange::Withdraw, |entry| entry.change(prefix));
        self.changes.push_back((prefix, change));
        meter.spend(2);
        true
    }

    fn desired(
        &self,
        family: Family,
        dest: DestId,
        rib: &LocRib,
        config: &TableConfig,
        meter: &mut Meter,
    ) -> Option<FibEntry> {
        if !config.fib_enabled {
            return None;
        }
        let dests = rib.dests(family);
        let best = dests.best(dest)?;
        let source = best.source.source();
        let prefix = dests.prefix(dest);
        let local = match source {
            Source::Bgp => None,
            _ => rib.local.get(&(prefix, source)),
        };
        let mut metric = rib.attrs.local(best.attrs).metric;
        let (mut tunnel, mut from, mut next_hops, mut backup) = (None, None, Vec::new(), None);
        let max = config.multipath_max.max(1);
        if let Some(verdict) = verdict_of(prefix, best, local, rib, config, meter) {
            if verdict.decision != Decision::Accept {
                return verdict.keeps_installed.then_some(FibEntry::Kept);
            }
            metric = verdict.metric.or(metric);
            (tunnel, from) = (verdict.tunnel, verdict.source);
        }
        let (kind, recursion) = match source {
            Source::Bgp => {
                let paths = dests.paths(dest);
                meter.spend(paths.len() as u32 / 2);
                let sharing = rib.sharing(paths);
                next_hops = self.next_hops((prefix, &sharing), best, tunnel, rib, config, meter);
                if let [alone] = next_hops.as_mut_slice() {
                    alone.bandwidth = None;
                }
                let legs = FibNextHop::hops_of_all(&next_hops, |addr| rib.hops_to(addr));
                if legs.len() > max {
                    next_hops.clear();
                } else if config.backup_paths {
                    backup = self.backup((prefix, paths), &next_hops, rib, config, meter);
                }
                next_hops.sort_unstable();
                (FibKind::Unicast(in_order(legs, max)), rib.recursion(&sharing))
            }
            _ => match local?.install.clone()? {
                kind @ FibKind::Unicast(_) => (kind, Recursion::Recursive),
                drops => (drops, Recursion::Direct),
            },
        };
        let forwards = !matches!(&kind, FibKind::Unicast(hops) if hops.is_empty());
        let source = from;
        let route = FibEntry::Route { kind, metric, source, recursion, next_hops, backup };
        forwards.then_some(route)
    }

    /// The next hops of a route: those of every path of the multipath set, each through the tunnel that
    /// the policy sets for it, the best path's first. `tunnel` is that of the best path.
    ///
    /// Differs from BIRD: there, traffic for a route with more than one gateway is sent
    /// unencapsulated into an underlay that has no routes to pods.
    fn next_hops(
        &self,
        (prefix, sharing): (Prefix, &[&Path]),
        best: &Path,
        tunnel: Option<Arc<str>>,
        rib: &LocRib,
        config: &TableConfig,
        meter: &mut Meter,
    ) -> Vec<FibNextHop> {
        let mut next_hops = Vec::with_capacity(sharing.len());
        next_hops.extend(self.through(best, tunnel, rib, config, meter));
        for path in sharing.iter().copied().filter(|path| *path != best) {
            let more = if self.tunnels.is_empty() {
                self.through(path, None, rib, config, meter)
            } else {
                match verdict_of(prefix, path, None, rib, config, meter) {
                    Some(verdict) if verdict.decision != Decision::Accept => continue,
                    verdict => {
                        let tunnel = verdict.and_then(|verdict| verdict.tunnel);
                        self.through(path, tunnel, rib, config, meter)
                    }
                }
            };
            let is_new = |more: &FibNextHop| {
                !next_hops
                    .iter()
                    .any(|n: &FibNextHop| (n.addr, n.tunnel) == (more.addr, more.tunnel))
            };
            next_hops.extend(more.filter(is_new));
        }
        next_hops
    }

    /// The next hop that a route goes to when none of its own is reached: that of the path which is the
    /// best of those with other ones.
    fn backup(
        &self,
        (prefix, paths): (Prefix, &[Path]),
        next_hops: &[FibNextHop],
        rib: &LocRib,
        config: &TableConfig,
        meter: &mut Meter,
    ) -> Option<FibNextHop> {
        meter.spend(paths.len() as u32 / 2);
        let is_of_route = |path: &Path| {
            let addr = rib.hops.hop(path.next_hop).map(NextHop::addr);
            next_hops.iter().any(|next_hop| Some(next_hop.addr) == addr)
        };
        let path = rib.best_but(paths, is_of_route)?;
        if path.source.source() != Source::Bgp {
            return None;
        }
        let tunnel = match verdict_of(prefix, path, None, rib, config, meter) {
            Some(verdict) if verdict.decision != Decision::Accept => return None,
            verdict => verdict.and_then(|verdict| verdict.tunnel),
        };
        // It is alone where it is used.
        let next_hop = self.through(path, tunnel, rib, config, meter)?;
        Some(FibNextHop { bandwidth: None, ..next_hop })
    }

    /// A path's next hop, through the tunnel that policy sets while it exists, with its bandwidth where
    /// that counts.
    fn through(
        &self,
        path: &Path,
        tunnel: Option<Arc<str>>,
        rib: &LocRib,
        config: &TableConfig,
        meter: &mut Meter,
    ) -> Option<FibNextHop> {
        let tunnel = tunnel.and_then(|name| self.tunnels.get(&name).copied());
        let addr = rib.hops.hop(path.next_hop)?.addr();
        Some(FibNextHop { addr, tunnel, bandwidth: bandwidth_of(path, rib, config, meter) })
    }
}

/// The share of traffic that a path asks for, where that counts.
fn bandwidth_of(path: &Path, rib: &LocRib, config: &TableConfig, meter: &mut Meter) -> Option<u64> {
    if config.multipath_weights == MultipathWeights::Equal {
        return None;
    }
    let attrs = rib.attrs.view(path.attrs);
    meter.spend(1 + attrs.as_bytes().len() as u32 / 64);
    attrs.ext_communities().find_map(ExtCommunity::link_bandwidth)
}

/// At most `max` of the hops, sorted. Those of the best path come first, so they are the last to be
/// cut.
fn in_order(mut legs: Vec<Hop>, max: usize) -> Vec<Hop> {
    legs.truncate(max);
    legs.sort_unstable();
    legs.dedup();
    legs
}

/// The verdict of the FIB's policy on a path; `None` if there is no policy.
fn verdict_of(
    prefix: Prefix,
    path: &Path,
    local: Option<&LocalRoute>,
    rib: &LocRib,
    config: &TableConfig,
    meter: &mut Meter,
) -> Option<Verdict> {
    let policy = config.fib_policy.as_deref()?;
    let marked = path.flags.has(PathFlags::LONG_LIVED).then(|| {
        let mut edit = AttrEdit::from_view(rib.attrs.view(path.attrs));
        edit.add_community(Community::LLGR_STALE);
        edit
    });
    let attrs = marked.as_ref().map_or(rib.attrs.view(path.attrs), AttrEdit::view);
    meter.spend(2 + attrs.as_bytes().len() as u32 / 64);
    Some(policy.evaluate(&RouteRef {
        prefix,
        attrs,
        next_hop: rib.hops.hop(path.next_hop),
        source: path.source.source(),
        interface: match local {
            Some(local) => local.interface.as_deref(),
            None => rib.hops.interface(path.next_hop),
        },
        metric: local.and_then(|local| local.metric).or(rib.attrs.local(path.attrs).metric),
        peer_type: rib.sources.get(path.source).map(|facts| facts.peer_type),
        shared_bandwidth: None,
    }))
}
