use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::mrt::{
    MessageOf, PeerIndex, RibWriter, Session, Stamp, StateChange, encode_message,
    encode_state_change,
};
use bgp_proto::types::{Asn, Family};
use bgp_proto::wire::{AnnounceFormat, AttrEdit, Origin, UpdateWriter};

use super::*;

const DUMPED: u32 = 1_000;

fn session(last: u8) -> Session {
    Session {
        peer_asn: Asn(65000 + u32::from(last)),
        local_asn: Asn(64512),
        interface: 0,
        peer: IpAddr::from([192, 0, 2, last]),
        local: IpAddr::from([192, 0, 2, 100]),
    }
}

/// A file: a dump in which 192.0.2.1 and .2 announce 10.1.0.0/16 and .2 alone 10.2.0.0/16.
fn dump() -> Vec<u8> {
    let mut file = Vec::new();
    let peers = [1, 2].map(|last| {
        let Session { peer, peer_asn, .. } = session(last);
        Peer { router_id: RouterId(u32::from(last)), address: peer, asn: peer_asn }
    });
    let index = PeerIndex { collector: RouterId(9), view: String::new(), peers: peers.into() };
    index.encode(DUMPED, &mut file);
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    for (number, (prefix, from)) in
        (0..).zip([("10.1.0.0/16", &[0_u16, 1][..]), ("10.2.0.0/16", &[1])])
    {
        let mut rib = RibWriter::new(&mut file, DUMPED, number, prefix.parse().unwrap(), false);
        for peer in from {
            let hop = NextHop::V4(Ipv4Addr::from([192, 0, 2, 1]));
            assert!(rib.push(*peer, DUMPED - 10, PathId(0), edit.view(), hop));
        }
        assert!(rib.end());
    }
    file
}

/// An UPDATE that announces or withdraws prefixes, as `last` sent it.
fn update(file: &mut Vec<u8>, at: u32, last: u8, prefixes: &[&str], announce: bool) {
    const FORMAT: AnnounceFormat = AnnounceFormat {
        family: Family::Ipv4,
        four_octet_as: true,
        add_path: false,
        max_len: 4096,
    };
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(session(last).peer_asn, 1);
    let mut message = Vec::new();
    let hop = NextHop::V4(Ipv4Addr::from([192, 0, 2, last]));
    let mut writer = if announce {
        UpdateWriter::announce(&mut message, FORMAT, edit.view(), hop)
    } else {
        UpdateWriter::withdraw(&mut message, FORMAT)
    };
    prefixes.iter().for_each(|prefix| {
        writer.push(PathId(0), prefix.parse().unwrap()).unwrap();
    });
    writer.finish();
    record(file, at, last, &message);
}

fn record(file: &mut Vec<u8>, secs: u32, last: u8, message: &[u8]) {
    let at = Stamp { secs, micros: 0 };
    let session = session(last);
    let (is_local, has_as4, has_path_ids) = (false, true, false);
    encode_message(file, &MessageOf { at, session, is_local, has_as4, has_path_ids, message });
}

/// Prefix, peer and age of each path that is shown.
fn shown(file: &[u8], select: &RouteSelection) -> Vec<(String, String, u64)> {
    let saved = read(file, select).unwrap();
    let mut rows = Vec::new();
    for rib in &saved.ribs {
        for path in saved.paths(rib) {
            let peer = saved.peers[path.peer.unwrap().0 as usize].address.to_string();
            rows.push((rib.prefix.to_string(), peer, path.age_secs));
        }
    }
    rows
}

fn rows<const N: usize>(rows: [(&str, u8, u64); N]) -> Vec<(String, String, u64)> {
    rows.map(|(prefix, last, age)| (prefix.into(), format!("192.0.2.{last}"), age)).into()
}

#[test]
fn messages_after_a_dump_change_what_it_has() {
    let all = RouteSelection::default();
    let mut file = dump();
    let of_dump = [("10.1.0.0/16", 1, 10), ("10.1.0.0/16", 2, 10), ("10.2.0.0/16", 2, 10)];
    assert_eq!(shown(&file, &all), rows(of_dump));

    // A withdrawal of one path, a change of another, a peer that the dump does not have.
    update(&mut file, DUMPED + 1, 1, &["10.1.0.0/16"], false);
    update(&mut file, DUMPED + 2, 2, &["10.2.0.0/16", "10.2.3.0/24"], true);
    update(&mut file, DUMPED + 3, 7, &["10.0.0.0/8"], true);
    let now = [
        ("10.0.0.0/8", 7, 0),
        ("10.1.0.0/16", 2, 13),
        ("10.2.0.0/16", 2, 1),
        ("10.2.3.0/24", 2, 1),
    ];
    assert_eq!(shown(&file, &all), rows(now));
    let lookup = |prefix: &str| RouteSelection {
        prefix: prefix.parse().ok(),
        span: Span::Lookup,
        ..RouteSelection::default()
    };
    assert_eq!(shown(&file, &lookup("10.2.3.9/32")), rows([("10.2.3.0/24", 2, 1)]));

    // What was withdrawn hides nothing from a lookup.
    update(&mut file, DUMPED + 4, 2, &["10.2.3.0/24"], false);
    assert_eq!(shown(&file, &lookup("10.2.3.9/32")), rows([("10.2.0.0/16", 2, 2)]));

    // A session that ends takes its routes along, those of the dump too.
    let at = Stamp { secs: DUMPED + 5, micros: 0 };
    encode_state_change(&mut file, &StateChange { at, session: session(2), old: 6, new: 1 });
    assert_eq!(shown(&file, &all), rows([("10.0.0.0/8", 7, 2)]));
    update(&mut file, DUMPED + 6, 2, &["10.1.0.0/16"], true);
    assert_eq!(shown(&file, &all), rows([("10.0.0.0/8", 7, 3), ("10.1.0.0/16", 2, 0)]));

    // The next dump is complete.
    file.extend(dump());
    assert_eq!(shown(&file, &all), rows(of_dump));
}

#[test]
fn messages_alone_are_what_peers_announced() {
    let all = RouteSelection::default();
    let mut file = Vec::new();
    update(&mut file, 5, 1, &["10.1.0.0/16"], true);
    update(&mut file, 6, 1, &["10.2.0.0/16"], true);
    assert_eq!(shown(&file, &all), rows([("10.1.0.0/16", 1, 1), ("10.2.0.0/16", 1, 0)]));

    // Octets that are no message are counted, and change nothing.
    record(&mut file, 7, 1, b"not BGP");
    record(&mut file, 8, 1, &[&[0xff; 16][..], &[0, 24, 2, 0xff, 0xff, 0, 0, 0]].concat());
    let saved = read(&file[..], &all).unwrap();
    assert_eq!((saved.replay.updates, saved.replay.malformed, saved.ribs.len()), (2, 2, 2));

    let nothing = read(&[][..], &all).map(drop).unwrap_err().to_string();
    assert!(nothing.contains("neither a dump of a table"), "{nothing}");
}
