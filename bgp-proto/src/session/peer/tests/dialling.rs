//! Which side dials, how often, and when connections are refused.

use super::*;
use crate::session::{PassiveMode, Redial};

/// Dials in `time` to a peer that answers every attempt with `answer`.
fn dials(host: &mut Host, time: Duration, mut answer: impl FnMut(&mut Host)) -> Vec<Time> {
    let end = host.now + time;
    let mut dials = Vec::new();
    loop {
        for entry in host.output().split(' ').filter(|e| *e == "dial") {
            let _ = entry;
            dials.push(host.now);
            answer(host);
        }
        match host.peer.poll_timeout().filter(|(at, _)| *at <= end) {
            Some((at, _)) => host.pass(at.since(host.now)),
            None => return dials,
        }
    }
}

fn refuse(host: &mut Host) {
    host.peer.handle_connect_failed(host.now, "connection refused");
    host.drain();
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn refused_attempts_back_off_and_never_spin() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    let times = dials(&mut host, HOUR, refuse);
    let gaps: Vec<_> = times.windows(2).map(|w| w[1].since(w[0]).as_secs_f64()).collect();
    assert!((3.75..=5.0).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps.iter().skip(6).all(|gap| (30.0..=40.0).contains(gap)), "{gaps:?}");
    assert_eq!(host.peer.stats().connect_failures, times.len() as u64);
}

/// With `Redial::Steady` the interval does not grow however long the peer is unreachable, so a node
/// that returns after a long outage is reached quickly.
#[test]
fn a_steady_pace_is_kept_for_ever() {
    let steady = || PeerConfig { redial: Redial::Steady, ..config() };
    let gaps = |answer: fn(&mut Host)| {
        let mut host = Host::new(steady());
        host.command(Command::Start);
        let times = dials(&mut host, HOUR, answer);
        times.windows(2).map(|w| w[1].since(w[0]).as_secs_f64()).collect::<Vec<_>>()
    };
    let refused = gaps(refuse);
    assert!((0.75..=1.0).contains(&refused[0]), "{refused:?}");
    assert!((1.5..=2.0).contains(&refused[1]), "{refused:?}");
    assert!(refused[2..].iter().all(|gap| (3.75..=5.0).contains(gap)), "{refused:?}");
    assert!(refused.len() > 700);
    // No answer: the interval is the duration of the attempt, and the next one follows immediately.
    let silent = gaps(|_| {});
    assert!(silent.iter().all(|gap| (5.0..=5.01).contains(gap)), "{silent:?}");
    // No answer to ARP, as the kernel reports three seconds later.
    let unreachable = gaps(|host| {
        host.pass(Duration::from_secs(3));
        refuse(host);
    });
    assert!(unreachable.iter().all(|gap| (3.0..=5.0).contains(gap)), "{unreachable:?}");
    // A session that ends is dialled for again at once.
    let mut host = Host::new(steady());
    host.command(Command::Start);
    host.advance(State::Established, Slot::Outgoing);
    host.closed(Slot::Outgoing);
    assert!(host.deadline("connect retry").unwrap() <= Duration::from_secs(1));
}

#[test]
fn a_peer_that_refuses_our_version_is_tried_again_without_growing_delays() {
    let gap = |code: Code| {
        let mut host = Host::new(config());
        host.command(Command::Start);
        let times = dials(&mut host, HOUR / 4, |host| {
            host.connected(Slot::Outgoing);
            host.receive(Slot::Outgoing, &notification(code));
        });
        times.windows(2).map(|w| w[1].since(w[0])).max().unwrap()
    };
    assert!(gap(Code::UNSUPPORTED_VERSION) <= Duration::from_secs(5), "event 24 does not count");
    assert!(gap(Code::BAD_PEER_AS) > Duration::from_secs(25));
}

#[test]
fn silence_ends_each_attempt() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    assert_eq!(host.deadline("connect"), Some(Duration::from_secs(15)));
    host.output();
    host.pass(Duration::from_secs(15));
    assert_eq!(host.output(), "abort-dial");
    let late = Slot::Outgoing;
    host.connected(late);
    assert_eq!(host.output(), "close(Outgoing)", "a connection that is made too late is closed");
    host.pass(Duration::from_secs(5));
    assert_eq!(host.output(), "dial");
}

#[test]
fn a_stable_session_forgives_earlier_failures() {
    for (secs, longest) in [(59, 40.0), (60, 5.0)] {
        let mut host = Host::new(config());
        host.command(Command::Start);
        for _ in 0..10 {
            refuse(&mut host);
            host.pass(Duration::from_secs(40));
        }
        host.advance(State::Established, Slot::Outgoing);
        host.pass(Duration::from_secs(secs));
        host.closed(Slot::Outgoing);
        let delay = host.deadline("connect retry").unwrap().as_secs_f64();
        assert!((0.75 * longest..=longest).contains(&delay), "{secs} s: {delay}");
    }
}

#[test]
fn a_passive_peer_never_dials() {
    let mut host = Host::new(PeerConfig { passive: PassiveMode::Passive, ..config() });
    host.command(Command::Start);
    assert_eq!(host.peer.state(), State::Active);
    for _ in 0..3 {
        host.advance(State::Established, Slot::Incoming);
        host.closed(Slot::Incoming);
        host.pass(HOUR);
    }
    assert!(!host.output().contains("dial"));
}

#[test]
fn a_peer_that_dials_at_the_start_waits_afterwards() {
    let at_start = || Host::new(PeerConfig { passive: PassiveMode::AtStart, ..config() });
    let mut host = at_start();
    host.command(Command::Start);
    assert_eq!(host.output().matches("dial").count(), 1);
    host.advance(State::Established, Slot::Outgoing);
    host.closed(Slot::Outgoing);
    host.pass(HOUR);
    assert_eq!(host.peer.state(), State::Active);
    host.advance(State::Established, Slot::Incoming);
    host.closed(Slot::Incoming);
    host.pass(HOUR);
    assert!(!host.output().contains("dial"));

    // The attempt fails: the neighbour has to connect.
    let mut host = at_start();
    host.command(Command::Start);
    host.output();
    host.peer.handle_connect_failed(host.now, "connection refused");
    host.pass(HOUR);
    assert_eq!(host.peer.state(), State::Active);
    assert!(!host.output().contains("dial"));
    // Another start is another attempt.
    host.command(Command::Stop(Close::Deconfigured));
    host.command(Command::Start);
    assert_eq!(host.output().matches("dial").count(), 1);
}

#[test]
fn we_do_not_dial_beside_an_established_session() {
    // The peer's connection wins while ours is still being dialled.
    let mut host = Host::new(config());
    host.command(Command::Start);
    host.output();
    host.connected(Slot::Incoming);
    host.receive(Slot::Incoming, &open_message(&peer_open()));
    assert_eq!(host.output(), "OPEN abort-dial KEEPALIVE");
    host.receive(Slot::Incoming, &keepalive());
    assert_eq!(host.output(), "up(Incoming)");
    for _ in 0..60 {
        host.pass(Duration::from_secs(60));
        host.receive(Slot::Incoming, &keepalive());
    }
    assert!(!host.output().contains("dial"));
}

#[test]
fn a_connection_that_says_nothing_does_not_stop_us_from_dialling() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    refuse(&mut host);
    host.connected(Slot::Incoming);
    host.output();
    host.pass(Duration::from_secs(5));
    assert_eq!(host.output(), "dial");
    // The peer's OPEN settles it: no further attempt for now.
    refuse(&mut host);
    host.receive(Slot::Incoming, &open_message(&peer_open()));
    host.output();
    host.pass(Duration::from_secs(20));
    assert!(!host.output().contains("dial"));
}

#[test]
fn a_stopped_peer_refuses_connections_and_has_no_timers() {
    let mut host = Host::in_state(State::Established);
    host.command(Command::Stop(Close::Shutdown { text: String::new() }));
    host.output();
    assert_eq!(host.peer.poll_timeout(), None);
    host.connected(Slot::Incoming);
    assert_eq!(host.output(), "N6/5 close(Incoming)");
    host.command(Command::Restart(Close::ConfigurationChange));
    host.pass(HOUR);
    assert_eq!((host.output().as_str(), host.peer.state()), ("", State::Idle));
}

#[test]
fn a_peer_over_its_limit_waits_before_it_may_come_back() {
    let mut host = Host::in_state(State::Established);
    host.command(Command::Restart(Close::PrefixLimit { family: Family::Ipv4, bound: 10 }));
    assert_eq!(host.output(), "N6/1 close(Outgoing) down");
    assert_eq!(host.peer.state(), State::Idle);
    assert_eq!(host.peer.paced_until(host.now), None, "it is refused at once");
    host.connected(Slot::Incoming);
    assert_eq!(host.output(), "N6/5 close(Incoming)");
    host.pass(host.deadline("idle hold").unwrap());
    assert_eq!(host.output(), "dial");
    host.connected(Slot::Incoming);
    assert_eq!(host.output(), "OPEN");
}

/// An operator overrides the timers.
#[test]
fn a_retry_ends_idle_holds_and_waiting_and_resets_the_back_off() {
    let mut host = Host::in_state(State::Established);
    host.command(Command::Restart(Close::PrefixLimit { family: Family::Ipv4, bound: 10 }));
    host.output();
    host.command(Command::Retry);
    assert_eq!((host.output().as_str(), host.peer.state()), ("dial", State::Connect));
    host.command(Command::Retry);
    assert_eq!(host.output(), "", "an attempt is in progress");
    for _ in 0..10 {
        refuse(&mut host);
        host.command(Command::Retry);
        assert_eq!(host.output(), "dial");
    }
    refuse(&mut host);
    assert!(
        host.deadline("connect retry").unwrap() <= Duration::from_secs(5),
        "as after one failure"
    );
    host.command(Command::Stop(Close::Deconfigured));
    host.output();
    host.command(Command::Retry);
    assert_eq!((host.output().as_str(), host.peer.state()), ("", State::Idle), "it is stopped");
}

#[test]
fn a_peer_that_keeps_breaking_the_protocol_does_not_set_the_pace() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    refuse(&mut host);
    for fault in 1..=6 {
        assert_eq!(host.peer.paced_until(host.now), None, "fault {fault}");
        host.advance(State::Established, Slot::Incoming);
        host.receive(Slot::Incoming, &[0; 19]);
    }
    for _ in 0..3 {
        assert_eq!(host.peer.state(), State::Active);
        // Once the fault is repaired, the wait is short.
        let wait = Duration::from_secs(1);
        assert_eq!(host.peer.paced_until(host.now), Some(host.now + wait));
        host.pass(wait);
        assert_eq!(host.peer.paced_until(host.now), None);
        host.advance(State::Established, Slot::Incoming);
        host.receive(Slot::Incoming, &[0; 19]);
    }
    host.output();
    // Our own attempts keep their distance.
    host.pass(Duration::from_secs(4));
    assert_eq!(host.output(), "");
    host.pass(Duration::from_secs(40));
    assert!(host.output().contains("dial"));
}

/// The properties of a session that another connection from the peer's address must not change.
#[track_caller]
fn session_of(host: &Host) -> (State, Time, Option<crate::session::LastError>, Option<Time>) {
    let peer = &host.peer;
    (peer.state(), peer.session_since(), peer.last_error().cloned(), peer.timers().hold)
}

type Stray = fn(&mut Host, Slot);
const STRAYS: [(&str, Stray); 9] = [
    ("GET /", |h, slot| h.receive(slot, b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")),
    ("hangs up", |h, slot| h.closed(slot)),
    ("NOTIFICATION", |h, slot| h.receive(slot, &notification(Code::ADMINISTRATIVE_SHUTDOWN))),
    ("refused OPEN", |h, slot| h.receive(slot, &notification(Code::UNSUPPORTED_CAPABILITY))),
    ("wrong AS", |h, slot| {
        let mut open = peer_open();
        open.asn = Asn(65009);
        open.capabilities.four_octet_as = Some(Asn(65009));
        h.receive(slot, &open_message(&open));
    }),
    ("KEEPALIVE", |h, slot| h.receive(slot, &keepalive())),
    ("UPDATE", |h, slot| h.receive(slot, &announcement())),
    ("the peer's OPEN", |h, slot| h.receive(slot, &open_message(&peer_open()))),
    ("and again", |h, slot| {
        h.receive(slot, &[open_message(&peer_open()), keepalive(), announcement()].concat());
    }),
];

#[test]
fn connections_from_the_peers_address_do_nothing_to_the_session() {
    for stands in [Slot::Outgoing, Slot::Incoming] {
        let mut host = Host::new(config());
        host.bring(State::Established, stands);
        host.output();
        let before = session_of(&host);
        let offer = host.peer.offer().clone();
        for (what, stray) in STRAYS.iter().cycle().take(10 * STRAYS.len()) {
            let slot = host.peer.incoming_slot();
            assert_ne!(slot, stands);
            host.connected(slot);
            stray(&mut host, slot);
            assert_eq!(session_of(&host), before, "{what}");
            assert_eq!(*host.peer.offer(), offer, "{what}");
            let output = host.output();
            assert!(!output.contains(&format!("{stands:?}")), "{what}: {output}");
        }
        let strays = host.peer.stats().stray_connections;
        assert_eq!(strays, 70, "nine kinds, of which two lose a collision");
        // The session ends as usual, and its back-off is what it would have been.
        host.closed(stands);
        let mut twin = Host::new(config());
        twin.bring(State::Established, stands);
        twin.closed(stands);
        let retry = |host: &Host| host.deadline("connect retry").unwrap().as_secs_f64();
        assert!((0.7..1.4).contains(&(retry(&host) / retry(&twin))));
    }
}

#[test]
fn connections_beside_the_session_leave_one_line_in_a_minute() {
    let mut host = Host::in_state(State::Established);
    let mut lines = 0;
    for _ in 0..1000 {
        host.connected(Slot::Incoming);
        host.closed(Slot::Incoming);
        lines += host.output().matches("note").count();
    }
    assert_eq!(lines, 1);
    host.pass(Duration::from_secs(60));
    host.connected(Slot::Incoming);
    host.closed(Slot::Incoming);
    assert_eq!(host.output().matches("note").count(), 1);
}

/// Without a session: neither side is kept from dialling, and a connection whose OPEN was accepted
/// stays.
#[test]
fn connections_from_the_peers_address_do_not_keep_the_peer_out() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    host.connected(Slot::Outgoing);
    host.output();
    for (what, stray) in STRAYS.iter().cycle().take(7) {
        host.connected(Slot::Incoming);
        stray(&mut host, Slot::Incoming);
        let output = host.output();
        assert!(!output.contains("Outgoing"), "{what}: {output}");
    }
    host.receive(Slot::Outgoing, &[open_message(&peer_open()), keepalive()].concat());
    assert_eq!(host.peer.state(), State::Established);

    let mut host = Host::new(PeerConfig { passive: PassiveMode::Passive, ..config() });
    host.command(Command::Start);
    let first = host.peer.incoming_slot();
    host.connected(first);
    host.receive(first, &open_message(&peer_open()));
    host.output();
    for _ in 0..10 {
        let slot = host.peer.incoming_slot();
        assert_ne!(slot, first);
        host.connected(slot);
    }
    host.receive(first, &keepalive());
    assert!(host.output().contains(&format!("up({first:?})")));
}

#[test]
fn a_connection_that_says_nothing_is_held_for_a_short_time() {
    let mut host = Host::in_state(State::Established);
    host.connected(Slot::Incoming);
    host.output();
    for _ in 0..29 {
        host.pass(Duration::from_secs(1));
        host.receive(Slot::Outgoing, &keepalive());
    }
    assert!(!host.output().contains("close"));
    host.pass(Duration::from_secs(1));
    assert_eq!(host.output(), "note N4/0 close(Incoming)");
}

#[test]
fn a_reason_to_dial_ends_the_wait_for_the_retry_timer_only() {
    let mut host = Host::new(config());
    host.command(Command::Start);
    (0..10).for_each(|_| {
        refuse(&mut host);
        host.pass(Duration::from_secs(40));
    });
    refuse(&mut host);
    host.output();
    host.command(Command::Dial);
    assert_eq!(host.output(), "dial");
    host.command(Command::Dial);
    assert_eq!(host.output(), "", "an attempt is in progress");
    for state in [State::Idle, State::OpenSent, State::OpenConfirm, State::Established] {
        let mut host = Host::in_state(state);
        host.command(Command::Dial);
        assert_eq!(host.output(), "", "{state:?}");
    }
    host.command(Command::Restart(Close::OutOfResources));
    host.output();
    host.command(Command::Dial);
    assert_eq!(host.output(), "", "it is held idle");
}

#[test]
fn a_limit_holds_also_where_the_session_has_just_ended() {
    let mut host = Host::in_state(State::Established);
    host.closed(Slot::Outgoing);
    host.output();
    host.command(Command::Restart(Close::PrefixLimit { family: Family::Ipv4, bound: 5 }));
    assert_eq!((host.output().as_str(), host.peer.state()), ("", State::Idle));
    host.connected(Slot::Incoming);
    assert_eq!(host.output(), "N6/5 close(Incoming)");
}

#[test]
fn a_peer_that_is_kept_idle_says_why() {
    let idle = Some("Secret calico-system/bgp is missing".into());
    let mut host = Host::new(PeerConfig { idle, ..config() });
    host.command(Command::Start);
    assert_eq!((host.output().as_str(), host.peer.state()), ("", State::Idle));
    assert!(host.peer.last_error().unwrap().text.contains("is missing"));
    host.command(Command::Dial);
    host.connected(Slot::Incoming);
    assert_eq!(host.output(), "N6/5 close(Incoming)");
    assert_eq!(host.peer.poll_timeout(), None);
}

#[test]
fn restart_ends_every_connection_and_retries() {
    let mut host = Host::in_state(State::Established);
    host.connected(Slot::Incoming);
    host.output();
    host.command(Command::Restart(Close::Reset { text: "bye".to_owned() }));
    assert_eq!(host.output(), "N6/4 close(Outgoing) down N6/4 close(Incoming)");
    host.pass(Duration::from_secs(5));
    assert_eq!(host.output(), "dial");
}
