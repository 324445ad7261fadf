//! `session::Peer` under any sequence of inputs, in any order, at any time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Choices;
use crate::session::{
    Action, Close, Command, LocalIdentity, PassiveMode, Peer, PeerConfig, Restart, Slot, State,
};
use crate::types::{Asn, Family, FamilyMap, FamilySet, RouterId, Time};
use crate::wire::{
    AddPathMode, Capabilities, Code, GracefulRestart, GracefulRestartFamily, Notification, Open,
    RouteBatch, encode_end_of_rib, encode_keepalive, split_frame,
};

/// Shortest interval between connection attempts that no command requested.
const DIAL_INTERVAL_MIN: Duration = Duration::from_millis(750);

/// Feeds inputs made of `data` to one peer. Panics if an invariant breaks:
///
/// - `Up` and `Down` alternate, and the session is up exactly while the state is Established;
/// - no connection is attempted by a passive peer, during another attempt, while our own or an
///   established connection exists, or more often than every 750 ms;
/// - after `handle_timeout` the next deadline lies ahead, and states that wait for something have
///   one;
/// - only whole messages are transmitted, and never more octets are consumed than were received;
/// - a stopped peer has no session and no timer.
///
/// Returns how often the session was established, so that a test can tell that inputs get that far.
pub fn fuzz_session(data: &[u8]) -> u64 {
    let mut choices = Choices::new(data);
    let mut host = Host::new(config(&mut choices), u64::from(choices.byte()));
    while !choices.is_empty() {
        host.input(&mut choices);
        host.drain();
        host.check();
    }
    host.peer.stats().established_transitions
}

fn config(choices: &mut Choices<'_>) -> PeerConfig {
    let asn = choices.pick(&[Asn(65001), Asn(65000), Asn(70_000)]);
    let identity = LocalIdentity { asn: Asn(65000), router_id: RouterId(10) };
    let mut config = PeerConfig::new([192, 0, 2, 1].into(), asn, &identity);
    let modes = [AddPathMode::None, AddPathMode::Both, AddPathMode::Send, AddPathMode::Receive];
    config.families = choices.pick(&[FamilySet::ALL, FamilySet::only(Family::Ipv4)]);
    config.passive =
        choices.pick(&[PassiveMode::Active, PassiveMode::Passive, PassiveMode::AtStart]);
    config.hold_time = Duration::from_secs(choices.pick(&[90, 3, 0, 65_535]));
    config.connect_retry_time = Duration::from_secs(choices.pick(&[5, 0, 120]));
    config.send_hold_time =
        choices.pick(&[None, Some(Duration::ZERO), Some(Duration::from_secs(9))]);
    config.graceful_restart_time = choices.pick(&[Some(Duration::from_secs(120)), None]);
    config.extended_messages = choices.bit();
    config.add_path = FamilyMap([choices.pick(&modes), choices.pick(&modes)]);
    config
}

struct Host {
    peer: Peer,
    now: Time,
    up: bool,
    dialling: bool,
    /// Connections that exist as far as the host knows.
    connected: [bool; 3],
    last_dial: Option<Time>,
}

impl Host {
    fn new(config: PeerConfig, seed: u64) -> Self {
        Host {
            peer: Peer::new(Arc::new(config), seed),
            now: Time::ZERO,
            up: false,
            dialling: false,
            connected: [false; 3],
            last_dial: None,
        }
    }

    fn input(&mut self, choices: &mut Choices<'_>) {
        let (peer, now) = (&mut self.peer, self.now);
        let slot = |choices: &mut Choices<'_>| choices.pick(&Slot::ALL);
        match choices.byte() % 18 {
            16 | 17 => self.shake_hands(choices),
            0 => {
                // A start by the operator overrides the back-off.
                self.last_dial = None;
                peer.handle_command(now, Command::Start);
            }
            1 => {
                peer.handle_command(now, Command::Stop(reason(choices)));
                assert_eq!(peer.poll_timeout(), None, "a stopped peer waits for nothing");
                assert_eq!(peer.negotiated(), None);
            }
            2 => peer.handle_command(now, Command::Restart(reason(choices))),
            3 => peer.handle_command(now, Command::RequestRefresh(choices.pick(&Family::ALL))),
            4 | 5 => {
                let slot = if choices.bit() { peer.incoming_slot() } else { slot(choices) };
                let (local, remote): (SocketAddr, SocketAddr) =
                    (([192, 0, 2, 9], 179).into(), ([192, 0, 2, 1], 1024).into());
                if slot == Slot::Outgoing {
                    self.dialling = false;
                }
                self.connected[slot.index()] = true;
                peer.handle_connected(now, slot, local, remote);
            }
            6 => {
                self.dialling = false;
                peer.handle_connect_failed(now, "refused");
            }
            7 => {
                let slot = slot(choices);
                self.connected[slot.index()] = false;
                peer.handle_closed(now, slot, "reset");
            }
            8..=11 => self.messages(choices),
            12 => {
                let slot = slot(choices);
                let octets = choices.octets();
                self.feed(slot, octets, usize::MAX);
            }
            13 => self.pass(Duration::from_millis(u64::from(choices.byte()).pow(2))),
            14 => match choices.byte() % 4 {
                0 => peer.handle_sent(now, slot(choices)),
                1 => peer.handle_send_blocked(now, slot(choices)),
                2 => peer.handle_alive(now, slot(choices)),
                _ => peer.set_restart(Restart::Recovering { preserved: FamilySet::ALL }),
            },
            _ => peer.handle_timeout(now),
        }
    }

    /// The peer connects and completes the handshake.
    fn shake_hands(&mut self, choices: &mut Choices<'_>) {
        self.last_dial = None;
        self.peer.handle_command(self.now, Command::Start);
        self.drain();
        let slot = self.peer.incoming_slot();
        self.connected[slot.index()] = true;
        let (local, remote) = (([192, 0, 2, 9], 179).into(), ([192, 0, 2, 1], 1024).into());
        self.peer.handle_connected(self.now, slot, local, remote);
        self.drain();
        let mut stream = Vec::new();
        let asn = self.peer.config().remote_asn.exactly().unwrap_or(Asn(1));
        let mut open = open(choices);
        open.asn = asn;
        open.capabilities.four_octet_as = Some(asn);
        open.encode(&mut stream);
        encode_keepalive(&mut stream);
        self.feed(slot, &stream, usize::MAX);
    }

    /// A few well-formed messages in one segment, perhaps cut short.
    fn messages(&mut self, choices: &mut Choices<'_>) {
        let slot = choices.pick(&Slot::ALL);
        let mut stream = Vec::new();
        for _ in 0..=choices.byte() % 4 {
            message(choices, &mut stream);
        }
        let cut = usize::from(choices.byte() % 8);
        let len = stream.len() - cut.min(stream.len());
        let batch_max = choices.pick(&[usize::MAX, 1, 100]);
        self.feed(slot, &stream[..len], batch_max);
    }

    fn feed(&mut self, slot: Slot, octets: &[u8], batch_max: usize) {
        let mut batch = RouteBatch::default();
        let mut offset = 0;
        loop {
            let rest = &octets[offset..];
            let taken = self.peer.handle_bytes(self.now, slot, rest, &mut batch, batch_max);
            assert!(taken <= rest.len());
            offset += taken;
            if batch.size() < batch_max || taken == 0 {
                return;
            }
            batch.clear();
        }
    }

    /// Lets time pass; the host handles every deadline on time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, name)) = self.peer.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.peer.handle_timeout(self.now);
            self.drain();
            let next = self.peer.poll_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now), "{name} leads to {next:?} at once");
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            match action {
                Action::Connect => self.note_dial(),
                Action::AbortConnect => {
                    assert!(std::mem::take(&mut self.dialling), "nothing to abort");
                }
                Action::Close { slot, .. } => {
                    self.transmit(slot);
                    self.connected[slot.index()] = false;
                }
                Action::Up { slot, .. } => {
                    assert!(self.connected[slot.index()], "Up on no connection");
                    assert!(!std::mem::replace(&mut self.up, true), "Up twice");
                }
                Action::Down { .. } => {
                    assert!(std::mem::take(&mut self.up), "Down without Up");
                }
                Action::Faulty(message) => assert!(self.up && message.len() >= 19, "of no session"),
                Action::Note(text) => assert!(text.len() < 1000, "a line of the log: {text}"),
            }
        }
        Slot::ALL.into_iter().for_each(|slot| self.transmit(slot));
    }

    fn note_dial(&mut self) {
        assert_ne!(self.peer.config().passive, PassiveMode::Passive, "a passive peer dials");
        assert!(!std::mem::replace(&mut self.dialling, true), "two attempts at once");
        assert!(
            !self.connected[Slot::Outgoing.index()],
            "an attempt while our own connection exists"
        );
        if let Some(last) = self.last_dial.replace(self.now) {
            assert!(self.now.since(last) >= DIAL_INTERVAL_MIN, "attempts in quick succession");
        }
    }

    fn transmit(&mut self, slot: Slot) {
        let mut out = Vec::new();
        self.peer.poll_transmit(slot, &mut out);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let frame = split_frame(rest, usize::MAX).expect("what is sent is well-formed");
            let frame = frame.expect("only whole messages are sent");
            rest = &rest[frame.bytes.len()..];
        }
    }

    fn check(&self) {
        let peer = &self.peer;
        assert_eq!(self.up, peer.state() == State::Established);
        assert_eq!(self.up, peer.negotiated().is_some());
        assert!(!(self.up && self.dialling), "an attempt while a session is up");
        let passive = peer.config().passive.is_passive();
        match peer.state() {
            State::Idle => {}
            State::Active if passive => {}
            State::Established if peer.negotiated().is_some_and(|n| n.hold_time.is_zero()) => {}
            state => assert!(peer.poll_timeout().is_some(), "{state:?} without a timer"),
        }
    }
}

fn reason(choices: &mut Choices<'_>) -> Close {
    let text = String::from_utf8_lossy(choices.octets()).into_owned();
    match choices.byte() % 8 {
        0 => Close::Shutdown { text },
        1 => Close::Reset { text },
        2 => Close::Deconfigured,
        3 => Close::ConfigurationChange,
        4 => Close::PrefixLimit { family: Family::Ipv6, bound: u32::MAX },
        5 => Close::OutOfResources,
        6 => Close::GracefulStop,
        _ => Close::Rejected,
    }
}

fn message(choices: &mut Choices<'_>, out: &mut Vec<u8>) {
    match choices.byte() % 8 {
        0..=2 => open(choices).encode(out),
        3 | 4 => encode_keepalive(out),
        5 => encode_end_of_rib(out, choices.pick(&Family::ALL)),
        6 => Notification::with_data(
            Code::new(choices.byte() % 9, choices.byte() % 12),
            choices.octets(),
        )
        .encode(out),
        _ => {
            let kind = choices.pick(&[2, 5, 1, 4]);
            let body = choices.octets();
            out.extend([0xff; 16]);
            out.extend((19 + body.len() as u16).to_be_bytes());
            out.push(kind);
            out.extend(body);
        }
    }
}

/// Most often the OPEN that is expected.
fn open(choices: &mut Choices<'_>) -> Open {
    let asn = choices.pick(&[Asn(65001), Asn(65001), Asn(65000), Asn(70_000)]);
    let families = choices.pick(&[FamilySet::ALL, FamilySet::only(Family::Ipv4), FamilySet::EMPTY]);
    let pairs = || families.iter().map(|f| f.afi_safi());
    let graceful_restart = choices.bit().then(|| GracefulRestart {
        restarting: choices.bit(),
        notification: choices.bit(),
        restart_time_secs: u16::from(choices.byte()),
        families: pairs()
            .map(|family| GracefulRestartFamily { family, forwarding: choices.bit() })
            .collect(),
    });
    Open {
        asn,
        hold_time_secs: choices.pick(&[90, 0, 3, 1, u16::MAX]),
        router_id: choices.pick(&[RouterId(1), RouterId(10), RouterId(99)]),
        capabilities: Capabilities {
            multiprotocol: pairs().collect(),
            route_refresh: choices.bit(),
            extended_message: choices.bit(),
            enhanced_refresh: choices.bit(),
            four_octet_as: Some(asn),
            graceful_restart,
            ..Capabilities::default()
        },
    }
}
