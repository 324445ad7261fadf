//! The end of a connection.

use super::{Action, Close, Conn, Peer, Slot};
use crate::session::timers::STABLE_TIME;
use crate::session::{HoldExpiry, blame};
use crate::types::Time;
use crate::wire::Code;

/// Whether there is still a TCP connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    Open,
    Gone,
}

impl Peer {
    /// Ends a connection whose TCP connection is still open.
    pub(super) fn close(&mut self, now: Time, slot: Slot, reason: Close) {
        self.end(now, slot, reason, Tcp::Open);
    }

    /// The only way in which a connection ends: records the end, sends the NOTIFICATION and `Close`
    /// unless TCP is closed, `Down` if it was the session, and plans what to do next. Does nothing
    /// on an empty slot.
    pub(super) fn end(&mut self, now: Time, slot: Slot, reason: Close, tcp: Tcp) {
        let Some(conn) = self.take(slot) else { return };
        let standing = Standing::of(slot, &conn, &reason);
        self.record(now, standing, &conn, &reason);
        if tcp == Tcp::Open {
            self.notify_peer(slot, &conn, &reason);
        }
        self.reduce_offer(now, slot, &conn, &reason);
        self.count(now, standing, &conn, &reason);
        if let Conn::Established(established) = conn {
            let is_dead =
                reason == Close::HoldTimerExpired && self.config.hold_expiry == HoldExpiry::Death;
            let keep = reason.keep(&established.negotiated).filter(|_| !is_dead);
            self.outbox.push(Action::Down { reason: reason.clone(), keep });
        }
        if reason.holds_idle() && self.accepts() {
            self.hold_idle(now);
        } else {
            self.plan_dial(now);
        }
    }

    fn notify_peer(&mut self, slot: Slot, conn: &Conn, reason: &Close) {
        let abort = matches!(reason, Close::SendHoldTimerExpired | Close::Replaced);
        if abort {
            self.outbox.octets(slot).clear();
        }
        if let Some(notification) = reason.notification(conn.negotiated().map(AsRef::as_ref)) {
            self.send_notification(slot, &notification);
        }
        self.outbox.push(Action::Close { slot, abort });
    }

    /// Offers fewer capabilities next time to a peer that refused them (RFC 5492 §3). On a
    /// connection that we did not dial, an OPEN must have shown that it is the peer's.
    fn reduce_offer(&mut self, now: Time, slot: Slot, conn: &Conn, reason: &Close) {
        let Close::Received(refusal) = reason else { return };
        let is_peers_word = match conn {
            Conn::OpenSent(_) => slot.is_outgoing(),
            Conn::OpenConfirm(_) => true,
            Conn::Established(_) => false,
        };
        if !is_peers_word || self.established().is_some() {
            return;
        }
        if let Some(offer) = self.offer.after(refusal) {
            let code = refusal.code;
            let text = format!("the peer refused our OPEN ({code}); the next one offers {offer}");
            self.outbox.note_limited(now, || text);
            self.offer = offer;
        }
    }

    /// Records the end of a connection in `last_error`, `last_bgp_error`, counters and notes.
    fn record(&mut self, now: Time, standing: Standing, conn: &Conn, reason: &Close) {
        let mut error = reason.to_error(now);
        if let (Close::Received(refusal), Conn::OpenSent(_) | Conn::OpenConfirm(_)) = (reason, conn)
            && let Some(text) = blame::of_our_open(&self.config, refusal)
        {
            error.text = text;
        }
        match standing {
            Standing::Session => {
                self.last_bgp_error = Some(error.clone());
                self.last_error = Some(error);
            }
            Standing::Attempt => self.set_last_error(error),
            Standing::Stray => {
                self.stats.stray_connections += 1;
                match self.established() {
                    Some(_) => self.outbox.note_stray(now, &error.text),
                    // A connection that was merely closed does not explain why there is no session.
                    None if matches!(reason, Close::Transport { .. } | Close::Rejected) => {}
                    None => self.set_last_error(error),
                }
            }
            Standing::Loser => {}
        }
    }

    fn count(&mut self, now: Time, standing: Standing, conn: &Conn, reason: &Close) {
        if let Conn::Established(c) = conn
            && now.since(c.since) >= STABLE_TIME
        {
            self.backoff.reset();
        }
        // RFC 4271 §8.2.2: a NOTIFICATION about the version (event 24) does not count.
        let counts = !matches!(reason, Close::Received(n) if n.code == Code::UNSUPPORTED_VERSION);
        let is_fault = matches!(reason, Close::Protocol(_));
        match standing {
            Standing::Session | Standing::Attempt if counts => self.backoff.count_failure(),
            Standing::Session | Standing::Attempt | Standing::Stray | Standing::Loser => {}
        }
        // Stray connections may not be the peer's: they delay the next ones, not our own attempts.
        match standing {
            Standing::Session if is_fault => self.intake.charge(now),
            Standing::Stray => self.intake.charge(now),
            Standing::Session | Standing::Attempt | Standing::Loser => {}
        }
    }
}

/// The role of a connection when it ended, which determines what its end implies about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The session.
    Session,
    /// A connection that we dialled.
    Attempt,
    /// From the peer's address, and perhaps from the peer.
    Stray,
    /// The loser of a collision.
    Loser,
}

impl Standing {
    fn of(slot: Slot, conn: &Conn, reason: &Close) -> Self {
        match reason {
            _ if matches!(conn, Conn::Established(_)) => Standing::Session,
            Close::Collision => Standing::Loser,
            Close::Received(n) if n.code == Code::CONNECTION_COLLISION => Standing::Loser,
            _ if slot.is_outgoing() => Standing::Attempt,
            _ => Standing::Stray,
        }
    }
}
