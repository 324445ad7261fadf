//! Graceful restart (RFC 4724, RFC 8538): what is kept, how long, and what counts.

use super::*;
use crate::wire::{GracefulRestart, GracefulRestartFamily, RouteAction};

const KEEP: Option<Keep> = Some(Keep::for_restart(FamilySet::ALL, Duration::from_secs(120)));

fn restarting(id: u32, asn: u32, notification: bool) -> Negotiated {
    let families =
        vec![GracefulRestartFamily { family: Family::Ipv4.afi_safi(), forwarding: true }];
    let graceful_restart =
        Some(GracefulRestart { restarting: true, notification, restart_time_secs: 120, families });
    Negotiated { graceful_restart, ..session(id, asn) }
}

fn begin(table: &mut Table, notification: bool, routes: PeerRoutes) -> Vec<Reader> {
    table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::new(routes));
    table.up_now(2, restarting(2, 65001, notification))
}

fn paths(table: &Table) -> u32 {
    table.totals().paths[Family::Ipv4]
}

fn end_of_rib(table: &mut Table) {
    let mut batch = RouteBatch::default();
    batch.push_marker(Family::Ipv4, RouteAction::EndOfRib);
    table.apply_now(2, batch);
    settle(table);
}

#[test]
fn a_second_restart_keeps_stale_routes_only_if_both_sides_set_the_n_bit() {
    for (notification, kept) in [(true, 1), (false, 0)] {
        let mut table = table();
        let _readers = begin(&mut table, notification, routes(2));
        announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
        settle(&mut table);
        table.down_now(2, KEEP);
        settle(&mut table);
        let _readers = table.up_now(2, restarting(2, 65001, notification));
        settle(&mut table);
        assert_eq!(paths(&table), 1);
        table.down_now(2, KEEP);
        settle(&mut table);
        assert_eq!(paths(&table), kept);
        // However often: not beyond the bound that began with the first loss.
        let mut now = Time::ZERO;
        for _ in 0..10 {
            let Some(at) = table.poll_timeout() else { break };
            assert!(at <= Time::ZERO + Duration::from_secs(120 + 180));
            now = now + Duration::from_secs(60);
            let _ = table.turn(now, Work::TURN);
            table.peer_up(PeerId(2), SessionId(1), Arc::new(restarting(2, 65001, notification)));
            let _ = table.turn(now, Work::TURN);
            table.peer_down(PeerId(2), SessionId(1), KEEP);
            let _ = table.turn(now, Work::TURN);
        }
        settle(&mut table);
        assert_eq!(paths(&table), 0);
    }
}

#[test]
fn routes_of_a_restarting_peer_are_kept_no_longer_than_the_stale_time() {
    let mut table = table();
    let short = PeerRoutes { stale_time: Duration::from_secs(3), ..routes(2) };
    let _readers = begin(&mut table, true, short);
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    table.down_now(2, KEEP);
    assert_eq!(table.poll_timeout(), Some(Time::ZERO + Duration::from_secs(3)));
}

#[test]
fn stale_routes_do_not_count_against_the_limit() {
    let mut table = table();
    let limited = PeerRoutes { limits: prefixes_max(100), ..routes(2) };
    let _readers = begin(&mut table, true, limited);
    announce_nets(&mut table, 2, 65001, &nets(1, 60));
    settle(&mut table);
    table.down_now(2, KEEP);
    settle(&mut table);
    let _readers = table.up_now(2, restarting(2, 65001, true));
    // It comes back with sixty others: never more than sixty at a time.
    announce_nets(&mut table, 2, 65001, &nets(2, 60));
    settle(&mut table);
    assert_eq!((paths(&table), table.poll_event()), (120, None));
    end_of_rib(&mut table);
    assert_eq!(paths(&table), 60);
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 60);
    // From here on all count.
    announce_nets(&mut table, 2, 65001, &nets(3, 41));
    let events: Vec<TableEvent> = std::iter::from_fn(|| table.poll_event()).collect();
    let is_close = |event: &TableEvent| matches!(event, TableEvent::Close { .. });
    assert!(events.iter().any(is_close), "{events:?}");
}

#[test]
fn withdrawals_before_the_end_of_a_session_are_applied_before_its_routes_are_kept() {
    let mut table = table();
    let _readers = begin(&mut table, true, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    let mut bytes = Vec::new();
    Nlri::push(&mut bytes, None, "10.1.0.0/16".parse().unwrap());
    let mut batch = RouteBatch::default();
    batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
    // Both are queued before any turn.
    table.apply(PeerId(2), batch, None);
    table.peer_down(PeerId(2), SessionId(1), KEEP);
    settle(&mut table);
    assert_eq!(paths(&table), 1);
    assert!(table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).is_none());
}

#[test]
fn queued_routes_of_a_session_that_ends_for_good_are_not_applied() {
    let mut table = table();
    let _readers = begin(&mut table, true, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    for second in 0..50 {
        let mut bytes = Vec::new();
        Nlri::push(&mut bytes, None, format!("10.{second}.0.0/16").parse().unwrap());
        let mut batch = RouteBatch::default();
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
        batch
            .push(nlri, Some((edit.view().as_bytes(), NextHop::from(IpAddr::from([10, 0, 0, 2])))));
        table.apply(PeerId(2), batch, None);
    }
    table.peer_down(PeerId(2), SessionId(1), None);
    settle(&mut table);
    assert_eq!((paths(&table), table.memory().inputs), (0, 0));
    assert_eq!(table.counts(PeerId(2)).imports[Family::Ipv4].accepted, 1);
    // The end of a session that is not the present one drops nothing.
    let _readers = table.up_now(2, restarting(2, 65001, true));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    table.peer_down(PeerId(2), SessionId(77), None);
    settle(&mut table);
    assert_eq!(paths(&table), 1);
}
