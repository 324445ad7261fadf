use super::*;
use crate::types::{AfiSafi, Family, FamilySet};
use crate::wire::{AddPathMode, GracefulRestart, GracefulRestartFamily, LongLivedFamily};
use proptest::prelude::*;

/// A body with AS 65001, hold time 90, identifier 10.0.0.1 and these parameters.
fn body(parameters_len: u8, parameters: &[u8]) -> Vec<u8> {
    let mut out = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, parameters_len];
    out.extend(parameters);
    out
}

/// A body with one parameter that holds these capabilities.
fn with_capabilities(tlvs: &[u8]) -> Vec<u8> {
    let len = tlvs.len() as u8;
    body(len + 2, &[&[2, len], tlvs].concat())
}

fn capabilities(tlvs: &[u8]) -> Capabilities {
    Open::decode(&with_capabilities(tlvs)).unwrap().capabilities
}

fn error(body: &[u8]) -> Code {
    Open::decode(body).unwrap_err().code
}

#[test]
fn fixed_fields_are_checked_in_the_order_of_the_rfc() {
    let mut all_wrong = vec![3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 77];
    assert_eq!(
        Open::decode(&all_wrong),
        Err(Notification::with_data(Code::UNSUPPORTED_VERSION, [0, 4]))
    );
    all_wrong[0] = 4;
    assert_eq!(error(&all_wrong), Code::OPEN_MESSAGE_ERROR);
    all_wrong.splice(9.., [0]);
    assert_eq!(error(&all_wrong), Code::BAD_PEER_AS);
    all_wrong[2] = 1;
    assert_eq!(error(&all_wrong), Code::BAD_BGP_IDENTIFIER);
    all_wrong[8] = 1;
    assert_eq!(error(&all_wrong), Code::UNACCEPTABLE_HOLD_TIME);
    all_wrong[4] = 3;
    assert_eq!(Open::decode(&all_wrong).unwrap().asn, Asn(1));
}

#[test]
fn the_capability_carries_the_real_as() {
    let trans = |tlvs: &[u8]| {
        let mut b = with_capabilities(tlvs);
        b[1..3].copy_from_slice(&[0x5b, 0xa0]);
        Open::decode(&b).map(|o| o.asn)
    };
    assert_eq!(trans(&[65, 4, 0xfa, 0x56, 0xea, 0]), Ok(Asn(4_200_000_000)));
    assert_eq!(trans(&[]), Err(Notification::new(Code::BAD_PEER_AS)));
    assert_eq!(trans(&[65, 4, 0, 0, 0x5b, 0xa0]), Err(Notification::new(Code::BAD_PEER_AS)));
    assert_eq!(trans(&[65, 4, 0, 0, 0, 0]), Err(Notification::new(Code::BAD_PEER_AS)));
}

#[test]
fn parameters_parse_in_both_formats() {
    let as4 = [65, 4, 0, 0, 0xfd, 0xe9];
    let extended = [&[255, 0, 9, 2, 0, 6][..], &as4].concat();
    for len in [1, 13, 255] {
        assert_eq!(Open::decode(&body(len, &extended)).unwrap().asn, Asn(65001));
    }
    assert_eq!(Open::decode(&body(255, &[255, 0, 0])).unwrap().asn, Asn(65001));
    // The length says that there are none, but there are.
    assert_eq!(error(&body(0, &extended)), Code::OPEN_MESSAGE_ERROR);
    assert_eq!(error(&body(255, &[255, 0, 1])), Code::OPEN_MESSAGE_ERROR);
    assert_eq!(error(&body(255, &[255, 0, 10, 2, 0, 6, 65])), Code::OPEN_MESSAGE_ERROR);
    // 255 is a parameter like any other when it is not the first.
    let second = [2, 0, 255, 0];
    assert_eq!(error(&body(4, &second)), Code::UNSUPPORTED_OPTIONAL_PARAMETER);
    assert_eq!(error(&body(2, &[1, 0])), Code::UNSUPPORTED_OPTIONAL_PARAMETER);
    assert_eq!(error(&body(3, &[2, 2, 65])), Code::OPEN_MESSAGE_ERROR);
    assert_eq!(error(&body(9, &[2, 6, 65, 4, 0, 0])), Code::OPEN_MESSAGE_ERROR);
}

#[test]
fn wrong_lengths_matter_only_where_the_session_would_differ() {
    for bad in [&[1, 3, 0, 1, 0][..], &[65, 3, 0, 0, 1], &[69, 3, 0, 1, 1], &[2, 9]] {
        assert_eq!(error(&with_capabilities(bad)), Code::OPEN_MESSAGE_ERROR, "{bad:?}");
    }
    let odd = [64, 1, 0, 71, 2, 0, 0, 5, 1, 0, 9, 0, 2, 1, 7, 6, 1, 0];
    let caps = capabilities(&odd);
    let expected = vec![
        (64, vec![0]),
        (71, vec![0, 0]),
        (5, vec![0]),
        (9, vec![]),
        (2, vec![7]),
        (6, vec![0]),
    ];
    assert_eq!(caps, Capabilities { unknown: expected, ..Capabilities::default() });
}

#[test]
fn duplicates() {
    let mp = [1, 4, 0, 1, 0, 1];
    let caps = capabilities(&[&mp[..], &mp, &[2, 0, 128, 0], &[200, 1, 5], &[200, 1, 5]].concat());
    assert_eq!(caps.multiprotocol.len(), 1);
    assert!(caps.route_refresh);
    assert_eq!(caps.unknown, [(200, vec![5])]);
    let caps = capabilities(&[64, 2, 0, 9, 64, 2, 0x40, 120, 69, 4, 0, 1, 1, 1, 69, 4, 0, 1, 1, 2]);
    assert_eq!(caps.graceful_restart.unwrap().restart_time_secs, 120, "the last instance counts");
    assert_eq!(caps.add_path, [(Family::Ipv4.afi_safi(), AddPathMode::Send)]);
    assert_eq!(error(&with_capabilities(&[9, 1, 3, 9, 1, 4])), Code::ROLE_MISMATCH);
    assert_eq!(capabilities(&[9, 1, 3, 9, 1, 3]).role, Some(3));
}

#[test]
fn what_capabilities_mean() {
    assert_eq!(Capabilities::default().families(), FamilySet::only(Family::Ipv4));
    // Any family named means that IPv4 has to be named too.
    let caps = capabilities(&[1, 4, 0, 2, 0, 1, 1, 4, 0, 1, 0, 128]);
    assert_eq!(caps.families(), FamilySet::only(Family::Ipv6));
    assert!(capabilities(&[5, 6, 0, 1, 0, 1, 0, 2]).ipv4_over_ipv6());
    assert!(!capabilities(&[5, 12, 0, 2, 0, 1, 0, 1, 0, 1, 1, 1, 0, 2]).ipv4_over_ipv6());
    let caps = capabilities(&[69, 12, 0, 1, 1, 3, 0, 2, 1, 7, 0, 2, 1, 0]);
    assert_eq!(caps.add_path_mode(Family::Ipv4), AddPathMode::Both);
    assert_eq!(caps.add_path_mode(Family::Ipv6), AddPathMode::None);
}

#[test]
fn names_for_display() {
    let caps = capabilities(&[
        1, 4, 0, 1, 0, 1, 1, 4, 0, 1, 0, 128, 2, 0, 65, 4, 0, 0, 0xfd, 0xe9, 69, 4, 0, 1, 1, 3, 73,
        2, 0, 0, 64, 2, 0x40, 120, 9, 1, 0,
    ]);
    assert_eq!(
        caps.names(),
        [
            "ipv4",
            "1/128",
            "route-refresh",
            "four-octet-as",
            "graceful-restart",
            "graceful-restart:notification",
            "add-path:ipv4:both",
            "role:provider",
            "fqdn"
        ]
    );
}

#[test]
fn the_extended_format_is_used_only_when_it_must_be() {
    let open = |n: usize| {
        let unknown = vec![(200, vec![0; n])];
        let capabilities = Capabilities { unknown, ..Capabilities::default() };
        Open { asn: Asn(70_000), hold_time_secs: 0, router_id: RouterId(1), capabilities }
    };
    for (n, extended) in [(251, false), (252, true)] {
        let mut out = Vec::new();
        open(n).encode(&mut out);
        assert_eq!(out[20..22], [0x5b, 0xa0], "AS_TRANS in the two-octet field");
        assert_eq!(out[29] == 255, extended);
        assert_eq!(usize::from(out[28]), 255);
    }
    let mut out = Vec::new();
    Open { capabilities: Capabilities::default(), ..open(0) }.encode(&mut out);
    assert_eq!(out.len(), 29);
}

fn any_pair() -> impl Strategy<Value = AfiSafi> {
    (0u16..4, 0u8..4).prop_map(|(afi, safi)| AfiSafi { afi, safi })
}

fn unique<T: Clone + std::fmt::Debug + PartialEq>(
    one: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..6).prop_map(|list| {
        let mut seen = Vec::new();
        list.into_iter().for_each(|x| {
            if !seen.contains(&x) {
                seen.push(x)
            }
        });
        seen
    })
}

fn any_capabilities() -> impl Strategy<Value = Capabilities> {
    let gr_family = (any_pair(), any::<bool>())
        .prop_map(|(family, forwarding)| GracefulRestartFamily { family, forwarding });
    let gr =
        (any::<bool>(), any::<bool>(), 0u16..4096, unique(gr_family)).prop_map(|(r, n, t, f)| {
            GracefulRestart { restarting: r, notification: n, restart_time_secs: t, families: f }
        });
    let long_lived = (any_pair(), any::<bool>(), 0u32..1 << 24)
        .prop_map(|(family, f, t)| LongLivedFamily { family, forwarding: f, stale_time_secs: t });
    let modes =
        prop_oneof![Just(AddPathMode::Receive), Just(AddPathMode::Send), Just(AddPathMode::Both)];
    let unknown = (100u8..128, proptest::collection::vec(any::<u8>(), 0..100));
    (
        any::<[bool; 4]>(),
        unique(any_pair()),
        unique((any_pair(), 1u16..3)),
        proptest::option::of(any::<u8>()),
        proptest::option::of(gr),
        proptest::option::of(1u32..23000),
        proptest::collection::btree_map(any_pair(), modes, 0..4),
        proptest::option::of(unique(long_lived)),
        unique(unknown),
    )
        .prop_map(
            |(flags, multiprotocol, extended_next_hop, role, gr, asn, add_path, ll, unknown)| {
                Capabilities {
                    multiprotocol,
                    route_refresh: flags[0],
                    extended_next_hop,
                    extended_message: flags[1],
                    role,
                    graceful_restart: gr,
                    four_octet_as: asn.map(Asn),
                    add_path: add_path.into_iter().collect(),
                    enhanced_refresh: flags[2],
                    long_lived: ll,
                    bfd_strict: flags[3],
                    unknown,
                }
            },
        )
}

proptest! {
    #[test]
    fn opens_survive_the_wire(
        capabilities in any_capabilities(), id in 1u32.., hold in prop_oneof![Just(0u16), 3u16..],
    ) {
        let asn = capabilities.four_octet_as.unwrap_or(Asn(64512));
        let open = Open { asn, hold_time_secs: hold, router_id: RouterId(id), capabilities };
        let mut out = Vec::new();
        open.encode(&mut out);
        prop_assert_eq!(out.len(), usize::from(u16::from_be_bytes([out[16], out[17]])));
        let _ = open.capabilities.names();
        prop_assert_eq!(Open::decode(&out[19..]), Ok(open));
    }

    #[test]
    fn decoding_is_total(
        mut noise in proptest::collection::vec(any::<u8>(), 0..80), valid_head: bool,
    ) {
        if valid_head && noise.len() > 11 {
            noise[..9].copy_from_slice(&body(0, &[])[..9]);
            noise[9] = (noise.len() - 10) as u8;
            noise[10] = if noise[10] & 1 == 0 { 2 } else { 255 };
        }
        let _ = Open::decode(&noise);
    }
}
