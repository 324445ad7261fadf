//! All speakers on one clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::Negotiated;
use bgp_proto::types::Time;

use super::cluster::Cluster;
use super::pair::{Established, Loss, Outcome};
use super::speaker::{Event, Speaker};
use super::spec::{End, Spec};
use super::{LATENCY, threads};

/// Moments after which a cluster counts as one that never settles: routes that go in circles.
const MOMENTS_MAX: u64 = 100_000;
/// How long after the last restart timer stale routes are gone at the latest.
const GRACE: Duration = Duration::from_secs(1);

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
        for speaker in &mut self.speakers {
            speaker.changes = 0;
            speaker.changed_at = self.now;
        }
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
