//! The state machine against a table of every state and the 29 events of RFC 4271 §8.1 and RFC
//! 9687.
//!
//! A cell is what is emitted, then the state after it. "-" is an event that cannot reach a peer in
//! that state or that is not implemented (DelayOpen, DampPeerOscillations by event); the list of
//! such cells is checked too, so a cell cannot disappear.

use super::*;
use State::*;

const STATES: [State; 6] = [Idle, Connect, Active, OpenSent, OpenConfirm, Established];

/// event, name, then Idle, Connect, Active, OpenSent, OpenConfirm, Established.
#[rustfmt::skip]
const TABLE: &[(u8, &str, [&str; 6])] = &[
    (1, "ManualStart", ["dial > Connect", "> Connect", "> Active", "> OpenSent", "> OpenConfirm", "> Established"]),
    (2, "ManualStop", ["> Idle", "abort-dial > Idle", "> Idle",
        "N6/2 close(Outgoing) > Idle", "N6/2 close(Outgoing) > Idle", "N6/2 close(Outgoing) down > Idle"]),
    (3, "AutomaticStart", ["dial > Connect", "> Connect", "> Active", "> OpenSent", "> OpenConfirm", "> Established"]),
    (4, "ManualStart passive", ["> Active", "-", "> Active", "-", "-", "-"]),
    (5, "AutomaticStart passive", ["> Active", "-", "> Active", "-", "-", "-"]),
    (6, "AutomaticStart damped", ["-", "-", "-", "-", "-", "-"]),
    (7, "AutomaticStart damped passive", ["-", "-", "-", "-", "-", "-"]),
    (8, "AutomaticStop", ["> Idle", "abort-dial > Idle", "> Idle",
        "N6/3 close(Outgoing) > Idle", "N6/3 close(Outgoing) > Idle", "N6/3 close(Outgoing) down > Idle"]),
    (9, "ConnectRetryTimer_Expires", ["-", "abort-dial > Active", "dial > Connect", "-", "-", "-"]),
    (10, "HoldTimer_Expires", ["-", "-", "-",
        "N4/0 close(Outgoing) > Active", "N4/0 close(Outgoing) > Active", "N4/0 close(Outgoing) down > Active"]),
    (11, "KeepaliveTimer_Expires", ["-", "-", "-", "-", "KEEPALIVE > OpenConfirm", "KEEPALIVE > Established"]),
    (12, "DelayOpenTimer_Expires", ["-", "-", "-", "-", "-", "-"]),
    (13, "IdleHoldTimer_Expires", ["dial > Connect", "-", "-", "-", "-", "-"]),
    (14, "TcpConnection_Valid", ["-", "-", "-", "-", "-", "-"]),
    (15, "Tcp_CR_Invalid", ["-", "-", "-", "-", "-", "-"]),
    (16, "Tcp_CR_Acked", ["close(Outgoing) > Idle", "OPEN > OpenSent", "close(Outgoing) > Active", "-", "-", "-"]),
    (17, "TcpConnectionConfirmed", ["N6/5 close(Incoming) > Idle", "OPEN > OpenSent", "OPEN > OpenSent",
        "OPEN > OpenSent", "OPEN > OpenConfirm", "OPEN > Established"]),
    (18, "TcpConnectionFails", ["> Idle", "> Active", "> Active", "> Active", "> Active", "down > Active"]),
    (19, "BGPOpen", ["-", "-", "-", "KEEPALIVE > OpenConfirm",
        "N5/2 close(Outgoing) > Active", "N5/3 close(Outgoing) down > Active"]),
    (20, "BGPOpen with DelayOpenTimer", ["-", "-", "-", "-", "-", "-"]),
    (21, "BGPHeaderErr", ["-", "-", "-",
        "N1/1 close(Outgoing) > Active", "N1/1 close(Outgoing) > Active", "N1/1 close(Outgoing) down > Active"]),
    (22, "BGPOpenMsgErr", ["-", "-", "-", "N2/1 close(Outgoing) > Active",
        "N5/2 close(Outgoing) > Active", "N5/3 close(Outgoing) down > Active"]),
    (23, "OpenCollisionDump", ["-", "-", "-", "N6/7 close(Incoming) > OpenConfirm", "-", "-"]),
    (24, "NotifMsgVerErr", ["-", "-", "-", "close(Outgoing) > Active", "close(Outgoing) > Active", "close(Outgoing) down > Active"]),
    (25, "NotifMsg", ["-", "-", "-", "close(Outgoing) > Active", "close(Outgoing) > Active", "close(Outgoing) down > Active"]),
    (26, "KeepAliveMsg", ["-", "-", "-", "N5/1 close(Outgoing) > Active", "up(Outgoing) > Established", "> Established"]),
    (27, "UpdateMsg", ["-", "-", "-", "N5/1 close(Outgoing) > Active", "N5/2 close(Outgoing) > Active", "> Established"]),
    (28, "UpdateMsgErr", ["-", "-", "-", "N5/1 close(Outgoing) > Active",
        "N5/2 close(Outgoing) > Active", "N3/1 close(Outgoing) down > Active"]),
    (29, "SendHoldTimer_Expires", ["-", "-", "-", "-", "-", "reset(Outgoing) down > Active"]),
];

#[test]
fn every_state_answers_every_event() {
    let mut failures = Vec::new();
    for (event, name, cells) in TABLE {
        for (state, expected) in STATES.into_iter().zip(cells) {
            let got = play(*event, state);
            if got != *expected {
                failures
                    .push(format!("{event} {name} in {state:?}: \"{got}\", not \"{expected}\""));
            }
        }
    }
    let events: Vec<u8> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(events, (1..=29).collect::<Vec<u8>>(), "29 events");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Two connections: the state of ours, the state of the peer's, the message on the peer's, then
/// what is emitted and the states of both. Our identifier is the larger one: ours survives.
#[rustfmt::skip]
const COLLISIONS: &[(State, State, &str, &str)] = &[
    (OpenSent, OpenSent, "open", "> OpenSent OpenConfirm"),
    (OpenSent, OpenSent, "notification", "close(Incoming) > OpenSent -"),
    (OpenSent, OpenSent, "fail", "> OpenSent -"),
    (OpenSent, OpenSent, "update", "N5/1 close(Incoming) > OpenSent -"),
    (OpenSent, OpenConfirm, "keepalive", "> OpenSent OpenConfirm"),
    (OpenSent, OpenConfirm, "keepalive, own fail", "up(Incoming) KEEPALIVE > - Established"),
    (OpenSent, OpenConfirm, "keepalive, wait", "N6/7 close(Outgoing) up(Incoming) KEEPALIVE > - Established"),
    (OpenSent, OpenConfirm, "wait", "KEEPALIVE > OpenSent OpenConfirm"),
    (OpenSent, OpenConfirm, "own fail", "KEEPALIVE > - OpenConfirm"),
    (OpenSent, OpenConfirm, "fail", "> OpenSent -"),
    (OpenSent, OpenConfirm, "own open", "N6/7 close(Incoming) KEEPALIVE > OpenConfirm -"),
    (OpenConfirm, OpenSent, "open", "N6/7 close(Incoming) > OpenConfirm -"),
    (OpenConfirm, OpenSent, "own keepalive", "N6/7 close(Incoming) up(Outgoing) > Established -"),
    (Established, OpenSent, "open", "N6/7 close(Incoming) > Established -"),
    (Established, OpenSent, "keepalive", "note N5/1 close(Incoming) > Established -"),
    (Established, OpenSent, "fail", "note > Established -"),
    (Established, OpenSent, "own fail", "down > - OpenSent"),
];

#[test]
fn every_collision_is_resolved_as_the_table_says() {
    let mut failures = Vec::new();
    for (ours, peers, input, expected) in COLLISIONS {
        let mut host = Host::new(config());
        // Bringing ours up first would close the other; each is advanced as far as it must be.
        host.bring(OpenSent, Slot::Outgoing);
        if *ours >= OpenConfirm {
            host.receive(Slot::Outgoing, &open_message(&peer_open()));
        }
        if *ours == Established {
            host.receive(Slot::Outgoing, &keepalive());
        }
        host.connected(Slot::Incoming);
        if *peers == OpenConfirm {
            host.receive(Slot::Incoming, &open_message(&peer_open()));
        }
        host.output();
        for input in input.split(", ") {
            match input {
                "open" => host.receive(Slot::Incoming, &open_message(&peer_open())),
                "own open" => host.receive(Slot::Outgoing, &open_message(&peer_open())),
                "keepalive" => host.receive(Slot::Incoming, &keepalive()),
                "own keepalive" => host.receive(Slot::Outgoing, &keepalive()),
                "update" => host.receive(Slot::Incoming, &announcement()),
                "notification" => host.receive(Slot::Incoming, &notification(Code::CEASE)),
                "fail" => host.closed(Slot::Incoming),
                "own fail" => host.closed(Slot::Outgoing),
                "wait" => host.pass(Duration::from_secs(5)),
                other => panic!("{other}"),
            }
        }
        let state =
            |slot| host.peer.conn(slot).map_or("-".to_owned(), |c| format!("{:?}", c.state()));
        let states = format!("{} {}", state(Slot::Outgoing), state(Slot::Incoming));
        let got = format!("{} > {states}", host.output()).trim_start().to_owned();
        if got != *expected {
            failures.push(format!("{ours:?} {peers:?} {input}: \"{got}\", not \"{expected}\""));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn play(event: u8, state: State) -> String {
    let mut host = Host::in_state(state);
    let out = Slot::Outgoing;
    let connected = state >= OpenSent;
    match event {
        1 | 3 => host.command(Command::Start),
        2 => host.command(Command::Stop(Close::Shutdown { text: "maintenance".to_owned() })),
        4 | 5 if matches!(state, Idle | Active) => {
            host = Host::new(PeerConfig { passive: PassiveMode::Passive, ..config() });
            if state == Active {
                host.command(Command::Start);
                host.output();
            }
            host.command(Command::Start);
            assert_eq!(host.peer.poll_timeout(), None, "a passive peer has nothing to wait for");
        }
        8 => host.command(Command::Stop(Close::Deconfigured)),
        9 if matches!(state, Connect | Active) => host.expire(),
        10 if connected => {
            host.now = host.now + Duration::from_secs(240);
            host.expire();
        }
        11 if state >= OpenConfirm => host.expire(),
        13 if state == Idle => {
            host = Host::in_state(Established);
            let bound = 1;
            host.command(Command::Restart(Close::PrefixLimit { family: Family::Ipv4, bound }));
            assert_eq!(host.peer.state(), Idle);
            host.output();
            host.expire();
        }
        16 if !connected => host.connected(out),
        17 => host.connected(Slot::Incoming),
        18 if connected => host.closed(out),
        18 => {
            host.peer.handle_connect_failed(host.now, "refused");
            host.drain();
        }
        19 if connected => host.receive(out, &open_message(&peer_open())),
        21 if connected => host.receive(out, &[0; HEADER_LEN]),
        22 if connected => host.receive(out, &message(1, &[3; 10])),
        23 if state == OpenSent => {
            host.connected(Slot::Incoming);
            host.receive(out, &open_message(&peer_open()));
            host.output();
            host.receive(Slot::Incoming, &open_message(&peer_open()));
        }
        24 if connected => host.receive(out, &notification(Code::UNSUPPORTED_VERSION)),
        25 if connected => host.receive(out, &notification(Code::CEASE)),
        26 if connected => host.receive(out, &keepalive()),
        27 if connected => host.receive(out, &announcement()),
        28 if connected => host.receive(out, &message(2, &[0, 0, 0xff, 0xff])),
        29 if state == Established => {
            host.peer.handle_send_blocked(host.now, out);
            for _ in 0..48 {
                host.receive(out, &keepalive());
                host.pass(Duration::from_secs(10));
            }
            host.log.retain(|entry| entry != "KEEPALIVE");
        }
        _ => return "-".to_owned(),
    }
    format!("{} > {:?}", host.output(), host.peer.state()).trim_start().to_owned()
}

impl Host {
    /// The next timer expires.
    fn expire(&mut self) {
        let (at, _) = self.peer.poll_timeout().unwrap();
        self.now = self.now.max(at);
        self.peer.handle_timeout(self.now);
        self.drain();
    }
}
