//! The end of a connection.

use super::dial::Hold;
use super::{Action, Close, Conn, Peer, Slot};
use crate::session::HoldExpiry;
use crate::session::timers::{Incoming, STABLE_TIME};
use crate::types::Time;
use crate::wire::Code;

/// Whether there is still a TCP connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    Open,
    Gone,
}

impl Peer {
    /// Ends a connection for a reason that leaves TCP to be closed by us.
    pub(super) fn close(&mut self, now: Time, slot: Slot, reason: Close) {
        self.end(now, slot, reason, Tcp::Open);
    }

    /// The one way out of a connection: NOTIFICATION, `Down` if it was the session, `Close` unless
    /// TCP is gone, the record for people, and what to do next. Nothing happens on an empty slot.
    pub(super) fn end(&mut self, now: Time, slot: Slot, reason: Close, tcp: Tcp) {
        let Some(conn) = self.take(slot) else { return };
        if self.is_failure(slot, &conn, &reason) {
            self.last_error = Some(reason.to_error(now));
        }
        if tcp == Tcp::Open {
            self.say_goodbye(slot, &conn, &reason);
        }
        self.retreat(now, &conn, &reason);
        self.count(now, slot, &conn, &reason);
        if let Conn::Established(established) = conn {
            let is_dead =
                reason == Close::HoldTimerExpired && self.config.hold_expiry == HoldExpiry::Death;
            let keep = reason.keep(&established.negotiated).filter(|_| !is_dead);
            self.outbox.push(Action::Down { reason: reason.clone(), keep });
        }
        match reason {
            Close::PrefixLimit { .. } | Close::OutOfResources => {
                self.idle_after(now, Hold::Limits);
            }
            Close::Protocol(_) if self.backoff.incoming() == Incoming::Refuse => {
                self.idle_after(now, Hold::Faults);
            }
            _ => self.plan_dial(now),
        }
    }

    fn say_goodbye(&mut self, slot: Slot, conn: &Conn, reason: &Close) {
        let abort = matches!(reason, Close::SendHoldTimerExpired | Close::Replaced);
        if abort {
            self.outbox.octets(slot).clear();
        }
        if let Some(notification) = reason.notification(conn.negotiated().map(AsRef::as_ref)) {
            self.send_notification(slot, &notification);
        }
        self.outbox.push(Action::Close { slot, abort });
    }

    /// A peer that refuses our capabilities is offered fewer of them next time (RFC 5492 §3).
    fn retreat(&mut self, now: Time, conn: &Conn, reason: &Close) {
        let (Conn::OpenSent(_) | Conn::OpenConfirm(_), Close::Received(refusal)) = (conn, reason)
        else {
            return;
        };
        if let Some(offer) = self.offer.after(refusal) {
            let code = refusal.code;
            let text = format!("the peer refused our OPEN ({code}); the next one offers {offer}");
            self.outbox.note_limited(now, || text);
            self.offer = offer;
        }
    }

    fn count(&mut self, now: Time, slot: Slot, conn: &Conn, reason: &Close) {
        if let Conn::Established(c) = conn
            && now.since(c.since) >= STABLE_TIME
        {
            self.backoff.reset();
        }
        // RFC 4271 §8.2.2: a NOTIFICATION about the version (event 24) does not count.
        let counts = !matches!(reason, Close::Received(n) if n.code == Code::UNSUPPORTED_VERSION);
        if counts && self.is_failure(slot, conn, reason) && conn.counts_as_attempt(slot) {
            self.backoff.count_failure();
        }
        if matches!(reason, Close::Protocol(_)) {
            self.backoff.count_fault();
        }
    }

    /// Whether the end is a failure rather than a choice between two connections.
    fn is_failure(&self, slot: Slot, conn: &Conn, reason: &Close) -> bool {
        let established = matches!(conn, Conn::Established(_));
        let chosen = match reason {
            Close::Collision => true,
            Close::Received(n) => n.code == Code::CONNECTION_COLLISION,
            // The peer closes a loser without a word, too.
            Close::Transport { .. } | Close::Rejected => !slot.is_outgoing(),
            _ => false,
        };
        established || !chosen
    }

    fn idle_after(&mut self, now: Time, cause: Hold) {
        if self.accepts() == Incoming::Accept {
            self.hold_idle(now, cause);
        }
    }
}
