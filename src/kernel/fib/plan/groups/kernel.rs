//! The kernel's side of the groups: its objects, the requests for them, and the answers.

use super::*;
use crate::kernel::message::{Object, ObjectOp, ObjectRequest};

/// Maximum number of requests per batch.
const BATCH_MAX: usize = 1024;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

impl Groups {
    /// Replaces the known objects by those of a dump, ours and those of others.
    pub(in super::super) fn read<'a>(&mut self, objects: impl Iterator<Item = &'a Object>) {
        self.present.clear();
        self.others.clear();
        let range = self.ids.clone();
        objects.filter(|object| range.contains(&object.id.get())).for_each(|o| self.place(o));
        self.dirty.extend(self.legs.keys().chain(self.groups.keys()));
        self.waiting.clear();
        let _ = self.repairs.take_all();
        self.handle_all_unused();
        self.adoptable.clear();
        for (id, kind) in &self.present {
            if let ObjectKind::Group(members) = kind
                && !self.groups.contains_key(id)
            {
                let hops = self.hops_of(members);
                if hops.len() == members.len() {
                    self.adoptable.entry(hops).or_default().insert(*id);
                }
            }
        }
    }

    /// The kernel does not support objects: no content gets a group from here on.
    pub(in super::super) fn handle_unsupported(&mut self) {
        self.is_supported = false;
        self.resolved.clear();
    }

    /// Makes every object that the kernel has a candidate for deletion.
    pub(in super::super) fn handle_all_unused(&mut self) {
        self.obsolete.extend(self.present.keys());
    }

    /// Another process, or the kernel, added, changed or deleted an object.
    pub(in super::super) fn handle_object(&mut self, id: Id, object: Option<&Object>, now: Time) {
        if !self.ids.contains(&id.get()) {
            return;
        }
        if let Some(ObjectKind::Group(members)) = self.present.remove(&id) {
            self.obsolete.extend(members.iter().map(|(member, _)| *member));
        }
        self.others.remove(&id);
        object.into_iter().for_each(|object| self.place(object));
        if !self.legs.contains_key(&id) && !self.groups.contains_key(&id) {
            self.obsolete.insert(id);
        } else if !self.dirty.contains(&id) && self.waiting.insert(id) {
            self.repairs.schedule(id, now);
        }
    }

    fn place(&mut self, object: &Object) {
        if object.protocol == self.protocol {
            self.present.insert(object.id, object.kind.clone());
        } else {
            self.others.insert(object.id);
        }
    }

    /// Starts the repairs, retries and deletions that are due.
    pub(in super::super) fn handle_time(&mut self, now: Time) {
        for id in self.repairs.take_due(now).keys {
            self.waiting.remove(&id);
            self.mark(id);
        }
        self.retry(|at| at <= now);
        if self.deletion_due.take_if(|due| *due <= now).is_some() {
            self.obsolete.append(&mut self.undeleted);
        }
    }

    /// Links or addresses changed: retries everything that was refused.
    pub(in super::super) fn retry_all(&mut self) {
        self.retry(|_| true);
        self.groups.values_mut().for_each(|group| group.last_refusal = None);
        self.refused.values_mut().for_each(|refusal| refusal.delay = RETRY_MIN);
    }

    fn retry(&mut self, is_due: impl Fn(Time) -> bool) {
        for (id, refusal) in &mut self.refused {
            if refusal.retry_at.take_if(|at| is_due(*at)).is_some() {
                self.dirty.insert(*id);
            }
        }
    }

    /// When [`Groups::handle_time`] has something to do next.
    pub(in super::super) fn deadline(&self) -> Option<Time> {
        let refused = self.refused.values().filter_map(|refusal| refusal.retry_at);
        refused.chain(self.repairs.deadline()).chain(self.deletion_due).min()
    }

    /// Whether the kernel refused to delete objects.
    pub(in super::super) fn has_undeleted(&self) -> bool {
        !self.undeleted.is_empty()
    }

    /// The number of legs that the kernel refuses as objects.
    pub(in super::super) fn refused(&self) -> usize {
        self.refused.keys().filter(|id| self.legs.contains_key(id)).count()
    }

    /// Whether the kernel refuses any object.
    pub(in super::super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether [`Groups::poll`] may return requests. `deletes`: whether objects may be deleted.
    pub(in super::super) fn has_work(&self, deletes: bool) -> bool {
        !self.dirty.is_empty() || (deletes && !self.obsolete.is_empty())
    }

    /// Whether there is nothing to write, now or when a repair is due.
    pub(in super::super) fn is_at_rest(&self, deletes: bool) -> bool {
        !self.has_work(deletes) && self.waiting.is_empty()
    }

    /// The next requests: legs are added before groups that contain them, and deleted after them.
    /// Empty when there is nothing to write.
    pub(in super::super) fn poll(&mut self, specs: &mut Specs, deletes: bool) -> Vec<ObjectOp> {
        self.leave_taken_ids(specs);
        // A group can only be written once all of its legs exist.
        let groups = self.dirty.iter().filter_map(|id| self.groups.get(id));
        let missing = groups.flat_map(|group| &group.legs).map(|(leg, _)| *leg);
        let missing: Vec<Id> = missing.filter(|leg| !self.present.contains_key(leg)).collect();
        self.dirty.extend(missing);
        let mut ops = self.leg_writes();
        if ops.is_empty() {
            ops = self.group_writes();
        }
        if ops.is_empty() && deletes {
            ops = self.deletions(specs);
        }
        ops
    }

    /// Changes the ids of wanted objects if objects of others, or ours of the other kind, have
    /// them.
    fn leave_taken_ids(&mut self, specs: &mut Specs) {
        let kind = |id: &Id| self.present.get(id);
        let is_taken = |id: &&Id| {
            self.others.contains(*id)
                || if self.legs.contains_key(*id) {
                    kind(id).is_some_and(|kind| !matches!(kind, ObjectKind::Hop(_)))
                } else {
                    kind(id).is_some_and(|kind| !matches!(kind, ObjectKind::Group(_)))
                }
        };
        let taken: Vec<Id> = self.dirty.iter().filter(is_taken).copied().collect();
        for id in taken {
            if self.groups.contains_key(&id) {
                self.give_up_group(specs, id);
            } else {
                self.move_leg(id);
            }
        }
    }

    /// Assigns other groups to the contents of a group.
    fn give_up_group(&mut self, specs: &mut Specs, id: Id) {
        let Some(group) = self.groups.get(&id) else { return };
        let contents = group.contents.clone();
        contents.iter().for_each(|content| self.unclaim(specs, *content));
        contents.iter().for_each(|content| self.claim(specs, *content, None));
        self.unsettled.extend(contents);
    }

    fn move_leg(&mut self, id: Id) {
        let Some(leg) = self.legs.remove(&id) else { return };
        self.let_go(id);
        let free = self.free_id();
        self.leg_ids.insert(leg.hop, free);
        for group in &leg.groups {
            if let Some(group) = self.groups.get_mut(group) {
                let members = group.legs.iter_mut().filter(|(member, _)| *member == id);
                members.for_each(|(member, _)| *member = free);
            }
        }
        self.dirty.extend(leg.groups.iter().copied().chain([free]));
        self.legs.insert(free, leg);
    }

    fn leg_writes(&mut self) -> Vec<ObjectOp> {
        let mut ops = Vec::new();
        let legs = self.dirty.iter().filter(|id| self.legs.contains_key(id));
        let legs: Vec<Id> = legs.take(BATCH_MAX).copied().collect();
        for id in legs {
            self.dirty.remove(&id);
            let Some(leg) = self.legs.get(&id).filter(|_| self.may_be_tried(id)) else { continue };
            let wanted = ObjectKind::Hop(leg.hop);
            match self.present.get(&id) {
                Some(kind) if *kind == wanted => self.accept(id),
                Some(_) => ops.push(ObjectOp { id, request: ObjectRequest::Replace(wanted) }),
                None => ops.push(ObjectOp { id, request: ObjectRequest::Add(wanted) }),
            }
        }
        ops
    }

    fn group_writes(&mut self) -> Vec<ObjectOp> {
        let mut ops = Vec::new();
        let groups = self.dirty.iter().filter(|id| self.groups.contains_key(id));
        let groups: Vec<Id> = groups.take(BATCH_MAX).copied().collect();
        for id in groups {
            self.dirty.remove(&id);
            let Some(group) = self.groups.get(&id).filter(|_| self.may_be_tried(id)) else {
                continue;
            };
            let legs = group.legs.iter().filter(|(leg, _)| !self.refused.contains_key(leg));
            let mut wanted: Vec<(Id, u16)> = legs.copied().collect();
            if let [(_, weight)] = wanted.as_mut_slice() {
                *weight = 1;
            }
            let there = match self.present.get(&id) {
                Some(ObjectKind::Group(members)) => Some(members),
                _ => None,
            };
            match there {
                _ if wanted.is_empty() => self.go_without(id),
                Some(members) if is_same(members, &wanted) => self.accept(id),
                Some(_) => {
                    let request = ObjectRequest::Replace(ObjectKind::Group(wanted));
                    ops.push(ObjectOp { id, request });
                }
                None => {
                    let request = ObjectRequest::Add(ObjectKind::Group(wanted));
                    ops.push(ObjectOp { id, request });
                }
            }
        }
        ops
    }

    fn may_be_tried(&self, id: Id) -> bool {
        self.refused.get(&id).is_none_or(|refusal| refusal.retry_at.is_none())
    }

    /// Deletes unwanted groups that no route uses; if there are none, unwanted legs that no group
    /// has.
    fn deletions(&mut self, specs: &Specs) -> Vec<ObjectOp> {
        let wanted = |id: &Id| self.legs.contains_key(id) || self.groups.contains_key(id);
        let present = &self.present;
        // An object in use is dropped from the candidates here, and is one again when the last
        // route over it is gone (`handle_unused`).
        self.obsolete.retain(|id| {
            let is_there = present.contains_key(id);
            is_there && !specs.use_object(*id)
        });
        let groups = self
            .obsolete
            .iter()
            .filter(|id| !wanted(id) && !matches!(self.present.get(*id), Some(ObjectKind::Hop(_))));
        let mut gone: Vec<Id> = groups.take(BATCH_MAX).copied().collect();
        if gone.is_empty() {
            // Only now: the kernel removes a deleted leg from its groups, and deletes a group that
            // becomes empty together with its routes.
            let members = self.present.values().filter_map(|kind| match kind {
                ObjectKind::Group(members) => Some(members),
                _ => None,
            });
            let held: BTreeSet<Id> = members.flatten().map(|(member, _)| *member).collect();
            let legs = self.obsolete.iter().filter(|id| !wanted(id) && !held.contains(id));
            gone = legs.take(BATCH_MAX).copied().collect();
            if gone.is_empty() {
                self.obsolete.clear();
            }
        }
        for id in &gone {
            self.obsolete.remove(id);
        }
        let delete = |id| ObjectOp { id, request: ObjectRequest::Delete };
        gone.into_iter().map(delete).collect()
    }

    /// Handles the kernel's answer to a request: `None` for success, or an error number and text.
    /// Returns whether the kernel newly refuses the object.
    pub(in super::super) fn handle_answer(
        &mut self,
        op: &ObjectOp,
        answer: Option<(i32, &str)>,
        now: Time,
    ) -> bool {
        match (&op.request, answer) {
            (ObjectRequest::Add(kind) | ObjectRequest::Replace(kind), None) => {
                self.handle_written(op.id, kind.clone());
            }
            (ObjectRequest::Delete, None | Some((ENOENT, _))) => {
                if let Some(ObjectKind::Group(members)) = self.present.remove(&op.id) {
                    self.obsolete.extend(members.iter().map(|(member, _)| *member));
                }
            }
            (ObjectRequest::Add(_), Some((EEXIST, _))) => {
                self.others.insert(op.id);
                self.mark(op.id);
            }
            (ObjectRequest::Add(_) | ObjectRequest::Replace(_), Some((_, text))) => {
                return self.refuse(op.id, text, now);
            }
            (ObjectRequest::Delete, Some(_)) => {
                self.undeleted.insert(op.id);
                self.deletion_due.get_or_insert(now + RETRY_MIN);
            }
        }
        false
    }

    fn handle_written(&mut self, id: Id, kind: ObjectKind) {
        if let Some(ObjectKind::Group(members)) = self.present.insert(id, kind) {
            self.obsolete.extend(members.iter().map(|(member, _)| *member));
        }
        if let Some(leg) = self.legs.get(&id) {
            // If the leg was deleted before, the kernel removed it from its groups: compare them.
            self.dirty.extend(&leg.groups);
        } else if !self.groups.contains_key(&id) {
            self.obsolete.insert(id);
        }
        self.accept(id);
    }

    /// A route over a group was refused: treats the group as refused. Returns whether that is new.
    pub(in super::super) fn refuse_routes(&mut self, id: Id, text: &str, now: Time) -> bool {
        self.may_be_tried(id) && self.refuse(id, text, now)
    }

    fn refuse(&mut self, id: Id, text: &str, now: Time) -> bool {
        let last = self.groups.get(&id).and_then(|group| group.last_refusal);
        let last = last.filter(|(_, at)| now.since(*at) < RETRY_MAX * 2).map(|(delay, _)| delay);
        let last = last.or(self.refused.get(&id).map(|refusal| refusal.delay));
        let delay = last.map_or(RETRY_MIN, |delay| (delay * 2).min(RETRY_MAX));
        let refusal = Refusal { text: text.to_owned(), delay, retry_at: Some(now + delay) };
        if let Some(leg) = self.legs.get(&id) {
            self.dirty.extend(&leg.groups);
        } else if let Some(group) = self.groups.get_mut(&id) {
            group.last_refusal = Some((delay, now));
            group.awaited = false;
            self.unsettled.extend(&group.contents);
        } else {
            return false;
        }
        self.refused.insert(id, refusal).is_none()
    }

    /// All legs of the group are refused: its routes are written with their hops inline until one
    /// is accepted.
    fn go_without(&mut self, id: Id) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.awaited = false;
        let first = group.legs.first().and_then(|(leg, _)| self.refused.get(leg));
        let text = first.map(|refusal| refusal.text.clone()).unwrap_or_default();
        let refusal = Refusal { text, delay: RETRY_MIN, retry_at: None };
        if self.refused.insert(id, refusal).is_none() {
            self.unsettled.extend(&group.contents);
        }
    }

    /// The kernel has a wanted object, with the wanted content: ends its refusal, and lets the
    /// routes that wait for it be written.
    fn accept(&mut self, id: Id) {
        let was_refused = self.refused.remove(&id).is_some();
        if let Some(leg) = self.legs.get(&id).filter(|_| was_refused) {
            self.dirty.extend(&leg.groups);
        }
        if let Some(group) = self.groups.get_mut(&id)
            && (std::mem::take(&mut group.awaited) || was_refused)
        {
            self.unsettled.extend(&group.contents);
        }
    }

    fn mark(&mut self, id: Id) {
        if self.legs.contains_key(&id) || self.groups.contains_key(&id) {
            self.dirty.insert(id);
        }
    }
}

/// Whether two groups are equal, regardless of the order of their members.
fn is_same(a: &[(Id, u16)], b: &[(Id, u16)]) -> bool {
    let sorted = |members: &[(Id, u16)]| {
        let mut members = members.to_vec();
        members.sort_unstable();
        members
    };
    sorted(a) == sorted(b)
}
