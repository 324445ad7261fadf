use std::num::NonZeroU32;

use bgp_proto::types::{FibKind, Prefix, Recursion};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::super::message::{AddressMessage, LinkMessage, Scope};
use super::*;
use crate::kernel::NextHopForm;
use crate::kernel::spec::RouteSpec;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hop(gateway: &str, ifindex: u32) -> Hop {
    let gateway = if gateway.is_empty() { None } else { Some(addr(gateway)) };
    Hop { gateway, ifindex, onlink: false, weight: 1 }
}

fn route(metric: u32, hops: &[Hop]) -> KernelRoute {
    KernelRoute {
        table: 254,
        tos: 0,
        protocol: 4,
        metric,
        kind: KernelKind::Unicast,
        hops: SmallVec::from_slice(hops),
        object: None,
        source: None,
        altered: false,
    }
}

fn foreign(routes: &[(&str, KernelRoute)]) -> Foreign {
    let mut foreign = Foreign::default();
    for (prefix, route) in routes {
        foreign.insert(prefix.parse::<Prefix>().unwrap(), route.clone());
    }
    foreign
}

/// Interfaces 1 to 3 with carrier, 4 up without, 5 down; 10.0.0.1 on the first.
fn links() -> Links {
    let mut links = Links::default();
    for index in 1..=5 {
        let (up, running) = (index != 5, index < 4);
        let name = format!("eth{index}");
        links.handle_link(LinkMessage { index, name, up, running, ..LinkMessage::default() });
    }
    links.handle_address(AddressMessage {
        ifindex: 1,
        local: addr("10.0.0.1"),
        network: "10.0.0.0/24".parse().unwrap(),
        scope: Scope::Wide,
        secondary: false,
        usable: true,
    });
    links
}

fn via(hops: &[Hop], metric: u32, connected: bool) -> NextHopState {
    let interface = match hops {
        [hop] => Some(format!("eth{}", hop.ifindex).into()),
        _ => None,
    };
    let over = Over::Specific;
    NextHopState::Via { hops: hops.to_vec(), metric, connected, interface, over }
}

fn over_default(state: NextHopState) -> NextHopState {
    match state {
        NextHopState::Via { hops, metric, connected, interface, .. } => {
            NextHopState::Via { hops, metric, connected, interface, over: Over::Default }
        }
        other => other,
    }
}

fn resolve(addr: IpAddr, foreign: &Foreign, links: &Links) -> NextHopState {
    Resolver::new(foreign, links, 254).resolve(addr).state
}

#[test]
fn the_most_specific_route_decides_usable_or_not() {
    let foreign = foreign(&[
        ("0.0.0.0/0", route(100, &[hop("10.0.0.254", 1)])),
        ("10.0.0.0/24", route(0, &[hop("", 1)])),
        ("192.0.2.0/24", route(0, &[hop("10.0.0.9", 1)])),
        ("192.0.2.0/28", route(0, &[hop("10.4.0.9", 4)])),
        ("192.0.2.64/28", route(0, &[hop("10.5.0.9", 5)])),
    ]);
    let links = links();
    let resolve = |text| resolve(addr(text), &foreign, &links);
    assert_eq!(resolve("10.0.0.7"), via(&[hop("10.0.0.7", 1)], 0, true));
    assert_eq!(resolve("10.0.0.1"), NextHopState::Local);
    let default = over_default(via(&[hop("10.0.0.254", 1)], 100, false));
    assert_eq!(resolve("198.51.100.1"), default);
    // Without carrier the kernel still sends packets there.
    assert_eq!(resolve("192.0.2.1"), NextHopState::Unreachable);
    // An interface that is down has no routes. A gateway never has the metric of a connected
    // network.
    assert_eq!(resolve("192.0.2.65"), via(&[hop("10.0.0.9", 1)], 1, false));
    assert_eq!(resolve("2001:db8::1"), NextHopState::Unreachable);
    assert_eq!(resolve("0.0.0.0"), NextHopState::Unreachable);
    assert_eq!(resolve("224.0.0.5"), NextHopState::Unreachable);
    let by =
        |text| Resolver::new(&foreign, &links, 254).resolve(addr(text)).by.unwrap().to_string();
    assert_eq!(by("198.51.100.1"), "0.0.0.0/0 of protocol static metric 100");
    assert_eq!(
        by("192.0.2.1"),
        "192.0.2.0/28 of protocol static, where eth4 is down or has no carrier"
    );
    let decided = Resolver::new(&foreign, &links, 254).resolve(addr("192.0.2.1")).by.unwrap();
    assert_eq!(
        (decided.prefix.to_string(), decided.down),
        ("192.0.2.0/28".into(), vec!["eth4".into()])
    );
}

#[test]
fn a_leg_without_carrier_is_left_out_where_the_kernel_leaves_it_out() {
    let foreign = foreign(&[
        ("192.0.2.0/24", route(0, &[hop("10.0.0.9", 1)])),
        ("192.0.2.0/28", route(0, &[hop("10.4.0.9", 4)])),
    ]);
    let mut links = links();
    links.handle_link(LinkMessage {
        index: 4,
        name: "eth4".to_owned(),
        up: true,
        skipped_without_carrier: [true, false],
        ..LinkMessage::default()
    });
    assert_eq!(resolve(addr("192.0.2.1"), &foreign, &links), via(&[hop("10.0.0.9", 1)], 1, false));
}

#[test]
fn the_lowest_metric_decides_within_a_prefix() {
    let low = route(10, &[hop("10.0.0.2", 1)]);
    let gone = route(5, &[hop("10.5.0.2", 5)]);
    let high = route(20, &[hop("10.0.0.3", 2)]);
    let other_tos = KernelRoute { tos: 16, metric: 1, ..high.clone() };
    let p = "192.0.2.0/24";
    let routes = [(p, high), (p, low), (p, gone), (p, other_tos)];
    let state = resolve(addr("192.0.2.1"), &foreign(&routes), &links());
    assert_eq!(state, via(&[hop("10.0.0.2", 1)], 10, false));
    let down = route(6, &[hop("10.4.0.2", 4)]);
    let routes = [&routes[..], &[(p, down)]].concat();
    assert_eq!(resolve(addr("192.0.2.1"), &foreign(&routes), &links()), NextHopState::Unreachable);
}

#[test]
fn a_dropping_route_is_an_answer_and_not_a_gap() {
    let drops = [
        KernelKind::Blackhole,
        KernelKind::Unreachable,
        KernelKind::Prohibit,
        KernelKind::Encapsulated,
        KernelKind::Throw,
    ];
    for kind in drops {
        let drop = KernelRoute { kind, ..route(0, &[]) };
        let default = route(0, &[hop("10.0.0.254", 1)]);
        let foreign = foreign(&[("0.0.0.0/0", default), ("192.0.2.0/24", drop)]);
        assert_eq!(resolve(addr("192.0.2.1"), &foreign, &links()), NextHopState::Unreachable);
    }
}

#[test]
fn only_usable_legs_of_several_are_kept() {
    let legs = [
        Hop { weight: 5, onlink: true, ..hop("10.0.1.2", 2) },
        hop("10.0.0.2", 1),
        hop("10.4.0.2", 4),
    ];
    let foreign = foreign(&[("192.0.2.0/24", route(7, &legs))]);
    let state = resolve(addr("192.0.2.1"), &foreign, &links());
    assert_eq!(state, via(&[legs[1], legs[0]], 7, false));
}

/// A plan with these wanted routes, each with a next hop on a link or not.
fn plan(routes: &[(&str, Hop, Recursion)]) -> Plan {
    let mut plan = Plan::new(254, 12, NextHopForm::Inline);
    for (prefix, hop, recursion) in routes {
        let spec = RouteSpec::new(FibKind::Unicast(vec![*hop]), 20);
        plan.want(prefix.parse().unwrap(), Some((spec, *recursion)));
    }
    plan
}

#[test]
fn routes_of_ours_resolve_if_they_depend_on_links_alone() {
    let connected = KernelRoute { protocol: 2, ..route(0, &[hop("", 1)]) };
    let foreign = foreign(&[
        ("0.0.0.0/0", route(100, &[hop("10.0.0.254", 1)])),
        ("10.0.0.0/24", connected),
        ("192.0.2.3/32", route(10, &[hop("10.0.0.3", 1)])),
        ("192.0.2.4/32", route(30, &[hop("10.0.0.3", 1)])),
        ("10.65.1.9/32", KernelRoute { protocol: 80, ..route(1024, &[hop("", 1)]) }),
        ("10.65.1.11/32", KernelRoute { protocol: 80, ..route(1024, &[hop("", 5)]) }),
    ]);
    let mut plan = plan(&[
        ("192.0.2.0/24", hop("10.0.0.9", 1), Recursion::Direct),
        ("192.0.2.0/25", hop("10.0.0.8", 1), Recursion::Recursive),
        ("192.0.2.3/32", hop("10.0.0.9", 1), Recursion::Direct),
        ("192.0.2.4/32", hop("10.0.0.9", 1), Recursion::Direct),
        ("10.0.0.7/32", hop("10.0.0.9", 1), Recursion::Direct),
        ("198.51.100.0/24", hop("10.4.0.9", 4), Recursion::Direct),
        ("10.65.1.9/32", hop("10.0.0.9", 1), Recursion::Direct),
    ]);
    let block = RouteSpec::new(FibKind::Blackhole, 0);
    plan.want("10.65.1.0/26".parse().unwrap(), Some((block, Recursion::Direct)));
    let links = links();
    let over_bgp = Resolver::new(&foreign, &links, 254).over_bgp(&plan, 12);
    let resolve = |text| over_bgp.resolve(addr(text)).state;
    assert_eq!(resolve("192.0.2.1"), via(&[hop("10.0.0.9", 1)], 20, false), "not the /25");
    // Beside a route of another program the lower metric decides, as in the kernel.
    assert_eq!(resolve("192.0.2.3"), via(&[hop("10.0.0.3", 1)], 10, false));
    assert_eq!(resolve("192.0.2.4"), via(&[hop("10.0.0.9", 1)], 20, false));
    assert_eq!(resolve("10.0.0.7"), via(&[hop("10.0.0.7", 1)], 0, true), "it is connected");
    assert_eq!(resolve("198.51.100.1"), NextHopState::Unreachable, "no carrier");
    // Felix's route to a pod: the address is on a link, whatever our routes cover it.
    assert_eq!(resolve("10.65.1.9"), via(&[hop("10.65.1.9", 1)], 0, true));
    assert_eq!(resolve("10.65.1.10"), NextHopState::Unreachable, "our own block drops it");
    assert_eq!(resolve("10.65.1.11"), NextHopState::Unreachable, "its interface is down");
    assert_eq!(resolve("203.0.113.1"), over_default(via(&[hop("10.0.0.254", 1)], 100, false)));
    let kernel_only = Resolver::new(&foreign, &links, 254).resolve(addr("192.0.2.1")).state;
    assert_eq!(kernel_only, over_default(via(&[hop("10.0.0.254", 1)], 100, false)));
}

/// 10.0.0.1 is an address of an interface in a VRF: ours in the VRF, but not outside.
#[test]
fn addresses_of_a_vrf_are_ours_in_its_table_only() {
    let mut links = links();
    let vrf = NonZeroU32::new(9);
    links.handle_link(LinkMessage { index: 9, vrf: Some(100), up: true, ..LinkMessage::default() });
    let member = LinkMessage { index: 1, master: vrf, up: true, ..LinkMessage::default() };
    links.handle_link(member);
    let foreign = Foreign::default();
    let resolve = |table| Resolver::new(&foreign, &links, table).resolve(addr("10.0.0.1")).state;
    assert_eq!(resolve(100), NextHopState::Local);
    assert_eq!(resolve(254), NextHopState::Unreachable);
}

proptest! {
    /// Compares with a search of all routes.
    #[test]
    fn agrees_with_a_linear_search(
        routes in proptest::collection::vec((0u32..64, 24u8..=32, 0u32..3, 1u32..=5), 0..40),
        bits in 0u32..64,
    ) {
        let wanted = std::net::Ipv4Addr::from_bits((192 << 24) + bits);
        let mut all = Vec::new();
        let mut foreign = Foreign::default();
        for (bits, len, metric, ifindex) in routes {
            let base = std::net::Ipv4Addr::from_bits((192 << 24) + bits);
            let prefix = Prefix::new(IpAddr::V4(base), len);
            // One route per place, as in the kernel.
            if all.iter().any(|(p, m, _)| (*p, *m) == (prefix, metric)) {
                continue;
            }
            all.push((prefix, metric, ifindex));
            foreign.insert(prefix, route(metric, &[hop("10.0.0.2", ifindex)]));
        }
        let best = all
            .into_iter()
            .filter(|(prefix, _, ifindex)| prefix.contains_addr(wanted.into()) && *ifindex != 5)
            .min_by_key(|(prefix, metric, _)| (32 - prefix.len(), *metric));
        let expected = match best {
            Some((_, metric, ifindex)) if ifindex < 4 => {
                via(&[hop("10.0.0.2", ifindex)], metric.max(1), false)
            }
            _ => NextHopState::Unreachable,
        };
        prop_assert_eq!(resolve(wanted.into(), &foreign, &links()), expected);
    }
}

#[test]
fn a_link_local_next_hop_is_on_the_interface_of_its_session() {
    let mut links = Links::default();
    for (index, running) in [(3, true), (4, false)] {
        let name = format!("eth{index}");
        let link = LinkMessage { index, name, up: true, running, ..LinkMessage::default() };
        links.handle_link(LinkMessage { skipped_without_carrier: [true; 2], ..link });
    }
    links.handle_address(AddressMessage {
        ifindex: 3,
        local: addr("fe80::9"),
        network: "fe80::/64".parse().unwrap(),
        scope: Scope::Narrow,
        secondary: false,
        usable: true,
    });
    let foreign = Foreign::default();
    let resolver = Resolver::new(&foreign, &links, 254);
    let state = |address: &str, ifindex: u32| {
        resolver.resolve(bgp_proto::types::on_interface(addr(address), ifindex)).state
    };
    let NextHopState::Via { hops, connected, interface, metric, .. } = state("fe80::1", 3) else {
        panic!("{:?}", state("fe80::1", 3));
    };
    assert_eq!((&hops[..], connected, metric), (&[hop("fe80::1", 3)][..], true, 0));
    assert_eq!(interface.as_deref(), Some("eth3"));
    assert_eq!(state("fe80::9", 3), NextHopState::Local);
    assert_eq!(state("fe80::1", 4), NextHopState::Unreachable, "no carrier");
    assert_eq!(state("fe80::1", 5), NextHopState::Unreachable, "no such interface");
    assert_eq!(
        state("fe80::1", 0),
        NextHopState::Unreachable,
        "of a session that is not on a link"
    );
}
