//! Ownership of routes: leftovers, foreign routes, a FIB that does not write.

use bgp_proto::types::FibKind;
use margay::kernel::{FibConfig, FibEvent, FibState, Leave, NextHopState};

use crate::namespace::{
    Running, eventually, in_namespace, ip, main_table, routes, veth, via, without_metric,
};

#[test]
#[ignore = "needs root"]
fn leftovers_are_adopted_and_the_unwanted_deleted_only_after_the_start() {
    let name = "ownership::leftovers_are_adopted_and_the_unwanted_deleted_only_after_the_start";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("route add 10.1.0.0/16 via 10.0.0.2 proto 12");
        ip("route add 10.2.0.0/16 via 10.0.0.2 proto 12");
        ip("route add 10.3.0.0/16 via 10.0.0.2 proto 12");
        ip("route add 10.3.0.0/16 via 10.0.0.2 proto 12 metric 77");
        ip("route add 10.4.0.0/16 via 10.0.0.2 proto 4");
        ip("route add blackhole 10.6.0.0/16 proto 12");
        ip("-6 route add 2001:db8:a::/48 via 2001:db8::2 proto 12");
        ip("route add 10.5.0.0/16 via 10.0.0.2 proto 12 table 77");
        let fib = Running::start(without_metric());
        assert_eq!(fib.row("10.2.0.0/16").unwrap().state, FibState::Installed);
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.want("10.3.0.0/16", via("10.0.0.3", "v0"));
        fib.wait_state("10.3.0.0/16", FibState::Installed);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(
            routes("route show proto 12"),
            [
                "10.1.0.0/16 via 10.0.0.2 dev v0",
                "10.2.0.0/16 via 10.0.0.2 dev v0",
                "10.3.0.0/16 via 10.0.0.3 dev v0",
                "10.3.0.0/16 via 10.0.0.2 dev v0 metric 77",
                "blackhole 10.6.0.0/16"
            ]
        );
        fib.fib.end_of_startup();
        fib.wait_gone("10.2.0.0/16");
        fib.wait_gone("2001:db8:a::/48");
        fib.wait_gone("10.6.0.0/16");
        eventually("the leftover with another metric is gone", || {
            let left = routes("route show proto 12");
            (left == ["10.1.0.0/16 via 10.0.0.2 dev v0", "10.3.0.0/16 via 10.0.0.3 dev v0"])
                .then_some(())
        });
        assert!(routes("-6 route show proto 12").is_empty());
        assert_eq!(routes("route show proto 4").len(), 1);
        assert_eq!(routes("route show table 77").len(), 1);
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
        assert_eq!(routes("route show proto 4").len(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn foreign_routes_are_never_touched_and_ours_waits_for_the_place() {
    let name = "ownership::foreign_routes_are_never_touched_and_ours_waits_for_the_place";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("route add 10.1.0.0/16 via 10.0.0.9 proto 4");
        ip("-6 route add 2001:db8:a::/48 via 2001:db8::9 proto 4");
        let fib = Running::started();
        for (prefix, gateway) in [("10.1.0.0/16", "10.0.0.2"), ("2001:db8:a::/48", "2001:db8::2")] {
            fib.want(prefix, via(gateway, "v0"));
            fib.wait_state(prefix, FibState::Foreign);
        }
        assert_eq!(fib.fib.counters().foreign, 2);
        assert_eq!(routes("route show proto 4"), ["10.1.0.0/16 via 10.0.0.9 dev v0"]);
        assert!(routes("route show proto 12").is_empty());
        // The places become free.
        ip("route del 10.1.0.0/16 proto 4");
        ip("-6 route del 2001:db8:a::/48 proto 4");
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.wait_state("2001:db8:a::/48", FibState::Installed);
        // Another program overwrites ours, which the kernel allows: we yield, even when ours
        // changes.
        ip("route replace 10.1.0.0/16 via 10.0.0.9 proto 4");
        ip("-6 route replace 2001:db8:a::/48 via 2001:db8::9 proto 4");
        fib.wait_state("10.1.0.0/16", FibState::Foreign);
        fib.wait_state("2001:db8:a::/48", FibState::Foreign);
        fib.want("10.1.0.0/16", via("10.0.0.3", "v0"));
        fib.want("2001:db8:a::/48", FibKind::Blackhole);
        fib.wait_state("10.1.0.0/16", FibState::Foreign);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(routes("route show proto 4"), ["10.1.0.0/16 via 10.0.0.9 dev v0"]);
        assert_eq!(routes("-6 route show proto 4").len(), 1);
        // When the place is free again, the route wanted by then is installed.
        ip("route del 10.1.0.0/16 proto 4");
        ip("-6 route del 2001:db8:a::/48 proto 4");
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.wait_state("2001:db8:a::/48", FibState::Installed);
        assert_eq!(routes("route show proto 12"), ["10.1.0.0/16 via 10.0.0.3 dev v0"]);
        // Another metric is another place: both exist side by side.
        ip("route add 10.1.0.0/16 via 10.0.0.9 proto 4 metric 5");
        fib.withdraw("10.1.0.0/16");
        fib.wait_gone("10.1.0.0/16");
        fib.stop(Leave::Withdraw);
        assert_eq!(routes("route show proto 4"), ["10.1.0.0/16 via 10.0.0.9 dev v0 metric 5"]);
    });
}

#[test]
#[ignore = "needs root"]
fn a_foreign_route_behind_ours_survives_everything() {
    in_namespace("ownership::a_foreign_route_behind_ours_survives_everything", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        // With IPv4 others can append a second route in the same place.
        ip("route append 10.1.0.0/16 via 10.0.0.9 proto 4");
        eventually("both are there", || {
            (routes("route show 10.1.0.0/16").len() == 2).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        fib.want("10.1.0.0/16", via("10.0.0.3", "v0"));
        fib.wait_state("10.1.0.0/16", FibState::Foreign);
        eventually("ours is gone", || routes("route show proto 12").is_empty().then_some(()));
        assert_eq!(routes("route show proto 4"), ["10.1.0.0/16 via 10.0.0.9 dev v0"]);
        fib.stop(Leave::Withdraw);
        assert_eq!(routes("route show proto 4"), ["10.1.0.0/16 via 10.0.0.9 dev v0"]);
    });
}

#[test]
#[ignore = "needs root"]
fn a_graceful_stop_keeps_routes_and_a_shutdown_deletes_only_ours() {
    let name = "ownership::a_graceful_stop_keeps_routes_and_a_shutdown_deletes_only_ours";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        for i in 0..2000u32 {
            fib.want(&format!("10.{}.{}.0/24", 16 + i / 256, i % 256), via("10.0.0.2", "v0"));
        }
        fib.stop(Leave::Keep);
        assert_eq!(routes("route show proto 12").len(), 2000);
        let fib = Running::start(without_metric());
        ip("route add 10.1.0.0/16 via 10.0.0.9 proto 4");
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
        assert_eq!(routes("route show proto 4").len(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn a_fib_that_does_not_write_still_resolves() {
    in_namespace("ownership::a_fib_that_does_not_write_still_resolves", || {
        veth("v0", "10.0.0.1/24", "");
        ip("route add 10.7.0.0/16 via 10.0.0.2 proto 12");
        let fib = Running::start(FibConfig { enabled: false, ..main_table() });
        fib.fib.end_of_startup();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.fib.track("10.0.0.2".parse().unwrap());
        fib.wait_event(|event| {
            matches!(event, FibEvent::NextHop { state: NextHopState::Via { .. }, .. })
        });
        assert!(fib.fib.view(None, 10).is_empty());
        fib.stop(Leave::Withdraw);
        assert_eq!(routes("route show proto 12"), ["10.7.0.0/16 via 10.0.0.2 dev v0"]);
    });
}

#[test]
#[ignore = "needs root"]
fn without_privilege_a_start_says_what_to_do_and_reading_works() {
    const NAME: &str = "ownership::without_privilege_a_start_says_what_to_do_and_reading_works";
    const UNPRIVILEGED: &str = "MARGAY_TEST_UNPRIVILEGED";
    in_namespace(NAME, || {
        if std::env::var_os(UNPRIVILEGED).is_none() {
            veth("v0", "10.0.0.1/24", "");
            let output = std::process::Command::new("setpriv")
                .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env(UNPRIVILEGED, "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
            return;
        }
        let error = margay::kernel::Fib::start(main_table(), |_| {}).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("CAP_NET_ADMIN") && text.contains("enabled = false"), "{text}");
        let fib = Running::start(FibConfig { enabled: false, ..main_table() });
        fib.fib.track("10.0.0.2".parse().unwrap());
        fib.wait_event(|event| {
            matches!(event, FibEvent::NextHop { state: NextHopState::Via { .. }, .. })
        });
        fib.stop(Leave::Keep);
    });
}
