//! The state machine, driven as a host drives it.

mod dialling;
mod endings;
mod handshake;
mod long_lived;
mod messages;
mod table;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::session::{LocalIdentity, PassiveMode};
use crate::types::{Asn, FamilySet, RouterId};
use crate::wire::{
    Capabilities, Code, GracefulRestart, GracefulRestartFamily, HEADER_LEN, Open, RouteEntry,
};

pub(super) const LOCAL_AS: Asn = Asn(65000);
pub(super) const PEER_AS: Asn = Asn(65001);
/// Larger than the peer's: in a collision our own connection wins.
pub(super) const LOCAL_ID: RouterId = RouterId(0x0a00_0009);
pub(super) const PEER_ID: RouterId = RouterId(0x0a00_0001);

/// A peer and everything that came out of it.
pub(super) struct Host {
    pub(super) peer: Peer,
    pub(super) now: Time,
    pub(super) routes: Vec<RouteEntry>,
    /// Actions and messages in the order in which they were emitted, in short form.
    log: VecDeque<String>,
    pub(super) downs: Vec<(Close, Option<Keep>)>,
}

pub(super) fn config() -> PeerConfig {
    let local = LocalIdentity { asn: LOCAL_AS, router_id: LOCAL_ID };
    PeerConfig::new("192.0.2.1".parse().unwrap(), PEER_AS, &local)
}

impl Host {
    pub(super) fn new(config: PeerConfig) -> Self {
        Host {
            peer: Peer::new(Arc::new(config), 1),
            now: Time::ZERO + Duration::from_secs(1000),
            routes: Vec::new(),
            log: VecDeque::new(),
            downs: Vec::new(),
        }
    }

    /// A started peer, with our own connection brought to `state`.
    pub(super) fn in_state(state: State) -> Self {
        let mut host = Host::new(config());
        host.bring(state, Slot::Outgoing);
        host.output();
        host
    }

    /// Brings a new peer to `state`, by `slot` if there is a connection in it.
    pub(super) fn bring(&mut self, state: State, slot: Slot) {
        if state == State::Idle {
            return;
        }
        self.command(Command::Start);
        if state == State::Connect {
            return;
        }
        if !slot.is_outgoing() || state == State::Active {
            self.peer.handle_connect_failed(self.now, "refused");
        }
        if state == State::Active {
            return self.drain();
        }
        self.advance(state, slot);
    }

    /// A connection on `slot`, brought to `state`.
    pub(super) fn advance(&mut self, state: State, slot: Slot) {
        self.connected(slot);
        if state >= State::OpenConfirm {
            self.receive(slot, &open_message(&peer_open()));
        }
        if state >= State::Established {
            self.receive(slot, &keepalive());
        }
        assert_eq!(self.peer.state(), state);
    }

    pub(super) fn command(&mut self, command: Command) {
        self.peer.handle_command(self.now, command);
        self.drain();
    }

    pub(super) fn connected(&mut self, slot: Slot) {
        let (local, remote): (SocketAddr, SocketAddr) =
            ("192.0.2.9:179".parse().unwrap(), "192.0.2.1:40000".parse().unwrap());
        self.peer.handle_connected(self.now, slot, local, remote);
        self.drain();
    }

    pub(super) fn receive(&mut self, slot: Slot, bytes: &[u8]) {
        self.feed(slot, bytes);
    }

    /// Octets arrive; returns how many were taken.
    pub(super) fn feed(&mut self, slot: Slot, bytes: &[u8]) -> usize {
        let mut batch = RouteBatch::default();
        let taken = self.peer.handle_bytes(self.now, slot, bytes, &mut batch, usize::MAX);
        self.routes.extend(batch.entries().iter().cloned());
        self.drain();
        taken
    }

    pub(super) fn closed(&mut self, slot: Slot) {
        self.peer.handle_closed(self.now, slot, "reset by peer");
        self.drain();
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.peer.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.peer.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// When the named timer expires.
    pub(super) fn deadline(&self, name: &str) -> Option<Duration> {
        self.peer.poll_timeout().filter(|(_, n)| *n == name).map(|(at, _)| at.since(self.now))
    }

    /// What came out since the last call, joined by spaces.
    pub(super) fn output(&mut self) -> String {
        Vec::from(std::mem::take(&mut self.log)).join(" ")
    }

    pub(super) fn drain(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            let text = match &action {
                Action::Connect => "dial".to_owned(),
                Action::AbortConnect => "abort-dial".to_owned(),
                Action::Close { slot, abort } => {
                    self.transmit(*slot);
                    let how = if *abort { "reset" } else { "close" };
                    format!("{how}({slot:?})")
                }
                Action::Up { slot, .. } => format!("up({slot:?})"),
                Action::Down { reason, keep } => {
                    self.downs.push((reason.clone(), *keep));
                    if keep.is_some() { "down+keep".to_owned() } else { "down".to_owned() }
                }
                Action::Faulty(message) => format!("faulty({})", message.len()),
                Action::Note(_) => "note".to_owned(),
            };
            self.log.push_back(text);
        }
        Slot::ALL.into_iter().for_each(|slot| self.transmit(slot));
    }

    fn transmit(&mut self, slot: Slot) {
        let mut out = Vec::new();
        let any = self.peer.poll_transmit(slot, &mut out);
        assert_eq!(any, !out.is_empty());
        let mut rest = out.as_slice();
        while let Some(frame) = split_frame(rest, usize::MAX).unwrap() {
            self.log.push_back(match frame.kind {
                MessageType::Open => "OPEN".to_owned(),
                MessageType::Keepalive => "KEEPALIVE".to_owned(),
                MessageType::Update => "UPDATE".to_owned(),
                MessageType::RouteRefresh => "REFRESH".to_owned(),
                MessageType::Notification => {
                    let n = Notification::decode(frame.body());
                    format!("N{}/{}", n.code.code, n.code.subcode)
                }
            });
            rest = &rest[frame.bytes.len()..];
        }
        assert!(rest.is_empty(), "only whole messages are sent");
    }
}

/// What the peer sends first: IPv4, four-octet AS, route refresh, no graceful restart.
pub(super) fn peer_open() -> Open {
    Open {
        asn: PEER_AS,
        hold_time_secs: 90,
        router_id: PEER_ID,
        capabilities: Capabilities {
            multiprotocol: vec![Family::Ipv4.afi_safi()],
            route_refresh: true,
            four_octet_as: Some(PEER_AS),
            ..Capabilities::default()
        },
    }
}

/// As [`peer_open`], with graceful restart.
pub(super) fn restarting_open(notification: bool) -> Open {
    let mut open = peer_open();
    open.capabilities.graceful_restart = Some(GracefulRestart {
        restarting: false,
        notification,
        restart_time_secs: 77,
        families: vec![GracefulRestartFamily { family: Family::Ipv4.afi_safi(), forwarding: true }],
    });
    open
}

pub(super) fn open_message(open: &Open) -> Vec<u8> {
    let mut out = Vec::new();
    open.encode(&mut out);
    out
}

pub(super) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    encode_keepalive(&mut out);
    out
}

pub(super) fn notification(code: Code) -> Vec<u8> {
    let mut out = Vec::new();
    Notification::new(code).encode(&mut out);
    out
}

/// A message with any body.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(u16::try_from(HEADER_LEN + body.len()).unwrap().to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// 203.0.113.0/24 by way of 192.0.2.1, AS path 65001.
pub(super) fn announcement() -> Vec<u8> {
    let attrs = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, 1];
    let mut body = vec![0, 0, 0, attrs.len() as u8];
    body.extend(attrs);
    body.extend([24, 203, 0, 113]);
    message(2, &body)
}

pub(super) fn ipv4_only() -> FamilySet {
    FamilySet::only(Family::Ipv4)
}
