use super::*;
use crate::types::{Community, PathId, Prefix, Prefix4, Prefix6, on_interface};
use crate::wire::{
    ATTRIBUTES, AnnounceFormat, AsPath, AsSegment, AttrEdit, AttrScope, AttrView, Code, Malformed,
    Origin, SegmentKind, UpdateWriter, ValueLength, attr, split_messages,
};
use proptest::prelude::*;

const EBGP: UpdateContext = UpdateContext::new(PeerType::External, Asn(65001));
const IBGP: UpdateContext = UpdateContext::new(PeerType::Internal, Asn(65000));
const OLD: UpdateContext = UpdateContext { four_octet_as: false, enforce_first_as: false, ..EBGP };

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const PREFIX: &[u8] = &[24, 203, 0, 113];

fn body(withdrawn: &[u8], attrs: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attrs = attrs.concat();
    let mut out = (withdrawn.len() as u16).to_be_bytes().to_vec();
    out.extend(withdrawn);
    out.extend((attrs.len() as u16).to_be_bytes());
    out.extend(attrs);
    out.extend(nlri);
    out
}

/// The three mandatory attributes, then these, and one prefix.
fn with(extra: &[&[u8]]) -> Vec<u8> {
    body(&[], &[&[ORIGIN, PATH, NEXT_HOP], extra].concat(), PREFIX)
}

fn canonical(body: &[u8], cx: &UpdateContext) -> Vec<u8> {
    let update = Update::parse(body, cx).unwrap();
    assert_eq!(update.verdict(), Verdict::Accept);
    let mut out = Vec::new();
    update.canonical_attrs(&mut out);
    out
}

fn reason(body: &[u8], cx: &UpdateContext) -> (u8, &'static str) {
    match Update::parse(body, cx).unwrap().verdict() {
        Verdict::TreatAsWithdraw(why) => (why.attr, why.what),
        Verdict::Accept => panic!("accepted"),
    }
}

fn reset(body: &[u8], cx: &UpdateContext) -> (Code, Vec<u8>) {
    let error = Update::parse(body, cx).unwrap_err();
    (error.code, error.data)
}

#[test]
fn next_hop_and_prefixes_are_not_attributes() {
    let plain = canonical(&with(&[]), &EBGP);
    assert_eq!(plain, [ORIGIN, PATH].concat());
    let shuffled = body(&[], &[NEXT_HOP, PATH, ORIGIN], PREFIX);
    assert_eq!(canonical(&shuffled, &EBGP), plain);
}

#[test]
fn flags_and_lengths_are_normalised() {
    // Extended Length for a short value, Partial and low bits on a well-known attribute.
    let odd_path = [&[0x7F, 2, 0, 6][..], &PATH[3..]].concat();
    let odd = body(&[], &[ORIGIN, &odd_path, NEXT_HOP], PREFIX);
    assert_eq!(canonical(&odd, &EBGP), [ORIGIN, PATH].concat());
    // Partial is kept where it is defined, and set where margay passes on what it does not know.
    let partial = with(&[&[0xE0, 8, 4, 0, 0, 0, 1], &[0xC0, 99, 1, 7], &[0xF0, 100, 0, 0]]);
    let tail = [&[0xE0, 8, 4, 0, 0, 0, 1][..], &[0xE0, 99, 1, 7], &[0xE0, 100, 0]].concat();
    assert_eq!(canonical(&partial, &EBGP), [ORIGIN, PATH, &tail].concat());
}

#[test]
fn communities_become_sets() {
    let large = [[2; 12], [1; 12], [2; 12]].concat();
    let attrs = [&[0xC0, 8, 12, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 9][..], &[0xC0, 32, 36], &large];
    let out = canonical(&with(&[&attrs.concat()]), &EBGP);
    let view = AttrView::new(&out);
    assert!(view.communities().eq([Community(1), Community(9)]));
    assert_eq!(view.large_communities().count(), 2);
    // Large ones alone, so that nothing else requires the attributes to be rewritten.
    let alone = [&[0xC0, 32, 36][..], &[2; 12], &[2; 12], &[3; 12]].concat();
    let out = canonical(&with(&[&alone]), &EBGP);
    assert_eq!(AttrView::new(&out).large_communities().count(), 2);
    // Removing duplicates may make Extended Length superfluous.
    let many = [&[0xD0, 8, 1, 4][..], &[5; 260]].concat();
    let out = canonical(&with(&[&many]), &EBGP);
    assert_eq!(out[ORIGIN.len() + PATH.len()..], [0xC0, 8, 4, 5, 5, 5, 5]);
}

#[test]
fn unrecognised_attributes_are_handled_by_their_flags() {
    let view = canonical(&with(&[&[0x80, 99, 1, 7], &[0xC0, 40, 0]]), &EBGP);
    assert_eq!(AttrView::new(&view).get(99), None);
    assert_eq!(AttrView::new(&view).get(40).map(|a| a.flags), Some(0xE0));
    assert_eq!(
        reset(&with(&[&[0x00, 99, 2, 7, 8]]), &EBGP),
        (Code::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE, vec![0x00, 99, 2, 7, 8])
    );
    // Unrecognised well-known attributes, even of types that no speaker sends.
    for code in [0, 255] {
        let wrong = [0x50, code, 0, 1, 7];
        assert_eq!(reset(&with(&[&wrong]), &EBGP).1, wrong);
    }
}

#[test]
fn every_discarded_type_is_named_once() {
    let repeated = with(&[ORIGIN, ORIGIN, &[0x40, 5, 0], &[0x80, 26, 0], &[0xC0, 17, 0]]);
    let update = Update::parse(&repeated, &EBGP).unwrap();
    assert_eq!(update.discarded().codes(), [1, 5, 26, 17]);
    let many: Vec<Vec<u8>> = (50..70).flat_map(|c| vec![vec![0xC0, c, 0]; 2]).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let message = body(&[], &many, &[]);
    let update = Update::parse(&message, &EBGP).unwrap();
    assert_eq!(update.discarded().codes(), [50, 51, 52, 53, 54, 55, 56, 57]);
}

/// RFC 7606 §3 (h): of two errors in one attribute the stronger counts.
#[test]
fn wrong_flags_take_precedence_over_a_wrong_length() {
    for (attr, fate) in [
        ([0xC0, 6, 1, 0x78].as_slice(), Some((6, "wrong flags"))),
        (&[0x40, 6, 1, 0x78], None),
        (&[0x40, 7, 5, 1, 2, 3, 4, 5], Some((7, "wrong flags"))),
        (&[0xC0, 7, 5, 1, 2, 3, 4, 5], None),
    ] {
        let message = with(&[attr]);
        match fate {
            Some(fate) => assert_eq!(reason(&message, &EBGP), fate),
            None => {
                let update = Update::parse(&message, &EBGP).unwrap();
                assert_eq!(update.verdict(), Verdict::Accept);
                assert_eq!(update.discarded().codes(), [attr[1]]);
            }
        }
    }
}

/// An UPDATE is checked against each row of the table of attributes.
#[test]
fn every_known_attribute_is_checked_by_its_row() {
    for def in ATTRIBUTES.iter().filter(|def| def.length != ValueLength::Structured) {
        let right = match def.length {
            ValueLength::Exactly(len) | ValueLength::ListOf(len) => len as u8,
            ValueLength::Structured => unreachable!(),
        };
        let message = |flags: u8, len: u8| {
            let mut attr = vec![flags, def.code, len];
            attr.resize(3 + usize::from(len), 0);
            let others: Vec<&[u8]> = [(1, ORIGIN), (2, PATH), (3, NEXT_HOP)]
                .into_iter()
                .filter(|(code, _)| *code != def.code)
                .map(|(_, octets)| octets)
                .chain((def.code != 5).then_some([0x40, 5, 4, 0, 0, 0, 1].as_slice()))
                .chain([attr.as_slice()])
                .collect();
            body(&[], &others, PREFIX)
        };
        let good = message(def.category, right);
        let kept = Update::parse(&good, &IBGP).unwrap();
        assert_eq!(kept.verdict(), Verdict::Accept, "{}", def.name);
        assert_eq!(kept.discarded().codes(), [0; 0], "{}", def.name);
        assert_eq!(reason(&message(def.category ^ 0x40, right), &IBGP), (def.code, "wrong flags"));
        let wrong = message(def.category, right + 1);
        match def.malformed {
            Malformed::Withdraw => assert_eq!(reason(&wrong, &IBGP), (def.code, "wrong length")),
            Malformed::Discard => {
                assert_eq!(Update::parse(&wrong, &IBGP).unwrap().discarded().codes(), [def.code]);
            }
        }
        if def.scope == AttrScope::Internal {
            assert_eq!(Update::parse(&good, &EBGP).unwrap().discarded().codes()[0], 5);
            assert!(Update::parse(&good, &EBGP).unwrap().discarded().codes().contains(&def.code));
        }
    }
}

/// RFC 9774 §3: "AS_PATH or AS4_PATH".
#[test]
fn a_set_in_as4_path_is_a_set() {
    let old = UpdateContext { four_octet_as: false, reject_as_sets: true, ..EBGP };
    // 65001 23456 23456, and {100000 100001} in AS4_PATH.
    let path = [0x40, 2, 8, 2, 3, 0xFD, 0xE9, 0x5B, 0xA0, 0x5B, 0xA0];
    let set = [0xC0, 17, 10, 1, 2, 0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA1];
    let message = body(&[], &[ORIGIN, &path, NEXT_HOP, &set], PREFIX);
    assert_eq!(reason(&message, &old), (17, "AS_SET"));
    let allowed = UpdateContext { reject_as_sets: false, ..old };
    assert_eq!(Update::parse(&message, &allowed).unwrap().verdict(), Verdict::Accept);
    // Between speakers that both know four octets the attribute is not read (RFC 6793 §4.1).
    let wide = UpdateContext { four_octet_as: true, ..old };
    let message = with(&[&set]);
    assert_eq!(Update::parse(&message, &wide).unwrap().verdict(), Verdict::Accept);
}

#[test]
fn missing_attributes_matter_only_beside_prefixes() {
    assert_eq!(reason(&body(&[], &[], PREFIX), &EBGP), (3, "missing"));
    assert_eq!(reason(&body(&[], &[ORIGIN, NEXT_HOP], PREFIX), &EBGP), (2, "missing"));
    assert_eq!(reason(&with(&[]), &IBGP), (5, "missing"));
    let message = body(PREFIX, &[ORIGIN], &[]);
    let no_prefix = Update::parse(&message, &EBGP).unwrap();
    assert_eq!(no_prefix.verdict(), Verdict::Accept);
    assert_eq!(no_prefix.unreach().count(), 1);
}

#[test]
fn an_error_without_reachable_prefixes_resets() {
    let bad_origin = [0x40, 1, 1, 9];
    // RFC 7606 decides that the session ends, RFC 4271 §6.3 what the peer is sent.
    for (attr, code) in [
        (&bad_origin[..], Code::INVALID_ORIGIN_ATTRIBUTE),
        (&[0x40, 1, 2, 0, 0], Code::ATTRIBUTE_LENGTH_ERROR),
        (&[0xC0, 1, 1, 0], Code::ATTRIBUTE_FLAGS_ERROR),
        (&[0x40, 3, 3, 1, 1, 1], Code::ATTRIBUTE_LENGTH_ERROR),
        (&[0xC0, 8, 3, 1, 1, 1], Code::ATTRIBUTE_LENGTH_ERROR),
    ] {
        assert_eq!(reset(&body(PREFIX, &[PATH, attr], &[]), &EBGP), (code, attr.to_vec()));
    }
    let empty_segment = [0x40, 2, 2, 2, 0];
    let (code, data) = reset(&body(PREFIX, &[&empty_segment], &[]), &EBGP);
    assert_eq!((code, data), (Code::MALFORMED_AS_PATH, vec![]));
    let overrun = [0x40, 1, 9, 0];
    let (code, data) = reset(&body(PREFIX, &[&bad_origin, &overrun], &[]), &EBGP);
    assert_eq!((code, data), (Code::MALFORMED_ATTRIBUTE_LIST, vec![]));
    // Prefixes of a family that is not read may be the ones that are reachable.
    let evpn = [0x80, 14, 5, 0, 25, 70, 0, 0];
    let hidden = body(&[], &[&bad_origin, &evpn], &[]);
    assert_eq!(reason(&hidden, &EBGP), (1, "undefined value"));
    // Withdrawn ones are not.
    let withdrawn = body(&[], &[&[0x80, 15, 3, 0, 25, 70], &bad_origin], &[]);
    assert_eq!(reset(&withdrawn, &EBGP).0, Code::INVALID_ORIGIN_ATTRIBUTE);
    let ipv6_only = UpdateContext { families: FamilySet::only(Family::Ipv6), ..EBGP };
    assert_eq!(
        reset(&body(PREFIX, &[&bad_origin], &[]), &ipv6_only).0,
        Code::INVALID_ORIGIN_ATTRIBUTE
    );
    assert_eq!(reason(&body(&[], &[&bad_origin], PREFIX), &ipv6_only), (1, "undefined value"));
    // A discard is not an error of that kind.
    let discard = body(&[], &[&[0x40, 6, 1, 0]], &[]);
    assert_eq!(Update::parse(&discard, &EBGP).unwrap().discarded().codes(), [6]);
}

#[test]
fn as_paths_are_checked_as_a_whole() {
    let path = |value: &[u8]| {
        let attr = [&[0x40, 2, value.len() as u8], value].concat();
        body(&[], &[ORIGIN, &attr, NEXT_HOP], PREFIX)
    };
    let set = path(&[2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 7]);
    assert_eq!(Update::parse(&set, &EBGP).unwrap().verdict(), Verdict::Accept);
    let strict = UpdateContext { reject_as_sets: true, ..EBGP };
    assert_eq!(reason(&set, &strict), (2, "AS_SET"));
    assert_eq!(reason(&path(&[3, 1, 0, 0, 0xfd, 0xe9]), &EBGP), (2, "confederation segment"));
    assert_eq!(reason(&path(&[]), &EBGP), (2, "first AS is not the peer's"));
    let route_server = UpdateContext { enforce_first_as: false, ..EBGP };
    assert_eq!(Update::parse(&path(&[]), &route_server).unwrap().verdict(), Verdict::Accept);
}

#[test]
fn next_hops_of_the_reserved_block_are_usable() {
    let next_hop = |addr: [u8; 4]| {
        let attr = [&[0x40, 3, 4], &addr[..]].concat();
        body(&[], &[ORIGIN, PATH, &attr], PREFIX)
    };
    for good in [[240, 0, 0, 1], [255, 255, 255, 254], [1, 0, 0, 0], [223, 255, 255, 255]] {
        let message = next_hop(good);
        let update = Update::parse(&message, &EBGP).unwrap();
        assert_eq!(update.verdict(), Verdict::Accept);
        assert_eq!(update.reach().next().unwrap().next_hop, NextHop::V4(good.into()));
    }
    for bad in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 5], [255; 4]] {
        assert_eq!(reason(&next_hop(bad), &EBGP), (3, "unusable address"), "{bad:?}");
    }
}

fn mp_reach(afi: u8, next_hop: &[&str], nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, afi, 1, 16 * next_hop.len() as u8];
    for addr in next_hop {
        value.extend(addr.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    value.push(0);
    value.extend(nlri);
    [&[0x80, 14, value.len() as u8], &value[..]].concat()
}

#[test]
fn ipv6_next_hops() {
    let hop = |addrs: &[&str]| {
        let message = body(&[], &[&mp_reach(2, addrs, &[0]), ORIGIN, PATH], &[]);
        let update = Update::parse(&message, &EBGP).unwrap();
        match update.verdict() {
            Verdict::Accept => Some(update.reach().next().unwrap().next_hop),
            Verdict::TreatAsWithdraw(_) => None,
        }
    };
    let v6 = |a: &str| Some(NextHop::V6(a.parse().unwrap()));
    assert_eq!(hop(&["2001:db8::1"]), v6("2001:db8::1"));
    assert_eq!(hop(&["fe80::1"]), v6("fe80::1"));
    assert_eq!(hop(&["::", "fe80::1"]), v6("fe80::1"));
    assert_eq!(hop(&["fe80::1", "fe80::1"]), v6("fe80::1"));
    assert_eq!(hop(&["2001:db8::1", "::"]), v6("2001:db8::1"));
    assert_eq!(
        hop(&["2001:db8::1", "fe80::1"]),
        Some(NextHop::V6Both {
            global: "2001:db8::1".parse().unwrap(),
            link_local: "fe80::1".parse().unwrap()
        })
    );
    for bad in [&["::"][..], &["::1"], &["ff02::1"], &["::", "::"], &["ff02::1", "fe80::1"]] {
        assert_eq!(hop(bad), None, "{bad:?}");
    }
}

#[test]
fn ipv4_over_ipv6_needs_the_capability() {
    let message = body(&[], &[&mp_reach(1, &["fe80::1"], PREFIX), ORIGIN, PATH], &[]);
    assert_eq!(reset(&message, &EBGP).0, Code::OPTIONAL_ATTRIBUTE_ERROR);
    let cx = UpdateContext { ipv4_over_ipv6: true, ..EBGP };
    let update = Update::parse(&message, &cx).unwrap();
    let reach = update.reach().next().unwrap();
    assert_eq!(reach.next_hop, NextHop::V6("fe80::1".parse().unwrap()));
    assert_eq!(reach.nlri.family(), Family::Ipv4);
}

#[test]
fn a_link_local_next_hop_is_on_the_interface_of_the_session_and_on_no_other() {
    let next_hop = |hops: &[&str], interface: u32| {
        let message = body(&[], &[&mp_reach(1, hops, PREFIX), ORIGIN, PATH], &[]);
        let interface = std::num::NonZeroU32::new(interface);
        let cx = UpdateContext { ipv4_over_ipv6: true, interface, ..EBGP };
        let update = Update::parse(&message, &cx).unwrap();
        let reach = update.reach().next().unwrap();
        reach.next_hop
    };
    let on = |ifindex| NextHop::from(on_interface("fe80::1".parse().unwrap(), ifindex));
    for hops in [&["fe80::1"][..], &["fe80::1", "fe80::1"], &["2001:db8::1", "fe80::1"]] {
        assert_eq!(next_hop(hops, 7), on(7), "{hops:?}");
    }
    // What looks like another interface is not one.
    assert_eq!(next_hop(&["fe80:0:0:9::1"], 7), on(7));
    assert_eq!(next_hop(&["fe80:0:0:9::1"], 0), on(0));
    assert_eq!(next_hop(&["2001:db8::1"], 7).to_string(), "2001:db8::1");
    assert_eq!(on(7).to_string(), "fe80::1");
}

#[test]
fn ipv4_that_is_not_negotiated_is_not_read() {
    let cx = UpdateContext { families: FamilySet::only(Family::Ipv6), ..EBGP };
    let message = body(&[33], &[ORIGIN, PATH], &[99]);
    let update = Update::parse(&message, &cx).unwrap();
    assert_eq!(update.unnegotiated(), Some(Family::Ipv4.afi_safi()));
    assert_eq!((update.reach().count(), update.unreach().count()), (0, 0));
    assert_eq!(Update::parse(&[0; 4], &cx).unwrap().end_of_rib(), None);
}

#[test]
fn only_a_bare_message_is_an_end_of_rib() {
    let eor = |message: &[u8]| Update::parse(message, &EBGP).unwrap().end_of_rib();
    let unreach = |family: &[u8]| [&[0x80, 15, family.len() as u8], family].concat();
    assert_eq!(eor(&[0; 4]), Some(Family::Ipv4));
    assert_eq!(eor(&body(&[], &[&unreach(&[0, 1, 1])], &[])), Some(Family::Ipv4));
    assert_eq!(eor(&body(&[], &[&[0x90, 15, 0, 3, 0, 2, 1]], &[])), Some(Family::Ipv6));
    assert_eq!(eor(&body(&[], &[&unreach(&[0, 2, 1, 0])], &[])), None);
    assert_eq!(eor(&body(PREFIX, &[&unreach(&[0, 2, 1])], &[])), None);
    assert_eq!(eor(&body(&[], &[&unreach(&[0, 25, 70])], &[])), None);
    // CVE-2023-47235: attributes, but no prefixes.
    assert_eq!(eor(&body(&[], &[&unreach(&[0, 2, 1]), &[0xC0, 99, 0]], &[])), None);
    assert_eq!(eor(&body(&[], &[&[0xC0, 99, 0]], &[])), None);
}

#[test]
fn as4_aggregator_counts_only_beside_as_trans() {
    let aggregator = |asn: [u8; 2]| [&[0xC0, 7, 6], &asn[..], &[10, 0, 0, 1]].concat();
    let path: &[u8] = &[0x40, 2, 4, 2, 1, 0x5b, 0xa0];
    let as4_path: &[u8] = &[0xC0, 17, 6, 2, 1, 0, 1, 0, 0];
    let as4_aggregator: &[u8] = &[0xC0, 18, 8, 0, 1, 0, 1, 10, 0, 0, 2];
    let read = |attrs: &[&[u8]]| {
        let attrs = [&[ORIGIN, path, NEXT_HOP], attrs].concat();
        let out = canonical(&body(&[], &attrs, PREFIX), &OLD);
        let view = AttrView::new(&out);
        (view.as_path().first().unwrap().0, view.aggregator().map(|(asn, _)| asn.0))
    };
    let (trans, other) = (aggregator([0x5b, 0xa0]), aggregator([0, 9]));
    assert_eq!(read(&[&trans, as4_path, as4_aggregator]), (65536, Some(65537)));
    assert_eq!(read(&[as4_aggregator, as4_path, &trans]), (65536, Some(65537)));
    // A speaker that does not know the two has aggregated since: neither counts.
    assert_eq!(read(&[&other, as4_path, as4_aggregator]), (23456, Some(9)));
    // AGGREGATOR alone does not spoil AS4_PATH.
    assert_eq!(read(&[&other, as4_path]), (65536, Some(9)));
    assert_eq!(read(&[as4_path, as4_aggregator]), (65536, None));
}

#[test]
fn a_two_octet_path_that_grows_too_long_is_not_carried() {
    let segment = [&[2, 255][..], &[1; 510]].concat();
    let value = segment.repeat(70);
    let attr = [&[0x50, 2][..], &(value.len() as u16).to_be_bytes(), &value].concat();
    let message = body(&[], &[ORIGIN, &attr, NEXT_HOP], PREFIX);
    assert_eq!(reason(&message, &OLD), (2, "too long with four-octet numbers"));
}

#[test]
fn a_code_set_iterates_in_order() {
    let mut set = walk::CodeSet::default();
    let codes = [255, 0, 63, 64, 128, 127, 1];
    codes.iter().for_each(|c| set.insert(*c));
    assert!(set.iter().eq([0, 1, 63, 64, 127, 128, 255]));
    assert!(codes.iter().all(|c| set.contains(*c)) && !set.contains(2));
}

// ---- properties ----

fn any_segment(max: u32) -> impl Strategy<Value = (SegmentKind, Vec<u32>)> {
    let kind = prop_oneof![3 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    (kind, proptest::collection::vec(1..=max, 1..6))
}

fn wire_path(segments: &[(SegmentKind, Vec<u32>)], width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, numbers) in segments {
        out.extend([*kind as u8, numbers.len() as u8]);
        numbers.iter().for_each(|n| out.extend(&n.to_be_bytes()[4 - width..]));
    }
    out
}

/// The hops of a path, independent of how sequences are cut into segments; a set is one hop.
fn hops(segments: impl IntoIterator<Item = (SegmentKind, Vec<u32>)>) -> Vec<Vec<u32>> {
    let mut out = Vec::new();
    for (kind, numbers) in segments {
        match kind {
            SegmentKind::Sequence => out.extend(numbers.into_iter().map(|n| vec![n])),
            SegmentKind::Set => out.push([vec![0], numbers].concat()),
            _ => {}
        }
    }
    out
}

fn any_canonical() -> impl Strategy<Value = AttrEdit> {
    let asns = proptest::collection::vec(1u32..200_000, 0..6);
    let lists = proptest::collection::vec(any::<u32>(), 0..80);
    let unknown = proptest::collection::vec((41u8..=255, 0usize..400), 0..4);
    let numbers = (proptest::option::of(any::<u32>()), any::<u32>(), proptest::option::of(1u32..));
    (asns, lists, unknown, numbers, any::<bool>()).prop_map(
        |(asns, list, unknown, (med, local_pref, aggregator), atomic)| {
            let mut edit = AttrEdit::originate(Origin::Incomplete);
            asns.iter().for_each(|a| {
                edit.prepend_as(Asn(*a), 1);
            });
            edit.set_communities(&list.iter().map(|c| Community(*c)).collect::<Vec<_>>());
            edit.set_local_pref(local_pref);
            med.into_iter().for_each(|m| edit.set_med(m));
            if let Some(asn) = aggregator {
                let value = [asn.to_be_bytes(), [10, 0, 0, 1]].concat();
                edit.set(0xC0, attr::AGGREGATOR, &value);
            }
            if atomic {
                edit.set(0x40, attr::ATOMIC_AGGREGATE, &[]);
            }
            unknown.iter().for_each(|(code, n)| edit.set(0xE0, *code, &vec![7; *n]));
            edit
        },
    )
}

fn any_prefixes(family: Family) -> impl Strategy<Value = Vec<(PathId, Prefix)>> {
    let one = (any::<u32>(), any::<u128>(), 0u8..=family.max_len());
    let one = one.prop_map(move |(id, bits, len)| match family {
        Family::Ipv4 => (PathId(id), Prefix::V4(Prefix4::from_bits(bits as u32, len))),
        Family::Ipv6 => (PathId(id), Prefix::V6(Prefix6::from_bits(bits, len))),
    });
    proptest::collection::vec(one, 1..40)
}

fn any_family_with_prefixes() -> impl Strategy<Value = (Family, Vec<(PathId, Prefix)>)> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
        .prop_flat_map(|family| (Just(family), any_prefixes(family)))
}

/// Attributes that are nearly right: known types, plausible flags, plausible values.
fn any_attribute() -> impl Strategy<Value = Vec<u8>> {
    let code =
        prop_oneof![4 => 1u8..=10, 2 => 14u8..=18, 1 => any::<u8>(), 1 => Just(32), 1 => Just(8)];
    let flags = prop_oneof![
        6 => Just(0xFF), // stands for the right ones
        1 => any::<u8>(),
    ];
    let value = prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => proptest::collection::vec(0u8..5, 0..13),
        1 => Just(vec![2, 1, 0, 0, 0xfd, 0xe9]),
        1 => Just(vec![192, 0, 2, 1]),
        1 => Just(vec![0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 9]),
        1 => Just(vec![0, 2, 1]),
    ];
    (code, flags, value, any::<bool>()).prop_map(|(code, flags, value, long)| {
        let right = match code {
            1 | 2 | 3 | 5 | 6 => 0x40,
            4 | 9 | 10 | 14 | 15 => 0x80,
            _ => 0xC0,
        };
        let flags = if flags == 0xFF { right } else { flags };
        let mut out = if long {
            vec![flags | 0x10, code, 0, value.len() as u8]
        } else {
            vec![flags & !0x10, code, value.len() as u8]
        };
        out.extend(value);
        out
    })
}

fn any_context() -> impl Strategy<Value = UpdateContext> {
    proptest::array::uniform6(any::<bool>()).prop_map(|[four, internal, add, six, first, sets]| {
        UpdateContext {
            four_octet_as: four,
            add_path: if add { FamilySet::ALL } else { FamilySet::EMPTY },
            ipv4_over_ipv6: six,
            enforce_first_as: first,
            reject_as_sets: sets,
            ..if internal { IBGP } else { EBGP }
        }
    })
}

fn assert_canonical(bytes: &[u8]) {
    let view = AttrView::new(bytes);
    let mut rebuilt = Vec::new();
    let mut last = None;
    for attr in view.iter() {
        assert!(last < Some(attr.code), "ascending, each once");
        last = Some(attr.code);
        assert!(!matches!(attr.code, 3 | 14 | 15 | 17 | 18), "type {}", attr.code);
        attr.push(&mut rebuilt);
    }
    assert_eq!(rebuilt, bytes, "normalised flags and lengths");
    assert_eq!(
        AsPath::new(view.as_path().as_bytes()).segments().map(|s| 2 + 4 * s.count()).sum::<usize>(),
        view.as_path().as_bytes().len()
    );
}

proptest! {
    /// Encoded UPDATEs decode to the same routes, whatever the width of AS numbers on the session.
    #[test]
    fn updates_survive_the_wire(
        edit in any_canonical(), (family, prefixes) in any_family_with_prefixes(),
        four_octet_as: bool, add_path: bool, v6_hop: bool,
    ) {
        let hop: std::net::IpAddr = match (family, v6_hop) {
            (Family::Ipv4, false) => "192.0.2.1".parse().unwrap(),
            _ => "2001:db8::1".parse().unwrap(),
        };
        let format = AnnounceFormat { family, four_octet_as, add_path, max_len: 4096 };
        let mut out = Vec::new();
        let mut writer = UpdateWriter::announce(&mut out, format, edit.view(), hop.into());
        for (id, prefix) in &prefixes {
            prop_assert_eq!(writer.push(*id, *prefix), Ok(()));
        }
        writer.finish();
        let cx = UpdateContext {
            four_octet_as,
            add_path: if add_path { FamilySet::ALL } else { FamilySet::EMPTY },
            ipv4_over_ipv6: true,
            ..IBGP
        };
        let mut read = Vec::new();
        for message in split_messages(&out) {
            let update = Update::parse(&message[19..], &cx).unwrap();
            prop_assert_eq!(update.verdict(), Verdict::Accept);
            prop_assert!(update.discarded().codes().is_empty());
            let mut attrs = Vec::new();
            update.canonical_attrs(&mut attrs);
            prop_assert_eq!(attrs.as_slice(), edit.view().as_bytes());
            for reach in update.reach() {
                prop_assert_eq!(reach.next_hop, NextHop::from(hop));
                read.extend(reach.nlri.iter());
            }
        }
        let sent: Vec<_> =
            prefixes.iter().map(|(id, p)| (if add_path { *id } else { PathId(0) }, *p)).collect();
        prop_assert_eq!(read, sent);
    }

    /// The naive model: hops of the joined path are the leading hops of the short one, then the
    /// long one's (RFC 6793 §4.2.3).
    #[test]
    fn as4_path_is_merged_like_a_list_of_hops(
        path in proptest::collection::vec(any_segment(65535), 1..4),
        four in proptest::collection::vec(any_segment(u32::MAX), 1..4),
        four_first: bool,
    ) {
        let attribute = |flags: u8, code: u8, value: Vec<u8>| {
            [vec![flags, code, value.len() as u8], value].concat()
        };
        let short = attribute(0x40, 2, wire_path(&path, 2));
        let long = attribute(0xC0, 17, wire_path(&four, 4));
        let attrs: [&[u8]; 4] = if four_first {
            [&long, ORIGIN, &short, NEXT_HOP]
        } else {
            [ORIGIN, &short, NEXT_HOP, &long]
        };
        let out = canonical(&body(&[], &attrs, PREFIX), &OLD);
        let (n, m) = (hops(path.clone()).len(), hops(four.clone()).len());
        let mut model = hops(path);
        if m <= n {
            model.truncate(n - m);
            model.extend(hops(four));
        }
        let read = AttrView::new(&out).as_path();
        let segments = read.segments().map(|s: AsSegment<'_>| (s.kind, s.iter().map(|a| a.0).collect()));
        prop_assert_eq!(hops(segments), model);
        assert_canonical(&out);
    }

    /// Equal meaning, equal bytes: the order of attributes does not matter.
    #[test]
    fn the_order_of_attributes_does_not_matter(edit in any_canonical(), seed: u64) {
        let mut attrs: Vec<Vec<u8>> = edit.view().iter().map(|a| {
            let mut out = Vec::new();
            a.push(&mut out);
            out
        }).collect();
        attrs.push(NEXT_HOP.to_vec());
        attrs.sort_by_key(|a| (u64::from(a[1]) + 1).wrapping_mul(seed | 1));
        let attrs: Vec<&[u8]> = attrs.iter().map(Vec::as_slice).collect();
        let out = canonical(&body(&[], &attrs, PREFIX), &IBGP);
        prop_assert_eq!(out.as_slice(), edit.view().as_bytes());
    }

    /// Nearly valid messages: no panic, errors carry no more octets than were received, and
    /// accepted attributes are canonical and decode to themselves.
    #[test]
    fn parsing_is_total_and_its_output_canonical(
        attrs in proptest::collection::vec(any_attribute(), 0..8),
        complete: bool,
        cut in 0usize..400,
        nlri in prop_oneof![
            Just(PREFIX.to_vec()), proptest::collection::vec(any::<u8>(), 0..12), Just(vec![]),
        ],
        cx in any_context(),
    ) {
        let mut all: Vec<&[u8]> = attrs.iter().map(Vec::as_slice).collect();
        let local_pref: &[u8] = &[0x40, 5, 4, 0, 0, 0, 1];
        if complete {
            all.extend([ORIGIN, PATH, NEXT_HOP, local_pref]);
        }
        let mut message = body(&[], &all, &nlri);
        if cut < message.len() && cut % 3 == 0 {
            message.truncate(cut);
        }
        match Update::parse(&message, &cx) {
            Err(error) => {
                prop_assert!(error.data.len() <= message.len());
                prop_assert_eq!(error.code.code, 3);
            }
            Ok(update) => {
                let _ = (update.reach().count(), update.unreach().count(), update.end_of_rib());
                let mut out = Vec::new();
                update.canonical_attrs(&mut out);
                if update.verdict() == Verdict::Accept {
                    assert_canonical(&out);
                    prop_assert!(update.reach().all(|r| r.next_hop.addr().is_ipv6()
                        || r.next_hop != NextHop::V4(Ipv4Addr::UNSPECIFIED)));
                    let again = body(&[], &[&out, NEXT_HOP], PREFIX);
                    let wide = UpdateContext { four_octet_as: true, ..cx };
                    if let Ok(again) = Update::parse(&again, &wide) {
                        let mut twice = Vec::new();
                        again.canonical_attrs(&mut twice);
                        if again.verdict() == Verdict::Accept {
                            prop_assert_eq!(twice, out);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        message in proptest::collection::vec(any::<u8>(), 0..100), cx in any_context(),
    ) {
        if let Ok(update) = Update::parse(&message, &cx) {
            update.canonical_attrs(&mut Vec::new());
        }
    }
}
