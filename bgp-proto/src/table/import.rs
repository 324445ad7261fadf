//! Import: loop detection, import policy, storing and withdrawing paths (RFC 4271 §9.1.1).

mod context;

use std::slice;
use std::sync::Arc;

pub(super) use context::ImportContext;

use super::inputs::Taken;
use super::peer::{Pass, QueuedBatch};
use super::refusals::{RefusalId, Refusals};
use super::{CloseReason, Drain, ImportCounts, Table, TableEvent};
use crate::policy::{Decision, Source};
use crate::rib::{
    AttrId, AttrKey, DestId, LocalAttrs, LocalRoute, Meter, NextHopId, Path, PathFlags, Probe,
    Refusal, SourceId, Stamp, Stored, default_preference,
};
use crate::types::{Family, FamilyMap, NextHop, PathId, PeerId, PeerType, Prefix, Role, Time};
use crate::wire::{AttrEdit, Origin, RouteAction, RouteBatch, RouteEntry};

/// Maximum number of prefixes that are looked up together.
const LOOKUPS: usize = 256;

/// Paths of one destination that are examined per unit of work.
const PATHS_PER_UNIT: u32 = 32;

/// The result of import. Holds one reference to each id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Imported {
    pub(super) attrs: AttrId,
    pub(super) next_hop: NextHopId,
    pub(super) flags: PathFlags,
    /// Attributes and next hop as received, if import changed them.
    pub(super) received: Option<(AttrId, NextHopId)>,
    /// What rejected it, if anything.
    refused_by: Option<RefusalId>,
}

impl Imported {
    /// The counter for a route with this result.
    fn counter<'a>(&self, counts: &'a mut ImportCounts) -> &'a mut u64 {
        if !self.flags.is_refused() {
            &mut counts.accepted
        } else if self.flags.refusal() == Some(Refusal::Rejected) {
            &mut counts.filtered
        } else {
            &mut counts.looped
        }
    }

    fn path(&self, now: Time, source: SourceId, path_id: PathId, stamp: Stamp) -> Path {
        Path {
            attrs: self.attrs,
            next_hop: self.next_hop,
            path_id: path_id.0,
            received_secs: now.as_secs() as u32,
            source,
            flags: self.flags,
            stamp,
        }
    }

    /// `path` with the result of importing it again: one that is long-lived stale stays so.
    pub(super) fn again(&self, path: &Path) -> Path {
        let mut flags = self.flags;
        if path.flags.has(PathFlags::LONG_LIVED) {
            flags.set(PathFlags::LONG_LIVED);
        }
        Path { attrs: self.attrs, next_hop: self.next_hop, flags, ..*path }
    }
}

/// A prefix of a batch, looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookedUp {
    probe: Probe,
    prefix: Prefix,
    path_id: PathId,
    /// Octets of its entry's NLRI after it; 0 for the last one.
    rest: u32,
}

/// What was looked up and is not imported yet.
type Window<'a> = slice::Iter<'a, LookedUp>;

/// A batch being imported.
struct Importing<'a> {
    now: Time,
    peer: PeerId,
    context: &'a ImportContext,
    batch: &'a RouteBatch,
    stamps: FamilyMap<Stamp>,
    meter: &'a mut Meter,
}

/// How far an entry of a batch has been imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Imports {
    Whole,
    /// This many octets of its NLRI are left.
    UpTo(u32),
    /// A pass over the peer's routes has to end first.
    Waits,
}

impl Table {
    /// Applies what is left of a batch, as far as the budget goes.
    pub(super) fn import_some(
        &mut self,
        now: Time,
        peer: PeerId,
        queued: &mut QueuedBatch,
        meter: &mut Meter,
    ) -> Taken {
        let Some(context) = self.context(peer, Liveness::Up) else { return Taken::Whole };
        // The next entry is a marker that has to wait for this pass; there is no need to check it
        // each turn.
        if self.peers.get(peer).is_some_and(|peer| peer.has(Pass::Restamp)) {
            return Taken::Waits;
        }
        let mut found = std::mem::take(&mut self.found);
        let taken = 'batch: loop {
            if queued.entry >= queued.batch.entries().len() {
                break Taken::Whole;
            }
            if meter.is_spent() {
                break Taken::InPart;
            }
            found.clear();
            self.look_up(queued, &mut found);
            // A prefix that the budget does not reach is looked up again in the next turn.
            meter.spend(found.len() as u32 / 4);
            let stamps = self.stamps(peer);
            let batch = &queued.batch;
            let mut importing =
                Importing { now, peer, context: &context, batch, stamps, meter: &mut *meter };
            let (mut window, mut first) = (found.iter(), true);
            // Only what was looked up, and the markers in between; at least one entry in any case.
            while let Some(entry) = batch.entries().get(queued.entry)
                && (window.len() > 0 || entry.nlri.is_empty())
                && (std::mem::take(&mut first) || !importing.meter.is_spent())
            {
                match self.import_entry(&mut importing, entry, &mut window) {
                    Imports::Whole => (queued.entry, queued.rest) = (queued.entry + 1, None),
                    Imports::UpTo(rest) => queued.rest = Some(rest),
                    Imports::Waits => break 'batch Taken::Waits,
                }
            }
        };
        found.clear();
        self.found = found;
        taken
    }

    /// The stamps that a peer's paths get when they are announced.
    fn stamps(&self, peer: PeerId) -> FamilyMap<Stamp> {
        let stamp = |family| self.peers.get(peer).map(|peer| peer.family(family).marks.present);
        FamilyMap(Family::ALL.map(|family| stamp(family).unwrap_or_default()))
    }

    /// Looks up the next prefixes together, so that their memory accesses overlap.
    fn look_up(&self, queued: &QueuedBatch, found: &mut Vec<LookedUp>) {
        let mut rest = queued.rest;
        for entry in queued.batch.entries().get(queued.entry..).unwrap_or_default() {
            if found.len() >= LOOKUPS {
                break;
            }
            // Markers have no prefixes.
            let dests = self.loc_rib.dests(entry.family);
            let nlri = queued.batch.nlri(entry);
            let mut routes = rest.take().map_or(nlri, |rest| nlri.last_octets(rest)).iter();
            while found.len() < LOOKUPS
                && let Some((path_id, prefix)) = routes.next()
            {
                let rest = routes.octets_left();
                found.push(LookedUp { probe: dests.probe(prefix), prefix, path_id, rest });
            }
        }
        self.fetch_paths(found);
    }

    /// Reads, for the same reason, what storing or withdrawing the routes will need of the existing
    /// paths.
    fn fetch_paths(&self, found: &[LookedUp]) {
        let references = found.iter().filter_map(|route| {
            let paths = self.loc_rib.dests(route.prefix.family()).paths(route.probe.found()?);
            Some(self.loc_rib.attrs.refs(paths.first()?.attrs))
        });
        std::hint::black_box(references.fold(0, u32::wrapping_add));
    }

    /// Imports what was looked up of an entry.
    fn import_entry(
        &mut self,
        importing: &mut Importing<'_>,
        entry: &RouteEntry,
        window: &mut Window<'_>,
    ) -> Imports {
        let (peer, family) = (importing.peer, entry.family);
        let is_negotiated = importing.context.session.families.contains(family);
        let mut rest = 0;
        match &entry.action {
            _ if !is_negotiated => {
                for route in window.by_ref() {
                    rest = route.rest;
                    if rest == 0 {
                        break;
                    }
                }
            }
            RouteAction::Announce { attrs, next_hop } => {
                let attrs = importing.batch.attrs(attrs);
                rest = self.announce(importing, family, (attrs, *next_hop), window);
            }
            RouteAction::Withdraw => {
                for route in window.by_ref() {
                    self.withdraw_path(importing, route);
                    rest = route.rest;
                    if rest == 0 || importing.meter.is_spent() {
                        break;
                    }
                }
            }
            RouteAction::EndOfRib => {
                self.end_of_rib(peer, family, importing.meter);
                self.note_end_of_rib(peer, family);
            }
            RouteAction::RefreshRequest => self.refresh(peer, family),
            RouteAction::RefreshBegin => {
                let (now, meter) = (importing.now, &mut *importing.meter);
                if !self.begin_peer_refresh(now, peer, family, meter) {
                    return Imports::Waits;
                }
                importing.stamps = self.stamps(peer);
                return Imports::Whole;
            }
            RouteAction::RefreshEnd => self.end_peer_refresh(peer, family, importing.meter),
        }
        importing.meter.spend(1);
        if rest == 0 { Imports::Whole } else { Imports::UpTo(rest) }
    }

    pub(super) fn context(&self, peer: PeerId, liveness: Liveness) -> Option<ImportContext> {
        let peer = self.peers.get(peer)?;
        if liveness == Liveness::Up && peer.up.is_none() {
            return None;
        }
        Some(ImportContext {
            source: peer.source,
            routes: Arc::clone(&peer.routes),
            session: Arc::clone(peer.session.as_ref()?),
            policy: Arc::clone(&peer.import_policy),
        })
    }

    /// Imports the announcements looked up of an entry; returns how many octets of its NLRI are
    /// left.
    fn announce(
        &mut self,
        importing: &mut Importing<'_>,
        family: Family,
        (attrs, next_hop): (&[u8], NextHop),
        window: &mut Window<'_>,
    ) -> u32 {
        importing.meter.spend(1 + attrs.len() as u32 / 128);
        let received = self.loc_rib.attrs.intern(attrs, LocalAttrs::default());
        let hop = self.loc_rib.hops.intern(next_hop);
        let checked = self.check_received(importing.context, received);
        let mut rest = 0;
        if importing.context.policy.has_classes() {
            while !window.as_slice().is_empty() {
                rest = self.announce_alike(importing, family, (received, hop, checked), window);
                if rest == 0 || importing.meter.is_spent() {
                    break;
                }
            }
        } else {
            let work = 2 + importing.context.policy.weight.work(attrs.len());
            for route in window.by_ref() {
                let imported =
                    self.import_route(importing.context, route.prefix, received, hop, checked);
                self.store_path(importing, route, &imported);
                self.release_imported(&imported);
                importing.meter.spend(work);
                rest = route.rest;
                if rest == 0 || importing.meter.is_spent() {
                    break;
                }
            }
        }
        self.loc_rib.attrs.release(received);
        self.loc_rib.hops.release(hop);
        rest
    }

    /// Imports announcements that all have the same result, to the next prefix of another class. New
    /// destinations are created with their path in one step and counted together: most of an initial
    /// full table is such routes.
    fn announce_alike(
        &mut self,
        importing: &mut Importing<'_>,
        family: Family,
        (received, hop, checked): (AttrId, NextHopId, PathFlags),
        window: &mut Window<'_>,
    ) -> u32 {
        let Some(first) = window.as_slice().first() else { return 0 };
        let context = importing.context;
        let imported = self.import_route(context, first.prefix, received, hop, checked);
        let plain = imported.received.is_none() && context.routes.limits.prefixes_max.is_none();
        let mut path =
            imported.path(importing.now, context.source, PathId(0), importing.stamps[family]);
        let mut fresh = std::mem::take(&mut self.fresh);
        let (mut done, mut rest) = (0, 0);
        let class = context.policy.class(|| first.prefix);
        while let Some(route) = window.as_slice().first() {
            if done > 0 && context.policy.class(|| route.prefix) != class {
                break;
            }
            window.next();
            path.path_id = route.path_id.0;
            let rib = self.loc_rib.rib_mut(family);
            let made =
                if plain { rib.dests.insert_with(route.probe, route.prefix, path) } else { None };
            match made {
                Some(dest) => {
                    importing.meter.spend(rib.dests.take_grown());
                    rib.touched.insert(dest.0);
                    fresh.push(dest);
                }
                None => {
                    self.count_fresh(importing.peer, family, &imported, &mut fresh);
                    self.store_path(importing, route, &imported);
                }
            }
            done += 1;
            rest = route.rest;
            if rest == 0 || importing.meter.is_spent() {
                break;
            }
        }
        importing.meter.spend(2 * done + context.policy.weight.work(0));
        self.count_fresh(importing.peer, family, &imported, &mut fresh);
        self.fresh = fresh;
        self.release_imported(&imported);
        rest
    }

    /// Updates every counter for destinations that were created with a path, as [`Table::put`] does
    /// for one.
    fn count_fresh(
        &mut self,
        peer: PeerId,
        family: Family,
        imported: &Imported,
        fresh: &mut Vec<DestId>,
    ) {
        if self.monitors.is_watching() {
            self.monitors.announced(peer, family, fresh);
        }
        let count = fresh.len() as u32;
        self.loc_rib.attrs.retain_many(imported.attrs, count);
        self.loc_rib.hops.retain_paths(imported.next_hop, family, fresh);
        if let Some(peer) = self.peers.get_mut(peer) {
            let held = peer.family_mut(family);
            held.received += count;
            held.accepted += if imported.flags.is_refused() { 0 } else { count };
            *imported.counter(&mut held.imports) += u64::from(count);
            held.dests.insert_all(fresh.iter().map(|dest| dest.0));
        }
        if let Some(id) = imported.refused_by {
            self.refusals.count(id, family, count.into());
        }
        fresh.clear();
    }

    /// Applies the import policy to one received route. `checked` is the result of
    /// [`Table::check_received`].
    pub(super) fn import_route(
        &mut self,
        context: &ImportContext,
        prefix: Prefix,
        received: AttrId,
        hop: NextHopId,
        checked: PathFlags,
    ) -> Imported {
        let mut flags = checked;
        let unchanged = |table: &mut Self, flags, refused_by| {
            table.loc_rib.attrs.retain(received);
            table.loc_rib.hops.retain(hop);
            Imported {
                attrs: received,
                next_hop: hop,
                flags,
                received: None,
                refused_by: Some(refused_by),
            }
        };
        if let Some(refusal) = flags.refusal() {
            return unchanged(self, flags, Refusals::of_refusal(refusal));
        }
        let route = context.route(&self.loc_rib, prefix, (received, hop));
        let verdict = context.routes.import.policy.evaluate(&route);
        if verdict.decision != Decision::Accept {
            flags.refuse(Refusal::Rejected);
            let refused_by = self.refusals.of_rule(&context.routes.import.policy, verdict.rule);
            return unchanged(self, flags, refused_by);
        }
        let local = LocalAttrs {
            preference: verdict.preference.unwrap_or(default_preference(Source::Bgp)),
            metric: verdict.metric,
        };
        let attrs = self.imported_attrs(context, received, verdict.attrs, local);
        let next_hop = match verdict.next_hop {
            Some(next_hop) => self.loc_rib.hops.intern(next_hop),
            None => {
                self.loc_rib.hops.retain(hop);
                hop
            }
        };
        let changed = attrs != received || next_hop != hop;
        if changed {
            flags.set(PathFlags::CHANGED);
            self.loc_rib.attrs.retain(received);
            self.loc_rib.hops.retain(hop);
        }
        Imported {
            attrs,
            next_hop,
            flags,
            received: changed.then_some((received, hop)),
            refused_by: None,
        }
    }

    /// The attributes of an accepted route, with a reference of their own: as the policy changed
    /// them, and marked as RFC 8326 and RFC 9234 require.
    fn imported_attrs(
        &mut self,
        context: &ImportContext,
        received: AttrId,
        mut edit: Option<AttrEdit>,
        local: LocalAttrs,
    ) -> AttrId {
        let view = self.loc_rib.attrs.view(received);
        let import = &context.routes.import;
        let is_shut_down = context.session.peer_type == PeerType::External
            && import.honour_graceful_shutdown
            && self.loc_rib.attrs.key(received).has(AttrKey::GRACEFUL_SHUTDOWN);
        if is_shut_down || import.drain != Drain::Off {
            // RFC 8326 §4.2, after policy: a customer's LOCAL_PREF must not undo a drain.
            edit.get_or_insert_with(|| AttrEdit::from_view(view)).set_local_pref(0);
        }
        if context.session.role.is_some_and(Role::neighbor_is_no_customer)
            && view.only_to_customer().is_none()
        {
            // RFC 9234 §5.
            edit.get_or_insert_with(|| AttrEdit::from_view(view))
                .set_only_to_customer(context.session.peer_asn);
        }
        match edit {
            Some(edit) => self.loc_rib.attrs.intern(edit.view().as_bytes(), local),
            None if local == LocalAttrs::default() => {
                self.loc_rib.attrs.retain(received);
                received
            }
            None => {
                let bytes = view.as_bytes().to_vec();
                self.loc_rib.attrs.intern(&bytes, local)
            }
        }
    }

    /// Checks a route for loops, leaks and limits, which make it ineligible but are never errors
    /// (RFC 4271 §9.1.2, RFC 4456 §8, RFC 9234 §5).
    ///
    /// AS loops are detected with the session's local AS, as in BIRD: with a `local-asn` of its
    /// own, a session may lead to a neighbour in the AS that is ours on other sessions, and no
    /// route of that neighbour would be accepted otherwise.
    pub(super) fn check_received(&self, context: &ImportContext, received: AttrId) -> PathFlags {
        let mut flags = PathFlags::default();
        if context.session.peer_type == PeerType::External {
            flags.set(PathFlags::EXTERNAL);
        }
        if let Some(refusal) = self.refusal_of(context, received) {
            flags.refuse(refusal);
        }
        flags
    }

    fn refusal_of(&self, context: &ImportContext, received: AttrId) -> Option<Refusal> {
        let (attrs, key) = (self.loc_rib.attrs.view(received), self.loc_rib.attrs.key(received));
        let allowed = usize::from(context.routes.import.allow_local_asn);
        if attrs.as_path().count(context.session.local_asn) > allowed {
            return Some(Refusal::AsLoop);
        }
        if context.session.peer_type == PeerType::Internal {
            if attrs.originator_id() == Some(self.config.router_id) {
                return Some(Refusal::OriginatorLoop);
            }
            // Any cluster of ours: a route that went through it has been here (RFC 4456 §8).
            if attrs.cluster_list().any(|cluster| self.cluster_ids.contains(&cluster)) {
                return Some(Refusal::ClusterLoop);
            }
        }
        if let (Some(role), Some(marked)) = (context.session.role, attrs.only_to_customer()) {
            let leaked = match role {
                Role::Provider | Role::RouteServer => true,
                Role::Peer => marked != context.session.peer_asn,
                Role::Customer | Role::RouteServerClient => false,
            };
            if leaked {
                return Some(Refusal::RouteLeak);
            }
        }
        let limits = &context.routes.import.limits;
        if key.asns > limits.as_path_max {
            return Some(Refusal::AsPathTooLong);
        }
        if key.communities > limits.communities_max {
            return Some(Refusal::TooManyCommunities);
        }
        let is_too_long = attrs.as_bytes().len() > usize::from(limits.attributes_max);
        is_too_long.then_some(Refusal::AttributesTooLong)
    }

    pub(super) fn release_imported(&mut self, imported: &Imported) {
        self.loc_rib.attrs.release(imported.attrs);
        self.loc_rib.hops.release(imported.next_hop);
        if let Some((attrs, hop)) = imported.received {
            self.loc_rib.attrs.release(attrs);
            self.loc_rib.hops.release(hop);
        }
    }

    /// Stores a path, replacing the one with the same source and identifier. Takes references of
    /// its own. If the route is unchanged, only its stamp is updated.
    fn store_path(&mut self, importing: &mut Importing<'_>, route: &LookedUp, imported: &Imported) {
        let LookedUp { probe, prefix, path_id, .. } = *route;
        let (peer, source, family) = (importing.peer, importing.context.source, prefix.family());
        let stamp = importing.stamps[family];
        // The same prefix may have occurred earlier in the same batch.
        let known = self.loc_rib.dests(family).resolve(probe, prefix);
        if let Some(dest) = known {
            self.withdraw_leftover(peer, family, dest);
        }
        importing.meter.spend(self.work_of(family, known));
        let at = known.and_then(|dest| {
            Some((dest, self.loc_rib.dests(family).find_path(dest, source, path_id)?))
        });
        let path = imported.path(importing.now, source, path_id, stamp);
        if let Some((dest, at)) = at {
            let old = self.loc_rib.dests(family).paths(dest)[at];
            let name = (family, dest, source, path_id.0);
            let same = old.is_same_import(&path);
            if same && self.loc_rib.received(&name) == imported.received {
                if old.stamp != stamp {
                    self.loc_rib.rib_mut(family).dests.paths_mut(dest)[at].stamp = stamp;
                    self.count_refreshed(peer, family);
                    // A stale path belongs to the present session from here on.
                    if self.monitors.is_watching() {
                        self.monitors.announced(peer, family, &[dest]);
                    }
                }
                self.count_import(peer, family, |counts| &mut counts.unchanged);
                return;
            }
        } else if let Some(bound) = self.exceeds_bound(importing, family, known) {
            self.count_import(peer, family, |counts| &mut counts.over_limit);
            self.refusals.count(bound, family, 1);
            return;
        }
        let dests = &mut self.loc_rib.rib_mut(family).dests;
        let dest = known.unwrap_or_else(|| dests.insert(probe, prefix));
        importing.meter.spend(dests.take_grown());
        self.put(peer, dest, family, path, imported.received);
        self.count_import(peer, family, |counts| imported.counter(counts));
        if let Some(id) = imported.refused_by {
            self.refusals.count(id, family, 1);
        }
    }

    /// Work for examining all paths of a destination when one is added or removed.
    fn work_of(&self, family: Family, known: Option<DestId>) -> u32 {
        let dests = self.loc_rib.dests(family);
        known.map_or(0, |dest| dests.paths(dest).len() as u32 / PATHS_PER_UNIT)
    }

    /// The bound that one more path of the peer would exceed.
    fn exceeds_bound(
        &mut self,
        importing: &Importing<'_>,
        family: Family,
        known: Option<DestId>,
    ) -> Option<RefusalId> {
        let paths_max = usize::from(importing.context.routes.import.limits.paths_max);
        if let Some(dest) = known {
            let paths = self.loc_rib.dests(family).paths(dest);
            let source = importing.context.source;
            if paths.len() >= paths_max
                && paths.iter().filter(|path| path.source == source).count() >= paths_max
            {
                return Some(RefusalId::PATHS_LIMIT);
            }
        }
        let has_room = self.has_room(importing.now, importing.peer, family);
        (!has_room).then_some(RefusalId::PREFIX_LIMIT)
    }

    fn count_refreshed(&mut self, peer: PeerId, family: Family) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.family_mut(family).marks.old -= 1;
        }
    }

    fn count_import(
        &mut self,
        peer: PeerId,
        family: Family,
        counter: impl FnOnce(&mut ImportCounts) -> &mut u64,
    ) {
        if let Some(peer) = self.peers.get_mut(peer) {
            *counter(&mut peer.family_mut(family).imports) += 1;
        }
    }

    /// Stores a path and updates every counter.
    pub(super) fn put(
        &mut self,
        peer: PeerId,
        dest: DestId,
        family: Family,
        path: Path,
        received: Option<(AttrId, NextHopId)>,
    ) {
        let old = match self.loc_rib.store(family, dest, path, received) {
            Stored::Refused => {
                let prefix = self.loc_rib.dests(family).prefix(dest);
                let name = self.peer_name(peer).to_owned();
                self.note(format!("{prefix}: more than 65535 paths; that of {name} is not used"));
                return;
            }
            Stored::Added => None,
            Stored::Replaced(old) => Some(old),
        };
        if self.monitors.is_watching() {
            self.monitors.announced(peer, family, &[dest]);
        }
        let Some(peer) = self.peers.get_mut(peer) else { return };
        let held = peer.family_mut(family);
        match old {
            None => {
                held.received += 1;
                held.dests.insert(dest.0);
            }
            Some(old) => {
                let is_fresh = |path: &Path| path.stamp == held.marks.present;
                held.marks.old -= u32::from(!is_fresh(&old) && is_fresh(&path));
                held.accepted -= u32::from(!old.flags.is_refused());
            }
        }
        held.accepted += u32::from(!path.flags.is_refused());
    }

    fn withdraw_path(&mut self, importing: &mut Importing<'_>, route: &LookedUp) {
        let LookedUp { probe, prefix, path_id, .. } = *route;
        let (peer, source, family) = (importing.peer, importing.context.source, prefix.family());
        let known = self.loc_rib.dests(family).resolve(probe, prefix);
        if let Some(dest) = known {
            self.withdraw_leftover(peer, family, dest);
        }
        importing.meter.spend(2 + self.work_of(family, known));
        let dests = self.loc_rib.dests(family);
        let place = known.and_then(|dest| Some((dest, dests.find_path(dest, source, path_id)?)));
        match place {
            Some((dest, at)) => {
                self.take_out(peer, family, dest, at);
                self.count_import(peer, family, |counts| &mut counts.withdrawn);
            }
            None => self.count_import(peer, family, |counts| &mut counts.withdrawn_unknown),
        }
    }

    /// Removes the path at `at` and updates every counter.
    pub(super) fn take_out(&mut self, peer: PeerId, family: Family, dest: DestId, at: usize) {
        let path = self.loc_rib.withdraw(family, dest, at);
        let mut left = self.loc_rib.dests(family).paths(dest).iter();
        let is_last = left.all(|other| other.source != path.source);
        if self.monitors.is_watching() {
            let route = (self.loc_rib.dests(family).prefix(dest), path.path_id);
            self.monitors.withdrawn(peer, dest, route, is_last);
        }
        let Some(peer) = self.peers.get_mut(peer) else { return };
        let bound = peer.routes.limits.warning_at();
        let held = peer.family_mut(family);
        held.received -= 1;
        held.accepted -= u32::from(!path.flags.is_refused());
        held.marks.old -= u32::from(path.stamp != held.marks.present);
        if is_last {
            held.dests.remove(dest.0);
        }
        // A count that oscillates around the bound is one crossing.
        held.warned &= bound.is_some_and(|bound| held.counted() >= bound - bound / 8);
    }

    /// Whether the peer may add one more path; warns and requests the close once each.
    fn has_room(&mut self, now: Time, id: PeerId, family: Family) -> bool {
        let turn = self.turn;
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let limits = &peer.routes.limits;
        let Some((bound, warning)) = limits.prefixes_max.zip(limits.warning_at()) else {
            return true;
        };
        let held = peer.family_mut(family);
        if held.limited {
            return false;
        }
        let count = held.counted().saturating_add(1);
        if count > bound {
            held.limited = true;
            self.order_close(now, id, CloseReason::PrefixLimit { family, bound });
            return false;
        }
        if count >= warning && !held.warned && held.warned_in != turn {
            (held.warned, held.warned_in) = (true, turn);
            self.events.push_back(TableEvent::PrefixWarning { peer: id, family, count, bound });
        }
        true
    }

    /// Adds or replaces (`Some`), or removes a local route. Keyed by prefix and source.
    pub fn handle_local(
        &mut self,
        now: Time,
        prefix: Prefix,
        source: Source,
        route: Option<LocalRoute>,
    ) {
        let Some(id) = SourceId::local(source) else { return };
        let family = prefix.family();
        let Some(route) = route else {
            self.loc_rib.set_local(prefix, source, id, None);
            let Some(dest) = self.loc_rib.dests(family).find(prefix) else { return };
            if let Some(at) = self.loc_rib.dests(family).find_path(dest, id, PathId(0)) {
                self.loc_rib.withdraw(family, dest, at);
            }
            return;
        };
        let before = self.loc_rib.set_local(prefix, source, id, Some(route.clone()));
        if before.as_ref() == Some(&route) {
            return;
        }
        let dest = self.loc_rib.rib_mut(family).dests.find_or_insert(prefix);
        let local = LocalAttrs { preference: default_preference(source), metric: None };
        let attrs = match &route.attrs {
            Some(bytes) => self.loc_rib.attrs.intern(bytes, local),
            None => {
                let plain = AttrEdit::originate(Origin::Igp);
                self.loc_rib.attrs.intern(plain.view().as_bytes(), local)
            }
        };
        let path =
            Path { attrs, received_secs: now.as_secs() as u32, source: id, ..Path::default() };
        self.loc_rib.store(family, dest, path, None);
        self.loc_rib.attrs.release(attrs);
    }
}

/// Whether [`Table::context`] requires the session to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Up,
    Any,
}
