//! Routes over next-hop objects: examples of each rule.

use super::*;
use crate::kernel::message::{ObjectKind, ObjectRequest};

const NEXT_HOP: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// A route over gateway 10.0.0.`n`, which is the result of resolving a BGP next hop.
fn behind(n: u8, metric: u32) -> RouteSpec {
    RouteSpec { next_hops: vec![NEXT_HOP.into()], ..via(n, metric) }
}

fn settled_with_objects() -> Plan {
    let mut plan = Plan::new(TABLE, PROTOCOL, NextHopForm::Objects);
    plan.begin_resync();
    plan.end_resync();
    plan.handle_objects_read([].iter(), DumpEnd::Complete);
    plan.end_of_startup();
    plan
}

/// Lets the kernel accept all requests for objects; returns them as text, with ids from 1.
fn objects(plan: &mut Plan) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        let ops = plan.poll_objects();
        if ops.is_empty() {
            return words;
        }
        let first = ids_of_table(TABLE).start() - 1;
        words.extend(ops.iter().map(|op| {
            let kind = |kind: &ObjectKind| match kind {
                ObjectKind::Hop(hop) => format!("via {}", octet(hop)),
                ObjectKind::Group(members) => {
                    let ids = members.iter().map(|(id, _)| (id.get() - first).to_string());
                    format!("group {}", ids.collect::<Vec<_>>().join("/"))
                }
                kind => format!("{kind:?}"),
            };
            let id = op.id.get() - first;
            match &op.request {
                ObjectRequest::Add(content) => format!("add {id} {}", kind(content)),
                ObjectRequest::Replace(content) => format!("replace {id} {}", kind(content)),
                ObjectRequest::Delete => format!("delete {id}"),
            }
        }));
        plan.handle_object_answers(&ops, &[], Time::ZERO);
    }
}

fn write_all(plan: &mut Plan) -> usize {
    let (ops, _) = poll(plan, &Foreign::default());
    plan.handle_answers(&ops, &[], Time::ZERO);
    ops.len()
}

#[test]
fn routes_follow_when_their_group_is_replaced() {
    let mut plan = settled_with_objects();
    let prefixes = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(prefix);
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    for (p, metric) in prefixes.into_iter().zip([20, 20, 512]) {
        plan.want(p, wanted(behind(1, metric)));
    }
    assert_eq!(objects(&mut plan), ["add 2 via 1", "add 1 group 2"]);
    assert_eq!(write_all(&mut plan), 3);

    plan.handle_next_hop(NEXT_HOP, via(2, 0).hops());
    assert_eq!(objects(&mut plan), ["add 3 via 2", "replace 1 group 3", "delete 2"]);
    assert_eq!(write_all(&mut plan), 0);
    assert_eq!(octet(&plan.row(prefixes[0]).unwrap().spec.hops()[0]), 2);
    for (p, metric) in prefixes.into_iter().zip([20, 20, 512]) {
        plan.want(p, wanted(behind(2, metric)));
    }
    assert_eq!((write_all(&mut plan), objects(&mut plan).len()), (0, 0));

    // Unreachable for a while, and then as before: the owner may not have noticed.
    plan.handle_next_hop(NEXT_HOP, &[]);
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    assert_eq!(objects(&mut plan).len(), 3);
    assert_eq!(octet(&plan.row(prefixes[2]).unwrap().spec.hops()[0]), 1);
    assert_eq!(plan.counters().installed, 3);
}

#[test]
fn a_route_submitted_meanwhile_does_not_delay_the_others() {
    let mut plan = settled_with_objects();
    let (first, second) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.want(first, wanted(behind(1, 20)));
    objects(&mut plan);
    write_all(&mut plan);
    plan.handle_next_hop(NEXT_HOP, via(2, 0).hops());
    // The owner does not know the change yet.
    plan.want(second, wanted(behind(1, 20)));
    objects(&mut plan);
    write_all(&mut plan);
    let gateway = |plan: &Plan, p| octet(&plan.row(p).unwrap().spec.hops()[0]);
    assert_eq!((gateway(&plan, first), gateway(&plan, second)), (2, 1));
    // As before, before the owner has noticed: it will submit neither route.
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    objects(&mut plan);
    write_all(&mut plan);
    assert_eq!((gateway(&plan, first), gateway(&plan, second)), (1, 1));
    objects(&mut plan);
    assert!(plan.is_idle());
}

#[test]
fn routes_over_several_next_hops_continue_without_the_lost_one() {
    let mut plan = settled_with_objects();
    let other = std::net::IpAddr::from([192, 0, 2, 8]);
    let over = |next_hops: &[std::net::IpAddr], gateways: &[u8], metric| RouteSpec {
        next_hops: next_hops.iter().copied().map(Into::into).collect(),
        ..over(gateways, metric)
    };
    let both = [NEXT_HOP, other];
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.handle_next_hop(other, via(2, 0).hops());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.want(p, wanted(over(&both, &[1, 2], 20)));
    plan.want(q, wanted(over(&both, &[1, 2], 512)));
    assert_eq!(objects(&mut plan), ["add 2 via 1", "add 3 via 2", "add 1 group 2/3"]);
    assert_eq!(write_all(&mut plan), 2);

    plan.handle_next_hop(NEXT_HOP, &[]);
    assert_eq!(objects(&mut plan), ["replace 1 group 3", "delete 2"]);
    // Routes submitted then use the same group.
    plan.want(p, wanted(over(&[other], &[2], 20)));
    assert_eq!((write_all(&mut plan), objects(&mut plan).len()), (0, 0));
    // The next hop is reachable again before the second route was submitted.
    plan.handle_next_hop(NEXT_HOP, via(3, 0).hops());
    assert_eq!(objects(&mut plan), ["add 5 via 3", "add 4 group 3/5"]);
    assert_eq!(write_all(&mut plan), 1);
    let gateways = |plan: &Plan, p| -> Vec<u8> {
        plan.row(p).unwrap().spec.hops().iter().map(octet).collect()
    };
    assert_eq!((gateways(&plan, p), gateways(&plan, q)), (vec![2], vec![2, 3]));

    // A group moves even if another one has the same next hops and hops.
    plan.handle_next_hop(NEXT_HOP, &[]);
    assert_eq!(objects(&mut plan), ["replace 4 group 3", "delete 5"]);
    plan.handle_next_hop(other, via(4, 0).hops());
    assert_eq!(
        objects(&mut plan),
        ["add 6 via 4", "replace 1 group 6", "replace 4 group 6", "delete 3"]
    );
    assert_eq!(write_all(&mut plan), 0);
    // No next hop is reachable: the routes keep their hops until the owner submits others.
    plan.handle_next_hop(other, &[]);
    assert_eq!((objects(&mut plan).len(), write_all(&mut plan)), (0, 0));
    plan.want(p, None);
    plan.want(q, None);
    assert_eq!(write_all(&mut plan), 2);
    assert_eq!(objects(&mut plan), ["delete 1", "delete 4", "delete 6"]);
    assert_eq!(plan.shared.specs.len(), 0);
}

#[test]
fn the_weight_of_a_single_hop_counts_beside_those_of_other_next_hops() {
    let mut plan = settled_with_objects();
    let other = std::net::IpAddr::from([192, 0, 2, 8]);
    let hop = |n, weight| Hop { weight, ..via(n, 0).hops()[0] };
    let both = RouteSpec {
        next_hops: vec![NEXT_HOP.into(), other.into()],
        ..RouteSpec::new(FibKind::Unicast(vec![hop(1, 5), hop(2, 1)]), 20)
    };
    plan.handle_next_hop(NEXT_HOP, &[hop(1, 5)]);
    plan.handle_next_hop(other, &[hop(2, 1)]);
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(both));
    objects(&mut plan);
    write_all(&mut plan);
    plan.handle_next_hop(other, &[hop(3, 1)]);
    objects(&mut plan);
    // Wanted as the table comes to it, too.
    assert_eq!(plan.row(p).unwrap().spec.hops(), [hop(1, 5), hop(3, 1)]);
    plan.handle_next_hop(other, &[]);
    objects(&mut plan);
    assert_eq!(plan.row(p).unwrap().spec.hops(), [hop(1, 1)]);
}

#[test]
fn routes_go_over_their_backup_until_the_owner_has_decided() {
    let mut plan = settled_with_objects();
    let other = std::net::IpAddr::from([192, 0, 2, 8]);
    let backed = |n, metric| RouteSpec { backup: Some(other.into()), ..behind(n, metric) };
    let after = |n, metric| RouteSpec { next_hops: vec![other.into()], ..via(n, metric) };
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.handle_next_hop(other, via(2, 0).hops());
    let (p, q, r) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"), prefix("10.3.0.0/16"));
    plan.want(p, wanted(backed(1, 20)));
    plan.want(q, wanted(backed(1, 512)));
    // A route without a backup does not share their group.
    plan.want(r, wanted(behind(1, 20)));
    let added = ["add 2 via 1", "add 1 group 2", "add 3 group 2"];
    assert_eq!(objects(&mut plan), added);
    assert_eq!(write_all(&mut plan), 3);

    // A change of the backup has no effect while it is not in use.
    plan.handle_next_hop(other, via(3, 0).hops());
    assert_eq!(objects(&mut plan).len(), 0);
    plan.handle_next_hop(NEXT_HOP, &[]);
    assert_eq!(objects(&mut plan), ["add 4 via 3", "replace 1 group 4"]);
    let gateway = |plan: &Plan, p| octet(&plan.row(p).unwrap().spec.hops()[0]);
    assert_eq!([p, q, r].map(|p| gateway(&plan, p)), [3, 3, 1]);
    // The route that the owner submits is installed already.
    plan.want(p, wanted(after(3, 20)));
    plan.want(r, None);
    assert_eq!(write_all(&mut plan), 1, "the withdrawal");
    assert_eq!(objects(&mut plan), ["delete 3", "delete 2"]);
    // As before, before the owner has submitted the second route: it need not submit it.
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    objects(&mut plan);
    write_all(&mut plan);
    assert_eq!([p, q].map(|p| gateway(&plan, p)), [3, 1]);
    // Neither is reachable: the routes keep their hops.
    plan.handle_next_hop(other, &[]);
    plan.handle_next_hop(NEXT_HOP, &[]);
    assert_eq!([p, q].map(|p| gateway(&plan, p)), [3, 1]);
}

#[test]
fn a_refused_leg_is_left_out_and_without_any_leg_hops_are_written_inline() {
    let mut plan = settled_with_objects();
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(over(&[1, 2], 20)));
    let refuse = |plan: &mut Plan, gateways: &[u8], now: Time| {
        for _ in 0..8 {
            let ops = plan.poll_objects();
            let refused = ops.iter().enumerate().filter(|(_, op)| match &op.request {
                ObjectRequest::Add(ObjectKind::Hop(hop)) => gateways.contains(&octet(hop)),
                _ => false,
            });
            let text = "Carrier for nexthop device is down".to_owned();
            let refused =
                refused.map(|(index, _)| Refused { index, errno: 100, text: text.clone() });
            let refused: Vec<Refused> = refused.collect();
            plan.handle_object_answers(&ops, &refused, now);
        }
    };
    refuse(&mut plan, &[2], Time::ZERO);
    write_all(&mut plan);
    let row = plan.row(p).unwrap();
    assert_eq!((row.state, row.left_out.len()), (FibState::Installed, 1));
    assert_eq!(plan.counters().refused_next_hops, 1);
    let report = plan.take_report();
    assert_eq!((report.objects, report.refused), (1, 0));

    // Only the refused leg is wanted: the hop is written inline, and the old group is unused.
    plan.want(p, wanted(over(&[2], 20)));
    refuse(&mut plan, &[2], Time::ZERO);
    let (ops, words) = poll(&mut plan, &Foreign::default());
    assert_eq!(words, ["replace 10.1.0.0/16 10.0.0.2"]);
    plan.handle_answers(&ops, &[], Time::ZERO);
    assert_eq!(plan.row(p).unwrap().state, FibState::Installed);

    // After a wait, or when links change, the object is retried.
    plan.handle_time(at(1000));
    assert_eq!(objects(&mut plan).len(), 2 + 2, "a leg and a group, and two deletions");
    assert_eq!(write_all(&mut plan), 1);
    assert_eq!(plan.counters().refused_next_hops, 0);
}

#[test]
fn routes_over_one_reached_next_hop_share_a_group_whatever_their_bandwidths() {
    let mut plan = settled_with_objects();
    let other = std::net::IpAddr::from([192, 0, 2, 8]);
    let over = |bandwidth: u64, next_hops: &[std::net::IpAddr]| {
        let with = |addr: &std::net::IpAddr| bgp_proto::types::FibNextHop {
            bandwidth: Some(bandwidth),
            ..(*addr).into()
        };
        RouteSpec { next_hops: next_hops.iter().map(with).collect(), ..via(1, 20) }
    };
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.handle_next_hop(other, &[]);
    plan.want(prefix("10.1.0.0/16"), wanted(over(1000, &[NEXT_HOP, other])));
    plan.want(prefix("10.2.0.0/16"), wanted(over(2000, &[NEXT_HOP, other])));
    plan.want(prefix("10.3.0.0/16"), wanted(over(3000, &[NEXT_HOP])));
    assert_eq!(objects(&mut plan), ["add 2 via 1", "add 1 group 2"]);
}

/// The owner that hears of the way back before it submits anything submits nothing at all.
#[test]
fn nothing_moves_before_it_is_known_whether_the_kernel_has_objects() {
    let mut plan = Plan::new(TABLE, PROTOCOL, NextHopForm::Objects);
    let p = prefix("10.1.0.0/16");
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.want(p, wanted(behind(1, 20)));
    plan.handle_next_hop(NEXT_HOP, via(2, 0).hops());
    plan.begin_resync();
    plan.handle_objects_read([].iter(), DumpEnd::Complete);
    plan.handle_no_objects();
    plan.end_resync();
    plan.end_of_startup();
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    agree(&mut plan, &Foreign::default(), &["add 10.1.0.0/16 10.0.0.1"]);
}

#[test]
fn no_objects_are_requested_from_a_kernel_without_support() {
    let (mut plan, foreign) =
        (Plan::new(TABLE, PROTOCOL, NextHopForm::Objects), Foreign::default());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.handle_next_hop(NEXT_HOP, via(1, 0).hops());
    plan.want(p, wanted(behind(1, 20)));
    plan.begin_resync();
    plan.handle_present(p, via(1, 20), Seen::Read, Time::ZERO);
    plan.handle_objects_read([].iter(), DumpEnd::Complete);
    plan.handle_no_objects();
    plan.end_resync();
    plan.end_of_startup();
    plan.want(q, wanted(behind(1, 20)));
    assert!(plan.poll_objects().is_empty());
    // The other route is installed already.
    agree(&mut plan, &foreign, &["add 10.2.0.0/16 10.0.0.1"]);
    // The owner alone moves routes: nothing is looked for among them before it does.
    plan.handle_next_hop(NEXT_HOP, via(2, 0).hops());
    assert!(plan.poll_objects().is_empty() && !plan.has_work());
    plan.want(p, wanted(behind(2, 20)));
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.2"]);
    plan.want(q, wanted(behind(2, 20)));
    agree(&mut plan, &foreign, &["replace 10.2.0.0/16 10.0.0.2"]);
    assert!(plan.is_idle());
    assert_eq!((plan.counters().installed, plan.counters().next_hop_objects), (2, 0));
}
