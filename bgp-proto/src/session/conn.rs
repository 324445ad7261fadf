//! One connection: three states, each a struct with exactly what that state knows.
//!
//! Leaving a state consumes it, so nothing survives by accident: timers, parser limits and
//! negotiated options belong to the connection and are dropped with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::PeerConfig;
use super::negotiate::{Negotiated, Opens};
use super::timers::{Jitter, open_hold_time, send_hold_time};
use super::{Slot, State};
use crate::types::{Time, Timer, address_of};
use crate::wire::{Capabilities, EXTENDED_MAX_LEN, MAX_LEN, MessageType, Open, UpdateContext};

/// A connection in one of its states. Only dispatches to the structs.
pub(super) enum Conn {
    OpenSent(OpenSent),
    OpenConfirm(OpenConfirm),
    Established(Box<Established>),
}

/// Our OPEN is sent, the peer's is awaited.
pub(super) struct OpenSent {
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    /// Capabilities in our OPEN; a later OPEN may differ.
    pub(super) offered: Capabilities,
    /// Hold time in our OPEN.
    pub(super) offered_hold_time: Duration,
    /// Our OPEN as it was sent, and the ports of the connection; the peer's is not known yet.
    pub(super) opens: Box<Opens>,
    hold: Timer,
}

/// Both OPENs are exchanged, the peer's KEEPALIVE is awaited.
pub(super) struct OpenConfirm {
    pub(super) negotiated: Arc<Negotiated>,
    pub(super) first_keepalive: FirstKeepalive,
    hold: Timer,
    /// While [`FirstKeepalive::Held`]: when withholding ends.
    keepalive: Timer,
}

/// Whether our KEEPALIVE, which lets the peer establish the session, has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstKeepalive {
    Sent,
    /// Another connection may win: see [`collision`](super::collision). Or BFD is not up: see
    /// [`BfdMode::Strict`](super::BfdMode::Strict).
    Held {
        /// The peer's KEEPALIVE has arrived.
        peer_confirmed: bool,
    },
}

/// Routes are exchanged.
pub(super) struct Established {
    pub(super) negotiated: Arc<Negotiated>,
    pub(super) context: UpdateContext,
    pub(super) since: Time,
    hold: Timer,
    keepalive: Timer,
    send_hold: Timer,
    send_hold_time: Option<Duration>,
}

/// What the expiry of a connection's timer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    Hold,
    SendHold,
    Keepalive,
    /// Our first KEEPALIVE was withheld long enough.
    HeldKeepalive,
}

impl Conn {
    /// Deadlines of the hold and of the keepalive timer.
    pub(super) fn timers(&self) -> (Option<Time>, Option<Time>) {
        match self {
            Conn::OpenSent(conn) => (conn.hold.deadline(), None),
            Conn::OpenConfirm(conn) => (conn.hold.deadline(), conn.keepalive.deadline()),
            Conn::Established(conn) => (conn.hold.deadline(), conn.keepalive.deadline()),
        }
    }

    pub(super) fn state(&self) -> State {
        match self {
            Conn::OpenSent(_) => State::OpenSent,
            Conn::OpenConfirm(_) => State::OpenConfirm,
            Conn::Established(_) => State::Established,
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match self {
            Conn::OpenSent(_) => None,
            Conn::OpenConfirm(c) => Some(&c.negotiated),
            Conn::Established(c) => Some(&c.negotiated),
        }
    }

    /// Longest message that we accept, in octets: it depends on what we offered (RFC 8654 §4).
    pub(super) fn rx_max_len(&self) -> usize {
        match self {
            Conn::OpenSent(c) if c.offered.extended_message => EXTENDED_MAX_LEN,
            Conn::OpenSent(_) => MAX_LEN,
            Conn::OpenConfirm(c) => c.negotiated.rx_max_len,
            Conn::Established(c) => c.negotiated.rx_max_len,
        }
    }

    /// Running timers with their names.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Time, &'static str)> {
        let timers = match self {
            Conn::OpenSent(c) => [c.hold.deadline(), None, None],
            Conn::OpenConfirm(c) => [c.hold.deadline(), c.keepalive.deadline(), None],
            Conn::Established(c) => {
                [c.hold.deadline(), c.keepalive.deadline(), c.send_hold.deadline()]
            }
        };
        timers
            .into_iter()
            .zip(["hold", "keepalive", "send hold"])
            .filter_map(|(at, name)| at.map(|at| (at, name)))
    }

    /// The most serious expiry. The keepalive timer is armed again when it expires.
    pub(super) fn expire(&mut self, now: Time, jitter: &mut Jitter) -> Option<Expiry> {
        match self {
            Conn::OpenSent(c) => c.hold.expired(now).then_some(Expiry::Hold),
            Conn::OpenConfirm(c) => {
                if c.hold.expired(now) {
                    return Some(Expiry::Hold);
                }
                let due = c.keepalive.expired(now);
                due.then(|| match c.first_keepalive {
                    FirstKeepalive::Held { .. } => Expiry::HeldKeepalive,
                    FirstKeepalive::Sent => {
                        arm_keepalive(&mut c.keepalive, now, &c.negotiated, jitter);
                        Expiry::Keepalive
                    }
                })
            }
            Conn::Established(c) => {
                if c.hold.expired(now) {
                    return Some(Expiry::Hold);
                }
                if c.send_hold.expired(now) {
                    return Some(Expiry::SendHold);
                }
                let due = c.keepalive.expired(now);
                due.then(|| {
                    arm_keepalive(&mut c.keepalive, now, &c.negotiated, jitter);
                    Expiry::Keepalive
                })
            }
        }
    }
}

impl OpenSent {
    pub(super) fn new(
        now: Time,
        slot: Slot,
        (local, remote): (SocketAddr, SocketAddr),
        open: Open,
    ) -> Self {
        let mut hold = Timer::stopped();
        hold.set(now + open_hold_time(slot));
        let mut opens = Box::new(Opens::default());
        open.encode(&mut opens.sent);
        opens.ports = (local.port(), remote.port());
        OpenSent {
            opens,
            local: address_of(local),
            remote: address_of(remote),
            offered_hold_time: Duration::from_secs(open.hold_time_secs.into()),
            offered: open.capabilities,
            hold,
        }
    }

    /// The peer's OPEN was accepted (RFC 4271 §8.2.2 OpenSent, event 19). Our KEEPALIVE is
    /// withheld until [`OpenConfirm::release_keepalive`], or until `decided_at`.
    pub(super) fn confirm(
        self,
        now: Time,
        negotiated: Arc<Negotiated>,
        decided_at: Time,
    ) -> OpenConfirm {
        // With hold time 0 the limit on the handshake stays: a peer that never confirms would
        // otherwise hold the slot for ever.
        let mut hold = self.hold;
        if !negotiated.hold_time.is_zero() {
            hold.set(now + negotiated.hold_time);
        }
        let mut keepalive = Timer::stopped();
        keepalive.set(decided_at);
        let first_keepalive = FirstKeepalive::Held { peer_confirmed: false };
        OpenConfirm { negotiated, first_keepalive, hold, keepalive }
    }
}

impl OpenConfirm {
    /// Our KEEPALIVE is being sent, and no longer withheld.
    pub(super) fn release_keepalive(&mut self, now: Time, jitter: &mut Jitter) {
        self.first_keepalive = FirstKeepalive::Sent;
        self.keepalive.stop();
        arm_keepalive(&mut self.keepalive, now, &self.negotiated, jitter);
    }

    /// Our KEEPALIVE stays withheld until `decided_at`.
    pub(super) fn hold_keepalive(&mut self, decided_at: Time) {
        self.keepalive.set(decided_at);
    }

    /// The peer's KEEPALIVE arrived (RFC 4271 §8.2.2 OpenConfirm, event 26).
    pub(super) fn establish(self, now: Time, config: &PeerConfig) -> Established {
        let mut established = Established {
            context: self.negotiated.update_context(config),
            since: now,
            hold: Timer::stopped(),
            keepalive: self.keepalive,
            send_hold: Timer::stopped(),
            send_hold_time: send_hold_time(config.send_hold_time, self.negotiated.hold_time),
            negotiated: self.negotiated,
        };
        established.restart_hold(now);
        established
    }
}

impl Established {
    /// A complete KEEPALIVE or UPDATE arrived; octets alone do not count.
    pub(super) fn restart_hold(&mut self, now: Time) {
        if !self.negotiated.hold_time.is_zero() {
            self.hold.set(now + self.negotiated.hold_time);
        }
    }

    pub(super) fn handle_send_blocked(&mut self, now: Time) {
        if let (None, Some(time)) = (self.send_hold.deadline(), self.send_hold_time) {
            self.send_hold.set(now + time);
        }
    }

    pub(super) fn handle_sent(&mut self) {
        self.send_hold.stop();
    }
}

/// The subcode of "FSM Error" that names the state (RFC 6608 §3), for messages that it does not
/// expect.
pub(super) fn unexpected_subcode(state: State) -> u8 {
    match state {
        State::OpenSent => 1,
        State::OpenConfirm => 2,
        State::Established => 3,
        State::Idle | State::Connect | State::Active => 0,
    }
}

/// Whether a state expects a message.
pub(super) fn expects(state: State, kind: MessageType) -> bool {
    use MessageType::{Keepalive, Notification, Open, RouteRefresh, Update};
    matches!(
        (state, kind),
        (_, Notification)
            | (State::OpenSent, Open)
            | (State::OpenConfirm, Keepalive)
            | (State::Established, Update | Keepalive | RouteRefresh)
    )
}

fn arm_keepalive(timer: &mut Timer, now: Time, negotiated: &Negotiated, jitter: &mut Jitter) {
    if !negotiated.keepalive_time.is_zero() {
        timer.set(now + jitter.spread(negotiated.keepalive_time));
    }
}
