use serde_json::json;

use super::*;

fn rendered(request: &Request, items: &[serde_json::Value]) -> String {
    let mut out = Vec::new();
    let mut renderer = Renderer::new(request, None, &mut out);
    for item in items {
        renderer.item(&serde_json::value::to_raw_value(item).unwrap()).unwrap();
    }
    renderer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn json_of(request: &Request, items: &[&str]) -> String {
    let mut out = Vec::new();
    let mut writer = JsonWriter::new(request, &mut out);
    for item in items {
        let item: Box<RawValue> = serde_json::from_str(item).unwrap();
        writer.item(&item).unwrap();
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

#[test]
fn lists_are_lists_and_single_views_are_values() {
    let list = Request::ShowRoutes { prefix: None };
    assert_eq!(json_of(&list, &[]), "[]\n");
    assert_eq!(json_of(&list, &["{\"b\":1}"]), "[\n{\"b\":1}\n]\n");
    assert_eq!(json_of(&list, &["1", "2"]), "[\n1,\n2\n]\n");
    assert_eq!(json_of(&Request::ShowStatus, &["{\"b\":1,\"a\":2}"]), "{\"b\":1,\"a\":2}\n");
}

#[test]
fn routes_are_a_table_with_one_line_for_each_path() {
    let text = rendered(
        &Request::ShowRoutes { prefix: None },
        &[json!({"prefix": "10.0.0.0/8", "paths": [path(true, "a"), path(false, "tor-1")]})],
    );
    let lines = [
        "   PREFIX      NEXT HOP   VIA                   PEER   PREF  MED    AGE  ORIGIN  AS PATH",
        "*  10.0.0.0/8  192.0.2.1  10.0.0.1 eth0 onlink  a       100    -  1m01s  igp     65001 {7 8}",
        "s              192.0.2.1  10.0.0.1 eth0 onlink  tor-1   100    -  1m01s  igp     65001 {7 8}",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn an_explanation_reads_from_path_to_kernel_to_peers() {
    let explanation = json!({
        "prefix": "10.0.0.0/8",
        "paths": [path(true, "a"), path(false, "tor-1")],
        "fib": {"kind": "unicast", "gateways": [{"via": null, "interface": "eth0", "onlink": false}],
                "state": "failed", "error": "no such device"},
        "advertised": [{"peer": "b", "path_id": 3, "next_hop": "192.0.2.9"}],
        "withheld": [{"peer": "a", "rule": "it sent the best path"}],
    });
    let text =
        rendered(&Request::Explain { prefix: "10.0.0.0/8".parse().unwrap() }, &[explanation]);
    assert_eq!(
        text,
        "\
10.0.0.0/8
  1. * from a next hop 192.0.2.1
       via: 10.0.0.1 eth0 onlink
       AS path: 65001 {7 8}
       attributes: origin igp, local pref 100, IGP metric 5
       communities: 64512:1
       import: policy \"all\" default
       age: 1m01s
  2. s from tor-1 next hop 192.0.2.1
       via: 10.0.0.1 eth0 onlink
       AS path: 65001 {7 8}
       attributes: origin igp, local pref 100, IGP metric 5
       communities: 64512:1
       import: policy \"all\" default
       behind the path above by: med
       age: 1m01s
  kernel: unicast via eth0, failed: no such device
  told b: next hop 192.0.2.9 path id 3
  not told a: it sent the best path
"
    );
}

#[test]
fn an_item_of_another_kind_is_an_error_and_not_a_blank_line() {
    let item = serde_json::value::to_raw_value(&json!({"prefix": 7})).unwrap();
    let mut out = Vec::new();
    let mut renderer = Renderer::new(&Request::ShowFib, None, &mut out);
    assert!(matches!(renderer.item(&item), Err(ClientError::Answer(_))));
}

#[test]
fn the_kernel_and_groups_are_tables() {
    let fib = json!({"prefix": "10.0.0.0/8", "kind": "blackhole", "gateways": [], "metric": 0,
                     "table": 254, "protocol": 12, "state": "installed", "error": null});
    assert_eq!(
        rendered(&Request::ShowFib, &[fib]),
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
fn ages_have_two_units_at_most() {
    for (seconds, text) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (900_000, "10d10h"),
    ] {
        assert_eq!(age(seconds), text);
    }
}

#[test]
fn a_reload_that_changes_nothing_says_so() {
    assert_eq!(rendered(&Request::Reload, &[json!({"changes": []})]), "nothing changed\n");
    assert_eq!(rendered(&Request::Reload, &[json!({"changes": ["a", "b"]})]), "a\nb\n");
}

#[test]
fn a_status_that_is_not_ready_says_why() {
    let status = Status { not_ready: Some("waiting for a".into()), ..Status::default() };
    let text = rendered(&Request::ShowStatus, &[serde_json::to_value(status).unwrap()]);
    assert!(text.contains("ready           no: waiting for a\n"), "{text}");
    assert!(text.contains("kernel routes   not written\n"), "{text}");
}

#[test]
fn metrics_that_are_not_served_are_in_the_status() {
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
fn health_says_what_is_wrong() {
    let health = json!({"not_alive": ["table: no answer", "session a: late"], "not_ready": null});
    assert_eq!(
        rendered(&Request::Health, &[health]),
        "alive           no: table: no answer; session a: late\nready           yes\n"
    );
}
