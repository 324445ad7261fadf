//! What the kernel knows about an attempt or a connection that fails without a word.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use bgp_proto::session::{LastError, Origin, Slot};
use bgp_proto::types::Time;

use super::PeerTask;
use crate::net::conn::Conn;
use crate::net::dial;
use crate::net::signature_drops::SignatureDrops;
use crate::net::{SignedConnection, Unacknowledged};

/// Why a session whose hold timer expires may have been silent.
pub(super) struct Silence {
    /// What the peer has not acknowledged.
    stuck: Option<Unacknowledged>,
    /// Segments of the peer that were dropped for their TCP-AO signature.
    dropped: Option<String>,
}

impl PeerTask {
    /// Says when dialling begins that it is in vain, as far as our own routes tell.
    pub(super) fn note_out_of_reach(&mut self) {
        if let Some(text) = dial::out_of_reach(self.session.config()) {
            let at = self.now();
            self.session.set_last_error(LastError { at, origin: Origin::Local, code: None, text });
        }
    }

    /// Ends an attempt that was not answered in time, which the FSM would end without a reason.
    pub(super) fn end_unanswered_dial(&mut self, now: Time) {
        if self.dial.is_none() {
            return;
        }
        let due = self.session.poll_timeout();
        if !due.is_some_and(|(at, timer)| at <= now && timer == "connect") {
            return;
        }
        self.dial = None;
        let before = self.drops.take();
        let drops = SignatureDrops::recent().zip(before).map(|(now, before)| now.since(before));
        let text = dial::no_answer(self.session.config(), drops);
        self.session.handle_connect_failed(now, &text);
    }

    /// What the kernel knows when the peer's hold timer, or our send hold timer, expires.
    pub(super) fn silence_at(&self, now: Time) -> Option<Silence> {
        let due = self.session.poll_timeout().filter(|(at, _)| *at <= now);
        due.filter(|(_, timer)| matches!(*timer, "hold" | "send hold"))?;
        let conns = || self.conns.iter().flatten();
        // After a change of a key on one side only, all segments of the other are dropped.
        let is_ao = self.session.config().security.ao.is_some();
        let counters =
            |conn: &Conn| Some(SignedConnection::read(conn.stream.as_fd()).ok()?.counters);
        Some(Silence {
            stuck: conns().find_map(|conn| Unacknowledged::on(&conn.stream)),
            dropped: conns().filter(|_| is_ao).find_map(|conn| counters(conn)?.dropped()),
        })
    }

    /// Adds it to the reason why the session has just ended.
    pub(super) fn note_silence(&mut self, now: Time, silence: Silence) {
        let Some(error) = self.session.last_error().filter(|error| error.at == now).cloned() else {
            return;
        };
        let mut text = error.text.clone();
        if let Some(Unacknowledged { segments, retransmissions }) = silence.stuck {
            text += &format!(
                "; {segments} of our segments were not acknowledged after {retransmissions} \
                 retransmissions (ttl-security at the neighbour, MTU?)"
            );
        }
        if let Some(dropped) = silence.dropped {
            text += &format!("; {dropped}");
        }
        self.session.set_last_error(LastError { text, ..error });
    }

    /// [`PeerHandle`](crate::net::PeerHandle) may ask the kernel about the connection in this slot.
    pub(super) fn show_connection(&self, slot: Slot) {
        if let Some(conn) = &self.conns[slot.index()] {
            let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.connection = Arc::downgrade(&conn.stream);
        }
    }
}
