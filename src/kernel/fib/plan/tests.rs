//! Literals for the rules, and a random comparison with an obvious kernel.

use std::collections::BTreeMap;

use bgp_proto::types::{Family, FibKind, Hop};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::kernel::message::{KernelKind, KernelRoute};
use std::time::Duration;

const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const ENETUNREACH: i32 = 101;
const TABLE: u32 = 254;

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

/// A plan that has read an empty kernel and is past the start.
fn settled() -> Plan {
    let mut plan = Plan::new(TABLE);
    plan.begin_resync();
    plan.end_resync();
    plan.end_of_startup();
    plan
}

/// The next batch in words.
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

/// Polls, expects these words, and lets the kernel agree.
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
fn a_change_of_mind_during_a_batch_is_the_next_batch() {
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
    // The refusal is about a wish that is over.
    assert_eq!(plan.view(None, 1)[0].state, FibState::Pending);
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    assert_eq!(plan.shared.specs.len(), 1);
}

#[test]
fn nothing_is_written_before_the_kernel_was_read() {
    let (mut plan, foreign) = (Plan::new(TABLE), Foreign::default());
    plan.want(prefix("10.1.0.0/16"), wanted(via(1, 0)));
    plan.want(prefix("10.2.0.0/16"), wanted(via(1, 0)));
    plan.end_of_startup();
    assert!(!plan.has_work() && poll(&mut plan, &foreign).0.is_empty());
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.3.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync();
    // One is adopted, one is new, one is unwanted: the start was over before it was found.
    let expected = ["add 10.2.0.0/16 10.0.0.1", "withdraw 10.3.0.0/16 0"];
    agree(&mut plan, &foreign, &expected);
}

#[test]
fn leftovers_wait_for_the_end_of_the_start_unless_wanted_and_dropped() {
    let (mut plan, foreign) = (Plan::new(TABLE), Foreign::default());
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
fn another_metric_is_added_before_the_old_one_goes() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 100)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, wanted(via(1, 50)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 100"]);
    assert!(plan.is_idle());
}

/// A pool whose mode changed to one that Felix programs, and routes that BIRD left where they are
/// Felix's now.
#[test]
fn what_is_kept_stays_until_somebody_else_has_a_route_or_time_is_up() {
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
    // The other one has come to it, with a metric of its own.
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 1024"]);
    assert_eq!(plan.deadline(), Some(at(10_500)));
    plan.handle_time(at(10_499));
    agree(&mut plan, &foreign, &[]);
    plan.handle_time(at(10_500));
    agree(&mut plan, &foreign, &["withdraw 10.2.0.0/16 1024"]);
    // Wanted again meanwhile, and not wanted at all.
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
    // Where nothing is, nothing is written.
    plan.keep(prefix("10.3.0.0/16"));
    agree(&mut plan, &foreign, &[]);
    plan.want(prefix("10.3.0.0/16"), None);
    plan.handle_time(at(100_000));
    assert!(plan.view(None, 9).is_empty());
    assert_eq!(plan.shared.specs.len(), 0);
}

#[test]
fn what_an_earlier_run_left_is_kept_without_an_end() {
    let (mut plan, mut foreign) = (Plan::new(TABLE), Foreign::default());
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    // Before the kernel was read.
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
fn a_place_that_is_taken_is_not_written_until_it_is_free() {
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
    // In the same place behind ours: ours cannot be replaced without harm, only withdrawn.
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, wanted(via(2, 0)));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Foreign);
}

#[test]
fn an_unknown_holder_is_looked_up_once_and_then_an_error() {
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
fn a_hop_that_fails_is_not_asked_for_each_route_and_backs_off() {
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
    // One, two, four seconds; and each attempt is one route.
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
    // A link comes up: at once, and when one works all of them.
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

/// Lets the kernel answer what it is asked until nothing is asked any more; what was asked.
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
    panic!("it does not end: {asked:?}");
}

#[test]
fn a_leg_that_the_kernel_refuses_is_left_out_and_the_others_stay() {
    let mut plan = settled();
    let (p, q) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"));
    plan.want(p, wanted(via(1, 0)));
    converse(&mut plan, &[2], at(0));
    // A second path comes whose leg is refused: the good one stays all the time.
    plan.want(p, wanted(over(&[1, 2], 0)));
    let asked = converse(&mut plan, &[2], at(0));
    assert_eq!(asked.iter().find(|words| words.contains("withdraw")), None);
    let row = &plan.view(None, 1)[0];
    assert_eq!((row.state, row.spec.hops().len()), (FibState::Installed, 1));
    let (part, reason) = row.left_out[0].clone();
    assert_eq!(part, Part::Leg(via(2, 0).hops()[0]));
    assert_eq!(reason, "Nexthop has invalid gateway");
    // It is known for other routes and other combinations.
    plan.want(q, wanted(over(&[2, 3], 0)));
    assert_eq!(converse(&mut plan, &[2], at(0)), ["add 10.2.0.0/16 10.0.0.3"]);
    assert_eq!(plan.counters().installed, 2);
    // Tried again with one route for each combination, and then used by all.
    plan.handle_time(at(999));
    assert_eq!(converse(&mut plan, &[2], at(999)), Vec::<String>::new());
    plan.handle_time(at(1000));
    // Two combinations, each with the leg and, when that is refused, without.
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
fn of_many_legs_exactly_the_refused_ones_are_found() {
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
fn a_search_goes_on_with_another_prefix_when_its_own_goes_away() {
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

/// A retry that works though its answer is lost ends the refusal: when somebody deletes the route
/// afterwards it is written again.
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
    // Asked once more, since it is not known whether the kernel takes it.
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.1"]);
    plan.handle_lost(p, 0, Time::ZERO);
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
}

/// `ip route append` under our protocol number: a second route in the place of ours, which would
/// forward when ours goes.
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
    // The kernel deletes the first of them, which was the right one.
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
fn a_route_that_this_run_has_superseded_goes_at_once_also_during_the_start() {
    let (mut plan, foreign) = (Plan::new(TABLE), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.begin_resync();
    plan.handle_present(p, via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.2.0.0/16"), via(1, 7), Seen::Read, Time::ZERO);
    plan.end_resync();
    plan.want(p, wanted(via(2, 20)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    // A reading that comes between knows it again.
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
fn nothing_is_taken_once_everything_is_withdrawn() {
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
fn a_withdrawal_that_fails_is_not_repeated_for_ever() {
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
fn repairs_come_soon_once_and_rarely_in_a_fight() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, wanted(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    let (mut now, mut repairs) = (0, Vec::new());
    // Somebody deletes the route whenever it is there, for a minute.
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
    assert_eq!(report.first_repairs, 1, "a fight is not news");
    assert_eq!(report.repaired_examples[0], p);
    // Quiet for a while, and the next one is repaired at once again.
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
fn pages_of_the_view_join_up_across_the_families() {
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
    // 1M routes: 8 octets of prefix and 12 of state, in tree nodes that are half full at worst.
    assert_eq!(size_of::<entry::Entry>(), 12);
    assert_eq!(size_of::<Prefix4>(), 8);
}

#[test]
fn a_search_that_met_something_unknown_twice_is_tried_again() {
    let mut world = World {
        plan: Plan::new(TABLE),
        foreign: Foreign::default(),
        model: Model::default(),
        wanted: BTreeMap::new(),
        now: Time::ZERO,
    };
    let batch = || Step::Batch { max: 1, answered: true };
    let steps = [
        Step::Resync,
        // Unheard, ours has the place already.
        Step::Meddle { prefix: 3, low: false, gateway: 1, heard: false },
        Step::Refuse { gateway: 1, on: true },
        Step::Want { prefix: 3, spec: Some((3, false)) },
        // Both legs, the refused one, and the other: there is one.
        batch(),
        batch(),
        batch(),
        // Decided again before the reading: there is one still.
        Step::ForeignAdd { prefix: 3, low: true },
        batch(),
    ];
    steps.into_iter().for_each(|step| world.apply(step));
    world.settle();
    world.check();
}

#[test]
fn a_search_for_refused_legs_writes_nothing_where_somebody_else_came() {
    let mut world = World {
        plan: Plan::new(TABLE),
        foreign: Foreign::default(),
        model: Model::default(),
        wanted: BTreeMap::new(),
        now: Time::ZERO,
    };
    let batch = |answered| Step::Batch { max: 1, answered };
    let steps = [
        Step::Refuse { gateway: 2, on: true },
        Step::Want { prefix: 4, spec: Some((1, true)) },
        Step::Resync,
        batch(true),
        // Unheard: the plan takes what it wrote for installed still.
        Step::Lose { prefix: 4, low: true, heard: false },
        Step::Want { prefix: 4, spec: Some((7, true)) },
        batch(true),
        // The search asks for the first leg alone, which is what is installed.
        Step::ForeignAdd { prefix: 4, low: true },
        batch(true),
    ];
    steps.into_iter().for_each(|step| world.apply(step));
    world.settle();
    world.check();
}

#[test]
fn two_prefixes_with_one_content_do_not_search_against_each_other() {
    let mut world = World {
        plan: Plan::new(TABLE),
        foreign: Foreign::default(),
        model: Model::default(),
        wanted: BTreeMap::new(),
        now: Time::ZERO,
    };
    let steps = [
        Step::Resync,
        Step::Refuse { gateway: 2, on: true },
        Step::Refuse { gateway: 3, on: true },
        // Of the other content the second leg is known to be refused, but not the third.
        Step::Want { prefix: 0, spec: Some((2, false)) },
        Step::Batch { max: 1, answered: true },
        Step::Want { prefix: 3, spec: Some((7, false)) },
        Step::Want { prefix: 1, spec: Some((7, false)) },
    ];
    steps.into_iter().for_each(|step| world.apply(step));
    for _ in 0..40 {
        world.apply(Step::Batch { max: 4, answered: true });
    }
    assert!(world.plan.counters().writes < 12, "{:?}", world.plan.counters());
    world.settle();
    world.check();
}

/// A kernel that does what is asked and can be looked at.
#[derive(Debug, Default)]
struct Model {
    routes: BTreeMap<(Prefix, u32), Owner>,
    /// Gateways (last octet) that it refuses.
    refused: std::collections::BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq)]
enum Owner {
    Ours(RouteSpec),
    Foreign,
}

fn octet(hop: &Hop) -> u8 {
    match hop.gateway {
        Some(std::net::IpAddr::V4(addr)) => addr.octets()[3],
        _ => 0,
    }
}

impl Model {
    fn execute(&mut self, plan: &Plan, op: &Op) -> Result<(), i32> {
        let write = |model: &mut Model, id, exclusive: bool| {
            let spec = plan.spec(id).clone();
            if spec.hops().iter().any(|hop| model.refused.contains(&octet(hop))) {
                return Err(ENETUNREACH);
            }
            let place = (op.prefix, spec.metric);
            match model.routes.get(&place) {
                Some(_) if exclusive => return Err(EEXIST),
                Some(Owner::Foreign) => panic!("a foreign route was overwritten: {place:?}"),
                _ => {}
            }
            model.routes.insert(place, Owner::Ours(spec));
            Ok(())
        };
        match op.action {
            Action::Add(id) => write(self, id, true),
            Action::Replace(id) => write(self, id, false),
            Action::Withdraw(id) => self.withdraw(op.prefix, plan.spec(id).metric),
            Action::WithdrawStray { metric, .. } => self.withdraw(op.prefix, metric),
        }
    }

    /// As the kernel: by protocol, and a metric of 0 matches any, the lowest first.
    fn withdraw(&mut self, prefix: Prefix, metric: u32) -> Result<(), i32> {
        let ours = |owner: &Owner| matches!(owner, Owner::Ours(_));
        let range = (prefix, metric)..=(prefix, if metric == 0 { u32::MAX } else { metric });
        let place = self.routes.range(range).find(|(_, owner)| ours(owner)).map(|(k, _)| *k);
        place.and_then(|place| self.routes.remove(&place)).map(|_| ()).ok_or(ESRCH)
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Want {
        prefix: usize,
        /// Gateways as bits, and which metric.
        spec: Option<(u8, bool)>,
    },
    ForeignAdd {
        prefix: usize,
        low: bool,
    },
    /// Overwrites whatever is there, as `ip route replace` does.
    ForeignReplace {
        prefix: usize,
        low: bool,
    },
    ForeignGone {
        prefix: usize,
        low: bool,
    },
    /// Somebody deletes ours; the event is heard or lost.
    Lose {
        prefix: usize,
        low: bool,
        heard: bool,
    },
    /// Somebody writes a route under our protocol number.
    Meddle {
        prefix: usize,
        low: bool,
        gateway: u8,
        heard: bool,
    },
    Refuse {
        gateway: u8,
        on: bool,
    },
    Batch {
        max: usize,
        answered: bool,
    },
    Resync,
    Wait {
        millis: u64,
    },
    EndOfStartup,
}

fn step() -> impl Strategy<Value = Step> {
    let p = 0usize..5;
    let spec = proptest::option::weighted(0.75, (1u8..8, any::<bool>()));
    prop_oneof![
        6 => (p.clone(), spec).prop_map(|(prefix, spec)| Step::Want { prefix, spec }),
        2 => (p.clone(), any::<bool>()).prop_map(|(prefix, low)| Step::ForeignAdd { prefix, low }),
        1 => (p.clone(), any::<bool>())
            .prop_map(|(prefix, low)| Step::ForeignReplace { prefix, low }),
        2 => (p.clone(), any::<bool>()).prop_map(|(prefix, low)| Step::ForeignGone { prefix, low }),
        2 => (p.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(prefix, low, heard)| Step::Lose { prefix, low, heard }),
        1 => (p, any::<bool>(), 1u8..4, any::<bool>())
            .prop_map(|(prefix, low, gateway, heard)| Step::Meddle { prefix, low, gateway, heard }),
        1 => (1u8..4, any::<bool>()).prop_map(|(gateway, on)| Step::Refuse { gateway, on }),
        6 => (1usize..6, proptest::bool::weighted(0.9))
            .prop_map(|(max, answered)| Step::Batch { max, answered }),
        1 => Just(Step::Resync),
        2 => (0u64..3000).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::EndOfStartup),
    ]
}

/// The plan, the kernel and what the worker does between them.
struct World {
    plan: Plan,
    foreign: Foreign,
    model: Model,
    wanted: BTreeMap<Prefix, RouteSpec>,
    now: Time,
}

impl World {
    fn prefix(i: usize) -> Prefix {
        let texts =
            ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48"];
        prefix(texts[i])
    }

    fn metric(prefix: Prefix, low: bool) -> u32 {
        match (prefix.family(), low) {
            (Family::Ipv4, true) => 0,
            (_, true) => 1024,
            (_, false) => 2000,
        }
    }

    fn resync(&mut self) {
        self.plan.begin_resync();
        for ((prefix, _), owner) in &self.model.routes {
            if let Owner::Ours(spec) = owner {
                self.plan.handle_present(*prefix, spec.clone(), Seen::Read, self.now);
            }
        }
        self.plan.end_resync();
    }

    /// A foreign route appears in a place; `replaces` whatever held it.
    fn foreign_new(&mut self, prefix: Prefix, metric: u32, replaces: bool) {
        let before = self.model.routes.get(&(prefix, metric)).cloned();
        if before == Some(Owner::Foreign) || (before.is_some() && !replaces) {
            return;
        }
        self.model.routes.insert((prefix, metric), Owner::Foreign);
        self.foreign.handle_new(prefix, foreign_route(metric), before.is_some());
        if before.is_some() {
            self.plan.handle_lost(prefix, metric, self.now);
        }
        self.plan.touch(prefix);
    }

    fn batch(&mut self, max: usize, answered: bool) -> usize {
        let ops = self.plan.poll_batch(&self.foreign, max);
        let mut refused = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if let Err(errno) = self.model.execute(&self.plan, op) {
                refused.push(Refused { index, errno, text: format!("errno {errno}") });
            }
        }
        if answered {
            self.plan.handle_answers(&ops, &refused, self.now);
        } else {
            self.plan.handle_unanswered(&ops);
        }
        ops.len()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Want { prefix, spec } => {
                let prefix = World::prefix(prefix);
                let spec = spec.map(|(bits, low)| {
                    let gateways: Vec<u8> = (0..3).filter(|n| bits & 1 << n != 0).collect();
                    let gateways: Vec<u8> = gateways.into_iter().map(|n| n + 1).collect();
                    over(&gateways, World::metric(prefix, low))
                });
                self.plan.want(prefix, spec.clone().and_then(wanted));
                match spec {
                    Some(spec) => self.wanted.insert(prefix, spec),
                    None => self.wanted.remove(&prefix),
                };
            }
            Step::ForeignAdd { prefix, low } => {
                let prefix = World::prefix(prefix);
                self.foreign_new(prefix, World::metric(prefix, low), false);
            }
            Step::ForeignReplace { prefix, low } => {
                let prefix = World::prefix(prefix);
                self.foreign_new(prefix, World::metric(prefix, low), true);
            }
            Step::ForeignGone { prefix, low } => {
                let prefix = World::prefix(prefix);
                let metric = World::metric(prefix, low);
                if self.model.routes.get(&(prefix, metric)) == Some(&Owner::Foreign) {
                    self.model.routes.remove(&(prefix, metric));
                    self.foreign.handle_gone(prefix, foreign_route(metric));
                    self.plan.touch(prefix);
                }
            }
            Step::Lose { prefix, low, heard } => {
                let prefix = World::prefix(prefix);
                let metric = World::metric(prefix, low);
                if let Some(Owner::Ours(_)) = self.model.routes.get(&(prefix, metric)) {
                    self.model.routes.remove(&(prefix, metric));
                    if heard {
                        self.plan.handle_lost(prefix, metric, self.now);
                    }
                }
            }
            Step::Meddle { prefix, low, gateway, heard } => {
                let prefix = World::prefix(prefix);
                let spec = via(gateway, World::metric(prefix, low));
                let place = (prefix, spec.metric);
                if self.model.routes.get(&place) != Some(&Owner::Foreign) {
                    self.model.routes.insert(place, Owner::Ours(spec.clone()));
                    if heard {
                        self.plan.handle_present(prefix, spec, Seen::Replacing, self.now);
                    }
                }
            }
            Step::Refuse { gateway, on: true } => {
                self.model.refused.insert(gateway);
            }
            Step::Refuse { gateway, on: false } => {
                self.model.refused.remove(&gateway);
                self.plan.retry_refused();
            }
            Step::Batch { max, answered } => {
                self.batch(max, answered);
            }
            Step::Resync => self.resync(),
            Step::Wait { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                self.plan.handle_time(self.now);
            }
            Step::EndOfStartup => self.plan.end_of_startup(),
        }
    }

    /// Lets everything come to rest, with a reading for what was not heard.
    fn settle(&mut self) {
        self.plan.end_of_startup();
        for _ in 0..4 {
            self.resync();
            for _ in 0..100 {
                self.plan.handle_time(self.now);
                let written = self.batch(4, true);
                if self.plan.wants_resync() {
                    self.resync();
                }
                if written == 0 && !self.plan.has_work() {
                    self.now = self.now + Duration::from_secs(10);
                }
            }
        }
        // The last step may have been one of time, and begun a retry.
        for _ in 0..100 {
            self.batch(4, true);
        }
        assert!(self.plan.is_idle(), "{:#?}", self.plan);
    }

    fn check(&self) {
        let mut expected = FibCounters::default();
        for (prefix, spec) in &self.wanted {
            let held = self.model.routes.get(&(*prefix, spec.metric));
            let row = self.plan.view(None, 99).into_iter().find(|row| row.prefix == *prefix);
            let row = row.unwrap();
            // What the kernel takes of it.
            let hops = spec.hops().iter().filter(|hop| !self.model.refused.contains(&octet(hop)));
            let taken = RouteSpec::new(FibKind::Unicast(hops.copied().collect()), spec.metric);
            match held {
                _ if taken.hops().is_empty() => assert!(
                    matches!(row.state, FibState::Failed | FibState::Foreign)
                        || matches!(held, Some(Owner::Ours(_))),
                    "{row:?}"
                ),
                Some(Owner::Foreign) => assert_eq!(row.state, FibState::Foreign, "{row:?}"),
                Some(Owner::Ours(ours)) => {
                    // Legs that were taken before they were refused stay.
                    let within = |a: &RouteSpec, b: &RouteSpec| {
                        a.hops().iter().all(|hop| b.hops().contains(hop))
                    };
                    assert_eq!(row.state, FibState::Installed, "{row:?}");
                    assert!(within(&taken, ours) && within(ours, spec), "{ours:?} of {spec:?}");
                }
                None => panic!("{row:?} is missing"),
            }
            match row.state {
                FibState::Installed => expected.installed += 1,
                FibState::Failed => expected.failed += 1,
                FibState::Foreign => expected.foreign += 1,
                FibState::Pending => expected.pending += 1,
            }
        }
        for ((prefix, _), owner) in &self.model.routes {
            // One that cannot be replaced stays.
            let Owner::Ours(spec) = owner else { continue };
            let row = self.plan.row(*prefix).expect("an unwanted route was left");
            assert!(
                row.keeps || row.spec.metric == spec.metric,
                "{spec:?} was left beside {row:?}"
            );
        }
        let counters = self.plan.counters();
        assert_eq!(
            (counters.installed, counters.pending, counters.failed, counters.foreign),
            (expected.installed, 0, expected.failed, expected.foreign)
        );
        assert_eq!(self.plan.view(None, 99).len(), self.wanted.len());
        if self.model.refused.is_empty() {
            let mut distinct: std::collections::HashSet<&RouteSpec> =
                self.wanted.values().collect();
            let ours = self.model.routes.values().filter_map(|owner| match owner {
                Owner::Ours(spec) => Some(spec),
                Owner::Foreign => None,
            });
            distinct.extend(ours);
            assert_eq!(self.plan.shared.specs.len(), distinct.len(), "interned contents leak");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever happens, in the end the kernel has what is wanted where nobody else is, and no
    /// foreign route was ever overwritten.
    #[test]
    fn ends_as_wanted_and_never_overwrites(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World {
            plan: Plan::new(TABLE),
            foreign: Foreign::default(),
            model: Model::default(),
            wanted: BTreeMap::new(),
            now: Time::ZERO,
        };
        for step in steps {
            world.apply(step);
        }
        world.settle();
        world.check();
    }
}
