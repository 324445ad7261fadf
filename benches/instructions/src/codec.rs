//! UPDATEs decoded and brought into canonical form.

use std::hint::black_box;

use bgp_proto::types::{Asn, Community, Family, NextHop, PathId, PeerType, Prefix, Prefix4};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, HEADER_LEN, MAX_LEN, Origin, Update, UpdateContext, UpdateWriter,
    Verdict, split_messages,
};

use crate::counted_work;

/// `count` UPDATEs as a transit peer sends them: 65 octets of attributes and seven prefixes.
pub(crate) fn decode(count: u32) {
    let mut octets = Vec::new();
    let hop = NextHop::from(std::net::IpAddr::from([192, 0, 2, 1]));
    let format = AnnounceFormat {
        family: Family::Ipv4,
        four_octet_as: true,
        add_path: false,
        max_len: MAX_LEN,
    };
    for number in 0..count {
        let mut edit = AttrEdit::originate(Origin::Igp);
        for asn in [64500 + number, 64499, 64498, 4_200_000_000, 65001] {
            edit.prepend_as(Asn(asn), 1);
        }
        edit.set_med(50);
        edit.set(0xC0, 7, &[0, 0, 0xfb, 0xf4, 10, 0, 0, 1]);
        edit.set_communities(&[Community(0xfde9_0001), Community(0xfde9_0002)]);
        let mut writer = UpdateWriter::announce(&mut octets, format, edit.view(), hop);
        for at in 0..7 {
            let bits = (number * 7 + at) << 8;
            let _ = writer.push(PathId(0), Prefix::V4(Prefix4::from_bits(bits, 24)));
        }
        writer.finish();
    }
    let context = UpdateContext::new(PeerType::External, Asn(65001));
    let mut attributes = Vec::new();
    let prefixes: usize = counted_work(|| {
        let update = |message: &[u8]| {
            let update = Update::parse(&message[HEADER_LEN..], &context).expect("just written");
            assert!(update.verdict() == Verdict::Accept);
            attributes.clear();
            update.canonical_attrs(&mut attributes);
            black_box(&attributes);
            update.reach().map(|reach| reach.nlri.count()).sum::<usize>()
        };
        split_messages(&octets).map(update).sum()
    });
    assert_eq!(prefixes, count as usize * 7);
}
