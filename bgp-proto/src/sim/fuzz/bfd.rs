//! Any octets as packets and events for one BFD session.

use std::num::NonZeroU8;
use std::time::Duration;

use super::Choices;
use crate::bfd::{
    Admin, Auth, AuthKind, Config, Discriminator, Flags, Key, PACKET_LEN_MAX, Received, Role,
    Session, State,
};
use crate::types::Time;

const OURS: Discriminator = Discriminator::MIN;

/// Runs one session on the choices in `data` and returns how often it came up.
///
/// Invariants: whatever is sent can be decoded; no deadline stays in the past; a packet without the
/// session's authentication changes nothing; at most eight packets are sent after one input.
pub fn fuzz_bfd(data: &[u8]) -> u64 {
    let mut choices = Choices::new(data);
    let auth = auth(&mut choices);
    let config = config(&mut choices, auth.clone());
    let mut now = Time::ZERO + Duration::from_secs(1);
    let mut session = Session::new(now, config.clone(), OURS, choices.byte().into());
    let mut sent = Vec::new();
    while !choices.is_empty() {
        match choices.byte() % 8 {
            0..=3 => receive(&mut session, now, &forged(&mut choices), &auth),
            4 => receive(&mut session, now, choices.octets(), &auth),
            5 => {
                let admin = choices.pick(&[Admin::Enabled, Admin::Enabled, Admin::Disabled]);
                session.set_admin(now, admin);
            }
            6 => session.reconfigure(
                now,
                Config { auth: auth.clone(), ..self::config(&mut choices, None) },
            ),
            _ => now = now + Duration::from_millis(choices.byte().into()) * 20,
        }
        let mut packets = 0;
        // Every deadline that has passed, and no endless loop of them.
        while session.poll_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now);
            sent.clear();
            while session.poll_transmit(now, &mut sent) {
                let received = Received::decode(&sent).expect("what is sent is valid");
                assert!(sent.len() <= PACKET_LEN_MAX);
                assert!(!received.packet.flags.contains(Flags::POLL.with(Flags::FINAL)));
                assert_eq!(received.auth.is_some(), auth.is_some());
                assert_eq!(received.packet.state, session.state());
                packets += 1;
                sent.clear();
            }
            assert!(packets <= 8, "a deadline that does not move on");
        }
        let snapshot = session.snapshot();
        assert_eq!(snapshot.state == State::Up, snapshot.stats.ups > snapshot.stats.downs);
    }
    session.snapshot().stats.ups
}

fn receive(session: &mut Session, now: Time, octets: &[u8], auth: &Option<Auth>) {
    let Ok(received) = Received::decode(octets) else { return };
    let before = session.snapshot();
    let outcome = session.handle_packet(now, &received);
    if outcome.is_err() {
        let mut after = session.snapshot();
        after.stats.discarded = before.stats.discarded;
        assert_eq!(after, before, "a packet that is dropped changes nothing");
    }
    if auth.is_some() && received.auth.is_none() {
        assert!(outcome.is_err());
    }
}

/// A packet that gets past the decoder more often than not.
fn forged(choices: &mut Choices<'_>) -> Vec<u8> {
    let any = choices.byte() & !1;
    let second = choices.pick(&[0x40, 0x80, 0xc0, 0x60, 0xd0, 0xe8, 0xc2, any]);
    let mut octets = vec![0x20 | choices.byte() & 0x1f, second, choices.byte() | 1, 24];
    octets.extend([0, 0, 0, choices.byte() | 1]);
    octets.extend([0, 0, 0, choices.pick(&[1, 1, 1, 0])]);
    for _ in 0..3 {
        octets.extend([choices.pick(&[0, 0, 0, 255]), choices.byte() >> 4, choices.byte(), 0]);
    }
    if octets[1] & 4 != 0 {
        let section = choices.octets();
        octets.extend(section);
        octets[3] = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    }
    octets
}

fn config(choices: &mut Choices<'_>, auth: Option<Auth>) -> Config {
    let mut interval = || Duration::from_millis(choices.pick(&[10, 50, 300, 1000, 60_000]));
    let (min_tx, min_rx) = (interval(), interval());
    Config {
        min_tx,
        min_rx,
        multiplier: NonZeroU8::MIN.saturating_add(choices.byte()),
        role: choices.pick(&[Role::Active, Role::Active, Role::Passive]),
        auth,
    }
}

fn auth(choices: &mut Choices<'_>) -> Option<Auth> {
    let kind = choices.pick(&[
        None,
        None,
        Some(AuthKind::SimplePassword),
        Some(AuthKind::KeyedSha1),
        Some(AuthKind::MeticulousKeyedSha1),
    ])?;
    Some(Auth { kind, send: Key::new(kind, 1, "k")?, accept: Vec::new() })
}
