use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::types::{Asn, Community, NextHop, PathId, Prefix, RouterId};
use crate::wire::{AttrEdit, AttrView, Origin};

fn v4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into())
}

fn v6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into())
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (v4(), 0..=32_u8).prop_map(|(addr, len)| Prefix::new(addr, len));
    let v6 = (v6(), 0..=128_u8).prop_map(|(addr, len)| Prefix::new(addr, len));
    prop_oneof![v4, v6]
}

fn peer() -> impl Strategy<Value = Peer> {
    let address = prop_oneof![v4(), v6()];
    (any::<u32>(), address, any::<u32>()).prop_map(|(id, address, asn)| Peer {
        router_id: RouterId(id),
        address,
        asn: Asn(asn),
    })
}

fn session() -> impl Strategy<Value = Session> {
    let ends = prop_oneof![(v4(), v4()), (v6(), v6())];
    (any::<u32>(), any::<u32>(), any::<u16>(), ends).prop_map(|(a, b, interface, ends)| Session {
        peer_asn: Asn(a),
        local_asn: Asn(b),
        interface,
        peer: ends.0,
        local: ends.1,
    })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<u32>(), 0..1_000_000_u32).prop_map(|(secs, micros)| Stamp { secs, micros })
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    // Link-local addresses have their interface inside, which is not written.
    let global = |bits: u128| Ipv6Addr::from_bits(bits >> 3 | 1 << 125);
    prop_oneof![
        any::<u32>().prop_map(|bits| NextHop::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(move |bits| NextHop::V6(global(bits))),
        (any::<u128>(), any::<u128>()).prop_map(move |(a, b)| NextHop::V6Both {
            global: global(a),
            link_local: Ipv6Addr::from_bits(b),
        }),
    ]
}

fn attrs() -> impl Strategy<Value = Vec<u8>> {
    let communities = proptest::collection::vec(any::<u32>().prop_map(Community), 0..80);
    let path = proptest::collection::vec(any::<u32>(), 0..70);
    (path, communities, any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
        |(path, communities, med, local_pref)| {
            let mut edit = AttrEdit::originate(Origin::Egp);
            for asn in path {
                edit.prepend_as(Asn(asn), 1);
            }
            edit.set_communities(&communities);
            med.into_iter().for_each(|med| edit.set_med(med));
            local_pref.into_iter().for_each(|pref| edit.set_local_pref(pref));
            edit.into_bytes()
        },
    )
}

fn only(octets: &[u8]) -> Record<'_> {
    let (record, rest) = Record::split(octets).expect("readable").expect("complete");
    assert!(rest.is_empty(), "{} octets behind the record", rest.len());
    record
}

proptest! {
    #[test]
    fn a_peer_index_is_read_as_it_was_written(
        collector: u32,
        view in ".{0,40}",
        peers in proptest::collection::vec(peer(), 0..20),
        secs: u32,
    ) {
        let index = PeerIndex { collector: RouterId(collector), view, peers };
        let mut out = Vec::new();
        index.encode(secs, &mut out);
        prop_assert_eq!(only(&out), Record::PeerIndex(index));
    }

    #[test]
    fn paths_are_read_as_they_were_written(
        prefix in prefix(),
        sequence: u32,
        has_path_ids: bool,
        paths in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<u32>(), attrs(), next_hop()), 1..8),
    ) {
        let mut out = Vec::new();
        let mut writer = RibWriter::new(&mut out, 9, sequence, prefix, has_path_ids);
        for (peer, originated, id, attrs, hop) in &paths {
            prop_assert!(writer.push(*peer, *originated, PathId(*id), AttrView::new(attrs), *hop));
        }
        prop_assert!(writer.end());
        let Record::Rib(rib) = only(&out) else { panic!("no RIB") };
        prop_assert_eq!((rib.sequence, rib.prefix), (sequence, prefix));
        prop_assert_eq!(usize::from(rib.count()), paths.len());
        let read: Vec<_> = rib
            .entries()
            .map(|entry| {
                let (attrs, hop) = entry.canonical();
                let id = entry.path_id.map(|id| id.0);
                (entry.peer, entry.originated, id, attrs, hop)
            })
            .collect();
        let written: Vec<_> = paths
            .into_iter()
            .map(|(peer, secs, id, attrs, hop)| (peer, secs, has_path_ids.then_some(id), attrs, Some(hop)))
            .collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn messages_are_read_as_they_were_written(
        at in stamp(),
        session in session(),
        is_local: bool,
        has_as4: bool,
        has_path_ids: bool,
        message in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let short = |asn: Asn| if has_as4 { asn } else { Asn(asn.0 >> 16) };
        let (peer_asn, local_asn) = (short(session.peer_asn), short(session.local_asn));
        let session = Session { peer_asn, local_asn, ..session };
        let message = &message;
        let written = MessageOf { at, session, is_local, has_as4, has_path_ids, message };
        let mut out = Vec::new();
        encode_message(&mut out, &written);
        prop_assert_eq!(only(&out), Record::Message(written));
    }

    #[test]
    fn changes_of_state_are_read_as_they_were_written(
        at in stamp(), session in session(), old in 1..=6_u16, new in 1..=6_u16,
    ) {
        let change = StateChange { at, session, old, new };
        let mut out = Vec::new();
        encode_state_change(&mut out, &change);
        prop_assert_eq!(only(&out), Record::StateChange(change));
    }

    #[test]
    fn any_octets_are_read_or_refused(
        kind in prop_oneof![Just(13_u16), Just(16), Just(17), any::<u16>()],
        subtype in 0..13_u16,
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let header = Header { secs: 0, kind, subtype, len: body.len() };
        if let Ok(Record::Rib(rib)) = Record::decode(header, &body) {
            prop_assert_eq!(rib.entries().count(), usize::from(rib.count()));
            rib.entries().for_each(|entry| drop(entry.canonical()));
        }
    }
}

#[test]
fn a_record_that_is_cut_off_is_incomplete_and_one_that_is_too_long_is_refused() {
    let mut out = Vec::new();
    PeerIndex { collector: RouterId(1), view: String::new(), peers: Vec::new() }
        .encode(0, &mut out);
    for len in 0..out.len() {
        assert_eq!(Record::split(&out[..len]), Ok(None));
    }
    out[8..12].copy_from_slice(&[1, 0, 0, 0]);
    assert_eq!(Record::split(&out), Ok(None), "16 MiB are allowed");
    out[11] = 1;
    assert!(matches!(Record::split(&out), Err(MrtError::Long(_))));
}

#[test]
fn two_octet_numbers_and_whole_mp_reach_attributes_are_read() {
    // BGP4MP, MESSAGE: AS 64512 and 64513, interface 7, 10.0.0.1 and 10.0.0.2, two octets of message.
    let body = [0xfc, 0, 0xfc, 1, 0, 7, 0, 1, 10, 0, 0, 1, 10, 0, 0, 2, 0xff, 0xff];
    let header = Header { secs: 3, kind: 16, subtype: 1, len: body.len() };
    let Ok(Record::Message(message)) = Record::decode(header, &body) else { panic!() };
    assert_eq!((message.session.peer_asn, message.session.local_asn), (Asn(64512), Asn(64513)));
    assert!(!message.has_as4 && message.at == Stamp { secs: 3, micros: 0 });
    assert_eq!(message.message, [0xff, 0xff]);

    // 2001:db8::1 with AFI, SAFI, a reserved octet and NLRI.
    let mut reach = vec![0x80, 14, 26, 0, 2, 1, 16];
    reach.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    reach.extend([0, 32, 0x20, 1, 0x0d, 0xb8]);
    let entry = RibEntry { peer: 0, originated: 0, path_id: None, attrs: &reach };
    let hop = NextHop::V6("2001:db8::1".parse().unwrap());
    assert_eq!(entry.canonical(), (Vec::new(), Some(hop)));
}
