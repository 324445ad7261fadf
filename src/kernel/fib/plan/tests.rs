//! Examples of each rule, those for next-hop objects in `groups`; `model` compares random histories
//! with a simple model of the kernel.

use bgp_proto::types::{Family, FibKind, Hop};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::kernel::message::{KernelKind, KernelRoute};
use std::time::Duration;

mod groups;
mod model;

const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const ENETUNREACH: i32 = 101;
const TABLE: u32 = 254;
const PROTOCOL: u8 = 12;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

/// A route over gateway 10.0.0.`n`.
fn via(n: u8, metric: u32) -> RouteSpec {
    let gateway = Some(std::net::IpAddr::from([10, 0, 0, n]));
    let hop = Hop { gateway, ifindex: 1, onlink: false, weight: 1 };
    RouteSpec::new(FibKind::Unicast(vec![hop]), metric)
}

/// A route over gateways 10.0.0.`n`.
fn over(gateways: &[u8], metric: u32) -> RouteSpec {
    let hops = gateways.iter().flat_map(|n| via(*n, 0).hops().to_vec()).collect();
    RouteSpec::new(FibKind::Unicast(hops), metric)
}

/// The last octet of the gateway.
fn octet(hop: &Hop) -> u8 {
    match hop.gateway {
        Some(std::net::IpAddr::V4(addr)) => addr.octets()[3],
        _ => 0,
    }
}

fn wanted(spec: RouteSpec) -> Option<(RouteSpec, Recursion)> {
    Some((spec, Recursion::Recursive))
}

fn foreign_route(metric: u32) -> KernelRoute {
    KernelRoute {
        table: TABLE,
        tos: 0,
        protocol: 4,
        metric,
        kind: KernelKind::Blackhole,
        hops: SmallVec::new(),
        object: None,
        source: None,
        altered: false,
    }
}

/// A plan that has read an empty kernel and has ended start-up.
fn settled() -> Plan {
    let mut plan = Plan::new(TABLE, PROTOCOL, NextHopForm::Inline);
    plan.begin_resync();
    plan.end_resync();
    plan.end_of_startup();
    plan
}

/// The next batch, also as text.
fn poll(plan: &mut Plan, foreign: &Foreign) -> (Vec<Op>, Vec<String>) {
    let ops = plan.poll_batch(foreign, 1024);
    let gateway = |plan: &Plan, id| match plan.spec(id).hops() {
        [] => format!("{:?}", plan.spec(id).kind),
        hops => {
            let gateways = hops.iter().map(|hop| hop.gateway.unwrap().to_string());
            gateways.collect::<Vec<_>>().join("+")
        }
    };
    let words = ops
        .iter()
        .map(|op| match op.action {
            Action::Add(id) => format!("add {} {}", op.prefix, gateway(plan, id)),
            Action::Replace(id) => format!("replace {} {}", op.prefix, gateway(plan, id)),
            Action::Withdraw(id) => format!("withdraw {} {}", op.prefix, plan.spec(id).metric),
            Action::WithdrawStray { metric, .. } => format!("stray {} {metric}", op.prefix),
        })
        .collect();
    (ops, words)
}

/// Polls, expects this text, and lets the kernel accept everything.
fn agree(plan: &mut Plan, foreign: &Foreign, expected: &[&str]) {
    let (ops, words) = poll(plan, foreign);
    assert_eq!(words, expected);
    plan.handle_answers(&ops, &[], Time::ZERO);
}

fn refuse(plan: &mut Plan, ops: &[Op], errno: i32, now: Time) {
    let refused = |index| Refused { index, errno, text: format!("errno {errno}") };
    let refused: Vec<Refused> = (0..ops.len()).map(refused).collect();
    plan.handle_answers(ops, &refused, now);
}

#[test]
fn a_route_that_changes_before_it_is_written_is_written_once() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    for n in 1..=9 {
        plan.want(p, wanted(via(n, 0)));
    }
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.9"]);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, None);
    plan.want(p, wanted(via(9, 0)));
    agree(&mut plan, &foreign, &[]);
    plan.want(p, wanted(via(8, 0)));
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.8"]);
    plan.want(p, None);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    assert!(plan.view(None, 9).is_empty() && plan.is_idle());
    assert_eq!(plan.shared.specs.len(), 0);
}

#[test]
fn a_change_during_a_batch_is_written_with_the_next_batch() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    plan.want(p, None);
    plan.handle_answers(&ops, &[], Time::ZERO);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);

    plan.want(p, wanted(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    plan.want(p, wanted(via(2, 0)));
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    // The refusal is of a content that is no longer wanted.
    assert_eq!(plan.view(None, 1)[0].state, FibState::Pending);
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    assert_eq!(plan.shared.specs.len(), 1);
}

#[test]
fn nothing_is_written_before_the_kernel_has_been_read() {
    let (mut plan, foreign) = (Plan::new(TABLE, PROTOCOL, NextHopForm::Inline), Foreign::default());
    plan.want(prefix("10.1.0.0/16"), wanted(via(1, 0)));
    plan.want(prefix("10.2.0.0/16"), wanted(via(1, 0)));
    plan.end_of_startup();
    assert!(!plan.has_work() && poll(&mut plan, &foreign).0.is_empty());
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.3.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync();
    // One is adopted, one is new, one is unwanted: start-up was over before it was found.
    let expected = ["add 10.2.0.0/16 10.0.0.1", "withdraw 10.3.0.0/16 0"];
    agree(&mut plan, &foreign, &expected);
}

#[test]
fn leftovers_stay_until_start_up_ends_unless_wanted_and_withdrawn() {
    let (mut plan, foreign) = (Plan::new(TABLE, PROTOCOL, NextHopForm::Inline), Foreign::default());
    plan.begin_resync();
    for text in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
        plan.handle_present(prefix(text), via(1, 0), Seen::Read, Time::ZERO);
    }
    plan.handle_present(prefix("10.3.0.0/16"), via(1, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    assert_eq!(plan.counters().installed, 3);
    plan.want(prefix("10.1.0.0/16"), None);
    agree(&mut plan, &foreign, &[]);
    plan.want(prefix("10.2.0.0/16"), wanted(via(1, 0)));
    plan.want(prefix("10.2.0.0/16"), None);
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 0"]);
    plan.end_of_startup();
    let expected = ["withdraw 10.1.0.0/16 0", "withdraw 10.3.0.0/16 0", "stray 10.3.0.0/16 7"];
    agree(&mut plan, &foreign, &expected);
    assert!(plan.is_idle() && plan.view(None, 9).is_empty());
}

#[test]
fn a_new_metric_is_added_before_the_old_route_is_deleted() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 100)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, wanted(via(1, 50)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 100"]);
    assert!(plan.is_idle());
}

/// A pool whose mode changed to one for which Felix installs the routes, and routes left by BIRD
/// that are to be installed by Felix.
#[test]
fn a_kept_route_stays_until_another_process_has_one_or_time_is_up() {
    let (mut plan, mut foreign) = (settled(), Foreign::default());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    for prefix in [p, q] {
        plan.want(prefix, wanted(via(1, 1024)));
    }
    let added = ["add 10.1.0.0/16 10.0.0.1", "add 10.2.0.0/16 10.0.0.1"];
    agree(&mut plan, &foreign, &added);
    plan.keep(p);
    plan.keep(q);
    assert_eq!(plan.deadline(), Some(Time::ZERO), "the time is not known yet");
    plan.handle_time(at(500));
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.counters().installed, 2);
    // The other process has installed its route, with its own metric.
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 1024"]);
    assert_eq!(plan.deadline(), Some(at(10_500)));
    plan.handle_time(at(10_499));
    agree(&mut plan, &foreign, &[]);
    plan.handle_time(at(10_500));
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 1024"]);
    // One is wanted again meanwhile, one is withdrawn.
    plan.want(q, wanted(via(2, 1024)));
    agree(&mut plan, &foreign, &["add 10.2.0.0/16 10.0.0.2"]);
    plan.keep(q);
    plan.want(q, wanted(via(2, 1024)));
    plan.handle_time(at(30_000));
    plan.handle_time(at(60_000));
    agree(&mut plan, &foreign, &[]);
    plan.keep(q);
    plan.want(q, None);
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 1024"]);
    // Wanted again meanwhile, and kept anew: its time starts again.
    plan.want(q, wanted(via(2, 1024)));
    agree(&mut plan, &foreign, &["add 10.2.0.0/16 10.0.0.2"]);
    plan.keep(q);
    plan.handle_time(at(70_000));
    plan.want(q, wanted(via(2, 1024)));
    plan.handle_time(at(75_000));
    plan.keep(q);
    plan.handle_time(at(76_000));
    plan.handle_time(at(80_000));
    agree(&mut plan, &foreign, &[]);
    plan.handle_time(at(86_000));
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 1024"]);
    // Without an installed route nothing is written.
    plan.keep(prefix("10.3.0.0/16"));
    agree(&mut plan, &foreign, &[]);
    plan.want(prefix("10.3.0.0/16"), None);
    plan.handle_time(at(100_000));
    assert!(plan.view(None, 9).is_empty());
    assert_eq!(plan.shared.specs.len(), 0);
}

#[test]
fn a_route_left_by_an_earlier_run_is_kept_without_a_limit() {
    let (mut plan, mut foreign) =
        (Plan::new(TABLE, PROTOCOL, NextHopForm::Inline), Foreign::default());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    // Before the kernel has been read.
    plan.keep(p);
    plan.begin_resync();
    plan.handle_present(p, via(1, 1024), Seen::Read, Time::ZERO);
    plan.handle_present(q, via(1, 1024), Seen::Read, Time::ZERO);
    plan.end_resync();
    plan.end_of_startup();
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 1024"]);
    plan.handle_time(at(3_600_000));
    agree(&mut plan, &foreign, &[]);
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 1024"]);
}

#[test]
fn a_place_held_by_another_is_not_written_until_it_is_free() {
    let (mut plan, mut foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    foreign.insert(p, foreign_route(0));
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Foreign);
    assert_eq!(plan.counters().foreign, 1);
    plan.touch(p);
    agree(&mut plan, &foreign, &[]);
    foreign.handle_gone(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    // In the same place behind ours: ours cannot be replaced safely, only deleted.
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, wanted(via(2, 0)));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Foreign);
}

#[test]
fn an_unknown_holder_causes_one_dump_and_then_an_error() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, EEXIST, Time::ZERO);
    assert!(plan.wants_resync() && !plan.is_idle());
    agree(&mut plan, &foreign, &[]);
    plan.begin_resync();
    plan.end_resync();
    let (ops, words) = poll(&mut plan, &foreign);
    assert_eq!(words, ["add 10.1.0.0/16 10.0.0.1"]);
    refuse(&mut plan, &ops, EEXIST, Time::ZERO);
    assert!(!plan.wants_resync());
    assert_eq!(plan.view(None, 1)[0].state, FibState::Failed);
    assert_eq!(plan.view(None, 1)[0].error.as_deref(), Some("errno 17"));
}

#[test]
fn a_refused_hop_is_retried_with_one_route_and_backs_off() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    for i in 0..3000u32 {
        let p = Prefix::V4(Prefix4::from_bits((20 << 24) + (i << 8), 24));
        plan.want(p, wanted(via(1, 0)));
    }
    let (ops, _) = poll(&mut plan, &foreign);
    assert_eq!(ops.len(), 1024);
    refuse(&mut plan, &ops, ENETUNREACH, at(0));
    agree(&mut plan, &foreign, &[]);
    assert_eq!((plan.counters().failed, plan.counters().refused_next_hops), (3000, 1));
    let report = plan.take_report();
    assert_eq!((report.parts, report.part.is_some()), (1, true));
    assert_eq!(plan.view(None, 1)[0].error.as_deref(), Some("errno 101"));
    // One, two, four seconds; each attempt is with one route.
    let mut now = 0;
    for delay in [1000, 2000, 4000] {
        assert_eq!(plan.deadline(), Some(at(now + delay)));
        plan.handle_time(at(now + delay - 1));
        assert!(poll(&mut plan, &foreign).0.is_empty());
        now += delay;
        plan.handle_time(at(now));
        let (ops, words) = poll(&mut plan, &foreign);
        assert_eq!(words, ["add 20.0.0.0/24 10.0.0.1"]);
        refuse(&mut plan, &ops, ENETUNREACH, at(now));
        agree(&mut plan, &foreign, &[]);
    }
    assert_eq!(plan.take_report().parts, 0, "the same reason is logged once");
    // A link comes up: retried at once, and when one route works all are written.
    plan.retry_refused();
    plan.handle_time(at(now));
    for expected in [1, 1024, 1024, 951, 0] {
        let (ops, _) = poll(&mut plan, &foreign);
        assert_eq!(ops.len(), expected);
        plan.handle_answers(&ops, &[], at(now));
    }
    assert_eq!(plan.counters().installed, 3000);
    assert_eq!((plan.counters().failed, plan.deadline()), (0, None));
}

/// Lets the kernel answer until there are no more requests; returns the requests as text.
fn converse(plan: &mut Plan, refused: &[u8], now: Time) -> Vec<String> {
    let (foreign, mut asked) = (Foreign::default(), Vec::new());
    for _ in 0..100 {
        let (ops, words) = poll(plan, &foreign);
        if ops.is_empty() {
            return asked;
        }
        let mut answers = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let (Action::Add(id) | Action::Replace(id)) = op.action else { continue };
            if plan.spec(id).hops().iter().any(|hop| refused.contains(&octet(hop))) {
                let text = "Nexthop has invalid gateway".to_owned();
                answers.push(Refused { index, errno: EINVAL, text });
            }
        }
        asked.extend(words);
        plan.handle_answers(&ops, &answers, now);
    }
    panic!("requests without an end: {asked:?}");
}

#[test]
fn a_leg_that_the_kernel_refuses_is_left_out_and_the_others_stay() {
    let mut plan = settled();
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.want(p, wanted(via(1, 0)));
    converse(&mut plan, &[2], at(0));
    // A second path is added whose leg is refused: the first leg stays all the time.
    plan.want(p, wanted(over(&[1, 2], 0)));
    let asked = converse(&mut plan, &[2], at(0));
    assert_eq!(asked.iter().find(|words| words.contains("withdraw")), None);
    let row = &plan.view(None, 1)[0];
    assert_eq!((row.state, row.spec.hops().len()), (FibState::Installed, 1));
    let (part, reason) = row.left_out[0].clone();
    assert_eq!(part, Part::Leg(via(2, 0).hops()[0]));
    assert_eq!(reason, "Nexthop has invalid gateway");
    // The refusal is known for other routes and other combinations.
    plan.want(q, wanted(over(&[2, 3], 0)));
    assert_eq!(converse(&mut plan, &[2], at(0)), ["add 10.2.0.0/16 10.0.0.3"]);
    assert_eq!(plan.counters().installed, 2);
    // Retried with one route per combination, and then used by all.
    plan.handle_time(at(999));
    assert_eq!(converse(&mut plan, &[2], at(999)), Vec::<String>::new());
    plan.handle_time(at(1000));
    // Two combinations, each with the leg and, once that is refused, without.
    assert_eq!(converse(&mut plan, &[2], at(1000)).len(), 4);
    assert_eq!(plan.counters().installed, 2);
    plan.retry_refused();
    plan.handle_time(at(2000));
    converse(&mut plan, &[], at(2000));
    let rows = plan.view(None, 9);
    assert!(rows.iter().all(|row| row.left_out.is_empty() && row.spec.hops().len() == 2));
    assert_eq!((plan.counters().refused_next_hops, plan.deadline()), (0, None));
}

#[test]
fn a_trial_finds_exactly_the_refused_legs() {
    let mut plan = settled();
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(over(&[1, 2, 3, 4, 5], 0)));
    converse(&mut plan, &[1, 4], at(0));
    let row = &plan.view(None, 1)[0];
    let legs: Vec<u8> = row.spec.hops().iter().map(octet).collect();
    assert_eq!((row.state, legs), (FibState::Installed, vec![2, 3, 5]));
    assert_eq!(row.left_out.len(), 2);
}

#[test]
fn a_trial_continues_with_another_prefix_when_its_own_is_withdrawn() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.want(p, wanted(over(&[1, 2], 0)));
    plan.want(q, wanted(over(&[1, 2], 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENETUNREACH, at(0));
    let (ops, words) = poll(&mut plan, &foreign);
    assert_eq!(words, ["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, None);
    plan.handle_answers(&ops, &[], at(0));
    assert_eq!(plan.deadline(), Some(Time::ZERO));
    plan.handle_time(at(0));
    converse(&mut plan, &[2], at(0));
    let rows = plan.view(None, 9);
    assert_eq!((rows.len(), rows[0].state), (1, FibState::Installed));
    assert_eq!(rows[0].left_out.len(), 1);
}

#[test]
fn a_source_address_that_is_refused_is_left_out() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    let source = Some("10.0.0.9".parse().unwrap());
    plan.want(p, wanted(RouteSpec { source, ..via(1, 0) }));
    let (ops, _) = poll(&mut plan, &foreign);
    let text = "Invalid prefsrc address (Invalid argument)".to_owned();
    plan.handle_answers(&ops, &[Refused { index: 0, errno: EINVAL, text }], at(0));
    let (ops, _) = poll(&mut plan, &foreign);
    let Action::Add(id) = ops[0].action else { panic!("{ops:?}") };
    assert_eq!(plan.spec(id), &via(1, 0));
    plan.handle_answers(&ops, &[], at(0));
    assert_eq!(plan.view(None, 1)[0].state, FibState::Installed);
    plan.retry_refused();
    plan.handle_time(at(1));
    let (ops, _) = poll(&mut plan, &foreign);
    let Action::Replace(id) = ops[0].action else { panic!("{ops:?}") };
    assert_eq!(plan.spec(id).source, source);
}

/// A retry that succeeds ends the refusal even if its answer is lost: when the route is deleted
/// afterwards, it is written again.
#[test]
fn a_refusal_ends_when_the_route_is_found_in_the_kernel() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    plan.retry_refused();
    plan.handle_time(at(0));
    let (ops, words) = poll(&mut plan, &foreign);
    assert_eq!(words, ["add 10.1.0.0/16 10.0.0.1"]);
    plan.handle_unanswered(&ops);
    plan.begin_resync();
    plan.handle_present(p, via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync();
    // Written once more, since it is not known whether the kernel accepts it.
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.1"]);
    plan.handle_lost(p, 0, Time::ZERO);
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
}

/// `ip route append` under our protocol number: a second route in the place of ours, which the
/// kernel would use once ours is deleted.
#[test]
fn a_second_route_of_ours_in_one_place_is_found_and_deleted() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 7)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.handle_present(p, via(2, 7), Seen::Added, Time::ZERO);
    assert!(plan.wants_resync());
    agree(&mut plan, &foreign, &[]);
    plan.begin_resync();
    plan.handle_present(p, via(1, 7), Seen::Read, Time::ZERO);
    plan.handle_present(p, via(2, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 7"]);
    // The kernel deletes the first of them, which was the wanted one.
    assert!(plan.wants_resync());
    plan.begin_resync();
    plan.handle_present(p, via(2, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.1"]);
    assert!(plan.is_idle() && !plan.wants_resync());
    assert_eq!(plan.shared.specs.len(), 1);
}

#[test]
fn a_change_that_fails_keeps_what_is_installed() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, wanted(via(2, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    agree(&mut plan, &foreign, &[]);
    let row = &plan.view(None, 1)[0];
    assert_eq!((row.state, row.keeps), (FibState::Failed, true));
    plan.want(p, None);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
}

#[test]
fn a_route_superseded_by_this_run_is_deleted_at_once_even_during_start_up() {
    let (mut plan, foreign) = (Plan::new(TABLE, PROTOCOL, NextHopForm::Inline), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.begin_resync();
    plan.handle_present(p, via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    plan.want(p, wanted(via(2, 20)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    // A dump in between finds it again.
    plan.begin_resync();
    for (text, spec) in [("10.1.0.0/16", via(1, 0)), ("10.1.0.0/16", via(2, 20))] {
        plan.handle_present(prefix(text), spec, Seen::Read, Time::ZERO);
    }
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 0"]);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, None);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 20"]);
}

#[test]
fn a_superseded_route_that_the_kernel_does_not_delete_is_deleted_later() {
    const EBUSY: i32 = 16;
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 20)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, wanted(via(2, 30)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    // The wait doubles while the deletion is refused.
    for due in [0, 1000, 3000] {
        plan.handle_time(at(due));
        let (ops, words) = poll(&mut plan, &foreign);
        assert_eq!(words, ["stray 10.1.0.0/16 20"], "at {due}");
        refuse(&mut plan, &ops, EBUSY, at(due));
        plan.handle_time(at(due + 999));
        agree(&mut plan, &foreign, &[]);
    }
    assert_eq!(plan.deadline(), Some(at(7000)));
    // If the answer is lost, a dump decides, and the route is still superseded.
    plan.handle_time(at(7000));
    let (ops, _) = poll(&mut plan, &foreign);
    plan.handle_unanswered(&ops);
    assert!(plan.wants_resync());
    plan.begin_resync();
    for spec in [via(1, 20), via(2, 30)] {
        plan.handle_present(p, spec, Seen::Read, at(7000));
    }
    plan.end_resync();
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 20"]);
    // It has been deleted, and the wait after the next refusal is the shortest again.
    assert_eq!(plan.deadline(), None);
}

#[test]
fn the_final_withdrawal_ends_when_the_kernel_has_deleted_everything() {
    const ENOBUFS: i32 = 105;
    let (mut plan, foreign) = (settled(), Foreign::default());
    plan.want(prefix("10.1.0.0/16"), wanted(via(1, 20)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.withdraw_all();
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENOBUFS, at(0));
    assert!(!plan.has_work() && !plan.is_idle());
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 20"]);
    assert!(plan.is_idle());
}

#[test]
fn the_prefix_of_a_connected_network_is_never_written() {
    let (mut plan, mut foreign) = (settled(), Foreign::default());
    let p = prefix("10.9.0.0/24");
    plan.want(p, wanted(via(1, 20)));
    agree(&mut plan, &foreign, &["add 10.9.0.0/24 10.0.0.1"]);
    let connected = KernelRoute {
        protocol: 2,
        kind: KernelKind::Unicast,
        hops: SmallVec::from_slice(&[Hop { gateway: None, ..via(1, 0).hops()[0] }]),
        ..foreign_route(100)
    };
    foreign.insert(p, connected.clone());
    plan.touch(p);
    agree(&mut plan, &foreign, &["withdraw 10.9.0.0/24 20"]);
    let row = &plan.view(None, 1)[0];
    assert_eq!(row.state, FibState::Foreign);
    assert_eq!(row.error.as_deref(), Some("it is a connected network"));
    assert_eq!(plan.take_report().held, 1);
    foreign.handle_gone(p, connected);
    plan.touch(p);
    agree(&mut plan, &foreign, &["add 10.9.0.0/24 10.0.0.1"]);
}

#[test]
fn submissions_are_ignored_during_the_final_withdrawal() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.withdraw_all();
    plan.want(p, wanted(via(2, 0)));
    plan.want(prefix("10.2.0.0/16"), wanted(via(2, 0)));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    assert!(plan.is_idle() && plan.view(None, 1).is_empty());
}

#[test]
fn a_deletion_that_is_refused_is_not_repeated_for_ever() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, None);
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, EPERM, Time::ZERO);
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Failed);
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    assert!(plan.view(None, 1).is_empty());
}

#[test]
fn the_first_repair_is_soon_and_those_of_a_fight_are_rare() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    let (mut now, mut repairs) = (0, Vec::new());
    // Another process deletes the route whenever it is installed, for a minute.
    while now < 60_000 {
        plan.handle_lost(p, 0, at(now));
        now = plan.deadline().unwrap().as_micros() / 1000;
        plan.handle_time(at(now));
        agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
        repairs.push(now);
    }
    assert_eq!(repairs[0], 20);
    assert!(repairs.len() < 16, "{repairs:?}");
    let report = plan.take_report();
    assert_eq!(report.first_repairs, 1, "a fight is reported once");
    assert_eq!(report.repaired_examples[0], p);
    // After a quiet time, the next repair is at once again.
    plan.handle_lost(p, 0, at(now + 60_000));
    assert_eq!(plan.deadline(), Some(at(now + 60_020)));
}

#[test]
fn a_resync_that_fails_loses_nothing() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    for text in ["10.1.0.0/16", "10.2.0.0/16"] {
        plan.want(prefix(text), wanted(via(1, 0)));
    }
    let (ops, _) = poll(&mut plan, &foreign);
    plan.handle_answers(&ops, &[], Time::ZERO);
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.abort_resync();
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync();
    plan.handle_time(at(20));
    agree(&mut plan, &foreign, &["add 10.2.0.0/16 10.0.0.1"]);
}

#[test]
fn pages_of_the_view_continue_across_the_families() {
    let mut plan = settled();
    let texts = ["10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48"];
    for text in texts {
        plan.want(prefix(text), wanted(via(1, 0)));
    }
    let mut seen = Vec::new();
    let mut after = None;
    while let Some(row) = plan.view(after, 1).pop() {
        after = Some(row.prefix);
        seen.push(row.prefix.to_string());
    }
    assert_eq!(seen, texts);
}

#[test]
fn an_entry_is_small() {
    // For 1M routes: 8 octets of prefix and 12 of state each, in tree nodes at least half full.
    assert_eq!(size_of::<entry::Entry>(), 12);
    assert_eq!(size_of::<Prefix4>(), 8);
}
