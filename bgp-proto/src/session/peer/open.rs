//! The handshake: from a TCP connection to an established session.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Action, Close, Conn, MessageType, Notification, Offer, Peer, RouteBatch, Slot, Tcp};
use crate::session::collision::{Survivor, resolve_established, resolve_open_confirm};
use crate::session::conn::{OpenSent, expects, unexpected_subcode};
use crate::session::negotiate::negotiate;
use crate::session::offer::build_open;
use crate::session::timers::Incoming;
use crate::types::Time;
use crate::wire::{Code, Frame, Open};

impl Peer {
    /// A connection exists: OPEN goes out (RFC 4271 §8.2.2, events 16 and 17), unless nobody
    /// wants it.
    pub(super) fn accept(&mut self, now: Time, slot: Slot, local: SocketAddr, remote: SocketAddr) {
        let replaced = Close::Transport { text: "replaced by a new connection".to_owned() };
        self.end(now, slot, replaced, Tcp::Gone);
        self.outbox.octets(slot).clear();
        let wanted = match slot {
            Slot::Outgoing => self.finish_dial(),
            Slot::Incoming | Slot::Reconnect => self.accepts() == Incoming::Accept,
        };
        if !wanted {
            if !slot.is_outgoing() {
                self.send_notification(slot, &Notification::new(Code::CONNECTION_REJECTED));
            }
            return self.outbox.push(Action::Close { slot, abort: false });
        }
        let open = build_open(&self.config, &self.offer, self.restart);
        open.encode(self.outbox.octets(slot));
        let conn = OpenSent::new(now, local, remote, open.capabilities);
        self.put(slot, Conn::OpenSent(conn));
    }

    /// One complete message on a connection that exists.
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
            MessageType::Open => self.handle_open(now, slot, frame.body()),
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
    fn handle_open(&mut self, now: Time, slot: Slot, body: &[u8]) {
        let Some(Conn::OpenSent(conn)) = self.conn(slot) else { return };
        let negotiated = Open::decode(body).and_then(|open| {
            negotiate(&self.config, &conn.offered, &open, conn.local, conn.remote)
        });
        let negotiated = match negotiated {
            Ok(negotiated) => Arc::new(negotiated),
            Err(answer) => return self.close(now, slot, Close::Protocol(answer)),
        };
        for other in Slot::ALL.into_iter().filter(|other| *other != slot) {
            let (survivor, loses_with) = match self.conn(other) {
                None | Some(Conn::OpenSent(_)) => continue,
                Some(Conn::OpenConfirm(_)) => {
                    (resolve_open_confirm(&self.config, &negotiated, slot, other), Close::Collision)
                }
                Some(Conn::Established(conn)) => {
                    (resolve_established(&conn.negotiated, slot), Close::Replaced)
                }
            };
            match survivor {
                Survivor::New => self.close(now, other, loses_with),
                Survivor::Existing => return self.close(now, slot, Close::Collision),
            }
        }
        let Some(Conn::OpenSent(conn)) = self.take(slot) else { return };
        let conn = conn.confirm(now, negotiated, &mut self.jitter);
        self.put(slot, Conn::OpenConfirm(conn));
        self.send_keepalive(slot);
    }

    fn handle_keepalive(&mut self, now: Time, slot: Slot) {
        self.stats.keepalives_received += 1;
        if let Some(Some(Conn::Established(conn))) = self.conns.get_mut(slot.index()) {
            return conn.restart_hold(now);
        }
        if let Some(Conn::OpenConfirm(conn)) = self.take(slot) {
            let conn = conn.establish(now, &self.config);
            self.establish(now, slot, Conn::Established(Box::new(conn)));
        }
    }

    /// RFC 4271 §8.2.2 OpenConfirm, event 26. Other connections have lost.
    fn establish(&mut self, now: Time, slot: Slot, conn: Conn) {
        let Some(negotiated) = conn.negotiated().cloned() else { return };
        self.put(slot, conn);
        self.rest();
        for other in Slot::ALL.into_iter().filter(|other| *other != slot) {
            self.close(now, other, Close::Collision);
        }
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
