use std::net::IpAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bgp_proto::policy::Source;
use bgp_proto::rib::Reason;
use bgp_proto::session::LocalIdentity;
use bgp_proto::table::{AdvertisedTo, LocalRoute, PeerLimits, RouteRun, Unusable, Withheld};
use bgp_proto::types::{Asn, FibChange, NextHop, PathId, RouterId};
use bgp_proto::wire::{AttrEdit, Code, attr};
use serde_json::{Value, json};

use super::*;
use crate::ctl::{Page, Reply, RouteForm, Run, each_item, item_of, route_page, run_of};

struct TwoNames;

impl Names for TwoNames {
    fn peer(&self, peer: PeerId) -> Option<String> {
        (peer == PeerId(1)).then(|| "tor-1".into())
    }
    fn interface(&self, index: u32) -> Option<String> {
        (index == 2).then(|| "eth0".into())
    }
}

fn destination() -> DestinationView {
    let mut attrs = AttrEdit::originate(Origin::Egp);
    let path = [2, 1, 0, 0, 0xFD, 0xE9, 1, 2, 0, 0, 0, 7, 0, 0, 0, 8];
    attrs.set(0x40, attr::AS_PATH, &path);
    attrs.set_local_pref(200);
    attrs.set_communities(&["64512:100".parse().unwrap()]);
    attrs.set_large_communities(&["64512:1:2".parse().unwrap()]);
    attrs.set_ext_communities(&["rt:64512:1".parse().unwrap()]);
    attrs.set_originator_id(RouterId(0x0102_0304));
    attrs.prepend_cluster(bgp_proto::types::ClusterId(0x0506_0708));
    let hop = |ifindex, gateway: Option<[u8; 4]>| Hop {
        gateway: gateway.map(Into::into),
        ifindex,
        onlink: gateway.is_none(),
        weight: 1,
    };
    let first = PathView {
        best: true,
        multipath: true,
        stale: false,
        long_lived: false,
        unusable: None,
        source: Source::Bgp,
        preference: 100,
        own: None,
        peer: Some(PeerId(1)),
        vantage: Some("zone-a".into()),
        cost: Some(7),
        path_id: PathId(3),
        next_hop: Some(NextHop::V4([192, 0, 2, 1].into())),
        hops: vec![hop(2, Some([10, 0, 0, 1])), hop(9, None)],
        igp_metric: Some(20),
        attrs: attrs.into_bytes().into(),
        age_secs: 61,
        reason: Reason::OnlyPath,
        import_rule: Some("policy \"all\" default".into()),
    };
    let second = PathView {
        best: false,
        multipath: false,
        stale: true,
        long_lived: true,
        unusable: Some(Unusable::NextHopUnresolved),
        source: Source::Kernel,
        preference: 10,
        own: None,
        peer: Some(PeerId(5)),
        vantage: None,
        cost: None,
        path_id: PathId(0),
        next_hop: None,
        hops: Vec::new(),
        igp_metric: None,
        attrs: Arc::from([]),
        age_secs: 0,
        reason: Reason::PeerType,
        import_rule: None,
    };
    DestinationView { prefix: "10.0.0.0/8".parse().unwrap(), paths: vec![first, second] }
}

/// The exact output that scripts rely on: keys are only ever added, after the existing ones.
#[test]
fn a_route_has_the_promised_keys() {
    let route = serde_json::to_value(route(&destination(), &TwoNames)).unwrap();
    assert_eq!(
        route,
        json!({"prefix": "10.0.0.0/8", "paths": [
            {"best": true, "multipath": true, "stale": false, "long_lived": false, "source": "bgp", "peer": "tor-1",
             "path_id": 3, "next_hop": "192.0.2.1",
             "gateway": [{"via": "10.0.0.1", "interface": "eth0", "onlink": false},
                         {"via": null, "interface": "#9", "onlink": true}],
             "origin": "egp", "as_path": [65001, [7, 8]], "local_pref": 200, "med": null,
             "communities": ["64512:100"], "large_communities": ["64512:1:2"],
             "extended_communities": ["rt:64512:1"], "originator_id": "1.2.3.4",
             "cluster_list": ["5.6.7.8"], "age_seconds": 61,
             "unusable": null, "igp_metric": 20, "import_rule": "policy \"all\" default",
             "reason": "only-path", "vantage": "zone-a", "vantage_cost": 7},
            {"best": false, "multipath": false, "stale": true, "long_lived": true, "source": "kernel", "peer": "#5",
             "path_id": 0, "next_hop": null, "gateway": [], "origin": "incomplete", "as_path": [],
             "local_pref": null, "med": null, "communities": [], "large_communities": [],
             "extended_communities": [], "originator_id": null, "cluster_list": [],
             "age_seconds": 0, "unusable": "next hop unresolved", "igp_metric": null,
             "import_rule": null, "reason": "peer-type", "vantage": null, "vantage_cost": null},
        ]})
    );
}

#[test]
fn a_kernel_route_shows_its_gateway() {
    let gateways = |next_hop: Option<IpAddr>, interface: Option<&str>| {
        let mut view = destination();
        view.paths[1].own = Some(LocalRoute {
            next_hop,
            interface: interface.map(Arc::from),
            ..LocalRoute::default()
        });
        serde_json::to_value(route(&view, &TwoNames)).unwrap()["paths"][1]["gateway"].clone()
    };
    let via = |via| json!([{"via": via, "interface": "eth1", "onlink": false}]);
    let gateway = [10, 0, 0, 3].into();
    assert_eq!(gateways(Some(gateway), Some("eth1")), via(Value::from("10.0.0.3")));
    assert_eq!(gateways(None, Some("eth1")), via(Value::Null), "connected");
    assert_eq!(gateways(None, None), json!([]), "a blackhole");
}

fn facts_of(negotiated: bool) -> Value {
    let local = LocalIdentity { asn: Asn(64512), router_id: RouterId(1) };
    let config = PeerConfig::new([192, 0, 2, 1].into(), Asn(65001), &local);
    let routes = PeerRoutes {
        limits: PeerLimits { prefixes_max: Some(1000), ..PeerLimits::default() },
        ..PeerRoutes::new("tor-1")
    };
    let agreed = Negotiated {
        peer_router_id: RouterId(0x0a00_0001),
        families: bgp_proto::types::FamilySet::ALL,
        enhanced_refresh: false,
        hold_time: Duration::from_secs(9),
        keepalive_time: Duration::from_secs(3),
        peer_capabilities: bgp_proto::wire::Capabilities {
            route_refresh: true,
            ..Default::default()
        },
        ..Negotiated::plain((local.asn, [192, 0, 2, 2].into()), (Asn(65001), config.address))
    };
    let counts = PeerCounts {
        received: FamilyMap([10, 3]),
        accepted: FamilyMap([9, 2]),
        advertised: FamilyMap([8, 0]),
        group: FamilyMap([None, Some(4)]),
        ..PeerCounts::default()
    };
    let last_error = session::LastError {
        at: Time::from_micros(5_000_000),
        origin: session::Origin::Received,
        code: Some(Code { code: 6, subcode: 2 }),
        text: "Administrative Shutdown".into(),
    };
    let facts = PeerFacts {
        name: "tor-1",
        description: Some("rack 12"),
        dynamic: false,
        interface: None,
        config: &config,
        routes: &routes,
        state: if negotiated { State::Established } else { State::OpenSent },
        since: Time::from_micros(60_000_000),
        timers: session::Timers {
            hold: Some(Time::from_micros(82_000_000)),
            retry: Some(Time::from_micros(75_000_000)),
            ..session::Timers::default()
        },
        negotiated: negotiated.then_some(&agreed),
        stats: &Stats { updates_received: 7, ..Stats::default() },
        counts: &counts,
        last_error: negotiated.then_some(&last_error),
        last_bgp_error: None,
        bfd: negotiated.then_some(bgp_proto::bfd::State::Up),
    };
    let clock = WallClock {
        zero: UNIX_EPOCH + Duration::from_secs(1_767_225_540),
        now: Time::from_micros(75_900_000),
    };
    serde_json::to_value(peer(&facts, &clock)).unwrap()
}

#[test]
fn a_peer_has_the_promised_keys() {
    let peer = facts_of(true);
    let promised = json!({
        "name": "tor-1", "description": "rack 12", "address": "192.0.2.1", "port": 179, "remote_asn": 65001,
        "local_asn": 64512, "state": "Established", "since": "2026-01-01T00:00:00Z",
        "families": ["ipv4", "ipv6"], "prefixes_received": 13, "prefixes_accepted": 11,
        "prefixes_advertised": 8, "hold_time": 9, "keepalive_time": 3,
        "timers": {"hold": 6, "keepalive": null, "connect_retry": 0, "idle_hold": null},
        "capabilities": ["route-refresh"], "group": 4,
        "last_error": {"at": "2025-12-31T23:59:05Z", "direction": "received", "code": 6,
                       "subcode": 2, "text": "Administrative Shutdown"},
    });
    for (key, value) in promised.as_object().unwrap() {
        assert_eq!(&peer[key], value, "{key}");
    }
    assert_eq!(peer["state_seconds"], 15);
    assert_eq!(peer["bfd"], "Up");
    assert_eq!(peer["messages"]["updates_received"], 7);
    assert_eq!(peer["prefixes"]["ipv6"], json!({"received": 3, "accepted": 2, "advertised": 0}));
}

#[test]
fn without_a_session_a_peer_shows_the_configured_values() {
    let peer = facts_of(false);
    assert_eq!(peer["state"], "OpenSent");
    assert_eq!(peer["families"], json!(["ipv4"]));
    assert_eq!((&peer["hold_time"], &peer["keepalive_time"]), (&json!(90), &Value::Null));
    for key in ["router_id", "local_address", "last_error"] {
        assert_eq!(peer[key], Value::Null, "{key} is present, and null");
        assert!(peer.as_object().unwrap().contains_key(key));
    }
    assert_eq!(peer["capabilities"], json!([]));
}

#[test]
fn an_explanation_names_peers_and_interfaces() {
    let view = bgp_proto::table::Explanation {
        destination: destination(),
        fib: FibChange::Install(FibKind::Unicast(destination().paths[0].hops.clone())),
        advertised: vec![AdvertisedTo {
            peer: PeerId(1),
            path_id: Some(PathId(2)),
            next_hop: NextHop::V4([192, 0, 2, 2].into()),
        }],
        withheld: vec![Withheld { peer: PeerId(8), rule: "no-export".into() }],
    };
    let item = serde_json::to_value(explanation(&view, &TwoNames)).unwrap();
    assert_eq!(item["fib"]["kind"], "unicast");
    assert_eq!(item["fib"]["gateways"][0]["interface"], "eth0");
    assert_eq!(
        item["advertised"],
        json!([{"peer": "tor-1", "path_id": 2, "next_hop": "192.0.2.2"}])
    );
    assert_eq!(item["withheld"], json!([{"peer": "#8", "rule": "no-export"}]));
    let paths = item["paths"].as_array().unwrap();
    let places: Vec<_> = paths.iter().map(|p| (&p["vantage"], &p["vantage_cost"])).collect();
    assert_eq!(places, [(&json!("zone-a"), &json!(7)), (&json!(null), &json!(null))]);
}

#[test]
fn a_group_names_its_members() {
    let view = GroupView {
        id: 3,
        family: Family::Ipv6,
        members: vec![PeerId(1), PeerId(2)],
        vantage: Some("zone-a".into()),
        alone_because: None,
        log_bytes: 77,
        prefixes: 5,
        evictions: 1,
    };
    assert_eq!(
        serde_json::to_value(group(&view, &TwoNames)).unwrap(),
        json!({"id": 3, "family": "ipv6", "members": ["tor-1", "#2"], "vantage": "zone-a", "alone_because": null,
               "log_bytes": 77, "prefixes": 5, "evictions": 1})
    );
}

#[test]
fn a_next_hop_says_how_it_is_resolved_and_why_not() {
    let hop = Hop { gateway: Some([10, 0, 0, 1].into()), ifindex: 2, onlink: false, weight: 1 };
    let via = |connected, over| NextHopState::Via {
        hops: vec![hop],
        metric: 20,
        connected,
        interface: None,
        over,
    };
    let item = |state, by: Option<&str>| {
        let (addr, peer) = ([192, 0, 2, 1].into(), Some(PeerId(1)));
        next_hop(&NextHopView { addr, state, paths: 3, peer }, by, &TwoNames)
    };
    let by = "192.0.2.0/24 of protocol kernel, where eth0 is down or has no carrier";
    for (state, by, wanted, reason) in [
        (via(true, Over::Specific), Some("a"), Resolution::Connected, ""),
        (via(false, Over::Specific), Some("a"), Resolution::Recursive, ""),
        (via(false, Over::Default), Some("a"), Resolution::DefaultRoute, "only the default route"),
        (NextHopState::Local, None, Resolution::Local, "an address of this machine"),
        (NextHopState::Unreachable, None, Resolution::Unresolved, "no kernel route covers it"),
        (NextHopState::Unreachable, Some(by), Resolution::Unresolved, "no carrier: not usable"),
    ] {
        let item = item(state, by);
        assert_eq!((item.state, item.paths, item.peer.as_deref()), (wanted, 3, Some("tor-1")));
        let said = item.reason.unwrap_or_default();
        assert!(said.contains(reason) && said.is_empty() == reason.is_empty(), "{said}");
        assert_eq!(serde_json::to_value(wanted).unwrap(), json!(wanted.word()));
    }
    let item = item(via(false, Over::Specific), Some("a"));
    assert_eq!((item.gateways[0].interface.as_str(), item.metric), ("eth0", Some(20)));
}

/// Runs are written as the items of their routes, and a client makes these of runs.
#[test]
fn a_page_of_routes_has_the_items_of_its_routes() {
    let one = destination();
    let mut other = destination();
    other.paths[0].age_secs += 1;
    let run = |prefixes: &[&str], view: &DestinationView| RouteRun {
        prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
        paths: view.paths.clone(),
    };
    let runs = [
        run(&["0.0.0.0/0", "9.10.99.0/24", "100.109.110.255/32"], &one),
        run(&["192.168.0.0/16"], &other),
        run(&["::/0", "2001:db8::/32", "::ffff:10.0.0.1/128"], &one),
    ];
    let singly = runs.iter().flat_map(|run| {
        let view = |prefix| DestinationView { prefix, paths: run.paths.clone() };
        run.prefixes.iter().copied().map(view)
    });
    let wanted = Page::last(singly.map(|view| route(&view, &TwoNames))).unwrap().into_parts().0;
    let page = |form| route_page(&runs, form, &TwoNames, None).unwrap().into_parts();
    let (lines, items, next) = page(RouteForm::Items);
    assert_eq!((items, next), (7, None));
    assert_eq!(String::from_utf8(lines).unwrap(), String::from_utf8(wanted.clone()).unwrap());

    let (lines, items, _) = page(RouteForm::Runs);
    assert_eq!((items, lines.iter().filter(|octet| **octet == b'\n').count()), (7, 3));
    let (mut fast, mut slow, mut made) = (String::new(), String::new(), String::new());
    let add = |to: &mut String, item: &str| {
        to.extend(["{\"item\":", item, "}\n"]);
        Ok::<(), ()>(())
    };
    for line in lines.split_inclusive(|octet| *octet == b'\n') {
        assert!(item_of(line).is_none());
        let (prefixes, paths) = run_of(line).unwrap();
        each_item(prefixes, paths, &mut made, |item| add(&mut fast, item)).unwrap();
        let Reply::Run(Run { prefixes, paths }) = serde_json::from_slice(line).unwrap() else {
            panic!("{line:?}")
        };
        each_item(prefixes, paths.get(), &mut made, |item| add(&mut slow, item)).unwrap();
    }
    assert_eq!(fast.as_bytes(), wanted);
    assert_eq!(slow, fast);
    for other in
        [&b"{\"done\":{\"items\":3}}\n"[..], b"{\"run\":{\"prefixes\":[\"", b"{\"run\":0}\n"]
    {
        assert!(run_of(other).is_none());
    }
}
