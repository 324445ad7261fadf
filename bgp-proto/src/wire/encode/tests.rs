use super::*;
use crate::types::{Asn, Prefix4, Prefix6};
use crate::wire::{AttrEdit, Origin};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const HOP4: NextHop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));

fn format(family: Family) -> AnnounceFormat {
    AnnounceFormat { family, four_octet_as: true, add_path: false, max_len: MAX_LEN }
}

fn attributes(asns: &[u32]) -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    asns.iter().rev().for_each(|a| {
        edit.prepend_as(Asn(*a), 1);
    });
    edit
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The body of the only message, in hex.
fn one_body(out: &[u8]) -> String {
    let all: Vec<_> = split_messages(out).collect();
    assert_eq!(all.len(), 1);
    hex(&all[0][HEADER_LEN..])
}

fn announce(format: AnnounceFormat, attrs: AttrView<'_>, hop: NextHop, prefix: &str) -> String {
    let mut out = Vec::new();
    let mut writer = UpdateWriter::announce(&mut out, format, attrs, hop);
    writer.push(PathId(7), prefix.parse().unwrap()).unwrap();
    assert_eq!(writer.finish(), 1);
    one_body(&out)
}

#[test]
fn ipv4_goes_into_the_classic_fields() {
    // The baseline message of the conformance set, upd-ok-ebgp.
    let attrs = attributes(&[65001]);
    assert_eq!(
        announce(format(Family::Ipv4), attrs.view(), HOP4, "203.0.113.0/24"),
        "000000144001010040020602010000fde9400304c000020118cb0071"
    );
}

#[test]
fn ipv6_goes_into_mp_reach_first() {
    // mp-ok of the conformance set.
    let attrs = attributes(&[65001]);
    let hop = NextHop::V6("2001:db8::1".parse().unwrap());
    assert_eq!(
        announce(format(Family::Ipv6), attrs.view(), hop, "2001:db8::/32"),
        "0000002a800e1a0002011020010db8000000000000000000000001002020010db84001010040020602010000fde9"
    );
    let both = NextHop::V6Both {
        global: "2001:db8::1".parse().unwrap(),
        link_local: "fe80::1".parse().unwrap(),
    };
    assert!(announce(format(Family::Ipv6), attrs.view(), both, "2001:db8::/32").starts_with(
        "0000003a800e2a0002012020010db8000000000000000000000001fe80000000000000000000000000000100"
    ));
}

#[test]
fn next_hops_of_the_other_family() {
    let attrs = attributes(&[65001]);
    let hop = NextHop::V6("fe80::1".parse().unwrap());
    let body = announce(format(Family::Ipv4), attrs.view(), hop, "203.0.113.0/24");
    assert!(body.starts_with("00000029800e1900010110fe8000000000000000000000000000010018cb0071"));
    let body = announce(format(Family::Ipv6), attrs.view(), HOP4, "2001:db8::/32");
    assert!(body.contains("0002011000000000000000000000ffffc0000201"), "IPv4-mapped: {body}");
}

#[test]
fn two_octet_peers_are_sent_as_trans_and_the_real_numbers_beside_it() {
    let mut attrs = attributes(&[65001, 4_200_000_000]);
    attrs.set(0xC0, attr::AGGREGATOR, &[0xfa, 0x56, 0xea, 0, 10, 0, 0, 1]);
    attrs.set(0xC0, attr::LARGE_COMMUNITIES, &[1; 12]);
    let two = AnnounceFormat { four_octet_as: false, ..format(Family::Ipv4) };
    let body = announce(two, attrs.view(), HOP4, "203.0.113.0/24");
    assert_eq!(
        body,
        concat!(
            "0000004440010100",
            "4002060202fde95ba0",
            "400304c0000201",
            "c007065ba00a000001",
            "c0110a02020000fde9fa56ea00",
            "c01208fa56ea000a000001",
            "c0200c010101010101010101010101",
            "18cb0071"
        )
    );
    // If every number fits, nothing is added.
    let body = announce(two, attributes(&[65001]).view(), HOP4, "203.0.113.0/24");
    assert_eq!(body, "00000012400101004002040201fde9400304c000020118cb0071");
}

#[test]
fn withdrawals_and_markers() {
    let withdraw = |family, prefix: &str| {
        let mut out = Vec::new();
        let format = AnnounceFormat { add_path: true, ..format(family) };
        let mut writer = UpdateWriter::withdraw(&mut out, format);
        writer.push(PathId(7), prefix.parse().unwrap()).unwrap();
        assert_eq!(writer.finish(), 1);
        one_body(&out)
    };
    assert_eq!(withdraw(Family::Ipv4, "203.0.113.0/24"), "00080000000718cb00710000");
    assert_eq!(withdraw(Family::Ipv6, "2001:db8::/32"), "0000000f800f0c000201000000072020010db8");
    let mut out = Vec::new();
    assert_eq!(UpdateWriter::withdraw(&mut out, format(Family::Ipv4)).finish(), 0);
    encode_keepalive(&mut out);
    encode_end_of_rib(&mut out, Family::Ipv4);
    encode_end_of_rib(&mut out, Family::Ipv6);
    let bodies: Vec<_> = split_messages(&out).map(|m| hex(&m[18..])).collect();
    assert_eq!(bodies, ["04", "0200000000", "0200000006800f03000201"]);
}

#[test]
fn a_set_that_leaves_no_room_is_an_error_and_leaves_no_bytes() {
    let mut attrs = attributes(&[65001]);
    let prefix: Prefix = "203.0.113.0/24".parse().unwrap();
    // Everything but the filler is 19 + 4 + 20 + its 4-octet header + 4 octets of prefix.
    for (filler, fits) in [(4096 - 51, true), (4096 - 50, false)] {
        attrs.set(0xC0, 99, &vec![0; filler]);
        let mut out = vec![1, 2, 3];
        let mut writer = UpdateWriter::announce(&mut out, format(Family::Ipv4), attrs.view(), HOP4);
        assert_eq!(writer.push(PathId(0), prefix).is_ok(), fits);
        assert_eq!(writer.finish(), usize::from(fits));
        assert_eq!(out.len(), if fits { 3 + 4096 } else { 3 });
    }
}

#[test]
fn the_octet_that_extended_length_would_cost_is_used() {
    let mut attrs = attributes(&[65001]);
    let hop = NextHop::V6("2001:db8::1".parse().unwrap());
    // Everything but the filler: 19 + 4, MP_REACH_NLRI 3 + 21 + 5, ORIGIN and AS_PATH 13, header 4.
    for (filler, fits) in [(4096 - 69, true), (4096 - 68, false)] {
        attrs.set(0xC0, 99, &vec![0; filler]);
        let mut out = Vec::new();
        let mut writer = UpdateWriter::announce(&mut out, format(Family::Ipv6), attrs.view(), hop);
        assert_eq!(writer.push(PathId(0), "2001:db8::/32".parse().unwrap()).is_ok(), fits);
        writer.finish();
        assert_eq!(out.len(), if fits { 4096 } else { 0 });
    }
}

fn any_prefixes(family: Family) -> impl Strategy<Value = Vec<(PathId, Prefix)>> {
    let one =
        (any::<u32>(), any::<u128>(), 0u8..=family.max_len()).prop_map(move |(id, bits, len)| {
            let prefix = match family {
                Family::Ipv4 => Prefix::V4(Prefix4::from_bits(bits as u32, len)),
                Family::Ipv6 => Prefix::V6(Prefix6::from_bits(bits, len)),
            };
            (PathId(id), prefix)
        });
    proptest::collection::vec(one, 1..400)
}

fn any_case() -> impl Strategy<Value = (AnnounceFormat, usize, bool, bool, Vec<(PathId, Prefix)>)> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        120usize..4096,
        0usize..900,
    )
        .prop_flat_map(|(six, add_path, four, v6_hop, withdraw, max_len, filler)| {
            let family = if six { Family::Ipv6 } else { Family::Ipv4 };
            let format = AnnounceFormat { family, four_octet_as: four, add_path, max_len };
            (Just(format), Just(filler), Just(v6_hop), Just(withdraw), any_prefixes(family))
        })
}

proptest! {
    /// No message is too long, none had room for the first prefix of the next, and every prefix is
    /// written in order.
    #[test]
    fn packing_loses_nothing_and_exceeds_nothing(
        (format, filler, v6_hop, withdraw, prefixes) in any_case(),
    ) {
        let mut attrs = attributes(&[65001, 70_000]);
        attrs.set(0xC0, 99, &vec![0; filler]);
        let hop = if v6_hop { NextHop::V6("2001:db8::1".parse().unwrap()) } else { HOP4 };
        let mut out = Vec::new();
        let mut writer = if withdraw {
            UpdateWriter::withdraw(&mut out, format)
        } else {
            UpdateWriter::announce(&mut out, format, attrs.view(), hop)
        };
        let kept: Vec<_> =
            prefixes.iter().copied().filter(|(id, p)| writer.push(*id, *p).is_ok()).collect();
        let written = writer.finish();
        let messages: Vec<_> = split_messages(&out).collect();
        prop_assert_eq!(messages.len(), written);
        prop_assert_eq!(messages.iter().map(|m| m.len()).sum::<usize>(), out.len());
        let mut read = Vec::new();
        let mut firsts = Vec::new();
        for m in &messages {
            prop_assert!(m.len() <= format.max_len);
            let nlri = nlri_of(m, format);
            firsts.push(nlri.iter().next().unwrap());
            read.extend(nlri.iter());
        }
        for (m, (_, next)) in messages.iter().zip(firsts.iter().skip(1)) {
            // One more prefix may also cost an octet for the MP attribute's Extended Length.
            let more = Nlri::encoded_len(format.add_path, *next) + 1;
            prop_assert!(m.len() + more > format.max_len);
        }
        let id = |id: PathId| if format.add_path { id } else { PathId(0) };
        prop_assert_eq!(read, kept.iter().map(|(i, p)| (id(*i), *p)).collect::<Vec<_>>());
        let room = format.max_len >= 19 + 4 + 4 + 41 + filler + 4 + 80 + 21;
        prop_assert!(kept.len() == prefixes.len() || !room, "refused although there was room");
    }
}

/// The prefixes of an encoded message, located without the decoder.
fn nlri_of(message: &[u8], format: AnnounceFormat) -> Nlri<'_> {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let withdrawn = u16_at(19);
    let attrs_at = 21 + withdrawn + 2;
    let attrs = &message[attrs_at..attrs_at + u16_at(21 + withdrawn)];
    let classic = &message[attrs_at + attrs.len()..];
    let mut found = vec![&message[21..21 + withdrawn], classic];
    let mut codes = Vec::new();
    let mut rest = attrs;
    while let Some((attr, after)) = Attr::split(rest) {
        let long = attr.flags & flag::EXTENDED_LENGTH != 0;
        assert_eq!(long, attr.value.len() > 255, "Extended Length exactly where needed");
        match attr.code {
            attr::MP_REACH_NLRI => found.push(&attr.value[5 + usize::from(attr.value[3])..]),
            attr::MP_UNREACH_NLRI => found.push(&attr.value[3..]),
            _ => codes.push(attr.code),
        }
        rest = after;
    }
    assert!(rest.is_empty() && codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    found.retain(|n| !n.is_empty());
    assert_eq!(found.len(), 1, "never mixes");
    Nlri::parse(format.family, format.add_path, found[0]).unwrap()
}
