//! Routes that the kernel or other programs delete are restored.

use std::time::Duration;

use bgp_proto::types::FibKind;
use margay::kernel::{FibState, Leave};

use crate::namespace::{Running, eventually, hop, in_namespace, ip, ip_batch, routes, veth, via};

#[test]
#[ignore = "needs root"]
fn routes_are_restored_after_a_link_was_down() {
    in_namespace("repair::routes_are_restored_after_a_link_was_down", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("w0", "10.0.1.1/24", "2001:db8:1::1/64");
        let fib = Running::started();
        for i in 0..3000u32 {
            fib.want(&format!("10.{}.{}.0/24", 16 + i / 256, i % 256), via("10.0.0.2", "v0"));
        }
        fib.want("10.200.0.0/16", via("10.0.1.2", "w0"));
        fib.want("2001:db8:a::/48", via("2001:db8:1::2", "w0"));
        fib.want("10.201.0.0/16", FibKind::Blackhole);
        let legs = vec![hop("10.0.0.2", "v0"), hop("10.0.1.2", "w0")];
        fib.want("10.202.0.0/16", FibKind::Unicast(legs));
        eventually("all are installed", || (fib.fib.counters().installed == 3004).then_some(()));
        ip("link set v0 down");
        // The kernel deletes IPv4 routes without an event.
        assert!(routes("route show proto 12").len() < 10);
        eventually("the loss is noticed", || (fib.fib.counters().failed >= 3000).then_some(()));
        let row = fib.row("10.16.0.0/24").unwrap();
        assert_eq!(row.state, FibState::Failed);
        assert!(row.error.is_some());
        ip("link set v0 up");
        eventually("all are back", || {
            let counters = fib.fib.counters();
            (counters.installed == 3004 && counters.failed == 0).then_some(())
        });
        assert_eq!(routes("route show proto 12").len(), 3003);
        ip("addr flush dev w0 scope global");
        ip("addr add 10.0.1.1/24 dev w0");
        ip("addr add 2001:db8:1::1/64 dev w0 nodad");
        eventually("routes over the renumbered link are back", || {
            let four = routes("route show 10.200.0.0/16 proto 12").len();
            (four == 1 && routes("-6 route show proto 12").len() == 1).then_some(())
        });
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn routes_deleted_or_changed_by_others_are_restored() {
    in_namespace("repair::routes_deleted_or_changed_by_others_are_restored", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        let fib = Running::started();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.want("2001:db8:a::/48", via("2001:db8::2", "v0"));
        fib.want("10.2.0.0/16", FibKind::Blackhole);
        for prefix in ["10.1.0.0/16", "2001:db8:a::/48", "10.2.0.0/16"] {
            fib.wait_state(prefix, FibState::Installed);
        }
        let expected = ["10.1.0.0/16 via 10.0.0.2 dev v0", "blackhole 10.2.0.0/16"];
        let expected6 = ["2001:db8:a::/48 via 2001:db8::2 dev v0 metric 1024 pref medium"];
        let right = || {
            let (four, six) = (routes("route show proto 12"), routes("-6 route show proto 12"));
            (four == expected && six == expected6).then_some(())
        };
        ip("route flush proto 12");
        ip("-6 route flush proto 12");
        eventually("flushed routes are back", right);
        // Replaced and added under our protocol number, also with another metric.
        ip("route replace 10.1.0.0/16 via 10.0.0.7 proto 12");
        ip("route add 10.77.0.0/16 via 10.0.0.7 proto 12");
        ip("route add 10.2.0.0/16 via 10.0.0.7 proto 12 metric 9");
        ip("-6 route replace blackhole 2001:db8:a::/48 proto 12");
        ip("-6 route add 2001:db8:77::/48 via 2001:db8::7 proto 12");
        eventually("only our own are left", right);
        eventually("all count as installed", || {
            let counters = fib.fib.counters();
            (counters.installed == 3 && counters.pending == 0).then_some(())
        });
        // A second route in the place of ours, after it and before it.
        ip("route append 10.1.0.0/16 via 10.0.0.7 proto 12");
        ip("route prepend 10.1.0.0/16 via 10.0.0.8 proto 12");
        ip("-6 route append blackhole 2001:db8:a::/48 proto 12");
        eventually("only our own are left of two in one place", right);
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
    });
}

#[test]
#[ignore = "needs root"]
fn a_fight_with_another_program_stays_cheap() {
    in_namespace("repair::a_fight_with_another_program_stays_cheap", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        let before = fib.fib.counters().writes;
        let until = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < until {
            let _ = std::process::Command::new("ip")
                .args(["route", "del", "10.1.0.0/16", "proto", "12"])
                .stderr(std::process::Stdio::null())
                .status();
        }
        let writes = fib.fib.counters().writes - before;
        assert!((2..=10).contains(&writes), "{writes} writes in 3 s of fighting");
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_foreign_changes_is_survived() {
    in_namespace("repair::a_flood_of_foreign_changes_is_survived", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        fib.want("10.1.0.0/16", via("10.0.0.2", "v0"));
        fib.want("10.20.1.0/24", via("10.0.0.2", "v0"));
        fib.wait_state("10.20.1.0/24", FibState::Installed);
        // While the thread is blocked, more events than the buffer holds, with changes to ours
        // among them.
        let resyncs = fib.fib.counters().resyncs;
        let gate = fib.gate.lock().unwrap();
        ip("addr add 10.0.9.1/24 dev v0");
        let mut lines = String::new();
        for round in ["add", "del", "add"] {
            for i in 0..60_000u32 {
                let (a, b) = (i / 256, i % 256);
                lines.push_str(&format!("route {round} 20.{a}.{b}.0/24 via 10.0.0.9 proto 4\n"));
            }
        }
        lines.push_str("route del 10.1.0.0/16 proto 12\n");
        lines.push_str("route replace 10.20.1.0/24 via 10.0.0.9 proto 4\n");
        ip_batch(&lines);
        drop(gate);
        eventually("the tables are read again", || {
            (fib.fib.counters().resyncs > resyncs).then_some(())
        });
        fib.wait_state("10.1.0.0/16", FibState::Installed);
        fib.wait_state("10.20.1.0/24", FibState::Foreign);
        assert_eq!(routes("route show proto 12"), ["10.1.0.0/16 via 10.0.0.2 dev v0"]);
        // The known foreign routes are correct afterwards.
        fib.want("20.0.7.0/24", via("10.0.0.2", "v0"));
        fib.wait_state("20.0.7.0/24", FibState::Foreign);
        ip("route del 20.0.7.0/24 proto 4");
        fib.wait_state("20.0.7.0/24", FibState::Installed);
        fib.stop(Leave::Withdraw);
        assert_eq!(routes("route show proto 4").len(), 60_000);
    });
}
