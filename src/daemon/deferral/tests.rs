use super::*;

const V4: FamilySet = FamilySet::only(Family::Ipv4);

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

fn until(secs: u64) -> Progress {
    Progress::WaitingUntil(at(secs))
}

/// Polls; if the wait is not over, returns until when it lasts if no peer turns out to be slow.
fn poll(wait: &mut Deferral, now: Time, lookups: Lookups) -> Progress {
    let progress = wait.poll(now, |_| false, || lookups);
    match wait.owed_until(now) {
        Some(until) if progress != Progress::Over => Progress::WaitingUntil(until),
        _ => progress,
    }
}

#[test]
fn it_ends_with_the_last_end_of_rib() {
    let mut wait = Deferral::new([PeerId(1), PeerId(2)], false, Start::First, at(0));
    assert_eq!(poll(&mut wait, at(0), Lookups::Done), until(10));
    wait.handle_up(at(1), PeerId(1), Some(FamilySet::ALL));
    wait.handle_up(at(1), PeerId(2), Some(V4));
    wait.handle_end_of_rib(PeerId(1), Family::Ipv4);
    wait.handle_end_of_rib(PeerId(2), Family::Ipv4);
    assert_eq!(
        poll(&mut wait, at(2), Lookups::Done),
        until(120),
        "a family of the first peer is owed"
    );
    wait.handle_end_of_rib(PeerId(1), Family::Ipv6);
    assert_eq!(poll(&mut wait, at(2), Lookups::Done), Progress::Over);
}

#[test]
fn peers_that_hold_nothing_are_not_waited_for() {
    let mut wait = Deferral::new([PeerId(1), PeerId(2)], false, Start::First, at(0));
    wait.handle_up(at(1), PeerId(1), None);
    assert_eq!(poll(&mut wait, at(1), Lookups::Done), until(10));
    wait.handle_up(at(2), PeerId(2), None);
    assert_eq!(poll(&mut wait, at(2), Lookups::Done), Progress::Over);
}

#[test]
fn absent_peers_are_waited_for_only_in_the_grace_time() {
    let mut wait = Deferral::new([PeerId(1), PeerId(2)], false, Start::First, at(0));
    wait.handle_up(at(1), PeerId(1), Some(V4));
    assert_eq!(poll(&mut wait, at(9), Lookups::Done), until(10));
    assert_eq!(
        poll(&mut wait, at(10), Lookups::Done),
        until(120),
        "the first peer's routes are awaited"
    );
    wait.handle_down(PeerId(1));
    assert_eq!(poll(&mut wait, at(11), Lookups::Done), Progress::Over);
}

#[test]
fn a_peer_that_never_sends_end_of_rib_is_waited_for_a_bounded_time() {
    let mut wait = Deferral::new([PeerId(1)], false, Start::First, at(0));
    wait.handle_up(at(1), PeerId(1), Some(V4));
    assert_eq!(poll(&mut wait, at(119), Lookups::Done), until(120));
    assert_eq!(poll(&mut wait, at(120), Lookups::Done), Progress::Over);
}

#[test]
fn dynamic_peers_are_waited_for_while_more_come_up() {
    let mut wait = Deferral::new([], true, Start::First, at(0));
    assert_eq!(poll(&mut wait, at(0), Lookups::Done), until(10));
    wait.handle_up(at(4), PeerId(7), Some(V4));
    wait.handle_up(at(5), PeerId(8), Some(V4));
    wait.handle_end_of_rib(PeerId(7), Family::Ipv4);
    wait.handle_end_of_rib(PeerId(8), Family::Ipv4);
    assert_eq!(poll(&mut wait, at(5), Lookups::Done), until(8), "another may come");
    wait.handle_up(at(7), PeerId(9), Some(V4));
    assert_eq!(poll(&mut wait, at(7), Lookups::Done), until(10));
    wait.handle_end_of_rib(PeerId(9), Family::Ipv4);
    assert_eq!(poll(&mut wait, at(10), Lookups::Done), Progress::Over);
}

#[test]
fn a_range_of_peers_that_hold_nothing_is_not_waited_for() {
    let mut wait = Deferral::new([], true, Start::First, at(0));
    wait.handle_up(at(1), PeerId(7), None);
    assert_eq!(poll(&mut wait, at(1), Lookups::Done), Progress::Over);
}

#[test]
fn nothing_is_awaited_from_a_removed_peer() {
    let mut wait = Deferral::new([PeerId(1)], false, Start::First, at(0));
    wait.handle_removed(PeerId(1));
    assert_eq!(poll(&mut wait, at(0), Lookups::Done), Progress::Over);
}

#[test]
fn only_re_advertised_routes_need_a_deferral() {
    let first_export = |peer: &str| {
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.0.0.1\"\n[[bgp.peers]]\naddress = \"192.0.2.1\"\n{peer}"
        );
        first_export(&Config::parse(std::path::Path::new("m.toml"), &text).unwrap())
    };
    assert_eq!(first_export("remote-asn = 64512"), FirstExport::AtOnce, "a full mesh");
    let reflector = "remote-asn = 64512\nroute-reflector-client = true";
    assert_eq!(first_export(reflector), FirstExport::Deferred);
    let external = "remote-asn = 65001\nimport = \"all\"\nexport = \"all\"";
    assert_eq!(first_export(external), FirstExport::Deferred);
}

#[test]
fn next_hops_are_looked_up_before_our_end_of_rib() {
    let mut wait = Deferral::new([PeerId(1)], false, Start::First, at(0));
    wait.handle_up(at(1), PeerId(1), Some(V4));
    wait.handle_end_of_rib(PeerId(1), Family::Ipv4);
    let again = Progress::WaitingUntil(at(2) + LOOK_AGAIN);
    assert_eq!(poll(&mut wait, at(2), Lookups::Pending), again);
    assert_eq!(poll(&mut wait, at(2) + LOOK_AGAIN, Lookups::Done), Progress::Over);
    assert_eq!(
        poll(&mut wait, at(2) + RESOLVE_MAX, Lookups::Pending),
        Progress::Over,
        "not for ever"
    );
}

#[test]
fn after_a_restart_the_wait_includes_a_neighbour_that_restarts_too() {
    let mut wait = Deferral::new([PeerId(1)], false, Start::Again, at(0));
    assert!(matches!(wait.poll(at(19), |_| false, || Lookups::Done), Progress::WaitingUntil(_)));
    assert_eq!(wait.poll(at(20), |_| false, || Lookups::Done), Progress::Over);
}

/// Its kernel accepts connections while its process hangs: slow, not down (RFC 4724 §4.1).
#[test]
fn a_peer_that_accepts_connections_is_not_down() {
    let mut wait = Deferral::new([PeerId(1)], false, Start::First, at(0));
    let waits = |wait: &mut Deferral, secs, slow| {
        matches!(wait.poll(at(secs), |_| slow, || Lookups::Done), Progress::WaitingUntil(_))
    };
    for secs in [0, 10, 30, 60, 90] {
        assert!(waits(&mut wait, secs, true), "{secs}");
    }
    assert!(waits(&mut wait, 119, false), "it accepted one half a minute ago");
    assert!(!waits(&mut wait, 120, false));
    let mut wait = Deferral::new([PeerId(1)], false, Start::First, at(0));
    assert!(waits(&mut wait, 20, true), "checked before the grace time counts as over");
}
