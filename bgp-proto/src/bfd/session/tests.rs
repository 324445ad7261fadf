//! Every event in every state, and the rules of RFC 5880 §6.8 one by one.

mod intervals;
mod packets;
mod table;

use super::*;
use crate::bfd::{Auth, Key};
use std::num::NonZeroU8;

fn discr(number: u32) -> Discriminator {
    Discriminator::new(number).expect("tests use no zero")
}

const OURS: u32 = 0x0a0a_0a0a;
const THEIRS: u32 = 0x0b0b_0b0b;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A session, its clock, and what it has sent.
struct Host {
    session: Session,
    now: Time,
    sent: Vec<Packet>,
}

impl Host {
    fn new(config: Config) -> Host {
        let now = Time::ZERO + Duration::from_secs(10);
        let session = Session::new(now, config, discr(OURS), 7);
        let mut host = Host { session, now, sent: Vec::new() };
        host.drain();
        host.sent.clear();
        host
    }

    fn in_state(state: State) -> Host {
        let mut host = Host::new(Config::default());
        host.bring(state);
        host
    }

    fn bring(&mut self, state: State) {
        match state {
            State::Down => {}
            State::AdminDown => {
                self.session.set_admin(self.now, Admin::Disabled);
                self.drain();
            }
            State::Init => {
                self.receive(State::Down).expect("a valid packet");
            }
            State::Up => {
                self.receive(State::Down).expect("a valid packet");
                self.receive(State::Up).expect("a valid packet");
            }
        }
        assert_eq!(self.session.state(), state);
        self.sent.clear();
    }

    /// Lets the session send what is due now.
    fn drain(&mut self) {
        let mut octets = Vec::new();
        while self.session.poll_transmit(self.now, &mut octets) {
            let received = Received::decode(&octets).expect("what we send is valid");
            self.sent.push(received.packet);
            octets.clear();
        }
    }

    fn receive(&mut self, state: State) -> Result<Option<Change>, Discard> {
        self.receive_packet(&from_peer(state))
    }

    fn receive_packet(&mut self, packet: &Packet) -> Result<Option<Change>, Discard> {
        let mut octets = Vec::new();
        packet.encode(0, &mut octets);
        self.receive_octets(&octets)
    }

    fn receive_octets(&mut self, octets: &[u8]) -> Result<Option<Change>, Discard> {
        let received = Received::decode(octets)?;
        let change = self.session.handle_packet(self.now, &received);
        self.drain();
        change
    }

    /// Lets `time` pass and handles every deadline in it.
    fn pass(&mut self, time: Duration) -> Vec<Change> {
        let end = self.now + time;
        let mut changes = Vec::new();
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            changes.extend(self.session.handle_timeout(self.now));
            self.drain();
        }
        self.now = end;
        changes
    }
}

/// A packet of a peer that knows us, with the same timers as ours.
fn from_peer(state: State) -> Packet {
    Packet {
        diag: Diag::NONE,
        state,
        flags: Flags::NONE,
        detect_mult: 3,
        my_discr: discr(THEIRS),
        your_discr: Some(discr(OURS)),
        desired_min_tx: millis(300),
        required_min_rx: millis(300),
        required_min_echo_rx: Duration::ZERO,
    }
}

fn polled(state: State) -> Packet {
    Packet { flags: Flags::POLL, ..from_peer(state) }
}

fn answered(state: State) -> Packet {
    Packet { flags: Flags::FINAL, ..from_peer(state) }
}
