//! Next-hop objects of ours: which route goes over which, and what is to be asked of the kernel.
//!
//! A route whose hops all have gateways names a *group*, also where there is one hop only. Routes with
//! the same reachable BGP next hops and the same hops share a group; its members, the *legs*, are
//! shared by all groups. When the host resolves a BGP next hop in another way, or not at all any more
//! and the route has others or a backup, the group of its routes is replaced: one request, however
//! many routes there are. Routes without a gateway keep link scope and their interface, and routes that drop have
//! no hops: both stay as they are.
//!
//! Ids come from a range that belongs to the routing table ([`ids_of_table`]), and objects carry our
//! protocol number. Nothing else in the range is touched. What is found there at the first reading is
//! adopted where it is wanted. What nobody wants is deleted after the start, and only while no
//! route goes over it: the kernel deletes routes with their objects.
//!
//! What the kernel refuses is left to the gateways: of a leg, the group goes without it; of all legs, of
//! the group or of a route over it, the routes get their hops inline, and `refused` finds out what is
//! wrong with those. It is tried again as refused hops are.
//!
//! Pure, and level-triggered: `present` is what the kernel has, `legs` and `groups` are what it should
//! have, `dirty` names where the two may differ. A request that fails or is lost leaves no state.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{FibKind, FibNextHop, Hop, Time};

use super::refused::{Part, RETRY_MAX, RETRY_MIN};
use super::repair::Repairs;
use crate::kernel::NextHopForm;
use crate::kernel::message::ObjectKind;
use crate::kernel::spec::{HOPS_MAX, RouteSpec, SpecId, Specs, bring_in_order};

/// The kernel's number of an object.
type Id = NonZeroU32;

/// First id of the first table. Programs that count from 1 or from a round number are far away.
const FIRST_ID: u32 = 0x6000_0000;
const IDS_PER_TABLE: u32 = 1 << 16;
/// Tables with ids of their own: 40,960. Those beyond share.
const TABLES: u32 = (u32::MAX - FIRST_ID) / IDS_PER_TABLE + 1;

/// Objects of ours, with room for those that are about to be deleted. Routes beyond go without.
const OBJECTS_MAX: usize = 48 << 10;

/// Resolved next hops that are remembered before those that no route has are forgotten.
const RESOLVED_MAX: usize = 1 << 12;

/// The ids of our objects for routes of a table: two instances with different tables do not meet.
pub(crate) fn ids_of_table(table: u32) -> RangeInclusive<u32> {
    let first = FIRST_ID + (table % TABLES) * IDS_PER_TABLE;
    first..=first + (IDS_PER_TABLE - 1)
}

/// What the routes of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Without those that are not reached: a route that loses one is to be where those are that the
    /// owner submits then without it.
    next_hops: Vec<FibNextHop>,
    /// Where it is to go without any of them: nothing that the owner submits later without those that
    /// it went over first has to have the same.
    backup: Option<FibNextHop>,
    hops: Vec<Hop>,
}

/// A group that routes go over.
#[derive(Debug)]
struct Group {
    key: Key,
    /// The legs of `key.hops`, with their weights.
    legs: Vec<(Id, u16)>,
    /// The contents that it stands for.
    contents: BTreeSet<SpecId>,
    /// Routes wait for it.
    awaited: bool,
    /// The last wait after a refusal, and when it began.
    last_refusal: Option<(Duration, Time)>,
}

/// A member of groups.
#[derive(Debug)]
struct Leg {
    /// With weight 1.
    hop: Hop,
    groups: BTreeSet<Id>,
}

/// An object that the kernel refuses, or a group that routes were refused over.
#[derive(Debug)]
struct Refusal {
    text: String,
    delay: Duration,
    /// `None`: it is tried as soon as it is dirty.
    retry_at: Option<Time>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    form: NextHopForm,
    /// The kernel knows objects, as far as it was asked.
    is_supported: bool,
    protocol: u8,
    ids: RangeInclusive<u32>,
    last_id: u32,
    /// Objects in our range with our protocol number.
    present: BTreeMap<Id, ObjectKind>,
    /// Ids in our range that others have.
    others: BTreeSet<Id>,
    legs: BTreeMap<Id, Leg>,
    leg_ids: BTreeMap<Hop, Id>,
    groups: BTreeMap<Id, Group>,
    /// The group that a content gets. After a move others may have the same key.
    group_ids: BTreeMap<Key, Id>,
    /// Groups that the last reading met and nobody wants, by their hops.
    adoptable: BTreeMap<Vec<Hop>, BTreeSet<Id>>,
    /// Contents that go over a group: the same as a route over it.
    over: BTreeMap<SpecId, (SpecId, Id)>,
    /// Contents that were written with their hops inline.
    inline_written: BTreeSet<SpecId>,
    refused: BTreeMap<Id, Refusal>,
    /// Wanted objects to compare.
    dirty: BTreeSet<Id>,
    /// Wanted objects that others changed.
    repairs: Repairs<Id>,
    waiting: BTreeSet<Id>,
    /// Objects that may be deleted.
    obsolete: BTreeSet<Id>,
    /// Those that the kernel did not delete, and when they are tried again.
    undeleted: BTreeSet<Id>,
    deletion_due: Option<Time>,
    /// Contents that are written in another form than at the last call of [`Groups::take_unsettled`].
    unsettled: BTreeSet<SpecId>,
    /// How the host last said that BGP next hops are reached; empty: not at all.
    resolved: BTreeMap<IpAddr, Vec<Hop>>,
}

impl Groups {
    pub(super) fn new(table: u32, protocol: u8, form: NextHopForm) -> Groups {
        let ids = ids_of_table(table);
        Groups {
            form,
            is_supported: true,
            protocol,
            last_id: *ids.start() - 1,
            ids,
            present: BTreeMap::new(),
            others: BTreeSet::new(),
            legs: BTreeMap::new(),
            leg_ids: BTreeMap::new(),
            groups: BTreeMap::new(),
            group_ids: BTreeMap::new(),
            adoptable: BTreeMap::new(),
            over: BTreeMap::new(),
            inline_written: BTreeSet::new(),
            refused: BTreeMap::new(),
            dirty: BTreeSet::new(),
            repairs: Repairs::default(),
            waiting: BTreeSet::new(),
            obsolete: BTreeSet::new(),
            undeleted: BTreeSet::new(),
            deletion_due: None,
            unsettled: BTreeSet::new(),
            resolved: BTreeMap::new(),
        }
    }

    /// Whether routes are to go over objects.
    pub(super) fn are_used(&self) -> bool {
        self.form == NextHopForm::Objects
    }

    /// How a content is written: as a route over a group. `None`: with its hops inline.
    pub(super) fn form(&self, content: SpecId) -> Option<SpecId> {
        let (form, group) = self.over.get(&content)?;
        (!self.refused.contains_key(group)).then_some(*form)
    }

    /// Gives a content its group. `installed`: what a route that wants it goes over so far, whose group
    /// is the best to adopt.
    pub(super) fn claim(&mut self, specs: &mut Specs, content: SpecId, installed: Option<SpecId>) {
        if !self.are_used() || !self.is_supported || self.over.contains_key(&content) {
            return;
        }
        let spec = Arc::clone(specs.get(content));
        if !goes_over_gateways(&spec) {
            return;
        }
        let key = self.key_of(&spec, spec.hops().to_vec());
        let hint = installed.and_then(|id| specs.get(id).object);
        let known = self.group_ids.get(&key).copied();
        let Some(id) = known.or_else(|| self.add_group(key, hint)) else { return };
        let form = RouteSpec::new(FibKind::Unicast(Vec::new()), spec.metric);
        let form = specs.intern(RouteSpec { source: spec.source, object: Some(id), ..form });
        self.over.insert(content, (form, id));
        if self.inline_written.contains(&content) {
            // Others have it inline.
            self.unsettled.insert(content);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.contents.insert(content);
        }
    }

    /// Nobody wants a content any more.
    pub(super) fn forget(&mut self, specs: &mut Specs, content: SpecId) {
        self.inline_written.remove(&content);
        self.unsettled.remove(&content);
        self.unclaim(specs, content);
    }

    fn unclaim(&mut self, specs: &mut Specs, content: SpecId) {
        let Some((form, id)) = self.over.remove(&content) else { return };
        specs.release(form);
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.contents.remove(&content);
        if group.contents.is_empty() {
            self.remove_group(id);
        }
    }

    /// Objects over which routes went until now.
    pub(super) fn handle_unused(&mut self, ids: impl IntoIterator<Item = Id>) {
        let range = &self.ids;
        self.obsolete.extend(ids.into_iter().filter(|id| range.contains(&id.get())));
    }

    /// A content is about to be written with its hops inline.
    pub(super) fn note_inline(&mut self, content: SpecId) {
        if self.are_used() {
            self.inline_written.insert(content);
        }
    }

    /// Whether a route may be written over the group. If not, the contents that wait for it are
    /// unsettled when it may.
    pub(super) fn is_there(&mut self, id: Id) -> bool {
        let is_there = self.present.contains_key(&id);
        if let Some(group) = self.groups.get_mut(&id) {
            group.awaited |= !is_there;
        }
        is_there
    }

    /// The contents to decide about again.
    pub(super) fn take_unsettled(&mut self) -> BTreeSet<SpecId> {
        std::mem::take(&mut self.unsettled)
    }

    /// A route as it is compared: what an object of ours leads to is not the route's affair.
    pub(super) fn without_hops(&self, spec: RouteSpec) -> RouteSpec {
        match spec.object {
            Some(id) if self.ids.contains(&id.get()) => {
                RouteSpec { kind: FibKind::Unicast(Vec::new()), ..spec }
            }
            _ => spec,
        }
    }

    /// The same for people: with the hops again, as far as they are known.
    pub(super) fn with_hops(&self, spec: &Arc<RouteSpec>) -> Arc<RouteSpec> {
        match spec.object.and_then(|id| self.present.get(&id)) {
            Some(ObjectKind::Group(members)) if spec.hops().is_empty() => {
                Arc::new(spec.with_hops(&self.hops_of(members)))
            }
            _ => Arc::clone(spec),
        }
    }

    /// Legs that a content's group goes without, and why.
    pub(super) fn left_out(&self, content: SpecId) -> Vec<(Part, String)> {
        let group = self.over.get(&content).and_then(|(_, id)| self.groups.get(id));
        let legs = group.into_iter().flat_map(|group| &group.legs);
        let refused = legs.filter_map(|(id, _)| {
            Some((Part::Leg(self.legs.get(id)?.hop), self.refused.get(id)?.text.clone()))
        });
        refused.collect()
    }

    /// How many of ours the kernel has.
    pub(super) fn len(&self) -> usize {
        self.present.len()
    }

    /// Takes how a BGP next hop is reached from here on, in order; returns whether that is another way.
    pub(super) fn resolve(&mut self, specs: &Specs, next_hop: IpAddr, hops: Vec<Hop>) -> bool {
        if self.resolved.len() >= RESOLVED_MAX && !self.resolved.contains_key(&next_hop) {
            let in_use = specs.next_hops();
            self.resolved.retain(|addr, _| in_use.contains(addr));
        }
        if self.resolved.get(&next_hop) == Some(&hops) {
            return false;
        }
        self.resolved.insert(next_hop, hops);
        true
    }

    /// Whether it is not known to be out of reach.
    fn is_reached(&self, next_hop: &FibNextHop) -> bool {
        self.resolved.get(&next_hop.addr).is_none_or(|hops| !hops.is_empty())
    }

    /// What a content with these hops has in common with others.
    fn key_of(&self, spec: &RouteSpec, hops: Vec<Hop>) -> Key {
        let reached = spec.next_hops.iter().filter(|next_hop| self.is_reached(next_hop));
        let (mut next_hops, mut backup) = (reached.copied().collect::<Vec<_>>(), spec.backup);
        if next_hops.is_empty() {
            match backup.take_if(|backup| self.is_reached(backup)) {
                Some(backup) => next_hops.push(backup),
                None => next_hops.clone_from(&spec.next_hops),
            }
        }
        Key { next_hops, backup, hops }
    }

    /// Where the contents that rest on a next hop are to go, other than they go now; those of one group
    /// together.
    pub(super) fn moves(&self, specs: &Specs, next_hop: IpAddr) -> Vec<(Move, BTreeSet<SpecId>)> {
        let rests_on_it = |spec: &RouteSpec| spec.all_next_hops().any(|addr| addr == next_hop);
        let mut moves: BTreeMap<Move, BTreeSet<SpecId>> = BTreeMap::new();
        for id in specs.select(rests_on_it) {
            let spec = specs.get(id);
            if let Some(hops) = self.hops_to(spec)
                && hops != spec.hops()
            {
                let group = self.over.get(&id).map(|(_, group)| *group);
                let to = self.key_of(spec, hops);
                moves.entry(Move { group, to }).or_default().insert(id);
            }
        }
        moves.into_iter().collect()
    }

    /// What a content's next hops come to as far as they are reached, else its backup. `None`: nothing is,
    /// or nothing is known of one.
    fn hops_to(&self, spec: &RouteSpec) -> Option<Vec<Hop>> {
        if !spec.next_hops.iter().all(|next_hop| self.resolved.contains_key(&next_hop.addr)) {
            return None;
        }
        let resolve = |addr| self.resolved.get(&addr).map_or(&[][..], Vec::as_slice);
        let mut hops = FibNextHop::hops_of_all(&spec.next_hops, resolve);
        if hops.is_empty() {
            hops = FibNextHop::hops_of_all(spec.backup.as_slice(), resolve);
        }
        bring_in_order(&mut hops);
        (!hops.is_empty()).then_some(hops)
    }

    /// Replaces a group, when all of these contents go over it and no others, and the kernel has what
    /// they say in no other form. Returns whether it did.
    pub(super) fn repoint(&mut self, contents: &BTreeSet<SpecId>, to: &Move) -> bool {
        let Move { group: Some(id), to } = to else { return false };
        let hops = &to.hops;
        let Some(group) = self.groups.get(id) else { return false };
        let is_whole = group.contents == *contents
            && self.inline_written.is_disjoint(contents)
            && !self.refused.contains_key(id)
            && go_over_gateways(hops)
            && self.has_room(hops.len());
        if !is_whole {
            return false;
        }
        let before: Vec<(Id, u16)> = group.legs.clone();
        let legs = self.take_legs(*id, hops);
        let kept: BTreeSet<Id> = legs.iter().map(|(leg, _)| *leg).collect();
        if let Some(group) = self.groups.get_mut(id) {
            let from = std::mem::replace(&mut group.key, to.clone());
            group.legs = legs;
            self.unregister(&from, *id);
        }
        self.group_ids.entry(to.clone()).or_insert(*id);
        before.iter().filter(|(leg, _)| !kept.contains(leg)).for_each(|(leg, _)| {
            self.leave_leg(*leg, *id);
        });
        self.dirty.insert(*id);
        true
    }

    /// A group has this key no longer.
    fn unregister(&mut self, key: &Key, id: Id) {
        if self.group_ids.get(key) == Some(&id) {
            self.group_ids.remove(key);
        }
    }

    fn has_room(&self, hops: usize) -> bool {
        let claimed = self.legs.len() + self.groups.len() + self.others.len();
        claimed.max(self.present.len() + self.others.len()) + hops < OBJECTS_MAX
    }

    fn add_group(&mut self, key: Key, hint: Option<Id>) -> Option<Id> {
        if !self.has_room(key.hops.len()) {
            return None;
        }
        let id = self.adopt(&key.hops, hint).unwrap_or_else(|| self.free_id());
        let legs = self.take_legs(id, &key.hops);
        self.group_ids.insert(key.clone(), id);
        let (contents, awaited, last_refusal) = (BTreeSet::new(), false, None);
        self.groups.insert(id, Group { key, legs, contents, awaited, last_refusal });
        self.dirty.insert(id);
        Some(id)
    }

    /// A group with these hops that an earlier run left, and its legs.
    fn adopt(&mut self, hops: &[Hop], hint: Option<Id>) -> Option<Id> {
        let found = self.adoptable.get_mut(hops)?;
        let id = hint.filter(|id| found.contains(id)).or(found.first().copied())?;
        found.remove(&id);
        if found.is_empty() {
            self.adoptable.remove(hops);
        }
        let Some(ObjectKind::Group(members)) = self.present.get(&id) else { return None };
        if self.hops_of(members) != hops {
            return None;
        }
        for (member, _) in members {
            if let Some(ObjectKind::Hop(hop)) = self.present.get(member)
                && !self.leg_ids.contains_key(hop)
                && !self.legs.contains_key(member)
            {
                self.leg_ids.insert(*hop, *member);
                self.legs.insert(*member, Leg { hop: *hop, groups: BTreeSet::new() });
            }
        }
        Some(id)
    }

    /// The legs for these hops, each of which counts the group as a user.
    fn take_legs(&mut self, group: Id, hops: &[Hop]) -> Vec<(Id, u16)> {
        let mut legs = Vec::with_capacity(hops.len());
        for hop in hops {
            let plain = Hop { weight: 1, ..*hop };
            let id = self.leg_ids.get(&plain).copied().unwrap_or_else(|| self.free_id());
            self.leg_ids.insert(plain, id);
            let leg = self.legs.entry(id).or_insert(Leg { hop: plain, groups: BTreeSet::new() });
            leg.groups.insert(group);
            self.dirty.insert(id);
            legs.push((id, hop.weight));
        }
        legs
    }

    fn leave_leg(&mut self, id: Id, group: Id) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.groups.remove(&group);
        if leg.groups.is_empty() {
            let hop = leg.hop;
            self.leg_ids.remove(&hop);
            self.legs.remove(&id);
            self.let_go(id);
        }
    }

    fn remove_group(&mut self, id: Id) {
        let Some(group) = self.groups.remove(&id) else { return };
        self.unregister(&group.key, id);
        group.legs.iter().for_each(|(leg, _)| self.leave_leg(*leg, id));
        self.let_go(id);
    }

    /// An object is not wanted any more.
    fn let_go(&mut self, id: Id) {
        self.refused.remove(&id);
        self.dirty.remove(&id);
        self.obsolete.insert(id);
    }

    /// An id that nobody has. There is one: [`OBJECTS_MAX`] is less than the range.
    fn free_id(&mut self) -> Id {
        loop {
            self.last_id = match self.last_id {
                last if self.ids.contains(&last) && last < *self.ids.end() => last + 1,
                _ => *self.ids.start(),
            };
            let id = Id::MIN.saturating_add(self.last_id - 1);
            let is_taken = self.present.contains_key(&id)
                || self.others.contains(&id)
                || self.legs.contains_key(&id)
                || self.groups.contains_key(&id);
            if !is_taken {
                return id;
            }
        }
    }

    /// What a group of the kernel leads to.
    fn hops_of(&self, members: &[(Id, u16)]) -> Vec<Hop> {
        let hops = members.iter().filter_map(|(id, weight)| match self.present.get(id)? {
            ObjectKind::Hop(hop) => Some(Hop { weight: *weight, ..*hop }),
            _ => None,
        });
        let mut hops: Vec<Hop> = hops.collect();
        hops.sort_unstable();
        hops
    }
}

/// Where contents are to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Move {
    /// What they go over so far.
    group: Option<Id>,
    to: Key,
}

impl Move {
    pub(super) fn hops(&self) -> &[Hop] {
        &self.to.hops
    }
}

/// Whether a route may go over a group.
fn goes_over_gateways(spec: &RouteSpec) -> bool {
    spec.object.is_none() && go_over_gateways(spec.hops())
}

fn go_over_gateways(hops: &[Hop]) -> bool {
    (1..=HOPS_MAX).contains(&hops.len())
        && hops.iter().all(|hop| hop.gateway.is_some() && hop.ifindex != 0)
}
