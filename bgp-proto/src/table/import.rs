//! The way in: loop checks, import policy, storing and withdrawing paths.

use std::sync::Arc;

use super::refusals::{RefusalId, Refusals};
use super::{CloseReason, ImportCounts, PeerRoutes, Table, TableEvent};
use crate::policy::{Decision, RouteRef, Source};
use crate::rib::{
    AttrId, AttrKey, DestId, LocalAttrs, LocalRoute, NextHopId, Path, PathFlags, Probe, SourceId,
    Stored, default_preference,
};
use crate::session::Negotiated;
use crate::types::{Family, NextHop, PathId, PeerId, PeerType, Prefix, Role, Time};
use crate::wire::{AttrEdit, AttrView, Origin, RouteAction, RouteBatch, RouteEntry};

/// Prefixes that are looked up together, at least.
const LOOKUPS: usize = 256;

/// Names a path for as long as it is held.
pub(super) type PathName = (Family, DestId, SourceId, u32);

/// What import made of a route. Holds one reference to each id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Imported {
    pub(super) attrs: AttrId,
    pub(super) next_hop: NextHopId,
    pub(super) flags: PathFlags,
    /// As received, where import changed it.
    pub(super) received: Option<(AttrId, NextHopId)>,
    /// What refused it, where something did.
    refused_by: Option<RefusalId>,
}

impl Imported {
    /// What counts a route that import judged so.
    fn counter<'a>(&self, counts: &'a mut ImportCounts) -> &'a mut u64 {
        if !self.flags.is_refused() {
            &mut counts.accepted
        } else if self.flags.has(PathFlags::REJECTED) {
            &mut counts.filtered
        } else {
            &mut counts.looped
        }
    }

    fn path(&self, now: Time, source: SourceId, path_id: PathId) -> Path {
        Path {
            attrs: self.attrs,
            next_hop: self.next_hop,
            path_id: path_id.0,
            received_secs: now.as_secs() as u32,
            source,
            flags: self.flags,
        }
    }
}

/// What import needs to know about the sender.
pub(super) struct ImportContext {
    pub(super) source: SourceId,
    pub(super) routes: Arc<PeerRoutes>,
    pub(super) session: Arc<Negotiated>,
}

impl Table {
    /// See [`Table::apply`].
    pub(super) fn apply_batch(&mut self, now: Time, peer: PeerId, batch: &RouteBatch) {
        self.store_batch(now, peer, batch);
        self.note_octets(now, peer, batch.size());
    }

    fn store_batch(&mut self, now: Time, peer: PeerId, batch: &RouteBatch) {
        let Some(context) = self.context(peer, Liveness::Up) else { return };
        let mut rest = batch.entries();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (window, later) = rest.split_at(self.look_up(batch, rest, &mut found));
            rest = later;
            let mut found = found.drain(..);
            for entry in window {
                self.apply_entry(now, peer, &context, batch, entry, &mut found);
            }
        }
    }

    /// Looks up the prefixes of the next entries together, so that the processor waits for memory
    /// once and not each time. Returns how many entries that covers, at least one.
    fn look_up(&self, batch: &RouteBatch, entries: &[RouteEntry], found: &mut Vec<Probe>) -> usize {
        for (at, entry) in entries.iter().enumerate() {
            if found.len() >= LOOKUPS {
                return at;
            }
            // Markers have no prefixes.
            let dests = &self.rib(entry.family).dests;
            found.extend(batch.nlri(entry).iter().map(|(_, prefix)| dests.probe(prefix)));
        }
        entries.len()
    }

    fn apply_entry(
        &mut self,
        now: Time,
        peer: PeerId,
        context: &ImportContext,
        batch: &RouteBatch,
        entry: &RouteEntry,
        found: &mut impl Iterator<Item = Probe>,
    ) {
        if !context.session.families.contains(entry.family) {
            batch.nlri(entry).iter().zip(found).for_each(drop);
            return;
        }
        match &entry.action {
            RouteAction::Announce { attrs, next_hop } => {
                let attrs = batch.attrs(attrs);
                self.announce(now, peer, context, batch, entry, attrs, *next_hop, found);
            }
            RouteAction::Withdraw => {
                for ((path_id, prefix), probe) in batch.nlri(entry).iter().zip(found) {
                    self.withdraw_path(peer, context.source, path_id, prefix, probe);
                }
            }
            RouteAction::EndOfRib => self.sweep_stale(peer, entry.family),
            RouteAction::RefreshRequest => self.begin_refresh(peer, entry.family),
            RouteAction::RefreshBegin => self.mark_unrefreshed(now, peer, entry.family),
            RouteAction::RefreshEnd => self.sweep_unrefreshed(peer, entry.family),
        }
    }

    pub(super) fn context(&self, peer: PeerId, liveness: Liveness) -> Option<ImportContext> {
        let peer = self.peer(peer)?;
        if liveness == Liveness::Up && peer.up.is_none() {
            return None;
        }
        Some(ImportContext {
            source: peer.source,
            routes: Arc::clone(&peer.routes),
            session: Arc::clone(peer.session.as_ref()?),
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn announce(
        &mut self,
        now: Time,
        peer: PeerId,
        context: &ImportContext,
        batch: &RouteBatch,
        entry: &RouteEntry,
        attrs: &[u8],
        next_hop: NextHop,
        found: &mut impl Iterator<Item = Probe>,
    ) {
        let received = self.attrs.intern(attrs, LocalAttrs::default());
        let hop = self.hops.intern(next_hop);
        // The list comes first: `zip` asks its first side first, and `found` goes on behind it.
        let routes = batch.nlri(entry).iter().zip(found);
        if context.routes.import.is_prefix_independent() {
            self.announce_alike(now, peer, context, entry.family, (received, hop), routes);
        } else {
            for ((path_id, prefix), probe) in routes {
                let verdict = self.judge(context, prefix, received, hop);
                self.store_path(now, peer, context.source, path_id, prefix, probe, &verdict);
                self.release_imported(&verdict);
            }
        }
        self.attrs.release(received);
        self.hops.release(hop);
    }

    /// Announcements that import judges alike. Destinations that are new are made with their path in
    /// one step and counted together: that is what a first full table consists of.
    fn announce_alike(
        &mut self,
        now: Time,
        peer: PeerId,
        context: &ImportContext,
        family: Family,
        (received, hop): (AttrId, NextHopId),
        mut routes: impl Iterator<Item = ((PathId, Prefix), Probe)>,
    ) {
        let Some(mut route) = routes.next() else { return };
        let verdict = self.judge(context, route.0.1, received, hop);
        let plain = verdict.received.is_none() && context.routes.prefixes_max.is_none();
        let mut fresh = std::mem::take(&mut self.fresh);
        loop {
            let ((path_id, prefix), probe) = route;
            let path = verdict.path(now, context.source, path_id);
            let rib = self.rib_mut(family);
            let made = if plain { rib.dests.insert_with(probe, prefix, path) } else { None };
            match made {
                Some(dest) => {
                    rib.touched.insert(dest.0);
                    fresh.push(dest);
                }
                None => {
                    self.count_fresh(peer, family, &verdict, &mut fresh);
                    self.store_path(now, peer, context.source, path_id, prefix, probe, &verdict);
                }
            }
            match routes.next() {
                Some(next) => route = next,
                None => break,
            }
        }
        self.count_fresh(peer, family, &verdict, &mut fresh);
        self.fresh = fresh;
        self.release_imported(&verdict);
    }

    /// Does for destinations that were made with a path what [`Table::put`] does for one path.
    fn count_fresh(
        &mut self,
        peer: PeerId,
        family: Family,
        judged: &Imported,
        fresh: &mut Vec<DestId>,
    ) {
        let count = fresh.len() as u32;
        self.attrs.retain_many(judged.attrs, count);
        self.hops.retain_paths(judged.next_hop, family, fresh);
        if let Some(peer) = self.peer_mut(peer) {
            let held = peer.family_mut(family);
            held.received += count;
            held.accepted += if judged.flags.is_refused() { 0 } else { count };
            *judged.counter(&mut held.imports) += u64::from(count);
            for dest in fresh.iter() {
                held.dests.insert(dest.0);
            }
        }
        if let Some(id) = judged.refused_by {
            self.refusals.count(id, family, count.into());
        }
        fresh.clear();
    }

    /// Loop checks and import policy for one received route.
    pub(super) fn judge(
        &mut self,
        context: &ImportContext,
        prefix: Prefix,
        received: AttrId,
        hop: NextHopId,
    ) -> Imported {
        let external = context.session.peer_type == PeerType::External;
        let mut flags = self.loop_flags(context, self.attrs.view(received));
        if external {
            flags.set(PathFlags::EXTERNAL);
        }
        let unchanged = |table: &mut Self, flags, refused_by| {
            table.attrs.retain(received);
            table.hops.retain(hop);
            Imported {
                attrs: received,
                next_hop: hop,
                flags,
                received: None,
                refused_by: Some(refused_by),
            }
        };
        if flags.is_refused() {
            return unchanged(self, flags, Refusals::of_flags(flags));
        }
        let route = RouteRef {
            prefix,
            attrs: self.attrs.view(received),
            next_hop: self.hops.hop(hop),
            source: Source::Bgp,
            interface: self.hops.interface(hop),
            metric: None,
            peer_type: Some(context.session.peer_type),
        };
        let verdict = context.routes.import.evaluate(&route);
        if verdict.decision != Decision::Accept {
            flags.set(PathFlags::REJECTED);
            let refused_by = self.refusals.of_rule(&context.routes.import, verdict.rule);
            return unchanged(self, flags, refused_by);
        }
        let local = LocalAttrs {
            preference: verdict.preference.unwrap_or(default_preference(Source::Bgp)),
            metric: verdict.metric,
        };
        let attrs = self.imported_attrs(context, received, verdict.attrs, local);
        let next_hop = match verdict.next_hop {
            Some(next_hop) => self.hops.intern(next_hop),
            None => {
                self.hops.retain(hop);
                hop
            }
        };
        let changed = attrs != received || next_hop != hop;
        if changed {
            flags.set(PathFlags::CHANGED);
            self.attrs.retain(received);
            self.hops.retain(hop);
        }
        Imported {
            attrs,
            next_hop,
            flags,
            received: changed.then_some((received, hop)),
            refused_by: None,
        }
    }

    /// The attributes of an accepted route, with a reference of their own: as policy made them, and
    /// marked as RFCs ask for.
    fn imported_attrs(
        &mut self,
        context: &ImportContext,
        received: AttrId,
        mut edit: Option<AttrEdit>,
        local: LocalAttrs,
    ) -> AttrId {
        let view = self.attrs.view(received);
        if context.session.peer_type == PeerType::External
            && context.routes.honour_graceful_shutdown
            && self.attrs.key(received).has(AttrKey::GRACEFUL_SHUTDOWN)
        {
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
            Some(edit) => self.attrs.intern(edit.view().as_bytes(), local),
            None if local == LocalAttrs::default() => {
                self.attrs.retain(received);
                received
            }
            None => {
                let bytes = view.as_bytes().to_vec();
                self.attrs.intern(&bytes, local)
            }
        }
    }

    /// Loops and leaks make a route unusable, never an error (RFC 4271 §9.1.2, RFC 4456 §8,
    /// RFC 9234 §5).
    ///
    /// The AS that loops are looked for is the session's local AS, as in BIRD: with a `local-asn` of
    /// its own a session may lead to a neighbour whose AS is ours elsewhere, and nothing would be
    /// accepted from it.
    fn loop_flags(&self, context: &ImportContext, attrs: AttrView<'_>) -> PathFlags {
        let mut flags = PathFlags::default();
        let allowed = usize::from(context.routes.allow_local_asn);
        let path = attrs.as_path();
        if path.count(context.session.local_asn) > allowed {
            flags.set(PathFlags::AS_LOOP);
        }
        if let (Some(role), Some(marked)) = (context.session.role, attrs.only_to_customer()) {
            let leaked = match role {
                Role::Provider | Role::RouteServer => true,
                Role::Peer => marked != context.session.peer_asn,
                Role::Customer | Role::RouteServerClient => false,
            };
            if leaked {
                flags.set(PathFlags::ROUTE_LEAK);
            }
        }
        if context.session.peer_type == PeerType::Internal {
            if attrs.originator_id() == Some(self.config.router_id) {
                flags.set(PathFlags::ORIGINATOR_LOOP);
            }
            let ours = [Some(self.config.cluster_id), context.routes.cluster_id];
            if attrs.cluster_list().any(|cluster| ours.contains(&Some(cluster))) {
                flags.set(PathFlags::CLUSTER_LOOP);
            }
        }
        flags
    }

    pub(super) fn release_imported(&mut self, judged: &Imported) {
        self.attrs.release(judged.attrs);
        self.hops.release(judged.next_hop);
        if let Some((attrs, hop)) = judged.received {
            self.attrs.release(attrs);
            self.hops.release(hop);
        }
    }

    /// Puts a path in place of the one with the same source and identifier. Takes references of its
    /// own. A route that comes back as it was changes nothing but its marks.
    #[allow(clippy::too_many_arguments)]
    fn store_path(
        &mut self,
        now: Time,
        peer: PeerId,
        source: SourceId,
        path_id: PathId,
        prefix: Prefix,
        probe: Probe,
        judged: &Imported,
    ) {
        let family = prefix.family();
        // The same prefix may have come earlier in the same batch.
        let known = self.rib(family).dests.resolve(probe, prefix);
        if let Some(dest) = known {
            self.withdraw_leftover(peer, family, dest);
        }
        let at = known.and_then(|dest| {
            Some((dest, self.rib(family).dests.find_path(dest, source, path_id)?))
        });
        if let Some((dest, at)) = at {
            let path = self.rib(family).dests.paths(dest)[at];
            let mut flags = path.flags;
            flags.clear(PathFlags::STALE);
            flags.clear(PathFlags::UNREFRESHED);
            let same = path.attrs == judged.attrs
                && path.next_hop == judged.next_hop
                && flags == judged.flags;
            let name = (family, dest, source, path_id.0);
            if same && self.received.get(&name).copied() == judged.received {
                self.rib_mut(family).dests.paths_mut(dest)[at].flags = flags;
                self.count_import(peer, family, |counts| &mut counts.unchanged);
                return;
            }
        } else if !self.has_room(now, peer, family) {
            self.count_import(peer, family, |counts| &mut counts.over_limit);
            self.refusals.count(RefusalId::PREFIX_LIMIT, family, 1);
            return;
        }
        let dest = known.unwrap_or_else(|| self.rib_mut(family).dests.insert(probe, prefix));
        self.put(peer, dest, family, judged.path(now, source, path_id), judged.received);
        self.count_import(peer, family, |counts| judged.counter(counts));
        if let Some(id) = judged.refused_by {
            self.refusals.count(id, family, 1);
        }
    }

    fn count_import(
        &mut self,
        peer: PeerId,
        family: Family,
        counter: impl FnOnce(&mut ImportCounts) -> &mut u64,
    ) {
        if let Some(peer) = self.peer_mut(peer) {
            *counter(&mut peer.family_mut(family).imports) += 1;
        }
    }

    /// Writes a path and everything that counts it.
    pub(super) fn put(
        &mut self,
        peer: PeerId,
        dest: DestId,
        family: Family,
        path: Path,
        received: Option<(AttrId, NextHopId)>,
    ) {
        let stored = self.rib_mut(family).dests.store(dest, path);
        let old = match stored {
            Stored::Refused => {
                self.note(format!(
                    "{}: more than 65535 paths; the path of {} is not used",
                    self.rib(family).dests.prefix(dest),
                    self.peer_name(peer)
                ));
                return;
            }
            Stored::Added => None,
            Stored::Replaced(old) => Some(old),
        };
        self.attrs.retain(path.attrs);
        self.hops.retain_path(path.next_hop, family, dest);
        let name = (family, dest, path.source, path.path_id);
        if let Some((attrs, hop)) = received {
            self.attrs.retain(attrs);
            self.hops.retain(hop);
        }
        let before = match received {
            Some(pair) => self.received.insert(name, pair),
            None if old.is_some_and(|old| old.flags.has(PathFlags::CHANGED)) => {
                self.received.remove(&name)
            }
            None => None,
        };
        self.release_received(before);
        if let Some(old) = old {
            self.attrs.release(old.attrs);
            self.hops.release_path(old.next_hop);
        }
        if let Some(peer) = self.peer_mut(peer) {
            let held = peer.family_mut(family);
            if old.is_none() {
                held.received += 1;
                held.dests.insert(dest.0);
            }
            held.accepted -= u32::from(old.is_some_and(|old| !old.flags.is_refused()));
            held.accepted += u32::from(!path.flags.is_refused());
        }
        self.rib_mut(family).touched.insert(dest.0);
    }

    fn release_received(&mut self, pair: Option<(AttrId, NextHopId)>) {
        if let Some((attrs, hop)) = pair {
            self.attrs.release(attrs);
            self.hops.release(hop);
        }
    }

    fn withdraw_path(
        &mut self,
        peer: PeerId,
        source: SourceId,
        path_id: PathId,
        prefix: Prefix,
        probe: Probe,
    ) {
        let family = prefix.family();
        let known = self.rib(family).dests.resolve(probe, prefix);
        if let Some(dest) = known {
            self.withdraw_leftover(peer, family, dest);
        }
        let dests = &self.rib(family).dests;
        let place = known.and_then(|dest| Some((dest, dests.find_path(dest, source, path_id)?)));
        match place {
            Some((dest, at)) => {
                self.take_out(peer, family, dest, at);
                self.count_import(peer, family, |counts| &mut counts.withdrawn);
            }
            None => self.count_import(peer, family, |counts| &mut counts.withdrawn_unknown),
        }
    }

    /// Removes the path at `at` and everything that counts it.
    pub(super) fn take_out(&mut self, peer: PeerId, family: Family, dest: DestId, at: usize) {
        let rib = self.rib_mut(family);
        let path = rib.dests.withdraw(dest, at);
        rib.touched.insert(dest.0);
        let last = rib.dests.paths(dest).iter().all(|other| other.source != path.source);
        self.release_path(family, dest, &path);
        if let Some(peer) = self.peer_mut(peer) {
            let held = peer.family_mut(family);
            held.received -= 1;
            held.accepted -= u32::from(!path.flags.is_refused());
            if last {
                held.dests.remove(dest.0);
            }
            let bound = peer.routes.prefixes_max.map(|max| warning_bound(max, &peer.routes));
            let held = peer.family_mut(family);
            // A count that goes up and down at the bound is one crossing.
            held.warned &= bound.is_some_and(|bound| held.received >= bound - bound / 8);
        }
    }

    pub(super) fn release_path(&mut self, family: Family, dest: DestId, path: &Path) {
        self.attrs.release(path.attrs);
        self.hops.release_path(path.next_hop);
        if path.flags.has(PathFlags::CHANGED) {
            let pair = self.received.remove(&(family, dest, path.source, path.path_id));
            self.release_received(pair);
        }
    }

    /// Whether the peer may add one more path; gives the warning and the verdict once each.
    fn has_room(&mut self, now: Time, id: PeerId, family: Family) -> bool {
        let turn = self.turn + 1;
        let Some(peer) = self.peer_mut(id) else { return false };
        let Some(bound) = peer.routes.prefixes_max else { return true };
        let warning = warning_bound(bound, &peer.routes);
        let held = peer.family_mut(family);
        if held.limited {
            return false;
        }
        let count = held.received.saturating_add(1);
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

    /// See [`Table::handle_local`].
    pub(super) fn set_local(
        &mut self,
        now: Time,
        prefix: Prefix,
        source: Source,
        route: Option<LocalRoute>,
    ) {
        let Some(id) = SourceId::own(source) else { return };
        let family = prefix.family();
        let Some(route) = route else {
            self.own.remove(&(prefix, source));
            let Some(dest) = self.rib(family).dests.find(prefix) else { return };
            if let Some(at) = self.rib(family).dests.find_path(dest, id, PathId(0)) {
                let path = self.rib_mut(family).dests.withdraw(dest, at);
                self.rib_mut(family).touched.insert(dest.0);
                self.release_path(family, dest, &path);
            }
            return;
        };
        let before = self.own.insert((prefix, source), route.clone());
        if before.as_ref() == Some(&route) {
            return;
        }
        let dest = self.rib_mut(family).dests.find_or_insert(prefix);
        let local = LocalAttrs { preference: default_preference(source), metric: None };
        let attrs = match &route.attrs {
            Some(bytes) => self.attrs.intern(bytes, local),
            None => self.attrs.intern(AttrEdit::originate(Origin::Igp).view().as_bytes(), local),
        };
        let path = Path {
            attrs,
            next_hop: NextHopId::NONE,
            path_id: 0,
            received_secs: now.as_secs() as u32,
            source: id,
            flags: PathFlags::default(),
        };
        match self.rib_mut(family).dests.store(dest, path) {
            Stored::Added => {}
            Stored::Replaced(old) => self.attrs.release(old.attrs),
            Stored::Refused => self.attrs.release(attrs),
        }
        self.rib_mut(family).touched.insert(dest.0);
    }
}

/// Whether a session must be up for what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Up,
    Any,
}

fn warning_bound(bound: u32, routes: &PeerRoutes) -> u32 {
    let share = u64::from(bound) * u64::from(routes.prefixes_warning_percent.min(100)) / 100;
    u32::try_from(share).unwrap_or(bound).max(1)
}
