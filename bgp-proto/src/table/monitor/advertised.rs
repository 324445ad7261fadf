//! Changes of the Adj-RIBs-Out: noted for each update group, and written for each of its members.

use std::collections::VecDeque;
use std::ops::Bound;

use super::super::Table;
use super::marks::{GroupMarks, Owed, PathName, Place, release};
use super::page::{About, Direction, Page, ROUTE_WORK, Routes, Sent, TOGETHER};
use super::{Feed, MonitoredPeer, Monitors, Sending, State, leave};
use crate::bmp::Rib;
use crate::export::{MedBefore, Noted, Watch, offer};
use crate::rib::{DestId, LocRib, Meter, Path};
use crate::types::{Family, PathId, PeerId};

/// Whether all paths of a kind were collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// Whether what a member was sent can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    Now,
    /// Once it was copied.
    Later,
}

impl Monitors {
    /// What has to be noted of the groups.
    pub(crate) fn watch(&self) -> Watch {
        let sending = self.by_id.values().filter(|m| matches!(m.state, State::Sending(_)));
        let is_sent = |rib| sending.clone().any(|monitor| monitor.params.ribs.contains(&rib));
        Watch { changes: is_sent(Rib::AdjRibOutPost), evaluations: is_sent(Rib::AdjRibOutPre) }
    }

    fn advertised(&mut self, noted: &[Noted], loc_rib: &LocRib) {
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            let is_sent = |rib| monitor.params.ribs.contains(&rib);
            for noted in noted {
                match noted {
                    Noted::Changed { group, family, change } if is_sent(Rib::AdjRibOutPost) => {
                        let prefix = loc_rib.dests(*family).prefix(change.dest);
                        sending.note(*group, |marks| marks.note(change, prefix));
                    }
                    Noted::Evaluated { group, family, evaluated } if is_sent(Rib::AdjRibOutPre) => {
                        let prefix = loc_rib.dests(*family).prefix(evaluated.dest);
                        sending.note(*group, |marks| marks.note_evaluated(evaluated, prefix));
                    }
                    Noted::Changed { .. } | Noted::Evaluated { .. } => {}
                    Noted::Moved { source, family, from, to } => {
                        let Some(peer) = source.peer() else { continue };
                        sending.move_member(peer, *family, *from, *to);
                    }
                }
            }
            monitor.check_bound();
        }
    }
}

impl MonitoredPeer {
    /// Where a RIB of a family stands, if the station is sent it.
    pub(super) fn feed(&mut self, about: &About) -> Option<&mut Feed> {
        let feeds = match about.direction {
            Direction::Received => &mut self.received,
            Direction::Advertised => &mut self.advertised,
        };
        feeds.as_mut().map(|feeds| &mut feeds[about.family])
    }
}

impl Sending {
    /// Notes something of a group if the station is sent a member of it.
    fn note(&mut self, group: u32, note: impl FnOnce(&mut GroupMarks) -> u64) {
        let Some(marks) = self.groups.get_mut(&group) else { return };
        self.octets += note(marks);
        if !marks.is_up_to_date() {
            self.ready.insert(group);
        }
    }

    /// A peer is in another group: it takes along what it was not sent of the one before.
    fn move_member(&mut self, peer: PeerId, family: Family, from: u32, to: u32) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.group[family] != Some(from) {
            return;
        }
        let before = known.octets();
        if let Some(marks) = self.groups.get_mut(&from) {
            known.owed[family].extend(marks.take(peer));
        }
        leave(&mut self.groups, &mut self.ready, from, peer, &mut self.octets);
        known.group[family] = Some(to);
        let walk = known.advertised.as_ref().and_then(|feeds| feeds[family].walk);
        self.groups.entry(to).or_insert_with(GroupMarks::new).join(peer, walk);
        if !known.is_up_to_date() {
            self.pending.insert(peer);
        }
        let after = known.octets();
        self.grew(before, after);
    }

    /// A peer's initial state is about to be sent: from now on it is sent changes.
    pub(super) fn join_group(&mut self, peer: PeerId, family: Family, group: u32) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.group[family].is_none() {
            known.group[family] = Some(group);
            self.groups.entry(group).or_insert_with(GroupMarks::new).join(peer, Some(0));
        }
    }

    /// A peer's initial state has got further.
    pub(super) fn advance_group(&mut self, peer: PeerId, family: Family) {
        let Some(known) = self.peers.get(&peer) else { return };
        let Some(feeds) = &known.advertised else { return };
        let marks = known.group[family].and_then(|group| self.groups.get_mut(&group));
        marks.into_iter().for_each(|marks| marks.advance(feeds[family].walk));
    }
}

impl Table {
    /// Marks what the groups have flushed, and who has moved, since the turn before.
    #[cold]
    #[inline(never)]
    pub(in crate::table) fn note_advertised(&mut self, meter: &mut Meter) {
        let noted = std::mem::take(&mut self.adj_ribs_out.noted);
        if !self.adj_ribs_out.watch.is_on() {
            return;
        }
        meter.spend(noted.len() as u32 / 8);
        self.monitors.advertised(&noted, &self.loc_rib);
    }

    /// Whether what a peer was sent can be read: not while it is being copied.
    pub(super) fn has_readable_adj_rib_out(&self, id: PeerId, family: Family) -> bool {
        self.group_of(id, family).is_none_or(|group| !group.is_copied())
    }

    /// The initial state of a peer's Adj-RIB-Out, after what is left of groups that it was in before.
    pub(super) fn write_advertised(
        &self,
        sending: &mut Sending,
        id: PeerId,
        about: &About,
        page: &mut Page<'_>,
    ) {
        let family = about.family;
        if page.is_full() || !self.has_readable_adj_rib_out(id, family) {
            return;
        }
        if let Some(group) = self.group_of(id, family) {
            sending.join_group(id, family, group.id);
        }
        let Some(known) = sending.peers.get_mut(&id) else { return };
        let before = known.octets();
        let Some(feed) = known.advertised.as_mut().map(|feeds| &mut feeds[family]) else { return };
        let owed = &mut known.owed[family];
        self.write_owed(about, owed, (feed.walk, &mut sending.octets), page);
        if owed.is_empty() {
            self.write_feed(about, feed, page);
        }
        let after = known.octets();
        sending.grew(before, after);
        sending.advance_group(id, family);
    }

    /// Changes of groups, each in turn, beginning after the one that was last.
    pub(super) fn write_groups(&self, sending: &mut Sending, page: &mut Page<'_>) {
        let waiting: Vec<u32> = sending.ready.iter().copied().collect();
        let first = waiting.partition_point(|id| *id <= sending.last_group);
        for id in waiting.iter().cycle().skip(first).take(waiting.len()).copied() {
            if page.is_full() {
                return;
            }
            sending.last_group = id;
            self.write_group(sending, id, page);
        }
    }

    /// Batches of one group, each to one member after the other.
    fn write_group(&self, sending: &mut Sending, id: u32, page: &mut Page<'_>) {
        while !page.is_full() {
            let next = sending.groups.get_mut(&id).and_then(|m| m.next(&mut sending.octets));
            let Some((peer, mut owed)) = next else {
                sending.ready.remove(&id);
                return;
            };
            page.meter.spend(1);
            if self.write_to_member(sending, peer, id, &mut owed, page) == Readable::Later {
                return;
            }
            if let Some(marks) = sending.groups.get_mut(&id) {
                marks.sent(peer, owed.place);
            }
        }
    }

    /// A batch to a member, after those that it owes from groups before.
    fn write_to_member(
        &self,
        sending: &mut Sending,
        peer: PeerId,
        group: u32,
        next: &mut Owed,
        page: &mut Page<'_>,
    ) -> Readable {
        let skipped = |next: &mut Owed| {
            next.place = Place::End;
            Readable::Now
        };
        let Some(known) = sending.peers.get_mut(&peer) else { return skipped(next) };
        let family = Family::ALL.into_iter().find(|family| known.group[*family] == Some(group));
        let (Some(family), Some((_, header))) = (family, known.announced) else {
            return skipped(next);
        };
        let walk = known.advertised.as_ref().and_then(|feeds| feeds[family].walk);
        if walk == Some(0) {
            return skipped(next);
        }
        let held = self.peers.get(peer);
        let Some((held, session)) = held.and_then(|held| Some((held, held.session.as_ref()?)))
        else {
            return skipped(next);
        };
        if !self.has_readable_adj_rib_out(peer, family) {
            return Readable::Later;
        }
        let add_path = session.add_path_tx.contains(family);
        let direction = Direction::Advertised;
        let about = About { header, source: held.source, family, add_path, direction };
        let before = known.octets();
        self.write_owed(&about, &mut known.owed[family], (walk, &mut sending.octets), page);
        if known.owed[family].is_empty() {
            self.write_batch(&about, next, walk, page);
        }
        let after = known.octets();
        sending.grew(before, after);
        Readable::Now
    }

    /// What a member was not sent of the groups that it was in before.
    pub(super) fn write_owed(
        &self,
        about: &About,
        owed: &mut VecDeque<Owed>,
        (walk, octets): (Option<u32>, &mut u64),
        page: &mut Page<'_>,
    ) {
        while !page.is_full()
            && let Some(first) = owed.front_mut()
        {
            self.write_batch(about, first, walk, page);
            if first.place == Place::End {
                owed.pop_front().into_iter().for_each(|owed| release(owed.batch, octets));
            }
        }
    }

    /// A batch to one member, as far as the page has room.
    fn write_batch(&self, about: &About, owed: &mut Owed, walk: Option<u32>, page: &mut Page<'_>) {
        while owed.place != Place::End && !page.is_full() {
            let mut routes = about.routes(page);
            routes.retain(|(rib, _)| *rib == owed.place.rib());
            page.gathered = 0;
            match &mut owed.place {
                Place::Withdrawn(last) => {
                    let paths = owed.batch.withdrawn.range((after(*last), Bound::Unbounded));
                    let paths = paths.map(|(path, except)| (*path, !except.contains(about.source)));
                    if withdraw(paths, last, &mut routes, page) == Progress::Done {
                        owed.place = Place::WithdrawnFrom(None);
                    }
                }
                Place::WithdrawnFrom(last) => {
                    let own = owed.batch.withdrawn_from.get(&about.source).into_iter();
                    let from = after(*last);
                    let paths = own.flat_map(|own| own.range((from, Bound::Unbounded)));
                    let paths = paths.map(|path| (*path, true));
                    if withdraw(paths, last, &mut routes, page) == Progress::Done {
                        owed.place = Place::Changed(0);
                    }
                }
                Place::Changed(from) => {
                    let next = |from| owed.batch.changed.next_from(from);
                    if self.gather_some(about, (from, walk), next, &mut routes, page)
                        == Progress::Done
                    {
                        owed.place = Place::Gone(None);
                    }
                }
                Place::Gone(last) => {
                    let paths = owed.batch.gone.range((after(*last), Bound::Unbounded));
                    let paths = paths.map(|path| (*path, true));
                    if withdraw(paths, last, &mut routes, page) == Progress::Done {
                        owed.place = Place::Evaluated(0);
                    }
                }
                Place::Evaluated(from) => {
                    let next = |from| owed.batch.evaluated.next_from(from);
                    if self.gather_some(about, (from, walk), next, &mut routes, page)
                        == Progress::Done
                    {
                        owed.place = Place::End;
                    }
                }
                Place::End => {}
            }
            for (rib, of) in routes {
                self.write_routes(about, rib, of, page);
            }
        }
    }

    /// Collects the routes of some destinations of a set, from one on, that the initial state has reached.
    fn gather_some(
        &self,
        about: &About,
        (from, walk): (&mut u32, Option<u32>),
        next_from: impl Fn(u32) -> Option<u32>,
        routes: &mut [(Rib, Routes)],
        page: &mut Page<'_>,
    ) -> Progress {
        let mut left = TOGETHER;
        while left > 0 && page.has_room() {
            let next = next_from(*from).filter(|id| walk.is_none_or(|walk| *id < walk));
            let Some((id, after)) = next.and_then(|id| Some((id, id.checked_add(1)?))) else {
                return Progress::Done;
            };
            (*from, left) = (after, left - 1);
            self.gather(about, DestId(id), Sent::Before, routes, page);
        }
        Progress::More
    }

    /// What the export policy of the peer is asked about: the path that its group chooses, unless it is the
    /// peer's own or the rules before the policy withhold it.
    pub(super) fn before_policy(&self, about: &About, dest: DestId) -> Option<(&Path, MedBefore)> {
        let group = self.group_of(about.source.peer()?, about.family)?;
        let state = self.export_view(about.family);
        let path = group.best_path(dest, state).filter(|path| path.source != about.source)?;
        Some((path, offer(&group.key, dest, path, state).ok()?))
    }
}

/// The paths that follow the last one that was written.
fn after(last: Option<PathName>) -> Bound<PathName> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
}

/// Collects withdrawn paths, of which the member is sent some.
fn withdraw(
    paths: impl Iterator<Item = (PathName, bool)>,
    last: &mut Option<PathName>,
    routes: &mut [(Rib, Routes)],
    page: &mut Page<'_>,
) -> Progress {
    let mut left = TOGETHER;
    for (path, is_sent) in paths {
        if left == 0 || page.meter.is_spent() {
            return Progress::More;
        }
        left -= 1;
        page.meter.spend(ROUTE_WORK);
        *last = Some(path);
        let (prefix, tx) = path;
        let sent_to = routes.iter_mut().filter(|_| is_sent);
        sent_to.for_each(|(_, of)| of.withdrawn.push((PathId(tx), prefix)));
    }
    Progress::Done
}
