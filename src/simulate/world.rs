//! All speakers on one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::Negotiated;
use bgp_proto::types::{PeerId, Time};

use super::cluster::Cluster;
use super::pair::{Established, Loss, Outcome};
use super::speaker::{Event, Speaker};
use super::spec::{End, Spec};
use super::transition::{Step, Transition};
use super::{LATENCY, threads};

/// Moments after which a cluster counts as one that never settles: routes that go in circles.
const MOMENTS_MAX: u64 = 100_000;
/// How long after the last restart timer stale routes are gone at the latest.
const GRACE: Duration = Duration::from_secs(1);

/// How long routes keep sessions up that part, as in the daemon.
const CARRIED_MAX: Duration = Duration::from_secs(15);

/// Speakers without what they were made from.
pub(super) struct Parts {
    speakers: Vec<Speaker>,
    now: Time,
}

/// The state of a speaker's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// margay has ended; the kernel forwards as before.
    WithoutProcess,
    Dead,
}

/// What happened since [`World::reset_counts`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) announced: u64,
    pub(super) withdrawn: u64,
    pub(super) sessions_lost: u64,
    /// When the first session ended.
    pub(super) detected: Option<Time>,
}

/// Speakers, and what is under way between them.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) speakers: Vec<Speaker>,
    pub(super) lives: Vec<Life>,
    now: Time,
    agenda: BTreeMap<Time, Vec<(u32, Event)>>,
    /// Until when deadlines of tables are waited for.
    horizon: Time,
    pub(super) counts: Counts,
    pub(super) settled: bool,
}

impl<'a> World<'a> {
    /// All speakers start.
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let now = Time::from_micros(1);
        let mut world = World {
            cluster,
            speakers: cluster.speakers.iter().map(|spec| Speaker::new(spec, now)).collect(),
            lives: vec![Life::Running; cluster.speakers.len()],
            now,
            agenda: BTreeMap::new(),
            horizon: now,
            counts: Counts::default(),
            settled: true,
        };
        for at in 0..world.speakers.len() {
            world.push(now, at, Event::Timeout);
            for (peer, end, session) in sessions(cluster, at) {
                world.push_up(at, peer, end, session);
            }
        }
        world
    }

    /// The speakers as they are, without what they were made from.
    pub(super) fn into_parts(self) -> Parts {
        Parts { speakers: self.speakers, now: self.now }
    }

    /// The same speakers as objects change: all act on it now.
    pub(super) fn changed(transition: &'a Transition, parts: Parts) -> Self {
        let cluster = &transition.cluster;
        let Parts { speakers, now } = parts;
        let mut world = World {
            cluster,
            lives: vec![Life::Running; cluster.speakers.len()],
            speakers,
            now,
            agenda: BTreeMap::new(),
            horizon: now,
            counts: Counts::default(),
            settled: true,
        };
        world.reset_counts();
        for (at, steps) in transition.steps.iter().enumerate() {
            world.speakers[at].reconfigure(&cluster.speakers[at], steps, now);
        }
        let fresh = cluster.speakers.iter().skip(world.speakers.len());
        let fresh: Vec<Speaker> = fresh.map(|spec| Speaker::new(spec, now)).collect();
        world.speakers.extend(fresh);
        for at in 0..world.speakers.len() {
            world.push(now, at, Event::Timeout);
            for peer in (0..).take(cluster.speakers[at].peers.len()) {
                if transition.step(at, peer) == Step::Fail {
                    world.push(now, at, Event::Down { peer, keep: None });
                }
            }
            for (peer, end, session) in every_session(cluster, at) {
                world.step(transition.step(at, peer), (at, peer), end, session);
            }
        }
        for (life, steps) in world.lives.iter_mut().zip(&transition.steps) {
            if steps.is_gone {
                *life = Life::Dead;
            }
        }
        world
    }

    fn step(&mut self, step: Step, (at, peer): (usize, u32), end: End, session: &Established) {
        match step {
            Step::Stay | Step::Part | Step::Fail => {}
            Step::Begin => self.push_up(at, peer, end, session),
            Step::End => self.push(self.now, at, Event::Removed { peer }),
            Step::Restart { is_ours } => {
                let keep = session.reset[usize::from(end.side)].keep.filter(|_| !is_ours);
                if let Some(keep) = &keep {
                    self.horizon = self.horizon.max(self.now + keep.restart_time + GRACE);
                }
                self.push(self.now, at, Event::Down { peer, keep });
                self.push_up(at, peer, end, session);
            }
        }
    }

    /// Ends the sessions that part: at first those on which no route depends at either end, and the
    /// others after [`CARRIED_MAX`].
    pub(super) fn end_parting(&mut self, transition: &Transition) {
        let mut parting: BTreeSet<(usize, u32)> = BTreeSet::new();
        for at in 0..self.speakers.len() {
            let own = every_session(self.cluster, at).map(|(peer, ..)| peer);
            parting.extend(own.filter(|p| transition.step(at, *p) == Step::Part).map(|p| (at, p)));
        }
        let depends: BTreeSet<usize> = (0..self.speakers.len())
            .filter(|at| {
                let own = parting.range((*at, 0)..=(*at, u32::MAX));
                let own: BTreeSet<PeerId> = own.map(|(_, peer)| PeerId(*peer)).collect();
                !own.is_empty() && self.speakers[*at].depends_on(&own)
            })
            .collect();
        let other = |(at, peer): &(usize, u32)| {
            let end = self.cluster.speakers[*at].peers[*peer as usize].other;
            end.map_or(*at, |end| end.speaker as usize)
        };
        let (late, now): (BTreeSet<_>, BTreeSet<_>) = parting
            .into_iter()
            .partition(|end| depends.contains(&end.0) || depends.contains(&other(end)));
        now.into_iter().for_each(|(at, peer)| self.push(self.now, at, Event::Removed { peer }));
        let later = self.now + CARRIED_MAX;
        late.into_iter().for_each(|(at, peer)| self.push(later, at, Event::Removed { peer }));
        self.settle();
    }

    /// The time.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Sessions that are established, each counted once.
    pub(super) fn established(&self) -> u64 {
        let running = self.speakers.iter().zip(&self.lives);
        let running = running.filter(|(_, life)| **life == Life::Running);
        running.map(|(speaker, _)| speaker.session_count() as u64).sum::<u64>() / 2
    }

    /// Begins to count again.
    pub(super) fn reset_counts(&mut self) {
        self.counts = Counts::default();
        let now = self.now;
        self.speakers.iter_mut().for_each(|speaker| speaker.reset_counts(now));
    }

    /// A speaker fails. The others notice later.
    pub(super) fn fail(&mut self, at: usize, life: Life) {
        if self.lives[at] != Life::Running {
            return;
        }
        self.lives[at] = life;
        for (_, end, session) in sessions(self.cluster, at) {
            if self.lives[end.speaker as usize] != Life::Running {
                continue;
            }
            let losses = if life == Life::Dead { &session.power } else { &session.process };
            let Loss { after, keep } = losses[usize::from(1 - end.side)];
            let time = self.now + after;
            if let Some(keep) = &keep {
                self.horizon = self.horizon.max(time + keep.restart_time + GRACE);
            }
            self.push(time, end.speaker as usize, Event::Down { peer: end.peer, keep });
        }
    }

    /// A failed speaker starts again, and its sessions are established again.
    pub(super) fn revive(&mut self, at: usize) {
        self.lives[at] = Life::Running;
        self.speakers[at] = Speaker::new(&self.cluster.speakers[at], self.now);
        self.push(self.now, at, Event::Timeout);
        for (peer, end, session) in sessions(self.cluster, at) {
            let other = end.speaker as usize;
            if self.lives[other] != Life::Running {
                continue;
            }
            self.push_up(at, peer, end, session);
            let back = End { speaker: at as u32, peer, outcome: end.outcome, side: 1 - end.side };
            self.push_up(other, end.peer, back, session);
        }
    }

    fn push(&mut self, time: Time, at: usize, event: Event) {
        self.agenda.entry(time).or_default().push((at as u32, event));
    }

    /// The session of `at`'s peer will be established.
    fn push_up(&mut self, at: usize, peer: u32, end: End, session: &Established) {
        let side = usize::from(end.side);
        let (spec, other) =
            (&self.cluster.speakers[at], &self.cluster.speakers[end.speaker as usize]);
        let address = spec.peers[peer as usize].address;
        let Some(local) = spec.address_towards(address) else { return };
        let negotiated = renamed(&session.negotiated[side], other, local, address);
        self.push(self.now + session.at[side], at, Event::Up { peer, negotiated });
    }

    /// Lets time pass until nothing is under way.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        for _ in 0..MOMENTS_MAX {
            let timers = self.speakers.iter().zip(&self.lives);
            let timers = timers.filter(|(_, life)| **life == Life::Running);
            let timer = timers.filter_map(|(speaker, _)| speaker.poll_timeout()).min();
            let timer = timer.filter(|at| *at <= self.horizon).map(|at| at.max(self.now));
            let message = self.agenda.first_key_value().map(|(at, _)| *at);
            let Some(at) = timer.into_iter().chain(message).min() else { return };
            self.now = self.now.max(at);
            self.moment();
        }
        self.settled = false;
    }

    /// Everything that is due now.
    fn moment(&mut self) {
        let now = self.now;
        while let Some(due) = self.agenda.first_entry().filter(|entry| *entry.key() <= now) {
            for (at, event) in due.remove() {
                let at = at as usize;
                if self.lives[at] == Life::Running {
                    self.note(&event);
                    self.speakers[at].inbox.push(event);
                }
            }
        }
        let horizon = self.horizon;
        for (speaker, life) in self.speakers.iter_mut().zip(&self.lives) {
            let is_due = speaker.poll_timeout().is_some_and(|at| at <= now && at <= horizon);
            if *life == Life::Running && is_due {
                speaker.inbox.push(Event::Timeout);
            }
        }
        self.run();
        let later = now + LATENCY;
        let mut outputs = Vec::new();
        for speaker in &mut self.speakers {
            outputs.append(&mut speaker.outbox);
        }
        if !outputs.is_empty() {
            let due = self.agenda.entry(later).or_default();
            due.extend(outputs.into_iter().map(|output| {
                (output.speaker, Event::Update { peer: output.peer, update: output.update })
            }));
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Update { update, .. } => {
                self.counts.announced += update.announced;
                self.counts.withdrawn += update.withdrawn;
            }
            Event::Down { .. } => {
                self.counts.sessions_lost += 1;
                self.counts.detected.get_or_insert(self.now);
            }
            Event::Removed { .. } => self.counts.sessions_lost += 1,
            Event::Up { .. } | Event::Timeout => {}
        }
    }

    /// Runs the speakers that have something to do; threads share them.
    fn run(&mut self) {
        let (cluster, now) = (self.cluster, self.now);
        let mut busy: Vec<(&Spec, &mut Speaker)> = cluster
            .speakers
            .iter()
            .zip(&mut self.speakers)
            .filter(|(_, speaker)| !speaker.inbox.is_empty())
            .collect();
        // Starting a thread costs more than running a few speakers.
        let share = busy.len().div_ceil(threads()).max(4);
        if busy.len() <= share {
            busy.iter_mut().for_each(|(spec, speaker)| speaker.run(cluster, spec, now));
            return;
        }
        std::thread::scope(|scope| {
            for part in busy.chunks_mut(share) {
                scope.spawn(move || {
                    part.iter_mut().for_each(|(spec, speaker)| speaker.run(cluster, spec, now));
                });
            }
        });
    }
}

/// The sessions of a speaker that can be established.
fn sessions(cluster: &Cluster, at: usize) -> impl Iterator<Item = (u32, End, &Established)> {
    let is_configured = move |peer: u32| cluster.speakers[at].peers[peer as usize].is_configured;
    every_session(cluster, at).filter(move |(peer, ..)| is_configured(*peer))
}

/// The same, with those that a change has removed.
fn every_session(cluster: &Cluster, at: usize) -> impl Iterator<Item = (u32, End, &Established)> {
    let peers = (0..).zip(&cluster.speakers[at].peers);
    peers.filter_map(|(peer, spec)| {
        let end = spec.other?;
        match cluster.outcomes.get(end.outcome as usize)? {
            Outcome::Up(session) => Some((peer, end, &**session)),
            Outcome::Down(_) => None,
        }
    })
}

/// What was negotiated, on a session with other addresses.
fn renamed(of: &Negotiated, other: &Spec, local: IpAddr, remote: IpAddr) -> Arc<Negotiated> {
    Arc::new(Negotiated {
        peer_router_id: other.router_id(),
        local_addr: local,
        remote_addr: remote,
        ..of.clone()
    })
}
