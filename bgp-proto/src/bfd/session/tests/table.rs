//! The state machine against a table of the transitions of RFC 5880 §6.2 and §6.8.6.

use super::*;

const STATES: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

/// The event; then for AdminDown, Down, Init and Up: what is sent, then the state after it. "3" is
/// the diagnostic in the packet; "drop" means that the received packet is discarded.
#[rustfmt::skip]
const TABLE: &[(&str, [&str; 4])] = &[
    ("receive AdminDown", ["drop admin-down > AdminDown", "> Down", "Down/3 > Down neighbor-admin-down", "Down/3 > Down neighbor-admin-down"]),
    ("receive Down",      ["drop admin-down > AdminDown", "Init/0 > Init", "> Init", "Down/3 > Down neighbor-down"]),
    ("receive Init",      ["drop admin-down > AdminDown", "Up/0 P > Up", "Up/0 P > Up", "> Up"]),
    ("receive Up",        ["drop admin-down > AdminDown", "> Down", "Up/0 P > Up", "> Up"]),
    ("receive Down P",    ["drop admin-down > AdminDown", "Init/0 F > Init", "Init/0 F > Init", "Down/3 F > Down neighbor-down"]),
    ("receive Up P",      ["drop admin-down > AdminDown", "Down/0 F > Down", "Up/0 F > Up", "Up/0 F > Up"]),
    ("detection time",    ["> AdminDown", "> Down", "Down/1 > Down detection-time-expired", "Down/1 > Down detection-time-expired"]),
    ("transmit timer",    ["AdminDown/7 > AdminDown", "Down/0 > Down", "Init/0 > Init", "Up/0 P > Up"]),
    ("disable",           ["> AdminDown", "AdminDown/7 > AdminDown admin", "AdminDown/7 > AdminDown admin", "AdminDown/7 > AdminDown admin"]),
    ("enable",            ["Down/0 > Down admin", "> Down", "> Init", "> Up"]),
];

#[test]
fn every_state_answers_every_event() {
    let mut failures = Vec::new();
    for (event, cells) in TABLE {
        for (state, expected) in STATES.into_iter().zip(cells) {
            let got = play(event, state);
            if got != *expected {
                failures.push(format!("{event} in {state}: \"{got}\", not \"{expected}\""));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn play(event: &str, state: State) -> String {
    let mut host = Host::in_state(state);
    let outcome = match event {
        "receive AdminDown" => host.receive(State::AdminDown),
        "receive Down" => host.receive(State::Down),
        "receive Init" => host.receive(State::Init),
        "receive Up" => host.receive(State::Up),
        "receive Down P" => host.receive_packet(&polled(State::Down)),
        "receive Up P" => host.receive_packet(&polled(State::Up)),
        "detection time" => {
            // The row does not cover what the transmit timer sends meanwhile.
            let mut change = None;
            while let Some(at) = host.session.detection.deadline() {
                host.now = at;
                change = host.session.handle_timeout(at);
                host.session.transmit.set(at + SLOW_START);
                host.drain();
            }
            Ok(change)
        }
        "transmit timer" => {
            host.now = host.session.transmit.deadline().expect("it runs in every state");
            host.drain();
            Ok(None)
        }
        "disable" => Ok(host.session.set_admin(host.now, Admin::Disabled)),
        "enable" => Ok(host.session.set_admin(host.now, Admin::Enabled)),
        other => panic!("{other}"),
    };
    host.drain();
    let mut cell: Vec<String> = host.sent.iter().map(describe).collect();
    if let Err(reason) = outcome {
        cell.push(format!("drop {reason}"));
    }
    cell.push(format!("> {}", host.session.state()));
    match outcome.ok().flatten().map(|change| change.cause) {
        None | Some(Cause::Handshake) => {}
        Some(Cause::DetectionTimeExpired) => cell.push("detection-time-expired".to_owned()),
        Some(Cause::NeighborDown) => cell.push("neighbor-down".to_owned()),
        Some(Cause::NeighborAdminDown) => cell.push("neighbor-admin-down".to_owned()),
        Some(Cause::Admin) => cell.push("admin".to_owned()),
    }
    cell.join(" ")
}

fn describe(packet: &Packet) -> String {
    let flags = match format!("{:?}", packet.flags) {
        none if none == "-" => String::new(),
        flags => format!(" {flags}"),
    };
    format!("{}/{}{flags}", packet.state, packet.diag.code())
}

/// RFC 5880 §6.2: a session that both ends start comes up in three packets.
#[test]
fn the_handshake_takes_three_packets() {
    let mut host = Host::new(Config::default());
    let first = Packet { your_discr: None, ..from_peer(State::Down) };
    assert_eq!(
        host.receive_packet(&first),
        Ok(Some(Change { from: State::Down, to: State::Init, cause: Cause::Handshake }))
    );
    assert_eq!(
        host.sent.last().map(|p| (p.state, p.your_discr)),
        Some((State::Init, Some(discr(THEIRS))))
    );
    assert_eq!(
        host.receive(State::Up),
        Ok(Some(Change { from: State::Init, to: State::Up, cause: Cause::Handshake }))
    );
    assert_eq!(host.session.snapshot().stats.ups, 1);
}
