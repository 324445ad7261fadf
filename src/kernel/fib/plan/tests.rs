//! Literals for the rules, and a random comparison with an obvious kernel.

use std::collections::BTreeMap;

use bgp_proto::types::{Family, FibKind, Hop};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::kernel::message::{KernelKind, KernelRoute};

const EPERM: i32 = 1;
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
    RouteSpec { kind: FibKind::Unicast(vec![hop]), metric }
}

fn foreign_route(metric: u32) -> KernelRoute {
    KernelRoute {
        table: TABLE,
        tos: 0,
        protocol: 4,
        metric,
        kind: KernelKind::Blackhole,
        hops: SmallVec::new(),
    }
}

/// A plan that has read an empty kernel and is past the start.
fn settled() -> Plan {
    let mut plan = Plan::new(TABLE);
    plan.begin_resync();
    plan.end_resync(Time::ZERO);
    plan.end_of_startup();
    plan
}

/// The next batch in words.
fn poll(plan: &mut Plan, foreign: &Foreign) -> (Vec<Op>, Vec<String>) {
    let ops = plan.poll_batch(foreign, 1024);
    let gateway = |plan: &Plan, id| match &plan.spec(id).kind {
        FibKind::Unicast(hops) => hops[0].gateway.unwrap().to_string(),
        other => format!("{other:?}"),
    };
    let words = ops
        .iter()
        .map(|op| match op.action {
            Action::Add(id) => format!("add {} {}", op.prefix, gateway(plan, id)),
            Action::Replace(id) => format!("replace {} {}", op.prefix, gateway(plan, id)),
            Action::Withdraw(id) => format!("withdraw {} {}", op.prefix, plan.spec(id).metric),
            Action::WithdrawStray { metric } => format!("stray {} {metric}", op.prefix),
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
        plan.want(p, Some(via(n, 0)));
    }
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.9"]);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, None);
    plan.want(p, Some(via(9, 0)));
    agree(&mut plan, &foreign, &[]);
    plan.want(p, Some(via(8, 0)));
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
    plan.want(p, Some(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    plan.want(p, None);
    plan.handle_answers(&ops, &[], Time::ZERO);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);

    plan.want(p, Some(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    plan.want(p, Some(via(2, 0)));
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    // The refusal is about a wish that is over.
    assert_eq!(plan.view(None, 1)[0].state, FibState::Pending);
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.2"]);
    assert_eq!(plan.shared.specs.len(), 1);
}

#[test]
fn nothing_is_written_before_the_kernel_was_read() {
    let (mut plan, foreign) = (Plan::new(TABLE), Foreign::default());
    plan.want(prefix("10.1.0.0/16"), Some(via(1, 0)));
    plan.want(prefix("10.2.0.0/16"), Some(via(1, 0)));
    plan.end_of_startup();
    assert!(!plan.has_work() && poll(&mut plan, &foreign).0.is_empty());
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.handle_present(prefix("10.3.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync(Time::ZERO);
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
    plan.end_resync(Time::ZERO);
    assert_eq!(plan.counters().installed, 3);
    plan.want(prefix("10.1.0.0/16"), None);
    agree(&mut plan, &foreign, &[]);
    plan.want(prefix("10.2.0.0/16"), Some(via(1, 0)));
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
    plan.want(p, Some(via(1, 100)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, Some(via(1, 50)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 100"]);
    assert!(plan.is_idle());
}

#[test]
fn a_place_that_is_taken_is_not_written_until_it_is_free() {
    let (mut plan, mut foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    foreign.insert(p, foreign_route(0));
    plan.want(p, Some(via(1, 0)));
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Foreign);
    assert_eq!(plan.counters().foreign, 1);
    plan.touch(p);
    agree(&mut plan, &foreign, &[]);
    foreign.handle_gone(p, &foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    // In the same place behind ours: ours cannot be replaced without harm, only withdrawn.
    foreign.insert(p, foreign_route(0));
    plan.touch(p);
    agree(&mut plan, &foreign, &[]);
    plan.want(p, Some(via(2, 0)));
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Foreign);
}

#[test]
fn an_unknown_holder_is_looked_up_once_and_then_an_error() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, Some(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, EEXIST, Time::ZERO);
    assert!(plan.wants_resync() && !plan.is_idle());
    agree(&mut plan, &foreign, &[]);
    plan.begin_resync();
    plan.end_resync(Time::ZERO);
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
        plan.want(p, Some(via(1, 0)));
    }
    let (ops, _) = poll(&mut plan, &foreign);
    assert_eq!(ops.len(), 1024);
    refuse(&mut plan, &ops, ENETUNREACH, at(0));
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.counters().failed, 3000);
    let report = plan.take_report();
    assert_eq!((report.refused, report.example.is_some()), (1, true));
    // One, two, four seconds; and each attempt is one batch.
    let mut now = 0;
    for delay in [1000, 2000, 4000] {
        assert_eq!(plan.deadline(), Some(at(now + delay)));
        plan.handle_time(at(now + delay - 1));
        assert!(poll(&mut plan, &foreign).0.is_empty());
        now += delay;
        plan.handle_time(at(now));
        let (ops, _) = poll(&mut plan, &foreign);
        assert_eq!(ops.len(), 1024);
        refuse(&mut plan, &ops, ENETUNREACH, at(now));
        agree(&mut plan, &foreign, &[]);
    }
    assert_eq!(plan.take_report().refused, 0, "the same reason is logged once");
    // A link comes up: at once, and all of them.
    plan.retry_refused();
    for expected in [1024, 1024, 952, 0] {
        let (ops, _) = poll(&mut plan, &foreign);
        assert_eq!(ops.len(), expected);
        plan.handle_answers(&ops, &[], at(now));
    }
    assert_eq!(plan.counters().installed, 3000);
    assert_eq!((plan.counters().failed, plan.deadline()), (0, None));
}

/// A retry that works though its answer is lost ends the refusal: when somebody deletes the route
/// afterwards it is written again.
#[test]
fn a_refusal_ends_when_the_route_is_found_in_the_kernel() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, Some(via(1, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    plan.retry_refused();
    let (ops, words) = poll(&mut plan, &foreign);
    assert_eq!(words, ["add 10.1.0.0/16 10.0.0.1"]);
    plan.handle_unanswered(&ops);
    plan.begin_resync();
    plan.handle_present(p, via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync(Time::ZERO);
    agree(&mut plan, &foreign, &[]);
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
    plan.want(p, Some(via(1, 7)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.handle_present(p, via(2, 7), Seen::Added, Time::ZERO);
    assert!(plan.wants_resync());
    agree(&mut plan, &foreign, &[]);
    plan.begin_resync();
    plan.handle_present(p, via(1, 7), Seen::Read, Time::ZERO);
    plan.handle_present(p, via(2, 7), Seen::Read, Time::ZERO);
    plan.end_resync(Time::ZERO);
    agree(&mut plan, &foreign, &["stray 10.1.0.0/16 7"]);
    // The kernel deletes the first of them, which was the right one.
    assert!(plan.wants_resync());
    plan.begin_resync();
    plan.handle_present(p, via(2, 7), Seen::Read, Time::ZERO);
    plan.end_resync(Time::ZERO);
    plan.handle_time(at(1000));
    agree(&mut plan, &foreign, &["replace 10.1.0.0/16 10.0.0.1"]);
    assert!(plan.is_idle() && !plan.wants_resync());
    assert_eq!(plan.shared.specs.len(), 1);
}

#[test]
fn a_change_that_fails_takes_the_old_route_away() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, Some(via(1, 0)));
    agree(&mut plan, &foreign, &["add 10.1.0.0/16 10.0.0.1"]);
    plan.want(p, Some(via(2, 0)));
    let (ops, _) = poll(&mut plan, &foreign);
    refuse(&mut plan, &ops, ENETUNREACH, Time::ZERO);
    agree(&mut plan, &foreign, &["withdraw 10.1.0.0/16 0"]);
    agree(&mut plan, &foreign, &[]);
    assert_eq!(plan.view(None, 1)[0].state, FibState::Failed);
}

#[test]
fn a_withdrawal_that_fails_is_not_repeated_for_ever() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    let p = prefix("10.1.0.0/16");
    plan.want(p, Some(via(1, 0)));
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
    plan.want(p, Some(via(1, 0)));
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
    let reports = plan.take_report();
    assert!(!reports.first_repair, "a fight is not news");
    // Quiet for a while, and the next one is repaired at once again.
    plan.handle_lost(p, 0, at(now + 60_000));
    assert_eq!(plan.deadline(), Some(at(now + 60_020)));
}

#[test]
fn a_resync_that_fails_loses_nothing() {
    let (mut plan, foreign) = (settled(), Foreign::default());
    for text in ["10.1.0.0/16", "10.2.0.0/16"] {
        plan.want(prefix(text), Some(via(1, 0)));
    }
    let (ops, _) = poll(&mut plan, &foreign);
    plan.handle_answers(&ops, &[], Time::ZERO);
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.abort_resync();
    plan.begin_resync();
    plan.handle_present(prefix("10.1.0.0/16"), via(1, 0), Seen::Read, Time::ZERO);
    plan.end_resync(Time::ZERO);
    plan.handle_time(at(20));
    agree(&mut plan, &foreign, &["add 10.2.0.0/16 10.0.0.1"]);
}

#[test]
fn pages_of_the_view_join_up_across_the_families() {
    let mut plan = settled();
    let texts = ["10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48"];
    for text in texts {
        plan.want(prefix(text), Some(via(1, 0)));
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
    assert_eq!(size_of::<table::Entry>(), 12);
    assert_eq!(size_of::<Prefix4>(), 8);
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

fn last_octet(spec: &RouteSpec) -> u8 {
    match &spec.kind {
        FibKind::Unicast(hops) => match hops[0].gateway {
            Some(std::net::IpAddr::V4(addr)) => addr.octets()[3],
            _ => 0,
        },
        _ => 0,
    }
}

impl Model {
    fn execute(&mut self, plan: &Plan, op: &Op) -> Result<(), i32> {
        let write = |model: &mut Model, id, exclusive: bool| {
            let spec = plan.spec(id).clone();
            if model.refused.contains(&last_octet(&spec)) {
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
            Action::WithdrawStray { metric } => self.withdraw(op.prefix, metric),
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
    let spec = proptest::option::weighted(0.75, (1u8..4, any::<bool>()));
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
        self.plan.end_resync(self.now);
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
                let spec = spec.map(|(n, low)| via(n, World::metric(prefix, low)));
                self.plan.want(prefix, spec.clone());
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
                    self.foreign.handle_gone(prefix, &foreign_route(metric));
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
            let refused = self.model.refused.contains(&last_octet(spec));
            match held {
                Some(Owner::Foreign) => assert!(
                    row.state == FibState::Foreign || (refused && row.state == FibState::Failed),
                    "{row:?}"
                ),
                Some(Owner::Ours(ours)) => {
                    assert_eq!((ours, row.state), (spec, FibState::Installed))
                }
                None => assert!(refused && row.state == FibState::Failed, "{row:?}"),
            }
            match row.state {
                FibState::Installed => expected.installed += 1,
                FibState::Failed => expected.failed += 1,
                FibState::Foreign => expected.foreign += 1,
                FibState::Pending => expected.pending += 1,
            }
        }
        for ((prefix, _), owner) in &self.model.routes {
            if let Owner::Ours(spec) = owner {
                assert_eq!(self.wanted.get(prefix), Some(spec), "an unwanted route was left");
            }
        }
        let counters = self.plan.counters();
        assert_eq!(
            (counters.installed, counters.pending, counters.failed, counters.foreign),
            (expected.installed, 0, expected.failed, expected.foreign)
        );
        assert_eq!(self.plan.view(None, 99).len(), self.wanted.len());
        let distinct: std::collections::HashSet<&RouteSpec> = self.wanted.values().collect();
        assert_eq!(self.plan.shared.specs.len(), distinct.len(), "interned contents leak");
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
