//! The body of an UPDATE with arbitrary session options: decoding never panics, and accepted routes
//! survive encoding and decoding.
#![no_main]

use bgp_proto::types::{Asn, Family, FamilySet, PathId, PeerType, Prefix};
use bgp_proto::wire::{
    AnnounceFormat, AttrDef, AttrView, HEADER_LEN, MAX_LEN, Reach, RouteBatch, Update,
    UpdateContext, UpdateWriter, Verdict,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((options, body)) = data.split_first_chunk::<2>() else { return };
    let context = context(u16::from_be_bytes(*options));
    let update = match Update::parse(body, &context) {
        Ok(update) => update,
        Err(notification) => {
            assert!(notification.data.len() <= body.len(), "more data than was received");
            return;
        }
    };
    let mut prefixes = 0;
    for unreach in update.unreach() {
        assert!(context.families.contains(unreach.family()));
        prefixes += unreach.iter().count();
    }
    for reach in update.reach() {
        assert!(context.families.contains(reach.nlri.family()));
        prefixes += reach.nlri.iter().count();
    }
    assert!(prefixes <= body.len());
    if let Some(family) = update.end_of_rib() {
        assert_eq!(prefixes, 0);
        assert!(context.families.contains(family));
    }
    if update.verdict() == Verdict::Accept {
        let mut attrs = Vec::new();
        update.canonical_attrs(&mut attrs);
        check_view(AttrView::new(&attrs));
        let mut batch = RouteBatch::default();
        for reach in update.reach() {
            batch.push(reach.nlri, Some((&attrs, reach.next_hop)));
            check_round_trip(&context, &attrs, &reach);
        }
    }
});

fn context(options: u16) -> UpdateContext {
    let bit = |n: u16| options & (1 << n) != 0;
    let set = |v4: bool, v6: bool| {
        let pairs = [(Family::Ipv4, v4), (Family::Ipv6, v6)];
        pairs.into_iter().filter(|(_, on)| *on).map(|(family, _)| family).collect::<FamilySet>()
    };
    UpdateContext {
        four_octet_as: bit(0),
        families: set(!bit(1), !bit(2)),
        add_path: set(bit(3), bit(4)),
        ipv4_over_ipv6: bit(5),
        peer_type: if bit(6) { PeerType::Internal } else { PeerType::External },
        peer_asn: Asn(65001),
        enforce_first_as: bit(7),
        reject_as_sets: bit(8),
        interface: bit(9).then_some(std::num::NonZeroU32::MIN),
    }
}

/// Calls every accessor of the canonical attributes, which are in ascending order of their type
/// codes.
fn check_view(view: AttrView<'_>) {
    let codes: Vec<u8> = view.iter().map(|attr| attr.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    for attr in view.iter() {
        if let Some(def) = AttrDef::of(attr.code) {
            assert!(def.has_flags(attr.flags) && def.has_length(attr.value.len()), "{attr:?}");
        }
    }
    let path = view.as_path();
    assert!(path.length() as usize <= path.asns().count());
    let _ = (view.origin(), view.med(), view.local_pref(), view.aggregator());
    let _ = (view.originator_id(), view.only_to_customer(), view.atomic_aggregate());
    let counted = view.communities().count()
        + view.ext_communities().count()
        + view.large_communities().count()
        + view.cluster_list().count();
    assert!(counted * 4 <= view.as_bytes().len());
}

fn check_round_trip(context: &UpdateContext, attrs: &[u8], reach: &Reach<'_>) {
    let family = reach.nlri.family();
    let add_path = context.add_path.contains(family);
    let format = AnnounceFormat { family, four_octet_as: true, add_path, max_len: MAX_LEN };
    let mut out = Vec::new();
    let mut writer = UpdateWriter::announce(&mut out, format, AttrView::new(attrs), reach.next_hop);
    let mut sent: Vec<(PathId, Prefix)> = Vec::new();
    for (id, prefix) in reach.nlri.iter() {
        if writer.push(id, prefix).is_ok() {
            sent.push((id, prefix));
        }
    }
    writer.finish();
    let reading = UpdateContext { four_octet_as: true, ..*context };
    let mut received = Vec::new();
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
        assert!(len <= MAX_LEN);
        let update =
            Update::parse(&rest[HEADER_LEN..len], &reading).expect("encoded by the writer");
        assert_eq!(update.verdict(), Verdict::Accept);
        let mut again = Vec::new();
        update.canonical_attrs(&mut again);
        assert_eq!(again, attrs);
        for reach_again in update.reach() {
            assert_eq!(reach_again.next_hop, reach.next_hop);
            received.extend(reach_again.nlri.iter());
        }
        rest = &rest[len..];
    }
    assert_eq!(received, sent);
}
