//! The world: speakers, the network between them, and the clock that moves both.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use super::net::{Ending, Event, Fault, LinkSpec, Net};
use super::random::Random;
use super::routing::{BestRoute, Routing};
use super::speaker::{NeighborSpec, Speaker, SpeakerId, SpeakerSpec};
use crate::session::{Close, Command, LocalIdentity, PeerConfig, Restart, State};
use crate::table::PeerRoutes;
use crate::types::{FamilySet, Prefix, Time};

/// How a speaker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The process dies; its machine closes the connections.
    Process,
    /// The machine dies; the peers are not notified.
    Machine,
}

/// Makes the routing of a speaker, at its start and after each restart.
pub type MakeRouting = Box<dyn Fn(&SpeakerSpec) -> Box<dyn Routing>>;

/// Speakers on one clock.
pub struct Sim {
    speakers: Vec<Speaker>,
    own: Vec<BTreeMap<Prefix, ()>>,
    make_routing: MakeRouting,
    net: Net,
    random: Random,
    trace: foldhash::fast::FoldHasher<'static>,
}

impl Sim {
    /// An empty world. Everything random in it comes from `seed`.
    pub fn new(seed: u64, make_routing: MakeRouting) -> Self {
        let mut random = Random::new(seed);
        Sim {
            speakers: Vec::new(),
            own: Vec::new(),
            make_routing,
            net: Net::new(Random::new(random.draw())),
            random,
            trace: new_trace(),
        }
    }

    /// A speaker that is not running yet.
    pub fn add_speaker(&mut self, spec: SpeakerSpec) -> SpeakerId {
        let id = SpeakerId(self.speakers.len());
        let batch_max = [1, 300, 65_536][self.random.index(3)];
        let routing = (self.make_routing)(&spec);
        self.speakers.push(Speaker::new(id, spec, routing, batch_max));
        self.own.push(BTreeMap::new());
        id
    }

    /// A session between two speakers, each side's parameters adjusted by `adjust(side, spec)`.
    pub fn connect(
        &mut self,
        a: SpeakerId,
        b: SpeakerId,
        link: LinkSpec,
        adjust: impl Fn(SpeakerId, &mut NeighborSpec),
    ) {
        self.net.add_link(a, b, link);
        for (from, to) in [(a, b), (b, a)] {
            let local = self.speakers[from.0].spec;
            let remote = self.speakers[to.0].spec;
            let identity = LocalIdentity { asn: local.asn, router_id: local.router_id };
            let mut session = PeerConfig::new(remote.address, remote.asn, &identity);
            session.families = FamilySet::ALL;
            let mut spec = NeighborSpec { session, routes: open_routes(to) };
            adjust(from, &mut spec);
            let seed = self.random.draw();
            self.speakers[from.0].add_neighbor(to, spec, seed);
        }
    }

    /// Starts a speaker that does not run.
    pub fn start(&mut self, id: SpeakerId, restart: Restart) {
        let now = self.net.now;
        self.speakers[id.0].start(now, restart, &mut self.net);
        for prefix in self.own[id.0].clone().into_keys() {
            self.speakers[id.0].routing.originate(now, prefix, true);
        }
        self.speakers[id.0].drain(now, &mut self.net);
    }

    /// Starts every speaker.
    pub fn start_all(&mut self) {
        (0..self.speakers.len()).for_each(|index| self.start(SpeakerId(index), Restart::Done));
    }

    /// Stops a speaker, which loses all its state.
    pub fn stop(&mut self, id: SpeakerId, outage: Outage) {
        let how = match outage {
            Outage::Process => Ending::Rst,
            Outage::Machine => Ending::Silence,
        };
        let routing = (self.make_routing)(&self.speakers[id.0].spec);
        self.speakers[id.0].die(how, routing, &mut self.net);
    }

    /// Issues an operator's command at `at`, for the session with `to`.
    pub fn command(&mut self, at: SpeakerId, to: SpeakerId, command: Command) {
        self.speakers[at.0].command(self.net.now, to, command, &mut self.net);
    }

    /// Adds a local route to a speaker.
    pub fn originate(&mut self, at: SpeakerId, prefix: Prefix) {
        self.own[at.0].insert(prefix, ());
        self.change_own(at, prefix, true);
    }

    /// Removes a local route from a speaker.
    pub fn withdraw(&mut self, at: SpeakerId, prefix: Prefix) {
        self.own[at.0].remove(&prefix);
        self.change_own(at, prefix, false);
    }

    /// Sets whether a speaker reads what arrives.
    pub fn set_reading(&mut self, at: SpeakerId, reading: bool) {
        let now = self.net.now;
        self.speakers[at.0].reading = reading;
        self.speakers[at.0].read_all(now, &mut self.net);
    }

    /// Nothing passes between two speakers until [`Sim::heal`].
    pub fn partition(&mut self, a: SpeakerId, b: SpeakerId) {
        self.net.partition(a, b);
    }

    /// Ends a partition; what was sent meanwhile arrives.
    pub fn heal(&mut self, a: SpeakerId, b: SpeakerId) {
        self.net.heal(a, b);
    }

    /// Breaks the connections between two speakers.
    pub fn reset(&mut self, a: SpeakerId, b: SpeakerId) {
        self.net.reset(a, b);
    }

    /// Plans a reset of the next connection between two speakers.
    pub fn set_fault(&mut self, a: SpeakerId, b: SpeakerId, fault: Fault) {
        self.net.set_fault(a, b, fault);
    }

    /// Ends every partition and cancels every planned reset.
    pub fn calm(&mut self) {
        self.net.clear_faults();
        for a in 0..self.speakers.len() {
            for b in self.speakers[a].neighbors.iter().map(|n| n.to) {
                self.net.heal(SpeakerId(a), b);
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.net.now + time;
        while self.step(end) {}
        self.net.now = end;
    }

    /// Lets time pass until `done` holds, at most `time`. Returns how long it took, or `None` if it
    /// never held. `done` is evaluated every 100 ms.
    pub fn run_until(&mut self, time: Duration, done: impl Fn(&Sim) -> bool) -> Option<Duration> {
        const INTERVAL: Duration = Duration::from_millis(100);
        let begin = self.net.now;
        while !done(self) {
            if self.net.now.since(begin) >= time {
                return None;
            }
            self.run_for(INTERVAL);
        }
        Some(self.net.now.since(begin))
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.net.now
    }

    /// State of the session with `to`, as `at` sees it.
    pub fn state(&self, at: SpeakerId, to: SpeakerId) -> State {
        self.speakers[at.0].neighbor(to).map_or(State::Idle, |n| n.peer.state())
    }

    /// Whether every session between running speakers is established on both sides.
    pub fn all_established(&self) -> bool {
        let running = |id: SpeakerId| self.speakers[id.0].running;
        self.speakers.iter().filter(|s| s.running).all(|speaker| {
            let neighbors = speaker.neighbors.iter().filter(|n| running(n.to));
            neighbors.map(|n| n.peer.state()).all(|state| state == State::Established)
        })
    }

    /// How often the session with `to` came up at `at`.
    pub fn ups(&self, at: SpeakerId, to: SpeakerId) -> u64 {
        self.speakers[at.0].neighbor(to).map_or(0, |n| n.ups)
    }

    /// How often `at` dialled `to`.
    pub fn dials(&self, at: SpeakerId, to: SpeakerId) -> u64 {
        self.speakers[at.0].neighbor(to).map_or(0, |n| n.dials)
    }

    /// Why the session with `to` ended last at `at`.
    pub fn last_down(&self, at: SpeakerId, to: SpeakerId) -> Option<&Close> {
        self.speakers[at.0].neighbor(to).and_then(|n| n.last_down.as_ref())
    }

    /// Octets of `sender` that arrived at `receiver` since the beginning.
    pub fn arrived(&self, sender: SpeakerId, receiver: SpeakerId) -> u64 {
        self.net.arrived(sender, receiver)
    }

    /// The routes that a speaker uses.
    pub fn best(&self, at: SpeakerId) -> BTreeMap<Prefix, BestRoute> {
        self.speakers[at.0].routing.best(self.net.now)
    }

    /// What `at` has advertised to `to`, as far as it knows.
    pub fn told(&self, at: SpeakerId, to: SpeakerId) -> BTreeMap<Prefix, BestRoute> {
        let peer = self.speakers[at.0].peer_id(to);
        peer.map(|p| self.speakers[at.0].routing.told(self.net.now, p)).unwrap_or_default()
    }

    /// What `at` has received from `from`.
    pub fn heard(&self, at: SpeakerId, from: SpeakerId) -> BTreeMap<Prefix, BestRoute> {
        let peer = self.speakers[at.0].peer_id(from);
        peer.map(|p| self.speakers[at.0].routing.heard(self.net.now, p)).unwrap_or_default()
    }

    /// Gateways of the routes in a speaker's kernel.
    pub fn installed(&self, at: SpeakerId) -> &BTreeMap<Prefix, BTreeSet<IpAddr>> {
        self.speakers[at.0].routing.installed()
    }

    /// How often a peer of `at` read so slowly that it fell off a group's log.
    pub fn evictions(&self, at: SpeakerId) -> u64 {
        self.speakers[at.0].routing.evictions()
    }

    /// The routes that a speaker originates.
    pub fn own(&self, at: SpeakerId) -> impl Iterator<Item = Prefix> {
        self.own[at.0].keys().copied()
    }

    /// A hash of everything that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn change_own(&mut self, at: SpeakerId, prefix: Prefix, present: bool) {
        let now = self.net.now;
        let speaker = &mut self.speakers[at.0];
        if speaker.running {
            speaker.routing.originate(now, prefix, present);
            speaker.drain(now, &mut self.net);
        }
    }

    /// One event or timer that is due before `end`.
    fn step(&mut self, end: Time) -> bool {
        let timers = self.speakers.iter().filter_map(|s| Some((s.poll_timeout()?, s.id)));
        let timer = timers.min();
        let event = self.net.next_at();
        let timer_first = timer.is_some_and(|(at, _)| event.is_none_or(|event| at < event));
        let Some(at) = timer.map(|(at, _)| at).into_iter().chain(event).min() else {
            return false;
        };
        if at > end {
            return false;
        }
        match timer {
            Some((at, id)) if timer_first => {
                self.net.now = self.net.now.max(at);
                self.note(id, 0, &[]);
                self.speakers[id.0].handle_timeout(self.net.now, &mut self.net);
            }
            _ => {
                if let Some((id, event)) = self.net.poll() {
                    self.deliver(id, event);
                }
            }
        }
        true
    }

    fn deliver(&mut self, id: SpeakerId, event: Event) {
        let now = self.net.now;
        match &event {
            Event::Octets(.., octets) => self.note(id, 1, octets),
            Event::Ended(.., text) => self.note(id, 2, text.as_bytes()),
            Event::Syn(_) => self.note(id, 3, &[]),
            Event::SynAck(_) => self.note(id, 4, &[]),
            Event::Refused(_) => self.note(id, 5, &[]),
            Event::Acknowledged(..) => {}
        }
        let speaker = &mut self.speakers[id.0];
        let net = &mut self.net;
        match event {
            Event::Syn(conn) => {
                let from = net.speaker(conn, super::net::Side::Dialler);
                speaker.handle_syn(now, conn, from, net);
            }
            Event::SynAck(conn) => speaker.handle_syn_ack(now, conn, net),
            Event::Refused(conn) => speaker.handle_refused(now, conn, net),
            Event::Octets(conn, _, octets) => speaker.handle_octets(now, conn, &octets, net),
            Event::Acknowledged(conn, ..) => speaker.handle_acknowledged(now, conn, net),
            Event::Ended(conn, _, text) => speaker.handle_ended(now, conn, text, net),
        }
    }

    fn note(&mut self, id: SpeakerId, kind: u8, octets: &[u8]) {
        self.trace.write_u64(self.net.now.as_micros());
        self.trace.write_usize(id.0);
        self.trace.write_u8(kind);
        self.trace.write(octets);
    }
}

fn open_routes(to: SpeakerId) -> PeerRoutes {
    PeerRoutes::new(format!("speaker-{}", to.0))
}

fn new_trace() -> foldhash::fast::FoldHasher<'static> {
    use std::hash::BuildHasher as _;
    foldhash::fast::FixedState::with_seed(0).build_hasher()
}
