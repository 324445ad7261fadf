//! Authentication windows, restarts of the peer, counters.

use super::*;

fn signed(auth: &Auth, sequence: u32, state: State) -> Vec<u8> {
    let mut octets = Vec::new();
    from_peer(state).encode(auth.section_len(), &mut octets);
    auth.sign(sequence, &mut octets);
    octets
}

fn with_auth(kind: AuthKind) -> (Auth, Host) {
    let auth = Auth { kind, send: Key::new(kind, 1, "key").unwrap(), accept: Vec::new() };
    let host = Host::new(Config { auth: Some(auth.clone()), ..Config::default() });
    (auth, host)
}

/// RFC 5880 §6.7.4: up to three times Detect Mult ahead, never behind; meticulous: never repeated.
#[test]
fn sequence_numbers_have_a_window() {
    for (kind, repeated) in
        [(AuthKind::KeyedSha1, Ok(())), (AuthKind::MeticulousKeyedSha1, Err(Discard::AuthSequence))]
    {
        for start in [0, 1000, u32::MAX - 4] {
            for (ahead, expected) in [
                (0, repeated),
                (1, Ok(())),
                (9, Ok(())),
                (10, Err(Discard::AuthSequence)),
                (u32::MAX, Err(Discard::AuthSequence)),
            ] {
                let (auth, mut host) = with_auth(kind);
                host.receive_octets(&signed(&auth, start, State::Down)).unwrap();
                let next = signed(&auth, start.wrapping_add(ahead), State::Down);
                assert_eq!(
                    host.receive_octets(&next).map(drop),
                    expected,
                    "{kind:?} {start} {ahead}"
                );
            }
        }
    }
}

/// RFC 5880 §6.8.1: bfd.AuthSeqKnown is cleared after twice the detection time.
#[test]
fn a_restarted_peer_is_accepted_after_twice_the_detection_time() {
    let (auth, mut host) = with_auth(AuthKind::MeticulousKeyedSha1);
    host.receive_octets(&signed(&auth, 1000, State::Down)).unwrap();
    let again = signed(&auth, 5, State::Down);
    host.pass(millis(1799));
    assert_eq!(host.receive_octets(&again), Err(Discard::AuthSequence));
    host.pass(millis(1));
    assert!(host.receive_octets(&again).is_ok());
}

#[test]
fn packets_must_be_signed_if_and_only_if_configured() {
    let (auth, mut host) = with_auth(AuthKind::KeyedSha1);
    assert_eq!(host.receive(State::Down), Err(Discard::AuthPresence));
    let mut plain = Host::new(Config::default());
    assert_eq!(plain.receive_octets(&signed(&auth, 1, State::Down)), Err(Discard::AuthPresence));
    assert_eq!(plain.session.snapshot().stats.discarded, 1);
    // A forged packet changes nothing, not even the window.
    let mut forged = signed(&auth, 500, State::Down);
    forged[40] ^= 1;
    assert_eq!(host.receive_octets(&forged), Err(Discard::AuthDigest));
    assert!(host.receive_octets(&signed(&auth, 1, State::Down)).is_ok());
}

#[test]
fn meticulous_sequence_numbers_grow_with_every_packet() {
    for (kind, packets) in [(AuthKind::KeyedSha1, 4), (AuthKind::MeticulousKeyedSha1, 1)] {
        let (auth, mut host) = with_auth(kind);
        host.receive_octets(&signed(&auth, 1, State::Down)).unwrap();
        host.receive_octets(&signed(&auth, 2, State::Up)).unwrap();
        let mut sequences = Vec::new();
        let mut octets = Vec::new();
        for n in 3..20 {
            host.now = host.now + millis(300);
            octets.clear();
            assert!(host.session.poll_transmit(host.now, &mut octets));
            let received = Received::decode(&octets).unwrap();
            sequences.extend(auth.verify(received.auth.unwrap(), &octets).unwrap());
            let mut answer = Vec::new();
            answered(State::Up).encode(auth.section_len(), &mut answer);
            auth.sign(n, &mut answer);
            host.receive_octets(&answer).unwrap();
        }
        let steps: Vec<u32> = sequences.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        assert!(steps.iter().all(|step| *step <= 1), "{steps:?}");
        assert_eq!(
            steps.iter().filter(|step| **step == 1).count(),
            steps.len() / packets,
            "{kind:?}"
        );
    }
}

/// A restarted peer sends Down and does not know our discriminator: the session goes down and comes
/// up again.
#[test]
fn a_peer_that_restarts_takes_the_session_down() {
    let mut host = Host::in_state(State::Up);
    let first = Packet {
        your_discr: None,
        my_discr: discr(THEIRS + 1),
        desired_min_tx: SLOW_START,
        ..from_peer(State::Down)
    };
    let change = host.receive_packet(&first).unwrap().unwrap();
    assert_eq!((change.to, change.cause), (State::Down, Cause::NeighborDown));
    let change = host.receive_packet(&first).unwrap().unwrap();
    assert_eq!(change.to, State::Init);
    assert_eq!(host.session.snapshot().remote_discr, Some(discr(THEIRS + 1)));
}

#[test]
fn what_arrives_is_counted_and_measured() {
    let mut host = Host::in_state(State::Up);
    for gap in [300, 200, 400, 300] {
        host.pass(millis(gap));
        host.receive_packet(&answered(State::Up)).unwrap();
    }
    let snapshot = host.session.snapshot();
    assert_eq!(snapshot.stats.received, 6);
    assert_eq!((snapshot.stats.ups, snapshot.stats.downs), (1, 0));
    assert_eq!(snapshot.stats.gap_max, millis(400));
    assert!(snapshot.stats.jitter > Duration::ZERO && snapshot.stats.jitter < millis(100));
    assert_eq!(snapshot.stats.sent, 1 + 2 + host.sent.len() as u64);
}

#[test]
fn equal_seeds_make_equal_sessions() {
    let run = |seed| {
        let now = Time::ZERO;
        let mut session = Session::new(now, Config::default(), discr(OURS), seed);
        let mut times = Vec::new();
        let mut out = Vec::new();
        for _ in 0..20 {
            let at = session.poll_timeout().unwrap();
            session.poll_transmit(at, &mut out);
            times.push(at);
        }
        (times, out)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}
