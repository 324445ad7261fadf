//! Who is shed, when, and that everything is given back.

use super::*;
use crate::types::Community;

fn bounded(memory_max: u64) -> Table {
    let mut table = table();
    let config = TableConfig { memory_max: Some(memory_max), ..(*table.config).clone() };
    table.configure(Time::ZERO, Arc::new(config));
    table
}

fn nets(second: u8, count: u8) -> Vec<String> {
    (0..count).map(|third| format!("10.{second}.{third}.0/24")).collect()
}

fn communities(first: u32) -> Vec<Community> {
    (first..first + 500).map(Community).collect()
}

fn announce_nets(table: &mut Table, from: u32, second: u8, count: u8) {
    let nets = nets(second, count);
    announce(table, from, 65000 + from, &nets.iter().map(String::as_str).collect::<Vec<_>>());
}

fn limit(table: &mut Table) -> Option<(u32, MemoryBound)> {
    match table.poll_event()? {
        TableEvent::Close {
            peer,
            reason: CloseReason::MemoryLimit { bound_of, held, bound },
            ..
        } => {
            assert!(held > bound);
            Some((peer.0, bound_of))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn those_that_hold_most_are_shed_one_by_one_until_the_rest_fits() {
    let mut table = bounded(15_000);
    let _readers = [2, 3, 4].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce_nets(&mut table, 2, 2, 100);
    settle(&mut table);
    assert_eq!(limit(&mut table), None, "one fits: {:?}", table.memory());
    announce_nets(&mut table, 3, 3, 200);
    announce_nets(&mut table, 4, 4, 150);
    settle(&mut table);
    assert_eq!(limit(&mut table), Some((3, MemoryBound::Table)));
    settle(&mut table);
    assert_eq!(limit(&mut table), None, "not before the first is gone");
    table.peer_down(Time::ZERO, PeerId(3), SessionId(1), None);
    settle(&mut table);
    assert_eq!(limit(&mut table), Some((4, MemoryBound::Table)), "still too much");
    table.peer_down(Time::ZERO, PeerId(4), SessionId(1), None);
    settle(&mut table);
    assert_eq!(limit(&mut table), None);
    assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], 100, "the least is left alone");
}

#[test]
fn a_peers_own_bound_counts_attributes_too() {
    let mut table = table();
    let own = PeerRoutes { memory_max: Some(64 << 10), ..routes(2) };
    let _reader = up(&mut table, 2, 65002, own);
    for (at, net) in nets(2, 255).iter().enumerate() {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65002), 1);
        edit.set_communities(&communities((at as u32) << 16));
        announce_with(&mut table, 2, &[net.as_str()], &edit);
        if let Some(limit) = limit(&mut table) {
            assert_eq!(limit, (2, MemoryBound::Peer));
            assert!((30..64).contains(&at), "64 KiB of 2,000 octets each: {at}");
            return;
        }
    }
    panic!("never");
}

#[test]
fn attributes_in_common_are_shared_among_those_who_have_them() {
    let mut table = table();
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.set_communities(&communities(7));
    announce_with(&mut table, 2, &["10.2.0.0/24"], &edit);
    let alone = table.held_octets(PeerId(2));
    announce_with(&mut table, 3, &["10.3.0.0/24"], &edit);
    let shared = table.held_octets(PeerId(2));
    assert!(alone > 2000 && shared < 1200, "{alone}, then {shared}");
    assert_eq!(shared, table.held_octets(PeerId(3)));
}

#[test]
fn what_is_withdrawn_is_given_back() {
    let mut table = table();
    let before = table.memory();
    let mut readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce_nets(&mut table, 2, 2, 100);
    settle(&mut table);
    let full = table.memory();
    assert!(full.destinations > 0 && full.paths > 0 && full.attributes > 0);
    assert!(full.advertised > 0 && full.logs > 0);
    table.peer_down(Time::ZERO, PeerId(2), SessionId(1), None);
    settle(&mut table);
    readers.iter_mut().for_each(|reader| drop(read(reader)));
    settle(&mut table);
    assert_eq!(table.memory(), before);
}
