//! Next-hop objects of the model kernel, and a model of the table that resolves BGP next hops.

use std::num::NonZeroU32;

use super::*;
use crate::kernel::message::{Object, ObjectKind, ObjectRequest};
use crate::kernel::spec::bring_in_order;
use bgp_proto::types::FibNextHop;

const EINVAL: i32 = 22;
const ENOENT: i32 = 2;

/// BGP next hops; the last one is behind a tunnel.
pub(super) const NEXT_HOPS: usize = 3;

/// The bit of a prefix that has a backup.
const BACKUP: u8 = 8;

/// A table with BGP next hops: it learns later than the plan how they resolve, and submits later
/// still.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Changes of next hop `n` that the plan knows and the table does not know yet.
    said: VecDeque<(usize, u8)>,
    /// The gateways that the table knows; 0: unreachable.
    heard: [Option<u8>; NEXT_HOPS],
    /// The next hops of a prefix, as bits, including that for a backup, and whether the metric is
    /// the low one.
    pub(super) wishes: BTreeMap<Prefix, (u8, bool)>,
    submitted: BTreeMap<Prefix, RouteSpec>,
}

impl Model {
    /// Executes a request as the kernel does; the caller passes events on to the plan.
    pub(super) fn execute_object(
        &mut self,
        op: &ObjectOp,
        installed: &BTreeSet<(Prefix, u32)>,
    ) -> Result<(), i32> {
        if let Some(errno) = self.failing.pop_front() {
            return Err(errno);
        }
        let known = self.objects.get(&op.id);
        if let (ObjectRequest::Replace(_) | ObjectRequest::Delete, Some(object)) =
            (&op.request, known)
        {
            assert_eq!(object.protocol, PROTOCOL, "{op:?}: another program's object");
        }
        match (&op.request, known) {
            (ObjectRequest::Add(_), Some(_)) => Err(EEXIST),
            (ObjectRequest::Replace(new), Some(old))
                if std::mem::discriminant(new) != std::mem::discriminant(&old.kind) =>
            {
                Err(EINVAL)
            }
            (ObjectRequest::Add(kind) | ObjectRequest::Replace(kind), _) => {
                let is_taken = match kind {
                    ObjectKind::Hop(hop) => !self.refused.contains(&octet(hop)),
                    ObjectKind::Group(members) => {
                        !members.is_empty() && members.iter().all(|(id, _)| self.is_hop(*id))
                    }
                    _ => false,
                };
                if !is_taken {
                    return Err(EINVAL);
                }
                let object = Object { id: op.id, protocol: PROTOCOL, kind: kind.clone() };
                self.objects.insert(op.id, object);
                Ok(())
            }
            (ObjectRequest::Delete, None) => Err(ENOENT),
            (ObjectRequest::Delete, Some(_)) => {
                let lost = self.delete_object(op.id);
                // A stray would have been deleted in any case.
                let lost: Vec<_> = lost.iter().filter(|place| installed.contains(place)).collect();
                assert!(lost.is_empty(), "{op:?} deleted the routes {lost:?}");
                Ok(())
            }
        }
    }

    fn is_hop(&self, id: NonZeroU32) -> bool {
        self.objects.get(&id).is_some_and(|object| matches!(object.kind, ObjectKind::Hop(_)))
    }

    /// Deletes an object; returns the routes deleted with it.
    pub(super) fn delete_object(&mut self, id: NonZeroU32) -> Vec<(Prefix, u32)> {
        self.objects.remove(&id);
        let mut gone = vec![id];
        for (group, object) in &mut self.objects {
            if let ObjectKind::Group(members) = &mut object.kind {
                members.retain(|(member, _)| *member != id);
                gone.extend(members.is_empty().then_some(*group));
            }
        }
        gone.iter().for_each(|id| drop(self.objects.remove(id)));
        let over = |owner: &Owner| match owner {
            Owner::Ours(spec) => spec.object.is_some_and(|object| gone.contains(&object)),
            Owner::Foreign => false,
        };
        let lost: Vec<(Prefix, u32)> =
            self.routes.iter().filter(|(_, owner)| over(owner)).map(|(place, _)| *place).collect();
        lost.iter().for_each(|place| drop(self.routes.remove(place)));
        lost
    }

    /// A route with the hops of its object.
    pub(super) fn expanded(&self, spec: &RouteSpec) -> RouteSpec {
        let Some(object) = spec.object else { return spec.clone() };
        let Some(ObjectKind::Group(members)) = self.objects.get(&object).map(|o| &o.kind) else {
            panic!("{spec:?} goes over nothing");
        };
        let hops = members.iter().map(|(id, weight)| match &self.objects[id].kind {
            ObjectKind::Hop(hop) => Hop { weight: *weight, ..*hop },
            kind => panic!("{kind:?} is in a group"),
        });
        let mut hops: Vec<Hop> = hops.collect();
        hops.sort_unstable();
        spec.with_hops(&hops)
    }

    /// The `n`th object of ours.
    fn object(&self, n: usize) -> Option<NonZeroU32> {
        let ours: Vec<NonZeroU32> = self
            .objects
            .values()
            .filter(|object| object.protocol == PROTOCOL)
            .map(|object| object.id)
            .collect();
        (!ours.is_empty()).then(|| ours[n % ours.len()])
    }
}

impl World {
    /// Executes the plan's requests for objects.
    pub(super) fn write_objects(&mut self, answered: bool) -> usize {
        let mut asked = 0;
        let Plan { v4, v6, shared, .. } = &self.plan;
        let v4 = v4.entries.iter().map(|(key, entry)| (Prefix::V4(*key), entry.installed));
        let v6 = v6.entries.iter().map(|(key, entry)| (Prefix::V6(*key), entry.installed));
        let installed = v4
            .chain(v6)
            .filter_map(|(prefix, installed)| Some((prefix, shared.specs.get(installed?).metric)));
        let installed: BTreeSet<(Prefix, u32)> = installed.collect();
        for _ in 0..8 {
            let ops = self.plan.poll_objects();
            if ops.is_empty() {
                break;
            }
            asked += ops.len();
            let mut refused = Vec::new();
            for (index, op) in ops.iter().enumerate() {
                if let Err(errno) = self.model.execute_object(op, &installed) {
                    refused.push(Refused { index, errno, text: format!("errno {errno}") });
                }
            }
            if !answered {
                self.plan.handle_objects_unanswered();
                break;
            }
            self.plan.handle_object_answers(&ops, &refused, self.now);
        }
        asked
    }

    /// Passes the objects of a dump to the plan.
    pub(super) fn tell_objects(&mut self) {
        self.plan.handle_objects_read(self.model.objects.values(), DumpEnd::Complete);
    }

    /// Another process deletes an object of ours, with its routes.
    pub(super) fn lose_object(&mut self, which: usize, heard: bool) {
        let Some(id) = self.model.object(which) else { return };
        self.change_objects(heard, |model| {
            model.delete_object(id);
        });
    }

    /// Another process changes the gateway of a leg, or removes legs from a group.
    pub(super) fn meddle_with_object(&mut self, which: usize, heard: bool) {
        let Some(id) = self.model.object(which) else { return };
        self.change_objects(heard, |model| match model.objects.get_mut(&id) {
            Some(Object { kind: ObjectKind::Hop(hop), .. }) => *hop = via(9, 0).hops()[0],
            Some(Object { kind: ObjectKind::Group(members), .. }) => members.truncate(1),
            _ => {}
        });
    }

    /// Another process creates an object with the next id. The event is always received: nothing
    /// could protect an object whose creation is unknown.
    pub(super) fn take_id(&mut self) {
        let first = *ids_of_table(TABLE).start();
        let mut ids = (first..).filter_map(NonZeroU32::new);
        let kind = ObjectKind::Blackhole;
        self.change_objects(true, |model| {
            if let Some(id) = ids.find(|id| !model.objects.contains_key(id)) {
                model.objects.insert(id, Object { id, protocol: PROTOCOL + 1, kind });
            }
        });
    }

    fn change_objects(&mut self, heard: bool, change: impl FnOnce(&mut Model)) {
        let before = self.model.objects.clone();
        change(&mut self.model);
        if !heard {
            return;
        }
        let ids = before.keys().chain(self.model.objects.keys());
        let touched: BTreeSet<NonZeroU32> =
            ids.filter(|id| before.get(id) != self.model.objects.get(id)).copied().collect();
        for id in &touched {
            self.plan.handle_object(*id, self.model.objects.get(id), self.now);
        }
        self.reading_due |= self.plan.uses_objects(&touched);
    }

    /// The process is killed and restarted.
    pub(super) fn restart(&mut self, form: NextHopForm) {
        self.form = form;
        self.plan = Plan::new(TABLE, PROTOCOL, form);
        let wanted: Vec<(Prefix, RouteSpec)> =
            self.wanted.iter().map(|(prefix, spec)| (*prefix, spec.clone())).collect();
        for (prefix, spec) in wanted {
            if !self.table.wishes.contains_key(&prefix) {
                self.plan.want(prefix, super::wanted(spec));
            }
        }
        self.reading_due = true;
        self.table.submitted.clear();
        while self.table_hears() {}
        for n in 0..NEXT_HOPS {
            self.table.heard[n].into_iter().for_each(|gateway| self.say(n, gateway));
        }
    }

    fn next_hop(n: usize) -> FibNextHop {
        let tunnel = (n == NEXT_HOPS - 1).then_some(9);
        let addr = std::net::IpAddr::from([192, 0, 2, 1 + n as u8]);
        FibNextHop { tunnel, ..addr.into() }
    }

    /// The hops over gateway `n`; 0: none. One has a weight, which matters only beside others.
    fn hops(gateway: u8) -> Vec<Hop> {
        let weight = if gateway == 4 { 5 } else { 1 };
        let with_weight = |hop: &Hop| Hop { weight, ..*hop };
        match gateway {
            0 => Vec::new(),
            _ => via(gateway, 0).hops().iter().map(with_weight).collect(),
        }
    }

    fn say(&mut self, n: usize, gateway: u8) {
        self.plan.handle_next_hop(World::next_hop(n).addr, &World::hops(gateway));
    }

    /// A next hop resolves differently, or becomes unreachable; the table learns of it later.
    pub(super) fn resolve(&mut self, n: usize, gateway: u8) {
        self.say(n, gateway);
        self.table.said.push_back((n, gateway));
    }

    pub(super) fn table_hears(&mut self) -> bool {
        let Some((n, gateway)) = self.table.said.pop_front() else { return false };
        self.table.heard[n] = Some(gateway);
        true
    }

    /// The table computes the route to a prefix, and submits it if it differs from the last one.
    pub(super) fn table_compares(&mut self, prefix: Prefix) {
        let Some((bits, low)) = self.table.wishes.get(&prefix).copied() else { return };
        let heard = self.table.heard.map(|gateway| World::hops(gateway.unwrap_or(0)));
        let reached = (0..NEXT_HOPS).filter(|n| !heard[*n].is_empty());
        let (mut chosen, mut others): (Vec<usize>, Vec<usize>) =
            reached.partition(|n| bits & 1 << n != 0);
        others.truncate(if bits & BACKUP != 0 { 1 } else { 0 });
        if chosen.is_empty() {
            chosen.append(&mut others);
        }
        let mut hops: Vec<Hop> = Vec::new();
        for n in chosen.iter().copied() {
            match World::next_hop(n) {
                FibNextHop { addr, tunnel: Some(ifindex), .. } => {
                    let gateway = Some(addr);
                    hops.push(Hop { gateway, ifindex, onlink: true, weight: 1 });
                }
                _ => hops.extend(&heard[n]),
            }
        }
        bring_in_order(&mut hops);
        if hops.is_empty() {
            self.plan.want(prefix, None);
            self.wanted.remove(&prefix);
            self.table.submitted.remove(&prefix);
            return;
        }
        let mut spec = RouteSpec::new(FibKind::Unicast(hops), World::metric(prefix, low));
        if self.form == NextHopForm::Objects {
            spec.next_hops = chosen.into_iter().map(World::next_hop).collect();
            spec.backup = others.into_iter().map(World::next_hop).next();
        }
        if self.table.submitted.get(&prefix) != Some(&spec) {
            self.plan.want(prefix, super::wanted(spec.clone()));
            let next_hops = Vec::new();
            self.wanted.insert(prefix, RouteSpec { next_hops, backup: None, ..spec.clone() });
            self.table.submitted.insert(prefix, spec);
        }
    }

    /// Lets the table learn and submit everything.
    pub(super) fn table_settles(&mut self) {
        while self.table_hears() {}
        let prefixes: Vec<Prefix> = self.table.wishes.keys().copied().collect();
        prefixes.into_iter().for_each(|prefix| self.table_compares(prefix));
    }

    pub(super) fn table_wants(&mut self, prefix: Prefix, bits: u8, low: bool) {
        for n in (0..NEXT_HOPS).filter(|n| bits & 1 << n != 0) {
            if self.table.heard[n].is_none() {
                self.resolve(n, 1 + n as u8);
                while self.table_hears() {}
            }
        }
        self.table.wishes.insert(prefix, (bits, low));
        self.table_compares(prefix);
    }

    /// The table no longer resolves the next hops of this prefix.
    pub(super) fn table_leaves(&mut self, prefix: Prefix) {
        self.table.wishes.remove(&prefix);
        self.table.submitted.remove(&prefix);
    }

    /// Asserts that no object remains when no route is wanted.
    pub(super) fn check_no_objects(&self) {
        let left = self.model.objects.values().filter(|object| object.protocol == PROTOCOL);
        let left: Vec<&Object> = left.collect();
        assert!(left.is_empty(), "{left:?} remained");
        assert_eq!(self.plan.shared.specs.len(), 0, "interned contents leak");
    }
}
