use bgp_proto::types::Hop;
use smallvec::SmallVec;

use super::super::message::{AddressMessage, LinkMessage};
use super::*;
use crate::kernel::foreign::Foreign;
use crate::kernel::links::Links;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn links() -> Links {
    let mut links = Links::default();
    for (index, name, up) in [(1, "eth0", true), (2, "cali12", true), (3, "eth1", false)] {
        links.handle_link(LinkMessage {
            index,
            name: name.to_owned(),
            up,
            running: up,
            ..LinkMessage::default()
        });
    }
    for (ifindex, text, len, scope, secondary) in [
        (1, "10.0.0.1", 24, Scope::Wide, false),
        (1, "10.0.0.2", 24, Scope::Wide, true),
        (1, "169.254.1.1", 16, Scope::Narrow, false),
        (2, "10.9.0.1", 24, Scope::Wide, false),
        (3, "10.3.0.1", 24, Scope::Wide, false),
        (1, "fe80::1", 64, Scope::Wide, false),
    ] {
        let local: IpAddr = text.parse().unwrap();
        let network = Prefix::new(local, len);
        links.handle_address(AddressMessage {
            ifindex,
            local,
            network,
            scope,
            secondary,
            usable: true,
        });
    }
    links
}

fn route(protocol: u8, gateway: Option<&str>, ifindex: u32) -> KernelRoute {
    let gateway = gateway.map(|text| text.parse().unwrap());
    KernelRoute {
        table: 254,
        tos: 0,
        protocol,
        metric: 0,
        kind: KernelKind::Unicast,
        hops: SmallVec::from_slice(&[Hop { gateway, ifindex, onlink: false, weight: 1 }]),
        object: None,
        source: None,
        altered: false,
    }
}

fn rule(from: LearnSource) -> LearnRule {
    LearnRule { from, protocols: vec![], interfaces: vec![], prefixes: vec![] }
}

fn learn(text: &str, routes: &[KernelRoute], rule: LearnRule) -> Option<LearnedRoute> {
    let (foreign, links) = (Foreign::default(), links());
    let resolver = Resolver::new(&foreign, &links, 254);
    learned_route(prefix(text), routes, &[rule], 12, resolver)
}

#[test]
fn protocols_select_and_our_own_is_never_learned() {
    let any = rule(LearnSource::Kernel);
    for protocol in [0, 1, 2, 12] {
        assert_eq!(learn("10.65.0.0/26", &[route(protocol, None, 1)], any.clone()), None);
    }
    assert!(learn("10.65.0.0/26", &[route(80, None, 1)], any.clone()).is_some());
    let kernel = LearnRule { protocols: vec![2, 12], ..any.clone() };
    assert!(learn("10.65.0.0/26", &[route(2, None, 1)], kernel.clone()).is_some());
    assert!(learn("10.65.0.0/26", &[route(12, None, 1)], kernel).is_none());
    assert!(learn("10.65.0.0/26", &[route(80, None, 1)], rule(LearnSource::Connected)).is_none());
}

#[test]
fn the_lowest_metric_is_the_route() {
    let first = KernelRoute { metric: 1024, ..route(80, None, 1) };
    let second = KernelRoute { metric: 512, ..route(80, None, 2) };
    let learned = learn("10.65.0.5/32", &[first, second], rule(LearnSource::Kernel)).unwrap();
    assert_eq!((learned.metric, learned.interface.as_deref()), (512, Some("cali12")));
}

#[test]
fn unusable_routes_are_not_learned() {
    let any = rule(LearnSource::Kernel);
    assert!(learn("10.65.0.0/26", &[route(4, None, 3)], any.clone()).is_none(), "down");
    assert!(learn("10.65.0.0/26", &[route(4, None, 99)], any.clone()).is_none(), "unknown");
    assert!(learn("10.65.0.0/26", &[route(4, Some("10.9.0.1"), 1)], any.clone()).is_none(), "own");
    let local = KernelRoute { kind: KernelKind::Other, ..route(4, None, 1) };
    assert!(learn("10.65.0.0/26", &[local], any.clone()).is_none());
    for bad in ["127.0.0.0/8", "0.1.0.0/16", "224.0.0.0/24", "::1/128", "fe80::/64", "ff00::/8"] {
        assert!(learn(bad, &[route(4, None, 1)], any.clone()).is_none(), "{bad}");
    }
    for good in ["0.0.0.0/0", "::/0", "169.254.0.0/16", "240.0.0.0/4"] {
        assert!(learn(good, &[route(4, None, 1)], any.clone()).is_some(), "{good}");
    }
}

#[test]
fn kinds_and_gateways_are_distinguished() {
    let any = || rule(LearnSource::Kernel);
    let one = learn("10.65.0.0/26", &[route(4, Some("10.0.0.9"), 1)], any()).unwrap();
    assert_eq!(one.kind, LearnedKind::Unicast);
    assert_eq!(one.gateway, Some("10.0.0.9".parse().unwrap()));
    let mut two = route(4, Some("10.0.0.9"), 1);
    two.hops.push(route(4, Some("10.9.0.9"), 2).hops[0]);
    assert_eq!(learn("10.65.0.0/26", &[two], any()).unwrap().gateway, None);
    let direct = learn("10.65.0.0/26", &[route(4, None, 1)], any()).unwrap();
    assert_eq!((direct.kind, direct.gateway), (LearnedKind::Direct, None));
    let drop =
        KernelRoute { kind: KernelKind::Blackhole, hops: SmallVec::new(), ..route(80, None, 1) };
    let learned = learn("10.65.0.0/26", std::slice::from_ref(&drop), any()).unwrap();
    assert_eq!((learned.kind, learned.interface), (LearnedKind::Blackhole, None));
    let interfaces = vec!["*".to_owned()];
    assert!(learn("10.65.0.0/26", &[drop], LearnRule { interfaces, ..any() }).is_none());
}

#[test]
fn prefixes_select_the_equal_and_the_more_specific() {
    let prefixes = vec![prefix("10.65.0.0/16"), prefix("2001:db8::/32")];
    let rule = LearnRule { prefixes, ..rule(LearnSource::Kernel) };
    for (text, expected) in [
        ("10.65.0.0/16", true),
        ("10.65.3.0/26", true),
        ("10.64.0.0/15", false),
        ("10.66.0.0/16", false),
        ("2001:db8:1::/48", true),
    ] {
        let learned = learn(text, &[route(80, None, 1)], rule.clone());
        assert_eq!(learned.is_some(), expected, "{text}");
    }
}

#[test]
fn connected_networks_are_those_of_wide_primary_addresses_on_links_that_are_up() {
    let (foreign, links) = (Foreign::default(), links());
    let resolver = Resolver::new(&foreign, &links, 254);
    let learned = |rule: LearnRule| {
        let rules = [rule];
        let networks = links.networks();
        let routes = networks.filter_map(|network| connected_route(network, &rules, resolver));
        routes.map(|route| route.prefix.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(learned(rule(LearnSource::Connected)), ["10.0.0.0/24", "10.9.0.0/24"]);
    let interfaces = vec!["-cali*".to_owned(), "*".to_owned()];
    let rule = LearnRule { interfaces, ..rule(LearnSource::Connected) };
    assert_eq!(learned(rule), ["10.0.0.0/24"]);
}

#[test]
fn interface_patterns() {
    for (pattern, name, expected) in [
        ("eth0", "eth0", true),
        ("eth0", "eth01", false),
        ("eth*", "eth", true),
        ("eth*", "xeth0", false),
        ("*", "", true),
        ("e?h?", "eth0", true),
        ("e?h?", "eth", false),
        ("*.cali", "vxlan.cali", true),
        ("*.cali", "vxlan.calico", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-b-b", false),
        ("**x", "x", true),
    ] {
        let matched = matches_pattern(pattern.as_bytes(), name.as_bytes());
        assert_eq!(matched, expected, "{pattern} and {name}");
    }
    let patterns = ["eth9", "-eth*", "*"].map(str::to_owned);
    assert!(selects_interface(&patterns, Some("eth9")));
    assert!(!selects_interface(&patterns, Some("eth0")));
    assert!(selects_interface(&patterns, Some("wlan0")));
    assert!(!selects_interface(&["-eth*".to_owned()], Some("wlan0")));
}
