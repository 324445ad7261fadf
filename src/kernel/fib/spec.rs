//! Route contents, interned: a table of a million routes has few distinct ones.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bgp_proto::types::{FibKind, FibRoute, Prefix};

/// Legs of one multipath route. The kernel's attribute would hold more; a route with more is an
/// accident.
const HOPS_MAX: usize = 256;

/// The metric that the kernel gives an IPv6 route without one.
const IPV6_METRIC_DEFAULT: u32 = 1024;

/// Everything of a route but its prefix, in the form in which the kernel gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteSpec {
    pub(crate) kind: FibKind,
    pub(crate) metric: u32,
}

impl RouteSpec {
    /// What to ask of the kernel for `route`, such that equal routes read back equal.
    pub(crate) fn wanted(prefix: Prefix, route: FibRoute, metric_default: u32) -> RouteSpec {
        let FibRoute { mut kind, metric, .. } = route;
        if let FibKind::Unicast(hops) = &mut kind {
            hops.sort_unstable();
            // IPv6 refuses a leg that is there already.
            hops.dedup_by_key(|hop| (hop.gateway, hop.ifindex));
            if let [hop] = hops.as_mut_slice() {
                hop.weight = 1;
            }
        }
        let metric = metric.unwrap_or(metric_default);
        let metric = match prefix {
            Prefix::V6(_) if metric == 0 => IPV6_METRIC_DEFAULT,
            _ => metric,
        };
        RouteSpec { kind, metric }
    }

    /// Why the kernel need not even be asked.
    pub(crate) fn defect(&self) -> Option<&'static str> {
        let FibKind::Unicast(hops) = &self.kind else { return None };
        if hops.is_empty() {
            Some("the route has no next hop")
        } else if hops.len() > HOPS_MAX {
            Some("the route has more than 256 next hops")
        } else if hops.iter().any(|hop| hop.ifindex == 0) {
            Some("a next hop has no interface")
        } else {
            None
        }
    }
}

/// Number of an interned [`RouteSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpecId(NonZeroU32);

impl SpecId {
    fn from_index(index: usize) -> SpecId {
        let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        SpecId(NonZeroU32::MIN.saturating_add(number - 1))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The interned contents, with a count of the entries that use each.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    slots: Vec<Option<Slot>>,
    free: Vec<SpecId>,
    index: HashMap<Arc<RouteSpec>, SpecId>,
}

#[derive(Debug)]
struct Slot {
    spec: Arc<RouteSpec>,
    uses: u32,
}

impl Specs {
    /// The number of `spec`, counted as one more use.
    pub(crate) fn intern(&mut self, spec: RouteSpec) -> SpecId {
        if let Some(&id) = self.index.get(&spec) {
            self.retain(id);
            return id;
        }
        let spec = Arc::new(spec);
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            SpecId::from_index(self.slots.len() - 1)
        });
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = Some(Slot { spec: Arc::clone(&spec), uses: 1 });
        }
        self.index.insert(spec, id);
        id
    }

    /// One more use.
    pub(crate) fn retain(&mut self, id: SpecId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.index()) {
            slot.uses += 1;
        }
    }

    /// One use less; whether it was the last.
    pub(crate) fn release(&mut self, id: SpecId) -> bool {
        let Some(place) = self.slots.get_mut(id.index()) else { return false };
        let Some(slot) = place else { return false };
        slot.uses -= 1;
        if slot.uses > 0 {
            return false;
        }
        self.index.remove(&slot.spec);
        *place = None;
        self.free.push(id);
        true
    }

    /// The content.
    pub(crate) fn get(&self, id: SpecId) -> &Arc<RouteSpec> {
        let slot = self.slots.get(id.index()).and_then(Option::as_ref);
        &slot.expect("a SpecId is counted as a use for as long as anything holds it").spec
    }

    /// Whether any route goes out of the interface.
    pub(crate) fn use_interface(&self, ifindex: u32) -> bool {
        self.slots.iter().flatten().any(|slot| match &slot.spec.kind {
            FibKind::Unicast(hops) => hops.iter().any(|hop| hop.ifindex == ifindex),
            FibKind::Blackhole | FibKind::Unreachable => false,
        })
    }

    /// How many are distinct.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}
