//! ADD-PATH in one family of a session only.

use bgp_proto::types::{Family, PathId, PeerType, Prefix};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, Origin, Update, UpdateContext, UpdateWriter, encode_end_of_rib,
    split_messages,
};

use super::*;

const WITH_IDS: Family = Family::Ipv4;

fn prefix(family: Family) -> Prefix {
    match family {
        Family::Ipv4 => "10.1.0.0/16".parse().unwrap(),
        Family::Ipv6 => "2001:db8:1::/48".parse().unwrap(),
    }
}

/// An announcement, a withdrawal and End-of-RIB of each family, as a peer with ADD-PATH in one sends them.
fn sent() -> Vec<u8> {
    let mut octets = Vec::new();
    let mut attrs = AttrEdit::originate(Origin::Igp);
    attrs.prepend_as(Asn(65001), 1);
    for family in Family::ALL {
        let add_path = family == WITH_IDS;
        let format = AnnounceFormat { family, four_octet_as: true, add_path, max_len: 4096 };
        let next_hop = match family {
            Family::Ipv4 => std::net::IpAddr::from([192, 0, 2, 1]),
            Family::Ipv6 => "2001:db8::1".parse().unwrap(),
        };
        let mut writer = UpdateWriter::announce(&mut octets, format, attrs.view(), next_hop.into());
        writer.push(PathId(7), prefix(family)).unwrap();
        let _ = writer.finish();
        let mut writer = UpdateWriter::withdraw(&mut octets, format);
        writer.push(PathId(7), prefix(family)).unwrap();
        let _ = writer.finish();
        encode_end_of_rib(&mut octets, family);
    }
    octets
}

#[test]
fn an_update_is_recorded_with_path_ids_if_its_family_has_them() {
    let recorder = Recorder::idle();
    let tap = Tap::new(recorder.clone());
    recorder.set(Some(recording(Path::new("/none"))));
    let _ = recorder.queue.take(Vec::new(), None);
    let sent = sent();
    assert_eq!(split_messages(&sent).count(), 6);
    let encoding = Encoding { has_as4: true, path_ids: FamilySet::only(WITH_IDS) };
    tap.received(&session(), encoding, &[&sent[..], &keepalives(1)].concat());
    let taken = recorder.queue.take(Vec::new(), None);
    let (mut rest, mut read, mut updates) = (&taken.octets[..], Vec::new(), 0);
    while let Some((record, after)) = Record::split(rest).unwrap() {
        rest = after;
        let Record::Message(message) = record else { panic!("{record:?}") };
        if message.message == keepalives(1) {
            assert!(!message.has_path_ids);
            continue;
        }
        updates += 1;
        // A reader knows of the session what the record says.
        let add_path = if message.has_path_ids { FamilySet::ALL } else { FamilySet::EMPTY };
        let context =
            UpdateContext { add_path, ..UpdateContext::new(PeerType::External, Asn(65001)) };
        let update = Update::parse(&message.message[19..], &context).unwrap();
        for reach in update.reach() {
            read.extend(reach.nlri.iter().map(|(id, prefix)| ("announced", id.0, prefix)));
        }
        for unreach in update.unreach() {
            read.extend(unreach.iter().map(|(id, prefix)| ("withdrawn", id.0, prefix)));
        }
    }
    let expected = Family::ALL.into_iter().flat_map(|family| {
        let id = if family == WITH_IDS { 7 } else { 0 };
        ["announced", "withdrawn"].map(|what| (what, id, prefix(family)))
    });
    assert_eq!(read, expected.collect::<Vec<_>>());
    assert_eq!(updates, 6, "End-of-RIB included");
}

#[test]
fn families_of_octets_that_are_no_update_are_none_or_those_before_the_fault() {
    let sent = sent();
    for update in split_messages(&sent) {
        let whole = families::of_update(&update[19..]);
        for cut in 19..update.len() {
            let part = families::of_update(&update[19..cut]);
            assert_eq!(part.intersection(whole), part, "{update:?} cut at {cut}");
        }
    }
    assert!(families::of_update(&[0xff; 40]).is_empty());
}
