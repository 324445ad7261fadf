use bgp_proto::types::Hop;
use smallvec::SmallVec;

use super::super::event::LearnSource;
use super::super::foreign::{Effect, Foreign};
use super::super::links::Links;
use super::super::message::{KernelKind, KernelRoute, LinkMessage};
use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn route(gateway: &str) -> KernelRoute {
    let gateway = Some(gateway.parse().unwrap());
    KernelRoute {
        table: 254,
        tos: 0,
        protocol: 4,
        metric: 0,
        kind: KernelKind::Unicast,
        hops: SmallVec::from_slice(&[Hop { gateway, ifindex: 1, onlink: false, weight: 1 }]),
        object: None,
        source: None,
        altered: false,
    }
}

fn links() -> Links {
    let mut links = Links::default();
    links.handle_link(LinkMessage {
        index: 1,
        name: "eth0".to_owned(),
        up: true,
        running: true,
        ..LinkMessage::default()
    });
    links
}

fn over<'a>(foreign: &'a Foreign, links: &'a Links) -> Resolver<'a> {
    Resolver::new(foreign, links, 254)
}

fn touched(prefixes: &[&str]) -> Touched {
    let mut touched = Touched::default();
    for text in prefixes {
        touched.add(prefix(text));
    }
    touched
}

#[test]
fn only_addresses_under_a_changed_prefix_are_reported_and_only_when_they_changed() {
    let (mut foreign, links) = (Foreign::default(), links());
    let mut watch = Watch::new(12);
    for text in ["192.0.2.1", "192.0.2.255", "192.0.3.0", "2001:db8::1"] {
        watch.track(text.parse().unwrap(), over(&foreign, &links));
    }
    let at = prefix("192.0.2.0/24");
    assert_eq!(foreign.handle_new(at, route("10.0.0.1"), false), Effect::Changed);
    let events = watch.compare(&touched(&["192.0.2.0/24"]), over(&foreign, &links));
    let addrs: Vec<String> = events
        .iter()
        .map(|event| match event {
            FibEvent::NextHop { addr, .. } => addr.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(addrs, ["192.0.2.1", "192.0.2.255"]);
    assert!(watch.compare(&touched(&["192.0.2.0/24"]), over(&foreign, &links)).is_empty());
    watch.untrack("192.0.2.1".parse().unwrap());
    foreign.handle_gone(at, route("10.0.0.1"));
    let events = watch.compare(&touched(&["0.0.0.0/0"]), over(&foreign, &links));
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn a_full_comparison_also_finds_deletions() {
    let (mut foreign, links) = (Foreign::default(), links());
    let mut watch = Watch::new(12);
    foreign.insert(prefix("10.1.0.0/16"), route("10.0.0.1"));
    foreign.insert(prefix("10.2.0.0/16"), route("10.0.0.1"));
    let rule = LearnRule {
        from: LearnSource::Kernel,
        protocols: vec![],
        interfaces: vec![],
        prefixes: vec![],
    };
    assert_eq!(watch.learn(vec![rule.clone()], over(&foreign, &links)).len(), 2);
    assert!(watch.learn(vec![rule], over(&foreign, &links)).is_empty());
    let mut after = Foreign::default();
    after.insert(prefix("10.2.0.0/16"), route("10.0.0.9"));
    let all = Touched { all: true, ..Touched::default() };
    let events = watch.compare(&all, over(&after, &links));
    let gone = FibEvent::Forgotten { prefix: prefix("10.1.0.0/16"), connected: false };
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.contains(&gone), "{events:?}");
    let gone = FibEvent::Forgotten { prefix: prefix("10.2.0.0/16"), connected: false };
    assert_eq!(watch.learn(vec![], over(&after, &links)), [gone]);
}

#[test]
fn addresses_of_a_prefix_reach_from_the_first_to_the_last() {
    for (text, first, last) in [
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("10.1.2.0/23", "10.1.2.0", "10.1.3.255"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
        ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::1"),
    ] {
        let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(addresses(prefix(text)), first..=last, "{text}");
    }
}
