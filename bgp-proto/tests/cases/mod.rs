//! Messages with the result that the RFCs require: a set of our own ([`malformed`]), and the shared
//! conformance data.
//!
//! The latter lives outside the repository (`../shared/conformance`, or
//! `$MARGAY_SHARED/conformance`): the tests that read it are ignored unless asked for, and fail
//! where it is absent or empty.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part.

mod own;

use std::path::PathBuf;

use bgp_proto::types::{AfiSafi, Asn, Family, FamilySet, PeerType};
use bgp_proto::wire::UpdateContext;
use serde_json::Value;

pub use own::malformed;

/// The malformed cases (`malformed/cases.jsonl`) whose result needs more than the message: the
/// peer's configuration or the state of the FSM. The codec accepts each of them; `wire_conformance`
/// checks that, and `session_conformance` the rest.
pub const SESSION_CASES: [(&str, &str); 8] = [
    ("open-wrong-peer-as", "2/2: the configured AS is another"),
    ("open-id-same-ibgp", "2/3: iBGP and our own identifier"),
    ("open-role-mismatch", "2/11: our role does not match the peer's"),
    ("open-role-unassigned-9", "2/11: the peer's role does not exist"),
    ("open-in-established", "5/3: an OPEN in Established"),
    ("update-in-opensent", "5/1: an UPDATE in OpenSent"),
    ("keepalive-in-opensent", "5/1: a KEEPALIVE in OpenSent"),
    ("rr-unneg-family", "ignored: the family is not negotiated"),
];

/// Malformed cases where the set allows another result than its first, and margay has that one.
pub const ALTERNATIVES: [(&str, &str); 1] =
    // The link-local address is usable where the session is on the link (RFC 2545 §3 has no
    // use for `::`); the table finds out whether it is.
    [("mp-nh-zero-plus-ll", "accept using the link-local")];

/// Whether the result needs more than the message, see [`SESSION_CASES`].
pub fn is_for_the_session(case: &Value) -> bool {
    case["expect"]["layer"] == "session"
        || SESSION_CASES.iter().any(|(name, _)| case["name"] == *name)
}

/// The directory of the shared conformance data.
pub fn conformance_dir() -> PathBuf {
    let root = match std::env::var_os("MARGAY_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
    };
    let dir = root.join("conformance");
    assert!(dir.is_dir(), "no conformance data at {}: set MARGAY_SHARED", dir.display());
    dir
}

/// The records of one file of JSON lines; at least one.
pub fn records(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let records: Vec<Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("a JSON object per line")).collect();
    assert!(!records.is_empty(), "{} is empty", path.display());
    records
}

/// Octets of the `hex` field.
pub fn bytes(record: &Value) -> Vec<u8> {
    unhex(record["hex"].as_str().expect("a record has hex"))
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half an octet");
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex digits"))
        .collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `["1/1", "2/1"]`.
fn families(list: &Value) -> FamilySet {
    let names = list.as_array().map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(|n| Family::try_from(afi_safi(n.as_str()?)).ok()).collect()
}

/// `1/1`.
pub fn afi_safi(text: &str) -> AfiSafi {
    let (afi, safi) = text.split_once('/').expect("afi/safi");
    AfiSafi { afi: afi.parse().expect("an AFI"), safi: safi.parse().expect("a SAFI") }
}

/// The context for parsing UPDATEs that the `session` object of a malformed case describes.
pub fn context(session: &Value) -> UpdateContext {
    let peer_type = match session["type"].as_str() {
        Some("ibgp") => PeerType::Internal,
        Some("ebgp") => PeerType::External,
        other => panic!("session type {other:?}"),
    };
    let peer_asn = Asn(session["peer_as"].as_u64().unwrap_or(0) as u32);
    UpdateContext {
        four_octet_as: session["as4"].as_bool().expect("as4"),
        families: families(&session["families"]),
        add_path: families(&session["addpath"]),
        ipv4_over_ipv6: session["extnh"].as_array().is_some_and(|l| l.contains(&"1/1/2".into())),
        // The set of real messages does not say who the peer is.
        enforce_first_as: session["peer_as"].is_u64(),
        ..UpdateContext::new(peer_type, peer_asn)
    }
}
