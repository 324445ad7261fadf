//! What the kernel answers about an address.

use margay::kernel::{KernelAnswer, KernelDrop, kernel_route_to};

use crate::namespace::{in_namespace, ip, veth};

#[test]
#[ignore = "needs root"]
fn routes_that_drop_packets_are_told_from_none() {
    in_namespace("asking::routes_that_drop_packets_are_told_from_none", || {
        veth("v1", "10.0.1.1/24", "2001:db8:1::1/64");
        let ask = |address: &str| kernel_route_to(address.parse().unwrap(), None, &[]).unwrap();
        for (third, kind, dropped) in [
            (2, "blackhole", KernelDrop::Blackhole),
            (3, "unreachable", KernelDrop::Unreachable),
            (4, "prohibit", KernelDrop::Prohibit),
        ] {
            let nets = [format!("10.0.{third}.0/24"), format!("2001:db8:{third}::/64")];
            let addresses = [format!("10.0.{third}.1"), format!("2001:db8:{third}::1")];
            for (net, address) in nets.iter().zip(&addresses) {
                assert_eq!(ask(address), KernelAnswer::NoRoute, "{net}");
                ip(&format!("route add {kind} {net}"));
                assert_eq!(ask(address), KernelAnswer::Drops(dropped), "{net}");
            }
        }
        for address in ["10.0.1.2", "2001:db8:1::2"] {
            assert!(matches!(ask(address), KernelAnswer::Uses(_)), "{address}");
        }
    });
}
