//! Routes of which the kernel refuses a part, and changes by other programs to ours.

use std::time::{Duration, Instant};

use bgp_proto::types::{FibKind, FibRoute, Prefix};
use margay::kernel::{FibConfig, FibState, Leave, RouteDefaults};

use crate::namespace::{Running, eventually, hop, in_namespace, ip, main_table, routes, veth, via};

/// v1 and v2 with static routes over them, and v2 renumbered afterwards: the kernel keeps the
/// static route over it, but refuses its gateway in new routes.
fn renumbered() {
    veth("v1", "10.0.1.1/24", "");
    veth("v2", "10.0.2.1/24", "");
    ip("addr add 10.0.3.1/24 dev v2");
    ip("addr del 10.0.2.1/24 dev v2");
}

#[test]
#[ignore = "needs root"]
fn a_refused_leg_is_omitted_and_never_affects_the_others() {
    in_namespace("legs::a_refused_leg_is_omitted_and_never_affects_the_others", || {
        renumbered();
        let fib = Running::with_defaults();
        fib.want("10.66.0.0/16", via("10.0.1.2", "v1"));
        fib.wait_state("10.66.0.0/16", FibState::Installed);
        let both = || FibKind::Unicast(vec![hop("10.0.1.2", "v1"), hop("10.0.2.2", "v2")]);
        fib.want("10.66.0.0/16", both());
        fib.want("10.67.0.0/16", both());
        for prefix in ["10.66.0.0/16", "10.67.0.0/16"] {
            let row = eventually("the rest is installed", || {
                fib.row(prefix)
                    .filter(|row| row.state == FibState::Installed && row.error.is_some())
            });
            let error = row.error.unwrap();
            assert!(error.starts_with("without via 10.0.2.2 dev v2: Nexthop has"), "{error}");
            assert_eq!(row.gateways.len(), 1);
        }
        let one = "10.66.0.0/16 via 10.0.1.2 dev v1 metric 20";
        assert_eq!(routes("route show proto 12")[0], one);
        // The route is complete as soon as the leg works.
        ip("addr add 10.0.2.1/24 dev v2");
        let two = "10.66.0.0/16 metric 20 nexthop via 10.0.1.2 dev v1 weight 1 nexthop via 10.0.2.2 dev v2 weight 1";
        eventually("both legs are used", || {
            let shown = routes("route show proto 12");
            (shown.len() == 2 && shown[0] == two && fib.row("10.66.0.0/16")?.error.is_none())
                .then_some(())
        });
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn a_source_address_that_is_not_ours_is_omitted_until_it_is() {
    in_namespace("legs::a_source_address_that_is_not_ours_is_omitted_until_it_is", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        let defaults = RouteDefaults {
            source_v4: Some("10.9.9.9".parse().unwrap()),
            source_v6: Some("2001:db8:9::9".parse().unwrap()),
            ..RouteDefaults::default()
        };
        let fib = Running::start(FibConfig { defaults, ..main_table() });
        fib.fib.end_of_startup();
        fib.want("10.66.0.0/16", via("10.0.0.2", "v0"));
        fib.want("2001:db8:66::/48", via("2001:db8::2", "v0"));
        let prefix: Prefix = "10.67.0.0/16".parse().unwrap();
        let source = Some("10.0.0.1".parse().unwrap());
        let route = FibRoute { source, ..FibRoute::new(prefix, via("10.0.0.2", "v0")) };
        fib.fib.submit([(prefix, Some(route))]);
        for prefix in ["10.66.0.0/16", "2001:db8:66::/48", "10.67.0.0/16"] {
            fib.wait_state(prefix, FibState::Installed);
        }
        let error = fib.row("10.66.0.0/16").unwrap().error.unwrap();
        assert!(error.starts_with("without src 10.9.9.9: "), "{error}");
        assert_eq!(
            routes("route show 10.67.0.0/16"),
            ["10.67.0.0/16 via 10.0.0.2 dev v0 proto 12 src 10.0.0.1 metric 20"]
        );
        ip("addr add 10.9.9.9/32 dev lo");
        ip("addr add 2001:db8:9::9/128 dev lo");
        let right = || {
            let four = routes("route show 10.66.0.0/16");
            let six = routes("-6 route show 2001:db8:66::/48");
            (four == ["10.66.0.0/16 via 10.0.0.2 dev v0 proto 12 src 10.9.9.9 metric 20"]
                && six == ["2001:db8:66::/48 via 2001:db8::2 dev v0 proto 12 src 2001:db8:9::9 metric 1044 pref medium"])
            .then_some(())
        };
        eventually("both have their source", right);
        // The kernel deletes the IPv4 route with the address, and removes the source from the IPv6
        // route.
        ip("addr del 10.9.9.9/32 dev lo");
        ip("addr del 2001:db8:9::9/128 dev lo");
        eventually("both continue without it", || {
            let four = routes("route show 10.66.0.0/16");
            (four == ["10.66.0.0/16 via 10.0.0.2 dev v0 proto 12 metric 20"]).then_some(())
        });
        ip("addr add 10.9.9.9/32 dev lo");
        ip("addr add 2001:db8:9::9/128 dev lo");
        eventually("both have it again", right);
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn attributes_that_ours_never_have_are_removed_even_at_a_start() {
    in_namespace("legs::attributes_that_ours_never_have_are_removed_even_at_a_start", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("addr add 10.9.9.9/32 dev lo");
        let fib = Running::with_defaults();
        let four = "10.66.0.0/16 via 10.0.0.2 dev v0 metric 20";
        let six = "2001:db8:66::/48 via 2001:db8::2 dev v0 metric 1044 pref medium";
        let right = || {
            let shown = (routes("route show proto 12"), routes("-6 route show proto 12"));
            (shown.0 == [four] && shown.1 == [six]).then_some(())
        };
        let want = |fib: &Running| {
            fib.want("10.66.0.0/16", via("10.0.0.2", "v0"));
            fib.want("2001:db8:66::/48", via("2001:db8::2", "v0"));
        };
        want(&fib);
        eventually("both are installed", right);
        let damages = [
            "route replace 10.66.0.0/16 via 10.0.0.2 metric 20 proto 12 src 10.9.9.9",
            "route replace 10.66.0.0/16 via 10.0.0.2 metric 20 proto 12 mtu lock 600",
            "route replace 10.66.0.0/16 via 10.0.0.2 metric 20 proto 12 advmss 500 initcwnd 3",
            "route replace 10.66.0.0/16 via 10.0.0.2 metric 20 proto 12 realm 7",
            "-6 route replace 2001:db8:66::/48 via 2001:db8::2 metric 1044 proto 12 pref low",
            "-6 route replace 2001:db8:66::/48 via 2001:db8::2 metric 1044 proto 12 mtu 1300",
            "-6 route replace 2001:db8:66::/48 via 2001:db8::2 metric 1044 proto 12 expires 900",
            "route add 10.66.0.0/16 tos 4 via 10.0.0.3 metric 20 proto 12",
        ];
        for damage in damages {
            ip(damage);
            eventually(damage, right);
            // After a pause, each repair counts as the first again.
            std::thread::sleep(Duration::from_millis(1100));
        }
        fib.stop(Leave::Keep);
        ip(damages[0]);
        ip(damages[6]);
        ip(damages[7]);
        let fib = Running::start(main_table());
        want(&fib);
        fib.fib.end_of_startup();
        eventually("it is right after a start", right);
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn a_connected_network_is_never_overridden() {
    in_namespace("legs::a_connected_network_is_never_overridden", || {
        veth("v0", "", "");
        ip("addr add 10.0.0.1/24 dev v0 metric 100");
        ip("addr add 10.1.0.1/24 dev v0");
        let fib = Running::with_defaults();
        fib.want("10.0.0.0/24", via("10.0.0.2", "v0"));
        fib.want("10.1.0.0/24", via("10.0.0.2", "v0"));
        fib.want("10.2.0.0/24", via("10.0.0.2", "v0"));
        fib.wait_state("10.2.0.0/24", FibState::Installed);
        let row = fib.wait_state("10.0.0.0/24", FibState::Foreign);
        assert_eq!(row.error.as_deref(), Some("it is a connected network"));
        assert!(!ip("route get 10.0.0.77").contains("via"));
        // Our route is deleted when its network becomes connected, and installed when the connected
        // network is gone.
        ip("addr add 10.2.0.1/24 dev v0 metric 100");
        fib.wait_state("10.2.0.0/24", FibState::Foreign);
        eventually("it is gone", || {
            routes("route show 10.2.0.0/24 proto 12").is_empty().then_some(())
        });
        ip("addr del 10.1.0.1/24 dev v0");
        fib.wait_state("10.1.0.0/24", FibState::Installed);
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn routes_of_a_margay_that_used_no_metric_are_moved_without_a_gap() {
    in_namespace("legs::routes_of_a_margay_that_used_no_metric_are_moved_without_a_gap", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        let four = |i: u32| format!("10.66.{i}.0/24");
        let six = |i: u32| format!("2001:db8:66:{i}::/64");
        for i in 0..200 {
            ip(&format!("route add {} via 10.0.0.2 proto 12", four(i)));
            ip(&format!("-6 route add {} via 2001:db8::2 proto 12", six(i)));
        }
        let mut monitor = crate::namespace::Monitor::start();
        // Before the end of start-up, routes that this run has rewritten are not duplicated.
        let fib = Running::start(main_table());
        for i in 0..200 {
            fib.want(&four(i), via("10.0.0.2", "v0"));
            fib.want(&six(i), via("2001:db8::2", "v0"));
        }
        eventually("all are at their new metrics", || {
            let shown = routes("route show proto 12");
            let shown6 = routes("-6 route show proto 12");
            let at = |lines: &[String], metric: &str| lines.iter().all(|l| l.contains(metric));
            (shown.len() == 200
                && shown6.len() == 200
                && at(&shown, "metric 20")
                && at(&shown6, "metric 1044"))
            .then_some(())
        });
        let events = monitor.finish();
        // The new route is added before the old one is deleted.
        let mut present = std::collections::BTreeMap::new();
        for line in events.lines().filter(|line| line.contains("proto 12")) {
            let (gone, route) = match line.strip_prefix("Deleted ") {
                Some(rest) => (true, rest),
                None => (false, line),
            };
            let count = present.entry(route.split(' ').next().unwrap().to_owned()).or_insert(1);
            *count += if gone { -1 } else { 1 };
            assert!(*count >= 1, "{line}");
        }
        assert_eq!(present.len(), 400);
        fib.fib.end_of_startup();
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
    });
}

/// Another program deletes one route again and again: all others are repaired at once.
#[test]
#[ignore = "needs root"]
fn a_fight_about_one_prefix_delays_no_other() {
    in_namespace("legs::a_fight_about_one_prefix_delays_no_other", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::with_defaults();
        for i in 0..20 {
            fib.want(&format!("10.66.{i}.0/24"), via("10.0.0.2", "v0"));
        }
        eventually("all are installed", || (fib.fib.counters().installed == 20).then_some(()));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let del = |prefix: &str| {
            let _ = std::process::Command::new("ip")
                .args(["route", "del", prefix, "proto", "12"])
                .stderr(std::process::Stdio::null())
                .status();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    del("10.66.0.0/24");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            // Long enough for the back-off to have grown.
            std::thread::sleep(Duration::from_secs(2));
            let mut waits = Vec::new();
            for i in 1..20 {
                let prefix = format!("10.66.{i}.0/24");
                del(&prefix);
                let began = Instant::now();
                eventually("it is back", || {
                    (!routes(&format!("route show {prefix}")).is_empty()).then_some(())
                });
                waits.push(began.elapsed());
            }
            // An address is removed and added again: the kernel deletes routes without an event.
            crate::namespace::ip_batch(
                "addr del 10.0.0.1/24 dev v0\naddr add 10.0.0.1/24 dev v0\n",
            );
            let began = Instant::now();
            eventually("all others are back", || {
                (routes("route show proto 12").len() >= 19).then_some(())
            });
            waits.push(began.elapsed());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            waits.sort();
            let median = waits[waits.len() / 2];
            assert!(median < Duration::from_millis(400), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait < Duration::from_secs(2)), "{waits:?}");
        });
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn a_withdrawal_of_everything_is_complete_while_routes_are_submitted() {
    let name = "legs::a_withdrawal_of_everything_is_complete_while_routes_are_submitted";
    in_namespace(name, || {
        veth("v0", "10.0.0.1/24", "");
        let running = Running::with_defaults();
        let fib = running.fib.clone();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let kind = via("10.0.0.2", "v0");
            let stop = &stop;
            scope.spawn(move || {
                for i in (0u32..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                    let prefix = Prefix::new(
                        std::net::Ipv4Addr::from_bits((20 << 24) + (i << 8)).into(),
                        24,
                    );
                    fib.submit([(prefix, Some(FibRoute::new(prefix, kind.clone())))]);
                    if i % 64 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            eventually("many are there", || {
                (running.fib.counters().installed > 2000).then_some(())
            });
            running.stop(Leave::Withdraw);
            assert_eq!(routes("route show proto 12").len(), 0);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(routes("route show proto 12").len(), 0);
    });
}
