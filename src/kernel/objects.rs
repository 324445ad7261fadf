//! The kernel's next-hop objects, whoever created them, and the hops of routes that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;

use bgp_proto::types::Hop;
use smallvec::SmallVec;

use super::message::{self, KernelKind, KernelRoute, Object, ObjectKind, ObjectOp, ObjectRequest};
use super::netlink::{DumpEnd, RequestSocket};

/// All next-hop objects. Kernels before 5.3 do not support them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects {
    objects: BTreeMap<NonZeroU32, Object>,
}

impl Objects {
    /// Dumps the objects, again while a dump is interrupted, at most three times; `None` if the
    /// kernel does not support them.
    pub(super) fn read(requests: &mut RequestSocket) -> io::Result<Option<Objects>> {
        const ATTEMPTS: usize = 3;
        let unsupported = rustix::io::Errno::OPNOTSUPP.raw_os_error();
        let mut objects = Objects::default();
        for _ in 0..ATTEMPTS {
            objects = Objects::default();
            let end = requests.dump(message::push_object_dump, |header, body| {
                if header.kind == message::RTM_NEWNEXTHOP
                    && let Some(object) = message::parse_object(body)
                {
                    objects.handle_new(object);
                }
            });
            match end {
                Ok(DumpEnd::Complete) => break,
                Ok(DumpEnd::Interrupted) => {}
                Err(error) if error.raw_os_error() == Some(unsupported) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(objects))
    }

    /// RTM_NEWNEXTHOP. Returns the objects whose routes may have changed: the object and the groups
    /// that contain it; none if the object is already known.
    pub(super) fn handle_new(&mut self, object: Object) -> BTreeSet<NonZeroU32> {
        let id = object.id;
        if self.objects.get(&id) == Some(&object) {
            return BTreeSet::new();
        }
        self.objects.insert(id, object);
        let mut touched: BTreeSet<NonZeroU32> = self.groups_of(id).collect();
        touched.insert(id);
        touched
    }

    /// RTM_DELNEXTHOP. The kernel removes the object from its groups, and deletes groups that
    /// become empty. Returns the objects whose routes may have changed.
    pub(super) fn handle_gone(&mut self, id: NonZeroU32) -> BTreeSet<NonZeroU32> {
        let mut touched = BTreeSet::new();
        if self.objects.remove(&id).is_none() {
            return touched;
        }
        touched.insert(id);
        let groups: Vec<NonZeroU32> = self.groups_of(id).collect();
        for group in groups {
            touched.insert(group);
            let Some(object) = self.objects.get_mut(&group) else { continue };
            let ObjectKind::Group(members) = &mut object.kind else { continue };
            members.retain(|(member, _)| *member != id);
            if members.is_empty() {
                self.objects.remove(&group);
            }
        }
        touched
    }

    /// An interface went down or lost its carrier: the kernel deletes the objects over it without
    /// an event. Returns the objects whose routes may have changed.
    pub(super) fn handle_interface_lost(&mut self, ifindex: u32) -> BTreeSet<NonZeroU32> {
        let over = self.objects.values().filter(|object| match &object.kind {
            ObjectKind::Hop(hop) => hop.ifindex == ifindex,
            _ => false,
        });
        let lost: Vec<NonZeroU32> = over.map(|object| object.id).collect();
        lost.into_iter().flat_map(|id| self.handle_gone(id)).collect()
    }

    /// A request of ours succeeded.
    pub(super) fn apply(&mut self, op: &ObjectOp, protocol: u8) {
        match &op.request {
            ObjectRequest::Add(kind) | ObjectRequest::Replace(kind) => {
                self.handle_new(Object { id: op.id, protocol, kind: kind.clone() });
            }
            ObjectRequest::Delete => drop(self.handle_gone(op.id)),
        }
    }

    /// All objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The object with this id.
    pub(super) fn get(&self, id: NonZeroU32) -> Option<&Object> {
        self.objects.get(&id)
    }

    /// Replaces the hops of a route by those of its object. A route whose object is not known gets
    /// none: it is about to be deleted.
    pub(super) fn expand(&self, route: &mut KernelRoute) {
        let Some(id) = route.object else { return };
        let forwards = matches!(route.kind, KernelKind::Unicast | KernelKind::Blackhole);
        if !forwards {
            return;
        }
        route.hops.clear();
        route.kind = KernelKind::Unicast;
        match self.objects.get(&id).map(|object| &object.kind) {
            Some(ObjectKind::Hop(hop)) => route.hops.push(*hop),
            Some(ObjectKind::Blackhole) => route.kind = KernelKind::Blackhole,
            Some(ObjectKind::Group(members)) => route.hops = self.legs(members),
            Some(ObjectKind::Other) => route.kind = KernelKind::Encapsulated,
            None => {}
        }
        route.hops.sort_unstable();
    }

    /// The hops of a group. The kernel does not allow groups in groups.
    fn legs(&self, members: &[(NonZeroU32, u16)]) -> SmallVec<[Hop; 1]> {
        let legs = members.iter().filter_map(|(id, weight)| match &self.objects.get(id)?.kind {
            ObjectKind::Hop(hop) => Some(Hop { weight: *weight, ..*hop }),
            _ => None,
        });
        legs.collect()
    }

    fn groups_of(&self, id: NonZeroU32) -> impl Iterator<Item = NonZeroU32> {
        let holds = move |object: &&Object| match &object.kind {
            ObjectKind::Group(members) => members.iter().any(|(member, _)| *member == id),
            _ => false,
        };
        self.objects.values().filter(holds).map(|object| object.id)
    }
}

#[cfg(test)]
mod tests;
