//! The codec against the conformance sets (see `cases/mod.rs`): this crate's own and the shared
//! one.
//!
//! Every record is run. A result that differs from the set's is a failure unless one of the lists
//! below names it with the reason; an entry of a list that no record needs is a failure, too.

mod cases;

use std::collections::BTreeSet;

use bgp_proto::types::{Family, NextHop};
use bgp_proto::wire::{
    AttrView, Code, EXTENDED_MAX_LEN, MAX_LEN, MessageType, Notification, Open, RefreshKind,
    RouteRefresh, SegmentKind, Update, UpdateContext, Verdict, split_frame,
};
use cases::{
    ALTERNATIVES, SESSION_CASES, afi_safi, bytes, conformance_dir, context, hex,
    is_for_the_session, malformed, records,
};
use serde_json::{Value, json};

/// Crashers whose expected verdict refers to a whole file, where a session reads a stream.
const STREAM: [&str; 2] =
    // Truncated captures: the Length field exceeds what is there. On a connection such a message is
    // incomplete, and the hold timer ends the wait.
    ["bgp-as-path-oobr.pcap#335", "bgp-as-path-oobr.pcap#336"];

/// Messages of the public suites where margay differs from the set's checker: its action, and the
/// reason.
const DIFFERENCES: [(&str, &str, &str); 14] = {
    const NO_TRANS: &str = "AS_TRANS identifies no AS: 2/2 without capability 65 (RFC 6793 §9)";
    const CONFED: &str =
        "not in a confederation, so a confederation segment is malformed (RFC 5065 §5)";
    const MERGED: &str = "the checker shows AS_PATH before RFC 6793 §4.2.3 merges AS4_PATH into it";
    const MULTICAST: &str = "1/2 is a family that margay does not carry";
    const UNREAD: &str = "attributes are missing, but all prefixes are of a family that is not negotiated: \
        there is nothing to withdraw";
    [
        ("multiple_addpath_single_cap/buf@1098", "session_reset", NO_TRANS),
        ("multiple_addpath_multi_cap/buf@1124", "session_reset", NO_TRANS),
        ("local_pref_multi_exit_disc/buf@1843", "treat_as_withdraw", CONFED),
        ("as4path/buf@1900", "accept", MERGED),
        ("mp_ipv4_multicast/buf@2160", "ignore", MULTICAST),
        ("evpn_esi_arbitrary.pcap#1", "ignore", UNREAD),
        ("evpn_esi_as_based.pcap#1", "ignore", UNREAD),
        ("evpn_esi_l2_bridge.pcap#1", "ignore", UNREAD),
        ("evpn_esi_lacp.pcap#1", "ignore", UNREAD),
        ("evpn_esi_mac_base.pcap#1", "ignore", UNREAD),
        ("evpn_esi_router_id.pcap#1", "ignore", UNREAD),
        ("evpn_nlri_eth_seg.pcap#1", "ignore", UNREAD),
        ("evpn_nlri_inc_multi_eth_tag.pcap#1", "ignore", UNREAD),
        ("evpn_nlri_mac_ip_ad.pcap#1", "ignore", UNREAD),
    ]
};

/// The effect of one message.
#[derive(Debug, PartialEq)]
struct Outcome {
    action: &'static str,
    error: Option<Notification>,
    announced: Vec<String>,
    withdrawn: Vec<String>,
    discarded: Vec<u8>,
    eor: Option<Family>,
    /// Received attributes: type and length.
    attrs: Vec<(u64, u64)>,
    canonical: Vec<u8>,
    next_hops: Vec<NextHop>,
}

impl Outcome {
    fn new(action: &'static str) -> Self {
        Outcome {
            action,
            error: None,
            announced: Vec::new(),
            withdrawn: Vec::new(),
            discarded: Vec::new(),
            eor: None,
            attrs: Vec::new(),
            canonical: Vec::new(),
            next_hops: Vec::new(),
        }
    }

    fn reset(error: Notification) -> Self {
        Outcome { error: Some(error), ..Outcome::new("session_reset") }
    }

    fn as_path(&self) -> Value {
        let path = AttrView::new(&self.canonical).as_path();
        path.segments()
            .map(|s| {
                let kind = match s.kind {
                    SegmentKind::Set => "set",
                    SegmentKind::Sequence => "seq",
                    SegmentKind::ConfedSequence => "confed-seq",
                    SegmentKind::ConfedSet => "confed-set",
                };
                let mut out = vec![json!(kind)];
                out.extend(s.iter().map(|a| json!(a.0)));
                Value::from(out)
            })
            .collect()
    }
}

/// Runs the decoders as a session does, without a state machine.
fn run(message: &[u8], cx: &UpdateContext, max_len: usize, enhanced_refresh: bool) -> Outcome {
    let frame = match split_frame(message, max_len) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Outcome::new("incomplete"),
        Err(error) => return Outcome::reset(error),
    };
    match frame.kind {
        MessageType::Open => match Open::decode(frame.body()) {
            Ok(_) => Outcome::new("accept"),
            Err(error) => Outcome::reset(error),
        },
        MessageType::Update => match Update::parse(frame.body(), cx) {
            Ok(update) => outcome(&update),
            Err(error) => Outcome::reset(error),
        },
        MessageType::Notification => {
            let _ = Notification::decode(frame.body()).text();
            Outcome::new("accept")
        }
        MessageType::Keepalive => Outcome::new("accept"),
        MessageType::RouteRefresh => match RouteRefresh::decode(frame.bytes, enhanced_refresh) {
            Ok(RouteRefresh { kind: RefreshKind::Request, .. }) => Outcome::new("accept"),
            Ok(RouteRefresh { kind: RefreshKind::Begin | RefreshKind::End, .. })
                if enhanced_refresh =>
            {
                Outcome::new("accept")
            }
            Ok(_) => Outcome::new("ignore"),
            Err(error) => Outcome::reset(error),
        },
    }
}

fn outcome(update: &Update<'_>) -> Outcome {
    let mut out = Outcome::new(match update.verdict() {
        Verdict::TreatAsWithdraw(_) => "treat_as_withdraw",
        Verdict::Accept if !update.discarded().codes().is_empty() => "attribute_discard",
        Verdict::Accept if update.unnegotiated().is_some() => "ignore",
        Verdict::Accept => "accept",
    });
    let name = |path_ids: bool, (id, prefix): (bgp_proto::types::PathId, _)| {
        if path_ids { format!("{prefix} path-id {}", id.0) } else { format!("{prefix}") }
    };
    let _: fn(bool, (_, bgp_proto::types::Prefix)) -> String = name;
    for reach in update.reach() {
        out.announced.extend(reach.nlri.iter().map(|n| name(reach.nlri.has_path_ids(), n)));
        out.next_hops.push(reach.next_hop);
    }
    for nlri in update.unreach() {
        out.withdrawn.extend(nlri.iter().map(|n| name(nlri.has_path_ids(), n)));
    }
    out.discarded = update.discarded().codes().to_vec();
    out.eor = update.end_of_rib();
    out.attrs = update.received_attrs().map(|a| (a.code.into(), a.value.len() as u64)).collect();
    if update.verdict() == Verdict::Accept {
        update.canonical_attrs(&mut out.canonical);
    }
    out
}

fn strings(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|s| s.as_str().expect("a string").to_owned()).collect()
}

fn code(pair: &Value) -> Code {
    let part = |i: usize| pair[i].as_u64().and_then(|n| u8::try_from(n).ok()).expect("a code");
    Code::new(part(0), part(1))
}

/// Compares the outcome of one malformed message with the expected one; the error names the
/// difference.
fn compare_case(case: &Value, out: &Outcome, message: &[u8]) -> Result<(), String> {
    let expect = &case["expect"];
    let same = |what: &str, ours: String, theirs: String| {
        if ours == theirs { Ok(()) } else { Err(format!("{what}: ours {ours}, expected {theirs}")) }
    };
    let action = match expect["action"].as_str().expect("an action") {
        "afi_safi_disable_or_reset" => "session_reset",
        action => action,
    };
    same("action", out.action.into(), action.into())?;
    if let Some(error) = &out.error {
        same("code", format!("{:?}", error.code), format!("{:?}", code(&expect["notification"])))?;
        if let Some(data) = expect["notification_data"].as_str() {
            same("data", hex(&error.data), data.into())?;
        }
        let echoed = message.windows(error.data.len().max(1)).any(|w| w == error.data);
        if !error.data.is_empty() && error.data != [0, 4] && !echoed {
            return Err(format!("data {} was not received", hex(&error.data)));
        }
    }
    for (field, ours) in [("announced", &out.announced), ("withdrawn", &out.withdrawn)] {
        if expect[field].is_array() {
            let ours: BTreeSet<String> = ours.iter().cloned().collect();
            same(field, format!("{ours:?}"), format!("{:?}", strings(&expect[field])))?;
        }
    }
    if expect["discarded"].is_array() {
        same("discarded", json!(out.discarded).to_string(), expect["discarded"].to_string())?;
    }
    if let Some(family) = expect["eor"].as_str() {
        let family = Family::try_from(afi_safi(family)).expect("a family of ours");
        same("End-of-RIB", format!("{:?}", out.eor), format!("{:?}", Some(family)))?;
    }
    let view = AttrView::new(&out.canonical);
    if expect["merged_path"].is_array() {
        let path: Vec<u32> = view.as_path().asns().map(|a| a.0).collect();
        same("merged path", json!(path).to_string(), expect["merged_path"].to_string())?;
    }
    if expect["forward"].as_str() == Some("partial") {
        // Each of these messages has exactly one attribute besides the mandatory ones.
        let carried = view.iter().find(|a| a.code > 3).ok_or("not carried")?;
        same("flags", format!("{:02x}", carried.flags & !0x10), "e0".into())?;
    }
    if expect["note"].as_str().is_some_and(|n| n.contains("must not contain 65044 65057")) {
        let kept = view.as_path().asns().any(|a| matches!(a.0, 65044 | 65057));
        same("confederation segments kept", kept.to_string(), "false".into())?;
    }
    Ok(())
}

#[test]
fn malformed_messages_have_the_result_that_the_rfcs_demand() {
    let (compared, rest) = compare_all(&malformed());
    assert!(compared >= 120 && rest.session.len() >= 5, "{compared}, {rest:?}");
}

#[test]
#[ignore = "needs MARGAY_SHARED"]
fn shared_data_malformed_messages_have_the_result_that_the_rfcs_demand() {
    let dir = conformance_dir();
    let all = records(&dir.join("malformed/cases.jsonl"));
    let (compared, Rest { session, alternatives }) = compare_all(&all);
    assert_eq!(session.len(), SESSION_CASES.len());
    assert_eq!(alternatives.len(), ALTERNATIVES.len());
    let link_local = &alternatives[0];
    assert_eq!(link_local.action, "accept");
    assert_eq!(link_local.next_hops, [NextHop::V6("fe80::1".parse().unwrap())]);
    assert_eq!(compared + session.len() + alternatives.len(), all.len());
}

/// The cases that were not compared.
#[derive(Debug, Default)]
struct Rest {
    /// Cases whose error is for the session to detect, not for the codec.
    session: Vec<String>,
    /// Outcomes of [`ALTERNATIVES`].
    alternatives: Vec<Outcome>,
}

/// The number of cases compared, all of which agree, and the rest.
fn compare_all(all: &[Value]) -> (usize, Rest) {
    let (mut compared, mut rest, mut failures) = (0, Rest::default(), Vec::new());
    for case in all {
        let name = case["name"].as_str().expect("a name");
        let message = bytes(case);
        let cx = context(&case["session"]);
        let extended = case["session"]["extmsg"].as_bool().expect("extmsg");
        let max_len = if extended { EXTENDED_MAX_LEN } else { MAX_LEN };
        let out = run(&message, &cx, max_len, case["session"]["err"] == true);
        if is_for_the_session(case) {
            if out.action != "accept" {
                failures.push(format!("{name}: for the session to detect, but {out:?}"));
            }
            rest.session.push(name.to_owned());
        } else if let Some((_, alternative)) = ALTERNATIVES.iter().find(|(n, _)| *n == name) {
            assert!(
                case["expect"]["alt"].as_array().expect("a list").contains(&json!(alternative))
            );
            rest.alternatives.push(out);
        } else {
            compared += 1;
            if let Err(why) = compare_case(case, &out, &message) {
                failures.push(format!("{name}: {why}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} cases differ:\n{}", failures.len(), failures.join("\n"));
    (compared, rest)
}

#[test]
#[ignore = "needs MARGAY_SHARED"]
fn shared_data_bytes_that_crashed_other_decoders_get_their_verdict() {
    let dir = conformance_dir();
    let all = records(&dir.join("malformed/crashers.jsonl"));
    let mut failures = Vec::new();
    let mut incomplete = Vec::new();
    for case in &all {
        let (name, expect) = (case["name"].as_str().expect("a name"), &case["expect"]);
        let out = run(&bytes(case), &context(&case["session"]), MAX_LEN, false);
        let verdict = expect["checker_rfc_verdict"].as_str().expect("a verdict");
        if STREAM.contains(&name) && out.action == "incomplete" {
            incomplete.push(name);
            continue;
        }
        let ours = out.error.as_ref().map(|e| e.code);
        let theirs = expect.get("checker_notification").map(code);
        if out.action != verdict || ours != theirs {
            failures.push(format!("{name}: ours {} {ours:?}, expected {expect}", out.action));
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(incomplete, STREAM);
}

/// The session parameters that the `checker` of a message assumes.
fn checker_context(checker: &Value) -> UpdateContext {
    let mut session = checker["session"].clone();
    let add_path = session["addpath"] == true;
    session["families"] = json!(["1/1", "2/1"]);
    session["addpath"] = if add_path { json!(["1/1", "2/1"]) } else { json!([]) };
    session["extnh"] = json!(["1/1/2"]);
    context(&session)
}

fn compare_message(checker: &Value, out: &Outcome, message: &[u8]) -> Result<(), String> {
    let expected = match (checker["action"].as_str().expect("an action"), out.action) {
        ("afi_safi_disable_or_reset", _) => "session_reset",
        // The checker counts a message that is ignored for its family as accepted without prefixes.
        ("accept", "ignore") if checker["announced"] == json!([]) => "ignore",
        (action, _) => action,
    };
    let mut wrong = Vec::new();
    let mut same = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            wrong.push(format!("{what}: ours {ours}, expected {theirs}"));
        }
    };
    same("action", out.action.into(), expected.into());
    if let Some(error) = &out.error {
        let theirs = checker["code"].as_array().map(|_| code(&checker["code"]));
        same("code", format!("{:?}", Some(error.code)), format!("{theirs:?}"));
    } else {
        match checker["kind"].as_str().expect("a kind") {
            "update" => compare_update(checker, out, &mut same),
            "open" => compare_open(checker, message, &mut same),
            "notification" => {
                let n = Notification::decode(&message[19..]);
                let pair = json!([n.code.code, n.code.subcode, hex(&n.data)]);
                let theirs = json!([checker["code"], checker["subcode"], checker["data"]]);
                same("notification", pair.to_string(), theirs.to_string());
            }
            "route-refresh" => {
                let refresh = RouteRefresh::decode(message, false).expect("accepted above");
                let theirs = afi_safi(checker["family"].as_str().expect("a family"));
                same("family", format!("{:?}", refresh.family), format!("{theirs:?}"));
                let kind = match checker["subtype"].as_u64() {
                    Some(0) => RefreshKind::Request,
                    Some(1) => RefreshKind::Begin,
                    Some(2) => RefreshKind::End,
                    other => RefreshKind::Unknown(other.expect("a subtype") as u8),
                };
                same("subtype", format!("{:?}", refresh.kind), format!("{kind:?}"));
            }
            "keepalive" => {}
            other => panic!("unknown kind {other}"),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn compare_update(checker: &Value, out: &Outcome, same: &mut impl FnMut(&str, String, String)) {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        format!("{list:?}")
    };
    for (field, ours) in [("announced", &out.announced), ("withdrawn", &out.withdrawn)] {
        let list = checker[field].as_array().expect("a list");
        let theirs: Vec<String> =
            list.iter().map(|s| s.as_str().expect("a prefix").to_owned()).collect();
        same(field, sorted(ours), sorted(&theirs));
    }
    same("attributes", json!(out.attrs).to_string(), checker["attrs"].to_string());
    let eor = checker["eor"].as_str().and_then(|f| Family::try_from(afi_safi(f)).ok());
    same("End-of-RIB", format!("{:?}", out.eor), format!("{eor:?}"));
    if let (Some(path), "accept") = (checker.get("as_path"), out.action) {
        same("AS_PATH", out.as_path().to_string(), path.to_string());
    }
}

/// Compares the fields, then the capabilities after encoding. The checker lists them as received,
/// so both sides are compared as sets; code 128 counts as 2.
fn compare_open(checker: &Value, message: &[u8], same: &mut impl FnMut(&str, String, String)) {
    let open = Open::decode(&message[19..]).expect("accepted above");
    let ours = json!([open.asn.0, open.hold_time_secs, open.router_id.to_string()]);
    let theirs = json!([checker["as_"], checker["hold"], checker["id"]]);
    same("fields", ours.to_string(), theirs.to_string());
    let mut encoded = Vec::new();
    open.encode(&mut encoded);
    // Classic format with one Optional Parameter: none of the set's OPENs needs more.
    let mut tlvs = encoded.get(31..).unwrap_or_default();
    let mut ours = BTreeSet::new();
    while let [code, len, rest @ ..] = tlvs {
        let (value, rest) = rest.split_at(usize::from(*len));
        ours.insert((u64::from(*code), hex(value)));
        tlvs = rest;
    }
    let list = checker["caps"].as_array().expect("capabilities");
    let theirs: BTreeSet<_> = list
        .iter()
        .map(|c| (c[0].as_u64().expect("a code"), c[1].as_str().expect("a value").to_owned()))
        .map(|(code, value)| if code == 128 { (2, value) } else { (code, value) })
        .collect();
    same("capabilities", format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
#[ignore = "needs MARGAY_SHARED"]
fn shared_data_messages_of_other_implementations_decode_alike() {
    let dir = conformance_dir();
    let mut files: Vec<_> = std::fs::read_dir(dir.join("messages"))
        .expect("messages/")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    let (mut whole, mut others) = (0, 0);
    let (mut failures, mut differing) = (Vec::new(), Vec::new());
    for file in &files {
        for record in records(file) {
            let name = record["name"].as_str().expect("a name");
            let octets = bytes(&record);
            if record["kind"] != "bgp" {
                // Bodies, fragments and octets that are not BGP: there is no expected verdict, but
                // no decoder may panic.
                feed_every_decoder(&octets);
                others += 1;
                continue;
            }
            whole += 1;
            let checker = &record["checker"];
            let out = run(&octets, &checker_context(checker), MAX_LEN, false);
            let compared = compare_message(checker, &out, &octets);
            match (compared, DIFFERENCES.iter().find(|(n, ..)| *n == name)) {
                (Ok(()), None) => {}
                (Err(_), Some((_, action, _))) if out.action == *action => {
                    differing.push(name.to_owned())
                }
                (compared, listed) => {
                    failures.push(format!("{name}: {compared:?}, listed {listed:?}"))
                }
            }
        }
    }
    println!("{whole} messages in {} files compared, {others} other records fed", files.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(differing.len(), DIFFERENCES.len(), "every listed difference occurs");
    assert!(whole > DIFFERENCES.len() && others > 0);
}

/// Decoders accept any octets without a panic.
fn feed_every_decoder(octets: &[u8]) {
    for message in [octets, &octets[octets.len().min(19)..]] {
        let _ = split_frame(message, EXTENDED_MAX_LEN);
        let _ = Open::decode(message);
        let _ = Notification::decode(message).text();
        let _ = RouteRefresh::decode(message, true);
        let families = json!(["1/1", "2/1"]);
        for session in [
            json!({"as4": true, "type": "ibgp", "families": families, "addpath": []}),
            json!({"as4": false, "type": "ebgp", "families": families, "addpath": families}),
        ] {
            if let Ok(update) = Update::parse(message, &context(&session)) {
                outcome(&update);
            }
        }
    }
}
