//! Reading an UPDATE does not allocate: neither parsing it, nor the canonical form in a warm
//! buffer, nor the prefixes; nor does writing into a warm buffer.

use allocation_counter::measure;
use bgp_proto::types::{Asn, Family, NextHop, PathId, PeerType, Prefix, Prefix4, Prefix6};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, HEADER_LEN, MAX_LEN, Origin, RouteBatch, Update, UpdateContext,
    UpdateWriter, Verdict, split_frame, split_messages,
};

const HOP4: NextHop = NextHop::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn attributes() -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    for asn in [70_000, 65002, 65001] {
        edit.prepend_as(Asn(asn), 1);
    }
    edit.set_med(50);
    edit.set(0xC0, 7, &[0, 1, 0x11, 0x70, 10, 0, 0, 1]);
    edit.set(0xC0, 8, &[0, 0, 0, 1, 0, 0, 0, 2]);
    edit
}

fn prefixes(family: Family) -> Vec<Prefix> {
    (0..700u32)
        .map(|i| match family {
            Family::Ipv4 => Prefix::V4(Prefix4::from_bits(0x0a00_0000 | i << 8, 24)),
            Family::Ipv6 => Prefix::V6(Prefix6::from_bits(u128::from(i) << 80, 48)),
        })
        .collect()
}

fn written(format: AnnounceFormat, hop: NextHop) -> Vec<u8> {
    let (edit, mut out) = (attributes(), Vec::new());
    let mut writer = UpdateWriter::announce(&mut out, format, edit.view(), hop);
    for prefix in prefixes(format.family) {
        writer.push(PathId(1), prefix).expect("room");
    }
    assert!(writer.finish() > 0);
    out
}

/// Swaps the first two attributes (ORIGIN and AS_PATH), so that the canonical form has to be built.
fn shuffled(message: &[u8]) -> Vec<u8> {
    let mut out = message.to_vec();
    let attrs = HEADER_LEN + 4;
    assert_eq!(out[attrs..attrs + 3], [0x40, 1, 1], "ORIGIN first");
    let path_len = usize::from(out[attrs + 6]) + 3;
    out[attrs..attrs + 4 + path_len].rotate_left(4);
    out
}

fn assert_reads_without_allocation(message: &[u8], cx: &UpdateContext) {
    let mut warm = Vec::with_capacity(MAX_LEN * 2);
    let mut seen = 0;
    let info = measure(|| {
        let frame = split_frame(message, MAX_LEN).expect("a frame").expect("all of it");
        let update = Update::parse(frame.body(), cx).expect("an UPDATE");
        assert_eq!(update.verdict(), Verdict::Accept);
        update.canonical_attrs(&mut warm);
        for reach in update.reach() {
            seen += reach.nlri.iter().count();
        }
    });
    assert_eq!(info.count_total, 0, "allocations");
    assert!(seen > 0 && warm.len() > 30, "the message was really read");
}

#[test]
fn the_counter_counts() {
    let info = measure(|| drop(std::hint::black_box(vec![1u8; 100])));
    assert_eq!(info.count_total, 1);
}

#[test]
fn reading_updates_does_not_allocate() {
    for family in Family::ALL {
        for four_octet_as in [true, false] {
            let format =
                AnnounceFormat { family, four_octet_as, add_path: false, max_len: MAX_LEN };
            let hop = match family {
                Family::Ipv4 => HOP4,
                Family::Ipv6 => NextHop::V6("2001:db8::1".parse().unwrap()),
            };
            let cx = UpdateContext {
                four_octet_as,
                ..UpdateContext::new(PeerType::External, Asn(65001))
            };
            let stream = written(format, hop);
            let message = split_messages(&stream).next().unwrap();
            assert_reads_without_allocation(message, &cx);
            if family == Family::Ipv4 {
                assert_reads_without_allocation(&shuffled(message), &cx);
            }
        }
    }
}

#[test]
fn a_warm_batch_and_a_warm_output_do_not_allocate() {
    let format = AnnounceFormat {
        family: Family::Ipv4,
        four_octet_as: true,
        add_path: true,
        max_len: MAX_LEN,
    };
    let (edit, prefixes) = (attributes(), prefixes(Family::Ipv4));
    let mut out = Vec::with_capacity(64 * 1024);
    let info = measure(|| {
        let mut writer = UpdateWriter::announce(&mut out, format, edit.view(), HOP4);
        for prefix in &prefixes {
            writer.push(PathId(1), *prefix).unwrap();
        }
        assert!(writer.finish() > 1);
    });
    assert_eq!(info.count_total, 0, "writing");

    let cx = UpdateContext {
        add_path: bgp_proto::types::FamilySet::ALL,
        ..UpdateContext::new(PeerType::External, Asn(65001))
    };
    let mut batch = RouteBatch::default();
    let mut attrs = Vec::with_capacity(MAX_LEN);
    let mut fill = |batch: &mut RouteBatch| {
        for message in split_messages(&out) {
            let update = Update::parse(&message[HEADER_LEN..], &cx).unwrap();
            attrs.clear();
            update.canonical_attrs(&mut attrs);
            for reach in update.reach() {
                batch.push(reach.nlri, Some((&attrs, reach.next_hop)));
            }
        }
    };
    fill(&mut batch);
    batch.clear();
    let info = measure(|| fill(&mut batch));
    assert_eq!(info.count_total, 0, "batching");
    let total: usize = batch.entries().iter().map(|e| batch.nlri(e).count()).sum();
    assert_eq!(total, prefixes.len());
}
