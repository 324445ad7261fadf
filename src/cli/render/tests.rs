use bgp_proto::types::PeerType;
use serde_json::json;

use super::*;
use crate::ctl::item::{Messages, Peer, PerFamily, Timers};
use crate::ctl::{Lookup, RouteSelection};

fn rendered(request: &Request, items: &[serde_json::Value]) -> String {
    looking(Look::piped(Times::Relative), request, items)
}

fn looking(look: Look, request: &Request, items: &[serde_json::Value]) -> String {
    let mut out = Vec::new();
    let mut renderer = Renderer::new(request, look, &mut out);
    for item in items {
        renderer.item(&item.to_string()).unwrap();
    }
    renderer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn json_of(request: &Request, items: &[&str]) -> String {
    let mut out = Vec::new();
    let mut writer = JsonWriter::new(request, &mut out);
    for item in items {
        writer.item(item).unwrap();
    }
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn path(best: bool, prefix_peer: &str) -> serde_json::Value {
    json!({"best": best, "multipath": best, "stale": !best, "source": "bgp", "peer": prefix_peer,
           "path_id": 0, "next_hop": "192.0.2.1",
           "gateway": [{"via": "10.0.0.1", "interface": "eth0", "onlink": true}],
           "origin": "igp", "as_path": [65001, [7, 8]], "local_pref": 100, "med": null,
           "communities": ["64512:1"], "large_communities": [], "extended_communities": [],
           "originator_id": null, "cluster_list": [], "age_seconds": 61, "unusable": null,
           "igp_metric": 5, "import_rule": "policy \"all\" default", "reason": "med"})
}

fn routes() -> Request {
    Request::ShowRoutes { prefix: None, select: RouteSelection::default() }
}

fn fib() -> Request {
    Request::ShowFib { select: RouteSelection::default() }
}

#[test]
fn json_is_a_list_or_a_single_value_by_request() {
    for list in [routes(), Request::ShowBfd, Request::ShowBmp, Request::ShowKeyChains] {
        assert_eq!(json_of(&list, &[]), "[]\n");
        assert_eq!(json_of(&list, &["{\"b\":1}"]), "[\n{\"b\":1}\n]\n");
        assert_eq!(json_of(&list, &["1", "2"]), "[\n1,\n2\n]\n");
    }
    assert_eq!(json_of(&Request::ShowStatus, &["{\"b\":1,\"a\":2}"]), "{\"b\":1,\"a\":2}\n");
}

#[test]
fn routes_are_a_table_with_one_line_per_path() {
    let text = rendered(
        &routes(),
        &[json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a"), path(false, "tor-1")]})],
    );
    let lines = [
        "   PREFIX      NEXT HOP   VIA                   PEER   PREF  MED    AGE  ORIGIN  AS PATH",
        "*  10.0.0.0/8  192.0.2.1  10.0.0.1 eth0 onlink  a       100    -  1m01s  igp     65001 {7 8}",
        "s              192.0.2.1  10.0.0.1 eth0 onlink  tor-1   100    -  1m01s  igp     65001 {7 8}",
    ];
    for (line, begins) in text.lines().zip(lines) {
        assert!(line.starts_with(begins), "{text}");
    }
    assert_eq!(text.lines().count(), 3);
    let mut marked = path(true, "a");
    marked["communities"] = json!(["64512:1", "65535:65281", "65535:0"]);
    marked["unusable"] = json!("AS loop");
    let text = rendered(&routes(), &[json!({"prefix": "10.0.0.0/8", "paths": [marked]})]);
    assert!(text.contains("64512:1 no-export graceful-shutdown"), "{text}");
    assert!(text.trim_end().ends_with("AS loop"), "{text}");
    let select = RouteSelection { count: true, ..RouteSelection::default() };
    let count = Request::ShowRoutes { prefix: None, select };
    let text = rendered(&count, &[json!({"prefixes": 3, "paths": 5})]);
    assert_eq!(text, "3 prefixes, 5 paths\n");
}

fn explained(prefix: &str, item: serde_json::Value) -> String {
    let request = Request::Explain {
        prefix: prefix.parse().unwrap(),
        lookup: Lookup::Longest,
        vantage: None,
        vrf: None,
        peer: None,
    };
    rendered(&request, &[item])
}

#[test]
fn an_explanation_lists_paths_then_kernel_then_peers() {
    let mut shorter = path(true, "a");
    shorter["as_path"] = json!([65001]);
    let mut worse = path(false, "tor-1");
    worse["reason"] = "as-path-length".into();
    let mut unusable = path(false, "tor-2");
    unusable["reason"] = "unusable".into();
    unusable["unusable"] = "next hop unresolved".into();
    unusable["resolved_by"] = "192.0.2.0/28 of protocol static".into();
    unusable["gateway"] = json!([]);
    unusable["stale"] = false.into();
    let explanation = json!({
        "prefix": "10.0.0.0/8",
        "paths": [shorter, worse, unusable],
        "fib": {"kind": "unicast", "gateways": [{"via": null, "interface": "eth0", "onlink": false}],
                "metric": 32, "table": 254, "state": "failed", "error": "no such device"},
        "advertised": [{"peer": "b", "path_id": 3, "next_hop": "192.0.2.9"},
                       {"peer": "c", "path_id": null, "next_hop": "192.0.2.9"}],
        "withheld": [{"peer": "a", "rule": "it sent the best path"}],
    });
    assert_eq!(
        explained("10.0.0.0/8", explanation.clone()),
        "\
10.0.0.0/8: 3 paths, best first
  1. best, from a
     next hop    192.0.2.1, resolved to 10.0.0.1 eth0 onlink, metric 5
     AS path     65001
     attributes  origin igp, local pref 100
     communities 64512:1
     import      policy \"all\" default
     received    1m01s (since 2026-11-23 05:11:48)
  1 is before 2 by: shorter AS_PATH, 1 against 2
  2. not used, kept while its peer restarts (stale), from tor-1
     next hop    192.0.2.1, resolved to 10.0.0.1 eth0 onlink, metric 5
     AS path     65001 {7 8}
     attributes  origin igp, local pref 100
     communities 64512:1
     import      policy \"all\" default
     received    1m01s (since 2026-11-23 05:11:48)
  2 is before 3 by: the other cannot be used
  3. unusable: next hop unresolved, from tor-2
     next hop    192.0.2.1, not resolved, by 192.0.2.0/28 of protocol static
     AS path     65001 {7 8}
     attributes  origin igp, local pref 100
     communities 64512:1
     import      policy \"all\" default
     received    1m01s (since 2026-11-23 05:11:48)
kernel      failed: no such device: unicast via eth0, table 254, metric 32
advertised  to b (path id 3), c with next hop 192.0.2.9
withheld    from a: it sent the best path
"
    );
    let text = explained("10.9.8.7/32", explanation);
    assert!(text.starts_with("10.9.8.7/32 is reached by its longest match:\n10.0.0.0/8"), "{text}");
}

/// Most peers have no description: the column would only take room.
#[test]
fn an_optional_column_is_shown_if_one_of_the_first_rows_has_it() {
    let columns = [("NAME", Left), ("DESCRIPTION", Left), ("LAST ERROR", Left)];
    let shown = |rows: &[[&str; 3]]| {
        let mut out = Vec::new();
        let mut table = Table::new(&columns, None, false).with_optional("DESCRIPTION");
        for row in rows {
            table
                .row(row.iter().map(|text| Cell::from(text.to_string())).collect(), &mut out)
                .unwrap();
        }
        table.flush(&mut out).unwrap();
        let later = ["c", "later", "x"].map(|text| Cell::from(text.to_owned()));
        table.row(later.into(), &mut out).unwrap();
        table.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let without = shown(&[["a", "", "x"], ["b", "", "y"]]);
    assert_eq!(without, "NAME  LAST ERROR\na     x\nb     y\nc     x\n");
    let with = shown(&[["a", "", "x"], ["b", "rack 12", "y"]]);
    assert!(with.starts_with("NAME  DESCRIPTION  LAST ERROR\n"), "{with}");
    assert!(with.contains("b     rack 12      y\n"), "{with}");
}

/// As on a route reflector: five thousand peers, one reason.
#[test]
fn peers_with_the_same_reason_share_a_line() {
    let withheld: Vec<_> =
        (0..5000).map(|n| json!({"peer": format!("p{n}"), "rule": "no-export"})).collect();
    let text = explained(
        "10.0.0.0/8",
        json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a")], "fib": null,
               "fib_absent": "routes are not written (fib.enabled = false)", "advertised": [],
               "withheld": withheld}),
    );
    let last: Vec<&str> = text.lines().rev().take(3).collect();
    let names = "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11";
    let wanted = format!("withheld    from {names} and 4988 more (--json lists them): no-export");
    assert_eq!(last[0], wanted);
    assert_eq!(last[1], "advertised  to no peer");
    assert_eq!(last[2], "kernel      nothing: routes are not written (fib.enabled = false)");
}

#[test]
fn each_step_of_the_decision_has_its_own_text() {
    use bgp_proto::rib::Reason;
    let all = [
        Reason::Unusable,
        Reason::LongLivedStale,
        Reason::Preference,
        Reason::LocalPref,
        Reason::LocalOrigin,
        Reason::AsPathLength,
        Reason::Origin,
        Reason::Med,
        Reason::PeerType,
        Reason::IgpMetric,
        Reason::VantageCost,
        Reason::RouterId,
        Reason::ClusterListLength,
        Reason::PeerAddress,
        Reason::PathId,
    ];
    let mut seen = std::collections::BTreeSet::new();
    for reason in all {
        let word = serde_json::to_value(reason).unwrap();
        let mut worse = path(false, "b");
        worse["reason"] = word.clone();
        let text = explained(
            "10.0.0.0/8",
            json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a"), worse], "fib": null,
                   "fib_absent": null, "advertised": [], "withheld": []}),
        );
        let line = text.lines().find(|line| line.contains("1 is before 2 by: ")).unwrap();
        let words = line.split(": ").nth(1).unwrap();
        assert_ne!(words, word.as_str().unwrap(), "{reason:?} has no words");
        assert!(seen.insert(words.to_owned()), "{words} twice");
    }
}

#[test]
fn times_are_absolute_on_request() {
    let look = Look::piped(Times::Absolute);
    let route = json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a")]});
    let text = looking(look, &routes(), &[route]);
    assert!(text.contains("2026-11-23 05:11:48"), "{text}");
}

#[test]
fn colours_are_used_only_on_request() {
    let route = json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a")]});
    let request = routes();
    assert!(!rendered(&request, std::slice::from_ref(&route)).contains('\u{1b}'));
    let mut look = Look::piped(Times::Relative);
    look.colour = Colour::On;
    let text = looking(look, &request, &[route]);
    assert!(text.contains("\u{1b}[32m*\u{1b}[0m"), "{text}");
}

#[test]
fn a_log_level_change_shows_the_previous_level() {
    let request = Request::LogLevel { level: None };
    assert_eq!(rendered(&request, &[json!({"level": "info", "before": null})]), "info\n");
    let text = rendered(&request, &[json!({"level": "debug", "before": "info"})]);
    assert_eq!(text, "log level is debug, was info\n");
}

#[test]
fn an_item_of_the_wrong_kind_is_an_error() {
    let item = json!({"prefix": 7}).to_string();
    let mut out = Vec::new();
    let look = Look::piped(Times::Relative);
    let mut renderer = Renderer::new(&fib(), look, &mut out);
    assert!(matches!(renderer.item(&item), Err(ClientError::Answer(_))));
}

#[test]
fn kernel_routes_and_groups_are_tables() {
    let route = json!({"prefix": "10.0.0.0/8", "kind": "blackhole", "gateways": [], "metric": 0,
                     "table": 254, "protocol": 12, "state": "installed", "error": null});
    assert_eq!(
        rendered(&fib(), &[route]),
        "PREFIX      KIND       VIA  METRIC  STATE      ERROR\n\
         10.0.0.0/8  blackhole  -         0  installed\n"
    );
    let group = json!({"id": 3, "family": "ipv4", "members": ["a", "b"], "alone_because": null,
                       "log_bytes": 1, "prefixes": 2, "evictions": 0});
    assert_eq!(
        rendered(&Request::ShowGroups, &[group]),
        "ID  FAMILY  MEMBERS  PREFIXES  LOG OCTETS  EVICTIONS  WHO\n \
         3  ipv4          2         2           1          0  a b\n"
    );
}

#[test]
fn next_hops_are_a_table_with_the_reason_of_those_that_cannot_be_used() {
    let hop = |address: &str, state: &str, reason: serde_json::Value| {
        json!({"address": address, "state": state, "gateways": [], "metric": null, "paths": 7,
               "resolved_by": "10.0.0.0/24 of protocol kernel", "peer": null, "reason": reason})
    };
    let hops = [
        hop("10.0.0.1", "connected", json!(null)),
        hop("192.0.2.1", "unresolved", json!("no kernel route covers it")),
    ];
    assert_eq!(
        rendered(&Request::ShowNexthops { vrf: None }, &hops),
        "ADDRESS    STATE       VIA  METRIC  PATHS  PEER  KERNEL ROUTE\n\
         10.0.0.1   connected   -         -      7  -     10.0.0.0/24 of protocol kernel\n\
         192.0.2.1  unresolved  -         -      7  -     no kernel route covers it\n"
    );
}

#[test]
fn a_reload_that_changes_nothing_says_so() {
    let reload = Request::Reload;
    assert_eq!(rendered(&reload, &[json!({"changes": []})]), "nothing changed\n");
    assert_eq!(rendered(&reload, &[json!({"changes": ["a", "b"]})]), "a\nb\n");
    let session = json!({"peer": "tor", "what": "restarts", "keys": [], "state": "Established",
                         "prefixes_received": 3, "prefixes_advertised": 2});
    let dry = json!({"changes": ["a"], "dry_run": true, "sessions": [session]});
    assert_eq!(
        rendered(&reload, &[dry]),
        "a\nsession tor restarts: Established, 3 prefixes received, 2 advertised\n\
         dry run: nothing was changed\n"
    );
    let section = json!({"table": "bgp.peers", "is_list": true, "settings": [
        {"key": "hold-time", "value": "90", "default": true},
        {"key": "name", "value": "\"tor\"", "default": false},
        {"key": "password", "value": "(hidden)", "default": false},
        {"key": "role", "value": null, "default": true}]});
    assert_eq!(
        rendered(&Request::ShowConfig, &[section]),
        "[[bgp.peers]]\nhold-time = 90  # default\nname = \"tor\"\n# password: (hidden)\n\
         # role: none, default\n\n"
    );
}

#[test]
fn the_status_shows_why_it_is_not_ready() {
    let status = Status { not_ready: Some("waiting for a".into()), ..Status::default() };
    let text = rendered(&Request::ShowStatus, &[serde_json::to_value(status).unwrap()]);
    assert!(text.contains("ready           no: waiting for a\n"), "{text}");
    assert!(text.contains("kernel routes   not written\n"), "{text}");
}

#[test]
fn the_status_shows_whether_metrics_are_served() {
    let with = |http| {
        let status = Status { http, ..Status::default() };
        rendered(&Request::ShowStatus, &[serde_json::to_value(status).unwrap()])
    };
    let http = |error: Option<&str>| {
        let error = error.map(str::to_owned);
        Some(crate::ctl::item::HttpStatus { listen: "127.0.0.1:9479".into(), error })
    };
    assert!(with(http(None)).contains("metrics         on http://127.0.0.1:9479\n"));
    let taken = with(http(Some("address in use")));
    assert!(taken.contains("metrics         not served: address in use\n"), "{taken}");
    assert!(!with(None).contains("metrics"));
}

#[test]
fn the_status_lists_ranges_and_who_was_refused() {
    let refused = crate::ctl::item::RefusedConnections {
        address: "192.0.2.9".parse().unwrap(),
        interface: None,
        reason: "no peer is configured at this address".into(),
        count: 1,
        seconds: 61,
    };
    let range = crate::ctl::item::Range {
        name: Some("nodes".into()),
        prefix: "192.0.2.0/24".parse().unwrap(),
        vrf: None,
        peers: 1,
        peers_max: 2,
    };
    let (ranges, refused_connections) = (vec![range], vec![refused]);
    let status = Status { ranges, refused_connections, ..Status::default() };
    let text = rendered(&Request::ShowStatus, &[serde_json::to_value(status).unwrap()]);
    let wanted = "refused         1 connection from 192.0.2.9, the last 1m01s ago: no peer is \
                  configured at this address\n";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("range           nodes 192.0.2.0/24: 1 of 2 peers\n"), "{text}");
}

#[test]
fn announced_routes_are_listed_and_commands_answered() {
    let mut item = json!({
        "prefix": "192.0.2.7/32", "vrf": null, "effect": null, "since": "2026-11-23T05:12:00Z",
        "seconds_left": 1795, "next_hop": null, "communities": ["65535:666", "1:2:3"],
        "local_pref": null, "med": 7
    });
    let text = rendered(&Request::ShowAnnounced, std::slice::from_ref(&item));
    let row =
        "192.0.2.7/32  -    self         -    7  2026-11-23 05:12:00     29m55s  65535:666 1:2:3";
    assert_eq!(text.lines().nth(1), Some(row), "{text}");
    item["effect"] = json!("announced");
    let prefix: bgp_proto::types::Prefix = "192.0.2.7/32".parse().unwrap();
    let request = Request::Announce { prefix, options: Default::default() };
    let text = rendered(&request, std::slice::from_ref(&item));
    assert_eq!(text, "192.0.2.7/32 is announced, for 29m55s\n");
    item["effect"] = json!("withdrawn");
    item["vrf"] = json!("blue");
    let request = Request::Withdraw { prefix: Some(prefix), vrf: None };
    assert_eq!(rendered(&request, &[item]), "192.0.2.7/32 in VRF blue is withdrawn\n");
    let status = Status { announced: 1, ..Status::default() };
    let text = rendered(&Request::ShowStatus, &[serde_json::to_value(status).unwrap()]);
    assert!(text.contains("1 route by command (margay show announced)"), "{text}");
}

#[test]
fn health_shows_what_is_wrong() {
    let health = json!({"not_alive": ["table: no answer", "session a: late"], "not_ready": null});
    assert_eq!(
        rendered(&Request::Health, &[health]),
        "alive           no: table: no answer; session a: late\nready           yes\n"
    );
}

/// What an operator first wants to know of a session that is down: what happens next, and how long
/// its routes are kept.
#[test]
fn a_peer_shows_its_timers() {
    let mut item = serde_json::to_value(Peer {
        name: "tor-1".into(),
        description: None,
        address: "192.0.2.1".parse().unwrap(),
        interface: None,
        vrf: None,
        port: 179,
        remote_asn: 65001,
        remote_asn_accepted: None,
        local_asn: 64512,
        peer_type: PeerType::External,
        dynamic: false,
        vantage: None,
        state: "Active".into(),
        since: String::new(),
        state_seconds: 7,
        families: Vec::new(),
        router_id: None,
        local_address: None,
        prefixes_received: 5,
        prefixes_accepted: 5,
        prefixes_advertised: 0,
        prefixes: PerFamily::default(),
        shutdown: None,
        unacknowledged: None,
        drained: None,
        stale_seconds: Some(113),
        retained: PerFamily::default(),
        long_lived_stale_time: PerFamily::default(),
        prefixes_max: None,
        object: None,
        filters: Vec::new(),
        import: "all".into(),
        export: "all".into(),
        hold_time: 240,
        keepalive_time: None,
        timers: Timers { connect_retry: Some(3), ..Timers::default() },
        capabilities: Vec::new(),
        capabilities_sent: Vec::new(),
        group: None,
        groups: PerFamily::default(),
        messages: Messages::default(),
        last_error: None,
        tcp_ao: None,
        events: None,
        last_bgp_error: None,
        passive: false,
        flaps: 2,
        bfd: None,
        bfd_strict: true,
    })
    .unwrap();
    let request = Request::ShowPeer { name: "tor-1".into() };
    let shown = |item: &serde_json::Value| rendered(&request, std::slice::from_ref(item));
    let has = |text: &str, label: &str, value: &str| {
        let line =
            text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(line[label.len()..].trim(), value, "{text}");
    };
    let text = shown(&item);
    has(&text, "timers", "hold 240 s");
    has(&text, "next attempt", "in 3 s");
    has(&text, "stale", "5 prefixes are kept for 113 s more");
    let mut one = item.clone();
    one["prefixes_received"] = json!(1);
    has(&shown(&one), "stale", "1 prefix is kept for 113 s more");
    let row = |item: &serde_json::Value| rendered(&Request::ShowPeers, std::slice::from_ref(item));
    assert!(row(&item).contains("; 5 stale routes kept for 113 s"), "{}", row(&item));
    assert!(row(&one).contains("; 1 stale route kept for 113 s"), "{}", row(&one));
    let error =
        |text: &str| json!({"at": "", "direction": "sent", "code": 2, "subcode": 2, "text": text});
    let mut failed = item.clone();
    failed["messages"]["updates_sent"] = json!(17);
    failed["last_bgp_error"] = error("Bad Peer AS: …");
    failed["last_error"] = error("Connection refused");
    failed["passive"] = json!(true);
    let text = shown(&failed);
    assert!(text.contains("last BGP error  Bad Peer AS: …"), "{text}");
    assert!(text.contains("2 ended") && text.contains("sent            17 UPDATE, "), "{text}");
    failed["last_error"]["at"] = json!("2026-11-23T05:12:49Z");
    has(&shown(&failed), "last error", "Connection refused (sent 2/2, 2026-11-23 05:12:49)");
    failed["state"] = json!("Established");
    failed["timers"]["hold"] = json!(238);
    has(&shown(&failed), "last message", "2 s ago (KEEPALIVE or UPDATE)");
    failed["state"] = json!("Active");
    let row = rendered(&Request::ShowPeers, &[failed]);
    let why = "Bad Peer AS: …; then Connection refused; next attempt in 3 s; 5 stale routes kept for 113 s";
    assert!(row.contains(why) && row.contains("Active (passive)"), "{row}");
    item["retained"]["ipv4"] = json!({"phase": "restart", "paths": 3, "seconds": 13});
    item["retained"]["ipv6"] = json!({"phase": "long-lived", "paths": 2, "seconds": 3600});
    let text = shown(&item);
    has(&text, "ipv4 stale", "3 paths are kept for its restart, 13 s more at most");
    has(&text, "ipv6 stale", "2 paths are kept as long-lived stale, 3600 s more at most");
    assert!(!text.contains("prefixes are kept"), "{text}");
    item["state"] = json!("Established");
    item["long_lived_stale_time"] = json!({"ipv4": 60, "ipv6": null});
    let text = shown(&item);
    has(&text, "ipv4 stale", "3 paths are kept until End-of-RIB, 13 s more at most");
    has(&text, "long-lived", "kept for ipv4 60 s, ipv6 0 s after the restart time");
    item["state"] = json!("Active");
    item["timers"] = json!({"hold": 192, "keepalive": 12, "connect_retry": null, "idle_hold": 40});
    item["keepalive_time"] = json!(80);
    let text = shown(&item);
    has(&text, "timers", "hold 240 s (expires in 192 s), keepalive 80 s (next in 12 s)");
    for (bfd, says) in [("Down", "Down, which the session waits for (strict)"), ("Up", "Up")] {
        item["bfd"] = json!(bfd);
        has(&shown(&item), "BFD", says);
    }
    has(&text, "held idle", "for 40 s more, after repeated faults");
    assert!(!text.contains("next attempt"), "{text}");
}

#[test]
fn a_drain_names_the_peers_that_have_not_moved() {
    let idle = json!({"all": null, "by_name": [], "peers": 0, "established": 0, "told": 0,
        "moved": 0, "waiting": [], "forwarded_packets": 7});
    assert_eq!(rendered(&Request::ShowDrain, &[idle]), "no peer is drained\n");
    let all = json!({"since": "2026-11-29T22:00:00Z", "reason": "fan\u{1b}[2J", "lasts": "boot"});
    let waiting = json!({"name": "tor", "told": true, "advertised": 4, "replaced": 1});
    let item = json!({"all": all, "by_name": ["rr"], "peers": 3, "established": 2, "told": 2,
        "moved": 1, "waiting": [waiting], "forwarded_packets": null});
    let text = rendered(&Request::ShowDrain, &[item]);
    assert!(!text.contains('\u{1b}'), "{text}");
    for line in [
        "drained since 2026-11-29 22:00:00 (fan",
        "until undrained, or the machine is restarted\n",
        "by name         rr\n",
        "drained peers   3, 2 established, 2 told, 1 announce other paths\n",
        "tor: told, announces other paths for 1 of 4 prefixes\n",
        "forwarded       cannot be read from the kernel\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_probe_says_what_to_change() {
    let request = Request::Probe { peer: "tor".into(), options: Default::default() };
    let item = json!({
        "peer": "tor", "address": "192.0.2.1", "port": 179, "state": "Active", "works": false,
        "steps": [
            {"step": "route", "result": "works", "text": "from 192.0.2.2 on eth0", "remedy": null},
            {"step": "ttl", "result": "fails", "text": "too far\u{1b}[31m", "remedy": "set it"},
        ],
    });
    assert_eq!(
        rendered(&request, std::slice::from_ref(&item)),
        "tor, 192.0.2.1 port 179, Active\n\
         route  works    from 192.0.2.2 on eth0\n\
         ttl    fails    too far\u{fffd}[31m\n       \
         remedy   set it\n"
    );
    let item = json!({"peer": null, "address": "2001:db8::1", "port": 1790, "state": null,
                      "works": true, "steps": []});
    assert_eq!(rendered(&request, &[item]), "2001:db8::1 port 1790, not configured\n");
}

#[test]
fn debugged_peers_are_listed() {
    let items = [
        json!({"peer": "tor", "seconds": 300, "dropped": 0}),
        json!({"peer": "node", "seconds": null, "dropped": 7}),
    ];
    assert_eq!(
        rendered(&Request::ShowDebug, &items),
        "tor: messages are logged for 5m00s\nnode: messages are no longer logged, 7 messages were left out\n"
    );
}
