//! Next-hop objects of ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp_proto::types::{FibKind, FibNextHop, FibRoute, Hop, Prefix};
use margay::kernel::{
    FibConfig, FibState, Leave, NextHopForm, NextHopState, Over, Place, carry_over,
};

use crate::namespace::{
    Monitor, Running, eventually, hop, in_namespace, in_user_namespace, ip, main_table, routes,
    veth,
};

/// A BGP next hop that is on no link.
const NEXT_HOP: &str = "192.0.2.7";
const NEXT_HOP_V6: &str = "2001:db8:ffff::7";

fn config(next_hops: NextHopForm) -> FibConfig {
    FibConfig { next_hops, ..main_table() }
}

/// A FIB with next-hop objects, after its start-up.
pub(crate) fn with_objects() -> Running {
    let fib = Running::start(config(NextHopForm::Objects));
    fib.fib.end_of_startup();
    fib
}

/// Submits a route that depends on a BGP next hop.
fn want(fib: &Running, prefix: &str, next_hop: &str, (gateway, dev): (&str, &str)) {
    let kind = FibKind::Unicast(vec![hop(gateway, dev)]);
    let prefix: Prefix = prefix.parse().unwrap();
    let route = FibRoute { next_hops: next_hops(&[next_hop]), ..FibRoute::new(prefix, kind) };
    fib.fib.submit([(prefix, Some(route))]);
}

/// BGP next hops without a tunnel.
fn next_hops(addrs: &[&str]) -> Vec<FibNextHop> {
    addrs.iter().map(|addr| addr_of(addr)).collect()
}

fn addr_of(addr: &str) -> FibNextHop {
    addr.parse::<IpAddr>().unwrap().into()
}

/// Reports how a next hop is reached.
fn resolve(fib: &Running, next_hop: &str, (gateway, dev): (&str, &str)) {
    let state = NextHopState::Via {
        hops: vec![hop(gateway, dev)],
        metric: 0,
        connected: false,
        interface: Some(dev.into()),
        over: Over::Specific,
    };
    fib.fib.resolutions().update(next_hop.parse().unwrap(), &state);
}

fn objects() -> Vec<String> {
    routes("nexthop show proto 12")
}

fn ours() -> Vec<String> {
    ["route show proto 12", "-6 route show proto 12"].map(routes).concat()
}

/// Waits until every route of ours uses an object and this gateway.
fn all_go_over(count: usize, gateway: &str) {
    let via = format!("via {gateway} ");
    eventually(&format!("{count} routes go over {gateway}"), || {
        let lines = ours();
        let right = lines.iter().filter(|line| line.contains("nhid ") && line.contains(&via));
        (right.count() == count && lines.len() == count).then_some(())
    });
}

#[test]
#[ignore = "needs root"]
fn the_routes_behind_a_next_hop_move_with_one_request() {
    in_namespace("groups::the_routes_behind_a_next_hop_move_with_one_request", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("v1", "10.0.1.1/24", "2001:db8:1::1/64");
        let fib = with_objects();
        let (a, b) = (("10.0.0.2", "v0"), ("10.0.1.2", "v1"));
        resolve(&fib, NEXT_HOP, a);
        for i in 0..200 {
            want(&fib, &format!("10.66.{i}.0/24"), NEXT_HOP, a);
        }
        // Another metric, over the same group.
        let odd: Prefix = "10.67.0.0/16".parse().unwrap();
        let kind = FibKind::Unicast(vec![hop(a.0, a.1)]);
        let next_hops = next_hops(&[NEXT_HOP]);
        let route = FibRoute { metric: Some(512), next_hops, ..FibRoute::new(odd, kind) };
        fib.fib.submit([(odd, Some(route))]);
        all_go_over(201, "10.0.0.2");
        assert_eq!(objects().len(), 2, "a leg and a group: {:?}", objects());
        assert_eq!(fib.fib.counters().next_hop_objects, 2);

        // Routes of another next hop with the same gateway stay when the next hop moves.
        want(&fib, "10.68.0.0/16", "192.0.2.8", a);
        fib.wait_state("10.68.0.0/16", FibState::Installed);
        let before = fib.fib.counters().writes;
        resolve(&fib, NEXT_HOP, b);
        eventually("201 routes have moved", || {
            let moved = ours().into_iter().filter(|line| line.contains("via 10.0.1.2 "));
            (moved.count() == 201).then_some(())
        });
        // The new leg and the group. The other group still uses the old leg.
        assert_eq!(fib.fib.counters().writes - before, 2);
        assert!(
            fib.row("10.66.7.0/24").unwrap().gateways[0].via == Some("10.0.1.2".parse().unwrap())
        );
        assert!(routes("route show 10.68.0.0/16")[0].contains("via 10.0.0.2 "));

        // The routes that the owner submits afterwards are installed already.
        for i in 0..200 {
            want(&fib, &format!("10.66.{i}.0/24"), NEXT_HOP, b);
        }
        fib.withdraw("10.68.0.0/16");
        fib.wait_gone("10.68.0.0/16");
        eventually("the other group and its leg are gone", || (objects().len() == 2).then_some(()));
        assert_eq!(fib.fib.counters().writes - before, 2 + 1 + 2);

        resolve(&fib, NEXT_HOP_V6, ("2001:db8::2", "v0"));
        want(&fib, "2001:db8:66::/48", NEXT_HOP_V6, ("2001:db8::2", "v0"));
        fib.wait_state("2001:db8:66::/48", FibState::Installed);
        resolve(&fib, NEXT_HOP_V6, ("2001:db8:1::2", "v1"));
        eventually("the IPv6 route has moved", || {
            routes("-6 route show 2001:db8:66::/48")[0].contains("via 2001:db8:1::2 ").then_some(())
        });
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}

/// Waits until this many routes of ours use an object and exactly these gateways.
fn all_go_over_all(count: usize, gateways: &[&str]) {
    eventually(&format!("{count} routes go over {gateways:?}"), || {
        let lines = ours();
        let is_right = |line: &&String| {
            line.contains("nhid ")
                && line.matches("via ").count() == gateways.len()
                && gateways.iter().all(|gateway| line.contains(&format!("via {gateway} ")))
        };
        let right = lines.iter().filter(is_right).count();
        (right == count && lines.len() == count).then_some(())
    });
}

/// Routes that share traffic between several BGP next hops.
#[test]
#[ignore = "needs root"]
fn a_lost_next_hop_leaves_all_its_routes_with_one_request() {
    in_namespace("groups::a_lost_next_hop_leaves_all_its_routes_with_one_request", || {
        veth("v0", "10.0.0.1/24", "");
        veth("v1", "10.0.1.1/24", "");
        let fib = with_objects();
        let (a, b) = (("10.0.0.2", "v0"), ("10.0.1.2", "v1"));
        let submit = |next_hops: &[FibNextHop], hops: Vec<Hop>| {
            let mut hops = hops;
            hops.sort_unstable();
            fib.fib.submit((0..200).map(|i| {
                let prefix: Prefix = format!("10.66.{i}.0/24").parse().unwrap();
                let kind = FibKind::Unicast(hops.clone());
                let next_hops = next_hops.to_vec();
                (prefix, Some(FibRoute { next_hops, ..FibRoute::new(prefix, kind) }))
            }));
        };
        let lose = |next_hop: &str| {
            let next_hop = next_hop.parse().unwrap();
            fib.fib.resolutions().update(next_hop, &NextHopState::Unreachable);
        };
        let writes = || fib.fib.counters().writes;
        let both = [NEXT_HOP, "192.0.2.8"];
        resolve(&fib, both[0], a);
        resolve(&fib, both[1], b);
        submit(&next_hops(&both), vec![hop(a.0, a.1), hop(b.0, b.1)]);
        all_go_over_all(200, &[a.0, b.0]);
        assert_eq!(objects().len(), 3, "two legs and a group: {:?}", objects());

        let before = writes();
        lose(both[0]);
        all_go_over_all(200, &[b.0]);
        eventually("its leg is gone", || (objects().len() == 2).then_some(()));
        assert_eq!(writes() - before, 2, "the group, and the deletion of the unused leg");
        // The routes that the owner submits then are installed already.
        submit(&next_hops(&both[1..]), vec![hop(b.0, b.1)]);
        fib.wait_state("10.66.199.0/24", FibState::Installed);
        assert_eq!((writes() - before, objects().len()), (2, 2));
        // The next hop is reachable again: routes that were submitted without it do not change
        // until the owner submits them.
        resolve(&fib, both[0], a);
        submit(&next_hops(&both), vec![hop(a.0, a.1), hop(b.0, b.1)]);
        all_go_over_all(200, &[a.0, b.0]);
        eventually("the first group is gone", || (objects().len() == 3).then_some(()));
        // All next hops become unreachable, and resolve differently before the owner has noticed.
        both.into_iter().for_each(lose);
        all_go_over_all(200, &[b.0]);
        resolve(&fib, both[1], ("10.0.1.3", "v1"));
        resolve(&fib, both[0], a);
        all_go_over_all(200, &[a.0, "10.0.1.3"]);

        // Over a tunnel, where the next hop itself is the gateway.
        let ifindex = hop(b.0, b.1).ifindex;
        let through = both.map(|addr| FibNextHop { tunnel: Some(ifindex), ..addr_of(addr) });
        let onlink = |addr| Hop { onlink: true, ..hop(addr, b.1) };
        submit(&through, both.map(onlink).to_vec());
        all_go_over_all(200, &both);
        eventually("the other objects are gone", || (objects().len() == 3).then_some(()));
        let before = writes();
        lose(both[1]);
        all_go_over_all(200, &both[..1]);
        eventually("the tunnelled leg is gone", || (objects().len() == 2).then_some(()));
        assert_eq!(writes() - before, 2);
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs root"]
fn routes_go_over_their_backup_with_one_request() {
    in_namespace("groups::routes_go_over_their_backup_with_one_request", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("v1", "10.0.1.1/24", "2001:db8:1::1/64");
        let fib = with_objects();
        for (prefixes, next_hop, backup, [a, b]) in [
            ("10.66.N.0/24", NEXT_HOP, "192.0.2.8", [("10.0.0.2", "v0"), ("10.0.1.2", "v1")]),
            (
                "2001:db8:66:N::/64",
                NEXT_HOP_V6,
                "2001:db8:ffff::8",
                [("2001:db8::2", "v0"), ("2001:db8:1::2", "v1")],
            ),
        ] {
            let submit = |next_hop, backup: Option<&str>, way: (&str, &str)| {
                fib.fib.submit((0..200).map(|i| {
                    let prefix: Prefix = prefixes.replace('N', &i.to_string()).parse().unwrap();
                    let (next_hops, backup) = (next_hops(&[next_hop]), backup.map(addr_of));
                    let kind = FibKind::Unicast(vec![hop(way.0, way.1)]);
                    let route = FibRoute { next_hops, backup, ..FibRoute::new(prefix, kind) };
                    (prefix, Some(route))
                }));
            };
            resolve(&fib, next_hop, a);
            resolve(&fib, backup, b);
            submit(next_hop, Some(backup), a);
            all_go_over(200, a.0);
            let before = fib.fib.counters().writes;
            fib.fib.resolutions().update(next_hop.parse().unwrap(), &NextHopState::Unreachable);
            all_go_over(200, b.0);
            eventually("the first leg is gone", || (objects().len() == 2).then_some(()));
            assert_eq!(fib.fib.counters().writes - before, 3, "a leg, the group, and a deletion");
            submit(backup, None, b);
            fib.wait_state(&prefixes.replace('N', "199"), FibState::Installed);
            assert_eq!((fib.fib.counters().writes - before, objects().len()), (3, 2));
            fib.fib.submit((0..200).map(|i| {
                (prefixes.replace('N', &i.to_string()).parse().unwrap(), None::<FibRoute>)
            }));
            eventually("all are gone", || ours().is_empty().then_some(()));
        }
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs root"]
fn the_next_run_adopts_the_objects_or_does_without() {
    in_namespace("groups::the_next_run_adopts_the_objects_or_does_without", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        ip("nexthop add id 77 via 10.0.0.9 dev v0 proto 12");
        let ways =
            [("192.0.2.1", "10.0.0.2"), ("192.0.2.2", "10.0.0.2"), ("192.0.2.3", "10.0.0.3")];
        let wants = |fib: &Running| {
            for (i, (next_hop, gateway)) in ways.iter().cycle().take(30).enumerate() {
                want(fib, &format!("10.66.{i}.0/24"), next_hop, (gateway, "v0"));
            }
            want(fib, "2001:db8:66::/48", NEXT_HOP_V6, ("2001:db8::2", "v0"));
        };
        let installed = |fib: &Running| {
            eventually("31 routes are installed", || {
                let counters = fib.fib.counters();
                (counters.installed == 31 && counters.pending == 0).then_some(())
            });
        };
        let fib = with_objects();
        wants(&fib);
        installed(&fib);
        let (first_routes, first_objects) = (ours(), objects());
        assert_eq!(first_objects.len(), 1 + 4 + 3, "{first_objects:?}");
        // No clean-up, as after kill -9.
        drop(fib);

        let mut monitor = Monitor::start();
        let fib = Running::start(config(NextHopForm::Objects));
        wants(&fib);
        fib.fib.end_of_startup();
        installed(&fib);
        assert_eq!((ours(), objects()), (first_routes, first_objects));
        assert_eq!(fib.fib.counters().writes, 0, "everything was adopted");
        drop(fib);

        let fib = Running::start(config(NextHopForm::Inline));
        wants(&fib);
        assert_eq!(objects().len(), 8, "nothing is deleted before the end of start-up");
        fib.fib.end_of_startup();
        installed(&fib);
        eventually("ours are gone", || (objects().len() == 1).then_some(()));
        assert!(objects()[0].contains("id 77 "), "it is outside our range");
        assert!(ours().iter().all(|line| !line.contains("nhid")), "{:?}", ours());
        drop(fib);

        let fib = Running::start(config(NextHopForm::Objects));
        wants(&fib);
        fib.fib.end_of_startup();
        eventually("routes go over objects again", || {
            ours().iter().all(|line| line.contains("nhid")).then_some(())
        });
        installed(&fib);
        let log = monitor.finish();
        assert!(!log.contains("Deleted"), "a route was missing for a moment: {log}");
        // The next run wants fewer routes.
        drop(fib);
        let fib = Running::start(config(NextHopForm::Objects));
        want(&fib, "10.66.0.0/24", ways[0].0, (ways[0].1, "v0"));
        fib.fib.end_of_startup();
        eventually("one route, one group and one leg are left", || {
            (ours().len() == 1 && objects().len() == 3).then_some(())
        });
        fib.stop(Leave::Withdraw);
        assert_eq!((ours().len(), objects().len()), (0, 1));
    });
}

#[test]
#[ignore = "needs root"]
fn damage_to_the_objects_by_others_and_links_is_repaired() {
    in_namespace("groups::damage_to_the_objects_by_others_and_links_is_repaired", || {
        veth("v0", "10.0.0.1/24", "2001:db8::1/64");
        veth("v1", "10.0.1.1/24", "");
        let fib = with_objects();
        for i in 0..50 {
            want(&fib, &format!("10.66.{i}.0/24"), NEXT_HOP, ("10.0.0.2", "v0"));
        }
        let both = vec![hop("10.0.0.2", "v0"), hop("10.0.1.2", "v1")];
        fib.want("10.67.0.0/16", FibKind::Unicast(both));
        let whole = || {
            eventually("all routes are there over objects", || {
                let lines = ours();
                let two = lines.iter().find(|line| line.starts_with("10.67.0.0/16"))?;
                let over = lines.iter().filter(|line| line.contains("nhid ")).count();
                (over == 51 && two.matches("via ").count() == 2).then_some(())
            });
        };
        whole();
        let group = |line: &str| {
            let mut words = line.split_whitespace();
            words.find(|word| *word == "nhid");
            words.next().unwrap().to_owned()
        };
        let id = group(&routes("route show 10.66.0.0/24")[0]);
        ip(&format!("nexthop del id {id}"));
        whole();
        // The only leg of the group.
        let leg = objects().into_iter().find(|line| line.contains("via 10.0.0.2 ")).unwrap();
        let leg = leg.split_whitespace().nth(1).unwrap().to_owned();
        ip(&format!("nexthop del id {leg}"));
        whole();
        let id = group(&routes("route show 10.66.0.0/24")[0]);
        let other = objects().into_iter().find(|line| line.contains("via 10.0.1.2 ")).unwrap();
        let other = other.split_whitespace().nth(1).unwrap().to_owned();
        ip(&format!("nexthop replace id {id} group {other} proto 12"));
        eventually("the group is ours again", || {
            routes("route show 10.66.0.0/24")[0].contains("via 10.0.0.2 ").then_some(())
        });
        // Loss of carrier, then of the interface itself.
        for (down, up) in [("v0p", "v0p"), ("v0", "v0")] {
            ip(&format!("link set {down} down"));
            eventually("the group goes on over the other leg", || {
                let line = routes("route show 10.67.0.0/16").concat();
                line.contains("via 10.0.1.2 ").then_some(())
            });
            ip(&format!("link set {up} up"));
            whole();
        }
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs root"]
fn routes_contain_their_gateways_if_an_object_is_refused() {
    in_namespace("groups::routes_contain_their_gateways_if_an_object_is_refused", || {
        veth("v0", "10.0.0.1/24", "");
        let fib = with_objects();
        // Not on a link, so that the kernel refuses it for objects and for routes.
        want(&fib, "10.66.0.0/16", NEXT_HOP, ("10.9.9.9", "v0"));
        let row = fib.wait_state("10.66.0.0/16", FibState::Failed);
        assert!(row.error.unwrap().contains("invalid gateway"));
        // The kernel accepts an interface without carrier for a route, but not for an object.
        ip("link set v0p down");
        want(&fib, "10.67.0.0/16", "192.0.2.8", ("10.0.0.2", "v0"));
        fib.wait_state("10.67.0.0/16", FibState::Installed);
        let line = routes("route show 10.67.0.0/16").concat();
        assert!(!line.contains("nhid") && line.contains("linkdown"), "{line}");
        ip("link set v0p up");
        eventually("it goes over an object", || {
            routes("route show 10.67.0.0/16").concat().contains("nhid").then_some(())
        });
        ip("addr add 10.9.9.1/24 dev v0");
        fib.wait_state("10.66.0.0/16", FibState::Installed);
        eventually("so does the other", || {
            routes("route show 10.66.0.0/16").concat().contains("nhid").then_some(())
        });
        // A source that is not an address of ours.
        let prefix: Prefix = "10.68.0.0/16".parse().unwrap();
        let kind = FibKind::Unicast(vec![hop("10.0.0.2", "v0")]);
        let source = Some("10.0.0.7".parse().unwrap());
        fib.fib.submit([(prefix, Some(FibRoute { source, ..FibRoute::new(prefix, kind) }))]);
        let row = fib.wait_state("10.68.0.0/16", FibState::Installed);
        assert!(row.error.unwrap().contains("without src 10.0.0.7"));
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs root"]
fn ids_of_others_are_left_alone_and_those_of_another_place_are_cleared() {
    in_namespace(
        "groups::ids_of_others_are_left_alone_and_those_of_another_place_are_cleared",
        || {
            veth("v0", "10.0.0.1/24", "");
            let fib = with_objects();
            want(&fib, "10.66.0.0/16", NEXT_HOP, ("10.0.0.2", "v0"));
            fib.wait_state("10.66.0.0/16", FibState::Installed);
            let ids = || -> BTreeSet<u32> {
                let id = |line: String| line.split_whitespace().nth(1).unwrap().parse().unwrap();
                objects().into_iter().map(id).collect()
            };
            let first = *ids().first().unwrap();
            fib.stop(Leave::Withdraw);
            ip(&format!("nexthop add id {first} via 10.0.0.9 dev v0 proto 4"));
            ip(&format!("nexthop add id {} blackhole proto 4", first + 1));
            let fib = with_objects();
            want(&fib, "10.66.0.0/16", NEXT_HOP, ("10.0.0.2", "v0"));
            fib.wait_state("10.66.0.0/16", FibState::Installed);
            assert!(ids().is_disjoint(&[first, first + 1].into()), "{:?}", ids());
            assert_eq!(routes("nexthop show proto 4").len(), 2);
            drop(fib);

            // Carried over to another protocol number, routes have gateways instead of objects.
            let (old, new) =
                (Place { table: 254, protocol: 12 }, Place { table: 254, protocol: 99 });
            let mut monitor = Monitor::start();
            assert_eq!(carry_over(old, Some(new)).unwrap().routes, 1);
            assert!(!monitor.finish().contains("Deleted"));
            assert!(
                routes("route show proto 99")[0].starts_with("10.66.0.0/16 via 10.0.0.2 dev v0")
            );
            assert!(ids().is_empty());
            assert_eq!(routes("nexthop show proto 4").len(), 2);
        },
    );
}

/// Two instances whose table numbers differ by 4,096, and one with the last range of ids.
#[test]
#[ignore = "needs root"]
fn instances_with_different_tables_have_different_objects() {
    in_namespace("groups::instances_with_different_tables_have_different_objects", || {
        veth("v0", "10.0.0.1/24", "");
        let tables = [254, 254 + 4096, 40_959];
        let instances = tables.map(|table| {
            let fib = Running::start(FibConfig { table, ..config(NextHopForm::Objects) });
            want(&fib, "10.66.0.0/16", NEXT_HOP, ("10.0.0.2", "v0"));
            fib.fib.end_of_startup();
            fib.wait_state("10.66.0.0/16", FibState::Installed);
            fib
        });
        assert_eq!(objects().len(), 6, "{:?}", objects());
        for (table, fib) in tables.iter().zip(&instances) {
            let lines = routes(&format!("route show table {table} proto 12"));
            assert!(lines.concat().contains("nhid "), "table {table}: {lines:?}");
            assert_eq!(fib.fib.counters().next_hop_objects, 2);
        }
        for (left, fib) in [4, 2, 0].into_iter().zip(instances) {
            fib.stop(Leave::Withdraw);
            assert_eq!(objects().len(), left, "{:?}", objects());
        }
    });
}

/// A rootless container has small buffers and fewer privileges.
#[test]
#[ignore = "needs root"]
fn objects_work_in_a_rootless_container() {
    in_user_namespace("groups::objects_work_in_a_rootless_container", || {
        veth("v0", "10.0.0.1/16", "");
        let fib = with_objects();
        for i in 0..3000 {
            let (high, low) = (i / 250, i % 250);
            let gateway = format!("10.0.{}.{}", 1 + high, 2 + low);
            want(&fib, &format!("10.{}.{low}.0/24", 100 + high), &gateway, (&gateway, "v0"));
        }
        eventually("all are installed", || (fib.fib.counters().installed == 3000).then_some(()));
        assert_eq!(fib.fib.counters().next_hop_objects, 6000);
        assert_eq!(fib.fib.counters().resyncs, 1, "no answer was lost");
        fib.stop(Leave::Withdraw);
        assert_eq!((ours(), objects()), (vec![], vec![]));
    });
}
