//! Malformed and borderline messages with the result that the RFCs require, written from the text
//! of the RFCs. In the format of the shared set, so that both run through the same checks.

mod parts;

use serde_json::{Value, json};

use parts::*;

/// A message and the result that it must have.
struct Case {
    name: &'static str,
    /// RFC and section.
    rfc: &'static str,
    message: Vec<u8>,
    expect: Value,
    /// Overrides of [`session`].
    session: Value,
}

/// An eBGP session in Established, AS 65000 with AS 65001, four-octet AS numbers, both families.
fn session() -> Value {
    json!({
        "type": "ebgp", "as4": true, "families": ["1/1", "2/1"], "addpath": [], "extmsg": false,
        "peer_as": 65001, "local_as": 65000, "state": "established",
    })
}

/// The set as records of the shared set's format.
pub fn malformed() -> Vec<Value> {
    let cases = [header(), open(), structure(), attributes(), as_paths(), families(), others()];
    let record = |case: Case| {
        let mut session = session();
        let overrides = case.session.as_object().cloned().unwrap_or_default();
        session.as_object_mut().expect("an object").extend(overrides);
        json!({
            "name": case.name, "hex": super::hex(&case.message), "session": session,
            "expect": case.expect, "why": case.rfc, "ref": case.rfc,
        })
    };
    cases.into_iter().flatten().map(record).collect()
}

fn case(name: &'static str, rfc: &'static str, message: Vec<u8>, expect: Value) -> Case {
    Case { name, rfc, message, expect, session: Value::Null }
}

impl Case {
    fn on(mut self, session: Value) -> Self {
        self.session = session;
        self
    }

    /// On an iBGP session.
    fn ibgp(self) -> Self {
        self.on(json!({"type": "ibgp", "peer_as": 65000}))
    }

    /// On a session whose AS numbers have two octets.
    fn old_speaker(self) -> Self {
        self.on(json!({"as4": false}))
    }

    /// As the answer to our OPEN.
    fn in_opensent(self) -> Self {
        self.on(json!({"state": "opensent"}))
    }

    /// The codec accepts it; the session does not.
    fn for_the_session(mut self) -> Self {
        self.expect["layer"] = "session".into();
        self
    }
}

// Required results.

fn accept() -> Value {
    json!({"action": "accept", "announced": [ROUTE]})
}

fn ignore() -> Value {
    json!({"action": "ignore", "announced": []})
}

fn withdraw() -> Value {
    json!({"action": "treat_as_withdraw"})
}

/// The attribute is discarded, the route is accepted.
fn discard(code: u8) -> Value {
    json!({"action": "attribute_discard", "announced": [ROUTE], "discarded": [code]})
}

fn reset(code: u8, subcode: u8) -> Value {
    json!({"action": "session_reset", "notification": [code, subcode]})
}

fn reset_with(code: u8, subcode: u8, data: &[u8]) -> Value {
    json!({
        "action": "session_reset", "notification": [code, subcode],
        "notification_data": super::hex(data),
    })
}

fn header() -> Vec<Case> {
    let marker = |at: usize| {
        let mut bytes = message(4, &[]);
        bytes[at] = 0;
        bytes
    };
    let short = |len: u16, kind| message_of_length(len, kind, &[0; 10]);
    vec![
        case("marker-first-octet", "RFC 4271 §6.1", marker(0), reset_with(1, 1, &[])),
        case("marker-last-octet", "RFC 4271 §6.1", marker(15), reset_with(1, 1, &[])),
        case("length-0", "RFC 4271 §6.1", short(0, 4), reset_with(1, 2, &[0, 0])),
        case("length-18", "RFC 4271 §6.1", short(18, 2), reset_with(1, 2, &[0, 18])),
        case("length-65535", "RFC 4271 §6.1", short(0xffff, 2), reset_with(1, 2, &[0xff, 0xff])),
        case("open-of-28-octets", "RFC 4271 §6.1", short(28, 1), reset_with(1, 2, &[0, 28])),
        case("update-of-22-octets", "RFC 4271 §6.1", short(22, 2), reset_with(1, 2, &[0, 22])),
        case("notification-of-20-octets", "RFC 4271 §6.1", short(20, 3), reset(1, 2)),
        case("keepalive-of-20-octets", "RFC 4271 §6.1", message(4, &[0]), reset(1, 2)),
        case("type-0", "RFC 4271 §6.1", message(0, &[]), reset_with(1, 3, &[0])),
        case("type-6", "RFC 4271 §6.1", message(6, &[]), reset_with(1, 3, &[6])),
        case("keepalive", "RFC 4271 §4.4", message(4, &[]), json!({"action": "accept"})),
        case("extended-update-not-negotiated", "RFC 8654 §5", short(4097, 2), reset(1, 2)),
        case("extended-keepalive", "RFC 8654 §4", short(4097, 4), reset(1, 2))
            .on(json!({"extmsg": true})),
    ]
}

fn open() -> Vec<Case> {
    let id = [10, 0, 0, 1];
    let as4 = |asn: u32| capabilities(&[&[65, 4][..], &asn.to_be_bytes()].concat());
    let list = vec![
        case("version-3", "RFC 4271 §6.2", open_of(3, 65001, 90, id, &[]), reset(2, 1)),
        case("version-5", "RFC 4271 §6.2", open_of(5, 65001, 90, id, &[]), reset(2, 1)),
        case("as-0", "RFC 7607 §2", open_of(4, 0, 90, id, &[]), reset(2, 2)),
        case("as4-0", "RFC 7607 §2", open_with(&as4(0)), reset(2, 2)),
        case("as-trans-alone", "RFC 6793 §9", open_of(4, 23456, 90, id, &[]), reset(2, 2)),
        case("another-as", "RFC 4271 §6.2", open_of(4, 65002, 90, id, &[]), reset(2, 2))
            .for_the_session(),
        case("identifier-0", "RFC 4271 §6.2", open_of(4, 65001, 90, [0; 4], &[]), reset(2, 3)),
        case("hold-time-1", "RFC 4271 §6.2", open_of(4, 65001, 1, id, &[]), reset(2, 6)),
        case("hold-time-2", "RFC 4271 §6.2", open_of(4, 65001, 2, id, &[]), reset(2, 6)),
        case(
            "hold-time-0",
            "RFC 4271 §4.2",
            open_of(4, 65001, 0, id, &[]),
            json!({"action": "accept"}),
        ),
        case("parameter-overruns", "RFC 4271 §6.2", open_with(&[2, 6, 65, 4]), reset(2, 0)),
        case("parameter-of-one-octet", "RFC 4271 §6.2", open_with(&[2]), reset(2, 0)),
        case("authentication", "RFC 4271 §6.2", open_with(&[1, 1, 0]), reset(2, 4)),
        case("unknown-parameter", "RFC 4271 §6.2", open_with(&[9, 0]), reset(2, 4)),
        case(
            "unknown-capability",
            "RFC 5492 §3",
            open_with(&capabilities(&[200, 2, 1, 2])),
            json!({"action": "accept"}),
        ),
        case(
            "capability-overruns",
            "RFC 5492 §4",
            open_with(&capabilities(&[1, 4, 0, 1])),
            reset(2, 0),
        ),
        case(
            "empty-capabilities",
            "RFC 5492 §4",
            open_with(&capabilities(&[])),
            json!({"action": "accept"}),
        ),
    ];
    let in_opensent = list.into_iter().map(Case::in_opensent);
    let late = case("open-in-established", "RFC 6608 §4", open_with(&as4(65001)), reset(5, 3));
    in_opensent.chain([late.for_the_session()]).collect()
}

fn structure() -> Vec<Case> {
    let attrs = [origin(), as_path(), next_hop()].concat();
    let twice = |extra: Vec<u8>| {
        update(&[], &[origin(), as_path(), next_hop(), extra.clone(), extra], NLRI)
    };
    let last_len = |len: u8| {
        let mut attrs = [origin(), as_path(), attr(TRANSITIVE, 3, &[192, 0, 2, 1])].concat();
        let at = attrs.len() - 5;
        attrs[at] = len;
        update_of(&[], &attrs, NLRI)
    };
    vec![
        case("a-route", "RFC 4271 §4.3", update_of(&[], &attrs, NLRI), accept()),
        case(
            "a-withdrawal",
            "RFC 4271 §4.3",
            update(NLRI, &[], &[]),
            json!({"action": "accept", "withdrawn": [ROUTE]}),
        ),
        case(
            "end-of-rib",
            "RFC 4724 §2",
            update(&[], &[], &[]),
            json!({"action": "accept", "eor": "1/1"}),
        ),
        case(
            "end-of-rib-ipv6",
            "RFC 4724 §2",
            update(&[], &[mp_unreach(&[])], &[]),
            json!({"action": "accept", "eor": "2/1"}),
        ),
        case("withdrawn-length-overruns", "RFC 4271 §6.3", message(2, &[0, 9, 0, 0]), reset(3, 1)),
        case(
            "attributes-length-overruns",
            "RFC 7606 §4",
            message(2, &[0, 0, 0, 9, 1]),
            reset(3, 1),
        ),
        case("no-attributes-length", "RFC 4271 §6.3", message(2, &[0, 1, 0, 0]), reset(3, 1)),
        case(
            "prefix-of-33-bits",
            "RFC 7606 §5.3",
            update_of(&[], &attrs, &[33, 203, 0, 113, 0, 0]),
            reset(3, 10),
        ),
        case(
            "prefix-overruns",
            "RFC 7606 §5.3",
            update_of(&[], &attrs, &[24, 203, 0]),
            reset(3, 10),
        ),
        case(
            "withdrawn-prefix-of-33-bits",
            "RFC 7606 §5.3",
            update(&[33, 1, 2, 3, 4, 5], &[], &[]),
            reset(3, 10),
        ),
        case(
            "bits-beyond-the-length",
            "RFC 4271 §4.3",
            update_of(&[], &attrs, &[24, 203, 0, 113, 25, 198, 51, 100, 255]),
            json!({"action": "accept", "announced": [ROUTE, "198.51.100.128/25"]}),
        ),
        case("attribute-overruns", "RFC 7606 §4", last_len(9), withdraw()),
        case(
            "attribute-header-cut",
            "RFC 7606 §4",
            update_of(&[], &[attrs.clone(), vec![TRANSITIVE]].concat(), NLRI),
            withdraw(),
        ),
        case(
            "extended-length-cut",
            "RFC 7606 §4",
            update_of(&[], &[attrs.clone(), vec![OPTIONAL | EXTENDED, 4, 0]].concat(), NLRI),
            withdraw(),
        ),
        case(
            "extended-length-of-a-short-attribute",
            "RFC 4271 §4.3",
            with(attr(OPTIONAL | EXTENDED, 4, &[0, 0, 0, 9])),
            accept(),
        ),
        case(
            "no-origin",
            "RFC 7606 §3 (d)",
            update(&[], &[as_path(), next_hop()], NLRI),
            withdraw(),
        ),
        case(
            "no-as-path",
            "RFC 7606 §3 (d)",
            update(&[], &[origin(), next_hop()], NLRI),
            withdraw(),
        ),
        case(
            "no-next-hop",
            "RFC 7606 §3 (d)",
            update(&[], &[origin(), as_path()], NLRI),
            withdraw(),
        ),
        case(
            "no-local-pref-on-ibgp",
            "RFC 7606 §3 (d)",
            update(&[], &[origin(), path(2, &[65009]), next_hop()], NLRI),
            withdraw(),
        )
        .ibgp(),
        case("med-twice", "RFC 7606 §3 (g)", twice(attr(OPTIONAL, 4, &[0, 0, 0, 1])), discard(4)),
        case("mp-reach-twice", "RFC 7606 §3 (g)", twice(mp_reach(&GLOBAL, NLRI6)), reset(3, 1)),
        case("mp-unreach-twice", "RFC 7606 §3 (g)", twice(mp_unreach(NLRI6)), reset(3, 1)),
        case(
            "fault-without-a-route",
            "RFC 7606 §5.2, RFC 4271 §6.3",
            update(NLRI, &[attr(TRANSITIVE, 1, &[])], &[]),
            reset_with(3, 5, &attr(TRANSITIVE, 1, &[])),
        ),
        case(
            "the-same-prefix-withdrawn-and-announced",
            "RFC 4271 §4.3",
            update_of(NLRI, &attrs, NLRI),
            json!({"action": "accept", "announced": [ROUTE]}),
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let first = |flags, code, value: &[u8]| {
        update(&[], &[attr(flags, code, value), as_path(), next_hop()], NLRI)
    };
    let third =
        |flags, value: &[u8]| update(&[], &[origin(), as_path(), attr(flags, 3, value)], NLRI);
    let both = OPTIONAL | TRANSITIVE;
    let unknown = reset_with(3, 2, &attr(TRANSITIVE, 99, &[1, 2]));
    vec![
        case("origin-3", "RFC 7606 §7.1", first(TRANSITIVE, 1, &[3]), withdraw()),
        case("origin-empty", "RFC 7606 §7.1", first(TRANSITIVE, 1, &[]), withdraw()),
        case("origin-of-two-octets", "RFC 7606 §7.1", first(TRANSITIVE, 1, &[0, 0]), withdraw()),
        case("origin-optional", "RFC 7606 §3 (c)", first(both, 1, &[0]), withdraw()),
        case(
            "next-hop-of-three-octets",
            "RFC 7606 §7.3",
            third(TRANSITIVE, &[192, 0, 2]),
            withdraw(),
        ),
        case("next-hop-optional", "RFC 7606 §3 (c)", third(both, &[192, 0, 2, 1]), withdraw()),
        case("next-hop-0", "RFC 4271 §6.3", third(TRANSITIVE, &[0; 4]), withdraw()),
        case("next-hop-multicast", "RFC 4271 §6.3", third(TRANSITIVE, &[224, 0, 0, 1]), withdraw()),
        case("next-hop-broadcast", "RFC 4271 §6.3", third(TRANSITIVE, &[255; 4]), withdraw()),
        case("med-of-three-octets", "RFC 7606 §7.4", with(attr(OPTIONAL, 4, &[0; 3])), withdraw()),
        case("med-transitive", "RFC 7606 §3 (c)", with(attr(both, 4, &[0; 4])), withdraw()),
        case("local-pref-on-ebgp", "RFC 7606 §7.5", with(local_pref()), discard(5)),
        case(
            "local-pref-malformed-on-ebgp",
            "RFC 7606 §7.5",
            with(attr(TRANSITIVE, 5, &[1])),
            discard(5),
        ),
        case(
            "local-pref-of-five-octets",
            "RFC 7606 §7.5",
            update(
                &[],
                &[origin(), path(2, &[65009]), next_hop(), attr(TRANSITIVE, 5, &[0; 5])],
                NLRI,
            ),
            withdraw(),
        )
        .ibgp(),
        case(
            "atomic-aggregate-with-a-value",
            "RFC 7606 §7.6",
            with(attr(TRANSITIVE, 6, &[0])),
            discard(6),
        ),
        case(
            "aggregator-of-seven-octets",
            "RFC 7606 §7.7",
            with(attr(both, 7, &[0; 7])),
            discard(7),
        ),
        case("aggregator-of-six-octets", "RFC 7606 §7.7", with(attr(both, 7, &[1; 6])), discard(7)),
        case(
            "aggregator-as-0",
            "RFC 7607 §2",
            with(attr(both, 7, &[0, 0, 0, 0, 9, 9, 9, 9])),
            discard(7),
        ),
        case(
            "communities-of-five-octets",
            "RFC 7606 §7.8",
            with(attr(both, 8, &[1; 5])),
            withdraw(),
        ),
        case("communities-empty", "RFC 7606 §7.8", with(attr(both, 8, &[])), withdraw()),
        case(
            "communities-not-transitive",
            "RFC 7606 §3 (c)",
            with(attr(OPTIONAL, 8, &[1; 4])),
            withdraw(),
        ),
        case(
            "originator-id-on-ebgp",
            "RFC 7606 §7.9",
            with(attr(OPTIONAL, 9, &[1; 4])),
            discard(9),
        ),
        case(
            "cluster-list-on-ebgp",
            "RFC 7606 §7.10",
            with(attr(OPTIONAL, 10, &[1; 4])),
            discard(10),
        ),
        case(
            "originator-id-of-five-octets",
            "RFC 7606 §7.9",
            update(
                &[],
                &[
                    origin(),
                    path(2, &[65009]),
                    next_hop(),
                    local_pref(),
                    attr(OPTIONAL, 9, &[1; 5]),
                ],
                NLRI,
            ),
            withdraw(),
        )
        .ibgp(),
        case(
            "cluster-list-of-six-octets",
            "RFC 7606 §7.10",
            update(
                &[],
                &[
                    origin(),
                    path(2, &[65009]),
                    next_hop(),
                    local_pref(),
                    attr(OPTIONAL, 10, &[1; 6]),
                ],
                NLRI,
            ),
            withdraw(),
        )
        .ibgp(),
        case(
            "extended-communities-of-seven-octets",
            "RFC 7606 §7.14",
            with(attr(both, 16, &[0; 7])),
            withdraw(),
        ),
        case(
            "ipv6-extended-communities-of-ten-octets",
            "RFC 7606 §7.15",
            with(attr(both, 25, &[0; 10])),
            withdraw(),
        ),
        case(
            "large-communities-of-eleven-octets",
            "RFC 8092 §6",
            with(attr(both, 32, &[0; 11])),
            withdraw(),
        ),
        case(
            "only-to-customer-of-three-octets",
            "RFC 9234 §5",
            with(attr(both, 35, &[0; 3])),
            withdraw(),
        ),
        case("unknown-well-known", "RFC 4271 §6.3", with(attr(TRANSITIVE, 99, &[1, 2])), unknown),
        case("unknown-optional", "RFC 4271 §5", with(attr(OPTIONAL, 99, &[1, 2])), accept()),
        case(
            "unknown-transitive",
            "RFC 4271 §5",
            with(attr(both, 99, &[1, 2])),
            json!({"action": "accept", "announced": [ROUTE], "forward": "partial"}),
        ),
        case(
            "unknown-transitive-partial",
            "RFC 4271 §5",
            with(attr(both | PARTIAL, 99, &[1, 2])),
            json!({"action": "accept", "announced": [ROUTE], "forward": "partial"}),
        ),
        case(
            "aigp-not-configured",
            "RFC 7311 §3.4",
            with(attr(OPTIONAL, 26, &[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1])),
            discard(26),
        ),
    ]
}

fn as_paths() -> Vec<Case> {
    let raw = |value: &[u8]| with_path(attr(TRANSITIVE, 2, value));
    let old = |extra: Vec<u8>| {
        update(&[], &[origin(), old_path(&[65001, 23456]), next_hop(), extra], NLRI)
    };
    let both = OPTIONAL | TRANSITIVE;
    let as4_path = |numbers: &[u32]| {
        let mut path = path(2, numbers);
        (path[0], path[1]) = (both, 17);
        path
    };
    vec![
        case("segment-of-no-as", "RFC 7606 §7.2", raw(&[2, 0]), withdraw()),
        case("segment-overruns", "RFC 7606 §7.2", raw(&[2, 2, 0, 0, 0xfd, 0xe9]), withdraw()),
        case("segment-of-one-octet", "RFC 7606 §7.2",
            raw(&[2, 1, 0, 0, 0xfd, 0xe9, 2]), withdraw()),
        case("segment-type-5", "RFC 7606 §7.2", with_path(path(5, &[65001])), withdraw()),
        case("segment-type-0", "RFC 7606 §7.2", with_path(path(0, &[65001])), withdraw()),
        case("as-0-in-the-path", "RFC 7607 §2", with_path(path(2, &[65001, 0])), withdraw()),
        case("path-empty-on-ebgp", "RFC 7606 §7.2", raw(&[]), withdraw()),
        case("path-optional", "RFC 7606 §3 (c)", with_path(attr(both, 2, &[2, 1, 0, 0, 0xfd, 0xe9])),
            withdraw()),
        case("first-as-is-another", "RFC 4271 §6.3", with_path(path(2, &[65002, 65001])), withdraw()),
        case("confederation-segment", "RFC 5065 §5", with_path(path(3, &[65001])), withdraw()),
        case("two-octet-numbers-where-four-are-agreed", "RFC 6793 §4.1",
            with_path(old_path(&[65001, 65002])), withdraw()),
        case("as4-path-from-a-new-speaker", "RFC 6793 §6", with(as4_path(&[65001])), discard(17)),
        case("as4-path", "RFC 6793 §4.2.3", old(as4_path(&[4_200_000_001])),
            json!({"action": "accept", "announced": [ROUTE], "merged_path": [65001, 4_200_000_001_u32]}))
            .old_speaker(),
        case("as4-path-longer-than-the-path", "RFC 6793 §4.2.3",
            old(as4_path(&[65001, 4_200_000_001, 4_200_000_002])),
            json!({"action": "accept", "announced": [ROUTE], "merged_path": [65001, 23456]}))
            .old_speaker(),
        case("as4-path-malformed", "RFC 6793 §6", old(attr(both, 17, &[2, 1, 0])), discard(17))
            .old_speaker(),
        case("as4-path-as-0", "RFC 7607 §2", old(as4_path(&[0])), discard(17)).old_speaker(),
        case("as4-aggregator-of-six-octets", "RFC 6793 §6", old(attr(both, 18, &[1; 6])), discard(18))
            .old_speaker(),
        case("aggregator-of-eight-octets-from-an-old-speaker", "RFC 7606 §7.7",
            old(attr(both, 7, &[1; 8])), discard(7)).old_speaker(),
    ]
}

fn families() -> Vec<Case> {
    let v6 = |mp: Vec<u8>| update(&[], &[origin(), as_path(), mp], &[]);
    let hop = |next_hop: &[u8]| v6(mp_reach(next_hop, NLRI6));
    let taken = json!({"action": "accept", "announced": [ROUTE6]});
    let loopback = {
        let mut a = [0; 16];
        a[15] = 1;
        a
    };
    vec![
        case("a-route-of-ipv6", "RFC 2545 §3", hop(&GLOBAL), taken.clone()),
        case(
            "link-local-beside-global",
            "RFC 2545 §3",
            hop(&[GLOBAL, LINK_LOCAL].concat()),
            taken.clone(),
        ),
        case("mp-next-hop-of-four-octets", "RFC 7606 §7.11", hop(&[192, 0, 2, 1]), reset(3, 9)),
        case("mp-next-hop-of-24-octets", "RFC 7606 §7.11", hop(&[0; 24]), reset(3, 9)),
        case("mp-next-hop-empty", "RFC 7606 §7.11", hop(&[]), reset(3, 9)),
        case("mp-next-hop-unspecified", "RFC 4271 §6.3", hop(&[0; 16]), withdraw()),
        case("mp-next-hop-loopback", "RFC 4271 §6.3", hop(&loopback), withdraw()),
        case("mp-next-hop-multicast", "RFC 4271 §6.3", hop(&[0xff; 16]), withdraw()),
        case(
            "mp-next-hop-overruns",
            "RFC 7606 §5.3",
            v6(attr(OPTIONAL, 14, &[0, 2, 1, 16, 1])),
            reset(3, 9),
        ),
        case(
            "mp-reach-of-four-octets",
            "RFC 7606 §5.3",
            v6(attr(OPTIONAL, 14, &[0, 2, 1, 0])),
            reset(3, 9),
        ),
        case(
            "mp-prefix-of-129-bits",
            "RFC 7606 §5.3",
            v6(mp_reach(&GLOBAL, &[&[129][..], &[0; 17]].concat())),
            reset(3, 9),
        ),
        case(
            "mp-prefix-overruns",
            "RFC 7606 §5.3",
            v6(mp_reach(&GLOBAL, &[48, 0x20, 1])),
            reset(3, 9),
        ),
        case(
            "mp-reach-transitive",
            "RFC 7606 §5.3",
            v6(mp_reach_of(OPTIONAL | TRANSITIVE, [0, 2], 1, &GLOBAL, NLRI6)),
            reset(3, 9),
        ),
        case(
            "mp-unreach-of-two-octets",
            "RFC 7606 §5.3",
            update(&[], &[attr(OPTIONAL, 15, &[0, 2])], &[]),
            reset(3, 9),
        ),
        case(
            "mp-unreach-prefix-of-129-bits",
            "RFC 7606 §5.3",
            update(&[], &[mp_unreach(&[&[129][..], &[0; 17]].concat())], &[]),
            reset(3, 9),
        ),
        case(
            "mp-reach-without-origin",
            "RFC 7606 §3 (d)",
            update(&[], &[as_path(), mp_reach(&GLOBAL, NLRI6)], &[]),
            withdraw(),
        ),
        case(
            "next-hop-malformed-beside-mp-reach",
            "RFC 4760 §3",
            update(
                &[],
                &[origin(), as_path(), attr(TRANSITIVE, 3, &[1]), mp_reach(&GLOBAL, NLRI6)],
                &[],
            ),
            taken.clone(),
        ),
        case(
            "ipv4-with-an-ipv6-next-hop-not-negotiated",
            "RFC 8950 §4",
            v6(mp_reach_of(OPTIONAL, [0, 1], 1, &GLOBAL, NLRI)),
            reset(3, 9),
        ),
        case(
            "ipv4-with-an-ipv6-next-hop",
            "RFC 8950 §3",
            v6(mp_reach_of(OPTIONAL, [0, 1], 1, &GLOBAL, NLRI)),
            accept(),
        )
        .on(json!({"extnh": ["1/1/2"]})),
        case(
            "a-family-that-nobody-negotiated",
            "RFC 4760 §8",
            v6(mp_reach_of(OPTIONAL, [0, 25], 70, &GLOBAL, &[2, 1, 9])),
            ignore(),
        ),
        case("ipv6-not-negotiated", "RFC 4760 §8", hop(&GLOBAL), ignore())
            .on(json!({"families": ["1/1"]})),
        case("path-id-cut", "RFC 7911 §3", with(attr(OPTIONAL, 4, &[0; 4])), reset(3, 10))
            .on(json!({"addpath": ["1/1"]})),
    ]
}

fn others() -> Vec<Case> {
    let refresh = |body: &[u8]| message(5, body);
    vec![
        case(
            "notification-unknown-code",
            "RFC 4271 §6.4",
            message(3, &[99, 99]),
            json!({"action": "accept"}),
        ),
        case(
            "shutdown-text-not-utf8",
            "RFC 9003 §2",
            message(3, &[6, 2, 2, 0xff, 0xfe]),
            json!({"action": "accept"}),
        ),
        case(
            "shutdown-text-overruns",
            "RFC 9003 §2",
            message(3, &[6, 2, 200, b'x']),
            json!({"action": "accept"}),
        ),
        case("refresh", "RFC 2918 §3", refresh(&[0, 1, 0, 1]), json!({"action": "accept"})),
        case(
            "refresh-of-an-unknown-family",
            "RFC 2918 §4",
            refresh(&[0, 99, 0, 1]),
            json!({"action": "ignore"}),
        )
        .for_the_session(),
        case(
            "refresh-of-unknown-kind",
            "RFC 7313 §5",
            refresh(&[0, 1, 9, 1]),
            json!({"action": "ignore"}),
        )
        .on(json!({"err": true})),
        case(
            "refresh-of-five-octets",
            "RFC 7313 §5",
            refresh(&[0, 1, 1, 1, 0]),
            reset_with(7, 1, &message(5, &[0, 1, 1, 1, 0])),
        )
        .on(json!({"err": true})),
        case("update-in-opensent", "RFC 6608 §4", update(&[], &[], &[]), reset(5, 1))
            .in_opensent()
            .for_the_session(),
        case("keepalive-in-opensent", "RFC 6608 §4", message(4, &[]), reset(5, 1))
            .in_opensent()
            .for_the_session(),
    ]
}
