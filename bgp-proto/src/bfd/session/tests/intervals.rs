//! Slow start, negotiation, Poll Sequences, detection time, jitter.

use super::*;

fn slower(packet: &Packet, tx: u64, rx: u64) -> Packet {
    Packet { desired_min_tx: millis(tx), required_min_rx: millis(rx), ..*packet }
}

/// The times between packets in the next `time`, the first of which counts from now.
fn gaps(host: &mut Host, time: Duration) -> Vec<Duration> {
    let end = host.now + time;
    let (mut gaps, mut last) = (Vec::new(), host.now);
    while let Some(at) = host.session.transmit.deadline().filter(|at| *at <= end) {
        host.now = at;
        host.drain();
        gaps.push(at.since(last));
        last = at;
    }
    gaps
}

#[test]
fn a_session_that_is_not_up_sends_once_a_second_at_most() {
    let mut host = Host::new(Config::default());
    for gap in gaps(&mut host, Duration::from_secs(60)) {
        assert!((millis(750)..=millis(1000)).contains(&gap), "{gap:?}");
    }
    assert!(
        host.sent
            .iter()
            .all(|p| p.desired_min_tx == SLOW_START && p.required_min_rx == millis(300))
    );
    // A configured interval above a second is kept.
    let mut host = Host::new(Config { min_tx: Duration::from_secs(4), ..Config::default() });
    assert!(
        gaps(&mut host, Duration::from_secs(60)).iter().all(|gap| *gap >= Duration::from_secs(3))
    );
}

/// RFC 5880 §6.8.7: the slower of what we want and what the peer accepts, less 0-25 %.
#[test]
fn the_interval_is_the_slower_of_both_ends() {
    for (peer_rx, multiplier, bounds) in
        [(50, 3, 225..=300), (300, 3, 225..=300), (1000, 3, 750..=1000), (300, 1, 225..=270)]
    {
        let multiplier = NonZeroU8::new(multiplier).unwrap();
        let mut host = Host::new(Config { multiplier, ..Config::default() });
        host.receive(State::Down).unwrap();
        let packet = Packet { flags: Flags::FINAL, ..from_peer(State::Up) };
        host.receive_packet(&slower(&packet, 300, peer_rx)).unwrap();
        for gap in gaps(&mut host, Duration::from_secs(60)).iter().skip(1) {
            assert!(bounds.contains(&gap.as_millis()), "{peer_rx} {multiplier}: {gap:?}");
        }
    }
}

#[test]
fn up_is_polled_for_until_the_peer_confirms() {
    let mut host = Host::in_state(State::Up);
    host.pass(millis(600));
    assert!(host.sent.len() >= 2 && host.sent.iter().all(|p| p.flags == Flags::POLL));
    assert!(host.sent.iter().all(|p| p.desired_min_tx == millis(300)));
    host.receive_packet(&answered(State::Up)).unwrap();
    host.sent.clear();
    host.pass(millis(600));
    assert!(host.sent.len() >= 2 && host.sent.iter().all(|p| p.flags == Flags::NONE));
}

/// RFC 5880 §6.8.4: the peer's multiplier times the slower of what it wants and what we accept.
#[test]
fn the_detection_time_is_the_peers_multiplier_times_the_slower_interval() {
    for (peer_tx, peer_mult, expected) in
        [(300, 3, 900), (50, 3, 900), (1000, 3, 3000), (300, 5, 1500)]
    {
        let mut host = Host::in_state(State::Up);
        let packet = Packet { detect_mult: peer_mult, ..answered(State::Up) };
        host.receive_packet(&slower(&packet, peer_tx, 300)).unwrap();
        assert_eq!(host.session.snapshot().detection_time, millis(expected));
        assert_eq!(host.pass(millis(expected - 1)), []);
        let down = Change { from: State::Up, to: State::Down, cause: Cause::DetectionTimeExpired };
        assert_eq!(host.pass(millis(1)), [down]);
        let last = host.sent.last().unwrap();
        assert_eq!((last.state, last.diag.code(), last.your_discr), (State::Down, 1, None));
        assert_eq!(last.desired_min_tx, SLOW_START);
    }
}

/// RFC 5880 §6.8.3: slower sending has to be confirmed, faster sending does not.
#[test]
fn slower_sending_waits_for_the_poll() {
    let mut host = Host::in_state(State::Up);
    host.receive_packet(&answered(State::Up)).unwrap();
    host.session.reconfigure(host.now, Config { min_tx: millis(900), ..Config::default() });
    host.sent.clear();
    for _ in 0..5 {
        host.pass(millis(300));
        host.receive(State::Up).unwrap();
    }
    assert!(host.sent.len() >= 5, "still at 300 ms: {}", host.sent.len());
    assert!(host.sent.iter().all(|p| p.flags == Flags::POLL && p.desired_min_tx == millis(900)));
    host.receive_packet(&answered(State::Up)).unwrap();
    assert_eq!(host.session.snapshot().tx_interval, millis(900));
    host.session.reconfigure(host.now, Config { min_tx: millis(20), ..Config::default() });
    assert_eq!(host.session.snapshot().tx_interval, millis(300), "the peer accepts no more");
}

/// RFC 5880 §6.8.3: faster reception has to be confirmed before the detection time shrinks.
#[test]
fn a_shorter_detection_time_waits_for_the_poll() {
    let mut host = Host::in_state(State::Up);
    host.receive_packet(&slower(&answered(State::Up), 50, 300)).unwrap();
    assert_eq!(host.session.snapshot().detection_time, millis(900));
    host.session.reconfigure(host.now, Config { min_rx: millis(100), ..Config::default() });
    assert_eq!(host.session.snapshot().detection_time, millis(900));
    host.receive_packet(&slower(&answered(State::Up), 50, 300)).unwrap();
    assert_eq!(host.session.snapshot().detection_time, millis(300));
    host.session.reconfigure(host.now, Config { min_rx: millis(500), ..Config::default() });
    assert_eq!(
        host.session.snapshot().detection_time,
        millis(1500),
        "longer waiting is safe at once"
    );
}

/// RFC 5880 §6.5: a change during a Poll Sequence needs a second one, after a packet without P.
#[test]
fn a_change_during_a_poll_is_polled_for_again() {
    let mut host = Host::in_state(State::Up);
    host.pass(millis(300));
    host.session.reconfigure(host.now, Config { min_tx: millis(900), ..Config::default() });
    host.receive_packet(&answered(State::Up)).unwrap();
    assert_eq!(host.session.snapshot().tx_interval, millis(300), "F answered the first");
    host.sent.clear();
    for _ in 0..4 {
        host.pass(millis(300));
        host.receive(State::Up).unwrap();
    }
    let flags: Vec<Flags> = host.sent.iter().map(|p| p.flags).collect();
    assert_eq!(flags[0], Flags::NONE);
    assert!(flags[1..].iter().all(|f| *f == Flags::POLL), "{flags:?}");
    host.receive_packet(&answered(State::Up)).unwrap();
    assert_eq!(host.session.snapshot().tx_interval, millis(900));
}

/// RFC 5880 §6.8.7: answers to Poll are sent regardless of the timer, and do not disturb it.
#[test]
fn polls_are_answered_at_once_but_not_endlessly() {
    let mut host = Host::in_state(State::Up);
    host.receive_packet(&answered(State::Up)).unwrap();
    let next = host.session.transmit.deadline();
    host.sent.clear();
    for _ in 0..1000 {
        host.receive_packet(&polled(State::Up)).unwrap();
    }
    assert_eq!(host.sent.len(), 1, "one answer in {ANSWER_GAP:?}");
    assert_eq!((host.sent[0].flags, host.session.transmit.deadline()), (Flags::FINAL, next));
    host.pass(ANSWER_GAP);
    assert_eq!(host.sent.len(), 2, "the pending answer follows");
}

/// RFC 5880 §6.6.
#[test]
fn demand_stops_periodic_packets_but_not_polls() {
    let mut host = Host::in_state(State::Up);
    host.receive_packet(&answered(State::Up)).unwrap();
    let demand = Packet { flags: Flags::DEMAND, ..from_peer(State::Up) };
    host.receive_packet(&demand).unwrap();
    host.sent.clear();
    for _ in 0..10 {
        host.pass(millis(300));
        host.receive_packet(&demand).unwrap();
    }
    assert_eq!(host.sent, []);
    let poll = Packet { flags: Flags::DEMAND.with(Flags::POLL), ..from_peer(State::Up) };
    host.receive_packet(&poll).unwrap();
    assert_eq!(host.sent.len(), 1);
    host.session.reconfigure(host.now, Config { min_tx: millis(400), ..Config::default() });
    host.pass(millis(400));
    assert_eq!(host.sent.last().map(|p| p.flags), Some(Flags::POLL), "our own Poll Sequence");
    host.receive_packet(&from_peer(State::Up)).unwrap();
    host.sent.clear();
    host.pass(millis(500));
    assert!(!host.sent.is_empty(), "the peer no longer requests demand mode");
}

/// RFC 5880 §6.8.1: Required Min RX Interval 0 asks for no periodic packets.
#[test]
fn a_peer_that_wants_no_periodic_packets_is_sent_none() {
    let mut host = Host::in_state(State::Up);
    host.receive_packet(&slower(&answered(State::Up), 300, 0)).unwrap();
    host.sent.clear();
    host.pass(millis(800));
    assert_eq!(host.sent, []);
    host.receive_packet(&from_peer(State::Up)).unwrap();
    host.pass(millis(300));
    assert!(!host.sent.is_empty());
}

#[test]
fn a_passive_session_waits_for_the_peer() {
    let mut host = Host::new(Config { role: Role::Passive, ..Config::default() });
    host.pass(Duration::from_secs(60));
    assert_eq!(host.sent, []);
    assert_eq!(host.session.poll_timeout(), None, "nothing to wait for");
    host.receive(State::Down).unwrap();
    assert_eq!(host.sent.len(), 1);
    host.pass(Duration::from_secs(60));
    let sent = host.sent.len();
    assert_eq!(host.session.state(), State::Down);
    host.pass(Duration::from_secs(60));
    assert_eq!(host.sent.len(), sent, "the peer was forgotten: silent again");
}
