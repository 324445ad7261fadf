//! Next hops are resolved as the kernel forwards; `ip route get` is the reference.

use std::net::IpAddr;

use bgp_proto::types::{FibRoute, Recursion};
use margay::kernel::{FibEvent, Leave, NextHopState, Over};

use crate::namespace::{Running, eventually, in_namespace, ip, main_table, veth, via};

fn state(fib: &Running, addr: &str) -> NextHopState {
    let addr: IpAddr = addr.parse().unwrap();
    fib.fib.track(addr);
    let event =
        fib.wait_event(|event| matches!(event, FibEvent::NextHop { addr: a, .. } if *a == addr));
    let FibEvent::NextHop { state, .. } = event else { unreachable!() };
    state
}

/// The gateway and the interface over which an address is reached.
fn way(fib: &Running, addr: &str) -> Option<(String, String)> {
    let NextHopState::Via { hops, interface, .. } = state(fib, addr) else { return None };
    let gateway = hops[0].gateway.unwrap();
    Some((gateway.to_string(), interface.unwrap().to_string()))
}

pub(crate) fn becomes(fib: &Running, addr: &str, expected: Option<(&str, &str)>) {
    let expected = expected.map(|(via, dev)| (via.to_owned(), dev.to_owned()));
    eventually(&format!("{addr} is reached by {expected:?}"), || {
        (way(fib, addr) == expected).then_some(())
    });
}

#[test]
#[ignore = "needs root"]
fn a_network_without_carrier_does_not_fall_back_to_the_default_route() {
    let name = "resolving::a_network_without_carrier_does_not_fall_back_to_the_default_route";
    in_namespace(name, || {
        veth("v0", "10.9.0.1/24", "2001:db8:9::1/64");
        veth("v5", "10.8.0.1/24", "2001:db8:8::1/64");
        ip("route add default via 10.9.0.254");
        ip("-6 route add default via 2001:db8:9::fe");
        let fib = Running::with_defaults();
        let far = state(&fib, "192.0.2.1");
        assert!(matches!(far, NextHopState::Via { over: Over::Default, .. }), "{far:?}");
        becomes(&fib, "10.8.0.2", Some(("10.8.0.2", "v5")));
        becomes(&fib, "2001:db8:8::2", Some(("2001:db8:8::2", "v5")));
        ip("link set v5p down");
        assert!(ip("route get 10.8.0.2").contains("dev v5"), "the kernel sends it there");
        becomes(&fib, "10.8.0.2", None);
        becomes(&fib, "2001:db8:8::2", None);
        let by = fib.fib.decided_by("10.8.0.2".parse().unwrap()).unwrap();
        assert_eq!((by.prefix.to_string(), by.down), ("10.8.0.0/24".into(), vec!["v5".into()]));
        // If the kernel ignores such networks, so do we.
        ip("link set v5 down");
        std::fs::write("/proc/sys/net/ipv4/conf/v5/ignore_routes_with_linkdown", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/v5/ignore_routes_with_linkdown", "1").unwrap();
        ip("link set v5 up");
        ip("addr add 2001:db8:8::1/64 dev v5 nodad");
        assert!(ip("route get 10.8.0.2").contains("via 10.9.0.254"));
        becomes(&fib, "10.8.0.2", Some(("10.9.0.254", "v0")));
        becomes(&fib, "2001:db8:8::2", Some(("2001:db8:9::fe", "v0")));
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn device_routes_of_equal_metric_are_distinguished() {
    in_namespace("resolving::device_routes_of_equal_metric_are_distinguished", || {
        veth("v1", "", "2001:db8:1::1/64");
        veth("v2", "", "2001:db8:2::1/64");
        ip("-6 route add 2001:db8:9::/64 dev v1 metric 10");
        let fib = Running::with_defaults();
        becomes(&fib, "2001:db8:9::1", Some(("2001:db8:9::1", "v1")));
        ip("-6 route append 2001:db8:9::/64 dev v2 metric 10");
        ip("-6 route del 2001:db8:9::/64 dev v2 metric 10");
        becomes(&fib, "2001:db8:9::1", Some(("2001:db8:9::1", "v1")));
        ip("-6 route del 2001:db8:9::/64 dev v1 metric 10");
        becomes(&fib, "2001:db8:9::1", None);
        fib.stop(Leave::Withdraw);
    });
}

/// An IPv4 route of global scope without a gateway: the kernel accepts gateways on it only with the
/// onlink flag.
#[test]
#[ignore = "needs root"]
fn routes_over_a_device_route_of_global_scope_are_written() {
    in_namespace("resolving::routes_over_a_device_route_of_global_scope_are_written", || {
        veth("v1", "10.0.1.1/24", "");
        veth("v2", "10.0.2.1/24", "");
        ip("route add 10.9.0.0/24 scope global nexthop dev v1 nexthop dev v2");
        let fib = Running::with_defaults();
        let NextHopState::Via { hops, .. } = state(&fib, "10.9.0.7") else { panic!("unresolved") };
        assert_eq!(hops.len(), 2);
        fib.want("10.66.0.0/16", bgp_proto::types::FibKind::Unicast(hops));
        let row = fib.wait_state("10.66.0.0/16", margay::kernel::FibState::Installed);
        assert_eq!((row.gateways.len(), row.error), (2, None));
        fib.stop(Leave::Withdraw);
    });
}

/// Loopbacks of internal peers are reached over routes of external ones.
#[test]
#[ignore = "needs root"]
fn a_next_hop_resolves_over_an_external_peers_route_and_never_over_itself() {
    let name = "resolving::a_next_hop_resolves_over_an_external_peers_route_and_never_over_itself";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::start(main_table());
        fib.fib.end_of_startup();
        let submit = |prefix: &str, gateway: &str, recursion| {
            let prefix = prefix.parse().unwrap();
            let route = FibRoute { recursion, ..FibRoute::new(prefix, via(gateway, "v0")) };
            fib.fib.submit([(prefix, Some(route))]);
        };
        becomes(&fib, "192.0.2.1", None);
        submit("192.0.2.1/32", "10.0.0.2", Recursion::Recursive);
        becomes(&fib, "192.0.2.1", None);
        submit("192.0.2.1/32", "10.0.0.2", Recursion::Direct);
        becomes(&fib, "192.0.2.1", Some(("10.0.0.2", "v0")));
        submit("192.0.2.1/32", "10.0.0.3", Recursion::Direct);
        becomes(&fib, "192.0.2.1", Some(("10.0.0.3", "v0")));
        // Not used for an address on the link, or two routes would depend on each other.
        submit("10.0.0.7/32", "10.0.0.3", Recursion::Direct);
        becomes(&fib, "10.0.0.7", Some(("10.0.0.7", "v0")));
        fib.withdraw("192.0.2.1/32");
        becomes(&fib, "192.0.2.1", None);
        fib.stop(Leave::Withdraw);
    });
}
