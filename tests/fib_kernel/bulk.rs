//! Many routes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bgp_proto::types::{FibKind, FibRoute, Hop, Prefix, Prefix4};
use margay::kernel::Leave;

use crate::namespace::{
    Running, eventually, hop, in_namespace, in_user_namespace, ip, routes, veth, without_metric,
};

/// The `i`th of up to 4 million prefixes: /24s from 20.0.0.0.
fn prefix(i: u32) -> Prefix {
    Prefix::V4(Prefix4::from_bits((20 << 24) + (i << 8), 24))
}

#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_routes_with_churn_end_as_wanted() {
    in_namespace("bulk::a_hundred_thousand_routes_with_churn_end_as_wanted", || {
        const COUNT: u32 = 100_000;
        veth("v0", "10.0.0.1/24", "");
        let way = hop("", "v0");
        let via = |i: u8| Hop { gateway: Some([10, 0, 0, i].into()), ..way };
        let kinds: Vec<FibKind> = (2..250).map(|i| FibKind::Unicast(vec![via(i)])).collect();
        let fib = Running::started();
        let route = |i: u32, generation: u32| {
            let kind = kinds[((i + generation) % 248) as usize].clone();
            (prefix(i), Some(FibRoute::new(prefix(i), kind)))
        };
        // While the first are being written, everything changes twice and a third is withdrawn.
        fib.fib.submit((0..COUNT).map(|i| route(i, 0)));
        fib.fib.submit((0..COUNT).map(|i| route(i, 1)));
        fib.fib.submit((0..COUNT).filter(|i| i % 3 == 0).map(|i| (prefix(i), None)));
        fib.fib.submit((0..COUNT).filter(|i| i % 3 == 1).map(|i| route(i, 7)));
        let expected: BTreeSet<String> = (0..COUNT)
            .filter(|i| i % 3 != 0)
            .map(|i| {
                let generation = if i % 3 == 1 { 7 } else { 1 };
                format!("{} via 10.0.0.{} dev v0", prefix(i), 2 + (i + generation) % 248)
            })
            .collect();
        let count = expected.len() as u64;
        eventually("all are installed", || {
            let counters = fib.fib.counters();
            (counters.installed == count && counters.pending == 0).then_some(())
        });
        let actual: BTreeSet<String> = routes("route show proto 12").into_iter().collect();
        let missing = expected.difference(&actual).next();
        let extra = actual.difference(&expected).next();
        assert!(missing.is_none() && extra.is_none(), "missing {missing:?}, extra {extra:?}");

        // The whole table is restored after an interface goes down and up.
        ip("link set v0 down");
        ip("link set v0 up");
        eventually("all are back", || {
            let counters = fib.fib.counters();
            (counters.installed == count && counters.resyncs > 1).then_some(())
        });
        assert_eq!(routes("route show proto 12").len() as u64, count);

        // A page of the view is in order.
        let page = fib.fib.view(Some(prefix(4)), 3);
        let prefixes: Vec<Prefix> = page.iter().map(|row| row.prefix).collect();
        assert_eq!(prefixes, [prefix(5), prefix(7), prefix(8)]);

        // A restart adopts all routes and writes only the difference.
        fib.stop(Leave::Keep);
        let again = Running::start(without_metric());
        assert_eq!(again.fib.counters().installed, count);
        again.fib.submit((0..COUNT).filter(|i| i % 3 == 1).map(|i| route(i, 7)));
        again.fib.submit((0..COUNT).filter(|i| i % 3 == 2 && i % 2 == 0).map(|i| route(i, 1)));
        let before = Instant::now();
        again.fib.end_of_startup();
        let left = (0..COUNT).filter(|i| i % 3 == 1 || (i % 3 == 2 && i % 2 == 0)).count() as u64;
        eventually("leftovers are gone", || {
            let counters = again.fib.counters();
            (counters.installed == left && counters.pending == 0).then_some(())
        });
        assert_eq!(again.fib.counters().writes, count - left);
        assert!(before.elapsed() < Duration::from_secs(10));
        again.stop(Leave::Withdraw);
        assert!(routes("route show proto 12").is_empty());
    });
}

/// In a rootless container the kernel grants no large receive buffer, which has to hold every
/// refusal.
#[test]
#[ignore = "needs root"]
fn thousands_of_refusals_fit_in_a_rootless_container() {
    in_user_namespace("bulk::thousands_of_refusals_fit_in_a_rootless_container", || {
        const COUNT: u32 = 5000;
        veth("v0", "10.0.0.1/24", "");
        let fib = Running::started();
        let way = hop("", "v0");
        // Each over its own gateway, so that each is sent to the kernel.
        fib.fib.submit((0..COUNT).map(|i| {
            let gateway = format!("10.{}.{}.9", 100 + i / 250, i % 250);
            let hop = Hop { gateway: Some(gateway.parse().unwrap()), ..way };
            let kind = FibKind::Unicast(vec![hop]);
            (prefix(i), Some(FibRoute::new(prefix(i), kind)))
        }));
        eventually("all are refused", || {
            (fib.fib.counters().failed == u64::from(COUNT)).then_some(())
        });
        assert_eq!(fib.fib.counters().resyncs, 1, "no answer was lost");
        ip("addr add 10.100.0.1/8 dev v0");
        eventually("all are installed", || {
            (fib.fib.counters().installed == u64::from(COUNT)).then_some(())
        });
        fib.stop(Leave::Withdraw);
    });
}
