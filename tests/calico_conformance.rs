//! Every scenario of the corpus: compares the golden BIRD files with the plan, and the results of
//! their filters, run by an interpreter, with the plan's decisions about generated routes.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use bgp_proto::policy::Source;
use bgp_proto::types::{Asn, Family, Prefix};
use margay::calico::decide::{Direction, Question, Route as Asked};
use margay::calico::plan::PoolRoutes;
use margay::calico::{Plan, resolve};

use support::birdcfg::{Expr, SetItem, Stmt};
use support::birdmodel::{Golden, GoldenSession};
use support::birdrun::{Route, run};
use support::scenario::{Backend, Run, Scenario, corpus, scenarios};

/// Number of routes for which each policy is evaluated.
const ROUTES: usize = 600;

#[test]
#[ignore = "needs MARGAY_SHARED"]
fn shared_data_every_scenario_gives_the_plan_of_its_golden_files() {
    let root = corpus();
    let scenarios = scenarios(&root);
    assert!(!scenarios.is_empty());
    for folder in std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()) {
        let name = folder.file_name().unwrap().to_string_lossy();
        let is_listed = scenarios.iter().any(|s| *s.scenario == *name);
        assert!(is_listed || !folder.join("bird.cfg").exists(), "{name} is not in index.json");
    }
    let mut totals = Totals::default();
    for scenario in &scenarios {
        for (name, backend) in [("kdd", Backend::Kubernetes), ("etcd", Backend::Etcd)] {
            // Services, slices and Secrets come from Kubernetes with either store.
            let is_listed = scenario.backends.iter().any(|b| b == name);
            println!("{} ({name}{})", scenario.scenario, if is_listed { "" } else { ", extra" });
            check(&root, scenario, backend, &mut totals);
        }
    }
    println!("{} scenarios, {totals:?}", scenarios.len());
    assert!(totals.goldens >= scenarios.len() && totals.accepted > 1000, "{totals:?}");
}

#[derive(Debug, Default)]
struct Totals {
    goldens: usize,
    sessions: usize,
    policies: usize,
    questions: usize,
    accepted: usize,
    /// Routes of Felix's that BIRD would advertise to internal peers.
    felixs: usize,
    /// Sessions with a key whose Secret is gone, which BIRD would run without a key.
    kept_keys: usize,
}

/// The last usable value of each key, by its Secret and its name there.
type Keys = BTreeMap<(String, String), Vec<u8>>;

fn check(root: &Path, scenario: &Scenario, backend: Backend, totals: &mut Totals) {
    let mut run = Run::new(root, scenario, backend);
    let mut has_expectation = false;
    let mut keys = Keys::new();
    for step in &scenario.steps {
        let mut last = None;
        for _ in 0..step.repeat.max(1) {
            run.step(step);
            last = Some(run.resolver.plan());
        }
        let plan = last.unwrap();
        check_keys(&plan, &mut keys, totals);
        let fresh = resolve(run.resolver.snapshot(), &run.settings);
        assert_eq!(plan, fresh, "step by step, and from scratch");
        // Another scenario's intermediate steps may be missing in this copy of the corpus.
        let is_on_the_way =
            |f: &&String| **f != scenario.scenario && !root.join(f).join("bird.cfg").exists();
        if let Some(folder) = step.expect.as_ref().filter(|f| !is_on_the_way(f)) {
            compare(&root.join(folder), &plan, totals);
            has_expectation = true;
        }
        if let Some(count) = step.expect_bgp_sessions_v4 {
            assert_eq!(plan.families.ipv4.sessions.len(), count);
            has_expectation = true;
        }
    }
    assert!(has_expectation, "nothing is expected of {}", scenario.scenario);
}

/// Passwords are compared with the golden files if the Secret has the key. If it is gone, confd
/// lets the session run without a password, whereas margay uses the last key or, without one, does
/// not run the session: `docs/src/differences.md`.
fn check_keys(plan: &Plan, keys: &mut Keys, totals: &mut Totals) {
    let families = [Family::Ipv4, Family::Ipv6].map(|family| plan.families.get(family));
    for planned in families.iter().flat_map(|family| family.sessions.iter()) {
        let session = &planned.session;
        let key = session.key.as_ref().map(|key| key.octets().to_vec());
        let Some(password) = &session.password else {
            assert_eq!(key, None, "{}", session.name);
            continue;
        };
        let place = (password.secret.clone(), password.key.clone());
        if password.found {
            keys.insert(place, key.expect("the key that was found"));
        } else {
            assert_eq!(key.as_ref(), keys.get(&place), "{}", session.name);
            totals.kept_keys += usize::from(key.is_some());
        }
    }
}

fn compare(folder: &Path, plan: &Plan, totals: &mut Totals) {
    assert!(plan.is_complete);
    for (family, bird) in [(Family::Ipv4, "bird"), (Family::Ipv6, "bird6")] {
        let golden = Golden::read(folder, bird);
        let of_family = plan.families.get(family);
        golden.compare(of_family, of_family.router_id.map(|id| id.to_string()));
        totals.sessions += golden.sessions.len();
        let mut seen = BTreeSet::new();
        for session in &golden.sessions {
            let key = (session.import.clone(), session.export.clone(), session_asn(plan, session));
            if seen.insert(key) {
                ask(&golden, family, session, Direction::Import, plan, totals);
                ask(&golden, family, session, Direction::Export, plan, totals);
            }
        }
        ask_kernel(&golden, family, plan, totals);
    }
    totals.goldens += 1;
}

fn session_asn(plan: &Plan, session: &GoldenSession) -> (u32, bool) {
    let session = &plan.session(&session.name).unwrap().1.session;
    (session.local_asn.0, session.internal)
}

fn ask(
    golden: &Golden,
    family: Family,
    session: &GoldenSession,
    direction: Direction,
    plan: &Plan,
    totals: &mut Totals,
) {
    let body = if direction == Direction::Import { &session.import } else { &session.export };
    let sources: &[Source] = match direction {
        Direction::Import => &[Source::Bgp],
        _ => &[Source::Bgp, Source::Static, Source::Kernel, Source::Direct],
    };
    let (local_asn, internal) = session_asn(plan, session);
    // BIRD prepends our AS before it runs the export filter of an eBGP session.
    let own = (direction == Direction::Export && !internal).then_some(local_asn);
    let mut routes = Routes::new(golden, family);
    totals.policies += 1;
    for _ in 0..ROUTES {
        let asked = routes.next(sources);
        let mut before = to_bird(&asked);
        before.path.splice(0..0, own);
        let mut expected = run(&golden.config, body, &before);
        if let Some(after) = &mut expected
            && own.is_some()
        {
            after.path.remove(after.path.len() - before.path.len());
        }
        let question =
            Question { session: Some(session.name.clone()), direction, route: asked.clone() };
        check_answer(plan, &question, expected, totals);
    }
}

fn ask_kernel(golden: &Golden, family: Family, plan: &Plan, totals: &mut Totals) {
    let body = &golden.config.filters["calico_kernel_programming"];
    let mut routes = Routes::new(golden, family);
    totals.policies += 1;
    for _ in 0..ROUTES {
        let route = routes.next(&[Source::Bgp, Source::Static, Source::Kernel, Source::Direct]);
        // BIRD does not run the filter for routes that came from the kernel.
        let is_foreign = matches!(route.source, Source::Kernel | Source::Direct);
        let expected = run(&golden.config, body, &to_bird(&route)).filter(|_| !is_foreign);
        let question = Question { session: None, direction: Direction::Kernel, route };
        check_answer(plan, &question, expected, totals);
    }
}

fn check_answer(plan: &Plan, question: &Question, expected: Option<Route>, totals: &mut Totals) {
    let answer = plan.decide(question).unwrap();
    totals.questions += 1;
    let context = || format!("{question:?}\nanswer {answer:?}\nBIRD {expected:?}");
    match &expected {
        None => assert_eq!(answer.decision, "reject", "{}", context()),
        // `docs/src/differences.md`.
        Some(_) if answer.decision == "reject" && is_felixs(plan, question) => {
            assert!(answer.rule.contains("another node's block"), "{}", context());
            totals.felixs += 1;
        }
        Some(bird) => {
            totals.accepted += 1;
            assert_eq!(answer.decision, "accept", "{}", context());
            let mut after = to_bird(&answer.route);
            after.tunnel.clone_from(&answer.tunnel);
            // If no filter sets the preference, it is that of the source.
            let base = match question.route.source {
                Source::Direct => 240,
                Source::Static => 200,
                Source::Bgp => 100,
                Source::Kernel => 10,
                Source::Vrf | Source::Announced => unreachable!("not in Calico"),
            };
            after.preference = Some(answer.preference.into());
            let bird = Route { preference: bird.preference.or(Some(base)), ..bird.clone() };
            assert_eq!(after, bird, "{}", context());
        }
    }
    assert!(!answer.rule.is_empty());
}

/// Whether the question is about a route by Felix to another node, for export to an internal peer.
fn is_felixs(plan: &Plan, question: &Question) -> bool {
    let route = &question.route;
    let session = question.session.as_ref().and_then(|name| plan.session(name));
    let is_internal = session.is_some_and(|(_, planned)| planned.session.internal);
    let is_inside = plan
        .families
        .get(route.prefix.family())
        .pools
        .iter()
        .any(|pool| pool.kernel == PoolRoutes::Reject && pool.cidr.contains(route.prefix));
    question.direction == Direction::Export
        && route.source == Source::Kernel
        && route.next_hop.is_some()
        && is_internal
        && is_inside
}

fn to_bird(route: &Asked) -> Route {
    let numbers =
        |text: &String| -> Vec<u32> { text.split(':').map(|part| part.parse().unwrap()).collect() };
    Route {
        prefix: route.prefix,
        source: match route.source {
            Source::Bgp => "RTS_BGP",
            Source::Static => "RTS_STATIC",
            Source::Kernel => "RTS_INHERIT",
            Source::Direct => "RTS_DEVICE",
            Source::Vrf | Source::Announced => unreachable!("not in Calico"),
        },
        ifname: route.interface.clone(),
        metric: route.metric,
        local_pref: route.local_pref,
        next_hop: route.next_hop,
        path: route.as_path.iter().map(|a| a.0).collect(),
        communities: route.communities.iter().map(numbers).map(|n| (n[0], n[1])).collect(),
        large: route.large_communities.iter().map(numbers).map(|n| (n[0], n[1], n[2])).collect(),
        preference: None,
        tunnel: None,
    }
}

/// Generates routes close to the values in the golden filters.
struct Routes {
    random: Random,
    prefixes: Vec<Prefix>,
    interfaces: Vec<String>,
    numbers: Vec<u32>,
    paths: Vec<Vec<u32>>,
    communities: Vec<Vec<u32>>,
    hops: Vec<IpAddr>,
}

impl Routes {
    fn new(golden: &Golden, family: Family) -> Routes {
        let mut literals = Literals::default();
        for function in golden.config.functions.values() {
            literals.statements(&function.body);
        }
        for body in golden.config.filters.values() {
            literals.statements(body);
        }
        for session in &golden.sessions {
            literals.statements(&session.import);
            literals.statements(&session.export);
        }
        let far: &[&str] = match family {
            Family::Ipv4 => &["0.0.0.0/0", "172.31.0.0/16", "203.0.113.7/32", "10.0.0.0/8"],
            Family::Ipv6 => &["::/0", "2001:db8::/32", "fd12::7/128", "fd00::/8"],
        };
        let of_family = |p: &Prefix| p.family() == family;
        let mut prefixes: Vec<Prefix> =
            literals.prefixes.iter().copied().filter(of_family).collect();
        prefixes.extend(far.iter().map(|text| text.parse::<Prefix>().unwrap()));
        let hops = prefixes.iter().map(|p| inside(*p, 9, 128).addr()).collect();
        let mut interfaces: Vec<String> =
            ["eth0", "tunl0", "cali12", "vxlan.calico", "wireguard.cali"].map(str::to_owned).into();
        interfaces.extend(["bpfin.cali", "vxlan-v6.calico", "lo"].map(str::to_owned));
        for glob in literals.globs {
            for fill in ["", "x", "eth0.calico"] {
                interfaces.push(glob.replace('*', fill).replace('?', "7"));
            }
        }
        let mut numbers: Vec<u32> = vec![0, 1, 99, 100, 512, 1023, 1024, 1025, u32::MAX];
        numbers.extend([i32::MAX as u32, i32::MAX as u32 - 1024, 0x8000_0000]);
        for number in literals.numbers {
            numbers.extend([number, number.wrapping_sub(1), number.wrapping_add(1)]);
            numbers.push((i32::MAX as u32).wrapping_sub(number));
        }
        Routes {
            random: Random(0x9E37_79B9_7F4A_7C15),
            prefixes,
            interfaces,
            numbers,
            paths: literals.paths.into_iter().collect(),
            communities: literals.communities.into_iter().collect(),
            hops,
        }
    }

    fn next(&mut self, sources: &[Source]) -> Asked {
        let random = &mut self.random;
        let base = *random.choose(&self.prefixes).unwrap();
        let prefix = match random.below(4) {
            0 => base,
            1 => Prefix::new(base.addr(), base.len().saturating_sub(1 + random.below(4) as u8)),
            _ => {
                let more = 1 + random.below(40) as u8;
                inside(base, random.next(), base.len().saturating_add(more))
            }
        };
        let mut path: Vec<u32> = Vec::new();
        if random.below(2) == 0 {
            path.extend(random.choose(&self.paths).cloned().unwrap_or_default());
        }
        for _ in 0..random.below(3) {
            path.push(64500 + random.below(5) as u32);
        }
        let mut communities = BTreeSet::new();
        for _ in 0..random.below(3) {
            communities.extend(random.choose(&self.communities).cloned());
        }
        if random.below(2) == 0 {
            communities.insert(vec![1, random.below(3) as u32]);
        }
        let texts = |len: usize| -> Vec<String> {
            let of_kind = communities.iter().filter(|c| c.len() == len);
            of_kind.map(|c| c.iter().map(u32::to_string).collect::<Vec<_>>().join(":")).collect()
        };
        let (communities, large_communities) = (texts(2), texts(3));
        let mut maybe = |list: &[u32]| {
            let number = random.choose(list).copied();
            number.filter(|_| random.below(3) > 0)
        };
        let (metric, local_pref) = (maybe(&self.numbers), maybe(&self.numbers));
        Asked {
            prefix,
            source: *random.choose(sources).unwrap(),
            interface: random.choose(&self.interfaces).cloned().filter(|_| random.below(3) > 0),
            metric,
            local_pref,
            next_hop: random.choose(&self.hops).copied().filter(|_| random.below(4) > 0),
            as_path: path.into_iter().map(Asn).collect(),
            communities,
            large_communities,
        }
    }
}

/// A prefix of `len` bits inside `base`, with other bits from `seed`.
fn inside(base: Prefix, seed: u64, len: u8) -> Prefix {
    let addr = match base.addr() {
        IpAddr::V4(addr) => {
            let host = u32::MAX.checked_shr(base.len().into()).unwrap_or(0);
            IpAddr::from((addr.to_bits() | (seed as u32 & host)).to_be_bytes())
        }
        IpAddr::V6(addr) => {
            let host = u128::MAX.checked_shr(base.len().into()).unwrap_or(0);
            let spread = u128::from(seed) | u128::from(seed) << 64;
            IpAddr::from((addr.to_bits() | (spread & host)).to_be_bytes())
        }
    };
    Prefix::new(addr, len)
}

/// The values with which filters compare routes.
#[derive(Default)]
struct Literals {
    prefixes: BTreeSet<Prefix>,
    globs: BTreeSet<String>,
    numbers: BTreeSet<u32>,
    paths: BTreeSet<Vec<u32>>,
    communities: BTreeSet<Vec<u32>>,
}

impl Literals {
    fn statements(&mut self, body: &[Stmt]) {
        for statement in body {
            match statement {
                Stmt::If(condition, yes, no) => {
                    self.expression(condition);
                    self.statements(yes);
                    self.statements(no);
                }
                Stmt::Assign(_, value) => self.expression(value),
                Stmt::Call(_, args) => args.iter().for_each(|a| self.expression(a)),
                Stmt::Accept | Stmt::Reject => {}
            }
        }
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Int(n) => drop(self.numbers.insert(*n)),
            Expr::Prefix(p) => drop(self.prefixes.insert(p.parse().unwrap())),
            Expr::Text(t) => drop(self.globs.insert(t.clone())),
            Expr::Tuple(t) => drop(self.communities.insert(t.clone())),
            Expr::PathPrefix(p) => drop(self.paths.insert(p.clone())),
            Expr::Set(items) => {
                for item in items {
                    if let SetItem::Prefix(p, _) = item {
                        self.prefixes.insert(p.parse().unwrap());
                    }
                }
            }
            Expr::Not(inner) => self.expression(inner),
            Expr::Binary(_, a, b) => {
                self.expression(a);
                self.expression(b);
            }
            Expr::Name(_) | Expr::Defined(_) => {}
        }
    }
}

/// xorshift64*: the same routes every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    fn choose<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

/// The interpreter must distinguish filters, or the comparison proves nothing.
#[test]
fn the_interpreter_runs_what_confd_writes() {
    let text = r#"
        function f (bool b) { if (b) then { if (net ~ [ 10.0.0.0/8{24,26} ]) then { accept; } } }
        function 'bgp_x_importFilterV4'() {
          if ((bgp_path ~ [= 1 2 * =])&&((1, 2) ~ bgp_community)) then { bgp_path.prepend(7); accept; }
        }
        filter g {
          f(true); 'bgp_x_importFilterV4'();
          if (defined(krt_metric) && krt_metric < 5) then krt_tunnel=""; else krt_tunnel="tunl0";
          if !(ifname ~ "a?*") then reject;
          bgp_local_pref = 2147483647 - krt_metric;
          accept;
        }"#;
    let config = support::birdcfg::Config::parse([text]);
    let base = to_bird(&Asked {
        prefix: "10.1.0.0/16".parse().unwrap(),
        source: Source::Bgp,
        interface: Some("ab".into()),
        metric: Some(7),
        local_pref: None,
        next_hop: None,
        as_path: vec![Asn(1), Asn(2)],
        communities: vec![],
        large_communities: vec![],
    });
    let g = |route: &Route| run(&config, &config.filters["g"], route);
    let after = g(&base).unwrap();
    assert_eq!((after.tunnel.as_deref(), after.local_pref), (Some("tunl0"), Some(2_147_483_640)));
    assert_eq!(g(&Route { ifname: Some("a".into()), ..base.clone() }), None);
    let early = g(&Route { prefix: "10.1.1.0/25".parse().unwrap(), ..base.clone() }).unwrap();
    assert_eq!(early.local_pref, None);
    let tagged = g(&Route { communities: [(1, 2)].into(), ..base }).unwrap();
    assert_eq!(tagged.path, [7, 1, 2]);
    let _: BTreeMap<String, Vec<Stmt>> = config.filters;
}
