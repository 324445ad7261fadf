//! Our next-hop objects: which routes use which, and the requests for them.
//!
//! A route whose hops all have gateways uses a *group*, even with a single hop. Routes with the
//! same reachable BGP next hops and the same hops share a group; the members of groups, the
//! *legs*, are shared by all groups. When a BGP next hop resolves differently, or becomes
//! unreachable while the route has others or a backup, the group of its routes is replaced: one
//! request, however many routes there are. Routes without a gateway need link scope and their
//! interface, and routes that drop packets have no hops: neither use groups.
//!
//! Ids come from a range that belongs to the routing table ([`ids_of_table`]), and our objects
//! have our protocol number; other objects in the range are not touched. Objects found at the
//! first dump are adopted if they are wanted. Unwanted ones are deleted after start-up, and only
//! while no route uses them: the kernel deletes routes together with their object.
//!
//! If the kernel refuses a leg, the group is written without it; if it refuses all legs, the group
//! or a route over the group, the routes are written with their hops inline, and `refused` finds
//! out which of those are refused. Objects are retried like refused hops.
//!
//! Pure, and level-triggered: `present` is what the kernel has, `legs` and `groups` are what it
//! should have, `dirty` names where the two may differ. A request that fails or is lost leaves no
//! state.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{FibKind, FibNextHop, Hop, Time};

use super::phase::Phase;
use super::refused::{Part, RETRY_MAX, RETRY_MIN};
use super::repair::Repairs;
use crate::kernel::NextHopForm;
use crate::kernel::message::ObjectKind;
use crate::kernel::spec::{HOPS_MAX, RouteSpec, SpecId, Specs, bring_in_order};

/// The kernel's number of an object.
type Id = NonZeroU32;

/// First id of the first table. Unlikely to be used by programs that count from 1 or a round
/// number.
const FIRST_ID: u32 = 0x6000_0000;
const IDS_PER_TABLE: u32 = 1 << 16;
/// Number of tables with their own range of ids: 40,960. Tables beyond share ranges.
const TABLES: u32 = (u32::MAX - FIRST_ID) / IDS_PER_TABLE + 1;

/// Maximum number of our objects; less than the range of ids, to leave room for those that are
/// about to be deleted. Routes for which there is no room are written with their hops inline.
const OBJECTS_MAX: usize = 48 << 10;

/// Number of resolved next hops below which those without a route are not forgotten.
const RESOLVED_MAX: usize = 1 << 12;

/// The same while the routes of reported next hops are still to be submitted.
const RESOLVED_MAX_AT_START: usize = 1 << 16;

/// The range of ids for our objects of a routing table, so that instances with different tables do
/// not use the same ids.
pub(crate) fn ids_of_table(table: u32) -> RangeInclusive<u32> {
    let first = FIRST_ID + (table % TABLES) * IDS_PER_TABLE;
    first..=first + (IDS_PER_TABLE - 1)
}

/// What the contents of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Without unreachable ones: a route that loses a next hop then shares its group with the
    /// routes that the owner submits without that next hop.
    next_hops: Vec<FibNextHop>,
    /// Used when none of them is reachable; `None` once it is in use, so that the key is that of a
    /// route submitted with the backup as its next hop.
    backup: Option<FibNextHop>,
    hops: Vec<Hop>,
}

/// A group that routes use.
#[derive(Debug)]
struct Group {
    key: Key,
    /// The legs of `key.hops`, with their weights.
    legs: Vec<(Id, u16)>,
    /// The contents whose routes use it.
    contents: BTreeSet<SpecId>,
    /// Routes wait until the kernel has it.
    awaited: bool,
    /// The last wait after a refusal, and when that began.
    last_refusal: Option<(Duration, Time)>,
}

/// A member of groups.
#[derive(Debug)]
struct Leg {
    /// Its weight is 1: the weight belongs to the member of a group.
    hop: Hop,
    groups: BTreeSet<Id>,
}

/// An object that the kernel refuses, or a group over which it refused routes.
#[derive(Debug)]
struct Refusal {
    text: String,
    delay: Duration,
    /// `None`: it is written as soon as it is dirty.
    retry_at: Option<Time>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    form: NextHopForm,
    /// `false` once the kernel has turned out not to support objects.
    is_supported: bool,
    protocol: u8,
    ids: RangeInclusive<u32>,
    last_id: u32,
    /// Objects in our range with our protocol number.
    present: BTreeMap<Id, ObjectKind>,
    /// Ids in our range used by objects of others.
    others: BTreeSet<Id>,
    legs: BTreeMap<Id, Leg>,
    leg_ids: BTreeMap<Hop, Id>,
    groups: BTreeMap<Id, Group>,
    /// The group that a new content with a key gets. After a move other groups may have the same
    /// key.
    group_ids: BTreeMap<Key, Id>,
    /// Groups of the last dump that are not wanted, by their hops.
    adoptable: BTreeMap<Vec<Hop>, BTreeSet<Id>>,
    /// Contents that use a group: the content as written over the group, and the group.
    over: BTreeMap<SpecId, (SpecId, Id)>,
    /// Contents that were written with their hops inline.
    inline_written: BTreeSet<SpecId>,
    refused: BTreeMap<Id, Refusal>,
    /// Wanted objects that may differ from the kernel's.
    dirty: BTreeSet<Id>,
    /// Wanted objects that others changed.
    repairs: Repairs<Id>,
    /// The ids scheduled in `repairs`.
    waiting: BTreeSet<Id>,
    /// Candidates for deletion.
    obsolete: BTreeSet<Id>,
    /// Objects whose deletion the kernel refused, and when that is retried.
    undeleted: BTreeSet<Id>,
    deletion_due: Option<Time>,
    /// Contents whose written form has changed since the last call of [`Groups::take_unsettled`].
    unsettled: BTreeSet<SpecId>,
    /// The hops of each BGP next hop, as last resolved; empty: unreachable.
    resolved: BTreeMap<IpAddr, Vec<Hop>>,
    /// How many of those there may be before some are forgotten: twice as many as were kept last time,
    /// so that few of the new ones cost a look at all contents.
    resolved_max: usize,
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
            resolved_max: RESOLVED_MAX,
        }
    }

    /// Whether routes are configured to use objects.
    pub(super) fn are_used(&self) -> bool {
        self.form == NextHopForm::Objects
    }

    /// Whether what the host says of next hops moves routes: the kernel has objects as well.
    pub(super) fn may_move(&self) -> bool {
        self.are_used() && self.is_supported
    }

    /// The content as written over its group; `None`: it is written with its hops inline.
    pub(super) fn form(&self, content: SpecId) -> Option<SpecId> {
        let (form, group) = self.over.get(&content)?;
        (!self.refused.contains_key(group)).then_some(*form)
    }

    /// Assigns a group to a content. `installed`: the installed content of a route that wants it,
    /// whose group is the preferred one to adopt.
    pub(super) fn claim(&mut self, specs: &mut Specs, content: SpecId, installed: Option<SpecId>) {
        if !self.may_move() || self.over.contains_key(&content) {
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
            // Some routes have it inline: they are written again.
            self.unsettled.insert(content);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.contents.insert(content);
        }
    }

    /// Forgets a content that is no longer in use.
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

    /// Objects that no route uses any more: candidates for deletion.
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

    /// Whether the kernel has the group, so that routes over it may be written. If not, its
    /// contents become unsettled as soon as it has.
    pub(super) fn is_there(&mut self, id: Id) -> bool {
        let is_there = self.present.contains_key(&id);
        if let Some(group) = self.groups.get_mut(&id) {
            group.awaited |= !is_there;
        }
        is_there
    }

    /// The contents whose prefixes have to be decided again.
    pub(super) fn take_unsettled(&mut self) -> BTreeSet<SpecId> {
        std::mem::take(&mut self.unsettled)
    }

    /// The form of a route for comparisons: without the hops of an object of ours, which are
    /// compared with the object.
    pub(super) fn without_hops(&self, spec: RouteSpec) -> RouteSpec {
        match spec.object {
            Some(id) if self.ids.contains(&id.get()) => {
                RouteSpec { kind: FibKind::Unicast(Vec::new()), ..spec }
            }
            _ => spec,
        }
    }

    /// The form of a route for display: with the hops of its object, as far as they are known.
    pub(super) fn with_hops(&self, spec: &Arc<RouteSpec>) -> Arc<RouteSpec> {
        match spec.object.and_then(|id| self.present.get(&id)) {
            Some(ObjectKind::Group(members)) if spec.hops().is_empty() => {
                Arc::new(spec.with_hops(&self.hops_of(members)))
            }
            _ => Arc::clone(spec),
        }
    }

    /// Legs missing from a content's group because they are refused, and why.
    pub(super) fn left_out(&self, content: SpecId) -> Vec<(Part, String)> {
        let group = self.over.get(&content).and_then(|(_, id)| self.groups.get(id));
        let legs = group.into_iter().flat_map(|group| &group.legs);
        let refused = legs.filter_map(|(id, _)| {
            Some((Part::Leg(self.legs.get(id)?.hop), self.refused.get(id)?.text.clone()))
        });
        refused.collect()
    }

    /// The number of our objects that the kernel has.
    pub(super) fn len(&self) -> usize {
        self.present.len()
    }

    /// Sets the hops of a BGP next hop, as reported; returns whether they have changed.
    pub(super) fn resolve(
        &mut self,
        specs: &Specs,
        next_hop: IpAddr,
        hops: Vec<Hop>,
        phase: Phase,
    ) -> bool {
        let is_full = self.resolved.len() >= self.resolved_max;
        if is_full && !self.resolved.contains_key(&next_hop) {
            let in_use = specs.next_hops();
            // What was said belongs to routes that come later.
            let is_early = in_use.is_empty() || phase != Phase::Settled;
            if is_early && self.resolved_max < RESOLVED_MAX_AT_START {
                self.resolved_max = RESOLVED_MAX_AT_START;
            } else {
                self.resolved.retain(|addr, _| in_use.contains(addr));
                self.resolved_max = RESOLVED_MAX.max(2 * self.resolved.len());
            }
        }
        if self.resolved.get(&next_hop) == Some(&hops) {
            return false;
        }
        self.resolved.insert(next_hop, hops);
        true
    }

    /// Whether a next hop is reachable, or not known to be unreachable.
    fn is_reached(&self, next_hop: &FibNextHop) -> bool {
        self.resolved.get(&next_hop.addr).is_none_or(|hops| !hops.is_empty())
    }

    /// The key of the group for a content with these hops.
    fn key_of(&self, spec: &RouteSpec, hops: Vec<Hop>) -> Key {
        let reached = spec.next_hops.iter().filter(|next_hop| self.is_reached(next_hop));
        let (mut next_hops, mut backup) = (reached.copied().collect::<Vec<_>>(), spec.backup);
        if next_hops.is_empty() {
            match backup.take_if(|backup| self.is_reached(backup)) {
                Some(backup) => next_hops.push(backup),
                None => next_hops.clone_from(&spec.next_hops),
            }
        }
        if let [alone] = next_hops.as_mut_slice() {
            // It gets all there is.
            alone.bandwidth = None;
        }
        Key { next_hops, backup, hops }
    }

    /// The new groups of the contents that depend on a next hop, if their hops change; contents of
    /// one group are moved together.
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

    /// The hops of a content's reachable next hops, else those of its backup. `None`: none of them
    /// is reachable, or the resolution of one is not known.
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

    /// Gives a group other hops, provided that exactly these contents use it and none of them is
    /// also written inline. Returns whether it did.
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

    /// Removes the key of a group from the index.
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

    /// Adopts a group with these hops that an earlier run left, and its legs.
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

    /// The legs for these hops, new ones where necessary; the group is registered with each.
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

    /// An object is no longer wanted: makes it a candidate for deletion.
    fn let_go(&mut self, id: Id) {
        self.refused.remove(&id);
        self.dirty.remove(&id);
        self.obsolete.insert(id);
    }

    /// An unused id. There is one, as [`OBJECTS_MAX`] is less than the range.
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

    /// The hops of a group that the kernel has.
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

/// A change of the group of contents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Move {
    /// Their group so far.
    group: Option<Id>,
    to: Key,
}

impl Move {
    pub(super) fn hops(&self) -> &[Hop] {
        &self.to.hops
    }
}

/// Whether a route can use a group: all of its hops have a gateway and an interface.
fn goes_over_gateways(spec: &RouteSpec) -> bool {
    spec.object.is_none() && go_over_gateways(spec.hops())
}

fn go_over_gateways(hops: &[Hop]) -> bool {
    (1..=HOPS_MAX).contains(&hops.len())
        && hops.iter().all(|hop| hop.gateway.is_some() && hop.ifindex != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT_HOPS: u32 = 10_000;

    fn addr(n: u32) -> IpAddr {
        IpAddr::from((0x0A00_0000 + n).to_be_bytes())
    }

    fn hops(n: u32) -> Vec<Hop> {
        vec![Hop { gateway: Some(addr(n)), ifindex: 1, onlink: false, weight: 1 }]
    }

    fn spec(n: u32) -> RouteSpec {
        let kind = FibKind::Unicast(hops(n));
        RouteSpec { next_hops: vec![addr(n).into()], ..RouteSpec::new(kind, 20) }
    }

    fn groups() -> Groups {
        Groups::new(254, 12, NextHopForm::Objects)
    }

    #[test]
    fn next_hops_that_are_said_before_their_routes_are_remembered() {
        for phase in [Phase::Adopting, Phase::Settled] {
            let (mut groups, mut specs) = (groups(), Specs::default());
            for n in 0..NEXT_HOPS {
                assert!(groups.resolve(&specs, addr(n), hops(n), phase));
                // At the start the first routes come among them.
                if phase != Phase::Settled && n == 1 {
                    specs.intern(spec(n));
                }
            }
            for n in 0..NEXT_HOPS {
                assert!(!groups.resolve(&specs, addr(n), hops(n), phase), "{n} was forgotten");
            }
            // Without an end they are not.
            for n in NEXT_HOPS..100_000 {
                groups.resolve(&specs, addr(n), hops(n), phase);
                assert!(groups.resolved.len() <= RESOLVED_MAX_AT_START);
            }
        }
    }

    #[test]
    fn many_next_hops_in_use_are_counted_seldom() {
        let (mut groups, mut specs) = (groups(), Specs::default());
        let (mut bounds, mut ids) = (BTreeSet::new(), Vec::new());
        for n in 0..NEXT_HOPS {
            ids.push(specs.intern(spec(n)));
            groups.resolve(&specs, addr(n), hops(n), Phase::Settled);
            bounds.insert(groups.resolved_max);
        }
        let expected = [RESOLVED_MAX, 2 * RESOLVED_MAX, 4 * RESOLVED_MAX];
        assert_eq!(bounds.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(groups.resolved.len(), 10_000);
        // Those of routes that are gone are forgotten.
        ids.drain(10..).for_each(|id| specs.release(id));
        for n in NEXT_HOPS..2 * NEXT_HOPS {
            groups.resolve(&specs, addr(n), hops(n), Phase::Settled);
        }
        assert_eq!(groups.resolved_max, RESOLVED_MAX);
        assert!((0..10).all(|n| groups.resolved.contains_key(&addr(n))));
    }
}
