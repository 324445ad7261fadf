//! Octets written by hand from the RFCs, and what is written is what is read.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::types::{Asn, Family, RouterId};
use crate::wire::{Code, Notification, encode_keepalive};

fn header(kind: PeerKind, rib: Rib, address: &str) -> PeerHeader {
    PeerHeader {
        kind,
        rib,
        distinguisher: 0,
        address: address.parse().unwrap(),
        asn: Asn(64512),
        router_id: RouterId(0x0a00_0001),
        secs: 0x0102_0304,
        micros: 5,
    }
}

fn decoded(octets: &[u8]) -> Message<'_> {
    Message::decode(octets).unwrap()
}

#[test]
fn an_end_of_rib_of_a_peer_has_these_octets() {
    let mut out = Vec::new();
    let about = header(PeerKind::Global, Rib::AdjRibInPost, "192.0.2.1");
    encode_end_of_rib(&mut out, &about, Family::Ipv4);
    let mut expected = vec![3, 0, 0, 0, 71, 0];
    expected.extend([0, 0x40]);
    expected.extend([0; 8]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    expected.extend([0, 0, 0xfc, 0, 10, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 5]);
    expected.extend([0xff; 16]);
    expected.extend([0, 23, 2, 0, 0, 0, 0]);
    assert_eq!(out, expected);
}

#[test]
fn each_rib_has_its_flags_and_is_read_back() {
    let ribs = [
        (PeerKind::Global, Rib::AdjRibInPre, "2001:db8::1", 0x80),
        (PeerKind::Local, Rib::AdjRibInPost, "192.0.2.1", 0x40),
        (PeerKind::Global, Rib::AdjRibOutPre, "192.0.2.1", 0x10),
        (PeerKind::Global, Rib::AdjRibOutPost, "2001:db8::1", 0xd0),
        (PeerKind::LocRib, Rib::LocRib, "0.0.0.0", 0),
    ];
    for (kind, rib, address, flags) in ribs {
        let about = PeerHeader { distinguisher: 77, ..header(kind, rib, address) };
        let mut out = Vec::new();
        encode_end_of_rib(&mut out, &about, Family::Ipv6);
        assert_eq!(out[7], flags, "{rib:?}");
        assert_eq!(decoded(&out).peer, Some(about));
    }
}

#[test]
fn statistics_have_the_lengths_of_their_types() {
    let mut out = Vec::new();
    let about = header(PeerKind::Global, Rib::AdjRibInPre, "192.0.2.1");
    let stats = [Stat::Counter(0, 1), Stat::Gauge(7, 2), Stat::FamilyGauge(9, Family::Ipv6, 3)];
    encode_statistics(&mut out, &about, &stats);
    assert_eq!(out[48..52], [0, 0, 0, 3], "the number of statistics");
    let MessageKind::Statistics(tlvs) = decoded(&out).kind else { panic!("statistics") };
    let found: Vec<_> = tlvs.iter().map(|tlv| (tlv.kind, tlv.value.len())).collect();
    assert_eq!(found, [(0, 4), (7, 8), (9, 11)]);
    assert_eq!(tlvs[2].value, [0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn the_reasons_of_a_peer_down_are_read_back() {
    let mut notification = Vec::new();
    Notification::new(Code::BAD_PEER_AS).encode(&mut notification);
    let reasons = [
        (DownReason::LocalNotification(notification.clone()), 1),
        (DownReason::LocalEvent(16), 2),
        (DownReason::RemoteNotification(notification), 3),
        (DownReason::RemoteClosed, 4),
        (DownReason::NotMonitored, 5),
        (DownReason::TableGone("blue".to_owned()), 6),
    ];
    let about = header(PeerKind::Global, Rib::AdjRibInPre, "192.0.2.1");
    for (reason, number) in reasons {
        let mut out = Vec::new();
        encode_peer_down(&mut out, &about, &reason);
        assert!(
            matches!(decoded(&out).kind, MessageKind::PeerDown(found, _) if found == number),
            "{reason:?}"
        );
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut out = Vec::new();
    encode_initiation(&mut out, &"ä".repeat(200), "host", "");
    let MessageKind::Initiation(tlvs) = decoded(&out).kind else { panic!("initiation") };
    assert_eq!(tlvs.len(), 2);
    assert_eq!(std::str::from_utf8(tlvs[0].value).unwrap(), "ä".repeat(127));
}

#[test]
fn a_message_of_another_type_within_is_an_error() {
    let mut keepalive = Vec::new();
    encode_keepalive(&mut keepalive);
    let mut out = Vec::new();
    let about = header(PeerKind::Global, Rib::AdjRibInPre, "192.0.2.1");
    encode_route_monitoring(&mut out, &about, &keepalive);
    assert_eq!(Message::decode(&out), Err(BmpError::Inner));
    let local: IpAddr = "192.0.2.9".parse().unwrap();
    let up = PeerUp {
        local,
        local_port: 179,
        remote_port: 0,
        sent: &keepalive,
        received: &keepalive,
        table_name: None,
    };
    out.clear();
    encode_peer_up(&mut out, &about, &up);
    assert_eq!(Message::decode(&out), Err(BmpError::Inner));
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&octets);
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(at in 0_usize..200, with: u8, cut in 0_usize..200) {
        let mut out = Vec::new();
        let about = header(PeerKind::Global, Rib::AdjRibInPre, "2001:db8::1");
        encode_peer_down(&mut out, &about, &DownReason::TableGone("red".to_owned()));
        encode_mirrored(&mut out, &about, &[7; 60]);
        encode_termination(&mut out, TerminationReason::OutOfResources, "slow");
        if let Some(octet) = out.get_mut(at) {
            *octet = with;
        }
        out.truncate(out.len().saturating_sub(cut));
        let mut rest = &out[..];
        while let Ok(Some(message)) = split_message(rest) {
            let _ = Message::decode(message);
            rest = &rest[message.len()..];
        }
    }
}
