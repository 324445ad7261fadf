//! A peer's connections: octets to the FSM, octets to TCP, and closing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Faulty, Slot, State};
use bgp_proto::wire::UpdateContext;
use tokio::net::TcpStream;
use tracing::debug;

use super::recorded::{about, encoding};
use super::{BATCH_MAX, Drained, PeerTask};
use crate::net::conn::{Conn, Read};
use crate::net::debug::Way;
use crate::net::dial;
use crate::net::outlet::{Flush, Progress, Written};
use crate::net::stream::HandOver;

/// Most octets to read from a connection that has failed: more than the kernel buffers by default.
const LAST_OCTETS_MAX: usize = 8 << 20;

/// The source of the FSM's next octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Octets {
    FromSocket,
    /// The kernel's receive buffer of a connection that has failed.
    LastOfSocket,
    /// Octets that were read before, and left because a batch was full.
    LeftOver,
}

impl PeerTask {
    pub(super) fn on_stream(&mut self, slot: Slot, stream: TcpStream) {
        let prepared = match slot {
            Slot::Outgoing => Ok(()),
            Slot::Incoming | Slot::Reconnect => dial::adopt(&stream, self.session.config()),
        };
        let conn = match prepared.and_then(|()| Conn::new(stream, Arc::clone(&self.served))) {
            Ok(conn) => Box::new(conn),
            Err(e) => {
                debug!(peer = %self.name, "connection lost before it was accepted: {e}");
                if slot == Slot::Outgoing {
                    self.session.handle_connect_failed(self.now(), &e.to_string());
                }
                return;
            }
        };
        let (local, remote): (SocketAddr, SocketAddr) = (conn.local, conn.remote);
        // This drops an older connection in the slot, as the FSM expects.
        self.conns[slot.index()] = Some(conn);
        if self.session.state() != State::Established {
            self.show_connection(slot);
        }
        self.blocked[slot.index()] = false;
        self.review_keys();
        self.session.set_restart(self.recovery.restart());
        self.session.handle_connected(self.now(), slot, local, remote);
    }

    /// Reads once, and processes what was read.
    pub(super) fn read(&mut self, slot: Slot) {
        self.spent += self.consume(slot, Octets::FromSocket, HandOver::WithinCredit);
    }

    /// Continues with octets that an earlier read left for lack of credit.
    pub(super) fn consume_left_over(&mut self, slot: Slot) {
        self.consume(slot, Octets::LeftOver, HandOver::WithinCredit);
    }

    /// Sends routes that wait for credit to the table without it, because the session is about to
    /// end.
    pub(super) fn catch_up(&mut self) {
        if self.stream.is_stalled() {
            self.stream.catch_up();
            for slot in Slot::ALL {
                self.consume(slot, Octets::LeftOver, HandOver::AtOnce);
            }
        }
    }

    /// Feeds octets to the FSM until there are no more or credit runs out. Returns how many were
    /// read from the socket.
    ///
    /// The FSM stops within the octets when the batch is full; the rest stays with the connection,
    /// and the loop continues with it once the table has taken the batch.
    fn consume(&mut self, slot: Slot, mut octets: Octets, how: HandOver) -> usize {
        let mut read = 0;
        loop {
            let now = self.now();
            let Some(mut conn) = self.conns[slot.index()].take() else { return read };
            let before = self.session.fruitless_messages();
            let is_mirroring = self.stream.table().is_mirroring();
            self.session.set_faulty(if is_mirroring { Faulty::Reported } else { Faulty::Dropped });
            let context = self.debug.is_on(now).then(|| self.receiving());
            let (session, batch) = (&mut self.session, &mut self.stream.batch);
            let (debug, name, tap) = (&mut self.debug, &self.name, &mut self.tap);
            let recorded = tap
                .is_on(name)
                .then(|| (about(session, Some(conn.addresses())), encoding(session)));
            let feed = |bytes: &[u8]| {
                let taken = session.handle_bytes(now, slot, bytes, batch, BATCH_MAX);
                if let Some(context) = &context {
                    let octets = bytes.get(..taken).unwrap_or_default();
                    debug.log(now, name, Way::Received, octets, context.as_ref());
                }
                if let Some((about, before)) = &recorded {
                    let octets = bytes.get(..taken).unwrap_or_default();
                    tap.received(
                        about,
                        before.or_else(|| encoding(session)).unwrap_or_default(),
                        octets,
                    );
                }
                taken
            };
            let outcome = match octets {
                Octets::FromSocket => conn.read(feed),
                Octets::LastOfSocket => conn.read_last(feed),
                Octets::LeftOver => conn.reread(feed),
            };
            match outcome {
                // This drops the connection: the FSM requests no action for a closed one.
                Read::Closed(text) => self.session.handle_closed(now, slot, &text),
                Read::Blocked => self.conns[slot.index()] = Some(conn),
                Read::Data(octets) => {
                    read += octets;
                    self.conns[slot.index()] = Some(conn);
                }
            }
            let fruitless = self.session.fruitless_messages() - before;
            if let Some(until) = self.allowance.charge(now, fruitless) {
                self.rests_until = Some(until);
            }
            let stopped_early = self.stream.batch.size() >= BATCH_MAX;
            self.on_actions();
            self.stream.hand_over(how);
            if !stopped_early || self.stream.is_stalled() {
                return read;
            }
            octets = Octets::LeftOver;
        }
    }

    /// How the peer's UPDATEs are encoded; `None` without a session.
    fn receiving(&self) -> Option<UpdateContext> {
        self.session.negotiated().map(|n| n.update_context(self.session.config()))
    }

    /// How ours are.
    fn sending(&self) -> Option<UpdateContext> {
        let negotiated = self.session.negotiated()?;
        Some(UpdateContext {
            add_path: negotiated.add_path_tx,
            enforce_first_as: false,
            reject_as_sets: false,
            ..negotiated.update_context(self.session.config())
        })
    }

    /// Carries out the FSM's actions, then writes what can be written.
    pub(super) fn drain(&mut self) -> Drained {
        self.on_actions();
        let mut drained = Drained::Done;
        for slot in Slot::ALL {
            if self.flush(slot) == Drained::More {
                drained = Drained::More;
            }
        }
        // Writing may have failed, to which the FSM responds with further actions.
        self.on_actions();
        drained
    }

    fn flush(&mut self, slot: Slot) -> Drained {
        let now = self.now();
        let context = self.debug.is_on(now).then(|| self.sending());
        let Some(conn) = self.conns[slot.index()].as_ref() else { return Drained::Done };
        let mut output = conn.output();
        let before = output.control().len();
        self.session.poll_transmit(slot, output.control());
        if let Some(context) = &context {
            let added = output.control().get(before..).unwrap_or_default();
            self.debug.log(now, &self.name, Way::Sent, added, context.as_ref());
        }
        output.written = context.is_some().then(Written::default);
        let began = std::time::Instant::now();
        let (outcome, progress) = output.flush();
        let written = output.written.take();
        drop(output);
        if let Some(Written { pieces, omitted }) = written {
            let context = context.as_ref().and_then(Option::as_ref);
            for piece in pieces {
                self.debug.log(now, &self.name, Way::Sent, piece.as_bytes(), context);
            }
            self.debug.omit(omitted);
        }
        if progress == Progress::Some {
            self.served.session_counters.flushed(began.elapsed());
            self.session.handle_sent(now, slot);
        }
        self.blocked[slot.index()] = false;
        match outcome {
            Flush::Idle => {}
            Flush::More => return Drained::More,
            Flush::Blocked => {
                self.session.handle_send_blocked(now, slot);
                self.blocked[slot.index()] = true;
            }
            Flush::Failed(text) => self.end_failed(slot, &text),
        }
        Drained::Done
    }

    /// Ends a connection on which writing failed. What the peer sent before is read first: it may
    /// include a NOTIFICATION, which a router that closes with unread octets sends immediately
    /// before the reset.
    fn end_failed(&mut self, slot: Slot, text: &str) {
        self.catch_up();
        let mut left = LAST_OCTETS_MAX;
        while self.conns[slot.index()].is_some() {
            match self.consume(slot, Octets::LastOfSocket, HandOver::AtOnce) {
                0 => break,
                read => left = left.saturating_sub(read),
            }
            if left == 0 {
                break;
            }
        }
        if self.conns[slot.index()].take().is_some() {
            self.session.handle_closed(self.now(), slot, text);
        }
    }

    /// Closes a connection. Its last control messages have a bounded time to be sent.
    pub(super) fn close(&mut self, slot: Slot, abort: bool) {
        let Some(conn) = self.conns[slot.index()].take() else { return };
        self.blocked[slot.index()] = false;
        let now = self.now();
        let mut output = conn.output();
        output.drop_updates();
        if abort {
            // Closing must not block, and queued octets are of no use to the peer (RFC 9687 §3).
            let _ = socket2::SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
            return;
        }
        let before = output.control().len();
        self.session.poll_transmit(slot, output.control());
        if self.debug.is_on(now) {
            let added = output.control().get(before..).unwrap_or_default();
            self.debug.log(now, &self.name, Way::Sent, added, None);
        }
        let _ = output.flush_control();
        drop(output);
        self.closers.close(conn);
    }
}
