//! The handshake: from a TCP connection to an established session.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Action, Close, Conn, MessageType, Notification, Offer, Peer, RouteBatch, Slot, Tcp};
use crate::session::blame;
use crate::session::collision::{Resolution, keepalive_held_time, resolve};
use crate::session::conn::{FirstKeepalive, OpenSent, expects, unexpected_subcode};
use crate::session::negotiate::{Opens, negotiate};
use crate::session::offer::build_open;
use crate::types::Time;
use crate::wire::{Code, Frame, Open};

impl Peer {
    /// A connection exists: sends our OPEN (RFC 4271 §8.2.2, events 16 and 17), unless the
    /// connection is not wanted.
    pub(super) fn accept(&mut self, now: Time, slot: Slot, local: SocketAddr, remote: SocketAddr) {
        let replaced = Close::Transport { text: "replaced by a new connection".to_owned() };
        self.end(now, slot, replaced, Tcp::Gone);
        self.outbox.octets(slot).clear();
        let wanted = match slot {
            Slot::Outgoing => self.finish_dial(),
            Slot::Incoming | Slot::Reconnect => self.accepts(),
        };
        if !wanted {
            if !slot.is_outgoing() {
                self.send_notification(slot, &Notification::new(Code::CONNECTION_REJECTED));
            }
            return self.outbox.push(Action::Close { slot, abort: false });
        }
        let open = build_open(&self.config, &self.offer, self.restart);
        open.encode(self.outbox.octets(slot));
        let conn = OpenSent::new(now, slot, (local, remote), open);
        self.put(slot, Conn::OpenSent(conn));
    }

    /// Handles one complete message on a connection.
    pub(super) fn handle_message(
        &mut self,
        now: Time,
        slot: Slot,
        frame: Frame<'_>,
        batch: &mut RouteBatch,
    ) {
        let Some(state) = self.conn(slot).map(Conn::state) else { return };
        if !expects(state, frame.kind) {
            let code = Code::new(Code::FSM_ERROR.code, unexpected_subcode(state));
            let answer = Notification::with_data(code, [frame.kind as u8]);
            return self.close(now, slot, Close::Protocol(answer));
        }
        match frame.kind {
            MessageType::Open => self.handle_open(now, slot, frame),
            MessageType::Keepalive => self.handle_keepalive(now, slot),
            MessageType::Notification => {
                self.stats.notifications_received += 1;
                self.close(now, slot, Close::Received(Notification::decode(frame.body())));
            }
            MessageType::Update => self.handle_update(now, slot, frame.body(), batch),
            MessageType::RouteRefresh => self.handle_refresh(now, slot, frame.bytes, batch),
        }
    }

    /// RFC 4271 §8.2.2 OpenSent, events 19 and 22, with §6.8.
    fn handle_open(&mut self, now: Time, slot: Slot, frame: Frame<'_>) {
        let Some(Conn::OpenSent(conn)) = self.conn(slot) else { return };
        let open = match Open::decode(frame.body()) {
            Ok(open) => open,
            Err(answer) => return self.close(now, slot, Close::Protocol(answer)),
        };
        let offered = (&conn.offered, conn.offered_hold_time);
        let negotiated = negotiate(&self.config, offered, &open, conn.local, conn.remote);
        let negotiated = match negotiated {
            Ok(mut negotiated) => {
                let received = frame.bytes.to_vec();
                let opens = Opens { received, ..(*conn.opens).clone() };
                negotiated.opens = Some(Arc::new(opens));
                Arc::new(negotiated)
            }
            Err(notification) => {
                let text = blame::of_peers_open(&self.config, &open, &notification);
                return self.close(now, slot, Close::OpenRefused { notification, text });
            }
        };
        let mut sends_keepalive = true;
        for other in Slot::ALL.into_iter().filter(|other| *other != slot) {
            let Some(existing) = self.conn(other) else { continue };
            match resolve(&self.config, &negotiated, slot, (other, existing)) {
                Resolution::Independent => {}
                Resolution::New => self.close(now, other, Close::Collision),
                Resolution::Existing => return self.close(now, slot, Close::Collision),
                Resolution::HoldKeepalive => sends_keepalive = false,
            }
        }
        let session = self.established().map(|(session, _)| session);
        let decided_at = now + keepalive_held_time(&negotiated, session);
        let Some(Conn::OpenSent(conn)) = self.take(slot) else { return };
        self.put(slot, Conn::OpenConfirm(conn.confirm(now, negotiated, decided_at)));
        if self.awaits_bfd() {
            self.outbox.note_limited(now, || {
                "the session waits for BFD, which is not up (bfd strict)".to_owned()
            });
        } else if sends_keepalive {
            self.send_first_keepalive(now, slot);
        }
    }

    /// Sends our KEEPALIVE on a connection in OpenConfirm, and establishes it if the peer's has
    /// arrived.
    pub(super) fn send_first_keepalive(&mut self, now: Time, slot: Slot) {
        let awaits_bfd = self.awaits_bfd();
        let Some(Some(Conn::OpenConfirm(conn))) = self.conns.get_mut(slot.index()) else { return };
        let FirstKeepalive::Held { peer_confirmed } = conn.first_keepalive else { return };
        if awaits_bfd {
            return;
        }
        conn.release_keepalive(now, &mut self.jitter);
        self.send_keepalive(slot);
        // The peer now relies on this connection: one that we are still dialling would come too
        // late.
        self.give_up_dialling(now);
        if peer_confirmed {
            self.establish(now, slot);
        }
    }

    /// Our KEEPALIVE on a connection was withheld long enough. A peer that has left the connection
    /// open for all that time although it has a session has restarted.
    pub(super) fn expire_held_keepalive(&mut self, now: Time, slot: Slot) {
        if self.awaits_bfd() {
            // The hold timer goes on: it bounds the wait.
            if let Some(Some(Conn::OpenConfirm(conn))) = self.conns.get_mut(slot.index()) {
                conn.hold_keepalive(now + keepalive_held_time(&conn.negotiated, None));
            }
            return;
        }
        if let Some((session, _)) = self.established() {
            self.close(now, session, Close::Replaced);
        }
        self.send_first_keepalive(now, slot);
    }

    /// Sends the withheld KEEPALIVE on connections against which no other can win any more.
    pub(super) fn release_held_keepalives(&mut self, now: Time) {
        for slot in Slot::ALL {
            let Some(Conn::OpenConfirm(conn)) = self.conn(slot) else { continue };
            let mut others = Slot::ALL.into_iter().filter(|other| *other != slot);
            let waits = others.any(|other| {
                self.conn(other).is_some_and(|existing| {
                    resolve(&self.config, &conn.negotiated, slot, (other, existing))
                        == Resolution::HoldKeepalive
                })
            });
            if !waits {
                self.send_first_keepalive(now, slot);
            }
        }
    }

    fn handle_keepalive(&mut self, now: Time, slot: Slot) {
        self.stats.keepalives_received += 1;
        let has_session = self.established().is_some();
        let awaits_bfd = self.awaits_bfd();
        match self.conns.get_mut(slot.index()) {
            Some(Some(Conn::Established(conn))) => conn.restart_hold(now),
            Some(Some(Conn::OpenConfirm(conn))) => match &mut conn.first_keepalive {
                // It was up when our KEEPALIVE was sent.
                FirstKeepalive::Sent if awaits_bfd => {
                    let text = "it went down during the handshake".to_owned();
                    self.close(now, slot, Close::BfdDown { text });
                }
                FirstKeepalive::Sent => self.establish(now, slot),
                // A peer that confirms a second connection although it has a session has restarted.
                FirstKeepalive::Held { peer_confirmed } => {
                    *peer_confirmed = true;
                    if has_session {
                        self.send_first_keepalive(now, slot);
                    }
                }
            },
            _ => {}
        }
    }

    /// RFC 4271 §8.2.2 OpenConfirm, event 26. Closes all other connections.
    fn establish(&mut self, now: Time, slot: Slot) {
        let conn = match self.take(slot) {
            Some(Conn::OpenConfirm(conn)) => conn.establish(now, &self.config),
            // Only OpenConfirm leads to Established.
            Some(conn) => return self.put(slot, conn),
            None => return,
        };
        for other in Slot::ALL.into_iter().filter(|other| *other != slot) {
            let reason = match self.conn(other) {
                Some(Conn::Established(_)) => Close::Replaced,
                _ => Close::Collision,
            };
            self.close(now, other, reason);
        }
        let negotiated = Arc::clone(&conn.negotiated);
        self.put(slot, Conn::Established(Box::new(conn)));
        self.stop_dialing();
        self.stats.established_transitions += 1;
        if self.offer != Offer::Full {
            let text = format!("the session offers {}: the peer refused more", self.offer);
            self.outbox.push(Action::Note(text));
        }
        self.outbox.push(Action::Up { slot, negotiated });
    }

    pub(super) fn send_notification(&mut self, slot: Slot, notification: &Notification) {
        notification.encode(self.outbox.octets(slot));
        self.stats.notifications_sent += 1;
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<Conn> {
        self.conns.get_mut(slot.index()).and_then(Option::take)
    }

    fn put(&mut self, slot: Slot, conn: Conn) {
        if let Some(place) = self.conns.get_mut(slot.index()) {
            *place = Some(conn);
        }
    }
}
