//! What the messages of an established session result in.

use super::*;
use crate::wire::RouteAction;

fn update(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend((attrs.len() as u16).to_be_bytes());
    body.extend(attrs);
    body.extend(nlri);
    message(2, &body)
}

const ATTRS: [u8; 20] =
    [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, 1];
const NET: [u8; 4] = [24, 203, 0, 113];

fn actions(host: &mut Host) -> Vec<RouteAction> {
    std::mem::take(&mut host.routes).into_iter().map(|entry| entry.action).collect()
}

#[test]
fn withdrawals_come_before_announcements_of_the_same_update() {
    let mut host = Host::in_state(State::Established);
    host.receive(Slot::Outgoing, &update(&NET, &ATTRS, &NET));
    let got = actions(&mut host);
    assert!(
        matches!(got.as_slice(), [RouteAction::Withdraw, RouteAction::Announce { .. }]),
        "{got:?}"
    );
}

#[test]
fn a_bad_attribute_withdraws_and_leaves_the_session_up() {
    let mut host = Host::in_state(State::Established);
    let mut bad = ATTRS;
    bad[3] = 9; // ORIGIN 9
    host.receive(Slot::Outgoing, &update(&[], &bad, &NET));
    assert_eq!(actions(&mut host), [RouteAction::Withdraw]);
    assert_eq!((host.output().as_str(), host.peer.state()), ("note", State::Established));
    assert_eq!(host.peer.stats().treated_as_withdraw, 1);
}

#[test]
fn erroneous_messages_are_reported_to_who_asks_and_before_the_end_that_they_cause() {
    let mut bad = ATTRS;
    bad[3] = 9;
    let bad = update(&[], &bad, &NET);
    for (fatal, reported) in [(message(2, &[0xff, 0xff, 0, 0]), 23), (vec![0; 30], 19)] {
        let mut host = Host::in_state(State::Established);
        host.receive(Slot::Outgoing, &bad);
        assert_eq!(host.output(), "note");
        host.peer.set_faulty(Faulty::Reported);
        host.receive(Slot::Outgoing, &update(&[], &ATTRS, &NET));
        assert_eq!(host.output(), "");
        host.receive(Slot::Outgoing, &bad);
        assert_eq!(host.output(), format!("note faulty({})", bad.len()));
        host.receive(Slot::Outgoing, &fatal);
        let said = host.output();
        let place = |what: &str| said.find(what).expect(what);
        assert!(place(&format!("faulty({reported})")) < place("down"), "{said}");
        assert_eq!(said.matches("faulty").count(), 1);
    }
}

#[test]
fn a_prefix_that_is_never_routed_is_ignored_and_the_others_are_not() {
    let mut host = Host::in_state(State::Established);
    host.receive(Slot::Outgoing, &update(&[], &ATTRS, &[8, 10, 8, 224, 24, 203, 0, 113]));
    let entries = std::mem::take(&mut host.routes);
    let runs: Vec<_> = entries.iter().map(|entry| entry.nlri.len()).collect();
    assert_eq!(runs, [2, 4], "10.0.0.0/8, then 203.0.113.0/24");
    assert_eq!((host.output().as_str(), host.peer.state()), ("note", State::Established));
    host.receive(Slot::Outgoing, &update(&[], &ATTRS, &[4, 224]));
    assert!(host.routes.is_empty());
}

#[test]
fn lines_about_bad_updates_are_limited() {
    let mut host = Host::in_state(State::Established);
    let mut bad = ATTRS;
    bad[3] = 9;
    let bad = update(&[], &bad, &NET);
    (0..1000).for_each(|_| host.receive(Slot::Outgoing, &bad));
    assert_eq!(host.output().matches("note").count(), 10);
    host.pass(Duration::from_secs(61));
    host.output();
    host.receive(Slot::Outgoing, &bad);
    assert_eq!(host.output(), "note note", "how many were suppressed, and the new one");
    assert_eq!(host.peer.stats().treated_as_withdraw, 1001);
}

#[test]
fn markers_keep_their_place() {
    let mut host = Host::in_state(State::Established);
    let stream =
        [announcement(), update(&[], &[], &[]), message(5, &[0, 1, 0, 1]), update(&NET, &[], &[])];
    host.receive(Slot::Outgoing, &stream.concat());
    let got = actions(&mut host);
    assert!(
        matches!(
            got.as_slice(),
            [
                RouteAction::Announce { .. },
                RouteAction::EndOfRib,
                RouteAction::RefreshRequest,
                RouteAction::Withdraw
            ]
        ),
        "{got:?}"
    );
}

#[test]
fn refreshes_that_were_not_negotiated_are_ignored() {
    let mut host = Host::in_state(State::Established);
    for body in [[0, 2, 0, 1], [0, 1, 0, 128], [0, 1, 1, 1], [0, 1, 2, 1], [0, 1, 77, 1]] {
        host.receive(Slot::Outgoing, &message(5, &body));
    }
    assert_eq!(actions(&mut host), []);
    assert_eq!((host.output().as_str(), host.peer.stats().refreshes_received), ("", 5));
}

#[test]
fn enhanced_refresh_marks_and_refuses_wrong_lengths() {
    let mut host = Host::in_state(State::OpenSent);
    let mut open = peer_open();
    open.capabilities.enhanced_refresh = true;
    host.receive(Slot::Outgoing, &[open_message(&open), keepalive()].concat());
    host.receive(Slot::Outgoing, &message(5, &[0, 1, 1, 1]));
    host.receive(Slot::Outgoing, &message(5, &[0, 1, 2, 1]));
    assert_eq!(actions(&mut host), [RouteAction::RefreshBegin, RouteAction::RefreshEnd]);
    host.output();
    host.receive(Slot::Outgoing, &message(5, &[0, 1, 1, 1, 0]));
    assert_eq!(host.output(), "N7/1 close(Outgoing) down");
}

#[test]
fn a_refresh_is_requested_only_where_the_peer_can_answer() {
    let mut host = Host::in_state(State::Established);
    host.command(Command::RequestRefresh(Family::Ipv4));
    assert_eq!(host.output(), "REFRESH");
    host.command(Command::RequestRefresh(Family::Ipv6));
    assert_eq!(host.output(), "note");
    assert_eq!(host.peer.stats().refreshes_sent, 1);
}

#[test]
fn a_full_batch_stops_reading_between_messages() {
    let mut host = Host::in_state(State::Established);
    let one = announcement();
    let stream = one.repeat(100);
    let mut batch = RouteBatch::default();
    let mut offset = 0;
    let mut turns = 0;
    while offset < stream.len() {
        let taken =
            host.peer.handle_bytes(host.now, Slot::Outgoing, &stream[offset..], &mut batch, 200);
        assert!(taken > 0 && taken.is_multiple_of(one.len()));
        assert!(batch.size() < 200 + 200, "one message beyond the bound at most");
        offset += taken;
        turns += 1;
        assert_eq!(
            host.peer.handle_bytes(host.now, Slot::Outgoing, &stream[..19], &mut batch, 0),
            0
        );
        batch.clear();
    }
    assert!(turns > 10);
    assert_eq!(host.peer.stats().updates_received, 100);
    assert_eq!(host.peer.stats().octets_received, stream.len() as u64 + handshake_len());
}

fn handshake_len() -> u64 {
    (open_message(&peer_open()).len() + keepalive().len()) as u64
}

#[test]
fn long_messages_need_our_own_offer() {
    let long = message(2, &vec![0; 4096]);
    let mut host = Host::new(PeerConfig { extended_messages: false, ..config() });
    host.bring(State::Established, Slot::Outgoing);
    host.output();
    host.receive(Slot::Outgoing, &long[..HEADER_LEN]);
    assert_eq!(host.output(), "N1/2 close(Outgoing) down", "the header alone is enough");

    let mut host = Host::in_state(State::Established);
    assert_eq!(host.feed(Slot::Outgoing, &long[..HEADER_LEN]), 0);
    assert_eq!(host.peer.state(), State::Established);
}
