//! What the kernel should hold, and what of it changed since the host was last told.

use std::collections::BTreeMap;

use super::Table;
use crate::policy::{Decision, RouteRef, Source};
use crate::rib::{DestId, NextHopState, Path, select_multipath};
use crate::types::{Family, FibKind, FibRoute, Hop, Prefix};

/// A kernel route without its prefix.
pub(super) type FibEntry = (FibKind, Option<u32>);

/// Kernel routes that the host was told, each once; 0 is "no route".
#[derive(Default)]
pub(super) struct FibTable {
    /// Entry `n` has id `n + 1`.
    entries: Vec<(FibEntry, u32)>,
    index: BTreeMap<FibEntry, u32>,
    free: Vec<u32>,
}

impl FibTable {
    fn intern(&mut self, entry: Option<FibEntry>) -> u32 {
        let Some(entry) = entry else { return 0 };
        if let Some(id) = self.index.get(&entry) {
            self.entries[*id as usize - 1].1 += 1;
            return *id;
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize - 1] = (entry.clone(), 1);
                id
            }
            None => {
                self.entries.push((entry.clone(), 1));
                self.entries.len() as u32
            }
        };
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
            self.free.push(id);
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&FibEntry> {
        (id != 0).then(|| &self.entries[id as usize - 1].0)
    }
}

impl Table {
    /// See [`Table::poll_fib`].
    pub(super) fn take_fib_changes(&mut self, max: usize) -> Vec<(Prefix, Option<FibRoute>)> {
        let mut changes = Vec::new();
        for family in Family::ALL {
            while changes.len() < max {
                let rib = self.rib_mut(family);
                let next = rib.fib_dirty.next_from(rib.fib_at);
                let Some(id) = next.or_else(|| rib.fib_dirty.next_from(0)) else { break };
                rib.fib_at = id.saturating_add(1);
                rib.fib_dirty.remove(id);
                changes.extend(self.settle_fib(family, DestId(id)));
            }
        }
        changes
    }

    /// What the host is to be told about one destination, if it differs from what it was told.
    fn settle_fib(&mut self, family: Family, dest: DestId) -> Option<(Prefix, Option<FibRoute>)> {
        if !self.rib(family).dests.is_live(dest) {
            return None;
        }
        let entry = self.desired_fib(family, dest);
        let id = self.fib.intern(entry);
        let told = self.rib(family).dests.fib(dest);
        if id == told {
            self.fib.release(id);
            return None;
        }
        self.rib_mut(family).dests.set_fib(dest, id);
        self.fib.release(told);
        let prefix = self.rib(family).dests.prefix(dest);
        let route = self.fib.get(id).map(|(kind, metric)| FibRoute {
            prefix,
            kind: kind.clone(),
            metric: *metric,
        });
        Some((prefix, route))
    }

    /// Every destination is compared again.
    pub(super) fn mark_fib_dirty(&mut self) {
        for rib in &mut self.ribs {
            for id in 0..rib.dests.slots() {
                if rib.dests.is_live(DestId(id)) {
                    rib.fib_dirty.insert(id);
                }
            }
        }
    }

    fn desired_fib(&self, family: Family, dest: DestId) -> Option<FibEntry> {
        if !self.config.fib_enabled {
            return None;
        }
        let dests = &self.rib(family).dests;
        let best = dests.best(dest)?;
        let source = best.source.source();
        let prefix = dests.prefix(dest);
        let own = self.own.get(&(prefix, source)).filter(|_| source != Source::Bgp);
        let mut metric = self.attrs.local(best.attrs).metric;
        let mut tunnel = None;
        if let Some(policy) = &self.config.fib_policy {
            let verdict = policy.evaluate(&RouteRef {
                prefix,
                attrs: self.attrs.view(best.attrs),
                next_hop: self.hops.hop(best.next_hop),
                source,
                interface: match own {
                    Some(own) => own.interface.as_deref(),
                    None => self.hops.interface(best.next_hop),
                },
                metric: own.and_then(|own| own.metric).or(metric),
                peer_type: self.sources.get(best.source).map(|facts| facts.peer_type),
            });
            if verdict.decision != Decision::Accept {
                return None;
            }
            metric = verdict.metric.or(metric);
            tunnel = verdict.tunnel;
        }
        let kind = match source {
            Source::Bgp => {
                let hops = self.merged_hops(dests.paths(dest));
                let tunnelled = tunnel.and_then(|name| self.through_tunnel(&name, best, &hops));
                FibKind::Unicast(tunnelled.map_or(hops, |hop| vec![hop]))
            }
            _ => own?.install.clone()?,
        };
        (!matches!(&kind, FibKind::Unicast(hops) if hops.is_empty())).then_some((kind, metric))
    }

    /// The way through a tunnel: the BGP next hop itself, on the tunnel's link. Only a route with
    /// one gateway takes it, and only while the tunnel exists.
    fn through_tunnel(&self, name: &str, best: &Path, hops: &[Hop]) -> Option<Hop> {
        let ifindex = *self.tunnels.get(name)?;
        let [_] = hops else { return None };
        let gateway = self.hops.hop(best.next_hop)?.addr();
        Some(Hop { gateway: Some(gateway), ifindex, onlink: true, weight: 1 })
    }

    /// Positions of the paths that share the traffic, best first.
    pub(super) fn multipath(&self, paths: &[Path]) -> Vec<usize> {
        let candidates = self.sources.candidates(paths, &self.attrs, &self.hops);
        let mut equal = select_multipath(&candidates);
        equal.truncate(self.config.multipath_max.max(1));
        equal.into_iter().map(|at| candidates[at].0).collect()
    }

    fn merged_hops(&self, paths: &[Path]) -> Vec<Hop> {
        let hops_of = |path: &Path| match self.hops.state(path.next_hop) {
            Some(NextHopState::Via { hops, .. }) => hops.as_slice(),
            _ => &[],
        };
        let mut merged: Vec<Hop> = match paths {
            [path] => hops_of(path).to_vec(),
            _ => {
                let mut merged: Vec<Hop> = Vec::new();
                for at in self.multipath(paths) {
                    for hop in hops_of(&paths[at]) {
                        if !merged.contains(hop) {
                            merged.push(*hop);
                        }
                    }
                }
                merged
            }
        };
        // The best path's hops come first, so they are never the ones that are cut.
        merged.truncate(self.config.multipath_max.max(1));
        merged.sort_unstable();
        merged.dedup();
        merged
    }
}
