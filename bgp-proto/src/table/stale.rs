//! Stale routes: carries out what [`Retention`](super::retention::Retention) decides.

use super::peer::Pass;
use super::retention::{Loss, Phase, Session, Step, Terms};
use super::{RetainedPhase, Returned, Table, TableEvent};
use crate::rib::Meter;
use crate::types::{Family, PeerId, Time};

impl Table {
    /// The session of a peer has ended: its routes are kept as stale, or withdrawn.
    pub(super) fn keep_or_withdraw(
        &mut self,
        now: Time,
        id: PeerId,
        family: Family,
        terms: Option<Terms>,
        meter: &mut Meter,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let loss = peer.family_mut(family).retention.lost(now, terms);
        let held = peer.family(family);
        let mut kept = held.received;
        match loss {
            Loss::Withdraw => return self.begin_withdrawal(id, family),
            Loss::KeepFresh => {
                kept -= held.marks.old;
                self.begin_sweep(id, family, meter);
            }
            Loss::Keep => {}
        }
        self.mark(id, family);
        if let Some(peer) = self.peers.get_mut(id)
            && kept == 0
        {
            peer.family_mut(family).retention.reset();
        }
        // Without a restart time, the long-lived stale time begins at once.
        self.expire_stale(now, id, family, meter);
    }

    /// Applies what follows from expired timers of stale routes.
    pub(super) fn expire_stale(
        &mut self,
        now: Time,
        id: PeerId,
        family: Family,
        meter: &mut Meter,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let session = if peer.up.is_some() { Session::Up } else { Session::Down };
        let held = peer.family_mut(family);
        let before = held.retention.phase();
        let step = held.retention.expire(now, session);
        if matches!(step, Step::Withdraw | Step::Sweep) {
            let returned = if session == Session::Up { Returned::Yes } else { Returned::No };
            self.note_stale_removal(id, family, before, returned);
        }
        self.apply_step(now, id, family, step, meter);
    }

    pub(super) fn apply_step(
        &mut self,
        now: Time,
        id: PeerId,
        family: Family,
        step: Step,
        meter: &mut Meter,
    ) {
        match step {
            Step::Nothing => {}
            Step::Withdraw => self.begin_withdrawal(id, family),
            Step::Sweep => self.begin_sweep(id, family, meter),
            Step::BeginLongLived => {
                self.begin_pass(id, family, Pass::LongLived, meter);
                let Some(peer) = self.peers.get(id) else { return };
                let held = peer.family(family);
                let (count, ends) = (held.marks.old, held.retention.phase_ends(Session::Down));
                let time = ends.map_or_else(Default::default, |ends| ends.since(now));
                self.events.push_back(TableEvent::LongLivedStale { peer: id, family, count, time });
            }
        }
    }

    /// Withdraws a family's stale routes while the peer has sent nothing since: they are all that
    /// it holds.
    pub(super) fn withdraw_stale(&mut self, id: PeerId, family: Family) {
        if self.peers.get(id).is_some_and(|peer| peer.family(family).retention.is_stale()) {
            self.begin_withdrawal(id, family);
        }
    }

    /// End-of-RIB: withdraws what the peer did not announce again (RFC 4724 §4.2).
    pub(super) fn end_of_rib(&mut self, peer: PeerId, family: Family, meter: &mut Meter) {
        let Some(record) = self.peers.get(peer) else { return };
        let held = record.family(family);
        if held.retention.phase() == Phase::LongLived {
            let count = held.marks.old;
            self.events.push_back(TableEvent::Synchronised { peer, family, count });
        }
        self.sweep_stale(peer, family, meter);
    }

    /// Withdraws what the peer, whose session is up, has not announced again.
    pub(super) fn sweep_stale(&mut self, id: PeerId, family: Family, meter: &mut Meter) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.family_mut(family).retention.synchronised() == Step::Sweep {
            self.begin_sweep(id, family, meter);
        }
    }

    /// Withdraws what the peer, whose session is up, has not announced again, because memory is short.
    pub(super) fn cut_stale_short(&mut self, id: PeerId, family: Family, meter: &mut Meter) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.family_mut(family).retention.cut_short() == Step::Sweep {
            self.begin_sweep(id, family, meter);
        }
    }

    /// Reports that stale routes of a peer are about to be withdrawn, if there are any.
    pub(super) fn note_stale_removal(
        &mut self,
        peer: PeerId,
        family: Family,
        phase: Phase,
        returned: Returned,
    ) {
        let Some(record) = self.peers.get(peer) else { return };
        let count = record.family(family).marks.old;
        if count > 0 {
            let phase = match phase {
                Phase::LongLived => RetainedPhase::LongLived,
                Phase::Fresh | Phase::Stale | Phase::Overdue => RetainedPhase::Restart,
            };
            let event = TableEvent::StaleRemoved { peer, family, count, returned, phase };
            self.events.push_back(event);
        }
    }
}
