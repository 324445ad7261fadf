//! Interned route contents: a table of a million routes has few distinct ones.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use bgp_proto::types::{FibKind, FibNextHop, FibRoute, Hop, Prefix};
use slab::Slab;

use crate::counts::Counts;

/// Maximum legs of a multipath route. The kernel's attribute could hold more, but a route with more
/// is a mistake.
pub(crate) const HOPS_MAX: usize = 256;

/// The metric that the kernel gives an IPv6 route without one.
const IPV6_METRIC_DEFAULT: u32 = 1024;

/// A route without its prefix, in the form in which the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteSpec {
    pub(crate) kind: FibKind,
    pub(crate) metric: u32,
    /// Source address of packets from this machine (RTA_PREFSRC).
    pub(crate) source: Option<IpAddr>,
    /// The next-hop object in place of the hops. With an object of ours `kind` has no hops: they
    /// are part of the object and change without the route.
    pub(crate) object: Option<NonZeroU32>,
    /// The BGP next hops from which the hops come. Not known to the kernel; set only if routes use
    /// objects of ours, so that those with the same next hops can be moved together.
    pub(crate) next_hops: Vec<FibNextHop>,
    /// The same: where it goes when none of those is reached.
    pub(crate) backup: Option<FibNextHop>,
    /// It has an attribute that routes of ours never have. Never true of a wanted route.
    pub(crate) altered: bool,
}

/// Defaults for routes that do not set these values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteDefaults {
    /// Metric for both families; `None`: [`METRIC_IPV4`] and [`METRIC_IPV6`].
    pub metric: Option<u32>,
    /// Source address of packets from this machine to IPv4 prefixes.
    pub source_v4: Option<Ipv4Addr>,
    /// Source address of packets from this machine to IPv6 prefixes.
    pub source_v6: Option<Ipv6Addr>,
}

/// Metric of IPv4 routes: worse than that of routes which the kernel and administrators add without
/// one (0).
pub const METRIC_IPV4: u32 = 20;

/// Metric of IPv6 routes: worse by the same amount than the kernel's default (1024), which itself
/// is worse than that of connected networks (256).
pub const METRIC_IPV6: u32 = IPV6_METRIC_DEFAULT + METRIC_IPV4;

impl RouteDefaults {
    fn metric(&self, prefix: Prefix) -> u32 {
        self.metric.unwrap_or(match prefix {
            Prefix::V4(_) => METRIC_IPV4,
            Prefix::V6(_) => METRIC_IPV6,
        })
    }

    fn source(&self, prefix: Prefix) -> Option<IpAddr> {
        match prefix {
            Prefix::V4(_) => self.source_v4.map(IpAddr::from),
            Prefix::V6(_) => self.source_v6.map(IpAddr::from),
        }
    }
}

impl RouteSpec {
    /// The content to request from the kernel for `route`. Normalised such that it reads back
    /// equal, except for `next_hops`.
    pub(crate) fn wanted(prefix: Prefix, route: FibRoute, defaults: &RouteDefaults) -> RouteSpec {
        let FibRoute { mut kind, metric, source, next_hops, backup, .. } = route;
        let mut source = source.or_else(|| defaults.source(prefix));
        match &mut kind {
            FibKind::Unicast(hops) => bring_in_order(hops),
            // Such a route sends no packets, so it needs no source address.
            FibKind::Blackhole | FibKind::Unreachable => source = None,
        }
        let metric = metric.unwrap_or_else(|| defaults.metric(prefix));
        let metric = match prefix {
            Prefix::V6(_) if metric == 0 => IPV6_METRIC_DEFAULT,
            _ => metric,
        };
        RouteSpec { source, next_hops, backup, ..RouteSpec::new(kind, metric) }
    }

    /// A content without optional fields.
    pub(crate) fn new(kind: FibKind, metric: u32) -> RouteSpec {
        let (source, object, next_hops, backup) = (None, None, Vec::new(), None);
        RouteSpec { kind, metric, source, object, next_hops, backup, altered: false }
    }

    /// The same content with other hops.
    pub(crate) fn with_hops(&self, hops: &[Hop]) -> RouteSpec {
        RouteSpec { kind: FibKind::Unicast(hops.to_vec()), ..self.clone() }
    }

    /// The BGP next hops that it may come to rest on.
    pub(crate) fn all_next_hops(&self) -> impl Iterator<Item = IpAddr> {
        self.next_hops.iter().chain(&self.backup).map(|next_hop| next_hop.addr)
    }

    /// The legs of a unicast route.
    pub(crate) fn hops(&self) -> &[Hop] {
        match &self.kind {
            FibKind::Unicast(hops) => hops,
            FibKind::Blackhole | FibKind::Unreachable => &[],
        }
    }

    /// Whether the two are equal to the kernel.
    pub(crate) fn is_same_route(&self, other: &RouteSpec) -> bool {
        let RouteSpec { kind, metric, source, object, next_hops: _, backup: _, altered } = self;
        (kind, metric, source) == (&other.kind, &other.metric, &other.source)
            && (object, altered) == (&other.object, &other.altered)
    }

    /// Why the kernel would refuse the route in any case; `None` if it has to be asked.
    pub(crate) fn defect(&self) -> Option<&'static str> {
        let FibKind::Unicast(hops) = &self.kind else { return None };
        if self.object.is_some() {
            None
        } else if hops.is_empty() {
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

/// Sorts legs, removes duplicates, and normalises the weight of a single leg, which has no meaning.
pub(crate) fn bring_in_order(hops: &mut Vec<Hop>) {
    hops.sort_unstable();
    // IPv6 refuses duplicate legs.
    hops.dedup_by_key(|hop| (hop.gateway, hop.ifindex));
    if let [hop] = hops.as_mut_slice() {
        hop.weight = 1;
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

/// The interned contents, with the number of uses of each.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    slots: Slab<Slot>,
    /// Ids without uses that are not recycled yet.
    freed: Vec<SpecId>,
    index: HashMap<Arc<RouteSpec>, SpecId, foldhash::fast::RandomState>,
    /// The latest interned one: consecutive routes tend to have the same content.
    latest: Option<SpecId>,
    /// Number of contents with a leg over each interface, or with each source address.
    interfaces: Counts<u32>,
    sources: Counts<IpAddr>,
    /// Number of contents over each next-hop object.
    objects: Counts<NonZeroU32>,
    /// Objects whose number became 0.
    unused_objects: Vec<NonZeroU32>,
}

#[derive(Debug)]
struct Slot {
    spec: Arc<RouteSpec>,
    uses: u32,
}

impl Specs {
    /// The id of `spec`; counts one more use.
    pub(crate) fn intern(&mut self, spec: RouteSpec) -> SpecId {
        // An id without uses is about to be recycled.
        let is_same = |id: &SpecId| {
            let slot = self.slots.get(id.index());
            slot.is_some_and(|slot| slot.uses > 0 && *slot.spec == spec)
        };
        let known = self.latest.filter(is_same).or_else(|| self.index.get(&spec).copied());
        if let Some(id) = known {
            self.retain(id);
            self.latest = known;
            return id;
        }
        let spec = Arc::new(spec);
        spec.hops().iter().for_each(|hop| self.interfaces.add(hop.ifindex));
        spec.source.into_iter().for_each(|source| self.sources.add(source));
        spec.object.into_iter().for_each(|object| self.objects.add(object));
        let slot = Slot { spec: Arc::clone(&spec), uses: 1 };
        let id = SpecId::from_index(self.slots.insert(slot));
        self.index.insert(spec, id);
        id
    }

    /// Counts one more use.
    pub(crate) fn retain(&mut self, id: SpecId) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.uses += 1;
        }
    }

    /// Counts one use less. After the last one, the id is unused until it is recycled.
    pub(crate) fn release(&mut self, id: SpecId) {
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.uses > 0);
        let Some(slot) = slot else { return };
        slot.uses -= 1;
        if slot.uses > 0 {
            return;
        }
        let spec = &slot.spec;
        spec.hops().iter().for_each(|hop| self.interfaces.remove(hop.ifindex));
        spec.source.into_iter().for_each(|source| self.sources.remove(source));
        if let Some(object) = spec.object {
            self.objects.remove(object);
            if !self.objects.has(&object) {
                self.unused_objects.push(object);
            }
        }
        self.index.remove(spec);
        self.freed.push(id);
    }

    /// Changes the hops of a content but not its id, so that everything that holds the id follows.
    /// The result must not equal another content.
    pub(crate) fn move_to(&mut self, id: SpecId, hops: &[Hop]) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let before = Arc::clone(&slot.spec);
        let after = Arc::new(before.with_hops(hops));
        slot.spec = Arc::clone(&after);
        before.hops().iter().for_each(|hop| self.interfaces.remove(hop.ifindex));
        after.hops().iter().for_each(|hop| self.interfaces.add(hop.ifindex));
        self.index.remove(&before);
        self.index.insert(after, id);
    }

    /// Whether this content is interned.
    pub(crate) fn has(&self, spec: &RouteSpec) -> bool {
        self.index.contains_key(spec)
    }

    /// Whether any route uses the object.
    pub(crate) fn use_object(&self, object: NonZeroU32) -> bool {
        self.objects.has(&object)
    }

    /// Objects that lost their last use since the previous call. Some of them may be in use again.
    pub(crate) fn take_unused_objects(&mut self) -> Vec<NonZeroU32> {
        std::mem::take(&mut self.unused_objects)
    }

    /// An id without uses; whatever is stored under it must be removed before it is recycled.
    pub(crate) fn take_freed(&mut self) -> Option<SpecId> {
        self.freed.pop()
    }

    /// Allows the id to be reused for another content.
    pub(crate) fn recycle(&mut self, id: SpecId) {
        self.slots.try_remove(id.index());
    }

    /// The content.
    pub(crate) fn get(&self, id: SpecId) -> &Arc<RouteSpec> {
        let slot = self.slots.get(id.index());
        &slot.expect("a SpecId is counted as a use for as long as anything holds it").spec
    }

    /// The ids of the contents in use that are selected.
    pub(crate) fn select(&self, selects: impl Fn(&RouteSpec) -> bool) -> BTreeSet<SpecId> {
        let chosen = self.used().filter(|(_, slot)| selects(&slot.spec));
        chosen.map(|(index, _)| SpecId::from_index(index)).collect()
    }

    /// The BGP next hops of all contents.
    pub(crate) fn next_hops(&self) -> BTreeSet<IpAddr> {
        self.used().flat_map(|(_, slot)| slot.spec.all_next_hops()).collect()
    }

    fn used(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().filter(|(_, slot)| slot.uses > 0)
    }

    /// Whether any route uses the interface.
    pub(crate) fn use_interface(&self, ifindex: u32) -> bool {
        self.interfaces.has(&ifindex)
    }

    /// Whether any route has the source address.
    pub(crate) fn use_source(&self, addr: IpAddr) -> bool {
        self.sources.has(&addr)
    }

    /// Number of distinct contents.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_lost_its_last_use_is_interned_again() {
        let mut specs = Specs::default();
        let blackhole = || RouteSpec::new(FibKind::Blackhole, 20);
        let first = specs.intern(blackhole());
        assert_eq!(specs.intern(blackhole()), first);
        specs.release(first);
        specs.release(first);
        // What is stored under the first id is removed before it is recycled and reused.
        let second = specs.intern(blackhole());
        assert_ne!(second, first);
        assert_eq!((specs.take_freed(), specs.len()), (Some(first), 1));
        assert_eq!(specs.intern(blackhole()), second);
    }
}
