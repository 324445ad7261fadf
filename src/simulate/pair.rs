//! Both ends of one session: the real state machines, with a connection that takes time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bgp_proto::session::{Action, Close, Command, Keep, Negotiated, Peer, PeerConfig, Slot, State};
use bgp_proto::types::Time;
use bgp_proto::wire::RouteBatch;

use super::LATENCY;

/// A session that is not established after this time is one that never will be: longer than every
/// timer before the first attempt and its repetition.
const PATIENCE: Duration = Duration::from_secs(300);
/// More inputs than this to one pair are a loop.
const EVENTS_MAX: usize = 10_000;

/// What is true of a session, and of every other one with the same parameters.
pub(super) enum Outcome {
    /// It is established.
    Up(Box<Established>),
    /// It never is, for this reason.
    Down(String),
}

/// An established session; values in pairs are of the first and the second end.
pub(super) struct Established {
    /// When, after the start of both speakers.
    pub(super) at: [Duration; 2],
    pub(super) negotiated: [Arc<Negotiated>; 2],
    /// How this end learns that the other lost power.
    pub(super) power: [Loss; 2],
    /// How this end learns that the other's process ended.
    pub(super) process: [Loss; 2],
    /// How this end learns that the other's parameters changed.
    pub(super) reset: [Loss; 2],
    /// Decodes what this end receives.
    pub(super) decoder: [Mutex<Decoder>; 2],
}

/// The end of a session at one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    /// How long after the other side failed.
    pub(super) after: Duration,
    /// Which routes are kept as stale.
    pub(super) keep: Option<Keep>,
}

/// What happens to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// It loses power.
    Power,
    /// Its process ends.
    Process,
    /// Its parameters change.
    Reset,
}

/// One end of an established session, which takes what the other end sends.
pub(super) struct Decoder {
    peer: Peer,
    slot: Slot,
}

impl Decoder {
    /// The routes in octets that the session received. `None`: they end it.
    pub(super) fn decode(&mut self, octets: &[u8]) -> Option<RouteBatch> {
        let mut batch = RouteBatch::default();
        let now = self.peer.session_since();
        let taken = self.peer.handle_bytes(now, self.slot, octets, &mut batch, usize::MAX);
        let is_whole = taken == octets.len() && self.peer.state() == State::Established;
        // Lines for the log: nobody reads them here.
        while self.peer.poll_action().is_some() {}
        is_whole.then_some(batch)
    }
}

/// Runs a session; `dials` says of each end whether its connections arrive at the other.
pub(super) fn outcome(configs: [&Arc<PeerConfig>; 2], dials: [bool; 2]) -> Outcome {
    let mut pair = Pair::new(configs, dials);
    let Some(at) = pair.establish() else {
        return Outcome::Down(pair.reason());
    };
    let negotiated = [0, 1].map(|end| pair.ends[end].peer.negotiated().cloned());
    let [Some(first), Some(second)] = negotiated else {
        return Outcome::Down(pair.reason());
    };
    let lost = |dead: usize, failing| {
        let mut pair = Pair::new(configs, dials);
        pair.establish()?;
        pair.lose(dead, failing)
    };
    let none = Loss { after: Duration::ZERO, keep: None };
    // The first end's loss is the second's failure.
    let losses = |failing| [1, 0].map(|dead| lost(dead, failing).unwrap_or(none));
    let decoder = pair.ends.map(|end| Mutex::new(Decoder { peer: end.peer, slot: end.slot }));
    Outcome::Up(Box::new(Established {
        at,
        negotiated: [first, second],
        power: losses(Failing::Power),
        process: losses(Failing::Process),
        reset: losses(Failing::Reset),
        decoder,
    }))
}

/// A connection's end at one peer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Conn(usize);

struct End {
    peer: Peer,
    address: IpAddr,
    /// Whether our connections arrive.
    dials: bool,
    /// The connection of each slot.
    conns: [Option<Conn>; 3],
    /// Octets that are not a whole message yet.
    received: [Vec<u8>; 3],
    dialling: Option<Conn>,
    /// The slot of the session.
    slot: Slot,
    up: Option<Time>,
    down: Option<(Time, Option<Keep>)>,
    /// It lost power: it neither sends nor takes anything.
    dead: bool,
}

/// What arrives at an end.
enum Event {
    /// A connection that the other dialled.
    Syn(Conn),
    /// A connection that this end dialled is accepted.
    Accepted(Conn),
    Refused(Conn),
    Octets(Conn, Vec<u8>),
    Closed(Conn),
}

struct Pair {
    now: Time,
    ends: [End; 2],
    /// By time and number, which keeps the order within a moment: the end, and what arrives.
    events: BTreeMap<(Time, usize), (usize, Event)>,
    number: usize,
    conns: usize,
}

impl Pair {
    fn new(configs: [&Arc<PeerConfig>; 2], dials: [bool; 2]) -> Self {
        // The address of an end is the one that the other has configured.
        let [a, b] = configs;
        let end = |config: &Arc<PeerConfig>, address: IpAddr, dials| End {
            peer: Peer::new(Arc::clone(config), u64::from(config.router_id.0)),
            address,
            dials,
            conns: [None; 3],
            received: Default::default(),
            dialling: None,
            slot: Slot::Outgoing,
            up: None,
            down: None,
            dead: false,
        };
        let [dials_a, dials_b] = dials;
        Pair {
            now: Time::ZERO,
            ends: [end(a, b.address, dials_a), end(b, a.address, dials_b)],
            events: BTreeMap::new(),
            number: 0,
            conns: 0,
        }
    }

    /// Starts both ends; returns when each was established.
    fn establish(&mut self) -> Option<[Duration; 2]> {
        for end in 0..2 {
            self.ends[end].peer.handle_command(self.now, Command::Start);
            self.act(end);
        }
        let until = Time::ZERO + PATIENCE;
        self.run(until, |ends| ends.iter().all(|end| end.up.is_some() && end.down.is_none()));
        let [a, b] = [0, 1].map(|end| self.ends[end].up.map(|at| at.since(Time::ZERO)));
        Some([a?, b?])
    }

    /// One end fails; returns what the other notices.
    fn lose(&mut self, dead: usize, failing: Failing) -> Option<Loss> {
        let from = self.now;
        let other = 1 - dead;
        self.ends[other].down = None;
        match failing {
            Failing::Power => self.events.retain(|_, (end, _)| *end == dead),
            Failing::Process => {
                let open: Vec<Conn> = self.ends[dead].conns.iter().flatten().copied().collect();
                open.into_iter().for_each(|conn| self.send(other, Event::Closed(conn)));
            }
            Failing::Reset => {
                let close = Command::Stop(Close::ConfigurationChange);
                self.ends[dead].peer.handle_command(self.now, close);
                self.act(dead);
            }
        }
        self.ends[dead].dead = true;
        // Hold times are up to 65535 s.
        let until = self.now + Duration::from_secs(70_000);
        self.run(until, |ends| ends[other].down.is_some());
        let (at, keep) = self.ends[other].down?;
        Some(Loss { after: at.since(from), keep })
    }

    /// Why there is no session.
    fn reason(&self) -> String {
        let said = |end: &End| {
            let error = end.peer.last_bgp_error().or_else(|| end.peer.last_error());
            error.map(|error| error.text.clone())
        };
        let [a, b] = &self.ends;
        if !a.dials && !b.dials {
            return "neither side can open the connection: ports or TCP MD5 keys differ".to_owned();
        }
        said(a)
            .or_else(|| said(b))
            .unwrap_or_else(|| "neither side opens the connection".to_owned())
    }

    fn send(&mut self, end: usize, event: Event) {
        self.number += 1;
        self.events.insert((self.now + LATENCY, self.number), (end, event));
    }

    /// Lets time pass until `done` holds.
    fn run(&mut self, until: Time, done: impl Fn(&[End; 2]) -> bool) {
        for _ in 0..EVENTS_MAX {
            if done(&self.ends) {
                return;
            }
            let timers = self.ends.iter().enumerate().filter(|(_, end)| !end.dead);
            let timer = timers.filter_map(|(at, end)| Some((end.peer.poll_timeout()?.0, at))).min();
            let event = self.events.first_key_value().map(|(key, _)| key.0);
            match (timer, event) {
                (Some((at, end)), event) if event.is_none_or(|event| at < event) => {
                    if at > until {
                        return;
                    }
                    self.now = self.now.max(at);
                    self.ends[end].peer.handle_timeout(self.now);
                    self.act(end);
                }
                (_, Some(at)) if at <= until => {
                    let Some((_, (end, event))) = self.events.pop_first() else { return };
                    self.now = self.now.max(at);
                    if !self.ends[end].dead {
                        self.deliver(end, event);
                        self.act(end);
                    }
                }
                _ => return,
            }
        }
    }

    fn deliver(&mut self, at: usize, event: Event) {
        let now = self.now;
        let remote = self.ends[1 - at].address;
        let end = &mut self.ends[at];
        match event {
            Event::Syn(conn) => {
                let slot = end.peer.incoming_slot();
                end.connect(now, slot, conn, remote);
                self.send(1 - at, Event::Accepted(conn));
            }
            Event::Accepted(conn) if end.dialling == Some(conn) => {
                end.dialling = None;
                end.connect(now, Slot::Outgoing, conn, remote);
            }
            Event::Accepted(conn) => self.send(1 - at, Event::Closed(conn)),
            Event::Refused(conn) => {
                if end.dialling == Some(conn) {
                    end.dialling = None;
                    end.peer.handle_connect_failed(now, "connection refused");
                }
            }
            Event::Octets(conn, octets) => {
                let Some(slot) = end.slot_of(conn) else { return };
                let mut octets = [std::mem::take(&mut end.received[slot.index()]), octets].concat();
                let mut batch = RouteBatch::default();
                let taken = end.peer.handle_bytes(now, slot, &octets, &mut batch, usize::MAX);
                octets.drain(..taken.min(octets.len()));
                end.received[slot.index()] = octets;
            }
            Event::Closed(conn) => {
                if let Some(slot) = end.slot_of(conn) {
                    end.conns[slot.index()] = None;
                    end.peer.handle_closed(now, slot, "the connection was closed");
                }
            }
        }
    }

    /// Performs what the state machine asks for, and sends what it has to send.
    fn act(&mut self, at: usize) {
        let now = self.now;
        while let Some(action) = self.ends[at].peer.poll_action() {
            match action {
                Action::Connect => {
                    self.conns += 1;
                    let conn = Conn(self.conns);
                    self.ends[at].dialling = Some(conn);
                    if self.ends[at].dials {
                        self.send(1 - at, Event::Syn(conn));
                    } else {
                        self.send(at, Event::Refused(conn));
                    }
                }
                Action::AbortConnect => self.ends[at].dialling = None,
                Action::Close { slot, .. } => {
                    self.flush(at, slot);
                    if let Some(conn) = self.ends[at].conns[slot.index()].take() {
                        self.ends[at].received[slot.index()].clear();
                        self.send(1 - at, Event::Closed(conn));
                    }
                }
                Action::Up { slot, .. } => {
                    let end = &mut self.ends[at];
                    (end.slot, end.up, end.down) = (slot, Some(now), None);
                }
                Action::Down { keep, .. } => self.ends[at].down = Some((now, keep)),
                Action::Note(_) | Action::Faulty(_) => {}
            }
        }
        Slot::ALL.into_iter().for_each(|slot| self.flush(at, slot));
    }

    fn flush(&mut self, at: usize, slot: Slot) {
        let mut octets = Vec::new();
        let end = &mut self.ends[at];
        if let Some(conn) = end.conns[slot.index()]
            && end.peer.poll_transmit(slot, &mut octets)
        {
            end.peer.handle_sent(self.now, slot);
            self.send(1 - at, Event::Octets(conn, octets));
        }
    }
}

impl End {
    fn connect(&mut self, now: Time, slot: Slot, conn: Conn, remote: IpAddr) {
        self.conns[slot.index()] = Some(conn);
        self.received[slot.index()].clear();
        let local = SocketAddr::new(self.address, 179);
        self.peer.handle_connected(now, slot, local, SocketAddr::new(remote, 179));
    }

    fn slot_of(&self, conn: Conn) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.conns[slot.index()] == Some(conn))
    }
}
