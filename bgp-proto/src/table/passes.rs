//! Passes over all destinations of a peer, in slices.
//!
//! The Adj-RIB-In of an ended session is detached at once: it no longer counts as the peer's, and a
//! new session begins empty. The paths themselves stay usable until the pass withdraws them, or
//! until the peer announces or withdraws their destination, whichever is first.
//!
//! A path keeps the result of its import until the pass reaches it. What the peer sends meanwhile
//! is evaluated with the current parameters, and re-evaluating that once more changes nothing.

use super::import::{ImportContext, Liveness};
use super::peer::Pass;
use super::{RECOUNT, Table, TableEvent};
use crate::rib::{AttrKey, DestId, Meter, Path, PathFlags, SparseSet};
use crate::types::{Family, PeerId};

impl Table {
    /// Begins to withdraw everything that a peer holds in a family. The previous pass has ended.
    pub(super) fn begin_withdrawal(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let held = peer.family_mut(family);
        // Inputs that end a session wait for the previous pass; a timer does not.
        let leftover = std::mem::take(held.pass_mut(Pass::Withdraw));
        held.passes = Default::default();
        let mut dests = std::mem::take(&mut held.dests);
        for dest in leftover.iter() {
            dests.insert(dest);
        }
        *held.pass_mut(Pass::Withdraw) = dests;
        (held.received, held.accepted, held.warned) = (0, 0, false);
        held.retention.reset();
        held.marks.settle();
        self.peers.set_busy(id);
    }

    /// Begins a pass over the peer's Adj-RIB-In.
    pub(super) fn begin_pass(&mut self, id: PeerId, family: Family, pass: Pass, meter: &mut Meter) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let held = peer.family_mut(family);
        let dests = held.dests.clone();
        // 24 octets each, copied.
        meter.spend((dests.octets() / RECOUNT) as u32);
        *held.pass_mut(pass) = dests;
        held.ends[pass as usize] = true;
        self.peers.set_busy(id);
    }

    /// Begins to withdraw paths that are not fresh (RFC 4724 §4.2, RFC 7313 §4).
    pub(super) fn begin_sweep(&mut self, id: PeerId, family: Family, meter: &mut Meter) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let held = peer.family_mut(family);
        held.refresh_timer.stop();
        // What it has yet to mark is withdrawn, and what a later BoRR makes old is not stale.
        *held.pass_mut(Pass::LongLived) = SparseSet::default();
        held.marks.sweep_from = held.marks.present;
        let is_needed = held.marks.old > 0;
        if is_needed {
            self.begin_pass(id, family, Pass::Sweep, meter);
        } else {
            held.marks.settle();
        }
    }

    /// Withdraws the paths that an ended session left at a destination. Called before a route of
    /// the present session is applied there.
    #[inline]
    pub(super) fn withdraw_leftover(&mut self, id: PeerId, family: Family, dest: DestId) {
        if !self.peers.has_busy() {
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let set = peer.family_mut(family).pass_mut(Pass::Withdraw);
        if !set.is_empty() && set.remove(dest.0) {
            self.withdraw_paths(id, family, dest);
        }
    }

    /// Runs the passes of peers, round robin.
    pub(super) fn run_passes(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some(id) = self.peers.next_busy()
        {
            let share = meter.left() / (self.peers.busy_len() + 1);
            let mut part = meter.part(share.max(500));
            self.run_passes_of(id, &mut part);
            meter.settle(&part);
            let is_done =
                self.peers.get(id).is_none_or(|p| !Pass::ALL.iter().any(|pass| p.has(*pass)));
            if !is_done {
                self.peers.set_busy(id);
            }
            self.peers.finish_removal(id, &mut self.loc_rib.sources, &mut self.imports_before);
        }
    }

    fn run_passes_of(&mut self, id: PeerId, meter: &mut Meter) {
        let context = self.context(id, Liveness::Any);
        for pass in Pass::ALL {
            for family in Family::ALL {
                while !meter.is_spent()
                    && let Some(dest) = self.next_of(id, family, pass)
                {
                    meter.spend(2);
                    // It may have been freed since it was listed, and its slot truncated.
                    if !self.loc_rib.dests(family).is_live(dest) {
                        continue;
                    }
                    match (pass, &context) {
                        (Pass::Withdraw, _) => self.withdraw_paths(id, family, dest),
                        (Pass::Sweep, _) => self.sweep_dest(id, family, dest),
                        (Pass::Restamp, _) => self.restamp(id, family, dest),
                        (Pass::LongLived, _) => self.make_long_lived(id, family, dest),
                        (Pass::Touch, _) => {
                            let rib = self.loc_rib.rib_mut(family);
                            rib.dests.touch_best(dest);
                            rib.touched.insert(dest.0);
                        }
                        (Pass::Reevaluate, Some(context)) => {
                            self.reevaluate(id, context, family, dest, meter);
                        }
                        (Pass::Reevaluate, None) => {}
                    }
                }
                self.end_pass(id, family, pass);
            }
        }
    }

    fn next_of(&mut self, id: PeerId, family: Family, pass: Pass) -> Option<DestId> {
        self.peers.get_mut(id)?.family_mut(family).pass_mut(pass).pop_last().map(DestId)
    }

    fn withdraw_paths(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return };
        loop {
            let paths = self.loc_rib.dests(family).paths(dest);
            let Some(at) = paths.iter().position(|path| path.source == source) else { return };
            self.loc_rib.withdraw(family, dest, at);
        }
    }

    fn sweep_dest(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(peer) = self.peers.get(id) else { return };
        let (source, marks) = (peer.source, peer.family(family).marks);
        loop {
            let mut paths = self.loc_rib.dests(family).paths(dest).iter();
            let found = paths.position(|p| p.source == source && marks.is_swept(p.stamp));
            let Some(at) = found else { return };
            self.take_out(id, family, dest, at);
        }
    }

    fn restamp(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(peer) = self.peers.get(id) else { return };
        let (source, marks) = (peer.source, peer.family(family).marks);
        let paths = self.loc_rib.rib_mut(family).dests.paths_mut(dest).iter_mut();
        for path in paths.filter(|p| p.source == source && p.stamp != marks.present) {
            path.stamp = marks.before_present();
        }
    }

    /// Marks the paths that are not fresh as long-lived stale (RFC 9494 §4.2). The mark stands for
    /// LLGR_STALE, which is attached where a path is advertised or shown.
    fn make_long_lived(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(peer) = self.peers.get(id) else { return };
        let (source, present) = (peer.source, peer.family(family).marks.present);
        let rib = self.loc_rib.rib_mut(family);
        let mut has_changed = false;
        for path in rib.dests.paths_mut(dest) {
            let is_fresh = path.source != source || path.stamp == present;
            if !is_fresh && !path.flags.has(PathFlags::LONG_LIVED) {
                path.flags.set(PathFlags::LONG_LIVED);
                has_changed = true;
            }
        }
        if has_changed {
            rib.dests.touch_best(dest);
            rib.touched.insert(dest.0);
            self.take_out_not_long_lived(id, family, dest);
        }
    }

    /// Withdraws long-lived stale paths with NO_LLGR, from the peer or from the import policy (RFC 9494
    /// §4.2).
    fn take_out_not_long_lived(&mut self, id: PeerId, family: Family, dest: DestId) {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return };
        loop {
            let rib = &self.loc_rib;
            let found = rib.dests(family).paths(dest).iter().position(|path| {
                let name = (family, dest, source, path.path_id);
                let is_barred = |attrs| rib.attrs.key(attrs).has(AttrKey::NO_LLGR);
                path.source == source
                    && path.flags.has(PathFlags::LONG_LIVED)
                    && (is_barred(path.attrs)
                        || path.flags.has(PathFlags::CHANGED)
                            && rib.received(&name).is_some_and(|(attrs, _)| is_barred(attrs)))
            });
            let Some(at) = found else { return };
            self.take_out(id, family, dest, at);
            if let Some(peer) = self.peers.get_mut(id) {
                peer.family_mut(family).not_long_lived += 1;
            }
        }
    }

    fn end_pass(&mut self, id: PeerId, family: Family, pass: Pass) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let held = peer.family_mut(family);
        if held.pass(pass).is_empty() && std::mem::take(&mut held.ends[pass as usize]) {
            match pass {
                Pass::Sweep => held.marks.end_sweep(),
                Pass::Restamp => held.marks.end_restamp(),
                Pass::LongLived => {
                    let count = std::mem::take(&mut held.not_long_lived);
                    if held.received == 0 && peer.up.is_none() {
                        peer.family_mut(family).retention.reset();
                    }
                    if count > 0 {
                        self.events.push_back(TableEvent::NotLongLived { peer: id, family, count });
                    }
                }
                Pass::Withdraw | Pass::Touch | Pass::Reevaluate => {}
            }
        }
    }

    /// Import parameters of a peer changed: all that it holds is re-evaluated.
    pub(super) fn reimport(&mut self, id: PeerId, meter: &mut Meter) {
        for family in Family::ALL {
            self.begin_pass(id, family, Pass::Reevaluate, meter);
        }
    }

    /// A next hop is reached through another interface: paths through it are re-evaluated if the
    /// import policy matches interfaces.
    pub(super) fn reimport_dest(&mut self, id: PeerId, family: Family, dest: DestId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.routes.import.policy.looks_at_interface()
        {
            peer.family_mut(family).pass_mut(Pass::Reevaluate).insert(dest.0);
            self.peers.set_busy(id);
        }
    }

    fn reevaluate(
        &mut self,
        peer: PeerId,
        context: &ImportContext,
        family: Family,
        dest: DestId,
        meter: &mut Meter,
    ) {
        let dests = self.loc_rib.dests(family);
        let paths = dests.paths(dest).iter();
        let paths: Vec<Path> = paths.filter(|p| p.source == context.source).copied().collect();
        if paths.is_empty() {
            return;
        }
        let prefix = dests.prefix(dest);
        let mut any_long_lived = false;
        for path in paths {
            let name = (family, dest, path.source, path.path_id);
            let kept = self.loc_rib.received(&name);
            let (received, hop) = kept.unwrap_or((path.attrs, path.next_hop));
            let octets = self.loc_rib.attrs.view(received).as_bytes().len();
            meter.spend(4 + context.policy.weight.work(octets));
            let checked = self.check_received(context, received);
            let imported = self.import_route(context, prefix, received, hop, checked);
            let new = imported.again(&path);
            any_long_lived |= path.flags.has(PathFlags::LONG_LIVED);
            if !new.is_same_import(&path) {
                self.put(peer, dest, family, new, imported.received);
            }
            self.release_imported(&imported);
        }
        // The new policy may have set NO_LLGR.
        if any_long_lived {
            self.take_out_not_long_lived(peer, family, dest);
        }
    }
}
