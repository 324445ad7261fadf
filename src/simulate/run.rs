//! The questions, one after the other: start, change, failures.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::{Prefix, Time};

use super::ASSUMPTIONS;
use super::build::Input;
use super::cluster::Cluster;
use super::reach;
use super::report::{Change, Gap, Report, Scenario, State};
use super::speaker::{Speaker, Way};
use super::spec::{Refused, Role};
use super::transition::{Step, Transition};
use super::world::{Life, World};

/// Something that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A node, or a peer outside of the cluster, loses power: name or address.
    Power(String),
    /// margay ends on a node, whose kernel forwards as before.
    Process(String),
    /// All nodes that reflect routes lose power, at the same time.
    AllReflectors,
}

/// What is asked.
#[derive(Default)]
pub struct Question {
    /// Objects after a change, and what is changed.
    pub change: Option<(Input, Vec<String>)>,
    /// Fail together; empty: none.
    pub failures: Vec<Failure>,
    /// Every speaker with one of these roles fails, each by itself; those before have come back.
    pub each: Vec<Role>,
    /// Whether the kernel routes of every speaker are reported.
    pub routes: bool,
    /// Octets that may be used. `None`: no limit.
    pub memory_max: Option<u64>,
}

/// Answers a question.
///
/// # Errors
/// The objects cannot be simulated, or something that is to fail does not exist.
pub fn run(input: &Input, question: &Question) -> Result<Report, Refused> {
    let cluster = Cluster::new(input, question.memory_max)?;
    let mut world = World::new(&cluster);
    let start = settled(&mut world);
    let count = |role| cluster.speakers.iter().filter(|spec| spec.role == role).count();
    let mut report = Report {
        nodes: count(Role::Node),
        reflectors: count(Role::Reflector),
        peers: count(Role::Peer),
        start,
        change: None,
        scenarios: Vec::new(),
        routes: BTreeMap::new(),
        problems: cluster.problems.clone(),
        assumptions: ASSUMPTIONS.to_vec(),
        reaches_all: true,
    };
    match &question.change {
        None => {
            report.routes = listed(&world, question.routes);
            report.scenarios = fail(&mut world, question)?;
        }
        Some((changed, objects)) => {
            let before = routes(&world);
            let parts = world.into_parts();
            let after = Cluster::new(changed, question.memory_max)?;
            let transition = Transition::new(cluster, after);
            let mut world = World::changed(&transition, parts);
            let from = world.now();
            world.settle();
            world.end_parting(&transition);
            let change = compared(before, &routes(&world), objects, state(&world, from));
            report.change = Some(transited(&transition, &world, change));
            report.problems.clone_from(&transition.cluster.problems);
            report.routes = listed(&world, question.routes);
            report.scenarios = fail(&mut world, question)?;
        }
    }
    let states = report.scenarios.iter().map(|scenario| &scenario.state);
    let last = report.change.as_ref().map_or(&report.start, |change| &change.state);
    report.reaches_all = states.chain([last]).all(State::reaches_all);
    Ok(report)
}

/// Lets the world settle, and looks at it.
fn settled(world: &mut World<'_>) -> State {
    let from = world.now();
    world.reset_counts();
    world.settle();
    state(world, from)
}

fn state(world: &World<'_>, from: Time) -> State {
    let reach = reach::measure(world);
    let cluster = world.cluster;
    let last = world.speakers.iter().map(|speaker| speaker.changed_at).max().unwrap_or(from);
    let mut session_faults = cluster.faults.clone();
    for (spec, speaker) in cluster.speakers.iter().zip(&world.speakers) {
        for peer in &speaker.undecodable {
            let session = spec.peers.get(*peer as usize);
            session_faults.push(super::SessionFault {
                speaker: spec.name.to_string(),
                session: session.map(|peer| peer.routes.name.to_string()).unwrap_or_default(),
                why: "the other end cannot read an UPDATE of this session".to_owned(),
            });
        }
    }
    State {
        settled_ms: u64::try_from(last.since(from).as_millis()).unwrap_or(u64::MAX),
        settled: world.settled,
        sessions: cluster.sessions,
        established: world.established(),
        session_faults,
        announced: world.counts.announced,
        withdrawn: world.counts.withdrawn,
        kernel_changes: world.speakers.iter().map(|speaker| speaker.changes).sum(),
        blocks: reach.blocks,
        services: reach.services,
        gone: reach.gone,
        from_nodes: reach.nodes,
        from_peers: reach.peers,
        paths: reach.paths,
        lost: reach.lost,
        peers_lost: reach.peers_lost,
        unserved: reach.unserved,
    }
}

fn fail(world: &mut World<'_>, question: &Question) -> Result<Vec<Scenario>, Refused> {
    let mut scenarios = Vec::new();
    if !question.failures.is_empty() {
        let failing = named(world.cluster, &question.failures)?;
        if let Some((at, _)) = failing.iter().find(|(at, _)| world.lives[*at] == Life::Dead) {
            let name = &world.cluster.speakers[*at].name;
            return Err(Refused(format!("{name} does not exist after the change: it cannot fail")));
        }
        scenarios.push(scenario(world, &failing));
        revive(world, &failing);
    }
    for role in &question.each {
        for at in 0..world.cluster.speakers.len() {
            if world.cluster.speakers[at].role == *role && world.lives[at] == Life::Running {
                let failing = [(at, Life::Dead)];
                scenarios.push(scenario(world, &failing));
                revive(world, &failing);
            }
        }
    }
    Ok(scenarios)
}

/// The speakers that fail.
fn named(cluster: &Cluster, failures: &[Failure]) -> Result<Vec<(usize, Life)>, Refused> {
    let mut failing = Vec::new();
    for failure in failures {
        let (name, life) = match failure {
            Failure::Power(name) => (name, Life::Dead),
            Failure::Process(name) => (name, Life::WithoutProcess),
            Failure::AllReflectors => {
                let all = cluster.speakers.iter().enumerate();
                let reflectors = all.filter(|(_, spec)| spec.role == Role::Reflector);
                let before = failing.len();
                failing.extend(reflectors.map(|(at, _)| (at, Life::Dead)));
                if failing.len() == before {
                    return Err(Refused(
                        "there is no node with routeReflectorClusterID".to_owned(),
                    ));
                }
                continue;
            }
        };
        let at = cluster.find(name).ok_or_else(|| {
            Refused(format!("{name} is neither a node nor the address of one or of a BGPPeer"))
        })?;
        failing.push((at, life));
    }
    Ok(failing)
}

fn scenario(world: &mut World<'_>, failing: &[(usize, Life)]) -> Scenario {
    world.reset_counts();
    let from = world.now();
    failing.iter().for_each(|(at, life)| world.fail(*at, *life));
    world.settle();
    let name = |(at, life): &(usize, Life)| {
        let spec = &world.cluster.speakers[*at];
        let kind = match (life, spec.role) {
            (Life::WithoutProcess, _) => "process",
            (_, Role::Peer) => "peer",
            (_, Role::Node | Role::Reflector) => "node",
        };
        format!("{kind}:{}", spec.name)
    };
    let noticed = world.counts.detected.map(|at| at.since(from).as_millis());
    Scenario {
        fails: failing.iter().map(name).collect(),
        noticed_ms: noticed.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX)),
        sessions_lost: world.counts.sessions_lost,
        state: state(world, from),
    }
}

fn revive(world: &mut World<'_>, failing: &[(usize, Life)]) {
    failing.iter().for_each(|(at, _)| world.revive(*at));
    world.settle();
}

/// What [`Report::routes`] holds.
fn listed(world: &World<'_>, wanted: bool) -> BTreeMap<String, BTreeMap<Prefix, Vec<IpAddr>>> {
    let hops = |way: &Way| match way {
        Way::Here => Vec::new(),
        Way::Via(hops) => hops.to_vec(),
    };
    let of_speaker =
        |speaker: &Speaker| speaker.fib.iter().map(|(prefix, way)| (*prefix, hops(way))).collect();
    let speakers = world.cluster.speakers.iter().zip(&world.speakers).zip(&world.lives);
    let speakers = speakers.filter(|(_, life)| wanted && **life != Life::Dead);
    speakers.map(|((spec, speaker), _)| (spec.name.to_string(), of_speaker(speaker))).collect()
}

/// Kernel routes by the speaker's name.
type Routes = BTreeMap<Arc<str>, BTreeMap<Prefix, Way>>;

fn routes(world: &World<'_>) -> Routes {
    let speakers = world.cluster.speakers.iter().zip(&world.speakers).zip(&world.lives);
    let speakers = speakers.filter(|(_, life)| **life != Life::Dead);
    speakers.map(|((spec, speaker), _)| (Arc::clone(&spec.name), speaker.fib.clone())).collect()
}

/// Adds what happened on the way: sessions, and times without a route.
fn transited(transition: &Transition, world: &World<'_>, change: Change) -> Change {
    let mut gaps = Vec::new();
    let speakers = transition.cluster.speakers.iter().zip(&world.speakers).zip(&world.lives);
    for ((spec, speaker), _) in speakers.filter(|(_, life)| **life != Life::Dead) {
        let kept = speaker.gaps.iter().filter(|(prefix, _)| speaker.fib.contains_key(*prefix));
        gaps.extend(kept.map(|(prefix, gap)| Gap {
            from: spec.name.to_string(),
            prefix: *prefix,
            ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
        }));
    }
    gaps.sort_by(|a, b| b.ms.cmp(&a.ms).then_with(|| a.from.cmp(&b.from)));
    Change {
        sessions_begun: transition.count(|step| step == Step::Begin),
        sessions_ended: transition
            .count(|step| matches!(step, Step::End | Step::Fail | Step::Part)),
        sessions_restarted: transition.count(|step| matches!(step, Step::Restart { .. })),
        gaps,
        ..change
    }
}

fn compared(before: Routes, after: &Routes, objects: &[String], state: State) -> Change {
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    let none = BTreeMap::new();
    for (name, was) in &before {
        let is = after.get(name).unwrap_or(&none);
        for (prefix, way) in was {
            match is.get(prefix) {
                None => removed += 1,
                Some(other) => changed += u64::from(other != way),
            }
        }
    }
    for (name, is) in after {
        let was = before.get(name).unwrap_or(&none);
        added += is.keys().filter(|prefix| !was.contains_key(*prefix)).count() as u64;
    }
    Change {
        objects: objects.to_vec(),
        state,
        routes_added: added,
        routes_removed: removed,
        routes_changed: changed,
        sessions_begun: 0,
        sessions_ended: 0,
        sessions_restarted: 0,
        gaps: Vec::new(),
    }
}
