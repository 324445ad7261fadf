//! Dumps: what is in them, and that slices of any size give the same.

use super::*;
use crate::mrt::{PeerIndex, Record, Rib};
use crate::table::DumpOptions;

fn options() -> DumpOptions {
    DumpOptions { view: "blue".to_owned(), began: 1_000, zero: 500, ..DumpOptions::default() }
}

/// A dump in slices of this many octets and this budget.
fn dumped(table: &Table, options: DumpOptions, octets: usize, budget: Work) -> Vec<u8> {
    let mut out = Vec::new();
    let mut dump = table.begin_dump(options, &mut out);
    loop {
        let mut slice = Vec::new();
        let done = table.dump_slice(&mut dump, &mut slice, octets, budget);
        out.extend(slice);
        if done.is_over {
            assert_eq!(dump.left_out, 0);
            return out;
        }
    }
}

fn records(octets: &[u8]) -> (PeerIndex, Vec<Rib<'_>>) {
    let (mut index, mut ribs, mut rest) = (None, Vec::new(), octets);
    while let Some((record, after)) = Record::split(rest).unwrap() {
        rest = after;
        match record {
            Record::PeerIndex(found) => index = Some(found),
            Record::Rib(rib) => ribs.push(rib),
            other => panic!("{other:?}"),
        }
    }
    assert!(rest.is_empty());
    (index.unwrap(), ribs)
}

#[test]
fn a_dump_has_the_paths_that_are_shown_with_their_peers() {
    let mut table = table();
    let _a = up(&mut table, 2, 65001, importing(2, Policy::accept_all()));
    let _b = up(&mut table, 3, 65002, importing(3, long()));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    announce(&mut table, 3, 65002, &["10.2.0.0/16", "10.3.0.0/24"]);
    for own in ["10.9.0.0/16", "2001:db8::/32"] {
        let route = Some(LocalRoute::default());
        table.handle_local(Time::ZERO, own.parse().unwrap(), Source::Static, route);
    }
    settle(&mut table);

    let octets = dumped(&table, options(), usize::MAX, Work::UNLIMITED);
    let (index, ribs) = records(&octets);
    assert_eq!((index.collector, &*index.view), (RouterId(1), "blue"));
    let peers: Vec<_> =
        index.peers.iter().map(|peer| (peer.address.to_string(), peer.asn.0)).collect();
    let expected = [("0.0.0.0", ASN.0), ("10.0.0.2", 65001), ("10.0.0.3", 65002)];
    assert_eq!(peers, expected.map(|(address, asn)| (address.to_owned(), asn)));

    let mut found: Vec<_> = ribs
        .iter()
        .flat_map(|rib| rib.entries().map(|entry| (rib.prefix.to_string(), entry)))
        .map(|(prefix, entry)| {
            assert_eq!(entry.path_id, None);
            (prefix, entry.peer, entry.canonical().1.unwrap().to_string())
        })
        .collect();
    found.sort();
    let expected = [
        ("10.1.0.0/16", 1, "10.0.0.2"),
        ("10.2.0.0/16", 1, "10.0.0.2"),
        // Import of the other peer refuses what is shorter than /24.
        ("10.3.0.0/24", 2, "10.0.0.3"),
        ("10.9.0.0/16", 0, "0.0.0.0"),
        ("2001:db8::/32", 0, "::"),
    ];
    assert_eq!(
        found,
        expected.map(|(prefix, peer, hop)| (prefix.to_owned(), peer, hop.to_owned()))
    );
    assert!(ribs.iter().map(|rib| rib.sequence).eq(0..5), "numbered without gaps");

    for (octets_max, budget) in [(1, Work::UNLIMITED), (usize::MAX, Work(1)), (100, Work(7))] {
        assert_eq!(dumped(&table, options(), octets_max, budget), octets);
    }
    let only = DumpOptions { family: Some(Family::Ipv6), ..options() };
    let octets = dumped(&table, only, usize::MAX, Work::UNLIMITED);
    assert_eq!(records(&octets).1.len(), 1);
}

/// Accepts prefixes of 24 bits and more.
fn long() -> Policy {
    let range =
        crate::policy::PrefixMatch { prefix: "0.0.0.0/0".parse().unwrap(), lengths: 24..=32 };
    let set: crate::policy::PrefixSet = [range].into_iter().collect();
    let rule = Rule {
        name: String::new(),
        matches: vec![crate::policy::Match::Prefix(set)],
        changes: Vec::new(),
        decision: Decision::Accept,
    };
    Policy { name: "long".into(), rules: vec![rule], default: Decision::Reject }
}

#[test]
fn a_slice_does_about_as_much_as_its_budget() {
    let mut table = table();
    let _a = up(&mut table, 2, 65001, importing(2, Policy::accept_all()));
    let nets = nets(1, 200);
    announce_nets(&mut table, 2, 65001, &nets);
    settle(&mut table);
    let mut dump = table.begin_dump(options(), &mut Vec::new());
    let mut slices = 0;
    loop {
        let done = table.dump_slice(&mut dump, &mut Vec::new(), usize::MAX, Work(100));
        slices += 1;
        assert!(done.done <= Work(120), "{done:?}");
        if done.is_over {
            break;
        }
    }
    assert!(slices >= 8 && dump.paths == 200, "{slices} slices, {} paths", dump.paths);
}

#[test]
fn paths_of_a_peer_that_came_during_the_dump_are_left_out_and_counted() {
    let mut table = table();
    let _a = up(&mut table, 2, 65001, importing(2, Policy::accept_all()));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let mut dump = table.begin_dump(options(), &mut Vec::new());
    let _b = up(&mut table, 3, 65002, importing(3, Policy::accept_all()));
    announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    let mut out = Vec::new();
    let done = table.dump_slice(&mut dump, &mut out, usize::MAX, Work::UNLIMITED);
    assert!(done.is_over);
    assert_eq!((dump.prefixes, dump.paths, dump.left_out), (1, 1, 2));
}

#[test]
fn paths_with_identifiers_keep_them() {
    let mut table = table();
    let _a = up(&mut table, 2, 65001, importing(2, Policy::accept_all()));
    let prefix = "10.1.0.0/16".parse().unwrap();
    let mut bytes = Vec::new();
    [7, 9].iter().for_each(|id| Nlri::push(&mut bytes, Some(PathId(*id)), prefix));
    let nlri = Nlri::parse(Family::Ipv4, true, &bytes).unwrap();
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    let mut batch = RouteBatch::default();
    let hop = NextHop::from(IpAddr::from([10, 0, 0, 2]));
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    table.apply_now(2, batch);
    settle(&mut table);
    let octets = dumped(&table, options(), usize::MAX, Work::UNLIMITED);
    let (_, ribs) = records(&octets);
    let mut ids: Vec<_> = ribs[0].entries().map(|entry| entry.path_id).collect();
    ids.sort();
    assert_eq!(ids, [Some(PathId(7)), Some(PathId(9))]);
}
