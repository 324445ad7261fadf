//! Policies that match the outgoing interface of a learned route, and routes of competing sources.

use std::net::Ipv6Addr;

use super::*;
use crate::policy::{Match, Source};
use crate::rib::{LocalRoute, Over, ViaDefault};

/// Decides the opposite of `default` for routes over `eth*`.
fn over_ethernet(default: Decision) -> Arc<Policy> {
    let rule = Rule {
        name: String::new(),
        matches: vec![Match::Interface(vec!["eth*".to_owned()])],
        changes: Vec::new(),
        decision: match default {
            Decision::Accept => Decision::Reject,
            Decision::Reject | Decision::Next => Decision::Accept,
        },
    };
    Arc::new(Policy { name: "interfaces".into(), rules: vec![rule], default })
}

/// Reports the interface through which a next hop is reached, and runs the table until it is idle.
fn reach_by(table: &mut Table, addr: &str, interface: Option<&str>) {
    let addr: IpAddr = addr.parse().unwrap();
    let hop = Hop { gateway: Some(addr), ifindex: 1, onlink: false, weight: 1 };
    let interface = interface.map(Arc::from);
    let over = Over::Specific;
    let state = NextHopState::Via { hops: vec![hop], metric: 0, connected: true, interface, over };
    table.handle_next_hop(addr, state);
    while table.finish(Time::ZERO) {}
}

fn accepted(table: &Table, peer: u32) -> u32 {
    table.counts(PeerId(peer)).accepted[Family::Ipv4]
}

fn kernel(table: &mut Table) -> Vec<(String, bool)> {
    let changes = table.poll_fib(10).into_iter();
    changes.map(|(prefix, change)| (prefix.to_string(), change.route().is_some())).collect()
}

#[test]
fn next_hops_are_listed_with_their_state_and_users() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    let addr: IpAddr = "10.0.0.2".parse().unwrap();
    let listed = |table: &Table| table.next_hops(None, 10);
    let (hops, has_more) = listed(&table);
    assert_eq!((hops.len(), has_more), (1, false));
    assert_eq!((hops[0].addr, hops[0].paths), (addr, 2));
    table.handle_next_hop(addr, NextHopState::Unreachable);
    while table.finish(Time::ZERO) {}
    assert_eq!(listed(&table).0[0].state, NextHopState::Unreachable);
    reach_by(&mut table, "10.0.0.2", Some("eth0"));
    assert!(matches!(listed(&table).0[0].state, NextHopState::Via { connected: true, .. }));
    assert_eq!(table.next_hops(None, 0), (Vec::new(), true));
    assert_eq!(table.next_hops(Some(addr), 10), (Vec::new(), false));
    table.down_now(2, None);
    settle(&mut table);
    assert_eq!(listed(&table), (Vec::new(), false), "no path uses it");
}

#[test]
fn import_depends_on_the_interface_and_is_re_evaluated_when_it_changes() {
    let mut table = table();
    let import = over_ethernet(Decision::Reject);
    let _reader = up(&mut table, 2, 65001, importing(2, import));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    assert_eq!(accepted(&table, 2), 0, "no interface is known");
    for (interface, expected) in
        [(Some("eth0"), 2), (Some("eth1"), 2), (Some("v0"), 0), (Some("eth1"), 2), (None, 0)]
    {
        reach_by(&mut table, "10.0.0.2", interface);
        assert_eq!(accepted(&table, 2), expected, "{interface:?}");
    }
    reach_by(&mut table, "10.0.0.2", Some("eth0"));
    let addr = "10.0.0.2".parse().unwrap();
    table.handle_next_hop(addr, NextHopState::Unreachable);
    settle(&mut table);
    assert_eq!(accepted(&table, 2), 0, "an unreachable next hop has no interface");
    // A later announcement is evaluated with the interface that is known.
    reach_by(&mut table, "10.0.0.2", Some("eth0"));
    announce(&mut table, 2, 65001, &["10.3.0.0/16"]);
    assert_eq!(accepted(&table, 2), 3);
}

/// What `explain` says is evaluated again, and must come to what import decided.
#[test]
fn explain_names_the_import_rule_that_matched_the_interface() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, importing(2, over_ethernet(Decision::Reject)));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    let rule = |table: &Table| {
        let explanation = table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).unwrap();
        explanation.destination.paths[0].import_rule.clone().unwrap()
    };
    let mut rules = Vec::new();
    for interface in ["eth0", "v0"] {
        reach_by(&mut table, "10.0.0.2", Some(interface));
        rules.push(rule(&table));
    }
    assert!(rules[0].contains("rule 1") && rules[1].contains("default"), "{rules:?}");
}

#[test]
fn export_depends_on_the_interface_and_is_re_evaluated_when_it_changes() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, routes(2));
    let export = over_ethernet(Decision::Accept);
    let mut to = up(&mut table, 3, 65002, exporting(3, export));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let advertised = |table: &Table| table.counts(PeerId(3)).advertised[Family::Ipv4];
    assert_eq!(advertised(&table), 1);
    reach_by(&mut table, "10.0.0.2", Some("eth0"));
    assert_eq!(advertised(&table), 0);
    reach_by(&mut table, "10.0.0.2", Some("v0"));
    assert_eq!(advertised(&table), 1);
    assert!(!read(&mut to).is_empty());
    reach_by(&mut table, "10.0.0.2", Some("v1"));
    assert!(read(&mut to).is_empty(), "nothing about it differs");
}

#[test]
fn the_kernels_policy_sees_the_interface() {
    let mut table = table();
    let fib_policy = Some(over_ethernet(Decision::Reject));
    let config = TableConfig { fib_policy, ..TableConfig::clone(&table.config) };
    table.configure(Arc::new(config));
    let _reader = up(&mut table, 2, 65001, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    assert_eq!(kernel(&mut table), []);
    reach_by(&mut table, "10.0.0.2", Some("eth0"));
    assert_eq!(kernel(&mut table), [("10.1.0.0/16".to_owned(), true)]);
    reach_by(&mut table, "10.0.0.2", Some("v0"));
    assert_eq!(kernel(&mut table), [("10.1.0.0/16".to_owned(), false)]);
}

/// A learned route to which policy gave the preference of a local blackhole.
#[test]
fn at_equal_preference_a_local_route_wins_whatever_local_pref_is() {
    let mut table = table();
    let import = Arc::new(changing(vec![Change::Preference(200), Change::LocalPref(u32::MAX)]));
    let _reader = up(&mut table, 2, 65001, importing(2, import));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let own = LocalRoute { install: Some(FibKind::Blackhole), ..LocalRoute::default() };
    let prefix = "10.1.0.0/16".parse().unwrap();
    table.handle_local(Time::ZERO, prefix, Source::Static, Some(own));
    settle(&mut table);
    let route = table.poll_fib(10).pop().and_then(|(_, change)| change.route());
    assert_eq!(route.map(|route| route.kind), Some(FibKind::Blackhole));
}

/// A neighbour in our own AS, towards which we use another one, as with Calico's `localASNumber`.
#[test]
fn loops_are_detected_with_the_sessions_local_as() {
    let mut table = table();
    let as_65009 = Negotiated { local_asn: Asn(65009), ..session(2, 65000) };
    let as_65009 = Negotiated { peer_type: PeerType::External, ..as_65009 };
    table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::new(routes(2)));
    let _readers = table.up_now(2, as_65009);
    announce(&mut table, 2, 65000, &["10.1.0.0/16"]);
    assert_eq!(accepted(&table, 2), 1);
    announce(&mut table, 2, 65009, &["10.2.0.0/16"]);
    assert_eq!(accepted(&table, 2), 1, "its own AS there");
}

/// A change of configuration takes effect without waiting for a next hop to change.
#[test]
fn a_reload_sets_which_next_hops_may_resolve_over_the_default_route() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    let addr: IpAddr = "10.0.0.2".parse().unwrap();
    let hop = Hop { gateway: Some(addr), ifindex: 1, onlink: false, weight: 1 };
    let (hops, over) = (vec![hop], Over::Default);
    let state = NextHopState::Via { hops, metric: 0, connected: false, interface: None, over };
    settle(&mut table);
    table.handle_next_hop(addr, state);
    for (via_default, expected) in [
        (ViaDefault::Internal, false),
        (ViaDefault::Always, true),
        (ViaDefault::Never, false),
        (ViaDefault::Always, true),
    ] {
        let config = TableConfig { via_default, ..TableConfig::new(ASN, RouterId(1)) };
        table.configure(Arc::new(config));
        while table.finish(Time::ZERO) {}
        let best = table.totals().destinations[Family::Ipv4];
        let why = super::reflection::why_unusable(&table, "10.1.0.0/16");
        assert_eq!((best, why.is_none()), (1, expected), "{via_default:?}: {why:?}");
        let installed = kernel(&mut table).last().is_some_and(|(_, installed)| *installed);
        assert_eq!(installed, expected, "{via_default:?}");
    }
}

/// RFC 2545 §3.
#[test]
fn another_link_local_address_is_advertised_and_the_session_stays() {
    let mut table = table();
    table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::new(routes(2)));
    let link_local = |number: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number);
    let mut reader = table
        .up_now(
            2,
            Negotiated {
                local_addr: "2001:db8::1".parse().unwrap(),
                link_local: Some(link_local(1)),
                families: FamilySet::only(Family::Ipv6),
                ..session(2, 65001)
            },
        )
        .remove(0);
    let prefix = "2001:db8:65::/48".parse().unwrap();
    table.handle_local(Time::ZERO, prefix, Source::Static, Some(LocalRoute::default()));
    settle(&mut table);
    let has = |octets: &[u8], number| octets.windows(16).any(|w| w == link_local(number).octets());
    let first = read(&mut reader);
    assert!(has(&first, 1) && !has(&first, 2));
    table.peer_link_local(PeerId(2), SessionId(1), Some(link_local(1)));
    settle(&mut table);
    assert_eq!(read(&mut reader), [], "it is the same");
    table.peer_link_local(PeerId(2), SessionId(9), Some(link_local(3)));
    settle(&mut table);
    assert_eq!(read(&mut reader), [], "of another session");
    table.peer_link_local(PeerId(2), SessionId(1), Some(link_local(2)));
    settle(&mut table);
    let second = read(&mut reader);
    assert!(has(&second, 2) && !has(&second, 1));
    assert_eq!(table.poll_event(), None);
}
