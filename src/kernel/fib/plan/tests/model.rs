//! Random histories, compared with a simple model of the kernel.

mod objects;

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::kernel::message::Object;
use objects::Table;

/// A kernel that executes requests, and can be inspected.
#[derive(Debug, Default)]
struct Model {
    routes: BTreeMap<(Prefix, u32), Owner>,
    /// Next-hop objects, ours and others'.
    objects: BTreeMap<NonZeroU32, Object>,
    /// Gateways (last octet) that it refuses.
    refused: std::collections::BTreeSet<u8>,
    /// Error numbers with which it answers the next requests, without doing anything.
    failing: VecDeque<i32>,
}

/// Errors that any request may be answered with: ENOBUFS, ENOMEM, EBUSY, EAGAIN, EINTR, and EEXIST,
/// which the plan does not treat as a passing failure.
const PASSING: [i32; 6] = [105, 12, 16, 11, 4, EEXIST];

#[derive(Clone, Debug, PartialEq)]
enum Owner {
    Ours(RouteSpec),
    Foreign,
}

impl Model {
    fn execute(&mut self, plan: &Plan, op: &Op) -> Result<(), i32> {
        if let Some(errno) = self.failing.pop_front() {
            return Err(errno);
        }
        let write = |model: &mut Model, id, exclusive: bool| {
            let spec = plan.spec(id).clone();
            if spec.hops().iter().any(|hop| model.refused.contains(&octet(hop))) {
                return Err(ENETUNREACH);
            }
            if spec.object.is_some_and(|object| !model.objects.contains_key(&object)) {
                return Err(EINVAL);
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

    /// Deletes as the kernel does: by protocol, and a metric of 0 matches any, the lowest first.
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
    /// Another process deletes ours; the event is received or lost.
    Lose {
        prefix: usize,
        low: bool,
        heard: bool,
    },
    /// Another process writes a route under our protocol number.
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
    /// A dump that ends with an error, or is interrupted, after this many routes.
    ResyncFails {
        after: usize,
    },
    /// The next requests fail for a passing reason.
    Fail {
        errno: usize,
        times: usize,
    },
    Wait {
        millis: u64,
    },
    EndOfStartup,
    /// A route over BGP next hops, as bits; the highest bit: it has a backup.
    WantVia {
        prefix: usize,
        next_hops: u8,
        low: bool,
    },
    /// A BGP next hop resolves to this gateway; 0: it is unreachable.
    Resolve {
        next_hop: usize,
        gateway: u8,
    },
    /// The table learns of one such change.
    TableHears,
    /// The table submits the route to a prefix if it has changed.
    TableCompares {
        prefix: usize,
    },
    /// Another process deletes an object of ours.
    LoseObject {
        which: usize,
        heard: bool,
    },
    /// Another process changes an object of ours.
    MeddleWithObject {
        which: usize,
        heard: bool,
    },
    /// Another process creates an object with an id of our range.
    TakeId,
    /// The process is killed and restarted.
    Restart {
        objects: bool,
    },
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
        1 => (0usize..6).prop_map(|after| Step::ResyncFails { after }),
        1 => (0..PASSING.len(), 1usize..6).prop_map(|(errno, times)| Step::Fail { errno, times }),
        2 => (0u64..3000).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::EndOfStartup),
        4 => (0usize..5, 1u8..16, any::<bool>())
            .prop_map(|(prefix, next_hops, low)| Step::WantVia { prefix, next_hops, low }),
        4 => (0..objects::NEXT_HOPS, 0u8..5)
            .prop_map(|(next_hop, gateway)| Step::Resolve { next_hop, gateway }),
        2 => Just(Step::TableHears),
        2 => (0usize..5).prop_map(|prefix| Step::TableCompares { prefix }),
        1 => (0usize..8, any::<bool>())
            .prop_map(|(which, heard)| Step::LoseObject { which, heard }),
        1 => (0usize..8, any::<bool>())
            .prop_map(|(which, heard)| Step::MeddleWithObject { which, heard }),
        1 => Just(Step::TakeId),
        1 => any::<bool>().prop_map(|objects| Step::Restart { objects }),
    ]
}

/// The plan, the kernel, and the part of the worker between them.
struct World {
    plan: Plan,
    foreign: Foreign,
    model: Model,
    wanted: BTreeMap<Prefix, RouteSpec>,
    form: NextHopForm,
    table: Table,
    /// The worker is going to dump the kernel's routes.
    reading_due: bool,
    now: Time,
}

impl World {
    fn new(form: NextHopForm) -> World {
        World {
            plan: Plan::new(TABLE, PROTOCOL, form),
            foreign: Foreign::default(),
            model: Model::default(),
            wanted: BTreeMap::new(),
            form,
            table: Table::default(),
            reading_due: false,
            now: Time::ZERO,
        }
    }

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
        self.read(usize::MAX);
        self.reading_due = false;
        self.tell_objects();
        self.plan.end_resync();
    }

    /// Begins a dump, and passes on this many routes.
    fn read(&mut self, routes: usize) {
        self.plan.begin_resync();
        for ((prefix, _), owner) in self.model.routes.iter().take(routes) {
            if let Owner::Ours(spec) = owner {
                let spec = self.model.expanded(spec);
                self.plan.handle_present(*prefix, spec, Seen::Read, self.now);
            }
        }
    }

    /// A foreign route appears in a place; `replaces`: instead of the route that was there.
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
        let asked = self.write_objects(answered);
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
        asked + ops.len()
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
                self.table_leaves(prefix);
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
            Step::ResyncFails { after } => {
                self.read(after);
                self.plan.abort_resync();
            }
            Step::Fail { errno, times } => {
                self.model.failing.extend(std::iter::repeat_n(PASSING[errno], times));
            }
            Step::Wait { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                self.plan.handle_time(self.now);
            }
            Step::EndOfStartup => self.plan.end_of_startup(),
            Step::WantVia { prefix, next_hops, low } => {
                self.table_wants(World::prefix(prefix), next_hops, low);
            }
            Step::Resolve { next_hop, gateway } => self.resolve(next_hop, gateway),
            Step::TableHears => drop(self.table_hears()),
            Step::TableCompares { prefix } => self.table_compares(World::prefix(prefix)),
            Step::LoseObject { which, heard } => self.lose_object(which, heard),
            Step::MeddleWithObject { which, heard } => self.meddle_with_object(which, heard),
            Step::TakeId => self.take_id(),
            Step::Restart { objects: true } => self.restart(NextHopForm::Objects),
            Step::Restart { objects: false } => self.restart(NextHopForm::Inline),
        }
    }

    /// Lets everything come to rest, with a dump to find changes whose events were lost.
    fn settle(&mut self) {
        self.model.failing.clear();
        self.table_settles();
        for _ in 0..4 {
            self.resync();
            self.come_to_rest();
        }
    }

    /// Lets everything come to rest, with only the dumps that the plan requests.
    fn come_to_rest(&mut self) {
        self.plan.end_of_startup();
        for _ in 0..100 {
            self.plan.handle_time(self.now);
            let written = self.batch(4, true);
            if self.plan.wants_resync() || self.reading_due {
                self.resync();
            }
            if written == 0 && !self.plan.has_work() {
                self.now = self.now + Duration::from_secs(10);
            }
        }
        // The last step may have advanced the time, and begun a retry.
        for _ in 0..100 {
            self.batch(4, true);
        }
        assert!(self.plan.is_idle(), "{:#?}", self.plan);
    }

    /// Withdraws everything, from a kernel that fails at first.
    fn empty(&mut self) {
        self.plan.withdraw_all();
        self.model.failing.extend(PASSING);
        self.come_to_rest();
        let left: Vec<_> =
            self.model.routes.iter().filter(|(_, owner)| **owner != Owner::Foreign).collect();
        assert!(left.is_empty(), "{left:?} remained");
        assert_eq!(self.plan.view(None, 99).len(), 0);
        self.check_no_objects();
    }

    fn check(&self) {
        let mut expected = FibCounters::default();
        for (prefix, spec) in &self.wanted {
            let held = self.model.routes.get(&(*prefix, spec.metric));
            let row = self.plan.view(None, 99).into_iter().find(|row| row.prefix == *prefix);
            let row = row.unwrap();
            // The part that the kernel accepts.
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
                    let ours = &self.model.expanded(ours);
                    // A leg that is left alone has no weight.
                    let counts = self.model.refused.is_empty();
                    let is_same = |a: &Hop, b: &Hop| {
                        Hop { weight: 1, ..*a } == Hop { weight: 1, ..*b }
                            && (a.weight == b.weight || !counts)
                    };
                    // Legs that were accepted before they were refused stay.
                    let within = |a: &RouteSpec, b: &RouteSpec| {
                        a.hops().iter().all(|hop| b.hops().iter().any(|b| is_same(hop, b)))
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
            // A route that cannot be replaced stays.
            let Owner::Ours(spec) = owner else { continue };
            let row = self.plan.row(*prefix).expect("an unwanted route remained");
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
    }

    /// Asserts that nothing is kept about contents that are not in use.
    fn check_contents(&self) {
        if self.model.refused.is_empty() && self.form == NextHopForm::Inline {
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

/// After these steps, every wanted route is installed in the end.
fn ends_as_wanted(steps: impl IntoIterator<Item = Step> + Clone) {
    for form in [NextHopForm::Inline, NextHopForm::Objects] {
        let mut world = World::new(form);
        steps.clone().into_iter().for_each(|step| world.apply(step));
        world.settle();
        world.check();
    }
}

#[test]
fn a_trial_that_met_an_unknown_route_twice_is_retried() {
    let batch = || Step::Batch { max: 1, answered: true };
    let steps = [
        Step::Resync,
        // Without an event, a route under our protocol number has the place already.
        Step::Meddle { prefix: 3, low: false, gateway: 1, heard: false },
        Step::Refuse { gateway: 1, on: true },
        Step::Want { prefix: 3, spec: Some((3, false)) },
        // Written with both legs, with the refused one, and with the other: EEXIST.
        batch(),
        batch(),
        batch(),
        // Decided again before the dump: EEXIST again.
        Step::ForeignAdd { prefix: 3, low: true },
        batch(),
    ];
    ends_as_wanted(steps);
}

#[test]
fn a_trial_writes_nothing_in_a_place_taken_by_another_process() {
    let batch = |answered| Step::Batch { max: 1, answered };
    let steps = [
        Step::Refuse { gateway: 2, on: true },
        Step::Want { prefix: 4, spec: Some((1, true)) },
        Step::Resync,
        batch(true),
        // Without an event: for the plan, its own route is still installed.
        Step::Lose { prefix: 4, low: true, heard: false },
        Step::Want { prefix: 4, spec: Some((7, true)) },
        batch(true),
        // The trial would write the first leg alone, which is what is installed.
        Step::ForeignAdd { prefix: 4, low: true },
        batch(true),
    ];
    ends_as_wanted(steps);
}

#[test]
fn two_prefixes_with_one_content_share_a_trial() {
    let mut world = World::new(NextHopForm::Inline);
    let steps = [
        Step::Resync,
        Step::Refuse { gateway: 2, on: true },
        Step::Refuse { gateway: 3, on: true },
        // The second leg of the other content is known to be refused, the third is not.
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

#[test]
fn a_trial_whose_answer_was_lost_and_then_refused_continues() {
    let batch = |answered| Step::Batch { max: 1, answered };
    let steps = [
        Step::Resync,
        Step::Refuse { gateway: 2, on: true },
        Step::Want { prefix: 0, spec: Some((7, true)) },
        batch(true),
        // The first leg alone is written, and a dump finds it; written again, it fails.
        batch(false),
        Step::Fail { errno: 0, times: 1 },
        Step::Resync,
        batch(true),
    ];
    ends_as_wanted(steps);
}

#[test]
fn a_refused_deletion_does_not_keep_another_content() {
    let steps = [
        Step::Want { prefix: 0, spec: Some((2, false)) },
        Step::Resync,
        Step::Batch { max: 1, answered: true },
        Step::Want { prefix: 0, spec: None },
        // The deletion fails, and the route to delete is no longer in the kernel.
        Step::Fail { errno: 0, times: 1 },
        Step::Meddle { prefix: 0, low: false, gateway: 1, heard: false },
        Step::Batch { max: 1, answered: true },
        // The retry is due just when a dump finds the other content.
        Step::Wait { millis: 1000 },
        Step::Resync,
        Step::Batch { max: 1, answered: false },
    ];
    ends_as_wanted(steps);
}

fn form() -> impl Strategy<Value = NextHopForm> {
    prop_oneof![Just(NextHopForm::Inline), Just(NextHopForm::Objects)]
}

/// The same step with its events received and its requests answered.
fn heard(step: Step) -> Step {
    match step {
        Step::Lose { prefix, low, .. } => Step::Lose { prefix, low, heard: true },
        Step::Meddle { prefix, low, gateway, .. } => {
            Step::Meddle { prefix, low, gateway, heard: true }
        }
        Step::Batch { max, .. } => Step::Batch { max, answered: true },
        Step::LoseObject { which, .. } => Step::LoseObject { which, heard: true },
        Step::MeddleWithObject { which, .. } => Step::MeddleWithObject { which, heard: true },
        // The worker repeats the dump by itself.
        Step::ResyncFails { .. } => Step::Resync,
        step => step,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever happens, in the end the kernel has the wanted routes in all places that no foreign
    /// route holds, and no foreign route was ever overwritten.
    #[test]
    fn ends_as_wanted_and_never_overwrites(
        form in form(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(form);
        for step in steps {
            world.apply(step);
        }
        world.settle();
        world.check();
        world.check_contents();
        world.empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// If every event is received and every request answered, passing failures need no dumps other
    /// than those that the plan requests.
    #[test]
    fn recovers_from_failures_without_reading(
        form in form(),
        steps in proptest::collection::vec(step().prop_map(heard), 1..60),
    ) {
        let mut world = World::new(form);
        world.resync();
        for step in steps {
            world.apply(step);
        }
        world.model.failing.clear();
        world.table_settles();
        world.come_to_rest();
        world.check();
        world.empty();
    }
}
