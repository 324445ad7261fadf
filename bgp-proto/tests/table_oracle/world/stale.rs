//! What the model keeps of ended sessions, and for how long.

use std::time::Duration;

use bgp_proto::session::Keep;
use bgp_proto::types::{Community, Family, FamilyMap, FamilySet, PeerId, SessionId, Time};

use super::{STALE_TIME, World};
use crate::model::{PEERS, kind};

/// The stale routes of one family (RFC 4724 §4.2, RFC 9494 §4.2).
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) stale: bool,
    /// The end of the restart time, or of the wait for End-of-RIB.
    pub(super) until: Option<Time>,
    /// Upper limit of `until`, however often the peer restarts.
    pub(super) bound: Option<Time>,
    /// What comes after the restart time.
    pub(super) long_time: Duration,
    /// The end of the long-lived stale time, once it has begun.
    pub(super) long_until: Option<Time>,
    /// That time was over before End-of-RIB.
    pub(super) overdue: bool,
}

impl World {
    pub(super) fn down(&mut self, peer: usize, keep: u8) {
        if !self.sessions[peer].up {
            return;
        }
        let mut families = FamilySet::EMPTY;
        if keep % 2 == 1 {
            families.insert(Family::Ipv4);
        }
        if keep % 4 == 3 {
            families.insert(Family::Ipv6);
        }
        let restart_time = Duration::from_secs([120, 120, 0, 30][usize::from(keep >> 2) % 4]);
        let long = |bits: u8| match self.model.is_long_lived && kind(peer).knows_long_lived {
            true => Duration::from_secs([0, 60, 400, 1000][usize::from(bits) % 4]),
            false => Duration::ZERO,
        };
        let long_lived = FamilyMap([long(keep >> 4), long(keep >> 6)]);
        let keep = Keep { families, restart_time, long_lived };
        let session = self.sessions[peer].id;
        let offered = (!keep.is_empty()).then_some(keep);
        self.table.peer_down(PeerId(peer as u32), session, offered);
        // The end of an earlier session must be ignored.
        self.table.peer_down(PeerId(peer as u32), SessionId(0), None);
        self.turn_due = true;
        let session = &mut self.sessions[peer];
        session.up = false;
        session.receivers.clear();
        session.refresh_until = [None; 2];
        for family in Family::ALL {
            self.keep(peer, family, keep.of(family));
        }
        self.settle_emptied();
    }

    /// What a lost session leaves.
    fn keep(&mut self, peer: usize, family: Family, terms: Option<(Duration, Duration)>) {
        let kept = &mut self.sessions[peer].kept[family.index()];
        let Some((restart, long)) = terms.filter(|_| !kept.overdue) else {
            return self.drop_all(peer, family);
        };
        if kept.long_until.is_some() {
            kept.until = Some(self.now + restart);
        } else {
            let bound = *kept.bound.get_or_insert(self.now + restart + STALE_TIME);
            kept.until = Some((self.now + restart).min(bound));
            kept.long_time = long;
            if long.is_zero() && !kind(peer).notifies {
                self.model.received.retain(|(p, prefix, _), route| {
                    *p != peer || prefix.family() != family || !route.stale
                });
            }
        }
        let kept = &mut self.sessions[peer].kept[family.index()];
        kept.stale = false;
        for ((p, prefix, _), route) in &mut self.model.received {
            if *p == peer && prefix.family() == family {
                (route.stale, kept.stale) = (true, true);
            }
        }
        if !kept.stale {
            *kept = Kept::default();
        }
        self.expire(peer, family);
    }

    fn drop_all(&mut self, peer: usize, family: Family) {
        self.model.received.retain(|(p, prefix, _), _| *p != peer || prefix.family() != family);
        self.sessions[peer].kept[family.index()] = Kept::default();
    }

    /// What follows from timers of stale routes that have expired.
    fn expire(&mut self, peer: usize, family: Family) {
        let up = self.sessions[peer].up;
        let kept = &mut self.sessions[peer].kept[family.index()];
        let is_over = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
        let (over, long_over) = (is_over(kept.until), is_over(kept.long_until));
        match (up, kept.long_until) {
            _ if !over && !long_over => {}
            (true, _) if over => self.sweep_stale(peer, family),
            (true, _) => {
                let until = kept.until;
                self.sweep_stale(peer, family);
                self.sessions[peer].kept[family.index()] =
                    Kept { until, overdue: true, ..Kept::default() };
            }
            (false, Some(_)) if long_over => self.drop_all(peer, family),
            (false, None) if kept.long_time.is_zero() => self.drop_all(peer, family),
            (false, begun) => {
                kept.long_until = begun.or(Some(self.now + kept.long_time));
                (kept.until, kept.bound) = (None, None);
                self.model.received.retain(|(p, prefix, _), route| {
                    let is_kept = *p != peer || prefix.family() != family;
                    route.long_lived |= !is_kept;
                    is_kept || !route.attrs.communities.contains(&Community::NO_LLGR.0)
                });
                let mut held = self.model.received.keys();
                if !held.any(|(p, prefix, _)| *p == peer && prefix.family() == family) {
                    self.sessions[peer].kept[family.index()] = Kept::default();
                    self.emptied = true;
                }
            }
        }
    }

    pub(super) fn sweep_stale(&mut self, peer: usize, family: Family) {
        self.model
            .received
            .retain(|(p, prefix, _), r| *p != peer || prefix.family() != family || !r.stale);
        self.sessions[peer].kept[family.index()] = Kept::default();
    }

    pub(super) fn wait(&mut self, secs: u64) {
        // Inputs that were handed over before belong to the old time: process them before the clock
        // advances.
        while self.turn_due {
            self.finish();
        }
        self.now = self.now + Duration::from_secs(secs);
        let mut earliest: Option<Time> = None;
        for peer in 0..PEERS {
            let session = &self.sessions[peer];
            let stale = session.kept.iter().flat_map(|kept| [kept.until, kept.long_until]);
            let deadlines = stale.chain(session.refresh_until).flatten();
            earliest = deadlines.chain(earliest).min();
        }
        assert_eq!(self.table.poll_timeout(), earliest);
        if earliest.is_none_or(|at| at > self.now) {
            return;
        }
        self.turn_due = true;
        for peer in 0..PEERS {
            for family in Family::ALL {
                let refresh = self.sessions[peer].refresh_until[family.index()];
                self.expire(peer, family);
                if refresh.is_some_and(|at| at <= self.now) {
                    self.sweep_unrefreshed(peer, family);
                }
            }
        }
        self.settle_emptied();
    }

    /// The table notices that nothing is left once its pass ends, if the peer is not back by then.
    fn settle_emptied(&mut self) {
        if std::mem::take(&mut self.emptied) {
            while self.turn_due {
                self.finish();
            }
        }
    }
}
