//! Tests under a kernel with IPIP, VRF, dummy and MPLS.

use bgp_proto::types::{FibKind, Hop};
use interop::full_kernel;
use margay::kernel::{FibConfig, FibState, Leave};

use crate::namespace::{
    Running, eventually, hop, in_namespace, ip, routes, veth, via, without_metric,
};
use crate::resolving::becomes;

fn under_full_kernel(name: &str, modules: &[&str], body: impl FnOnce()) {
    let inside = || {
        if !in_namespace_already() {
            let loaded = std::process::Command::new("modprobe").arg("-a").args(modules).status();
            assert!(loaded.unwrap().success(), "modules {modules:?}");
        }
        in_namespace(name, body);
        Ok(())
    };
    full_kernel::run(name, inside).unwrap();
}

fn in_namespace_already() -> bool {
    std::env::var_os(crate::namespace::INSIDE).is_some()
}

#[test]
#[ignore = "needs root and interop/setup.sh vm"]
fn next_hops_in_a_vrf_are_resolved_in_its_table_only() {
    let name = "full_kernel::next_hops_in_a_vrf_are_resolved_in_its_table_only";
    under_full_kernel(name, &["vrf", "dummy"], || {
        veth("v0", "10.0.0.1/24", "");
        ip("link add red type vrf table 100");
        ip("link set red up");
        veth("v1", "", "");
        ip("link set v1 master red");
        ip("addr add 10.0.1.1/24 dev v1");
        // The same network outside and inside.
        ip("link add d0 type dummy");
        ip("link set d0 up");
        ip("addr add 10.7.0.1/24 dev d0");
        ip("route add 10.7.0.0/24 via 10.0.1.9 table 100");
        ip("route add default via 10.0.0.254");
        let outside = Running::with_defaults();
        let inside = Running::start(FibConfig { table: 100, ..without_metric() });
        inside.fib.end_of_startup();
        becomes(&outside, "10.7.0.2", Some(("10.7.0.2", "d0")));
        becomes(&inside, "10.7.0.2", Some(("10.0.1.9", "v1")));
        becomes(&inside, "10.0.0.2", None);
        becomes(&outside, "10.0.1.2", Some(("10.0.0.254", "v0")));
        inside.want("10.8.0.0/16", via("10.0.1.2", "v1"));
        inside.wait_state("10.8.0.0/16", FibState::Installed);
        assert_eq!(routes("route show table 100 proto 12"), ["10.8.0.0/16 via 10.0.1.2 dev v1"]);
        // The networks of an interface move with it into the VRF.
        ip("link set v0 master red");
        ip("addr replace 10.0.0.1/24 dev v0");
        becomes(&inside, "10.0.0.2", Some(("10.0.0.2", "v0")));
        becomes(&outside, "10.0.0.2", None);
        // Deleting the VRF deletes the table's routes; afterwards it is an ordinary table.
        ip("link del red");
        becomes(&inside, "10.7.0.2", Some(("10.7.0.2", "d0")));
        outside.stop(Leave::Withdraw);
        inside.stop(Leave::Withdraw);
    });
}

#[test]
#[ignore = "needs root and interop/setup.sh vm"]
fn routes_through_an_ipip_tunnel_follow_it() {
    let name = "full_kernel::routes_through_an_ipip_tunnel_follow_it";
    under_full_kernel(name, &["ipip"], || {
        veth("v0", "10.0.0.1/24", "");
        ip("addr add 10.65.1.1/32 dev tunl0");
        ip("link set tunl0 up");
        let fib = Running::started();
        let tunnelled = Hop { onlink: true, ..hop("10.0.0.2", "tunl0") };
        fib.want("10.65.2.0/26", FibKind::Unicast(vec![tunnelled]));
        fib.want("10.65.3.0/26", FibKind::Unicast(vec![tunnelled, hop("10.0.0.3", "v0")]));
        fib.wait_state("10.65.2.0/26", FibState::Installed);
        fib.wait_state("10.65.3.0/26", FibState::Installed);
        assert_eq!(
            routes("route show 10.65.2.0/26 proto 12"),
            ["10.65.2.0/26 via 10.0.0.2 dev tunl0 onlink"]
        );
        assert!(ip("route get 10.65.2.9").contains("dev tunl0"));
        ip("link set tunl0 down");
        let row = fib.wait_state("10.65.2.0/26", FibState::Failed);
        assert!(row.error.is_some());
        // The dead leg may stay in the route: the kernel does not use it.
        let ways = || (1..=16).map(|host| ip(&format!("route get 10.65.3.{host}")));
        eventually("the other leg carries everything", || {
            ways().all(|way| way.contains("dev v0")).then_some(())
        });
        ip("link set tunl0 up");
        fib.wait_state("10.65.2.0/26", FibState::Installed);
        eventually("both legs are back", || {
            let both = routes("route show 10.65.3.0/26 proto 12");
            both.first()?.contains("dev tunl0").then_some(())
        });
        fib.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
    });
}

#[test]
#[ignore = "needs root and interop/setup.sh vm"]
fn a_route_with_a_label_does_not_resolve_a_next_hop() {
    let name = "full_kernel::a_route_with_a_label_does_not_resolve_a_next_hop";
    under_full_kernel(name, &["mpls_router", "mpls_iptunnel"], || {
        veth("v0", "10.0.0.1/24", "");
        ip("route add 10.9.0.0/16 via 10.0.0.9");
        ip("route add 10.9.1.0/24 encap mpls 100 via 10.0.0.8");
        let fib = Running::with_defaults();
        becomes(&fib, "10.9.2.1", Some(("10.0.0.9", "v0")));
        becomes(&fib, "10.9.1.1", None);
        ip("route del 10.9.1.0/24");
        becomes(&fib, "10.9.1.1", Some(("10.0.0.9", "v0")));
        fib.stop(Leave::Withdraw);
    });
}
