//! Long-lived stale routes (RFC 9494): what is marked, who is sent them, what is reported.

use super::*;
use crate::rib::Reason;
use crate::types::{Community, FamilyMap, Prefix};
use crate::wire::{
    AttrView, Capabilities, GracefulRestart, GracefulRestartFamily, LongLivedFamily, RouteAction,
};

const RESTART: u64 = 120;
const LONG_LIVED: u64 = 1000;
const ROUTE: &str = "10.1.0.0/16";

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

fn keep() -> Option<Keep> {
    let families = FamilySet::only(Family::Ipv4);
    let long_lived = FamilyMap([Duration::from_secs(LONG_LIVED), Duration::ZERO]);
    Some(Keep { long_lived, ..Keep::for_restart(families, Duration::from_secs(RESTART)) })
}

/// A session with capabilities 64 and 71, with F bits.
fn capable(id: u32, asn: u32) -> Negotiated {
    let pair = Family::Ipv4.afi_safi();
    let restart = GracefulRestart {
        restart_time_secs: RESTART as u16,
        notification: true,
        families: vec![GracefulRestartFamily { family: pair, forwarding: true }],
        ..GracefulRestart::default()
    };
    let long_lived = Some(vec![LongLivedFamily {
        family: pair,
        forwarding: true,
        stale_time_secs: LONG_LIVED as u32,
    }]);
    Negotiated {
        graceful_restart: Some(restart.clone()),
        long_lived: long_lived.clone(),
        peer_capabilities: Capabilities {
            graceful_restart: Some(restart),
            long_lived,
            ..Capabilities::default()
        },
        ..session(id, asn)
    }
}

fn long_lived_table() -> Table {
    let config = TableConfig { long_lived: true, ..TableConfig::new(ASN, RouterId(1)) };
    Table::new(Arc::new(config), 1, Waker::noop().clone())
}

/// Peer 2 will be lost; peer 3 sent capability 71, peer 4 did not.
fn three(table: &mut Table, routes_of_two: PeerRoutes) -> Vec<Reader> {
    let mut readers = Vec::new();
    for (id, routes) in [(2, routes_of_two), (3, routes(3))] {
        table.peer_add(PeerId(id), IpAddr::from([10, 0, 0, id as u8]), Arc::new(routes));
        readers.extend(table.up_now(id, capable(id, 65000 + id)));
    }
    readers.push(up(table, 4, 65004, routes(4)));
    readers
}

/// [`three`], with a route of peer 2.
fn with_route() -> (Table, Vec<Reader>) {
    let mut table = long_lived_table();
    let readers = three(&mut table, routes(2));
    announce(&mut table, 2, 65002, &[ROUTE]);
    settle(&mut table);
    (table, readers)
}

/// The same, when the route of peer 2 has just become long-lived stale.
fn after_restart_time() -> (Table, Vec<Reader>) {
    let (mut table, readers) = with_route();
    table.down_now(2, keep());
    turns(&mut table, at(RESTART));
    (table, readers)
}

fn turns(table: &mut Table, now: Time) {
    while table.finish(now) {}
}

/// Whether a peer is sent the route, and whether that carries LLGR_STALE.
fn sent(table: &Table, to: u32) -> Option<bool> {
    let filter = RouteFilter { advertised_to: Some(PeerId(to)), ..RouteFilter::default() };
    let (views, _) = table.view(&filter, 0, 100, Time::ZERO);
    let attrs = &views.first()?.paths.first()?.attrs;
    Some(AttrView::new(attrs).communities().any(|c| c == Community::LLGR_STALE))
}

fn marker(table: &mut Table, from: u32, action: RouteAction) {
    let mut batch = RouteBatch::default();
    batch.push_marker(Family::Ipv4, action);
    table.apply_now(from, batch);
}

fn explained(table: &Table) -> Explanation {
    table.explain(ROUTE.parse::<Prefix>().unwrap(), Time::ZERO).expect("the route")
}

fn events(table: &mut Table) -> Vec<TableEvent> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

#[test]
fn a_long_lived_stale_route_is_marked_and_sent_to_those_who_know_the_mark() {
    let (mut table, _readers) = with_route();
    let before = table.memory();
    assert_eq!((sent(&table, 3), sent(&table, 4)), (Some(false), Some(false)));
    table.down_now(2, keep());
    settle(&mut table);
    assert_eq!((sent(&table, 3), sent(&table, 4)), (Some(false), Some(false)), "restart time");
    let peer = PeerId(2);
    let retained = |table: &Table| table.counts(peer).retained[Family::Ipv4].expect("stale routes");
    let restart = Retained { phase: RetainedPhase::Restart, paths: 1, until: at(RESTART) };
    assert_eq!(retained(&table), restart);
    assert_eq!(table.counts(peer).restarting, Some(at(RESTART + LONG_LIVED)));
    turns(&mut table, at(RESTART));
    let ends = at(RESTART + LONG_LIVED);
    assert_eq!(
        retained(&table),
        Retained { phase: RetainedPhase::LongLived, until: ends, ..restart }
    );
    let (family, count, time) = (Family::Ipv4, 1, Duration::from_secs(LONG_LIVED));
    let begun = TableEvent::LongLivedStale { peer, family, count, time };
    assert_eq!(events(&mut table), [begun]);
    assert_eq!((sent(&table, 3), sent(&table, 4)), (Some(true), None));
    let explanation = explained(&table);
    assert!(explanation.destination.paths[0].long_lived && explanation.destination.paths[0].stale);
    let rule = &explanation.withheld.iter().find(|w| w.peer == PeerId(4)).unwrap().rule;
    assert!(rule.contains("RFC 9494"), "{rule}");
    // Nothing is stored beside the path; the marked attributes exist once, as advertised.
    let memory = table.memory();
    assert_eq!((memory.paths, memory.destinations), (before.paths, before.destinations));
    turns(&mut table, ends);
    let (returned, phase) = (Returned::No, RetainedPhase::LongLived);
    let removed = TableEvent::StaleRemoved { peer, family, count, returned, phase };
    assert_eq!(events(&mut table), [removed]);
    assert_eq!((sent(&table, 3), table.totals().paths[Family::Ipv4]), (None, 0));
    assert_eq!(table.poll_timeout(), None);
}

#[test]
fn any_other_path_is_preferred_and_the_mark_goes_when_the_route_is_announced_again() {
    let mut table = long_lived_table();
    let _readers = three(&mut table, routes(2));
    announce(&mut table, 2, 65002, &[ROUTE]);
    let mut worse = AttrEdit::originate(Origin::Incomplete);
    worse.prepend_as(Asn(65004), 9);
    announce_with(&mut table, 4, &[ROUTE], &worse);
    settle(&mut table);
    assert_eq!(explained(&table).destination.paths[0].peer, Some(PeerId(2)));
    table.down_now(2, keep());
    turns(&mut table, at(RESTART));
    let paths = explained(&table).destination.paths;
    assert_eq!((paths[0].peer, paths[1].reason), (Some(PeerId(4)), Reason::LongLivedStale));
    let _reader = table.up_now(2, capable(2, 65002));
    turns(&mut table, at(RESTART + 1));
    assert_eq!(explained(&table).destination.paths[0].peer, Some(PeerId(4)), "still stale");
    announce(&mut table, 2, 65002, &[ROUTE]);
    turns(&mut table, at(RESTART + 1));
    let paths = explained(&table).destination.paths;
    assert_eq!((paths[0].peer, paths[0].long_lived), (Some(PeerId(2)), false));
    assert_eq!(table.counts(PeerId(2)).retained[Family::Ipv4].map(|r| r.paths), Some(0));
    events(&mut table);
    marker(&mut table, 2, RouteAction::EndOfRib);
    turns(&mut table, at(RESTART + 2));
    let (peer, family, count) = (PeerId(2), Family::Ipv4, 0);
    let synchronised = TableEvent::Synchronised { peer, family, count };
    let end = TableEvent::EndOfRib { peer, family };
    assert_eq!(events(&mut table), [synchronised, end]);
    assert_eq!(table.counts(PeerId(2)).retained[Family::Ipv4], None);
}

#[test]
fn a_peer_that_returns_without_the_capability_loses_its_long_lived_stale_routes() {
    let (mut table, _readers) = after_restart_time();
    events(&mut table);
    let _reader = table.up_now(2, Negotiated { long_lived: None, ..capable(2, 65002) });
    turns(&mut table, at(RESTART + 1));
    let (peer, family, count) = (PeerId(2), Family::Ipv4, 1);
    let (returned, phase) = (Returned::Unpreserved, RetainedPhase::LongLived);
    let removed = TableEvent::StaleRemoved { peer, family, count, returned, phase };
    assert_eq!(events(&mut table), [removed]);
    assert_eq!(table.totals().paths[Family::Ipv4], 0);
}

#[test]
fn routes_with_no_llgr_go_with_the_restart_time_whoever_set_it() {
    let by_policy = || importing(2, changing(vec![Change::AddCommunity(Community::NO_LLGR)]));
    for (routes_of_two, sends_it) in [(routes(2), true), (by_policy(), false)] {
        let mut table = long_lived_table();
        let _readers = three(&mut table, routes_of_two);
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65002), 1);
        if sends_it {
            edit.set_communities(&[Community::NO_LLGR]);
        }
        announce_with(&mut table, 2, &[ROUTE], &edit);
        settle(&mut table);
        table.down_now(2, keep());
        turns(&mut table, at(RESTART - 1));
        assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 1);
        turns(&mut table, at(RESTART));
        assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 0);
        let told = TableEvent::NotLongLived { peer: PeerId(2), family: Family::Ipv4, count: 1 };
        assert_eq!(events(&mut table).last(), Some(&told));
        assert_eq!(table.counts(PeerId(2)).retained[Family::Ipv4], None);
        assert_eq!(table.poll_timeout(), None, "nothing is left to wait for");
    }
}

#[test]
fn an_import_policy_that_sets_no_llgr_later_removes_long_lived_stale_routes() {
    let (mut table, _readers) = after_restart_time();
    let policy = changing(vec![Change::AddCommunity(Community::NO_LLGR)]);
    table.peer_configure(PeerId(2), Arc::new(importing(2, policy)));
    turns(&mut table, at(RESTART));
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 0);
}

/// RFC 5882 §4.3.2.2 applies in both phases.
#[test]
fn long_lived_stale_routes_are_withdrawn_when_forwarding_is_lost() {
    let (mut table, _readers) = after_restart_time();
    table.peer_forwarding_lost(PeerId(2));
    turns(&mut table, at(RESTART));
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 0);
    assert_eq!(table.poll_timeout(), None);
}

#[test]
fn received_marks_are_a_plain_community_unless_the_feature_is_configured() {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65002), 1);
    edit.set_communities(&[Community::LLGR_STALE]);
    let mut table = table();
    let _readers = three(&mut table, routes(2));
    announce_with(&mut table, 2, &[ROUTE], &edit);
    settle(&mut table);
    assert_eq!((sent(&table, 3), sent(&table, 4)), (Some(true), Some(true)));
    let config = TableConfig { long_lived: true, ..TableConfig::new(ASN, RouterId(1)) };
    table.configure(Arc::new(config));
    settle(&mut table);
    assert_eq!((sent(&table, 3), sent(&table, 4)), (Some(true), None));
}

/// RFC 9494 §4.3: the community must not be removed.
#[test]
fn an_export_policy_cannot_remove_the_mark() {
    let mut table = long_lived_table();
    let _readers = three(&mut table, routes(2));
    let remove = changing(vec![Change::RemoveCommunity(Community::LLGR_STALE)]);
    table.peer_configure(PeerId(3), Arc::new(exporting(3, remove)));
    announce(&mut table, 2, 65002, &[ROUTE]);
    settle(&mut table);
    table.down_now(2, keep());
    turns(&mut table, at(RESTART));
    assert_eq!(sent(&table, 3), Some(true));
}

/// Each loss needs a stamp of its own, also in a family that capability 64 does not list.
#[test]
fn any_number_of_losses_leaves_no_route_behind() {
    let mut table = long_lived_table();
    let _readers = three(&mut table, routes(2));
    let keep = keep().map(|keep| Keep { families: FamilySet::EMPTY, ..keep });
    for round in 0..300 {
        announce(&mut table, 2, 65002, &[&format!("10.{}.0.0/16", round % 100)]);
        table.down_now(2, keep);
        settle(&mut table);
        let _reader = table.up_now(2, capable(2, 65002));
    }
    assert_eq!(table.totals().paths[Family::Ipv4], 100);
    marker(&mut table, 2, RouteAction::EndOfRib);
    settle(&mut table);
    assert_eq!(table.totals().paths[Family::Ipv4], 0);
}

#[test]
fn a_refresh_after_end_of_rib_makes_nothing_long_lived_stale() {
    let (mut table, _readers) = with_route();
    table.down_now(2, keep());
    // The pass has not reached the route when it is announced again.
    table.handle_timeout(at(RESTART));
    let _reader = table.up_now(2, capable(2, 65002));
    announce(&mut table, 2, 65002, &[ROUTE]);
    marker(&mut table, 2, RouteAction::EndOfRib);
    marker(&mut table, 2, RouteAction::RefreshBegin);
    turns(&mut table, at(RESTART));
    assert!(!explained(&table).destination.paths[0].long_lived);
}
