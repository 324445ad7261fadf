//! Next-hop objects of other programs, and routes over them.

use std::net::IpAddr;

use margay::kernel::{FibConfig, FibEvent, LearnRule, LearnSource, Leave, NextHopState};

use crate::namespace::{Running, eventually, in_namespace, ip, main_table, veth};

/// Runs a scenario with both forms in which the kernel reports routes over objects.
fn with_and_without_compatibility(scenario: impl Fn()) {
    for mode in ["1", "0"] {
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", mode).unwrap();
        scenario();
    }
}

/// The gateways by which a next hop is reached; empty if it is unreachable.
fn gateways(fib: &Running, addr: &str) -> Vec<String> {
    let addr: IpAddr = addr.parse().unwrap();
    fib.fib.track(addr);
    let event =
        fib.wait_event(|event| matches!(event, FibEvent::NextHop { addr: a, .. } if *a == addr));
    match event {
        FibEvent::NextHop { state: NextHopState::Via { hops, .. }, .. } => {
            hops.iter().map(|hop| hop.gateway.unwrap().to_string()).collect()
        }
        _ => Vec::new(),
    }
}

fn becomes(fib: &Running, addr: &str, expected: &[&str]) {
    eventually(&format!("{addr} is reached over {expected:?}"), || {
        (gateways(fib, addr) == expected).then_some(())
    });
}

#[test]
#[ignore = "needs root"]
fn next_hops_follow_the_objects_of_others() {
    in_namespace("objects::next_hops_follow_the_objects_of_others", || {
        veth("v1", "172.16.1.1/24", "2001:db8:1::1/64");
        veth("v2", "172.16.2.1/24", "2001:db8:2::1/64");
        with_and_without_compatibility(|| {
            ip("nexthop add id 100 via 172.16.1.2 dev v1");
            ip("nexthop add id 101 via 172.16.2.2 dev v2");
            ip("nexthop add id 110 group 100/101");
            ip("nexthop add id 120 via 172.16.1.9 dev v1");
            ip("nexthop add id 200 via 2001:db8:1::2 dev v1");
            ip("nexthop add id 201 via 2001:db8:2::2 dev v2");
            ip("nexthop add id 210 group 200/201");
            ip("route add 10.9.0.0/16 nhid 110");
            ip("route add 10.8.0.0/16 nhid 120");
            ip("-6 route add 2001:db8:9::/48 nhid 210");
            let fib = Running::start(FibConfig { enabled: false, ..main_table() });
            let check = |v4: &[&str], v6: &[&str]| {
                becomes(&fib, "10.9.0.1", v4);
                becomes(&fib, "2001:db8:9::1", v6);
            };
            check(&["172.16.1.2", "172.16.2.2"], &["2001:db8:1::2", "2001:db8:2::2"]);
            becomes(&fib, "10.8.0.1", &["172.16.1.9"]);
            ip("nexthop replace id 120 via 172.16.1.8 dev v1");
            becomes(&fib, "10.8.0.1", &["172.16.1.8"]);
            ip("nexthop replace id 120 blackhole");
            becomes(&fib, "10.8.0.1", &[]);
            ip("nexthop replace id 120 via 172.16.2.8 dev v2");
            becomes(&fib, "10.8.0.1", &["172.16.2.8"]);
            // A member is deleted, and added to the group again.
            ip("nexthop del id 100");
            ip("nexthop del id 200");
            check(&["172.16.2.2"], &["2001:db8:2::2"]);
            ip("nexthop add id 100 via 172.16.1.3 dev v1");
            ip("nexthop replace id 110 group 100/101");
            ip("nexthop add id 200 via 2001:db8:1::3 dev v1");
            ip("nexthop replace id 210 group 200/201");
            check(&["172.16.1.3", "172.16.2.2"], &["2001:db8:1::3", "2001:db8:2::2"]);
            // When the carrier is lost, the kernel deletes the objects over the interface without
            // an event.
            ip("link set v2p down");
            check(&["172.16.1.3"], &["2001:db8:1::3"]);
            becomes(&fib, "10.8.0.1", &[]);
            ip("link set v2p up");
            ip("nexthop add id 120 via 172.16.2.8 dev v2");
            ip("route add 10.8.0.0/16 nhid 120");
            becomes(&fib, "10.8.0.1", &["172.16.2.8"]);
            // The routes are deleted with the object.
            ip("nexthop del id 110");
            ip("nexthop del id 210");
            check(&[], &[]);
            // A new route over another interface with the same metric is used.
            ip("route add 10.9.0.0/16 via 172.16.2.7");
            becomes(&fib, "10.9.0.1", &["172.16.2.7"]);
            ip("route del 10.9.0.0/16");
            fib.stop(Leave::Keep);
            ip("nexthop flush");
        });
    });
}

#[test]
#[ignore = "needs root"]
fn routes_over_objects_are_learned_and_forgotten() {
    in_namespace("objects::routes_over_objects_are_learned_and_forgotten", || {
        veth("v1", "172.16.1.1/24", "");
        with_and_without_compatibility(|| {
            let fib = Running::start(FibConfig { enabled: false, ..main_table() });
            fib.fib.learn(vec![LearnRule {
                from: LearnSource::Kernel,
                protocols: vec![4],
                interfaces: vec!["v1".into()],
                prefixes: vec![],
            }]);
            ip("nexthop add id 100 via 172.16.1.2 dev v1");
            ip("route add 10.9.0.0/16 nhid 100 proto 4");
            fib.wait_event(|event| {
                matches!(event, FibEvent::Learned { route }
                    if route.gateway == Some("172.16.1.2".parse().unwrap()))
            });
            ip("nexthop del id 100");
            fib.wait_event(|event| matches!(event, FibEvent::Forgotten { .. }));
            fib.stop(Leave::Keep);
        });
    });
}
