//! How sessions end: NOTIFICATIONs, what is kept, replacement of a restarted peer's session.

use super::*;
use crate::session::HoldExpiry;

/// An established session with a peer that does graceful restart.
fn restarting(notification: bool, slot: Slot) -> Host {
    restarting_with(config(), notification, slot)
}

fn restarting_with(config: PeerConfig, notification: bool, slot: Slot) -> Host {
    let mut host = Host::new(config);
    host.bring(State::OpenSent, slot);
    host.receive(slot, &open_message(&restarting_open(notification)));
    host.receive(slot, &keepalive());
    host.output();
    host
}

#[test]
fn routes_are_kept_exactly_when_both_rfcs_say_so() {
    let text = String::new;
    let limit = Close::PrefixLimit { family: Family::Ipv4, bound: 1 };
    // (reason, kept without N, kept with N, sent without N, sent with N)
    let stops = [
        (Close::Shutdown { text: text() }, false, false, "N6/2", "N6/9"),
        (Close::Reset { text: text() }, false, false, "N6/4", "N6/9"),
        (Close::Deconfigured, false, false, "N6/3", "N6/9"),
        (Close::ConfigurationChange, false, true, "N6/6", "N6/6"),
        (limit, false, false, "N6/1", "N6/9"),
        (Close::OutOfResources, false, false, "N6/8", "N6/8"),
        (Close::GracefulStop, true, true, "", ""),
    ];
    for (reason, plain, with_n, sent_plain, sent_with_n) in stops {
        for (n, kept, sent) in [(false, plain, sent_plain), (true, with_n, sent_with_n)] {
            let mut host = restarting(n, Slot::Outgoing);
            host.command(Command::Stop(reason.clone()));
            let down = if kept { "down+keep" } else { "down" };
            let expected = format!("{sent} close(Outgoing) {down}");
            assert_eq!(host.output(), expected.trim_start(), "{reason:?}, N {n}");
        }
    }
    type Event = fn(&mut Host);
    let events: [(&str, Event, bool, bool); 5] = [
        ("connection lost", |h| h.closed(Slot::Outgoing), true, true),
        ("hold timer", |h| h.pass(Duration::from_secs(90)), false, true),
        ("cease", |h| h.receive(Slot::Outgoing, &notification(Code::CEASE)), false, true),
        (
            "hard reset",
            |h| h.receive(Slot::Outgoing, &notification(Code::HARD_RESET)),
            false,
            false,
        ),
        ("protocol error", |h| h.receive(Slot::Outgoing, &message(2, &[0xff, 0xff])), false, true),
    ];
    for (what, event, plain, with_n) in events {
        for (n, kept) in [(false, plain), (true, with_n)] {
            let mut host = restarting(n, Slot::Outgoing);
            event(&mut host);
            let keep = Keep::for_restart(ipv4_only(), Duration::from_secs(77));
            let (reason, got) = host.downs.pop().unwrap();
            assert_eq!(got, kept.then_some(keep), "{what}, N {n}: {reason:?}");
        }
    }
}

/// If both ends support RFC 8538, nothing else distinguishes a restart from a loss of power.
#[test]
fn a_neighbour_that_fell_silent_may_count_as_dead() {
    for (hold_expiry, kept) in [(HoldExpiry::Restart, true), (HoldExpiry::Death, false)] {
        let with = || PeerConfig { hold_expiry, ..config() };
        let mut host = restarting_with(with(), true, Slot::Outgoing);
        host.pass(Duration::from_secs(90));
        let (reason, keep) = host.downs.pop().unwrap();
        assert_eq!((reason, keep.is_some()), (Close::HoldTimerExpired, kept));
        // A lost connection is another matter.
        let mut host = restarting_with(with(), true, Slot::Outgoing);
        host.closed(Slot::Outgoing);
        assert!(host.downs.pop().unwrap().1.is_some());
    }
}

#[test]
fn without_graceful_restart_nothing_is_kept() {
    let mut host = Host::in_state(State::Established);
    host.closed(Slot::Outgoing);
    assert_eq!(host.output(), "down");
}

#[test]
fn a_hard_reset_wraps_what_it_replaces() {
    let mut host = restarting(true, Slot::Outgoing);
    let limit = Close::PrefixLimit { family: Family::Ipv4, bound: 1000 };
    host.peer.handle_command(host.now, Command::Stop(limit.clone()));
    let mut out = Vec::new();
    host.peer.poll_transmit(Slot::Outgoing, &mut out);
    let sent = Notification::decode(split_frame(&out, usize::MAX).unwrap().unwrap().body());
    assert_eq!(sent.code, Code::HARD_RESET);
    assert_eq!(sent.data, [6, 1, 0, 1, 1, 0, 0, 0x03, 0xe8]);
    let error = host.peer.last_error().unwrap();
    assert_eq!(error.code, Some(Code::MAXIMUM_PREFIXES), "operators see the inner code");
}

#[test]
fn a_shutdown_text_reaches_the_peer_cut_at_a_character() {
    let mut host = Host::in_state(State::Established);
    let text = "ä".repeat(200);
    host.peer.handle_command(host.now, Command::Stop(Close::Shutdown { text }));
    let mut out = Vec::new();
    host.peer.poll_transmit(Slot::Outgoing, &mut out);
    let sent = Notification::decode(split_frame(&out, usize::MAX).unwrap().unwrap().body());
    assert_eq!(sent.data.len(), 255, "254 octets of text after the length");
    assert_eq!(sent.text().as_deref(), Some("ä".repeat(127).as_str()));
}

#[test]
fn a_notification_is_never_answered() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        for code in [Code::CEASE, Code::new(99, 99), Code::UNSUPPORTED_VERSION] {
            let mut host = Host::in_state(state);
            host.receive(Slot::Outgoing, &notification(code));
            let output = host.output();
            assert!(output.starts_with("close(Outgoing)"), "{state:?}: {output}");
            // What follows in the same segment is dropped.
            assert_eq!(host.feed(Slot::Outgoing, &[0; 100]), 100);
            assert_eq!(host.output(), "");
        }
    }
}

#[test]
fn a_restarted_peer_replaces_its_session_by_a_confirmed_one_only() {
    for (stands, new) in [(Slot::Outgoing, Slot::Incoming), (Slot::Incoming, Slot::Reconnect)] {
        let mut host = restarting(false, stands);
        assert_eq!(host.peer.incoming_slot(), new);
        host.connected(new);
        assert_eq!(host.output(), "OPEN", "connecting alone ends nothing");

        let wrong = Open { router_id: RouterId(0), ..restarting_open(false) };
        host.receive(new, &open_message(&wrong));
        assert_eq!(host.output(), format!("note N2/3 close({new:?})"));
        assert_eq!(host.peer.state(), State::Established);

        host.connected(host.peer.incoming_slot());
        host.output();
        host.receive(new, &open_message(&restarting_open(false)));
        assert_eq!(host.output(), "", "a connection that crossed ours looks the same so far");
        host.receive(new, &[keepalive(), announcement()].concat());
        assert_eq!(host.output(), format!("reset({stands:?}) down+keep up({new:?}) KEEPALIVE"));
        assert_eq!(host.routes.len(), 1);

        // And once more: the free incoming slot is found again.
        let next = host.peer.incoming_slot();
        assert_ne!(next, new);
        host.connected(next);
        host.receive(next, &[open_message(&restarting_open(false)), keepalive()].concat());
        assert_eq!(host.output(), format!("OPEN reset({new:?}) down+keep up({next:?}) KEEPALIVE"));
    }
}

#[test]
fn a_restarted_peer_that_waits_for_us_replaces_its_session_after_a_second() {
    let mut host = restarting(false, Slot::Incoming);
    let new = host.peer.incoming_slot();
    host.connected(new);
    host.receive(new, &open_message(&restarting_open(false)));
    host.pass(Duration::from_millis(900));
    assert_eq!(host.output(), "OPEN");
    host.pass(Duration::from_millis(200));
    assert_eq!(host.output(), "reset(Incoming) down+keep KEEPALIVE");
    host.receive(new, &keepalive());
    assert_eq!(host.output(), format!("up({new:?})"));
}

#[test]
fn the_loser_of_a_late_collision_leaves_the_session_alone() {
    let mut host = restarting(false, Slot::Outgoing);
    host.connected(Slot::Incoming);
    let both = [open_message(&restarting_open(false)), notification(Code::CONNECTION_COLLISION)];
    host.receive(Slot::Incoming, &both.concat());
    assert_eq!(host.output(), "OPEN close(Incoming)");
    assert_eq!(host.peer.state(), State::Established);
}

#[test]
fn without_graceful_restart_the_session_wins_over_a_new_connection() {
    for stands in [Slot::Outgoing, Slot::Incoming] {
        let mut host = Host::new(config());
        host.bring(State::Established, stands);
        let new = host.peer.incoming_slot();
        host.connected(new);
        host.output();
        host.receive(new, &open_message(&peer_open()));
        assert_eq!(host.output(), format!("N6/7 close({new:?})"));
        assert_eq!(host.peer.state(), State::Established);
    }
}

#[test]
fn octets_are_not_messages_for_the_hold_timer() {
    let mut host = Host::in_state(State::Established);
    let update = announcement();
    // A drip: one more octet of the same UPDATE every nine seconds, never complete.
    for len in 1..=10 {
        host.pass(Duration::from_secs(9));
        host.receive(Slot::Outgoing, &update[..len]);
    }
    assert!(host.output().ends_with("N4/0 close(Outgoing) down"));
}

#[test]
fn complete_messages_and_a_busy_host_restart_the_hold_timer() {
    let mut host = Host::in_state(State::Established);
    for _ in 0..10 {
        host.pass(Duration::from_secs(80));
        host.receive(Slot::Outgoing, &announcement());
        host.pass(Duration::from_secs(80));
        host.peer.handle_alive(host.now, Slot::Outgoing);
    }
    assert_eq!(host.peer.state(), State::Established);
}

#[test]
fn send_hold_runs_only_while_nothing_moves() {
    let mut host = Host::in_state(State::Established);
    let spend = |host: &mut Host, secs: u64| {
        for _ in 0..secs / 60 {
            host.receive(Slot::Outgoing, &keepalive());
            host.pass(Duration::from_secs(60));
        }
    };
    host.peer.handle_send_blocked(host.now, Slot::Outgoing);
    spend(&mut host, 420);
    host.peer.handle_sent(host.now, Slot::Outgoing);
    spend(&mut host, 600);
    assert_eq!(host.peer.state(), State::Established, "progress stops the timer");
    host.peer.handle_send_blocked(host.now, Slot::Outgoing);
    spend(&mut host, 420);
    host.peer.handle_send_blocked(host.now, Slot::Outgoing);
    spend(&mut host, 60);
    assert!(host.output().ends_with("reset(Outgoing) down"), "a second call does not prolong it");
    assert_eq!(host.peer.last_error().unwrap().code, Some(Code::SEND_HOLD_TIMER_EXPIRED));
}

#[test]
fn the_last_error_says_who_and_why() {
    use crate::session::Origin;
    let mut host = Host::in_state(State::Established);
    let mut out = Vec::new();
    Notification::with_text(Code::ADMINISTRATIVE_SHUTDOWN, "night shift").encode(&mut out);
    host.receive(Slot::Outgoing, &out);
    let error = host.peer.last_error().unwrap();
    assert_eq!((error.origin, error.code), (Origin::Received, Some(Code::ADMINISTRATIVE_SHUTDOWN)));
    assert_eq!(error.text, "Administrative Shutdown: night shift");

    let mut host = Host::in_state(State::Established);
    host.pass(Duration::from_secs(90));
    let error = host.peer.last_error().unwrap();
    assert_eq!((error.origin, error.text.as_str()), (Origin::Sent, "Hold Timer Expired"));
    host.peer.handle_connect_failed(host.now, "ignored while nobody dials");
    assert_eq!(host.peer.last_error().unwrap().text, "Hold Timer Expired");
}

/// A failure of TCP says nothing about why BGP did not work before.
#[test]
fn the_last_bgp_error_outlives_failures_of_tcp() {
    let mut host = Host::in_state(State::Established);
    host.pass(Duration::from_secs(90));
    while host.peer.last_error().unwrap().text != "refused" {
        host.pass(Duration::from_secs(1));
        host.peer.handle_connect_failed(host.now, "refused");
    }
    assert_eq!(host.peer.last_bgp_error().unwrap().text, "Hold Timer Expired");
    // The end of a session counts, whatever ended it.
    let mut host = Host::in_state(State::Established);
    host.peer.handle_closed(host.now, Slot::Outgoing, "reset by peer");
    assert_eq!(host.peer.last_bgp_error().unwrap().text, "reset by peer");
}

#[test]
fn a_refused_open_names_both_sides() {
    use crate::types::{Asn, RouterId};
    let config = config();
    let (ours, theirs) = (config.local_asn, config.remote_asn);
    let refused = |open: &Open| {
        let mut host = Host::in_state(State::OpenSent);
        host.receive(Slot::Outgoing, &open_message(open));
        host.peer.last_bgp_error().unwrap().text.clone()
    };
    let mut open = Open { asn: Asn(65009), ..peer_open() };
    open.capabilities.four_octet_as = Some(open.asn);
    let expected = format!(
        "Bad Peer AS: the neighbour is AS 65009, we expect AS {theirs} (remote-asn): correct one of \
         them"
    );
    assert_eq!(refused(&open), expected);
    let mut own = Open { asn: ours, router_id: config.router_id, ..peer_open() };
    own.capabilities.four_octet_as = Some(ours);
    assert!(refused(&own).contains("is an address of this machine"), "{}", refused(&own));
    let mut other = peer_open();
    other.router_id = RouterId(7);
    other.capabilities.multiprotocol = vec![crate::types::Family::Ipv6.afi_safi()];
    let expected = "Unsupported Capability: the neighbour offers ipv6, we want ipv4: no family in \
                    common (families)";
    assert_eq!(refused(&other), expected);

    let mut host = Host::in_state(State::OpenSent);
    let mut out = Vec::new();
    Notification::new(Code::BAD_PEER_AS).encode(&mut out);
    host.receive(Slot::Outgoing, &out);
    let text = host.peer.last_error().unwrap().text.clone();
    assert!(text.contains(&format!("does not expect AS {ours} (ours)")), "{text}");
    // In a session, it is no answer to our OPEN.
    let mut host = Host::in_state(State::Established);
    host.receive(Slot::Outgoing, &out);
    assert_eq!(host.peer.last_error().unwrap().text, "Bad Peer AS");
}

#[test]
fn a_hard_reset_says_what_it_carries() {
    let mut host = Host::in_state(State::Established);
    let mut out = Vec::new();
    Notification::with_data(Code::HARD_RESET, [6, 3]).encode(&mut out);
    host.receive(Slot::Outgoing, &out);
    assert_eq!(host.peer.last_error().unwrap().text, "Hard Reset (Peer De-configured)");
}
