//! OPEN: what is refused, what is negotiated, what is offered; collisions.

use super::*;
use crate::session::{Offer, RemoteAsn};
use crate::wire::AddPathMode;

/// The answer to an OPEN on our own connection, and its data.
fn answer(config: PeerConfig, open: &Open) -> (String, Vec<u8>) {
    let mut host = Host::new(config);
    host.bring(State::OpenSent, Slot::Outgoing);
    host.output();
    host.peer.handle_bytes(
        host.now,
        Slot::Outgoing,
        &open_message(open),
        &mut RouteBatch::default(),
        usize::MAX,
    );
    let mut out = Vec::new();
    host.peer.poll_transmit(Slot::Outgoing, &mut out);
    let frame = split_frame(&out, usize::MAX).unwrap().unwrap();
    match frame.kind {
        MessageType::Notification => {
            let n = Notification::decode(frame.body());
            (format!("{}/{}", n.code.code, n.code.subcode), n.data)
        }
        kind => (format!("{kind:?}"), Vec::new()),
    }
}

#[test]
fn opens_that_contradict_the_configuration_are_refused() {
    let good = peer_open();
    assert_eq!(answer(config(), &good).0, "Keepalive");

    let stranger = Open { asn: Asn(65002), ..good.clone() };
    let mut stranger4 = stranger.clone();
    stranger4.capabilities.four_octet_as = Some(Asn(65002));
    assert_eq!(answer(config(), &stranger4).0, "2/2");

    let twin = Open { router_id: LOCAL_ID, ..good.clone() };
    assert_eq!(answer(config(), &twin).0, "Keepalive", "equal identifiers are legal on eBGP");
    let internal = PeerConfig { remote_asn: LOCAL_AS.into(), ..config() };
    let mut twin = Open { asn: LOCAL_AS, ..twin };
    twin.capabilities.four_octet_as = Some(LOCAL_AS);
    assert_eq!(answer(internal, &twin).0, "2/3");

    let accepting = |remote_asn, open: &Open| {
        answer(PeerConfig { remote_asn, ..config() }, &Open { router_id: PEER_ID, ..open.clone() })
            .0
    };
    assert_eq!(accepting(RemoteAsn::External, &stranger4), "Keepalive");
    assert_eq!(accepting(RemoteAsn::External, &twin), "2/2", "our own AS");
    assert_eq!(accepting(RemoteAsn::Any, &stranger4), "Keepalive");
    assert_eq!(accepting(RemoteAsn::Any, &twin), "Keepalive");
    let any = PeerConfig { remote_asn: RemoteAsn::Any, ..config() };
    assert_eq!(answer(any, &twin).0, "2/3", "it is an internal neighbour with our identifier");

    for hold_time_secs in [1, 2] {
        assert_eq!(answer(config(), &Open { hold_time_secs, ..good.clone() }).0, "2/6");
    }

    let mut other_family = good;
    other_family.capabilities.multiprotocol = vec![Family::Ipv6.afi_safi()];
    assert_eq!(answer(config(), &other_family), ("2/7".to_owned(), vec![1, 4, 0, 1, 0, 1]));
}

#[test]
fn a_peer_that_sends_everything_in_one_segment_is_understood() {
    let stream = [open_message(&peer_open()), keepalive(), announcement()].concat();
    for piece in [1, 7, 23, stream.len()] {
        let mut host = Host::in_state(State::OpenSent);
        let mut buffer = Vec::new();
        for octets in stream.chunks(piece) {
            buffer.extend_from_slice(octets);
            let taken = host.feed(Slot::Outgoing, &buffer);
            buffer.drain(..taken);
        }
        let output = host.output();
        let seen = output.contains("KEEPALIVE") && output.contains("up(Outgoing)");
        assert!(seen && output.split(' ').count() == 2, "pieces of {piece}: {output}");
        assert_eq!((host.routes.len(), buffer.len()), (1, 0), "pieces of {piece}");
    }
}

#[test]
fn hold_and_keepalive_times_belong_to_the_session() {
    let mut host = Host::in_state(State::Established);
    let negotiated = host.peer.negotiated().unwrap();
    assert_eq!(negotiated.hold_time, Duration::from_secs(90));
    assert_eq!(negotiated.keepalive_time, Duration::from_secs(30));

    host.closed(Slot::Outgoing);
    host.connected(Slot::Incoming);
    host.receive(Slot::Incoming, &open_message(&Open { hold_time_secs: 3, ..peer_open() }));
    host.receive(Slot::Incoming, &keepalive());
    let negotiated = host.peer.negotiated().unwrap();
    assert_eq!(negotiated.hold_time, Duration::from_secs(3));
    assert_eq!(negotiated.keepalive_time, Duration::from_secs(1));
    let due = host.deadline("keepalive").unwrap();
    assert!((750..=1000).contains(&due.as_millis()), "{due:?}");
}

#[test]
fn keepalives_are_jittered_below_a_third_of_the_hold_time() {
    let mut host = Host::in_state(State::Established);
    let mut intervals = Vec::new();
    for _ in 0..50 {
        let due = host.deadline("keepalive").unwrap();
        intervals.push(due.as_secs_f64());
        host.pass(due);
        assert_eq!(host.output(), "KEEPALIVE");
        host.receive(Slot::Outgoing, &keepalive());
    }
    assert!(intervals.iter().all(|i| (22.5..=30.0).contains(i)), "{intervals:?}");
    assert!(intervals.iter().any(|i| *i < 24.0) && intervals.iter().any(|i| *i > 28.0));
}

#[test]
fn hold_time_zero_confirms_once_and_then_is_silent_for_ever() {
    let mut host = Host::in_state(State::OpenSent);
    host.receive(Slot::Outgoing, &open_message(&Open { hold_time_secs: 0, ..peer_open() }));
    assert_eq!(host.output(), "KEEPALIVE");
    host.receive(Slot::Outgoing, &keepalive());
    assert_eq!(host.output(), "up(Outgoing)");
    host.peer.handle_send_blocked(host.now, Slot::Outgoing);
    assert_eq!(host.peer.poll_timeout(), None);
    host.pass(Duration::from_secs(1_000_000));
    assert_eq!(host.output(), "");
    assert_eq!(host.peer.state(), State::Established);
}

#[test]
fn a_peer_that_never_confirms_hold_time_zero_does_not_keep_the_slot() {
    let mut host = Host::in_state(State::OpenSent);
    host.receive(Slot::Outgoing, &open_message(&Open { hold_time_secs: 0, ..peer_open() }));
    host.output();
    host.pass(Duration::from_secs(239));
    assert_eq!(host.peer.state(), State::OpenConfirm);
    host.pass(Duration::from_secs(1));
    assert_eq!(host.output(), "N4/0 close(Outgoing)");
}

#[test]
fn what_is_sent_depends_on_both_sides() {
    let mut host = Host::new(PeerConfig {
        families: FamilySet::ALL,
        add_path: crate::types::FamilyMap([AddPathMode::Both, AddPathMode::Receive]),
        extended_next_hop: true,
        ..config()
    });
    host.bring(State::OpenSent, Slot::Outgoing);
    let mut open = restarting_open(true);
    let caps = &mut open.capabilities;
    let (v4, v6) = (Family::Ipv4.afi_safi(), Family::Ipv6.afi_safi());
    caps.multiprotocol = vec![v6, v4];
    caps.add_path = vec![(v4, AddPathMode::Receive), (v6, AddPathMode::Both)];
    caps.extended_next_hop = vec![(v4, 2)];
    caps.extended_message = true;
    host.receive(Slot::Outgoing, &open_message(&open));
    host.receive(Slot::Outgoing, &keepalive());
    let n = host.peer.negotiated().unwrap();
    assert_eq!(n.families, FamilySet::ALL);
    assert_eq!(n.add_path_tx, FamilySet::only(Family::Ipv4), "they receive IPv4, we send it");
    assert_eq!(n.add_path_rx, FamilySet::only(Family::Ipv6), "they send IPv6, we receive it");
    assert!(n.ipv4_over_ipv6 && n.route_refresh && !n.enhanced_refresh && n.four_octet_as);
    assert_eq!((n.tx_max_len, n.rx_max_len), (65535, 65535));
    assert_eq!(n.restart_families(), ipv4_only(), "GR was announced for IPv4 only");
}

/// The capabilities of the OPEN that the next connection sends.
fn next_offer(host: &mut Host) -> Capabilities {
    host.peer.handle_connected(
        host.now,
        Slot::Incoming,
        "192.0.2.9:179".parse().unwrap(),
        "192.0.2.1:40001".parse().unwrap(),
    );
    let mut out = Vec::new();
    host.peer.poll_transmit(Slot::Incoming, &mut out);
    let frame = split_frame(&out, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.kind, MessageType::Open);
    Open::decode(frame.body()).unwrap().capabilities
}

#[test]
fn refused_capabilities_are_left_out_step_by_step_and_start_over() {
    let mut host = Host::new(PeerConfig {
        add_path: crate::types::FamilyMap([AddPathMode::Both; 2]),
        ..config()
    });
    host.command(Command::Start);
    let refuse = |host: &mut Host, code: Code, data: &[u8]| {
        let caps = next_offer(host);
        // A peer that refuses has sent an OPEN itself.
        host.receive(Slot::Incoming, &open_message(&peer_open()));
        let mut out = Vec::new();
        Notification::with_data(code, data).encode(&mut out);
        host.receive(Slot::Incoming, &out);
        assert!(host.output().contains("note"), "the smaller offer is logged");
        caps
    };
    let full = refuse(&mut host, Code::UNSUPPORTED_CAPABILITY, &[69, 4, 0, 1, 1, 3, 1, 0]);
    assert!(!full.add_path.is_empty() && full.graceful_restart.is_some());
    assert_eq!(*host.peer.offer(), Offer::Without(vec![69]), "1 is essential");

    let named = refuse(&mut host, Code::UNSUPPORTED_CAPABILITY, &[64]);
    assert!(named.add_path.is_empty() && named.graceful_restart.is_some());
    assert_eq!(*host.peer.offer(), Offer::Essential, "a truncated TLV names nothing");

    let essential = refuse(&mut host, Code::UNSUPPORTED_OPTIONAL_PARAMETER, &[]);
    assert_eq!(essential.multiprotocol.len(), 1);
    assert!(essential.four_octet_as.is_some() && !essential.route_refresh);

    let bare = refuse(&mut host, Code::UNSUPPORTED_OPTIONAL_PARAMETER, &[]);
    assert_eq!(bare, Capabilities::default());
    assert_eq!(*host.peer.offer(), Offer::Full);

    // Without an OPEN, the refusal may come from another process at that address.
    next_offer(&mut host);
    host.receive(Slot::Incoming, &notification(Code::UNSUPPORTED_OPTIONAL_PARAMETER));
    assert_eq!(*host.peer.offer(), Offer::Full);

    refuse(&mut host, Code::UNSUPPORTED_OPTIONAL_PARAMETER, &[]);
    host.command(Command::Stop(Close::Deconfigured));
    host.command(Command::Start);
    assert_eq!(*host.peer.offer(), Offer::Full, "starting the peer resets the offer");
}

#[test]
fn capability_64_reports_the_state_at_the_time_of_the_connection() {
    let mut host = Host::new(PeerConfig { families: FamilySet::ALL, ..config() });
    host.command(Command::Start);
    let done = next_offer(&mut host).graceful_restart.unwrap();
    assert!(!done.restarting && done.notification && done.families.iter().all(|f| f.forwarding));
    assert_eq!(done.restart_time_secs, 120);

    host.peer.set_restart(Restart::Recovering { preserved: ipv4_only() });
    let recovering = next_offer(&mut host).graceful_restart.unwrap();
    assert!(recovering.restarting);
    let preserved: Vec<_> = recovering.families.iter().map(|f| f.forwarding).collect();
    assert_eq!(preserved, [true, false]);
}

/// Which connection survives when both ends see both OPENs: "ours" is the one that `local` dialled.
fn collide(local: (RouterId, Asn), remote: (RouterId, Asn), ours_first: bool) -> Slot {
    let identity = LocalIdentity { asn: local.1, router_id: local.0 };
    let config = PeerConfig::new("192.0.2.1".parse().unwrap(), remote.1, &identity);
    let mut open = Open { asn: remote.1, router_id: remote.0, ..peer_open() };
    open.capabilities.four_octet_as = Some(remote.1);
    let mut host = Host::new(config);
    host.bring(State::OpenSent, Slot::Outgoing);
    host.connected(Slot::Incoming);
    let order = if ours_first {
        [Slot::Outgoing, Slot::Incoming]
    } else {
        [Slot::Incoming, Slot::Outgoing]
    };
    for slot in order {
        host.receive(slot, &open_message(&open));
    }
    let alive: Vec<_> = Slot::ALL.into_iter().filter(|s| host.peer.conn(*s).is_some()).collect();
    assert_eq!(alive.len(), 1);
    assert_eq!(host.output().matches("N6/7").count(), 1);
    alive[0]
}

#[test]
fn both_ends_of_a_collision_keep_the_same_connection() {
    let speakers = [
        (RouterId(1), Asn(65001)),
        (RouterId(2), Asn(65000)),
        (RouterId(2), Asn(65002)),
        (RouterId(0xff00_0000), Asn(65003)),
    ];
    for a in speakers {
        for b in speakers.into_iter().filter(|b| *b != a) {
            for (first_a, first_b) in [(true, true), (true, false), (false, true), (false, false)] {
                let at_a = collide(a, b, first_a);
                let at_b = collide(b, a, first_b);
                assert_ne!(at_a, at_b, "{a:?} {b:?}: one end's outgoing is the other's incoming");
                assert_eq!(at_a == Slot::Outgoing, a > b, "the larger identifier's, then AS's");
            }
        }
    }
}

/// draft-ietf-idr-bgp-bfd-strict-mode.
mod strict {
    use super::*;
    use crate::session::BfdMode;

    fn strict() -> PeerConfig {
        PeerConfig { bfd_mode: BfdMode::Strict, ..config() }
    }

    /// Both OPENs are in, and the peer's KEEPALIVE if it confirms.
    fn waiting(slot: Slot, confirms: bool) -> Host {
        let mut host = Host::new(strict());
        host.bring(State::OpenSent, slot);
        host.receive(slot, &open_message(&peer_open()));
        if confirms {
            host.receive(slot, &keepalive());
        }
        let output = host.output();
        assert!(output.contains("note") && !output.contains("KEEPALIVE"), "{output}");
        assert_eq!(host.peer.state(), State::OpenConfirm);
        host
    }

    #[test]
    fn the_session_is_established_when_bfd_is_up_and_not_before() {
        for (slot, confirms) in
            [(Slot::Outgoing, true), (Slot::Outgoing, false), (Slot::Incoming, true)]
        {
            let mut host = waiting(slot, confirms);
            host.pass(Duration::from_secs(60));
            assert_eq!(host.output(), "", "the peer waits as long as we do");
            host.command(Command::SetBfd(BfdPath::Up));
            let expected =
                if confirms { format!("up({slot:?}) KEEPALIVE") } else { "KEEPALIVE".to_owned() };
            let output = host.output().replace("abort-dial ", "");
            assert_eq!(output, expected, "{slot:?}");
            host.receive(slot, &keepalive());
            assert_eq!(host.peer.state(), State::Established);
        }
    }

    #[test]
    fn bfd_that_is_up_already_delays_nothing() {
        let mut host = Host::new(strict());
        host.command(Command::SetBfd(BfdPath::Up));
        host.bring(State::Established, Slot::Outgoing);
        assert!(!host.output().contains("note"));
    }

    #[test]
    fn bfd_that_does_not_come_up_ends_the_handshake_with_6_10() {
        let mut host = waiting(Slot::Outgoing, true);
        host.pass(Duration::from_secs(91));
        let output = host.output();
        assert!(output.starts_with("N6/10 close(Outgoing)"), "{output}");
        let error = host.peer.last_error().unwrap();
        assert_eq!(error.text, "BFD Down: it did not come up within the hold time");
        // And again, for as long as BFD is down.
        host.pass(Duration::from_secs(60));
        assert!(host.output().contains("dial"));
    }

    /// A session that stands is the host's to end; the next one waits again.
    #[test]
    fn a_session_that_lost_bfd_waits_for_it_to_return() {
        let mut host = Host::new(strict());
        host.command(Command::SetBfd(BfdPath::Up));
        host.bring(State::Established, Slot::Outgoing);
        host.output();
        host.command(Command::SetBfd(BfdPath::Down));
        assert_eq!((host.peer.state(), host.output().as_str()), (State::Established, ""));
        host.command(Command::Restart(Close::BfdDown { text: String::new() }));
        host.pass(Duration::from_secs(10));
        host.connected(Slot::Outgoing);
        host.receive(Slot::Outgoing, &open_message(&peer_open()));
        host.receive(Slot::Outgoing, &keepalive());
        assert_eq!(host.peer.state(), State::OpenConfirm);
        host.command(Command::SetBfd(BfdPath::Up));
        assert_eq!(host.peer.state(), State::Established);
    }

    #[test]
    fn bfd_that_goes_down_during_the_handshake_ends_it() {
        let mut host = Host::new(strict());
        host.command(Command::SetBfd(BfdPath::Up));
        host.bring(State::OpenConfirm, Slot::Outgoing);
        assert!(host.output().ends_with("KEEPALIVE"));
        host.command(Command::SetBfd(BfdPath::Down));
        host.receive(Slot::Outgoing, &keepalive());
        let output = host.output();
        assert!(output.starts_with("N6/10 close(Outgoing)"), "{output}");
        let error = host.peer.last_error().unwrap();
        assert_eq!(error.text, "BFD Down: it went down during the handshake");
        assert_eq!(host.peer.stats().established_transitions, 0);
    }

    #[test]
    fn bfd_that_comes_up_ends_the_wait_for_the_retry_timer() {
        for (config, dials) in [(strict(), true), (config(), false)] {
            let mut host = Host::new(config);
            host.bring(State::Active, Slot::Outgoing);
            host.output();
            host.command(Command::SetBfd(BfdPath::Down));
            assert_eq!(host.output(), "");
            host.command(Command::SetBfd(BfdPath::Up));
            assert_eq!(host.output(), if dials { "dial" } else { "" });
            host.command(Command::SetBfd(BfdPath::Up));
            assert_eq!(host.output(), "", "it dials already");
        }
    }

    /// The host may not know yet that the session is established, and then cannot name it.
    #[test]
    fn a_failure_of_bfd_ends_a_session_in_strict_mode_whichever_it_is() {
        let failed = || Command::FailBfd(Close::BfdDown { text: "failed".to_owned() });
        for (config, ends) in [(strict(), true), (config(), false)] {
            let mut host = Host::new(config);
            host.command(Command::SetBfd(BfdPath::Up));
            host.bring(State::Established, Slot::Outgoing);
            host.output();
            host.command(failed());
            host.command(Command::SetBfd(BfdPath::Down));
            assert_eq!(host.output().starts_with("N6/10 close(Outgoing)"), ends);
            assert_eq!(host.peer.state() == State::Established, !ends);
        }
        // A handshake waits for BFD as before.
        let mut host = waiting(Slot::Outgoing, true);
        host.command(failed());
        assert_eq!((host.peer.state(), host.output().as_str()), (State::OpenConfirm, ""));
    }

    #[test]
    fn the_capability_is_offered_in_strict_mode_alone() {
        for (config, offered) in [(strict(), true), (config(), false)] {
            let open = crate::session::offer::build_open(&config, &Offer::Full, Restart::Done);
            assert_eq!(open.capabilities.bfd_strict, offered);
            let out = open_message(&open);
            assert_eq!(out.windows(2).any(|tlv| tlv == [74, 0]), offered);
        }
    }

    /// A collision that is undecided when BFD comes up is decided as ever.
    #[test]
    fn a_collision_is_decided_while_bfd_is_awaited() {
        let mut host = Host::new(strict());
        host.bring(State::OpenSent, Slot::Outgoing);
        host.connected(Slot::Incoming);
        // Our identifier is larger: the outgoing connection would win, so this one waits for it.
        host.receive(Slot::Incoming, &open_message(&peer_open()));
        host.output();
        host.pass(Duration::from_secs(20));
        assert_eq!(host.output(), "", "the OPEN of the other one may still come");
        host.command(Command::SetBfd(BfdPath::Up));
        host.pass(Duration::from_secs(6));
        assert!(host.output().contains("KEEPALIVE"), "nobody waits for ever");
    }
}
