//! One slice of a rehearsal.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::result::{Class, Listed};
use super::{Place, Rehearsal, Rehearsing, RouteDifference, SentRoute};
use crate::export::{
    Advertised, Except, ExportId, ExportView, Reflection, choose_paths, evaluate_path,
    is_memoisable,
};
use crate::rib::{
    AttrId, AttrKey, DestId, LocalAttrs, LocalRoute, Meter, Neighbors, NextHopId, NextHopState,
    NextHops, Path, PathFlags, SourceId, default_preference,
};
use crate::table::{Table, Work};
use crate::types::{Family, NextHop, PathId, Prefix, Source};
use crate::wire::{AttrEdit, Origin, UpdateWriter};

type Fast<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Octets of a message besides attributes and ORIGINATOR_ID and CLUSTER_LIST of a reflected route:
/// header, next hop and one prefix.
const MESSAGE_OCTETS: usize = 96;
/// Work of comparing a destination for a class.
const WORK_CLASS: u32 = 2;
/// Work of evaluating export for a route.
const WORK_EXPORT: u32 = 6;
/// Work of translating attributes for a path.
const WORK_PATH: u32 = 4;

/// A route as a group sends it, in the shadow's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    attrs: AttrId,
    next_hop: Option<NextHop>,
    reflection: Option<Reflection>,
    except: Except,
}

impl Sent {
    fn is_same(&self, other: &Sent) -> bool {
        (self.attrs, self.next_hop, self.reflection)
            == (other.attrs, other.next_hop, other.reflection)
    }
}

/// Attributes, next hop, source and staleness of a path, and the class.
type MemoKey = (usize, u32, u32, u16, bool);

/// Ids of the real table in the shadow, and results; empty between slices, as ids may be reused.
#[derive(Default)]
pub(super) struct Scratch {
    attrs: Fast<AttrId, AttrId>,
    hops: Fast<NextHopId, NextHopId>,
    memo: Fast<MemoKey, Option<Sent>>,
    /// Those of the shadow, while it has no next hops.
    pub(super) neighbors: Option<Neighbors>,
    message: Vec<u8>,
}

impl Table {
    /// Visits further destinations. The cost of a slice is bounded by `budget`; the table stays as it
    /// is.
    pub fn rehearse(&self, rehearsal: &mut Rehearsal, budget: Work) -> Rehearsing {
        let mut meter = Meter::new(budget.0);
        rehearsal.begin_slice(self);
        while !meter.is_spent() && rehearsal.place != Place::Over {
            rehearsal.visit(self, &mut meter);
        }
        rehearsal.end_slice();
        Rehearsing { done: Work(meter.spent()), is_over: rehearsal.place == Place::Over }
    }
}

impl Rehearsal {
    fn begin_slice(&mut self, real: &Table) {
        self.has_changed |= self.stamp != real.stamp() || !real.is_settled();
        self.is_deferred |= real.adj_ribs_out.is_deferred();
        let rib = &mut self.shadow.loc_rib;
        rib.attrs = real.loc_rib.attrs.emptied();
        rib.hops = NextHops::with_neighbors(self.scratch.neighbors.take().unwrap_or_default());
        for addr in &self.set_hops {
            let tracked = real.loc_rib.hops.state_of(*addr);
            let state = tracked.or_else(|| self.intended.next_hops.get(addr)).cloned();
            if state.is_none() {
                self.assumed.insert(*addr);
            }
            rib.hops.adopt(*addr, state.unwrap_or_else(|| NextHopState::connected(*addr, 0)));
        }
    }

    fn end_slice(&mut self) {
        self.scratch.attrs.clear();
        self.scratch.hops.clear();
        self.scratch.memo.clear();
        self.scratch.neighbors = Some(self.shadow.loc_rib.hops.take_neighbors());
    }

    fn visit(&mut self, real: &Table, meter: &mut Meter) {
        meter.spend(1);
        match self.place {
            Place::Dest(family, at) if at < real.loc_rib.dests(family).slots() => {
                self.place = Place::Dest(family, at + 1);
                let dest = DestId(at);
                if real.loc_rib.dests(family).is_live(dest) {
                    let prefix = real.loc_rib.dests(family).prefix(dest);
                    self.compare(real, family, prefix, Some(dest), meter);
                }
            }
            Place::Dest(Family::Ipv4, _) => self.place = Place::Dest(Family::Ipv6, 0),
            Place::Dest(Family::Ipv6, _) => self.place = Place::Local(0),
            Place::Local(at) => {
                let Some((prefix, _)) = self.local.get(at).copied() else {
                    self.place = Place::Over;
                    return;
                };
                self.place = Place::Local(at + 1);
                let is_first = at == 0 || self.local[at - 1].0 != prefix;
                let family = prefix.family();
                if is_first && real.loc_rib.dests(family).find(prefix).is_none() {
                    self.compare(real, family, prefix, None, meter);
                }
            }
            Place::Over => {}
        }
    }

    fn is_reimported(&self, source: SourceId) -> bool {
        self.contexts.get(usize::from(source.0)).is_some_and(Option::is_some)
    }

    /// Compares what was sent of a destination with what would be.
    fn compare(
        &mut self,
        real: &Table,
        family: Family,
        prefix: Prefix,
        dest: Option<DestId>,
        meter: &mut Meter,
    ) {
        let held = dest.map_or(&[][..], |dest| real.loc_rib.dests(family).paths(dest));
        let has_local = !self.local.is_empty() && self.local_of(prefix).next().is_some();
        let is_concerned = self.facts_differ
            || self.keys_differ[family]
            || has_local
            || held
                .iter()
                .any(|path| self.is_reimported(path.source) || self.ending.contains(&path.source));
        if !is_concerned {
            return;
        }
        let (paths, differ) = self.paths_after(real, family, prefix, (dest, held), meter);
        let rib = &self.shadow.loc_rib;
        let finalists = rib.sources.finalists(&paths, &rib.attrs, &rib.hops);
        let best = rib.sources.best_of(&finalists, &paths, &rib.attrs);
        let differ = differ || self.facts_differ;
        for class in 0..self.classes[family].len() {
            if differ || self.classes[family][class].differs {
                meter.spend(WORK_CLASS);
                let place = (family, class, dest);
                self.compare_class(real, place, (prefix, &paths, best), meter);
            }
        }
        self.shadow.loc_rib.local.clear();
    }

    /// The sources of intended local routes to a prefix.
    fn local_of(&self, prefix: Prefix) -> impl Iterator<Item = Source> + use<'_> {
        let from = self.local.partition_point(|(other, _)| *other < prefix);
        let own = self.local[from..].iter().take_while(move |(other, _)| *other == prefix);
        own.map(|(_, source)| *source)
    }

    /// The paths that a destination would have, and whether they differ.
    fn paths_after(
        &mut self,
        real: &Table,
        family: Family,
        prefix: Prefix,
        (dest, held): (Option<DestId>, &[Path]),
        meter: &mut Meter,
    ) -> (SmallVec<[Path; 4]>, bool) {
        let mut differ = false;
        let mut paths = SmallVec::new();
        for path in held {
            meter.spend(WORK_PATH);
            let before = self.translate(real, path);
            let after = match path.source.peer() {
                _ if self.ending.contains(&path.source) => None,
                None => self.local_after(real, prefix, &before),
                Some(_) if self.is_reimported(path.source) => {
                    dest.and_then(|dest| self.import(real, family, (dest, prefix), &before, meter))
                }
                Some(_) => Some(before),
            };
            differ |= after.is_none_or(|after| !after.is_same_import(&before));
            paths.extend(after);
        }
        let added: SmallVec<[Source; 4]> = self.local_of(prefix).collect();
        for source in added {
            let Some(id) = SourceId::local(source) else { continue };
            // A route that is there may differ in more than its path shows.
            differ = true;
            if !held.iter().any(|path| path.source == id) {
                let path = Path { source: id, ..Path::default() };
                paths.extend(self.local_after(real, prefix, &path));
            }
        }
        (paths, differ)
    }

    /// The path of a local route, in the shadow's ids, as it would be.
    fn local_after(&mut self, real: &Table, prefix: Prefix, path: &Path) -> Option<Path> {
        let source = path.source.source();
        let key = (prefix, source);
        let Some(intended) = self.intended.local.get(&key) else {
            let route = real.loc_rib.local.get(&key)?.clone();
            self.shadow.loc_rib.local.insert(key, route);
            return Some(*path);
        };
        let route: LocalRoute = intended.clone()?;
        let local = LocalAttrs { preference: default_preference(source), metric: None };
        let plain = AttrEdit::originate(Origin::Igp);
        let octets = route.attrs.as_deref().unwrap_or(plain.view().as_bytes());
        let attrs = self.shadow.loc_rib.attrs.intern(octets, local);
        self.shadow.loc_rib.local.insert(key, route.clone());
        Some(Path { attrs, ..*path })
    }

    /// Imports a path again, which is in the shadow's ids; `None` if it would be withdrawn.
    fn import(
        &mut self,
        real: &Table,
        family: Family,
        (dest, prefix): (DestId, Prefix),
        path: &Path,
        meter: &mut Meter,
    ) -> Option<Path> {
        let kept = real.loc_rib.received(&(family, dest, path.source, path.path_id));
        let (received, hop) = match kept {
            Some((attrs, hop)) => (self.attrs_of(real, attrs), self.hop_of(real, hop)),
            None => (path.attrs, path.next_hop),
        };
        let context = self.contexts.get(usize::from(path.source.0))?.as_ref()?;
        let octets = self.shadow.loc_rib.attrs.view(received).as_bytes().len();
        meter.spend(WORK_PATH + context.policy.weight.work(octets));
        let checked = self.shadow.check_received(context, received);
        let after = self.shadow.import_route(context, prefix, received, hop, checked).again(path);
        if path.flags.has(PathFlags::LONG_LIVED) {
            let is_barred = |id| self.shadow.loc_rib.attrs.key(id).has(AttrKey::NO_LLGR);
            if is_barred(after.attrs) || is_barred(received) {
                return None;
            }
        }
        self.count_import(family, path, &after);
        Some(after)
    }

    fn count_import(&mut self, family: Family, before: &Path, after: &Path) {
        let is_refused = |path: &Path| path.flags.is_refused();
        // Rejected for another reason is no difference.
        let is_same = before.is_same_import(after) || is_refused(before) && is_refused(after);
        let Some(id) = before.source.peer().filter(|_| !is_same) else { return };
        let imports = &mut self.imports.entry(id).or_default().0[family];
        let count = match (is_refused(before), is_refused(after)) {
            (true, _) => &mut imports.accepted,
            (false, true) => &mut imports.rejected,
            (false, false) => &mut imports.changed,
        };
        *count += 1;
    }

    /// A path of the real table in the shadow's ids.
    fn translate(&mut self, real: &Table, path: &Path) -> Path {
        let attrs = self.attrs_of(real, path.attrs);
        Path { attrs, next_hop: self.hop_of(real, path.next_hop), ..*path }
    }

    fn attrs_of(&mut self, real: &Table, id: AttrId) -> AttrId {
        let (from, to) = (&real.loc_rib.attrs, &mut self.shadow.loc_rib.attrs);
        let intern = || to.intern(from.view(id).as_bytes(), from.local(id));
        *self.scratch.attrs.entry(id).or_insert_with(intern)
    }

    fn hop_of(&mut self, real: &Table, id: NextHopId) -> NextHopId {
        let (from, to) = (&real.loc_rib.hops, &mut self.shadow.loc_rib.hops);
        let Some(hop) = from.hop(id) else { return NextHopId::NONE };
        let intern = || {
            if let Some(state) = from.state_of(hop.addr()) {
                to.adopt(hop.addr(), state.clone());
            }
            to.intern(hop)
        };
        *self.scratch.hops.entry(id).or_insert_with(intern)
    }

    /// Compares what the members of a class were sent with what they would be.
    fn compare_class(
        &mut self,
        real: &Table,
        (family, class, dest): (Family, usize, Option<DestId>),
        (prefix, paths, best): (Prefix, &[Path], Option<usize>),
        meter: &mut Meter,
    ) {
        let Class { group, key, .. } = &self.classes[family][class];
        let Some(group) = real.adj_ribs_out.groups.get(group) else {
            self.has_changed = true;
            return;
        };
        let state = self.shadow.export_view(family);
        let chosen: SmallVec<[Path; 4]> = match (key.add_path, &key.vantage) {
            (Some(send), _) => choose_paths(key, send, paths, state),
            (None, Some(vantage)) if paths.len() > 1 => {
                let best = state.sources.best_from(vantage, paths, state.attrs, state.hops);
                best.map(|at| paths[at]).into_iter().collect()
            }
            (None, _) => best.map(|at| paths[at]).into_iter().collect(),
        };
        let has_ids = key.add_path.is_some();
        let sent = dest.map_or(SmallVec::new(), |dest| group.advertised_paths(dest));
        let mut before: SmallVec<[(Advertised, bool); 4]> =
            sent.into_iter().map(|path| (path, false)).collect();
        for path in &chosen {
            let tx = group.known_tx_id(path);
            let known = before.iter_mut().find(|(old, _)| Some(old.tx) == tx);
            let old = known.map(|(old, is_met)| {
                *is_met = true;
                old.out
            });
            let after = self.export((family, class), prefix, (paths, path), meter);
            // An identifier may be that of another path by then.
            let tx = tx.filter(|_| has_ids && old.is_some());
            self.note(real, (family, class), (prefix, tx), (old, after), (paths, Some(path)));
        }
        for (old, _) in before.into_iter().filter(|(_, is_met)| !is_met) {
            let tx = has_ids.then_some(old.tx);
            self.note(real, (family, class), (prefix, tx), (Some(old.out), None), (paths, None));
        }
    }

    /// What a class would be sent of a path.
    fn export(
        &mut self,
        (family, at): (Family, usize),
        prefix: Prefix,
        (paths, path): (&[Path], &Path),
        meter: &mut Meter,
    ) -> Option<Sent> {
        let key = &self.classes[family][at].key;
        let is_stale = path.flags.has(PathFlags::LONG_LIVED);
        let name =
            (at * 2 + family.index(), path.attrs.0, path.next_hop.0, path.source.0, is_stale);
        let is_memoisable = is_memoisable(key, path.source.source());
        let known = is_memoisable.then(|| self.scratch.memo.get(&name)).flatten();
        if let Some(sent) = known {
            return sent.filter(|sent| self.fits((family, at), prefix, sent));
        }
        meter.spend(WORK_EXPORT);
        let exported = evaluate_path(key, (prefix, paths), path, self.shadow.export_view(family));
        let rib = &mut self.shadow.loc_rib;
        let sent = exported.ok().map(|exported| {
            let attrs = match exported.attrs {
                Some(octets) => rib.attrs.intern(&octets, LocalAttrs::default()),
                None => rib.attrs.retain_plain(path.attrs),
            };
            let id = rib.hops.intern(exported.next_hop);
            let except = Except::of(path.source, rib.hops.neighbor(id));
            let next_hop = Some(exported.next_hop);
            Sent { attrs, next_hop, reflection: exported.reflection, except }
        });
        if is_memoisable {
            self.scratch.memo.insert(name, sent);
        }
        sent.filter(|sent| self.fits((family, at), prefix, sent))
    }

    /// Whether a route fits a message of the group; else it is not advertised.
    fn fits(&mut self, (family, at): (Family, usize), prefix: Prefix, sent: &Sent) -> bool {
        let format = self.classes[family][at].key.format();
        let attrs = self.shadow.loc_rib.attrs.view(sent.attrs);
        let reflected = sent.reflection.map_or(0, |_| Reflection::OCTETS_MAX);
        // AS_PATH and AS4_PATH together are shorter than twice the four-octet form.
        if 2 * attrs.as_bytes().len() + reflected + MESSAGE_OCTETS <= format.max_len {
            return true;
        }
        let Some(next_hop) = sent.next_hop else { return true };
        let edited = sent.reflection.map(|reflection| reflection.apply(attrs));
        let attrs = edited.as_ref().map_or(attrs, AttrEdit::view);
        self.scratch.message.clear();
        let mut writer = UpdateWriter::announce(&mut self.scratch.message, format, attrs, next_hop);
        writer.push(PathId(0), prefix).is_ok()
    }

    /// Counts a route of a class, and lists it if it differs.
    fn note(
        &mut self,
        real: &Table,
        (family, at): (Family, usize),
        (prefix, tx): (Prefix, Option<u32>),
        (old, after): (Option<ExportId>, Option<Sent>),
        (paths, path): (&[Path], Option<&Path>),
    ) {
        let before = old.map(|old| {
            let out = *real.adj_ribs_out.exported.get(old);
            let attrs = self.attrs_of(real, out.attrs);
            let next_hop = real.loc_rib.hops.hop(out.next_hop);
            Sent { attrs, next_hop, reflection: out.reflection, except: out.except }
        });
        let differs = match (&before, &after) {
            (Some(before), Some(after)) => !before.is_same(after),
            _ => true,
        };
        let excepts = (before.map(|sent| sent.except), after.map(|sent| sent.except));
        let class = &mut self.classes[family][at];
        let has_room = class.listed.len() < self.list_max && self.room.routes > 0;
        if !class.count(excepts, differs) || !has_room {
            return;
        }
        let view = self.shadow.export_view(family);
        let shown = |sent: &Sent| {
            let attrs = view.attrs.view(sent.attrs);
            let octets = match sent.reflection {
                Some(reflection) => reflection.apply(attrs).into_bytes().into(),
                None => attrs.as_bytes().into(),
            };
            SentRoute { attrs: octets, next_hop: sent.next_hop }
        };
        let why = after.is_none().then(|| why_withheld(&class.key, prefix, (paths, path), view));
        let route = RouteDifference {
            prefix,
            path_id: tx.map(PathId),
            before: before.as_ref().map(shown),
            after: after.as_ref().map(shown),
            why,
        };
        if !self.room.take(&route) {
            return;
        }
        let nobody = |except: Option<Except>| except.unwrap_or(Except::NOBODY);
        class.listed.push(Listed { route, excepts: (nobody(excepts.0), nobody(excepts.1)) });
    }
}

fn why_withheld(
    key: &crate::export::GroupKey,
    prefix: Prefix,
    (paths, path): (&[Path], Option<&Path>),
    view: ExportView<'_>,
) -> Arc<str> {
    match path.map(|path| evaluate_path(key, (prefix, paths), path, view)) {
        None if key.add_path.is_some() && !paths.is_empty() => "the path is not selected".into(),
        None => "no usable path".into(),
        Some(Err(why)) => why.to_string().into(),
        Some(Ok(_)) => "its attributes do not fit a message".into(),
    }
}
