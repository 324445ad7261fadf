//! Routes as written to the kernel.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bgp_proto::types::{FibKind, FibRoute, Hop, Prefix};
use futures_util::FutureExt;
use margay::kernel::{Fib, FibConfig, FibState, Leave, RouteDefaults};

use crate::namespace::{
    Running, eventually, hop, ifindex, in_namespace, ip, main_table, routes, veth, via,
    without_metric,
};

#[test]
#[ignore = "needs root"]
fn every_kind_of_route_reads_back_as_wanted() {
    in_namespace("writing::every_kind_of_route_reads_back_as_wanted", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("w0", "10.0.1.1/24", "2001:db8:1::1/64");
        let fib = Running::started();
        let weighted = Hop { weight: 3, ..hop("10.0.1.2", "w0") };
        let onlink = Hop { onlink: true, ..hop("172.31.0.9", "w0") };
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.want("10.2.0.0/16", FibKind::Unicast(vec![weighted, hop("10.0.0.2", "v0")]));
        fib.want("10.3.0.0/16", FibKind::Blackhole);
        fib.want("10.4.0.0/16", FibKind::Unicast(vec![onlink]));
        fib.want("10.5.0.0/16", FibKind::Unreachable);
        fib.want("10.6.0.0/16", via("", "v0"));
        fib.want("10.7.0.0/16", via("2001:db8::2", "v0"));
        fib.want("10.8.0.0/16", FibKind::Unicast(vec![onlink, hop("10.0.0.2", "v0")]));
        fib.want("2001:db8:a::/48", via("2001:db8::2", "v0"));
        let legs = vec![hop("2001:db8::2", "v0"), hop("2001:db8:1::2", "w0")];
        fib.want("2001:db8:b::/48", FibKind::Unicast(legs));
        fib.want("2001:db8:c::/48", FibKind::Blackhole);
        let onlink6 = Hop { onlink: true, ..hop("2001:db8:ff::9", "w0") };
        fib.want("2001:db8:d::/48", FibKind::Unicast(vec![onlink6]));
        fib.want("2001:db8:e::/48", FibKind::Unreachable);
        let all = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
        let more = ["10.6.0.0/16", "10.7.0.0/16", "10.8.0.0/16"];
        let six = ["a", "b", "c", "d", "e"].map(|x| format!("2001:db8:{x}::/48"));
        for prefix in all.into_iter().chain(more).chain(six.iter().map(String::as_str)) {
            fib.wait_state(prefix, FibState::Installed);
        }
        assert_eq!(
            routes("route show proto 12"),
            [
                "10.1.0.0/16 via 10.0.0.2 dev v0",
                "10.2.0.0/16 nexthop via 10.0.0.2 dev v0 weight 1 nexthop via 10.0.1.2 dev w0 weight 3",
                "blackhole 10.3.0.0/16",
                "10.4.0.0/16 via 172.31.0.9 dev w0 onlink",
                "unreachable 10.5.0.0/16",
                "10.6.0.0/16 dev v0 scope 253",
                "10.7.0.0/16 via inet6 2001:db8::2 dev v0",
                "10.8.0.0/16 nexthop via 10.0.0.2 dev v0 weight 1 nexthop via 172.31.0.9 dev w0 weight 1 onlink",
            ]
        );
        assert_eq!(
            routes("-6 route show proto 12"),
            [
                "2001:db8:a::/48 via 2001:db8::2 dev v0 metric 1024 pref medium",
                "2001:db8:b::/48 metric 1024 pref medium nexthop via 2001:db8::2 dev v0 weight 1 nexthop via 2001:db8:1::2 dev w0 weight 1",
                "blackhole 2001:db8:c::/48 dev lo metric 1024 pref medium",
                "2001:db8:d::/48 via 2001:db8:ff::9 dev w0 metric 1024 onlink pref medium",
                "unreachable 2001:db8:e::/48 dev lo metric 1024 pref medium",
            ]
        );
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
        assert!(routes("-6 route show proto 12").is_empty());
    });
}

#[test]
#[ignore = "needs root"]
fn adopting_the_same_routes_writes_nothing() {
    in_namespace("writing::adopting_the_same_routes_writes_nothing", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("w0", "10.0.1.1/24", "2001:db8:1::1/64");
        let submit = |fib: &Running| {
            let onlink = |gateway| Hop { onlink: true, ..hop(gateway, "w0") };
            fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
            let legs = vec![hop("10.0.1.2", "w0"), hop("10.0.0.2", "v0")];
            fib.want("10.2.0.0/16", FibKind::Unicast(legs));
            fib.want("10.3.0.0/16", FibKind::Blackhole);
            fib.want("10.4.0.0/16", via("", "v0"));
            fib.want("10.5.0.0/16", FibKind::Unicast(vec![onlink("172.31.0.9")]));
            fib.want("10.6.0.0/16", via("2001:db8::2", "v0"));
            let legs = vec![onlink("172.31.0.9"), Hop { weight: 7, ..hop("10.0.0.2", "v0") }];
            fib.want("10.7.0.0/16", FibKind::Unicast(legs));
            let legs = vec![hop("2001:db8:1::2", "w0"), hop("2001:db8::2", "v0")];
            fib.want("2001:db8:b::/48", FibKind::Unicast(legs));
            fib.want("2001:db8:c::/48", FibKind::Blackhole);
            fib.want("2001:db8:d::/48", FibKind::Unreachable);
            fib.want("2001:db8:e::/48", FibKind::Unicast(vec![onlink("2001:db8:ff::9")]));
            fib.want("2001:db8:f::/48", via("", "v0"));
            fib.want("2001:db8:10::/48", via("fe80::2", "v0"));
        };
        let first = Running::started();
        submit(&first);
        first.stop(Leave::Keep);
        let second = Running::start(without_metric());
        submit(&second);
        second.fib.end_of_startup();
        // A final write to wait for.
        second.want("10.99.0.0/16", FibKind::Blackhole);
        second.wait_state("10.99.0.0/16", FibState::Installed);
        assert_eq!(second.fib.counters().writes, 1);
        assert_eq!(second.fib.counters().installed, 14);
        second.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn kinds_and_metrics_change_in_place() {
    in_namespace("writing::kinds_and_metrics_change_in_place", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        let fib = Running::started();
        let prefixes = ["10.1.0.0/16", "2001:db8:a::/48"];
        let gateways = ["10.0.0.2", "2001:db8::2"];
        for (prefix, gateway) in prefixes.into_iter().zip(gateways) {
            for kind in [FibKind::Blackhole, via(gateway, "v0"), FibKind::Unreachable] {
                fib.want(prefix, kind);
                fib.wait_state(prefix, FibState::Installed);
            }
            // Another metric is another place in the kernel: the old route must be deleted.
            let parsed: Prefix = prefix.parse().unwrap();
            let kind = via(gateway, "v0");
            let route = FibRoute { metric: Some(512), ..FibRoute::new(parsed, kind) };
            fib.fib.submit([(parsed, Some(route))]);
            fib.wait_state(prefix, FibState::Installed);
        }
        fib.want("10.9.0.0/16", FibKind::Blackhole);
        fib.wait_state("10.9.0.0/16", FibState::Installed);
        fib.withdraw("10.9.0.0/16");
        fib.wait_gone("10.9.0.0/16");
        fib.stop(Leave::Keep);
        assert_eq!(routes("route show proto 12"), ["10.1.0.0/16 via 10.0.0.2 dev v0 metric 512"]);
        assert_eq!(
            routes("-6 route show proto 12"),
            ["2001:db8:a::/48 via 2001:db8::2 dev v0 metric 512 pref medium"]
        );
    });
}

#[test]
#[ignore = "needs root"]
fn another_table_protocol_and_metric() {
    in_namespace("writing::another_table_protocol_and_metric", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        let defaults = RouteDefaults { metric: Some(500), ..RouteDefaults::default() };
        let config = FibConfig { defaults, ..FibConfig::new(1000, 99) };
        let fib = Running::start(config);
        fib.fib.end_of_startup();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.want("10.2.0.0/16", FibKind::Blackhole);
        fib.want("2001:db8:a::/48", via("2001:db8::2", "v0"));
        fib.wait_state("10.2.0.0/16", FibState::Installed);
        let row = fib.wait_state("2001:db8:a::/48", FibState::Installed);
        assert_eq!((row.table, row.protocol, row.metric), (1000, 99, 500));
        assert_eq!(
            routes("route show table 1000"),
            [
                "10.1.0.0/16 via 10.0.0.2 dev v0 proto 99 metric 500",
                "blackhole 10.2.0.0/16 proto 99 metric 500"
            ]
        );
        // It can be changed in place in that table.
        fib.want("10.1.0.0/16", via("10.0.0.3", "v0"));
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.withdraw("10.2.0.0/16");
        fib.wait_gone("10.2.0.0/16");
        assert_eq!(
            routes("route show table 1000"),
            ["10.1.0.0/16 via 10.0.0.3 dev v0 proto 99 metric 500"]
        );
        fib.stop(Leave::Withdraw);
        assert!(routes("route show table 1000").is_empty());
        assert!(routes("-6 route show table 1000").is_empty());
    });
}

#[test]
#[ignore = "needs root"]
fn a_refused_route_is_explained_and_retried_when_an_address_is_added() {
    let name = "writing::a_refused_route_is_explained_and_retried_when_an_address_is_added";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        fib.want("10.1.0.0/16", via("10.0.5.2", "v0"));
        let row = fib.wait_state("10.1.0.0/16", FibState::Failed);
        let error = row.error.unwrap();
        assert!(error.contains("Network is unreachable"), "{error}");
        assert!(error.contains("exthop"), "the kernel's explanation is missing: {error}");
        // A route over the same hop is known to be refused and is not written.
        let before = fib.fib.counters().writes;
        fib.want("10.2.0.0/16", via("10.0.5.2", "v0"));
        fib.wait_state("10.2.0.0/16", FibState::Failed);
        assert_eq!(fib.fib.counters().writes, before);
        assert_eq!(fib.fib.counters().failed, 2);
        ip("addr add 10.0.5.1/24 dev v0");
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.wait_state("10.2.0.0/16", FibState::Installed);
        assert_eq!(fib.fib.counters().failed, 0);
        // After a change to a refused hop, the old route stays.
        fib.want("10.2.0.0/16", via("10.0.9.9", "v0"));
        let row = fib.wait_state("10.2.0.0/16", FibState::Failed);
        assert!(row.error.unwrap().contains("the route before stays"));
        let kept = ["10.1.0.0/16 via 10.0.5.2 dev v0", "10.2.0.0/16 via 10.0.5.2 dev v0"];
        assert_eq!(routes("route show proto 12"), kept);
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn a_route_that_cannot_be_written_is_explained_without_a_request() {
    in_namespace("writing::a_route_that_cannot_be_written_is_explained_without_a_request", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        let nowhere = Hop { ifindex: 0, ..hop("10.0.0.2", "v0") };
        fib.want("10.1.0.0/16", FibKind::Unicast(vec![nowhere]));
        let row = fib.wait_state("10.1.0.0/16", FibState::Failed);
        assert_eq!(row.error.as_deref(), Some("a next hop has no interface"));
        fib.want("10.2.0.0/16", FibKind::Unicast(vec![]));
        fib.wait_state("10.2.0.0/16", FibState::Failed);
        assert_eq!(fib.fib.counters().writes, 0);
        let gone = Hop { ifindex: ifindex("v0") + 1000, ..hop("10.0.0.2", "v0") };
        fib.want("10.3.0.0/16", FibKind::Unicast(vec![gone]));
        fib.wait_state("10.3.0.0/16", FibState::Failed);
        fib.stop(Leave::Withdraw);
    });
}

/// The thread answers liveness checks only while it runs: here the owner's event function hangs.
#[test]
#[ignore = "needs root"]
fn a_hanging_thread_does_not_answer() {
    in_namespace("writing::a_hanging_thread_does_not_answer", || {
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        let own = Arc::clone(&gate);
        let fib = Fib::start(main_table(), move |_| drop(own.lock())).unwrap();
        let mut answer = pin!(fib.ask_liveness());
        std::thread::sleep(Duration::from_millis(300));
        assert!(answer.as_mut().now_or_never().is_none());
        drop(held);
        eventually("an answer", || answer.as_mut().now_or_never());
        // An idle thread is woken by the check.
        let mut answer = pin!(fib.ask_liveness());
        eventually("another answer", || answer.as_mut().now_or_never());
        fib.stop(Leave::Keep);
    });
}
