//! Routes of the Loc-RIB for other tables: those of VRFs that import them.
//!
//! What changes is marked and taken by the host when it has room for it: however often a route changes
//! meanwhile, it is taken once. A route that was imported itself is not offered.

use std::sync::Arc;

use super::Table;
use super::kernel::FibEntry;
use super::marks::Marks;
use super::show::shown_attrs;
use crate::policy::{Decision, Policy, RouteRef, Source};
use crate::rib::{DestId, LocalRoute, WorkSet};
use crate::types::{Community, Family, FamilyMap, FibKind, Hop, NextHop, PeerType, Prefix};
use crate::wire::{AttrEdit, AttrView, attr};

/// The best route of a destination, as another table may import it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Destination.
    pub prefix: Prefix,
    /// Canonical attributes.
    pub attrs: Arc<[u8]>,
    /// Where it came from.
    pub source: Source,
    /// The type of the peer that sent it.
    pub peer_type: Option<PeerType>,
    /// Its next hop, which is resolved in this table.
    pub next_hop: Option<NextHop>,
    /// Interface name, for policies.
    pub interface: Option<Arc<str>>,
    /// Kernel metric, for policies.
    pub metric: Option<u32>,
    /// What the kernel has for it; `None`: nothing that another table could use.
    pub install: Option<FibKind>,
}

impl Offered {
    /// The local route that another table gets by this policy; `None` if the policy rejects it. `from`
    /// names this table.
    ///
    /// The next hop stays behind, because it has no meaning in the other table: the route has the
    /// hops to which it is resolved here, and is announced with our own address. ORIGINATOR_ID and
    /// CLUSTER_LIST go, because the route is not reflected (RFC 4456 §8).
    pub fn import(&self, policy: &Policy, from: &Arc<str>) -> Option<LocalRoute> {
        let attrs = AttrView::new(&self.attrs);
        let verdict = policy.evaluate(&RouteRef {
            prefix: self.prefix,
            attrs,
            next_hop: self.next_hop,
            source: self.source,
            interface: self.interface.as_deref(),
            metric: self.metric,
            peer_type: self.peer_type,
            shared_bandwidth: None,
        });
        if verdict.decision != Decision::Accept {
            return None;
        }
        let mut attrs = verdict.attrs.unwrap_or_else(|| AttrEdit::from_view(attrs));
        attrs.remove_all(&[attr::ORIGINATOR_ID, attr::CLUSTER_LIST]);
        // RFC 9494 §4.3: it stays, so that the route loses to the importing table's own stale ones, too.
        if self.is_stale() {
            attrs.add_community(Community::LLGR_STALE);
        }
        let hops = match &self.install {
            Some(FibKind::Unicast(hops)) => hops.clone(),
            _ => Vec::new(),
        };
        Some(LocalRoute {
            install: self.install.clone(),
            next_hop: None,
            hops,
            interface: self.interface.clone(),
            metric: verdict.metric.or(self.metric),
            attrs: Some(attrs.into_bytes().into()),
            from: Some(Arc::clone(from)),
        })
    }
}

impl Offered {
    fn is_stale(&self) -> bool {
        AttrView::new(&self.attrs).communities().any(|known| known == Community::LLGR_STALE)
    }
}

/// The destinations to be offered.
#[derive(Debug, Default)]
pub(super) struct Leaks {
    is_on: bool,
    marked: Marks,
    /// Those that wait until they are compared with the kernel.
    deferred: FamilyMap<WorkSet>,
}

impl Leaks {
    /// Marks a destination that was decided, or whose kernel route has changed.
    #[inline]
    pub(super) fn mark(&mut self, family: Family, dest: DestId) {
        if self.is_on {
            self.marked.mark(family, dest);
        }
    }

    /// A destination was compared with the kernel.
    #[inline]
    pub(super) fn compared(&mut self, family: Family, dest: DestId, has_changed: bool) {
        if self.is_on && (self.deferred[family].remove(dest.0) || has_changed) {
            self.marked.mark(family, dest);
        }
    }

    pub(super) fn is_done_with(&self, family: Family, dest: DestId) -> bool {
        !self.marked.contains(family, dest) && !self.deferred[family].contains(dest.0)
    }

    pub(super) fn truncate(&mut self, family: Family, slots: u32) {
        self.marked.truncate(family, slots);
        self.deferred[family].truncate(slots);
    }

    fn pop(&mut self) -> Option<(Family, DestId)> {
        Family::ALL.into_iter().find_map(|family| Some((family, self.marked.pop(family)?)))
    }
}

impl Table {
    /// From here on routes are offered to other tables, all of them once more.
    pub fn begin_offers(&mut self) {
        self.leaks.is_on = true;
        self.leaks.marked.mark_all(&self.loc_rib);
    }

    /// No table imports routes of this one any more.
    pub fn end_offers(&mut self) {
        self.leaks = Leaks::default();
    }

    /// The route to a destination is offered once more, if there is one.
    pub fn offer_again(&mut self, prefix: Prefix) {
        if let Some(dest) = self.loc_rib.dests(prefix.family()).find(prefix) {
            self.leaks.mark(prefix.family(), dest);
        }
    }

    /// Whether [`Table::take_offers`] has something to return.
    pub fn has_offers(&self) -> bool {
        !self.leaks.marked.is_empty()
    }

    /// Whether nothing is left to be decided or compared with the kernel.
    pub fn is_decided(&self) -> bool {
        self.loc_rib.is_decided() && !self.kernel.has_work()
    }

    /// Removes and returns changes of what other tables may import: of `max` destinations at most.
    /// `None`: there is no route to the destination, it was imported itself, or the kernel gets nothing
    /// for what peers have sent.
    pub fn take_offers(&mut self, max: usize) -> Vec<(Prefix, Option<Offered>)> {
        let mut offers = Vec::new();
        for _ in 0..max {
            let Some((family, dest)) = self.leaks.pop() else { break };
            if self.loc_rib.dests(family).is_live(dest) {
                // What the kernel has for it is that of an earlier decision.
                if !self.kernel.is_done_with(family, dest) {
                    self.leaks.deferred[family].insert(dest.0);
                    continue;
                }
                let prefix = self.loc_rib.dests(family).prefix(dest);
                offers.push((prefix, self.offered(family, dest, prefix)));
            }
        }
        offers
    }

    fn offered(&self, family: Family, dest: DestId, prefix: Prefix) -> Option<Offered> {
        let rib = &self.loc_rib;
        let best = rib.dests(family).best(dest)?;
        let source = best.source.source();
        let own = match source {
            // What was imported is not passed on: there are no loops between tables.
            Source::Vrf => return None,
            Source::Bgp => None,
            _ => rib.local.get(&(prefix, source)),
        };
        let installed = match self.kernel.entry(rib.dests(family).fib(dest)) {
            Some(FibEntry::Route { kind, .. }) => Some(kind.clone()),
            Some(FibEntry::Kept) | None => None,
        };
        // Traffic that another table draws here with it would be dropped.
        if source == Source::Bgp && self.config.fib_enabled && installed.is_none() {
            return None;
        }
        // Of a redistributed route the kernel has the route itself.
        let of_kernel = |own: &LocalRoute| match own.hops {
            _ if own.install.is_some() => None,
            ref hops if hops.is_empty() => None,
            ref hops => Some(FibKind::Unicast(Vec::<Hop>::clone(hops))),
        };
        Some(Offered {
            prefix,
            attrs: shown_attrs(best, rib.attrs.view(best.attrs)),
            source,
            peer_type: rib.sources.get(best.source).map(|facts| facts.peer_type),
            next_hop: match own {
                Some(own) => own.next_hop.map(NextHop::from),
                None => rib.hops.hop(best.next_hop),
            },
            interface: match own {
                Some(own) => own.interface.clone(),
                None => rib.hops.interface(best.next_hop).map(Arc::from),
            },
            metric: own.and_then(|own| own.metric).or(rib.attrs.local(best.attrs).metric),
            install: installed.or_else(|| own.and_then(of_kernel)),
        })
    }
}
