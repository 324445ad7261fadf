//! `show peer NAME`.

use bgp_proto::types::PeerType;

use super::events::event_of_peer;
use super::{Look, clean, drained, line, text};
use crate::ctl::Lasts;
use crate::ctl::item::{
    LastError, Messages, Peer, Retained, RetainedPhase, TcpAo, TcpAoKey, Unacknowledged,
};
use crate::plural::counted;

pub(super) fn peer(p: &Peer, look: &Look) -> String {
    let mut out = String::new();
    session(p, look, &mut out);
    if let Some(tcp_ao) = &p.tcp_ao {
        signatures(tcp_ao, &mut out);
    }
    routes(p, &mut out);
    line(&mut out, "capabilities", format_args!("theirs: {}", p.capabilities.join(", ")));
    if !p.capabilities_sent.is_empty() {
        line(&mut out, "", format_args!("ours: {}", p.capabilities_sent.join(", ")));
    }
    messages(&p.messages, p.flaps, &mut out);
    if let Some(error) = &p.last_error {
        last_error("last error", error, look, &mut out);
    }
    if let Some(error) = p.last_bgp_error.as_ref().filter(|e| p.last_error.as_ref() != Some(*e)) {
        last_error("last BGP error", error, look, &mut out);
    }
    for (index, event) in p.events.iter().flatten().enumerate() {
        let label = if index == 0 { "events" } else { "" };
        line(&mut out, label, event_of_peer(event, look));
    }
    out
}

/// The peer's identity and the negotiated parameters.
fn session(p: &Peer, look: &Look, out: &mut String) {
    let kind = match p.peer_type {
        PeerType::Internal => "internal",
        PeerType::External => "external",
    };
    line(out, "name", &p.name);
    if let Some(description) = &p.description {
        line(out, "description", description);
    }
    if let Some(object) = &p.object {
        match p.filters.as_slice() {
            [] => line(out, "from", object),
            filters => line(out, "from", format_args!("{object}, filters {}", filters.join(" "))),
        }
    }
    line(out, "address", format_args!("{} port {}", super::address(p), p.port));
    let accepted = p.remote_asn_accepted.as_deref();
    let accepted = accepted.filter(|which| *which != kind);
    let accepted = accepted.map(|which| format!(", {which} accepted")).unwrap_or_default();
    let asn = super::remote_asn(p);
    line(out, "AS", format_args!("{asn} ({kind}{accepted}), ours {}", p.local_asn));
    let since = look.since_in_full(p.state_seconds);
    let passive = match p.passive && p.state != "Established" {
        true => ", passive: waits for the neighbour to connect",
        false => "",
    };
    line(out, "state", format_args!("{} for {since}{passive}", p.state));
    if let Some(stuck) = unacknowledged(p) {
        line(out, "TCP", stuck);
    }
    if let Some(bfd) = &p.bfd {
        let waits = p.bfd_strict && bfd != "Up" && p.state != "Established";
        let strict = if waits { ", which the session waits for (strict)" } else { "" };
        line(out, "BFD", format_args!("{bfd}{strict}"));
    }
    if let Some(vantage) = &p.vantage {
        line(out, "vantage", vantage);
    }
    line(out, "router id", text(&p.router_id));
    line(out, "local address", text(&p.local_address));
    let families: Vec<String> = p.families.iter().map(ToString::to_string).collect();
    line(out, "families", families.join(", "));
    timers(p, look, out);
}

/// The keys of TCP-AO, and what was received with them.
fn signatures(ao: &TcpAo, out: &mut String) {
    let id_of = |is: fn(&TcpAoKey) -> bool| ao.keys.iter().find(|key| is(key));
    let current = id_of(|key| key.current).map(|key| format!(", signs with key {}", key.id));
    let next = id_of(|key| key.next).map(|key| format!(", asks for key {}", key.receive_id));
    let (current, next) = (current.unwrap_or_default(), next.unwrap_or_default());
    line(out, "TCP-AO", format_args!("key chain {}{current}{next}", ao.chain));
    if let Some(c) = &ao.connection {
        line(
            out,
            "segments",
            format_args!(
                "{} signed rightly, {} wrongly, {} with an unknown key, {} not signed, {} ICMP errors \
                 ignored",
                c.good, c.bad, c.key_not_found, c.unsigned, c.dropped_icmp
            ),
        );
    }
    for key in &ao.keys {
        let TcpAoKey { id, receive_id, algorithm, good, bad, .. } = key;
        let held = if key.held { "" } else { ", not on a connection" };
        let counted = format!("{good} signed rightly, {bad} wrongly");
        line(out, "key", format_args!("{id}/{receive_id} {algorithm}: {counted}{held}"));
        if key.attempts_bad > 0 {
            let (tried, id) = (key.attempts_bad, key.receive_id);
            line(
                out,
                "",
                format_args!(
                    "{tried} segments of attempts to connect were signed wrongly with key {id}: compare \
                     secret and algorithm on both sides"
                ),
            );
        }
    }
    let c = &ao.listeners;
    if ao.connection.is_none() && (c.key_not_found > 0 || c.unsigned > 0) {
        line(
            out,
            "attempts",
            format_args!(
                "of all neighbours, {} segments with an unknown key, {} not signed",
                c.key_not_found, c.unsigned
            ),
        );
    }
}

/// The negotiated or configured times, and the timers that are running.
fn timers(p: &Peer, look: &Look, out: &mut String) {
    let left = |seconds: Option<u64>, what: &str| {
        seconds.map(|seconds| format!(" ({what} {seconds} s)")).unwrap_or_default()
    };
    let hold = format!("hold {} s{}", p.hold_time, left(p.timers.hold, "expires in"));
    // KEEPALIVE and UPDATE restart the hold timer (RFC 4271 §8.2.2), and nothing else does.
    let silent = p.timers.hold.filter(|_| p.state == "Established");
    if let Some(left) = silent {
        let ago = p.hold_time.saturating_sub(left);
        line(out, "last message", format_args!("{ago} s ago (KEEPALIVE or UPDATE)"));
    }
    match p.keepalive_time {
        Some(keepalive) => {
            let next = left(p.timers.keepalive, "next in");
            line(out, "timers", format_args!("{hold}, keepalive {keepalive} s{next}"));
        }
        None => line(out, "timers", hold),
    }
    if let Some(shutdown) = &p.shutdown {
        let until = match shutdown.lasts {
            Lasts::Run => "until it is started, or the daemon is restarted",
            Lasts::Boot => "until it is started, or the machine is restarted",
            Lasts::Object => "by the node's object",
        };
        let told = shutdown.message.as_ref().map(|m| format!(" (\"{}\")", clean(m)));
        let (since, told) = (look.time_of(&shutdown.since), told.unwrap_or_default());
        line(out, "stopped", format_args!("by an operator at {since}{told}, {until}"));
    }
    if let Some(drain) = &p.drained {
        line(out, "drained", drained(drain, look));
    }
    if let Some(seconds) = p.timers.connect_retry {
        line(out, "next attempt", format_args!("in {seconds} s"));
    }
    if let Some(seconds) = p.timers.idle_hold {
        line(out, "held idle", format_args!("for {seconds} s more, after repeated faults"));
    }
}

fn routes(p: &Peer, out: &mut String) {
    line(out, "policies", format_args!("import {}, export {}", p.import, p.export));
    for (family, c) in [("ipv4", &p.prefixes.ipv4), ("ipv6", &p.prefixes.ipv6)] {
        if p.families.iter().any(|f| f.to_string() == family) {
            let (received, accepted, advertised) = (c.received, c.accepted, c.advertised);
            line(
                out,
                &format!("{family} prefixes"),
                format_args!("{received} received, {accepted} accepted, {advertised} advertised"),
            );
        }
    }
    let (v4, v6) = (&p.retained.ipv4, &p.retained.ipv6);
    for (family, retained) in [("ipv4", v4), ("ipv6", v6)] {
        if let Some(retained) = retained {
            line(out, &format!("{family} stale"), stale(p, retained));
        }
    }
    // A daemon that is older than this program names no families.
    if let Some(left) = p.stale_seconds.filter(|_| v4.is_none() && v6.is_none()) {
        let count = p.prefixes_received;
        let are = if count == 1 { "is" } else { "are" };
        let prefixes = counted(count, "prefix");
        line(out, "stale", format_args!("{prefixes} {are} kept for {left} s more"));
    }
    let (v4, v6) = (p.long_lived_stale_time.ipv4, p.long_lived_stale_time.ipv6);
    if v4.is_some() || v6.is_some() {
        let seconds = |time: Option<u64>| time.unwrap_or_default();
        let (v4, v6) = (seconds(v4), seconds(v6));
        line(
            out,
            "long-lived",
            format_args!("kept for ipv4 {v4} s, ipv6 {v6} s after the restart time"),
        );
    }
    if let Some(bound) = p.prefixes_max {
        line(out, "prefixes max", bound);
    }
    let (v4, v6) = (text(&p.groups.ipv4), text(&p.groups.ipv6));
    line(out, "update groups", format_args!("ipv4 {v4}, ipv6 {v6}"));
}

/// How many stale paths are kept, why, and for how long.
fn stale(p: &Peer, retained: &Retained) -> String {
    let Retained { phase, paths, seconds } = retained;
    let until = match (phase, p.state == "Established") {
        (_, true) => "until End-of-RIB",
        (RetainedPhase::Restart, false) => "for its restart",
        (RetainedPhase::LongLived, false) => "as long-lived stale",
    };
    let are = if *paths == 1 { "is" } else { "are" };
    format!("{} {are} kept {until}, {seconds} s more at most", counted(*paths, "path"))
}

fn messages(m: &Messages, flaps: u64, out: &mut String) {
    line(
        out,
        "received",
        format_args!(
            "{} UPDATE, {} KEEPALIVE, {} NOTIFICATION, {} ROUTE-REFRESH, {} octets",
            m.updates_received,
            m.keepalives_received,
            m.notifications_received,
            m.refreshes_received,
            m.octets_received
        ),
    );
    line(
        out,
        "sent",
        format_args!(
            "{} UPDATE, {} KEEPALIVE, {} NOTIFICATION, {} ROUTE-REFRESH, {} octets",
            m.updates_sent,
            m.keepalives_sent,
            m.notifications_sent,
            m.refreshes_sent,
            m.octets_sent
        ),
    );
    let (withdrawn, discarded) = (m.treated_as_withdraw, m.attributes_discarded);
    line(
        out,
        "malformed",
        format_args!("{withdrawn} treated as withdraw, {discarded} attributes discarded"),
    );
    let (established, failures) = (m.established_transitions, m.connect_failures);
    line(
        out,
        "sessions",
        format_args!("{established} established, {flaps} ended, {failures} failures to connect"),
    );
}

fn last_error(label: &str, e: &LastError, look: &Look, out: &mut String) {
    let code = match (e.code, e.subcode) {
        (Some(code), Some(subcode)) => format!(" {code}/{subcode}"),
        _ => String::new(),
    };
    line(out, label, format_args!("{} ({}{code}, {})", e.text, e.direction, look.time_of(&e.at)));
}

/// What the peer does not acknowledge.
fn unacknowledged(p: &Peer) -> Option<String> {
    let Unacknowledged { segments, retransmissions } = p.unacknowledged?;
    let what = if segments == 1 { "segment is" } else { "segments are" };
    Some(format!(
        "{segments} {what} not acknowledged after {retransmissions} retransmissions (ttl-security at \
         the neighbour, MTU?)"
    ))
}

/// Why there is no session, and what happens next: the last reason of BGP, the failure of TCP that
/// followed it, the next attempt, and routes that are kept meanwhile. Empty while there is one.
pub(super) fn why_down(p: &Peer) -> String {
    let mut parts: Vec<String> = unacknowledged(p).into_iter().collect();
    if p.state == "Established" {
        return parts.join("; ");
    }
    let texts = [&p.last_bgp_error, &p.last_error].map(|e| e.as_ref().map(|e| e.text.clone()));
    match texts {
        [Some(bgp), Some(last)] if bgp != last => parts.push(format!("{bgp}; then {last}")),
        [_, Some(last)] => parts.push(last),
        [bgp, None] => parts.extend(bgp),
    }
    if let Some(seconds) = p.timers.connect_retry.or(p.timers.idle_hold) {
        parts.push(format!("next attempt in {seconds} s"));
    }
    if let Some(seconds) = p.stale_seconds {
        let kept = counted(p.prefixes_received, "stale route");
        parts.push(format!("{kept} kept for {seconds} s"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(connection: &serde_json::Value, attempts_bad: u64) -> Vec<String> {
        let counters =
            json!({"good": 0, "bad": 7, "key_not_found": 2, "unsigned": 3, "dropped_icmp": 0});
        let is_up = !connection.is_null();
        let ao = serde_json::from_value(json!({
            "chain": "fabric", "connection": connection, "listeners": counters,
            "keys": [{"id": 1, "receive_id": 101, "algorithm": "hmac(sha1)", "held": is_up,
                      "current": is_up, "next": is_up, "good": 5, "bad": 0, "attempts_good": 1,
                      "attempts_bad": attempts_bad}],
        }));
        let mut out = String::new();
        signatures(&ao.unwrap(), &mut out);
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn keys_in_use_and_the_reason_for_their_failure_are_named() {
        let counters =
            json!({"good": 5, "bad": 0, "key_not_found": 0, "unsigned": 0, "dropped_icmp": 1});
        let wanted = [
            "TCP-AO key chain fabric, signs with key 1, asks for key 101",
            "segments 5 signed rightly, 0 wrongly, 0 with an unknown key, 0 not signed, 1 ICMP errors ignored",
            "key 1/101 hmac(sha1): 5 signed rightly, 0 wrongly",
        ];
        assert_eq!(shown(&counters, 0), wanted);
        let wanted = [
            "TCP-AO key chain fabric",
            "key 1/101 hmac(sha1): 5 signed rightly, 0 wrongly, not on a connection",
            "7 segments of attempts to connect were signed wrongly with key 101: compare secret and algorithm on both sides",
            "attempts of all neighbours, 2 segments with an unknown key, 3 not signed",
        ];
        assert_eq!(shown(&json!(null), 7), wanted);
    }
}
