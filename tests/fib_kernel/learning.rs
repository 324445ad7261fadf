//! Next hops and learned routes as the kernel's events change them.

use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::types::Prefix;
use margay::kernel::{
    FibEvent, LearnRule, LearnSource, LearnedKind, LearnedRoute, Leave, NextHopState, Over,
};

use crate::namespace::{Running, hop, in_namespace, ip, veth, via, without_metric};

fn start() -> Running {
    Running::start(without_metric())
}

/// Waits for the next report about an address.
fn next_hop(fib: &Running, addr: IpAddr) -> NextHopState {
    let event = fib.wait_event(|e| matches!(e, FibEvent::NextHop { addr: a, .. } if *a == addr));
    let FibEvent::NextHop { state, .. } = event else { unreachable!() };
    state
}

fn connected(gateway: &str, interface: &str) -> NextHopState {
    NextHopState::Via {
        hops: vec![hop(gateway, interface)],
        metric: 0,
        connected: true,
        interface: Some(interface.into()),
        over: Over::Specific,
    }
}

#[test]
#[ignore = "needs root"]
fn next_hops_follow_links_addresses_and_routes() {
    in_namespace("learning::next_hops_follow_links_addresses_and_routes", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("w0", "10.0.1.1/24", "");
        let fib = start();
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let (near, far, own) = (addr("10.0.0.2"), addr("192.0.2.9"), addr("10.0.1.1"));
        let six = addr("2001:db8::7");
        fib.fib.track(near);
        assert_eq!(next_hop(&fib, near), connected("10.0.0.2", "v0"));
        fib.fib.track(six);
        assert_eq!(next_hop(&fib, six), connected("2001:db8::7", "v0"));
        fib.fib.track(own);
        assert_eq!(next_hop(&fib, own), NextHopState::Local);
        fib.fib.track(far);
        assert_eq!(next_hop(&fib, far), NextHopState::Unreachable);
        // A route of ours does not resolve it, whatever its prefix length.
        fib.fib.end_of_startup();
        fib.want("192.0.2.0/24", via("10.0.1.2", "w0"));
        fib.wait_state("192.0.2.0/24", margay::kernel::FibState::Installed);
        // A default route of another program does, with its gateway.
        ip("route add default via 10.0.0.254 proto 4 metric 30");
        let gateway = |gw: &str, dev: &str, metric| NextHopState::Via {
            hops: vec![hop(gw, dev)],
            metric,
            connected: false,
            interface: Some(dev.into()),
            over: if metric == 30 { Over::Default } else { Over::Specific },
        };
        assert_eq!(next_hop(&fib, far), gateway("10.0.0.254", "v0", 30));
        ip("route add 192.0.2.0/28 via 10.0.1.254 proto 4");
        assert_eq!(next_hop(&fib, far), gateway("10.0.1.254", "w0", 1));
        ip("route replace 192.0.2.0/28 via 10.0.1.253 proto 4");
        assert_eq!(next_hop(&fib, far), gateway("10.0.1.253", "w0", 1));
        ip("route add blackhole 192.0.2.9/32 proto 4");
        assert_eq!(next_hop(&fib, far), NextHopState::Unreachable);
        ip("route del blackhole 192.0.2.9/32 proto 4");
        assert_eq!(next_hop(&fib, far), gateway("10.0.1.253", "w0", 1));
        // Carrier is lost: the kernel keeps the route, but its packets are lost.
        ip("link set w0p down");
        assert_eq!(next_hop(&fib, far), NextHopState::Unreachable);
        ip("link set w0p up");
        assert_eq!(next_hop(&fib, far), gateway("10.0.1.253", "w0", 1));
        ip("link set w0 down");
        assert_eq!(next_hop(&fib, far), gateway("10.0.0.254", "v0", 30));
        // Untracked addresses are not reported; tracking again reports at once.
        fib.fib.untrack(near);
        fib.fib.track(far);
        assert_eq!(next_hop(&fib, far), gateway("10.0.0.254", "v0", 30));
        fib.take_events();
        ip("link set v0 down");
        assert_eq!(next_hop(&fib, far), NextHopState::Unreachable);
        let silent = |e: &FibEvent| !matches!(e, FibEvent::NextHop { addr, .. } if *addr == near);
        assert!(fib.take_events().iter().all(silent));
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn an_address_added_or_removed_changes_what_is_local() {
    in_namespace("learning::an_address_added_or_removed_changes_what_is_local", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = start();
        let addr: IpAddr = "10.0.0.2".parse().unwrap();
        fib.fib.track(addr);
        assert_eq!(next_hop(&fib, addr), connected("10.0.0.2", "v0"));
        ip("addr add 10.0.0.2/24 dev v0");
        assert_eq!(next_hop(&fib, addr), NextHopState::Local);
        ip("addr del 10.0.0.2/24 dev v0");
        assert_eq!(next_hop(&fib, addr), connected("10.0.0.2", "v0"));
        fib.stop(Leave::Keep);
    });
}

fn learned(fib: &Running, prefix: &str) -> LearnedRoute {
    let prefix: Prefix = prefix.parse().unwrap();
    let event =
        fib.wait_event(|e| matches!(e, FibEvent::Learned { route } if route.prefix == prefix));
    let FibEvent::Learned { route } = event else { unreachable!() };
    route
}

fn forgotten(fib: &Running, prefix: &str) {
    let prefix: Prefix = prefix.parse().unwrap();
    fib.wait_event(|e| matches!(e, FibEvent::Forgotten { prefix: p, .. } if *p == prefix));
}

#[test]
#[ignore = "needs root"]
fn workload_routes_are_learned_by_event() {
    in_namespace("learning::workload_routes_are_learned_by_event", || {
        veth("v0", "10.0.0.1/24", "");
        veth("cali1", "", "2001:db8:f::1/64");
        ip("route add 10.65.1.2/32 dev cali1 proto 80");
        ip("route add 10.65.1.3/32 dev v0 proto 80");
        ip("route add 10.66.0.0/16 dev cali1 proto 80");
        ip("route add 10.65.1.4/32 dev cali1 proto 4");
        ip("route add 10.65.9.0/26 via 10.0.0.2 proto 12");
        let fib = start();
        fib.fib.learn(vec![LearnRule {
            from: LearnSource::Kernel,
            protocols: vec![80],
            interfaces: vec!["cali*".to_owned()],
            prefixes: vec!["10.65.0.0/16".parse().unwrap()],
        }]);
        let route = learned(&fib, "10.65.1.2/32");
        let prefix = "10.65.1.2/32".parse().unwrap();
        let expected = LearnedRoute {
            prefix,
            protocol: 80,
            interface: Some("cali1".to_owned()),
            kind: LearnedKind::Direct,
            gateway: None,
            hops: route.hops.clone(),
            metric: 0,
            connected: false,
        };
        assert_eq!(route, expected);
        ip("route add 10.65.1.5/32 dev cali1 proto 80 metric 1024");
        assert_eq!(learned(&fib, "10.65.1.5/32").metric, 1024);
        // Live migration: a second route with a better metric, then the first is deleted.
        ip("route add 10.65.1.5/32 dev cali1 proto 80 metric 512");
        assert_eq!(learned(&fib, "10.65.1.5/32").metric, 512);
        ip("route del 10.65.1.5/32 dev cali1 proto 80 metric 512");
        assert_eq!(learned(&fib, "10.65.1.5/32").metric, 1024);
        ip("route del 10.65.1.5/32 dev cali1 proto 80 metric 1024");
        forgotten(&fib, "10.65.1.5/32");
        // With new rules only the differences are reported.
        fib.fib.learn(vec![LearnRule {
            from: LearnSource::Kernel,
            protocols: vec![],
            interfaces: vec![],
            prefixes: vec!["10.65.0.0/16".parse().unwrap()],
        }]);
        learned(&fib, "10.65.1.3/32");
        learned(&fib, "10.65.1.4/32");
        ip("route add blackhole 10.65.7.0/26 proto 80");
        let route = learned(&fib, "10.65.7.0/26");
        assert_eq!((route.kind, route.interface), (LearnedKind::Blackhole, None));
        ip("route add 10.65.8.0/26 via 10.0.0.9 proto 4");
        let route = learned(&fib, "10.65.8.0/26");
        assert_eq!(route.gateway, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(route.kind, LearnedKind::Unicast);
        // The pod's interface is deleted, and with it its routes, without an event.
        ip("link del cali1");
        forgotten(&fib, "10.65.1.2/32");
        forgotten(&fib, "10.65.1.4/32");
        fib.fib.learn(vec![]);
        forgotten(&fib, "10.65.8.0/26");
        let own = |e: &FibEvent| matches!(e, FibEvent::Learned { route } if route.protocol == 12);
        assert!(!fib.take_events().iter().any(own));
        fib.stop(Leave::Keep);
    });
}

#[test]
#[ignore = "needs root"]
fn connected_networks_are_learned_by_event() {
    in_namespace("learning::connected_networks_are_learned_by_event", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("cali1", "10.9.0.1/24", "");
        let fib = start();
        fib.fib.learn(vec![LearnRule {
            from: LearnSource::Connected,
            protocols: vec![],
            interfaces: vec!["-cali*".to_owned(), "*".to_owned()],
            prefixes: vec![],
        }]);
        let route = learned(&fib, "10.0.0.0/24");
        assert!(route.connected && route.kind == LearnedKind::Direct);
        assert_eq!(route.interface.as_deref(), Some("v0"));
        learned(&fib, "2001:db8::/64");
        ip("addr add 10.244.1.1/32 dev v0");
        learned(&fib, "10.244.1.1/32");
        ip("link set v0 down");
        forgotten(&fib, "10.0.0.0/24");
        ip("link set v0 up");
        learned(&fib, "10.0.0.0/24");
        ip("addr del 10.244.1.1/32 dev v0");
        forgotten(&fib, "10.244.1.1/32");
        let excluded: Prefix = "10.9.0.0/24".parse().unwrap();
        let bad =
            |e: &FibEvent| matches!(e, FibEvent::Learned { route } if route.prefix == excluded);
        assert!(!fib.take_events().iter().any(bad));
        fib.stop(Leave::Keep);
    });
}

/// The kernel sends no event for routes that it deletes with their source address, or with the last
/// address of an interface; with any other address it deletes none.
#[test]
#[ignore = "needs root"]
fn routes_of_others_that_are_lost_with_an_address_are_noticed() {
    in_namespace("learning::routes_of_others_that_are_lost_with_an_address_are_noticed", || {
        veth("v0", "10.0.0.1/24", "");
        ip("addr add 10.244.1.1/32 dev v0");
        ip("addr add 10.244.1.2/32 dev v0");
        let fib = start();
        fib.fib.learn(vec![LearnRule {
            from: LearnSource::Kernel,
            protocols: vec![],
            interfaces: vec![],
            prefixes: vec![],
        }]);
        ip("route add 192.0.2.0/24 via 10.0.0.9 src 10.244.1.1");
        ip("route add 198.51.100.0/24 via 10.0.0.9");
        ip("route add 203.0.113.0/24 dev v0 scope link");
        for prefix in ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"] {
            learned(&fib, prefix);
        }
        let readings = fib.fib.counters().resyncs;
        ip("addr del 10.244.1.2/32 dev v0");
        ip("route add 192.0.2.128/25 via 10.0.0.9");
        learned(&fib, "192.0.2.128/25");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(fib.fib.counters().resyncs, readings, "no route can have been deleted");
        ip("addr del 10.244.1.1/32 dev v0");
        forgotten(&fib, "192.0.2.0/24");
        ip("addr del 10.0.0.1/24 dev v0");
        forgotten(&fib, "198.51.100.0/24");
        forgotten(&fib, "203.0.113.0/24");
        fib.stop(Leave::Keep);
    });
}
