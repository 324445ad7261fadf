use bgp_proto::types::Prefix;
use proptest::prelude::*;
use smallvec::SmallVec;

use super::super::message::{AddressMessage, LinkMessage, Scope};
use super::*;

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
    });
    links
}

fn via(hops: &[Hop], metric: u32, connected: bool) -> NextHopState {
    let interface = match hops {
        [hop] => Some(format!("eth{}", hop.ifindex).into()),
        _ => None,
    };
    NextHopState::Via { hops: hops.to_vec(), metric, connected, interface }
}

#[test]
fn the_most_specific_usable_route_decides() {
    let foreign = foreign(&[
        ("0.0.0.0/0", route(100, &[hop("10.0.0.254", 1)])),
        ("10.0.0.0/24", route(0, &[hop("", 1)])),
        ("192.0.2.0/24", route(0, &[hop("10.0.0.9", 1)])),
        ("192.0.2.0/28", route(0, &[hop("10.4.0.9", 4)])),
    ]);
    let resolve = |text| resolve(addr(text), &foreign, &links());
    assert_eq!(resolve("10.0.0.7"), via(&[hop("10.0.0.7", 1)], 0, true));
    assert_eq!(resolve("10.0.0.1"), NextHopState::Local);
    assert_eq!(resolve("198.51.100.1"), via(&[hop("10.0.0.254", 1)], 100, false));
    // No carrier on the more specific one; a gateway is never as near as a connected network.
    assert_eq!(resolve("192.0.2.1"), via(&[hop("10.0.0.9", 1)], 1, false));
    assert_eq!(resolve("2001:db8::1"), NextHopState::Unreachable);
    assert_eq!(resolve("0.0.0.0"), NextHopState::Unreachable);
    assert_eq!(resolve("224.0.0.5"), NextHopState::Unreachable);
}

#[test]
fn the_lowest_metric_decides_within_a_prefix() {
    let low = route(10, &[hop("10.0.0.2", 1)]);
    let down = route(5, &[hop("10.5.0.2", 5)]);
    let high = route(20, &[hop("10.0.0.3", 2)]);
    let other_tos = KernelRoute { tos: 16, metric: 1, ..high.clone() };
    let p = "192.0.2.0/24";
    let foreign = foreign(&[(p, high), (p, low), (p, down), (p, other_tos)]);
    let state = resolve(addr("192.0.2.1"), &foreign, &links());
    assert_eq!(state, via(&[hop("10.0.0.2", 1)], 10, false));
}

#[test]
fn a_dropping_route_is_an_answer_and_not_a_gap() {
    let drops = [KernelKind::Blackhole, KernelKind::Unreachable, KernelKind::Prohibit];
    for kind in drops {
        let drop = KernelRoute { kind, ..route(0, &[]) };
        let default = route(0, &[hop("10.0.0.254", 1)]);
        let foreign = foreign(&[("0.0.0.0/0", default), ("192.0.2.0/24", drop)]);
        assert_eq!(resolve(addr("192.0.2.1"), &foreign, &links()), NextHopState::Unreachable);
    }
}

#[test]
fn of_several_legs_the_usable_ones_stay() {
    let legs = [
        Hop { weight: 5, onlink: true, ..hop("10.0.1.2", 2) },
        hop("10.0.0.2", 1),
        hop("10.4.0.2", 4),
    ];
    let foreign = foreign(&[("192.0.2.0/24", route(7, &legs))]);
    let state = resolve(addr("192.0.2.1"), &foreign, &links());
    assert_eq!(state, via(&[legs[1], legs[0]], 7, false));
}

proptest! {
    /// Compared with looking at every route there is.
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
            .filter(|(prefix, _, ifindex)| prefix.contains_addr(wanted.into()) && *ifindex < 4)
            .min_by_key(|(prefix, metric, _)| (32 - prefix.len(), *metric));
        let expected = match best {
            Some((_, metric, ifindex)) => via(&[hop("10.0.0.2", ifindex)], metric.max(1), false),
            None => NextHopState::Unreachable,
        };
        prop_assert_eq!(resolve(wanted.into(), &foreign, &links()), expected);
    }
}
